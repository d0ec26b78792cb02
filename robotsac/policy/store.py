"""A folder of policy bundles with one ``latest``.

Both sides use it: the trainer publishes into the learner's folder, the uplink into the robot's. A reader never sees half
a file: bytes are written beside, synced and renamed, and ``latest.json`` is renamed into place after them.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from pathlib import Path

import msgspec

from robotsac.errors import StorageError, path_command

LATEST = "latest.json"
RUN = "run.txt"


class BundleEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published bundle: file name within the folder, policy version, sha256 of the bytes, size in bytes."""

    file: str
    version: int
    sha256: str
    size: int


class BundleStore:
    """A folder of bundles.

    Args:
        folder: created when the first bundle is published.
        keep: how many published bundles stay on disk.
    """

    def __init__(self, folder: Path, keep: int = 5) -> None:
        self.folder = folder
        self._keep = keep
        self._latest_file = folder / LATEST
        self._seen_mtime_ns = -1
        self._latest: BundleEntry | None = None

    def publish(self, data: bytes, version: int) -> BundleEntry:
        """Write ``data`` as ``version`` and make it the latest.

        Raises:
            StorageError: the disk refused.
        """
        entry = BundleEntry(
            file=f"policy-v{version:08d}.onnx", version=version, sha256=hashlib.sha256(data).hexdigest(), size=len(data)
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_atomically(self.folder / entry.file, data)
            _write_atomically(self._latest_file, msgspec.json.encode(entry))
            for old in sorted(self.folder.glob("policy-v*.onnx"))[: -self._keep]:
                if old.name != entry.file:
                    old.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"policy {version} could not be written to {self.folder}",
                reason=str(error),
                command=path_command(error, self.folder),
            ) from error
        return entry

    def begin_run(self, run_id: str) -> None:
        """The bundles from now on are of ``run_id``. Those of another run are no longer the latest; their files stay until
        newer ones push them out.

        Raises:
            StorageError: the disk refused.
        """
        marker = self.folder / RUN
        try:
            if marker.is_file() and marker.read_text(encoding="utf-8") == run_id:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            self._latest_file.unlink(missing_ok=True)
            _write_atomically(marker, run_id.encode())
        except OSError as error:
            raise StorageError(
                f"{self.folder} cannot be written", reason=str(error), command=path_command(error, self.folder)
            ) from error
        self._latest, self._seen_mtime_ns = None, -1

    def latest(self) -> BundleEntry | None:
        """The newest entry, or ``None``. Cheap to poll: reads the file only when it changed."""
        try:
            mtime_ns = self._latest_file.stat().st_mtime_ns
            if mtime_ns != self._seen_mtime_ns:
                self._latest = msgspec.json.decode(self._latest_file.read_bytes(), type=BundleEntry)
                self._seen_mtime_ns = mtime_ns
        except (OSError, msgspec.DecodeError):
            return self._latest
        return self._latest

    def read(self, entry: BundleEntry) -> bytes:
        """The bytes of ``entry``, checked against its hash.

        Raises:
            StorageError: missing, or not the bytes that were published.
        """
        path = self.folder / entry.file
        try:
            data = path.read_bytes()
        except OSError as error:
            raise StorageError(
                f"policy file {path} cannot be read", reason=str(error), command=path_command(error, path)
            ) from error
        if hashlib.sha256(data).hexdigest() != entry.sha256:
            raise StorageError(
                f"policy file {path} is not the file that was published",
                reason="sha256 differs",
                command=f"sha256sum {shlex.quote(str(path))}",
            )
        return data


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
