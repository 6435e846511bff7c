"""How much faster the backbones find triplets than loops do: ``python -m benchmarks.backbone_speed MODEL... [--data]``.

Each MODEL is a trained pipeline (``training/webnlg/od-rte/0/model-best``, ...). The encoder reads the sentences once;
then the package's decoder and the loop of ``benchmarks.backbone_loops`` read its vectors by turns, each ``--repeats``
times, and the median seconds are shown. What they find has to be something, and the same, or it fails. The factor is
that of all that the decoders do otherwise: batches, no Python loops over relations or pairs, projections that are added
and not made of concatenations. A backbone that is told labels is asked for those of gold, and others of them until the
prompt is full.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import spacy
import torch
import typer
from spacy.training import Example

from spacy_ie_moe.corpora.reader import create_relation_corpus
from spacy_ie_moe.gmoe_rte.features import Features
from spacy_ie_moe.gmoe_rte.prompts import with_labels
from spacy_ie_moe.gmoe_rte.sentences import split_sentences

from .backbone_loops import LOOPS, Found


def main(
    models: Annotated[list[Path], typer.Argument(help="Trained pipelines, without a mixture.")],
    data: Annotated[Path, typer.Option(help="Documents to read.")] = Path("corpus/webnlg/dev.spacy"),
    sentences: Annotated[int, typer.Option(help="How many of them.")] = 100,
    repeats: Annotated[int, typer.Option(help="Times that each is measured.")] = 3,
) -> None:
    """Print a line for each pipeline."""
    typer.echo(f"{torch.get_num_threads()} threads, {sentences} sentences of {data}")
    for model in models:
        nlp = spacy.load(model)
        pipe: Any = nlp.get_pipe("gmoe_rte")
        network = pipe.bundle.network.eval()
        if network.mixture is not None:
            raise typer.BadParameter(f"{model} has a mixture; expected a backbone alone.")
        features = read(pipe, list(create_relation_corpus(data)(nlp))[:sentences])
        name = pipe.bundle.settings["backbone"]
        if name not in LOOPS:
            raise typer.BadParameter(f"{model} has the backbone {name!r}; expected one of {', '.join(LOOPS)}.")
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(repeats):
            found = timed(ours, at_once, network, features, pipe.threshold)
            expected = timed(theirs, one_by_one, LOOPS[name], network.backbone, features, pipe.threshold)
        same = sum(one.is_like(other) for one, other in zip(found, expected, strict=True))
        triplets = sum(len(of_sentence.triplets) for of_sentence in found)
        typer.echo(
            f"{name:<9} {1000 * median(ours):8.0f} ms  loop {1000 * median(theirs):8.0f} ms  "
            f"x{median(theirs) / median(ours):.1f}  {triplets} triplets, "
            f"the same in {same} of {len(found)} sentences"
        )
        if same < len(found) or not triplets:
            raise typer.Exit(1)


def read(pipe: Any, examples: list[Example]) -> Features:
    """The vectors of the documents, with labels where the backbone reads some."""
    sentences = split_sentences([example.predicted for example in examples], by_sentence=False)
    network = pipe.bundle.network
    if network.labels_at_once is not None:
        rng = random.Random(0)
        own = [{relation["label"] for relation in example.reference._.relations} for example in examples]
        others = [sorted({*pipe.labels} - labels) for labels in own]
        asked = [sorted(labels) + rng.sample(more, len(more)) for labels, more in zip(own, others, strict=True)]
        _, sentences = next(with_labels(sentences, [[labels[: network.labels_at_once]] for labels in asked]))
    rows = torch.as_tensor(pipe.model.layers[0].predict(sentences))
    return Features(rows, sentences.lengths, sentences.prompt_sizes)


@torch.inference_mode()
def at_once(network: Any, features: Features, threshold: float) -> list[Found]:
    return [Found.of(extraction) for extraction in network.predict(features, threshold)]


@torch.inference_mode()
def one_by_one(loop: Callable, backbone: Any, features: Features, threshold: float) -> list[Found]:
    parts = [features.select(slice(place, place + 1)) for place in range(len(features.lengths))]
    return [loop(backbone, part, threshold) for part in parts]


def timed(seconds: list[float], run: Callable[..., list[Found]], *arguments: Any) -> list[Found]:
    started = time.perf_counter()
    found = run(*arguments)
    seconds.append(time.perf_counter() - started)
    return found


if __name__ == "__main__":
    typer.run(main)
