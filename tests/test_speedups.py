"""The faster encoders give Hugging Face's numbers, gradients and checkpoints."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model
from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

from spacy_ie_moe.speedups import (
    FastDebertaV2Encoder,
    FastLinear,
    accelerate,
    accelerate_deberta,
    accelerate_linears,
    bucket_of_distance,
)

VOCABULARY = 90
LENGTHS = (1, 2, 9, 33, 300)
VARIANTS: dict[str, dict[str, Any]] = {
    "v3-base": {"position_buckets": 256},
    "few buckets": {"position_buckets": 8},
    "more buckets": {"position_buckets": 16, "hidden_size": 64},
    "short reach": {"position_buckets": 32, "max_relative_positions": 40},
    "no buckets": {"position_buckets": -1, "max_relative_positions": 24},
    "content to position": {"position_buckets": 16, "pos_att_type": ["c2p"]},
    "position to content": {"position_buckets": 16, "pos_att_type": ["p2c"]},
    "content only": {"position_buckets": 16, "pos_att_type": []},
    "own position weights": {"position_buckets": 16, "share_att_key": False},
    "convolution": {"position_buckets": 16, "conv_kernel_size": 3},
    "plain position table": {"position_buckets": 16, "norm_rel_ebd": "none"},
}


def make_deberta(**changes: Any) -> DebertaV2Model:
    options: dict[str, Any] = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "vocab_size": VOCABULARY,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_buckets": 16,
        "position_biased_input": False,
        "type_vocab_size": 0,
        "initializer_range": 0.05,
        **changes,
    }
    torch.manual_seed(0)
    return DebertaV2Model(DebertaV2Config(**options)).eval()


def make_bert() -> BertModel:
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, vocab_size=VOCABULARY
    )
    return BertModel(config, add_pooling_layer=False).eval()


def make_batch(length: int, rows: int = 3) -> dict[str, Tensor]:
    """Rows of tokens; the second is half padding."""
    torch.manual_seed(length)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1:2, length // 2 + 1 :] = 0
    return {"input_ids": torch.randint(1, VOCABULARY, (rows, length)), "attention_mask": mask}


def encode(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The last hidden state, with zeros where there is padding."""
    with torch.inference_mode():
        return model(**batch).last_hidden_state * batch["attention_mask"][..., None]


