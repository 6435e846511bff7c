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


FrameSpan = tuple[str | None, tuple[int, int]]
"""Tokens of a frame: the type of the slot, None for the frame's own, and [start, end)."""


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

    Of several windows a frame goes where another of its type has its filler and all of its slots and more, and so does
    one with words at a border of its window where another has these words and more: it was cut there.
    """
    best: dict[Any, tuple[Window, DocFrame]] = {}
    for window, frame in found:
        key = frame_key(frame)
        if key not in best or frame["score"] > best[key][1]["score"]:
            best[key] = window, frame
    if len({window for window, _ in best.values()}) < 2:
        return sort_frames(frame for _, frame in best.values())
    spans = {key: _spans(frame) for key, (_, frame) in best.items()}
    by_span: dict[tuple[str, FrameSpan], list[set[FrameSpan]]] = {}
    for key, (_, frame) in best.items():
        for span in spans[key]:
            by_span.setdefault((frame["type"], span), []).append(spans[key])
    by_type: dict[str, list[set[FrameSpan]]] = {}
    for key, (_, frame) in best.items():
        by_type.setdefault(frame["type"], []).append(spans[key])
    kept = []
    for key, (window, frame) in best.items():
        # What has all of a frame's spans has each that no border cuts, so only few are compared.
        whole = [span for span in spans[key] if span[1][0] != window.start and span[1][1] != window.end]
        others = min((by_span[frame["type"], span] for span in whole), key=len, default=by_type[frame["type"]])
        if not any(_is_part(spans[key], other, window) for other in others):
            kept.append(frame)
    return sort_frames(kept)


def _is_part(spans: set[FrameSpan], others: set[FrameSpan], window: Window) -> bool:
    """Whether a frame with the spans ``others`` has all that one with ``spans`` has, and more.

    window: that of the latter, at whose borders spans may be longer in the other.
    """
    if spans == others or len(spans) > len(others):
        return False
    return all(any(name == kind and _holds(whole, span, window) for name, whole in others) for kind, span in spans)


def _holds(whole: tuple[int, int], span: tuple[int, int], window: Window) -> bool:
    before = whole[0] == span[0] or (span[0] == window.start and whole[0] < span[0])
    behind = whole[1] == span[1] or (span[1] == window.end and whole[1] > span[1])
    return before and behind


def _spans(frame: DocFrame) -> set[FrameSpan]:
    """The tokens of the slots by their types, and those of the frame itself, under None."""
    own = set() if frame["pos"] is None else {(None, (frame["pos"][0], frame["pos"][1]))}
    return own | {(slot["type"], (slot["pos"][0], slot["pos"][1])) for slot in frame["slots"]}
