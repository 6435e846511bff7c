import json
import random
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import DocBin
from spacy.vocab import Vocab
from typer.testing import CliRunner

from spacy_ie_moe.cli import app
from spacy_ie_moe.corpora import dygie
from spacy_ie_moe.corpora.conversion import ConversionReport, LabelChoice, Part

from .test_corpora import CHOICES, LABEL, OFFSET, WORDS, check_docs, data_set, facts_of, lists, mostly, records

VOCAB = Vocab()


@pytest.fixture(scope="module")
def convert(tmp_path_factory):
    """Reads documents, or lines that are bytes, from a file; gives the ``Doc``s and the report."""
    path = tmp_path_factory.mktemp("dygie") / "data.json"

    def call(documents, **options):
        lines = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in documents]
        path.write_bytes(b"\n".join(lines) + b"\n")
        report = ConversionReport()
        return list(dygie.read(path, VOCAB, report=report, **options)), report

    return call


def document(**changes):
    value = {
        "doc_key": "X01",
        "sentences": [["Parsers", "use", "context", "free", "grammars", "."], ["They", "use", "beam", "search", "."]],
        "ner": [
            [[0, 0, "Method"], [2, 4, "Method"], [4, 4, "Generic"]],
            [[6, 6, "Generic"], [8, 9, "Method"]],
        ],
        "relations": [[[2, 4, 0, 0, "USED-FOR"]], [[8, 9, 6, 6, "USED-FOR"]]],
        "clusters": [[[0, 0], [6, 6]]],
    }
    return value | changes


def mentions_of(doc):
    return [(span.start, span.end, span.label_) for span in doc.spans["entities"]]


def test_document(convert):
    (doc,), report = convert([document()])
    assert doc.text == "Parsers use context free grammars. They use beam search."
    assert [sent.start for sent in doc.sents] == [0, 6]
    assert mentions_of(doc) == [
        (0, 1, "Method"),
        (2, 5, "Method"),
        (4, 5, "Generic"),
        (6, 7, "Generic"),
        (8, 10, "Method"),
    ]
    assert [ent.text for ent in doc.ents] == ["Parsers", "context free grammars", "They", "beam search"]
    assert facts_of(doc) == {
        ("context free grammars", "USED-FOR", "Parsers"),
        ("beam search", "USED-FOR", "They"),
    }
    relation = max(doc._.relations, key=lambda relation: relation["head_pos"])
    assert (relation["head_pos"], relation["tail_pos"]) == ([8, 10], [6, 7])
    assert (relation["head_label"], relation["tail_label"], relation["score"]) == ("Method", "Generic", 1.0)
    assert (doc.user_data["source"], doc.user_data["ignored_pairs"]) == ("X01", [])
    assert (report.docs, report.entities, dict(report.labels)) == (1, 5, {"USED-FOR": 2})
    assert report.notes == {"coreference clusters not converted": 1}


def test_sentences(convert):
    docs, report = convert([document()], unit="sentence")
    assert [doc.text for doc in docs] == ["Parsers use context free grammars.", "They use beam search."]
    assert [doc.user_data["source"] for doc in docs] == ["X01/0", "X01/1"]
    assert mentions_of(docs[1]) == [(0, 1, "Generic"), (2, 4, "Method")]
    assert [facts_of(doc) for doc in docs] == [
        {("context free grammars", "USED-FOR", "Parsers")},
        {("beam search", "USED-FOR", "They")},
    ]
    assert docs[1]._.relations[0]["head_pos"] == [2, 4]
    assert (report.docs, report.entities, report.relations.converted) == (2, 5, 2)
    assert report.notes == {"coreference clusters not converted": 1}


def test_relation_between_sentences(convert):
    across = document(relations=[[[4, 4, 6, 6, "PART-OF"], [2, 4, 0, 0, "USED-FOR"]], []])
    (doc,), report = convert([across])
    assert ("grammars", "PART-OF", "They") in facts_of(doc)
    assert report.relations.converted == 2
    docs, report = convert([across], unit="sentence")
    assert [len(doc._.relations) for doc in docs] == [1, 0]
    assert report.relations.left_out == {"no shared sentence": 1}
    assert [doc.user_data["ignored_pairs"] for doc in docs] == [[], []]


def test_annotations_belong_to_the_sentence_of_their_offsets(convert):
    moved = document(ner=[[], [*document()["ner"][0], *document()["ner"][1]]], relations=[[[8, 9, 6, 6, "A"]], []])
    docs, report = convert([moved], unit="sentence")
    assert [len(doc.spans["entities"]) for doc in docs] == [3, 2]
    assert [len(doc._.relations) for doc in docs] == [0, 1]
    assert not report.mentions.left_out and not report.relations.left_out


