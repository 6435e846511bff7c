"""F1 and Ign F1 of document relations, against values computed by hand."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.tokens import Doc
from spacy.training import Example
from spacy.vocab import Vocab

from spacy_ie_moe.document_scoring import DocumentLevel, make_document_relation_scorer, score_document_relations
from spacy_ie_moe.documents.clusters import set_span_group_clusters
from spacy_ie_moe.documents.component import DocumentRelations
from spacy_ie_moe.documents.facts import Fact, facts_of, read_facts, write_facts
from spacy_ie_moe.documents.relations import cluster_texts, make_document_relation
from spacy_ie_moe.relations import make_relation

from .conftest import make_doc

VOCAB = Vocab()
TEXT = "Ann Lee was born in Bern . She left Bern for Rome , where Bob Ray , her husband , lived . Lee died there ."
ANN, BERN, SHE, BERN2, ROME, BOB, LEE, THERE = (
    (0, 2), (5, 6), (7, 8), (9, 10), (11, 12), (14, 16), (22, 23), (24, 25)
)  # fmt: skip
CLUSTERS = [[ANN, SHE, LEE], [BERN, BERN2], [ROME, THERE], [BOB]]
GOLD = [
    (0, "place of birth", 1),
    (0, "place of death", 2),
    (0, "spouse", 3),
    (3, "spouse", 0),
    (3, "residence", 2),
]
FACTS = {
    Fact("Lee", "placeofbirth", "Bern"),  # not the label
    Fact("Lee", "place of death", "Rome"),
    Fact("BobRay", "spouse", "AnnLee"),
    Fact("BobRay", "residence", "Rome"),
    Fact("Bern", "place of death", "Rome"),
}


def annotated(clusters: list[Any], relations: list[tuple[int, str, int]], words: str = TEXT) -> Doc:
    doc = make_doc(VOCAB, words)
    doc._.mention_clusters = [[list(mention) for mention in cluster] for cluster in clusters]
    doc._.document_relations = [
        make_document_relation(cluster_texts(doc, clusters), head, tail, label, {}, score=1.0)
        for head, label, tail in relations
    ]
    return doc


def score(predicted: Doc, gold: Doc | None = None, **options: Any) -> dict[str, DocumentLevel]:
    return score_document_relations([Example(predicted, gold or annotated(CLUSTERS, GOLD))], **options)


def test_gold_clusters_by_hand() -> None:
    """Found are birth, death and one direction of spouse; wrong are two. Known are death and the other direction.

    P = 3 / 5, R = 3 / 5, F1 = 3 / 5. Of the correct ones death is a fact: P_ign = (3 - 1) / (5 - 1) = 1 / 2, and
    F1_ign = 2 (1/2) (3/5) / (1/2 + 3/5) = 6 / 11.
    """
    relations = [
        (ANN, "place of birth", BERN2, 0.9),
        (SHE, "place of birth", BERN, 0.8),  # the same
        (LEE, "place of death", THERE, 0.7),
        (ANN, "spouse", BOB, 0.6),
        (BOB, "place of birth", ROME, 0.9),
        (ROME, "place of death", BERN, 0.9),
    ]
    doc = make_doc(VOCAB, TEXT)
    doc._.relations = [make_relation(doc[slice(*h)], doc[slice(*t)], label, value) for h, label, t, value in relations]
    set_span_group_clusters(doc, CLUSTERS)
    DocumentRelations()(doc)
    levels = score(doc, training_facts=FACTS)
    for level in levels.values():
        assert (level.micro.tp, level.micro.fp, level.micro.fn, level.known) == (3, 2, 2, 1)
        assert (level.micro.precision, level.micro.recall, level.micro.f1) == (0.6, 0.6, pytest.approx(0.6))
        assert level.ign_precision == 0.5
        assert level.ign_f1 == pytest.approx(6 / 11)
    assert {label: counts.f1 for label, counts in levels["exact"].per_label.items()} == {
        "place of birth": pytest.approx(2 / 3),
        "place of death": pytest.approx(2 / 3),
        "residence": 0.0,
        "spouse": pytest.approx(2 / 3),
    }
    assert levels["exact"].macro.f1 == pytest.approx(0.5)
    assert json.loads(json.dumps(levels["exact"].to_json()))["ign_f1"] == pytest.approx(6 / 11)


def test_predicted_clusters_by_hand() -> None:
    """Ann's cluster lacks a mention, Bern's is in two parts, Rome's too, and one of these has Bob's: none is exact.

    By majority only [Rome, Bob] is no gold one. So birth (twice the same) and death are right and residence is wrong:
    P = 2 / 3, R = 2 / 5, and as death is a fact P_ign = (2 - 1) / (3 - 1).
    """
    clusters = [[ANN, LEE], [BERN], [BERN2], [ROME, BOB], [THERE]]
    relations = [(0, "place of birth", 1), (0, "place of birth", 2), (3, "residence", 4), (0, "place of death", 4)]
    doc = annotated(clusters, relations)
    levels = score(doc, training_facts=FACTS)
    exact, majority = levels["exact"], levels["majority"]
    assert (exact.micro.tp, exact.micro.fp, exact.micro.fn, exact.known) == (0, 4, 5, 0)
    assert exact.ign_f1 == 0.0
    assert (majority.micro.tp, majority.micro.fp, majority.micro.fn, majority.known) == (2, 1, 3, 1)
    assert majority.ign_precision == pytest.approx(1 / 2)
    assert majority.ign_f1 == pytest.approx(2 * 0.5 * 0.4 / 0.9)


def test_half_of_the_mentions_is_no_majority() -> None:
    gold = annotated([[ANN, SHE], [BERN]], [(0, "place of birth", 1)])
    half = annotated([[ANN, LEE], [BERN]], [(0, "place of birth", 1)])
    more = annotated([[ANN, SHE, LEE], [BERN]], [(0, "place of birth", 1)])
    assert score(half, gold)["majority"].micro.tp == 0
    assert score(more, gold)["majority"].micro.tp == 1
    assert score(more, gold)["exact"].micro.tp == 0


def test_gold_clusters_that_overlap_are_told_apart() -> None:
    """{Ann, She} and {She, Lee} are parts of {Ann, She, Lee}: each is itself, whatever else has its mentions."""
    clusters = [[ANN, SHE], [ANN, SHE, LEE], [BERN], [SHE, LEE]]
    gold = annotated(clusters, [(0, "spouse", 2), (1, "residence", 2), (3, "author", 2)])
    for level in score(gold, gold).values():
        assert (level.micro.tp, level.micro.fp, level.micro.fn) == (3, 0, 0)
    swapped = annotated(clusters, [(1, "spouse", 2), (0, "residence", 2), (0, "author", 2)])
    for level in score(swapped, gold).values():
        assert (level.micro.tp, level.micro.fp, level.micro.fn) == (0, 3, 3)


def test_most_of_the_mentions_among_gold_clusters_that_overlap() -> None:
    """Of {She, Lee, There} the second has two, the first one; of {Ann, She, Bob} both have two: the first it is."""
    gold = annotated([[ANN, SHE], [ANN, SHE, LEE], [BERN]], [(0, "spouse", 2), (1, "residence", 2)])
    found = annotated([[SHE, LEE, THERE], [ANN, SHE, BOB], [BERN]], [(0, "residence", 2), (1, "spouse", 2)])
    levels = score(found, gold)
    assert (levels["majority"].micro.tp, levels["majority"].micro.fp) == (2, 0)
    assert levels["exact"].micro.tp == 0


def test_huge_clusters_take_no_squared_time() -> None:
    """2,000 names on both sides: that would be 4 million facts for each of 20 labels."""
    n = 2_000
    clusters = [[(index, index + 1) for index in side] for side in (range(n), range(n, 2 * n))]
    words = " ".join(f"w{index}" for index in range(2 * n))
    gold = annotated(clusters, [(0, f"label {label}", 1) for label in range(20)], words)
    facts = {Fact(f"w{head}", "label 0", f"w{n - 1 - head}") for head in range(n)} | {Fact("w3", "label 1", f"w{n}")}
    started = time.process_time()
    assert score(gold, gold)["exact"].known is None
    assert score(gold, gold, training_facts=())["exact"].known == 0
    assert score(gold, gold, training_facts=facts)["exact"].known == 1
    assert time.process_time() - started < 5


def test_facts_of_other_labels_are_told(caplog: pytest.LogCaptureFixture) -> None:
    doc = annotated(CLUSTERS, GOLD)
    for facts, told in ((FACTS, False), ((), False), ({Fact("Lee", "P20", "Rome")}, True)):
        caplog.clear()
        score(doc, training_facts=facts)
        assert ("no gold document relation has a label of the training facts, such as 'P20'" in caplog.text) is told


def test_perfect_and_empty_predictions() -> None:
    perfect = score(annotated(CLUSTERS, GOLD), training_facts=FACTS)["exact"]
    assert (perfect.micro.f1, perfect.ign_f1, perfect.known) == (1.0, 1.0, 3)
    every = set(facts_of(annotated(CLUSTERS, GOLD)))
    known = score(annotated(CLUSTERS, GOLD), training_facts=every)["exact"]
    assert (known.micro.f1, known.ign_precision, known.ign_f1) == (1.0, 0.0, 0.0)
    nothing = score(annotated([], []), training_facts=FACTS)["exact"]
    assert (nothing.micro.f1, nothing.ign_f1, nothing.micro.fn) == (0.0, 0.0, 5)
    assert score(annotated(CLUSTERS, GOLD))["exact"].ign_f1 is None


def test_the_number_and_order_of_clusters_do_not_matter() -> None:
    reordered = [CLUSTERS[3], [(3, 4)], CLUSTERS[2][::-1], CLUSTERS[1], CLUSTERS[0]]
    number = {0: 4, 1: 3, 2: 2, 3: 0}
    doc = annotated(reordered, [(number[head], label, number[tail]) for head, label, tail in GOLD])
    assert score(doc)["exact"].micro.f1 == 1.0


def test_tokens_may_differ_but_not_the_text() -> None:
    joined = TEXT.replace("Ann Lee", "AnnLee").replace("Bob Ray ,", "BobRay,")
    shifted = [[(0, 1), (6, 7), (19, 20)], [(4, 5), (8, 9)], [(10, 11), (21, 22)], [(13, 14)]]
    doc = annotated(shifted, GOLD, joined)
    levels = score(doc)
    assert levels["exact"].micro.tp == 2, "the comma belongs to Bob now"
    with pytest.raises(ValueError, match="are different texts"):
        score(annotated([], [], "Ann"))


def test_symmetric_labels_count_once() -> None:
    one = annotated(CLUSTERS, [(3, "spouse", 0)])
    level = score(one, symmetric=["spouse"], training_facts=FACTS)["exact"]
    assert (level.micro.tp, level.micro.fn, level.known) == (1, 3, 1)
    assert score(one)["exact"].micro.fn == 4
    for facts in (FACTS, {Fact("AnnLee", "spouse", "BobRay")}):
        gold = annotated(CLUSTERS, [(0, "spouse", 3)])
        level = score(one, gold, symmetric=["spouse"], training_facts=facts)["exact"]
        assert (level.micro.tp, level.known, level.ign_f1) == (1, 1, 0.0), "a fact in either order"


def test_facts_in_a_file(tmp_path: Path) -> None:
    doc = annotated(CLUSTERS, [(0, "place of birth", 1), (3, "spouse", 0)])
    path = tmp_path / "new" / "facts.jsonl"
    write_facts([*facts_of(doc), *facts_of(doc)], path)
    assert [json.loads(line) for line in path.read_text("utf8").splitlines()] == [
        {"head": "AnnLee", "label": "place of birth", "tail": "Bern"},
        {"head": "BobRay", "label": "spouse", "tail": "AnnLee"},
        {"head": "BobRay", "label": "spouse", "tail": "Lee"},
        {"head": "BobRay", "label": "spouse", "tail": "She"},
        {"head": "Lee", "label": "place of birth", "tail": "Bern"},
        {"head": "She", "label": "place of birth", "tail": "Bern"},
    ]
    assert read_facts(path) == set(facts_of(doc))
    path.write_text('{"head": "Ann  Lee", "label": "a b", "tail": "x"}\n', "utf8")
    assert read_facts(path) == {Fact("AnnLee", "a b", "x")}


@pytest.mark.parametrize(
    "line", ["[1", "[]", '"x"', '{"head": "a", "label": "b"}', '{"head": 1, "label": "b", "tail": "c"}']
)
def test_wrong_facts_are_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(f'{{"head": "a", "label": "b", "tail": "c"}}\n{line}\n', "utf8")
    with pytest.raises(ValueError, match=r"line 2 of training_facts .* expected a JSON object"):
        read_facts(path)
    path.write_bytes(b'{"head": "Z\xfcrich", "label": "b", "tail": "c"}\n')
    with pytest.raises(ValueError, match=rf"line 1 of training_facts {path} is .* expected a JSON object"):
        read_facts(path)
    with pytest.raises(FileNotFoundError, match=r"training_facts .* is no file; expected"):
        read_facts(tmp_path / "none")


def test_the_scorer_of_the_component(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    write_facts(FACTS, path)
    nlp = spacy.blank("en")
    scorer = {"@scorers": "spacy_ie_moe.document_relation_scorer.v1", "training_facts": str(path)}
    pipe: Any = nlp.add_pipe("document_relations", config={"scorer": scorer})
    doc = annotated(CLUSTERS, [(0, "place of death", 2), (3, "spouse", 0), (0, "residence", 2)])
    example = Example(doc, annotated(CLUSTERS, GOLD))
    scores = pipe.score([example])
    assert scores["doc_rel_p"] == pytest.approx(2 / 3) and scores["doc_rel_r"] == 0.4
    assert scores["doc_rel_f"] == scores["doc_rel_majority_f"] == pytest.approx(0.5)
    assert scores["doc_rel_ign_f"] == 0.0, "all that is right is known"
    assert scores["doc_rel_per_type"]["residence"] == {"p": 0.0, "r": 0.0, "f": 0.0}
    assert make_document_relation_scorer()([example])["doc_rel_ign_f"] is None
    assert set(pipe.score([Example(doc, make_doc(VOCAB, TEXT))]).values()) == {None}
    pipe.symmetric = ["spouse"]
    assert pipe.score([example])["doc_rel_r"] == 0.5
    nlp.to_disk(tmp_path / "model")
    path.unlink()
    loaded: Any = spacy.load(tmp_path / "model")  # the facts are read when something is scored
    with pytest.raises(FileNotFoundError, match=rf"training_facts {path} is no file; expected what convert"):
        loaded.evaluate([example])
