"""``spacy-ie-moe evaluate`` on a small real pipeline, in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from typer.testing import CliRunner

from spacy_ie_moe.cli import app
from spacy_ie_moe.documents.relations import cluster_texts, make_document_relation
from spacy_ie_moe.relations import make_relation

RUNNER = CliRunner()


@Language.factory(
    "toy_relations",
    assigns=["doc._.relations"],
    requires=["doc.ents"],
    default_config={"labels": [], "threshold": 0.5, "score": 0.6},
)
class ToyRelations:
    """Relates each entity to the next one with its first label, unless they are more than 6 tokens apart."""

    def __init__(self, nlp: Language, name: str, labels: list[str], threshold: float, score: float) -> None:
        self.labels = tuple(labels)
        self.threshold = threshold
        self.score = score
        self.unscored_pairs = 0

    def set_labels(self, labels: list[str] | dict[str, dict]) -> None:
        self.labels = tuple(labels)

    def __call__(self, doc: Doc) -> Doc:
        pairs = list(zip(doc.ents, doc.ents[1:], strict=False))
        near = [(head, tail) for head, tail in pairs if tail.start - head.start <= 6]
        self.unscored_pairs += len(pairs) - len(near)
        if self.score >= self.threshold:
            doc._.relations = [make_relation(head, tail, self.labels[0], self.score) for head, tail in near]
        return doc

    def to_disk(self, path, exclude=()) -> None:
        """Everything is in the config."""

    def from_disk(self, path, exclude=()) -> ToyRelations:
        return self


@Language.factory("toy_fixed", assigns=["doc._.relations"])
def make_fixed(nlp: Language, name: str):
    """A component without labels and threshold that finds nothing."""
    return lambda doc: doc


PATTERNS = [
    {"label": "PER", "pattern": "Ann"},
    {"label": "PER", "pattern": "Bob"},
    {"label": "ORG", "pattern": "Acme"},
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", labels=["works_at", "owns"])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two documents with three gold relations; the ruler does not know Rome."""
    vocab = spacy.blank("en").vocab
    first = Doc(vocab, words=["Ann", "works", "at", "Acme", "in", "Rome", "."])
    ann, acme, rome = (
        Span(first, 0, 1, label="PER"),
        Span(first, 3, 4, label="ORG"),
        Span(first, 5, 6, label="LOC"),
    )
    first.ents = [ann, acme, rome]
    first._.relations = [make_relation(ann, acme, "works_at"), make_relation(acme, rome, "located_in")]
    second = Doc(vocab, words=["Bob", "was", "seen", "by", "many", "who", "know", "and", "like", "Ann"])
    bob, ann = Span(second, 0, 1, label="PER"), Span(second, 9, 10, label="PER")
    second.ents = [bob, ann]
    second._.relations = [make_relation(bob, ann, "knows")]
    return save_data(tmp_path / "gold.spacy", [first, second])


def save_model(path: Path, **config) -> Path:
    nlp = spacy.blank("en")
    ruler: Any = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(PATTERNS)
    nlp.add_pipe("toy_relations", config=config)
    nlp.to_disk(path)
    return path


def save_data(path: Path, docs: list[Doc], *, user_data: bool = True) -> Path:
    path.parent.mkdir(exist_ok=True)
    DocBin(docs=docs, store_user_data=user_data).to_disk(path)
    return path


def run(*arguments: object):
    return RUNNER.invoke(app, ["evaluate", *map(str, arguments)])


def run_json(output: Path, *arguments: object) -> dict:
    result = run(*arguments, "--output", output)
    assert result.exit_code == 0, result.output
    return json.loads(output.read_text(encoding="utf8"))


def test_whole_pipeline(model: Path, data: Path, tmp_path: Path) -> None:
    scores = run_json(tmp_path / "scores.json", model, data)
    # The ruler finds Ann, Acme, Bob and Ann, but not Rome; Bob and Ann are too far apart.
    assert (scores["micro"]["tp"], scores["micro"]["fp"], scores["micro"]["fn"]) == (1, 0, 2)
    assert scores["micro"]["recall"] == pytest.approx(1 / 3)
    assert scores["macro"] == pytest.approx({"precision": 1 / 3, "recall": 1 / 3, "f1": 1 / 3})
    assert (scores["entities"]["tp"], scores["entities"]["fp"], scores["entities"]["fn"]) == (4, 0, 1)
    assert scores["unscored_pairs"] == {"toy_relations": 1}
    assert scores["documents"] == 2
    assert scores["settings"] == {
        "model": str(model),
        "data": [str(data)],
        "gold_ents": False,
        "labels": {"toy_relations": ["works_at", "owns"]},
        "threshold": {"toy_relations": 0.5},
        "symmetric": [],
        "inverse": {},
        "disabled": [],
    }


