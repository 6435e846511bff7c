"""Triplets of spans to what backbones learn, and back to an extraction. No PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..features import Entity, Extraction, Triplet
from ..schema import Schema

Span = tuple[int, int]
"""Words of a sentence, end exclusive."""


class SpanTriplet(NamedTuple):
    """A relation between two spans, and the index of its label."""

    head: Span
    tail: Span
    label: int


def gold_triplets(extraction: Extraction, schema: Schema) -> Iterator[SpanTriplet]:
    """The triplets of a sentence, each once; of symmetric ones the argument that is first in the text is the head."""
    seen = set()
    for head, tail, label, _ in extraction.triplets:
        one, other = ((entity.start, entity.end) for entity in (extraction.entities[head], extraction.entities[tail]))
        if schema.is_turned(label, one, other):
            one, other = other, one
        triplet = SpanTriplet(one, other, label)
        if triplet not in seen:
            seen.add(triplet)
            yield triplet


def best_arguments(found: Iterable[tuple[SpanTriplet, float]]) -> dict[Span, float]:
    """The spans that scored triplets name, each with the score of the best."""
    best: dict[Span, float] = {}
    for (head, tail, _), score in found:
        for span in (head, tail):
            best[span] = max(score, best.get(span, 0.0))
    return best


def to_extraction(
    found: Iterable[tuple[SpanTriplet, float]], entities: Iterable[Entity], schema: Schema | None = None
) -> Extraction:
    """An extraction of scored triplets between entities: each once, with its highest score.

    entities: at least those that the triplets name. Symmetric relations are found once, with the argument that is first
    in the text as head; without a schema none is known to be symmetric.
    """
    ordered = sorted(entities)
    rows = {(entity.start, entity.end): row for row, entity in reversed([*enumerate(ordered)])}
    best: dict[tuple[int, int, int], float] = {}
    for (head, tail, label), score in found:
        if head == tail:
            continue
        one, other = rows[head], rows[tail]
        if schema is not None and schema.is_turned(label, one, other):
            one, other = other, one
        best[one, other, label] = max(score, best.get((one, other, label), 0.0))
    return Extraction(ordered, [Triplet(*key, score) for key, score in sorted(best.items())])
