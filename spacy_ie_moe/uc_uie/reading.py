"""From what a language model wrote about a part of a document to frames on that document."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from spacy.tokens import Doc

from .decoding import Answer
from .doc_frames import DocFrame, make_frame
from .frames import Frame, Issue, Schema, Slot, read_frames
from .grounding import GroundedFrame, ground
from .windows import Window, text_of

UNREAD = "unread"
"""Kind of issue: a part of the text could not be read."""
NOT_GIVEN = "not given"
"""Kind of issue: arguments of an event that was not asked about."""
CUT = "cut"
"""Kind of issue: the answer was as long as ``max_new_tokens`` allows and had not come to an end."""


def read_answer(doc: Doc, window: Window, answer: Answer, schema: Schema) -> tuple[list[DocFrame], list[Issue]]:
    """The frames of an answer about a window of ``doc``, with scores, and what of it was left out."""
    if answer.problem:
        return [], [Issue(UNREAD, answer.problem)]
    part = text_of(doc, window)
    frames, issues = read_frames(answer.text, schema)
    grounded, ungrounded = ground(frames, part.text)
    issues = [*issues, *ungrounded]
    if not answer.finished:
        issues.append(Issue(CUT, f"the answer was cut off after {len(answer.ends)} tokens; raise max_new_tokens."))
    found = []
    for frame in grounded:
        score = probability(answer, frame.source)
        slots = [probability(answer, slot.source) for slot in frame.slots]
        found.append(make_frame(doc, _shift(frame, part.start_char), score, slots))
    return found, issues


def attach(events: Iterable[DocFrame], found: Iterable[DocFrame]) -> tuple[list[DocFrame], list[Issue]]:
    """The given events, all of them, with the arguments that were found for each (EAE).

    What was found for other words is left out and reported.
    """
    slots: dict[Any, list[DocFrame]] = {}
    for frame in found:
        slots.setdefault(_event(frame), []).append(frame)
    frames: list[DocFrame] = []
    for event in events:
        answers = slots.pop(_event(event), None)
        frames += answers or [{**event, "slots": []}]
    issues = [Issue(NOT_GIVEN, f"{event[0]!r} was answered for words that are no given event.") for event in slots]
    return frames, issues


def _event(frame: DocFrame) -> tuple[Any, ...]:
    return frame["type"], None if frame["pos"] is None else tuple(frame["pos"])


def probability(answer: Answer, part: Frame | Slot) -> float:
    """How sure the model was of a part of its answer: the geometric mean of its tokens' probabilities."""
    assert part.extent is not None  # it was read from the answer
    start, end = part.extent
    values = [
        value
        for begin, stop, value in zip([0, *answer.ends], answer.ends, answer.log_probabilities, strict=False)
        if begin < end and stop > start
    ]
    return math.exp(sum(values) / len(values)) if values else 0.0


def as_data(issues: Iterable[Issue]) -> list[dict[str, str]]:
    """Issues as ``Doc._.uie_issues`` has them."""
    return [{"kind": issue.kind, "message": issue.message} for issue in issues]


def _shift(frame: GroundedFrame, offset: int) -> GroundedFrame:
    """The frame with its spans in characters of the document instead of the window."""
    slots = tuple(replace(slot, span=(slot.span[0] + offset, slot.span[1] + offset)) for slot in frame.slots)
    span = None if frame.span is None else (frame.span[0] + offset, frame.span[1] + offset)
    return replace(frame, span=span, slots=slots)
