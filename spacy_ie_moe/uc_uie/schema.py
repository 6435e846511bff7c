"""What to look for: frame types with their slot types, ``{FT: [ST_1, ST_2, ...]}`` (UC-UIE, section 3.2)."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

TASKS = ("NER", "RE", "ED", "EAE", "EE", "ABSA")

RELATION_SLOTS = (("subject", "object"), ("head", "tail"))
"""The slots of a relation's frame, the one of its head first."""

OPINION_SLOTS = ("aspect", "opinion")
"""The slots of the frame of an aspect and its sentiment."""


@dataclass(frozen=True)
class FrameType:
    """A type of frame: its name, its slot types and its task.

    task: one of ``TASKS``; by default what ``infer_task`` says. Names that the format of the answers could not hold
    (see ``check_name``), or one name twice, are a ``ValueError``.
    """

    name: str
    slots: tuple[str, ...] = ()
    task: str = ""

    def __post_init__(self) -> None:
        check_name(self.name, "the name of a frame type")
        if isinstance(self.slots, (str, Mapping)) or not isinstance(self.slots, Iterable):
            raise ValueError(f"slots of frame type {self.name!r} is {self.slots!r}; expected a list of names.")
        object.__setattr__(self, "slots", tuple(self.slots))
        for slot in self.slots:
            check_name(slot, f"a slot of frame type {self.name!r}")
        _check_unique(self.slots, f"slots of frame type {self.name!r}")
        if self.task == "":
            object.__setattr__(self, "task", infer_task(self.slots))
        if self.task not in TASKS:
            raise ValueError(f"task of frame type {self.name!r} is {self.task!r}; expected one of {', '.join(TASKS)}.")


