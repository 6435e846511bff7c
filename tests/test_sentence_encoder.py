"""Words to vectors with a Hugging Face encoder, whatever the length of the sentences. PyTorch only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from spacy_ie_moe import precision
from spacy_ie_moe.gmoe_rte import checkpoint
from spacy_ie_moe.gmoe_rte import sentence_encoder as module
from spacy_ie_moe.gmoe_rte.features import Features
from spacy_ie_moe.gmoe_rte.sentence_encoder import SentenceEncoder, Window

from .conftest import WORDS, make_encoder

POSITIONS = 26
LIMIT = POSITIONS - 2  # pieces of a sentence besides [CLS] and [SEP]
EMPTY = ("\u200b", " ", "\n", "\t\t", "\x00", "\u00ad")
"""Words that the tokenizer has no pieces for."""


def close(left: Tensor, right: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(left, right, atol=tolerance, rtol=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with few positions."""
    return make_encoder(tmp_path_factory.mktemp("few positions") / "bert", "bert", positions=POSITIONS)


def load_bundle(folder: Path, *, mixed_precision: bool = False) -> checkpoint.EncoderBundle:
    return checkpoint.load_sentence_encoder(str(folder), revision=None, mixed_precision=mixed_precision)


def load(folder: Path, **options: Any) -> SentenceEncoder:
    return load_bundle(folder, **options).network.eval()


@pytest.fixture(scope="module")
def short(folder: Path) -> SentenceEncoder:
    """An encoder that reads 24 pieces."""
    return load(folder)


@pytest.fixture(scope="module", params=["bert", "deberta"])
def encoder(request: pytest.FixtureRequest, encoder_folders: Mapping[str, Path]) -> SentenceEncoder:
    """An encoder that reads 126 pieces, and one that reads any number of them."""
    return load(encoder_folders[request.param])


def words_of(n: int, seed: int = 0) -> list[str]:
    return np.random.default_rng(seed).choice(WORDS, size=n).tolist()


SENTENCES = [
    words_of(5),
    ["alice"],
    ["Alice", "founded", "Xylo7phone", "in", "Rome", "."],  # of several pieces
    words_of(17, 1),
    ["bob", " ", "met", "\u200b\u200b", "carol"],
]


def split(rows: Tensor, sentences: Sequence[Sequence[str]]) -> list[Tensor]:
    """The rows of each sentence."""
    return list(rows.split([len(words) + 1 for words in sentences]))


def read(encoder: SentenceEncoder, words: Sequence[Sequence[int]]) -> Tensor:
    """[1 + words, d] of words in pieces that fit the encoder, by a direct call."""
    prefix, suffix = encoder.pieces.prefix, encoder.pieces.suffix
    ids = torch.tensor([[*prefix, *(piece for word in words for piece in word), *suffix]])
    hidden = encoder.encoder(input_ids=ids).last_hidden_state[0]
    rows, place = [hidden[0]], len(prefix)
    for word in words:
        rows.append(hidden[place : place + len(word)].mean(0) if word else torch.zeros(encoder.width))
        place += len(word)
    return torch.stack(rows)


# --- sentences that fit ---------------------------------------------------------------------------------------


def test_a_sentence_has_a_row_and_its_words_have_the_means_of_their_pieces(encoder: SentenceEncoder) -> None:
    assert encoder.limit in (126, 510)
    rows = encoder.predict(SENTENCES)
    assert rows.shape == (sum(map(len, SENTENCES)) + len(SENTENCES), encoder.width)
    assert len(encoder.pieces(["Xylo7phone"])[0]) > 3
    for found, words in zip(split(rows, SENTENCES), SENTENCES, strict=True):
        close(found, read(encoder, encoder.pieces(words)))


def test_the_rows_are_those_of_features(encoder: SentenceEncoder) -> None:
    features = Features(encoder.predict(SENTENCES), np.array([len(words) for words in SENTENCES]))
    parts = split(features.hidden, SENTENCES)
    assert torch.equal(features.sentences, torch.stack([part[0] for part in parts]))


