"""Frames and slots: the one line of text in which a language model answers, whatever the task.

A *frame* is a unit of meaning (an entity, a relation, an event, an opinion): a type, the words that evoke it (its
*filler*, if it has one), and typed *slots* with fillers of their own (UC-UIE, section 3.2). An answer lists frames as

    {(FT: FF): [(ST_1: SF_1), (ST_2: SF_2), ...]}

``write_frames`` writes this and ``read_frames`` reads it back, or as much of it as a model got right. A relation is
``{(LABEL: Null): [(subject: A), (object: B)]}``. No spaCy, no torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from .schema import OPINION_SLOTS, RELATION_SLOTS, TASKS, FrameType, Schema, check_name

__all__ = [
    "EMPTY",
    "MALFORMED",
    "OPINION_SLOTS",
    "RELATION_SLOTS",
    "SURPLUS",
    "TASKS",
    "TRUNCATED",
    "UNGROUNDABLE",
    "UNKNOWN_SLOT",
    "UNKNOWN_TYPE",
    "Frame",
    "FrameType",
    "Issue",
    "Schema",
    "Slot",
    "escape",
    "normalise_frames",
    "read_frames",
    "write_frames",
]

MALFORMED = "malformed"
"""Kind of issue: text that has brackets, but not those of frames."""
TRUNCATED = "truncated"
"""Kind of issue: the answer ends inside of a frame."""
UNKNOWN_TYPE = "unknown type"
"""Kind of issue: a frame of a type that is not in the schema."""
UNKNOWN_SLOT = "unknown slot"
"""Kind of issue: a slot that the frame's type does not have."""
UNGROUNDABLE = "ungroundable"
"""Kind of issue: a filler that is not in the text."""
SURPLUS = "surplus"
"""Kind of issue: one more copy of a frame than the text has mentions of it."""
EMPTY = "empty"
"""Kind of issue: a frame of which neither filler nor slots are there."""
UNREAD = "unread"
"""Kind of issue: a part of the text could not be read."""
CUT = "cut"
"""Kind of issue: the answer was as long as it could be and had not come to an end."""
ENDED = "ended"
"""Kind of issue: a constrained answer was brought to its end, as it could not be longer; there may be more."""
NOT_GIVEN = "not given"
"""Kind of issue: arguments of an event that was not asked about."""


@dataclass(frozen=True)
class Slot:
    """A slot of a frame: its type and the words that fill it (None: none do).

    extent: where ``(ST: SF)`` was read from, [start, end) in characters of the answer; not compared.
    """

    type: str
    filler: str | None
    extent: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Frame:
    """A frame: its type, the words that evoke it (None: none do) and its slots.

    extent: where ``{...}`` was read from, [start, end) in characters of the answer; not compared.
    """

    type: str
    filler: str | None
    slots: tuple[Slot, ...] = ()
    extent: tuple[int, int] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Issue:
    """Something of an answer that was left out: its kind (a constant of this module) and a sentence that says why."""

    kind: str
    message: str


def write_frames(frames: Iterable[Frame]) -> str:
    r"""The frames as one line: ``{(FT: FF): [(ST: SF), ...]}``, one blank between frames; ``None`` for no frames.

    An absent filler is ``Null``. In fillers, runs of white space become one blank, and a backslash goes before each of
    ``\ ( ) { } [ ]``, before the first colon that a blank follows (a longer type might end there) and before a filler
    that is the very word Null or None, in any case. A type that the format cannot hold is a ``ValueError``.
    """
    return " ".join(_write_frame(frame) for frame in frames) or "None"


def escape(text: str) -> str:
    r"""Text whose words can be copied into a filler: single blanks, and a backslash before ``\ ( ) { } [ ]``."""
    return _SPECIAL.sub(r"\\\g<0>", _squeeze(text))


def normalise_frames(frames: Iterable[Frame], *, keep_null_slots: bool = False) -> list[Frame]:
    """The frames as ``read_frames`` gives them back after ``write_frames``.

    White space in fillers is single blanks, blank fillers are None, and slots without fillers are left out unless
    ``keep_null_slots``.
    """
    normalised = []
    for frame in frames:
        slots = (replace(slot, filler=_squeeze(slot.filler or "") or None) for slot in frame.slots)
        kept = tuple(slot for slot in slots if keep_null_slots or slot.filler is not None)
        normalised.append(replace(frame, filler=_squeeze(frame.filler or "") or None, slots=kept))
    return normalised


