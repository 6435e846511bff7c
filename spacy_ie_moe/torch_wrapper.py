"""The one thinc wrapper around our PyTorch networks, and the optimizer step that thinc has no words for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import srsly
from thinc.api import ArgsKwargs, Model, Optimizer
from thinc.layers.pytorchwrapper import forward
from thinc.shims import Shim

if TYPE_CHECKING:
    import torch

BundleT = TypeVar("BundleT")


class Codec(Generic[BundleT]):
    """How a network is made, and turned to files and back. A component subclasses it.

    A bundle is the network and whatever belongs to it; it has the network as ``.network``.
    """

    def load(self) -> BundleT:
        """The network that the component's config names; called when it is first needed."""
        raise NotImplementedError

    def to_files(self, bundle: BundleT) -> dict[str, bytes]:
        """Everything needed to make the same network again, by file name."""
        raise NotImplementedError

    def from_files(self, files: dict[str, bytes]) -> BundleT:
        """The network of ``to_files``."""
        raise NotImplementedError

    def from_folder(self, folder: Path) -> BundleT:
        """The network of a folder that holds what ``to_files`` gives."""
        raise NotImplementedError

    def for_prediction(self, bundle: BundleT) -> Any:
        """The network to predict with: the same, or a faster copy."""
        raise NotImplementedError


@dataclass(frozen=True)
class Learning:
    """How the parameters learn, beyond what spaCy's optimizer config says.

    group_rates: learning-rate factor by prefix of a parameter's name; others have 1, and 0 leaves them as they are.
    """

    group_rates: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for prefix, rate in self.group_rates.items():
            if rate < 0:
                raise ValueError(f"group_rates[{prefix!r}] is {rate!r}; expected 0 or more.")

    def rate(self, name: str) -> float:
        """The factor of the parameter ``name``."""
        return next((rate for prefix, rate in self.group_rates.items() if name.startswith(prefix)), 1.0)


class TorchShim(Shim):
    """Holds a network for thinc: made when first needed, trained with AdamW, written as safetensors.

    Rates, betas, weight decay (``L2``) and clipping come from spaCy's optimizer at every step. Unlike thinc's own
    update it clips by the norm over all gradients, has a learning rate per group of parameters, and leaves biases
    and normalisation layers without decay.
    """

    def __init__(self, codec: Codec, learning: Learning, device: str | None) -> None:
        super().__init__(None)
        self.codec = codec
        self.learning = learning
        self.device_name = device
        self._bundle: Any = None
        self._fast: Any = None
        self._adam: torch.optim.AdamW | None = None
        self._lock = RLock()

    @property
    def loaded(self) -> Any:
        """The network and what belongs to it if it is loaded, else None."""
        return self._bundle

    @property
    def bundle(self) -> Any:
        """The network and what belongs to it; loaded now if it was not before."""
        with self._lock:  # several threads may share a pipeline
            if self._bundle is None:
                self.bundle = self.codec.load()
            return self._bundle

    @bundle.setter
    def bundle(self, bundle: Any) -> None:
        self._bundle, self._fast, self._adam = bundle, None, None
        _safe_after_fork()
        bundle.network.to(self.device)

    def reset(self) -> None:
        """Forget the network; the one that the config names is loaded when it is next needed."""
        self._bundle, self._fast, self._adam = None, None, None

    @property
    def device(self) -> Any:
        """The configured device, else that of thinc's current ops."""
        import torch
        from thinc.util import get_torch_default_device

        return torch.device(self.device_name) if self.device_name else get_torch_default_device()

    def __call__(self, inputs: ArgsKwargs, is_train: bool) -> tuple[Any, Callable]:
        return self.begin_update(inputs) if is_train else (self.predict(inputs), lambda grads: None)

    def predict(self, inputs: ArgsKwargs) -> Any:
        """What the network's ``predict`` gives for the inputs, without dropout and gradients."""
        with self._lock:
            if self._fast is None:
                self.bundle.network.eval()
                self._fast = self.codec.for_prediction(self.bundle)
            network = self._fast
        return network.predict(*inputs.args, **inputs.kwargs)

    def begin_update(self, inputs: ArgsKwargs) -> tuple[Any, Callable]:
        """The network's outputs in training, and what takes gradients with respect to them."""
        import torch

        network = self.bundle.network
        if self._adam is None:
            self._adam = _adam(network, self.learning)
        self._fast = None
        network.train()
        outputs = network(*inputs.args, **inputs.kwargs)

        def backprop(grads: ArgsKwargs) -> ArgsKwargs:
            if any(tensor.requires_grad for tensor in grads.args[0]):  # else it is frozen, and so are its inputs
                torch.autograd.backward(*grads.args, **grads.kwargs)
            return ArgsKwargs(args=(), kwargs={})

        return outputs, backprop

    def finish_update(self, optimizer: Optimizer) -> None:
        """One AdamW step with what the optimizer says now."""
        import torch

        network = self.bundle.network
        if self._adam is None and any(parameter.grad is not None for parameter in network.parameters()):
            self._adam = _adam(network, self.learning)  # the gradients are those of other processes
        if self._adam is None:
            return  # no batch had anything to learn from yet, or all of it is frozen
        if optimizer.grad_clip:
            torch.nn.utils.clip_grad_norm_(network.parameters(), optimizer.grad_clip)
        for group in self._adam.param_groups:
            group["lr"] = optimizer.learn_rate * group["rate"]
            group["weight_decay"] = optimizer.L2 if group["decays"] else 0.0
            group["betas"] = (optimizer.b1, optimizer.b2)
            group["eps"] = optimizer.eps
        self._adam.step()
        self._adam.zero_grad()
        self._fast = None  # it was made from the weights before the step

    def to_device(self, device_type: str, device_id: int) -> None:
        """Move the network to "cpu" or "gpu"."""
        self.device_name = "cpu" if device_type == "cpu" else f"cuda:{device_id}"
        self.bundle = self.bundle

    def to_bytes(self) -> bytes:
        """The network's files in one."""
        return srsly.msgpack_dumps(self.codec.to_files(self.bundle))

    def from_bytes(self, bytes_data: bytes) -> TorchShim:
        """The network from the files that ``to_bytes`` wrote."""
        self.bundle = self.codec.from_files(srsly.msgpack_loads(bytes_data))
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_fast": None, "_adam": None}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=RLock())


