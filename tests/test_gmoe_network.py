"""The networks of ``gmoe_rte`` against equations written out naively, and what they promise. PyTorch only."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from spacy_ie_moe.gmoe_rte import checkpoint, experts
from spacy_ie_moe.gmoe_rte.backbones import BACKBONES, make_backbone, sinet
from spacy_ie_moe.gmoe_rte.backbones.sampling import Sampler, SpanTargets, all_spans
from spacy_ie_moe.gmoe_rte.backbones.sinet import CrossTaskAttention, PairClassifier, Sinet, SpanClassifier
from spacy_ie_moe.gmoe_rte.experts import RTENetwork
from spacy_ie_moe.gmoe_rte.features import Entity, Extraction, Features, Triplet
from spacy_ie_moe.gmoe_rte.mixture import (
    EXPERTS,
    KERNELS,
    PRESETS,
    HeteroGraph,
    Mixture,
    MutualLearning,
    SentenceGraph,
    TokenGraph,
)
from spacy_ie_moe.gmoe_rte.pooling import RangeMax
from spacy_ie_moe.gmoe_rte.schema import Schema

D = 8
LENGTHS = (5, 1, 7, 2, 4)
SCHEMA = Schema(("PER", "ORG", "LOC"), ("works_for", "spouse", "born_in", "same_as"), ("spouse", "same_as"))
SYMMETRIC = {SCHEMA.relations.index(name) for name in SCHEMA.symmetric}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def close(left: Tensor, right: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(left, right, atol=tolerance, rtol=1e-5)


def make_features(lengths: Sequence[int] = LENGTHS, width: int = D) -> Features:
    """Sentences of random vectors."""
    return Features(torch.randn(sum(lengths) + len(lengths), width), np.array(lengths, dtype=np.int64))


def one_by_one(features: Features) -> list[Features]:
    return [features.select(slice(index, index + 1)) for index in range(len(features.lengths))]


def join(parts: Sequence[Features]) -> Features:
    prompts = [part.prompts for part in parts if part.prompts is not None]
    lengths = np.concatenate([part.lengths for part in parts])
    return Features(torch.cat([part.hidden for part in parts]), lengths, np.concatenate(prompts) if prompts else None)


def randomise(network: nn.Module, *, spread: float = 1.0, seed: int = 3) -> nn.Module:
    """Draw all parameters anew, biases and gates too: what starts as zero or one would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = spread / math.sqrt(parameter.shape[-1])
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network


# --- features -------------------------------------------------------------------------------------------------


def test_the_rows_of_features() -> None:
    features = make_features((2, 0, 3))
    assert features.sentence_rows.tolist() == [0, 3, 4]
    assert features.owner.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    close(features.sentences, features.hidden[[0, 3, 4]])
    padded, mask = features.pad(features.hidden)
    assert mask.tolist() == [[True] * 3 + [False], [True] + [False] * 3, [True] * 4]
    close(padded[mask], features.hidden)
    assert not padded[~mask].any()
    close(features.select(slice(1, 3)).hidden, features.hidden[3:])
    assert features.select(slice(1, 3)).sentence_rows.tolist() == [0, 1]
    assert features.select(slice(3, 3)).hidden.shape == (0, D)


def test_features_of_no_sentences() -> None:
    features = make_features(())
    assert features.sentence_rows.shape == (0,)
    assert features.owner.shape == (0,)
    assert features.sentences.shape == (0, D)


# --- the mixture ----------------------------------------------------------------------------------------------


def elu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, x.exp() - 1)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, weights: Sequence[Tensor], heads: int, bias: Tensor | None = None
) -> Tensor:
    """Multi-head dot-product attention in words, before its output projection. weights: of queries, keys, values."""
    biases = [0.0] * 3 if bias is None else list(bias.chunk(3))
    q, k, v = (x @ w.T + b for x, w, b in zip((queries, keys, values), weights, biases, strict=True))
    size = q.shape[-1] // heads
    parts = [slice(head * size, (head + 1) * size) for head in range(heads)]
    heard = [(q[:, part] @ k[:, part].T / math.sqrt(size)).softmax(-1) @ v[:, part] for part in parts]
    return torch.cat(heard, dim=-1)


def naive_gamma(graph: TokenGraph, nodes: Tensor, head: int, listener: int) -> Tensor:
    """Softmax over j of phi(a . [W h_i ; W h_j]) (eq. 2) for the nodes [M, d] of one graph and one head."""
    size = nodes.shape[-1] // graph.heads
    weight = graph.value.weight[head * size : (head + 1) * size]
    a = torch.cat([graph.listener[head], graph.speaker[head]])
    logits = torch.stack([a @ torch.cat([weight @ nodes[listener], weight @ node]) for node in nodes])
    return torch.where(logits > 0, logits, graph.negative_slope * logits).softmax(0)


def naive_graph(graph: TokenGraph, nodes: Tensor, of_weights: Tensor | None = None) -> Tensor:
    """h' [M, d] of one graph; of_weights: the nodes that gamma is made of, where they are others."""
    size = nodes.shape[-1] // graph.heads
    rows = []
    for i in range(len(nodes)):
        heads = []
        for k in range(graph.heads):
            gamma = naive_gamma(graph, nodes if of_weights is None else of_weights, k, i)
            weight = graph.value.weight[k * size : (k + 1) * size]
            heads.append(elu(sum(gamma[j] * (weight @ nodes[j]) for j in range(len(nodes)))))
        rows.append(torch.cat(heads))
    return torch.stack(rows)


@pytest.mark.parametrize("slope", [0.2, 0.0])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_token_kernel_equals_equation_2(heads: int, slope: float) -> None:
    graph = randomise(TokenGraph(D, heads, slope, 0.3, 3), spread=2.0).eval()
    features = make_features()
    streams = torch.randn(len(features.hidden), 3, D)
    expected = torch.stack([naive_graph(graph, nodes) for nodes in streams])
    close(graph(streams, features), expected)
    close(graph(streams, features, slice(-1, None)), expected[:, -1:])
    gamma = graph.attention(streams, features)
    for row, head, listener in ((0, 0, 0), (3, heads - 1, 1), (9, 0, 2)):
        close(gamma[row, head, listener], naive_gamma(graph, streams[row], head, listener))


def test_the_papers_letter() -> None:
    """R_ent = H W_ent + b_ent, R_rel = H W_rel + b_rel, R_tri = H, and eq. 2 with ReLU and nothing around it."""
    mixture = randomise(Mixture(D, heads=2, **PRESETS["paper_literal"]), spread=2.0)
    features = make_features((3, 1))
    expected = []
    for row in features.hidden:
        nodes = [layer.weight @ row + layer.bias for layer in mixture.project.values()]
        expected.append(naive_graph(mixture.layers[0].kernel, torch.stack([*nodes, row])))
    streams = mixture(features)  # in training mode: it has no dropout either
    assert tuple(streams) == EXPERTS
    close(torch.stack(list(streams.values()), dim=1), torch.stack(expected))


