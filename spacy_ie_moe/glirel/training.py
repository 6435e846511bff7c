"""What GLiREL learns from: which labels and pairs of an instance it sees, and the loss. PyTorch only.

Source: GLiREL sections 3.5 and A.5, and the published configurations: positives plus random negatives up to 25
labels, shuffled, some dropped; binary cross-entropy over every pair and label.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..labels import is_whole_number
from .batch import Window

Gold = Mapping[tuple[int, int], frozenset[str]]


def close_under_symmetry(gold: Gold, symmetric: Collection[str]) -> Gold:
    """Gold relations, and the reverse of those whose label is in ``symmetric``."""
    closed = dict(gold)
    for (head, tail), labels in gold.items():
        if both := labels.intersection(symmetric):
            closed[tail, head] = closed.get((tail, head), frozenset()) | both
    return closed


@dataclass(frozen=True)
class Sampling:
    """How instances are shown.

    max_labels: labels per instance, positives first. batch_labels: if given, a batch draws all its labels from a pool
    of so many (more where more are gold in it), which is faster for networks that read labels apart. shuffle: their
    order is random. drop: a random number of them is left out, gold ones too, so that the network learns to say no.
    max_negatives: pairs without a gold relation shown per document, drawn at random; None for all. symmetric: labels
    that hold for the reverse of a gold pair too.
    """

    max_labels: int = 25
    batch_labels: int | None = None
    shuffle: bool = True
    drop: bool = True
    max_negatives: int | None = None
    symmetric: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name, least in (("max_labels", 1), ("batch_labels", 1), ("max_negatives", 0)):
            value = getattr(self, name)
            if value is None and name != "max_labels":
                continue
            if not is_whole_number(value, least):
                raise ValueError(f"sampling.{name} is {value!r}; expected a whole number of at least {least}.")
        if not isinstance(self.symmetric, (list, tuple)) or not all(isinstance(name, str) for name in self.symmetric):
            raise ValueError(f"sampling.symmetric is {self.symmetric!r}; expected a list of labels.")

    def sample_pool(self, gold: set[str], universe: Sequence[str], rng: random.Random) -> list[str]:
        """The labels that a batch draws from: those that are gold in it and others of ``universe``."""
        if self.batch_labels is None:
            return [*universe, *sorted(gold - set(universe))]
        others = [label for label in universe if label not in gold]
        return sorted(gold) + rng.sample(others, min(len(others), max(0, self.batch_labels - len(gold))))

    def sample_labels(self, gold: set[str], universe: Sequence[str], rng: random.Random) -> list[str]:
        """The labels of one instance: gold ones and others of ``universe``."""
        chosen = sorted(gold)
        rng.shuffle(chosen)
        chosen = chosen[: self.max_labels]
        others = [label for label in universe if label not in gold]
        chosen += rng.sample(others, min(len(others), self.max_labels - len(chosen)))
        if not chosen:
            return []
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


@dataclass(frozen=True)
class Loss:
    """The loss of a batch: the mean over its windows of a weighted sum of three terms.

    bce: binary cross-entropy, summed over labels, its positives times positive_weight; reduction says whether it is
    summed over pairs ("sum", as in the reference) or averaged ("mean", so that a document with a hundred pairs
    does not outweigh a sentence with two). ranking: -log softmax of a gold label among the labels that its pair
    does not have. direction: softplus(reversed - gold) for gold pairs whose reverse lacks the label. The last two
    are averaged over gold pairs.
    """

    bce: float = 1.0
    positive_weight: float = 2.0
    reduction: Literal["sum", "mean"] = "sum"
    ranking: float = 0.0
    direction: float = 0.0

    def __post_init__(self) -> None:
        if self.reduction not in ("sum", "mean"):
            raise ValueError(f"loss.reduction is {self.reduction!r}; expected 'sum' or 'mean'.")

    def __call__(self, windows: Sequence[Window], logits: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
        """logits, targets: [P, C] per window; a target is 1, 0, or -1 where it is not known. Returns a scalar."""
        terms = [
            self._of_window(window, scores.float(), target)
            for window, scores, target in zip(windows, logits, targets, strict=True)
        ]
        return torch.stack(terms).mean()

    def _of_window(self, window: Window, logits: Tensor, target: Tensor) -> Tensor:
        gold = target == 1
        weight = torch.where(gold, self.positive_weight, 1.0) * (target >= 0)
        entropy = F.binary_cross_entropy_with_logits(logits, gold.float(), weight, reduction="sum")
        loss = self.bce * (entropy / len(logits) if self.reduction == "mean" else entropy)
        rows, columns = gold.nonzero(as_tuple=True)
        if not len(rows):
            return loss
        positive = logits[rows, columns]
        if self.ranking:
            rivals = logits.masked_fill(target != 0, -torch.inf)[rows].logsumexp(-1)
            loss = loss + self.ranking * F.softplus(rivals - positive).mean()
        if self.direction:
            reverse = _reversed_rows(window.pairs)[rows.cpu().numpy()]
            known = torch.from_numpy(reverse >= 0).to(rows.device)
            back = torch.from_numpy(reverse).to(rows.device).clamp(min=0)
            opposed = known & (target[back, columns] == 0)
            loss = loss + self.direction * (F.softplus(logits[back, columns] - positive) * opposed).mean()
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
