"""The results page of a study, of hand-made scores."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import study_report, study_runs
from benchmarks.study_plots import Difference, Summary, summarise, table

WEIGHTS = "components.gmoe_rte.model."
Scores = dict[str, Any]


def counts(f1: float, support: int = 10) -> Scores:
    return {"precision": f1, "recall": f1 / 2, "f1": f1, "tp": 5, "fp": 5, "fn": 5, "support": support}


def side(f1: float) -> Scores:
    """The scores of dev or test: Rel+ is ``f1``, Rel 0.1 and Ent 0.2 above it."""
    levels = {"ent": f1 + 0.2, "rel": f1 + 0.1, "rel_plus": f1}
    metrics = {level: {"micro": counts(value), "macro": counts(value / 2)} for level, value in levels.items()}
    labels = {"ent": {"Task": counts(f1, 7)}, "rel": {"Used-for": counts(f1)}, "rel_plus": {"Used-for": counts(f1)}}
    return {**dict.fromkeys(("canonical", "directed", "doubled"), metrics), "per_label": labels}


def make_run(variant: str = "SINET", seed: int = 0, dev: float = 0.3, test: float = 0.4, **settings: float) -> Scores:
    """A scores.json; settings: alpha and beta. Seed n trains n + 2 epochs."""
    return {
        "variant": variant,
        "seed": seed,
        "overrides": {"training.seed": seed, "paths.output": f"out/{seed}"}
        | {WEIGHTS + name: value for name, value in settings.items()},
        "threshold": 0.3 + seed / 10,
        "best_step": 100 + seed,
        "seconds": 60.0 + seed,
        "trainable_parameters": 26_000_000,
        "curve": [
            {"epoch": epoch, "step": 10 * epoch, "ent": 0.1 * epoch, "rel": 0.0, "rel_plus": seed / 10}
            for epoch in range(1, seed + 3)
        ],
        "dev": side(dev),
        "test": side(test),
    }


def save(folder: Path, *runs: Scores) -> Path:
    for index, run in enumerate(runs):
        path = folder / "trainings" / f"run{index:02}" / "scores.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(run), "utf8")
    return folder / "trainings"


def call(*arguments: str | Path) -> Any:
    app = typer.Typer()
    app.command()(study_report.main)
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False)


def report(folder: Path, *options: str | Path) -> tuple[str, Scores]:
    """The page and the aggregated numbers."""
    result = call(folder / "trainings", folder / "page", *options)
    assert result.exit_code == 0, result.output
    page = (folder / "page" / "README.md").read_text("utf8")
    assert result.output.strip() in page, "the main table is printed too"
    return page, json.loads((folder / "page" / "results.json").read_text("utf8"))


def fails(folder: Path, *options: str | Path) -> str:
    result = call(folder / "trainings", folder / "page", *options)
    assert result.exit_code == 1 and result.output.startswith("Error: ")
    assert not (folder / "page" / "README.md").exists()
    return result.output


def cells(page: str, heading: str, first: str) -> list[str]:
    """The line that begins with ``first`` in the section of that heading."""
    section = page.split(f"\n## {heading}")[1].split("\n## ")[0]
    (line,) = [line for line in section.splitlines() if re.match(rf"\| {first} +\|", line)]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without drawing, for environments without matplotlib."""
    for name in ("draw_curves", "draw_grids"):
        monkeypatch.setattr(study_report, name, lambda *arguments: None)