def test_mention_across_sentences(convert):
    across = document(ner=[[[5, 6, "Task"], [0, 0, "Method"]], []], relations=[[[5, 6, 0, 0, "A"]], []])
    (doc,), report = convert([across])
    assert (5, 7, "Task") in mentions_of(doc) and report.relations.converted == 1
    docs, report = convert([across], unit="sentence")
    assert [mentions_of(doc) for doc in docs] == [[(0, 1, "Method")], []]
    assert report.mentions.left_out == {"in more than one sentence": 1}
    assert report.relations.left_out == {"argument is no converted entity": 1}


@pytest.mark.parametrize("unit", ["document", "sentence"])
def test_argument_of_several_types_is_the_entity_annotated_first(convert, unit):
    typed = document(
        ner=[[[2, 4, "Task"], [2, 4, "Method"], [0, 0, "Generic"]], []], relations=[[[2, 4, 0, 0, "A"]], []]
    )
    (doc, *_), report = convert([typed], unit=unit)
    assert [(relation["head_label"], relation["tail_label"]) for relation in doc._.relations] == [("Task", "Generic")]
    assert report.entities == 3
    assert report.notes["argument has several types, the first is related"] == 1


def test_excluded_label_is_an_ignored_pair(convert):
    docs, report = convert([document()], unit="sentence", labels=LabelChoice(exclude=["USED-FOR"]))
    assert [doc.user_data["ignored_pairs"] for doc in docs] == [[[2, 5, 0, 1]], [[2, 4, 0, 1]]]
    assert report.relations.left_out == {"excluded label": 2}


@pytest.mark.parametrize(
    ("changes", "tally", "reason"),
    [
        ({"ner": [[[0, 0]], []]}, "mentions", "malformed mention"),
        ({"ner": [[[0, 0, "A", 0.9, 0.8]], []]}, "mentions", "malformed mention"),
        ({"ner": [["ab"], []]}, "mentions", "malformed mention"),
        ({"ner": [[["0", 0, "A"]], []]}, "mentions", "malformed mention"),
        ({"ner": [[[0, True, "A"]], []]}, "mentions", "malformed mention"),
        ({"ner": [[[0, 0, None]], []]}, "mentions", "malformed mention"),
        ({"ner": [7, []]}, "mentions", "malformed mention"),
        ({"ner": [[[1, 0, "A"]], []]}, "mentions", "offsets outside the text"),
        ({"ner": [[[-1, 0, "A"]], []]}, "mentions", "offsets outside the text"),
        ({"ner": [[], [[10, 11, "A"]]]}, "mentions", "offsets outside the text"),
        ({"ner": [[[0, 0, "A"], [0, 0, "A"]], []]}, "mentions", "duplicate mention"),
        ({"relations": [[[0, 0, 2, 4]], []]}, "relations", "malformed relation"),
        ({"relations": [[[0, 0, 2, "4", "A"]], []]}, "relations", "malformed relation"),
        ({"relations": [[[2, 4, 0, 0, "A", 3.1, 0.9]], []]}, "relations", "malformed relation"),
        ({"relations": [{"a": 1}, []]}, "relations", "malformed relation"),
        ({"relations": [[[0, 0, 2, 3, "A"]], []]}, "relations", "argument is no converted entity"),
        ({"relations": [[[0, 0, 99, 99, "A"]], []]}, "relations", "argument is no converted entity"),
        ({"relations": [[[2, 4, 2, 4, "A"]], []]}, "relations", "self relation"),
        ({"relations": [[[0, 0, 2, 4, "A"]] * 2, []]}, "relations", "duplicate relation"),
        ({"relations": [[[0, 0, 2, 4, 3]], []]}, "relations", "unknown relation id"),
        ({"sentences": []}, "instances", "no tokens"),
        ({"sentences": "ab"}, "instances", "malformed instance"),
        ({"sentences": [["a", ""], ["b"]]}, "instances", "malformed instance"),
        ({"sentences": [["a"], "b"]}, "instances", "malformed instance"),
        ({"ner": [[]]}, "instances", "malformed instance"),
        ({"relations": None}, "instances", "malformed instance"),
        ({"doc_key": None}, "instances", "malformed instance"),
        ({"sentences": [], "ner": [], "relations": []}, "instances", "no tokens"),
        ({"sentences": [[], []]}, "instances", "no tokens"),
    ],
)
@pytest.mark.parametrize("unit", ["document", "sentence"])
def test_loss_is_counted(convert, unit, changes, tally, reason):
    docs, report = convert([document(**changes), document(doc_key="X02")], unit=unit)
    assert getattr(report, tally).left_out == {reason: 1}
    assert docs[-1].user_data["source"].startswith("X02")
    assert len(docs[-1]._.relations) > 0


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b"3", b'"text"', b"null", b"[" * 100_000, b"9" * 5000])
def test_bad_line_loses_no_other(convert, line):
    docs, report = convert([document(), line, b"", b"  ", document(doc_key="X02")])
    assert [doc.user_data["source"] for doc in docs] == ["X01", "X02"]
    assert report.instances.left_out == {"malformed instance": 1}
    assert report.instances.read == 3


