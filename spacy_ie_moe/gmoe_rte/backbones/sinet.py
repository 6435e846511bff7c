"""SINET: span-based entities and relations that attend to each other's words. PyTorch only.

Source: RTE-GMoE section 3.4 (eq. 3 and 4), with SINET (LREC-COLING 2024) and SpERT (ECAI 2020), which it builds on.

What differs from the published SINET: it reads words, each the mean of its pieces, where SINET pools pieces; padding
and [SEP] are no keys of the cross-task attention; dropout is drawn once for a sentence, an entity and a width, and not
for each span or pair that they are part of; classifiers start from a prior for "none".
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...labels import is_whole_number
from ..checks import check_shares, check_whole
from ..features import Entity, Extraction, Features, Triplet
from ..mixture import TRIPLETS
from ..pooling import RangeMax
from ..schema import Schema
from ..tensors import tensor_like
from .linear import PRIOR, SplitLinear
from .sampling import Sampler, SpanTargets, all_spans

SIZES = 100
"""Span widths that have an embedding of their own; wider spans share the last."""

SPANS_AT_ONCE, PAIRS_AT_ONCE = 32768, 8192
"""Spans and pairs scored in one go: bounds what a long document takes."""


class Sinet(nn.Module):
    """Every span up to a width is classified, then every ordered pair of the entities among them.

    width: d of the vectors. max_span: the widest span in words. size_width: of the width embeddings. heads: of the
    cross-task attention. cross_attention: False leaves it out, which is SpERT with task-specific spaces. streams:
    "triplets" (its own two spaces are made of R~_tri) or "experts" (they are R~_ent and R~_rel, as section 3.4 has it,
    but for the queries, which are their own sentence vectors). dropout: on the classifiers' inputs.
    attention_dropout: in the cross-task attention. negative_spans, negative_pairs: at most so many per sentence in
    training.
    """

    loses = ""

    def __init__(
        self,
        width: int,
        schema: Schema,
        *,
        max_span: int = 8,
        size_width: int = 100,
        heads: int = 4,
        cross_attention: bool = True,
        streams: str = "triplets",
        dropout: float = 0.1,
        attention_dropout: float = 0.2,
        negative_spans: int = 100,
        negative_pairs: int = 100,
    ) -> None:
        super().__init__()
        if streams not in ("triplets", "experts"):
            raise ValueError(f"backbone_settings.streams is {streams!r}; expected 'triplets' or 'experts'.")
        check_whole(1, max_span=max_span, size_width=size_width)
        check_whole(0, negative_spans=negative_spans, negative_pairs=negative_pairs)
        check_shares(dropout=dropout, attention_dropout=attention_dropout)
        self.reads = (TRIPLETS,) if streams == "triplets" else ("entities", "relations", TRIPLETS)
        self.schema = schema
        self.max_span = max_span
        self.sampler = Sampler(schema, max_span, negative_spans, negative_pairs)
        self._make_spans = partial(
            SpanClassifier, len(schema.entities) + 1, width=width, size_width=size_width, dropout=dropout
        )
        self._make_pairs = partial(
            PairClassifier, len(schema.relations), width=width, size_width=size_width, dropout=dropout
        )
        if streams == "triplets":
            self.to_entities = nn.Linear(width, width, bias=False)
            self.to_relations = nn.Linear(width, width, bias=False)
        self.attend = CrossTaskAttention(width, heads, attention_dropout) if cross_attention else None
        self.entities = self._make_spans()
        self.relations = self._make_pairs()

    def make_expert(self, task: str) -> nn.Module:
        """ER-Net or RE-Net: the same classifier on an expert's own stream, without attention to the other task."""
        if task == "entities":
            return EntityExpert(self._make_spans())
        return RelationExpert(self._make_pairs())

    def prepare(self, lengths: np.ndarray, gold: Sequence[Extraction], rng: np.random.Generator) -> SpanTargets:
        """The spans and pairs to learn from, drawn anew."""
        return self.sampler(lengths, gold, rng)

    def loss(self, streams: Mapping[str, Features], targets: SpanTargets) -> Tensor:
        """l_rte: cross-entropy of the spans plus binary cross-entropy of the pairs."""
        entities, relations = self._spaces(streams)
        loss = span_loss(self.entities, entities, targets)
        return loss + pair_loss(self.relations, relations, streams[TRIPLETS], targets)

    def predict(self, streams: Mapping[str, Features], threshold: float) -> list[Extraction]:
        """Entities and triplets of each sentence; entities may overlap."""
        entities, relations = self._spaces(streams)
        found = self._entities(entities)
        return self._triplets(relations, streams[TRIPLETS], found, threshold)

    def _spaces(self, streams: Mapping[str, Features]) -> tuple[Features, Features]:
        """The vectors for entities and for relations, each with a sentence vector that has seen the other task."""
        if len(self.reads) > 1:
            entities, relations = streams["entities"], streams["relations"]
        else:
            words = streams[TRIPLETS]
            entities = words.replace(self.to_entities(words.hidden))
            relations = words.replace(self.to_relations(words.hidden))
        if self.attend is None:
            return entities, relations
        return self.attend(entities, relations), self.attend(relations, entities)

    def _entities(self, features: Features) -> list[list[Entity]]:
        spans = np.stack(all_spans(features.lengths, self.max_span))
        found: list[list[Entity]] = [[] for _ in features.lengths]
        for first in range(0, spans.shape[1], SPANS_AT_ONCE):
            sentence, start, end = spans[:, first : first + SPANS_AT_ONCE]
            best, types = self.entities(features, sentence, start, end).softmax(-1).max(-1)
            kept = types.nonzero().flatten()
            rows = kept.cpu().numpy()
            columns = sentence[rows], start[rows], end[rows], types[kept] - 1, best[kept]
            for owner, *entity in zip(*(column.tolist() for column in columns), strict=True):
                found[owner].append(Entity(*entity))
        return [sorted(entities) for entities in found]

    def _triplets(
        self, features: Features, words: Features, found: list[list[Entity]], threshold: float
    ) -> list[Extraction]:
        first = np.cumsum([0, *map(len, found)])
        sentence = np.repeat(np.arange(len(found)), np.diff(first))
        spans = np.array([entity[:2] for entities in found for entity in entities], dtype=np.int64).reshape(-1, 2)
        extractions = [Extraction(entities, []) for entities in found]
        if len(spans) < 2:
            return extractions
        pooled = self.relations.pool(features, words, sentence, spans[:, 0], spans[:, 1])
        for head, tail in _all_pairs(first):
            scores = self.relations.score(pooled, head, tail).sigmoid()
            rows, labels = (scores >= threshold).nonzero(as_tuple=True)
            kept = rows.cpu().numpy()
            columns = head[kept], tail[kept], labels, scores[rows, labels]
            for one, other, label, score in zip(*(column.tolist() for column in columns), strict=True):
                owner = sentence[one]
                triplet = Triplet(int(one - first[owner]), int(other - first[owner]), label, score)
                extractions[owner].triplets.append(triplet)
        return [self._without_echoes(extraction) for extraction in extractions]

    def _without_echoes(self, extraction: Extraction) -> Extraction:
        """Symmetric relations once, with the argument first in the text as head, and the higher score."""
        best: dict[tuple[int, int, int], Triplet] = {}
        for triplet in extraction.triplets:
            head, tail, label, score = triplet
            if self.schema.is_turned(label, head, tail):  # entities are sorted
                head, tail = tail, head
            if score > best.get((head, tail, label), Triplet(0, 0, 0, -1.0)).score:
                best[head, tail, label] = Triplet(head, tail, label, score)
        return Extraction(extraction.entities, list(best.values()))


