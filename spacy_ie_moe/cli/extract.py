"""``spacy-ie-moe extract``: text in, entities and relations out, as a stream.

Memory stays flat however long the input: documents are read, processed and written one batch after the other,
in blocks of a spaCy memory zone, which frees the strings and lexemes that a block added to the vocabulary.
"""

from __future__ import annotations

import enum
import json
import multiprocessing
import os
import shutil
import signal
import stat
import sys
import threading
import unicodedata
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, NamedTuple, Protocol, TextIO, TypeVar

import typer

from ..files import json_line
from ..labels import LabelsInput, parse_labels
from .label_options import read_labels

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

T = TypeVar("T")

# Documents per memory zone. With several processes a block also starts and ends them, so it is longer.
BLOCK = 1_000
PARALLEL_BLOCK = 20_000
SUFFIXES = (".txt", ".jsonl", ".spacy")


class Format(str, enum.Enum):
    """Output formats."""

    table = "table"
    jsonl = "jsonl"
    spacy = "spacy"
    html = "html"


class UsageError(Exception):
    """The command can't be done as given; the message is one sentence for the user."""


class Item(NamedTuple):
    """A document to process. ``content`` is text or ``Doc.to_bytes``; ``origin`` says where it is from."""

    origin: str
    content: str | bytes
    labels: Any = None


class Problems:
    """Reports what could not be processed, one sentence each, and counts it."""

    def __init__(self) -> None:
        self.count = 0

    def report(self, origin: str, message: str) -> None:
        """Say on stderr what is wrong with ``origin``."""
        self.count += 1
        _say(f"{origin}: {message}")


def extract(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INPUTS]...",
            help='Text, or files: .txt (a document per line), .jsonl (lines with a "text" and, if they have '
            'their own, "labels"), .spacy. "-" is text from standard input.',
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name or folder of a spaCy pipeline.", show_default="the bundled one")
    ] = None,
    labels: Annotated[str | None, typer.Option(help='Relation labels: "founded by, works for".')] = None,
    labels_file: Annotated[
        Path | None, typer.Option(help="Relation labels: a JSON list or dict, or text with one per line.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Leave out relations that score less.")
    ] = None,
    top_k: Annotated[int | None, typer.Option("--top-k", min=1, help="At most so many labels per pair.")] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Output format.")] = Format.table,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Output file.", show_default="standard output"),
    ] = None,
    whole_files: Annotated[bool, typer.Option("--whole-files", help="Read a .txt file as one document.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Documents that are processed together.")] = 32,
    n_process: Annotated[int, typer.Option(min=1, help="Processes that work in parallel.")] = 1,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no hints.")] = False,
) -> None:
    """Extract entities and relations from text.

    Exit codes: 0; 1 where some input could not be processed (the rest is); 2 for usage errors.
    """
    _use_utf8()
    problems = Problems()
    try:
        sources = [_source(given) for given in _given_or_stdin(inputs)]
        _check_output(output, format, sources)
        given_labels = _given_labels(labels, labels_file)
        nlp = _load(model, given_labels, threshold, top_k)
        items = _check_labelled(nlp, read_items(sources, whole_files, problems), problems)
        with _interruptible(n_process):
            _run(nlp, items, problems, format, output, batch_size=batch_size, n_process=n_process, quiet=quiet)
    except UsageError as error:
        _say(str(error))
        raise typer.Exit(2) from None
    except BrokenPipeError:
        _abandon_stdout()
        raise typer.Exit(141) from None  # what a shell reports for a process that SIGPIPE ended
    except OSError as error:
        _say(f"The output can't be written: {error.strerror or error}.")
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if problems.count:
        raise typer.Exit(1)


def _run(
    nlp: Language,
    items: Iterator[Item],
    problems: Problems,
    format: Format,
    output: Path | None,
    *,
    batch_size: int,
    n_process: int,
    quiet: bool,
) -> None:
    """Process all items and write them."""
    n_relations = n_docs = 0
    docs = process(nlp, items, problems, batch_size, n_process)
    with _open_output(output) as stream, closing(docs):
        writer = _WRITERS[format](stream)
        for doc in progress(docs, quiet or (output is None and sys.stdout.isatty())):
            writer.write(doc)
            stream.flush()
            n_docs += 1
            n_relations += len(doc._.relations)
        writer.finish()
        stream.flush()
    if n_docs and not n_relations and not quiet and _finds_no_relations(nlp):
        _say("The pipeline has no component for relations; --labels adds one.", "Note")


