"""Every metric of the package: set-based, and counted from the gold side.

Relations and entities of a document are sets: what is found twice counts once, in gold and in prediction
alike. Every gold relation counts, also one on a pair that the model never looked at: it is a miss. A ratio
whose denominator is 0 is 0.

Positions are compared as numbers of non-whitespace characters, so gold and prediction may be tokenised
differently, as long as they are the same text.

* boundary (the field's "Rel"): both spans and the label agree, and so does the direction.
* strict ("Rel+"): boundary, and the entity types of both arguments agree.
* micro: over all relations. macro: the mean over labels of their P, of their R and of their F1; so
  the macro F1 is *not* the F1 of the macro P and R.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from spacy.tokens import Doc, Span
from spacy.training import Example

from .relations import check_relation, relation_key

Confusion = Counter[tuple[str | None, str | None]]


class Triple(NamedTuple):
    """What is counted: a label between two arguments, each given by what identifies it in a metric."""

    head: Any
    tail: Any
    label: str


class Means(NamedTuple):
    """Precision, recall and F1 averaged over labels, each from 0 to 1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Counts:
    """True positives, false positives and false negatives, and the ratios they make (0 to 1)."""

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def support(self) -> int:
        """How many gold items there are."""
        return self.tp + self.fn

    @property
    def precision(self) -> float:
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        return ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float:
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def to_json(self) -> dict[str, float]:
        """Counts and ratios as plain values."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "tp": self.tp,
            "fp": self.fp,
            "fn": self.fn,
            "support": self.support,
        }


@dataclass(frozen=True)
class RelationScores:
    """The scores of a corpus.

    documents: boundary counts of each document, in order.
    per_label: boundary counts of each label that occurs in gold or prediction, by name.
    strict, entities: counts over the corpus; entities are ``doc.ents``, boundaries and type.
    confusion: how often a gold label (``None``: no relation) met a predicted one (``None``: not found) on the
        same head and tail. A row sums to the support of its label, a column to the predictions of its label.
    unrecorded: how many of the false positives lie on one of the reference's ``user_data["ignored_pairs"]``:
        a relation holds for the pair that gold does not record. They count as false positives all the same.
    """

    documents: list[Counts]
    per_label: dict[str, Counts]
    strict: Counts
    entities: Counts
    confusion: Confusion
    unrecorded: int = 0

    @property
    def micro(self) -> Counts:
        """Boundary counts over all relations."""
        return sum(self.documents, Counts())

    @property
    def macro(self) -> Means:
        """Means over the labels that occur in gold."""
        return macro_average(counts for counts in self.per_label.values() if counts.support)

    @property
    def macro_union(self) -> Means:
        """Means over the labels that occur in gold or prediction, as scikit-learn and GLiREL average."""
        return macro_average(self.per_label.values())

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; the confusions are a list, the most frequent first."""
        return {
            "documents": len(self.documents),
            "micro": self.micro.to_json(),
            "macro": self.macro._asdict(),
            "macro_union": self.macro_union._asdict(),
            "strict": self.strict.to_json(),
            "entities": self.entities.to_json(),
            "false_positives_on_unrecorded_pairs": self.unrecorded,
            "per_label": {label: counts.to_json() for label, counts in self.per_label.items()},
            "confusion": [
                {"gold": gold, "predicted": predicted, "count": count}
                for (gold, predicted), count in sort_confusion(self.confusion)
            ],
        }


@dataclass(frozen=True)
class ClassificationScores:
    """The scores of one label per item: the share of right items, counts per label and their means."""

    accuracy: float
    macro: Means
    per_label: dict[str, Counts]


def count_sets(gold: Collection[Hashable], predicted: Collection[Hashable]) -> Counts:
    """The counts of ``predicted`` against ``gold``, both as sets."""
    gold_set, predicted_set = set(gold), set(predicted)
    found = len(gold_set & predicted_set)
    return Counts(found, len(predicted_set) - found, len(gold_set) - found)


def count_labels(gold: Iterable[Triple], predicted: Iterable[Triple]) -> dict[str, Counts]:
    """``count_sets`` for each label that occurs on either side."""
    gold_by_label, predicted_by_label = _by_label(gold), _by_label(predicted)
    return {
        label: count_sets(gold_by_label.get(label, ()), predicted_by_label.get(label, ()))
        for label in gold_by_label.keys() | predicted_by_label.keys()
    }


def macro_average(counts: Iterable[Counts]) -> Means:
    """The means over ``counts``, one per label, all of the same weight; zeros for no labels."""
    rows = [(item.precision, item.recall, item.f1) for item in counts]
    if not rows:
        return Means(0.0, 0.0, 0.0)
    return Means(*(sum(column) / len(rows) for column in zip(*rows, strict=True)))


