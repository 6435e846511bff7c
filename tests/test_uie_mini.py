"""The bundled demonstration of ``uc_uie``: complete, small, offline, and that it finds something."""

from __future__ import annotations

import json
import socket

import pytest
import spacy

from spacy_ie_moe.models import MODELS

FOLDER = MODELS / "uie-mini"
TEXT = "Isoniazid was discontinued, but the patient had developed optic neuropathy."


@pytest.fixture(scope="module")
def nlp():
    nlp = spacy.blank("en")
    nlp.add_pipe("uc_uie", config={"schema": ["Chemical", "Disease"]})
    return nlp


def test_it_is_complete_and_below_40_mb():
    assert (FOLDER / "README.md").read_text("utf8").startswith("# uie-mini")
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 40_000_000
    config = json.loads((FOLDER / "adapter" / "adapter_config.json").read_text("utf8"))
    assert config["peft_type"] == "HIMOE"
    assert config["base_model_name_or_path"] is None, "a path of the machine that trained it"


def test_text_to_entities_opens_no_socket(nlp, monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    doc = nlp(TEXT)
    assert ("optic neuropathy", "Disease") in [(ent.text, ent.label_) for ent in doc.ents]
    assert all(0 < frame["score"] <= 1 for frame in doc._.frames)
    nlp.to_disk(tmp_path / "saved")
    again = spacy.load(tmp_path / "saved")(TEXT)
    assert [ent.label_ for ent in again.ents] == [ent.label_ for ent in doc.ents]
    # Not to the last bit: where in memory the weights begin decides which of the processor's instructions are used.
    assert [f["score"] for f in again._.frames] == pytest.approx([f["score"] for f in doc._.frames], abs=1e-5)


def test_its_capabilities_are_routed_by_the_instruction(nlp):
    pipe = nlp.get_pipe("uc_uie")
    (entities,) = pipe.routing(nlp.make_doc(TEXT))
    gates = entities.gates.mean(0)
    assert gates[:2].min() > gates[2], "entities need no associating"
