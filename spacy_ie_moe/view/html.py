"""Layouts to HTML with inline SVG: nothing but text, lines and one style sheet."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from itertools import pairwise
from typing import Any

from spacy.tokens import Doc
from spacy.util import is_in_jupyter

from ..relations import check_relation, score_of
from . import layout as geometry
from .layout import Arc, Entity, Fragment, Layout, Piece, Segment, Word

MIN_WIDTH = 240

# Mid tones: as a line they stand out on white and on black, as a tint they leave the text readable.
PALETTE = (
    "#3b82d6", "#d9534f", "#2f9e63", "#9b5de5", "#d98014",
    "#17a2a2", "#d6559f", "#7a8b1f", "#6676e8", "#b4693f",
)  # fmt: skip
# The usual types keep one colour each, whatever else is in a document.
ENTITY_COLORS = {
    name: PALETTE[index]
    for index, names in enumerate(
        (
            ("PERSON", "PER"),
            ("EVENT", "NORP"),
            ("GPE", "LOC", "FAC"),
            ("WORK_OF_ART", "PRODUCT"),
            ("ORG",),
            ("DATE", "TIME"),
            ("LAW", "LANGUAGE"),
            ("MONEY", "PERCENT", "QUANTITY", "CARDINAL", "ORDINAL"),
        )
    )
    for name in names
}

_COLOR = re.compile(r"#[0-9a-fA-F]{3,8}|[a-zA-Z]+|(?:rgba?|hsla?|hwb|lab|lch|oklab|oklch)\([-+.,%/\w\s]*\)")
# What HTML and XML cannot hold, and controls that a browser may act on: shown as the replacement character.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")

# The figure has its own background: labels hide the lines behind them with it, whatever page it is put in.
_LIGHT = "--ie-bg:#fff;--ie-fg:#1c2024;--ie-line:#d8dce1;--ie-tint:.17"
_DARK = "--ie-bg:#16191d;--ie-fg:#e8eaed;--ie-line:#3a4048;--ie-tint:.34"
STYLE = f"""<style>
.ie-relations{{{_LIGHT};margin:0 0 1rem;padding:8px;overflow-x:auto;background:var(--ie-bg);\
color:var(--ie-fg);border:1px solid var(--ie-line);border-radius:6px}}
@media (prefers-color-scheme:dark){{.ie-relations{{{_DARK}}}}}
[data-jp-theme-light="true"] .ie-relations,body.vscode-light .ie-relations{{{_LIGHT}}}
[data-jp-theme-light="false"] .ie-relations,body.vscode-dark .ie-relations{{{_DARK}}}
.ie-relations svg{{display:block;max-width:none;\
font-family:Helvetica,Arial,"Liberation Sans",Arimo,sans-serif}}
.ie-relations text{{fill:var(--ie-fg);white-space:pre}}
.ie-word{{font-size:{geometry.FONT:g}px}}
.ie-label{{font-size:{geometry.ENTITY_FONT:g}px;font-weight:600;opacity:.85}}
.ie-arc-label{{font-size:{geometry.ARC_FONT:g}px}}
.ie-box{{fill-opacity:var(--ie-tint)}}
.ie-route{{fill:none;stroke-width:1.4}}
.ie-pill{{fill:var(--ie-bg)}}
.ie-relation:hover .ie-route{{stroke-width:3}}
</style>"""

PAGE_START = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Relations</title>
<style>
body{{margin:0;padding:16px;background:#f5f6f8;color:#1c2024}}
@media (prefers-color-scheme:dark){{body{{background:#0d0f12;color:#e8eaed}}}}
</style>
{STYLE}
</head>
<body>
"""
PAGE_END = "</body>\n</html>\n"


def render(
    docs: Doc | Iterable[Doc],
    *,
    page: bool = False,
    jupyter: bool | None = None,
    min_score: float = 0.0,
    colors: Mapping[str, str] | None = None,
    width: int = 960,
) -> str | None:
    """Draw ``Doc._.relations`` as labelled arcs over the text.

    docs: one document or several.
    page: a complete HTML page; default is a fragment to put into one.
    jupyter: display the drawing in a notebook and return ``None``, as displaCy does; default is to find out.
    min_score: relations below this score are left out.
    colors: CSS colours by label, of entities and of relations.
    width: of the drawing, in pixels; at least 240.

    Raises ``ValueError`` for a colour or a width that isn't one and for a relation outside the document.
    """
    figures = [draw(doc, min_score=min_score, colors=colors, width=width) for doc in _as_docs(docs)]
    body = "\n".join(figures) + "\n"
    html = PAGE_START + body + PAGE_END if page else f"{STYLE}\n{body}"
    if jupyter or (jupyter is None and is_in_jupyter()):
        from IPython.display import HTML, display

        # MathJax would set what is between two dollar signs of the text, but for this class
        return display(HTML(f'<div class="tex2jax_ignore">{html}</div>'))
    return html


