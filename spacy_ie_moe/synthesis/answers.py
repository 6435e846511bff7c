"""What a language model answers: a line for each pair, its number and a label. Written, and read whatever comes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..corpora.conversion import Tally
from .labels import NO_RELATION, refuse_label, tidy_label

CUT_OFF = "cut off"
NAME = "entity in the label"
NO_NUMBER = "no pair number"
NO_PAIR = "unknown pair"
ONLY_PAIR = "pair without a label"
REPEATED = "repeated pair"

ARROW = "->"
"""Between the head and the tail of a pair."""

NOTES = " ("
"""Behind the words of an entity, in the names of a pair, where something is noted about it."""

THOUGHTS = "<think>"
"""Begins what some models write before they answer."""

# Models also write (1), **1.**, "1": and Pair 1 -, but 1.5 and 10-year begin no line.
_LINE = re.compile(
    r"[\s\"'`*_>|(\[{#-]*(?:pair\s*)?(\d{1,9})[\"'`*_]*\s*"
    r"(?:[.):=|\]–—-]*[.):=|\]](?![\d.])|[–—-]+(?=\s))(.*)",
    flags=re.IGNORECASE,
)
_BETWEEN = r"[^\w(]*"  # what is written between names and labels, in one piece
_PREFIX = re.compile(r"\A\W*(?:label|relation)\W*:", flags=re.IGNORECASE)
_THOUGHTS = re.compile(rf"^.*</think>|{THOUGHTS}.*$", flags=re.DOTALL)  # all of an answer that was cut off there


class Answer(NamedTuple):
    """What a model wrote, and whether it came to an end of its own."""

    text: str
    finished: bool = True


@dataclass
class Reading:
    """The labels of the pairs that an answer has usable lines for, by index, and the account of its lines."""

    labels: dict[int, str] = field(default_factory=dict)
    lines: Tally = field(default_factory=Tally)


def write_answer(labels: Iterable[str]) -> str:
    """An answer with the labels of pairs in their order."""
    return "\n".join(f"{number}. {label}" for number, label in enumerate(labels, 1))


def read_answer(answer: Answer, pairs: Sequence[tuple[str, str]], *, keep_case: bool = False) -> Reading:
    """The labels in an answer about ``pairs`` of names. Of several lines about one pair the first usable one counts.

    Every line that is not blank, thoughts aside, is read or left out for a counted reason, as the last of an unfinished
    answer is; no text raises.
    """
    reading = Reading()
    lines = list(filter(str.strip, _THOUGHTS.sub("", answer.text).splitlines()))
    if lines and not answer.finished and not answer.text.endswith("\n"):
        reading.lines.left_out[CUT_OFF] += 1
        lines.pop()
    for line in lines:
        reason = _read_line(line, pairs, reading.labels, keep_case)
        if reason is None:
            reading.lines.converted += 1
        else:
            reading.lines.left_out[reason] += 1
    return reading


def _read_line(line: str, pairs: Sequence[tuple[str, str]], labels: dict[int, str], keep_case: bool) -> str | None:
    """Add what the line says to ``labels``, or give the reason why it cannot be used."""
    found = _LINE.match(line)
    if found is None:
        return NO_NUMBER
    index = int(found[1]) - 1
    if not 0 <= index < len(pairs):
        return NO_PAIR
    if index in labels:
        return REPEATED
    written = _behind_names(" ".join(found[2].split()), *pairs[index])
    if not written:
        return ONLY_PAIR
    label = tidy_label(written, keep_case=True)
    reason = refuse_label(label)
    if reason is None and label != NO_RELATION and any(_holds(label, name) for name in pairs[index]):
        return NAME
    if reason is None:
        labels[index] = tidy_label(label, keep_case=keep_case)
    return reason


def _behind_names(written: str, head: str, tail: str) -> str:
    """What is written behind the pair, if that is there once more, and behind "label:"."""
    pair = rf"\W*{_name(head)}{_BETWEEN}(?:(?:and|to)\b{_BETWEEN})?{_name(tail)}\)?{_BETWEEN}"
    return _PREFIX.sub("", re.sub(rf"\A{pair}", "", written, flags=re.IGNORECASE))


def _name(name: str) -> str:
    """A pattern of an entity with or without notes, those of its name or others."""
    return rf"(?<!\w){re.escape(_bare(name))}(?!\w)(?: ?[(\[][^()\[\]]*[)\]])?"


def _holds(label: str, name: str) -> bool:
    words = tidy_label(_bare(name), keep_case=True)
    return words != "" and re.search(rf"(?<!\w){re.escape(words)}(?!\w)", label) is not None


def _bare(name: str) -> str:
    return name.rpartition(NOTES)[0] or name
