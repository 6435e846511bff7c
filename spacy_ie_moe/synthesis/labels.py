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
SEVERAL = "several labels"
TOO_LONG = "overlong label"
UNUSUAL = "unusual characters"

_WRAPPING = " \"'`*.,;:-–—“”‘’«»[]{}<>"
_SEPARATORS = re.compile(r"[\s_\-‐-―−]+")


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
    key = label_key(label)
    if key.startswith("norelation") or key == "none":  # with a reason behind it, often
        return NO_RELATION
    return label if keep_case else label.lower()


def refuse_label(label: str) -> str | None:
    """Why a tidy label is none; None if it is one."""
    if not any(sign.isalpha() for sign in label):
        return EMPTY
    if not label.isprintable() or "\ufffd" in label:
        return UNUSUAL
    if "," in label or ";" in label:
        return SEVERAL
    characters, words = LONGEST
    if len(label) > characters or len(label.split()) > words:
        return TOO_LONG
    return None
