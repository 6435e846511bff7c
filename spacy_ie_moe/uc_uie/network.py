"""A causal language model that learns to answer extraction prompts, and answers them. PyTorch only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..precision import autocast_bfloat16
from .decoding import Answer, Decoder, Request
from .lm import last_logits, takes_positions, tuner_of
from .prompts import Prompter, Tokens

SPREAD = 1.3
"""Of lessons that are read at once the longest is at most so many times as long as the shortest."""


@dataclass(frozen=True)
class LessonBatch:
    """Lessons to learn from. forced: their routes are the gates (capability warming), not labels for the router."""

    lessons: Sequence[Tokens]
    forced: bool = False


class ExtractionLM(nn.Module):
    """L_total = L_task + gamma L_bce + beta L_entropy (eq. 10).

    model: a causal language model, perhaps of peft's. prompter: its tokenizer. gamma, beta: the weights of the
    auxiliary losses. mixed_precision: learn in bfloat16 with float32 weights, where the device has instructions for it.
    """

    def __init__(
        self,
        model: Any,
        prompter: Prompter,
        *,
        gamma: float = 0.1,
        beta: float = 0.1,
        mixed_precision: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.prompter = prompter
        self.gamma = gamma
        self.beta = beta
        self.mixed_precision = mixed_precision
        self.decoder = Decoder(model, prompter)

    @property
    def tuner(self) -> Any:
        """The tuner of the mixture of experts; None where the model has none."""
        return tuner_of(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def forward(self, batch: LessonBatch) -> dict[str, Tensor]:
        """The terms of the loss by name, weighted; their sum is what is learnt from.

        Lessons of about the same length are read at once, so that little is padding; the loss is that of all.
        """
        self.decoder.forget()  # what it keeps is of weights that are about to change
        answered = sum(len(lesson.target) for lesson in batch.lessons)
        task, calls, labels = [], [], []
        for group in _by_length(batch.lessons):
            routes = torch.tensor([lesson.routes for lesson in group], dtype=torch.float32, device=self.device)
            task.append(self._negative_log_likelihood(group, routes if batch.forced else None) / answered)
            labels.append(routes)
            if self.tuner is not None:
                calls.append(self.tuner.last_call)
        losses = {"task": torch.stack(task).sum()}
        if self.tuner is not None:
            auxiliary = self.tuner.auxiliary_losses(None if batch.forced else torch.cat(labels), calls)
            weights = {"bce": 0.0 if batch.forced else self.gamma, "entropy": self.beta}
            losses |= {name: weights[name] * loss for name, loss in auxiliary.items() if weights[name]}
        return losses

    def _negative_log_likelihood(self, lessons: Sequence[Tokens], routes: Tensor | None) -> Tensor:
        """-log p of the answers, a sum over their tokens; a scalar. routes: [B, 3], gates that are given."""
        ids, mask, instruction, targets = self._collate(lessons)
        options: dict[str, Any] = {}
        if takes_positions(self.model):
            options["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)  # padding is on the left
        if self.tuner is not None:
            answer = torch.zeros_like(instruction)
            answer[:, -targets.shape[1] :] = targets != -100
            options |= {"instruction_mask": instruction, "routes": routes, "loss_mask": answer}
        with (
            autocast_bfloat16(self.device.type, self.mixed_precision),
            last_logits(self.model, targets.shape[1] + 1),
        ):
            output = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **options)
        logits = output.logits[:, :-1].float().flatten(0, 1)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=-100, reduction="sum")

    @torch.inference_mode()
    def predict(self, request: Request) -> list[Answer]:
        """What the model writes for each body of the request."""
        return self.decoder(request)

    @torch.inference_mode()
    def routing(
        self, instruction: str, body: str, routes: Sequence[float] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """How a prompt is routed: gates g' [linears, 3] (eq. 3), and by capability g_q [linears, Q] (eq. 6).

        The latter are means over the tokens. routes: gates in place of the router's. Raises ``ValueError`` for a
        model without a mixture of experts.
        """
        tuner = self.tuner
        if tuner is None:
            raise ValueError("the model has no mixture of experts; expected model.adapter 'himoe' or a trained one.")
        first, rest = self.prompter.instruction(instruction), self.prompter.tokens(body)
        ids = torch.tensor([[*first, *rest]], device=self.device)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[:, : len(first)] = True
        with last_logits(self.model, 1):
            forced = None if routes is None else torch.tensor([routes], dtype=torch.float32, device=self.device)
            self.model(input_ids=ids, instruction_mask=mask, routes=forced)
        return tuner.gates[:, 0], {name: weights[:, 0] for name, weights in tuner.sub_expert_weights().items()}

    def _collate(self, lessons: Sequence[Tokens]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ids, mask and instruction mask [B, L], padded on the left, and targets [B, T], -100 for none.

        Targets end where the rows end, so the head sees no other positions.
        """
        longest = max(len(lesson) for lesson in lessons)
        answer = max(len(lesson.target) for lesson in lessons)
        ids = torch.full((len(lessons), longest), self.prompter.pad)
        mask = torch.zeros_like(ids)
        instruction = torch.zeros_like(ids, dtype=torch.bool)
        targets = torch.full((len(lessons), answer), -100)
        for row, lesson in enumerate(lessons):
            start = longest - len(lesson)
            ids[row, start:] = torch.tensor([*lesson.instruction, *lesson.body, *lesson.target])
            mask[row, start:] = 1
            instruction[row, start : start + len(lesson.instruction)] = True
            targets[row, answer - len(lesson.target) :] = torch.tensor(lesson.target)
        device = self.device
        return ids.to(device), mask.to(device), instruction.to(device), targets.to(device)


def _by_length(lessons: Sequence[Tokens]) -> list[list[Tokens]]:
    """The lessons in groups of about the same length, see ``SPREAD``."""
    groups: list[list[Tokens]] = []
    for lesson in sorted(lessons, key=len):
        if not groups or len(lesson) > SPREAD * len(groups[-1][0]):
            groups.append([])
        groups[-1].append(lesson)
    return groups