@pytest.mark.parametrize("budget", [1, 60, 10**6])
def test_vectors_do_not_depend_on_batches_or_order(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch, budget: int
) -> None:
    sentences = [*SENTENCES, [], *(words_of(n, n) for n in (3, 130, 9, 300))]
    together = split(encoder.predict(sentences), sentences)
    monkeypatch.setattr(module, "PADDED_PIECES", budget)
    backwards = split(encoder.predict(sentences[::-1]), sentences[::-1])
    for words, one, other in zip(sentences, together, backwards[::-1], strict=True):
        close(one, other)
        close(one, encoder.predict([words]))


def test_batches_waste_little_and_stay_within_the_budget() -> None:
    sizes = np.random.default_rng(0).integers(1, 90, size=60).tolist()
    windows = [Window(index, 0, (), slice(0, 0), size) for index, size in enumerate([*sizes, 500])]
    batches = list(module._batches(windows, 256))
    assert sorted(window.sentence for batch in batches for window in batch) == list(range(61))
    for batch in batches:
        assert max(window.size for window in batch) * len(batch) <= 256 or len(batch) == 1
    padded = sum(max(window.size for window in batch) * len(batch) for batch in batches)
    assert padded < 1.3 * sum(window.size for window in windows)
    assert list(module._batches([], 256)) == []


def test_no_sentences_and_sentences_without_words(encoder: SentenceEncoder) -> None:
    assert encoder.predict([]).shape == (0, encoder.width)
    rows = encoder.predict([[], ["alice"], []])
    assert rows.shape == (4, encoder.width)
    assert rows.isfinite().all()
    close(rows[0], read(encoder, [])[0])


@pytest.mark.parametrize("word", EMPTY)
def test_words_without_pieces_are_zeros(encoder: SentenceEncoder, word: str) -> None:
    assert encoder.pieces([word]) == [()]
    rows = encoder.predict([["alice", word, "bob"], [word], ["alice", "bob"]])
    assert not rows[2].any() and not rows[5].any()
    close(rows[[0, 1, 3]], rows[6:])


def test_special_tokens_in_a_text_are_text(encoder: SentenceEncoder) -> None:
    (pieces,) = encoder.pieces(["[SEP]"])
    assert len(pieces) == 5 and encoder.pieces.suffix[0] not in pieces
    assert encoder.predict([["alice", "[CLS]", "\ud800", "bob"]]).isfinite().all()


# --- sentences that do not fit ----------------------------------------------------------------------------------


def windows_of(encoder: SentenceEncoder, words: Sequence[str]) -> list[Window]:
    return list(encoder._windows([words]))


def check_windows(encoder: SentenceEncoder, words: Sequence[str]) -> list[Window]:
    """Every word is owned once, in order, by a window that has it and fits the encoder."""
    windows = windows_of(encoder, words)
    owned = [window.start + place for window in windows for place in range(len(window.words))[window.own]]
    assert owned == list(range(len(words)))
    pieces = encoder.pieces(words)
    assert encoder.limit is not None
    for window in windows:
        assert window.size == sum(map(len, window.words)) <= encoder.limit
        for place, word in enumerate(window.words):
            assert word == pieces[window.start + place][: encoder.limit]
    return windows


def naive(encoder: SentenceEncoder, words: Sequence[str]) -> Tensor:
    """The rows of a sentence of any length: each word as its window has it, the sentence as the windows' mean."""
    sentence, rows = [], []
    for window in windows_of(encoder, words):
        found = read(encoder, window.words)
        sentence.append(found[0])
        rows.append(found[1:][window.own])
    return torch.cat([torch.stack(sentence).mean(0, keepdim=True), *rows])


