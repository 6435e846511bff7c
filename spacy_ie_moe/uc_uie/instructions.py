"""What the language model reads: a wording of the task, the schema, then the text (paper, sections 3.1 and 3.4).

The prompt is ``Z = [I; X]``: the instruction ``I`` is a wording of the task and the schema in the paper's form,
``{FT: [ST, ...]}``; it comes first, so everything that is computed on it (its keys and values, the gates of
eq. 3) holds for any text. The body ``X`` is the text and what is given beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .frames import TASKS, Frame, Schema, escape, write_frames

CAPABILITIES = ("judging", "locating", "associating")
"""J, L and A (section 3.3), in the order of every routing vector."""

Routes = tuple[int, int, int]
Pools = Mapping[str, tuple[str, ...]]

HARD_ROUTES: Mapping[str, Routes] = {
    "NER": (1, 1, 0),
    "RE": (1, 1, 1),
    "ED": (1, 1, 0),
    "EAE": (1, 1, 1),
    "EE": (1, 1, 1),
    "ABSA": (1, 1, 1),
}
"""``[g_J, g_L, g_A]`` of each task (section 3.4): judging, locating, associating.

The paper gives all three to EE as a whole; event detection alone has nothing to associate, as NER.
"""

CAPABILITY_ROUTES: Mapping[str, Routes] = {"judging": (1, 0, 0), "locating": (0, 1, 0), "associating": (0, 0, 1)}
"""The routes of capability warming: one expert beside the shared one."""

POOLS: Pools = {
    "NER": (
        "Find every named entity in the text and give it one of the listed types.",
        "Mark all entity mentions that belong to one of the types below, copied as they stand in the text.",
        "Which words of the text name an entity? Copy each of them with its type from the list.",
        "Go through the text and collect the entity mentions, each under the type that fits.",
        "For each type in the list, copy the spans of the text that are an entity of this type.",
        "Report the entities of this text along with their types; leave out types that do not occur.",
        "Read the text and label each entity mention with a type from the list below.",
        "Your task is entity recognition: copy every mention of the given types, in the order of the text.",
        "Write down each entity that the text mentions, as long as its type is named below.",
        "Spot the entities in the text; only the types that are listed count.",
    ),
    "RE": (
        "Find the relations of the listed types in the text, each with its subject and its object.",
        "Which pairs of entities does the text relate? Copy both of each pair, under the type of the relation.",
        "For each type of relation below, copy the two entities between which the text states it.",
        "Read the text and write down every relation it states: its type from the list and the two spans it joins.",
        "Extract relation triplets: a type from the list, and the two mentions in the text that stand in it.",
        "Collect all pairs of mentions that are linked by one of the relation types given below.",
        "State who or what is related to whom or what in this text, using just the relation types in the list.",
        "Your task is relation extraction: fill both sides of each relation whose type is listed, word for word.",
        "Look for facts of the listed relation types and give the spans at both ends of each of them.",
        "Report each relation between two mentions in the text; skip types that the text does not state.",
    ),
    "ED": (
        "Find the words in the text that trigger an event of one of the listed types.",
        "Which events does the text report? Copy the trigger of each, under its type.",
        "For each event type below, copy the word or phrase by which the text expresses such an event.",
        "Detect events: give every trigger in the text and the type of event that it evokes.",
        "Read the text and mark the words that tell that an event happens, with its type from the list.",
        "Collect the event triggers of this text; only the types that are listed count.",
        "Your task is event detection: copy each trigger as it stands and choose its type from the list.",
        "Point out every event of the given types by the word that best expresses it.",
        "List the triggers of events in the order of the text, each with one of the types below.",
    ),
    "EAE": (
        "The events are given with their triggers; find the arguments of each and the roles they play.",
        "For every given event, copy the spans of the text that fill its roles.",
        "Who and what takes part in the given events? Fill the roles of each event type, word for word.",
        "Complete the events below the text: add to each the arguments that the text names, under their roles.",
        "Extract event arguments: for each given trigger, the mentions in the text and their roles in the event.",
        "Take the triggers of events as given and look in the text for what fills the roles of each.",
        "Read the text and attach to each given event its arguments; leave out roles that are not filled.",
        "Your task is to find event arguments: copy each participant of a given event under its role.",
        "State for each event named below the text which words of the text stand in which of its roles.",
    ),
    "EE": (
        "Find the events of the listed types in the text: the trigger of each and the arguments in its roles.",
        "Which events does the text report? Copy the trigger of each, and fill its roles from the text.",
        "Extract complete events: type, trigger, and every argument under the role that it plays.",
        "For each event type below, look for triggers in the text and for the spans that fill its roles.",
        "Read the text and write down what happens: the word that tells the event, its type, and who plays what role.",
        "Collect all events with their participants, each under one of the roles that its event type lists.",
        "Your task is event extraction: copy triggers and arguments word for word, by the types and roles in the list.",
        "Report every event of the given types, together with the arguments in its roles that the text names.",
        "List each event by its trigger, and beside it the words of the text that fill the roles of its type.",
    ),
    "ABSA": (
        "Find the aspects that the text judges, the opinion words on each, and the sentiment they express.",
        "What does the writer think of what? Copy aspect and opinion, under the sentiment that joins them.",
        "For each sentiment below, copy the pairs of an aspect and the opinion that expresses it.",
        "Extract opinions: the aspect under discussion, the words of the opinion, and its sentiment.",
        "Read this review and pair each aspect with the opinion about it; choose the sentiment from the list.",
        "Collect the triplets of aspect, opinion and sentiment that the text contains.",
        "Your task is sentiment analysis by aspect: copy both aspect and opinion word for word.",
        "Point out every aspect the text has an opinion on, with the words that say so and their polarity.",
        "List which aspect is praised or criticised by which opinion words, under the polarity that fits.",
    ),
}
"""Wordings of each task, our own; one is drawn for each lesson, the first is used at prediction."""

CAPABILITY_POOLS: Pools = {
    "judging": (
        "Decide which of these types the text contains. Name the types only and copy no words.",
        "Which of the listed types occur in the text? Give their names and nothing from the text.",
        "Judge for each type below whether the text has it, and answer with just the names of those types.",
        "Read the text and say which types from the list apply to it, without any of its words.",
        "Pick out the types that this text is an example of; leave every filler empty.",
        "Choose from the list the types that are present. The text itself is not to be copied.",
        "Tell the types that can be found here from those that cannot; give the former by name only.",
        "Your task is to judge: name the types that the text contains and do not locate them.",
    ),
    "locating": (
        "The text contains all of these types. Copy every span that is of one of them.",
        "Each type below occurs in the text: locate it and copy its spans, one by one.",
        "Where in the text are these types? Give the spans of each, not joined to one another.",
        "Copy from the text, in its order, all spans of the listed types.",
        "Locate the types below. Every span stands alone, with its type.",
        "All listed types are there to be found; write down the words that fill each type.",
        "Your task is to locate: copy the spans of each given type and do not link them.",
        "Go through the text and copy each piece that fills one of the types, alone.",
    ),
    "associating": (
        "Join the spans that belong together, as the types below say; leave out those that do not belong.",
        "The spans are given. Link them by the listed types, and use no other words.",
        "Which of the numbered spans belong together? Combine them under the types in the list.",
        "Build complete structures of the listed types out of the given spans only.",
        "Associate the spans with each other: put each in its place in one of the types below.",
        "Take the numbered spans as they are and connect those between which one of the types holds.",
        "Your task is to link: fill the types below with the given spans that go together.",
        "Some of the given spans form one of the types together; write down each such group.",
    ),
}
"""Wordings of capability warming, by capability."""

ALL_POOLS: Pools = {**POOLS, **CAPABILITY_POOLS}

LEAD: Mapping[str, str] = {name: pool[0] for name, pool in POOLS.items()}
"""The wording of each task that is used at prediction."""


def all_wordings() -> list[str]:
    """Every wording of every pool."""
    return [wording for pool in ALL_POOLS.values() for wording in pool]


def build(task: str, schema: Any, wording: str | None = None) -> str:
    """The whole instruction: the wording and the schema, a line each, in the paper's form ``{FT: [ST, ...]}``.

    task: one of ``TASKS``; event detection is shown no slots, as it fills none. schema: what ``Schema.of`` takes.
    wording: one line; default ``LEAD[task]``. Raises ``ValueError`` for another task, an empty wording or one of
    several lines, and what ``Schema.of`` refuses.
    """
    check_task(task)
    wording = LEAD[task] if wording is None else wording
    if not wording.strip() or len(wording.splitlines()) > 1:
        raise ValueError(f"wording is {wording!r}; expected one line that is not empty.")
    shown = " ".join(
        f"{{{kind.name}: [{', '.join(kind.slots if task != 'ED' else ())}]}}" for kind in Schema.of(schema)
    )
    return f"{wording.strip()}\nTypes: {shown}\n"


def body(text: str, given: Sequence[Frame] = (), *, spans: Sequence[str] = ()) -> str:
    """What follows the instruction: the text in one line, what is given beside it, and ``Answer:``.

    given: the events whose arguments are asked for (EAE), in text order: type and trigger are shown. spans: the
    spans to be joined (associating), numbered from 1. White space in all of them is one blank, as in what the
    model is to write.
    """
    lines = [f"Text: {' '.join(text.split())}"]
    if given:
        lines.append(f"Events: {' '.join(map(_head, given))}")
    if spans:
        lines.append(f"Spans: {' '.join(f'[{number}] {escape(span)}' for number, span in enumerate(spans, 1))}")
    return "\n".join([*lines, "Answer:"])


def check_task(task: str) -> None:
    """Raise ``ValueError`` unless ``task`` is one of ``TASKS``."""
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; expected one of {', '.join(TASKS)}.")


def read_pools(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Pools from a file that ``spacy-ie-moe paraphrase`` wrote: ``{"pools": {task or capability: [wording, ...]}}``.

    Tasks and capabilities that the file leaves out keep the pools of this module. Raises ``OSError`` and, for a
    file of another form, ``ValueError``.
    """
    try:
        pools = json.loads(Path(path).read_text(encoding="utf8"))["pools"]
        given = {name: tuple(pool) for name, pool in pools.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError(
            f"path {path} holds no instruction pools; expected what the command paraphrase writes."
        ) from None
    for name, pool in given.items():
        if name not in ALL_POOLS:
            raise ValueError(f"path {path} has a pool {name!r}; expected only {', '.join(ALL_POOLS)}.")
        if not pool or not all(_is_sentence(wording) for wording in pool):
            raise ValueError(
                f"pool {name!r} of path {path} is {list(pool)!r}; expected at least one sentence, each in one line."
            )
    return {**ALL_POOLS, **given}


def _is_sentence(wording: Any) -> bool:
    return isinstance(wording, str) and len(wording.split()) > 1 and len(wording.splitlines()) == 1


def _head(frame: Frame) -> str:
    """``(FT: FF)``, as the frame's answer begins."""
    return write_frames([Frame(frame.type, frame.filler)]).removeprefix("{").removesuffix(": []}")
