"""The hierarchical mixture of LoRA experts: its equations, its routing, and its life in peft."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    DynamicCache,
    GPT2Config,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen2MoeConfig,
)

from spacy_ie_moe.uc_uie.adapter import CAPABILITIES, HiMoEConfig, HiMoELinear, adapter_report, register_himoe
from spacy_ie_moe.uc_uie.adapter.losses import bce_loss
from spacy_ie_moe.uc_uie.adapter.mixture import Layout, paper_weights
from spacy_ie_moe.uc_uie.adapter.routing import Record

from .test_benchmarks import run

VOCABULARY = 64
LENGTH, INSTRUCTION = 12, 5
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
LINEARS = 6
SETTINGS: dict[str, dict[str, Any]] = {
    "paper": {},
    "hard": {"router": "hard"},
    "flat": {"router": "flat"},
    "no shared expert": {"shared_expert": False},
    "one sub-expert": {"sub_experts": 1},
    "eight sub-experts": {"sub_experts": 8, "r": 2, "alpha": 3.0},
    "plain LoRA": {"capabilities": ()},
    "flat, no shared expert": {"router": "flat", "shared_expert": False, "capabilities": ("judging", "locating")},
    **{
        "".join(name[0].upper() for name in names): {"capabilities": names}
        for count in (1, 2)
        for names in itertools.combinations(CAPABILITIES, count)
    },
}


def make_base(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SMALL, "eos_token_id": None, **changes})).eval()


def randomise(model: Any, adapter: str = "default", *, seed: int = 1) -> None:
    """Draw an adapter anew: its A start at zero, which would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(f".{adapter}"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def adapt(base: Any = None, **settings: Any) -> Any:
    """A model with a random adapter."""
    model = get_peft_model(make_base() if base is None else base, HiMoEConfig(**settings)).eval()
    randomise(model)
    return model


def draw(*shape: int, seed: int = 2) -> Tensor:
    """Random token ids."""
    return torch.randint(3, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))


def first(ids: Tensor, count: int = INSTRUCTION) -> Tensor:
    """The mask of an instruction of ``count`` tokens at the start of every row."""
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    mask[:, :count] = True
    return mask


def routing_of(model: Any, ids: Tensor) -> dict[str, Tensor]:
    """What a call of the model needs, whatever router it has."""
    if model.base_model._config.router == "hard":
        return {"routes": torch.tensor([[1.0, 1.0, 0.0]]).expand(len(ids), -1)}
    return {"instruction_mask": first(ids)}


@torch.no_grad()
def logits_of(model: Any, ids: Tensor, **kwargs: Any) -> Tensor:
    return model(input_ids=ids, **(kwargs or routing_of(model, ids))).logits


# The equations


@pytest.mark.parametrize("name", SETTINGS)
def test_a_new_adapter_changes_nothing(name: str) -> None:
    base, ids = make_base(), draw(2, LENGTH)
    expected = base(ids).logits
    model = get_peft_model(base, HiMoEConfig(**SETTINGS[name])).eval()
    assert torch.equal(logits_of(model, ids), expected)


