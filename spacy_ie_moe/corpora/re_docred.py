"""Re-DocRED (and DocRED): documents with entities, their mentions, and relations between entities.

Source: Tan et al., "Revisiting DocRED - Addressing the False Negative Problem in Relation Extraction", 2022.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

from ..documents.relations import (
    Mention,
    cluster_texts,
    make_document_relation,
    sort_document_relations,
)
from .conversion import (
    MALFORMED_INSTANCE,
    MALFORMED_MENTION,
    MALFORMED_RELATION,
    NO_ARGUMENT,
    NO_TOKENS,
    OUTSIDE_TEXT,
    SELF_RELATION,
    SPAN_KEY,
    UNITS,
    UNTYPED,
    ConversionReport,
    DocBuilder,
    LabelChoice,
    Pair,
    Part,
    Tally,
    Unconvertible,
    build_docs,
    check_choice,
    checked_words,
    convert_each,
    field_of,
    is_offset,
    key_of,
    load_json,
    select_part,
)

NO_MENTION = "entity without mentions"
NO_SHARED_SENTENCE = "no shared sentence"


class _Mention(NamedTuple):
    span: Span
    sentence: int


Entity = list[_Mention]
MentionPair = tuple[_Mention, _Mention]
Converted = tuple[DocBuilder, list[list[str]]]
"""A document in the making, and the words of each of its sentences."""
Pairing = Callable[[list[MentionPair]], list[MentionPair]]


def read(
    path: str | Path,
    vocab: Vocab,
    *,
    labels: LabelChoice | None = None,
    part: Part = Part(),
    seed: int = 0,
    report: ConversionReport | None = None,
    limit: int | None = None,
    unit: str = "document",
    mentions: str = "close",
    document_relations: bool = False,
    self_label: str | None = None,
) -> Iterator[Doc]:
    """The documents of a Re-DocRED file, one ``Doc`` for each ``unit``.

    A label between two entities becomes relations between mentions. unit "document", mentions "close": every
    pair that shares a sentence or, where none does, the pair with the fewest tokens between; its other pairs
    are ignored ones. unit "document", mentions "all": every pair. unit "sentence": every pair in the
    sentence, whatever ``mentions`` says. Parts are by document. ``limit``: a random sample of at most so many
    units; annotations are counted by document, also those of sentences beyond the limit. The source id is the
    title, in sentences followed by ``/sentence index``. Raises ``FileNotFoundError`` and ``ValueError``.

    For documents only: document_relations writes the entities to ``Doc._.mention_clusters`` and the labels between them
    to ``Doc._.document_relations``; evidence is the pairs of mentions in the sentences that the data name as evidence,
    none for most labels. self_label: relations of this label too, between all mentions of an entity, from the earlier
    one to the later, to learn coreference from; they are no annotated relations of the report. It must not be a label
    of the data.
    """
    check_choice("unit", unit, UNITS)
    check_choice("mentions", mentions, _PAIRINGS)
    if self_label is not None and not self_label.strip():
        raise ValueError(f"self_label is {self_label!r}; expected a label, or None.")
    for name, value in (("document_relations", document_relations), ("self_label", self_label)):
        if value and unit == "sentence":
            raise ValueError(f"{name} is {value!r} and unit 'sentence'; expected unit 'document' with it.")
    labels = labels or LabelChoice()
    report = report or ConversionReport()
    documents = load_json(path, list, "a list of documents with title, sents, vertexSet and labels")
    pairing = _within_sentences if unit == "sentence" else _PAIRINGS[mentions]
    chosen = select_part(documents, lambda document: key_of(document, "title"), part, seed, report)

    def convert(document: Any) -> Converted:
        return _convert(document, vocab, labels, pairing, document_relations, self_label)

    converted = convert_each(chosen, convert, report)
    if unit == "document":
        builders = (builder for builder, _ in converted)
    else:
        builders = (one for builder, sentences in converted for one in _split(builder, sentences, report))
    yield from build_docs(builders, limit=limit, seed=seed, report=report)


def _sentences(document: Any) -> list[list[str]]:
    """The words of each sentence; a sentence may be empty, the document may not."""
    sentences = field_of(document, "sents", list)
    if not all(isinstance(sentence, list) for sentence in sentences):
        raise Unconvertible(MALFORMED_INSTANCE)
    checked_words([word for sentence in sentences for word in sentence])
    return sentences


def _convert(
    document: Any,
    vocab: Vocab,
    labels: LabelChoice,
    pairing: Pairing,
    document_relations: bool,
    self_label: str | None,
) -> Converted:
    sentences = _sentences(document)
    entities = field_of(document, "vertexSet", list)
    facts = field_of(document, "labels", list)
    builder = DocBuilder(
        vocab,
        [word for sentence in sentences for word in sentence],
        source=field_of(document, "title", str),
        sent_starts=[position == 0 for sentence in sentences for position in range(len(sentence))],
    )
    converted = [_entity(builder, entity, sentences) for entity in entities]
    labelled = [(fact, _fact(builder, fact, converted, labels, pairing)) for fact in facts]
    if document_relations:
        _write_document_relations(builder.doc, converted, [(fact, label) for fact, label in labelled if label])
    if self_label:
        if self_label in {label for _, label in labelled}:
            raise ValueError(f"self_label is {self_label!r}, which is a label of the data; expected another one.")
        for entity in converted:
            spans = sorted(mention.span for mention in entity)
            builder.derive_relations(self_label, combinations(spans, 2))
    return builder, sentences


def _entity(builder: DocBuilder, entity: Any, sentences: list[list[str]]) -> Entity:
    if not isinstance(entity, list):
        builder.mentions.left_out[MALFORMED_MENTION] += 1
        return []
    if not entity:
        builder.notes[NO_MENTION] += 1
    mentions = []
    for data in entity:
        try:
            start, end, sentence = _extent(data, sentences)
        except Unconvertible as error:
            builder.mentions.left_out[error.reason] += 1
            continue
        span = builder.add_mention(start, end, data.get("type", UNTYPED))
        if span is not None:
            mentions.append(_Mention(span, sentence))
    return mentions


def _extent(mention: Any, sentences: list[list[str]]) -> tuple[int, int, int]:
    """``[start, end)`` in the document, and the sentence, of a mention given as ``sent_id`` and ``pos``."""
    if not isinstance(mention, dict):
        raise Unconvertible(MALFORMED_MENTION)
    sentence: Any = mention.get("sent_id")
    position = mention.get("pos")
    if not isinstance(position, list) or len(position) != 2 or not all(map(is_offset, (sentence, *position))):
        raise Unconvertible(MALFORMED_MENTION)
    if not 0 <= sentence < len(sentences) or not 0 <= position[0] < position[1] <= len(sentences[sentence]):
        raise Unconvertible(OUTSIDE_TEXT)
    offset = sum(map(len, sentences[:sentence]))
    return offset + position[0], offset + position[1], sentence


def _fact(builder: DocBuilder, fact: Any, entities: list[Entity], labels: LabelChoice, pairing: Pairing) -> str | None:
    """Add the relations of a fact; its label, None where it is left out."""
    if not isinstance(fact, dict):
        builder.leave_out_relation(MALFORMED_RELATION)
        return None
    head, tail = (_argument(fact.get(side), entities) for side in ("h", "t"))
    if not head or not tail:
        builder.leave_out_relation(NO_ARGUMENT)
        return None
    every = _pairs(head, tail)
    if fact["h"] == fact["t"] or not every:
        builder.leave_out_relation(SELF_RELATION)
        return None
    try:
        label = labels.resolve(fact.get("r"))
        chosen = pairing(every)
    except Unconvertible as error:
        builder.leave_out_relation(error.reason, _spans(every))
        return None
    builder.add_relation(label, _spans(chosen), _spans(pair for pair in every if pair not in chosen))
    return label


def _write_document_relations(doc: Doc, entities: list[Entity], facts: Iterable[tuple[dict[str, Any], str]]) -> None:
    """Write the entities that have mentions as clusters, and facts that were converted as relations between them.

    A fact that is there twice is one relation with the evidence of both. There is none between entities that have the
    same places.
    """
    places = [sorted({_extent_of(mention) for mention in entity}) for entity in entities]
    order = sorted((number for number, cluster in enumerate(places) if cluster), key=lambda number: places[number])
    clusters = [places[number] for number in order]
    rank = {number: position for position, number in enumerate(order)}
    texts = cluster_texts(doc, clusters)
    found: defaultdict[tuple[int, int, str], dict[tuple[Mention, Mention], float]] = defaultdict(dict)
    for fact, label in facts:
        if places[fact["h"]] == places[fact["t"]]:
            continue
        sentences = _evidence(fact)
        found[rank[fact["h"]], rank[fact["t"]], label] |= {
            (_extent_of(first), _extent_of(second)): 1.0
            for first, second in _pairs(entities[fact["h"]], entities[fact["t"]])
            if {first.sentence, second.sentence} <= sentences
        }
    doc._.mention_clusters = [[[*mention] for mention in cluster] for cluster in clusters]
    doc._.document_relations = sort_document_relations(
        make_document_relation(texts, head, tail, label, evidence, score=1.0)
        for (head, tail, label), evidence in found.items()
    )


def _evidence(fact: dict[str, Any]) -> set[int]:
    """The sentences that say a fact; none where the data name none."""
    sentences = fact.get("evidence")
    return {sentence for sentence in sentences if is_offset(sentence)} if isinstance(sentences, list) else set()


def _extent_of(mention: _Mention) -> Mention:
    return mention.span.start, mention.span.end


def _argument(index: Any, entities: list[Entity]) -> Entity:
    return entities[index] if is_offset(index) and 0 <= index < len(entities) else []


def _pairs(head: Entity, tail: Entity) -> list[MentionPair]:
    """The pairs of mentions at different places."""
    return [(first, second) for first, second in product(head, tail) if _extent_of(first) != _extent_of(second)]


def _spans(pairs: Iterable[MentionPair]) -> list[Pair]:
    return [(head.span, tail.span) for head, tail in pairs]


def _within_sentences(pairs: list[MentionPair]) -> list[MentionPair]:
    """The pairs that share a sentence; ``Unconvertible`` where there are none."""
    shared = [(head, tail) for head, tail in pairs if head.sentence == tail.sentence]
    if not shared:
        raise Unconvertible(NO_SHARED_SENTENCE)
    return shared


def _close(pairs: list[MentionPair]) -> list[MentionPair]:
    """The pairs that share a sentence or, where there are none, the first with the fewest tokens between."""
    try:
        return _within_sentences(pairs)
    except Unconvertible:
        return [min(pairs, key=lambda pair: _distance(pair[0].span, pair[1].span))]


def _distance(first: Span, second: Span) -> int:
    """Tokens between two spans, negative where they overlap."""
    return max(first.start, second.start) - min(first.end, second.end)


_PAIRINGS: dict[str, Pairing] = {"close": _close, "all": list}


def _split(whole: DocBuilder, sentences: list[list[str]], report: ConversionReport) -> Iterator[DocBuilder]:
    """One document for each sentence, with the mentions, relations and ignored pairs that lie in it.

    The account of the annotations is the whole document's.
    """
    account = ConversionReport()
    doc = whole.build(account)
    report.mentions.add(account.mentions)
    report.relations.add(account.relations)
    report.notes.update(account.notes)
    end = 0
    for index, words in enumerate(sentences):
        start, end = end, end + len(words)
        if not words:
            report.instances.left_out[NO_TOKENS] += 1
            continue
        builder = DocBuilder(doc.vocab, words, source=f"{doc.user_data['source']}/{index}")
        for span in doc.spans[SPAN_KEY]:
            if start <= span.start < end:
                builder.span(span.start - start, span.end - start, span.label_)
        for relation in doc._.relations:
            (head_start, head_end), (tail_start, tail_end) = relation["head_pos"], relation["tail_pos"]
            if start <= head_start < end:
                head = builder.span(head_start - start, head_end - start, relation["head_label"])
                tail = builder.span(tail_start - start, tail_end - start, relation["tail_label"])
                builder.add_relation(relation["label"], [(head, tail)])
        for head_start, head_end, tail_start, tail_end in doc.user_data["ignored_pairs"]:
            if start <= head_start < end and start <= tail_start < end:
                head = Span(builder.doc, head_start - start, head_end - start)
                tail = Span(builder.doc, tail_start - start, tail_end - start)
                builder.ignore([(head, tail)])
        builder.relations = Tally()  # in the account already
        yield builder
