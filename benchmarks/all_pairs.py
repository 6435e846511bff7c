"""Relations among all ordered pairs of entities: ``python -m benchmarks.all_pairs MODEL TEST.spacy --dev DEV.spacy``.

Every ordered pair of a document's entities is scored against every label of the data; what is not annotated counts
as wrong. The threshold is the one that reaches a precision on DEV (default 0.5) with the most recall.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.zero_shot import load
from spacy_ie_moe.corpora.reader import create_relation_corpus
from spacy_ie_moe.relations import relation_key

FLOOR = 0.02
"""Scores below this are not looked at: no threshold worth having is lower."""


def score_all(nlp: Any, path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores of all pairs and labels above the floor, whether each is gold, and how many gold relations there are."""
    examples = list(create_relation_corpus(path)(nlp))
    pipe = nlp.get_pipe("glirel")
    pipe.set_labels(sorted({r["label"] for eg in examples for r in eg.reference._.relations}))
    pipe.threshold, pipe.top_k = FLOOR, None
    scores, right, gold_count = [], [], 0
    for document, example in zip(nlp.pipe(eg.predicted for eg in examples), examples, strict=True):
        gold = {relation_key(relation) for relation in example.reference._.relations}
        gold_count += len(gold)
        scores += [relation["score"] for relation in document._.relations]
        right += [relation_key(relation) in gold for relation in document._.relations]
    return np.array(scores), np.array(right, dtype=bool), gold_count


def curve(scores: np.ndarray, right: np.ndarray, gold: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds, highest first, with the precision and the recall of each."""
    order = np.argsort(-scores, kind="stable")
    hits = right[order].cumsum()
    return scores[order], hits / np.arange(1, len(order) + 1), hits / gold


def at(scores: np.ndarray, right: np.ndarray, gold: int, threshold: float) -> dict[str, float]:
    """Precision, recall and F1 of what reaches a threshold."""
    kept = scores >= threshold
    hits = int(right[kept].sum())
    precision, recall = hits / max(1, int(kept.sum())), hits / gold
    return {
        "threshold": threshold,
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / max(1e-9, precision + recall),
    }


def main(
    model: str = typer.Argument(..., help="A pipeline folder or a checkpoint."),
    test: Path = typer.Argument(..., help="Documents to report on."),
    dev: Path = typer.Option(..., help="Other documents, to choose the thresholds on."),
    precision: list[float] = typer.Option([0.5, 0.55, 0.6, 0.7], help="Precisions to reach on dev."),
    output: Path | None = typer.Option(None, help="JSON file for all figures."),
) -> None:
    """Print precision, recall and F1 at thresholds chosen on other documents."""
    nlp = load(model)
    thresholds, precisions, recalls = curve(*score_all(nlp, dev))
    found = score_all(nlp, test)
    best = float(thresholds[(2 * precisions * recalls / np.maximum(precisions + recalls, 1e-9)).argmax()])
    rows = {"best F1 on dev": at(*found, best)}
    for wanted in precision:
        reached = np.flatnonzero(precisions >= wanted)
        if len(reached):
            rows[f"precision {wanted} on dev"] = at(*found, float(thresholds[reached[-1]]))
    print(f"{model} on {test}: {found[2]} gold relations")
    for name, row in rows.items():
        print(f"{name:22}" + "".join(f"  {key} {value:.3f}" for key, value in row.items()))
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(rows, indent=2) + "\n", "utf8")


if __name__ == "__main__":
    typer.run(main)
