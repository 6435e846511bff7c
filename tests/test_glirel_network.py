"""The networks against equations written out naively. PyTorch only."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spacy_ie_moe.glirel import checkpoint, selection
from spacy_ie_moe.glirel.batch import Keep, Window
from spacy_ie_moe.glirel.layers import (
    AttentionBlock,
    ConcatScorer,
    DotScorer,
    MeanMarker,
    NormScorer,
    PairLayer,
    PaperBlock,
    PaperRefinement,
    Refinement,
    StartEndMarker,
    ThresholdScorer,
    WordLSTM,
    feed_forward,
    span_means,
)
from spacy_ie_moe.glirel.selection import select

from .conftest import KINDS, LABELS, WORDS, make_nlp, random_docs, randomise, scores_of

D = 12


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def close(left: Tensor, right: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(left, right, atol=tolerance, rtol=1e-4)


# --- layers ---------------------------------------------------------------------------------------------------


def ffn(layer: nn.Sequential, x: Tensor) -> Tensor:
    """FFN of eq. 1-3 in words."""
    return layer[3](torch.relu(layer[0](x)))


def test_feed_forward() -> None:
    layer = feed_forward(D, 5, width=20, dropout=0.5).eval()
    x = torch.randn(3, D)
    close(layer(x), ffn(layer, x))


def test_the_pair_layer_equals_the_concatenation() -> None:
    layer = PairLayer(D, dropout=0.0).eval()
    entities, labels = torch.randn(5, D), torch.randn(4, D)
    pairs = torch.tensor([[i, j] for i in range(5) for j in range(5) if i != j])
    concatenated = torch.cat([entities[pairs[:, 0]], entities[pairs[:, 1]]], dim=-1)
    hidden = layer.hidden(*layer.split(entities), pairs)
    close(hidden, torch.relu(layer.out_project[0](concatenated)))
    close(layer.output(hidden), ffn(layer.out_project, concatenated))
    weights, bias = layer.fold(labels)
    close(hidden @ weights.T + bias, layer.output(hidden) @ labels.T)


def test_the_pair_layer_learns_as_the_concatenation_does() -> None:
    layer = PairLayer(D, dropout=0.0)
    entities = torch.randn(3, D)
    pairs = torch.tensor([[0, 1], [2, 0]])
    concatenated = torch.cat([entities[pairs[:, 0]], entities[pairs[:, 1]]], dim=-1)
    ours = layer.output(layer.hidden(*layer.split(entities), pairs)).square().sum()
    theirs = layer.out_project(concatenated).square().sum()
    parameters = list(layer.parameters())
    for left, right in zip(torch.autograd.grad(ours, parameters), torch.autograd.grad(theirs, parameters), strict=True):
        close(left, right)


def test_the_lstm_reads_each_text_as_if_it_were_alone() -> None:
    lstm = WordLSTM(D).eval()
    texts = [torch.randn(length, D) for length in (4, 1, 9, 2)]
    for text, output in zip(texts, lstm(texts), strict=True):
        close(output, lstm.lstm(text.unsqueeze(0))[0].squeeze(0))


SPANS = torch.tensor([[0, 1], [0, 3], [2, 6], [5, 6], [0, 6]])


def test_means_of_spans() -> None:
    words = torch.randn(6, D)
    close(span_means(words, SPANS), torch.stack([words[start:end].mean(0) for start, end in SPANS.tolist()]))


def test_markers() -> None:
    words = torch.randn(6, D)
    ends = StartEndMarker(D, dropout=0.3).eval()
    expected = []
    for start, end in SPANS.tolist():
        both = torch.cat([ffn(ends.project_start, words[start]), ffn(ends.project_end, words[end - 1])])
        expected.append(ffn(ends.out_project, torch.relu(both)))
    close(ends(words, SPANS), torch.stack(expected))
    mean = MeanMarker(D, dropout=0.3).eval()
    close(mean(words, SPANS), torch.stack([ffn(mean.projection, words[s:e].mean(0)) for s, e in SPANS.tolist()]))


def naive_score(scorer: nn.Module, pair: Tensor, label: Tensor) -> Tensor:
    if isinstance(scorer, DotScorer):
        return pair @ label
    if isinstance(scorer, ThresholdScorer):
        alpha, beta = ffn(scorer.proj_thresh, label)
        return (pair @ ffn(scorer.proj_type, label) + beta) * F.softplus(alpha)
    if isinstance(scorer, NormScorer):
        return pair @ label + scorer.bias + ffn(scorer.dy_bias_type, label)[0] + ffn(scorer.dy_bias_rel, pair)[0]
    assert isinstance(scorer, ConcatScorer)
    return ffn(scorer.proj, torch.cat([pair * label, pair - label, pair, label]))[0]


@pytest.mark.parametrize("scorer", [DotScorer, ThresholdScorer, NormScorer, ConcatScorer])
def test_scorers(scorer: Callable[..., nn.Module]) -> None:
    layer = (scorer() if scorer is DotScorer else scorer(D, dropout=0.3)).eval()
    pairs, labels = torch.randn(5, D), torch.randn(3, D)
    expected = torch.stack([torch.stack([naive_score(layer, pair, label) for label in labels]) for pair in pairs])
    close(layer(pairs, labels), expected)


def attend(mha: nn.MultiheadAttention, queries: Tensor, keys: Tensor, *, zero: bool) -> Tensor:
    """Multi-head attention in words; ``zero``: with a key and value of zeros."""
    width = queries.shape[-1]
    q, k, v = (
        F.linear(x, w, b)
        for x, w, b in zip((queries, keys, keys), mha.in_proj_weight.chunk(3), mha.in_proj_bias.chunk(3), strict=True)
    )
    if zero:
        k, v = torch.cat([k, k.new_zeros(1, width)]), torch.cat([v, v.new_zeros(1, width)])
    size = width // mha.num_heads
    heads = []
    for head in range(mha.num_heads):
        part = slice(head * size, (head + 1) * size)
        weights = (q[:, part] @ k[:, part].T / math.sqrt(size)).softmax(-1)
        heads.append(weights @ v[:, part])
    return mha.out_proj(torch.cat(heads, dim=-1))


@pytest.mark.parametrize("n_keys", [0, 1, 7])
def test_a_block_of_the_references_refinement(n_keys: int) -> None:
    block = AttentionBlock(128, ffn_mul=2, dropout=0.3).eval()
    randomise(block)
    queries, keys = torch.randn(5, 128), torch.randn(n_keys, 128)
    refined = queries + attend(block.read.mha, block.norm_read(queries), keys, zero=True)
    feed = block.ffn[3](F.gelu(block.ffn[0](refined)))
    close(block(queries, keys), refined + block.norm_ffn(feed), 1e-4)


def test_a_block_of_the_papers_refinement() -> None:
    block = PaperBlock(128, ffn_mul=2, dropout=0.3).eval()
    randomise(block)
    queries, keys = torch.randn(5, 128), torch.randn(7, 128)
    x = queries + attend(block.cross, block.norms[0](queries), keys, zero=False)
    own = block.norms[1](x)
    x = x + attend(block.own, own, own, zero=False)
    close(block(queries, keys), x + ffn(block.ffn, block.norms[2](x)), 1e-4)


def test_refinements_repeat_their_blocks() -> None:
    queries, keys = torch.randn(5, D), torch.randn(7, D)
    ours = Refinement(D, blocks=2, ffn_mul=2, dropout=0.3).eval()
    close(ours(queries, keys), ours.output(ours.blocks[1](ours.blocks[0](queries, keys), keys)))
    paper = PaperRefinement(D, blocks=2, ffn_mul=2, dropout=0.3).eval()
    close(paper(queries, keys), paper.blocks[1](paper.blocks[0](queries, keys), keys))


# --- selection ------------------------------------------------------------------------------------------------


def make_window(n: int, n_labels: int, keep: Keep | None) -> Window:
    pairs = np.argwhere(~np.eye(n, dtype=bool))
    spans = np.array([[index, index + 1] for index in range(n)])
    return Window(((1,),) * n, spans, pairs, tuple(LABELS[:n_labels]), keep)


@pytest.mark.parametrize("top_k", [None, 1, 2, 3, 9])
@pytest.mark.parametrize("at_once", [1, 40, 2**22])
def test_selection_equals_a_loop(monkeypatch: pytest.MonkeyPatch, top_k: int | None, at_once: int) -> None:
    monkeypatch.setattr(selection, "NUMBERS_AT_ONCE", at_once)
    rng = np.random.default_rng(1)
    heads, tails = rng.random((5, 3)) < 0.7, rng.random((5, 3)) < 0.7
    thresholds = np.array([0.2, 0.5, 0.8], np.float32)
    window = make_window(5, 3, Keep(thresholds, heads, tails, top_k))
    logits = torch.randn(len(window.pairs), 3)
    probabilities = logits.sigmoid().tolist()
    expected = {}
    for row, (head, tail) in enumerate(window.pairs.tolist()):
        fitting = [
            (-probabilities[row][c], c)
            for c in range(3)
            if heads[head, c] and tails[tail, c] and probabilities[row][c] >= thresholds[c]
        ]
        expected |= {(row, c): -score for score, c in sorted(fitting)[:top_k]}
    found = select(lambda rows: logits[rows], window, width=10, device=torch.device("cpu"))
    triples = zip(found.pairs.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True)
    assert {(row, c): score for row, c, score in triples} == pytest.approx(expected)


def test_equal_scores_keep_the_first_label() -> None:
    allowed = np.ones((3, 4), dtype=bool)
    window = make_window(3, 4, Keep(np.zeros(4, np.float32), allowed, allowed, 2))
    logits = torch.zeros(len(window.pairs), 4)
    found = select(lambda rows: logits[rows], window, width=10, device=torch.device("cpu"))
    assert found.labels.reshape(-1, 2).tolist() == [[0, 1]] * len(window.pairs)


def test_selection_needs_what_to_keep() -> None:
    with pytest.raises(ValueError, match="keep of a window is None"):
        select(lambda rows: torch.zeros(2, 1), make_window(2, 1, None), width=1, device=torch.device("cpu"))


# --- networks -------------------------------------------------------------------------------------------------

OPTIONS: list[dict[str, Any]] = [
    {},
    *({"scorer": name} for name in ("dot_thresh", "dot_norm", "concat_proj")),
    {"span_marker_mode": "markerv2"},
    *({"subtoken_pooling": name} for name in ("last", "mean", "sum", "first_last")),
    *({"label_embed_strategy": name} for name in ("label", "ent_token")),
    {"hidden_size": 32},
    {"refine_relation": True},
    {"refine_prompt": True},
    {"refine_relation": True, "refine_prompt": True, "scorer": "concat_proj"},
    {"refinement": "paper", "refine_relation": True},
    {"refinement": "paper", "refine_prompt": True},
    {"refinement": "paper", "refine_relation": True, "refine_prompt": True},
]


def make_windows(network: Any, sizes: tuple[int, ...] = (4, 9, 2), n_labels: int = 3) -> list[Window]:
    rng = np.random.default_rng(2)
    windows = []
    for size in sizes:
        words = tuple(network.pieces(rng.choice([*WORDS, "zebra"], size).tolist()))
        spans = np.array([[0, 1], [size - 2, size]])
        allowed = np.ones((2, n_labels), dtype=bool)
        keep = Keep(np.zeros(n_labels, np.float32), allowed, allowed)
        windows.append(Window(words, spans, np.array([[0, 1], [1, 0]]), tuple(LABELS[:n_labels]), keep))
    return windows


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_form_runs_trains_and_predicts_its_logits(
    encoder_folders: dict[str, Path], options: dict[str, Any]
) -> None:
    settings = {"hidden_size": 64, "dropout": 0.0, **options}
    network: Any = checkpoint.new("prompt", encoder_folders["bert"], settings=settings).network
    windows = make_windows(network)
    with torch.no_grad():
        logits = network(windows)
    assert [scores.shape for scores in logits] == [(2, 3)] * 3
    for window, scores, found in zip(windows, logits, network.predict(windows), strict=True):
        close(torch.from_numpy(found.scores).reshape(2, 3), scores.sigmoid())
        with torch.no_grad():
            close(network([window])[0], scores)
    network.train()
    sum(scores.square().sum() for scores in network(windows)).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # With no pair to attend to, the reference's labels have queries and keys that nothing depends on.
    assert not [name for name in silent if not name.startswith(("refine_labels.blocks", "encoder.embeddings"))]


@pytest.mark.parametrize("form", ["reference", "paper"])
def test_refined_pairs_depend_on_what_they_read(encoder_folders: dict[str, Path], form: str) -> None:
    settings = {"hidden_size": 64, "dropout": 0.0, "refinement": form, "refine_relation": True}
    network: Any = checkpoint.new("prompt", encoder_folders["bert"], settings=settings).network
    randomise(network)
    words, labels = torch.randn(6, 64), torch.randn(3, 64)
    (window,) = make_windows(network, (6,))
    with torch.no_grad():
        scores = network._scorers([window], [words], [labels])[0](slice(None))
        refine = network.refine_pairs
        entities = network.marker(words, torch.from_numpy(window.spans))
        pairs = torch.stack([torch.cat([entities[h], entities[t]]) for h, t in window.pairs.tolist()])
        pairs = ffn(network.pair_layer.out_project, pairs)
        expected = refine(pairs, words if form == "reference" else labels) @ labels.T
    close(scores, expected, 1e-4)


def test_labels_of_the_references_refinement_see_no_pair(encoder_folders: dict[str, Path]) -> None:
    settings = {"hidden_size": 64, "dropout": 0.0, "refine_prompt": True}
    network: Any = checkpoint.new("prompt", encoder_folders["bert"], settings=settings).network
    labels = torch.randn(3, 64)
    expected = network.refine_labels(labels, labels[:0])
    for mode in (True, False):  # also in training, where the reference shows it the answers
        close(network.train(mode)._refined_labels(labels, lambda rows: torch.randn(2, 256)), expected)


def test_the_prompt_is_marker_and_label_in_turn(new_checkpoint: Callable[..., Path]) -> None:
    network: Any = checkpoint.load(new_checkpoint("prompt")).network
    rel, sep = network.pieces.token_id("[REL]"), network.pieces.token_id("[SEP]")
    founder, located = network.pieces(["founder", "located in"])
    assert network.prompt(["founder", "located in"]) == [(rel,), founder, (rel,), located, (sep,)]
    assert len(located) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", ["bert", "deberta"])
def test_networks_do_not_depend_on_the_batch(kind: str, encoder: str, new_checkpoint: Callable[..., Path]) -> None:
    network: Any = checkpoint.load(new_checkpoint(kind, encoder)).network
    windows = make_windows(network, (4, 30, 2, 17))
    together = network.predict(windows)
    for window, selected in zip(windows, together, strict=True):
        (alone,) = network.predict([window])
        np.testing.assert_allclose(alone.scores, selected.scores, atol=1e-5)
        assert (alone.pairs == selected.pairs).all()
    with torch.no_grad():
        for selected, logits in zip(together, network(windows), strict=True):
            np.testing.assert_allclose(selected.scores, logits.sigmoid().numpy().ravel(), atol=1e-5)


# --- the anchored network -------------------------------------------------------------------------------------


def mean_vector(network: Any, elements: list[tuple[int, ...]]) -> Tensor:
    """The encoder's vector of some elements: the mean over them of the mean over pieces."""
    flat = [piece for element in elements for piece in element]
    hidden = network.encoder(input_ids=torch.tensor([flat])).last_hidden_state[0]
    parts = hidden.split([len(element) for element in elements])
    return torch.stack([part.mean(0) for part in parts if len(part)]).mean(0)


