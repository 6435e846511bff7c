"""Re-Cent: relations that the encoder was told to look for, each with its subjects, objects and pairs. PyTorch only.

Source: RTE-GMoE section 4.5 with Re-Cent (COLING 2025), which it builds on.

The labels of the relations stand before the words in what the encoder reads, so the network has no weights for any of
them and finds those that it never saw. What differs from the published Re-Cent: a span that is the subject of several
relations learns all of them; there are no spans beyond the words; one reading for sentences with one triplet and with
many, so nothing is told how many there are; losses are summed by sentence; each score has a bias, which starts low so
that an untrained network finds nothing; a word is the mean of its pieces, and a label that of its marker and its own
instead of the marker alone; features are normed, products of spans and labels divided by the root of d, and layers
start so that scores differ from the first step on; RE-Net learns from pairs of gold arguments only, as it has no scores
to choose others by. Re-Cent has no types of entities: where there are several, a classifier of spans tells them. FFNs
over pairs are computed side by side, and their last layers folded into the labels: the same scores for 4 d per pair and
label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import check_shares, check_whole
from ..features import Entity, Extraction, Features
from ..mixture import TRIPLETS
from ..schema import Schema
from ..tensors import tensor_like, tensors_like
from .linear import PairFeatures, SplitLinear
from .sampling import all_spans
from .triplets import Span, SpanTriplet, best_arguments, to_extraction

PAIRS_AT_ONCE = 8192
"""Spans, or pairs of them, whose features are made in one go: they are far wider than scores."""

PRIOR = 5.0
"""Where the scores of spans and pairs start, as minus this logit: one in some hundreds is that of a triplet."""

FOUND = np.dtype([("span", np.int64), ("label", np.int64), ("score", np.float64)])
"""An argument: its place among a sentence's spans, its label's place in the prompt, and its probability."""

Sides = tuple[Tensor, Tensor]


class GoldRoles(NamedTuple):
    """What is annotated in a sentence, spans in words, end exclusive, and labels by their place in the prompt.

    triplets: [T, 5] head, tail and label. unknown: [U, 4] pairs for which a relation holds that is not annotated.
    entities: [E, 3] spans and types.
    """

    triplets: np.ndarray
    unknown: np.ndarray
    entities: np.ndarray


class Sentence(NamedTuple):
    """Where a sentence's labels are among all labels, its words among all words; and its spans [S, 2] in words."""

    labels: slice
    words: slice
    spans: np.ndarray


class Rows(NamedTuple):
    """What the labels [C, d] and the words of a batch are to pairs: as the first and last of subjects and objects."""

    labels: Tensor
    subjects: Sides
    objects: Sides

    @property
    def roles(self) -> tuple[Sides, Sides]:
        return self.subjects, self.objects


