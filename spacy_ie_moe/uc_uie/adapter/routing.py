"""What the layers of an adapter share during a call: where gates come from, and what they leave for the losses.

A call is a forward of the model, or a whole generation. What it is like is said by the caller, never guessed from the
lengths: given instruction tokens, every layer computes its gates when it is first reached and keeps them; without, it
uses those that are kept. So a prompt may come in one piece or several, and many tokens may be decoded at once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Record:
    """What a layer leaves for losses and read-outs.

    logits: of the gates, W_G h_inst + b_G, [B, groups]; None where they were not computed. weights: the low-level
    weights g_q^i, summed over the tokens of each row that count, [B, groups, Q].
    """

    logits: Tensor | None
    weights: Tensor

    @classmethod
    def joined(cls, records: Sequence[Record]) -> Record:
        """The rows of several forwards as those of one."""
        logits = [record.logits for record in records if record.logits is not None]
        weights = torch.cat([record.weights for record in records])
        return cls(torch.cat(logits) if len(logits) == len(records) else None, weights)


@dataclass(frozen=True)
class Routing:
    """One call.

    pool: [B, L], 1 / |I| at the instruction's tokens, so that a product with it is the mean over them. routes: gates
    [B, 3] of the caller. counted: [B, L], 1 at the tokens that count for the losses, 0 at others; None where nothing
    is to be recorded. gates: of each layer, by its name, [B, 1, groups, 1]. records: by the layer's name.
    """

    pool: Tensor | None = None
    routes: Tensor | None = None
    counted: Tensor | None = None
    gates: dict[str, Tensor] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)

    @property
    def computes_gates(self) -> bool:
        """Whether gates are computed or given in this call, not kept from an earlier one."""
        return self.pool is not None or self.routes is not None

    def pooled(self, values: Tensor) -> Tensor:
        """The mean of values [B, L, n] over each row's instruction tokens, [B, n] (h_inst of eq. 3).

        The mean is taken of W_G h, which is W_G of the mean. Raises ``ValueError`` where the values are the first
        piece of a prompt and the instruction goes on in the next.
        """
        assert self.pool is not None
        pool, length = expand_rows(self.pool.to(values.device), values.shape[0]), values.shape[1]
        if length < pool.shape[1]:
            if pool[:, length:].any():
                raise ValueError(
                    f"the instruction goes on behind the first piece of the prompt, which has {length} tokens; "
                    "expected all of it in the first piece."
                )
            pool = pool[:, :length]
        # Not a matrix product, which autocast would round.
        return (pool.unsqueeze(-1) * values.float()).sum(1)

    def record(self, layer: str, weights: Tensor) -> None:
        """Keep a layer's low-level weights [B, L, groups, Q], if anyone is to see them."""
        if self.counted is not None:
            summed = (self.counted.to(weights.device)[..., None, None] * weights.float()).sum(1)
            self.records[layer] = Record(None, summed)

    def record_logits(self, layer: str, logits: Tensor) -> None:
        """Keep the logits [B, groups] of a layer's gates beside its weights."""
        if layer in self.records:
            self.records[layer] = replace(self.records[layer], logits=logits)

    def replayed(self) -> Routing:
        """The same call for the same computation again: gates are computed anew, and nothing else is touched."""
        return replace(self, gates={} if self.computes_gates else self.gates, records={})


def expand_rows(rows: Tensor, count: int) -> Tensor:
    """[B, ...] to [count, ...]: one row is for all; else each is for as many successive rows (beams).

    Raises ``ValueError`` where ``count`` is no multiple of B.
    """
    if rows.shape[0] in (1, count):
        return rows
    if count % rows.shape[0]:
        raise ValueError(f"there are gates of {rows.shape[0]} rows for a batch of {count}; expected as many, or one.")
    return rows.repeat_interleave(count // rows.shape[0], dim=0)


class RouteState:
    """The current call, one object for all layers of a model.

    Each thread has a call of its own, so threads can predict with one model. Copies and pickles of a model start
    without one.
    """

    def __init__(self) -> None:
        self._local = threading.local()

    @property
    def current(self) -> Routing:
        """The thread's call; one without gates where there was none."""
        try:
            return self._local.routing
        except AttributeError:
            return Routing()

    @current.setter
    def current(self, routing: Routing) -> None:
        self._local.routing = routing

    def forget(self) -> None:
        """Forget the calls of all threads: their gates belong to another adapter, or to other weights."""
        self._local = threading.local()

    def see_batch(self, model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note how many rows and tokens the model is about to read: a hook before its forward."""
        given = tokens_of(args, kwargs)
        self._local.batch = None if given is None else tuple(given.shape[:2])

    def rows(self, x: Tensor) -> tuple[int, int]:
        """(B, L) of a layer's input [B * L, d], which is how some models have it.

        Raises ``ValueError`` for inputs that are not all tokens of the batch, as experts of a sparse model get.
        """
        batch: tuple[int, int] | None = getattr(self._local, "batch", None)
        if x.ndim == 2 and batch is not None and batch[0] * batch[1] == x.shape[0]:
            return batch
        read = "an unknown number of tokens" if batch is None else f"{batch[0]} x {batch[1]} tokens"
        raise ValueError(
            f"an adapted layer got an input of shape {tuple(x.shape)} while the model reads {read}; expected all of "
            "them, as the gates are those of rows."
        )

    def checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """What ``torch.utils.checkpoint`` calls as ``context_fn``: the forward as it is, and its repetition.

        The repetition, perhaps on another thread and after other forwards, sees the call of the first time.
        """
        seen, batch = self.current, getattr(self._local, "batch", None)
        return nullcontext(), self._replay(seen, batch)

    @contextmanager
    def _replay(self, routing: Routing, batch: tuple[int, int] | None) -> Iterator[None]:
        before = dict(self._local.__dict__)
        self._local.__dict__.update(routing=routing.replayed(), batch=batch)
        try:
            yield
        finally:
            self._local.__dict__.clear()
            self._local.__dict__.update(before)

    def __reduce__(self) -> tuple[type[RouteState], tuple[()]]:
        return RouteState, ()


def tokens_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """What a language model is called with: ids [B, L] or vectors [B, L, d]; None where there is neither."""
    for name in ("input_ids", "inputs_embeds"):
        if kwargs.get(name) is not None:
            return kwargs[name]
    return args[0] if args else None


def instruction_pool(mask: Tensor) -> Tensor:
    """A mask [B, L] of the instruction's tokens as weights of their mean.

    Raises ``ValueError`` where a row has none.
    """
    mask = mask.bool()
    if not mask.any(1).all():
        row = int((~mask.any(1)).nonzero()[0])
        raise ValueError(f"instruction_mask has no token in row {row}; expected the instruction's tokens in every row.")
    return mask.float() / mask.sum(1, keepdim=True)


def check_mask(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless a mask has the shape [B, L] of what is read."""
    if tuple(mask.shape) != shape:
        raise ValueError(f"{name} has the shape {tuple(mask.shape)}; expected {shape}, a value for every token.")


def check_routes(routes: Tensor, rows: int | None) -> Tensor:
    """Routes [B, 3] of the caller, as they are. Raises ``ValueError`` for another shape."""
    if routes.ndim != 2 or routes.shape[1] != 3 or (rows is not None and routes.shape[0] not in (1, rows)):
        expected = "[B, 3]" if rows is None else f"[{rows}, 3]"
        raise ValueError(f"routes has the shape {tuple(routes.shape)}; expected {expected}, gates of J, L and A.")
    return routes.float() if not torch.is_floating_point(routes) else routes
