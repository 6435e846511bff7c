"""Where in the text the words of a frame are: fillers to character offsets.

A model answers with words, and the same words may be in the text several times. What decides is their order and
nearness; what cannot be found is reported and left out, never guessed. No spaCy, no torch.
"""

from __future__ import annotations

import heapq
import re
import unicodedata
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .frames import EMPTY, SURPLUS, UNGROUNDABLE, Frame, Issue, Slot

Offsets = tuple[int, int]
"""[start, end) in characters of the text."""

Known = Mapping[tuple[str, str], Sequence[Offsets]]
"""Where frames are known to be, in text order, by their ``known_key``."""


@dataclass(frozen=True)
class GroundedSlot:
    """A slot whose filler was found. source: the slot as the model wrote it."""

    type: str
    span: Offsets
    source: Slot


@dataclass(frozen=True)
class GroundedFrame:
    """A frame of which all was found. span: None for a frame without a filler. source: as the model wrote it."""

    type: str
    span: Offsets | None
    slots: tuple[GroundedSlot, ...]
    source: Frame


def ground(frames: Sequence[Frame], text: str, known: Known | None = None) -> tuple[list[GroundedFrame], list[Issue]]:
    """The frames with offsets, in their order, and what had to be left out.

    known: where frames are known to be; these are their mentions then, and no others.

    - The n-th frame of a type and filler is at the filler's n-th mention. If the answer is seen to follow the text
      (fillers with just one mention, two of those at least, come in text order), mentions before that of the previous
      frame are passed over as long as there are others.
    - A slot is at the mention nearest to its frame; the second slot of a type and filler is at the second nearest.
    - Slots of a frame without a filler are where they are nearest to each other, no two of them at one place if the
      text has several; n identical frames are the n nearest arrangements, in text order.

    Left out and reported are slots that are not in the text; frames whose own filler is not, with their slots; frames
    of which nothing is left; and surplus copies: frames when no further mention or arrangement is left for them. Only
    a filler with just one mention may have several frames of a type there, if their slots differ.
    """
    grounder = _Grounder(text, frames, known or {})
    grounded: list[GroundedFrame] = []
    for frame in frames:
        outcome = grounder.ground(frame)
        if isinstance(outcome, Issue):
            grounder.issues.append(outcome)
        else:
            grounded.append(outcome)
    return grounded, grounder.issues


def known_key(type: str, filler: str) -> tuple[str, str]:
    """A frame's type and its words, white space and case aside."""
    return type, _squeeze(filler).casefold()


def find_mentions(filler: str, text: str) -> list[Offsets]:
    """Where ``filler`` is in ``text``: all mentions, none overlapping, by the first of four ways that finds any.

    As it is written, at the bounds of words; the same in any case (Unicode's case folding); as it is written, also
    within words; the same in any case. Any white space stands for any other. A word ends where letters, digits, marks
    and underscores do; scripts written without blanks (or, like Hangul, with endings attached) have bounds at every
    character.
    """
    return _Text(text).find(filler)


_EXCERPT = 60  # characters of a filler that a message repeats

# Thai to Myanmar, Khmer, kana, Han, Hangul: what follows a letter there need not belong to its word.
_UNSPACED = re.compile(
    "[\u0e00-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u312f\u31a0-\u31ff\u3400-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]"
)


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_" or unicodedata.category(character)[0] == "M"


def is_bound(text: str, position: int) -> bool:
    """Whether a word may begin or end before ``text[position]``."""
    if not 0 < position < len(text):
        return True
    before, after = text[position - 1], text[position]
    if unicodedata.category(after)[0] == "M":  # marks belong to the letter before them
        return False
    return not (_is_word(before) and _is_word(after)) or bool(_UNSPACED.match(before) or _UNSPACED.match(after))


@dataclass(frozen=True)
class _Layer:
    """A text as it is searched, and for each of its characters the one of the original that it is from."""

    text: str
    origins: Sequence[int]

    def find(self, needle: str, *, words: bool) -> Iterator[Offsets]:
        """Occurrences of ``needle`` in the original, from left to right, none overlapping. words: at bounds only."""
        start = self.text.find(needle)
        while start >= 0:
            end = start + len(needle)
            if self._splits(start) or self._splits(end) or (words and not self._bounded(start, end)):
                end = start + 1
                while words and not is_bound(self.text, end):  # no word begins before
                    end += 1
            else:
                yield self.origins[start], self.origins[end - 1] + 1
            start = self.text.find(needle, end)

    def _splits(self, position: int) -> bool:
        """Whether this is within what one character was folded into, as ss for \u00df."""
        return 0 < position < len(self.text) and self.origins[position - 1] == self.origins[position]

    def _bounded(self, start: int, end: int) -> bool:
        return is_bound(self.text, start) and is_bound(self.text, end)


