"""Gold frames: what the documents of a converted corpus need for ``uc_uie``, beside entities and relations.

``with_frames`` has any converter make documents that also have

- ``doc._.frames``: the gold frames of one task, with score 1.0;
- ``doc._.uie_task``: this task;
- ``doc._.uie_schema``: ``{frame type: [slot types]}``, what there is to look for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacy.tokens import Doc
from spacy.vocab import Vocab

from ..uc_uie.doc_frames import DocFrame, new_frame, sort_frames
from ..uc_uie.schema import OPINION_SLOTS, RELATION_SLOTS, FrameType, Schema
from .conversion import SPAN_KEY, ConversionReport, DocBuilder, Part, Tally

DUPLICATE_FRAME = "duplicate frame"
DUPLICATE_SLOT = "duplicate slot"
MALFORMED_FRAME = "malformed frame"
MALFORMED_SLOT = "malformed slot"
NOTHING_ASKED = "no type was looked for"
SAME_TRIGGER = "frame has the type and the words of another"

SLOTS = {"NER": (), "RE": RELATION_SLOTS[0], "ED": (), "ABSA": OPINION_SLOTS}
"""The slot types of the tasks in which all frame types have the same."""

Extent = tuple[int, int]
"""Tokens ``[start, end)``."""


class FrameBuilder(DocBuilder):
    """A document with annotated frames, events or opinions, which are counted like everything else."""

    def __init__(self, vocab: Vocab, words: Sequence[str], **options: Any) -> None:
        super().__init__(vocab, words, **options)
        self.frames = Tally()
        self.slots = Tally()
        self._frames: dict[Any, DocFrame] = {}

    def add_frame(self, label: str, pos: Extent | None, slots: Iterable[tuple[str, Extent]]) -> None:
        """One annotated frame and its slots, counted: its type, where its filler is, and each slot's type and place.

        All places must be in the document. The slots of a frame with a filler are put in text order; those of one
        without keep theirs, which is that of the schema.
        """
        slots = list(slots)
        distinct = list(dict.fromkeys(slots))
        if pos is not None:
            distinct.sort(key=lambda slot: (slot[1], slot[0]))
        key = (label, pos, frozenset(distinct))
        if key in self._frames:
            self.frames.left_out[DUPLICATE_FRAME] += 1
            return
        if pos is not None and any((label, pos) == other[:2] for other in self._frames):
            self.notes[SAME_TRIGGER] += 1
        if len(distinct) < len(slots):
            self.slots.left_out[DUPLICATE_SLOT] += len(slots) - len(distinct)
        self.frames.converted += 1
        self.slots.converted += len(distinct)
        self._frames[key] = new_frame(self.doc, label, pos, distinct)

    def take(self, account: ConversionReport) -> None:
        """Add the losses and notes of what was read before there was a document."""
        self.frames.add(account.frames)
        self.slots.add(account.slots)
        self.notes.update(account.notes)

    def build(self, report: ConversionReport) -> Doc:
        """The finished document; its account, but for the instance, is added to ``report``."""
        report.frames.add(self.frames)
        report.slots.add(self.slots)
        self.doc._.frames = sort_frames(self._frames.values())
        return super().build(report)


def entity_frames(doc: Doc) -> list[DocFrame]:
    """A frame for each entity in ``doc.spans["entities"]``: its type and its words."""
    spans = doc.spans.get(SPAN_KEY, ())
    return sort_frames([new_frame(doc, span.label_, (span.start, span.end), ()) for span in spans])


def relation_frames(doc: Doc) -> list[DocFrame]:
    """A frame without words for each of ``doc._.relations``, with its head as subject and its tail as object."""
    return sort_frames(
        [
            new_frame(
                doc,
                relation["label"],
                None,
                zip(SLOTS["RE"], (tuple(relation["head_pos"]), tuple(relation["tail_pos"])), strict=True),
            )
            for relation in doc._.relations
        ]
    )


def trigger_frames(doc: Doc) -> list[DocFrame]:
    """The events that the converter has set without their slots, those of one type and trigger as one."""
    frames: list[DocFrame] = doc._.frames
    triggers = {(frame["type"], *(frame["pos"] or ())): frame for frame in frames}
    return [{**frame, "slots": []} for frame in triggers.values()]


FRAMES: dict[str, Callable[[Doc], list[DocFrame]]] = {
    "NER": entity_frames,
    "RE": relation_frames,
    "EE": lambda doc: doc._.frames,
    "ED": trigger_frames,
    "EAE": lambda doc: doc._.frames,
    "ABSA": lambda doc: doc._.frames,
}
"""The gold frames of a converted document for each task; those of events and opinions the converter has set."""


def with_frames(
    read: Callable[..., Iterator[Doc]],
    path: str | Path,
    vocab: Vocab,
    *,
    task: str,
    schema: Any = None,
    part: Part = Part(),
    limit: int | None = None,
    report: ConversionReport | None = None,
    **options: Any,
) -> Iterator[Doc]:
    """The documents of a converter with the frames of ``task``.

    read: the ``read`` of a converter, called with ``path``, ``vocab``, the ``options`` and the rest of the
    arguments. The schema is that of the whole file, whatever ``part`` and ``limit`` say, types and slots in the
    order of their names; so the file is read twice. schema: that of the data set which the file is a part of,
    anything that ``Schema.of`` takes; what the file has beyond it is added. A document in which not all types were
    looked for (``doc.user_data["annotated_labels"]``) has the schema of those that were, and is left out if there
    are none. Raises ``ValueError`` where there are no frames, or a type that no schema can have, and what ``read``
    raises.
    """
    if task not in FRAMES:
        raise ValueError(f"task is {task!r}; expected one of {', '.join(FRAMES)}.")
    report = report or ConversionReport()
    found = _slots_by_type(FRAMES[task](doc) for doc in read(path, vocab, **options))
    given = {} if schema is None else Schema.of(schema).to_dict()
    if not given and not found:
        raise ValueError(f"{path} has no frames for task {task}; expected at least one, or a schema.")
    joined = _joined(given, found, SLOTS.get(task, ()))
    whole = Schema(tuple(FrameType(name, tuple(slots), task) for name, slots in joined.items()))
    for doc in read(path, vocab, part=part, limit=limit, report=report, **options):
        looked_for = doc.user_data.get("annotated_labels", whole.names)
        asked = [name for name in whole.names if name in looked_for]
        if not asked:
            report.instances.converted -= 1
            report.instances.left_out[NOTHING_ASKED] += 1
            continue
        doc._.frames = FRAMES[task](doc)
        doc._.uie_task = task
        doc._.uie_schema = whole.only(asked).to_config()
        report.frame_types.update(frame["type"] for frame in doc._.frames)
        report.fillers += sum(len(frame["slots"]) for frame in doc._.frames)
        yield doc


def _slots_by_type(frames_of_docs: Iterable[list[DocFrame]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for frames in frames_of_docs:
        for frame in frames:
            found.setdefault(frame["type"], set()).update(slot["type"] for slot in frame["slots"])
    return found


def _joined(
    given: Mapping[str, Sequence[str]], found: Mapping[str, set[str]], fixed: Sequence[str]
) -> dict[str, list[str]]:
    """The given types and slots in their order, then those found beyond them; ``fixed``: slots of every type."""
    return {
        name: list(dict.fromkeys([*given.get(name, ()), *fixed, *sorted(found.get(name, ()))]))
        for name in [*given, *sorted(found.keys() - given.keys())]
    }