@pytest.mark.parametrize("name", SETTINGS)
def test_fused_equals_the_equations_written_out(name: str) -> None:
    model, ids = adapt(**SETTINGS[name]), draw(3, LENGTH)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(layer: HiMoELinear, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen[layer.name] = inputs[0], output

    hooks = [layer.register_forward_hook(keep) for layer in model.base_model.layers]
    routing = routing_of(model, ids)
    logits_of(model, ids, **routing)
    with_gradients = model(input_ids=ids, **routing).logits.detach()
    assert len(seen) == len(hooks) == LINEARS
    for layer in model.base_model.layers:
        hidden, output = seen[layer.name]
        for row in range(len(ids)):
            expected = written_out(layer, model.peft_config["default"], hidden[row].detach(), routing, row)
            torch.testing.assert_close(output[row].detach(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(with_gradients, logits_of(model, ids, **routing), rtol=0, atol=2e-6)


def written_out(layer: HiMoELinear, config: Any, H: Tensor, routing: dict[str, Tensor], row: int) -> Tensor:
    """Eq. 2 to 9 one expert after the other, of one row [L, d], in double precision."""
    w = {name: matrix.detach().double() for name, matrix in layer.paper_weights("default").items()}
    W_0, H = layer.base_layer.weight.double(), H.double()
    alpha_over_r = config.alpha / config.r
    delta = torch.zeros(len(H), len(W_0), dtype=torch.double)
    if config.shared_expert:
        B, A = w["S.B"].t(), w["S.A"]
        assert B.shape == (H.shape[1], config.r) and A.shape == (config.r, len(W_0))
        delta += alpha_over_r * H @ B @ A  # eq. 2
    if config.router == "soft" and config.capabilities:
        h_inst = H[routing["instruction_mask"][row]].mean(0)
        gates = torch.sigmoid(w["G.W"] @ h_inst + w["G.b"])  # eq. 3
    elif config.router == "hard":
        gates = routing["routes"][row][[CAPABILITIES.index(name) for name in config.capabilities]].double()
    else:
        gates = torch.ones(1, dtype=torch.double)
    groups = ("all",) if config.router == "flat" else config.capabilities
    for t, h_t in enumerate(H):
        for g_i, name in zip(gates, groups, strict=False):
            g = torch.softmax(w[f"{name}.W"] @ h_t + w[f"{name}.b"], 0)  # eq. 6
            expert = sum(
                g[q] * alpha_over_r * h_t @ w[f"{name}.B"][q].t() @ w[f"{name}.A"][q]  # eq. 5 and 7
                for q in range(len(g))
            )
            delta[t] += g_i * expert  # eq. 9
    return (H @ W_0.t() + delta).float()


def test_thirteen_experts_and_their_names() -> None:
    layer = adapt().base_model.layers[2]
    shapes = {name: tuple(matrix.shape) for name, matrix in layer.paper_weights("default").items()}
    assert layer.name.endswith("down_proj")
    mixtures = {f"{i}.{m}" for i in CAPABILITIES for m in "BAWb"}
    assert shapes.keys() == {"S.B", "S.A", "G.W", "G.b"} | mixtures
    assert shapes["S.B"] == (4, 48) and shapes["S.A"] == (4, 32) and shapes["G.W"] == (3, 48) and shapes["G.b"] == (3,)
    assert shapes["locating.B"] == (4, 4, 48) and shapes["locating.A"] == (4, 4, 32)
    assert shapes["locating.W"] == (4, 48) and shapes["locating.b"] == (4,)


def test_routers_start_as_configured() -> None:
    zeros = get_peft_model(make_base(), HiMoEConfig(router_init="zeros")).eval()
    ids = draw(2, LENGTH)
    logits_of(zeros, ids)
    assert torch.equal(zeros.base_model.gates, torch.full((LINEARS, 2, 3), 0.5))
    assert all(torch.equal(w, torch.full_like(w, 0.25)) for w in zeros.base_model.sub_expert_weights().values())
    kaiming = get_peft_model(make_base(), HiMoEConfig()).eval()
    for layer in kaiming.base_model.layers:
        down, up, bias = layer.parameters_of("default")
        bound = 1 / math.sqrt(layer.base_layer.in_features)
        assert bias is not None and not up.any()
        for drawn in (down, bias):
            drawn = drawn.detach()
            assert drawn.abs().max() <= bound and drawn.abs().mean() == pytest.approx(bound / 2, rel=0.4)


def test_dropout_is_for_training() -> None:
    model, ids = adapt(dropout=0.5), draw(1, LENGTH)
    without = adapt()
    assert torch.equal(logits_of(model, ids), logits_of(without, ids))
    model.train()
    torch.manual_seed(0)
    one, two = logits_of(model, ids), logits_of(model, ids)
    assert not torch.allclose(one, two)


# Gates


def test_gates_depend_on_the_instruction_only() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    logits_of(model, ids)
    gates = model.base_model.gates
    other_text = ids.clone()
    other_text[:, INSTRUCTION:] = draw(2, LENGTH - INSTRUCTION, seed=9)
    logits_of(model, other_text)
    assert torch.equal(model.base_model.gates, gates)
    other_instruction = ids.clone()
    other_instruction[0, 1] = (ids[0, 1] + 1) % VOCABULARY
    logits_of(model, other_instruction)
    changed = (model.base_model.gates - gates).abs().amax((0, 2))
    assert changed[0] > 1e-4 and changed[1] < 1e-6
    assert gates.shape == (LINEARS, 2, 3) and not gates.requires_grad


def test_batches_may_mix_instructions() -> None:
    model = adapt()
    rows = [draw(1, LENGTH, seed=seed) for seed in range(4)]
    masks = [first(ids, count) for ids, count in zip(rows, (1, 4, 7, LENGTH), strict=True)]
    together = logits_of(model, torch.cat(rows), instruction_mask=torch.cat(masks))
    for row, (ids, mask) in enumerate(zip(rows, masks, strict=True)):
        alone = logits_of(model, ids, instruction_mask=mask)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=2e-6)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["paper", "flat"])
def test_padded_rows_equal_unpadded(side: str, name: str) -> None:
    model, ids, padding = adapt(**SETTINGS[name]), draw(1, LENGTH), 5
    alone = logits_of(model, ids, instruction_mask=first(ids))
    weights = model.base_model.sub_expert_weights()
    losses = model.base_model.auxiliary_losses(torch.ones(1, 3))
    start = padding if side == "left" else 0
    real = slice(start, start + LENGTH)
    padded, mask, instruction = draw(2, LENGTH + padding, seed=5), torch.ones(2, LENGTH + padding), None
    padded[0, real] = ids[0]
    mask[0] = 0
    mask[0, real] = 1
    instruction = first(padded)
    instruction[0] = False
    instruction[0, start : start + INSTRUCTION] = True
    positions = (mask.cumsum(-1) - 1).clamp(min=0).long()
    rows = {"attention_mask": mask, "instruction_mask": instruction, "position_ids": positions}
    together = logits_of(model, padded, **rows)
    torch.testing.assert_close(together[:1, real], alone, rtol=0, atol=2e-6)
    for group, read in model.base_model.sub_expert_weights().items():
        torch.testing.assert_close(read[:, 0], weights[group][:, 0], rtol=0, atol=1e-6)
    logits_of(model, padded[:1], **{key: value[:1] for key, value in rows.items()})
    for loss, value in model.base_model.auxiliary_losses(torch.ones(1, 3)).items():
        torch.testing.assert_close(value, losses[loss], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["paper", "hard", "flat", "JA", "plain LoRA"])
def test_cached_greedy_decoding_equals_full_recomputation(name: str) -> None:
    model, ids, new = adapt(**SETTINGS[name]), draw(2, LENGTH), 6
    routing = routing_of(model, ids)
    generated = model.generate(
        input_ids=ids, max_new_tokens=new, do_sample=False, pad_token_id=0, output_logits=True,
        return_dict_in_generate=True, **routing,
    )  # fmt: skip
    whole = ids
    for step in range(new):
        if "instruction_mask" in routing:
            routing = {"instruction_mask": first(whole)}
        logits = logits_of(model, whole, **routing)[:, -1]
        torch.testing.assert_close(generated.logits[step], logits, rtol=0, atol=5e-6)
        whole = torch.cat([whole, logits.argmax(-1, keepdim=True)], 1)
    assert torch.equal(generated.sequences, whole)


def test_left_padded_generation_equals_one_by_one() -> None:
    model, short = adapt(), draw(1, LENGTH - 4)
    long = draw(1, LENGTH, seed=8)
    ids = torch.cat([F.pad(short, (4, 0)), long])
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    instruction = first(ids)
    instruction[0] = False
    instruction[0, 4 : 4 + INSTRUCTION] = True
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    together = model.generate(input_ids=ids, attention_mask=mask, instruction_mask=instruction, **options)
    for row, alone in ((0, short), (1, long)):
        expected = model.generate(input_ids=alone, instruction_mask=first(alone), **options)
        assert torch.equal(together[row, -5:], expected[0, -5:])


@pytest.mark.parametrize("name", ["paper", "hard"])
def test_a_prompt_may_come_in_pieces(name: str) -> None:
    model, ids = adapt(**SETTINGS[name]), draw(2, LENGTH)
    routing = routing_of(model, ids)
    whole, gates = logits_of(model, ids, **routing), model.base_model.gates
    cache, pieces = DynamicCache(), []
    for start, end in ((0, 7), (7, 8), (8, LENGTH)):
        piece: dict[str, Any] = {"past_key_values": cache, "use_cache": True}
        if start == 0:
            piece |= {key: value[:, :7] for key, value in routing.items()}
        pieces.append(logits_of(model, ids[:, start:end], **piece))
        torch.testing.assert_close(model.base_model.gates, gates, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=5e-6)


def test_generation_with_a_prompt_in_pieces() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    expected = model.generate(input_ids=ids, instruction_mask=first(ids), **options)
    assert torch.equal(
        model.generate(input_ids=ids, instruction_mask=first(ids), prefill_chunk_size=INSTRUCTION, **options), expected
    )
    with pytest.raises(ValueError, match=r"goes on behind the first piece of the prompt, which has 4 tokens"):
        model.generate(input_ids=ids, instruction_mask=first(ids), prefill_chunk_size=4, **options)


def test_one_token_instructions_are_no_decoding() -> None:
    """What tells reading from writing is the mask, not the length."""
    model, ids = adapt(), draw(1, 1)
    logits_of(model, ids, instruction_mask=first(ids))
    gates = model.base_model.gates
    logits_of(model, draw(1, 1, seed=7), instruction_mask=first(ids))
    assert (model.base_model.gates - gates).abs().max() > 1e-4


def test_gates_and_cache_of_an_instruction_serve_many_texts() -> None:
    model, ids = adapt(), draw(3, LENGTH)
    ids[:] = torch.cat([ids[:1, :INSTRUCTION].expand(3, -1), ids[:, INSTRUCTION:]], 1)
    expected = logits_of(model, ids)
    cache = DynamicCache()
    logits_of(
        model, ids[:1, :INSTRUCTION], past_key_values=cache, use_cache=True,
        instruction_mask=torch.ones(1, INSTRUCTION),
    )  # fmt: skip
    gates = model.base_model.gates
    assert gates.shape == (LINEARS, 1, 3)
    logits_of(model, draw(2, 4), instruction_mask=first(draw(2, 4), 2))  # another instruction in between
    model.base_model.set_gates(gates)
    cache.batch_repeat_interleave(3)
    texts = ids[:, INSTRUCTION:]
    got = logits_of(model, texts, past_key_values=copy.deepcopy(cache), use_cache=True)
    torch.testing.assert_close(got, expected[:, INSTRUCTION:], rtol=0, atol=5e-6)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "num_beams": 2}
    with_prefix = model.generate(
        input_ids=ids, past_key_values=_beams(cache, 2), attention_mask=torch.ones_like(ids), **options
    )
    assert torch.equal(with_prefix, model.generate(input_ids=ids, instruction_mask=first(ids), **options))
    with pytest.raises(ValueError, match="instruction_mask is given beside past_key_values"):
        model.generate(input_ids=ids, past_key_values=cache, instruction_mask=first(ids), **options)


