from __future__ import annotations

from html.parser import HTMLParser
from itertools import combinations, pairwise

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from spacy_ie_moe.relations import make_relation
from spacy_ie_moe.view import html, render
from spacy_ie_moe.view.layout import LABEL_HEIGHT, Arc, Entity, Word, direction, layout, stack, text_width

ELEMENTS = {"style", "figure", "svg", "g", "title", "rect", "text", "path", "circle"}
ATTRIBUTES = {
    "class", "xmlns", "width", "height", "viewbox", "role", "aria-label", "direction", "x", "y", "rx", "fill",
    "text-anchor", "textlength", "lengthadjust", "d", "stroke", "stroke-opacity", "cx", "cy", "r",
}  # fmt: skip


class Reader(HTMLParser):
    """What a browser would see: elements, attributes, and the text by class of the ``text`` around it."""

    def __init__(self, source: str):
        super().__init__()
        self.elements: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.words: list[str] = []
        self.inside = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value)
        self.inside = dict(attrs).get("class", "") if tag == "text" else ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "ie-word":
            self.words.append(data)

    def handle_comment(self, data):
        raise AssertionError("a comment")

    def handle_decl(self, decl):
        self.elements.append("!" + decl)

    def unknown_decl(self, data):
        raise AssertionError("a declaration")


def doc_of(text: str, *ents: tuple[int, int, str]) -> Doc:
    doc = Doc(Vocab(), words=text.split())
    doc.ents = [Span(doc, start, end, label=label) for start, end, label in ents]
    return doc


@pytest.fixture
def busy() -> Doc:
    """Two lines, eleven relations, overlapping arcs."""
    text = (
        "Jobs , who founded Apple with Wozniak and Wayne in Cupertino , later bought Pixar from Lucasfilm , the "
        "California company of George Lucas , and sold it to Disney in 2006 ."
    )
    doc = doc_of(text)
    words = text.split()
    names = ["Jobs", "Apple", "Wozniak", "Wayne", "Cupertino", "Pixar", "Lucasfilm", "California", "Lucas", "Disney"]
    spans = {name: Span(doc, words.index(name), words.index(name) + 1, label="ENT") for name in names}
    doc.ents = list(spans.values())
    pairs = [("Jobs", name) for name in names[1:]] + [("Wozniak", "Apple"), ("Wayne", "Apple")]
    doc._.relations = [
        make_relation(spans[head], spans[tail], "founder_of", 0.9 - i / 100) for i, (head, tail) in enumerate(pairs)
    ]
    return doc


# --- geometry ---------------------------------------------------------------------------------------------


def overlap(a, b):
    return a[0] < b[1] and b[0] < a[1]


def check_geometry(drawing, n_arcs, width):
    segments = drawing.segments
    labels = [(s, (s.label_x, s.label_x + s.label_width)) for s in segments]
    for (a, span_a), (b, span_b) in combinations(labels, 2):
        if (a.line, a.level) == (b.line, b.level):
            assert not overlap(span_a, span_b)
            assert not overlap((a.left, a.right), (b.left, b.right))
    for a, b in combinations(drawing.fragments, 2):
        if (a.line, a.row) == (b.line, b.row):
            assert not overlap(a.extent, b.extent)
    for a, b in combinations(drawing.pieces, 2):
        if a.line == b.line:
            assert a.right <= b.left + 0.01 or b.right <= a.left + 0.01
    for piece in drawing.pieces:
        assert piece.x >= -0.01 and piece.x + piece.width <= width + 0.01
    for _, (left, right) in labels:
        assert left >= -0.01 and right <= width + 0.01
    for route in drawing.routes:
        assert all(-0.01 <= x <= width + 0.01 and 0 <= y <= drawing.height for x, y in route)
        assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(route))
    for above, below in pairwise(drawing.lines):  # lines don't run into each other
        arcs_top = below.level_y(below.levels - 1) - LABEL_HEIGHT / 2 if below.levels else below.top
        assert above.row_y(above.rows) <= arcs_top
    assert len(drawing.routes) == n_arcs
    assert len({segment.arc for segment in segments}) == n_arcs


WORDS = ["a", "word", "w" * 60, "שלום", "東京", "🎮", "\n\n", "(", "x\u0301"]


@st.composite
def documents(draw):
    words = draw(
        st.lists(
            st.builds(Word, st.sampled_from(WORDS), st.booleans()),
            min_size=1,
            max_size=40,
        )
    )  # fmt: skip
    bounds = st.tuples(st.integers(0, len(words) - 1), st.integers(1, 6))
    entities = [
        Entity(start, min(start + length, len(words)), label)
        for start, length in draw(st.lists(bounds, min_size=1, max_size=12))
        for label in draw(st.sampled_from([["X"], ["A_VERY_LONG_LABEL_" * 3]]))
    ]
    index = st.integers(0, len(entities) - 1)
    arcs = draw(st.lists(st.builds(Arc, index, index, st.sampled_from(["r 0.9", "a longer label 0.10"])), max_size=12))
    return words, entities, arcs


