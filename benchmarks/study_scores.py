"""Score one run of a study: the relation threshold is chosen on dev, by Rel+, and kept in the saved pipeline.

``python -m benchmarks.study_scores training/scierc/sinet/0`` reads ``run.json``, ``log.jsonl`` and ``model-best`` there
and writes ``scores.json``.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spacy
import srsly
from spacy.language import Language
from spacy.training import Example

from benchmarks.study import THRESHOLDS
from spacy_ie_moe.corpora.reader import create_relation_corpus
from spacy_ie_moe.corpora.string_triples import STRING_TRIPLES
from spacy_ie_moe.string_triples import score_triples
from spacy_ie_moe.triplet_scoring import TripletScores, score_triplets


def score_run(folder: Path) -> None:
    """Write ``scores.json`` of the run in ``folder``, and the threshold into its pipeline."""
    run = srsly.read_json(folder / "run.json")
    nlp = spacy.load(folder / "model-best")
    pipe: Any = nlp.get_pipe("gmoe_rte")
    found = {name: predict(nlp, Path(run["corpora"][name]), min(THRESHOLDS)) for name in ("dev", "test")}
    counting = {"symmetric": pipe.symmetric, "spans_key": pipe.spans_key}
    of_dev = {threshold: score_triplets(found["dev"].at(threshold), **counting) for threshold in THRESHOLDS}
    threshold = best_threshold(of_dev)
    pipe.threshold = threshold
    nlp.meta["performance"] = {
        f"rte_{level}_f": value.micro.f1 for level, value in of_dev[threshold]["canonical"].items()
    }
    nlp.to_disk(folder / "model-best")
    shutil.rmtree(folder / "model-last", ignore_errors=True)
    curve = [_point(entry) for entry in srsly.read_jsonl(folder / "log.jsonl")]
    result = {
        **run,
        "threshold": threshold,
        "best_step": max(reversed(curve), key=lambda point: point["rel_plus"])["step"],  # spaCy keeps the last
        "trainable_parameters": sum(p.numel() for p in _networks(pipe)),
        "sentences_per_second": found["test"].per_second,
        "curve": curve,
        "dev": of_dev[threshold].to_json(),
        "test": score_triplets(found["test"].at(threshold), **counting).to_json(),
    }
    if found["test"].has_strings:
        result["strings"] = {name: score_triples(one.at(threshold)).to_json() for name, one in found.items()}
    srsly.write_json(folder / "scores.tmp", result)
    os.replace(folder / "scores.tmp", folder / "scores.json")  # an interrupted run leaves none


@dataclass(frozen=True)
class Predictions:
    """Documents with the relations that were found at the lowest threshold, and how many were read in a second."""

    examples: list[Example]
    relations: list[list[Any]]
    per_second: float

    def at(self, threshold: float) -> list[Example]:
        """The documents with the relations of at least ``threshold``."""
        for example, relations in zip(self.examples, self.relations, strict=True):
            example.predicted._.relations = [relation for relation in relations if relation["score"] >= threshold]
        return self.examples

    @property
    def has_strings(self) -> bool:
        """Whether gold has triples as strings."""
        return any(STRING_TRIPLES in example.reference.user_data for example in self.examples)


def predict(nlp: Language, corpus: Path, threshold: float) -> Predictions:
    """What a pipeline finds in a corpus."""
    nlp.get_pipe("gmoe_rte").threshold = threshold
    examples = list(create_relation_corpus(corpus, gold_ents=False)(nlp))
    started = time.perf_counter()
    docs = list(nlp.pipe(example.predicted for example in examples))
    per_second = len(docs) / (time.perf_counter() - started)
    found = [Example(doc, example.reference) for doc, example in zip(docs, examples, strict=True)]
    return Predictions(found, [doc._.relations for doc in docs], per_second)


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