def _beams(cache: DynamicCache, beams: int) -> DynamicCache:
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(beams)
    return copied


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}])
def test_beam_search(options: dict[str, int]) -> None:
    model, ids = adapt(), torch.cat([draw(1, LENGTH), draw(1, LENGTH, seed=4)])
    common: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, **options}
    together = model.generate(input_ids=ids, instruction_mask=first(ids), **common)
    alone = [model.generate(input_ids=row[None], instruction_mask=first(row[None]), **common) for row in ids]
    assert torch.equal(together, torch.cat(alone))
    logits_of(model, ids)
    assert torch.equal(together, model.generate(input_ids=ids, **common)), "kept gates, one row for all its beams"


def test_gates_can_be_set_and_cleared() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    expected = logits_of(model, ids)
    gates = model.base_model.gates
    model.base_model.clear_gates()
    with pytest.raises(ValueError, match="no gates yet in this thread"):
        model.base_model.gates  # noqa: B018
    with pytest.raises(ValueError, match=r"no gates yet in this thread; expected instruction_mask= \[B, L\]"):
        model(input_ids=ids)
    model.base_model.set_gates(gates)
    assert torch.equal(logits_of(model, ids, use_cache=False), expected)
    assert torch.equal(model.base_model.gates, gates)
    with pytest.raises(ValueError, match="gates of 2 rows for a batch of 4; expected as many"):
        model(input_ids=draw(4, LENGTH))
    with pytest.raises(ValueError, match=r"gates have the shape \(2, 3\); expected \[6, B, 3\]"):
        model.base_model.set_gates(gates[0])


def test_routes_are_the_gates() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    routes = torch.tensor([[1, 0, 0], [0, 1, 1]])
    given = logits_of(model, ids, routes=routes, instruction_mask=first(ids))
    assert torch.equal(model.base_model.gates, routes.float().expand(LINEARS, -1, -1))
    decoded = logits_of(model, ids, use_cache=False)
    assert torch.equal(given, decoded)
    hard = adapt(router="hard")
    with pytest.raises(ValueError, match=r"router is 'hard'; expected routes= \[B, 3\]"):
        hard(input_ids=ids, instruction_mask=first(ids))


def test_gates_of_few_capabilities_keep_their_columns() -> None:
    model, ids = adapt(capabilities=("associating", "judging")), draw(2, LENGTH)
    assert model.peft_config["default"].capabilities == ("judging", "associating")
    expected = logits_of(model, ids)
    gates = model.base_model.gates
    assert not gates[..., 1].any() and (gates[..., [0, 2]] > 0).all()
    model.base_model.set_gates(gates)
    assert torch.equal(logits_of(model, ids, use_cache=False), expected)
    routes = torch.tensor([[1.0, 0.0, 0.0]])
    changed = torch.tensor([[1.0, 1.0, 0.0]])
    assert torch.equal(logits_of(model, ids, routes=routes), logits_of(model, ids, routes=changed))


@pytest.mark.parametrize("name", ["flat", "plain LoRA"])
def test_without_gates_no_routing_is_needed(name: str) -> None:
    model, ids = adapt(**SETTINGS[name]), draw(2, LENGTH)
    expected = logits_of(model, ids)
    model.base_model.clear_gates()
    assert torch.equal(logits_of(model, ids, use_cache=False), expected)
    gates = model.base_model.gates
    assert gates.shape == (LINEARS, 1, 3) and not gates.any()
    model.base_model.set_gates(gates)
    assert torch.equal(logits_of(model, ids, routes=torch.ones(2, 3)), expected)


