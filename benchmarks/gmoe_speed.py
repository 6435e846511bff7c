"""Speed and memory of ``gmoe_rte``: its backbone SINET alone side by side with SINET and the mixture of experts.

``python -m benchmarks.gmoe_speed [--sentences 551] [--turns 5] [--threads 1] [--quick]
[--allocator default]``

All of spaCy is timed: ``nlp(doc)`` and ``nlp.pipe`` from documents of words to their relations, ``nlp.update`` from
examples to the optimizer's step. Each measurement has a process of its own. The variants take turns (B A A B ...), so
that a busy moment of the machine hits both; what the mixture costs is the median of the ratios within a turn.
A network that finds nothing is too fast, so each variant is trained a little first, or read from a folder; what it
finds is in the table, as the time for pairs depends on it. The reference's figures are from an earlier run on such a
machine.
"""

from __future__ import annotations

import gc
import itertools
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import spacy
import torch
import typer
from spacy import util
from spacy.cli._util import parse_config_overrides
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from spacy.vocab import Vocab
from thinc.api import Optimizer

from benchmarks.glirel_speed import MB, ROOT, Worker, Writer, spread
from benchmarks.reference_glirel import Work, peak_memory
from benchmarks.study import TUNED_MALLOC
from spacy_ie_moe.corpora import dygie
from spacy_ie_moe.corpora.location import find_file
from spacy_ie_moe.corpora.reader import make_example, read_docs
from spacy_ie_moe.encoder import SMALL_ENCODER
from spacy_ie_moe.relations import make_relation

CONFIG = ROOT / "configs" / "gmoe_rte.cfg"
VARIANTS = {"alone": None, "mixture": "gmoe"}
"""``components.gmoe_rte.model.mixture`` of each."""
MOST_EXTRA = 10.0
"""Percent of inference time that the mixture may cost."""
TYPES = ("Generic", "Material", "Method", "Metric", "OtherScientificTerm", "Task")
LABELS = ("COMPARE", "CONJUNCTION", "EVALUATE-FOR", "FEATURE-OF", "HYPONYM-OF", "PART-OF", "USED-FOR")
ALLOCATORS = {"tuned": TUNED_MALLOC, "default": {}}
"""Environment variables of each."""


@dataclass(frozen=True)
class Task:
    """What is timed. batch: sentences at once; 0 is ``nlp.pipe`` with its own. mixed: train in bfloat16."""

    kind: str
    batch: int
    mixed: bool = False

    @property
    def name(self) -> str:
        """As the tables have it."""
        if self.kind == "inference":
            return f"inference, {'nlp.pipe' if not self.batch else 'one by one'}"
        return f"training, {self.batch} at once, {'bfloat16' if self.mixed else 'float32'}"


ONE_BY_ONE, PIPE = Task("inference", 1), Task("inference", 0)
TRAININGS = tuple(Task("training", batch, mixed) for batch in (4, 8) for mixed in (False, True))
TASKS = (ONE_BY_ONE, PIPE, *TRAININGS)
QUICK_TASKS = (ONE_BY_ONE, TRAININGS[1])


@dataclass(frozen=True)
class Reference:
    """What the reference code of SINET did with the same encoder, one thread and a tuned allocator, measured earlier.

    speed: sentences/s. peak: MB. wanted: how many times its speed ours should have.
    """

    speed: float
    peak: float
    wanted: float


REFERENCES = {("inference", 1): Reference(33.6, 905, 2.0), ("training", 4): Reference(13.0, 1507, 1.3)}
"""By kind and batch of the task."""


# Data


def write_data(data: Path, folder: Path, sentences: int, trained: int) -> str:
    """Write ``train.spacy`` (the longer of both counts) and ``test.spacy`` to ``folder``; gives what they are of."""
    vocab = Vocab()
    most = {"train": max(sentences, trained), "test": sentences}
    try:
        paths = {"train": find_file(data), "test": find_file(data).with_name("test.json")}
        docs = {part: list(itertools.islice(dygie.read(path, vocab, unit="sentence"), most[part]))
                for part, path in paths.items()}  # fmt: skip
        said = ", ".join(f"{len(docs[part])} of {path}" for part, path in paths.items())
    except FileNotFoundError:
        made = made_sentences(vocab, sum(most.values()))
        docs = {part: list(itertools.islice(made, most[part])) for part in most}
        said = f"GENERATED sentences, as there is no {data} with a test.json beside it"
    for part in most:
        DocBin(docs=docs[part], store_user_data=True).to_disk(folder / f"{part}.spacy")
    return said


