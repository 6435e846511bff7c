"""Ent, Rel and Rel+ on cases counted by hand."""

from __future__ import annotations

from typing import Any

import pytest
import spacy
from spacy.tokens import Doc, Span
from spacy.training import Example

from spacy_ie_moe.relations import make_relation
from spacy_ie_moe.triplet_scoring import make_triplet_scorer, score_triplets

Entity = tuple[int, int, str]
NLP = spacy.blank("en")
WORDS = "alice married bob and works for acme in paris".split()  # noqa: SIM905


def make(entities: list[Entity], relations: list[tuple[int, int, str]], *, group: str = "gmoe_rte") -> Doc:
    doc = Doc(NLP.vocab, words=WORDS)
    spans = [Span(doc, start, end, label=label) for start, end, label in entities]
    doc.spans[group] = spans
    doc._.relations = [make_relation(spans[head], spans[tail], label) for head, tail, label in relations]
    return doc


ALICE, BOB, ACME, PARIS = (0, 1, "PER"), (2, 3, "PER"), (6, 7, "ORG"), (8, 9, "LOC")
GOLD = make([ALICE, BOB, ACME, PARIS], [(0, 1, "spouse"), (0, 2, "works for"), (2, 3, "in")])


def f1(tp: int, fp: int, fn: int) -> float:
    return 2 * tp / (2 * tp + fp + fn)


def counts(scores: Any, mode: str, level: str) -> tuple[int, int, int]:
    micro = scores[mode][level].micro
    return micro.tp, micro.fp, micro.fn


def score(predicted: Doc, gold: Doc = GOLD) -> Any:
    return score_triplets([Example(predicted, gold)], symmetric=["spouse"])


def test_all_right() -> None:
    scores = score(make([ALICE, BOB, ACME, PARIS], [(0, 1, "spouse"), (0, 2, "works for"), (2, 3, "in")]))
    for mode in ("canonical", "directed"):
        found = [counts(scores, mode, level) for level in ("ent", "rel", "rel_plus")]
        assert found == [(4, 0, 0), (3, 0, 0), (3, 0, 0)]
    assert counts(scores, "doubled", "rel") == (4, 0, 0), "spouse counts twice"


def test_a_wrong_type_costs_rel_plus_but_not_rel() -> None:
    scores = score(make([ALICE, BOB, (6, 7, "LOC"), PARIS], [(0, 1, "spouse"), (0, 2, "works for"), (2, 3, "in")]))
    assert counts(scores, "canonical", "ent") == (3, 1, 1)
    assert counts(scores, "canonical", "rel") == (3, 0, 0)
    assert counts(scores, "canonical", "rel_plus") == (1, 2, 2)


def test_a_symmetric_relation_the_other_way_round() -> None:
    scores = score(make([ALICE, BOB], [(1, 0, "spouse")]))
    assert counts(scores, "canonical", "rel") == (1, 0, 2)
    assert counts(scores, "directed", "rel") == (0, 1, 3)
    assert counts(scores, "doubled", "rel") == (2, 0, 2)


def test_both_directions_of_a_symmetric_relation_count_once() -> None:
    scores = score(make([ALICE, BOB], [(0, 1, "spouse"), (1, 0, "spouse")]))
    assert counts(scores, "canonical", "rel") == (1, 0, 2)
    assert counts(scores, "directed", "rel") == (1, 1, 2)
    assert counts(scores, "doubled", "rel") == (2, 0, 2)


def test_direction_and_borders_count() -> None:
    scores = score(make([ALICE, (5, 7, "ORG")], [(1, 0, "works for"), (0, 1, "works for")]))
    assert counts(scores, "canonical", "ent") == (1, 1, 3)
    assert counts(scores, "canonical", "rel") == (0, 2, 3)


def test_macro_is_the_mean_over_labels_in_gold() -> None:
    scores = score(make([ALICE, BOB, ACME], [(0, 1, "spouse"), (0, 2, "works for"), (1, 2, "likes")]))
    macro = scores["canonical"]["rel"].macro
    assert macro.f1 == pytest.approx((1 + 1 + 0) / 3)
    assert scores["canonical"]["rel"].micro.f1 == pytest.approx(f1(2, 1, 1))


def test_gold_of_a_converter_or_of_doc_ents() -> None:
    predicted = make([ALICE, BOB], [(0, 1, "spouse")])
    converted = make([ALICE, BOB], [(0, 1, "spouse")], group="entities")
    plain = make([ALICE, BOB], [(0, 1, "spouse")], group="other")
    plain.ents = [Span(plain, *ALICE[:2], label="PER")]
    assert counts(score(predicted, converted), "canonical", "ent") == (2, 0, 0)
    assert counts(score(predicted, plain), "canonical", "ent") == (1, 1, 0)


def test_relations_without_types_have_those_of_their_entities() -> None:
    predicted = make([ALICE, BOB, ACME], [(0, 1, "spouse"), (0, 2, "works for")])
    gold = make([ALICE, BOB, (6, 7, "LOC")], [(0, 1, "spouse"), (0, 2, "works for")])
    gold._.relations = [{**relation, "head_label": "", "tail_label": ""} for relation in gold._.relations]
    assert counts(score(predicted, gold), "canonical", "rel_plus") == (1, 1, 1)
    gold._.relations = [{**gold._.relations[0], "head_label": "LOC"}]
    assert counts(score(predicted, gold), "canonical", "rel_plus") == (0, 2, 1), "a type that is there counts"


def test_other_tokens_of_the_same_text() -> None:
    finer = Doc(NLP.vocab, words=["al", "ice", *WORDS[1:]], spaces=[False, *[True] * len(WORDS)])
    spans = [Span(finer, 0, 2, label="PER"), Span(finer, 3, 4, label="PER")]
    finer.spans["gmoe_rte"] = spans
    finer._.relations = [make_relation(*spans, "spouse")]
    assert counts(score(finer), "canonical", "rel_plus") == (1, 0, 2)
    with pytest.raises(ValueError, match="different texts"):
        score(Doc(NLP.vocab, words=["other"]))


def test_the_registered_scorer() -> None:
    predicted = make([ALICE, BOB, (6, 7, "LOC")], [(1, 0, "spouse"), (0, 2, "works for")])
    values = make_triplet_scorer()([Example(predicted, GOLD)], symmetric=["spouse"])
    assert values["rte_ent_f"] == pytest.approx(f1(2, 1, 2))
    assert values["rte_rel_f"] == pytest.approx(f1(2, 0, 1))
    assert values["rte_rel_plus_f"] == pytest.approx(f1(1, 1, 2))
    assert values["rte_rel_directed_f"] == pytest.approx(f1(1, 1, 2))
    assert values["rte_rel_doubled_f"] == pytest.approx(f1(3, 0, 1))
    assert values["rte_rel_p"] == 1.0
    assert values["rte_rel_per_type"]["in"] == {"p": 0.0, "r": 0.0, "f": 0.0}
    nothing = make_triplet_scorer()([Example(make([], []), make([], []))])
    assert set(nothing) == set(values) and set(nothing.values()) == {None}
