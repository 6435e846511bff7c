"""Instruction pools made wider by a language model (paper, section 4.1 and Figure 4).

A model is asked to say each wording of a pool in other words, with a few examples. What it writes is only kept if it
can still be used as that instruction; ``refuse`` says why not. Only ``Rewriter`` needs PyTorch and transformers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..instruction_model import encode_prompts, load_instruction_model
from .instructions import Pools

LENGTHS = (20, 300)
"""Fewest and most characters of a wording."""

SIGNS = " .,;:?!'\"’‘“”-–—/"
"""What a wording may have between letters."""

SEPARATOR = "-----"
"""Stands between the examples of a prompt, so a model that goes on with another example writes it."""

REQUEST = (
    "You rewrite instructions. Say the instruction that follows once more, so that it asks for exactly the same thing "
    "in other words and with another sentence structure. Answer with nothing but the new instruction, in one line."
)

EXAMPLES = (
    (
        "Underline the entities of the text and note the type of each of them.",
        "For all entities that occur in the text, say which of the types they have.",
    ),
    (
        "If two mentions stand in one of the relation types, give both of them and the type.",
        "Give every two mentions that one of the relation types holds between, together with that type.",
    ),
    (
        "For every event, name the word that triggers it and the arguments that fill its roles.",
        "Each event has a trigger word and arguments in certain roles: name all of them.",
    ),
)
"""What goes in and what comes out, for entities, relations and events as in Figure 4."""

_TYPE = ("type", "categor", "class", "kind")

REQUIRED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "NER": (_TYPE, ("entit", "name", "mention")),
    "RE": (_TYPE, ("relat",)),
    "ED": (_TYPE, ("event",), ("trigger", "word")),
    "EAE": (("event",), ("argument", "role", "participant")),
    "EE": (("event",), ("argument", "role", "participant")),
    "ABSA": (("aspect",), ("opinion",), ("sentiment", "polarit")),
    "judging": (_TYPE, ("only", "just", "not ", "nothing", "without", "empty")),
    "locating": (_TYPE, ("span", "word", "piece", "phrase")),
    "associating": (_TYPE, ("span",)),
}
"""By task and capability: what a wording must still speak of, a group of words (by how they begin) for each."""

Rewrite = Callable[[str, int], Sequence[str]]
"""Takes a wording and a number; so many other wordings, as the model wrote them."""


@dataclass(frozen=True)
class Paraphrases:
    """Pools that begin with the wordings they were made from, and how many new ones were dropped, by reason."""

    pools: dict[str, tuple[str, ...]]
    kept: dict[str, int]
    dropped: dict[str, Counter[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values; ``instructions.read_pools`` reads the pools."""
        return {
            "pools": {name: list(pool) for name, pool in self.pools.items()},
            "kept": self.kept,
            "dropped": {name: dict(sorted(reasons.items())) for name, reasons in self.dropped.items()},
        }


def paraphrase_pools(pools: Pools, rewrite: Rewrite, *, count: int) -> Paraphrases:
    """``pools`` with up to ``count`` paraphrases of each wording, those that ``refuse`` lets pass.

    pools: by task or capability. No wording occurs twice, in whatever pool.
    """
    wider = {name: list(pool) for name, pool in pools.items()}
    taken = {wording_key(wording) for pool in pools.values() for wording in pool}
    dropped: dict[str, Counter[str]] = {name: Counter() for name in pools}
    for name, pool in pools.items():
        for wording in pool:
            for written in rewrite(wording, count):
                candidate = tidy(written)
                reason = refuse(candidate, name, taken=taken)
                if reason is None:
                    wider[name].append(candidate)
                    taken.add(wording_key(candidate))
                else:
                    dropped[name][reason] += 1
    kept = {name: len(wider[name]) - len(pool) for name, pool in pools.items()}
    return Paraphrases({name: tuple(pool) for name, pool in wider.items()}, kept, dropped)


