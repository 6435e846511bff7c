"""Score one run of a study: the relation threshold is chosen on dev, by Rel+, and kept in the saved pipeline.

``python -m benchmarks.study_scores training/scierc/sinet/0`` reads ``run.json``, ``log.jsonl`` and ``model-best`` there
and writes ``scores.json``.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import spacy
import srsly
from spacy.language import Language
from spacy.training import Example

from benchmarks.study import THRESHOLDS
from spacy_ie_moe.corpora.reader import create_relation_corpus
from spacy_ie_moe.triplet_scoring import TripletScores, score_triplets


def score_run(folder: Path) -> None:
    """Write ``scores.json`` of the run in ``folder``, and the threshold into its pipeline."""
    run = srsly.read_json(folder / "run.json")
    nlp = spacy.load(folder / "model-best")
    pipe: Any = nlp.get_pipe("gmoe_rte")
    scores = {name: score_at(nlp, Path(run["corpora"][name]), THRESHOLDS) for name in ("dev", "test")}
    threshold = best_threshold(scores["dev"])
    pipe.threshold = threshold
    nlp.meta["performance"] = {
        f"rte_{level}_f": value.micro.f1 for level, value in scores["dev"][threshold]["canonical"].items()
    }
    nlp.to_disk(folder / "model-best")
    shutil.rmtree(folder / "model-last", ignore_errors=True)
    curve = [_point(entry) for entry in srsly.read_jsonl(folder / "log.jsonl")]
    result = {
        **run,
        "threshold": threshold,
        "best_step": max(reversed(curve), key=lambda point: point["rel_plus"])["step"],  # spaCy keeps the last
        "trainable_parameters": sum(p.numel() for p in _networks(pipe)),
        "curve": curve,
        **{name: of_threshold[threshold].to_json() for name, of_threshold in scores.items()},
    }
    srsly.write_json(folder / "scores.tmp", result)
    os.replace(folder / "scores.tmp", folder / "scores.json")  # an interrupted run leaves none


def score_at(nlp: Language, corpus: Path, thresholds: list[float]) -> dict[float, TripletScores]:
    """The scores of a corpus by threshold, from one prediction at the lowest."""
    pipe: Any = nlp.get_pipe("gmoe_rte")
    pipe.threshold = min(thresholds)
    examples = list(create_relation_corpus(corpus, gold_ents=False)(nlp))
    docs = list(nlp.pipe(example.predicted for example in examples))
    found = [doc._.relations for doc in docs]
    scores = {}
    for threshold in thresholds:
        for doc, relations in zip(docs, found, strict=True):
            doc._.relations = [relation for relation in relations if relation["score"] >= threshold]
        kept = [Example(doc, example.reference) for doc, example in zip(docs, examples, strict=True)]
        scores[threshold] = score_triplets(kept, symmetric=pipe.symmetric, spans_key=pipe.spans_key)
    return scores


def best_threshold(scores: dict[float, TripletScores]) -> float:
    """The threshold of the highest Rel+; of equal ones the highest Rel, then the lowest."""

    def quality(threshold: float) -> tuple[float, float, float]:
        levels = scores[threshold]["canonical"]
        return levels["rel_plus"].micro.f1, levels["rel"].micro.f1, -threshold

    return max(scores, key=quality)


def _networks(pipe: Any) -> Any:
    for layer in pipe.model.layers:
        for shim in layer.shims:
            yield from shim.bundle.network.parameters()


def _point(entry: dict[str, Any]) -> dict[str, Any]:
    scores = {level: entry["scores"][f"rte_{level}_f"] / 100 for level in ("ent", "rel", "rel_plus")}
    return {"epoch": entry["epoch"], "step": entry["step"], **scores}


if __name__ == "__main__":
    score_run(Path(sys.argv[1]))
