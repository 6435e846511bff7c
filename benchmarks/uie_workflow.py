"""The steps of the workflow ``train-uie``: ``python -m benchmarks.uie_workflow STEP [--smoke true]``.

corpora: convert the data sets of ``assets/uie``. base: make a compact language model and train it to write frames.
sample: learn 200 sentences of each of four tasks by heart. train: the mixture of experts and plain LoRA on all four,
scored on their test sets and on unseen ones, with a page in ``results``. ablate, sub-experts, low-resource: the paper's
other tables on the four tasks. smoke: the same on a few hand-written
sentences with a random model, to see that all of it runs.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from .study import overrides

LISTS = {False: ("base", "tasks", "sample", "low_resource"), True: ("smoke",)}
STUDIES = {
    "train": "uie",
    "ablate": "uie_ablation",
    "sub-experts": "uie_sub_experts",
    "low-resource": "uie_low_resource",
}
BASE = "training/uie_base/packed"


def main(
    step: Annotated[str, typer.Argument(help="corpora, base, sample, train, ablate, sub-experts or low-resource.")],
    smoke: Annotated[str, typer.Option(help="true: a few sentences and steps only.")] = "false",
    encoder: Annotated[str, typer.Option(help="The encoder that the compact model is made of.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds of the adapters.")] = "0",
    base_steps: Annotated[int, typer.Option(help="Steps of the base.")] = 1500,
    sample_steps: Annotated[int, typer.Option(help="Steps on the sample.")] = 800,
    steps: Annotated[int, typer.Option(help="Steps of each adapter.")] = 1000,
    limit: Annotated[int, typer.Option(help="Test documents of each set; 0 for all.")] = 100,
    jobs: Annotated[int, typer.Option(help="Trainings at a time.")] = 2,
) -> None:
    """Run one step."""
    small = smoke == "true"
    if step == "corpora":
        for name in LISTS[small]:
            _python("benchmarks.uie_corpora", f"assets/uie/{name}.json", "corpus/uie")
    elif step == "base":
        _train_base(small, encoder, 6 if small else base_steps)
    elif step == "sample":
        _study("uie_sample", seeds, 8 if small else sample_steps, 0, jobs)
    elif step in STUDIES:
        _study(STUDIES[step], seeds, 8 if small else steps, 3 if small else limit, jobs)
    else:
        raise typer.BadParameter(f"STEP is {step!r}; expected corpora, base, sample, {', '.join(STUDIES)}.")


def _train_base(small: bool, encoder: str, steps: int) -> None:
    compact = ["spacy_ie_moe.uc_uie.compact", "training/uie_compact", "corpus/uie/base_train.spacy"]
    _python(*compact, "--encoder", "" if small else encoder, "--vocabulary", "600" if small else "12000")
    settings = {
        "paths.train": "corpus/uie/base_train.spacy",
        "paths.dev": "corpus/uie/base_dev.spacy",
        "paths.base": "training/uie_compact",
        "training.max_steps": steps,
        "training.optimizer.learn_rate.total_steps": steps,
        "training.eval_frequency": steps,
    }
    _python("spacy", "train", "configs/uc_uie_base.cfg", "--output", "training/uie_base", *overrides(settings))
    _python("spacy_ie_moe.uc_uie.pack", "training/uie_base/model-last", BASE)


def _study(name: str, seeds: str, steps: int, limit: int, jobs: int) -> None:
    where = ["benchmarks.uie_study", f"assets/studies/{name}.json", f"training/{name}", f"results/{name}"]
    options = {"base": BASE, "seeds": seeds, "steps": steps, "limit": limit, "jobs": jobs}
    _python(*where, *(part for option, value in options.items() for part in (f"--{option}", str(value))))


def _python(module: str, *arguments: str) -> None:
    """Run a module; its failure is ours."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


if __name__ == "__main__":
    typer.run(main)
