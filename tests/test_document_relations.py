"""``document_relations``: clusters of mentions, and relations lifted to them."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from spacy_ie_moe.documents.clusters import (
    cluster_mentions,
    connected_components,
    set_span_group_clusters,
    span_group_clusters,
)
from spacy_ie_moe.documents.component import DocumentRelations
from spacy_ie_moe.documents.lifting import lift_relations
from spacy_ie_moe.documents.relations import check_document_relation, clusters_of
from spacy_ie_moe.relations import make_relation

from .conftest import make_doc, make_nlp

VOCAB = Vocab()
TEXT = "Ann Lee was born in Bern . She left Bern for Rome . Lee died in Rome ."
ANN, BERN, SHE, BERN2, ROME, LEE, ROME2 = (0, 2), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (16, 17)

Found = dict[tuple[int, int, str], tuple[float, list[tuple[Any, ...]]]]


def new_doc(
    relations: Iterable[tuple[Any, ...]] = (),
    groups: Iterable[Iterable[tuple[int, int]]] = (),
    vocab: Vocab = VOCAB,
) -> Doc:
    """The text with relations (head, label, tail, score) and clusters of a coreference pipe."""
    doc = make_doc(vocab, TEXT)
    doc._.relations = [make_relation(doc[slice(*h)], doc[slice(*t)], label, score) for h, label, t, score in relations]
    set_span_group_clusters(doc, groups)
    return doc


def found_in(doc: Doc) -> Found:
    """Score and evidence by (head cluster, tail cluster, label)."""
    return {
        (one["head"], one["tail"], one["label"]): (
            one["score"],
            [(*pair["head_pos"], *pair["tail_pos"], pair["score"]) for pair in one["evidence"]],
        )
        for one in doc._.document_relations
    }


# --- lifting


def test_relations_are_lifted_to_the_clusters_of_a_coreference_pipe() -> None:
    doc = new_doc(
        [
            (ANN, "place of birth", BERN, 0.9),
            (SHE, "place of birth", BERN2, 0.6),
            (LEE, "place of death", ROME2, 0.8),
            (ANN, "spouse", LEE, 0.7),  # within a cluster
            (ANN, "SELF", ROME, 0.99),  # says nothing where the clusters are given
        ],
        [[ANN, SHE, LEE], [BERN, BERN2]],
    )
    DocumentRelations()(doc)
    assert doc._.mention_clusters == [[[0, 2], [7, 8], [13, 14]], [[5, 6], [9, 10]], [[16, 17]]]
    assert doc._.document_relations == [
        {
            "head": 0,
            "tail": 1,
            "head_text": ["Ann", "Lee"],
            "tail_text": ["Bern"],
            "label": "place of birth",
            "score": 0.9,
            "evidence": [
                {"head_pos": [0, 2], "tail_pos": [5, 6], "score": 0.9},
                {"head_pos": [7, 8], "tail_pos": [9, 10], "score": 0.6},
            ],
        },
        {
            "head": 0,
            "tail": 2,
            "head_text": ["Ann", "Lee"],
            "tail_text": ["Rome"],
            "label": "place of death",
            "score": 0.8,
            "evidence": [{"head_pos": [13, 14], "tail_pos": [16, 17], "score": 0.8}],
        },
    ]
    assert doc._.relations_within_clusters == 1
    assert len(doc._.relations) == 5, "the relations between mentions stay"


def test_clusters_of_self_relations() -> None:
    relations = [
        (ANN, "SELF", SHE, 0.5),
        (LEE, "SELF", SHE, 0.9),
        (BERN, "SELF", BERN2, 0.4),  # below the threshold
        (BERN2, "self", ROME, 0.9),  # another label
        (LEE, "place of death", ROME2, 0.8),
    ]
    doc = DocumentRelations()(new_doc(relations))
    assert doc._.mention_clusters == [[[0, 2], [7, 8], [13, 14]], [[9, 10]], [[11, 12]], [[16, 17]]]
    assert found_in(doc) == {
        (1, 2, "self"): (0.9, [(9, 10, 11, 12, 0.9)]),
        (0, 3, "place of death"): (0.8, [(13, 14, 16, 17, 0.8)]),
    }
    doc = DocumentRelations(self_threshold=0.4)(new_doc(relations))
    assert [[5, 6], [9, 10]] in doc._.mention_clusters
    doc = DocumentRelations(self_label="self")(new_doc(relations))
    assert [[9, 10], [11, 12]] in doc._.mention_clusters
    assert [one["label"] for one in doc._.document_relations].count("SELF") == 3
    doc = DocumentRelations(self_label=None)(new_doc(relations))
    assert len(doc._.mention_clusters) == 7 and len(doc._.document_relations) == 5


def test_without_coreference_each_mention_is_a_cluster() -> None:
    doc = DocumentRelations()(new_doc([(ANN, "place of birth", BERN, 0.9), (SHE, "place of birth", BERN, 0.6)]))
    assert doc._.mention_clusters == [[[0, 2]], [[5, 6]], [[7, 8]]]
    assert set(found_in(doc)) == {(0, 1, "place of birth"), (2, 1, "place of birth")}


def test_span_groups_are_those_of_the_prefix_and_can_be_ignored() -> None:
    doc = new_doc([(ANN, "SELF", LEE, 0.9), (ANN, "born in", BERN, 0.9)], [[ANN, SHE]])
    doc.spans["coref_clusters_x"] = doc.spans["coref_head_clusters_1"] = [doc[5:6], doc[9:10]]
    doc.spans["coref_clusters_2"] = []
    doc.spans["mine_1"] = [doc[0:2], doc[5:6]]
    assert DocumentRelations()(doc)._.mention_clusters == [[[0, 2], [7, 8]], [[5, 6]]]
    assert DocumentRelations(coref_prefix=None)(doc)._.mention_clusters == [[[0, 2], [13, 14]], [[5, 6]]]
    assert DocumentRelations(coref_prefix="mine")(doc)._.relations_within_clusters == 1
    assert span_group_clusters(doc, "coref_clusters") == [[ANN, SHE]]


def test_more_than_nine_span_groups_are_read() -> None:
    doc = make_doc(VOCAB, "a " * 12)
    set_span_group_clusters(doc, [[(index, index + 1)] for index in reversed(range(12))])
    assert span_group_clusters(doc, "coref_clusters") == [[(index, index + 1)] for index in range(12)]


def test_a_mention_of_two_span_groups_belongs_to_the_first_in_the_text() -> None:
    doc = DocumentRelations()(new_doc([(SHE, "born in", BERN, 0.9)], [[SHE, LEE], [ANN, SHE]]))
    assert doc._.mention_clusters == [[[0, 2], [7, 8]], [[5, 6]], [[7, 8], [13, 14]]]
    assert set(found_in(doc)) == {(0, 1, "born in")}


def test_an_argument_that_is_no_coreference_span_is_a_cluster_of_its_own() -> None:
    doc = DocumentRelations()(new_doc([((1, 2), "born in", BERN, 0.9)], [[ANN, SHE]]))
    assert doc._.mention_clusters == [[[0, 2], [7, 8]], [[1, 2]], [[5, 6]]]
    assert set(found_in(doc)) == {(1, 2, "born in")}


def test_span_groups_that_were_there_before_are_replaced() -> None:
    doc = new_doc([], [[ANN, SHE], [BERN, BERN2]])
    doc.spans["coref_clusters_x"] = [doc[0:1]]
    set_span_group_clusters(doc, [[ROME, ROME2]])
    assert span_group_clusters(doc, "coref_clusters") == [[ROME, ROME2]]
    assert set(doc.spans) == {"coref_clusters_1", "coref_clusters_x"}


def test_symmetric_labels_join_two_clusters_once() -> None:
    doc = new_doc(
        [(ANN, "spouse", BERN, 0.6), (BERN2, "spouse", SHE, 0.9), (BERN, "visited by", ANN, 0.3)],
        [[ANN, SHE], [BERN, BERN2]],
    )
    assert len(DocumentRelations()(doc)._.document_relations) == 3
    DocumentRelations(symmetric=["spouse"])(doc)
    assert found_in(doc) == {
        (0, 1, "spouse"): (0.9, [(7, 8, 9, 10, 0.9), (0, 2, 5, 6, 0.6)]),
        (1, 0, "visited by"): (0.3, [(5, 6, 0, 2, 0.3)]),
    }


@pytest.mark.parametrize("words", ["", "Ann"])
def test_documents_without_relations(words: str) -> None:
    doc = DocumentRelations()(make_doc(VOCAB, words))
    assert (doc._.mention_clusters, doc._.document_relations, doc._.document_relation_spans) == ([], [], [])


def test_what_was_there_before_is_replaced() -> None:
    doc = DocumentRelations()(new_doc([(ANN, "spouse", LEE, 0.7)]))
    doc._.relations = []
    assert DocumentRelations()(doc)._.document_relations == []
    assert doc._.mention_clusters == []


def test_the_view_shows_spans() -> None:
    doc = DocumentRelations()(new_doc([(SHE, "born in", BERN, 0.5)], [[ANN, SHE]]))
    (view,) = doc._.document_relation_spans
    assert [span.text for span in view.head] == ["Ann Lee", "She"]
    assert [span.text for span in view.tail] == ["Bern"]
    assert (view.label, view.score) == ("born in", 0.5)
    (pair,) = view.evidence
    assert (pair.head.text, pair.label, pair.tail.text, pair.score) == ("She", "born in", "Bern", 0.5)
    assert isinstance(view.head[0], Span)


# --- against brute force

mentions = st.integers(0, 11).map(lambda start: (start, start + 1 + start % 3))
labels = st.sampled_from(["SELF", "a", "b"])
scores = st.sampled_from([0.2, 0.5, 0.8])
some_relations = st.lists(st.tuples(mentions, labels, mentions, scores), max_size=25)


def brute_components(links: list[tuple[Any, Any]]) -> list[list[Any]]:
    groups = [{mention} for mention in {mention for link in links for mention in link}]
    for first, second in links:
        joined = [group for group in groups if first in group or second in group]
        groups = [group for group in groups if group not in joined] + [set().union(*joined)]
    return sorted(sorted(group) for group in groups)


@given(st.lists(st.tuples(mentions, mentions), max_size=30))
def test_connected_components(links: list[tuple[Any, Any]]) -> None:
    assert connected_components(links) == brute_components(links)


@given(some_relations, st.sampled_from([(), ("a",)]))
def test_lifting(drawn: list[tuple[Any, ...]], symmetric: tuple[str, ...]) -> None:
    doc = new_doc(drawn)
    clustering = cluster_mentions(doc, doc._.relations, self_threshold=0.5)
    lifted, within = lift_relations(doc, doc._.relations, clustering, symmetric=symmetric)
    same = [(head, tail) for head, label, tail, score in drawn if label == "SELF" and score >= 0.5]
    components = brute_components(same)

    def cluster_of(mention: Any) -> list[Any]:
        return next((group for group in components if mention in group), [mention])

    expected: dict[Any, dict[Any, float]] = {}
    inside = 0
    for head, label, tail, score in drawn:
        sides = [(cluster_of(head), head), (cluster_of(tail), tail)]
        if label != "SELF" and sides[0][0] == sides[1][0]:
            inside += 1
        elif label != "SELF":
            if label in symmetric:
                sides.sort(key=lambda side: side[0])
            key = (str(sides[0][0]), label, str(sides[1][0]))
            pair = (sides[0][1], sides[1][1])
            expected.setdefault(key, {})[pair] = max(score, expected.get(key, {}).get(pair, 0))
    assert within == inside
    actual = {
        (str(clustering.clusters[one["head"]]), one["label"], str(clustering.clusters[one["tail"]])): {
            (tuple(pair["head_pos"]), tuple(pair["tail_pos"])): pair["score"] for pair in one["evidence"]
        }
        for one in lifted
    }
    assert actual == expected and len(lifted) == len(expected)
    for one in lifted:
        evidence = [pair["score"] for pair in one["evidence"]]
        assert one["score"] == evidence[0] == max(evidence) and evidence == sorted(evidence, reverse=True)
    assert [one["score"] for one in lifted] == sorted((one["score"] for one in lifted), reverse=True)
    assert clustering.clusters == sorted(clustering.clusters)


def test_a_huge_document_takes_no_squared_time() -> None:
    """A cluster of 20,000 mentions with 20,000 relations: their product would be minutes."""
    n = 20_000
    doc = make_doc(VOCAB, ["a"] * (2 * n + 1))

    def relation(head: int, label: str, tail: int) -> dict[str, Any]:
        return {"head_pos": [head, head + 1], "tail_pos": [tail, tail + 1], "label": label, "score": 0.9}

    same = [relation(index, "SELF", index + 1) for index in range(n)]
    doc._.relations = [*same, *(relation(index, "met", n + 1 + index) for index in range(n))]
    started = time.process_time()
    DocumentRelations()(doc)
    assert time.process_time() - started < 15
    assert len(doc._.mention_clusters[0]) == n + 1
    assert len(doc._.document_relations) == n


# --- plain data


@pytest.mark.parametrize("way", ["bytes", "docbin", "pickle", "json"])
def test_document_relations_survive_serialisation(way: str) -> None:
    doc = DocumentRelations()(new_doc([(SHE, "born in", BERN, 0.5)], [[ANN, SHE]]))
    if way == "bytes":
        again = Doc(doc.vocab).from_bytes(doc.to_bytes())
    elif way == "pickle":
        again = pickle.loads(pickle.dumps(doc))
    elif way == "docbin":
        data = DocBin(docs=[doc], store_user_data=True).to_bytes()
        (again,) = DocBin(store_user_data=True).from_bytes(data).get_docs(doc.vocab)
    else:
        plain = json.loads(json.dumps([doc._.mention_clusters, doc._.document_relations]))
        assert plain == [doc._.mention_clusters, doc._.document_relations]
        return
    (before,), (view,) = doc._.document_relation_spans, again._.document_relation_spans
    assert [span.text for span in view.head] == [span.text for span in before.head]
    assert view.evidence[0].head.text == "She"
    assert clusters_of(again) == clusters_of(doc) == [[ANN, SHE], [BERN]]
    check_document_relation(again, again._.document_relations[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head": 2}, "head of a document relation is 2; expected the index of one of the 2 clusters"),
        ({"tail": "x"}, "tail of a document relation is 'x'; expected the index"),
        ({"label": 3}, "label of a document relation is 3; expected a string"),
        ({"score": "high"}, "score of a document relation is 'high'; expected a number"),
        ({"score": float("nan")}, "score of a document relation is nan; expected a number"),
        ({"evidence": None}, "evidence of a document relation is None; expected a list of pairs"),
        ({"evidence": [3]}, r"evidence of a document relation is \[3\]; expected a list of pairs"),
        ({"evidence": [{"head_pos": [0, 1], "tail_pos": [0, 99]}]}, r"tail_pos of evidence is \[0, 99\]; expected"),
        ({"evidence": [{"head_pos": [0, 1], "tail_pos": [1, 2], "score": "x"}]}, "score of evidence is 'x'; expected"),
    ],
)
def test_a_wrong_document_relation_is_named(change: dict[str, Any], message: str) -> None:
    doc = DocumentRelations()(new_doc([(ANN, "born in", BERN, 0.5)]))
    with pytest.raises(ValueError, match=message):
        check_document_relation(doc, {**doc._.document_relations[0], **change})


@pytest.mark.parametrize("clusters", ["x", [[]], [[[3, 3]]], [[[0, 99]]], [3]])
def test_wrong_clusters_are_named(clusters: Any) -> None:
    doc = make_doc(VOCAB, TEXT)
    doc._.mention_clusters = clusters
    with pytest.raises(ValueError, match=r"cluster.* is .*; expected"):
        clusters_of(doc)


# --- the component


def new_nlp(**config: Any) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("document_relations", config=config)
    return nlp


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coref_prefix": ""}, "coref_prefix is ''; expected a non-empty string, or None"),
        ({"self_label": 3}, "self_label is 3; expected a non-empty string, or None"),
        ({"self_threshold": 1.5}, "self_threshold is 1.5; expected a number from 0 to 1"),
        ({"self_threshold": True}, "self_threshold is True; expected a number from 0 to 1"),
        ({"symmetric": "spouse"}, "symmetric is 'spouse'; expected a list of labels"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DocumentRelations(**options)


def test_a_wrong_type_in_the_config_is_named() -> None:
    with pytest.raises(ValueError, match="self_threshold"):
        new_nlp(self_threshold="high")


def test_a_wrong_relation_is_named_and_costs_no_other_document() -> None:
    nlp = new_nlp()
    good, bad = new_doc([(ANN, "born in", BERN, 0.5)]), new_doc()
    bad._.relations = [{"head_pos": [0, 99], "tail_pos": [0, 1], "label": "x"}]
    with pytest.raises(ValueError, match=r"head_pos of a relation is \[0, 99\]; expected token offsets"):
        nlp.get_pipe("document_relations")(bad)
    with pytest.raises(ValueError, match="score of a relation is nan; expected a number"):
        nlp.get_pipe("document_relations")(new_doc([(ANN, "born in", BERN, float("nan"))]))
    failed: list[Any] = []
    nlp.set_error_handler(lambda name, pipe, docs, error: failed.append((name, docs)))
    assert len(list(nlp.pipe([good, bad]))) == 1
    assert failed == [("document_relations", [bad])]


@pytest.mark.parametrize("way", ["disk", "bytes", "pickle"])
def test_settings_are_saved(way: str, tmp_path: Path) -> None:
    nlp = new_nlp(self_threshold=0.7)
    pipe: Any = nlp.get_pipe("document_relations")
    pipe.self_label, pipe.symmetric = "same", ["spouse"]
    if way == "disk":
        nlp.to_disk(tmp_path)
        again = spacy.load(tmp_path)
    elif way == "bytes":
        again = new_nlp(self_threshold=0.7).from_bytes(nlp.to_bytes())
    else:
        again = pickle.loads(pickle.dumps(nlp))
    loaded: Any = again.get_pipe("document_relations")
    assert (loaded.self_label, loaded.symmetric, loaded.self_threshold) == ("same", ("spouse",), 0.7)
    assert loaded.coref_prefix == "coref_clusters"


def test_processes_give_the_same() -> None:
    nlp = new_nlp()

    def found(**options: int) -> list[Any]:
        relations = [[(ANN, "SELF", LEE, 0.5), (LEE, "born in", BERN, 0.1 * index)] for index in range(4)]
        docs = nlp.pipe((new_doc(drawn, vocab=nlp.vocab) for drawn in relations), **options)
        return [(doc._.mention_clusters, doc._.document_relations) for doc in docs]

    assert found(n_process=2, batch_size=1) == found()
    assert len(found()[3][1]) == 1


# --- behind glirel


def test_self_is_a_label_like_any_other(tiny: Path) -> None:
    nlp = make_nlp(tiny, labels={"SELF": {"symmetric": True}, "Self": {}, "founder": {}})
    nlp.add_pipe("document_relations", config={"self_threshold": 0.0})
    doc = nlp(make_doc(nlp, "alice founded acme and she married bob", [(0, 1, "PER"), (2, 3, "ORG"), (6, 7, "PER")]))
    found = {relation["label"] for relation in doc._.relations}
    assert found == {"SELF", "Self", "founder"}
    assert doc._.mention_clusters == [[[0, 1], [2, 3], [6, 7]]], "any SELF will do"
    assert doc._.document_relations == [] and doc._.relations_within_clusters == 12


def test_relations_of_windows_are_gathered_by_clusters(new_checkpoint: Callable[..., Path]) -> None:
    """128 pieces: the pairs of the first and the last sentence are in no window, what each says of acme is."""
    nlp = make_nlp(new_checkpoint("anchored"), labels=["founder"])
    nlp.add_pipe("document_relations")
    words = ["alice", "founded", "acme", *["the"] * 300, "acme", "met", "bob"]
    last = len(words)
    ents = [(0, 1, "PER"), (2, 3, "ORG"), (last - 3, last - 2, "ORG"), (last - 1, last, "PER")]
    doc = make_doc(nlp, words, ents)
    set_span_group_clusters(doc, [[(2, 3), (last - 3, last - 2)]])
    doc = nlp(doc)
    assert doc._.unscored_pairs == 8, "of 12 pairs those within a sentence are scored"
    assert doc._.mention_clusters == [[[0, 1]], [[2, 3], [last - 3, last - 2]], [[last - 1, last]]]
    assert set(found_in(doc)) == {(0, 1, "founder"), (1, 0, "founder"), (1, 2, "founder"), (2, 1, "founder")}


def test_pair_windows(new_checkpoint: Callable[..., Path]) -> None:
    nlp = make_nlp(new_checkpoint("anchored"), labels=["founder"], max_pair_distance=3)
    nlp.add_pipe("document_relations")
    doc = make_doc(nlp, "alice founded acme . acme met bob .", [(0, 1, "P"), (2, 3, "O"), (4, 5, "O"), (6, 7, "P")])
    set_span_group_clusters(doc, [[(2, 3), (4, 5)]])
    doc = nlp(doc)
    assert set(found_in(doc)) == {(0, 1, "founder"), (1, 0, "founder"), (1, 2, "founder"), (2, 1, "founder")}
    assert doc._.relations_within_clusters == 2
