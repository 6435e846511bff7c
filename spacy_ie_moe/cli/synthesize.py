"""``spacy-ie-moe synthesize``: training data for ``glirel``, with relation labels made up by a language model."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import spacy
import typer
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from ..corpora.conversion import ConversionReport
from ..corpora.reader import read_docs
from ..files import json_line, left_behind, locked, replacing
from ..models import MODELS
from .convert import ATTRIBUTES, format_table, reasons
from .extract import SUFFIXES, Problems, Source, process, progress, read_items
from .label_options import read_label_names

if TYPE_CHECKING:
    from ..synthesis.sources import Passage

ANSWERS, DOCS, JSONL, REPORT = "answers.jsonl", "relations.spacy", "relations.jsonl", "report.json"
UNREADABLE = "unreadable or not processed"


def synthesize(
    model: Annotated[
        str, typer.Argument(help="A Hugging Face language model that follows instructions: a folder or a hub id.")
    ],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT",
            help='Documents with entities: .jsonl in GLiREL\'s form ("tokenized_text", "ner") or .spacy; with --ner '
            'texts: .txt (one per line), .jsonl (lines with a "text") or .spacy.',
        ),
    ],
    output: Annotated[
        Path, typer.Argument(help=f"The folder to write: {JSONL}, {DOCS}, {REPORT}, and {ANSWERS}, to go on from.")
    ],
    ner: Annotated[
        str | None, typer.Option(help="A spaCy pipeline that finds the entities: a package or folder, or 'ner-mini'.")
    ] = None,
    spans_key: Annotated[
        str | None, typer.Option(help="Take entities from this group of doc.spans in place of doc.ents.")
    ] = None,
    exclude_labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="Labels to leave out, such as those of a benchmark: a file with one a line, a JSON list or dict, or a "
            ".spacy file, whose relations have them. May be given several times."
        ),
    ] = None,
    keep_case: Annotated[bool, typer.Option("--keep-case", help="Don't turn labels to lower case.")] = False,
    window: Annotated[int, typer.Option(min=2, help="Most words of a text that a prompt shows.")] = 400,
    max_distance: Annotated[
        int | None,
        typer.Option(min=0, help="Most words between the starts of two entities; those further apart are not asked."),
    ] = None,
    max_pairs: Annotated[int, typer.Option(min=1, help="Most ordered pairs that a prompt asks about.")] = 20,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="Of sampling; 0 takes the most probable answer.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of sampling.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts that are answered at once.")] = 8,
    revision: Annotated[str | None, typer.Option(help="Revision of a model on the hub.")] = None,
    device: Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")] = "cpu",
) -> None:
    """Let MODEL label the relation of every ordered pair of entities in INPUT, in its own words or as NO RELATION.

    The same command goes on with an interrupted run. Once all is answered, it writes the results anew without asking,
    with other --exclude-labels, for example.
    """
    settings = {
        "MODEL": model,
        "--revision": revision,
        "--ner": ner,
        "--spans-key": spans_key,
        "--window": window,
        "--max-distance": max_distance,
        "--max-pairs": max_pairs,
        "--max-tokens": max_tokens,
        "--temperature": temperature,
        "--seed": seed,
    }
    start = time.monotonic()
    try:
        _check_paths(source, output, ner)
        excluded = [name for file in exclude_labels or () for name in read_label_names(file, "--exclude-labels")]

        from ..synthesis.asking import Asker
        from ..synthesis.labels import label_keys
        from ..synthesis.pairs import Limits
        from ..synthesis.progress import AnswerFile
        from ..synthesis.run import SynthesisReport, label_pairs

        report = SynthesisReport()
        asker = Asker(
            model, revision=revision, device=device, max_new_tokens=max_tokens, temperature=temperature, seed=seed
        )
        kept = AnswerFile(output / ANSWERS, settings)
        labelled = label_pairs(
            _read(source, ner, spans_key, report.conversion),
            partial(kept.answers, ask=asker, batch_size=batch_size),
            limits=Limits(window=window, max_pairs=max_pairs, max_distance=max_distance),
            exclude=label_keys(excluded),
            keep_case=keep_case,
            report=report,
        )
        results = [output / name for name in (DOCS, JSONL, REPORT)]
        with locked(output), ExitStack() as files:
            for file in (left for path in results for left in left_behind(path)):
                file.unlink()
            docs, lines, account = (files.enter_context(replacing(path)) for path in results)
            _write(progress(labelled), docs, lines)
            if not report.conversion.docs:
                raise ValueError(f"{source} gave no documents ({reasons(report.conversion)}); expected at least one.")
            seconds = round(time.monotonic() - start, 1)
            choices = {"--exclude-labels": [str(file) for file in exclude_labels or ()], "--keep-case": keep_case}
            whole = {"settings": settings | choices, **report.to_json(), "seconds": seconds}
            account.write_text(json.dumps(whole, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
    except (OSError, ValueError, ImportError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted; the same command goes on.", err=True)
        raise typer.Exit(130) from None
    if not report.prompts:
        why = "all pairs are further apart than --max-distance or --window" if report.pairs.read else "none has two"
        typer.echo(f"Warning: no document has two entities to ask about: {why}.", err=True)
    typer.echo(format_table([*report.rows(), ("answers of an earlier run", kept.reused), ("seconds", str(seconds))]))


def _check_paths(source: Path, output: Path, ner: str | None) -> None:
    suffixes = (".jsonl", ".spacy") if ner is None else SUFFIXES
    if source.suffix not in suffixes:
        hint = " (.txt has no entities: give --ner)" if source.suffix == ".txt" else ""
        raise ValueError(f"INPUT is {str(source)!r}; expected a file that ends in {' or '.join(suffixes)}{hint}.")
    if not source.is_file():
        raise FileNotFoundError(f"INPUT is {str(source)!r}, which is no file; expected one.")
    if output.exists() and not output.is_dir():
        raise ValueError(f"OUTPUT is {str(output)!r}, which is a file; expected a folder.")


def _read(source: Path, ner: str | None, spans_key: str | None, report: ConversionReport) -> Iterator[Passage]:
    """The documents of INPUT with their entities."""
    from ..synthesis.sources import read_json_lines, read_spacy_docs

    vocab = Vocab()
    if ner is not None:
        problems = Problems()
        items = read_items([Source(source.suffix, str(source))], False, problems)
        yield from read_spacy_docs(process(_load(ner), items, problems), vocab, report, spans_key)
        if problems.count:
            report.instances.left_out[UNREADABLE] += problems.count
    elif source.suffix == ".spacy":
        yield from read_spacy_docs(read_docs(source, Vocab()), vocab, report, spans_key)
    elif spans_key is not None:
        raise ValueError(f"--spans-key is {spans_key!r} for {source}; expected it for spaCy documents only.")
    else:
        yield from read_json_lines(source, vocab, report)


def _load(name: str) -> Language:
    bundled = MODELS / name
    try:
        return spacy.load(bundled if bundled.is_dir() else name)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--ner is {name!r}, which cannot be loaded ({reason}); expected a spaCy pipeline.") from None


def _write(labelled: Iterable[tuple[Doc, dict[str, Any]]], docs: Path, lines: Path) -> None:
    doc_bin = DocBin(attrs=ATTRIBUTES, store_user_data=True)
    with lines.open("wb") as file:
        for doc, record in labelled:
            doc_bin.add(doc)
            file.write(json_line(record))
    docs.write_bytes(doc_bin.to_bytes())
