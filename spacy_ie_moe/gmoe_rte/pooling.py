"""Pooling over spans in constant time and memory per span. PyTorch only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .tensors import tensor_like


class RangeMax:
    """Element-wise maxima over ranges of rows, any number of them, from a sparse table.

    Level k holds the maxima over 2^k rows, so a range is covered by two of them that may overlap: [N, d] floats per
    level and [Q, d] for Q ranges, where masking would take [Q, N, d].

    rows: [N, d]. longest: the longest range that will be asked for.
    """

    def __init__(self, rows: Tensor, longest: int) -> None:
        self.levels = [rows]
        while 2 ** len(self.levels) <= min(longest, len(rows)):
            half = 2 ** (len(self.levels) - 1)
            last = self.levels[-1]
            self.levels.append(torch.maximum(last[:-half], last[half:]))

    def __call__(self, start: np.ndarray, end: np.ndarray) -> Tensor:
        """The maxima [Q, d] over the rows ``start`` to ``end``, exclusive, both [Q]; zeros for empty ranges."""
        rows = self.levels[0]
        pooled = rows.new_zeros(len(start), rows.shape[1])
        level_of = np.frexp(np.maximum(end - start, 0))[1] - 1  # floor(log2), -1 where empty
        for level in np.unique(level_of[level_of >= 0]):
            (asked,) = np.nonzero(level_of == level)
            first = tensor_like(start[asked], rows)
            maxima = self.levels[level][first]
            if level:
                second = tensor_like(end[asked] - 2**level, rows)
                maxima = torch.maximum(maxima, self.levels[level][second])
            if len(asked) == len(start):
                return maxima
            pooled = pooled.index_copy(0, tensor_like(asked, rows), maxima)
        return pooled