def test_the_sentence_kernel_mixes_all_rows_of_a_sentence_alike() -> None:
    graph = randomise(SentenceGraph(D, 2, 0.2, 0.3, 3), spread=2.0).eval()
    features = make_features()
    streams = torch.randn(len(features.hidden), 3, D)
    of_sentences = streams[features.sentence_rows][features.owner]
    expected = [naive_graph(graph, nodes, first) for nodes, first in zip(streams, of_sentences, strict=True)]
    close(graph(streams, features), torch.stack(expected))
    gamma = graph.attention(streams, features)
    for row, owner in enumerate(features.owner.tolist()):
        assert torch.equal(gamma[row], gamma[features.sentence_rows[owner]])
    assert len(torch.unique(gamma, dim=0)) == len(LENGTHS)


def test_the_hetero_kernel_equals_attention_for_each_pair_of_experts() -> None:
    graph = randomise(HeteroGraph(D, 2, 0.2, 0.3, 3)).eval()
    features = make_features((3, 1, 4))
    streams = torch.randn(len(features.hidden), 3, D)
    expected = torch.zeros_like(streams)
    for sentence in range(3):
        rows = features.owner == sentence
        for i in range(3):
            for j in range(3):
                edge = graph.edges[3 * i + j].attention
                own, other = streams[rows, i], streams[rows, j]
                heard = attend(own, other, other, edge.in_proj_weight.chunk(3), 2, edge.in_proj_bias)
                expected[rows, i] += heard @ edge.out_proj.weight.T + edge.out_proj.bias
    close(graph(streams, features), expected.clamp(min=0))


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("kernel", [TokenGraph, SentenceGraph])
def test_a_layer_does_not_depend_on_the_order_of_the_experts(kernel: Any, order: tuple[int, ...]) -> None:
    layer = MutualLearning(kernel(D, 2, 0.2, 0.1, 3), D, 3, residual=True, norm=True, gate=None, dropout=0.1)
    randomise(layer, spread=2.0).eval()
    features = make_features()
    streams = torch.randn(len(features.hidden), 3, D)
    close(layer(streams[:, order], features), layer(streams, features)[:, order])
    gamma = layer.attention(streams, features)
    close(layer.attention(streams[:, order], features), gamma[:, :, order][:, :, :, order])


@pytest.mark.parametrize("kernel", ["token", "sentence"])
def test_weights_without_preferences_give_the_mean(kernel: Any) -> None:
    mixture = Mixture(D, kernel=kernel, residual=False, norm=False).eval()
    graph = mixture.layers[0].kernel
    nn.init.zeros_(graph.speaker)
    features = make_features()
    mean = (mixture.streams(features.hidden) @ graph.value.weight.T).mean(1)
    for stream in mixture(features).values():
        close(stream, elu(mean))


@pytest.mark.parametrize("kernel", ["token", "sentence"])
def test_an_expert_alone_listens_to_itself(kernel: Any) -> None:
    mixture = Mixture(D, experts=("triplets",), kernel=kernel, residual=False, norm=False).eval()
    features = make_features()
    assert torch.equal(mixture.attention(features)[0], torch.ones(len(features.hidden), 4, 1, 1))
    close(mixture(features)["triplets"], elu(features.hidden @ mixture.layers[0].kernel.value.weight.T))


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("gate", [None, 0.3])
def test_what_is_around_the_kernel(residual: bool, norm: bool, gate: float | None) -> None:
    mixture = Mixture(D, residual=residual, norm=norm, gate=gate).eval()
    features = make_features()
    layer = mixture.layers[0]
    streams = mixture.streams(features.hidden)
    expected = layer.kernel(streams, features)
    if gate is not None:
        assert torch.equal(layer.gate, torch.full((3,), gate))
        nn.init.normal_(layer.gate)
        expected = torch.stack([expected[:, expert] * layer.gate[expert] for expert in range(3)], dim=1)
    if residual:
        expected = expected + streams
    if norm:
        expected = F.layer_norm(expected, (D,), layer.norm.weight, layer.norm.bias)
    close(torch.stack(list(mixture(features).values()), dim=1), expected)
    close(mixture.triplet_stream(features), expected[:, -1])


MIXTURES = [
    *((name, {}) for name in PRESETS),
    *((name, {"layers": layers}) for name in PRESETS for layers in (2, 3)),
    ("gmoe", {"gate": 0.1}),
    ("gmoe", {"experts": ("relations", "triplets"), "layers": 2}),
    ("hetero_token", {"experts": ("entities", "triplets"), "gate": 0.5}),
    ("sentence_gate", {"experts": ("triplets",)}),
]


@pytest.fixture(params=MIXTURES, ids=lambda case: "-".join(map(str, case)))
def mixture(request: pytest.FixtureRequest) -> Mixture:
    """A mixture of each preset, and others; with dropout off."""
    name, options = request.param
    return randomise(Mixture(D, **{**PRESETS[name], **options})).eval()


def test_the_triplet_stream_alone_is_that_of_all(mixture: Mixture) -> None:
    features = make_features()
    close(mixture.triplet_stream(features), mixture(features)["triplets"], 1e-6)


def test_mixtures_read_each_sentence_as_if_it_were_alone(mixture: Mixture) -> None:
    features = make_features()
    together = mixture(features)
    alone = [mixture(part) for part in one_by_one(features)]
    for name, rows in together.items():
        close(rows, torch.cat([streams[name] for streams in alone]), 1e-6)
    for layer, weights in enumerate(mixture.attention(features)):
        close(weights, torch.cat([mixture.attention(part)[layer] for part in one_by_one(features)]), 1e-6)


def test_weights_sum_to_one(mixture: Mixture) -> None:
    features = make_features()
    layers = mixture.attention(features)
    assert len(layers) == len(mixture.layers)
    n = len(mixture.experts)
    for gamma in layers:
        assert gamma.shape == (len(features.hidden), 4, n, n)
        assert (gamma >= 0).all()
        close(gamma.sum(-1), torch.ones(gamma.shape[:-1]), 1e-6)


def test_every_parameter_of_a_mixture_learns(mixture: Mixture) -> None:
    """All but what a softmax over one expert cancels."""
    mixture.train()
    features = make_features()
    target = torch.randn(len(features.hidden), len(mixture.experts), D)
    loss = (torch.stack(list(mixture(features).values()), dim=1) * target).sum()
    if not list(mixture.parameters()):
        assert not loss.requires_grad
        return
    loss.backward()
    for name, parameter in mixture.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        cancelled = len(mixture.experts) == 1 and name.endswith((".listener", ".speaker"))
        assert parameter.grad.any() or cancelled, name


def test_mixtures_pass_gradients_to_the_encoder(mixture: Mixture) -> None:
    features = make_features()
    features.hidden.requires_grad_()
    mixture(features)["triplets"][2].sum().backward()
    gradient = features.hidden.grad
    assert gradient is not None and gradient.isfinite().all()
    assert not gradient[features.owner != 0].any()


def test_without_mutual_learning_the_triplets_have_the_encoders_vectors() -> None:
    mixture = Mixture(D, **PRESETS["identity"])
    features = make_features()
    streams = mixture(features)
    assert torch.equal(streams["triplets"], features.hidden)
    close(streams["entities"], mixture.project["entities"](features.hidden))
    assert mixture.attention(features) == []


