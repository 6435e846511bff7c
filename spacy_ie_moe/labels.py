"""What a relation label is, and how the forms that users write become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

LabelsInput = Sequence[str] | Mapping[str, Mapping[str, Any] | None]


@dataclass(frozen=True)
class RelationLabel:
    """A relation label.

    allowed_head, allowed_tail: entity types an argument may have; empty means any.
    symmetric: head and tail can be swapped, so a pair is reported once.
    inverse: the label that says the same with head and tail swapped.
    threshold: overrides the component's threshold (a probability).
    description: a sentence on what the label means, for models that read it.
    """

    name: str
    allowed_head: frozenset[str] = field(default_factory=frozenset)
    allowed_tail: frozenset[str] = field(default_factory=frozenset)
    symmetric: bool = False
    inverse: str | None = None
    threshold: float | None = None
    description: str = ""


def parse_labels(labels: LabelsInput, *, where: str = "labels") -> list[RelationLabel]:
    """Relation labels from a list of names or a dict of name to options.

    Duplicates collapse to the first. ``where`` names the source in errors. GLiREL's own wrapping,
    ``{"glirel_labels": ...}``, is unwrapped. Raises ``ValueError`` for anything else.
    """
    if isinstance(labels, Mapping) and set(labels) == {"glirel_labels"}:
        return parse_labels(labels["glirel_labels"], where=where)  # type: ignore[arg-type]
    if isinstance(labels, Mapping):
        parsed = [_parse_label(name, options, where) for name, options in labels.items()]
    elif isinstance(labels, (list, tuple, set, frozenset)):
        names = sorted(labels, key=repr) if isinstance(labels, (set, frozenset)) else labels
        parsed = list(dict.fromkeys(_parse_label(name, {}, where) for name in names))
    else:
        raise ValueError(
            f"{where} is {labels!r}; expected a list of names or a dict of name to options "
            f"({', '.join(sorted(_OPTIONS))})."
        )
    names_known = {label.name for label in parsed}
    for label in parsed:
        if label.inverse is not None and label.inverse not in names_known:
            raise ValueError(
                f"{where}[{label.name!r}]['inverse'] is {label.inverse!r}; expected the name of another given label."
            )
    return parsed


def inverse_names(labels: Iterable[RelationLabel]) -> dict[str, str]:
    """Each label that another names as its inverse, with that other: which of the two stands for both."""
    inverse: dict[str, str] = {}
    for label in labels:
        if label.inverse is not None and label.inverse != label.name and label.name not in inverse:
            inverse.setdefault(label.inverse, label.name)
    return inverse


def plain_labels(labels: Iterable[RelationLabel]) -> dict[str, dict[str, Any]]:
    """Labels as the dict of name to options that ``parse_labels`` reads, in types that JSON can hold."""
    plain = {}
    for label in labels:
        options = {
            "allowed_head": sorted(label.allowed_head),
            "allowed_tail": sorted(label.allowed_tail),
            "symmetric": label.symmetric,
            "inverse": label.inverse,
            "threshold": label.threshold,
            "description": label.description,
        }
        plain[label.name] = {name: value for name, value in options.items() if _is_given(value)}
    return plain


def _is_given(value: Any) -> bool:
    """Whether an option is set; a threshold of 0 is."""
    return bool(value) or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _parse_label(name: Any, options: Mapping[str, Any] | None, where: str) -> RelationLabel:
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{where} has the label {name!r}; expected a non-empty string.")
    if not isinstance(options, Mapping):
        if options is None:
            return RelationLabel(name)
        raise ValueError(f"{where}[{name!r}] is {options!r}; expected a dict of options.")
    for option, value in options.items():
        if option not in _OPTIONS:
            raise ValueError(
                f"{where}[{name!r}] has the option {option!r}; expected one of {', '.join(sorted(_OPTIONS))}."
            )
        expected, valid = _OPTIONS[option]
        if value is not None and not valid(value):
            raise ValueError(f"{where}[{name!r}][{option!r}] is {value!r}; expected {expected}.")
    return RelationLabel(
        name=name,
        allowed_head=frozenset(options.get("allowed_head") or ()),
        allowed_tail=frozenset(options.get("allowed_tail") or ()),
        symmetric=bool(options.get("symmetric")),
        inverse=options.get("inverse"),
        threshold=options.get("threshold"),
        description=options.get("description") or "",
    )


def is_names(value: Any) -> bool:
    """Whether ``value`` is a list, tuple or set of strings."""
    return isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(item, str) for item in value)


def is_probability(value: Any) -> bool:
    """Whether ``value`` is a number from 0 to 1."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def is_whole_number(value: Any, least: int) -> bool:
    """Whether ``value`` is a whole number of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


_OPTIONS = {
    "allowed_head": ("a list of entity types", is_names),
    "allowed_tail": ("a list of entity types", is_names),
    "symmetric": ("true or false", lambda value: isinstance(value, bool)),
    "inverse": ("a label name", lambda value: isinstance(value, str)),
    "threshold": ("a number from 0 to 1", is_probability),
    "description": ("a string", lambda value: isinstance(value, str)),
}
