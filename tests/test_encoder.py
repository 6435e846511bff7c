"""Words to pieces, pieces to vectors of words, encoders from folders."""

from __future__ import annotations

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModel, BertConfig, DebertaV2Config, RobertaConfig

import spacy_ie_moe.encoder
from spacy_ie_moe.encoder import WordPieces, build_encoder, load_encoder, max_pieces, pool_pieces
from spacy_ie_moe.glirel.network import SPECIAL_TOKENS

from .conftest import WORDS


@pytest.fixture(scope="module")
def pieces(encoder_folders: dict[str, Path]) -> WordPieces:
    return WordPieces.from_pretrained(encoder_folders["bert"], special=SPECIAL_TOKENS)


def test_pieces_are_those_of_the_tokenizer(pieces: WordPieces, encoder_folders: dict[str, Path]) -> None:
    plain = Tokenizer.from_file(str(encoder_folders["bert"] / "tokenizer.json"))
    words = ["Paris", "zebra", "Smith-Jones", "lives in", "."]
    expected = [tuple(plain.encode(word, add_special_tokens=False).ids) for word in words]
    assert pieces(words) == expected
    assert pieces(words) == expected, "remembered pieces differ"
    assert len(expected[1]) == 5


def test_prefix_and_suffix_are_the_template(pieces: WordPieces) -> None:
    assert pieces.prefix == (pieces.token_id("[CLS]"),)
    assert pieces.suffix == (pieces.token_id("[SEP]"),)


def test_special_tokens_are_added_in_order_and_known_ones_keep_their_id(
    pieces: WordPieces, encoder_folders: dict[str, Path]
) -> None:
    before = len(WordPieces.from_pretrained(encoder_folders["bert"]))
    assert [pieces.token_id(token) for token in SPECIAL_TOKENS] == [before, before + 1, 3, before + 2, before + 3]
    assert len(pieces) == before + 4
    with pytest.raises(ValueError, match=r"no token '\[REF\]'"):
        pieces.token_id("[REF]")


SPECIAL = ["[SEP]", "[CLS]", "[REL]", "[MASK]", "[PAD]", "x[SEP]y", "[SEP] [REL] founder"]


def is_forged(pieces: WordPieces) -> bool:
    special = {pieces.token_id(token) for token in ("[SEP]", "[CLS]", "[REL]", "[MASK]", "[PAD]")}
    return any(special & set(element) for element in pieces(SPECIAL))


def test_no_text_can_forge_a_special_token(pieces: WordPieces) -> None:
    assert not is_forged(pieces)


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_copies_split_special_tokens_too(pieces: WordPieces, how: str) -> None:
    again = copy.deepcopy(pieces) if how == "deepcopy" else pickle.loads(pickle.dumps(pieces))
    assert again(WORDS) == pieces(WORDS)
    assert not is_forged(again)
    assert again(SPECIAL) == pieces(SPECIAL)


def test_byte_level_words_are_those_of_running_text() -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(["the cat sat on the mat"] * 5, trainer)
    running = tokenizer.encode(" the cat sat", add_special_tokens=False).ids
    assert [piece for word in WordPieces(tokenizer, 0)(["the", "cat", "sat"]) for piece in word] == running


@pytest.mark.parametrize("word", ["", " ", "\n", "\x00", "\u200b", "\u0301"])
def test_words_may_have_no_pieces(pieces: WordPieces, word: str) -> None:
    assert pieces([word]) == [()]


@pytest.mark.parametrize("word", ["\ud800", "a\udfffb", "🙂", "שלום", "日本", "e\u0301"])
def test_odd_words_have_pieces(pieces: WordPieces, word: str) -> None:
    assert pieces(["a", word, "b"])[::2] == pieces(["a", "b"])
    assert pieces([word])[0]


@given(st.lists(st.text(st.characters(), max_size=12), max_size=12))
def test_elements_do_not_depend_on_their_neighbours(pieces: WordPieces, elements: list[str]) -> None:
    assert pieces(elements) == [pieces([element])[0] for element in elements]


def test_memory_of_pieces_stays_bounded(pieces: WordPieces, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = copy.deepcopy(pieces)
    monkeypatch.setattr(spacy_ie_moe.encoder, "CACHED_WORDS", 8)
    rng = random.Random(0)
    fresh = WordPieces(pieces.tokenizer, pieces.pad_id)
    for _ in range(50):
        words = rng.choices(WORDS, k=rng.randint(1, 12))
        fresh._cache = {}
        assert pieces(words) == fresh(words)
        assert len(pieces._cache) <= 12


def pool_naively(hidden: Tensor, ranges: list[tuple[int, int]], how: str) -> Tensor:
    width = hidden.shape[1] * (2 if how == "first_last" else 1)
    rows = []
    for start, end in ranges:
        own = hidden[start:end]
        if not len(own):
            rows.append(torch.zeros(width))
        elif how == "first_last":
            rows.append(torch.cat([own[0], own[-1]]))
        else:
            rows.append({"first": own[0], "last": own[-1], "mean": own.mean(0), "sum": own.sum(0)}[how])
    return torch.stack(rows)


@pytest.mark.parametrize("how", ["first", "last", "mean", "sum", "first_last"])
@settings(max_examples=50)
@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=12), gap=st.integers(0, 2))
def test_pooling_equals_a_loop(how: str, lengths: list[int], gap: int) -> None:
    ranges, position = [], gap
    for length in lengths:
        ranges.append((position, position + length))
        position += length
    hidden = torch.randn(position + gap + 1, 6)
    start, end = torch.tensor(ranges).unbind(-1)
    expected = pool_naively(hidden, ranges, how)
    torch.testing.assert_close(pool_pieces(hidden, start, end, how), expected)


def test_empty_elements_at_the_very_end_are_zero() -> None:
    hidden = torch.randn(3, 2)
    start, end = torch.tensor([0, 3]), torch.tensor([3, 3])
    for how in ("first", "last", "mean", "sum", "first_last"):
        assert not pool_pieces(hidden, start, end, how)[1].any()


@pytest.mark.parametrize("name", ["bert", "deberta"])
def test_encoders_load_without_pooler_and_give_their_numbers(encoder_folders: dict[str, Path], name: str) -> None:
    encoder = load_encoder(encoder_folders[name]).eval()
    reference = AutoModel.from_pretrained(str(encoder_folders[name])).eval()
    assert not any("pooler" in key for key in encoder.state_dict())
    ids = torch.randint(5, 60, (2, 20))
    mask = torch.ones_like(ids)
    mask[1, 11:] = 0
    with torch.no_grad():
        ours = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        theirs = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours[mask > 0], theirs[mask > 0], atol=2e-5, rtol=1e-4)
    rebuilt = build_encoder(encoder.config.to_dict())
    assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {
        k: v.shape for k, v in encoder.state_dict().items()
    }


@pytest.mark.parametrize(
    ("config", "limit"),
    [
        (BertConfig(max_position_embeddings=128), 128),
        (RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
        (DebertaV2Config(relative_attention=True, position_biased_input=False), None),
        (DebertaV2Config(relative_attention=True, position_biased_input=True), 512),
        (DebertaV2Config(relative_attention=False, position_biased_input=True), 512),
    ],
)
def test_longest_inputs(config: Any, limit: int | None) -> None:
    assert max_pieces(config) == limit


def test_an_encoder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    BertConfig(vocab_size=10).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="tokenizer"):
        WordPieces.from_pretrained(tmp_path)
