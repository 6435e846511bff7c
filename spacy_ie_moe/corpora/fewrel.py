"""FewRel: sentences with one marked pair of entities and its relation.

Source: Han et al., "FewRel: A Large-Scale Supervised Few-Shot Relation Classification Dataset", 2018.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from .conversion import (
    MALFORMED_INSTANCE,
    NO_MENTION,
    SELF_RELATION,
    ConversionReport,
    DocBuilder,
    LabelChoice,
    Part,
    Unconvertible,
    build_docs,
    checked_words,
    contiguous,
    convert_each,
    field_of,
    key_of,
    load_json,
    select_part,
)

BEYOND_LIMIT = "beyond the limit per relation"


class _Instance(NamedTuple):
    relation_id: str
    position: int
    data: Any


def read(
    path: str | Path,
    vocab: Vocab,
    *,
    labels: LabelChoice | None = None,
    part: Part = Part(),
    seed: int = 0,
    report: ConversionReport | None = None,
    limit: int | None = None,
    per_relation: int | None = None,
    by_sentence: bool = False,
) -> Iterator[Doc]:
    """The instances of a FewRel file, one ``Doc`` each; ``by_sentence``, those of the same sentence as one.

    The relation holds between the first mentions of head and tail; pairs with their other mentions are
    ignored ones. Instances of a relation that is not chosen are left out wholly. ``per_relation``: a random
    sample of at most so many instances of each relation, taken within the part. ``limit``: of these, a random
    sample of at most so many. The source id is ``relation id/index``. Raises ``FileNotFoundError`` and ``ValueError``.
    """
    if per_relation is not None and per_relation < 1:
        raise ValueError(f"per_relation is {per_relation}; expected a number of at least 1.")
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    by_relation = load_json(path, dict, "a map of relation id to instances with tokens, h and t")
    instances = select_part(
        _instances(by_relation, path), lambda instance: key_of(instance.data, "tokens"), part, seed, report
    )
    chosen = _sample(instances, per_relation, seed, report)
    groups = _by_sentence(chosen) if by_sentence else ([instance] for instance in chosen)
    builders = convert_each(groups, lambda group: _convert(group, vocab, labels), report)
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _instances(by_relation: dict[str, Any], path: str | Path) -> Iterator[_Instance]:
    for relation_id, instances in by_relation.items():
        if not isinstance(instances, list):
            raise ValueError(
                f"{path} holds a {type(instances).__name__} for relation {relation_id!r}; expected a list of instances."
            )
        for index, data in enumerate(instances):
            yield _Instance(relation_id, index, data)


def _sample(
    instances: Iterable[_Instance], limit: int | None, seed: int, report: ConversionReport
) -> Iterator[_Instance]:
    """At most ``limit`` instances of each relation; what one gives does not depend on the other relations."""
    if limit is None:
        yield from instances
        return
    by_relation: dict[str, list[_Instance]] = {}
    for instance in instances:
        by_relation.setdefault(instance.relation_id, []).append(instance)
    for relation_id, group in by_relation.items():
        chosen = random.Random(f"{seed}/{relation_id}").sample(group, min(limit, len(group)))
        yield from sorted(chosen, key=lambda instance: instance.position)
        report.instances.left_out[BEYOND_LIMIT] += len(group) - len(chosen)


def _by_sentence(instances: Iterable[_Instance]) -> Iterator[list[_Instance]]:
    groups: dict[str, list[_Instance]] = {}
    for instance in instances:
        groups.setdefault(json.dumps(key_of(instance.data, "tokens")), []).append(instance)
    yield from groups.values()


def _convert(instances: list[_Instance], vocab: Vocab, labels: LabelChoice) -> DocBuilder:
    """The sentence of some instances. ``Unconvertible`` if none can be converted, with the reason of the last."""
    builder: DocBuilder | None = None
    reasons = []
    for instance in instances:
        try:
            words = checked_words(field_of(instance.data, "tokens", list))
            if builder is None:
                builder = DocBuilder(vocab, words, source=f"{instance.relation_id}/{instance.position}")
            _add(builder, instance, labels)
        except Unconvertible as error:
            reasons.append(error.reason)
    if builder is None or len(reasons) == len(instances):
        raise Unconvertible(reasons[-1])
    for reason in reasons:
        builder.leave_out_relation(reason)
    return builder


def _add(builder: DocBuilder, instance: _Instance, labels: LabelChoice) -> None:
    """One instance; the pairs of one whose label is not chosen are ignored ones."""
    unchosen: Unconvertible | None = None
    label = ""
    try:
        label = labels.resolve(instance.relation_id)
    except Unconvertible as error:
        unchosen = error
    heads, tails = (_mentions(builder, field_of(instance.data, side, list)) for side in ("h", "t"))
    first = (heads[0], tails[0])
    if (first[0].start, first[0].end) == (first[1].start, first[1].end):
        raise Unconvertible(SELF_RELATION)
    if unchosen is not None:
        builder.ignore(product(heads, tails))
        raise unchosen
    builder.add_relation(label, [first], [pair for pair in product(heads, tails) if pair != first])


def _mentions(builder: DocBuilder, entity: list[Any]) -> list[Span]:
    """The spans of ``[name, id, [token indices, ...]]``; the first mention must be convertible."""
    if len(entity) != 3 or not isinstance(entity[2], list):
        raise Unconvertible(MALFORMED_INSTANCE)
    if not entity[2]:
        raise Unconvertible(NO_MENTION)
    contiguous(entity[2][0], len(builder.doc))  # raises: without its first mention the instance has no relation
    return [span for span in (_mention(builder, indices) for indices in entity[2]) if span is not None]


def _mention(builder: DocBuilder, indices: Any) -> Span | None:
    try:
        extent = contiguous(indices, len(builder.doc))
    except Unconvertible as error:
        builder.mentions.left_out[error.reason] += 1
        return None
    return builder.add_mention(*extent)