@pytest.mark.usefixtures("no_pictures")
def test_means_deviations_and_differences(tmp_path: Path) -> None:
    runs = [make_run("SINET", seed, test=test) for seed, test in enumerate((0.40, 0.42, 0.44))]
    runs += [make_run("SINET + RTE-GMoE", seed, test=test) for seed, test in ((0, 0.45), (1, 0.41), (5, 0.49))]
    save(tmp_path, *runs)
    page, results = report(tmp_path)
    # 0.40, 0.42, 0.44: squared deviations 0.0004 + 0 + 0.0004, over n - 1 = 2: 0.02 squared
    assert cells(page, "F1 on test", "SINET") == [
        *("SINET", "0, 1, 2", "62.00 ± 2.00", "52.00 ± 2.00", "42.00 ± 2.00", "–", "–", "–", "0.3–0.5")
    ]
    # 0.45, 0.41, 0.49: mean 0.45, squared deviations 0 + 0.0016 + 0.0016, over 2: 0.04 squared;
    # of the common seeds 0 and 1 the means are 0.43 and 0.41, and it is above in seed 0
    assert cells(page, "F1 on test", "SINET . RTE-GMoE")[2:8] == [
        *("65.00 ± 4.00", "55.00 ± 4.00", "45.00 ± 4.00", "+2.00 (1 of 2)", "+2.00 (1 of 2)", "+2.00 (1 of 2)")
    ]
    assert cells(page, "F1 on dev", "SINET . RTE-GMoE")[2] == "50.00 ± 0.00"
    assert cells(page, "Precision", "SINET")[1:3] == ["62.00 ± 2.00", "31.00 ± 1.00"]
    assert cells(page, "Labels on test: SINET + RTE-GMoE", "Task") == ["Task", "Ent", "45.00", "22.50", "45.00", "7"]
    assert cells(page, "Cost", "SINET")[1:] == ["61", "26,000,000", "100–102"]
    assert "*Δ*: the mean less that of SINET" in page and "## Weights" not in page
    first, second = results["rows"]
    assert first["scores"]["test.canonical.rel_plus.micro.f1"] == pytest.approx({"mean": 0.42, "sd": 0.02})
    assert first["scores"]["test.doubled.rel.macro.f1"]["mean"] == pytest.approx(0.26)
    assert second["against_baseline"]["test.canonical.ent.micro.f1"]["common_seeds"] == 2
    assert first["curve"]["ent"] == [  # seed 0 has two epochs
        {"epoch": epoch, "mean": pytest.approx(ent), "low": ent, "high": ent} for epoch, ent in ((1, 0.1), (2, 0.2))
    ]
    assert first["curve"]["rel_plus"][0] == pytest.approx({"epoch": 1, "mean": 0.1, "low": 0.0, "high": 0.2})


@pytest.mark.usefixtures("no_pictures")
def test_one_seed_has_no_deviation_and_one_variant_no_baseline(tmp_path: Path) -> None:
    save(tmp_path, make_run(seed=1))
    page, results = report(tmp_path, "--title", "SciERC")
    assert page.startswith("# SciERC\n\nTrainings: 1. ")
    assert cells(page, "F1 on test", "SINET") == ["SINET", "1", "60.00", "50.00", "40.00", "0.4"]
    assert "Δ" not in page and results["baseline"] is None
    assert cells(page, "Ways to count", r"SINET +\| +directed")[1:] == [
        *("directed", "60.00", "50.00", "40.00", "30.00", "25.00", "20.00")
    ]


@pytest.mark.usefixtures("no_pictures")
def test_the_papers_numbers_are_labelled_and_none_is_lost(tmp_path: Path) -> None:
    save(tmp_path, make_run(), make_run("SINET + RTE-GMoE"))
    paper = tmp_path / "paper.json"
    paper.write_text('{"SINET": [68.1, null, 40.42], "OD-RTE": [1, 2, 3]}', "utf8")
    page, _ = report(tmp_path, "--paper", paper)
    assert "paper: Ent / Rel / Rel+" in page and "OD-RTE: 1.00 / 2.00 / 3.00" in page
    assert "no like-for-like comparison" in page
    assert cells(page, "F1 on test", "SINET")[-1] == "68.10 / – / 40.42"
    assert cells(page, "F1 on test", "SINET . RTE-GMoE")[-1] == "–"
    paper.write_text('{"SINET": [68.1, 40.42]}', "utf8")
    (tmp_path / "page" / "README.md").unlink()
    assert "'SINET' is [68.1, 40.42]; expected [Ent, Rel, Rel+] in percent" in fails(tmp_path, "--paper", paper)


@pytest.mark.usefixtures("no_pictures")
def test_baseline_is_the_first_or_the_named(tmp_path: Path) -> None:
    save(tmp_path, make_run("B"), make_run("A"))
    assert report(tmp_path)[1]["baseline"] == "B"
    assert report(tmp_path, "--baseline", "A")[1]["baseline"] == "A"
    (tmp_path / "page" / "README.md").unlink()
    assert fails(tmp_path, "--baseline", "C") == "Error: --baseline is 'C'; expected one of: 'B', 'A'.\n"


