"""How a study's results look: numbers, tables, and as SVG pictures the learning curves and the grids of loss weights.

Scores are ratios, shown in percent. Colours are those of Okabe and Ito and of cividis, which colour-blind readers can
tell apart; lines differ in their dashes too. The same values make the same file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

Cell = tuple[float, float]  # alpha, beta
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (7, 2, 1.5, 2)))
STYLE = {
    "svg.hashsalt": "spacy_ie_moe",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so every machine draws the same letters
    "axes.titlesize": 11.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.parse_math": False,
}
NO_CELL = "#E6E6E6"


class Summary(NamedTuple):
    """The mean of some scores and their sample standard deviation, ``None`` for a single one."""

    mean: float
    sd: float | None

    def __str__(self) -> str:
        return percent(self.mean) + ("" if self.sd is None else f" ± {percent(self.sd)}")


class Difference(NamedTuple):
    """How far a mean is above the baseline's, and on how many of the common seeds the score is."""

    mean: float
    above: int
    common_seeds: int

    def __str__(self) -> str:
        return f"{100 * self.mean:+.2f} ({self.above} of {self.common_seeds})"


class Point(NamedTuple):
    """One point of a learning curve: an epoch, and the mean, least and greatest score of the seeds."""

    epoch: float
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Grid:
    """Rel+ on dev and on test of runs that differ in alpha and beta."""

    name: str
    dev: Mapping[Cell, Summary]
    test: Mapping[Cell, Summary]

    @property
    def chosen(self) -> Cell:
        """The cell with the best mean on dev; of equal ones that with the least alpha, then the least beta."""
        return max(sorted(self.dev), key=lambda cell: self.dev[cell].mean)

    @property
    def axes(self) -> tuple[list[float], list[float]]:
        """See ``axes``."""
        return axes(self.dev)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        cells = [
            {"alpha": cell[0], "beta": cell[1], "dev": self.dev[cell]._asdict(), "test": self.test[cell]._asdict()}
            for cell in sorted(self.dev)
        ]
        return {"name": self.name, "chosen": dict(zip(("alpha", "beta"), self.chosen, strict=True)), "cells": cells}


def axes(cells: Iterable[Cell]) -> tuple[list[float], list[float]]:
    """The alphas and the betas of cells, each in ascending order."""
    found = list(cells)
    alphas, betas = ({cell[side] for cell in found} for side in (0, 1))
    return sorted(alphas), sorted(betas)


def percent(ratio: float) -> str:
    """A ratio as a percentage with two decimals."""
    return f"{100 * ratio:.2f}"


def summarise(values: Sequence[float]) -> Summary:
    """The mean and, of more than one value, the sample standard deviation."""
    return Summary(mean(values), stdev(values) if len(values) > 1 else None)