@dataclass(frozen=True)
class Schema:
    """The frame types to look for, in order; immutable and hashable. ``Schema.of`` makes one of anything reasonable."""

    types: tuple[FrameType, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", tuple(self.types))
        if not self.types:
            raise ValueError("the schema is empty; expected at least one frame type.")
        _check_unique(self.names, "frame types of the schema")

    @classmethod
    def of(cls, value: Any) -> Schema:
        """The schema that ``value`` describes.

        value: a ``Schema``; ``{name: [slot, ...]}`` or ``{name: {"slots": [...], "task": "EAE"}}``; a list of names
        (frames without slots: entities), of ``{"name": ..., "slots": [...], "task": ...}``, ``FrameType``s or
        dataclasses (a class is a frame type, its fields are the slots); one dataclass; or the path of a JSON file that
        holds one of these. Raises ``ValueError`` for anything else.
        """
        if isinstance(value, Schema):
            return value
        if isinstance(value, Path) or (isinstance(value, str) and value.endswith(".json")):
            return cls.of(_read_json(Path(value)))
        if isinstance(value, Mapping):
            return cls(tuple(_type_of_item(name, description) for name, description in value.items()))
        if isinstance(value, type):
            return cls((_type_of_entry(value),))
        if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
            return cls(tuple(_type_of_entry(entry) for entry in value))
        raise ValueError(
            f"schema is {value!r}; expected {{frame type: [slot types]}}, a list of names or the path of a JSON file."
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the frame types."""
        return tuple(frame_type.name for frame_type in self.types)

    def slots(self, name: str) -> tuple[str, ...]:
        """The slot types of the frame type ``name``; ``ValueError`` if there is no such type."""
        return self[name].slots

    def to_dict(self) -> dict[str, list[str]]:
        """``{frame type: [slot types]}``: the schema as users write it, without tasks."""
        return {frame_type.name: list(frame_type.slots) for frame_type in self.types}

    def to_config(self) -> dict[str, Any]:
        """Plain data of which ``Schema.of`` makes an equal schema: a task is named where it would not be inferred."""
        config: dict[str, Any] = {}
        for frame_type in self.types:
            slots = list(frame_type.slots)
            inferred = frame_type.task == infer_task(slots)
            config[frame_type.name] = slots if inferred else {"slots": slots, "task": frame_type.task}
        return config

    def only(self, names: Iterable[str]) -> Schema:
        """The schema of just these frame types, in the order of ``names``."""
        return Schema(tuple(self[name] for name in names))

    def by_task(self) -> dict[str, Schema]:
        """The schema of each task; tasks in the order in which they first occur."""
        groups: dict[str, list[FrameType]] = {}
        for frame_type in self.types:
            groups.setdefault(frame_type.task, []).append(frame_type)
        return {task: Schema(tuple(types)) for task, types in groups.items()}

    def for_task(self, task: str) -> Schema:
        """What ``task`` asks for: the types of that task; where there are none, all types, taken as that task's.

        So event types, which are of EE by themselves, can be asked for triggers (ED) or arguments (EAE) alone.
        """
        groups = self.by_task()
        return groups[task] if task in groups else Schema(tuple(replace(kind, task=task) for kind in self.types))

    def __getitem__(self, name: str) -> FrameType:
        """The frame type ``name``; ``ValueError`` that names the others if there is no such type."""
        if name not in self:
            raise ValueError(f"frame type {name!r} is not in the schema; expected one of {', '.join(self.names)}.")
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[FrameType]:
        return iter(self.types)

    def __len__(self) -> int:
        return len(self.types)

    @cached_property
    def heads(self) -> Names:
        """The frame types, to be found in a model's answer."""
        return Names(self.names)

    @cached_property
    def roles(self) -> dict[str, Names]:
        """The slot types of each frame type, to be found in a model's answer."""
        return {frame_type.name: Names(frame_type.slots) for frame_type in self.types}

    @cached_property
    def _by_name(self) -> dict[str, FrameType]:
        return {frame_type.name: frame_type for frame_type in self.types}


class Names:
    """Names to be found at the start of ``name: filler``."""

    def __init__(self, names: Sequence[str]) -> None:
        self.exact = frozenset(names)
        self.folded: dict[str, str | None] = {}
        for name in names:
            folded = name.casefold()
            self.folded[folded] = None if folded in self.folded else name  # None: several differ in nothing but case
        self.longest = max(map(len, self.folded), default=0)

    def find(self, name: str) -> str | None:
        """The name that this is, whatever its case; None if there is none or no telling which."""
        return name if name in self.exact else self.folded.get(name.casefold())

    def split(self, pair: str) -> tuple[str, str] | None:
        """The longest name that ``pair`` starts with, and what follows its colon; None if it starts with none.

        Colons with white space behind them go first, so that ``A: 12:30`` is an A even if ``A: 12`` is a name too.
        """
        spaced: tuple[str, int] | None = None
        tight: tuple[str, int] | None = None
        colon = pair.find(":")
        while colon >= 0:
            start = pair[:colon].rstrip()
            if len(start) > self.longest:
                break
            name = self.find(start)
            if name is not None and pair[colon + 1 : colon + 2].isspace():
                spaced = name, colon
            elif name is not None:
                tight = name, colon
            colon = pair.find(":", colon + 1)
        best = spaced or tight
        return None if best is None else (best[0], pair[best[1] + 1 :])


def infer_task(slots: Sequence[str]) -> str:
    """The task of a frame type with these slot types if nobody names one.

    NER for no slots, RE for just subject and object or head and tail, ABSA for just aspect and opinion, else EE.
    """
    if not slots:
        return "NER"
    if any(set(slots) == set(pair) for pair in RELATION_SLOTS):
        return "RE"
    return "ABSA" if set(slots) == set(OPINION_SLOTS) else "EE"


def check_name(name: Any, what: str) -> None:
    """Raise ``ValueError`` unless ``name`` can be written as a type: text without brackets, backslashes, line breaks
    and blanks around it. what: the name of the field."""
    if not isinstance(name, str):
        raise ValueError(f"{what} is {name!r}; expected a string.")
    if not name or name != name.strip() or _FORBIDDEN.search(name) or len(name.splitlines()) > 1:
        raise ValueError(
            f"{what} is {name!r}; expected text without ( ) {{ }} [ ] \\ and line breaks, and no blanks around it."
        )


_FORBIDDEN = re.compile(r"[(){}\[\]\\]")


def _check_unique(names: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} has {name!r} twice; expected different names.")
        seen.add(name)


def _type_of_item(name: Any, description: Any) -> FrameType:
    if not isinstance(description, Mapping):
        return FrameType(name, description)
    if unknown := set(description) - {"slots", "task"}:
        raise ValueError(f"frame type {name!r} has {min(unknown, key=str)!r}; expected just slots and task.")
    return FrameType(name, description.get("slots", ()), description.get("task", ""))


def _type_of_entry(entry: Any) -> FrameType:
    if isinstance(entry, FrameType):
        return entry
    if isinstance(entry, type) and dataclasses.is_dataclass(entry):
        return FrameType(entry.__name__, tuple(each.name for each in dataclasses.fields(entry)))
    if isinstance(entry, str):
        return FrameType(entry)
    if isinstance(entry, Mapping) and "name" in entry:
        return _type_of_item(entry["name"], {key: value for key, value in entry.items() if key != "name"})
    raise ValueError(
        f"a frame type of the schema is {entry!r}; expected a name, {{'name': ..., 'slots': [...]}}, a FrameType or a "
        f"dataclass."
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf8"), object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"schema {path} is not JSON ({error}); expected {{frame type: [slot types]}}.") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _check_unique((name for name, _ in pairs), "an object of the schema's JSON file")
    return dict(pairs)
