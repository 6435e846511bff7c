"""The results page of a study: variants of a model, each trained with several seeds.

``python -m benchmarks.study_report training/scierc results/scierc [--baseline VARIANT] [--paper PAPER.json]``

Reads every ``scores.json`` below the first folder, one per training, and writes ``README.md``, ``results.json`` and
SVG pictures into the second; the same runs make the same files. Trainings of one variant with different overrides
(seeds and paths aside) are different settings of it, with a row each.
"""

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

import typer

from .study_plots import (
    Cell,
    Difference,
    Grid,
    Point,
    Summary,
    average_curves,
    axes,
    draw_curves,
    draw_grids,
    percent,
    summarise,
    table,
)

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
FIELDS = {
    **{"variant": "text", "overrides": "an object", "curve": "a list", "threshold": RATIO, "seconds": NUMBER},
    **dict.fromkeys(("seed", "best_step", "trainable_parameters"), WHOLE),
    **dict.fromkeys(SCORES, RATIO),
    **{f"{split}.per_label.{level}": "an object" for split, level in product(SPLITS, LEVELS)},
}
POINT = {"epoch": NUMBER, **dict.fromkeys(LEVELS, RATIO)}
COUNTS = {"support": WHOLE, **dict.fromkeys(RATIOS, RATIO)}

