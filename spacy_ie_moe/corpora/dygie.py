"""The layout of DyGIE and PURE (SciERC, ACE): a document a line, with sentences and the entities and relations of each.

Source: Wadden et al., "Entity, Relation, and Event Extraction with Contextualized Span Representations", 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from .conversion import (
    CROSSES_SENTENCES,
    MALFORMED_INSTANCE,
    MALFORMED_MENTION,
    MALFORMED_RELATION,
    NO_ARGUMENT,
    NO_TOKENS,
    OUTSIDE_TEXT,
    UNITS,
    ConversionReport,
    DocBuilder,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    check_choice,
    checked_words,
    field_of,
    is_offset,
    key_of,
    load_json_lines,
    select_part,
)
from .re_docred import NO_SHARED_SENTENCE

CLUSTERS = "coreference clusters not converted"
EMPTY_SENTENCE = "sentence without words"
EVENTS = "events not converted"
SEVERAL_TYPES = "argument has several types, the first is related"

Extent = tuple[int, int]


class _Unit(NamedTuple):
    """What becomes one ``Doc``: the tokens ``[start, end)`` of the source's document."""

    start: int
    end: int
    builder: DocBuilder


class _Entity(NamedTuple):
    unit: _Unit
    span: Span


Entities = dict[Extent, list[_Entity]]
"""The converted mentions at ``[start, end)`` of the source's document, in the order of annotation."""


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
    """The documents of a DyGIE file, one ``Doc`` for each ``unit``.

    Entities are ``[first, last, type]`` and relations ``[first, last, first, last, type]``, token offsets that
    count from the start of the document and include the last token. An argument of several types is the entity
    that was annotated first. unit "document": all sentences, their starts set. unit "sentence": a ``Doc`` for
    each; what lies in more than one is left out. Coreference clusters and events (ACE05) are noted, not converted;
    sentence starts are those of the words, whatever the source says. Parts are by document: with one seed,
    ``0:0.2``, ``0.2:0.4``, ... are the test sets of a 5-fold split (ACE04); what is before and after one is its
    training set. ``limit``: a random sample of at most so many units. The source id is ``doc_key``, in sentences
    followed by ``/sentence index``. Raises ``FileNotFoundError`` and ``ValueError``.
    """
    check_choice("unit", unit, UNITS)
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    documents = load_json_lines(path, "JSON lines, each a document with doc_key, sentences, ner and relations")
    chosen = select_part(documents, lambda document: key_of(document, "doc_key"), part, seed, report)
    builders = (one.builder for document in chosen for one in _units(document, vocab, labels, unit, report))
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _units(document: Any, vocab: Vocab, labels: LabelChoice, unit: str, report: ConversionReport) -> list[_Unit]:
    """The units of a document, none of one that cannot be converted: that is counted in the report."""
    try:
        sentences = _sentences(document)
        units = _convert(document, sentences, vocab, labels, unit)
    except Unconvertible as error:
        report.instances.left_out[error.reason] += 1
        return []
    if unit == "sentence" and len(units) < len(sentences):
        report.instances.left_out[NO_TOKENS] += len(sentences) - len(units)
    return units


def _sentences(document: Any) -> list[list[str]]:
    """The words of each sentence; a sentence may be empty, the document may not."""
    sentences = field_of(document, "sentences", list)
    if not all(isinstance(sentence, list) for sentence in sentences):
        raise Unconvertible(MALFORMED_INSTANCE)
    checked_words([word for sentence in sentences for word in sentence])
    return sentences


def _convert(document: Any, sentences: list[list[str]], vocab: Vocab, labels: LabelChoice, unit: str) -> list[_Unit]:
    key = field_of(document, "doc_key", str)
    mentions, relations = (_of_sentences(document, name, sentences) for name in ("ner", "relations"))
    if unit == "sentence":
        units = list(_sentence_units(vocab, sentences, key))
    else:
        units = [_document_unit(vocab, sentences, key)]
    for note, count in ((CLUSTERS, _size(document.get("clusters"))), (EVENTS, _events(document.get("events")))):
        if count:
            units[0].builder.notes[note] += count
    entities: Entities = {}
    for mention in mentions:
        _mention(units, mention, entities)
    for relation in relations:
        _relation(units, relation, entities, labels)
    return units


