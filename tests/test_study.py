"""Studies: trainings of variants, run and scored in processes of their own."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.cli._util import app as spacy_app
from spacy.cli.train import train
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from typer.testing import CliRunner

from benchmarks import study_report
from benchmarks.study import Study, study
from benchmarks.study_runs import read_runs
from benchmarks.study_scores import Scores, best_threshold
from spacy_ie_moe.corpora.reader import read_docs
from spacy_ie_moe.string_triples import score_triples
from spacy_ie_moe.triplet_scoring import score_triplets

from .test_gmoe_component import gold_doc, make_examples

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "gmoe_rte.cfg"
MODEL = "components.gmoe_rte.model"


@pytest.fixture
def study_file(tmp_path: Path, encoder_folders: dict[str, Path]) -> Path:
    """Two variants of a few steps on a tiny encoder."""
    nlp = spacy.blank("en")
    rng = random.Random(0)
    for name in ("train", "dev", "test"):
        docs = [gold_doc(nlp, rng) for _ in range(12)]
        DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / f"{name}.spacy")
    content = {
        "config": str(CONFIG),
        "corpora": {name: str(tmp_path / f"{name}.spacy") for name in ("train", "dev", "test")},
        "overrides": {
            "paths.encoder": str(encoder_folders["bert"]),
            "components.gmoe_rte.symmetric": ["spouse"],
            "training.max_steps": 4,
            "training.eval_frequency": 2,
            f"{MODEL}.backbone_settings.size_width": 8,
            f"{MODEL}.encoder.mixed_precision": False,
        },
        "variants": {
            "alone": {f"{MODEL}.mixture": None},
            "w/o ER expert": {f"{MODEL}.mixture_settings": {"experts": ["relations", "triplets"]}},
        },
    }
    path = tmp_path / "study.json"
    path.write_text(json.dumps(content))
    return path


def run(*arguments: str) -> tuple[int, str]:
    import typer

    app = typer.Typer()
    app.command()(study)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output


def test_trains_scores_and_skips_what_is_done(study_file: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    code, output = run(str(study_file), str(runs), "--seeds", "3", "--jobs", "2")
    assert code == 0, output + "".join(log.read_text() for log in runs.rglob("train.log"))
    assert output.count("test Ent") == 2
    scores = json.loads((runs / "w-o-er-expert/3/scores.json").read_text())
    assert scores["seed"] == 3 and len(scores["curve"]) >= 2
    assert set(scores["test"]) == {"canonical", "directed", "doubled", "per_label"}
    nlp = spacy.load(runs / "w-o-er-expert/3/model-best")
    assert nlp.get_pipe("gmoe_rte").threshold == scores["threshold"]
    assert nlp.get_pipe("gmoe_rte").bundle.network.mixture.experts == ("relations", "triplets")
    assert spacy.load(runs / "alone/3/model-best").get_pipe("gmoe_rte").bundle.network.mixture is None
    code, output = run(str(study_file), str(runs), "--seeds", "3")
    assert (code, output.count("unchanged, skipped")) == (0, 2)
    content = json.loads(study_file.read_text())
    content["variants"] = {"alone": {**content["variants"]["alone"], f"{MODEL}.backbone_settings.dropout": 0.5}}
    study_file.write_text(json.dumps(content))
    assert len(read_runs(runs)) == 2
    code, output = run(str(study_file), str(runs), "--seeds", "3")
    assert "test Ent" in output, "a changed setting is no reason to skip"
    assert [scores["variant"] for scores in read_runs(runs)] == ["alone"], "a run of an earlier call is on no page"


def test_says_what_is_wrong(study_file: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((str(tmp_path / "none.json"),), "cannot be read"),
        ((str(study_file), "--only", "both"), "--only has 'both'"),
    ):
        code, output = run(arguments[0], str(tmp_path / "runs"), *arguments[1:])
        assert code == 1 and message in output
    content = json.loads(study_file.read_text())
    (tmp_path / "dev.spacy").unlink()
    assert "dev.spacy is not there" in run(str(study_file), str(tmp_path / "runs"))[1]
    del content["variants"]
    study_file.write_text(json.dumps(content))
    assert "neither 'variants' nor 'grid'" in run(str(study_file), str(tmp_path / "runs"))[1]


def test_a_grid_is_all_combinations(tmp_path: Path) -> None:
    path = tmp_path / "grid.json"
    content: dict[str, Any] = {"config": "c", "corpora": dict.fromkeys(("train", "dev", "test"), "x.spacy")}
    path.write_text(json.dumps({**content, "grid": {"a.alpha": [1, 2], "a.beta": [3]}}))
    assert Study.read(path, set()).variants == {
        "alpha=1, beta=3": {"a.alpha": 1, "a.beta": 3},
        "alpha=2, beta=3": {"a.alpha": 2, "a.beta": 3},
    }


def test_variants_named_alike_and_corpora_that_lack_one(study_file: Path) -> None:
    content = json.loads(study_file.read_text())
    study_file.write_text(json.dumps({**content, "variants": {"SINET + x": {}, "SINET / X": {}}}))
    with pytest.raises(ValueError, match=r"named alike: SINET \+ x, SINET / X"):
        Study.read(study_file, set())
    del content["corpora"]["test"]
    study_file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has no 'test'"):
        Study.read(study_file, set())
    for name, value, message in (
        ("variants", ["SINET"], "variants of .* is .'SINET'.; expected an object"),
        ("corpora", 3, "corpora of .* is 3; expected an object"),
        ("scorer", "nowhere.scores", "scorer of .* is 'nowhere.scores'; expected a module"),
    ):
        corpora = dict.fromkeys(("train", "dev", "test"), "x")
        study_file.write_text(json.dumps({**content, "corpora": corpora, name: value}))
        with pytest.raises(ValueError, match=message):
            Study.read(study_file, set())


def test_threshold_of_the_best_rel_plus() -> None:
    nlp = spacy.blank("en")
    (example,) = make_examples(nlp, 1)
    wrong = example.predicted.copy()
    right = example.reference.copy()
    scores = {}
    for threshold, doc in ((0.1, wrong), (0.2, right), (0.3, right)):
        scores[threshold] = Scores(score_triplets([type(example)(doc, example.reference)]), None)
    assert best_threshold(scores) == 0.2
    found, missed = (score_triples([type(example)(doc, example.reference)]) for doc in (right, wrong))
    by_strings = {0.1: Scores(scores[0.1].triplets, found), 0.2: Scores(scores[0.2].triplets, missed)}
    assert best_threshold(by_strings) == 0.1


@pytest.mark.parametrize("command", ["init labels", "debug data"])
def test_spacy_commands_read_the_config(command: str, study_file: Path, tmp_path: Path) -> None:
    corpora = json.loads(study_file.read_text())["corpora"]
    paths = ["--paths.train", corpora["train"], "--paths.dev", corpora["dev"]]
    encoder = ["--paths.encoder", json.loads(study_file.read_text())["overrides"]["paths.encoder"]]
    target = [str(tmp_path / "labels")] if command == "init labels" else []
    result = CliRunner().invoke(spacy_app, [*command.split(), str(CONFIG), *target, *paths, *encoder])
    if not target:
        assert "checks passed" in result.output, result.output  # and that 12 documents are few
    else:
        assert result.exit_code == 0, result.output
        labels = json.loads((tmp_path / "labels" / "gmoe_rte.json").read_text())
        assert set(labels) == {"entities", "relations"} and "spouse" in labels["relations"]


def test_a_variant_can_have_a_config_of_its_own(study_file: Path, tmp_path: Path) -> None:
    content = json.loads(study_file.read_text())
    for name in ("dev", "test"):
        docs = list(read_docs(Path(content["corpora"][name]), Vocab()))
        for doc in docs:
            doc.user_data["string_triples"] = [list(triple) for triple in relation_lists(doc)]
        DocBin(docs=docs, store_user_data=True).to_disk(content["corpora"][name])
    own = str(CONFIG.with_name("gmoe_rte_od_rte.cfg"))
    content["overrides"].pop(f"{MODEL}.backbone_settings.size_width")
    content["variants"] = {
        "OD-RTE": {"config": own, f"{MODEL}.mixture": None},
        "TLRel": {"config": own.replace("od_rte", "tlrel")},
    }
    study_file.write_text(json.dumps(content))
    code, output = run(str(study_file), str(tmp_path / "runs"))
    assert code == 0, output + "".join(log.read_text() for log in (tmp_path / "runs").rglob("train.log"))
    scores = json.loads((tmp_path / "runs/od-rte/0/scores.json").read_text())
    assert scores["config"] == own and scores["sentences_per_second"] > 0
    assert set(scores["strings"]) == {"dev", "test"} and scores["strings"]["test"]["all"]["documents"] == 12
    study_report.main(tmp_path / "runs", tmp_path / "page", title="Backbones", baseline=None, paper=None)
    page = (tmp_path / "page/README.md").read_text()
    assert "## Triples as strings on test" in page and "| sentences per second on test |" in page
    content["variants"]["OD-RTE"]["config"] = "nowhere.cfg"
    study_file.write_text(json.dumps(content))
    code, output = run(str(study_file), str(tmp_path / "runs"))
    assert code == 1 and "nowhere.cfg is not there" in output


def relation_lists(doc: Doc) -> list[tuple[str, str, str]]:
    return [(" ".join(r["head_text"]), r["label"], " ".join(r["tail_text"])) for r in doc._.relations]


BACKBONES = ["gmoe_rte_dual_dec", "gmoe_rte_od_rte", "gmoe_rte_re_cent", "gmoe_rte_tlrel"]


@pytest.mark.parametrize("name", ["gmoe_rte_paper", "gmoe_rte_tok2vec", "gmoe_rte_transformer", *BACKBONES])
def test_other_configs_train(name: str, study_file: Path, encoder_folders: dict[str, Path], tmp_path: Path) -> None:
    if name == "gmoe_rte_transformer":
        pytest.importorskip("spacy_transformers", reason="spacy-transformers is not installed")
    corpora = json.loads(study_file.read_text())["corpora"]
    overrides = {
        "paths.train": corpora["train"],
        "paths.dev": corpora["dev"],
        "training.max_steps": 2,
        "training.eval_frequency": 1,
        **({} if name == "gmoe_rte_tok2vec" else {"paths.encoder": str(encoder_folders["bert"])}),
    }
    train(CONFIG.with_name(f"{name}.cfg"), tmp_path / "trained", overrides=overrides)
    nlp = spacy.load(tmp_path / "trained" / "model-best")
    assert isinstance(nlp("alice lives in paris")._.relations, list)


def test_says_what_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "runs.json").write_text(json.dumps(["alone/0"]))
    with pytest.raises(ValueError, match="1 of 1 runs are not finished"):
        read_runs(tmp_path)
