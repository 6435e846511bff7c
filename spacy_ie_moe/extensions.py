"""Extensions of ``Doc``: registered once, at import, and never over those of another package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spacy.tokens import Doc

Extensions = Mapping[str, Mapping[str, Any]]
"""What ``Doc.set_extension`` takes, by name: a default, or a getter."""


def register(extensions: Extensions) -> None:
    """Register the extensions; another package's of the same name is left alone until ours is needed.

    spaCy imports the module of every factory for every pipeline, also for those that have none of ours.
    """
    for name, definition in extensions.items():
        if not Doc.has_extension(name):
            Doc.set_extension(name, **definition)


def require(extensions: Extensions) -> None:
    """Register the extensions; raise ``ValueError`` if another package holds the name of one."""
    register(extensions)
    for name, definition in extensions.items():
        default, _, getter, setter = Doc.get_extension(name)
        same = default == definition.get("default") and getter is definition.get("getter") and setter is None
        if not same:
            raise ValueError(
                f"Doc._.{name} is already registered by another package (default {default!r}, getter {getter!r}); "
                f"spacy_ie_moe needs the name: import spacy_ie_moe first or remove the other extension."
            )
