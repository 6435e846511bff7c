"""Training of ``glirel``: what is shown, the loss and its gradient, the optimizer's step, ``spacy train``."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import spacy
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from spacy.cli.train import train
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from thinc.api import Adam
from torch import nn

from spacy_ie_moe.glirel.batch import Window
from spacy_ie_moe.glirel.plan import Planner
from spacy_ie_moe.glirel.teaching import Teacher
from spacy_ie_moe.glirel.training import (
    Loss,
    Sampling,
    close_under_symmetry,
    make_targets,
)
from spacy_ie_moe.relations import make_relation
from spacy_ie_moe.torch_wrapper import Codec, Learning, warmup_cosine, wrap_network

from .conftest import KINDS, NO_CHECKPOINT, Entity, make_doc, make_nlp, random_docs, scores_of

CONFIGS = Path(__file__).parent.parent / "configs"

SENTENCES: list[tuple[str, list[Entity], list[tuple[int, int, str]]]] = [
    ("alice founded acme", [(0, 1, "PER"), (2, 3, "ORG")], [(0, 1, "founder")]),
    ("globex founded by bob", [(0, 1, "ORG"), (3, 4, "PER")], [(1, 0, "founder")]),
    ("carol married dave", [(0, 1, "PER"), (2, 3, "PER")], [(0, 1, "spouse"), (1, 0, "spouse")]),
    ("smith met jones in rome", [(0, 1, "PER"), (2, 3, "PER"), (4, 5, "LOC")], [(0, 1, "met"), (1, 0, "met")]),
    ("acme located in berlin", [(0, 1, "ORG"), (3, 4, "LOC")], [(0, 1, "located in")]),
    ("paris river near london", [(0, 2, "LOC"), (3, 4, "LOC")], []),
    ("bob works for globex", [(0, 1, "PER"), (3, 4, "ORG")], [(0, 1, "works for")]),
    ("dave left rome", [(0, 1, "PER"), (2, 3, "LOC")], []),
]


def make_gold(nlp: Language) -> list[Doc]:
    docs = []
    for text, ents, relations in SENTENCES:
        doc = make_doc(nlp, text, ents)
        doc._.relations = [make_relation(doc.ents[head], doc.ents[tail], label) for head, tail, label in relations]
        docs.append(doc)
    return docs


def make_examples(nlp: Language) -> list[Example]:
    examples = []
    for gold in make_gold(nlp):
        ents = [(ent.start, ent.end, ent.label_) for ent in gold.ents]
        examples.append(Example(make_doc(nlp, [token.text for token in gold], ents), gold))
    return examples


def found_in(nlp: Language) -> list[set[tuple[Any, ...]]]:
    docs = nlp.pipe([eg.predicted.copy() for eg in make_examples(nlp)])
    return [set(scores_of(doc)) for doc in docs]


def gold_in(nlp: Language) -> list[set[tuple[Any, ...]]]:
    return [set(scores_of(doc)) for doc in make_gold(nlp)]


def make_trainable(kind: str, encoder: Path, **config: Any) -> Language:
    sizes: dict[str, Any] = {"hidden_size": 48, "max_len": None} if kind == "prompt" else {"role_size": 8}
    model = {"checkpoint": None, "encoder": str(encoder), "network": kind, "settings": {**sizes, "dropout": 0.0}}
    model.update(config.pop("model", {}))
    sampling = {"drop": False, **config.pop("sampling", {})}
    options = {"labels": None, "threshold": 0.5, **config}
    return make_nlp(NO_CHECKPOINT, sampling=sampling, model=model, **options)


@pytest.mark.parametrize("encoder", ["bert", "deberta"])
def test_eight_sentences_are_learnt_by_heart(
    kind: str, encoder: str, encoder_folders: dict[str, Path], tmp_path: Path
) -> None:
    spacy.util.fix_random_seed(1)
    nlp = make_trainable(kind, encoder_folders[encoder], loss={"reduction": "mean"})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    component: Any = nlp.get_pipe("glirel")
    assert component.labels == ("founder", "located in", "met", "spouse", "works for")
    optimizer = Adam(learn_rate=0.002, L2=0.0, grad_clip=1.0)
    losses = []
    while not losses or (losses[-1] > 0.0005 and len(losses) < 1000):
        losses.append(nlp.update(examples, sgd=optimizer)["glirel"])
    assert losses[-1] < 0.1 * losses[0]
    assert found_in(nlp) == gold_in(nlp)
    scores = nlp.evaluate(make_examples(nlp))
    assert scores["rel_micro_f"] == 1.0
    # Saved, loaded and trained on, it goes on from where it was.
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    assert found_in(again) == gold_in(nlp)
    resumed = again.resume_training(sgd=Adam(learn_rate=0.0001, L2=0.0, grad_clip=1.0))
    loss = again.update(make_examples(again), sgd=resumed)["glirel"]
    assert loss < 0.2 * losses[0]
    assert found_in(again) == gold_in(nlp)


def test_what_is_predicted_follows_what_is_learnt(kind: str, encoder_folders: dict[str, Path]) -> None:
    # Label vectors and fast copies of the network are remembered; training must forget them.
    nlp = make_trainable(kind, encoder_folders["bert"], labels=["founder", "spouse"])
    component: Any = nlp.get_pipe("glirel")
    component.threshold = 0
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    optimizer = Adam(learn_rate=0.001)
    seen = []
    for _ in range(3):
        seen.append(scores_of(nlp(make_examples(nlp)[3].predicted)))
        nlp.update(examples, sgd=optimizer)
    fresh = make_nlp(NO_CHECKPOINT, labels=["founder", "spouse"]).from_bytes(nlp.to_bytes())
    last = scores_of(nlp(make_examples(nlp)[3].predicted))
    assert last == pytest.approx(scores_of(fresh(make_examples(fresh)[3].predicted)), abs=1e-6)
    for earlier, later in zip(seen, [*seen[1:], last], strict=True):
        assert earlier != pytest.approx(later, rel=1e-3, abs=0)


def test_documents_without_pairs_teach_nothing(encoder_folders: dict[str, Path]) -> None:
    nlp = make_trainable("anchored", encoder_folders["bert"])
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    for text in ("", "alice"):
        docs = [make_doc(nlp, text, [(0, 1, "PER")] if text else []) for _ in range(2)]
        assert nlp.update([Example(*docs)], sgd=Adam(0.001)) == {"glirel": 0.0}


def test_training_needs_relations(encoder_folders: dict[str, Path]) -> None:
    nlp = make_trainable("anchored", encoder_folders["bert"])
    examples = [Example(doc, doc) for doc in random_docs(nlp, 3)]
    with pytest.raises(ValueError, match=r"have no Doc\._\.relations"):
        nlp.initialize(lambda: examples)


def test_a_gold_label_that_was_not_initialised_is_taught_by_its_name(nlp: Language) -> None:
    docs = make_gold(nlp)[:1]
    docs[0]._.relations[0]["label"] = "owner"
    for batch_labels in (None, 1):
        (shown,) = prepare(nlp, docs, ["founder"], batch_labels=batch_labels)
        assert shown[0, 1, 2, 3, "owner"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_labels": 0}, "sampling.max_labels is 0; expected a whole number"),
        ({"max_negatives": -1}, "sampling.max_negatives is -1"),
        ({"symmetric": "spouse"}, "sampling.symmetric is 'spouse'; expected a list"),
    ],
)
def test_wrong_samplings_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Teacher(options, {}, ["founder"], random.Random(0))


def test_a_rate_of_zero_leaves_parameters_as_they_are(encoder_folders: dict[str, Path]) -> None:
    nlp = make_trainable("anchored", encoder_folders["bert"], model={"group_rates": {"encoder.": 0.0, "roles.": 0.0}})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    network: Any = nlp.get_pipe("glirel").bundle.network
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    optimizer = Adam(learn_rate=0.01)
    for _ in range(3):
        nlp.update(examples, sgd=optimizer)
    changed = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed and not [name for name in changed if name.startswith(("encoder.", "roles."))]


@pytest.mark.parametrize("options", [({"unheard_of": 1}, {}), ({}, {"unheard_of": 1})])
def test_wrong_options_are_named(options: tuple[dict[str, Any], dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="has the option 'unheard_of'; expected"):
        Teacher(*options, ["founder"], random.Random(0))


def test_documents_of_which_nothing_is_annotated_teach_nothing(encoder_folders: dict[str, Path]) -> None:
    nlp = make_trainable("anchored", encoder_folders["bert"], sampling={"drop": True})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    examples[7].reference.user_data["annotated_labels"] = []
    assert nlp.update(examples[7:], sgd=Adam(0.001)) == {"glirel": 0.0}


def test_long_documents_are_learnt_in_windows(kind: str, encoder_folders: dict[str, Path]) -> None:
    nlp = make_trainable(kind, encoder_folders["bert"])
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    words = ["river"] * 300
    words[0], words[299], words[297] = "alice", "acme", "bob"
    doc = make_doc(nlp, words, [(0, 1, "PER"), (297, 298, "PER"), (299, 300, "ORG")])
    doc._.relations = [make_relation(doc.ents[row], doc.ents[2], "founder") for row in (0, 1)]
    component: Any = nlp.get_pipe("glirel")
    lesson = component._teacher.prepare([doc], component.bundle.network, Planner([], None))
    assert [target.sum() for target in lesson.targets] == [1], "the pair that no window holds is left out"
    assert nlp.update([Example(make_doc(nlp, words, []), doc)], sgd=Adam(0.001))["glirel"] > 0


# --- gradients and steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"reduction": "mean", "ranking": 1.0, "direction": 0.3, "bce": 0.6}], ids=str)
def test_gradients_through_thinc_are_those_of_autograd(
    kind: str, options: dict[str, Any], new_checkpoint: Callable[..., Path]
) -> None:
    nlp = make_nlp(new_checkpoint(kind))
    component: Any = nlp.get_pipe("glirel")
    network = component.bundle.network
    labels = ["founder", "spouse", "located in", "works for", "met"]
    teacher = Teacher({"drop": False}, options, labels, random.Random(0))
    lesson = teacher.prepare(make_gold(nlp), network, Planner([], None))
    torch.manual_seed(4)
    logits, backprop = component.model.begin_update(lesson.windows)
    value, gradients = teacher.get_loss(lesson, logits)
    backprop(gradients)
    ours = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    torch.manual_seed(4)
    loss = teacher.loss(lesson.windows, network(lesson.windows), [torch.from_numpy(t) for t in lesson.targets])
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-5)
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(ours[name], parameter.grad, atol=1e-5, rtol=1e-3)
    assert max(float(grad.abs().max()) for grad in ours.values()) > 1e-3


class SmallNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        return [self.head(self.norm(self.encoder(x)))]


class SmallCodec(Codec[Any]):
    def load(self) -> Any:
        torch.manual_seed(0)
        return SimpleNamespace(network=SmallNetwork())


@pytest.mark.parametrize("clip", [0.0, 0.01, 1000.0])
def test_a_step_is_adamw_with_clipping_groups_and_decay(clip: float) -> None:
    model = wrap_network("small", SmallCodec(), learning=Learning({"encoder.": 0.1}))
    network: Any = model.shims[0].bundle.network  # type: ignore[attr-defined]
    eps, rate, decay = 0.5, 0.2, 0.3  # a large eps, so that the size of gradients shows
    optimizer = Adam(rate, L2=decay, grad_clip=clip, eps=eps, L2_is_weight_decay=True)
    (logits,), backprop = model.begin_update(torch.randn(5, 3))
    backprop([np.ones_like(logits)])
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
    scale = min(1.0, clip / norm) if clip else 1.0
    assert clip != 0.01 or scale < 0.1
    model.finish_update(optimizer)
    for name, parameter in network.named_parameters():
        if name.startswith("frozen"):
            assert (parameter == before[name]).all()
            continue
        step = rate * (0.1 if name.startswith("encoder.") else 1.0)
        gradient = gradients[name] * scale
        expected = before[name] * (1 - step * decay if parameter.ndim > 1 else 1)
        expected = expected - step * gradient / (gradient.abs() + eps)
        torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=1e-4)
        assert parameter.grad is None or not parameter.grad.any()


def test_steps_follow_the_schedule_of_spacys_optimizer() -> None:
    model = wrap_network("small", SmallCodec())
    network: Any = model.shims[0].bundle.network  # type: ignore[attr-defined]
    optimizer = Adam(warmup_cosine(1.0, 4, warmup=0.5), L2=0.0, grad_clip=0.0)
    for expected in (0.5, 1.0, 1.0, 0.5, 0.0):
        before = network.head.bias.detach().clone()
        (logits,), backprop = model.begin_update(torch.randn(5, 3))
        backprop([np.ones_like(logits)])
        model.finish_update(optimizer)
        optimizer.step_schedules()
        moved = float((network.head.bias.detach() - before).abs().max())
        assert moved == pytest.approx(expected, abs=1e-3)


def test_warmup_and_cosine() -> None:
    rates = list(islice(warmup_cosine(2.0, 10, warmup=0.2, final_rate=1.0), 14))
    assert rates[:2] == [1.0, 2.0]
    assert rates[2:10] == pytest.approx([1 + 0.5 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])
    assert rates[10:] == [1.0] * 4
    assert next(warmup_cosine(2.0, 10, warmup=0.0)) == 2.0
    assert list(islice(warmup_cosine(1.0, 4, warmup=1.0), 4)) == [0.25, 0.5, 0.75, 1.0]
    with pytest.raises(ValueError, match=r"warmup is 1\.5; expected a share"):
        next(warmup_cosine(1.0, 4, warmup=1.5))


# --- the loss -------------------------------------------------------------------------------------------------


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def loss_naively(pairs: list[list[int]], logits: Any, target: Any, options: Loss) -> float:
    entropy, ranking, direction, n_gold = 0.0, 0.0, 0.0, 0
    for row, (head, tail) in enumerate(pairs):
        for column, score in enumerate(logits[row]):
            if target[row][column] == 1:
                n_gold += 1
                entropy += options.positive_weight * softplus(-score)
                rivals = [math.exp(s) for s, t in zip(logits[row], target[row], strict=True) if t == 0]
                total = math.exp(score) + sum(rivals)
                ranking += -math.log(math.exp(score) / total)
                if [tail, head] in pairs:
                    back = pairs.index([tail, head])
                    if target[back][column] == 0:
                        direction += softplus(logits[back][column] - score)
            elif target[row][column] == 0:
                entropy += softplus(score)
    if options.reduction == "mean":
        entropy /= len(pairs)
    n_gold = n_gold or 1
    return options.bce * entropy + (options.ranking * ranking + options.direction * direction) / n_gold


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.6, 1.0, 0.3), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
@given(seed=st.integers(0, 1000))
def test_the_loss_equals_a_loop(reduction: Any, weights: tuple[float, float, float], seed: int) -> None:
    bce, ranking, direction = weights
    loss = Loss(bce=bce, positive_weight=1.7, reduction=reduction, ranking=ranking, direction=direction)
    rng = np.random.default_rng(seed)
    windows, logits, targets, expected = [], [], [], []
    for n in rng.integers(2, 5, size=rng.integers(1, 4)):
        pairs = np.argwhere(~np.eye(n, dtype=bool))
        pairs = pairs[rng.random(len(pairs)) < 0.8] if n > 2 else pairs
        if not len(pairs):
            continue
        windows.append(Window((), np.zeros((n, 2), int), pairs, ("a", "b", "c")))
        logits.append(torch.randn(len(pairs), 3, generator=torch.Generator().manual_seed(seed)))
        target = rng.choice([0, 0, 0, 1, -1], size=(len(pairs), 3)).astype(np.float32)
        targets.append(torch.from_numpy(target))
        expected.append(loss_naively(pairs.tolist(), logits[-1].tolist(), target.tolist(), loss))
    if windows:
        assert float(loss(windows, logits, targets)) == pytest.approx(sum(expected) / len(expected), rel=1e-4, abs=1e-5)


def test_a_label_without_rivals_has_finite_gradients() -> None:
    logits = torch.zeros(2, 1, requires_grad=True)
    window = Window((), np.zeros((2, 2), int), np.array([[0, 1], [1, 0]]), ("a",))
    Loss(ranking=1.0, direction=1.0)([window], [logits], [torch.tensor([[1.0], [0.0]])]).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_what_is_not_known_has_no_gradient() -> None:
    logits = torch.randn(2, 3, requires_grad=True)
    window = Window((), np.zeros((2, 2), int), np.array([[0, 1], [1, 0]]), ("a", "b", "c"))
    target = torch.tensor([[1.0, -1, 0], [-1, -1, -1]])
    Loss(ranking=1.0, direction=1.0)([window], [logits], [target]).backward()
    assert logits.grad is not None
    assert (logits.grad != 0).tolist() == [[True, False, True], [False, False, False]]


def test_the_default_loss_is_the_references() -> None:
    logits, gold = torch.randn(2, 3), torch.tensor([[1.0, 0, 0], [0, 0, 0]])
    window = Window((), np.zeros((2, 2), int), np.array([[0, 1], [1, 0]]), ("a", "b", "c"))
    expected = F.binary_cross_entropy_with_logits(logits, gold, weight=1 + gold, reduction="sum")
    assert float(Loss()([window], [logits], [gold])) == pytest.approx(float(expected), rel=1e-5)


def test_an_unknown_reduction_is_named() -> None:
    with pytest.raises(ValueError, match=r"loss\.reduction is 'max'; expected 'sum' or 'mean'"):
        Loss(reduction="max")  # type: ignore[arg-type]


# --- what is shown --------------------------------------------------------------------------------------------

universe = [f"label {index}" for index in range(30)]


@given(st.sets(st.sampled_from(universe), max_size=12), st.integers(1, 30), st.booleans(), st.integers(0, 99))
def test_labels_of_an_instance(gold: set[str], max_labels: int, shuffle: bool, seed: int) -> None:
    sampling = Sampling(max_labels=max_labels, shuffle=shuffle, drop=False)
    labels = sampling.sample_labels(gold, universe, random.Random(seed))
    assert len(labels) == len(set(labels)) == max_labels
    assert set(labels) >= gold or set(labels) <= gold
    if not shuffle:
        assert set(labels[: len(gold)]) <= gold
    dropped = Sampling(max_labels=max_labels, shuffle=shuffle, drop=True)
    fewer = dropped.sample_labels(gold, universe, random.Random(seed))
    assert fewer == labels[: len(fewer)]
    assert fewer


def test_labels_are_dropped_at_random_gold_ones_too() -> None:
    sampling, rng = Sampling(max_labels=10), random.Random(0)
    lengths = [len(sampling.sample_labels({"label 3"}, universe, rng)) for _ in range(400)]
    assert set(lengths) == set(range(1, 11))
    without = sum("label 3" not in sampling.sample_labels({"label 3"}, universe, rng) for _ in range(400))
    assert 80 < without < 280


def test_a_batch_may_draw_its_labels_from_a_pool() -> None:
    rng = random.Random(0)
    assert Sampling().sample_pool({"label 1"}, universe, rng) == universe
    pool = Sampling(batch_labels=5).sample_pool({"label 1", "label 2"}, universe, rng)
    assert len(set(pool)) == 5 and {"label 1", "label 2"} <= set(pool)
    assert Sampling(batch_labels=1).sample_pool({"label 1", "label 2"}, universe, rng) == ["label 1", "label 2"]


@given(st.integers(2, 6), st.none() | st.integers(0, 8), st.integers(0, 99))
def test_pairs_of_an_instance(n: int, max_negatives: int | None, seed: int) -> None:
    pairs = np.argwhere(~np.eye(n, dtype=bool))
    gold = {(0, 1): frozenset({"a"})}
    shown = Sampling(max_negatives=max_negatives).sample_pairs(pairs, gold, random.Random(seed)).tolist()
    assert shown == [pair for pair in pairs.tolist() if pair in shown], "in order, each once"
    assert [0, 1] in shown and [1, 0] in shown
    others = len(pairs) - 2
    assert len(shown) - 2 == (others if max_negatives is None else min(others, max_negatives))


def test_targets() -> None:
    pairs = np.array([[0, 1], [1, 0], [1, 2]])
    gold = {(0, 1): frozenset({"a", "b"}), (1, 2): frozenset({"c", "not shown"})}
    targets = make_targets(pairs, ["c", "a"], gold, {(1, 0), (1, 2)})
    assert targets.tolist() == [[0, 1], [-1, -1], [1, -1]]


def test_symmetric_gold_holds_both_ways() -> None:
    gold = {(0, 1): frozenset({"director", "spouse"}), (2, 0): frozenset({"other"})}
    assert close_under_symmetry(gold, ["spouse"]) == {
        (0, 1): {"director", "spouse"},
        (1, 0): {"spouse"},
        (2, 0): {"other"},
    }


def prepare(nlp: Language, docs: list[Doc], labels: list[str], **sampling: Any) -> list[Any]:
    """What a teacher shows: for each window a dict of (head, tail, text of label) to target."""
    options = {"shuffle": False, "drop": False, **sampling}
    teacher = Teacher(options, {}, labels, random.Random(0))
    component: Any = nlp.get_pipe("glirel")
    lesson = teacher.prepare(docs, component.bundle.network, Planner([], None))
    return [
        {
            (*window.spans[h].tolist(), *window.spans[t].tolist(), label): float(target[row, column])
            for row, (h, t) in enumerate(window.pairs.tolist())
            for column, label in enumerate(window.labels)
        }
        for window, target in zip(lesson.windows, lesson.targets, strict=True)
    ]


@pytest.fixture
def nlp(new_checkpoint: Callable[..., Path]) -> Language:
    return make_nlp(new_checkpoint("anchored"))


def test_lessons_are_gold_and_its_absence(nlp: Language) -> None:
    (shown,) = prepare(nlp, make_gold(nlp)[:1], ["founder", "spouse"])
    assert shown == {
        (0, 1, 2, 3, "founder"): 1,
        (0, 1, 2, 3, "spouse"): 0,
        (2, 3, 0, 1, "founder"): 0,
        (2, 3, 0, 1, "spouse"): 0,
    }


def test_arguments_that_are_no_entities_are_shown(nlp: Language) -> None:
    (doc,) = make_gold(nlp)[:1]
    doc.ents = []
    (shown,) = prepare(nlp, [doc], ["founder"])
    assert shown == {(0, 1, 2, 3, "founder"): 1, (2, 3, 0, 1, "founder"): 0}


def test_the_reverse_of_a_symmetric_relation_is_shown(nlp: Language) -> None:
    docs = make_gold(nlp)
    docs[2]._.relations = docs[2]._.relations[:1]
    (shown,) = prepare(nlp, docs[2:3], ["spouse"], symmetric=["spouse"])
    assert shown == {(0, 1, 2, 3, "spouse"): 1, (2, 3, 0, 1, "spouse"): 1}


def test_ignored_pairs_and_labels_not_looked_for_teach_nothing(nlp: Language) -> None:
    doc, other = make_gold(nlp)[:2]
    doc.user_data["ignored_pairs"] = [(2, 3, 0, 1), (0, 1, 2, 3), (7, 8, 0, 1)]
    (shown,) = prepare(nlp, [doc], ["founder", "spouse"])
    assert shown == {
        (0, 1, 2, 3, "founder"): 1,
        (0, 1, 2, 3, "spouse"): -1,
        (2, 3, 0, 1, "founder"): -1,
        (2, 3, 0, 1, "spouse"): -1,
    }
    other.user_data["annotated_labels"] = ["founder"]
    (shown,) = prepare(nlp, [other], ["founder", "spouse", "located in"])
    assert {key[4] for key in shown} == {"founder"}


def test_wrong_gold_relations_are_named(nlp: Language) -> None:
    (doc,) = make_gold(nlp)[:1]
    doc._.relations[0]["tail_pos"] = [2, 9]
    with pytest.raises(ValueError, match=r"tail_pos of a relation is \[2, 9\]"):
        prepare(nlp, [doc], ["founder"])


# --- spacy train ----------------------------------------------------------------------------------------------


def write_corpus(path: Path) -> None:
    DocBin(docs=make_gold(spacy.blank("en")), store_user_data=True).to_disk(path)


def overrides_for(folder: Path, encoder: Path | None) -> dict[str, Any]:
    write_corpus(folder / "gold.spacy")
    overrides: dict[str, Any] = {
        "paths.train": str(folder / "gold.spacy"),
        "paths.dev": str(folder / "gold.spacy"),
        "training.max_steps": 30,
        "training.eval_frequency": 10,
        "training.optimizer.learn_rate.initial_rate": 0.003,
    }
    return overrides if encoder is None else {**overrides, "paths.encoder": str(encoder)}


def test_spacy_train_with_our_config_and_on_from_there(
    tmp_path: Path, encoder_folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = overrides_for(tmp_path, encoder_folders["bert"])
    train(CONFIGS / "glirel_mini.cfg", tmp_path / "first", overrides=overrides)
    code = (
        "import sys, spacy\n"
        "from spacy.tokens import DocBin\n"
        "nlp = spacy.load(sys.argv[1])\n"
        "docs = list(DocBin(store_user_data=True).from_disk(sys.argv[2]).get_docs(nlp.vocab))\n"
        "nlp.get_pipe('glirel').threshold = 0\n"
        "for doc in nlp.pipe(docs):\n"
        "    print(len(doc._.relations))\n"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "first" / "model-last"), str(tmp_path / "gold.spacy")]
    result = subprocess.run(arguments, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert [int(line) for line in result.stdout.split()] == [2, 2, 2, 6, 2, 2, 2, 2]
    first = last_loss(capsys.readouterr().out)

    config = (CONFIGS / "glirel_mini.cfg").read_text("utf8")
    start = config.index("[components.glirel]")
    end = config.index("[training.optimizer.learn_rate]")
    rate = config[end : config.index("\n\n", end)]
    source = json.dumps(str(tmp_path / "first" / "model-last"))
    resumed = tmp_path / "resumed.cfg"
    resumed.write_text(f"{config[:start]}[components.glirel]\nsource = {source}\n\n{rate}\n", "utf8")
    again = {**overrides_for(tmp_path, None), "training.optimizer.learn_rate.initial_rate": 0.0001}
    train(resumed, tmp_path / "second", overrides=again)
    second = last_loss(capsys.readouterr().out)
    assert second < 1.2 * first
    assert spacy.load(tmp_path / "second" / "model-last").get_pipe("glirel").labels  # type: ignore[attr-defined]


def last_loss(output: str) -> float:
    """The loss in the last row that spaCy's logger printed."""
    rows = [line.split() for line in output.splitlines()]
    return float([row for row in rows if len(row) > 3 and row[0].isdigit() and row[1].isdigit()][-1][2])


@pytest.mark.parametrize("name", ["glirel_mini.cfg", "glirel_mini_refine.cfg", "glirel_paper.cfg"])
def test_configs_name_components_that_are_there(name: str) -> None:
    paths = {"paths.train": "x.spacy", "paths.dev": "x.spacy"}
    if "refine" in name:
        paths["paths.checkpoint"] = "glirel-mini"
    config = spacy.util.load_config(CONFIGS / name, overrides=paths)
    nlp = spacy.util.load_model_from_config(config, auto_fill=False, validate=True)
    assert nlp.pipe_names == ["glirel"]
    assert config["components"]["glirel"]["model"]["network"] in KINDS
