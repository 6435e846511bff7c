"""Decoding that can write nothing but frames of the schema, with fillers copied from the text.

Needs llguidance (``pip install 'spacy_ie_moe[constrained]'``). A grammar for a schema and a text says what may be
written; at every step tokens that it does not allow get no probability.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

from .frames import OPINION_SLOTS, RELATION_SLOTS, Schema, escape
from .grounding import is_bound

LONGEST_CHUNK = 32
"""Bytes of a word, at most, that are copied as a whole: each may be a token, and there must be room for them."""

_SIDES = {"RE": RELATION_SLOTS[0], "ABSA": OPINION_SLOTS}

_ENDINGS = sorted({whole[place:] for whole in (" None", ")]}", "): []}") for place in range(len(whole) + 1)})
"""What may end an answer, wherever in it one is, inside of an ending too."""


class Grammar(NamedTuple):
    """What may be written, in llguidance's Lark. longest: bytes of the longest frame with no more than it must have."""

    lark: str
    longest: int


def make_grammar(schema: Schema, text: str, *, task: str) -> Grammar:
    """The grammar of what a ``task`` may extract from ``text``.

    Frames of relations and opinions have no words of their own, so "Null" is written there. Raises ``ValueError`` for
    such a type without slots, of which nothing could be written.
    """
    words = " ".join(text.split())
    if not words:
        return Grammar('start: / */ "None"', 0)
    fillers = [f"SPAN_{number}" for number in range(2 if ": " in words else 1)]
    # ``write_frames`` has a backslash in the first colon that a blank follows, and before the very word Null.
    spans = [_chunks(words), [chunk.replace(":", r"\:") for chunk in _chunks(words)]][: len(fillers)]
    absent = {word for word in re.findall(r"\w+", words) if word.lower() in ("null", "none")}
    frames, rules = [], []
    for number, frame in enumerate(schema.types):
        if task in ("RE", "ABSA") and not frame.slots:
            raise ValueError(
                f"frame type {frame.name!r} of the task {task} has no slots; expected {' and '.join(_SIDES[task])}."
            )
        filler = '"Null"' if task in ("RE", "ABSA") else "filler"
        slots = "" if task == "ED" else " | ".join(json.dumps(slot) for slot in frame.slots)
        rules.append(f'frame_{number}: {json.dumps("{(" + frame.name + ": ")} {filler} "): [" slots_{number} "]}}"')
        some = f'slot_{number} (", " slot_{number})*'
        # A frame without words of its own is nothing without slots.
        rules.append(f"slots_{number}: " + (some if filler == '"Null"' else f"({some})?" if slots else '""'))
        if slots:
            rules.append(f'slot_{number}: "(" ({slots}) ": " filler ")"')
        frames.append(f"frame_{number}")
    lark = "\n".join(
        [
            'start: / */ "None" | / */ frame (" " frame)*',
            f"frame: {' | '.join(frames)}",
            *rules,
            f"filler: {' | '.join(['FILLER', *(json.dumps(chr(92) + word) for word in sorted(absent))])}",
            rf"FILLER: ({' | '.join(fillers)}) & /[^\s]((.|\n)*[^\s])?/ & ~/([Nn][Uu][Ll][Ll]|[Nn][Oo][Nn][Ee])/",
            *(
                f'{name}: %regex {{"substring_chunks": {json.dumps(chunks)}}}'
                for name, chunks in zip(fillers, spans, strict=True)
            ),
            "",
        ]
    )
    chunk = max(spans[-1], key=_bytes)
    names = [f"{{({kind.name}: {chunk}): [({max(kind.slots, key=_bytes, default='')}: {chunk})]}}" for kind in schema]
    return Grammar(lark, max(map(_bytes, names)))


def _bytes(text: str) -> int:
    return len(text.encode("utf8", "replace"))


def _chunks(words: str) -> list[str]:
    """A text, escaped, in pieces where fillers may begin and end: at bounds of words, and within very long ones."""
    chunks, start = [], 0
    for end in range(1, len(words) + 1):
        if is_bound(words, end) or _bytes(words[start : end + 1]) > LONGEST_CHUNK:
            chunks.append(escape(words[start:end]) if words[start:end].strip() else words[start:end])
            start = end
    return chunks


