"""The registered architecture: a causal language model with its adapter, and how thinc sees it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from thinc.api import Model

from ..torch_wrapper import Codec, Learning, to_losses, wrap_network

if TYPE_CHECKING:
    from .checkpoint import LMBundle


@dataclass(frozen=True)
class LMCodec(Codec["LMBundle"]):
    """The language model of a config. settings: of ``checkpoint.LMSettings``."""

    settings: dict[str, Any]

    def load(self) -> LMBundle:
        from . import checkpoint

        return checkpoint.load(checkpoint.LMSettings(**self.settings))

    def to_files(self, bundle: LMBundle) -> dict[str, bytes]:
        from . import checkpoint

        with TemporaryDirectory() as name:
            folder = Path(name)
            checkpoint.save_folder(bundle, folder)
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    def from_files(self, files: dict[str, bytes]) -> LMBundle:
        with TemporaryDirectory() as name:
            for file, content in files.items():
                path = Path(name) / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return self.from_folder(Path(name))

    def from_folder(self, folder: Path) -> LMBundle:
        from . import checkpoint

        return checkpoint.load_folder(folder, checkpoint.LMSettings(**self.settings))

    def for_prediction(self, bundle: LMBundle) -> Any:
        return bundle.network


def build_uc_uie(
    base: str = "uie-mini",
    revision: str | None = None,
    adapter: str | None = "uie-mini",
    adapter_revision: str | None = None,
    adapter_settings: dict[str, Any] | None = None,
    precision: str = "float32",
    save_base: bool = True,
    gamma: float = 0.1,
    beta: float = 0.1,
    mixed_precision: bool = False,
    gradient_checkpointing: bool = False,
    device: str | None = None,
) -> Model:
    """``spacy_ie_moe.UCUIE.v1``: a causal language model that writes frames; its options are those of ``LMSettings``.

    device: "cpu", "cuda", ...; default: that of spaCy.
    """
    from .checkpoint import LMSettings

    settings = LMSettings(
        base=base,
        revision=revision,
        adapter=adapter,
        adapter_revision=adapter_revision,
        adapter_settings=dict(adapter_settings or {}),
        precision=precision,
        save_base=save_base,
        gamma=gamma,
        beta=beta,
        mixed_precision=mixed_precision,
        gradient_checkpointing=gradient_checkpointing,
    )
    return wrap_network(
        "uc_uie", LMCodec(asdict(settings)), learning=Learning(), device=device, convert_outputs=to_losses
    )
