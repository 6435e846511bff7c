"""Train variants of a pipeline over several seeds, choose what there is to choose on dev, and score the test set.

``python -m benchmarks.study assets/studies/scierc.json training/scierc --seeds 0,1,2`` trains what the study file
names, each run in a process of its own, into ``training/scierc/VARIANT/SEED``. A run whose config, settings and corpora
have not changed is skipped. ``runs.json`` names the runs of the last call, of which ``benchmarks.study_report`` makes a
page.

A study file is JSON: ``config``; ``corpora`` (train, dev, test: .spacy files); ``overrides`` of the config for all
variants; ``variants``, by name what differs, perhaps with a ``config`` of their own; or ``grid``, by setting the
values, of which every combination is a variant; and ``scorer``, a module other than ``benchmarks.study_scores``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import srsly
import typer

import spacy_ie_moe

THRESHOLDS = [step / 100 for step in range(10, 91, 5)]
"""Thresholds of relations to choose from."""


VERSIONS = {name: version(name) for name in ("spacy", "thinc", "torch", "transformers")}
PACKAGE = Path(spacy_ie_moe.__file__).parent
CODE = sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("corpora/*.py"), *PACKAGE.glob("gmoe_rte/**/*.py")])

TUNED_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_THRESHOLD_": str(2**30)}
"""Lets glibc keep the memory that PyTorch frees and soon takes again, instead of clearing pages for it every time."""


@dataclass(frozen=True)
class Study:
    """A study file, read and checked."""

    config: Path
    corpora: dict[str, Path]
    overrides: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    scorer: str = "benchmarks.study_scores"

    @classmethod
    def read(cls, path: Path, only: set[str]) -> Study:
        """The study in ``path``, with the variants named in ``only`` or all. Raises ``ValueError``."""
        try:
            content = json.loads(path.read_text("utf8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"study {path} cannot be read ({error}); expected a JSON file.") from None
        for name in ("config", "corpora"):
            if name not in content:
                raise ValueError(f"study {path} has no {name!r}; expected config, corpora and variants or grid.")
        for name in ("corpora", "overrides", "variants", "grid"):
            if not isinstance(content.get(name, {}), dict):
                raise ValueError(f"{name} of {path} is {content[name]!r:.40}; expected an object.")
        variants = content.get("variants") or dict(_combinations(content.get("grid", {})))
        if unknown := only - set(variants):
            raise ValueError(f"--only has {min(unknown)!r}; expected variants of {path}: {', '.join(variants)}.")
        chosen = {name: settings for name, settings in variants.items() if not only or name in only}
        slugs = Counter(map(slug, variants))
        if twice := [name for name in variants if slugs[slug(name)] > 1]:
            raise ValueError(f"variants of {path} are named alike: {', '.join(twice)}; expected other letters in each.")
        corpora = {name: Path(file) for name, file in content["corpora"].items()}
        if missing := {"train", "dev", "test"} - set(corpora):
            raise ValueError(f"corpora of {path} has no {min(missing)!r}; expected train, dev and test.")
        scorer = content.get("scorer", cls.scorer)
        try:
            known = find_spec(scorer) is not None
        except ModuleNotFoundError:  # the package that it would be in
            known = False
        if not known:
            raise ValueError(f"scorer of {path} is {scorer!r}; expected a module.")
        return cls(Path(content["config"]), corpora, content.get("overrides", {}), chosen, scorer)


@dataclass(frozen=True)
class Run:
    """One training: a variant with a seed. config: the study's or the variant's own; settings: overrides of it."""

    study: Study
    variant: str
    seed: int
    config: Path
    settings: dict[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """As it is told of."""
        return f"{self.variant}, seed {self.seed}"

    @property
    def fingerprint(self) -> str:
        """Of what the result depends on: config, settings, corpora, the code, the scorer's too, and the libraries."""
        digest = hashlib.sha256(json.dumps([self.settings, VERSIONS], sort_keys=True).encode())
        scorer = find_spec(self.study.scorer)
        assert scorer is not None and scorer.origin is not None
        for file in (self.config, *sorted(self.study.corpora.values()), Path(scorer.origin), *CODE):
            digest.update(file.read_bytes())
        return digest.hexdigest()

    def has(self, name: str) -> bool:
        """Whether ``run.json`` or ``scores.json`` is there, of just this config, settings and corpora."""
        file = self.folder / name
        return file.is_file() and json.loads(file.read_text("utf8")).get("fingerprint") == self.fingerprint


