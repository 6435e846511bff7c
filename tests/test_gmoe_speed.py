"""The benchmark of ``gmoe_rte`` runs, and its verdicts follow from its figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from spacy.vocab import Vocab

from benchmarks import gmoe_speed
from benchmarks.gmoe_speed import MB, ONE_BY_ONE

from .test_benchmarks import run


def test_quick_run(encoder_folders: dict[str, Path], tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    printed = run(
        *("gmoe_speed", "--quick", "--data", str(tmp_path / "train.json"), "--encoder", str(encoder_folders["bert"])),
        *("--sentences", "8", "--change", "components.gmoe_rte.model.alpha=0.5", "--output", str(output)),
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


def test_rows_of_turns() -> None:
    seconds = {"alone": [1.0, 2.0, 4.0], "mixture": [1.1, 2.1, 6.0]}
    runs = {
        name: [{"seconds": of_turn, "peak": 10.0 * turn} for turn, of_turn in enumerate(turns)]
        for name, turns in seconds.items()
    }
    first, second = gmoe_speed.make_rows(ONE_BY_ONE, runs)
    assert [row["name"] for row in (first, second)] == ["alone", "mixture"]
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