def test_projections_start_near_the_identity() -> None:
    features = make_features((40,), 64)
    near, far = (
        (Mixture(64, identity_init=here).streams(features.hidden)[:, 0] - features.hidden).norm()
        for here in (True, False)
    )
    assert near < 0.3 * features.hidden.norm() < far


def test_the_experts_keep_their_order() -> None:
    assert Mixture(D, experts=("triplets", "entities")).experts == ("entities", "triplets")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "mixture_settings.heads is 3; expected a divisor of the encoder's width 8"),
        ({"heads": 0}, "mixture_settings.heads is 0; expected a divisor"),
        ({"heads": 16}, "mixture_settings.heads is 16; expected a divisor"),
        ({"kernel": "gcn"}, "mixture_settings.kernel is 'gcn'; expected one of token, sentence, hetero"),
        ({"experts": ("entities", "relations")}, "mixture_settings.experts is .*; expected 'triplets' and any of"),
        ({"experts": ("events", "triplets")}, "mixture_settings.experts is .*events"),
        ({"experts": ()}, "mixture_settings.experts is"),
    ],
)
def test_wrong_options_of_a_mixture(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(D, **options)
    with pytest.raises(ValueError, match=message):
        RTENetwork(D, SCHEMA, mixture_settings=options)


def test_every_kernel_has_a_preset() -> None:
    assert {options.get("kernel", "token") for options in PRESETS.values()} == set(KERNELS)


# --- pooling --------------------------------------------------------------------------------------------------


@st.composite
def rows_and_ranges(draw: st.DrawFn) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """Rows, and ranges of them, some of which are empty or end before they start."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    n = draw(st.integers(1, 40))
    start, end = rng.integers(0, n + 1, size=(2, draw(st.integers(0, 30))))
    return torch.from_numpy(rng.normal(size=(n, 3))).float(), start, end


@given(rows_and_ranges(), st.integers(0, 9))
def test_pooling_equals_a_loop(case: tuple[Tensor, np.ndarray, np.ndarray], more: int) -> None:
    rows, start, end = case
    rows.requires_grad_()
    longest = int((end - start).max(initial=0)) + more
    pooled = RangeMax(rows, longest)(start, end)
    naive = [
        rows[i:j].max(0).values if i < j else torch.zeros(3) for i, j in zip(start.tolist(), end.tolist(), strict=True)
    ]
    expected = torch.stack(naive) if naive else torch.zeros(0, 3)
    assert torch.equal(pooled, expected)
    if (start < end).any():
        weights = torch.randn(pooled.shape)
        ours, theirs = (torch.autograd.grad((x * weights).sum(), rows)[0] for x in (pooled, expected))
        close(ours, theirs, 1e-6)


# --- sampling -------------------------------------------------------------------------------------------------


@st.composite
def annotations(draw: st.DrawFn, *, distinct: bool = False) -> tuple[np.ndarray, list[Extraction]]:
    """Sentences with entities that may overlap, of any width, and relations of several labels between them.

    distinct: no two entities at one place.
    """
    lengths = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    gold = []
    for length in lengths:
        bounds = st.tuples(st.integers(0, length - 1), st.integers(1, length)).filter(lambda b: b[0] < b[1])
        types = st.integers(0, len(SCHEMA.entities) - 1)
        spans = draw(
            st.lists(
                st.tuples(bounds, types),
                max_size=5,
                unique_by=(lambda span: span[0]) if distinct else (lambda span: span),
            )
        )
        pairs = list(permutations(range(len(spans)), 2))
        triplets = st.tuples(st.sampled_from(pairs), st.integers(0, 3)) if pairs else st.nothing()
        related = draw(st.lists(triplets, max_size=6, unique=True)) if pairs else []
        gold.append(
            Extraction(
                [Entity(*place, kind) for place, kind in spans],
                [Triplet(head, tail, label) for (head, tail), label in related],
            )
        )
    return np.array(lengths, dtype=np.int64), gold


def key(entity: Entity) -> tuple[int, int, int]:
    return entity[:3]


def head_first(extraction: Extraction) -> set[tuple[Any, ...]]:
    """Its triplets as (head, tail, label), symmetric ones with the argument first in the text as head."""
    found = set()
    for head, tail, label, _ in extraction.triplets:
        one, other = key(extraction.entities[head]), key(extraction.entities[tail])
        swap = label in SYMMETRIC and other[:2] < one[:2]
        found.add((other, one, label) if swap else (one, other, label))
    return found


@given(st.lists(st.integers(0, 7), min_size=1, max_size=5), st.integers(1, 9))
def test_all_spans_equals_a_loop(lengths: list[int], max_span: int) -> None:
    expected = [
        (sentence, start, end)
        for sentence, length in enumerate(lengths)
        for start in range(length)
        for end in range(start + 1, min(start + max_span, length) + 1)
    ]
    found = all_spans(np.array(lengths, dtype=np.int64), max_span)
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected


@given(annotations(), st.integers(1, 4), st.integers(0, 12), st.integers(0, 6), st.integers(0, 9))
def test_what_is_sampled(
    case: tuple[np.ndarray, list[Extraction]], max_span: int, n_spans: int, n_pairs: int, seed: int
) -> None:
    lengths, gold = case
    targets = Sampler(SCHEMA, max_span, n_spans, n_pairs)(lengths, gold, np.random.default_rng(seed))
    spans = list(zip(targets.sentence.tolist(), targets.start.tolist(), targets.end.tolist(), strict=True))
    entities = [(sentence, entity) for sentence, extraction in enumerate(gold) for entity in extraction.entities]
    rows = targets.entities.tolist()
    assert [spans[row] for row in rows] == [(sentence, e.start, e.end) for sentence, e in entities]
    assert targets.types[rows].tolist() == [e.type + 1 for _, e in entities]

    negative = [span for span, kind in zip(spans, targets.types.tolist(), strict=True) if not kind]
    assert len(negative) + len(rows) == len(spans)
    everything = set(zip(*(column.tolist() for column in all_spans(lengths, max_span)), strict=True))
    other = everything - {(sentence, e.start, e.end) for sentence, e in entities}
    assert len(set(negative)) == len(negative)
    assert set(negative) <= other
    for sentence in range(len(gold)):
        count = sum(span[0] == sentence for span in negative)
        assert count == min(n_spans, sum(span[0] == sentence for span in other))

    pairs: dict[tuple[int, int], list[int]] = {}
    for head, tail, labels in zip(targets.head.tolist(), targets.tail.tolist(), targets.labels, strict=True):
        assert entities[head][0] == entities[tail][0] and head != tail
        assert (head, tail) not in pairs
        pairs[head, tail] = np.flatnonzero(labels).tolist()
    first = 0
    for extraction in gold:
        here = range(first, first + len(extraction.entities))
        first += len(here)
        positive = {
            (extraction.entities[head - here[0]], extraction.entities[tail - here[0]], label)
            for (head, tail), labels in pairs.items()
            for label in labels
            if head in here
        }
        # entities of two types at one place have no first: neither is turned
        assert {(key(one), key(other), label) for one, other, label in positive} == head_first(extraction)
        related = {pair for pair, labels in pairs.items() if labels and pair[0] in here}
        unrelated = [pair for pair, labels in pairs.items() if not labels and pair[0] in here]
        assert len(unrelated) == min(n_pairs, len(here) * (len(here) - 1) - len(related))
    assert targets.labels.shape == (len(pairs), len(SCHEMA.relations))
    assert targets.labels.dtype == np.float32


def sample(entities: list[Entity], triplets: list[Triplet], length: int = 6) -> SpanTargets:
    sampler = Sampler(SCHEMA, 3, 100, 100)
    return sampler(np.array([length]), [Extraction(entities, triplets)], np.random.default_rng(0))


def labels_of(targets: SpanTargets) -> dict[tuple[int, int], list[int]]:
    return {
        (head, tail): np.flatnonzero(labels).tolist()
        for head, tail, labels in zip(targets.head.tolist(), targets.tail.tolist(), targets.labels, strict=True)
    }


def test_gold_spans_may_be_wider_than_others() -> None:
    targets = sample([Entity(0, 6, 1)], [])
    assert (targets.start[0], targets.end[0], targets.types[0]) == (0, 6, 2)
    assert (targets.end - targets.start)[1:].max() == 3
    assert len(targets.types) == 1 + 6 + 5 + 4


def test_the_reverse_of_a_relation_is_a_negative_pair() -> None:
    entities = [Entity(0, 1, 0), Entity(2, 3, 1)]
    assert labels_of(sample(entities, [Triplet(1, 0, 0), Triplet(1, 0, 2)])) == {(1, 0): [0, 2], (0, 1): []}
    spouse = SCHEMA.relations.index("spouse")
    assert labels_of(sample(entities, [Triplet(1, 0, spouse)])) == {(0, 1): [spouse], (1, 0): []}
    both = [Triplet(1, 0, spouse), Triplet(1, 0, 0), Triplet(0, 1, 2)]
    assert labels_of(sample(entities, both)) == {(0, 1): [spouse, 2], (1, 0): [0]}


def test_unknown_pairs_are_no_negatives() -> None:
    entities = [Entity(0, 1, 0), Entity(2, 3, 1), Entity(4, 5, 1)]
    gold = Extraction(entities, [Triplet(0, 1, 2)], frozenset({(1, 0), (2, 1)}))
    targets = Sampler(SCHEMA, 3, 100, 100)(np.array([6]), [gold], np.random.default_rng(0))
    assert labels_of(targets) == {(0, 1): [2], (0, 2): [], (1, 2): [], (2, 0): []}


@given(st.integers(0, 12), st.integers(0, 40), st.data())
def test_negative_pairs_are_other_pairs_and_as_many_as_wanted(size: int, wanted: int, data: st.DataObject) -> None:
    pairs = {(head, tail) for head in range(size) for tail in range(size) if head != tail}
    known = data.draw(st.sets(st.sampled_from(sorted(pairs)))) if pairs else set()
    drawn = Sampler(SCHEMA, 3, 100, wanted)._negatives(size, known, np.random.default_rng(0))
    assert len(set(drawn)) == len(drawn) == min(wanted, len(pairs - known))
    assert set(drawn) <= pairs - known


def test_sentences_without_entities_and_of_one_word() -> None:
    bare = sample([], [], length=1)
    assert (bare.start.tolist(), bare.end.tolist(), bare.types.tolist()) == ([0], [1], [0])
    assert bare.labels.shape == (0, 4) and len(bare.entities) == 0
    full = sample([Entity(0, 1, 2)], [], length=1)
    assert (full.start.tolist(), full.types.tolist(), full.entities.tolist()) == ([0], [3], [0])
    assert full.labels.shape == (0, 4)


def test_negatives_are_drawn_anew() -> None:
    sampler = Sampler(SCHEMA, 3, 5, 1)
    rng = np.random.default_rng(0)
    gold = [Extraction([Entity(0, 1, 0), Entity(2, 3, 1), Entity(4, 6, 1)], [])]
    drawn = [sampler(np.array([20]), gold, rng) for _ in range(6)]
    assert len({tuple(targets.start.tolist()) for targets in drawn}) > 3
    assert len({(*targets.head.tolist(), *targets.tail.tolist()) for targets in drawn}) > 1


# --- SINET ----------------------------------------------------------------------------------------------------


def spans_of(*spans: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    sentence, start, end = np.array(spans, dtype=np.int64).T
    return sentence, start, end


def vectors(features: Features) -> list[tuple[Tensor, Tensor]]:
    """Of each sentence its own vector and those of its words."""
    return [(part.hidden[0], part.hidden[1:]) for part in one_by_one(features)]


def test_the_span_classifier_equals_the_concatenation() -> None:
    classifier = randomise(SpanClassifier(4, width=D, size_width=5, dropout=0.3)).eval()
    features = make_features((6, 1, 130))
    spans = [(0, 0, 1), (0, 2, 6), (1, 0, 1), (2, 3, 9), (2, 0, 99), (2, 0, 130), (0, 0, 6)]
    read = vectors(features)
    concatenated = [
        torch.cat([read[i][0], read[i][1][start:end].max(0).values, classifier.size.weight[min(end - start, 99)]])
        for i, start, end in spans
    ]
    expected = F.linear(torch.stack(concatenated), classifier.linear.weight, classifier.linear.bias)
    close(classifier(features, *spans_of(*spans)), expected)


PAIR_SPANS = [(0, 0, 2), (0, 1, 3), (0, 3, 4), (0, 5, 7), (0, 0, 7), (0, 6, 7), (1, 0, 1), (1, 2, 3)]


def same_sentence(spans: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    return [(i, j) for i, j in permutations(range(len(spans)), 2) if spans[i][0] == spans[j][0]]


def test_the_pair_classifier_equals_the_concatenation() -> None:
    """With raw words between the spans, and zeros where they touch or overlap."""
    classifier = randomise(PairClassifier(3, width=D, size_width=5, dropout=0.3)).eval()
    features, words = make_features((7, 3)), make_features((7, 3))
    read, raw = vectors(features), vectors(words)
    pairs = same_sentence(PAIR_SPANS)
    concatenated, empty = [], 0
    for i, j in pairs:
        (sentence, start, end), (_, other_start, other_end) = PAIR_SPANS[i], PAIR_SPANS[j]
        between = raw[sentence][1][min(end, other_end) : max(start, other_start)]
        empty += not len(between)
        parts = [between.max(0).values if len(between) else torch.zeros(D), read[sentence][0]]
        parts += [read[sentence][1][start:end].max(0).values, read[sentence][1][other_start:other_end].max(0).values]
        parts += [classifier.size.weight[end - start], classifier.size.weight[other_end - other_start]]
        concatenated.append(torch.cat(parts))
    assert 0 < empty < len(pairs)
    expected = F.linear(torch.stack(concatenated), classifier.linear.weight, classifier.linear.bias)
    head, tail = np.array(pairs).T
    pooled = classifier.pool(features, words, *spans_of(*PAIR_SPANS))
    close(classifier.score(pooled, head, tail), expected)


def test_words_between_are_those_before_any_projection() -> None:
    """SINET pools the mixture's own stream between spans, and its projection for relations within them."""
    backbone = randomise(Sinet(D, SCHEMA, size_width=4, cross_attention=False)).eval()
    features = make_features((7,))
    entities = [Entity(0, 1, 0), Entity(4, 6, 1), Entity(6, 7, 1)]
    targets = Sampler(SCHEMA, 8, 0, 100)(np.array([7]), [Extraction(entities, [])], np.random.default_rng(0))
    relations = features.hidden @ backbone.to_relations.weight.T
    linear, size = backbone.relations.linear, backbone.relations.size.weight
    logits = []
    for i, j in zip(targets.head.tolist(), targets.tail.tolist(), strict=True):
        (a, b, *_), (c, d, *_) = entities[i], entities[j]
        between = features.hidden[1:][min(b, d) : max(a, c)]
        parts = [between.max(0).values if len(between) else torch.zeros(D), relations[0]]
        parts += [relations[1:][a:b].max(0).values, relations[1:][c:d].max(0).values, size[b - a], size[d - c]]
        logits.append(linear.weight @ torch.cat(parts) + linear.bias)
    pair_term = F.softplus(torch.stack(logits)).mean()  # binary cross-entropy where nothing holds
    of_entities = features.hidden @ backbone.to_entities.weight.T
    linear, size = backbone.entities.linear, backbone.entities.size.weight
    inputs = [
        torch.cat([of_entities[0], of_entities[1:][e.start : e.end].max(0).values, size[e.end - e.start]])
        for e in entities
    ]
    scores = F.linear(torch.stack(inputs), linear.weight, linear.bias)
    span_term = -scores.log_softmax(-1)[range(3), [1, 2, 2]].mean()
    close(backbone.loss({"triplets": features}, targets), span_term + pair_term)


@pytest.mark.parametrize("heads", [1, 4])
def test_cross_task_attention_equals_explicit_keys_and_values(heads: int) -> None:
    layer = randomise(CrossTaskAttention(D, heads, 0.3)).eval()
    own, other = make_features(), make_features()
    found = layer(own, other)
    weights = [linear.weight for linear in (layer.query, layer.key, layer.value)]
    for (sentence, words), (_, other_words), (replaced, kept) in zip(
        vectors(own), vectors(other), vectors(found), strict=True
    ):
        rows = torch.cat([other_words, sentence.unsqueeze(0)])
        heard = layer.out(attend(sentence.unsqueeze(0), rows, rows, weights, heads))[0]
        close(replaced, layer.norm(sentence + heard))
        assert torch.equal(kept, words)


def make_sinet(**settings: Any) -> RTENetwork:
    """A random network that finds something: the classifiers' start as "nothing" is drawn anew."""
    mixture = settings.pop("mixture", None)
    network = RTENetwork(D, SCHEMA, mixture=mixture, backbone_settings={"max_span": 3, "size_width": 4, **settings})
    return randomise(network, spread=1.5).eval()


def as_numbers(extraction: Extraction) -> list[tuple[Any, ...]]:
    return [*map(tuple, extraction.entities), *sorted(map(tuple, extraction.triplets))]


def assert_same(left: Sequence[Extraction], right: Sequence[Extraction]) -> None:
    for one, other in zip(left, right, strict=True):
        assert len(one.entities) == len(other.entities)
        flat = [[number for row in as_numbers(extraction) for number in row] for extraction in (one, other)]
        assert flat[0] == pytest.approx(flat[1], abs=1e-5)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"cross_attention": False},
    {"mixture": "gmoe"},
    {"mixture": "sentence_gate"},
    {"mixture": "hetero_token"},
    {"mixture": "gmoe", "streams": "experts"},
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_predictions_do_not_depend_on_batches_or_order(options: dict[str, Any]) -> None:
    network = make_sinet(**options)
    features = make_features((5, 1, 9, 2, 7, 4))
    together = network.predict(features, 0.5)
    assert sum(len(extraction.triplets) for extraction in together) > 5
    parts = one_by_one(features)
    assert_same(together, [network.predict(part, 0.5)[0] for part in parts])
    assert_same(together[::-1], network.predict(join(parts[::-1]), 0.5))


