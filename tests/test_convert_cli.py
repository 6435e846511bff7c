import json
import os

import pytest
from spacy.tokens import DocBin
from spacy.vocab import Vocab
from typer.testing import CliRunner

from spacy_ie_moe.cli import app

FEWREL = {
    relation_id: [
        {"tokens": [f"Ann{i}", "of", "Bern"], "h": ["ann", "Q1", [[0]]], "t": ["bern", "Q2", [[2]]]} for i in range(10)
    ]
    for relation_id in ("P19", "P20")
}
SPERT = [
    {
        "tokens": ["Ann", "of", "Bern"],
        "entities": [{"type": "Peop", "start": 0, "end": 1}, {"type": "Loc", "start": 2, "end": 3}],
        "relations": [{"type": "Live_In", "head": 0, "tail": 1}, {"type": "Kill", "head": 0, "tail": 7}],
        "orig_id": 1,
    }
]
RE_DOCRED = [
    {
        "title": "Ann",
        "sents": [["Ann", "spoke", "."], ["Ann", "left", "Bern", "."]],
        "vertexSet": [
            [
                {"name": "Ann", "sent_id": 0, "pos": [0, 1], "type": "PER"},
                {"name": "Ann", "sent_id": 1, "pos": [0, 1], "type": "PER"},
            ],
            [{"name": "Bern", "sent_id": 1, "pos": [2, 3], "type": "LOC"}],
        ],
        "labels": [{"h": 0, "t": 1, "r": "P19", "evidence": []}],
    }
]
KNOWLEDGENET = [
    {
        "fold": fold,
        "document": fold,
        "passage_start": 0,
        "passage": "Ann, child of Bob.",
        "facts": [
            {
                "property": "CHILD_OF",
                "subject_start": 0,
                "subject_end": 3,
                "object_start": 14,
                "object_end": 17,
            }
        ],
    }
    for fold in (1, 2, 3)
]
COLUMNS = "Ann B-PER\nof O\nBern B-LOC\n\n" + "".join(f"Bob{i} B-PER\nleft O\n\n" for i in range(9))
KBP37 = '1\t" <e1> Ann </e1> of <e2> Bern </e2> "\nper:origin(e2,e1)\n\n\n'
GENEVA = {
    "wnd_id": "1",
    "tokens": ["Ann", "left", "Bern"],
    "entity_mentions": [{"id": "a", "start": 0, "end": 1}, {"id": "b", "start": 2, "end": 3}],
    "event_mentions": [
        {
            "event_type": "Departing",
            "trigger": {"start": 1, "end": 2, "text": "left"},
            "arguments": [{"entity_id": "a", "role": "Theme"}, {"entity_id": "b", "role": "Source"}],
        }
    ],
}
PHEE = {
    "id": "1",
    "context": "aspirin caused a rash",
    "annotations": [
        {
            "events": [
                {
                    "event_type": "Adverse_event",
                    "Trigger": {"text": [["caused"]], "start": [[8]]},
                    "Treatment": {
                        "text": [["aspirin"]],
                        "start": [[0]],
                        "Drug": {"text": [["aspirin"]], "start": [[0]]},
                    },
                }
            ]
        }
    ],
}
CASIE = {
    "content": "It began. Acme was hacked.",
    "cyberevent": {
        "hopper": [
            {
                "events": [
                    {
                        "subtype": "Databreach",
                        "nugget": {"text": "hacked", "startOffset": 19, "endOffset": 25},
                        "argument": [
                            {
                                "text": "Acme",
                                "startOffset": 10,
                                "endOffset": 14,
                                "type": "Org",
                                "role": {"type": "Victim"},
                            }
                        ],
                    }
                ]
            }
        ]
    },
}
ASTE = "the pizza is great####[([1], [3], 'POS')]\n"
TEXTS = {"columns": COLUMNS, "kbp37": KBP37, "aste": ASTE}
DATA = {
    "phee": PHEE,
    "casie": CASIE,
    "geneva": GENEVA,
    "spert": SPERT,
    "fewrel": FEWREL,
    "re-docred": RE_DOCRED,
    "knowledgenet": KNOWLEDGENET,
}


