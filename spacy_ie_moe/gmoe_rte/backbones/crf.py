"""A linear-chain conditional random field over tags of words. PyTorch only."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Crf(nn.Module):
    """p(y | x) = exp(score(x, y)) / Z(x), score = start + sum of emissions and transitions + end.

    tags: how many there are. Padding is behind the words of a row, never before or among them.
    """

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))
        self.end = nn.Parameter(torch.empty(tags).uniform_(-0.1, 0.1))
        self.transitions = nn.Parameter(torch.empty(tags, tags).uniform_(-0.1, 0.1))  # from, to

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """-log p [B] of ``tags`` [B, L] given emissions [B, L, T]. mask: [B, L] of words, of which each row has one."""
        steps = torch.arange(len(tags), device=tags.device)
        last = mask.sum(1) - 1
        scores = self.start[tags[:, 0]] + emissions.gather(-1, tags[..., None]).squeeze(-1).mul(mask).sum(1)
        scores = scores + (self.transitions[tags[:, :-1], tags[:, 1:]] * mask[:, 1:]).sum(1)
        scores = scores + self.end[tags[steps, last]]
        alpha = self.start + emissions[:, 0]
        for place in range(1, emissions.shape[1]):
            moved = torch.logsumexp(alpha[:, :, None] + self.transitions, 1) + emissions[:, place]
            alpha = torch.where(mask[:, place, None], moved, alpha)
        return torch.logsumexp(alpha + self.end, -1) - scores

    @torch.no_grad()
    def decode(self, emissions: Tensor, mask: Tensor) -> Tensor:
        """The most probable tags [B, L] (Viterbi), 0 in padding."""
        best = self.start + emissions[:, 0]
        origins = []
        for place in range(1, emissions.shape[1]):
            scores, origin = (best[:, :, None] + self.transitions).max(1)
            inside = mask[:, place, None]
            stay = torch.arange(best.shape[1], device=best.device).expand_as(origin)
            origins.append(torch.where(inside, origin, stay))
            best = torch.where(inside, scores + emissions[:, place], best)
        tag = (best + self.end).argmax(-1)
        tags = [tag]
        for origin in reversed(origins):
            tag = origin.gather(1, tag[:, None]).squeeze(1)
            tags.append(tag)
        return torch.stack(tags[::-1], 1) * mask
