"""``Doc._.frames``: the frames of a document as plain data, and the read-only view beside it.

Frames are plain dicts of plain values, because only those survive ``Doc.to_bytes``, ``DocBin``, pickling and
``n_process=2``. ``Doc._.frame_spans`` shows the same frames with spaCy ``Span``s. ``Doc._.uie_issues`` lists what of
the model's answer was left out, ``Doc._.uie_schema`` what to look for in this document instead of the pipeline's
schema, and ``Doc._.uie_task`` the task that a gold document is annotated for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict, TypeVar

from spacy.tokens import Doc, Span

from ..extensions import register, require
from ..relations import Relation, make_relation, relation_key, sort_relations
from .frames import RELATION_SLOTS, Frame, Schema, Slot
from .grounding import GroundedFrame


class DocSlot(TypedDict):
    """A slot of a document's frame: its type, its tokens [start, end), their text, and a probability."""

    type: str
    pos: list[int]
    text: str
    score: float


class DocFrame(TypedDict):
    """A frame of a document.

    pos: the tokens [start, end) that evoke it, None if none do (as for relations); text: theirs, ``""`` for none;
    score: a probability.
    """

    type: str
    pos: list[int] | None
    text: str
    score: float
    slots: list[DocSlot]


class DocIssue(TypedDict):
    """What of an answer was left out: one of the kinds of ``frames.Issue``, and why."""

    kind: str
    message: str


class SlotSpan(NamedTuple):
    """A slot seen as a span of its document, labelled with the slot's type."""

    type: str
    span: Span
    score: float


class FrameSpans(NamedTuple):
    """A frame seen as spans of its document, labelled with their types."""

    type: str
    span: Span | None
    slots: tuple[SlotSpan, ...]
    score: float


def make_frame(
    doc: Doc, grounded: GroundedFrame, score: float = 1.0, slot_scores: Sequence[float] | None = None
) -> DocFrame:
    """The frame of ``doc`` that was grounded in ``doc.text``; a span within a token becomes the whole token.

    slot_scores: one for each slot; by default that of the frame. Raises ``ValueError`` for another number of scores
    and for offsets that are not the document's.
    """
    pos = None if grounded.span is None else _to_tokens(doc, grounded.span)
    slots = [(slot.type, _to_tokens(doc, slot.span)) for slot in grounded.slots]
    frame = new_frame(doc, grounded.type, pos, slots, score)
    if slot_scores is not None and len(slot_scores) != len(slots):
        raise ValueError(f"slot_scores has {len(slot_scores)} scores; expected one for each of the {len(slots)} slots.")
    for slot, slot_score in zip(frame["slots"], slot_scores or (), strict=False):
        slot["score"] = float(slot_score)
    return frame


def new_frame(
    doc: Doc,
    type: str,
    pos: Sequence[int] | None,
    slots: Iterable[tuple[str, Sequence[int]]] = (),
    score: float = 1.0,
) -> DocFrame:
    """The frame ``type`` at the tokens ``pos`` [start, end), None for none, with slots (type, [start, end)).

    The slots have the frame's score. Raises ``ValueError`` where ``check_frame`` does.
    """
    places = list(slots)
    wanted = [{"type": name, "pos": place} for name, place in places]
    check_frame(doc, {"type": type, "pos": pos, "score": score, "slots": wanted})
    return DocFrame(
        type=type,
        pos=None if pos is None else list(pos),
        text="" if pos is None else _text(doc, pos),
        score=float(score),
        slots=[
            DocSlot(type=name, pos=list(place), text=_text(doc, place), score=float(score)) for name, place in places
        ],
    )


