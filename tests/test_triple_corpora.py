"""Triples of strings (NYT, WebNLG) with and without places, and DyGIE's layout as ACE uses it."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from typer.testing import CliRunner

from spacy_ie_moe.cli import app
from spacy_ie_moe.corpora import dygie, jointer, string_triples
from spacy_ie_moe.corpora.conversion import ConversionReport, LabelChoice, Part

from .test_corpora import CHOICES, JUNK, LABEL, OFFSET, WORDS, check_docs, data_set, facts_of, lists, mostly, records
from .test_corpora import convert as convert_json

VOCAB = Vocab()
ALIGNED, SELF, DUPLICATE = "argument is not among the words", "self relation", "duplicate relation"

BORN = "Ann Lee was born in Bern , where Ann Lee and Bob live ."
BORN_TRIPLES = [["Ann Lee", "born in", "Bern"], ["Bob", "lives in", "Bern"]]
PLACES = [[0, 2, 5, 6], [8, 10, 5, 6]]
"""Where BORN has the first triple: both occurrences of Ann Lee with the one of Bern."""


def sentence(text: str = BORN, triples: Any = BORN_TRIPLES) -> dict[str, Any]:
    return {"text": text, "triple_list": triples}


def mention_sentence(text: str = BORN, triples: Any = BORN_TRIPLES) -> dict[str, Any]:
    """The same in SPN4RE's shape."""
    mentions = [{"em1Text": head, "em2Text": tail, "label": label} for head, label, tail in triples]
    return {"sentText": text, "relationMentions": mentions}


def convert(instances: list[Any], **options: Any) -> tuple[list[Doc], ConversionReport]:
    return convert_json(string_triples, instances, **options)


def convert_lines(lines: list[bytes], **options: Any) -> tuple[list[Doc], ConversionReport]:
    report = ConversionReport()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        path.write_bytes(b"\n".join(lines) + b"\n")
        return list(string_triples.read(path, VOCAB, report=report, **options)), report


def places_of(doc: Doc, label: str) -> list[list[int]]:
    return sorted([*r["head_pos"], *r["tail_pos"]] for r in doc._.relations if r["label"] == label)


# --- string triples


def test_all_occurrences_are_related() -> None:
    (doc,), report = convert([sentence()])
    assert [token.text for token in doc] == BORN.split()
    assert places_of(doc, "born in") == PLACES
    assert places_of(doc, "lives in") == [[11, 12, 5, 6]]
    assert [(ent.text, ent.label_) for ent in doc.ents] == [
        ("Ann Lee", "ENTITY"),
        ("Bern", "ENTITY"),
        ("Ann Lee", "ENTITY"),
        ("Bob", "ENTITY"),
    ]
    assert doc.user_data["string_triples"] == BORN_TRIPLES
    assert (doc.user_data["source"], doc.user_data["ignored_pairs"]) == ("0", [])
    assert (report.docs, report.relations.converted, report.relations.left_out) == (1, 2, {})
    assert dict(report.labels) == {"born in": 2, "lives in": 1}
    check_docs([doc])


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("make", [sentence, mention_sentence])
def test_both_shapes_in_both_files(make: Any, lines: bool) -> None:
    data = [make(), make("Bob left", [["Bob", "left", "Bob"]])]
    docs, report = convert_lines([json.dumps(one).encode() for one in data]) if lines else convert(data)
    assert [doc.user_data["string_triples"] for doc in docs] == [BORN_TRIPLES, [["Bob", "left", "Bob"]]]
    assert places_of(docs[0], "born in") == PLACES
    assert report.relations.left_out == {SELF: 1}


