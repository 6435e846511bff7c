"""Where everything goes: words to lines, entities to rows, arcs to levels. Pure geometry, no spaCy, no HTML.

All lengths are CSS pixels, x to the right and y down. The widths of words are estimated (there is no browser
to ask) with the metrics that Helvetica, Arial, Liberation Sans and Arimo share; the drawing forces every word
to its estimated width, so another font changes the letters' spacing and never the geometry.

A relation whose arguments are on one line is a bracket above it. One that crosses lines leaves its line
sideways, runs down or up a lane in the margin and enters the other line; both ends carry the label. Brackets
stack on levels: no two whose extents, labels included, overlap share a level of a line.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

FONT = 15.0  # the text
ENTITY_FONT = 10.0
ARC_FONT = 11.0
PAD = 6.0  # left and right of the text
TEXT_HEIGHT = 24.0
BASELINE = 17.0  # of a word, below the top of its line's text
ROW = 15.0  # of entity labels, below the text
LEVEL = 19.0  # of arcs, above the text
LABEL_HEIGHT = 15.0
ARROW_ROOM = 14.0  # between the lowest level and the text
LINE_GAP = 12.0
PARAGRAPH_GAP = 10.0
LANE = 8.0  # of the margins
MAX_MARGIN = 0.16  # of the width, each side; more lanes than fit move closer together
PORT = 7.0  # between the ends of two arcs at one entity
LABEL_PAD = 4.0
MAX_ENTITY_LABEL = 24  # characters drawn; the tooltip has all
MAX_ARC_LABEL = 40

# Widths of " " to "~" in thousandths of the font size (Adobe's metrics of Helvetica).
_ASCII_WIDTHS = (
    "278 278 355 556 556 889 667 191 333 333 389 584 278 333 278 278 "
    "556 556 556 556 556 556 556 556 556 556 278 278 584 584 584 556 "
    "1015 667 667 722 722 667 611 778 722 278 500 667 556 833 722 778 667 778 722 667 "
    "611 722 667 944 667 667 611 278 278 278 469 556 333 "
    "556 556 500 556 556 278 556 556 222 222 500 222 833 "
    "556 556 556 556 333 500 278 556 500 722 500 500 500 334 260 334 584"
)
_WIDTHS = {chr(32 + i): int(width) / 1000 for i, width in enumerate(_ASCII_WIDTHS.split())}
_JOINER = "\u200d"


@dataclass(frozen=True)
class Word:
    """A token: its text and whether a space follows."""

    text: str
    space: bool = True


@dataclass(frozen=True)
class Entity:
    """The words ``[start, end)`` with a label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Arc:
    """A relation between two entities, given by their indices; ``label`` is what is drawn."""

    head: int
    tail: int
    label: str


@dataclass
class Piece:
    """A word, or the part of a very long one that is on one line.

    ``x`` and ``width`` are the glyphs', ``left`` and ``right`` the space they own (an entity with a long
    label owns more than its glyphs).
    """

    word: int
    text: str
    line: int
    x: float
    width: float
    left: float
    right: float


@dataclass
class Fragment:
    """The part of an entity that is on one line. ``row``: of its label, 0 is nearest to the text."""

    entity: int
    line: int
    left: float
    right: float
    label: str  # "" on the lines after the entity's first
    label_width: float
    label_x: float = 0.0
    row: int = 0

    @property
    def center(self) -> float:
        return (self.left + self.right) / 2

    @property
    def extent(self) -> tuple[float, float]:
        return min(self.left, self.label_x), max(self.right, self.label_x + self.label_width)


@dataclass
class Segment:
    """The part of an arc that is on one line: a leg at each port and a horizontal on a level.

    ``ports`` has two ends for an arc within the line, one where the arc leaves to the margin; ``left`` and
    ``right`` are the ends of the horizontal.
    """

    arc: int
    line: int
    ports: list[float]
    left: float
    right: float
    label_width: float
    level: int = 0
    label_x: float = 0.0  # of the label's left edge

    @property
    def extent(self) -> tuple[float, float]:
        return min(self.left, self.label_x), max(self.right, self.label_x + self.label_width)


