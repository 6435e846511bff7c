"""Named entity corpora as spaCy documents: column files (BIO or IO tags) and Re-DocRED's mentions.

The published files are tokenised; a pipeline meets running text. So the spaces are put back
(`detokenise`), the text is tokenised by the pipeline's own tokenizer and the entities are aligned
by characters (`make_doc`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spacy.language import Language
from spacy.tokens import Doc, Span
from spacy.util import filter_spans

TokenSpan = tuple[int, int, str]
"""Start token, end token (exclusive), label."""

_TAG = re.compile(r"O|[BI]-\S+")
_CLOSING = re.compile(r"[,.;:!?%)\]}”’…]+|n['’]t|['’](s|S|m|re|ve|ll|d|em)")
_OPENING = re.compile(r"[(\[{“‘$£€#@]|US\$")
_GLUE = re.compile(r"[-/‐‑]")


@dataclass(frozen=True)
class TaggedSentence:
    """A tokenised text with its entities."""

    tokens: tuple[str, ...]
    entities: tuple[TokenSpan, ...] = ()

    def relabelled(self, labels: Mapping[str, str]) -> TaggedSentence:
        """The same with its labels mapped; entities whose label ``labels`` lacks are dropped."""
        kept = tuple((start, end, labels[label]) for start, end, label in self.entities if label in labels)
        return TaggedSentence(self.tokens, kept)


def tags_to_spans(tags: Sequence[str]) -> tuple[TokenSpan, ...]:
    """Entities of a tag sequence in BIO or IO (a run of one type without a ``B-`` is one entity)."""
    spans: list[TokenSpan] = []
    for i, tag in enumerate(tags):
        if tag == "O":
            continue
        prefix, label = tag.split("-", 1)
        if prefix == "I" and spans and spans[-1][1] == i and spans[-1][2] == label:
            spans[-1] = (spans[-1][0], i + 1, label)
        else:
            spans.append((i, i + 1, label))
    return tuple(spans)


def read_columns(lines: Iterable[str], problems: list[str] | None = None) -> Iterator[list[TaggedSentence]]:
    """Documents of a column file: token, blank or tab, tag; an empty line ends a sentence.

    The first column is the token, the last the tag; there may be others between. ``-DOCSTART-`` lines end a
    document; a file without them is one document. Lines without a token, without a tag or with one that is
    neither ``O`` nor ``B-``/``I-`` and a type are skipped and named in ``problems``.
    """
    document: list[TaggedSentence] = []
    tokens: list[str] = []
    tags: list[str] = []

    def end_sentence() -> None:
        if tokens:
            document.append(TaggedSentence(tuple(tokens), tags_to_spans(tags)))
            tokens.clear()
            tags.clear()

    for number, line in enumerate(lines, start=1):
        fields = line.split()
        token = line.split("\t")[0].strip() if "\t" in line else "".join(fields[:1])
        if fields and fields[0] == "-DOCSTART-":
            end_sentence()
            if document:
                yield document
            document = []
        elif not line.strip("\r\n"):
            end_sentence()
        elif len(fields) < 2 or not token or not _TAG.fullmatch(fields[-1]):
            if problems is not None:
                problems.append(f"Line {number} is {line.rstrip()!r}; expected a token and a tag such as B-PER.")
        else:
            tokens.append(token)
            tags.append(fields[-1])
    end_sentence()
    if document:
        yield document


def read_docred(document: Mapping[str, Any]) -> list[TaggedSentence]:
    """The sentences of a DocRED document with its mentions; where mentions overlap the longest stays.

    Tokens of white space only are dropped and the positions moved accordingly.
    """
    mentions: list[list[TokenSpan]] = [[] for _ in document["sents"]]
    for entity in document["vertexSet"]:
        for mention in entity:
            start, end = mention["pos"]
            mentions[mention["sent_id"]].append((start, end, mention["type"]))
    sentences = []
    for words, spans in zip(document["sents"], mentions, strict=True):
        kept = [0]  # kept[i]: words left before word i
        for word in words:
            kept.append(kept[-1] + bool(word.strip()))
        tokens = tuple(word.strip() for word in words if word.strip())
        moved = {(kept[start], kept[end], label) for start, end, label in spans if kept[start] < kept[end]}
        sentences.append(TaggedSentence(tokens, tuple(_longest(moved))))
    return sentences


def _longest(spans: Iterable[TokenSpan]) -> list[TokenSpan]:
    taken: set[int] = set()
    chosen = []
    for start, end, label in sorted(spans, key=lambda s: (s[0] - s[1], s[0], s[2])):
        if taken.isdisjoint(range(start, end)):
            taken.update(range(start, end))
            chosen.append((start, end, label))
    return sorted(chosen)


def detokenise(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Running text of English tokens, and the characters (start, end) of each token in it.

    Straight quotes open and close in turn; PTB quotes become straight ones.
    """
    text = ""
    offsets = []
    glue = True  # whether the next token follows without a space
    quote_open = False
    for i, token in enumerate(tokens):
        token = '"' if token in ("``", "''") else token
        after = tokens[i + 1] if i + 1 < len(tokens) else ""
        space = not glue and not _CLOSING.fullmatch(token)
        glue = bool(_OPENING.fullmatch(token))
        if token == '"':
            space = space and not quote_open
            quote_open = not quote_open
            glue = quote_open
        elif token == "'":  # a possessive after a plural; anything else is too rare to tell
            space = False
        elif (_GLUE.fullmatch(token) and i and after) or _is_range(tokens, i):
            space, glue = False, True
        text += " " if space and text else ""
        offsets.append((len(text), len(text) + len(token)))
        text += token
    return text, offsets


def _is_range(tokens: Sequence[str], i: int) -> bool:
    return tokens[i] == "–" and 0 < i < len(tokens) - 1 and tokens[i - 1].isdigit() and tokens[i + 1].isdigit()


def make_doc(nlp: Language, sentences: Sequence[TaggedSentence]) -> Doc:
    """A `Doc` of the sentences' running text, tokenised by ``nlp``, with ``doc.ents``.

    An entity whose ends fall inside a token of ``nlp`` grows to the whole token; entities of one label
    that then overlap become one, and of two labels the longer stays.
    """
    text = ""
    characters: list[tuple[int, int, str]] = []
    for sentence in sentences:
        if not sentence.tokens:
            continue
        piece, offsets = detokenise(sentence.tokens)
        base = len(text) + 1 if text else 0
        text = f"{text} {piece}" if text else piece
        for start, end, label in sentence.entities:
            characters.append((base + offsets[start][0], base + offsets[end - 1][1], label))
    doc = nlp.make_doc(text)
    spans: list[Span] = []
    for start, end, label in sorted(characters):
        span = doc.char_span(start, end, label=label, alignment_mode="expand")
        if span is None:
            continue
        if spans and span.start < spans[-1].end and spans[-1].label_ == label:
            span = Span(doc, spans[-1].start, max(span.end, spans[-1].end), label=label)
            spans.pop()
        spans.append(span)
    doc.set_ents(filter_spans(spans))
    return doc
