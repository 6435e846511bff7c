"""NYT and WebNLG as they are published: sentences with triples of strings, which say nothing about places.

Source: Zeng et al., "Extracting Relational Facts by an End-to-End Neural Model with Copy Mechanism", 2018, and the
copies of its data in later repositories. An instance is ``{"text", "triple_list": [[head, relation, tail], ...]}``
(PRGC, OneRel) or ``{"sentText", "relationMentions": [{"em1Text", "label", "em2Text"}, ...]}`` (SPN4RE, DualDec).
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from .conversion import (
    DUPLICATE_RELATION,
    MALFORMED_RELATION,
    SELF_RELATION,
    UNTYPED,
    ConversionReport,
    DocBuilder,
    LabelChoice,
    Pair,
    Part,
    Unconvertible,
    build_docs,
    checked_words,
    convert_each,
    field_of,
    key_of,
    load_json,
    load_json_lines,
    select_part,
)

STRING_TRIPLES = "string_triples"
"""The key of ``doc.user_data`` that has the gold triples of a document as strings, ``[head, label, tail]``."""

NOT_IN_WORDS = "argument is not among the words"

_FIELDS = (("text", "triple_list"), ("sentText", "relationMentions"))
_SHAPE = "a list or JSON lines of sentences with text and triple_list, or sentText and relationMentions"

WordTriple = tuple[list[str], Any, list[str]]
"""The words of the head, the relation id as it was read, the words of the tail."""


class TripleBuilder(DocBuilder):
    """A document whose gold triples are kept as strings too, also those that have no place in its words.

    The field compares strings: what cannot be aligned is a miss of every system, not a reason to forget it.
    """

    def __init__(self, vocab: Vocab, words: Sequence[str], *, source: str) -> None:
        super().__init__(vocab, words, source=source)
        self._strings: dict[tuple[str, str, str], None] = {}

    def add_triple(self, triple: WordTriple, pairs: Iterable[Pair], labels: LabelChoice, *, unplaced: str) -> None:
        """One annotated triple, counted: its strings, and a relation for each of ``pairs`` of two different spans.

        unplaced: why there are no pairs, if there are none.
        """
        pairs = list(pairs)
        distinct = [(head, tail) for head, tail in pairs if (head.start, head.end) != (tail.start, tail.end)]
        head_words, relation_id, tail_words = triple
        try:
            label = labels.resolve(relation_id)
        except Unconvertible as error:
            self.leave_out_relation(error.reason, distinct)
            return
        strings = (" ".join(head_words), label, " ".join(tail_words))
        known = strings in self._strings
        self._strings[strings] = None
        if distinct:
            self.add_relation(label, distinct)
        elif known:
            self.leave_out_relation(DUPLICATE_RELATION)
        else:
            self.leave_out_relation(SELF_RELATION if pairs else unplaced)

    def pairs(self, heads: Iterable[tuple[int, int, str]], tails: Iterable[tuple[int, int, str]]) -> list[Pair]:
        """The entities at ``heads``, each with each of those at ``tails``: tokens ``[start, end)`` and type."""
        return list(product([self.span(*head) for head in heads], [self.span(*tail) for tail in tails]))

    def build(self, report: ConversionReport) -> Doc:
        """The finished document; its account, but for the instance, is added to ``report``."""
        self.doc.user_data[STRING_TRIPLES] = [list(strings) for strings in self._strings]
        return super().build(report)


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
    """The sentences of a NYT or WebNLG file, one ``Doc`` each, in words that white space separates.

    The file is a JSON list, or has an instance on each line. An argument is the same words in the same case as in
    the text; which white space is between them does not matter. As a string does not say which of its occurrences
    is meant, all of them become entities (of type ENTITY), and the relation is written for each pair of a head and a
    tail; in the report it is one annotated relation. One whose head or tail does not occur is left out (in NYT for
    its accents: "Asunción" in "in Asuncion , Paraguay"); so is one whose head and tail are the same single
    occurrence. Neither is missing from ``doc.user_data["string_triples"]``: the distinct gold triples as lists
    ``[head, label, tail]`` in their order, words joined by one space, but for those whose label is not chosen.

    The last-word variants (NYT*, WebNLG*) are files of the same shape. ``limit``: a random sample of at most so many.
    The source id is the position in the file. Raises ``FileNotFoundError`` and ``ValueError``.
    """
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    chosen = select_part(enumerate(_load(path)), lambda item: _key(item[1]), part, seed, report)
    builders = convert_each(chosen, lambda item: _convert(item[1], item[0], vocab, labels), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def read_triple(value: Any) -> WordTriple:
    """The words and the relation id of a list ``[head, relation, tail]`` of strings; else ``Unconvertible``."""
    if not isinstance(value, list) or len(value) != 3:
        raise Unconvertible(MALFORMED_RELATION)
    head, relation_id, tail = value
    return _argument(head), relation_id, _argument(tail)


def find_words(wanted: list[str], words: list[str]) -> list[tuple[int, int]]:
    """Where the words ``wanted`` are among ``words``, ``[start, end)`` each, from left to right; they may overlap."""
    starts = range(len(words) - len(wanted) + 1)
    return [(start, start + len(wanted)) for start in starts if words[start : start + len(wanted)] == wanted]


def _load(path: str | Path) -> Iterable[Any]:
    """The instances, of a JSON list if that is how the file begins, else of its lines."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            if next(filter(None, map(bytes.strip, file)), b"").removeprefix(BOM_UTF8).startswith(b"["):
                return load_json(path, list, _SHAPE)
    return load_json_lines(path, _SHAPE)


def _fields(instance: Any) -> tuple[str, str]:
    """The names of the text and of the triples in this instance."""
    first, other = _FIELDS
    return other if isinstance(instance, dict) and other[0] in instance else first


def _key(instance: Any) -> Any:
    return key_of(instance, _fields(instance)[0])


def _convert(instance: Any, index: int, vocab: Vocab, labels: LabelChoice) -> TripleBuilder:
    text, triples = _fields(instance)
    words = checked_words(field_of(instance, text, str).split())
    builder = TripleBuilder(vocab, words, source=str(index))
    for value in field_of(instance, triples, list):
        try:
            triple = read_triple(_listed(value))
        except Unconvertible as error:
            builder.leave_out_relation(error.reason)
            continue
        heads, tails = ([(*extent, UNTYPED) for extent in find_words(side, words)] for side in (triple[0], triple[2]))
        builder.add_triple(triple, builder.pairs(heads, tails), labels, unplaced=NOT_IN_WORDS)
    return builder


def _listed(value: Any) -> Any:
    """A relation mention as the list that a triple is; anything else as it is."""
    return [value.get(name) for name in ("em1Text", "label", "em2Text")] if isinstance(value, dict) else value


def _argument(value: Any) -> list[str]:
    try:
        return checked_words(value.split() if isinstance(value, str) else None)
    except Unconvertible:
        raise Unconvertible(MALFORMED_RELATION) from None
