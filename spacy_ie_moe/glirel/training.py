"""What GLiREL learns from: which labels and pairs of an instance it sees, and the loss. PyTorch only.

Source: GLiREL sections 3.5 and A.5, and the published configurations: positives plus random negatives up to 25
labels, shuffled, some dropped; binary cross-entropy over every pair and label.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .batch import Window

Gold = Mapping[tuple[int, int], frozenset[str]]


@dataclass(frozen=True)
class Sampling:
    """How instances are shown.

    max_labels: labels per instance, positives first. shuffle: their order is random. drop: a random number of them
    is left out, gold ones too, so that the network learns to say no. max_negatives: pairs without a gold relation
    shown per window, drawn at random; None for all. variants: other names of a label, one drawn per batch.
    """

    max_labels: int = 25
    shuffle: bool = True
    drop: bool = True
    max_negatives: int | None = None
    variants: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def sample_labels(self, gold: set[str], universe: Sequence[str], rng: random.Random) -> list[str]:
        """The labels of one instance: gold ones and others of ``universe``, by their own names."""
        chosen = sorted(gold)
        rng.shuffle(chosen)
        chosen = chosen[: self.max_labels]
        others = [label for label in universe if label not in gold]
        chosen += rng.sample(others, min(len(others), self.max_labels - len(chosen)))
        if self.shuffle:
            rng.shuffle(chosen)
        return chosen[: rng.randint(1, len(chosen))] if self.drop else chosen

    def sample_pairs(self, pairs: np.ndarray, gold: Gold, rng: random.Random) -> np.ndarray:
        """Rows [p, 2] of ``pairs``: all with a gold relation, their reverses, and up to ``max_negatives`` others."""
        if self.max_negatives is None:
            return pairs
        kept = [(h, t) in gold or (t, h) in gold for h, t in pairs.tolist()]
        others = [row for row, keep in enumerate(kept) if not keep]
        chosen = set(rng.sample(others, min(len(others), self.max_negatives)))
        return pairs[[row for row, keep in enumerate(kept) if keep or row in chosen]]

    def rename(self, labels: Sequence[str], rng: random.Random) -> dict[str, str]:
        """What is read for each label in one batch: its name or one of its variants."""
        return {label: rng.choice([label, *self.variants.get(label, ())]) for label in labels}


@dataclass(frozen=True)
class Loss:
    """The loss of a batch of windows.

    bce: weight of the binary cross-entropy, summed over pairs and labels and divided by windows; positive_weight
    multiplies its positives. ranking: weight of -log softmax of a gold label among the labels that its pair does
    not have. direction: weight of softplus(reversed - gold), for gold pairs whose reverse has no such label.
    """

    bce: float = 1.0
    positive_weight: float = 2.0
    ranking: float = 0.0
    direction: float = 0.0

    def __call__(self, windows: Sequence[Window], logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """logits, targets: [P, C] per window; a target is 1, 0, or -1 where it is not known. Returns a scalar."""
        terms = [
            self._of_window(window, scores.float(), target)
            for window, scores, target in zip(windows, logits, targets, strict=True)
        ]
        return torch.stack(terms).sum() / len(terms)

    def _of_window(self, window: Window, logits: Tensor, target: Tensor) -> Tensor:
        gold = target == 1
        weight = torch.where(gold, self.positive_weight, 1.0) * (target >= 0)
        loss = self.bce * (F.binary_cross_entropy_with_logits(logits, gold.float(), reduction="none") * weight).sum()
        rows, columns = gold.nonzero(as_tuple=True)
        if not len(rows):
            return loss
        positive = logits[rows, columns]
        if self.ranking:
            rivals = logits.masked_fill(target != 0, -torch.inf)[rows].logsumexp(-1)
            loss = loss + self.ranking * F.softplus(rivals - positive).sum()
        if self.direction:
            reverse = _reversed_rows(window.pairs)[rows.cpu().numpy()]
            known = torch.from_numpy(reverse >= 0).to(rows.device)
            back = torch.from_numpy(reverse).to(rows.device).clamp(min=0)
            opposed = known & (target[back, columns] == 0)
            loss = loss + self.direction * (F.softplus(logits[back, columns] - positive) * opposed).sum()
        return loss


def _reversed_rows(pairs: np.ndarray) -> np.ndarray:
    """The row of each pair's reverse, -1 where there is none. pairs: [P, 2]."""
    rows = {(head, tail): row for row, (head, tail) in enumerate(pairs.tolist())}
    return np.array([rows.get((tail, head), -1) for head, tail in pairs.tolist()], dtype=np.int64)


def make_targets(pairs: np.ndarray, labels: Sequence[str], gold: Gold, unknown: set[tuple[int, int]]) -> np.ndarray:
    """Targets [P, C]: 1 for gold, 0 for the rest, -1 for the rest of pairs whose annotation is incomplete."""
    column = {label: index for index, label in enumerate(labels)}
    targets = np.zeros((len(pairs), len(labels)), dtype=np.float32)
    for row, (head, tail) in enumerate(pairs.tolist()):
        if (head, tail) in unknown:
            targets[row] = -1
        for label in gold.get((head, tail), ()):
            if label in column:
                targets[row, column[label]] = 1
    return targets
