"""The parts of GLiREL that come after the encoder. PyTorch only."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def feed_forward(width_in: int, width_out: int, *, width: int, dropout: float) -> nn.Sequential:
    """Two linear layers with a ReLU between (FFN of eq. 1-3)."""
    return nn.Sequential(nn.Linear(width_in, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width_out))


class WordLSTM(nn.Module):
    """A bidirectional LSTM over the words of each text (labels do not pass through it)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True)

    def forward(self, words: list[Tensor]) -> list[Tensor]:
        """words: one [W, D] per text, W > 0. Returns the same shapes."""
        lengths = torch.tensor([len(text) for text in words])
        padded = nn.utils.rnn.pad_sequence(words, batch_first=True)
        packed = nn.utils.rnn.pack_padded_sequence(padded, lengths, batch_first=True, enforce_sorted=False)
        output, _ = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return [row[:length] for row, length in zip(output, lengths.tolist(), strict=True)]


class StartEndMarker(nn.Module):
    """An entity from its first and last word (eq. 2, with one projection for each end)."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.project_start = feed_forward(width, width, width=4 * width, dropout=dropout)
        self.project_end = feed_forward(width, width, width=4 * width, dropout=dropout)
        self.out_project = feed_forward(2 * width, width, width=4 * width, dropout=dropout)

    def forward(self, words: Tensor, spans: Tensor) -> Tensor:
        """words: [W, D]; spans: [N, 2] with the end exclusive. Returns [N, D]."""
        start = self.project_start(words[spans[:, 0]])
        end = self.project_end(words[spans[:, 1] - 1])
        return self.out_project(torch.relu(torch.cat([start, end], dim=-1)))


class MeanMarker(nn.Module):
    """An entity from the mean of its words."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.projection = feed_forward(width, width, width=4 * width, dropout=dropout)

    def forward(self, words: Tensor, spans: Tensor) -> Tensor:
        """words: [W, D]; spans: [N, 2] with the end exclusive. Returns [N, D]."""
        return self.projection(span_means(words, spans))


def span_means(words: Tensor, spans: Tensor) -> Tensor:
    """The mean word vector of each span. words: [W, D]; spans: [N, 2], end exclusive. Returns [N, D]."""
    lengths = spans[:, 1] - spans[:, 0]
    owner = torch.repeat_interleave(torch.arange(len(spans), device=words.device), lengths)
    offset = torch.arange(len(owner), device=words.device) - (lengths.cumsum(0) - lengths)[owner]
    sums = words.new_zeros(len(spans), words.shape[-1]).index_add(0, owner, words[spans[owner, 0] + offset])
    return sums / lengths.unsqueeze(-1).to(words.dtype)


class PairLayer(nn.Module):
    """A pair of entities, FFN(head (+) tail) (eq. 3), without ever concatenating them.

    The first linear layer of a concatenation is the sum of two linear layers, so its work is done once per
    entity rather than once per pair.
    """

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.out_project = feed_forward(2 * width, width, width=4 * width, dropout=dropout)

    def split(self, entities: Tensor) -> tuple[Tensor, Tensor]:
        """entities: [N, D]. Returns each as a head and as a tail, [N, 4D] both."""
        first = cast(nn.Linear, self.out_project[0])
        as_head, as_tail = first.weight.chunk(2, dim=-1)
        return F.linear(entities, as_head), F.linear(entities, as_tail, first.bias)

    def hidden(self, heads: Tensor, tails: Tensor, pairs: Tensor) -> Tensor:
        """heads, tails: [N, 4D] from ``split``; pairs: [P, 2] rows in them. Returns [P, 4D]."""
        return cast(nn.Dropout, self.out_project[2])((heads[pairs[:, 0]] + tails[pairs[:, 1]]).relu_())

    def output(self, hidden: Tensor) -> Tensor:
        """hidden: [P, 4D]. Returns the pair vectors, [P, D]."""
        return cast(nn.Linear, self.out_project[3])(hidden)

    def fold(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The last linear layer folded into label vectors, for scorers that end in a dot product.

        labels: [C, D]. Returns weights [C, 4D] and biases [C] such that
        ``output(hidden) @ labels.T == hidden @ weights.T + biases``.
        """
        last = cast(nn.Linear, self.out_project[3])
        return labels @ last.weight, labels @ last.bias


class AttentionBlock(nn.Module):
    """Cross-attention and a feed-forward, as the reference's published format has them (eq. 4 and 6)."""

    def __init__(self, width: int, *, ffn_mul: int, dropout: float) -> None:
        super().__init__()
        attention = nn.MultiheadAttention(
            width, max(1, width // 64), dropout=dropout, batch_first=True, add_zero_attn=True
        )
        self.read = nn.ModuleDict({"mha": attention})
        self.norm_read = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, width * ffn_mul), nn.GELU(), nn.Dropout(dropout), nn.Linear(width * ffn_mul, width)
        )
        self.norm_ffn = nn.LayerNorm(width)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """queries: [Q, D]; keys: [K, D], K may be 0. Returns [Q, D]."""
        query = self.norm_read(queries).unsqueeze(0)
        read, _ = self.read["mha"](query, keys.unsqueeze(0), keys.unsqueeze(0), need_weights=False)
        refined = queries + read.squeeze(0)
        return refined + self.norm_ffn(self.ffn(refined))


