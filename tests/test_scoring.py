"""The metrics, against counts made by hand and against what must hold for any input."""

from __future__ import annotations

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, Span
from spacy.training import Example
from spacy.vocab import Vocab

from spacy_ie_moe.labels import inverse_names, parse_labels
from spacy_ie_moe.relations import Relation, make_relation
from spacy_ie_moe.scoring import (
    Counts,
    Means,
    Triple,
    bootstrap_f1,
    confuse,
    count_labels,
    count_sets,
    make_relation_scorer,
    relation_triples,
    score_classification,
    score_relations,
)

VOCAB = Vocab()
WORDS = ["Ann", "of", "Acme", "met", "Bob", "in", "Rome"]
ANN, ACME, BOB, ROME = (0, 1, "PER"), (2, 3, "ORG"), (4, 5, "PER"), (6, 7, "LOC")

Argument = tuple[int, int, str]
Fact = tuple[Argument, Argument, str]


def make_doc(facts: list[Fact], ents: list[Argument] | None = None, words: list[str] | None = None) -> Doc:
    doc = Doc(VOCAB, words=words or WORDS)
    doc.ents = [Span(doc, start, end, kind) for start, end, kind in ents or []]
    doc._.relations = [relation(doc, *fact) for fact in facts]
    return doc


def relation(doc: Doc, head: Argument, tail: Argument, label: str) -> Relation:
    return make_relation(Span(doc, *head[:2], label=head[2]), Span(doc, *tail[:2], label=tail[2]), label)


def make_example(gold: list[Fact], predicted: list[Fact]) -> Example:
    return Example(make_doc(predicted), make_doc(gold))


def test_micro_macro_and_labels() -> None:
    examples = [
        make_example(
            gold=[(ANN, ACME, "works_at"), (BOB, ROME, "lives_in"), (ANN, BOB, "knows")],
            predicted=[(ANN, ACME, "works_at"), (BOB, ROME, "born_in"), (ACME, ROME, "located_in")],
        ),
        make_example(gold=[(BOB, ROME, "lives_in")], predicted=[(BOB, ROME, "lives_in"), (ANN, ROME, "lives_in")]),
    ]
    scores = score_relations(examples)
    assert scores.documents == [Counts(1, 2, 2), Counts(1, 1, 0)]
    assert scores.micro == Counts(tp=2, fp=3, fn=2)
    assert scores.micro.precision == pytest.approx(2 / 5)
    assert scores.micro.recall == pytest.approx(2 / 4)
    assert scores.micro.f1 == pytest.approx(4 / 9)
    assert scores.per_label == {
        "born_in": Counts(0, 1, 0),
        "knows": Counts(0, 0, 1),
        "lives_in": Counts(1, 1, 1),
        "located_in": Counts(0, 1, 0),
        "works_at": Counts(1, 0, 0),
    }
    assert scores.per_label["lives_in"].support == 2
    # In gold: knows 0/0/0, lives_in .5/.5/.5, works_at 1/1/1; predicted only: two labels of zeros.
    assert scores.macro == pytest.approx((1.5 / 3, 1.5 / 3, 1.5 / 3))
    assert scores.macro_union == pytest.approx((1.5 / 5, 1.5 / 5, 1.5 / 5))


def test_macro_f1_is_the_mean_of_f1() -> None:
    gold: list[Fact] = [(ANN, ACME, "a"), (ANN, BOB, "b"), (ANN, ROME, "b")]
    predicted: list[Fact] = [(ANN, ACME, "a"), (BOB, ACME, "a"), (ANN, BOB, "b")]
    macro = score_relations([make_example(gold, predicted)]).macro
    assert macro == pytest.approx(((0.5 + 1) / 2, (1 + 0.5) / 2, (2 / 3 + 2 / 3) / 2))
    assert macro.f1 < 2 * macro.precision * macro.recall / (macro.precision + macro.recall)


def test_gold_relation_on_a_pair_that_was_never_proposed_is_a_miss() -> None:
    """spaCy's rel_component scored this 1.0: it looked only at the pairs that its model had proposed."""
    gold: list[Fact] = [(ANN, ACME, "works_at"), (BOB, ROME, "lives_in")]
    scores = score_relations([make_example(gold, [(ANN, ACME, "works_at")])])
    assert (scores.micro.precision, scores.micro.recall) == (1.0, 0.5)


