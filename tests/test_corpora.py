import json
import logging
import random
import tempfile
from pathlib import Path

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_ie_moe.corpora import fewrel, knowledgenet, re_docred, spert, zero_rte
from spacy_ie_moe.corpora.conversion import (
    ConversionReport,
    LabelChoice,
    Part,
    guess_spaces,
    load_names,
)
from spacy_ie_moe.corpora.location import VARIABLE, find_data, find_file
from spacy_ie_moe.corpora.reader import as_lists, create_relation_corpus
from spacy_ie_moe.relations import check_relation

VOCAB = Vocab()


def convert(module, data, **options):
    """The documents and the report of ``data``, written to a file first."""
    report = ConversionReport()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.json"
        path.write_text(json.dumps(data), encoding="utf8")
        docs = list(module.read(path, VOCAB, report=report, **options))
    return docs, report


def facts_of(doc):
    return {
        (" ".join(relation["head_text"]), relation["label"], " ".join(relation["tail_text"]))
        for relation in doc._.relations
    }


def data_set(name):
    try:
        return find_data(name)
    except FileNotFoundError as error:
        pytest.skip(str(error))


# --- SpERT


def spert_sentence(**changes):
    sentence = {
        "tokens": ["John", "Smith", "of", "Acme", "Corp", "lives", "in", "Rome", "."],
        "entities": [
            {"type": "Peop", "start": 0, "end": 2},
            {"type": "Org", "start": 3, "end": 5},
            {"type": "Loc", "start": 7, "end": 8},
        ],
        "relations": [
            {"type": "Work_For", "head": 0, "tail": 1},
            {"type": "Live_In", "head": 0, "tail": 2},
        ],
        "orig_id": 7,
    }
    return sentence | changes


def test_spert_sentence():
    (doc,), report = convert(spert, [spert_sentence()])
    assert doc.text == "John Smith of Acme Corp lives in Rome."
    assert [(ent.text, ent.label_) for ent in doc.ents] == [
        ("John Smith", "Peop"),
        ("Acme Corp", "Org"),
        ("Rome", "Loc"),
    ]
    assert [span.text for span in doc.spans["entities"]] == ["John Smith", "Acme Corp", "Rome"]
    assert facts_of(doc) == {("John Smith", "Work_For", "Acme Corp"), ("John Smith", "Live_In", "Rome")}
    assert {(r["head_label"], r["tail_label"], r["score"]) for r in doc._.relations} == {
        ("Peop", "Org", 1.0),
        ("Peop", "Loc", 1.0),
    }
    assert doc.user_data["source"] == "7"
    assert doc.user_data["ignored_pairs"] == []
    assert (report.docs, report.entities, dict(report.labels)) == (1, 3, {"Work_For": 1, "Live_In": 1})


def test_longest_mention_wins_in_ents_and_all_are_in_the_span_group():
    entities = [{"type": "A", "start": 0, "end": 1}, {"type": "B", "start": 0, "end": 2}]
    (doc,), _ = convert(spert, [spert_sentence(entities=entities, relations=[])])
    assert [ent.label_ for ent in doc.ents] == ["B"]
    assert [span.label_ for span in doc.spans["entities"]] == ["A", "B"]


def test_excluded_label_is_an_ignored_pair():
    (doc,), report = convert(spert, [spert_sentence()], labels=LabelChoice(exclude=["Live_In"]))
    assert facts_of(doc) == {("John Smith", "Work_For", "Acme Corp")}
    assert doc.user_data["ignored_pairs"] == [[0, 2, 7, 8]]
    assert report.relations.left_out == {"excluded label": 1}


def test_names_give_labels_and_an_unknown_id_is_counted_and_ignored():
    (doc,), report = convert(spert, [spert_sentence()], labels=LabelChoice(names={"Live_In": "lives in"}))
    assert facts_of(doc) == {("John Smith", "lives in", "Rome")}
    assert doc.user_data["ignored_pairs"] == [[0, 2, 3, 5]]
    assert report.relations.left_out == {"unknown relation id": 1}


def test_unseen_labels_are_told():
    labels = LabelChoice(exclude=["Live_In", "Lives_In"], only=["Kill"])
    convert(spert, [spert_sentence()], labels=labels)
    assert labels.unseen() == ["Kill", "Lives_In"]


@pytest.mark.parametrize(
    ("relation", "reason"),
    [
        ({"type": "Kill", "head": 0, "tail": 0}, "self relation"),
        ({"type": "Kill", "head": 0, "tail": 9}, "argument is no converted entity"),
        ({"type": "Kill", "head": -1, "tail": 0}, "argument is no converted entity"),
        ({"type": None, "head": 0, "tail": 1}, "unknown relation id"),
        ("Kill", "malformed relation"),
    ],
)
def test_relation_that_cannot_be_converted_is_counted(relation, reason):
    (doc,), report = convert(spert, [spert_sentence(relations=[relation])])
    assert doc._.relations == []
    assert report.relations.left_out == {reason: 1}


def test_duplicate_relation_is_counted_once():
    relation = {"type": "Live_In", "head": 0, "tail": 2}
    (doc,), report = convert(spert, [spert_sentence(relations=[relation, relation])])
    assert len(doc._.relations) == 1
    assert report.relations.left_out == {"duplicate relation": 1}


