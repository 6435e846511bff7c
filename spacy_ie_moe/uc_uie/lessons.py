"""Lessons: what the language model is trained on, one for each document and pass.

A lesson asks for some types of the schema (in a random order, among them types that the text does not have) in a
random wording and gives the answer that the model is to learn. Everything random comes from the ``rng`` that is
given, so a seed fixes the lessons.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from ..labels import is_probability, is_whole_number
from .frames import Frame, FrameType, Schema, write_frames
from .grounding import ground
from .instructions import ALL_POOLS, HARD_ROUTES, Pools, Routes, body, build, check_task, read_pools


@dataclass(frozen=True)
class Lesson:
    """One instance of training: ``instruction + body`` is what is read, ``target`` what is to be written.

    instruction: wording and schema; it ends in a line feed, and nothing of it depends on the text. target: begins
    with a blank, as in " {(PER: Bob): []}" or " None". routes: 1 for each of judging, locating and associating that
    the lesson needs. schema: the types that the instruction names, as it names them. capability: that of a lesson of
    capability warming.
    """

    task: str
    instruction: str
    body: str
    target: str
    routes: Routes
    schema: Schema
    capability: str | None = None


@dataclass(frozen=True)
class LessonSettings:
    """How lessons are drawn.

    max_types: a schema of at most so many types is asked for as a whole (None: any schema is).
    batch_types: how many types of a larger one are asked for at a time, at most half of them found in the text.
    share_confusable: of the others, those that are most like the former by name; the rest is drawn at random.
    share_all_negative: of lessons in which nothing is to be found.
    mask_names: how likely the name of a frame type is replaced by a number, so that its slots and the rest of the
        schema have to tell what it is.
    shuffle: name the types in a random order. random_wording: draw the wording, else take the first.
    pools: a file of ``spacy-ie-moe paraphrase`` with more wordings.
    """

    max_types: int | None = 12
    batch_types: int = 6
    share_confusable: float = 0.5
    share_all_negative: float = 0.1
    mask_names: float = 0.1
    shuffle: bool = True
    random_wording: bool = True
    pools: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("share_confusable", "share_all_negative", "mask_names"):
            if not is_probability(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}; expected a number from 0 to 1.")
        if not is_whole_number(self.batch_types, 2):
            raise ValueError(f"batch_types is {self.batch_types!r}; expected a whole number from 2.")
        if self.max_types is not None and not is_whole_number(self.max_types, 1):
            raise ValueError(f"max_types is {self.max_types!r}; expected a whole number from 1, or None.")
        _ = self.wordings  # a file that cannot be read is told here

    @cached_property
    def wordings(self) -> Pools:
        """Wordings by task and capability."""
        return ALL_POOLS if self.pools is None else read_pools(self.pools)

    @classmethod
    def plain(cls) -> LessonSettings:
        """Nothing random: all types in the order of the schema, the first wording, names as they are."""
        return cls(max_types=None, share_all_negative=0.0, mask_names=0.0, shuffle=False, random_wording=False)


def make_lesson(
    text: str,
    frames: Sequence[Frame],
    task: str,
    schema: Any,
    *,
    rng: random.Random,
    settings: LessonSettings | None = None,
) -> Lesson:
    """A lesson of ``task`` on ``text``.

    frames: gold, in text order; those of types that the schema does not have are not asked for. Event detection
    (ED) asks for their triggers, argument extraction (EAE) gives them and asks for the slots. schema: what
    ``Schema.of`` takes. Raises ``ValueError`` for another task.
    """
    check_task(task)
    settings = settings or LessonSettings()
    whole = Schema.of(schema)
    frames = known_frames(text, frames, whole, task)
    names = draw_types(frames, whole, task, rng=rng, settings=settings)
    asked, renamed = mask_types([_frame_type(whole, name, task) for name in names], whole, rng, settings.mask_names)
    answer = [replace(frame, type=renamed[frame.type]) for frame in frames if frame.type in renamed]
    given = [replace(frame, slots=()) for frame in answer] if task == "EAE" else []
    return Lesson(
        task=task,
        instruction=build(task, asked, draw_wording(task, rng, settings)),
        body=body(text, given),
        target=write_target(answer),
        routes=HARD_ROUTES[task],
        schema=asked,
    )


def known_frames(text: str, frames: Iterable[Frame], schema: Schema, task: str) -> list[Frame]:
    """The frames and slots whose types the schema has, as far as there are words to them.

    Event detection has no slots, so events that differ in nothing else become one, unless the text has more mentions.
    """
    kept = []
    for frame in frames:
        if frame.type in schema:
            slots = () if task == "ED" else schema.slots(frame.type)
            filled = tuple(slot for slot in frame.slots if slot.type in slots and slot.filler is not None)
            if filled or frame.filler is not None:
                kept.append(replace(frame, slots=filled))
    return [frame.source for frame in ground(kept, text)[0]] if task == "ED" else kept


def draw_types(
    frames: Sequence[Frame], schema: Schema, task: str, *, rng: random.Random, settings: LessonSettings
) -> list[str]:
    """The types to ask for, in the order in which they are named; see ``LessonSettings``.

    Where events are given (EAE) there is always something to be found.
    """
    present = dict.fromkeys(frame.type for frame in frames)
    absent = [name for name in schema.names if name not in present]
    small = settings.max_types is None or len(schema) <= settings.max_types
    all_negative = bool(absent) and task != "EAE" and rng.random() < settings.share_all_negative
    if small:
        chosen = absent if all_negative else list(schema.names)
    else:
        positive = list(present)
        # Half a batch at most: the others of a text with many types come in other lessons.
        found = [] if all_negative else rng.sample(positive, min(len(positive), settings.batch_types // 2))
        wanted = settings.batch_types - len(found)
        chosen = found + draw_negatives(positive if all_negative else found, absent, wanted, rng, settings)
        chosen.sort(key=schema.names.index)
    if settings.shuffle:
        rng.shuffle(chosen)
    return chosen


def draw_negatives(
    types: Sequence[str], absent: Sequence[str], count: int, rng: random.Random, settings: LessonSettings
) -> list[str]:
    """``count`` of the ``absent`` types (or all): a share that is most like any of ``types``, the rest at random."""
    mixed = rng.sample(absent, len(absent))
    if types:  # the sort is stable, so equally similar ones stay in a random order
        mixed.sort(key=lambda name: -max(similarity(name, other) for other in types))
    confusable = mixed[: round(settings.share_confusable * count)]
    rest = mixed[len(confusable) :]
    return confusable + rng.sample(rest, min(len(rest), count - len(confusable)))


@lru_cache(maxsize=100_000)
def similarity(name: str, other: str) -> float:
    """How alike two names look, from 0 to 1: twice the letter trigrams they share over all that they have (Dice)."""
    ours, theirs = _trigrams(name), _trigrams(other)
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))


def mask_types(
    types: Sequence[FrameType], schema: Schema, rng: random.Random, share: float
) -> tuple[Schema, dict[str, str]]:
    """The types as a schema with a ``share`` of the names masked, and each name by what it was.

    A masked name is ``TYPE_n`` with the place of the type in the instruction, from 1; a name that ``schema`` has
    already is not used.
    """
    taken = {name.casefold() for name in schema.names}
    renamed = {}
    for place, kind in enumerate(types, 1):
        mask = f"TYPE_{place}"
        masked = rng.random() < share and mask.casefold() not in taken
        renamed[kind.name] = mask if masked else kind.name
    return Schema.of([replace(kind, name=renamed[kind.name]) for kind in types]), renamed


def draw_wording(name: str, rng: random.Random, settings: LessonSettings) -> str:
    """A wording for a task or capability."""
    pool = settings.wordings[name]
    return rng.choice(pool) if settings.random_wording else pool[0]


def write_target(frames: Sequence[Frame]) -> str:
    """What the model is to write behind "Answer:", with the blank between."""
    return f" {write_frames(frames)}"


def _frame_type(schema: Schema, name: str, task: str) -> FrameType:
    return FrameType(name, () if task == "ED" else schema.slots(name), task)


_LETTERS = r"[^\W_]+"


@lru_cache(maxsize=4096)
def _trigrams(name: str) -> frozenset[str]:
    """Three letters each, of the words with a blank before and behind them."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold()
    words = f" {' '.join(re.findall(_LETTERS, apart))} "
    return frozenset(words[place : place + 3] for place in range(max(1, len(words) - 2)))
