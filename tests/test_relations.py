"""``Doc._.relations`` and what reads it."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
import spacy
from spacy.tokens import Doc, DocBin, Span

from spacy_ie_moe.relations import (
    check_relation,
    from_pair_scores,
    make_relation,
    sort_relations,
    to_pair_scores,
)

from .conftest import make_doc


@pytest.fixture
def doc() -> Doc:
    nlp = spacy.blank("en")
    return make_doc(nlp, "Alice founded Acme Corp in Paris", [(0, 1, "PER"), (2, 4, "ORG"), (5, 6, "LOC")])


def test_a_relation_is_plain_values(doc: Doc) -> None:
    relation = make_relation(doc.ents[0], doc.ents[1], "founder", 1)
    assert relation == {
        "head_pos": [0, 1],
        "tail_pos": [2, 4],
        "head_text": ["Alice"],
        "tail_text": ["Acme", "Corp"],
        "label": "founder",
        "score": 1.0,
        "head_label": "PER",
        "tail_label": "ORG",
    }
    assert type(relation["score"]) is float


def test_relations_are_sorted_by_score_then_head_tail_and_label(doc: Doc) -> None:
    a, b, c = doc.ents
    expected = [
        make_relation(c, a, "z", 0.9),
        make_relation(a, b, "a", 0.5),
        make_relation(a, b, "b", 0.5),
        make_relation(a, c, "a", 0.5),
        make_relation(b, a, "a", 0.5),
        make_relation(a, b, "c", 0.1),
    ]
    assert sort_relations(reversed(expected)) == expected


def test_documents_start_without_relations_and_do_not_share_them(doc: Doc) -> None:
    other = make_doc(doc.vocab, "nothing")
    doc._.relations.append(make_relation(doc.ents[0], doc.ents[1], "founder"))
    assert len(doc._.relations) == 1
    assert other._.relations == []
    assert other._.unscored_pairs == 0
    assert other._.relation_labels is None


def test_relation_spans_are_a_view(doc: Doc) -> None:
    doc._.relations = [make_relation(doc.ents[0], doc.ents[1], "founder", 0.25)]
    (view,) = doc._.relation_spans
    assert (view.head.text, view.tail.text, view.label, view.score) == ("Alice", "Acme Corp", "founder", 0.25)
    assert (view.head.label_, view.tail.label_) == ("PER", "ORG")


@pytest.mark.parametrize("way", ["bytes", "docbin", "pickle"])
def test_relations_survive_serialisation(doc: Doc, way: str) -> None:
    doc._.relations = [make_relation(doc.ents[0], doc.ents[1], "founder", 0.25)]
    if way == "bytes":
        again = Doc(doc.vocab).from_bytes(doc.to_bytes())
    elif way == "pickle":
        again = pickle.loads(pickle.dumps(doc))
    else:
        data = DocBin(docs=[doc], store_user_data=True).to_bytes()
        (again,) = DocBin(store_user_data=True).from_bytes(data).get_docs(doc.vocab)
    (relation,) = again._.relations
    check_relation(again, relation)
    assert list(relation["tail_pos"]) == [2, 4]
    assert list(relation["tail_text"]) == ["Acme", "Corp"]
    (view,) = again._.relation_spans
    assert view.tail.text == "Acme Corp"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"head_pos": [1, 1]}, "head_pos"),
        ({"head_pos": [-1, 1]}, "head_pos"),
        ({"tail_pos": [2, 7]}, "tail_pos"),
        ({"tail_pos": [2]}, "tail_pos"),
        ({"tail_pos": None}, "tail_pos"),
        ({"tail_pos": "ab"}, "tail_pos"),
        ({"tail_pos": [2.0, 3.0]}, "tail_pos"),
        ({"label": None}, "label"),
        ({"label": 3}, "label"),
    ],
)
def test_wrong_relations_are_named(doc: Doc, change: dict, named: str) -> None:
    relation = {**make_relation(doc.ents[0], doc.ents[1], "founder"), **change}
    with pytest.raises(ValueError, match=f"{named} of a relation is"):
        check_relation(doc, relation)


def test_pair_scores_there_and_back(doc: Doc) -> None:
    a, b, c = doc.ents
    doc._.relations = [make_relation(a, b, "founder", 0.75), make_relation(c, b, "located in", 0.5)]
    scores = to_pair_scores(doc)
    assert scores == {(0, 2): {"founder": 0.75}, (5, 2): {"located in": 0.5}}
    assert from_pair_scores(doc, scores) == doc._.relations
    assert from_pair_scores(doc, scores, threshold=0.6) == doc._.relations[:1]


def test_pair_scores_keep_the_best_of_spans_with_one_start(doc: Doc) -> None:
    tail = doc.ents[1]
    doc._.relations = [
        make_relation(Span(doc, 0, 1), tail, "founder", 0.25),
        make_relation(Span(doc, 0, 2), tail, "founder", 0.75),
    ]
    assert to_pair_scores(doc) == {(0, 2): {"founder": 0.75}}


def test_pair_scores_name_a_start_without_entity(doc: Doc) -> None:
    with pytest.raises(ValueError, match=r"pair \(0, 3\): no entity starts at token 3"):
        from_pair_scores(doc, {(0, 3): {"founder": 1.0}})


def test_extensions_of_another_package_are_left_alone() -> None:
    # peers.md 1.2, item 16: no force=True.
    code = (
        "from spacy.tokens import Doc\n"
        "Doc.set_extension('relations', default='theirs')\n"
        "import spacy\n"
        "nlp = spacy.blank('en')  # which imports every factory\n"
        "try:\n"
        "    nlp.add_pipe('glirel')\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print(Doc.get_extension('relations')[0])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "Doc._.relations is already registered by another package" in result.stdout
    assert result.stdout.splitlines()[-1] == "theirs"
