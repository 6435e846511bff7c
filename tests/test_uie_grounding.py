"""Fillers to character offsets."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spacy_ie_moe.uc_uie.frames import EMPTY, SURPLUS, UNGROUNDABLE, Frame, Slot
from spacy_ie_moe.uc_uie.grounding import GroundedFrame, find_mentions, ground


def words_at(text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    return [text[start:end] for start, end in offsets]


def alike(filler: str) -> str:
    """What a filler is up to case and white space."""
    return " ".join(filler.split()).casefold()


def summary(grounded: Sequence[GroundedFrame]) -> list[tuple[Any, ...]]:
    return [(frame.type, frame.span, *((slot.type, slot.span) for slot in frame.slots)) for frame in grounded]


# Properties.

LETTERS = "aAbB .,-_'\n\tßẞſİıéÉ\u0301名京ไทย한1(\\"
texts = st.text(LETTERS, max_size=40) | st.lists(st.sampled_from(["a", "A b", "ab", "b", "ss", "ß"]), max_size=12).map(
    " ".join
)


@st.composite
def fillers_of(draw: Callable[..., Any], text: str) -> str:
    """A part of the text, perhaps in other case or with other blanks, or any text."""
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(text))] * 2)))
    part = text[start : min(end, start + 6)]
    changes = [part, part.lower(), part.upper(), part.casefold(), part.replace(" ", "\n "), part[::-1]]
    return draw(st.sampled_from(changes) | st.text(LETTERS, max_size=4))


def check_grounding(data: st.DataObject) -> None:
    text = data.draw(texts)
    fillers = fillers_of(text)
    slots = st.lists(st.builds(Slot, st.sampled_from("xy"), fillers), max_size=3).map(tuple)
    frames = data.draw(st.lists(st.builds(Frame, st.sampled_from("AB"), st.none() | fillers, slots), max_size=4))
    frames += map(replace, data.draw(st.lists(st.sampled_from(frames), max_size=3)) if frames else [])
    grounded, issues = ground(frames, text)
    order = [next(index for index, each in enumerate(frames) if each is frame.source) for frame in grounded]
    assert order == sorted(set(order))
    seen = set()
    for frame in grounded:
        pairs = [(frame.span, frame.source.filler), *((slot.span, slot.source.filler) for slot in frame.slots)]
        for span, filler in pairs:
            assert (span is None) == (filler is None)
            if span is not None and filler is not None:
                assert alike(text[slice(*span)]) == alike(filler)
                assert span in find_mentions(filler, text)
        assert frame.span is not None or frame.slots
        assert frame.type == frame.source.type
        assert all(slot.type == slot.source.type for slot in frame.slots)
        seen.add((frame.type, frame.span, frozenset((slot.type, slot.span) for slot in frame.slots)))
    assert len(seen) == len(grounded), "two frames are the same"
    lost_slots = sum(len(frame.source.slots) - len(frame.slots) for frame in grounded)
    assert len(issues) >= len(frames) - len(grounded) + lost_slots


@settings(max_examples=300)
@given(st.data())
def test_spans_are_the_fillers_up_to_case_and_white_space(data: st.DataObject) -> None:
    check_grounding(data)


@pytest.mark.slow
@settings(max_examples=20_000)
@given(st.data())
def test_20000_times_spans_are_the_fillers(data: st.DataObject) -> None:
    check_grounding(data)


def reference_mentions(filler: str, text: str) -> list[tuple[int, int]]:
    """``find_mentions`` for ASCII, by regular expressions."""
    pattern = r"\s+".join(map(re.escape, filler.split()))
    for bounds in (r"(?:(?<!\w)|(?!\w)){}(?:(?!\w)|(?<!\w))", "{}"):
        for flags in (0, re.IGNORECASE):
            found = [match.span() for match in re.finditer(bounds.replace("{}", pattern), text, flags)]
            if found and pattern:
                return found
    return []


@settings(max_examples=300)
@given(st.text("aAb ._\n-(", max_size=30), st.text("aAb ._\n-(", max_size=4))
@example("xa a a", "a a")
@example("aab a", "a")
def test_mentions_are_those_of_a_slow_search(text: str, filler: str) -> None:
    assert find_mentions(filler, text) == reference_mentions(filler, text)


# Mentions.


@pytest.mark.parametrize(
    ("filler", "text", "expected"),
    [
        # At the bounds of words first, then in any case, then within words, then that in any case.
        ("cat", "concat Cat cat, (cat)", ["cat", "cat"]),
        ("CAT", "concat Cat cat", ["Cat", "cat"]),
        ("cat", "concat caTalog scatter", ["cat", "cat"]),
        ("CAT", "concat caTalog", ["cat", "caT"]),
        ("dog", "concat", []),
        # White space is any white space.
        ("New York", "New  York, New\nYork, new\u00a0york, NewYork", ["New  York", "New\nYork"]),
        (" New\tYork\n", "in New York", ["New York"]),
        ("a b", "a\n\n b", ["a\n\n b"]),
        # Unicode.
        ("straße", "Die STRASSE, die Straße", ["STRASSE", "Straße"]),
        ("ss", "Maß ss", ["ss"]),
        ("s", "Maß", []),
        ("ΣΊΣΥΦΟΣ", "ο Σίσυφος", ["Σίσυφος"]),
        ("Müller", "Müllerin und Müller", ["Müller"]),
        ("cafe", "cafe\u0301 cafe", ["cafe"]),
        ("हिन्द", "हिन्दी हिन्द", ["हिन्द"]),
        ("я", "яма я", ["я"]),
        # Signs have bounds everywhere; underscores do not.
        ("...", "what...ever ... ", ["...", "..."]),
        ("C++", "C++ and C++11", ["C++", "C++"]),
        ("$5", "US$5 and $50", ["$5"]),
        ("$", "US$5", ["$"]),
        (":(", "no :( :((", [":(", ":("]),
        ("len", "max_len len", ["len"]),
        ("Obama", "Obama's @Obama", ["Obama", "Obama"]),
        # Scripts without blanks, and Hangul with its endings.
        ("北京", "北京，我爱北京。", ["北京", "北京"]),
        ("NASA", "在NASA工作", ["NASA"]),
        ("ไทย", "ประเทศไทยไทย", ["ไทย", "ไทย"]),
        ("东京", "東京とトーキョー", []),
        ("서울", "서울은 서울에서 서울", ["서울", "서울", "서울"]),
        # Mentions do not overlap.
        ("ha ha", "ha ha ha ha ha", ["ha ha", "ha ha"]),
        ("哈哈", "哈哈哈哈", ["哈哈", "哈哈"]),
        # Nothing is nowhere.
        ("", "text", []),
        (" ", "a b", []),
        ("a", "", []),
    ],
)
def test_mentions(filler: str, text: str, expected: list[str]) -> None:
    mentions = find_mentions(filler, text)
    assert words_at(text, mentions) == expected
    assert all(end <= start for (_, end), (start, _) in pairwise(mentions))


def test_a_rejected_mention_does_not_hide_one_that_overlaps_it() -> None:
    assert find_mentions("a a", "xa a a") == [(3, 6)]


# Frames.

OBAMA = "Obama met Merkel. Obama left."


def test_the_nth_copy_is_the_nth_mention_and_no_more() -> None:
    frames = [Frame("PER", "Obama")] * 3
    grounded, issues = ground(frames, OBAMA)
    assert summary(grounded) == [("PER", (0, 5)), ("PER", (18, 23))]
    assert [issue.kind for issue in issues] == [SURPLUS]
    assert issues[0].message == "(PER: Obama) is left out: the text has 2 of it, and all are taken."


def test_copies_are_counted_by_type() -> None:
    grounded, issues = ground([Frame("PER", "Obama"), Frame("president", "Obama")], OBAMA)
    assert summary(grounded) == [("PER", (0, 5)), ("president", (0, 5))]
    assert issues == []


def test_copies_that_differ_in_case_are_copies() -> None:
    grounded, issues = ground([Frame("PER", "Obama"), Frame("PER", "obama"), Frame("PER", "OBAMA")], OBAMA)
    assert summary(grounded) == [("PER", (0, 5)), ("PER", (18, 23))]
    assert [issue.kind for issue in issues] == [SURPLUS]


def test_copies_with_one_mention_may_differ_in_slots() -> None:
    text = "Bob and Eve were hit"
    bob, eve = (Frame("Attack", "hit", (Slot("target", name),)) for name in ("Bob", "Eve"))
    grounded, issues = ground([bob, eve, bob], text)
    assert summary(grounded) == [("Attack", (17, 20), ("target", (0, 3))), ("Attack", (17, 20), ("target", (8, 11)))]
    assert [issue.message for issue in issues] == [
        "(Attack: hit) is left out: an earlier frame is the same, at the same place; its slots go with it."
    ]


def test_an_answer_that_follows_the_text_is_followed() -> None:
    text = "Acme hired Bob; Eve left Acme."
    people = [Frame("PER", "Bob"), Frame("PER", "Eve")]
    assert summary(ground([*people, Frame("ORG", "Acme")], text)[0])[-1] == ("ORG", (25, 29))
    assert summary(ground([Frame("ORG", "Acme"), *people], text)[0])[0] == ("ORG", (0, 4))
    # It is not known to follow the text, or known not to.
    assert summary(ground([people[1], Frame("ORG", "Acme")], text)[0])[-1] == ("ORG", (0, 4))
    assert summary(ground([people[1], people[0], Frame("ORG", "Acme")], text)[0])[-1] == ("ORG", (0, 4))
    # What was passed over is taken when nothing else is left.
    grounded, issues = ground([*people, *[Frame("ORG", "Acme")] * 3], text)
    assert summary(grounded)[2:] == [("ORG", (25, 29)), ("ORG", (0, 4))]
    assert [issue.kind for issue in issues] == [SURPLUS]


def test_slots_are_nearest_to_their_frame() -> None:
    text = "Paris slept. Bob spoke in Paris. Eve spoke. Paris woke."
    frames = [Frame("Speech", "spoke", (Slot("place", "Paris"),))] * 2
    grounded, _ = ground(frames, text)
    assert summary(grounded) == [
        ("Speech", (17, 22), ("place", (26, 31))),
        ("Speech", (37, 42), ("place", (44, 49))),
    ]


def test_roles_may_share_a_mention_but_copies_of_a_slot_may_not() -> None:
    text = "Bob shaved Bob, and Bob paid."
    roles = Frame("Shave", "shaved", (Slot("agent", "Bob"), Slot("patient", "Bob")))
    assert summary(ground([roles], text)[0]) == [("Shave", (4, 10), ("agent", (0, 3)), ("patient", (0, 3)))]
    copies = Frame("Shave", "shaved", (Slot("agent", "Bob"),) * 4)
    grounded, issues = ground([copies], text)
    assert [span for _, span in summary(grounded)[0][2:]] == [(0, 3), (11, 14), (20, 23)]
    assert [issue.message for issue in issues] == ["(agent: Bob) is left out: the text has 3 of it, and all are taken."]


def relation(subject: str, object_: str) -> Frame:
    return Frame("founder", None, (Slot("subject", subject), Slot("object", object_)))


def test_slots_of_a_relation_are_nearest_to_each_other() -> None:
    text = "Acme sells. Bob rests. Alice founded Acme. Bob founded Acme too, says Bob."
    grounded, _ = ground([relation("Acme", "Alice"), relation("Bob", "Acme")], text)
    assert summary(grounded) == [
        ("founder", None, ("subject", (37, 41)), ("object", (23, 28))),
        ("founder", None, ("subject", (43, 46)), ("object", (37, 41))),
    ]


def test_identical_relations_are_the_nearest_arrangements_in_text_order() -> None:
    text = "Bob, who is tall, likes Eve. Some other day, in Paris, Bob likes Eve. Nobody else likes Eve."
    grounded, issues = ground([relation("Bob", "Eve")] * 2, text)
    assert summary(grounded) == [
        ("founder", None, ("subject", (0, 3)), ("object", (24, 27))),
        ("founder", None, ("subject", (55, 58)), ("object", (65, 68))),
    ]
    assert issues == []
    grounded, issues = ground([relation("Bob", "Eve")] * 3, "Bob likes Eve and Eve")
    assert summary(grounded) == [
        ("founder", None, ("subject", (0, 3)), ("object", (10, 13))),
        ("founder", None, ("subject", (0, 3)), ("object", (18, 21))),
    ]
    assert [issue.kind for issue in issues] == [SURPLUS]


def test_the_arguments_of_a_relation_are_apart_if_they_can_be() -> None:
    grounded, _ = ground([relation("Bob", "Bob")], "Bob, said Bob.")
    assert summary(grounded) == [("founder", None, ("subject", (0, 3)), ("object", (10, 13)))]
    grounded, _ = ground([relation("Bob", "bob")], "Bob.")
    assert summary(grounded) == [("founder", None, ("subject", (0, 3)), ("object", (0, 3)))]


def test_what_is_not_in_the_text_is_left_out_and_reported() -> None:
    text = "Bob spoke."
    frames = [
        Frame("PER", "Bobby"),
        Frame("Speech", "talked", (Slot("speaker", "Bob"),)),
        Frame("Speech", "spoke", (Slot("speaker", "Bob"), Slot("place", "Paris"))),
        relation("Bob", "Acme"),
        relation("Eve", "Acme"),
        Frame("founder", None),
        Frame("founder", None, (Slot("subject", None),)),
    ]
    grounded, issues = ground(frames, text)
    assert summary(grounded) == [
        ("Speech", (4, 9), ("speaker", (0, 3))),
        ("founder", None, ("subject", (0, 3))),
    ]
    assert grounded[0].source is frames[2] and grounded[0].slots[0].source is frames[2].slots[0]
    assert [(issue.kind, issue.message) for issue in issues] == [
        (UNGROUNDABLE, "(PER: Bobby) is left out: it is not in the text."),
        (UNGROUNDABLE, "(Speech: talked) is left out: it is not in the text; its slots go with it."),
        (UNGROUNDABLE, "(place: Paris) is left out: it is not in the text; its frame was (Speech: spoke)."),
        (UNGROUNDABLE, "(object: Acme) is left out: it is not in the text; its frame was (founder: Null)."),
        (UNGROUNDABLE, "(subject: Eve) is left out: it is not in the text; its frame was (founder: Null)."),
        (UNGROUNDABLE, "(object: Acme) is left out: it is not in the text; its frame was (founder: Null)."),
        (EMPTY, "(founder: Null) is left out: nothing of it is in the text; its slots go with it."),
        (EMPTY, "(founder: Null) is left out: nothing of it is in the text."),
        (EMPTY, "(founder: Null) is left out: nothing of it is in the text; its slots go with it."),
    ]


def test_messages_are_short() -> None:
    _, (issue,) = ground([Frame("PER", "x" * 1000)], "text")
    assert issue.message == f"(PER: {'x' * 60}...) is left out: it is not in the text."


def test_nothing_in_nothing() -> None:
    assert ground([], "text") == ([], [])
    grounded, issues = ground([Frame("PER", "Bob")], "")
    assert (grounded, [issue.kind for issue in issues]) == ([], [UNGROUNDABLE])


MANY = 20_000


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("a " * 100_000, [Frame("x", "a")] * MANY),
        ("a " * 100_000, [Frame("x", "A")] * MANY),
        ("a" * 200_000, [Frame("x", "a" * 1000)] * MANY),
        ("a b " * 50_000, [Frame("x", "a", (Slot("y", "b"),))] * MANY),
        ("a b " * 20_000, [Frame("x", None, (Slot("y", "a"), Slot("z", "b")))] * MANY),
        ("first a " + "a " * 50_000 + "last", [Frame("x", "first"), Frame("x", "last"), *[Frame("x", "a")] * MANY]),
        ("a " * 100_000, [Frame("x", str(number)) for number in range(1000)]),
        ("a b " * 2_000, [Frame("x", "a", (Slot("y", "b"),) * 2_000)]),
        ("\n" * 100_000 + "a\n" * 50_000, [Frame("x", "a a a")] * MANY),
    ],
)
def test_many_copies_in_a_long_text_take_no_longer_each(text: str, frames: list[Frame]) -> None:
    began = time.process_time()
    ground(frames, text)
    assert time.process_time() - began < 4
