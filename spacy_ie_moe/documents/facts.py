"""Facts as strings: what a training set already says, which DocRED's Ign F1 leaves out. One JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

from spacy.tokens import Doc

from ..files import json_line, replacing
from .relations import Mention, check_document_relation, clusters_of


class Fact(NamedTuple):
    """A relation between two names, white space aside."""

    head: str
    label: str
    tail: str


def facts_of(doc: Doc) -> Iterator[Fact]:
    """The facts of ``Doc._.document_relations``: each relation under every pair of its mentions' texts.

    Raises ``ValueError`` for relations and clusters that are none of ``doc``.
    """
    names = [cluster_names(doc, cluster) for cluster in clusters_of(doc)]
    for relation in doc._.document_relations:
        check_document_relation(doc, relation)
        for head, tail in product(names[relation["head"]], names[relation["tail"]]):
            yield Fact(head, relation["label"], tail)


def cluster_names(doc: Doc, cluster: Iterable[Mention]) -> set[str]:
    """The texts of a cluster's mentions without white space."""
    return {"".join(doc[start:end].text.split()) for start, end in cluster}


def write_facts(facts: Iterable[Fact], path: Path) -> None:
    """Write facts, each once and sorted, as ``{"head": ..., "label": ..., "tail": ...}`` lines."""
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(json_line(fact._asdict()) for fact in sorted(set(facts))))


def read_facts(path: str | Path) -> frozenset[Fact]:
    """The facts that ``write_facts`` wrote. Raises ``FileNotFoundError``, and ``ValueError`` naming the line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"training_facts {path} is no file; expected what convert --facts writes.")
    facts = set()
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            parts = json.loads(line)
            fact = Fact(*(parts[name] for name in Fact._fields))
        except (ValueError, KeyError, TypeError):
            fact = None
        if fact is None or not all(isinstance(part, str) for part in fact):
            raise ValueError(
                f"line {number} of training_facts {path} is {line[:60].decode('utf8', 'replace')!r}; expected a JSON "
                "object with the strings head, label and tail."
            )
        facts.add(Fact("".join(fact.head.split()), fact.label, "".join(fact.tail.split())))
    return frozenset(facts)
