"""The file that keeps what a model answered, so that an interrupted run goes on where it stopped.

Lines of JSON: the settings first, then a line for each batch, ``{"requests": [digest, ...], "answers": [[text,
finished], ...]}``, in the order in which they were asked; null is the answer to what could not be asked. What is made
of the answers (labels left out, their spelling) is not in it, so it can be changed without asking again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from ..files import json_line
from .answers import Answer

START = b'{"settings": '

Ask = Callable[[Sequence[str]], Sequence[Answer | None]]
"""Answers to a batch of requests, None for one that cannot be asked."""


class AnswerFile:
    """The answers at ``path``, of a run with ``settings`` (by the names that users give them by)."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = dict(settings)
        self.reused = 0
        """How many answers were found in the file."""

    def answers(self, requests: Iterable[str], ask: Ask, batch_size: int) -> Iterator[Answer | None]:
        """The answer to each request: those in the file, then those of ``ask``, which are added to it.

        Raises ``ValueError`` for a file of other settings or requests or of more, and for one that is no such file.
        """
        requests = iter(requests)
        for digest, answer in self._read():
            request = next(requests, None)
            if request is None:
                raise ValueError(
                    f"{self.path} has more answers than the input now has prompts ({self.reused}); expected the input "
                    "that it was begun with, or that and more, or another OUTPUT."
                )
            if _digest(request) != digest:
                raise ValueError(
                    f"answer {self.reused + 1} in {self.path} is to another prompt than that of the input now; "
                    "expected the input that it was begun with, or another OUTPUT."
                )
            self.reused += 1
            yield answer
        while batch := list(islice(requests, batch_size)):
            answers = list(ask(batch))
            self._append(batch, answers)
            yield from answers

    def _read(self) -> Iterator[tuple[str, Answer | None]]:
        """The digests and answers in the file. A last line that was not written to its end is cut off."""
        if not self.path.exists():
            return
        whole = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if number == 1 and not line.startswith(START[: len(line)]):
                    raise self._malformed(1)
                if not line.endswith(b"\n"):
                    break
                if number == 1:
                    self._check(line)
                else:
                    yield from self._parse(line, number)
                whole += len(line)
        os.truncate(self.path, whole)

    def _check(self, line: bytes) -> None:
        """Raise ``ValueError`` unless the first line has the same settings."""
        try:
            settings = json.loads(line)["settings"]
            before = {name: settings.get(name) for name in self.settings}
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
            raise self._malformed(1) from None
        for name, value in self.settings.items():
            if before[name] != value:
                raise ValueError(
                    f"{name} is {value!r}, but {self.path} was begun with {before[name]!r}; expected the same, or "
                    "another OUTPUT."
                )

    def _parse(self, line: bytes, number: int) -> list[tuple[str, Answer | None]]:
        try:
            record = json.loads(line)
            answers = [None if answer is None else Answer._make(answer) for answer in record["answers"]]
            pairs = list(zip(record["requests"], answers, strict=True))
        except (ValueError, RecursionError, TypeError, KeyError):
            raise self._malformed(number) from None
        for answer in answers:
            if answer is not None and not (isinstance(answer.text, str) and isinstance(answer.finished, bool)):
                raise self._malformed(number)
        return pairs

    def _malformed(self, number: int) -> ValueError:
        return ValueError(f"line {number} of {self.path} is none that synthesize wrote; expected another OUTPUT.")

    def _append(self, batch: Sequence[str], answers: Sequence[Answer | None]) -> None:
        """Add a batch, and the settings before the first: a run that fails at once leaves no file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            if not file.tell():
                file.write(json_line({"settings": self.settings}))
            file.write(json_line({"requests": [_digest(request) for request in batch], "answers": answers}))
            file.flush()
            os.fsync(file.fileno())


def _digest(request: str) -> str:
    return hashlib.sha256(request.encode("utf8")).hexdigest()[:16]