class ReCent(nn.Module):
    """Subjects and objects of each label, and pairs of them.

    With P_c of a label c and g_ij = FFN([FFN(h_i); FFN(h_j)]) of a span in a role, the logits are sub_ijc = g_ij . P_c,
    obj_ijc likewise, and so_abc = FFN([g_a; g_b]) . P_c of a subject a and an object b, each with a bias. l_rte is half
    of the cross-entropies of sub and obj and half of that of so, summed over spans or pairs, and labels, by sentence.

    width: d of the vectors. max_span: words of the widest argument. expansion: the hidden layers' width, as a multiple
    of d. dropout: in all FFNs; 0.4 is published. candidates: spans of each label and role that pairs are learnt from,
    beside the gold ones. span_threshold: the least probability of a subject or an object. labels_at_once: of a prompt;
    where more are asked for, there are several. negative_labels: labels that a sentence is learnt with beside its own,
    at most so many for each triplet. absent_labels: the probability that it is learnt with none of its own, as it is
    asked in most rounds where there are many labels; the published one never is.
    """

    reads = (TRIPLETS,)
    loses = "subjects that overlap, and objects that do"

    def __init__(
        self,
        width: int,
        schema: Schema,
        *,
        max_span: int = 12,
        expansion: int = 4,
        dropout: float = 0.1,
        candidates: int = 5,
        span_threshold: float = 0.2,
        labels_at_once: int = 15,
        negative_labels: int = 2,
        absent_labels: float = 0.2,
    ) -> None:
        super().__init__()
        check_whole(1, max_span=max_span, expansion=expansion, labels_at_once=labels_at_once)
        check_whole(0, candidates=candidates, negative_labels=negative_labels)
        check_shares(dropout=dropout, span_threshold=span_threshold, absent_labels=absent_labels)
        self.max_span = max_span
        self.candidates = candidates
        self.span_threshold = span_threshold
        self.labels_at_once = labels_at_once
        self.negative_labels = negative_labels
        self.absent_labels = absent_labels
        self._sizes = (width, expansion * width, dropout)
        self.roles = RoleExpert(*self._sizes, max_span)
        self.pairs = LabelledPairs(*self._sizes)
        types = len(schema.entities)
        self.types = nn.Linear(2 * width, types) if types > 1 else None

    def make_expert(self, task: str) -> nn.Module:
        """ER-Net, which spans are subjects and objects, or RE-Net, which arguments are related."""
        return (RoleExpert if task == "entities" else PairExpert)(*self._sizes, self.max_span)

    def prepare(self, lengths: np.ndarray, gold: Sequence[Extraction], rng: np.random.Generator) -> list[GoldRoles]:
        """What is annotated in each sentence; which labels it is learnt with was drawn with its prompt."""
        return [roles_of(extraction) for extraction in gold]

    def loss(self, streams: Mapping[str, Features], targets: Sequence[GoldRoles]) -> Tensor:
        """l_rte: half of the roles' loss and half of the pairs', and that of the types where there are several."""
        features = streams[TRIPLETS]
        rows = self.roles(features)
        total = features.hidden.sum() * 0
        for sentence, gold in zip(sentences_of(features, self.max_span), targets, strict=True):
            if len(sentence.spans) and sentence.labels.stop > sentence.labels.start:
                scores = self.roles.scores(rows, sentence)
                total = total + role_loss(scores, sentence.spans, gold) / 2
                subjects, objects = (
                    with_candidates(gold.triplets[:, columns], sentence.spans, role, self.candidates)
                    for role, columns in zip(scores, ([0, 1], [2, 3]), strict=True)
                )
                vectors = self.roles.vectors(rows, sentence, subjects, objects)
                labels = rows.labels[sentence.labels]
                total = total + self.pairs.loss(*vectors, labels, (subjects, objects), gold) / 2
            if self.types is not None and len(gold.entities):
                spans, types = gold.entities[:, :2], tensor_like(gold.entities[:, 2], total)
                logits = self._type_logits(rows, sentence, spans).float()
                total = total + F.cross_entropy(logits, types, reduction="sum")
        return total / max(1, len(targets))

    def predict(self, streams: Mapping[str, Features], threshold: float) -> list[Extraction]:
        """The arguments of triplets, and the triplets, whose labels are places in the prompt.

        A triplet's score is the mean of the probabilities of its subject, its object and their pair. threshold: of
        that mean; Re-Cent's own is 1.3 / 3.
        """
        features = streams[TRIPLETS]
        rows = self.roles(features)
        return [self._find(rows, sentence, threshold) for sentence in sentences_of(features, self.max_span)]

    def _find(self, rows: Rows, sentence: Sentence, threshold: float) -> Extraction:
        scores = [_numbers(scores) for scores in self.roles.scores(rows, sentence)]
        subjects, objects = (choose_arguments(role, sentence.spans, self.span_threshold) for role in scores)
        one, other = join_roles(subjects, objects, 3 * threshold - 1)
        if not len(one):
            return Extraction()
        (heads, head), (tails, tail) = (np.unique(role["span"], return_inverse=True) for role in (one, other))
        vectors = self.roles.vectors(rows, sentence, sentence.spans[heads], sentence.spans[tails])
        pairs = self.pairs.probabilities(*vectors, rows.labels[sentence.labels], head, tail, one["label"])
        means = (one["score"] + other["score"] + pairs) / 3
        spans: list[Span] = [(start, end) for start, end in sentence.spans.tolist()]
        found = [
            (SpanTriplet(spans[one["span"][row]], spans[other["span"][row]], int(one["label"][row])), float(means[row]))
            for row in np.nonzero((means >= threshold) & (one["span"] != other["span"]))[0]
        ]
        best = best_arguments(found)
        types = [0] * len(best)
        if self.types is not None and best:
            types = self._type_logits(rows, sentence, np.array([*best])).argmax(-1).tolist()
        entities = [Entity(*span, type_, score) for (span, score), type_ in zip(best.items(), types, strict=True)]
        return to_extraction(found, entities)

    def _type_logits(self, rows: Rows, sentence: Sentence, spans: np.ndarray) -> Tensor:
        """Logits [E, types] of spans [E, 2], of what they are as subjects and as objects."""
        assert self.types is not None
        return self.types(torch.cat(self.roles.vectors(rows, sentence, spans, spans), -1))


