"""Exact, faster CPU inference for Hugging Face encoders (PyTorch and transformers only).

``accelerate(model)`` gives modules of a loaded encoder a subclass with a faster ``forward``. Parameters,
their names and the numbers that come out stay the same (up to float32 rounding); a forward in training
mode, with gradients, with attention maps or on another device is Hugging Face's own. The subclasses are
importable and their caches are not part of their state, so models copy, pickle and save as before.

1. Linear layers call oneDNN. PyTorch multiplies float32 matrices with MKL, whose AVX-512 kernels do not run
   on AMD: there oneDNN is about twice as fast. GELU is computed while a block of the product is in cache.
2. DeBERTa's projections of the relative positions are constants: they are made once, not in each forward.
   Where a position is a distance, its scores are read through a skewed view instead of gathered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.bert.modeling_bert import BertIntermediate
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DebertaV2Intermediate,
    DisentangledSelfAttention,
)

_BIAS_FLOATS = 2**20  # floats of positional scores made at a time, per thread: what stays in cache


def accelerate(model: nn.Module) -> nn.Module:
    """Make every part of ``model`` that is known here faster, in place; the rest is left as it is."""
    accelerate_linears(model)
    accelerate_deberta(model)
    return model


def accelerate_linears(model: nn.Module) -> int:
    """Make linear layers (and BERT's and DeBERTa's linear + GELU) use oneDNN; returns how many changed.

    Only plain ``nn.Linear`` modules change, so adapters and quantised layers keep their forward.
    """
    if not onednn_pays():
        return 0
    return sum(_swap_class(module, _FASTER_LINEARS) for module in model.modules())


def accelerate_deberta(model: nn.Module) -> bool:
    """Give the DeBERTa-v2/v3 encoders in ``model`` the faster attention; False where there is none."""
    encoders = [module for module in model.modules() if type(module) is DebertaV2Encoder]
    for encoder in encoders:
        known = all(type(attention) is DisentangledSelfAttention for attention in _attentions(encoder))
        if encoder.relative_attention and known:
            encoder.__class__ = FastDebertaV2Encoder
    return any(isinstance(encoder, FastDebertaV2Encoder) for encoder in encoders)


# Linear layers


class FastLinear(nn.Linear):
    """``nn.Linear`` that calls oneDNN where no gradient is needed: [..., in] -> [..., out]."""

    def forward(self, input: Tensor) -> Tensor:
        if not _can_use_onednn(self, input):
            return super().forward(input)
        return onednn_linear(input, self.weight, self.bias, "none")

    def forward_gelu(self, x: Tensor) -> Tensor:
        """``gelu(x W + b)``, computed in one go where it can be."""
        if not _can_use_onednn(self, x):
            return F.gelu(super().forward(x))
        return onednn_linear(x, self.weight, self.bias, "gelu")


class _FusedIntermediate(nn.Module):
    """A transformer's first feed-forward layer, ``gelu(x W + b)``, as one call."""

    dense: Any
    intermediate_act_fn: Any

    def forward(self, hidden_states: Tensor) -> Tensor:
        if isinstance(self.dense, FastLinear) and _is_exact_gelu(self.intermediate_act_fn):
            return self.dense.forward_gelu(hidden_states)
        return self.intermediate_act_fn(self.dense(hidden_states))


class FastBertIntermediate(_FusedIntermediate, BertIntermediate):
    """BERT's feed-forward input layer with a fused GELU."""


class FastDebertaV2Intermediate(_FusedIntermediate, DebertaV2Intermediate):
    """DeBERTa's feed-forward input layer with a fused GELU."""


_FASTER_LINEARS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: FastLinear,
    BertIntermediate: FastBertIntermediate,
    DebertaV2Intermediate: FastDebertaV2Intermediate,
}


def _swap_class(module: nn.Module, faster: dict[type[nn.Module], type[nn.Module]]) -> bool:
    if type(module) not in faster:
        return False
    module.__class__ = faster[type(module)]
    return True