def made_sentences(vocab: Vocab, count: int, *, length: int = 24) -> Iterator[Doc]:
    """Sentences of made-up words, as many entities and relations in them as SciERC has.

    What can be learnt is that a type has words of its own, and which label a pair of types has.
    """
    writer = Writer(0, types=5000)
    for _ in range(count):
        words, types = writer.text(length), random.Random(writer.random.random()).choices(range(len(TYPES)), k=3)
        starts = sorted(writer.random.sample(range(0, length - 3, 4), 3))
        for start, kind in zip(starts, types, strict=True):
            words[start : start + 2] = writer.random.choices(writer.words[100 + 50 * kind : 150 + 50 * kind], k=2)
        doc = Doc(vocab, words=words)
        doc.ents = [Span(doc, at, at + 2, label=TYPES[kind]) for at, kind in zip(starts, types, strict=True)]
        doc._.relations = [
            make_relation(doc.ents[at], doc.ents[at + 1], LABELS[(types[at] + types[at + 1]) % len(LABELS)])
            for at in range(2)
        ]
        yield doc


# In a process of its own


def answer() -> None:
    """Answer the one request on stdin; whatever libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.loads(sys.stdin.readline())
    torch.set_num_threads(request["threads"])
    print(json.dumps(OPERATIONS[request["kind"]](request)), file=answers, flush=True)


def new_pipeline(request: Work, variant: str) -> tuple[Language, list[Example], Optimizer]:
    """An initialised pipeline of a variant, what it is to learn from, and its optimizer."""
    util.fix_random_seed(request["seed"])
    model, train = "components.gmoe_rte.model", str(Path(request["folder"], "train.spacy"))
    changes = {
        **{f"{model}.mixture": VARIANTS[variant], f"{model}.encoder.mixed_precision": request["mixed"]},
        **{"paths.encoder": request["encoder"], "paths.train": train, "paths.dev": train},
        **{"training.optimizer.learn_rate.warmup_steps": 10, **request["changes"]},
    }
    config = util.load_config(CONFIG, overrides=changes, interpolate=True)
    nlp = util.load_model_from_config(config, auto_fill=True)
    examples = [make_example(doc, gold_ents=False) for doc in read_docs(Path(train), nlp.vocab)]
    return nlp, examples, nlp.initialize(lambda: examples)


def learn(nlp: Language, optimizer: Optimizer, batches: Iterable[list[Example]]) -> None:
    """An update for each batch."""
    for batch in batches:
        nlp.update(batch, sgd=optimizer)
        optimizer.step_schedules()


def prepare(request: Work) -> Work:
    """Train the variants that are not in their folders yet for some steps, and save them there."""
    missing = {variant: folder for variant, folder in request["models"].items() if not Path(folder).exists()}
    for variant, folder in missing.items():
        nlp, examples, optimizer = new_pipeline(request, variant)
        batches = itertools.cycle(list(util.minibatch(examples[: request["trained"]], request["batch"])))
        learn(nlp, optimizer, itertools.islice(batches, request["steps"]))
        nlp.to_disk(folder)
    return {}


def measure_training(request: Work) -> Work:
    """Time updates with all sentences, after some to warm up."""
    nlp, examples, optimizer = new_pipeline(request, request["variant"])
    examples = examples[: request["sentences"]]
    batches = list(util.minibatch(examples, request["batch"]))
    learn(nlp, optimizer, batches[: request["warm"] // request["batch"]])
    return timed(partial(learn, nlp, optimizer, batches), len(examples))


def measure_inference(request: Work) -> Work:
    """Time the documents of all sentences, after some to warm up; count what is found."""
    nlp = spacy.load(request["models"][request["variant"]])
    gold = list(read_docs(Path(request["folder"], "test.spacy"), nlp.vocab))

    def annotate(docs: list[Doc]) -> None:
        for _ in map(nlp, docs) if request["batch"] else nlp.pipe(docs):
            pass

    annotate([make_example(doc, gold_ents=False).predicted for doc in gold[: request["warm"]]])
    docs = [make_example(doc, gold_ents=False).predicted for doc in gold]
    figures = timed(partial(annotate, docs), len(docs))
    entities, relations = (sum(map(len, found)) / len(docs) for found in zip(*map(_found, docs), strict=True))
    return {**figures, "entities": entities, "relations": relations}


def _found(doc: Doc) -> tuple[Any, Any]:
    return doc.spans["gmoe_rte"], doc._.relations


def timed(work: Callable[[], None], sentences: int) -> Work:
    """Seconds, seconds of the processor and minor page faults, each for a sentence; bytes at the peak so far."""
    gc.collect()
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    names = {"user": "ru_utime", "system": "ru_stime", "faults": "ru_minflt"}
    spent = {name: (getattr(after, field) - getattr(before, field)) / sentences for name, field in names.items()}
    return {"seconds": seconds / sentences, **spent, "peak": peak_memory()}


OPERATIONS = {"prepare": prepare, "training": measure_training, "inference": measure_inference}


# Turns


@dataclass(frozen=True)
class Setup:
    """What is measured. folder: of the data. models: folders of trained pipelines by variant. warm: sentences before.

    changes: to the config, by dotted name. trained, steps: sentences and updates of the models that are not given.
    """

    folder: str
    models: dict[str, str]
    changes: dict[str, Any]
    encoder: str
    threads: int
    turns: int
    sentences: int
    trained: int
    steps: int
    warm: int
    allocator: str


def ask(setup: Setup, task: Task, variant: str = "", turn: int = 0) -> Work:
    """What a new process answers. Raises ``WorkerError`` if it dies."""
    command = [sys.executable, "-c", "from benchmarks.gmoe_speed import answer; answer()"]
    environment = {"OMP_NUM_THREADS": str(setup.threads), **ALLOCATORS[setup.allocator]}
    worker = Worker(f"{task.name}, {variant}", command, environment, Path(setup.folder, "log.txt"))
    try:
        return worker.ask(**asdict(setup), **asdict(task), variant=variant, seed=turn)
    finally:
        worker.close()


def take_turns(setup: Setup, task: Task) -> list[Work]:
    """A row for each variant, which take turns."""
    runs: dict[str, list[Work]] = defaultdict(list)
    for turn in range(setup.turns):
        order = list(VARIANTS)[:: 1 if turn % 2 else -1]
        for variant in order:
            runs[variant].append(ask(setup, task, variant, turn))
    return make_rows(task, {variant: runs[variant] for variant in VARIANTS})


def make_rows(task: Task, runs: dict[str, list[Work]]) -> list[Work]:
    """The medians of each variant's turns; "ratio" is that of the times to the first variant's, by turn."""
    first = next(iter(runs.values()))
    rows = []
    for name, turns in runs.items():
        middle = {key: median(run[key] for run in turns) for key in turns[0]}
        speed = spread([1 / run["seconds"] for run in turns])
        ratio = [run["seconds"] / base["seconds"] for run, base in zip(turns, first, strict=True)]
        rows.append({"task": task.name, "name": name, **middle, "speed": speed, "ratio": ratio, "runs": turns})
    return rows


def print_rows(rows: list[Work]) -> None:
    """The table of a task. The time of the processor and page faults are those of a sentence."""
    print(f"\n{rows[0]['task']:28} {'sentences/s':>11} {'min':>7} {'max':>7} {'time':>6} {'peak MB':>8} {'user ms':>8} "
          f"{'system ms':>9} {'faults':>7} {'entities':>9} {'relations':>9}")  # fmt: skip
    for row in rows:
        line = "{:11.2f} {:7.2f} {:7.2f}".format(*row["speed"])
        line += f" {median(row['ratio']):6.3f} {row['peak'] / MB:8.0f} {1000 * row['user']:8.1f}"
        line += f" {1000 * row['system']:9.1f} {row['faults']:7.0f}"
        line += f" {row['entities']:9.2f} {row['relations']:9.2f}" if "entities" in row else ""
        print(f"{row['name']:28} {line}", flush=True)


def print_verdict(task: Task, rows: list[Work]) -> None:
    """Whether what was wanted is reached: the reference's figures, and what the mixture may cost."""
    reference = REFERENCES.get((task.kind, task.batch))
    for row in rows if reference else ():
        assert reference
        ratio, peak = row["speed"][0] / reference.speed, row["peak"] / MB
        print(f"{row['name']}: {ratio:.2f}x the reference's {reference.speed} sentences/s, wanted {reference.wanted}x: "
              f"{said(ratio >= reference.wanted)}; {peak:.0f} MB, the reference {reference.peak:.0f}: "
              f"{said(peak <= reference.peak)}")  # fmt: skip
    extra = [100 * (ratio - 1) for ratio in rows[-1]["ratio"]]
    wanted = f", wanted at most 10 %: {said(median(extra) <= MOST_EXTRA)}" if task.kind == "inference" else ""
    turns = " ".join(f"{percent:+.1f}" for percent in extra)
    print(f"the mixture takes {median(extra):+.1f} % of time (by turn {turns}){wanted}", flush=True)


