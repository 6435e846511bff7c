"""Which mentions of a document are one and the same thing: by a coreference pipe, or by relations that say so.

Sources: GLiREL, section A.7, where coreference is a relation, SELF, and clusters are its connected components;
spacy-experimental, whose coreference pipe writes a span group for each cluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from ..relations import score_of
from .relations import Mention, clusters_of, sort_clusters

Link = tuple[Mention, Mention]

GOLD_PREFIX = "_gold_clusters"


@dataclass(frozen=True)
class Clustering:
    """The clusters of a document, and the one that each argument of a relation belongs to.

    clusters: as ``sort_clusters`` has them. index: cluster by mention.
    """

    clusters: list[list[Mention]]
    index: dict[Mention, int]


def cluster_mentions(
    doc: Doc,
    relations: Sequence[Mapping[str, Any]],
    *,
    coref_prefix: str | None = "coref_clusters",
    self_label: str | None = "SELF",
    self_threshold: float = 0.5,
) -> Clustering:
    """The clusters of ``doc``, among them one for each argument of ``relations`` that is in no other.

    If ``doc.spans`` has groups ``{coref_prefix}_1``, ``_2`` and so on, they are the clusters. Without groups, mentions
    that a relation ``self_label`` of at least ``self_threshold`` joins, in either direction and over any number of
    steps, are a cluster. None switches either source off. A mention in several groups belongs to the cluster that is
    first in the text. Time and memory grow with the numbers of relations and mentions, not with their pairs.
    """
    arguments = [mention for relation in relations if relation["label"] != self_label for mention in ends(relation)]
    groups = [] if coref_prefix is None else span_group_clusters(doc, coref_prefix)
    if groups:
        index = {mention: number for number, group in reversed([*enumerate(groups)]) for mention in group}
    else:
        links = [
            ends(relation)
            for relation in relations
            if relation["label"] == self_label and score_of(relation) >= self_threshold
        ]
        groups = connected_components(links)
        index = {mention: number for number, group in enumerate(groups) for mention in group}
    for mention in arguments:
        if mention not in index:
            index[mention] = len(groups)
            groups.append([mention])
    order = sorted(range(len(groups)), key=lambda number: groups[number])
    rank = {number: position for position, number in enumerate(order)}
    return Clustering(
        [groups[number] for number in order], {mention: rank[number] for mention, number in index.items()}
    )


def ends(relation: Mapping[str, Any]) -> Link:
    """Head and tail of a relation, as tuples."""
    (head_start, head_end), (tail_start, tail_end) = relation["head_pos"], relation["tail_pos"]
    return (head_start, head_end), (tail_start, tail_end)


def connected_components(links: Iterable[Link]) -> list[list[Mention]]:
    """The connected components of the undirected graph of ``links``, as ``sort_clusters`` has them.

    A forest of disjoint sets with union by size and path halving (Tarjan and van Leeuwen 1984): almost linear.
    """
    parent: dict[Mention, Mention] = {}
    size: dict[Mention, int] = {}

    def find(mention: Mention) -> Mention:
        while parent[mention] != mention:
            parent[mention] = parent[parent[mention]]
            mention = parent[mention]
        return mention

    for link in links:
        for mention in link:
            parent.setdefault(mention, mention)
            size.setdefault(mention, 1)
        large, small = sorted(map(find, link), key=lambda root: -size[root])
        if large != small:
            parent[small] = large
            size[large] += size[small]
    groups: dict[Mention, list[Mention]] = {}
    for mention in parent:
        groups.setdefault(find(mention), []).append(mention)
    return sort_clusters(groups.values())


def span_group_clusters(doc: Doc, prefix: str) -> list[list[Mention]]:
    """The clusters in the groups ``{prefix}_1``, ``_2``, ... of ``doc.spans``; empty ones are left out."""
    groups = (doc.spans[key] for key in _group_names(doc, prefix))
    return sort_clusters([(span.start, span.end) for span in spans if len(span)] for spans in groups)


def set_span_group_clusters(doc: Doc, clusters: Iterable[Iterable[Mention]], prefix: str = "coref_clusters") -> None:
    """Make clusters the groups ``{prefix}_1``, ``_2``, ... of ``doc.spans``, in place of those that it has."""
    for key in _group_names(doc, prefix):
        del doc.spans[key]
    for number, cluster in enumerate(clusters, 1):
        doc.spans[f"{prefix}_{number}"] = [Span(doc, start, end) for start, end in cluster]


def give_gold_clusters(examples: Iterable[Example]) -> None:
    """Write the clusters of references to the groups ``GOLD_PREFIX`` of predictions, where no coreference pipe writes.

    They are the clusters of ``document_relations`` if that is its ``coref_prefix``.
    """
    for example in examples:
        set_span_group_clusters(example.predicted, clusters_of(example.reference), GOLD_PREFIX)


def _group_names(doc: Doc, prefix: str) -> list[str]:
    name = re.compile(re.escape(prefix) + r"_\d+")
    return [key for key in doc.spans if name.fullmatch(key)]
