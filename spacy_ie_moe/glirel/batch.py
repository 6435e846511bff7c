"""What the networks read: windows of text with entities, pairs and labels, and their tensors. PyTorch only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..encoder import Pieces


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


@dataclass
class Sequences:
    """Piece sequences of a batch, padded.

    ids, mask: [B, L]. start, end: flat lists of element ranges in ``[B * L]``, end exclusive, all rows' elements
    one after the other; counts: elements per row.
    """

    ids: Tensor
    mask: Tensor
    start: Tensor
    end: Tensor
    counts: list[int]

    def to(self, device: torch.device) -> Sequences:
        """The same on another device."""
        return Sequences(
            self.ids.to(device), self.mask.to(device), self.start.to(device), self.end.to(device), self.counts
        )


def pad_sequences(
    rows: Sequence[Sequence[Pieces]], *, prefix: Pieces, suffix: Pieces, pad_id: int
) -> Sequences:
    """Rows of elements (each a run of pieces) as one padded batch between prefix and suffix."""
    flat = [[*prefix, *(piece for element in row for piece in element), *suffix] for row in rows]
    longest = max(map(len, flat))
    ids = np.full((len(rows), longest), pad_id, dtype=np.int64)
    mask = np.zeros((len(rows), longest), dtype=np.int64)
    ends = []
    for index, (row, pieces) in enumerate(zip(rows, flat, strict=True)):
        ids[index, : len(pieces)] = pieces
        mask[index, : len(pieces)] = 1
        lengths = np.fromiter(map(len, row), dtype=np.int64, count=len(row))
        ends.append(index * longest + len(prefix) + lengths.cumsum())
    end = np.concatenate(ends)
    lengths = np.fromiter((len(element) for row in rows for element in row), dtype=np.int64, count=len(end))
    return Sequences(
        torch.from_numpy(ids),
        torch.from_numpy(mask),
        torch.from_numpy(end - lengths),
        torch.from_numpy(end),
        [len(row) for row in rows],
    )
