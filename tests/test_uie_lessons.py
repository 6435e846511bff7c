"""Lessons: what they ask for, and that their answers are the gold frames of what they ask for."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spacy_ie_moe.uc_uie.frames import Frame, Slot, normalise_frames, read_frames
from spacy_ie_moe.uc_uie.instructions import HARD_ROUTES, LEAD, POOLS, build
from spacy_ie_moe.uc_uie.lessons import Lesson, LessonSettings, make_lesson, similarity

from .uie_golds import GENEVA, Gold, golds


def settings_of_any_kind() -> st.SearchStrategy[LessonSettings]:
    share = st.sampled_from([0.0, 0.5, 1.0])
    return st.builds(
        LessonSettings,
        max_types=st.sampled_from([None, 1, 4, 12]),
        batch_types=st.integers(2, 8),
        share_confusable=share,
        share_all_negative=share,
        mask_names=share,
        shuffle=st.booleans(),
        random_wording=st.booleans(),
    )


def lesson_of(gold: Gold, seed: int, settings: LessonSettings | None = None) -> Lesson:
    return make_lesson(gold.text, gold.frames, gold.task, gold.schema, rng=random.Random(seed), settings=settings)


def fillers(frames: Sequence[Frame]) -> list[str]:
    found = [frame.filler for frame in frames] + [slot.filler for frame in frames for slot in frame.slots]
    return [filler for filler in found if filler is not None]


@given(golds(), settings_of_any_kind(), st.integers(0, 3))
def test_what_holds_for_every_lesson(gold: Gold, settings: LessonSettings, seed: int) -> None:
    lesson = lesson_of(gold, seed, settings)
    assert lesson == lesson_of(gold, seed, settings), "the same seed gives the same lesson"
    assert lesson.task == gold.task and lesson.routes == HARD_ROUTES[gold.task] and lesson.capability is None

    wording, named, end = lesson.instruction.split("\n")
    assert wording in POOLS[gold.task] and end == ""
    for kind in lesson.schema:
        assert f"{{{kind.name}: [{', '.join(kind.slots)}]}}" in named

    frames, issues = read_frames(lesson.target, lesson.schema)
    assert issues == []
    assert {frame.type for frame in frames} <= set(lesson.schema.names)
    squeezed = " ".join(gold.text.split())
    assert all(filler in squeezed for filler in fillers(frames))
    assert squeezed in lesson.body and lesson.body.endswith("\nAnswer:")
    assert lesson.target == " None" or lesson.target.startswith(" {(")


@given(golds(), settings_of_any_kind(), st.integers(0, 3))
def test_the_target_is_the_gold_frames_of_the_types_asked_for(gold: Gold, settings: LessonSettings, seed: int) -> None:
    masked, bare = lesson_of(gold, seed, settings), lesson_of(gold, seed, replace(settings, mask_names=0.0))
    frames, _ = read_frames(bare.target, bare.schema)
    asked = [frame for frame in normalise_frames(gold.frames) if frame.type in bare.schema]
    if gold.task == "ED":  # copies beyond the mentions in the text are not asked for
        assert set(frames) == {Frame(frame.type, frame.filler) for frame in asked}
    else:
        assert frames == asked
    names = dict(zip(masked.schema.names, bare.schema.names, strict=True))
    again, _ = read_frames(masked.target, masked.schema)
    assert [replace(frame, type=names[frame.type]) for frame in again] == frames, "masks change names only"


@given(golds(), st.integers(0, 3))
def test_plain_lessons_have_nothing_random(gold: Gold, seed: int) -> None:
    lesson = lesson_of(gold, seed, LessonSettings.plain())
    assert lesson == lesson_of(gold, seed + 1, LessonSettings.plain())
    assert lesson.schema.names == gold.schema.names
    assert lesson.instruction == build(gold.task, gold.schema, LEAD[gold.task])


TEXT = "Rebels hit the bridge in Kabul; the same day others hit a school."
EVENTS = {"Attack": ["Target", "Place"], "Meet": ["Entity", "Place"]}
HITS = (
    Frame("Attack", "hit", (Slot("Target", "bridge"), Slot("Place", "Kabul"))),
    Frame("Attack", "hit", (Slot("Target", "school"),)),
)


def plain(text: str, frames: Sequence[Frame], task: str, schema: Any) -> Lesson:
    return make_lesson(text, frames, task, schema, rng=random.Random(0), settings=LessonSettings.plain())


def test_the_three_ways_to_ask_for_events() -> None:
    detect, fill, both = (plain(TEXT, HITS, task, EVENTS) for task in ("ED", "EAE", "EE"))
    assert detect.instruction.endswith("\nTypes: {Attack: []} {Meet: []}\n")
    assert detect.target == " {(Attack: hit): []} {(Attack: hit): []}"
    assert fill.body == f"Text: {TEXT}\nEvents: (Attack: hit) (Attack: hit)\nAnswer:"
    assert both.body == f"Text: {TEXT}\nAnswer:"
    answer = " {(Attack: hit): [(Target: bridge), (Place: Kabul)]} {(Attack: hit): [(Target: school)]}"
    assert fill.target == both.target == answer
    assert (detect.routes, fill.routes, both.routes) == ((1, 1, 0), (1, 1, 1), (1, 1, 1))


def test_events_that_differ_in_their_arguments_only_are_detected_once() -> None:
    twice = [HITS[0], Frame("Attack", "hit", (Slot("Place", "Kabul"),))]
    assert plain("Rebels hit Kabul.", twice, "ED", EVENTS).target == " {(Attack: hit): []}"


def test_types_and_slots_that_the_schema_lacks_are_not_asked_for() -> None:
    frames = [Frame("Attack", "hit", (Slot("Agent", "Rebels"), Slot("Place", None))), Frame("Die", "day")]
    assert plain(TEXT, frames, "EE", EVENTS).target == " {(Attack: hit): []}"
    relations = [Frame("in", None, (Slot("head", "bridge"), Slot("tail", "Kabul")))]
    assert plain(TEXT, relations, "RE", {"in": ["subject", "object"]}).target == " None"


def test_an_unknown_task() -> None:
    with pytest.raises(ValueError, match="task is 'QA'; expected one of NER"):
        plain(TEXT, [], "QA", ["PER"])


def lessons_of(frames: Sequence[Frame], schema: Any, settings: LessonSettings, *, task: str = "NER") -> list[Lesson]:
    rng = random.Random(5)
    return [make_lesson("Ada met Bob", frames, task, schema, rng=rng, settings=settings) for _ in range(400)]


MENTION = Frame("Attack", "met")


def test_large_schemas_are_asked_for_in_batches() -> None:
    present = [Frame(name, "met") for name in GENEVA[4:9]]
    settings = LessonSettings(share_all_negative=0.0, mask_names=0.0)
    lessons = lessons_of(present, GENEVA, settings)
    assert {len(lesson.schema) for lesson in lessons} == {6}
    found = Counter(name for lesson in lessons for name in set(lesson.schema.names) & set(GENEVA[4:9]))
    assert set(found) == set(GENEVA[4:9]) and sum(found.values()) == 3 * len(lessons), "three of five each time"
    assert set().union(*(lesson.schema.names for lesson in lessons)) == set(GENEVA), "every type is a negative at times"
    assert {len(lesson.schema) for lesson in lessons_of(present, GENEVA[:12], settings)} == {12}


def test_half_of_the_negatives_are_confusable() -> None:
    assert similarity("Attack", "attack") == 1 and similarity("Attack", "Rite") == 0
    assert similarity("SignAgreement", "Sign agreement") == 1
    assert similarity("Attack", "Attacking") > similarity("Attack", "Attempt") > 0
    all_of_them = LessonSettings(share_all_negative=0.0, mask_names=0.0, share_confusable=1.0, batch_types=4)
    alike = {"Attack", "Attacking", "Attempt"}
    assert all(alike <= set(lesson.schema.names) for lesson in lessons_of([MENTION], GENEVA, all_of_them))
    half = LessonSettings(share_all_negative=0.0, mask_names=0.0, batch_types=5)
    drawn = Counter(name for lesson in lessons_of([MENTION], GENEVA, half) for name in lesson.schema.names)
    assert all(drawn[name] == 400 for name in alike)
    others = [drawn[name] for name in GENEVA if name not in alike]
    assert sum(others) == 800 and min(others) > 10, "the others are as likely as each other"


def test_lessons_in_which_nothing_is_to_be_found() -> None:
    settings = LessonSettings(mask_names=0.0)
    for schema in (GENEVA, ["PER", "Attack", "LOC"]):
        lessons = lessons_of([MENTION], schema, settings)
        nothing = [lesson for lesson in lessons if lesson.target == " None"]
        assert 20 <= len(nothing) <= 60, "a tenth"
        assert not any("Attack" in lesson.schema for lesson in nothing)
    assert all(lesson.target != " None" for lesson in lessons_of([MENTION], GENEVA, settings, task="EAE"))
    assert all(lesson.target != " None" for lesson in lessons_of([MENTION], ["Attack"], settings)), "no other type"


def test_names_are_masked_alike_wherever_they_are() -> None:
    settings = LessonSettings(mask_names=1.0, shuffle=False, random_wording=False)
    lesson = make_lesson(TEXT, HITS, "EAE", {"Meet": [], **EVENTS}, rng=random.Random(0), settings=settings)
    assert lesson.instruction.endswith("\nTypes: {TYPE_1: [Entity, Place]} {TYPE_2: [Target, Place]}\n")
    assert "\nEvents: (TYPE_2: hit) (TYPE_2: hit)\n" in lesson.body
    assert lesson.target.startswith(" {(TYPE_2: hit): [(Target: bridge)") and "Attack" not in lesson.target
    tenth = lessons_of([MENTION], GENEVA[:10], LessonSettings(share_all_negative=0.0))
    masked = sum(name.startswith("TYPE_") for lesson in tenth for name in lesson.schema.names)
    assert 300 <= masked <= 500, "a tenth of 4000"


def test_a_mask_is_never_the_name_of_another_type() -> None:
    settings = LessonSettings(mask_names=1.0, shuffle=False)
    lesson = make_lesson("x", [], "NER", ["PER", "type_1", "LOC"], rng=random.Random(0), settings=settings)
    assert lesson.schema.names == ("PER", "TYPE_2", "TYPE_3")


def test_types_are_shuffled_and_wordings_are_drawn() -> None:
    schema = ["PER", "LOC", "ORG"]
    lessons = lessons_of([], schema, LessonSettings(share_all_negative=0.0, mask_names=0.0))
    assert len({lesson.schema.names for lesson in lessons}) == 6
    assert {lesson.instruction.split("\n")[0] for lesson in lessons} == set(POOLS["NER"])
    still = lessons_of([], schema, LessonSettings.plain())
    assert {lesson.schema.names for lesson in still} == {("PER", "LOC", "ORG")}


def test_wordings_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pools.json"
    file.write_text(json.dumps({"pools": {"NER": ["Name the types of entities."]}}), encoding="utf8")
    (lesson, *_) = lessons_of([], ["PER"], LessonSettings(pools=str(file)))
    assert lesson.instruction.startswith("Name the types of entities.\n")
    with pytest.raises(FileNotFoundError):
        LessonSettings(pools=tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask_names": 2}, "mask_names is 2; expected a number from 0 to 1"),
        ({"share_all_negative": -0.1}, "share_all_negative is -0.1"),
        ({"batch_types": 1}, "batch_types is 1; expected a whole number from 2"),
        ({"max_types": 0}, "max_types is 0; expected a whole number from 1, or None"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LessonSettings(**settings)