class CopyConstraint(LogitsProcessor):
    """Takes all probability from tokens that a row's grammar does not allow.

    tokenizer: a fast one of Hugging Face. grammars: of each prompt. start: where answers begin in the rows of ids.
    max_new_tokens: where they are cut off; before, they are brought to their end, which is sure to succeed where there
    is room for twice the longest frame (``Grammar.longest``). beams: rows of a prompt.
    """

    def __init__(
        self, tokenizer: Any, grammars: Sequence[Grammar], start: int, max_new_tokens: int, *, beams: int = 1
    ) -> None:
        guide = _require_llguidance()
        self._tokenizer = tokenizer
        self._guide = _guide_tokenizer(tokenizer)
        self._start = start
        self._limit = max_new_tokens
        self._beams = beams
        self._matchers: list[dict[tuple[int, ...], Any]] = [
            {(): _matcher_of(guide, self._guide, grammar)} for grammar in grammars
        ]
        # A token has a byte at least, so where so many are left any frame can be ended.
        self._reserves = [min(grammar.longest, max_new_tokens // 2) for grammar in grammars]
        self._ended: set[tuple[int, tuple[int, ...]]] = set()
        self._endings = sorted((self._guide.tokenize_str(text) for text in _ENDINGS), key=len)

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
            near = len(tokens) >= self._limit - self._reserves[prompt]
            forced = self._close(matcher) if near else None
            if forced is not None:
                allowed[row, forced] = True
                if scores[row].argmax() != forced:
                    self._ended.add((prompt, tokens))
                continue
            bitmasks.fill_next_token_bitmask(matcher, masks, row)
            bits = (masks[row].unsqueeze(-1) >> torch.arange(32, dtype=torch.int32)) & 1
            width = min(scores.shape[1], bits.numel())
            allowed[row, :width] = bits.flatten()[:width].bool().to(scores.device)
        self._matchers = latest
        return scores.masked_fill(~allowed, -torch.inf)

    def has_ended(self, prompt: int, tokens: Sequence[int]) -> bool:
        """Whether an answer was brought to its end against what the model would have written."""
        return any((prompt, tuple(tokens[:place])) in self._ended for place in range(len(tokens)))

    def _matcher(self, prompt: int, tokens: tuple[int, ...]) -> Any:
        """The state of a row's grammar behind what is written."""
        known = self._matchers[prompt]
        if tokens in known:
            return known[tokens]
        matcher = known[tokens[:-1]].deep_copy()
        if not matcher.is_stopped():
            matcher.consume_token(tokens[-1])
        return matcher

    def _close(self, matcher: Any) -> int | None:
        """The next token of the shortest way to an end; None where there is none from here."""
        for ending in self._endings:
            way = [*ending, self._tokenizer.eos_token_id]
            trial = matcher.deep_copy()
            # Where nothing else could follow, it stops before the end token.
            if trial.try_consume_tokens(way) == len(way) or trial.is_stopped():
                return way[0]
        return None


class RecordScores(LogitsProcessor):
    """Keeps the log-probability of the token that greedy decoding takes, at every step, as the model has it.

    constraint: what takes tokens away before the choice; what is left does not become more probable by that.
    """

    def __init__(self, constraint: CopyConstraint | None = None) -> None:
        self._constraint = constraint
        self._steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        allowed = scores if self._constraint is None else self._constraint(input_ids, scores)
        chosen = allowed.argmax(-1, keepdim=True)
        self._steps.append(scores.float().log_softmax(-1).gather(-1, chosen).squeeze(-1))
        return allowed

    def scores(self) -> Tensor:
        """[rows, steps]."""
        return torch.stack(self._steps, dim=1)


def _matcher_of(guide: Any, tokenizer: Any, grammar: Grammar) -> Any:
    matcher = guide.LLMatcher(tokenizer, guide.grammar_from("lark", grammar.lark), log_level=0)
    if matcher.is_error():
        raise ValueError(f"the grammar of a schema cannot be used: {matcher.get_error()}")
    return matcher


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
