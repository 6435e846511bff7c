"""``gmoe_rte`` as spaCy users meet it: training, saving, streams, odd documents, any encoder."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from thinc.api import Model

from spacy_ie_moe.corpora.reader import make_example
from spacy_ie_moe.gmoe_rte import encoders
from spacy_ie_moe.gmoe_rte.sentences import split_sentences
from spacy_ie_moe.relations import make_relation
from spacy_ie_moe.torch_wrapper import clip_gradients
from spacy_ie_moe.triplet_scoring import score_triplets

PEOPLE = ["alice smith", "bob", "carol jones", "dave"]
COMPANIES = ["acme", "globex company"]
CITIES = ["paris", "london", "berlin"]
BACKBONE = {"max_span": 4, "size_width": 8, "negative_spans": 40, "dropout": 0.0, "attention_dropout": 0.0}

Make = Callable[..., Language]


def gold_doc(nlp: Language, rng: random.Random, *, sentences: int = 1) -> Doc:
    """Sentences in which a person works for a company, marries another or lives in a city, all annotated."""
    words: list[str] = []
    starts: list[bool] = []
    spans: list[tuple[int, int, str]] = []
    relations: list[tuple[int, int, str]] = []

    def say(text: str, label: str = "") -> int:
        first = len(words)
        words.extend(text.split())
        starts.extend(False for _ in text.split())
        spans.extend([(first, len(words), label)] if label else [])
        return len(spans) - 1

    for _ in range(sentences):
        begin = len(words)
        person = say(rng.choice(PEOPLE), "PER")
        kind = rng.choice(["works for", "married", "lives in"])
        say(kind)
        if kind == "works for":
            relations.append((person, say(rng.choice(COMPANIES), "ORG"), kind))
        elif kind == "married":
            relations.append((person, say(rng.choice(PEOPLE), "PER"), "spouse"))
        else:
            relations.append((person, say(rng.choice(CITIES), "LOC"), kind))
        say(rng.choice(["", "with her school team", "from the company near the river"]))
        starts[begin] = True
    doc = Doc(nlp.vocab, words=words, sent_starts=starts)
    entities = [Span(doc, start, end, label=label) for start, end, label in spans]
    doc.spans["gmoe_rte"] = entities
    doc.ents = entities
    doc._.relations = [make_relation(entities[head], entities[tail], label) for head, tail, label in relations]
    return doc


def make_examples(nlp: Language, n: int, *, seed: int = 0, sentences: int = 1) -> list[Example]:
    rng = random.Random(seed)
    return [make_example(gold_doc(nlp, rng, sentences=sentences), gold_ents=False) for _ in range(n)]


def train(
    nlp: Language, examples: list[Example], steps: int, *, rate: float = 0.005, decay: bool = False
) -> list[float]:
    """The losses of so many updates on batches of 8. decay: let the rate sink to 0, for what else depends on chance."""
    optimizer = nlp.resume_training()
    losses = []
    rng = random.Random(1)
    for step in range(steps):
        optimizer.learn_rate = rate * (1 - step / steps) if decay else rate
        batch = [
            Example(make_example(eg.reference, gold_ents=False).predicted, eg.reference)
            for eg in rng.sample(examples, min(8, len(examples)))
        ]
        losses.append(nlp.update(batch, sgd=optimizer)["gmoe_rte"])
    return losses


def scores_on(nlp: Language, examples: Iterable[Example]) -> tuple[float, float, float]:
    """Ent, Rel and Rel+ F1."""
    pipe: Any = nlp.get_pipe("gmoe_rte")
    references = [example.reference for example in examples]
    docs = nlp.pipe([make_example(reference, gold_ents=False).predicted for reference in references])
    pairs = [Example(doc, reference) for doc, reference in zip(docs, references, strict=True)]
    levels = score_triplets(pairs, symmetric=pipe.symmetric)["canonical"]
    return tuple(levels[name].micro.f1 for name in ("ent", "rel", "rel_plus"))  # type: ignore[return-value]


def found_in(doc: Doc) -> Any:
    """All that the component writes, scores rounded."""
    relations = [
        (*r["head_pos"], *r["tail_pos"], r["label"], r["head_label"], r["tail_label"], round(r["score"], 4))
        for r in doc._.relations
    ]
    spans = [(span.start, span.end, span.label_) for span in doc.spans["gmoe_rte"]]
    return relations, spans, [(span.start, span.end, span.label_) for span in doc.ents]


@pytest.fixture(scope="session")
def make_gmoe(encoder_folders: dict[str, Path]) -> Make:
    """Makes an initialised pipeline; keyword arguments are options of the component, ``model`` of its model."""

    def make(
        examples: int = 30, *, encoder: dict[str, Any] | None = None, before: Any = None, **config: Any
    ) -> Language:
        spacy.util.fix_random_seed(0)
        nlp = spacy.blank("en")
        if before is not None:
            before(nlp)
        own = {
            "@architectures": "spacy_ie_moe.SentenceEncoder.v1",
            "name": str(encoder_folders["bert"]),
            "revision": None,
            "rate": 0.2,
            "mixed_precision": False,
            "precision": "float32",
            "device": None,
        }
        model = {
            "@architectures": "spacy_ie_moe.GMoERTE.v1",
            "backbone_settings": BACKBONE,
            "encoder": encoder or own,
            **config.pop("model", {}),
        }
        nlp.add_pipe("gmoe_rte", config={"symmetric": ["spouse"], "model": model, **config})
        nlp.initialize(lambda: make_examples(nlp, examples))
        return nlp

    return make


@pytest.fixture(scope="session")
def trained_bytes(make_gmoe: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline that has learnt the examples."""
    nlp = make_gmoe()
    train(nlp, make_examples(nlp, 60), 200)
    folder = tmp_path_factory.mktemp("trained") / "model"
    nlp.to_disk(folder)
    return folder


