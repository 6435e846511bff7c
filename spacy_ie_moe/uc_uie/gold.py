"""What is annotated in documents, as lessons for a language model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from spacy.tokens import Doc

from .capabilities import LESSONS
from .doc_frames import DocFrame, new_frame, sort_frames, to_strings
from .frames import RELATION_SLOTS, Frame, Schema
from .lessons import Lesson, LessonSettings, make_lesson
from .network import Tokens
from .prompts import Prompter
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
            head, tail = next(sides for sides in RELATION_SLOTS if set(sides) <= set(schema.slots(relation["label"])))
            slots = [(head, relation["head_pos"]), (tail, relation["tail_pos"])]
            frames.append(new_frame(doc, relation["label"], None, slots))
    return sort_frames(frames)


def given_events(doc: Doc, window: Window, schema: Schema) -> list[Frame]:
    """The events in a window whose arguments are asked for (EAE): ``Doc._.frames`` with a filler, without slots."""
    frames: list[DocFrame] = doc._.frames
    events: list[DocFrame] = [{**frame, "slots": []} for frame in frames if frame["type"] in schema]
    return to_strings(doc, [event for event in events if event["pos"] is not None and _lies_in(event, window)])


class LessonMaker:
    """Lessons from annotated documents, drawn anew at every call.

    limit: tokens of the language model that a text may have; of a longer one a window is drawn, with the frames that
    lie in it. settings: how types and wordings are drawn.
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
        frames = to_strings(doc, [frame for frame in gold_frames(doc, schema) if _lies_in(frame, window)])
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


def _lies_in(frame: DocFrame, window: Window) -> bool:
    places: Sequence[Any] = [frame["pos"], *(slot["pos"] for slot in frame["slots"])]
    return all(window.start <= place[0] and place[1] <= window.end for place in places if place is not None)
