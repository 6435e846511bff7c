"""Windows over long documents: everything is covered, nothing is scored twice, what does not fit is counted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_ie_moe.glirel.plan import Job, batch_by_size
from spacy_ie_moe.glirel.windows import Window, assign_pairs, group_labels, make_windows, split_words

limits = st.none() | st.integers(1, 40)
lengths_of_words = st.lists(st.integers(0, 6), max_size=80)


def make_words(lengths: list[int]) -> list[tuple[int, ...]]:
    return [tuple(range(index, index + length)) for index, length in enumerate(lengths)]


@given(lengths_of_words, limits, limits)
def test_windows_cover_every_word_and_fit(lengths: list[int], max_pieces: int | None, max_words: int | None) -> None:
    words = make_words(lengths)
    ranges = split_words(words, max_pieces=max_pieces, max_words=max_words)
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(words)
    for (start, end), (following, next_end) in itertools.pairwise(ranges):
        assert start < following <= end < next_end or (start < following <= end == next_end), "a gap"
    for start, end in ranges:
        assert end > start or not words
        assert max_words is None or end - start <= max_words
        if max_pieces is not None and end - start > 1:
            assert sum(lengths[start:end]) <= max_pieces


def test_a_text_that_fits_is_one_window() -> None:
    words = make_words([1, 2, 3])
    assert split_words(words, max_pieces=6, max_words=3) == [(0, 3)]
    assert split_words(words, max_pieces=None, max_words=None) == [(0, 3)]
    assert split_words([], max_pieces=5, max_words=5) == [(0, 0)]


def test_windows_overlap_by_half() -> None:
    words = make_words([1] * 20)
    assert split_words(words, max_pieces=8, max_words=None) == [(0, 8), (4, 12), (8, 16), (12, 20)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=80), st.integers(12, 40), st.data())
def test_words_near_each_other_share_a_window(lengths: list[int], room: int, data: st.DataObject) -> None:
    ranges = split_words(make_words(lengths), max_pieces=room, max_words=None)
    start = data.draw(st.integers(0, len(lengths) - 1))
    end = start
    while end < len(lengths) and sum(lengths[start : end + 1]) <= (room - max(lengths)) // 2:
        end += 1
    assert any(low <= start and end <= high for low, high in ranges)


spans_in = st.lists(st.tuples(st.integers(0, 59), st.integers(1, 5)), min_size=2, max_size=12)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), spans_in, limits, limits)
def test_each_pair_is_in_one_window_that_holds_both_or_in_none(
    lengths: list[int], drawn: list[tuple[int, int]], max_pieces: int | None, max_words: int | None
) -> None:
    words = make_words(lengths)
    n = len(words)
    spans = np.array(sorted({(start % n, min(n, start % n + length)) for start, length in drawn}))
    pairs = np.argwhere(~np.eye(len(spans), dtype=bool))
    seen: list[int] = []
    for window, used, rows in make_windows(words, spans, pairs, max_pieces=max_pieces, max_words=max_words):
        seen += rows.tolist()
        assert isinstance(window, Window)
        assert window.spans.min() >= 0
        assert window.spans.max() <= len(window.words)
        # The window's pairs are the document's: the same words at the same places.
        shift = spans[used] - window.spans
        assert len(np.unique(shift)) == 1
        start = int(shift[0, 0])
        assert max_words is None or len(window.words) <= max_words
        assert (used[window.pairs] == pairs[rows]).all()
        for own, word in zip(window.words, words[start:], strict=False):
            assert own == word or (len(window.words) == 1 and own == word[:max_pieces])
        assert max_pieces is None or window.n_pieces <= max_pieces
    assert len(seen) == len(set(seen)), "a pair is scored twice"
    for row in set(range(len(pairs))) - set(seen):
        low, high = spans[pairs[row]].min(), spans[pairs[row]].max()
        pieces = sum(map(len, words[low:high]))
        fits = (max_pieces is None or pieces <= max_pieces) and (max_words is None or high - low <= max_words)
        assert not fits, "a pair is lost"


def test_the_first_window_keeps_its_pairs_and_others_go_where_cuts_are_far() -> None:
    ranges = [(0, 10), (5, 15), (10, 20)]
    spans = np.array([[8, 9], [9, 10], [12, 13], [14, 15], [2, 3]])
    pairs = np.array([[0, 1], [1, 2], [2, 3], [3, 2], [4, 3]])
    assert assign_pairs(spans, pairs, ranges).tolist() == [0, 1, 2, 2, -1]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.none() | st.integers(8, 256), st.integers(0, 200))
def test_groups_of_labels_are_a_partition_in_order(prompts: list[int], pieces: int | None, room: int) -> None:
    groups = group_labels(prompts, pieces, room)
    assert np.concatenate(groups).tolist() == list(range(len(prompts)))
    assert all(len(group) for group in groups)
    if pieces is None or sum(prompts) + room <= pieces:
        assert len(groups) == 1
    elif len(groups) > 1:
        for group in groups:
            assert len(group) == 1 or sum(prompts[index] for index in group) <= pieces // 2


def test_groups_are_even() -> None:
    groups = group_labels([4] * 33, 128, 100)
    assert [len(group) for group in groups] == [11, 11, 11]


@given(st.lists(st.integers(1, 100), max_size=40), st.integers(1, 300))
def test_batches_hold_every_job_once_within_the_budget(sizes: list[int], budget: int) -> None:
    empty = Window((), np.zeros((0, 2), int), np.zeros((0, 2), int), ())
    jobs = [Job(empty, np.zeros(0, int), np.zeros(0, int), size) for size in sizes]
    batches = list(batch_by_size(jobs, budget))
    assert sorted(id(job) for batch in batches for job in batch) == sorted(map(id, jobs))
    for batch in batches:
        assert batch
        assert len(batch) == 1 or max(job.size for job in batch) * len(batch) <= budget


@pytest.mark.parametrize("size", [1, 7])
def test_windows_of_a_word_longer_than_the_room_are_cut(size: int) -> None:
    words = make_words([2, 20, 2])
    spans, pairs = np.array([[1, 2], [1, 2]]), np.array([[0, 1]])
    (window,) = [w for w, _, _ in make_windows(words, spans, pairs, max_pieces=size, max_words=None)]
    assert window.words == (words[1][:size],)