@pytest.fixture
def run(tmp_path):
    """Convert the small sample of a format; gives the result and the documents written."""
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"P19": ["place of birth", "where born"], "P20": ["place of death", ""]}))

    def call(format_name, *options, output="out/corpus.spacy"):
        source = tmp_path / f"{format_name}.json"
        source.write_text(TEXTS.get(format_name) or json.dumps(DATA[format_name]))
        target = tmp_path / output
        arguments = ["convert", format_name, str(source), str(target), *options]
        result = CliRunner().invoke(app, [argument.replace("NAMES", str(names)) for argument in arguments])
        docs = []
        if target.is_file():
            docs = list(DocBin(store_user_data=True).from_disk(target).get_docs(Vocab()))
        return result, docs

    return call


def counts(result):
    """The table on stdout: what -> count."""
    rows = (line.rsplit(maxsplit=1) for line in result.stdout.splitlines())
    return {name.strip(): int(count) for name, count in rows}


def labels(docs):
    return {relation["label"] for doc in docs for relation in doc._.relations}


@pytest.mark.parametrize(("format_name", "expected"), [("spert", 1), ("fewrel", 20), ("re-docred", 1)])
def test_formats(run, format_name, expected):
    result, docs = run(format_name)
    assert result.exit_code == 0, result.output
    assert len(docs) == counts(result)["documents"] == expected
    assert all(doc.ents and "entities" in doc.spans and doc.user_data["source"] for doc in docs)
    assert sum(len(doc._.relations) for doc in docs) == counts(result)["relations"]


def test_report_says_what_was_left_out(run):
    result, _ = run("spert")
    assert counts(result) == {
        "documents": 1,
        "entities": 2,
        "relations": 1,
        "relation labels": 1,
        "instances read": 1,
        "mentions read": 2,
        "annotated relations read": 2,
        "left out: argument is no converted entity": 1,
    }


def test_names_only_and_exclude(run, tmp_path):
    _, docs = run("fewrel", "--names", "NAMES")
    assert labels(docs) == {"place of birth", "place of death"}
    _, docs = run("fewrel", "--names", "NAMES", "--exclude", "place of birth, father")
    assert labels(docs) == {"place of death"}
    kept = tmp_path / "kept.txt"
    kept.write_text("place of birth\n\n")
    _, docs = run("fewrel", "--names", "NAMES", "--only", str(kept))
    assert labels(docs) == {"place of birth"}


def test_label_that_no_relation_has_is_told(run):
    result, _ = run("fewrel", "--exclude", "P19,P91")
    assert result.exit_code == 0
    assert "Warning: no relation read has the label 'P91'" in result.stderr


def test_per_relation(run):
    result, docs = run("fewrel", "--per-relation", "3", "--seed", "1")
    assert len(docs) == 6
    assert counts(result)["left out: beyond the limit per relation"] == 14


def test_parts_share_no_text(run):
    train, dev = ({doc.text for doc in run("fewrel", "--part", part)[1]} for part in ("0:0.8", "0.8:1"))
    assert (len(train), len(dev)) == (8, 2)
    assert not train & dev


def test_folds(run):
    result, docs = run("knowledgenet", "--folds", "1,3")
    assert len(docs) == 2
    assert labels(docs) == {"child of"}
    assert counts(result)["left out: other fold"] == 1
    assert "mentions read" not in counts(result)  # the format lists none


