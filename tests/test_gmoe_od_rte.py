"""OD-RTE's tables: against loops, its loss against the equations, and gold that comes back. PyTorch only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.backbone_loops import scan
from spacy_ie_moe.gmoe_rte.backbones.linear import PairFeatures
from spacy_ie_moe.gmoe_rte.backbones.od_rte import OdRte, TableTargets, cells_of
from spacy_ie_moe.gmoe_rte.backbones.vertices import (
    BEGIN_BEGIN,
    BEGIN_END,
    END_BEGIN,
    END_END,
    Cells,
    match_corners,
)
from spacy_ie_moe.gmoe_rte.experts import RTENetwork
from spacy_ie_moe.gmoe_rte.features import Entity, Extraction, Triplet

from .test_gmoe_backbones import gold_of, make_network
from .test_gmoe_network import SCHEMA, SYMMETRIC, D, close, make_features, one_by_one

Box = tuple[int, int, int, int]
"""Words of head and tail, ends inclusive."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# --- pairs ----------------------------------------------------------------------------------------------------


def test_pairs_equal_the_projected_concatenation() -> None:
    pairs = PairFeatures(D, 24, 0.0)
    rows = torch.randn(5, D)
    first, second = (torch.tensor(column) for column in zip(*product(range(5), repeat=2), strict=True))
    concatenated = torch.cat([rows[first], rows[second]], -1)
    expected = torch.relu(F.linear(concatenated, pairs.project.weight, pairs.project.bias))
    close(pairs(pairs.sides(rows), first, second), expected)


def test_cells_are_all_pairs_of_words_of_a_sentence() -> None:
    first, second = cells_of(np.array([2, 0, 1]))
    assert [*zip(first.tolist(), second.tolist(), strict=True)] == [(1, 1), (1, 2), (2, 1), (2, 2), (5, 5)]


# --- corners --------------------------------------------------------------------------------------------------


def corners_of(boxes: Iterable[Box]) -> set[tuple[int, int, int]]:
    return {
        corner
        for head, head_end, tail, tail_end in boxes
        for corner in (
            (head, tail, BEGIN_BEGIN),
            (head, tail_end, BEGIN_END),
            (head_end, tail_end, END_END),
            (head_end, tail, END_BEGIN),
        )
    }


def match(corners: Iterable[tuple[int, int, int]], *, both: bool, table: int = 0) -> set[Box]:
    cells = np.array([(table, *corner) for corner in sorted(corners)], dtype=np.int64).reshape(-1, 4)
    boxes = match_corners(Cells(*cells.T, np.ones(len(cells), dtype=np.float32)), both=both)
    assert set(boxes.table.tolist()) <= {table}
    return {
        (a, b, c, d)
        for a, b, c, d in zip(
            *(column.tolist() for column in (boxes.head_begin, boxes.head_end, boxes.tail_begin, boxes.tail_end)),
            strict=True,
        )
    }


CORNER_SETS = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), max_size=40)


@given(CORNER_SETS)
def test_matching_equals_the_scan_of_tables(corners: set[tuple[int, int, int]]) -> None:
    rows = scan(corners, BEGIN_END, turned=False)
    columns = scan(corners, END_BEGIN, turned=True)
    assert match(corners, both=True) == rows & columns
    assert match(corners, both=False, table=3) == rows | columns


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    head, tail = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    return head, draw(st.integers(head, min(8, head + 2))), tail, draw(st.integers(tail, min(8, tail + 2)))


@given(boxes())
def test_a_box_alone_comes_back(box: Box) -> None:
    assert match(corners_of([box]), both=True) == match(corners_of([box]), both=False) == {box}


def test_boxes_that_share_words_come_back() -> None:
    """Several heads of a tail, several tails of a head, and a span on both sides."""
    for gold in (
        {(0, 1, 5, 6), (0, 1, 8, 8)},
        {(0, 1, 5, 6), (3, 3, 5, 6)},
        {(0, 1, 4, 4), (4, 4, 0, 1)},
        {(0, 0, 2, 3), (0, 0, 5, 5), (1, 1, 2, 3), (1, 1, 5, 5)},
    ):
        assert match(corners_of(gold), both=True) == gold
        assert match(corners_of(gold), both=False) == gold


