"""Documents of any length as windows that fit the encoder, each pair in the window where it has most context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .batch import Pieces, Window


def group_labels(prompts: Sequence[int], max_pieces: int | None, room: int) -> list[np.ndarray]:
    """Label indices in groups whose prompts fit beside the text, as even as possible.

    prompts: pieces of each label with its marker. max_pieces: the encoder's longest input, special ones included;
    None: no limit. room: pieces of the text with special ones. All labels stay
    together if they fit; otherwise a group takes at most half of the input, so that text keeps the other half.
    """
    total = sum(prompts)
    if max_pieces is None or total + room <= max_pieces or total <= max_pieces // 2:
        return [np.arange(len(prompts))]
    capacity = max_pieces // 2
    groups: list[list[int]] = [[]]
    used = 0
    share = total / -(-total // capacity)  # even groups: the last one would else be the smallest
    for index, size in enumerate(prompts):
        if groups[-1] and (used + size > capacity or used >= share):
            groups.append([])
            used = 0
        groups[-1].append(index)
        used += size
    return [np.array(group) for group in groups]


def split_words(words: Sequence[Pieces], *, max_pieces: int | None, max_words: int | None) -> list[tuple[int, int]]:
    """Word ranges [start, end) that fit and overlap by half.

    max_pieces: room for the text. A word longer than that has a window of its own (and is cut there).
    """
    ends = np.cumsum([len(word) for word in words]) if words else np.zeros(0, dtype=np.int64)
    room = max_pieces if max_pieces is not None else int(ends[-1]) if len(ends) else 0
    ranges = []
    start = 0
    while True:
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(np.searchsorted(ends, before + room, side="right")))
        end = min(end, len(words), start + (max_words or len(words)))
        ranges.append((start, end))
        if end >= len(words):
            return ranges
        middle = before + (int(ends[end - 1]) - before) / 2
        start = min(max(start + 1, int(np.searchsorted(ends, middle, side="right"))), end)


def assign_pairs(spans: np.ndarray, pairs: np.ndarray, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
    """The range of each pair; -1 where none holds both.

    spans: [N, 2] words; pairs: [P, 2] rows of spans. The first range keeps all pairs that it holds, so the start of
    a long document reads as if it were all of it (and as the reference reads it); any other pair goes to where it
    is farthest from a cut. The document's end is no cut.
    """
    if len(ranges) == 1:
        return np.zeros(len(pairs), dtype=np.int64)
    low = spans[pairs].min(axis=(1, 2))
    high = spans[pairs].max(axis=(1, 2))
    best = np.full(len(pairs), -1, dtype=np.int64)
    margin = np.full(len(pairs), -1, dtype=np.int64)
    last = ranges[-1][1]
    for index, (start, end) in enumerate(ranges):
        left = np.full(len(pairs), last + 1) if start == 0 else low - start
        right = np.full(len(pairs), last + 1) if end == last or start == 0 else end - high
        here = np.where((low >= start) & (high <= end), np.minimum(left, right), -1)
        better = here > margin
        best[better], margin[better] = index, here[better]
    return best


def cover_rest(
    words: Sequence[Pieces],
    spans: np.ndarray,
    pairs: np.ndarray,
    ranges: list[tuple[int, int]],
    assigned: np.ndarray,
    *,
    max_pieces: int | None,
    max_words: int | None,
) -> None:
    """Add ranges for pairs that straddle the regular ones but would fit: each starts where such a pair does.

    Changes ``ranges`` and ``assigned`` in place; what stays -1 fits nowhere.
    """
    low, high = spans[pairs].min(axis=(1, 2)), spans[pairs].max(axis=(1, 2))
    ends = np.concatenate([[0], np.cumsum([len(word) for word in words])])
    size = ends[high] - ends[low]
    fits = (max_pieces is None or size <= max_pieces) & (max_words is None or high - low <= max_words)
    rest = np.flatnonzero((assigned < 0) & fits)
    rest = rest[np.argsort(low[rest], kind="stable")]
    while len(rest):
        start = int(low[rest[0]])
        end = len(words) if max_pieces is None else int(np.searchsorted(ends, ends[start] + max_pieces, "right")) - 1
        end = min(end, len(words), start + (max_words or len(words)))
        held = high[rest] <= end
        assigned[rest[held]] = len(ranges)
        ranges.append((start, end))
        rest = rest[~held]


def make_windows(
    words: Sequence[Pieces],
    spans: np.ndarray,
    pairs: np.ndarray,
    *,
    max_pieces: int | None,
    max_words: int | None,
) -> Iterator[tuple[Window, np.ndarray, np.ndarray]]:
    """Windows of a document with (rows of ``spans`` [n], rows of ``pairs`` [p]) that they hold; labels are empty.

    Pairs that no window can hold are in none. A word longer than a window is cut to it.
    """
    ranges = split_words(words, max_pieces=max_pieces, max_words=max_words)
    assigned = assign_pairs(spans, pairs, ranges)
    if len(ranges) > 1:
        cover_rest(words, spans, pairs, ranges, assigned, max_pieces=max_pieces, max_words=max_words)
    for index, (start, end) in enumerate(ranges):
        rows = np.flatnonzero(assigned == index)
        if not len(rows):
            continue
        used, local = np.unique(pairs[rows], return_inverse=True)
        text = tuple(word[:max_pieces] for word in words[start:end])
        window = Window(text, spans[used] - start, local.reshape(-1, 2), labels=())
        yield window, used, rows