@dataclass
class Line:
    """A line of text. ``top`` is that of its words; arcs are above, labels of entities below."""

    top: float
    levels: int
    rows: int

    def level_y(self, level: int) -> float:
        """The y of the arcs on ``level``."""
        return self.top - ARROW_ROOM - (level + 0.5) * LEVEL

    def row_y(self, row: int) -> float:
        """The y of the bar of the entities on ``row``."""
        return self.top + TEXT_HEIGHT + row * ROW


@dataclass
class Layout:
    """A drawing. ``routes`` has the corners of every arc, from head to tail, both at the top of words."""

    width: float
    height: float
    rtl: bool
    lines: list[Line] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    fragments: list[Fragment] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    routes: list[list[tuple[float, float]]] = field(default_factory=list)


class _End(NamedTuple):
    """One end of an arc at an entity: ``toward`` is the x where the arc goes, infinite for a margin."""

    arc: int
    role: int  # 0 head, 1 tail
    fragment: Fragment
    toward: float


# --- widths -----------------------------------------------------------------------------------------------


def text_width(text: str, size: float) -> float:
    """The estimated width of ``text`` in a sans-serif font of ``size`` pixels."""
    width, joined = 0.0, False
    for char in text:
        if not joined:
            width += _char_width(char)
        joined = char == _JOINER  # an emoji after a joiner is drawn as one with the emoji before it
    return width * size


def _char_width(char: str) -> float:
    if char in _WIDTHS:
        return _WIDTHS[char]
    category = unicodedata.category(char)
    if category in ("Mn", "Me", "Cf", "Cc") or 0x1F3FB <= ord(char) <= 0x1F3FF:  # skin tones join the emoji
        return 1.0 if category == "Cc" else 0.0  # control characters are drawn as a replacement character
    if unicodedata.east_asian_width(char) in "WF":
        return 1.25 if category == "So" else 1.0
    if 0x1F1E6 <= ord(char) <= 0x1F1FF:  # two make a flag
        return 0.65
    base = unicodedata.normalize("NFD", char)[0]
    return _WIDTHS.get(base, 0.95 if category == "So" else 0.6)


def shorten(text: str, limit: int) -> str:
    """``text`` cut to ``limit`` characters, the last an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


# --- direction --------------------------------------------------------------------------------------------


def direction(text: str) -> str:
    """``"R"``, ``"L"`` or, where no character has a direction, ``""``: that of the first that has one."""
    for char in text:
        bidi = unicodedata.bidirectional(char)
        if bidi in ("R", "AL"):
            return "R"
        if bidi == "L":
            return "L"
    return ""


def _opposite_runs(directions: Sequence[str], base: str) -> Iterator[tuple[int, int]]:
    """Runs ``[start, end)`` that read against ``base``; words without direction join a run around them."""
    start = end = None
    for i, word in enumerate(directions):
        if word and word != base:
            start, end = (i if start is None else start), i + 1
        elif word == base and start is not None and end is not None:
            yield start, end
            start = end = None
    if start is not None and end is not None:
        yield start, end


def _mirror(pieces: Iterable[Piece], left: float, right: float) -> None:
    for piece in pieces:
        piece.left, piece.right = left + right - piece.right, left + right - piece.left
        piece.x = left + right - piece.x - piece.width


def _reorder(pieces: list[Piece], directions: Sequence[str], base: str, width: float) -> None:
    """From reading order to where words stand: mirror the runs against the base, then an "R" line."""
    for start, end in _opposite_runs([directions[piece.word] for piece in pieces], base):
        run = pieces[start:end]
        _mirror(run, run[0].left, run[-1].right)
    if base == "R":
        _mirror(pieces, 0.0, width)


# --- words to lines ---------------------------------------------------------------------------------------


def _is_wide(char: str) -> bool:
    return unicodedata.east_asian_width(char) in "WF"


def _widths(words: Sequence[Word], entities: Sequence[Entity], ports: Sequence[int], limit: float) -> list[float]:
    """What every word owns: its glyphs, and for an entity's last word the room its label and arcs need."""
    own = [0.0 if word.text.isspace() else text_width(word.text, FONT) for word in words]
    inner_first = sorted(zip(entities, ports, strict=True), key=lambda pair: pair[0].end - pair[0].start)
    for entity, n_ports in inner_first:
        span = range(entity.start, entity.end)
        have = sum(own[i] for i in span) + sum(_WIDTHS[" "] * FONT for i in span[:-1] if words[i].space)
        need = max(_entity_label_width(entity) + 6, PORT * n_ports + 6)
        own[entity.end - 1] += max(0.0, min(need, limit) - have)
    return own