def read_frames(text: str, schema: Any, *, keep_null_slots: bool = False) -> tuple[list[Frame], list[Issue]]:
    """The frames that an answer lists, and what of it had to be left out; both in the order of the answer.

    text: any string; none raises. schema: whatever ``Schema.of`` takes. keep_null_slots: keep slots without fillers,
    which say that the slot is there but not where.

    Types are found whatever their case, the longest first; parentheses in fillers need no backslash while they
    balance; words around the frames are skipped. Left out and reported are frames and slots of unknown types with all
    that they hold, pairs that cannot be read, and a last pair that is cut short. Copies of a frame are all kept: each
    may be another mention. The time is linear in the length of the text.
    """
    return _Reader(text, Schema.of(schema), keep_null_slots=keep_null_slots).read()


_SPECIAL = re.compile(r"[\\(){}\[\]]")
_ESCAPED = re.compile(r"\\([\\(){}\[\]:])")
_ABSENT = ("null", "none")


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _write_frame(frame: Frame) -> str:
    slots = ", ".join(_write_pair(slot.type, slot.filler, "the type of a slot") for slot in frame.slots)
    return f"{{{_write_pair(frame.type, frame.filler, 'the type of a frame')}: [{slots}]}}"


def _write_pair(name: str, filler: str | None, what: str) -> str:
    check_name(name, what)
    escaped = escape(filler or "").replace(": ", r"\: ", 1)
    if escaped.lower() in _ABSENT:
        escaped = "\\" + escaped
    return f"({name}: {escaped or 'Null'})"


def _read_filler(raw: str) -> str | None:
    filler = raw.strip()
    if filler.lower() in _ABSENT:
        return None
    if filler[:1] == "\\" and filler[1:].lower() in _ABSENT:
        return filler[1:]
    return _squeeze(_ESCAPED.sub(r"\1", filler)) or None


# What a backslash escapes; a brace with a head behind it; the end of a frame; any other bracket.
_MARK = re.compile(r"\\.|(?P<begin>\{)\s*(?=\()|(?P<end>\]\s*\})|[(){}\[\]]", re.DOTALL)
_EXCERPT = 60  # characters of an answer that a message repeats

_Mark = tuple[str, int, int]
"""A bracket that is not escaped: ``{(`` (a brace with a head behind it), ``]}`` or the bracket itself; [start, end)."""


def _scan(text: str) -> tuple[list[_Mark], dict[int, int], int]:
    """The brackets; where the pair ends that a parenthesis opens, if it does; where a frame begins or ends last.

    Pairs do not reach over the beginning or the end of a frame, so a lost parenthesis costs one frame at most.
    """
    marks: list[_Mark] = []
    ends: dict[int, int] = {}
    waiting: list[int] = []
    last = 0
    for match in _MARK.finditer(text):
        start, end = match.span()
        symbol = {"begin": "{(", "end": "]}", None: match[0]}[match.lastgroup]
        if symbol == "(":
            waiting.append(start)
        elif symbol == ")" and waiting:
            ends[waiting.pop()] = end
        elif symbol in ("{(", "]}"):
            waiting.clear()
            last = start
        if symbol[0] != "\\":
            marks.append((symbol, start, end))
    return marks, ends, last


@dataclass
class _OpenFrame:
    """A frame that is being read. type: None for one that is left out. braced: whether it began with a brace."""

    start: int
    braced: bool
    type: str | None = None
    filler: str | None = None
    slots: list[Slot] = field(default_factory=list)


