"""From what a language model wrote about a part of a document to frames on that document."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from spacy.tokens import Doc

from .decoding import Answer
from .doc_frames import DocFrame, DocSlot, make_frame
from .frames import CUT, ENDED, NOT_GIVEN, UNREAD, Frame, Issue, Schema, Slot, read_frames
from .grounding import GroundedFrame, Known, ground
from .windows import Window, text_of


def read_answer(
    doc: Doc, window: Window, answer: Answer, schema: Schema, known: Known | None = None
) -> tuple[list[DocFrame], list[Issue]]:
    """The frames of an answer about a window of ``doc``, with scores, and what of it was left out.

    known: the given events of the window (EAE), where they are in its text.
    """
    if answer.problem:
        return [], [Issue(UNREAD, answer.problem)]
    part = text_of(doc, window)
    frames, issues = read_frames(answer.text, schema)
    grounded, ungrounded = ground(frames, part.text, known)
    issues = [*issues, *ungrounded]
    if not answer.finished:
        cut = f"the answer was cut off after {len(answer.ends)} tokens, by max_new_tokens or the model's places."
        issues.append(Issue(CUT, cut))
    elif answer.ended:
        why = f"the answer was brought to an end after {len(answer.ends)} tokens by max_new_tokens; there may be more."
        issues.append(Issue(ENDED, why))
    found = []
    for frame in grounded:
        score = probability(answer, frame.source)
        slots = [probability(answer, slot.source) for slot in frame.slots]
        found.append(make_frame(doc, _shift(frame, part.start_char), score, slots))
    return found, issues


def attach(events: Iterable[DocFrame], found: Iterable[DocFrame]) -> tuple[list[DocFrame], list[Issue]]:
    """The given events, all of them, with the arguments that were found for each (EAE).

    Several answers to one event, of several windows, are one; of events that are the same the n-th has the n-th
    answer. What was found for other words is left out and reported.
    """
    answers: dict[Any, list[DocFrame]] = {}
    for frame in found:
        answers.setdefault(_event(frame), []).append(frame)
    given: dict[Any, list[DocFrame]] = {}
    for event in events:
        given.setdefault(_event(event), []).append(event)
    frames: list[DocFrame] = []
    for key, same in given.items():
        own = answers.pop(key, [])
        if own and len(same) == 1:
            own = [_union(own)]
        frames += own + [{**event, "slots": []} for event in same[len(own) :]]
    stray = [Issue(NOT_GIVEN, f"{type!r} was answered for words that are no given event.") for type, _ in answers]
    return frames, stray


def _event(frame: DocFrame) -> tuple[str, tuple[int, ...] | None]:
    return frame["type"], None if frame["pos"] is None else tuple(frame["pos"])


def _union(frames: list[DocFrame]) -> DocFrame:
    """One frame with the slots of all, each with its highest score."""
    slots: dict[Any, DocSlot] = {}
    for slot in sorted((slot for frame in frames for slot in frame["slots"]), key=lambda slot: -slot["score"]):
        slots.setdefault((slot["type"], *slot["pos"]), slot)
    ordered = sorted(slots.values(), key=lambda slot: (*slot["pos"], slot["type"]))
    return {**max(frames, key=lambda frame: frame["score"]), "slots": ordered}


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