@pytest.fixture
def trained(trained_bytes: Path) -> Language:
    return spacy.load(trained_bytes)


def texts_of(nlp: Language, n: int = 12) -> list[Doc]:
    return [example.predicted for example in make_examples(nlp, n, seed=7, sentences=2)]


def cnn() -> dict[str, Any]:
    hash_embed = {
        "@architectures": "spacy.HashEmbedCNN.v2",
        "pretrained_vectors": None,
        "width": 32,
        "depth": 2,
        "embed_size": 300,
        "window_size": 1,
        "maxout_pieces": 2,
        "subword_features": True,
    }
    return hash_embed


def transformer_config(folder: Path, spans: dict[str, Any]) -> dict[str, Any]:
    model = {
        "@architectures": "spacy-transformers.TransformerModel.v3",
        "name": str(folder),
        "get_spans": spans,
        "tokenizer_config": {"use_fast": True},
        "transformer_config": {},
        "mixed_precision": False,
        "grad_scaler_config": {},
    }
    return {"model": model}


# --- training ---------------------------------------------------------------------------------------------------


def test_learns_what_it_is_shown(trained: Language) -> None:
    """Other sentences of the same kind, too."""
    assert min(scores_on(trained, make_examples(trained, 30, seed=3))) > 0.9


@pytest.mark.parametrize("mixture", [None, "gmoe", "paper_literal", "sentence_gate", "hetero_token", "identity"])
def test_every_mixture_trains_and_survives_saving(make_gmoe: Make, mixture: str | None) -> None:
    nlp = make_gmoe(model={"mixture": mixture})
    losses = train(nlp, make_examples(nlp, 20), 15)
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    again = spacy.util.load_model_from_config(nlp.config).from_bytes(nlp.to_bytes())
    for left, right in zip(nlp.pipe(texts_of(nlp)), again.pipe(texts_of(again)), strict=True):
        assert found_in(left) == found_in(right)


def test_losses_are_told_apart(make_gmoe: Make) -> None:
    nlp = make_gmoe()
    losses = nlp.update(make_examples(nlp, 4))
    terms = {name: losses[f"gmoe_rte_{name}"] for name in ("triplets", "entities", "relations")}
    assert losses["gmoe_rte"] == pytest.approx(sum(terms.values()))
    assert min(terms.values()) > 0


def test_reads_a_tok2vec_of_its_own(make_gmoe: Make) -> None:
    nlp = make_gmoe(encoder={"@architectures": "spacy_ie_moe.Tok2VecSentences.v1", "tok2vec": cnn()})
    train(nlp, make_examples(nlp, 40), 150, rate=0.005)
    assert min(scores_on(nlp, make_examples(nlp, 20, seed=3))) > 0.9
    again = pickle.loads(pickle.dumps(nlp))
    for left, right in zip(nlp.pipe(texts_of(nlp)), again.pipe(texts_of(again)), strict=True):
        assert found_in(left) == found_in(right)