def _entity_label_width(entity: Entity) -> float:
    # 1.1: the labels are semibold
    return text_width(shorten(entity.label, MAX_ENTITY_LABEL), ENTITY_FONT) * 1.1


def _chunks(words: Sequence[Word], entities: Sequence[Entity], own: Sequence[float], limit: float) -> Iterator[range]:
    """Words that stay on one line: those without a space between them, and an entity that isn't long."""
    glued = [
        not word.space
        and not word.text.isspace()
        and not words[i + 1].text.isspace()
        and not (_is_wide(word.text[-1:] or " ") or _is_wide(words[i + 1].text[:1] or " "))
        for i, word in enumerate(words[:-1])
    ]
    for entity in entities:
        span = range(entity.start, entity.end)
        if sum(own[i] for i in span) < limit / 2 and not any("\n" in words[i].text for i in span):
            for i in span[:-1]:
                glued[i] = True
    start = 0
    for i in range(len(words)):
        if i + 1 == len(words) or not glued[i]:
            yield range(start, i + 1)
            start = i + 1


def _split(text: str, limit: float) -> Iterator[str]:
    """Parts of a word that are not wider than ``limit``; combining characters stay with their base."""
    part, width = "", 0.0
    for char in text:
        advance = text_width(char, FONT)
        if part and width + advance > limit and advance:
            yield part
            part, width = "", 0.0
        part, width = part + char, width + advance
    yield part


class _Wrapper:
    """Fills lines greedily. ``limit``: the width of a line; ``breaks``: lines that start a paragraph."""

    def __init__(self, words: Sequence[Word], own: Sequence[float], limit: float):
        self.words, self.own, self.limit = words, own, limit
        self.lines: list[list[Piece]] = [[]]
        self.breaks: set[int] = set()
        self.cursor = 0.0

    def new_line(self) -> None:
        if self.lines[-1]:
            self.lines.append([])
        self.cursor = 0.0

    def put(self, word: int, text: str, glyphs: float, advance: float) -> None:
        if self.cursor + advance > self.limit and self.cursor:
            self.new_line()
        left = self.cursor
        piece = Piece(word, text, len(self.lines) - 1, left, glyphs, left, left + advance)
        self.lines[-1].append(piece)
        self.cursor += advance

    def add_word(self, i: int) -> None:
        text, space = self.words[i].text, _WIDTHS[" "] * FONT
        if text.isspace() or not text:
            room = max(self.limit - self.cursor, 0.0)  # white space doesn't wrap, unless it is an entity
            blank = space * (text.count(" ") + 4 * text.count("\t"))
            self.cursor = min(self.cursor, self.limit)
            self.put(i, "", 0.0, self.own[i] or min(blank, room))
            if "\n" in text or "\u2029" in text:
                self.new_line()
                if text.count("\n") > 1:
                    self.breaks.add(len(self.lines) - 1)
            return
        glyphs = text_width(text, FONT)
        if glyphs <= self.limit:
            self.put(i, text, glyphs, min(max(self.own[i], glyphs), self.limit))
        else:
            for part in _split(text, self.limit):
                width = text_width(part, FONT)
                self.put(i, part, width, width)
        self.cursor += space if self.words[i].space else 0.0

    def add_chunk(self, chunk: range) -> None:
        space = _WIDTHS[" "] * FONT
        spaces = sum(self.words[i].space for i in chunk[:-1])
        width = sum(self.own[i] for i in chunk) + space * spaces
        if self.cursor and self.cursor + width > self.limit >= width:
            self.new_line()
        for i in chunk:
            self.add_word(i)


