"""OD-RTE: the corners of the box that each triplet is in the table of its relation. PyTorch only.

Source: RTE-GMoE section 4.1 with OD-RTE (ACL 2023), which it builds on.

What differs from the published OD-RTE: it reads words instead of pieces, no [CLS] and [SEP], and no padding; a pair's
projection is a sum of its words' ones, which is the same; what both directions of matching find is a choice
(``match``); scores start low; the map of boxes, which the released code leaves out, is learnt. OD-RTE has no types of
entities: where there are several, a table of entities tells them. The paper does not say what the experts of OD-RTE
learn; here ER-Net learns the table of entities, and RE-Net which relations a sentence has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_shares, check_weight, check_whole
from ..features import Entity, Extraction, Features
from ..mixture import TRIPLETS
from ..schema import Schema
from ..tensors import tensor_like, tensors_like
from .linear import PRIOR, PairFeatures, in_parts
from .triplets import SpanTriplet, best_arguments, gold_triplets, to_extraction
from .vertices import BEGIN_BEGIN, BEGIN_END, CORNERS, END_BEGIN, END_END, Cells, match_corners

CELLS_AT_ONCE = 16384
"""Pairs of words whose features are made in one go: bounds what a long sentence takes, in training too."""

CORNER_PRIOR = 8.0
"""Where the corners' scores start, as minus this logit: in WebNLG, learnt with 20 relations at once, one in 5,000 is a
corner. From ``PRIOR`` it takes hundreds of steps to unlearn all the others, and with them what had been learnt."""

ENTITY_PRIOR = 6.0
"""The same for the table of entities, where one cell in some hundreds is an entity."""

MATCHES = ("both", "either")


@dataclass(frozen=True)
class TableTargets:
    """What the tables of a batch of sentences hold, cell after cell: all pairs of words of the first sentence, ...

    first, second: [P] the rows of each cell's head word and tail word among the rows of the features. counted: [P] 0
    where a relation holds that is not annotated (what is annotated there counts all the same), else 1. relations: for
    each sentence the labels [K] that are learnt from. corners: for each sentence [n * n, K, 4]. region: [P] 1 in any
    box. entities: [P, E] 1 at the begin and end of an entity of a type. labels: [B, R] the relations of each sentence.
    """

    first: np.ndarray
    second: np.ndarray
    counted: np.ndarray
    relations: list[np.ndarray]
    corners: list[np.ndarray]
    region: np.ndarray
    entities: np.ndarray
    labels: np.ndarray


class OdRte(nn.Module):
    """A table of word pairs for each relation, whose boxes are triplets, and a map of where there is any box.

    Of the words i and j of a sentence, F_ij = ReLU(P [h_i; h_j] + b) in R^pair_width has the logits C_ij = W F_ij of
    the corners of each relation's boxes [R, 4], and m_ij = w F_ij of the map. l_rte is the sum of the cross-entropies
    of all C_ij of the relations drawn, plus ``region_weight`` times that of all m_ij, by the number of the former.

    width: d of the vectors. pair_width: of the pairs of words; 3 d by default. dropout: on vectors and pairs.
    relations_at_once: relations that a sentence is learnt with, all of its own and others drawn at random.
    region_weight: of the map of boxes (0 in the released code), which counts as the table of one corner of one relation
    does; a weight w of the means of both, as it is published, is 4 * relations_at_once * w here. match: "both" ways of
    matching corners must find a box, or "either" of them, which finds more.
    """

    reads = (TRIPLETS,)
    max_span = sys.maxsize
    loses = "some triplets of one relation that overlap in both arguments"

    def __init__(
        self,
        width: int,
        schema: Schema,
        *,
        pair_width: int | None = None,
        dropout: float = 0.2,
        relations_at_once: int = 20,
        region_weight: float = 1.0,
        match: str = "both",
    ) -> None:
        super().__init__()
        pair_width = 3 * width if pair_width is None else pair_width
        check_whole(1, pair_width=pair_width, relations_at_once=relations_at_once)
        check_shares(dropout=dropout)
        check_weight("backbone_settings.region_weight", region_weight, zero=True)
        if match not in MATCHES:
            raise ValueError(f"backbone_settings.match is {match!r}; expected {' or '.join(MATCHES)}.")
        self.schema = schema
        self._sizes = (width, pair_width, dropout)
        self.relations_at_once = relations_at_once
        self.region_weight = region_weight
        self.match = match
        self.dropout = nn.Dropout(dropout)
        self.pairs = PairFeatures(width, pair_width, dropout)
        self.corners = nn.Linear(pair_width, len(CORNERS) * len(schema.relations))
        self.corners.bias.data.fill_(-CORNER_PRIOR)
        self.region = nn.Linear(pair_width, 1)
        self.region.bias.data.fill_(-PRIOR)
        self.types = EntityTable(width, len(schema.entities), pair_width, dropout) if len(schema.entities) > 1 else None

    def make_expert(self, task: str) -> nn.Module:
        """ER-Net, a table of entities, or RE-Net, which relations a sentence has."""
        width, pair_width, dropout = self._sizes
        if task == "entities":
            return EntityTable(width, len(self.schema.entities), pair_width, dropout)
        return RelationLabels(width, len(self.schema.relations), dropout)

    def prepare(self, lengths: np.ndarray, gold: Sequence[Extraction], rng: np.random.Generator) -> TableTargets:
        """The cells to learn from, and relations drawn anew."""
        number = len(self.schema.relations)
        labels = np.zeros((len(lengths), number), dtype=np.float32)
        relations, corners, regions, entities, counted = [], [], [], [], []
        for sentence, (n, extraction) in enumerate(zip(lengths.tolist(), gold, strict=True)):
            triplets = [*gold_triplets(extraction, self.schema)]
            own = sorted({triplet.label for triplet in triplets})
            labels[sentence, own] = 1
            others = np.setdiff1d(np.arange(number), own)
            wanted = max(0, min(len(others), self.relations_at_once - len(own)))
            chosen = np.concatenate([own, rng.choice(others, wanted, replace=False)]).astype(np.int64)
            relations.append(chosen)
            tables, region = _tables(n, triplets, {label: place for place, label in enumerate(own)}, len(chosen))
            corners.append(tables.reshape(n * n, len(chosen), len(CORNERS)))
            regions.append(region.ravel())
            table = np.zeros((n, n, len(self.schema.entities)), dtype=np.float32)
            for entity in extraction.entities:
                table[entity.start, entity.end - 1, entity.type] = 1
            entities.append(table.reshape(n * n, len(self.schema.entities)))
            counted.append(_known(n, extraction).ravel())
        first, second = cells_of(lengths)
        join = np.concatenate
        return TableTargets(first, second, join(counted), relations, corners, join(regions), join(entities), labels)

    def loss(self, streams: Mapping[str, Features], targets: TableTargets) -> Tensor:
        """l_rte: binary cross-entropy of the corners, the map of boxes and, where there are types, the entities.

        Summed over the cells of all of them, by the number of the corners': means of the map and of the entities, which
        are far less rare, would be nearly all that is learnt.
        """
        features = streams[TRIPLETS]
        rows = self.dropout(features.hidden)
        sides = self.pairs.sides(rows)
        weight = self.corners.weight.unflatten(0, (-1, len(CORNERS)))
        bias = self.corners.bias.view(-1, len(CORNERS))
        of_corners, of_region, number, begin = rows.sum() * 0, rows.new_zeros(()), 0, 0
        for relations, corners in zip(targets.relations, targets.corners, strict=True):
            chosen = tensor_like(relations, rows)
            layer = weight[chosen].flatten(0, 1), bias[chosen].flatten()
            for part in _blocks(begin, begin + len(corners)):
                gold = corners[part.start - begin : part.stop - begin].reshape(part.stop - part.start, -1)
                places = (targets.first[part], targets.second[part])
                known = tensors_like((gold, targets.counted[part], targets.region[part]), rows)
                cells = (*tensors_like(places, rows), *layer, *known)
                sums = in_parts(len(targets.first) > CELLS_AT_ONCE, self._losses, *sides, *cells)
                of_corners, of_region = of_corners + sums[0], of_region + sums[1]
            number += corners.size
            begin += len(corners)
        total = of_corners + self.region_weight * of_region
        if self.types is not None:
            total = total + self.types.loss(features, targets) * targets.entities.size
        return total / max(1, number)

    def _losses(
        self,
        heads: Tensor,
        tails: Tensor,
        first: Tensor,
        second: Tensor,
        weight: Tensor,
        bias: Tensor,
        corners: Tensor,
        counted: Tensor,
        region: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The summed losses of the corners and of the region in some cells [P]."""
        pairs = self.pairs((heads, tails), first, second)
        of_corners = _cell_loss(F.linear(pairs, weight, bias), corners, counted)
        if not self.region_weight:
            return of_corners, of_corners.new_zeros(())
        return of_corners, _cell_loss(self.region(pairs).squeeze(-1), region, counted)

    def predict(self, streams: Mapping[str, Features], threshold: float) -> list[Extraction]:
        """The entities of triplets, and the triplets, of each sentence. threshold: of each corner that makes a box.

        A low one may also lose triplets: corners that are less sure come between those of a box.
        """
        features = streams[TRIPLETS]
        boxes = match_corners(self._cells(features, threshold), both=self.match == "both")
        found: list[list[tuple[SpanTriplet, float]]] = [[] for _ in features.lengths]
        for table, head, head_end, tail, tail_end, score in zip(*(column.tolist() for column in boxes), strict=True):
            sentence, label = divmod(table, len(self.schema.relations))
            if (head, head_end) != (tail, tail_end):
                found[sentence].append((SpanTriplet((head, head_end + 1), (tail, tail_end + 1), label), score))
        entities = self._entities(features, found)
        return [to_extraction(triplets, own, self.schema) for triplets, own in zip(found, entities, strict=True)]

    def _cells(self, features: Features, threshold: float) -> Cells:
        """The corners whose probability is at least ``threshold``."""
        sides = self.pairs.sides(features.hidden)
        number = int((features.lengths.astype(np.int64) ** 2).sum())
        found = []
        for start in range(0, number, CELLS_AT_ONCE):
            cells = np.arange(start, min(start + CELLS_AT_ONCE, number))
            owner, head, tail = _places(features.lengths, cells)
            rows = features.sentence_rows[owner] + 1
            pairs = self.pairs(sides, tensor_like(rows + head, sides[0]), tensor_like(rows + tail, sides[0]))
            scores = self.corners(pairs).sigmoid()
            cell, column = (index.cpu().numpy() for index in (scores >= threshold).nonzero(as_tuple=True))
            label, tag = np.divmod(column, len(CORNERS))
            table = owner[cell] * len(self.schema.relations) + label
            values = scores[cell, column].float().cpu().numpy()
            found.append(Cells(table, head[cell], tail[cell], tag, values))
        none = np.zeros(0, dtype=np.int64)
        empty = Cells(none, none, none, none, none.astype(np.float32))
        return Cells(*(np.concatenate(columns) for columns in zip(empty, *found, strict=True)))

    def _entities(self, features: Features, found: Sequence[Sequence[tuple[SpanTriplet, float]]]) -> list[list[Entity]]:
        """The arguments of triplets, each with the score of the best; their types are from the table of entities."""
        best = [best_arguments(triplets) for triplets in found]
        places = [(sentence, *span) for sentence, spans in enumerate(best) for span in spans]
        types = [0] * len(places)
        if self.types is not None and places:
            types = self.types(features, *np.array(places, dtype=np.int64).T).argmax(-1).tolist()
        entities: list[list[Entity]] = [[] for _ in found]
        for (sentence, start, end), type_ in zip(places, types, strict=True):
            entities[sentence].append(Entity(start, end, type_, best[sentence][start, end]))
        return entities


