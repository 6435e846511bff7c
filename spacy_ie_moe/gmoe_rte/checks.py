"""Checks of settings: errors that name the setting, its value and what was expected."""

from __future__ import annotations

import math
from typing import Any

from ..labels import is_probability, is_whole_number


def check_whole(least: int, *, group: str = "backbone_settings", **settings: Any) -> None:
    """Raise ``ValueError`` for the first that is no whole number of at least ``least``. group: of the settings."""
    for name, value in settings.items():
        if not is_whole_number(value, least):
            raise ValueError(f"{group}.{name} is {value!r}; expected a whole number of at least {least}.")


def check_shares(*, group: str = "backbone_settings", **settings: Any) -> None:
    """Raise ``ValueError`` for the first that is no number from 0 to 1, such as a dropout. group: of the settings."""
    for name, value in settings.items():
        if not is_probability(value):
            raise ValueError(f"{group}.{name} is {value!r}; expected a number from 0 to 1.")


def check_weight(name: str, value: Any, *, zero: bool) -> None:
    """Raise ``ValueError`` unless it is a finite number above 0, or with ``zero`` of at least 0."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or value < 0 or not (value or zero):
        raise ValueError(f"{name} is {value!r}; expected a finite number {'of at least' if zero else 'above'} 0.")
