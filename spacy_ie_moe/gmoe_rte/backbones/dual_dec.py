"""Dual-Dec: the relations of a sentence first, then for each relation its heads, then for each head its tails.

Source: RTE-GMoE section 4.1 with Dual-Dec (arXiv 2106.14163), which it builds on. PyTorch only.

What differs from the published Dual-Dec: it reads words without tokens between them; a head's vector is the mean of its
two ends in training too, as it is in prediction; the head whose tails are learnt is drawn anew every time; relations,
and their heads, are decoded together instead of one by one, which finds the same; embeddings of relations start at
random, and scores low; distances from a head beyond 150 words are one (published: 600); a triplet's probability is the
least of its relation's and its tags', so that a threshold leaves out tags too. Pairs of which a relation holds that is
not annotated are learnt as if none did.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_shares, check_whole
from ..features import Entity, Extraction, Features
from ..mixture import TRIPLETS
from ..schema import Schema
from ..tensors import tensor_like, tensors_like
from .linear import PRIOR
from .triplets import SpanTriplet, gold_triplets, to_extraction

NEAR = 10
"""The farthest distance behind a start that has an embedding of its own; what is farther, or has none, shares one."""

FAR = 150
"""The same for the distance from a head, in both directions."""

WORDS_AT_ONCE = 16384
"""Words, padding included, of relations of sentences, or of heads, that are decoded in one go, one row at least."""


@dataclass(frozen=True)
class CascadeTargets:
    """What the decoders learn from a batch of sentences.

    labels: [B, R] the relations of each sentence. Of each relation of a sentence a row [Q]: the sentence, the relation,
    the span [Q, 2] and type [Q] of one of its heads, and tags [Q, L] (0, or 1 + a type) of where heads begin and end,
    and where the tails of that head do.
    """

    labels: np.ndarray
    sentence: np.ndarray
    relation: np.ndarray
    head: np.ndarray
    head_type: np.ndarray
    head_begin: np.ndarray
    head_end: np.ndarray
    tail_begin: np.ndarray
    tail_end: np.ndarray


class DualDec(nn.Module):
    """A relation decoder, and an entity decoder for each of the relations that it finds.

    With u_r of a relation, z of the type of a head and v = (h_begin + h_end) / 2 of the head itself, the words t have
    the tags W a_t of where heads begin, W b_t of where they end, W c_t and W e_t of where tails do:
    a = BiLSTM([h_t; u_r]), b = BiLSTM([a_t; behind_t; u_r]), c = BiLSTM([h_t; v; u_r + z; place_t]) and
    e = BiLSTM([c_t; v; u_r + z; place_t; behind_t]), where behind_t is of the distance to the last begin and place_t of
    that to the head. l_rte is the cross-entropy of the sentences' relations and those of the four kinds of tags.

    width: d of the vectors. hidden: of each direction of the LSTMs; by default d / 2, as published. label_width:
    of embeddings of relations and types. place_width: of embeddings of distances. dropout: before and behind every
    LSTM.
    """

    reads = (TRIPLETS,)
    max_span = sys.maxsize
    loses = "heads of one relation, and tails of one head, that overlap"

    def __init__(
        self,
        width: int,
        schema: Schema,
        *,
        hidden: int | None = None,
        label_width: int = 300,
        place_width: int = 20,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        hidden = max(1, width // 2) if hidden is None else hidden
        check_whole(1, hidden=hidden, label_width=label_width, place_width=place_width)
        check_shares(dropout=dropout)
        self.schema = schema
        self._sizes = (width, hidden, label_width, place_width, dropout)
        self.relations: Any = self.make_expert("relations")
        self.entities: Any = self.make_expert("entities")

    def make_expert(self, task: str) -> nn.Module:
        """ER-Net, the entity decoder for gold relations, or RE-Net, the relation decoder."""
        width, hidden, label_width, place_width, dropout = self._sizes
        if task == "relations":
            return RelationDecoder(width, len(self.schema.relations), dropout)
        return EntityDecoder(self.schema, width, hidden, label_width, place_width, dropout)

    def prepare(self, lengths: np.ndarray, gold: Sequence[Extraction], rng: np.random.Generator) -> CascadeTargets:
        """Tags for each relation of each sentence, and for one of its heads, drawn anew."""
        labels = np.zeros((len(lengths), len(self.schema.relations)), dtype=np.float32)
        rows: list[tuple[Any, ...]] = []
        size = int(lengths.max(initial=0))
        for sentence, extraction in enumerate(gold):
            # Of a place with several entities, the type of the one that a triplet names.
            named = [extraction.entities[row] for triplet in extraction.triplets for row in triplet[:2]]
            types = {entity[:2]: entity.type for entity in (*reversed(extraction.entities), *reversed(named))}
            by_label: dict[int, dict[Any, list[Any]]] = {}
            for head, tail, label in gold_triplets(extraction, self.schema):
                by_label.setdefault(label, {}).setdefault(head, []).append(tail)
            for label, heads in by_label.items():
                labels[sentence, label] = 1
                chosen = list(heads)[int(rng.integers(len(heads)))]
                tags = *tags_of(heads, types, size), *tags_of(heads[chosen], types, size)
                rows.append((sentence, label, chosen, types[chosen], *tags))
        columns: list[Any] = [np.array(column, dtype=np.int64) for column in zip(*rows, strict=True)] if rows else []
        empty = [np.zeros(shape, dtype=np.int64) for shape in (0, 0, (0, 2), 0, *[(0, size)] * 4)]
        return CascadeTargets(labels, *(columns or empty))

    def loss(self, streams: Mapping[str, Features], targets: CascadeTargets) -> Tensor:
        """l_rte: those of both decoders."""
        features = streams[TRIPLETS]
        return self.relations.loss(features, targets) + self.entities.loss(features, targets)

    def predict(self, streams: Mapping[str, Features], threshold: float) -> list[Extraction]:
        """The triplets whose relation and tags all have a probability of at least ``threshold``, and their entities."""
        features = streams[TRIPLETS]
        found: list[list[tuple[SpanTriplet, float]]] = [[] for _ in features.lengths]
        entities: list[dict[tuple[int, int, int], float]] = [{} for _ in features.lengths]
        scores = self.relations(features).sigmoid()
        chosen = (scores >= threshold) & tensor_like(features.lengths > 0, scores)[:, None]
        sentence, relation = (index.cpu().numpy() for index in chosen.nonzero(as_tuple=True))
        probability = scores[chosen].cpu().numpy()
        heads = self.entities.find_heads(features, sentence, relation)
        heads = heads.select(np.minimum(probability[heads.row], heads.score) >= threshold)
        row = heads.row
        tails = self.entities.find_tails(features, sentence[row], relation[row], heads)
        score = np.minimum(np.minimum(probability[row], heads.score)[tails.row], tails.score)
        for place in np.flatnonzero(score >= threshold).tolist():
            head = int(tails.row[place])
            owner = int(sentence[row[head]])
            ends = [(int(s.begin[i]), int(s.end[i]), int(s.type[i])) for s, i in ((heads, head), (tails, place))]
            label = int(relation[row[head]])
            if ends[0][:2] == ends[1][:2]:
                continue
            found[owner].append((SpanTriplet(ends[0][:2], ends[1][:2], label), float(score[place])))
            for end in ends:
                entities[owner][end] = max(float(score[place]), entities[owner].get(end, 0.0))
        return [
            to_extraction(triplets, [Entity(*key, value) for key, value in _one_type(own).items()], self.schema)
            for triplets, own in zip(found, entities, strict=True)
        ]


class RelationDecoder(nn.Module):
    """Which relations a sentence has, from its own vector: RE-Net."""

    def __init__(self, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.pool = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(width, classes)
        self.classify.bias.data.fill_(-PRIOR)

    def forward(self, features: Features) -> Tensor:
        """Logits [B, R]."""
        return self.classify(self.dropout(torch.tanh(self.pool(features.sentences))))

    def loss(self, features: Features, targets: CascadeTargets) -> Tensor:
        """l_rel: mean binary cross-entropy of sentences and labels."""
        logits = self(features)
        return F.binary_cross_entropy_with_logits(logits.float(), tensor_like(targets.labels, logits))


@dataclass(frozen=True)
class Spans:
    """Spans that tags mark, each an array [S]: the row of the tags, words, type, and the least score of its tags."""

    row: np.ndarray
    begin: np.ndarray
    end: np.ndarray
    type: np.ndarray
    score: np.ndarray

    def select(self, kept: np.ndarray) -> Spans:
        """Those that a mask [S] keeps."""
        return Spans(self.row[kept], self.begin[kept], self.end[kept], self.type[kept], self.score[kept])


class EntityDecoder(nn.Module):
    """Tags of where the heads of a relation begin and end, and where the tails of a head do: ER-Net."""

    def __init__(
        self, schema: Schema, width: int, hidden: int, label_width: int, place_width: int, dropout: float
    ) -> None:
        super().__init__()
        classes, states = 1 + len(schema.entities), 2 * hidden
        self.of_relation = nn.Embedding(len(schema.relations), label_width)
        self.of_type = nn.Embedding(len(schema.entities), label_width)
        for embedding in (self.of_relation, self.of_type):
            nn.init.uniform_(embedding.weight, -1, 1)
        self.behind_head = nn.Embedding(NEAR + 2, place_width)
        self.behind_tail = nn.Embedding(NEAR + 2, place_width)
        self.from_head = nn.Embedding(2 * FAR + 1, place_width)
        of_tail = width + label_width + place_width
        self.head_begin = Tagger(width + label_width, hidden, classes, dropout)
        self.head_end = Tagger(states + place_width + label_width, hidden, classes, dropout)
        self.tail_begin = Tagger(width + of_tail, hidden, classes, dropout)
        self.tail_end = Tagger(states + of_tail + place_width, hidden, classes, dropout)

    def loss(self, features: Features, targets: CascadeTargets) -> Tensor:
        """l_ent: the mean cross-entropies of the four kinds of tags, summed; 0 without relations."""
        if not len(targets.sentence):
            return features.hidden.sum() * 0
        words, lengths = self._words(features, targets.sentence)
        gold = tensors_like((targets.head_begin, targets.head_end, targets.tail_begin, targets.tail_end), words)
        logits = (
            *self._heads(words, lengths, targets.relation, gold[0]),
            *self._tails(words, lengths, targets.relation, targets.head, targets.head_type, gold[2]),
        )
        mask = torch.arange(words.shape[1], device=words.device) < lengths[:, None]
        losses = [F.cross_entropy(one[mask].float(), tags[mask]) for one, tags in zip(logits, gold, strict=True)]
        return torch.stack(losses).sum()

    def find_heads(self, features: Features, sentence: np.ndarray, relation: np.ndarray) -> Spans:
        """The heads of the relations [Q] of the sentences [Q]."""

        def tags(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
            words, lengths = self._words(features, sentence[rows])
            return *self._heads(words, lengths, relation[rows], None), lengths

        return _find(tags, features.lengths[sentence])

    def find_tails(self, features: Features, sentence: np.ndarray, relation: np.ndarray, heads: Spans) -> Spans:
        """The tails of the heads [Q], which are of relations [Q] of sentences [Q]."""
        spans = np.stack([heads.begin, heads.end], 1)

        def tags(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
            words, lengths = self._words(features, sentence[rows])
            return *self._tails(words, lengths, relation[rows], spans[rows], heads.type[rows], None), lengths

        return _find(tags, features.lengths[sentence])

    def _heads(
        self, words: Tensor, lengths: Tensor, relation: np.ndarray, begin: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Logits [Q, L, 1 + types] of where heads begin and end. begin: [Q, L] gold tags; None: those found."""
        label = self.of_relation(tensor_like(relation, words))[:, None].expand(-1, words.shape[1], -1)
        states, begins = self.head_begin([words, label], lengths)
        behind = self.behind_head(distance_behind(begins.argmax(-1) if begin is None else begin))
        _, ends = self.head_end([states, behind, label], lengths)
        return begins, ends

    def _tails(
        self,
        words: Tensor,
        lengths: Tensor,
        relation: np.ndarray,
        head: np.ndarray,
        head_type: np.ndarray,
        begin: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """The same for the tails of heads: spans [Q, 2] and types [Q]."""
        rows, spans = torch.arange(len(words), device=words.device), tensor_like(head, words)
        own = (words[rows, spans[:, 0]] + words[rows, spans[:, 1] - 1]) / 2
        label = self.of_relation(tensor_like(relation, words)) + self.of_type(tensor_like(head_type, words))
        shared = torch.cat([own, label], -1)[:, None].expand(-1, words.shape[1], -1)
        place = self.from_head(distance_from(spans, words.shape[1]))
        states, begins = self.tail_begin([words, shared, place], lengths)
        behind = self.behind_tail(distance_behind(begins.argmax(-1) if begin is None else begin))
        _, ends = self.tail_end([states, shared, place, behind], lengths)
        return begins, ends

    def _words(self, features: Features, sentence: np.ndarray) -> tuple[Tensor, Tensor]:
        """The words [Q, L, d] of sentences [Q], and how many each has."""
        words = features.pad(features.hidden)[0][:, 1:]
        lengths = tensor_like(features.lengths.astype(np.int64), words)
        chosen = tensor_like(sentence, words)
        return words[chosen], lengths[chosen]


class Tagger(nn.Module):
    """Layer norm, a BiLSTM and a linear layer over concatenated inputs."""

    def __init__(self, width: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)
        self.classify = nn.Linear(2 * hidden, classes)
        self.classify.bias.data.zero_()[0] = PRIOR

    def forward(self, parts: Sequence[Tensor], lengths: Tensor) -> tuple[Tensor, Tensor]:
        """States [Q, L, 2 hidden] and logits [Q, L, classes] of parts [Q, L, ...] whose rows have ``lengths`` [Q]."""
        inputs = self.dropout(self.norm(torch.cat(list(parts), -1)))
        packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=inputs.shape[1]
        )
        states = self.dropout(states)
        return states, self.classify(states)