# --- entities to rows, arcs to levels ---------------------------------------------------------------------


def _overlaps(a: tuple[float, float], b: tuple[float, float], gap: float) -> bool:
    return a[0] < b[1] + gap and b[0] < a[1] + gap


def stack(extents: Sequence[tuple[float, float]], gap: float) -> list[int]:
    """The lowest level for every extent, short ones first; on a level they are ``gap`` pixels apart."""
    levels = [0] * len(extents)
    taken: list[list[tuple[float, float]]] = []
    for i in sorted(range(len(extents)), key=lambda i: (extents[i][1] - extents[i][0], i)):
        level = 0
        while level < len(taken) and any(_overlaps(extents[i], other, gap) for other in taken[level]):
            level += 1
        if level == len(taken):
            taken.append([])
        taken[level].append(extents[i])
        levels[i] = level
    return levels


def _fragments(entities: Sequence[Entity], lines: Sequence[Sequence[Piece]], limit: float) -> list[list[Fragment]]:
    """For every entity its fragments, first line first."""
    by_word: dict[int, list[Piece]] = defaultdict(list)
    for pieces in lines:
        for piece in pieces:
            by_word[piece.word].append(piece)
    result = []
    for index, entity in enumerate(entities):
        by_line: dict[int, list[Piece]] = defaultdict(list)
        for word in range(entity.start, entity.end):
            for piece in by_word[word]:
                by_line[piece.line].append(piece)
        fragments: list[Fragment] = []
        for line, pieces in sorted(by_line.items()):
            left, right = min(piece.left for piece in pieces), max(piece.right for piece in pieces)
            label = "" if fragments else shorten(entity.label, MAX_ENTITY_LABEL)
            width = min(_entity_label_width(entity), limit) if label else 0.0
            fragment = Fragment(index, line, left - 2, right + 2, label, width)
            fragment.label_x = max(0.0, min(left, limit - width))
            fragments.append(fragment)
        result.append(fragments)
    return result


def _nearest(heads: Sequence[Fragment], tails: Sequence[Fragment]) -> tuple[Fragment, Fragment]:
    """The fragments of two entities with the fewest lines between them."""
    pairs = [(head, tail) for head in heads for tail in tails]
    return min(pairs, key=lambda pair: (abs(pair[0].line - pair[1].line), pair[0].line, pair[1].line))


def _arc_ends(head: Fragment, tail: Fragment, arc: int, label: float, limit: float) -> tuple[_End, _End]:
    """Where both ends go: toward each other on one line, else to the same margin.

    That is the one that makes the way shorter, but not where the label would have no room beside the entity.
    """
    if head.line == tail.line:
        if head.center == tail.center:  # an entity with itself: a narrow bracket
            return _End(arc, 0, head, head.center - 1), _End(arc, 1, tail, tail.center + 1)
        return _End(arc, 0, head, tail.center), _End(arc, 1, tail, head.center)
    to_left, to_right = (
        sum(room + 3 * max(0.0, label + 12 - room) for room in rooms)
        for rooms in ((head.center, tail.center), (limit - head.center, limit - tail.center))
    )
    side = float("-inf") if to_left < to_right else float("inf")
    return _End(arc, 0, head, side), _End(arc, 1, tail, side)