def test_calls_are_checked() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    empty = first(ids)
    empty[1] = False
    with pytest.raises(ValueError, match="instruction_mask has no token in row 1"):
        model(input_ids=ids, instruction_mask=empty)
    with pytest.raises(ValueError, match=r"instruction_mask has the shape \(2, 4\); expected \(2, 12\)"):
        model(input_ids=ids, instruction_mask=first(ids[:, :4]))
    with pytest.raises(ValueError, match=r"routes has the shape \(2, 2\); expected \[2, 3\]"):
        model(input_ids=ids, routes=torch.ones(2, 2))
    with pytest.raises(ValueError, match="attention_mask is no matrix"):
        model(input_ids=ids, instruction_mask=first(ids), attention_mask=torch.ones(2, 1, LENGTH, LENGTH))


def test_vectors_in_place_of_ids() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    expected = logits_of(model, ids)
    vectors = model.get_input_embeddings()(ids)
    got = model(inputs_embeds=vectors, instruction_mask=first(ids)).logits
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="neither input_ids nor inputs_embeds"):
        model(instruction_mask=first(ids))


def test_threads_have_calls_of_their_own() -> None:
    model = adapt()
    prompts = [draw(1, LENGTH, seed=seed) for seed in range(4)]
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    expected = [model.generate(input_ids=ids, instruction_mask=first(ids), **options) for ids in prompts]
    gates = []
    for ids in prompts:
        logits_of(model, ids)
        gates.append(model.base_model.gates)
    barrier = Barrier(len(prompts))

    def work(index: int) -> tuple[Tensor, Tensor]:
        logits_of(model, prompts[index])
        barrier.wait()  # now every thread has its own gates
        kept = model.base_model.gates
        written = model.generate(input_ids=prompts[index], **options)
        return kept, written

    with ThreadPoolExecutor(len(prompts)) as pool:
        results = list(pool.map(work, range(len(prompts))))
    for (kept, written), own, tokens in zip(results, gates, expected, strict=True):
        assert torch.equal(kept, own) and torch.equal(written, tokens)


# Losses and read-outs


def test_bce_is_equation_4() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    labels = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    model(input_ids=ids, instruction_mask=first(ids))
    losses = model.base_model.auxiliary_losses(labels)
    g = model.base_model.gates
    by_hand = -(labels * g.log() + (1 - labels) * (1 - g).log()).sum(-1)
    torch.testing.assert_close(losses["bce"], by_hand.mean(), rtol=1e-5, atol=0)
    assert losses["bce"].requires_grad
    assert model.base_model.auxiliary_losses()["bce"] == 0
    model(input_ids=ids, routes=labels)
    assert model.base_model.auxiliary_losses(labels)["bce"] == 0, "no router has computed anything"
    summed = adapt(adapter_reduction="sum")
    summed(input_ids=ids, instruction_mask=first(ids))
    sums = summed.base_model.auxiliary_losses(labels)
    for name, loss in losses.items():
        torch.testing.assert_close(sums[name], LINEARS * loss, rtol=1e-5, atol=0)


def test_bce_of_sure_gates_is_finite() -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = bce_loss([Record(logits, torch.zeros(1))], torch.tensor([[0.0, 1.0]]), "mean")
    loss.backward()
    assert loss == 400 and logits.grad is not None
    assert torch.equal(logits.grad, torch.tensor([[1.0, -1.0]]))


def test_entropy_is_equation_8() -> None:
    """Over the tokens of the batch that are no padding, of the rows that take a capability."""
    model, ids = adapt(), draw(3, LENGTH)
    labels = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    mask = torch.ones(3, LENGTH)
    mask[0, 9:] = 0
    seen: dict[str, Tensor] = {}
    hooks = [layer.register_forward_hook(lambda m, i, o: seen.__setitem__(m.name, i[0])) for layer in
             model.base_model.layers]  # fmt: skip
    model(input_ids=ids, instruction_mask=first(ids), attention_mask=mask)
    assert len(hooks) == len(seen)
    total = 0.0
    for layer in model.base_model.layers:
        w = layer.paper_weights("default")
        for index, name in enumerate(CAPABILITIES):
            tokens = [seen[layer.name][row, t] for row in range(3) for t in range(LENGTH)
                      if labels[row, index] and mask[row, t]]  # fmt: skip
            if not tokens:
                continue
            p = sum(torch.softmax(w[f"{name}.W"] @ h + w[f"{name}.b"], 0) for h in tokens) / len(tokens)
            total += (p * p.log()).sum().item()
    got = model.base_model.auxiliary_losses(labels)["entropy"]
    assert got.item() == pytest.approx(total / LINEARS, rel=1e-5)
    got.backward()
    for layer in model.base_model.layers:
        down, _, bias = layer.parameters_of("default")
        assert torch.isfinite(down.grad).all()
    assert bias.grad[:8].abs().min() > 0 and not bias.grad[8:12].any(), "no row takes associating"


def test_entropy_is_least_where_all_sub_experts_get_the_same() -> None:
    for settings, least in (({}, -3 * math.log(4)), ({"router": "flat"}, -math.log(12)), ({"sub_experts": 1}, 0.0)):
        model = get_peft_model(make_base(), HiMoEConfig(router_init="zeros", **settings))
        model(input_ids=draw(2, LENGTH), instruction_mask=first(draw(2, LENGTH)))
        tuner: Any = model.base_model
        assert tuner.auxiliary_losses()["entropy"].item() == pytest.approx(least, abs=1e-5)
    uneven = adapt()
    uneven(input_ids=draw(2, LENGTH), instruction_mask=first(draw(2, LENGTH)))
    assert -3 * math.log(4) < uneven.base_model.auxiliary_losses()["entropy"] < 0


def test_entropy_without_the_answer() -> None:
    ids = draw(2, LENGTH)
    labels = ids.clone()
    labels[:, :8] = -100
    model, prompts = adapt(entropy_over="prompt"), adapt()
    prompts(input_ids=ids[:, :8], instruction_mask=first(ids[:, :8]))
    expected = prompts.base_model.auxiliary_losses()["entropy"]
    model(input_ids=ids, instruction_mask=first(ids), labels=labels)
    torch.testing.assert_close(model.base_model.auxiliary_losses()["entropy"], expected, rtol=0, atol=1e-6)
    model(input_ids=ids, instruction_mask=first(ids), loss_mask=labels != -100)
    torch.testing.assert_close(model.base_model.auxiliary_losses()["entropy"], expected, rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="loss_mask has the shape"):
        model(input_ids=ids, instruction_mask=first(ids), loss_mask=labels[:, 1:] != -100)


