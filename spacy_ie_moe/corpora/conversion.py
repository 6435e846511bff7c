"""What every converter shares: building documents, choosing labels and parts, and accounting for losses.

A converter is one module with one generator, ``read(path, vocab, *, labels, part, seed, report, limit, ...)``.
Each document it yields has

- ``doc.spans["entities"]``: all mentions; ``doc.ents``: the same, the longest where mentions overlap;
- ``doc._.relations``: the gold relations with score 1.0;
- ``doc.user_data["source"]``: a short id of the instance;
- ``doc.user_data["ignored_pairs"]``: ``[head_start, head_end, tail_start, tail_end]`` of each pair for which
  a relation holds that is not recorded (its label was excluded, say). What such a pair lacks is no negative;
- ``doc.user_data["pair_limits"]``, where pairs that are ``too_far`` apart were not looked at: they are ignored, too;
- ``doc.user_data["annotated_labels"]``, where not all labels were looked for: those that were. Only they have
  negatives;
- where asked for, ``doc._.mention_clusters`` and ``doc._.document_relations``, the gold relations between clusters.

Frames (``doc._.frames``) are the matter of ``frames.py``.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from spacy.tokens import Doc, Span
from spacy.util import filter_spans
from spacy.vocab import Vocab

from ..relations import Relation, make_relation, relation_key, sort_relations

SPAN_KEY = "entities"
UNTYPED = "ENTITY"
UNITS = ("document", "sentence")
"""What may become one ``Doc`` where the source has documents of several sentences."""

BEYOND_LIMIT = "beyond the limit"
CROSSES_SENTENCES = "in more than one sentence"
DUPLICATE_MENTION = "duplicate mention"
DUPLICATE_RELATION = "duplicate relation"
EXCLUDED_LABEL = "excluded label"
GAPS = "mention is not contiguous"
MALFORMED_INSTANCE = "malformed instance"
MALFORMED_MENTION = "malformed mention"
MALFORMED_RELATION = "malformed relation"
NO_ARGUMENT = "argument is no converted entity"
NO_MENTION = "empty mention list"
NO_TOKENS = "no tokens"
NOT_IN_PART = "not in the part"
OUTSIDE_TEXT = "offsets outside the text"
SELF_RELATION = "self relation"
UNKNOWN_RELATION = "unknown relation id"
UNKNOWN_TYPE = "unknown type"

Pair = tuple[Span, Span]
T = TypeVar("T")
R = TypeVar("R")


class Unconvertible(Exception):
    """Something of the source cannot be converted; the message is the reason that the report counts."""

    @property
    def reason(self) -> str:
        return str(self)


@dataclass
class Tally:
    """How many things of one kind were converted, and how many were left out for which reason."""

    converted: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def read(self) -> int:
        """How many were in the source."""
        return self.converted + sum(self.left_out.values())

    def add(self, other: Tally) -> None:
        self.converted += other.converted
        self.left_out.update(other.left_out)


@dataclass
class ConversionReport:
    """The account of a conversion: everything read was either converted or left out for a counted reason.

    instances: what becomes a document. mentions, relations: annotations of the converted instances (one that
    is left out takes its annotations with it). frames, slots: annotated events or opinions and their arguments
    (a frame that is left out takes its slots with it). entities: spans in ``doc.spans["entities"]``. labels:
    entries of ``doc._.relations`` by label; one annotated relation may become several. frame_types, fillers:
    entries of ``doc._.frames`` by type, and how many slots they have. notes: what was converted with a change.
    """

    instances: Tally = field(default_factory=Tally)
    mentions: Tally = field(default_factory=Tally)
    relations: Tally = field(default_factory=Tally)
    frames: Tally = field(default_factory=Tally)
    slots: Tally = field(default_factory=Tally)
    entities: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    frame_types: Counter[str] = field(default_factory=Counter)
    fillers: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def docs(self) -> int:
        """How many documents were made."""
        return self.instances.converted

    def rows(self) -> list[tuple[str, int]]:
        """The report as (what, count) lines of a table."""
        rows = [
            ("documents", self.docs),
            ("entities", self.entities),
            ("relations", sum(self.labels.values())),
            ("relation labels", len(self.labels)),
        ]
        if self.frame_types:
            rows.append(("frames", sum(self.frame_types.values())))
            rows.append(("frame types", len(self.frame_types)))
            rows.append(("slots", self.fillers))
        for kind, tally in (
            ("instances", self.instances),
            ("mentions", self.mentions),
            ("annotated relations", self.relations),
            ("annotated frames", self.frames),
            ("annotated slots", self.slots),
        ):
            if tally.read or tally is self.instances:  # KnowledgeNet, for one, lists no mentions
                rows.append((f"{kind} read", tally.read))
            rows.extend((f"  left out: {reason}", count) for reason, count in sorted(tally.left_out.items()))
        rows.extend((f"note: {note}", count) for note, count in sorted(self.notes.items()))
        return rows


@dataclass
class LabelChoice:
    """Which relations (or entities, events, opinions) are converted, and under which label.

    names: relation id to label; None keeps ids as labels. only: the labels to keep, None for all. exclude:
    the labels to leave out. seen: the labels that were met, chosen or not.
    """

    names: Mapping[str, str] | None = None
    only: Collection[str] | None = None
    exclude: Collection[str] = ()
    seen: set[str] = field(default_factory=set, repr=False)

    def unseen(self) -> list[str]:
        """The labels to keep or to leave out that no relation had so far: misspelt ones, perhaps."""
        return sorted({*(self.only or ()), *self.exclude} - self.seen)

    def resolve(self, relation_id: Any, default: Callable[[str], str] = str, *, unknown: str = UNKNOWN_RELATION) -> str:
        """The label of ``relation_id``; ``default`` makes it where there are no names.

        Raises ``Unconvertible`` where the id is ``unknown`` or its label is not chosen.
        """
        if not isinstance(relation_id, str) or not _is_text(relation_id):
            raise Unconvertible(unknown)
        if self.names is not None and relation_id not in self.names:
            raise Unconvertible(unknown)
        label = default(relation_id) if self.names is None else self.names[relation_id]
        self.seen.add(label)
        if label in self.exclude or (self.only is not None and label not in self.only):
            raise Unconvertible(EXCLUDED_LABEL)
        return label


@dataclass(frozen=True)
class Part:
    """A slice of the shuffled instances, in fractions; with one seed, separate parts share no text."""

    start: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= 1:
            raise ValueError(f"part is {self.start:g}:{self.stop:g}; expected two fractions A:B with 0 <= A < B <= 1.")

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part written ``A:B``, for example ``0:0.8``."""
        start, _, stop = text.partition(":")
        try:
            return cls(float(start), float(stop))
        except ValueError:
            raise ValueError(
                f"part is {text!r}; expected two fractions A:B with 0 <= A < B <= 1, for example 0:0.8."
            ) from None