def test_duplicates_count_once() -> None:
    gold: list[Fact] = [(ANN, ACME, "works_at")] * 2
    predicted: list[Fact] = [(ANN, ACME, "works_at")] * 3 + [(ANN, ACME, "owns")] * 2
    assert score_relations([make_example(gold, predicted)]).micro == Counts(1, 1, 0)


def test_direction_matters_unless_the_label_is_symmetric() -> None:
    gold: list[Fact] = [(ANN, BOB, "knows"), (ANN, ACME, "works_at")]
    predicted: list[Fact] = [(BOB, ANN, "knows"), (ACME, ANN, "works_at")]
    example = make_example(gold, predicted)
    assert score_relations([example]).micro == Counts(0, 2, 2)
    assert score_relations([example], symmetric=["knows"]).micro == Counts(1, 1, 1)
    both_ways = make_example(gold, [(BOB, ANN, "knows"), (ANN, BOB, "knows")])
    assert score_relations([both_ways], symmetric=["knows"]).micro == Counts(1, 0, 1)


def test_a_relation_and_its_inverse_are_one() -> None:
    inverse = {"employs": "works_at"}
    gold: list[Fact] = [(ANN, ACME, "works_at"), (ACME, ANN, "employs"), (BOB, ROME, "lives_in")]
    predicted: list[Fact] = [(ACME, ANN, "employs"), (ROME, BOB, "employs")]
    example = make_example(gold, predicted)
    assert score_relations([example]).micro == Counts(1, 1, 2)
    scores = score_relations([example], inverse=inverse)
    assert scores.micro == scores.strict == Counts(1, 1, 1)
    assert scores.per_label["works_at"] == Counts(1, 1, 0)
    labels = parse_labels({"works_at": {"inverse": "employs"}, "employs": {"inverse": "works_at"}})
    assert inverse_names(labels) == inverse


def test_strict_needs_both_entity_types() -> None:
    gold: list[Fact] = [(ANN, ACME, "works_at"), (BOB, ROME, "lives_in")]
    predicted: list[Fact] = [((0, 1, "ORG"), ACME, "works_at"), (BOB, ROME, "lives_in")]
    scores = score_relations([make_example(gold, predicted)])
    assert scores.micro == Counts(2, 0, 0)
    assert scores.strict == Counts(1, 1, 1)


def test_strict_keeps_types_with_their_arguments_when_symmetric() -> None:
    swapped = make_example([(ANN, ACME, "linked")], [((2, 3, "ORG"), (0, 1, "PER"), "linked")])
    crossed = make_example([(ANN, ACME, "linked")], [((2, 3, "PER"), (0, 1, "ORG"), "linked")])
    assert score_relations([swapped], symmetric=["linked"]).strict == Counts(1, 0, 0)
    assert score_relations([crossed], symmetric=["linked"]).strict == Counts(0, 1, 1)


def test_relations_without_entity_types_are_untyped() -> None:
    example = make_example([((0, 1, ""), (2, 3, ""), "works_at")], [((0, 1, ""), (2, 3, ""), "works_at")])
    for relation_ in example.predicted._.relations:
        del relation_["head_label"]
    assert score_relations([example]).strict == Counts(1, 0, 0)


def test_entities() -> None:
    predicted = make_doc([], ents=[ANN, (2, 3, "LOC"), (4, 6, "PER")])
    scores = score_relations([Example(predicted, make_doc([], ents=[ANN, ACME, BOB]))])
    assert scores.entities == Counts(1, 2, 2)


def test_confusion() -> None:
    gold: list[Fact] = [(ANN, ACME, "a"), (ANN, BOB, "a"), (BOB, ROME, "b"), (ROME, ANN, "c")]
    predicted: list[Fact] = [(ANN, ACME, "a"), (ANN, BOB, "b"), (ANN, ROME, "c"), (ACME, ROME, "c")]
    scores = score_relations([make_example(gold, predicted)])
    assert scores.confusion == {
        ("a", "a"): 1,
        ("a", "b"): 1,
        ("b", None): 1,
        ("c", None): 1,
        (None, "c"): 2,
    }
    assert scores.to_json()["confusion"][0] == {"gold": None, "predicted": "c", "count": 2}


def test_confusion_of_several_labels_on_one_pair() -> None:
    gold = {Triple(0, 1, "a"), Triple(0, 1, "b"), Triple(0, 1, "c")}
    predicted = {Triple(0, 1, "b"), Triple(0, 1, "d")}
    assert confuse(gold, predicted) == {("b", "b"): 1, ("a", "d"): 1, ("c", None): 1}