def test_routes_say_which_capabilities_are_active() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    routes = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    model(input_ids=ids, routes=routes)
    by_routes = model.base_model.auxiliary_losses()["entropy"]
    only = -math.log(4)
    assert only <= by_routes < 0 and torch.equal(by_routes, model.base_model.auxiliary_losses(routes)["entropy"])


def test_stage_1_trains_the_shared_expert_and_that_of_the_capability() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    model(input_ids=ids, labels=ids, routes=torch.tensor([[0.0, 1.0, 0.0]])).loss.backward()
    for layer in model.base_model.layers:
        down, up, bias = layer.parameters_of("default")
        grads = paper_weights(down.grad, up.grad, bias.grad, layer.layout)
        trained = {name.split(".")[0] for name, grad in grads.items() if grad.any()}
        assert trained == {"S", "locating"}


def test_sub_expert_weights_for_heat_maps() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    logits_of(model, ids)
    weights = model.base_model.sub_expert_weights()
    assert list(weights) == list(CAPABILITIES)
    for read in weights.values():
        assert read.shape == (LINEARS, 2, 4)
        torch.testing.assert_close(read.sum(-1), torch.ones(LINEARS, 2))
    flat = adapt(router="flat")
    logits_of(flat, ids, instruction_mask=first(ids))
    assert flat.base_model.sub_expert_weights()["all"].shape == (LINEARS, 2, 12)
    plain = adapt(capabilities=())
    logits_of(plain, ids, instruction_mask=first(ids))
    assert plain.base_model.sub_expert_weights() == {}
    assert plain.base_model.auxiliary_losses(torch.ones(2, 3)) == {"bce": 0, "entropy": 0}
    logits_of(model, ids[:, :1], use_cache=False)  # decoding leaves nothing to read
    with pytest.raises(ValueError, match="recorded nothing"):
        model.base_model.sub_expert_weights()


# Training


def gradients(model: Any, steps: int, *, auxiliary: bool = True) -> dict[str, Tensor]:
    """Gradients of a total loss (eq. 10) over some forwards before one backward."""
    model.train()
    model.zero_grad()
    total: Any = 0
    for step in range(steps):
        ids = draw(2, LENGTH, seed=20 + step)
        mask = first(ids, 3 + step)
        output = model(input_ids=ids, labels=ids, instruction_mask=mask, use_cache=False)
        total = total + output.loss
        if auxiliary:
            total = total + sum(model.base_model.auxiliary_losses(torch.tensor([[1.0, 1.0, 0.0]] * 2)).values())
    total.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", ["paper", "flat", "JA"])
def test_gradient_checkpointing_changes_no_gradient(steps: int, name: str) -> None:
    model, checkpointed = adapt(**SETTINGS[name]), adapt(**SETTINGS[name])
    checkpointed.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs=checkpointed.base_model.checkpointing_kwargs()
    )
    expected, got = gradients(model, steps), gradients(checkpointed, steps)
    assert got.keys() == expected.keys() and len(got) == 3 * LINEARS
    for parameter, grad in expected.items():
        assert torch.equal(got[parameter], grad), parameter
    calls: list[str] = []
    for layer in checkpointed.base_model.layers:
        layer.register_forward_pre_hook(lambda module, inputs: calls.append(module.name))
    gradients(checkpointed, steps)
    assert len(calls) == 2 * steps * LINEARS, "once more for the gradients"


@pytest.mark.parametrize("optimiser", [{}, {"fused": True}, {"foreach": True}])
def test_steps_are_seen_at_once(optimiser: dict[str, bool]) -> None:
    """Prediction, training in place and prediction again: nothing old is used."""
    model, ids = adapt(), draw(2, LENGTH)
    before = logits_of(model, ids)
    adam = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2, **optimiser)
    gradients(model, 1)
    adam.step()
    model.eval()
    after = logits_of(model, ids)
    assert (after - before).abs().max() > 1e-3
    fresh = get_peft_model(make_base(), HiMoEConfig()).eval()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(logits_of(fresh, ids), after)


def test_only_the_adapter_is_trained() -> None:
    model = adapt()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trainable) == 3 * LINEARS and all(".himoe_" in name for name in trainable)
    gradients(model, 1)
    assert {name for name, p in model.named_parameters() if p.grad is not None} == trainable