def grid_runs(*, variant: str = "SINET + RTE-GMoE") -> list[Scores]:
    """Two alphas and two betas: the best on dev is (1, 0.01), the best on test (0.1, 0.01)."""
    scores = {(0.1, 0.01): (0.30, 0.50), (0.1, 1): (0.31, 0.41), (1, 0.01): (0.33, 0.42), (1, 1): (0.32, 0.43)}
    return [
        make_run(variant.format(*cell), seed, dev=dev, test=test, alpha=cell[0], beta=cell[1])
        for cell, (dev, test) in scores.items()
        for seed in (0, 1)
    ]


@pytest.mark.usefixtures("no_pictures")
def test_a_grid_is_found_and_its_cell_chosen_on_dev(tmp_path: Path) -> None:
    save(tmp_path, *grid_runs(), make_run("SINET"))
    page, results = report(tmp_path)
    assert results["baseline"] == "SINET", "the first row outside of the grid"
    (grid,) = results["grids"]
    assert grid["chosen"] == {"alpha": 1, "beta": 0.01} and len(grid["cells"]) == 4
    assert "A cell is chosen on dev" in page and "Of each grid below only the chosen cell is drawn" in page
    assert "**33.00 ± 0.00** | **42.00 ± 0.00**" in page and " 50.00 ± 0.00 " in page
    assert "## Labels on test: SINET + RTE-GMoE (alpha 1, beta 0.01)\n" in page
    assert cells(page, "F1 on test", r"SINET . RTE-GMoE .alpha 0.1, beta 1.")[1:5] == [
        *("0, 1", "61.00 ± 0.00", "51.00 ± 0.00", "41.00 ± 0.00")
    ]


@pytest.mark.usefixtures("no_pictures")
def test_variants_named_for_their_cells_are_a_grid_if_it_is_full(tmp_path: Path) -> None:
    runs = grid_runs(variant="alpha={} beta={}")
    save(tmp_path / "full", *runs)
    save(tmp_path / "part", *runs[:-2])
    assert report(tmp_path / "full")[1]["grids"][0]["name"] == "all variants"
    assert report(tmp_path / "part")[1]["grids"] == []


@pytest.mark.usefixtures("no_pictures")
def test_one_weight_alone_makes_no_grid(tmp_path: Path) -> None:
    save(tmp_path, make_run(alpha=1.0, beta=0.1), make_run(alpha=0.1, beta=0.1), make_run(seed=1, alpha=1, beta=0.1))
    _, results = report(tmp_path)
    assert [row["name"] for row in results["rows"]] == ["SINET (alpha 1)", "SINET (alpha 0.1)"]
    assert results["grids"] == [] and results["rows"][0]["seeds"] == [0, 1]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("threshold", None, "threshold is missing; expected a number from 0 to 1."),
        ("test.canonical.rel.micro.f1", None, "test.canonical.rel.micro.f1 is missing; expected a number"),
        ("dev.doubled.ent", None, "dev.doubled.ent.micro.precision is missing; expected a number from 0 to 1."),
        ("test.directed.rel.macro.f1", 70.1, "test.directed.rel.macro.f1 is 70.1; expected a number from 0 to 1."),
        ("seed", "0", "seed is '0'; expected a whole number of at least 0."),
        ("seconds", float("nan"), "seconds is nan; expected a number of at least 0."),
        ("curve", [{"epoch": 1, "ent": 0.1, "rel": 0.1}], "curve[0]: rel_plus is missing; expected a number from"),
        ("test.per_label.rel", {"Used-for": {}}, "test.per_label.rel['Used-for']: support is missing; expected a"),
    ],
)
def test_missing_and_wrong_fields_are_named(tmp_path: Path, field: str, value: Any, message: str) -> None:
    run = json.loads(json.dumps(make_run()))
    *parents, last = field.split(".")
    place = study_runs.find(run, ".".join(parents)) if parents else run
    if value is None:
        del place[last]
    else:
        place[last] = value
    path = save(tmp_path, run) / "run00" / "scores.json"
    output = fails(tmp_path)
    assert str(path) in output and message in output and output.count("\n") == 1


