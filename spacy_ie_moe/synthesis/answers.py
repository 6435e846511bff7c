"""What a language model answers: a line for each pair, its number and a label. Written, and read whatever comes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..corpora.conversion import Tally
from .labels import refuse_label, tidy_label

NO_NUMBER = "no pair number"
NO_PAIR = "unknown pair"
ONLY_PAIR = "pair without a label"
REPEATED = "repeated pair"

ARROW = "->"
"""Between the head and the tail of a pair."""

# Models also write (1), **1.**, "1": and Pair 1 -
_LINE = re.compile(r"[\s\"'`*_>(\[{#-]*(?:pair\s*)?(\d{1,9})[\"'`*_]*\s*[.):=|\]–—-]+(.*)", flags=re.IGNORECASE)

_THOUGHTS = re.compile(r"^.*</think>|<think>.*$", flags=re.DOTALL)
"""What some models write before they answer, and all of an answer that was cut off there."""


@dataclass
class Reading:
    """The labels of the pairs that an answer has usable lines for, by index, and the account of its lines."""

    labels: dict[int, str] = field(default_factory=dict)
    lines: Tally = field(default_factory=Tally)


def write_answer(labels: Iterable[str]) -> str:
    """An answer with the labels of pairs in their order."""
    return "\n".join(f"{number}. {label}" for number, label in enumerate(labels, 1))


def read_answer(text: str, pairs: int, *, keep_case: bool = False) -> Reading:
    """The labels in an answer about so many ``pairs``. Of several lines about one pair the first usable one counts.

    Every line that is not blank, thoughts aside, is read or left out for a counted reason; no text raises.
    """
    reading = Reading()
    for line in filter(str.strip, _THOUGHTS.sub("", text).splitlines()):
        reason = _read_line(line, pairs, reading.labels, keep_case)
        if reason is None:
            reading.lines.converted += 1
        else:
            reading.lines.left_out[reason] += 1
    return reading


def _read_line(line: str, pairs: int, labels: dict[int, str], keep_case: bool) -> str | None:
    """Add what the line says to ``labels``, or give the reason why it cannot be used."""
    found = _LINE.match(line)
    if found is None:
        return NO_NUMBER
    index, written = int(found[1]) - 1, found[2]
    if not 0 <= index < pairs:
        return NO_PAIR
    if index in labels:
        return REPEATED
    if ARROW in written or "→" in written:  # the pair once more, then its label
        _, colon, written = written.rpartition(":")
        if not colon:
            return ONLY_PAIR
    label = tidy_label(written, keep_case=keep_case)
    reason = refuse_label(label)
    if reason is None:
        labels[index] = label
    return reason
