"""Trained pipelines' network as a small checkpoint: ``python -m spacy_ie_moe.glirel.pack PIPELINE... OUTPUT``."""

from __future__ import annotations

from pathlib import Path

import torch
import typer

from ..pipeline import find_glirel
from . import checkpoint
from .checkpoint import Bundle


def pack(
    pipelines: list[Path] = typer.Argument(..., help="Trained spaCy pipelines with a glirel component."),
    output: Path = typer.Argument(..., help="Folder to write the checkpoint to."),
) -> None:
    """Write the network alone, its weights in half precision (they are read back as float32).

    Of several pipelines, of which one was trained on from another, it is the mean of their weights (Wortsman et al.
    2022, "Robust fine-tuning"), with the labels of the first.
    """
    checkpoint.save(_mean([_bundle_of(pipeline) for pipeline in pipelines]), output, dtype=torch.float16)


def _bundle_of(pipeline: Path) -> Bundle:
    import spacy

    component = find_glirel(spacy.load(pipeline))
    if component is None:
        raise typer.BadParameter(f"{pipeline} has no glirel component.")
    return component.bundle


def _mean(bundles: list[Bundle]) -> Bundle:
    """The first bundle with the mean of all weights."""
    first = bundles[0]
    if any(bundle.settings != first.settings or bundle.kind != first.kind for bundle in bundles):
        raise typer.BadParameter("the pipelines have different networks; expected one trained on from another.")
    states = [bundle.network.state_dict() for bundle in bundles]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    first.network.load_state_dict(mean)
    return first


if __name__ == "__main__":
    typer.run(pack)