def test_no_runs_broken_files_and_twice_a_seed(tmp_path: Path) -> None:
    assert "trainings has no scores.json at any depth; expected one for each training." in fails(tmp_path)
    folder = save(tmp_path, make_run(), make_run())
    assert "both 'SINET': seed is 0 in both; expected one training for each seed." in fails(tmp_path)
    (folder / "run00" / "scores.json").write_text("[1]", "utf8")
    assert "scores.json is [1]; expected an object." in fails(tmp_path)
    (folder / "run00" / "scores.json").write_text("{", "utf8")
    assert "scores.json is not JSON (" in fails(tmp_path)


def test_without_matplotlib_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    save(tmp_path, make_run())
    expected = "Error: The pictures need matplotlib, which is not installed: pip install 'spacy_ie_moe[report]'.\n"
    assert fails(tmp_path) == expected


def test_a_second_run_makes_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    save(tmp_path, make_run("SINET $x_1$ | <b>"), *grid_runs())
    names = ("README.md", "results.json", "learning_curves.svg", "grid.svg")
    contents = []
    for _ in range(2):
        page, _ = report(tmp_path)
        contents.append([(tmp_path / "page" / name).read_bytes() for name in names])
    assert contents[0] == contents[1]
    assert all(f"({name})" in page for name in names[2:]) and all(b"<svg" in picture for picture in contents[0][2:])
    assert b"dc:date" not in contents[0][2]


def test_pictures_of_odd_studies(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    once = make_run("one point", seed=3)
    once["curve"] = once["curve"][:1]
    none = make_run("no curve")
    none["curve"] = []
    many = [make_run(f"variant {index}") for index in range(9)]
    holed = [run for run in grid_runs() if run["overrides"][WEIGHTS + "alpha"] == 1 or run["best_step"] == 100][1:]
    save(tmp_path, once, none, *many, *holed, *grid_runs(variant="second grid"))
    page, results = report(tmp_path)
    assert "(learning_curves.svg)" in page and len(results["grids"]) == 2
    save(tmp_path / "bare", none)
    page, _ = report(tmp_path / "bare")
    assert "## Learning curves" not in page and not list((tmp_path / "bare" / "page").glob("*.svg"))


def test_numbers_as_text() -> None:
    assert str(summarise([0.5])) == "50.00" and summarise([0.1, 0.2]).sd == pytest.approx(0.0707107)
    assert str(Summary(0.41234, 0.0056)) == "41.23 ± 0.56"
    assert str(Difference(-0.012, 1, 3)) == "-1.20 (1 of 3)"
    assert table(["a", "b"], [["x|y", "1"]]) == "| a    |   b |\n| ---- | --: |\n| x\\|y |   1 |"


@pytest.mark.usefixtures("no_pictures")
def test_what_was_chosen_on_what(tmp_path: Path) -> None:
    """Epochs are chosen if there is a choice; that training and test set are one file is seen without the file."""
    steps = {"training.max_steps": 400, "training.optimizer.learn_rate.initial_rate": 0.001}
    run = make_run("SINET", 1)
    run = {**run, "overrides": {**run["overrides"], **steps}, "corpora": {"train": "a", "dev": "b", "test": "c"}}
    save(tmp_path, run)
    page, _ = report(tmp_path)
    assert "Thresholds and epochs are chosen on dev, never on test." in page
    assert "besides what their configs say: `max_steps` 400, `optimizer.learn_rate.initial_rate` 0.001." in page
    save(tmp_path, {**run, "curve": run["curve"][:1]})
    assert "Thresholds are chosen on dev, never on test; what was trained is scored after" in report(tmp_path)[0]
    save(tmp_path, {**run, "corpora": {"train": "a", "dev": "c", "test": "c"}})
    assert "thresholds and epochs are chosen on what is reported" in report(tmp_path)[0]
    save(tmp_path, {**run, "corpora": {"train": "a", "dev": "a", "test": "a"}})
    assert "learnt by heart" in report(tmp_path)[0] and "## F1 on dev" not in report(tmp_path)[0]
