"""ZeroRTE (FewRel and Wiki-ZSL as RelationPrompt splits them): sentences with the triplets that are annotated in them.

Source: Chia et al., "RelationPrompt: Leveraging Prompts to Generate Synthetic Data for Zero-Shot Relation Triplet
Extraction", 2022. A line is ``{"triplets": [{"tokens", "head": [token, ...], "tail": [token, ...], "label"}, ...]}``,
and the tokens are the same in all triplets of a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from .conversion import (
    MALFORMED_INSTANCE,
    ConversionReport,
    DocBuilder,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    checked_words,
    contiguous,
    convert_each,
    field_of,
    key_of,
    load_json_lines,
    select_part,
)

OTHER_WORDS = "words of another sentence"


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
    """The sentences of a ZeroRTE file, one ``Doc`` each, arguments as entities of type ENTITY.

    A triplet that cannot be converted (some have no head or tail) is left out, and counted, and so is a sentence
    without any other. ``limit``: a random sample of at most so many. The source id is the position in the file. Raises
    ``FileNotFoundError`` and ``ValueError``.
    """
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    sentences = load_json_lines(path, "an object with triplets on each line")
    chosen = select_part(enumerate(sentences), lambda item: key_of(_first(item[1]), "tokens"), part, seed, report)
    builders = convert_each(chosen, lambda item: _convert(item[1], item[0], vocab, labels), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _first(sentence: Any) -> Any:
    """Its first triplet that has words, or the sentence where none has."""
    triplets = sentence.get("triplets") if isinstance(sentence, dict) else None
    listed = triplets if isinstance(triplets, list) else []
    return next((triplet for triplet in listed if _has_words(triplet)), sentence)


def _has_words(triplet: Any) -> bool:
    try:
        return bool(checked_words(field_of(triplet, "tokens", list)))
    except Unconvertible:
        return False


def _convert(sentence: Any, index: int, vocab: Vocab, labels: LabelChoice) -> DocBuilder:
    triplets = field_of(sentence, "triplets", list)
    words = checked_words(field_of(_first(sentence), "tokens", list))
    builder = DocBuilder(vocab, words, source=str(index))
    reasons = []
    for triplet in triplets:
        try:
            if field_of(triplet, "tokens", list) != words:
                raise Unconvertible(OTHER_WORDS)
            heads, tails = (contiguous(field_of(triplet, side, list), len(words)) for side in ("head", "tail"))
        except Unconvertible as error:
            reasons.append(error.reason)
            builder.leave_out_relation(error.reason)
            continue
        pair = [(builder.span(*heads), builder.span(*tails))]
        try:
            builder.add_relation(labels.resolve(field_of(triplet, "label", str)), pair)
        except Unconvertible as error:
            reasons.append(error.reason)
            builder.leave_out_relation(error.reason, pair)
    if not builder.relations.converted:  # what is left would say that nothing is related
        raise Unconvertible(reasons[-1] if reasons else MALFORMED_INSTANCE)
    return builder
