"""What this package needs to know of a causal language model of Hugging Face, with or without an adapter."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def tuner_of(model: Any) -> Any:
    """The tuner of the mixture of experts in a model; None where there is none."""
    tuner = getattr(model, "base_model", None)
    return tuner if hasattr(tuner, "auxiliary_losses") else None


def router_of(model: Any) -> str | None:
    """Where the gates of a mixture of experts come from: "soft", "hard" or "flat"; None where there is no mixture.

    With a hard router a task's capabilities are its gates.
    """
    tuner = tuner_of(model)
    return None if tuner is None else tuner.peft_config[tuner.active_adapters[0]].router


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
