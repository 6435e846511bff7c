"""The options ``--labels`` and ``--labels-file`` of the commands, and other files of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..labels import LabelsInput, parse_labels


def read_labels(text: str | None, file: Path | None) -> LabelsInput | None:
    """The labels that ``--labels`` (comma-separated) or ``--labels-file`` (a line each, or JSON) give; None without.

    Raises ``ValueError`` where both are given, for a file that cannot be read, and for what is no label.
    """
    if text is not None and file is not None:
        raise ValueError("--labels and --labels-file both give labels; expected one of them.")
    if file is not None:
        labels, where = _read_file(file, "--labels-file"), f"--labels-file {file}"
    elif text is not None:
        labels, where = split_names(text), "--labels"
    else:
        return None
    if not parse_labels(labels, where=where):
        raise ValueError(f"{where} has no label; expected at least one.")
    return labels


def read_label_names(file: Path, option: str) -> list[str]:
    """The names of the labels in a file: a line each, JSON, or those of the relations in a ``.spacy`` file.

    option: names the file in errors. Raises ``ValueError``.
    """
    if file.suffix == ".spacy":
        names = sorted({relation["label"] for doc in _read_docs(file, option) for relation in doc._.relations})
    else:
        names = [label.name for label in parse_labels(_read_file(file, option), where=f"{option} {file}")]
    if not names:
        raise ValueError(f"{option} {file} has no label; expected at least one.")
    return names


def split_names(text: str) -> list[str]:
    """Comma-separated names."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def _read_file(file: Path, option: str) -> Any:
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
        if file.suffix == ".json" or text[:1] in ("[", "{"):
            return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{option} {file} cannot be read: {reason}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_docs(file: Path, option: str) -> Iterator[Any]:
    from spacy.vocab import Vocab

    from ..corpora.reader import read_docs

    try:
        yield from read_docs(file, Vocab())
    except ValueError as error:
        raise ValueError(f"{option} {file} cannot be read: {error}") from None
