"""The language model: what it learns from, how it answers, and that neither batches nor kept prefixes change it."""

from __future__ import annotations

import copy
import pickle
import random
from dataclasses import replace

import pytest
import torch

from spacy_ie_moe.uc_uie import instructions
from spacy_ie_moe.uc_uie.checkpoint import add_adapter
from spacy_ie_moe.uc_uie.constraints import make_grammar
from spacy_ie_moe.uc_uie.decoding import Request, _batches
from spacy_ie_moe.uc_uie.frames import SURPLUS, Frame, Schema, read_frames, write_frames
from spacy_ie_moe.uc_uie.grounding import ground
from spacy_ie_moe.uc_uie.network import ExtractionLM, LessonBatch, Tokens, _by_length
from spacy_ie_moe.uc_uie.prompts import Prompter

from .uie import SCHEMAS, TEXTS, make_tiny_llama, make_tiny_sentencepiece, make_tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tiny_tokenizer()


@pytest.fixture(scope="module", params=["byte-level", "sentencepiece"])
def any_tokenizer(request, tokenizer):
    return tokenizer if request.param == "byte-level" else make_tiny_sentencepiece()


def make_network(tokenizer, *, adapter: str | None = "himoe", seed: int = 0, spread: float = 0.4) -> ExtractionLM:
    model = make_tiny_llama(tokenizer, seed=seed, spread=spread)
    if adapter is not None:
        model = add_adapter(model, adapter, {"target_modules": ["gate_proj", "up_proj", "down_proj"]})
        torch.manual_seed(seed)
        for _name, parameter in model.named_parameters():
            if parameter.requires_grad:  # a new adapter changes nothing: this one shall
                torch.nn.init.normal_(parameter, std=0.3)
    return ExtractionLM(model, Prompter(tokenizer)).eval()


def ask(task: str = "NER", texts=TEXTS, **options) -> Request:
    schema = Schema.of(SCHEMAS[task])
    return Request(
        instructions.build(task, schema), [instructions.body(text) for text in texts], max_new_tokens=24, **options
    )


def make_lessons(network: ExtractionLM) -> list[Tokens]:
    prompter = network.prompter
    return [
        Tokens(
            prompter.instruction(instructions.build("NER", SCHEMAS["NER"])),
            prompter.tokens(instructions.body(text)),
            prompter.target(target),
            (1, 1, 0),
        )
        for text, target in zip(TEXTS, [" {(PER: Barack Obama): []}", " None", " None", " None"], strict=False)
    ]


# --- tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [*TEXTS, "", " {(PER: Ünï): []}", "tab\tand\nline", "😀 fine"])
def test_the_tokenizer_gives_every_text_back(any_tokenizer, text):
    prompter = Prompter(any_tokenizer)
    tokens = prompter.tokens(text)
    written = prompter.read([*tokens, prompter.end, 5, 6])
    assert written.text == text
    assert len(written.ends) == len(tokens)
    assert written.ends == sorted(written.ends)


def test_tokens_end_where_the_text_up_to_them_ends(any_tokenizer):
    prompter = Prompter(any_tokenizer)
    tokens = prompter.tokens(" {(PER: Ünï Obama): []} 日本 😀")
    tokens = [token for token in tokens if token != prompter.end]
    read = prompter.read(tokens)
    for place, end in enumerate(read.ends, 1):
        text = any_tokenizer.decode(tokens[:place], clean_up_tokenization_spaces=False)
        assert text.startswith(read.text[:end])
        assert len(text) == end or text.endswith("\ufffd"), "a token with half a character counts with the next"
    cut = prompter.read(tokens[:-1])
    assert cut.text.endswith("\ufffd") and cut.ends[-1] == len(cut.text)


def test_any_tokens_are_read(any_tokenizer):
    prompter = Prompter(any_tokenizer)
    draw = random.Random(0)
    broken = 0
    for highest in (260, len(any_tokenizer)):  # nothing but bytes, and all tokens
        for _ in range(300):
            tokens = [draw.randrange(3, highest) for _ in range(draw.randrange(30))]
            read = prompter.read(tokens)
            assert read.text == any_tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
            assert len(read.ends) == len(tokens) and read.ends == sorted(read.ends)
            assert not tokens or read.ends[-1] == len(read.text)
            broken += "\ufffd" in read.text
    assert broken > 100


def test_a_tokenizer_that_ends_nothing_is_refused(tokenizer):
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        Prompter(endless)


