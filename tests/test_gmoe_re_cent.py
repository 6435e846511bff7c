"""Re-Cent: its scores, losses and decoding against loops, its prompts, and labels that it never saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import DocBin
from torch import Tensor

from benchmarks import backbone_loops, study_scores, zero_shot_rte
from benchmarks.backbone_loops import pair_vector, span_vector
from benchmarks.study_scores import Scores, at_thresholds, best_threshold, predict
from spacy_ie_moe.gmoe_rte.backbones import re_cent
from spacy_ie_moe.gmoe_rte.backbones.re_cent import PromptReader, ReCent, choose_arguments
from spacy_ie_moe.gmoe_rte.backbones.sampling import all_spans
from spacy_ie_moe.gmoe_rte.checkpoint import load_sentence_encoder
from spacy_ie_moe.gmoe_rte.experts import RTENetwork
from spacy_ie_moe.gmoe_rte.features import Entity, Extraction, Features, Triplet
from spacy_ie_moe.gmoe_rte.prompts import draw_prompts, join_prompts
from spacy_ie_moe.gmoe_rte.schema import Schema
from spacy_ie_moe.gmoe_rte.sentence_encoder import SentenceEncoder

from .test_gmoe_backbones import LENGTHS, UNTYPED, gold_of, make_features, make_finder, make_network
from .test_gmoe_component import cnn, found_in, make_examples, scores_on, texts_of, train
from .test_gmoe_network import SCHEMA, D, close, one_by_one

Span = tuple[int, int]
SPAN_LIMIT = 3


LOGGED = {"epoch": 0, "step": 8, "score": 0.5, "scores": {"rte_ent_f": 50.0, "rte_rel_f": 50.0, "rte_rel_plus_f": 50.0}}
"""A line of a training's log."""


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# --- equations ----------------------------------------------------------------------------------------------------


class Literal:
    """A sentence's spans, labels and scores, one at a time."""

    def __init__(self, reader: PromptReader, features: Features) -> None:
        assert features.prompts is not None
        (number,) = features.prompts.tolist()
        hidden = F.layer_norm(features.hidden, (D,))
        labels, words = hidden[1 : 1 + number], hidden[1 + number :]
        self.labels = [reader.label(row) / D**0.5 for row in labels]
        self.spans = [
            (start, end)
            for start in range(len(words))
            for end in range(start + 1, len(words) + 1)
            if end - start <= SPAN_LIMIT
        ]
        self.subject = {span: span_vector(reader.subject, words, span) for span in self.spans}
        self.object = {span: span_vector(reader.object, words, span) for span in self.spans}

    def logits(self, vector: Tensor, bias: Tensor) -> Tensor:
        return torch.stack([vector @ label + bias for label in self.labels])

    def types(self, layer: torch.nn.Linear, span: Span) -> Tensor:
        return F.linear(torch.cat([self.subject[span], self.object[span]]), layer.weight, layer.bias)


def bce(logit: Tensor, gold: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logit, torch.tensor(float(gold)))


def literal_loss(backbone: ReCent, features: Features, gold: Extraction) -> Tensor:
    """Half of all roles and half of the pairs of gold and best spans, summed."""
    sentence = Literal(backbone.roles, features)
    spans = [entity[:2] for entity in gold.entities]
    triplets = {(spans[head], spans[tail], label) for head, tail, label, _ in gold.triplets}
    total = torch.zeros(())
    sides = []
    for which, vectors in enumerate((sentence.subject, sentence.object)):
        scores = {span: sentence.logits(vector, backbone.roles.bias[which]) for span, vector in vectors.items()}
        arguments = {(triplet[which], triplet[2]) for triplet in triplets}
        for span, label in product(scores, range(len(sentence.labels))):
            total = total + bce(scores[span][label], (span, label) in arguments) / 2
        chosen = {span for span, _ in arguments}
        for label in range(len(sentence.labels)):
            chosen |= {*sorted(scores, key=lambda span: -scores[span][label])[: backbone.candidates]}
        sides.append([(span, vectors[span]) for span in sorted(chosen)])
    for (head, one), (tail, other) in product(*sides):
        logits = sentence.logits(pair_vector(backbone.pairs.join, one, other), backbone.pairs.bias[0])
        for label, logit in enumerate(logits):
            total = total + bce(logit, (head, tail, label) in triplets) / 2
    if backbone.types is not None:
        for entity in gold.entities:
            logits = sentence.types(backbone.types, entity[:2])
            total = total + F.cross_entropy(logits, torch.tensor(entity.type))
    return total


