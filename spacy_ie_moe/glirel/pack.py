"""A trained pipeline's network as a small checkpoint: ``python -m spacy_ie_moe.glirel.pack PIPELINE OUTPUT``."""

from __future__ import annotations

from pathlib import Path

import torch
import typer

from ..pipeline import find_glirel
from . import checkpoint


def pack(
    pipeline: Path = typer.Argument(..., help="A trained spaCy pipeline with a glirel component."),
    output: Path = typer.Argument(..., help="Folder to write the checkpoint to."),
) -> None:
    """Write the network alone, its weights in half precision (they are read back as float32)."""
    import spacy

    component = find_glirel(spacy.load(pipeline))
    if component is None:
        raise typer.BadParameter(f"{pipeline} has no glirel component.")
    checkpoint.save(component.bundle, output, dtype=torch.float16)


if __name__ == "__main__":
    typer.run(pack)
