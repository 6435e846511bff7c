import itertools
import json
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import DocBin
from spacy.vocab import Vocab

from spacy_ie_moe.corpora import aste, casie, columns, dygie, fewrel, geneva, kbp37, knowledgenet, phee, spert
from spacy_ie_moe.corpora.conversion import ConversionReport, LabelChoice, Part, Unconvertible
from spacy_ie_moe.corpora.frames import with_frames
from spacy_ie_moe.corpora.reader import as_lists
from spacy_ie_moe.corpora.words import REACH, locate, split_words
from spacy_ie_moe.uc_uie.doc_frames import check_frame, sort_frames
from spacy_ie_moe.uc_uie.schema import Schema

from .test_corpora import CHOICES, OFFSET, WORDS, check_docs, data_set, lists, mostly, records, spert_sentence

VOCAB = Vocab()
TASKS = {columns: "NER", kbp37: "RE", phee: "EE", casie: "EE", geneva: "EE", aste: "ABSA"}


def write(folder, module, data):
    """The source of ``data`` in the format of ``module``: its path."""
    path = Path(folder) / "source"
    if module is casie:
        path.mkdir(exist_ok=True)
        for index, article in enumerate(data):
            (path / f"{index:03}.json").write_text(json.dumps(article))
    elif module in (phee, geneva, dygie):
        path.write_text("\n".join(map(json.dumps, data)))
    elif isinstance(data, bytes):
        path.write_bytes(data)
    else:
        path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf8", newline="")
    return path


def convert(module, data, *, task=None, **options):
    """The documents and the report of ``data``, with frames of ``task`` (default: that of the format)."""
    report = ConversionReport()
    with tempfile.TemporaryDirectory() as folder:
        path = write(folder, module, data)
        task = task or TASKS[module]
        docs = list(with_frames(module.read, path, VOCAB, task=task, report=report, **options))
    return docs, report


def frames_of(doc):
    """Type, words and slots of each frame, as strings."""
    return [
        (frame["type"], frame["text"], *((slot["type"], slot["text"]) for slot in frame["slots"]))
        for frame in doc._.frames
    ]


def check_frames(docs, task):
    """The documents have what ``uc_uie`` needs, and it survives a DocBin."""
    doc_bin = DocBin(docs=docs, store_user_data=True)
    again = DocBin(store_user_data=True).from_bytes(doc_bin.to_bytes()).get_docs(Vocab())
    for doc, copy in zip(docs, again, strict=True):
        schema = Schema.of(doc._.uie_schema)
        assert doc._.uie_task == task == next(iter(schema.by_task())) and len(schema.by_task()) == 1
        assert doc._.frames == sort_frames(doc._.frames) == as_lists(copy._.frames)
        assert (copy._.uie_task, as_lists(copy._.uie_schema)) == (task, doc._.uie_schema)
        for frame in doc._.frames:
            check_frame(doc, frame)
            assert frame["score"] == 1.0
            assert {slot["type"] for slot in frame["slots"]} <= set(schema.slots(frame["type"]))
            for part in (frame, *frame["slots"]):
                if part["pos"] is not None:
                    assert doc[slice(*part["pos"])].text == part["text"]


# --- columns


CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
German JJ B-NP B-MISC
call NN I-NP O
. . O O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""


def test_columns():
    docs, report = convert(columns, CONLL)
    assert [doc.text for doc in docs] == ["EU rejects German call.", "Peter Blackburn"]
    assert [[(ent.text, ent.label_) for ent in doc.ents] for doc in docs] == [
        [("EU", "ORG"), ("German", "MISC")],
        [("Peter Blackburn", "PER")],
    ]
    assert [frames_of(doc) for doc in docs] == [[("ORG", "EU"), ("MISC", "German")], [("PER", "Peter Blackburn")]]
    assert docs[0]._.uie_schema == {"MISC": [], "ORG": [], "PER": []}
    assert dict(report.rows()) == {
        "documents": 2,
        "entities": 3,
        "relations": 0,
        "relation labels": 0,
        "frames": 3,
        "frame types": 3,
        "slots": 0,
        "instances read": 2,
        "mentions read": 3,
    }
    assert [doc.user_data["source"] for doc in docs] == ["0", "1"]
    check_frames(docs, "NER")


def test_columns_of_io_tags_are_runs_of_one_type():
    (doc,), _ = convert(columns, "New I-LOC\nYork I-LOC\nAnn I-PER\nLee I-PER\nleft O\n")
    assert frames_of(doc) == [("LOC", "New York"), ("PER", "Ann Lee")]


def test_columns_with_tabs_keep_a_token_with_a_blank_and_lose_one_without_text():
    (doc,), report = convert(columns, "Ann\tB-PER\nke s\tO\n\tO\nleft\tO\nalone\n")
    assert [token.text for token in doc] == ["Ann", "ke s", "left"]
    assert report.notes == {"line without a token and a tag, skipped": 2}


def test_columns_choose_and_name_entity_types():
    docs, report = convert(columns, CONLL, labels=LabelChoice(names={"ORG": "organisation", "PER": "person"}))
    assert docs[0]._.uie_schema == {"organisation": [], "person": []}
    assert report.mentions.left_out == {"unknown type": 1}
    docs, report = convert(columns, CONLL, labels=LabelChoice(exclude=["MISC"]))
    assert [len(doc._.frames) for doc in docs] == [1, 1]
    assert report.mentions.left_out == {"excluded label": 1}


def test_columns_errors_say_what_was_expected():
    with pytest.raises(ValueError, match=r"has no lines of a token and a BIO or IO tag: Line 1 is 'B-PER Ann'"):
        convert(columns, "B-PER Ann\n")
    with pytest.raises(ValueError, match=r"is not UTF-8 text .*expected lines of a token"):
        convert(columns, b"Ren\xe9 B-PER\n")
    with pytest.raises(ValueError, match="has no frames for task NER"):
        convert(columns, "left O\n")
    with pytest.raises(FileNotFoundError, match="is no file; expected lines of a token"):
        list(columns.read("absent.txt", VOCAB))


