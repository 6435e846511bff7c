"""SpERT's JSON (CoNLL04, SciERC, ADE): a list of sentences with typed entities and relations between them.

Source: Eberts and Ulges, "Span-based Joint Entity and Relation Extraction with Transformer Pre-training",
2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from .conversion import (
    MALFORMED_RELATION,
    NO_ARGUMENT,
    ConversionReport,
    DocBuilder,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    checked_words,
    convert_each,
    field_of,
    is_offset,
    key_of,
    load_json,
    select_part,
)


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
    """The sentences of a SpERT file, one ``Doc`` each.

    Entities are token offsets ``[start, end)``; relations name their arguments by index in the entities.
    ``limit``: a random sample of at most so many. The source id is ``orig_id``, or the position in the file. Raises
    ``FileNotFoundError`` and ``ValueError``.
    """
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    sentences = load_json(path, list, "a list of sentences with tokens, entities and relations")
    chosen = select_part(enumerate(sentences), lambda item: key_of(item[1], "tokens"), part, seed, report)
    builders = convert_each(chosen, lambda item: _convert(item[1], item[0], vocab, labels), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _convert(sentence: Any, index: int, vocab: Vocab, labels: LabelChoice) -> DocBuilder:
    words = checked_words(field_of(sentence, "tokens", list))
    entities = field_of(sentence, "entities", list)
    relations = field_of(sentence, "relations", list)
    builder = DocBuilder(vocab, words, source=str(sentence.get("orig_id", index)))
    spans = [_mention(builder, entity) for entity in entities]
    for relation in relations:
        _relation(builder, relation, spans, labels)
    return builder


def _mention(builder: DocBuilder, entity: Any) -> Span | None:
    entity = entity if isinstance(entity, dict) else {}
    return builder.add_mention(entity.get("start"), entity.get("end"), entity.get("type"))


def _relation(builder: DocBuilder, relation: Any, spans: list[Span | None], labels: LabelChoice) -> None:
    if not isinstance(relation, dict):
        builder.leave_out_relation(MALFORMED_RELATION)
        return
    head, tail = (_argument(relation.get(side), spans) for side in ("head", "tail"))
    if head is None or tail is None:
        builder.leave_out_relation(NO_ARGUMENT)
        return
    try:
        label = labels.resolve(relation.get("type"))
    except Unconvertible as error:
        builder.leave_out_relation(error.reason, [(head, tail)])
    else:
        builder.add_relation(label, [(head, tail)])


def _argument(index: Any, spans: list[Span | None]) -> Span | None:
    return spans[index] if is_offset(index) and 0 <= index < len(spans) else None
