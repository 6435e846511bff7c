"""The small parts of ``uc_uie``: windows, the reading of answers, gold annotations as lessons, the compact model."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest
import spacy
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

from spacy_ie_moe.relations import make_relation
from spacy_ie_moe.uc_uie.compact import OFFSET, make_compact, new_compact, train_tokenizer
from spacy_ie_moe.uc_uie.decoding import Answer
from spacy_ie_moe.uc_uie.doc_frames import frame_key, new_frame
from spacy_ie_moe.uc_uie.frames import CUT, NOT_GIVEN, UNGROUNDABLE, UNKNOWN_TYPE, Schema
from spacy_ie_moe.uc_uie.gold import LessonMaker, frames_in, given_events, gold_frames, known_places, task_of
from spacy_ie_moe.uc_uie.lessons import LessonSettings
from spacy_ie_moe.uc_uie.prompts import Prompter
from spacy_ie_moe.uc_uie.reading import attach, read_answer
from spacy_ie_moe.uc_uie.windows import Window, make_windows, merge_frames

from .conftest import make_tokenizer
from .uie import SCHEMAS, TEXTS, make_docs, make_tiny_tokenizer

nlp = spacy.blank("en")


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter(make_tiny_tokenizer())


# --- windows --------------------------------------------------------------------------------------------------

WORDS = st.lists(st.sampled_from(["a", "soup", "Sorbonne", ".", "日本", "x" * 30]), max_size=60)


@given(words=WORDS, limit=st.integers(1, 40))
def test_windows_cover_the_document_and_fit(prompter, words, limit):
    doc = spacy.tokens.Doc(nlp.vocab, words=words)
    windows = make_windows(doc, prompter, limit)
    assert {i for window in windows for i in range(*window)} == set(range(len(doc)))
    for window in windows:
        assert window.end - window.start == 1 or len(prompter.tokens(doc[window.start : window.end].text)) <= limit
    if len(windows) > 1 and limit > 30:  # a window holds what it can, but for the border of a word
        assert len(prompter.tokens(doc[: windows[0].end + 1].text)) > limit - 2
    assert all(one < other and one.end < other.end for one, other in itertools.pairwise(windows))


def test_windows_end_with_sentences(prompter):
    doc = nlp("The soup was great . The waiter was rude . The wine was good . The end came .")
    for token in doc:
        token.is_sent_start = token.i == 0 or doc[token.i - 1].text == "."
    windows = make_windows(doc, prompter, 30)
    assert len(windows) > 1
    assert all(doc[window.end].is_sent_start for window in windows[:-1])


def frame(kind: str, pos: tuple[int, int] | None, slots=(), score: float = 1.0) -> dict:
    return new_frame(nlp.make_doc("a b c d e f g h"), kind, pos, slots, score)


def test_frames_of_two_windows_are_merged():
    cut = frame("Speech", (1, 2), [("Speaker", (0, 1))], 0.9)
    whole = frame("Speech", (1, 2), [("Speaker", (0, 1)), ("Place", (3, 4))], 0.5)
    twice = [frame("PER", (0, 1), score=0.2), frame("PER", (0, 1), score=0.7)]
    other = frame("Speech", (1, 2), [("Speaker", (5, 6))], 0.3)
    first, second = Window(0, 6), Window(1, 8)
    merged = merge_frames([(first, cut), *[(first, each) for each in twice], (second, whole), (second, other)])
    assert [(each["type"], each["score"]) for each in merged] == [("PER", 0.7), ("Speech", 0.5), ("Speech", 0.3)]
    assert len(merge_frames([(first, each) for each in [cut, *twice, whole, other]])) == 4


def test_what_a_border_cuts_goes_where_the_next_window_has_all_of_it():
    first, second = Window(0, 4), Window(2, 8)
    cut, whole, inside = frame("PER", (3, 4)), frame("PER", (3, 5)), frame("PER", (2, 3))
    event, longer = frame("Speech", (1, 2), [("Place", (3, 4))]), frame("Speech", (1, 2), [("Place", (3, 5))])
    assert merge_frames([(first, cut), (second, whole)]) == [whole]
    assert merge_frames([(second, whole), (first, cut)]) == [whole]
    assert merge_frames([(first, event), (second, longer)]) == [longer]
    assert merge_frames([(first, cut), (second, frame("ORG", (3, 5)))]) == [cut, frame("ORG", (3, 5))], "another type"
    nested = frame("PER", (2, 4))
    assert merge_frames([(Window(0, 6), inside), (second, nested)]) == [inside, nested], "both lie inside"
    assert merge_frames([(first, cut)]) == [cut], "nothing else has it"


SPANS = st.tuples(st.integers(0, 6), st.integers(1, 2)).map(lambda drawn: (drawn[0], drawn[0] + drawn[1]))
SLOTS = st.lists(st.tuples(st.sampled_from(["Place", "Time"]), SPANS), max_size=3)
FOUND = st.tuples(st.sampled_from([(0, 4), (2, 8)]), st.sampled_from(["A", "B"]), st.none() | SPANS, SLOTS)


@given(st.lists(FOUND, max_size=12))
def test_merging_equals_comparing_all_frames(found):
    pairs = [(Window(*window), frame(kind, pos, slots)) for window, kind, pos, slots in found]
    pairs = [(window, each) for window, each in pairs if each["pos"] is not None or each["slots"]]
    best = {frame_key(each): (window, each) for window, each in reversed(pairs)}
    several = len({window for window, _ in best.values()}) > 1

    def spans(each: dict) -> set:
        own = [] if each["pos"] is None else [(None, *each["pos"])]
        return {*own, *((slot["type"], *slot["pos"]) for slot in each["slots"])}

    def goes(window: Window, each: dict, other: dict) -> bool:
        mine, theirs = spans(each), spans(other)
        if each["type"] != other["type"] or mine == theirs or len(mine) > len(theirs):
            return False
        return all(
            any(
                name == kind
                and (start == a or (a == window.start and start < a))
                and (end == b or (b == window.end and end > b))
                for name, start, end in theirs
            )
            for kind, a, b in mine
        )

    others = [each for _, each in best.values()]
    expected = [
        frame_key(each)
        for window, each in best.values()
        if not (several and any(goes(window, each, other) for other in others))
    ]
    assert sorted(map(repr, expected)) == sorted(repr(frame_key(each)) for each in merge_frames(pairs))


def test_many_relations_are_merged_in_reasonable_time():
    doc = nlp.make_doc(" ".join(["word"] * 4000))
    pairs = [
        (Window(2000 * (n % 2), 4000), new_frame(doc, "R", None, [("a", (n, n + 1)), ("b", (1, 2))]))
        for n in range(2, 3900)
    ]
    started = time.perf_counter()
    assert len(merge_frames(pairs)) == len(pairs)
    assert time.perf_counter() - started < 10


# --- answers --------------------------------------------------------------------------------------------------


def test_scores_are_geometric_means_of_the_tokens_of_a_frame():
    doc = nlp("Bob met Ann .")
    text = " {(PER: Bob): []} {(PER: Ann): []}"
    first, second = text.index("} ") + 1, len(text)
    answer = Answer(text, [5, first, second], [math.log(0.25), math.log(1.0), math.log(0.5)])
    frames, issues = read_answer(doc, Window(0, 4), answer, Schema.of(["PER"]))
    assert [each["text"] for each in frames] == ["Bob", "Ann"]
    assert [each["score"] for each in frames] == pytest.approx([0.5, 0.5])
    assert issues == []


def test_answers_about_a_window_lie_where_the_window_is():
    doc = nlp("Bob met Ann . Bob left .")
    answer = Answer(" {(Left: left): [(Who: Bob)]}", [29], [0.0])
    frames, _ = read_answer(doc, Window(4, 7), answer, Schema.of({"Left": ["Who"]}))
    assert frames[0]["pos"] == [5, 6]
    assert frames[0]["slots"][0]["pos"] == [4, 5]


def test_what_is_left_out_is_said():
    doc = nlp("Bob met Ann .")
    answer = Answer(" {(LOC: Bob): []} {(PER: Eve): []} {(PER: Ann): []}", [51], [0.0], finished=False)
    frames, issues = read_answer(doc, Window(0, 4), answer, Schema.of(["PER"]))
    assert [each["text"] for each in frames] == ["Ann"]
    assert [issue.kind for issue in issues] == [UNKNOWN_TYPE, UNGROUNDABLE, CUT]


# --- gold -----------------------------------------------------------------------------------------------------


def test_the_task_is_the_documents_or_else_that_of_the_schema():
    doc = nlp("x")
    assert task_of(doc, Schema.of(["PER"])) == "NER"
    assert task_of(doc, Schema.of({"a": ["head", "tail"]})) == "RE"
    doc._.uie_task = "ED"
    assert task_of(doc, Schema.of({"a": ["b"]})) == "ED"


def test_entities_and_relations_are_gold_where_there_are_no_frames():
    doc = nlp("Bob works for Acme")
    doc.set_ents([doc.char_span(0, 3, label="PER"), doc.char_span(14, 18, label="ORG")])
    doc._.relations = [make_relation(doc[0:1], doc[3:4], "works for"), make_relation(doc[3:4], doc[0:1], "owns")]
    schema = Schema.of({"PER": [], "works for": ["subject", "object"]})
    assert [
        (each["type"], each["pos"], [slot["pos"] for slot in each["slots"]]) for each in gold_frames(doc, schema)
    ] == [
        ("PER", [0, 1], []),
        ("works for", None, [[0, 1], [3, 4]]),
    ]


@pytest.mark.parametrize("capability", [None, "judging", "locating", "associating"])
@pytest.mark.parametrize("task", list(SCHEMAS))
def test_lessons_of_every_task_and_capability(prompter, task, capability):
    doc = next(doc for doc in make_docs(nlp.vocab) if doc._.uie_task == task)
    maker = LessonMaker(prompter, limit=100, settings=LessonSettings.plain())
    lesson = maker(doc, Schema.of(SCHEMAS[task]), random.Random(0), capability=capability)
    if task == "NER" and capability == "associating":
        assert lesson is None
        return
    assert lesson.capability == capability
    tokens = maker.tokens(lesson)
    assert prompter.read(tokens.target).text == lesson.target
    assert prompter.read(tokens.instruction[1:]).text == lesson.instruction


def test_a_lesson_on_a_window_has_the_frames_in_it(prompter):
    doc = nlp("Bob met Ann . " * 10)
    doc._.frames = [new_frame(doc, "PER", (i, i + 1), ()) for i in range(0, 40, 4)]
    maker = LessonMaker(prompter, limit=20, settings=LessonSettings.plain())
    rng = random.Random(0)
    for _ in range(20):
        lesson = maker(doc, Schema.of(["PER"]), rng)
        assert lesson.target.count("PER: Bob") == lesson.body.count("Bob") > 0


def test_an_empty_document_has_no_lesson(prompter):
    assert LessonMaker(prompter, limit=20)(nlp(""), Schema.of(["PER"]), random.Random(0)) is None


def test_the_events_whose_arguments_are_asked_for_are_given():
    doc = nlp("Bob left . Ann left .")
    doc._.frames = [new_frame(doc, "Left", (1, 2), [("Who", (0, 1))]), new_frame(doc, "Left", (4, 5), ())]
    events = given_events(doc, Window(0, 3), Schema.of({"Left": ["Who"]}))
    assert events == [new_frame(doc, "Left", (1, 2))]


def answer_to(text: str) -> Answer:
    return Answer(text, list(range(1, len(text) + 1)), [0.0] * len(text))


def test_arguments_go_to_the_given_event_and_not_to_an_earlier_mention_of_its_trigger():
    doc = nlp("They left early . Bob left Rome .")
    schema = Schema.of({"Left": {"slots": ["Who", "From"], "task": "EAE"}})
    event = new_frame(doc, "Left", (5, 6))
    window = Window(1, 8)
    answer = answer_to("{(Left: Left): [(Who: Bob), (From: Rome)]}")
    found, issues = read_answer(doc, window, answer, schema, known_places(doc, window, [event]))
    assert not issues
    (frame,), issues = attach([event], found)
    assert not issues
    assert (frame["pos"], [slot["text"] for slot in frame["slots"]]) == ([5, 6], ["Bob", "Rome"])


def test_answers_to_given_events_are_joined_and_handed_out():
    doc = nlp("a b c d e f g h")
    event, other = new_frame(doc, "Left", (1, 2)), new_frame(doc, "Left", (4, 5))
    first = new_frame(doc, "Left", (1, 2), [("Who", (0, 1))], 0.4)
    second = new_frame(doc, "Left", (1, 2), [("Who", (0, 1)), ("From", (2, 3))], 0.6)
    (joined, empty), issues = attach([event, other], [first, second])
    assert [(slot["type"], slot["pos"], slot["score"]) for slot in joined["slots"]] == [
        ("Who", [0, 1], 0.6), ("From", [2, 3], 0.6)
    ]  # fmt: skip
    assert (joined["score"], empty, issues) == (0.6, other, [])
    assert attach([event, event, event], [first, second])[0] == [first, second, event], "events that are the same"
    frames, (issue,) = attach([other], [first])
    assert frames == [other] and issue.kind == NOT_GIVEN


def test_events_keep_the_slots_that_are_in_the_window():
    doc = nlp("a b c d e f g h")
    event = new_frame(doc, "Left", (1, 2), [("Who", (0, 1)), ("From", (6, 7))])
    relation = new_frame(doc, "in", None, [("subject", (0, 1)), ("object", (6, 7))])
    assert frames_in([event, relation], Window(0, 4)) == [new_frame(doc, "Left", (1, 2), [("Who", (0, 1))])]
    assert frames_in([event, relation], Window(0, 8)) == [event, relation]
    assert frames_in([event, relation], Window(4, 8)) == []


def test_relations_of_other_slots_need_frames():
    doc = nlp("Bob met Ann")
    doc._.relations = [make_relation(doc[0:1], doc[2:3], "met", 1.0)]
    with pytest.raises(ValueError, match="slots of frame type 'met' are by, whom; expected subject and object"):
        gold_frames(doc, Schema.of({"met": {"slots": ["by", "whom"], "task": "RE"}}))


# --- the compact model ----------------------------------------------------------------------------------------


def test_the_compact_model_has_the_encoders_blocks(tmp_path):
    make_tokenizer(tmp_path)
    pieces = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    torch.manual_seed(0)
    encoder = BertModel(
        BertConfig(
            vocab_size=pieces.get_vocab_size(), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=64,
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    tokenizer = train_tokenizer(TEXTS, 400)
    model = make_compact(encoder, pieces, tokenizer).eval()
    decoder = model.model.decoder
    # On the same vectors and with one word alone, where there is nothing to mask, the blocks compute the same.
    vectors = torch.randn(3, 1, 32)
    ours = theirs = vectors
    for one, other in zip(decoder.layers, encoder.encoder.layer, strict=True):
        ours = one(ours, attention_mask=None)[0]
        theirs = other(theirs)[0]
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert decoder.embed_positions.weight.shape[0] == 64 + OFFSET
    ids = torch.tensor([tokenizer(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        logits = model(ids, attention_mask=torch.ones_like(ids)).logits
        again = model(ids[:, :5], attention_mask=torch.ones(1, 5)).logits
    assert torch.allclose(logits[:, :5], again, atol=1e-5)  # it is causal


def test_a_random_compact_model_is_made_without_an_encoder():
    model = new_compact(train_tokenizer(TEXTS, 400))
    assert model.num_parameters() < 200_000