@pytest.mark.parametrize("name", ["paper", "flat"])
def test_a_bfloat16_base_with_a_float32_adapter(name: str) -> None:
    ids = draw(2, LENGTH)
    expected = logits_of(adapt(**SETTINGS[name]), ids)
    model = adapt(make_base().to(torch.bfloat16), **SETTINGS[name])
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    got = logits_of(model, ids)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, rtol=0.1, atol=0.1)
    assert all(grad.dtype == torch.float32 and torch.isfinite(grad).all() for grad in gradients(model, 1).values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast(dtype: torch.dtype) -> None:
    ids = draw(2, LENGTH)
    expected = logits_of(adapt(), ids)
    model = adapt(make_base().to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        got = logits_of(model, ids)
        grads = gradients(model, 1)
    torch.testing.assert_close(got.float(), expected, rtol=0.1, atol=0.1)
    reference = gradients(adapt(), 1)
    for parameter, grad in grads.items():
        assert grad.dtype == torch.float32
        assert F.cosine_similarity(grad.flatten(), reference[parameter].flatten(), dim=0) > 0.95, parameter


def test_an_adapter_in_bfloat16() -> None:
    model = get_peft_model(make_base().to(torch.bfloat16), HiMoEConfig(), autocast_adapter_dtype=False)
    ids = draw(2, LENGTH)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    model.eval()
    assert torch.isfinite(logits_of(model, ids)).all()
    assert len(gradients(model, 1)) == 3 * LINEARS


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_quantised_base_layers(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    make_base(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    quantisation = BitsAndBytesConfig(
        load_in_4bit=bits == 4, load_in_8bit=bits == 8, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(tmp_path, quantization_config=quantisation, device_map={"": "cpu"})
    assert type(base.model.layers[0].mlp.up_proj).__name__ == ("Linear4bit" if bits == 4 else "Linear8bitLt")
    model, ids = adapt(base), draw(2, LENGTH)
    grads = gradients(model, 1)  # before any prediction, after which bitsandbytes' 4-bit layers have none on a CPU
    assert len(grads) == 3 * LINEARS and all(torch.isfinite(grad).all() for grad in grads.values())
    assert all(grad.any() for grad in grads.values())
    model.eval()
    expected = logits_of(model, ids)
    gates = model.base_model.gates
    with model.disable_adapter():
        assert (logits_of(model, ids) - expected).abs().max() > 1e-3
    logits_of(model, ids)
    generated = model.generate(input_ids=ids, instruction_mask=first(ids), max_new_tokens=3, pad_token_id=0)
    assert generated.shape == (2, LENGTH + 3)
    with model.base_model.specialise(gates[:, 0]) as _:
        got = logits_of(model, ids[:1], use_cache=False)
    torch.testing.assert_close(got, expected[:1], rtol=0, atol=1e-3)


# Life in peft


def test_reloaded_adapters_are_the_same(tmp_path: Path) -> None:
    ids = draw(2, LENGTH)
    for name, settings in SETTINGS.items():
        model, folder = adapt(**settings), tmp_path / name
        expected = logits_of(model, ids)
        model.save_pretrained(folder)
        assert {file.name for file in folder.iterdir()} == {
            "README.md", "adapter_config.json", "adapter_model.safetensors"
        }  # fmt: skip
        tensors = load_file(folder / "adapter_model.safetensors")
        assert all(".himoe_" in key and not key.endswith("default") for key in tensors)
        for low_memory in (False, True):
            again = PeftModel.from_pretrained(make_base(), folder, low_cpu_mem_usage=low_memory).eval()
            config: Any = again.peft_config["default"]
            original: Any = model.peft_config["default"]
            assert config.capabilities == original.capabilities and Layout.of(config) == Layout.of(original)
            assert torch.equal(logits_of(again, ids), expected), name
    config = PeftConfig.from_pretrained(tmp_path / "paper")
    assert isinstance(config, HiMoEConfig) and config.peft_type == "HIMOE" and config.inference_mode
    assert set(config.target_modules) == {"gate_proj", "up_proj", "down_proj"}


def test_several_adapters() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    expected = {"default": logits_of(model, ids)}
    others: dict[str, dict[str, Any]] = {
        "two": {"sub_experts": 2, "capabilities": ("locating",), "r": 3},
        "flat": {"router": "flat"},
        "upper": {"layers_to_transform": [1], "shared_expert": False},
    }
    for seed, (name, settings) in enumerate(others.items(), start=5):
        model.add_adapter(name, HiMoEConfig(**settings))
        randomise(model, name, seed=seed)
        alone = get_peft_model(make_base(), HiMoEConfig(**settings)).eval()
        randomise(alone, seed=seed)
        expected[name] = logits_of(alone, ids)
    assert torch.equal(logits_of(model, ids), expected["default"])
    for name in ("flat", "upper", "two", "default", "upper"):
        model.set_adapter(name)
        assert torch.equal(logits_of(model, ids), expected[name]), name
        assert len(model.base_model.gates) == len(model.base_model.layers) == (3 if name == "upper" else LINEARS)
        assert {n.rpartition(".")[2] for n, p in model.named_parameters() if p.requires_grad} == {name}
    model.set_adapter("two")
    with pytest.raises(ValueError, match="no gates yet"):
        model(input_ids=ids)
    with pytest.raises(ValueError, match="expected one, as gates are those of a single HiMoE adapter"):
        model.base_model.set_adapter(["two", "default"])
    model.set_adapter("default")
    model.delete_adapter("two")
    assert torch.equal(logits_of(model, ids), expected["default"])
    assert set(model.peft_config) == {"default", "flat", "upper"}
    with pytest.warns(UserWarning, match="default was active which is now deleted"):
        model.delete_adapter("default")


def test_the_base_comes_back() -> None:
    base, ids = make_base(), draw(2, LENGTH)
    expected, state = base(ids).logits, {k: v.clone() for k, v in base.state_dict().items()}
    model = adapt(base)
    with model.disable_adapter():
        assert torch.equal(logits_of(model, ids), expected)
        assert torch.equal(model(input_ids=ids).logits, expected), "without an adapter no routing is needed"
    assert not torch.allclose(logits_of(model, ids), expected)
    unloaded = model.unload()
    assert torch.equal(unloaded(ids).logits, expected)
    assert not any(isinstance(module, HiMoELinear) for module in unloaded.modules())
    assert not unloaded._forward_pre_hooks
    assert unloaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in unloaded.state_dict().items())


def test_merging_is_refused() -> None:
    model = adapt()
    calls = (model.merge_adapter, model.merge_and_unload, model.base_model.layers[0].merge)
    for call in calls:
        with pytest.raises(ValueError, match=r"cannot be merged .* for every token .* specialise\(gates\)"):
            call()
    assert torch.isfinite(logits_of(model, draw(2, LENGTH))).all()


def test_other_modules_can_be_saved_and_layers_chosen(tmp_path: Path) -> None:
    settings = {"modules_to_save": ["norm"], "layers_to_transform": 0, "layers_pattern": "layers",
                "exclude_modules": ["up_proj"]}  # fmt: skip
    model, ids = adapt(**settings), draw(2, LENGTH)
    names = [layer.name for layer in model.base_model.layers]
    assert names == ["model.layers.0.mlp.gate_proj", "model.layers.0.mlp.down_proj"]
    with torch.no_grad():
        model.base_model.model.model.norm.modules_to_save["default"].weight.mul_(1.5)
    expected = logits_of(model, ids)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(make_base(), tmp_path).eval()
    assert torch.equal(logits_of(again, ids), expected)


def test_transformers_cannot_load_it_without_a_tuner(tmp_path: Path) -> None:
    adapt().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="Please use `get_peft_model` instead"):
        make_base().load_adapter(str(tmp_path))


def test_registration_is_idempotent_and_exclusive(monkeypatch: pytest.MonkeyPatch) -> None:
    register_himoe()
    register_himoe()
    assert PEFT_TYPE_TO_CONFIG_MAPPING["HIMOE"] is HiMoEConfig  # type: ignore[index]
    monkeypatch.setitem(PEFT_TYPE_TO_CONFIG_MAPPING, "HIMOE", LoraConfig)
    with pytest.raises(RuntimeError, match="has another method named HIMOE"):
        register_himoe()
    monkeypatch.undo()
    monkeypatch.delattr("peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING")
    with pytest.raises(RuntimeError, match="PEFT_TYPE_TO_PREFIX_MAPPING is gone"):
        register_himoe()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_are_the_same_and_apart(how: Any) -> None:
    model, ids = adapt(), draw(2, LENGTH)
    if how is copy.deepcopy:  # newer versions of transformers cannot pickle the hooks of checkpointing
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=model.base_model.checkpointing_kwargs())
    expected = logits_of(model, ids)
    copied = how(model)
    with pytest.raises(ValueError, match="no gates yet"):
        copied(input_ids=ids)
    assert torch.equal(logits_of(copied, ids), expected)
    other = draw(2, LENGTH, seed=6)
    kept = model.base_model.gates
    logits_of(copied, other)
    assert torch.equal(model.base_model.gates, kept) and not torch.equal(copied.base_model.gates, kept)
    fresh = gradients(adapt(), 2)
    assert all(torch.equal(grad, fresh[name]) for name, grad in gradients(copied, 2).items())


# Serving one instruction


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("merge_shared", [True, False])
def test_specialised_equals_routed(name: str, merge_shared: bool) -> None:
    model, ids = adapt(**SETTINGS[name]), draw(2, LENGTH)
    ids[1, :INSTRUCTION] = ids[0, :INSTRUCTION]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    expected = logits_of(model, ids)
    gates = model.base_model.gates[:, 0]
    model.base_model.clear_gates()
    with model.base_model.specialise(gates, merge_shared=merge_shared):
        torch.testing.assert_close(logits_of(model, ids, use_cache=False), expected, rtol=0, atol=1e-6)
        assert model.state_dict().keys() == state.keys()
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
        with model.disable_adapter():
            assert torch.equal(logits_of(model, ids), make_base()(ids).logits)
        copied = copy.deepcopy(model)
        torch.testing.assert_close(logits_of(copied, ids, use_cache=False), expected, rtol=0, atol=1e-6)
    assert torch.equal(logits_of(model, ids), expected), "leaving it makes the model what it was"


def test_specialised_generation_and_its_errors() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    options: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    tuner = model.base_model
    model(input_ids=ids[:1], instruction_mask=first(ids[:1]))
    gates = tuner.gates
    expected = model.generate(input_ids=ids, **options)
    tuner.clear_gates()
    handle = tuner.specialise(gates[:, 0])
    assert torch.equal(model.generate(input_ids=ids, **options), expected)
    for routing in ({"instruction_mask": first(ids)}, {"routes": torch.ones(2, 3)}):
        with pytest.raises(ValueError, match="is specialised; expected no instruction_mask and no routes"):
            model(input_ids=ids, **routing)
    with pytest.raises(ValueError, match="specialised already"):
        tuner.specialise(gates[:, 0])
    model.train()
    with pytest.raises(ValueError, match="is specialised, which is for serving"):
        model(input_ids=ids)
    model.eval()
    handle.close()
    with pytest.raises(ValueError, match="no gates yet"):
        model(input_ids=ids)
    with pytest.raises(ValueError, match=r"gates have the shape \(6, 1, 3\); expected \(6, 3\)"):
        tuner.specialise(gates)


def test_what_is_folded_does_not_outlive_its_weights() -> None:
    model, ids = adapt(), draw(2, LENGTH)
    tuner = model.base_model
    for change in (lambda: model.load_state_dict(model.state_dict()), lambda: model.to(torch.float64)):
        tuner.specialise(torch.full((LINEARS, 3), 0.5))
        change()
        with pytest.raises(ValueError, match="no gates yet"):
            model(input_ids=ids)
    model.to(torch.float32)
    model.add_adapter("other", HiMoEConfig())
    tuner.specialise(torch.full((LINEARS, 3), 0.5))
    model.set_adapter("other")
    with pytest.raises(ValueError, match="no gates yet"):
        model(input_ids=ids)


def test_capabilities_that_are_off_are_left_out() -> None:
    model = adapt()
    tuner, gates = model.base_model, torch.zeros(LINEARS, 3)
    gates[:, 1] = 1
    with tuner.specialise(gates):
        folded = [layer._folded[0] for layer in tuner.layers]
        assert all(f.layout.groups == ("locating",) and f.down.shape[0] == 4 * 4 + 4 for f in folded)
        assert all(f.shared is not None for f in folded)
    gates.zero_()
    with tuner.specialise(gates):
        ids = draw(2, LENGTH)
        only_shared = logits_of(model, ids, use_cache=False)
    expected = logits_of(model, ids, routes=torch.zeros(2, 3))
    torch.testing.assert_close(only_shared, expected, rtol=0, atol=1e-6)


# Other models


def tiny(config: type[PretrainedConfig], **settings: Any) -> Any:
    """A random model of another architecture."""
    torch.manual_seed(0)
    common = {key: value for key, value in SMALL.items() if key != "max_position_embeddings"}
    return AutoModelForCausalLM.from_config(
        config(**{**common, "pad_token_id": 0, "eos_token_id": None, **settings})
    ).eval()


GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "vocab_size": VOCABULARY}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1,
           "shared_expert_intermediate_size": 16}  # fmt: skip
