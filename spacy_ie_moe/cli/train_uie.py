"""``spacy-ie-moe train-uie``: ``spacy train`` on several devices at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def train_uie(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A config with uc_uie, as for `spacy train`.")],
    output: Annotated[Path, typer.Option(help="Folder for model-best and model-last.")],
) -> None:
    """Train uc_uie with Hugging Face accelerate: `accelerate launch -m spacy_ie_moe train-uie CONFIG --output FOLDER`.

    Each process takes its part of every batch, and the gradients are averaged, so training.batcher.size is that of all
    of them together. With one process the result is that of `spacy train`. Settings of the config can be given as
    there: --paths.train FILE --training.max_steps 100.
    """
    from spacy.cli._util import parse_config_overrides
    from spacy.training.initialize import init_nlp
    from spacy.training.loop import train
    from spacy.util import load_config

    from ..uc_uie.component import UCUIE

    accelerator = _accelerator()
    try:
        settings = load_config(config, overrides=parse_config_overrides(context.args), interpolate=False)
        nlp = init_nlp(settings)
    except (ValueError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    pipes = [pipe for _, pipe in nlp.pipeline if isinstance(pipe, UCUIE)]
    if not pipes:
        typer.echo(f"Error: {config} has no uc_uie component; expected one.", err=True)
        raise typer.Exit(1)
    for pipe in pipes:
        pipe.move_to(accelerator.device)
        pipe.share_updates(accelerator)
    output.mkdir(parents=True, exist_ok=True)
    # The others train and score as well, for the same decisions, but write nothing.
    train(nlp, output if accelerator.is_main_process else None, stdout=sys.stdout, stderr=sys.stderr)


def _accelerator() -> Any:
    try:
        from accelerate import Accelerator
    except ImportError:
        typer.echo("Error: accelerate is not installed; expected `pip install 'spacy_ie_moe[train]'`.", err=True)
        raise typer.Exit(1) from None
    return Accelerator()
