"""Long documents in parts that a language model can read, and what was found in the parts put together again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from spacy.tokens import Doc, Span

from .doc_frames import DocFrame, frame_key, sort_frames
from .prompts import Prompter

OVERLAP = 0.25
"""The share of a window that the next one reads again, so that what lies on a border is whole in one of them."""


class Window(NamedTuple):
    """Tokens [start, end) of a document."""

    start: int
    end: int


def make_windows(doc: Doc, prompter: Prompter, limit: int) -> list[Window]:
    """The parts of ``doc``, each of at most ``limit`` tokens of the language model, or of one word.

    They end where a sentence does if the document has sentences and one ends in the window's last part.
    """
    if not len(doc):
        return []
    if len(doc.text.encode("utf8", "replace")) <= limit:  # no token is shorter than a byte
        return [Window(0, len(doc))]
    starts = prompter.starts(doc.text)
    before = [bisect_left(starts, token.idx) for token in doc] + [len(starts)]  # tokens in front of each word
    windows: list[Window] = []
    start = last = 0
    while last < len(doc):
        end = bisect_right(before, before[start] + limit) - 1
        if end <= last < len(doc) and start < last:  # the overlap leaves no room for anything new
            start += 1
            continue
        end = max(end, start + 1)
        while end - start > 1 and len(prompter.tokens(doc[start:end].text)) > limit:  # alone it may have more
            end -= 1
        if end < len(doc) and (border := _border(doc, start, end)) > last:
            end = border
        windows.append(Window(start, end))
        last = end
        start = min(last, max(start + 1, bisect_left(before, before[last] - OVERLAP * limit)))
    return windows


def _border(doc: Doc, start: int, end: int) -> int:
    """The last start of a sentence in the second half of a window, else its end."""
    if doc.has_annotation("SENT_START"):
        for token in range(end, start + (end - start) // 2, -1):
            if doc[token].is_sent_start:
                return token
    return end


def text_of(doc: Doc, window: Window) -> Span:
    """The tokens of a window."""
    return doc[window.start : window.end]


def merge_frames(frames: Iterable[DocFrame], *, overlapping: bool) -> list[DocFrame]:
    """The frames of a document, each once, with its highest score.

    overlapping: they are of several windows. Then a frame goes where another has its type and filler, and all of its
    slots and more: it was cut by a border.
    """
    best: dict[Any, DocFrame] = {}
    for frame in frames:
        key = frame_key(frame)
        if key not in best or frame["score"] > best[key]["score"]:
            best[key] = frame
    if not overlapping:
        return sort_frames(best.values())
    by_filler: dict[Any, list[DocFrame]] = {}
    for frame in best.values():
        by_filler.setdefault((frame["type"], _position(frame)), []).append(frame)
    kept = [frame for group in by_filler.values() for frame in group if not _is_part(frame, group)]
    return sort_frames(kept)


def _is_part(frame: DocFrame, others: Sequence[DocFrame]) -> bool:
    slots = _slots(frame)
    return any(slots < _slots(other) for other in others)


def _slots(frame: DocFrame) -> set[tuple[Any, ...]]:
    return {(slot["type"], *slot["pos"]) for slot in frame["slots"]}


def _position(frame: DocFrame) -> tuple[int, ...] | None:
    return None if frame["pos"] is None else tuple(frame["pos"])
