"""Networks in files: our own format, and the reading of the reference's published one. PyTorch only.

Own format, complete without a hub: ``config.json`` (settings, the encoder's config, the label set, a version and
the hash of the weights), ``model.safetensors`` and ``tokenizer.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from transformers import AutoConfig
from transformers.modeling_utils import no_init_weights

from ..encoder import WordPieces, load_encoder
from ..models import MODELS
from ..network_files import CONFIG, TOKENIZER, WEIGHTS, Format, fill, portable, read_pieces, read_weights
from ..network_files import read_folder as read_files
from .anchored import AnchoredNetwork
from .network import SPECIAL_TOKENS, PromptNetwork

FORMAT = Format(
    "spacy_ie_moe.glirel", 1, {"network": str, "settings": dict, "labels": list, "pad_id": int, "encoder": dict}
)
REFERENCE_CONFIG, REFERENCE_WEIGHTS = "glirel_config.json", "pytorch_model.bin"

PROMPT_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "subtoken_pooling": "first",
    "span_marker_mode": "markerv1",
    "label_embed_strategy": "both",
    "scorer": "dot",
    "refinement": "reference",
    "refine_relation": False,
    "refine_prompt": False,
    "ffn_mul": 4,
    "dropout": 0.4,
    "max_len": 512,
    "mixed_precision": False,
}
"""Settings of ``PromptNetwork``: the names and, but for ``refinement``, the values of the reference's large model."""

ANCHORED_DEFAULTS: dict[str, Any] = {
    "scale": 14.0,
    "bias": -5.0,
    "reach": 16,
    "role_size": 32,
    "dropout": 0.1,
    "max_len": 512,
    "mixed_precision": False,
}
"""Settings of ``AnchoredNetwork``."""

Network = PromptNetwork | AnchoredNetwork
NETWORKS: dict[str, tuple[type[Network], dict[str, Any]]] = {
    "prompt": (PromptNetwork, PROMPT_DEFAULTS),
    "anchored": (AnchoredNetwork, ANCHORED_DEFAULTS),
}
CHOICES = {
    "subtoken_pooling": ("first", "last", "mean", "sum", "first_last"),
    "span_marker_mode": ("markerv1", "markerv2"),
    "label_embed_strategy": ("label", "ent_token", "both"),
    "scorer": ("dot", "dot_thresh", "dot_norm", "concat_proj"),
    "refinement": ("reference", "paper"),
}

_REFERENCE_NAMES = {
    "token_rep_layer.bert_layer.model.": "encoder.",
    "token_rep_layer.projection.": "projection.",
    "rnn.lstm.": "lstm.lstm.",
    "span_rep_layer.rel_rep_layer.span_marker.": "marker.",
    "span_rep_layer.rel_rep_layer.out_project.": "pair_layer.out_project.",
    "prompt_rep_layer.": "label_layer.",
    "refine_relation.": "refine_pairs.",
    "refine_prompt.": "refine_labels.",
    "scorer.": "scorer.",
}
_UNUSED = ("coref_classifier.", "token_rep_layer.bert_layer.model.pooler.")
"""Parts of reference checkpoints that no prediction uses."""


@dataclass
class Bundle:
    """A network with all that is needed to write it down again.

    labels: the label set that it was trained on, used where a user gives none.
    """

    network: Network
    kind: str
    settings: dict[str, Any]
    encoder_config: dict[str, Any]
    labels: list[str] = field(default_factory=list)


def new(
    kind: str, encoder: str | Path, *, revision: str | None = None, settings: Mapping[str, Any] | None = None
) -> Bundle:
    """An untrained network on the pretrained ``encoder`` of a folder or hub id. kind: "prompt" or "anchored"."""
    special = SPECIAL_TOKENS if kind == "prompt" else ()
    pieces = WordPieces.from_pretrained(encoder, revision, special)
    pretrained = load_encoder(encoder, revision)
    settings = {**(settings or {})}
    if kind == "prompt":
        # New rows are drawn like the encoder's own; the covariance of the whole table is not worth its time.
        pretrained.resize_token_embeddings(len(pieces), mean_resizing=False)
        settings["vocab_size"] = len(pieces)
    bundle = _build(kind, settings, pretrained.config.to_diff_dict(), pieces)
    bundle.network.encoder.load_state_dict(pretrained.state_dict())
    return bundle


def load(source: str | Path, *, revision: str | None = None) -> Bundle:
    """The network of a bundled name, a folder or a hub id, in our own format or the reference's.

    Raises ``ValueError`` or ``FileNotFoundError`` that names what is wrong and what was expected.
    """
    folder = _find(source, revision)
    if (folder / REFERENCE_CONFIG).exists():
        return _load_reference(folder, source)
    return read_folder(folder, source)


def read_folder(folder: Path, source: str | Path) -> Bundle:
    """The network of a folder in our own format; ``source`` is what errors call it."""
    return from_files(read_files(folder, (CONFIG, WEIGHTS, TOKENIZER), source), source)


def _find(source: str | Path, revision: str | None) -> Path:
    for folder in (MODELS / str(source), Path(source)):
        if any((folder / name).exists() for name in (CONFIG, REFERENCE_CONFIG)):
            return folder
    if Path(source).exists() or str(source).count("/") != 1:
        raise FileNotFoundError(
            f"checkpoint {str(source)!r} is neither a bundled model ({', '.join(bundled_names())}), nor a folder with "
            f"{CONFIG} or {REFERENCE_CONFIG}, nor a hub id of the form owner/name."
        )
    from huggingface_hub import snapshot_download

    wanted = [CONFIG, WEIGHTS, TOKENIZER, REFERENCE_CONFIG, REFERENCE_WEIGHTS]
    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=wanted))
    except Exception as error:  # the hub's client has many kinds
        raise OSError(
            f"checkpoint {str(source)!r} is no folder and could not be had from the hub ({type(error).__name__}); "
            f"expected a bundled model ({', '.join(bundled_names())}), a folder or a reachable hub id."
        ) from error


