"""The steps of the workflows of ``uc_uie``: ``python -m benchmarks.uie_workflow STEP [--smoke true]``.

corpora: convert the data sets of four tasks. sample: learn 200 sentences of each task by heart. train: the mixture of
experts and plain LoRA on all four, scored on their test sets and on unseen ones, with a page in ``results``. routing:
which expert does what, drawn. capabilities: the same model with some of its capabilities. ablate, sub-experts,
low-resource, unseen-task: the paper's other tables.

mini-corpora, mini-base, mini-adapter: what the bundled uie-mini is made of. base: a compact language model that is
trained to write frames; adapter: a mixture of experts on more sets and tasks; both are packed.

smoke: the same on a few hand-written sentences, with a compact model of random weights, to see that all of it runs.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

from .smoke import is_smoke
from .study import overrides, slug

LISTS = {"corpora": ("tasks", "sample", "low_resource", "unseen_task"), "mini-corpora": ("base", "mini")}
FOLDERS = {"corpora": "corpus/uie", "mini-corpora": "corpus/uie_mini"}
STUDIES = {
    "sample": "uie_sample",
    "train": "uie",
    "ablate": "uie_ablation",
    "sub-experts": "uie_sub_experts",
    "low-resource": "uie_low_resource",
    "unseen-task": "uie_unseen_task",
}
BUNDLED = "uie-mini"
PACKED = {"mini-base": "training/uie_base/packed", "mini-adapter": "training/uie_mini/packed"}
TESTS = [f"corpus/uie/{name}.spacy" for name in ("test_conll2003", "test_conll04", "test_phee", "test_14res")]
STEPS = f"{', '.join([*LISTS, *PACKED, *STUDIES])}, routing or capabilities"


def main(
    step: Annotated[str, typer.Argument(help=f"{STEPS}.")],
    smoke: Annotated[str, typer.Option(help="true: a few sentences and steps only.")] = "false",
    encoder: Annotated[str, typer.Option(help="The encoder that the compact model is made of.")] = "",
    seeds: Annotated[str, typer.Option(help="Seeds of the adapters.")] = "0",
    steps: Annotated[int, typer.Option(help="Steps of each training.")] = 1000,
    limit: Annotated[int, typer.Option(help="Test documents of each set; 0 for all.")] = 100,
    jobs: Annotated[int, typer.Option(help="Trainings at a time.")] = 2,
) -> None:
    """Run one step."""
    small = is_smoke(smoke)
    steps, limit = (8, 3) if small else (steps, limit)
    if step in LISTS:
        for name in ("smoke",) if small else LISTS[step]:
            shared = ["--keep-shared"] if small else []  # a few sentences are all that there is
            _python("benchmarks.uie_corpora", f"assets/uie/{name}.json", FOLDERS[step], *shared)
    elif step == "sample":
        _study(STUDIES[step], BUNDLED, seeds, steps, 0, 1)
    elif step in STUDIES:
        _study(STUDIES[step], BUNDLED, seeds, steps, limit, jobs)
        if step == "ablate":  # Figure 6 shows both
            for variant in ("UC-UIE", "w/o entropy loss"):
                picture = f"results/uie_ablation/routing_{slug(variant)}.svg"
                _python("benchmarks.uie_routing", _trained("uie_ablation", variant), picture, *TESTS)
    elif step == "mini-base":
        _train_base("" if small else encoder, steps, vocabulary=600 if small else 12000)
    elif step == "mini-adapter":
        _study("uie_mini", PACKED["mini-base"], "0", steps, limit, 1)
        _python("spacy_ie_moe.uc_uie.pack", _trained("uie_mini"), PACKED[step])
    elif step == "routing":
        _python("benchmarks.uie_routing", _trained("uie"), "results/uie/routing.svg", *TESTS)
    elif step == "capabilities":
        options = ["--documents", str(1 if small else limit)]
        _python("benchmarks.uie_capabilities", _trained("uie"), "results/uie_capabilities", *TESTS, *options)
    else:
        raise typer.BadParameter(f"STEP is {step!r}; expected {STEPS}.")


def _train_base(encoder: str, steps: int, vocabulary: int) -> None:
    """Make a compact model, of random weights without an encoder, and train all of it."""
    compact = ["spacy_ie_moe.uc_uie.compact", "training/uie_compact", "corpus/uie_mini/base_train.spacy"]
    _python(*compact, "--encoder", encoder, "--vocabulary", str(vocabulary))
    settings = {
        "paths.train": "corpus/uie_mini/base_train.spacy",
        "paths.dev": "corpus/uie_mini/base_dev.spacy",
        "paths.base": "training/uie_compact",
        "training.max_steps": steps,
        "training.optimizer.learn_rate.total_steps": steps,
        "training.eval_frequency": min(steps, 500),
    }
    _python("spacy", "train", "configs/uc_uie_base.cfg", "--output", "training/uie_base", *overrides(settings))
    _python("spacy_ie_moe.uc_uie.pack", "training/uie_base/model-last", PACKED["mini-base"])


def _study(name: str, base: str, seeds: str, steps: int, limit: int, jobs: int) -> None:
    where = ["benchmarks.uie_study", f"assets/studies/{name}.json", f"training/{name}", f"results/{name}"]
    options = {"base": base, "seeds": seeds, "steps": steps, "limit": limit, "jobs": jobs}
    _python(*where, *(part for option, value in options.items() for part in (f"--{option}", str(value))))


def _trained(study: str, variant: str = "UC-UIE") -> str:
    """The first run of a variant."""
    return f"training/{study}/{slug(variant)}/0/model-last"


def _python(module: str, *arguments: str) -> None:
    """Run a module; its failure is ours."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


if __name__ == "__main__":
    typer.run(main)
