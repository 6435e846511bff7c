"""The scores of universal information extraction: frames, counted by the task that a document is annotated for.

Of each document one task is annotated, ``Doc._.uie_task`` of the reference, and only that is scored on it:

* NER: span and type of an entity.
* RE, boundary: both spans with their slots, and the label; strict: the entity types of the spans too, where both gold
  and the predictions have any (``re_strict``). ABSA: both spans with their slots, and the sentiment.
* ED, Trig-I: the span of a trigger (``trig_i``); Trig-C: its event type too (``trig``).
* EAE, Arg-I: the span of an argument and the event type (``arg_i``); Arg-C: its role too (``arg``).
* EE: both ED and EAE.

What is found twice at one place counts once. *offset* is the main score: spans are the same where their characters
are, white space aside. *string* compares lower-cased words instead, as sets of each document (InstructUIE): a mention
counts once however often it occurs. See ``scoring`` for micro and macro.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spacy.tokens import Doc
from spacy.training import Example

from .corpora.conversion import SPAN_KEY
from .scoring import Counts, Triple, check_same_text, count_sets, token_boundaries
from .triplet_scoring import Level
from .uc_uie.doc_frames import check_frame
from .uc_uie.frames import CUT, MALFORMED, TRUNCATED, UNGROUNDABLE, UNKNOWN_TYPE, UNREAD, Schema
from .uc_uie.gold import gold_frames, task_of
from .uc_uie.instructions import check_task

Place = Callable[[Sequence[int]], Hashable]
"""What identifies the tokens [start, end) in a metric."""

TASK_METRICS: Mapping[str, tuple[str, ...]] = {
    "NER": ("ner",),
    "RE": ("re", "re_strict"),
    "ED": ("trig_i", "trig"),
    "EAE": ("arg_i", "arg"),
    "EE": ("trig_i", "trig", "arg_i", "arg"),
    "ABSA": ("absa",),
}

MAIN_METRICS = ("ner", "re", "trig", "arg", "absa")
"""One for each task; ``uie_f`` is the mean of their F1."""

METRICS = ("ner", "re", "re_strict", "trig_i", "trig", "arg_i", "arg", "absa")


@dataclass
class Metric:
    """A metric over a corpus. offset, string: counts by type. documents: offset counts of each document that has it."""

    offset: Level = field(default_factory=Level)
    string: Level = field(default_factory=Level)
    documents: list[Counts] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything but the documents as plain values; by type in offsets."""
        per_type = {name: counts.to_json() for name, counts in sorted(self.offset.per_label.items())}
        return {"offset": self.offset.to_json(), "string": self.string.to_json(), "per_type": per_type}


@dataclass
class Outputs:
    """What of the model's answers could not be used, by ``Doc._.uie_issues``, and how much there was.

    malformed: documents with an answer that is missing, cut short, or in part not in the form of frames. ungroundable:
    fillers that are not in the text, of so many ``fillers``. unknown_types: frames of types that nobody asked for, of
    so many ``frames``. Triggers that were given (EAE) are none of the model's, nor are events it gave no arguments.
    """

    documents: int = 0
    malformed: int = 0
    fillers: int = 0
    ungroundable: int = 0
    frames: int = 0
    unknown_types: int = 0

    def add(self, doc: Doc, task: str) -> None:
        """Count a document of a task."""
        kinds = Counter(issue["kind"] for issue in doc._.uie_issues)
        given = task == "EAE"  # the triggers: only the slots of an event are the model's
        frames = [frame for frame in doc._.frames if frame["slots"] or not given]
        filled = sum(len(frame["slots"]) + (not given and frame["pos"] is not None) for frame in frames)
        self.documents += 1
        self.malformed += any(kinds[kind] for kind in (MALFORMED, TRUNCATED, CUT, UNREAD))
        self.fillers += filled + kinds[UNGROUNDABLE]
        self.ungroundable += kinds[UNGROUNDABLE]
        self.frames += len(frames) + kinds[UNKNOWN_TYPE]
        self.unknown_types += kinds[UNKNOWN_TYPE]

    @property
    def shares(self) -> dict[str, float]:
        """malformed (of documents), ungroundable (of fillers) and unknown_type (of frames), from 0 to 1."""
        return {
            "malformed": self.malformed / max(1, self.documents),
            "ungroundable": self.ungroundable / max(1, self.fillers),
            "unknown_type": self.unknown_types / max(1, self.frames),
        }

    def to_json(self) -> dict[str, Any]:
        """Counts and shares as plain values."""
        return {**vars(self), "shares": self.shares}


