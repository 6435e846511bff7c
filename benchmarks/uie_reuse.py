"""What keeping an instruction saves: the same short documents, with the instruction read once and read every time.

``python -m benchmarks.uie_reuse --base FOLDER`` times both in turns on 100 documents of one schema, and prints medians.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Annotated, Any

import spacy
import torch
import typer

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
    turns: Annotated[int, typer.Option(help="Turns of both.")] = 3,
) -> None:
    """Time both ways, one document at a time, on one thread."""
    torch.set_num_threads(1)
    texts = [f"{NAMES[n % 5]} spoke in {PLACES[n // 5 % 5]} on May {n % 28 + 1} ." for n in range(documents)]
    nlp = spacy.blank("en")
    model = {"@architectures": "spacy_ie_moe.UCUIE.v1", "base": base, "adapter_settings": _targets(base)}
    pipe: Any = nlp.add_pipe("uc_uie", config={"schema": SCHEMA, "max_new_tokens": max_new_tokens, "model": model})
    decoder = pipe.bundle.network.decoder
    seconds: dict[str, list[float]] = {"kept": [], "read every time": []}
    for _ in range(turns):
        for name, times in seconds.items():
            nlp(texts[0])
            started = time.perf_counter()
            for text in texts:
                if name != "kept":
                    decoder.forget()
                nlp(text)
            times.append(time.perf_counter() - started)
    kept, every = (median(times) for times in seconds.values())
    typer.echo(f"instruction kept: {documents / kept:.1f} documents/s; read every time: {documents / every:.1f}")
    typer.echo(f"kept is x{every / kept:.2f}")


def _targets(base: str) -> dict[str, list[str]]:
    """OPT's feed-forward layers have names of their own."""
    from transformers import AutoConfig

    return {"target_modules": ["fc1", "fc2"]} if AutoConfig.from_pretrained(base).model_type == "opt" else {}


if __name__ == "__main__":
    typer.run(main)
