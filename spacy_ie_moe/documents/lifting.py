"""From relations between mentions to relations between clusters.

Source: GLiREL, section A.7: what leaves a mention leaves its cluster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from spacy.tokens import Doc

from ..relations import score_of
from .clusters import Clustering, Link, ends
from .relations import DocumentRelation, cluster_texts, make_document_relation, sort_document_relations


def lift_relations(
    doc: Doc,
    relations: Iterable[Mapping[str, Any]],
    clustering: Clustering,
    *,
    self_label: str | None = "SELF",
    symmetric: Collection[str] = (),
) -> tuple[list[DocumentRelation], int]:
    """One relation for each head cluster, label and tail cluster, and how many of ``relations`` joined no two clusters.

    Its evidence is all pairs of mentions that say so, its score the highest of theirs. Relations ``self_label`` are
    the clusters and become none. Those within a cluster become none either: they are the number. A relation whose
    label is in ``symmetric`` is turned so that the cluster that is first in the text is the head.
    """
    found: defaultdict[tuple[int, int, str], dict[Link, float]] = defaultdict(dict)
    within = 0
    for relation in relations:
        label = relation["label"]
        if label == self_label:
            continue
        pair = ends(relation)
        head, tail = (clustering.index[mention] for mention in pair)
        if head == tail:
            within += 1
            continue
        if label in symmetric and head > tail:
            head, tail, pair = tail, head, pair[::-1]
        evidence = found[head, tail, label]
        evidence[pair] = max(score_of(relation), evidence.get(pair, 0.0))
    texts = cluster_texts(doc, clustering.clusters)
    lifted = (
        make_document_relation(texts, head, tail, label, evidence) for (head, tail, label), evidence in found.items()
    )
    return sort_document_relations(lifted), within