def test_sentence_without_words(convert):
    empty = document(sentences=[[], *document()["sentences"]], ner=[[], *document()["ner"]], relations=[[], [], []])
    (doc,), report = convert([empty])
    assert [sent.start for sent in doc.sents] == [0, 6]
    assert report.notes["sentence without words"] == 1
    docs, report = convert([empty], unit="sentence")
    assert [doc.user_data["source"] for doc in docs] == ["X01/1", "X01/2"]
    assert [len(doc.spans["entities"]) for doc in docs] == [3, 2]
    assert report.instances.left_out == {"no tokens": 1}


def test_no_lines(convert):
    docs, report = convert([])
    assert (docs, report.instances.read) == ([], 0)


def test_odd_unicode(convert):
    words = ["e\u0301t\u00e9", "\u2028", "👩‍🔬", "\x85", "ﬁ\u00a0x", "\u202eabc"]
    odd = document(
        doc_key="K\u2029\ud800",
        sentences=[words],
        ner=[[[0, 0, "Ä"], [2, 3, "👩"]]],
        relations=[[[0, 0, 2, 3, "→\u2028"]]],
    )
    (doc,), _ = convert([json.dumps(odd, ensure_ascii=False).encode("utf8", "surrogatepass")])
    assert [token.text for token in doc] == words
    assert mentions_of(doc) == [(0, 1, "Ä"), (2, 4, "👩")]
    assert doc._.relations[0]["label"] == "→\u2028"
    check_docs([doc])


def test_parts_are_documents(convert):
    documents = [document(doc_key=f"X{index}") for index in range(10)]
    parts = [convert(documents, part=Part.parse(part), unit="sentence")[0] for part in ("0:0.8", "0.8:1")]
    keys = [[doc.user_data["source"].split("/")[0] for doc in docs] for docs in parts]
    assert [len(found) for found in keys] == [16, 4]
    assert not set(keys[0]) & set(keys[1])


def test_unit_and_file_are_checked(convert, tmp_path):
    with pytest.raises(ValueError, match="unit is 'x'; expected 'document' or 'sentence'"):
        convert([], unit="x")
    with pytest.raises(FileNotFoundError, match="is no file; expected JSON lines"):
        list(dygie.read(tmp_path / "absent.json", VOCAB))


# --- random documents: what is written is read again, and nothing is lost without being counted


@st.composite
def gold_documents(draw):
    """A document as sets: sentences, mentions (start, end, type) by sentence, relations of two mentions."""
    word = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
    sentences = draw(st.lists(st.lists(word, min_size=1, max_size=6), min_size=1, max_size=4))
    mentions, relations = [], []
    for start, words in zip(accumulate(map(len, sentences), initial=0), sentences, strict=False):
        extents = st.tuples(st.integers(0, len(words) - 1), st.integers(0, len(words) - 1)).map(sorted)
        found = draw(st.lists(extents, max_size=4, unique_by=tuple))
        mentions.append([(start + a, start + b + 1, draw(st.sampled_from("AB"))) for a, b in found])
    flat = [mention for found in mentions for mention in found]
    if len(flat) > 1:
        pairs = st.lists(st.sampled_from(flat), min_size=2, max_size=2, unique=True)
        relations = draw(st.lists(st.tuples(pairs, st.sampled_from(["R", "S t"])), max_size=5))
    return sentences, mentions, {(*head[:2], *tail[:2], label) for (head, tail), label in relations}


def to_dygie(sentences, mentions, relations):
    by_sentence = [[] for _ in sentences]
    ends = list(accumulate(map(len, sentences)))
    for head_start, head_end, tail_start, tail_end, label in sorted(relations):
        sentence = next(index for index, end in enumerate(ends) if head_start < end)
        by_sentence[sentence].append([head_start, head_end - 1, tail_start, tail_end - 1, label])
    ner = [[[start, end - 1, label] for start, end, label in found] for found in mentions]
    return {"doc_key": "k", "sentences": sentences, "ner": ner, "relations": by_sentence}


