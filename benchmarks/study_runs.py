"""The runs of a study: read, checked, and put together by setting, for ``study_report``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise, product
from pathlib import Path
from statistics import mean
from typing import Any

from .study_plots import Cell, Difference, Grid, Point, Summary, average_curves, axes, summarise

Run = dict[str, Any]  # a scores.json, and its "path"
Paper = dict[str, list[float | None]]  # by variant: Ent, Rel, Rel+ in percent
ALPHA, BETA = "components.gmoe_rte.model.alpha", "components.gmoe_rte.model.beta"
NO_SETTING = re.compile(r"^paths\.|seed$")
LEVELS = {"ent": "Ent", "rel": "Rel", "rel_plus": "Rel+"}
SPLITS, MODES, AVERAGES = ("dev", "test"), ("canonical", "directed", "doubled"), ("micro", "macro")
RATIOS = ("precision", "recall", "f1")
MAIN = {level: f"canonical.{level}.micro.f1" for level in LEVELS}
NONE = "–"
NUMBER, RATIO, WHOLE = "a number of at least 0", "a number from 0 to 1", "a whole number of at least 0"
EXPECTED: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "a list": lambda value: isinstance(value, list),
    "an object": lambda value: isinstance(value, dict),
    WHOLE: lambda value: type(value) is int and value >= 0,
    NUMBER: lambda value: type(value) in (int, float) and 0 <= value < float("inf"),
    RATIO: lambda value: type(value) in (int, float) and 0 <= value <= 1,
}
SCORES = [".".join(field) for field in product(SPLITS, MODES, LEVELS, AVERAGES, RATIOS)]
STRINGS = {split: {ratio: f"strings.{split}.all.string.micro.{ratio}" for ratio in RATIOS} for split in SPLITS}
FIELDS = {
    **{"variant": "text", "overrides": "an object", "curve": "a list", "threshold": RATIO, "seconds": NUMBER},
    **dict.fromkeys(("seed", "best_step", "trainable_parameters"), WHOLE),
    **dict.fromkeys(SCORES, RATIO),
    **{f"{split}.per_label.{level}": "an object" for split, level in product(SPLITS, LEVELS)},
}
POINT = {"epoch": NUMBER, **dict.fromkeys(LEVELS, RATIO)}
COUNTS = {"support": WHOLE, **dict.fromkeys(RATIOS, RATIO)}


@dataclass(frozen=True, eq=False)
class Row:
    """The runs of one setting of a variant. settings: the overrides in which it differs from the variant's others."""

    variant: str
    settings: dict[str, Any]
    runs: list[Run]

    @property
    def name(self) -> str:
        """The variant and its settings, such as ``SINET (alpha 1, beta 0.01)``."""
        settings = ", ".join(f"{key.rpartition('.')[2]} {show(value)}" for key, value in self.settings.items())
        return f"{self.variant} ({settings})" if settings else self.variant

    @property
    def cell(self) -> Cell | None:
        """Alpha and beta, if both are overridden."""
        alpha, beta = (self.runs[0]["overrides"].get(key) for key in (ALPHA, BETA))
        return (alpha, beta) if EXPECTED[NUMBER](alpha) and EXPECTED[NUMBER](beta) else None

    def values(self, field: str) -> list[Any]:
        """A field such as ``test.canonical.rel.micro.f1`` of each run."""
        return [find(run, field) for run in self.runs]

    def has(self, name: str) -> bool:
        """Whether all runs have it, which those of earlier versions or of other corpora have not."""
        return all(name in run for run in self.runs)

    def summary(self, field: str) -> Summary:
        """Mean and standard deviation of a field."""
        return summarise(self.values(field))

    def cells(self, fields: Iterable[str]) -> list[str]:
        """Fields as a table shows them."""
        return [str(self.summary(field)) for field in fields]

    def difference(self, baseline: Row, field: str) -> Difference:
        """A field compared with the baseline's, on the seeds that both have, or if there are none on all."""
        mine, theirs = (dict(zip(row.values("seed"), row.values(field), strict=True)) for row in (self, baseline))
        common = mine.keys() & theirs.keys()
        above = sum(mine[seed] > theirs[seed] for seed in common)
        both = [mean(values[seed] for seed in common or values) for values in (mine, theirs)]
        return Difference(both[0] - both[1], above, len(common))

    def curve(self, level: str) -> list[Point]:
        """The learning curve, of the last score within each epoch."""
        return average_curves([{point["epoch"]: point[level] for point in run["curve"]} for run in self.runs])

    def labels(self, level: str) -> dict[str, dict[str, float]]:
        """Mean ratios and support of each label on test; a run in which a label never occurs counts as 0."""
        tables, absent = self.values(f"test.per_label.{level}"), dict.fromkeys(COUNTS, 0)
        found = {label: [table.get(label, absent) for table in tables] for label in sorted(set().union(*tables))}
        return {
            label: {"support": max(counts["support"] for counts in runs)}
            | {ratio: mean(counts[ratio] for counts in runs) for ratio in RATIOS}
            for label, runs in found.items()
        }

    def to_json(self, baseline: Row | None) -> dict[str, Any]:
        """Everything that the page says of it, unrounded. baseline: what it is compared with."""
        compared = [f"{split}.{field}" for split, field in product(SPLITS, MAIN.values())]
        strings = [field for fields in STRINGS.values() for field in fields.values()] if self.has("strings") else []
        compared += [field for field in strings if field.endswith("f1")]
        others = [] if baseline is None else [baseline]
        against = {field: self.difference(other, field) for other in others for field in compared}
        return {
            "name": self.name,
            "variant": self.variant,
            "settings": self.settings,
            **{f"{field}s": self.values(field) for field in ("seed", "threshold", "best_step")},
            "trainable_parameters": self.values("trainable_parameters"),
            **{name: self.summary(name)._asdict() for name in ("seconds", "sentences_per_second") if self.has(name)},
            "scores": {field: self.summary(field)._asdict() for field in (*SCORES, *strings)},
            "against_baseline": {field: difference._asdict() for field, difference in against.items()},
            "labels": {level: self.labels(level) for level in LEVELS},
            "curve": {level: [point._asdict() for point in self.curve(level)] for level in LEVELS},
        }


