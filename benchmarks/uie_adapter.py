"""What the mixture of LoRA experts of ``uc_uie`` costs in time, beside plain LoRA, in one process.

``python -m benchmarks.uie_adapter [--layers 6] [--turns 7] [--prompt 192] [--tokens 32] [--batch 1]``

The base is a random Llama with the shapes of SmolLM2-135M's layers, fewer of them, and a vocabulary that is smaller
in proportion. All adapters are on its feed-forward layers: LoRA of rank 4, which is the measure; LoRA of the rank that
all experts have together; the mixture; and the mixture specialised for an instruction. They read a prompt, and write
tokens after it with a cache. They take turns, each turn in another order, so that a busy moment of the machine hits
all; what counts is the median of the ratios within a turn, of the time of the processor, and of the clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import typer
from peft import LoraConfig, PeftConfig, get_peft_model
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from spacy_ie_moe.uc_uie.adapter import FFN_MODULES, HiMoEConfig

MOST_EXTRA = 20.0
"""Percent of the time of LoRA of rank 4 that the mixture may cost."""
MEASURE, MIXTURE = "LoRA r=4", "mixture"
SMOLLM_LAYERS, SMOLLM_VOCABULARY = 30, 49152


@dataclass
class Variant:
    """A model, and what its calls take beside tokens."""

    model: Any
    routing: dict[str, Any]

    def read(self, ids: Tensor) -> Any:
        """Read a prompt [B, L]; the mixture computes its gates of the first half. Returns the cache."""
        cache = DynamicCache()
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, **self.routing)
        return cache

    def write(self, cache: Any, first: Tensor, tokens: int) -> None:
        """Write tokens after what the cache has, the most probable ones, and forget them again."""
        length, token = cache.get_seq_length(), first
        for _ in range(tokens):
            logits = self.model(input_ids=token, past_key_values=cache, use_cache=True).logits
            token = logits[:, -1:].argmax(-1)
        cache.crop(length)


def make_base(layers: int) -> LlamaForCausalLM:
    """A random Llama; the same one each time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=SMOLLM_VOCABULARY * layers // SMOLLM_LAYERS,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    )
    return LlamaForCausalLM(config).eval()


def make_variants(layers: int, mask: Tensor) -> dict[str, Variant]:
    """All variants by name; their adapters are random, as trained ones would be."""
    mixture = HiMoEConfig()
    experts = 1 + len(mixture.capabilities) * mixture.sub_experts
    variants = {"base": Variant(make_base(layers), {})}
    configs: dict[str, PeftConfig] = {
        MEASURE: _lora(mixture.r),
        f"LoRA r={mixture.r * experts}": _lora(mixture.r * experts),
        MIXTURE: HiMoEConfig(),
        "mixture, specialised": HiMoEConfig(),
    }
    for name, config in configs.items():
        model: Any = get_peft_model(make_base(layers), config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_(std=0.02)
        variants[name] = Variant(model.eval(), {"instruction_mask": mask} if name == MIXTURE else {})
    specialised: Any = variants["mixture, specialised"].model.base_model
    specialised.specialise(torch.full((len(specialised.layers), 3), 0.5))
    return variants


def _lora(rank: int) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(FFN_MODULES), task_type="CAUSAL_LM")


def timed(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Least milliseconds of the processor and of the clock among some calls."""
    figures: dict[str, list[float]] = {"cpu": [], "wall": []}
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        figures["cpu"].append(1000 * (time.process_time() - cpu))
        figures["wall"].append(1000 * (time.perf_counter() - wall))
    return {clock: min(values) for clock, values in figures.items()}


@torch.inference_mode()
def measure(variants: dict[str, Variant], ids: Tensor, *, tokens: int, turns: int, repeats: int) -> dict[str, Any]:
    """Figures by phase, variant and clock, one of each turn; written tokens are timed one by one."""
    runs: dict[str, dict[str, list[dict[str, float]]]] = {
        phase: {name: [] for name in variants} for phase in ("prefill", "decode")
    }
    caches = {name: variant.read(ids) for name, variant in variants.items()}
    names = list(variants)
    for turn in range(turns):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            variant = variants[name]
            runs["prefill"][name].append(timed(lambda v=variant: v.read(ids), repeats))  # type: ignore[misc]
            cache = caches[name]
            each = timed(lambda v=variant, c=cache: v.write(c, ids[:, :1], tokens), repeats)  # type: ignore[misc]
            runs["decode"][name].append({clock: value / tokens for clock, value in each.items()})
    return runs


def ratios(runs: dict[str, list[dict[str, float]]], name: str, clock: str) -> list[float]:
    """The times of a variant to those of LoRA of rank 4, by turn."""
    return [run[clock] / base[clock] for run, base in zip(runs[name], runs[MEASURE], strict=True)]


def print_phase(phase: str, runs: dict[str, list[dict[str, float]]]) -> None:
    """The table of a phase, and whether the mixture costs more than it may."""
    print(f"\n{phase:22} {'CPU ms':>9} {'ratio':>7} {'clock ms':>9} {'ratio':>7}   ratios of CPU time by turn")
    for name, turns in runs.items():
        line = ""
        for clock in ("cpu", "wall"):
            line += f" {median(run[clock] for run in turns):9.2f} {median(ratios(runs, name, clock)):7.3f}"
        by_turn = " ".join(f"{ratio:.2f}" for ratio in sorted(ratios(runs, name, "cpu")))
        print(f"{name:22}{line}   {by_turn}")
    extra = {clock: 100 * (median(ratios(runs, MIXTURE, clock)) - 1) for clock in ("cpu", "wall")}
    verdict = "reached" if max(extra.values()) <= MOST_EXTRA else "MISSED"
    print(f"{phase}: the mixture costs {extra['cpu']:+.1f} % of CPU time and {extra['wall']:+.1f} % by the clock over "
          f"{MEASURE}, wanted at most {MOST_EXTRA:.0f} %: {verdict}", flush=True)  # fmt: skip


def main(
    layers: int = typer.Option(6, help="Decoder layers of the base."),
    prompt: int = typer.Option(192, help="Tokens of the prompt; the first half is the instruction."),
    tokens: int = typer.Option(32, help="Tokens that are written."),
    batch: int = typer.Option(1, help="Rows."),
    turns: int = typer.Option(7, help="How often each variant is measured."),
    repeats: int = typer.Option(3, help="Calls in a turn; the least time counts."),
    threads: int = typer.Option(1, help="Threads of the process."),
    output: Path | None = typer.Option(None, help="JSON file for all figures."),
) -> None:
    """Print what reading a prompt and writing tokens takes with each adapter, and whether it is what was wanted."""
    torch.set_num_threads(threads)
    ids = torch.randint(3, 1000, (batch, prompt), generator=torch.Generator().manual_seed(1))
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, : max(1, prompt // 2)] = True
    variants = make_variants(layers, mask)
    print(f"{layers} layers, {batch} x {prompt} tokens read, {tokens} written, {turns} turns, {threads} threads, "
          f"torch {torch.__version__}", flush=True)  # fmt: skip
    runs = measure(variants, ids, tokens=tokens, turns=turns, repeats=repeats)
    for phase, found in runs.items():
        print_phase(phase, found)
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps({"torch": torch.__version__, "threads": threads, "runs": runs}, indent=2), "utf8")


if __name__ == "__main__":
    typer.run(main)