def test_what_cannot_be_aligned_is_counted_and_stays_in_the_strings() -> None:
    triples = [
        ["Asunción", "capital of", "Paraguay"],
        ["Asunción", "capital of", "Paraguay"],
        ["paraguay", "contains", "Asuncion"],
        ["guay", "contains", "Asuncion"],
    ]
    (doc,), report = convert([sentence("in Asuncion , Paraguay", triples)])
    assert report.relations.left_out == {ALIGNED: 3, DUPLICATE: 1}
    assert doc._.relations == []
    assert doc.user_data["string_triples"] == [triples[0], *triples[2:]]
    assert [span.text for span in doc.spans["entities"]] == ["Asuncion", "Paraguay"], "the argument that is there"


def test_white_space_inside_an_argument_does_not_matter() -> None:
    text = " Ann  Lee\tmet New York\n"
    (doc,), report = convert([sentence(text, [["Ann\u00a0Lee ", "met", "New  York"], ["Ann Lee", "met", "New York"]])])
    assert places_of(doc, "met") == [[0, 2, 3, 5]]
    assert doc.user_data["string_triples"] == [["Ann Lee", "met", "New York"]]
    assert report.relations.left_out == {DUPLICATE: 1}


def test_one_string_as_head_and_tail() -> None:
    (doc,), report = convert([sentence("a b a", [["a", "x", "a"], ["b", "x", "b"], ["b", "x", "b"]])])
    assert places_of(doc, "x") == [[0, 1, 2, 3], [2, 3, 0, 1]]
    assert report.relations.left_out == {SELF: 1, DUPLICATE: 1}
    assert doc.user_data["string_triples"] == [["a", "x", "a"], ["b", "x", "b"]]


def test_overlapping_occurrences_and_arguments() -> None:
    (doc,), _ = convert([sentence("b b b c", [["b b", "x", "b b b"]])])
    assert places_of(doc, "x") == [[0, 2, 0, 3], [1, 3, 0, 3]]


def test_chosen_labels() -> None:
    labels = LabelChoice(names={"born in": "place of birth", "lives in": "residence"}, exclude=["residence"])
    (doc,), report = convert([sentence()], labels=labels)
    assert doc.user_data["string_triples"] == [["Ann Lee", "place of birth", "Bern"]]
    assert facts_of(doc) == {("Ann Lee", "place of birth", "Bern")}
    assert doc.user_data["ignored_pairs"] == [[11, 12, 5, 6]]
    assert report.relations.left_out == {"excluded label": 1}


def test_two_ids_of_one_label_are_one_triple() -> None:
    names = {"born in": "place", "birthPlace": "place"}
    triples = [["Ann Lee", relation_id, "Bern"] for relation_id in names]
    (doc,), report = convert([sentence(triples=triples)], labels=LabelChoice(names=names))
    assert doc.user_data["string_triples"] == [["Ann Lee", "place", "Bern"]]
    assert report.relations.left_out == {DUPLICATE: 1}


@pytest.mark.parametrize(
    ("triple", "reason"),
    [
        (["Bob", "x"], "malformed relation"),
        (["Bob", "x", "Bern", 1], "malformed relation"),
        ([["Bob"], "x", "Bern"], "malformed relation"),
        (["Bob", "x", " "], "malformed relation"),
        (["", "x", "Bern"], "malformed relation"),
        (["Bob", "x", "\ud800"], "malformed relation"),
        ({"em1Text": "Bob", "label": "x"}, "malformed relation"),
        ("Bob", "malformed relation"),
        (None, "malformed relation"),
        (["Bob", None, "Bern"], "unknown relation id"),
        (["Bob", "\ud800", "Bern"], "unknown relation id"),
    ],
)
def test_a_malformed_triple_loses_no_other(triple: Any, reason: str) -> None:
    (doc,), report = convert([sentence(triples=[triple, *BORN_TRIPLES])])
    assert report.relations.left_out == {reason: 1}
    assert doc.user_data["string_triples"] == BORN_TRIPLES


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        (sentence(" \n"), "no tokens"),
        (sentence("a \ud800"), "malformed instance"),
        (sentence(triples={}), "malformed instance"),
        ({"text": None, "triple_list": []}, "malformed instance"),
        ({"sentText": "a", "triple_list": []}, "malformed instance"),
        ([], "malformed instance"),
        (None, "malformed instance"),
    ],
)
def test_a_malformed_instance_loses_no_other(instance: Any, reason: str) -> None:
    docs, report = convert([instance, sentence()])
    assert [doc.user_data["source"] for doc in docs] == ["1"]
    assert report.instances.left_out == {reason: 1}


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"3", b'"text"', b"null", b"{" * 100_000])
def test_a_bad_line_loses_no_other(line: bytes) -> None:
    good = json.dumps(mention_sentence()).encode()
    docs, report = convert_lines([b"", good, line, b" ", good])
    assert [doc.user_data["source"] for doc in docs] == ["0", "2"]
    assert report.instances.left_out == {"malformed instance": 1}


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path) -> None:
    for text in (json.dumps([sentence()], indent=1), json.dumps(sentence()) + "\n"):
        path = tmp_path / "marked.json"
        path.write_text(text, "utf-8-sig")
        report = ConversionReport()
        assert len([*string_triples.read(path, Vocab(), report=report)]) == 1 and not report.instances.left_out


