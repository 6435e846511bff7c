"""TLRel: entities by a CRF, and a relation tensor in Tucker's form between all pairs of words. PyTorch only.

Source: RTE-GMoE section 4.1 with TLRel (IEEE T. Cybern. 2024), which it builds on.

What differs from the published TLRel: the vectors are those of any encoder; padding has no part in any loss; tags have
the types of entities where there are several; one optimizer learns from both losses at once instead of two by turns;
relations have a bias, which starts low; no entity is paired with itself; the threshold is the sigmoid of the published
one, of a logit: 0.6 and 0.8 are 0.65 and 0.69. As cells that are 1 weigh ``positive_weight`` times as much, 0.5 is not
an even chance.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_shares, check_weight, check_whole
from ..features import Entity, Extraction, Features
from ..mixture import TRIPLETS
from ..schema import Schema
from ..tensors import tensor_like, tensors_like
from .crf import Crf
from .linear import in_parts
from .triplets import SpanTriplet, gold_triplets, to_extraction

LOGITS_AT_ONCE = 2**22
"""Pairs of words by relations, or by what they are made of, that are made in one go, at least those of one word: for
long documents."""


@dataclass(frozen=True)
class TensorTargets:
    """Tags [B, L] of words, padding 0, and of each sentence where its relation tensor [n, n, R] is 1.

    relations: of each sentence [M, 3] a word of a head, one of a tail, and the label. counted: of each sentence [n, n]
    1 for pairs of words of which all relations are known; of the others only those that hold count.
    """

    tags: np.ndarray
    relations: list[np.ndarray]
    counted: list[np.ndarray]


class TlRel(nn.Module):
    """Flat entities by tags, and relations of words, whose mean over two entities is that of the entities.

    width: d of the vectors. branch_width: of the three branches (entities, heads, tails). query_width: of the factors
    of words. rank: of the factor of relations. dropout: on the vectors. positive_weight: of the cells of relations, of
    which there are few.
    """

    reads = (TRIPLETS,)
    max_span = sys.maxsize
    loses = "entities that overlap"

    def __init__(
        self,
        width: int,
        schema: Schema,
        *,
        branch_width: int = 250,
        query_width: int = 100,
        rank: int = 70,
        dropout: float = 0.1,
        positive_weight: float = 10.0,
    ) -> None:
        super().__init__()
        check_whole(1, branch_width=branch_width, query_width=query_width, rank=rank)
        check_shares(dropout=dropout)
        check_weight("backbone_settings.positive_weight", positive_weight, zero=False)
        self.schema = schema
        self._sizes = (width, branch_width, query_width, rank, dropout, positive_weight)
        self.entities: Any = self.make_expert("entities")
        self.relations: Any = self.make_expert("relations")

    def make_expert(self, task: str) -> nn.Module:
        """ER-Net, the tagger, or RE-Net, the relation tensor."""
        width, branch_width, query_width, rank, dropout, positive_weight = self._sizes
        if task == "entities":
            return EntityTagger(width, branch_width, len(self.schema.entities), dropout)
        number = len(self.schema.relations)
        return RelationTensor(width, branch_width, query_width, rank, number, dropout, positive_weight)

    def prepare(self, lengths: np.ndarray, gold: Sequence[Extraction], rng: np.random.Generator) -> TensorTargets:
        """The tags and the tensor; where entities overlap the longest is tagged, of two alike the first."""
        size = int(lengths.max(initial=0))
        tags = np.zeros((len(lengths), size), dtype=np.int64)
        relations = []
        counted = [np.ones((n, n), dtype=np.float32) for n in lengths.tolist()]
        for sentence, extraction in enumerate(gold):
            for entity in sorted(extraction.entities, key=lambda entity: (entity.start - entity.end, entity.start)):
                words = tags[sentence, entity.start : entity.end]
                if not words.any():
                    words[:] = inside(entity.type)
                    words[0] = begin(entity.type)
            for one, other in extraction.unknown:
                rows, columns = (slice(*extraction.entities[place][:2]) for place in (one, other))
                counted[sentence][rows, columns] = 0
            cells = {
                (one, other, label)
                for head, tail, label in gold_triplets(extraction, self.schema)
                for one in range(*head)
                for other in range(*tail)
            }
            relations.append(np.array(sorted(cells), dtype=np.int64).reshape(-1, 3))
        return TensorTargets(tags, relations, counted)

    def loss(self, streams: Mapping[str, Features], targets: TensorTargets) -> Tensor:
        """l_rte: those of the tagger and of the tensor."""
        features = streams[TRIPLETS]
        return self.entities.loss(features, targets) + self.relations.loss(features, targets)

    def predict(self, streams: Mapping[str, Features], threshold: float) -> list[Extraction]:
        """Entities by tags, and of each ordered pair of them the relations whose mean logit is probable enough."""
        features = streams[TRIPLETS]
        found = self.entities.find(features)
        if not any(len(entities) > 1 for entities in found):
            return [Extraction(entities) for entities in found]
        extractions = []
        words, _ = features.pad(features.hidden)
        queries, keys = self.relations.factors(words[:, 1:])
        for entities, query, key in zip(found, queries, keys, strict=True):
            spans = np.array([entity[:2] for entity in entities], dtype=np.int64)
            if len(spans) < 2:
                extractions.append(Extraction(entities))
                continue
            triplets = []
            for first, logits in self.relations.between(query, key, spans):
                scores = logits.sigmoid()
                rows = (scores >= threshold).nonzero()
                triplets += [
                    (SpanTriplet(entities[first + head][:2], entities[tail][:2], label), score)
                    for (head, tail, label), score in zip(rows.tolist(), scores[tuple(rows.T)].tolist(), strict=True)
                ]
            extractions.append(to_extraction(triplets, entities, self.schema))
        return extractions


class EntityTagger(nn.Module):
    """Tags of words, O or begin and inside of a type, by a CRF: ER-Net."""

    def __init__(self, width: int, branch_width: int, types: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.branch = nn.Linear(width, branch_width)
        self.emit = nn.Linear(branch_width, 1 + 2 * types)
        self.crf = Crf(1 + 2 * types)

    def loss(self, features: Features, targets: TensorTargets) -> Tensor:
        """l_ent: the mean over the sentences of -log p of their tags."""
        emissions, mask = self._emissions(features)
        if not mask.any():
            return features.hidden.sum() * 0
        has_words = mask[:, 0]
        tags = tensor_like(targets.tags, emissions)
        return self.crf(emissions[has_words], tags[has_words], mask[has_words]).mean()

    def find(self, features: Features) -> list[list[Entity]]:
        """The entities of the most probable tags.

        An entity's score is the least share of the tags of its words by emissions alone, without transitions.
        An inside of a type that follows nothing of this type begins an entity.
        """
        emissions, mask = self._emissions(features)
        if not mask.any():
            return [[] for _ in features.lengths]
        tags = self.crf.decode(emissions, mask)
        scores = emissions.softmax(-1).gather(-1, tags[..., None]).squeeze(-1)
        return [
            read_tags(row[:n], values[:n])
            for row, values, n in zip(tags.tolist(), scores.tolist(), features.lengths.tolist(), strict=True)
        ]

    def _emissions(self, features: Features) -> tuple[Tensor, Tensor]:
        rows, mask = features.pad(features.hidden)
        return self.emit(self.branch(self.dropout(rows[:, 1:]))).float(), mask[:, 1:]


class RelationTensor(nn.Module):
    """S[i, j, r] = sum_abc q_i[a] k_j[b] G[a, b, c] P[r, c], the relations between words in Tucker's form: RE-Net."""

    def __init__(
        self,
        width: int,
        branch_width: int,
        query_width: int,
        rank: int,
        relations: int,
        dropout: float,
        positive_weight: float,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.heads, self.tails = nn.Linear(width, branch_width), nn.Linear(width, branch_width)
        self.query, self.key = nn.Linear(branch_width, query_width), nn.Linear(branch_width, query_width)
        self.core = nn.Parameter(torch.empty(query_width, query_width, rank))
        self.relations = nn.Parameter(torch.empty(relations, rank))
        nn.init.normal_(self.core, std=1 / query_width)
        nn.init.normal_(self.relations, std=rank**-0.5)
        self.bias = nn.Parameter(torch.full((relations,), -2.0))  # most pairs of words have no relation
        self.positive_weight = positive_weight

    def factors(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """q and k [B, L, query_width] of words [B, L, d]."""
        words = self.dropout(words)
        return self.query(self.heads(words)), self.key(self.tails(words))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """The logits S [B, L, L', R] of rows q [B, L, a] and k [B, L', b]."""
        mixed = torch.einsum("bia,ade->bide", query, self.core)  # by words first: there are fewer than relations
        return torch.einsum("bide,bjd,re->bijr", mixed, key, self.relations) + self.bias

    def loss(self, features: Features, targets: TensorTargets) -> Tensor:
        """l_rel: binary cross-entropy, summed over pairs and labels, by the number of words."""
        words = features.pad(features.hidden)[0][:, 1:]
        number = int(features.lengths.sum())
        if not number:
            return features.hidden.sum() * 0
        queries, keys = self.factors(words)
        total = queries.new_zeros((), dtype=torch.float32)
        for row, (relations, known) in enumerate(zip(targets.relations, targets.counted, strict=True)):
            n = len(known)  # by sentence, as padding would be the most of it
            cells, counted = tensors_like((relations, known), words)
            at_once = self._at_once(n)
            for start in range(0, n, at_once):
                heads = slice(start, min(start + at_once, n))
                own = cells[(cells[:, 0] >= heads.start) & (cells[:, 0] < heads.stop)] - cells.new_tensor([start, 0, 0])
                parts = queries[row, heads], keys[row, :n], own, counted[heads]
                total = total + in_parts(at_once < n, self._loss, *parts)
        return total / number

    def _at_once(self, tails: int) -> int:
        """How many rows of heads fit ``LOGITS_AT_ONCE`` with so many tails: logits, and what is summed to make them."""
        size, _, rank = self.core.shape
        return max(1, LOGITS_AT_ONCE // (max(tails, size) * max(len(self.relations), rank)))

    def _loss(self, query: Tensor, key: Tensor, cells: Tensor, counted: Tensor) -> Tensor:
        """The summed loss of some heads' words [I, a] and all tails' [n, b], whose cells [M, 3] are 1."""
        logits = self(query[None], key[None])[0].float()
        gold = torch.zeros_like(logits)
        gold[tuple(cells.T)] = 1
        return F.binary_cross_entropy_with_logits(
            logits,
            gold,
            weight=torch.maximum(counted[..., None], gold),
            pos_weight=gold.new_tensor(self.positive_weight),
            reduction="sum",
        )

    def between(self, query: Tensor, key: Tensor, spans: np.ndarray) -> Iterator[tuple[int, Tensor]]:
        """The mean logits over the words of each pair of spans [E, 2] of a sentence, of some heads at a time.

        Yields the first head's row and the logits [H, E, R] of H heads. S is linear in q and in k, so the mean over a
        rectangle is S of the means of its sides.
        """
        bounds = tensor_like(spans, query)
        sizes = (bounds[:, 1] - bounds[:, 0])[:, None]
        sides = []
        for rows in (query, key):
            sums = F.pad(rows.double().cumsum(0), (0, 0, 1, 0))
            sides.append(((sums[bounds[:, 1]] - sums[bounds[:, 0]]) / sizes).to(rows.dtype)[None])
        at_once = self._at_once(len(spans))
        for first in range(0, len(spans), at_once):
            yield first, self(sides[0][:, first : first + at_once], sides[1])[0]


def begin(type_: int) -> int:
    """The tag of an entity's first word; 0 is that of words of no entity."""
    return 1 + 2 * type_


def inside(type_: int) -> int:
    """The tag of an entity's other words."""
    return 2 + 2 * type_


def read_tags(tags: Sequence[int], scores: Sequence[float]) -> list[Entity]:
    """The entities of the tags of a sentence, each with the least score of its words."""
    entities: list[Entity] = []
    for place, (tag, score) in enumerate(zip(tags, scores, strict=True)):
        if not tag:
            continue
        type_, is_inside = divmod(tag - 1, 2)
        last = entities[-1] if entities else None
        if is_inside and last is not None and last.end == place and last.type == type_:
            entities[-1] = Entity(last.start, place + 1, type_, min(last.score, score))
        else:
            entities.append(Entity(place, place + 1, type_, score))
    return entities