# --- losses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["himoe", "lora", None])
def test_the_task_loss_is_that_of_the_targets_alone(tokenizer, adapter):
    network = make_network(tokenizer, adapter=adapter)
    lessons = make_lessons(network)
    total, count = 0.0, 0
    for lesson in lessons:
        ids = torch.tensor([[*lesson.instruction, *lesson.body, *lesson.target]])
        mask = torch.zeros_like(ids, dtype=torch.bool)
        mask[:, : len(lesson.instruction)] = True
        routing = {"instruction_mask": mask} if adapter == "himoe" else {}
        with torch.no_grad():
            logits = network.model(input_ids=ids, **routing).logits[0].log_softmax(-1)
        for place in range(ids.shape[1] - len(lesson.target), ids.shape[1]):
            total -= logits[place - 1, ids[0, place]].item()
            count += 1
    losses = network(LessonBatch(lessons))
    assert losses["task"].item() == pytest.approx(total / count, abs=2e-5)
    assert set(losses) == ({"task", "bce", "entropy"} if adapter == "himoe" else {"task"})


def test_without_their_weights_there_are_no_auxiliary_losses(tokenizer):
    network = make_network(tokenizer)
    network.gamma = network.beta = 0.0
    assert set(network(LessonBatch(make_lessons(network)))) == {"task"}


def test_warming_takes_the_routes_as_gates_and_needs_no_router(tokenizer):
    network = make_network(tokenizer)
    lessons = [Tokens(lesson.instruction, lesson.body, lesson.target, (0, 1, 0)) for lesson in make_lessons(network)]
    losses = network(LessonBatch(lessons, forced=True))
    assert "bce" not in losses
    assert torch.equal(network.tuner.gates, torch.tensor([0.0, 1.0, 0.0]).expand_as(network.tuner.gates))