def assert_same(actual: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_deberta_equals_hugging_face(variant: str, length: int) -> None:
    original = make_deberta(**VARIANTS[variant])
    fast = accelerate(copy.deepcopy(original))
    batch = make_batch(length)
    assert isinstance(fast.encoder, FastDebertaV2Encoder)
    assert_same(encode(fast, batch), encode(original, batch))


@pytest.mark.parametrize("variant", VARIANTS)
def test_deberta_is_exact_in_double_precision(variant: str) -> None:
    """Up to Hugging Face's scale, the square root of a float32."""
    original = make_deberta(**VARIANTS[variant]).double()
    fast = accelerate(copy.deepcopy(original))
    for length in (7, 120):
        batch = make_batch(length)
        assert_same(encode(fast, batch), encode(original, batch), 1e-8)


def test_groups_of_rows_and_heads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    original = make_deberta()
    fast = accelerate(copy.deepcopy(original))
    batch = make_batch(21, rows=5)
    for floats in (1, 21 * 33 * 3, 21 * 33 * 9):
        monkeypatch.setattr("spacy_ie_moe.speedups._BIAS_FLOATS", floats)
        assert_same(encode(fast, batch), encode(original, batch))


def test_bert_equals_hugging_face() -> None:
    original = make_bert()
    fast = accelerate(copy.deepcopy(original))
    for length in (1, 9, 80):
        batch = make_batch(length)
        assert_same(encode(fast, batch), encode(original, batch))


def test_single_row_without_mask_and_all_hidden_states() -> None:
    original = make_deberta()
    fast = accelerate(copy.deepcopy(original))
    ids = make_batch(12, rows=1)["input_ids"]
    with torch.inference_mode():
        expected = original(ids, output_hidden_states=True).hidden_states
        actual = fast(ids, output_hidden_states=True).hidden_states
        as_tuple = fast(ids, return_dict=False)
    assert len(actual) == len(expected) == 4
    for a, e in zip(actual, expected, strict=True):
        assert_same(a, e)
    assert_same(as_tuple[0], expected[-1])


def test_padding_changes_nothing() -> None:
    fast = accelerate(make_deberta())
    ids = make_batch(30, rows=1)["input_ids"]
    padded = torch.cat([ids, torch.zeros(1, 25, dtype=torch.long)], dim=1)
    alone = encode(fast, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    together = encode(fast, {"input_ids": padded, "attention_mask": (padded != 0).long()})
    assert_same(together[:, :30], alone)


def test_attention_maps_are_hugging_faces() -> None:
    original = make_deberta()
    fast = accelerate(copy.deepcopy(original))
    with torch.no_grad():
        expected = original(**make_batch(9), output_attentions=True).attentions
        actual = fast(**make_batch(9), output_attentions=True).attentions
    for a, e in zip(actual, expected, strict=True):
        assert_same(a, e)


@pytest.mark.parametrize(
    "weight",
    ["encoder.rel_embeddings.weight", "encoder.LayerNorm.bias", "encoder.layer.1.attention.self.key_proj.bias"],
)
def test_changed_weights_are_noticed(weight: str) -> None:
    original = make_deberta()
    fast = accelerate(copy.deepcopy(original))
    batch = make_batch(12)
    before = encode(fast, batch)
    for model in (original, fast):
        with torch.no_grad():
            model.get_parameter(weight).add_(torch.linspace(-1, 1, model.get_parameter(weight).shape[-1]))
    assert_same(encode(fast, batch), encode(original, batch))
    assert (encode(fast, batch) - before).abs().max() > 1e-3


def test_loaded_and_cast_weights_are_noticed() -> None:
    fast = accelerate(make_deberta())
    batch = make_batch(12)
    encode(fast, batch)
    other = make_deberta()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    fast.load_state_dict(other.state_dict())
    assert_same(encode(fast, batch), encode(other, batch))
    assert_same(encode(fast.double(), batch), encode(other.double(), batch), 1e-8)
    assert_same(encode(fast.float(), batch), encode(other.float(), batch))


@pytest.mark.parametrize("make", [make_deberta, make_bert])
@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_hugging_faces(make: Any, training: bool) -> None:
    original = make()
    fast = accelerate(copy.deepcopy(original))
    batch = make_batch(11)
    encode(fast, batch)
    for model in (original, fast):
        torch.manual_seed(1)  # the same dropout
        model.train(training)(**batch).last_hidden_state.square().sum().backward()
    gradients = dict(fast.named_parameters())
    for name, parameter in original.named_parameters():
        assert parameter.grad is None or torch.equal(gradients[name].grad, parameter.grad), name


@pytest.mark.parametrize("make", [make_deberta, make_bert])
def test_copies_pickles_and_checkpoints(make: Any) -> None:
    original = make()
    fast = accelerate(copy.deepcopy(original))
    batch = make_batch(11)
    expected = encode(fast, batch)
    assert list(fast.state_dict()) == list(original.state_dict())
    assert len(pickle.dumps(fast)) < 1.1 * len(pickle.dumps(original))
    for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert_same(encode(twin, batch), expected, 0)
        assert {type(module) for module in twin.modules()} == {type(module) for module in fast.modules()}


def test_only_known_modules_change() -> None:
    assert not accelerate_deberta(make_bert())
    assert not accelerate_deberta(make_deberta(relative_attention=False, position_biased_input=True))

    class Adapter(nn.Linear):
        pass

    model = nn.Sequential(Adapter(3, 3), nn.Linear(3, 3), nn.ReLU())
    assert accelerate_linears(model) == accelerate_linears(nn.Linear(3, 3))
    assert type(model[0]) is Adapter
    assert accelerate_linears(model) == 0


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (0, 5), (1, 5), (2, 3, 5)])
def test_linear_takes_every_shape(shape: tuple[int, ...], bias: bool) -> None:
    linear = nn.Linear(5, 4, bias=bias)
    fast = copy.deepcopy(linear)
    accelerate_linears(fast)
    x = torch.randn(*shape)
    with torch.inference_mode():
        assert_same(fast(x), linear(x))
        assert_same(fast(x.expand(3, *shape)), linear(x.expand(3, *shape)))
        assert_same(fast(torch.randn(5, 6).T), linear(torch.zeros(6, 5)), 10)
    assert fast(x).requires_grad


def test_linear_accepts_what_autocast_makes_of_it() -> None:
    fast = nn.Linear(5, 4)
    accelerate_linears(fast)
    assert isinstance(fast, nn.Linear) and type(fast) in (nn.Linear, FastLinear)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert fast(torch.randn(2, 5)).dtype == torch.bfloat16


@pytest.mark.parametrize("buckets, furthest", [(8, 24), (16, 512), (256, 512), (32, 40), (-1, 64)])
def test_buckets_are_hugging_faces(buckets: int, furthest: int) -> None:
    length = 400
    tokens = torch.zeros(length, 1)
    expected = build_relative_position(tokens, tokens, buckets, furthest)[0]
    actual = bucket_of_distance(torch.arange(1 - length, length), buckets, furthest)
    assert torch.equal(actual[length - 1 :], expected[:, 0])
    assert torch.equal(actual[:length].flip(0), expected[0])
