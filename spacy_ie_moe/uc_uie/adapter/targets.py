"""Which layers of a model an adapter goes into, and what to say where that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from .config import FFN_MODULES, HiMoEConfig
from .layer import HiMoELinear, quantisation

EXPERTS = "experts"
"""What transformers calls the feed-forward experts of a sparse model, a list of modules or packed parameters."""


def check_targets(model: nn.Module, config: HiMoEConfig, is_target: Callable[[str], Any]) -> None:
    """Raise ``ValueError`` unless every target is there and can be adapted.

    is_target: whether a module's name is one of ``config.target_modules``, layers and exclusions regarded.
    """
    find_head: Any = getattr(model, "get_output_embeddings", lambda: None)
    head = find_head()
    modules = dict(_outer_modules(model))
    if isinstance(config.target_modules, (list, set, tuple)):
        missing = [name for name in config.target_modules if not _has(modules, name)]
        if missing:
            raise ValueError(
                f"target_modules has {', '.join(sorted(missing))}, but {type(model).__name__} has no such layers; "
                f"expected names of its linear layers, which are {_linears(modules, head)}."
            )
    targets = {name: module for name, module in modules.items() if is_target(name)}
    for name, module in targets.items():
        if f".{EXPERTS}." in name:
            raise ValueError(f"target_modules has {name}, an expert that only some tokens reach; {_INSTEAD}")
        if module is head:
            raise ValueError(f"target_modules has {name}, the head of the model; expected layers that see all tokens.")
        if not is_linear(module):
            usable = {name: module for name, module in modules.items() if is_linear(module)}
            raise ValueError(
                f"target_modules has {name}, a {_base(module).__name__}; expected an nn.Linear or a quantised one, "
                f"and those of {type(model).__name__} are {_linears(usable, head)}."
            )
    packed = [name for name, module in modules.items() if _is_packed(name, module)]
    if packed and set(config.target_modules or ()) == set(FFN_MODULES):
        raise ValueError(f"{packed[0]} holds the experts of a sparse model as packed parameters; {_INSTEAD}")


_INSTEAD = "expected target_modules as a regular expression of layers that all tokens pass, such as a shared expert's."


def is_linear(module: nn.Module) -> bool:
    """Whether a module is a linear layer that can be adapted."""
    base = module.get_base_layer() if isinstance(module, HiMoELinear) else module
    backend = quantisation(base)
    return isinstance(base, nn.Linear) if backend is None else backend.layer_type == "linear"


def _outer_modules(model: nn.Module) -> Iterable[tuple[str, nn.Module]]:
    """All modules by name but those inside of adapted layers."""
    adapted: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if not name.startswith(adapted):
            yield name, module
        if isinstance(module, HiMoELinear):
            adapted = (*adapted, f"{name}.")


def _has(modules: Iterable[str], target: str) -> bool:
    return any(name == target or name.endswith(f".{target}") for name in modules)


def _linears(modules: dict[str, nn.Module], head: nn.Module | None) -> str:
    """The names of layers with a matrix, each once; the type too where it is none that can be adapted."""
    found = {}
    for name, module in modules.items():
        if module is head:
            continue
        if _is_packed(name, module):
            found[name.rpartition(".")[2]] = f" (packed parameters of {type(module).__name__})"
        elif is_linear(module) or type(module).__name__ == "Conv1D":
            found[name.rpartition(".")[2]] = "" if is_linear(module) else f" ({type(module).__name__})"
    return ", ".join(f"{name}{note}" for name, note in found.items()) or "none"


def _is_packed(name: str, module: nn.Module) -> bool:
    """Whether a module holds the experts of a sparse model, each a slice of a parameter."""
    return name.rpartition(".")[2] == EXPERTS and any(p.ndim == 3 for p in module.parameters(recurse=False))


def _base(module: nn.Module) -> type:
    return type(module.get_base_layer() if isinstance(module, HiMoELinear) else module)
