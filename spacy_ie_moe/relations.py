"""``Doc._.relations``: the one result of every component, and the read-only view beside it.

Relations are plain dicts of plain values, because only those survive ``Doc.to_bytes``, ``DocBin``, pickling
and ``n_process=2``. ``Doc._.relation_spans`` shows the same relations with spaCy ``Span``s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypedDict

from spacy.tokens import Doc, Span

from . import extensions


class Relation(TypedDict):
    """One relation of a document.

    Positions are ``[start, end)`` in tokens of the document; texts are lists of token strings; the entity
    labels are ``""`` where the arguments have none; the score is a probability.
    """

    head_pos: list[int]
    tail_pos: list[int]
    head_text: list[str]
    tail_text: list[str]
    label: str
    score: float
    head_label: str
    tail_label: str


class RelationSpans(NamedTuple):
    """A relation seen as spaCy spans of its document."""

    head: Span
    tail: Span
    label: str
    score: float


def make_relation(head: Span, tail: Span, label: str, score: float = 1.0) -> Relation:
    """The relation ``label`` from ``head`` to ``tail``, two spans of one document."""
    return Relation(
        head_pos=[head.start, head.end],
        tail_pos=[tail.start, tail.end],
        head_text=[token.text for token in head],
        tail_text=[token.text for token in tail],
        label=label,
        score=float(score),
        head_label=head.label_,
        tail_label=tail.label_,
    )


def relation_key(relation: Mapping[str, Any]) -> tuple[int, int, int, int, str]:
    """What makes a relation one and the same: head, tail and label, without score and texts."""
    (head_start, head_end), (tail_start, tail_end) = relation["head_pos"], relation["tail_pos"]
    return head_start, head_end, tail_start, tail_end, relation["label"]


def sort_relations(relations: Iterable[Relation]) -> list[Relation]:
    """Highest score first; ties by head, tail and label."""
    return sorted(relations, key=lambda relation: (-score_of(relation), relation_key(relation)))


def score_of(relation: Mapping[str, Any]) -> float:
    """The score of a relation; 1 for a gold one without."""
    return relation.get("score", 1.0)


def check_relation(doc: Doc, relation: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless ``relation`` is one of ``doc``: it names the field and what was expected."""
    if not isinstance(relation, Mapping):
        raise ValueError(f"a relation is {relation!r}; expected a dict as Doc._.relations has them.")
    for side in ("head_pos", "tail_pos"):
        check_position(doc, f"{side} of a relation", relation.get(side))
    if not isinstance(relation.get("label"), str):
        raise ValueError(f"label of a relation is {relation.get('label')!r}; expected a string.")
    check_score("a relation", relation)


def check_position(doc: Doc, what: str, position: Any) -> None:
    """Raise ``ValueError`` unless ``position``, called ``what`` in errors, is ``[start, end)`` in tokens of ``doc``."""
    if (
        not isinstance(position, (list, tuple))
        or len(position) != 2
        or not all(isinstance(offset, int) for offset in position)
        or not 0 <= position[0] < position[1] <= len(doc)
    ):
        raise ValueError(
            f"{what} is {position!r}; expected token offsets [start, end) with 0 <= start < end <= {len(doc)}."
        )


def check_score(what: str, scored: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless the score of ``scored``, called ``what`` in errors, is a number or missing."""
    score = scored.get("score", 1.0)
    if not isinstance(score, (int, float)) or math.isnan(score):
        raise ValueError(f"score of {what} is {score!r}; expected a number.")


def to_pair_scores(doc: Doc) -> dict[tuple[int, int], dict[str, float]]:
    """``Doc._.relations`` in the shape of spaCy's rel_component: ``{(head_start, tail_start): {label: score}}``.

    The shape knows only where an argument starts, so of several relations that differ in nothing else the
    highest score is kept.
    """
    scores: dict[tuple[int, int], dict[str, float]] = {}
    for relation in doc._.relations:
        pair = scores.setdefault((relation["head_pos"][0], relation["tail_pos"][0]), {})
        pair[relation["label"]] = max(score_of(relation), pair.get(relation["label"], 0.0))
    return scores


def from_pair_scores(
    doc: Doc,
    scores: Mapping[tuple[int, int], Mapping[str, float]],
    *,
    threshold: float = 0.5,
    spans: Iterable[Span] | None = None,
) -> list[Relation]:
    """The relations of rel_component's ``{(head_start, tail_start): {label: score}}``.

    Arguments are looked up by their first token among ``spans`` (default: ``doc.ents``); relations below
    ``threshold`` are left out. A start that no span has is a ``ValueError``.
    """
    by_start = {span.start: span for span in (doc.ents if spans is None else spans)}
    relations = []
    for (head, tail), labels in scores.items():
        for start in (head, tail):
            if start not in by_start:
                raise ValueError(f"pair ({head}, {tail}): no entity starts at token {start}.")
        for label, score in labels.items():
            if score >= threshold:
                relations.append(make_relation(by_start[head], by_start[tail], label, score))
    return sort_relations(relations)


def _relation_spans(doc: Doc) -> list[RelationSpans]:
    return [
        RelationSpans(
            _argument(doc, relation, "head"), _argument(doc, relation, "tail"), relation["label"], score_of(relation)
        )
        for relation in doc._.relations
    ]


def _argument(doc: Doc, relation: Mapping[str, Any], side: str) -> Span:
    start, end = relation[f"{side}_pos"]
    return Span(doc, start, end, label=relation.get(f"{side}_label", ""))


_EXTENSIONS: dict[str, dict[str, Any]] = {
    "relations": {"default": []},
    "relation_spans": {"getter": _relation_spans},
    "relation_labels": {"default": None},
    "unscored_pairs": {"default": 0},
}


def require_extensions() -> None:
    """Raise ``ValueError`` if another package holds the name of one of our extensions."""
    extensions.require(_EXTENSIONS)


extensions.register(_EXTENSIONS)
