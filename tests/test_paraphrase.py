"""``spacy-ie-moe paraphrase``: what is kept of a model's paraphrases, and the command with a random model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from spacy_ie_moe.cli.paraphrase import paraphrase
from spacy_ie_moe.uc_uie.instructions import ALL_POOLS, POOLS, all_wordings, read_pools
from spacy_ie_moe.uc_uie.paraphrase import (
    EXAMPLES,
    SEPARATOR,
    Rewriter,
    make_request,
    paraphrase_pools,
    refuse,
    tidy,
    wording_key,
)

from .uie import save_tiny_llama

CHAT = "{% for message in messages %}<s>{{ message['content'] }}{% endfor %}{% if add_generation_prompt %}!{% endif %}"


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("lm") / "base")


@pytest.mark.parametrize(
    ("candidate", "name", "reason"),
    [
        ("List the people and places, each entity with its type.", "NER", None),
        ("  ", "NER", "empty"),
        ("List each entity.\nUse the types.", "NER", "several lines"),
        ("List each entity\x00 with its type.", "NER", "unusual characters"),
        ("List each entity | with its type.", "NER", "unusual characters"),
        ("List each entity with its type and", "NER", "no whole sentence"),
        ("which entity has which type of those?", "NER", "no whole sentence"),
        ("List each entity as {type: [entity]}.", "NER", "brackets"),
        ("List each entity (with its type).", "NER", "brackets"),
        ("Entity types.", "NER", "too short"),
        ("List each entity with its type." * 10, "NER", "too long"),
        ("List all that the text has to say.", "NER", "required words missing"),
        ("List each entity that the text names.", "NER", "required words missing"),
        ("List each entity of the prototype in the text.", "NER", "required words missing"),
        ("Note the types that the text has.", "judging", "required words missing"),
        ("Note just the types that the text has.", "judging", None),
        ("Name the aspects and the opinions on them.", "ABSA", "required words missing"),
        ("Name aspects, opinions on them and their polarity.", "ABSA", None),
        (POOLS["RE"][0].upper().replace(".", "!"), "RE", "duplicate"),
    ],
)
def test_refusals(candidate: str, name: str, reason: str | None) -> None:
    assert refuse(candidate, name, taken={wording_key(wording) for wording in all_wordings()}) == reason


@pytest.mark.parametrize(
    ("written", "wording"),
    [
        (" Find all of them.\n", "Find all of them."),
        ('Output: "Find all of them."', "Find all of them."),
        (f"Find all of them.\n{SEPARATOR}\nInput: and so on", "Find all of them."),
        ("“Find 'all' of them.”", "Find 'all' of them."),
        ("Find\nthem.", "Find\nthem."),
        (SEPARATOR, ""),
    ],
)
def test_tidy(written: str, wording: str) -> None:
    assert tidy(written) == wording


def test_the_examples_could_be_kept() -> None:
    for (source, target), name in zip(EXAMPLES, ("NER", "RE", "EE"), strict=True):
        assert refuse(source, name) is None and refuse(target, name) is None
    assert make_request("Say it.").endswith(f"{SEPARATOR}\nInput: Say it.\nOutput:")


def test_what_is_kept_and_what_is_counted() -> None:
    pools = {"NER": ("Find each entity and its type.", "Which type has each entity?"), "RE": POOLS["RE"][:1]}
    answers = {
        pools["NER"][0]: ["Output: Give the type of every entity.", "Which TYPE has each entity!", "no"],
        pools["NER"][1]: ["Give the type of every entity.", "Tell each entity of the text by its type."],
        pools["RE"][0]: ["Tell each entity of the text by its type.", ""],
    }

    def rewrite(wording: str, count: int) -> Sequence[str]:
        return answers[wording][:count]

    result = paraphrase_pools(pools, rewrite, count=3)
    added = ("Give the type of every entity.", "Tell each entity of the text by its type.")
    assert result.pools == {"NER": (*pools["NER"], *added), "RE": pools["RE"]}
    assert result.kept == {"NER": 2, "RE": 0}
    assert result.dropped == {
        "NER": {"duplicate": 2, "too short": 1},
        "RE": {"required words missing": 1, "empty": 1},
    }
    assert sum(paraphrase_pools(pools, rewrite, count=1).kept.values()) == 1


def test_the_same_seed_says_the_same(tiny_llama: Path) -> None:
    said = [Rewriter(str(tiny_llama), seed=seed, max_new_tokens=12)("Find entities.", 2) for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]
    assert len(said[0]) == 2 and said[0][0] != said[0][1]


def test_a_chat_template_is_used(tiny_llama: Path) -> None:
    rewriter = Rewriter(str(tiny_llama))
    plain = rewriter.tokenizer.decode(rewriter._encode("Find it.")["input_ids"][0])
    rewriter.tokenizer.chat_template = CHAT
    chat = rewriter.tokenizer.decode(rewriter._encode("Find it.")["input_ids"][0])
    assert plain.endswith("Input: Find it.\nOutput:") and chat == f"<s>{plain}!"


def run(*arguments: object):
    app = typer.Typer()
    app.command()(paraphrase)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_all_that_a_random_model_says_is_dropped(tiny_llama: Path, tmp_path: Path) -> None:
    file = tmp_path / "pools.json"
    result = run(tiny_llama, file, "--pools", "NER,judging", "--count", 2, "--max-tokens", 16)
    assert result.exit_code == 0, result.output
    written = json.loads(file.read_text(encoding="utf8"))
    assert written["kept"] == {"NER": 0, "judging": 0}
    for name, reasons in written["dropped"].items():
        assert sum(reasons.values()) == 2 * len(ALL_POOLS[name])
        assert reasons.get("unusual characters", 0) + reasons.get("no whole sentence", 0) > 0
    assert written["settings"]["model"] == str(tiny_llama)
    assert read_pools(file) == ALL_POOLS
    row = next(line for line in result.stdout.splitlines() if line.startswith("NER"))
    assert row.split()[:3] == ["NER", str(len(ALL_POOLS["NER"])), "0"] and ": " in row


def test_errors_are_one_sentence(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    cases = [
        ((tmp_path / "bare", tmp_path / "out.json"), "cannot be loaded as a causal language model"),
        ((tiny_llama, tmp_path / "absent" / "out.json"), "there is no folder"),
        ((tiny_llama, tmp_path / "out.json", "--pools", "NER,QA"), "--pools is 'NER,QA'; expected some of NER"),
    ]
    for arguments, message in cases:
        result = run(*arguments)
        assert result.exit_code == 1, result.output
        assert message in result.stderr and len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "out.json").exists()