@pytest.mark.parametrize("schema", [UNTYPED, SCHEMA], ids=["untyped", "typed"])
def test_the_loss_is_the_written_out_one(schema: Schema) -> None:
    network = make_finder("re_cent", schema, mixture=None, candidates=2)
    lengths = (6, 8, 5)
    features, gold = make_features(lengths, "re_cent"), gold_of(lengths, schema)
    assert all(entity.end - entity.start <= SPAN_LIMIT for one in gold for entity in one.entities)
    assert sum(len(extraction.triplets) for extraction in gold) > 2
    expected = [literal_loss(network.backbone, *pair) for pair in zip(one_by_one(features), gold, strict=True)]
    close(network(features, gold)["triplets"], torch.stack(expected).mean(), 1e-4)


def test_the_experts_learn_roles_and_pairs() -> None:
    """ER-Net: subjects and objects of all spans; RE-Net: pairs of gold arguments, in both orders."""
    network = make_finder("re_cent", UNTYPED, mixture="identity")
    entities = [Entity(0, 2, 0), Entity(3, 4, 0), Entity(5, 6, 0)]
    gold = [Extraction(entities, [Triplet(0, 1, 0), Triplet(2, 0, 1), Triplet(0, 1, 2)])]
    features = make_features((6,), "re_cent")
    losses = network(features, gold)
    streams = network._streams(features)
    spans = [entity[:2] for entity in gold[0].entities]
    triplets = {(spans[head], spans[tail], label) for head, tail, label, _ in gold[0].triplets}
    expert: Any = network.experts["entities"]
    sentence = Literal(expert, streams["entities"])
    roles = torch.zeros(())
    for which, vectors in enumerate((sentence.subject, sentence.object)):
        for span, vector in vectors.items():
            for label, logit in enumerate(sentence.logits(vector, expert.bias[which])):
                roles = roles + bce(logit, any(t[which] == span and t[2] == label for t in triplets))
    close(losses["entities"], roles / 2, 1e-4)
    expert = network.experts["relations"]
    sentence = Literal(expert, streams["relations"])
    pairs = torch.zeros(())
    arguments = {span for triplet in triplets for span in triplet[:2]}
    for head, tail in product(arguments, repeat=2):
        vector = pair_vector(expert.pairs.join, sentence.subject[head], sentence.object[tail])
        for label, logit in enumerate(sentence.logits(vector, expert.pairs.bias[0])):
            pairs = pairs + bce(logit, (head, tail, label) in triplets)
    close(losses["relations"], pairs / 2, 1e-4)


@pytest.mark.parametrize("mixture", [None, "gmoe"])
@pytest.mark.parametrize(("width", "size"), [(64, 0.2), (384, 0.2), (384, 1.0)])
@torch.inference_mode()
def test_the_scores_of_an_untrained_network_differ_but_little(width: int, size: float, mixture: str | None) -> None:
    """Where all are alike, it takes hundreds of steps to learn of them; where they are far apart, to unlearn them."""
    network = RTENetwork(width, UNTYPED, backbone="re_cent", backbone_settings={}, mixture=mixture).eval()
    features = replace(features := make_features(LENGTHS, "re_cent", width), hidden=size * features.hidden)
    backbone = network.backbone
    rows = backbone.roles(network._streams(features)["triplets"])
    sentence, *_ = re_cent.sentences_of(features, backbone.max_span)
    vectors = backbone.roles.vectors(rows, sentence, sentence.spans, sentence.spans)
    labels, places = rows.labels[sentence.labels], torch.arange(len(sentence.spans))
    pairs = backbone.pairs.join.scores(backbone.pairs.join.sides(*vectors), places, places, labels)
    for scores in (*backbone.roles.scores(rows, sentence), pairs):
        assert 0.03 < scores.std(0).mean() < 0.5