def bundled_names() -> list[str]:
    """The names of the networks that come with the package."""
    found = (path.parent for path in MODELS.glob(f"*/{WEIGHTS}"))
    return sorted(folder.name for folder in found if FORMAT.name in (folder / CONFIG).read_text("utf8"))


def to_files(bundle: Bundle, *, dtype: torch.dtype = torch.float32) -> dict[str, bytes]:
    """The files of a network in our own format; ``dtype`` is that of the weights in the file."""
    fields = {
        "network": bundle.kind,
        "settings": bundle.settings,
        "labels": bundle.labels,
        "encoder": bundle.encoder_config,
    }
    return FORMAT.write(bundle.network, fields, bundle.network.pieces, dtype=dtype)


def save(bundle: Bundle, folder: str | Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a network to a folder in our own format."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in to_files(bundle, dtype=dtype).items():
        (folder / name).write_bytes(content)


def from_files(files: Mapping[str, bytes], source: str | Path = "") -> Bundle:
    """The network of ``to_files``. Raises ``ValueError`` on another format, a newer version or damaged weights."""
    config = FORMAT.read_config(files, source)
    if "model_type" not in config["encoder"]:
        raise ValueError(f"checkpoint {str(source)!r}: encoder in {CONFIG} lacks model_type.")
    pieces = read_pieces(files, config, source)
    with no_init_weights():  # memory that is never written to is never taken
        bundle = _build(config["network"], config["settings"], config["encoder"], pieces)
    bundle.labels = config["labels"]
    read_weights(bundle.network, files, source)
    return bundle


def _build(kind: str, settings: Mapping[str, Any], encoder_config: dict[str, Any], pieces: WordPieces) -> Bundle:
    """A network of a kind, its parameters not loaded."""
    if kind not in NETWORKS:
        raise ValueError(f"network is {kind!r}; expected one of {', '.join(NETWORKS)}.")
    network, defaults = NETWORKS[kind]
    unknown = set(settings) - set(defaults) - {"vocab_size"}
    if unknown:
        raise ValueError(f"settings of the {kind} network have {min(unknown)!r}; expected {', '.join(defaults)}.")
    settings = {**defaults, **settings}
    for name, choices in CHOICES.items():
        if name in settings and settings[name] not in choices:
            raise ValueError(f"{name} is {settings[name]!r}; expected one of {', '.join(choices)}.")
    encoder_config = portable(encoder_config)
    return Bundle(network(settings, encoder_config, pieces).eval(), kind, settings, encoder_config)


def _load_reference(folder: Path, source: str | Path) -> Bundle:
    """A checkpoint of the reference: everything but the encoder's config and tokenizer is in the folder."""
    try:
        config = json.loads((folder / REFERENCE_CONFIG).read_text("utf8"))
    except ValueError as error:
        raise ValueError(f"checkpoint {str(source)!r}: {REFERENCE_CONFIG} is not JSON ({error}).") from error
    for name in ("span_marker_mode", "subtoken_pooling", "model_name"):
        if not isinstance(config, dict) or not isinstance(config.get(name), str):
            raise ValueError(
                f"checkpoint {str(source)!r} has no {name} in {REFERENCE_CONFIG}; expected one of GLiREL 1.x."
            )
    encoder = _encoder_source(folder, config["model_name"])
    if not (folder / REFERENCE_WEIGHTS).exists():
        raise FileNotFoundError(f"checkpoint {str(source)!r} lacks {REFERENCE_WEIGHTS}.")
    weights = folder / REFERENCE_WEIGHTS
    # Mapped where the file's form allows it: the weights are then in memory once, not twice.
    state = torch.load(weights, map_location="cpu", weights_only=True, mmap=is_zipfile(weights))
    tensors = _rename(state)
    settings = {name: config[name] for name in PROMPT_DEFAULTS if name in config}
    if settings["subtoken_pooling"] == "mean":
        settings["subtoken_pooling"] = "sum"  # what the reference computes under that name
    settings["vocab_size"] = next(
        len(tensor) for name, tensor in tensors.items() if name.endswith("embeddings.word_embeddings.weight")
    )
    pieces = WordPieces.from_pretrained(encoder, special=SPECIAL_TOKENS)
    with no_init_weights():
        bundle = _build("prompt", settings, AutoConfig.from_pretrained(encoder).to_diff_dict(), pieces)
    fill(bundle.network, tensors, source)
    return bundle


def _encoder_source(folder: Path, model_name: str) -> str:
    """The encoder of a reference checkpoint: a path relative to its folder if there is one, else as it stands."""
    beside = folder / model_name
    return str(beside.resolve()) if (beside / "config.json").exists() else model_name


def _rename(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The reference's names of parameters turned into ours."""
    renamed = {}
    for name, tensor in state.items():
        if name.startswith(_UNUSED) or name.endswith("embeddings.position_ids"):
            continue
        prefix: Sequence[str] = [prefix for prefix in _REFERENCE_NAMES if name.startswith(prefix)]
        renamed[_REFERENCE_NAMES[prefix[0]] + name[len(prefix[0]) :] if prefix else name] = tensor
    return renamed
