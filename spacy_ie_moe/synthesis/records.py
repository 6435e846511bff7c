"""Documents in GLiREL's JSONL."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from spacy.tokens import Doc, Span


def to_glirel(doc: Doc, entities: Iterable[Span], relations: Iterable[tuple[Span, Span, str]]) -> dict[str, Any]:
    """The record of a document. entities: each place once. relations: head, tail and label.

    Positions are tokens, ends inclusive.
    """
    return {
        "tokenized_text": [token.text for token in doc],
        "ner": [[*_position(span), span.label_, span.text] for span in entities],
        "relations": [
            {"head": _argument(head), "tail": _argument(tail), "relation_text": label}
            for head, tail, label in relations
        ],
    }


def _argument(span: Span) -> dict[str, Any]:
    return {"mention": span.text, "position": _position(span), "type": span.label_}


def _position(span: Span) -> list[int]:
    return [span.start, span.end - 1]