@settings(max_examples=150, deadline=None)
@given(documents(), st.sampled_from([240, 480, 960]))
def test_nothing_collides(document, width):
    words, entities, arcs = document
    check_geometry(layout(words, entities, arcs, width), len(arcs), width)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda pair: tuple(map(float, sorted(pair))))))
def test_extents_on_a_level_are_apart(extents):
    levels = stack(extents, 2.0)
    for (i, a), (j, b) in combinations(enumerate(extents), 2):
        if levels[i] == levels[j]:
            assert a[1] + 2 <= b[0] or b[1] + 2 <= a[0]


def test_nested_arcs_go_up():
    assert stack([(0, 100), (20, 40), (60, 80), (10, 90)], 2.0) == [2, 0, 0, 1]


def test_arc_within_a_line_has_one_segment_and_across_lines_two():
    words = [Word(f"word{i}") for i in range(60)]
    entities = [Entity(0, 1, "X"), Entity(2, 3, "X"), Entity(58, 59, "X")]
    drawing = layout(words, entities, [Arc(0, 1, "near 1.00"), Arc(0, 2, "far 1.00")], 480)
    assert [segment.arc for segment in drawing.segments] == [0, 1, 1]
    near, far = drawing.routes
    assert (len(near), len(far)) == (4, 6)
    margin_x = far[2][0]
    assert margin_x == far[3][0]
    assert all(not piece.left < margin_x < piece.right for piece in drawing.pieces)  # the lane is off the text


def test_route_runs_from_head_to_tail():
    words = [Word("one"), Word("two"), Word("three")]
    entities = [Entity(0, 1, "X"), Entity(2, 3, "X")]
    forward = layout(words, entities, [Arc(0, 1, "r")], 480).routes[0]
    backward = layout(words, entities, [Arc(1, 0, "r")], 480).routes[0]
    assert forward[0][0] < forward[-1][0] and backward[0][0] > backward[-1][0]


def test_lines_without_arcs_are_compact():
    drawing = layout([Word("word")] * 200, [], [], 480)
    gaps = {round(b.top - a.top) for a, b in pairwise(drawing.lines)}
    assert gaps == {24}


def test_right_to_left_text_reads_from_the_right_and_english_in_it_does_not():
    drawing = layout([Word(text) for text in ["שלום", "Red", "Hat", "עולם", "טוב"]], [], [], 480)
    x = [piece.x for piece in drawing.pieces]
    assert drawing.rtl
    assert x[0] > x[2] > x[1] > x[3] > x[4]


def test_long_word_is_split_and_complete():
    drawing = layout([Word("é" * 500)], [Entity(0, 1, "X")], [], 300)
    assert "".join(piece.text for piece in drawing.pieces) == "é" * 500
    assert len(drawing.lines) > 3
    assert [fragment.label for fragment in drawing.fragments] == ["X"] + [""] * (len(drawing.lines) - 1)


def test_newlines_break_lines():
    words = [Word("a"), Word("\n", False), Word("b"), Word("\n\n", False), Word("c")]
    drawing = layout(words, [], [], 480)
    assert [piece.line for piece in drawing.pieces if piece.text] == [0, 1, 2]


def test_empty_layout():
    drawing = layout([], [], [], 480)
    assert (drawing.lines, drawing.routes) == ([], [])


def test_text_width():
    assert text_width("", 10) == 0
    assert text_width("iiii", 10) < text_width("mmmm", 10)
    assert text_width("東", 10) == 10
    assert text_width("e\u0301", 10) == text_width("é", 10) == text_width("e", 10)
    family = "\U0001f469\u200d\U0001f467"
    assert text_width(family, 10) == text_width("\U0001f469", 10)


def test_direction():
    assert [direction(text) for text in ["(abc", "שלום", "12!", ""]] == ["L", "R", "", ""]


# --- HTML -------------------------------------------------------------------------------------------------

NASTY = st.text(st.characters() | st.sampled_from("<>&\"'/\x00\x1b\ud800\udfff\u202e\ufffe]"), max_size=20)
ATTACKS = st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><svg onload="x',
        "]]>",
        "</style><b>",
        "<!--",
        "-->",
        "&lt;b&gt;",
        "</svg>",
        "{{x}}",
    ]
)
LABELS = NASTY | ATTACKS
TEXTS = (st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | ATTACKS).filter(bool)


@settings(max_examples=120, deadline=None)
@given(st.lists(TEXTS, min_size=2, max_size=8), LABELS, st.text(max_size=10) | ATTACKS)
def test_no_element_but_ours(words, label, entity_label):
    doc = Doc(Vocab(), words=words)
    doc.ents = [Span(doc, 0, 1, label=entity_label)]
    doc._.relations = [make_relation(doc[0:1], doc[1:2], label, 0.5)]
    doc._.relations[0]["head_label"] = label
    source = render(doc, jupyter=False)
    source.encode("utf8")  # no half of a surrogate pair
    found = Reader(source)
    assert set(found.elements) <= ELEMENTS
    assert set(found.attributes) <= ATTRIBUTES
    assert not any(ord(char) < 32 and char not in "\t\n\r" for char in source)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text("abc<>&\"' ]", min_size=1, max_size=12).filter(lambda text: not text.isspace()), max_size=30))
