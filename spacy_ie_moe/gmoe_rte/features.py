"""What the networks read and hand back: vectors of sentences, gold and extracted triplets. PyTorch only."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .tensors import tensor_like


@dataclass(frozen=True, eq=False)
class Features:
    """The vectors of a batch of sentences, without padding (the paper's H, section 3.1).

    hidden: [N, d]. Sentence after sentence: a row for the whole sentence ([CLS], or what the encoder has in its
    place), then a row for each word. lengths: [B] words of each sentence. prompts: for backbones that are told what to
    look for, [B] how many of a sentence's ``lengths`` rows, the first ones, are labels and not words.
    """

    hidden: Tensor
    lengths: np.ndarray
    prompts: np.ndarray | None = None

    @cached_property
    def sentence_rows(self) -> np.ndarray:
        """[B] the row of each sentence's own vector; its words follow."""
        rows = (self.lengths + 1).astype(np.int64)
        return np.cumsum(rows) - rows

    @cached_property
    def owner(self) -> Tensor:
        """[N] the sentence of each row."""
        sentences = np.repeat(np.arange(len(self.lengths)), self.lengths + 1)
        return tensor_like(sentences, self.hidden)

    @property
    def is_label(self) -> np.ndarray:
        """[N] whether a row is a label of a prompt."""
        place, labels = self._places
        return (place > 0) & (place <= labels)

    @property
    def is_word(self) -> np.ndarray:
        """[N] whether a row is a word."""
        place, labels = self._places
        return place > labels

    @property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """[N] each row's place in its sentence, and [N] the labels of its prompt."""
        rows = self.lengths + 1
        prompts = np.zeros_like(self.lengths) if self.prompts is None else self.prompts
        return np.arange(rows.sum()) - np.repeat(self.sentence_rows, rows), np.repeat(prompts, rows)

    @property
    def sentences(self) -> Tensor:
        """[B, d] the sentences' own vectors."""
        return self.hidden[tensor_like(self.sentence_rows, self.hidden)]

    def pad(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """``rows`` [N, ...] as [B, L, ...], sentence by sentence, and the mask [B, L] of where there is a row."""
        lengths = tensor_like(self.lengths + 1, rows)
        mask = torch.arange(int(lengths.max()), device=rows.device) < lengths.unsqueeze(1)
        padded = rows.new_zeros(*mask.shape, *rows.shape[1:])
        padded[mask] = rows
        return padded, mask

    def replace(self, hidden: Tensor) -> Features:
        """The same sentences with other vectors [N, d']."""
        features = Features(hidden, self.lengths, self.prompts)
        for name in ("sentence_rows", "owner"):  # made already: no need to make them again
            if name in self.__dict__:
                features.__dict__[name] = self.__dict__[name]
        return features

    def select(self, sentences: slice) -> Features:
        """Some of the sentences, in a row."""
        lengths = self.lengths[sentences]
        start = int(self.sentence_rows[sentences][0]) if len(lengths) else 0
        prompts = None if self.prompts is None else self.prompts[sentences]
        return Features(self.hidden[start : start + int((lengths + 1).sum())], lengths, prompts)


class Entity(NamedTuple):
    """A span of words of a sentence, end exclusive, and the index of its type."""

    start: int
    end: int
    type: int
    score: float = 1.0


class Triplet(NamedTuple):
    """A relation: its head and tail, indices into the sentence's entities, and the index of its label."""

    head: int
    tail: int
    label: int
    score: float = 1.0


@dataclass(frozen=True)
class Extraction:
    """Entities and triplets of a sentence: gold ones, or what a network found, with probabilities.

    unknown: gold pairs of head and tail for which a relation holds that is not annotated: they are no negatives.
    """

    entities: list[Entity] = field(default_factory=list)
    triplets: list[Triplet] = field(default_factory=list)
    unknown: frozenset[tuple[int, int]] = frozenset()