@pytest.mark.parametrize(
    ("entity", "reason"),
    [
        ({"type": "A", "start": 7, "end": 99}, "offsets outside the text"),
        ({"type": "A", "start": -2, "end": 1}, "offsets outside the text"),
        ({"type": "A", "start": 2, "end": 2}, "offsets outside the text"),
        ({"type": "A", "start": "2", "end": 3}, "malformed mention"),
        ({"type": "A", "start": True, "end": 3}, "malformed mention"),
        ({"type": 3, "start": 2, "end": 3}, "malformed mention"),
        (None, "malformed mention"),
    ],
)
def test_mention_that_cannot_be_converted_is_counted(entity, reason):
    relations = [{"type": "Kill", "head": 0, "tail": 0}]
    (doc,), report = convert(spert, [spert_sentence(entities=[entity], relations=relations)])
    assert not doc.ents
    assert report.mentions.left_out == {reason: 1}
    assert report.relations.left_out == {"argument is no converted entity": 1}


# --- FewRel


BORN = ("Ann", "Lee", "was", "born", "in", "Bern", ",", "Switzerland", ".")


def fewrel_instance(h=((0, 1),), t=((5,),), tokens=BORN):
    entity = ["name", "Q1"]
    return {
        "tokens": list(tokens),
        "h": [*entity, [list(mention) for mention in h]],
        "t": [*entity, [list(mention) for mention in t]],
    }


def test_fewrel_instance():
    labels = LabelChoice(names={"P19": "place of birth"})
    (doc,), report = convert(fewrel, {"P19": [fewrel_instance()]}, labels=labels)
    assert facts_of(doc) == {("Ann Lee", "place of birth", "Bern")}
    assert [(ent.text, ent.label_) for ent in doc.ents] == [("Ann Lee", "ENTITY"), ("Bern", "ENTITY")]
    assert [token.text for token in doc] == fewrel_instance()["tokens"]
    assert doc.user_data["source"] == "P19/0"
    assert report.mentions.converted == 2


def test_fewrel_relates_first_mentions_and_ignores_the_others():
    (doc,), report = convert(fewrel, {"P19": [fewrel_instance(t=((5,), (7,), (1, 3)))]})
    assert facts_of(doc) == {("Ann Lee", "P19", "Bern")}
    assert doc.user_data["ignored_pairs"] == [[0, 2, 7, 8]]
    assert len(doc.spans["entities"]) == 3
    assert report.mentions.left_out == {"mention is not contiguous": 1}


@pytest.mark.parametrize(
    ("instance", "reason"),
    [
        (fewrel_instance(h=((0, 2),)), "mention is not contiguous"),
        (fewrel_instance(h=((0, 0),)), "mention is not contiguous"),
        (fewrel_instance(h=()), "empty mention list"),
        (fewrel_instance(h=((),)), "empty mention list"),
        (fewrel_instance(h=((8, 9),)), "offsets outside the text"),
        (fewrel_instance(h=((0.5,),)), "malformed mention"),
        (fewrel_instance(h=((5,),)), "self relation"),
        (fewrel_instance(tokens=()), "no tokens"),
        (fewrel_instance(tokens=("a", "")), "malformed instance"),
        (fewrel_instance(tokens=("\ud800",)), "malformed instance"),
        ({"tokens": ["a"], "h": [], "t": []}, "malformed instance"),
        ([], "malformed instance"),
    ],
)
def test_fewrel_instance_that_cannot_be_converted_is_counted(instance, reason):
    docs, report = convert(fewrel, {"P19": [instance, fewrel_instance()]})
    assert [doc.user_data["source"] for doc in docs] == ["P19/1"]
    assert report.instances.left_out == {reason: 1}
    assert report.instances.read == 2


def test_fewrel_leaves_other_relations_out_wholly():
    data = {"P19": [fewrel_instance()], "P20": [fewrel_instance()]}
    docs, report = convert(fewrel, data, labels=LabelChoice(only=["P20"]))
    assert [doc.user_data["source"] for doc in docs] == ["P20/0"]
    assert report.instances.left_out == {"excluded label": 1}


def test_fewrel_sample_is_of_each_relation_and_reproducible():
    data = {label: [fewrel_instance() for _ in range(20)] for label in ("P19", "P20")}

    def sources(**options):
        docs, report = convert(fewrel, data, **options)
        assert report.instances.read == 40
        return [doc.user_data["source"] for doc in docs]

    first = sources(per_relation=5, seed=1)
    assert len(first) == 10 and sum(source.startswith("P19/") for source in first) == 5
    assert sources(per_relation=5, seed=1) == first
    assert sources(per_relation=5, seed=2) != first
    assert len(sources(per_relation=50)) == 40


def test_per_relation_must_be_positive():
    with pytest.raises(ValueError, match=r"per_relation is 0; expected"):
        convert(fewrel, {}, per_relation=0)


# --- Re-DocRED


def mention(sentence, start, end, kind="PER"):
    return {"name": "", "sent_id": sentence, "pos": [start, end], "type": kind}


def re_docred_document(**changes):
    document = {
        "title": "Ann",
        "sents": [
            ["Ann", "Lee", "was", "born", "in", "Bern", "."],
            ["She", "left", "."],
            ["Lee", "died", "in", "Rome", ",", "and", "Lee", "lies", "in", "Rome", "."],
        ],
        "vertexSet": [
            [mention(0, 0, 2), mention(2, 0, 1), mention(2, 6, 7)],
            [mention(0, 5, 6, "LOC")],
            [mention(2, 3, 4, "LOC"), mention(2, 9, 10, "LOC")],
        ],
        "labels": [
            {"h": 0, "t": 1, "r": "P19", "evidence": [0]},
            {"h": 0, "t": 2, "r": "P20", "evidence": [2]},
            {"h": 1, "t": 2, "r": "P99", "evidence": []},
        ],
    }
    return document | changes


def pairs_of(doc, label):
    return sorted((*r["head_pos"], *r["tail_pos"]) for r in doc._.relations if r["label"] == label)