def test_boxes_that_overlap_in_both_arguments_may_be_lost() -> None:
    """As OD-RTE matches corners: the nearest ones are taken, so a box within another is in its way."""
    nested = {(0, 3, 5, 8), (1, 2, 6, 7)}
    assert match(corners_of(nested), both=True) == nested
    assert match(corners_of({(0, 0, 2, 5), (0, 0, 3, 4)}), both=True) == {(0, 0, 3, 4)}
    assert match(corners_of({(0, 0, 2, 5), (0, 0, 3, 4)}), both=False) == {(0, 0, 2, 4), (0, 0, 3, 4)}
    assert match(corners_of({(0, 0, 2, 3), (0, 0, 3, 4)}), both=True) == {(0, 0, 3, 3)}, "and one may be neither"


def test_boxes_of_different_tables_do_not_meet() -> None:
    cells = Cells(
        np.array([0, 0, 1]), np.array([0, 0, 0]), np.array([1, 1, 1]),
        np.array([BEGIN_BEGIN, BEGIN_END, END_END]), np.ones(3, dtype=np.float32),
    )  # fmt: skip
    assert len(match_corners(cells, both=False).table) == 0


def test_scores_are_those_of_the_weakest_corner() -> None:
    corners = [BEGIN_BEGIN, BEGIN_END, END_END, END_BEGIN]
    places = np.zeros(4, dtype=np.int64)
    cells = Cells(places, places, places, np.array(corners), np.array([0.9, 0.6, 0.8, 0.7], dtype=np.float32))
    assert match_corners(cells, both=True).score.tolist() == pytest.approx([0.6])
    assert match_corners(cells, both=False).score.tolist() == pytest.approx([0.7]), "by columns, 0.6 is not needed"


def test_no_cells_no_boxes() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert len(match_corners(Cells(none, none, none, none, none.astype(np.float32)), both=True).table) == 0


# --- the network ----------------------------------------------------------------------------------------------


def prepare(network: RTENetwork, lengths: Sequence[int], gold: Sequence[Extraction], seed: int = 0) -> TableTargets:
    return network.backbone.prepare(np.array(lengths), gold, np.random.default_rng(seed))