def onednn_pays() -> bool:
    """Whether oneDNN is there and MKL is what it replaces (Apple's and ARM's libraries are faster)."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _can_use_onednn(linear: nn.Linear, x: Tensor) -> bool:
    weight = linear.weight
    return (
        is_cpu_inference(x)
        and weight.device.type == "cpu"
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.bfloat16)
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
    )


def is_cpu_inference(x: Tensor) -> bool:
    """Whether kernels without gradients, tracing or a GPU version may be used on ``x``."""
    return (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    """``activation(x W + b)``; the activation is "none" or (exact) "gelu"."""
    algorithm = "none" if activation == "gelu" else ""  # of GELU: not the "tanh" approximation
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], algorithm)


def _is_exact_gelu(activation: Any) -> bool:
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return type(activation).__name__ == "GELUActivation" and activation.act is F.gelu


# DeBERTa


class PositionTables(NamedTuple):
    """A layer's projected relative positions, each [heads, 2 span, head_dim] and already scaled.

    key: what queries meet (content to position), last bucket first; None where ``pos_att_type`` lacks it.
    query: what keys meet (position to content), first bucket first.
    """

    key: Tensor | None
    query: Tensor | None


class FastDebertaV2Encoder(DebertaV2Encoder):
    """DeBERTa's encoder with disentangled attention (He et al. 2021, eq. 4) made cheap for inference.

    The score of query i and key j, at distance d = i - j in bucket δ(d), is
    ``(Q_i·K_j + Q_i·Kr_δ(d) + K_j·Qr_δ(d)) / sqrt(3 head_dim)``, where Kr and Qr are projected positions.

    The vectors of padding are not the ones that Hugging Face computes: keys are masked, queries are not.
    """

    _tables: tuple[PositionTables, ...] | None = None
    _tables_key: tuple[object, ...] = ()

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_hidden_states: bool = True,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        return_dict: bool = True,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """[batch, length, hidden] and a [batch, length] mask -> the last (and all) hidden states."""
        plain = query_states is None and relative_pos is None and not output_attentions
        if not (plain and attention_mask.dim() == 2 and not self.training and is_cpu_inference(hidden_states)):
            return super().forward(
                hidden_states,
                attention_mask,
                output_hidden_states=output_hidden_states,
                output_attentions=output_attentions,
                query_states=query_states,
                relative_pos=relative_pos,
                return_dict=return_dict,
            )
        states = tuple(self._run_layers(hidden_states, attention_mask))
        all_states = (hidden_states, *states) if output_hidden_states else None
        if not return_dict:
            return (states[-1], all_states) if output_hidden_states else (states[-1],)
        fields: dict[str, Any] = {"last_hidden_state": states[-1], "hidden_states": all_states}
        return BaseModelOutput(**fields)

    def train(self, mode: bool = True) -> FastDebertaV2Encoder:
        self._tables = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_tables", "_tables_key")}

    def _run_layers(self, x: Tensor, mask: Tensor) -> Iterator[Tensor]:
        embeddings = x
        key_mask = _additive_mask(mask, x.dtype)
        buckets = self._buckets(x.shape[1], x.device)
        layer: Any
        for i, (layer, tables) in enumerate(zip(self.layer, self._position_tables(), strict=True)):
            attention = layer.attention
            context = _attend(attention.self, x, tables, buckets, key_mask)
            attended = attention.output(context, x)
            x = layer.output(layer.intermediate(attended), attended)
            if i == 0 and self.conv is not None:
                x = self.conv(embeddings, x, mask)
            yield x

    def _buckets(self, length: int, device: torch.device) -> Buckets:
        span = self.rel_embeddings.num_embeddings // 2
        return Buckets.of_length(length, span, self.position_buckets, self.max_relative_positions, device)

    def _position_tables(self) -> tuple[PositionTables, ...]:
        """Every layer's tables; made again when a weight they come from has changed."""
        key = tuple(_weight_state(weight) for weight in self._table_weights())
        tables = self._tables
        if tables is None or self._tables_key != key:
            positions = self.get_rel_embedding()
            tables = tuple(_project_positions(attention, positions) for attention in _attentions(self))
            self._tables, self._tables_key = tables, key
        return tables

    def _table_weights(self) -> Iterator[Tensor]:
        yield self.rel_embeddings.weight
        if "layer_norm" in self.norm_rel_ebd:
            yield from self.LayerNorm.parameters()
        for attention in _attentions(self):
            for projection in _position_projections(attention):
                if projection is not None:
                    yield from projection.parameters()


