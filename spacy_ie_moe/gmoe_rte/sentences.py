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
    [B] its tokens in it, end exclusive. prompts: [B] the labels that are read before each sentence's words, for
    backbones that are told what to look for; empty for the others.
    """

    docs: list[Doc]
    owner: list[int]
    start: list[int]
    end: list[int]
    prompts: Sequence[Sequence[str]] = ()

    def __len__(self) -> int:
        return len(self.owner)

    def select(self, places: Sequence[int]) -> Sentences:
        """Some of the sentences; the documents stay."""
        columns = (self.owner, self.start, self.end)
        owner, start, end = ([column[place] for place in places] for column in columns)
        prompts = [self.prompts[place] for place in places] if self.prompts else ()
        return Sentences(self.docs, owner, start, end, prompts)

    @property
    def lengths(self) -> np.ndarray:
        """[B] labels of the prompt and words of each sentence."""
        words = np.array(self.end, dtype=np.int64) - np.array(self.start, dtype=np.int64)
        return words if self.prompt_sizes is None else self.prompt_sizes + words

    @property
    def prompt_sizes(self) -> np.ndarray | None:
        """[B] labels of each sentence's prompt; None without prompts."""
        return np.array([len(labels) for labels in self.prompts], dtype=np.int64) if self.prompts else None

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
