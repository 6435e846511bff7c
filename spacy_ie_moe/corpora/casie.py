"""CASIE: news articles with events of cyber-security and their arguments, by character offsets.

Source: Satyapanich et al., "CASIE: Extracting Cybersecurity Event Information from Text", 2020. A file is one article.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from spacy.tokens import Doc
from spacy.vocab import Vocab

from .conversion import (
    CROSSES_SENTENCES,
    NO_TOKENS,
    UNITS,
    UNKNOWN_TYPE,
    UNTYPED,
    ConversionReport,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    check_choice,
    convert_each,
    field_of,
    is_offset,
    key_of,
    load_json,
    select_part,
)
from .events import Argument, Event, borders
from .frames import MALFORMED_FRAME, MALFORMED_SLOT, FrameBuilder
from .words import Words, locate, split_words

OTHER_SENTENCE = "argument in another sentence than its trigger"
REALIGNED = "offsets moved to where the text is"


class _Article(NamedTuple):
    name: str
    data: Any


class _Unit(NamedTuple):
    """What becomes one ``Doc``: the words ``[start, end)`` of the article."""

    start: int
    end: int
    builder: FrameBuilder


def read(
    path: str | Path,
    vocab: Vocab,
    *,
    labels: LabelChoice | None = None,
    part: Part = Part(),
    seed: int = 0,
    report: ConversionReport | None = None,
    limit: int | None = None,
    unit: str = "document",
) -> Iterator[Doc]:
    """The articles of a folder of CASIE files (or of one file), one ``Doc`` for each ``unit``, with events as frames.

    An event's type is its subtype ("Databreach"). Where the text at the offsets is not that of the mention, it is
    looked for near them. Arguments are entities too, of their type ("Organization"). unit "document": the whole
    article with its sentence starts, by spaCy's rules for punctuation. unit "sentence": a ``Doc`` for each sentence;
    an argument in another sentence than its trigger is left out, and so is what lies in more than one. Parts are by
    article. ``labels`` is about event types. ``limit``: a random sample of at most so many units. The source id is
    the file's name, in sentences followed by ``/sentence index``. Raises ``FileNotFoundError`` and ``ValueError``.
    """
    check_choice("unit", unit, UNITS)
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    chosen = select_part(_articles(Path(path)), lambda article: key_of(article.data, "content"), part, seed, report)
    converted = convert_each(chosen, lambda article: _convert(article, vocab, labels, unit), report)
    builders = (one.builder for units in converted for one in units)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _articles(path: Path) -> Iterator[_Article]:
    """The articles in the order of their files' names; of a file that is no JSON object, None."""
    shape = "an article with content and cyberevent, or a folder of them"
    for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
        try:
            yield _Article(file.stem, load_json(file, dict, shape))
        except (ValueError, RecursionError):
            yield _Article(file.stem, None)


def _convert(article: _Article, vocab: Vocab, labels: LabelChoice, unit: str) -> list[_Unit]:
    text = field_of(article.data, "content", str)
    hoppers = field_of(field_of(article.data, "cyberevent", dict), "hopper", list)
    account = ConversionReport()
    events = []
    for hopper in hoppers:
        for event in field_of(hopper, "events", list):
            try:
                events.append(_event(event, text, labels, account))
            except Unconvertible as error:
                account.frames.left_out[error.reason] += 1
    words = split_words(text, borders(events))
    units = _units(article.name, words, vocab, unit)
    units[0].builder.take(account)
    for event in events:
        _add(units, event, words)
    return units


def _event(event: Any, text: str, labels: LabelChoice, account: ConversionReport) -> Event:
    """An event; what of its arguments is not converted is counted in the account."""
    if not isinstance(event, dict) or not isinstance(event.get("argument", []), list):
        raise Unconvertible(MALFORMED_FRAME)
    label = labels.resolve(event.get("subtype"), unknown=UNKNOWN_TYPE)
    start, end = _place(event.get("nugget"), text, MALFORMED_FRAME, account)
    arguments = []
    for argument in event.get("argument", []):
        try:
            arguments.append(_argument(argument, text, account))
        except Unconvertible as error:
            account.slots.left_out[error.reason] += 1
    return Event(label, start, end, arguments)


def _argument(argument: Any, text: str, account: ConversionReport) -> Argument:
    role = argument.get("role") if isinstance(argument, dict) else None
    name = role.get("type") if isinstance(role, dict) else None
    if not isinstance(name, str) or not name:
        raise Unconvertible(MALFORMED_SLOT)
    start, end = _place(argument, text, MALFORMED_SLOT, account)
    label = argument.get("type")
    return Argument(name, start, end, label if isinstance(label, str) and label else UNTYPED)


def _place(mention: Any, text: str, reason: str, account: ConversionReport) -> tuple[int, int]:
    """The characters of a trigger or an argument; ``Unconvertible`` for ``reason`` where it is malformed."""
    if not isinstance(mention, dict) or not isinstance(mention.get("text"), str):
        raise Unconvertible(reason)
    given = mention.get("startOffset"), mention.get("endOffset")
    if not all(map(is_offset, given)):
        raise Unconvertible(reason)
    found = locate(text, mention["text"], mention["startOffset"])
    if mention["text"] != text[slice(*given)]:
        account.notes[REALIGNED] += 1
    return found


def _units(name: str, words: Words, vocab: Vocab, unit: str) -> list[_Unit]:
    if unit == "document":
        first = set(words.sentences)
        builder = FrameBuilder(
            vocab,
            words.words,
            source=name,
            spaces=words.spaces,
            sent_starts=[index in first for index in range(len(words.words))],
        )
        return [_Unit(0, len(words.words), builder)]
    units = []
    for index, (start, end) in enumerate(pairwise([*words.sentences, len(words.words)])):
        inside = [position for position in range(start, end) if not words.words[position].isspace()]
        if inside:
            start, end = inside[0], inside[-1] + 1
            spaces = [*words.spaces[start : end - 1], False]
            builder = FrameBuilder(vocab, words.words[start:end], source=f"{name}/{index}", spaces=spaces)
            units.append(_Unit(start, end, builder))
    if not units:
        raise Unconvertible(NO_TOKENS)
    return units


def _add(units: list[_Unit], event: Event, words: Words) -> None:
    """Add an event to the unit of its trigger, and its arguments as entities to the units that they lie in."""
    trigger = words.extent(event.start, event.end)
    try:
        unit = _unit_of(units, *trigger)
    except Unconvertible as error:
        units[0].builder.frames.left_out[error.reason] += 1
        return
    builder = unit.builder
    slots = []
    for argument in event.arguments:
        start, end = words.extent(argument.start, argument.end)
        try:
            other = _unit_of(units, start, end)
        except Unconvertible as error:
            builder.slots.left_out[error.reason] += 1
            continue
        other.builder.span(start - other.start, end - other.start, argument.label)
        if other is not unit:
            builder.slots.left_out[OTHER_SENTENCE] += 1
            continue
        if bisect_right(words.sentences, start) != bisect_right(words.sentences, trigger[0]):
            builder.notes[OTHER_SENTENCE] += 1
        slots.append((argument.role, (start - unit.start, end - unit.start)))
    builder.add_frame(event.label, (trigger[0] - unit.start, trigger[1] - unit.start), slots)


def _unit_of(units: list[_Unit], start: int, end: int) -> _Unit:
    """The unit that holds the words ``[start, end)``; ``Unconvertible`` where none does."""
    for unit in units:
        if unit.start <= start and end <= unit.end:
            return unit
    raise Unconvertible(CROSSES_SENTENCES)
