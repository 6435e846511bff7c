"""``spacy-ie-moe convert``: a published corpus as a ``.spacy`` file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from ..corpora import (
    aste,
    casie,
    columns,
    dygie,
    fewrel,
    geneva,
    jointer,
    kbp37,
    knowledgenet,
    phee,
    re_docred,
    spert,
    string_triples,
    zero_rte,
)
from ..corpora.conversion import ConversionReport, LabelChoice, Part, load_names
from ..corpora.frames import with_frames
from ..corpora.location import find_file
from ..corpora.reader import read_docs
from ..documents.facts import Fact, facts_of, write_facts
from ..files import replacing

ATTRIBUTES = ("ENT_IOB", "ENT_TYPE", "SENT_START")


@dataclass(frozen=True)
class Format:
    """A corpus format.

    read: its converter. options: those that only some formats have. tasks: those that its documents can have frames
    of. always: they have those of the first task unless told otherwise. labelled: what has the labels that are
    chosen and named.
    """

    read: Callable[..., Iterator[Doc]]
    options: frozenset[str] = frozenset()
    tasks: tuple[str, ...] = ("RE", "NER")
    always: bool = False
    labelled: str = "relation"


EVENT_TASKS = ("EE", "ED", "EAE")
FORMATS = {
    "spert": Format(spert.read),
    "fewrel": Format(fewrel.read, frozenset({"per_relation", "by_sentence"}), ("RE",)),
    "zero-rte": Format(zero_rte.read, tasks=("RE",)),
    "re-docred": Format(re_docred.read, frozenset({"unit", "mentions", "document_relations", "self_label", "facts"})),
    "knowledgenet": Format(knowledgenet.read, frozenset({"folds"}), ("RE",)),
    "dygie": Format(dygie.read, frozenset({"unit"})),
    "string-triples": Format(string_triples.read, tasks=("RE",)),
    "jointer": Format(jointer.read, frozenset({"occurrences"}), ("RE",)),
    "columns": Format(columns.read, tasks=("NER",), always=True, labelled="entity"),
    "kbp37": Format(kbp37.read, tasks=("RE",), always=True),
    "phee": Format(phee.read, frozenset({"sub_roles"}), EVENT_TASKS, always=True, labelled="event"),
    "casie": Format(casie.read, frozenset({"unit"}), EVENT_TASKS, always=True, labelled="event"),
    "geneva": Format(geneva.read, tasks=EVENT_TASKS, always=True, labelled="event"),
    "aste": Format(aste.read, tasks=("ABSA",), always=True, labelled="triplet"),
}


def convert(
    format_name: Annotated[str, typer.Argument(metavar="FORMAT", help=f"One of {', '.join(FORMATS)}.")],
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT", help="The corpus file (casie: or folder), or data set and file: fewrel/val_nyt.json."
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The .spacy file to write.")],
    names: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with the label of each relation id (or type of entity, event, opinion); ids are kept "
            "without it."
        ),
    ] = None,
    exclude: Annotated[
        str | None,
        typer.Option(help="Labels to leave out: a file with one a line, or a comma-separated list."),
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Labels to keep: a file with one a line, or a comma-separated list.")
    ] = None,
    part: Annotated[
        str, typer.Option(help="A:B, a slice of the shuffled instances in fractions, for example 0:0.8.")
    ] = "0:1",
    seed: Annotated[int, typer.Option(help="Seed of --part, --limit and --per-relation.")] = 0,
    limit: Annotated[int | None, typer.Option(help="A random sample of at most so many documents.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            help="Write gold frames for uc_uie: RE (of relations) or NER (of entities); of events EE (default), ED "
            "(triggers) or EAE (arguments of given triggers). Default: none; "
            f"{', '.join(name for name, known in FORMATS.items() if known.always)} always have frames."
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="The schema of the data set that INPUT is a part of: a JSON map of each frame type to the list of its "
            "slot types, or another part as a .spacy file. Default: what INPUT has."
        ),
    ] = None,
    per_relation: Annotated[
        int | None,
        typer.Option(help="fewrel: a random sample of at most so many instances of each relation."),
    ] = None,
    by_sentence: Annotated[
        bool,
        typer.Option("--by-sentence", help="fewrel: all instances of a sentence as one document with their relations."),
    ] = False,
    folds: Annotated[str | None, typer.Option(help="knowledgenet: the folds to convert, for example 1,2,3.")] = None,
    unit: Annotated[
        str | None, typer.Option(help="re-docred, dygie, casie: one Doc for each 'document' (default) or 'sentence'.")
    ] = None,
    mentions: Annotated[
        str | None,
        typer.Option(
            help="re-docred, unit 'document': relate the mentions that are 'close' (in one sentence, or else "
            "the closest pair; default) or 'all'."
        ),
    ] = None,
    document_relations: Annotated[
        bool,
        typer.Option(
            "--document-relations",
            help="re-docred: write entities to Doc._.mention_clusters and relations to Doc._.document_relations too.",
        ),
    ] = False,
    self_label: Annotated[
        str | None,
        typer.Option(help="re-docred: relate the mentions of an entity by this label, to learn coreference from."),
    ] = None,
    facts: Annotated[
        Path | None,
        typer.Option(
            help="re-docred: a file for all facts of the documents, a JSON object a line, for Ign F1 of models that "
            "learn from them; implies --document-relations."
        ),
    ] = None,
    occurrences: Annotated[
        str | None,
        typer.Option(help="jointer: relate the mentions that are 'annotated' (default) or 'all' with the same words."),
    ] = None,
    sub_roles: Annotated[
        bool,
        typer.Option("--sub-roles", help="phee: slots for roles inside roles too, for example Treatment.Drug."),
    ] = False,
) -> None:
    """Convert a published corpus to a .spacy file, and print what was converted and what was not.

    Parts of the same file, made with the same seed, share no text (no document in re-docred, knowledgenet, dygie and
    casie) if their slices do not overlap.
    """
    try:
        chosen = _format(format_name)
        given = {
            "per_relation": per_relation,
            "by_sentence": by_sentence or None,
            "folds": folds,
            "unit": unit,
            "mentions": mentions,
            "document_relations": document_relations or None,
            "self_label": self_label,
            "facts": facts,
            "occurrences": occurrences,
            "sub_roles": sub_roles or None,
        }
        options = _options(format_name, {name: value for name, value in given.items() if value is not None})
        _check_output(output)
        options.pop("facts", None)
        if facts is not None:
            _check_facts(facts, output, unit)
            options["document_relations"] = True
        labels = LabelChoice(
            names=None if names is None else load_names(find_file(names)),
            only=None if only is None else frozenset(read_list(only, "--only")),
            exclude=frozenset() if exclude is None else frozenset(read_list(exclude, "--exclude")),
        )
        report = ConversionReport()
        docs = _reader(format_name, task, schema)(
            find_file(source),
            Vocab(),
            labels=labels,
            part=Part.parse(part),
            seed=seed,
            report=report,
            limit=limit,
            **options,
        )
        found: set[Fact] = set()
        if facts is not None:
            docs = _recorded(docs, found)
        doc_bin = DocBin(attrs=ATTRIBUTES, docs=docs, store_user_data=True)
        if not report.docs:
            raise ValueError(f"{source} gave no documents ({reasons(report)}); expected at least one.")
        _write(doc_bin, output)
        if facts is not None:
            write_facts(found, facts)
    except (ValueError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    for label in labels.unseen():
        typer.echo(f"Warning: no {chosen.labelled} read has the label {label!r} of --only or --exclude.", err=True)
    typer.echo(format_table(report.rows()))


def _recorded(docs: Iterator[Doc], found: set[Fact]) -> Iterator[Doc]:
    """The documents, whose facts are added to ``found`` on the way."""
    for doc in docs:
        found.update(facts_of(doc))
        yield doc


def read_list(value: str, where: str) -> list[str]:
    """The names in a file, one a line, or in a comma-separated list. ``where`` names the option in errors."""
    path = Path(value)
    is_file = path.is_file()
    entries = path.read_text(encoding="utf8").splitlines() if is_file else value.split(",")
    found = [entry.strip() for entry in entries if entry.strip()]
    if not found:
        raise ValueError(f"{where} is {value!r}; expected names, in a file or separated by commas.")
    return found


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise ValueError(f"FORMAT is {name!r}; expected one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _reader(format_name: str, task: str | None, schema: Path | None) -> Callable[..., Iterator[Doc]]:
    """The format's converter, with frames of the task where there are to be any."""
    chosen = FORMATS[format_name]
    if task is None and chosen.always:
        task = chosen.tasks[0]
    if task is None:
        if schema is not None:
            raise ValueError(f"--schema is given for FORMAT {format_name!r} without --task; expected both or none.")
        return chosen.read
    if task not in chosen.tasks:
        raise ValueError(f"--task is {task!r} for FORMAT {format_name!r}; expected {' or '.join(chosen.tasks)}.")
    return partial(with_frames, chosen.read, task=task, schema=None if schema is None else _schema(schema))