def test_gold_entities(model: Path, data: Path, tmp_path: Path) -> None:
    scores = run_json(tmp_path / "scores.json", model, data, "--gold-ents")
    assert scores["settings"]["disabled"] == ["entity_ruler"]
    assert scores["entities"]["f1"] == 1.0
    assert (scores["micro"]["tp"], scores["micro"]["fp"], scores["micro"]["fn"]) == (1, 1, 2)
    assert {"gold": "located_in", "predicted": "works_at", "count": 1} in scores["confusion"]
    assert scores["per_label"]["works_at"]["precision"] == 0.5
    assert scores["per_label"]["knows"]["support"] == 1


def test_report(model: Path, data: Path) -> None:
    result = run(model, data, "--gold-ents", "--bootstrap", 50)
    assert result.exit_code == 0
    assert "2 documents, 3 gold relations, 2 predicted" in result.stdout
    assert "toy_relations: 1 pairs not scored" in result.stdout
    assert "95% interval of F1" in result.stdout
    assert "located_in -> works_at" in result.stdout
    assert "knows -> (no relation)" in result.stdout
    micro = next(line for line in result.stdout.splitlines() if line.startswith("micro"))
    assert micro.split() == ["micro", "50.00", "33.33", "40.00", "1", "1", "2"]
    assert "its own labels (2)" in result.stderr


def test_batch_size_changes_nothing(model: Path, data: Path, tmp_path: Path) -> None:
    one = run_json(tmp_path / "one.json", model, data, "--batch-size", 1)
    assert one == run_json(tmp_path / "many.json", model, data, "--batch-size", 64)


def test_labels_and_threshold(model: Path, data: Path, tmp_path: Path) -> None:
    scores = run_json(tmp_path / "scores.json", model, data, "--gold-ents", "--labels", "located_in, owns")
    assert scores["settings"]["labels"] == {"toy_relations": ["located_in", "owns"]}
    assert scores["per_label"]["located_in"]["tp"] == 1
    scores = run_json(tmp_path / "scores.json", model, data, "--threshold", 0.7)
    assert scores["settings"]["threshold"] == {"toy_relations": 0.7}
    assert scores["micro"]["tp"] == scores["micro"]["fp"] == 0


@pytest.mark.parametrize("text", ["located_in\n\nowns\n", '["located_in", "owns"]', '{"located_in": {}, "owns": {}}'])
def test_labels_file(model: Path, data: Path, tmp_path: Path, text: str) -> None:
    file = tmp_path / "labels"
    file.write_text(text, encoding="utf8")
    scores = run_json(tmp_path / "scores.json", model, data, "--labels-file", file)
    assert scores["settings"]["labels"] == {"toy_relations": ["located_in", "owns"]}


@pytest.mark.parametrize("own", [[], ["unrelated"]])
def test_gold_labels_where_the_own_ones_cannot_score(tmp_path: Path, data: Path, own: list[str]) -> None:
    model = save_model(tmp_path / "other", labels=own)
    result = run(model, data, "--output", tmp_path / "scores.json")
    assert "looks for the gold labels of the data (3)" in result.stderr
    settings = json.loads((tmp_path / "scores.json").read_text(encoding="utf8"))["settings"]
    assert settings["labels"] == {"toy_relations": ["knows", "located_in", "works_at"]}