def relations_of(doc, offset=0):
    return {
        (*(offset + position for position in (*relation["head_pos"], *relation["tail_pos"])), relation["label"])
        for relation in doc._.relations
    }


@given(gold_documents())
def test_round_trip(convert, gold):
    sentences, mentions, relations = gold
    (doc,), report = convert([to_dygie(*gold)])
    assert [token.text for token in doc] == [word for words in sentences for word in words]
    assert sorted(mentions_of(doc)) == sorted(mention for found in mentions for mention in found)
    assert relations_of(doc) == relations
    assert (report.mentions.left_out, report.relations.left_out) == ({}, {})
    check_docs([doc])

    docs, report = convert([to_dygie(*gold)], unit="sentence")
    starts = list(accumulate(map(len, sentences), initial=0))
    assert [[token.text for token in doc] for doc in docs] == sentences
    for doc, start, found in zip(docs, starts, mentions, strict=False):
        assert sorted((start + a, start + b, label) for a, b, label in mentions_of(doc)) == sorted(found)
    inside = {
        relation
        for relation in relations
        if any(start <= min(relation[:4]) and max(relation[:4]) <= end for start, end in pairwise(starts))
    }
    assert set().union(*(relations_of(doc, start) for doc, start in zip(docs, starts, strict=False))) == inside
    assert report.relations.left_out.total() == len(relations) - len(inside)
    check_docs(docs)


def fields(*strategies):
    return mostly(st.tuples(*strategies).map(list))


RANDOM = records(
    doc_key=mostly(st.text(max_size=3)),
    sentences=lists(WORDS),
    ner=lists(lists(fields(OFFSET, OFFSET, LABEL))),
    relations=lists(lists(fields(OFFSET, OFFSET, OFFSET, OFFSET, LABEL))),
    clusters=lists(lists(fields(OFFSET, OFFSET))),
)


def size(by_sentence):
    return sum(len(found) if isinstance(found, list) else 1 for found in by_sentence)


@given(st.lists(RANDOM, max_size=3), CHOICES, st.sampled_from(dygie.UNITS))
def test_random_documents(convert, documents, labels, unit):
    docs, report = convert(documents, labels=labels, unit=unit)
    if unit == "document":
        assert len(docs) + sum(report.instances.left_out.values()) == len(documents)
    check_docs(docs)
    for value in documents:
        one, its_report = convert([value], labels=labels, unit=unit)
        if one:
            assert its_report.mentions.read == size(value["ner"])
            assert its_report.relations.read == size(value["relations"])
            assert its_report.instances.read == (len(value["sentences"]) if unit == "sentence" else 1)


# --- the published files and the command


@pytest.mark.parametrize(
    ("name", "documents", "sentences", "entities", "relations", "duplicates", "clusters"),
    [
        ("train", 350, 1861, 5598, 3219, 4, 720),
        ("dev", 50, 275, 811, 455, 0, 100),
        ("test", 100, 551, 1685, 974, 0, 195),
    ],
)
@pytest.mark.parametrize("unit", ["document", "sentence"])
def test_scierc(unit, name, documents, sentences, entities, relations, duplicates, clusters):
    report = ConversionReport()
    docs = list(dygie.read(data_set("scierc") / f"{name}.json", VOCAB, report=report, unit=unit))
    assert report.docs == len(docs) == (documents if unit == "document" else sentences)
    assert sum(len(list(doc.sents)) for doc in docs if unit == "document") in (0, sentences)
    assert (report.entities, report.mentions.read, report.relations.read) == (entities, entities, relations)
    assert sum(report.relations.left_out.values()) == report.relations.left_out["duplicate relation"] == duplicates
    assert report.notes == {"coreference clusters not converted": clusters}
    check_docs(random.Random(0).sample(docs, 20))


def test_command(tmp_path):
    source, target = tmp_path / "data.json", tmp_path / "data.spacy"
    source.write_text("\n".join(map(json.dumps, [document(), document(doc_key="X02")])))

    def run(*options):
        return CliRunner().invoke(app, ["convert", "dygie", str(source), str(target), *options])

    for options, expected in (((), 2), (("--unit", "sentence"), 4)):
        result = run(*options)
        assert result.exit_code == 0, result.output
        docs = list(DocBin(store_user_data=True).from_disk(target).get_docs(Vocab()))
        assert len(docs) == expected
        assert sum(len(doc._.relations) for doc in docs) == 4
        assert "note: coreference clusters not converted" in result.stdout
    result = run("--mentions", "all")
    assert result.stderr == "Error: --mentions is given for FORMAT 'dygie'; expected only for re-docred.\n"
    source.write_text("[\n]\n")
    assert "gave no documents (malformed instance: 2)" in run().stderr
