"""Zero-shot relation classification between gold pairs: macro P/R/F1 over draws of m unseen relations.

``python -m benchmarks.zero_shot MODEL TEST.spacy [--dev DEV.spacy] [--against MODEL]``

The protocol of GLiREL's Table 1 on one model: all relations of TEST (and of DEV) are unseen in its training; a draw
takes m of TEST's. Two readings: *argmax* (the best label of the gold pair) and *threshold* (the best label if its
score reaches a threshold that is chosen on DEV, whose relations are others). Also: in how many instances of
asymmetric relations the gold order outscores the reversed pair.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import spacy
import typer
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_ie_moe.scoring import score_classification

SYMMETRIC = {"sibling", "spouse", "said to be the same as"}
DRAWS, SIZES = 5, (5, 10, 15)
THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]


def load(name: str) -> Language:
    """A pipeline with ``glirel``: a spaCy pipeline folder, or a checkpoint (bundled name, folder or hub id)."""
    if (Path(name) / "meta.json").exists():
        return spacy.load(name)
    nlp = spacy.blank("en")
    nlp.add_pipe("glirel", config={"model": {"checkpoint": name}})
    return nlp


def score_pairs(nlp: Language, path: Path) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """Gold labels, the labels, and scores [documents, labels] of the gold pair and of its reverse."""
    pipe: Any = nlp.get_pipe("glirel")
    pipe.threshold, pipe.top_k = 0.0, None
    references = list(DocBin().from_disk(path).get_docs(nlp.vocab))
    labels = sorted({relation["label"] for doc in references for relation in doc._.relations})
    pipe.set_labels(labels)
    column = {label: index for index, label in enumerate(labels)}
    gold, forward, backward = [], [], []
    documents = [Doc(nlp.vocab, words=[token.text for token in doc]) for doc in references]
    for document, reference in zip(documents, references, strict=True):
        document.spans["arguments"] = [
            document[slice(*reference._.relations[0][side])] for side in ("head_pos", "tail_pos")
        ]
    pipe.span_groups = ["arguments"]
    for document, reference in zip(nlp.pipe(documents), references, strict=True):
        relation = reference._.relations[0]
        rows = np.zeros((2, len(labels)))
        for found in document._.relations:
            rows[int(list(found["head_pos"]) != list(relation["head_pos"])), column[found["label"]]] = found["score"]
        gold.append(relation["label"])
        forward.append(rows[0])
        backward.append(rows[1])
    return gold, labels, np.stack(forward), np.stack(backward)


def score_draw(
    gold: list[str], labels: list[str], scores: np.ndarray, drawn: list[str], threshold: float
) -> tuple[float, float, float]:
    """Macro precision, recall and F1 (in %) of the instances of the drawn relations, among these relations."""
    rows = [index for index, label in enumerate(gold) if label in drawn]
    part = scores[np.ix_(rows, [labels.index(label) for label in drawn])]
    best = [drawn[i] if score >= threshold else None for i, score in zip(part.argmax(1), part.max(1), strict=True)]
    macro = score_classification([gold[row] for row in rows], best, drawn).macro
    return 100 * macro.precision, 100 * macro.recall, 100 * macro.f1


def choose_threshold(gold: list[str], labels: list[str], scores: np.ndarray) -> float:
    """The threshold with the best macro F1 over all relations of a development set."""
    return max(THRESHOLDS, key=lambda threshold: score_draw(gold, labels, scores, labels, threshold)[2])


def evaluate(name: str, test: Path, dev: Path | None) -> dict[str, Any]:
    """All figures of one model."""
    nlp = load(name)
    threshold = choose_threshold(*score_pairs(nlp, dev)[:3]) if dev else None
    gold, labels, forward, backward = score_pairs(nlp, test)
    rows: dict[str, Any] = {}
    for size in SIZES:
        if size > len(labels):
            continue
        draws = [random.Random(100 * size + draw).sample(labels, size) for draw in range(DRAWS)]
        rows[f"argmax m={size}"] = [score_draw(gold, labels, forward, drawn, 0.0) for drawn in draws]
        if threshold is not None:
            rows[f"threshold m={size}"] = [score_draw(gold, labels, forward, drawn, threshold) for drawn in draws]
    own = np.array([labels.index(label) for label in gold])
    asymmetric = np.array([label not in SYMMETRIC for label in gold])
    index = np.arange(len(gold))
    wins = forward[index, own][asymmetric] > backward[index, own][asymmetric]
    return {"model": name, "threshold": threshold, "draws": rows, "direction": float(wins.mean())}


def main(
    model: str = typer.Argument(..., help="A pipeline folder or a checkpoint."),
    test: Path = typer.Argument(..., help="Documents with one gold relation each, of unseen relations."),
    dev: Path | None = typer.Option(None, help="The same, of other unseen relations, to choose a threshold."),
    against: list[str] = typer.Option([], help="Further models on the same draws, compared pairwise."),
    output: Path | None = typer.Option(None, help="JSON file for all figures."),
) -> None:
    """Print macro P, R and F1 (mean and spread of the draws) and the direction figure of one or more models."""
    results = [evaluate(name, test, dev) for name in [model, *against]]
    first = results[0]["draws"]
    for result in results:
        chosen = "" if result["threshold"] is None else f", threshold {result['threshold']}"
        print(f"\n{result['model']}{chosen}")
        print(f"{'':16} {'P':>6} {'R':>6} {'F1':>6} {'+-':>5}   F1 of each draw")
        for name, draws in result["draws"].items():
            p, r, f1 = (mean(column) for column in zip(*draws, strict=True))
            each = " ".join(f"{draw[2]:5.1f}" for draw in draws)
            print(f"{name:16} {p:6.1f} {r:6.1f} {f1:6.1f} {stdev(d[2] for d in draws):5.1f}   {each}", end="")
            ahead = [mine[2] - theirs[2] for mine, theirs in zip(first[name], draws, strict=True)]
            print("" if result is results[0] else f"   first is ahead by {mean(ahead):+.1f}")
        print(f"gold order above reversed: {100 * result['direction']:.1f} %")
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=2) + "\n", "utf8")


if __name__ == "__main__":
    typer.run(main)
