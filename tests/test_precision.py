"""Rounded linear layers: how far off they are, that rows do not depend on the batch, and their checkpoints."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model

from spacy_ie_moe.precision import Int8Linear, quantise_rows, to_precision
from spacy_ie_moe.speedups import accelerate

ROUNDED: list[Any] = ["bfloat16", "int8"]
RELATIVE_ERROR = {"bfloat16": 0.01, "int8": 0.02}


def make_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 8, bias=False)).eval()


def make_encoders() -> list[Any]:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes.update(intermediate_size=96, vocab_size=90)
    positions: dict[str, Any] = {"relative_attention": True, "position_buckets": 16, "share_att_key": True}
    deberta = DebertaV2Config(**sizes, **positions, pos_att_type=["p2c", "c2p"], type_vocab_size=0)
    return [BertModel(BertConfig(**sizes), add_pooling_layer=False).eval(), DebertaV2Model(deberta).eval()]


@torch.inference_mode()
def relative_error(actual: Any, expected: torch.Tensor) -> float:
    return float((actual.float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("precision", ROUNDED)
@pytest.mark.parametrize("speedup_first", [True, False])
def test_encoders_stay_close(precision: Any, speedup_first: bool) -> None:
    ids = torch.randint(1, 90, (3, 20))
    for original in make_encoders():
        model = copy.deepcopy(original)
        model = (
            to_precision(accelerate(model), precision) if speedup_first else accelerate(to_precision(model, precision))
        )
        with torch.inference_mode():
            actual, expected = model(ids).last_hidden_state, original(ids).last_hidden_state
        assert actual.dtype == torch.float32
        assert 0 < relative_error(actual, expected) < RELATIVE_ERROR[precision]


@pytest.mark.parametrize("precision", ROUNDED)
def test_rows_do_not_depend_on_the_batch(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = to_precision(make_layers(), precision)
    x = torch.randn(70, 24)
    x[3] *= 1000
    monkeypatch.setattr("spacy_ie_moe.precision._BLOCK_ELEMENTS", 400)
    with torch.inference_mode():
        together = model(x)
        alone = torch.cat([model(row[None]) for row in x])
        assert torch.equal(model(x), together)
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0.01)


@pytest.mark.parametrize("precision", ROUNDED)
@pytest.mark.parametrize("shape", [(24,), (0, 24), (2, 0, 24), (2, 3, 24)])
def test_every_shape_and_gradients_of_the_input(precision: Any, shape: tuple[int, ...]) -> None:
    original = make_layers()
    model = to_precision(copy.deepcopy(original), precision)
    x = torch.randn(*shape, requires_grad=True)
    with torch.inference_mode():
        assert model(x).shape == original(x).shape
        torch.testing.assert_close(model(x), original(x), atol=0.03, rtol=0)
    model(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


@pytest.mark.parametrize("precision", ROUNDED)
def test_checkpoints(precision: Any) -> None:
    original = make_layers()
    model = to_precision(copy.deepcopy(original), precision)
    x = torch.randn(5, 24)
    with torch.inference_mode():
        expected = model(x)
        assert list(model.state_dict()) == list(original.state_dict())
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(x), expected)
        again = to_precision(make_layers(), precision)
        again.load_state_dict({name: torch.zeros_like(w) for name, w in original.state_dict().items()})
        assert again(x).abs().max() == 0
        again.load_state_dict(original.state_dict())
        assert torch.equal(again(x), expected)
        again.load_state_dict(model.state_dict())
        torch.testing.assert_close(again(x), expected, atol=0.02, rtol=0)


def test_weights_are_a_quarter() -> None:
    model = to_precision(make_layers(), "int8")
    layer = model[0]
    assert isinstance(layer, Int8Linear)
    assert layer.weight.element_size() == 1
    torch.testing.assert_close(layer.dequantised(), make_layers()[0].weight.detach(), atol=2e-3, rtol=0)


def test_quantise_rows() -> None:
    x = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [1e4, 1.0, -1e4]])
    rounded, scale = quantise_rows(x)
    assert rounded.tolist() == [[64, -127, 32], [0, 0, 0], [127, 0, -127]]
    torch.testing.assert_close(rounded * scale, x, atol=1e4 / 250, rtol=0)


def test_errors_and_float32() -> None:
    model: Any = make_layers()
    assert to_precision(model, "float32") is model
    wrong: Any = "float16"
    with pytest.raises(ValueError, match="precision is 'float16'; expected one of float32, bfloat16, int8"):
        to_precision(model, wrong)
    with pytest.raises(ValueError, match="rounded already"):
        to_precision(to_precision(model, "int8"), "float32")
