"""What an adapter of a model would cost, counted without its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from .config import HiMoEConfig
from .layer import HiMoELinear
from .mixture import Layout


@dataclass(frozen=True)
class AdapterReport:
    """Counts of parameters.

    architecture: of the base. base: its parameters. layers: linear layers with an adapter. experts: in B and A of all
    LoRAs. low_routers, high_routers: in G^i and G, biases included. plain_lora: of one LoRA of the same rank at the
    same layers.
    """

    architecture: str
    base: int
    layers: int
    experts: int
    low_routers: int
    high_routers: int
    plain_lora: int

    @property
    def trainable(self) -> int:
        """Parameters of the adapter."""
        return self.experts + self.low_routers + self.high_routers

    @property
    def percent(self) -> float:
        """Trainable parameters in percent of base and adapter."""
        return 100 * self.trainable / (self.base + self.trainable)

    @property
    def percent_of_base(self) -> float:
        """Trainable parameters in percent of the base."""
        return 100 * self.trainable / self.base

    def rows(self) -> list[tuple[str, str]]:
        """What there is to say, a name and a value each."""
        return [
            ("base", f"{self.architecture}, {self.base:,} parameters"),
            ("adapted linear layers", f"{self.layers:,}"),
            ("LoRA experts", f"{self.experts:,}"),
            ("low-level routers", f"{self.low_routers:,}"),
            ("high-level routers", f"{self.high_routers:,}"),
            ("trainable", f"{self.trainable:,}"),
            ("of base and adapter", f"{self.percent:.2f} %"),
            ("of the base", f"{self.percent_of_base:.2f} %"),
            ("times a plain LoRA", f"{self.trainable / self.plain_lora:.1f} ({self.plain_lora:,})"),
        ]


def adapter_report(base: str | Path | PretrainedConfig, config: HiMoEConfig | None = None) -> AdapterReport:
    """What an adapter costs on a base model; no weights are read or made.

    base: a folder that holds a ``config.json`` (nothing else is needed), a hub id, or such a config. config: of the
    adapter; that of the paper by default. Raises ``ValueError`` or ``OSError`` where there is no such base, and
    ``ValueError`` where it has no such layers.
    """
    settings = base if isinstance(base, PretrainedConfig) else AutoConfig.from_pretrained(base)
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(settings)
        return count(get_peft_model(model, config or HiMoEConfig()))


def count(model: PeftModel) -> AdapterReport:
    """The same of a model that has an adapter; the active one is counted."""
    tuner: Any = model.base_model
    layers: list[HiMoELinear] = tuner.layers
    sizes: list[tuple[Layout, int, int]] = []
    for layer in layers:
        down, up, _ = layer.parameters_of(layer.adapter or "")
        sizes.append((layer.layout, down.shape[1], up.shape[1]))
    base = model.get_base_model()
    added = {id(p) for layer in layers for name in layer.adapter_layer_names for p in getattr(layer, name).values()}
    return AdapterReport(
        architecture=type(base).__name__,
        base=sum(parameter.numel() for parameter in base.parameters() if id(parameter) not in added),
        layers=len(layers),
        experts=sum(layout.ranks * (d + k) for layout, d, k in sizes),
        low_routers=sum(layout.routed * (d + 1) for layout, d, _ in sizes),
        high_routers=sum(layout.gates * (d + 1) for layout, d, _ in sizes),
        plain_lora=sum(layout.rank * (d + k) for layout, d, k in sizes),
    )
