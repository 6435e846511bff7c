"""Downloading the data sets that are public files, with the standard library only."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from .location import DOWNLOADS, SOURCES, VARIABLE, Download, download_folder, find_data

TIMEOUT = 60.0
"""Seconds without an answer, or without more of a file, after which a download fails."""


def fetch(name: str, *, say: Callable[[str], object] = lambda _: None) -> Path:
    """The folder of data set ``name``, downloaded into ``download_folder()`` if ``find_data`` does not find it.

    It is there whole or not at all. ``say`` is told in a sentence each what is done. Raises ``ValueError`` for
    a name that is neither on this machine nor in ``DOWNLOADS``, ``FileNotFoundError`` where a file cannot be
    downloaded, and other ``OSError``s of the file system.
    """
    try:
        folder = find_data(name)
    except FileNotFoundError as error:
        if name in SOURCES and name not in DOWNLOADS:
            raise
        if name not in DOWNLOADS:
            raise ValueError(f"data set is {name!r}; expected one of {', '.join(DOWNLOADS)}.") from error
    else:
        say(f"{name} is in {folder}{_without(folder, name)}; nothing is downloaded.")
        return folder
    folder = download_folder() / name
    _download(name, folder, say)
    say(f"{name} is in {folder}.")
    return folder


def _without(folder: Path, name: str) -> str:
    """Which of the published files are not in a folder that was found."""
    absent = [download.file for download in DOWNLOADS.get(name, ()) if not (folder / download.file).is_file()]
    return f" without {', '.join(absent)}" if absent else ""


def _download(name: str, folder: Path, say: Callable[[str], object]) -> None:
    """Make ``folder`` of all files of the data set, which are collected beside it first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{name}.", dir=folder.parent) as temporary:
        made = Path(temporary) / name
        made.mkdir()
        for url, downloads in groupby(DOWNLOADS[name], key=lambda download: download.url):
            say(f"Downloading {url}")
            with _explained(name, url):
                _download_files(url, list(downloads), made)
        os.replace(made, folder)


@contextmanager
def _explained(name: str, url: str) -> Iterator[None]:
    """What goes wrong while downloading, as one sentence that says what to do."""
    try:
        yield
    except (OSError, EOFError, HTTPException, tarfile.TarError) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split()) or type(error).__name__
        code = f"HTTP {error.code}, " if hasattr(error, "code") else ""
        raise FileNotFoundError(
            f"data set {name!r} cannot be downloaded from {url} ({code}{reason}); "
            f"set {VARIABLE} to a folder that holds {name}/ ({SOURCES.get(name, url)})."
        ) from error


def _download_files(url: str, downloads: list[Download], folder: Path) -> None:
    """The files that are to be had at ``url``: that file, or members of that archive."""
    with urlopen(url, timeout=TIMEOUT) as response:
        members = {download.member: download.file for download in downloads if download.member is not None}
        if members:
            _extract(response, members, folder)
        for download in downloads:
            if download.member is None:
                _save(response, folder / download.file)


def _save(response: HTTPResponse, path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(response, file)
    announced = response.headers.get("Content-Length")
    if announced is not None and path.stat().st_size != int(announced):
        raise EOFError(f"it ended after {path.stat().st_size} of {announced} bytes")


def _extract(response: HTTPResponse, members: dict[str, str], folder: Path) -> None:
    """Extract ``members`` (name in the archive to file) from a tar archive as it arrives; the rest is not kept.

    SciERC's is 700 MB, most of it vectors: it is read no further than to the last of them.
    """
    wanted = dict(members)
    with tarfile.open(fileobj=response, mode="r|*") as archive:
        for member in archive:
            file = wanted.pop(member.name.removeprefix("./"), None) if member.isfile() else None
            if file is not None:
                archive.extract(member.replace(name=file, deep=False), folder, filter="data")
            if not wanted:
                return
    raise EOFError(f"the archive has no file {', '.join(wanted)}")