class CrossTaskAttention(nn.Module):
    """A sentence vector of one task attends to the other task's words, and to itself; then a residual and a norm.

    Multi-head attention with one query per sentence. Keys and values are never made: the query is taken into the
    words' space instead, and the values' projection comes after the sum, which is the same at a fraction of the cost.
    Unlike the reference, padding is no word.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if not is_whole_number(heads, 1) or width % heads:
            raise ValueError(
                f"backbone_settings.heads is {heads!r}; expected a divisor of the encoder's width {width}."
            )
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, own: Features, other: Features) -> Features:
        """``own``, its sentence vectors [B, d] replaced."""
        sentences = own.sentences
        first = tensor_like(own.sentence_rows, sentences)
        rows, mask = own.pad(other.hidden.index_copy(0, first, sentences))
        key, value = (linear.weight.unflatten(0, (self.heads, -1)) for linear in (self.key, self.value))
        query = torch.einsum("bhc,hcd->bhd", self.query(sentences).unflatten(-1, (self.heads, -1)), key)
        scores = query @ rows.transpose(1, 2) / math.sqrt(key.shape[1])  # [B, heads, L]
        weights = self.dropout(scores.masked_fill(~mask.unsqueeze(1), -torch.inf).softmax(-1))
        heard = torch.einsum("bhd,hcd->bhc", weights @ rows, value).flatten(1)
        return own.replace(own.hidden.index_copy(0, first, self.norm(sentences + self.dropout(self.out(heard)))))


class SpanClassifier(nn.Module):
    """y^e = SoftMax(W [sentence ; max over the span ; width embedding] + b) (eq. 3); class 0 is no entity."""

    def __init__(self, classes: int, *, width: int, size_width: int, dropout: float) -> None:
        super().__init__()
        self.size = nn.Embedding(SIZES, size_width)
        self.linear = SplitLinear([width, width, size_width], classes)
        self.dropout = nn.Dropout(dropout)
        self.linear.bias.data.zero_()[0] = PRIOR

    def forward(self, features: Features, sentence: np.ndarray, start: np.ndarray, end: np.ndarray) -> Tensor:
        """Logits [S, classes] of the spans of words ``start`` to ``end`` [S] of the sentences ``sentence`` [S]."""
        of_sentence, of_span, of_size = self.linear.parts()
        sizes = end - start
        first = features.sentence_rows[sentence] + 1
        pooled = RangeMax(features.hidden, int(sizes.max(initial=1)))(first + start, first + end)
        return (
            F.linear(self.dropout(features.sentences), of_sentence, self.linear.bias)[tensor_like(sentence, pooled)]
            + F.linear(self.dropout(pooled), of_span)
            + F.linear(self.dropout(self.size.weight), of_size)[tensor_like(_size_row(sizes), pooled)]
        )


class PairClassifier(nn.Module):
    """y^r = Sigmoid(W r + b) (eq. 4), r = [words between ; sentence ; head ; tail ; width of head ; of tail]."""

    def __init__(self, classes: int, *, width: int, size_width: int, dropout: float) -> None:
        super().__init__()
        self.size = nn.Embedding(SIZES, size_width)
        self.linear = SplitLinear([width, width, width, width, size_width, size_width], classes)
        self.dropout = nn.Dropout(dropout)
        self.linear.bias.data.fill_(-PRIOR)

    def pool(
        self, features: Features, words: Features, sentence: np.ndarray, start: np.ndarray, end: np.ndarray
    ) -> PooledSpans:
        """What spans [S] bring to pairs; arguments as in ``SpanClassifier``. words: what is pooled between spans."""
        _, of_sentence, of_head, of_tail, of_head_size, of_tail_size = self.linear.parts()
        sizes = end - start
        first = features.sentence_rows[sentence] + 1
        table = RangeMax(features.hidden, int(sizes.max(initial=1)))
        pooled = self.dropout(table(first + start, first + end))
        size = self.dropout(self.size(tensor_like(_size_row(sizes), pooled)))
        of_owner = F.linear(self.dropout(features.sentences), of_sentence, self.linear.bias)
        return PooledSpans(
            head=F.linear(pooled, of_head) + F.linear(size, of_head_size) + of_owner[tensor_like(sentence, pooled)],
            tail=F.linear(pooled, of_tail) + F.linear(size, of_tail_size),
            start=first + start,
            end=first + end,
            between=RangeMax(words.hidden, int(words.lengths.max(initial=1))),
        )

    def score(self, spans: PooledSpans, head: np.ndarray, tail: np.ndarray) -> Tensor:
        """Logits [P, classes] of pairs of rows [P] of the spans."""
        start = np.minimum(spans.end[head], spans.end[tail])
        end = np.maximum(spans.start[head], spans.start[tail])
        between = spans.between(start, np.maximum(start, end))
        of_between = self.linear.parts()[0]
        return (
            spans.head[tensor_like(head, between)]
            + spans.tail[tensor_like(tail, between)]
            + F.linear(self.dropout(between), of_between)
        )


class PooledSpans:
    """Spans as pairs need them: logits [S, classes] as head (with the sentence's) and as tail, rows, and a table."""

    def __init__(self, *, head: Tensor, tail: Tensor, start: np.ndarray, end: np.ndarray, between: RangeMax) -> None:
        self.head, self.tail = head, tail
        self.start, self.end = start, end
        self.between = between


class EntityExpert(nn.Module):
    """ER-Net: a span classifier on R~_ent."""

    def __init__(self, classifier: SpanClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def loss(self, features: Features, targets: SpanTargets) -> Tensor:
        """l_ent."""
        return span_loss(self.classifier, features, targets)


class RelationExpert(nn.Module):
    """RE-Net: a pair classifier on R~_rel, for pairs of gold entities."""

    def __init__(self, classifier: PairClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def loss(self, features: Features, targets: SpanTargets) -> Tensor:
        """l_rel."""
        return pair_loss(self.classifier, features, features, targets)


def span_loss(classifier: SpanClassifier, features: Features, targets: SpanTargets) -> Tensor:
    """Mean cross-entropy of the spans of the batch; 0 where there are none."""
    if not len(targets.types):
        return features.hidden.sum() * 0
    logits = classifier(features, targets.sentence, targets.start, targets.end)
    return F.cross_entropy(logits.float(), tensor_like(targets.types, logits))


def pair_loss(classifier: PairClassifier, features: Features, words: Features, targets: SpanTargets) -> Tensor:
    """Mean binary cross-entropy of the pairs of the batch and their labels; 0 where there are none."""
    if not targets.labels.size:
        return features.hidden.sum() * 0
    entities = targets.entities
    spans = classifier.pool(features, words, targets.sentence[entities], targets.start[entities], targets.end[entities])
    logits = classifier.score(spans, targets.head, targets.tail)
    return F.binary_cross_entropy_with_logits(logits.float(), tensor_like(targets.labels, logits))


def _all_pairs(first: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All ordered pairs of entities of one sentence. first: [B + 1] the first entity of each, and their number."""
    heads, tails, size = [], [], 0
    for start, end in pairwise(first.tolist()):
        rows = np.arange(start, end)
        for head in rows:
            heads.append(np.full(len(rows) - 1, head))
            tails.append(rows[rows != head])
            size += len(rows) - 1
            if size >= PAIRS_AT_ONCE:
                yield np.concatenate(heads), np.concatenate(tails)
                heads, tails, size = [], [], 0
    if size:
        yield np.concatenate(heads), np.concatenate(tails)


def _size_row(sizes: np.ndarray) -> np.ndarray:
    return np.minimum(sizes, SIZES - 1)
