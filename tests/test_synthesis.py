"""The parts of ``spacy-ie-moe synthesize``: pairs, prompts, labels, answers and the file that keeps them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from spacy_ie_moe.corpora.conversion import ConversionReport
from spacy_ie_moe.glirel.candidates import Candidates, collect
from spacy_ie_moe.instruction_model import encode_prompts, without_special_tokens
from spacy_ie_moe.synthesis.answers import Answer, Reading, read_answer, write_answer
from spacy_ie_moe.synthesis.asking import Asker, SeededChoice
from spacy_ie_moe.synthesis.labels import NO_RELATION, label_key, refuse_label, tidy_label
from spacy_ie_moe.synthesis.pairs import Limits, split_pairs
from spacy_ie_moe.synthesis.progress import AnswerFile
from spacy_ie_moe.synthesis.prompt import EXAMPLE, REQUEST, make_request, pair_names
from spacy_ie_moe.synthesis.sources import read_json_lines, read_spacy_docs

from .conftest import make_doc
from .uie import save_tiny_llama

# --- labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "label"),
    [
        (" Founded_By. ", "founded by"),
        ('**"born  in"**,', "born in"),
        ("«lives\tin»", "lives in"),
        ("member of (politics)", "member of (politics)"),
        ("well-known for", "well-known for"),
        ("Größe ÜBER", "größe über"),
        ("出生于", "出生于"),
        ("...", ""),
        *((text, NO_RELATION) for text in ("NO RELATION", "no_relation", "No-Relation.", "`NO  RELATION`", "none")),
        ("NO RELATION (the text does not say)", NO_RELATION),
        ("no relationship", NO_RELATION),
        *((text, NO_RELATION) for text in ("Not related", "unrelated", "N/A", "n.a.", "None (no relation)", "(NONE)")),
        *((f"no {text}", NO_RELATION) for text in ("explicit relation", "clear relation", "direct link is stated")),
        *((text, NO_RELATION) for text in ("(NO RELATION)", "NO RELATION: the text is silent", "Ann: no relation")),
        ("not stated in the text", NO_RELATION),
        *((text, text) for text in ("no longer related to", "no longer linked to", "no linkedin profile of")),
        *((text, NO_RELATION) for text in ("no links", "no relationships are stated", "no known association")),
        ("Nobel Prize connection", "nobel prize connection"),
        ("(Founded by.)", "founded by"),
        ("(a) b (c)", "(a) b (c)"),
    ],
)
def test_labels_are_tidied(written: str, label: str) -> None:
    assert tidy_label(written) == label
    assert tidy_label(label) == label


def test_case_can_be_kept() -> None:
    assert tidy_label("Member_of NATO", keep_case=True) == "Member of NATO"
    assert tidy_label("no_relation", keep_case=True) == NO_RELATION


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("founded by", None),
        (NO_RELATION, None),
        ("出生于", None),
        ("", "empty label"),
        ("12 - 3", "empty label"),
        ("founder, owner", "several labels"),
        ("a\x00b", "unusual characters"),
        ("half \ud800 sign", "unusual characters"),
        ("broken \ufffd sign", "unusual characters"),
        *((f"a{sign}b", "marks inside of a label") for sign in (":", " -> ", "→", "|", '"', "”", "»", "`")),
        ("child's", None),
        ("x" * 61, "overlong label"),
        ("a b c d e f g h i", "overlong label"),
    ],
)
def test_what_is_no_label(label: str, reason: str | None) -> None:
    assert refuse_label(label) == reason


SPELLINGS = ["place of birth", "Place_Of-Birth", "PlaceOfBirth", "place – of birth", "ＰＬＡＣＥ of birth"]


@pytest.mark.parametrize("label", SPELLINGS)
def test_spellings_of_a_label_are_one(label: str) -> None:
    assert label_key(label) == "placeofbirth" != label_key("place of death")


# --- answers --------------------------------------------------------------------------------------------------


ANN_BERN = ("Ann (PER)", "Bern (LOC, mention 2)")
PICARD = ("Star Trek: Picard (WORK)", "CBS")
TEN_THIRTY = ("10:30 (TIME)", "Bern (in Germany) (LOC)")


def read(text: str, *pairs: tuple[str, str], finished: bool = True) -> Reading:
    return read_answer(Answer(text, finished), pairs)


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("1. born in", "born in"),
        ("1) born in", "born in"),
        ("(1) born in", "born in"),
        ("1: born_in", "born in"),
        ("1 - Born in.", "born in"),
        ("- **1.** born in", "born in"),
        ('  "1": "born in",', "born in"),
        ("Pair 1: born in", "born in"),
        ("1. Ann (PER) -> Bern (LOC): born in", "born in"),
        ("1. Ann → Bern: NO_RELATION", NO_RELATION),
        ("1.born in", "born in"),
        ("1. Ann -> Bern -> born in", "born in"),
        ("1. ann (PER) and Bern (LOC, mention 2): born in", "born in"),
        ("1. **Ann -> Bern**: born in", "born in"),
        ("1. (Ann, Bern): born in", "born in"),
        ("1. Ann | Bern | born in", "born in"),
        ("| 1 | Ann | Bern | born in |", "born in"),
        ("1. Label: born in", "born in"),
        ("1. Relation: NO RELATION", NO_RELATION),
        ("1. Ann (PER): NO RELATION", NO_RELATION),
        ("1. Ann -> Bern: NO RELATION: Ann is not in Bern", NO_RELATION),
        ("1. Bern -> Ann -> NO RELATION", NO_RELATION),
    ],
)
def test_ways_to_write_a_line(line: str, label: str) -> None:
    reading = read(line, ANN_BERN)
    assert reading.labels == {0: label} and reading.lines.converted == reading.lines.read == 1


@pytest.mark.parametrize(
    ("line", "names", "reason"),
    [
        ("1. Ann (PER) -> Bern (LOC, mention 2)", ANN_BERN, "pair without a label"),
        ("1. Star Trek: Picard (WORK) -> CBS (ORG)", PICARD, "pair without a label"),
        ("1. Star Trek: Picard (WORK) -> CBS", PICARD, "pair without a label"),
        ("1. 10:30 (TIME) -> Bern", TEN_THIRTY, "marks inside of a label"),
        ("1. 10:30 (TIME) -> Bern (in Germany) (LOC)", TEN_THIRTY, "pair without a label"),
        ("10:30 (TIME) -> Bern (LOC)", TEN_THIRTY, "no pair number"),
        ("1. Ann -> Bern [LOC]", ANN_BERN, "pair without a label"),
        ("1. @Ann", ("@Ann", "Bern"), "entity in the label"),
        ("1. Bern and Ann: born in", ANN_BERN, "marks inside of a label"),
        ("1. Ann -> born in -> Bern", ANN_BERN, "marks inside of a label"),
        ("1. Ann was born in Bern", ANN_BERN, "entity in the label"),
        ("1. Ann (PER) ->", ANN_BERN, "entity in the label"),
        ("1.5 million people live there", ANN_BERN, "no pair number"),
        ("1-year contract", ANN_BERN, "no pair number"),
    ],
)
def test_names_and_sentences_are_no_labels(line: str, names: tuple[str, str], reason: str) -> None:
    assert read(line, names).lines.left_out == {reason: 1}


def test_the_last_line_of_an_unfinished_answer_is_left_out() -> None:
    whole = "1. lives in\n2. place of birth"
    for size in range(len(whole)):
        reading = read(whole[:size], ANN_BERN, ANN_BERN, finished=False)
        assert reading.labels == ({0: "lives in"} if size >= whole.index("2") else {})
        assert reading.lines.left_out == ({"cut off": 1} if size and whole[size - 1] != "\n" else {})


def test_what_cannot_be_used_is_counted() -> None:
    answer = f"""Here they are:
    1. born in
    1. lives in

    4. works for
    0. works for
    {"9" * 5000}. works for
    2. {"so it goes on and on " * 5}
    2. a, b
    3. Ann -> Bern
    3. 17
    2 of them are not related"""
    reading = read(answer, *[ANN_BERN] * 3)
    assert reading.labels == {0: "born in"} and reading.lines.converted == 1
    assert reading.lines.left_out == {
        "no pair number": 3,
        "repeated pair": 1,
        "unknown pair": 2,
        "overlong label": 1,
        "several labels": 1,
        "pair without a label": 1,
        "empty label": 1,
    }


def test_a_usable_line_counts_behind_one_that_is_none() -> None:
    assert read("1. ?\n2. owns\n1. sold", ANN_BERN, ANN_BERN).labels == {0: "sold", 1: "owns"}


def test_thoughts_are_no_answers() -> None:
    assert read("<think>\n1. owns?\n</think>\n\n1. sold", ANN_BERN).labels == {0: "sold"}
    assert read("1. owns? Hm.</think>1. sold", ANN_BERN).labels == {0: "sold"}
    assert read("<think>\n1. owns", ANN_BERN).lines.read == 0


odd_lines = st.lists(
    st.one_of(st.text(), st.from_regex(r"[-*(\[\"' ]{0,4}[0-9]{1,3}[.):\-> ]{0,4}.{0,20}", fullmatch=True))
)


odd_names = st.text() | st.sampled_from([*ANN_BERN, *PICARD, *TEN_THIRTY, "", " (X)"])


@given(odd_lines, st.lists(st.tuples(odd_names, odd_names), max_size=5), st.booleans(), st.booleans())
def test_any_answer_is_read_and_accounted_for(
    lines: list[str], pairs: list[tuple[str, str]], finished: bool, keep_case: bool
) -> None:
    text = "\n".join(lines)
    reading = read_answer(Answer(text, finished), pairs, keep_case=keep_case)
    assert reading.lines.read == len([line for line in text.splitlines() if line.strip()])
    assert reading.lines.converted == len(reading.labels)
    for index, label in reading.labels.items():
        assert (
            0 <= index < len(pairs) and refuse_label(label) is None and tidy_label(label, keep_case=keep_case) == label
        )


letters = st.characters(categories=["L"])
signs = st.characters(exclude_categories=["C", "Zl", "Zp"], exclude_characters=",;→>\ufffd")
labels = st.builds("{}{}".format, letters, st.text(signs, max_size=40)).map(tidy_label)


@given(st.lists(labels.filter(lambda label: refuse_label(label) is None), max_size=6))
def test_written_answers_are_read_back(written: list[str]) -> None:
    reading = read(write_answer(written), *[("ANN", "BERN")] * len(written))
    assert reading.labels == dict(enumerate(written))
    assert not reading.lines.left_out


names = st.builds(
    "{}{}".format,
    st.from_regex(r"[ABab1:>.|-]{0,3}[ABab1]([ABab1:>.|-]{1,3}| [ab1:]){0,2}", fullmatch=True),
    st.sampled_from(["", " (PER)", " (LOC, mention 2)"]),
)
forms = ["{0} -> {1}", "{0} → {1}: {2}", "{0} -> {1} -> {2}", "({0}, {1}): {2}", "{0} | {1} | {2}", "{0} and {1}: {2}"]
forms += ["{0} -> {2} -> {1}", "{1} -> {0}: {2}", "{0}: {2}", "{0}", "**{0} - {1}** - {2}", "{0} {2} {1}", "{1}"]


@given(names, names, st.sampled_from(forms), st.sampled_from(["lives in", "NO RELATION"]))
def test_names_in_an_answer_do_not_become_labels(head: str, tail: str, form: str, label: str) -> None:
    found = read("1. " + form.format(head, tail, label), (head, tail)).labels
    assert found in ({}, {0: label})


# --- pairs and prompts ----------------------------------------------------------------------------------------


def candidates_at(*spans: tuple[int, int]) -> Candidates:
    return Candidates(np.array(spans, dtype=np.int64).reshape(-1, 2), [("X",)] * len(spans))


places = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 5)), unique=True, max_size=8)


@given(places, st.integers(2, 80), st.integers(1, 7), st.none() | st.integers(0, 60))
def test_every_pair_is_asked_once_or_too_far(
    found: list[tuple[int, int]], window: int, max_pairs: int, max_distance: int | None
) -> None:
    spans = sorted((start, start + width) for start, width in found)
    limits = Limits(window=window, max_pairs=max_pairs, max_distance=max_distance)
    parts, far = split_pairs(candidates_at(*spans), 70, limits)
    asked = [pair for part in parts for pair in part.pairs]
    rows = range(len(spans))
    missing = {(head, tail) for head in rows for tail in rows if head != tail}.difference(asked)
    assert len(asked) == len(set(asked)) and len(missing) == far
    for part in parts:
        assert 1 <= len(part.pairs) <= max_pairs
        assert 0 <= part.start < part.end <= 70 and part.end - part.start == min(70, window)
        for pair in part.pairs:
            assert all(part.start <= spans[row][0] and spans[row][1] <= part.end for row in pair)
    for head, tail in missing:
        near = max_distance is None or abs(spans[head][0] - spans[tail][0]) <= max_distance
        width = max(spans[head][1], spans[tail][1]) - min(spans[head][0], spans[tail][0])
        assert not near or width > window


def test_few_entities_make_no_pairs() -> None:
    assert split_pairs(candidates_at(), 0, Limits()) == split_pairs(candidates_at((0, 2)), 3, Limits()) == ([], 0)


def test_a_part_is_asked_about_with_its_text_and_names() -> None:
    doc = Doc(Vocab(), words=["x", "x", "x", "Paris", "saw", "\n", "Paris", ",", "Ann\u2028May", "y", "y", "y", "y"])
    spans = [(3, 4, "LOC"), (6, 7, "LOC"), (8, 9, "PER"), (8, 9, "ARTIST")]
    candidates = collect(Span(doc, start, end, label=label) for start, end, label in spans)
    (part, other), far = split_pairs(candidates, len(doc), Limits(window=8, max_pairs=4))
    assert (part.start, part.end, far) == (2, 10, 0) and (other.start, other.end) == (4, 12)
    request = make_request(doc, candidates, part)
    assert request.startswith(REQUEST) and EXAMPLE[0] in request
    assert request.endswith(
        "Text: x Paris saw Paris , Ann May y\n"
        "Pairs:\n"
        "1. Paris (LOC, mention 1) -> Paris (LOC, mention 2)\n"
        "2. Paris (LOC, mention 2) -> Paris (LOC, mention 1)\n"
        "3. Paris (LOC, mention 1) -> Ann May (PER, ARTIST)\n"
        "4. Ann May (PER, ARTIST) -> Paris (LOC, mention 1)\n"
        "Labels:"
    )
    assert "1. Paris (LOC) -> Ann May (PER, ARTIST)\n" in make_request(doc, candidates, other)
    second = candidates_at((6, 7), (8, 9))
    (part,), _ = split_pairs(second, len(doc), Limits())
    assert pair_names(doc, second, part)[0] == ("Paris (X, mention 2)", "Ann May (X)")


def test_the_example_is_answered_as_it_is_read() -> None:
    labelled = [label for *_, label in EXAMPLE[1:]]
    pairs = [(head, tail) for head, tail, _ in EXAMPLE[1:]]
    assert read(write_answer(labelled), *pairs).labels == dict(enumerate(labelled))


# --- sources --------------------------------------------------------------------------------------------------


def test_lines_of_glirel_are_read_and_the_rest_is_counted(tmp_path: Path) -> None:
    words = ["Ann", "of", "Bern"]
    ner = [[0, 0, "PER", "Ann"], [2, 2], [2, 2, "", "Bern"], [2, 3, "LOC", "?"], [0, "0", "PER"], "Ann", [0, 0, 7]]
    records = [{"tokenized_text": words, "ner": ner}, {"tokenized_text": [], "ner": []}, {"tokenized_text": words}, [1]]
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\n".join(json.dumps(record).encode() for record in records) + b'\n\n{"broken\n\xff\n')
    report = ConversionReport()
    (passage,) = read_json_lines(path, Vocab(), report)
    assert passage.candidates.spans.tolist() == [[0, 1], [2, 3]]
    assert passage.candidates.types == [("PER",), ("ENTITY",)]
    assert report.instances.left_out == {"no tokens": 1, "malformed instance": 4}
    assert passage.builder.mentions.left_out == {
        "duplicate mention": 1,
        "offsets outside the text": 1,
        "malformed mention": 3,
    }


def test_spans_of_documents_are_read() -> None:
    vocab = Vocab()
    doc = make_doc(vocab, "Ann of Bern", [(0, 1, "PER")])
    doc.spans["all"] = [doc[0:1], doc[0:3]]
    doc[2].is_sent_start = True
    read = [next(read_spacy_docs([doc], vocab, ConversionReport(), key)) for key in (None, "all")]
    assert [passage.candidates.spans.tolist() for passage in read] == [[[0, 1]], [[0, 1], [0, 3]]]
    assert [token.is_sent_start for token in read[0].builder.doc] == [True, False, True]
    with pytest.raises(ValueError, match="--spans-key is 'none', but no document has it"):
        list(read_spacy_docs([doc], vocab, ConversionReport(), "none"))


# --- the file of answers --------------------------------------------------------------------------------------


class Script:
    """Answers with the request in upper case, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, requests: Sequence[str]) -> list[Answer | None]:
        self.asked.append(list(requests))
        return [None if request == "None" else Answer(request.upper(), request != "b") for request in requests]