@dataclass
class FrameScores:
    """The scores of a corpus: documents by task, and those metrics that gold has a task for."""

    tasks: Counter[str] = field(default_factory=Counter)
    metrics: dict[str, Metric] = field(default_factory=dict)
    outputs: Outputs = field(default_factory=Outputs)

    def mean_f1(self, kind: str = "offset") -> float | None:
        """The mean of the F1 of the main metrics that there are; kind: offset or string. None where there are none."""
        values = [getattr(self.metrics[name], kind).micro.f1 for name in MAIN_METRICS if name in self.metrics]
        return sum(values) / len(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "documents": dict(sorted(self.tasks.items())),
            "mean_f1": self.mean_f1(),
            "mean_string_f1": self.mean_f1("string"),
            "metrics": {name: self.metrics[name].to_json() for name in METRICS if name in self.metrics},
            "outputs": self.outputs.to_json(),
        }


def score_frames(examples: Iterable[Example], schema: Schema | None = None) -> FrameScores:
    """Score ``Doc._.frames`` of each prediction against its reference.

    schema: what is asked of documents that have no ``Doc._.uie_schema``. Gold is what training takes for it: of a
    reference with a schema, entities and relations where it has no frames, and the task of the schema where it has no
    ``uie_task``. References whose task is not known are left out. Predicted frames of types that the reference's own
    schema does not have are not scored: it is not annotated for them. Raises ``ValueError`` for another task, where
    prediction and reference are not the same text, white space aside, and for a frame that is none of its document.
    """
    scores = FrameScores()
    gold_is_typed = found_is_typed = False
    for example in examples:
        reference, predicted = example.reference, example.predicted
        own = schema if reference._.uie_schema is None else Schema.of(reference._.uie_schema)
        task = _task_of(reference, own)
        if not task:
            continue
        check_task(task)
        check_same_text(reference, predicted)
        asked = _asked_types(reference)
        frames = reference._.frames if own is None else gold_frames(reference, own.for_task(task))
        gold, found = _Frames(reference, frames, asked), _Frames(predicted, predicted._.frames, asked)
        scores.tasks[task] += 1
        scores.outputs.add(predicted, task)
        for name in TASK_METRICS[task]:
            metric = scores.metrics.setdefault(name, Metric())
            expected, given = gold.items(name), found.items(name)
            metric.offset.add(expected, given)
            metric.documents.append(count_sets(expected, given))
            metric.string.add(gold.items(name, as_string=True), found.items(name, as_string=True))
        gold_is_typed |= task == "RE" and gold.are_typed
        found_is_typed |= task == "RE" and found.are_typed
    if not (gold_is_typed and found_is_typed):
        scores.metrics.pop("re_strict", None)
    return scores


