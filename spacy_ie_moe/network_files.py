"""Networks in files: a config, safetensors and, where they read text, a tokenizer. PyTorch only.

``config.json`` holds a format, its version, whatever makes the same network again, and the hash of the weights in
``model.safetensors``; ``tokenizer.json`` is that of the tokenizers library. Nothing else is needed, no hub either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from tokenizers import Tokenizer
from torch import nn

from .encoder import WordPieces

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


@dataclass(frozen=True)
class Format:
    """A kind of network in files: its name, its version, and the type of each field of its config."""

    name: str
    version: int
    fields: Mapping[str, type]

    def write(
        self,
        network: nn.Module,
        fields: Mapping[str, Any],
        pieces: WordPieces | None = None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> dict[str, bytes]:
        """The files of a network. fields: the values of ``fields``; dtype: of the weights in the file."""
        tensors = {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}
        weights = save_safetensors({name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()})
        config = {"format": self.name, "version": self.version, **fields}
        if pieces is not None:
            config["pad_id"] = pieces.pad_id
        config["weights_sha256"] = hashlib.sha256(weights).hexdigest()
        files = {CONFIG: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode("utf8"), WEIGHTS: weights}
        if pieces is not None:
            files[TOKENIZER] = pieces.tokenizer.to_str().encode("utf8")
        return files

    def read_config(self, files: Mapping[str, bytes], source: str | Path) -> dict[str, Any]:
        """The config of ``files``, checked: its version, its fields, and that the weights are its own.

        Raises ``ValueError`` that names what is wrong and what was expected; ``source`` is what it calls the files.
        """
        try:
            config = json.loads(files[CONFIG])
        except ValueError as error:
            raise ValueError(f"checkpoint {str(source)!r}: {CONFIG} is not JSON ({error}).") from error
        if not isinstance(config, dict) or config.get("format") != self.name:
            component = self.name.rpartition(".")[2]
            raise ValueError(
                f"checkpoint {str(source)!r}: {CONFIG} has no format {self.name!r}; expected one of {component}."
            )
        version = config.get("version")
        if not isinstance(version, int) or not 1 <= version <= self.version:
            raise ValueError(
                f"checkpoint {str(source)!r} has version {version!r}; expected one from 1 to {self.version}."
            )
        for name, kind in {**self.fields, "weights_sha256": str}.items():
            if name not in config:
                raise ValueError(f"checkpoint {str(source)!r}: {CONFIG} lacks {name}.")
            if not isinstance(config[name], kind) or (kind is not bool and isinstance(config[name], bool)):
                raise ValueError(
                    f"checkpoint {str(source)!r}: {name} in {CONFIG} is {config[name]!r}; expected a {kind.__name__}."
                )
        if hashlib.sha256(files[WEIGHTS]).hexdigest() != config["weights_sha256"]:
            raise ValueError(f"checkpoint {str(source)!r}: {WEIGHTS} is not the file that {CONFIG} was written for.")
        return config


def read_pieces(files: Mapping[str, bytes], config: Mapping[str, Any], source: str | Path) -> WordPieces:
    """The tokenizer of ``files``. Raises ``ValueError`` where it is damaged."""
    try:
        tokenizer = Tokenizer.from_str(files[TOKENIZER].decode("utf8"))
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise ValueError(f"checkpoint {str(source)!r}: {TOKENIZER} is damaged ({error}).") from error
    return WordPieces(tokenizer, config["pad_id"])


def read_weights(network: nn.Module, files: Mapping[str, bytes], source: str | Path) -> None:
    """Load the parameters of ``files`` into a network, under strict names and shapes."""
    fill(network, load_safetensors(files[WEIGHTS]), source)


def fill(network: nn.Module, tensors: Mapping[str, torch.Tensor], source: str | Path) -> None:
    """Load parameters under strict names and shapes. Raises ``ValueError`` that names the first that does not fit."""
    expected = network.state_dict()
    problems = (
        [f"lacks {name}" for name in expected if name not in tensors]
        + [f"has {name} in excess" for name in tensors if name not in expected]
        + [
            f"has {name} of shape {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in tensors and tensors[name].shape != tensor.shape
        ]
    )
    if problems:
        raise ValueError(
            f"the weights of checkpoint {str(source)!r} do not fit its config: it {problems[0]} "
            f"({len(problems)} such problems)."
        )
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    for parameter in network.parameters():
        parameter.requires_grad_(True)


def read_folder(folder: Path, names: tuple[str, ...], source: str | Path) -> dict[str, bytes]:
    """The files of a network from a folder. Raises ``FileNotFoundError`` for one that is not there."""
    for name in names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"checkpoint {str(source)!r} lacks {name}; expected it in {folder}.")
    return {name: (folder / name).read_bytes() for name in names}


def portable(encoder_config: Mapping[str, Any]) -> dict[str, Any]:
    """An encoder's config without what is true on one machine only."""
    return {name: value for name, value in encoder_config.items() if name not in ("_name_or_path", "torch_dtype")}
