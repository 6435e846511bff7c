"""Long documents in parts that a language model can read, and what was found in the parts put together again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
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


def merge_frames(found: Iterable[tuple[Window, DocFrame]]) -> list[DocFrame]:
    """The frames of a document by the windows that they were found in: each once, with its highest score.

    Of several windows a frame goes where another has its type and filler and all of its slots and more, and so does
    one with words at a border of its window where another has these words and more: it was cut there.
    """
    best: dict[Any, tuple[Window, DocFrame]] = {}
    for window, frame in found:
        key = frame_key(frame)
        if key not in best or frame["score"] > best[key][1]["score"]:
            best[key] = window, frame
    windows = {window for window, _ in best.values()}
    frames = [frame for _, frame in best.values()]
    if len(windows) < 2:
        return sort_frames(frames)
    by_type: dict[str, list[DocFrame]] = {}
    by_filler: dict[Any, list[DocFrame]] = {}
    for frame in frames:
        by_type.setdefault(frame["type"], []).append(frame)
        by_filler.setdefault((frame["type"], _position(frame)), []).append(frame)
    kept = []
    for window, frame in best.values():
        cut = any(span[0] == window.start or span[1] == window.end for _, span in _spans(frame))
        others = by_type[frame["type"]] if cut else by_filler[frame["type"], _position(frame)]
        if not any(_is_part(frame, other, window) for other in others):
            kept.append(frame)
    return sort_frames(kept)


def _is_part(frame: DocFrame, other: DocFrame, window: Window) -> bool:
    """Whether the other has all that the frame has, and more. window: at whose borders spans may be longer there."""
    spans, others = _spans(frame), _spans(other)
    if spans == others or len(spans) > len(others):
        return False
    return all(any(name == kind and _holds(whole, span, window) for name, whole in others) for kind, span in spans)


def _holds(whole: tuple[int, int], span: tuple[int, int], window: Window) -> bool:
    before = whole[0] == span[0] or (span[0] == window.start and whole[0] < span[0])
    behind = whole[1] == span[1] or (span[1] == window.end and whole[1] > span[1])
    return before and behind


def _spans(frame: DocFrame) -> set[tuple[str | None, tuple[int, int]]]:
    """The tokens of the slots by their types, and those of the frame itself, under None."""
    own = set() if frame["pos"] is None else {(None, (frame["pos"][0], frame["pos"][1]))}
    return own | {(slot["type"], (slot["pos"][0], slot["pos"][1])) for slot in frame["slots"]}


def _position(frame: DocFrame) -> tuple[int, ...] | None:
    return None if frame["pos"] is None else tuple(frame["pos"])
