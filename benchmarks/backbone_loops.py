"""The decoders of the backbones as their papers tell them: a sentence, a relation, a head or a pair at a time.

What the package computes at once is compared with these, in tests for equality and in ``benchmarks.backbone_speed`` for
time. Each takes the features of one sentence and a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise, permutations, product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from spacy_ie_moe.gmoe_rte.backbones.dual_dec import FAR, NEAR, DualDec
from spacy_ie_moe.gmoe_rte.backbones.linear import PairFeatures
from spacy_ie_moe.gmoe_rte.backbones.od_rte import OdRte
from spacy_ie_moe.gmoe_rte.backbones.re_cent import PairFfn, ReCent, SpanFfn
from spacy_ie_moe.gmoe_rte.backbones.tlrel import TlRel
from spacy_ie_moe.gmoe_rte.backbones.vertices import BEGIN_BEGIN, BEGIN_END, END_BEGIN, END_END
from spacy_ie_moe.gmoe_rte.features import Entity, Extraction, Features

Corner = tuple[int, int, int]
"""Row, column and tag of a cell of a table."""
Span = tuple[int, int]
"""Words, end exclusive."""


class Found(NamedTuple):
    """Triplets (head, tail, label) with their probabilities; and the type and the score of each entity."""

    triplets: dict[tuple[Span, Span, int], float]
    entities: dict[Span, tuple[int, float]]

    def add(self, head: tuple[Span, int], tail: tuple[Span, int], label: int, score: float, schema: Any) -> None:
        """A triplet between spans of types. A span has the type, and the score, of its best triplet."""
        for span, type_ in (head, tail):
            if span not in self.entities or score > self.entities[span][1]:
                self.entities[span] = type_, score
        one, other = head[0], tail[0]
        if schema is not None and schema.is_turned(label, one, other):
            one, other = other, one
        self.triplets[one, other, label] = max(score, self.triplets.get((one, other, label), 0.0))

    @classmethod
    def of(cls, extraction: Extraction) -> Found:
        """The same of what the package finds."""
        spans = [entity[:2] for entity in extraction.entities]
        triplets = {(spans[one], spans[other], label): score for one, other, label, score in extraction.triplets}
        return cls(triplets, {entity[:2]: (entity.type, entity.score) for entity in extraction.entities})

    def is_like(self, other: Found) -> bool:
        """Whether the same is found, with the same types and, but for rounding, the same scores."""
        return (
            self.triplets.keys() == other.triplets.keys()
            and {span: type_ for span, (type_, _) in self.entities.items()}
            == {span: type_ for span, (type_, _) in other.entities.items()}
            and all(math.isclose(self.triplets[key], other.triplets[key], abs_tol=1e-5) for key in self.triplets)
            and all(math.isclose(self.entities[key][1], other.entities[key][1], abs_tol=1e-5) for key in self.entities)
        )


# --- OD-RTE ---------------------------------------------------------------------------------------------------


def od_rte(backbone: OdRte, sentence: Features, threshold: float) -> Found:
    """A table for each relation, of pairs that are projected as concatenations, and a scan of it."""
    words = sentence.hidden[1:]
    found = Found({}, {})
    if not len(words):
        return found
    pairs = [torch.cat([one, other]) for one, other in product(words, repeat=2)]
    features = torch.stack([pair_features(backbone.pairs, pair) for pair in pairs])
    for label in range(len(backbone.schema.relations)):
        rows = slice(4 * label, 4 * label + 4)
        scores = F.linear(features, backbone.corners.weight[rows], backbone.corners.bias[rows]).sigmoid()
        cells = (scores >= threshold).nonzero().tolist()
        corners = {(*divmod(cell, len(words)), tag) for cell, tag in cells}
        ways = scan(corners, BEGIN_END, turned=False), scan(corners, END_BEGIN, turned=True)
        for head, head_end, tail, tail_end in ways[0] & ways[1] if backbone.match == "both" else ways[0] | ways[1]:
            spans = (head, head_end + 1), (tail, tail_end + 1)
            if spans[0] == spans[1]:
                continue
            box = (head, head_end, tail, tail_end)
            sides = {BEGIN_END: (head, tail_end), END_BEGIN: (head_end, tail)}
            ends = [float(scores[head * len(words) + tail, BEGIN_BEGIN])]
            ends.append(float(scores[head_end * len(words) + tail_end, END_END]))
            of_ways = [
                min(*ends, float(scores[row * len(words) + column, side]))
                for way, (side, (row, column)) in zip(ways, sides.items(), strict=True)
                if box in way
            ]
            score = min(of_ways) if backbone.match == "both" else max(of_ways)
            one, other = ((span, type_of(backbone, words, span)) for span in spans)
            found.add(one, other, label, score, backbone.schema)
    return found


def type_of(backbone: OdRte, words: Tensor, span: Span) -> int:
    """The type in whose table the span's begin and end are most probable."""
    table = backbone.types
    if table is None:
        return 0
    pair = torch.cat([words[span[0]], words[span[1] - 1]])
    return int(table.classify(pair_features(table.pairs, pair)).argmax())


