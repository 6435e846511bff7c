"""A trained language model as bundled models have it: ``python -m spacy_ie_moe.uc_uie.pack PIPELINE OUTPUT``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoModelForCausalLM

from .checkpoint import ADAPTER, BASE, TOKENIZER, active_adapter


def main(
    pipeline: Annotated[Path, typer.Argument(help="A trained pipeline with a uc_uie component.")],
    output: Annotated[Path, typer.Argument(help="The folder to write: base, and adapter where there is one.")],
    component: Annotated[str, typer.Option(help="The name of the component.")] = "uc_uie",
) -> None:
    """Write the base of a pipeline, in half precision with its tokenizer, and its active adapter, as Hugging Face's.

    The folder is what ``model.base`` and ``model.adapter`` of other configs name.
    """
    source = pipeline / component / "model"
    if not (source / BASE).is_dir():
        raise FileNotFoundError(f"there is no {source / BASE}; expected a pipeline that was saved with its base.")
    shutil.rmtree(output, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(source / BASE)
    model.to(torch.float16).save_pretrained(output / BASE, safe_serialization=True)
    shutil.copytree(source / TOKENIZER, output / BASE, dirs_exist_ok=True)
    if (source / ADAPTER).is_dir():
        name = active_adapter(source)
        adapter = source / ADAPTER if name == "default" else source / ADAPTER / name
        (output / ADAPTER).mkdir()
        shutil.copy(adapter / "adapter_model.safetensors", output / ADAPTER)
        config = json.loads((adapter / "adapter_config.json").read_text("utf8"))
        config["base_model_name_or_path"] = None  # a path of the machine that trained it
        (output / ADAPTER / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True), "utf8")
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    typer.echo(f"{output}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
