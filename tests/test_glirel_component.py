"""The ``glirel`` component from the user's side."""

from __future__ import annotations

import importlib
import json
import logging
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span

from spacy_ie_moe.glirel import checkpoint
from spacy_ie_moe.relations import check_relation, sort_relations

from .conftest import (
    KINDS,
    LABELS,
    NO_CHECKPOINT,
    WORDS,
    Entity,
    assert_same_scores,
    make_doc,
    make_nlp,
    random_doc,
    random_docs,
    scores_of,
)

Pipelines = Callable[..., Language]
TEXT = "alice founded acme near paris and bob works for globex"
ENTS: list[Entity] = [(0, 1, "PER"), (2, 3, "ORG"), (4, 5, "LOC"), (6, 7, "PER"), (9, 10, "ORG")]


@pytest.fixture(scope="module")
def pipelines(new_checkpoint: Callable[..., Path]) -> Pipelines:
    """Pipelines that keep everything, by kind and encoder; tests leave them as they are."""
    made: dict[tuple[str, str], Language] = {}

    def get(kind: str, encoder: str = "bert") -> Language:
        if (kind, encoder) not in made:
            made[kind, encoder] = make_nlp(new_checkpoint(kind, encoder))
        return made[kind, encoder]

    return get


def component_of(nlp: Language) -> Any:
    return nlp.get_pipe("glirel")