def wrap_network(
    name: str,
    codec: Codec,
    *,
    learning: Learning | None = None,
    device: str | None = None,
    convert_inputs: Callable | None = None,
    convert_outputs: Callable | None = None,
) -> Model:
    """A thinc model over a network. Input: what the network reads; output: what it predicts, or its logits.

    convert_inputs, convert_outputs: as ``thinc.api.PyTorchWrapper`` has them; by default the input is the network's
    only argument and needs no gradient, and the output in training is a list of tensors.
    """
    return Model(
        name,
        forward,
        attrs={"convert_inputs": convert_inputs or _to_arguments, "convert_outputs": convert_outputs or _to_arrays},
        shims=[TorchShim(codec, learning or Learning(), device)],
        dims={"nI": None, "nO": None},
    )


def clip_gradients(model: Model, max_norm: float) -> None:
    """Clip the gradients of all networks in a thinc model by the norm over all of them.

    A network clips its own in ``finish_update``, which changes nothing after this.
    """
    import torch

    shims = [shim for node in model.walk() for shim in node.shims if isinstance(shim, TorchShim)]
    parameters = [parameter for shim in shims if shim.loaded for parameter in shim.bundle.network.parameters()]
    torch.nn.utils.clip_grad_norm_(parameters, max_norm)


def to_losses(model: Model, x_and_y: tuple[Any, Any], is_train: bool) -> tuple[Any, Callable]:
    """For ``wrap_network``: losses by name as numbers in training, their sum is learnt from; predictions as is."""
    _, output = x_and_y
    if not is_train:
        return output, lambda _: ArgsKwargs(args=(), kwargs={})

    def backprop(_: Any) -> ArgsKwargs:
        return ArgsKwargs(args=((sum(output.values()),),), kwargs={})

    return {name: loss.item() for name, loss in output.items()}, backprop


def _to_arguments(model: Model, inputs: Any, is_train: bool) -> tuple[ArgsKwargs, Callable]:
    return ArgsKwargs(args=(inputs,), kwargs={}), lambda grads: []


def _to_arrays(model: Model, x_and_y: tuple[Any, Any], is_train: bool) -> tuple[Any, Callable]:
    """Tensors in training become arrays, whose gradients become tensors; predictions pass as they are."""
    import torch

    _, tensors = x_and_y
    if not is_train:
        return tensors, lambda grads: ArgsKwargs(args=(), kwargs={})

    def backprop(grads: list[Any]) -> ArgsKwargs:
        turned = [torch.as_tensor(grad, device=tensor.device) for grad, tensor in zip(grads, tensors, strict=True)]
        return ArgsKwargs(args=(tensors,), kwargs={"grad_tensors": turned})

    return [tensor.detach().cpu().numpy() for tensor in tensors], backprop


def _adam(network: Any, learning: Learning) -> torch.optim.AdamW | None:
    """AdamW with a group for each learning rate, with and without decay; parameters of rate 0 need no gradient.

    None where no parameter is left.
    """
    import torch

    groups: dict[tuple[float, bool], list[Any]] = {}
    for name, parameter in network.named_parameters():
        if not learning.rate(name):
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            # Biases, norms and scalars are vectors at most: decay is for matrices.
            groups.setdefault((learning.rate(name), parameter.ndim > 1), []).append(parameter)
    if not groups:
        return None
    return torch.optim.AdamW(
        [{"params": params, "rate": rate, "decays": decays} for (rate, decays), params in groups.items()],
        fused=True,
    )


_FORK_HANDLED = False


def _safe_after_fork() -> None:
    """Let ``n_process=2`` work: OpenMP's threads do not survive a fork, so a child must not wait for them.

    A hook of Python's cannot be taken back, so from now on every forked child of the process starts with one thread.
    """
    global _FORK_HANDLED
    import os

    import torch

    if not _FORK_HANDLED and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
        _FORK_HANDLED = True


def warmup_cosine(
    initial_rate: float, total_steps: int, warmup: float = 0.1, final_rate: float = 0.0
) -> Iterator[float]:
    """A learning rate that rises linearly over a share ``warmup`` of the steps, then falls on a cosine.

    The paper's schedule (GLiREL A.5). Raises ``ValueError`` unless warmup is from 0 to 1.
    """
    if total_steps < 1:
        raise ValueError(f"total_steps is {total_steps}; expected the number of steps of the training, at least 1.")
    if not 0 <= warmup <= 1:
        raise ValueError(f"warmup is {warmup!r}; expected a share of total_steps from 0 to 1.")
    rising = round(warmup * total_steps)
    for step in count():
        if step < rising:
            yield initial_rate * (step + 1) / rising
        else:
            progress = min(1.0, (step - rising) / max(1, total_steps - rising))
            yield final_rate + (initial_rate - final_rate) * 0.5 * (1 + math.cos(math.pi * progress))
