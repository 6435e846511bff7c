"""The registered architecture: where the network comes from, and how thinc sees it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thinc.api import Model

from ..torch_wrapper import Codec, Learning, wrap_network

if TYPE_CHECKING:
    from ..precision import Precision
    from .checkpoint import Bundle


@dataclass(frozen=True)
class GlirelCodec(Codec["Bundle"]):
    """A GLiREL network from a checkpoint, or a new one on a pretrained encoder.

    precision: what prediction computes in; the weights that are trained and saved stay float32.
    """

    checkpoint: str | None
    revision: str | None
    encoder: str | None
    network: str
    settings: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "float32"

    def load(self) -> Bundle:
        from . import checkpoint

        if self.checkpoint is not None:
            return checkpoint.load(self.checkpoint, revision=self.revision)
        assert self.encoder is not None
        return checkpoint.new(self.network, self.encoder, revision=self.revision, settings=self.settings)

    def to_files(self, bundle: Bundle) -> dict[str, bytes]:
        from . import checkpoint

        return checkpoint.to_files(bundle)

    def from_files(self, files: dict[str, bytes]) -> Bundle:
        from . import checkpoint

        return checkpoint.from_files(files)

    def from_folder(self, folder: Path) -> Bundle:
        from . import checkpoint

        return checkpoint.read_folder(folder, folder)

    def for_prediction(self, bundle: Bundle) -> Any:
        from ..precision import to_precision
        from ..speedups import accelerate

        if self.precision == "float32":
            return accelerate(bundle.network)
        # A copy that shares all parameters but those that are rounded.
        network = copy.deepcopy(bundle.network, {id(shared): shared for shared in bundle.network.parameters()})
        # Nearly all the time goes to the encoder; what comes after it is small and stays exact.
        to_precision(network.encoder, self.precision)
        return accelerate(network).eval()


def build_glirel(
    checkpoint: str | None = None,
    revision: str | None = None,
    precision: Literal["float32", "bfloat16", "int8"] = "float32",
    device: str | None = None,
    encoder: str | None = None,
    network: str = "anchored",
    settings: dict[str, Any] | None = None,
    group_rates: dict[str, float] | None = None,
) -> Model:
    """``spacy_ie_moe.GLiREL.v1``: zero-shot relation scores for windows of text.

    checkpoint: a bundled name, a folder or a hub id (with ``revision``); loaded when first needed.
    precision: "float32", "bfloat16" or "int8". device: "cpu", "cuda", ...; default: that of spaCy.
    encoder, network, settings: instead of a checkpoint, a new network ("anchored" or "prompt") on the pretrained
    encoder of a folder or hub id, to be trained. group_rates: learning-rate factor by prefix of a parameter's
    name, such as ``{"encoder.": 0.1}``.
    """
    if (checkpoint is None) == (encoder is None):
        raise ValueError(
            f"model.checkpoint is {checkpoint!r} and model.encoder is {encoder!r}; expected exactly one of them."
        )
    if checkpoint is not None and settings:
        raise ValueError(f"model.settings is {settings!r} beside a checkpoint, which has its own; expected none.")
    codec = GlirelCodec(checkpoint, revision, encoder, network, dict(settings or {}), precision)
    return wrap_network("glirel", codec, learning=Learning(dict(group_rates or {})), device=device)