@pytest.mark.parametrize("name", ["sinet.PAIRS_AT_ONCE", "experts.ROWS_AT_ONCE"])
@pytest.mark.parametrize("at_once", [1, 3, 12])
def test_predictions_do_not_depend_on_what_is_scored_at_once(
    monkeypatch: pytest.MonkeyPatch, name: str, at_once: int
) -> None:
    network = make_sinet(mixture="gmoe")
    features = make_features((5, 1, 9, 2, 7, 4))
    expected = network.predict(features, 0.5)
    assert any(extraction.triplets for extraction in expected)
    module, constant = name.split(".")
    monkeypatch.setattr({"sinet": sinet, "experts": experts}[module], constant, at_once)
    assert_same(expected, network.predict(features, 0.5))


def test_pairs_are_all_ordered_pairs_within_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array([0, 3, 3, 4, 8])
    expected = [(i, j) for a, b in ((0, 3), (3, 3), (3, 4), (4, 8)) for i, j in permutations(range(a, b), 2)]
    for at_once in (1, 3, 5, 1000):
        monkeypatch.setattr(sinet, "PAIRS_AT_ONCE", at_once)
        chunks = list(sinet._all_pairs(first))
        assert [pair for head, tail in chunks for pair in zip(head.tolist(), tail.tolist(), strict=True)] == expected
        assert all(len(head) < at_once + 3 for head, _ in chunks)
    assert list(sinet._all_pairs(np.array([0, 1, 2]))) == []


