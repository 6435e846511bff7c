"""Named entities in columns of BIO or IO tags: CoNLL-2003, CrossNER, MIT Movie and Restaurant, BC5CDR, NCBI-disease,
Broad Twitter, WNUT-17, WikiGold and HarveyNER."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc
from spacy.vocab import Vocab

from .conversion import (
    UNKNOWN_TYPE,
    ConversionReport,
    DocBuilder,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    checked_words,
    convert_each,
    load_lines,
    select_part,
)
from .ner import TaggedSentence, read_columns

SKIPPED_LINE = "line without a token and a tag, skipped"


def read(
    path: str | Path,
    vocab: Vocab,
    *,
    labels: LabelChoice | None = None,
    part: Part = Part(),
    seed: int = 0,
    report: ConversionReport | None = None,
    limit: int | None = None,
) -> Iterator[Doc]:
    """The sentences of a column file, one ``Doc`` each.

    A line is a token and, in the last column, its tag, with blanks or tabs between; an empty line ends a sentence.
    ``labels`` is about entity types. ``limit``: a random sample of at most so many. The source id is the position in
    the file. Raises ``FileNotFoundError`` and ``ValueError``.
    """
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    shape = "lines of a token and a BIO or IO tag"
    problems: list[str] = []
    documents = read_columns(load_lines(path, shape), problems)
    sentences = [sentence for document in documents for sentence in document]
    if problems and not sentences:
        raise ValueError(f"{path} has no {shape}: {problems[0]}")
    if problems:
        report.notes[SKIPPED_LINE] += len(problems)
    chosen = select_part(enumerate(sentences), lambda item: item[1].tokens, part, seed, report)
    builders = convert_each(chosen, lambda item: _convert(item[1], item[0], vocab, labels), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _convert(sentence: TaggedSentence, index: int, vocab: Vocab, labels: LabelChoice) -> DocBuilder:
    builder = DocBuilder(vocab, checked_words(list(sentence.tokens)), source=str(index))
    for start, end, entity_type in sentence.entities:
        try:
            label = labels.resolve(entity_type, unknown=UNKNOWN_TYPE)
        except Unconvertible as error:
            builder.mentions.left_out[error.reason] += 1
        else:
            builder.add_mention(start, end, label)
    return builder
