"""The corpora of a workflow, by a file that lists them: ``python -m benchmarks.uie_corpora assets/uie/tasks.json OUT``.

The file is JSON: by name of the .spacy file to write the conversions that it is made of, each as the arguments of
``spacy-ie-moe convert`` without the output. Several are merged in random order. Published splits share sentences, so
what any training file in the folder has is left out of files whose names begin with test, mini_test or unseen; these
come behind the training files.
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

from .overlap import leave_out, texts_in

TESTS = ("test", "mini_test", "unseen")


def main(
    path: Annotated[Path, typer.Argument(metavar="LIST", help="The file that lists the corpora.")],
    output: Annotated[Path, typer.Argument(help="Folder of the .spacy files.")],
    keep_shared: Annotated[bool, typer.Option("--keep-shared", help="Keep what training files have in tests.")] = False,
) -> None:
    """Convert and merge; prints what was converted and what was not, set by set."""
    command = typer.main.get_command(app)
    trained: set[str] = set()
    for name, conversions in json.loads(path.read_text("utf8")).items():
        with TemporaryDirectory() as folder:
            parts = [Path(folder) / f"{number}.spacy" for number in range(len(conversions))]
            for arguments, part in zip(conversions, parts, strict=True):
                typer.echo(f"\n{arguments}")
                words = shlex.split(arguments)
                command.main(["convert", *words[:2], str(part), *words[2:]], standalone_mode=False)
            merge(output / f"{name}.spacy", parts, seed=0)
        if name.startswith(TESTS) and not keep_shared:
            trained = trained or texts_in(*output.glob("*train*.spacy"))
            leave_out(trained, output / f"{name}.spacy")


if __name__ == "__main__":
    typer.run(main)
