"""Speed and memory of ``glirel`` side by side with GLiREL's own spaCy component, and how far both are from the floor.

``python -m benchmarks.glirel_speed [--reference-python PYTHON] [--quick] [--case NAME]``

PYTHON is an interpreter that has the package ``glirel`` (1.2.1 wants transformers<5, huggingface_hub<1 and loguru).
Both read the same checkpoint (random weights in the published format) and the same documents, each in a process of
its own, with the same number of threads. They take turns, so that a busy moment of the machine hits both: ratios are
those of one turn. Every turn has other documents, so nothing but the words is seen twice. At the end their scores are
compared.

The floor is what the arithmetic alone takes: floating-point operations of encoder and head on the pieces without
padding, over the fastest matrix product that is measured here. Products of two activations (attention) and the LSTM
count at the float32 rate in every precision.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import torch
import typer

from benchmarks import reference_glirel
from benchmarks.reference_glirel import Entry, Work, pipe_entry, serve
from spacy_ie_moe.corpora.location import data_folder
from spacy_ie_moe.encoder import WordPieces
from spacy_ie_moe.glirel.network import SPECIAL_TOKENS
from spacy_ie_moe.precision import Precision
from spacy_ie_moe.speedups import Buckets, onednn_linear, onednn_pays

ROOT = Path(__file__).resolve().parent.parent
MB = 2**20
VOCABULARY = 30_000
PRECISIONS: tuple[str, ...] = get_args(Precision)
LABELS = [
    "country of citizenship", "place of birth", "spouse", "educated at", "employer", "member of political party",
    "located in", "headquarters location", "founded by", "subsidiary", "owned by", "chief executive officer",
    "publisher", "author", "director", "performer", "composer", "genre", "part of", "instance of", "capital of",
    "shares border with", "mouth of the watercourse", "occupation", "field of work", "award received",
    "participant of", "position held", "military branch", "languages spoken",
]  # fmt: skip
BERT = {
    "model_type": "bert",
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
DEBERTA = {
    "model_type": "deberta-v2",
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "position_buckets": 256,
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
}
ENCODERS: dict[str, dict[str, Any]] = {"minilm": BERT, "deberta": DEBERTA}
"""The shapes of all-MiniLM-L6 and of DeBERTa-v3-base, with a WordPiece vocabulary."""


@dataclass(frozen=True)
class Case:
    """What is timed.

    kind: "sentences" (FewRel-like: 25-40 words, 2 entities, 10 labels) or "documents" (500 words, 100 entities,
    30 labels). documents: per turn, in the full and in the quick run. entry: what of the reference is called:
    "pipe" (its component: threshold 0.3, one label per pair) or "api" (``predict_relations``, which takes others;
    ours is ``nlp.pipe`` always). wanted: least ratio, exactly and with rounded weights.
    """

    kind: str
    encoder: str
    documents: tuple[int, int]
    turns: int
    wanted: tuple[float, float]
    threshold: float = 0.3
    top_k: int | None = 1
    entry: str = "pipe"


CASES = {
    "fewrel-minilm": Case("sentences", "minilm", (256, 16), 7, (1.6, 2.5)),
    "fewrel-deberta": Case("sentences", "deberta", (48, 4), 5, (1.8, 2.5)),
    "documents": Case("documents", "deberta", (2, 1), 5, (2.0, 2.0)),
    "documents-half": Case("documents", "deberta", (2, 1), 5, (2.0, 2.0), 0.5, None, "api"),
    "documents-zero": Case("documents", "deberta", (2, 1), 5, (3.0, 3.0), 0.0, None, "api"),
}


# Texts


class Writer:
    """Text of made-up words: Zipf frequencies, frequent words short, as in English. The same seed, the same text."""

    def __init__(self, seed: int, types: int = 60_000) -> None:
        self.random = random.Random(seed)
        self.words: list[str] = []
        seen = {""}
        for rank in range(1, types + 1):
            word, length = "", max(1, round(self.random.gauss(1.5 + 0.6 * math.log(rank), 1.5)))
            while len(word) < length or word in seen:
                word += self.random.choice("aeiou" if len(word) % 2 else "bcdfghlmnprstvwy")
            seen.add(word)
            self.words.append(word)
        self.weights = list(itertools.accumulate(1 / (rank + 2.7) for rank in range(types)))

    def text(self, length: int) -> list[str]:
        """So many tokens, with commas and full stops among them."""
        words = self.random.choices(self.words, cum_weights=self.weights, k=length)
        for at in range(7, length - 1, 9):
            words[at] = self.random.choice(",,.")
        words[-1] = "."
        return words


def made_sentences(writer: Writer, count: int) -> list[Work]:
    """Sentences of 25-40 words with two entities."""
    documents = []
    for _ in range(count):
        length = writer.random.randint(25, 40)
        head, tail = sorted(writer.random.sample(range(0, length - 3, 4), 2))
        documents.append({"words": writer.text(length), "entities": [[head, head + 2], [tail, tail + 1]]})
    return documents


def made_documents(writer: Writer, count: int, *, words: int = 500, entities: int = 100) -> list[Work]:
    """Documents with entities of one to three words, spread evenly."""
    gap = words // entities
    return [
        {
            "words": writer.text(words),
            "entities": [[gap * i, gap * i + writer.random.randint(1, 3)] for i in range(entities)],
        }
        for _ in range(count)
    ]


def fewrel_sentences(folder: Path) -> list[Work]:
    """FewRel's sentences of 25-40 words with their two entities, in a fixed random order; none if it is not there."""
    documents = []
    for path in sorted(folder.glob("*_*.json")):
        relations = json.loads(path.read_text("utf8"))
        if not isinstance(relations, dict) or "lowercased" in path.name:
            continue
        for instance in itertools.chain(*relations.values()):
            spans = sorted([min(indices), max(indices) + 1] for indices in (instance["h"][2][0], instance["t"][2][0]))
            if 25 <= len(instance["tokens"]) <= 40 and spans[0][1] <= spans[1][0]:
                documents.append({"words": instance["tokens"], "entities": spans})
    random.Random(0).shuffle(documents)
    return documents