@pytest.mark.parametrize("encoder", ["bert", "deberta"])
def test_an_untrained_anchored_network_is_the_encoders_cosine(encoder_folders: dict[str, Path], encoder: str) -> None:
    network: Any = checkpoint.new("anchored", encoder_folders[encoder]).network
    pieces = network.pieces(["alice", "founded", "acme", "in", "zebra", "\n", "paris"])
    first, last = network.pieces.prefix, network.pieces.suffix
    spans, pairs = np.array([[0, 1], [2, 3], [4, 5]]), np.argwhere(~np.eye(3, dtype=bool))
    window = Window(tuple(pieces), spans, pairs, tuple(LABELS))
    with torch.no_grad():
        (logits,) = network([window])
        text = mean_vector(network, [first, *pieces, last])
        labels = [mean_vector(network, [first + pieces + last]) for pieces in network.pieces(LABELS)]
        cosine = torch.stack([F.cosine_similarity(text, label, dim=0) for label in labels])
    close(logits, (14 * cosine - 5).expand(len(pairs), -1), 1e-4)
    assert logits.argsort(-1).tolist() == [cosine.argsort().tolist()] * len(pairs)


def test_anchored_scores_are_the_equation(new_checkpoint: Callable[..., Path]) -> None:
    network: Any = checkpoint.load(new_checkpoint("anchored")).network
    words = tuple(network.pieces(["alice", "founded", "acme", "\n", "in", "zebra", "near", "paris"]))
    spans, pairs = np.array([[0, 1], [2, 5], [7, 8]]), np.argwhere(~np.eye(3, dtype=bool))
    window = Window(words, spans, pairs, tuple(LABELS))
    reach, context = network.context.reach, network.context

    def nearness(table: Tensor, span: list[int], position: int) -> Tensor:
        before, after = max(span[0] - position, 0), max(position - span[1] + 1, 0)
        return table[reach - min(before, reach) if before else reach + min(after, reach)]

    with torch.no_grad():
        (logits,) = network([window])
        (vectors,), labels = network.encode([window]), network.encode_labels(LABELS)
        entities = [vectors[start + 1 : end + 1].mean(0) for start, end in spans.tolist()]
        anchors = F.normalize(labels, dim=-1)
        role_size = network.roles.entity.out_features // 2
        for (h, t), row in zip(pairs.tolist(), logits, strict=True):
            weights = []
            for position, word in enumerate(vectors, start=-1):  # the encoder's first token is word -1
                weight = (context.query_head(entities[h]) + context.query_tail(entities[t])) @ word
                weight = weight / math.sqrt(len(word)) + nearness(context.nearness[0], spans[h].tolist(), position)
                weight = weight + nearness(context.nearness[1], spans[t].tolist(), position)
                empty = 0 <= position < len(words) and not words[position]
                weights.append(torch.tensor(-torch.inf) if empty else weight)
            about = torch.stack(weights).softmax(0) @ vectors
            own = network.relatedness
            hidden = F.gelu(own.head(entities[h]) + own.tail(entities[t]) + own.context(about))
            pair = F.normalize(about, dim=-1)
            for c in range(len(LABELS)):
                as_head = network.roles.entity(entities[h])[:role_size]
                as_tail = network.roles.entity(entities[t])[role_size:]
                wanted_head, wanted_tail = network.roles.label(labels[c]).chunk(2)
                roles = (as_head @ wanted_head + as_tail @ wanted_tail) / math.sqrt(role_size)
                likeness = [20 * F.cosine_similarity(entities[side], labels[c], dim=0) for side in (h, t)]
                roles = roles + network.roles.own @ torch.stack(likeness)
                score = network.log_scale.exp() * pair @ anchors[c] + roles
                close(row[c : c + 1], score + own.out(hidden) + network.bias, 1e-4)


