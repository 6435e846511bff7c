"""The scores of frames on cases counted by hand, and ``spacy-ie-moe evaluate`` with a component that finds frames."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example
from typer.testing import CliRunner

from spacy_ie_moe.cli import app
from spacy_ie_moe.uc_uie.doc_frames import new_frame
from spacy_ie_moe.uc_uie.frames import Schema
from spacy_ie_moe.uie_scoring import FrameScores, make_frame_scorer, score_frames

NLP = spacy.blank("en")
WORDS = "Ann Lee met Bob in Rome and Ann Lee left Rome .".split()  # noqa: SIM905
ANN, MET, BOB, ROME, ANN_AGAIN, LEFT, ROME_AGAIN = (0, 2), (2, 3), (3, 4), (5, 6), (7, 9), (9, 10), (10, 11)

Pos = tuple[int, int]
Slots = tuple[tuple[str, Pos], ...]


def frame(doc: Doc, kind: str, pos: Pos | None = None, *slots: tuple[str, Pos]) -> dict[str, Any]:
    return new_frame(doc, kind, pos, slots)


def make(task: str, *frames: tuple[Any, ...], schema: Any = None, words: list[str] = WORDS) -> Doc:
    doc = Doc(NLP.vocab, words=words)
    doc._.uie_task = task
    doc._.uie_schema = schema
    doc._.frames = [frame(doc, *each) for each in frames]
    return doc


def score(gold: Doc, predicted: Doc) -> FrameScores:
    return score_frames([Example(predicted, gold)])


def counts(scores: FrameScores, metric: str, kind: str = "offset") -> tuple[int, int, int]:
    micro = getattr(scores.metrics[metric], kind).micro
    return micro.tp, micro.fp, micro.fn


def f1(tp: int, fp: int, fn: int) -> float:
    return 2 * tp / (2 * tp + fp + fn)


def test_entities_in_offsets_and_in_strings() -> None:
    gold = make("NER", ("PER", ANN), ("PER", BOB), ("LOC", ROME), ("PER", ANN_AGAIN), ("LOC", ROME_AGAIN))
    found = make("", ("PER", ANN), ("ORG", BOB), ("LOC", ROME), ("LOC", ROME), ("PER", (6, 7)))
    scores = score(gold, found)
    # Right: Ann, Rome (twice at one place counts once). Wrong: Bob as ORG, "and". Missed: Bob, the second Ann and Rome.
    assert counts(scores, "ner") == (2, 2, 3)
    # As strings gold is Ann Lee, Bob, Rome: Bob is missed, ORG and "and" are wrong.
    assert counts(scores, "ner", "string") == (2, 2, 1)
    per_type = {name: (each.tp, each.fp, each.fn) for name, each in scores.metrics["ner"].offset.per_label.items()}
    assert per_type == {"PER": (1, 1, 2), "LOC": (1, 0, 1), "ORG": (0, 1, 0)}
    assert scores.mean_f1() == pytest.approx(f1(2, 2, 3))
    assert scores.mean_f1("string") == pytest.approx(f1(2, 2, 1))


def test_strings_have_no_case() -> None:
    gold = make("NER", ("LOC", ROME), words=[*WORDS[:10], "rome", "."])
    found = make("", ("LOC", ROME_AGAIN), words=[*WORDS[:10], "rome", "."])
    assert counts(score(gold, found), "ner") == (0, 1, 1)
    assert counts(score(gold, found), "ner", "string") == (1, 0, 0)


IN = ("in", None, ("subject", ANN), ("object", ROME))
MEETS = ("meets", None, ("subject", ANN), ("object", BOB))


def test_relations() -> None:
    gold = make("RE", IN, MEETS)
    found = make(
        "",
        ("in", None, ("object", ROME), ("subject", ANN)),  # right, whatever the order of the slots
        ("meets", None, ("subject", BOB), ("object", ANN)),  # the wrong way round
        ("in", None, ("subject", ANN_AGAIN), ("object", ROME_AGAIN)),  # other mentions
        ("PER", ANN),  # not a relation
    )
    scores = score(gold, found)
    assert counts(scores, "re") == (1, 2, 1)
    assert counts(scores, "re", "string") == (1, 1, 1), "the other mentions are the same words"
    assert "re_strict" not in scores.metrics, "gold has no entity types"


def test_relations_with_words_of_their_own_count_too() -> None:
    found = make("", ("in", MET, ("subject", ANN), ("object", ROME)), ("in", MET, ("subject", BOB), ("object", ROME)))
    assert counts(score(make("RE", IN), found), "re") == (1, 1, 0)


def test_gold_is_what_training_takes_for_it() -> None:
    gold, found = make(""), make("", ("PER", ANN), ("PER", BOB))
    gold.ents = [Span(gold, *ANN, "PER"), Span(gold, *ROME, "LOC")]
    assert score_frames([Example(found, gold)]).tasks == {}, "nobody says what was annotated"
    scores = score_frames([Example(found, gold)], Schema.of(["PER", "LOC"]))
    assert (scores.tasks, counts(scores, "ner")) == ({"NER": 1}, (1, 1, 1))
    mixed = Schema.of({"PER": [], "in": ["subject", "object"]})
    assert score_frames([Example(found, gold)], mixed).tasks == {}, "one of two tasks"
    gold._.uie_schema = ["PER"]
    assert counts(score_frames([Example(found, gold)], mixed), "ner") == (1, 1, 0)


def test_strict_relations_agree_in_entity_types() -> None:
    gold, found = make("RE", IN, MEETS), make("", IN, MEETS)
    gold.ents = [Span(gold, *ANN, "PER"), Span(gold, *ROME, "LOC"), Span(gold, *BOB, "PER")]
    found.ents = [Span(found, *ANN, "PER"), Span(found, *ROME, "GPE"), Span(found, *BOB, "PER")]
    scores = score(gold, found)
    assert counts(scores, "re") == (2, 0, 0)
    assert counts(scores, "re_strict") == counts(scores, "re_strict", "string") == (1, 1, 1)
    found.ents = []
    found._.frames = [*found._.frames, frame(found, "PER", ANN), frame(found, "LOC", ROME)]
    assert counts(score(gold, found), "re_strict") == (1, 1, 1), "Bob has no type now, Rome the right one"
    bare = make("", IN, MEETS)
    assert "re_strict" not in score(gold, bare).metrics, "what was found has no entity types"
    gold.ents = []
    gold.spans["entities"] = [Span(gold, *ANN, "PER"), Span(gold, *ROME, "LOC"), Span(gold, *BOB, "PER")]
    assert counts(score(gold, found), "re_strict") == (1, 1, 1)


MEET = ("Meet", MET, ("Who", ANN), ("Who", BOB), ("Where", ROME))
LEAVE = ("Leave", LEFT, ("Who", ANN_AGAIN), ("Where", ROME_AGAIN))


def test_triggers_and_arguments() -> None:
    gold = make("EE", MEET, LEAVE)
    found = make(
        "",
        ("Meet", MET, ("Who", ANN), ("Where", BOB), ("Where", ROME)),  # Bob in the wrong role
        ("Move", LEFT, ("Who", ANN_AGAIN)),  # the wrong event type
        ("Meet", (6, 7)),  # no trigger
    )
    scores = score(gold, found)
    assert counts(scores, "trig_i") == (2, 1, 0)
    assert counts(scores, "trig") == (1, 2, 1)
    assert counts(scores, "arg_i") == (3, 1, 2), "Ann, Bob, Rome of Meet; Ann of Move is wrong"
    assert counts(scores, "arg") == (2, 2, 3)
    per_type = {name: (each.tp, each.fp, each.fn) for name, each in scores.metrics["arg"].offset.per_label.items()}
    assert per_type == {"Meet": (2, 1, 1), "Leave": (0, 0, 2), "Move": (0, 1, 0)}
    assert scores.mean_f1() == pytest.approx((f1(1, 2, 1) + f1(2, 2, 3)) / 2)


def test_an_event_document_is_scored_for_what_it_is_annotated_for() -> None:
    assert set(score(make("ED", MEET), make("", MEET)).metrics) == {"trig_i", "trig"}
    arguments = score(make("EAE", MEET), make("", ("Meet", MET, ("Who", ANN)), ("Leave", LEFT)))
    assert set(arguments.metrics) == {"arg_i", "arg"}
    assert counts(arguments, "arg") == (1, 0, 2)


def test_an_argument_of_two_events_of_a_type_counts_once() -> None:
    twice = make("EE", ("Meet", MET, ("Who", ANN)), ("Meet", LEFT, ("Who", ANN)))
    assert counts(score(twice, twice), "arg") == (1, 0, 0)
    assert counts(score(twice, twice), "trig") == (2, 0, 0)


def test_opinions() -> None:
    good = ("positive", None, ("aspect", BOB), ("opinion", MET))
    scores = score(
        make("ABSA", good, ("negative", None, ("aspect", ROME), ("opinion", LEFT))),
        make("", good, ("neutral", None, ("aspect", ROME), ("opinion", LEFT)), ("positive", None, ("aspect", ROME))),
    )
    assert counts(scores, "absa") == (1, 2, 1)
    assert set(scores.metrics) == {"absa"}


def test_types_that_the_document_is_not_annotated_for() -> None:
    gold = make("NER", ("PER", ANN), ("MISC", BOB), schema={"PER": []})
    found = make("", ("PER", ANN), ("MISC", BOB), ("LOC", ROME), ("Meet", MET))
    assert counts(score(gold, found), "ner") == (2, 0, 0), "MISC is in gold if not in the schema"
    gold._.uie_schema = {"PER": [], "LOC": []}
    assert counts(score(gold, found), "ner") == (2, 1, 0)
    gold._.uie_schema = None
    assert counts(score(gold, found), "ner") == (2, 2, 0)


def test_other_tokens_of_the_same_text() -> None:
    words = ["A", "nn", *WORDS[1:]]
    finer = Doc(NLP.vocab, words=words, spaces=[False, *[True] * len(WORDS)])
    finer._.frames = [frame(finer, "PER", (0, 3)), frame(finer, "PER", (4, 5))]
    assert counts(score(make("NER", ("PER", ANN), ("PER", BOB)), finer), "ner") == (2, 0, 0)
    with pytest.raises(ValueError, match="different texts"):
        score(make("NER"), make("", words=["other"]))


def test_documents_that_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="task is 'QA'; expected one of NER"):
        score(make("QA"), make(""))
    broken = make("")
    broken._.frames = [{**frame(broken, "PER", ANN), "pos": [3, 40]}]
    with pytest.raises(ValueError, match="pos"):
        score(make("NER", ("PER", ANN)), broken)


def test_answers_that_could_not_be_used() -> None:
    first = make("", ("PER", ANN), IN)
    first._.uie_issues = [
        {"kind": "malformed", "message": "x"},
        {"kind": "truncated", "message": "x"},
        {"kind": "ungroundable", "message": "x"},
        {"kind": "unknown type", "message": "x"},
        {"kind": "surplus", "message": "x"},
    ]
    scores = score_frames([Example(first, make("NER")), Example(make(""), make("NER")), Example(make(""), make(""))])
    assert scores.tasks == {"NER": 2}, "a document without a task is left out"
    outputs = scores.outputs
    assert (outputs.documents, outputs.malformed) == (2, 1)
    assert (outputs.fillers, outputs.ungroundable) == (4, 1), "three were found, one was not"
    assert (outputs.frames, outputs.unknown_types) == (3, 1)
    assert outputs.shares == {"malformed": 1 / 2, "ungroundable": 1 / 4, "unknown_type": 1 / 3}


def test_given_triggers_are_not_what_the_model_wrote() -> None:
    outputs = score(make("EAE", MEET), make("", ("Meet", MET, ("Who", ANN)), ("Leave", LEFT))).outputs
    assert (outputs.fillers, outputs.frames) == (1, 1)
    assert score(make("EE", MEET), make("", ("Meet", MET, ("Who", ANN)), ("Leave", LEFT))).outputs.fillers == 3


def test_the_registered_scorer() -> None:
    scorer = spacy.registry.get("scorers", "spacy_ie_moe.frame_scorer.v1")()
    assert scorer == make_frame_scorer() == pickle.loads(pickle.dumps(scorer))
    examples = [
        Example(make("", ("PER", ANN), ("PER", BOB)), make("NER", ("PER", ANN), ("PER", ROME))),
        Example(make("", IN), make("RE", IN)),
    ]
    values = scorer(examples)
    assert (values["uie_ner_p"], values["uie_ner_r"], values["uie_ner_f"]) == (0.5, 0.5, 0.5)
    assert values["uie_ner_per_type"] == {"PER": {"p": 0.5, "r": 0.5, "f": 0.5}}
    assert values["uie_re_f"] == values["uie_re_string_f"] == 1.0
    assert values["uie_f"] == values["uie_string_f"] == 0.75
    assert values["uie_trig_f"] is values["uie_arg_f"] is values["uie_absa_f"] is values["uie_re_strict_f"] is None
    assert values["uie_malformed"] == values["uie_ungroundable"] == values["uie_unknown_type"] == 0.0
    nothing = scorer([Example(make(""), make(""))])
    assert set(nothing) == set(values) and set(nothing.values()) == {None}
    json.dumps(score_frames(examples).to_json())


def test_a_document_without_gold_frames_counts_all_as_wrong() -> None:
    assert counts(score(make("NER"), make("", ("PER", ANN))), "ner") == (0, 1, 0)
    assert make_frame_scorer()([Example(make("", ("PER", ANN)), make("NER"))])["uie_ner_f"] == 0.0


# --- spacy-ie-moe evaluate ------------------------------------------------------------------------------------------


@Language.factory("toy_frames", assigns=["doc._.frames", "doc._.relations"])
class ToyFrames:
    """Finds every "Rome", of the first type it is asked for; as an argument of all events that it is given."""

    def __init__(self, nlp: Language, name: str) -> None:
        self.name = name

    def __call__(self, doc: Doc) -> Doc:
        kind, slots = next(iter((doc._.uie_schema or {"any": []}).items()))
        romes = [(token.i, token.i + 1) for token in doc if token.text == "Rome"]
        if doc._.uie_task == "EAE":
            given = [(each["type"], each["pos"]) for each in doc._.frames if not each["slots"]]
            doc._.frames = [new_frame(doc, *event, [(slots[0], rome) for rome in romes]) for event in given]
        else:
            doc._.frames = [new_frame(doc, kind, rome, []) for rome in romes]
        return doc

    def to_disk(self, path, exclude=()) -> None:
        """Nothing to keep."""

    def from_disk(self, path, exclude=()) -> ToyFrames:
        return self


@pytest.fixture
def model(tmp_path: Path) -> Path:
    nlp = spacy.blank("en")
    nlp.add_pipe("toy_frames")
    nlp.to_disk(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    docs = [
        make("NER", ("LOC", ROME), ("PER", ANN), schema={"LOC": [], "PER": []}),
        make("EAE", ("Leave", LEFT, ("Where", ROME_AGAIN)), schema={"Leave": ["Where", "Who"]}),
    ]
    DocBin(docs=[*docs, make("", ("LOC", ROME))], store_user_data=True).to_disk(tmp_path / "gold.spacy")
    return tmp_path / "gold.spacy"


def run(*arguments: object):
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_evaluate(model: Path, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.json"
    result = run(model, data, "--output", file, "--bootstrap", 20)
    assert result.exit_code == 0, result.output
    scores = json.loads(file.read_text(encoding="utf8"))
    assert scores["settings"] == {"model": str(model), "data": [str(data)]}
    assert scores["frames"]["documents"] == {"EAE": 1, "NER": 1}
    ner, arg = (scores["frames"]["metrics"][name]["offset"]["micro"] for name in ("ner", "arg"))
    assert (ner["tp"], ner["fp"], ner["fn"]) == (1, 1, 1)
    assert (arg["tp"], arg["fp"], arg["fn"]) == (1, 1, 0), "the event is given"
    assert set(scores["f1_intervals"]) == {"ner", "arg_i", "arg"}
    assert "2 documents: 1 EAE, 1 NER" in result.stdout
    assert "1 documents are left out" in result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["NER", "50.00", "50.00", "50.00", "1", "1", "1"] in rows
    assert ["EAE,", "Arg-C", "50.00", "100.00", "66.67", "1", "1", "0"] in rows
    assert ["mean", "over", "tasks", "58.33"] in rows
    assert "   0.00 % of 2 documents with malformed answers" in result.stdout


def test_options_of_relations_do_not_fit(model: Path, data: Path) -> None:
    for option in (["--labels", "in"], ["--threshold", "0.5"], ["--symmetric", "in"], ["--gold-ents"]):
        result = run(model, data, *option)
        assert result.exit_code == 1 and f"{option[0]} given, but the data are annotated with frames" in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_data_without_frames(model: Path, tmp_path: Path) -> None:
    DocBin(docs=[make("")], store_user_data=True).to_disk(tmp_path / "bare.spacy")
    result = run(model, tmp_path / "bare.spacy")
    assert result.exit_code == 1 and "the data have no relation" in result.stderr
