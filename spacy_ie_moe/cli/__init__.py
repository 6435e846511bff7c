"""The command line: ``spacy-ie-moe COMMAND``. One module per command."""

from __future__ import annotations

import typer

from .convert import convert
from .evaluate import evaluate
from .extract import extract
from .fetch import fetch
from .info import info
from .paraphrase import paraphrase

app = typer.Typer(
    name="spacy-ie-moe",
    help="Relations from text: extract them, fetch and convert corpora, score models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(extract)
app.command()(convert)
app.command()(evaluate)
app.command()(fetch)
app.command()(info)
app.command()(paraphrase)


def main() -> None:
    """Entry point of the ``spacy-ie-moe`` command."""
    app()