def test_labels_of_the_anchored_network_are_remembered_but_not_for_too_long(
    new_checkpoint: Callable[..., Path],
) -> None:
    network: Any = checkpoint.load(new_checkpoint("anchored")).network
    with torch.no_grad():
        first = network.encode_labels(LABELS)
        close(network.encode_labels(LABELS[::-1]).flip(0), first)
        assert set(network._label_cache) == set(LABELS)
        network.train()
        assert not network._label_cache
        network.encoder.embeddings.word_embeddings.weight.mul_(2)
        network.eval()
        assert (network.encode_labels(LABELS) - first).abs().max() > 1e-3


def test_a_label_longer_than_the_encoder_is_cut_by_the_anchored_network(
    new_checkpoint: Callable[..., Path],
) -> None:
    network: Any = checkpoint.load(new_checkpoint("anchored")).network
    with torch.no_grad():
        assert network.encode_labels([" ".join(["paris"] * 500)]).isfinite().all()


def test_labels_without_pieces_score_finitely(kind: str, new_checkpoint: Callable[..., Path]) -> None:
    nlp = make_nlp(new_checkpoint(kind), labels=["\u200b", "founder"])
    doc = nlp(random_docs(nlp, 5)[4])
    assert len(scores_of(doc)) == 2 * 4 * 3
    assert all(0 <= score <= 1 for score in scores_of(doc).values())