LENGTHS = st.one_of(st.integers(LIMIT - 3, LIMIT + 3), st.integers(0, 5 * LIMIT))
WORD = st.one_of(
    st.sampled_from(WORDS),
    st.integers(1, 2 * LIMIT).map(lambda n: "x" * n),
    st.sampled_from(EMPTY),
)


@given(st.lists(LENGTHS, min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=25)
def test_any_length_is_read(short: SentenceEncoder, lengths: list[int], seed: int) -> None:
    sentences = [words_of(n, seed + n) for n in lengths]
    with torch.no_grad():
        for words, found in zip(sentences, split(short(sentences), sentences), strict=True):
            windows = check_windows(short, words)
            assert (len(windows) == 1) == (len(words) <= LIMIT)
            assert found.isfinite().all() and found.any(-1).all()
            close(found, naive(short, words))


@given(st.lists(WORD, max_size=40))
@settings(max_examples=40)
def test_any_words_are_read(short: SentenceEncoder, words: list[str]) -> None:
    check_windows(short, words)
    rows = short.predict([words, ["alice"]])
    assert rows.isfinite().all()
    assert rows[1 : 1 + len(words)].any(-1).tolist() == [bool(word) for word in short.pieces(words)]
    with torch.no_grad():
        close(rows[: 1 + len(words)], naive(short, words))


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 30))
def test_windows_of_any_words(short: SentenceEncoder, sizes: list[int], limit: int) -> None:
    words = [(7,) * size for size in sizes]
    windows = list(short._split(0, words, limit))
    owned = [window.start + place for window in windows for place in range(len(window.words))[window.own]]
    assert owned == list(range(len(words)))
    assert all(window.size == sum(map(len, window.words)) <= limit for window in windows)


