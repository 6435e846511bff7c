"""The hierarchical mixture of LoRA experts (UC-UIE, section 3.4), as a method of peft. PyTorch only: no spaCy.

    model = get_peft_model(base, HiMoEConfig())
    model(input_ids=..., attention_mask=..., instruction_mask=...)     # see ``HiMoEModel``
    model.base_model.auxiliary_losses(labels)

Importing this package makes ``HIMOE`` adapters loadable with ``PeftModel.from_pretrained``.
"""

from __future__ import annotations

from .config import CAPABILITIES, FFN_MODULES, HiMoEConfig
from .layer import HiMoELinear
from .registration import register_himoe
from .report import AdapterReport, adapter_report
from .tuner import HiMoEModel

__all__ = [
    "CAPABILITIES",
    "FFN_MODULES",
    "AdapterReport",
    "HiMoEConfig",
    "HiMoELinear",
    "HiMoEModel",
    "adapter_report",
    "register_himoe",
]

register_himoe()