def select_part(
    instances: Iterable[T], key: Callable[[T], Any], part: Part, seed: int, report: ConversionReport
) -> Iterator[T]:
    """The instances of ``part``, in their order; the others are counted in the report.

    Instances of equal ``key`` (a JSON value) stay together, so that no text is in two parts.
    """
    instances = list(instances)
    keys = [json.dumps(key(instance)) for instance in instances]
    groups = list(dict.fromkeys(keys))
    random.Random(seed).shuffle(groups)
    chosen = set(groups[round(part.start * len(groups)) : round(part.stop * len(groups))])
    for instance, its_key in zip(instances, keys, strict=True):
        if its_key in chosen:
            yield instance
        else:
            report.instances.left_out[NOT_IN_PART] += 1


class DocBuilder:
    """One document in the making, with its own account, which reaches the report when the document is done.

    words: from ``checked_words``. spaces: whether a space follows each word; guessed where None.
    """

    def __init__(
        self,
        vocab: Vocab,
        words: Sequence[str],
        *,
        source: str,
        spaces: Sequence[bool] | None = None,
        sent_starts: Sequence[bool] | None = None,
    ) -> None:
        self.doc = Doc(
            vocab,
            words=list(words),
            spaces=guess_spaces(words) if spaces is None else list(spaces),
            sent_starts=None if sent_starts is None else list(sent_starts),
        )
        self.doc.user_data["source"] = source.encode("utf8", "replace").decode("utf8")
        self.mentions = Tally()
        self.relations = Tally()
        self.notes: Counter[str] = Counter()
        self._spans: dict[tuple[int, int, str], Span] = {}
        self._relations: dict[tuple[int, int, int, int, str], Any] = {}
        self._ignored: dict[tuple[int, int, int, int], None] = {}

    def span(self, start: Any, end: Any, label: Any = UNTYPED) -> Span:
        """The entity at tokens ``[start, end)``, made if it is new; not counted. Raises ``Unconvertible``."""
        if not (isinstance(label, str) and label and _is_text(label)):
            raise Unconvertible(MALFORMED_MENTION)
        start, end = self.extent(start, end)
        key = (start, end, label)
        if key not in self._spans:
            self._spans[key] = Span(self.doc, start, end, label=label)
        return self._spans[key]

    def extent(self, start: Any, end: Any) -> tuple[int, int]:
        """``start`` and ``end`` if they are the tokens ``[start, end)`` of the document; else ``Unconvertible``."""
        if not (is_offset(start) and is_offset(end)):
            raise Unconvertible(MALFORMED_MENTION)
        if not 0 <= start < end <= len(self.doc):
            raise Unconvertible(OUTSIDE_TEXT)
        return start, end

    def add_mention(self, start: Any, end: Any, label: Any = UNTYPED) -> Span | None:
        """One annotated mention, counted; None where it cannot be converted."""
        known = len(self._spans)
        try:
            span = self.span(start, end, label)
        except Unconvertible as error:
            self.mentions.left_out[error.reason] += 1
            return None
        if len(self._spans) == known:
            self.mentions.left_out[DUPLICATE_MENTION] += 1
        else:
            self.mentions.converted += 1
        return span

    def add_relation(self, label: str, pairs: Iterable[Pair], unrecorded: Iterable[Pair] = ()) -> None:
        """One annotated relation, counted: an entry for each of ``pairs``; the ``unrecorded`` are ignored."""
        self.ignore(unrecorded)
        new = _relations_between(label, pairs)
        if not new:
            self.relations.left_out[SELF_RELATION] += 1
            return
        if new.keys() <= self._relations.keys():
            self.relations.left_out[DUPLICATE_RELATION] += 1
            return
        self._relations.update(new)
        self.relations.converted += 1

    def derive_relations(self, label: str, pairs: Iterable[Pair]) -> None:
        """Relations that follow from something else than an annotated relation, and are not counted as such."""
        self._relations.update(_relations_between(label, pairs))

    def leave_out_relation(self, reason: str, pairs: Iterable[Pair] = ()) -> None:
        """One annotated relation that is not converted, counted: its pairs are ignored ones."""
        self.ignore(pairs)
        self.relations.left_out[reason] += 1

    def ignore(self, pairs: Iterable[Pair]) -> None:
        """Pairs that have a relation which is not recorded."""
        self._ignored.update(dict.fromkeys((*_extent(head), *_extent(tail)) for head, tail in pairs))

    def build(self, report: ConversionReport) -> Doc:
        """The finished document; its account, but for the instance, is added to ``report``."""
        spans = sorted(self._spans.values(), key=lambda span: (span.start, span.end, span.label_))
        relations = sort_relations(self._relations.values())
        self.doc.spans[SPAN_KEY] = spans
        self.doc.set_ents(filter_spans(spans))
        self.doc._.relations = relations
        self.doc.user_data["ignored_pairs"] = [list(pair) for pair in sorted(self._ignored)]
        report.mentions.add(self.mentions)
        report.relations.add(self.relations)
        report.entities += len(spans)
        report.labels.update(relation["label"] for relation in relations)
        report.notes.update(self.notes)
        return self.doc