def check_frame(doc: Doc, frame: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless ``frame`` is one of ``doc``: it names the field and what was expected."""
    if not isinstance(frame, Mapping):
        raise ValueError(f"a frame is {frame!r}; expected a dict as Doc._.frames has them.")
    _check_part(doc, frame, "a frame", optional=True)
    slots = frame.get("slots")
    if not isinstance(slots, (list, tuple)):
        raise ValueError(f"slots of a frame is {slots!r}; expected a list of dicts.")
    for slot in slots:
        if not isinstance(slot, Mapping):
            raise ValueError(f"a slot of a frame is {slot!r}; expected a dict as Doc._.frames has them.")
        _check_part(doc, slot, "a slot", optional=False)


AnyFrame = TypeVar("AnyFrame", bound=Mapping[str, Any])
FrameKey = tuple[str, tuple[int, int] | None, tuple[tuple[str, int, int], ...]]


def frame_key(frame: Mapping[str, Any]) -> FrameKey:
    """What makes a frame one and the same: types and tokens, whatever the order of its slots, without scores."""
    pos = None if frame["pos"] is None else (frame["pos"][0], frame["pos"][1])
    return frame["type"], pos, tuple(sorted({(slot["type"], *slot["pos"]) for slot in frame["slots"]}))


def sort_frames(frames: Iterable[AnyFrame]) -> list[AnyFrame]:
    """In text order, of frames without tokens that of their first slot; ties by type, then by slots."""
    return sorted(frames, key=_order)


def to_entities(doc: Doc, frames: Iterable[Mapping[str, Any]], schema: Any) -> list[Span]:
    """The entities among the frames (types of the task NER in ``schema``) as labelled spans, each once.

    schema: whatever ``Schema.of`` takes. Spans are in the order of the frames, and may overlap.
    """
    schema = Schema.of(schema)
    entities = (frame for frame in frames if _is_task(frame, "NER", schema) and frame["pos"] is not None)
    return list(dict.fromkeys(_span(doc, frame) for frame in entities))


def to_relations(doc: Doc, frames: Iterable[Mapping[str, Any]], schema: Any) -> list[Relation]:
    """The relations among the frames (types of the task RE in ``schema``), sorted as in ``Doc._.relations``.

    schema: whatever ``Schema.of`` takes. A frame is a relation if it has exactly two slots, subject and object or
    head and tail. An argument's label is the type of an entity among the frames that is just there, else ``""``; of
    relations that differ in nothing but the score, the highest is kept.
    """
    schema, frames = Schema.of(schema), list(frames)
    labels: dict[tuple[int, int], str] = {}
    for entity in to_entities(doc, frames, schema):
        labels.setdefault((entity.start, entity.end), entity.label_)
    relations = []
    for frame in frames:
        places = {slot["type"]: (slot["pos"][0], slot["pos"][1]) for slot in frame["slots"]}
        sides = next((sides for sides in RELATION_SLOTS if places.keys() == set(sides)), None)
        if sides is not None and len(frame["slots"]) == 2 and _is_task(frame, "RE", schema):
            head, tail = (Span(doc, *places[side], label=labels.get(places[side], "")) for side in sides)
            relations.append(make_relation(head, tail, frame["type"], _score(frame)))
    best: dict[tuple[Any, ...], Relation] = {}
    for relation in sort_relations(relations):
        best.setdefault(relation_key(relation), relation)
    return list(best.values())


def to_strings(doc: Doc, frames: Iterable[Mapping[str, Any]]) -> list[Frame]:
    """The frames with the words of ``doc`` instead of positions, in the same order: what a model is to answer."""
    return [
        Frame(
            frame["type"],
            None if frame["pos"] is None else _text(doc, frame["pos"]),
            tuple(Slot(slot["type"], _text(doc, slot["pos"])) for slot in frame["slots"]),
        )
        for frame in frames
    ]


def _to_tokens(doc: Doc, offsets: tuple[int, int]) -> tuple[int, int]:
    length = len(doc.text)
    if not 0 <= offsets[0] < offsets[1] <= length:
        raise ValueError(f"offsets of a span are {offsets!r}; expected [start, end) in the text's {length} characters.")
    span = doc.char_span(*offsets, alignment_mode="expand")
    assert span is not None  # every character belongs to a token
    return span.start, span.end


def _text(doc: Doc, pos: Sequence[int]) -> str:
    return doc[pos[0] : pos[1]].text


def _is_task(frame: Mapping[str, Any], task: str, schema: Schema) -> bool:
    return frame["type"] in schema and schema[frame["type"]].task == task


def _score(part: Mapping[str, Any]) -> float:
    """The score of a frame or slot; 1 for a gold one without."""
    return part.get("score", 1.0)


def _order(frame: Mapping[str, Any]) -> tuple[Any, ...]:
    places = [tuple(slot["pos"]) for slot in frame["slots"]] if frame["pos"] is None else [tuple(frame["pos"])]
    name, _, slots = frame_key(frame)
    return not places, min(places, default=()), name, frame["pos"] is None, slots


def _check_part(doc: Doc, part: Mapping[str, Any], what: str, *, optional: bool) -> None:
    """Check what frames and slots have in common. optional: whether there may be no tokens."""
    if not isinstance(part.get("type"), str):
        raise ValueError(f"type of {what} is {part.get('type')!r}; expected a string.")
    pos = part.get("pos")
    if (not optional or pos is not None) and (
        not isinstance(pos, (list, tuple))
        or len(pos) != 2
        or not all(isinstance(offset, int) for offset in pos)
        or not 0 <= pos[0] < pos[1] <= len(doc)
    ):
        raise ValueError(
            f"pos of {what} is {pos!r}; expected token offsets [start, end) with 0 <= start < end <= {len(doc)}"
            f"{' or None' if optional else ''}."
        )
    if not isinstance(part.get("text", ""), str):
        raise ValueError(f"text of {what} is {part['text']!r}; expected a string.")
    if not isinstance(part.get("score", 1.0), (int, float)):
        raise ValueError(f"score of {what} is {part['score']!r}; expected a number.")


def _span(doc: Doc, part: Mapping[str, Any]) -> Span:
    start, end = part["pos"]
    return Span(doc, start, end, label=part["type"])


def _frame_spans(doc: Doc) -> list[FrameSpans]:
    return [
        FrameSpans(
            frame["type"],
            None if frame["pos"] is None else _span(doc, frame),
            tuple(SlotSpan(slot["type"], _span(doc, slot), _score(slot)) for slot in frame["slots"]),
            _score(frame),
        )
        for frame in doc._.frames
    ]


_EXTENSIONS: dict[str, dict[str, Any]] = {
    "frames": {"default": []},
    "frame_spans": {"getter": _frame_spans},
    "uie_issues": {"default": []},
    "uie_task": {"default": ""},
    "uie_schema": {"default": None},
}


def require_frame_extensions() -> None:
    """Raise ``ValueError`` if another package holds the name of one of our extensions."""
    require(_EXTENSIONS)


register(_EXTENSIONS)
