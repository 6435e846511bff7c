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
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_ie_moe.cli import app
from spacy_ie_moe.corpora.merge import merge
from spacy_ie_moe.corpora.reader import read_docs

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
            files = output.glob("*train*.spacy")
            trained = trained or {_words(doc) for file in files for doc in read_docs(file, Vocab())}
            _leave_out(trained, output / f"{name}.spacy")


def _leave_out(trained: set[str], path: Path) -> None:
    """Leave the documents of these words out of a file."""
    docs = list(read_docs(path, Vocab()))
    kept = [doc for doc in docs if _words(doc) not in trained]
    if len(kept) < len(docs):
        DocBin(attrs=("ENT_IOB", "ENT_TYPE", "SENT_START"), docs=kept, store_user_data=True).to_disk(path)
        typer.echo(f"  left out: {len(docs) - len(kept)} documents that a training file has too")


def _words(doc: Doc) -> str:
    return " ".join(doc.text.casefold().split())


if __name__ == "__main__":
    typer.run(main)