# --- KBP37


def kbp37_text(*labels, text='" The <e1> Acme Group </e1> of <e2> Ann Lee </e2> grew . "'):
    return "\n".join(f"{number}\t{text}\n{label} \n\n" for number, label in enumerate(labels))


@pytest.mark.parametrize(
    ("label", "head", "tail"),
    [("org:founded_by(e1,e2)", "Acme Group", "Ann Lee"), ("org:founded_by(e2,e1)", "Ann Lee", "Acme Group")],
)
def test_kbp37_direction(label, head, tail):
    (doc,), report = convert(kbp37, kbp37_text(label))
    assert doc.text == "The Acme Group of Ann Lee grew."
    assert frames_of(doc) == [("org:founded_by", "", ("subject", head), ("object", tail))]
    (relation,) = doc._.relations
    assert (relation["head_text"], relation["tail_text"]) == (head.split(), tail.split())
    assert doc._.uie_schema == {"org:founded_by": ["subject", "object"]}
    assert report.mentions.converted == 2
    check_frames([doc], "RE")


def test_kbp37_pair_without_relation_stays_unless_it_is_excluded():
    text = kbp37_text("no_relation", "org:founded_by(e1,e2)")
    for names in (None, {"org:founded_by": "founder"}):
        docs, _ = convert(kbp37, text, labels=LabelChoice(names=names))
        assert [len(doc._.frames) for doc in docs] == [0, 1]
        assert [len(doc.ents) for doc in docs] == [2, 2]
        assert docs[0]._.uie_schema == docs[1]._.uie_schema
        assert docs[0].user_data["ignored_pairs"] == []
    docs, report = convert(kbp37, text, labels=LabelChoice(exclude=["no_relation"]))
    assert [doc.user_data["source"] for doc in docs] == ["1"]
    assert report.instances.left_out == {"excluded label": 1}


def test_semeval_is_read_too():
    text = '1\t"The <e1>author</e1>\'s new <e2>book</e2> is out."\nProduct-Producer(e2,e1)\nComment: none\n\n'
    (doc,), _ = convert(kbp37, text)
    assert frames_of(doc) == [("Product-Producer", "", ("subject", "book"), ("object", "author"))]


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("7\t<e1> </e1> of <e2> Bern </e2>\nr(e1,e2)", "marked entity without words"),
        ("7\t</e1> Ann <e1> of <e2> Bern </e2>\nr(e1,e2)", "marked entity without words"),
        ("7\t<e1> <e2> Ann </e2> </e1> left\nr(e1,e2)", "self relation"),
        ("7\t<e1> Ann </e1> of Bern\nr(e1,e2)", "malformed instance"),
        ("7\t<e1> Ann </e1> of <e2> Bern </e2>\nr(e1)", "unknown relation id"),
        ("7\t<e1> Ann </e1> of <e2> Bern </e2>", "unknown relation id"),
    ],
)
def test_kbp37_instance_that_cannot_be_converted_is_counted(block, reason):
    docs, report = convert(kbp37, f"{block}\n\n{kbp37_text('r(e1,e2)')}")
    assert len(docs) == 1
    assert report.instances.left_out == {reason: 1}


# --- PHEE


def role(text, *mentions, **inner):
    """A role: each mention is a list of parts, which are looked up in ``text``."""
    starts = [[text.index(part) for part in parts] for parts in mentions]
    return {"text": list(mentions), "start": starts, "entity_id": ["T"] * len(mentions), **inner}


PHEE_TEXT = "Two women on insulin-aspirin developed severe oedema (grade 2)."


def phee_sentence(text=PHEE_TEXT, **changes):
    event = {
        "event_id": "E1",
        "event_type": "Adverse_event",
        "Trigger": role(text, ["developed"]),
        "Subject": role(text, ["Two women"], Gender=role(text, ["women"]), Population=role(text, ["Two"])),
        "Treatment": role(
            text,
            ["insulin"],
            Drug=role(text, ["insulin"], ["aspirin"]),
            Combination=[{"event_type": "Combination", "Drug": role(text, ["insulin"], ["aspirin"])}],
        ),
        "Effect": role(text, ["oedema", "grade 2"]),
        "Severity": role(text, ["severe"], value="High"),
        **changes,
    }
    return {"id": "1_1", "context": text, "annotations": [{"events": [event]}]}


def test_phee_main_roles():
    (doc,), report = convert(phee, [phee_sentence()])
    assert doc.text == PHEE_TEXT
    assert frames_of(doc) == [
        (
            "Adverse_event",
            "developed",
            ("Subject", "Two women"),
            ("Treatment", "insulin"),
            ("Effect", "oedema"),
            ("Effect", "grade 2"),
        )
    ]
    assert doc._.uie_schema == {"Adverse_event": ["Effect", "Subject", "Treatment"]}
    assert report.slots.left_out == {"sub-role": 6, "attribute of an event": 1}
    assert report.notes == {"argument of several parts, each a slot of its own": 1}
    assert (report.frames.read, report.slots.read, report.fillers) == (1, 11, 4)
    assert {(span.text, span.label_) for span in doc.spans["entities"]} >= {("insulin", "Treatment")}
    check_frames([doc], "EE")


def test_phee_sub_roles():
    (doc,), report = convert(phee, [phee_sentence()], sub_roles=True)
    (frame,) = frames_of(doc)
    assert set(frame[2:]) == {
        ("Subject", "Two women"),
        ("Subject.Gender", "women"),
        ("Subject.Population", "Two"),
        ("Treatment", "insulin"),
        ("Treatment.Drug", "insulin"),
        ("Treatment.Drug", "aspirin"),
        ("Combination.Drug", "insulin"),
        ("Combination.Drug", "aspirin"),
        ("Effect", "oedema"),
        ("Effect", "grade 2"),
    }
    assert report.slots.left_out == {"attribute of an event": 1}


