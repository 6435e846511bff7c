"""``spacy-ie-moe evaluate``: score the relations or frames that a pipeline finds against gold documents.

``spacy evaluate`` gives a pipeline no entities to relate and prints no relation scores; this command
does both, and counts every gold relation, also those that the pipeline never considered. A pipeline that
finds frames is asked for the task and the schema that each document is annotated for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, NoReturn

import spacy
import typer
from spacy.language import Language
from spacy.training import Example

from ..corpora.reader import create_relation_corpus
from ..corpora.string_triples import STRING_TRIPLES
from ..document_scoring import DocumentLevel, score_document_relations
from ..documents.clusters import GOLD_PREFIX, give_gold_clusters
from ..documents.component import DocumentRelations
from ..documents.facts import Fact, read_facts
from ..labels import LabelsInput, RelationLabel, inverse_names, parse_labels, plain_labels
from ..pipeline import find_glirel
from ..scoring import Counts, RelationScores, bootstrap_f1, score_relations, sort_confusion
from ..string_triples import ALL, CLASSES, COMPARISONS, NUMBERS, StringTripleScores, score_triples
from ..triplet_scoring import TripletScores, score_triplets
from ..uie_scoring import MAIN_METRICS, METRICS, FrameScores, score_frames
from .label_options import read_labels, split_names

BUNDLED = "bundled"
CONFUSIONS_SHOWN = 10

METRIC_NAMES = {
    "ner": "NER",
    "re": "RE, boundary",
    "re_strict": "RE, strict",
    "trig_i": "ED, Trig-I",
    "trig": "ED, Trig-C",
    "arg_i": "EAE, Arg-I",
    "arg": "EAE, Arg-C",
    "absa": "ABSA",
}


def evaluate(
    model: Annotated[
        str, typer.Argument(help="A spaCy pipeline: a package or folder; 'bundled' is this package's own.")
    ],
    data: Annotated[list[Path], typer.Argument(help="Gold documents: .spacy files, or folders of them.")],
    gold_ents: Annotated[
        bool,
        typer.Option("--gold-ents", help="Give the pipeline the gold entities, and score its relations only."),
    ] = False,
    labels: Annotated[str | None, typer.Option(help="Relation labels to look for, comma-separated.")] = None,
    labels_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="The same in a file: one label per line, or JSON."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Lowest score of a relation; default: the pipeline's.")
    ] = None,
    symmetric: Annotated[
        str,
        typer.Option(
            help="Labels of which head and tail can be swapped, comma-separated, "
            "besides those that the labels file or the pipeline marks so."
        ),
    ] = "",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Documents per batch; default: the pipeline's.")] = None,
    skip_empty: Annotated[
        bool,
        typer.Option(
            "--skip-empty",
            help="Score string triples (NYT, WebNLG) only where gold has some, as published scores do; otherwise what "
            "is found elsewhere counts as wrong.",
        ),
    ] = False,
    gold_clusters: Annotated[
        bool,
        typer.Option(
            "--gold-clusters",
            help="Give document_relations the gold clusters of mentions, whatever a coreference pipe finds.",
        ),
    ] = False,
    training_facts: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="What the training set says, as convert --facts writes it, for Ign F1 of document relations.",
        ),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamplings of the documents for a 95% interval of micro F1.")
    ] = 0,
    output: Annotated[Path | None, typer.Option(help="Write scores and settings to this JSON file.")] = None,
) -> None:
    """Score the relations that MODEL finds in DATA, or its frames where DATA are annotated with frames."""
    if output is not None and not output.parent.is_dir():
        _fail(f"--output is {output}, but there is no folder {output.parent}.", code=2)
    try:
        given = read_labels(labels, labels_file)
        facts = None if training_facts is None else read_facts(training_facts)
        nlp = _load(model)
        examples = [example for path in data for example in create_relation_corpus(path, gold_ents=gold_ents)(nlp)]
        settings: dict[str, Any] = {"model": model, "data": [str(path) for path in data]}
        if _finds_frames(nlp) and any(example.reference._.uie_task for example in examples):
            options: dict[str, Any] = {"--labels": given, "--threshold": threshold, "--symmetric": symmetric}
            options |= {"--gold-ents": gold_ents, "--skip-empty": skip_empty}
            options |= {"--gold-clusters": gold_clusters, "--training-facts": training_facts}
            _refuse([name for name, value in options.items() if value not in (None, "", False)])
            result = _evaluate_frames(nlp, examples, batch_size=batch_size, bootstrap=bootstrap)
        else:
            settings |= _set_up(nlp, given, examples, threshold, symmetric, gold_ents, keep_own=model != BUNDLED)
            settings |= _string_settings(examples, skip_empty)
            settings |= _document_settings(nlp, examples, gold_clusters, training_facts, settings["symmetric"])
            with _gold_clusters(nlp, examples) if gold_clusters else nullcontext():
                result = _evaluate_relations(nlp, examples, settings, facts, batch_size=batch_size, bootstrap=bootstrap)
        if output is not None:
            text = json.dumps({"settings": settings, **result}, indent=2, ensure_ascii=False)
            output.write_text(text + "\n", encoding="utf8")
    except (OSError, ValueError, ImportError) as error:
        _fail(str(error))


def _set_up(
    nlp: Language,
    given: LabelsInput | None,
    examples: list[Example],
    threshold: float | None,
    symmetric: str,
    gold_ents: bool,
    *,
    keep_own: bool,
) -> dict[str, Any]:
    """Set labels and threshold of the pipeline; the settings by which its relations are found and scored."""
    options = _options(nlp, given)
    return {
        "gold_ents": gold_ents,
        "labels": _set_labels(nlp, given, _gold_labels(examples), keep_own=keep_own),
        "threshold": _set_threshold(nlp, threshold),
        "symmetric": sorted(
            {
                *split_names(symmetric),
                *(label.name for label in options if label.symmetric),
                *(label for _, pipe in _relation_pipes(nlp, "symmetric") for label in pipe.symmetric),
            }
        ),
        "inverse": inverse_names(options),
        "disabled": _entity_pipes(nlp) if gold_ents else [],
    }


def _string_settings(examples: Iterable[Example], skip_empty: bool) -> dict[str, bool]:
    """How string triples are scored; nothing where gold has none."""
    if any(STRING_TRIPLES in example.reference.user_data for example in examples):
        return {"skip_empty": skip_empty}
    if skip_empty:
        raise ValueError(
            f"--skip-empty is given, but the data have no user_data[{STRING_TRIPLES!r}]; expected documents "
            "of string triples, as convert string-triples and jointer write them."
        )
    return {}


def _document_settings(
    nlp: Language,
    examples: Iterable[Example],
    gold_clusters: bool,
    training_facts: Path | None,
    symmetric: Iterable[str],
) -> dict[str, Any]:
    """How document relations are scored; nothing where gold or pipeline have none."""
    found = _document_pipes(nlp) if gold_clusters else _assigning(nlp, "doc._.document_relations")
    if not found or not any(example.reference._.document_relations for example in examples):
        if gold_clusters or training_facts is not None:
            raise ValueError(
                f"{'--gold-clusters' if gold_clusters else '--training-facts'} is given, but there are no document "
                "relations; expected data that convert re-docred --document-relations wrote, and a pipeline with "
                f"document_relations: {_components(nlp)}."
            )
        return {}
    return {
        "gold_clusters": gold_clusters,
        "training_facts": None if training_facts is None else str(training_facts),
        "document_symmetric": sorted(
            {*symmetric, *(label for pipe in _document_pipes(nlp) for label in pipe.symmetric)}
        ),
    }


@contextmanager
def _gold_clusters(nlp: Language, examples: Iterable[Example]) -> Iterator[None]:
    """Let ``document_relations`` take the gold clusters of the examples for those of a coreference pipe."""
    give_gold_clusters(examples)
    before = [(pipe, pipe.coref_prefix) for pipe in _document_pipes(nlp)]
    try:
        for pipe, _ in before:
            pipe.coref_prefix = GOLD_PREFIX
        yield
    finally:
        for pipe, prefix in before:
            pipe.coref_prefix = prefix


def _document_pipes(nlp: Language) -> list[DocumentRelations]:
    return [pipe for _, pipe in nlp.pipeline if isinstance(pipe, DocumentRelations)]


def _evaluate_relations(
    nlp: Language,
    examples: list[Example],
    settings: dict[str, Any],
    facts: frozenset[Fact] | None,
    *,
    batch_size: int | None,
    bootstrap: int,
) -> dict[str, Any]:
    """The scores of relations, which are printed too."""
    before = _unscored_pairs(nlp)
    predictions = list(_predict(nlp, examples, disabled=settings["disabled"], batch_size=batch_size))
    links = _link_labels(nlp).difference(_gold_labels(examples))
    for example in predictions:  # coreference is scored as clusters; as relations gold has none
        found = example.predicted
        found._.relations = [relation for relation in found._.relations if relation["label"] not in links]
    scores = score_relations(predictions, symmetric=settings["symmetric"], inverse=settings["inverse"])
    unscored = {name: count - before[name] for name, count in _unscored_pairs(nlp).items()}
    if settings["gold_ents"] and (scores.entities.fp or scores.entities.fn):
        _note("a component changed the given gold entities: see the entity scores.")
    result: dict[str, Any] = {**scores.to_json(), "unscored_pairs": unscored}
    if bootstrap:
        result["micro_f1_interval"] = _interval(scores.documents, bootstrap)
    typer.echo("\n".join(_report(scores, result, given=settings["gold_ents"])))
    for name, pipe in _relation_pipes(nlp, "spans_key"):
        triplets = score_triplets(predictions, symmetric=settings["symmetric"], spans_key=pipe.spans_key)
        result.setdefault("triplets", {})[name] = triplets.to_json()
        typer.echo("\n".join(_triplet_report(triplets)))
    if "document_symmetric" in settings:
        levels = score_document_relations(predictions, training_facts=facts, symmetric=settings["document_symmetric"])
        result["document_relations"] = {matching: level.to_json() for matching, level in levels.items()}
        typer.echo("\n".join(_document_report(levels)))
    if "skip_empty" in settings:
        strings = score_triples(predictions, include_empty=not settings["skip_empty"], symmetric=settings["symmetric"])
        result["string_triples"] = strings.to_json()
        typer.echo("\n".join(_string_report(strings)))
    return result


def _evaluate_frames(
    nlp: Language, examples: list[Example], *, batch_size: int | None, bootstrap: int
) -> dict[str, Any]:
    """The scores of frames, which are printed too."""
    scores = score_frames(_predict(nlp, examples, disabled=[], batch_size=batch_size))
    left_out = len(examples) - scores.outputs.documents
    if left_out:
        _note(f"{left_out} documents are left out: they do not say what task they are annotated for.")
    result: dict[str, Any] = {"frames": scores.to_json()}
    if bootstrap:
        result["f1_intervals"] = {
            name: _interval(metric.documents, bootstrap) for name, metric in scores.metrics.items()
        }
    typer.echo("\n".join(_frame_report(scores, result.get("f1_intervals", {}))))
    return result


def _interval(documents: Sequence[Counts], samples: int) -> dict[str, float]:
    low, high = bootstrap_f1(documents, samples=samples)
    return {"level": 0.95, "low": low, "high": high, "samples": samples}


def _finds_frames(nlp: Language) -> bool:
    return any("doc._.frames" in nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names)


def _refuse(options: list[str]) -> None:
    if options:
        raise ValueError(
            f"{' and '.join(options)} given, but the data are annotated with frames; expected no options of relations."
        )


def _options(nlp: Language, given: LabelsInput | None) -> list[RelationLabel]:
    """The given labels with their options, else those of the pipeline's ``glirel``."""
    if given is not None:
        return parse_labels(given)
    component = find_glirel(nlp)
    return component.default_labels if component else []