def test_document_relations_and_facts(run, tmp_path):
    _, docs = run("re-docred", "--document-relations", "--self-label", "SELF")
    assert len(docs[0]._.document_relations) == 1 and len(docs[0]._.mention_clusters) == 2
    assert labels(docs) == {"P19", "SELF"}
    facts = tmp_path / "facts" / "train.jsonl"
    result, docs = run("re-docred", "--facts", str(facts), "--names", "NAMES")
    assert result.exit_code == 0, result.output
    assert json.loads(facts.read_text("utf8")) == {"head": "Ann", "label": "place of birth", "tail": "Bern"}
    assert len(docs[0]._.document_relations) == 1
    result, _ = run("fewrel", "--facts", str(facts))
    assert "--facts is given for FORMAT 'fewrel'; expected only for re-docred" in result.output
    result, _ = run("re-docred", "--facts", str(facts), "--unit", "sentence")
    assert "--facts is given with --unit sentence; expected --unit document" in result.output
    result, _ = run("re-docred", "--facts", str(tmp_path / "out/../out/a.spacy"), output="out/a.spacy")
    assert "which is OUTPUT too; expected another file" in result.output
    result, _ = run("re-docred", "--self-label", "")
    assert "self_label is ''; expected a label" in result.output
    result, _ = run("re-docred", "--document-relations", "--unit", "sentence")
    assert "expected unit 'document' with it" in result.output


def test_unit_and_mentions(run):
    _, docs = run("re-docred", "--unit", "sentence")
    assert [len(doc._.relations) for doc in docs] == [0, 1]
    _, docs = run("re-docred", "--mentions", "all")
    assert [len(doc._.relations) for doc in docs] == [2]
    _, docs = run("re-docred")
    assert [len(doc._.relations) for doc in docs] == [1]
    assert [sent.start for sent in docs[0].sents] == [0, 3]


@pytest.mark.parametrize(
    ("format_name", "options", "task", "schema", "fillers"),
    [
        ("columns", [], "NER", {"LOC": [], "PER": []}, 0),
        ("kbp37", [], "RE", {"per:origin": ["subject", "object"]}, 2),
        ("phee", [], "EE", {"Adverse_event": ["Treatment"]}, 1),
        ("phee", ["--sub-roles"], "EE", {"Adverse_event": ["Treatment", "Treatment.Drug"]}, 2),
        ("casie", [], "EE", {"Databreach": ["Victim"]}, 1),
        ("casie", ["--unit", "sentence"], "EE", {"Databreach": ["Victim"]}, 1),
        ("geneva", [], "EE", {"Departing": ["Source", "Theme"]}, 2),
        ("aste", [], "ABSA", {"positive": ["aspect", "opinion"]}, 2),
        ("spert", ["--task", "RE"], "RE", {"Live_In": ["subject", "object"]}, 2),
        ("spert", ["--task", "NER"], "NER", {"Loc": [], "Peop": []}, 0),
        ("re-docred", ["--task", "NER", "--unit", "sentence"], "NER", {"LOC": [], "PER": []}, 0),
        ("knowledgenet", ["--task", "RE"], "RE", {"child of": ["subject", "object"]}, 6),
    ],
)
def test_formats_with_frames(run, format_name, options, task, schema, fillers):
    result, docs = run(format_name, *options)
    assert result.exit_code == 0, result.output
    assert counts(result)["documents"] == len(docs)
    assert counts(result)["frames"] == sum(len(doc._.frames) for doc in docs) > 0
    assert counts(result)["slots"] == fillers
    for doc in docs:
        assert doc._.uie_task == task
        assert {name: list(slots) for name, slots in doc._.uie_schema.items()} == schema


def test_relation_formats_have_no_frames_unless_asked(run):
    _, (doc,) = run("spert")
    assert set(doc.user_data) == {"source", "ignored_pairs", ("._.", "relations", None, None)}
    assert doc._.uie_task == "" and doc._.uie_schema is None and not doc._.frames


def test_limit(run):
    result, docs = run("columns", "--limit", "4", "--seed", "1")
    assert len(docs) == 4
    assert counts(result)["left out: beyond the limit"] == 6
    result, docs = run("fewrel", "--limit", "3", "--per-relation", "8")
    assert len(docs) == 3
    assert (
        counts(result)["left out: beyond the limit"],
        counts(result)["left out: beyond the limit per relation"],
    ) == (
        13,
        4,
    )


