"""Arrays on the device of a network. PyTorch only."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def tensor_like(values: np.ndarray, like: Tensor) -> Tensor:
    """The array as a tensor of its own type, on the device of ``like``."""
    return torch.from_numpy(values).to(like.device)


def tensors_like(arrays: Iterable[np.ndarray], like: Tensor) -> list[Tensor]:
    """``tensor_like`` of each."""
    return [tensor_like(array, like) for array in arrays]
