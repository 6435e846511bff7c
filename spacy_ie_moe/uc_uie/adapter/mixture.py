"""What one adapted linear layer computes (eq. 2 and 5 to 9), as functions of tensors.

All experts of a layer are computed together. With the paper's symbols, where h_t in R^d is a token's input of the
layer, k the layer's output size and i in {J, L, A} a capability, one matrix product with ``down`` [rows, d] gives

    h_t B^S            the shared expert, r numbers                        (eq. 2)
    h_t B_q^i          each sub-expert, r numbers                          (eq. 5)
    W_G^i h_t          each low-level router, Q numbers                    (eq. 6, without b_G^i)
    W_G h_t            the high-level router, a number for each capability (eq. 3, without b_G)

in this order; what the B gave is then weighed, and one product with ``up`` [ranks, k], the A^S and A_q^i one below the
other, gives ΔO (eq. 9). Beware: in the paper B is what goes down (it starts at random) and A what goes
up (it starts at zero), the other way round than in LoRA.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .config import CAPABILITIES, HiMoEConfig


@dataclass(frozen=True)
class Layout:
    """Which experts an adapter has, and so what the rows of its matrices are.

    rank: r. scale: α / r. shared: whether there is E^S. groups: names of what has a mixture of its own: capabilities,
    or "all" of a flat mixture. sub_experts: Q, in each group. gated: whether the groups are multiplied by gates g'.
    learned: whether these come from a router G (eq. 3).
    """

    rank: int
    scale: float
    shared: bool
    groups: tuple[str, ...]
    sub_experts: int
    gated: bool
    learned: bool

    @classmethod
    def of(cls, config: HiMoEConfig) -> Layout:
        """The layout that a config asks for."""
        flat = config.router == "flat"
        return cls(
            rank=config.r,
            scale=config.alpha / config.r,
            shared=config.shared_expert,
            groups=("all",) if flat else config.capabilities,
            sub_experts=config.sub_experts * (len(config.capabilities) if flat else 1),
            gated=not flat and len(config.capabilities) > 0,
            learned=config.router == "soft" and len(config.capabilities) > 0,
        )

    @cached_property
    def shared_ranks(self) -> int:
        """Rows of B^S."""
        return self.rank if self.shared else 0

    @cached_property
    def routed(self) -> int:
        """Sub-experts of all groups: rows of the W_G^i."""
        return len(self.groups) * self.sub_experts

    @cached_property
    def ranks(self) -> int:
        """Rows of B^S and all B_q^i, and of ``up``."""
        return self.shared_ranks + self.routed * self.rank

    @cached_property
    def gates(self) -> int:
        """Rows of W_G."""
        return len(self.groups) if self.learned else 0

    @cached_property
    def rows(self) -> int:
        """Rows of ``down``."""
        return self.ranks + self.routed + self.gates

    @cached_property
    def parts(self) -> list[int]:
        """Rows of ``down`` that are LoRAs', low-level routers' and the high-level router's."""
        return [self.ranks, self.routed, self.gates]

    @cached_property
    def columns(self) -> list[int]:
        """Which columns of a routing vector [J, L, A] the gates of the groups are."""
        return [CAPABILITIES.index(name) for name in self.groups] if self.gated else []