# --- config ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"threshold": 1.5}, "threshold is 1.5; expected a number from 0 to 1"),
        ({"threshold": -0.1}, "threshold"),
        ({"threshold": "high"}, "threshold"),
        ({"top_k": 0}, "top_k is 0; expected a whole number of at least 1, or None"),
        ({"max_pair_distance": -1}, "max_pair_distance is -1"),
        ({"batch_pieces": 0}, "batch_pieces is 0"),
        ({"labels": "founder"}, "labels"),
        ({"labels": [""]}, "expected a non-empty string"),
        ({"labels": {"a": {"allowed_heads": []}}}, "allowed_heads"),
        ({"labels": {"a": {"inverse": "b"}}}, "expected the name of another given label"),
        ({"model": {"checkpoint": None}}, "expected exactly one of them"),
        ({"model": {"encoder": "some/encoder"}}, "expected exactly one of them"),
        ({"model": {"precision": "float16"}}, "precision"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
def test_wrong_options_are_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_nlp(NO_CHECKPOINT, **{**config, "model": config.get("model", {})})


@pytest.mark.parametrize(
    ("option", "value"),
    [*(("threshold", value) for value in (1.5, None, float("nan"))), *(("top_k", value) for value in (0, 1.5, True))],
)
def test_settings_are_checked_when_they_are_set(option: str, value: Any) -> None:
    component = component_of(make_nlp(NO_CHECKPOINT))
    with pytest.raises(ValueError, match=option):
        setattr(component, option, value)


def test_a_checkpoint_that_is_not_there_is_named_when_it_is_needed() -> None:
    nlp = make_nlp(NO_CHECKPOINT)
    with pytest.raises(FileNotFoundError, match=f"'{NO_CHECKPOINT}' is neither a bundled model"):
        nlp(make_doc(nlp, TEXT, ENTS))


# --- labels ---------------------------------------------------------------------------------------------------


def test_labels_from_everywhere(kind: str, pipelines: Pipelines, new_checkpoint: Callable[..., Path]) -> None:
    names = ["spouse", "founder"]
    expected = scores_of(make_nlp(new_checkpoint(kind), labels=names)(make_doc(pipelines(kind), TEXT, ENTS)))
    assert {key[4] for key in expected} == set(names)
    nlp = pipelines(kind)
    doc = make_doc(nlp, TEXT, ENTS)
    doc._.relation_labels = names
    assert scores_of(nlp(doc)) == pytest.approx(expected, abs=1e-6)
    doc = make_doc(nlp, TEXT, ENTS)
    doc._.relation_labels = {name: {} for name in names}
    assert scores_of(nlp(doc)) == pytest.approx(expected, abs=1e-6)
    context = {"glirel_labels": names, "mine": 1}
    ((doc, back),) = nlp.pipe([(make_doc(nlp, TEXT, ENTS), context)], as_tuples=True)
    assert back is context
    assert scores_of(doc) == pytest.approx(expected, abs=1e-6)


def test_a_documents_own_labels_go_first_and_each_has_its_own(pipelines: Pipelines) -> None:
    nlp = pipelines("prompt")
    docs = [make_doc(nlp, TEXT, ENTS) for _ in range(4)]
    docs[0]._.relation_labels = ["spouse"]
    docs[1]._.relation_labels = []
    pairs = [(doc, {"glirel_labels": ["founder"]} if index < 3 else 7) for index, doc in enumerate(docs)]
    found = [{key[4] for key in scores_of(doc)} for doc, _ in nlp.pipe(pairs, as_tuples=True)]
    assert found == [{"spouse"}, set(), {"founder"}, set(LABELS)]


def test_without_labels_those_of_the_checkpoint_apply_and_that_is_said_once(
    new_checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    nlp = make_nlp(new_checkpoint("prompt"), labels=None)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert {key[4] for key in scores_of(nlp(make_doc(nlp, TEXT, ENTS)))} == set(LABELS)
    assert len([r for r in caplog.records if "of the checkpoint apply" in r.message]) == 1
    assert component_of(nlp).labels == tuple(LABELS)


def test_without_any_labels_what_to_do_is_said(new_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    bundle = checkpoint.load(new_checkpoint("anchored"))
    bundle.labels = []
    checkpoint.save(bundle, tmp_path)
    nlp = make_nlp(tmp_path, labels=None)
    with pytest.raises(ValueError, match=r"expected labels in the config, in doc\._\.relation_labels"):
        nlp(make_doc(nlp, TEXT, ENTS))


def test_set_labels_is_saved(new_checkpoint: Callable[..., Path]) -> None:
    nlp = make_nlp(new_checkpoint("prompt"))
    component = component_of(nlp)
    component.set_labels({"owner": {"threshold": 0.25}})
    component.threshold, component.top_k = 0.125, 2
    again = make_nlp(NO_CHECKPOINT)
    component_of(again).from_bytes(component.to_bytes())
    assert component_of(again).labels == ("owner",)
    assert (component_of(again).threshold, component_of(again).top_k) == (0.125, 2)


def test_duplicate_labels_are_one(kind: str, new_checkpoint: Callable[..., Path]) -> None:
    source = new_checkpoint(kind)
    once, twice = make_nlp(source, labels=LABELS[:2]), make_nlp(source, labels=[*LABELS[:2], LABELS[0]])
    assert_same_scores(once(make_doc(once, TEXT, ENTS)), twice(make_doc(twice, TEXT, ENTS)))


def test_the_order_of_labels_does_not_matter_to_the_anchored_network(new_checkpoint: Callable[..., Path]) -> None:
    # peers.md 1.2, item 5
    source = new_checkpoint("anchored")
    one, other = make_nlp(source, labels=LABELS), make_nlp(source, labels=LABELS[::-1])
    assert_same_scores(one(make_doc(one, TEXT, ENTS)), other(make_doc(other, TEXT, ENTS)), tolerance=1e-6)


def test_more_labels_do_not_change_scores_of_the_anchored_network(new_checkpoint: Callable[..., Path]) -> None:
    source = new_checkpoint("anchored")
    few, many = make_nlp(source, labels=LABELS[:2]), make_nlp(source, labels=[*make_labels(200), *LABELS])
    found = scores_of(many(make_doc(many, TEXT, ENTS)))
    for key, score in scores_of(few(make_doc(few, TEXT, ENTS))).items():
        assert found[key] == pytest.approx(score, abs=1e-6)


def test_descriptions_are_read(kind: str, new_checkpoint: Callable[..., Path]) -> None:
    source = new_checkpoint(kind)
    plain, described = (
        make_nlp(source, labels=["founder"]),
        make_nlp(source, labels={"founder": {"description": "the one who founded a company"}}),
    )
    before, after = (scores_of(nlp(make_doc(nlp, TEXT, ENTS))) for nlp in (plain, described))
    assert before.keys() == after.keys()
    assert before != pytest.approx(after, abs=1e-4)


# --- what is kept ---------------------------------------------------------------------------------------------


def keep_naively(
    full: dict[tuple[Any, ...], float],
    types: dict[tuple[int, int], str],
    labels: dict[str, dict[str, Any]],
    threshold: float,
    top_k: int | None,
) -> set[tuple[Any, ...]]:
    """Types and thresholds first, then echoes, then the best labels of each ordered pair."""
    kept: set[tuple[Any, ...]] = set()
    for key, score in sorted(full.items(), key=lambda item: (-item[1], item[0])):
        pair, label, options = key[:4], key[4], labels[key[4]]
        heads, tails, own = options.get("allowed_head"), options.get("allowed_tail"), options.get("threshold")
        if (heads and types[key[:2]] not in heads) or (tails and types[key[2:4]] not in tails):
            continue
        if score < (threshold if own is None else own):
            continue
        echoes = [label] if options.get("symmetric") else []
        echoes += [other for other in labels if labels[other].get("inverse") == label]
        echoes += [options["inverse"]] if options.get("inverse") else []
        if any((*pair[2:], *pair[:2], echo) in kept for echo in echoes):
            continue
        if top_k is None or sum(other[:4] == pair for other in kept) < top_k:
            kept.add(key)
    return kept


types_of = st.none() | st.lists(st.sampled_from(["PER", "ORG", "LOC", "NONE"]), max_size=2)
options_of = st.fixed_dictionaries(
    {"allowed_head": types_of, "allowed_tail": types_of},
    optional={
        "symmetric": st.booleans(),
        "inverse": st.sampled_from(LABELS),
        "threshold": st.none() | st.sampled_from([0, 0.25, 0.75, 1]) | st.floats(0, 1),
    },
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(
    labels=st.fixed_dictionaries({label: options_of for label in LABELS}),
    threshold=st.sampled_from([0, 0.5, 0.9]) | st.floats(0, 1),
    top_k=st.none() | st.integers(1, 6),
)
def test_selection_equals_a_naive_one(
    pipelines: Pipelines, kind: str, labels: dict[str, Any], threshold: float, top_k: int | None
) -> None:
    nlp = pipelines(kind)
    component = component_of(nlp)
    full = scores_of(nlp(make_doc(nlp, TEXT, ENTS)))
    types = {(start, end): label for start, end, label in ENTS}
    component.threshold, component.top_k = threshold, top_k
    try:
        doc = make_doc(nlp, TEXT, ENTS)
        doc._.relation_labels = {label: labels[label] for label in LABELS}  # their order is read, too
        relations = nlp(doc)._.relations
    finally:
        component.threshold, component.top_k = 0, None
    assert set(scores_of(doc)) == keep_naively(full, types, labels, threshold, top_k)
    assert relations == sort_relations(relations)


def test_missing_or_empty_types_allow_any(kind: str, new_checkpoint: Callable[..., Path]) -> None:
    # peers.md 1.2, item 1: the reference finds nothing for such labels.
    options: list[Any] = [None, {}, {"allowed_head": []}, {"allowed_tail": []}, {"allowed_head": None}]
    labels = {label: option or {} for label, option in zip(LABELS, options, strict=True)}
    nlp = make_nlp(new_checkpoint(kind), labels=labels)
    assert len(nlp(make_doc(nlp, TEXT, ENTS))._.relations) == 5 * 4 * len(LABELS)


def test_types_come_before_the_best_label(kind: str, pipelines: Pipelines) -> None:
    # The reference drops a pair whose best label is not allowed.
    nlp = pipelines(kind)
    full = scores_of(nlp(make_doc(nlp, TEXT, ENTS)))
    best = max(LABELS, key=lambda label: full[0, 1, 2, 3, label])
    doc = make_doc(nlp, TEXT, ENTS)
    doc._.relation_labels = {label: {"allowed_head": ["LOC"]} if label == best else {} for label in LABELS}
    component_of(nlp).top_k = 1
    try:
        found = scores_of(nlp(doc))
    finally:
        component_of(nlp).top_k = None
    second = max((label for label in LABELS if label != best), key=lambda label: full[0, 1, 2, 3, label])
    assert found[0, 1, 2, 3, second] == pytest.approx(full[0, 1, 2, 3, second], abs=1e-6)


def test_thresholds_of_the_config_are_used_and_zero_is_zero(new_checkpoint: Callable[..., Path]) -> None:
    # peers.md 1.2, items 2 and 5
    source = new_checkpoint("anchored")
    for threshold in (0, 0.0, 0.5, 0.9, 1):
        nlp = make_nlp(source, threshold=threshold)
        full = scores_of(make_nlp(source)(make_doc(nlp, TEXT, ENTS)))
        found = scores_of(nlp(make_doc(nlp, TEXT, ENTS)))
        assert found == {key: score for key, score in full.items() if score >= threshold}
    assert len(full) == 100


def test_a_score_equal_to_the_threshold_is_kept(kind: str, pipelines: Pipelines) -> None:
    nlp = pipelines(kind)
    full = nlp(make_doc(nlp, TEXT, ENTS))._.relations
    component = component_of(nlp)
    try:
        for relation in full[::7]:
            component.threshold = relation["score"]
            kept = nlp(make_doc(nlp, TEXT, ENTS))._.relations
            assert relation in kept
            assert all(other["score"] >= relation["score"] for other in kept)
            component.threshold = float(np.nextafter(relation["score"], 2))
            assert relation not in nlp(make_doc(nlp, TEXT, ENTS))._.relations
    finally:
        component.threshold = 0


def test_defaults_are_one_label_per_pair_from_a_half(new_checkpoint: Callable[..., Path]) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("glirel", config={"labels": LABELS, "model": {"checkpoint": str(new_checkpoint("anchored"))}})
    found = scores_of(nlp(make_doc(nlp, TEXT, ENTS)))
    assert found
    assert len({key[:4] for key in found}) == len(found)
    assert min(found.values()) >= 0.5


# --- candidates -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", [0, 2, 5, None])
def test_distance_holds_in_both_directions(kind: str, new_checkpoint: Callable[..., Path], distance: Any) -> None:
    nlp = make_nlp(new_checkpoint(kind), max_pair_distance=distance)
    found = scores_of(nlp(make_doc(nlp, TEXT, ENTS)))
    starts = [start for start, _, _ in ENTS]
    limit = 100 if distance is None else distance
    assert {(key[0], key[2]) for key in found} == {
        (head, tail) for head in starts for tail in starts if head != tail and abs(head - tail) <= limit
    }


def test_span_groups_overlap_repeat_are_empty_or_missing(kind: str, new_checkpoint: Callable[..., Path]) -> None:
    nlp = make_nlp(
        new_checkpoint(kind),
        span_groups=["a", "b", "empty", "missing"],
        labels={"founder": {"allowed_head": ["PER"]}, "spouse": {"allowed_head": ["ORG"], "allowed_tail": ["LOC"]}},
    )
    doc = make_doc(nlp, TEXT, [(9, 10, "ORG")])  # entities are not taken where groups are
    doc.spans["a"] = [Span(doc, 0, 3, "PER"), Span(doc, 0, 1, "ORG"), Span(doc, 4, 5, "LOC"), Span(doc, 2, 2, "PER")]
    doc.spans["b"] = [Span(doc, 0, 1, "PER"), Span(doc, 0, 1, "PER"), Span(doc, 2, 3)]
    doc.spans["empty"] = []
    found = {key: (r["head_label"], r["tail_label"]) for key, r in by_key(nlp(doc)).items()}
    assert found == {
        (0, 1, 0, 3, "founder"): ("PER", "PER"),
        (0, 1, 2, 3, "founder"): ("PER", ""),
        (0, 1, 4, 5, "founder"): ("PER", "LOC"),
        (0, 3, 0, 1, "founder"): ("PER", "ORG"),
        (0, 3, 2, 3, "founder"): ("PER", ""),
        (0, 3, 4, 5, "founder"): ("PER", "LOC"),
        (0, 1, 4, 5, "spouse"): ("ORG", "LOC"),
    }


def by_key(doc: Doc) -> dict[tuple[Any, ...], Any]:
    return {(*r["head_pos"], *r["tail_pos"], r["label"]): r for r in doc._.relations}


@pytest.mark.parametrize("text", ["", " ", "\n\n", "alice", "alice founded acme"])
def test_documents_without_pairs_need_no_checkpoint(text: str) -> None:
    # peers.md 1.2, item 5: the reference fails on a document without entities.
    nlp = make_nlp(NO_CHECKPOINT, span_groups=["given"])
    docs = [nlp.make_doc(text) for _ in range(3)]
    if len(docs[0]):
        docs[1].spans["given"] = [Span(docs[1], 0, 1, "PER")]
        docs[2].spans["given"] = [Span(docs[2], 0, 1, "PER"), Span(docs[2], 0, 1, "ORG")]
    for doc in nlp.pipe(docs):
        assert (doc._.relations, doc._.unscored_pairs) == ([], 0)
    assert component_of(nlp).model.shims[0]._bundle is None


def test_plain_text_in_relations_out(kind: str, new_checkpoint: Callable[..., Path]) -> None:
    # peers.md 1.2, item 3: nlp("text") fails with the reference.
    nlp = make_nlp(new_checkpoint(kind))
    ruler: Any = nlp.add_pipe("entity_ruler", first=True)
    ruler.add_patterns([{"label": "PER", "pattern": "Alice"}, {"label": "ORG", "pattern": "Acme"}])
    doc = nlp("Alice founded Acme.")
    assert len(doc._.relations) == 2 * len(LABELS)
    for relation in doc._.relations:
        check_relation(doc, relation)
        head = Span(doc, *relation["head_pos"])
        assert relation["head_text"] == [token.text for token in head]
        assert relation["head_label"] == head.ents[0].label_
    assert nlp("")._.relations == []
    assert json.loads(json.dumps(doc._.relations)) == doc._.relations


# --- streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ["bert", "deberta"])
@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_pipe_equals_call(kind: str, encoder: str, batch_size: int, pipelines: Pipelines) -> None:
    nlp = pipelines(kind, encoder)
    alone = [nlp(doc) for doc in random_docs(nlp, 24)]
    for left, right in zip(alone, nlp.pipe(random_docs(nlp, 24), batch_size=batch_size), strict=True):
        assert_same_scores(left, right)
    assert sum(len(doc._.relations) for doc in alone) > 400


@pytest.mark.parametrize("batch_pieces", [1, 70, 100_000])
def test_order_and_batch_pieces_do_not_matter(
    kind: str, batch_pieces: int, pipelines: Pipelines, new_checkpoint: Callable[..., Path]
) -> None:
    alone = [pipelines(kind)(doc) for doc in random_docs(pipelines(kind), 24)]
    nlp = make_nlp(new_checkpoint(kind), batch_pieces=batch_pieces)
    docs = list(enumerate(random_docs(nlp, 24)))
    random.Random(1).shuffle(docs)
    for doc, index in nlp.pipe(((doc, index) for index, doc in docs), as_tuples=True):
        assert_same_scores(doc, alone[index])


def test_the_same_input_gives_the_same_bits(kind: str, new_checkpoint: Callable[..., Path]) -> None:
    runs = []
    for _ in range(2):
        nlp = make_nlp(new_checkpoint(kind))
        runs.append([doc._.relations for doc in nlp.pipe(random_docs(nlp, 12))])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_pipe_stays_lazy(batch_size: int, pipelines: Pipelines) -> None:
    nlp = pipelines("anchored")
    read = 0

    def stream() -> Iterator[Doc]:
        nonlocal read
        while True:
            read += 1
            yield make_doc(nlp, "alice founded acme")

    docs = nlp.pipe(stream(), batch_size=batch_size)
    assert read == 0
    next(docs)
    assert read <= min(batch_size, 256)


def test_one_bad_document_costs_no_other_and_contexts_stay_aligned(kind: str, pipelines: Pipelines) -> None:
    nlp = pipelines(kind)
    alone = [nlp(doc) for doc in random_docs(nlp, 15)]
    docs = random_docs(nlp, 15)
    docs[4]._.relation_labels = {"a": {"threshold": "high"}}
    failed: list[tuple[Doc, str]] = []
    nlp.set_error_handler(lambda name, pipe, bad, error: failed.extend((doc, str(error)) for doc in bad))
    try:
        found = list(nlp.pipe([(doc, index) for index, doc in enumerate(docs)], as_tuples=True, batch_size=8))
    finally:
        nlp.set_error_handler(spacy.util.raise_error)
    assert [index for _, index in found] == [index for index in range(15) if index != 4]
    for doc, index in found:
        assert doc is docs[index]
        assert_same_scores(doc, alone[index])
    ((bad, message),) = failed
    assert bad is docs[4]
    assert "expected a number from 0 to 1" in message


def test_errors_are_raised_by_default(pipelines: Pipelines) -> None:
    nlp = pipelines("anchored")
    docs = random_docs(nlp, 15)
    docs[4]._.relation_labels = 3
    with pytest.raises(ValueError, match=r"doc\._\.relation_labels is 3"):
        list(nlp.pipe(docs))


@pytest.mark.parametrize("encoder", ["bert", "deberta"])
def test_threads_share_a_pipeline(kind: str, encoder: str, new_checkpoint: Callable[..., Path]) -> None:
    nlp = make_nlp(new_checkpoint(kind, encoder))  # which loads its network in the threads
    expected = [scores_of(doc) for doc in make_nlp(new_checkpoint(kind, encoder)).pipe(random_docs(nlp, 24))]
    docs = random_docs(nlp, 24)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(nlp, docs))
    for doc, scores in zip(found, expected, strict=True):
        assert scores_of(doc) == pytest.approx(scores, abs=1e-5)


def test_processes_give_the_same(kind: str, pipelines: Pipelines) -> None:
    # peers.md 1.2, items 11 and 16
    nlp = pipelines(kind)
    alone = [nlp(doc) for doc in random_docs(nlp, 12)]
    stream = [(doc, {"glirel_labels": LABELS, "index": index}) for index, doc in enumerate(random_docs(nlp, 12))]
    found = list(nlp.pipe(stream, as_tuples=True, n_process=2, batch_size=3))
    assert [context["index"] for _, context in found] == list(range(12))
    for (doc, _), own in zip(found, alone, strict=True):
        assert_same_scores(doc, own)
        assert [span.label for span in doc._.relation_spans] == [relation["label"] for relation in doc._.relations]


# --- long documents -------------------------------------------------------------------------------------------


def long_doc(nlp: Language, n_words: int = 1280, n_ents: int = 40, seed: int = 3) -> Doc:
    return random_doc(nlp, random.Random(seed), n_words, n_ents)


def test_long_documents_are_read_to_the_end_and_unscored_pairs_counted(kind: str, pipelines: Pipelines) -> None:
    # peers.md 1.2, item 4: ten times what the encoder reads
    nlp = pipelines(kind)
    doc = nlp(long_doc(nlp))
    found = scores_of(doc)
    by_pair: dict[tuple[Any, ...], set[str]] = {}
    for key in found:
        by_pair.setdefault(key[:4], set()).add(key[4])
    assert all(labels == set(LABELS) for labels in by_pair.values())
    n = len(doc.ents)
    assert doc._.unscored_pairs == n * (n - 1) - len(by_pair)
    for pair in by_pair:
        assert max(pair) - min(pair) <= 126
    for left, right in zip(doc.ents, doc.ents[1:], strict=False):
        if right.end - left.start <= 40:
            assert (left.start, left.end, right.start, right.end) in by_pair
            assert (right.start, right.end, left.start, left.end) in by_pair
    assert max(key[1] for key in found) > 1100
    assert len(set(found.values())) > 0.9 * len(found), "scores do not depend on the entities"


def test_scores_of_far_entities_depend_on_them(kind: str, pipelines: Pipelines) -> None:
    nlp = pipelines(kind)
    doc = nlp(long_doc(nlp))
    left, right = next((a, b) for a, b in zip(doc.ents[20:], doc.ents[21:], strict=False) if b.end - a.start <= 40)
    words = [token.text for token in doc]
    words[right.start] = "zebra" if words[right.start] != "zebra" else "paris"
    ents = [(ent.start, ent.end, ent.label_) for ent in doc.ents]
    changed = scores_of(nlp(make_doc(nlp, words, ents)))
    keys = [(left.start, left.end, right.start, right.end, label) for label in LABELS]
    assert max(abs(changed[key] - scores_of(doc)[key]) for key in keys) > 1e-4
    first, second = doc.ents[:2]
    early = (first.start, first.end, second.start, second.end, LABELS[0])
    assert changed[early] == pytest.approx(scores_of(doc)[early], abs=1e-6)


def test_unscored_pairs_are_said_once(new_checkpoint: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    nlp = make_nlp(new_checkpoint("anchored"))
    with caplog.at_level(logging.WARNING):
        docs = list(nlp.pipe([long_doc(nlp), long_doc(nlp)]))
    assert len([r for r in caplog.records if "too far apart" in r.message]) == 1
    assert component_of(nlp).unscored_pairs == sum(doc._.unscored_pairs for doc in docs) > 0


def test_an_entity_longer_than_the_encoder_has_no_scores(kind: str, pipelines: Pipelines) -> None:
    nlp = pipelines(kind)
    doc = nlp(make_doc(nlp, ["paris"] * 400, [(0, 1, "A"), (2, 300, "B"), (3 + 300, 304, "C"), (310, 311, "D")]))
    assert not any(key[1] - key[0] > 1 or key[3] - key[2] > 1 for key in scores_of(doc))
    assert doc._.unscored_pairs >= 6


def test_an_encoder_without_limit_reads_all(kind: str, new_checkpoint: Callable[..., Path]) -> None:
    nlp = make_nlp(new_checkpoint(kind, "deberta"))
    doc = nlp(long_doc(nlp, 600, 12))
    assert doc._.unscored_pairs == 0
    assert len(doc._.relations) == 12 * 11 * len(LABELS)


def test_max_len_windows_by_words(kind: str, new_checkpoint: Callable[..., Path]) -> None:
    nlp = make_nlp(new_checkpoint(kind, "deberta", max_len=20))
    doc = nlp(long_doc(nlp, 200, 40))
    found = scores_of(doc)
    assert all(max(key[:4]) - min(key[:4]) <= 20 for key in found)
    assert doc._.unscored_pairs == 40 * 39 - len(found) / len(LABELS) > 0
    assert max(key[1] for key in found) > 190


def make_labels(n: int) -> list[str]:
    return [f"{WORDS[i % len(WORDS)]} {WORDS[i // len(WORDS)]}" for i in range(n)]


@pytest.mark.parametrize("n_words", [10, 300])
def test_three_hundred_labels(kind: str, n_words: int, pipelines: Pipelines) -> None:
    # peers.md 1.2, item 5: more labels than the encoder reads at once
    nlp = pipelines(kind)
    labels = make_labels(300)
    words = [*TEXT.split(), *(["river"] * (n_words - 10))]
    component = component_of(nlp)
    full = make_doc(nlp, words, ENTS)
    full._.relation_labels = labels
    found = scores_of(nlp(full))
    assert len(found) == 5 * 4 * 300
    assert full._.unscored_pairs == 0
    component.top_k = 2
    try:
        best = make_doc(nlp, words, ENTS)
        best._.relation_labels = labels
        kept = scores_of(nlp(best))
    finally:
        component.top_k = None
    for pair in {key[:4] for key in found}:
        own = sorted((score for key, score in found.items() if key[:4] == pair), reverse=True)
        assert sorted((s for k, s in kept.items() if k[:4] == pair), reverse=True) == pytest.approx(own[:2], abs=1e-5)


def test_a_pair_has_scores_of_all_labels_or_of_none(kind: str, pipelines: Pipelines) -> None:
    # Labels read in groups leave windows of different sizes; a pair must not lose only some of its labels.
    nlp = pipelines(kind)
    labels = [*(" ".join(WORDS[i : i + 20]) for i in range(3)), *make_labels(40)]
    for distance in range(20, 90, 2):
        words = ["river"] * 300
        ents = [(100, 101, "PER"), (100 + distance, 101 + distance, "ORG")]
        doc = make_doc(nlp, words, ents)
        doc._.relation_labels = labels
        counts = len(scores_of(nlp(doc)))
        assert counts in (0, 2 * len(labels)), f"{counts} scores at distance {distance}"
        assert doc._.unscored_pairs == (0 if counts else 2)


@pytest.mark.parametrize("n_pieces", [50, 100, 124, 130, 500])
def test_a_label_of_any_length_has_scores_or_is_named(kind: str, n_pieces: int, pipelines: Pipelines) -> None:
    nlp = pipelines(kind)
    doc = make_doc(nlp, TEXT, ENTS)
    doc._.relation_labels = {"founder": {"description": " ".join(["paris"] * n_pieces)}, "spouse": {}}
    try:
        nlp(doc)
    except ValueError as error:
        assert "founder" in str(error)
    else:
        assert len(scores_of(doc)) == 2 * (20 - doc._.unscored_pairs) > 0
        assert all(0 <= score <= 1 for score in scores_of(doc).values())


# --- odd texts ------------------------------------------------------------------------------------------------


def test_special_tokens_in_a_text_are_text(kind: str, pipelines: Pipelines) -> None:
    nlp = pipelines(kind)
    forged = ["alice", "[SEP]", "[REL]", "founder", "[CLS]", "acme", "[PAD]", "[MASK]", "[E]"]
    doc = nlp(make_doc(nlp, forged, [(0, 1, "PER"), (5, 6, "ORG")]))
    pieces = component_of(nlp).bundle.network.pieces
    special = {pieces.token_id(token) for token in ("[SEP]", "[CLS]", "[PAD]", "[MASK]")}
    assert not any(special & set(word) for word in pieces(forged))
    assert len(doc._.relations) == 2 * len(LABELS)


SCRIPTS = ["🙂", "👩\u200d👩\u200d👧", "שלום", "مرحبا", "日本", "e\u0301", "\u00e9", "\u202e"]
ODD = ["\x00", "\n", "  ", "\u200b", "[SEP]", "a" * 500, *SCRIPTS]


@pytest.mark.parametrize("word", ODD)
def test_odd_words_are_kept_as_they_are(kind: str, word: str, pipelines: Pipelines) -> None:
    nlp = pipelines(kind)
    doc = nlp(make_doc(nlp, ["alice", word, "acme", word], [(0, 1, "PER"), (1, 3, "ORG"), (3, 4, "X")]))
    assert len(doc._.relations) + doc._.unscored_pairs * len(LABELS) == 6 * len(LABELS)
    for relation in doc._.relations:
        start, end = relation["head_pos"]
        assert relation["head_text"] == [token.text for token in doc[start:end]]
        assert np.isfinite(relation["score"])


@pytest.mark.parametrize("label", ["\ud800", "a\udfffb", "🙂", "\x00", "שלום", "[SEP]", "[REL] founder"])
def test_odd_labels(kind: str, label: str, pipelines: Pipelines) -> None:
    nlp = pipelines(kind)
    doc = make_doc(nlp, TEXT, ENTS)
    doc._.relation_labels = [label, "founder"]
    assert {key[4] for key in scores_of(nlp(doc))} == {label, "founder"}


odd_word = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
word = st.sampled_from([*WORDS, *ODD]) | odd_word
long_words = st.builds(lambda few, n: (few * n)[:3000], st.lists(word, min_size=1, max_size=30), st.integers(1, 100))
spans = st.lists(st.tuples(st.integers(0, 2999), st.integers(0, 4), st.sampled_from(["", "PER", "ORG"])), max_size=60)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    words=st.lists(word, max_size=40) | long_words,
    drawn=spans,
    n_labels=st.integers(1, 5) | st.integers(1, 300),
    threshold=st.sampled_from([0, 0.5, 0.9]),
    top_k=st.sampled_from([1, 3]),
)
def test_any_document(
    pipelines: Pipelines, kind: str, words: list[str], drawn: Any, n_labels: int, threshold: float, top_k: int
) -> None:
    nlp = pipelines(kind)
    check_any(nlp, words, drawn, n_labels, threshold, top_k)


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_of_everything_at_once(pipelines: Pipelines, kind: str) -> None:
    rng = random.Random(4)
    words = rng.choices([*WORDS, "zebra", "\n"], k=3000)
    drawn = [(rng.randrange(3000), rng.randint(1, 4), "PER") for _ in range(60)]
    doc = check_any(pipelines(kind), words, drawn, 300, 0.5, 1)
    assert doc._.unscored_pairs > 1000


def check_any(nlp: Language, words: list[str], drawn: Any, n_labels: int, threshold: float, top_k: int) -> Doc:
    component = component_of(nlp)
    doc = Doc(nlp.vocab, words=words)
    n = len(doc)
    spans = [Span(doc, s % n, min(n, s % n + length), label) for s, length, label in drawn] if n else []
    doc.spans["any"] = spans
    doc._.relation_labels = labels = make_labels(n_labels)
    component.span_groups, component.threshold, component.top_k = ["any"], threshold, top_k
    try:
        relations = nlp(doc)._.relations
    finally:
        component.span_groups, component.threshold, component.top_k = [], 0, None
    candidates = {(span.start, span.end) for span in spans if span.start < span.end}
    found = scores_of(doc)
    assert relations == sort_relations(relations)
    for relation in relations:
        check_relation(doc, relation)
        assert tuple(relation["head_pos"]) in candidates
        assert tuple(relation["tail_pos"]) in candidates
        assert relation["head_pos"] != relation["tail_pos"]
        assert relation["label"] in labels
        assert threshold <= relation["score"] <= 1
    counts: dict[tuple[Any, ...], int] = {}
    for key in found:
        counts[key[:4]] = counts.get(key[:4], 0) + 1
    assert max(counts.values(), default=0) <= top_k
    possible = len(candidates) * (len(candidates) - 1)
    if threshold == 0:
        assert len(counts) + doc._.unscored_pairs == possible
        assert all(count == min(top_k, n_labels) for count in counts.values())
    assert len(counts) + doc._.unscored_pairs <= possible
    return doc


# --- saving ---------------------------------------------------------------------------------------------------


def copy_by(way: str, nlp: Language, tmp_path: Path) -> Language:
    if way == "disk":
        nlp.to_disk(tmp_path / "saved")
        return spacy.load(tmp_path / "saved")
    again = make_nlp(NO_CHECKPOINT)
    if way == "bytes":
        return again.from_bytes(nlp.to_bytes())
    again.remove_pipe("glirel")
    again._components.append(("glirel", pickle.loads(pickle.dumps(component_of(nlp)))))
    return again


@pytest.mark.parametrize("way", ["disk", "bytes", "pickle"])
def test_copies_give_the_same_scores(way: str, kind: str, pipelines: Pipelines, tmp_path: Path) -> None:
    nlp = pipelines(kind)
    again = copy_by(way, nlp, tmp_path)
    for left, right in zip(random_docs(nlp, 10), random_docs(again, 10), strict=True):
        assert_same_scores(nlp(left), again(right), tolerance=1e-6)


def test_docbin_keeps_relations(kind: str, pipelines: Pipelines) -> None:
    nlp = pipelines(kind)
    doc = nlp(make_doc(nlp, TEXT, ENTS))
    data = DocBin(docs=[doc], store_user_data=True).to_bytes()
    (again,) = DocBin(store_user_data=True).from_bytes(data).get_docs(nlp.vocab)
    assert scores_of(again) == scores_of(doc)
    assert [r.head.text for r in again._.relation_spans] == [r.head.text for r in doc._.relation_spans]


def test_a_saved_pipeline_is_complete_and_loads_offline(
    kind: str, new_checkpoint: Callable[..., Path], tmp_path: Path, no_network: None
) -> None:
    # peers.md 1.2, item 8: the reference saves no weights.
    shutil.copytree(new_checkpoint(kind), tmp_path / "original")
    nlp = make_nlp(tmp_path / "original")
    expected = nlp(make_doc(nlp, TEXT, ENTS))._.relations
    nlp.to_disk(tmp_path / "saved")
    shutil.rmtree(tmp_path / "original")
    again = spacy.load(tmp_path / "saved")
    assert again(make_doc(again, TEXT, ENTS))._.relations == expected
    files = {path.name for path in (tmp_path / "saved" / "glirel").rglob("*") if path.is_file()}
    assert files == {"cfg", "config.json", "model.safetensors", "tokenizer.json"}
    for path in (tmp_path / "saved" / "glirel").rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            json.loads(path.read_text("utf8"))
    assert str(tmp_path) not in (tmp_path / "saved" / "glirel" / "model" / "config.json").read_text("utf8")


def test_settings_are_saved_as_they_are(new_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    nlp = make_nlp(new_checkpoint("anchored"))
    component = component_of(nlp)
    component.threshold = 0.9923871755599976
    component.max_pair_distance = 7
    component.span_groups = ["any"]
    component.set_labels({"zeta": {"threshold": 0}, "#x": {"threshold": 0.25}, "alpha": None, "US$ amount": None})
    nlp.to_disk(tmp_path)
    plain = spacy.blank("en").add_pipe("glirel", config={"model": {"checkpoint": str(new_checkpoint("anchored"))}})
    loaded: list[Any] = [component_of(spacy.load(tmp_path)), component_of(make_nlp(new_checkpoint("anchored"))), plain]
    for again in loaded:
        again.from_bytes(component.to_bytes())
        assert again.threshold == 0.9923871755599976
        assert (again.max_pair_distance, again.span_groups) == (7, ["any"])
        assert again.default_labels == component.default_labels
        assert [label.threshold for label in again.default_labels] == [0, 0.25, None, None]


def test_what_the_config_says_at_loading_wins(new_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    nlp = make_nlp(new_checkpoint("anchored"))
    component_of(nlp).threshold = 0.3
    component_of(nlp).top_k = 2
    nlp.to_disk(tmp_path)
    again = component_of(spacy.load(tmp_path, config={"components": {"glirel": {"threshold": 0.9}}}))
    assert (again.threshold, again.top_k) == (0.9, 2)


@pytest.mark.parametrize("name", ["a.b", "#x", " lead", "x=y", "x:y", "US$ amount", "a\nb"])
def test_names_that_a_config_cannot_hold_are_refused(new_checkpoint: Callable[..., Path], name: str) -> None:
    with pytest.raises(ValueError, match="a spaCy config cannot hold"):
        make_nlp(new_checkpoint("anchored"), labels={name: {}})


def test_a_set_is_no_label_list_of_a_document(new_checkpoint: Callable[..., Path]) -> None:
    nlp = make_nlp(new_checkpoint("anchored"))
    doc = make_doc(nlp, TEXT, ENTS)
    doc._.relation_labels = {"founder"}
    with pytest.raises(ValueError, match="is a set, which cannot be saved"):
        nlp(doc)


def test_pipe_reads_less_ahead_where_documents_have_many_entities(new_checkpoint: Callable[..., Path]) -> None:
    nlp = make_nlp(new_checkpoint("anchored"), threshold=1.0)
    read = []

    def stream() -> Iterator[Doc]:
        for index in range(9):
            read.append(index)
            yield make_doc(nlp, "alice " * 200, [(i, i + 1, "PER") for i in range(200)])

    next(component_of(nlp).pipe(stream()))
    assert len(read) == 2  # 200 * 200 pairs each


def test_a_package_has_its_weights_inside(
    new_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setuptools")
    folder = tmp_path / "checkpoint"
    shutil.copytree(new_checkpoint("anchored"), folder)
    nlp = make_nlp(folder)
    expected = nlp(make_doc(nlp, TEXT, ENTS))._.relations
    nlp.meta["name"] = "packed_relations"
    nlp.to_disk(tmp_path / "saved")
    (tmp_path / "packages").mkdir()
    spacy_package = [sys.executable, "-m", "spacy", "package", str(tmp_path / "saved"), str(tmp_path / "packages")]
    subprocess.run([*spacy_package, "--build", "none"], check=True, capture_output=True)
    shutil.rmtree(folder)
    shutil.rmtree(tmp_path / "saved")
    (home,) = (tmp_path / "packages").iterdir()
    subprocess.run([sys.executable, "setup.py", "--quiet", "build"], cwd=home, check=True, capture_output=True)
    monkeypatch.syspath_prepend(home / "build" / "lib")
    packed = importlib.import_module("en_packed_relations").load()
    assert expected and packed(make_doc(packed, TEXT, ENTS))._.relations == expected


def test_files_saved_twice_are_the_same(new_checkpoint: Callable[..., Path]) -> None:
    folder = new_checkpoint("prompt")
    files = checkpoint.to_files(checkpoint.load(folder))
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}


def rewrite(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text("utf8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), "utf8")


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Another set of tensors, with a hash that fits."""
    import hashlib

    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    rewrite(folder, weights_sha256=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest())


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
    "truncated weights": (lambda folder: truncate(folder / "model.safetensors"), "model.safetensors"),
    "truncated config": (lambda folder: truncate(folder / "config.json"), "config.json"),
    "truncated tokenizer": (lambda folder: truncate(folder / "tokenizer.json"), "tokenizer.json"),
    "newer version": (lambda folder: rewrite(folder, version=99), "version 99; expected one from 1"),
    "another format": (lambda folder: rewrite(folder, format="theirs"), "has no format 'spacy_ie_moe.glirel'"),
    "unknown network": (lambda folder: rewrite(folder, network="tree"), "network is 'tree'; expected one of"),
    "unknown setting": (lambda folder: rewrite(folder, settings={"depth": 3}), "'depth'; expected"),
    "no tensors": (lambda folder: change_tensors(folder, lambda t: t.clear()), "lacks"),
    "missing tensor": (lambda folder: change_tensors(folder, lambda t: t.popitem()), "lacks"),
    "extra tensor": (
        lambda folder: change_tensors(folder, lambda t: t.update(more=next(iter(t.values())).clone())),
        "has more in excess",
    ),
    "another shape": (
        lambda folder: change_tensors(folder, lambda t: t.update({k: t[k][:1].clone() for k in sorted(t)[-1:]})),
        "of shape",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoints_are_named(damage: str, new_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    # peers.md 1.2, item 6: the reference accepts an empty state dict.
    folder = tmp_path / "damaged"
    shutil.copytree(new_checkpoint("anchored"), folder)
    harm, message = DAMAGE[damage]
    harm(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        checkpoint.load(folder)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_pipelines_are_named(damage: str, pipelines: Pipelines, tmp_path: Path) -> None:
    pipelines("anchored").to_disk(tmp_path)
    harm, message = DAMAGE[damage]
    harm(tmp_path / "glirel" / "model")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        spacy.load(tmp_path)


def test_a_pipeline_without_model_is_named(pipelines: Pipelines, tmp_path: Path) -> None:
    pipelines("anchored").to_disk(tmp_path)
    shutil.rmtree(tmp_path / "glirel" / "model")
    with pytest.raises((FileNotFoundError, ValueError), match="has no model in"):
        spacy.load(tmp_path)


def test_pickles_beside_the_weights_are_not_read(new_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(new_checkpoint("anchored"), folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    checkpoint.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks model\.safetensors"):
        checkpoint.load(folder)


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_rounded_networks_are_close_and_saved_unrounded(
    precision: str, kind: str, pipelines: Pipelines, new_checkpoint: Callable[..., Path]
) -> None:
    nlp = make_nlp(new_checkpoint(kind), model={"precision": precision})
    exact, rounded = scores_of(pipelines(kind)(make_doc(nlp, TEXT, ENTS))), scores_of(nlp(make_doc(nlp, TEXT, ENTS)))
    assert rounded != exact
    assert rounded == pytest.approx(exact, abs=0.1)
    saved = checkpoint.to_files(component_of(nlp).bundle)
    assert saved["model.safetensors"] == (new_checkpoint(kind) / "model.safetensors").read_bytes()
