"""Relation labels that a language model makes up: how they are spelled, and which of them are the same."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

NO_RELATION = "NO RELATION"
"""The label of a pair that the text does not relate (GLiREL section 3.6)."""

LONGEST = (60, 8)
"""Most characters and words of a label; what is longer is a sentence."""

EMPTY = "empty label"
MARKS = "marks inside of a label"
SEVERAL = "several labels"
TOO_LONG = "overlong label"
UNUSUAL = "unusual characters"

_WRAPPING = " \"'`*.,;:-–—“”‘’«»[]{}<>|"
_SEPARATORS = re.compile(r"[\s_\-‐-―−]+")
_IN_PARENTHESES = re.compile(r"\(([^()]*)\)")

# Between the names of a pair, and a label and what is said about it; no label has one of them.
_MARKS = re.compile(r'->|[:|<>→⇒"“”„«»`]')

# Of a label in lower case, with single spaces; what says so has a reason behind it, often.
_SAYS_NONE = re.compile(
    r"norelation.*|none\b.*|n[/.]a\b.*"
    r"|(?:there is )?no (?!longer\b)(?:\w+ ){0,2}(?:relation(?:ship)?|connection|association|link)s?\b.*"
    r"|(?:are |is )?(?:unrelated|unconnected|not (?:\w+ )?(?:related|connected|linked|associated))\b.*"
    r"|not (?:applicable|mentioned|specified|stated|clear|known)\b.*"
    r"|no|na|nil|null|nothing|unknown|unclear|unspecified"
)


def label_key(label: str) -> str:
    """What makes two labels one and the same: all but case, spaces, underscores and hyphens."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", label).casefold())


def label_keys(labels: Iterable[str]) -> frozenset[str]:
    """The keys of several labels."""
    return frozenset(map(label_key, labels))


def tidy_label(written: str, *, keep_case: bool = False) -> str:
    """A label as it is recorded: one space between words, no quotes or marks around it, lower case unless kept.

    Whatever says that there is no relation becomes ``NO_RELATION``.
    """
    label = " ".join(written.replace("_", " ").split()).strip(_WRAPPING)
    while inner := _IN_PARENTHESES.fullmatch(label):
        label = inner[1].strip(_WRAPPING)
    if any(map(_says_none, _MARKS.split(label))):
        return NO_RELATION
    return label if keep_case else label.lower()


def _says_none(text: str) -> bool:
    words = _SEPARATORS.sub(" ", unicodedata.normalize("NFKC", text).casefold())
    return _SAYS_NONE.fullmatch(words.strip(_WRAPPING + "()")) is not None


def refuse_label(label: str) -> str | None:
    """Why a tidy label is none; None if it is one."""
    if not any(sign.isalpha() for sign in label):
        return EMPTY
    if not label.isprintable() or "\ufffd" in label:
        return UNUSUAL
    if _MARKS.search(label):
        return MARKS
    if "," in label or ";" in label:
        return SEVERAL
    characters, words = LONGEST
    if len(label) > characters or len(label.split()) > words:
        return TOO_LONG
    return None
