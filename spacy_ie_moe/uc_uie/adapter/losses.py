"""The auxiliary losses of the routers (eq. 4 and 8), from what the layers recorded in a forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import AdapterReduction
from .routing import Record


def bce_loss(records: Sequence[Record], labels: Tensor | None, reduction: AdapterReduction) -> Tensor:
    """L_bce = -sum over i of g_i log g'_i + (1 - g_i) log(1 - g'_i) (eq. 4), a mean over instances; a scalar.

    labels: the g_i of the groups, [B, groups]. reduction: over the layers. 0 without labels, and where gates came from
    elsewhere than the routers.
    """
    device = records[0].weights.device
    logits = [record.logits.to(device) for record in records if record.logits is not None]
    if labels is None or not logits:
        return torch.zeros((), device=device)
    stacked = torch.stack(logits).float()
    losses = F.binary_cross_entropy_with_logits(stacked, labels.to(stacked).expand_as(stacked), reduction="none")
    return _reduce(losses.sum(-1).mean(-1), reduction)


def entropy_loss(records: Sequence[Record], tokens: Tensor, active: Tensor, reduction: AdapterReduction) -> Tensor:
    """L_entropy = -sum over i of H(E^i), H(E^i) = -sum over q of p(E_q^i) log p(E_q^i) (eq. 8); a scalar.

    p(E_q^i) is the mean of g_q^i over the tokens of a batch, p(t) = 1 / |X|. So the least is -log Q for each i, where
    all sub-experts get the same. tokens: how many of each row count, [B]. active: [B, groups], whether row b takes
    capability i: only its tokens are in the mean, and an i that no row takes adds nothing.
    """
    weights = torch.stack([record.weights.to(tokens.device) for record in records])  # [n, B, groups, Q]
    active = active.to(weights)
    totals = (tokens.to(weights).unsqueeze(-1) * active).sum(0).clamp(min=1)
    p = (weights * active.unsqueeze(-1)).sum(1) / totals.unsqueeze(-1)
    negative = (p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum((-2, -1))
    return _reduce(negative, reduction)


def _reduce(losses: Tensor, reduction: AdapterReduction) -> Tensor:
    return losses.mean() if reduction == "mean" else losses.sum()
