"""The command line: ``spacy-ie-moe COMMAND``. One module per command."""

from __future__ import annotations

import typer

from .convert import convert
from .evaluate import evaluate
from .extract import extract
from .fetch import fetch
from .info import info
from .paraphrase import paraphrase
from .synthesize import synthesize
from .train_uie import train_uie

OVERRIDES = {"allow_extra_args": True, "ignore_unknown_options": True}
"""For commands that take settings of a config file as spaCy's do: ``--training.max_steps 100``."""

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
app.command()(synthesize)
app.command(name="train-uie", context_settings=OVERRIDES)(train_uie)


def main() -> None:
    """Entry point of the ``spacy-ie-moe`` command."""
    app()