@dataclass(frozen=True)
class Buckets:
    """How the distances of a text of ``length`` tokens map to buckets of relative positions.

    low, count: the reachable buckets are [low, low + count).
    index: the reachable bucket, counted from ``low``, of each (query, key) pair: [length, length]; None where
    each distance -(length - 1) .. length - 1 has a bucket of its own, in order.
    """

    length: int
    low: int
    count: int
    index: Tensor | None

    @classmethod
    def of_length(cls, length: int, span: int, buckets: int, furthest: int, device: torch.device) -> Buckets:
        reach = length - 1
        is_linear = reach < span and (buckets <= 0 or reach <= buckets // 2)
        if is_linear:
            return cls(length, span - reach, 2 * reach + 1, None)
        distances = torch.arange(-reach, length, device=device)
        bucket = (bucket_of_distance(distances, buckets, furthest) + span).clamp_(0, 2 * span - 1)
        low, high = int(bucket[0]), int(bucket[-1])
        rows = torch.arange(length, device=device)
        return cls(length, low, high - low + 1, (bucket - low)[rows[:, None] - rows[None, :] + reach])


def bucket_of_distance(distance: Tensor, buckets: int, furthest: int) -> Tensor:
    """The signed bucket of each distance: itself up to ``buckets // 2``, logarithmic from there on.

    ``buckets <= 0`` means that every distance is its own bucket. DeBERTa's published code, v2 and v3.
    """
    if buckets <= 0 or furthest <= 0:
        return distance
    half = buckets // 2
    far = distance.abs().clamp(min=max(half - 1, 1))
    steps = torch.log(far / half) / torch.log(torch.tensor((furthest - 1) / half)) * (half - 1)
    logarithmic = (torch.ceil(steps) + half) * distance.sign()
    return torch.where(distance.abs() <= half, distance, logarithmic.to(distance.dtype))


def _attentions(encoder: DebertaV2Encoder) -> list[DisentangledSelfAttention]:
    layers: Any = encoder.layer
    return [layer.attention.self for layer in layers]


def _position_projections(attention: DisentangledSelfAttention) -> tuple[nn.Module | None, nn.Module | None]:
    """The modules that project positions for (content to position, position to content)."""
    prefix = "" if attention.share_att_key else "pos_"
    to_key = getattr(attention, f"{prefix}key_proj") if "c2p" in attention.pos_att_type else None
    to_query = getattr(attention, f"{prefix}query_proj") if "p2c" in attention.pos_att_type else None
    return to_key, to_query


def _scale(attention: DisentangledSelfAttention) -> float:
    terms = 1 + ("c2p" in attention.pos_att_type) + ("p2c" in attention.pos_att_type)
    return 1 / math.sqrt(attention.attention_head_size * terms)


def _project_positions(attention: DisentangledSelfAttention, positions: Tensor) -> PositionTables:
    """[2 span, hidden] -> the tables that ``_positional_scores`` reads."""

    def project(module: nn.Module | None) -> Tensor | None:
        if module is None:
            return None
        projected = module(positions) * _scale(attention)
        return projected.view(len(positions), attention.num_attention_heads, -1).transpose(0, 1).contiguous()

    to_key, to_query = _position_projections(attention)
    key = project(to_key)
    return PositionTables(None if key is None else key.flip(1), project(to_query))


def _weight_state(weight: Tensor) -> tuple[object, ...]:
    """What differs when a weight was changed, moved, cast or replaced."""
    version = 0 if weight.is_inference() else weight._version
    return id(weight), weight.data_ptr(), version, weight.dtype, weight.device


def _additive_mask(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """[batch, length] of 0 and 1 -> [batch, 1, 1, length] to add to scores; None where nothing is masked."""
    masked = mask == 0
    if not masked.any():
        return None
    return torch.zeros(mask.shape, dtype=dtype).masked_fill_(masked, torch.finfo(dtype).min)[:, None, None]


def _attend(
    attention: DisentangledSelfAttention,
    x: Tensor,
    tables: PositionTables,
    buckets: Buckets,
    mask: Tensor | None,
) -> Tensor:
    """Disentangled self-attention: [batch, length, hidden] -> [batch, length, heads * head_dim].

    Texts (and heads, where a text is long) go through in groups whose positional scores stay in cache.
    """
    batch, length, _ = x.shape
    heads = attention.num_attention_heads
    query, key, value = (
        projection(x).view(batch, length, heads, -1)
        for projection in (attention.query_proj, attention.key_proj, attention.value_proj)
    )
    context = torch.empty_like(query)
    for rows, group in _groups(batch, heads, length * buckets.count):
        q, k, v = (part[rows, :, group] for part in (query, key, value))
        bias = _positional_scores(q, k, _heads_of(tables, group), buckets)
        if mask is not None:
            bias = mask[rows] if bias is None else bias.add_(mask[rows])
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=bias, scale=_scale(attention)
        )
        context[rows, :, group] = attended.transpose(1, 2)
    return context.view(batch, length, -1)


def _groups(batch: int, heads: int, floats: int) -> Iterator[tuple[slice, slice]]:
    """Slices of texts and heads; ``floats`` is the number of positional scores of one text and head."""
    limit = max(1, _BIAS_FLOATS * torch.get_num_threads() // floats)
    head_step = min(heads, limit)
    row_step = max(1, limit // heads)
    for row in range(0, batch, row_step):
        for head in range(0, heads, head_step):
            yield slice(row, row + row_step), slice(head, head + head_step)


def _heads_of(tables: PositionTables, heads: slice) -> PositionTables:
    return PositionTables(*(None if table is None else table[heads] for table in tables))


def _positional_scores(query: Tensor, key: Tensor, tables: PositionTables, buckets: Buckets) -> Tensor | None:
    """Content-to-position plus position-to-content scores, [batch, heads, length, length].

    query, key: [batch, length, heads, head_dim].
    """
    scores = None
    if tables.key is not None:
        flipped_low = tables.key.shape[1] - buckets.low - buckets.count
        by_bucket = _scores_by_bucket(query, tables.key[:, flipped_low : flipped_low + buckets.count])
        scores = _content_to_position(by_bucket, buckets)
    if tables.query is not None:
        by_bucket = _scores_by_bucket(key, tables.query[:, buckets.low : buckets.low + buckets.count])
        p2c = _position_to_content(by_bucket, buckets)
        scores = p2c if scores is None else scores + p2c
    elif scores is not None and buckets.index is None:
        scores = scores.clone()  # the view's elements overlap: nothing may be added in place
    return None if scores is None else scores.transpose(0, 1)


def _scores_by_bucket(x: Tensor, table: Tensor) -> Tensor:
    """[batch, length, heads, dim] and [heads, buckets, dim] -> [heads, batch, length, buckets]."""
    batch, length, heads, dim = x.shape
    scores = torch.bmm(x.reshape(batch * length, heads, dim).transpose(0, 1), table.transpose(1, 2))
    return scores.view(heads, batch, length, -1)


def _content_to_position(scores: Tensor, buckets: Buckets) -> Tensor:
    """Scores of each query with each bucket (last first) -> with each key: [heads, batch, query, key].

    Where buckets are distances, the score of query i and key j is at row i, column j - i + length - 1.
    """
    heads, batch, length, count = scores.shape
    if buckets.index is not None:
        return scores.gather(-1, (count - 1 - buckets.index).expand(heads, batch, length, length))
    row = length * count
    return scores.as_strided((heads, batch, length, length), (batch * row, row, count - 1, 1), length - 1)


def _position_to_content(scores: Tensor, buckets: Buckets) -> Tensor:
    """Scores of each key with each bucket (first first) -> with each query: [heads, batch, query, key].

    Where buckets are distances, the score of query i and key j is at row j, column i - j + length - 1.
    """
    heads, batch, length, count = scores.shape
    if buckets.index is not None:
        index = buckets.index.T.expand(heads, batch, length, length)
        return scores.gather(-1, index).transpose(-1, -2)
    row = length * count
    return scores.as_strided((heads, batch, length, length), (batch * row, row, 1, count - 1), length - 1)
