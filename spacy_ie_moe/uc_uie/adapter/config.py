"""The settings of the hierarchical mixture of LoRA experts, as peft keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from peft import PeftConfig

from ...labels import is_whole_number
from ..instructions import CAPABILITIES

FFN_MODULES = ("gate_proj", "up_proj", "down_proj")
"""What the paper adapts (section 4.1): the feed-forward layers of Llama and its kin."""

Router = Literal["soft", "hard", "flat"]
RouterInit = Literal["kaiming", "zeros"]
EntropyOver = Literal["all", "prompt"]
AdapterReduction = Literal["mean", "sum"]


class MethodName(str):
    """A name that peft and transformers treat like a member of peft's closed enumeration of methods."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """As the enumeration has it."""
        return str.__str__(self)

    @property
    def value(self) -> str:
        """As the enumeration has it."""
        return str.__str__(self)


HIMOE = MethodName("HIMOE")


@dataclass
class HiMoEConfig(PeftConfig):
    """Hierarchical mixture of LoRA experts (UC-UIE, section 3.4).

    What the paper gives:
        r: the rank of every LoRA. alpha: α; a LoRA's output is multiplied by α / r. sub_experts: Q, in each capability
        expert. capabilities: those that have an expert, of ``CAPABILITIES`` (ablations have fewer, or none, which
        leaves a plain LoRA). shared_expert: whether there is E^S (eq. 2).
        router: "soft" learns the gates g' from the instruction (eq. 3); "hard" has no such router and takes them from
        the caller (``routes``); "flat" has neither gates nor capabilities: one mixture over all
        Q x len(capabilities) sub-experts, token by token (eq. 6 over all of them).
    What it leaves open:
        dropout: on what enters the adapter, routers included, in training.
        router_init: of all routers' weights: "kaiming", as ``torch.nn.Linear`` starts, or "zeros", so that every
        sub-expert starts with weight 1 / Q and every gate with 1/2.
        entropy_over: the tokens of eq. 8: "all" of a sequence, or those of the "prompt", without the answer. Padding
        never counts.
        adapter_reduction: how the auxiliary losses (eq. 4 and 8) of all adapted layers become one: "mean" or "sum".
    What peft knows: target_modules (default: ``FFN_MODULES``), exclude_modules, layers_to_transform, layers_pattern,
    modules_to_save; task_type is always CAUSAL_LM, as no other model of peft's passes the routing on.

    Raises ``ValueError`` for a setting that is none.
    """

    r: int = field(default=4, metadata={"help": "Rank of every LoRA."})
    alpha: float = field(default=8, metadata={"help": "A LoRA's output is multiplied by alpha / r."})
    sub_experts: int = field(default=4, metadata={"help": "Q: LoRAs in each capability expert."})
    capabilities: tuple[str, ...] = field(default=CAPABILITIES, metadata={"help": "Capabilities with an expert."})
    shared_expert: bool = field(default=True, metadata={"help": "Whether there is an expert that is always active."})
    router: Router = field(default="soft", metadata={"help": "Where gates come from: soft, hard or flat."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout on what enters the adapter."})
    router_init: RouterInit = field(default="kaiming", metadata={"help": "How routers start: kaiming or zeros."})
    entropy_over: EntropyOver = field(default="all", metadata={"help": "Tokens of the entropy loss: all or prompt."})
    adapter_reduction: AdapterReduction = field(
        default="mean", metadata={"help": "Auxiliary losses over layers: mean or sum."}
    )
    target_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names of the linear layers to adapt, or a regular expression."}
    )
    exclude_modules: list[str] | str | None = field(
        default=None, metadata={"help": "Names of layers to leave alone, or a regular expression."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Indices of the decoder layers to adapt; all without."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list of decoder layers, where it is unusual."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Other modules to train and to save as a whole."}
    )

    def __post_init__(self) -> None:
        self.task_type = self.task_type or "CAUSAL_LM"
        super().__post_init__()
        self.peft_type = HIMOE
        if self.task_type != "CAUSAL_LM":
            raise ValueError(f"task_type is {str(self.task_type)!r}; expected 'CAUSAL_LM', as it passes routing on.")
        self.capabilities = _checked_capabilities(self.capabilities)
        for name, least in (("r", 1), ("sub_experts", 1)):
            _require(is_whole_number(getattr(self, name), least), name, self, f"a whole number of at least {least}")
        for name, options in (
            ("router", Router),
            ("router_init", RouterInit),
            ("entropy_over", EntropyOver),
            ("adapter_reduction", AdapterReduction),
        ):
            choices = get_args(options)
            _require(getattr(self, name) in choices, name, self, f"one of {', '.join(choices)}")
        _require(isinstance(self.alpha, (int, float)) and self.alpha > 0, "alpha", self, "a number above 0")
        _require(0 <= self.dropout < 1, "dropout", self, "a probability below 1")
        if not self.capabilities and not self.shared_expert:
            raise ValueError("capabilities is empty and shared_expert false; expected an expert.")
        if self.router == "flat" and not self.capabilities:
            raise ValueError("capabilities is empty; expected one at least where router is 'flat'.")
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError("layers_to_transform needs target_modules to be a list of names; it is a string.")
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError("layers_pattern is set without layers_to_transform; expected both or none.")


def _require(holds: bool, name: str, config: HiMoEConfig, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {getattr(config, name)!r}; expected {expected}.")


def _checked_capabilities(given: Any) -> tuple[str, ...]:
    """In the order of ``CAPABILITIES``, whatever order they came in."""
    if isinstance(given, str) or not set(given) <= set(CAPABILITIES) or len(set(given)) != len(given):
        raise ValueError(f"capabilities is {given!r}; expected some of {', '.join(CAPABILITIES)}, each once.")
    return tuple(name for name in CAPABILITIES if name in given)