def relation_triples(
    doc: Doc,
    *,
    symmetric: Collection[str] = (),
    inverse: Mapping[str, str] | None = None,
    strict: bool = False,
    types: Mapping[tuple[int, int], str] | None = None,
) -> set[Triple]:
    """``doc._.relations`` as a set; an argument is ``(start, end)``, and its entity type too if ``strict``.

    Offsets count non-whitespace characters. Relations whose label is in ``symmetric`` are turned so that the
    first argument in the text is the head, and those whose label is in ``inverse`` become the label that says the
    same of the reversed pair. types: of spans of tokens, for relations that do not say those of their arguments.
    Raises ``ValueError`` for a relation that is none of ``doc``.
    """
    inverse, types = inverse or {}, types or {}
    offsets = token_boundaries(doc)
    triples = set()
    for relation in doc._.relations:
        check_relation(doc, relation)
        head_start, head_end, tail_start, tail_end, label = relation_key(relation)
        head: tuple[Any, ...] = (offsets[head_start], offsets[head_end])
        tail: tuple[Any, ...] = (offsets[tail_start], offsets[tail_end])
        if strict:
            head += (relation.get("head_label") or types.get((head_start, head_end), ""),)
            tail += (relation.get("tail_label") or types.get((tail_start, tail_end), ""),)
        if label in inverse:
            head, tail, label = tail, head, inverse[label]
        if label in symmetric:
            head, tail = sorted((head, tail))
        triples.add(Triple(head, tail, label))
    return triples


def confuse(gold: set[Triple], predicted: set[Triple], *, symmetric: Collection[str] = ()) -> Confusion:
    """Which label was predicted for which gold label on the same pair of arguments.

    A pair may have several labels: right ones are matched first, the others one to one in the order of their
    names, and what is left meets ``None``. A label in ``symmetric`` meets one on the reverse pair too.
    """
    confusion: Confusion = Counter((triple.label, triple.label) for triple in gold & predicted)
    wrong = defaultdict(list)
    for triple in sorted(predicted - gold):
        wrong[frozenset(triple[:2])].append(triple)
    for triple in sorted(gold - predicted):
        candidates = wrong[frozenset(triple[:2])]
        met = next((other for other in candidates if _same_pair(triple, other, symmetric)), None)
        if met is not None:
            candidates.remove(met)
        confusion[triple.label, met.label if met else None] += 1
    confusion.update((None, triple.label) for triples in wrong.values() for triple in triples)
    return confusion


def sort_confusion(confusion: Confusion) -> list[tuple[tuple[str | None, str | None], int]]:
    """The cells of a confusion matrix, most frequent first, ties by gold and predicted label."""
    return sorted(confusion.items(), key=lambda cell: (-cell[1], cell[0][0] or "", cell[0][1] or ""))


def score_relations(
    examples: Iterable[Example], *, symmetric: Collection[str] = (), inverse: Mapping[str, str] | None = None
) -> RelationScores:
    """Score ``Doc._.relations`` and ``doc.ents`` of each example's prediction against its reference.

    symmetric: labels of which head and tail can be swapped. inverse: labels by another that says the same with head
    and tail swapped; both count as the latter, in gold and prediction. Raises ``ValueError`` when prediction and
    reference are not the same text, whitespace aside, or when a relation is none of its document.
    """
    symmetric = frozenset(symmetric)
    inverse = inverse or {}
    turned = symmetric.union(inverse.values())
    documents: list[Counts] = []
    per_label: dict[str, Counts] = {}
    strict = entities = Counts()
    confusion: Confusion = Counter()
    unrecorded = 0
    for example in examples:
        reference, prediction = example.reference, example.predicted
        check_same_text(reference, prediction)
        gold = relation_triples(reference, symmetric=symmetric, inverse=inverse)
        predicted = relation_triples(prediction, symmetric=symmetric, inverse=inverse)
        documents.append(count_sets(gold, predicted))
        for label, counts in count_labels(gold, predicted).items():
            per_label[label] = per_label.get(label, Counts()) + counts
        confusion += confuse(gold, predicted, symmetric=symmetric)
        strict += count_sets(
            relation_triples(reference, symmetric=symmetric, inverse=inverse, strict=True),
            relation_triples(prediction, symmetric=symmetric, inverse=inverse, strict=True),
        )
        entities += count_sets(entity_set(reference, reference.ents), entity_set(prediction, prediction.ents))
        ignored = _ignored_pairs(reference)
        unrecorded += sum(
            (head, tail) in ignored or (label in turned and (tail, head) in ignored)
            for head, tail, label in predicted - gold
        )
    return RelationScores(documents, dict(sorted(per_label.items())), strict, entities, confusion, unrecorded)


def score_classification(
    gold: Sequence[str], predicted: Sequence[str | None], labels: Collection[str] | None = None
) -> ClassificationScores:
    """Score one predicted label per gold pair, as in zero-shot relation classification (FewRel, Wiki-ZSL).

    gold, predicted: labels of the same pairs; ``None`` predicts nothing. labels: what the means are taken
    over; default: the labels that occur on either side, as GLiREL's own evaluation does. Raises
    ``ValueError`` for lists of different lengths and for labels outside of ``labels``.
    """
    if len(gold) != len(predicted):
        raise ValueError(f"{len(predicted)} predicted labels for {len(gold)} gold labels; expected as many.")
    seen = set(gold) | {label for label in predicted if label is not None}
    classes = seen if labels is None else set(labels)
    if not seen <= classes:
        raise ValueError(f"{min(seen - classes)!r} is not one of the labels to score.")
    counts = count_labels(
        (Triple(index, index, label) for index, label in enumerate(gold)),
        (Triple(index, index, label) for index, label in enumerate(predicted) if label is not None),
    )
    per_label = {label: counts.get(label, Counts()) for label in sorted(classes)}
    right = sum(item.tp for item in per_label.values())
    return ClassificationScores(ratio(right, len(gold)), macro_average(per_label.values()), per_label)