def test_parts_keep_a_text_together_in_both_shapes() -> None:
    data = [make(f"w{index % 10} is") for index in range(40) for make in (sentence, mention_sentence)]
    parts = [convert(data, part=Part.parse(part), seed=2) for part in ("0:0.8", "0.8:1")]
    texts = [{doc.text for doc in docs} for docs, _ in parts]
    assert [len(found) for found in texts] == [8, 2] and not texts[0] & texts[1]
    assert sum(report.docs for _, report in parts) == 80
    docs, report = convert(data, limit=3, seed=1)
    assert (len(docs), report.instances.left_out) == (3, {"beyond the limit": 77})


def test_the_file_is_checked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no file; expected a list or JSON lines of sentences"):
        list(string_triples.read(tmp_path / "absent.json", VOCAB))
    path = tmp_path / "data.json"
    path.write_text("[1,\n")
    with pytest.raises(ValueError, match="is not valid JSON"):
        list(string_triples.read(path, VOCAB))
    path.write_text("\n")
    assert list(string_triples.read(path, VOCAB)) == []


TEXTS = st.lists(st.sampled_from(["a", "b", "c", "é", "👩‍🔬", "don't", "."]), min_size=1, max_size=9)


@st.composite
def texts_with_triples(draw: Any) -> tuple[list[str], list[list[str]]]:
    """Words, and triples of any sequences of them."""
    words = draw(TEXTS)
    bounds = st.tuples(st.integers(0, len(words) - 1), st.integers(0, len(words) - 1)).map(sorted)
    argument = bounds.map(lambda pair: " ".join(words[pair[0] : pair[1] + 1]))
    triple = st.tuples(argument, st.sampled_from(["R", "S t"]), argument).map(list)
    return words, draw(st.lists(triple, max_size=5))


@given(texts_with_triples())
def test_triples_of_words_of_the_text_align(drawn: tuple[list[str], list[list[str]]]) -> None:
    words, triples = drawn
    (doc,), report = convert([sentence(" ".join(words), triples)])
    distinct = list(dict.fromkeys(map(tuple, triples)))
    assert doc.user_data["string_triples"] == [list(triple) for triple in distinct]
    assert set(report.relations.left_out) <= {DUPLICATE, SELF}
    assert report.relations.read == len(triples)
    spans = [doc[start:end] for end in range(len(doc) + 1) for start in range(end)]
    text_of = {(span.start, span.end): " ".join(token.text for token in span) for span in spans}
    expected = {
        (*head, *tail, label)
        for wanted_head, label, wanted_tail in distinct
        for head, head_text in text_of.items()
        for tail, tail_text in text_of.items()
        if head != tail and (head_text, tail_text) == (wanted_head, wanted_tail)
    }
    assert {(*r["head_pos"], *r["tail_pos"], r["label"]) for r in doc._.relations} == expected
    assert facts_of(doc) <= set(distinct)
    check_docs([doc])


