"""What the components share: how a pipe with networks and settings of its own is written and read."""

# No postponed annotations here: spaCy's own are read at run time.

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from spacy import util
from spacy.pipeline.trainable_pipe import TrainablePipe

from .saved_settings import SavedSettings

PipeT = TypeVar("PipeT", bound="SavedPipe")


class SavedPipe(TrainablePipe):
    """A pipe that is saved complete: what can be set at run time in ``cfg``, its networks in ``model``.

    A component has its settings in ``_saved``, says what they are now in ``_settings`` and takes them back in
    ``_restore``, and writes and reads its networks in ``_write_model`` and ``_read_model``.
    """

    _saved: SavedSettings

    def to_disk(self, path: str | Path, *, exclude: Iterable[str] = ()) -> None:
        """Write settings and the complete networks."""
        serialize = {"cfg": lambda p: p.write_text(self._saved.write(self._settings()), "utf8")}
        util.to_disk(path, {**serialize, "model": self._write_model}, exclude)

    def from_disk(self: PipeT, path: str | Path, *, exclude: Iterable[str] = ()) -> PipeT:
        """Read what ``to_disk`` wrote; nothing else is needed."""
        readers = {"cfg": lambda p: self._restore(self._saved.read(p.read_text("utf8")))}
        util.from_disk(path, {**readers, "model": self._read_model}, exclude)
        return self

    def to_bytes(self, *, exclude: Iterable[str] = ()) -> bytes:
        """Settings and the complete networks in one."""
        settings = self._saved.write(self._settings()).encode("utf8")
        return util.to_bytes({"cfg": lambda: settings, "model": self.model.to_bytes}, exclude)

    def from_bytes(self: PipeT, bytes_data: bytes, *, exclude: Iterable[str] = ()) -> PipeT:
        """Read what ``to_bytes`` wrote."""
        readers = {"cfg": lambda b: self._restore(self._saved.read(b.decode("utf8"))), "model": self.model.from_bytes}
        util.from_bytes(bytes_data, readers, exclude)
        return self

    def _settings(self) -> dict[str, Any]:
        """What can be changed after the component is made, as JSON can hold it."""
        raise NotImplementedError

    def _restore(self, settings: dict[str, Any]) -> None:
        for name, value in settings.items():
            setattr(self, name, value)

    def _write_model(self, folder: Path) -> None:
        raise NotImplementedError

    def _read_model(self, folder: Path) -> None:
        raise NotImplementedError
