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
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import spacy
import typer
from spacy.language import Language
from spacy.tokens import Doc

from spacy_ie_moe.corpora.reader import read_docs
from spacy_ie_moe.scoring import score_classification

SYMMETRIC = {"sibling", "spouse", "said to be the same as"}
DRAWS, SIZES = 5, (5, 10, 15)
THRESHOLDS = [step / 100 for step in range(1, 100)]


def load(name: str) -> Language:
    """A pipeline with ``glirel``: a spaCy pipeline folder, or a checkpoint (bundled name, folder or hub id)."""
    if (Path(name) / "meta.json").exists():
        return spacy.load(name)
    nlp = spacy.blank("en")
    nlp.add_pipe("glirel", config={"model": {"checkpoint": name}})
    return nlp


@dataclass(frozen=True)
class Scores:
    """Scores [documents, labels] of the gold pair and of its reverse, with each document's gold label."""

    gold: list[str]
    labels: list[str]
    forward: np.ndarray
    backward: np.ndarray

    def macro(self, threshold: float) -> tuple[float, float, float]:
        """Macro precision, recall and F1 in %, of the best labels that reach the threshold."""
        best = zip(self.forward.argmax(1), self.forward.max(1), strict=True)
        predicted = [self.labels[label] if score >= threshold else None for label, score in best]
        macro = score_classification(self.gold, predicted, self.labels).macro
        return 100 * macro.precision, 100 * macro.recall, 100 * macro.f1


def read(nlp: Language, path: Path) -> list[Doc]:
    """The documents of a file; each has one gold relation."""
    return list(read_docs(path, nlp.vocab))


def labels_of(references: list[Doc]) -> list[str]:
    """The gold labels of the documents, each once."""
    return sorted({relation["label"] for doc in references for relation in doc._.relations})


def score_pairs(nlp: Language, references: list[Doc], labels: list[str]) -> Scores:
    """Scores of the documents whose gold label is among ``labels``, all of which the model is offered."""
    pipe: Any = nlp.get_pipe("glirel")
    pipe.threshold, pipe.top_k = 0.0, None
    pipe.set_labels(labels)
    pipe.span_groups = ["arguments"]
    relations = [doc._.relations[0] for doc in references if doc._.relations[0]["label"] in labels]
    documents = []
    for doc in references:
        if doc._.relations[0]["label"] in labels:
            document = Doc(nlp.vocab, words=[token.text for token in doc])
            sides = (doc._.relations[0][side] for side in ("head_pos", "tail_pos"))
            document.spans["arguments"] = [document[start:end] for start, end in sides]
            documents.append(document)
    column = {label: index for index, label in enumerate(labels)}
    scores = np.zeros((2, len(documents), len(labels)))
    for row, (document, relation) in enumerate(zip(nlp.pipe(documents), relations, strict=True)):
        for found in document._.relations:
            reverse = list(found["head_pos"]) != list(relation["head_pos"])
            scores[int(reverse), row, column[found["label"]]] = found["score"]
    return Scores([relation["label"] for relation in relations], labels, *scores)


def choose_threshold(scores: Scores) -> float:
    """The threshold with the best macro F1 over all relations of a development set."""
    return max(THRESHOLDS, key=lambda threshold: scores.macro(threshold)[2])


def evaluate(name: str, test: Path, dev: Path | None) -> dict[str, Any]:
    """All figures of one model."""
    nlp = load(name)
    threshold = None
    if dev:
        documents = read(nlp, dev)
        threshold = choose_threshold(score_pairs(nlp, documents, labels_of(documents)))
    references = read(nlp, test)
    labels = labels_of(references)
    rows: dict[str, Any] = {}
    for size in SIZES:
        if size > len(labels):
            continue
        draws = [random.Random(100 * size + draw).sample(labels, size) for draw in range(DRAWS)]
        scored = [score_pairs(nlp, references, sorted(drawn)) for drawn in draws]
        rows[f"argmax m={size}"] = [scores.macro(0.0) for scores in scored]
        if threshold is not None:
            rows[f"threshold m={size}"] = [scores.macro(threshold) for scores in scored]
    return {"model": name, "threshold": threshold, "draws": rows, "direction": direction(nlp, references, labels)}


def direction(nlp: Language, references: list[Doc], labels: list[str]) -> float:
    """In which share of the instances of asymmetric relations the gold order outscores the reversed pair."""
    scores = score_pairs(nlp, references, labels)
    own = np.array([labels.index(label) for label in scores.gold])
    asymmetric = np.array([label not in SYMMETRIC for label in scores.gold])
    index = np.arange(len(own))
    return float((scores.forward[index, own] > scores.backward[index, own])[asymmetric].mean())


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
