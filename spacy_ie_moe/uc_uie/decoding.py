"""Answers of a causal language model to prompts that share an instruction. PyTorch only.

What the model computes of an instruction, keys, values and gates, is computed once and kept for all texts and all
later calls: the model is causal and the gates depend on nothing else (eq. 3).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import RLock
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList

from .constraints import CopyConstraint, Grammar, RecordScores
from .lm import adapter_of, has_gates, last_logits, longest_text, tuner_of, weights_of
from .prompts import Prompter

KEPT_BYTES = 1 << 30
"""Keys and values of instructions are kept up to this size in all; of one instruction whatever its size."""


@dataclass(frozen=True)
class Request:
    """Texts to answer.

    instruction, bodies: as ``instructions`` has them. grammars: of each body, for constrained decoding. routes: gates
    in place of the router's. max_new_tokens: where an answer is cut off. beams: 1 is greedy. batch_tokens: prompts
    that are read at once have at most so many tokens together, each once for each beam; one prompt at least.
    """

    instruction: str
    bodies: Sequence[str]
    grammars: Sequence[Grammar] | None = None
    routes: tuple[float, ...] | None = None
    max_new_tokens: int = 256
    beams: int = 1
    batch_tokens: int = 4096


@dataclass(frozen=True)
class Answer:
    """What was written.

    ends: where in the text each token ends. log_probabilities: of each token, given those before, as the model has
    them, whatever a grammar allows. finished: False where ``max_new_tokens`` cut it off. ended: whether it was brought
    to its end before that, against what the model would have written. problem: why there is none.
    """

    text: str
    ends: list[int] = field(default_factory=list)
    log_probabilities: list[float] = field(default_factory=list)
    finished: bool = True
    ended: bool = False
    problem: str = ""


@dataclass
class Prefix:
    """What is kept of an instruction: its tokens, keys and values [1, ...], and gates [linears, 1, capabilities]."""

    tokens: list[int]
    cache: Any  # a DynamicCache, which has no types
    gates: Tensor | None

    @cached_property
    def bytes(self) -> int:
        """The size of keys and values."""
        tensors = [tensor for layer in self.cache for tensor in layer if isinstance(tensor, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class Decoder:
    """Writes answers, greedily or with beams. Several threads may share it; one at a time generates."""

    def __init__(self, model: Any, prompter: Prompter) -> None:
        self.model = model
        self.prompter = prompter
        self._prefixes: OrderedDict[tuple[Any, ...], Prefix] = OrderedDict()
        self._weights: tuple[Any, ...] = ()
        self._only: str | None = None
        self._lock = RLock()

    def forget(self) -> None:
        """Drop what is kept of instructions."""
        self._prefixes.clear()

    def specialise(self, instruction: str, routes: tuple[float, ...] | None = None) -> ExitStack:
        """Fold the gates of an instruction into the weights: until it is closed, nothing else can be answered.

        routes: gates in place of the router's. Raises ``ValueError`` for a model without gates.
        """
        if not has_gates(self.model):
            raise ValueError("the model has no gates; expected model.adapter 'himoe' or a trained one of its kind.")
        with self._lock:
            gates = self._prefix(Request(instruction, (), routes=routes)).gates
            assert gates is not None
            stack = tuner_of(self.model).specialise(gates[:, 0])
            self._only = instruction
        stack.callback(setattr, self, "_only", None)
        return stack

    def __call__(self, request: Request) -> list[Answer]:
        """An answer for each body, in their order."""
        bodies = [self.prompter.tokens(body) for body in request.bodies]
        answers: list[Answer] = [Answer("")] * len(bodies)
        with self._lock:
            prefix = self._prefix(request)
            # Texts of like length together: what a batch pads is lost time.
            order = sorted(range(len(bodies)), key=lambda row: len(bodies[row]))
            lengths = [len(body) + len(prefix.tokens) for body in bodies]
            places = longest_text(self.model)
            budgets = [min(request.max_new_tokens, places - length) for length in lengths]
            for row in [row for row in order if budgets[row] < 1]:
                order.remove(row)
                answers[row] = Answer(
                    "",
                    problem=f"a prompt has {lengths[row]} tokens, {len(prefix.tokens)} of them the instruction; the "
                    f"model has {places} places; expected smaller types_at_once or text_tokens, or shorter words.",
                )
            for rows in _batches(order, lengths, budgets, request.batch_tokens // request.beams):
                grammars = None if request.grammars is None else [request.grammars[row] for row in rows]
                batch = self._generate(prefix, [bodies[row] for row in rows], grammars, request, budgets[rows[0]])
                for row, answer in zip(rows, batch, strict=True):
                    answers[row] = answer
        return answers

    def _prefix(self, request: Request) -> Prefix:
        if self._only not in (None, request.instruction):
            raise ValueError("the model is specialised in another instruction; expected that one, or to close first.")
        weights = weights_of(self.model)
        if weights != self._weights:  # it has learnt, or got other adapters
            self.forget()
            self._weights = weights
        key = (request.instruction, request.routes, *adapter_of(self.model), str(self.model.device))
        if key in self._prefixes:
            self._prefixes.move_to_end(key)
        else:
            self._prefixes[key] = self._read(request)
            while len(self._prefixes) > 1 and sum(prefix.bytes for prefix in self._prefixes.values()) > KEPT_BYTES:
                self._prefixes.popitem(last=False)
        return self._prefixes[key]

    def _read(self, request: Request) -> Prefix:
        tokens = self.prompter.instruction(request.instruction)
        if len(tokens) >= longest_text(self.model):
            raise ValueError(
                f"an instruction has {len(tokens)} tokens, the model {longest_text(self.model)} places; expected "
                f"smaller types_at_once."
            )
        ids = torch.tensor([tokens], device=self.model.device)
        tuner = tuner_of(self.model)
        routing: dict[str, Any] = {}
        if tuner is not None:
            routes = request.routes
            routing = {
                "instruction_mask": torch.ones_like(ids, dtype=torch.bool),
                "routes": None if routes is None else torch.tensor([routes], dtype=torch.float32, device=ids.device),
            }
        cache: Any = DynamicCache()
        with last_logits(self.model, 1):
            self.model(
                input_ids=ids, attention_mask=torch.ones_like(ids), past_key_values=cache, use_cache=True, **routing
            )
        return Prefix(tokens, cache, None if tuner is None else tuner.gates)

    def _generate(
        self,
        prefix: Prefix,
        bodies: Sequence[list[int]],
        grammars: Sequence[Grammar] | None,
        request: Request,
        budget: int,
    ) -> list[Answer]:
        ids, mask = self._pad(prefix.tokens, bodies)
        tuner = tuner_of(self.model)
        if tuner is not None:
            tuner.set_gates(prefix.gates)
        cache = copy.deepcopy(prefix.cache)
        cache.batch_repeat_interleave(len(bodies) * request.beams)
        constraint = None
        if grammars is not None:
            constraint = CopyConstraint(self.prompter.tokenizer, grammars, ids.shape[1], budget, beams=request.beams)
        recorder = RecordScores(constraint)
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            logits_processor=LogitsProcessorList([recorder]),
            use_model_defaults=False,  # a model's own settings may ask for samples
            generation_config=GenerationConfig(
                max_new_tokens=budget,
                num_beams=request.beams,
                do_sample=False,
                eos_token_id=self.prompter.end,
                pad_token_id=self.prompter.pad,
                bos_token_id=self.prompter.tokenizer.bos_token_id,
                return_dict_in_generate=True,
                output_scores=request.beams > 1,
            ),
        )
        written = output.sequences[:, ids.shape[1] :]
        if request.beams > 1:
            scores = self.model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
        else:
            scores = recorder.scores()
        answers = []
        for row, (tokens, values) in enumerate(zip(written.tolist(), scores.tolist(), strict=True)):
            answer = self._answer(tokens, values)
            answers.append(replace(answer, ended=constraint is not None and constraint.has_ended(row, tokens)))
        return answers

    def _pad(self, instruction: list[int], bodies: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Ids and mask [B, L]: the instruction, padding, the body; so every row has the instruction at its start."""
        longest = max(map(len, bodies))
        rows = [[*instruction, *[self.prompter.pad] * (longest - len(body)), *body] for body in bodies]
        masks = [[*[1] * len(instruction), *[0] * (longest - len(body)), *[1] * len(body)] for body in bodies]
        device = self.model.device
        return torch.tensor(rows, device=device), torch.tensor(masks, device=device)

    def _answer(self, tokens: list[int], scores: list[float]) -> Answer:
        written = self.prompter.read(tokens)
        return Answer(written.text, written.ends, scores[: len(written.ends)], finished=self.prompter.end in tokens)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_prefixes": OrderedDict()}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=RLock())


def _batches(order: Sequence[int], lengths: Sequence[int], budgets: Sequence[int], most: int) -> list[list[int]]:
    """Rows of one budget, in runs of ``order``; the longest times their number has at most ``most`` tokens."""
    batches: list[list[int]] = []
    for row in order:
        fits = batches and budgets[batches[-1][0]] == budgets[row] and lengths[row] * (len(batches[-1]) + 1) <= most
        if fits:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches
