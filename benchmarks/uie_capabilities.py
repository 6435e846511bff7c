"""What a trained ``uc_uie`` can do with some of its capabilities (the paper's Tables 5 and 6).

``python -m benchmarks.uie_capabilities PIPELINE OUTPUT FILE.spacy [FILE.spacy ...]`` switches on every combination of
the capability experts, and last the gates of the router (of a hard one those of the task), and scores each: on the
subtasks that make up capability warming, built of the same documents (Table 5), and on the tasks themselves (Table 6).
It writes ``OUTPUT/README.md`` and ``results.json``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice, product
from pathlib import Path
from typing import Annotated, Any

import spacy
import typer
from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_ie_moe.corpora.reader import make_example, read_docs
from spacy_ie_moe.scoring import Triple, count_sets
from spacy_ie_moe.uc_uie.decoding import Request
from spacy_ie_moe.uc_uie.frames import Frame, Schema, read_frames
from spacy_ie_moe.uc_uie.gold import LessonMaker
from spacy_ie_moe.uc_uie.instructions import CAPABILITIES
from spacy_ie_moe.uc_uie.lessons import Lesson, LessonSettings

from .uie_study import SCORES

LEARNT = "learnt gates"
COMBINATIONS: dict[str, list[int] | None] = {
    "+".join(name[0].upper() for name, on in zip(CAPABILITIES, gates, strict=True) if on): list(gates)
    for gates in sorted(product((0, 1), repeat=3), key=lambda gates: (sum(gates), [-gate for gate in gates]))
    if any(gates)
} | {LEARNT: None}


def main(
    pipeline: Annotated[Path, typer.Argument(help="A trained pipeline.")],
    output: Annotated[Path, typer.Argument(help="Folder for the page.")],
    files: Annotated[list[Path], typer.Argument(help="Documents with frames that it was not trained on.")],
    documents: Annotated[int, typer.Option(help="At most so many of each file; 0 for all.")] = 50,
) -> None:
    """Score every combination of capabilities."""
    nlp = spacy.load(pipeline)
    pipe: Any = nlp.get_pipe("uc_uie")
    docs = [doc for path in files for doc in islice(read_docs(path, Vocab()), documents or None)]
    subtasks = {name: list(_lessons(pipe, docs, name)) for name in CAPABILITIES}
    rows: dict[str, dict[str, float]] = {}
    for combination, gates in COMBINATIONS.items():
        pipe.routes = gates
        for name, lessons in subtasks.items():
            rows.setdefault(f"{name} ({len(lessons)})", {})[combination] = _score_subtask(pipe, name, lessons)
        scores = nlp.evaluate([make_example(doc, gold_ents=False) for doc in docs])
        for key, name in SCORES.items():
            if scores[key] is not None:
                rows.setdefault(name, {})[combination] = scores[key]
        typer.echo(f"{combination}: " + ", ".join(f"{name} {100 * row[combination]:.1f}" for name, row in rows.items()))
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps(rows, indent=1), "utf8")
    (output / "README.md").write_text(write_page(rows, documents), "utf8")


def _lessons(pipe: Any, docs: Sequence[Doc], capability: str) -> Iterator[Lesson]:
    """The lessons of one capability on those documents that can teach it, with nothing random but distractors."""
    maker = LessonMaker(pipe.bundle.network.prompter, limit=pipe.text_tokens, settings=LessonSettings.plain())
    for number, doc in enumerate(docs):
        lesson = maker(doc, Schema.of(doc._.uie_schema), random.Random(number), capability=capability)
        if lesson is not None:
            yield lesson


def _score_subtask(pipe: Any, capability: str, lessons: Sequence[Lesson]) -> float:
    """Micro F1 of the answers to lessons."""
    expected, found = set(), set()
    numbered = sorted(enumerate(lessons), key=lambda item: item[1].instruction)
    for instruction, group in groupby(numbered, key=lambda item: item[1].instruction):
        same = list(group)
        bodies = [lesson.body for _, lesson in same]
        routes = None if pipe.routes is None else tuple(pipe.routes)
        options = {"max_new_tokens": pipe.max_new_tokens, "beams": pipe.beams, "batch_tokens": pipe.batch_tokens}
        request = Request(instruction, bodies, routes=routes, **options)
        for (number, lesson), answer in zip(same, pipe.model.predict(request), strict=True):
            expected |= {(number, item) for item in _items(capability, lesson.target, lesson.schema)}
            found |= {(number, item) for item in _items(capability, answer.text, lesson.schema)}
    return count_sets(*({Triple(*item, capability) for item in items} for items in (expected, found))).f1


def _items(capability: str, answer: str, schema: Schema) -> Iterable[Any]:
    """What of an answer is counted: types and their slots (judging), words and types (locating), or whole frames."""
    frames: list[Frame] = read_frames(answer, schema, keep_null_slots=True)[0]
    if capability == "judging":
        return {(frame.type, slot) for frame in frames for slot in (None, *(slot.type for slot in frame.slots))}
    if capability == "locating":
        return {(frame.type, frame.filler) for frame in frames}
    return {(frame.type, frame.filler, frozenset(frame.slots)) for frame in frames}


def write_page(rows: dict[str, dict[str, float]], documents: int) -> str:
    """The scores as Markdown, a column for each combination of capabilities."""
    head = "| | " + " | ".join(COMBINATIONS) + " |\n|---|" + "---|" * len(COMBINATIONS)
    lines = []
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * row[key]:.1f}" for key in COMBINATIONS) + " |")
    return "\n".join(
        [
            "# uc_uie: what each capability is for",
            "",
            "Micro-F1 in percent of one trained model with some of its capability experts (J: judging, L: locating, "
            "A: associating), and with the gates of its router. "
            + (f"At most {documents} documents of each set." if documents else "All documents of each set."),
            "",
            "The subtasks that make up capability warming (Table 5 of the paper), strings; how many lessons:",
            "",
            head,
            *lines[: len(CAPABILITIES)],
            "",
            "The tasks (Table 6), offsets:",
            "",
            head,
            *lines[len(CAPABILITIES) :],
            "",
        ]
    )


if __name__ == "__main__":
    typer.run(main)