def test_listens_to_a_shared_tok2vec(make_gmoe: Make, tmp_path: Path) -> None:
    def add_tok2vec(nlp: Language) -> None:
        nlp.add_pipe("tok2vec", config={"model": cnn()})

    listener = {"@architectures": "spacy.Tok2VecListener.v1", "width": 32, "upstream": "*"}
    nlp = make_gmoe(
        encoder={"@architectures": "spacy_ie_moe.Tok2VecSentences.v1", "tok2vec": listener}, before=add_tok2vec
    )
    before = nlp.get_pipe("tok2vec").model.to_bytes()
    train(nlp, make_examples(nlp, 40), 150)
    assert nlp.get_pipe("tok2vec").model.to_bytes() != before, "no gradient reached the shared tok2vec"
    assert min(scores_on(nlp, make_examples(nlp, 20, seed=3))) > 0.9
    nlp.to_disk(tmp_path / "shared")
    found = [found_in(doc) for doc in nlp.pipe(texts_of(nlp))]
    nlp.replace_listeners("tok2vec", "gmoe_rte", ["model.encoder.tok2vec"])
    nlp.remove_pipe("tok2vec")
    nlp.to_disk(tmp_path / "own")
    for name in ("shared", "own"):
        again = spacy.load(tmp_path / name)
        assert [found_in(doc) for doc in again.pipe(texts_of(again))] == found


