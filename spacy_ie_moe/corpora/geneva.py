"""GENEVA: sentences with events of 115 types and their arguments, by token offsets.

Source: Parekh et al., "GENEVA: Benchmarking Generalizability for Event Argument Extraction with Hundreds of Event
Types and Argument Roles", 2023. The layout is that of OneIE.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from .conversion import (
    NO_ARGUMENT,
    UNKNOWN_TYPE,
    ConversionReport,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    checked_words,
    convert_each,
    field_of,
    key_of,
    load_json_lines,
    select_part,
)
from .frames import MALFORMED_FRAME, MALFORMED_SLOT, Extent, FrameBuilder

INCOMPLETE = "sentence with events missing, asked only for the types that it has"
OTHER_TEXT = "trigger's text is not that of its tokens, which count"


def read(
    path: str | Path,
    vocab: Vocab,
    *,
    labels: LabelChoice | None = None,
    part: Part = Part(),
    seed: int = 0,
    report: ConversionReport | None = None,
    limit: int | None = None,
) -> Iterator[Doc]:
    """The sentences of a GENEVA file, one ``Doc`` each, with its events as frames.

    Entities have no types, and some overlap. Where the source marks a sentence as not ``likely_complete``, events are
    missing: ``doc.user_data["annotated_labels"]`` has the types that it has. ``labels`` is about event types.
    ``limit``: a random sample of at most so many. The source id is ``wnd_id``. Raises ``FileNotFoundError`` and
    ``ValueError``.
    """
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    sentences = load_json_lines(path, "JSON lines, each a sentence with tokens, entity_mentions and event_mentions")
    chosen = select_part(sentences, lambda sentence: key_of(sentence, "tokens"), part, seed, report)
    builders = convert_each(chosen, lambda sentence: _convert(sentence, vocab, labels), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _convert(sentence: Any, vocab: Vocab, labels: LabelChoice) -> FrameBuilder:
    words = checked_words(field_of(sentence, "tokens", list))
    entities = field_of(sentence, "entity_mentions", list)
    events = field_of(sentence, "event_mentions", list)
    builder = FrameBuilder(
        vocab, words, source=field_of(sentence, "wnd_id", str), spaces=_spaces(words, sentence.get("sentence"))
    )
    places = {}
    for entity in entities:
        entity = entity if isinstance(entity, dict) else {}
        span = builder.add_mention(entity.get("start"), entity.get("end"))
        if span is not None and isinstance(entity.get("id"), str):
            places[entity["id"]] = (span.start, span.end)
    found = set()
    for event in events:
        try:
            found.add(_event(builder, event, places, labels))
        except Unconvertible as error:
            builder.frames.left_out[error.reason] += 1
    if sentence.get("likely_complete") is False:
        builder.notes[INCOMPLETE] += 1
        builder.doc.user_data["annotated_labels"] = sorted(found)
    return builder


def _spaces(words: Sequence[str], text: Any) -> list[bool] | None:
    """Whether a space follows each word in ``text``; None if that is not the text of the words."""
    if not isinstance(text, str):
        return None
    spaces = []
    for word in words:
        text = text.lstrip()
        if not text.startswith(word):
            return None
        text = text[len(word) :]
        spaces.append(text[:1].isspace())
    return spaces if not text.strip() else None


def _event(builder: FrameBuilder, event: Any, places: dict[str, Extent], labels: LabelChoice) -> str:
    """Add an event, and give its type."""
    if not isinstance(event, dict) or not isinstance(event.get("trigger"), dict):
        raise Unconvertible(MALFORMED_FRAME)
    trigger, arguments = event["trigger"], event.get("arguments")
    if not isinstance(arguments, list):
        raise Unconvertible(MALFORMED_FRAME)
    start, end = builder.extent(trigger.get("start"), trigger.get("end"))
    label = labels.resolve(event.get("event_type"), unknown=UNKNOWN_TYPE)
    if "".join(str(trigger.get("text")).split()) != "".join(token.text for token in builder.doc[start:end]):
        builder.notes[OTHER_TEXT] += 1
    slots = []
    for argument in arguments:
        try:
            slots.append(_argument(argument, places))
        except Unconvertible as error:
            builder.slots.left_out[error.reason] += 1
    builder.add_frame(label, (start, end), slots)
    return label


def _argument(argument: Any, places: dict[str, Extent]) -> tuple[str, Extent]:
    """The role of an argument and where it is."""
    if not isinstance(argument, dict) or not isinstance(argument.get("role"), str) or not argument["role"]:
        raise Unconvertible(MALFORMED_SLOT)
    identifier = argument.get("entity_id")
    if not isinstance(identifier, str) or identifier not in places:
        raise Unconvertible(NO_ARGUMENT)
    return argument["role"], places[identifier]
