"""A Hugging Face encoder as the networks need it: vectors of sentences and of their words. PyTorch only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoder import Pieces, WordPieces, build_encoder, max_pieces, pool_pieces, read

PADDED_PIECES = 1024
"""Pieces, padding included, that the encoder reads at once: sorted by length, so that little of it is padding."""

WINDOW = 512
"""Pieces of a window for encoders without a limit of their own: attention over all of a book would be too much."""


@dataclass(frozen=True)
class Window:
    """Words of a sentence that fit the encoder: those from ``start`` on. own: the slice of them that is read here.

    What a window overlaps with the next is context: each word is read where it is farther from the border.
    """

    sentence: int
    start: int
    words: Sequence[Pieces]
    own: slice
    size: int


class SentenceEncoder(nn.Module):
    """Words to vectors: each sentence as [CLS] words [SEP]; a word is the mean of its pieces.

    Sentences beyond the encoder's limit are read in windows that overlap by half; their sentence vector is the mean
    of the windows'. encoder_config: the encoder's ``config.json``. mixed_precision: train in bfloat16 with float32
    weights, which CPUs with AVX512-BF16 do faster.
    """

    def __init__(self, encoder_config: dict[str, Any], pieces: WordPieces, *, mixed_precision: bool = False) -> None:
        super().__init__()
        self.pieces = pieces
        self.mixed_precision = mixed_precision
        self.encoder = build_encoder(encoder_config)
        limit = max_pieces(self.encoder.config) or WINDOW
        self.limit = limit - len(pieces.prefix) - len(pieces.suffix)

    @property
    def width(self) -> int:
        """d of the vectors."""
        return self.encoder.config.hidden_size

    def forward(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """[N, d] the rows of ``Features``: of each sentence its own vector, then those of its words."""
        if not len(sentences):
            return torch.zeros(0, self.width, device=self.encoder.device)
        lengths = np.array([len(words) for words in sentences], dtype=np.int64)
        first = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]]).astype(np.int64)
        windows = list(self._windows(sentences))
        vectors, rows = [], []
        for batch in _batches(windows, PADDED_PIECES):
            sentence_vectors, word_vectors = self._read(batch)
            vectors += [sentence_vectors, word_vectors]
            rows.append(np.array([first[window.sentence] for window in batch]))
            rows += [first[w.sentence] + 1 + w.start + np.arange(len(w.words))[w.own] for w in batch]
        index = torch.from_numpy(np.concatenate(rows)).to(vectors[0].device)
        found = torch.cat(vectors)
        total = found.new_zeros(int((lengths + 1).sum()), found.shape[1]).index_add(0, index, found)
        times = torch.bincount(index, minlength=len(total)).unsqueeze(1)
        return total if len(windows) == len(sentences) else total / times

    @torch.inference_mode()
    def predict(self, sentences: Sequence[Sequence[str]]) -> Tensor:
        """``forward`` without gradients."""
        return self(sentences)

    def _read(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """The windows' first vectors [B, d], and those of the words that they own, window by window."""
        prefix, suffix = self.pieces.prefix, self.pieces.suffix
        longest = max(window.size for window in windows) + len(prefix) + len(suffix)
        ids = np.full((len(windows), longest), self.pieces.pad_id, dtype=np.int64)
        mask = np.zeros((len(windows), longest), dtype=np.int64)
        starts, ends = [], []
        for row, window in enumerate(windows):
            sequence = [*prefix, *(piece for word in window.words for piece in word), *suffix]
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
            bounds = row * longest + len(prefix) + np.cumsum([0, *map(len, window.words)])
            starts.append(bounds[:-1][window.own])
            ends.append(bounds[1:][window.own])
        device = self.encoder.device
        ids_there, mask_there = torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
        hidden = read(self.encoder, ids_there, mask_there, mixed_precision=self.mixed_precision)
        start, end = (torch.from_numpy(np.concatenate(bounds)).to(device) for bounds in (starts, ends))
        return hidden[:, 0], pool_pieces(hidden.flatten(0, 1), start, end, "mean")

    def _windows(self, sentences: Sequence[Sequence[str]]) -> Iterator[Window]:
        distinct = list(dict.fromkeys(word for words in sentences for word in words))
        pieces = dict(zip(distinct, self.pieces(distinct), strict=True))
        for index, words in enumerate(sentences):
            of_words = [pieces[word] for word in words]
            size = sum(map(len, of_words))
            if size <= self.limit:
                yield Window(index, 0, of_words, slice(0, len(words)), size)
            else:
                yield from self._split(index, of_words, self.limit)

    def _split(self, sentence: int, words: list[Pieces], limit: int) -> Iterator[Window]:
        """Windows of at most ``limit`` pieces, each starting in the middle of the one before."""
        words = [word[:limit] for word in words]  # longer than any window: what fits of it
        bounds = np.cumsum([0, *map(len, words)])
        start = owned = 0
        while owned < len(words):
            end = int(np.searchsorted(bounds, bounds[start] + limit, side="right")) - 1
            following = max(start + 1, int(np.searchsorted(bounds, bounds[start] + limit // 2, side="right")) - 1)
            # The words that both windows hold are shared out in the middle.
            until = len(words) if end == len(words) else min(end, max(owned + 1, (following + end) // 2))
            if until > owned:
                own = slice(owned - start, until - start)
                yield Window(sentence, start, words[start:end], own, int(bounds[end] - bounds[start]))
            start, owned = (min(following, until), until)


def _batches(windows: Sequence[Window], budget: int) -> Iterator[list[Window]]:
    """Windows sorted by size in batches whose padded size stays within ``budget`` pieces (one at least)."""
    batch: list[Window] = []
    for window in sorted(windows, key=lambda window: -window.size):
        if batch and batch[0].size * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
