"""The results page of a study: variants of a model, each trained with several seeds.

``python -m benchmarks.study_report training/scierc results/scierc [--baseline VARIANT] [--paper PAPER.json]``

Reads every ``scores.json`` below the first folder, one per training, and writes ``README.md``, ``results.json`` and
SVG pictures into the second; the same runs make the same files. Trainings of one variant with different overrides
(seeds and paths aside) are different settings of it, with a row each.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer

from spacy_ie_moe.string_triples import CLASSES, COMPARISONS, NUMBERS

from .study_plots import (
    draw_curves,
    draw_grids,
    percent,
    table,
)
from .study_runs import (
    AVERAGES,
    LEVELS,
    MAIN,
    MODES,
    NO_SETTING,
    NONE,
    RATIOS,
    STRINGS,
    GridRows,
    Row,
    Run,
    Study,
    find_grids,
    make_rows,
    pick_baseline,
    read_paper,
    read_runs,
    show,
)

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
- {choice}{budget}

{strings}## F1 on {where}

{test}

*threshold*: the least and the greatest of the seeds.{notes}

{dev}## Precision and recall on {where}

{ratios}

## Ways to count symmetric relations, and macro F1, on {where}

{modes}

## Labels on {where}: {detailed}

Means over the seeds. *support*: the number of gold items.

{labels}
{pictures}
## Cost

{cost}
"""
STRINGS_SECTION = """## Triples as strings on {where}

As the field scores NYT and WebNLG: the words of both arguments and the label are right. Speed is that of one reading of
the test set, perhaps beside other work.

{main}

F1 of other ways to compare, and of sentences by overlap and by number of gold triples (how many sentences):

{details}

"""
DEV = """## F1 on dev

{table}

"""
WHERE = {"train": "what was learnt", "dev": "dev", "test": "test"}
CHOICES = {
    "train": "Training and test set are the same: this is what is learnt by heart, with thresholds chosen on it.",
    "dev": "There is no test set but dev: {chosen} are chosen on what is reported, in favour of all.",
    "test": "{chosen} are chosen on dev, never on test{same}.",
}
LAST_STEP = "; what was trained is scored after its last step"
BUDGET = """
- In all trainings, besides what their configs say: {settings}."""
BASELINE = """
*Δ*: the mean less that of {name}, of the seeds that both have, and on how many of them the score is above it."""
ALONE = "the same backbone alone"
PAPER = """
The paper's numbers are copied from it. Its encoder is larger, and its SINET is the published one, from which
ours [differs](../../spacy_ie_moe/gmoe_rte/backbones/sinet.py): they are no like-for-like comparison."""
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


def show_range(values: list[float]) -> str:
    """The least and the greatest value."""
    return NONE.join(dict.fromkeys(f"{value:,.12g}" for value in (min(values), max(values))))


def main_table(study: Study, split: str) -> str:
    """F1, distance to the baseline and thresholds of each row; on test also what the paper has."""
    baseline, paper = study.baseline, study.paper if split == "test" else {}
    fields = [f"{split}.{MAIN[level]}" for level in LEVELS]
    header = ["variant", "seeds", *LEVELS.values()]
    header += [f"Δ {name}" for name in LEVELS.values()] if baseline else []
    header += ["threshold", "paper: Ent / Rel / Rel+"] if paper else ["threshold"]
    lines = []
    for row in study.rows:
        line = [row.name, ", ".join(map(str, row.values("seed"))), *row.cells(fields)]
        if baseline:
            other = study.baseline_of(row)
            line += [NONE if other is None else str(row.difference(other, field)) for field in fields]
        line.append(show_range(row.values("threshold")))
        if paper:
            line.append(show_paper(paper.get(row.variant) if row in study.shown else None))
        lines.append(line)
    return table(header, lines)


def notes(study: Study) -> str:
    """What has to be said about the main table of this study."""
    compared = {other.name for row in study.rows if (other := study.baseline_of(row))}
    text = BASELINE.format(name=next(iter(compared)) if len(compared) == 1 else ALONE) if study.baseline else ""
    absent = study.paper.keys() - {row.variant for row in study.rows}
    others = "; ".join(f"{variant}: {show_paper(study.paper[variant])}" for variant in sorted(absent))
    return text + (PAPER if study.paper else "") + (f" Without a training here: {others}." if absent else "")


def show_paper(scores: list[float | None] | None) -> str:
    """The paper's Ent, Rel and Rel+."""
    return " / ".join(NONE if score is None else f"{score:.2f}" for score in scores) if scores else NONE


def tested_on(rows: list[Row]) -> str:
    """Which corpus the test set is: test, or the same documents as dev or train."""
    runs = [run for row in rows for run in row.runs]
    return next((name for name in ("train", "dev") if any(are_same(run, name, "test") for run in runs)), "test")


def are_same(run: Run, one: str, other: str) -> bool:
    """Whether two of the run's corpora are one file, or as far as they are still there, have the same documents."""
    files = [run.get("corpora", {}).get(name, "") for name in (one, other)]
    if files[0] and files[0] == files[1]:
        return True
    paths = list(map(Path, files))
    return all(path.is_file() for path in paths) and paths[0].read_bytes() == paths[1].read_bytes()