@dataclass
class Texts:
    """Sentences (made ones, or FewRel's where they are there), made documents, and what a vocabulary is learnt from."""

    fewrel: list[Work]
    writer: Writer = field(default_factory=lambda: Writer(0))

    def documents(self, case: Case, count: int) -> list[Work]:
        """So many documents for a case; the same ones each time."""
        self.writer.random.seed(1)
        if case.kind == "documents":
            return made_documents(self.writer, count)
        return self.fewrel[:count] if len(self.fewrel) >= count else made_sentences(self.writer, count)

    def for_vocabulary(self) -> Iterator[str]:
        """Lines of both kinds."""
        self.writer.random.seed(2)
        yield from (" ".join(document["words"]) for document in self.fewrel)
        yield from (" ".join(self.writer.text(30)) for _ in range(20_000))


# Checkpoints


def make_checkpoint(folder: Path, shape: dict[str, Any], texts: Texts) -> Path:
    """A checkpoint in the reference's published format with random weights (always the same ones).

    The head is scaled so that logits have a spread, and few of them pass .5, as in a trained network.
    """
    import spacy
    from transformers import AutoConfig, AutoModel, logging

    from spacy_ie_moe.glirel.checkpoint import _REFERENCE_NAMES, REFERENCE_CONFIG, REFERENCE_WEIGHTS

    logging.set_verbosity_error()  # BERT's pooler is not loaded, and that is as it should be
    torch.manual_seed(0)
    encoder = folder / "encoder"
    pieces = _make_tokenizer(encoder, texts)
    AutoModel.from_config(AutoConfig.for_model(**shape, vocab_size=pieces)).save_pretrained(encoder)
    settings = {"hidden_size": shape["hidden_size"]}
    nlp = spacy.blank("en")
    model = {"checkpoint": None, "encoder": str(encoder), "network": "prompt", "settings": settings}
    pipe: Any = nlp.add_pipe("glirel", config={"labels": LABELS, "threshold": 0.0, "top_k": None, "model": model})
    _spread_logits(nlp, pipe.bundle.network, texts)
    names = {ours: theirs for theirs, ours in _REFERENCE_NAMES.items()}
    state = {}
    for name, tensor in pipe.bundle.network.state_dict().items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        state[names[prefix] + name[len(prefix) :]] = tensor.clone()
    torch.save(state, folder / REFERENCE_WEIGHTS)
    (folder / REFERENCE_CONFIG).write_text(json.dumps(_reference_config(settings), indent=2), "utf8")
    return folder


