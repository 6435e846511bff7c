"""From logits to the few scores that are kept, on the device, before Python sees any of them. PyTorch only."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from .batch import Selected, Window

NUMBERS_AT_ONCE = 2**22
"""Numbers held at a time while pairs are scored (16 MB): memory does not grow with the square of the entities."""

NOTHING = Selected(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


def select(score: Callable[[slice], Tensor], window: Window, *, width: int, device: torch.device) -> Selected:
    """Score a window's pairs chunk by chunk and keep what thresholds, types and top-k let through.

    score: gives the logits [p, C] of a slice of the pairs. width: the numbers that it needs per pair.
    """
    keep = window.keep
    if keep is None:
        raise ValueError("keep of a window is None; expected thresholds and types to select by.")
    thresholds = torch.from_numpy(keep.thresholds).to(device)
    typed = not (keep.head_allowed.all() and keep.tail_allowed.all())
    found = []
    size = max(1, NUMBERS_AT_ONCE // (width + len(keep.thresholds)))
    for start in range(0, len(window.pairs), size):
        rows = slice(start, min(start + size, len(window.pairs)))
        probabilities = torch.sigmoid(score(rows).float())
        if typed:
            heads, tails = window.pairs[rows].T
            allowed = keep.head_allowed[heads] & keep.tail_allowed[tails]
            probabilities = probabilities.masked_fill(~torch.from_numpy(allowed).to(device), -1.0)
        passing = probabilities >= thresholds
        if keep.top_k is not None and keep.top_k < len(keep.thresholds):
            passing &= _top_k(probabilities.masked_fill(~passing, -1.0), keep.top_k)
        row, column = passing.nonzero(as_tuple=True)
        found.append(
            Selected((row + start).cpu().numpy(), column.cpu().numpy(), probabilities[row, column].cpu().numpy())
        )
    return Selected(*(np.concatenate(parts) for parts in zip(*found, strict=True))) if found else NOTHING


def _top_k(scores: Tensor, k: int) -> Tensor:
    """Whether a score is among the k best of its row; of equal ones the first label wins. scores: [p, C]."""
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, order, True)
