"""The options ``--labels`` and ``--labels-file`` of the commands."""

from __future__ import annotations

import json
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
        labels, where = _read_file(file), f"--labels-file {file}"
    elif text is not None:
        labels, where = split_names(text), "--labels"
    else:
        return None
    if not parse_labels(labels, where=where):
        raise ValueError(f"{where} has no label; expected at least one.")
    return labels


def split_names(text: str) -> list[str]:
    """Comma-separated names."""
    return [name for name in (part.strip() for part in text.split(",")) if name]


def _read_file(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8-sig").strip()
        if file.suffix == ".json" or text[:1] in ("[", "{"):
            return json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--labels-file {file} cannot be read: {reason}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]