@pytest.mark.parametrize("schema", [UNTYPED, SCHEMA], ids=["untyped", "typed"])
@torch.inference_mode()
def test_scores_and_types_are_those_of_loops(schema: Schema) -> None:
    network = make_finder("re_cent", schema, mixture=None)
    features = make_features(LENGTHS, "re_cent")
    for part, extraction in zip(one_by_one(features), network.predict(features, 0.43), strict=True):
        spans = [entity[:2] for entity in extraction.entities]
        triplets = {(spans[head], spans[tail], label): score for head, tail, label, score in extraction.triplets}
        expected = backbone_loops.re_cent(network.backbone, part, 0.43).triplets
        assert triplets == pytest.approx(expected, abs=1e-5)
        assert {*spans} == {span for head, tail, _ in expected for span in (head, tail)}
        if network.backbone.types is not None:
            sentence = Literal(network.backbone.roles, part)
            types = [int(sentence.types(network.backbone.types, span).argmax()) for span in spans]
            assert types == [entity.type for entity in extraction.entities]


@given(st.lists(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.9]), min_size=2, max_size=2), min_size=9, max_size=9))
def test_arguments_do_not_overlap_and_none_is_missing(probabilities: list[list[float]]) -> None:
    _, start, end = all_spans(np.array([4]), 3)
    spans = np.stack([start, end], 1)
    with np.errstate(divide="ignore"):
        logits = np.log(np.array(probabilities)) - np.log1p(-np.array(probabilities))
    chosen = choose_arguments(logits, spans, 0.2)
    words = [{*range(*spans[row])} for row in chosen["span"]]
    for (one, a), (other, b) in product(zip(chosen["span"], words, strict=True), repeat=2):
        assert one == other or not a & b
    kept = {(int(row), int(label)) for row, label in zip(chosen["span"], chosen["label"], strict=True)}
    for row, label in product(range(9), range(2)):
        score = probabilities[row][label]
        if score > 0.2 and (row, label) not in kept:
            better = chosen[(chosen["score"] >= score - 1e-9) & (chosen["span"] != row)]
            assert any({*range(*spans[other])} & {*range(*spans[row])} for other in better["span"])


def test_a_span_can_be_the_subject_of_several_relations_and_unknown_pairs_are_no_negatives() -> None:
    gold = re_cent.roles_of(
        Extraction(
            [Entity(0, 1, 0), Entity(2, 3, 0), Entity(4, 5, 0)],
            [Triplet(0, 1, 0), Triplet(0, 1, 1), Triplet(0, 2, 1)],
            frozenset({(1, 2)}),
        )
    )
    spans = np.array([[0, 1], [2, 3], [4, 5]])
    wanted, counted = re_cent.pair_targets(spans, spans, 2, gold)
    assert wanted[0].tolist() == [[0, 0], [1, 1], [0, 1]]
    assert counted.sum() == counted.size - 2 and not counted[1, 2].any()
    certain = torch.full((3, 2), -30.0)
    certain[0] = 30.0
    objects = torch.tensor([[-30.0, -30.0], [30.0, 30.0], [-30.0, 30.0]])
    assert float(re_cent.role_loss((certain, objects), spans, gold)) < 1e-6
    certain[1] = 30.0  # the head of an unknown pair may be a subject
    objects[2] = 30.0  # and its tail an object
    assert float(re_cent.role_loss((certain, objects), spans, gold)) < 1e-6
    certain[2, 0] = 30.0
    assert float(re_cent.role_loss((certain, objects), spans, gold)) > 29


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_span": 0}, "backbone_settings.max_span is 0; expected a whole number of at least 1."),
        ({"candidates": -1}, "backbone_settings.candidates is -1; expected a whole number of at least 0."),
        ({"labels_at_once": 2.5}, "backbone_settings.labels_at_once is 2.5"),
        ({"absent_labels": -0.1}, "backbone_settings.absent_labels is -0.1; expected a number from 0 to 1."),
        ({"span_threshold": 2}, "backbone_settings.span_threshold is 2; expected a number from 0 to 1."),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        make_network("re_cent", **settings)


def test_features_without_prompts_are_refused() -> None:
    features = Features(torch.randn(4, D), np.array([3]))
    with pytest.raises(ValueError, match="the features have no prompts; expected"):
        make_network("re_cent").predict(features, 0.5)


# --- prompts ------------------------------------------------------------------------------------------------------

SENTENCES = st.lists(st.lists(st.integers(0, len(SCHEMA.relations) - 1), max_size=4), min_size=1, max_size=5)