def study(
    path: Annotated[Path, typer.Argument(metavar="STUDY", help="The study file.")],
    output: Annotated[Path, typer.Argument(help="Folder for the runs.")],
    seeds: Annotated[str, typer.Option(help="Seeds, comma-separated.")] = "0",
    encoder: Annotated[str | None, typer.Option(help="Folder or hub id instead of the config's encoder.")] = None,
    gpu_id: Annotated[int, typer.Option(help="GPU to train on; -1 for the CPU.")] = -1,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time; the cores are shared out among them.")] = 1,
    only: Annotated[str, typer.Option(help="Variants to run, separated by semicolons; default: all.")] = "",
) -> None:
    """Train and score the variants of a study."""
    try:
        read = Study.read(path, {name.strip() for name in only.split(";") if name.strip()})
        runs = list(_runs(read, read_seeds(seeds), output, encoder))
        missing = [file for file in (*(run.config for run in runs), *read.corpora.values()) if not file.is_file()]
        if missing:
            raise ValueError(f"{missing[0]} is not there; expected the study's configs and corpora.")
    except ValueError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None
    output.mkdir(parents=True, exist_ok=True)
    folders = [str(run.folder.relative_to(output)) for run in runs]
    (output / "runs.json").write_text(json.dumps(folders, indent=2), "utf8")
    with ThreadPoolExecutor(jobs) as pool:
        trained = list(pool.map(lambda run: _train(run, gpu_id, jobs), runs))
    # One at a time, so that speeds are those of a machine that does nothing else.
    failed = [run for run, ok in zip(runs, trained, strict=True) if not (ok and _score(run))]
    if failed:
        typer.echo(f"Error: {len(failed)} of {len(runs)} runs failed; see train.log in {failed[0].folder}.", err=True)
        raise typer.Exit(1)


def _runs(study: Study, seeds: list[int], output: Path, encoder: str | None) -> Iterator[Run]:
    """All runs: seed by seed, so that an interrupted study has whole seeds."""
    for seed in seeds:
        for variant, settings in study.variants.items():
            everything = {**study.overrides, **settings, "system.seed": seed}
            config = Path(everything.pop("config", study.config))
            if encoder is not None:
                everything["paths.encoder"] = encoder
            yield Run(study, variant, seed, config, everything, output / slug(variant) / str(seed))


def slug(variant: str) -> str:
    """A variant's name for its folder."""
    return "".join(c if c.isalnum() or c in ".=" else "-" for c in variant.lower())


def read_seeds(text: str, option: str = "--seeds") -> list[int]:
    """Comma-separated whole numbers, each once. Raises ``ValueError``, which names the option."""
    try:
        return list(dict.fromkeys(int(seed) for seed in text.split(",")))
    except ValueError:
        raise ValueError(f"{option} is {text!r}; expected whole numbers separated by commas.") from None


def training_environment(jobs: int) -> dict[str, str]:
    """That of a process of which ``jobs`` run at a time: they share the cores that this one may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = str(max(1, cores // jobs))
    return {**TUNED_MALLOC, **os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}


def overrides(settings: dict[str, Any]) -> list[str]:
    """Settings of a config as ``spacy train`` takes them."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return [part for name, text in texts.items() for part in (f"--{name}", text)]


def _train(run: Run, gpu_id: int, jobs: int) -> bool:
    """Train one run unless that is done; whether it worked."""
    if run.has("run.json"):
        typer.echo(f"{run.name}: unchanged, skipped")
        return True
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    started = time.perf_counter()
    ok = _call(run, _command(run, gpu_id), jobs)
    seconds = time.perf_counter() - started
    if ok:
        (run.folder / "run.json").write_text(json.dumps(_describe(run, seconds)), "utf8")
    typer.echo(f"{run.name}: " + (f"{seconds:.0f} s of training" if ok else "failed"))
    return ok


def _score(run: Run) -> bool:
    """Score one trained run unless that is done; whether it worked."""
    if run.has("scores.json"):
        return True
    ok = _call(run, [sys.executable, "-m", run.study.scorer, str(run.folder)], jobs=1)
    typer.echo(f"{run.name}: {_summary(run) if ok else 'scoring failed'}")
    return ok


def _call(run: Run, command: list[str], jobs: int) -> bool:
    """Run a command, of which so many run at a time, with its output in the run's log; whether it worked."""
    with open(run.folder / "train.log", "a", encoding="utf8") as log:
        return not subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, env=training_environment(jobs))


def _command(run: Run, gpu_id: int) -> list[str]:
    corpora = run.study.corpora
    settings = {
        **run.settings,
        "paths.train": str(corpora["train"]),
        "paths.dev": str(corpora["dev"]),
        "paths.log": str(run.folder / "log.jsonl"),
    }
    command = [sys.executable, "-m", "spacy", "train", str(run.config), "--output", str(run.folder)]
    return [*command, "--gpu-id", str(gpu_id), *overrides(settings)]


def _describe(run: Run, seconds: float) -> dict[str, Any]:
    return {
        "variant": run.variant,
        "seed": run.seed,
        "config": str(run.config),
        "overrides": run.settings,
        "fingerprint": run.fingerprint,
        "versions": VERSIONS,
        "seconds": seconds,
        "corpora": {name: str(file) for name, file in run.study.corpora.items()},
    }


def _summary(run: Run) -> str:
    test = srsly.read_json(run.folder / "scores.json")["test"].get("canonical")
    if test is None:  # another scorer's
        return "scored"
    values = [f"{name} {100 * test[level]['micro']['f1']:.2f}" for name, level in LEVEL_NAMES.items()]
    return f"test {', '.join(values)}"


LEVEL_NAMES = {"Ent": "ent", "Rel": "rel", "Rel+": "rel_plus"}


def _combinations(grid: dict[str, list[Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every combination of the values of a grid, named by them."""
    if not grid:
        raise ValueError("the study has neither 'variants' nor 'grid'; expected one of them.")
    for values in product(*grid.values()):
        settings = dict(zip(grid, values, strict=True))
        yield ", ".join(f"{name.rpartition('.')[2]}={value}" for name, value in settings.items()), settings


if __name__ == "__main__":
    typer.run(study)