def _make_tokenizer(folder: Path, texts: Texts) -> int:
    """Write a WordPiece tokenizer as BERT has it, and give the size of its vocabulary."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(texts.for_vocabulary(), vocab_size=VOCABULARY, show_progress=False)
    folder.mkdir(parents=True)
    tokenizer.save_model(str(folder))
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    return tokenizer.get_vocab_size()


def _spread_logits(nlp: Any, network: Any, texts: Texts, *, mean: float = -4.0, spread: float = 2.0) -> None:
    """Give the random head's logits this mean and spread on made documents."""
    for name, weight in network.named_parameters():
        if not name.startswith("encoder."):
            torch.nn.init.zeros_(weight) if weight.ndim < 2 else torch.nn.init.kaiming_normal_(weight)
    label_layer, pair_layer = network.label_layer[3], network.pair_layer.out_project[3]
    with torch.no_grad():
        label_layer.weight[0], label_layer.bias[0], pair_layer.weight[0] = 0.0, 1.0, 0.0  # a channel for the mean
        label_layer.weight.mul_(0.01)
        work = made_documents(texts.writer, 4, words=80, entities=8)
        docs = nlp.pipe(reference_glirel.make_docs(nlp.vocab, work))
        scores = np.array([relation["score"] for doc in docs for relation in doc._.relations], dtype=np.float64)
        logits = np.log(scores) - np.log1p(-scores)
        label_layer.weight.mul_(spread / logits.std())
        pair_layer.bias[0] = mean - logits.mean() * spread / logits.std()


def _reference_config(settings: dict[str, Any]) -> dict[str, Any]:
    """The options of the published large model; the encoder is beside the weights."""
    return {
        **{"model_name": "encoder", "fine_tune": True, "subtoken_pooling": "first", "rel_mode": "marker"},
        **{"span_marker_mode": "markerv1", "label_embed_strategy": "both", "scorer": "dot", "ffn_mul": 4},
        **{"refine_prompt": False, "refine_relation": False, "dropout": 0.4, "max_width": 12, "max_len": 512},
        **{"coref_classifier": False, "max_entity_pair_distance": None, "fixed_relation_types": True},
        **{"num_train_rel_types": 25, "random_drop": True, "loss_func": "binary_cross_entropy_loss"},
        **settings,
    }


# Workers


class WorkerError(RuntimeError):
    """A worker that died."""


class Worker:
    """A process that has one package loaded and times it when asked."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.seconds: list[float] = []
        self.peak = 0
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
        with log.open("w") as errors:
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": errors}
            self.process = subprocess.Popen(command, **pipes, env=environment, text=True, cwd=ROOT)

    def ask(self, **request: Any) -> Work:
        """One request, one answer. Raises ``WorkerError`` with the last line that the process printed if it died."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise WorkerError(f"{self.name} failed: {self.log.read_text().strip().splitlines()[-1:]}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()


def work() -> None:
    """The worker with our package."""
    serve(load_ours)


def load_ours(request: Work) -> tuple[Any, Entry]:
    """A blank pipeline with ``glirel``."""
    import spacy

    torch.set_num_threads(request["threads"])
    nlp = spacy.blank("en")
    config = {name: request[name] for name in ("threshold", "top_k")}
    model = {"checkpoint": request["checkpoint"], "precision": request["precision"]}
    nlp.add_pipe("glirel", config={**config, "model": model})
    return nlp.vocab, pipe_entry(nlp)