def test_re_docred_document_relates_close_mentions_and_ignores_the_others():
    (doc,), report = convert(re_docred, [re_docred_document()])
    assert [sent.text.split()[0] for sent in doc.sents] == ["Ann", "She", "Lee"]
    assert pairs_of(doc, "P19") == [(0, 2, 5, 6)]
    assert pairs_of(doc, "P20") == [(10, 11, 13, 14), (10, 11, 19, 20), (16, 17, 13, 14), (16, 17, 19, 20)]
    assert pairs_of(doc, "P99") == [(5, 6, 13, 14)]  # no shared sentence: the closest pair
    assert doc.user_data["ignored_pairs"] == [
        [0, 2, 13, 14],
        [0, 2, 19, 20],
        [5, 6, 19, 20],
        [10, 11, 5, 6],
        [16, 17, 5, 6],
    ]
    assert (report.relations.converted, sum(report.labels.values())) == (3, 6)
    assert doc.user_data["source"] == "Ann"


def test_re_docred_document_relates_all_mentions():
    (doc,), _ = convert(re_docred, [re_docred_document()], mentions="all")
    assert len(pairs_of(doc, "P19")) == 3
    assert len(pairs_of(doc, "P20")) == 6
    assert len(pairs_of(doc, "P99")) == 2
    assert doc.user_data["ignored_pairs"] == []


def test_re_docred_sentences():
    labels = LabelChoice(exclude=["P19"])
    docs, report = convert(re_docred, [re_docred_document()], unit="sentence", labels=labels)
    assert [doc.user_data["source"] for doc in docs] == ["Ann/0", "Ann/1", "Ann/2"]
    assert [len(doc.spans["entities"]) for doc in docs] == [2, 0, 4]
    assert docs[0]._.relations == [] and docs[0].user_data["ignored_pairs"] == [[0, 2, 5, 6]]
    assert pairs_of(docs[2], "P20") == [(0, 1, 3, 4), (0, 1, 9, 10), (6, 7, 3, 4), (6, 7, 9, 10)]
    assert docs[2]._.relations[0]["head_label"] == "PER"
    assert report.relations.left_out == {"excluded label": 1, "no shared sentence": 1}
    assert (report.docs, report.relations.read, report.mentions.read) == (3, 3, 6)


@pytest.mark.parametrize(
    ("changes", "tally", "reason"),
    [
        ({"vertexSet": [[], [mention(0, 5, 6)], [mention(2, 3, 4)]]}, "notes", "entity without mentions"),
        ({"vertexSet": [[mention(7, 0, 1)]]}, "mentions", "offsets outside the text"),
        ({"vertexSet": [[mention(1, 2, 4)]]}, "mentions", "offsets outside the text"),
        ({"vertexSet": [[{"sent_id": 0, "pos": [0]}]]}, "mentions", "malformed mention"),
        ({"vertexSet": ["x"]}, "mentions", "malformed mention"),
        ({"labels": [{"h": 0, "t": 0, "r": "P1"}]}, "relations", "self relation"),
        ({"labels": [{"h": 0, "t": 3, "r": "P1"}]}, "relations", "argument is no converted entity"),
        ({"labels": [{"h": 0, "t": 1}]}, "relations", "unknown relation id"),
        ({"labels": [3]}, "relations", "malformed relation"),
        ({"labels": None}, "instances", "malformed instance"),
        ({"sents": ["ab"]}, "instances", "malformed instance"),
        ({"sents": [[]]}, "instances", "no tokens"),
        ({"title": None}, "instances", "malformed instance"),
    ],
)
def test_re_docred_loss_is_counted(changes, tally, reason):
    _, report = convert(re_docred, [re_docred_document(**changes)])
    counts = report.notes if tally == "notes" else getattr(report, tally).left_out
    assert counts[reason] == 1
    assert report.instances.read == 1


def test_re_docred_empty_sentence_is_counted_in_sentence_unit():
    docs, report = convert(re_docred, [re_docred_document(sents=[["a"], []], vertexSet=[])], unit="sentence")
    assert len(docs) == 1
    assert report.instances.left_out == {"no tokens": 1}


@pytest.mark.parametrize("option", ["unit", "mentions"])
def test_re_docred_option_is_checked(option):
    with pytest.raises(ValueError, match=rf"{option} is 'x'; expected '\w+' or '\w+'"):
        convert(re_docred, [], **{option: "x"})


def test_re_docred_document_relations():
    document = re_docred_document()
    document["vertexSet"].insert(0, [])
    for label in document["labels"]:
        label["h"] += 1
        label["t"] += 1
    document["labels"].append({"h": 1, "t": 3, "r": "P7", "evidence": [0, 2]})
    labels = LabelChoice(exclude=["P99"])
    (plain,), (doc,) = (
        convert(re_docred, [document], labels=labels, document_relations=wanted)[0] for wanted in (False, True)
    )
    assert plain._.mention_clusters == plain._.document_relations == []
    assert doc._.relations == plain._.relations
    assert doc._.mention_clusters == [[[0, 2], [10, 11], [16, 17]], [[5, 6]], [[13, 14], [19, 20]]]
    assert [(r["head"], r["tail"], r["label"], r["score"]) for r in doc._.document_relations] == [
        (0, 1, "P19", 1.0),
        (0, 2, "P20", 1.0),
        (0, 2, "P7", 1.0),
    ]
    evidence = [[(*e["head_pos"], *e["tail_pos"]) for e in r["evidence"]] for r in doc._.document_relations]
    assert evidence[0] == [(0, 2, 5, 6)]
    assert evidence[1] == [(10, 11, 13, 14), (10, 11, 19, 20), (16, 17, 13, 14), (16, 17, 19, 20)]
    assert len(evidence[2]) == 6, "Ann Lee of the first sentence too"
    assert [span.text for span in doc._.document_relation_spans[0].head] == ["Ann Lee", "Lee", "Lee"]