def _schema(path: Path) -> Path | dict[str, Any]:
    """The schema in a JSON file (its path), or that of the documents in a .spacy file."""
    if path.suffix != ".spacy":
        return path
    found: dict[str, Any] = {}
    for doc in read_docs(path, Vocab()):
        found.update(doc._.uie_schema or {})
    if not found:
        raise ValueError(f"--schema is {str(path)!r}, whose documents have none; expected some converted with frames.")
    return dict(sorted(found.items()))


def _options(format_name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The format's own options as its converter takes them."""
    for name in given:
        if name not in FORMATS[format_name].options:
            option = f"--{name.replace('_', '-')}"
            owners = " and ".join(other for other, known in FORMATS.items() if name in known.options)
            raise ValueError(f"{option} is given for FORMAT {format_name!r}; expected only for {owners}.")
    return given | ({"folds": _folds(given["folds"])} if "folds" in given else {})


def _folds(value: str) -> frozenset[int]:
    try:
        return frozenset(int(fold) for fold in value.split(","))
    except ValueError:
        raise ValueError(f"--folds is {value!r}; expected numbers separated by commas.") from None


def _check_output(output: Path) -> None:
    if output.suffix != ".spacy":
        raise ValueError(f"OUTPUT is {str(output)!r}; expected a file name that ends in .spacy.")


def _check_facts(facts: Path, output: Path, unit: str | None) -> None:
    if unit == "sentence":
        raise ValueError("--facts is given with --unit sentence; expected --unit document, as facts are of documents.")
    if facts.resolve() == output.resolve():
        raise ValueError(f"--facts is {str(facts)!r}, which is OUTPUT too; expected another file.")


def _write(doc_bin: DocBin, output: Path) -> None:
    with replacing(output) as temporary:
        temporary.write_bytes(doc_bin.to_bytes())


def reasons(report: ConversionReport) -> str:
    """Why instances were left out, in a line."""
    return ", ".join(f"{reason}: {count}" for reason, count in sorted(report.instances.left_out.items())) or "empty"


def format_table(rows: Sequence[tuple[str, int | str]]) -> str:
    """Rows of a report in two columns, the second to the right."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {count:>9}" for name, count in rows)