@torch.no_grad()
def test_what_is_found_is_what_the_classifiers_say() -> None:
    """Every span up to a width, the best type; every ordered pair of those, every label over the threshold."""
    network = make_sinet(cross_attention=False)
    features = make_features((6, 4))
    backbone = network.backbone
    for threshold in (0.3, 0.5, 0.7):
        for part, extraction in zip(one_by_one(features), network.predict(features, threshold), strict=True):
            entities, relations = backbone._spaces({"triplets": part})
            n = int(part.lengths[0])
            expected = {}
            for start, end in ((i, j) for i in range(n) for j in range(i + 1, min(i + 3, n) + 1)):
                scores = backbone.entities(entities, *spans_of((0, start, end)))[0].softmax(-1)
                if scores.argmax():
                    expected[start, end] = int(scores.argmax()) - 1, float(scores.max())
            spans = sorted(expected)
            assert [e[:3] for e in extraction.entities] == [(*span, expected[span][0]) for span in spans]
            assert [e.score for e in extraction.entities] == pytest.approx([expected[span][1] for span in spans])
            triplets: dict[tuple[int, int, int], float] = {}
            for i, j in permutations(range(len(spans)), 2):
                pooled = backbone.relations.pool(relations, part, *spans_of((0, *spans[i]), (0, *spans[j])))
                scores = backbone.relations.score(pooled, np.array([0]), np.array([1]))[0].sigmoid()
                for label, score in enumerate(scores.tolist()):
                    if score >= threshold:
                        one, other = sorted((i, j)) if label in SYMMETRIC else (i, j)
                        triplets[one, other, label] = max(score, triplets.get((one, other, label), 0.0))
            assert {t[:3]: t.score for t in extraction.triplets} == pytest.approx(triplets, abs=1e-5)
            assert len(extraction.triplets) == len(triplets)


