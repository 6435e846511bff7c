"""F1 and Ign F1 of ``Doc._.document_relations``: the scores of DocRED and Re-DocRED.

A document's relations are a set of (head cluster, label, tail cluster). With P = correct / predicted and
R = correct / gold over all documents, F1 is their harmonic mean. Ign F1 takes from P what a model may know by heart:

    P_ign = (correct - known) / (predicted - known),    F1_ign = 2 P_ign R / (P_ign + R)

where known counts those correct relations whose (name of a head mention, label, name of a tail mention) is a fact of
the training set for some pair of names of the gold clusters, for symmetric labels in either order. R stays. A ratio
whose denominator is 0 is 0.
Source: Yao et al., "DocRED: A Large-Scale Document-Level Relation Extraction Dataset", 2019, section 5.

With clusters that a model predicted it has to be said when a cluster is a gold one, and there are two ways to say it:

* exact: both have the same mentions, no more and no fewer.
* majority: that, or else more than half of the predicted mentions are the gold cluster's. Several predicted clusters
  may then be the same gold one, and the same relation of several of them counts once. Where gold clusters overlap, it
  is the one with most of the mentions, of several the first in the text.

A predicted cluster that is no gold one makes its relations wrong. With gold clusters given both ways say the same, but
where two of them share a mention, which is the first one's alone (one in Re-DocRED's dev set). Clusters are sets of
mentions, so two entities annotated with the same mentions are one. Mentions are compared as numbers of non-whitespace
characters.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from .documents.facts import Fact, cluster_names, read_facts
from .documents.relations import check_document_relation, clusters_of
from .scoring import (
    Counts,
    Means,
    Triple,
    check_same_text,
    count_labels,
    count_sets,
    macro_average,
    ratio,
    token_boundaries,
)

logger = logging.getLogger(__name__)

MATCHINGS = ("exact", "majority")

Cluster = frozenset[tuple[int, int]]
"""Mentions [start, end), in non-whitespace characters."""


@dataclass
class DocumentLevel:
    """The scores of one way of matching clusters.

    documents: counts of each document, in order. per_label: counts by label. known: how many of the true positives are
    facts of the training set; None where no such facts were given.
    """

    known: int | None
    documents: list[Counts] = field(default_factory=list)
    per_label: dict[str, Counts] = field(default_factory=dict)

    def add(self, gold: set[Triple], predicted: set[Triple], known: set[Triple]) -> None:
        """Count one document. known: those of ``gold`` that are facts of the training set."""
        self.documents.append(count_sets(gold, predicted))
        for label, counts in count_labels(gold, predicted).items():
            self.per_label[label] = self.per_label.get(label, Counts()) + counts
        if self.known is not None:
            self.known += len(known & predicted)

    @property
    def micro(self) -> Counts:
        """Counts over all relations: DocRED's F1 is its ``f1``."""
        return sum(self.documents, Counts())

    @property
    def macro(self) -> Means:
        """Means over the labels that occur in gold."""
        return macro_average(counts for counts in self.per_label.values() if counts.support)

    @property
    def ign_precision(self) -> float | None:
        """The precision without the known facts; None without training facts."""
        if self.known is None:
            return None
        micro = self.micro
        return ratio(micro.tp - self.known, micro.tp + micro.fp - self.known)

    @property
    def ign_f1(self) -> float | None:
        """DocRED's Ign F1; None without training facts."""
        precision, recall = self.ign_precision, self.micro.recall
        return None if precision is None else ratio(2 * precision * recall, precision + recall)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "micro": self.micro.to_json(),
            "macro": self.macro._asdict(),
            "known": self.known,
            "ign_precision": self.ign_precision,
            "ign_f1": self.ign_f1,
            "per_label": {label: counts.to_json() for label, counts in sorted(self.per_label.items())},
        }


def score_document_relations(
    examples: Iterable[Example], *, training_facts: Collection[Fact] | None = None, symmetric: Collection[str] = ()
) -> dict[str, DocumentLevel]:
    """Score ``Doc._.document_relations`` of each example's prediction against its reference, by way of matching.

    training_facts: what Ign F1 leaves out, as ``facts.read_facts`` gives them. symmetric: labels of which head and tail
    can be swapped; they count once, in gold and prediction. Raises ``ValueError`` when prediction and reference are not
    the same text, white space aside, or for relations and clusters that are none of their document.
    """
    symmetric = frozenset(symmetric)
    tails = _tails(training_facts or ())
    labels: set[str] = set()
    levels = {name: DocumentLevel(None if training_facts is None else 0) for name in MATCHINGS}
    for example in examples:
        check_same_text(example.reference, example.predicted)
        gold_clusters, found_clusters = (_clusters(doc) for doc in (example.reference, example.predicted))
        gold = _triples(example.reference, gold_clusters, symmetric)
        labels.update(triple.label for triple in gold)
        known = _known(example.reference, gold_clusters, symmetric, tails)
        aligned = {"exact": found_clusters, "majority": _align(found_clusters, gold_clusters)}
        for name, level in levels.items():
            level.add(gold, _triples(example.predicted, aligned[name], symmetric), known)
    if tails and labels and labels.isdisjoint(label for label, _ in tails):
        logger.warning(
            "no gold document relation has a label of the training facts, such as %r, so Ign F1 is F1; were both "
            "converted with the same --names?",
            min(tails)[0],
        )
    return levels