def test_confusion_sees_a_symmetric_label_on_the_reverse_pair() -> None:
    gold, predicted = {Triple(0, 1, "sibling")}, {Triple(1, 0, "parent")}
    assert confuse(gold, predicted) == {("sibling", None): 1, (None, "parent"): 1}
    assert confuse(gold, predicted, symmetric=["sibling"]) == {("sibling", "parent"): 1}


def test_other_tokenisation_and_whitespace() -> None:
    words = ["New", "York", "-", "based", "Acme"]
    reference = Doc(VOCAB, words=words, spaces=[True, False, False, True, False])
    reference._.relations = [relation(reference, (4, 5, "ORG"), (0, 2, "LOC"), "based_in")]
    words = ["New", " ", "York-based", "Ac", "me"]
    predicted = Doc(VOCAB, words=words, spaces=[True, False, True, False, False])
    predicted._.relations = [relation(predicted, (3, 5, "ORG"), (0, 3, "LOC"), "based_in")]
    assert score_relations([Example(predicted, reference)]).micro == Counts(0, 1, 1)
    predicted = Doc(VOCAB, words=["New York", "-based", "Ac", "me"], spaces=[False, True, False, False])
    predicted._.relations = [relation(predicted, (2, 4, "ORG"), (0, 1, "LOC"), "based_in")]
    assert score_relations([Example(predicted, reference)]).micro == Counts(1, 0, 0)


def test_false_positives_on_pairs_with_an_unrecorded_relation_are_told_apart() -> None:
    predicted: list[Fact] = [(ANN, ACME, "works_at"), (ANN, ACME, "owns"), (BOB, ROME, "a"), (ROME, BOB, "b")]
    example = make_example([(ANN, ACME, "works_at")], predicted)
    example.reference.user_data["ignored_pairs"] = [[*ANN[:2], *ACME[:2]], [*BOB[:2], *ROME[:2]]]
    scores = score_relations([example])
    assert (scores.micro, scores.unrecorded) == (Counts(1, 3, 0), 2)
    assert score_relations([example], symmetric=["b"]).unrecorded == 3


def test_different_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="different texts"):
        score_relations([Example(make_doc([], words=["Ann"]), make_doc([], words=["Bob"]))])


def test_relation_outside_the_document_is_refused() -> None:
    doc = make_doc([])
    doc._.relations = [{**relation(doc, ANN, BOB, "knows"), "tail_pos": [4, 9]}]
    with pytest.raises(ValueError, match="tail_pos"):
        relation_triples(doc)


def test_nothing_at_all() -> None:
    for examples in ([], [make_example([], [])], [Example(Doc(VOCAB), Doc(VOCAB))]):
        scores = score_relations(examples)
        assert scores.micro == Counts()
        assert (scores.micro.precision, scores.micro.recall, scores.micro.f1) == (0.0, 0.0, 0.0)
        assert scores.macro == scores.macro_union == Means(0.0, 0.0, 0.0)
        assert not scores.confusion


def test_classification_takes_means_over_the_labels() -> None:
    scores = score_classification(["a", "a", "b", "c"], ["a", "b", "b", None])
    assert scores.accuracy == 0.5
    assert scores.per_label == {"a": Counts(1, 0, 1), "b": Counts(1, 1, 0), "c": Counts(0, 0, 1)}
    # P: 1, 1/2, 0; R: 1/2, 1, 0; F1: 2/3, 2/3, 0.
    assert scores.macro == pytest.approx((1.5 / 3, 1.5 / 3, 4 / 9))
    over_four = score_classification(["a", "a", "b", "c"], ["a", "b", "b", None], ["a", "b", "c", "d"])
    assert over_four.macro == pytest.approx((1.5 / 4, 1.5 / 4, 4 / 12))
    assert score_classification([], []).accuracy == 0.0


def test_classification_refuses_what_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="1 predicted labels for 2"):
        score_classification(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="'c' is not one of the labels"):
        score_classification(["a"], ["c"], ["a", "b"])


def test_registered_scorer() -> None:
    score = spacy.registry.scorers.get("spacy_ie_moe.relation_scorer.v1")()
    gold: list[Fact] = [(ANN, ACME, "works_at"), (BOB, ROME, "lives_in")]
    assert score([make_example(gold, [((0, 1, "ORG"), ACME, "works_at")])], attr="ignored") == {
        "rel_micro_p": 1.0,
        "rel_micro_r": 0.5,
        "rel_micro_f": pytest.approx(2 / 3),
        "rel_macro_f": 0.5,
        "rel_strict_f": 0.0,
        "rel_per_type": {
            "lives_in": {"p": 0.0, "r": 0.0, "f": 0.0},
            "works_at": {"p": 1.0, "r": 1.0, "f": 1.0},
        },
    }


