"""``spacy-ie-moe paraphrase``: more wordings of the instructions of ``uc_uie``, written by a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..uc_uie.instructions import ALL_POOLS
from .label_options import split_names


def paraphrase(
    model: Annotated[str, typer.Argument(help="A Hugging Face causal language model: a folder or a hub id.")],
    output: Annotated[Path, typer.Argument(help="The JSON file to write.")],
    pools: Annotated[
        str, typer.Option(help="Tasks and capabilities whose wordings are rewritten, comma-separated.")
    ] = ",".join(ALL_POOLS),
    count: Annotated[int, typer.Option(min=1, help="Paraphrases of each wording.")] = 4,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of sampling; higher is freer.")] = 0.8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest paraphrase in tokens.")] = 96,
    revision: Annotated[str | None, typer.Option(help="Revision of a model on the hub.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")] = "cpu",
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
) -> None:
    """Let MODEL say the instructions in other words; write those that can be used, behind our own, to OUTPUT."""
    from ..uc_uie.paraphrase import Rewriter, paraphrase_pools, report_rows

    try:
        chosen = {name: ALL_POOLS[name] for name in _names(pools)}
        if not output.parent.is_dir():
            raise ValueError(f"OUTPUT is {output}, but there is no folder {output.parent}.")
        rewriter = Rewriter(
            model, revision=revision, temperature=temperature, max_new_tokens=max_tokens, seed=seed, device=device
        )
        result = paraphrase_pools(chosen, rewriter, count=count)
        settings = {"model": model, "revision": revision, "count": count, "temperature": temperature, "seed": seed}
        text = json.dumps({"settings": settings, **result.to_json()}, indent=2, ensure_ascii=False)
        output.write_text(text + "\n", encoding="utf8")
    except (OSError, ValueError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"{'pool':<12}{'wordings':>10}{'new':>6}  dropped")
    for name, wordings, kept, dropped in report_rows(result):
        typer.echo(f"{name:<12}{wordings:>10}{kept:>6}  {dropped}")


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(split_names(text)))
    if not names or not set(names) <= set(ALL_POOLS):
        raise ValueError(f"--pools is {text!r}; expected some of {', '.join(ALL_POOLS)}.")
    return names
