"""The scores of string triples on cases counted by hand, and what they must not depend on."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_ie_moe.corpora.reader import make_example
from spacy_ie_moe.corpora.string_triples import read
from spacy_ie_moe.relations import make_relation
from spacy_ie_moe.scoring import Triple
from spacy_ie_moe.string_triples import (
    COMPARISONS,
    NUMBERS,
    make_string_triple_scorer,
    overlap_classes,
    score_triples,
)
from spacy_ie_moe.triplet_scoring import make_triplet_scorer

from .test_corpora import data_set
from .test_evaluate import run, run_json, save_data, save_model

NLP = spacy.blank("en")
TEXT = "new york city is in new york , home of ann and bob ."

Place = tuple[int, int]
Fact = tuple[Place, str, Place]
Counted = tuple[int, int, int]

CITY, YORK, STATE, ANN, BOB = (0, 3), (0, 2), (5, 7), (10, 11), (12, 13)


def make(relations: list[Fact] = [], strings: Any = None, text: str = TEXT) -> Doc:  # noqa: B006
    """A document with relations of two places, and gold strings where they are given."""
    doc = Doc(NLP.vocab, words=text.split())
    doc._.relations = [make_relation(doc[slice(*head)], doc[slice(*tail)], label) for head, label, tail in relations]
    if strings is not None:
        doc.user_data["string_triples"] = strings
    return doc


def score(*pairs: tuple[Doc, Doc], **options: Any) -> Any:
    """The scores of (prediction, gold) pairs."""
    return score_triples([Example(predicted, gold) for predicted, gold in pairs], **options)


def counted(scores: Any, group: str = "all") -> dict[str, Counted]:
    micros = {comparison: scores[group][comparison].micro for comparison in COMPARISONS}
    return {comparison: (micro.tp, micro.fp, micro.fn) for comparison, micro in micros.items()}


def each(string: Counted, offset: Counted, last_word: Counted) -> dict[str, Counted]:
    return {"string": string, "offset": offset, "last_word": last_word}


# --- the three ways of comparing


def test_all_right() -> None:
    gold = [(CITY, "in", STATE), (ANN, "lives in", CITY)]
    assert counted(score((make(gold), make(gold)))) == each(*[(2, 0, 0)] * 3)


def test_another_occurrence_is_the_same_string_at_another_place() -> None:
    found, gold = make([(ANN, "lives in", YORK)]), make([(ANN, "lives in", STATE)])
    assert counted(score((found, gold))) == each((1, 0, 0), (0, 1, 1), (1, 0, 0))


def test_only_the_last_word_is_right() -> None:
    found, gold = make([(ANN, "lives in", (6, 7))]), make([(ANN, "lives in", STATE)])
    assert counted(score((found, gold))) == each((0, 1, 1), (0, 1, 1), (1, 0, 0))


def test_label_and_direction_count() -> None:
    gold = make([(ANN, "knows", BOB)])
    found = make([(BOB, "knows", ANN), (ANN, "likes", BOB)])
    assert counted(score((found, gold))) == each(*[(0, 2, 1)] * 3)


def test_what_is_the_same_in_a_comparison_counts_once() -> None:
    found = make([(ANN, "lives in", place) for place in (YORK, STATE, STATE, (6, 7))])
    gold = make([(ANN, "lives in", STATE), (ANN, "lives in", YORK)])
    assert counted(score((found, gold))) == each((1, 1, 0), (2, 1, 0), (1, 0, 0))


def test_gold_strings_that_have_no_place_are_misses() -> None:
    strings = [["ann", "lives in", "new york"], ["ann", "lives in", "Zürich"]]
    found = make([(ANN, "lives in", STATE)])
    gold = make([(ANN, "lives in", STATE), (ANN, "lives in", YORK)], strings)
    assert counted(score((found, gold))) == each((1, 0, 1), (1, 0, 1), (1, 0, 1))


def test_sets_are_those_of_a_document() -> None:
    one, other = make([(ANN, "knows", BOB)]), make([])
    assert counted(score((one, other), (other, one)))["string"] == (0, 1, 1)


def test_other_tokens_of_the_same_text_have_the_same_offsets_only() -> None:
    words = TEXT.split()
    finer = Doc(NLP.vocab, words=[*words[:10], "an", "n", *words[11:]], spaces=[True] * 10 + [False] + [True] * 4)
    finer._.relations = [make_relation(finer[10:12], finer[13:14], "knows")]
    assert counted(score((finer, make([(ANN, "knows", BOB)])))) == each((0, 1, 1), (1, 0, 0), (0, 1, 1))
    with pytest.raises(ValueError, match="different texts"):
        score((make(text="another"), make()))


def test_malformed_gold_and_relations_are_named() -> None:
    for strings in ([["ann", "knows"]], ["ann"], [["ann", 3, "bob"]]):
        with pytest.raises(ValueError, match=r"user_data\['string_triples'\] has .*; expected three strings"):
            score((make(), make(strings=strings)))
    found = make([(ANN, "knows", BOB)])
    found._.relations[0]["tail_pos"] = [12, 99]
    with pytest.raises(ValueError, match="tail_pos of a relation is"):
        score((found, make()))


# --- groups of documents


@pytest.mark.parametrize(
    ("pairs", "classes"),
    [
        (["ab"], ["Normal"]),
        (["aa"], ["SEO"]),
        (["ab", "cd"], ["Normal"]),
        (["ab", "ab"], ["EPO"]),
        (["ab", "ba"], ["SEO"]),
        (["aa", "aa"], ["EPO", "SEO"]),
        (["ab", "ac"], ["SEO"]),
        (["ab", "ca"], ["SEO"]),
        (["aa", "ab"], ["SEO"]),
        (["ab", "ba", "cd"], ["SEO"]),
        (["ab", "ab", "cd"], ["EPO"]),
        (["ab", "ab", "bc"], ["EPO", "SEO"]),
        (["ab", "ac", "de", "de"], ["EPO", "SEO"]),
    ],
)
def test_overlap_classes(pairs: list[str], classes: list[str]) -> None:
    triples = {Triple(head, tail, f"r{index}") for index, (head, tail) in enumerate(pairs)}
    assert overlap_classes(triples) == classes


WORDS = "a b c d e f"
AB, BA, BC, CD, EF = (((i, i + 1), "r", (j, j + 1)) for i, j in [(0, 1), (1, 0), (1, 2), (2, 3), (4, 5)])
AS = ((0, 1), "s", (1, 2))  # the same arguments as AB
CORPUS: list[tuple[list[Fact], list[Fact]]] = [
    # prediction, gold
    ([AB], [AB]),  # Normal, 1
    ([AB, CD], [CD]),  # Normal, 1
    ([AB], [AB, EF]),  # Normal, 2
    ([AB], [AB, AS]),  # EPO, 2
    ([BC, AS], [AB, BC]),  # SEO, 2
    ([AB, AS, BC, EF], [AB, AS, BC]),  # EPO and SEO, 3
    ([CD], [AB, AS, BC, CD]),  # EPO and SEO, 4
    ([], [AB, AS, BC, CD, EF]),  # EPO and SEO, 5
    ([AB, AS], []),  # in no group
]
BY_HAND = {
    "all": (9, 3, 11),
    "Normal": (3, 1, 1),
    "EPO": (5, 1, 9),
    "SEO": (5, 2, 9),
    "1": (2, 1, 0),
    "2": (3, 1, 3),
    "3": (3, 1, 0),
    "4": (1, 0, 3),
    "5+": (0, 0, 5),
}
DOCUMENTS = {"all": 9, "Normal": 3, "EPO": 4, "SEO": 4, "1": 2, "2": 3, "3": 1, "4": 1, "5+": 1}
EMPTY = 2
"""What is found in the document that has no gold triple."""


def corpus() -> list[tuple[Doc, Doc]]:
    return [(make(found, text=WORDS), make(gold, text=WORDS)) for found, gold in CORPUS]


def test_groups_by_hand() -> None:
    scores = score(*corpus())
    tp, fp, fn = BY_HAND["all"]
    expected = BY_HAND | {"all": (tp, fp + EMPTY, fn)}
    for comparison in COMPARISONS:
        assert {group: counted(scores, group)[comparison] for group in scores.groups} == expected
    assert scores.documents == DOCUMENTS


def test_without_empty_documents() -> None:
    scores = score(*corpus(), include_empty=False)
    assert {group: counted(scores, group)["string"] for group in scores.groups} == BY_HAND
    assert scores.documents == DOCUMENTS | {"all": 8}


def test_groups_are_of_distinct_gold_strings() -> None:
    twice = [["a", "r", "b"], ["a", "r", "b"]]
    scores = score((make([AB, BC], text=WORDS), make([AB], twice, text=WORDS)))
    assert scores.documents == {"all": 1, "Normal": 1, "1": 1}
    placeless = [["a", "r", "b"], ["a", "s", "z"]]
    scores = score((make([], text=WORDS), make([AB], placeless, text=WORDS)))
    assert scores.documents == {"all": 1, "SEO": 1, "2": 1}


def test_json() -> None:
    value = json.loads(json.dumps(score(*corpus()).to_json()))
    assert list(value) == list(BY_HAND)
    assert value["EPO"]["documents"] == 4
    assert value["EPO"]["string"]["micro"]["tp"] == 5
    assert value["EPO"]["string"]["micro"]["recall"] == pytest.approx(5 / 14)
    assert set(value["5+"]) == {"documents", *COMPARISONS}


# --- random documents


@st.composite
def relation_lists(draw: Any) -> list[Fact]:
    """Relations of any two different places in six words, of which three are the same."""
    place = st.tuples(st.integers(0, 5), st.integers(1, 3)).map(lambda pair: (pair[0], min(6, pair[0] + pair[1])))
    fact = st.tuples(place, st.sampled_from(["r", "s"]), place).filter(lambda fact: fact[0] != fact[2])
    return draw(st.lists(fact, max_size=6))


REPEATED = "a b a c a d"


@given(st.lists(relation_lists(), min_size=1, max_size=4))
def test_gold_against_itself_is_right(corpus: list[list[Fact]]) -> None:
    docs = [make(relations, text=REPEATED) for relations in corpus]
    scores = score(*zip(docs, docs, strict=True))
    for comparison in COMPARISONS:
        micro = scores["all"][comparison].micro
        assert (micro.fp, micro.fn) == (0, 0) and micro.f1 == float(any(corpus))
    numbered = [scores[number]["string"].micro.support for number in NUMBERS]
    assert sum(numbered) == scores["all"]["string"].micro.support
    assert sum(scores.documents[number] for number in NUMBERS) == sum(map(bool, corpus))


@given(st.lists(st.tuples(relation_lists(), relation_lists()), min_size=1, max_size=3), st.randoms())
def test_order_and_duplicates_do_not_matter(corpus: list[tuple[list[Fact], list[Fact]]], rng: random.Random) -> None:
    def mixed(relations: list[Any]) -> list[Any]:
        more = relations + [rng.choice(relations) for _ in relations[:2]]
        return rng.sample(more, len(more))

    def strings_of(relations: list[Fact]) -> list[list[str]]:
        return [[words_at(head), label, words_at(tail)] for head, label, tail in relations]

    def words_at(place: Place) -> str:
        return " ".join(REPEATED.split()[slice(*place)])

    def docs(change: Any) -> list[tuple[Doc, Doc]]:
        return [
            (make(change(found), text=REPEATED), make(change(gold), change(strings_of(gold)), text=REPEATED))
            for found, gold in corpus
        ]

    plain = docs(list)
    expected = score(*plain).to_json()
    assert score(*docs(mixed)).to_json() == expected
    assert score(*rng.sample(plain, len(plain))).to_json() == expected


# --- spaCy


def test_the_registered_scorer() -> None:
    examples = [Example(*pair) for pair in corpus()]
    values = make_string_triple_scorer(include_empty=False)(examples, nothing=1)
    others = make_triplet_scorer()(examples)
    assert list(values) == [*others, *(f"rte_{comparison}_{ratio}" for comparison in COMPARISONS for ratio in "prf")]
    assert {name: values[name] for name in others} == others
    assert values["rte_string_p"] == values["rte_offset_p"] == pytest.approx(9 / 12)
    assert values["rte_last_word_r"] == pytest.approx(9 / 20)
    scorer = pickle.loads(pickle.dumps(make_string_triple_scorer()))
    assert scorer(examples)["rte_string_f"] == pytest.approx(2 * 9 / (2 * 9 + 5 + 11))
    nothing = scorer([Example(make([(ANN, "knows", BOB)]), make())])
    assert set(nothing) == set(values) and {nothing[name] for name in values.keys() - others} == {None}


def test_strings_survive_a_doc_bin_and_are_not_given_to_the_prediction() -> None:
    doc_bin = DocBin(docs=[make([AB], [["a", "r", "b"]], text=WORDS)], store_user_data=True)
    (doc,) = DocBin(store_user_data=True).from_bytes(doc_bin.to_bytes()).get_docs(NLP.vocab)
    assert counted(score((doc, doc)))["string"] == (1, 0, 0)
    assert "string_triples" not in make_example(doc, gold_ents=True).predicted.user_data


@pytest.mark.parametrize(
    ("name", "string", "classes"),
    [
        ("nyt/exact/test_triples.json", (8076, 0, 44), {"Normal": 3289, "EPO": 969, "SEO": 1273}),
        ("nyt/partial/test_triples.json", (8110, 0, 0), {"Normal": 3266, "EPO": 978, "SEO": 1297}),
        ("webnlg/exact/val_triples.json", (1223, 0, 0), {"Normal": 157, "EPO": 4, "SEO": 343}),
        ("webnlg/partial/val_triples.json", (1084, 0, 29), {"Normal": 182, "EPO": 13, "SEO": 318}),
    ],
)
def test_published_files_against_themselves(name: str, string: Counted, classes: dict[str, int]) -> None:
    """The best that a system of spans can score, and how many sentences each class has."""
    corpus_name, _, rest = name.partition("/")
    docs = list(read(data_set(corpus_name) / rest, NLP.vocab))
    scores = score(*zip(docs, docs, strict=True))
    assert counted(scores)["string"] == string
    assert {group: scores.documents[group] for group in classes} == classes
    assert sum(scores.documents[number] for number in NUMBERS) == len(docs)


# --- the command; its pipeline relates each entity to the next one as "owns"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", labels=["owns"])


def entities_doc(text: str, strings: list[list[str]] | None, relations: list[Fact]) -> Doc:
    doc = make(relations, strings, text)
    names = [token for token in doc if token.text in ("Ann", "Bob", "Acme")]
    doc.ents = [Span(doc, token.i, token.i + 1, label="X") for token in names]
    return doc


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A triple that is found, one that has no place, and a document without any, in which two are found."""
    docs = [
        entities_doc("Ann owns Acme", [["Ann", "owns", "Acme"], ["Ann", "owns", "Äcme"]], [((0, 1), "owns", (2, 3))]),
        entities_doc("Ann Bob Acme", [], []),
    ]
    return save_data(tmp_path / "gold.spacy", docs)