@given(SENTENCES, st.integers(1, 6), st.integers(0, 3), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0]))
def test_prompts_hold_the_labels_of_their_sentences(
    labels: list[list[int]], at_once: int, negatives: int, seed: int, absent: float
) -> None:
    entities = [Entity(0, 1, 0), Entity(2, 3, 0)]
    gold = [Extraction(entities, [Triplet(1, 0, label) for label in sorted({*own})]) for own in labels]
    rng = np.random.default_rng(seed)
    prompts, placed = draw_prompts(gold, SCHEMA, rng, at_once=at_once, negatives=negatives, absent=absent)
    for before, prompt, after in zip(gold, prompts, placed, strict=True):
        own = {SCHEMA.relations[triplet.label] for triplet in before.triplets}
        assert 1 <= len(prompt) == len({*prompt}) <= at_once
        if own & {*prompt}:
            assert absent < 1 or own == {*SCHEMA.relations}
            assert own <= {*prompt} or {*prompt} <= own  # more than fit: only of its own
            assert len({*prompt} - own) <= negatives * len(before.triplets)
        else:
            assert absent > 0 or not own
        expected = {
            # the argument that is first in the text is the head of symmetric ones
            ((0, 1) if label in SCHEMA.symmetric else (1, 0), label)
            for label in own & {*prompt}
        }
        assert {((t.head, t.tail), prompt[t.label]) for t in after.triplets} == expected


def test_negative_labels_are_those_of_the_batch_first() -> None:
    gold = [Extraction([Entity(0, 1, 0), Entity(1, 2, 0)], [Triplet(0, 1, label)]) for label in (0, 2)]
    drawn = [
        {*prompt}
        for seed in range(40)
        for prompt in draw_prompts(gold, SCHEMA, np.random.default_rng(seed), at_once=9, negatives=1)[0]
    ]
    batch = {SCHEMA.relations[0], SCHEMA.relations[2]}
    assert all(prompt <= batch for prompt in drawn)
    assert any(prompt == batch for prompt in drawn) and any(len(prompt) == 1 for prompt in drawn)


def test_sentences_can_be_learnt_without_their_own_labels() -> None:
    gold = [Extraction([Entity(0, 1, 0), Entity(1, 2, 0)], [Triplet(0, 1, 0)])] * 400
    prompts, placed = draw_prompts(gold, SCHEMA, np.random.default_rng(0), at_once=3, negatives=1, absent=0.25)
    without = [prompt for prompt in prompts if SCHEMA.relations[0] not in prompt]
    assert 70 < len(without) < 130 and {len(prompt) for prompt in without} == {1, 2, 3}
    assert all(bool(after.triplets) == (prompt not in without) for prompt, after in zip(prompts, placed, strict=True))


def test_what_several_prompts_find_is_joined() -> None:
    entities = [Entity(0, 1, 0, 0.6), Entity(2, 3, 1, 0.6)]
    better = [Entity(0, 1, 2, 0.9), Entity(4, 5, 1, 0.9)]
    schema = Schema(SCHEMA.entities, ("a", "spouse", "b"), ("spouse",))
    parts = [Extraction(entities, [Triplet(1, 0, 1, 0.6)]), Extraction(better, [Triplet(0, 1, 0, 0.9)])]
    joined = join_prompts(zip((["a", "spouse"], ["b"]), parts, strict=True), schema)
    assert joined.entities == [Entity(0, 1, 2, 0.9), Entity(2, 3, 1, 0.6), Entity(4, 5, 1, 0.9)]
    assert joined.triplets == [Triplet(0, 1, 1, 0.6), Triplet(0, 2, 2, 0.9)]
    assert join_prompts([], schema) == Extraction()


# --- the encoder --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["bert", "deberta"])
def encoder(request: pytest.FixtureRequest, encoder_folders: dict[str, Path]) -> SentenceEncoder:
    torch.manual_seed(0)
    source = str(encoder_folders[request.param])
    return load_sentence_encoder(source, revision=None, mixed_precision=False, prompts=True).network.eval()


PROMPTS = [["founder", "married to"], ["spouse"], []]
TEXTS = [["alice", "founded", "Acme7"], ["bob", "left"], ["carol"]]


def read_whole(encoder: SentenceEncoder, prompt: Sequence[str], words: Sequence[str]) -> Tensor:
    """[1 + labels + words, d] by a direct call."""
    prefix, suffix = encoder.pieces.prefix, encoder.pieces.suffix
    labels = [(encoder.marker, *pieces) for pieces in encoder.pieces(prompt)]
    before = [*prefix, *(piece for label in labels for piece in label), *(suffix if labels else ())]
    pieces = encoder.pieces(words)
    ids = torch.tensor([[*before, *(piece for word in pieces for piece in word), *suffix]])
    hidden = encoder.encoder(input_ids=ids).last_hidden_state[0]
    rows, place = [hidden[0]], len(prefix)
    for label in labels:
        rows.append(hidden[place : place + len(label)].mean(0))
        place += len(label)
    place = len(before)
    for word in pieces:
        rows.append(hidden[place : place + len(word)].mean(0))
        place += len(word)
    return torch.stack(rows)


