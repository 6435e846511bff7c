"""What this package needs to know of a causal language model of Hugging Face, with or without an adapter."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def tuner_of(model: Any) -> Any:
    """The tuner of the mixture of experts in a model; None where there is none, or its adapters are switched off."""
    tuner: Any = getattr(model, "base_model", None)
    return tuner if hasattr(tuner, "auxiliary_losses") and tuner.layers else None


def weights_of(model: Any) -> tuple[Any, ...]:
    """What tells whether a model computes the same as before: its parameters and how often each was written to."""
    return tuple((id(parameter), parameter._version) for parameter in model.parameters())


def adapter_of(model: Any) -> tuple[str | None, bool]:
    """The name of the active adapter of a model, and whether its adapters are switched off."""
    off = any(getattr(module, "disable_adapters", False) is True for module in model.modules())
    return getattr(model, "active_adapter", None), off


def router_of(model: Any) -> str | None:
    """Where the gates of a mixture of experts come from: "soft", "hard" or "flat"; None where there is no mixture.

    With a hard router a task's capabilities are its gates.
    """
    tuner = tuner_of(model)
    return None if tuner is None else tuner.peft_config[tuner.active_adapters[0]].router


def has_gates(model: Any) -> bool:
    """Whether the model has capability experts whose gates are learnt or given."""
    tuner = tuner_of(model)
    return tuner is not None and any(layer.layout.gated for layer in tuner.layers)


def takes_positions(model: Any) -> bool:
    """Whether the model can be told where in the text tokens are; others have no absolute positions."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(base.forward).parameters


def longest_text(model: Any) -> int:
    """How many tokens the model can read and write in all."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize)


@contextmanager
def last_logits(model: Any, count: int) -> Iterator[None]:
    """Let the head of a language model see the last ``count`` positions only: the others' logits are not needed."""
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, -count:], *inputs[1:]))
    try:
        yield
    finally:
        hook.remove()