PAGE = """\
# {title}

Trainings: {runs}. Scores are in percent; `results.json` has them all, as ratios.

- **Ent**: an entity is right if its span and its type are. **Rel**: a relation is right if both spans, the label and
  the direction are. **Rel+**: the same, and both entity types are right too.
- **canonical**: symmetric relations are turned so that the argument first in the text is the head; meant where no
  other way is named. **directed**: as annotated. **doubled**: symmetric relations are counted in both directions, as
  PL-Marker does.
- **micro**: over all entities or relations; meant where macro is not named. **macro**: the mean over labels.
- Means over the seeds ± their sample standard deviation (n - 1), which is left out for one seed.
- Thresholds and epochs are chosen on dev, never on test.

## F1 on test

{test}

*threshold*: the least and the greatest of the seeds.{notes}

## F1 on dev

{dev}

## Precision and recall on test

{ratios}

## Ways to count symmetric relations, and macro F1, on test

{modes}

## Labels on test: {detailed}

Means over the seeds. *support*: the number of gold items.

{labels}
{pictures}
## Cost

{cost}
"""
BASELINE = """
*Δ*: the mean less that of {name}, and on how many of the seeds that both have the score is above it."""
PAPER = """
The paper's numbers are copied from it and were measured with another encoder: they are no like-for-like comparison."""
CURVES = """
## Learning curves

F1 on dev by epoch, as far as all seeds went: the mean, in a band from the least to the greatest.{omitted}

![F1 on dev by epoch](learning_curves.svg)
"""
GRIDS = """
## Weights of the losses

Mean Rel+ by alpha (weight of the entity loss, rows) and beta (weight of the relation loss, columns), as in the paper's
Fig. 3. A cell is chosen on dev: the framed one, bold in the table. What it has on test is the result; the other cells
of test choose nothing.

![Mean Rel+ by alpha and beta, on dev and on test](grid.svg)

{table}
"""


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

    def summary(self, field: str) -> Summary:
        """Mean and standard deviation of a field."""
        return summarise(self.values(field))

    def cells(self, fields: Iterable[str]) -> list[str]:
        """Fields as a table shows them."""
        return [str(self.summary(field)) for field in fields]

    def difference(self, baseline: Row, field: str) -> Difference:
        """A field compared with the baseline's."""
        mine, theirs = (dict(zip(row.values("seed"), row.values(field), strict=True)) for row in (self, baseline))
        common = mine.keys() & theirs.keys()
        above = sum(mine[seed] > theirs[seed] for seed in common)
        return Difference(mean(mine.values()) - mean(theirs.values()), above, len(common))

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
        """Everything that the page says of it, unrounded."""
        compared = [f"{split}.{field}" for split, field in product(SPLITS, MAIN.values())]
        others = [] if baseline is None or self is baseline else [baseline]
        against = {field: self.difference(other, field) for other in others for field in compared}
        return {
            "name": self.name,
            "variant": self.variant,
            "settings": self.settings,
            **{f"{field}s": self.values(field) for field in ("seed", "threshold", "best_step")},
            "trainable_parameters": self.values("trainable_parameters"),
            "seconds": self.summary("seconds")._asdict(),
            "scores": {field: self.summary(field)._asdict() for field in SCORES},
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
    """All runs below a folder, in the order of their paths."""
    runs = [read_run(path) for path in sorted(folder.rglob("scores.json"))]
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


def show_range(values: list[float]) -> str:
    """The least and the greatest value."""
    return NONE.join(dict.fromkeys(f"{value:,.12g}" for value in (min(values), max(values))))


def main_table(study: Study, split: str) -> str:
    """F1, distance to the baseline and thresholds of each row; on test also what the paper has."""
    baseline, paper = study.baseline, study.paper if split == "test" else {}
    fields = [f"{split}.{MAIN[level]}" for level in LEVELS]
    header = ["variant", "seeds", *LEVELS.values()]
    header += [f"Δ {name}" for name in LEVELS.values()] if baseline else []
    header += ["threshold", "paper (another encoder): Ent / Rel / Rel+"] if paper else ["threshold"]
    lines = []
    for row in study.rows:
        line = [row.name, ", ".join(map(str, row.values("seed"))), *row.cells(fields)]
        if baseline:
            line += [NONE if row is baseline else str(row.difference(baseline, field)) for field in fields]
        line.append(show_range(row.values("threshold")))
        if paper:
            line.append(show_paper(paper.get(row.variant) if row in study.shown else None))
        lines.append(line)
    return table(header, lines)


def notes(study: Study) -> str:
    """What has to be said about the main table of this study."""
    text = BASELINE.format(name=study.baseline.name) if study.baseline else ""
    absent = study.paper.keys() - {row.variant for row in study.rows}
    others = "; ".join(f"{variant}: {show_paper(study.paper[variant])}" for variant in sorted(absent))
    return text + (PAPER if study.paper else "") + (f" Without a training here: {others}." if absent else "")


def show_paper(scores: list[float | None] | None) -> str:
    """The paper's Ent, Rel and Rel+."""
    return " / ".join(NONE if score is None else f"{score:.2f}" for score in scores) if scores else NONE


def score_table(rows: list[Row], fields: dict[str, str]) -> str:
    """Fields of each row, by heading."""
    return table(["variant", *fields], [[row.name, *row.cells(fields.values())] for row in rows])


def modes_table(rows: list[Row]) -> str:
    """Micro and macro F1 of each row, counted in each way."""
    columns = list(product(AVERAGES, LEVELS))
    header = ["variant", "symmetric relations", *(f"{average} {LEVELS[level]}" for average, level in columns)]
    fields = {mode: [f"test.{mode}.{level}.{average}.f1" for average, level in columns] for mode in MODES}
    return table(header, [[row.name, mode, *row.cells(fields[mode])] for row, mode in product(rows, MODES)])


def labels_table(row: Row) -> str:
    """Precision, recall, F1 and support of each label."""
    lines = [
        [label, name, *(percent(scores[ratio]) for ratio in RATIOS), str(scores["support"])]
        for level, name in LEVELS.items()
        for label, scores in row.labels(level).items()
    ]
    return table(["label", "counted as", "precision", "recall", "F1", "support"], lines)


def grid_table(grids: list[GridRows]) -> str:
    """Rel+ of each cell, the chosen one in bold."""
    lines = []
    for grid, rows in grids:
        for cell in sorted(rows):
            line = [*map(show, cell), str(len(rows[cell].runs)), str(grid.dev[cell]), str(grid.test[cell])]
            lines.append([grid.name, *(f"**{text}**" if cell == grid.chosen else text for text in line)])
    return table(["variant", "alpha", "beta", "trainings", "Rel+ on dev", "Rel+ on test"], lines)


def cost_table(rows: list[Row]) -> str:
    """Mean seconds of a training, trainable parameters, and the step that was best on dev."""
    lines = []
    for row in rows:
        ranges = [show_range(row.values(field)) for field in ("trainable_parameters", "best_step")]
        lines.append([row.name, f"{row.summary('seconds').mean:.0f}", *ranges])
    return table(["variant", "mean seconds of a training", "trainable parameters", "best step on dev"], lines)


def pictures(study: Study, output: Path) -> str:
    """Draw what there is to draw, and return its sections of the page."""
    text = ""
    drawn = {row.name: row for row in study.shown if row.curve("ent")}
    if drawn:
        draw_curves(
            {LEVELS[level]: {name: row.curve(level) for name, row in drawn.items()} for level in ("rel_plus", "ent")},
            output / "learning_curves.svg",
        )
        text += CURVES.format(omitted=" Of each grid below only the chosen cell is drawn." if study.grids else "")
    if study.grids:
        draw_grids([grid for grid, _ in study.grids], output / "grid.svg")
        text += GRIDS.format(table=grid_table(study.grids))
    return text


def page(study: Study, title: str, output: Path) -> str:
    """The text of README.md; its pictures are written into ``output``."""
    sides = list(product(LEVELS, ("precision", "recall")))
    fields = {f"{LEVELS[level]} {side}": f"test.canonical.{level}.micro.{side}" for level, side in sides}
    return PAGE.format(
        title=title,
        runs=sum(len(row.runs) for row in study.rows),
        test=main_table(study, "test"),
        notes=notes(study),
        dev=main_table(study, "dev"),
        ratios=score_table(study.rows, fields),
        modes=modes_table(study.rows),
        detailed=study.detailed.name,
        labels=labels_table(study.detailed),
        pictures=pictures(study, output),
        cost=cost_table(study.rows),
    )


def to_json(study: Study, title: str) -> dict[str, Any]:
    """The aggregated numbers."""
    return {
        "title": title,
        "baseline": study.baseline.name if study.baseline else None,
        "paper": study.paper,
        "rows": [row.to_json(study.baseline) for row in study.rows],
        "grids": [grid.to_json() for grid, _ in study.grids],
    }


def main(
    trainings: Path = typer.Argument(..., help="Folder with a scores.json of each training, at any depth."),
    output: Path = typer.Argument(..., help="Folder for the page, its pictures and results.json."),
    title: str | None = typer.Option(None, help="Heading of the page; default: the name of the first folder."),
    baseline: str | None = typer.Option(None, help="Variant to compare with; default: the first outside of grids."),
    paper: Path | None = typer.Option(None, help="JSON with the paper's F1: variant to [Ent, Rel, Rel+] in percent."),
) -> None:
    """Write the results page of the trainings below a folder, and print its main table."""
    try:
        rows = make_rows(read_runs(trainings))
        grids = find_grids(rows)
        study = Study(rows, grids, pick_baseline(rows, grids, baseline), read_paper(paper) if paper else {})
        title = title or trainings.resolve().name
        output.mkdir(parents=True, exist_ok=True)
        (output / "README.md").write_text(page(study, title, output), "utf8")
        results = json.dumps(to_json(study, title), indent=2, ensure_ascii=False, allow_nan=False)
        (output / "results.json").write_text(results + "\n", "utf8")
    except (OSError, ValueError, ImportError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(main_table(study, "test"))


if __name__ == "__main__":
    typer.run(main)