def test_registered_scorer_is_none_without_gold() -> None:
    scores = make_relation_scorer()([make_example([], [(ANN, ACME, "works_at")])])
    assert set(scores.values()) == {None}
    assert "rel_micro_f" in scores


def test_registered_scorer_with_symmetric_labels() -> None:
    example = make_example([(ANN, BOB, "knows")], [(BOB, ANN, "knows")])
    assert make_relation_scorer()([example])["rel_micro_f"] == 0.0
    assert make_relation_scorer(symmetric=["knows"])([example])["rel_micro_f"] == 1.0


def test_bootstrap_is_reproducible_and_holds_the_estimate() -> None:
    documents = [Counts(3, 1, 1), Counts(0, 2, 1), Counts(5, 0, 1), Counts(1, 1, 4)] * 5
    low, high = bootstrap_f1(documents, samples=200, seed=1)
    assert (low, high) == bootstrap_f1(documents, samples=200, seed=1)
    assert 0 < low < sum(documents, Counts()).f1 < high < 1
    assert bootstrap_f1([Counts(2, 0, 0)] * 3, samples=20) == (1.0, 1.0)
    assert bootstrap_f1([], samples=20) == (0.0, 0.0)


ARGUMENTS = st.sampled_from([ANN, ACME, BOB, ROME])
FACTS = st.lists(st.tuples(ARGUMENTS, ARGUMENTS, st.sampled_from("abc")), max_size=6)
SYMMETRIC = st.sets(st.sampled_from("abc"))
TRIPLES = st.sets(st.builds(Triple, st.integers(0, 2), st.integers(0, 2), st.sampled_from("abc")), max_size=8)


@given(facts=FACTS, symmetric=SYMMETRIC)
def test_a_perfect_prediction_scores_one(facts: list[Fact], symmetric: set[str]) -> None:
    scores = score_relations([make_example(facts, facts)], symmetric=symmetric)
    perfect = 1.0 if facts else 0.0
    assert scores.micro.f1 == scores.strict.f1 == scores.macro.f1 == scores.macro_union.f1 == perfect
    assert all(gold == predicted for gold, predicted in scores.confusion)


@given(gold=FACTS, predicted=FACTS, symmetric=SYMMETRIC, data=st.data())
def test_order_does_not_matter(gold: list[Fact], predicted: list[Fact], symmetric: set[str], data) -> None:
    shuffled = make_example(data.draw(st.permutations(gold)), data.draw(st.permutations(predicted)))
    scores = score_relations([make_example(gold, predicted)], symmetric=symmetric)
    assert scores == score_relations([shuffled], symmetric=symmetric)


@given(gold=FACTS, predicted=FACTS)
def test_every_gold_relation_is_counted(gold: list[Fact], predicted: list[Fact]) -> None:
    scores = score_relations([make_example(gold, predicted)])
    assert scores.micro.support == len(set(gold))
    assert scores.micro.tp + scores.micro.fp == len(set(predicted))
    assert sum(scores.per_label.values(), Counts()) == scores.micro
    assert scores.strict.f1 <= scores.micro.f1


@given(gold=TRIPLES, predicted=TRIPLES)
def test_f1_lies_between_precision_and_recall(gold: set[Triple], predicted: set[Triple]) -> None:
    for counts in (count_sets(gold, predicted), *count_labels(gold, predicted).values()):
        low, high = sorted((counts.precision, counts.recall))
        assert low - 1e-12 <= counts.f1 <= high + 1e-12


@given(gold=TRIPLES, predicted=TRIPLES, symmetric=SYMMETRIC)
def test_confusion_rows_and_columns_sum_to_the_counts(
    gold: set[Triple], predicted: set[Triple], symmetric: set[str]
) -> None:
    confusion = confuse(gold, predicted, symmetric=symmetric)
    for label, counts in count_labels(gold, predicted).items():
        assert sum(n for (row, _), n in confusion.items() if row == label) == counts.support
        assert sum(n for (_, column), n in confusion.items() if column == label) == counts.tp + counts.fp
        assert confusion[label, label] >= counts.tp
