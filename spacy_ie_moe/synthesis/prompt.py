"""The request about a part of a document, in words of our own (GLiREL Figure 8 has the paper's)."""

from __future__ import annotations

from collections.abc import Iterable

from spacy.tokens import Doc

from ..corpora.conversion import UNTYPED
from ..glirel.candidates import Candidates
from .answers import ARROW, NOTES, write_answer
from .labels import NO_RELATION
from .pairs import Part

REQUEST = (
    "You get a text and numbered pairs of entities that occur in it. Decide for each pair how the first entity is "
    "related to the second one. Direction counts: the label must read from the first entity to the second. Rely on "
    "what the text says, not on what else you know.\n"
    "Write a line for each pair: its number, a full stop and a label, which is one relation in few words of your "
    f"choice. Where the text does not relate the first entity to the second, the label is {NO_RELATION}. Write these "
    "lines and nothing else."
)

EXAMPLE = (
    "On Tuesday Nara lent her boat to Odo.",
    ("Nara (PERSON)", "Odo (PERSON)", "lent boat to"),
    ("Odo (PERSON)", "Nara (PERSON)", "borrowed boat from"),
    ("Tuesday (DATE)", "Odo (PERSON)", NO_RELATION),
)
"""A text, and pairs with their labels; labels that no benchmark has."""


def make_request(doc: Doc, candidates: Candidates, part: Part) -> str:
    """The instruction, an example, and what is asked: the words that the part shows, and its pairs by number."""
    example, *labelled = EXAMPLE
    shown = _ask(example, [(head, tail) for head, tail, _ in labelled])
    asked = _ask(doc[part.start : part.end].text, pair_names(doc, candidates, part))
    return f"{REQUEST}\n\n{shown}\n{write_answer(label for *_, label in labelled)}\n\n{asked}"


def pair_names(doc: Doc, candidates: Candidates, part: Part) -> list[tuple[str, str]]:
    """Head and tail of the part's pairs: words, types, and which of several occurrences in the text that is shown."""
    shown = [token for token in doc[part.start : part.end] if not token.is_space]
    words = [token.text for token in shown]
    names = {}
    for row in {row for pair in part.pairs for row in pair}:
        start, end = candidates.spans[row].tolist()
        own = [token for token in doc[start:end] if not token.is_space]
        mention = [token.text for token in own]
        notes = [_one_line(name) for name in candidates.types[row] if name != UNTYPED]
        met = [token.i for at, token in enumerate(shown) if mention and words[at : at + len(mention)] == mention]
        if len(met) > 1:
            notes.append(f"mention {met.index(own[0].i) + 1}")
        name = _one_line(doc[start:end].text)
        names[row] = f"{name}{NOTES}{', '.join(notes)})" if notes else name
    return [(names[head], names[tail]) for head, tail in part.pairs]


def _ask(text: str, pairs: Iterable[tuple[str, str]]) -> str:
    lines = write_answer(f"{head} {ARROW} {tail}" for head, tail in pairs)
    return f"Text: {_one_line(text)}\nPairs:\n{lines}\nLabels:"


def _one_line(text: str) -> str:
    return " ".join(text.split())
