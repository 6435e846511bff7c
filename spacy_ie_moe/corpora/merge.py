"""Several .spacy files as one, shuffled: ``python -m spacy_ie_moe.corpora.merge OUTPUT INPUT [INPUT ...]``."""

from __future__ import annotations

import random
from pathlib import Path

import typer
from spacy.tokens import DocBin


def merge(
    output: Path = typer.Argument(..., help="The .spacy file to write."),
    inputs: list[Path] = typer.Argument(..., help="The .spacy files to merge; one named twice counts twice."),
    seed: int = typer.Option(0, help="Seed of the order."),
) -> None:
    """Merge the documents of .spacy files in random order, so that training sees all kinds in every stretch."""
    merged: DocBin | None = None
    for path in inputs:
        if not path.is_file():
            raise typer.BadParameter(f"{path} does not exist; expected a .spacy file.")
        part = DocBin(store_user_data=True).from_disk(path)
        if merged is None:
            merged = part
        else:
            merged.merge(part)
    assert merged is not None
    order = list(range(len(merged)))
    random.Random(seed).shuffle(order)
    for name in ("tokens", "spaces", "cats", "flags", "user_data", "span_groups"):
        values = getattr(merged, name)
        setattr(merged, name, [values[index] for index in order] if len(values) == len(order) else values)
    output.parent.mkdir(parents=True, exist_ok=True)
    merged.to_disk(output)
    typer.echo(f"{output}: {len(order)} documents of {len(inputs)} files")


if __name__ == "__main__":
    typer.run(merge)
