"""Rows of elements as padded tensors that know where each element is. PyTorch only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .batch import Pieces


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


def pad_sequences(rows: Sequence[Sequence[Pieces]], *, prefix: Pieces, suffix: Pieces, pad_id: int) -> Sequences:
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
