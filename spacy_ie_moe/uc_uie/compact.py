"""A compact causal language model out of a sentence encoder, for demonstrations and small experiments.

An encoder of BERT's kind has blocks with the norms behind the sums, as the smaller OPT of Hugging Face's
transformers has them, so its blocks become those of a decoder as they are; only the mask differs, and what that
breaks is learnt again in training. Its word pieces cannot tell upper from lower case, so the decoder has a byte-level
BPE of its own, with vectors made of those of the pieces, and what it writes is the text to the letter.

    python -m spacy_ie_moe.uc_uie.compact OUTPUT TEXT... [--encoder NAME] [--vocabulary 12000]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from ..encoder import SMALL_ENCODER, find_encoder, load_encoder

START, END, PAD = "<s>", "</s>", "<pad>"
FRAMES = " None {(Type: filler): []} {(Type: Null): [(subject: one), (object: other), (aspect: this), (opinion: that)]}"
OFFSET = 2
"""OPT's position embeddings begin at this row."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE of ``vocabulary`` tokens that gives every text back as it was; digits are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[START, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )


def new_compact(
    tokenizer: Any,
    *,
    width: int = 64,
    inner: int = 128,
    layers: int = 2,
    heads: int = 4,
    positions: int = 512,
    activation: str = "gelu",
) -> Any:
    """A causal language model with random weights; the sizes are those that OPT's config has."""
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            word_embed_proj_dim=width,
            ffn_dim=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=positions,
            activation_function=activation,
            do_layer_norm_before=False,
            dropout=0.0,
            attention_dropout=0.0,
            layerdrop=0.0,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_compact(encoder: Any, pieces: Tokenizer, tokenizer: Any) -> Any:
    """A causal language model with the blocks of ``encoder`` (a BertModel) and the vocabulary of ``tokenizer``.

    pieces: the encoder's own tokenizer. BERT normalises the sum of word and position vectors, OPT does not, so both
    are scaled here by what that norm does to them on average.
    """
    config = encoder.config
    model = new_compact(
        tokenizer,
        width=config.hidden_size,
        inner=config.intermediate_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        positions=config.max_position_embeddings,
        activation=config.hidden_act,
    )
    decoder = model.model.decoder
    words, positions = _vectors(encoder.embeddings, pieces, tokenizer)
    with torch.no_grad():
        decoder.embed_tokens.weight.copy_(words)
        decoder.embed_positions.weight[OFFSET:].copy_(positions)
        for ours, theirs in zip(decoder.layers, encoder.encoder.layer, strict=True):
            for name, source in {
                "self_attn.q_proj": theirs.attention.self.query,
                "self_attn.k_proj": theirs.attention.self.key,
                "self_attn.v_proj": theirs.attention.self.value,
                "self_attn.out_proj": theirs.attention.output.dense,
                "self_attn_layer_norm": theirs.attention.output.LayerNorm,
                "fc1": theirs.intermediate.dense,
                "fc2": theirs.output.dense,
                "final_layer_norm": theirs.output.LayerNorm,
            }.items():
                ours.get_submodule(name).load_state_dict(source.state_dict())
    model.tie_weights()
    return model


def _vectors(embeddings: Any, pieces: Tokenizer, tokenizer: Any) -> tuple[Tensor, Tensor]:
    """Vectors [V, d] of the tokens and [L, d] of the positions."""
    table = embeddings.word_embeddings.weight.detach() + embeddings.token_type_embeddings.weight.detach()[0]
    places = embeddings.position_embeddings.weight.detach()
    norm = embeddings.LayerNorm
    rows = []
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        found = pieces.encode(text, add_special_tokens=False).ids
        if text.strip() and not text.startswith(" "):  # the rest of a word, or its start: the mean of both readings
            found = found + pieces.encode("a" + text, add_special_tokens=False).ids[1:]
        rows.append(table[found].mean(0) if found else table.mean(0))
    words = torch.stack(rows)
    words = words - words.mean(-1, keepdim=True)
    places = places - places.mean(-1, keepdim=True)
    energy = words.square().mean(-1, keepdim=True) + places.square().mean()
    typical = energy.mean().sqrt()
    return words / energy.sqrt() * norm.weight + norm.bias, places / typical * norm.weight


def read_lines(files: Sequence[Path]) -> Iterator[str]:
    """The texts of plain text files, a line each, and of ``.spacy`` files, a document each."""
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    vocab = Vocab()
    for file in files:
        if file.suffix == ".spacy":
            yield from (doc.text for doc in DocBin().from_disk(file).get_docs(vocab))
        else:
            yield from file.read_text(encoding="utf8").splitlines()


def main(
    output: Annotated[Path, typer.Argument(help="The folder to write, in Hugging Face's form.")],
    texts: Annotated[list[Path], typer.Argument(help="Files to make the vocabulary of: plain text or .spacy.")],
    encoder: Annotated[str, typer.Option(help="A BERT-like encoder: folder or hub id; '' for a tiny random model.")] = (
        SMALL_ENCODER
    ),
    vocabulary: Annotated[int, typer.Option(help="Tokens of the vocabulary.")] = 12000,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
) -> None:
    """Write a compact causal language model with the blocks of a sentence encoder; it still has to be trained."""
    from .instructions import all_wordings

    torch.manual_seed(seed)
    # The wordings and the signs of frames belong to the vocabulary as much as the texts do.
    tokenizer = train_tokenizer([*read_lines(texts), *[*all_wordings(), FRAMES] * 50], vocabulary)
    if encoder:
        pieces = Tokenizer.from_file(str(Path(find_encoder(encoder)) / "tokenizer.json"))
        pieces.no_padding()
        model = make_compact(load_encoder(encoder), pieces, tokenizer)
    else:
        model = new_compact(tokenizer)
    model.save_pretrained(output, safe_serialization=True)
    tokenizer.save_pretrained(output)
    typer.echo(f"{output}: {model.num_parameters():,} parameters, {len(tokenizer):,} tokens")


if __name__ == "__main__":
    typer.run(main)
