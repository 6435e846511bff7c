"""The graph mixture of experts: task-specific spaces and the mutual learning between them. PyTorch only.

Source: RTE-GMoE, sections 3.2 and 3.3. A sentence's vectors are projected for each task; then every expert attends to
all experts (itself too) in a graph that has them as nodes.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..labels import is_whole_number
from .checks import check_shares, check_weight, check_whole
from .features import Features
from .tensors import tensor_like

TRIPLETS = "triplets"
EXPERTS = ("entities", "relations", TRIPLETS)
"""The experts, in the order of the graph's nodes; that of the triplets is always there, and the last."""

Kernel = Literal["token", "sentence", "hetero"]

PRESETS: dict[str, dict[str, Any]] = {
    "gmoe": {},
    "paper_literal": {
        "negative_slope": 0.0,
        "residual": False,
        "norm": False,
        "gate": None,
        "dropout": 0.0,
        "identity_init": False,
    },
    "sentence_gate": {"kernel": "sentence"},
    "hetero_token": {"kernel": "hetero"},
    "identity": {"layers": 0},
}
"""Named readings of eq. 1 and 2, as options of ``Mixture`` that differ from its defaults."""


class Mixture(nn.Module):
    """Sentence vectors H [N, d] to one stream of vectors per expert: [N, experts, d].

    R_ent = H W_ent + b_ent, R_rel = H W_rel + b_rel and R_tri = H (section 3.2), then ``layers`` of mutual learning
    (eq. 1). The paper leaves open what a node is, how wide a head is, and whether there are self-loops and residuals;
    the default is a graph for each word and for the sentence, heads of width d / K, self-loops, a residual and a
    layer norm.

    width: d. experts: some of ``EXPERTS``; ablations have fewer. layers: 0 leaves the streams as they are projected.
    kernel: "token" (a graph for each row), "sentence" (a graph for each sentence, from the sentence vectors, that
    mixes all its rows alike) or "hetero" (every row of an expert attends to every row of all experts). heads: K.
    negative_slope: of the LeakyReLU in eq. 2; 0 makes it the paper's ReLU. residual, norm: R + h', and a layer norm
    of it. gate: start of a learnt factor per expert for h'; None for none. identity_init: the projections start near
    the identity, so that training starts from the encoder's own space.
    """

    def __init__(
        self,
        width: int,
        *,
        experts: tuple[str, ...] = EXPERTS,
        layers: int = 1,
        kernel: Kernel = "token",
        heads: int = 4,
        negative_slope: float = 0.2,
        residual: bool = True,
        norm: bool = True,
        gate: float | None = None,
        dropout: float = 0.1,
        identity_init: bool = True,
    ) -> None:
        super().__init__()
        self.experts = _checked_experts(experts)
        if kernel not in KERNELS:
            raise ValueError(f"mixture_settings.kernel is {kernel!r}; expected one of {', '.join(KERNELS)}.")
        check_whole(0, group="mixture_settings", layers=layers)
        check_shares(group="mixture_settings", dropout=dropout)
        check_weight("mixture_settings.negative_slope", negative_slope, zero=True)
        if gate is not None:
            check_weight("mixture_settings.gate", gate, zero=True)
        if not is_whole_number(heads, 1) or width % heads:
            raise ValueError(f"mixture_settings.heads is {heads!r}; expected a divisor of the encoder's width {width}.")
        self.project = nn.ModuleDict({name: _projection(width, identity_init) for name in self.experts[:-1]})
        self.layers: Any = nn.ModuleList(
            MutualLearning(
                KERNELS[kernel](width, heads, negative_slope, dropout, len(self.experts)),
                width,
                len(self.experts),
                residual=residual,
                norm=norm,
                gate=gate,
                dropout=dropout,
            )
            for _ in range(layers)
        )

    def forward(self, features: Features) -> dict[str, Tensor]:
        """The streams R~ [N, d] by expert."""
        streams = self.streams(features.hidden)
        for layer in self.layers:
            streams = layer(streams, features)
        return {name: streams[:, index] for index, name in enumerate(self.experts)}

    def triplet_stream(self, features: Features) -> Tensor:
        """R~_tri [N, d] alone: all that prediction needs of the last layer."""
        streams = self.streams(features.hidden)
        for index, layer in enumerate(self.layers):
            last = index == len(self.layers) - 1
            streams = layer(streams, features, receivers=slice(-1, None) if last else slice(None))
        return streams[:, -1]

    def streams(self, hidden: Tensor) -> Tensor:
        """The task-specific spaces [N, experts, d] (section 3.2)."""
        return torch.stack([*(self.project[name](hidden) for name in self.experts[:-1]), hidden], dim=1)

    def attention(self, features: Features) -> list[Tensor]:
        """Who listened to whom: gamma of each layer, [N, K, experts, experts], a row for each listener.

        The "hetero" kernel attends to words, not to experts; see ``HeteroGraph.attention`` for what it gives instead.
        """
        streams = self.streams(features.hidden)
        weights = []
        for layer in self.layers:
            weights.append(layer.attention(streams, features))
            streams = layer(streams, features)
        return weights


