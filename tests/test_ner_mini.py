"""The bundled entity recogniser, and the readers that make its corpora."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc, DocBin, Span
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

import spacy_ie_moe
from spacy_ie_moe.corpora import ner, ner_mini, ner_pack, ner_silver, ner_teacher
from spacy_ie_moe.corpora.location import find_data

MODEL = Path(spacy_ie_moe.__file__).parent / "models" / "ner-mini"
MAX_BYTES = 12_000_000
LABELS = {"PERSON", "ORG", "LOC", "DATE", "NUM", "MISC"}


@pytest.fixture(scope="module")
def nlp() -> Language:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _refuse)
        return spacy.load(MODEL)


def _refuse(*_: object) -> None:
    raise AssertionError("ner-mini opened a connection")


def _data() -> Path:
    try:
        return find_data("re_docred").parent
    except FileNotFoundError as error:
        pytest.skip(str(error))


# the model


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Apple was founded by Steve Jobs and Steve Wozniak in Cupertino in 1976.",
            {("Steve Jobs", "PERSON"), ("Steve Wozniak", "PERSON"), ("Cupertino", "LOC"), ("1976", "DATE")},
        ),
        (
            "Marie Curie was born in Warsaw and studied at the University of Paris.",
            {("Marie Curie", "PERSON"), ("Warsaw", "LOC"), ("University of Paris", "ORG")},
        ),
        (
            "The company moved its headquarters from the U.S. to Berlin, Germany on 3 March 2004.",
            {("U.S.", "LOC"), ("Berlin", "LOC"), ("Germany", "LOC"), ("3 March 2004", "DATE")},
        ),
    ],
)
def test_raw_sentences(nlp: Language, text: str, expected: set[tuple[str, str]]) -> None:
    found = {(ent.text.removeprefix("the "), ent.label_) for ent in nlp(text).ents}
    assert expected <= found


@pytest.mark.parametrize("text", ["", " ", "\n\n\t ", "🎉🎉🎉", "👩‍👩‍👧 in Paris 🇫🇷", "a" * 5000, "!!!", "\u200b"])
def test_odd_texts(nlp: Language, text: str) -> None:
    doc = nlp(text)
    assert doc.text == text
    assert all(ent.text.strip() for ent in doc.ents)


def test_pipe_equals_call(nlp: Language) -> None:
    texts = [
        "Ada Lovelace lived in London.",
        "",
        "Two men met in Rome in 1960.",
        "IBM hired 300 people. " * 30,
    ]

    def found(doc: Doc) -> list[tuple[int, int, str]]:
        return [(ent.start, ent.end, ent.label_) for ent in doc.ents]

    assert [found(doc) for doc in nlp.pipe(texts, batch_size=3)] == [found(nlp(text)) for text in texts]


def test_folder_is_small_and_complete(nlp: Language) -> None:
    files = [path for path in MODEL.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES
    assert nlp.pipe_names == ["tok2vec", "ner"]
    assert set(nlp.pipe_labels["ner"]) == LABELS
    assert nlp.meta["name"] == "ner_mini"
    assert nlp.meta["license"] == "Apache-2.0"
    assert any(source["license"] == "CC BY 4.0" for source in nlp.meta["sources"])
    assert "CC BY 4.0" in (MODEL / "README.md").read_text(encoding="utf8")


def test_folder_holds_no_paths() -> None:
    config = spacy.util.load_config(MODEL / "config.cfg")
    assert not any(config.get("paths", {}).values())
    for name in ("config.cfg", "meta.json", "README.md"):
        text = (MODEL / name).read_text(encoding="utf8")
        assert not any(folder in text for folder in ("/work/", "/tmp/", "/home/", "site-packages"))


def test_score_on_held_out_documents(nlp: Language, tmp_path: Path) -> None:
    documents = ner_mini.docred_parts(_data(), seed=0)["test"]
    assert len(documents) == 60
    blank = spacy.blank("en")
    path = tmp_path / "test.spacy"
    ner_mini.write_docs(path, [ner.make_doc(blank, document) for document in documents])
    scores = ner_pack.evaluate(nlp, path)
    assert scores["ents_f"] >= 0.70
    assert scores["ents_f"] == pytest.approx(nlp.meta["performance"]["ents_f"], abs=0.01)


# the corpora


def test_bio_columns() -> None:
    lines = [
        "Ada\tB-PER\n",
        "Lovelace\tI-PER\n",
        "and\tO\n",
        "Bob\tB-PER\n",
        "Al\tB-PER\n",
        "\n",
        "Rome\tB-LOC\n",
    ]
    [document] = ner.read_columns(lines)
    assert document == [
        ner.TaggedSentence(("Ada", "Lovelace", "and", "Bob", "Al"), ((0, 2, "PER"), (3, 4, "PER"), (4, 5, "PER"))),
        ner.TaggedSentence(("Rome",), ((0, 1, "LOC"),)),
    ]


def test_io_columns_with_documents() -> None:
    lines = ["-DOCSTART- O", "", "New I-LOC", "York I-LOC", "Times I-ORG", "", "-DOCSTART- O", "", "Hi O", ""]
    first, second = ner.read_columns(lines)
    assert first == [ner.TaggedSentence(("New", "York", "Times"), ((0, 2, "LOC"), (2, 3, "ORG")))]
    assert second == [ner.TaggedSentence(("Hi",))]


def test_malformed_lines_are_skipped_and_reported() -> None:
    problems: list[str] = []
    lines = ["Rome B-LOC", "\tO", "lonely", "is X-LOC", "big O"]
    [[sentence]] = ner.read_columns(lines, problems)
    assert sentence == ner.TaggedSentence(("Rome", "big"), ((0, 1, "LOC"),))
    assert [problem.split(" is ")[0] for problem in problems] == ["Line 2", "Line 3", "Line 4"]
    assert list(ner.read_columns([])) == []
    assert list(ner.read_columns(["broken"])) == []


def test_docred_mentions_drop_blank_tokens_and_overlaps() -> None:
    document = {
        "sents": [["The", "\xa0", "New", "York", "Times", "."], ["\xa0"]],
        "vertexSet": [
            [{"sent_id": 0, "pos": [2, 5], "type": "ORG"}],
            [{"sent_id": 0, "pos": [2, 4], "type": "LOC"}, {"sent_id": 1, "pos": [0, 1], "type": "LOC"}],
        ],
    }
    assert ner.read_docred(document) == [
        ner.TaggedSentence(("The", "New", "York", "Times", "."), ((1, 4, "ORG"),)),
        ner.TaggedSentence(()),
    ]


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ('He did n\'t say " no " , she said .', 'He didn\'t say "no", she said.'),
        ("The men 's Oscar - nominated film ( 1992 – 2002 )", "The men's Oscar-nominated film (1992–2002)"),
        ("born in U.S. – a $ 5 fee", "born in U.S. – a $5 fee"),
        ("`` Yes '' , players ' club", '"Yes", players\' club'),
        ("", ""),
    ],
)
def test_detokenise(tokens: str, text: str) -> None:
    made, offsets = ner.detokenise(tokens.split())
    assert made == text
    words = [made[start:end] for start, end in offsets]
    assert words == [{"``": '"', "''": '"'}.get(token, token) for token in tokens.split()]


def test_entities_grow_to_whole_tokens() -> None:
    nlp = spacy.blank("en")
    sentence = ner.TaggedSentence(
        tuple(["From", "1992", "–", "2002", "in", "Paris"]), ((1, 2, "DATE"), (3, 4, "DATE"), (5, 6, "LOC"))
    )
    doc = ner.make_doc(nlp, [sentence, ner.TaggedSentence(("Rome",), ((0, 1, "LOC"),))])
    assert [(ent.text, ent.label_) for ent in doc.ents] == [
        ("1992–2002", "DATE"),
        ("Paris", "LOC"),
        ("Rome", "LOC"),
    ]


def test_quantities_without_annotation_are_missing() -> None:
    sentence = ner.TaggedSentence(tuple(["Bach", "left", "Leipzig", "in", "1750", "for", "good"]), ((0, 1, "PERSON"),))
    doc = ner_mini.hide_quantities(ner.make_doc(spacy.blank("en"), [sentence]))
    assert [token.ent_iob_ for token in doc] == ["B", "O", "O", "", "", "", "O"]


def test_wikigold_nationalities_become_places() -> None:
    docred = [[ner.TaggedSentence(("German", "and", "German"), ((0, 1, "LOC"), (2, 3, "LOC")))]]
    places = ner_mini.nationalities(docred)
    assert places == {"German"}
    sentence = ner.TaggedSentence(("German", "Idol"), ((0, 1, "MISC"), (1, 2, "MISC")))
    assert ner_mini.complete(sentence, places).entities == ((0, 1, "LOC"), (1, 2, "MISC"))


def test_pieces_cover_the_document() -> None:
    document = [ner.TaggedSentence((str(i),)) for i in range(20)]
    cut = list(ner_mini.pieces(document, random.Random(0)))
    assert [sentence for piece in cut for sentence in piece] == document
    assert max(map(len, cut)) <= 4


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="re_docred"):
        ner_mini.make_corpora(tmp_path / "out", tmp_path)


def test_corpora_are_deterministic_and_disjoint(tmp_path: Path) -> None:
    data = _data()
    numbers = [ner_mini.make_corpora(tmp_path / name, data, unlabelled=50) for name in ("a", "b")]
    assert numbers[0] == numbers[1]
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    vocab = spacy.blank("en").vocab
    texts = {
        name: [doc.text for doc in DocBin().from_disk(tmp_path / "a" / f"{name}.spacy").get_docs(vocab)]
        for name in ("train", "test")
    }
    assert not {t for t in texts["train"] if len(t) > 60 and any(t in whole for whole in texts["test"])}


# the teacher


@pytest.fixture(scope="module")
def teacher() -> ner_teacher.Teacher:
    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ada", "lived", "in", "rome", "##s", "."]
    tokenizer = Tokenizer(WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    return ner_teacher.Teacher(BertModel(config, add_pooling_layer=False), fast)


def test_teacher_learns_and_survives_the_disk(teacher: ner_teacher.Teacher, tmp_path: Path) -> None:
    sentence = ner.TaggedSentence(("Ada", "lived", "in", "Rome", "."), ((0, 1, "PERSON"), (3, 4, "LOC")))
    docs = [ner.make_doc(spacy.blank("en"), [sentence]) for _ in range(8)]
    for _ in range(40):
        [report] = ner_teacher.train(teacher, docs, docs, epochs=1, learn_rate=1e-2)
        if report["dev_f1"] == 1:
            break
    assert report["dev_f1"] == 1
    teacher.to_disk(tmp_path)
    copy = ner_teacher.Teacher.from_disk(tmp_path)
    texts = [["Ada", ".", "Romes"], ["Rome"], ["\n"], [], ["Ada", "lived"] * 200]
    assert copy.annotate(texts) == teacher.annotate(texts)
    assert [copy.annotate([text])[0] for text in texts] == copy.annotate(texts)

    silver = [spacy.blank("en").make_doc("Ada lived in Rome.")]
    ner_silver.annotate(copy, silver)
    assert [(ent.text, ent.label_) for ent in silver[0].ents] == [("Ada", "PERSON"), ("Rome", "LOC")]


def test_teacher_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="safetensors"):
        ner_teacher.Teacher.from_disk(tmp_path)


def test_windows_end_at_full_stops() -> None:
    words = (["word"] * 9 + ["."]) * 20
    cut = list(ner_teacher.windows(words, limit=64))
    assert cut[0] == (0, 60)
    assert [i for start, end in cut for i in range(start, end)] == list(range(200))
    assert list(ner_teacher.windows([])) == []


def test_missing_tags_are_not_learnt() -> None:
    doc = spacy.blank("en").make_doc("Bach left in 1750")
    doc.set_ents([Span(doc, 0, 1, label="PERSON")], missing=[Span(doc, 3, 4)])
    person = ner_teacher.TAGS.index("B-PERSON")
    assert ner_teacher.tag_numbers(doc) == [person, 0, 0, ner_teacher.MISSING]