def too_far(head: tuple[int, int], tail: tuple[int, int], limits: tuple[int, int | None] | None) -> bool:
    """Whether two places [start, end) are further apart than ``limits`` (``user_data["pair_limits"]``) allow.

    limits: most tokens that hold both, and most between their starts; None for any number.
    """
    if limits is None:
        return False
    most, distance = limits
    apart = abs(head[0] - tail[0])
    return max(head[1], tail[1]) - min(head[0], tail[0]) > most or (distance is not None and apart > distance)


def convert_each(instances: Iterable[T], convert: Callable[[T], R], report: ConversionReport) -> Iterator[R]:
    """What ``convert`` makes of each instance; those that are ``Unconvertible`` are counted in the report."""
    for instance in instances:
        try:
            converted = convert(instance)
        except Unconvertible as error:
            report.instances.left_out[error.reason] += 1
        else:
            yield converted


def build_docs(
    builders: Iterable[DocBuilder], *, limit: int | None, seed: int, report: ConversionReport
) -> Iterator[Doc]:
    """The finished documents with their accounts: all, one at a time, or a random sample of at most ``limit``.

    The order stays; those beyond the limit are counted in the report. Raises ``ValueError``.
    """
    if limit is not None:
        if limit < 1:
            raise ValueError(f"limit is {limit}; expected a number of at least 1.")
        builders = list(builders)
        beyond = max(0, len(builders) - limit)
        if beyond:
            report.instances.left_out[BEYOND_LIMIT] += beyond
        chosen = sorted(random.Random(seed).sample(range(len(builders)), len(builders) - beyond))
        builders = [builders[index] for index in chosen]
    for builder in builders:
        report.instances.converted += 1
        yield builder.build(report)


