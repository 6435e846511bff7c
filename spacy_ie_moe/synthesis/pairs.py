"""Which ordered pairs of a document's entities are asked about, and which of them in one prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from ..corpora.conversion import too_far
from ..glirel.candidates import Candidates

Pair = tuple[int, int]


@dataclass(frozen=True)
class Limits:
    """What one prompt may hold.

    window: words of the text. max_pairs: ordered pairs. max_distance: words between the starts of head and tail; pairs
    that are further apart, or that no window holds, are not asked about.
    """

    window: int = 400
    max_pairs: int = 20
    max_distance: int | None = None

    @property
    def between(self) -> tuple[int, int | None]:
        """As of ``too_far``."""
        return self.window, self.max_distance


@dataclass(frozen=True)
class Part:
    """What one prompt asks: the pairs, head and tail as rows of the candidates, and the words [start, end) shown."""

    pairs: tuple[Pair, ...]
    start: int
    end: int


def split_pairs(candidates: Candidates, length: int, limits: Limits) -> tuple[list[Part], int]:
    """All ordered pairs of a document with ``length`` words, in parts, and how many are too far apart.

    A pair and its reverse are neighbours; each part shows as much of the text around its pairs as the window holds.
    """
    near: list[tuple[Pair, int, int]] = []
    spans = [(start, end) for start, end in candidates.spans.tolist()]
    for first, head in enumerate(spans):
        for second, tail in enumerate(islice(spans, first + 1, None), first + 1):
            if too_far(head, tail[:1] * 2, limits.between):  # and so are those that begin behind it
                break
            if not too_far(head, tail, limits.between):
                end = max(head[1], tail[1])
                near += [((first, second), head[0], end), ((second, first), head[0], end)]
    far = len(spans) * (len(spans) - 1) - len(near)
    return [_part(group, length, limits.window) for group in _groups(near, limits)], far


def _groups(pairs: Sequence[tuple[Pair, int, int]], limits: Limits) -> Iterator[list[tuple[Pair, int, int]]]:
    """Runs of pairs, each with the words [start, end) around it, that one prompt may hold. Starts ascend."""
    group: list[tuple[Pair, int, int]] = []
    for pair, start, end in pairs:
        if group:
            latest = max(end, *(other for _, _, other in group))
            if len(group) == limits.max_pairs or latest - group[0][1] > limits.window:
                yield group
                group = []
        group.append((pair, start, end))
    if group:
        yield group


def _part(group: Sequence[tuple[Pair, int, int]], length: int, window: int) -> Part:
    """Shows the words of the pairs, and as many before as behind them where there are."""
    start = group[0][1]
    room = window - (max(end for _, _, end in group) - start)
    end = min(length, max(0, start - room // 2) + window)
    return Part(tuple(pair for pair, _, _ in group), max(0, end - window), end)
