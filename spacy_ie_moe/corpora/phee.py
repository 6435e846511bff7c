"""PHEE: sentences of medical case reports with adverse and therapeutic events and their nested arguments.

Source: Sun et al., "PHEE: A Dataset for Pharmacovigilance Event Extraction from Text", 2022; the form with character
offsets (``json/``). A role is ``{"text": [[part, ...], ...], "start": [[first character, ...], ...]}``, one inner list
for each mention; its sub-roles are roles inside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from .conversion import (
    UNKNOWN_TYPE,
    ConversionReport,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    convert_each,
    field_of,
    key_of,
    load_json_lines,
    select_part,
)
from .events import Argument, Event, borders
from .frames import MALFORMED_FRAME, MALFORMED_SLOT, FrameBuilder
from .words import locate, split_words

ATTRIBUTE = "attribute of an event"
COMBINATION = "Combination"
GAPS_IN_TRIGGER = "trigger of several parts, taken from the first to the last"
SEVERAL_PARTS = "argument of several parts, each a slot of its own"
SUB_ROLE = "sub-role"

ATTRIBUTES = frozenset({"Severity", "Speculated", "Negated"})
"""Roles that qualify the event: their words are cues, not arguments."""


def read(
    path: str | Path,
    vocab: Vocab,
    *,
    labels: LabelChoice | None = None,
    part: Part = Part(),
    seed: int = 0,
    report: ConversionReport | None = None,
    limit: int | None = None,
    sub_roles: bool = False,
) -> Iterator[Doc]:
    """The sentences of a PHEE file, one ``Doc`` each, with its events as frames.

    Slots are the main roles (Subject, Treatment, Effect); with ``sub_roles`` also those inside them
    ("Treatment.Drug"), a drug of a combination of treatments being "Combination.Drug". Of a discontinuous argument
    each part is a slot, as in the published token form (``eeqa/``); a discontinuous trigger is taken as a whole.
    Attributes of events are left out. Arguments are entities too, of their role's type. ``labels`` is about event
    types. ``limit``: a random sample of at most so many. The source id is ``id``. Raises ``FileNotFoundError`` and
    ``ValueError``.
    """
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    sentences = load_json_lines(path, "JSON lines, each a sentence with context and annotations")
    chosen = select_part(sentences, lambda sentence: key_of(sentence, "context"), part, seed, report)
    builders = convert_each(chosen, lambda sentence: _convert(sentence, vocab, labels, sub_roles), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _convert(sentence: Any, vocab: Vocab, labels: LabelChoice, sub_roles: bool) -> FrameBuilder:
    text = field_of(sentence, "context", str)
    account = ConversionReport()
    events = []
    for annotation in field_of(sentence, "annotations", list):
        for event in field_of(annotation, "events", list):
            try:
                events.append(_event(event, text, labels, sub_roles, account))
            except Unconvertible as error:
                account.frames.left_out[error.reason] += 1
    words = split_words(text, borders(events))
    builder = FrameBuilder(vocab, words.words, spaces=words.spaces, source=field_of(sentence, "id", str))
    builder.take(account)
    for event in events:
        slots = [(argument.role, words.extent(argument.start, argument.end)) for argument in event.arguments]
        for role, extent in slots:
            builder.span(*extent, role)
        builder.add_frame(event.label, words.extent(event.start, event.end), slots)
    return builder


def _event(event: Any, text: str, labels: LabelChoice, sub_roles: bool, account: ConversionReport) -> Event:
    """An event; what of its arguments is not converted is counted in the account."""
    if not isinstance(event, dict):
        raise Unconvertible(MALFORMED_FRAME)
    label = labels.resolve(event.get("event_type"), unknown=UNKNOWN_TYPE)
    triggers = _mentions(event.get("Trigger"), MALFORMED_FRAME)
    if len(triggers) != 1:
        raise Unconvertible(MALFORMED_FRAME)
    parts = [locate(text, *part) for part in triggers[0]]
    arguments: list[Argument] = []
    for role, data in _roles(event):
        reason = ATTRIBUTE if role in ATTRIBUTES else SUB_ROLE if "." in role and not sub_roles else None
        arguments += _arguments(role, data, text, reason, account)
    if len(parts) > 1:
        account.notes[GAPS_IN_TRIGGER] += 1
    return Event(label, min(start for start, _ in parts), max(end for _, end in parts), arguments)


def _roles(event: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The roles of an event, each with what it holds: the main ones, and those inside them."""
    for role, data in event.items():
        if role == "Trigger" or not isinstance(data, dict):
            continue
        yield role, data
        for name, inner in data.items():
            if isinstance(inner, dict):
                yield f"{role}.{name}", inner
            elif name == COMBINATION and isinstance(inner, list):
                for combination in inner:
                    if isinstance(combination, dict) and "Drug" in combination:
                        yield f"{COMBINATION}.Drug", combination["Drug"]


def _arguments(role: str, data: Any, text: str, reason: str | None, account: ConversionReport) -> Iterator[Argument]:
    """The arguments of a role, one for each part of a mention; all are left out where there is a ``reason``."""
    try:
        mentions = _mentions(data, MALFORMED_SLOT)
    except Unconvertible as error:
        account.slots.left_out[error.reason] += 1
        return
    for mention in mentions:
        if reason is not None:
            account.slots.left_out[reason] += len(mention)
            continue
        if len(mention) > 1:
            account.notes[SEVERAL_PARTS] += 1
        for part in mention:
            try:
                start, end = locate(text, *part)
            except Unconvertible as error:
                account.slots.left_out[error.reason] += 1
            else:
                yield Argument(role, start, end)


def _mentions(data: Any, reason: str) -> list[list[tuple[str, int]]]:
    """The mentions of a role, each as its parts: text and first character; else ``Unconvertible`` for ``reason``."""
    if not isinstance(data, dict):
        raise Unconvertible(reason)
    texts: Any = data.get("text")
    starts: Any = data.get("start")
    if not _is_nested(texts, str) or not _is_nested(starts, int) or list(map(len, texts)) != list(map(len, starts)):
        raise Unconvertible(reason)
    return [list(zip(*parts, strict=True)) for parts in zip(texts, starts, strict=True)]


def _is_nested(value: Any, kind: type) -> bool:
    """Whether ``value`` is a list of lists of ``kind``, none of which is empty."""
    return isinstance(value, list) and all(
        isinstance(inner, list) and inner and all(isinstance(one, kind) for one in inner) for inner in value
    )
