from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from itertools import pairwise
from threading import Thread
from types import SimpleNamespace

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from typer.testing import CliRunner

from spacy_ie_moe import pipeline
from spacy_ie_moe.cli import app
from spacy_ie_moe.relations import make_relation

EXTRACT = sys.modules["spacy_ie_moe.cli.extract"]
PARIS = {"start": 0, "end": 1, "label": "CITY", "text": "Paris", "start_char": 0, "end_char": 5}


@Language.component("test_neighbours", assigns=["doc._.relations"])
def neighbours(doc: Doc) -> Doc:
    """Relate every entity to the next; per-document labels replace the label."""
    if "explode" in doc.text:
        raise RuntimeError("it exploded\nfor reasons")
    pairs = list(pairwise(doc.ents))
    labels = doc._.relation_labels or ["near"]
    doc._.relations = [make_relation(head, tail, label, 0.875) for label in labels for head, tail in pairs]
    return doc


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "CITY", "pattern": name} for name in ("Paris", "London", "東京")])
    nlp.add_pipe("test_neighbours")
    path = tmp_path_factory.mktemp("model") / "pipeline"
    nlp.to_disk(path)
    return str(path)


@pytest.fixture
def run(model, tmp_path, monkeypatch):
    """Run the command in a folder of its own; give its result."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()

    def run(*args, model=model, **kwargs):
        options = ["--model", model] if model else []
        return runner.invoke(app, ["extract", *options, *map(str, args)], **kwargs)

    return run


def records(result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def texts(result) -> list[str]:
    return [record["text"] for record in records(result)]


def write_jsonl(path, *lines):
    path.write_text("".join(line + "\n" for line in lines), encoding="utf8")


# --- input ------------------------------------------------------------------------------------------------


def test_text_argument_as_jsonl(run):
    result = run("Paris is near London.", "--format", "jsonl")
    assert result.exit_code == 0
    [record] = records(result)
    assert list(record) == ["text", "ents", "relations"]
    assert record["ents"][0] == PARIS
    assert record["relations"] == [
        {
            "head_pos": [0, 1],
            "tail_pos": [3, 4],
            "head_text": ["Paris"],
            "tail_text": ["London"],
            "label": "near",
            "score": 0.875,
            "head_label": "CITY",
            "tail_label": "CITY",
        }
    ]


def test_inputs_keep_their_order(run, tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n  \ntwo\r\n", encoding="utf8")
    write_jsonl(tmp_path / "b.jsonl", '{"text": "three"}', "", '{"text": ""}')
    result = run("zero", "a.txt", "b.jsonl", "-", "-f", "jsonl", input="four\nfive")
    assert texts(result) == ["zero", "one", "two", "three", "", "four", "five"]


def test_whole_files(run, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\n\ntwo\n")
    assert texts(run("a.txt", "-f", "jsonl", "--whole-files")) == ["one\n\ntwo\n"]
    assert texts(run("a.txt", "-f", "jsonl")) == ["one", "two"]


def test_text_with_line_separators_is_one_document(run):
    assert texts(run("-", "-f", "jsonl", input="a\u2028b\x85c\n")) == ["a\u2028b\x85c"]


def test_labels_of_a_line_reach_the_document(run, tmp_path):
    write_jsonl(tmp_path / "a.jsonl", '{"text": "Paris London", "labels": ["x"]}', '{"text": "Paris London"}')
    result = run("a.jsonl", "-f", "jsonl")
    assert [record["relations"][0]["label"] for record in records(result)] == ["x", "near"]


def test_docbin_keeps_entities_and_crosses_blocks(run, tmp_path, monkeypatch):
    monkeypatch.setattr(EXTRACT, "BLOCK", 2)
    nlp = spacy.blank("en")
    docs = [nlp(f"Unheardof{i} visits Paris with rareword{i}") for i in range(7)]
    for doc in docs:
        doc.ents = [Span(doc, 0, 1, label="ALIEN")]
    DocBin(docs=docs).to_disk(tmp_path / "a.spacy")
    result = run("a.spacy", "-f", "jsonl")
    assert result.exit_code == 0
    assert [[ent["label"] for ent in record["ents"]] for record in records(result)] == [["ALIEN", "CITY"]] * 7
    assert texts(result) == [doc.text for doc in docs]


def test_bad_lines_are_named_and_the_rest_continues(run, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(
        b"\n".join(
            [
                b'{"text": "one"}',
                b"{nope",
                b'{"txt": "two"}',
                b"[1]",
                b'{"text": "\\ud800"}',
                b'{"text": "\xff"}',
                b'{"text": "x", "labels": 3}',
                b"[" * 100_000,
                b'{"text": "last"}',
            ]
        )
    )
    result = run("a.jsonl", "-f", "jsonl")
    assert result.exit_code == 1
    assert texts(result) == ["one", "last"]
    errors = result.stderr.splitlines()
    assert [int(error.split("line ")[1].split(":")[0]) for error in errors] == [2, 3, 4, 5, 6, 7, 8]
    assert all(error.startswith("Error: a.jsonl, line ") for error in errors)
    assert 'expected an object with a string "text"' in errors[1]


def test_bad_files(run, tmp_path):
    (tmp_path / "a.spacy").write_bytes(b"no docbin")
    (tmp_path / "a.txt").write_bytes(b"fine\n\xff\n")
    result = run("a.spacy", "a.txt", "-f", "jsonl")
    assert result.exit_code == 1
    assert texts(result) == ["fine"]
    first, second = result.stderr.splitlines()
    assert "a.spacy: can't be read as a .spacy file" in first and "a.txt, line 2: isn't UTF-8" in second


def test_too_long_a_text_is_reported(run, monkeypatch):
    load = spacy.load

    def load_short(name):
        nlp = load(name)
        nlp.max_length = 10
        return nlp

    monkeypatch.setattr(spacy, "load", load_short)
    result = run("-", "-f", "jsonl", input="short\n" + "long " * 10 + "\nshort\n")
    assert (result.exit_code, texts(result)) == (1, ["short", "short"])
    assert "standard input, line 2: " in result.stderr


@pytest.mark.parametrize("n_process", [1, 2])
def test_a_failing_component_loses_only_its_document(run, n_process):
    lines = ["Paris", "explode", "London", "東京 Paris"]
    result = run("-", "-f", "jsonl", "--n-process", n_process, "--batch-size", 2, input="\n".join(lines))
    assert result.exit_code == 1
    assert texts(result) == ["Paris", "London", "東京 Paris"]
    assert "standard input, line 2: no result" in result.stderr
    assert result.stderr == "Error: standard input, line 2: no result, RuntimeError: it exploded\n"


class BrokenPipe:
    """A component that works on documents and not on streams."""

    def __call__(self, doc):
        return doc

    def pipe(self, stream, **kwargs):
        raise RuntimeError("no streams")


def test_a_component_that_fails_before_it_reads(model):
    nlp = spacy.load(model)
    Language.component("test_broken_pipe", func=BrokenPipe())
    nlp.add_pipe("test_broken_pipe")
    items = [EXTRACT.Item(f"line {i}", text) for i, text in enumerate(["Paris", "explode", "London"])]
    problems = EXTRACT.Problems()
    assert [doc.text for doc in EXTRACT.process(nlp, iter(items), problems)] == ["Paris", "London"]
    assert problems.count == 1


def test_results_do_not_depend_on_blocks_batches_and_processes(run, monkeypatch):
    text = "".join(f"Paris word{i} London\n" for i in range(23))
    expected = run("-", "-f", "jsonl", input=text).stdout
    monkeypatch.setattr(EXTRACT, "BLOCK", 5)
    monkeypatch.setattr(EXTRACT, "PARALLEL_BLOCK", 10)
    assert run("-", "-f", "jsonl", "--batch-size", 3, input=text).stdout == expected
    assert run("-", "-f", "jsonl", "--batch-size", 2, "--n-process", 2, input=text).stdout == expected


# --- output -----------------------------------------------------------------------------------------------


def test_table(run):
    result = run("東京 or Paris or London", "no\x1b[31mthing", "-f", "table")
    assert result.stdout.splitlines() == [
        "東京 or Paris or London",
        "  0.88  東京 (CITY)   near  Paris (CITY)",
        "  0.88  Paris (CITY)  near  London (CITY)",
        "",
        "no [31mthing",
        "  no relations",
    ]


def test_table_fits_the_terminal(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    line = run("東京" * 30).stdout.splitlines()[0]
    assert line.endswith("…") and EXTRACT._columns(line) <= 20


def test_spacy_output_round_trips(run, tmp_path):
    assert run("Paris London", "x", "-f", "spacy", "-o", "out.spacy").exit_code == 0
    first, second = DocBin().from_disk(tmp_path / "out.spacy").get_docs(spacy.blank("en").vocab)
    assert [ent.label_ for ent in first.ents] == ["CITY", "CITY"]
    assert first._.relations[0]["label"] == "near" and not second._.relations
    result = run("out.spacy", "-f", "jsonl")
    assert result.exit_code == 0 and len(records(result)) == 2


def test_html_output(run, tmp_path):
    result = run("Paris London", "<b>", "-f", "html", "-o", "out.html")
    assert (result.exit_code, result.stdout) == (0, "")
    source = (tmp_path / "out.html").read_text(encoding="utf8")
    assert source.startswith("<!DOCTYPE html>") and source.endswith("</html>\n")
    assert source.count("<figure") == 2 and source.count("<style>") == 2
    assert "near 0.88" in source and "<b>" not in source


def test_every_document_is_written_at_once(model):
    """A document is out before the next batch is read."""
    nlp = spacy.load(model)
    read = []

    def items():
        for i in range(10):
            read.append(i)
            yield EXTRACT.Item(f"line {i}", "Paris")

    docs = EXTRACT.process(nlp, items(), EXTRACT.Problems(), batch_size=2)
    next(docs)
    assert len(read) <= 4
    docs.close()


@pytest.mark.parametrize("from_docbin", [False, True])
def test_the_vocabulary_does_not_grow(model, monkeypatch, from_docbin):
    monkeypatch.setattr(EXTRACT, "BLOCK", 10)
    nlp = spacy.load(model)

    def items():
        for i in range(50):
            text = f"new{i} words{i} are{i} here{i} Paris London"
            yield EXTRACT.Item(f"line {i}", spacy.blank("en")(text).to_bytes() if from_docbin else text)

    sizes = []
    for i, doc in enumerate(EXTRACT.process(nlp, items(), EXTRACT.Problems(), batch_size=5)):
        assert len(doc._.relations) == 1
        if i % 10 == 9:
            sizes.append(sum(1 for string in nlp.vocab.strings if "new" in string))
    assert sizes[-1] <= sizes[0] <= 20  # one block's words, not all
    assert not any(string.startswith("words") and string[-1].isdigit() for string in nlp.vocab.strings)


# --- options and errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["missing.txt"], "The file missing.txt doesn't exist."),
        (["folder"], "folder is a folder"),
        (["table.csv"], "unknown format; expected .txt, .jsonl, .spacy"),
        (["x", "-f", "spacy"], "needs --output FILE"),
        (["x", "-o", "no/where.txt"], "The folder of --output no/where.txt doesn't exist."),
        (["in.jsonl", "-o", "in.jsonl"], "--output in.jsonl is also an input."),
        (["x", "--labels", "a", "--labels-file", "b"], "expected one of them"),
        (["x", "--labels", " , "], "--labels has no label"),
        (["x", "--labels-file", "none.json"], "--labels-file none.json cannot be read"),
        (["x", "--labels-file", "bad.json"], "expected one of allowed_head"),
        (["x", "--threshold", "0.5"], "need --labels"),
        (["x", "--model", "no_such_model"], "The pipeline 'no_such_model' can't be loaded: "),
    ],
)
def test_usage_errors_are_one_sentence(run, tmp_path, args, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "table.csv").write_text("x")
    (tmp_path / "in.jsonl").write_text('{"text": "keep"}\n')
    (tmp_path / "bad.json").write_text('{"a": {"color": 1}}')
    result = run(*args)
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ") and message in line
    assert (tmp_path / "in.jsonl").read_text() == '{"text": "keep"}\n'


def test_options_out_of_range(run):
    assert run("x", "--threshold", "2").exit_code == 2
    assert run("x", "--batch-size", "0").exit_code == 2


class FakeGlirel(SimpleNamespace):
    labels: tuple = ()

    def set_labels(self, labels):
        self.labels = labels


def test_options_reach_the_glirel_of_a_pipeline(run, monkeypatch, tmp_path):
    glirel = FakeGlirel()
    monkeypatch.setattr(pipeline, "find_glirel", lambda nlp: glirel)
    (tmp_path / "labels.txt").write_text("\ufefffounded by\n\nworks for\n", encoding="utf8")
    result = run("Paris London", "--labels-file", "labels.txt", "--threshold", "0.3", "--top-k", "2")
    assert result.exit_code == 0
    assert vars(glirel) == {"labels": ["founded by", "works for"], "threshold": 0.3, "top_k": 2}
    (tmp_path / "labels.json").write_text('{"a": {"symmetric": true}}', encoding="utf8")
    run("Paris London", "--labels-file", "labels.json")
    assert glirel.labels == {"a": {"symmetric": True}}


def test_texts_without_labels_are_reported(run, monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "find_glirel", lambda nlp: FakeGlirel())
    write_jsonl(tmp_path / "a.jsonl", '{"text": "a", "labels": ["x"]}', '{"text": "b"}')
    result = run("a.jsonl", "-f", "jsonl")
    assert (result.exit_code, texts(result)) == (1, ["a"])
    assert "a.jsonl, line 2: no relation labels; give --labels" in result.stderr


def test_network_that_is_missing_is_one_error(run, monkeypatch):
    class Missing(FakeGlirel):
        @property
        def bundle(self):
            raise FileNotFoundError("no such checkpoint\nor any other")

    monkeypatch.setattr(pipeline, "find_glirel", lambda nlp: Missing())
    result = run("a", "b")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and result.stderr.endswith("can't be loaded: no such checkpoint\n")


def test_labels_add_the_bundled_glirel(run, monkeypatch):
    added = []
    monkeypatch.setattr(pipeline, "add_glirel", lambda nlp, **options: added.append(options))
    run("Paris London", "--labels", "a, b c", "--top-k", "3")
    assert added == [{"labels": ["a", "b c"], "threshold": None, "top_k": 3}]


def test_bundled_pipeline_is_the_default(run, monkeypatch, model):
    given = []

    def bundled(*options):
        given.append(options)
        return spacy.load(model)

    monkeypatch.setattr(pipeline, "bundled_pipeline", bundled)
    assert run("Paris London", "--labels", "a,b", "--threshold", "0.5", model=None).exit_code == 0
    assert given == [(["a", "b"], 0.5, None)]


def test_bundled_pipeline_that_is_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(pipeline, "MODELS", tmp_path)
    with pytest.raises(OSError, match="'ner-mini' isn't installed"):
        pipeline.bundled_pipeline(["a"])


def test_bundled_pipeline_configures_glirel():
    nlp = pipeline.bundled_pipeline({"a.b": {"symmetric": True}}, threshold=0.4, top_k=2)
    component = nlp.get_pipe("glirel")
    assert (component.labels, component.threshold, component.top_k) == (("a.b",), 0.4, 2)
    assert component.default_labels[0].symmetric


def test_note_on_a_pipeline_without_relations(run, tmp_path):
    spacy.blank("en").to_disk(tmp_path / "blank")
    result = run("Paris", model="blank")
    assert result.exit_code == 0 and result.stderr.startswith("Note: ") and "--labels" in result.stderr
    assert run("Paris", "--quiet", model="blank").stderr == ""


def test_progress_only_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    assert not EXTRACT.progress(iter([]), off=False).disable
    assert EXTRACT.progress(iter([]), off=True).disable
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert EXTRACT.progress(iter([]), off=False).disable


# --- as a process -----------------------------------------------------------------------------------------


def start(*args, **kwargs):
    code = "from spacy_ie_moe.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code, "extract", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        **kwargs,
    )


@pytest.fixture(scope="module")
def blank(tmp_path_factory):
    path = tmp_path_factory.mktemp("blank") / "blank"
    spacy.blank("en").to_disk(path)
    return path


def test_process_reads_stdin_as_utf8_in_any_locale(blank):
    process = start("--model", blank, "-f", "jsonl", "-q")
    out, err = process.communicate("東京 é\n".encode())
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out)["text"] == "東京 é" and "東京".encode() in out


def test_process_ends_quietly_with_its_reader(blank):
    process = start("--model", blank, "-f", "jsonl", "-q", "--batch-size", "1")
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(b"first\n" * 2)
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"] == "first"
    process.stdout.close()
    _write(process.stdin, b"more\n" * 200)
    process.stdin = None
    assert (process.stderr.read(), process.wait(60)) == (b"", 141)
    process.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("n_process", [1, 2])
def test_interrupt(blank, n_process):
    process = start("--model", blank, "-f", "jsonl", "-q", "--n-process", n_process, start_new_session=True)
    assert process.stdin and process.stdout and process.stderr
    text = b"word " * 1000 + b"\n"
    Thread(target=_write, args=(process.stdin, text * 400), daemon=True).start()
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all its processes
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == (b"", 130)
    process.stderr.close()


@pytest.mark.parametrize("n_process", [1, 2])
def test_many_documents_into_a_reader_that_stops(blank, n_process):
    process = start("--model", blank, "-f", "jsonl", "-q", "--n-process", n_process)
    assert process.stdin and process.stdout and process.stderr
    Thread(target=_write, args=(process.stdin, (b"word " * 1000 + b"\n") * 400), daemon=True).start()
    process.stdout.readline()
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == (b"", 141)
    process.stderr.close()


def _write(stream, data):
    with suppress(BrokenPipeError), stream:
        stream.write(data)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_one_sentence(run):
    result = run("Paris", "-o", "/dev/full")
    assert (result.exit_code, result.stderr) == (1, "Error: The output can't be written: No space left on device.\n")


def test_nothing_to_read_is_a_usage_error(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    with pytest.raises(EXTRACT.UsageError, match="Give a text, files"):
        EXTRACT._given_or_stdin(None)