def test_labels_are_read_before_the_words(encoder: SentenceEncoder) -> None:
    rows = encoder.predict(TEXTS, PROMPTS).split([1 + len(p) + len(w) for p, w in zip(PROMPTS, TEXTS, strict=True)])
    for prompt, words, found in zip(PROMPTS, TEXTS, rows, strict=True):
        close(found, read_whole(encoder, prompt, words))
    close(rows[2], encoder.predict(TEXTS[2:]))


def test_long_sentences_are_read_in_windows_that_all_have_the_prompt(encoder_folders: dict[str, Path]) -> None:
    source = str(encoder_folders["bert"])
    encoder = load_sentence_encoder(source, revision=None, mixed_precision=False, prompts=True).network.eval()
    words = ["alice", "met", "bob", "in", "paris"] * 60
    windows = list(encoder._windows([words], encoder._prompts([PROMPTS[0]])))
    assert len(windows) > 3 and all(window.size <= encoder.limit for window in windows)
    rows = encoder.predict([words, TEXTS[0]], [PROMPTS[0], PROMPTS[1]])
    parts = [read_whole(encoder, PROMPTS[0], words[w.start : w.start + len(w.words)]) for w in windows]
    close(rows[:3], torch.stack([part[:3] for part in parts]).mean(0))
    owned = [part[3:][window.own] for part, window in zip(parts, windows, strict=True)]
    close(rows[3:303], torch.cat(owned))
    close(rows[303:], read_whole(encoder, PROMPTS[1], TEXTS[0]))


def test_no_text_can_forge_a_label(encoder: SentenceEncoder) -> None:
    assert encoder.marker not in [piece for word in encoder.pieces(["[R]", "x[R]y"]) for piece in word]


def test_prompts_that_leave_no_room(encoder_folders: dict[str, Path]) -> None:
    source = str(encoder_folders["bert"])
    encoder = load_sentence_encoder(source, revision=None, mixed_precision=False, prompts=True).network
    labels = [f"label {number}" for number in range(60)]
    with pytest.raises(ValueError, match=r"the 60 labels from 'label 0' on have \d+ pieces; expected at most 63"):
        encoder.predict([["alice"]], [labels])
    plain = load_sentence_encoder(source, revision=None, mixed_precision=False).network
    with pytest.raises(ValueError, match="this encoder reads no prompts; expected"):
        plain.predict([["alice"]], [["spouse"]])


# --- the component ------------------------------------------------------------------------------------------------


def encoder_config(folder: Path, **settings: Any) -> dict[str, Any]:
    return {
        "@architectures": "spacy_ie_moe.SentenceEncoder.v1",
        "name": str(folder),
        "rate": 0.4,
        "prompts": True,
        **settings,
    }


SMALL = {"max_span": 2, "dropout": 0.0, "expansion": 2, "candidates": 2, "absent_labels": 0.0}


def make(encoder: dict[str, Any], *, backbone: str = "re_cent", mixture: str | None = None, **config: Any) -> Language:
    """An initialised pipeline."""
    spacy.util.fix_random_seed(0)
    nlp = spacy.blank("en")
    model = {
        "@architectures": "spacy_ie_moe.GMoERTE.v1",
        "backbone": backbone,
        "backbone_settings": SMALL if backbone == "re_cent" else {},
        "mixture": mixture,
        "encoder": encoder,
    }
    nlp.add_pipe("gmoe_rte", config={"symmetric": ["spouse"], "model": model, **config})
    nlp.initialize(lambda: make_examples(nlp, 30))
    return nlp