@dataclass(frozen=True)
class Setup:
    """What the user chose. reference: its interpreter; settings: environment variables to try on ours."""

    folder: Path
    reference: str | None
    precisions: Sequence[str]
    settings: Sequence[str]
    threads: int
    quick: bool


def start_workers(setup: Setup, warm: int, request: Work) -> list[Worker]:
    """The reference, if there is one, then ours in each precision and with each setting: loaded, and warm.

    request: that for loading. What cannot load is told and left out.
    """
    threads = {"OMP_NUM_THREADS": str(setup.threads)}
    own = [sys.executable, "-c", "from benchmarks.glirel_speed import work; work()"]
    started: list[tuple[str, Sequence[str], dict[str, str]]] = []
    if setup.reference:
        started.append(("reference", [setup.reference, str(Path(reference_glirel.__file__).resolve())], {}))
    started += [(precision, own, {}) for precision in setup.precisions]
    for setting in setup.settings:
        started.append((f"float32 {setting}", own, dict(pair.split("=", 1) for pair in setting.split())))
    workers = []
    for index, (name, command, environment) in enumerate(started):
        worker = Worker(name, command, {**threads, **environment}, setup.folder / f"{index}.log")
        try:
            worker.ask(op="load", precision=name if name in PRECISIONS else "float32", **request)
            worker.ask(op="run", first=0, last=warm, output=None)
        except WorkerError as error:
            worker.close()
            print(error, flush=True)
        else:
            workers.append(worker)
    return workers


# The floor


@dataclass
class Operations:
    """Floating-point operations: products with weights of linear layers, and the others. units: pieces and texts."""

    linear: float = 0.0
    other: float = 0.0
    pieces: int = 0

    def seconds(self, precision: str, rates: dict[str, float]) -> float:
        """The least time they take."""
        return self.linear / rates[precision] + self.other / rates["float32"]


