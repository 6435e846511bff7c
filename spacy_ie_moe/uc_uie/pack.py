"""A trained base as Hugging Face folders have it: ``python -m spacy_ie_moe.uc_uie.pack PIPELINE OUTPUT``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoModelForCausalLM

from .checkpoint import BASE, TOKENIZER


def main(
    pipeline: Annotated[Path, typer.Argument(help="A trained pipeline with a uc_uie component.")],
    output: Annotated[Path, typer.Argument(help="The folder to write: model and tokenizer.")],
    component: Annotated[str, typer.Option(help="The name of the component.")] = "uc_uie",
    half: Annotated[bool, typer.Option(help="Write 16-bit floats, half the size.")] = True,
) -> None:
    """Write the language model of a pipeline, without its adapter, for other configs to start from."""
    source = pipeline / component / "model"
    if not (source / BASE).is_dir():
        raise FileNotFoundError(f"there is no {source / BASE}; expected a pipeline that was saved with its base.")
    model = AutoModelForCausalLM.from_pretrained(source / BASE)
    model.to(torch.float16 if half else torch.float32).save_pretrained(output, safe_serialization=True)
    for file in (source / TOKENIZER).iterdir():
        shutil.copy(file, output / file.name)
    typer.echo(f"{output}: {sum(file.stat().st_size for file in output.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    typer.run(main)