def test_re_docred_document_relations_are_between_entities_at_different_places():
    """Of two entities that share a place the identical pair says nothing, and two at the same places are one thing."""
    document = re_docred_document(
        vertexSet=[
            [mention(0, 0, 2), mention(2, 0, 1)],
            [mention(0, 0, 2, "MISC"), mention(1, 0, 1)],
            [mention(0, 0, 2, "ORG")],
            [mention(0, 0, 2, "LOC"), mention(2, 0, 1, "LOC")],
        ],
        labels=[
            {"h": 0, "t": 1, "r": "P1", "evidence": [0]},
            {"h": 0, "t": 1, "r": "P1", "evidence": [0, 1]},
            {"h": 2, "t": 2, "r": "P2"},
            {"h": 0, "t": 3, "r": "P3"},
        ],
    )
    (doc,), report = convert(re_docred, [document], document_relations=True)
    assert pairs_of(doc, "P1") == [(10, 11, 7, 8)], "no shared sentence but at the same place: the closest pair"
    assert report.relations.left_out == {"self relation": 1, "duplicate relation": 1}
    (relation,) = doc._.document_relations
    assert relation["label"] == "P1"
    assert [(*pair["head_pos"], *pair["tail_pos"]) for pair in relation["evidence"]] == [(0, 2, 7, 8)]
    document["labels"] = [{"h": 2, "t": 1, "r": "P1"}, {"h": 2, "t": 0, "r": "P1"}]
    document["vertexSet"][0] = [mention(0, 0, 2)]
    (doc,), report = convert(re_docred, [document], document_relations=True)
    assert report.relations.left_out == {"self relation": 1}
    assert len(doc._.document_relations) == len(doc._.relations) == 1


def test_re_docred_evidence_of_a_fact_that_is_there_twice():
    document = re_docred_document()
    document["labels"] = [{"h": 0, "t": 2, "r": "P20", "evidence": evidence} for evidence in ([0, 2], [2], [])]
    (doc,), report = convert(re_docred, [document], document_relations=True)
    assert report.relations.left_out == {"duplicate relation": 2}
    (relation,) = doc._.document_relations
    assert len(relation["evidence"]) == 6


def test_re_docred_self_label_is_no_other_label():
    for label, expected in (("P19", "which is a label of the data; expected another"), ("", "expected a label, or")):
        with pytest.raises(ValueError, match=f"self_label is '{label}'.*{expected}"):
            convert(re_docred, [re_docred_document()], self_label=label)
    labels = LabelChoice(exclude=["P19"])
    (doc,), _ = convert(re_docred, [re_docred_document()], self_label="P19", labels=labels)
    assert len(pairs_of(doc, "P19")) == 4


def test_re_docred_self_label():
    (doc,), report = convert(re_docred, [re_docred_document()], self_label="SELF")
    assert pairs_of(doc, "SELF") == [(0, 2, 10, 11), (0, 2, 16, 17), (10, 11, 16, 17), (13, 14, 19, 20)]
    assert report.relations.converted == 3, "those annotated"
    assert report.labels["SELF"] == 4
    check_docs([doc])


@pytest.mark.parametrize("option", [{"document_relations": True}, {"self_label": "SELF"}])
def test_re_docred_clusters_are_of_documents(option):
    with pytest.raises(ValueError, match="and unit 'sentence'; expected unit 'document'"):
        convert(re_docred, [], unit="sentence", **option)


# --- KnowledgeNet

PASSAGE = "Ann was born in 1963-64 to Bob."


def fact(name, subject, object_):
    (a, b), (c, d) = ((PASSAGE.index(text), PASSAGE.index(text) + len(text)) for text in (subject, object_))
    return {"property": name, "subject_start": a, "subject_end": b, "object_start": c, "object_end": d}


def passage(**changes):
    value = {
        "fold": 1,
        "document": 5,
        "passage_start": 10,
        "passage": PASSAGE,
        "facts": [fact("CHILD_OF", "Ann", "Bob"), fact("DATE_OF_BIRTH", "Ann", "1963")],
        "no_fact_properties": ["SPOUSE"],
    }
    return value | changes


def test_knowledgenet_passage():
    (doc,), report = convert(knowledgenet, [passage()])
    assert doc.text == PASSAGE
    assert ("Ann", "child of", "Bob") in facts_of(doc)
    assert doc.user_data["annotated_labels"] == ["child of", "date of birth", "spouse"]
    assert doc.user_data["source"] == "5/10"
    assert report.docs == 1
    assert report.relations.converted == 2


def test_knowledgenet_expands_offsets_that_cut_tokens():
    (doc,), report = convert(knowledgenet, [passage(facts=[fact("CHILD_OF", "nn", "Bob")])])
    assert facts_of(doc) == {("Ann", "child of", "Bob")}
    assert report.notes == {"offsets expanded to whole tokens": 1}


def test_knowledgenet_excluded_label_is_neither_positive_nor_annotated():
    (doc,), _ = convert(knowledgenet, [passage()], labels=LabelChoice(exclude=["child of", "spouse"]))
    assert doc.user_data["annotated_labels"] == ["date of birth"]
    assert len(doc.user_data["ignored_pairs"]) == 1


def test_knowledgenet_folds():
    docs, report = convert(knowledgenet, [passage(fold=fold) for fold in (1, 2, 3)], folds={1, 3})
    assert len(docs) == 2
    assert report.instances.left_out == {"other fold": 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"subject_end": 999}, "offsets outside the text"),
        ({"subject_start": 3, "subject_end": 3}, "offsets outside the text"),
        ({"subject_start": None}, "malformed relation"),
        ({"object_start": 0, "object_end": 3}, "self relation"),
        ({"property": None}, "unknown relation id"),
    ],
)
def test_knowledgenet_loss_is_counted(changes, reason):
    docs, report = convert(knowledgenet, [passage(facts=[fact("CHILD_OF", "Ann", "Bob") | changes])])
    assert docs[0]._.relations == []
    assert report.relations.left_out == {reason: 1}


