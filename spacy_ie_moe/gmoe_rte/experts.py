"""The RTE-GMoE network: a backbone and its two experts on the streams of the mixture. PyTorch only.

Source: RTE-GMoE, section 3 and Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .backbones import make_backbone
from .checks import check_weight
from .features import Extraction, Features
from .mixture import EXPERTS, PRESETS, TRIPLETS, Mixture
from .prompts import draw_prompts
from .schema import Schema

ROWS_AT_ONCE = 3072
"""Words, padding included, that are predicted from in one go: bounds what a batch of many sentences takes."""


class RTENetwork(nn.Module):
    """Sentence vectors to losses, or to triplets.

    width: d of the vectors. backbone, backbone_settings: the RTE-Net (see ``backbones``). mixture: a name of
    ``mixture.PRESETS``, or None for the backbone alone; mixture_settings: what differs from it. alpha, beta: weights
    of the experts' losses, L = l_rte + alpha l_ent + beta l_rel (section 3.5). seed: of the sampling.
    """

    def __init__(
        self,
        width: int,
        schema: Schema,
        *,
        backbone: str = "sinet",
        backbone_settings: Mapping[str, Any] | None = None,
        mixture: str | None = "gmoe",
        mixture_settings: Mapping[str, Any] | None = None,
        alpha: float = 1.0,
        beta: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_weight("alpha", alpha, zero=True)
        check_weight("beta", beta, zero=True)
        self.schema = schema
        self.weights = {"entities": alpha, "relations": beta}
        self.backbone = make_backbone(backbone, width, schema, backbone_settings or {})
        self.mixture = _make_mixture(width, mixture, mixture_settings or {})
        tasks = self.mixture.experts[:-1] if self.mixture is not None else ()
        if missing := set(self.backbone.reads) - {*tasks, TRIPLETS}:
            raise ValueError(f"the backbone reads the stream {min(missing)!r}; expected a mixture that has it.")
        self.experts: Any = nn.ModuleDict({task: self.backbone.make_expert(task) for task in tasks})
        self.is_stripped = False  # of its experts' networks, so that it can only predict
        self._rng = np.random.default_rng(seed)

    def forward(self, features: Features, gold: Sequence[Extraction]) -> dict[str, Tensor]:
        """The losses: "triplets" (l_rte), and "entities" and "relations" (alpha l_ent, beta l_rel), scalars."""
        targets = self.backbone.prepare(features.lengths, gold, self._rng)
        streams = self._streams(features)
        losses = {TRIPLETS: self.backbone.loss(streams, targets)}
        for task, expert in self.experts.items():
            if self.weights[task]:
                losses[task] = self.weights[task] * expert.loss(streams[task], targets)
        return losses

    @property
    def labels_at_once(self) -> int | None:
        """How many labels its features' prompts have at most; None for a backbone that knows its labels."""
        return getattr(self.backbone, "labels_at_once", None)

    def draw_prompts(self, gold: Sequence[Extraction]) -> tuple[list[list[str]], list[Extraction]]:
        """For a backbone that reads prompts, those of the sentences of a batch, and its gold in their terms."""
        own = self.backbone
        options = {"at_once": own.labels_at_once, "negatives": own.negative_labels, "absent": own.absent_labels}
        return draw_prompts(gold, self.schema, self._rng, **options)

    @torch.inference_mode()
    def predict(self, features: Features, threshold: float) -> list[Extraction]:
        """The extractions of each sentence; ER-Net and RE-Net do not run."""
        found: list[Extraction] = []
        for part in _parts(features):
            found += self.backbone.predict(self._streams_to_predict(part), threshold)
        return found

    @torch.inference_mode()
    def attention(self, features: Features) -> list[Tensor]:
        """Who listened to whom: see ``Mixture.attention``; empty without mutual learning."""
        return [] if self.mixture is None else self.mixture.attention(features)

    def strip_auxiliary(self) -> None:
        """Drop what prediction does not need: ER-Net and RE-Net, and a mixture in which no expert is heard."""
        self.is_stripped = self.is_stripped or len(self.experts) > 0
        self.experts = nn.ModuleDict()
        if self.mixture is not None and not self.mixture.layers and self.backbone.reads == (TRIPLETS,):
            self.mixture = None

    def _streams(self, features: Features) -> dict[str, Features]:
        if self.mixture is None:
            return {TRIPLETS: features}
        return {name: features.replace(rows) for name, rows in self.mixture(features).items()}

    def _streams_to_predict(self, features: Features) -> dict[str, Features]:
        if self.mixture is None or self.backbone.reads != (TRIPLETS,):
            return self._streams(features)
        return {TRIPLETS: features.replace(self.mixture.triplet_stream(features))}


def _make_mixture(width: int, preset: str | None, settings: Mapping[str, Any]) -> Mixture | None:
    if preset is None:
        if settings:
            raise ValueError(f"mixture_settings are {dict(settings)!r} beside mixture null; expected none.")
        return None
    if preset not in PRESETS:
        raise ValueError(f"mixture is {preset!r}; expected None or one of {', '.join(PRESETS)}.")
    options = {**PRESETS[preset], **settings}
    try:
        return Mixture(width, **{**options, "experts": tuple(options.get("experts", EXPERTS))})
    except TypeError as error:
        raise ValueError(f"mixture_settings are {dict(settings)!r}: {error}.") from None


def _parts(features: Features) -> list[Features]:
    """The sentences in runs that padded take at most ``ROWS_AT_ONCE`` rows, one sentence at least."""
    parts, start, longest = [], 0, 0
    for index, length in enumerate((features.lengths + 1).tolist()):
        if index > start and (index + 1 - start) * max(longest, length) > ROWS_AT_ONCE:
            parts.append(features.select(slice(start, index)))
            start, longest = index, 0
        longest = max(longest, length)
    if start < len(features.lengths):
        parts.append(features.select(slice(start, None)))
    return parts