def said(holds: bool) -> str:
    """As the verdicts have it."""
    return "reached" if holds else "MISSED"


def main(
    data: Path = typer.Option(Path("scierc/train.json"), help="Training sentences; test.json is beside it."),
    sentences: int = typer.Option(551, help="Sentences of each measurement."),
    turns: int = typer.Option(5, help="How often each is measured."),
    threads: int = typer.Option(1, help="Threads of each process."),
    encoder: str = typer.Option(SMALL_ENCODER, help="A folder or hub id."),
    quick: bool = typer.Option(False, help="Few sentences, one turn: shows that it runs, not how fast."),
    model_alone: Path | None = typer.Option(None, help="A trained pipeline of SINET alone, for inference."),
    model_mixture: Path | None = typer.Option(None, help="A trained pipeline of SINET and the mixture."),
    change: list[str] = typer.Option([], help="NAME=VALUE: a setting of the config, for what is trained here."),
    work_folder: Path | None = typer.Option(None, help="Keep the models that are trained here between runs."),
    allocator: str = typer.Option("tuned", help=f"Settings of glibc's malloc: {', '.join(ALLOCATORS)}."),
    output: Path | None = typer.Option(None, help="JSON file for all figures."),
) -> None:
    """Print speed and memory of both variants in each task, and whether they are what was wanted."""
    if allocator not in ALLOCATORS:
        raise typer.BadParameter(f"{allocator!r}; expected one of {', '.join(ALLOCATORS)}.", param_hint="--allocator")
    if quick:
        sentences, turns = min(sentences, 24), 1
    encoder = str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder
    trained, steps, warm = (24, 5, 4) if quick else (400, 100, 32)
    with tempfile.TemporaryDirectory() as folder:
        made = {name: (work_folder or Path(folder)) / f"{Path(encoder).name}-{name}-{steps}" for name in VARIANTS}
        models = {"alone": model_alone or made["alone"], "mixture": model_mixture or made["mixture"]}
        resolved = {name: str(path.resolve()) for name, path in models.items()}
        changes = parse_config_overrides([f"--{setting}" for setting in change])
        setup = Setup(folder, resolved, changes, encoder, threads, turns, sentences, trained, steps, warm, allocator)
        source = write_data(data, Path(folder), sentences, trained)
        print(f"{source}; {threads} threads, {turns} turns, {encoder}, allocator {allocator}", flush=True)
        ask(setup, Task("prepare", 8))
        results = []
        for task in QUICK_TASKS if quick else TASKS:
            rows = take_turns(setup, task)
            print_rows(rows)
            print_verdict(task, rows)
            results += rows
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        figures = {"data": source, "encoder": encoder, "threads": threads, "torch": torch.__version__, "rows": results}
        output.write_text(json.dumps(figures, indent=2) + "\n", "utf8")


if __name__ == "__main__":
    typer.run(main)
