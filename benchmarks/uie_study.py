"""Train variants of ``uc_uie`` on the same documents, and score each on several test sets.

``python -m benchmarks.uie_study assets/studies/uie.json training/uie results/uie --base training/uie_base/packed``
trains every variant (``spacy train``, a process each) into ``training/uie/VARIANT/SEED``, scores it, and writes
``results/uie/README.md`` and ``results.json``. Runs that are done are skipped.

A study file is JSON: ``title`` and ``note`` for the page; ``config``; ``corpora``, train and dev (few documents, whose
scores the logs show and nothing is chosen by); ``tests``, .spacy files by name; ``overrides`` for all variants;
``variants``, by name what differs; ``parts``, by name what else each variant is trained with in turn. Of the steps of a
variant that says nothing else the first 30 %, or ``warming_share``, are capability warming.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import spacy
import typer

from spacy_ie_moe.corpora.reader import create_relation_corpus
from spacy_ie_moe.uc_uie.checkpoint import BASE, find_part

from .study import PACKAGE, VERSIONS, overrides, read_seeds, slug, training_environment

SCORES = {
    "uie_ner_f": "NER",
    "uie_re_f": "RE",
    "uie_trig_f": "Trig-C",
    "uie_arg_f": "Arg-C",
    "uie_absa_f": "ABSA",
}
"""Offset micro-F1 by the scorer's name."""
SHARES = {"uie_malformed": "malformed", "uie_ungroundable": "not in the text", "uie_unknown_type": "unknown type"}
WARMING_STEPS, WARMING_SHARE = "components.uc_uie.warming_steps", 0.3


@dataclass(frozen=True)
class Run:
    """One training: a variant with a seed."""

    variant: str
    seed: int
    settings: dict[str, Any]
    folder: Path

    def command(self, study: dict[str, Any]) -> list[str]:
        """``spacy train`` with the run's settings."""
        corpora = {f"paths.{name}": study["corpora"][name] for name in ("train", "dev")}
        settings = {**corpora, **self.settings, "system.seed": self.seed}
        command = [sys.executable, "-m", "spacy", "train", study["config"], "--output", str(self.folder)]
        return [*command, *overrides(settings)]


def main(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="The study file.")],
    output: Annotated[Path, typer.Argument(help="Folder for the runs.")],
    results: Annotated[Path, typer.Argument(help="Folder for the page.")],
    base: Annotated[str, typer.Option(help="The language model that is adapted.")],
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0",
    limit: Annotated[int, typer.Option(help="Test documents of each set; 0 for all.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time.")] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training.")] = 1000,
) -> None:
    """Train and score the variants of a study, and write a page."""
    study = json.loads(path.read_text("utf8"))
    study["variants"] = variants_of(study)
    runs = list(_runs(study, output, base, read_seeds(seeds), steps))
    with ThreadPoolExecutor(jobs) as pool:
        failed = [
            run for run, ok in zip(runs, pool.map(lambda run: _do(run, study, jobs), runs), strict=True) if not ok
        ]
    if failed:
        typer.echo(f"Error: {len(failed)} of {len(runs)} runs failed; see {failed[0].folder}.log.", err=True)
        raise typer.Exit(1)
    rows = [_scored(run, study, limit) for run in runs]
    results.mkdir(parents=True, exist_ok=True)
    (results / "results.json").write_text(json.dumps(rows, indent=1), "utf8")
    page = write_page(study, rows, limit)
    (results / "README.md").write_text(page, "utf8")
    typer.echo(page)


