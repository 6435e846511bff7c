"""The corpora of a workflow, by a file that lists them: ``python -m benchmarks.uie_corpora assets/uie/full.json OUT``.

The file is JSON: by name of the .spacy file to write the conversions that it is made of, each as the arguments of
``spacy-ie-moe convert`` without the output. Several are merged in random order.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from spacy_ie_moe.cli import app
from spacy_ie_moe.corpora.merge import merge


def main(
    path: Annotated[Path, typer.Argument(metavar="LIST", help="The file that lists the corpora.")],
    output: Annotated[Path, typer.Argument(help="Folder of the .spacy files.")],
) -> None:
    """Convert and merge; prints what was converted and what was not, set by set."""
    command = typer.main.get_command(app)
    for name, conversions in json.loads(path.read_text("utf8")).items():
        with TemporaryDirectory() as folder:
            parts = [Path(folder) / f"{number}.spacy" for number in range(len(conversions))]
            for arguments, part in zip(conversions, parts, strict=True):
                typer.echo(f"\n{arguments}")
                words = shlex.split(arguments)
                command.main(["convert", *words[:2], str(part), *words[2:]], standalone_mode=False)
            merge(output / f"{name}.spacy", parts, seed=0)


if __name__ == "__main__":
    typer.run(main)
