"""What training documents say: gold entities and relations of documents and of their sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import permutations
from typing import Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from ..corpora.conversion import SPAN_KEY, too_far
from ..relations import check_relation
from .features import Entity, Extraction, Triplet
from .schema import Schema
from .sentences import Sentences

SpanKey = tuple[int, int, str]
"""Start, end (exclusive) and type of an entity, in tokens of a document."""


def gold_entities(doc: Doc, spans_key: str) -> Iterable[Span]:
    """``doc.spans[spans_key]`` where there is such a group, else that of the corpus converters, else ``doc.ents``."""
    for key in (spans_key, SPAN_KEY):
        if key in doc.spans:
            return doc.spans[key]
    return doc.ents


def collect_labels(examples: Iterable[Example], spans_key: str) -> dict[str, list[str]]:
    """The entity types and the relation labels of the references, sorted.

    Raises ``ValueError`` where there are none, for an entity without type and for a malformed relation.
    """
    entities: set[str] = set()
    relations: set[str] = set()
    for example in examples:
        doc = example.reference
        entities.update(span.label_ for span in gold_entities(doc, spans_key))
        for relation in doc._.relations:
            check_relation(doc, relation)
            relations.add(relation["label"])
    for where, found in ((f"doc.spans[{spans_key!r}] or doc.ents", entities), ("Doc._.relations", relations)):
        if not found:
            raise ValueError(f"the training documents have no {where}; expected some to learn labels from.")
    if "" in entities:
        raise ValueError("the training documents have an entity without a label; expected a type for each.")
    return {"entities": sorted(entities), "relations": sorted(relations)}


class GoldReader:
    """Gold documents as the networks learn from them.

    Entities and relations are looked up in the sentences of the predicted document, whose tokens they are aligned to.
    ``left_out`` counts what could not be, by reason.
    """

    def __init__(self, schema: Schema, spans_key: str) -> None:
        self.spans_key = spans_key
        self.types = {name: index for index, name in enumerate(schema.entities)}
        self.labels = {name: index for index, name in enumerate(schema.relations)}
        self.has_symmetric = bool(schema.symmetric)
        self.left_out: Counter[str] = Counter()

    def __call__(self, examples: list[Example], sentences: Sentences) -> list[Extraction]:
        """What is annotated in each sentence. Raises ``ValueError`` for labels that the network does not have."""
        readers = [_Document(self, example) for example in examples]
        found = [
            readers[doc].extraction(start, end)
            for doc, start, end in zip(sentences.owner, sentences.start, sentences.end, strict=True)
        ]
        for reader in readers:
            self.left_out.update(reader.losses())
        return found


class _Document:
    """The gold annotation of one example, in tokens of its predicted document."""

    def __init__(self, reader: GoldReader, example: Example) -> None:
        doc = example.reference
        place = _aligner(example)
        self.entities: dict[SpanKey, Entity] = {}
        self.relations: list[tuple[SpanKey, SpanKey, int]] = []
        self.unknown: list[tuple[SpanKey, SpanKey]] = []
        self.placed_entities = self.placed_relations = 0
        spans = [(span.start, span.end, span.label_) for span in gold_entities(doc, reader.spans_key)]
        keys: dict[SpanKey, SpanKey | None] = {}
        for start, end, label in spans:
            bounds = place(start, end)
            keys[start, end, label] = None if bounds is None else (*bounds, label)
            if bounds is not None:
                index = _index(reader.types, label, "entity type")
                self.entities[(*bounds, label)] = Entity(*bounds, index)
        by_position = {key[:2]: key for key in reversed(spans)}  # the first of several types at one place
        self.n_entities, self.n_relations = len(keys), 0
        for relation in doc._.relations:
            check_relation(doc, relation)
            index = _index(reader.labels, relation["label"], "relation label")
            head, tail = (_argument(relation, side, keys, by_position) for side in ("head", "tail"))
            if head is None or tail is None:
                reader.left_out["relations of spans that are no annotated entities"] += 1
            elif head == tail:
                reader.left_out["relations of an entity with itself"] += 1
            else:
                self._add_relation(keys[head], keys[tail], index)
        placed = {position: keys[key] for position, key in by_position.items()}
        for head_start, head_end, tail_start, tail_end in doc.user_data.get("ignored_pairs", ()):
            head, tail = placed.get((head_start, head_end)), placed.get((tail_start, tail_end))
            if head is not None and tail is not None:
                self.unknown.append((head, tail))
                if reader.has_symmetric:  # what is not annotated may be a relation that is learnt the other way round
                    self.unknown.append((tail, head))
        self.limits = doc.user_data.get("pair_limits")
        self.origins = {key: position for position, key in placed.items() if key is not None}

    def _add_relation(self, head: SpanKey | None, tail: SpanKey | None, label: int) -> None:
        self.n_relations += 1
        if head is not None and tail is not None:
            self.relations.append((head, tail, label))

    def extraction(self, start: int, end: int) -> Extraction:
        """What lies in the sentence of the tokens ``start`` to ``end``."""
        inside = [(key, entity) for key, entity in self.entities.items() if start <= entity.start and entity.end <= end]
        rows = {key: row for row, (key, _) in enumerate(inside)}
        triplets = {
            Triplet(rows[head], rows[tail], label)
            for head, tail, label in self.relations
            if head in rows and tail in rows
        }
        self.placed_entities += len(inside)
        self.placed_relations += sum(head in rows and tail in rows for head, tail, _ in self.relations)
        unknown = frozenset((rows[head], rows[tail]) for head, tail in self.unknown if head in rows and tail in rows)
        if self.limits is not None:
            known = {key: origin for key, origin in self.origins.items() if key in rows}
            unknown |= {
                (rows[head], rows[tail])
                for head, tail in permutations(known, 2)
                if too_far(known[head], known[tail], self.limits)
            }
        moved = [entity._replace(start=entity.start - start, end=entity.end - start) for _, entity in inside]
        return Extraction(moved, sorted(triplets), unknown)

    def losses(self) -> Counter[str]:
        return Counter(
            {
                "entities that cross a sentence or token border": self.n_entities - self.placed_entities,
                "relations between sentences or across a token border": self.n_relations - self.placed_relations,
            }
        )


def _argument(
    relation: Mapping, side: str, keys: Mapping[SpanKey, Any], by_position: Mapping[tuple[int, int], SpanKey]
) -> SpanKey | None:
    """The entity that a relation names: that of its type, else the first at its place, None where there is none."""
    start, end = relation[f"{side}_pos"]
    named = (start, end, relation.get(f"{side}_label") or "")
    return named if named in keys else by_position.get((start, end))


def _aligner(example: Example) -> Callable[[int, int], tuple[int, int] | None]:
    """What turns token offsets of the reference into those of the prediction; None where a border lies in a token."""
    reference, predicted = example.reference, example.predicted
    if [token.text for token in reference] == [token.text for token in predicted]:
        return lambda start, end: (start, end)
    to_predicted = example.alignment.y2x

    def place(start: int, end: int) -> tuple[int, int] | None:
        tokens = to_predicted[start:end]
        if not len(tokens):
            return None
        first, last = int(tokens.min()), int(tokens.max())
        same = _squeezed(predicted[first : last + 1]) == _squeezed(reference[start:end])
        return (first, last + 1) if same else None

    return place


def _squeezed(span: Span) -> str:
    """Its text without white space, in which prediction and reference may differ."""
    return "".join(span.text.split())


def _index(indices: Mapping[str, int], name: str, what: str) -> int:
    if name not in indices:
        known = ", ".join(list(indices)[:8])
        raise ValueError(f"the {what} {name!r} is not one that gmoe_rte was initialised with; expected one of {known}.")
    return indices[name]