def test_evaluate(model: Path, data: Path, tmp_path: Path) -> None:
    scores = run_json(tmp_path / "scores.json", model, data)
    assert scores["settings"]["skip_empty"] is False
    overall = scores["string_triples"]["all"]
    assert overall["documents"] == 2
    assert [overall["string"]["micro"][name] for name in ("tp", "fp", "fn")] == [1, 2, 1]
    assert [overall["offset"]["micro"][name] for name in ("tp", "fp", "fn")] == [1, 2, 0]
    scores = run_json(tmp_path / "scores.json", model, data, "--skip-empty")
    assert scores["settings"]["skip_empty"] is True
    assert scores["string_triples"]["all"]["string"]["micro"]["fp"] == 0
    assert scores["micro"]["fp"] == 2, "other scores are as they were"


def test_evaluate_prints_tables(model: Path, data: Path) -> None:
    lines = [line.split() for line in run(model, data).stdout.splitlines()]
    rows = lines[lines.index(["triples", "P", "R", "F1", "tp", "fp", "fn", "docs"]) + 1 :]
    assert rows == [
        ["string", "33.33", "50.00", "40.00", "1", "2", "1", "2"],
        ["offset", "33.33", "100.00", "50.00", "1", "2", "0", "2"],
        ["last", "word", "33.33", "50.00", "40.00", "1", "2", "1", "2"],
        ["string,", "by", "overlap"],
        ["SEO", "100.00", "50.00", "66.67", "1", "0", "1", "1"],
        ["string,", "by", "number", "of", "triples"],
        ["2", "100.00", "50.00", "66.67", "1", "0", "1", "1"],
    ]


def test_evaluate_without_string_triples(model: Path, tmp_path: Path) -> None:
    data = save_data(tmp_path / "gold.spacy", [entities_doc("Ann owns Acme", None, [((0, 1), "owns", (2, 3))])])
    scores = run_json(tmp_path / "scores.json", model, data)
    assert "string_triples" not in scores and "skip_empty" not in scores["settings"]
    result = run(model, data, "--skip-empty")
    assert result.exit_code == 1 and not result.stdout
    assert result.stderr.splitlines()[-1].startswith("Error: --skip-empty is given, but the data have no user_data")
