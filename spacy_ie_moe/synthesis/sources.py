"""Documents with entities, ready to get relations: from lines of GLiREL's JSON, or from any spaCy documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from ..corpora.conversion import (
    MALFORMED_MENTION,
    UNTYPED,
    ConversionReport,
    DocBuilder,
    checked_words,
    convert_each,
    field_of,
    is_offset,
    load_json_lines,
)
from ..glirel.candidates import Candidates, collect, find_spans


@dataclass(frozen=True)
class Passage:
    """A document in the making, and the candidates for arguments: its entities, each place once."""

    builder: DocBuilder
    candidates: Candidates

    def span(self, row: int) -> Span:
        """The entity at a row of the candidates, of the first of its types there."""
        start, end = self.candidates.spans[row].tolist()
        return self.builder.span(start, end, self.candidates.types[row][0])


def read_json_lines(path: str | Path, vocab: Vocab, report: ConversionReport) -> Iterator[Passage]:
    """The passages of a file in GLiREL's JSONL: ``tokenized_text``, and ``ner`` with [start, end, type, text].

    Ends are inclusive; the text is not read, and a type may be missing. Relations in the file are left out.
    """
    lines = load_json_lines(path, "lines of JSON with tokenized_text and ner")
    yield from convert_each(enumerate(lines), lambda item: _from_record(*item, vocab), report)


def read_spacy_docs(
    docs: Iterable[Doc], vocab: Vocab, report: ConversionReport, spans_key: str | None = None
) -> Iterator[Passage]:
    """The passages of spaCy documents, their entities from ``doc.ents`` or a group of ``doc.spans``.

    Raises ``ValueError`` where no document has that group.
    """
    found = spans_key is None

    def convert(item: tuple[int, Doc]) -> Passage:
        nonlocal found
        found = found or spans_key in item[1].spans
        return _from_doc(*item, vocab, spans_key)

    yield from convert_each(enumerate(docs), convert, report)
    if not found:
        raise ValueError(f"--spans-key is {spans_key!r}, but no document has it; expected a group of doc.spans.")


def _from_record(index: int, record: Any, vocab: Vocab) -> Passage:
    words = checked_words(field_of(record, "tokenized_text", list))
    builder = DocBuilder(vocab, words, source=str(index))
    spans = []
    for entity in field_of(record, "ner", list):
        if not isinstance(entity, list) or len(entity) < 2 or not is_offset(entity[1]):
            builder.mentions.left_out[MALFORMED_MENTION] += 1
            continue
        start, last, *more = entity
        spans.append(builder.add_mention(start, last + 1, (more[0] if more else None) or UNTYPED))
    return _passage(builder, spans)


def _from_doc(index: int, doc: Doc, vocab: Vocab, spans_key: str | None) -> Passage:
    builder = DocBuilder(
        vocab,
        checked_words([token.text for token in doc]),
        source=str(doc.user_data.get("source", index)),
        spaces=[bool(token.whitespace_) for token in doc],
        sent_starts=[bool(token.is_sent_start) for token in doc] if doc.has_annotation("SENT_START") else None,
    )
    spans = find_spans(doc, [] if spans_key is None else [spans_key])
    return _passage(builder, [builder.add_mention(span.start, span.end, span.label_ or UNTYPED) for span in spans])


def _passage(builder: DocBuilder, spans: Iterable[Span | None]) -> Passage:
    return Passage(builder, collect(span for span in spans if span is not None))