def variants_of(study: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each variant, or of each variant with each part."""
    if "parts" not in study:
        return study["variants"]
    return {
        f"{variant}, {part}": {**settings, **more}
        for part, more in study["parts"].items()
        for variant, settings in study["variants"].items()
    }


def _runs(study: dict[str, Any], output: Path, base: str, seeds: list[int], steps: int) -> Iterator[Run]:
    for seed in seeds:
        for variant, settings in study["variants"].items():
            everything = {
                "paths.base": base,
                "training.max_steps": steps,
                "training.eval_frequency": steps,
                "training.optimizer.learn_rate.total_steps": steps,
                WARMING_STEPS: round(study.get("warming_share", WARMING_SHARE) * steps),
                **study.get("overrides", {}),
                **settings,
            }
            yield Run(variant, seed, everything, output / slug(variant) / str(seed))


def _fingerprint(run: Run, study: dict[str, Any]) -> str:
    """Of what a training depends on: settings, config, corpora, base, the package's code and the libraries."""
    digest = hashlib.sha256(json.dumps([run.command(study), VERSIONS]).encode())
    corpora = [Path(value) for name, value in run.settings.items() if name == "paths.train"]
    base = sorted(path for path in Path(find_part(run.settings["paths.base"], BASE)).glob("*") if path.is_file())
    code = sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("uc_uie/**/*.py")])
    for path in (Path(study["config"]), *map(Path, study["corpora"].values()), *corpora, *base, *code):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _do(run: Run, study: dict[str, Any], jobs: int) -> bool:
    """Train a run unless just this was done; whether it worked."""
    done, fingerprint = run.folder / "run.json", _fingerprint(run, study)
    if done.is_file() and json.loads(done.read_text("utf8"))["fingerprint"] == fingerprint:
        return True
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    with open(f"{run.folder}.log", "w", encoding="utf8") as log:
        if subprocess.call(run.command(study), stdout=log, stderr=subprocess.STDOUT, env=training_environment(jobs)):
            return False
    done.write_text(json.dumps({"fingerprint": fingerprint, "seconds": time.perf_counter() - started}), "utf8")
    return True


def _scored(run: Run, study: dict[str, Any], limit: int) -> dict[str, Any]:
    """The scores of a run on every test set; kept beside it, until it is trained anew."""
    tests = hashlib.sha256(b"".join(Path(path).read_bytes() for path in study["tests"].values())).hexdigest()
    file = run.folder / f"scores-{limit}-{tests[:12]}.json"
    if file.is_file():
        return json.loads(file.read_text("utf8"))
    nlp = spacy.load(run.folder / "model-last")
    pipe: Any = nlp.get_pipe("uc_uie")
    network = pipe.bundle.network
    row: dict[str, Any] = {
        "variant": run.variant,
        "seed": run.seed,
        "seconds": json.loads((run.folder / "run.json").read_text("utf8"))["seconds"],
        "trainable": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "tests": {},
    }
    for name, path in study["tests"].items():
        corpus = create_relation_corpus(path, gold_ents=False, shuffle=bool(limit), seed=1)
        examples = list(islice(corpus(nlp), limit or None))
        started = time.perf_counter()
        scores = nlp.evaluate(examples)
        row["tests"][name] = {
            "documents": len(examples),
            "per_second": len(examples) / (time.perf_counter() - started),
            **{key: scores.get(key) for key in (*SCORES, *SHARES)},
        }
    file.write_text(json.dumps(row), "utf8")
    return row


def write_page(study: dict[str, Any], rows: list[dict[str, Any]], limit: int) -> str:
    """The results as Markdown: a line for each test set and metric, a column for each variant."""
    variants = list(study["variants"])
    by_variant = {name: [row for row in rows if row["variant"] == name] for name in variants}
    seeds = ", ".join(str(row["seed"]) for row in by_variant[variants[0]])
    lines = [
        "# uc_uie: " + study.get("title", "results"),
        "",
        f"In percent: offset micro-F1, and shares of malformed answers, fillers and types that had to be left out. "
        f"Seeds {seeds}; the model after the last step, so nothing is chosen on these documents. "
        f"{'All documents of each set.' if not limit else f'At most {limit} documents of each set, drawn.'}",
        *([study["note"]] if "note" in study else []),
        "",
        "| documents | score | " + " | ".join(variants) + " |",
        "|---|---|" + "---|" * len(variants),
    ]
    for test in study["tests"]:
        for key, name in (SCORES | SHARES).items():
            found = [[row["tests"][test][key] for row in by_variant[variant]] for variant in variants]
            if any(value is not None for values in found for value in values):
                lines.append(f"| {test} | {name} | " + " | ".join(_cell(values) for values in found) + " |")
    lines += ["", "| | " + " | ".join(variants) + " |", "|---|" + "---|" * len(variants)]
    for key, title, digits in (("trainable", "trained parameters", 0), ("seconds", "seconds of training", 0)):
        cells = [f"{mean(row[key] for row in by_variant[variant]):,.{digits}f}" for variant in variants]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def _cell(values: list[float | None]) -> str:
    present = [100 * value for value in values if value is not None]
    if not present:
        return "–"
    spread = f" ± {stdev(present):.1f}" if len(present) > 1 else ""
    return f"{mean(present):.1f}{spread}"


if __name__ == "__main__":
    typer.run(main)