@pytest.fixture(scope="module")
def trained_folder(encoder_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    nlp = make(encoder_config(encoder_folders["bert"]))
    losses = train(nlp, make_examples(nlp, 60), 450, rate=0.01, decay=True)
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 5
    folder = tmp_path_factory.mktemp("re_cent") / "model"
    nlp.to_disk(folder)
    return folder


@pytest.fixture
def trained(trained_folder: Path) -> Language:
    return spacy.load(trained_folder)


def test_it_learns(trained: Language) -> None:
    assert min(scores_on(trained, make_examples(trained, 30, seed=3))) > 0.9


def test_it_looks_for_the_labels_it_is_told(trained: Language) -> None:
    pipe: Any = trained.get_pipe("gmoe_rte")
    assert pipe.labels == ("lives in", "spouse", "works for")
    doc = trained("alice smith works for acme")
    assert [relation["label"] for relation in doc._.relations] == ["works for"]
    pipe.set_labels(["spouse", "lives in", "spouse"])
    assert pipe.labels == ("spouse", "lives in")
    assert "works for" not in {relation["label"] for relation in trained("alice smith works for acme")._.relations}
    assert pipe.label_data["relations"] == ["lives in", "spouse", "works for"]
    pipe.set_labels(["works for"])
    assert {relation["label"] for relation in trained("alice smith works for acme")._.relations} == {"works for"}
    pipe.threshold = 0.0
    pipe.set_labels(["employed by"])  # which it never saw
    assert {relation["label"] for relation in trained("alice smith works for acme")._.relations} <= {"employed by"}
    doc = trained.make_doc("alice smith works for acme")
    doc._.relation_labels = {"works for": {"symmetric": True, "threshold": 0.9}}
    assert {relation["label"] for relation in trained(doc)._.relations} == {"works for"}
    doc._.relation_labels = {"works for"}
    with pytest.raises(ValueError, match=r"doc\._\.relation_labels is a set, which cannot be saved; expected"):
        pipe.predict([doc])
    pipe.set_labels([])
    assert not trained("alice smith works for acme")._.relations
    pipe.set_labels(None)
    assert pipe.labels == ("lives in", "spouse", "works for")


def test_labels_that_do_not_fit_one_prompt_are_asked_for_in_several(trained: Language) -> None:
    pipe: Any = trained.get_pipe("gmoe_rte")
    labels, alone = pipe.labels, []
    for label in labels:
        pipe.set_labels([label])
        alone.append([{*map(tuple, found_in(doc)[0])} for doc in trained.pipe(texts_of(trained))])
    pipe.set_labels(None)
    pipe.bundle.network.backbone.labels_at_once = 1
    together = [{*map(tuple, found_in(doc)[0])} for doc in trained.pipe(texts_of(trained))]
    assert together == [set.union(*parts) for parts in zip(*alone, strict=True)]
    assert together == [{*map(tuple, found_in(trained(doc))[0])} for doc in texts_of(trained)]
    assert sum(map(len, together)) > 5


def test_what_is_found_once_is_what_is_found_at_each_threshold(trained: Language, tmp_path: Path) -> None:
    """``study_scores`` asks a pipeline that is told labels only once."""
    corpus = tmp_path / "dev.spacy"
    docs = [example.reference for example in make_examples(trained, 20, seed=4)]
    DocBin(docs=docs, store_user_data=True).to_disk(corpus)
    backbone = trained.get_pipe("gmoe_rte").bundle.network.backbone
    backbone.labels_at_once, backbone.span_threshold = 2, 0.0  # several prompts, and arguments of which it is not sure
    sizes = set()
    for threshold, found in at_thresholds(trained, corpus):
        once = [found_in(example.predicted)[:2] for example in found.examples]
        assert once == [found_in(example.predicted)[:2] for example in predict(trained, corpus, threshold).examples]
        sizes.add(sum(len(relations) for relations, _ in once))
    assert len(sizes) > 1


def test_studies_choose_on_dev_alone(encoder_folders: dict[str, Path], tmp_path: Path) -> None:
    """Gold of dev is what a pipeline that is unsure finds at one threshold, that of test what it does at another."""
    unsure = make(encoder_config(encoder_folders["bert"]))
    train(unsure, make_examples(unsure, 60), 60, rate=0.01)
    pipe: Any = unsure.get_pipe("gmoe_rte")
    texts = [example.reference for example in make_examples(unsure, 20, seed=4)]
    DocBin(docs=texts, store_user_data=True).to_disk(tmp_path / "texts.spacy")
    corpora = {name: str(tmp_path / f"{name}.spacy") for name in ("train", "dev", "test")}
    best, best_zero_shot = {}, {}
    for name, threshold in (("dev", 0.85), ("test", 0.25)):
        gold = [example.predicted for example in predict(unsure, tmp_path / "texts.spacy", threshold).examples]
        DocBin(docs=gold, store_user_data=True).to_disk(corpora[name])
        by_threshold = at_thresholds(unsure, Path(corpora[name]))
        best[name] = best_threshold({threshold: Scores.of(found, pipe) for threshold, found in by_threshold})
        labels = zero_shot_rte.labels_of(gold)
        best_zero_shot[name] = zero_shot_rte.choose_threshold(zero_shot_rte.ask(unsure, gold, labels))
        pipe.set_labels(None)
    assert best["dev"] != best["test"] and best_zero_shot["dev"] != best_zero_shot["test"]
    for scorer, expected in ((study_scores, best), (zero_shot_rte, best_zero_shot)):
        unsure.to_disk(tmp_path / "model-best")
        (tmp_path / "run.json").write_text(json.dumps({"corpora": corpora}), "utf8")
        (tmp_path / "log.jsonl").write_text(json.dumps(LOGGED), "utf8")
        scorer.score_run(tmp_path)
        scores = json.loads((tmp_path / "scores.json").read_text("utf8"))
        assert scores["threshold"] == expected["dev"]
        assert spacy.load(tmp_path / "model-best").get_pipe("gmoe_rte").threshold == expected["dev"]


def test_long_labels_are_asked_for_in_more_rounds(trained: Language) -> None:
    pipe: Any = trained.get_pipe("gmoe_rte")
    pipe.set_labels([f"works for {'the company near the river ' * 5}{number}" for number in range(6)])
    assert [len(run) for run in pipe._encoder.split_labels(pipe.labels, 15)] == [2, 2, 2]
    assert isinstance(trained("alice works for acme")._.relations, list)
    pipe.set_labels(["x" * 200])
    with pytest.raises(ValueError, match="pieces; expected at most 63"):
        pipe.predict([trained.make_doc("alice works for acme")])


def test_symmetric_labels_of_its_own(trained: Language) -> None:
    """Both orders of a pair are one relation, with the argument that is first in the text as head; the scorer knows."""
    pipe: Any = trained.get_pipe("gmoe_rte")
    pipe.threshold = 0.0
    pipe.bundle.network.backbone.span_threshold = 0.0
    pipe.set_labels(["works for", "lives in"])
    directed = [r["head_pos"] < r["tail_pos"] for doc in trained.pipe(texts_of(trained)) for r in doc._.relations]
    assert not all(directed) and pipe.symmetric == ()
    pipe.set_labels({"works for": {"symmetric": True}, "lives in": {"symmetric": True}})
    assert pipe.symmetric == ("works for", "lives in")
    found = [r["head_pos"] < r["tail_pos"] for doc in trained.pipe(texts_of(trained)) for r in doc._.relations]
    assert found and all(found)
    schema = pipe.bundle.network.schema
    pipe.bundle.network.schema = replace(schema, symmetric=("works for",))
    for said, expected in (({}, ("works for",)), ({"symmetric": False}, ()), ({"symmetric": True}, ("works for",))):
        pipe.set_labels({"works for": said, "lives in": {"symmetric": False}})
        assert pipe.symmetric == expected, "where nothing is said it is as in training"


def test_it_is_saved_with_its_labels(trained: Language, tmp_path: Path) -> None:
    pipe: Any = trained.get_pipe("gmoe_rte")
    pipe.set_labels(["works for", "spouse"])
    expected = [found_in(doc) for doc in trained.pipe(texts_of(trained))]
    assert any(relations for relations, _, _ in expected)
    trained.to_disk(tmp_path / "model")
    again = spacy.load(tmp_path / "model")
    assert again.get_pipe("gmoe_rte").labels == ("works for", "spouse")
    assert expected == [found_in(doc) for doc in again.pipe(texts_of(again))]
    assert expected == [found_in(doc) for doc in again.pipe(texts_of(again), n_process=2)]


def test_attention_is_over_words(encoder_folders: dict[str, Path]) -> None:
    nlp = make(encoder_config(encoder_folders["bert"]), mixture="gmoe")
    pipe: Any = nlp.get_pipe("gmoe_rte")
    doc = nlp.make_doc("alice works for acme")
    (weights,) = pipe.attention(doc).weights
    assert len(weights) == len(doc)
    pipe.set_labels([])
    assert pipe.attention(doc).weights == []
    assert pipe.bundle.network.backbone.max_span == 2


def test_documents_may_have_labels_of_their_own(trained: Language) -> None:
    docs = texts_of(trained)
    expected = [found_in(trained(doc)) for doc in texts_of(trained)]
    for doc, labels in zip(docs, [None, ["works for"], ["spouse", "lives in", "works for"], []] * 3, strict=True):
        doc._.relation_labels = labels
    pipe: Any = trained.get_pipe("gmoe_rte")
    pipe.threshold = 0.0
    pipe.bundle.network.backbone.span_threshold = 0.0
    pipe.bundle.network.backbone.labels_at_once = 2
    found = [found_in(doc) for doc in trained.pipe(docs)]
    alone = []
    for doc, fresh in zip(docs, texts_of(trained), strict=True):
        fresh._.relation_labels = doc._.relation_labels
        alone.append(found_in(trained(fresh)))
    assert found == alone
    assert any(relations for relations, _, _ in found[1::4]) and not any(relations for relations, _, _ in found[3::4])
    assert {relation[4] for relations, _, _ in found[1::4] for relation in relations} == {"works for"}
    assert any(relations for relations, _, _ in expected)


def test_odd_documents(trained: Language) -> None:
    for text in ("", " ", "alice", "\u200b\n", "alice works for acme " * 200):
        assert isinstance(trained(text)._.relations, list)


def test_labels_are_checked(encoder_folders: dict[str, Path], trained: Language) -> None:
    pipe: Any = trained.get_pipe("gmoe_rte")
    with pytest.raises(ValueError, match="labels is 'spouse'; expected a list of names"):
        pipe.set_labels("spouse")
    with pytest.raises(ValueError, match=r"labels\['x'\] has 'threshold'; expected no option but 'symmetric' here"):
        pipe.set_labels({"x": {"threshold": 0.3}})
    with pytest.raises(ValueError, match=r"labels are \['x'\]; expected null, as model.backbone finds the labels"):
        make(encoder_config(encoder_folders["bert"]), backbone="sinet", labels=["x"])
    sinet: Any = make(encoder_config(encoder_folders["bert"]), backbone="sinet").get_pipe("gmoe_rte")
    with pytest.raises(ValueError, match=r"labels are \['x'\]; expected null"):
        sinet.set_labels(["x"])


def test_the_encoder_has_to_read_labels(encoder_folders: dict[str, Path]) -> None:
    message = "model.encoder of 'gmoe_rte' reads no labels, which the backbone 're_cent' needs; expected"
    with pytest.raises(ValueError, match=message):
        make(encoder_config(encoder_folders["bert"], prompts=False))
    tok2vec = {"@architectures": "spacy_ie_moe.Tok2VecSentences.v1", "tok2vec": cnn()}
    with pytest.raises(ValueError, match=message):
        make(tok2vec)


def test_the_network_is_one_that_reads_prompts() -> None:
    network: RTENetwork = make_network("re_cent")
    assert network.labels_at_once == 15
    assert make_network("sinet").labels_at_once is None


def test_labels_that_no_prompt_can_hold_are_told_before_training(encoder_folders: dict[str, Path]) -> None:
    nlp = make(encoder_config(encoder_folders["bert"]))
    pipe: Any = nlp.get_pipe("gmoe_rte")
    labels = [f"works for {'the company near the river ' * 5}{number}" for number in range(3)]
    with pytest.raises(ValueError, match="labels_at_once of 'gmoe_rte' is 15, but the 4 longest relation labels do"):
        pipe.initialize(lambda: make_examples(nlp, 5), labels={"entities": ["PER"], "relations": [*labels, "spouse"]})


def test_settings_of_a_config_hold_for_a_saved_network(trained_folder: Path) -> None:
    settings = {"dropout": 0.3, "span_threshold": 0.05}
    model = {f"components.gmoe_rte.model.backbone_settings.{name}": value for name, value in settings.items()}
    pipe: Any = spacy.load(trained_folder, config=model).get_pipe("gmoe_rte")
    backbone = pipe.bundle.network.backbone
    assert backbone.span_threshold == 0.05 and backbone.max_span == 2
    assert {module.p for module in backbone.modules() if isinstance(module, torch.nn.Dropout)} == {0.3}
    with pytest.raises(ValueError, match=r"model\.backbone is 'sinet'; expected that of the saved network, 're_cent'"):
        other = {"components.gmoe_rte.model.backbone": "sinet", "components.gmoe_rte.model.backbone_settings": {}}
        spacy.load(trained_folder, config=other)