@pytest.mark.parametrize("n", [LIMIT + 1, 2 * LIMIT, 7 * LIMIT + 5])
def test_words_are_read_far_from_the_borders_of_windows(short: SentenceEncoder, n: int) -> None:
    for window in check_windows(short, words_of(n)):
        for place in range(len(window.words))[window.own]:
            word = window.start + place
            assert min(place, word) >= min(LIMIT // 4, word)
            behind, left = len(window.words) - 1 - place, n - 1 - word
            assert behind >= min(LIMIT // 4 - 1, left)


def test_a_word_longer_than_the_encoder_is_read_as_far_as_it_fits(short: SentenceEncoder) -> None:
    long = "x" * 60
    (pieces,) = short.pieces([long])
    assert len(pieces) == 60
    rows = short.predict([["alice", long, "bob"], [long]])
    assert rows[:4].any(-1).all()
    with torch.no_grad():
        close(rows[4:], read(short, [pieces[:LIMIT]]))
        close(rows[:4], naive(short, ["alice", long, "bob"]))


def test_long_sentences_of_words_without_pieces(short: SentenceEncoder) -> None:
    words = [word for pair in zip(words_of(60), EMPTY * 10, strict=True) for word in pair]
    check_windows(short, words)
    rows = short.predict([words])
    assert rows[1::2].any(-1).all()
    assert not rows[2::2].any()
    assert short.predict([[" "] * 200]).isfinite().all()


def test_a_long_sentence_does_not_change_its_neighbours(short: SentenceEncoder) -> None:
    rows = split(short.predict([["alice", "met"], words_of(90), ["bob"]]), [["alice", "met"], words_of(90), ["bob"]])
    close(rows[0], short.predict([["alice", "met"]]))
    close(rows[2], short.predict([["bob"]]))


def test_where_nothing_limits_a_sentence_is_read_whole(encoder_folders: Mapping[str, Path]) -> None:
    encoder = load(encoder_folders["deberta"])
    words = words_of(300)
    assert len(windows_of(encoder, words)) == 1
    with torch.no_grad():
        close(encoder([words]), read(encoder, encoder.pieces(words)))


# --- training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [0, 1, 60])
def test_gradients_reach_the_encoder(folder: Path, row: int) -> None:
    """From the vector of the sentence and from words of its first and last windows."""
    encoder = load(folder).train()
    rows = encoder([words_of(60), ["bob"]])
    (rows[row] * torch.arange(encoder.width)).sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert encoder.encoder.embeddings.word_embeddings.weight.grad.any()
    assert encoder.encoder.encoder.layer[0].attention.self.query.weight.grad.any()


def test_prediction_keeps_no_graph(short: SentenceEncoder) -> None:
    assert not short.predict([["alice"]]).requires_grad
    assert short([["alice"]]).requires_grad


def test_mixed_precision_is_for_training(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: True)
    plain, mixed = load(folder), load(folder, mixed_precision=True)
    sentences = [words_of(40), ["bob"]]
    close(plain.predict(sentences), mixed.predict(sentences), 1e-6)
    rows = mixed.train()(sentences)
    assert rows.dtype == torch.float32
    difference = (rows - plain.predict(sentences)).abs().max().item()
    assert 0 < difference < 0.2
    rows.sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in mixed.parameters())
    monkeypatch.setattr(precision, "computes_bfloat16", lambda device: False)
    close(mixed(sentences), plain.predict(sentences), 1e-6)


# --- files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "deberta"])
def test_files_make_the_same_encoder(encoder_folders: Mapping[str, Path], kind: str) -> None:
    bundle = load_bundle(encoder_folders[kind], mixed_precision=True)
    with torch.no_grad():
        for parameter in bundle.network.parameters():
            parameter.add_(0.01)  # as if it had been trained
    files = checkpoint.encoder_files(bundle)
    assert set(files) == {"config.json", "model.safetensors", "tokenizer.json"}
    again = checkpoint.read_encoder_files(files, mixed_precision=True)
    sentences = [*SENTENCES, words_of(200)]
    assert torch.equal(again.network.eval().predict(sentences), bundle.network.eval().predict(sentences))
    assert again.network.mixed_precision
    assert again.network.limit == bundle.network.limit
    assert checkpoint.encoder_files(again) == files
    assert all(parameter.requires_grad for parameter in again.network.parameters())
    assert str(encoder_folders[kind]) not in files["config.json"].decode()


@pytest.fixture(scope="module")
def files(folder: Path) -> dict[str, bytes]:
    return checkpoint.encoder_files(load_bundle(folder))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "spacy_ie_moe.gmoe_rte"}, "'here'.*no format 'spacy_ie_moe.sentence_encoder'"),
        ({"version": 7}, "'here' has version 7; expected one from 1 to 1"),
        ({"encoder": "bert"}, "encoder in config.json is 'bert'; expected a dict"),
        ({"pad_id": False}, "pad_id in config.json is False; expected a int"),
        ({"weights_sha256": "0"}, "model.safetensors is not the file that config.json was written for"),
    ],
)
def test_damaged_configs(files: dict[str, bytes], fields: dict[str, Any], message: str) -> None:
    config = json.dumps({**json.loads(files["config.json"]), **fields}).encode()
    with pytest.raises(ValueError, match=message):
        checkpoint.read_encoder_files({**files, "config.json": config}, "here")


def test_damaged_files(files: dict[str, bytes]) -> None:
    for name, message in (
        ("config.json", "config.json is not JSON"),
        ("model.safetensors", "model.safetensors is not the file"),
        ("tokenizer.json", "tokenizer.json is damaged"),
    ):
        with pytest.raises(ValueError, match=message):
            checkpoint.read_encoder_files({**files, name: files[name][:-9]}, "here")
    config = json.loads(files["config.json"])
    config["encoder"]["num_hidden_layers"] = 3
    with pytest.raises(ValueError, match=r"'here' do not fit its config: it lacks encoder.encoder.layer.2"):
        checkpoint.read_encoder_files({**files, "config.json": json.dumps(config).encode()}, "here")


def test_an_encoder_that_is_not_there(no_network: None, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"is no folder with an encoder and could not be had from the hub"):
        load(tmp_path / "none")
