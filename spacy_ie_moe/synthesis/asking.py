"""Answers of an instruction model to requests, in batches. PyTorch and transformers only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from ..instruction_model import encode_prompts, load_instruction_model, prompt_text, without_special_tokens
from ..uc_uie.lm import longest_text
from .answers import THOUGHTS, Answer

TOP_P = 0.95
"""Samples come from the most probable tokens that have so much of the probability."""


class Asker:
    """An instruction model, loaded when it is first asked. But for rounding, an answer does not depend on the batch.

    source, revision, device: as of ``load_instruction_model``. max_new_tokens: where an answer is cut off.
    temperature: 0 takes the most probable token each time, more samples; the same with the same ``seed``.
    """

    def __init__(
        self,
        source: str,
        *,
        revision: str | None = None,
        device: str = "cpu",
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.source = source
        self.revision = revision
        self.device = device
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.seed = seed

    def __call__(self, requests: Sequence[str]) -> list[Answer | None]:
        """The answer to each request; None where the model has no place for the request and an answer.

        Thoughts that the prompt begins are begun in the answer.
        """
        model, tokenizer = self._loaded
        encoded = encode_prompts(tokenizer, [without_special_tokens(tokenizer, request) for request in requests])
        most = longest_text(model) - self.max_new_tokens
        rows = [row for row, tokens in enumerate(encoded["input_ids"]) if len(tokens) <= most]
        answers: list[Answer | None] = [None] * len(requests)
        if rows:
            prompts = [encoded["input_ids"][row] for row in rows]
            for row, answer in zip(rows, self._write(prompts, [requests[row] for row in rows]), strict=True):
                answers[row] = answer
        return answers

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        model, tokenizer = load_instruction_model(self.source, revision=self.revision, device=self.device)
        if tokenizer.eos_token_id is None:
            raise ValueError(f"model {self.source!r} has no end-of-sequence token; expected one that has.")
        return model, tokenizer

    def _write(self, prompts: Sequence[Sequence[int]], requests: Sequence[str]) -> list[Answer]:
        model, tokenizer = self._loaded
        end = tokenizer.eos_token_id
        ends = sorted({end, *_as_list(model.generation_config.eos_token_id)})
        pad = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        ids, mask = _pad_left(prompts, pad)
        try:
            with torch.inference_mode():
                output = model.generate(
                    input_ids=ids.to(model.device),
                    attention_mask=mask.to(model.device),
                    logits_processor=self._sampling(requests),
                    # A model's own settings may punish repetition, and most pairs have the same answer.
                    use_model_defaults=False,
                    generation_config=GenerationConfig(
                        max_new_tokens=self.max_new_tokens,
                        do_sample=False,
                        eos_token_id=ends,
                        pad_token_id=pad,
                        bos_token_id=tokenizer.bos_token_id,
                    ),
                )
        except torch.cuda.OutOfMemoryError:
            raise ValueError(
                f"the device has too little memory for answers to {len(prompts)} prompts at once; expected a smaller "
                "--batch-size, or --window."
            ) from None
        written = output[:, ids.shape[1] :]
        finished = torch.isin(written, torch.tensor(ends, device=written.device)).any(-1).tolist()
        begun = THOUGHTS if prompt_text(tokenizer, requests[0]).rstrip().endswith(THOUGHTS) else ""
        texts = tokenizer.batch_decode(written, skip_special_tokens=True)
        return [Answer(begun + text, at_end) for text, at_end in zip(texts, finished, strict=True)]

    def _sampling(self, requests: Sequence[str]) -> LogitsProcessorList:
        if self.temperature == 0:
            return LogitsProcessorList()
        seeds = [hashlib.sha256(f"{self.seed}/{request}".encode()).digest() for request in requests]
        return LogitsProcessorList(
            [
                TemperatureLogitsWarper(self.temperature),
                TopPLogitsWarper(TOP_P),
                SeededChoice([int.from_bytes(seed[:7], "big") for seed in seeds]),
            ]
        )


class SeededChoice(LogitsProcessor):
    """Makes the largest score of each row a sample of its softmax, drawn by a generator of the row's own.

    The largest of scores plus Gumbel noise is such a sample (the Gumbel-max trick), so that a row's answer is the same
    in any batch; ``generate`` would draw all rows with one generator.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores: [B, V], -inf where a token is out of the question."""
        waits = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=each) for each in self.generators])
        return scores.float() - waits.clamp_min(torch.finfo().tiny).log().to(scores.device)


def _pad_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, L]; all prompts end in the last column, where answers begin."""
    longest = max(map(len, prompts))
    ids = [[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _as_list(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]
