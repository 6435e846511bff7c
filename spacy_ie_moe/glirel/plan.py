"""From a document to the windows that the network scores, and from its scores to relations."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from spacy.tokens import Doc

from ..labels import RelationLabel
from ..relations import Relation
from .batch import Keep, Selected, Window
from .candidates import Candidates, allowed_roles, collect, find_spans, make_pairs
from .windows import group_labels, make_windows


@dataclass
class Job:
    """One window to score: its pairs as rows of the document's, its labels as indices of the document's."""

    window: Window
    pairs: np.ndarray
    labels: np.ndarray
    size: int
    selected: Selected | None = None


@dataclass
class DocumentPlan:
    """All that is to be scored for a document. pairs: [P, 2] rows of its candidates."""

    doc: Doc
    candidates: Candidates
    labels: list[RelationLabel]
    pairs: np.ndarray
    jobs: list[Job] = field(default_factory=list)
    unscored: int = 0

    def relations(self, top_k: int | None) -> list[Relation]:
        """The relations of the scored jobs, best first."""
        found = [
            (job.pairs[job.selected.pairs], job.labels[job.selected.labels], job.selected.scores)
            for job in self.jobs
            if job.selected is not None
        ]
        if not found:
            return []
        rows, labels, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
        if top_k is not None and not has_echoes(self.labels):
            rows, labels, scores = _keep_top_k(rows, labels, scores, top_k)
        rank = {name: index for index, name in enumerate(sorted(label.name for label in self.labels))}
        names = np.array([rank[label.name] for label in self.labels])
        heads, tails = self.pairs[rows].T
        order = np.lexsort((names[labels], tails, heads, -scores))
        columns = (column[order].tolist() for column in (heads, tails, labels, scores))
        entries: Any = zip(*columns, strict=True)
        return self._write(self._without_echoes(entries, top_k) if has_echoes(self.labels) else entries)

    def _without_echoes(self, entries: Any, top_k: int | None) -> Iterator[tuple[int, int, int, float]]:
        """Leave out what says the same as a better relation: the reverse of a symmetric one, or its inverse.

        Of what is left a pair keeps its ``top_k`` best, so that an echo takes no other label's place.
        """
        echoes = _echoes(self.labels)
        seen = set()
        used: Counter[tuple[int, int]] = Counter()
        for head, tail, label, score in entries:
            if any((tail, head, echo) in seen for echo in echoes[label]):
                continue
            if top_k is None or used[head, tail] < top_k:
                used[head, tail] += 1
                seen.add((head, tail, label))
                yield head, tail, label, score

    def _write(self, entries: Any) -> list[Relation]:
        words = [token.text for token in self.doc]
        spans = self.candidates.spans.tolist()
        texts = [words[start:end] for start, end in spans]
        head_types = [self.candidates.types_for(label.allowed_head) for label in self.labels]
        tail_types = [self.candidates.types_for(label.allowed_tail) for label in self.labels]
        names = [label.name for label in self.labels]
        with _no_garbage():
            return [
                {
                    "head_pos": [*spans[head]],
                    "tail_pos": [*spans[tail]],
                    "head_text": [*texts[head]],
                    "tail_text": [*texts[tail]],
                    "label": names[label],
                    "score": score,
                    "head_label": head_types[label][head],
                    "tail_label": tail_types[label][tail],
                }
                for head, tail, label, score in entries
            ]


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Do not look for garbage meanwhile: among a hundred thousand new lists, all kept, the search takes half the
    time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def has_echoes(labels: Sequence[RelationLabel]) -> bool:
    """Whether two relations of these labels can say the same."""
    return any(label.symmetric or label.inverse for label in labels)


def _echoes(labels: Sequence[RelationLabel]) -> list[list[int]]:
    """For each label the labels that say the same of the reversed pair."""
    index = {label.name: position for position, label in enumerate(labels)}
    echoes: list[list[int]] = [[position] if label.symmetric else [] for position, label in enumerate(labels)]
    for position, label in enumerate(labels):
        if label.inverse is not None:
            echoes[position].append(index[label.inverse])
            echoes[index[label.inverse]].append(position)
    return echoes


def _keep_top_k(
    rows: np.ndarray, labels: np.ndarray, scores: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k best labels of each pair, of equal scores the first label."""
    order = np.lexsort((labels, -scores, rows))
    ordered = rows[order]
    first = np.searchsorted(ordered, ordered)
    best = order[np.arange(len(order)) - first < k]
    return rows[best], labels[best], scores[best]


