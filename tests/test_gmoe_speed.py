"""The benchmark of ``gmoe_rte`` runs, and its verdicts follow from its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from spacy.vocab import Vocab

from benchmarks import gmoe_speed
from benchmarks.gmoe_speed import MB, ONE_BY_ONE, Allocator, Setup, Task, Way

from .test_benchmarks import run


def test_quick_run(encoder_folders: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    printed = run(
        *("gmoe_speed", "--quick", "--data", str(tmp_path / "train.json"), "--encoder", str(encoder_folders["bert"])),
        *("--sentences", "8", "--change", "components.gmoe_rte.model.encoder.layers=2", "--output", str(output)),
    )
    assert printed.startswith("GENERATED sentences")
    assert "alone: " in printed and "the mixture takes " in printed
    rows = json.loads(output.read_text("utf8"))["rows"]
    assert [(row["task"], row["name"]) for row in rows] == [
        (task.name, variant) for task in gmoe_speed.QUICK_TASKS for variant in gmoe_speed.VARIANTS
    ]
    assert all(row["speed"][0] > 0 and row["peak"] > 100 * MB and len(row["runs"]) == 1 for row in rows)
    assert all({"entities", "relations"} <= row.keys() for row in rows[:2])


def test_generated_sentences_are_the_same_every_time() -> None:
    first, second = (list(gmoe_speed.made_sentences(Vocab(), 5)) for _ in range(2))
    assert [doc.text for doc in first] == [doc.text for doc in second]
    assert [doc._.relations for doc in first] == [doc._.relations for doc in second]
    for doc in first:
        assert (len(doc), len(doc.ents), len(doc._.relations)) == (24, 3, 2)
        assert {ent.label_ for ent in doc.ents} <= set(gmoe_speed.TYPES)
    assert len({doc.text for doc in first}) == 5


def test_ways_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []

    def ask(setup: Setup, task: Task, way: Way, turn: int) -> dict[str, float]:
        asked.append((way.name, turn))
        seconds = {"a": [1.0, 2.0, 4.0], "b": [1.1, 2.1, 6.0]}[way.name][turn]
        return {"seconds": seconds, "peak": 10.0 * turn}

    monkeypatch.setattr(gmoe_speed, "ask", ask)
    setup = Setup(str(tmp_path), {}, {}, "", threads=1, turns=3, sentences=1, trained=1, steps=1, warm=1)
    first, second = gmoe_speed.take_turns(setup, ONE_BY_ONE, [Way(name, "alone") for name in "ab"])
    assert asked == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert first["speed"] == (0.5, 0.25, 1.0) and first["ratio"] == [1, 1, 1] and first["peak"] == 10
    assert second["ratio"] == pytest.approx([1.1, 1.05, 1.5])


@pytest.mark.parametrize(
    ("speed", "peak", "ratio", "verdicts"),
    [
        (67.2, 905, [1.05, 1.09, 1.3], ["2.00x the reference's 33.6 sentences/s, wanted 2.0x: reached", "+9.0 %"]),
        (67.1, 906, [1.05, 1.11, 1.2], ["wanted 2.0x: MISSED; 906 MB, the reference 905: MISSED", "+11.0 %"]),
    ],
)
def test_verdicts(
    speed: float, peak: float, ratio: list[float], verdicts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"name": "mixture", "speed": (speed, speed, speed), "peak": peak * MB, "ratio": ratio}
    gmoe_speed.print_verdict(ONE_BY_ONE, [row])
    printed = capsys.readouterr().out
    assert all(verdict in printed for verdict in verdicts)
    assert ("MISSED" in printed) == (speed < 67.2)


def test_installed_allocators_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.util.find_library", {"jemalloc": "libjemalloc.so.2"}.get)
    found = gmoe_speed.find_allocators()
    assert found["jemalloc"].environment == {"LD_PRELOAD": "libjemalloc.so.2"}
    assert "tcmalloc" not in found and found["default"] == Allocator()