def average_curves(curves: Sequence[Mapping[float, float]]) -> list[Point]:
    """One curve of several, each ``{epoch: score}``, over the epochs that all of them have."""
    epochs = sorted(set.intersection(*map(set, curves)))
    columns = ((epoch, [curve[epoch] for curve in curves]) for epoch in epochs)
    return [Point(epoch, mean(scores), min(scores), max(scores)) for epoch, scores in columns]


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table that is aligned in plain text too, numbers to the right."""
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (header, *lines)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    first, *rest = ([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in (first, rule, *rest))


def draw_curves(curves: Mapping[str, Mapping[str, Sequence[Point]]], path: Path) -> None:
    """A panel for each metric and a line for each name in it: the mean of the seeds, in a band of least to greatest."""
    with _style():
        names = list(dict.fromkeys(name for lines in curves.values() for name in lines))
        columns = 2 if max(map(len, names)) < 45 else 1
        figure, panels = _panels(1, len(curves), width=4.9, height=3.6 + 0.22 * -(-len(names) // columns))
        handles: dict[str, Any] = {}
        for panel, (metric, lines) in zip(panels[0], curves.items(), strict=True):
            for name, points in lines.items():
                handles[name] = _draw_line(panel, names.index(name), points)
            _label(panel, title=metric, x="epoch", y="F1 on dev (%)")
            panel.grid(axis="y", color="#DDDDDD", linewidth=0.8)
            panel.xaxis.get_major_locator().set_params(integer=True)
        place: dict[str, Any] = {"loc": "outside lower center", "ncols": columns, "frameon": False, "handlelength": 3.5}
        figure.legend(list(handles.values()), list(handles), **place)
        _save(figure, path)


def draw_grids(grids: Sequence[Grid], path: Path) -> None:
    """Two heat maps for each grid, dev and test: alpha downwards, beta to the right, each with its own colours."""
    with _style():
        rows, columns = (max(len(grid.axes[side]) for grid in grids) for side in (0, 1))
        figure, panels = _panels(len(grids), 2, width=2.2 + 0.85 * columns, height=1.3 + 0.62 * rows)
        for pair, grid in zip(panels, grids, strict=True):
            for panel, split, scores in zip(pair, ("dev", "test"), (grid.dev, grid.test), strict=True):
                _draw_heat_map(figure, panel, grid, scores)
                title = f"mean Rel+ on {split}"
                _label(panel, title=title if len(grids) == 1 else f"{grid.name}\n{title}", x="beta", y="alpha")
        _save(figure, path)


def _style() -> AbstractContextManager:
    """The settings of all pictures, whatever the user's own are; raises ``ImportError`` where matplotlib is missing."""
    try:
        from matplotlib import style
    except ImportError as error:
        message = "The pictures need matplotlib, which is not installed: pip install 'spacy_ie_moe[report]'."
        raise ImportError(message) from error
    return style.context(["default", STYLE])


def _panels(rows: int, columns: int, *, width: float, height: float) -> tuple[Any, Any]:
    """A figure and its panels [rows, columns], of ``width`` x ``height`` inches each."""
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(width * columns, height * rows), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, hspace=0.06)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _draw_line(panel: Any, index: int, points: Sequence[Point]) -> Any:
    """Draw a mean and its band; returns the line for the legend."""
    colour, dashes = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    epochs = [point.epoch for point in points]
    means, lows, highs = ([100 * point[side] for point in points] for side in (1, 2, 3))
    panel.fill_between(epochs, lows, highs, color=colour, alpha=0.15, linewidth=0)
    marker = "o" if len(points) == 1 else None
    (line,) = panel.plot(epochs, means, color=colour, linestyle=dashes, marker=marker, linewidth=1.8)
    return line


def _draw_heat_map(figure: Any, panel: Any, grid: Grid, scores: Mapping[Cell, Summary]) -> None:
    """Means as colours and numbers, with the chosen cell framed; cells that were not run are grey."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    alphas, betas = grid.axes
    means = {cell: 100 * summary.mean for cell, summary in scores.items()}
    values = np.array([[means.get((alpha, beta), np.nan) for beta in betas] for alpha in alphas])
    colours = colormaps["cividis"].with_extremes(bad=NO_CELL)
    image = panel.imshow(np.ma.masked_invalid(values), cmap=colours, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        missing = np.isnan(value)
        colour = "black" if missing or image.norm(value) > 0.45 else "white"
        panel.text(column, row, "–" if missing else f"{value:.2f}", ha="center", va="center", color=colour)
    row, column = alphas.index(grid.chosen[0]), betas.index(grid.chosen[1])
    frame: dict[str, Any] = {"fill": False, "edgecolor": COLOURS[1], "linewidth": 3.0, "clip_on": False}
    panel.add_patch(Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, **frame))
    panel.set_xticks(range(len(betas)), [f"{beta:g}" for beta in betas])
    panel.set_yticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    figure.colorbar(image, ax=panel, label="F1 (%)").outline.set_visible(False)


def _label(panel: Any, *, title: str, x: str, y: str) -> None:
    panel.set_title(title)
    panel.set_xlabel(x)
    panel.set_ylabel(y)


def _save(figure: Any, path: Path) -> None:
    """Write SVG without the date, so that equal pictures are equal files."""
    figure.savefig(path, format="svg", metadata={"Date": None})
