"""Smoke runs of workflows: the whole of one on a few hand-written sentences, to see that it runs."""

from __future__ import annotations

from pathlib import Path

import typer


def is_smoke(text: str) -> bool:
    """The value of ``--smoke``, which is a text, as variables of a project are."""
    if text not in ("true", "false"):
        raise typer.BadParameter(f"--smoke is {text!r}; expected true or false.")
    return text == "true"


def root(kind: str, smoke: bool) -> Path:
    """The folder of corpora, trainings or results; those of smoke runs are apart, so that they overwrite nothing."""
    return Path(kind, "smoke") if smoke else Path(kind)
