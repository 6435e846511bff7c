"""The score of triples on NYT and WebNLG, where gold is strings: overall, by overlap and by number of triples.

* string: the words of both arguments, joined by one space, and the label agree (NYT, WebNLG).
* offset: the places of both arguments in the text, and the label agree. Gold is ``Doc._.relations``, so it has a
  triple once for each pair of occurrences that the corpus relates, and no triple that has no place.
* last_word: the last words of both arguments and the label agree (NYT*, WebNLG*, where gold has no other words).

All are sets per document. Strings are compared as the documents' words make them, so string and last_word expect gold
and prediction to have the same words; see ``scoring`` for how offsets are compared.

Of a document's distinct gold string triples: it is Normal if all their arguments are different strings. Else it is EPO
(entity pair overlap) if two of them have the same head and the same tail, and SEO (single entity overlap) if its pairs
of head and tail share an argument or have one twice, or both. So the same two arguments in the other order are SEO, as
they are in the published counts of NYT* (Zeng et al., "Extracting Relational Facts by an End-to-End Neural Model with
Copy Mechanism", 2018, section 1; Wei et al., "A Novel Cascade Binary Tagging Framework for Relational Triple
Extraction", 2020, Table 1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from .corpora.string_triples import STRING_TRIPLES
from .relations import check_relation, relation_key
from .scoring import Triple, check_same_text, relation_triples
from .triplet_scoring import Level, TripletScorer

COMPARISONS = ("string", "offset", "last_word")
ALL = "all"
CLASSES = ("Normal", "EPO", "SEO")
NUMBERS = ("1", "2", "3", "4", "5+")


@dataclass(frozen=True)
class StringTripleScores:
    """Scores by group of documents and comparison: ``scores["EPO"]["string"].micro.f1``.

    The groups are ``ALL``, the overlap ``CLASSES`` and the ``NUMBERS`` of gold triples. A document without gold
    triples is in ``ALL`` only. documents: how many documents each group has.
    """

    groups: Mapping[str, Mapping[str, Level]]
    documents: Counter[str]

    def __getitem__(self, group: str) -> Mapping[str, Level]:
        return self.groups[group]

    def to_json(self) -> dict[str, Any]:
        """Number of documents and scores of each group, as plain values."""
        return {
            group: {
                "documents": self.documents[group],
                **{comparison: level.to_json() for comparison, level in levels.items()},
            }
            for group, levels in self.groups.items()
        }


def score_triples(
    examples: Iterable[Example], *, include_empty: bool = True, symmetric: Collection[str] = ()
) -> StringTripleScores:
    """Score ``Doc._.relations`` of each example's prediction against the gold triples of its reference.

    Gold strings are the reference's ``user_data["string_triples"]`` where it has them, else those of its relations.
    include_empty: whether documents without gold triples count: what is found there is wrong. NYT and WebNLG have no
    such documents, which flatters precision; without them scores compare to the published ones. symmetric: labels of
    which it does not matter which argument is the head. Raises ``ValueError`` when prediction and reference are not the
    same text, or for gold or relations that are malformed.
    """
    groups = {group: {comparison: Level() for comparison in COMPARISONS} for group in (ALL, *CLASSES, *NUMBERS)}
    scores = StringTripleScores(groups, Counter())
    for example in examples:
        reference, predicted = example.reference, example.predicted
        check_same_text(reference, predicted)
        gold, found = gold_strings(reference), relation_strings(predicted)
        if not gold and not include_empty:
            continue
        sides = {
            "string": (gold, found),
            "offset": (relation_triples(reference), relation_triples(predicted)),
            "last_word": (_last_words(gold), _last_words(found)),
        }
        for group in _groups(gold):
            scores.documents[group] += 1
            for comparison, (expected, seen) in sides.items():
                scores[group][comparison].add(_turned(expected, symmetric), _turned(seen, symmetric))
    return scores


def gold_strings(doc: Doc) -> set[Triple]:
    """The gold triples of a document as strings; see ``score_triples``."""
    if STRING_TRIPLES not in doc.user_data:
        return relation_strings(doc)
    triples = set()
    for value in doc.user_data[STRING_TRIPLES]:
        if not isinstance(value, (list, tuple)) or len(value) != 3 or not all(isinstance(one, str) for one in value):
            raise ValueError(f"user_data[{STRING_TRIPLES!r}] has {value!r}; expected three strings, head, label, tail.")
        head, label, tail = value
        triples.add(Triple(head, tail, label))
    return triples


def relation_strings(doc: Doc) -> set[Triple]:
    """``doc._.relations`` as a set; an argument is its words, joined by one space.

    Raises ``ValueError`` for a relation that is none of ``doc``.
    """
    triples = set()
    for relation in doc._.relations:
        check_relation(doc, relation)
        head_start, head_end, tail_start, tail_end, label = relation_key(relation)
        triples.add(Triple(_words(doc[head_start:head_end]), _words(doc[tail_start:tail_end]), label))
    return triples


def overlap_classes(triples: Collection[Triple]) -> list[str]:
    """Which of ``CLASSES`` a document with these distinct triples, at least one, is of."""
    pairs = {(triple.head, triple.tail) for triple in triples}
    arguments = {argument for pair in pairs for argument in pair}
    if len(arguments) == 2 * len(triples):
        return ["Normal"]
    found = {"EPO"} if len(pairs) < len(triples) else set()
    found |= {"SEO"} if len(arguments) < 2 * len(pairs) else set()
    return [name for name in CLASSES if name in found]


def _groups(gold: Collection[Triple]) -> list[str]:
    if not gold:
        return [ALL]
    return [ALL, *overlap_classes(gold), NUMBERS[min(len(gold), len(NUMBERS)) - 1]]


def _words(span: Span) -> str:
    return " ".join(token.text for token in span)


def _turned(triples: Iterable[Any], symmetric: Collection[str]) -> set[Any]:
    """Triples of strings or of offsets, those of symmetric labels with their arguments in order."""
    return {
        triple._replace(head=min(triple.head, triple.tail), tail=max(triple.head, triple.tail))
        if triple.label in symmetric
        else triple
        for triple in triples
    }


def _last_words(triples: Iterable[Triple]) -> set[Triple]:
    return {Triple(head.rpartition(" ")[2], tail.rpartition(" ")[2], label) for head, tail, label in triples}


def make_string_triple_scorer(include_empty: bool = True) -> StringTripleScorer:
    """The registered scorer ``spacy_ie_moe.string_triple_scorer.v1``: ``(examples, **kwargs) -> scores``.

    For each of string, offset and last_word: ``rte_string_p``, ``_r`` and ``_f``, micro, from 0 to 1; all are ``None``
    where gold has no triples. And the scores of ``spacy_ie_moe.triplet_scorer.v1``. include_empty: see
    ``score_triples``; symmetric and spans_key come from the component.
    """
    return StringTripleScorer(include_empty)


@dataclass(frozen=True)
class StringTripleScorer:
    """See ``make_string_triple_scorer``; an object rather than a closure, so that pipelines can be pickled."""

    include_empty: bool

    def __call__(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        examples = list(examples)
        others = TripletScorer()(examples, **kwargs)
        symmetric = kwargs.get("symmetric", ())
        overall = score_triples(examples, include_empty=self.include_empty, symmetric=symmetric)[ALL]
        if not overall["string"].micro.support:
            return {**others, **dict.fromkeys(_KEYS)}
        micros = [overall[comparison].micro for comparison in COMPARISONS]
        values = [value for micro in micros for value in (micro.precision, micro.recall, micro.f1)]
        return {**others, **dict(zip(_KEYS, values, strict=True))}


_KEYS = tuple(f"rte_{comparison}_{ratio}" for comparison in COMPARISONS for ratio in "prf")
