"""The instructions of ``uc_uie``: pools, schema, body."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spacy_ie_moe.uc_uie.frames import TASKS, Frame, Schema, Slot
from spacy_ie_moe.uc_uie.instructions import (
    ALL_POOLS,
    CAPABILITIES,
    CAPABILITY_POOLS,
    CAPABILITY_ROUTES,
    HARD_ROUTES,
    LEAD,
    POOLS,
    all_wordings,
    body,
    build,
    read_pools,
)
from spacy_ie_moe.uc_uie.paraphrase import refuse, wording_key

EVENTS = {"Attack": ["Target", "Place"], "Meet": ["Entity"]}


def test_every_task_and_capability_has_a_pool() -> None:
    assert tuple(POOLS) == tuple(HARD_ROUTES) == tuple(LEAD) == TASKS
    assert tuple(CAPABILITY_POOLS) == tuple(CAPABILITY_ROUTES) == CAPABILITIES
    assert all(len(pool) >= 8 for pool in ALL_POOLS.values())
    assert all_wordings() == [wording for pool in ALL_POOLS.values() for wording in pool]


def test_wordings_are_all_different_and_pass_the_check_of_paraphrases() -> None:
    keys = [wording_key(wording) for wording in all_wordings()]
    assert len(set(keys)) == len(keys)
    refused = {wording: refuse(wording, name) for name, pool in ALL_POOLS.items() for wording in pool}
    assert {wording: reason for wording, reason in refused.items() if reason} == {}


def test_routes_are_those_of_the_paper() -> None:
    """Section 3.4: judging and locating for NER, all three for RE and EE; detecting events associates nothing."""
    assert {task for task, routes in HARD_ROUTES.items() if routes == (1, 1, 0)} == {"NER", "ED"}
    assert {task for task, routes in HARD_ROUTES.items() if routes == (1, 1, 1)} == {"RE", "EAE", "EE", "ABSA"}
    assert [CAPABILITY_ROUTES[name] for name in CAPABILITIES] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]


def test_an_instruction_is_a_wording_and_the_schema() -> None:
    assert build("NER", ["PER", "LOC"], "Find entities.") == "Find entities.\nTypes: {PER: []} {LOC: []}\n"
    assert build("EE", EVENTS, "Find.") == "Find.\nTypes: {Attack: [Target, Place]} {Meet: [Entity]}\n"
    assert build("EAE", Schema.of(EVENTS)).startswith(LEAD["EAE"] + "\nTypes: {Attack: [Target")
    assert build("ED", EVENTS, "Find.") == "Find.\nTypes: {Attack: []} {Meet: []}\n", "no slots are filled here"
    assert build("NER", ["PER"]) == f"{POOLS['NER'][0]}\nTypes: {{PER: []}}\n"


@pytest.mark.parametrize(
    ("task", "wording", "message"),
    [
        ("ner", None, "task is 'ner'; expected one of NER"),
        ("NER", " ", "wording is ' '; expected one line"),
        ("NER", "one\ntwo", "expected one line"),
    ],
)
def test_instructions_that_cannot_be(task: str, wording: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(task, ["PER"], wording)


def test_bodies() -> None:
    assert body("Bob  was\nhere. ") == "Text: Bob was here.\nAnswer:"
    given = [Frame("Attack", "hit", (Slot("Target", "car"),)), Frame("Attack", "Null"), Frame("Meet", "a (big) party")]
    shown = r"Events: (Attack: hit) (Attack: \Null) (Meet: a \(big\) party)"
    assert body("x", given) == f"Text: x\n{shown}\nAnswer:"
    assert body("x", spans=["Bob", "[the] firm"]) == "Text: x\nSpans: [1] Bob [2] \\[the\\] firm\nAnswer:"


def test_pools_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pools.json"
    file.write_text(json.dumps({"pools": {"NER": ["Name the entities.", "Say who it is."]}}), encoding="utf8")
    pools = read_pools(file)
    assert pools["NER"] == ("Name the entities.", "Say who it is.")
    assert pools["RE"] == POOLS["RE"] and set(pools) == set(ALL_POOLS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[", "holds no instruction pools"),
        ("[]", "holds no instruction pools"),
        ('{"NER": ["Name entities."]}', "holds no instruction pools"),
        ('{"pools": {"NER": 3}}', "holds no instruction pools"),
        ('{"pools": {"QA": ["Say it."]}}', "has a pool 'QA'; expected only NER"),
        ('{"pools": {"NER": []}}', "pool 'NER' of path .* expected at least one sentence"),
        ('{"pools": {"NER": ["", "Name it."]}}', "expected at least one sentence"),
        ('{"pools": {"NER": "Name it."}}', "expected at least one sentence"),
    ],
)
def test_files_that_hold_no_pools(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "pools.json"
    file.write_text(text, encoding="utf8")
    with pytest.raises(ValueError, match=message):
        read_pools(file)