LLAMA4 = {"head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2, "interleave_moe_layer_step": 1}


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (
            GPT2Config, GPT2,
            r"down_proj, gate_proj, up_proj, but GPT2LMHeadModel has no such layers; expected names of its linear "
            r"layers, which are c_attn \(Conv1D\), c_proj \(Conv1D\), c_fc \(Conv1D\)",
        ),
        (
            Phi3Config, {},
            r"target_modules has gate_proj, up_proj, but Phi3ForCausalLM has no such layers; expected .* "
            r"o_proj, qkv_proj, gate_up_proj, down_proj",
        ),
        (MixtralConfig, {}, r"MixtralForCausalLM has no such layers; expected .* (w1, w2, w3|experts \(packed)"),
        (Qwen2MoeConfig, EXPERTS, r"mlp.experts(.0.\w+, an expert that only some tokens reach| holds the experts)"),
        (Llama4TextConfig, LLAMA4, r"feed_forward.experts holds the experts of a sparse model as packed parameters"),
    ],
)  # fmt: skip
def test_models_whose_layers_have_other_names(config: Any, settings: dict[str, Any], message: str) -> None:
    model = tiny(config, **settings)
    names = [name for name, _ in model.named_modules()]
    with pytest.raises(ValueError, match=message):
        get_peft_model(model, HiMoEConfig())
    assert [name for name, _ in model.named_modules()] == names, "nothing has changed"


