"""Documents as sentences: what is read together, and where it stands in its document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from spacy.tokens import Doc


@dataclass(frozen=True)
class Sentences:
    """The sentences of some documents.

    docs: all documents, in order, those without a sentence too. owner: [B] the document of each sentence. start, end:
    [B] its tokens in it, end exclusive.
    """

    docs: list[Doc]
    owner: list[int]
    start: list[int]
    end: list[int]

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def lengths(self) -> np.ndarray:
        """[B] words of each sentence."""
        return np.array(self.end, dtype=np.int64) - np.array(self.start, dtype=np.int64)

    @property
    def words(self) -> list[list[str]]:
        """The words of each sentence."""
        texts = [[token.text for token in doc] for doc in self.docs]
        return [texts[doc][start:end] for doc, start, end in zip(self.owner, self.start, self.end, strict=True)]


def split_sentences(docs: Sequence[Doc], *, by_sentence: bool) -> Sentences:
    """Each document's sentences if ``by_sentence`` and the pipeline has set some, else each document as one."""
    sentences = Sentences(list(docs), [], [], [])
    for index, doc in enumerate(docs):
        if by_sentence and doc.has_annotation("SENT_START"):
            bounds = [(sentence.start, sentence.end) for sentence in doc.sents]
        else:
            bounds = [(0, len(doc))] if len(doc) else []
        for start, end in bounds:
            sentences.owner.append(index)
            sentences.start.append(start)
            sentences.end.append(end)
    return sentences
