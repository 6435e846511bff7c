"""Makes HiMoE known to peft, whose own registration takes only methods of its closed enumeration."""

from __future__ import annotations

from typing import Any

from peft import mapping

from .config import HIMOE, HiMoEConfig
from .tuner import HiMoEModel


def register_himoe() -> None:
    """Let peft make, save and load adapters of ``HiMoEConfig``; a second call changes nothing.

    Raises ``RuntimeError`` where peft has no such tables any more, or another method of that name.
    """
    entries: dict[str, Any] = {
        "PEFT_TYPE_TO_CONFIG_MAPPING": HiMoEConfig,
        "PEFT_TYPE_TO_TUNER_MAPPING": HiMoEModel,
        "PEFT_TYPE_TO_PREFIX_MAPPING": HiMoEModel.prefix,
    }
    for name, entry in entries.items():
        table = getattr(mapping, name, None)
        if not isinstance(table, dict):
            raise RuntimeError(
                f"peft.mapping.{name} is gone; expected a version of peft that this one was tested with."
            )
        if table.setdefault(HIMOE, entry) != entry:
            raise RuntimeError(f"peft.mapping.{name} has another method named {HIMOE}; expected none.")
