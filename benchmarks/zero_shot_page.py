"""The page of ``zero-shot-rte``: a table for each draw of unseen relations."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

PAPER = {
    "m5": {"Re-Cent": (43.90, 52.77, 54.70, 53.22), "Re-Cent + RTE-GMoE": (48.21, 49.34, 61.29, 54.18)},
    "m10": {"Re-Cent": (38.83, 35.62, 52.52, 42.26), "Re-Cent + RTE-GMoE": (39.39, 34.93, 56.36, 43.07)},
    "m15": {"Re-Cent": (31.56, 28.36, 52.64, 36.48), "Re-Cent + RTE-GMoE": (32.61, 30.21, 54.59, 38.56)},
}
"""FewRel in Table 6: accuracy; P, R and F1 of sentences with several triplets."""
HEADER = (
    "| | single: accuracy | several: P | R | F1 | single: P | R | F1 | several: P | R | F1 | all: P | R | F1 "
    "| Δ F1 of all | threshold | trained parameters | sentences/s |"
)
NOTE = """In percent. The relations of a test set are in neither training nor dev; the model is offered all of them. The
first four columns are with the oracle, as in the papers: of sentences with one triplet only the best answer counts, the
others are found by Re-Cent's threshold of 1.3 / 3. The other columns are without: one threshold for all sentences,
chosen on dev, whose relations are others again, and five, however many are asked for at once on test; so is the step,
by F1 at the config's threshold. A triplet is right if both spans and label are. A sentence of test or dev counts
without its other relations; of the mentions of a head or tail the annotated one counts, and another is wrong. Means
over the draws ± their standard deviations, of each draw the mean over its seeds; Δ: to the same backbone alone, and in
how many draws it is above. Speed is that of keeping all answers, whatever their scores.

