"""Texts with gold frames of any task, for tests of what is made of them."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from spacy_ie_moe.uc_uie.frames import Frame, Schema, Slot
from spacy_ie_moe.uc_uie.instructions import HARD_ROUTES

WORDS = ("Bob", "Null", "none", "(big)", "A:", "x]}", "\\", "Ada", "of", "Rome,", "the", "dog's", "Bob", "in")
ALIKE = ("Attack", "Attacking", "Attempt", "Award", "Arrest", "Arriving", "Rite", "Scrutiny", "Sign agreement", "Sign")
GENEVA = (*ALIKE, *(f"Event {letter}" for letter in "abcdefghij"))
"""Twenty types, some of which have names that are alike."""


@dataclass(frozen=True)
class Gold:
    """A text with gold frames, as a corpus has them."""

    text: str
    frames: tuple[Frame, ...]
    task: str
    schema: Schema


@st.composite
def golds(draw: st.DrawFn, *, most_types: int = 20) -> Gold:
    """Any words; frames of any task whose fillers are words of the text, in text order."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=12))
    text = draw(st.sampled_from([" ", "  ", "\n"])).join(words)
    task = draw(st.sampled_from(sorted(HARD_ROUTES)))
    roles = {"RE": ["subject", "object"], "ABSA": ["aspect", "opinion"], "NER": []}.get(task, ["Agent", "Place: at"])
    names = draw(st.lists(st.sampled_from([*GENEVA, "TYPE_1", "type_2"]), min_size=1, max_size=most_types, unique=True))
    schema = Schema.of({name: {"slots": roles, "task": task} for name in names})

    def filler() -> str:
        start = draw(st.integers(0, len(words) - 1))
        return " ".join(words[start : draw(st.integers(start + 1, len(words)))])

    frames = []
    for _ in range(draw(st.integers(0, 5))):
        slots = tuple(Slot(role, filler()) for role in roles if task in ("RE", "ABSA") or draw(st.booleans()))
        frames.append(Frame(draw(st.sampled_from(names)), None if task in ("RE", "ABSA") else filler(), slots))
    return Gold(text, tuple(frames), task, schema)
