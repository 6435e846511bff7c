"""Running a component over documents so that one bad document costs no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spacy.tokens import Doc


def annotate(pipe: Any, docs: list[Doc]) -> Iterator[Doc]:
    """The documents with what ``pipe`` finds in them, in order.

    If the batch fails its documents are tried one by one; those that fail go to the pipe's error handler.
    """
    try:
        pipe.set_annotations(docs, pipe.predict(docs))
    except Exception:
        handle = pipe.get_error_handler()
        for doc in docs:
            try:
                pipe.set_annotations([doc], pipe.predict([doc]))
            except Exception as error:
                handle(pipe.name, pipe, [doc], error)
            else:
                yield doc
    else:
        yield from docs