def draw(doc: Doc, *, min_score: float = 0.0, colors: Mapping[str, str] | None = None, width: int = 960) -> str:
    """The ``<figure>`` of one document; it needs ``STYLE`` once in the page. Arguments as of ``render``."""
    _check_options(colors, width)
    words = [Word(_printable(token.text), bool(token.whitespace_)) for token in doc]
    for relation in doc._.relations:
        check_relation(doc, relation)
    relations = [relation for relation in doc._.relations if score_of(relation) >= min_score]
    entities = _entities(doc, relations)
    arcs = _arcs(entities, relations)
    inner = width - 18  # padding and border
    drawing = geometry.layout(words, entities, arcs, inner)
    return "\n".join(_figure(drawing, entities, arcs, relations, colors or {}))


def _as_docs(docs: Doc | Iterable[Doc]) -> Iterable[Doc]:
    docs = [docs] if isinstance(docs, Doc) else list(docs)
    for doc in docs:
        if not isinstance(doc, Doc):
            raise ValueError(f"docs has {type(doc).__name__}; expected a Doc or Docs.")
    return docs


def _check_options(colors: Mapping[str, str] | None, width: int) -> None:
    if not isinstance(width, (int, float)) or width < MIN_WIDTH:
        raise ValueError(f"width is {width!r}; expected at least {MIN_WIDTH} pixels.")
    for label, color in (colors or {}).items():
        # a colour can hold a url(), which would load something
        if not isinstance(color, str) or not _COLOR.fullmatch(color):
            raise ValueError(f"colors[{label!r}] is {color!r}; expected a CSS colour like '#3b82d6' or 'teal'.")


# --- what is drawn ----------------------------------------------------------------------------------------


def _entities(doc: Doc, relations: Iterable[Mapping[str, Any]]) -> list[Entity]:
    """The entities of ``doc`` and all arguments, in order. One without a label is the entity there."""
    labels: dict[tuple[int, int], dict[str, None]] = {(ent.start, ent.end): {ent.label_: None} for ent in doc.ents}
    for relation in relations:
        for side in ("head", "tail"):
            start, end = relation[f"{side}_pos"]
            known, label = labels.setdefault((start, end), {}), relation.get(f"{side}_label") or ""
            if label or not known:
                known[label] = None
    return [
        Entity(start, end, _printable(" / ".join(filter(None, names))))
        for (start, end), names in sorted(labels.items())
    ]


def _arcs(entities: list[Entity], relations: Iterable[Mapping[str, Any]]) -> list[Arc]:
    index = {(entity.start, entity.end): i for i, entity in enumerate(entities)}
    return [
        Arc(
            index[tuple(relation["head_pos"])],
            index[tuple(relation["tail_pos"])],
            _arc_text(relation),
        )
        for relation in relations
    ]


def _arc_text(relation: Mapping[str, Any]) -> str:
    label = geometry.shorten(_printable(relation["label"]), geometry.MAX_ARC_LABEL)
    return f"{label} {score_of(relation):.2f}"


def _color(label: str, colors: Mapping[str, str], known: Mapping[str, str]) -> str:
    """The caller's colour, the usual one, or one that depends on the label only."""
    fallback = PALETTE[zlib.crc32(label.encode("utf8", "replace")) % len(PALETTE)]
    return escape(colors.get(label) or known.get(label.upper()) or fallback)


# --- writing ----------------------------------------------------------------------------------------------


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)


def _escape(text: str) -> str:
    return escape(_printable(text))


def _figure(
    drawing: Layout,
    entities: list[Entity],
    arcs: list[Arc],
    relations: list[Mapping[str, Any]],
    colors: Mapping[str, str],
) -> Iterator[str]:
    """Back to front: boxes, words, arcs, and the arcs' labels over all lines."""
    width, height = f"{drawing.width:.0f}", f"{drawing.height:.0f}"
    yield '<figure class="ie-relations">'
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="Text with {len(arcs)} relations">'
    )
    for fragment in sorted(drawing.fragments, key=lambda f: (f.line, -f.row, f.left)):  # the outer first
        label = entities[fragment.entity].label
        yield _box(drawing, fragment, label, _color(label, colors, ENTITY_COLORS))
    yield f'<g direction="{"rtl" if drawing.rtl else "ltr"}">'  # brackets open toward the text
    yield from (_word(drawing, piece) for piece in drawing.pieces if piece.text.strip())
    yield "</g>"
    titles = [_escape(_sentence(relation)) for relation in relations]
    shades = [_color(relation["label"], colors, {}) for relation in relations]
    for arc in sorted(range(len(arcs)), key=lambda arc: -_way(drawing.routes[arc])):  # the short on top
        yield _route(drawing.routes[arc], titles[arc], shades[arc])
    for segment in drawing.segments:
        yield _arc_label(drawing, segment, arcs[segment.arc].label, titles[segment.arc], shades[segment.arc])
    yield "</svg>\n</figure>"


