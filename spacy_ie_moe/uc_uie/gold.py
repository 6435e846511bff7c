"""What is annotated in documents, as lessons for a language model."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from spacy.tokens import Doc

from .capabilities import LESSONS
from .doc_frames import DocFrame, new_frame, sort_frames, to_strings
from .frames import RELATION_SLOTS, FrameType, Schema
from .grounding import Known, Offsets, known_key
from .lessons import Lesson, LessonSettings, make_lesson
from .prompts import Prompter, Tokens
from .windows import Window, make_windows, text_of


def task_of(doc: Doc, schema: Schema) -> str:
    """The task that a document is annotated for: ``Doc._.uie_task``, else that of the schema's types.

    Raises ``ValueError`` where these have several: which of them is annotated cannot be known.
    """
    tasks = list(schema.by_task())
    if doc._.uie_task:
        return doc._.uie_task
    if len(tasks) > 1:
        raise ValueError(
            f"Doc._.uie_task is '' and the schema has types of {', '.join(tasks)}; expected the task that the "
            f"document is annotated for."
        )
    return tasks[0]


def gold_frames(doc: Doc, schema: Schema) -> list[DocFrame]:
    """``Doc._.frames``; where there are none, entities (``doc.ents``) and relations as frames of the schema."""
    if doc._.frames:
        return doc._.frames
    by_task = schema.by_task()
    frames = []
    if "NER" in by_task:
        frames += [
            new_frame(doc, ent.label_, (ent.start, ent.end), ()) for ent in doc.ents if ent.label_ in by_task["NER"]
        ]
    for relation in doc._.relations if "RE" in by_task else ():
        if relation["label"] in by_task["RE"]:
            head, tail = _sides(schema[relation["label"]])
            slots = [(head, relation["head_pos"]), (tail, relation["tail_pos"])]
            frames.append(new_frame(doc, relation["label"], None, slots))
    return sort_frames(frames)


def _sides(kind: FrameType) -> tuple[str, str]:
    for head, tail in RELATION_SLOTS:
        if {head, tail} <= set(kind.slots):
            return head, tail
    raise ValueError(
        f"slots of frame type {kind.name!r} are {', '.join(kind.slots)}; expected subject and object, or head and "
        "tail, for documents with relations and no frames."
    )


def given_events(doc: Doc, window: Window, schema: Schema) -> list[DocFrame]:
    """The events in a window whose arguments are asked for (EAE): ``Doc._.frames`` with a filler, without slots."""
    frames: list[DocFrame] = doc._.frames
    return [
        {**frame, "slots": []}
        for frame in frames
        if frame["type"] in schema and frame["pos"] is not None and _lies_in(frame["pos"], window)
    ]


def known_places(doc: Doc, window: Window, events: Sequence[DocFrame]) -> Known:
    """Where given events are in the text of a window."""
    offset = text_of(doc, window).start_char
    places: dict[tuple[str, str], set[Offsets]] = {}
    for event in events:
        assert event["pos"] is not None
        span = doc[event["pos"][0] : event["pos"][1]]
        place = (span.start_char - offset, span.end_char - offset)
        places.setdefault(known_key(event["type"], span.text), set()).add(place)
    return {key: sorted(found) for key, found in places.items()}


class LessonMaker:
    """Lessons from annotated documents, drawn anew at every call.

    limit: tokens of the language model that a text may have; of a longer one a window is drawn, with the frames that
    lie in it (``frames_in``). settings: how types and wordings are drawn.
    """

    def __init__(self, prompter: Prompter, *, limit: int, settings: LessonSettings | None = None) -> None:
        self.prompter = prompter
        self.limit = limit
        self.settings = settings or LessonSettings()

    def __call__(self, doc: Doc, schema: Schema, rng: random.Random, *, capability: str | None = None) -> Lesson | None:
        """A lesson on a document: of its task, or of one capability; None where there is nothing to learn."""
        windows = make_windows(doc, self.prompter, self.limit)
        if not windows:
            return None
        task = task_of(doc, schema)
        schema = schema.for_task(task)
        window = rng.choice(windows)
        frames = to_strings(doc, frames_in(gold_frames(doc, schema), window))
        text = text_of(doc, window).text
        if capability is None:
            return make_lesson(text, frames, task, schema, rng=rng, settings=self.settings)
        return LESSONS[capability](text, frames, task, schema, rng=rng, settings=self.settings)

    def tokens(self, lesson: Lesson) -> Tokens:
        """The lesson in tokens."""
        prompter = self.prompter
        return Tokens(
            prompter.instruction(lesson.instruction),
            prompter.tokens(lesson.body),
            prompter.target(lesson.target),
            lesson.routes,
        )


def frames_in(frames: Iterable[DocFrame], window: Window) -> list[DocFrame]:
    """What of the frames is in a window: an event with its slots there, a relation or opinion with all of its slots."""
    found: list[DocFrame] = []
    for frame in frames:
        slots = [slot for slot in frame["slots"] if _lies_in(slot["pos"], window)]
        if _lies_in(frame["pos"], window) if frame["pos"] is not None else len(slots) == len(frame["slots"]):
            found.append({**frame, "slots": slots})
    return found


def _lies_in(place: Sequence[int], window: Window) -> bool:
    return window.start <= place[0] and place[1] <= window.end
