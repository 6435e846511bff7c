"""Gold documents as lessons for the network: windows, targets and the gradient of the loss."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from spacy.tokens import Doc, Span

from ..corpora.conversion import too_far
from ..relations import check_relation
from .batch import Window
from .candidates import Candidates, collect, make_pairs
from .plan import Planner
from .training import (
    Gold,
    Loss,
    Sampling,
    close_under_symmetry,
    make_targets,
)

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Lesson:
    """Windows of a batch with the targets [P, C] of each."""

    windows: list[Window] = field(default_factory=list)
    targets: list[np.ndarray] = field(default_factory=list)


class Teacher:
    """Prepares batches of gold documents and rates what the network makes of them.

    sampling, loss: options of ``Sampling`` and ``Loss``. labels: what negatives are drawn from.
    """

    def __init__(
        self,
        sampling: Mapping[str, Any],
        loss: Mapping[str, Any],
        labels: Sequence[str],
        rng: random.Random,
    ) -> None:
        self.sampling = _make(Sampling, "sampling", sampling)
        self.loss = _make(Loss, "loss", loss)
        self.labels = list(labels)
        self.rng = rng
        self.said_beyond = False

    def prepare(self, docs: Sequence[Doc], network: Any, planner: Planner) -> Lesson:
        """The windows and targets of a batch; documents with fewer than two entities teach nothing."""
        lesson = Lesson()
        taught = [
            (doc, candidates, close_under_symmetry(_gold_pairs(doc, candidates), self.sampling.symmetric))
            for doc in docs
            if len(candidates := _gold_candidates(doc, planner)) > 1
        ]
        in_batch = {label for _, _, gold in taught for labels in gold.values() for label in labels}
        pool = self.sampling.sample_pool(in_batch, self.labels, self.rng)
        for doc, candidates, gold in taught:
            known = self._known_labels(doc, pool)
            labels = self.sampling.sample_labels(set().union(*gold.values()), known, self.rng)
            if labels:
                self._add(lesson, doc, candidates, gold, labels, network, planner)
        return lesson

    def _add(
        self,
        lesson: Lesson,
        doc: Doc,
        candidates: Candidates,
        gold: Gold,
        labels: list[str],
        network: Any,
        planner: Planner,
    ) -> None:
        every = np.ones((len(candidates), 1), dtype=bool)
        pairs = make_pairs(candidates, every, every, planner.max_pair_distance)
        pairs = self.sampling.sample_pairs(pairs, gold, self.rng)
        unknown = _ignored_pairs(doc, candidates, pairs)
        prompt = sum(map(len, network.prompt(labels)))
        beyond = set(gold)
        for window, _, rows in planner.windows(doc, candidates, pairs, network, prompt):
            beyond.difference_update(map(tuple, pairs[rows].tolist()))
            targets = make_targets(pairs[rows], labels, gold, unknown)
            lesson.windows.append(replace(window, labels=tuple(labels)))
            lesson.targets.append(targets)
        if beyond and not self.said_beyond:
            self.said_beyond = True
            logger.warning(
                "a document of %d tokens has %d related pairs that no window of the encoder, or max_pair_distance, "
                "holds together; they are not taught, here and in later documents.",
                len(doc),
                len(beyond),
            )

    def _known_labels(self, doc: Doc, pool: Sequence[str]) -> Sequence[str]:
        """The labels of ``pool`` that the document's annotators looked for (``user_data["annotated_labels"]``)."""
        annotated = doc.user_data.get("annotated_labels")
        if annotated is None:
            return pool
        return [label for label in pool if label in annotated]

    def get_loss(self, lesson: Lesson, logits: Sequence[np.ndarray]) -> tuple[float, list[np.ndarray]]:
        """The loss and its gradient with respect to each window's logits [P, C]."""
        leaves = [torch.from_numpy(scores).requires_grad_() for scores in logits]
        loss = self.loss(lesson.windows, leaves, [torch.from_numpy(target) for target in lesson.targets])
        gradients = torch.autograd.grad(loss, leaves)
        return float(loss.detach()), [gradient.numpy() for gradient in gradients]


def _make(kind: type[T], name: str, options: Mapping[str, Any]) -> T:
    """A dataclass from options of the config. Raises ``ValueError`` on one that it does not have."""
    known = {option.name for option in fields(kind)}  # type: ignore[arg-type]
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has the option {option!r}; expected {', '.join(sorted(known))}.")
    return kind(**options)


def _gold_candidates(doc: Doc, planner: Planner) -> Candidates:
    """The candidates of a document and the arguments of its gold relations."""
    own = planner.candidates(doc)
    spans = [
        Span(doc, start, end, label=label)
        for (start, end), types in zip(own.spans.tolist(), own.types, strict=True)
        for label in types
    ]
    taken = {(span.start, span.end) for span in spans}
    for relation in doc._.relations:
        check_relation(doc, relation)
        for side in ("head", "tail"):
            start, end = relation[f"{side}_pos"]
            if (start, end) not in taken:
                spans.append(Span(doc, start, end, label=relation.get(f"{side}_label", "")))
    return collect(spans)


def _rows(candidates: Candidates) -> dict[tuple[int, ...], int]:
    return {tuple(position): row for row, position in enumerate(candidates.spans.tolist())}


def _gold_pairs(doc: Doc, candidates: Candidates) -> Gold:
    """The gold labels of each pair of candidate rows."""
    rows = _rows(candidates)
    gold: dict[tuple[int, int], frozenset[str]] = {}
    for relation in doc._.relations:
        pair = rows[tuple(relation["head_pos"])], rows[tuple(relation["tail_pos"])]
        gold[pair] = gold.get(pair, frozenset()) | {relation["label"]}
    return gold


def _ignored_pairs(doc: Doc, candidates: Candidates, pairs: np.ndarray) -> set[tuple[int, int]]:
    """The ``pairs`` whose lack of a relation means nothing (``ignored_pairs``, ``pair_limits``: see the converters)."""
    rows = _rows(candidates)
    ignored = set()
    for head_start, head_end, tail_start, tail_end in doc.user_data.get("ignored_pairs", ()):
        head, tail = rows.get((head_start, head_end)), rows.get((tail_start, tail_end))
        if head is not None and tail is not None:
            ignored.add((head, tail))
    limits = doc.user_data.get("pair_limits")
    if limits is not None:
        places = [(start, end) for start, end in candidates.spans.tolist()]
        ignored.update((head, tail) for head, tail in pairs.tolist() if too_far(places[head], places[tail], limits))
    return ignored