class PairFfn(nn.Module):
    """FFN(ReLU[x; y]) of pairs of rows, each row projected once."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.pairs = PairFeatures(width, hidden, dropout)
        self.out = nn.Linear(hidden, width)

    def sides(self, first: Tensor, second: Tensor) -> Sides:
        """What rows [N, d] and [M, d] bring to pairs as the first and as the second."""
        return self.pairs.sides(first.relu(), second.relu())

    def vectors(self, sides: Sides, first: Tensor, second: Tensor) -> Tensor:
        """The pairs [P, d] of the rows ``first`` and ``second`` [P]."""
        return self.out(self.pairs(sides, first, second))

    def scores(self, sides: Sides, first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
        """Their dot products [P, C] with labels [C, d]: the last layer is folded into the labels."""
        folded, bias = labels @ self.out.weight, labels @ self.out.bias
        parts = zip(first.split(PAIRS_AT_ONCE), second.split(PAIRS_AT_ONCE), strict=True)
        return torch.cat([torch.addmm(bias, self.pairs(sides, *part), folded.T) for part in parts])


class SpanFfn(nn.Module):
    """Vectors of spans in a role, from their first and last words."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.first = _ffn(width, hidden, dropout)
        self.last = _ffn(width, hidden, dropout)
        self.join = PairFfn(width, hidden, dropout)

    def forward(self, words: Tensor) -> Sides:
        """What words [W, d] bring to spans as their first and as their last."""
        return self.join.sides(self.first(words), self.last(words))


