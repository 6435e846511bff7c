"""From documents with entities to documents with relations (GLiREL section 3.6), and the account of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, tee
from typing import Any

from spacy.tokens import Doc

from ..corpora.conversion import EXCLUDED_LABEL, ConversionReport, Tally
from .answers import Answer, read_answer
from .labels import NO_RELATION, label_key
from .pairs import Limits, Pair, Part, split_pairs
from .prompt import make_request, pair_names
from .records import to_glirel
from .sources import Passage

NO_ANSWER = "no usable answer"
NO_PLACE = "prompt too long for the model"
TOO_FAR = "too far apart"

Answers = Callable[[Iterable[str]], Iterator[Answer | None]]
"""Gives the answer to each request; None for one that cannot be asked."""


@dataclass
class SynthesisReport:
    """The account of a run. Every ordered pair got a label, NO RELATION included, or was left open for a reason.

    conversion: of the input, and the labels that were recorded. pairs: of all documents. lines: of all answers.
    no_relation: how many pairs are not related. excluded: how many pairs had each of the labels that are left out.
    prompts: how many there are.
    """

    conversion: ConversionReport = field(default_factory=ConversionReport)
    pairs: Tally = field(default_factory=Tally)
    lines: Tally = field(default_factory=Tally)
    no_relation: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    prompts: int = 0

    def rows(self) -> list[tuple[str, int | str]]:
        """The report as (what, count) lines of a table."""
        conversion = self.conversion
        share = self.no_relation / self.pairs.converted if self.pairs.converted else 0.0
        return [
            ("documents", conversion.docs),
            *_left_out(conversion.instances),
            ("entities", conversion.entities),
            *_left_out(conversion.mentions),
            ("prompts", self.prompts),
            ("answer lines", self.lines.read),
            *_left_out(self.lines),
            ("ordered pairs", self.pairs.read),
            *_left_out(self.pairs),
            ("labelled pairs", self.pairs.converted),
            (f"  {NO_RELATION}", f"{share:.1%}"),
            ("relation labels", len(conversion.labels)),
            ("  left out: excluded", len(self.excluded)),
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values, with the number of pairs of each label."""
        conversion = self.conversion
        return {
            "documents": conversion.docs,
            "entities": conversion.entities,
            "prompts": self.prompts,
            "pairs": self.pairs.read,
            "labelled_pairs": self.pairs.converted,
            "no_relation": self.no_relation,
            "left_out": {
                "documents": _most_common(conversion.instances.left_out),
                "entities": _most_common(conversion.mentions.left_out),
                "lines": _most_common(self.lines.left_out),
                "pairs": _most_common(self.pairs.left_out),
                "labels": _most_common(self.excluded),
            },
            "labels": _most_common(conversion.labels),
        }


def label_pairs(
    passages: Iterable[Passage],
    answers: Answers,
    *,
    limits: Limits,
    exclude: Collection[str],
    keep_case: bool,
    report: SynthesisReport,
) -> Iterator[tuple[Doc, dict[str, Any]]]:
    """Each document with its relations, and the same in GLiREL's JSONL.

    exclude: the ``label_key`` of labels that are left out. A pair with such a label, and one that has no label for
    another reason, is in the document's ``ignored_pairs``, or beyond its ``pair_limits``: it teaches neither a relation
    nor that there is none. A pair that is not related is an entry of the JSONL and, as everywhere in
    ``Doc._.relations``, no entry there.
    """
    # Answers come in batches, which may reach into the documents that follow.
    asked, tasks = tee(
        (passage, *split_pairs(passage.candidates, len(passage.builder.doc), limits)) for passage in passages
    )
    requests = (
        make_request(passage.builder.doc, passage.candidates, part) for passage, parts, _ in asked for part in parts
    )
    given = answers(requests)
    for passage, parts, far in tasks:
        labels: dict[Pair, str] = {}
        if far:
            passage.builder.doc.user_data["pair_limits"] = list(limits.between)
            report.pairs.left_out[TOO_FAR] += far
        for part, answer in zip(parts, islice(given, len(parts)), strict=True):
            labels |= _read(passage, part, answer, exclude, keep_case, report)
        relations = [(passage.span(head), passage.span(tail), label) for (head, tail), label in sorted(labels.items())]
        for head, tail, label in relations:
            if label == NO_RELATION:
                report.no_relation += 1
            else:
                passage.builder.add_relation(label, [(head, tail)])
        report.conversion.instances.converted += 1
        entities = [passage.span(row) for row in range(len(passage.candidates))]
        yield passage.builder.build(report.conversion), to_glirel(passage.builder.doc, entities, relations)
    next(given, None)  # all that was kept has been asked for, or this raises


def _read(
    passage: Passage,
    part: Part,
    answer: Answer | None,
    exclude: Collection[str],
    keep_case: bool,
    report: SynthesisReport,
) -> dict[Pair, str]:
    """The labels that an answer has for the pairs of a part; the other pairs are left open."""
    names = pair_names(passage.builder.doc, passage.candidates, part)
    reading = read_answer(answer or Answer(""), names, keep_case=keep_case)
    report.prompts += 1
    report.lines.add(reading.lines)
    labels = {}
    for index, pair in enumerate(part.pairs):
        label = reading.labels.get(index)
        if label is None:
            _leave_open(passage, [pair], NO_PLACE if answer is None else NO_ANSWER, report)
        elif label != NO_RELATION and label_key(label) in exclude:
            report.excluded[label] += 1
            _leave_open(passage, [pair], EXCLUDED_LABEL, report)
        else:
            labels[pair] = label
    report.pairs.converted += len(labels)
    return labels


def _leave_open(passage: Passage, pairs: Collection[Pair], reason: str, report: SynthesisReport) -> None:
    passage.builder.ignore((passage.span(head), passage.span(tail)) for head, tail in pairs)
    if pairs:
        report.pairs.left_out[reason] += len(pairs)


def _left_out(tally: Tally) -> list[tuple[str, int | str]]:
    return [(f"  left out: {reason}", count) for reason, count in sorted(tally.left_out.items())]


def _most_common(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