ARGUMENT = mostly(st.sampled_from(["a", "a b", "b", " ", "c"]))
TRIPLES = lists(mostly(st.tuples(ARGUMENT, LABEL, ARGUMENT).map(list)))
RANDOM = st.one_of(
    records(text=mostly(st.sampled_from(["a b a b", "c", ""])), triple_list=TRIPLES),
    records(sentText=ARGUMENT, relationMentions=lists(records(em1Text=ARGUMENT, em2Text=ARGUMENT, label=LABEL))),
    JUNK,
)


@given(st.lists(RANDOM, max_size=3), CHOICES)
def test_random_sentences(instances: list[Any], labels: LabelChoice) -> None:
    docs, report = convert(instances, labels=labels)
    assert report.instances.read == len(instances) and report.docs == len(docs)
    check_docs(docs)
    for doc in docs:
        instance = instances[int(doc.user_data["source"])]
        triples = instance["triple_list"] if "text" in instance else instance["relationMentions"]
        (one,), its_report = convert([instance], labels=labels)
        assert its_report.relations.read == len(triples)
        assert its_report.relations.converted <= len(one.user_data["string_triples"])


# --- JointER


def placed(**changes: Any) -> dict[str, Any]:
    value = {
        "tokens": BORN.split(),
        "spo_list": BORN_TRIPLES,
        "spo_details": [
            [8, 10, "None-label", "born in", 5, 6, "None-label"],
            [11, 12, "PERSON", "lives in", 5, 6, "None-label"],
        ],
        "pos_tags": [],
    }
    return value | changes


def test_jointer_relates_what_is_annotated() -> None:
    (doc,), report = convert_json(jointer, [placed()])
    assert places_of(doc, "born in") == [[8, 10, 5, 6]]
    assert [(span.text, span.label_) for span in doc.spans["entities"]] == [
        ("Bern", "ENTITY"),
        ("Ann Lee", "ENTITY"),
        ("Bob", "PERSON"),
    ]
    assert doc.user_data["string_triples"] == BORN_TRIPLES
    assert (report.relations.converted, report.relations.left_out) == (2, {})
    check_docs([doc])


def test_jointer_relates_all_occurrences() -> None:
    (doc,), report = convert_json(jointer, [placed()], occurrences="all")
    assert places_of(doc, "born in") == PLACES
    assert report.relations.converted == 2 and report.labels.total() == 3
    with pytest.raises(ValueError, match="occurrences is 'first'; expected 'annotated' or 'all'"):
        convert_json(jointer, [], occurrences="first")
    elsewhere = [5, 6, "None-label", "born in", 5, 6, "None-label"]
    (doc,), report = convert_json(
        jointer, [placed(spo_details=[elsewhere, placed()["spo_details"][1]])], occurrences="all"
    )
    assert places_of(doc, "born in") == PLACES and not report.relations.left_out, "wherever its places are"


def test_jointer_places_of_one_string_triple_add_up() -> None:
    details = [[start, start + 2, "None-label", "born in", 5, 6, "None-label"] for start in (0, 8, 8)]
    (doc,), report = convert_json(jointer, [placed(spo_list=[BORN_TRIPLES[0]] * 3, spo_details=details)])
    assert places_of(doc, "born in") == PLACES
    assert doc.user_data["string_triples"] == [BORN_TRIPLES[0]]
    assert (report.relations.converted, report.relations.left_out) == (2, {DUPLICATE: 1})


def test_jointer_excluded_label() -> None:
    (doc,), report = convert_json(jointer, [placed()], labels=LabelChoice(only=["lives in"]))
    assert doc.user_data["string_triples"] == [BORN_TRIPLES[1]]
    assert doc.user_data["ignored_pairs"] == [[8, 10, 5, 6]]
    assert report.relations.left_out == {"excluded label": 1}


