"""KBP37: sentences with one marked pair of entities and its relation, written as in SemEval-2010 Task 8.

Source: Zhang and Wang, "Relation Classification via Recurrent Neural Network", 2015. An instance is two lines,

    15917   " The <e1> Mississippi </e1> Air National Guard ( <e2> MS ANG </e2> ) is ... "
    org:alternate_names(e2,e1)

and a blank one follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from spacy.tokens import Doc
from spacy.vocab import Vocab

from .conversion import (
    MALFORMED_INSTANCE,
    SELF_RELATION,
    UNKNOWN_RELATION,
    ConversionReport,
    DocBuilder,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    checked_words,
    convert_each,
    load_lines,
    select_part,
)

EMPTY_ENTITY = "marked entity without words"
NO_RELATION = frozenset({"no_relation", "Other"})
"""The labels of pairs without a relation, in KBP37 and in SemEval-2010."""

_MARKER = re.compile(r"</?e[12]>")
_DIRECTED = re.compile(r"(.+)\((e1,e2|e2,e1)\)")


class _Instance(NamedTuple):
    """A block of the file: what its lines say, unchecked."""

    identifier: str
    text: str
    label: str


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
    """The instances of a KBP37 file, one ``Doc`` each.

    Of ``org:founded(e2,e1)`` the label is ``org:founded``, its head the second entity. A pair of ``no_relation`` has
    none: the document stays, unless ``labels`` leaves that label out. Instances of a label that is not chosen are left
    out wholly. ``limit``: a random sample of at most so many. The source id is the instance's number. Raises
    ``FileNotFoundError`` and ``ValueError``.
    """
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    lines = load_lines(path, "marked sentences, each with its relation on the next line")
    chosen = select_part(_instances(lines), lambda instance: _plain_words(instance.text), part, seed, report)
    builders = convert_each(chosen, lambda instance: _convert(instance, vocab, labels), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _instances(lines: Iterable[str]) -> Iterator[_Instance]:
    """The blocks of lines between blank ones; lines after the second (SemEval's comments) are not read."""
    for blank, block in groupby(lines, key=lambda line: not line.strip()):
        if not blank:
            sentence, label, *_ = [*map(str.strip, block), ""]
            identifier, _, text = sentence.partition("\t")
            yield _Instance(identifier, text.strip(), label)


def _convert(instance: _Instance, vocab: Vocab, labels: LabelChoice) -> DocBuilder:
    relation, reverse = _direction(instance.label)
    if relation in NO_RELATION:
        label = None
        replace(labels, names=None).resolve(relation)  # raises where it is left out; names need not name it
    else:
        label = labels.resolve(relation)
    words, places = _unmark(instance.text)
    builder = DocBuilder(vocab, checked_words(words), source=instance.identifier)
    if not all(start < end for start, end in places.values()):
        raise Unconvertible(EMPTY_ENTITY)
    first, second = (builder.span(*places[entity]) for entity in ("e1", "e2"))
    if (first.start, first.end) == (second.start, second.end):
        raise Unconvertible(SELF_RELATION)
    builder.mentions.converted += 2
    if label is not None:
        builder.add_relation(label, [(second, first) if reverse else (first, second)])
    return builder


def _direction(label: str) -> tuple[str, bool]:
    """The relation of a label, and whether its head is the second entity; ``Unconvertible`` if it has no direction."""
    if label in NO_RELATION:
        return label, False
    directed = _DIRECTED.fullmatch(label)
    if directed is None:
        raise Unconvertible(UNKNOWN_RELATION)
    return directed[1], directed[2] == "e2,e1"


def _plain_words(text: str) -> list[str]:
    return _MARKER.sub(" ", text).split()


def _unmark(text: str) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """The words of a marked text and where its two entities are, ``[start, end)``; else ``Unconvertible``."""
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    pieces = _MARKER.split(text)
    markers = _MARKER.findall(text)
    if sorted(markers) != ["</e1>", "</e2>", "<e1>", "<e2>"]:
        raise Unconvertible(MALFORMED_INSTANCE)
    before, position = {}, 0
    for piece, marker in zip(pieces, markers, strict=False):
        position += len(piece.split())
        before[marker] = position
    return _plain_words(text), {entity: (before[f"<{entity}>"], before[f"</{entity}>"]) for entity in ("e1", "e2")}
