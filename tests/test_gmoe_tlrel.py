"""TLRel: the CRF against all paths, the tensor against its sum, and tags that come back. PyTorch only."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spacy_ie_moe.gmoe_rte.backbones.crf import Crf
from spacy_ie_moe.gmoe_rte.backbones.tlrel import TlRel, begin, inside, read_tags
from spacy_ie_moe.gmoe_rte.features import Entity, Extraction, Triplet

from .test_gmoe_backbones import gold_of, make_finder, make_network
from .test_gmoe_network import SCHEMA, close, make_features, one_by_one


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# --- the CRF --------------------------------------------------------------------------------------------------


def paths(crf: Crf, emissions: Tensor) -> dict[tuple[int, ...], Tensor]:
    """The score of every path through the emissions [L, T]."""
    length, tags = emissions.shape
    scores = {}
    for path in product(range(tags), repeat=length):
        score = crf.start[path[0]] + crf.end[path[-1]] + sum(emissions[i, tag] for i, tag in enumerate(path))
        scores[path] = score + sum(crf.transitions[a, b] for a, b in pairwise(path))
    return scores


@torch.no_grad()
def test_the_crf_equals_the_sum_over_all_paths() -> None:
    crf = Crf(3)
    for parameter in crf.parameters():
        parameter.normal_()
    emissions, lengths = torch.randn(4, 5, 3), [5, 1, 3, 2]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    tags = torch.randint(3, (4, 5)) * mask
    losses, best = crf(emissions, tags, mask), crf.decode(emissions, mask)
    for row, length in enumerate(lengths):
        scores = paths(crf, emissions[row, :length])
        gold = scores[tuple(tags[row, :length].tolist())]
        close(losses[row], torch.logsumexp(torch.stack([*scores.values()]), 0) - gold)
        assert best[row, :length].tolist() == list(max(scores, key=lambda path: scores[path].item()))
        assert not best[row, length:].any()


# --- tags -----------------------------------------------------------------------------------------------------


def test_tags_are_read() -> None:
    tags = [0, begin(1), inside(1), begin(1), inside(0), inside(0), 0, inside(2)]
    assert read_tags(tags, [1.0, 0.9, 0.8, 1.0, 0.7, 0.6, 1.0, 0.5]) == [
        Entity(1, 3, 1, 0.8), Entity(3, 4, 1, 1.0), Entity(4, 6, 0, 0.6), Entity(7, 8, 2, 0.5),
    ]  # fmt: skip
    assert read_tags([], []) == []


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(0, 2)), max_size=6))
def test_tags_of_flat_entities_come_back(drawn: list[tuple[int, int, int]]) -> None:
    """gap, words, type: entities that do not overlap."""
    entities, end = [], 0
    for gap, size, type_ in drawn:
        entities.append(Entity(end + gap, end + gap + size, type_))
        end += gap + size
    targets = make_network("tlrel").backbone.prepare(np.array([end]), [Extraction(entities)], np.random.default_rng(0))
    assert read_tags(targets.tags[0].tolist(), [1.0] * end) == entities


def test_the_targets_of_a_sentence() -> None:
    entities = [Entity(0, 2, 0), Entity(1, 4, 2), Entity(4, 5, 1), Entity(4, 5, 2)]
    gold = Extraction(entities, [Triplet(2, 0, 0), Triplet(2, 0, 1)], frozenset({(0, 2)}))
    targets = make_network("tlrel").backbone.prepare(np.array([5, 6]), [gold, Extraction()], np.random.default_rng(0))
    assert targets.tags[0].tolist() == [0, begin(2), inside(2), inside(2), begin(1), 0], "the longest, then the first"
    cells = [[0, 4, 1], [1, 4, 1], [4, 0, 0], [4, 1, 0]]
    assert targets.relations[0].tolist() == cells, "spouse is symmetric: head first"
    assert targets.relations[1].shape == (0, 3)
    assert targets.counted[0].sum() == 25 - 2 and targets.counted[1].sum() == 36
    assert not targets.counted[0][:2, 4].any()


# --- the tensor -----------------------------------------------------------------------------------------------


def written_out(backbone: TlRel, words: Tensor) -> Tensor:
    """S [n, n, R] of words [n, d], with the sum of the equation."""
    tensor = backbone.relations
    q = tensor.query(tensor.heads(words))
    k = tensor.key(tensor.tails(words))
    core = torch.einsum("abc,rc->abr", tensor.core, tensor.relations)
    n = len(words)
    scores = torch.empty(n, n, len(tensor.bias))
    for i, j, r in product(range(n), range(n), range(len(tensor.bias))):
        scores[i, j, r] = (
            sum(q[i, a] * k[j, b] * core[a, b, r] for a, b in product(range(q.shape[1]), range(k.shape[1])))
            + tensor.bias[r]
        )
    return scores


@torch.no_grad()
def test_the_tensor_equals_its_sum() -> None:
    backbone: TlRel = make_finder("tlrel", mixture=None).backbone
    features = make_features((4, 3))
    words = features.pad(features.hidden)[0][:, 1:]
    scores = backbone.relations(*backbone.relations.factors(words))
    for row, part in enumerate(one_by_one(features)):
        n = int(part.lengths[0])
        close(scores[row, :n, :n], written_out(backbone, part.hidden[1:]), 1e-4)


@torch.no_grad()
def test_the_loss_is_that_of_words_and_pairs() -> None:
    lengths = (4, 3)
    network = make_network("tlrel", mixture=None).eval()
    backbone: TlRel = network.backbone
    gold = gold_of(lengths, SCHEMA)
    gold[0] = Extraction(gold[0].entities, gold[0].triplets, frozenset({(1, 0)}))
    targets = backbone.prepare(np.array(lengths), gold, np.random.default_rng(0))
    features = make_features(lengths)
    expected_entities, expected_relations = [], []
    for row, (part, n) in enumerate(zip(one_by_one(features), lengths, strict=True)):
        tagger = backbone.entities
        scores = paths(tagger.crf, tagger.emit(tagger.branch(part.hidden[1:])))
        path = scores[tuple(targets.tags[row, :n].tolist())]
        expected_entities.append(torch.logsumexp(torch.stack([*scores.values()]), 0) - path)
        logits = written_out(backbone, part.hidden[1:])
        wanted = torch.zeros_like(logits)
        wanted[tuple(targets.relations[row].T)] = 1
        losses = -10 * wanted * F.logsigmoid(logits) - (1 - wanted) * F.logsigmoid(-logits)
        for i, j in product(range(n), repeat=2):
            counts = losses[i, j] if targets.counted[row][i, j] else losses[i, j][wanted[i, j] == 1]
            expected_relations.append(counts.sum())
    assert not targets.counted[0].all()
    expected = torch.stack(expected_entities).mean() + torch.stack(expected_relations).sum() / 7
    close(backbone.loss({"triplets": features}, targets), expected, 1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "backbone_settings.rank is 0; expected a whole number of at least 1"),
        ({"branch_width": 0}, "backbone_settings.branch_width is 0; expected a whole number of at least 1"),
        ({"positive_weight": 0}, "backbone_settings.positive_weight is 0; expected a finite number above 0"),
        ({"positive_weight": True}, "backbone_settings.positive_weight is True; expected a finite number above 0"),
    ],
)
def test_wrong_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_network("tlrel", **options)