def test_english_tokenizer_is_that_of_a_blank_pipeline():
    text = "Mr. O'Neil (b. 1963-64) can't visit https://example.com/a-b, e.g. U.S.A.'s 3km-long (park)  now!"
    expected = [(token.text, token.whitespace_) for token in spacy.blank("en").tokenizer(text)]
    assert [(token.text, token.whitespace_) for token in knowledgenet.english_tokenizer()(text)] == expected


# --- what all converters share


def test_parts_cover_everything_and_share_no_text():
    data = [spert_sentence(tokens=[f"w{i % 30}", *"abcdefgh"], orig_id=i) for i in range(60)]
    parts = [convert(spert, data, part=Part.parse(part), seed=3) for part in ("0:0.8", "0.8:0.9", "0.9:1")]
    texts = [{doc.text for doc in docs} for docs, _ in parts]
    assert [len(part) for part in texts] == [24, 3, 3]
    assert len(set.union(*texts)) == 30
    assert [report.instances.read for _, report in parts] == [60, 60, 60]
    assert sum(report.docs for _, report in parts) == 60


def test_seed_changes_the_part():
    data = [spert_sentence(tokens=[f"w{i}", *"abcdefgh"]) for i in range(30)]
    one, other = ({doc.text for doc in convert(spert, data, part=Part(0, 0.5), seed=s)[0]} for s in (0, 1))
    assert one != other


@pytest.mark.parametrize("text", ["", "1", "a:b", "0.5:0.5", "0:2", "-1:1", "0:nan", "0:1:2"])
def test_part_is_checked(text):
    with pytest.raises(ValueError, match=r"part is .*expected two fractions A:B"):
        Part.parse(text)


@pytest.mark.parametrize("words", [[], ["Hi"], ["Hi", ",", "(", "you", ")", "!"]])
def test_spaces_are_as_many_as_words(words):
    spaces = guess_spaces(words)
    assert len(spaces) == len(words)
    assert Doc(VOCAB, words=words, spaces=spaces).text in ("", "Hi", "Hi, (you)!")


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"P1": "one"}, {"P1": "one"}),
        ({"P1": ["one", "the first"]}, {"P1": "one"}),
        ({"entities": {}, "relations": {"A_B": {"verbose": "a b"}}}, {"A_B": "a b"}),
    ],
)
def test_names(tmp_path, content, names):
    path = tmp_path / "names.json"
    path.write_text(json.dumps(content))
    assert load_names(path) == names


@pytest.mark.parametrize("content", [{"P1": 3}, {"P1": []}, {"P1": " "}, {"relations": {"A": {}}}, ["P1"]])
def test_names_are_checked(tmp_path, content):
    path = tmp_path / "names.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="expected a map of relation id to label"):
        load_names(path)


@pytest.mark.parametrize("module", [spert, fewrel, re_docred, knowledgenet])
def test_input_file_is_checked(tmp_path, module):
    with pytest.raises(FileNotFoundError, match=r"is no file; expected a (list|map)"):
        list(module.read(tmp_path / "absent.json", VOCAB))
    path = tmp_path / "data.json"
    for content, problem in (("{", "is not valid JSON"), ("3", "holds a JSON int")):
        path.write_text(content)
        with pytest.raises(ValueError, match=problem):
            list(module.read(path, VOCAB))


# --- random instances: nothing crashes and nothing is lost without being counted

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 12),
    st.just(10**30),
    st.floats(allow_nan=False),
    st.sampled_from(["", "\ud800", "x"]),
    st.just([]),
    st.just({}),
)


def mostly(strategy):
    """``strategy``, sometimes something else."""
    return st.integers(0, 9).flatmap(lambda roll: strategy if roll else JUNK)


OFFSET = mostly(st.integers(0, 6))
WORDS = mostly(st.lists(mostly(st.text(min_size=1, max_size=4)), min_size=1, max_size=8))
LABEL = mostly(st.sampled_from(["A", "B_C"]))


def records(**fields):
    return mostly(st.fixed_dictionaries(fields))


def lists(strategy, size=4):
    return mostly(st.lists(strategy, max_size=size))


SPERT = records(
    tokens=WORDS,
    entities=lists(records(type=LABEL, start=OFFSET, end=OFFSET)),
    relations=lists(records(type=LABEL, head=OFFSET, tail=OFFSET)),
    orig_id=JUNK,
)
FEWREL_ENTITY = mostly(st.tuples(JUNK, JUNK, lists(lists(OFFSET, 2), 2)).map(list))
FEWREL = records(tokens=WORDS, h=FEWREL_ENTITY, t=FEWREL_ENTITY)
PAIR = mostly(st.tuples(OFFSET, OFFSET).map(list))
RE_DOCRED = records(
    title=mostly(st.text(max_size=3)),
    sents=lists(WORDS),
    vertexSet=lists(lists(records(sent_id=OFFSET, pos=PAIR, type=LABEL))),
    labels=lists(records(h=OFFSET, t=OFFSET, r=LABEL)),
)
KNOWLEDGENET = records(
    fold=mostly(st.integers(1, 4)),
    passage=mostly(st.text(max_size=20)),
    facts=lists(
        records(
            property=LABEL,
            subject_start=OFFSET,
            subject_end=OFFSET,
            object_start=OFFSET,
            object_end=OFFSET,
        )
    ),
    no_fact_properties=lists(LABEL),
)
CHOICES = st.builds(
    LabelChoice,
    names=st.sampled_from([None, {"A": "a"}, {"A": "a", "B_C": "b c"}]),
    exclude=st.sampled_from([(), ("a", "A")]),
)


