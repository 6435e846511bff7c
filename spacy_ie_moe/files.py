"""Files that are whole or not there, and lines of JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

# Some readers end a line there, as str.splitlines does.
_LINE_SEPARATORS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep others that do so out of ``folder``, made if need be. Raises ``ValueError`` where one is at work."""
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another run writes to {folder} now; expected it to end first, or another folder."
            ) from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(handle)


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


def left_behind(path: Path) -> list[Path]:
    """What killed runs left of files to write in place of ``path``."""
    return list(path.parent.glob(f".{path.name}.*.tmp"))


def json_line(value: Any) -> bytes:
    """``value`` as a line of JSON in UTF-8, with its end."""
    return json.dumps(value, ensure_ascii=False).translate(_LINE_SEPARATORS).encode("utf8") + b"\n"
