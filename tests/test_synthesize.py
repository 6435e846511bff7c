"""``spacy-ie-moe synthesize``: from a language model's answers to documents that ``glirel`` learns from."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab
from thinc.api import Adam
from torch.nn.utils.rnn import pad_sequence
from typer.testing import CliRunner

from spacy_ie_moe.cli import app
from spacy_ie_moe.corpora.reader import create_relation_corpus, make_example, read_docs
from spacy_ie_moe.files import locked
from spacy_ie_moe.relations import make_relation
from spacy_ie_moe.synthesis.answers import Answer, write_answer
from spacy_ie_moe.synthesis.labels import NO_RELATION
from spacy_ie_moe.synthesis.pairs import Limits, split_pairs
from spacy_ie_moe.synthesis.prompt import make_request
from spacy_ie_moe.synthesis.run import SynthesisReport, label_pairs
from spacy_ie_moe.synthesis.sources import read_json_lines
from spacy_ie_moe.uc_uie.compact import new_compact, train_tokenizer

from .conftest import make_doc
from .test_glirel_training import make_trainable, prepare
from .uie import save_tiny_llama

RECORDS = [
    {
        "tokenized_text": ["alice", "founded", "acme", "in", "paris"],
        "ner": [[0, 0, "PER", "alice"], [2, 2, "ORG", "acme"], [4, 4, "LOC", "paris"]],
    },
    {"tokenized_text": ["carol", "lives"], "ner": [[0, 0, "PER", "carol"]]},
    {"tokenized_text": ["bob", "works", "for", "globex"], "ner": [[0, 0, "PER", "bob"], [3, 3, "ORG", "globex"]]},
    {"tokenized_text": [], "ner": []},
    {"tokenized_text": ["Zoë", "🦊", "wrote", "東京"], "ner": [[0, 1, "PER", "Zoë 🦊"], [3, 3, "WORK", "東京"]]},
    {"tokenized_text": ["rome"], "ner": []},
]
ANSWERS = [
    "1. Founded\n2. founded_by\n3. NO_RELATION\n4. none",
    "Sure!\n1. based in\n7. part of",
    "1. Works-For\n2. employs",
    "1. wrote\n2. written by\n2. book of",
]
"""To the prompts about RECORDS, four pairs at most in each."""

OPTIONS = ("--max-pairs", 4, "--max-tokens", 48)
RESULTS = ("relations.jsonl", "relations.spacy")


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf8")
    return path


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["synthesize", *map(str, arguments)])


def results(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in RESULTS]


def written(folder: Path) -> list[Any]:
    """All answers, whatever the batches."""
    _, *batches = map(json.loads, (folder / "answers.jsonl").read_bytes().splitlines())
    return [answer for batch in batches for answer in batch["answers"]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("data") / "in.jsonl", RECORDS)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A small model that knows ANSWERS by heart."""
    passages = list(read_json_lines(data, Vocab(), SynthesisReport().conversion))
    requests = [
        make_request(passage.builder.doc, passage.candidates, part)
        for passage in passages
        for part in split_pairs(passage.candidates, len(passage.builder.doc), Limits(max_pairs=4))[0]
    ]
    tokenizer = train_tokenizer([*requests, *ANSWERS], 700)
    torch.manual_seed(0)
    model = new_compact(tokenizer)
    rows, golds = [], []
    for request, answer in zip(requests, ANSWERS, strict=True):
        asked, said = tokenizer(request)["input_ids"], tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id]
        rows.append(torch.tensor(asked + said))
        golds.append(torch.tensor([-100] * len(asked) + said))
    ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
    gold = pad_sequence(golds, batch_first=True, padding_value=-100)
    mask = ids.ne(tokenizer.pad_token_id).long()
    optimizer = torch.optim.Adam(model.parameters(), 0.006)
    loss = torch.tensor(math.inf)
    for _ in range(200):
        loss = model(input_ids=ids, attention_mask=mask, labels=gold).loss
        if loss < 0.01:
            break
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.01
    folder = tmp_path_factory.mktemp("taught") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def random_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("lm") / "base", spread=0.3)


def relation(head: list[Any], tail: list[Any], label: str) -> dict[str, Any]:
    (start, end, kind, text), (tail_start, tail_end, tail_kind, tail_text) = head, tail
    return {
        "head": {"mention": text, "position": [start, end], "type": kind},
        "tail": {"mention": tail_text, "position": [tail_start, tail_end], "type": tail_kind},
        "relation_text": label,
    }


