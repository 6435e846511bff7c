"""Texts annotated by the teacher, joined with gold documents: what ner-mini is trained on.

python -m spacy_ie_moe.corpora.ner_silver TEACHER unlabelled.spacy silver.spacy --gold train.spacy
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import spacy
import typer
from spacy.tokens import Doc, Span

from spacy_ie_moe.corpora.ner_mini import read_docs, write_docs
from spacy_ie_moe.corpora.ner_teacher import Teacher


def annotate(teacher: Teacher, docs: Sequence[Doc]) -> None:
    """Replace the entities of ``docs`` by the teacher's."""
    found = teacher.annotate([[token.text for token in doc] for doc in docs])
    for doc, entities in zip(docs, found, strict=True):
        doc.set_ents([Span(doc, start, end, label=label) for start, end, label in entities])


def complete(teacher: Teacher, docs: Sequence[Doc]) -> None:
    """Fill what is missing in the annotation of ``docs`` with the teacher's DATE and NUM entities."""
    docs = [doc for doc in docs if any(token.ent_iob == 0 for token in doc)]
    found = teacher.annotate([[token.text for token in doc] for doc in docs])
    for doc, entities in zip(docs, found, strict=True):
        new = [
            Span(doc, start, end, label=label)
            for start, end, label in entities
            if label in ("DATE", "NUM") and all(not token.ent_type for token in doc[start:end])
        ]
        doc.set_ents([*doc.ents, *new])


def main(
    teacher: Annotated[Path, typer.Argument(help="Folder of the teacher.")],
    texts: Annotated[Path, typer.Argument(help="The .spacy file to annotate.")],
    output: Annotated[Path, typer.Argument(help="The .spacy file to write.")],
    gold: Annotated[Path | None, typer.Option(help="Gold .spacy file to add.")] = None,
    gold_copies: Annotated[int, typer.Option(help="How often the gold documents are added.", min=1)] = 1,
) -> None:
    """Annotate TEXTS with TEACHER, add the gold documents and write OUTPUT."""
    vocab = spacy.blank("en").vocab
    try:
        docs = read_docs(texts, vocab)
        added = [] if gold is None else read_docs(gold, vocab)
        model = Teacher.from_disk(teacher)
    except FileNotFoundError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    annotate(model, docs)
    complete(model, added)
    typer.echo(f"{output}: {write_docs(output, docs + added * gold_copies)} documents")


if __name__ == "__main__":
    typer.run(main)
