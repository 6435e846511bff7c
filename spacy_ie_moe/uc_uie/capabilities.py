"""Lessons of one capability each, out of the data of any task: the subsets D_J, D_L and D_A of stage 1.

The paper warms each capability expert on a subset of its own (section 3.4, Figure 3) and doesn't say how they are
made. Here:

* judging: which types does the text have? The answer names them and no words: ``{(PER: Null): []}``, and for
  relations and events their slot types too, ``{(Attack: Null): [(Target: Null)]}``.
* locating: the types that the text has are given, and the answer is their spans, each on its own:
  ``{(Place: Rome): []}``. Slot types are types of spans here.
* associating: types and spans are given, among spans that play no part, and the answer joins them to frames. Entities
  and triggers alone have nothing to be joined.

Build them from training data only.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from .frames import Frame, FrameType, Schema, Slot
from .grounding import GroundedFrame, ground
from .instructions import CAPABILITY_ROUTES, body, build, check_task
from .lessons import Lesson, LessonSettings, draw_types, draw_wording, known_frames, write_target

Span = tuple[int, int]

DISTRACTORS = 0.3
"""For each span that plays a part, so many others are given to be joined, on average."""

DISTRACTOR_WORDS = 3
"""The most words of such a span."""

LINKING_TASKS = ("RE", "EAE", "EE", "ABSA")

_WORD = re.compile(r"\w+(?:[-'’]\w+)*")


def judging_lesson(
    text: str,
    frames: Sequence[Frame],
    task: str,
    schema: Any,
    *,
    rng: random.Random,
    settings: LessonSettings | None = None,
) -> Lesson:
    """Types, some of which the text has; the answer names those, in the order of the instruction.

    Arguments as of ``make_lesson``; names are never masked here, because they are all there is to judge by.
    """
    settings = settings or LessonSettings()
    whole, frames = _prepare(text, frames, task, schema)
    names = draw_types(frames, whole, task, rng=rng, settings=settings)
    with_slots = task in ("RE", "EAE", "EE")
    asked = Schema.of([FrameType(name, whole.slots(name) if with_slots else (), task) for name in names])
    filled: dict[str, set[str]] = {}
    for frame in frames:
        filled.setdefault(frame.type, set()).update(slot.type for slot in frame.slots)
    answer = [
        Frame(kind.name, None, tuple(Slot(slot, None) for slot in kind.slots if slot in filled[kind.name]))
        for kind in asked
        if kind.name in filled
    ]
    return _lesson("judging", task, asked, body(text), answer, rng, settings)


def locating_lesson(
    text: str,
    frames: Sequence[Frame],
    task: str,
    schema: Any,
    *,
    rng: random.Random,
    settings: LessonSettings | None = None,
) -> Lesson | None:
    """The types that the text has; the answer is their spans in text order. None where there are none.

    Types are those of entities and triggers, and the slot types of relations, events and opinions; the triggers of
    EAE are given there and not looked for. A span with the same type counts once. Arguments as of ``make_lesson``.
    """
    settings = settings or LessonSettings()
    _, frames = _prepare(text, frames, task, schema)
    found: dict[tuple[Span, str], str] = {}
    for frame in ground(frames, text)[0]:
        if task != "EAE" and frame.span is not None and frame.source.filler is not None:
            found.setdefault((frame.span, frame.type), frame.source.filler)
        for slot in frame.slots:
            if slot.source.filler is not None:
                found.setdefault((slot.span, slot.type), slot.source.filler)
    if not found:
        return None
    names = list(dict.fromkeys(name for _, name in found))
    if settings.shuffle:
        rng.shuffle(names)
    asked = Schema.of([FrameType(name, (), task) for name in names])
    answer = [Frame(name, filler) for (_, name), filler in sorted(found.items())]
    return _lesson("locating", task, asked, body(text), answer, rng, settings)


def associating_lesson(
    text: str,
    frames: Sequence[Frame],
    task: str,
    schema: Any,
    *,
    rng: random.Random,
    settings: LessonSettings | None = None,
) -> Lesson | None:
    """The types that the text has and spans of it; the answer joins some of the spans. None where nothing is joined.

    Spans that play no part are drawn from the words of the text. Arguments as of ``make_lesson``.
    """
    settings = settings or LessonSettings()
    whole, frames = _prepare(text, frames, task, schema)
    if task not in LINKING_TASKS:
        return None
    grounded = ground(frames, text)[0]
    if not any(len(_spans(frame)) > 1 for frame in grounded):
        return None
    given = {span: filler for frame in grounded for span, filler in _spans(frame).items()}
    for span in draw_distractors(text, list(given), _round(DISTRACTORS * len(given), rng), rng):
        given[span] = " ".join(text[slice(*span)].split())
    names = list(dict.fromkeys(frame.type for frame in grounded))
    if settings.shuffle:
        rng.shuffle(names)
    asked = Schema.of([FrameType(name, whole.slots(name), task) for name in names])
    answer = [replace(frame.source, slots=tuple(slot.source for slot in frame.slots)) for frame in grounded]
    shown = body(text, spans=[filler for _, filler in sorted(given.items())])
    return _lesson("associating", task, asked, shown, answer, rng, settings)


def draw_distractors(text: str, taken: Sequence[Span], count: int, rng: random.Random) -> list[Span]:
    """Up to ``count`` spans of one to three words in a row, apart from one another and from ``taken``."""
    words = [match.span() for match in _WORD.finditer(text)]
    drawn: list[Span] = []
    for first in rng.sample(range(len(words)), len(words)):
        if len(drawn) == count:
            break
        last = min(first + rng.randrange(DISTRACTOR_WORDS), len(words) - 1)
        start, end = words[first][0], words[last][1]
        if all(end <= other_start or other_end <= start for other_start, other_end in [*taken, *drawn]):
            drawn.append((start, end))
    return drawn


LESSONS: dict[str, Callable[..., Lesson | None]] = {
    "judging": judging_lesson,
    "locating": locating_lesson,
    "associating": associating_lesson,
}


def _prepare(text: str, frames: Sequence[Frame], task: str, schema: Any) -> tuple[Schema, list[Frame]]:
    check_task(task)
    whole = Schema.of(schema)
    return whole, known_frames(text, frames, whole, task)


def _lesson(
    capability: str,
    task: str,
    asked: Schema,
    shown: str,
    answer: Sequence[Frame],
    rng: random.Random,
    settings: LessonSettings,
) -> Lesson:
    return Lesson(
        task=task,
        instruction=build(task, asked, draw_wording(capability, rng, settings)),
        body=shown,
        target=write_target(answer),
        routes=CAPABILITY_ROUTES[capability],
        schema=asked,
        capability=capability,
    )


def _spans(frame: GroundedFrame) -> dict[Span, str]:
    """The spans of a frame, its own and those of its slots, with what is written for them."""
    spans = {slot.span: slot.source.filler or "" for slot in frame.slots}
    return spans if frame.span is None else {**spans, frame.span: frame.source.filler or ""}


def _round(number: float, rng: random.Random) -> int:
    """One of the two whole numbers around, so that it is ``number`` on average."""
    return int(number + rng.random())