def test_schema_of_a_file_or_of_another_part(run, tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"PER": [], "ORG": []}))
    _, docs = run("columns", "--schema", str(path), output="first.spacy")
    assert list(docs[0]._.uie_schema) == ["PER", "ORG", "LOC"]
    _, docs = run("columns", "--exclude", "LOC", "--schema", str(tmp_path / "first.spacy"))
    assert list(docs[0]._.uie_schema) == ["LOC", "ORG", "PER"]


def test_labels_of_entities_are_chosen_too(run):
    result, docs = run("columns", "--only", "PER,ORG")
    assert {ent.label_ for doc in docs for ent in doc.ents} == {"PER"}
    assert "Warning: no entity read has the label 'ORG'" in result.stderr


@pytest.mark.parametrize(
    ("format_name", "options", "problem"),
    [
        ("fewrel", ["--task", "NER"], "--task is 'NER' for FORMAT 'fewrel'; expected RE."),
        ("spert", ["--task", "EE"], "--task is 'EE' for FORMAT 'spert'; expected RE or NER."),
        ("spert", ["--schema", "a.json"], "--schema is given for FORMAT 'spert' without --task; expected both"),
        ("columns", ["--schema", "absent.json"], "absent.json"),
        ("columns", ["--limit", "0"], "limit is 0; expected a number of at least 1."),
        ("columns", ["--only", "ORG"], "has no frames for task NER; expected at least one"),
        ("aste", ["--sub-roles"], "--sub-roles is given for FORMAT 'aste'; expected only for phee"),
        ("aste", ["--unit", "sentence"], "expected only for re-docred and dygie and casie"),
        ("spert", ["--part", "1:0"], "part is '1:0'; expected two fractions"),
        ("spert", ["--folds", "1"], "--folds is given for FORMAT 'spert'; expected only for knowledgenet"),
        (
            "fewrel",
            ["--unit", "sentence"],
            "--unit is given for FORMAT 'fewrel'; expected only for re-docred",
        ),
        ("knowledgenet", ["--folds", "one"], "--folds is 'one'; expected numbers"),
        ("knowledgenet", ["--folds", "9"], "gave no documents (other fold: 3)"),
        ("re-docred", ["--unit", "x"], "unit is 'x'; expected 'document' or 'sentence'"),
        ("fewrel", ["--per-relation", "0"], "per_relation is 0; expected"),
        ("fewrel", ["--only", ","], "--only is ','; expected names"),
        ("fewrel", ["--names", "absent.json"], "absent.json is no file; expected a map"),
    ],
)
def test_errors_are_one_sentence(run, format_name, options, problem):
    result, docs = run(format_name, *options)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1
    assert problem in result.stderr
    assert result.stdout == "" and docs == []


def test_unknown_format_absent_input_and_wrong_output(tmp_path):
    def stderr(*arguments):
        result = CliRunner().invoke(app, ["convert", *map(str, arguments)])
        assert result.exit_code == 1
        return result.stderr

    source = tmp_path / "a.json"
    assert "expected one of spert, fewrel" in stderr("conll", source, tmp_path / "a.spacy")
    assert "a.json is no file" in stderr("spert", source, tmp_path / "a.spacy")
    source.write_text("[]")
    assert "expected a file name that ends in .spacy" in stderr("spert", source, tmp_path / "a.bin")
    assert "gave no documents (empty)" in stderr("spert", source, tmp_path / "a.spacy")


def test_an_interrupted_write_leaves_the_older_file(run, tmp_path, monkeypatch):
    run("spert")
    target = tmp_path / "out" / "corpus.spacy"
    before = target.read_bytes()

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    result, _ = run("fewrel")
    assert result.exit_code == 1 and "no space left" in result.stderr
    assert target.read_bytes() == before
    assert [path.name for path in target.parent.iterdir()] == ["corpus.spacy"]
