"""The command line: ``spacy-ie-moe COMMAND``. One module per command."""

from __future__ import annotations

import typer

from .convert import convert
from .evaluate import evaluate
from .extract import extract

app = typer.Typer(
    name="spacy-ie-moe",
    help="Relations from text: extract them, convert corpora, score models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(extract)
app.command()(convert)
app.command()(evaluate)


def main() -> None:
    """Entry point of the ``spacy-ie-moe`` command."""
    app()