def tidy(written: str) -> str:
    """The wording in what a model wrote: up to the next example, without its heading and the quotes around it."""
    wording = re.split(rf"{SEPARATOR}|\n\s*input\s*:", written, flags=re.IGNORECASE)[0].strip()
    wording = re.sub(r"^(?:output|new instruction)\s*:\s*", "", wording, flags=re.IGNORECASE)
    quoted = re.fullmatch(r"""(["'“‘`])(.*)["'”’`]""", wording, flags=re.DOTALL)
    return quoted[2].strip() if quoted else wording


def refuse(candidate: str, name: str, *, taken: Collection[str] = ()) -> str | None:
    """Why ``candidate`` cannot be a wording for ``name``, a task or capability; None if it can.

    taken: the ``wording_key`` of those that there are already.
    """
    if not candidate.strip():
        return "empty"
    if len(candidate.splitlines()) > 1:
        return "several lines"
    if any(sign in candidate for sign in "(){}[]\\"):
        return "brackets"
    if not all(sign.isalnum() or sign in SIGNS for sign in candidate):
        return "unusual characters"
    if len(candidate) < LENGTHS[0]:
        return "too short"
    if len(candidate) > LENGTHS[1]:
        return "too long"
    if not candidate[0].isupper() or candidate[-1] not in ".?!":
        return "no whole sentence"
    if not all(_speaks_of(candidate, stems) for stems in REQUIRED[name]):
        return "required words missing"
    return "duplicate" if wording_key(candidate) in taken else None


def wording_key(wording: str) -> str:
    """What makes a wording one and the same: its words, without case and punctuation."""
    return " ".join(re.findall(r"\w+", wording.casefold()))


def make_request(wording: str) -> str:
    """The prompt for ``wording``: the request and the examples, then the wording."""
    shown = f"\n{SEPARATOR}\n".join(f"Input: {source}\nOutput: {target}" for source, target in EXAMPLES)
    asked = f"Input: {wording}\nOutput:"
    return f"{REQUEST}\n\n{shown}\n{SEPARATOR}\n{asked}"


class Rewriter:
    """A Hugging Face causal language model as a ``Rewrite``; it samples, the same with the same ``seed``.

    source: a local folder or a hub id; a model with a chat template gets the prompt as a chat. temperature: of
    sampling, above 0. device: such as ``"cpu"`` or ``"cuda"``. Raises ``ValueError`` for what cannot be loaded.
    """

    def __init__(
        self,
        source: str,
        *,
        revision: str | None = None,
        temperature: float = 0.8,
        max_new_tokens: int = 96,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        import torch

        self.model, self.tokenizer = load_instruction_model(source, revision=revision, device=device)
        self.temperature = temperature
        self.max_new_tokens = max_new_tokens
        self._state = torch.Generator().manual_seed(seed)

    def __call__(self, wording: str, count: int) -> list[str]:
        import torch

        inputs = self._encode(wording)
        pad = self.tokenizer.pad_token_id
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(int(torch.randint(2**31, (), generator=self._state)))
            output = self.model.generate(
                **inputs,
                do_sample=True,
                temperature=self.temperature,
                top_k=0,
                top_p=0.95,
                num_return_sequences=count,
                max_new_tokens=self.max_new_tokens,
                pad_token_id=self.tokenizer.eos_token_id if pad is None else pad,
            )
        written = output[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(written, skip_special_tokens=True)

    def _encode(self, wording: str) -> dict[str, Any]:
        encoded = encode_prompts(self.tokenizer, [make_request(wording)], return_tensors="pt")
        return {name: encoded[name].to(self.model.device) for name in ("input_ids", "attention_mask")}


def report_rows(result: Paraphrases) -> Iterable[tuple[str, int, int, str]]:
    """For each pool its name, how many wordings it has now, how many of them are new, and what was dropped."""
    for name, pool in result.pools.items():
        reasons = ", ".join(f"{reason}: {number}" for reason, number in sorted(result.dropped[name].items()))
        yield name, len(pool), result.kept[name], reasons or "none"


def _speaks_of(wording: str, stems: Sequence[str]) -> bool:
    """Whether a word begins with one of the stems."""
    return re.search(rf"\b(?:{'|'.join(stems)})", wording, flags=re.IGNORECASE) is not None
