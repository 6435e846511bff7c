"""The models that come with the package: there, small enough, and right about plain sentences."""

from __future__ import annotations

import json
import pickle
import socket
from pathlib import Path

import pytest
import spacy
from spacy.language import Language

from spacy_ie_moe.glirel import checkpoint
from spacy_ie_moe.pipeline import MODELS, bundled_pipeline

ASSETS = Path(__file__).parent.parent / "assets"


@pytest.fixture(scope="module")
def nlp() -> Language:
    labels = json.loads((ASSETS / "demo_labels.json").read_text("utf8"))
    return bundled_pipeline(labels)


def found(nlp: Language, text: str) -> set[tuple[str, str, str]]:
    return {(str(r.head), r.label, str(r.tail)) for r in nlp(text)._.relation_spans}


@pytest.mark.parametrize(
    ("text", "relation"),
    [
        ("Apple was founded by Steve Jobs in Cupertino.", ("Apple", "founded by", "Steve Jobs")),
        ("Marie Curie was born in Warsaw.", ("Marie Curie", "place of birth", "Warsaw")),
        ("Marie Curie studied at the University of Paris.", ("Marie Curie", "educated at", "University of Paris")),
    ],
)
def test_relations_that_a_reader_agrees_with(nlp: Language, text: str, relation: tuple[str, str, str]) -> None:
    assert relation in found(nlp, text)


def test_the_gold_order_outscores_the_reversed_pair() -> None:
    scored = bundled_pipeline(["place of birth"], threshold=0.0)("Marie Curie was born in Warsaw.")
    scores = {(str(r.head), str(r.tail)): r.score for r in scored._.relation_spans}
    assert scores["Marie Curie", "Warsaw"] > scores["Warsaw", "Marie Curie"]


def test_models_are_complete_and_together_below_100_mb() -> None:
    assert checkpoint.bundled_names() == ["glirel-mini"]
    for name in ("glirel-mini", "ner-mini", "uie-mini"):
        assert (MODELS / name / "README.md").read_text("utf8").startswith(f"# {name}")
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 100_000_000


def test_no_reserved_relation_was_trained_on() -> None:
    reserved = set((ASSETS / "reserved_relations.txt").read_text("utf8").splitlines())
    config = json.loads((MODELS / "glirel-mini" / "config.json").read_text("utf8"))
    assert not reserved & set(config["labels"])


def test_raw_text_to_relations_opens_no_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    nlp = bundled_pipeline(["place of birth"])
    text = "Marie Curie was born in Warsaw."
    before = nlp(text)._.relations
    assert before
    nlp.to_disk(tmp_path / "saved")
    assert spacy.load(tmp_path / "saved")(text)._.relations == before
    assert pickle.loads(pickle.dumps(nlp))(text)._.relations == before
