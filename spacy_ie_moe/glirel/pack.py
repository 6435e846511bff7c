"""A trained pipeline's network as a small checkpoint: ``python -m spacy_ie_moe.glirel.pack PIPELINE OUTPUT``."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import typer

from ..pipeline import find_glirel
from . import checkpoint


def pack(
    pipeline: Path = typer.Argument(..., help="A trained spaCy pipeline with a glirel component."),
    output: Path = typer.Argument(..., help="Folder to write the checkpoint to."),
    threshold: float = typer.Option(0.5, help="The score that shall read as 0.5 (anchored networks)."),
) -> None:
    """Write the network alone, its weights in half precision (they are read back as float32).

    Training shows few of the pairs that have no relation, so a threshold chosen on whole documents is not 0.5. Moving
    the network's bias by its logit makes it so, and changes no order.
    """
    import spacy

    component = find_glirel(spacy.load(pipeline))
    if component is None:
        raise typer.BadParameter(f"{pipeline} has no glirel component.")
    if component.bundle.kind == "anchored":
        component.bundle.network.bias.data -= math.log(threshold / (1 - threshold))
    checkpoint.save(component.bundle, output, dtype=torch.float16)


if __name__ == "__main__":
    typer.run(pack)