def _ports(ends: Sequence[_End], limit: float) -> dict[tuple[int, int], float]:
    """The x of every arc's end, by (arc, role), spread so that arcs at one entity nest instead of crossing.

    From left to right: arcs to the left, the farthest last; then arcs to the right, the farthest first.
    """
    by_fragment: dict[tuple[int, int], list[_End]] = defaultdict(list)
    for end in ends:
        by_fragment[end.fragment.entity, end.fragment.line].append(end)
    found: list[tuple[int, float, _End]] = []
    for group in by_fragment.values():
        fragment = group[0].fragment
        group.sort(key=lambda end: _port_order(end, fragment.center))
        pitch = min(2 * PORT, (fragment.right - fragment.left - 6) / len(group))
        first = fragment.center - pitch * (len(group) - 1) / 2
        found += [(fragment.line, first + i * pitch, end) for i, end in enumerate(group)]
    ports = {}
    for line in {line for line, _, _ in found}:
        there = sorted((x, end.arc, end.role) for on, x, end in found if on == line)
        xs = _spread([x for x, _, _ in there], limit)
        ports.update({(arc, role): x for x, (_, arc, role) in zip(xs, there, strict=True)})
    return ports


def _spread(xs: Sequence[float], limit: float) -> list[float]:
    """Move ascending ``xs`` apart, within ``limit``: ends at entities that overlap would hide each other."""
    gap = min(4.0, limit / (len(xs) + 1))
    spread: list[float] = []
    for x in xs:
        spread.append(max(x, spread[-1] + gap) if spread else x)
    highest = limit
    for i in reversed(range(len(spread))):
        spread[i] = min(spread[i], highest)
        highest = spread[i] - gap
    return spread


def _port_order(end: _End, center: float) -> tuple[int, float, int]:
    return (0, -end.toward, -end.arc) if end.toward < center else (1, -end.toward, end.arc)


def _segments(
    ends: Sequence[tuple[_End, _End]],
    ports: dict[tuple[int, int], float],
    labels: Sequence[float],
    limit: float,
) -> list[Segment]:
    """One segment for every arc within a line, two for one that crosses lines; levels aren't set yet."""
    segments = []
    for arc, (head, tail) in enumerate(ends):
        xs = [ports[arc, 0], ports[arc, 1]]
        if head.fragment.line == tail.fragment.line:
            segments.append(Segment(arc, head.fragment.line, xs, min(xs), max(xs), labels[arc]))
            continue
        for end, x in zip((head, tail), xs, strict=True):
            left, right = (-PAD, x) if end.toward < 0 else (x, limit + PAD)
            segments.append(Segment(arc, end.fragment.line, [x], left, right, labels[arc]))
    for segment in segments:
        segment.label_x = _clamp(_wanted_label(segment), segment.label_width, limit)
    return segments


def _wanted_label(segment: Segment) -> float:
    """Labels are in the middle of a bracket, and near the entity where the arc leaves the line."""
    if len(segment.ports) == 2:
        return (segment.left + segment.right - segment.label_width) / 2
    port = segment.ports[0]
    return port + 9 if port == segment.left else port - 9 - segment.label_width


def _clamp(x: float, width: float, limit: float) -> float:
    return max(0.0, min(x, limit - width))


def _place_labels(segments: Sequence[Segment], limit: float) -> None:
    """Move labels along their arc to where no leg of a higher arc crosses them, as near as there is room."""
    for segment in segments:
        legs = [x for other in segments if other.level > segment.level for x in other.ports]
        low, high = segment.left + 8, segment.right - 8 - segment.label_width
        low, high = max(low, 0.0), min(high, limit - segment.label_width)
        wanted = segment.label_x
        beside = [x for leg in legs for x in (leg + 4, leg - 4 - segment.label_width)]
        free = [
            x
            for x in (wanted, *(x for x in beside if low <= x <= high))
            if not any(x - 3 < leg < x + segment.label_width + 3 for leg in legs)
        ]
        if free:
            segment.label_x = min(free, key=lambda x: (abs(x - wanted), x))