def distance_behind(tags: Tensor) -> Tensor:
    """How far each word [Q, L] is behind the nearest tag but 0, at or before it; ``NEAR`` + 1 where far or none."""
    places = torch.arange(tags.shape[1], device=tags.device).expand_as(tags)
    latest = places.masked_fill(tags == 0, -1).cummax(1).values
    distance = places - latest
    return torch.where(latest < 0, NEAR + 1, distance.clamp(max=NEAR + 1))


def distance_from(spans: Tensor, length: int) -> Tensor:
    """How far each word [Q, L] is from a span [Q, 2], negative before it, 0 within, at most ``FAR``; plus ``FAR``."""
    places = torch.arange(length, device=spans.device)
    before = (places - spans[:, :1]).clamp(max=0)
    behind = (places - spans[:, 1:] + 1).clamp(min=0)
    return (before + behind).clamp(-FAR, FAR) + FAR


def _find(tags: Any, lengths: np.ndarray) -> Spans:
    """The spans of rows of ``lengths`` [Q] words. tags: of some rows the logits of begins and ends, and lengths."""
    at_once = max(1, WORDS_AT_ONCE // int(lengths.max(initial=1)))
    found = [pair_tags(*tags(slice(start, start + at_once)), first=start) for start in range(0, len(lengths), at_once)]
    none = np.zeros(0, dtype=np.int64)
    empty = Spans(none, none, none, none, none.astype(np.float32))
    names = ("row", "begin", "end", "type", "score")
    return Spans(*(np.concatenate([getattr(spans, name) for spans in (empty, *found)]) for name in names))


def pair_tags(begins: Tensor, ends: Tensor, lengths: Tensor, *, first: int = 0) -> Spans:
    """Each begin and the nearest end of its type at or behind it, from logits [Q, L, 1 + types]. first: of the rows."""
    length, mask = begins.shape[1], torch.arange(begins.shape[1], device=begins.device) < lengths[:, None]
    values = []
    for logits in (begins, ends):
        score, tag = logits.float().softmax(-1).max(-1)
        values.append(((tag * mask).cpu().numpy(), score.cpu().numpy()))
    (begin_tags, begin_scores), (end_tags, end_scores) = values
    row, begin = begin_tags.nonzero()
    end_row, end = end_tags.nonzero()
    type_, end_type = begin_tags[row, begin], end_tags[end_row, end]
    # Ends in the order of type, row and place; a begin's is the first that is not before it.
    keys = (end_type * len(begins) + end_row) * length + end
    order = np.argsort(keys)
    wanted = (type_ * len(begins) + row) * length + begin
    index = np.searchsorted(keys[order], wanted)
    there = index < len(keys)
    there[there] = keys[order][index[there]] // length == wanted[there] // length
    row, begin, type_ = row[there], begin[there], type_[there]
    end = end[order][index[there]]
    score = np.minimum(begin_scores[row, begin], end_scores[row, end])
    return Spans(row + first, begin, end + 1, type_ - 1, score)


def tags_of(spans: Any, types: Mapping[Any, int], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Tags [size] of where spans begin and end."""
    begin, end = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for span in spans:
        begin[span[0]] = end[span[1] - 1] = 1 + types[span]
    return begin, end


def _one_type(entities: Mapping[tuple[int, int, int], float]) -> dict[tuple[int, int, int], float]:
    """Entities by place and type, each place with its most probable type."""
    best: dict[tuple[int, int], tuple[int, int, int]] = {}
    for key, score in entities.items():
        if key[:2] not in best or score > entities[best[key[:2]]]:
            best[key[:2]] = key
    return {key: entities[key] for key in best.values()}
