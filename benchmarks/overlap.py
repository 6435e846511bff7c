"""Sentences that two corpora share, which would be learnt and tested."""

from __future__ import annotations

from pathlib import Path

import typer
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_ie_moe.cli.convert import ATTRIBUTES
from spacy_ie_moe.corpora.reader import read_docs


def folded(doc: Doc) -> str:
    """What is compared of a document: its letters and digits, whatever their case."""
    return "".join(filter(str.isalnum, doc.text.casefold()))


def texts_in(*paths: Path) -> set[str]:
    """The folded texts of the documents in some files."""
    return {folded(doc) for path in paths for doc in read_docs(path, Vocab())}


def leave_out(known: set[str], path: Path) -> None:
    """Leave the documents whose folded texts are known out of a file, and say how many they are."""
    docs = list(read_docs(path, Vocab()))
    kept = [doc for doc in docs if folded(doc) not in known]
    if len(kept) < len(docs):
        DocBin(attrs=ATTRIBUTES, docs=kept, store_user_data=True).to_disk(path)
    typer.echo(f"  left out of {path}: {len(docs) - len(kept)} documents that are in another part too")