def test_what_the_model_writes_goes_all_the_way(
    taught: Path, data: Path, tmp_path: Path, encoder_folders: dict[str, Path]
) -> None:
    (tmp_path / "benchmark.txt").write_text("works for\nno_relation\n")
    result = run(taught, data, tmp_path / "out", *OPTIONS, "--exclude-labels", tmp_path / "benchmark.txt")
    assert result.exit_code == 0, result.output

    records = [json.loads(line) for line in (tmp_path / "out" / "relations.jsonl").read_bytes().splitlines()]
    assert [{key: record[key] for key in ("tokenized_text", "ner")} for record in records] == [
        record for record in RECORDS if record["tokenized_text"]
    ]
    alice, acme, paris = RECORDS[0]["ner"]
    bob, globex = RECORDS[2]["ner"]
    zoe, tokyo = RECORDS[4]["ner"]
    assert [record["relations"] for record in records] == [
        [
            relation(alice, acme, "founded"),
            relation(alice, paris, NO_RELATION),
            relation(acme, alice, "founded by"),
            relation(acme, paris, "based in"),
            relation(paris, alice, NO_RELATION),
        ],
        [],
        [relation(globex, bob, "employs")],
        [relation(zoe, tokyo, "wrote"), relation(tokyo, zoe, "written by")],
        [],
    ]

    docs = list(read_docs(tmp_path / "out" / "relations.spacy", Vocab()))
    assert [[token.text for token in doc] for doc in docs] == [record["tokenized_text"] for record in records]
    assert [doc.user_data["source"] for doc in docs] == ["0", "1", "2", "4", "5"]
    assert [(ent.start, ent.end, ent.label_) for ent in docs[3].ents] == [(0, 2, "PER"), (3, 4, "WORK")]
    assert [[span.label_ for span in doc.spans["entities"]] for doc in docs[:2]] == [["PER", "ORG", "LOC"], ["PER"]]
    assert docs[0]._.relations == [
        make_relation(docs[0].ents[head], docs[0].ents[tail], label)
        for head, tail, label in [(0, 1, "founded"), (1, 0, "founded by"), (1, 2, "based in")]
    ]
    # the pair without an answer, and the one whose label is left out, are neither related nor unrelated
    assert [doc.user_data["ignored_pairs"] for doc in docs] == [[[4, 5, 2, 3]], [], [[0, 1, 3, 4]], [], []]

    report = json.loads((tmp_path / "out" / "report.json").read_text("utf8"))
    assert report["settings"]["MODEL"] == str(taught) and report.pop("seconds") >= 0 and report.pop("settings")
    assert report == {
        "documents": 5,
        "entities": 8,
        "prompts": 4,
        "pairs": 10,
        "labelled_pairs": 8,
        "no_relation": 2,
        "left_out": {
            "documents": {"no tokens": 1},
            "entities": {},
            "lines": {"no pair number": 1, "repeated pair": 1, "unknown pair": 1},
            "pairs": {"excluded label": 1, "no usable answer": 1},
            "labels": {"works-for": 1},
        },
        "labels": {label: 1 for label in ("based in", "employs", "founded", "founded by", "written by", "wrote")},
    }
    rows = dict(line.rsplit(maxsplit=1) for line in result.stdout.splitlines())
    assert (rows["ordered pairs"], rows["  NO RELATION"], rows["  left out: unknown pair"]) == ("10", "25.0%", "1")
    assert (rows["answers of an earlier run"], rows["relation labels"]) == ("0", "6")

    nlp = make_trainable("anchored", encoder_folders["bert"])
    examples = list(create_relation_corpus(tmp_path / "out")(nlp))
    nlp.initialize(lambda: examples)
    assert set(nlp.get_pipe("glirel").labels) == report["labels"].keys()
    assert 0 < nlp.update(examples, sgd=Adam(0.001))["glirel"] < math.inf
    (shown,) = prepare(nlp, [examples[0].reference], [])
    assert {key[:4]: target for key, target in shown.items() if key[4] == "founded"} == {
        (0, 1, 2, 3): 1,
        (0, 1, 4, 5): 0,
        (2, 3, 0, 1): 0,
        (2, 3, 4, 5): 0,
        (4, 5, 0, 1): 0,
        (4, 5, 2, 3): -1,
    }