def test_words_are_split_where_an_annotation_begins_or_ends():
    text = "methotrexate-induced"
    event = {"event_type": "A", "Trigger": role(text, ["induced"]), "Treatment": role(text, ["trexate"])}
    (doc,), _ = convert(phee, [{"id": "1", "context": text, "annotations": [{"events": [event]}]}])
    assert [token.text for token in doc] == ["metho", "trexate", "-", "induced"]
    assert doc.text == text
    assert frames_of(doc) == [("A", "induced", ("Treatment", "trexate"))]


def test_phee_trigger_of_several_parts_is_taken_as_a_whole():
    (doc,), report = convert(phee, [phee_sentence(Trigger=role(PHEE_TEXT, ["developed", "oedema"]))])
    assert frames_of(doc)[0][1] == "developed severe oedema"
    assert report.notes["trigger of several parts, taken from the first to the last"] == 1


@pytest.mark.parametrize(
    ("changes", "tally", "reason"),
    [
        ({"Trigger": None}, "frames", "malformed frame"),
        ({"Trigger": role(PHEE_TEXT, ["developed"], ["on"])}, "frames", "malformed frame"),
        ({"Trigger": {"text": [["fell"]], "start": [[3]]}}, "frames", "text is not near its offsets"),
        ({"event_type": 3}, "frames", "unknown type"),
        ({"Effect": {"text": [["oedema"]], "start": [[0], [1]]}}, "slots", "malformed slot"),
        ({"Effect": {"text": [["oedema"]], "start": [["a"]]}}, "slots", "malformed slot"),
        ({"Effect": {"text": [["rash"]], "start": [[3]]}}, "slots", "text is not near its offsets"),
    ],
)
def test_phee_loss_is_counted(changes, tally, reason):
    docs, report = convert(phee, [phee_sentence(), phee_sentence(**changes)])
    assert len(docs) == 2
    assert getattr(report, tally).left_out[reason] == 1


# --- CASIE


CASIE_TEXT = "Acme was hacked.  Ann of Acme said that data leaked. It cost $5."


def casie_mention(text, *, shift=0, nth=0, content=CASIE_TEXT, **fields):
    start = [at for at in range(len(content)) if content.startswith(text, at)][nth] + shift
    return {"startOffset": start, "endOffset": start + len(text), "text": text, "index": "T", **fields}


def casie_argument(text, name, kind="Organization", **options):
    return casie_mention(text, **options, type=kind, role={"type": name})


def casie_article(*events, content=CASIE_TEXT):
    return {"content": content, "cyberevent": {"hopper": [{"index": "H", "events": list(events)}]}}


def casie_event(nugget, *arguments, subtype="Databreach"):
    return {"type": "Attack", "subtype": subtype, "realis": "Actual", "nugget": nugget, "argument": list(arguments)}


LEAK = casie_event(
    casie_mention("leaked"),
    casie_argument("Acme", "Victim", nth=1),
    casie_argument("data", "Compromised-Data", "Data"),
    casie_argument("$5", "Damage-Amount", "Money"),
)


def test_casie_document():
    (doc,), report = convert(casie, [casie_article(LEAK)])
    assert doc.text == CASIE_TEXT
    assert [sentence.text.strip() for sentence in doc.sents] == [
        "Acme was hacked.",
        "Ann of Acme said that data leaked.",
        "It cost $5.",
    ]
    assert frames_of(doc) == [
        ("Databreach", "leaked", ("Victim", "Acme"), ("Compromised-Data", "data"), ("Damage-Amount", "$5"))
    ]
    assert [(span.text, span.label_) for span in doc.spans["entities"]] == [
        ("Acme", "Organization"),
        ("data", "Data"),
        ("$5", "Money"),
    ]
    assert report.notes == {"argument in another sentence than its trigger": 1}
    assert doc.user_data["source"] == "000"
    check_frames([doc], "EE")


def test_casie_sentences():
    docs, report = convert(casie, [casie_article(LEAK)], unit="sentence")
    assert [doc.text for doc in docs] == ["Acme was hacked.", "Ann of Acme said that data leaked.", "It cost $5."]
    assert [frames_of(doc) for doc in docs] == [
        [],
        [("Databreach", "leaked", ("Victim", "Acme"), ("Compromised-Data", "data"))],
        [],
    ]
    assert [len(doc.spans["entities"]) for doc in docs] == [0, 2, 1]
    assert report.slots.left_out == {"argument in another sentence than its trigger": 1}
    assert report.instances.converted == 3
    assert [doc.user_data["source"] for doc in docs] == ["000/0", "000/1", "000/2"]
    check_frames(docs, "EE")


def test_casie_moves_shifted_offsets_to_the_nearest_such_text():
    event = casie_event(casie_mention("leaked", shift=1), casie_argument("Acme", "Victim", nth=1, shift=-2))
    (doc,), report = convert(casie, [casie_article(event)])
    (frame,) = doc._.frames
    assert (frame["text"], frame["slots"][0]["text"]) == ("leaked", "Acme")
    assert doc[frame["slots"][0]["pos"][0]].idx == CASIE_TEXT.rindex("Acme")
    assert report.notes == {"offsets moved to where the text is": 2}


def test_casie_annotation_across_sentences():
    long = casie_mention("hacked.  Ann")
    event = casie_event(casie_mention("leaked"), {**long, "type": "Data", "role": {"type": "Tool"}})
    articles = [casie_article(casie_event(long), event)]
    docs, report = convert(casie, articles, unit="sentence")
    assert sum(len(doc._.frames) for doc in docs) == 1
    assert report.frames.left_out == report.slots.left_out == {"in more than one sentence": 1}
    (doc,), _ = convert(casie, articles)
    assert {frame["text"] for frame in doc._.frames} == {"hacked.  Ann", "leaked"}


