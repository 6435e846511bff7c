"""Relation extraction for spaCy; results are on ``Doc._.relations``."""

from importlib.util import find_spec

__version__ = "0.1.0"

if find_spec("spacy") is not None:  # the networks also run where there is no spaCy
    from . import relations  # noqa: F401  (registers the Doc extensions)
    from .uc_uie import doc_frames  # noqa: F401  (likewise)
