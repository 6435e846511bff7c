"""The ceilings of the backbones: what comes back of gold that their decoders are given."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc, DocBin

from benchmarks.backbone_oracle import DECODERS, main
from spacy_ie_moe.cli.convert import convert
from spacy_ie_moe.corpora.location import find_data
from spacy_ie_moe.relations import make_relation

SAMPLE = Path(__file__).parents[1] / "assets/rte/smoke_triples.json"


def ceilings(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[float, float]]:
    """Precision and recall in percent by the names of ``DECODERS``."""
    capsys.readouterr()
    main([path])
    _, *lines = capsys.readouterr().out.splitlines()
    found = {}
    for line in lines:
        name, rest = line.split(" P ")
        precision, _, recall, *_ = rest.split()
        found[name.strip()] = (float(precision), float(recall))
    assert found.keys() == DECODERS.keys()
    return found


def test_simple_sentences_come_back_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert("string-triples", SAMPLE, tmp_path / "sample.spacy")
    assert set(ceilings(tmp_path / "sample.spacy", capsys).values()) == {(100.0, 100.0)}


def test_what_each_cannot_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two tails of one head that begin at one word the nearer end is found, and of entities that overlap one."""
    doc = Doc(spacy.blank("en").vocab, words=["Ann", "speaks", "Malaysian", "Chinese", "daily"])
    ann, one, both = doc[0:1], doc[2:3], doc[2:4]
    for span in (ann, one, both):
        span.label_ = "ENTITY"
    doc.spans["gmoe_rte"] = [ann, one, both]
    doc._.relations = [make_relation(ann, one, "speaks"), make_relation(ann, both, "speaks")]
    DocBin(docs=[doc], store_user_data=True).to_disk(tmp_path / "doc.spacy")
    found = ceilings(tmp_path / "doc.spacy", capsys)
    assert {name for name, (_, recall) in found.items() if recall == 100} == {"sinet"}
    assert all(recall == 50 for name, (_, recall) in found.items() if name != "sinet")


CEILINGS = {
    "sinet": (100.0, 99.5),
    "dual_dec": (100.0, 99.8),
    "tlrel": (99.7, 97.8),
    "od_rte, both": (100.0, 99.7),
    "od_rte, either": (100.0, 99.8),
    "re_cent": (100.0, 97.3),
}
"""The least precision and recall on WebNLG's val_triples.json: F1 98.80 for TLRel, 99.88 and 99.92 for OD-RTE."""


def test_ceilings_on_webnlg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        find_data("webnlg")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    convert("string-triples", Path("webnlg/exact/val_triples.json"), tmp_path / "val.spacy")
    found = ceilings(tmp_path / "val.spacy", capsys)
    assert {name: tuple(map(min, least, found[name])) for name, least in CEILINGS.items()} == CEILINGS