@pytest.mark.parametrize(
    ("detail", "reason"),
    [
        ([8, 99, "None-label", "born in", 5, 6, "None-label"], "offsets outside the text"),
        ([8, 8, "None-label", "born in", 5, 6, "None-label"], "offsets outside the text"),
        (["8", 9, "None-label", "born in", 5, 6, "None-label"], "malformed mention"),
        ([8, 10, None, "born in", 5, 6, "None-label"], "malformed mention"),
        ([8, 10, "None-label", "lives in", 5, 6, "None-label"], "malformed relation"),
        ([8, 10, "None-label", "born in", 5, 6], "malformed relation"),
        (None, "malformed relation"),
        ([5, 6, "None-label", "born in", 5, 6, "None-label"], jointer.OTHER_WORDS),
    ],
)
def test_jointer_places_that_are_none_are_counted_and_the_strings_stay(detail: Any, reason: str) -> None:
    (doc,), report = convert_json(jointer, [placed(spo_details=[detail, placed()["spo_details"][1]])])
    assert report.relations.left_out == {reason: 1}
    assert facts_of(doc) == {("Bob", "lives in", "Bern")}
    assert doc.user_data["string_triples"] == BORN_TRIPLES


@pytest.mark.parametrize(
    ("changes", "tally", "reason"),
    [
        ({"spo_list": [["Ann Lee", "born in"], BORN_TRIPLES[1]]}, "relations", "malformed relation"),
        ({"spo_list": BORN_TRIPLES[:1]}, "instances", "malformed instance"),
        ({"spo_details": None}, "instances", "malformed instance"),
        ({"tokens": []}, "instances", "no tokens"),
    ],
)
def test_jointer_loss_is_counted(changes: dict[str, Any], tally: str, reason: str) -> None:
    docs, report = convert_json(jointer, [placed(**changes), placed()])
    assert getattr(report, tally).left_out == {reason: 1}
    assert len(docs[-1]._.relations) == 2


RANDOM_JOINTER = records(
    tokens=WORDS,
    spo_list=lists(mostly(st.tuples(ARGUMENT, LABEL, ARGUMENT).map(list))),
    spo_details=lists(mostly(st.tuples(OFFSET, OFFSET, LABEL, LABEL, OFFSET, OFFSET, LABEL).map(list))),
)


@given(st.lists(RANDOM_JOINTER, max_size=3), CHOICES, st.sampled_from(jointer.OCCURRENCES))
def test_random_jointer_sentences(instances: list[Any], labels: LabelChoice, occurrences: str) -> None:
    docs, report = convert_json(jointer, instances, labels=labels, occurrences=occurrences)
    assert report.instances.read == len(instances) and report.docs == len(docs)
    expected = [len(instances[int(doc.user_data["source"])]["spo_list"]) for doc in docs]
    assert report.relations.read == sum(expected)
    check_docs(docs)


# --- the published files: sentences, triples read, converted, left out, relations written, relation labels

NYT = {
    ("exact/val_triples.json", 5000, 8489, 7943, ((DUPLICATE, 504), (ALIGNED, 42)), 8865, 22),
    ("exact/test_triples.json", 5000, 8616, 8076, ((DUPLICATE, 496), (ALIGNED, 44)), 8971, 22),
    ("partial/val_triples.json", 4999, 7976, 7976, (), 9180, 22),
    ("partial/test_triples.json", 5000, 8110, 8110, (), 9338, 22),
    ("spn4re_exact/valid.json", 5000, 7985, 7943, ((ALIGNED, 42),), 8865, 22),
    ("spn4re_exact/test.json", 5000, 8120, 8076, ((ALIGNED, 44),), 8971, 22),
}
WEBNLG = {
    ("exact/train_triples.json", 5019, 11313, 11298, ((DUPLICATE, 1), (SELF, 14)), 13676, 211),
    ("exact/val_triples.json", 500, 1224, 1223, ((DUPLICATE, 1),), 1543, 144),
    ("partial/train_triples.json", 5019, 11776, 11353, ((DUPLICATE, 89), (SELF, 334)), 15701, 170),
    ("partial/val_triples.json", 500, 1118, 1084, ((DUPLICATE, 5), (SELF, 29)), 1447, 109),
}