def test_labels_can_be_left_out_later_without_the_model(taught: Path, data: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.symlink_to(taught)
    out = tmp_path / "out"
    assert run(model, data, out, *OPTIONS).exit_code == 0
    model.unlink()
    first = json.loads((out / "report.json").read_text())
    assert first["left_out"]["labels"] == {} and first["labelled_pairs"] == 9
    (tmp_path / "labels.json").write_text('{"Founded By": {}, "EMPLOYS": {}}')
    benchmark = make_doc(Vocab(), "a b", [(0, 1, "X"), (1, 2, "X")])
    benchmark._.relations = [make_relation(*benchmark.ents, "based_in")]
    DocBin(docs=[benchmark], store_user_data=True).to_disk(tmp_path / "labels.spacy")
    excluded = [part for name in ("labels.json", "labels.spacy") for part in ("--exclude-labels", tmp_path / name)]
    result = run(model, data, out, *OPTIONS, "--keep-case", *excluded)
    assert result.exit_code == 0, result.output
    second = json.loads((out / "report.json").read_text())
    assert second["left_out"]["labels"] == {"based in": 1, "employs": 1, "founded by": 1}
    assert second["labels"] == {label: 1 for label in ("Founded", "Works-For", "written by", "wrote")}
    assert "answers of an earlier run" in result.stdout and result.stdout.split()[-3] == "4"


# --- interrupted runs -----------------------------------------------------------------------------------------


def test_a_cut_off_run_and_other_batches_give_the_same(random_llama: Path, data: Path, tmp_path: Path) -> None:
    options = ("--max-pairs", 1, "--max-tokens", 12, "--temperature", 1.0)
    whole = tmp_path / "whole"
    assert run(random_llama, data, whole, *options, "--batch-size", 3).exit_code == 0
    answers = (whole / "answers.jsonl").read_bytes()
    assert len(answers.splitlines()) == 1 + 4  # settings, and ten prompts in batches of three
    for size in (0, 40, len(answers) // 2, len(answers) - 1):
        out = tmp_path / str(size)
        out.mkdir()
        (out / "answers.jsonl").write_bytes(answers[:size])
        result = run(random_llama, data, out, *options, "--batch-size", 3)
        assert result.exit_code == 0, result.output
        assert (out / "answers.jsonl").read_bytes() == answers and results(out) == results(whole)
    alone = tmp_path / "alone"
    assert run(random_llama, data, alone, *options, "--batch-size", 1).exit_code == 0
    assert results(alone) == results(whole) and written(alone) == written(whole)
    report = json.loads((whole / "report.json").read_text())
    assert report["pairs"] == report["prompts"] == 10
    assert report["labelled_pairs"] + sum(report["left_out"]["pairs"].values()) == 10
    assert sum(report["left_out"]["lines"].values()) > 0
    for doc in read_docs(whole / "relations.spacy", Vocab()):
        assert len(doc.user_data["ignored_pairs"]) <= len(doc.ents) * (len(doc.ents) - 1)


def test_a_killed_run_goes_on(random_llama: Path, tmp_path: Path) -> None:
    data = write_records(tmp_path / "in.jsonl", RECORDS * 8)
    options = ("--max-tokens", 12, "--batch-size", 2)
    out, kept = tmp_path / "out", tmp_path / "out" / "answers.jsonl"
    arguments = [str(part) for part in (random_llama, data, out, *options)]
    with subprocess.Popen([sys.executable, "-m", "spacy_ie_moe", "synthesize", *arguments]) as process:
        while process.poll() is None and not (kept.exists() and kept.read_bytes().count(b"\n") > 3):
            time.sleep(0.01)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    before = kept.read_bytes()
    assert not (out / "relations.jsonl").exists() and before.count(b"\n") < 13
    assert run(*arguments).exit_code == 0
    assert kept.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    whole = tmp_path / "whole"
    assert run(random_llama, data, whole, *options).exit_code == 0
    assert kept.read_bytes() == (whole / "answers.jsonl").read_bytes() and results(out) == results(whole)


def test_an_interrupt_is_no_error(taught: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.OPTForCausalLM.generate", interrupt)
    result = run(taught, data, tmp_path / "out", *OPTIONS)
    assert result.exit_code == 130 and result.stderr == "Interrupted; the same command goes on.\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


# --- inputs ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nlp = spacy.blank("en")
    ruler: Any = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PER", "pattern": "bob"}, {"label": "ORG", "pattern": "globex"}])
    folder = tmp_path_factory.mktemp("ner") / "pipeline"
    nlp.to_disk(folder)
    return folder


@pytest.mark.parametrize("kind", ["txt", "jsonl", "spacy", "entities", "group"])
def test_whatever_the_input_the_same_is_asked(taught: Path, ner: Path, tmp_path: Path, kind: str) -> None:
    text = "bob works for globex"
    data = tmp_path / f"in.{kind}"
    options: list[object] = ["--ner", ner]
    if kind == "txt":
        data.write_text(f"{text}\n\nbob\n")
    elif kind == "jsonl":
        data.write_text(json.dumps({"text": text}) + "\n" + json.dumps({"text": "bob"}) + "\nno JSON\n")
    else:
        data = data.with_suffix(".spacy")
        entities = [(0, 1, "PER"), (3, 4, "ORG")] if kind != "spacy" else []
        docs = [make_doc(Vocab(), text, entities), make_doc(Vocab(), "bob", entities[:1])]
        if kind == "group":
            for doc in docs:
                doc.spans["mine"], doc.ents = list(doc.ents), []
        DocBin(docs=docs, store_user_data=True).to_disk(data)
        options = {"spacy": options, "entities": [], "group": ["--spans-key", "mine"]}[kind]
    result = run(taught, data, tmp_path / "out", *OPTIONS, *options)
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["documents"], report["labels"]) == (2, {"employs": 1, "works-for": 1})
    assert report["left_out"]["documents"] == ({"unreadable or not processed": 1} if kind == "jsonl" else {})
    docs = list(read_docs(tmp_path / "out" / "relations.spacy", Vocab()))
    assert [doc.text.strip() for doc in docs] == [text, "bob"]


def huge(words: int, every: int) -> dict[str, Any]:
    return {
        "tokenized_text": [f"w{index % 97}" for index in range(words)],
        "ner": [[index, index, "X", ""] for index in range(0, words, every)],
    }


def test_a_huge_document_is_asked_in_parts(tmp_path: Path) -> None:
    data = write_records(tmp_path / "in.jsonl", [huge(3000, 10), RECORDS[2]])
    seen: list[str] = []

    def answer(requests: Iterable[str]) -> Iterator[Answer]:
        for request in requests:
            seen.append(request)
            asked = request.rpartition("\nPairs:\n")[2].count("\n")
            yield Answer(write_answer(NO_RELATION if number % 2 else "next to" for number in range(asked)))

    report = SynthesisReport()
    passages = read_json_lines(data, Vocab(), report.conversion)
    limits = Limits(window=200, max_pairs=50, max_distance=100)
    made = list(label_pairs(passages, answer, limits=limits, exclude=(), keep_case=False, report=report))
    near = 2 * sum(min(10, 299 - index) for index in range(300))
    assert report.pairs.left_out == {"too far apart": 300 * 299 - near}
    assert report.pairs.converted == near + 2 and report.no_relation == near // 2 + 1
    assert report.prompts == len(seen) and max(map(len, seen)) < 5000
    (doc, record), (last, _) = made
    assert len(doc._.relations) == near // 2 and len(record["relations"]) == near
    assert doc.user_data["ignored_pairs"] == [] and doc.user_data["pair_limits"] == [200, 100]
    assert "pair_limits" not in last.user_data
    assert last._.relations[0]["label"] == "next to" and isinstance(last, Doc)


def test_nothing_to_ask_is_said_and_needs_no_model(tmp_path: Path) -> None:
    data = write_records(tmp_path / "in.jsonl", [RECORDS[1], RECORDS[5]])
    result = run("no-model", data, tmp_path / "out")
    assert result.exit_code == 0
    assert result.stderr == "Warning: no document has two entities to ask about: none has two.\n"
    assert not (tmp_path / "out" / "answers.jsonl").exists()
    assert [len(doc.ents) for doc in read_docs(tmp_path / "out" / "relations.spacy", Vocab())] == [1, 0]
    data = write_records(tmp_path / "far.jsonl", [RECORDS[0]])
    result = run("no-model", data, tmp_path / "far", "--max-distance", "0", "--keep-case")
    assert "further apart than --max-distance" in result.stderr
    settings = json.loads((tmp_path / "far" / "report.json").read_text("utf8"))["settings"]
    assert (settings["--keep-case"], settings["--exclude-labels"]) == (True, [])


def test_pairs_too_far_apart_teach_nothing(encoder_folders: dict[str, Path]) -> None:
    nlp = make_trainable("anchored", encoder_folders["bert"])
    doc = make_doc(nlp.vocab, "a b c d", [(0, 1, "X"), (1, 2, "X"), (3, 4, "X")])
    doc._.relations = [make_relation(doc.ents[0], doc.ents[1], "next to")]
    nlp.initialize(lambda: [make_example(doc, gold_ents=True)])
    shown = {}
    for limits in (None, [4, 2], [3, None]):
        doc.user_data["pair_limits"] = limits
        (shown[str(limits)],) = prepare(nlp, [doc], [])
    every = {key[:4]: target for key, target in shown["None"].items()}
    assert every[0, 1, 3, 4] == every[3, 4, 0, 1] == 0
    beyond = {**every, (0, 1, 3, 4): -1, (3, 4, 0, 1): -1}
    assert [{key[:4]: target for key, target in found.items()} for found in shown.values()] == [every, beyond, beyond]


def test_a_place_of_two_types_is_one_entity(tmp_path: Path) -> None:
    ner = [[0, 0, "PER", "bob"], [0, 0, "BOSS", "bob"], [3, 3, "ORG", "globex"]]
    data = write_records(tmp_path / "in.jsonl", [{**RECORDS[2], "ner": ner}])
    report = SynthesisReport()
    passages = read_json_lines(data, Vocab(), report.conversion)
    given = lambda requests: (Answer("1. works for\n2. employs", finished=False) for _ in requests)  # noqa: E731
    ((doc, record),) = label_pairs(passages, given, limits=Limits(), exclude=(), keep_case=False, report=report)
    assert record["ner"] == [ner[0], ner[2]] and len(doc.spans["entities"]) == 3
    assert [each["label"] for each in doc._.relations] == ["works for"]
    assert report.lines.left_out == {"cut off": 1} and report.pairs.left_out == {"no usable answer": 1}


def test_two_runs_do_not_share_a_folder(taught: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with locked(out):
        result = run(taught, data, out, *OPTIONS)
    assert result.exit_code == 1
    assert result.stderr == (f"Error: another run writes to {out} now; expected it to end first, or another folder.\n")
    for name in (".relations.spacy.1.tmp", ".report.json.1.tmp", "mine.tmp"):
        (out / name).touch()
    assert run(taught, data, out, *OPTIONS).exit_code == 0
    assert {path.name for path in out.iterdir()} == {*RESULTS, "report.json", "answers.jsonl", "mine.tmp"}


def test_errors_are_one_sentence(taught: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "text.txt").write_text("bob works\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bad.json").write_text('{"founder": 7}')
    (tmp_path / "bad.spacy").write_text("no DocBin")
    write_records(tmp_path / "empty.jsonl", [RECORDS[3]])
    out = tmp_path / "out"
    assert run(taught, data, tmp_path / "begun", *OPTIONS).exit_code == 0
    before = results(tmp_path / "begun")
    cases: list[tuple[tuple[object, ...], str]] = [
        ((tmp_path / "bare", data, out), "cannot be loaded as a causal language model"),
        ((taught, data, out, "--device", "abacus"), "cannot be loaded as a causal language model"),
        ((taught, tmp_path / "no.jsonl", out), "no.jsonl', which is no file"),
        ((taught, tmp_path / "bad.json", out), "expected a file that ends in .jsonl or .spacy."),
        ((taught, tmp_path / "text.txt", out), "(.txt has no entities: give --ner)"),
        ((taught, tmp_path / "bad.spacy", out), "is not a .spacy file"),
        ((taught, tmp_path / "empty.jsonl", out), "gave no documents (no tokens: 1); expected at least one"),
        ((taught, tmp_path / "text.txt", out, "--ner", "none"), "--ner is 'none', which cannot be loaded"),
        ((taught, data, tmp_path / "text.txt"), "text.txt', which is a file; expected a folder"),
        ((taught, data, out, "--spans-key", "x"), "expected it for spaCy documents only"),
        ((taught, data, out, "--exclude-labels", tmp_path / "empty.txt"), "empty.txt has no label"),
        ((taught, data, out, "--exclude-labels", tmp_path / "bad.json"), "--exclude-labels"),
        ((taught, data, out, "--exclude-labels", tmp_path / "bad.spacy"), "--exclude-labels"),
        ((taught, data, out, "--exclude-labels", tmp_path / "no.txt"), "cannot be read"),
        ((taught, data, tmp_path / "begun", *OPTIONS, "--seed", 5), "--seed is 5, but"),
        ((taught, data, tmp_path / "begun", *OPTIONS, "--window", 3), "--window is 3, but"),
        ((taught, tmp_path / "other.jsonl", tmp_path / "begun", *OPTIONS), "answer 1 in"),
        ((taught, tmp_path / "prefix.jsonl", tmp_path / "begun", *OPTIONS), "has more answers than the input now has"),
    ]
    write_records(tmp_path / "other.jsonl", RECORDS[2:])
    write_records(tmp_path / "prefix.jsonl", RECORDS[:3])
    for arguments, message in cases:
        result = run(*arguments)
        assert result.exit_code == 1, (arguments, result.output)
        assert message in result.stderr and len(result.stderr.splitlines()) == 1, result.stderr
        assert not out.exists() or not list(out.iterdir())
    assert results(tmp_path / "begun") == before