class GoldSpans(nn.Module):
    """Answers what the sampler asks a span classifier to learn."""

    def __init__(self, targets: SpanTargets) -> None:
        super().__init__()
        rows = zip(*(c.tolist() for c in (targets.sentence, targets.start, targets.end)), strict=True)
        self.types = dict(zip(rows, targets.types.tolist(), strict=True))

    def forward(self, features: Features, *spans: np.ndarray) -> Tensor:
        types = [self.types[span] for span in zip(*(column.tolist() for column in spans), strict=True)]
        return 9.0 * F.one_hot(torch.tensor(types), len(SCHEMA.entities) + 1).float()


class GoldPairs(nn.Module):
    """Answers what the sampler asks a pair classifier to learn."""

    def __init__(self, targets: SpanTargets) -> None:
        super().__init__()
        rows = zip(*(c[targets.entities].tolist() for c in (targets.sentence, targets.start, targets.end)), strict=True)
        spans = list(rows)
        self.labels = {
            (spans[head], spans[tail]): labels
            for head, tail, labels in zip(targets.head.tolist(), targets.tail.tolist(), targets.labels, strict=True)
        }

    def pool(self, features: Features, words: Features, *spans: np.ndarray) -> list[tuple[int, ...]]:
        return list(zip(*(column.tolist() for column in spans), strict=True))

    def score(self, spans: list[tuple[int, ...]], head: np.ndarray, tail: np.ndarray) -> Tensor:
        labels = [self.labels[spans[i], spans[j]] for i, j in zip(head.tolist(), tail.tolist(), strict=True)]
        return torch.from_numpy(np.stack(labels)) * 18.0 - 9.0


@given(annotations(distinct=True), st.integers(1, 9))
@settings(max_examples=60)
def test_gold_comes_back_from_the_decoder(case: tuple[np.ndarray, list[Extraction]], max_span: int) -> None:
    """Classifiers that have learnt what is sampled give 100 F1, but for entities wider than the widest span."""
    lengths, gold = case
    network = RTENetwork(D, SCHEMA, mixture=None, backbone_settings={"max_span": max_span}).eval()
    targets = Sampler(SCHEMA, max_span, 1000, 1000)(lengths, gold, np.random.default_rng(0))
    network.backbone.entities = GoldSpans(targets)
    network.backbone.relations = GoldPairs(targets)
    for extraction, found in zip(gold, network.predict(make_features(lengths.tolist()), 0.5), strict=True):
        reachable = {key(e) for e in extraction.entities if e.end - e.start <= max_span}
        assert [key(e) for e in found.entities] == sorted(reachable)
        expected = {t for t in head_first(extraction) if t[0] in reachable and t[1] in reachable}
        decoded = [(key(found.entities[h]), key(found.entities[t]), label) for h, t, label, _ in found.triplets]
        assert set(decoded) == expected
        assert len(decoded) == len(expected)


def test_symmetric_relations_are_reported_once_with_the_higher_score() -> None:
    backbone = Sinet(D, SCHEMA)
    spouse, works_for = SCHEMA.relations.index("spouse"), SCHEMA.relations.index("works_for")
    entities = [Entity(0, 1, 0), Entity(0, 2, 0), Entity(3, 4, 0)]
    found = [Triplet(0, 2, spouse, 0.6), Triplet(2, 0, spouse, 0.8), Triplet(1, 0, spouse, 0.7)]
    found += [Triplet(0, 2, works_for, 0.6), Triplet(2, 0, works_for, 0.8)]
    kept = backbone._without_echoes(Extraction(entities, found)).triplets
    assert kept == [Triplet(0, 2, spouse, 0.8), Triplet(0, 1, spouse, 0.7), *found[3:]]


def test_an_untrained_network_finds_next_to_nothing() -> None:
    network = RTENetwork(32, SCHEMA).eval()
    features = make_features((30,) * 4, 32)
    found = sum(len(extraction.entities) for extraction in network.predict(features, 0.5))
    assert found < 0.05 * 4 * 30 * 8


def test_networks_read_sentences_without_words_and_batches_without_sentences() -> None:
    network = make_sinet(mixture="gmoe")
    assert network.predict(make_features(()), 0.5) == []
    nothing, something = network.predict(make_features((0, 6)), 0.5)
    assert nothing == Extraction()
    assert something.entities
    losses = network(make_features((0, 1)), [Extraction(), Extraction()])
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["relations"].item() == 0


# --- the network ----------------------------------------------------------------------------------------------


