"""Dual-Dec's cascade: against decoding one by one, its loss against the four taggers', tags that come back."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.backbone_loops import decode_by_hand
from spacy_ie_moe.gmoe_rte.backbones.dual_dec import (
    FAR,
    NEAR,
    DualDec,
    Tagger,
    distance_behind,
    distance_from,
    pair_tags,
)
from spacy_ie_moe.gmoe_rte.features import Entity, Extraction, Triplet

from .test_gmoe_backbones import make_network
from .test_gmoe_network import close, make_features, one_by_one


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# --- parts ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_a_tagger_reads_rows_as_if_they_were_alone() -> None:
    tagger = Tagger(5, 3, 2, 0.4).eval()
    inputs, lengths = torch.randn(3, 6, 5), torch.tensor([6, 1, 4])
    states, logits = tagger([inputs[..., :2], inputs[..., 2:]], lengths)
    for row, length in enumerate(lengths.tolist()):
        normed = F.layer_norm(inputs[row : row + 1, :length], (5,), tagger.norm.weight, tagger.norm.bias)
        expected, _ = tagger.lstm(normed)
        close(states[row, :length], expected[0])
        close(logits[row, :length], tagger.classify(expected[0]))


@given(st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=1, max_size=3), st.integers(1, 30))
def test_distances_behind_tags(tags: list[list[int]], repeat: int) -> None:
    rows = [[tag for tag in row for _ in range(repeat)] for row in tags]
    for row, found in zip(rows, distance_behind(torch.tensor(rows)).tolist(), strict=True):
        for place, distance in enumerate(found):
            before = [place - other for other in range(place + 1) if row[other]]
            expected = min(before) if before and min(before) <= NEAR else NEAR + 1
            assert distance == expected


def test_distances_from_spans() -> None:
    found = distance_from(torch.tensor([[2, 4], [0, 1], [FAR + 2, FAR + 3]]), 2 * FAR + 10) - FAR
    assert found[0, :7].tolist() == [-2, -1, 0, 0, 1, 2, 3]
    assert found[1, :3].tolist() == [0, 1, 2]
    assert found[2, 0] == -FAR and found[2, -1] == FAR and found[1, -1] == FAR


@given(st.data())
def test_begins_meet_the_nearest_end_of_their_type(data: st.DataObject) -> None:
    rows, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 6))
    shape = st.lists(st.lists(st.integers(0, 2), min_size=length, max_size=length), min_size=rows, max_size=rows)
    begins, ends = data.draw(shape), data.draw(shape)
    lengths = data.draw(st.lists(st.integers(1, length), min_size=rows, max_size=rows))
    logits = [8.0 * F.one_hot(torch.tensor(tags), 3).float() for tags in (begins, ends)]
    spans = pair_tags(*logits, torch.tensor(lengths), first=5)
    expected = set()
    for row, start in product(range(rows), range(length)):
        kind = begins[row][start]
        closing = [end for end in range(start, lengths[row]) if ends[row][end] == kind]
        if kind and start < lengths[row] and closing:
            expected.add((row + 5, start, min(closing) + 1, kind - 1))
    columns = (spans.row, spans.begin, spans.end, spans.type)
    assert set(zip(*(column.tolist() for column in columns), strict=True)) == expected
    assert len(spans.row) == len(expected)
    assert (spans.score > 0.99).all()


# --- targets and loss -----------------------------------------------------------------------------------------


ENTITIES = [Entity(0, 2, 0), Entity(3, 4, 2), Entity(4, 6, 1)]
GOLD = Extraction(ENTITIES, [Triplet(0, 1, 0), Triplet(0, 2, 0), Triplet(1, 2, 0), Triplet(2, 0, 1)])


def test_the_targets_of_a_sentence() -> None:
    backbone = make_network("dual_dec").backbone
    targets = backbone.prepare(np.array([6, 7]), [GOLD, Extraction()], np.random.default_rng(0))
    assert targets.labels.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]
    assert targets.sentence.tolist() == [0, 0] and targets.relation.tolist() == [0, 1]
    assert targets.head_begin[0].tolist() == [1, 0, 0, 3, 0, 0, 0]
    assert targets.head_end[0].tolist() == [0, 1, 0, 3, 0, 0, 0]
    assert targets.head[1].tolist() == [0, 2] and targets.tail_end[1].tolist() == [0, 0, 0, 0, 0, 2, 0], "head first"
    drawn = {
        tuple(backbone.prepare(np.array([6]), [GOLD], np.random.default_rng(n)).head[0].tolist()) for n in range(20)
    }
    assert drawn == {(0, 2), (3, 4)}, "the head is drawn anew"
    for draw in range(20):
        one = backbone.prepare(np.array([6]), [GOLD], np.random.default_rng(draw))
        tails = {(0, 2): [0, 0, 0, 3, 2, 0], (3, 4): [0, 0, 0, 0, 2, 0]}
        assert one.tail_begin[0].tolist() == tails[tuple(one.head[0].tolist())]
        assert one.head_type[0] == {(0, 2): 0, (3, 4): 2}[tuple(one.head[0].tolist())]


@torch.no_grad()
def test_the_loss_is_that_of_the_taggers() -> None:
    network = make_network("dual_dec", mixture=None).eval()
    backbone: DualDec = network.backbone
    lengths, gold = (6, 4), [GOLD, Extraction([Entity(0, 1, 1), Entity(2, 4, 0)], [Triplet(0, 1, 2)])]
    features = make_features(lengths)
    targets = backbone.prepare(np.array(lengths), gold, np.random.default_rng(3))
    losses: list[list[torch.Tensor]] = [[], [], [], []]
    for row, sentence in enumerate(targets.sentence.tolist()):
        words = one_by_one(features)[sentence].hidden[1:]
        n = len(words)
        head = Entity(*targets.head[row].tolist(), int(targets.head_type[row]))
        tags = [rows[row, :n] for rows in (targets.head_begin, targets.head_end, targets.tail_begin, targets.tail_end)]
        label = int(targets.relation[row])
        logits = (
            *decode_by_hand(backbone, words, label, None, tags[0].tolist()),
            *decode_by_hand(backbone, words, label, head, tags[2].tolist()),
        )
        for kept, one, wanted in zip(losses, logits, tags, strict=True):
            kept += list(F.cross_entropy(one, torch.from_numpy(wanted), reduction="none"))
    relations = backbone.relations(features)
    expected = F.binary_cross_entropy_with_logits(relations, torch.from_numpy(targets.labels))
    expected = expected + sum(torch.stack(each).mean() for each in losses)
    close(backbone.loss({"triplets": features}, targets), expected)


# --- decoding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hidden", "label_width", "place_width"])
def test_wrong_settings(name: str) -> None:
    with pytest.raises(ValueError, match=f"backbone_settings.{name} is 0; expected a whole number of at least 1"):
        make_network("dual_dec", **{name: 0})


def test_of_a_place_with_two_types_a_head_has_the_one_that_its_triplet_names() -> None:
    backbone: Any = make_network("dual_dec", mixture=None).backbone
    entities = [Entity(0, 1, 0), Entity(0, 1, 1), Entity(2, 3, 1)]
    targets = backbone.prepare(np.array([3]), [Extraction(entities, [Triplet(1, 2, 0)])], np.random.default_rng(0))
    assert targets.head_type.tolist() == [1] and targets.head_begin.tolist() == [[2, 0, 0]]
