"""The registered architecture: an encoder and the triplet network on it, and how thinc sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from thinc.api import ArgsKwargs, Model
from thinc.types import Floats2d

from ..torch_wrapper import Codec, Learning, TorchShim, to_losses, wrap_network
from .sentences import Sentences

if TYPE_CHECKING:
    from .checkpoint import TripletBundle
    from .features import Extraction


@dataclass(frozen=True)
class Batch:
    """What the model reads. gold: of each sentence, in training. threshold: of relations, in prediction."""

    sentences: Sentences
    gold: list[Extraction] | None = None
    threshold: float = 0.5


@dataclass(frozen=True)
class TripletCodec(Codec["TripletBundle"]):
    """The triplet network: made when the labels are known, by ``initialize``. settings: of ``RTENetwork``."""

    settings: dict[str, Any]

    def load(self) -> TripletBundle:
        raise ValueError("gmoe_rte has no network yet; expected nlp.initialize() with examples, or a saved pipeline.")

    def to_files(self, bundle: TripletBundle) -> dict[str, bytes]:
        from . import checkpoint

        return checkpoint.triplet_files(bundle)

    def from_files(self, files: dict[str, bytes]) -> TripletBundle:
        from . import checkpoint

        return checkpoint.read_triplet_files(files, wanted=self.settings)

    def from_folder(self, folder: Path) -> TripletBundle:
        from ..network_files import CONFIG, WEIGHTS, read_folder

        return self.from_files(read_folder(folder, (CONFIG, WEIGHTS), folder))

    def for_prediction(self, bundle: TripletBundle) -> Any:
        from ..speedups import accelerate

        return accelerate(bundle.network)


def build_gmoe_rte(
    encoder: Model[Sentences, Floats2d],
    backbone: str = "sinet",
    mixture: str | None = "gmoe",
    alpha: float = 1.0,
    beta: float = 0.1,
    rate: float = 1.0,
    device: str | None = None,
    backbone_settings: dict[str, Any] | None = None,
    mixture_settings: dict[str, Any] | None = None,
) -> Model:
    """``spacy_ie_moe.GMoERTE.v1``: entities and relations of sentences, from the vectors of an encoder.

    encoder: one of ``encoders``. backbone, backbone_settings: the RTE-Net ("sinet", "dual_dec", "tlrel", "od_rte"
    or "re_cent") and its options. mixture, mixture_settings: a reading of the graph mixture ("gmoe", "paper_literal",
    "sentence_gate", "hetero_token", "identity") and what differs from it, or null for the backbone alone. alpha, beta:
    weights of the losses of ER-Net and RE-Net. rate: the learning rate of all this as a factor of the optimizer's; the
    encoder has its own. device: "cpu", "cuda", ...; default: that of spaCy.
    """
    settings: dict[str, Any] = {
        "backbone": backbone,
        "backbone_settings": dict(backbone_settings or {}),
        "mixture": mixture,
        "mixture_settings": dict(mixture_settings or {}),
        "alpha": alpha,
        "beta": beta,
    }
    network = wrap_network(
        "triplets",
        TripletCodec(settings),
        learning=Learning({"": rate}),
        device=device,
        convert_inputs=_to_features,
        convert_outputs=to_losses,
    )
    return Model("gmoe_rte", _forward, init=_initialize, layers=[encoder, network], dims={"nI": None, "nO": None})


def triplet_shim(model: Model) -> TorchShim:
    """The shim of the triplet network in a model of ``build_gmoe_rte``."""
    return cast(TorchShim, model.layers[1].shims[0])


def encoder_width(model: Model) -> int:
    """d of the vectors of an initialised model's encoder."""
    encoder = model.layers[0]
    if encoder.shims:
        return cast(TorchShim, encoder.shims[0]).bundle.network.width
    return encoder.get_dim("nO")


def reads_prompts(model: Model) -> bool:
    """Whether the encoder of an initialised model reads labels before the words."""
    encoder = model.layers[0]
    return bool(encoder.shims) and cast(TorchShim, encoder.shims[0]).bundle.network.marker is not None


def reset_encoder(model: Model) -> None:
    """Let an encoder of the component's own be the pretrained one again, whatever it has learnt."""
    for shim in model.layers[0].shims:
        cast(TorchShim, shim).reset()


def write_folders(model: Model, folder: Path) -> None:
    """Write the networks of a model to folders of their own, and a thinc encoder to one file."""
    folder.mkdir(exist_ok=True)
    for name, layer in zip(_FOLDERS, model.layers, strict=True):
        if not layer.shims:
            layer.to_disk(folder / name)
            continue
        shim = cast(TorchShim, layer.shims[0])
        (folder / name).mkdir(exist_ok=True)
        for file, content in shim.codec.to_files(shim.bundle).items():
            (folder / name / file).write_bytes(content)


def read_folders(model: Model, folder: Path) -> None:
    """Read what ``write_folders`` wrote."""
    for name, layer in zip(_FOLDERS, model.layers, strict=True):
        if not (folder / name).exists():
            raise FileNotFoundError(f"there is no {name} in {folder}; expected what to_disk of gmoe_rte writes.")
        if layer.shims:
            shim = cast(TorchShim, layer.shims[0])
            shim.bundle = shim.codec.from_folder(folder / name)
        else:
            layer.from_disk(folder / name)


_FOLDERS = ("encoder", "triplets")


def _initialize(model: Model, X: Batch | None = None, Y: Any = None) -> Model:
    model.layers[0].initialize(X=X.sentences if X is not None else None)
    return model


def _forward(model: Model, batch: Batch, is_train: bool) -> tuple[Any, Callable]:
    encoder, network = model.layers
    rows, backprop_rows = encoder(batch.sentences, is_train)
    output, backprop_output = network((rows, batch), is_train)

    def backprop(d_output: Any) -> Any:
        return backprop_rows(backprop_output(d_output))

    return output, backprop


def _to_features(model: Model, inputs: tuple[Floats2d, Batch], is_train: bool) -> tuple[ArgsKwargs, Callable]:
    import torch

    from .features import Features

    rows, batch = inputs
    hidden = torch.as_tensor(rows, device=cast(TorchShim, model.shims[0]).device)
    hidden.requires_grad_(is_train)
    features = Features(hidden, batch.sentences.lengths, batch.sentences.prompt_sizes)

    def get_gradient(_: Any) -> Floats2d:
        assert hidden.grad is not None
        return cast(Any, model.ops).asarray(hidden.grad.cpu().numpy())

    return ArgsKwargs(args=(features, batch.gold if is_train else batch.threshold), kwargs={}), get_gradient
