"""The benchmarks run: what they print is for their readers to judge."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from spacy.tokens import DocBin
from typer.testing import CliRunner

from spacy_ie_moe.relations import make_relation

from .conftest import make_doc, make_nlp


@pytest.fixture
def labelled(new_checkpoint: Callable[..., Path], tmp_path: Path) -> tuple[str, str]:
    """A checkpoint, and sentences with a gold relation each, of six labels."""
    folder = new_checkpoint("anchored")
    nlp = make_nlp(folder)
    docs = []
    for index in range(12):
        doc = make_doc(nlp, "alice founded acme", [(0, 1, "PER"), (2, 3, "ORG")])
        doc._.relations = [make_relation(doc.ents[0], doc.ents[1], f"label {index % 6}")]
        docs.append(doc)
    DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "test.spacy")
    return str(folder), str(tmp_path / "test.spacy")


def run(module: str, *arguments: str) -> str:
    import typer

    app = typer.Typer()
    app.command()(importlib.import_module(f"benchmarks.{module}").main)
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_zero_shot(labelled: tuple[str, str], tmp_path: Path) -> None:
    model, data = labelled
    output = run("zero_shot", model, data, "--dev", data, "--against", model, "--output", str(tmp_path / "o.json"))
    assert "argmax m=5" in output and "argmax m=10" not in output, "there are six labels"
    assert "first is ahead by +0.0\n" in output
    first, second = json.loads((tmp_path / "o.json").read_text("utf8"))
    assert first == second and len(first["draws"]["argmax m=5"]) == 5


def test_all_pairs(labelled: tuple[str, str]) -> None:
    model, data = labelled
    assert "12 gold relations" in run("all_pairs", model, data, "--dev", data)


def test_label_order_does_not_matter_where_labels_are_read_apart(labelled: tuple[str, str]) -> None:
    output = run("label_order", *labelled, "--orders", "2")
    assert "another best label: 0.00 %" in output