@dataclass(frozen=True)
class FrameScorer:
    """See ``make_frame_scorer``; an object rather than a closure, so that pipelines can be pickled."""

    def __call__(self, examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
        scores = score_frames(examples, kwargs.get("schema"))
        values: dict[str, Any] = {"uie_f": scores.mean_f1(), "uie_string_f": scores.mean_f1("string")}
        for name in METRICS:
            values |= _spacy_values(name, scores.metrics.get(name))
        for name, share in scores.outputs.shares.items():
            values[f"uie_{name}"] = share if scores.outputs.documents else None
        return values


def make_frame_scorer() -> FrameScorer:
    """The registered scorer ``spacy_ie_moe.frame_scorer.v1``: ``(examples, **kwargs) -> scores``.

    For each of ner, re, re_strict, trig_i, trig, arg_i, arg and absa: ``uie_ner_p``, ``_r`` and ``_f`` (offset micro)
    and ``uie_ner_string_f``, from 0 to 1, and ``uie_ner_per_type``. ``uie_f`` and ``uie_string_f`` are means over the
    tasks present: ner, re, trig, arg, absa. ``uie_malformed``, ``uie_ungroundable`` and ``uie_unknown_type`` are the
    shares of ``Outputs``. What belongs to a task that no reference is annotated for is ``None``.
    """
    return FrameScorer()


def _spacy_values(name: str, metric: Metric | None) -> dict[str, Any]:
    keys = [f"uie_{name}_{value}" for value in ("p", "r", "f", "string_f", "per_type")]
    if metric is None:
        return dict.fromkeys(keys)
    micro = metric.offset.micro
    per_type = {
        label: {"p": counts.precision, "r": counts.recall, "f": counts.f1}
        for label, counts in sorted(metric.offset.per_label.items())
    }
    values = (micro.precision, micro.recall, micro.f1, metric.string.micro.f1, per_type)
    return dict(zip(keys, values, strict=True))


def _task_of(reference: Doc, schema: Schema | None) -> str:
    """The task that a document is annotated for; "" where that is not known."""
    if reference._.uie_task or schema is None or len(schema.by_task()) > 1:
        return reference._.uie_task
    return task_of(reference, schema)


def _asked_types(reference: Doc) -> Collection[str] | None:
    """The types that a document is annotated for; None: any."""
    if reference._.uie_schema is None:
        return None
    return {*Schema.of(reference._.uie_schema).names, *(frame["type"] for frame in reference._.frames)}


class _Frames:
    """Frames of a document as sets of what the metrics count. asked: the types to keep, None for all."""

    def __init__(self, doc: Doc, frames: Iterable[Mapping[str, Any]], asked: Collection[str] | None) -> None:
        self.doc = doc
        self.frames = []
        for frame in frames:
            check_frame(doc, frame)
            if asked is None or frame["type"] in asked:
                self.frames.append(frame)
        self.types = _span_types(doc)
        self._offsets = token_boundaries(doc)

    @property
    def are_typed(self) -> bool:
        """Whether any span of a relation has an entity type."""
        spans = (tuple(slot["pos"]) for frame in self.frames for slot in frame["slots"])
        return any(self.types.get(span) for span in spans)

    def items(self, metric: str, *, as_string: bool = False) -> set[Triple]:
        """What ``metric`` counts."""
        place: Place = self._string if as_string else self._span
        if metric == "re_strict":
            place = self._typed(place)
        return {item for frame in self.frames for item in _ITEMS[metric](frame, place)}

    def _span(self, pos: Sequence[int]) -> Hashable:
        return self._offsets[pos[0]], self._offsets[pos[1]]

    def _string(self, pos: Sequence[int]) -> Hashable:
        return " ".join(self.doc[pos[0] : pos[1]].text.lower().split())

    def _typed(self, place: Place) -> Place:
        return lambda pos: (place(pos), self.types.get(tuple(pos), ""))


def _span_types(doc: Doc) -> dict[tuple[int, ...], str]:
    """The entity types of spans: those of frames without slots, else of relations, else of entities."""
    types = {tuple(frame["pos"]): frame["type"] for frame in doc._.frames if _is_entity(frame)}
    for relation in doc._.relations:
        for side in ("head", "tail"):
            if relation.get(f"{side}_label"):
                types.setdefault(tuple(relation[f"{side}_pos"]), relation[f"{side}_label"])
    for span in [*doc.spans.get(SPAN_KEY, ()), *doc.ents]:
        types.setdefault((span.start, span.end), span.label_)
    return types


def _is_entity(frame: Mapping[str, Any]) -> bool:
    return frame["pos"] is not None and not frame["slots"]


def _entities(frame: Mapping[str, Any], place: Place) -> Iterator[Triple]:
    if _is_entity(frame):
        yield Triple(place(frame["pos"]), None, frame["type"])


def _joined(frame: Mapping[str, Any], place: Place) -> Iterator[Triple]:
    """A relation or opinion, by all of its slots; words of its own do not matter."""
    if frame["slots"]:
        slots = frozenset((slot["type"], place(slot["pos"])) for slot in frame["slots"])
        yield Triple(slots, None, frame["type"])


def _trigger_spans(frame: Mapping[str, Any], place: Place) -> Iterator[Triple]:
    if frame["pos"] is not None:
        yield Triple(place(frame["pos"]), None, "any")


def _triggers(frame: Mapping[str, Any], place: Place) -> Iterator[Triple]:
    if frame["pos"] is not None:
        yield Triple(place(frame["pos"]), None, frame["type"])


def _argument_spans(frame: Mapping[str, Any], place: Place) -> Iterator[Triple]:
    for slot in frame["slots"]:
        yield Triple(place(slot["pos"]), None, frame["type"])


def _arguments(frame: Mapping[str, Any], place: Place) -> Iterator[Triple]:
    for slot in frame["slots"]:
        yield Triple(place(slot["pos"]), slot["type"], frame["type"])


_ITEMS: dict[str, Callable[[Mapping[str, Any], Place], Iterator[Triple]]] = {
    "ner": _entities,
    "re": _joined,
    "re_strict": _joined,
    "trig_i": _trigger_spans,
    "trig": _triggers,
    "arg_i": _argument_spans,
    "arg": _arguments,
    "absa": _joined,
}