def pair_features(pairs: PairFeatures, pair: Tensor) -> Tensor:
    """ReLU(P [h_i; h_j] + b) as it is written."""
    return F.linear(pair, pairs.project.weight, pairs.project.bias).relu()


def scan(corners: set[Corner], side: int, *, turned: bool) -> set[tuple[int, int, int, int]]:
    """One way of matching, as it is described: in the order of rows, the entry behind a begin-begin corner."""
    if turned:
        corners = {(column, row, tag) for row, column, tag in corners}
    entries = sorted((row, column, tag != BEGIN_BEGIN) for row, column, tag in corners if tag in (BEGIN_BEGIN, side))
    found = set()
    for (row, column, is_side), (next_row, next_column, next_is_side) in pairwise(entries):
        if not is_side and next_is_side and next_row == row:
            ends = [below for below, place, tag in corners if tag == END_END and place == next_column and below >= row]
            if ends:
                found.add((row, min(ends), column, next_column))
    return {(c, d, a, b) for a, b, c, d in found} if turned else found


# --- Dual-Dec -------------------------------------------------------------------------------------------------


def dual_dec(backbone: DualDec, sentence: Features, threshold: float) -> Found:
    """One relation at a time, and of it one head at a time."""
    words = sentence.hidden[1:]
    found = Found({}, {})
    scores = backbone.relations(sentence)[0].sigmoid()
    for label in (scores >= threshold).nonzero().flatten().tolist() if len(words) else ():
        for head, score in spans_of(*decode_by_hand(backbone, words, label, None, None)):
            for tail, other in spans_of(*decode_by_hand(backbone, words, label, head, None)):
                if min(score, other) >= threshold and head[:2] != tail[:2]:
                    ends = (head[:2], head.type), (tail[:2], tail.type)
                    found.add(*ends, label, min(float(scores[label]), score, other), backbone.schema)
    return found


def decode_by_hand(
    backbone: DualDec, words: Tensor, label: int, head: Entity | None, begins: list[int] | None
) -> tuple[Tensor, Tensor]:
    """Logits of begins and ends for one relation, of heads or a head's tails. begins: gold tags; None: those found."""
    decoder, n = backbone.entities, len(words)
    relation = decoder.of_relation.weight[label]
    if head is None:
        given, taggers, near = [words, relation.expand(n, -1)], ("head_begin", "head_end"), decoder.behind_head
        again = [relation.expand(n, -1)]
    else:
        own = (words[head.start] + words[head.end - 1]) / 2
        named = relation + decoder.of_type.weight[head.type]
        places = [min(0, i - head.start) + max(0, i - head.end + 1) + FAR for i in range(n)]
        shared = torch.cat([own.expand(n, -1), named.expand(n, -1)], -1)
        again = [shared, decoder.from_head.weight[places]]
        given, taggers, near = [words, *again], ("tail_begin", "tail_end"), decoder.behind_tail
    length = torch.tensor([n])
    states, starts = getattr(decoder, taggers[0])([part[None] for part in given], length)
    tags = starts[0].argmax(-1).tolist() if begins is None else begins
    nearest = []
    for place in range(n):
        before = [place - other for other in range(place + 1) if tags[other]]
        nearest.append(min([*before, NEAR + 1]))
    behind = near.weight[nearest]
    parts = [states[0], behind, *again] if head is None else [states[0], *again, behind]
    return starts[0], getattr(decoder, taggers[1])([part[None] for part in parts], length)[1][0]


def spans_of(begins: Tensor, ends: Tensor) -> list[tuple[Entity, float]]:
    """Each begin with the nearest end of its type, and the lower of their probabilities."""
    begin, end = (logits.softmax(-1) for logits in (begins, ends))
    closes = end.argmax(-1).tolist()
    spans = []
    for start, kind in enumerate(begin.argmax(-1).tolist()):
        closing = [place for place in range(start, len(end)) if closes[place] == kind]
        if kind and closing:
            score = min(begin[start, kind].item(), end[closing[0], kind].item())
            spans.append((Entity(start, closing[0] + 1, kind - 1), score))
    return spans


