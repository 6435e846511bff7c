"""How much faster the backbones find triplets than loops do: ``python -m benchmarks.backbone_speed MODEL... [--data]``.

Each MODEL is a trained pipeline (``training/webnlg/od-rte/0/model-best``, ...). The encoder reads the sentences once;
then the package's decoder and the loop of ``benchmarks.backbone_loops`` read its vectors by turns, each ``--repeats``
times, and the median seconds are shown. What they find has to be the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import spacy
import torch
import typer

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
        features = read(pipe, [example.predicted for example in create_relation_corpus(data)(nlp)][:sentences])
        loop = LOOPS[network_name(pipe)]
        ours: list[float] = []
        theirs: list[float] = []
        for _ in range(repeats):
            found = timed(ours, at_once, network, features, pipe.threshold)
            expected = timed(theirs, one_by_one, loop, network.backbone, features, pipe.threshold)
        same = sum(one == other for one, other in zip(found, expected, strict=True))
        typer.echo(
            f"{network_name(pipe):<9} {1000 * median(ours):8.0f} ms  loop {1000 * median(theirs):8.0f} ms  "
            f"x{median(theirs) / median(ours):.1f}  {sum(map(len, found))} triplets, "
            f"the same in {same} of {len(found)} sentences"
        )


def network_name(pipe: Any) -> str:
    return pipe.bundle.settings["backbone"]


def read(pipe: Any, docs: list[Any]) -> Features:
    """The vectors of the documents, with the first labels where the backbone reads some."""
    sentences = split_sentences(docs, by_sentence=False)
    network = pipe.bundle.network
    if network.labels_at_once is not None:
        _, sentences = next(with_labels(sentences, [[pipe.labels[: network.labels_at_once]]] * len(sentences)))
    rows = torch.as_tensor(pipe.model.layers[0].predict(sentences))
    return Features(rows, sentences.lengths, sentences.prompt_sizes)


@torch.inference_mode()
def at_once(network: Any, features: Features, threshold: float) -> list[set[Found]]:
    return [
        {(*x.entities[t.head][:2], *x.entities[t.tail][:2], t.label) for t in x.triplets}
        for x in network.predict(features, threshold)
    ]


@torch.inference_mode()
def one_by_one(loop: Callable, backbone: Any, features: Features, threshold: float) -> list[set[Found]]:
    parts = [features.select(slice(place, place + 1)) for place in range(len(features.lengths))]
    return [loop(backbone, part, threshold) for part in parts]


def timed(seconds: list[float], run: Callable[..., list[set[Found]]], *arguments: Any) -> list[set[Found]]:
    started = time.perf_counter()
    found = run(*arguments)
    seconds.append(time.perf_counter() - started)
    return found


if __name__ == "__main__":
    typer.run(main)