def check_docs(docs):
    doc_bin = DocBin(docs=docs, store_user_data=True)
    read_again = DocBin(store_user_data=True).from_bytes(doc_bin.to_bytes()).get_docs(Vocab())
    for doc, again in zip(docs, read_again, strict=True):
        for relation in doc._.relations:
            check_relation(doc, relation)
            assert relation["head_pos"] != relation["tail_pos"]
        extents = {(span.start, span.end) for span in doc.spans["entities"]}
        assert {(ent.start, ent.end) for ent in doc.ents} <= extents
        for relation in doc._.relations:
            assert {tuple(relation["head_pos"]), tuple(relation["tail_pos"])} <= extents
        for pair in doc.user_data["ignored_pairs"]:
            assert 0 <= pair[0] < pair[1] <= len(doc) and 0 <= pair[2] < pair[3] <= len(doc)
        assert isinstance(doc.user_data["source"], str)
        assert as_lists(again.user_data) == doc.user_data
        assert [token.text for token in again] == [token.text for token in doc]


@settings(max_examples=60, deadline=None)
@given(st.lists(SPERT, max_size=3), CHOICES)
def test_random_spert(sentences, labels):
    docs, report = convert(spert, sentences, labels=labels)
    assert len(docs) + sum(report.instances.left_out.values()) == len(sentences)
    check_docs(docs)
    for sentence in sentences:
        one, its_report = convert(spert, [sentence], labels=labels)
        if one:
            assert its_report.mentions.read == len(sentence["entities"])
            assert its_report.relations.read == len(sentence["relations"])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["A", "B_C"]), st.lists(FEWREL, max_size=3)), CHOICES, st.integers(1, 3))
def test_random_fewrel(by_relation, labels, limit):
    docs, report = convert(fewrel, by_relation, labels=labels, per_relation=limit)
    assert len(docs) + sum(report.instances.left_out.values()) == sum(map(len, by_relation.values()))
    assert all(len(doc._.relations) == 1 for doc in docs)
    check_docs(docs)
    for relation_id, instances in by_relation.items():
        for instance in instances:
            one, its_report = convert(fewrel, {relation_id: [instance]})
            if one:
                assert its_report.mentions.read == len(instance["h"][2]) + len(instance["t"][2])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(RE_DOCRED, max_size=2),
    CHOICES,
    st.sampled_from([("document", "close"), ("document", "all"), ("sentence", "close")]),
)
def test_random_re_docred(documents, labels, how):
    unit, mentions = how
    docs, report = convert(re_docred, documents, labels=labels, unit=unit, mentions=mentions)
    if unit == "document":
        assert len(docs) + sum(report.instances.left_out.values()) == len(documents)
    check_docs(docs)
    assert sum(len(doc._.relations) for doc in docs) == sum(report.labels.values())
    for document in documents:
        one, its_report = convert(re_docred, [document], labels=labels, unit=unit, mentions=mentions)
        if one:
            assert its_report.relations.read == len(document["labels"])
            assert its_report.mentions.read == sum(
                len(entity) if isinstance(entity, list) else 1 for entity in document["vertexSet"]
            )
            if unit == "sentence":
                assert its_report.instances.read == len(document["sents"])


@settings(max_examples=60, deadline=None)
@given(st.lists(KNOWLEDGENET, max_size=3), CHOICES, st.sampled_from([None, {1, 2}]))
def test_random_knowledgenet(passages, labels, folds):
    docs, report = convert(knowledgenet, passages, labels=labels, folds=folds)
    assert len(docs) + sum(report.instances.left_out.values()) == len(passages)
    check_docs(docs)
    for value in passages:
        one, its_report = convert(knowledgenet, [value], labels=labels)
        if one:
            assert one[0].text == value["passage"]
            assert its_report.relations.read == len(value["facts"])


# --- the reader


@pytest.fixture
def corpus_file(tmp_path):
    docs, _ = convert(spert, [spert_sentence(orig_id=i) for i in range(12)])
    long, _ = convert(re_docred, [re_docred_document()], labels=LabelChoice(exclude=["P19"]))
    path = tmp_path / "corpus" / "one.spacy"
    path.parent.mkdir()
    DocBin(docs=[*docs, *long], store_user_data=True).to_disk(path)
    return path


class Pipeline:
    """As much of ``Language`` as a corpus needs."""

    def __init__(self):
        self.vocab = Vocab()


def sources(examples):
    return [example.reference.user_data["source"] for example in examples]


def test_corpus_gives_gold_entities_and_no_relations(corpus_file):
    *_, first, document = create_relation_corpus(corpus_file)(Pipeline())
    assert first.predicted.text == first.reference.text == "John Smith of Acme Corp lives in Rome."
    assert [(ent.text, ent.label_) for ent in first.predicted.ents] == [
        ("John Smith", "Peop"),
        ("Acme Corp", "Org"),
        ("Rome", "Loc"),
    ]
    assert [span.text for span in first.predicted.spans["entities"]] == ["John Smith", "Acme Corp", "Rome"]
    assert first.predicted._.relations == []
    assert len(first.reference._.relations) == 2
    assert not first.predicted.has_annotation("SENT_START")
    assert [sent.start for sent in document.predicted.sents] == [0, 7, 10]


def test_corpus_gives_lists_where_docbin_gave_tuples(corpus_file):
    *_, document = create_relation_corpus(corpus_file)(Pipeline())
    data = document.reference.user_data
    assert isinstance(data["ignored_pairs"], list) and isinstance(data["ignored_pairs"][0], list)
    assert isinstance(document.reference._.relations, list)
    assert isinstance(document.reference._.relations[0]["head_pos"], list)