# --- TLRel ----------------------------------------------------------------------------------------------------


def tlrel(backbone: TlRel, sentence: Features, threshold: float) -> Found:
    """The whole tensor of a sentence, and its mean over the words of each ordered pair of entities."""
    tagger = backbone.entities
    (entities,) = tagger.find(sentence)
    found = Found({}, {})
    if not len(sentence.hidden[1:]):
        return found
    emissions = tagger.emit(tagger.branch(sentence.hidden[1:]))
    (tags,) = tagger.crf.decode(emissions[None], torch.ones(1, len(emissions), dtype=torch.bool)).tolist()
    for start, end, type_, _ in entities:
        shares = [float(emissions[word].softmax(-1)[tags[word]]) for word in range(start, end)]
        found.entities[start, end] = type_, min(shares)
    if len(entities) < 2:
        return found
    logits = backbone.relations(*backbone.relations.factors(sentence.hidden[None, 1:]))[0]
    for one, other in permutations(entities, 2):
        box = logits[slice(*one[:2]), slice(*other[:2])]
        for label, score in enumerate(box.mean((0, 1)).sigmoid().tolist()):
            if score >= threshold:
                head, tail = one[:2], other[:2]
                if backbone.schema.is_turned(label, head, tail):
                    head, tail = tail, head
                found.triplets[head, tail, label] = max(score, found.triplets.get((head, tail, label), 0.0))
    return found


# --- Re-Cent --------------------------------------------------------------------------------------------------


def re_cent(backbone: ReCent, sentence: Features, threshold: float) -> Found:
    """All spans, those of each role that do not overlap, and their pairs one by one."""
    assert sentence.prompts is not None
    number, reader = int(sentence.prompts[0]), backbone.roles
    found = Found({}, {})
    if not number:
        return found
    hidden = F.layer_norm(sentence.hidden, sentence.hidden.shape[-1:])
    labels, words = reader.label(hidden[1 : 1 + number]) / hidden.shape[-1] ** 0.5, hidden[1 + number :]
    spans = [
        (start, end)
        for start in range(len(words))
        for end in range(start + 1, min(len(words), start + backbone.max_span) + 1)
    ]
    roles = []
    for bias, role in zip(reader.bias, (reader.subject, reader.object), strict=True):
        first, last = role.first(words), role.last(words)
        begins, ends = [start for start, _ in spans], [end - 1 for _, end in spans]
        rows = pair_vector(role.join, first[begins], last[ends])
        vectors = dict(zip(spans, rows, strict=True))
        scored = [
            (logit, span, label)
            for span, logits in zip(spans, (rows @ labels.T + bias).tolist(), strict=True)
            for label, logit in enumerate(logits)
            if sigmoid(logit) > backbone.span_threshold
        ]
        kept: list[tuple[float, Span, int]] = []
        for logit, span, label in sorted(scored, key=lambda item: -item[0]):
            if all(span == other or span[1] <= other[0] or other[1] <= span[0] for _, other, _ in kept):
                kept.append((sigmoid(logit), span, label))
        roles.append((vectors, kept))
    (subjects, chosen), (objects, others) = roles
    for (p_head, head, label), (p_tail, tail, other) in product(chosen, others):
        if label == other and head != tail:
            vector = pair_vector(backbone.pairs.join, subjects[head], objects[tail])
            pair = (labels[label] @ vector + backbone.pairs.bias[0]).sigmoid()
            score = (p_head + p_tail + float(pair)) / 3
            if score >= threshold:
                types = [
                    0 if backbone.types is None else int(backbone.types(torch.cat([subjects[x], objects[x]])).argmax())
                    for x in (head, tail)
                ]
                found.add((head, types[0]), (tail, types[1]), label, score, None)
    return found


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0


def span_vector(role: SpanFfn, words: Tensor, span: Span) -> Tensor:
    """g of a span of words [n, d] in a role."""
    return pair_vector(role.join, role.first(words[span[0]]), role.last(words[span[1] - 1]))


def pair_vector(join: PairFfn, one: Tensor, other: Tensor) -> Tensor:
    """FFN(ReLU[x; y]) as it is written, of rows [..., d]."""
    hidden = F.linear(torch.cat([one, other], -1).relu(), join.pairs.project.weight, join.pairs.project.bias)
    return join.out(hidden.relu())


LOOPS: dict[str, Callable[[Any, Features, float], Found]] = {
    "dual_dec": dual_dec,
    "tlrel": tlrel,
    "od_rte": od_rte,
    "re_cent": re_cent,
}
