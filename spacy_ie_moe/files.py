"""Files that are whole or not there, and lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Some readers end a line there, as str.splitlines does.
_LINE_SEPARATORS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write in place of ``path``, all or nothing: an interrupted run leaves an older file as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def json_line(value: Any) -> bytes:
    """``value`` as a line of JSON in UTF-8, with its end."""
    return json.dumps(value, ensure_ascii=False).translate(_LINE_SEPARATORS).encode("utf8") + b"\n"
