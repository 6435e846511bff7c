"""KnowledgeNet: passages with facts of 15 properties between character spans.

Source: Mesquita et al., "KnowledgeNet: A Benchmark Dataset for Knowledge Base Population", 2019. A list of
passages with ``passage`` (text), ``fold``, ``facts`` and ``no_fact_properties``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from .conversion import (
    MALFORMED_INSTANCE,
    MALFORMED_RELATION,
    OUTSIDE_TEXT,
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
from .words import english_tokenizer

EXPANDED = "offsets expanded to whole tokens"
OTHER_FOLD = "other fold"


def read(
    path: str | Path,
    vocab: Vocab,
    *,
    labels: LabelChoice | None = None,
    part: Part = Part(),
    seed: int = 0,
    report: ConversionReport | None = None,
    limit: int | None = None,
    folds: Collection[int] | None = None,
) -> Iterator[Doc]:
    """The passages of a KnowledgeNet file, one ``Doc`` each, in the tokens of a blank English pipeline.

    Character offsets that cut tokens are expanded to whole ones. Labels are the property's lower-case words
    where ``labels`` has no names. ``doc.user_data["annotated_labels"]`` has the chosen labels that annotators
    looked for in the passage: only they have negatives. ``limit``: a random sample of at most so many.
    ``folds``: the folds to convert, None for all. Parts are by document. The source id is
    ``document/first character``. Raises ``FileNotFoundError`` and ``ValueError``.
    """
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    tokenizer = english_tokenizer()
    passages = load_json(path, list, "a list of passages with passage, fold and facts")
    chosen = select_part(passages, lambda passage: key_of(passage, "document"), part, seed, report)
    builders = convert_each(chosen, lambda passage: _convert(passage, tokenizer, vocab, labels, folds), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def property_label(name: str) -> str:
    """The words of a property: ``DATE_OF_BIRTH`` is "date of birth"."""
    return name.lower().replace("_", " ")


def _convert(
    passage: Any, tokenizer: Tokenizer, vocab: Vocab, labels: LabelChoice, folds: Collection[int] | None
) -> DocBuilder:
    if folds is not None and field_of(passage, "fold", int) not in folds:
        raise Unconvertible(OTHER_FOLD)
    text = field_of(passage, "passage", str)
    facts = field_of(passage, "facts", list)
    checked_words([text])
    tokens = tokenizer(text)
    builder = DocBuilder(
        vocab,
        checked_words([token.text for token in tokens]),
        source=f"{passage.get('document')}/{passage.get('passage_start')}",
        spaces=[bool(token.whitespace_) for token in tokens],
    )
    for fact in facts:
        _fact(builder, fact, labels)
    builder.doc.user_data["annotated_labels"] = _annotated_labels(passage, facts, labels)
    return builder


def _annotated_labels(passage: Any, facts: list[Any], labels: LabelChoice) -> list[str]:
    without_facts = passage.get("no_fact_properties", [])
    if not isinstance(without_facts, list):
        raise Unconvertible(MALFORMED_INSTANCE)
    found = set()
    for name in [*(fact.get("property") for fact in facts if isinstance(fact, dict)), *without_facts]:
        try:
            found.add(labels.resolve(name, property_label))
        except Unconvertible:
            continue  # a label that is not chosen has neither positives nor negatives here
    return sorted(found)


def _fact(builder: DocBuilder, fact: Any, labels: LabelChoice) -> None:
    try:
        if not isinstance(fact, dict):
            raise Unconvertible(MALFORMED_RELATION)
        arguments = [
            _argument(builder.doc, fact.get(f"{side}_start"), fact.get(f"{side}_end")) for side in ("subject", "object")
        ]
    except Unconvertible as error:
        builder.leave_out_relation(error.reason)
        return
    builder.notes[EXPANDED] += sum(expanded for _, expanded in arguments)
    head, tail = (builder.span(span.start, span.end) for span, _ in arguments)
    try:
        label = labels.resolve(fact.get("property"), property_label)
    except Unconvertible as error:
        builder.leave_out_relation(error.reason, [(head, tail)])
    else:
        builder.add_relation(label, [(head, tail)])


def _argument(doc: Doc, start: Any, end: Any) -> tuple[Span, bool]:
    """The whole tokens at characters ``[start, end)``, and whether that is more than the characters."""
    if not is_offset(start) or not is_offset(end):
        raise Unconvertible(MALFORMED_RELATION)
    if not 0 <= start < end <= len(doc.text):
        raise Unconvertible(OUTSIDE_TEXT)
    span = doc.char_span(start, end, alignment_mode="expand")
    if span is None:
        raise Unconvertible(OUTSIDE_TEXT)
    return span, (span.start_char, span.end_char) != (start, end)