def make_gold(lengths: Sequence[int], seed: int = 0, entities: int = 3) -> list[Extraction]:
    """Entities of one or two words that do not overlap, and relations of about half of their pairs."""
    rng = np.random.default_rng(seed)
    gold = []
    for length in lengths:
        starts = sorted(rng.choice(length // 2, min(entities, length // 2), replace=False) * 2)
        found = [Entity(int(s), int(s) + int(rng.integers(1, 3)), int(rng.integers(3))) for s in starts]
        pairs = list(permutations(range(len(found)), 2))
        related = [pair for pair in pairs if rng.random() < 0.4]
        gold.append(Extraction(found, [Triplet(i, j, int(rng.integers(4))) for i, j in related]))
    return gold


def make_network(**settings: Any) -> RTENetwork:
    torch.manual_seed(1)
    backbone = {"size_width": 4, "max_span": 3, **settings.pop("backbone_settings", {})}
    return RTENetwork(D, SCHEMA, backbone_settings=backbone, **{"alpha": 1.0, "beta": 1.0, **settings})


def total(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_the_losses_are_weighted() -> None:
    features, gold = make_features((6, 8)), make_gold((6, 8))
    plain, weighted = make_network().eval()(features, gold), make_network(alpha=0.5, beta=3.0).eval()(features, gold)
    assert list(plain) == list(weighted) == ["triplets", "entities", "relations"]
    assert all(loss.ndim == 0 and loss > 0 for loss in plain.values())
    close(weighted["triplets"], plain["triplets"])
    close(weighted["entities"], 0.5 * plain["entities"])
    close(weighted["relations"], 3 * plain["relations"])
    network = make_network(alpha=0.5, beta=3.0).eval()
    targets = network.backbone.prepare(features.lengths, gold, np.random.default_rng(0))
    streams = {name: features.replace(rows) for name, rows in network.mixture(features).items()}
    expected = network.backbone.loss(streams, targets)
    expected = expected + 0.5 * network.experts["entities"].loss(streams["entities"], targets)
    expected = expected + 3.0 * network.experts["relations"].loss(streams["relations"], targets)
    close(total(weighted), expected)


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({"alpha": 0.0}, ["triplets", "relations"]),
        ({"beta": 0.0}, ["triplets", "entities"]),
        ({"alpha": 0.0, "beta": 0.0}, ["triplets"]),
        ({"mixture": None}, ["triplets"]),
        ({"mixture_settings": {"experts": ["triplets"]}}, ["triplets"]),
        ({"mixture_settings": {"experts": ["entities", "triplets"]}}, ["triplets", "entities"]),
        ({"mixture_settings": {"experts": ["relations", "triplets"]}}, ["triplets", "relations"]),
    ],
)
def test_ablations_train(weights: dict[str, Any], names: list[str]) -> None:
    lengths = (6, 8, 5)
    features, gold = make_features(lengths), make_gold(lengths)
    network = make_network(**weights)
    assert not network.is_stripped
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    history = []
    for _ in range(25):
        optimizer.zero_grad()
        losses = network(features, gold)
        assert list(losses) == names
        total(losses).backward()
        optimizer.step()
        history.append(total(losses).item())
    assert np.mean(history[-5:]) < 0.7 * history[0]
    assert len(network.eval().predict(features, 0.5)) == 3


def test_without_weights_mutual_learning_still_learns() -> None:
    """The projections of the other experts have the loss of the triplets."""
    network = make_network(alpha=0.0, beta=0.0)
    network(make_features((6,)), make_gold((6,)))["triplets"].backward()
    assert all(layer.weight.grad is not None and layer.weight.grad.any() for layer in network.mixture.project.values())
    assert all(parameter.grad is None for parameter in network.experts.parameters())


@pytest.mark.parametrize("mixture", [None, *PRESETS])
@pytest.mark.parametrize("streams", ["triplets", "experts"])
def test_every_parameter_of_a_network_learns(mixture: str | None, streams: str) -> None:
    if mixture is None and streams == "experts":
        pytest.skip("there are no streams to read")
    lengths = (6, 8, 7)
    features = make_features(lengths)
    features.hidden.requires_grad_()
    network = randomise(make_network(mixture=mixture, backbone_settings={"streams": streams}))
    total(network(features, make_gold(lengths))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert features.hidden.grad is not None and features.hidden.grad.any(-1).all()


def test_batches_without_entities_or_pairs_train() -> None:
    network = make_network()
    for gold in (Extraction(), Extraction([Entity(0, 1, 0)])):
        network.zero_grad()
        features = make_features((2,))
        losses = network(features, [gold])
        total(losses).backward()
        assert losses["triplets"] > 0 and losses["relations"] == 0
        assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_the_same_seed_draws_the_same_samples() -> None:
    features, gold = make_features((12, 9)), make_gold((12, 9))
    few = {"negative_spans": 4, "negative_pairs": 2}
    first, same, other = (
        [total(network(features, gold)).item() for _ in range(3)]
        for network in (make_network(backbone_settings=few, seed=seed).eval() for seed in (1, 1, 2))
    )
    assert first == same
    assert len({*first, *other}) == 6


STRIPPABLE: list[dict[str, Any]] = [
    {"mixture": None},
    *({"mixture": name} for name in PRESETS),
    {"mixture": "gmoe", "backbone_settings": {"streams": "experts"}},
    {"mixture": "identity", "backbone_settings": {"streams": "experts"}},
    {"mixture": "gmoe", "mixture_settings": {"experts": ["entities", "triplets"], "layers": 2}},
    {"mixture": "gmoe", "mixture_settings": {"experts": ["triplets"]}},
]


def make_bundle(options: Mapping[str, Any]) -> checkpoint.TripletBundle:
    backbone = {"max_span": 3, "size_width": 4, **options.get("backbone_settings", {})}
    bundle = checkpoint.new_triplet_network(D, SCHEMA, {**options, "backbone_settings": backbone})
    randomise(bundle.network, spread=1.5).eval()
    return bundle


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("options", STRIPPABLE, ids=str)
def test_a_stripped_network_predicts_the_same(options: dict[str, Any]) -> None:
    network = make_bundle(options).network
    features = make_features()
    expected, before = network.predict(features, 0.5), size(network)
    auxiliary = size(network.experts)
    assert any(extraction.triplets for extraction in expected)
    for _ in range(2):  # once more changes nothing
        network.strip_auxiliary()
        assert network.predict(features, 0.5) == expected  # to the bit
        assert network.is_stripped == bool(auxiliary)
        assert not list(network.experts.parameters())
        if options == {"mixture": "identity"}:
            assert size(network) == before - auxiliary - 2 * (D * D + D)
        else:
            assert size(network) == before - auxiliary
    assert len(network.attention(features)) == len(network.mixture.layers if network.mixture is not None else [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "casrel"}, "backbone is 'casrel'; expected one of sinet"),
        ({"backbone_settings": {"spans": 8}}, "backbone_settings of 'sinet' are {'spans': 8}.*unexpected"),
        ({"backbone_settings": {"heads": 3}}, "backbone_settings.heads is 3; expected a divisor"),
        ({"backbone_settings": {"heads": 0}}, "backbone_settings.heads is 0; expected a divisor"),
        ({"backbone_settings": {"streams": "both"}}, "backbone_settings.streams is 'both'; expected 'triplets' or"),
        ({"mixture": "moe"}, "mixture is 'moe'; expected None or one of gmoe, paper_literal"),
        ({"mixture_settings": {"head": 4}}, "mixture_settings are {'head': 4}.*unexpected"),
        ({"mixture_settings": {"heads": "four"}}, "mixture_settings.heads is 'four'"),
        ({"mixture_settings": {"dropout": 2}}, "mixture_settings.dropout is 2; expected a number from 0 to 1"),
        ({"mixture_settings": {"gate": "a"}}, "mixture_settings.gate is 'a'; expected a finite number of at least 0"),
        ({"mixture_settings": {"negative_slope": "x"}}, "mixture_settings.negative_slope is 'x'; expected a finite"),
        ({"backbone": ["sinet"]}, r"backbone is \['sinet'\]; expected one of sinet"),
        ({"alpha": "a"}, "alpha is 'a'; expected a finite number of at least 0"),
        ({"alpha": float("inf")}, "alpha is inf; expected a finite number of at least 0"),
        ({"alpha": -0.1}, "alpha is -0.1; expected a finite number of at least 0"),
        ({"beta": -1}, "beta is -1; expected a finite number of at least 0"),
        ({"mixture": None, "backbone_settings": {"streams": "experts"}}, "reads the stream 'entities'"),
        (
            {"mixture_settings": {"experts": ["entities", "triplets"]}, "backbone_settings": {"streams": "experts"}},
            "reads the stream 'relations'",
        ),
    ],
)
def test_wrong_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RTENetwork(D, SCHEMA, **options)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_backbones_by_name(name: str) -> None:
    backbone = make_backbone(name, D, SCHEMA, {})
    assert type(backbone) is BACKBONES[name]
    assert set(backbone.reads) <= set(EXPERTS)
    assert all(callable(backbone.make_expert(task).loss) for task in EXPERTS[:-1])


def test_schemas() -> None:
    assert [SCHEMA.is_turned(label, (2, 3), (0, 2)) for label in range(4)] == [False, True, False, True]
    assert not any(SCHEMA.is_turned(label, (0, 2), tail) for label in range(4) for tail in ((2, 3), (0, 2)))
    with pytest.raises(ValueError, match=r"entities are .*; expected no name twice"):
        Schema(("A", "A"), ("r",))
    with pytest.raises(ValueError, match=r"relations are .*; expected no name twice"):
        Schema(("A",), ("r", "r"))
    with pytest.raises(ValueError, match="symmetric has 'q'; expected labels among r"):
        Schema(("A",), ("r",), ("q",))