def test_the_bundled_pipeline_looks_for_the_gold_labels(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = SimpleNamespace(bundled_pipeline=lambda: spacy.load(model))
    monkeypatch.setitem(sys.modules, "spacy_ie_moe.pipeline", bundled)
    settings = run_json(tmp_path / "scores.json", "bundled", data)["settings"]
    assert settings["labels"] == {"toy_relations": ["knows", "located_in", "works_at"]}


def test_symmetric_labels(tmp_path: Path, model: Path) -> None:
    doc = Doc(spacy.blank("en").vocab, words=["Ann", "met", "Bob"])
    doc._.relations = [make_relation(doc[2:3], doc[0:1], "owns"), make_relation(doc[0:1], doc[2:3], "likes")]
    data = save_data(tmp_path / "gold.spacy", [doc])
    arguments = (model, data, "--labels", "owns")
    assert run_json(tmp_path / "scores.json", *arguments)["micro"]["tp"] == 0
    assert run_json(tmp_path / "scores.json", *arguments, "--symmetric", "owns")["micro"]["tp"] == 1
    file = tmp_path / "labels.json"
    file.write_text('{"owns": {"symmetric": true}}', encoding="utf8")
    scores = run_json(tmp_path / "scores.json", model, data, "--labels-file", file)
    assert (scores["settings"]["symmetric"], scores["micro"]["tp"]) == (["owns"], 1)


def test_folders_and_several_files(model: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "copy.spacy").write_bytes(data.read_bytes())
    assert run_json(tmp_path / "scores.json", model, folder, data)["documents"] == 4


def test_errors_are_one_sentence(model: Path, data: Path, tmp_path: Path) -> None:
    nothing = spacy.blank("en")
    nothing.add_pipe("toy_fixed")
    nothing.to_disk(tmp_path / "fixed")
    (tmp_path / "broken.spacy").write_bytes(b"no DocBin")
    bare = save_data(tmp_path / "bare.spacy", [Doc(nothing.vocab, words=["Ann"])], user_data=False)
    (tmp_path / "labels.json").write_text("[", encoding="utf8")
    (tmp_path / "empty.txt").write_text("\n", encoding="utf8")
    cases = [
        ((tmp_path / "absent", data), 1, "absent"),
        ((model, tmp_path / "absent.spacy"), 1, "absent.spacy"),
        ((model, tmp_path / "broken.spacy"), 1, "not a .spacy file"),
        ((model, bare), 1, "the data have no relation"),
        ((tmp_path / "fixed", data, "--labels", "a"), 1, "no component takes labels: toy_fixed"),
        ((tmp_path / "fixed", data, "--threshold", 0.5), 1, "no component has one: toy_fixed"),
        ((model, data, "--labels", " , "), 1, "--labels has no label"),
        ((model, data, "--labels-file", tmp_path / "labels.json"), 1, "labels.json cannot be read"),
        ((model, data, "--labels-file", tmp_path / "empty.txt"), 1, "has no label"),
        ((model, data, "--labels", "a", "--labels-file", data), 1, "expected one of them"),
        ((model, data, "--output", tmp_path / "absent" / "scores.json"), 2, "there is no folder"),
    ]
    for arguments, code, message in cases:
        result = run(*arguments)
        assert result.exit_code == code, (arguments, result.output)
        assert isinstance(result.exception, SystemExit)
        assert message in result.stderr
        assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1
        assert not result.stdout


def test_a_component_that_replaces_the_given_entities_is_told(tmp_path: Path, data: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("toy_clear")
    nlp.to_disk(tmp_path / "clear")
    result = run(tmp_path / "clear", data, "--gold-ents")
    assert result.exit_code == 0
    assert "changed the given gold entities" in result.stderr


@Language.component("toy_clear")
def clear_entities(doc: Doc) -> Doc:
    doc.ents = []
    return doc


# --- document relations


@pytest.fixture
def documents(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A pipeline that relates neighbours, a gold document and training facts.

    With gold clusters Ann works at Acme (right, and a fact), Acme at Bob (wrong), and Bob knows no one (missed).
    """
    nlp = spacy.blank("en")
    ruler: Any = nlp.add_pipe("entity_ruler")
    ruler.add_patterns(PATTERNS)
    nlp.add_pipe("toy_relations", config={"labels": ["works_at"]})
    nlp.add_pipe("document_relations")
    nlp.to_disk(tmp_path / "model")
    doc = Doc(nlp.vocab, words=["Ann", "joined", "Acme", ",", "then", "Bob", "met", "Ann", "."])
    clusters = [[(0, 1), (7, 8)], [(2, 3)], [(5, 6)]]
    doc._.relations = [make_relation(doc[0:1], doc[2:3], "works_at")]
    texts = cluster_texts(doc, clusters)
    doc._.mention_clusters = clusters
    doc._.document_relations = [
        make_document_relation(texts, 0, 1, "works_at", {}, score=1.0),
        make_document_relation(texts, 2, 0, "knows", {}, score=1.0),
    ]
    (tmp_path / "facts.jsonl").write_text('{"head": "Ann", "label": "works_at", "tail": "Acme"}\n', "utf8")
    return tmp_path / "model", save_data(tmp_path / "documents.spacy", [doc]), tmp_path / "facts.jsonl"


def test_document_relations(documents: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, data, facts = documents
    output = tmp_path / "scores.json"
    scores = run_json(output, model, data, "--gold-clusters", "--training-facts", facts)
    exact = scores["document_relations"]["exact"]
    # Predicted are Ann-Acme, Acme-Bob and Bob-Ann, gold are Ann-Acme and Bob knows Ann.
    assert (exact["micro"]["tp"], exact["micro"]["fp"], exact["micro"]["fn"], exact["known"]) == (1, 2, 1, 1)
    assert (exact["ign_precision"], exact["ign_f1"]) == (0.0, 0.0)
    assert scores["settings"]["gold_clusters"] is True
    assert "exact, without known facts" in run(model, data, "--gold-clusters", "--training-facts", facts).output
    scores = run_json(output, model, data)
    levels = scores["document_relations"]
    assert levels["exact"]["micro"]["tp"] == 0, "Ann's cluster has one of her mentions"
    assert (levels["majority"]["micro"]["tp"], levels["majority"]["ign_f1"]) == (1, None)


def test_links_of_coreference_are_no_wrong_relations(documents: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """They are kept with the gold labels, make clusters, and count as relations only where gold has them."""
    model, data, _ = documents
    nlp = spacy.load(model, config={"components.toy_relations.labels": ["SELF", "other"]})
    nlp.to_disk(tmp_path / "links")
    output = tmp_path / "scores.json"
    scores = run_json(output, tmp_path / "links", data)
    assert scores["settings"]["labels"] == {"toy_relations": ["works_at", "SELF"]}
    scores = run_json(output, tmp_path / "links", data, "--labels", "SELF,works_at")
    assert scores["micro"]["fp"] == 0, "it finds SELF, its first label"
    (gold,) = DocBin(store_user_data=True).from_disk(data).get_docs(nlp.vocab)
    gold._.relations = [make_relation(gold[0:1], gold[7:8], "SELF")]
    annotated = run_json(output, tmp_path / "links", save_data(tmp_path / "self.spacy", [gold]))
    assert annotated["micro"]["fp"] == 3
    result = run(tmp_path / "links", data, "--labels", "works_at")
    assert "does not look for SELF, by which document_relations joins mentions: --labels lacks it" in result.output


@Language.component("toy_coref")
def find_wrong_clusters(doc: Doc) -> Doc:
    """Everything is one thing."""
    doc.spans["coref_clusters_1"] = [doc[0:1], doc[2:3], doc[5:6], doc[7:8]]
    return doc


def test_gold_document_clusters_survive_a_coreference_pipe(documents: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """A second ``document_relations``, without span groups, is given gold clusters too and scored once."""
    model, data, _ = documents
    nlp = spacy.load(model)
    nlp.add_pipe("toy_coref", before="document_relations")
    nlp.add_pipe("document_relations", name="second", config={"coref_prefix": None})
    nlp.to_disk(tmp_path / "coref")
    output = tmp_path / "scores.json"
    found, given = (run_json(output, tmp_path / "coref", data, *options) for options in ((), ("--gold-clusters",)))
    assert found["document_relations"]["exact"]["micro"]["tp"] == 0
    assert [given["document_relations"]["exact"]["micro"][count] for count in ("tp", "fp")] == [1, 2]


def test_symmetric_labels_of_document_relations(documents: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, data, _ = documents
    nlp = spacy.load(model)
    (gold,) = DocBin(store_user_data=True).from_disk(data).get_docs(nlp.vocab)
    texts = cluster_texts(gold, gold._.mention_clusters)
    gold._.document_relations = [make_document_relation(texts, 2, 1, "works_at", {}, score=1.0)]
    save_data(data, [gold])
    output = tmp_path / "scores.json"
    found = [run_json(output, model, data, "--gold-clusters", *given) for given in ((), ("--symmetric", "works_at"))]
    assert [scores["document_relations"]["exact"]["micro"]["tp"] for scores in found] == [0, 1]
    assert found[1]["settings"]["document_symmetric"] == ["works_at"]


def test_document_relations_of_another_component(documents: tuple[Path, Path, Path], tmp_path: Path) -> None:
    model, data, _ = documents
    nlp = spacy.load(model)
    nlp.remove_pipe("document_relations")
    nlp.add_pipe("toy_documents")
    nlp.to_disk(tmp_path / "other")
    scores = run_json(tmp_path / "scores.json", tmp_path / "other", data)
    assert scores["document_relations"]["exact"]["micro"]["fn"] == 2
    result = run(tmp_path / "other", data, "--gold-clusters")
    assert result.exit_code == 1 and "--gold-clusters is given, but there are no document relations" in result.output


@Language.component("toy_documents", assigns=["doc._.document_relations"])
def find_no_document_relations(doc: Doc) -> Doc:
    return doc


def test_wrong_training_facts_are_told_before_the_model_is_loaded(tmp_path: Path, data: Path) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text("{}\n", "utf8")
    result = run(tmp_path / "no model", data, "--training-facts", facts)
    assert result.exit_code == 1 and "line 1 of training_facts" in result.output


@pytest.mark.parametrize("option", ["--gold-clusters", "--training-facts"])
def test_options_of_document_relations_need_some(model: Path, data: Path, option: str, tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").touch()
    result = run(model, data, option, *([tmp_path / "facts.jsonl"] if option == "--training-facts" else []))
    assert result.exit_code == 1
    assert f"{option} is given, but there are no document relations; expected" in result.output
