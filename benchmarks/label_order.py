"""How much the order of the labels changes scores: ``python -m benchmarks.label_order MODEL TEST.spacy``.

A network that reads labels in a prompt reads them at a position. Every document's gold pair is scored with the labels
in several random orders, and the scores are compared with those of the sorted order.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import typer

from .zero_shot import Scores, labels_of, load, read, score_pairs


def main(
    model: str = typer.Argument(..., help="A pipeline folder or a checkpoint."),
    test: Path = typer.Argument(..., help="Documents with one gold relation each."),
    orders: int = typer.Option(5, help="Random orders to compare with the sorted one."),
) -> None:
    """Print the mean and largest change of a score, and in how many documents the best label changes."""
    nlp = load(model)
    references = read(nlp, test)
    labels = labels_of(references)
    sorted_order = score_pairs(nlp, references, labels)
    f1s, changes, flips = [sorted_order.macro(0.0)[2]], [], []
    for seed in range(orders):
        shuffled = random.Random(seed).sample(labels, len(labels))
        scores = score_pairs(nlp, references, shuffled)
        columns = [shuffled.index(label) for label in labels]
        same = Scores(scores.gold, labels, scores.forward[:, columns], scores.backward[:, columns])
        changes.append(np.abs(same.forward - sorted_order.forward))
        flips.append((same.forward.argmax(1) != sorted_order.forward.argmax(1)).mean())
        f1s.append(same.macro(0.0)[2])
    print(f"{model}: {len(labels)} labels, {len(sorted_order.gold)} documents, {orders} orders against the sorted one")
    print(f"change of a score: mean {np.mean(changes):.5f}, largest {np.max(changes):.5f}")
    print(f"another best label: {100 * np.mean(flips):.2f} % of the documents")
    print(f"macro F1 over the orders: {min(f1s):.1f} to {max(f1s):.1f}")


if __name__ == "__main__":
    typer.run(main)
