"""What the networks read and hand back: windows of text with entities, pairs and labels. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Pieces = tuple[int, ...]


@dataclass(frozen=True)
class Keep:
    """Which scores of a window to hand back.

    thresholds: [C] float32, the least probability per label.
    head_allowed, tail_allowed: [N, C] bool, whether an entity may be head or tail of a label.
    top_k: at most so many labels per ordered pair; None for all.
    """

    thresholds: np.ndarray
    head_allowed: np.ndarray
    tail_allowed: np.ndarray
    top_k: int | None = None


@dataclass(frozen=True)
class Window:
    """A stretch of text that fits the encoder, with the pairs to score in it.

    words: the pieces of each word. spans: [N, 2] entities in words of the window, end exclusive.
    pairs: [P, 2] rows of ``spans``, head and tail. labels: what is read for each label, in prompt order.
    keep: what to select at prediction; training needs none.
    """

    words: tuple[Pieces, ...]
    spans: np.ndarray
    pairs: np.ndarray
    labels: tuple[str, ...]
    keep: Keep | None = None

    @property
    def n_pieces(self) -> int:
        """Pieces of the text (labels and special tokens not counted)."""
        return sum(map(len, self.words))


class Selected(NamedTuple):
    """The kept scores of a window: parallel arrays of pair rows, label indices and probabilities."""

    pairs: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
