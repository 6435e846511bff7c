"""Boxes out of their corners: what OD-RTE's tables say, as triplets. NumPy only.

A triplet is a box in the table of its relation, head words by tail words, and its corners are tagged. Boxes of one
relation may share rows, columns and corners, so corners are matched to the nearest ones instead of all to all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CORNERS = BEGIN_BEGIN, BEGIN_END, END_END, END_BEGIN = range(4)
"""The tags, by the word of the head and the word of the tail that they stand at."""


class Cells(NamedTuple):
    """Tagged cells, each an array [M]: the table (a sentence and a relation), the head's word, the tail's, the tag."""

    table: np.ndarray
    head: np.ndarray
    tail: np.ndarray
    tag: np.ndarray
    score: np.ndarray


class Boxes(NamedTuple):
    """Boxes, each an array [T]: the table, words of head and tail (ends inclusive), and the least score of a corner."""

    table: np.ndarray
    head_begin: np.ndarray
    head_end: np.ndarray
    tail_begin: np.ndarray
    tail_end: np.ndarray
    score: np.ndarray


def match_corners(cells: Cells, *, both: bool) -> Boxes:
    """The boxes that two ways of matching find: along the rows first, and along the columns first.

    both: only what both ways find, each with all four corners, which favours precision; else what either finds. The
    score is the least of the corners that were used; where each of two ways suffices, that of the better one.
    """
    along_rows = _match(cells, BEGIN_END)
    turned = _match(cells._replace(head=cells.tail, tail=cells.head), END_BEGIN)
    along_columns = Boxes(
        turned.table, turned.tail_begin, turned.tail_end, turned.head_begin, turned.head_end, turned.score
    )
    found: dict[tuple[int, ...], list[float]] = {}
    for boxes in (along_rows, along_columns):
        for *key, score in zip(*(column.tolist() for column in boxes), strict=True):
            found.setdefault(tuple(key), []).append(score)
    if both:
        found = {key: scores for key, scores in found.items() if len(scores) == 2}
    choose = min if both else max
    keys = sorted(found)
    table, head, head_end, tail, tail_end = np.array(keys, dtype=np.int64).reshape(-1, 5).T
    scores = np.array([choose(found[key]) for key in keys], dtype=np.float32)
    return Boxes(table, head, head_end, tail, tail_end, scores)


def _match(cells: Cells, side: int) -> Boxes:
    """Boxes by rows: a begin-begin corner, the ``side`` corner that follows in its row, and the next end below that.

    Where another begin-begin corner follows in the row before any side corner, there is no box: the next one's is
    nearer. Rows are heads; for columns turn the cells.
    """
    size = 1 + max(cells.head.max(initial=0), cells.tail.max(initial=0))
    chosen = (cells.tag == BEGIN_BEGIN) | (cells.tag == side)
    table, row, column, tag, score = (values[chosen] for values in cells)
    order = np.lexsort((tag != BEGIN_BEGIN, column, row, table))
    table, row, column, tag, score = (values[order] for values in (table, row, column, tag, score))
    first = np.flatnonzero(
        (tag[:-1] == BEGIN_BEGIN) & (tag[1:] == side) & (table[:-1] == table[1:]) & (row[:-1] == row[1:])
    )
    second = first + 1
    ends = cells.tag == END_END
    places = (cells.table[ends] * size + cells.tail[ends]) * size + cells.head[ends]
    sorting = np.argsort(places)
    places, end_scores = places[sorting], cells.score[ends][sorting]
    columns = table[first] * size + column[second]
    third = np.searchsorted(places, columns * size + row[first])
    there = third < len(places)
    there[there] = places[third[there]] // size == columns[there]
    first, second, third = first[there], second[there], third[there]
    return Boxes(
        table[first],
        row[first],
        places[third] % size,
        column[first],
        column[second],
        np.minimum(np.minimum(score[first], score[second]), end_scores[third]),
    )
