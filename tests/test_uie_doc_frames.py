"""``Doc._.frames`` and what reads it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin

from spacy_ie_moe.uc_uie.doc_frames import (
    check_frame,
    frame_key,
    make_frame,
    new_frame,
    require_frame_extensions,
    sort_frames,
    to_entities,
    to_relations,
    to_strings,
)
from spacy_ie_moe.uc_uie.frames import Frame, Schema, Slot, read_frames, write_frames
from spacy_ie_moe.uc_uie.grounding import ground

from .conftest import make_doc

TEXT = "Alice founded Acme Corp in Paris"
SCHEMA = Schema.of({"PER": [], "ORG": [], "founder": ["subject", "object"], "Start": ["agent", "org"]})
ROLES = [("agent", (0, 1)), ("org", (2, 4))]
RELATION = [("subject", (2, 4)), ("object", (0, 1))]


@pytest.fixture
def doc() -> Doc:
    return make_doc(spacy.blank("en"), TEXT)


def annotate(doc: Doc) -> None:
    """Frames of every kind, and all else that a document may have."""
    doc._.frames = sort_frames(
        [
            new_frame(doc, "Start", (1, 2), ROLES, 0.25),
            new_frame(doc, "founder", None, RELATION, 0.5),
            new_frame(doc, "PER", (0, 1)),
        ]
    )
    doc._.uie_issues = [{"kind": "ungroundable", "message": "(PER: Bob) is left out: it is not in the text."}]
    doc._.uie_task = "EE"
    doc._.uie_schema = SCHEMA.to_config()


@Language.component("annotate_frames_for_tests")
def annotate_frames(doc: Doc) -> Doc:
    if len(doc) >= 6:
        annotate(doc)
    return doc


def test_a_frame_is_plain_values(doc: Doc) -> None:
    frame = new_frame(doc, "Start", (1, 2), ROLES, 1)
    assert frame == {
        "type": "Start",
        "pos": [1, 2],
        "text": "founded",
        "score": 1.0,
        "slots": [
            {"type": "agent", "pos": [0, 1], "text": "Alice", "score": 1.0},
            {"type": "org", "pos": [2, 4], "text": "Acme Corp", "score": 1.0},
        ],
    }
    assert [type(part["score"]) for part in (frame, *frame["slots"])] == [float] * 3
    relation = new_frame(doc, "founder", None, RELATION)
    assert (relation["pos"], relation["text"]) == (None, "")


def test_from_an_answer_to_the_document_and_back(doc: Doc) -> None:
    answer = "{(Start: founded): [(agent: Alice), (org: acme corp)]} "
    answer += "{(founder: Null): [(subject: Acme Corp), (object: Alice)]}"
    frames, issues = read_frames(answer, SCHEMA)
    grounded, ungrounded = ground(frames, doc.text)
    assert issues == ungrounded == []
    made = [make_frame(doc, frame, 0.5) for frame in grounded]
    assert made == [new_frame(doc, "Start", (1, 2), ROLES, 0.5), new_frame(doc, "founder", None, RELATION, 0.5)]
    strings = to_strings(doc, made)
    assert strings == [
        Frame("Start", "founded", (Slot("agent", "Alice"), Slot("org", "Acme Corp"))),
        Frame("founder", None, (Slot("subject", "Acme Corp"), Slot("object", "Alice"))),
    ]
    assert write_frames(strings) == answer.replace("acme corp", "Acme Corp")


def test_slots_may_have_scores_of_their_own(doc: Doc) -> None:
    (grounded,), _ = ground([Frame("Start", "founded", (Slot("agent", "Alice"), Slot("org", "Acme")))], doc.text)
    frame = make_frame(doc, grounded, 0.5, [0.25, 1])
    assert [part["score"] for part in (frame, *frame["slots"])] == [0.5, 0.25, 1.0]
    with pytest.raises(ValueError, match="slot_scores has 1 scores; expected one for each of the 2 slots"):
        make_frame(doc, grounded, 0.5, [0.25])


def test_spans_within_tokens_become_the_tokens() -> None:
    words = ["Anti-Acmean", "unAmerican", "New", " ", "York"]
    doc = Doc(spacy.blank("en").vocab, words=words, spaces=[True, True, True, False, False])
    frames = [Frame("ORG", "Acme", (Slot("x", "America"), Slot("x", "new york"), Slot("x", "can New")))]
    grounded, issues = ground(frames, doc.text)
    assert issues == []
    frame = make_frame(doc, grounded[0])
    assert [part["text"] for part in (frame, *frame["slots"])] == [
        "Anti-Acmean",
        "unAmerican",
        "New  York",
        "unAmerican New",
    ]


def test_offsets_beyond_the_text_are_refused(doc: Doc) -> None:
    (grounded,), _ = ground([Frame("PER", "Bob")], " " * len(doc.text) + "Bob")
    with pytest.raises(ValueError, match=r"offsets of a span are \(33, 36\); expected .* in the text's 33 characters"):
        make_frame(doc, grounded)


def test_documents_start_without_frames_and_do_not_share_them(doc: Doc) -> None:
    other = make_doc(doc.vocab, "nothing")
    doc._.frames.append(new_frame(doc, "PER", (0, 1)))
    doc._.uie_issues.append({"kind": "empty", "message": "nothing"})
    assert (other._.frames, other._.frame_spans, other._.uie_issues) == ([], [], [])
    assert (other._.uie_task, other._.uie_schema) == ("", None)


def check_annotated(doc: Doc, expected: Doc) -> None:
    """The document has the frames of ``annotate``, whatever became of lists."""
    for frame in doc._.frames:
        check_frame(doc, frame)
    assert [frame_key(frame) for frame in doc._.frames] == [frame_key(frame) for frame in expected._.frames]
    person, relation, event = doc._.frame_spans
    assert (person.type, person.span.text, person.span.label_, person.slots, person.score) == (
        "PER",
        "Alice",
        "PER",
        (),
        1,
    )
    assert (relation.type, relation.span, relation.score) == ("founder", None, 0.5)
    assert [(slot.type, slot.span.text, slot.span.label_, slot.score) for slot in event.slots] == [
        ("agent", "Alice", "agent", 0.25),
        ("org", "Acme Corp", "org", 0.25),
    ]
    assert [frame.type for frame in to_strings(doc, doc._.frames)] == ["PER", "founder", "Start"]
    assert [relation["label"] for relation in to_relations(doc, doc._.frames, doc._.uie_schema)] == ["founder"]
    assert Schema.of(doc._.uie_schema) == SCHEMA
    assert doc._.uie_task == "EE"
    assert [dict(issue) for issue in doc._.uie_issues] == expected._.uie_issues


@pytest.mark.parametrize("way", ["none", "bytes", "disk", "docbin", "pickle", "copy"])
def test_frames_survive_serialisation(doc: Doc, way: str, tmp_path: Path) -> None:
    annotate(doc)
    if way == "none":
        again = doc
    elif way == "bytes":
        again = Doc(doc.vocab).from_bytes(doc.to_bytes())
    elif way == "disk":
        doc.to_disk(tmp_path / "doc")
        again = Doc(doc.vocab).from_disk(tmp_path / "doc")
    elif way == "docbin":
        data = DocBin(docs=[doc], store_user_data=True).to_bytes()
        (again,) = DocBin(store_user_data=True).from_bytes(data).get_docs(doc.vocab)
        assert isinstance(again._.frames[0]["pos"], tuple)
    elif way == "pickle":
        again = pickle.loads(pickle.dumps(doc))
    else:
        again = doc.copy()
    check_annotated(again, doc)


def test_frames_survive_processes(doc: Doc) -> None:
    annotate(doc)
    nlp = spacy.blank("en")
    nlp.add_pipe("annotate_frames_for_tests")
    docs = list(nlp.pipe([TEXT, "nothing", TEXT], n_process=2, batch_size=1))
    check_annotated(docs[0], doc)
    check_annotated(docs[2], doc)
    assert docs[1]._.frames == []


def test_frames_are_sorted_in_text_order(doc: Doc) -> None:
    expected = [
        new_frame(doc, "A", (0, 1)),
        new_frame(doc, "B", (0, 1), [("x", (3, 4))]),
        new_frame(doc, "B", None, [("y", (3, 4)), ("x", (0, 1))]),
        new_frame(doc, "A", (0, 2)),
        new_frame(doc, "C", (1, 2), [("x", (0, 1))]),
        new_frame(doc, "C", (1, 2), [("x", (4, 5))]),
        new_frame(doc, "A", None, [("x", (2, 3))]),
        new_frame(doc, "A", (5, 6)),
        new_frame(doc, "A", None),
    ]
    assert sort_frames(reversed(expected)) == expected


def test_identity_is_types_and_tokens(doc: Doc) -> None:
    frame = new_frame(doc, "Start", (1, 2), ROLES)
    same = {**new_frame(doc, "Start", (1, 2), ROLES[::-1], 0.5), "pos": (1, 2)}
    assert frame_key(frame) == frame_key(same)
    others = [
        new_frame(doc, "End", (1, 2), ROLES),
        new_frame(doc, "Start", (1, 3), ROLES),
        new_frame(doc, "Start", None, ROLES),
        new_frame(doc, "Start", (1, 2), ROLES[:1]),
        new_frame(doc, "Start", (1, 2), [("agent", (2, 4)), ("org", (0, 1))]),
    ]
    assert len({frame_key(each) for each in [frame, same, *others]}) == 6


def test_entities_are_frames_of_ner_types(doc: Doc) -> None:
    frames = [
        new_frame(doc, "ORG", (2, 4)),
        new_frame(doc, "PER", (0, 1)),
        new_frame(doc, "PER", (0, 1)),
        new_frame(doc, "PER", None),
        new_frame(doc, "Start", (1, 2), ROLES),
        new_frame(doc, "LOC", (5, 6)),
    ]
    entities = to_entities(doc, frames, SCHEMA)
    assert [(span.text, span.label_) for span in entities] == [("Acme Corp", "ORG"), ("Alice", "PER")]
    doc.ents = entities


def test_relations_are_frames_of_two_arguments(doc: Doc) -> None:
    schema = {**SCHEMA.to_dict(), "in": ["head", "tail"], "odd": {"slots": ["x", "y"], "task": "RE"}}
    frames = [
        new_frame(doc, "in", None, [("tail", (5, 6)), ("head", (2, 4))], 0.75),
        new_frame(doc, "founder", None, RELATION, 0.25),
        new_frame(doc, "founder", None, RELATION[::-1], 0.5),
        new_frame(doc, "founder", None, RELATION[:1]),
        new_frame(doc, "founder", None, [*RELATION, ("object", (5, 6))]),
        new_frame(doc, "odd", None, [("x", (0, 1)), ("y", (2, 4))]),
        new_frame(doc, "Start", (1, 2), ROLES),
        new_frame(doc, "spouse", None, RELATION),
        new_frame(doc, "ORG", (2, 4)),
        new_frame(doc, "PER", (0, 2)),
    ]
    assert to_relations(doc, frames, schema) == [
        {
            "head_pos": [2, 4],
            "tail_pos": [5, 6],
            "head_text": ["Acme", "Corp"],
            "tail_text": ["Paris"],
            "label": "in",
            "score": 0.75,
            "head_label": "ORG",
            "tail_label": "",
        },
        {
            "head_pos": [2, 4],
            "tail_pos": [0, 1],
            "head_text": ["Acme", "Corp"],
            "tail_text": ["Alice"],
            "label": "founder",
            "score": 0.5,
            "head_label": "ORG",
            "tail_label": "",
        },
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": None}, "type of a frame is None; expected a string"),
        ({"pos": [1, 1]}, r"pos of a frame is \[1, 1\]; expected token offsets .* <= 6 or None"),
        ({"pos": [-1, 1]}, "pos of a frame is"),
        ({"pos": [1, 7]}, "pos of a frame is"),
        ({"pos": [1]}, "pos of a frame is"),
        ({"pos": "ab"}, "pos of a frame is"),
        ({"pos": [1.0, 2.0]}, "pos of a frame is"),
        ({"text": None}, "text of a frame is None; expected a string"),
        ({"score": "high"}, "score of a frame is 'high'; expected a number"),
        ({"slots": None}, "slots of a frame is None; expected a list of dicts"),
        ({"slots": {}}, "slots of a frame is {}"),
        ({"slots": [3]}, "a slot of a frame is 3; expected a dict"),
        ({"slots": [{"pos": [0, 1]}]}, "type of a slot is None"),
        ({"slots": [{"type": "x"}]}, "pos of a slot is None; expected token offsets .* <= 6[.]"),
        ({"slots": [{"type": "x", "pos": [0, 1], "score": None}]}, "score of a slot is None"),
    ],
)
def test_wrong_frames_are_named(doc: Doc, change: dict[str, Any], message: str) -> None:
    frame = {**new_frame(doc, "Start", (1, 2), ROLES), **change}
    with pytest.raises(ValueError, match=message):
        check_frame(doc, frame)


def test_wrong_new_frames_are_named(doc: Doc) -> None:
    with pytest.raises(ValueError, match=r"pos of a slot is \(5, 9\)"):
        new_frame(doc, "Start", (1, 2), [("agent", (5, 9))])
    with pytest.raises(ValueError, match="a frame is 3; expected a dict"):
        check_frame(doc, 3)  # type: ignore[arg-type]


def test_gold_without_scores_and_texts_is_read(doc: Doc) -> None:
    doc._.frames = [{"type": "founder", "pos": None, "slots": [{"type": name, "pos": pos} for name, pos in RELATION]}]
    check_frame(doc, doc._.frames[0])
    (view,) = doc._.frame_spans
    assert (view.score, view.slots[0].score) == (1, 1)
    assert to_relations(doc, doc._.frames, SCHEMA)[0]["score"] == 1.0


def test_extensions_of_another_package_are_left_alone() -> None:
    code = (
        "from spacy.tokens import Doc\n"
        "Doc.set_extension('uie_task', default='theirs')\n"
        "from spacy_ie_moe.uc_uie import doc_frames\n"
        "try:\n"
        "    doc_frames.require_frame_extensions()\n"
        "except ValueError as error:\n"
        "    print(error)\n"
        "print(Doc.get_extension('uie_task')[0])\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "Doc._.uie_task is already registered by another package (default 'theirs'" in result.stdout
    assert result.stdout.splitlines()[-1] == "theirs"


def test_our_own_extensions_are_enough() -> None:
    require_frame_extensions()
    require_frame_extensions()