class _Text:
    """A text with the mentions that were looked for in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.mentions: dict[str, list[Offsets]] = {}

    @cached_property
    def written(self) -> _Layer:
        """The text with single blanks."""
        words = list(re.finditer(r"\S+", self.text))
        squeezed = " ".join(word[0] for word in words)
        if squeezed == self.text:
            return _Layer(self.text, range(len(self.text)))
        origins: list[int] = []
        for word in words:
            origins += range(word.start(), word.end() + 1)  # with the blank behind it
        return _Layer(squeezed, origins)

    @cached_property
    def folded(self) -> _Layer:
        """The text with single blanks and folded case."""
        folded = self.written.text.casefold()
        if len(folded) == len(self.written.text):
            return _Layer(folded, self.written.origins)
        characters = zip(self.written.text, self.written.origins, strict=False)
        return _Layer(folded, [origin for character, origin in characters for _ in character.casefold()])

    def find(self, filler: str) -> list[Offsets]:
        """``find_mentions``, once per filler."""
        needle = _squeeze(filler)
        if needle not in self.mentions:
            self.mentions[needle] = self._find(needle) if needle else []
        return self.mentions[needle]

    def _find(self, needle: str) -> list[Offsets]:
        folded = needle.casefold()
        if folded not in self.folded.text:
            return []
        for words in (True, False):
            for layer, wanted in ((self.written, needle), (self.folded, folded)):
                if found := list(layer.find(wanted, words=words)):
                    return found
        return []


def _gap(left: Offsets, right: Offsets) -> int:
    """Characters between two spans; 0 if they touch or overlap."""
    return max(0, right[0] - left[1], left[0] - right[1])


def _nearest(mentions: Sequence[Offsets], anchor: Offsets, taken: Collection[Offsets] = ()) -> Offsets | None:
    """The mention nearest to ``anchor`` that is not taken, the earlier one of two; None if there is none.

    mentions: in text order, none overlapping.
    """
    right = bisect_left(mentions, anchor)
    left = right - 1
    while left >= 0 and mentions[left] in taken:
        left -= 1
    while right < len(mentions) and mentions[right] in taken:
        right += 1
    sides = [mentions[index] for index in (left, right) if 0 <= index < len(mentions)]
    return min(sides, key=lambda mention: _gap(mention, anchor), default=None)


@dataclass(frozen=True)
class _Found:
    """A slot with the mentions of its filler, at least one."""

    slot: Slot
    mentions: Sequence[Offsets]


def _place(found: Sequence[_Found], anchor: Offsets, *, apart: bool) -> list[Offsets | None]:
    """Where each slot is nearest to ``anchor``; None for copies of a slot that have no mention left.

    apart: no slot is where another one is, as long as there is another mention of it.
    """
    taken: dict[str, set[Offsets]] = {each.slot.type: set() for each in found}
    anywhere: set[Offsets] = set()
    places = []
    for each in found:
        own = taken[each.slot.type]
        place = _nearest(each.mentions, anchor, anywhere) if apart else None
        place = place or _nearest(each.mentions, anchor, own)
        if place is not None:
            own.add(place)
            anywhere.add(place)
        places.append(place)
    return places


def _arrange(found: Sequence[_Found], count: int) -> list[list[Offsets | None]]:
    """The ``count`` arrangements in which the slots are nearest to each other, in text order.

    There is one for each mention of the slot that has most of them.
    """
    widest = max(range(len(found)), key=lambda index: len(found[index].mentions))
    first = [found[widest], *found[:widest], *found[widest + 1 :]]
    arrangements = []
    for index, anchor in enumerate(found[widest].mentions):
        places = _place(first, anchor, apart=True)
        width = sum(_gap(place, anchor) for place in places if place is not None)
        arrangements.append((width, index, [*places[1 : widest + 1], places[0], *places[widest + 1 :]]))
    nearest = heapq.nsmallest(count, arrangements, key=lambda each: each[:2])
    return [places for _, _, places in sorted(nearest, key=lambda each: each[1])]


class _Unused:
    """The mentions of a filler that no frame of a type has taken yet."""

    def __init__(self, mentions: Sequence[Offsets]) -> None:
        self.mentions = mentions
        self.following = list(range(len(mentions) + 1))  # of each mention: itself, or one on the way to an unused one

    def take(self, since: Offsets) -> Offsets | None:
        """The first that does not begin before ``since``, else the first of all; None if there is none left."""
        for start in (bisect_left(self.mentions, since), 0):
            index = self._first(start)
            if index < len(self.mentions):
                self.following[index] = index + 1
                return self.mentions[index]
        return None

    def _first(self, index: int) -> int:
        following = self.following
        while following[index] != index:
            following[index] = following[following[index]]  # so that the next way is half as long
            index = following[index]
        return index


_START = (0, 0)
_Key = tuple[str, tuple[tuple[str, str], ...]]


def _key(frame: Frame) -> _Key:
    """What identical frames without fillers have in common."""
    return frame.type, tuple((slot.type, _squeeze(slot.filler or "").casefold()) for slot in frame.slots)


class _Grounder:
    """Grounds the frames of one answer, one after the other."""

    def __init__(self, text: str, frames: Sequence[Frame], known: Known) -> None:
        self.text = _Text(text)
        self.known = known
        self.issues: list[Issue] = []
        self.in_order = self.follows_text(frames)
        self.last = _START  # the mention of the last frame that has one
        self.unused: dict[tuple[str, str], _Unused] = {}
        self.taken: dict[str, set[Offsets]] = defaultdict(set)
        self.copies = Counter(_key(frame) for frame in frames if frame.filler is None)
        self.arrangements: dict[_Key, deque[list[Offsets | None]]] = {}
        self.seen: set[tuple[Any, ...]] = set()

    def follows_text(self, frames: Sequence[Frame]) -> bool:
        """Whether the mentions that leave no doubt, of which there are two at least, come in text order."""
        mentions = [self.find_frame(frame) for frame in frames if frame.filler is not None]
        certain = [spans[0] for spans in mentions if len(spans) == 1]
        return len(set(certain)) > 1 and certain == sorted(certain)

    def ground(self, frame: Frame) -> GroundedFrame | Issue:
        """The frame with offsets, or why it is left out; slots that are left out are added to the issues."""
        span = None
        if frame.filler is not None:
            mentions = self.find_frame(frame)
            if not mentions:
                return _left_out(frame, UNGROUNDABLE, "it is not in the text")
            span = self.next_mention(frame, mentions)
            if span is None:
                return _left_out(frame, SURPLUS, f"the text has {len(mentions)} of it, and all are taken")
        found = self.find_slots(frame)
        if span is not None:
            places = _place(found, span, apart=False)
        elif found:
            places = self.next_arrangement(frame, found)
        else:
            return _left_out(frame, EMPTY, "nothing of it is in the text")
        slots = []
        for each, place in zip(found, places, strict=True):
            if place is None:
                why = f"the text has {len(each.mentions)} of it, and all are taken"
                self.issues.append(_left_out(each.slot, SURPLUS, why))
            else:
                slots.append(GroundedSlot(each.slot.type, place, each.slot))
        identity = (frame.type, span, frozenset((slot.type, slot.span) for slot in slots))
        if identity in self.seen:
            return _left_out(frame, SURPLUS, "an earlier frame is the same, at the same place")
        self.seen.add(identity)
        return GroundedFrame(frame.type, span, tuple(slots), frame)

    def find_frame(self, frame: Frame) -> Sequence[Offsets]:
        """The mentions of a frame's filler."""
        filler = frame.filler or ""
        return self.known.get(known_key(frame.type, filler)) or self.text.find(filler)

    def next_mention(self, frame: Frame, mentions: Sequence[Offsets]) -> Offsets | None:
        """The next mention for a frame of this type; the only one again and again; None if all are taken."""
        taken = self.taken[frame.type]
        mention: Offsets | None = mentions[0]
        if len(mentions) > 1:
            key = frame.type, _squeeze(frame.filler or "")
            if key not in self.unused:
                self.unused[key] = _Unused(mentions)
            while (mention := self.unused[key].take(self.last if self.in_order else _START)) in taken:
                continue  # taken by a frame whose filler differs in case
        if mention is not None:
            taken.add(mention)
            self.last = mention
        return mention

    def next_arrangement(self, frame: Frame, found: Sequence[_Found]) -> list[Offsets | None]:
        """The next arrangement of the slots of such a frame; the last one again if there is no other."""
        key = _key(frame)
        if key not in self.arrangements:
            self.arrangements[key] = deque(_arrange(found, self.copies[key]))
        arrangements = self.arrangements[key]
        return arrangements.popleft() if len(arrangements) > 1 else arrangements[0]

    def find_slots(self, frame: Frame) -> list[_Found]:
        """The slots that the text has; others are reported."""
        found = []
        for slot in frame.slots:
            mentions = self.text.find(slot.filler) if slot.filler is not None else []
            if mentions:
                found.append(_Found(slot, mentions))
            elif slot.filler is not None:
                why = f"it is not in the text; its frame was {_quote(frame)}"
                self.issues.append(_left_out(slot, UNGROUNDABLE, why))
        return found


def _left_out(what: Frame | Slot, kind: str, why: str) -> Issue:
    slots = "; its slots go with it" if isinstance(what, Frame) and what.slots else ""
    return Issue(kind, f"{_quote(what)} is left out: {why}{slots}.")


def _quote(what: Frame | Slot) -> str:
    filler = "Null" if what.filler is None else what.filler
    return f"({what.type}: {filler if len(filler) <= _EXCERPT else filler[:_EXCERPT] + '...'})"