def count_operations(work: Work, documents: Iterable[Work], folder: Path, shape: dict[str, Any]) -> Operations:
    """What encoder and head have to do at least: no padding, each product once, the pair layer factored.

    Multiplying a [n, k] by a [k, m] matrix counts 2 n k m. D is the width, C the labels, N the entities.
    """
    split = WordPieces.from_pretrained(folder / "encoder", special=SPECIAL_TOKENS)
    width, inner, layers = (shape[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers"))
    labels = len(work["labels"])
    prompt = sum(1 + len(pieces) for pieces in split(work["labels"])) + 1 + len(split.prefix) + len(split.suffix)
    total = Operations()
    for document in documents:
        words, entities = len(document["words"]), len(document["entities"])
        length = prompt + sum(map(len, split(document["words"])))
        positions = min(length, _reachable_positions(length, shape)) if shape is DEBERTA else 0
        total.pieces += length
        total.linear += layers * (8 * length * width**2 + 4 * length * width * inner)
        total.other += layers * (4 * length**2 * width + 4 * length * positions * width)
        total.other += 12 * words * width**2  # LSTM
        total.linear += entities * (32 + 24) * width**2  # start and end, entity
        total.linear += entities * 16 * width**2 + labels * (16 + 8) * width**2  # as head and tail; labels, folded
        total.other += entities * (entities - 1) * (8 * width + 8 * width * labels)  # sum and ReLU; folded scores
    return total


def _reachable_positions(length: int, shape: dict[str, Any]) -> int:
    span, furthest = shape["position_buckets"], shape["max_position_embeddings"]
    return Buckets.of_length(length, span, shape["position_buckets"], furthest, torch.device("cpu")).count


def measure_rates(width: int, inner: int, threads: int, *, rows: int = 2048, tries: int = 20) -> dict[str, float]:
    """Operations per second of this machine's fastest matrix product by precision, at the encoder's shapes."""
    torch.set_num_threads(threads)
    rates = {}
    with torch.inference_mode():
        for precision, dtype in zip(PRECISIONS, (torch.float32, torch.bfloat16, torch.int8), strict=True):
            x = torch.randn(rows, width).mul(20).to(dtype)
            weight = torch.randn(inner, width).mul(20).to(dtype)
            multiply = torch._int_mm if precision == "int8" else torch.mm
            kernels: list[Callable[[], Any]] = [partial(multiply, x, weight.T)]
            if precision != "int8" and onednn_pays():
                kernels.append(partial(onednn_linear, x, weight, None, "none"))
            fastest = min(_seconds(kernel) for _ in range(tries) for kernel in kernels)
            rates[precision] = 2 * rows * width * inner / fastest
    return rates


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


# A case


def run_case(name: str, case: Case, folder: Path, texts: Texts, setup: Setup) -> dict[str, Any]:
    """Load the workers, let them take turns, compare what they found; print the table and return its figures."""
    each, turns = case.documents[setup.quick], 2 if setup.quick else case.turns
    warm = max(1, each // 8)
    shape = ENCODERS[case.encoder]
    documents = texts.documents(case, warm + each * turns)
    content = {
        "labels": LABELS[: 30 if case.kind == "documents" else 10],
        "threshold": case.threshold,
        "top_k": case.top_k,
        "entry": case.entry,
        "documents": documents,
    }
    path = setup.folder / f"{name}.json"
    path.write_text(json.dumps(content), "utf8")
    rates = [measure_rates(shape["hidden_size"], shape["intermediate_size"], setup.threads)]
    operations = count_operations(content, documents[warm:], folder, shape)
    workers = start_workers(setup, warm, {"work": str(path), "checkpoint": str(folder), "threads": setup.threads})
    try:
        for turn in range(turns):
            span = {"first": warm + turn * each, "last": warm + (turn + 1) * each}
            for worker in workers[:: -1 if turn % 2 else 1]:
                worker.seconds.append(worker.ask(op="run", **span, output=None)["seconds"])
        for worker in workers:
            worker.peak = worker.ask(op="peak")["peak"]
        found = {worker.name: _found(worker, setup.folder, warm, warm + each) for worker in workers}
    finally:
        for worker in workers:
            worker.close()
    rates.append(measure_rates(shape["hidden_size"], shape["intermediate_size"], setup.threads))  # busy once, perhaps
    best = {precision: max(rate[precision] for rate in rates) for precision in PRECISIONS}
    rows = [_row(worker, workers, each, found, case) for worker in workers]
    result = {
        "case": name,
        "documents": each,
        "turns": turns,
        "pieces": operations.pieces / (each * turns),
        "relations": len(next(iter(found.values()))) / each,
        "gflop": (operations.linear + operations.other) / (each * turns) / 1e9,
        "rates": best,
        "floor": {p: each * turns / operations.seconds(p, best) for p in PRECISIONS},
        "rows": rows,
    }
    print_case(result, case)
    return result


Found = dict[tuple[Any, ...], float]


def _found(worker: Worker, folder: Path, first: int, last: int) -> Found:
    """Scores by (document, head, tail, label) of some documents."""
    path = folder / "found.json"
    worker.ask(op="run", first=first, last=last, output=str(path))
    relations = json.loads(path.read_text("utf8"))
    return {(index, *entry[:-1]): entry[-1] for index, entries in enumerate(relations) for entry in entries}


def _row(worker: Worker, workers: Sequence[Worker], each: int, found: dict[str, Found], case: Case) -> dict[str, Any]:
    speeds = [each / seconds for seconds in worker.seconds]
    row: dict[str, Any] = {"name": worker.name, "speed": spread(speeds), "peak": worker.peak}
    reference = next((other for other in workers if other.name == "reference"), None)
    if reference is not None and worker is not reference:
        row["ratio"] = spread([t / o for t, o in zip(reference.seconds, worker.seconds, strict=True)])
        row["agreement"] = agreement(found["reference"], found[worker.name], case.threshold)
    return row


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and most."""
    return median(values), min(values), max(values)


def agreement(theirs: Found, ours: Found, threshold: float) -> dict[str, float]:
    """How many relations both found, the greatest difference of their scores, and how many only one found.

    The relations that only one found, but within 1e-5 of the threshold, do not count.
    """
    common = theirs.keys() & ours.keys()
    alone = [score for a, b in ((theirs, ours), (ours, theirs)) for key, score in a.items() if key not in b]
    return {
        "compared": len(common),
        "difference": max((abs(theirs[key] - ours[key]) for key in common), default=0.0),
        "alone": sum(abs(score - threshold) > 1e-5 for score in alone),
    }


def print_case(result: dict[str, Any], case: Case) -> None:
    """The table of a case."""
    unit = "sentences/s" if case.kind == "sentences" else "documents/s"
    called = "nlp.pipe" if case.entry == "pipe" else "predict_relations of the reference, nlp.pipe of ours"
    kept = "all labels" if case.top_k is None else f"top {case.top_k}"
    print(
        f"\n{result['case']}: {result['turns']} turns of {result['documents']} {case.kind} of {result['pieces']:.0f} "
        f"pieces (labels included), {case.encoder} shape\n"
        f"{called}; threshold {case.threshold}, {kept}: {result['relations']:.1f} relations each\n"
        f"{'':24} {unit:>11} {'min':>8} {'max':>8} {'ratio':>6} {'min':>6} {'max':>6} {'peak MB':>8} "
        f"{'of floor':>9} {'score diff':>10} {'compared':>9} {'alone':>6}"
    )
    for row in result["rows"]:
        middle, least, most = row["speed"]
        line = f"{row['name']:24} {middle:11.3f} {least:8.3f} {most:8.3f} "
        line += "{:6.2f} {:6.2f} {:6.2f} ".format(*row["ratio"]) if "ratio" in row else " " * 21
        floor = result["floor"].get(row["name"], result["floor"]["float32"])
        line += f"{row['peak'] / MB:8.0f} {100 * middle / floor:7.0f} % "
        if "agreement" in row:
            line += "{difference:10.1e} {compared:9} {alone:6}".format(**row["agreement"])
        print(line)
    for precision, speed in result["floor"].items():
        print(f"{'floor ' + precision:24} {speed:11.3f}   at {result['rates'][precision] / 1e9:.0f} G operations/s")
    print(f"{result['gflop']:.1f} G operations each")
    print_verdict(result, case)


def print_verdict(result: dict[str, Any], case: Case) -> None:
    """What was wanted and whether it was reached."""
    rows = {row["name"]: row for row in result["rows"]}
    exact = rows.get("float32", {})
    if "ratio" not in exact:
        return
    rounded = [rows[name]["ratio"][0] for name in ("bfloat16", "int8") if name in rows]
    checks = [("float32", exact["ratio"][0], case.wanted[0])]
    if case.kind == "sentences" and rounded:
        checks.append(("bfloat16 or int8", max(rounded), case.wanted[1]))
    for name, ratio, wanted in checks:
        print(f"{name}: {ratio:.2f}x, wanted {wanted}x: {'reached' if ratio >= wanted else 'MISSED'}")
    memory = exact["peak"] / rows["reference"]["peak"]
    print(f"peak memory at float32: {memory:.2f} of the reference's: {'reached' if memory <= 1 else 'MISSED'}")


def profile_case(case: Case, folder: Path, texts: Texts, threads: int, precision: str, count: int) -> None:
    """Print where the time of our component goes, by own time."""
    import cProfile
    import pstats

    documents = texts.documents(case, 2 * count)
    content = {"labels": LABELS[: 30 if case.kind == "documents" else 10], "threshold": case.threshold,
               "top_k": case.top_k, "checkpoint": str(folder), "precision": precision, "threads": threads}  # fmt: skip
    vocab, entry = load_ours(content)
    profiler = cProfile.Profile()
    for part in (documents[:count], documents[count:]):
        docs = list(reference_glirel.make_docs(vocab, part))
        profiler = cProfile.Profile()
        profiler.enable()
        for _ in entry(docs, content):
            pass
        profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


# The cost of rounded weights


def print_precision(model: str, data: Path) -> None:
    """Macro F1 of the best label of gold pairs, in each precision, among all labels and in draws of 15."""
    import spacy

    from benchmarks.zero_shot import DRAWS, labels_of, read, score_pairs

    print(f"\nmacro F1 of {model} on {data.name}: among all labels, in draws of 15, and the greater cost of the two")
    print(f"{'':10} {'all':>6} {'draws':>6} {'cost':>6}")
    exact: tuple[float, float] | None = None
    for precision in PRECISIONS:
        if (Path(model) / "meta.json").exists():
            nlp = spacy.load(model, config={"components.glirel.model.precision": precision})
        else:
            nlp = spacy.blank("en")
            nlp.add_pipe("glirel", config={"model": {"checkpoint": model, "precision": precision}})
        references = read(nlp, data)
        labels = labels_of(references)
        size = min(15, len(labels))
        draws = [sorted(random.Random(100 * size + draw).sample(labels, size)) for draw in range(DRAWS)]
        overall, *drawn = (score_pairs(nlp, references, offered).macro(0.0)[2] for offered in [labels, *draws])
        figures = overall, sum(drawn) / DRAWS
        exact = exact or figures
        cost = max(before - after for before, after in zip(exact, figures, strict=True))
        print(f"{precision:10} {figures[0]:6.2f} {figures[1]:6.2f} {cost:+6.2f}", flush=True)


def main(
    reference_python: str = typer.Option("", help="An interpreter that has the package glirel."),
    quick: bool = typer.Option(False, help="Few documents and turns: shows that it runs, not how fast."),
    case: list[str] = typer.Option([], help=f"One of {', '.join(CASES)}; all by default."),
    precision: list[str] = typer.Option(list(PRECISIONS), help="Precisions of ours."),
    setting: list[str] = typer.Option([], help="NAME=VALUE ...: also time ours with this environment."),
    threads: int = typer.Option(2, help="Threads of each process."),
    fewrel: Path = typer.Option(data_folder() / "fewrel", help="Folder of FewRel's JSON files."),
    work_folder: Path | None = typer.Option(None, help="Keep the checkpoints here between runs."),
    profile: bool = typer.Option(False, help="Instead: where the time of ours goes in these cases."),
    precision_model: str = typer.Option("", help="A trained pipeline or checkpoint, for the cost of precision."),
    precision_data: Path | None = typer.Option(None, help="Documents with one gold relation each (DocBin)."),
    output: Path | None = typer.Option(None, help="JSON file for all figures."),
) -> None:
    """Print speed, memory, agreement and floor of each case."""
    unknown = [name for name in case if name not in CASES]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r}; expected one of {', '.join(CASES)}.", param_hint="--case")
    if precision_data is not None:
        print_precision(precision_model or "glirel-mini", precision_data)
        return
    texts = Texts(fewrel_sentences(fewrel))
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        setup = Setup(Path(temporary), reference_python or None, precision, setting, threads, quick)
        print(f"{'FewRel' if texts.fewrel else 'made'} sentences, made documents, {threads} threads", flush=True)
        for name in case or CASES:
            folder = (work_folder or Path(temporary)).resolve() / CASES[name].encoder
            if not (folder / "glirel_config.json").exists():
                make_checkpoint(folder, ENCODERS[CASES[name].encoder], texts)
            if profile:
                count = CASES[name].documents[quick]
                profile_case(CASES[name], folder, texts, threads, precision[0], count)
            else:
                results.append(run_case(name, CASES[name], folder, texts, setup))
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(results, indent=2) + "\n", "utf8")


if __name__ == "__main__":
    typer.run(main)