def load_json(path: str | Path, kind: type, shape: str) -> Any:
    """The JSON value in the file, a ``kind``; ``shape`` says in errors what was expected.

    Raises ``FileNotFoundError`` and ``ValueError``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; expected {shape}.")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); expected {shape}.") from None
    if not isinstance(value, kind):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}; expected {shape}.")
    return value


def load_json_lines(path: str | Path, shape: str) -> Iterator[Any]:
    """The JSON value of each line that is not blank; of a line that is none, its text.

    ``shape`` says in errors what was expected. Raises ``FileNotFoundError``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; expected {shape}.")
    with path.open("rb") as lines:  # bytes: one line of another encoding loses no other
        for line in filter(None, map(bytes.strip, lines)):
            try:
                yield json.loads(line)
            except (ValueError, RecursionError):
                yield line.decode("utf8", "replace")


def load_lines(path: str | Path, shape: str) -> list[str]:
    """The lines of a text file; ``shape`` says in errors what was expected.

    Raises ``FileNotFoundError`` and ``ValueError``.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; expected {shape}.")
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except ValueError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); expected {shape}.") from None


def load_names(path: str | Path) -> dict[str, str]:
    """Relation id to label from a JSON file.

    Read are ``{id: label}`` (Re-DocRED), ``{id: [label, description]}`` (FewRel) and SpERT's types file,
    ``{"relations": {id: {"verbose": label}}}``.
    """
    shape = "a map of relation id to label"
    value = load_json(path, dict, shape)
    entries = value["relations"] if isinstance(value.get("relations"), dict) else value
    names = {}
    for relation_id, entry in entries.items():
        label = entry
        if isinstance(entry, list) and entry:
            label = entry[0]
        elif isinstance(entry, dict):
            label = entry.get("verbose")
        if not isinstance(label, str) or not label.strip() or not _is_text(label):
            raise ValueError(f"{path} names relation {relation_id!r} with {entry!r}; expected {shape}.")
        names[relation_id] = label
    return names


def checked_words(value: Any) -> list[str]:
    """``value`` if it is a list of words that a ``Doc`` can hold; else ``Unconvertible``."""
    if not isinstance(value, list) or not all(isinstance(word, str) and word for word in value):
        raise Unconvertible(MALFORMED_INSTANCE)
    if not all(map(_is_text, value)):
        raise Unconvertible(MALFORMED_INSTANCE)
    if not value:
        raise Unconvertible(NO_TOKENS)
    return value


def field_of(instance: Any, name: str, kind: type) -> Any:
    """``instance[name]``, a ``kind``; else ``Unconvertible``."""
    if not isinstance(instance, dict) or not isinstance(instance.get(name), kind):
        raise Unconvertible(MALFORMED_INSTANCE)
    return instance[name]


def key_of(instance: Any, name: str) -> Any:
    """What tells an instance's text from others: ``instance[name]``, or all of a malformed instance."""
    return instance.get(name, instance) if isinstance(instance, dict) else instance


def contiguous(indices: Any, length: int) -> tuple[int, int]:
    """``[start, end)`` of a list of token indices in a text of ``length`` tokens; else ``Unconvertible``."""
    if not isinstance(indices, list) or not all(map(is_offset, indices)):
        raise Unconvertible(MALFORMED_MENTION)
    if not indices:
        raise Unconvertible(NO_MENTION)
    start, end = min(indices), max(indices) + 1
    if start < 0 or end > length:
        raise Unconvertible(OUTSIDE_TEXT)
    if sorted(indices) != list(range(start, end)):
        raise Unconvertible(GAPS)
    return start, end


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise ``ValueError`` unless ``value``, the option ``name``, is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; expected {' or '.join(map(repr, choices))}.")


def is_offset(value: Any) -> bool:
    """Whether ``value`` is an integer (``True`` is none)."""
    return isinstance(value, int) and not isinstance(value, bool)


_NO_SPACE_BEFORE = frozenset([*".,;:!?%)]}'", "''", "'s", "n't", "'re", "'ve", "'ll", "'d", "'m"])
_NO_SPACE_AFTER = frozenset([*"([{$£€", "``"])


def guess_spaces(words: Sequence[str]) -> list[bool]:
    """Whether a space follows each word, for sources that give words only: none around clear punctuation."""
    return [
        bool(after) and after not in _NO_SPACE_BEFORE and word not in _NO_SPACE_AFTER
        for word, after in zip(words, [*words[1:], ""], strict=False)
    ]


def _relations_between(label: str, pairs: Iterable[Pair]) -> dict[tuple[int, int, int, int, str], Relation]:
    """A relation for each pair of different spans, by its key."""
    made = (make_relation(head, tail, label) for head, tail in pairs if _extent(head) != _extent(tail))
    return {relation_key(relation): relation for relation in made}


def _extent(span: Span) -> tuple[int, int]:
    return span.start, span.end


def _is_text(text: str) -> bool:
    """Whether spaCy can store ``text``: JSON may hold lone surrogates, which have no UTF-8."""
    try:
        text.encode("utf8")
    except UnicodeEncodeError:
        return False
    return True
