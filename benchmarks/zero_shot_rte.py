"""Zero-shot triplets (RTE-GMoE, Table 6): relations that were never seen, their arguments not given either.

``python -m benchmarks.zero_shot_rte RUN`` scores one run of ``benchmarks.study`` (``RUN/run.json``, ``RUN/model-best``)
into ``RUN/scores.json``, and keeps the threshold in the pipeline. The model is offered the labels of the test set, all
of which are unseen. Two readings:

- with the oracle, as the papers have it: it is told which sentences have one triplet, of which it gives the best
  (accuracy), and finds those of the others by the threshold that Re-Cent has, 1.3 / 3 (P, R, F1);
- without: all sentences by one threshold, which is chosen on dev, whose relations are others again.

A triplet is right if both spans and the label are.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import spacy
import srsly
from spacy.language import Language
from spacy.tokens import Doc

from benchmarks.study_scores import parameters_of
from spacy_ie_moe.corpora.reader import read_docs
from spacy_ie_moe.files import replacing
from spacy_ie_moe.scoring import Counts, bootstrap_f1, count_sets

RE_CENT = 1.3 / 3
"""The published threshold, of the mean of three probabilities."""
THRESHOLDS = [step / 100 for step in range(10, 91, 2)]


class Triplet(NamedTuple):
    """Head and tail in tokens, end exclusive, and the label."""

    head: tuple[int, int]
    tail: tuple[int, int]
    label: str


@dataclass(frozen=True)
class Answers:
    """The triplets of sentences and what was found, with scores."""

    gold: list[set[Triplet]]
    found: list[dict[Triplet, float]]
    per_second: float = 0.0

    def select(self, single: bool) -> Answers:
        """Of the sentences that have one triplet, or of those that have more."""
        places = [place for place, triplets in enumerate(self.gold) if (len(triplets) == 1) == single]
        return Answers([self.gold[place] for place in places], [self.found[place] for place in places])

    def accuracy(self) -> float | None:
        """How many sentences, which have one triplet each, have it as the best that is found; None without any."""
        right = [
            bool(found) and max(found, key=lambda triplet: found[triplet]) in gold
            for gold, found in zip(self.gold, self.found, strict=True)
        ]
        return sum(right) / len(right) if right else None

    def counts(self, threshold: float) -> list[Counts]:
        """Right, found and wanted triplets of each sentence, of scores of at least ``threshold``."""
        return [
            count_sets(gold, {triplet for triplet, score in found.items() if score >= threshold})
            for gold, found in zip(self.gold, self.found, strict=True)
        ]

    def f1(self, threshold: float) -> float:
        """Of all sentences, of scores of at least ``threshold``."""
        return sum(self.counts(threshold), Counts()).f1

    def ratios(self, threshold: float) -> dict[str, Any]:
        """P, R, F1 and its interval, of scores of at least ``threshold``; None without sentences."""
        if not self.gold:
            return dict.fromkeys(("precision", "recall", "f1", "interval"))
        counts = self.counts(threshold)
        total = sum(counts, Counts())
        ratios = {name: getattr(total, name) for name in ("precision", "recall", "f1")}
        return {**ratios, "interval": [*bootstrap_f1(counts)]}


def triplets_of(doc: Doc) -> dict[Triplet, float]:
    """A document's relations, with scores."""
    return {
        Triplet(tuple(relation["head_pos"]), tuple(relation["tail_pos"]), relation["label"]): relation["score"]
        for relation in doc._.relations
    }


def labels_of(docs: Sequence[Doc]) -> list[str]:
    """The labels of the documents' relations, each once."""
    return sorted({relation["label"] for doc in docs for relation in doc._.relations})


def ask(nlp: Language, docs: Sequence[Doc], labels: list[str]) -> Answers:
    """What a pipeline finds in documents if it is asked for ``labels``."""
    pipe: Any = nlp.get_pipe("gmoe_rte")
    pipe.set_labels(labels)
    pipe.threshold = 0.0
    started = time.perf_counter()
    read = nlp.pipe([Doc(nlp.vocab, words=[token.text for token in doc]) for doc in docs])
    found = [triplets_of(doc) for doc in read]
    return Answers([{*triplets_of(doc)} for doc in docs], found, len(docs) / (time.perf_counter() - started))


def choose_threshold(answers: Answers) -> float:
    """That of the best F1 of all sentences; of equal ones the lowest."""
    return max(THRESHOLDS, key=lambda threshold: (answers.f1(threshold), -threshold))


def score(answers: Answers, threshold: float) -> dict[str, Any]:
    """All figures of a set; those of no sentences are None."""
    single, multi = answers.select(True), answers.select(False)
    return {
        "sentences": {"single": len(single.gold), "multi": len(multi.gold)},
        "triplets": {"single": sum(map(len, single.gold)), "multi": sum(map(len, multi.gold))},
        "oracle": {"single": single.accuracy(), "multi": multi.ratios(RE_CENT)},
        "threshold": {
            "single": single.ratios(threshold),
            "multi": multi.ratios(threshold),
            "all": answers.ratios(threshold),
        },
        "per_second": answers.per_second,
    }


def score_run(folder: Path) -> None:
    """Write ``scores.json`` of a run."""
    run = srsly.read_json(folder / "run.json")
    nlp = spacy.load(folder / "model-best")
    docs = {name: list(read_docs(Path(run["corpora"][name]), nlp.vocab)) for name in ("dev", "test")}
    answers = {name: ask(nlp, of_set, labels_of(of_set)) for name, of_set in docs.items()}
    threshold = choose_threshold(answers["dev"])
    pipe: Any = nlp.get_pipe("gmoe_rte")
    pipe.set_labels(None)
    pipe.threshold = threshold
    nlp.to_disk(folder / "model-best")
    shutil.rmtree(folder / "model-last", ignore_errors=True)
    result = {
        **run,
        "threshold": threshold,
        "labels": {name: labels_of(of_set) for name, of_set in docs.items()},
        "trainable_parameters": sum(p.numel() for p in parameters_of(pipe)),
        **{name: score(of_set, threshold) for name, of_set in answers.items()},
    }
    with replacing(folder / "scores.json") as temporary:  # an interrupted run leaves none
        srsly.write_json(temporary, result)


if __name__ == "__main__":
    score_run(Path(sys.argv[1]))
