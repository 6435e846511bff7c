"""The steps of the triplet workflows: ``python -m benchmarks.rte_workflow STEP SET [--smoke true]``.

corpus: convert a data set. train: every variant of its study. report: its page. SET: webnlg, nyt, webnlg_sample (to be
learnt by heart) or zero_shot.

smoke: the same on a dozen hand-written sentences, with an encoder of random weights and two of the variants, to see
that all of it runs.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from spacy_ie_moe.cli.convert import ATTRIBUTES, convert
from spacy_ie_moe.corpora.location import find_data
from spacy_ie_moe.corpora.reader import read_docs

from . import study_report
from .overlap import folded, leave_out, texts_in
from .smoke import is_smoke, root
from .study import read_seeds
from .study import study as run_study
from .zero_shot_page import write_page
from .zero_shot_rte import labels_of, triplets_of

STRINGS = {
    "webnlg": {"train": ("train_triples.json", "0:1"), "dev": ("val_triples.json", "0:1")},
    "webnlg_sample": {"train": ("train_triples.json", "0:1")},
    "nyt": {  # whose published training set cannot be had
        "train": ("val_triples.json", "0:0.9"),
        "dev": ("val_triples.json", "0.9:1"),
        "test": ("test_triples.json", "0:1"),
    },
}
"""Files of the sets of string triples, and the part of each."""
TITLES = {
    "webnlg": "WebNLG, tested on {test}",
    "nyt": "NYT, trained on its validation split",
    "webnlg_sample": "200 sentences of WebNLG by heart",
}
SMOKE_TITLE = "A smoke run on a dozen hand-written sentences, whose figures say nothing but that it runs"
SMOKE = {"train": "0:0.6", "dev": "0.6:0.8", "test": "0.8:1"}
"""Parts of the hand-written sentences."""
SAMPLE = 200
SIZES = (5, 10, 15)
"""Unseen relations m of the test sets of FewRel."""
DEV = 5
"""Relations of the dev sets, seen in neither training nor test."""
DEV_SENTENCES = 500
"""Sentences of the dev sets, which choose a checkpoint and a threshold only."""
SMOKE_STEPS = {
    "training.max_steps": 2,
    "training.eval_frequency": 2,
    "training.optimizer.learn_rate.warmup_steps": 1,
    "training.optimizer.learn_rate.total_steps": 2,
}
SMOKE_ENCODER = Path("training/smoke/encoder")


def main(
    step: Annotated[str, typer.Argument(help="corpus, train or report.")],
    name: Annotated[str, typer.Argument(metavar="SET", help="webnlg, nyt, webnlg_sample or zero_shot.")],
    smoke: Annotated[str, typer.Option(help="true: a few sentences, variants and steps only.")] = "false",
    test: Annotated[str | None, typer.Option(help="webnlg: file of the test set; default: val_triples.json.")] = None,
    encoder: Annotated[str, typer.Option(help="Folder or hub id instead of the configs' encoder.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings.")] = "0",
    splits: Annotated[
        str | None, typer.Option(help="zero_shot: draws of unseen relations, comma-separated numbers; default: 0.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="Trainings at a time.")] = 2,
    gpu_id: Annotated[int, typer.Option(help="GPU to train on; -1 for the CPU.")] = -1,
) -> None:
    """Run one step."""
    small = is_smoke(smoke)
    options = {
        "seeds": seeds,
        "encoder": str(SMOKE_ENCODER) if small else encoder or None,
        "jobs": jobs,
        "gpu_id": gpu_id,
    }
    if name not in (*STRINGS, "zero_shot") or step not in ("corpus", "train", "report"):
        raise typer.BadParameter(f"STEP SET is {step!r} {name!r}; expected corpus, train or report, and a set.")
    for option, value, owner in (("--test", test, "webnlg"), ("--splits", splits, "zero_shot")):
        if value is not None and name != owner:
            raise typer.BadParameter(f"{option} is {value!r} for {name}; expected it for {owner} only.")
    try:
        if name == "zero_shot":
            run_zero_shot(step, small, read_seeds(splits or "0", "--splits"), options)
        else:
            run_strings(step, name, small, test or "val_triples.json", options)
    except (OSError, ValueError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


def run_zero_shot(step: str, smoke: bool, splits: Sequence[int], options: dict[str, Any]) -> None:
    """A step of the draws of unseen relations."""
    sizes = ["m2"] if smoke else [*(f"m{size}" for size in SIZES), "wiki"]
    parts = [f"{size}/{split}" for size in sizes for split in splits]
    if step == "corpus":
        convert_zero_shot(parts, smoke)
        return
    drawn = root("corpus", smoke) / "zero_shot_rte"
    parts = [part for part in parts if not part.startswith("wiki/") or (drawn / part).is_dir()]
    if step == "train":
        study = json.loads(Path("assets/studies/zero_shot_rte.json").read_text("utf8"))
        for part in parts:
            train(with_corpora(study, f"zero_shot_rte/{part}", smoke), f"zero_shot_rte/{part}", smoke, options)
    else:
        results = root("results", smoke) / "zero_shot_rte"
        write_page(root("training", smoke) / "zero_shot_rte", parts, results, smoke=smoke)


def run_strings(step: str, name: str, smoke: bool, test: str, options: dict[str, Any]) -> None:
    """A step of a set of string triples."""
    if step == "corpus":
        convert_strings(name, smoke, test)
    elif step == "train":
        study = json.loads(Path(f"assets/studies/{name}.json").read_text("utf8"))
        train(with_corpora(study, name, smoke), name, smoke, options)
    else:
        trainings, results = (root(kind, smoke) / name for kind in ("training", "results"))
        title = SMOKE_TITLE if smoke else TITLES[name].format(test=test)
        study_report.main(trainings, results, title, compare=name != "webnlg_sample")


def with_corpora(study: dict[str, Any], folder: str, smoke: bool) -> dict[str, Any]:
    """A study on the corpora in a folder."""
    corpora = {name: str(root("corpus", smoke) / folder / Path(path).name) for name, path in study["corpora"].items()}
    return {**study, "corpora": corpora}


def convert_strings(name: str, smoke: bool, test: str) -> None:
    """A set of string triples."""
    sample = name == "webnlg_sample"
    folder = root("corpus", smoke) / name
    files = {**({} if sample else {"test": (test, "0:1")}), **STRINGS[name]}
    if not sample and files["test"] == files["dev"]:  # what is reported chooses nothing: a part of training does
        learnt, _ = files["train"]
        files |= {"train": (learnt, "0:0.9"), "dev": (learnt, "0.9:1")}
    for split, (file, part) in files.items():
        output = folder / f"{split}.spacy"
        if smoke:
            part = "0:1" if sample else SMOKE[split]
            convert("string-triples", Path("assets/rte/smoke_triples.json"), output, part=part)
        else:
            source = Path(name.removesuffix("_sample"), "exact", file)
            convert("string-triples", source, output, part=part, limit=SAMPLE if sample else None)
    if not sample:
        train, dev, test_set = (folder / f"{split}.spacy" for split in ("train", "dev", "test"))
        leave_out(texts_in(test_set), dev)
        leave_out(texts_in(dev, test_set), train)


def convert_zero_shot(parts: Sequence[str], smoke: bool) -> None:
    """FewRel with m unseen relations for each m, and Wiki-ZSL, of which there are a few relations."""
    folder = root("corpus", smoke) / "zero_shot_rte"
    source = folder / "all.spacy"
    if smoke:
        convert("zero-rte", Path("assets/rte/smoke_zero_rte.jsonl"), source)
    else:
        names = Path("fewrel/pid2name.json")
        convert("fewrel", Path("fewrel/train_wiki.partial.json"), source, names=names, by_sentence=True)
    docs = list(read_docs(source, Vocab()))
    wiki = [part for part in parts if part.startswith("wiki/")]
    for part in parts:
        if part not in wiki:
            size = int(part.partition("/")[0][1:])
            draw(docs, folder / part, random.Random(part), size=size, dev=1 if smoke else DEV)
    if not wiki:
        return
    try:
        find_data("wiki_zsl")
    except FileNotFoundError as error:
        typer.echo(f"{', '.join(wiki)}: left out, as {error}", err=True)
        return
    convert("zero-rte", Path("wiki_zsl/dev.jsonl"), folder / "wiki.spacy")
    test = list(read_docs(folder / "wiki.spacy", Vocab()))
    for part in wiki:
        draw(docs, folder / part, random.Random(part), size=0, dev=DEV, test=test)


def draw(
    docs: Sequence[Doc], folder: Path, rng: random.Random, *, size: int, dev: int, test: Sequence[Doc] | None = None
) -> None:
    """Write train, dev and test, which have neither relations nor sentences in common.

    A sentence with relations of several goes to test, else to dev, without its other relations (so does RelationPrompt,
    which the papers follow). The documents stay as they are. size: relations of the test set, drawn; or ``test``: its
    documents. dev: relations of the dev set, which is of ``DEV_SENTENCES`` at most.
    """
    docs = rng.sample(docs, len(docs))
    labels = labels_of(docs)
    unseen = {*rng.sample(labels, size)} if test is None else {*labels_of(test)}
    names = {label.casefold() for label in unseen}
    seen = [label for label in labels if label.casefold() not in names]
    of_dev = {*rng.sample(seen, dev)}
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()
    for name, wanted in (("test", unseen), ("dev", of_dev), ("train", {*seen} - of_dev)):
        source = test if test is not None and name == "test" else docs
        chosen = [doc for doc in source if folded(doc) not in taken and wanted.intersection(labels_of([doc]))]
        taken.update(map(folded, chosen))
        found = [doc.copy() for doc in (chosen[:DEV_SENTENCES] if name == "dev" else chosen)]  # other draws need them
        left = sum(only(doc, wanted) for doc in found)
        DocBin(attrs=ATTRIBUTES, docs=found, store_user_data=True).to_disk(folder / f"{name}.spacy")
        several = sum(len(triplets_of(doc)) > 1 for doc in found)
        typer.echo(
            f"{folder}/{name}: {len(found)} sentences, {several} of several triplets, {left} relations left out; "
            f"{len(wanted)} labels"
        )


def only(doc: Doc, labels: set[str]) -> int:
    """Leave all but these relations out of a document; how many they are. Their pairs teach no lack of a relation."""
    kept = [relation for relation in doc._.relations if relation["label"] in labels]
    left = [[*relation["head_pos"], *relation["tail_pos"]] for relation in doc._.relations if relation not in kept]
    doc._.relations = kept
    if left:
        doc.user_data["ignored_pairs"] = sorted([*doc.user_data.get("ignored_pairs", ()), *left])
    return len(left)


def train(study: dict[str, Any], folder: str, smoke: bool, options: dict[str, Any]) -> None:
    """Train the variants of a study, of which a copy is written to the folder of the trainings."""
    if smoke:
        if folder != "webnlg_sample":  # which has every backbone
            first, *_, last = study["variants"]
            study["variants"] = {name: study["variants"][name] for name in (first, last)}
        study["overrides"] = {**study.get("overrides", {}), **SMOKE_STEPS}
        random_encoder(SMOKE_ENCODER, list(read_docs(Path(study["corpora"]["train"]), Vocab())))
    output = root("training", smoke) / folder
    output.mkdir(parents=True, exist_ok=True)
    (output / "study.json").write_text(json.dumps(study, indent=2), "utf8")
    run_study(output / "study.json", output, **options)


def random_encoder(folder: Path, docs: Sequence[Doc]) -> None:
    """A tiny encoder of random weights, whose pieces are those of some documents."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator([doc.text for doc in docs], trainers.WordPieceTrainer(special_tokens=special))
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token"), special, strict=True))
    fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.save_pretrained(str(folder))
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=tokenizer.get_vocab_size(), **sizes)).save_pretrained(str(folder))


if __name__ == "__main__":
    typer.run(main)