def test_own_labels_are_offered(corpus_file):
    assert {eg.predicted._.relation_labels for eg in create_relation_corpus(corpus_file)(Pipeline())} == {None}
    examples = list(create_relation_corpus(corpus_file, own_labels=True)(Pipeline()))
    gold = sorted({relation["label"] for eg in examples for relation in eg.reference._.relations})
    assert gold and all(eg.predicted._.relation_labels == gold for eg in examples)


def test_corpus_without_gold_entities(corpus_file):
    example = next(iter(create_relation_corpus(corpus_file, gold_ents=False)(Pipeline())))
    assert not example.predicted.ents and "entities" not in example.predicted.spans
    assert example.reference.ents


def test_corpus_limits(corpus_file, caplog):
    assert len(list(create_relation_corpus(corpus_file, limit=3)(Pipeline()))) == 3
    with caplog.at_level(logging.WARNING, logger="spacy"):
        assert len(list(create_relation_corpus(corpus_file, max_length=9)(Pipeline()))) == 12
    assert "left out 1 documents of more than 9 tokens" in caplog.text
    with pytest.raises(ValueError, match=r"holds no documents of at most 2 tokens"):
        list(create_relation_corpus(corpus_file, max_length=2)(Pipeline()))
    with pytest.raises(ValueError, match=r"limit is -1; expected 0"):
        create_relation_corpus(corpus_file, limit=-1)


def test_corpus_shuffles_anew_in_each_epoch_and_the_same_in_each_run(corpus_file):
    first_run, second_run = (create_relation_corpus(corpus_file, shuffle=True, seed=4) for _ in range(2))
    epochs = [sources(first_run(Pipeline())) for _ in range(3)]
    assert epochs == [sources(second_run(Pipeline())) for _ in range(3)]
    assert epochs[0] != epochs[1]
    assert {tuple(sorted(epoch)) for epoch in epochs} == {tuple(sorted(epochs[0]))}
    plain = create_relation_corpus(corpus_file)
    assert sources(plain(Pipeline())) == sources(plain(Pipeline())) == [*map(str, range(12)), "Ann"]


def test_corpus_reads_a_folder_in_the_order_of_names(corpus_file):
    docs, _ = convert(spert, [spert_sentence(orig_id="a")])
    DocBin(docs=docs, store_user_data=True).to_disk(corpus_file.parent / "a.spacy")
    found = sources(create_relation_corpus(corpus_file.parent)(Pipeline()))
    assert found[:2] == ["a", "0"] and len(found) == 14


def test_corpus_errors(tmp_path):
    def read(path):
        return list(create_relation_corpus(path)(Pipeline()))

    with pytest.raises(FileNotFoundError, match=r"does not exist; expected a \.spacy file"):
        read(tmp_path / "absent.spacy")
    with pytest.raises(FileNotFoundError, match=r"folder without \.spacy files"):
        read(tmp_path)
    path = tmp_path / "broken.spacy"
    path.write_bytes(b"no zlib")
    with pytest.raises(ValueError, match=r"is not a \.spacy file"):
        read(path)
    DocBin(store_user_data=True).to_disk(path)
    with pytest.raises(ValueError, match="holds no documents; expected at least one"):
        read(path)
    doc = Doc(VOCAB, words=["a"])
    doc._.relations = [{"head_pos": [0, 5], "tail_pos": [0, 1], "label": "x"}]
    DocBin(docs=[doc], store_user_data=True).to_disk(path)
    with pytest.raises(ValueError, match=r"document 0 of .*head_pos of a relation"):
        read(path)


# --- where the data is