def f1(gold: Sequence[Extraction], found: Sequence[Extraction]) -> tuple[float, float]:
    """Micro F1 of entities and of triplets with their entities' types."""
    scores = []
    for keys in (lambda extraction: {key(e) for e in extraction.entities}, head_first):
        golds, founds = ([(i, k) for i, x in enumerate(group) for k in keys(x)] for group in (gold, found))
        scores.append(2 * len(set(golds) & set(founds)) / (len(golds) + len(founds)))
    return scores[0], scores[1]


@pytest.mark.parametrize("mixture", [None, "gmoe"])
def test_a_tiny_network_learns_ten_sentences(mixture: str | None) -> None:
    """Random vectors, random entities and relations, from an untrained network to 100 F1."""
    lengths = np.random.default_rng(4).integers(5, 9, size=10).tolist()
    features, gold = make_features(lengths, 32), make_gold(lengths, seed=7)
    assert sum(len(extraction.triplets) for extraction in gold) > 15
    assert {t.label for extraction in gold for t in extraction.triplets} == {0, 1, 2, 3}
    torch.manual_seed(2)
    network = RTENetwork(
        32, SCHEMA, mixture=mixture, beta=1.0, backbone_settings={"max_span": 3, "size_width": 8, "dropout": 0.0}
    )
    assert f1(gold, network.eval().predict(features, 0.5))[1] < 0.3
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for step in range(400):
        network.train()
        optimizer.zero_grad()
        total(network(features, gold)).backward()
        optimizer.step()
        if step % 20 == 19 and f1(gold, network.eval().predict(features, 0.5)) == (1.0, 1.0):
            break
    assert f1(gold, network.eval().predict(features, 0.5)) == (1.0, 1.0)
    network.strip_auxiliary()
    assert f1(gold, network.predict(features, 0.5)) == (1.0, 1.0)


# --- files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stripped", [False, True])
@pytest.mark.parametrize("options", STRIPPABLE, ids=str)
def test_files_make_the_same_network(options: dict[str, Any], stripped: bool) -> None:
    bundle = make_bundle({**options, "alpha": 0.3, "beta": 0.0, "seed": 5})
    if stripped:
        bundle.network.strip_auxiliary()
    files = checkpoint.triplet_files(bundle)
    assert set(files) == {"config.json", "model.safetensors"}
    again = checkpoint.read_triplet_files(files)
    assert again.width == D
    assert again.settings == bundle.settings
    assert again.network.schema == SCHEMA
    assert again.network.is_stripped == bundle.network.is_stripped
    assert again.network.weights == {"entities": 0.3, "relations": 0.0}
    features = make_features()
    expected = bundle.network.predict(features, 0.5)
    assert again.network.eval().predict(features, 0.5) == expected
    assert checkpoint.triplet_files(again) == files
    assert all(parameter.requires_grad for parameter in again.network.parameters())


def test_a_network_goes_on_training_from_its_files() -> None:
    features, gold = make_features((6, 8)), make_gold((6, 8))
    bundle = make_bundle({})
    again = checkpoint.read_triplet_files(checkpoint.triplet_files(bundle)).network.eval()
    losses = again(features, gold)
    for name, loss in copy.deepcopy(bundle.network)(features, gold).items():
        close(losses[name], loss)
    total(losses).backward()
    assert all(parameter.grad is not None for parameter in again.parameters())


def changed(files: Mapping[str, bytes], **fields: Any) -> dict[str, bytes]:
    config = {**json.loads(files["config.json"]), **fields}
    kept = {name: value for name, value in config.items() if value is not None}
    return {**files, "config.json": json.dumps(kept).encode()}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "spacy_ie_moe.glirel"}, "'here'.*no format 'spacy_ie_moe.gmoe_rte'; expected one of gmoe_rte"),
        ({"format": None}, "no format 'spacy_ie_moe.gmoe_rte'"),
        ({"version": 2}, "'here' has version 2; expected one from 1 to 1"),
        ({"version": "1"}, "has version '1'"),
        ({"width": None}, "lacks width"),
        ({"width": "8"}, "width in config.json is '8'; expected a int"),
        ({"stripped": 1}, "stripped in config.json is 1; expected a bool"),
        ({"schema": {"entities": ["A"]}}, "schema in config.json is damaged"),
        ({"schema": {"entities": ["A"], "relations": ["r"], "events": []}}, "schema in config.json is damaged"),
        ({"schema": {"entities": ["A"], "relations": ["r"]}}, "weights of checkpoint 'here' do not fit its config"),
        ({"settings": {"mixture": None}}, "do not fit its config: it has .* in excess"),
        ({"settings": {"layers": 3}}, "settings in config.json are damaged .*layers"),
        ({"stripped": True}, "do not fit its config: it has experts.* in excess"),
        ({"settings": {"mixture": "moe"}}, "mixture is 'moe'"),
    ],
)
def test_damaged_configs(fields: dict[str, Any], message: str) -> None:
    files = changed(checkpoint.triplet_files(make_bundle({})), **fields)
    with pytest.raises(ValueError, match=message):
        checkpoint.read_triplet_files(files, "here")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"backbone_settings": {"size_width": 5}},
            r"model.backbone_settings.size_width is 5 \(it was 4\), and the weights",
        ),
        ({"mixture_settings": {"layers": 2}}, r"model.mixture_settings.layers is 2 \(it was 1\), and the weights"),
    ],
)
def test_settings_that_saved_weights_do_not_fit(wanted: dict[str, Any], message: str) -> None:
    files = checkpoint.triplet_files(make_bundle({"mixture": "gmoe", "mixture_settings": {"layers": 1}}))
    with pytest.raises(ValueError, match=message):
        checkpoint.read_triplet_files(files, wanted=wanted)


def test_damaged_files() -> None:
    files = checkpoint.triplet_files(make_bundle({}))
    with pytest.raises(ValueError, match=r"config.json is not JSON"):
        checkpoint.read_triplet_files({**files, "config.json": files["config.json"][:-5]})
    weights = files["model.safetensors"]
    for damaged in (weights[:-1], weights[:-1] + bytes([weights[-1] ^ 1]), b""):
        with pytest.raises(ValueError, match=r"model.safetensors is not the file that config.json was written for"):
            checkpoint.read_triplet_files({**files, "model.safetensors": damaged})
    other = checkpoint.triplet_files(make_bundle({"mixture": None}))
    with pytest.raises(ValueError, match=r"model.safetensors is not the file"):
        checkpoint.read_triplet_files({**files, "model.safetensors": other["model.safetensors"]})


def test_configs_are_readable() -> None:
    config = json.loads(checkpoint.triplet_files(make_bundle({}))["config.json"])
    assert config["schema"] == {name: list(names) for name, names in dataclasses.asdict(SCHEMA).items()}
    assert (config["format"], config["version"], config["width"]) == ("spacy_ie_moe.gmoe_rte", 1, D)
