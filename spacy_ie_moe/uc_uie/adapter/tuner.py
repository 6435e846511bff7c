"""The tuner: puts the experts into a model, and passes the routing of a call on to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import Tensor, nn

from .config import FFN_MODULES, HiMoEConfig
from .layer import NO_MERGE, HiMoELinear
from .losses import bce_loss, entropy_loss
from .routing import Record, RouteState, Routing, check_mask, check_routes, instruction_pool, tokens_of
from .targets import check_targets


class HiMoEModel(BaseTuner):
    """The tuner of ``HiMoEConfig`` (UC-UIE, section 3.4): what ``get_peft_model(base, config).base_model`` is.

    A call of the model, or ``generate``, takes beside what the base model takes

        instruction_mask: [B, L], true at the tokens of the instruction I. It must come first in the prompt: then the
            gates are a function of it alone. A soft router computes the gates from it (eq. 3), and they are kept.
        routes: [B, 3], gates of J, L and A. They are used as they are, and kept; no router computes any. This is hard
            routing, and the first stage of training.
        loss_mask: [B, L], true at the tokens of the answer, where ``entropy_over`` leaves these out; by default those
            whose label is not -100.

    With neither of the first two the kept gates are used, which is decoding with a cache. Each row of a batch may
    have an instruction of its own. Adapters without gates (``router="flat"``) need no routing, and ignore it.
    """

    prefix = "himoe_"
    tuner_layer_cls = HiMoELinear
    uses_shared_state = True  # without a tuner there is nothing to pass the routing on

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        self.state = RouteState()
        super().__init__(model, *args, **kwargs)
        self._hook = model.register_forward_pre_hook(self.state.see_batch, with_kwargs=True)

    # Calls

    def forward(
        self,
        *args: Any,
        instruction_mask: Tensor | None = None,
        routes: Tensor | None = None,
        loss_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base model's forward with this routing."""
        given = tokens_of(args, kwargs)
        if given is None:
            raise ValueError("there are neither input_ids nor inputs_embeds; expected one of them.")
        shape = tuple(given.shape[:2])
        counted = None
        if instruction_mask is not None or routes is not None or torch.is_grad_enabled():
            if loss_mask is None and kwargs.get("labels") is not None:
                loss_mask = kwargs["labels"] != -100
            counted = self._counted(given, kwargs.get("attention_mask"), loss_mask)
        self.state.current = self._routing(shape, instruction_mask, routes, counted)
        return self.model(*args, **kwargs)

    def generate(
        self, *args: Any, instruction_mask: Tensor | None = None, routes: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """The base model's ``generate`` with this routing; several beams of a row share its gates."""
        given = tokens_of(args, kwargs)
        shape = None if given is None else tuple(given.shape[:2])
        cache = kwargs.get("past_key_values")
        if instruction_mask is not None and cache is not None and cache.get_seq_length():
            raise ValueError(
                "instruction_mask is given beside past_key_values that are not empty; expected set_gates(...) with the "
                "gates of what they are of."
            )
        self.state.current = self._routing(shape, instruction_mask, routes, None)
        return self.model.generate(*args, **kwargs)

    def _routing(
        self,
        shape: tuple[int, ...] | None,
        instruction_mask: Tensor | None,
        routes: Tensor | None,
        counted: Tensor | None,
    ) -> Routing:
        if routes is None and instruction_mask is None:
            kept = self.state.current.gates
            rows = {gates.shape[0] for gates in kept.values()} - {1}
            if shape is not None and rows - {shape[0]}:
                raise ValueError(f"there are gates of {max(rows)} rows for a batch of {shape[0]}; expected as many.")
            return Routing(counted=counted, gates=kept)
        if self._is_folded():
            raise ValueError("the adapter is specialised; expected no instruction_mask and no routes.")
        if routes is not None:
            return Routing(routes=check_routes(routes, shape[0] if shape else None), counted=counted)
        assert instruction_mask is not None
        if shape is not None:
            check_mask("instruction_mask", instruction_mask, shape)
        return Routing(pool=instruction_pool(instruction_mask), counted=counted)

    def _counted(self, given: Tensor, attention_mask: Any, loss_mask: Tensor | None) -> Tensor:
        """[B, L], 1 at the tokens that the losses count."""
        length = given.shape[1]
        counted = torch.ones(given.shape[:2], device=given.device)
        if attention_mask is not None:
            if getattr(attention_mask, "ndim", None) != 2:
                raise ValueError("attention_mask is no matrix; expected [B, L], 0 at padding.")
            counted = counted * (attention_mask[:, -length:] != 0)
        if loss_mask is not None and self._config.entropy_over == "prompt":
            check_mask("loss_mask", loss_mask, tuple(given.shape[:2]))
            counted = counted * ~loss_mask.bool()
        return counted

    # Gates and read-outs

    @property
    def layers(self) -> list[HiMoELinear]:
        """The layers that have the active adapter, in the model's order."""
        modules = (module for module in self.model.modules() if isinstance(module, HiMoELinear))
        return [layer for layer in modules if layer.adapter is not None]

    @property
    def gates(self) -> Tensor:
        """The kept gates of J, L and A: [layers, B, 3], detached; 0 for capabilities without an expert.

        All 0 and of one row for adapters without gates; a row for each beam after a beam search with an
        instruction_mask. Raises ``ValueError`` where there are none yet.
        """
        kept, layers = self.state.current.gates, self.layers
        found = []
        for layer in layers:
            if not layer.layout.gated:
                found.append(torch.zeros(1, 3))
                continue
            if layer.name not in kept:
                raise ValueError("there are no gates yet in this thread; expected a call with an instruction_mask.")
            own = kept[layer.name][:, 0, :, 0].float()
            gates = own.new_zeros(own.shape[0], 3)
            gates[:, layer.layout.columns] = own
            found.append(gates)
        return torch.stack([gates.to(found[0].device) for gates in found])

    def set_gates(self, gates: Tensor) -> None:
        """Keep these gates for the calls to come: [layers, B, 3], where one row is for a batch of any size."""
        layers = self.layers
        if gates.ndim != 3 or gates.shape[0] != len(layers) or gates.shape[2] != 3:
            raise ValueError(f"gates have the shape {tuple(gates.shape)}; expected [{len(layers)}, B, 3].")
        kept = {}
        for layer, own in zip(layers, gates.detach(), strict=True):
            if layer.layout.gated:
                down = layer.parameters_of(layer.adapter or "")[0]
                kept[layer.name] = own[:, None, layer.layout.columns, None].to(down.device, torch.float32)
        self.state.current = Routing(gates=kept)

    def clear_gates(self) -> None:
        """Forget the kept gates of this thread."""
        self.state.current = Routing()

    def sub_expert_weights(self) -> dict[str, Tensor]:
        """How the tokens of the last forward were routed: the mean g_q^i (eq. 6) over each row, by capability.

        Each is [layers, B, Q]; that of a flat mixture is "all". Raises ``ValueError`` unless that forward had an
        instruction_mask, routes or gradients: others record nothing.
        """
        records, tokens, _ = self._records([self.last_call])
        if not records:
            return {}
        layout = self.layers[0].layout
        means = torch.stack([record.weights.to(tokens.device) for record in records]).detach()
        means = means / tokens.clamp(min=1)[None, :, None, None].to(means)
        return {group: means[:, :, index] for index, group in enumerate(layout.groups)}

    @property
    def last_call(self) -> Routing:
        """How the last forward of this thread was routed."""
        return self.state.current

    def auxiliary_losses(
        self, labels: Tensor | None = None, calls: Sequence[Routing] | None = None
    ) -> dict[str, Tensor]:
        """L_bce (eq. 4) as "bce" and L_entropy (eq. 8) as "entropy" of a batch: scalars, without γ and β.

        labels: [B, 3], the hard-routing labels g_J, g_L and g_A of each row. They are what the gates are to become,
        and a capability's entropy is that over the rows which take it; without labels those whose route is not 0.
        calls: the ``last_call`` after each of several forwards, whose rows are one batch; None: the last forward.
        """
        records, tokens, routes = self._records([self.last_call] if calls is None else calls)
        layout = self.layers[0].layout
        zero = torch.zeros((), device=tokens.device)
        if not layout.routed:
            return {"bce": zero, "entropy": zero}
        rows = tokens.shape[0]
        own = None
        if labels is not None:
            check_routes(labels, rows)
            own = labels.to(tokens).expand(rows, -1)[:, layout.columns] if layout.gated else None
        active = own if own is not None else routes[:, layout.columns] if routes is not None and layout.gated else None
        active = tokens.new_ones(1, len(layout.groups)) if active is None else (active > 0).to(tokens)
        active = active.expand(rows, -1)
        reduction = self._config.adapter_reduction
        return {"bce": bce_loss(records, own, reduction), "entropy": entropy_loss(records, tokens, active, reduction)}

    def _records(self, calls: Sequence[Routing]) -> tuple[Sequence[Record], Tensor, Tensor | None]:
        """Of forwards: what each layer recorded, how many tokens of each row count [B], and their routes."""
        tokens, routes = [], []
        routed = [layer.name for layer in self.layers if layer.layout.routed]
        for call in calls:
            if call.counted is None:
                raise ValueError("a forward recorded nothing; expected one with an instruction_mask or gradients.")
            missing = [name for name in routed if name not in call.records]
            if missing:
                raise ValueError(f"a forward did not reach {missing[0]}; expected all adapted layers to be used.")
            tokens.append(call.counted.sum(1))
            if call.routes is not None:
                routes.append(call.routes.expand(call.counted.shape[0], -1))
        joined = [Record.joined([call.records[name] for call in calls]) for name in routed]
        return joined, torch.cat(tokens), torch.cat(routes) if len(routes) == len(calls) else None

    def checkpointing_kwargs(self) -> dict[str, Any]:
        """For ``model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=...)``.

        Other settings are wrong here: what a layer leaves for the losses would have no gradient, and its routing would
        be that of a later forward.
        """
        return {"use_reentrant": False, "context_fn": self.state.checkpoint_contexts}

    def specialise(self, gates: Tensor, *, merge_shared: bool = True) -> ExitStack:
        """Fold gates [layers, 3] in, for serving one instruction: from now on calls need no routing, and take none.

        A context manager; leaving it, or its ``close()``, makes the model what it was. merge_shared: add the shared
        expert to a copy of the base weights where these are float32, which takes their memory once more.
        """
        layers = self.layers
        if tuple(gates.shape) != (len(layers), 3):
            raise ValueError(f"gates have the shape {tuple(gates.shape)}; expected ({len(layers)}, 3).")
        if self._is_folded():
            raise ValueError("the adapter is specialised already; close that first.")
        self.state.forget()
        stack = ExitStack()
        for layer, own in zip(layers, gates, strict=True):
            layer.fold(own, merge_shared=merge_shared)
            stack.callback(layer.unfold)
        return stack

    def _is_folded(self) -> bool:
        return any(layer.is_folded for layer in self.layers)

    @property
    def _config(self) -> HiMoEConfig:
        config = self.peft_config[self.active_adapters[0]]
        assert isinstance(config, HiMoEConfig)
        return config

    # What peft asks of a tuner

    def set_adapter(self, adapter_name: str | list[str], inference_mode: bool = False) -> None:
        """Make another adapter the active one; gates are forgotten, as they are the other's."""
        self.state.forget()
        super().set_adapter(adapter_name, inference_mode=inference_mode)

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter; gates are forgotten."""
        self.state.forget()
        super().delete_adapter(adapter_name)

    def unload(self) -> nn.Module:
        """The base model as it was."""
        self._hook.remove()
        return super().unload()

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        assert isinstance(peft_config, HiMoEConfig)
        if peft_config.target_modules is None:
            peft_config.target_modules = list(FFN_MODULES)
        return peft_config

    def _prepare_model(self, peft_config: PeftConfig, model: nn.Module) -> None:
        assert isinstance(peft_config, HiMoEConfig)
        if str(peft_config.target_modules).lower() != "all-linear":  # peft finds these itself
            check_targets(model, peft_config, partial(self._check_target_module_exists, peft_config))

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        assert isinstance(peft_config, HiMoEConfig)
        if isinstance(target, HiMoELinear):
            target.update_layer(adapter_name, peft_config)
            return
        layer = HiMoELinear(target, adapter_name, peft_config, name=current_key, state=self.state)
        if adapter_name not in self.active_adapters:
            layer.set_adapter(self.active_adapters)
        self._replace_module(parent, target_name, layer, target)

    def _check_merge_allowed(self) -> None:
        raise ValueError(NO_MERGE)
