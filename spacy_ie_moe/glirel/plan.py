"""From a document to the windows that the network scores, and from its scores to relations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from spacy.tokens import Doc

from ..labels import RelationLabel
from ..relations import Relation
from .batch import Keep, Selected, Window
from .candidates import Candidates, allowed_roles, find_candidates, make_pairs
from .windows import Limits, group_labels, make_windows


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
        if top_k is not None and len(self.jobs) > 1:
            rows, labels, scores = _keep_top_k(rows, labels, scores, top_k)
        rank = {name: index for index, name in enumerate(sorted(label.name for label in self.labels))}
        names = np.array([rank[label.name] for label in self.labels])
        heads, tails = self.pairs[rows].T
        order = np.lexsort((names[labels], tails, heads, -scores))
        columns = (column[order].tolist() for column in (heads, tails, labels, scores))
        entries: Any = zip(*columns, strict=True)
        if any(label.symmetric or label.inverse for label in self.labels):
            entries = self._without_echoes(entries)
        return self._write(entries)

    def _without_echoes(self, entries: Any) -> Iterator[tuple[int, int, int, float]]:
        """Leave out what says the same as a better relation: the reverse of a symmetric one, or its inverse."""
        index = {label.name: position for position, label in enumerate(self.labels)}
        seen = set()
        for head, tail, label, score in entries:
            kind = self.labels[label]
            echoes = [label] if kind.symmetric else []
            if kind.inverse is not None:
                echoes.append(index[kind.inverse])
            echoes += [i for i, other in enumerate(self.labels) if other.inverse == kind.name]
            if any((tail, head, echo) in seen for echo in echoes):
                continue
            seen.add((head, tail, label))
            yield head, tail, label, score

    def _write(self, entries: Any) -> list[Relation]:
        words = [token.text for token in self.doc]
        spans = self.candidates.spans.tolist()
        texts = [words[start:end] for start, end in spans]
        return [
            {
                "head_pos": [*spans[head]],
                "tail_pos": [*spans[tail]],
                "head_text": [*texts[head]],
                "tail_text": [*texts[tail]],
                "label": self.labels[label].name,
                "score": score,
                "head_label": self.candidates.type_for(head, self.labels[label].allowed_head),
                "tail_label": self.candidates.type_for(tail, self.labels[label].allowed_tail),
            }
            for head, tail, label, score in entries
        ]


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
        return find_candidates(doc, self.span_groups)

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
        scored = np.zeros(len(pairs), dtype=bool)
        for group, prompt in _label_groups(doc, texts, network):
            for window, used, rows in self.windows(doc, candidates, pairs, network, prompt):
                keep = Keep(
                    thresholds[group], head_allowed[np.ix_(used, group)], tail_allowed[np.ix_(used, group)], top_k
                )
                window = replace(window, labels=tuple(texts[i] for i in group), keep=keep)
                plan.jobs.append(Job(window, rows, group, window.n_pieces + prompt))
                scored[rows] = True
        plan.unscored = int((~scored).sum())
        return plan

    def windows(
        self, doc: Doc, candidates: Candidates, pairs: np.ndarray, network: Any, prompt: int
    ) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
        """See ``make_windows``. prompt: pieces of the labels that each window has before its text."""
        words = network.pieces([token.text for token in doc])
        limit = network.max_pieces
        room = None if limit is None else limit - prompt - special_pieces(network)
        return make_windows(words, candidates.spans, pairs, max_pieces=room, max_words=network.max_words)


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
    text = sum(map(len, network.pieces([token.text for token in doc])))
    end = 1 + special_pieces(network)
    for group in group_labels(sizes, Limits(network.max_pieces, network.max_words), text + end):
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
