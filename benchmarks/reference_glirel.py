"""GLiREL's own package as a worker of ``glirel_speed``; runs in an interpreter that has ``glirel``, without ours.

It also holds what both workers share: the protocol (one JSON request and one JSON answer per line), how documents
are made, and what is timed. The package is used through its public interface alone.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Work = dict[str, Any]
"""labels, threshold, top_k, entry ("pipe" or "api") and documents, each with words and [start, end) entities."""
Entry = Callable[[Iterable[Any], Work], Iterator[list[dict[str, Any]]]]
"""Takes documents, gives the relations of each."""


def serve(load: Callable[[Work], tuple[Any, Entry]]) -> None:
    """Answer the requests on stdin until it ends; whatever libraries print goes to stderr.

    load: gives the vocabulary and the entry to time for the request {"op": "load", ...}. Then {"op": "run",
    "first", "last", "output"} times these documents (and writes what was found to a file if output is one), and
    {"op": "peak"} asks for the most memory so far.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    vocab: Any = None
    entry: Any = None
    work: Work = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "load":
            work = json.loads(Path(request["work"]).read_text("utf8"))
            vocab, entry = load({**work, **request})
            answer: Any = {}
        elif request["op"] == "run":
            answer = run(vocab, entry, work, request)
        else:
            answer = {"peak": peak_memory()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def run(vocab: Any, entry: Entry, work: Work, request: Work) -> Work:
    """Seconds from made documents to the last one's relations; documents are let go as they come out."""
    documents = deque(make_docs(vocab, work["documents"][request["first"] : request["last"]]))
    stream = (documents.popleft() for _ in range(len(documents)))
    found: list[list[dict[str, Any]]] = []
    count = 0
    gc.collect()
    start = time.perf_counter()
    for relations in entry(stream, work):
        count += len(relations)
        if request["output"]:
            found.append(relations)
    seconds = time.perf_counter() - start
    if request["output"]:
        Path(request["output"]).write_text(json.dumps([_compact(relations) for relations in found]), "utf8")
    return {"seconds": seconds, "relations": count}


def _compact(relations: list[dict[str, Any]]) -> list[list[Any]]:
    return [[*r["head_pos"], *r["tail_pos"], r["label"], r["score"]] for r in relations]


def make_docs(vocab: Any, documents: list[Work]) -> Iterator[Any]:
    """Documents with their entities set."""
    from spacy.tokens import Doc, Span

    for document in documents:
        doc = Doc(vocab, words=document["words"])
        doc.ents = [Span(doc, start, end, label="ENTITY") for start, end in document["entities"]]
        yield doc


def pipe_entry(nlp: Any) -> Entry:
    """``nlp.pipe`` with labels in the context, which is how GLiREL's component takes them."""

    def entry(docs: Iterable[Any], work: Work) -> Iterator[list[dict[str, Any]]]:
        context = {"glirel_labels": work["labels"]}
        for doc, _ in nlp.pipe(((doc, context) for doc in docs), as_tuples=True):
            yield doc._.relations

    return entry


def peak_memory() -> int:
    """The most memory that this process had resident so far, in bytes.

    Not ``resource.ru_maxrss`` where there is a choice: on Linux that starts with the size of the parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def load_reference(request: Work) -> tuple[Any, Entry]:
    """GLiREL's spaCy component, or its ``predict_relations`` where a threshold or top_k is wanted (it fixes both)."""
    import glirel
    import spacy
    import torch

    torch.set_num_threads(request["threads"])
    os.chdir(request["checkpoint"])  # its config names the encoder by a relative path
    nlp = spacy.blank("en")
    if request["entry"] == "pipe":
        nlp.add_pipe("glirel", config={"model": request["checkpoint"]})
        return nlp.vocab, pipe_entry(nlp)
    model = glirel.GLiREL.from_pretrained(request["checkpoint"])
    model.eval()

    def entry(docs: Iterable[Any], work: Work) -> Iterator[list[dict[str, Any]]]:
        for doc in docs:
            yield model.predict_relations(
                [token.text for token in doc],
                work["labels"],
                threshold=float(work["threshold"]),
                ner=[[span.start, span.end - 1, span.label_, span.text] for span in doc.ents],
                top_k=-1 if work["top_k"] is None else work["top_k"],
            )

    return nlp.vocab, entry


if __name__ == "__main__":
    serve(load_reference)