class Refinement(nn.Module):
    """Refinement in the reference's form: blocks of cross-attention, then a linear layer."""

    def __init__(self, width: int, *, blocks: int, ffn_mul: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AttentionBlock(width, ffn_mul=ffn_mul, dropout=dropout) for _ in range(blocks))
        self.output = nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """queries: [Q, D]; keys: [K, D]. Returns [Q, D]."""
        for block in self.blocks:
            queries = block(queries, keys)
        return self.output(queries)


class PaperBlock(nn.Module):
    """Cross-attention, self-attention and feed-forward (eq. 4-6).

    The equations have the three one after the other; here each reads a normalised input and is added to it, as in
    any transformer, without which a stack of them does not train.
    """

    def __init__(self, width: int, *, ffn_mul: int, dropout: float) -> None:
        super().__init__()
        heads = max(1, width // 64)
        self.cross = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.own = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.ffn = feed_forward(width, width, width=width * ffn_mul, dropout=dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """queries: [Q, D]; keys: [K, D]. Returns [Q, D]."""
        refined, keys = queries.unsqueeze(0), keys.unsqueeze(0)
        query = self.norms[0](refined)
        refined = refined + self.cross(query, keys, keys, need_weights=False)[0]
        query = self.norms[1](refined)
        refined = refined + self.own(query, query, query, need_weights=False)[0]
        return (refined + self.ffn(self.norms[2](refined))).squeeze(0)


class PaperRefinement(nn.Module):
    """Refinement as the paper states it, repeated for a number of layers (section 3.4).

    Pairs attend to each other and labels to pairs, so a score depends on which other pairs and labels are asked for.
    """

    def __init__(self, width: int, *, blocks: int, ffn_mul: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PaperBlock(width, ffn_mul=ffn_mul, dropout=dropout) for _ in range(blocks))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """queries: [Q, D]; keys: [K, D]. Returns [Q, D]."""
        for block in self.blocks:
            queries = block(queries, keys)
        return queries


class DotScorer(nn.Module):
    """phi(u, v, t) = pair . label, before the sigmoid (eq. 8)."""

    def forward(self, pairs: Tensor, labels: Tensor) -> Tensor:
        """pairs: [P, D]; labels: [C, D]. Returns logits [P, C]."""
        return pairs @ labels.T


class ThresholdScorer(nn.Module):
    """Dot product with a learned offset and slope per label."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.proj_thresh = feed_forward(width, 2, width=4 * width, dropout=dropout)
        self.proj_type = feed_forward(width, width, width=4 * width, dropout=dropout)

    def forward(self, pairs: Tensor, labels: Tensor) -> Tensor:
        """pairs: [P, D]; labels: [C, D]. Returns logits [P, C]."""
        slope, offset = self.proj_thresh(labels).unbind(-1)
        return (pairs @ self.proj_type(labels).T + offset) * F.softplus(slope)


class NormScorer(nn.Module):
    """Dot product with learned biases for the label, the pair and all."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.dy_bias_type = feed_forward(width, 1, width=4 * width, dropout=dropout)
        self.dy_bias_rel = feed_forward(width, 1, width=4 * width, dropout=dropout)
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, pairs: Tensor, labels: Tensor) -> Tensor:
        """pairs: [P, D]; labels: [C, D]. Returns logits [P, C]."""
        return pairs @ labels.T + self.bias + self.dy_bias_type(labels).T + self.dy_bias_rel(pairs)


class ConcatScorer(nn.Module):
    """A feed-forward over product, difference, pair and label."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.proj = feed_forward(4 * width, 1, width=4 * width, dropout=dropout)

    def forward(self, pairs: Tensor, labels: Tensor) -> Tensor:
        """pairs: [P, D]; labels: [C, D]. Returns logits [P, C]."""
        pair = pairs.unsqueeze(1).expand(-1, len(labels), -1)
        label = labels.unsqueeze(0).expand(len(pairs), -1, -1)
        return self.proj(torch.cat([pair * label, pair - label, pair, label], dim=-1)).squeeze(-1)
