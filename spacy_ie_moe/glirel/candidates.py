"""Which spans of a document may be related, and which ordered pairs of them are worth scoring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from spacy.tokens import Doc, Span

from ..labels import RelationLabel


@dataclass(frozen=True)
class Candidates:
    """Spans of a document, each once, with all the entity types that they have there.

    spans: [N, 2] tokens, end exclusive, in document order. types: N tuples of type names.
    """

    spans: np.ndarray
    types: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.types)

    def types_for(self, allowed: frozenset[str]) -> list[str]:
        """The type of each span that a label allows (its first where any is, or where none is allowed)."""
        return [next((name for name in types if name in allowed), types[0]) for types in self.types]


def collect(spans: Iterable[Span]) -> Candidates:
    """Candidates of any spans; overlapping ones are kept, equal ones become one, empty ones are none."""
    types: dict[tuple[int, int], dict[str, None]] = {}
    for span in spans:
        if span.start < span.end:
            types.setdefault((span.start, span.end), {})[span.label_] = None
    ordered = sorted(types)
    return Candidates(
        np.array(ordered, dtype=np.int64).reshape(-1, 2), [tuple(types[position]) for position in ordered]
    )


def find_spans(doc: Doc, span_groups: Sequence[str]) -> list[Span]:
    """The spans of a document's named groups, or else its entities. Missing groups are empty."""
    if not span_groups:
        return list(doc.ents)
    return [span for name in span_groups if name in doc.spans for span in doc.spans[name]]


def allowed_roles(candidates: Candidates, labels: Sequence[RelationLabel]) -> tuple[np.ndarray, np.ndarray]:
    """Whether a candidate may be head, and tail, of a label: [N, C] bool, twice."""
    kinds = sorted(set(candidates.types))
    row = {kind: index for index, kind in enumerate(kinds)}
    own = np.array([row[kind] for kind in candidates.types], dtype=np.int64)

    def table(side: str) -> np.ndarray:
        allowed = [getattr(label, side) for label in labels]
        return np.array([[not names or not names.isdisjoint(kind) for names in allowed] for kind in kinds])

    return table("allowed_head")[own], table("allowed_tail")[own]


def make_pairs(
    candidates: Candidates, head_allowed: np.ndarray, tail_allowed: np.ndarray, max_distance: int | None
) -> np.ndarray:
    """Ordered pairs [P, 2] of different candidates that some label allows, row by row.

    max_distance: the most tokens between the starts of head and tail, in either direction.
    """
    possible = head_allowed.astype(np.float32) @ tail_allowed.astype(np.float32).T > 0
    np.fill_diagonal(possible, False)
    if max_distance is not None:
        start = candidates.spans[:, 0]
        possible &= np.abs(start[:, None] - start[None, :]) <= max_distance
    return np.argwhere(possible)
