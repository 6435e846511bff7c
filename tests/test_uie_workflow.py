"""The workflow ``train-uie`` on a few sentences: that all of it runs, from the conversions to the page."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import spacy

from benchmarks.uie_capabilities import COMBINATIONS, _items
from benchmarks.uie_study import variants_of, write_page
from spacy_ie_moe.uc_uie.frames import Schema, Slot

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for name in ("assets/uie", "assets/studies", "configs", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "project.yml", folder)
    (folder / "spacy_ie_moe").symlink_to(ROOT / "spacy_ie_moe")
    return folder


def run_smoke(project: Path, workflow: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "spacy", "project", "run", workflow, ".", "--vars.smoke", "true"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_smoke_workflow_writes_its_pages(project):
    run_smoke(project, "train-uie")
    rows = json.loads((project / "results/uie/results.json").read_text())
    assert [row["variant"] for row in rows] == ["UC-UIE", "plain LoRA"]
    assert set(rows[0]["tests"]) == set(json.loads((ROOT / "assets/studies/uie.json").read_text())["tests"])
    assert "| 14res | ABSA |" in (project / "results/uie/README.md").read_text()
    assert (project / "results/uie_sample/README.md").is_file()
    assert (project / "results/uie/routing.svg").is_file()


@pytest.mark.slow
def test_the_smoke_workflow_packs_a_model_that_works(project):
    run_smoke(project, "uie-mini")
    packed = project / "training/uie_mini/packed"
    nlp = spacy.blank("en")
    model = {"base": str(packed), "adapter": str(packed)}
    pipe = nlp.add_pipe("uc_uie", config={"schema": {"PER": []}, "max_new_tokens": 4, "model": model})
    assert isinstance(nlp("Ann left.")._.frames, list)
    assert pipe.bundle.network.tuner is not None
    assert str(project) not in (packed / "adapter/adapter_config.json").read_text()


def test_the_page_shows_means_and_spreads():
    def row(seed: int, value: float | None) -> dict:
        scores = dict.fromkeys(("uie_re_f", "uie_trig_f", "uie_arg_f", "uie_absa_f"))
        shares = dict.fromkeys(("uie_malformed", "uie_ungroundable", "uie_unknown_type"), 0.0)
        return {
            "variant": "A", "seed": seed, "seconds": 10.0, "trainable": 1234,
            "tests": {"set": {"uie_ner_f": value, **scores, **shares}},
        }  # fmt: skip

    page = write_page({"variants": {"A": {}}, "tests": {"set": ""}}, [row(0, 0.5), row(1, 0.7)], 100)
    assert "| set | NER | 60.0 ± 14.1 |" in page
    assert "RE" not in page
    assert "Seeds 0, 1" in page
    assert "| trained parameters | 1,234 |" in page


def test_what_is_counted_of_subtasks():
    schema = Schema.of({"Attack": ["Target"], "Left": []})
    judged = " {(Attack: Null): [(Target: Null)]} {(Left: Null): []}"
    assert _items("judging", judged, schema) == {("Attack", None), ("Attack", "Target"), ("Left", None)}
    located = " {(Attack: hit): []} {(Attack: hit): []} {(Left: went): []}"
    assert _items("locating", located, schema) == {("Attack", "hit"), ("Left", "went")}
    joined = " {(Attack: hit): [(Target: Rome)]}"
    assert _items("associating", joined, schema) == {("Attack", "hit", frozenset({Slot("Target", "Rome")}))}
    assert list(COMBINATIONS) == ["J", "L", "A", "J+L", "J+A", "L+A", "J+L+A", "learnt gates"]
    assert COMBINATIONS["J+A"] == [1, 0, 1]


def test_variants_times_parts():
    study = {"variants": {"A": {"x": 1}, "B": {}}, "parts": {"1 %": {"paths.train": "one"}, "all": {}}}
    assert variants_of(study) == {
        "A, 1 %": {"x": 1, "paths.train": "one"},
        "B, 1 %": {"paths.train": "one"},
        "A, all": {"x": 1},
        "B, all": {},
    }
    assert variants_of({"variants": {"A": {}}}) == {"A": {}}


@pytest.mark.slow
def test_the_smoke_workflow_of_capabilities(project):
    run_smoke(project, "capabilities-uie")
    scores = json.loads((project / "results/uie_capabilities/results.json").read_text())
    assert set(scores) >= {"NER", "RE", "Trig-C", "Arg-C", "ABSA"} and "judging (4)" in scores, list(scores)


@pytest.mark.slow
@pytest.mark.parametrize("workflow", ["few-shot-uie", "ablate-uie"])
def test_the_smoke_workflows_of_the_other_tables(project, workflow):
    run_smoke(project, workflow)
    page = {"few-shot-uie": "uie_low_resource", "ablate-uie": "uie_ablation"}[workflow]
    assert "| 14res | ABSA |" in (project / f"results/{page}/README.md").read_text()