class MutualLearning(nn.Module):
    """One layer of GAMMT: h' of the kernel, added to the streams and normalised, as configured."""

    def __init__(
        self,
        kernel: Any,
        width: int,
        experts: int,
        *,
        residual: bool,
        norm: bool,
        gate: float | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.residual = residual
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.gate = None if gate is None else nn.Parameter(torch.full((experts,), float(gate)))
        self.dropout = nn.Dropout(dropout)

    def forward(self, streams: Tensor, features: Features, receivers: slice = slice(None)) -> Tensor:
        """streams: [N, M, d]. Returns those of the ``receivers``, [N, len(receivers), d]."""
        mixed = self.dropout(self.kernel(streams, features, receivers))
        if self.gate is not None:
            mixed = mixed * self.gate[receivers].unsqueeze(-1)
        return self.norm(streams[:, receivers] + mixed if self.residual else mixed)

    def attention(self, streams: Tensor, features: Features) -> Tensor:
        """gamma [N, K, M, M]."""
        return self.kernel.attention(streams, features)


class TokenGraph(nn.Module):
    """Multi-head graph attention (eq. 2) in a graph of its own for every row.

    h'_i = || over heads k of ELU(sum over j of gamma^k_ij W^k h_j), with
    gamma^k_ij = softmax over j of LeakyReLU(a^k . [W^k h_i ; W^k h_j]); W and a are those of all experts.
    """

    def __init__(self, width: int, heads: int, negative_slope: float, dropout: float, experts: int) -> None:
        super().__init__()
        self.heads = heads
        self.negative_slope = negative_slope
        self.value = nn.Linear(width, width, bias=False)
        self.listener = nn.Parameter(torch.empty(heads, width // heads))  # the two halves of a
        self.speaker = nn.Parameter(torch.empty(heads, width // heads))
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.value.weight)
        nn.init.xavier_uniform_(self.listener)
        nn.init.xavier_uniform_(self.speaker)

    def forward(self, streams: Tensor, features: Features, receivers: slice = slice(None)) -> Tensor:
        """streams: [N, M, d]. Returns h' of the ``receivers``."""
        values = self._values(streams)
        gamma = self.dropout(self.gamma(values, receivers))
        return F.elu(_mix(gamma, values))

    def attention(self, streams: Tensor, features: Features) -> Tensor:
        """gamma [N, K, M, M]."""
        return self.gamma(self._values(streams))

    def _values(self, streams: Tensor) -> Tensor:
        """W^k h_j: [N, M, K, d / K]."""
        return self.value(streams).unflatten(-1, (self.heads, -1))

    def gamma(self, values: Tensor, receivers: slice = slice(None)) -> Tensor:
        """The weights [N, K, listeners, M] from values [N, M, K, d / K]."""
        listens = (values[:, receivers] * self.listener).sum(-1).transpose(1, 2)
        speaks = (values * self.speaker).sum(-1).transpose(1, 2)
        return F.leaky_relu(listens.unsqueeze(-1) + speaks.unsqueeze(-2), self.negative_slope).softmax(-1)


class SentenceGraph(TokenGraph):
    """One graph for each sentence: its nodes are the experts' sentence vectors, its weights mix all rows."""

    def forward(self, streams: Tensor, features: Features, receivers: slice = slice(None)) -> Tensor:
        values = self._values(streams)
        gamma = self.dropout(self._sentence_gamma(values, features, receivers))
        return F.elu(_mix(gamma[features.owner], values))

    def attention(self, streams: Tensor, features: Features) -> Tensor:
        return self._sentence_gamma(self._values(streams), features)[features.owner]

    def _sentence_gamma(self, values: Tensor, features: Features, receivers: slice = slice(None)) -> Tensor:
        first = tensor_like(features.sentence_rows, values)
        return self.gamma(values[first], receivers)


class HeteroGraph(nn.Module):
    """A graph of all rows of all experts in a sentence, with weights of its own for each pair of experts.

    For each listening expert i and each expert j: multi-head dot-product attention of i's rows over j's rows, with
    queries, keys and values of the edge type; the sum over j goes through a ReLU. This is how the paper's authors
    have two tasks interact in their earlier Co-guiding networks. Source: Xing and Tsang, 2022.
    """

    def __init__(self, width: int, heads: int, negative_slope: float, dropout: float, experts: int) -> None:
        super().__init__()
        self.heads = heads
        self.experts = experts
        self.edges = nn.ModuleList(_Edge(width, heads, dropout) for _ in range(experts * experts))

    def forward(self, streams: Tensor, features: Features, receivers: slice = slice(None)) -> Tensor:
        padded, mask = features.pad(streams)
        heard = [
            sum(self._edge(i, j)(padded[:, :, i], padded[:, :, j], mask) for j in range(self.experts))
            for i in range(self.experts)[receivers]
        ]
        return F.relu(torch.stack(heard, dim=2)[mask])

    def attention(self, streams: Tensor, features: Features) -> Tensor:
        """[N, K, M, M] how strongly each expert is heard: the norms of what the edges bring, which sum to 1.

        The weights of the edges themselves are over words, and the same for all heads here.
        """
        padded, mask = features.pad(streams)
        rows = []
        for i in range(self.experts):
            strengths = [
                self._edge(i, j)(padded[:, :, i], padded[:, :, j], mask).norm(dim=-1) for j in range(self.experts)
            ]
            rows.append(torch.stack(strengths, dim=-1)[mask])
        strength = torch.stack(rows, dim=1)
        return (strength / strength.sum(-1, keepdim=True).clamp(min=1e-9)).unsqueeze(1).expand(-1, self.heads, -1, -1)

    def _edge(self, listener: int, speaker: int) -> nn.Module:
        return self.edges[listener * self.experts + speaker]


class _Edge(nn.Module):
    """Multi-head dot-product attention of one expert's rows over another's."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)

    def forward(self, listener: Tensor, speaker: Tensor, mask: Tensor) -> Tensor:
        """listener, speaker: [B, L, d]; mask: [B, L], True where there is a row."""
        heard, _ = self.attention(listener, speaker, speaker, key_padding_mask=~mask, need_weights=False)
        return heard


KERNELS: dict[str, type[nn.Module]] = {"token": TokenGraph, "sentence": SentenceGraph, "hetero": HeteroGraph}


def _projection(width: int, near_identity: bool) -> nn.Linear:
    linear = nn.Linear(width, width)
    if near_identity:
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        linear.weight.data += torch.eye(width)
    return linear


def _mix(gamma: Tensor, values: Tensor) -> Tensor:
    """sum over j of gamma_ij values_j, heads concatenated. [N, K, I, M], [N, M, K, c] -> [N, I, K * c]."""
    return (gamma @ values.transpose(1, 2)).transpose(1, 2).flatten(2)


def _checked_experts(experts: tuple[str, ...]) -> tuple[str, ...]:
    chosen = tuple(name for name in EXPERTS if name in experts)
    if set(experts) - set(EXPERTS) or TRIPLETS not in chosen:
        raise ValueError(f"mixture_settings.experts is {experts!r}; expected {TRIPLETS!r} and any of {EXPERTS[:-1]}.")
    return chosen
