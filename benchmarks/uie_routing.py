"""Which expert does what: the routing weights of a trained ``uc_uie`` as heat maps (the paper's Figure 6).

``python -m benchmarks.uie_routing PIPELINE OUTPUT.svg FILE.spacy [FILE.spacy ...]`` draws, for the task of each file,
the gates of the capabilities and the mean weights of their sub-experts, averaged over documents and layers. Which
sub-expert is the first means nothing across layers, so those of a layer are sorted, the busiest first.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import spacy
import typer
from spacy.vocab import Vocab

from spacy_ie_moe.corpora.reader import make_example, read_docs


def main(
    pipeline: Annotated[Path, typer.Argument(help="A trained pipeline.")],
    output: Annotated[Path, typer.Argument(help="The picture to write.")],
    files: Annotated[list[Path], typer.Argument(help="Documents with frames.")],
    documents: Annotated[int, typer.Option(help="So many of each file.")] = 50,
) -> None:
    """Draw the routing weights and print them."""
    pipe: Any = spacy.load(pipeline).get_pipe("uc_uie")
    gates: dict[str, list[np.ndarray]] = defaultdict(list)
    experts: dict[str, list[np.ndarray]] = defaultdict(list)
    names: dict[str, list[str]] = {}
    for path in files:
        for doc in islice(read_docs(path, Vocab()), documents):
            for routing in pipe.routing(make_example(doc, gold_ents=False).predicted):
                names[routing.task] = list(routing.sub_experts)
                gates[routing.task].append(routing.gates.mean(0))
                experts[routing.task].append(np.stack([_busiest(w) for w in routing.sub_experts.values()]))
    if not gates:
        raise typer.BadParameter("FILES hold no documents with text; expected at least one.")
    tasks = list(gates)
    gate_map = np.stack([np.mean(gates[task], axis=0) for task in tasks])
    rows = [f"{task}-{name}" for task in tasks for name in names[task]]
    expert_map = np.concatenate([np.mean(experts[task], axis=0) for task in tasks])
    _print("gates", tasks, ["judging", "locating", "associating"], gate_map)
    _print("sub-experts", rows, [str(n + 1) for n in range(expert_map.shape[1])], expert_map)
    _draw(output, tasks, gate_map, rows, expert_map)


def _busiest(weights: np.ndarray) -> np.ndarray:
    """The weights [layers, Q] sorted within each layer, their mean over the layers [Q]."""
    return -np.sort(-weights, axis=-1).mean(0)


def _print(title: str, rows: list[str], columns: list[str], values: np.ndarray) -> None:
    typer.echo(f"{title:<20}" + "".join(f"{name:>13}" for name in columns))
    for name, line in zip(rows, values, strict=True):
        typer.echo(f"{name:<20}" + "".join(f"{value:>13.3f}" for value in line))


def _draw(output: Path, tasks: list[str], gates: np.ndarray, rows: list[str], experts: np.ndarray) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.5 + 0.3 * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2)
    capabilities = ["judging", "locating", "associating"]
    subs = [str(number + 1) for number in range(experts.shape[1])]
    for panel, title, names, columns, values in (
        (left, "gates", tasks, capabilities, gates),
        (right, "sub-experts", rows, subs, experts),
    ):
        image = panel.imshow(values, aspect="auto", cmap="Blues", vmin=0)
        panel.set(title=title, xticks=range(len(columns)), yticks=range(len(names)))
        panel.set_xticklabels(columns)
        panel.set_yticklabels(names)
        figure.colorbar(image, ax=panel)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)


if __name__ == "__main__":
    typer.run(main)
