"""Relations between the entities of whole documents, scored as Re-DocRED is: F1 and Ign F1.

``python -m benchmarks.document_relations MODEL TEST.spacy --dev DEV.spacy --facts FACTS.jsonl --labels NAMES.json
--output results/redocred`` gives a model with ``glirel`` the gold mentions of documents that ``spacy-ie-moe convert
re-docred --document-relations`` wrote and all labels of NAMES, and lifts what it finds to clusters of mentions: to gold
ones, to those that its own SELF relations make, and to none at all (each mention for itself). Thresholds are those with
the best exact F1 on DEV. It writes ``README.md`` and ``results.json``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
from spacy.language import Language
from spacy.training import Example

from benchmarks.zero_shot import load
from spacy_ie_moe.corpora.conversion import SPAN_KEY, load_names
from spacy_ie_moe.corpora.location import find_file
from spacy_ie_moe.corpora.reader import create_relation_corpus
from spacy_ie_moe.document_scoring import DocumentLevel, score_document_relations
from spacy_ie_moe.documents.clusters import GOLD_PREFIX, give_gold_clusters
from spacy_ie_moe.documents.component import DocumentRelations
from spacy_ie_moe.documents.facts import Fact, read_facts
from spacy_ie_moe.scoring import Counts, bootstrap_f1

SELF = "SELF"

FLOOR = 0.3
"""Scores below this are not looked at: no threshold worth having is lower."""

THRESHOLDS = [*(step / 20 for step in range(6, 20)), 0.97, 0.98, 0.99]
SELF_THRESHOLDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9]
"""From low on: to a model that was not trained on SELF two mentions of one thing are unrelated."""


WAYS: dict[str, list[dict[str, Any]]] = {
    "gold clusters": [{"coref_prefix": GOLD_PREFIX}],
    "predicted clusters": [{"coref_prefix": None, "self_threshold": threshold} for threshold in SELF_THRESHOLDS],
    "no clusters": [{"coref_prefix": None, "self_label": None}],
}
"""Where clusters come from: the settings of ``document_relations`` to choose from."""


@dataclass(frozen=True)
class Result:
    """The scores of one way, exact and majority.

    settings, threshold: chosen on DEV. joined: how many clusters have several mentions.
    """

    settings: dict[str, Any]
    threshold: float
    joined: int
    levels: dict[str, DocumentLevel]

    def to_json(self) -> dict[str, Any]:
        levels = {name: level.to_json() for name, level in self.levels.items()}
        return {"settings": self.settings, "threshold": self.threshold, "joined": self.joined, **levels}


def main(
    model: Annotated[str, typer.Argument(help="A pipeline folder or a checkpoint.")],
    test: Annotated[Path, typer.Argument(help="Documents to report on.")],
    dev: Annotated[Path, typer.Option(help="Other documents, to choose the thresholds on.")],
    facts: Annotated[Path, typer.Option(help="The facts that Ign F1 leaves out, as convert --facts writes them.")],
    labels: Annotated[Path, typer.Option(help="JSON file with the label of each relation id.")],
    output: Annotated[Path, typer.Option(help="Folder for the page.")],
    limit: Annotated[int, typer.Option(min=0, help="At most so many documents of each file; 0 for all.")] = 0,
    note: Annotated[str, typer.Option(help="What the page says of the documents.")] = "",
) -> None:
    """Write the page."""
    nlp = load(model)
    names = sorted(set(load_names(find_file(labels)).values()))
    known = read_facts(facts)
    started = time.perf_counter()
    of_dev, of_test = (predict(nlp, path, names, limit) for path in (dev, test))
    seconds = (time.perf_counter() - started) / (len(of_dev) + len(of_test))
    results = {}
    for way, choices in WAYS.items():
        settings, threshold = choose(of_dev, choices)
        joined = lift(of_test, settings)
        results[way] = Result(settings, threshold, joined, score(of_test, threshold, known))
        typer.echo(f"{way}: F1 {100 * results[way].levels['exact'].micro.f1:.2f} at {threshold} {settings or ''}")
    trained: Any = nlp.get_pipe("glirel")
    about = {
        "model": model,
        "documents": len(of_test),
        "dev_documents": len(of_dev),
        "labels": len(names),
        "unseen_labels": sorted(set(names).difference(trained.bundle.labels)),
        "training_facts": len(known),
        "seconds_per_document": seconds,
    }
    output.mkdir(parents=True, exist_ok=True)
    figures = {**about, "results": {way: result.to_json() for way, result in results.items()}}
    (output / "results.json").write_text(json.dumps(figures, indent=1) + "\n", "utf8")
    (output / "README.md").write_text(write_page(about, results, note), "utf8")


def predict(nlp: Language, path: Path, labels: Sequence[str], limit: int) -> list[Example]:
    """Documents with all relations above the floor between gold mentions, and with gold clusters in span groups."""
    pipe: Any = nlp.get_pipe("glirel")
    same = {"symmetric": True, "threshold": min(SELF_THRESHOLDS)}
    pipe.set_labels({SELF: same, **{label: {} for label in labels}})
    pipe.threshold, pipe.top_k, pipe.span_groups = FLOOR, None, [SPAN_KEY]
    examples = list(islice(create_relation_corpus(path)(nlp), limit or None))
    give_gold_clusters(examples)
    docs = nlp.pipe(example.predicted for example in examples)
    return [Example(doc, example.reference) for doc, example in zip(docs, examples, strict=True)]


def lift(examples: Iterable[Example], settings: dict[str, Any]) -> int:
    """Write the document relations of the predictions; how many clusters have several mentions."""
    pipe = DocumentRelations(**{"self_label": SELF, **settings})
    docs = [pipe(example.predicted) for example in examples]
    return sum(len(cluster) > 1 for doc in docs for cluster in doc._.mention_clusters)


def score(
    examples: Sequence[Example], threshold: float, known: Collection[Fact] | None = None
) -> dict[str, DocumentLevel]:
    """The scores of the document relations of at least ``threshold``.

    A document relation scores what its best evidence does, so this is as good as leaving evidence out before lifting.
    """
    everything = [example.predicted._.document_relations for example in examples]
    for example, relations in zip(examples, everything, strict=True):
        example.predicted._.document_relations = [
            relation for relation in relations if relation["score"] >= threshold and relation["label"] != SELF
        ]
    levels = score_document_relations(examples, training_facts=known)
    for example, relations in zip(examples, everything, strict=True):
        example.predicted._.document_relations = relations
    return levels


def choose(examples: Sequence[Example], choices: Iterable[dict[str, Any]]) -> tuple[dict[str, Any], float]:
    """The settings and the threshold with the best F1; of equal ones the first."""
    best = None
    for settings in choices:
        lift(examples, settings)
        for threshold in THRESHOLDS:
            f1 = score(examples, threshold)["exact"].micro.f1
            if best is None or f1 > best[0]:
                best = f1, settings, threshold
    assert best is not None  # there is a threshold
    return best[1:]


def write_page(about: dict[str, Any], results: dict[str, Result], note: str) -> str:
    """The scores as Markdown."""
    lines = [
        "# Re-DocRED: relations between the entities of documents",
        "",
        f"`{about['model']}` with `document_relations`, documents: {about['documents']}. In percent. Gold mentions are "
        f"given, {about['labels']} labels are asked for, and a relation that is not annotated counts as wrong. "
        "Thresholds, that of SELF too, are those with the best F1 by *the same mentions* on other documents "
        f"({about['dev_documents']}). Nothing is drawn at random, so there are no seeds.",
        *([note] if note else []),
        "",
        "| clusters | of several mentions | a cluster is a gold one with | threshold | P | R | F1 | 95 % interval "
        "| Ign F1 | predicted |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for way, result in results.items():
        lines += [_row(way, result, matching) for matching in _matchings(way)]
    gold = results["gold clusters"].levels["exact"]
    unseen = set(about["unseen_labels"])
    parts = {
        "trained": [counts for label, counts in gold.per_label.items() if label not in unseen],
        "never seen (zero-shot)": [counts for label, counts in gold.per_label.items() if label in unseen],
    }
    lines += ["", "Gold clusters, by whether the model was trained on the label:", ""]
    lines += ["| labels | P | R | F1 | gold relations |", "|---|---|---|---|---|"]
    for name, counts in parts.items():
        total = sum(counts, Counts())
        ratios = _percent(total.precision, total.recall, total.f1)
        lines.append(f"| {len(counts)} {name} | {ratios} | {total.support} |")
    return "\n".join([*lines, "", *NOTES, f"- {about['seconds_per_document']:.2f} seconds a document.", ""])


NOTES = [
    "- *predicted clusters*: connected components of the model's own SELF relations between the given mentions. *no "
    "clusters*: each mention is a cluster of its own.",
    "- *the same mentions*: a predicted cluster is a gold one only if it has all of its mentions and no others. *most "
    "of its mentions*: if more than half of its mentions are the gold cluster's, so that a mention by itself is its "
    "gold cluster, and a relation is right if mentions of the right two entities are related.",
    "- Ign F1 leaves out of the precision what other documents say too under the same names.",
    "- The interval is a bootstrap over documents.",
]

MEANINGS = {"exact": "the same mentions", "majority": "most of its mentions"}


def _matchings(way: str) -> list[str]:
    """With gold clusters both ways of matching say the same."""
    return ["exact"] if way == "gold clusters" else list(MEANINGS)


def _row(way: str, result: Result, matching: str) -> str:
    level = result.levels[matching]
    micro = level.micro
    low, high = bootstrap_f1(level.documents)
    threshold = f"{result.threshold:g}"
    if "self_threshold" in result.settings:
        threshold += f", SELF {result.settings['self_threshold']:g}"
    cells = [
        way,
        f"{result.joined:,}",
        "–" if way == "gold clusters" else MEANINGS[matching],
        threshold,
        _percent(micro.precision, micro.recall, micro.f1),
        f"{100 * low:.1f} to {100 * high:.1f}",
        _percent(level.ign_f1 or 0.0),
        f"{micro.tp + micro.fp:,} for {micro.support:,}",
    ]
    return f"| {' | '.join(cells)} |"


def _percent(*ratios: float) -> str:
    return " | ".join(f"{100 * ratio:.2f}" for ratio in ratios)


if __name__ == "__main__":
    typer.run(main)