def test_layers_that_cannot_be_adapted() -> None:
    with pytest.raises(
        ValueError,
        match=r"has transformer.h.0.mlp.c_fc, a Conv1D; expected an nn.Linear or a quantised one, .* are none",
    ):
        get_peft_model(tiny(GPT2Config, **GPT2), HiMoEConfig(target_modules=["c_fc"]))
    with pytest.raises(ValueError, match=r"target_modules has lm_head, the head of the model; expected layers that"):
        get_peft_model(make_base(), HiMoEConfig(target_modules=["up_proj", "lm_head"]))
    with pytest.raises(ValueError, match=r"target_modules has gate_prj, but LlamaForCausalLM"):
        get_peft_model(make_base(), HiMoEConfig(target_modules=["gate_prj", "up_proj"]))


OPT = {"ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64, "do_layer_norm_before": False}


@pytest.mark.parametrize(
    ("config", "settings", "targets", "count"),
    [
        (OPTConfig, OPT, ["fc1", "fc2"], 4),
        (Qwen2Config, {}, None, 6),
        (Phi3Config, {}, ["gate_up_proj", "down_proj"], 4),
        (Qwen2MoeConfig, EXPERTS, r".*shared_expert\.(gate|up|down)_proj", 6),
        (Llama4TextConfig, LLAMA4, r".*shared_expert\.(gate|up|down)_proj", 6),
        (LlamaConfig, {}, ["q_proj", "o_proj"], 4),
        (LlamaConfig, {"tie_word_embeddings": True}, "all-linear", 14),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Model with `tie_word_embeddings=True`")
def test_any_linear_layer_can_be_named(config: Any, settings: dict[str, Any], targets: Any, count: int) -> None:
    model = tiny(config, **settings)
    ids = torch.cat([draw(1, LENGTH), draw(1, LENGTH, seed=4)])
    expected = model(ids).logits
    adapted = get_peft_model(model, HiMoEConfig(target_modules=targets)).eval()
    torch.testing.assert_close(logits_of(adapted, ids), expected)
    randomise(adapted)
    assert adapted.base_model.gates.shape == (count, 2, 3)
    together = logits_of(adapted, ids)
    for row in ids:
        torch.testing.assert_close(logits_of(adapted, row[None]), together[(ids == row).all(1)], rtol=0, atol=1e-5)
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    for beams in (1, 2):
        written = adapted.generate(input_ids=ids, instruction_mask=first(ids), num_beams=beams, **options)
        alone = adapted.generate(input_ids=ids[1:], instruction_mask=first(ids[1:]), num_beams=beams, **options)
        assert torch.equal(written[1:], alone)
        logits_of(adapted, ids)
        assert torch.equal(adapted.generate(input_ids=ids, num_beams=beams, **options), written), "with kept gates"
    assert len(gradients(adapted, 1)) == 3 * count


def test_inputs_that_are_not_all_tokens_are_refused() -> None:
    model = adapt(tiny(OPTConfig, **OPT), target_modules=["fc1", "fc2"])
    logits_of(model, draw(2, LENGTH))
    with pytest.raises(ValueError, match=r"got an input of shape \(5, 32\) while the model reads 2 x 12 tokens"):
        model.base_model.layers[0](torch.zeros(5, 32))


# Settings and sizes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 0}, "r is 0; expected a whole number of at least 1"),
        ({"r": 2.5}, "r is 2.5"),
        ({"sub_experts": 0}, "sub_experts is 0; expected a whole number of at least 1"),
        ({"alpha": 0}, "alpha is 0; expected a number above 0"),
        ({"dropout": 1.0}, "dropout is 1.0; expected a probability below 1"),
        ({"router": "loud"}, "router is 'loud'; expected one of soft, hard, flat"),
        ({"router_init": "ones"}, "router_init is 'ones'; expected one of kaiming, zeros"),
        ({"entropy_over": "text"}, "entropy_over is 'text'; expected one of all, prompt"),
        ({"adapter_reduction": "max"}, "adapter_reduction is 'max'; expected one of mean, sum"),
        ({"capabilities": ("judging", "judging")}, "expected some of judging, locating, associating, each once"),
        ({"capabilities": "judging"}, "expected some of judging"),
        ({"capabilities": (), "shared_expert": False}, "expected an expert"),
        ({"capabilities": (), "router": "flat"}, "expected one at least where router is 'flat'"),
        ({"task_type": "SEQ_CLS"}, "task_type is 'SEQ_CLS'; expected 'CAUSAL_LM'"),
        ({"target_modules": ".*", "layers_to_transform": 1}, "layers_to_transform needs target_modules"),
        ({"layers_pattern": "h"}, "layers_pattern is set without layers_to_transform"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HiMoEConfig(**settings)


def test_counts() -> None:
    config = LlamaConfig(**SMALL)
    report = adapter_report(config, HiMoEConfig(sub_experts=2))
    model = get_peft_model(make_base(), HiMoEConfig(sub_experts=2))
    trainable, everything = model.get_nb_trainable_parameters()
    assert (report.trainable, report.base) == (trainable, everything - trainable)
    lora = get_peft_model(make_base(), LoraConfig(r=4, target_modules=["gate_proj", "up_proj", "down_proj"]))
    assert report.plain_lora == lora.get_nb_trainable_parameters()[0]


def test_the_benchmark_runs(tmp_path: Path) -> None:
    output = tmp_path / "figures.json"
    printed = run(
        *("uie_adapter", "--layers", "1", "--prompt", "8", "--tokens", "2", "--turns", "1", "--repeats", "1"),
        *("--output", str(output)),
    )
    assert "prefill: the mixture costs" in printed and "decode: the mixture costs" in printed
    runs = json.loads(output.read_text("utf8"))["runs"]
    assert list(runs) == ["prefill", "decode"]
    for phase in runs.values():
        assert list(phase) == ["base", "LoRA r=4", "LoRA r=52", "mixture", "mixture, specialised"]
        assert all(turn["cpu"] > 0 and turn["wall"] > 0 for turns in phase.values() for turn in turns)