@pytest.mark.parametrize(
    ("event", "tally", "reason"),
    [
        (3, "frames", "malformed frame"),
        (casie_event({"text": "leaked"}), "frames", "malformed frame"),
        (casie_event(casie_mention("leaked") | {"text": "stolen"}), "frames", "text is not near its offsets"),
        (casie_event(casie_mention("leaked") | {"text": "."}), "frames", None),
        (casie_event(casie_mention("leaked"), subtype=None), "frames", "unknown type"),
        (casie_event(casie_mention("leaked"), {"role": "Victim"}), "slots", "malformed slot"),
        (casie_event(casie_mention("leaked"), casie_mention("Acme", role={"type": 1})), "slots", "malformed slot"),
    ],
)
def test_casie_loss_is_counted(event, tally, reason):
    _, report = convert(casie, [casie_article(LEAK, event)])
    assert getattr(report, tally).left_out == ({} if reason is None else {reason: 1})


def test_casie_files_that_are_no_articles_are_counted(tmp_path):
    folder = write(tmp_path, casie, [casie_article(LEAK)])
    (folder / "b.json").write_text("[]")
    (folder / "c.json").write_text("{")
    report = ConversionReport()
    assert len(list(casie.read(folder, VOCAB, report=report))) == 1
    assert report.instances.left_out == {"malformed instance": 2}
    assert len(list(casie.read(folder / "000.json", VOCAB))) == 1
    with pytest.raises(FileNotFoundError, match="expected an article"):
        list(casie.read(tmp_path / "absent", VOCAB))
    with pytest.raises(ValueError, match="unit is 'word'; expected 'document' or 'sentence'"):
        list(casie.read(folder, VOCAB, unit="word"))


# --- GENEVA


def geneva_sentence(**changes):
    sentence = {
        "wnd_id": "d_1",
        "sentence": "`` Rebels attacked the high-rise . ''",
        "tokens": ["`", "`", "Rebels", "attacked", "the", "high", "-", "rise", ".", "'", "'"],
        "entity_mentions": [
            {"id": "e1", "start": 2, "end": 3, "text": "Rebels"},
            {"id": "e2", "start": 4, "end": 8, "text": "the high-rise"},
        ],
        "event_mentions": [
            {
                "event_type": "Attack",
                "trigger": {"start": 3, "end": 4, "text": "attacked"},
                "arguments": [
                    {"entity_id": "e2", "role": "Victim", "text": "the high-rise"},
                    {"entity_id": "e1", "role": "Assailant", "text": "Rebels"},
                ],
            }
        ],
    }
    return sentence | changes


def geneva_event(**changes):
    return geneva_sentence()["event_mentions"][0] | changes


def test_geneva():
    (doc,), report = convert(geneva, [geneva_sentence()])
    assert doc.text == "`` Rebels attacked the high-rise . ''"
    assert frames_of(doc) == [("Attack", "attacked", ("Assailant", "Rebels"), ("Victim", "the high-rise"))]
    assert doc._.uie_schema == {"Attack": ["Assailant", "Victim"]}
    assert [(span.text, span.label_) for span in doc.spans["entities"]] == [
        ("Rebels", "ENTITY"),
        ("the high-rise", "ENTITY"),
    ]
    assert (report.mentions.read, report.frames.read, report.slots.read) == (2, 1, 2)
    check_frames([doc], "EE")


def test_events_are_asked_for_triggers_or_for_arguments_alone():
    twice = [geneva_event(), geneva_event(arguments=[])]
    sentence = geneva_sentence(event_mentions=twice)
    (both,), _ = convert(geneva, [sentence])
    (triggers,), _ = convert(geneva, [sentence], task="ED")
    (arguments,), _ = convert(geneva, [sentence], task="EAE")
    assert sorted(len(frame["slots"]) for frame in both._.frames) == [0, 2]
    (trigger,) = triggers._.frames
    assert trigger["pos"] == both._.frames[0]["pos"] and not trigger["slots"]
    assert arguments._.frames == both._.frames
    assert (triggers._.uie_task, arguments._.uie_task) == ("ED", "EAE")
    for doc, task in ((triggers, "ED"), (arguments, "EAE")):
        assert {kind.task for kind in Schema.of(doc._.uie_schema)} == {task}


def test_geneva_sentence_with_events_missing_is_asked_only_for_what_it_has():
    other = geneva_sentence(event_mentions=[geneva_event(event_type="Motion")])
    docs, report = convert(geneva, [geneva_sentence(likely_complete=False), other | {"likely_complete": True}])
    assert [list(doc._.uie_schema) for doc in docs] == [["Attack"], ["Attack", "Motion"]]
    assert list(report.notes) == ["sentence with events missing, asked only for the types that it has"]
    empty = geneva_sentence(event_mentions=[], likely_complete=False)
    docs, report = convert(geneva, [empty, other])
    assert len(docs) == report.docs == 1
    assert report.instances.left_out == {"no type was looked for": 1}


def test_geneva_without_its_text_has_likely_spaces():
    for text in (None, "Rebels attacked"):
        (doc,), _ = convert(geneva, [geneva_sentence(sentence=text)])
        assert doc.text.endswith("Rebels attacked the high - rise.''")


