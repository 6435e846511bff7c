"""``spacy_ie_moe.RelationCorpus.v1``: examples with gold relations from ``.spacy`` files."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.util import logger
from spacy.vocab import Vocab

from ..relations import check_relation, require_extensions
from .conversion import SPAN_KEY


def create_relation_corpus(
    path: str | Path,
    gold_ents: bool = True,
    max_length: int = 0,
    limit: int = 0,
    shuffle: bool = False,
    seed: int = 0,
    own_labels: bool = False,
) -> Callable[[Language], Iterable[Example]]:
    """A corpus for spaCy's training: called with ``nlp`` it yields the examples of one epoch.

    path: a ``.spacy`` file or a folder of them, from a DocBin with user data. gold_ents: give the predicted
    documents the gold entities (``doc.ents`` and ``doc.spans["entities"]``). max_length: leave out documents
    of more tokens (their number is logged); 0 for none. limit: at most so many examples; 0 for all. shuffle:
    another order in each epoch, the same in each run with the same ``seed``; with ``limit`` that is a new
    sample in each epoch. own_labels: offer zero-shot components all labels of the corpus
    (``doc._.relation_labels``) in place of those that they were trained on, so that unseen ones are scored too.
    Documents are made as they are needed; to shuffle, those of one file are held in memory at a time.
    """
    return RelationCorpus(
        path,
        gold_ents=gold_ents,
        max_length=max_length,
        limit=limit,
        shuffle=shuffle,
        seed=seed,
        own_labels=own_labels,
    )


class RelationCorpus:
    """See ``create_relation_corpus``."""

    def __init__(
        self,
        path: str | Path,
        *,
        gold_ents: bool,
        max_length: int,
        limit: int,
        shuffle: bool,
        seed: int,
        own_labels: bool,
    ) -> None:
        for name, value in (("max_length", max_length), ("limit", limit)):
            if value < 0:
                raise ValueError(f"{name} is {value}; expected 0 (no limit) or more.")
        require_extensions()
        self.path = Path(path)
        self.gold_ents = gold_ents
        self.max_length = max_length
        self.limit = limit
        self.shuffle = shuffle
        self.seed = seed
        self.own_labels = own_labels
        self.epoch = 0

    def __call__(self, nlp: Language) -> Iterator[Example]:
        """The examples of the next epoch. Raises ``FileNotFoundError`` and ``ValueError``."""
        files = find_files(self.path)
        rng = random.Random(f"{self.seed}/{self.epoch}") if self.shuffle else None
        self.epoch += 1
        labels = _labels_in(files, nlp.vocab) if self.own_labels else None
        empty = True
        for doc in islice(self._docs(files, nlp.vocab, rng), self.limit or None):
            empty = False
            example = make_example(doc, gold_ents=self.gold_ents)
            example.predicted._.relation_labels = labels
            yield example
        if empty:
            at_most = f" of at most {self.max_length} tokens" if self.max_length else ""
            raise ValueError(f"path {self.path} holds no documents{at_most}; expected at least one.")

    def _docs(self, files: list[Path], vocab: Vocab, rng: random.Random | None) -> Iterator[Doc]:
        if rng is not None:
            rng.shuffle(files)
        too_long = 0
        for file in files:
            docs: Iterable[Doc] = read_docs(file, vocab)
            if rng is not None:
                docs = list(docs)
                rng.shuffle(docs)
            for doc in docs:
                if 0 < self.max_length < len(doc):
                    too_long += 1
                else:
                    yield doc
        if too_long:
            logger.warning("%s: left out %d documents of more than %d tokens.", self.path, too_long, self.max_length)


def find_files(path: Path) -> list[Path]:
    """The ``.spacy`` files at ``path``, a file or a folder, in the order of their names."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"path {path} does not exist; expected a .spacy file or a folder of them.")
    files = sorted(path.rglob("*.spacy"))
    if not files:
        raise FileNotFoundError(f"path {path} is a folder without .spacy files; expected at least one.")
    return files


def _labels_in(files: list[Path], vocab: Vocab) -> list[str]:
    """The labels of all gold relations, sorted."""
    docs = (doc for file in files for doc in read_docs(file, vocab))
    return sorted({relation["label"] for doc in docs for relation in doc._.relations})


def read_docs(file: Path, vocab: Vocab) -> Iterator[Doc]:
    """The documents of a ``.spacy`` file, their relations checked and in lists again."""
    if not file.is_file():
        raise FileNotFoundError(f"path {file} is no file; expected a .spacy file.")
    try:
        doc_bin = DocBin(store_user_data=True).from_disk(file)
    except Exception as error:  # zlib, msgpack and struct have no common error
        raise ValueError(f"path {file} is not a .spacy file ({type(error).__name__}: {error}).") from error
    for index, doc in enumerate(doc_bin.get_docs(vocab)):
        for key, value in doc.user_data.items():
            doc.user_data[key] = as_lists(value)
        for relation in doc._.relations:
            try:
                check_relation(doc, relation)
            except ValueError as error:
                raise ValueError(f"document {index} of {file}: {error}") from None
        yield doc


def as_lists(value: Any) -> Any:
    """``value`` with lists for tuples, which DocBin makes of lists."""
    if isinstance(value, (list, tuple)):
        return [as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return value


def make_example(reference: Doc, *, gold_ents: bool) -> Example:
    """The example of a gold document: its words and sentence starts, perhaps its entities, no relations.

    What is asked of a document, ``Doc._.uie_task`` and ``Doc._.uie_schema``, is no answer, so it stays; so do the
    events whose arguments are asked for (EAE), without their slots.
    """
    predicted = Doc(
        reference.vocab,
        words=[token.text for token in reference],
        spaces=[bool(token.whitespace_) for token in reference],
        sent_starts=[token.is_sent_start for token in reference] if reference.has_annotation("SENT_START") else None,
    )
    predicted._.uie_task, predicted._.uie_schema = reference._.uie_task, reference._.uie_schema
    if reference._.uie_task == "EAE":
        predicted._.frames = [{**frame, "slots": []} for frame in reference._.frames if frame["pos"] is not None]
    if gold_ents:
        predicted.set_ents([_copy(span, predicted) for span in reference.ents])
        if SPAN_KEY in reference.spans:
            predicted.spans[SPAN_KEY] = [_copy(span, predicted) for span in reference.spans[SPAN_KEY]]
    return Example(predicted, reference)


def _copy(span: Span, doc: Doc) -> Span:
    return Span(doc, span.start, span.end, label=span.label, kb_id=span.kb_id)
