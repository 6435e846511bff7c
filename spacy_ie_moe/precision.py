"""Linear layers with bfloat16 or int8 weights, for faster inference on CPUs, and training in bfloat16 (PyTorch only).

In inference only linear layers change, which is where the time and the memory are: layer norms, softmax and the sums
between layers stay in float32. Every row of an input is computed by itself, so results do not depend on
what else is in the batch (``torch.ao.quantization.quantize_dynamic``, deprecated, has one scale per batch).
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .speedups import FastLinear, is_cpu_inference, onednn_linear, onednn_pays

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16", "int8"]

_BLOCK_ELEMENTS = 2**18  # of an int8 product, per thread: what stays in cache until it is rescaled


def autocast_bfloat16(device: str, wanted: bool) -> torch.autocast:
    """A context in which matrix products are in bfloat16 if that is ``wanted`` and the device has instructions for it.

    Without them it is many times slower than float32, so float32 it is then. device: its type, "cpu" or "cuda".
    """
    return torch.autocast(device, torch.bfloat16, enabled=wanted and computes_bfloat16(device))


@lru_cache
def computes_bfloat16(device: str) -> bool:
    """Whether a type of device has instructions for bfloat16: AVX512-BF16 or AMX on CPUs. Says so once if not."""
    if device == "cpu":
        has_them = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        has_them = device != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if not has_them:
        logger.warning("This %s has no instructions for bfloat16; mixed_precision trains in float32 here.", device)
    return has_them


def to_precision(model: nn.Module, precision: Precision) -> nn.Module:
    """Convert the linear layers of ``model``, in place and for inference only; returns ``model``.

    bfloat16: halves the layers' memory. Fast where the CPU has AVX512-BF16 or AMX (AMD Zen 4, Intel's 4th
    generation Xeon, and later).
    int8: quarters it. Weights are rounded per output, inputs per row. Fast where the CPU has VNNI.

    The state dict keeps its keys, and a float32 state dict can still be loaded. Raises ``ValueError`` for
    another ``precision``, and for a model of which nothing or only another precision is left to convert.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision is {precision!r}; expected one of {', '.join(get_args(Precision))}.")
    if precision == "float32":
        return _require_float32(model)
    convert = Bfloat16Linear.convert if precision == "bfloat16" else Int8Linear.convert
    for module in list(model.modules()):
        if type(module) in (nn.Linear, FastLinear):
            convert(module)
    return model


def _require_float32(model: nn.Module) -> nn.Module:
    if any(isinstance(module, (Bfloat16Linear, Int8Linear)) for module in model.modules()):
        raise ValueError("precision is 'float32', but the model was rounded already; load it again instead.")
    return model


class Bfloat16Linear(FastLinear):
    """A linear layer that multiplies in bfloat16 (summing in float32): [..., in] -> [..., out]."""

    @classmethod
    def convert(cls, linear: nn.Module) -> None:
        linear.__class__ = cls
        for name, parameter in list(linear.named_parameters()):
            rounded = parameter.detach().to(torch.bfloat16)  # a new one: the old may be shared
            linear.register_parameter(name, nn.Parameter(rounded, requires_grad=False))

    def forward(self, input: Tensor) -> Tensor:
        return self._multiply(input, "none").to(input.dtype)

    def forward_gelu(self, x: Tensor) -> Tensor:
        """``gelu(x W + b)`` in bfloat16, which is what the next layer rounds it to."""
        return self._multiply(x, "gelu")

    def _multiply(self, x: Tensor, activation: str) -> Tensor:
        x = x.to(torch.bfloat16)
        if onednn_pays() and is_cpu_inference(x) and x.numel() > 0:
            if torch.ops.mkldnn._is_mkldnn_bf16_supported():
                return onednn_linear(x, self.weight, self.bias, activation)
            # The processor cannot multiply in bfloat16: the same of the rounded values, in float32.
            bias = None if self.bias is None else self.bias.float()
            y = F.linear(x.float(), self.weight.float(), bias).to(torch.bfloat16)
        else:
            y = F.linear(x, self.weight, self.bias)
        return F.gelu(y) if activation == "gelu" else y


class Int8Linear(FastLinear):
    """A linear layer that multiplies in int8 (summing in int32): [..., in] -> [..., out].

    ``y = s_x s_w (round(x / s_x) round(W / s_w)) + b``, with ``s_x = max |x| / 127`` over a row of x and
    ``s_w = max |W| / 127`` over an output's weights. The state dict has the rounded weights, as floats.
    """

    weight_scale: Tensor

    @classmethod
    def convert(cls, linear: nn.Module) -> None:
        weight, scale = quantise_rows(linear.get_parameter("weight").detach().float())
        linear.__class__ = cls
        linear.register_parameter("weight", nn.Parameter(weight, requires_grad=False))
        linear.register_buffer("weight_scale", scale[:, 0], persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        return self._multiply(input, gelu=False)

    def forward_gelu(self, x: Tensor) -> Tensor:
        """``gelu(x W + b)``, block by block."""
        return self._multiply(x, gelu=True)

    def dequantised(self) -> Tensor:
        """The rounded weights: float32 [out, in]."""
        return self.weight * self.weight_scale[:, None]

    def _multiply(self, x: Tensor, gelu: bool) -> Tensor:
        if not is_cpu_inference(x):
            bias = None if self.bias is None else self.bias.to(x.dtype)
            y = F.linear(x, self.dequantised().to(x.dtype), bias)
            return F.gelu(y) if gelu else y
        rows = x.reshape(-1, self.in_features).float()
        y = rows.new_empty(len(rows), self.out_features)
        step = max(16, _BLOCK_ELEMENTS * torch.get_num_threads() // self.out_features)
        for part, out in zip(rows.split(step), y.split(step), strict=True):
            self._multiply_block(part, out, gelu)
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def _multiply_block(self, x: Tensor, out: Tensor, gelu: bool) -> None:
        rounded, scale = quantise_rows(x)
        torch.mul(torch._int_mm(rounded, self.weight.T), self.weight_scale, out=out)
        out.mul_(scale)
        if self.bias is not None:
            out.add_(self.bias)
        if gelu:
            torch.ops.aten.gelu_(out)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.dequantised()

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        weight = state_dict.get(f"{prefix}weight")
        if weight is not None and weight.shape == self.weight.shape:
            rounded, scale = quantise_rows(weight.detach().float())
            self.weight_scale.copy_(scale[:, 0])
            state_dict = {**state_dict, f"{prefix}weight": rounded}
        super()._load_from_state_dict(state_dict, prefix, *args)


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, n] -> int8 [rows, n] in -127..127 and the scale of each row, [rows, 1]."""
    scale = x.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(127)
    return (x / scale).round_().to(torch.int8), scale