def choice(rows: list[Row], corpus: str) -> str:
    """On what thresholds and epochs were chosen, if there were epochs to choose from."""
    steps = max(len([point for point in run["curve"] if point.get("step", 1)]) for row in rows for run in row.runs)
    chosen, same = ("Thresholds and epochs", "") if steps > 1 else ("Thresholds", LAST_STEP)
    return CHOICES[corpus].format(chosen=chosen if corpus == "test" else chosen.lower(), same=same)


def budget(rows: list[Row]) -> str:
    """The settings of training that all runs share."""
    all_overrides = [run["overrides"] for row in rows for run in row.runs]
    shared = {
        name.removeprefix("training."): value
        for name, value in all_overrides[0].items()
        if name.startswith("training.") and not isinstance(value, dict) and not NO_SETTING.search(name)
        if all(other.get(name) == value for other in all_overrides)
    }
    settings = ", ".join(f"`{name}` {show(value)}" for name, value in shared.items())
    return BUDGET.format(settings=settings) if settings else ""


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


def strings_section(study: Study, where: str) -> str:
    """The section of triples as strings, if gold has them."""
    if not all(row.has("strings") for row in study.rows):
        return ""
    return STRINGS_SECTION.format(where=where, main=strings_table(study), details=string_details(study.rows))


def strings_table(study: Study) -> str:
    """Precision, recall and F1 of each row, what the mixture gains, and what it costs."""
    fields = STRINGS["test"]
    header = ["variant", "seeds", *fields, *(["Δ f1"] if study.baseline else [])]
    header += ["sentences per second", "trained parameters"]
    lines = []
    for row in study.rows:
        other = study.baseline_of(row) if " + " in row.variant else None
        gain = [NONE if other is None else str(row.difference(other, fields["f1"]))] if study.baseline else []
        cost = [f"{row.summary('sentences_per_second').mean:.0f}", show_range(row.values("trainable_parameters"))]
        lines.append([row.name, ", ".join(map(str, row.values("seed"))), *row.cells(fields.values()), *gain, *cost])
    return table(header, lines)


def string_details(rows: list[Row]) -> str:
    """A line for each way to compare and group, a column for each row."""
    documents = rows[0].runs[0]["strings"]["test"]
    fields = {name.replace("_", " "): f"all.{name}.micro.f1" for name in COMPARISONS[1:]}
    groups = [group for group in (*CLASSES, *NUMBERS) if documents[group]["documents"]]
    fields |= {f"{group} ({documents[group]['documents']})": f"{group}.string.micro.f1" for group in groups}
    lines = [[name, *(str(row.summary(f"strings.test.{field}")) for row in rows)] for name, field in fields.items()]
    return table(["", *(row.name for row in rows)], lines)


def grid_table(grids: list[GridRows]) -> str:
    """Rel+ of each cell, the chosen one in bold."""
    lines = []
    for grid, rows in grids:
        for cell in sorted(rows):
            line = [*map(show, cell), str(len(rows[cell].runs)), str(grid.dev[cell]), str(grid.test[cell])]
            lines.append([grid.name, *(f"**{text}**" if cell == grid.chosen else text for text in line)])
    return table(["variant", "alpha", "beta", "trainings", "Rel+ on dev", "Rel+ on test"], lines)


def cost_table(rows: list[Row]) -> str:
    """Mean seconds of a training, trained parameters, the step that was best on dev, and the speed on test."""
    speed, timed = "sentences_per_second", all(row.has("sentences_per_second") for row in rows)
    lines = []
    for row in rows:
        ranges = [show_range(row.values(field)) for field in ("trainable_parameters", "best_step")]
        speeds = [f"{row.summary(speed).mean:.0f}"] if timed else []
        lines.append([row.name, f"{row.summary('seconds').mean:.0f}", *ranges, *speeds])
    header = ["variant", "mean seconds of a training", "trained parameters", "best step on dev"]
    return table([*header, *(["sentences per second on test"] if timed else [])], lines)


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
    corpus = tested_on(study.rows)
    where = WHERE[corpus]
    return PAGE.format(
        title=title,
        runs=sum(len(row.runs) for row in study.rows),
        choice=choice(study.rows, corpus),
        budget=budget(study.rows),
        where=where,
        test=main_table(study, "test"),
        notes=notes(study),
        strings=strings_section(study, where),
        dev=DEV.format(table=main_table(study, "dev")) if corpus == "test" else "",
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
        "rows": [row.to_json(study.baseline_of(row)) for row in study.rows],
        "grids": [grid.to_json() for grid, _ in study.grids],
    }


def main(
    trainings: Annotated[Path, typer.Argument(help="Folder with a scores.json of each training, at any depth.")],
    output: Annotated[Path, typer.Argument(help="Folder for the page, its pictures and results.json.")],
    title: Annotated[str | None, typer.Option(help="Heading of the page; default: the name of the folder.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Variant to compare with; default: the first.")] = None,
    compare: Annotated[bool, typer.Option(help="Whether to compare the variants with one of them.")] = True,
    paper: Annotated[
        Path | None, typer.Option(help="JSON with the paper's F1: variant to [Ent, Rel, Rel+] in percent.")
    ] = None,
) -> None:
    """Write the results page of the trainings below a folder, and print its main table."""
    try:
        rows = make_rows(read_runs(trainings))
        grids = find_grids(rows)
        chosen = pick_baseline(rows, grids, baseline) if compare else None
        study = Study(rows, grids, chosen, read_paper(paper) if paper else {})
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
