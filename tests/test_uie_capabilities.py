"""Lessons of one capability: what they give, what they ask for, and in what proportion."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_ie_moe.uc_uie.capabilities import (
    LESSONS,
    associating_lesson,
    draw_distractors,
    judging_lesson,
    locating_lesson,
)
from spacy_ie_moe.uc_uie.frames import Frame, Slot, read_frames
from spacy_ie_moe.uc_uie.grounding import ground
from spacy_ie_moe.uc_uie.instructions import CAPABILITIES, CAPABILITY_POOLS, CAPABILITY_ROUTES
from spacy_ie_moe.uc_uie.lessons import Lesson, LessonSettings

from .uie_golds import Gold, golds

PLAIN = LessonSettings.plain()


def lesson_of(capability: str, gold: Gold, seed: int) -> Lesson | None:
    return LESSONS[capability](gold.text, gold.frames, gold.task, gold.schema, rng=random.Random(seed))


@given(golds(), st.sampled_from(CAPABILITIES), st.integers(0, 3))
def test_what_holds_for_every_lesson(gold: Gold, capability: str, seed: int) -> None:
    lesson = lesson_of(capability, gold, seed)
    assert lesson == lesson_of(capability, gold, seed), "the same seed gives the same lesson"
    if lesson is None:
        return
    assert lesson.capability == capability and lesson.task == gold.task
    assert lesson.routes == CAPABILITY_ROUTES[capability] and sum(lesson.routes) == 1
    wording, named, end = lesson.instruction.split("\n")
    assert wording in CAPABILITY_POOLS[capability] and end == ""
    assert all(f"{{{kind.name}: [{', '.join(kind.slots)}]}}" in named for kind in lesson.schema)
    frames, issues = read_frames(lesson.target, lesson.schema, keep_null_slots=True)
    assert issues == []
    assert {frame.type for frame in frames} <= set(lesson.schema.names)
    squeezed = " ".join(gold.text.split())
    written = [frame.filler for frame in frames] + [slot.filler for frame in frames for slot in frame.slots]
    assert all(filler in squeezed for filler in written if filler is not None)


@given(golds(), st.integers(0, 3))
def test_judging_names_types_and_copies_nothing(gold: Gold, seed: int) -> None:
    lesson = lesson_of("judging", gold, seed)
    assert lesson is not None
    frames, _ = read_frames(lesson.target, lesson.schema, keep_null_slots=True)
    assert all(frame.filler is None and all(slot.filler is None for slot in frame.slots) for frame in frames)
    present = {frame.type for frame in gold.frames}
    assert [frame.type for frame in frames] == [name for name in lesson.schema.names if name in present]
    if gold.task in ("RE", "EAE", "EE"):
        for frame in frames:
            filled = {slot.type for each in gold.frames if each.type == frame.type for slot in each.slots}
            assert {slot.type for slot in frame.slots} == filled
    else:
        assert not any(frame.slots for frame in frames)


@given(golds(), st.integers(0, 3))
def test_locating_gives_the_types_that_are_there_and_asks_for_all_spans(gold: Gold, seed: int) -> None:
    lesson = lesson_of("locating", gold, seed)
    slots = {(slot.type, " ".join((slot.filler or "").split())) for frame in gold.frames for slot in frame.slots}
    heads = {(frame.type, frame.filler) for frame in gold.frames if frame.filler and gold.task != "EAE"}
    wanted = heads | (slots if gold.task not in ("NER", "ED") else set())
    if lesson is None:
        assert not wanted
        return
    frames, _ = read_frames(lesson.target, lesson.schema)
    assert not any(frame.slots for frame in frames)
    assert {frame.type for frame in frames} == set(lesson.schema.names), "all types that are given are there"
    assert {(frame.type, frame.filler) for frame in frames} <= wanted


@given(golds(), st.integers(0, 3))
def test_associating_joins_given_spans_only(gold: Gold, seed: int) -> None:
    lesson = lesson_of("associating", gold, seed)
    grounded = ground(gold.frames, gold.text)[0]
    if lesson is None:
        return
    assert gold.task in ("RE", "EAE", "EE", "ABSA")
    frames, _ = read_frames(lesson.target, lesson.schema)
    assert [(frame.type, frame.filler) for frame in frames] == [(each.type, each.source.filler) for each in grounded]
    shown = re.search(r"\nSpans: (.*)\nAnswer:$", lesson.body)
    assert shown is not None
    given_spans = set(re.split(r" ?(?<!\\)\[\d+\] ", shown[1]))
    written = [frame.filler for frame in frames] + [slot.filler for frame in frames for slot in frame.slots]
    unescaped = {re.sub(r"\\(.)", r"\1", span) for span in given_spans}
    assert all(filler in unescaped for filler in written if filler is not None)


TEXT = "Ada Hill founded Acme in Rome, and Bob  Ray met her there."
SCHEMA = {"founded": ["subject", "object"], "based in": ["subject", "object"]}
FOUNDED = Frame("founded", None, (Slot("subject", "Ada Hill"), Slot("object", "Acme")))
BASED = Frame("based in", None, (Slot("subject", "Acme"), Slot("object", "Rome")))
EVENTS = {"Found": ["Agent", "Place"], "Meet": ["Agent", "Place"], "Die": ["Victim"]}
FOUND = Frame("Found", "founded", (Slot("Agent", "Ada Hill"), Slot("Place", "Rome")))
MEET = Frame("Meet", "met", (Slot("Agent", "Bob  Ray"), Slot("Agent", "her")))


def asked(capability: str, frames: Sequence[Frame], task: str, schema: Any) -> Lesson:
    lesson = LESSONS[capability](TEXT, frames, task, schema, rng=random.Random(1), settings=PLAIN)
    assert lesson is not None
    return lesson


@pytest.mark.parametrize(
    ("task", "schema", "frames", "types", "target"),
    [
        ("NER", ["LOC", "PER"], [Frame("PER", "Bob  Ray")], "{LOC: []} {PER: []}", "{(PER: Null): []}"),
        (
            "RE",
            SCHEMA,
            [FOUNDED, FOUNDED],
            "{founded: [subject, object]} {based in: [subject, object]}",
            "{(founded: Null): [(subject: Null), (object: Null)]}",
        ),
        ("ED", EVENTS, [MEET], "{Found: []} {Meet: []} {Die: []}", "{(Meet: Null): []}"),
        (
            "EAE",
            EVENTS,
            [FOUND, MEET],
            "{Found: [Agent, Place]} {Meet: [Agent, Place]} {Die: [Victim]}",
            "{(Found: Null): [(Agent: Null), (Place: Null)]} {(Meet: Null): [(Agent: Null)]}",
        ),
        ("ABSA", {"positive": ["aspect", "opinion"]}, [], "{positive: []}", "None"),
    ],
)
def test_judging(task: str, schema: Any, frames: list[Frame], types: str, target: str) -> None:
    lesson = asked("judging", frames, task, schema)
    assert lesson.instruction.endswith(f"\nTypes: {types}\n") and lesson.target == f" {target}"
    assert lesson.body == f"Text: {' '.join(TEXT.split())}\nAnswer:"


@pytest.mark.parametrize(
    ("task", "schema", "frames", "types", "target"),
    [
        ("NER", ["LOC", "PER"], [Frame("PER", "Ada Hill")], "{PER: []}", "{(PER: Ada Hill): []}"),
        (
            "RE",
            SCHEMA,
            [FOUNDED, BASED],
            "{subject: []} {object: []}",
            "{(subject: Ada Hill): []} {(object: Acme): []} {(subject: Acme): []} {(object: Rome): []}",
        ),
        (
            "EE",
            EVENTS,
            [MEET],
            "{Meet: []} {Agent: []}",
            "{(Agent: Bob Ray): []} {(Meet: met): []} {(Agent: her): []}",
        ),
        ("EAE", EVENTS, [MEET], "{Agent: []}", "{(Agent: Bob Ray): []} {(Agent: her): []}"),
        ("ED", EVENTS, [MEET], "{Meet: []}", "{(Meet: met): []}"),
    ],
)
def test_locating(task: str, schema: Any, frames: list[Frame], types: str, target: str) -> None:
    lesson = asked("locating", frames, task, schema)
    named = sorted(lesson.instruction.split("Types: ")[1].split())
    assert named == sorted(types.split())
    written = read_frames(lesson.target, lesson.schema)[0]
    assert Counter(written) == Counter(read_frames(target, lesson.schema)[0])
    places = [TEXT.replace("  ", " ").index(frame.filler or "") for frame in written]
    assert places == sorted(places), "in text order"


def test_nothing_to_locate_or_to_join() -> None:
    rng = random.Random(0)
    assert locating_lesson(TEXT, [], "NER", ["PER"], rng=rng) is None
    assert locating_lesson(TEXT, [Frame("Meet", "met")], "EAE", EVENTS, rng=rng) is None
    assert associating_lesson(TEXT, [Frame("PER", "Ada Hill")], "NER", ["PER"], rng=rng) is None
    assert associating_lesson(TEXT, [Frame("Meet", "met")], "EE", EVENTS, rng=rng) is None
    assert associating_lesson(TEXT, [FOUND, MEET], "ED", EVENTS, rng=rng) is None
    with pytest.raises(ValueError, match="task is 'QA'"):
        judging_lesson(TEXT, [], "QA", ["PER"], rng=rng)


def test_associating() -> None:
    lesson = asked("associating", [FOUND, MEET], "EE", EVENTS)
    assert lesson.instruction.endswith("\nTypes: {Found: [Agent, Place]} {Meet: [Agent, Place]}\n")
    first = "{(Found: founded): [(Agent: Ada Hill), (Place: Rome)]}"
    assert lesson.target == f" {first} {{(Meet: met): [(Agent: Bob Ray), (Agent: her)]}}"
    shown = re.findall(r"\[(\d+)\] ([^\[\n]*[^\[\n ])", lesson.body)
    spans = [span for _, span in shown]
    assert [int(number) for number, _ in shown] == list(range(1, len(shown) + 1))
    gold = ["Ada Hill", "founded", "Rome", "Bob Ray", "met", "her"]
    assert [span for span in spans if span in gold] == gold, "in text order"
    assert 7 <= len(spans) <= 8, "six, and one or two that play no part"


def test_distractors_are_other_words() -> None:
    taken = [(0, 8), (17, 21)]
    rng = random.Random(0)
    for _ in range(200):
        drawn = draw_distractors(TEXT, taken, 3, rng)
        assert 2 <= len(drawn) <= 3, "two if there is no room for a third"
        places = sorted([*taken, *drawn])
        assert all(end <= start for (_, end), (start, _) in pairwise(places))
        assert all(re.fullmatch(r"\w.*\w|\w", TEXT[start:end]) for start, end in drawn)
    assert draw_distractors("Ada", [(0, 3)], 2, rng) == []
    assert draw_distractors("", [], 2, rng) == []


def test_three_distractors_for_ten_spans() -> None:
    rng = random.Random(0)
    lessons = [associating_lesson(TEXT, [FOUNDED, BASED], "RE", SCHEMA, rng=rng) for _ in range(300)]
    counts = [lesson.body.count(" [") for lesson in lessons if lesson is not None]
    assert len(counts) == 300 and 3.8 < sum(counts) / 300 < 4.0, "three spans and 0.9 others"