def _finds_no_relations(nlp: Language) -> bool:
    return not any("doc._.relations" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names)


@contextmanager
def _interruptible(n_process: int) -> Iterator[None]:
    """Let Ctrl-C end workers and command at once. spaCy would wait for its workers, and they for spaCy."""

    def interrupt(_signal: int, _frame: Any) -> None:
        if multiprocessing.parent_process() is None:  # a forked worker has this handler, too, and ends with us
            for worker in multiprocessing.active_children():
                worker.terminate()
            os._exit(130)  # output is flushed after every document

    if n_process == 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# --- processing -------------------------------------------------------------------------------------------


def process(
    nlp: Language, items: Iterator[Item], problems: Problems, batch_size: int = 32, n_process: int = 1
) -> Generator[Doc, None, None]:
    """Documents in the order of ``items``. A document is valid only until the next one is asked for.

    Every block of documents has a memory zone of its own; what a component could not process is reported.
    """
    for first in items:
        with nlp.memory_zone():
            block = chain([first], islice(items, (BLOCK if n_process == 1 else PARALLEL_BLOCK) - 1))
            yield from _process_block(nlp, block, problems, batch_size, n_process)


def _process_block(
    nlp: Language, block: Iterator[Item], problems: Problems, batch_size: int, n_process: int
) -> Iterator[Doc]:
    """Process a block. An error ends ``nlp.pipe``: what it had read is then tried one by one, the rest piped anew.

    spaCy's own error handlers are no help: its entity recognizer has none, and others lose a batch for a document.
    """
    waiting: dict[int, Item] = {}  # by number, in order: read and not yet written
    numbered: Iterator[tuple[int, Item]] = enumerate(block)

    def feed() -> Iterator[tuple[Doc, int]]:
        while (pair := next(numbered, None)) is not None:  # looked up anew: it is exchanged to stop
            number, waiting[number] = pair
            doc = _to_doc(nlp, waiting[number], problems)
            if doc is None:
                del waiting[number]
            else:
                yield doc, number

    def catch_up(before: int | None) -> Iterator[Doc]:
        for number in [number for number in waiting if before is None or number < before]:
            doc = _process_alone(nlp, waiting.pop(number), problems)
            if doc is not None:
                yield doc

    failed = True
    while failed:
        if n_process > 1:  # an error of a worker isn't raised, which would end all: its documents just don't come
            nlp.default_error_handler = _ignore_error
        pairs = nlp.pipe(feed(), as_tuples=True, batch_size=batch_size, n_process=n_process)
        try:
            with closing(pairs):  # type: ignore[type-var]  # spaCy types the generator as an iterator
                try:
                    for doc, number in pairs:
                        yield from catch_up(number)
                        del waiting[number]
                        yield doc
                except GeneratorExit:
                    if n_process > 1:  # spaCy waits for its workers: take what they have, give them no more
                        numbered = iter(())
                        deque(pairs, maxlen=0)
                    raise
            failed = False
        except Exception:
            # which document it was, and why, is said when it is tried alone
            pair = None if waiting else next(numbered, None)  # go on even if the pipe fails before it reads
            if pair is not None:
                waiting[pair[0]] = pair[1]
            failed = bool(waiting)
        yield from catch_up(None)


def _ignore_error(_name: Any, _component: Any, _docs: Any, _error: Exception) -> None:
    """An error handler of spaCy."""


def _process_alone(nlp: Language, item: Item, problems: Problems) -> Doc | None:
    """The item's document, or ``None`` and a report on why there is none."""
    from spacy.util import raise_error

    nlp.default_error_handler = raise_error
    try:
        doc = _to_doc(nlp, item, problems)
        return None if doc is None else nlp(doc)
    except Exception as error:
        problems.report(item.origin, f"no result, {type(error).__name__}: {_first_line(error)}")
        return None


def _to_doc(nlp: Language, item: Item, problems: Problems) -> Doc | None:
    """The item's document before the first component, in the current memory zone."""
    from spacy.tokens import Doc

    if isinstance(item.content, bytes):
        return Doc(nlp.vocab).from_bytes(item.content)
    try:
        doc = nlp.make_doc(item.content)
    except ValueError as error:  # longer than nlp.max_length
        problems.report(item.origin, str(error).splitlines()[0])
        return None
    if item.labels is not None:
        doc._.relation_labels = item.labels
    return doc