def split(projected: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """The product with ``down`` [B, L, rows] as low-rank numbers, low-level and high-level routers' logits."""
    low_rank, low, high = torch.split_with_sizes(projected, layout.parts, -1)
    return low_rank, low, high


def token_weights(logits: Tensor, bias: Tensor, layout: Layout) -> Tensor:
    """g_q^i of every token (eq. 6): softmax over q of W_G^i h_t + b_G^i.

    logits: [B, L, groups x Q] without b_G^i. bias: the b_G^i, [groups x Q]. Returns [B, L, groups, Q].
    """
    return (logits + bias).view(*logits.shape[:-1], len(layout.groups), layout.sub_experts).softmax(-1)


def weigh(low_rank: Tensor, weights: Tensor, layout: Layout) -> Tensor:
    """The low-rank numbers [B, L, ranks], those of each sub-expert times its weight (eq. 7 and 9).

    weights: g'_i g_q^i, [B, L, groups, Q]. The shared expert's stay as they are. Where no gradient is needed
    ``low_rank`` is overwritten.
    """
    shape = low_rank.shape[:-1]
    factors = weights.reshape(*shape, layout.routed, 1).to(low_rank.dtype)
    start = layout.shared_ranks
    routed = low_rank[..., start:].view(*shape, layout.routed, layout.rank)
    if torch.is_grad_enabled():
        return torch.cat([low_rank[..., :start], (routed * factors).flatten(-2)], dim=-1)
    routed.mul_(factors)
    return low_rank


def add_up(result: Tensor, low_rank: Tensor, up: Tensor, scale: float) -> Tensor:
    """O + ΔO: the layer's output [..., k] plus what goes up again, times α / r (eq. 2, 5 and 9)."""
    if result.dtype == low_rank.dtype == up.dtype:
        ranks, size = up.shape
        flat = torch.addmm(result.reshape(-1, size), low_rank.reshape(-1, ranks), up, alpha=scale)
        return flat.view(result.shape).to(result.dtype)  # autocast has its own type
    return result + (low_rank @ up * scale).to(result.dtype).view(result.shape)


def paper_weights(down: Tensor, up: Tensor, bias: Tensor | None, layout: Layout) -> dict[str, Tensor]:
    """The paper's matrices as views of the fused ones, by name.

    "S.B" [r, d] and "S.A" [r, k]: B^S and A^S, the former transposed. "judging.B" [Q, r, d], "judging.A" [Q, r, k],
    "judging.W" [Q, d], "judging.b" [Q]: the B_q^J (transposed), A_q^J, W_G^J and b_G^J; likewise of the other groups.
    "G.W" [groups, d], "G.b" [groups]: W_G and b_G.
    """
    named: dict[str, Tensor] = {}
    low_rank, low, high = down.split(layout.parts)
    if layout.shared:
        named |= {"S.B": low_rank[: layout.rank], "S.A": up[: layout.rank]}
    for index, group in enumerate(layout.groups):
        q = slice(index * layout.sub_experts, (index + 1) * layout.sub_experts)
        assert bias is not None
        named |= {
            f"{group}.B": low_rank[layout.shared_ranks :].unflatten(0, (layout.routed, layout.rank))[q],
            f"{group}.A": up[layout.shared_ranks :].unflatten(0, (layout.routed, layout.rank))[q],
            f"{group}.W": low[q],
            f"{group}.b": bias[q],
        }
    if layout.learned:
        assert bias is not None
        named |= {"G.W": high, "G.b": bias[layout.routed :]}
    return named


@dataclass(frozen=True)
class Folded:
    """An adapter with constant gates: what is left of it depends on each token alone.

    adapter: its name. layout: of what is left. down, up, bias: as in an adapter; the gates and α / r are in ``up``.
    shared: α / r (B^S A^S)^T [k, d], to be added to W_0, where E^S is not in the matrices; else None.
    """

    adapter: str
    layout: Layout
    down: Tensor
    up: Tensor
    bias: Tensor
    shared: Tensor | None


def fold(
    adapter: str, down: Tensor, up: Tensor, bias: Tensor | None, layout: Layout, gates: Tensor, *, take_shared: bool
) -> Folded:
    """Fold gates [J, L, A] and α / r into the matrices; capabilities whose gate is 0 are left out.

    take_shared: take the shared expert out, as a matrix to be added to W_0.
    """
    named = paper_weights(down, up, bias, layout)
    factors = dict(zip(layout.groups, gates[layout.columns].tolist() if layout.gated else [1.0], strict=False))
    groups = tuple(group for group in layout.groups if factors[group])
    shared = None
    downs, ups = [], []
    if layout.shared and take_shared:
        shared = layout.scale * (named["S.A"].t() @ named["S.B"])
    elif layout.shared:
        downs.append(named["S.B"])
        ups.append(layout.scale * named["S.A"])
    for group in groups:
        downs.append(named[f"{group}.B"].flatten(0, 1))
        ups.append(layout.scale * factors[group] * named[f"{group}.A"].flatten(0, 1))
    downs += [named[f"{group}.W"] for group in groups]
    biases = [named[f"{group}.b"] for group in groups]
    return Folded(
        adapter,
        replace(layout, scale=1.0, shared=layout.shared and not take_shared, groups=groups, gated=False, learned=False),
        torch.cat([*downs, down[:0]]),
        torch.cat([*ups, up[:0]]),
        torch.cat([*biases, down.new_zeros(0)]),
        shared,
    )
