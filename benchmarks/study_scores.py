"""Score one run of a study: the relation threshold is chosen on dev, and kept in the saved pipeline.

``python -m benchmarks.study_scores training/scierc/sinet/0`` reads ``run.json``, ``log.jsonl`` and ``model-best`` there
and writes ``scores.json``. The threshold is that of the best Rel+, or where gold has triples as strings, of their F1.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import spacy
import srsly
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Model

from benchmarks.study import THRESHOLDS
from spacy_ie_moe.corpora.reader import create_relation_corpus
from spacy_ie_moe.corpora.string_triples import STRING_TRIPLES
from spacy_ie_moe.files import replacing
from spacy_ie_moe.gmoe_rte.sentences import Sentences
from spacy_ie_moe.string_triples import StringTripleScores, score_triples
from spacy_ie_moe.triplet_scoring import TripletScores, score_triplets


def score_run(folder: Path) -> None:
    """Write ``scores.json`` of the run in ``folder``, and the threshold into its pipeline."""
    run = srsly.read_json(folder / "run.json")
    nlp = spacy.load(folder / "model-best")
    pipe: Any = nlp.get_pipe("gmoe_rte")
    dev = {threshold: Scores.of(found, pipe) for threshold, found in at_thresholds(nlp, Path(run["corpora"]["dev"]))}
    threshold = best_threshold(dev)
    found = predict(nlp, Path(run["corpora"]["test"]), threshold)
    test = Scores.of(found, pipe)
    pipe.threshold = threshold
    nlp.meta["performance"] = {
        f"rte_{level}_f": value.micro.f1 for level, value in dev[threshold].triplets["canonical"].items()
    }
    nlp.to_disk(folder / "model-best")
    shutil.rmtree(folder / "model-last", ignore_errors=True)
    log = list(srsly.read_jsonl(folder / "log.jsonl"))
    result = {
        **run,
        "threshold": threshold,
        "best_step": max(reversed(log), key=lambda entry: entry["score"])["step"],  # spaCy keeps the last
        "trainable_parameters": sum(p.numel() for p in parameters_of(pipe)),
        "sentences_per_second": found.per_second,
        "curve": [_point(entry) for entry in log],
        "dev": dev[threshold].triplets.to_json(),
        "test": test.triplets.to_json(),
    }
    if (of_dev := dev[threshold].strings) is not None and test.strings is not None:
        result["strings"] = {"dev": of_dev.to_json(), "test": test.strings.to_json()}
    with replacing(folder / "scores.json") as temporary:  # an interrupted run leaves none
        srsly.write_json(temporary, result)


@dataclass(frozen=True)
class Predictions:
    """Documents with what was found in them, and how many were read in a second."""

    examples: list[Example]
    per_second: float


@dataclass(frozen=True)
class Scores:
    """Scores of triplets by offsets, and of triples as strings where gold has them."""

    triplets: TripletScores
    strings: StringTripleScores | None

    @classmethod
    def of(cls, found: Predictions, pipe: Any) -> Scores:
        has_strings = any(STRING_TRIPLES in example.reference.user_data for example in found.examples)
        return cls(
            score_triplets(found.examples, symmetric=pipe.symmetric, spans_key=pipe.spans_key),
            score_triples(found.examples, symmetric=pipe.symmetric) if has_strings else None,
        )


def at_thresholds(nlp: Language, corpus: Path) -> Iterator[tuple[float, Predictions]]:
    """What a pipeline finds in a corpus at each of ``THRESHOLDS``, to be read before the next is asked for.

    Decoders may find at a threshold what they do not at a lower one, but for that of a backbone that is told labels: it
    reads a sentence as often as the labels make prompts, and is asked once.
    """
    pipe: Any = nlp.get_pipe("gmoe_rte")
    if pipe.takes_labels:
        found = predict(nlp, corpus, min(THRESHOLDS))
        for threshold in sorted(THRESHOLDS):
            for example in found.examples:
                leave_out_below(threshold, example.predicted, pipe.spans_key)
            yield threshold, found
    else:
        with remembered(pipe.model):
            for threshold in THRESHOLDS:
                yield threshold, predict(nlp, corpus, threshold)


def leave_out_below(threshold: float, doc: Doc, spans_key: str) -> None:
    """Leave out the relations of less than ``threshold``, and the spans that are in no other."""
    doc._.relations = [relation for relation in doc._.relations if relation["score"] >= threshold]
    named = {tuple(relation[side]) for relation in doc._.relations for side in ("head_pos", "tail_pos")}
    doc.spans[spans_key] = [span for span in doc.spans[spans_key] if (span.start, span.end) in named]


@contextmanager
def remembered(model: Model) -> Iterator[None]:
    """Have the encoder of a ``gmoe_rte`` model read each batch of sentences only once."""
    encoder, known = model.layers[0], {}

    def forward(_: Model, sentences: Sentences, is_train: bool) -> tuple[Any, Any]:
        key = tuple(map(tuple, [*sentences.words, *sentences.prompts]))
        if key not in known:
            known[key] = encoder.predict(sentences)
        return known[key], lambda gradient: gradient

    model.layers[0] = Model("remembered", forward, shims=encoder.shims)
    try:
        yield
    finally:
        model.layers[0] = encoder


def predict(nlp: Language, corpus: Path, threshold: float) -> Predictions:
    """What a pipeline finds in a corpus."""
    pipe: Any = nlp.get_pipe("gmoe_rte")
    pipe.threshold = threshold
    examples = list(create_relation_corpus(corpus, gold_ents=False)(nlp))
    started = time.perf_counter()
    docs = list(nlp.pipe(example.predicted for example in examples))
    per_second = len(docs) / (time.perf_counter() - started)
    return Predictions([Example(doc, eg.reference) for doc, eg in zip(docs, examples, strict=True)], per_second)


def best_threshold(scores: dict[float, Scores]) -> float:
    """That of the highest F1 of strings, or without them Rel+; of equal ones the highest Rel, then the lowest."""

    def quality(threshold: float) -> tuple[float, float, float]:
        levels, strings = scores[threshold].triplets["canonical"], scores[threshold].strings
        main = levels["rel_plus"] if strings is None else strings["all"]["string"]
        return main.micro.f1, levels["rel"].micro.f1, -threshold

    return max(scores, key=quality)


def parameters_of(pipe: Any) -> Any:
    """All parameters of its networks."""
    for layer in pipe.model.layers:
        for shim in layer.shims:
            yield from shim.bundle.network.parameters()


def _point(entry: dict[str, Any]) -> dict[str, Any]:
    scores = {level: entry["scores"][f"rte_{level}_f"] / 100 for level in ("ent", "rel", "rel_plus")}
    return {"epoch": entry["epoch"], "step": entry["step"], **scores}


if __name__ == "__main__":
    score_run(Path(sys.argv[1]))