def test_the_targets_of_a_sentence() -> None:
    entities = [Entity(0, 2, 0), Entity(3, 4, 2), Entity(4, 5, 1)]
    gold = Extraction(entities, [Triplet(0, 1, 0), Triplet(1, 0, 1)], frozenset({(0, 2)}))
    targets = prepare(make_network("od_rte", relations_at_once=3), [5], [gold])
    (relations,), (corners,) = targets.relations, targets.corners
    assert len(relations) == len({*relations.tolist()}) == 3 and {0, 1} <= {*relations.tolist()}
    found = {
        (int(relations[place]), cell // 5, cell % 5, tag) for cell, place, tag in zip(*corners.nonzero(), strict=True)
    }
    box = {(0, 3, BEGIN_BEGIN), (0, 3, BEGIN_END), (1, 3, END_END), (1, 3, END_BEGIN)}
    assert found == {(label, *corner) for label in (0, 1) for corner in box}, "spouse is symmetric: head first"
    assert targets.region.reshape(5, 5).nonzero()[0].tolist() == [0, 1]
    assert targets.counted.reshape(5, 5)[:2, 4].tolist() == [0, 0] and targets.counted.sum() == 23
    assert targets.labels.tolist() == [[1, 1, 0, 0]]
    table = targets.entities.reshape(5, 5, 3)
    assert [*zip(*(axis.tolist() for axis in table.nonzero()), strict=True)] == [(0, 1, 0), (3, 3, 2), (4, 4, 1)]


def test_more_gold_relations_than_are_learnt_at_once_are_all_learnt() -> None:
    gold = Extraction([Entity(0, 1, 0), Entity(2, 3, 0)], [Triplet(0, 1, label) for label in range(4)])
    targets = prepare(make_network("od_rte", relations_at_once=1), [3], [gold])
    assert targets.relations[0].tolist() == [0, 1, 2, 3]
    network = make_network("od_rte", relations_at_once=2)
    drawn = {tuple(prepare(network, [2], [Extraction()], seed).relations[0]) for seed in range(20)}
    assert len(drawn) > 3 and all(len(relations) == 2 for relations in drawn)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_loss_is_that_of_the_cells(weight: float) -> None:
    lengths = (4, 3)
    network = make_network("od_rte", mixture=None, region_weight=weight, relations_at_once=3).eval()
    backbone: OdRte = network.backbone
    gold = gold_of(lengths, SCHEMA)
    gold[0] = Extraction(gold[0].entities, gold[0].triplets, frozenset({(0, 1)}))
    targets = prepare(network, lengths, gold)
    features = make_features(lengths)
    weights = backbone.corners.weight.view(4, 4, -1), backbone.corners.bias.view(4, 4)
    corner_losses, region_losses, entity_losses = [], [], []
    for part, n, extraction, relations, corners in zip(
        one_by_one(features), lengths, gold, targets.relations, targets.corners, strict=True
    ):
        words = part.hidden[1:]
        unknown = {
            cell
            for pair in extraction.unknown
            for cell in product(*(range(*extraction.entities[side][:2]) for side in pair))
        }
        for i, j in product(range(n), repeat=2):
            both = torch.cat([words[i], words[j]])
            pair = torch.relu(F.linear(both, backbone.pairs.project.weight, backbone.pairs.project.bias))
            for place, label in enumerate(relations.tolist()):
                for tag in range(4):
                    score = torch.sigmoid(weights[0][label, tag] @ pair + weights[1][label, tag])
                    is_one = corners[i * n + j, place, tag]
                    loss = -torch.log(score if is_one else 1 - score)
                    corner_losses.append(loss * ((i, j) not in unknown or bool(is_one)))
            if backbone.region is not None:
                score = torch.sigmoid(backbone.region(pair))[0]
                in_box = any(
                    (i, j) in product(range(*extraction.entities[h][:2]), range(*extraction.entities[t][:2]))
                    for h, t in (head_first(extraction, *triplet[:3]) for triplet in extraction.triplets)
                )
                counts = in_box or (i, j) not in unknown
                region_losses.append(-torch.log(score if in_box else 1 - score) * counts)
            types = torch.relu(F.linear(both, backbone.types.pairs.project.weight, backbone.types.pairs.project.bias))
            for type_, logit in enumerate(backbone.types.classify(types)):
                is_one = any(e[:3] == (i, j + 1, type_) for e in extraction.entities)
                entity_losses.append(-torch.log(torch.sigmoid(logit if is_one else -logit)))
    expected = torch.stack(corner_losses + entity_losses).sum()
    if weight:
        expected = expected + weight * torch.stack(region_losses).sum()
    close(backbone.loss({"triplets": features}, targets), expected / len(corner_losses))


def head_first(extraction: Extraction, head: int, tail: int, label: int) -> tuple[int, int]:
    one, other = extraction.entities[head], extraction.entities[tail]
    return (tail, head) if label in SYMMETRIC and other[:2] < one[:2] else (head, tail)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"match": "all"}, "backbone_settings.match is 'all'; expected both or either"),
        ({"pair_width": 0}, "backbone_settings.pair_width is 0; expected a whole number of at least 1"),
        ({"relations_at_once": 1.5}, "backbone_settings.relations_at_once is 1.5; expected a whole number"),
        ({"region_weight": -1}, "backbone_settings.region_weight is -1; expected a finite number of at least 0"),
        ({"region_weight": "1"}, "backbone_settings.region_weight is '1'; expected a finite number of at least 0"),
        (
            {"region_weight": float("inf")},
            "backbone_settings.region_weight is inf; expected a finite number of at least 0",
        ),
    ],
)
def test_wrong_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_network("od_rte", **options)
