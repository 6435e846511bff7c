"""What a triplet network can find: entity types and relation labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Schema:
    """Names by index, as ``features.Entity.type`` and ``features.Triplet.label`` count them.

    symmetric: the relation labels of which head and tail can be swapped; they are learnt and found with the argument
    that is first in the text as head.
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    symmetric: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, values in (("entities", self.entities), ("relations", self.relations)):
            if len(set(values)) < len(values):
                raise ValueError(f"{name} are {values!r}; expected no name twice.")
        if unknown := set(self.symmetric) - set(self.relations):
            raise ValueError(f"symmetric has {min(unknown)!r}; expected labels among {', '.join(self.relations)}.")

    def is_turned(self, label: int, head: Any, tail: Any) -> bool:
        """Whether head and tail have to change places for a symmetric relation to be as it is learnt and found.

        head, tail: what can be compared as the arguments follow one another in the text, like spans.
        """
        return tail < head and self.relations[label] in self.symmetric