@pytest.mark.parametrize(
    ("events", "tally", "reason"),
    [
        ([3], "frames", "malformed frame"),
        ([geneva_event(trigger=None)], "frames", "malformed frame"),
        ([geneva_event(arguments=None)], "frames", "malformed frame"),
        ([geneva_event(trigger={"start": 3, "end": 99})], "frames", "offsets outside the text"),
        ([geneva_event(trigger={"start": "3", "end": 4})], "frames", "malformed mention"),
        ([geneva_event(), geneva_event()], "frames", "duplicate frame"),
        ([geneva_event(arguments=[{"entity_id": "e9", "role": "A"}])], "slots", "argument is no converted entity"),
        ([geneva_event(arguments=[{"entity_id": "e1", "role": ""}])], "slots", "malformed slot"),
        ([geneva_event(arguments=[{"entity_id": "e1", "role": "A"}] * 2)], "slots", "duplicate slot"),
    ],
)
def test_geneva_loss_is_counted(events, tally, reason):
    docs, report = convert(geneva, [geneva_sentence(), geneva_sentence(event_mentions=events)])
    assert len(docs) == 2
    assert getattr(report, tally).left_out == {reason: 1}


def test_geneva_trigger_with_another_text_is_noted():
    _, report = convert(geneva, [geneva_sentence(event_mentions=[geneva_event(trigger={"start": 3, "end": 4})])])
    assert report.notes == {"trigger's text is not that of its tokens, which count": 1}


def test_frames_that_share_type_and_words_stay_two_and_are_noted():
    events = [geneva_event(), geneva_event(arguments=[])]
    (doc,), report = convert(geneva, [geneva_sentence(event_mentions=events)])
    assert len(doc._.frames) == 2
    assert report.notes == {"frame has the type and the words of another": 1}


# --- ASTE


ASTE = "The pizza crust was great but slow service .####[([1, 2], [4], 'POS'), ([7], [6], 'NEG')]\n"


def test_aste():
    docs, report = convert(aste, ASTE + "It is ok .####[([0], [2], 'NEU')]\n")
    assert frames_of(docs[0]) == [
        ("positive", "", ("aspect", "pizza crust"), ("opinion", "great")),
        ("negative", "", ("aspect", "service"), ("opinion", "slow")),
    ]
    assert docs[1]._.uie_schema == {name: ["aspect", "opinion"] for name in ("negative", "neutral", "positive")}
    assert [(span.text, span.label_) for span in docs[0].spans["entities"]] == [
        ("pizza crust", "aspect"),
        ("great", "opinion"),
        ("slow", "opinion"),
        ("service", "aspect"),
    ]
    assert (report.frames.read, report.fillers) == (3, 6)
    check_frames(docs, "ABSA")


def test_aste_polarities_can_be_named():
    (doc,), report = convert(aste, ASTE, labels=LabelChoice(names={"POS": "good"}))
    assert [frame["type"] for frame in doc._.frames] == ["good"]
    assert report.frames.left_out == {"unknown type": 1}


@pytest.mark.parametrize(
    ("triplets", "tally", "reason"),
    [
        ("[([0], [2], 'POS'), ([0], [2], 'POS')]", "frames", "duplicate frame"),
        ("[([0], [2], 'BAD')]", "frames", "unknown type"),
        ("[([0], [2])]", "frames", "malformed frame"),
        ("[([0, 2], [2], 'POS')]", "frames", "mention is not contiguous"),
        ("[([0], [9], 'POS')]", "frames", "offsets outside the text"),
        ("[([0], [], 'POS')]", "frames", "empty mention list"),
        ("[(0, [1], 'POS')]", "frames", "malformed mention"),
        ("[([0], [2], 'POS')", "instances", "malformed instance"),
        ("print(1)", "instances", "malformed instance"),
        ("'\\d'", "instances", "malformed instance"),
        ("(" * 5000, "instances", "malformed instance"),
    ],
)
def test_aste_loss_is_counted(triplets, tally, reason):
    docs, report = convert(aste, f"{ASTE}It is ok .####{triplets}\n")
    assert len(docs) == 2 - (tally == "instances")
    assert getattr(report, tally).left_out == {reason: 1}


# --- frames of relations and entities


def test_relations_and_entities_as_frames():
    (doc,), report = convert(spert, [spert_sentence()], task="RE")
    assert frames_of(doc) == [
        ("Live_In", "", ("subject", "John Smith"), ("object", "Rome")),
        ("Work_For", "", ("subject", "John Smith"), ("object", "Acme Corp")),
    ]
    assert doc._.uie_schema == {"Live_In": ["subject", "object"], "Work_For": ["subject", "object"]}
    assert (sum(report.frame_types.values()), report.fillers) == (2, 4)
    check_frames([doc], "RE")
    (doc,), _ = convert(spert, [spert_sentence()], task="NER")
    assert frames_of(doc) == [("Peop", "John Smith"), ("Org", "Acme Corp"), ("Loc", "Rome")]
    check_frames([doc], "NER")
    check_docs([doc])


def test_overlapping_entities_are_all_frames():
    entities = [{"type": "A", "start": 0, "end": 1}, {"type": "B", "start": 0, "end": 2}]
    (doc,), _ = convert(spert, [spert_sentence(entities=entities, relations=[])], task="NER")
    assert len(doc._.frames) == 2 and len(doc.ents) == 1


def test_schema_is_of_the_whole_file_whatever_is_chosen_of_it():
    text = "".join(f"word{index} B-T{index % 5}\n\n" for index in range(20))
    whole = {f"T{index}": [] for index in range(5)}
    for options in ({}, {"part": Part(0, 0.2)}, {"limit": 2}, {"limit": 2, "part": Part(0.5, 1)}):
        docs, report = convert(columns, text, **options)
        assert report.instances.read == 20
        assert all(doc._.uie_schema == whole for doc in docs)


def test_given_schema_goes_before_what_the_file_has():
    docs, _ = convert(geneva, [geneva_sentence()], schema={"Motion": ["Path"], "Attack": ["Weapon", "Victim"]})
    assert docs[0]._.uie_schema == {"Motion": ["Path"], "Attack": ["Weapon", "Victim", "Assailant"]}
    docs, _ = convert(columns, "left O\n", schema=["PER"])
    assert docs[0]._.uie_schema == {"PER": []}


