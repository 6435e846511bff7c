"""What of gold comes back if a backbone is told all that it can be told: the ceiling of its scores.

``python -m benchmarks.backbone_oracle corpus/webnlg/dev.spacy [FILE.spacy ...]`` writes the gold of each document as
the targets of each backbone, lets its decoder read them, and prints precision, recall and F1 of the triples as strings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_ie_moe.corpora.reader import make_example, read_docs
from spacy_ie_moe.gmoe_rte.backbones import dual_dec, make_backbone, re_cent, tlrel, vertices
from spacy_ie_moe.gmoe_rte.backbones.sampling import all_spans
from spacy_ie_moe.gmoe_rte.backbones.triplets import Span, SpanTriplet, gold_triplets
from spacy_ie_moe.gmoe_rte.features import Extraction
from spacy_ie_moe.gmoe_rte.gold import GoldReader, collect_labels
from spacy_ie_moe.gmoe_rte.schema import Schema
from spacy_ie_moe.gmoe_rte.sentences import split_sentences
from spacy_ie_moe.scoring import Counts, Triple, count_sets
from spacy_ie_moe.string_triples import gold_strings

WIDTH = 2
"""Of vectors that are never made."""


def main(files: Annotated[list[Path], typer.Argument(help="Documents with relations.")]) -> None:
    """Print the ceilings."""
    for path in files:
        docs = list(read_docs(path, Vocab()))
        examples = [make_example(doc, gold_ents=False) for doc in docs]
        schema = Schema(**{name: tuple(labels) for name, labels in collect_labels(examples, "gmoe_rte").items()})
        reader = GoldReader(schema, "gmoe_rte")
        sentences = split_sentences([example.predicted for example in examples], by_sentence=False)
        gold = reader(examples, sentences)
        typer.echo(f"{path}: {len(docs)} documents, {len(schema.relations)} relations")
        for name, decode in DECODERS.items():
            counts = Counts()
            for doc, extraction in zip(docs, gold, strict=True):
                found = {_strings(doc, triplet, schema) for triplet in decode(extraction, len(doc), schema)}
                counts += count_sets(gold_strings(doc), found)
            typer.echo(
                f"  {name:<18} P {100 * counts.precision:6.2f}  R {100 * counts.recall:6.2f}  F1 {100 * counts.f1:6.2f}"
            )


def _strings(doc: Doc, triplet: SpanTriplet, schema: Schema) -> Triple:
    head, tail = (" ".join(token.text for token in doc[slice(*span)]) for span in triplet[:2])
    return Triple(head, tail, schema.relations[triplet.label])


def _prepare(name: str, extraction: Extraction, length: int, schema: Schema) -> Any:
    backbone = make_backbone(name, WIDTH, schema, {})
    return backbone.prepare(np.array([length]), [extraction], np.random.default_rng(0))


def spans_of_sinet(extraction: Extraction, length: int, schema: Schema) -> Iterable[SpanTriplet]:
    """All pairs of entities that are not too wide."""
    widest = make_backbone("sinet", WIDTH, schema, {"heads": 1}).max_span
    for triplet in gold_triplets(extraction, schema):
        if all(end - start <= widest for start, end in triplet[:2]):
            yield triplet


def boxes(both: bool) -> Callable[[Extraction, int, Schema], Iterable[SpanTriplet]]:
    """The boxes of OD-RTE's tables."""

    def decode(extraction: Extraction, length: int, schema: Schema) -> Iterable[SpanTriplet]:
        targets = _prepare("od_rte", extraction, length, schema)
        cell, place, tag = targets.corners[0].nonzero()
        head, tail = np.divmod(cell, length)
        cells = vertices.Cells(targets.relations[0][place], head, tail, tag, np.ones(len(tag), dtype=np.float32))
        found = vertices.match_corners(cells, both=both)
        for label, a, b, c, d, _ in zip(*(column.tolist() for column in found), strict=True):
            yield SpanTriplet((a, b + 1), (c, d + 1), label)

    return decode


def tags_and_tensor(extraction: Extraction, length: int, schema: Schema) -> Iterable[SpanTriplet]:
    """Tagged entities, and those of their pairs of which more than half of the tensor is 1."""
    targets = _prepare("tlrel", extraction, length, schema)
    tensor = np.zeros((length, length, len(schema.relations)), dtype=np.float32)
    tensor[tuple(targets.relations[0].T)] = 1
    spans: list[Span] = [entity[:2] for entity in tlrel.read_tags(targets.tags[0].tolist(), [1.0] * length)]
    for head in spans:
        for tail in spans:
            means = tensor[slice(*head), slice(*tail)].mean((0, 1))
            for label in (means > 0.5).nonzero()[0].tolist() if head != tail else ():
                yield SpanTriplet(head, tail, label)


def cascade(extraction: Extraction, length: int, schema: Schema) -> Iterable[SpanTriplet]:
    """The heads that the tags of a relation mark, and the tails that those of a head do."""
    types = {entity[:2]: entity.type for entity in reversed(extraction.entities)}
    tails: dict[tuple[int, Span], list[Span]] = {}
    for head, tail, label in gold_triplets(extraction, schema):
        tails.setdefault((label, head), []).append(tail)
    for label in {label for label, _ in tails}:
        heads = [head for other, head in tails if other == label]
        for head in _marked(heads, types, length, schema):
            for tail in _marked(tails.get((label, head), []), types, length, schema):
                yield SpanTriplet(head, tail, label)


def roles_and_pairs(extraction: Extraction, length: int, schema: Schema) -> Iterable[SpanTriplet]:
    """The subjects and objects of each label, and those pairs of them that are gold."""
    gold = re_cent.roles_of(extraction)
    widest = make_backbone("re_cent", WIDTH, schema, {}).max_span
    _, start, end = all_spans(np.array([length]), widest)
    spans = np.stack([start, end], 1)
    rows = {span: row for row, span in enumerate(map(tuple, spans.tolist()))}
    roles = np.zeros((2, len(spans), len(schema.relations)))
    for one in gold.triplets.tolist():
        for role, span in enumerate((tuple(one[:2]), tuple(one[2:4]))):
            if span in rows:
                roles[role, rows[span], one[4]] = 1
    wanted = {((a, b), (c, d), label) for a, b, c, d, label in gold.triplets.tolist()}
    logits = 20 * roles - 10
    subjects, objects = (re_cent.choose_arguments(role, spans, 0.5) for role in logits)
    for one, other in zip(*re_cent.join_roles(subjects, objects), strict=True):
        head, tail = (tuple(spans[argument["span"]].tolist()) for argument in (one, other))
        if (head, tail, int(one["label"])) in wanted:
            yield SpanTriplet(head, tail, int(one["label"]))


def _marked(spans: list[Span], types: dict[Span, int], length: int, schema: Schema) -> list[Span]:
    classes = 1 + len(schema.entities)
    begins, ends = (
        9.0 * F.one_hot(torch.from_numpy(tags), classes)[None] for tags in dual_dec.tags_of(spans, types, length)
    )
    found = dual_dec.pair_tags(begins, ends, torch.tensor([length]))
    return list(zip(found.begin.tolist(), found.end.tolist(), strict=True))


DECODERS = {
    "sinet": spans_of_sinet,
    "dual_dec": cascade,
    "tlrel": tags_and_tensor,
    "od_rte, both": boxes(True),
    "od_rte, either": boxes(False),
    "re_cent": roles_and_pairs,
}


if __name__ == "__main__":
    typer.run(main)
