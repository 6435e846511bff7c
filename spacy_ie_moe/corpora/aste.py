"""ASTE: sentences of reviews with triplets of an aspect, an opinion about it and its polarity.

Source: Xu et al., "Position-Aware Tagging for Aspect Sentiment Triplet Extraction", 2020 (ASTE-Data-V2). An instance
is a line, ``text####[([aspect indices], [opinion indices], 'POS'), ...]``.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from ..uc_uie.schema import OPINION_SLOTS
from .conversion import (
    MALFORMED_INSTANCE,
    UNKNOWN_TYPE,
    ConversionReport,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    checked_words,
    contiguous,
    convert_each,
    load_lines,
    select_part,
)
from .frames import MALFORMED_FRAME, FrameBuilder

POLARITIES = {"POS": "positive", "NEG": "negative", "NEU": "neutral"}

_BORDER = "####"


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
    """The sentences of an ASTE file, one ``Doc`` each.

    A triplet is a frame without words: its type is the polarity in full ("positive") unless ``labels`` names it
    otherwise, its slots are the aspect and the opinion. These are entities of just those types too. ``limit``: a
    random sample of at most so many. The source id is the number of the line. Raises ``FileNotFoundError`` and
    ``ValueError``.
    """
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    lines = [line for line in load_lines(path, f"lines of text{_BORDER}[triplet, ...]") if line.strip()]
    chosen = select_part(enumerate(lines), lambda item: item[1].partition(_BORDER)[0], part, seed, report)
    builders = convert_each(chosen, lambda item: _convert(item[1], item[0], vocab, labels), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _convert(line: str, index: int, vocab: Vocab, labels: LabelChoice) -> FrameBuilder:
    text, border, literal = line.partition(_BORDER)
    triplets = _parse(literal) if border else None
    if not isinstance(triplets, list):
        raise Unconvertible(MALFORMED_INSTANCE)
    builder = FrameBuilder(vocab, checked_words(text.split()), source=str(index))
    for triplet in triplets:
        try:
            _add(builder, triplet, labels)
        except Unconvertible as error:
            builder.frames.left_out[error.reason] += 1
    return builder


def _parse(literal: str) -> Any:
    """The value of a Python literal, None for any other text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "invalid escape sequence" and the like: the value is checked
            return ast.literal_eval(literal.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _add(builder: FrameBuilder, triplet: Any, labels: LabelChoice) -> None:
    if not isinstance(triplet, (tuple, list)) or len(triplet) != 3:
        raise Unconvertible(MALFORMED_FRAME)
    *indices, polarity = triplet
    extents = [contiguous(each, len(builder.doc)) for each in indices]
    if not isinstance(polarity, str) or polarity not in POLARITIES:
        raise Unconvertible(UNKNOWN_TYPE)
    label = labels.resolve(polarity, POLARITIES.__getitem__, unknown=UNKNOWN_TYPE)
    for name, extent in zip(OPINION_SLOTS, extents, strict=True):
        builder.span(*extent, name)
    builder.add_frame(label, None, zip(OPINION_SLOTS, extents, strict=True))
