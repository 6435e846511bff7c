"""Where the data sets are on this machine."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "SPACY_IE_MOE_DATA"


def find_data(name: str, url: str | None = None) -> Path:
    """The folder of data set ``name``.

    That is ``$SPACY_IE_MOE_DATA/name`` where the variable is set, else ``../shared/data/name`` beside the
    repository or the current folder. ``url`` says in the error where the data can be had. Raises
    ``FileNotFoundError``.
    """
    root = os.environ.get(VARIABLE)
    if root:
        candidates = [Path(root) / name]
    else:
        homes = (Path(__file__).resolve().parents[2], Path.cwd())
        candidates = [home.parent / "shared" / "data" / name for home in homes]
    for folder in candidates:
        if folder.is_dir():
            return folder
    source = f" (from {url})" if url else ""
    places = " or ".join(dict.fromkeys(map(str, candidates)))
    raise FileNotFoundError(
        f"data set {name!r} is not in {places}; set {VARIABLE} to the folder that holds {name}/{source}."
    )