def test_event_types_without_slots_stay_events():
    (doc,), _ = convert(geneva, [geneva_sentence(event_mentions=[geneva_event(arguments=[])])])
    assert doc._.uie_schema == {"Attack": {"slots": [], "task": "EE"}}
    check_frames([doc], "EE")


def test_labels_that_no_schema_can_have_are_an_error():
    with pytest.raises(ValueError, match=r"frame type is 'a \(b\)'; expected text without"):
        convert(spert, [spert_sentence()], task="RE", labels=LabelChoice(names={"Live_In": "a (b)"}))


def test_unknown_task():
    with pytest.raises(ValueError, match="task is 'NLI'; expected one of NER, RE, EE, ED, EAE, ABSA"):
        convert(spert, [spert_sentence()], task="NLI")


def test_knowledgenet_is_asked_for_what_was_looked_for():
    def passage(document, name, **fields):
        fact = {"property": name, "subject_start": 0, "subject_end": 3, "object_start": 13, "object_end": 17}
        return {
            "fold": 1,
            "document": document,
            "passage_start": 0,
            "passage": "Ann, born in Bern.",
            "facts": [fact],
            **fields,
        }

    passages = [passage(1, "PLACE_OF_BIRTH", no_fact_properties=["CEO"]), passage(2, "NATIONALITY")]
    docs, _ = convert(knowledgenet, passages, task="RE")
    assert [list(doc._.uie_schema) for doc in docs] == [["place of birth"], ["nationality"]]
    docs, report = convert(knowledgenet, passages, task="RE", labels=LabelChoice(only=["nationality"]))
    assert len(docs) == report.docs == 1
    assert report.instances.left_out == {"no type was looked for": 1}


# --- limits


def sources(docs):
    return [doc.user_data["source"] for doc in docs]


def test_limit_is_a_sample_in_order_the_same_for_the_same_seed():
    text = "".join(f"word{index} B-T\n\n" for index in range(30))

    def run(**options):
        docs, report = convert(columns, text, **options)
        assert report.instances.read == 30
        return sources(docs), report

    first, report = run(limit=10, seed=1)
    assert len(first) == 10 and first == sorted(first, key=int)
    assert report.instances.left_out == {"beyond the limit": 20}
    assert report.mentions.read == report.entities == 10  # what is left out takes its annotations with it
    assert run(limit=10, seed=1)[0] == first != run(limit=10, seed=2)[0]
    assert run(limit=30)[0] == run()[0] and not run(limit=30)[1].instances.left_out
    inside, _ = run(limit=10, part=Part(0, 0.5))
    assert set(inside) <= set(run(part=Part(0, 0.5))[0])


def test_limit_is_of_instances_that_can_be_converted():
    text = "1\tno markers\nr(e1,e2)\n\n" * 5 + kbp37_text(*["r(e1,e2)"] * 5)
    docs, report = convert(kbp37, text, limit=4)
    assert len(docs) == 4
    assert report.instances.left_out == {"malformed instance": 5, "beyond the limit": 1}


def test_limit_is_of_sentences_where_they_are_the_unit():
    docs, report = convert(casie, [casie_article(LEAK)], unit="sentence", limit=2)
    assert len(docs) == report.docs == 2
    assert report.instances.left_out == {"beyond the limit": 1}


@pytest.mark.parametrize("module", [columns, kbp37, phee, casie, geneva, aste, spert, fewrel, dygie, knowledgenet])
def test_limit_is_checked(module, tmp_path):
    data = {spert: [], fewrel: {}, knowledgenet: []}.get(module, "" if module in (columns, kbp37, aste) else [])
    with pytest.raises(ValueError, match="limit is 0; expected a number of at least 1"):
        list(module.read(write(tmp_path, module, data), VOCAB, limit=0))


# --- words


@given(st.text(max_size=60), st.lists(st.integers(-3, 70)))
def test_words_keep_the_text_and_cross_no_border(text, borders):
    try:
        words = split_words(text, borders)
    except Unconvertible:
        return
    rebuilt = "".join(word + " " * space for word, space in zip(words.words, words.spaces, strict=True))
    assert rebuilt == text
    for start, end in itertools.product(words.starts, words.ends):
        if start < end:
            first, last = words.extent(start, end)
            assert "".join(words.words[first:last]).replace(" ", "") == text[start:end].replace(" ", "")
    for border in borders:
        if 0 < border < len(text) and not text[border - 1].isspace() and not text[border].isspace():
            assert border in words.starts and border in words.ends
    assert words.sentences[0] == 0 and words.sentences == sorted(set(words.sentences))


@given(st.text(max_size=80), st.integers(0, 80), st.integers(1, 20), st.integers(-REACH, REACH))
def test_text_is_found_near_its_offset(text, start, length, shift):
    mention = text[start : start + length]
    try:
        found, end = locate(text, mention, start + shift)
    except Unconvertible:
        assert not mention.strip()
        return
    assert text[found:end] and text[found:end] in mention
    if shift == 0 and mention.strip():
        assert text[found:end] == mention.strip() and found == start + mention.index(mention.strip())


def test_text_is_not_looked_for_far_away():
    with pytest.raises(Unconvertible, match="text is not near its offsets"):
        locate("a" * (REACH + 2) + "b", "b", 0)
    assert locate("been leaked", "been leaked.", 0) == (0, 11)


# --- arbitrary sources: a clear error or a counted loss, nothing else


TEXT = st.text(st.sampled_from("AnnB-I O\t\n\r#[(])',1<>e/2r\x00é\x85\u2028\u3000"), max_size=60)
PIECES = st.lists(
    st.sampled_from(["<e1>", "</e1>", "<e2>", "</e2>", " a ", "\t", "\n", "\n\n", "r(e1,e2)", "r(e2,e1)", '"', "Other"])
)


