"""Training ``uc_uie`` by its configs: with ``spacy train``, and with accelerate in one process and in two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
import torch
from safetensors.torch import load_file
from spacy.cli.train import train
from spacy.tokens import DocBin
from spacy.vocab import Vocab
from typer.testing import CliRunner

from spacy_ie_moe.cli import app

from .uie import make_docs, save_tiny_llama

CONFIGS = Path(__file__).parents[1] / "configs"
WEIGHTS = "model-last/uc_uie/model/adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("data")
    save_tiny_llama(folder / "base", spread=0.3)
    DocBin(docs=make_docs(Vocab()), store_user_data=True).to_disk(folder / "train.spacy")
    return {
        "paths.train": str(folder / "train.spacy"),
        "paths.dev": str(folder / "train.spacy"),
        "paths.base": str(folder / "base"),
        "training.max_steps": 4,
        "training.eval_frequency": 4,
        "training.batcher.size": 4,
        "training.optimizer.learn_rate.total_steps": 4,
        "training.optimizer.learn_rate.warmup_steps": 1,
        "components.uc_uie.warming_steps": 2,
        "components.uc_uie.max_new_tokens": 8,
        "components.uc_uie.model.adapter_settings": {"target_modules": ["up_proj", "down_proj"]},
    }


def arguments(settings: dict[str, object]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name}", str(value).replace("'", '"'))]


def test_one_process_gives_what_spacy_train_gives(settings, tmp_path):
    train(CONFIGS / "uc_uie.cfg", tmp_path / "spacy", overrides=settings)
    result = CliRunner().invoke(
        app, ["train-uie", str(CONFIGS / "uc_uie.cfg"), "--output", str(tmp_path / "ours"), *arguments(settings)]
    )
    assert result.exit_code == 0, result.output
    expected, found = load_file(tmp_path / "spacy" / WEIGHTS), load_file(tmp_path / "ours" / WEIGHTS)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert any(tensor.any() for name, tensor in found.items() if "up" in name)  # it has learnt something
    assert spacy.load(tmp_path / "ours" / "model-last")("x y")._.frames == []


@pytest.mark.parametrize("name", ["uc_uie", "uc_uie_base"])
def test_the_configs_train(settings, tmp_path, name):
    own = {key: value for key, value in settings.items() if name == "uc_uie" or "adapter" not in key}
    train(CONFIGS / f"{name}.cfg", tmp_path, overrides=own)
    nlp = spacy.load(tmp_path / "model-last")
    assert "uie_f" in nlp.meta["performance"]


@pytest.mark.slow
def test_two_processes_learn_together_what_one_learns(settings, tmp_path):
    # The auxiliary losses are those of each process's part of a batch, so they are left out here.
    settings = {**settings, "components.uc_uie.model.gamma": 0.0, "components.uc_uie.model.beta": 0.0}
    train(CONFIGS / "uc_uie.cfg", tmp_path / "one", overrides=settings)
    expected = load_file(tmp_path / "one" / WEIGHTS)
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
        "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "spacy_ie_moe", "train-uie",
        str(CONFIGS / "uc_uie.cfg"), "--output", str(tmp_path), *arguments(settings),
    ]  # fmt: skip
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = load_file(tmp_path / WEIGHTS)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5)


def test_a_config_without_the_component_is_refused(tmp_path):
    nlp = spacy.blank("en")
    nlp.config.to_disk(tmp_path / "config.cfg")
    result = CliRunner().invoke(app, ["train-uie", str(tmp_path / "config.cfg"), "--output", str(tmp_path / "x")])
    assert result.exit_code == 1
    assert "expected one" in result.output or "Error" in result.output