def _place_levels(segments: Sequence[Segment], n_lines: int, limit: float) -> list[int]:
    """Set the levels and the labels of all segments; the number of levels of every line."""
    by_line: list[list[Segment]] = [[] for _ in range(n_lines)]
    for segment in segments:
        by_line[segment.line].append(segment)
    counts = []
    for group in by_line:
        for segment, level in zip(group, stack([segment.extent for segment in group], 6.0), strict=True):
            segment.level = level
        _place_labels(group, limit)
        counts.append(1 + max((segment.level for segment in group), default=-1))
    return counts


# --- margins ----------------------------------------------------------------------------------------------


def _lanes(ends: Sequence[tuple[_End, _End]]) -> tuple[dict[int, tuple[int, int]], int, int]:
    """For every arc that crosses lines its (side, lane), side 0 left; and the number of lanes of both sides.

    Lane 0 is nearest to the text; short ways come first, so that long ones don't cross them.
    """
    lanes: dict[int, tuple[int, int]] = {}
    counts = []
    for side in (0, 1):
        arcs = [
            arc
            for arc, (head, tail) in enumerate(ends)
            if head.fragment.line != tail.fragment.line and (head.toward > 0) == bool(side)
        ]
        ways = [sorted(float(end.fragment.line) for end in ends[arc]) for arc in arcs]
        found = stack([(way[0], way[1]) for way in ways], 0.5)
        lanes.update({arc: (side, lane) for arc, lane in zip(arcs, found, strict=True)})
        counts.append(1 + max(found, default=-1))
    return lanes, counts[0], counts[1]


def _margin(lanes: int, width: float) -> float:
    return min(LANE * (lanes + 0.5), width * MAX_MARGIN) if lanes else 0.0


# --- all together -----------------------------------------------------------------------------------------


def layout(words: Sequence[Word], entities: Sequence[Entity], arcs: Sequence[Arc], width: float) -> Layout:
    """Lay out a document on ``width`` pixels; the height is what it needs.

    Margins depend on the arcs that cross lines, and those on the margins: lanes are only ever added, so the
    loop ends, in nearly all documents after two rounds.
    """
    counts = (0, 0)
    while True:
        drawing, needed = _attempt(words, entities, arcs, width, counts)
        if needed[0] <= counts[0] and needed[1] <= counts[1]:
            return drawing
        counts = max(counts[0], needed[0]), max(counts[1], needed[1])


def _attempt(
    words: Sequence[Word],
    entities: Sequence[Entity],
    arcs: Sequence[Arc],
    width: float,
    counts: tuple[int, int],
) -> tuple[Layout, tuple[int, int]]:
    """A layout with margins for ``counts`` lanes, left and right, and how many it needs."""
    margins = _margin(counts[0], width), _margin(counts[1], width)
    limit = width - sum(margins) - 2 * PAD
    directions = [direction(word.text) for word in words]
    base = "R" if directions.count("R") > directions.count("L") else "L"

    ports_needed = [0] * len(entities)
    for arc in arcs:
        ports_needed[arc.head] += 1
        ports_needed[arc.tail] += 1
    own = _widths(words, entities, ports_needed, limit)
    wrapper = _Wrapper(words, own, limit)
    for chunk in _chunks(words, entities, own, limit):
        wrapper.add_chunk(chunk)
    lines = [pieces for pieces in wrapper.lines if pieces]
    for pieces in lines:
        _reorder(pieces, directions, base, limit)

    by_entity = _fragments(entities, lines, limit)
    label_widths = [min(text_width(arc.label, ARC_FONT) + 2 * LABEL_PAD, limit) for arc in arcs]
    ends = [
        _arc_ends(*_nearest(by_entity[arc.head], by_entity[arc.tail]), index, label_widths[index], limit)
        for index, arc in enumerate(arcs)
    ]
    lanes, *needed = _lanes(ends)
    ports = _ports([end for pair in ends for end in pair], limit)
    segments = _segments(ends, ports, label_widths, limit)
    levels = _place_levels(segments, len(lines), limit)
    fragments = [fragment for group in by_entity for fragment in group]
    rows = _place_rows(fragments, len(lines))

    drawing = Layout(width, 0.0, base == "R", fragments=fragments, segments=segments)
    drawing.pieces = [piece for pieces in lines for piece in pieces]
    drawing.lines, drawing.height = _line_tops(levels, rows, wrapper.breaks)
    drawing.routes = _routes(drawing, ends, lanes, margins, counts, limit)
    _shift(drawing, margins[0] + PAD)
    return drawing, (needed[0], needed[1])