def test_find_data(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert find_data("set") == tmp_path / "set"
    with pytest.raises(FileNotFoundError, match=rf"set {VARIABLE} .*\(https://github\.com/thunlp/FewRel\)"):
        find_data("fewrel")
    assert find_file(Path("set/a.json")) == tmp_path / "set" / "a.json"
    for path in ("a.json", "none/a.json", "/set/a.json"):
        assert find_file(Path(path)) == Path(path)
    with pytest.raises(FileNotFoundError, match=f"set {VARIABLE}"):
        find_file(Path("fewrel/val_nyt.json"))


def test_find_data_beside_the_current_folder(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "shared" / "data" / "made_up_set").mkdir(parents=True)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(home)
    assert find_data("made_up_set") == tmp_path / "shared" / "data" / "made_up_set"


# --- the published files, counted by their publishers


def real(module, path, **options):
    report = ConversionReport()
    docs = list(module.read(path, VOCAB, report=report, **options))
    check_docs(random.Random(0).sample(docs, min(20, len(docs))))
    return docs, report


def test_conll04():
    _, report = real(spert, data_set("conll04") / "conll04_dev.json")
    assert (report.docs, report.entities, sum(report.labels.values())) == (231, 893, 343)


def test_scierc_nested_entities():
    docs, report = real(spert, data_set("scierc") / "spert" / "scierc_dev.json")
    assert (report.docs, report.mentions.read, report.relations.read) == (275, 811, 455)
    assert sum(len(doc.ents) for doc in docs) < report.entities


def test_fewrel_pubmed():
    _, report = real(fewrel, data_set("fewrel") / "val_pubmed.json")
    assert (report.docs, report.instances.read, len(report.labels)) == (1000, 1000, 10)


@pytest.mark.parametrize(("unit", "docs"), [("document", 500), ("sentence", 4110)])
def test_re_docred(unit, docs):
    folder = data_set("re_docred")
    labels = LabelChoice(names=load_names(folder / "rel_info.derived.json"))
    _, report = real(re_docred, folder / "dev_revised.json", labels=labels, unit=unit)
    assert (report.docs, report.mentions.read, report.relations.read) == (docs, 13189, 17284)
    assert report.relations.left_out["no shared sentence"] == (9302 if unit == "sentence" else 0)


def test_re_docred_document_relations_of_the_data():
    folder = data_set("re_docred")
    docs = list(re_docred.read(folder / "dev_revised.json", VOCAB, part=Part(0, 0.1), document_relations=True))
    source = {document["title"]: document for document in json.loads((folder / "dev_revised.json").read_text("utf8"))}
    for doc in docs:
        document = source[doc.user_data["source"]]
        assert len(doc._.mention_clusters) == len(document["vertexSet"])
        assert len(doc._.document_relations) == len(document["labels"])
        names = {" ".join(relation["head_text"]) for relation in doc._.document_relations}
        assert len(names) <= len(document["vertexSet"])


def test_knowledgenet_fold():
    _, report = real(knowledgenet, data_set("knowledgenet") / "train_facts.derived.json", folds={4})
    assert report.instances.read == 5728
    assert (report.docs, report.relations.read, len(report.labels)) == (1435, 2708, 15)


# --- ZeroRTE, and FewRel by sentence --------------------------------------------------------------------------


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf8")
    return path


def zero_rte_line(*triplets: tuple[list[int], list[int], str]) -> dict:
    words = ["Ann", "Lee", "and", "Bob", "met", "."]
    return {"triplets": [{"tokens": words, "head": h, "tail": t, "label": label} for h, t, label in triplets]}


def test_zero_rte_sentences_have_their_triplets(tmp_path):
    path = write_lines(
        tmp_path / "zero.jsonl",
        zero_rte_line(([0, 1], [3], "knows"), ([3], [0, 1], "knows"), ([], [3], "knows"), ([0], [0], "self")),
        zero_rte_line(([0, 2], [3], "gap"), ([3], [4], "met")),
        {"triplets": []},
        {"triplets": [{"tokens": ["a"], "head": [0], "tail": [0]}, {"tokens": ["b"]}]},
    )
    report = ConversionReport()
    docs = list(zero_rte.read(path, Vocab(), report=report))
    assert [[(r["head_pos"], r["tail_pos"], r["label"]) for r in doc._.relations] for doc in docs] == [
        [([0, 2], [3, 4], "knows"), ([3, 4], [0, 2], "knows")],
        [([3, 4], [4, 5], "met")],
    ]
    assert [(span.start, span.end) for span in docs[0].spans["entities"]] == [(0, 1), (0, 2), (3, 4)]
    assert {span.label_ for span in docs[0].spans["entities"]} == {"ENTITY"}
    assert report.relations.converted == 3 and sum(report.relations.left_out.values()) == 3
    assert sum(report.instances.left_out.values()) == 2
    (doc,) = zero_rte.read(path, Vocab(), labels=LabelChoice(only=frozenset({"met"})), limit=5, part=Part(0, 1))
    assert [relation["label"] for relation in doc._.relations] == ["met"]


@pytest.mark.parametrize("bad", [None, 3, [], {}, {"tokens": 3}, {"tokens": []}, {"tokens": ["x", 1]}])
@pytest.mark.parametrize("first", [True, False])
def test_a_malformed_triplet_of_zero_rte_loses_no_other(tmp_path, bad, first):
    (good,) = zero_rte_line(([0, 1], [3], "knows"))["triplets"]
    path = write_lines(tmp_path / "zero.jsonl", {"triplets": [bad, good] if first else [good, bad]})
    report = ConversionReport()
    (doc,) = zero_rte.read(path, Vocab(), report=report)
    assert [relation["label"] for relation in doc._.relations] == ["knows"]
    assert sum(report.relations.left_out.values()) == 1


def test_a_triplet_of_zero_rte_of_another_sentence_is_left_out(tmp_path):
    (good,) = zero_rte_line(([0, 1], [3], "knows"))["triplets"]
    other = {"tokens": ["x"], "head": [0], "tail": [0], "label": "r"}
    report = ConversionReport()
    (doc,) = zero_rte.read(write_lines(tmp_path / "z.jsonl", {"triplets": [good, other]}), Vocab(), report=report)
    assert len(doc._.relations) == 1 and report.relations.left_out == {"words of another sentence": 1}


def test_fewrel_instances_of_a_sentence_can_be_one_document(tmp_path):
    words = ["Ann", "wrote", "Blue", "in", "Rome"]
    instance = {"tokens": words, "h": ["ann", "Q1", [[0]]], "t": ["blue", "Q2", [[2]]]}
    other = {"tokens": words, "h": ["ann", "Q1", [[0]]], "t": ["rome", "Q3", [[4]]]}
    broken = {"tokens": words, "h": ["ann", "Q1", [[0, 2]]], "t": ["rome", "Q3", [[4]]]}
    path = tmp_path / "fewrel.json"
    path.write_text(json.dumps({"P1": [instance, broken], "P2": [other], "P3": [{**broken, "tokens": ["x"]}]}))
    report = ConversionReport()
    (doc,) = fewrel.read(path, Vocab(), by_sentence=True, report=report)
    assert [(r["head_pos"], r["tail_pos"], r["label"]) for r in doc._.relations] == [
        ([0, 1], [2, 3], "P1"), ([0, 1], [4, 5], "P2"),
    ]  # fmt: skip
    assert sum(report.relations.left_out.values()) == 1 and sum(report.instances.left_out.values()) == 1
    chosen = LabelChoice(only=frozenset({"P2"}))
    (doc,) = fewrel.read(path, Vocab(), by_sentence=True, labels=chosen)
    assert [relation["label"] for relation in doc._.relations] == ["P2"]
    assert doc.user_data["ignored_pairs"] == [[0, 1, 2, 3]]
