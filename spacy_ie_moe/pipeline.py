"""The pipeline that comes with the package: a small entity recognizer and zero-shot relation model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .labels import LabelsInput
from .models import MODELS

if TYPE_CHECKING:
    from spacy.language import Language


def bundled_pipeline(
    labels: LabelsInput | None = None,
    threshold: float | None = None,
    top_k: int | None = None,
    ner: str = "ner-mini",
    glirel: str = "glirel-mini",
) -> Language:
    """Load the bundled pipeline: ``ner`` finds the entities of a text, ``glirel`` the relations between them.

    labels: relation labels, a list of names or a dict of name to options; default is to read every document's
        own, ``Doc._.relation_labels``.
    threshold: a probability; relations that score less are left out. Default is the component's.
    top_k: at most so many labels per pair of entities. Default is the component's.
    ner, glirel: names of bundled models.

    Raises ``OSError`` where a model isn't installed, ``ValueError`` for labels or numbers of the wrong form.
    """
    import spacy

    path = MODELS / ner
    if not path.is_dir():
        raise OSError(f"The bundled entity recognizer {ner!r} isn't installed; reinstall spacy_ie_moe.")
    nlp = spacy.load(path)
    add_glirel(nlp, labels=labels, threshold=threshold, top_k=top_k, checkpoint=glirel)
    return nlp


def add_glirel(
    nlp: Language,
    *,
    labels: LabelsInput | None = None,
    threshold: float | None = None,
    top_k: int | None = None,
    checkpoint: str = "glirel-mini",
) -> Any:
    """Add a bundled ``glirel`` at the end of ``nlp``, after whatever finds entities; the component.

    Arguments as of ``bundled_pipeline``.
    """
    given = {"threshold": threshold, "top_k": top_k}
    config = {name: value for name, value in given.items() if value is not None}
    component: Any = nlp.add_pipe("glirel", config={**config, "model": {"checkpoint": checkpoint}})
    if labels is not None:
        component.set_labels(labels)  # not in the config, whose keys cannot hold every name
    return component


def find_glirel(nlp: Language) -> Any | None:
    """The component of ``nlp`` that the factory ``glirel`` made, whatever its name; ``None`` without one."""
    for name, component in nlp.pipeline:
        if nlp.get_pipe_meta(name).factory == "glirel":
            return component
    return None
