"""The adapted linear layer: the frozen one, and the mixture of experts beside it."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.quantization_utils import resolve_quantization_backend
from torch import Tensor, nn

from . import mixture
from .config import HiMoEConfig
from .mixture import Folded, Layout
from .routing import RouteState, Routing, expand_rows

NO_MERGE = (
    "a HiMoE adapter cannot be merged into the base weights: its sub-experts are mixed anew for every token (eq. 6), "
    "so no single matrix equals it; specialise(gates) folds in what is the same for all tokens."
)


class HiMoELinear(nn.Module, BaseTunerLayer):
    """A linear layer with W_0 [k, d] and the experts beside it: O = W_0 h + ΔO (eq. 9).

    Each adapter has three parameters: ``himoe_down`` [rows, d], ``himoe_up`` [ranks, k] and ``himoe_bias`` [groups x Q
    + gates], the b_G^i and b_G; what their rows are is in ``mixture``. Everything of an adapter being in three tensors
    makes it two matrix products, and leaves nothing to cache that could get stale.

    name: of the layer in the model. state: what all layers of the model share.
    """

    adapter_layer_names = ("himoe_down", "himoe_up", "himoe_bias")
    other_param_names = ("himoe_layout", "himoe_dropout")

    def __init__(
        self, base_layer: nn.Module, adapter: str, config: HiMoEConfig, *, name: str, state: RouteState
    ) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.name = name
        self.state = state
        self.himoe_down = nn.ParameterDict()
        self.himoe_up = nn.ParameterDict()
        self.himoe_bias = nn.ParameterDict()
        self.himoe_layout: dict[str, Layout] = {}
        self.himoe_dropout: dict[str, float] = {}
        self.quantization_backend = quantisation(base_layer)
        self.cast_input_dtype_enabled = True
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter = [adapter]
        self._folded: tuple[Folded, nn.Module] | None = None
        self.update_layer(adapter, config)

    def update_layer(self, adapter: str, config: HiMoEConfig) -> None:
        """Add the parameters of an adapter. The A start at zero, so it changes nothing before it is trained."""
        base: Any = self.get_base_layer()
        layout = Layout.of(config)
        down = torch.empty(layout.rows, base.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))  # as LoRA's; the bound depends on d alone
        self.himoe_layout[adapter], self.himoe_dropout[adapter] = layout, config.dropout
        self.himoe_up[adapter] = nn.Parameter(torch.zeros(layout.ranks, base.out_features))
        if layout.routed:
            bias = torch.empty(layout.routed + layout.gates)
            if config.router_init == "zeros":
                nn.init.zeros_(down[layout.ranks :])
                nn.init.zeros_(bias)
            else:
                nn.init.uniform_(bias, -1 / math.sqrt(base.in_features), 1 / math.sqrt(base.in_features))
            self.himoe_bias[adapter] = nn.Parameter(bias)
        self.himoe_down[adapter] = nn.Parameter(down)
        self._move_adapter_to_device_of_base_layer(adapter)
        self.set_adapter(self.active_adapters)

    @property
    def adapter(self) -> str | None:
        """The active adapter that this layer has; None where there is none or adapters are off."""
        if self._disable_adapters or not self._active_adapter or self._active_adapter[0] not in self.himoe_layout:
            return None
        return self._active_adapter[0]

    @property
    def layout(self) -> Layout:
        """Of the active adapter."""
        assert self.adapter is not None
        return self.himoe_layout[self.adapter]

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Make an adapter the active one. Raises ``ValueError`` for several."""
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        if len(names) > 1:
            raise ValueError(f"adapter_names is {names}; expected one, as gates are those of a single HiMoE adapter.")
        super().set_adapter(names, inference_mode=inference_mode)

    def parameters_of(self, adapter: str) -> tuple[Tensor, Tensor, Tensor | None]:
        """``himoe_down``, ``himoe_up`` and ``himoe_bias`` of an adapter; the last is None where there is no router."""
        # A ParameterDict's own look-up takes as long as a small operation, and this is in every decoding step.
        down, up, bias = self.himoe_down._parameters, self.himoe_up._parameters, self.himoe_bias._parameters
        down_of, up_of = down[adapter], up[adapter]
        assert down_of is not None and up_of is not None
        return down_of, up_of, bias.get(adapter)

    def paper_weights(self, adapter: str) -> dict[str, Tensor]:
        """The matrices of an adapter by the paper's names, as views; see ``mixture.paper_weights``."""
        return mixture.paper_weights(*self.parameters_of(adapter), self.himoe_layout[adapter])

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """x: [B, L, d], or [B * L, d]. Returns O, likewise."""
        adapter = self.adapter
        if adapter is None:
            return self.base_layer(x, *args, **kwargs)
        if self._folded is not None and self._folded[0].adapter == adapter:
            return self._forward_folded(*self._folded, x)
        result = self.base_layer(x, *args, **kwargs)
        if self.quantization_backend is not None:
            result = self.quantization_backend.maybe_clone_base_result(result)
        down, up, bias = self.parameters_of(adapter)
        layout = self.himoe_layout[adapter]
        if x.ndim != 3:
            x = x.view(*self.state.rows(x), -1)
        if self.training and (rate := self.himoe_dropout[adapter]):
            x = F.dropout(x, rate)
        low_rank, low, high = mixture.split(self._project(x, down), layout)
        if bias is not None:
            weights = mixture.token_weights(low, bias[: layout.routed], layout)
            routing = self.state.current
            routing.record(self.name, weights)
            if layout.gated:
                weights = weights * self._gates(routing, high, bias[layout.routed :], layout)
            low_rank = mixture.weigh(low_rank, weights, layout)
        return mixture.add_up(result, low_rank, up, layout.scale)

    def fold(self, gates: Tensor, *, merge_shared: bool) -> None:
        """Compute with constant gates [J, L, A] from now on, until ``unfold``.

        merge_shared: add the shared expert to a copy of W_0, where that is an unquantised float32 matrix.
        """
        adapter = self.adapter
        assert adapter is not None
        base: Any = self.base_layer
        mergeable = self.quantization_backend is None and base.weight.dtype == torch.float32
        with torch.no_grad():
            folded = mixture.fold(
                adapter,
                *self.parameters_of(adapter),
                self.layout,
                gates,
                take_shared=merge_shared and mergeable,
            )
            self._folded = folded, base if folded.shared is None else _with_weight(base, folded.shared)

    def unfold(self) -> None:
        """Compute with gates of the current call again."""
        self._folded = None

    @property
    def is_folded(self) -> bool:
        """Whether the active adapter computes with constant gates."""
        return self._folded is not None and self._folded[0].adapter == self.adapter

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Raises ``ValueError``: no matrix equals a mixture."""
        raise ValueError(NO_MERGE)

    def unmerge(self) -> None:
        """Nothing is ever merged."""

    def _project(self, x: Tensor, down: Tensor) -> Tensor:
        if torch.is_autocast_enabled(x.device.type):
            return F.linear(x, down)
        return F.linear(self._cast_input_dtype(x, down.dtype), down)

    def _gates(self, routing: Routing, high: Tensor, bias: Tensor, layout: Layout) -> Tensor:
        """g' [B, 1, groups, 1] (eq. 3), kept for the calls to come. high: W_G h of all tokens, [B, L, groups]."""
        kept = routing.gates.get(self.name)
        if kept is None:
            if routing.routes is not None:
                gates = routing.routes[:, layout.columns].to(high.device)
            elif routing.pool is not None and layout.learned:
                logits = routing.pooled(high) + bias
                routing.record_logits(self.name, logits)
                gates = logits.sigmoid()
            else:
                raise ValueError(_no_gates(layout))
            gates = gates[:, None, :, None]
            routing.gates[self.name] = gates.detach()
        else:
            gates = kept
        return expand_rows(gates, high.shape[0])

    def _forward_folded(self, folded: Folded, base: nn.Module, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("the adapter is specialised, which is for serving; expected eval() or no specialise().")
        result = base(x)
        if self.quantization_backend is not None:
            result = self.quantization_backend.maybe_clone_base_result(result)
        if not folded.layout.ranks:
            return result
        low_rank, low, _ = mixture.split(self._project(x, folded.down), folded.layout)
        if folded.layout.routed:
            weights = mixture.token_weights(low, folded.bias, folded.layout)
            low_rank = mixture.weigh(low_rank, weights, folded.layout)
        return mixture.add_up(result, low_rank, folded.up, 1.0)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> HiMoELinear:
        self._forget()  # what was folded would stay on the old device
        return super()._apply(*args, **kwargs)

    def _forget(self) -> None:
        self._folded = None
        self.state.forget()


def quantisation(layer: nn.Module) -> Any:
    """The peft backend of a quantised layer; None for another."""
    # torchao's layers ask how their tensors are made anew, which only merging would need.
    return resolve_quantization_backend(layer, get_apply_tensor_subclass=_never_called)


def _never_called() -> None:
    raise ValueError(NO_MERGE)


def _with_weight(base: Any, added: Tensor) -> nn.Module:
    """A linear layer like ``base`` with a matrix added to its weight; ``base`` stays as it is."""
    merged: Any = copy.copy(base)
    merged._parameters = {**base._parameters, "weight": nn.Parameter(base.weight + added, requires_grad=False)}
    return merged


def _no_gates(layout: Layout) -> str:
    if not layout.learned:
        return "there are no gates yet and router is 'hard'; expected routes= [B, 3], or set_gates(...) before."
    return "there are no gates yet in this thread; expected instruction_mask= [B, L], or set_gates(...) before."
