"""The workflow ``evaluate-redocred``: ``python -m benchmarks.redocred_workflow [--smoke true]``.

It converts Re-DocRED's dev set in three parts, what glirel-mini was trained on (for its facts), what thresholds are
chosen on, and the rest, and writes the page ``results/redocred/README.md``.

smoke: the same on a few hand-written documents, one for each part, to see that all of it runs; in folders apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from spacy_ie_moe.cli import app

from . import document_relations
from .smoke import is_smoke, root


class Source(NamedTuple):
    """A file, that with the labels' names, the slice of its documents by part, and what the page says of them."""

    file: str
    names: str
    parts: dict[str, str]
    note: str


DATA = Source(
    "re_docred/dev_revised.json",
    "re_docred/rel_info.derived.json",
    {"train": "0:0.8", "dev": "0.8:0.9", "test": "0.9:1"},  # those of glirel-mini, with its seed
    "The documents are of Re-DocRED's dev set. glirel-mini was trained on 400 others of it (sentences and documents, "
    "without the labels that FewRel reserves, and never on SELF), so only labels that it never saw are zero-shot; "
    "which of its stages ships was chosen on scores of the documents here, among others. Ign F1 leaves out the facts "
    "of the 400: the training set of Re-DocRED (3,053 documents) was not at hand, neither to train nor for its facts.",
)
SAMPLE = Source(
    "assets/redocred/sample.json",
    "assets/redocred/names.json",
    {"train": "0:0.34", "dev": "0.34:0.67", "test": "0.67:1"},
    "A smoke run on hand-written documents: these figures say nothing but that it runs.",
)


def main(
    smoke: Annotated[str, typer.Option(help="true: a few hand-written documents.")] = "false",
    model: Annotated[str, typer.Option(help="A pipeline folder or a checkpoint.")] = "glirel-mini",
    limit: Annotated[
        int, typer.Option(min=0, help="Documents to report on, and to choose thresholds on; 0 for all.")
    ] = 0,
) -> None:
    """Convert, evaluate, and write the page."""
    small = is_smoke(smoke)
    source = SAMPLE if small else DATA
    corpora = root("corpus", small) / "redocred"
    facts = corpora / "facts.jsonl"
    _convert(source, corpora, facts)
    document_relations.main(
        model,
        corpora / "test.spacy",
        dev=corpora / "dev.spacy",
        facts=facts,
        labels=Path(source.names),
        output=root("results", small) / "redocred",
        limit=limit,
        note=source.note,
    )


def _convert(source: Source, corpora: Path, facts: Path) -> None:
    command = typer.main.get_command(app)
    for name, part in source.parts.items():
        kept = ["--facts", str(facts)] if name == "train" else ["--document-relations"]
        chosen = ["--names", source.names, "--part", part, "--seed", "1"]
        arguments = ["convert", "re-docred", source.file, str(corpora / f"{name}.spacy"), *chosen, *kept]
        typer.echo(f"\n{' '.join(arguments)}")
        command.main(arguments, standalone_mode=False)


if __name__ == "__main__":
    typer.run(main)
