"""``spacy-ie-moe fetch``: the public data sets."""

from __future__ import annotations

from typing import Annotated

import typer

from ..corpora import fetch as downloads
from ..corpora.location import DOWNLOADS


def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help=f"Data sets: {', '.join(DOWNLOADS)}.")],
) -> None:
    """Download data sets that are not on this machine into assets/data, and say where each is."""
    failed = False
    for name in names:
        try:
            downloads.fetch(name, say=typer.echo)
        except (ValueError, OSError) as error:
            typer.echo(f"Error: {error}", err=True)
            failed = True
    if failed:
        raise typer.Exit(1)