class _Reader:
    """Reads one answer, bracket by bracket, from left to right."""

    def __init__(self, text: str, schema: Schema, *, keep_null_slots: bool) -> None:
        self.text = text
        self.schema = schema
        self.keep_null_slots = keep_null_slots
        self.frames: list[Frame] = []
        self.issues: list[Issue] = []
        self.brace: int | None = None  # where the frame began of which the head comes next
        self.frame: _OpenFrame | None = None
        self.damage: tuple[int, int] | None = None  # [start, end) of what could not be read since the last good pair

    def read(self) -> tuple[list[Frame], list[Issue]]:
        """The frames and the issues."""
        marks, ends, last = _scan(self.text)
        position = 0
        for symbol, start, end in marks:
            if start < position:  # inside of a pair
                continue
            self.between(position, start)
            position = ends.get(start, end)
            if start in ends:
                self.pair(start, position)
            elif symbol != "(":
                self.bracket(symbol, start, end)
            elif start > last and (self.frame or self.brace is not None):
                self.finish(cut=start)
                break
            else:
                self.bad_pair(start, end)
        else:
            self.between(position, len(self.text))
            self.finish()
        return self.frames, self.issues

    def between(self, start: int, end: int) -> None:
        """What is between two brackets: words within a frame do not belong there; those around frames are skipped."""
        if self.frame is not None and self.frame.type is not None and self.text[start:end].strip(" \t\r\n,:;"):
            self.damaged(start, end)

    def bracket(self, symbol: str, start: int, end: int) -> None:
        """A bracket other than a pair's."""
        if symbol == "{(":
            if self.frame is not None and self.frame.type is not None:
                self.report(MALFORMED, f"{self.excerpt(self.frame.start, start)} has no end: the next frame begins.")
            self.close(start)
            self.brace = start
        elif self.frame is not None and (symbol in ("]}", "}") or (symbol == "]" and not self.frame.braced)):
            self.close(end)
        elif symbol not in ("[", "]"):
            self.damaged(start, end)

    def pair(self, start: int, end: int) -> None:
        """A pair in parentheses: the head of a frame if none is open, else a slot."""
        pair = self.text[start + 1 : end - 1].strip()
        if self.frame is None:
            found = self.schema.heads.split(pair)
        elif self.frame.type is not None:
            found = self.schema.roles[self.frame.type].split(pair)
        else:
            return  # left out with its frame
        if found is None and ":" not in pair:
            self.bad_pair(start, end)
        elif found is None:
            self.unknown(pair.partition(":")[0].strip(), start, end)
        elif self.frame is None:
            self.mend()
            self.open(start, type=found[0], filler=_read_filler(found[1]))
        else:
            self.mend()
            slot = Slot(found[0], _read_filler(found[1]), extent=(start, end))
            if slot.filler is not None or self.keep_null_slots:
                self.frame.slots.append(slot)

    def unknown(self, name: str, start: int, end: int) -> None:
        """A pair of a type that the schema does not have; a frame is left out with all its slots."""
        excerpt = self.excerpt(start, end)
        if self.frame is None:
            self.report(UNKNOWN_TYPE, f"{excerpt} is left out with its slots: the schema has no frame type {name!r}.")
            self.open(start)
        else:
            self.report(UNKNOWN_SLOT, f"{excerpt} is left out: frame type {self.frame.type!r} has no slot {name!r}.")

    def bad_pair(self, start: int, end: int) -> None:
        """A parenthesis without an end, or a pair without a colon; a head takes the slots of its frame with it."""
        self.damaged(start, end)
        if self.brace is not None:
            self.open(start)

    def open(self, start: int, *, type: str | None = None, filler: str | None = None) -> None:
        """Begin a frame; it is left out if it has no type."""
        braced = self.brace is not None
        self.frame = _OpenFrame(start if self.brace is None else self.brace, braced, type, filler)
        self.brace = None

    def close(self, end: int) -> None:
        """End the open frame, if any, and keep it unless it is left out."""
        frame, self.frame = self.frame, None
        if frame is not None and frame.type is not None:
            self.frames.append(Frame(frame.type, frame.filler, tuple(frame.slots), extent=(frame.start, end)))

    def finish(self, cut: int | None = None) -> None:
        """The end of the answer. cut: where the pair begins that it cuts short."""
        self.mend()
        end = len(self.text)
        if cut is not None:
            self.report(TRUNCATED, f"{self.excerpt(cut, end)} is left out: the answer ends in it.")
        elif self.frame is not None and self.frame.type is not None:
            self.report(TRUNCATED, f"{self.excerpt(self.frame.start, end)} has no end: the answer ends in it.")
        self.close(end if cut is None else cut)
        if not self.frames and not self.issues and self.text.strip(" \t\r\n.").lower() not in _ABSENT:
            self.report(MALFORMED, f"the answer is {self.excerpt(0, end)}; expected frames or None.")

    def damaged(self, start: int, end: int) -> None:
        """Take note of what cannot be read: one issue for all that lies between two good pairs."""
        self.damage = (start, end) if self.damage is None else (self.damage[0], end)

    def mend(self) -> None:
        """Report what could not be read, if anything."""
        if self.damage is not None:
            (start, end), self.damage = self.damage, None
            self.report(MALFORMED, f"{self.excerpt(start, end)} is left out: it is no part of a frame.")

    def report(self, kind: str, message: str) -> None:
        """Add an issue, behind what was noted before it."""
        self.mend()
        self.issues.append(Issue(kind, message))

    def excerpt(self, start: int, end: int) -> str:
        """A part of the answer in quotes, cut where it is long."""
        part = self.text[start : min(end, start + _EXCERPT)].strip()
        return repr(part) if end - start <= _EXCERPT else f"{part!r}..."
