"""The teacher of ner-mini: a small BERT fine-tuned to tag words, which annotates texts for the CNN.

    python -m spacy_ie_moe.corpora.ner_teacher train.spacy dev.spacy training/ner_teacher --seed 0

The encoder is all-MiniLM-L6-v2 by default (Apache-2.0). It is uncased, so an embedding of each word's
shape (lower case, capitalised, ...) is added to its word pieces. Only PyTorch runs the network: no spaCy
component is involved.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import spacy
import torch
import typer
from safetensors.torch import load_file, save_file
from spacy.tokens import Doc
from torch import Tensor, nn
from torch.nn import functional as F

from spacy_ie_moe.corpora.ner import TokenSpan, tags_to_spans
from spacy_ie_moe.corpora.ner_mini import LABELS, read_docs

TAGS = ("O", *(f"{prefix}-{label}" for label in LABELS.values() for prefix in "BI"))
MISSING = -100
WINDOW = 128
SHAPES = 7


def shape(word: str) -> int:
    """A number for the word's case: 0 is kept for special pieces."""
    if not any(c.isalnum() for c in word):
        return 1
    if any(c.isdigit() for c in word):
        return 2
    if word.islower():
        return 3
    if word.isupper():
        return 4 if len(word) > 1 else 5
    return 5 if word[0].isupper() and word[1:].islower() else 6