def check_random(module, data, **options):
    try:
        docs, report = convert(module, data, **options)
    except ValueError as error:
        assert "expected" in str(error)
        return None
    check_docs(docs)
    check_frames(docs, TASKS[module])
    assert len(docs) == report.docs
    assert sum(len(doc._.frames) for doc in docs) == sum(report.frame_types.values())
    assert sum(len(frame["slots"]) for doc in docs for frame in doc._.frames) == report.fillers
    if TASKS[module] in ("EE", "ABSA"):
        assert report.frames.converted == sum(report.frame_types.values())
    return docs, report


@given(TEXT | st.text(), CHOICES)
def test_random_columns(text, labels):
    check_random(columns, text, labels=labels)
    check_random(columns, text, schema=["A"])


@given(TEXT | PIECES.map("".join))
def test_random_kbp37(text):
    result = check_random(kbp37, text, schema={"r": ["subject", "object"]})
    if result is not None:
        assert all(len(doc._.relations) <= 1 for doc in result[0])


ASTE_LINES = st.lists(
    st.sampled_from(["a b c", "####", "[", "]", "([0], [1], 'POS')", "([0, 1], [2], 'NEU')", ", ", "\n"])
)


@given(TEXT | st.text() | ASTE_LINES.map("".join))
def test_random_aste(text):
    check_random(aste, text, schema={"positive": ["aspect", "opinion"]})


NAME = mostly(st.sampled_from(["A", "B_C"]))
PHEE_ROLE = records(
    text=lists(lists(mostly(st.sampled_from(["ab", "c", "b c", " "])), 2), 2), start=lists(lists(OFFSET, 2), 2)
)
PHEE = records(
    id=mostly(st.text(max_size=3)),
    context=mostly(st.sampled_from(["ab c ab c.", "abc", "", "c ab"]) | st.text(max_size=10)),
    annotations=lists(
        records(
            events=lists(
                records(
                    event_type=NAME,
                    Trigger=mostly(st.just({"text": [["ab"]], "start": [[0]]})) | PHEE_ROLE,
                    Subject=PHEE_ROLE,
                    Effect=records(
                        text=st.just([["c"]]),
                        start=st.just([[3]]),
                        Sub=PHEE_ROLE,
                        Combination=lists(records(Drug=PHEE_ROLE)),
                    ),
                    Severity=PHEE_ROLE,
                )
            )
        ),
        2,
    ),
)


@settings(max_examples=60)
@given(st.lists(PHEE, max_size=3), CHOICES, st.booleans())
def test_random_phee(sentences, labels, sub_roles):
    result = check_random(phee, sentences, labels=labels, sub_roles=sub_roles, schema={"A": ["Effect"]})
    if result is not None:
        assert result[1].instances.read == len(sentences)


CASIE_MENTION = records(text=mostly(st.sampled_from(["ab", "c", "ab.", " "])), startOffset=OFFSET, endOffset=OFFSET)
CASIE_ARGUMENT = records(text=st.just("c"), startOffset=OFFSET, endOffset=OFFSET, type=NAME, role=records(type=NAME))
CASIE = records(
    content=mostly(st.sampled_from(["ab c. ab c.", "Ab ab. C c! c", " ", "ab"]) | st.text(max_size=10)),
    cyberevent=records(
        hopper=lists(records(events=lists(records(subtype=NAME, nugget=CASIE_MENTION, argument=lists(CASIE_ARGUMENT)))))
    ),
)


@settings(max_examples=60)
@given(st.lists(CASIE, max_size=2), CHOICES, st.sampled_from(["document", "sentence"]))
def test_random_casie(articles, labels, unit):
    result = check_random(casie, articles, labels=labels, unit=unit, schema={"A": ["A"]})
    if result is not None and unit == "document":
        assert result[1].instances.read == len(articles)


GENEVA = records(
    wnd_id=mostly(st.text(max_size=3)),
    tokens=WORDS,
    sentence=mostly(st.text(max_size=5)),
    likely_complete=mostly(st.booleans()),
    entity_mentions=lists(records(id=NAME, start=OFFSET, end=OFFSET)),
    event_mentions=lists(
        records(
            event_type=NAME,
            trigger=records(start=OFFSET, end=OFFSET, text=NAME),
            arguments=lists(records(entity_id=NAME, role=NAME)),
        )
    ),
)


@settings(max_examples=60)
@given(st.lists(GENEVA, max_size=3), CHOICES)
def test_random_geneva(sentences, labels):
    result = check_random(geneva, sentences, labels=labels, schema={"A": ["A"]})
    if result is not None:
        assert result[1].instances.read == len(sentences)
    for sentence in sentences:
        one = check_random(geneva, [sentence], schema={"A": ["A"]})
        if one is not None and one[0]:
            assert one[1].mentions.read == len(sentence["entity_mentions"])
            assert one[1].frames.read == len(sentence["event_mentions"])


# --- the published files, counted by their README files


def real(module, path, **options):
    report = ConversionReport()
    docs = list(with_frames(module.read, path, VOCAB, task=TASKS[module], report=report, **options))
    check_frames(docs[:50], TASKS[module])
    check_docs(docs[:50])
    return docs, report


