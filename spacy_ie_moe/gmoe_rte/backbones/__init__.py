"""What an RTE backbone is, and the registered ones. A new backbone is one file and one name here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from ..features import Extraction, Features
from ..schema import Schema
from .dual_dec import DualDec
from .od_rte import OdRte
from .re_cent import ReCent
from .sinet import Sinet
from .tlrel import TlRel

Streams = Mapping[str, Features]
"""The vectors of each expert by its name (``mixture.EXPERTS``)."""


class Expert(Protocol):
    """An ER-Net or RE-Net: the auxiliary network that makes an expert learn its task."""

    def loss(self, features: Features, targets: Any) -> Tensor:
        """The loss, a scalar, on the expert's own stream. targets: those of the backbone."""


class Backbone(Protocol):
    """An RTE-Net: features and gold in, a loss out; features in, triplets out."""

    reads: Sequence[str]
    """The streams that it needs."""
    max_span: int
    """Words of the widest entity that it can find."""
    loses: str
    """What it does not find of what overlaps, as in "it loses ..."; empty if it loses nothing."""

    def prepare(self, lengths: np.ndarray, gold: Sequence[Extraction], rng: np.random.Generator) -> Any:
        """What to learn from a batch of sentences [B], drawn once for the backbone and its experts."""

    def loss(self, streams: Streams, targets: Any) -> Tensor:
        """The loss l_rte, a scalar."""

    def predict(self, streams: Streams, threshold: float) -> list[Extraction]:
        """The entities of each sentence, and the triplets whose probability is at least ``threshold``."""

    # A backbone that is told what to look for also has ``labels_at_once``, how many labels a prompt has at most, and
    # ``negative_labels``, how many a sentence is learnt with beside its own, for each of its triplets, and
    # ``absent_labels``, the probability that it is learnt without its own. Labels in gold and extractions are then
    # places in a sentence's prompt (``Features.prompts``).

    def make_expert(self, task: str) -> Expert:
        """A new network for the task "entities" or "relations", of the architecture of the backbone's own module."""


BACKBONES: dict[str, type[Any]] = {
    "sinet": Sinet,
    "dual_dec": DualDec,
    "tlrel": TlRel,
    "od_rte": OdRte,
    "re_cent": ReCent,
}


def complete(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` of the backbone ``name`` and, of those that are not in it, the defaults."""
    _, _, *parameters = signature(BACKBONES[name]).parameters.values()  # behind width and schema
    defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
    return {**defaults, **settings}


def make_backbone(name: str, width: int, schema: Schema, settings: Mapping[str, Any]) -> Any:
    """The backbone ``name`` for vectors of ``width``. Raises ``ValueError`` for unknown names and settings."""
    if not isinstance(name, str) or name not in BACKBONES:
        raise ValueError(f"backbone is {name!r}; expected one of {', '.join(BACKBONES)}.")
    _, _, *known = signature(BACKBONES[name]).parameters
    try:
        signature(BACKBONES[name]).bind(width, schema, **settings)
    except TypeError as error:
        expected = f"expected {', '.join(known) or 'none'}"
        raise ValueError(f"backbone_settings of {name!r} are {dict(settings)!r}: {error}; {expected}.") from None
    return BACKBONES[name](width, schema, **settings)