@pytest.mark.parametrize(
    ("corpus", "row"),
    [(corpus, row) for corpus, rows in (("nyt", NYT), ("webnlg", WEBNLG)) for row in sorted(rows)],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_published_string_triples(corpus: str, row: tuple[Any, ...]) -> None:
    name, sentences, read, converted, left_out, written, labels = row
    report = ConversionReport()
    docs = list(string_triples.read(data_set(corpus) / name, VOCAB, report=report))
    assert (report.docs, report.instances.left_out) == (sentences, {})
    assert (report.relations.read, report.relations.converted) == (read, converted)
    assert report.relations.left_out == dict(left_out)
    assert (report.labels.total(), len(report.labels)) == (written, labels)
    strings = sum(len(doc.user_data["string_triples"]) for doc in docs)
    assert strings == read - dict(left_out).get(DUPLICATE, 0)
    check_docs(docs[::500])


@pytest.mark.parametrize(
    ("name", "other", "converted", "selfs", "everywhere"),
    [("train", "train", 11271, 41, 13676), ("dev", "val", 1219, 4, 1543)],
)
def test_published_jointer(name: str, other: str, converted: int, selfs: int, everywhere: int) -> None:
    folder = data_set("webnlg")
    report, all_report = ConversionReport(), ConversionReport()
    path = folder / "jointer_spans" / f"{name}.json"
    docs = list(jointer.read(path, VOCAB, report=report))
    assert (report.relations.converted, report.labels.total()) == (converted, converted)
    assert report.relations.left_out == {SELF: selfs, DUPLICATE: 1}
    assert all(facts_of(doc) <= set(map(tuple, doc.user_data["string_triples"])) for doc in docs)
    docs = list(jointer.read(path, VOCAB, report=all_report, occurrences="all"))
    assert all_report.labels.total() == everywhere
    same = string_triples.read(folder / "exact" / f"{other}_triples.json", VOCAB)
    for doc, twin in zip(docs, same, strict=True):
        assert doc._.relations == twin._.relations
        assert doc.user_data["string_triples"] == twin.user_data["string_triples"]


# --- ACE in DyGIE's layout (the corpora are licensed: these sentences are made up)


def ace_document(key: str = "CNN_20030303.1900.00") -> dict[str, Any]:
    """Sentence starts, empty clusters, nested entities, several in one sentence, and events of triggers and roles."""
    return {
        "doc_key": key,
        "dataset": "ace-event",
        "sentences": [
            ["The", "mayor", "of", "Rome", "met", "her", "brother", "."],
            ["Troops", "left", "."],
            ["Acme", "fired", "him", "in", "Rome", "."],
        ],
        "ner": [
            [[0, 3, "PER"], [3, 3, "GPE"], [5, 5, "PER"], [5, 6, "PER"]],
            [[8, 8, "PER"]],
            [[11, 11, "ORG"], [13, 13, "PER"], [15, 15, "GPE"]],
        ],
        "relations": [[[0, 3, 3, 3, "ORG-AFF"], [5, 5, 5, 6, "PER-SOC"]], [], [[13, 13, 11, 11, "ORG-AFF"]]],
        "events": [
            [[[4, "Contact.Meet"], [0, 3, "Entity"], [5, 6, "Entity"]]],
            [],
            [[[12, "Personnel.End-Position"], [13, 13, "Person"]]],
        ],
        "_sentence_start": [0, 8, 11],
        "clusters": [],
    }


def convert_ace(documents: list[dict[str, Any]], **options: Any) -> tuple[list[Doc], ConversionReport]:
    report = ConversionReport()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ace.json"
        path.write_text("\n".join(map(json.dumps, documents)))
        return list(dygie.read(path, VOCAB, report=report, **options)), report


ACE_FACTS = [
    {("The mayor of Rome", "ORG-AFF", "Rome"), ("her", "PER-SOC", "her brother")},
    set(),
    {("him", "ORG-AFF", "Acme")},
]


def test_ace_sentences() -> None:
    docs, report = convert_ace([ace_document()], unit="sentence")
    assert [facts_of(doc) for doc in docs] == ACE_FACTS
    assert [(span.start, span.end, span.label_) for span in docs[0].spans["entities"]] == [
        (0, 4, "PER"),
        (3, 4, "GPE"),
        (5, 6, "PER"),
        (5, 7, "PER"),
    ]
    assert [ent.text for ent in docs[0].ents] == ["The mayor of Rome", "her brother"]
    assert (report.docs, report.entities, report.relations.converted) == (3, 8, 3)
    assert not report.mentions.left_out and not report.relations.left_out
    assert report.notes == {"events not converted": 2}
    check_docs(docs)


def test_ace_documents() -> None:
    without = {name: value for name, value in ace_document().items() if name not in ("events", "clusters", "dataset")}
    noted = {"events not converted": 2}
    for document, notes in ((ace_document(), noted), (without, {}), (without | {"events": 3}, {})):
        (doc,), report = convert_ace([document])
        assert [sent.start for sent in doc.sents] == ace_document()["_sentence_start"]
        assert facts_of(doc) == set().union(*ACE_FACTS)
        assert report.notes == notes


def test_five_folds_share_no_document() -> None:
    """ACE04 is scored by 5-fold cross-validation: a slice of fifths is a test set, the rest its training set."""
    documents = [ace_document(f"D{index}") for index in range(23)]

    def sources(part: str) -> set[str]:
        docs, _ = convert_ace(documents, part=Part.parse(part), seed=4, unit="sentence")
        return {doc.user_data["source"].partition("/")[0] for doc in docs}

    edges = ("0", "0.2", "0.4", "0.6", "0.8", "1")
    tests = [sources(f"{start}:{end}") for start, end in pairwise(edges)]
    everything = {document["doc_key"] for document in documents}
    assert sorted(map(len, tests)) == [4, 4, 5, 5, 5]
    assert set().union(*tests) == everything and sum(map(len, tests)) == len(everything)
    for fold, found in enumerate(tests):
        rest = [f"0:{edges[fold]}"] * (fold > 0) + [f"{edges[fold + 1]}:1"] * (fold < 4)
        assert set().union(*map(sources, rest)) == everything - found


# --- the command


@pytest.mark.parametrize(
    ("name", "instance", "options", "relations"),
    [
        ("string-triples", sentence(), [], 3),
        ("jointer", placed(), [], 2),
        ("jointer", placed(), ["--occurrences", "all"], 3),
    ],
)
def test_command(tmp_path: Path, name: str, instance: Any, options: list[str], relations: int) -> None:
    source, target = tmp_path / "data.json", tmp_path / "data.spacy"
    source.write_text(json.dumps([instance]))
    arguments = ["convert", name, str(source), str(target), *options]
    task: list[str]
    for task, frames in (([], 0), (["--task", "RE"], relations)):
        result = CliRunner().invoke(app, [*arguments, *task])
        assert result.exit_code == 0, result.output
        (doc,) = DocBin(store_user_data=True).from_disk(target).get_docs(Vocab())
        assert len(doc._.relations) == relations and len(doc._.frames) == frames
        assert [list(triple) for triple in doc.user_data["string_triples"]] == BORN_TRIPLES
        assert "annotated relations read 2" in " ".join(result.stdout.split())
    result = CliRunner().invoke(app, [*arguments, "--task", "NER"])
    assert "--task is 'NER'" in result.stderr


def test_occurrences_are_for_jointer_only(tmp_path: Path) -> None:
    arguments = ["convert", "string-triples", str(tmp_path / "a.json"), str(tmp_path / "a.spacy")]
    result = CliRunner().invoke(app, [*arguments, "--occurrences", "all"])
    assert result.stderr == "Error: --occurrences is given for FORMAT 'string-triples'; expected only for jointer.\n"
