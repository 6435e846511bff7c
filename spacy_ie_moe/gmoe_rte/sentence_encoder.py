"""A Hugging Face encoder as the networks need it: vectors of sentences and of their words. PyTorch only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoder import Pieces, WordPieces, build_encoder, max_pieces, pool_pieces, read
from .tensors import tensor_like

PADDED_PIECES = 1024
"""Pieces, padding included, that the encoder reads at once: sorted by length, so that little of it is padding."""

WINDOW = 512
"""Pieces of a window for encoders without a limit of their own: attention over all of a book would be too much."""

LABEL_MARKER = "[R]"
"""The token before each label of a prompt, in encoders that read prompts."""


@dataclass(frozen=True)
class Window:
    """Words of a sentence that fit the encoder: those from ``start`` on. own: the slice of them that is read here.

    What a window overlaps with the next is context: each word is read where it is farther from the border. prompt: the
    pieces of each label that is read before the words, its marker first. size: pieces, but for those of prefix and
    suffix.
    """

    sentence: int
    start: int
    words: Sequence[Pieces]
    own: slice
    size: int
    prompt: Sequence[Pieces] = ()


class SentenceEncoder(nn.Module):
    """Words to vectors: each sentence as [CLS] words [SEP]; a word is the mean of its pieces.

    With a prompt: [CLS] [R] label [R] label ... [SEP] words [SEP], where a label is the mean of its marker and its
    pieces; for that ``pieces`` has to have ``LABEL_MARKER``. Sentences beyond the encoder's limit are read in windows
    that overlap by half, all with the prompt; their sentence vector and labels are the mean of the windows'.
    encoder_config: the encoder's ``config.json``. mixed_precision: train in bfloat16 with float32 weights,
    which CPUs with AVX512-BF16 do faster.
    """

    def __init__(self, encoder_config: dict[str, Any], pieces: WordPieces, *, mixed_precision: bool = False) -> None:
        super().__init__()
        self.pieces = pieces
        self.mixed_precision = mixed_precision
        self.encoder = build_encoder(encoder_config)
        limit = max_pieces(self.encoder.config) or WINDOW
        self.limit = limit - len(pieces.prefix) - len(pieces.suffix)
        self.marker = pieces.tokenizer.token_to_id(LABEL_MARKER)  # None: it reads no prompts

    @property
    def width(self) -> int:
        """d of the vectors."""
        return self.encoder.config.hidden_size

    def forward(self, sentences: Sequence[Sequence[str]], prompts: Sequence[Sequence[str]] = ()) -> Tensor:
        """[N, d] the rows of ``Features``: of each sentence its own vector, its labels and its words.

        prompts: the labels of each sentence; none at all for sentences without. Raises ``ValueError`` for a prompt that
        leaves less than half of the encoder's limit to the words.
        """
        if not len(sentences):
            return torch.zeros(0, self.width, device=self.encoder.device)
        labels = np.array([len(prompt) for prompt in prompts] or [0] * len(sentences), dtype=np.int64)
        lengths = labels + np.array([len(words) for words in sentences], dtype=np.int64)
        first = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]]).astype(np.int64)
        windows = list(self._windows(sentences, self._prompts(prompts) if prompts else ()))
        vectors: list[Tensor] = []
        rows: list[np.ndarray] = []
        for batch in _batches(windows, PADDED_PIECES):
            vectors += self._read(batch)
            rows.append(np.array([first[window.sentence] for window in batch]))
            rows += [first[w.sentence] + 1 + np.arange(len(w.prompt)) for w in batch]
            starts = [first[w.sentence] + 1 + len(w.prompt) + w.start for w in batch]
            rows += [start + np.arange(len(w.words))[w.own] for start, w in zip(starts, batch, strict=True)]
        index = tensor_like(np.concatenate(rows), vectors[0])
        found = torch.cat(vectors)
        total = found.new_zeros(int((lengths + 1).sum()), found.shape[1]).index_add(0, index, found)
        times = torch.bincount(index, minlength=len(total)).unsqueeze(1)
        return total if len(windows) == len(sentences) else total / times

    @torch.inference_mode()
    def predict(self, sentences: Sequence[Sequence[str]], prompts: Sequence[Sequence[str]] = ()) -> Tensor:
        """``forward`` without gradients."""
        return self(sentences, prompts)

    def _read(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor, Tensor]:
        """The windows' first vectors [B, d], and those of their labels and of the words that they own, one by one."""
        prefix, suffix = self.pieces.prefix, self.pieces.suffix
        longest = max(window.size for window in windows) + len(prefix) + len(suffix)
        ids = np.full((len(windows), longest), self.pieces.pad_id, dtype=np.int64)
        mask = np.zeros((len(windows), longest), dtype=np.int64)
        bounds = []
        for row, window in enumerate(windows):
            before = [*prefix, *_flat(window.prompt), *(suffix if window.prompt else ())]
            sequence = [*before, *_flat(window.words), *suffix]
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
            labels = row * longest + len(prefix) + np.cumsum([0, *map(len, window.prompt)])
            words = row * longest + len(before) + np.cumsum([0, *map(len, window.words)])
            bounds.append((labels[:-1], labels[1:], words[:-1][window.own], words[1:][window.own]))
        device = self.encoder.device
        ids_there, mask_there = torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
        hidden = read(self.encoder, ids_there, mask_there, mixed_precision=self.mixed_precision)
        label, label_end, word, word_end = (
            torch.from_numpy(np.concatenate(column)).to(device) for column in zip(*bounds, strict=True)
        )
        rows = hidden.flatten(0, 1)
        return hidden[:, 0], pool_pieces(rows, label, label_end, "mean"), pool_pieces(rows, word, word_end, "mean")

    def split_labels(self, labels: Sequence[str], at_once: int) -> list[list[str]]:
        """Labels in runs of at most ``at_once`` that leave half of the encoder's limit to the words, if each does."""
        runs: list[list[str]] = []
        size = 0
        for label, pieces in zip(labels, self.pieces(labels), strict=True):
            size += 1 + len(pieces)
            if not runs or len(runs[-1]) == at_once or size > self.limit // 2:
                runs.append([])
                size = 1 + len(pieces)
            runs[-1].append(label)
        return runs

    def _prompts(self, prompts: Sequence[Sequence[str]]) -> list[list[Pieces]]:
        """The pieces of each label of each prompt, its marker first."""
        if self.marker is None:
            raise ValueError("this encoder reads no prompts; expected one that was made with prompts = true.")
        pieces = self._pieces(prompts)
        read = [[(self.marker, *pieces[label]) for label in labels] for labels in prompts]
        for labels, prompt in zip(prompts, read, strict=True):
            if (size := sum(map(len, prompt))) > self.limit // 2:
                fewer = ", or a lower backbone_settings.labels_at_once" if len(labels) > 1 else ""
                raise ValueError(
                    f"the {len(labels)} labels from {labels[0]!r} on have {size} pieces; expected at most "
                    f"{self.limit // 2}, so that there is room for the words: shorter labels{fewer}."
                )
        return read

    def _pieces(self, elements: Sequence[Sequence[str]]) -> dict[str, Pieces]:
        distinct = list(dict.fromkeys(element for sequence in elements for element in sequence))
        return dict(zip(distinct, self.pieces(distinct), strict=True))

    def _windows(
        self, sentences: Sequence[Sequence[str]], prompts: Sequence[Sequence[Pieces]] = ()
    ) -> Iterator[Window]:
        pieces = self._pieces(sentences)
        for index, (words, prompt) in enumerate(zip(sentences, prompts or [()] * len(sentences), strict=True)):
            of_words = [pieces[word] for word in words]
            size = sum(map(len, of_words))
            taken = sum(map(len, prompt)) + len(self.pieces.suffix) if prompt else 0
            if taken + size <= self.limit:
                yield Window(index, 0, of_words, slice(0, len(words)), taken + size, prompt)
            else:
                yield from self._split(index, of_words, self.limit - taken, prompt, taken)

    def _split(
        self, sentence: int, words: list[Pieces], limit: int, prompt: Sequence[Pieces] = (), taken: int = 0
    ) -> Iterator[Window]:
        """Windows of at most ``limit`` pieces of words, each starting in the middle of the one before.

        taken: pieces of the prompt and what ends it.
        """
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
                size = taken + int(bounds[end] - bounds[start])
                yield Window(sentence, start, words[start:end], own, size, prompt)
            start, owned = (min(following, until), until)


def _flat(elements: Sequence[Pieces]) -> Iterator[int]:
    return (piece for element in elements for piece in element)


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