The paper's figures are no like-for-like comparison: its encoder is larger (it names BERT-base, Re-Cent's code
DeBERTa-v3-base), its data all 80 relations of FewRel and several draws, and which of its columns is FewRel is inferred
from its text. Of FewRel 64 relations are to be had, not all of their instances, and few sentences have several
triplets, so the columns of those rest on little. Wiki-ZSL is 4 relations of a development file."""

SMOKE = "A smoke run on a dozen hand-written sentences: its figures say nothing but that it runs."

MIXTURE = " + RTE-GMoE"
READINGS = (("oracle", "multi"), ("threshold", "single"), ("threshold", "multi"), ("threshold", "all"))
"""What has P, R and F1, in the order of the columns."""
Row = dict[str, Any]


def write_page(runs: Path, parts: Sequence[str], results: Path, *, smoke: bool = False) -> None:
    """Write ``README.md`` and ``results.json`` of the last runs of ``parts``, such as "m5/0", below ``runs``.

    smoke: on hand-written sentences. Raises ``ValueError`` for parts that were not trained.
    """
    rows = []
    for part in parts:
        if not (runs / part / "runs.json").is_file():
            raise ValueError(f"{runs / part} has no runs.json; expected the draw to be trained first.")
        for run in json.loads((runs / part / "runs.json").read_text("utf8")):
            file = runs / part / run / "scores.json"
            if not file.is_file():
                raise ValueError(f"{file} is missing; expected the run to be trained and scored first.")
            scores = json.loads(file.read_text("utf8"))
            size, split = part.split("/")
            rows.append({**scores, "part": size, "split": int(split)})
    results.mkdir(parents=True, exist_ok=True)
    (results / "results.json").write_text(json.dumps(rows, indent=1), "utf8")
    (results / "README.md").write_text(make_page(rows, smoke=smoke), "utf8")


def make_page(rows: list[Row], *, smoke: bool = False) -> str:
    """The page."""
    lines = ["# gmoe_rte: triplets of relations never seen", "", SMOKE if smoke else NOTE]
    for part in dict.fromkeys(row["part"] for row in rows):
        here = [row for row in rows if row["part"] == part]
        draws = {row["split"]: row for row in here}
        lines += ["", f"## {_title(part, smoke)}", ""]
        for split, row in draws.items():
            sentences, triplets, labels = row["test"]["sentences"], row["test"]["triplets"], row["labels"]
            lines.append(
                f"- Draw {split}: {sentences['single']:,} sentences of one triplet, {sentences['multi']:,} of several "
                f"({triplets['multi']:,} triplets). Test: {', '.join(labels['test'])}. Dev: {', '.join(labels['dev'])}."
            )
        seeds = ", ".join(sorted({str(row["seed"]) for row in here}))
        lines += ["", f"Seeds {seeds}.", ""]
        lines += [HEADER, "|---" * HEADER.count(" | ") + "|---|"]
        variants = {name: [row for row in here if row["variant"] == name] for name in (row["variant"] for row in here)}
        for variant, own in variants.items():
            lines.append(_line(variant, own, variants.get(variant.removesuffix(MIXTURE), [])))
            if variant in PAPER.get(part, {}):
                cells = [f"{value:.1f}" for value in PAPER[part][variant]]
                lines.append("| " + " | ".join([f"{variant}, paper", *cells, *["–"] * 13]) + " |")
        lines += ["", "95 % intervals of the four F1, in their order, a bootstrap over the sentences of a run:", ""]
        lines += map(_intervals, here)
    return "\n".join([*lines, ""])


def _title(part: str, smoke: bool) -> str:
    if part == "wiki":
        return "Wiki-ZSL, trained on FewRel"
    return f"m = {part[1:]}" if smoke else f"FewRel, m = {part[1:]}"


def by_draw(rows: list[Row], value: Callable[[Row], float | None]) -> dict[int, float]:
    """A value of each draw that has it: the mean over its seeds."""
    draws: dict[int, list[float]] = {}
    for row in rows:
        if (found := value(row)) is not None:
            draws.setdefault(row["split"], []).append(found)
    return {split: mean(values) for split, values in draws.items()}


def _line(variant: str, rows: list[Row], alone: list[Row]) -> str:
    """A line of the table. alone: the rows of the same backbone without the mixture, or the same rows."""

    def cell(value: Callable[[Row], float | None], scale: float = 100.0, digits: int = 1) -> str:
        values = [scale * of_draw for of_draw in by_draw(rows, value).values()]
        if not values:
            return "–"
        spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
        return f"{mean(values):,.{digits}f}{spread}"

    cells = [cell(lambda row: row["test"]["oracle"]["single"])]
    for reading, group in READINGS:
        for ratio in ("precision", "recall", "f1"):
            cells.append(cell(lambda row, r=reading, g=group, q=ratio: row["test"][r][g][q]))  # type: ignore[misc]
    cells += [
        _gain(rows, alone) if alone and alone is not rows else "–",
        cell(lambda row: row["threshold"], 1.0, 2),
        cell(lambda row: row["trainable_parameters"], 1.0, 0),
        cell(lambda row: row["test"]["per_second"], 1.0, 0),
    ]
    return "| " + " | ".join([variant, *cells]) + " |"


def _intervals(row: Row) -> str:
    cells = []
    for reading, group in READINGS:
        interval = row["test"][reading][group]["interval"]
        cells.append("–" if interval is None else "{:.1f} to {:.1f}".format(*(100 * end for end in interval)))
    return f"- {row['variant']}, draw {row['split']}, seed {row['seed']}: {', '.join(cells)}."


def _gain(rows: list[Row], alone: list[Row]) -> str:
    mine, theirs = (by_draw(side, lambda row: row["test"]["threshold"]["all"]["f1"]) for side in (rows, alone))
    gains = [100 * (mine[split] - theirs[split]) for split in mine.keys() & theirs.keys()]
    return f"{mean(gains):+.1f} ({sum(gain > 0 for gain in gains)} of {len(gains)})" if gains else "–"
