"""Prompts as token ids, and what a model wrote as text. Neither PyTorch nor spaCy.

A prompt is an instruction, which names the task and its types, and a body, which holds the text. They are turned to
tokens apart, so that the tokens of an instruction are the same whatever follows: what a model computes of them can be
kept for all texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tokenizers.decoders import DecodeStream


@dataclass(frozen=True)
class Tokens:
    """One lesson in tokens. routes: the capabilities that its task takes (hard-routing labels, section 3.4)."""

    instruction: Sequence[int]
    body: Sequence[int]
    target: Sequence[int]
    routes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.instruction) + len(self.body) + len(self.target)


@dataclass(frozen=True)
class Written:
    """What a model wrote. text: without special tokens. ends: where in it each token ends."""

    text: str
    ends: list[int]


class Prompter:
    """Between text and the tokens of a Hugging Face tokenizer. Raises ``ValueError`` for one that ends nothing."""

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.is_fast:
            raise ValueError("the tokenizer of model.base has no fast form; expected one of the tokenizers library.")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer of model.base has no end-of-sequence token; expected one that has.")
        self.tokenizer = tokenizer
        self.end = int(tokenizer.eos_token_id)
        self.pad = self.end if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)

    def instruction(self, text: str) -> list[int]:
        """The tokens of an instruction, behind the tokenizer's start token where it has one."""
        start = [] if self.tokenizer.bos_token_id is None else [int(self.tokenizer.bos_token_id)]
        return start + self.tokens(text)

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, no special ones, not even where the text has the name of one."""
        return self._encode(text)["input_ids"]

    def starts(self, text: str) -> list[int]:
        """Where in the text each of its tokens begins."""
        return [start for start, _ in self._encode(text, return_offsets_mapping=True)["offset_mapping"]]

    def _encode(self, text: str, **options: Any) -> Any:
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False, **options)

    def target(self, text: str) -> list[int]:
        """The tokens of an answer, with the end token."""
        return [*self.tokens(text), self.end]

    def read(self, tokens: Sequence[int]) -> Written:
        """The text of generated tokens, up to the end token."""
        kept = list(tokens)
        if self.end in kept:
            kept = kept[: kept.index(self.end)]
        text = self._decode(kept)
        return Written(text, [*self._ends(kept)[:-1], len(text)] if kept else [])

    def _ends(self, tokens: list[int]) -> list[int]:
        """Where each token ends; one with half a character where the one before does."""
        stream = DecodeStream(skip_special_tokens=True)
        written, ends = "", []
        try:
            for token in tokens:
                written += stream.step(self.tokenizer.backend_tokenizer, token) or ""
                ends.append(len(written))
        except Exception:  # of tokenizers, which has no class for it: bytes that are no character. The slow way then
            return list(accumulate((len(self._decode(tokens[: i + 1])) for i in range(len(tokens))), max))
        return ends

    def _decode(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