def bootstrap_f1(
    documents: Sequence[Counts], *, samples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """The percentile confidence interval of the micro F1, resampling whole documents with replacement.

    Relations of one document depend on each other, hence documents and not relations (Efron and Tibshirani
    1993, chapter 13). ``(0, 0)`` for no documents.
    """
    if not documents:
        return 0.0, 0.0
    table = np.array([(item.tp, item.fp, item.fn) for item in documents])
    random = np.random.default_rng(seed)
    resampled = (table[random.integers(len(table), size=len(table))].sum(axis=0) for _ in range(samples))
    values = [Counts(*map(int, row)).f1 for row in resampled]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def make_relation_scorer(symmetric: list[str] | None = None) -> RelationScorer:
    """The registered scorer ``spacy_ie_moe.relation_scorer.v1``: ``(examples, **kwargs) -> scores``.

    Scores are ``rel_micro_p``, ``rel_micro_r``, ``rel_micro_f``, ``rel_macro_f`` (labels in gold) and
    ``rel_strict_f``, from 0 to 1, and ``rel_per_type``, ``{label: {"p", "r", "f"}}``. All are ``None`` where
    the examples have no gold relation, which is how spaCy leaves a score out of its weighted sum.
    """

    return RelationScorer(tuple(symmetric or ()))


@dataclass(frozen=True)
class RelationScorer:
    """See ``make_relation_scorer``; an object rather than a closure, so that pipelines can be pickled."""

    symmetric: tuple[str, ...] = ()

    def __call__(
        self,
        examples: Iterable[Example],
        *,
        symmetric: Collection[str] = (),
        inverse: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The scores; symmetric, inverse: what the component knows of its labels, see ``score_relations``."""
        scores = score_relations(examples, symmetric={*self.symmetric, *symmetric}, inverse=inverse)
        if not scores.micro.support:
            return dict.fromkeys(_SPACY_KEYS)
        per_type = {
            label: {"p": counts.precision, "r": counts.recall, "f": counts.f1}
            for label, counts in scores.per_label.items()
        }
        micro = scores.micro
        values = (micro.precision, micro.recall, micro.f1, scores.macro.f1, scores.strict.f1, per_type)
        return dict(zip(_SPACY_KEYS, values, strict=True))


_SPACY_KEYS = ("rel_micro_p", "rel_micro_r", "rel_micro_f", "rel_macro_f", "rel_strict_f", "rel_per_type")


def ratio(numerator: float, denominator: float) -> float:
    """The ratio; 0 where the denominator is."""
    return numerator / denominator if denominator else 0.0


def _by_label(triples: Iterable[Triple]) -> Mapping[str, set[Triple]]:
    grouped: dict[str, set[Triple]] = {}
    for triple in triples:
        grouped.setdefault(triple.label, set()).add(triple)
    return grouped


def _same_pair(triple: Triple, other: Triple, symmetric: Collection[str]) -> bool:
    return triple[:2] == other[:2] or triple.label in symmetric or other.label in symmetric


def token_boundaries(doc: Doc) -> list[int]:
    """Non-whitespace characters before each token, then those of the whole document."""
    return list(accumulate((len(_squeeze(token.text)) for token in doc), initial=0))


def entity_set(doc: Doc, spans: Iterable[Span]) -> set[tuple[int, int, str]]:
    """Start, end and type of spans of ``doc``; offsets count non-whitespace characters."""
    offsets = token_boundaries(doc)
    return {(offsets[span.start], offsets[span.end], span.label_) for span in spans}


def _ignored_pairs(doc: Doc) -> set[tuple[tuple[int, int], tuple[int, int]]]:
    """The arguments of ``doc.user_data["ignored_pairs"]``, which the corpus converters write."""
    offsets = token_boundaries(doc)
    pairs = ([offsets[token] for token in pair] for pair in doc.user_data.get("ignored_pairs", ()))
    return {((start, end), (tail_start, tail_end)) for start, end, tail_start, tail_end in pairs}


def check_same_text(reference: Doc, predicted: Doc) -> None:
    """Raise ``ValueError`` unless both are the same text, white space aside."""
    if _squeeze(reference.text) != _squeeze(predicted.text):
        raise ValueError(
            f"reference {reference.text[:40]!r} and prediction {predicted.text[:40]!r} are different texts; "
            f"their relations cannot be compared."
        )


def _squeeze(text: str) -> str:
    return "".join(text.split())
