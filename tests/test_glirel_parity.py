"""The reference implementation's own checkpoints give its own scores, through the component."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, Span

from spacy_ie_moe.glirel.sequences import pad_sequences

from .conftest import find_fixtures, make_nlp

FIXTURES = find_fixtures()
TOLERANCE = 2e-6
VARIANTS = (
    "deberta_norefine scorer_dot_thresh scorer_dot_norm scorer_concat_proj markerv2 label_only ent_token_only "
    "pool_last pool_mean pool_first_last refine_relation_only refine_prompt_only max_distance_8 coref_classifier "
    "no_projection labels_per_text max_len_16"
)
NAMES = ["tiny", *VARIANTS.split()]
SPECIAL = {"[REL]", "[SEP]", "[CLS]", "[PAD]", "[UNK]", "[MASK]", "[E]", "[/E]", "[FLERT]"}

pytestmark = pytest.mark.skipif(
    FIXTURES is None, reason="the reference's fixtures are not here; SPACY_IE_MOE_FIXTURES names their folder"
)


@functools.cache
def read_golden(name: str) -> Any:
    assert FIXTURES is not None
    return json.loads((FIXTURES / name).read_text("utf8"))


@functools.cache
def load(name: str) -> Language:
    assert FIXTURES is not None
    folder = FIXTURES / name if name == "tiny" else FIXTURES / "variants" / name
    return make_nlp(folder, span_groups=["given"])


def items_of(name: str) -> list[dict[str, Any]]:
    if name == "tiny":
        return read_golden("golden_tiny.json")["items"]
    return read_golden("golden_variants.json")["variants"][name]["ok"]["items"]


def make_given(nlp: Language, item: dict[str, Any], labels: Any = None) -> Doc:
    doc = Doc(nlp.vocab, words=item["tokens"])
    doc.spans["given"] = [Span(doc, start, end + 1, label=kind) for start, end, kind, _ in item["ner"]]
    doc._.relation_labels = list(dict.fromkeys(item["labels"] if labels is None else labels))
    return doc


def by_pair(relations: list[dict[str, Any]]) -> dict[tuple[Any, ...], float]:
    return {(*r["head_pos"], *r["tail_pos"], r["label"]): r["score"] for r in relations}


def readable(scores: dict[tuple[Any, ...], float], name: str) -> dict[tuple[Any, ...], float]:
    """Without what the reference made up for entities behind the words that it reads."""
    if name != "max_len_16":
        return scores
    return {key: score for key, score in scores.items() if max(key[1], key[3]) <= 16}


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_the_references(name: str) -> None:
    nlp = load(name)
    compared = 0
    for item in items_of(name):
        expected = readable(by_pair(item["predict_all"].get("ok", [])), name)
        if name == "labels_per_text":  # the reference cannot predict with it; its raw logits are of `tiny`'s kind
            assert "error" in item["predict_all"]
        relations = by_pair(nlp(make_given(nlp, item))._.relations)
        for key, score in expected.items():
            assert relations[key] == pytest.approx(score, abs=TOLERANCE), (item["id"], key)
        if name not in ("max_len_16", "max_distance_8", "labels_per_text"):
            assert len(relations) == len(expected)
        compared += len(expected)
    assert compared > 50 or name == "labels_per_text"


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_references(name: str) -> None:
    nlp = load(name)
    compared = 0
    for item in items_of(name):
        raw = item["raw"].get("ok")
        if raw is None:
            continue
        expected = {
            (head[0], head[1] + 1, tail[0], tail[1] + 1, label): 1 / (1 + math.exp(-logit))
            for (head, tail), row in zip(raw["pairs_inclusive"], raw["logits"], strict=True)
            for label, logit in zip(raw["label_order"], row, strict=True)
        }
        relations = by_pair(nlp(make_given(nlp, item, raw["label_order"]))._.relations)
        for key, score in readable(expected, name).items():
            assert relations[key] == pytest.approx(score, abs=TOLERANCE), (item["id"], key)
            compared += 1
    assert compared > 50


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("labels_per_text", "max_distance_8")])
def test_the_best_label_is_the_references(name: str) -> None:
    nlp = load(name)
    component: Any = nlp.get_pipe("glirel")
    component.top_k, component.threshold = 1, 0
    try:
        for item in items_of(name):
            everything = readable(by_pair(item["predict_all"].get("ok", [])), name)
            expected = readable(by_pair(item["predict_top1"].get("ok", [])), name)
            relations = by_pair(nlp(make_given(nlp, item))._.relations)
            for key, score in expected.items():
                rivals = [s for other, s in everything.items() if other[:4] == key[:4] and other != key]
                if all(score - rival > TOLERANCE for rival in rivals):
                    assert relations[key] == pytest.approx(score, abs=TOLERANCE)
            assert len({key[:4] for key in relations}) == len(relations)
    finally:
        component.top_k, component.threshold = None, 0


@pytest.mark.parametrize("name", NAMES)
def test_the_encoder_reads_what_the_references_encoder_reads(name: str) -> None:
    nlp = load(name)
    network: Any = nlp.get_pipe("glirel").bundle.network  # type: ignore[attr-defined]
    for item in items_of(name):
        golden = item["tokenization"]
        labels = golden["elements"][1 : golden["elements"].index("[SEP]") : 2]
        words = golden["elements"][2 * len(labels) + 1 :]
        if SPECIAL & set(words):  # ours reads them as text
            continue
        row = [*network.prompt(labels), *network.pieces(words)]
        pieces = network.pieces
        batch = pad_sequences([row], prefix=pieces.prefix, suffix=pieces.suffix, pad_id=pieces.pad_id)
        assert batch.ids[0].tolist() == golden["input_ids"]


def test_batches_are_the_references() -> None:
    golden = read_golden("golden_tiny.json")
    batch, items = golden["batch"], {item["id"]: item for item in golden["items"]}
    nlp = load("tiny")
    docs = [make_given(nlp, items[index], batch["labels"]) for index in batch["item_ids"]]
    for doc, expected in zip(nlp.pipe(docs), batch["predictions"], strict=True):
        relations = by_pair(doc._.relations)
        for key, score in by_pair(expected).items():
            assert relations[key] == pytest.approx(score, abs=TOLERANCE)


def test_the_distance_of_the_reference_holds_in_both_directions() -> None:
    item = items_of("max_distance_8")[0]
    nlp = load("max_distance_8")
    component: Any = nlp.get_pipe("glirel")
    component.max_pair_distance = 8
    try:
        relations = by_pair(nlp(make_given(nlp, item))._.relations)
    finally:
        component.max_pair_distance = None
    assert relations
    assert all(abs(key[0] - key[2]) <= 8 for key in relations)
    expected = by_pair(item["predict_all"]["ok"])
    near = {key for key in expected if abs(key[0] - key[2]) <= 8}
    assert set(relations) == near


def test_saved_in_our_format_the_scores_stay(tmp_path: Path) -> None:
    nlp = load("tiny")
    item = items_of("tiny")[0]
    before = by_pair(nlp(make_given(nlp, item))._.relations)
    nlp.to_disk(tmp_path)
    again = spacy.load(tmp_path)
    assert by_pair(again(make_given(again, item))._.relations) == before
    assert not list((tmp_path / "glirel").rglob("*.bin"))
