"""Which spans and pairs a span-based backbone learns from (SpERT, section 3.2). NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..features import Extraction
from ..schema import Schema


@dataclass(frozen=True)
class SpanTargets:
    """Spans of a batch of sentences, and pairs of the gold ones.

    sentence, start, end: [S] the sentence of each span and its words in it, end exclusive. types: [S] the class, 0
    for no entity. entities: [G] the rows of the gold spans. head, tail: [P] rows of ``entities``. labels: [P, R] 1
    where the relation holds.
    """

    sentence: np.ndarray
    start: np.ndarray
    end: np.ndarray
    types: np.ndarray
    entities: np.ndarray
    head: np.ndarray
    tail: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Sampler:
    """All gold spans and pairs of a sentence, and some others drawn at random.

    max_span: the widest negative span in words; gold ones may be wider. negative_spans: at most so many spans that
    are no entity. negative_pairs: at most so many ordered pairs of gold entities without relation.
    """

    schema: Schema
    max_span: int
    negative_spans: int
    negative_pairs: int

    def __call__(self, lengths: np.ndarray, gold: Sequence[Extraction], rng: np.random.Generator) -> SpanTargets:
        """lengths: [B] words of the sentences, one at least. gold: what is annotated in them."""
        spans, entities, pairs, labels = [], [], [], []
        n_spans = n_entities = 0
        for sentence, (length, extraction) in enumerate(zip(lengths.tolist(), gold, strict=True)):
            positive = np.array([(e.start, e.end, e.type + 1) for e in extraction.entities], dtype=np.int64)
            drawn = self._spans(length, positive.reshape(-1, 3), rng)
            spans.append(np.column_stack([np.full(len(drawn), sentence), drawn]))
            entities.append(np.arange(n_spans, n_spans + len(positive)))
            drawn_pairs, drawn_labels = self._pairs(extraction, rng)
            pairs.append(drawn_pairs + n_entities)
            labels.append(drawn_labels)
            n_spans += len(drawn)
            n_entities += len(positive)
        owner, start, end, types = np.concatenate(spans).T
        head, tail = np.concatenate(pairs).T
        return SpanTargets(owner, start, end, types, np.concatenate(entities), head, tail, np.concatenate(labels))

    def _spans(self, length: int, positive: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows (start, end, class): the positive ones, then negatives."""
        _, start, end = all_spans(np.array([length]), self.max_span)
        is_gold = np.isin(start * (length + 1) + end, positive[:, 0] * (length + 1) + positive[:, 1])
        negative = np.column_stack([start, end, np.zeros_like(start)])[~is_gold]
        if len(negative) > self.negative_spans:
            negative = negative[rng.choice(len(negative), self.negative_spans, replace=False)]
        return np.concatenate([positive, negative])

    def _pairs(self, extraction: Extraction, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Pairs [P, 2] of entities and their labels [P, R]."""
        positive: dict[tuple[int, int], list[int]] = {}
        for head, tail, label, _ in extraction.triplets:
            one, other = extraction.entities[head], extraction.entities[tail]
            if self.schema.is_turned(label, one[:2], other[:2]):
                head, tail = tail, head
            positive.setdefault((head, tail), []).append(label)
        negative = self._negatives(len(extraction.entities), {*positive, *extraction.unknown}, rng)
        labels = np.zeros((len(positive) + len(negative), len(self.schema.relations)), dtype=np.float32)
        for row, names in enumerate(positive.values()):
            labels[row, names] = 1
        return np.array([*positive, *negative], dtype=np.int64).reshape(-1, 2), labels

    def _negatives(self, size: int, known: set[tuple[int, int]], rng: np.random.Generator) -> list[tuple[int, int]]:
        """Up to ``negative_pairs`` ordered pairs of ``size`` entities that are not ``known``, without listing all."""
        numbers = size * (size - 1)  # of pairs: head, and tail among the others
        wanted = min(numbers, self.negative_pairs + len(known))
        drawn = rng.choice(numbers, wanted, replace=False) if wanted < numbers else np.arange(numbers)
        heads, tails = np.divmod(drawn, max(1, size - 1))
        tails += tails >= heads
        pairs = [pair for pair in zip(heads.tolist(), tails.tolist(), strict=True) if pair not in known]
        return pairs[: self.negative_pairs]


def all_spans(lengths: np.ndarray, max_span: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sentence, start and end [S] of every span of at most ``max_span`` words in sentences of ``lengths`` [B] words."""
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    start = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    remaining = np.repeat(lengths, lengths) - start
    widths = np.minimum(remaining, max_span)
    row = np.repeat(np.arange(len(start)), widths)
    width = np.arange(widths.sum()) - np.repeat(np.cumsum(widths) - widths, widths) + 1
    return sentence[row], start[row], start[row] + width