def test_text_is_complete(words):
    found = Reader(render(Doc(Vocab(), words=words), jupyter=False))
    assert "".join(found.words) == "".join(words)


def test_page_is_complete_and_loads_nothing(busy):
    source = render(busy, page=True, jupyter=False)
    assert source.startswith("<!DOCTYPE html>") and source.endswith("</html>\n")
    found = Reader(source)
    assert "utf-8" in found.attributes["charset"]
    assert {"title", "html", "body"} <= set(found.elements)
    assert not {"script", "link", "img", "iframe"} & set(found.elements)
    assert "prefers-color-scheme:dark" in source
    assert "url(" not in source and "@import" not in source
    assert source.count("http") == source.count("http://www.w3.org/2000/svg")


def test_labels_scores_and_tooltips(busy):
    source = render(busy, jupyter=False)
    assert "founder_of 0.90" in source
    assert "<title>Jobs → founder_of → Apple (0.90)</title>" in source
    assert source.count('<circle class="') == 0 and source.count("<circle") == 11


def test_min_score(busy):
    assert render(busy, jupyter=False, min_score=0.875).count("<circle") == 3


def test_is_deterministic(busy):
    assert render(busy, jupyter=False) == render(busy, jupyter=False)


def test_arguments_are_drawn_as_entities():
    doc = doc_of("The University of California Berkeley", (1, 5, "ORG"))
    inner, other = Span(doc, 3, 4, label="GPE"), Span(doc, 1, 5)
    doc._.relations = [make_relation(other, inner, "located_in", 1.0)]
    source = render(doc, jupyter=False)
    assert source.count('class="ie-box"') == 2  # the argument without a label is the entity
    assert ">GPE</text>" in source and ">ORG</text>" in source


def test_relations_read_from_a_docbin_have_tuples():
    doc = doc_of("a b")
    relation = make_relation(doc[0:1], doc[1:2], "r")
    doc._.relations = [{**relation, "head_pos": (0, 1), "tail_pos": (1, 2)}]
    assert "r 1.00" in render(doc, jupyter=False)


def test_self_relation_and_parallel_relations():
    doc = doc_of("a b", (0, 1, "X"))
    doc._.relations = [make_relation(doc[0:1], doc[0:1], "self")] + [
        make_relation(doc[0:1], doc[1:2], f"r{i}") for i in range(10)
    ]
    assert render(doc, jupyter=False).count("<circle") == 11


def test_colors_by_label(busy):
    source = render(busy, jupyter=False, colors={"ENT": "teal", "founder_of": "rgb(1, 2, 3)"})
    assert 'fill="teal"' in source and 'stroke="rgb(1, 2, 3)"' in source


@pytest.mark.parametrize("color", ['red"><script>', "url(http://x)", "", "var(--x);}", 3])
def test_colors_that_are_none(busy, color):
    with pytest.raises(ValueError, match=r"colors\['ENT'\] is .*; expected a CSS colour"):
        render(busy, jupyter=False, colors={"ENT": color})


def test_bad_arguments(busy):
    with pytest.raises(ValueError, match="width is 10; expected at least 240"):
        render(busy, jupyter=False, width=10)
    with pytest.raises(ValueError, match="docs has str; expected a Doc"):
        render(["text"], jupyter=False)
    busy._.relations[0]["head_pos"] = [0, 1000]
    with pytest.raises(ValueError, match="head_pos of a relation"):
        render(busy, jupyter=False)


def test_documents_without_relations_and_empty_ones():
    docs = [doc_of("only Berlin", (1, 2, "GPE")), Doc(Vocab()), Doc(Vocab(), words=["\n"], spaces=[False])]
    source = render(iter(docs), jupyter=False)
    assert source.count("<figure") == 3 and source.count("<style>") == 1
    assert "Berlin" in source and "<circle" not in source


def test_notebook_displays_and_returns_none(monkeypatch, busy):
    import sys
    from types import ModuleType

    shown = []
    display = ModuleType("IPython.display")
    display.HTML = lambda source: source  # type: ignore[attr-defined]
    display.display = shown.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    assert render(busy, jupyter=True) is None
    monkeypatch.setattr(html, "is_in_jupyter", lambda: True)
    assert render(busy) is None
    assert len(shown) == 2 and shown[0] == shown[1] and "tex2jax_ignore" in shown[0]
    assert isinstance(render(busy, jupyter=False), str)
    monkeypatch.setattr(html, "is_in_jupyter", lambda: False)
    assert isinstance(render(busy), str)


def test_long_document_stays_quick():
    nlp = spacy.blank("en")
    doc = Doc(nlp.vocab, words=[f"word{i}" for i in range(2000)])
    spans = [Span(doc, i, i + 2, label="X") for i in range(0, 2000, 20)]
    doc.ents = spans
    doc._.relations = [make_relation(spans[i], spans[(i * 7 + 3) % 100], "rel", 0.5) for i in range(100)]
    assert render(doc, jupyter=False).count("<circle") == 100
