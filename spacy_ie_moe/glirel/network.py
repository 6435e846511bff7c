"""The GLiREL network: labels and text in one prompt, all pairs of entities scored at once. PyTorch only.

Source: GLiREL (Boylan et al., 2025), sections 3.1-3.5. The arithmetic and the names of the parameters are those
of the published checkpoints; the order of the computation is not (see ``PairLayer``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
        self.folds = isinstance(self.scorer, DotScorer) and self.refine_pairs is None

    def prompt(self, labels: Sequence[str]) -> list[tuple[int, ...]]:
        """The elements before the text: [REL] and label in turn, then [SEP] (section 3.1)."""
        rel, sep = (self.pieces.token_id(REL),), (self.pieces.token_id(SEP),)
        return [part for label in self.pieces(labels) for part in (rel, label)] + [sep]

    def encode(self, windows: Sequence[Window]) -> tuple[list[Tensor], list[Tensor]]:
        """Word vectors [W, D] and label vectors [C, D] of each window (sections 3.2 and 3.3, eq. 1)."""
        prompts = {labels: self.prompt(labels) for labels in {window.labels for window in windows}}
        rows = [[*prompts[window.labels], *window.words] for window in windows]
        batch = pad_sequences(
            rows, prefix=self.pieces.prefix, suffix=self.pieces.suffix, pad_id=self.pieces.pad_id
        ).to(self.device)
        hidden = read(self.encoder, batch.ids, batch.mask, mixed_precision=self.mixed_precision)
        elements = pool_pieces(hidden.flatten(0, 1), batch.start, batch.end, self.pooling)
        elements = self.projection(elements)
        words, labels = [], []
        for window, row in zip(windows, elements.split(batch.counts), strict=True):
            size = 2 * len(window.labels)
            labels.append(self._label_vectors(row[:size]))
            words.append(row[size + 1 :])
        return self.lstm(words), self.label_layer(torch.cat(labels)).split([len(w.labels) for w in windows])

    def _label_vectors(self, prompt: Tensor) -> Tensor:
        """prompt: [2C, D], [REL] and label in turn. Returns [C, D]."""
        if self.label_strategy == "label":
            return prompt[1::2]
        if self.label_strategy == "ent_token":
            return prompt[::2]
        return (prompt[::2] + prompt[1::2]) / 2

    def forward(self, windows: Sequence[Window]) -> list[Tensor]:
        """Logits [P, C] of each window's pairs and labels (eq. 7 and 8, before the sigmoid)."""
        encoded = zip(windows, *self.encode(windows), strict=True)
        return [self._scorer_of(*window)(slice(None)) for window in encoded]

    @torch.inference_mode()
    def predict(self, windows: Sequence[Window]) -> list[Selected]:
        """The scores that each window's ``keep`` lets through."""
        return [
            select(self._scorer_of(window, words, labels), window, width=5 * words.shape[-1], device=self.device)
            for window, words, labels in zip(windows, *self.encode(windows), strict=True)
        ]

    def _scorer_of(self, window: Window, words: Tensor, labels: Tensor) -> Callable[[slice], Tensor]:
        """What gives the logits [p, C] of a slice of the window's pairs."""
        pairs = torch.from_numpy(window.pairs).to(self.device)
        entities = self.marker(words, torch.from_numpy(window.spans).to(self.device))
        heads, tails = self.pair_layer.split(entities)

        def hidden(rows: slice) -> Tensor:
            return self.pair_layer.hidden(heads, tails, pairs[rows])

        if self.refine_labels is not None:
            labels = self._refined_labels(labels, hidden)
        if self.folds:
            weights, bias = self.pair_layer.fold(labels)
            folded = weights.T.contiguous()
            return lambda rows: torch.addmm(bias, hidden(rows), folded)
        if self.refine_pairs is None:
            return lambda rows: self.scorer(self.pair_layer.output(hidden(rows)), labels)
        refine = self.refine_pairs
        if self.refines_by_paper:  # pairs attend to each other, so all are refined at once
            refined = refine(self.pair_layer.output(hidden(slice(None))), labels)
            return lambda rows: self.scorer(refined[rows], labels)
        return lambda rows: self.scorer(refine(self.pair_layer.output(hidden(rows)), words), labels)

    def _refined_labels(self, labels: Tensor, hidden: Callable[[slice], Tensor]) -> Tensor:
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


def _build_scorer(name: str, width: int, dropout: float) -> nn.Module:
    if name == "dot":
        return DotScorer()
    return SCORERS[name](width, dropout=dropout)