def _sentence(relation: Mapping[str, Any]) -> str:
    head, tail = (" ".join(relation.get(f"{side}_text", ())) for side in ("head", "tail"))
    return f"{head} → {relation['label']} → {tail} ({score_of(relation):.2f})"


def _way(route: list[tuple[float, float]]) -> float:
    return sum(_length(a, b) for a, b in pairwise(route))


def _box(drawing: Layout, fragment: Fragment, label: str, color: str) -> str:
    """The tint behind the words, the bar below them and the entity's label below the bar."""
    line = drawing.lines[fragment.line]
    x, width, bar = fragment.left, fragment.right - fragment.left, line.row_y(fragment.row)
    grow = 1.0 * fragment.row  # an outer box stands out of the inner ones
    parts = [
        f"<g><title>{_escape(label)}</title>",
        f'<rect class="ie-box" x="{x:.1f}" y="{line.top - grow:.1f}" width="{width:.1f}" '
        f'height="{bar - line.top + grow:.1f}" rx="3" fill="{color}"/>',
        f'<rect x="{x:.1f}" y="{bar:.1f}" width="{width:.1f}" height="2.5" rx="1" fill="{color}"/>',
    ]
    if fragment.label:
        parts.append(_text("ie-label", fragment.label, fragment.label_x, bar + 12, fragment.label_width))
    return "".join(parts) + "</g>"


def _word(drawing: Layout, piece: Piece) -> str:
    y = drawing.lines[piece.line].top + geometry.BASELINE
    return _text("ie-word", piece.text, piece.x, y, piece.width)


def _text(css: str, text: str, x: float, y: float, width: float) -> str:
    """Text forced to its estimated width. Anchored in the middle, it stands the same in both directions."""
    length = f' textLength="{width:.1f}" lengthAdjust="spacingAndGlyphs"' if width > 0 else ""
    place = f'text-anchor="middle" x="{x + width / 2:.1f}" y="{y:.1f}"'
    return f'<text class="{css}" {place}{length}>{_escape(text)}</text>'


def _route(route: list[tuple[float, float]], title: str, color: str) -> str:
    """The line with round corners, a dot at the head and an arrowhead at the tail."""
    (head_x, head_y), (tail_x, tail_y) = route[0], route[-1]
    path = _round([(head_x, head_y - 3), *route[1:-1], (tail_x, tail_y - 7)])
    return (
        f'<g class="ie-relation"><title>{title}</title><path class="ie-route" d="{path}" stroke="{color}"/>'
        f'<circle cx="{head_x:.1f}" cy="{head_y - 3:.1f}" r="2.4" fill="{color}"/>'
        f'<path d="M{tail_x:.1f} {tail_y - 1:.1f}l-3.6 -7.5h7.2z" fill="{color}"/></g>'
    )


def _round(points: list[tuple[float, float]], radius: float = 6.0) -> str:
    """An SVG path through ``points``, its corners rounded as far as the ways between them allow."""
    path = [f"M{_point(points[0])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        cut = min(radius, _length(before, corner) / 2, _length(corner, after) / 2)
        start, end = _toward(corner, before, cut), _toward(corner, after, cut)
        path.append(f"L{_point(start)}Q{_point(corner)} {_point(end)}")
    path.append(f"L{_point(points[-1])}")
    return "".join(path)


def _point(point: tuple[float, float]) -> str:
    return f"{point[0]:.1f} {point[1]:.1f}"


def _length(a: tuple[float, float], b: tuple[float, float]) -> float:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])  # all ways are horizontal or vertical


def _toward(a: tuple[float, float], b: tuple[float, float], distance: float) -> tuple[float, float]:
    share = distance / (_length(a, b) or 1.0)
    return a[0] + (b[0] - a[0]) * share, a[1] + (b[1] - a[1]) * share


def _arc_label(drawing: Layout, segment: Segment, label: str, title: str, color: str) -> str:
    """The label on a pill of the background's colour, so that no line runs through it."""
    y = drawing.lines[segment.line].level_y(segment.level)
    text = _text(
        "ie-arc-label",
        label,
        segment.label_x + geometry.LABEL_PAD,
        y + 4,
        segment.label_width - 2 * geometry.LABEL_PAD,
    )
    return (
        f'<g class="ie-relation"><title>{title}</title><rect class="ie-pill" x="{segment.label_x:.1f}" '
        f'y="{y - geometry.LABEL_HEIGHT / 2:.1f}" width="{segment.label_width:.1f}" '
        f'height="{geometry.LABEL_HEIGHT:g}" rx="7.5" stroke="{color}" stroke-opacity=".45"/>{text}</g>'
    )
