"""The words of running text: those of a blank English pipeline, split where an annotation begins or ends."""

from __future__ import annotations

import string
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from spacy.lang.en import English
from spacy.pipeline import Sentencizer
from spacy.tokenizer import Tokenizer
from spacy.util import compile_infix_regex, compile_prefix_regex, compile_suffix_regex
from spacy.vocab import create_vocab

from .conversion import Unconvertible, checked_words

NOT_FOUND = "text is not near its offsets"

REACH = 50
"""How many characters a mention may be away from where it should be."""


@dataclass(frozen=True)
class Words:
    """The words of a text, and whether a space follows each.

    starts, ends: the index of the word that begins at, or ends before, a character. sentences: the index of the first
    word of each sentence, by spaCy's rules for punctuation.
    """

    words: list[str]
    spaces: list[bool]
    starts: dict[int, int]
    ends: dict[int, int]
    sentences: list[int]

    def extent(self, start: int, end: int) -> tuple[int, int]:
        """Characters to words, both ``[start, end)``; the words must have been split at both."""
        return self.starts[start], self.ends[end] + 1


def split_words(text: str, borders: Iterable[int] = ()) -> Words:
    """The words of ``text``, none of which crosses a character offset of ``borders``.

    Raises ``Unconvertible`` where ``text`` is empty or nothing that spaCy can store.
    """
    checked_words([text])
    cuts = set(borders)
    found = Words([], [], {}, {}, [])
    for token in Sentencizer()(english_tokenizer()(text)):
        if token.is_sent_start:
            found.sentences.append(len(found.words))
        first, last = token.idx, token.idx + len(token)
        edges = [first, *sorted(cuts.intersection(range(first + 1, last))), last]
        for start, end in pairwise(edges):
            found.starts[start] = found.ends[end] = len(found.words)
            found.words.append(text[start:end])
            found.spaces.append(end == last and bool(token.whitespace_))
    return found


def locate(text: str, mention: str, start: int) -> tuple[int, int]:
    """Characters ``[start, end)`` of ``mention``: at ``start``, else where it is nearest within ``REACH``.

    White space around it does not count, nor does punctuation where it is not found with it. Raises
    ``Unconvertible``.
    """
    for ignored in (None, string.whitespace + string.punctuation):
        wanted = mention.strip(ignored)
        expected = start + len(mention) - len(mention.lstrip(ignored))
        first = max(0, expected - REACH)
        window = text[first : max(0, expected + len(wanted) + REACH)]
        found = [first + position for position in _occurrences(wanted, window)]
        if found:
            nearest = min(found, key=lambda position: abs(position - expected))
            return nearest, nearest + len(wanted)
    raise Unconvertible(NOT_FOUND)


def _occurrences(wanted: str, text: str) -> Iterable[int]:
    position = text.find(wanted) if wanted else -1
    while position >= 0:
        yield position
        position = text.find(wanted, position + 1)


@cache
def english_tokenizer() -> Tokenizer:
    """The tokenizer of ``spacy.blank("en")``, without a pipeline: that loads every installed component."""
    defaults = English.Defaults
    return Tokenizer(
        create_vocab("en", defaults),
        rules=defaults.tokenizer_exceptions,
        prefix_search=compile_prefix_regex(defaults.prefixes or []).search,
        suffix_search=compile_suffix_regex(defaults.suffixes or []).search,
        infix_finditer=compile_infix_regex(defaults.infixes or []).finditer,
        token_match=defaults.token_match,
        url_match=defaults.url_match,
    )