class Teacher(nn.Module):
    """Tags for the words of a text: encoder, then one linear layer on each word's first piece."""

    def __init__(self, encoder: Any, tokenizer: Any) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.tokenizer = tokenizer
        self.shapes = nn.Embedding(SHAPES, encoder.config.hidden_size)
        nn.init.zeros_(self.shapes.weight)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(encoder.config.hidden_size, len(TAGS))

    def forward(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """Scores (texts, words of the longest, tags); what lies past the encoder's limit scores as ``O``."""
        batch = self.tokenizer(
            [list(words) for words in texts],
            is_split_into_words=True,
            padding=True,
            truncation=True,
            max_length=512,
            return_tensors="pt",
        )
        ids = batch["input_ids"]
        shapes = torch.zeros_like(ids)
        first = torch.full((len(texts), max(len(words) for words in texts)), -1)
        for row, words in enumerate(texts):
            for piece, word in enumerate(batch.word_ids(row)):
                if word is not None:
                    shapes[row, piece] = shape(words[word])
                    if first[row, word] < 0:
                        first[row, word] = piece
        embedded = self.encoder.get_input_embeddings()(ids) + self.shapes(shapes)
        hidden = self.encoder(inputs_embeds=embedded, attention_mask=batch["attention_mask"]).last_hidden_state
        index = first.clamp(min=0).unsqueeze(-1).expand(-1, -1, hidden.shape[-1])
        scores = self.classifier(self.dropout(hidden.gather(1, index)))
        return scores.masked_fill(
            (first < 0).unsqueeze(-1) & (torch.arange(len(TAGS)) > 0), torch.finfo(scores.dtype).min
        )

    @torch.no_grad()
    def annotate(self, texts: Sequence[Sequence[str]], *, words_in_batch: int = 2500) -> list[list[TokenSpan]]:
        """The entities of each text, in the order given; long texts are read in windows."""
        self.eval()
        pieces = [(i, s, e) for i, words in enumerate(texts) for s, e in windows(words)]
        tags = [["O"] * len(words) for words in texts]
        for batch in _batches(sorted(pieces, key=lambda p: p[2] - p[1]), words_in_batch):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                best = self([texts[i][s:e] for i, s, e in batch]).argmax(-1)
            for (i, s, e), row in zip(batch, best.tolist(), strict=True):
                tags[i][s:e] = [TAGS[t] for t in row[: e - s]]
        return [list(tags_to_spans(t)) for t in tags]

    def to_disk(self, folder: Path) -> None:
        """Write weights, encoder config and tokenizer to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.encoder.config.to_json_file(folder / "config.json")
        self.tokenizer.save_pretrained(folder)
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, folder / "teacher.safetensors")

    @classmethod
    def from_disk(cls, folder: Path) -> Teacher:
        """The teacher that `to_disk` wrote."""
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        if not (folder / "teacher.safetensors").is_file():
            raise FileNotFoundError(f"{folder} has no teacher.safetensors; run spacy_ie_moe.corpora.ner_teacher first.")
        config = AutoConfig.from_pretrained(folder)
        encoder = AutoModel.from_config(config, add_pooling_layer=False)
        teacher = cls(encoder, AutoTokenizer.from_pretrained(folder))
        teacher.load_state_dict(load_file(folder / "teacher.safetensors"))
        return teacher.eval()


def windows(words: Sequence[str], limit: int = WINDOW) -> Iterator[tuple[int, int]]:
    """Start and end of parts of at most ``limit`` words that end at a full stop where one is near."""
    start = 0
    while start < len(words):
        end = min(start + limit, len(words))
        if end < len(words):
            stops = [i + 1 for i in range(start + limit // 2, end) if words[i] in ".?!"]
            end = stops[-1] if stops else end
        yield start, end
        start = end


def _batches(pieces: Sequence[tuple[int, int, int]], words: int) -> Iterator[list[tuple[int, int, int]]]:
    batch: list[tuple[int, int, int]] = []
    for piece in pieces:
        longest = max([piece[2] - piece[1], *(e - s for _, s, e in batch)])
        if batch and longest * (len(batch) + 1) > words:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def tag_numbers(doc: Doc) -> list[int]:
    """The numbers of ``doc``'s tags; `MISSING` where the annotation is missing."""
    return [
        MISSING if t.ent_iob == 0 else TAGS.index(f"{t.ent_iob_}-{t.ent_type_}" if t.ent_type_ else "O") for t in doc
    ]


def score(teacher: Teacher, docs: Sequence[Doc]) -> float:
    """Micro F1 of exact spans with labels."""
    found = teacher.annotate([[t.text for t in doc] for doc in docs])
    gold = {(i, e.start, e.end, e.label_) for i, doc in enumerate(docs) for e in doc.ents}
    predicted = {(i, *span) for i, spans in enumerate(found) for span in spans}
    return 2 * len(gold & predicted) / max(1, len(gold) + len(predicted))


def train(
    teacher: Teacher,
    docs: Sequence[Doc],
    dev: Sequence[Doc],
    *,
    epochs: int,
    learn_rate: float = 1.5e-4,
    words_in_batch: int = 700,
    seed: int = 0,
) -> Iterator[dict[str, float]]:
    """Fine-tune; yields loss, dev F1 and seconds after each epoch. The word embeddings stay fixed."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    teacher.encoder.get_input_embeddings().weight.requires_grad_(False)
    head = [*teacher.shapes.parameters(), *teacher.classifier.parameters()]
    encoder = [p for p in teacher.encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [{"params": encoder, "lr": learn_rate}, {"params": head, "lr": 1e-3}], weight_decay=0.01
    )
    texts = [[t.text for t in doc] for doc in docs]
    tags = [tag_numbers(doc) for doc in docs]
    pieces = [(i, s, e) for i, words in enumerate(texts) for s, e in windows(words)]

    def shuffled() -> list[list[tuple[int, int, int]]]:
        noisy = sorted(pieces, key=lambda p: (p[2] - p[1]) * rng.uniform(0.8, 1.25))
        batches = list(_batches(noisy, words_in_batch))
        rng.shuffle(batches)
        return batches

    total = epochs * len(shuffled())
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / (0.1 * total), max(0.0, (total - step) / (0.9 * total)))
    )
    began = time.perf_counter()
    for epoch in range(epochs):
        teacher.train()
        losses = []
        for batch in shuffled():
            wanted = torch.full((len(batch), max(e - s for _, s, e in batch)), MISSING)
            for row, (i, s, e) in enumerate(batch):
                wanted[row, : e - s] = torch.tensor(tags[i][s:e])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                scores = teacher([texts[i][s:e] for i, s, e in batch])
            loss = F.cross_entropy(scores.float().flatten(0, 1), wanted.flatten(), ignore_index=MISSING)
            loss.backward()
            nn.utils.clip_grad_norm_([*encoder, *head], 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        yield {
            "epoch": epoch + 1,
            "loss": sum(losses) / len(losses),
            "dev_f1": score(teacher, dev),
            "seconds": time.perf_counter() - began,
        }


def main(
    train_docs: Annotated[Path, typer.Argument(help="Training .spacy file.")],
    dev_docs: Annotated[Path, typer.Argument(help="Dev .spacy file.")],
    output: Annotated[Path, typer.Argument(help="Folder for the teacher.")],
    encoder: Annotated[
        str, typer.Option(help="Folder or hub name of the encoder.")
    ] = "sentence-transformers/all-MiniLM-L6-v2",
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Seed of order, dropout and new weights.")] = 0,
) -> None:
    """Fine-tune ENCODER on TRAIN_DOCS and write it to OUTPUT."""
    from transformers import AutoModel, AutoTokenizer

    vocab = spacy.blank("en").vocab
    torch.manual_seed(seed)
    try:
        docs, dev = read_docs(train_docs, vocab), read_docs(dev_docs, vocab)
        teacher = Teacher(
            AutoModel.from_pretrained(encoder, add_pooling_layer=False),
            AutoTokenizer.from_pretrained(encoder),
        )
    except OSError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    for report in train(teacher, docs, dev, epochs=epochs, seed=seed):
        typer.echo(json.dumps({key: round(value, 4) for key, value in report.items()}))
    teacher.to_disk(output)


if __name__ == "__main__":
    typer.run(main)
