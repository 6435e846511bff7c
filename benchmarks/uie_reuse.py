"""What keeping an instruction saves: the same short documents, with the instruction read once or with each.

``python -m benchmarks.uie_reuse --base FOLDER`` times both in turns on 100 documents of one schema, and prints medians.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Annotated, Any

import spacy
import torch
import typer
from transformers import GenerationConfig

from spacy_ie_moe.uc_uie.decoding import Request
from spacy_ie_moe.uc_uie.instructions import body, build

SCHEMA = {
    "Attack": ["Attacker", "Target", "Place", "Time"],
    "Travel": ["Traveller", "Origin", "Destination", "Time"],
    "Purchase": ["Buyer", "Seller", "Item", "Price"],
    "Speech": ["Speaker", "Audience", "Place"],
    "Birth": ["Person", "Place", "Time"],
    "Award": ["Winner", "Prize", "Giver", "Time"],
}
NAMES = ("Alice Munro", "Bob Dylan", "Carol Shields", "Dave Brubeck", "Erin Hunter")
PLACES = ("Paris", "Oslo", "Lima", "Cairo", "Quito")


def main(
    base: Annotated[str, typer.Option(help="A causal language model.")],
    documents: Annotated[int, typer.Option(help="Short documents.")] = 100,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer: that of one frame.")] = 24,
    batch: Annotated[int, typer.Option(help="Documents at a time, beside one.")] = 25,
    turns: Annotated[int, typer.Option(help="Turns of both.")] = 3,
) -> None:
    """Time both ways on one thread, one document at a time and in batches."""
    torch.set_num_threads(1)
    texts = [f"{NAMES[n % 5]} spoke in {PLACES[n // 5 % 5]} on May {n % 28 + 1} ." for n in range(documents)]
    nlp = spacy.blank("en")
    model = {"base": base, "adapter": "himoe", "adapter_settings": _targets(base)}
    pipe: Any = nlp.add_pipe("uc_uie", config={"schema": SCHEMA, "model": model})
    network = pipe.bundle.network.eval()
    instruction = build("EE", SCHEMA)
    typer.echo(f"{documents} documents, {len(network.prompter.instruction(instruction))} tokens of instruction")
    for size in (1, batch):
        batches = [[body(text) for text in texts[first : first + size]] for first in range(0, documents, size)]
        seconds: dict[str, list[float]] = {"kept": [], "whole": []}
        for _ in range(turns):
            network.decoder.forget()
            for name, times in seconds.items():
                started = time.perf_counter()
                for bodies in batches:
                    if name == "kept":
                        network.predict(Request(instruction, bodies, max_new_tokens=max_new_tokens))
                    else:
                        read_whole(network, instruction, bodies, max_new_tokens)
                times.append(time.perf_counter() - started)
        kept, whole = (median(times) for times in seconds.values())
        typer.echo(
            f"{size:>3} at a time: instruction kept {documents / kept:.1f} documents/s, read with each "
            f"{documents / whole:.1f}: x{whole / kept:.2f}"
        )


@torch.inference_mode()
def read_whole(network: Any, instruction: str, bodies: list[str], max_new_tokens: int) -> None:
    """What generation is without kept instructions: the model reads all of every prompt."""
    prompter = network.prompter
    first = prompter.instruction(instruction)
    rows = [[*first, *prompter.tokens(text)] for text in bodies]
    longest = max(map(len, rows))
    ids = torch.tensor([[prompter.pad] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    start = mask.argmax(-1, keepdim=True)
    place = torch.arange(longest)
    network.model.generate(
        input_ids=ids,
        attention_mask=mask,
        instruction_mask=(place >= start) & (place < start + len(first)),
        use_model_defaults=False,
        generation_config=GenerationConfig(
            max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=prompter.end, pad_token_id=prompter.pad
        ),
    )


def _targets(base: str) -> dict[str, list[str]]:
    """OPT's feed-forward layers have names of their own."""
    from transformers import AutoConfig

    return {"target_modules": ["fc1", "fc2"]} if AutoConfig.from_pretrained(base).model_type == "opt" else {}


if __name__ == "__main__":
    typer.run(main)
