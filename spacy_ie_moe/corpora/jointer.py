"""JointER's JSON (WebNLG): sentences with triples of strings and the places of their arguments.

Source: Yu et al., "Joint Extraction of Entities and Relations Based on a Novel Decomposition Strategy", 2020. An
instance is ``{"tokens", "spo_list": [[head, relation, tail], ...], "spo_details": [[head start, head end, head type,
relation, tail start, tail end, tail type], ...]}``, ends exclusive.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from .conversion import (
    MALFORMED_INSTANCE,
    MALFORMED_RELATION,
    UNTYPED,
    ConversionReport,
    LabelChoice,
    Pair,
    Part,
    Unconvertible,
    build_docs,
    check_choice,
    checked_words,
    convert_each,
    field_of,
    key_of,
    load_json,
    select_part,
)
from .string_triples import TripleBuilder, WordTriple, find_words, read_triple

OTHER_WORDS = "the places of an argument have other words"
OCCURRENCES = ("annotated", "all")

_NO_TYPE = "None-label"


def read(
    path: str | Path,
    vocab: Vocab,
    *,
    labels: LabelChoice | None = None,
    part: Part = Part(),
    seed: int = 0,
    report: ConversionReport | None = None,
    limit: int | None = None,
    occurrences: str = "annotated",
) -> Iterator[Doc]:
    """The sentences of a JointER file, one ``Doc`` each.

    occurrences: which mentions a triple relates: those "annotated", or "all" that have the words of its strings, as
    where the source has no places. Entities have the type ENTITY where the source says "None-label".
    ``doc.user_data["string_triples"]`` is as in ``string_triples.read``, of ``spo_list``. ``limit``: a random sample
    of at most so many. The source id is the position in the file. Raises ``FileNotFoundError`` and ``ValueError``.
    """
    check_choice("occurrences", occurrences, OCCURRENCES)
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    everywhere = occurrences == "all"
    sentences = load_json(path, list, "a list of sentences with tokens, spo_list and spo_details")
    chosen = select_part(enumerate(sentences), lambda item: key_of(item[1], "tokens"), part, seed, report)
    builders = convert_each(chosen, lambda item: _convert(item[1], item[0], vocab, labels, everywhere), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _convert(sentence: Any, index: int, vocab: Vocab, labels: LabelChoice, everywhere: bool) -> TripleBuilder:
    words = checked_words(field_of(sentence, "tokens", list))
    triples, details = (field_of(sentence, name, list) for name in ("spo_list", "spo_details"))
    if len(triples) != len(details):
        raise Unconvertible(MALFORMED_INSTANCE)
    builder = TripleBuilder(vocab, words, source=str(index))
    for strings, detail in zip(triples, details, strict=True):
        _add(builder, strings, detail, labels, everywhere)
    return builder


def _add(builder: TripleBuilder, strings: Any, detail: Any, labels: LabelChoice, everywhere: bool) -> None:
    try:
        triple = read_triple(strings)
    except Unconvertible as error:
        builder.leave_out_relation(error.reason)
        return
    pairs: list[Pair] = []
    unplaced = ""
    try:
        pairs = _pairs(builder, detail, triple, everywhere)
    except Unconvertible as error:
        unplaced = error.reason
    builder.add_triple(triple, pairs, labels, unplaced=unplaced)


def _pairs(builder: TripleBuilder, detail: Any, triple: WordTriple, everywhere: bool) -> list[Pair]:
    """The mentions that a triple relates; ``Unconvertible`` where its places are none, or those of something else."""
    head, relation_id, tail = triple
    if not isinstance(detail, list) or len(detail) != 7 or detail[3] != relation_id:
        raise Unconvertible(MALFORMED_RELATION)
    sides = (head, *detail[:3]), (tail, *detail[4:])
    heads, tails = (_mentions(builder, everywhere, *side) for side in sides)
    return builder.pairs(heads, tails)


def _mentions(
    builder: TripleBuilder, everywhere: bool, wanted: list[str], start: Any, end: Any, kind: Any
) -> list[tuple[int, int, str]]:
    start, end = builder.extent(start, end)
    words = [token.text for token in builder.doc]
    extents = find_words(wanted, words)
    if not everywhere:
        extents = [extent for extent in extents if extent == (start, end)]
    if not extents:
        raise Unconvertible(OTHER_WORDS)
    return [(*extent, UNTYPED if kind == _NO_TYPE else kind) for extent in extents]
