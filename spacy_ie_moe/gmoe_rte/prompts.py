"""Which labels a sentence is read with, for backbones that are told what to look for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .backbones.triplets import SpanTriplet, to_extraction
from .features import Entity, Extraction, Triplet
from .schema import Schema

if TYPE_CHECKING:
    from .sentences import Sentences


def draw_prompts(
    gold: Sequence[Extraction],
    schema: Schema,
    rng: np.random.Generator,
    *,
    at_once: int,
    negatives: int,
    absent: float = 0.0,
) -> tuple[list[list[str]], list[Extraction]]:
    """The labels that each sentence is learnt with, and the gold whose labels are places in these.

    A sentence's own labels, and others, from none to ``negatives`` for each of its triplets, in random order; at most
    ``at_once``. The others are the batch's, and where it has too few, any of the schema's. Where it has no labels, and
    with the probability ``absent`` where it has, only others, from one to ``at_once``: so most rounds are where there
    are more labels than one prompt holds. What holds of labels that are left out is left out. Symmetric relations have
    the argument that is first in the text as head. Source: Re-Cent, which has none absent, and others of the batch
    only.
    """
    own = [sorted({triplet.label for triplet in extraction.triplets}) for extraction in gold]
    seen = {label for labels in own for label in labels}
    prompts, placed = [], []
    for labels, extraction in zip(own, gold, strict=True):
        # Those of the batch come as often as they are in the data; the rest is for batches that have too few.
        others = _shuffled(seen - {*labels}, rng) + _shuffled({*range(len(schema.relations))} - seen, rng)
        if labels and (rng.random() >= absent or not others):
            wanted = int(rng.integers(negatives + 1)) * len(extraction.triplets)
            chosen = _shuffled(labels, rng)[:at_once]
        else:
            wanted, chosen = int(rng.integers(at_once)) + 1, []
        chosen += others[: min(wanted, at_once - len(chosen))]
        places = {label: place for place, label in enumerate(_shuffled(chosen, rng))}
        prompts.append([schema.relations[label] for label in places])
        triplets = [_ordered(triplet, extraction, schema) for triplet in extraction.triplets if triplet.label in places]
        moved = sorted({triplet._replace(label=places[triplet.label]) for triplet in triplets})
        placed.append(replace(extraction, triplets=moved))
    return prompts, placed


def with_labels(
    sentences: Sentences, rounds: Sequence[Sequence[Sequence[str]]]
) -> Iterator[tuple[list[int], Sentences]]:
    """The sentences of each round, by their places, with the labels that they are asked for in it.

    rounds: those of each sentence.
    """
    for round_ in range(max(map(len, rounds), default=0)):
        places = [place for place, of_sentence in enumerate(rounds) if len(of_sentence) > round_]
        prompts = [rounds[place][round_] for place in places]
        yield places, replace(sentences.select(places), prompts=prompts)


def join_prompts(parts: Iterable[tuple[Sequence[str], Extraction]], schema: Schema) -> Extraction:
    """What was found of a sentence with the labels of each round, as one; labels become places in ``schema``.

    An entity that is found twice has the type of the better one. Arguments of different rounds may overlap.
    """
    found: list[tuple[SpanTriplet, float]] = []
    entities: dict[tuple[int, int], Entity] = {}
    places = {label: place for place, label in enumerate(schema.relations)}
    for labels, extraction in parts:
        spans = [(entity.start, entity.end) for entity in extraction.entities]
        found += [
            (SpanTriplet(spans[head], spans[tail], places[labels[label]]), score)
            for head, tail, label, score in extraction.triplets
        ]
        for span, entity in zip(spans, extraction.entities, strict=True):
            if span not in entities or entity.score > entities[span].score:
                entities[span] = entity
    return to_extraction(found, entities.values(), schema)


def _shuffled(labels: Iterable[int], rng: np.random.Generator) -> list[int]:
    return rng.permutation(np.array(sorted(labels), dtype=np.int64)).tolist()


def _ordered(triplet: Triplet, extraction: Extraction, schema: Schema) -> Triplet:
    head, tail = extraction.entities[triplet.head], extraction.entities[triplet.tail]
    if schema.is_turned(triplet.label, head[:2], tail[:2]):
        return triplet._replace(head=triplet.tail, tail=triplet.head)
    return triplet