@pytest.mark.parametrize("forced", [False, True])
def test_lessons_in_groups_of_a_length_are_one_batch(tokenizer, monkeypatch, forced):
    network = make_network(tokenizer)
    long, *others = make_lessons(network)
    routes = [(1, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)]
    lessons = [replace(long, body=long.body * 4), *others]
    lessons = [replace(lesson, routes=route) for lesson, route in zip(lessons, routes, strict=False)]
    assert len(_by_length(lessons)) > 1
    batch = LessonBatch(lessons, forced=forced)

    def learn() -> tuple[dict[str, float], list[torch.Tensor]]:
        losses = network(batch)
        wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(sum(losses.values()), wanted, allow_unused=True)
        return {name: loss.item() for name, loss in losses.items()}, [g for g in gradients if g is not None]

    losses, gradients = learn()
    monkeypatch.setattr("spacy_ie_moe.uc_uie.network.SPREAD", 1e9)
    assert len(_by_length(lessons)) == 1
    at_once, expected = learn()
    assert losses == pytest.approx(at_once, abs=1e-5)
    assert len(gradients) == len(expected) > 0
    for got, want in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_a_few_steps_learn_the_targets(tokenizer):
    network = make_network(tokenizer)
    lessons = make_lessons(network)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=0.01)
    first = network(LessonBatch(lessons))["task"].item()
    for _ in range(60):
        losses = network(LessonBatch(lessons))
        sum(losses.values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses["task"].item() < 0.5 * first


# --- answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["himoe", "lora", None])
@pytest.mark.parametrize("beams", [1, 3])
def test_answers_do_not_depend_on_the_batch(tokenizer, adapter, beams):
    network = make_network(tokenizer, adapter=adapter)
    together = network.predict(ask(beams=beams))
    for text, answer in zip(TEXTS, together, strict=True):
        alone = network.predict(ask(texts=[text], beams=beams))[0]
        assert alone.text == answer.text
        assert alone.log_probabilities == pytest.approx(answer.log_probabilities, abs=1e-4)
    small = network.predict(ask(beams=beams, batch_tokens=1))
    assert [answer.text for answer in small] == [answer.text for answer in together]


def write_greedily(network: ExtractionLM, request: Request, body: str) -> tuple[list[int], list[float]]:
    """The answer to a whole prompt, read anew for every token, and the log-probabilities of its tokens."""
    prompter = network.prompter
    instruction = prompter.instruction(request.instruction)
    ids = [*instruction, *prompter.tokens(body)]
    written, scores = [], []
    while len(written) < request.max_new_tokens and prompter.end not in written:
        whole = torch.tensor([ids + written])
        mask = torch.zeros_like(whole, dtype=torch.bool)
        mask[:, : len(instruction)] = True
        routing = {} if network.tuner is None else {"instruction_mask": mask}
        with torch.no_grad():
            score, token = network.model(input_ids=whole, **routing).logits[0, -1].log_softmax(-1).max(-1)
        written.append(token.item())
        scores.append(score.item())
    return written, scores


@pytest.mark.parametrize("adapter", ["himoe", None])
def test_a_kept_instruction_gives_what_reading_the_whole_prompt_gives(tokenizer, adapter):
    network = make_network(tokenizer, adapter=adapter)
    request = ask()
    network.predict(request)  # now the instruction is kept
    for body, answer in zip(request.bodies, network.predict(request), strict=True):
        written, scores = write_greedily(network, request, body)
        assert network.prompter.read(written).text == answer.text
        assert answer.log_probabilities == pytest.approx(scores[: len(answer.ends)], abs=1e-4)


def test_instructions_are_kept_up_to_a_size(tokenizer, monkeypatch):
    network = make_network(tokenizer)
    kept = network.decoder._prefixes
    network.predict(ask("NER", ["x"]))
    (size,) = (prefix.bytes for prefix in kept.values())
    instruction = network.prompter.instruction(ask("NER").instruction)
    assert size == len(instruction) * 2 * 2 * 16 * 4, "tokens, layers, keys and values of 2 heads of 8, float32"
    monkeypatch.setattr("spacy_ie_moe.uc_uie.decoding.KEPT_BYTES", 3 * size)
    for task in ("RE", "EE", "ABSA", "NER", "RE"):
        network.predict(ask(task, ["x"]))
        assert sum(prefix.bytes for prefix in kept.values()) <= 3 * size
        assert next(reversed(kept))[0] == ask(task).instruction
    assert len(kept) > 1
    monkeypatch.setattr("spacy_ie_moe.uc_uie.decoding.KEPT_BYTES", 1)
    network.predict(ask("EE", ["x"]))
    assert len(kept) == 1


def test_training_makes_the_network_forget_what_it_kept(tokenizer):
    network = make_network(tokenizer)
    request = ask()
    before = network.predict(request)
    network(LessonBatch(make_lessons(network)))
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.mul_(-1.5)
    after = network.predict(request)
    fresh = ExtractionLM(network.model, network.prompter).eval().predict(request)
    assert after == fresh
    assert after != before


def test_the_routes_of_a_hard_router_are_its_gates(tokenizer):
    network = make_network(tokenizer)
    both = [network.predict(ask(routes=routes)) for routes in ((1, 1, 0), (0, 0, 1))]
    assert both[0] != both[1]


def test_a_network_survives_pickling(tokenizer):
    network = make_network(tokenizer)
    request = ask()
    expected = network.predict(request)
    again = pickle.loads(pickle.dumps(network))
    assert again.predict(request) == expected


def test_settings_that_a_model_brings_do_not_change_its_answers(tokenizer):
    network = make_network(tokenizer, adapter=None)
    expected = network.predict(ask())
    defaults = network.model.generation_config
    defaults.do_sample, defaults.temperature, defaults.repetition_penalty, defaults.num_beams = True, 3.0, 1.5, 2
    assert network.predict(ask()) == expected


def test_the_room_for_an_answer_is_that_of_its_own_prompt(tokenizer):
    network = make_network(tokenizer, adapter=None)
    request = ask()
    longest = max(len(network.prompter.tokens(body)) for body in request.bodies)
    network.model.config.max_position_embeddings = len(network.prompter.instruction(request.instruction)) + longest + 3
    together = network.predict(request)
    assert [answer.text for answer in together] == [network.predict(ask(texts=[text]))[0].text for text in TEXTS]
    assert min(len(answer.ends) for answer in together) <= 3 < max(len(answer.ends) for answer in together)
    network.model.config.max_position_embeddings = 20
    with pytest.raises(ValueError, match="expected smaller types_at_once"):
        ExtractionLM(network.model, network.prompter).eval().predict(ask(texts=["y"]))


def test_batches_hold_no_more_tokens_than_asked_for():
    lengths = [5, 1, 9, 3, 3]
    order = sorted(range(5), key=lambda row: lengths[row])
    budgets = [7, 7, 7, 7, 6]
    batches = _batches(order, lengths, budgets, 10)
    assert all(len({budgets[row] for row in batch}) == 1 for batch in batches)
    assert sorted(row for batch in batches for row in batch) == [0, 1, 2, 3, 4]
    assert all(len(batch) == 1 or max(lengths[row] for row in batch) * len(batch) <= 10 for batch in batches)


# --- constrained decoding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("task", list(SCHEMAS))
@pytest.mark.parametrize("seed", [1, 2])
def test_constrained_answers_are_frames_of_the_schema_with_words_of_the_text(any_tokenizer, task, seed, beams):
    pytest.importorskip("llguidance")
    network = make_network(any_tokenizer, seed=seed)
    schema = Schema.of(SCHEMAS[task])
    request = Request(
        instructions.build(task, schema),
        [instructions.body(text) for text in TEXTS],
        grammars=[make_grammar(schema, text, task=task) for text in TEXTS],
        max_new_tokens=64,
        beams=beams,
    )
    for text, answer in zip(TEXTS, network.predict(request), strict=True):
        assert answer.finished
        frames, issues = read_frames(answer.text, schema)
        _, ungrounded = ground(frames, text)
        assert {issue.kind for issue in (*issues, *ungrounded)} <= {SURPLUS}


@pytest.mark.parametrize("task", ["NER", "RE"])
def test_answers_end_in_time_whatever_the_names(any_tokenizer, task):
    pytest.importorskip("llguidance")
    network = make_network(any_tokenizer, seed=3)
    slots = {"RE": ["subject", "object"], "NER": []}[task]
    schema = Schema.of({"日本語テキスト分類カテゴリー名称": slots, "Another long name of a type": slots})
    grammars = [make_grammar(schema, text, task=task) for text in TEXTS]
    budget = 2 * max(grammar.longest for grammar in grammars)
    request = Request(
        instructions.build(task, schema),
        [instructions.body(text) for text in TEXTS],
        grammars=grammars,
        max_new_tokens=budget,
    )
    answers = network.predict(request)
    assert all(answer.finished for answer in answers)
    assert max(len(answer.ends) for answer in answers) > budget // 3
    assert any(answer.ended for answer in answers), "an untrained model would go on"
    longer = network.predict(replace(request, max_new_tokens=4 * budget))
    for answer, other in zip(answers, longer, strict=True):
        assert answer.ended or (answer.text, answer.finished) == (other.text, True)


def test_nothing_is_taken_from_white_space(tokenizer):
    pytest.importorskip("llguidance")
    schema = Schema.of(["PER"])
    grammars = [make_grammar(schema, text, task="NER") for text in ("", "   ", "\n\t")]
    for seed in range(4):
        network = make_network(tokenizer, seed=seed)
        bodies = [instructions.body("   ")] * 3
        request = Request(instructions.build("NER", schema), bodies, grammars, max_new_tokens=20)
        assert {answer.text.strip() for answer in network.predict(request)} == {"None"}


def test_types_of_which_nothing_could_be_written_are_named():
    with pytest.raises(ValueError, match=r"frame type 'X' of the task RE has no slots; expected subject and object"):
        make_grammar(Schema.of({"X": {"slots": [], "task": "RE"}}), "a b", task="RE")


def test_a_grammar_takes_gold_answers_and_no_others(any_tokenizer):
    tokenizer = any_tokenizer
    llguidance = pytest.importorskip("llguidance")
    from llguidance.hf import from_tokenizer

    schema = Schema.of(SCHEMAS["EE"])
    grammar = llguidance.grammar_from("lark", make_grammar(schema, TEXTS[0], task="EE").lark)
    guide = from_tokenizer(tokenizer)

    def accepts(answer: str) -> bool:
        tokens = Prompter(tokenizer).target(answer)
        matcher = llguidance.LLMatcher(guide, grammar)
        taken = matcher.try_consume_tokens(tokens)
        return taken == len(tokens) or (taken == len(tokens) - 1 and matcher.is_stopped())

    assert accepts(" {(Travel: visited): [(Traveller: Barack Obama), (Place: Paris)]} {(Birth: date: born): []}")
    assert accepts(" None")
    assert accepts(r" {(Birth: date: \( born 1961 \)): [(Time: 1961)]}")
    assert not accepts(" {(Travel: flew): []}")
    assert not accepts(" {(Travel: visit): []}")
    assert not accepts(" {(Travel: visited): [(Time: June)]}")
    assert not accepts(" {(Meeting: visited): []}")
    assert not accepts(" {(Birth: date: born): [(Place: Paris)]}")
    assert not accepts(" {(Travel: ): []}")
    assert not accepts("")
    text = "Mr Null saw Alien: Romulus in 北京工作 (twice)"
    schema = Schema.of(["T"])
    grammar = llguidance.grammar_from("lark", make_grammar(schema, text, task="NER").lark)
    for filler in ("Null", "Alien: Romulus", "北京", "工作", "(twice)", "Mr Null saw"):
        assert accepts(f" {write_frames([Frame('T', filler)])}")
    assert not accepts(" {(T: Null): []}")


def test_scores_are_those_of_the_model_with_and_without_beams(tokenizer):
    pytest.importorskip("llguidance")
    grammar = make_grammar(Schema.of(["x"]), "x", task="NER")  # leaves little choice, so both may write the same
    request = ask(texts=["x"], grammars=[grammar])
    alike = 0
    for seed in range(8):
        network = make_network(tokenizer, adapter=None, seed=seed)
        greedy, beams = (network.predict(replace(request, beams=count))[0] for count in (1, 4))
        assert max(*greedy.log_probabilities, *beams.log_probabilities) < -0.1  # an untrained model is sure of nothing
        if greedy.text == beams.text:
            alike += 1
            assert greedy.log_probabilities == pytest.approx(beams.log_probabilities, abs=1e-4)
    assert alike