def _clusters(doc: Doc) -> list[Cluster]:
    offsets = token_boundaries(doc)
    return [frozenset((offsets[start], offsets[end]) for start, end in cluster) for cluster in clusters_of(doc)]


def _align(predicted: Sequence[Cluster], gold: Sequence[Cluster]) -> list[Cluster]:
    """For each predicted cluster the gold one that it is, or that has most of its mentions (over half), else itself."""
    owners: defaultdict[tuple[int, int], list[Cluster]] = defaultdict(list)
    for cluster in set(gold):
        for mention in cluster:
            owners[mention].append(cluster)
    aligned = []
    for cluster in predicted:
        votes = Counter(owner for mention in cluster for owner in owners.get(mention, ()))
        best = min(votes, key=lambda owner: (owner != cluster, -votes[owner], sorted(owner)), default=cluster)
        aligned.append(best if 2 * votes[best] > len(cluster) else cluster)
    return aligned


def _triples(doc: Doc, clusters: Sequence[Cluster], symmetric: Collection[str]) -> set[Triple]:
    """The relations of ``doc``, checked, with ``clusters`` in place of their indices."""
    for relation in doc._.document_relations:
        check_document_relation(doc, relation)
    return {_triple(relation, clusters, symmetric) for relation in doc._.document_relations}


Tails = Mapping[tuple[str, str], Set[str]]
"""The tails of facts by label and head: facts can be looked up without going through all pairs of names."""


def _tails(facts: Iterable[Fact]) -> Tails:
    tails: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for fact in facts:
        tails[fact.label, fact.head].add(fact.tail)
    return tails


def _known(doc: Doc, clusters: Sequence[Cluster], symmetric: Collection[str], tails: Tails) -> set[Triple]:
    """Those relations of ``doc`` that say one of the facts under any names of their clusters."""
    if not tails:
        return set()
    names = [cluster_names(doc, cluster) for cluster in clusters_of(doc)]

    def says(label: str, heads: Collection[str], ends: Collection[str]) -> bool:
        return any(not tails.get((label, head), frozenset()).isdisjoint(ends) for head in heads)

    def is_known(relation: Mapping[str, Any]) -> bool:
        label, heads, ends = relation["label"], names[relation["head"]], names[relation["tail"]]
        return says(label, heads, ends) or (label in symmetric and says(label, ends, heads))

    return {_triple(relation, clusters, symmetric) for relation in doc._.document_relations if is_known(relation)}


def _triple(relation: Mapping[str, Any], clusters: Sequence[Cluster], symmetric: Collection[str]) -> Triple:
    head, tail = clusters[relation["head"]], clusters[relation["tail"]]
    if relation["label"] in symmetric:
        head, tail = sorted((head, tail), key=sorted)
    return Triple(head, tail, relation["label"])


def make_document_relation_scorer(training_facts: str | None = None) -> DocumentRelationScorer:
    """The registered scorer ``spacy_ie_moe.document_relation_scorer.v1``: ``(examples, **kwargs) -> scores``.

    training_facts: the file that ``spacy-ie-moe convert re-docred --facts`` writes of the training set, read when
    something is scored. Scores are ``doc_rel_p``, ``_r``, ``_f`` and ``_ign_f`` (exact), ``doc_rel_majority_p``,
    ``_r``, ``_f`` and ``_ign_f``, from 0 to 1, and ``doc_rel_per_type``, ``{label: {"p", "r", "f"}}`` (exact). The
    ``ign`` ones are ``None`` without training facts, and all where the examples have no gold document relation.
    """
    return DocumentRelationScorer(training_facts)


@dataclass(frozen=True)
class DocumentRelationScorer:
    """See ``make_document_relation_scorer``; an object rather than a closure, so that pipelines can be pickled."""

    training_facts: str | None = None

    def __call__(
        self, examples: Iterable[Example], *, symmetric: Collection[str] = (), **kwargs: Any
    ) -> dict[str, Any]:
        facts = None if self.training_facts is None else read_facts(self.training_facts)
        levels = score_document_relations(examples, training_facts=facts, symmetric=symmetric)
        if not levels["exact"].micro.support:
            return dict.fromkeys(_KEYS)
        values: list[Any] = []
        for level in levels.values():
            micro = level.micro
            values += [micro.precision, micro.recall, micro.f1, level.ign_f1]
        per_type = {
            label: {"p": counts.precision, "r": counts.recall, "f": counts.f1}
            for label, counts in sorted(levels["exact"].per_label.items())
        }
        return dict(zip(_KEYS, [*values, per_type], strict=True))


_RATIOS = ("p", "r", "f", "ign_f")
_KEYS = (
    *(f"doc_rel_{ratio}" for ratio in _RATIOS),
    *(f"doc_rel_majority_{ratio}" for ratio in _RATIOS),
    "doc_rel_per_type",
)
