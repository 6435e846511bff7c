"""A zero-shot network that starts from what its sentence encoder already knows. PyTorch only.

A sentence encoder rates a text and a label name as similar before any training for relations; layers drawn at
random on top of it throw that away. Here every layer starts as the identity or at zero, so the untrained network
*is* the encoder's cosine between text and label, and training only adds to it: which words matter for a pair, who
is head and who is tail, and when to say no.

Labels are read apart from the text: their vectors are computed once, they may be any number, and their order
cannot matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..encoder import WordPieces, build_encoder, max_pieces, pool_pieces, read
from .batch import Selected, Window
from .layers import span_means
from .selection import select
from .sequences import pad_sequences

CACHED_LABELS = 4096

OWN_UNIT = 20.0
"""What one unit of a cosine's weight counts, so that the learning rate of matrices suits it."""


class AnchoredNetwork(nn.Module):
    """score(u, v, t) = scale * cos(context(u, v), t) + roles(u, v, t) + relatedness(u, v) + bias.

    context: the mean of the text's words, weighted for the pair. roles: whether u is what t has as head and v what it
    has as tail. relatedness: whether the pair is related at all, whatever the label. What rates labels is kept
    narrow on purpose: a feed-forward on pairs or labels fits those of the training and misleads on others.
    config: see ``checkpoint.ANCHORED_DEFAULTS``. encoder_config: the encoder's ``config.json``.
    """

    reads_labels_apart = True

    def __init__(self, config: dict[str, Any], encoder_config: dict[str, Any], pieces: WordPieces) -> None:
        super().__init__()
        self.pieces = pieces
        self.max_words: int | None = config["max_len"]
        self.mixed_precision: bool = config["mixed_precision"]
        self.encoder = build_encoder(encoder_config)
        self.max_pieces = max_pieces(self.encoder.config)
        width = self.encoder.config.hidden_size
        self.context = PairContext(width, reach=config["reach"])
        self.roles = RoleScorer(width, config["role_size"])
        self.relatedness = Relatedness(width, dropout=config["dropout"])
        self.log_scale = nn.Parameter(torch.tensor(math.log(config["scale"])))
        self.bias = nn.Parameter(torch.tensor(float(config["bias"])))
        self._label_cache: dict[str, Tensor] = {}

    def prompt(self, labels: Sequence[str]) -> list[tuple[int, ...]]:
        """Nothing: labels are read apart from the text."""
        return []

    def encode(self, windows: Sequence[Window]) -> list[Tensor]:
        """Word vectors [W + 2, H] of each window: the words, each the mean of its pieces, between the encoder's
        own first and last tokens, which carry much of what it knows of the whole."""
        first, last = self.pieces.prefix, self.pieces.suffix
        return self._read([(first, *window.words, last) for window in windows])

    def _read(self, rows: Sequence[Sequence[tuple[int, ...]]]) -> list[Tensor]:
        """Rows of elements as vectors [E, H], each the mean of its pieces."""
        batch = pad_sequences(rows, prefix=(), suffix=(), pad_id=self.pieces.pad_id).to(self.device)
        hidden = read(self.encoder, batch.ids, batch.mask, mixed_precision=self.mixed_precision)
        return list(pool_pieces(hidden.flatten(0, 1), batch.start, batch.end, "mean").split(batch.counts))

    def encode_labels(self, labels: Sequence[str]) -> Tensor:
        """Label vectors [C, H], remembered while the network is not in training."""
        if self.training:
            return self._read_labels(labels)
        if len(self._label_cache) > max(CACHED_LABELS, 2 * len(labels)):
            self._label_cache = {}
        cache = self._label_cache
        new = [label for label in dict.fromkeys(labels) if label not in cache]
        for start in range(0, len(new), 64):
            part = new[start : start + 64]
            cache.update(zip(part, self._read_labels(part), strict=True))
        return torch.stack([cache[label] for label in labels])

    def _read_labels(self, labels: Sequence[str]) -> Tensor:
        """Each label is one element with the encoder's first and last tokens: a sentence of its own."""
        first, last = self.pieces.prefix, self.pieces.suffix
        room = None if self.max_pieces is None else self.max_pieces - len(first) - len(last)
        return torch.cat(self._read([[first + pieces[:room] + last] for pieces in self.pieces(labels)]))

    def train(self, mode: bool = True) -> AnchoredNetwork:
        """Switch training on or off; what is remembered of the labels is forgotten."""
        self._label_cache = {}
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> AnchoredNetwork:
        self._label_cache = {}  # another device or precision
        return super()._apply(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_label_cache": {}}

    def forward(self, windows: Sequence[Window]) -> list[Tensor]:
        """Logits [P, C] of each window's pairs and labels."""
        known = {label: row for row, label in enumerate(dict.fromkeys(t for w in windows for t in w.labels))}
        labels = self.encode_labels(list(known))
        logits = []
        for window, words in zip(windows, self.encode(windows), strict=True):
            own = labels[[known[label] for label in window.labels]]
            logits.append(self._scorer_of(window, words, own)(slice(None)))
        return logits

    @torch.inference_mode()
    def predict(self, windows: Sequence[Window]) -> list[Selected]:
        """The scores that each window's ``keep`` lets through."""
        selected = []
        for window, words in zip(windows, self.encode(windows), strict=True):
            score = self._scorer_of(window, words, self.encode_labels(window.labels))
            width = 4 * words.shape[-1] + len(words)
            selected.append(select(score, window, width=width, device=self.device))
        return selected

    def _scorer_of(self, window: Window, words: Tensor, labels: Tensor) -> Any:
        """What gives the logits [p, C] of a slice of the window's pairs."""
        pairs = torch.from_numpy(window.pairs).to(self.device)
        spans = torch.from_numpy(window.spans).to(self.device) + 1  # behind the encoder's first token
        readable = torch.tensor([True, *(len(word) > 0 for word in window.words), True], device=self.device)
        entities = span_means(words, spans)
        context = self.context(words, readable, entities, spans)
        roles = self.roles(entities, labels)
        relatedness = self.relatedness(entities)
        anchors = F.normalize(labels, dim=-1).T * self.log_scale.exp()

        def score(rows: slice) -> Tensor:
            heads, tails = pairs[rows].unbind(-1)
            about = context(heads, tails)
            cosine = F.normalize(about, dim=-1) @ anchors
            return cosine + roles(heads, tails) + relatedness(heads, tails, about) + self.bias

        return score

    @property
    def device(self) -> torch.device:
        return self.bias.device


class PairContext(nn.Module):
    """The words of a text, weighted for a pair and averaged; at the start all weigh the same.

    A word's weight is softmax of (query_head . word + query_tail . word + nearness to head + nearness to tail):
    a sum over head and tail, so it is computed per entity and not per pair.
    """

    def __init__(self, width: int, *, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.query_head = nn.Linear(width, width)
        self.query_tail = nn.Linear(width, width)
        self.nearness = nn.Parameter(torch.zeros(2, 2 * reach + 1))
        for query in (self.query_head, self.query_tail):
            nn.init.zeros_(query.weight)
            nn.init.zeros_(query.bias)

    def forward(self, words: Tensor, readable: Tensor, entities: Tensor, spans: Tensor) -> Any:
        """words: [W, H]; readable: [W]; entities: [N, H]; spans: [N, 2].

        Returns what maps heads [p] and tails [p], rows of entities, to contexts [p, H].
        """
        scale = 1 / math.sqrt(words.shape[-1])
        position = torch.arange(len(words), device=words.device)
        before = (position - spans[:, :1]).clamp(min=-self.reach, max=0)
        after = (position - spans[:, 1:] + 1).clamp(min=0, max=self.reach)
        distance = before + after + self.reach
        as_head = self.query_head(entities) @ words.T * scale + self.nearness[0][distance]
        as_tail = self.query_tail(entities) @ words.T * scale + self.nearness[1][distance]
        hidden = ~readable

        def context(heads: Tensor, tails: Tensor) -> Tensor:
            weights = (as_head[heads] + as_tail[tails]).masked_fill(hidden, -1e4).softmax(-1)
            return weights @ words

        return context


class Relatedness(nn.Module):
    """Whether head and tail are related at all: a feed-forward over both and their context; zero at the start."""

    def __init__(self, width: int, *, dropout: float) -> None:
        super().__init__()
        self.head = nn.Linear(width, 2 * width)
        self.tail = nn.Linear(width, 2 * width, bias=False)
        self.context = nn.Linear(width, 2 * width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(2 * width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, entities: Tensor) -> Any:
        """entities: [N, H]. Returns what maps heads, tails [p] and contexts [p, H] to scores [p, 1]."""
        as_head, as_tail = self.head(entities), self.tail(entities)

        def score(heads: Tensor, tails: Tensor, context: Tensor) -> Tensor:
            return self.out(self.dropout(F.gelu(as_head[heads] + as_tail[tails] + self.context(context))))

        return score


class RoleScorer(nn.Module):
    """How well head and tail fit the two roles of a label; zero at the start.

    Two readings of each side: a learned one of ``size`` numbers, and the encoder's own cosine of entity and label
    (the tail of "director" is itself like "director"), of which only the weight is learned.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(2))
        self.entity = nn.Linear(width, 2 * size)
        self.label = nn.Linear(width, 2 * size)
        nn.init.zeros_(self.label.weight)
        nn.init.zeros_(self.label.bias)

    def forward(self, entities: Tensor, labels: Tensor) -> Any:
        """entities: [N, H]; labels: [C, H]. Returns what maps heads, tails [p] to scores [p, C]."""
        head, tail = self.entity(entities).chunk(2, dim=-1)
        head_role, tail_role = self.label(labels).chunk(2, dim=-1)
        scale = 1 / math.sqrt(head.shape[-1])
        cosine = OWN_UNIT * F.normalize(entities, dim=-1) @ F.normalize(labels, dim=-1).T
        as_head = head @ head_role.T * scale + self.own[0] * cosine
        as_tail = tail @ tail_role.T * scale + self.own[1] * cosine
        return lambda heads, tails: as_head[heads] + as_tail[tails]
