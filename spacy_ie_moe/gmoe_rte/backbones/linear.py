"""Linear layers over concatenations, computed part by part, and where classifiers start. PyTorch only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PRIOR = 3.0
"""Where classifiers start: most spans are no entity and most pairs have no relation, which a network without training
should say too. Else every span would be an entity, and every pair of them a relation."""


def in_parts(parted: bool, run: Callable[..., Any], *inputs: Tensor) -> Any:
    """``run``; where it is one of several parts, what it makes is made again for the gradients, and not kept."""
    if not parted or not torch.is_grad_enabled():
        return run(*inputs)
    return checkpoint(run, *inputs, use_reentrant=False)


class SplitLinear(nn.Module):
    """A linear layer over a concatenation, computed part by part: W [x1; x2; ...] + b = W1 x1 + W2 x2 + ... + b.

    So what a pair takes from its head is projected once for each entity and not once for each pair.
    """

    def __init__(self, widths: Sequence[int], out: int) -> None:
        super().__init__()
        self.widths = list(widths)
        linear = nn.Linear(sum(widths), out)
        self.weight, self.bias = linear.weight, linear.bias

    def parts(self) -> tuple[Tensor, ...]:
        """The weights [out, width] of each part."""
        return self.weight.split(self.widths, dim=1)


class PairFeatures(nn.Module):
    """F_ij = ReLU(P [h_i; h_j] + b): pairs of rows, each row projected once.

    width: d of the rows. out: of the pairs. dropout: on the sum, before the ReLU.
    """

    def __init__(self, width: int, out: int, dropout: float) -> None:
        super().__init__()
        self.project = SplitLinear([width, width], out)
        self.dropout = nn.Dropout(dropout)

    def sides(self, rows: Tensor, others: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What rows [N, d] bring to pairs as the first, and they or ``others`` [M, d] as the second: [., out] each."""
        of_first, of_second = self.project.parts()
        return F.linear(rows, of_first, self.project.bias), F.linear(rows if others is None else others, of_second)

    def forward(self, sides: tuple[Tensor, Tensor], first: Tensor, second: Tensor) -> Tensor:
        """The features [P, out] of pairs of rows [P]."""
        return torch.relu(self.dropout(sides[0][first] + sides[1][second]))