def progress(docs: Iterator[T], off: bool = False) -> Iterable[T]:
    """What comes, with a bar of its number where somebody looks on."""
    from tqdm import tqdm

    # delay: a bar only for work that takes long
    return tqdm(docs, unit=" docs", delay=2, file=sys.stderr, disable=off or not sys.stderr.isatty())


# --- the pipeline -----------------------------------------------------------------------------------------


def _load(model: str | None, labels: Any, threshold: float | None, top_k: int | None) -> Language:
    """The pipeline with the labels and numbers of the command line."""
    from ..pipeline import find_glirel

    try:
        nlp = _build(model, labels, threshold, top_k)
        # a network is loaded when it is first used: do that here, where it is one error and not one per document
        getattr(find_glirel(nlp), "bundle", None)
        return nlp
    except (OSError, ValueError, ImportError) as error:
        # spaCy's messages go on for lines on what to try; the first says what is wrong
        name = "bundled pipeline" if model is None else f"pipeline {model!r}"
        raise UsageError(f"The {name} can't be loaded: {_first_line(error)}") from None


def _build(model: str | None, labels: Any, threshold: float | None, top_k: int | None) -> Language:
    import spacy

    from ..pipeline import add_glirel, bundled_pipeline, find_glirel

    if model is None:
        return bundled_pipeline(labels, threshold, top_k)
    nlp = spacy.load(model)
    told = [pipe for _, pipe in nlp.pipeline if getattr(pipe, "takes_labels", False)]  # gmoe_rte over Re-Cent
    zero_shot = find_glirel(nlp) or next(iter(told), None)
    if zero_shot is not None:
        _set(zero_shot, labels, threshold, top_k)
    elif labels is not None:
        add_glirel(nlp, labels=labels, threshold=threshold, top_k=top_k)
    elif threshold is not None or top_k is not None:
        raise UsageError(f"--threshold and --top-k need --labels: {model!r} has no glirel component.")
    return nlp


def _set(pipe: Any, labels: Any, threshold: float | None, top_k: int | None) -> None:
    if labels is not None:
        pipe.set_labels(labels)
    if threshold is not None:
        pipe.threshold = threshold
    if top_k is not None:
        if getattr(pipe, "takes_labels", False):
            raise UsageError(f"--top-k is {top_k}, which {pipe.name!r} does not have; expected it for glirel only.")
        pipe.top_k = top_k


def _check_labelled(nlp: Language, items: Iterator[Item], problems: Problems) -> Iterator[Item]:
    """Report texts for which a zero-shot model has no labels, instead of finding nothing in them."""
    from ..pipeline import find_glirel

    glirel = find_glirel(nlp)
    lacking = glirel is not None and not glirel.labels
    for item in items:
        if lacking and item.labels is None and isinstance(item.content, str):
            problems.report(item.origin, "no relation labels; give --labels or --labels-file.")
        else:
            yield item


def _given_labels(labels: str | None, file: Path | None) -> LabelsInput | None:
    """The labels of the command line: checked, ``None`` where none are given."""
    try:
        return read_labels(labels, file)
    except ValueError as error:
        raise UsageError(str(error)) from None


# --- input ------------------------------------------------------------------------------------------------


class Source(NamedTuple):
    """An input: ``kind`` is "text" (``path`` is the text), "stdin", or the suffix of the file at ``path``."""

    kind: str
    path: str


def _given_or_stdin(inputs: list[str] | None) -> list[str]:
    if inputs:
        return inputs
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError('Give a text, files, or "-" to read standard input.')
    return ["-"]


def _source(given: str) -> Source:
    """What an argument is. A name that looks like an input file and isn't one is an error, not a text."""
    if given == "-":
        return Source("stdin", given)
    try:
        mode = os.stat(given).st_mode
    except (OSError, ValueError):  # ValueError: a null character
        if Path(given).suffix in SUFFIXES and not any(char.isspace() for char in given):
            raise UsageError(f"The file {given} doesn't exist.") from None
        try:
            given.encode("utf8")
        except UnicodeEncodeError:
            raise UsageError(f"The text {given!r} isn't valid UTF-8.") from None
        return Source("text", given)
    if stat.S_ISDIR(mode):
        raise UsageError(f"{given} is a folder; expected a text or a file ({', '.join(SUFFIXES)}).")
    suffix = Path(given).suffix.lower() if stat.S_ISREG(mode) else ".txt"  # /dev/fd/63 has no suffix
    if suffix not in SUFFIXES:
        raise UsageError(f"The file {given} has an unknown format; expected {', '.join(SUFFIXES)}.")
    return Source(suffix, given)


