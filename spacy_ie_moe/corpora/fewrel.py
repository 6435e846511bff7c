"""FewRel: sentences with one marked pair of entities and its relation.

Source: Han et al., "FewRel: A Large-Scale Supervised Few-Shot Relation Classification Dataset", 2018.
"""

from __future__ import annotations

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
) -> Iterator[Doc]:
    """The instances of a FewRel file, one ``Doc`` each.

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
    builders = convert_each(chosen, lambda instance: _convert(instance, vocab, labels), report)
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


def _convert(instance: _Instance, vocab: Vocab, labels: LabelChoice) -> DocBuilder:
    label = labels.resolve(instance.relation_id)
    words = checked_words(field_of(instance.data, "tokens", list))
    builder = DocBuilder(vocab, words, source=f"{instance.relation_id}/{instance.position}")
    heads, tails = (_mentions(builder, field_of(instance.data, side, list)) for side in ("h", "t"))
    first = (heads[0], tails[0])
    if (first[0].start, first[0].end) == (first[1].start, first[1].end):
        raise Unconvertible(SELF_RELATION)
    builder.add_relation(label, [first], [pair for pair in product(heads, tails) if pair != first])
    return builder


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
