"""Schemas, and frames as the line of text that a language model writes."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_ie_moe.uc_uie.frames import (
    MALFORMED,
    TRUNCATED,
    UNKNOWN_SLOT,
    UNKNOWN_TYPE,
    Frame,
    FrameType,
    Schema,
    Slot,
    escape,
    normalise_frames,
    read_frames,
    write_frames,
)

SCHEMA = Schema.of(
    {
        "Speech": ["Speaker", "Place", "Time"],
        "founder": ["subject", "object"],
        "positive": ["aspect", "opinion"],
        "PER": [],
        "A": ["x", "x: y"],
        "A: B": ["x"],
        "Life:Die": [],
        "Life": [],
    }
)
SPEECH = Frame("Speech", "delivered", (Slot("Speaker", "Barack Obama"), Slot("Time", "May 14, 2012")))

LETTERS = "aAbßİé名' \t:"
BRACKETS = '(){}[]\\\n\u2028"'
AWKWARD = ["Null", "None", "null", "\\Null", ": ", "a: b", "a : b: ", "]} {(a: b", "), (a: b", "C:\\", "\\\\(", " \r\n"]


def is_name(name: str) -> bool:
    return bool(name) and name == name.strip() and not set(name) & set("(){}[]\\") and len(name.splitlines()) == 1


names = (st.text(LETTERS, max_size=5) | st.sampled_from(["Null", "a: b", "a: b: a", "A: B", "a", "b"])).filter(is_name)
schemas = st.dictionaries(names, st.lists(names, max_size=3, unique=True), min_size=1, max_size=4).map(Schema.of)
texts = st.text(LETTERS + BRACKETS, max_size=10) | st.sampled_from(AWKWARD) | st.text(max_size=5)


@st.composite
def frames_of(draw: Callable[..., Any], schema: Schema) -> list[Frame]:
    """Frames of a schema; fillers may look like any part of the format, or begin like a longer type."""
    fillers = st.none() | texts | st.sampled_from([f"{name[2:].strip()}: a" for name in schema.names])
    frames = []
    for frame_type in draw(st.lists(st.sampled_from(schema.types), max_size=3)):
        slots = ()
        if frame_type.slots:
            pairs = st.tuples(st.sampled_from(frame_type.slots), fillers)
            slots = tuple(Slot(*pair) for pair in draw(st.lists(pairs, max_size=3)))
        frames.append(Frame(frame_type.name, draw(fillers), slots))
    return frames


@st.composite
def answers(draw: Callable[..., Any]) -> tuple[Schema, str]:
    """Any text at all: noise, brackets, or a good answer that was cut, joined and changed somewhere."""
    schema = draw(schemas)
    marks = ["{(", "]}", ": [", ": ", ", ", *BRACKETS, *AWKWARD, *schema.names]
    noise = st.lists(st.sampled_from(marks), max_size=12).map("".join) | st.text(max_size=20)
    if draw(st.booleans()):
        return schema, draw(noise)
    text = write_frames(draw(frames_of(schema)))
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    return schema, draw(
        st.sampled_from([text[:end], text[:start] + draw(noise) + text[end:], text + draw(noise) + text])
    )


def check_round_trip(data: st.DataObject) -> None:
    schema = data.draw(schemas)
    frames = data.draw(frames_of(schema))
    keep = data.draw(st.booleans())
    line = write_frames(frames)
    assert len(line.splitlines()) == 1
    assert read_frames(line, schema, keep_null_slots=keep) == (normalise_frames(frames, keep_null_slots=keep), [])


def check_reader(answer: tuple[Schema, str]) -> None:
    schema, text = answer
    frames, issues = read_frames(text, schema)
    position = 0
    for frame in frames:
        assert frame.type in schema
        assert frame.extent is not None and position <= frame.extent[0] < frame.extent[1] <= len(text)
        position = frame.extent[1]
        inside = frame.extent[0]
        for slot in frame.slots:
            assert slot.type in schema.slots(frame.type)
            assert slot.extent is not None and inside < slot.extent[0] < slot.extent[1] <= frame.extent[1]
            assert (text[slot.extent[0]], text[slot.extent[1] - 1]) == ("(", ")")
            inside = slot.extent[1]
    assert read_frames(write_frames(frames), schema) == (frames, [])
    if not frames and not issues:
        assert text.strip(" \t\r\n.").lower() in ("none", "null")


@settings(max_examples=300)
@given(st.data())
def test_frames_come_back_as_they_were_written(data: st.DataObject) -> None:
    check_round_trip(data)


@pytest.mark.slow
@settings(max_examples=20_000)
@given(st.data())
def test_20000_frames_come_back_as_they_were_written(data: st.DataObject) -> None:
    check_round_trip(data)


@settings(max_examples=300)
@given(answers())
def test_no_text_is_too_odd_to_read(answer: tuple[Schema, str]) -> None:
    check_reader(answer)


@pytest.mark.slow
@settings(max_examples=20_000)
@given(answers())
def test_20000_texts_are_not_too_odd_to_read(answer: tuple[Schema, str]) -> None:
    check_reader(answer)


GARBAGE = [
    "((((",
    "{(",
    "{({",
    "(a:b",
    "(PER: x)",
    "{(PER: x)}",
    "{(PER: (",
    "{(no: x)}",
    "]}",
    "\\",
    "\\(",
    ": ",
    "{ ",
]


@pytest.mark.parametrize(
    "part", [*GARBAGE, "(Speech: x", "{(Speech: ((x)): [(Time: ", "PER" + ":" * 50, "(A : : ", "] \n"]
)
def test_time_is_linear(part: str) -> None:
    text = part * (200_000 // len(part))
    began = time.process_time()
    read_frames(text, SCHEMA)
    assert time.process_time() - began < 2


def test_the_format_is_the_papers() -> None:
    assert write_frames([SPEECH]) == "{(Speech: delivered): [(Speaker: Barack Obama), (Time: May 14, 2012)]}"
    relation = Frame("founder", None, (Slot("subject", "Acme"), Slot("object", "Alice")))
    assert write_frames([relation]) == "{(founder: Null): [(subject: Acme), (object: Alice)]}"
    assert write_frames([Frame("PER", "Bob"), Frame("PER", "Eve")]) == "{(PER: Bob): []} {(PER: Eve): []}"
    assert write_frames([]) == "None"
    assert read_frames("None", SCHEMA) == ([], [])


@pytest.mark.parametrize(
    ("filler", "written"),
    [
        ("smile :( {x} [1]", r"smile :\( \{x\} \[1\]"),
        ("C:\\Users", r"C:\\Users"),
        ("New \n\t York", "New York"),
        ("Null", r"\Null"),
        ("none", r"\none"),
        ("\\Null", r"\\Null"),
        ("", "Null"),
        (" \n", "Null"),
        ("12:30", "12:30"),
        ("B: c: d", r"B\: c: d"),
        ("https://x.org", "https://x.org"),
    ],
)
def test_only_what_could_be_misread_is_escaped(filler: str, written: str) -> None:
    assert write_frames([Frame("A", filler)]) == f"{{(A: {written}): []}}"


def test_types_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the type of a frame is 'A\(B'"):
        write_frames([Frame("A(B", "x")])
    with pytest.raises(ValueError, match="the type of a slot is ''"):
        write_frames([Frame("A", "x", (Slot("", "x"),))])


def test_escape_is_for_copying() -> None:
    assert escape(" a\n (b)  \\ ") == r"a \(b\) \\"


def test_the_longest_type_is_read() -> None:
    text = r"{(A: B: c): [(x: y: z)]} {(A: B\: c): [(x: y: z), (x: y\: z)]} "
    text += "{(A: 12:30): []} {(Life:Die: died): []} {(Life:x): []}"
    frames, issues = read_frames(text, SCHEMA)
    assert frames == [
        Frame("A: B", "c", (Slot("x", "y: z"),)),
        Frame("A", "B: c", (Slot("x: y", "z"), Slot("x", "y: z"))),
        Frame("A", "12:30"),
        Frame("Life:Die", "died"),
        Frame("Life", "x"),
    ]
    assert issues == []


def test_case_of_types_does_not_matter_unless_it_tells_them_apart() -> None:
    assert read_frames("{(per: Bob): []} {(SPEECH: x): [(speaker : y)]}", SCHEMA) == (
        [Frame("PER", "Bob"), Frame("Speech", "x", (Slot("Speaker", "y"),))],
        [],
    )
    frames, (issue,) = read_frames("{(per: a): []} {(Per: b): []} {(PER: c): []}", ["PER", "per"])
    assert frames == [Frame("per", "a"), Frame("PER", "c")]
    assert (issue.kind, issue.message) == (
        UNKNOWN_TYPE,
        "'(Per: b)' is left out with its slots: the schema has no frame type 'Per'.",
    )


def test_balanced_parentheses_need_no_backslash() -> None:
    frames, issues = read_frames("{(PER: Bob (the (old) builder) [1]): []}", SCHEMA)
    assert (frames, issues) == ([Frame("PER", "Bob (the (old) builder) [1]")], [])


def test_words_around_frames_are_skipped() -> None:
    text = f"Sure! Here are the frames of C:\\x \\(a text\\): \n{write_frames([SPEECH])}\nI hope this helps."
    assert read_frames(text, SCHEMA) == ([SPEECH], [])


@pytest.mark.parametrize(
    "text",
    [
        "(PER: a): [], (PER: b): []",
        "[{(PER: a): []}, {(PER: b): []}]",
        "{(PER: a)}{(PER: b)}",
        "{ (PER:a) : [ ] }\n{\n( PER : b ) }",
        "{(PER: a): []} {(PER: b): [ ] }",
    ],
)
def test_looser_ways_to_write_frames_are_read(text: str) -> None:
    assert read_frames(text, SCHEMA) == ([Frame("PER", "a"), Frame("PER", "b")], [])


def test_null_and_empty_fillers_are_none() -> None:
    text = "{(PER: null): []} {(PER: None): []} {(PER: ): []} {(PER:): []} {(Speech: x): [(Time: Null), (Place: )]}"
    frames, issues = read_frames(text, SCHEMA)
    assert frames == [*[Frame("PER", None)] * 4, Frame("Speech", "x")]
    assert issues == []
    kept, _ = read_frames(text, SCHEMA, keep_null_slots=True)
    assert kept[-1].slots == (Slot("Time", None), Slot("Place", None))


def test_copies_are_kept() -> None:
    text = write_frames([SPEECH, SPEECH])
    assert read_frames(text, SCHEMA)[0] == [SPEECH, SPEECH]


def test_extents_say_where_frames_and_slots_were_read() -> None:
    text = f"So: {write_frames([Frame('PER', 'a'), SPEECH])} {{(Speech: x): [(Time: y), (Pla"
    frames, _ = read_frames(text, SCHEMA)
    parts = [text[slice(*frame.extent)] for frame in frames if frame.extent]
    assert parts == ["{(PER: a): []}", write_frames([SPEECH]), "{(Speech: x): [(Time: y), "]
    assert [text[slice(*slot.extent)] for slot in frames[1].slots if slot.extent] == [
        "(Speaker: Barack Obama)",
        "(Time: May 14, 2012)",
    ]


@pytest.mark.parametrize(
    ("text", "frames", "kinds"),
    [
        # Unknown: frames go with their slots, slots alone.
        ("{(ORG: a): [(x: y)]} {(PER: b): []}", [Frame("PER", "b")], [UNKNOWN_TYPE]),
        ("{(Speech: a): [(Who: b), (Time: c)]}", [Frame("Speech", "a", (Slot("Time", "c"),))], [UNKNOWN_SLOT]),
        ("{(PER: a): [(Time: b)]}", [Frame("PER", "a")], [UNKNOWN_SLOT]),
        # Truncated: the last pair goes, its frame stays.
        ("{(Speech: a): [(Time: b), (Place: Par", [Frame("Speech", "a", (Slot("Time", "b"),))], [TRUNCATED]),
        ("{(Speech: a): [(Time: b), (Place: Par (x)", [Frame("Speech", "a", (Slot("Time", "b"),))], [TRUNCATED]),
        ("{(Speech: a): [(Time: b)", [Frame("Speech", "a", (Slot("Time", "b"),))], [TRUNCATED]),
        ("{(Speech: a): [", [Frame("Speech", "a")], [TRUNCATED]),
        ("{(PER: a): []} {(PER: b", [Frame("PER", "a")], [TRUNCATED]),
        ("{(PER: a): []} {(PER: b\\)", [Frame("PER", "a")], [TRUNCATED]),
        # Malformed: what has no colon or no end costs itself, a head costs its frame.
        ("{(Speech: a): [(b), (Time: c)]}", [Frame("Speech", "a", (Slot("Time", "c"),))], [MALFORMED]),
        ("{(Speech: a): [(Time: :(), (Place: c)]}", [Frame("Speech", "a", (Slot("Place", "c"),))], [MALFORMED]),
        ("{(Speech: :(): []} :) {(PER: b): []}", [Frame("PER", "b")], [MALFORMED]),
        ("{(Speech: a): [Time: b, (Place: c)]}", [Frame("Speech", "a", (Slot("Place", "c"),))], [MALFORMED]),
        ("{(Speech a): [(Time: b)]} {(PER: c): []}", [Frame("PER", "c")], [MALFORMED]),
        ("{(Speech: :(): [(Time: b)]} {(PER: c): []}", [Frame("PER", "c")], [MALFORMED]),
        ("{(PER: a): [] {(PER: b): []}", [Frame("PER", "a"), Frame("PER", "b")], [MALFORMED]),
        ("{(PER: a): []} {PER: b} {(PER: c): []}", [Frame("PER", "a"), Frame("PER", "c")], [MALFORMED]),
        ("As said (see above) {(PER: a): []}", [Frame("PER", "a")], [MALFORMED]),
        ("Bob is a person.", [], [MALFORMED]),
        ("", [], [MALFORMED]),
        # All that is wrong is reported, in the order of the text.
        (
            "{(ORG: a): []} ) {(Speech: b): [(Who: c), (Time",
            [Frame("Speech", "b")],
            [UNKNOWN_TYPE, MALFORMED, UNKNOWN_SLOT, TRUNCATED],
        ),
    ],
)
def test_what_is_wrong_is_left_out_and_reported(text: str, frames: list[Frame], kinds: list[str]) -> None:
    read, issues = read_frames(text, SCHEMA)
    assert read == frames
    assert [issue.kind for issue in issues] == kinds


def test_messages_quote_the_answer_shortly() -> None:
    _, issues = read_frames("{(ORG: " + "a" * 100 + "): []} {(PER: b): [(Who: c), d]}", SCHEMA)
    assert [issue.message for issue in issues] == [
        f"'(ORG: {'a' * 54}'... is left out with its slots: the schema has no frame type 'ORG'.",
        "'(Who: c)' is left out: frame type 'PER' has no slot 'Who'.",
        "', d' is left out: it is no part of a frame.",
    ]


# Schemas.


@dataclass
class Attack:
    """A frame type in the manner of GoLLIE."""

    attacker: str
    target: str


def test_schemas_of_many_kinds(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(
        json.dumps({"PER": [], "Attack": {"slots": ["attacker", "target"], "task": "EAE"}}), encoding="utf8"
    )
    person = FrameType("PER")
    attack = FrameType("Attack", ("attacker", "target"))
    assert Schema.of(["PER", "LOC"]).types == (person, FrameType("LOC"))
    assert Schema.of({"PER": [], "Attack": ("attacker", "target")}).types == (person, attack)
    assert Schema.of([person, attack]).types == Schema.of(["PER", Attack]).types == (person, attack)
    assert Schema.of(Attack).types == (attack,)
    assert Schema.of([{"name": "PER"}, {"name": "Attack", "slots": ["attacker", "target"]}]).types == (person, attack)
    given_task = (person, FrameType("Attack", ("attacker", "target"), "EAE"))
    assert Schema.of(path).types == Schema.of(str(path)).types == given_task
    schema = Schema.of([person])
    assert Schema.of(schema) is schema


def test_a_schema_is_an_ordered_immutable_collection() -> None:
    schema = Schema.of({"PER": [], "Attack": ["who", "whom"], "LOC": []})
    assert schema.names == ("PER", "Attack", "LOC")
    assert (len(schema), [each.name for each in schema]) == (3, list(schema.names))
    assert "PER" in schema and "ORG" not in schema and 3 not in schema
    assert schema.slots("Attack") == ("who", "whom")
    assert schema.only(["LOC", "PER"]).names == ("LOC", "PER")
    assert schema.to_dict() == {"PER": [], "Attack": ["who", "whom"], "LOC": []}
    assert {name: part.names for name, part in schema.by_task().items()} == {"NER": ("PER", "LOC"), "EE": ("Attack",)}
    assert hash(schema) == hash(Schema.of(schema.to_dict())) and schema == Schema.of(schema.to_dict())
    assert schema != schema.only(["LOC", "Attack", "PER"])
    assert pickle.loads(pickle.dumps(schema)) == schema
    with pytest.raises(FrozenInstanceError):
        schema.types = ()  # type: ignore[misc]
    for use in (schema.slots, lambda name: schema.only([name])):
        with pytest.raises(ValueError, match="frame type 'ORG' is not in the schema; expected one of PER, Attack, LOC"):
            use("ORG")


@pytest.mark.parametrize(
    ("slots", "task"),
    [
        ((), "NER"),
        (("subject", "object"), "RE"),
        (("tail", "head"), "RE"),
        (("opinion", "aspect"), "ABSA"),
        (("subject",), "EE"),
        (("subject", "tail"), "EE"),
        (("subject", "object", "time"), "EE"),
    ],
)
def test_tasks_are_inferred_from_slots(slots: tuple[str, ...], task: str) -> None:
    assert FrameType("x", slots).task == task
    assert FrameType("x", slots, "ED").task == "ED"


@given(
    st.dictionaries(
        names, st.tuples(st.lists(names, max_size=3, unique=True), st.sampled_from(["", "ED", "RE"])), min_size=1
    )
)
def test_schemas_are_plain_data_and_back(types: dict[str, tuple[list[str], str]]) -> None:
    schema = Schema(tuple(FrameType(name, tuple(slots), task) for name, (slots, task) in types.items()))
    assert Schema.of(json.loads(json.dumps(schema.to_config()))) == schema
    assert Schema.of(schema.to_dict()).to_dict() == schema.to_dict()


@pytest.mark.parametrize(
    "bad", ["", " a", "a ", "a(b", "a)", "{a", "a}", "[a", "a]", "a\\b", "a\nb", "a\u2028b", 3, None]
)
def test_names_that_the_format_cannot_hold_are_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"the name of a frame type is .*; expected"):
        Schema.of([FrameType(bad)])
    with pytest.raises(ValueError, match=r"a slot of frame type 'x' is .*; expected"):
        Schema.of({"x": [bad]})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "the schema is empty; expected at least one frame type"),
        ([], "the schema is empty"),
        (["a", "a"], "frame types of the schema has 'a' twice"),
        ({"a": ["b", "b"]}, "slots of frame type 'a' has 'b' twice"),
        ({"a": "bc"}, "slots of frame type 'a' is 'bc'; expected a list of names"),
        ({"a": None}, "slots of frame type 'a' is None; expected a list of names"),
        ({"a": {"slot": []}}, "frame type 'a' has 'slot'; expected just slots and task"),
        ({"a": {"task": "QA"}}, "task of frame type 'a' is 'QA'; expected one of NER, RE, ED, EAE, EE, ABSA"),
        ({"a": {"slots": [], "task": None}}, "task of frame type 'a' is None"),
        ([3], "a frame type of the schema is 3; expected a name, {'name': ..., 'slots': [...]}, a FrameType or a"),
        ([{"slots": []}], "a frame type of the schema is {'slots': []}; expected a name"),
        ([{"name": "a", "type": "b"}], "frame type 'a' has 'type'; expected just slots and task"),
        ([int], "a frame type of the schema is <class 'int'>"),
        ("PER", "schema is 'PER'; expected"),
        (None, "schema is None; expected"),
        (3, "schema is 3; expected"),
    ],
)
def test_wrong_schemas_are_named(value: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Schema.of(value)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not JSON"), ('{"a": [], "a": []}', "has 'a' twice"), ("3", "schema is 3; expected"), ("{}", "is empty")],
)
def test_wrong_schema_files_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "schema.json"
    path.write_text(content, encoding="utf8")
    with pytest.raises(ValueError, match=message):
        Schema.of(path)
    with pytest.raises(FileNotFoundError):
        Schema.of("no-such-folder/schema.json")