def _of_sentences(document: Any, name: str, sentences: list[list[str]]) -> list[Any]:
    """The annotations of all sentences, from a list of them for each; what is no list is one annotation."""
    by_sentence = field_of(document, name, list)
    if len(by_sentence) != len(sentences):
        raise Unconvertible(MALFORMED_INSTANCE)
    return [one for found in by_sentence for one in (found if isinstance(found, list) else [found])]


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list) else 0


def _events(by_sentence: Any) -> int:
    """How many events there are, given a list of them for each sentence."""
    return sum(map(_size, by_sentence)) if isinstance(by_sentence, list) else 0


def _document_unit(vocab: Vocab, sentences: list[list[str]], key: str) -> _Unit:
    words = [word for sentence in sentences for word in sentence]
    starts = [position == 0 for sentence in sentences for position in range(len(sentence))]
    builder = DocBuilder(vocab, words, source=key, sent_starts=starts)
    if empty := sentences.count([]):
        builder.notes[EMPTY_SENTENCE] += empty
    return _Unit(0, len(words), builder)


def _sentence_units(vocab: Vocab, sentences: list[list[str]], key: str) -> Iterator[_Unit]:
    end = 0
    for index, words in enumerate(sentences):
        start, end = end, end + len(words)
        if words:
            yield _Unit(start, end, DocBuilder(vocab, words, source=f"{key}/{index}"))


def _mention(units: list[_Unit], mention: Any, entities: Entities) -> None:
    """Add a mention to the unit it lies in and to ``entities``; one of no unit is counted in the first."""
    try:
        first, last, label = _fields(mention, 3, MALFORMED_MENTION)
        extent = _extent(first, last, MALFORMED_MENTION)
        unit = _unit_of(units, *extent)
    except Unconvertible as error:
        units[0].builder.mentions.left_out[error.reason] += 1
        return
    span = unit.builder.add_mention(extent[0] - unit.start, extent[1] - unit.start, label)
    if span is not None:
        entities.setdefault(extent, []).append(_Entity(unit, span))


def _fields(value: Any, number: int, reason: str) -> list[Any]:
    """``value`` if it is a list of ``number`` things; else ``Unconvertible`` for ``reason``."""
    if not isinstance(value, list) or len(value) != number:
        raise Unconvertible(reason)
    return value


def _extent(first: Any, last: Any, reason: str) -> Extent:
    """``[start, end)`` of the offsets of the first and the last token; else ``Unconvertible`` for ``reason``."""
    if not is_offset(first) or not is_offset(last):
        raise Unconvertible(reason)
    return first, last + 1


def _unit_of(units: list[_Unit], start: int, end: int) -> _Unit:
    """The unit that holds the tokens ``[start, end)``; ``Unconvertible`` where none does."""
    if not 0 <= start < end <= units[-1].end:
        raise Unconvertible(OUTSIDE_TEXT)
    for unit in units:
        if unit.start <= start and end <= unit.end:
            return unit
    raise Unconvertible(CROSSES_SENTENCES)


def _relation(units: list[_Unit], relation: Any, entities: Entities, labels: LabelChoice) -> None:
    """Add a relation to the unit of its arguments; one without such a unit is counted in the first."""
    try:
        *offsets, relation_id = _fields(relation, 5, MALFORMED_RELATION)
        found = [
            entities.get(_extent(first, last, MALFORMED_RELATION), []) for first, last in (offsets[:2], offsets[2:])
        ]
        head, tail = map(_argument, found)
        if head.unit is not tail.unit:
            raise Unconvertible(NO_SHARED_SENTENCE)
    except Unconvertible as error:
        units[0].builder.leave_out_relation(error.reason)
        return
    builder = head.unit.builder
    _note_types(builder, found)
    try:
        label = labels.resolve(relation_id)
    except Unconvertible as error:
        builder.leave_out_relation(error.reason, [(head.span, tail.span)])
    else:
        builder.add_relation(label, [(head.span, tail.span)])


def _argument(found: list[_Entity]) -> _Entity:
    """The entity that was annotated first; ``Unconvertible`` where there is none."""
    if not found:
        raise Unconvertible(NO_ARGUMENT)
    return found[0]


def _note_types(builder: DocBuilder, arguments: Iterable[list[_Entity]]) -> None:
    several = sum(len({entity.span.label for entity in found}) > 1 for found in arguments)
    if several:
        builder.notes[SEVERAL_TYPES] += several
