import functools
import io
import tarfile
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from spacy_ie_moe.cli import app
from spacy_ie_moe.corpora import fetch as fetching
from spacy_ie_moe.corpora.fetch import fetch
from spacy_ie_moe.corpora.location import DOWNLOADS, SOURCES, VARIABLE, Download, find_data, find_file

FILES = {"a.json": b"[1]", "b.json": b'["\xc3\xa9"]'}


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder; ``/short`` breaks off, ``/slow`` does not answer in time."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/slow":
            time.sleep(1)
        if self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"[1")
            return
        super().do_GET()

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.folder = folder
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that went away is expected."""


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "published"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The current folder, on a machine without data sets and without proxies for local addresses."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "data"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder


@pytest.fixture
def publish(server, home, monkeypatch):
    """Has the data set ``toy`` of a list of file names, or of ``Download``s with a path in place of the URL."""

    def call(*files):
        downloads = [file if isinstance(file, Download) else Download(file, file) for file in files]
        urls = [download._replace(url=f"{server.url}/{download.url}") for download in downloads]
        monkeypatch.setitem(DOWNLOADS, "toy", urls)
        monkeypatch.setitem(SOURCES, "toy", "https://example.org/toy")

    return call


def archive(path, members, mode="w:gz"):
    """A tar archive of ``members``: name to content, or to None for a link."""
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, "/etc/hostname"
            else:
                info.size = len(content)
            file.addfile(info, None if content is None else io.BytesIO(content))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_nothing_is_left(home):
    assert not any(path for path in (home / "assets" / "data").iterdir())
    with pytest.raises(FileNotFoundError):
        find_data("toy")


def test_files(publish, server, home):
    publish(*FILES)
    said = []
    folder = fetch("toy", say=said.append)
    assert folder == home / "assets" / "data" / "toy" == find_data("toy")
    assert contents(folder) == FILES
    assert said == [f"Downloading {server.url}/a.json", f"Downloading {server.url}/b.json", f"toy is in {folder}."]
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]
    assert find_file(Path("toy/a.json")) == folder / "a.json"


def test_second_call_downloads_nothing(publish, server):
    publish(*FILES)
    folder = fetch("toy")
    server.requests.clear()
    said = []
    assert fetch("toy", say=said.append) == folder
    assert said == [f"toy is in {folder}; nothing is downloaded."]
    assert server.requests == []


def test_data_set_on_this_machine_comes_first(publish, server, home, tmp_path):
    publish(*FILES)
    folder = tmp_path / "data" / "toy"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text("[]")
    said = []
    assert fetch("toy", say=said.append) == folder
    assert said == [f"toy is in {folder} without b.json; nothing is downloaded."]
    assert server.requests == [] and not (home / "assets").exists()


@pytest.mark.parametrize(("mode", "prefix"), [("w:gz", ""), ("w", ""), ("w:gz", "./")])
def test_archive(publish, server, mode, prefix):
    members = {"elmo/train.bin": b"0" * 5000, "json/train.json": b"1\n", "json/dev.json": b"2\n", "json/x": b""}
    archive(server.folder / "toy.tar.gz", {prefix + name: content for name, content in members.items()}, mode)
    publish(*(Download(f"{part}.json", "toy.tar.gz", f"json/{part}.json") for part in ("dev", "train")), "a.json")
    assert contents(fetch("toy")) == {"train.json": b"1\n", "dev.json": b"2\n", "a.json": b"[1]"}
    assert server.requests == ["/toy.tar.gz", "/a.json"]


@pytest.mark.parametrize("members", [{}, {"json/dev.json": b"2"}, {"json/train.json": None, "json/dev.json": b"2"}])
def test_archive_without_a_member(publish, server, home, members):
    archive(server.folder / "toy.tar.gz", members)
    publish(*(Download(f"{part}.json", "toy.tar.gz", f"json/{part}.json") for part in ("dev", "train")))
    with pytest.raises(FileNotFoundError, match=r"toy\.tar\.gz \(the archive has no file .*json/train\.json\); set"):
        fetch("toy")
    check_nothing_is_left(home)


@pytest.mark.parametrize("keep", [0.5, 0.0])
def test_archive_cut_short_or_none(publish, server, home, keep):
    path = server.folder / "toy.tar"
    archive(path, {"train.json": b"1" * 20_000}, "w")
    path.write_bytes(path.read_bytes()[: int(12_000 * keep)] or b"<html>not found</html>")
    publish("a.json", Download("train.json", "toy.tar", "train.json"))
    with pytest.raises(FileNotFoundError, match=r"data set 'toy' cannot be downloaded from .*toy\.tar \(.+\); set"):
        fetch("toy")
    check_nothing_is_left(home)


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("absent.json", "HTTP 404, File not found"),
        ("short", "it ended after 2 of 1000 bytes"),
        ("slow", "timed out"),
        ("with space", "URL can't contain control characters.*"),
    ],
)
def test_file_that_cannot_be_downloaded(publish, server, home, monkeypatch, file, reason):
    monkeypatch.setattr(fetching, "TIMEOUT", 0.3)
    publish("a.json", file)
    message = (
        rf"^data set 'toy' cannot be downloaded from {server.url}/{file} \({reason}\); "
        rf"set {VARIABLE} to a folder that holds toy/ \(https://example\.org/toy\)\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        fetch("toy")
    check_nothing_is_left(home)


def test_server_down(publish, server, home):
    publish("a.json")
    server.shutdown()
    server.server_close()
    with pytest.raises(FileNotFoundError, match=rf"a\.json \(.*Connection refused\); set {VARIABLE} to a folder"):
        fetch("toy")
    check_nothing_is_left(home)


def test_names_are_checked(publish):
    publish("a.json")
    with pytest.raises(ValueError, match="data set is 'x'; expected one of ade, conll04, scierc, toy"):
        fetch("x")
    with pytest.raises(FileNotFoundError, match=rf"'fewrel' is not in .*set {VARIABLE}.*thunlp/FewRel\)\.$"):
        fetch("fewrel")
    with pytest.raises(FileNotFoundError, match=r"example\.org/toy\), or run spacy-ie-moe fetch toy\.$"):
        find_data("toy")


def test_downloads_are_files_of_known_data_sets():
    assert DOWNLOADS.keys() <= SOURCES.keys()
    for downloads in DOWNLOADS.values():
        files = [download.file for download in downloads]
        assert len(set(files)) == len(files)
        assert all("/" not in file and file.endswith(".json") for file in files)
    assert [len(DOWNLOADS[name]) for name in ("ade", "conll04", "scierc")] == [22, 4, 3]


def test_command(publish, server, home):
    publish("a.json", "absent.json")
    result = CliRunner().invoke(app, ["fetch", "toy", "x"])
    assert result.exit_code == 1
    first, second = result.stderr.splitlines()
    assert first.startswith("Error: data set 'toy' cannot be downloaded") and second.startswith(
        "Error: data set is 'x'"
    )
    publish("a.json")
    result = CliRunner().invoke(app, ["fetch", "toy"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == f"toy is in {home / 'assets' / 'data' / 'toy'}."
    assert "NAME" in CliRunner().invoke(app, ["fetch"]).stderr
