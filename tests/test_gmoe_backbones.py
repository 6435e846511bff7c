"""What every backbone of ``gmoe_rte`` promises, whatever is in it. PyTorch only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.backbone_loops import LOOPS, Found
from spacy_ie_moe.gmoe_rte import checkpoint, experts
from spacy_ie_moe.gmoe_rte.backbones import BACKBONES, complete, dual_dec, make_backbone, od_rte, re_cent, sinet, tlrel
from spacy_ie_moe.gmoe_rte.experts import RTENetwork
from spacy_ie_moe.gmoe_rte.features import Entity, Extraction, Features, Triplet
from spacy_ie_moe.gmoe_rte.schema import Schema

from .test_gmoe_network import SCHEMA as TYPED
from .test_gmoe_network import SYMMETRIC, D, assert_same, f1, join, make_gold, one_by_one, randomise

UNTYPED = Schema(("ENTITY",), TYPED.relations, TYPED.symmetric)
SMALL: Mapping[str, Mapping[str, Any]] = {
    "sinet": {"max_span": 3, "size_width": 4},
    "od_rte": {"pair_width": 12},
    "dual_dec": {"hidden": 6, "label_width": 4, "place_width": 3},
    "tlrel": {"branch_width": 10, "query_width": 6, "rank": 3},
    "re_cent": {"max_span": 3, "expansion": 2},
}
"""Settings of small networks."""
LENGTHS = (5, 1, 9, 2, 7, 4)
PROMPTED = {"re_cent"}
"""Backbones that are told what to look for: here, all relations of the schema in its order."""


@pytest.fixture(params=list(BACKBONES))
def backbone(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[UNTYPED, TYPED], ids=["untyped", "typed"])
def schema(request: pytest.FixtureRequest) -> Schema:
    return request.param


def make_features(lengths: Sequence[int], backbone: str, width: int = D) -> Features:
    """Sentences of random vectors, with labels before the words where the backbone reads them."""
    numbers = np.array(lengths, dtype=np.int64)
    if backbone not in PROMPTED:
        return Features(torch.randn(sum(lengths) + len(lengths), width), numbers)
    prompts = np.full_like(numbers, len(TYPED.relations))
    return Features(torch.randn(int((numbers + prompts + 1).sum()), width), numbers + prompts, prompts)


def make_network(backbone: str, schema: Schema = TYPED, *, mixture: str | None = "gmoe", **options: Any) -> RTENetwork:
    torch.manual_seed(1)
    settings = {**SMALL[backbone], **options}
    return RTENetwork(D, schema, backbone=backbone, backbone_settings=settings, mixture=mixture, beta=1.0)


def make_finder(backbone: str, schema: Schema = TYPED, **options: Any) -> RTENetwork:
    """A random network that finds something in every ``make_features(LENGTHS, backbone)``."""
    network = make_network(backbone, schema, **options).eval()
    for seed in range(50):
        randomise(network, spread=1.5 + seed / 10, seed=seed)
        torch.manual_seed(0)
        if sum(len(extraction.triplets) for extraction in network.predict(make_features(LENGTHS, backbone), 0.5)) > 3:
            torch.manual_seed(0)
            return network
    raise AssertionError("no random network found anything")


def gold_of(lengths: Sequence[int], schema: Schema) -> list[Extraction]:
    """Random gold; in a schema without types all entities are of the one."""
    gold = make_gold(lengths)
    if len(schema.entities) > 1:
        return gold
    return [Extraction([e._replace(type=0) for e in one.entities], one.triplets) for one in gold]


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("mixture", [None, "gmoe", "hetero_token"])
def test_predictions_do_not_depend_on_batches_or_order(backbone: str, schema: Schema, mixture: str | None) -> None:
    network = make_finder(backbone, schema, mixture=mixture)
    features = make_features(LENGTHS, backbone)
    together = network.predict(features, 0.5)
    assert sum(len(extraction.triplets) for extraction in together) > 3
    parts = one_by_one(features)
    assert_same(together, [network.predict(part, 0.5)[0] for part in parts])
    assert_same(together[::-1], network.predict(join(parts[::-1]), 0.5))


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "options"),
    [("dual_dec", {}), ("tlrel", {}), ("od_rte", {"match": "both"}), ("od_rte", {"match": "either"}), ("re_cent", {})],
)
def test_what_is_found_is_what_loops_find(name: str, options: dict[str, Any], schema: Schema) -> None:
    network = make_finder(name, schema, mixture=None, **options)
    features = make_features(LENGTHS, name)
    numbers, types = [], set()
    for threshold in (0.3, 0.5, 0.6):
        found = [Found.of(extraction) for extraction in network.predict(features, threshold)]
        expected = [LOOPS[name](network.backbone, part, threshold) for part in one_by_one(features)]
        assert all(one.is_like(other) for one, other in zip(found, expected, strict=True))
        numbers.append(sum(len(of_sentence.triplets) for of_sentence in found))
        types |= {type_ for of_sentence in found for type_, _ in of_sentence.entities.values()}
    assert numbers[1] > 3 and len(types) >= min(2, len(schema.entities))


@pytest.mark.parametrize("at_once", [1, 3, 12])
def test_predictions_do_not_depend_on_what_is_scored_at_once(
    monkeypatch: pytest.MonkeyPatch, backbone: str, at_once: int
) -> None:
    network = make_finder(backbone)
    features = make_features(LENGTHS, backbone)
    expected = network.predict(features, 0.5)
    assert any(extraction.triplets for extraction in expected)
    limits = [(experts, "ROWS"), (sinet, "SPANS"), (sinet, "PAIRS"), (od_rte, "CELLS"), (dual_dec, "WORDS")]
    for module, name in [*limits, (re_cent, "PAIRS"), (tlrel, "LOGITS")]:
        monkeypatch.setattr(module, f"{name}_AT_ONCE", at_once)
    assert_same(expected, network.predict(features, 0.5))


@pytest.mark.parametrize("at_once", [1, 7, 60])
@pytest.mark.parametrize(
    ("name", "module", "limit"), [("od_rte", od_rte, "CELLS_AT_ONCE"), ("tlrel", tlrel, "LOGITS_AT_ONCE")]
)
def test_gradients_do_not_depend_on_what_is_made_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, module: Any, limit: str, at_once: int
) -> None:
    """The pairs of long sentences are made in parts, and again for the gradients."""
    gradients = []
    for number in (getattr(module, limit), at_once):
        monkeypatch.setattr(module, limit, number)
        network = make_network(name, TYPED, dropout=0.0)
        torch.manual_seed(0)
        total(network.train()(make_features((6, 4), name), gold_of((6, 4), TYPED))).backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_losses_are_those_of_the_sentences_together(backbone: str, schema: Schema) -> None:
    """What is beside a sentence in a batch does not change its gradient but for how the means are taken."""
    network = make_network(backbone, schema).eval()
    features, gold = make_features((6, 6), backbone), gold_of((6, 6), schema)
    twice = join([one_by_one(features)[0]] * 2)
    alone = network(one_by_one(features)[0], gold[:1])
    for name, loss in network(twice, [gold[0], gold[0]]).items():
        torch.testing.assert_close(loss, alone[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mixture", [None, "gmoe", "hetero_token"])
def test_padding_is_never_read(
    monkeypatch: pytest.MonkeyPatch, backbone: str, schema: Schema, mixture: str | None
) -> None:
    network = make_finder(backbone, schema, mixture=mixture)
    features, gold = make_features(LENGTHS, backbone), gold_of(LENGTHS, schema)

    def run() -> tuple[dict[str, Tensor], list[Extraction]]:
        network._rng = np.random.default_rng(0)
        return network(features, gold), network.predict(features, 0.5)

    losses, found = run()
    pad = Features.pad

    def noisy(self: Features, rows: Tensor) -> tuple[Tensor, Tensor]:
        padded, mask = pad(self, rows)
        return padded.masked_fill(~mask.view(*mask.shape, *[1] * (padded.ndim - 2)), 50.0), mask

    monkeypatch.setattr(Features, "pad", noisy)
    again, refound = run()
    assert_same(found, refound)
    for name, loss in losses.items():
        torch.testing.assert_close(again[name], loss, atol=1e-5, rtol=1e-5)


EXPERTS = {
    "sinet": (sinet.EntityExpert, sinet.RelationExpert),
    "dual_dec": (dual_dec.EntityDecoder, dual_dec.RelationDecoder),
    "tlrel": (tlrel.EntityTagger, tlrel.RelationTensor),
    "od_rte": (od_rte.EntityTable, od_rte.RelationLabels),
    "re_cent": (re_cent.RoleExpert, re_cent.PairExpert),
}
"""The ER-Net and the RE-Net of each backbone."""


def test_each_expert_learns_its_task_on_its_own_stream(backbone: str, schema: Schema) -> None:
    torch.manual_seed(1)
    settings = dict(SMALL[backbone])
    network = RTENetwork(D, schema, backbone=backbone, backbone_settings=settings, alpha=0.5, beta=2.0).eval()
    features, gold = make_features((6, 8), backbone), gold_of((6, 8), schema)
    network._rng = np.random.default_rng(0)
    losses = network(features, gold)
    targets = network.backbone.prepare(features.lengths, gold, np.random.default_rng(0))
    streams = {name: features.replace(rows) for name, rows in network.mixture(features).items()}
    entities, relations = network.experts["entities"], network.experts["relations"]
    expected = {
        "triplets": network.backbone.loss({"triplets": streams["triplets"]}, targets),
        "entities": 0.5 * entities.loss(streams["entities"], targets),
        "relations": 2.0 * relations.loss(streams["relations"], targets),
    }
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])
    assert (type(entities), type(relations)) == EXPERTS[backbone]
    parts = [{id(one) for one in part.parameters()} for part in (network.backbone, entities, relations)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2]), "no weights are shared"


def test_every_parameter_learns(backbone: str, schema: Schema) -> None:
    lengths = (6, 8, 7)
    features = make_features(lengths, backbone)
    features.hidden.requires_grad_()
    network, gold = randomise(make_network(backbone, schema)), gold_of(lengths, schema)
    total(network(features, gold)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert features.hidden.grad is not None
    related = [sentence for sentence, extraction in enumerate(gold) if extraction.triplets]
    assert len(related) > 1
    is_read = np.isin(features.owner.numpy(), related)
    is_read[~features.is_word] = False  # a backbone may read words only
    assert features.hidden.grad[torch.from_numpy(is_read)].any(-1).all()


def test_sentences_without_anything(backbone: str, schema: Schema) -> None:
    network = make_network(backbone, schema)
    for lengths in ((1,), (2, 1), (3,), (0, 2), (2, 0), (0, 0)):
        network.zero_grad()
        losses = network(make_features(lengths, backbone), [Extraction()] * len(lengths))
        total(losses).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    network.eval()
    assert network.predict(make_features((), backbone), 0.5) == []
    for threshold in (0.0, 0.5):
        assert len(network.predict(make_features((0, 1, 2), backbone), threshold)) == 3


def test_an_untrained_network_finds_next_to_no_triplets(backbone: str) -> None:
    found = make_network(backbone).eval().predict(make_features((12, 12), backbone), 0.5)
    assert sum(len(extraction.triplets) for extraction in found) <= 2


def test_what_is_found_lies_in_its_sentence_and_once(backbone: str, schema: Schema) -> None:
    network = make_finder(backbone, schema)
    features = make_features(LENGTHS, backbone)
    for threshold in (0.2, 0.5, 0.8):
        for length, extraction in zip(LENGTHS, network.predict(features, threshold), strict=True):
            assert extraction.entities == sorted(extraction.entities)
            assert all(0 <= e.start < e.end <= length and 0 <= e.score <= 1 for e in extraction.entities)
            assert all(0 <= e.type < len(schema.entities) for e in extraction.entities)
            triplets = [triplet[:3] for triplet in extraction.triplets]
            assert len({*triplets}) == len(triplets)
            assert all(threshold <= triplet.score <= 1 for triplet in extraction.triplets)
            assert all(head != tail for head, tail, _ in triplets)
            if backbone not in PROMPTED:  # what a label of a prompt means is known outside of the network
                assert all(head < tail for head, tail, label in triplets if label in SYMMETRIC)


def test_a_lower_threshold_has_a_less_probable_triplet(backbone: str) -> None:
    """Thresholds between all scores: the most probable triplets come first."""
    network = make_finder(backbone)
    features = make_features((9, 7), backbone)
    numbers = [
        sum(len(extraction.triplets) for extraction in network.predict(features, threshold))
        for threshold in (0.0001, 0.5, 0.9999)
    ]
    assert numbers[0] > numbers[2]


@pytest.mark.parametrize("stripped", [False, True])
def test_files_make_the_same_network(backbone: str, schema: Schema, stripped: bool) -> None:
    settings = {"backbone": backbone, "backbone_settings": dict(SMALL[backbone]), "mixture": "gmoe"}
    bundle = checkpoint.new_triplet_network(D, schema, settings)
    finder = make_finder(backbone, schema)
    bundle.network.eval().load_state_dict(finder.state_dict())
    features = make_features(LENGTHS, backbone)
    expected = bundle.network.predict(features, 0.5)
    assert sum(len(extraction.triplets) for extraction in expected) > 3
    if stripped:
        bundle.network.strip_auxiliary()
    again = checkpoint.read_triplet_files(checkpoint.triplet_files(bundle), wanted={"alpha": 1.0, "beta": 1.0})
    assert_same(expected, again.network.eval().predict(features, 0.5))


@pytest.mark.parametrize("mixture", [None, "gmoe"])
def test_a_few_sentences_are_learnt(backbone: str, schema: Schema, mixture: str | None) -> None:
    torch.manual_seed(0)
    lengths = (8, 6, 7, 9, 8, 6)
    features = make_features(lengths, backbone, 32)
    gold = [
        Extraction([Entity(0, 2, 0), Entity(3, 4, len(schema.entities) - 1), Entity(5, 6, 0)], triplets)
        for triplets in (
            [Triplet(0, 1, 0)],
            [Triplet(1, 0, 2), Triplet(1, 2, 2)],
            [Triplet(0, 2, 1)],
            [Triplet(0, 1, 0), Triplet(0, 1, 2)],
            [Triplet(2, 0, 0), Triplet(0, 1, 3)],
            [Triplet(1, 2, 1)],
        )
    ]
    settings = {"sinet": {"max_span": 3}, "dual_dec": {"hidden": 32}}.get(backbone, {})
    network = RTENetwork(32, schema, backbone=backbone, backbone_settings=settings, mixture=mixture)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for step in range(400):
        optimizer.zero_grad()
        total(network.train()(features, gold)).backward()
        optimizer.step()
        if step % 20 == 19 and f1(gold, network.eval().predict(features, 0.5))[1] == 1.0:
            break
    assert f1(gold, network.eval().predict(features, 0.5))[1] == 1.0


@pytest.mark.parametrize("dropout", [1.5, -0.1, "a", None, True])
def test_a_dropout_is_a_probability(backbone: str, dropout: Any) -> None:
    if "dropout" not in complete(backbone, {}):
        pytest.skip("it has no dropout")
    with pytest.raises(ValueError, match=rf"backbone_settings\.dropout is {dropout!r}; expected a number from 0 to 1"):
        make_network(backbone, dropout=dropout)


def test_a_backbones_own_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(torch.nn.Module):
        def __init__(self, width: int, schema: Schema, size: int = 3) -> None:
            super().__init__()
            self.size = [1] * size
            len(size)  # type: ignore[arg-type]

    monkeypatch.setitem(BACKBONES, "mine", Mine)
    with pytest.raises(TypeError, match="has no len"):
        make_backbone("mine", D, TYPED, {})
    with pytest.raises(ValueError, match=r"backbone_settings of 'mine' are \{'sise': 4\}: .*'sise'; expected size"):
        make_backbone("mine", D, TYPED, {"sise": 4})
    assert complete("mine", {}) == {"size": 3}