class PromptReader(nn.Module):
    """Labels, and spans as subjects and as objects."""

    def __init__(self, width: int, hidden: int, dropout: float, max_span: int) -> None:
        super().__init__()
        self.max_span = max_span
        self.label = _ffn(width, hidden, dropout)
        self.subject = SpanFfn(width, hidden, dropout)
        self.object = SpanFfn(width, hidden, dropout)
        _keep_size(self)

    def forward(self, features: Features) -> Rows:
        """The labels and words of a batch.

        The features are normed, and the labels divided by the root of d, so that scores start alike whatever the
        encoder and the mixture: a product of two vectors grows with d and with the square of the features.
        """
        if features.prompts is None:
            raise ValueError("the features have no prompts; expected those of an encoder that reads labels.")
        is_label, is_word = tensors_like((features.is_label, features.is_word), features.hidden)
        width = features.hidden.shape[-1]
        hidden = F.layer_norm(features.hidden, (width,))
        words = hidden[is_word]
        return Rows(self.label(hidden[is_label]) / width**0.5, self.subject(words), self.object(words))

    def vectors(
        self, rows: Rows, sentence: Sentence, subjects: np.ndarray, objects: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """The vectors [A, d] of spans [A, 2] as subjects, and those of others as objects."""
        of_subjects, of_objects = (
            role.join.vectors(sides, *_first_and_last(sentence, spans, sides))
            for role, sides, spans in zip((self.subject, self.object), rows.roles, (subjects, objects), strict=True)
        )
        return of_subjects, of_objects


class RoleExpert(PromptReader):
    """Which spans are the subjects and objects of each label: ER-Net, and the backbone's own."""

    def __init__(self, width: int, hidden: int, dropout: float, max_span: int) -> None:
        super().__init__(width, hidden, dropout, max_span)
        self.bias = nn.Parameter(torch.full((2,), -PRIOR))

    def scores(self, rows: Rows, sentence: Sentence) -> tuple[Tensor, Tensor]:
        """Logits [S, C] of the sentence's spans as subjects of the labels of its prompt, and as objects."""
        labels = rows.labels[sentence.labels]
        subjects, objects = (
            role.join.scores(sides, *_first_and_last(sentence, sentence.spans, sides), labels)
            for role, sides in zip((self.subject, self.object), rows.roles, strict=True)
        )
        return subjects + self.bias[0], objects + self.bias[1]

    def loss(self, features: Features, targets: Sequence[GoldRoles]) -> Tensor:
        """l_ent: half of the binary cross-entropy of all spans, labels and both roles, by sentence."""
        rows = self(features)
        total = features.hidden.sum() * 0
        for sentence, gold in zip(sentences_of(features, self.max_span), targets, strict=True):
            if len(sentence.spans) and sentence.labels.stop > sentence.labels.start:
                total = total + role_loss(self.scores(rows, sentence), sentence.spans, gold) / 2
        return total / max(1, len(targets))


class LabelledPairs(nn.Module):
    """Which pairs of a subject and an object are related, by label."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.join = PairFfn(width, hidden, dropout)
        self.bias = nn.Parameter(torch.full((1,), -PRIOR))
        _keep_size(self)

    def loss(
        self, subjects: Tensor, objects: Tensor, labels: Tensor, spans: tuple[np.ndarray, np.ndarray], gold: GoldRoles
    ) -> Tensor:
        """Summed binary cross-entropy of all pairs of subjects [A, d] and objects [B, d], whose ``spans`` are given."""
        first, second = (
            index.to(labels.device)
            for index in torch.cartesian_prod(torch.arange(len(subjects)), torch.arange(len(objects))).view(-1, 2).T
        )
        logits = self.join.scores(self.join.sides(subjects, objects), first, second, labels) + self.bias
        wanted, counted = pair_targets(*spans, len(labels), gold)
        return _loss(logits, wanted.reshape(-1, len(labels)), counted.reshape(-1, len(labels)))

    def probabilities(
        self, subjects: Tensor, objects: Tensor, labels: Tensor, head: np.ndarray, tail: np.ndarray, label: np.ndarray
    ) -> np.ndarray:
        """[T] of the pairs of rows ``head`` and ``tail`` and the rows ``label`` of the labels."""
        pairs, place = np.unique(np.stack([head, tail]), axis=1, return_inverse=True)
        first, second = tensors_like(pairs, labels)
        logits = self.join.scores(self.join.sides(subjects, objects), first, second, labels) + self.bias
        return _numbers(logits.sigmoid())[place.ravel(), label]


class PairExpert(PromptReader):
    """Which of the gold arguments are related: RE-Net."""

    def __init__(self, width: int, hidden: int, dropout: float, max_span: int) -> None:
        super().__init__(width, hidden, dropout, max_span)
        self.pairs = LabelledPairs(width, hidden, dropout)

    def loss(self, features: Features, targets: Sequence[GoldRoles]) -> Tensor:
        """l_rel: half of the binary cross-entropy of all pairs of arguments, in both orders, by sentence."""
        rows = self(features)
        total = features.hidden.sum() * 0
        for sentence, gold in zip(sentences_of(features, self.max_span), targets, strict=True):
            if len(gold.triplets):
                spans = np.unique(gold.triplets[:, :4].reshape(-1, 2), axis=0)
                vectors = self.vectors(rows, sentence, spans, spans)
                total = total + self.pairs.loss(*vectors, rows.labels[sentence.labels], (spans, spans), gold) / 2
        return total / max(1, len(targets))


# --- sentences ------------------------------------------------------------------------------------------------------


def sentences_of(features: Features, max_span: int) -> Iterator[Sentence]:
    """The sentences of a batch, with all spans of at most ``max_span`` words."""
    assert features.prompts is not None
    label = word = 0
    for length, number in zip(features.lengths.tolist(), features.prompts.tolist(), strict=True):
        words = length - number
        _, start, end = all_spans(np.array([words]), max_span)
        yield Sentence(slice(label, label + number), slice(word, word + words), np.stack([start, end], 1))
        label, word = label + number, word + words


def roles_of(extraction: Extraction) -> GoldRoles:
    """What is annotated, as arrays; each triplet once."""
    spans = [entity[:2] for entity in extraction.entities]
    triplets = {(*spans[head], *spans[tail], label) for head, tail, label, _ in extraction.triplets}
    unknown = [(*spans[head], *spans[tail]) for head, tail in sorted(extraction.unknown)]
    entities = [entity[:3] for entity in extraction.entities]
    return GoldRoles(
        *(
            np.array(rows, dtype=np.int64).reshape(-1, columns)
            for rows, columns in ((sorted(triplets), 5), (unknown, 4), (entities, 3))
        )
    )


# --- learning -------------------------------------------------------------------------------------------------------


def role_loss(scores: tuple[Tensor, Tensor], spans: np.ndarray, gold: GoldRoles) -> Tensor:
    """Summed binary cross-entropy of logits [S, C] as subjects and as objects."""
    rows = {span: row for row, span in enumerate(map(tuple, spans.tolist()))}
    total = scores[0].new_zeros((), dtype=torch.float32)
    for logits, start in zip(scores, (0, 2), strict=True):
        wanted, counted = np.zeros(logits.shape, dtype=np.float32), np.ones(logits.shape, dtype=np.float32)
        for one in gold.unknown.tolist():
            if (row := rows.get((one[start], one[start + 1]))) is not None:
                counted[row] = 0
        for one in gold.triplets.tolist():
            if (row := rows.get((one[start], one[start + 1]))) is not None:
                wanted[row, one[4]] = counted[row, one[4]] = 1
        total = total + _loss(logits, wanted, counted)
    return total


def with_candidates(gold: np.ndarray, spans: np.ndarray, scores: Tensor, number: int) -> np.ndarray:
    """The gold spans [G, 2] of a role and the ``number`` best of ``spans`` for each label by scores [S, C]: [A, 2]."""
    best = scores.detach().topk(min(number, len(spans)), dim=0).indices.flatten().cpu().numpy()
    return np.unique(np.concatenate([gold, spans[best]]), axis=0)


def pair_targets(
    subjects: np.ndarray, objects: np.ndarray, labels: int, gold: GoldRoles
) -> tuple[np.ndarray, np.ndarray]:
    """1 where a label holds between spans [A, 2] and [B, 2]: [A, B, C]; and 0 where nothing is known of it, else 1."""
    heads, tails = ({span: row for row, span in enumerate(map(tuple, side.tolist()))} for side in (subjects, objects))
    wanted = np.zeros((len(subjects), len(objects), labels), dtype=np.float32)
    counted = np.ones_like(wanted)
    for a, b, c, d in gold.unknown.tolist():
        if (a, b) in heads and (c, d) in tails:
            counted[heads[a, b], tails[c, d]] = 0
    for a, b, c, d, label in gold.triplets.tolist():
        wanted[heads[a, b], tails[c, d], label] = counted[heads[a, b], tails[c, d], label] = 1
    return wanted, counted


def _loss(logits: Tensor, wanted: np.ndarray, counted: np.ndarray) -> Tensor:
    gold, weight = tensors_like((wanted, counted), logits)
    return F.binary_cross_entropy_with_logits(logits.float(), gold, weight=weight, reduction="sum")


# --- decoding -------------------------------------------------------------------------------------------------------


def choose_arguments(scores: np.ndarray, spans: np.ndarray, least: float) -> np.ndarray:
    """The arguments of a role, ``FOUND``: more probable than ``least`` and, of spans that overlap, the most probable.

    scores: [S, C] logits of spans [S, 2]. A span may be an argument of several labels.
    """
    probabilities = 1 / (1 + np.exp(-np.clip(scores.astype(np.float64), -60, 60)))
    rows, labels = np.nonzero(probabilities > least)
    taken: dict[int, int] = {}
    kept = []
    for place in np.argsort(-scores[rows, labels], kind="stable").tolist():  # logits: sure ones differ still
        row, label = int(rows[place]), int(labels[place])
        words = range(*spans[row].tolist())
        if all(taken.get(word, row) == row for word in words):
            taken.update(dict.fromkeys(words, row))
            kept.append((row, label, probabilities[row, label]))
    return np.array(kept, dtype=FOUND)


def join_roles(subjects: np.ndarray, objects: np.ndarray, least: float = -1.0) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a subject and an object of the same label: two arrays of ``FOUND``, [T] each.

    least: of the sum of their probabilities.
    """
    pairs = [(np.zeros(0, dtype=np.int64),) * 2]
    for label in np.intersect1d(subjects["label"], objects["label"]):
        ones, others = (np.nonzero(role["label"] == label)[0] for role in (subjects, objects))
        sums = subjects["score"][ones, None] + objects["score"][others]
        one, other = np.nonzero(sums >= least)
        pairs.append((ones[one], others[other]))
    one, other = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return subjects[one], objects[other]


def _ffn(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))


def _keep_size(module: nn.Module) -> None:
    """Start with layers that keep the variance of what they are given, but for what a ReLU takes.

    PyTorch's own leave a third of it: behind four of them, and a product of two such vectors, all spans have the same
    score in all but the third digit, and it takes hundreds of steps until they differ.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | SplitLinear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
            nn.init.zeros_(layer.bias)


def _first_and_last(sentence: Sentence, spans: np.ndarray, sides: Sides) -> tuple[Tensor, Tensor]:
    """The words' rows [A] that spans [A, 2] of a sentence begin and end with."""
    words = sentence.words.start + spans
    first, last = tensors_like((words[:, 0], words[:, 1] - 1), sides[0])
    return first, last


def _numbers(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
