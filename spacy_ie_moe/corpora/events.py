"""Events by characters: what PHEE and CASIE say of a text before it has words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Argument(NamedTuple):
    """An argument: its role and its characters ``[start, end)``; label: its type as an entity."""

    role: str
    start: int
    end: int
    label: str = ""


class Event(NamedTuple):
    """An event: its type, the characters ``[start, end)`` of its trigger, and its arguments."""

    label: str
    start: int
    end: int
    arguments: list[Argument]


def borders(events: Iterable[Event]) -> set[int]:
    """The characters at which a trigger or an argument begins or ends."""
    found: set[int] = set()
    for event in events:
        found.update((event.start, event.end))
        found.update(edge for argument in event.arguments for edge in (argument.start, argument.end))
    return found