@dataclass(frozen=True)
class Planner:
    """Turns documents into plans. span_groups, max_pair_distance: see ``Glirel``."""

    span_groups: Sequence[str]
    max_pair_distance: int | None

    def candidates(self, doc: Doc) -> Candidates:
        """The spans of a document that may be related."""
        return collect(find_spans(doc, self.span_groups))

    def plan(
        self,
        doc: Doc,
        candidates: Candidates,
        labels: list[RelationLabel],
        network: Any,
        threshold: float,
        top_k: int | None,
    ) -> DocumentPlan | None:
        """The jobs of a document, or None if no label allows any pair."""
        head_allowed, tail_allowed = allowed_roles(candidates, labels)
        pairs = make_pairs(candidates, head_allowed, tail_allowed, self.max_pair_distance)
        if not len(pairs):
            return None
        plan = DocumentPlan(doc, candidates, labels, pairs)
        thresholds = np.array([_float32_up(label.threshold, threshold) for label in labels], dtype=np.float32)
        texts = [read_as(label) for label in labels]
        groups = list(_label_groups(doc, texts, network))
        prompt = max(size for _, size in groups)  # one room for all groups, so that all score the same pairs
        kept = None if has_echoes(labels) else top_k
        scored = np.zeros(len(pairs), dtype=bool)
        for window, used, rows in self.windows(doc, candidates, pairs, network, prompt):
            scored[rows] = True
            for group, size in groups:
                cells = np.ix_(used, group)
                keep = Keep(thresholds[group], head_allowed[cells], tail_allowed[cells], kept)
                job_window = replace(window, labels=tuple(texts[i] for i in group), keep=keep)
                plan.jobs.append(Job(job_window, rows, group, window.n_pieces + size))
        plan.unscored = int((~scored).sum())
        return plan

    def windows(
        self, doc: Doc, candidates: Candidates, pairs: np.ndarray, network: Any, prompt: int
    ) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
        """See ``make_windows``. prompt: pieces of the labels that each window has before its text.

        An entity none of whose words has a piece (white space, say) cannot be read, so its pairs are in no window.
        Raises ``ValueError`` if the labels leave no room for text.
        """
        words = network.pieces([token.text for token in doc])
        limit = network.max_pieces
        room = None if limit is None else limit - prompt - special_pieces(network)
        if room is not None and room < 1:
            raise ValueError(f"the labels take {prompt} pieces of an encoder that reads {limit}; expected fewer.")
        readable = np.array([any(words[start:end]) for start, end in candidates.spans.tolist()])
        rows_read = np.flatnonzero(readable[pairs].all(axis=1))
        limits = {"max_pieces": room, "max_words": network.max_words}
        for window, used, rows in make_windows(words, candidates.spans, pairs[rows_read], **limits):
            yield window, used, rows_read[rows]


def read_as(label: RelationLabel) -> str:
    """What the network reads for a label: its name, with the description if it has one."""
    return f"{label.name}: {label.description}" if label.description else label.name


def special_pieces(network: Any) -> int:
    """How many pieces the encoder wants around every input."""
    return len(network.pieces.prefix) + len(network.pieces.suffix)


def _label_groups(doc: Doc, texts: Sequence[str], network: Any) -> Iterator[tuple[np.ndarray, int]]:
    """Label indices that are read together, with the pieces of their prompt."""
    if network.reads_labels_apart:
        yield np.arange(len(texts)), 0
        return
    sizes = [1 + len(pieces) for pieces in network.pieces(texts)]
    limit = network.max_pieces
    if limit is not None and max(sizes) > limit // 2:
        longest = texts[int(np.argmax(sizes))]
        raise ValueError(
            f"the label {longest[:40]!r} takes {max(sizes)} pieces of an encoder that reads {limit}; expected at most "
            f"{limit // 2}."
        )
    text = sum(map(len, network.pieces([token.text for token in doc])))
    end = 1 + special_pieces(network)
    for group in group_labels(sizes, limit, text + end):
        yield group, 1 + sum(sizes[index] for index in group)


def _float32_up(own: float | None, threshold: float) -> np.float32:
    """The least float32 that is not below a label's threshold, so that what is kept also reads as at least it."""
    exact = threshold if own is None else float(own)
    rounded = np.float32(exact)
    return rounded if float(rounded) >= exact else np.nextafter(rounded, np.float32(2))


def batch_by_size(jobs: Sequence[Job], budget: int) -> Iterator[list[Job]]:
    """Jobs sorted by size in batches whose padded size stays within ``budget`` pieces (one job at least)."""
    batch: list[Job] = []
    for job in sorted(jobs, key=lambda job: -job.size):
        if batch and batch[0].size * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch
