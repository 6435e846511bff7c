"""The GLiREL network: labels and text in one prompt, all pairs of entities scored at once. PyTorch only.

Source: GLiREL (Boylan et al., 2025), sections 3.1-3.5. The arithmetic and the names of the parameters are those
of the published checkpoints; the order of the computation is not (see ``PairLayer``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..encoder import WordPieces, build_encoder, max_pieces, pool_pieces, read
from .batch import Selected, Window
from .layers import (
    ConcatScorer,
    DotScorer,
    MeanMarker,
    NormScorer,
    PairLayer,
    PaperRefinement,
    Refinement,
    StartEndMarker,
    ThresholdScorer,
    WordLSTM,
    feed_forward,
)
from .selection import select
from .sequences import pad_sequences

REL, SEP = "[REL]", "[SEP]"
SPECIAL_TOKENS = ("[FLERT]", REL, SEP, "[E]", "[/E]")
"""Special tokens in the order in which the reference adds them; only [REL] and [SEP] are ever read."""

Score = Callable[[slice], Tensor]
Hidden = Callable[[slice], Tensor]
"""What computes a slice of a window's pairs: their logits [p, C], their hidden layer [p, 4D]."""

MARKERS = {"markerv1": StartEndMarker, "markerv2": MeanMarker}
SCORERS = {"dot_thresh": ThresholdScorer, "dot_norm": NormScorer, "concat_proj": ConcatScorer}
REFINEMENTS = {"reference": (Refinement, 1, 2), "paper": (PaperRefinement, 2, 2)}
"""Form of the refinement: class, blocks for pairs, blocks for labels."""


class PromptNetwork(nn.Module):
    """GLiREL: a bidirectional encoder reads ``[REL] label ... [SEP] word ...``; pairs meet labels in a scorer.

    config: see ``checkpoint.PROMPT_DEFAULTS``. encoder_config: the encoder's ``config.json``.
    """

    reads_labels_apart = False

    def __init__(self, config: dict[str, Any], encoder_config: dict[str, Any], pieces: WordPieces) -> None:
        super().__init__()
        width, dropout = config["hidden_size"], config["dropout"]
        self.pieces = pieces
        self.pooling: str = config["subtoken_pooling"]
        self.label_strategy: str = config["label_embed_strategy"]
        self.max_words: int | None = config["max_len"]
        self.mixed_precision: bool = config["mixed_precision"]
        self.encoder = build_encoder({**encoder_config, "vocab_size": config["vocab_size"]})
        self.max_pieces = max_pieces(self.encoder.config)
        encoder_width = self.encoder.config.hidden_size * (2 if self.pooling == "first_last" else 1)
        self.projection = nn.Linear(encoder_width, width) if encoder_width != width else nn.Identity()
        self.lstm = WordLSTM(width)
        self.marker = MARKERS[config["span_marker_mode"]](width, dropout=dropout)
        self.pair_layer = PairLayer(width, dropout=dropout)
        self.label_layer = feed_forward(width, width, width=4 * width, dropout=dropout)
        form, pair_blocks, label_blocks = REFINEMENTS[config["refinement"]]
        self.refines_by_paper = form is PaperRefinement
        options = {"ffn_mul": config["ffn_mul"], "dropout": dropout}
        self.refine_pairs = form(width, blocks=pair_blocks, **options) if config["refine_relation"] else None
        self.refine_labels = form(width, blocks=label_blocks, **options) if config["refine_prompt"] else None
        self.scorer = _build_scorer(config["scorer"], width, dropout)

    def prompt(self, labels: Sequence[str]) -> list[tuple[int, ...]]:
        """The elements before the text: [REL] and label in turn, then [SEP] (section 3.1)."""
        rel, sep = (self.pieces.token_id(REL),), (self.pieces.token_id(SEP),)
        return [part for label in self.pieces(labels) for part in (rel, label)] + [sep]

    def encode(self, windows: Sequence[Window]) -> tuple[list[Tensor], list[Tensor]]:
        """Word vectors [W, D] and label vectors [C, D] of each window (sections 3.2 and 3.3, eq. 1)."""
        prompts = {labels: self.prompt(labels) for labels in {window.labels for window in windows}}
        rows = [[*prompts[window.labels], *window.words] for window in windows]
        batch = pad_sequences(rows, prefix=self.pieces.prefix, suffix=self.pieces.suffix, pad_id=self.pieces.pad_id).to(
            self.device
        )
        hidden = read(self.encoder, batch.ids, batch.mask, mixed_precision=self.mixed_precision)
        elements = pool_pieces(hidden.flatten(0, 1), batch.start, batch.end, self.pooling)
        elements = self.projection(elements)
        words, labels = [], []
        for window, row in zip(windows, elements.split(batch.counts), strict=True):
            size = 2 * len(window.labels)
            labels.append(self._label_vectors(row[:size]))
            words.append(row[size + 1 :])
        return self.lstm(words), self.label_layer(torch.cat([*labels])).split([len(w.labels) for w in windows])

    def _label_vectors(self, prompt: Tensor) -> Tensor:
        """prompt: [2C, D], [REL] and label in turn. Returns [C, D]."""
        if self.label_strategy == "label":
            return prompt[1::2]
        if self.label_strategy == "ent_token":
            return prompt[::2]
        return (prompt[::2] + prompt[1::2]) / 2

    def forward(self, windows: Sequence[Window]) -> list[Tensor]:
        """Logits [P, C] of each window's pairs and labels (eq. 7 and 8, before the sigmoid)."""
        return [score(slice(None)) for score in self._scorers(windows, *self.encode(windows))]

    @torch.inference_mode()
    def predict(self, windows: Sequence[Window]) -> list[Selected]:
        """The scores that each window's ``keep`` lets through."""
        width = 5 * self.lstm.lstm.input_size
        return [
            select(score, window, width=width, device=self.device)
            for window, score in zip(windows, self._scorers(windows, *self.encode(windows)), strict=True)
        ]

    def _scorers(self, windows: Sequence[Window], words: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Score]:
        """What gives the logits [p, C] of a slice of each window's pairs.

        What belongs to entities and labels is computed for the whole batch; pairs are left to the slices, unless
        they are few.
        """
        hidden = self._pair_layers(windows, words)
        if self.refine_labels is not None:
            labels = [self._refined_labels(own, pairs) for own, pairs in zip(labels, hidden, strict=True)]
        if self.refine_pairs is not None:
            return [self._refined_scorer(*parts) for parts in zip(words, labels, hidden, strict=True)]
        n_pairs, n_labels = [len(window.pairs) for window in windows], [len(own) for own in labels]
        if sum(n_pairs) <= sum(n_labels):
            every = self.pair_layer.output(torch.cat([pairs(slice(None)) for pairs in hidden])).split(n_pairs)
            return [partial(self._score_pairs, *parts) for parts in zip(every, labels, strict=True)]
        if isinstance(self.scorer, DotScorer):
            weights, biases = self.pair_layer.fold(torch.cat([*labels]))
            folded = zip(hidden, weights.split(n_labels), biases.split(n_labels), strict=True)
            return [partial(_score_folded, *parts) for parts in folded]
        return [partial(self._score_hidden, *parts) for parts in zip(hidden, labels, strict=True)]

    def _pair_layers(self, windows: Sequence[Window], words: Sequence[Tensor]) -> list[Hidden]:
        """For each window what gives the hidden layer [p, 4D] of a slice of its pairs."""
        offsets = np.cumsum([0, *(len(text) for text in words[:-1])])
        spans = np.concatenate([window.spans + offset for window, offset in zip(windows, offsets, strict=True)])
        entities = self.marker(torch.cat([*words]), torch.from_numpy(spans).to(self.device))
        counts = [len(window.spans) for window in windows]
        heads, tails = (side.split(counts) for side in self.pair_layer.split(entities))
        pairs = (torch.from_numpy(window.pairs).to(self.device) for window in windows)
        return [partial(self._hidden, *parts) for parts in zip(heads, tails, pairs, strict=True)]

    def _hidden(self, heads: Tensor, tails: Tensor, pairs: Tensor, rows: slice) -> Tensor:
        return self.pair_layer.hidden(heads, tails, pairs[rows])

    def _score_pairs(self, pairs: Tensor, labels: Tensor, rows: slice) -> Tensor:
        return self.scorer(pairs[rows], labels)

    def _score_hidden(self, hidden: Hidden, labels: Tensor, rows: slice) -> Tensor:
        return self.scorer(self.pair_layer.output(hidden(rows)), labels)

    def _refined_scorer(self, words: Tensor, labels: Tensor, hidden: Hidden) -> Score:
        """The scorer of a window whose pairs are refined: by its words, or by its labels in the paper's form."""
        assert self.refine_pairs is not None
        refine = self.refine_pairs
        if self.refines_by_paper:  # pairs attend to each other, so all are refined at once
            return partial(self._score_pairs, refine(self.pair_layer.output(hidden(slice(None))), labels), labels)
        return lambda rows: self.scorer(refine(self.pair_layer.output(hidden(rows)), words), labels)

    def _refined_labels(self, labels: Tensor, hidden: Hidden) -> Tensor:
        """Labels refined by the pairs, in the paper's form.

        In the reference labels attend to the pairs that have a gold relation. At prediction there are none, and
        in training they would tell the answer: so in its form they see no pair at all.
        """
        assert self.refine_labels is not None
        if self.refines_by_paper:
            return self.refine_labels(labels, self.pair_layer.output(hidden(slice(None))))
        return self.refine_labels(labels, labels[:0])

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def _score_folded(hidden: Hidden, weights: Tensor, biases: Tensor, rows: slice) -> Tensor:
    return torch.addmm(biases, hidden(rows), weights.T)


def _build_scorer(name: str, width: int, dropout: float) -> nn.Module:
    if name == "dot":
        return DotScorer()
    return SCORERS[name](width, dropout=dropout)