GridRows = tuple[Grid, dict[Cell, Row]]


@dataclass(frozen=True)
class Study:
    """All rows, those of each grid by cell, the row to compare with, and the paper's F1 by variant."""

    rows: list[Row]
    grids: list[GridRows]
    baseline: Row | None
    paper: Paper

    def baseline_of(self, row: Row) -> Row | None:
        """What a row is compared with: "X + ..." with "X" where there is one, the others with the baseline."""
        names = [other.variant for other in self.rows]
        base = row.variant.partition(" + ")[0]
        if base != row.variant and names.count(base) == 1:
            return self.rows[names.index(base)]
        if row is self.baseline or any(name.startswith(f"{row.variant} + ") for name in names):
            return None
        return self.baseline

    @property
    def shown(self) -> list[Row]:
        """The rows outside of grids, and the chosen one of each grid."""
        hidden = [row for grid, cells in self.grids for cell, row in cells.items() if cell != grid.chosen]
        return [row for row in self.rows if row not in hidden]

    @property
    def detailed(self) -> Row:
        """The row whose labels are listed: the last but the baseline, or the only one."""
        return ([row for row in self.shown if row is not self.baseline] or self.shown)[-1]


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    try:
        data = json.loads(path.read_text("utf8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); expected an object.") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is {data!r:.40}; expected an object.")
    return data


def find(data: Any, field: str) -> Any:
    """The value at a dotted path."""
    return reduce(lambda value, key: value[key], field.split("."), data)


def check(data: Any, fields: dict[str, str], where: str) -> None:
    """Raise ``ValueError`` for the first field that is missing or not what is expected of it."""
    for field, expected in fields.items():
        try:
            value = find(data, field)
        except (KeyError, TypeError):
            raise ValueError(f"{where}: {field} is missing; expected {expected}.") from None
        if not EXPECTED[expected](value):
            raise ValueError(f"{where}: {field} is {value!r:.40}; expected {expected}.")


def read_run(path: Path) -> Run:
    """One scores.json, checked."""
    run = read_json(path)
    check(run, FIELDS, str(path))
    for index, point in enumerate(run["curve"]):
        check(point, POINT, f"{path}, curve[{index}]")
    for level in LEVELS:
        for label, counts in run["test"]["per_label"][level].items():
            check(counts, COUNTS, f"{path}, test.per_label.{level}[{label!r}]")
    return {**run, "path": str(path)}


def read_runs(folder: Path) -> list[Run]:
    """The runs that ``runs.json`` of a folder names, or where it has none all below it, in the order of their paths."""
    manifest = folder / "runs.json"
    if manifest.is_file():
        paths = [folder / name / "scores.json" for name in json.loads(manifest.read_text("utf8"))]
        if missing := [path.parent for path in paths if not path.is_file()]:
            raise ValueError(f"{len(missing)} of {len(paths)} runs are not finished, {missing[0]} among them.")
    else:
        paths = list(folder.rglob("scores.json"))
    runs = [read_run(path) for path in sorted(paths)]
    if not runs:
        raise ValueError(f"{folder} has no scores.json at any depth; expected one for each training.")
    return runs


def read_paper(path: Path) -> Paper:
    """The paper's Ent, Rel and Rel+ of each variant, in percent; ``None`` where it has none."""
    paper = read_json(path)
    for variant, scores in paper.items():
        known = isinstance(scores, list) and all(score is None or EXPECTED[NUMBER](score) for score in scores)
        if not known or len(scores) != len(LEVELS):
            raise ValueError(f"{path}: {variant!r} is {scores!r}; expected [Ent, Rel, Rel+] in percent, null for none.")
    return paper


def make_rows(runs: list[Run]) -> list[Row]:
    """The settings of each variant, the variants in the order of their first runs; raises for a seed that is twice."""
    rows: list[Row] = []
    for variant in dict.fromkeys(run["variant"] for run in runs):
        family = [run for run in runs if run["variant"] == variant]
        keys = sorted({key for run in family for key in run["overrides"] if not NO_SETTING.search(key)})
        varying = [key for key in keys if len({show(run["overrides"].get(key)) for run in family}) > 1]
        settings: dict[str, Row] = {}
        for run in sorted(family, key=lambda run: run["seed"]):
            row = Row(variant, {key: run["overrides"].get(key) for key in varying}, [])
            settings.setdefault(row.name, row).runs.append(run)
        rows += settings.values()
    for row in rows:
        for one, other in pairwise(row.runs):
            if one["seed"] == other["seed"]:
                where = f"{one['path']} and {other['path']}, both {row.name!r}"
                raise ValueError(f"{where}: seed is {one['seed']} in both; expected one training for each seed.")
    return rows


def find_grids(rows: list[Row]) -> list[GridRows]:
    """The rows of a variant that vary in both alpha and beta; else all rows, if each is a cell of a full grid."""
    families: dict[str, dict[Cell, Row]] = {}
    for row in rows:
        if row.cell:
            others = {key: value for key, value in row.settings.items() if key not in (ALPHA, BETA)}
            families.setdefault(Row(row.variant, others, []).name, {})[row.cell] = row
    found = [(name, cells) for name, cells in families.items() if min(map(len, axes(cells))) > 1]
    together = {row.cell: row for row in rows if row.cell}
    alphas, betas = map(len, axes(together))
    if not found and min(alphas, betas) > 1 and alphas * betas == len(together) == len(rows):
        found = [("all variants", together)]
    return [make_grid(name, cells) for name, cells in found]


def make_grid(name: str, cells: dict[Cell, Row]) -> GridRows:
    """Rel+ of each cell, and the cells."""
    dev, test = ({cell: row.summary(f"{split}.{MAIN['rel_plus']}") for cell, row in cells.items()} for split in SPLITS)
    return Grid(name, dev, test), cells


def pick_baseline(rows: list[Row], grids: list[GridRows], name: str | None) -> Row | None:
    """The row of that name; without a name the first row outside of grids, if there is another row."""
    if name is None:
        inside = [row for _, cells in grids for row in cells.values()]
        return next((row for row in rows if row not in inside and len(rows) > 1), None)
    named = [row for row in rows if name in (row.variant, row.name)]
    if len(named) != 1:
        raise ValueError(f"--baseline is {name!r}; expected one of: {', '.join(repr(row.name) for row in rows)}.")
    return named[0]


def show(value: Any) -> str:
    """The value of an override."""
    if value is None:
        return "not set"
    return f"{value:.12g}" if type(value) in (int, float) else str(value)
