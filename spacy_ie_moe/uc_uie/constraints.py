"""Decoding that can write nothing but frames of the schema, with fillers copied from the text.

Needs llguidance (``pip install 'spacy_ie_moe[constrained]'``). A grammar for a schema and a text says what may be
written; at every step tokens that it does not allow get no probability.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from .frames import Schema, escape

_CHUNKS = re.compile(r"(?:\\.|\w)+|\s+|(?:\\.|[^\w\s\\])")
"""Words, blanks and signs of an escaped text: a filler begins and ends where one of them does."""

RESERVE = 40
"""So many tokens before the limit an answer is brought to its end."""

_ENDINGS = ("", " None", "]}", ")]}", "[]}", " []}", ": []}", "): []}")
"""What may end an answer, wherever in it one is."""


def make_grammar(schema: Schema, text: str, *, task: str) -> str:
    """The grammar, in llguidance's Lark, of what a ``task`` may extract from ``text``.

    Frames of relations and opinions have no words of their own, so "Null" is written there.
    """
    chunks = _CHUNKS.findall(escape(" ".join(text.split())))
    frames, rules = [], []
    for number, frame in enumerate(schema.types):
        filler = '"Null"' if task in ("RE", "ABSA") else "FILLER"
        slots = "" if task == "ED" else " | ".join(json.dumps(slot) for slot in frame.slots)
        rules.append(f'frame_{number}: {json.dumps("{(" + frame.name + ": ")} {filler} "): [" slots_{number} "]}}"')
        rules.append(f"slots_{number}: " + (f'(slot_{number} (", " slot_{number})*)?' if slots else '""'))
        if slots:
            rules.append(f'slot_{number}: "(" ({slots}) ": " FILLER ")"')
        frames.append(f"frame_{number}")
    return "\n".join(
        [
            'start: " None" | (" " frame)+',
            f"frame: {' | '.join(frames)}",
            *rules,
            r"FILLER: SPAN & /[^\s]((.|\n)*[^\s])?/",
            f'SPAN: %regex {{"substring_chunks": {json.dumps(chunks or ["?"])}}}',
            "",
        ]
    )


class CopyConstraint(LogitsProcessor):
    """Takes all probability from tokens that a row's grammar does not allow.

    tokenizer: a fast one of Hugging Face. grammars: of each prompt. start: where answers begin in the rows of ids.
    max_new_tokens: where they are cut off; shortly before, they are brought to their end. beams: rows of a prompt.
    """

    def __init__(
        self, tokenizer: Any, grammars: Sequence[str], start: int, max_new_tokens: int, *, beams: int = 1
    ) -> None:
        guide = _require_llguidance()
        self._tokenizer = tokenizer
        self._guide = _guide_tokenizer(tokenizer)
        self._start = start
        self._limit = max_new_tokens
        self._beams = beams
        self._matchers: list[dict[tuple[int, ...], Any]] = [
            {(): guide.LLMatcher(self._guide, guide.grammar_from("lark", grammar), log_level=0)} for grammar in grammars
        ]
        endings = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in _ENDINGS]
        self._endings = sorted(endings, key=len)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        from llguidance import torch as bitmasks

        masks = bitmasks.allocate_token_bitmask(len(scores), self._guide.vocab_size)
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        latest: list[dict[tuple[int, ...], Any]] = [{} for _ in self._matchers]
        for row, written in enumerate(input_ids[:, self._start :].tolist()):
            prompt, tokens = row // self._beams, tuple(written)
            matcher = latest[prompt][tokens] = self._matcher(prompt, tokens)
            if matcher.is_stopped():
                allowed[row, self._tokenizer.eos_token_id] = True
                continue
            forced = self._close(tokens, matcher)
            if forced is not None:
                allowed[row, forced] = True
                continue
            bitmasks.fill_next_token_bitmask(matcher, masks, row)
            bits = (masks[row].unsqueeze(-1) >> torch.arange(32, dtype=torch.int32)) & 1
            width = min(scores.shape[1], bits.numel())
            allowed[row, :width] = bits.flatten()[:width].bool().to(scores.device)
        self._matchers = latest
        return scores.masked_fill(~allowed, -torch.inf)

    def _matcher(self, prompt: int, tokens: tuple[int, ...]) -> Any:
        """The state of a row's grammar behind what is written."""
        known = self._matchers[prompt]
        if tokens in known:
            return known[tokens]
        matcher = known[tokens[:-1]].deep_copy()
        if not matcher.is_stopped():
            matcher.consume_token(tokens[-1])
        return matcher

    def _close(self, tokens: tuple[int, ...], matcher: Any) -> int | None:
        """The next token of the shortest way to an end, if the limit is near and there is one from here."""
        if len(tokens) < self._limit - min(RESERVE, self._limit // 2):
            return None
        for ending in self._endings:
            way = [*ending, self._tokenizer.eos_token_id]
            trial = matcher.deep_copy()
            # Where nothing else could follow, it stops before the end token.
            if trial.try_consume_tokens(way) == len(way) or trial.is_stopped():
                return way[0]
        return None


class RecordScores(LogitsProcessor):
    """Keeps the log-probability of the token that greedy decoding takes, at every step."""

    def __init__(self) -> None:
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self._steps.append(scores.float().log_softmax(-1).amax(-1))
        return scores

    def scores(self) -> Tensor:
        """[rows, steps]."""
        return torch.stack(self._steps, dim=1)


def _require_llguidance() -> Any:
    try:
        import llguidance
    except ImportError:
        raise ImportError(
            "constrained is True but llguidance is not installed; expected `pip install 'spacy_ie_moe[constrained]'`."
        ) from None
    return llguidance


@lru_cache(maxsize=4)
def _guide_tokenizer(tokenizer: Any) -> Any:
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer)