def _place_rows(fragments: Sequence[Fragment], n_lines: int) -> list[int]:
    """Set the rows of all fragments; the number of rows of every line."""
    counts = []
    for line in range(n_lines):
        group = [fragment for fragment in fragments if fragment.line == line]
        for fragment, row in zip(group, stack([fragment.extent for fragment in group], 0.0), strict=True):
            fragment.row = row
        counts.append(1 + max((fragment.row for fragment in group), default=-1))
    return counts


def _line_tops(levels: Sequence[int], rows: Sequence[int], breaks: set[int]) -> tuple[list[Line], float]:
    """The lines from top to bottom and the height of all. Lines of plain text are set close."""
    lines, y = [], 4.0
    for i, (n_levels, n_rows) in enumerate(zip(levels, rows, strict=True)):
        y += PARAGRAPH_GAP if i in breaks else 0.0
        y += ARROW_ROOM + n_levels * LEVEL if n_levels else 0.0
        lines.append(Line(y, n_levels, n_rows))
        y += TEXT_HEIGHT + (n_rows * ROW + LINE_GAP if n_rows else 0.0)
    return lines, y + 4.0


def _routes(
    drawing: Layout,
    ends: Sequence[tuple[_End, _End]],
    lanes: dict[int, tuple[int, int]],
    margins: tuple[float, float],
    counts: tuple[int, int],
    limit: float,
) -> list[list[tuple[float, float]]]:
    """The corners of every arc, with x from the left edge of the text."""
    by_arc: dict[int, list[Segment]] = defaultdict(list)
    for segment in drawing.segments:
        by_arc[segment.arc].append(segment)
    routes = []
    for arc in range(len(ends)):
        first, last = by_arc[arc][0], by_arc[arc][-1]
        head_x, tail_x = first.ports[0], last.ports[-1]
        head_line, tail_line = drawing.lines[first.line], drawing.lines[last.line]
        head_y, tail_y = head_line.level_y(first.level), tail_line.level_y(last.level)
        route = [(head_x, head_line.top), (head_x, head_y)]
        if first is not last:
            side, lane = lanes[arc]
            pitch = margins[side] / (counts[side] + 0.5) if counts[side] else 0.0
            x = limit + PAD + (lane + 0.5) * pitch if side else -PAD - (lane + 0.5) * pitch
            route += [(x, head_y), (x, tail_y)]
        routes.append([*route, (tail_x, tail_y), (tail_x, tail_line.top)])
    return routes


def _shift(drawing: Layout, dx: float) -> None:
    """From x of the text to x of the drawing."""
    for piece in drawing.pieces:
        piece.x, piece.left, piece.right = piece.x + dx, piece.left + dx, piece.right + dx
    for fragment in drawing.fragments:
        fragment.left, fragment.right = fragment.left + dx, fragment.right + dx
        fragment.label_x += dx
    for segment in drawing.segments:
        segment.left, segment.right = segment.left + dx, segment.right + dx
        segment.label_x += dx
        segment.ports = [x + dx for x in segment.ports]
    drawing.routes = [[(x + dx, y) for x, y in route] for route in drawing.routes]
