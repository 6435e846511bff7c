"""A trained pipeline's network as a small checkpoint: ``python -m spacy_ie_moe.glirel.pack PIPELINE OUTPUT``."""

from __future__ import annotations

from pathlib import Path

import torch
import typer

from . import checkpoint


def pack(
    pipeline: Path = typer.Argument(..., help="A trained spaCy pipeline with a glirel component."),
    output: Path = typer.Argument(..., help="Folder to write the checkpoint to."),
) -> None:
    """Write the network alone, its weights in half precision (they are read back as float32)."""
    import spacy

    nlp = spacy.load(pipeline)
    component = nlp.get_pipe("glirel")
    checkpoint.save(component.bundle, output, dtype=torch.float16)  # type: ignore[attr-defined]


if __name__ == "__main__":
    typer.run(pack)
