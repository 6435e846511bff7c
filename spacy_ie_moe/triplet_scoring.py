"""Ent, Rel and Rel+: the scores of joint entity and relation extraction, in the three ways the field counts them.

* Ent: span and type of an entity agree. Rel: both spans, the label and the direction. Rel+: Rel, and both types.
* canonical: symmetric relations are turned so that the argument first in the text is the head (SpERT, SINET).
  directed: they count as annotated (PURE, DyGIE). doubled: they count in both directions, in gold and in prediction
  (PL-Marker), so a symmetric relation weighs twice.

All are sets per document; see ``scoring`` for how spans are compared and what micro and macro mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spacy.tokens import Doc, Span
from spacy.training import Example

from .gmoe_rte.gold import gold_entities
from .scoring import Counts, Means, Triple, check_same_text, count_labels, entity_set, macro_average, relation_triples

MODES = ("canonical", "directed", "doubled")
LEVELS = ("ent", "rel", "rel_plus")


@dataclass
class Level:
    """The counts of one level, by label."""

    per_label: dict[str, Counts] = field(default_factory=dict)

    def add(self, gold: Iterable[Triple], predicted: Iterable[Triple]) -> None:
        for label, counts in count_labels(gold, predicted).items():
            self.per_label[label] = self.per_label.get(label, Counts()) + counts

    @property
    def micro(self) -> Counts:
        """Counts over all labels."""
        return sum(self.per_label.values(), Counts())

    @property
    def macro(self) -> Means:
        """Means over the labels that occur in gold."""
        return macro_average(counts for counts in self.per_label.values() if counts.support)

    def to_json(self) -> dict[str, Any]:
        """Micro and macro as plain values."""
        return {"micro": self.micro.to_json(), "macro": self.macro._asdict()}


@dataclass(frozen=True)
class TripletScores:
    """Scores by mode and level: ``scores["canonical"]["rel_plus"].micro.f1``."""

    modes: Mapping[str, Mapping[str, Level]]

    def __getitem__(self, mode: str) -> Mapping[str, Level]:
        return self.modes[mode]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; per label in the canonical mode."""
        scores: dict[str, Any] = {
            mode: {name: level.to_json() for name, level in levels.items()} for mode, levels in self.modes.items()
        }
        scores["per_label"] = {
            name: {label: counts.to_json() for label, counts in sorted(level.per_label.items())}
            for name, level in self["canonical"].items()
        }
        return scores


def score_triplets(
    examples: Iterable[Example], *, symmetric: Collection[str] = (), spans_key: str = "gmoe_rte"
) -> TripletScores:
    """Score entities and ``Doc._.relations`` of each example's prediction against its reference.

    symmetric: labels of which head and tail can be swapped. spans_key: the group of ``doc.spans`` that holds the
    entities; where gold has none, they are what ``gold_entities`` says. Raises ``ValueError`` when prediction and
    reference are not the same text, or when a relation is none of its document.
    """
    scores = TripletScores({mode: {level: Level() for level in LEVELS} for mode in MODES})
    for example in examples:
        reference, predicted = example.reference, example.predicted
        check_same_text(reference, predicted)
        sides = [
            _Side(reference, list(gold_entities(reference, spans_key))),
            _Side(predicted, list(predicted.spans.get(spans_key, predicted.ents))),
        ]
        for mode, levels in scores.modes.items():
            levels["ent"].add(*(side.entities() for side in sides))
            levels["rel"].add(*(side.relations(symmetric, mode, strict=False) for side in sides))
            levels["rel_plus"].add(*(side.relations(symmetric, mode, strict=True) for side in sides))
    return scores


@dataclass(frozen=True)
class _Side:
    """Gold or prediction: a document and its entities."""

    doc: Doc
    spans: list[Span]

    def entities(self) -> set[Triple]:
        return {Triple(start, end, label) for start, end, label in entity_set(self.doc, self.spans)}

    def relations(self, symmetric: Collection[str], mode: str, *, strict: bool) -> set[Triple]:
        # Of several types at one place the first counts, which is the one that is learnt.
        types = {(span.start, span.end): span.label_ for span in reversed(self.spans)}
        turned = symmetric if mode == "canonical" else ()
        triples = relation_triples(self.doc, symmetric=turned, strict=strict, types=types)
        return _doubled(triples, symmetric) if mode == "doubled" else triples


def _doubled(triples: set[Triple], symmetric: Collection[str]) -> set[Triple]:
    """The triples, and the reverse of the symmetric ones."""
    return triples | {Triple(tail, head, label) for head, tail, label in triples if label in symmetric}


@dataclass(frozen=True)
class TripletScorer:
    """See ``make_triplet_scorer``; an object rather than a closure, so that pipelines can be pickled."""

    def __call__(
        self,
        examples: Iterable[Example],
        *,
        symmetric: Collection[str] = (),
        spans_key: str = "gmoe_rte",
        **kwargs: Any,
    ) -> dict[str, Any]:
        scores = score_triplets(examples, symmetric=symmetric, spans_key=spans_key)
        if not scores["canonical"]["ent"].micro.support:
            return dict.fromkeys(_KEYS)
        values: dict[str, Any] = {}
        for level, of_level in scores["canonical"].items():
            micro = of_level.micro
            values |= {f"rte_{level}_p": micro.precision, f"rte_{level}_r": micro.recall, f"rte_{level}_f": micro.f1}
            values |= {f"rte_{level}_macro_f": of_level.macro.f1}
            values |= {f"rte_{level}_{mode}_f": scores[mode][level].micro.f1 for mode in MODES[1:]}
            values[f"rte_{level}_per_type"] = {
                label: {"p": counts.precision, "r": counts.recall, "f": counts.f1}
                for label, counts in sorted(of_level.per_label.items())
            }
        return values


_RATIOS = ("p", "r", "f", "macro_f", "directed_f", "doubled_f", "per_type")
_KEYS = tuple(f"rte_{level}_{ratio}" for level in LEVELS for ratio in _RATIOS)


def make_triplet_scorer() -> TripletScorer:
    """The registered scorer ``spacy_ie_moe.triplet_scorer.v1``: ``(examples, **kwargs) -> scores``.

    For each of ent, rel and rel_plus: ``rte_rel_p``, ``_r`` and ``_f`` (micro, canonical), ``_macro_f``,
    ``_directed_f`` and ``_doubled_f``, from 0 to 1, and ``_per_type``. All are ``None`` where gold has no entities.
    """
    return TripletScorer()