REQUESTS = ["a", "b", "None", "ü\u2028", "e", "f", "g"]
ANSWERS = [Answer("A"), Answer("B", False), None, *map(Answer, ("Ü\u2028", "E", "F", "G"))]


def test_a_run_goes_on_wherever_it_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "new" / "answers.jsonl"
    script = Script()
    file = AnswerFile(path, {"--seed": 1})
    assert list(file.answers(REQUESTS, script, 3)) == ANSWERS
    assert script.asked == [REQUESTS[:3], REQUESTS[3:6], REQUESTS[6:]] and file.reused == 0
    whole = path.read_bytes()
    borders = [place for place, byte in enumerate(whole) if byte == ord("\n")]
    for size in sorted({*range(0, len(whole), 20), *borders, *(border + 1 for border in borders[:-1])}):
        path.write_bytes(whole[:size])
        rest = Script()
        file = AnswerFile(path, {"--seed": 1})
        assert list(file.answers(REQUESTS, rest, 3)) == ANSWERS
        assert path.read_bytes() == whole
        assert rest.asked == script.asked[len(script.asked) - len(rest.asked) :]
        assert file.reused == sum(map(len, script.asked[: len(script.asked) - len(rest.asked)]))
    idle = Script()
    assert list(AnswerFile(path, {"--seed": 1}).answers([*REQUESTS, "h"], idle, 2)) == [*ANSWERS, Answer("H")]
    assert idle.asked == [["h"]]


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    list(AnswerFile(path, {"--seed": 1, "--window": 5}).answers(REQUESTS, Script(), 3))
    whole = path.read_bytes()
    for settings, requests, message in [
        ({"--seed": 2, "--window": 5}, REQUESTS, r"--seed is 2, but .* was begun with 1; expected the same"),
        ({"--seed": 1, "--new": 5}, REQUESTS, r"--new is 5, but .* was begun with None"),
        ({"--seed": 1}, ["a", "x"], r"answer 2 in .* is to another prompt"),
        ({"--seed": 1}, REQUESTS[:5], r"has more answers than the input now has prompts \(5\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            list(AnswerFile(path, settings).answers(requests, Script(), 3))
        assert path.read_bytes() == whole
    header, *batches = whole.splitlines(keepends=True)
    for content, number in [
        (b"a text of somebody", 1),
        (b"[]\n", 1),
        (header + b"{}\n" + batches[0], 2),
        (header + b'{"requests": ["a"], "answers": []}\n', 2),
        (header + b'{"requests": ["a"], "answers": [7]}\n', 2),
        (header + b'{"requests": ["a"], "answers": ["A"]}\n', 2),
        (header + b'{"requests": ["a"], "answers": [["A", 1]]}\n', 2),
    ]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"line {number} of .* is none that synthesize wrote"):
            list(AnswerFile(path, {"--seed": 1, "--window": 5}).answers(REQUESTS, Script(), 3))
        assert path.read_bytes() == content


def test_a_run_that_fails_at_once_leaves_no_file(tmp_path: Path) -> None:
    def fail(requests: Sequence[str]) -> list[Answer | None]:
        raise ValueError("no model")

    file = AnswerFile(tmp_path / "new" / "answers.jsonl", {})
    with pytest.raises(ValueError, match="no model"):
        list(file.answers(REQUESTS, fail, 2))
    assert not file.path.parent.exists()


# --- a random model -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("lm") / "base", spread=0.3)


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_an_answer_does_not_depend_on_the_batch(tiny_llama: Path, temperature: float) -> None:
    requests = ["Find it.", "x", "Marie Curie worked for the Sorbonne in Paris . " * 3, "日本語 </s>"]
    asker = Asker(str(tiny_llama), max_new_tokens=16, temperature=temperature, seed=3)
    together = asker(requests)
    assert together == [answer for request in requests for answer in asker([request])]
    assert together[::-1] == asker(requests[::-1])
    assert len(set(together)) > 1 and not all(answer.finished for answer in together if answer)
    other = Asker(str(tiny_llama), max_new_tokens=16, temperature=temperature, seed=4)(requests)
    assert (other == together) == (temperature == 0)


def test_samples_have_the_probabilities_of_the_softmax() -> None:
    scores = torch.tensor([2.0, 1.0, 0.0, -torch.inf])
    draw = SeededChoice(list(range(4000)))
    chosen = draw(torch.zeros(0), scores.expand(4000, 4)).argmax(-1)
    shares = torch.bincount(chosen, minlength=4) / 4000
    assert torch.allclose(shares, scores.softmax(-1), atol=0.03)


def test_a_request_that_has_no_place_is_not_answered(tiny_llama: Path) -> None:
    asker = Asker(str(tiny_llama), max_new_tokens=8)
    asker._loaded[0].config.max_position_embeddings = 20
    answers = asker(["x", "a long request " * 30, "y"])
    assert answers[1] is None and None not in (answers[0], answers[2])
    assert asker(["a long request " * 30]) == [None]


def test_a_chat_template_is_used_and_names_of_special_tokens_are_text(tiny_llama: Path) -> None:
    _, tokenizer = Asker(str(tiny_llama))._loaded
    text = without_special_tokens(tokenizer, "a </s> b <s>")
    assert text == "a < /s> b < s>"
    assert tokenizer.eos_token_id not in encode_prompts(tokenizer, [text])["input_ids"][0]
    tokenizer.chat_template = "{% for m in messages %}<s>{{ m['content'] }}{% endfor %}!"
    (ids,) = encode_prompts(tokenizer, [text])["input_ids"]
    assert ids.count(tokenizer.bos_token_id) == 1 and tokenizer.decode(ids) == f"<s>{text}!"


def test_an_answer_knows_whether_it_came_to_an_end(tiny_llama: Path) -> None:
    asker = Asker(str(tiny_llama), max_new_tokens=4)
    (cut_off,) = asker(["x"])
    model, tokenizer = asker._loaded
    assert cut_off is not None and not cut_off.finished
    model.generation_config.eos_token_id = tokenizer(cut_off.text, add_special_tokens=False)["input_ids"][-1]
    ended, long = asker(["x", "Find it."])
    assert ended is not None and ended.finished
    assert asker(["Find it."]) == [long]


def test_thoughts_that_the_template_begins_are_no_answers(tiny_llama: Path) -> None:
    asker = Asker(str(tiny_llama), max_new_tokens=4)
    asker._loaded[1].chat_template = "{{ messages[0]['content'] }}<think>\n"
    (answer,) = asker(["x"])
    assert answer is not None and answer.text.startswith("<think>")
    assert read_answer(answer, [ANN_BERN]).lines.read == 0


def test_what_a_model_cannot_do_is_one_sentence(tiny_llama: Path, tmp_path: Path) -> None:
    def too_much(**_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    asker = Asker(str(tiny_llama))
    asker._loaded[1].chat_template = "{{ raise_exception('no user here') }}"
    with pytest.raises(ValueError, match=r"the chat template of .* fails: no user here"):
        asker(["x"])
    asker._loaded[1].chat_template = None
    asker._loaded[0].generate = too_much
    with pytest.raises(ValueError, match="for answers to 2 prompts at once; expected a smaller --batch-size"):
        asker(["x", "y"])
    shutil.copytree(tiny_llama, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="cannot be loaded as a causal language model"):
        Asker(str(tmp_path / "damaged"))(["x"])