def read_items(sources: Iterable[Source], whole_files: bool, problems: Problems) -> Iterator[Item]:
    """The documents of all sources, in order. What can't be read is reported and skipped."""
    for number, source in enumerate(sources, 1):
        try:
            if source.kind == "text":
                yield Item(f"argument {number}", source.path)
            elif source.kind == "stdin":
                yield from _read_text(sys.stdin.buffer, "standard input", whole_files, problems)
            elif source.kind == ".spacy":
                yield from _read_docbin(source.path, problems)
            else:
                with open(source.path, "rb") as file:
                    if source.kind == ".jsonl":
                        yield from _read_jsonl(file, source.path, problems)
                    else:
                        yield from _read_text(file, source.path, whole_files, problems)
        except OSError as error:
            problems.report(source.path, f"can't be read: {error.strerror or error}.")


def _lines(file: BinaryIO, name: str, problems: Problems) -> Iterator[tuple[str, str]]:
    """(origin, line without its end) of a UTF-8 file, decoded one by one: a bad line loses only itself."""
    for number, line in enumerate(file, 1):
        origin = f"{name}, line {number}"
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            yield origin, line.decode("utf8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            where = f"{error.reason} at byte {error.start}"
            problems.report(origin, f"isn't UTF-8 ({where}); the line is skipped.")


def _read_text(file: BinaryIO, name: str, whole: bool, problems: Problems) -> Iterator[Item]:
    if not whole:
        yield from (Item(origin, line) for origin, line in _lines(file, name, problems) if line.strip())
        return
    try:
        yield Item(name, file.read().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        problems.report(name, f"isn't UTF-8 ({error.reason} at byte {error.start}).")


def _read_jsonl(file: BinaryIO, name: str, problems: Problems) -> Iterator[Item]:
    for origin, line in _lines(file, name, problems):
        if not line.strip():
            continue
        try:
            yield _parse(origin, line)
        except (ValueError, RecursionError) as error:
            problems.report(origin, f"{_first_line(error).rstrip('.')}; the line is skipped.")


def _parse(origin: str, line: str) -> Item:
    """A line of JSON; a ``ValueError`` says what is wrong with it."""
    record = json.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise ValueError('expected an object with a string "text"')
    try:
        record["text"].encode("utf8")
    except UnicodeEncodeError:
        raise ValueError('"text" has half of a surrogate pair') from None
    labels = record.get("labels")
    if labels is not None:
        parse_labels(labels)
    return Item(origin, record["text"], labels)


def _read_docbin(path: str, problems: Problems) -> Iterator[Item]:
    """Documents of a DocBin, as bytes.

    They have a vocabulary of their own: the pipeline's would have to keep all their strings over all blocks.
    """
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    number = 0
    try:
        for number, doc in enumerate(DocBin().from_disk(path).get_docs(Vocab()), 1):
            yield Item(f"{path}, document {number}", doc.to_bytes())
    except Exception as error:  # what msgpack and zlib raise on a file that is no DocBin is of many types
        problems.report(path, f"can't be read as a .spacy file after document {number}: {_first_line(error)}")


# --- output -----------------------------------------------------------------------------------------------


class Writer(Protocol):
    """Writes documents as they come."""

    def __init__(self, stream: Any) -> None: ...

    def write(self, doc: Doc) -> None:
        """Write one document."""

    def finish(self) -> None:
        """Write what comes after the last."""


class _JsonlWriter:
    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream

    def write(self, doc: Doc) -> None:
        self.stream.write(json_line(to_record(doc)))

    def finish(self) -> None: ...


class _TableWriter:
    """For people: every text, shortened to a line, and its relations below in columns."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.width = shutil.get_terminal_size((120, 24)).columns
        self.separator = ""

    def write(self, doc: Doc) -> None:
        rows = [
            (
                f"{relation['score']:.2f}",
                _argument(doc, relation["head_pos"], relation["head_label"]),
                _visible(relation["label"]),
                _argument(doc, relation["tail_pos"], relation["tail_label"]),
            )
            for relation in doc._.relations
        ]
        widths = [max((_columns(row[i]) for row in rows), default=0) for i in range(3)]
        lines = [_fit(_visible(doc.text), self.width)]
        for row in rows:
            cells = [cell + " " * (width - _columns(cell)) for cell, width in zip(row, widths, strict=False)]
            lines.append("  " + "  ".join([*cells, row[3]]))
        if not rows:
            lines.append("  no relations")
        self.stream.write((self.separator + "\n".join(lines) + "\n").encode("utf8"))
        self.separator = "\n"

    def finish(self) -> None: ...


class _SpacyWriter:
    """A DocBin can't be written in parts: it keeps arrays and bytes of every document, no ``Doc``s."""

    def __init__(self, stream: BinaryIO) -> None:
        from spacy.tokens import DocBin

        self.stream = stream
        self.docs = DocBin(store_user_data=True)

    def write(self, doc: Doc) -> None:
        self.docs.add(doc)

    def finish(self) -> None:
        self.stream.write(self.docs.to_bytes())


class _HtmlWriter:
    def __init__(self, stream: BinaryIO) -> None:
        from ..view import html

        self.stream, self.html = stream, html
        self.stream.write(html.PAGE_START.encode("utf8"))

    def write(self, doc: Doc) -> None:
        self.stream.write(self.html.draw(doc).encode("utf8") + b"\n")

    def finish(self) -> None:
        self.stream.write(self.html.PAGE_END.encode("utf8"))


_WRITERS: dict[Format, type[Writer]] = {
    Format.table: _TableWriter,
    Format.jsonl: _JsonlWriter,
    Format.spacy: _SpacyWriter,
    Format.html: _HtmlWriter,
}


def to_record(doc: Doc) -> dict[str, Any]:
    """The JSON form of a document: its text, entities and relations. ``start`` and ``end`` count tokens.

    ``unscored_pairs`` is there where some pairs are too far apart for the encoder.
    """
    ents = [
        {
            "start": ent.start,
            "end": ent.end,
            "label": ent.label_,
            "text": ent.text,
            "start_char": ent.start_char,
            "end_char": ent.end_char,
        }
        for ent in doc.ents
    ]
    record: dict[str, Any] = {
        "text": doc.text,
        "ents": ents,
        "relations": [dict(relation) for relation in doc._.relations],
    }
    if doc._.unscored_pairs:
        record["unscored_pairs"] = doc._.unscored_pairs
    return record


def _argument(doc: Doc, position: list[int], label: str) -> str:
    text = _visible(doc[position[0] : position[1]].text)
    return f"{text} ({_visible(label)})" if label else text


def _visible(text: str) -> str:
    """Text on one line; control characters, which a terminal would obey, become spaces."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _columns(text: str) -> int:
    """How many columns of a terminal ``text`` takes."""
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def _fit(text: str, columns: int) -> str:
    if _columns(text) <= columns:
        return text
    while _columns(text) >= columns:
        text = text[: -max(1, (_columns(text) - columns) // 2)]
    return text + "…"


def _check_output(output: Path | None, format: Format, sources: Iterable[Source]) -> None:
    if output is None:
        if format is Format.spacy:
            raise UsageError("--format spacy is binary and needs --output FILE.")
        return
    if not output.absolute().parent.is_dir():
        raise UsageError(f"The folder of --output {output} doesn't exist.")
    for source in sources:
        if source.kind in SUFFIXES and output.exists() and output.samefile(source.path):
            raise UsageError(f"--output {output} is also an input.")


@contextmanager
def _open_output(output: Path | None) -> Iterator[BinaryIO]:
    if output is None:
        sys.stdout.flush()
        yield sys.stdout.buffer
        return
    try:
        file = open(output, "wb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"--output {output} can't be written: {error.strerror}.") from None
    with file:
        yield file


# --- the terminal -----------------------------------------------------------------------------------------


def _say(message: str, kind: str = "Error") -> None:
    print(f"{kind}: {message}", file=sys.stderr, flush=True)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _use_utf8() -> None:
    """Messages are UTF-8 regardless of the locale; so is the output, which is written as bytes."""
    stream: TextIO = sys.stderr
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf8", errors="backslashreplace")


def _abandon_stdout() -> None:
    """Nobody reads standard output any more: don't let Python fail when it flushes it at exit."""
    with suppress(OSError, ValueError):  # a stdout that isn't a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
