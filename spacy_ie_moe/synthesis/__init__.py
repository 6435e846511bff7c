"""Training data for ``glirel`` with relation labels that a language model makes up (GLiREL sections 3.6 and A.4).

A document with entities is asked about in parts (``pairs``, ``prompt``), the model answers (``asking``), what it
answered is kept (``progress``), read (``answers``, ``labels``) and recorded in documents (``run``, ``records``).
"""