class EntityTable(nn.Module):
    """Which pairs of words begin and end an entity, of which type: ER-Net."""

    def __init__(self, width: int, classes: int, pair_width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.pairs = PairFeatures(width, pair_width, dropout)
        self.classify = nn.Linear(pair_width, classes)
        self.classify.bias.data.fill_(-ENTITY_PRIOR)

    def forward(self, features: Features, sentence: np.ndarray, start: np.ndarray, end: np.ndarray) -> Tensor:
        """Logits [S, types] of spans [S] of words ``start`` to ``end``, exclusive, of the sentences ``sentence``."""
        rows = features.sentence_rows[sentence] + 1
        sides = self.pairs.sides(self.dropout(features.hidden))
        return self.classify(self.pairs(sides, *tensors_like((rows + start, rows + end - 1), sides[0])))

    def loss(self, features: Features, targets: TableTargets) -> Tensor:
        """l_ent: mean binary cross-entropy of all cells."""
        sides = self.pairs.sides(self.dropout(features.hidden))
        total, number = sides[0].new_zeros(()), len(targets.first)
        for part in _blocks(0, number):
            cells = tensors_like((targets.first[part], targets.second[part], targets.entities[part]), sides[0])
            total = total + in_parts(number > CELLS_AT_ONCE, self._loss, *sides, *cells)
        return total / max(1, targets.entities.size)

    def _loss(self, starts: Tensor, ends: Tensor, first: Tensor, second: Tensor, gold: Tensor) -> Tensor:
        logits = self.classify(self.pairs((starts, ends), first, second))
        return _cell_loss(logits, gold, logits.new_ones(len(logits)))


class RelationLabels(nn.Module):
    """Which relations a sentence has, from its own vector and the maximum of its words: RE-Net."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(2 * width, classes)
        self.classify.bias.data.fill_(-PRIOR)

    def loss(self, features: Features, targets: TableTargets) -> Tensor:
        """l_rel: mean binary cross-entropy of sentences and labels."""
        rows, mask = features.pad(features.hidden)
        words = rows[:, 1:].masked_fill(~mask[:, 1:, None], -torch.inf)
        empty = tensor_like(features.lengths == 0, rows)[:, None]
        pooled = torch.where(empty, features.sentences, words.amax(1)) if words.shape[1] else features.sentences
        logits = self.classify(self.dropout(torch.cat([features.sentences, pooled], -1)))
        return F.binary_cross_entropy_with_logits(logits.float(), tensor_like(targets.labels, logits))


def cells_of(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of features [P] of the head's word and the tail's, for all pairs of words of each sentence."""
    owner, head, tail = _places(lengths, np.arange(int((lengths.astype(np.int64) ** 2).sum())))
    rows = np.cumsum(lengths + 1) - lengths  # of each sentence's first word
    return rows[owner] + head, rows[owner] + tail


def _places(lengths: np.ndarray, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The sentence of each of the cells [P], the head's word in it, and the tail's; cells are counted row by row."""
    sizes = lengths.astype(np.int64)
    ends = np.cumsum(sizes**2)
    owner = np.searchsorted(ends, cells, side="right")
    head, tail = np.divmod(cells - (ends - sizes**2)[owner], sizes[owner])
    return owner, head, tail


def _tables(
    n: int, triplets: Sequence[SpanTriplet], places: Mapping[int, int], number: int
) -> tuple[np.ndarray, np.ndarray]:
    """The corners [n, n, number, 4] of triplets, and where any box is [n, n]. places: of their labels in the former."""
    tables = np.zeros((n, n, number, len(CORNERS)), dtype=np.bool_)
    region = np.zeros((n, n), dtype=np.float32)
    for (head, head_end), (tail, tail_end), label in triplets:
        place = places[label]
        tables[head, tail, place, BEGIN_BEGIN] = 1
        tables[head, tail_end - 1, place, BEGIN_END] = 1
        tables[head_end - 1, tail_end - 1, place, END_END] = 1
        tables[head_end - 1, tail, place, END_BEGIN] = 1
        region[head:head_end, tail:tail_end] = 1
    return tables, region


def _known(n: int, extraction: Extraction) -> np.ndarray:
    """1 for each cell [n, n], 0 within pairs for which some relation holds that is not annotated."""
    known = np.ones((n, n), dtype=np.float32)
    for head, tail in extraction.unknown:
        one, other = extraction.entities[head], extraction.entities[tail]
        known[one.start : one.end, other.start : other.end] = 0
    return known


def _cell_loss(logits: Tensor, gold: Tensor, counted: Tensor) -> Tensor:
    """Summed binary cross-entropy of cells [P, ...], those that are 0 and not ``counted`` [P] at 0."""
    gold = gold.float()
    weight = torch.maximum(counted.view(-1, *[1] * (gold.ndim - 1)), gold)
    return F.binary_cross_entropy_with_logits(logits.float(), gold, weight=weight, reduction="sum")


def _blocks(begin: int, end: int) -> Iterator[slice]:
    return (slice(start, min(start + CELLS_AT_ONCE, end)) for start in range(begin, end, CELLS_AT_ONCE))
