"""The workflow ``evaluate-redocred``: all of it on hand-written documents, and on Re-DocRED where that is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from spacy_ie_moe.corpora.location import find_data
from spacy_ie_moe.documents.facts import Fact, read_facts

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The workflow's files, with the package as it is."""
    for name in ("assets/redocred", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "project.yml", tmp_path)
    (tmp_path / "spacy_ie_moe").symlink_to(ROOT / "spacy_ie_moe")
    return tmp_path


def run(project: Path, *variables: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "spacy", "project", "run", "evaluate-redocred", ".", *variables]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_the_smoke_workflow_writes_its_page(project: Path) -> None:
    run(project, "--vars.smoke", "true")
    page = (project / "results/smoke/redocred/README.md").read_text("utf8")
    for way in ("gold clusters | 2 | –", "no clusters | 0 | the same mentions"):
        assert f"| {way} |" in page
    assert "| predicted clusters |" in page
    assert "A smoke run on hand-written documents" in page
    figures = json.loads((project / "results/smoke/redocred/results.json").read_text("utf8"))
    gold = figures["results"]["gold clusters"]
    assert gold["exact"] == gold["majority"], "with gold clusters both say the same"
    # Both documents say where Orben Group has its headquarters: that and no other relation is a fact.
    facts = read_facts(project / "corpus/smoke/redocred/facts.jsonl")
    assert Fact("OrbenGroup", "headquarters location", "Velmar") in facts
    assert len(facts) == 4 + 4 + 2 + 4 + 1, "spouse both ways, birth, residence (of two), headquarters"
    micro = gold["exact"]["micro"]
    assert (micro["support"], gold["exact"]["known"]) == (5, 1)
    tp, predicted = micro["tp"], micro["tp"] + micro["fp"]
    precision, recall = (tp - 1) / (predicted - 1), tp / 5
    assert gold["exact"]["ign_precision"] == pytest.approx(precision)
    assert gold["exact"]["ign_f1"] == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.slow
def test_the_workflow_on_the_data(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        data = find_data("re_docred").parent
    except FileNotFoundError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("SPACY_IE_MOE_DATA", str(data))
    run(project, "--vars.redocred_limit", "3")
    page = (project / "results/redocred/README.md").read_text("utf8")
    assert "documents: 3" in page and "| gold clusters |" in page
