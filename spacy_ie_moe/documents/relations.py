"""``Doc._.document_relations``: relations between the clusters of a document, and the read-only view beside them.

A cluster is a list of the mentions of one thing, ``Doc._.mention_clusters`` all of them. Both are plain lists and
dicts, because only those survive ``Doc.to_bytes``, ``DocBin``, pickling and ``n_process=2``; a relation names its
clusters by their index, so that a cluster of many mentions is stored once however many relations it has.
``Doc._.document_relation_spans`` shows the same relations with spaCy ``Span``s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from spacy.tokens import Doc, Span

from .. import extensions
from ..relations import RelationSpans, check_position, check_score, score_of

Mention = tuple[int, int]
"""Tokens ``[start, end)`` of a document."""


class Evidence(TypedDict):
    """A pair of mentions, tokens ``[start, end)``, that a relation was found between, with its score there."""

    head_pos: list[int]
    tail_pos: list[int]
    score: float


class DocumentRelation(TypedDict):
    """One relation between two clusters of a document.

    head, tail: indices in ``Doc._.mention_clusters``. head_text, tail_text: token strings of the longest mention, of
    several the first. score: that of the best evidence. evidence: best first; a gold relation may have none.
    """

    head: int
    tail: int
    head_text: list[str]
    tail_text: list[str]
    label: str
    score: float
    evidence: list[Evidence]


class DocumentRelationSpans(NamedTuple):
    """A document relation seen as spaCy spans: all mentions of both clusters, and the pairs it was found between."""

    head: tuple[Span, ...]
    tail: tuple[Span, ...]
    label: str
    score: float
    evidence: tuple[RelationSpans, ...]


def cluster_texts(doc: Doc, clusters: Iterable[Iterable[Mention]]) -> list[list[str]]:
    """The tokens that a relation shows for each cluster: those of the longest mention, of several the first."""
    longest = (max(sorted(mentions), key=lambda mention: mention[1] - mention[0]) for mentions in clusters)
    return [[token.text for token in doc[start:end]] for start, end in longest]


def make_document_relation(
    texts: Sequence[Sequence[str]],
    head: int,
    tail: int,
    label: str,
    evidence: Mapping[tuple[Mention, Mention], float],
    score: float | None = None,
) -> DocumentRelation:
    """The relation ``label`` from cluster ``head`` to cluster ``tail``.

    texts: those of all clusters, as ``cluster_texts`` gives them. evidence: the score of each pair of mentions. score:
    default is that of the best pair.
    """
    ordered = sorted(evidence.items(), key=lambda item: (-item[1], item[0]))
    return DocumentRelation(
        head=head,
        tail=tail,
        head_text=[*texts[head]],
        tail_text=[*texts[tail]],
        label=label,
        score=float(ordered[0][1] if score is None else score),
        evidence=[
            Evidence(head_pos=list(head_pos), tail_pos=list(tail_pos), score=float(pair_score))
            for (head_pos, tail_pos), pair_score in ordered
        ],
    )


def sort_document_relations(relations: Iterable[DocumentRelation]) -> list[DocumentRelation]:
    """Highest score first; ties by head, tail and label."""
    return sorted(relations, key=lambda one: (-one["score"], one["head"], one["tail"], one["label"]))


def sort_clusters(clusters: Iterable[Iterable[Mention]]) -> list[list[Mention]]:
    """Mentions in the order of the text, each once, and clusters by their first ones; empty clusters are left out."""
    return sorted(cluster for cluster in (sorted(set(mentions)) for mentions in clusters) if cluster)


def clusters_of(doc: Doc) -> list[list[Mention]]:
    """``Doc._.mention_clusters`` with tuples for mentions. Raises ``ValueError`` for what is none of ``doc``."""
    clusters = doc._.mention_clusters
    if not isinstance(clusters, (list, tuple)):
        raise ValueError(f"Doc._.mention_clusters is {clusters!r}; expected a list of clusters.")
    found = []
    for cluster in clusters:
        if not isinstance(cluster, (list, tuple)) or not cluster:
            raise ValueError(f"a cluster of Doc._.mention_clusters is {cluster!r}; expected a list of mentions.")
        for mention in cluster:
            check_position(doc, "a mention of a cluster", mention)
        found.append([(mention[0], mention[1]) for mention in cluster])
    return found


def check_document_relation(doc: Doc, relation: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless ``relation`` is one of ``doc``: it names the field and what was expected."""
    if not isinstance(relation, Mapping):
        raise ValueError(f"a document relation is {relation!r}; expected a dict as Doc._.document_relations has them.")
    clusters = len(doc._.mention_clusters)
    for side in ("head", "tail"):
        index = relation.get(side)
        if not isinstance(index, int) or not 0 <= index < clusters:
            raise ValueError(
                f"{side} of a document relation is {index!r}; expected the index of one of the {clusters} clusters of "
                "Doc._.mention_clusters."
            )
    if not isinstance(relation.get("label"), str):
        raise ValueError(f"label of a document relation is {relation.get('label')!r}; expected a string.")
    check_score("a document relation", relation)
    evidence = relation.get("evidence")
    if not isinstance(evidence, (list, tuple)) or not all(isinstance(pair, Mapping) for pair in evidence):
        raise ValueError(f"evidence of a document relation is {evidence!r}; expected a list of pairs of mentions.")
    for pair in evidence:
        for side in ("head_pos", "tail_pos"):
            check_position(doc, f"{side} of evidence", pair.get(side))
        check_score("evidence", pair)


def _document_relation_spans(doc: Doc) -> list[DocumentRelationSpans]:
    spans = [tuple(doc[start:end] for start, end in cluster) for cluster in doc._.mention_clusters]
    return [
        DocumentRelationSpans(
            spans[relation["head"]],
            spans[relation["tail"]],
            relation["label"],
            score_of(relation),
            tuple(_pair_spans(doc, relation["label"], pair) for pair in relation["evidence"]),
        )
        for relation in doc._.document_relations
    ]


def _pair_spans(doc: Doc, label: str, pair: Mapping[str, Any]) -> RelationSpans:
    head, tail = (doc[start:end] for start, end in (pair["head_pos"], pair["tail_pos"]))
    return RelationSpans(head, tail, label, score_of(pair))


_EXTENSIONS: dict[str, dict[str, Any]] = {
    "mention_clusters": {"default": []},
    "document_relations": {"default": []},
    "document_relation_spans": {"getter": _document_relation_spans},
    "relations_within_clusters": {"default": 0},
}


def require_extensions() -> None:
    """Raise ``ValueError`` if another package holds the name of one of our extensions."""
    extensions.require(_EXTENSIONS)


extensions.register(_EXTENSIONS)
