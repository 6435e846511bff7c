"""Language models with adapters: loaded, adapted, and in folders. PyTorch, transformers and peft; no spaCy.

A folder holds ``tokenizer/``, ``adapter/`` (peft's own form) where there is one, ``adapter/NAME/`` for others beside
the default one, and ``base/`` (Hugging Face's own form), unless the base is only referred to.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel

from ..models import MODELS
from .lm import tuner_of
from .network import ExtractionLM
from .prompts import Prompter

ADAPTERS = ("himoe", "lora")
PRECISIONS = ("float32", "bfloat16", "int8", "nf4")
BASE, ADAPTER, TOKENIZER, SETTINGS = "base", "adapter", "tokenizer", "settings.json"
ACTIVE = "active_adapter"
MINI = "uie-mini"
"""The bundled demonstration: a compact base and an adapter of it."""


@dataclass(frozen=True)
class LMSettings:
    """Which language model, and how it is adapted.

    base, revision: folder or hub id of a causal language model, or "uie-mini", the bundled one. adapter: "himoe" (the
    paper's, new), "lora" (plain, new), a folder or hub id of a trained one, "uie-mini" for that of the bundled base, or
    None: then all of the base is trained. adapter_revision: of one on the hub. adapter_settings: of a new one
    (``HiMoEConfig``, ``peft.LoraConfig``). precision: of the base: "float32", "bfloat16", or "int8" and "nf4" by
    bitsandbytes. save_base: whether the base is saved too, or only its name. gamma, beta, mixed_precision: of
    ``ExtractionLM``. gradient_checkpointing: in training, compute each layer twice instead of keeping what is in it.
    """

    base: str = MINI
    revision: str | None = None
    adapter: str | None = MINI
    adapter_revision: str | None = None
    adapter_settings: dict[str, Any] = field(default_factory=dict)
    precision: str = "float32"
    save_base: bool = True
    gamma: float = 0.1
    beta: float = 0.1
    mixed_precision: bool = False
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"model.precision is {self.precision!r}; expected one of {', '.join(PRECISIONS)}.")
        if not isinstance(self.base, str) or not self.base:
            raise ValueError(f"model.base is {self.base!r}; expected a folder or hub id of a causal language model.")
        if self.adapter == MINI != self.base:
            raise ValueError(
                f"model.adapter is {MINI!r}, which is not for the base {self.base!r}; expected 'himoe' or 'lora' for a "
                "new one, the folder or hub id of one that was trained with this base, or None."
            )
        if self.adapter_revision is not None and self.adapter in (*ADAPTERS, MINI, None):
            raise ValueError(
                f"model.adapter_revision is {self.adapter_revision!r} and model.adapter {self.adapter!r}; expected a "
                f"revision for an adapter on the hub only."
            )
        if self.adapter_settings and self.adapter not in ADAPTERS:
            raise ValueError(
                f"model.adapter_settings is {self.adapter_settings!r} and model.adapter {self.adapter!r}; expected "
                f"settings for a new adapter only, {' or '.join(ADAPTERS)}."
            )


@dataclass
class LMBundle:
    """A network and the settings that it was made with."""

    network: ExtractionLM
    settings: LMSettings


def load(settings: LMSettings) -> LMBundle:
    """The base that the settings name, with its adapter, a new one or a trained one."""
    source = find_part(settings.base, BASE)
    base = load_base(source, settings)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, revision=settings.revision, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(
            f"model.base is {str(source)!r}, whose tokenizer cannot be loaded ({_first_line(error)}); expected one "
            f"beside the model."
        ) from error
    if settings.adapter in ADAPTERS:
        model = add_adapter(base, settings.adapter, settings.adapter_settings)
    elif settings.adapter is not None:
        model = _load_adapter(base, find_part(settings.adapter, ADAPTER), settings.adapter_revision)
    else:
        model = base
    return _bundle(model, tokenizer, settings)


def find_part(source: str, part: str) -> str | Path:
    """Where the base or adapter of a bundled model is, or of a folder that ``pack`` wrote; else the source as it is."""
    return next((folder for folder in (MODELS / source / part, Path(source) / part) if folder.is_dir()), source)


def load_base(source: str | Path, settings: LMSettings) -> PreTrainedModel:
    """A causal language model, its weights as ``settings.precision`` says; quantised ones stay as they were saved."""
    options: dict[str, Any] = {"revision": settings.revision, "trust_remote_code": False}
    try:
        config = AutoConfig.from_pretrained(source, **options)
        if settings.precision not in ("int8", "nf4"):
            options["torch_dtype"] = getattr(torch, settings.precision)
        elif not hasattr(config, "quantization_config"):
            options["quantization_config"] = _quantisation(settings.precision)
        model = AutoModelForCausalLM.from_pretrained(source, **options)
    except (OSError, ValueError) as error:  # what is no hub id is a ValueError, and so is another kind of model
        raise ValueError(
            f"model.base is {str(source)!r}, which cannot be loaded ({_first_line(error)}); expected a folder or hub "
            f"id of a causal language model."
        ) from error
    for module in model.modules():
        # bitsandbytes packs 4-bit weights for CPUs when they are first used, and does not save them as they were.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def _quantisation(precision: str) -> BitsAndBytesConfig:
    if precision == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def add_adapter(base: PreTrainedModel, kind: str, options: dict[str, Any]) -> Any:
    """The base, frozen, with a new adapter."""
    from peft import LoraConfig, get_peft_model

    from .adapter import HiMoEConfig

    config_class: Any = HiMoEConfig if kind == "himoe" else LoraConfig
    try:
        config = config_class(task_type="CAUSAL_LM", **options)
    except TypeError as error:
        raise ValueError(
            f"model.adapter_settings is {options!r}; expected options of {config_class.__name__} ({error})."
        ) from None
    return get_peft_model(base, config)


def save_folder(bundle: LMBundle, folder: Path) -> None:
    """Write all that ``load_folder`` needs; the base only where the settings say so or it was trained."""
    network, settings = bundle.network, bundle.settings
    for part in (BASE, ADAPTER, TOKENIZER):  # of an earlier save, which may have had what this one has not
        shutil.rmtree(folder / part, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    network.prompter.tokenizer.save_pretrained(folder / TOKENIZER)
    adapted = hasattr(network.model, "peft_config")
    if adapted:
        # "auto" would ask the hub whether the vocabulary is another, and it never is.
        network.model.save_pretrained(folder / ADAPTER, save_embedding_layers=False)
    if settings.save_base or not adapted:
        _save_base(network.model, folder / BASE)
    saved = {**asdict(settings), ACTIVE: network.model.active_adapter if adapted else None}
    (folder / SETTINGS).write_text(json.dumps(saved, indent=2), encoding="utf8")


def load_folder(folder: Path, settings: LMSettings) -> LMBundle:
    """What ``save_folder`` wrote. settings: of the present config; they name the base where it was not saved."""
    if not (folder / TOKENIZER).is_dir():
        raise FileNotFoundError(f"there is no {TOKENIZER} in {folder}; expected what to_disk of uc_uie writes.")
    tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER, trust_remote_code=False)
    base = load_base(folder / BASE if (folder / BASE).is_dir() else find_part(settings.base, BASE), settings)
    model = _load_adapters(base, folder) if (folder / ADAPTER).is_dir() else base
    return _bundle(model, tokenizer, settings)


def _bundle(model: Any, tokenizer: Any, settings: LMSettings) -> LMBundle:
    if settings.gradient_checkpointing:
        tuner = tuner_of(model)
        options = {"use_reentrant": False} if tuner is None else tuner.checkpointing_kwargs()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    network = ExtractionLM(
        model,
        Prompter(tokenizer),
        gamma=settings.gamma,
        beta=settings.beta,
        mixed_precision=settings.mixed_precision,
    )
    return LMBundle(network, settings)


def _load_adapter(base: PreTrainedModel, source: str | Path, revision: str | None, name: str = "default") -> Any:
    from peft import PeftModel

    from . import adapter  # noqa: F401 registers the mixture with peft

    try:
        return PeftModel.from_pretrained(base, source, name, is_trainable=True, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: of weights of other sizes
        raise ValueError(
            f"model.adapter is {str(source)!r}, which cannot be loaded ({_first_line(error)}); expected the folder or "
            f"hub id of an adapter that was trained with this base."
        ) from error


def _load_adapters(base: PreTrainedModel, folder: Path) -> Any:
    """The base with all adapters that ``save_folder`` wrote, the same one active."""
    places = {path.parent.name: path.parent for path in sorted((folder / ADAPTER).glob("*/adapter_config.json"))}
    if (folder / ADAPTER / "adapter_config.json").is_file():
        places = {"default": folder / ADAPTER, **places}
    (first, place), *others = places.items()
    model = _load_adapter(base, place, None, first)
    for name, place in others:
        model.load_adapter(place, name, is_trainable=True)
    model.set_adapter(active_adapter(folder, first))
    return model


def active_adapter(folder: Path, default: str = "default") -> str:
    """The name of the active adapter that ``save_folder`` wrote; ``default`` for folders that do not tell."""
    return json.loads((folder / SETTINGS).read_text("utf8")).get(ACTIVE) or default


def _save_base(model: Any, folder: Path) -> None:
    """The base as it was before the adapter: peft renames what it wraps, so the names are turned back."""
    if not hasattr(model, "peft_config"):
        model.save_pretrained(folder, safe_serialization=True)
        return
    base = model.get_base_model()
    tensors = {}
    for name, tensor in base.state_dict().items():
        parts = name.split(".")
        if "modules_to_save" in parts or any(part.startswith(("himoe_", "lora_")) for part in parts):
            continue  # of the adapter
        tensors[".".join(part for part in parts if part not in ("base_layer", "original_module"))] = tensor
    base.save_pretrained(folder, state_dict=tensors, safe_serialization=True)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