def _fail(message: str, *, code: int = 1) -> NoReturn:
    typer.echo(f"Error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def _note(message: str) -> None:
    typer.echo(message, err=True)


def _load(model: str) -> Language:
    if model != BUNDLED:
        return spacy.load(model)
    from ..pipeline import bundled_pipeline

    return bundled_pipeline()


def _gold_labels(examples: Iterable[Example]) -> list[str]:
    labels = {relation["label"] for example in examples for relation in example.reference._.relations}
    if not labels:
        raise ValueError(
            "the data have no relation; expected gold Doc._.relations, which a DocBin keeps with store_user_data=True."
        )
    return sorted(labels)


def _relation_pipes(nlp: Language, attribute: str) -> list[tuple[str, Any]]:
    """Name and component of those that find relations and have ``attribute``."""
    return [(name, pipe) for name, pipe in _assigning(nlp, "doc._.relations") if hasattr(pipe, attribute)]


def _assigning(nlp: Language, attribute: str) -> list[tuple[str, Any]]:
    """Name and component of those that write ``attribute`` of documents."""
    return [(name, pipe) for name, pipe in nlp.pipeline if attribute in nlp.get_pipe_meta(name).assigns]


def _entity_pipes(nlp: Language) -> list[str]:
    """The components that set entities, without those that find relations as well."""
    assigned = {name: nlp.get_pipe_meta(name).assigns for name in nlp.pipe_names}
    return [
        name
        for name, attributes in assigned.items()
        if "doc.ents" in attributes and "doc._.relations" not in attributes
    ]


def _set_labels(
    nlp: Language, given: LabelsInput | None, gold_labels: list[str], *, keep_own: bool
) -> dict[str, list[str]]:
    """Set the labels of zero-shot components; the names each of them then looks for.

    Without given labels a component keeps its own if ``keep_own`` and one of them is gold. Otherwise it could
    only score 0, so it looks for the gold labels, and for its own of coreference, which ``document_relations`` needs.
    """
    pipes = [(name, pipe) for name, pipe in _relation_pipes(nlp, "set_labels") if getattr(pipe, "takes_labels", True)]
    if given is not None and not pipes:
        raise ValueError(f"--labels is given, but no component takes labels: {_components(nlp)}.")
    for name, pipe in pipes:
        own = set(getattr(pipe, "labels", None) or ())
        links = own & _link_labels(nlp)
        if given is not None:
            pipe.set_labels(given)
            for label in sorted(links.difference(pipe.labels)):
                _note(
                    f"{name} does not look for {label}, by which document_relations joins mentions: --labels lacks it."
                )
        elif keep_own and own.intersection(gold_labels):
            _note(f"{name} looks for its own labels ({len(own)}); --labels sets others.")
        else:
            _note(f"{name} looks for the gold labels of the data ({len(gold_labels)}); --labels sets others.")
            options = plain_labels(getattr(pipe, "default_labels", ()))
            kept = {label: options.get(label, {}) for label in sorted(links)}
            pipe.set_labels({**{label: {} for label in gold_labels}, **kept} if kept else gold_labels)
    return {name: list(pipe.labels) for name, pipe in pipes}


def _link_labels(nlp: Language) -> set[str]:
    """The labels by which ``document_relations`` joins mentions to clusters."""
    return {pipe.self_label for pipe in _document_pipes(nlp) if pipe.self_label is not None}


def _set_threshold(nlp: Language, threshold: float | None) -> dict[str, float]:
    """Set the threshold of the components that have one, if it is given; the one each of them then uses."""
    pipes = _relation_pipes(nlp, "threshold")
    if threshold is not None:
        if not pipes:
            raise ValueError(f"--threshold is given, but no component has one: {_components(nlp)}.")
        for _, pipe in pipes:
            pipe.threshold = threshold
    return {name: pipe.threshold for name, pipe in pipes}


def _components(nlp: Language) -> str:
    return ", ".join(nlp.pipe_names) or "it is empty"


def _unscored_pairs(nlp: Language) -> dict[str, int]:
    """By component: the pairs so far that no window of the model could hold."""
    return {name: int(pipe.unscored_pairs) for name, pipe in _relation_pipes(nlp, "unscored_pairs")}


def _predict(
    nlp: Language, examples: list[Example], *, disabled: list[str], batch_size: int | None
) -> Iterator[Example]:
    with nlp.select_pipes(disable=disabled):
        docs = nlp.pipe((example.predicted for example in examples), batch_size=batch_size)
        for example, predicted in zip(examples, docs, strict=True):
            yield Example(predicted, example.reference)


def _report(scores: RelationScores, result: dict[str, Any], *, given: bool) -> Iterator[str]:
    """The lines of the printed report; ratios in percent. given: whether the entities are gold."""
    micro = scores.micro
    documents, predicted = len(scores.documents), micro.tp + micro.fp
    yield f"{documents} documents, {micro.support} gold relations, {predicted} predicted"
    if scores.unrecorded:
        yield f"{scores.unrecorded} of {micro.fp} false positives are on pairs whose relation gold leaves out"
    for name, count in result["unscored_pairs"].items():
        yield f"{name}: {count} pairs not scored, no window holds both arguments"
    width = max(len("strict (entity types too)"), *map(len, scores.per_label))
    yield ""
    yield _row("", width, ("P", "R", "F1"), ("tp", "fp", "fn"))
    yield _counts_row("micro", width, micro)
    if "micro_f1_interval" in result:
        yield _interval_row(result["micro_f1_interval"], width)
    yield _row("macro (gold labels)", width, scores.macro)
    yield _row("macro (predicted too)", width, scores.macro_union)
    yield _counts_row("strict (entity types too)", width, scores.strict)
    yield _counts_row("entities (given)" if given else "entities", width, scores.entities)
    yield ""
    yield _row("label", width, ("P", "R", "F1"), ("tp", "fp", "fn"))
    for label, counts in sorted(scores.per_label.items(), key=lambda item: (-item[1].support, item[0])):
        yield _counts_row(label, width, counts)
    confusions = [(cell, count) for cell, count in sort_confusion(scores.confusion) if cell[0] != cell[1]]
    if confusions:
        yield ""
        shown = min(len(confusions), CONFUSIONS_SHOWN)
        yield f"gold -> predicted on the same pair, the {shown} most frequent of {len(confusions)}"
    for (expected, found), count in confusions[:CONFUSIONS_SHOWN]:
        yield f"{count:7}  {expected or '(no relation)'} -> {found or '(no relation)'}"


def _triplet_report(scores: TripletScores) -> Iterator[str]:
    """Ent, Rel and Rel+ in the three ways of counting symmetric relations."""
    names = {"ent": "Ent", "rel": "Rel", "rel_plus": "Rel+"}
    width = len("canonical, Rel+, macro")
    yield ""
    yield _row("symmetric relations as", width, ("P", "R", "F1"), ("tp", "fp", "fn"))
    for mode, levels in scores.modes.items():
        for level, name in names.items():
            if level == "ent" and mode != "canonical":
                continue  # entities have no direction
            yield _counts_row(f"{mode}, {name}", width, levels[level].micro)
            yield _row(f"{mode}, {name}, macro", width, levels[level].macro)


def _document_report(levels: Mapping[str, DocumentLevel]) -> Iterator[str]:
    """F1 and Ign F1 in both ways of telling whether a cluster is a gold one."""
    width = len("document relations, clusters by")
    yield ""
    yield _row("document relations, clusters by", width, ("P", "R", "F1"), ("tp", "fp", "fn"))
    for matching, level in levels.items():
        yield _counts_row(matching, width, level.micro)
        if level.ign_precision is not None and level.ign_f1 is not None:
            ratios = (level.ign_precision, level.micro.recall, level.ign_f1)
            yield _row(f"{matching}, without known facts", width, ratios)


def _string_report(scores: StringTripleScores) -> Iterator[str]:
    """Triples in each way of comparing; as strings by overlap and by number of gold triples too."""
    width = len("string, by number of triples")
    yield ""
    yield _row("triples", width, ("P", "R", "F1"), ("tp", "fp", "fn", "docs"))
    for comparison in COMPARISONS:
        yield _group_row(comparison.replace("_", " "), width, scores, ALL, comparison)
    for title, groups in (("overlap", CLASSES), ("number of triples", NUMBERS)):
        yield f"string, by {title}"
        for group in groups:
            if scores.documents[group]:
                yield _group_row(f"  {group}", width, scores, group, "string")


def _group_row(name: str, width: int, scores: StringTripleScores, group: str, comparison: str) -> str:
    return f"{_counts_row(name, width, scores[group][comparison].micro)}  {scores.documents[group]:>7}"


def _frame_report(scores: FrameScores, intervals: dict[str, dict[str, float]]) -> Iterator[str]:
    """Each metric in offsets and in strings, what could not be used, and the types of the main metrics."""
    shown = [(METRIC_NAMES[name], name, scores.metrics[name]) for name in METRICS if name in scores.metrics]
    labels = [f"  {label}" for _, _, metric in shown for label in metric.offset.per_label]
    width = max(map(len, ["  95% interval of F1", *labels]))
    tasks = ", ".join(f"{count} {task}" for task, count in sorted(scores.tasks.items()))
    yield f"{scores.outputs.documents} documents: {tasks}"
    yield ""
    yield _row("", width, ("P", "R", "F1"), ("tp", "fp", "fn"))
    for title, name, metric in shown:
        yield _counts_row(title, width, metric.offset.micro)
        if name in intervals:
            yield _interval_row(intervals[name], width)
        yield _counts_row("  as strings", width, metric.string.micro)
    yield _row("mean over tasks", width, ("", "", scores.mean_f1() or 0.0))
    yield _row("  as strings", width, ("", "", scores.mean_f1("string") or 0.0))
    yield ""
    outputs, shares = scores.outputs, scores.outputs.shares
    yield f"{100 * shares['malformed']:7.2f} % of {outputs.documents} documents with malformed answers"
    yield f"{100 * shares['ungroundable']:7.2f} % of {outputs.fillers} fillers are not in the text"
    yield f"{100 * shares['unknown_type']:7.2f} % of {outputs.frames} frames are of unknown types"
    for title, name, metric in shown:
        if name not in MAIN_METRICS:
            continue
        yield ""
        yield _row(title, width, ("P", "R", "F1"), ("tp", "fp", "fn"))
        for label, counts in sorted(metric.offset.per_label.items(), key=lambda item: (-item[1].support, item[0])):
            yield _counts_row(f"  {label}", width, counts)


def _interval_row(interval: dict[str, float], width: int) -> str:
    return f"{'  95% interval of F1':{width}}  {100 * interval['low']:.2f} to {100 * interval['high']:.2f}"


def _counts_row(name: str, width: int, counts: Counts) -> str:
    ratios = (counts.precision, counts.recall, counts.f1)
    return _row(name, width, ratios, (counts.tp, counts.fp, counts.fn))


def _row(name: str, width: int, ratios: Sequence[float | str], counts: Sequence[int | str] = ()) -> str:
    cells = [f"{cell:>7}" if isinstance(cell, str) else f"{100 * cell:7.2f}" for cell in ratios]
    return "  ".join([f"{name:{width}}", *cells, *(f"{count:>7}" for count in counts)])
