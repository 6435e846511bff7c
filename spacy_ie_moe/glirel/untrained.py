"""An untrained network as a checkpoint, to measure training against: ``python -m spacy_ie_moe.glirel.untrained``."""

from __future__ import annotations

from pathlib import Path

import typer

from ..encoder import SMALL_ENCODER
from . import checkpoint


def untrained(
    output: Path = typer.Argument(..., help="Folder to write the checkpoint to."),
    encoder: str = typer.Option(SMALL_ENCODER, help="Folder or hub id of a pretrained encoder."),
    network: str = typer.Option("anchored", help="anchored or prompt."),
) -> None:
    """Write a network with a pretrained encoder and nothing learnt on top of it."""
    checkpoint.save(checkpoint.new(network, encoder), output)


if __name__ == "__main__":
    typer.run(untrained)