def test_listens_to_a_shared_transformer(make_gmoe: Make, encoder_folders: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("spacy_transformers", reason="spacy-transformers is not installed")

    def add_transformer(nlp: Language) -> None:
        nlp.add_pipe("sentencizer")
        spans = {"@span_getters": "spacy-transformers.sent_spans.v1"}
        nlp.add_pipe("transformer", config=transformer_config(encoder_folders["bert"], spans))

    nlp = make_gmoe(encoder={"@architectures": "spacy_ie_moe.TransformerSentences.v1"}, before=add_transformer)
    empty = Doc(nlp.vocab, words=[])
    nlp.update([make_example(empty, gold_ents=False), *make_examples(nlp, 2)])
    nlp.update([make_example(empty, gold_ents=False)])
    assert [len(doc) for doc in nlp.pipe([Doc(nlp.vocab, words=[]), Doc(nlp.vocab, words=["alice"])])] == [0, 1]
    train(nlp, make_examples(nlp, 40), 160, rate=0.002)
    assert min(scores_on(nlp, make_examples(nlp, 20, seed=3))) > 0.8
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    for left, right in zip(nlp.pipe(texts_of(nlp)), again.pipe(texts_of(again)), strict=True):
        assert found_in(left) == found_in(right)


@pytest.mark.parametrize("frozen", [0, 1], ids=["encoder", "triplets"])
def test_rate_zero_leaves_a_network_as_it_is(make_gmoe: Make, frozen: int) -> None:
    nlp = make_gmoe()
    shims = [layer.shims[0] for layer in nlp.get_pipe("gmoe_rte").model.layers]
    shims[frozen].learning.group_rates[""] = 0.0
    before = [copy.deepcopy(shim.bundle.network.state_dict()) for shim in shims]
    train(nlp, make_examples(nlp, 10), 3)
    changed = [
        any(not torch.equal(tensor, old[name]) for name, tensor in shim.bundle.network.state_dict().items())
        for shim, old in zip(shims, before, strict=True)
    ]
    assert changed == [index != frozen for index in (0, 1)]


def test_gradients_are_clipped_together(make_gmoe: Make) -> None:
    nlp = make_gmoe()
    pipe: Any = nlp.get_pipe("gmoe_rte")
    pipe.update(make_examples(nlp, 8))
    pipe.model.layers[0].shims[0].bundle.network.encoder.embeddings.word_embeddings.weight.grad.mul_(1000)
    clip_gradients(pipe.model, 0.5)
    gradients = [
        parameter.grad.norm()
        for layer in pipe.model.layers
        for parameter in layer.shims[0].bundle.network.parameters()
        if parameter.grad is not None
    ]
    assert torch.stack(gradients).norm().item() == pytest.approx(0.5, rel=1e-3)


def test_training_goes_on_after_loading(trained_bytes: Path) -> None:
    nlp = spacy.load(trained_bytes)
    fresh = train(nlp, make_examples(nlp, 40), 3)
    assert max(fresh) < 0.5, "it should know the examples already"


def test_labels_can_be_given(make_gmoe: Make, tmp_path: Path) -> None:
    nlp = make_gmoe()
    pipe: Any = nlp.get_pipe("gmoe_rte")
    data = pipe.label_data
    assert data == {"entities": ["LOC", "ORG", "PER"], "relations": ["lives in", "spouse", "works for"]}
    more = json.loads(json.dumps({**data, "relations": [*data["relations"], "founder"]}))
    pipe.initialize(lambda: make_examples(nlp, 5), nlp=nlp, labels=more)
    assert pipe.labels[-1] == "founder"
    lacking: list[Any] = [["a"], {"entities": ["A"]}, {"entities": [], "relations": ["r"]}]
    for wrong in (*lacking, {"entities": "A", "relations": ["r"]}):
        with pytest.raises(ValueError, match="labels"):
            pipe.initialize(lambda: make_examples(nlp, 5), nlp=nlp, labels=wrong)


def test_says_what_training_lacks(make_gmoe: Make) -> None:
    nlp = make_gmoe()
    pipe: Any = nlp.get_pipe("gmoe_rte")

    def without(what: str) -> list[Example]:
        examples = make_examples(nlp, 3)
        for example in examples:
            if what == "relations":
                example.reference._.relations = []
            else:
                example.reference._.relations = []
                example.reference.ents = []
                del example.reference.spans["gmoe_rte"]
        return examples

    with pytest.raises(ValueError, match=r"no Doc\._\.relations"):
        pipe.initialize(lambda: without("relations"), nlp=nlp)
    with pytest.raises(ValueError, match=r"doc\.ents"):
        pipe.initialize(lambda: without("entities"), nlp=nlp)
    unseen = make_examples(nlp, 1)
    unseen[0].reference._.relations[0]["label"] = "hates"
    with pytest.raises(ValueError, match="'hates' is not one that gmoe_rte was initialised with"):
        nlp.update(unseen)


def test_symmetric_label_that_is_none(make_gmoe: Make) -> None:
    with pytest.raises(ValueError, match="symmetric has 'sibling'"):
        make_gmoe(symmetric=["sibling"])


def test_gold_without_relations_or_entities_trains(make_gmoe: Make) -> None:
    nlp = make_gmoe()
    bare = Doc(nlp.vocab, words=["a", "river"])
    empty = Doc(nlp.vocab, words=[])
    one = Doc(nlp.vocab, words=["alice"])
    one.spans["gmoe_rte"] = [Span(one, 0, 1, label="PER")]
    for docs in ([bare], [empty], [one], [bare, empty, one]):
        losses = nlp.update([make_example(doc, gold_ents=False) for doc in docs])
        assert losses["gmoe_rte"] >= 0


def test_relations_between_sentences_are_said_not_learnt(make_gmoe: Make, caplog: pytest.LogCaptureFixture) -> None:
    nlp = make_gmoe()
    doc = gold_doc(nlp, random.Random(0), sentences=2)
    spans = list(doc.spans["gmoe_rte"])
    doc._.relations = [*doc._.relations, make_relation(spans[0], spans[-1], "spouse")]
    with caplog.at_level(logging.WARNING):
        nlp.update([make_example(doc, gold_ents=False)])
        nlp.update([make_example(doc, gold_ents=False)])
    assert caplog.text.count("relations between sentences") == 1
    nlp.get_pipe("gmoe_rte").by_sentence = False
    nlp.update([make_example(doc, gold_ents=False)])


def test_gold_of_other_white_space_and_tokens(make_gmoe: Make) -> None:
    nlp = make_gmoe()
    pipe: Any = nlp.get_pipe("gmoe_rte")
    reference = Doc(nlp.vocab, words=["alice", "smith", "lives", "in", "paris", "."])
    spans = [Span(reference, 0, 2, label="PER"), Span(reference, 4, 5, label="LOC")]
    reference.spans["gmoe_rte"] = spans
    reference._.relations = [make_relation(*spans, "lives in")]
    for words, spaces, expected in (
        (["alice", "smith", "lives", "in", "paris", "."], [True, True, True, True, False, False], [(0, 2), (4, 5)]),
        (["al", "ice", "smith", "lives", "in", "paris", "."], [False, *[True] * 5, False], [(0, 3), (5, 6)]),
        (["alice", "  ", "smith", "lives", "in", "paris."], [True] * 6, [(0, 3)]),
        (["alice", "smithlives", "in", "paris", "."], [True] * 5, [(3, 4)]),
    ):
        predicted = Doc(nlp.vocab, words=words, spaces=spaces)
        (extraction,) = pipe._gold([Example(predicted, reference)], split_sentences([predicted], by_sentence=True))
        assert [(e.start, e.end) for e in extraction.entities] == expected
        assert len(extraction.triplets) == (len(expected) == 2)


@pytest.mark.parametrize(("symmetric", "unknown"), [([], {(1, 0)}), (["spouse"], {(1, 0), (0, 1)})])
def test_pairs_whose_relation_is_not_recorded_are_unknown(
    make_gmoe: Make, symmetric: list[str], unknown: set[tuple[int, int]]
) -> None:
    """What is not recorded may be a symmetric relation, which is learnt of the pair the other way round."""
    nlp = make_gmoe(symmetric=symmetric)
    doc = gold_doc(nlp, random.Random(0))
    head, tail = list(doc.spans["gmoe_rte"])[:2]
    doc.user_data["ignored_pairs"] = [[tail.start, tail.end, head.start, head.end], [0, 1, 3, 4]]
    example = make_example(doc, gold_ents=False)
    (extraction,) = nlp.get_pipe("gmoe_rte")._gold([example], split_sentences([example.predicted], by_sentence=True))
    assert extraction.unknown == unknown


def test_relations_name_their_entities_by_place_where_types_differ(make_gmoe: Make, caplog: Any) -> None:
    nlp = make_gmoe()
    doc = Doc(nlp.vocab, words=["alice", "works", "for", "acme", "."])
    spans = [Span(doc, 0, 1, label="PER"), Span(doc, 3, 4, label="ORG")]
    doc.spans["gmoe_rte"] = spans
    relation = {**make_relation(*spans, "works for"), "head_label": "PERSON"}
    elsewhere = {**relation, "tail_pos": [1, 2]}
    itself = {**relation, "tail_pos": [0, 1]}
    doc._.relations = [relation, elsewhere, itself]
    example = make_example(doc, gold_ents=False)
    with caplog.at_level(logging.WARNING):
        (found,) = nlp.get_pipe("gmoe_rte")._gold([example], split_sentences([example.predicted], by_sentence=True))
    assert [(triplet.head, triplet.tail) for triplet in found.triplets] == [(0, 1)]
    assert "that are no annotated entities" in caplog.text and "of an entity with itself" in caplog.text
    doc._.relations = ["works for"]
    with pytest.raises(ValueError, match="a relation is 'works for'"):
        nlp.update([make_example(doc, gold_ents=False)])


def test_says_what_cannot_be_found(make_gmoe: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        make_gmoe(model={"backbone_settings": {**BACKBONE, "max_span": 1}})
    assert "wider than max_span of the backbone 'sinet', which is 1" in caplog.text
    assert "overlap longer ones" not in caplog.text
    nlp = make_gmoe(before=lambda nlp: nlp.add_pipe("sentencizer"))
    assert "will set some" not in caplog.text
    examples = make_examples(nlp, 10)
    for example in examples:
        example.predicted = Doc(nlp.vocab, words=[token.text for token in example.reference])
    with caplog.at_level(logging.WARNING):
        nlp.initialize(lambda: examples)
    assert "'sentencizer' will set some" in caplog.text


@pytest.mark.parametrize(
    ("backbone", "lost"),
    [
        ("sinet", None),
        ("tlrel", "entities that overlap"),
        ("od_rte", "some triplets of one relation that overlap in both arguments"),
        ("dual_dec", "heads of one relation, and tails of one head, that overlap"),
    ],
)
def test_says_that_entities_overlap(
    make_gmoe: Make, caplog: pytest.LogCaptureFixture, backbone: str, lost: str | None
) -> None:
    nlp = make_gmoe(model={"backbone": backbone, "backbone_settings": {}})
    examples = make_examples(nlp, 10)
    doc = examples[0].reference
    doc.spans["gmoe_rte"] = [*doc.spans["gmoe_rte"], Span(doc, 0, len(doc), label="PER")]
    entities = sum(len(example.reference.spans["gmoe_rte"]) for example in examples)
    with caplog.at_level(logging.WARNING):
        nlp.initialize(lambda: examples)
    relations = sum(len(example.reference._.relations) for example in examples)
    message = (
        f"2 of {entities} entities overlap longer ones, and {len(doc._.relations)} of {relations} relations need one "
        f"of these; the backbone {backbone!r} loses {lost}."
    )
    assert (message in caplog.text) is (lost is not None) and doc._.relations
    assert ("overlap longer ones" in caplog.text) is (lost is not None)


def test_initialising_anew_starts_from_the_pretrained_encoder(make_gmoe: Make) -> None:
    nlp = make_gmoe()
    before = nlp.get_pipe("gmoe_rte").model.layers[0].to_bytes()
    train(nlp, make_examples(nlp, 10), 3)
    assert nlp.get_pipe("gmoe_rte").model.layers[0].to_bytes() != before
    nlp.initialize(lambda: make_examples(nlp, 10))
    assert nlp.get_pipe("gmoe_rte").model.layers[0].to_bytes() == before


def leaf(outputs: list[Any], gradients: list[Any]) -> Model:
    """A layer that gives ``outputs`` whatever it reads, and keeps the gradients for them."""
    return Model("leaf", lambda model, docs, is_train: (outputs, gradients.extend))


def test_gradients_for_a_tok2vec(make_gmoe: Make) -> None:
    rng = np.random.default_rng(0)
    docs = [*texts_of(spacy.blank("en"), 2), Doc(spacy.blank("en").vocab, words=[])]
    vectors = [rng.normal(size=(len(doc), 6)).astype("f") for doc in docs]
    gradients: list[Any] = []
    model = encoders.build_tok2vec_sentences(leaf(vectors, gradients))
    sentences = split_sentences(docs, by_sentence=True)
    rows, backprop = model.begin_update(sentences)
    weights = rng.normal(size=rows.shape).astype("f")
    backprop(weights)
    for vector, gradient in zip(vectors, gradients, strict=True):
        moved = rng.normal(size=vector.shape).astype("f")
        vector += moved
        after = model.predict(sentences)
        vector -= moved
        assert float(((after - rows) * weights).sum()) == pytest.approx(float((moved * gradient).sum()), abs=1e-3)


@pytest.mark.parametrize("spans", ["sent_spans", "strided_spans"])
def test_gradients_for_a_transformer(spans: str, encoder_folders: dict[str, Path]) -> None:
    pytest.importorskip("spacy_transformers", reason="spacy-transformers is not installed")
    nlp = spacy.blank("en")
    sizes = {"window": 6, "stride": 4} if spans == "strided_spans" else {}
    getter = {"@span_getters": f"spacy-transformers.{spans}.v1", **sizes}
    transformer = nlp.add_pipe("transformer", config=transformer_config(encoder_folders["bert"], getter))
    transformer.model.initialize()
    docs = [*texts_of(nlp, 2), Doc(nlp.vocab, words=[])]
    outputs = transformer.predict(docs).doc_data
    gradients: list[Any] = []
    model = encoders.build_transformer_sentences(grad_factor=0.5)
    model.layers[0] = leaf(outputs, gradients)
    sentences = split_sentences(docs, by_sentence=True)
    rows, backprop = model.begin_update(sentences)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=rows.shape).astype("f")
    backprop(weights)
    for output, gradient in list(zip(outputs, gradients, strict=True))[:2]:
        hidden = output.model_output.last_hidden_state
        moved = rng.normal(size=hidden.shape).astype("f")
        hidden += moved
        after = model.predict(sentences)
        hidden -= moved
        expected = 0.5 * float(((after - rows) * weights).sum())
        assert float((moved * gradient.model_output.last_hidden_state).sum()) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_lower_precision_predicts_the_same_and_saves_the_full(
    precision: str, trained_bytes: Path, tmp_path: Path
) -> None:
    full = spacy.load(trained_bytes)
    rounded = spacy.load(trained_bytes, config={"components.gmoe_rte.model.encoder.precision": precision})
    for left, right in zip(full.pipe(texts_of(full)), rounded.pipe(texts_of(rounded)), strict=True):
        assert [r["label"] for r in left._.relations] == [r["label"] for r in right._.relations]
        assert [(s.start, s.end, s.label_) for s in left.ents] == [(s.start, s.end, s.label_) for s in right.ents]
    rounded.to_disk(tmp_path)
    weights = "gmoe_rte/model/encoder/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (trained_bytes / weights).read_bytes()


# --- what it writes -----------------------------------------------------------------------------------------------


def test_writes_spans_ents_and_relations(trained: Language) -> None:
    doc = trained(Doc(trained.vocab, words=["alice", "smith", "works", "for", "acme"]))
    assert [(span.text, span.label_) for span in doc.spans["gmoe_rte"]] == [("alice smith", "PER"), ("acme", "ORG")]
    assert [ent.text for ent in doc.ents] == ["alice smith", "acme"]
    (relation,) = doc._.relation_spans
    assert (relation.head.text, relation.label, relation.tail.text) == ("alice smith", "works for", "acme")
    assert 0.5 <= relation.score <= 1
    assert len(doc.spans["gmoe_rte"].attrs["scores"]) == 2


def test_symmetric_relations_are_found_once(trained: Language) -> None:
    """Whatever the threshold, and with the argument first in the text as head."""
    trained.get_pipe("gmoe_rte").threshold = 0.0
    doc = trained(Doc(trained.vocab, words=["alice", "smith", "married", "carol", "jones"]))
    found = [(r.head.text, r.tail.text) for r in doc._.relation_spans if r.label == "spouse"]
    assert found == [("alice smith", "carol jones")]


def test_ents_can_be_left_alone(trained: Language) -> None:
    pipe: Any = trained.get_pipe("gmoe_rte")
    pipe.set_ents = False
    pipe.spans_key = "found"
    doc = Doc(trained.vocab, words=["alice", "smith", "works", "for", "acme"])
    doc.ents = [Span(doc, 4, 5, label="OTHER")]
    doc = trained(doc)
    assert [ent.label_ for ent in doc.ents] == ["OTHER"]
    assert len(doc.spans["found"]) == 2 and "gmoe_rte" not in doc.spans


def test_ents_of_overlapping_spans_are_the_most_probable(trained: Language) -> None:
    from spacy_ie_moe.gmoe_rte.features import Entity, Extraction

    doc = Doc(trained.vocab, words=["alice", "smith", "works", "for", "acme"])
    entities = [Entity(0, 1, 0, 0.6), Entity(0, 2, 1, 0.9), Entity(1, 2, 2, 0.7), Entity(4, 5, 1, 0.5)]
    trained.get_pipe("gmoe_rte").set_annotations([doc], [[(0, Extraction(entities, []))]])
    assert [(ent.start, ent.end) for ent in doc.ents] == [(0, 2), (4, 5)]
    assert len(doc.spans["gmoe_rte"]) == 4


def test_blocked_tokens_stay_blocked(trained: Language) -> None:
    doc = Doc(trained.vocab, words=["alice", "smith", "works", "for", "acme"])
    doc.set_ents([], blocked=[doc[4:5]])
    doc = trained(doc)
    assert [ent.label_ for ent in doc.ents] == ["PER"] and doc[4].ent_iob_ == "B" and not doc[4].ent_type
    assert len(doc._.relations) == 1, "spans and relations are not concerned"


# --- invariances ------------------------------------------------------------------------------------------------


def test_pipe_equals_call(trained: Language) -> None:
    docs = texts_of(trained)
    one_by_one = [found_in(trained(copy.deepcopy(doc))) for doc in docs]
    assert any(found[0] for found in one_by_one)
    for size, words in ((1, 1024), (5, 1024), (100, 1024), (100, 7)):
        trained.get_pipe("gmoe_rte").batch_words = words
        assert [found_in(doc) for doc in trained.pipe(map(copy.deepcopy, docs), batch_size=size)] == one_by_one
    backwards = [found_in(doc) for doc in trained.pipe(map(copy.deepcopy, docs[::-1]))]
    assert backwards[::-1] == one_by_one


def test_sentences_are_read_apart(trained: Language) -> None:
    doc = gold_doc(trained, random.Random(5), sentences=3)
    whole = found_in(trained(make_example(doc, gold_ents=False).predicted))
    relations = []
    for sentence in doc.sents:
        alone = trained(Doc(trained.vocab, words=[token.text for token in sentence]))
        shift = sentence.start
        relations += [(a + shift, b + shift, c + shift, d + shift, *rest) for a, b, c, d, *rest in found_in(alone)[0]]
    assert sorted(whole[0]) == sorted(relations)


def test_processes(trained: Language) -> None:
    docs = texts_of(trained, 6)
    expected = [found_in(trained(copy.deepcopy(doc))) for doc in docs]
    assert [found_in(doc) for doc in trained.pipe(map(copy.deepcopy, docs), n_process=2, batch_size=2)] == expected


def test_saving(trained: Language, tmp_path: Path, no_network: None) -> None:
    trained.get_pipe("gmoe_rte").threshold = 0.3
    trained.to_disk(tmp_path)
    loaded = [
        spacy.load(tmp_path),
        pickle.loads(pickle.dumps(trained)),
        spacy.util.load_model_from_config(trained.config).from_bytes(trained.to_bytes()),
    ]
    for doc in texts_of(trained, 5):
        expected = found_in(trained(copy.deepcopy(doc)))
        for other in loaded:
            assert found_in(other(copy.deepcopy(doc))) == expected
    assert [other.get_pipe("gmoe_rte").threshold for other in loaded] == [0.3, 0.3, 0.3]


def test_results_survive_a_docbin(trained: Language) -> None:
    docs = list(trained.pipe(texts_of(trained, 4)))
    data = DocBin(store_user_data=True, attrs=["ENT_IOB", "ENT_TYPE"], docs=docs).to_bytes()
    again = list(DocBin().from_bytes(data).get_docs(trained.vocab))
    assert [found_in(doc) for doc in again] == [found_in(doc) for doc in docs]


def test_stripping_changes_no_prediction(trained: Language, tmp_path: Path) -> None:
    docs = texts_of(trained)
    before = [trained(copy.deepcopy(doc))._.relations for doc in docs]
    trained.to_disk(tmp_path / "whole")
    trained.get_pipe("gmoe_rte").strip_auxiliary()
    assert [trained(copy.deepcopy(doc))._.relations for doc in docs] == before
    trained.to_disk(tmp_path / "stripped")
    again = spacy.load(tmp_path / "stripped")
    assert [again(copy.deepcopy(doc))._.relations for doc in docs] == before
    weights = "gmoe_rte/model/triplets/model.safetensors"
    assert (tmp_path / "stripped" / weights).stat().st_size < (tmp_path / "whole" / weights).stat().st_size
    with pytest.raises(ValueError, match="stripped"):
        again.update(make_examples(again, 2))


def test_attention_can_be_read(trained: Language) -> None:
    doc = trained.make_doc("alice works for acme")
    read = trained.get_pipe("gmoe_rte").attention(doc)
    assert read.experts == ("entities", "relations", "triplets")
    (weights,) = read.weights
    assert weights.shape == (4, 4, 3, 3)
    assert weights.sum(-1) == pytest.approx(1.0, abs=1e-5)
    assert trained.get_pipe("gmoe_rte").attention(trained.make_doc("")).weights == []


# --- odd documents ------------------------------------------------------------------------------------------------


def test_what_only_training_reads_follows_the_config(make_gmoe: Make, tmp_path: Path) -> None:
    make_gmoe().to_disk(tmp_path)
    model = "components.gmoe_rte.model"
    again = spacy.load(tmp_path, config={f"{model}.alpha": 0.0, f"{model}.encoder.mixed_precision": True})
    pipe: Any = again.get_pipe("gmoe_rte")
    assert pipe.bundle.network.weights == {"entities": 0.0, "relations": 0.1}
    assert pipe.model.layers[0].shims[0].bundle.network.mixed_precision
    assert pipe.symmetric == ("spouse",)
    pipe = spacy.load(tmp_path, config={"components.gmoe_rte.symmetric": []}).get_pipe("gmoe_rte")
    assert pipe.symmetric == ("spouse",), "the network has learnt with it"


@pytest.mark.parametrize(
    "words",
    [[], ["a"], [" "], ["\n", "\t"], ["\x00", "\u200b", "😀"], ["e\u0301"] * 3, ["x" * 5000], ["alice"] * 400],
)
def test_odd_documents(trained: Language, words: list[str]) -> None:
    doc = trained(Doc(trained.vocab, words=words))
    assert isinstance(doc._.relations, list) and "gmoe_rte" in doc.spans


def test_a_bad_document_costs_no_other(trained: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Exception):
        pass

    pipe: Any = trained.get_pipe("gmoe_rte")
    annotate = pipe._annotate

    def fail_on_b(doc: Doc, found: Any) -> None:
        if doc.text.startswith("bob"):
            raise Broken
        annotate(doc, found)

    monkeypatch.setattr(pipe, "_annotate", fail_on_b)
    failed: list[Doc] = []
    trained.set_error_handler(lambda name, proc, docs, error: failed.extend(docs))
    texts = ("alice smith works for acme", "bob married dave", "dave lives in paris")
    docs = [Doc(trained.vocab, words=text.split()) for text in texts]
    good = list(trained.pipe(docs))
    assert [doc.text for doc in failed] == ["bob married dave "]
    assert [len(doc._.relations) for doc in good] == [1, 1]


def test_without_network(no_network: None) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("gmoe_rte")
    with pytest.raises(ValueError, match=r"nlp\.initialize"):
        nlp("alice works for acme")


def test_wrong_settings() -> None:
    for config, message in (
        ({"threshold": 2}, "threshold is 2"),
        ({"symmetric": "spouse"}, "symmetric"),
        ({"batch_words": 0}, "batch_words is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            spacy.blank("en").add_pipe("gmoe_rte", config=config)


def test_encoder_that_is_not_there(make_gmoe: Make, tmp_path: Path) -> None:
    encoder = {"@architectures": "spacy_ie_moe.SentenceEncoder.v1", "name": str(tmp_path / "none")}
    with pytest.raises(OSError, match="is no folder with an encoder"):
        make_gmoe(encoder=encoder)
