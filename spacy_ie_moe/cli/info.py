"""``spacy-ie-moe info``: what a component would cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .label_options import split_names

if TYPE_CHECKING:
    from ..uc_uie.adapter import HiMoEConfig

COMPONENTS = ("uc_uie",)


def info(
    component: Annotated[str, typer.Argument(metavar="COMPONENT", help=f"One of: {', '.join(COMPONENTS)}.")],
    base: Annotated[
        str, typer.Option(help="The language model: a folder that holds at least its config.json, or a hub id.")
    ],
    adapter: Annotated[
        Path | None, typer.Option(help="A folder with the adapter_config.json of an adapter; the paper's without.")
    ] = None,
    target_modules: Annotated[
        str | None, typer.Option(help="Comma-separated names of the layers to adapt, where Llama's do not fit.")
    ] = None,
) -> None:
    """Count the parameters that an adapter adds to a language model; no weights are needed."""
    try:
        lines = _lines(component, base, adapter, target_modules)
    except (ValueError, OSError) as error:
        typer.echo(f"Error: {str(error).splitlines()[0]}", err=True)
        raise typer.Exit(1) from None
    for name, value in lines:
        typer.echo(f"{name:22} {value}")


def _lines(component: str, base: str, adapter: Path | None, targets: str | None) -> list[tuple[str, str]]:
    if component not in COMPONENTS:
        raise ValueError(f"COMPONENT is {component!r}; expected one of {', '.join(COMPONENTS)}.")
    from ..uc_uie.adapter import HiMoEConfig, adapter_report

    config = HiMoEConfig() if adapter is None else _read_config(adapter)
    if targets is not None:
        config.target_modules = split_names(targets)
    return adapter_report(base, config).rows()


def _read_config(folder: Path) -> HiMoEConfig:
    from ..uc_uie.adapter import HiMoEConfig

    if not (folder / "adapter_config.json").is_file():
        raise ValueError(f"--adapter {folder} has no adapter_config.json; expected a folder that peft saved.")
    try:
        config = HiMoEConfig.from_pretrained(str(folder))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"--adapter {folder} cannot be read: {error}") from None
    if not isinstance(config, HiMoEConfig):
        raise ValueError(f"--adapter {folder} is of {type(config).__name__}; expected that of a HiMoE adapter.")
    return config
