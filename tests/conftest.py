"""Tiny random encoders and networks, so that every test runs in a bare clone."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from hypothesis import HealthCheck, settings
from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model, PreTrainedTokenizerFast

from spacy_ie_moe.glirel import checkpoint

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
torch.set_num_threads(1)  # tiny networks gain nothing from more, and several processes of tests share the cores

KINDS = ("prompt", "anchored")
NO_CHECKPOINT = "no-such-checkpoint"
LABELS = ["founder", "spouse", "located in", "works for", "part of"]
TEXT = (
    "the a of in and founded by works for lives married city company river capital located near part born to "
    "alice bob carol dave acme globex paris london berlin rome smith jones spouse founder author band album "
    "wrote met left joined sold bought moved from with his her their director film school team player mother"
)
WORDS = TEXT.split()
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"

Entity = tuple[int, int, str]


def make_tokenizer(folder: Path) -> None:
    """A BERT-like WordPiece tokenizer: ``WORDS`` are one piece each, other words are spelled in letters."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *LETTERS, *"!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~"]
    pieces += [f"##{letter}" for letter in LETTERS]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=400))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=special
    )
    names = {name: f"[{name[:-6].upper()}]" for name in ("pad_token", "unk_token", "cls_token", "sep_token")}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, mask_token="[MASK]", **names)
    fast.save_pretrained(str(folder))


def make_encoder(folder: Path, kind: str, *, positions: int = 128) -> Path:
    """A random encoder of kind "bert" or "deberta" in ``folder``, as Hugging Face saves it."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder)
    size = len(PreTrainedTokenizerFast.from_pretrained(str(folder)))
    common: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": positions,
        "initializer_range": 0.2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    torch.manual_seed(11)
    if kind == "bert":
        model: Any = BertModel(BertConfig(**common))
    else:
        relative = {"relative_attention": True, "position_buckets": 16, "pos_att_type": ["p2c", "c2p"]}
        shared = {"share_att_key": True, "norm_rel_ebd": "layer_norm", "position_biased_input": False}
        model = DebertaV2Model(DebertaV2Config(type_vocab_size=0, **common, **relative, **shared))
    model.save_pretrained(str(folder))
    return folder


def randomise(network: torch.nn.Module, *, seed: int = 5) -> None:
    """Draw what follows the encoder anew: the anchored network starts with zeros, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("encoder.") or parameter.ndim == 0:
                continue
            spread = 1.4 / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        if hasattr(network, "pair_layer"):  # a dot product of unscaled vectors would be sure of everything
            network.pair_layer.out_project[3].weight.mul_(0.15)
            network.pair_layer.out_project[3].bias.zero_()
        elif hasattr(network, "log_scale"):
            network.log_scale.fill_(0.5)
            network.bias.fill_(-2.0)


def make_checkpoint(folder: Path, kind: str, encoder: Path, **settings: Any) -> Path:
    """A network with random parameters in ``folder``, in our own format."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 48, "max_len": None} if kind == "prompt" else {"reach": 4, "role_size": 8}
    bundle = checkpoint.new(kind, encoder, settings={**sizes, "dropout": 0.0, **settings})
    randomise(bundle.network)
    bundle.labels = list(LABELS)
    checkpoint.save(bundle, folder)
    return folder


@pytest.fixture(scope="session")
def encoder_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the encoders "bert" (128 positions) and "deberta"."""
    root = tmp_path_factory.mktemp("encoders")
    return {kind: make_encoder(root / kind, kind) for kind in ("bert", "deberta")}


@pytest.fixture(scope="session")
def new_checkpoint(tmp_path_factory: pytest.TempPathFactory, encoder_folders: dict[str, Path]) -> Callable[..., Path]:
    """Makes a checkpoint: ``new_checkpoint(kind, encoder="bert", **settings)``; the same one for the same call."""
    made: dict[str, Path] = {}

    def make(kind: str, encoder: str = "bert", **settings: Any) -> Path:
        key = repr((kind, encoder, sorted(settings.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("checkpoint") / kind
            made[key] = make_checkpoint(folder, kind, encoder_folders[encoder], **settings)
        return made[key]

    return make


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Both kinds of network."""
    return request.param


@pytest.fixture
def tiny(kind: str, new_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint of each kind on BERT with 128 positions."""
    return new_checkpoint(kind)


def make_nlp(source: str | Path, **config: Any) -> Language:
    """A blank pipeline with ``glirel`` that keeps everything unless ``config`` says otherwise."""
    nlp = spacy.blank("en")
    model = {"checkpoint": str(source), **config.pop("model", {})}
    options = {"labels": LABELS, "threshold": 0, "top_k": None, **config}
    nlp.add_pipe("glirel", config={**options, "model": model})
    return nlp


def make_doc(vocab: Vocab | Language, words: str | Sequence[str], ents: Iterable[Entity] = ()) -> Doc:
    """A document with entities (start, end, type)."""
    vocab = vocab.vocab if isinstance(vocab, Language) else vocab
    doc = Doc(vocab, words=words.split() if isinstance(words, str) else list(words))
    doc.ents = [Span(doc, start, end, label=label) for start, end, label in ents]
    return doc


def random_doc(vocab: Vocab | Language, rng: random.Random, n_words: int, n_ents: int) -> Doc:
    """A document of random words with entities spread over it."""
    words = rng.choices(WORDS, k=n_words)
    starts = sorted(rng.sample(range(n_words), min(n_ents, n_words)))
    ends = [*starts[1:], n_words][: len(starts)]
    ents = [
        (start, min(end, start + rng.randint(1, 2)), rng.choice(["PER", "ORG", "LOC"]))
        for start, end in zip(starts, ends, strict=True)
    ]
    return make_doc(vocab, words, ents)


def random_docs(vocab: Vocab | Language, n: int, *, seed: int = 0, longest: int = 40) -> list[Doc]:
    """Documents of different lengths, the first ones without entities."""
    rng = random.Random(seed)
    return [random_doc(vocab, rng, rng.randint(3, longest), index % 5) for index in range(n)]


def scores_of(doc: Doc) -> dict[tuple[Any, ...], float]:
    """Scores by (head, tail, label)."""
    found = {(*r["head_pos"], *r["tail_pos"], r["label"]): r["score"] for r in doc._.relations}
    assert len(found) == len(doc._.relations), "a relation is reported twice"
    return found


def assert_same_scores(left: Doc, right: Doc, *, tolerance: float = 1e-5) -> None:
    """The two documents have the same relations with the same scores."""
    assert scores_of(left) == pytest.approx(scores_of(right), abs=tolerance)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a socket fails the test."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)


def find_fixtures() -> Path | None:
    """Where the reference's checkpoints and scores are: ``$SPACY_IE_MOE_FIXTURES``, or beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
    folder = Path(os.environ.get("SPACY_IE_MOE_FIXTURES") or beside) / "glirel"
    return folder if folder.is_dir() else None