@pytest.mark.parametrize(
    ("name", "file", "sentences", "entities", "types", "skipped"),
    [
        ("conll2003", "valid.txt", 3250, 5942, 4, 0),
        ("crossner", "ai/dev.txt", 350, 1549, 14, 0),
        ("crossner", "music/dev.txt", 380, 2679, 13, 0),
        ("crossner", "politics/train.txt", 200, 1304, 9, 0),
        ("mit_movie", "engtest.bio.txt", 2443, 5339, 12, 0),
        ("mit_movie", "trivia10k13test.bio.txt", 1953, 5686, 12, 0),
        ("mit_restaurant", "test.txt", 1521, 3151, 8, 0),
        ("bc5cdr", "train.tsv", 4560, 9385, 2, 0),
        ("ncbi_disease", "devel.tsv", 923, 787, 1, 0),
        ("broad_twitter", "f.conll", 2000, 4376, 3, 2),
        ("broad_twitter", "h.conll", 2000, 3368, 3, 4),
        ("wnut17", "emerging.dev.conll", 1009, 836, 6, 0),
        ("wnut17", "emerging.test.annotated", 1287, 1079, 6, 0),
        ("wikigold", "wikigold.conll.txt", 1696, 3558, 4, 0),
        ("harveyner", "tweets.dev.bio", 1301, 523, 4, 0),
    ],
)
def test_published_columns(name, file, sentences, entities, types, skipped):
    _, report = real(columns, data_set(name) / file)
    assert (report.docs, report.instances.read) == (sentences, sentences)
    assert (report.entities, report.mentions.read, sum(report.frame_types.values())) == (entities,) * 3
    assert len(report.frame_types) == types
    assert sum(report.notes.values()) == skipped


@pytest.mark.parametrize(("file", "instances", "empty"), [("dev.txt", 1724, 10), ("test.txt", 3405, 26)])
def test_published_kbp37(file, instances, empty):
    docs, report = real(kbp37, data_set("kbp37") / file)
    assert report.instances.read == instances
    assert report.instances.left_out == {"marked entity without words": empty}
    assert len(report.frame_types) == 18
    lines = (data_set("kbp37") / file).read_text(encoding="utf8").splitlines()
    assert 0 < sum(not doc._.frames for doc in docs) <= lines.count("no_relation")


@pytest.mark.parametrize(
    ("file", "sentences", "adverse", "therapeutic"), [("train", 2898, 2710, 296), ("dev", 961, 886, 117)]
)
def test_published_phee(file, sentences, adverse, therapeutic):
    folder = data_set("phee")
    docs, report = real(phee, folder / "json" / f"{file}.json", sub_roles=True)
    assert report.docs == sentences
    assert report.frame_types == {"Adverse_event": adverse, "Potential_therapeutic_event": therapeutic}
    assert report.frames.left_out == {}
    found = Counter(slot["type"] for doc in docs for frame in doc._.frames for slot in frame["slots"])
    tokens = Counter()  # the arguments of the published token form
    for line in (folder / "eeqa" / f"{file}.json").read_text(encoding="utf8").splitlines():
        for _, *arguments in json.loads(line)["event"]:
            tokens.update(name for _, _, name in {tuple(argument) for argument in arguments})
    assert found.keys() == tokens.keys()
    assert all(0 <= found[name] - tokens[name] <= 2 for name in found)  # some share their tokens, not their characters


def test_published_phee_without_sub_roles():
    docs, report = real(phee, data_set("phee") / "json" / "dev.json")
    assert report.fillers == 957 + 526 + 1069  # Effect, Subject and Treatment of the published token form
    assert docs[0]._.uie_schema["Adverse_event"] == ["Effect", "Subject", "Treatment"]


@pytest.mark.parametrize("unit", ["document", "sentence"])
def test_published_casie(unit):
    report = ConversionReport()
    docs = list(casie.read(data_set("casie") / "annotation", VOCAB, report=report, unit=unit))
    check_docs(docs[:50])
    assert (report.frames.read, report.slots.read, report.frames.left_out) == (8485, 22701, {})
    assert Counter(frame["type"] for doc in docs for frame in doc._.frames) == {
        "Databreach": 1786,
        "Phishing": 1564,
        "Ransom": 1585,
        "PatchVulnerability": 1418,
        "DiscoverVulnerability": 2132,
    }
    assert report.notes["offsets moved to where the text is"] == 1095
    elsewhere = "argument in another sentence than its trigger"
    if unit == "document":
        assert report.docs == 1000 and report.slots.converted > 22690
        assert 700 < report.notes[elsewhere] < 850
    else:
        assert report.docs > 15000 and 700 < report.slots.left_out[elsewhere] < 850


@pytest.mark.parametrize(
    ("file", "sentences", "events", "arguments", "incomplete"),
    [
        ("val.json", 783, 1442, 2383, 0),
        ("test.json", 933, 1893, 3109, 0),
        ("train.reconstructed.json", 1963, 3850, 6257, 489),
    ],
)
def test_published_geneva(file, sentences, events, arguments, incomplete):
    docs, report = real(geneva, data_set("geneva") / file)
    assert (report.docs, report.frames.converted, report.fillers) == (sentences, events, arguments)
    assert len(report.frame_types) == 115
    assert sum(len(doc._.uie_schema) < 115 for doc in docs) == incomplete


@pytest.mark.parametrize(
    ("name", "part", "sentences", "triplets", "twice"),
    [
        ("14res", "train", 1266, 2338, 1),
        ("14res", "dev", 310, 577, 0),
        ("14res", "test", 492, 994, 0),
        ("14lap", "train", 906, 1460, 0),
        ("14lap", "dev", 219, 346, 1),
        ("14lap", "test", 328, 543, 2),
        ("15res", "train", 605, 1013, 0),
        ("15res", "dev", 148, 249, 0),
        ("15res", "test", 322, 485, 0),
    ],
)
def test_published_aste(name, part, sentences, triplets, twice):
    _, report = real(aste, data_set("absa_triplets") / name / f"{part}_triplets.txt")
    assert (report.docs, report.frames.read) == (sentences, triplets)
    assert report.frames.left_out == ({"duplicate frame": twice} if twice else {})
    assert set(report.frame_types) == {"positive", "negative", "neutral"}
