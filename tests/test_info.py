"""``spacy-ie-moe info`` counts without weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig
from transformers import LlamaConfig, OPTConfig
from typer.testing import CliRunner

from spacy_ie_moe.cli import app
from spacy_ie_moe.uc_uie.adapter import HiMoEConfig, adapter_report

LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder with LLaMA-2-7B's config and nothing else."""
    folder = tmp_path / "llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_2_7B), "utf8")
    return folder


def ask(*arguments: Any) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["info", *map(str, arguments)])
    return result.exit_code, result.output


@pytest.mark.usefixtures("no_network")
def test_the_papers_numbers(base: Path) -> None:
    code, output = ask("uc_uie", "--base", base)
    assert code == 0
    lines = dict(line.split(maxsplit=1) if line.startswith("base ") else line.split("  ", 1) for line in
                 output.splitlines())  # fmt: skip
    values = {name.strip(): value.strip() for name, value in lines.items()}
    assert values["trainable"] == "84,616,608"
    assert values["of base and adapter"] == "1.24 %"
    assert values["of the base"] == "1.26 %"
    assert values["base"] == "LlamaForCausalLM, 6,738,415,616 parameters"
    assert values["adapted linear layers"] == "96"
    assert values["LoRA experts"] == "75,399,168"
    assert values["low-level routers"] == "7,373,952"
    assert values["high-level routers"] == "1,843,488"
    assert values["times a plain LoRA"] == "14.6 (5,799,936)"


def test_settings_of_an_adapter(base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    HiMoEConfig(router="hard", capabilities=("judging",), sub_experts=2, r=2).save_pretrained(str(folder))
    code, output = ask("uc_uie", "--base", base, "--adapter", folder)
    assert code == 0
    report = adapter_report(base, HiMoEConfig(router="hard", capabilities=("judging",), sub_experts=2, r=2))
    assert report.high_routers == 0 and report.layers == 96
    assert report.experts == 3 * 2 * 32 * 3 * (4096 + 11008)
    assert report.low_routers == 2 * 32 * (2 * 4097 + 11009)
    assert f"{report.trainable:,}" in output


def test_layers_with_other_names(tmp_path: Path) -> None:
    OPTConfig(num_hidden_layers=2, hidden_size=32, ffn_dim=48, num_attention_heads=2).save_pretrained(tmp_path)
    code, output = ask("uc_uie", "--base", tmp_path)
    assert code == 1 and "OPTForCausalLM has no such layers" in output and "fc1, fc2" in output
    code, output = ask("uc_uie", "--base", tmp_path, "--target-modules", "fc1, fc2")
    assert code == 0 and adapter_report(str(tmp_path), HiMoEConfig(target_modules=["fc1", "fc2"])).layers == 4


def test_errors(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert ask("glirel", "--base", base) == (1, "Error: COMPONENT is 'glirel'; expected one of uc_uie.\n")
    code, output = ask("uc_uie", "--base", base, "--adapter", tmp_path)
    assert code == 1 and "has no adapter_config.json" in output
    lora = tmp_path / "lora"
    LoraConfig().save_pretrained(str(lora))
    code, output = ask("uc_uie", "--base", base, "--adapter", lora)
    assert code == 1 and "is of LoraConfig; expected that of a HiMoE adapter" in output
    (lora / "adapter_config.json").write_text('{"peft_type": "NONE"}', "utf8")
    code, output = ask("uc_uie", "--base", base, "--adapter", lora)
    assert code == 1 and "cannot be read" in output
    code, output = ask("uc_uie", "--base", tmp_path)
    assert code == 1 and output.startswith("Error: ") and output.count("\n") == 1


def test_a_config_in_memory_needs_no_folder() -> None:
    report = adapter_report(LlamaConfig(**{key: LLAMA_2_7B[key] for key in ("hidden_size", "intermediate_size")}))
    assert report.trainable == 84_616_608 and report.percent == pytest.approx(1.2402, abs=1e-4)
