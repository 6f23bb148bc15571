"""The temporary folder of a server: private, of bounded size, and gone at its end."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from captcha_reader.errors import UserError
from captcha_reader.files import process_runs
from captcha_reader.web.limits import MEGABYTE, Limits, Refused

PREFIX = "captcha-reader-"
KEEP_SECONDS = 3600.0
SWEEP_SECONDS = 30.0
NAME_BYTES = 100


@contextmanager
def private_folder() -> Iterator[Path]:
    """A temporary folder that only this user can open; it is removed at the end, and those of killed processes now.

    Gradio, and whoever else asks for a temporary file in this process, use it from now on.

    Raises:
        UserError: none can be made.
    """
    _clear_leftovers(Path(tempfile.gettempdir()))
    try:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")).resolve()
    except OSError as error:
        raise UserError(f"no temporary folder can be made ({error.strerror or error}): set TMPDIR") from None
    before, told = tempfile.tempdir, os.environ.get("GRADIO_TEMP_DIR")
    tempfile.tempdir, os.environ["GRADIO_TEMP_DIR"] = str(folder), str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        if told is None:
            os.environ.pop("GRADIO_TEMP_DIR", None)
        else:
            os.environ["GRADIO_TEMP_DIR"] = told
        shutil.rmtree(folder, ignore_errors=True)


def _clear_leftovers(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*-*"):
        found = re.fullmatch(rf"{PREFIX}(\d+)-\w+", folder.name)
        with suppress(OSError):
            mine = not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid()
            if found and mine and not folder.is_symlink() and not process_runs(int(found[1])):
                shutil.rmtree(folder, ignore_errors=True)


@dataclass
class _Kept:
    """An upload in the folder: who brought it, its size in bytes, and when."""

    client: str
    size: int
    since: float


class UploadFolder:
    """The uploads in a folder, of bounded size in all and for each client.

    A client that brings more than its part loses its oldest uploads; where all of them fill the folder, no more is
    taken until some are old. What Gradio adds (drawn pictures) counts, and goes with age.

    Args:
        folder: where they go, each into one of its own with a name that cannot be guessed.
        limits: of bytes.
    """

    def __init__(self, folder: str | Path, limits: Limits) -> None:
        self.folder, self.limits = Path(folder), limits
        self._kept: dict[Path, _Kept] = {}  # oldest first
        self._arriving = 0  # bytes of uploads that are being received
        self._others = 0  # bytes of files that others made in the folder, when last looked at
        self._lock = threading.Lock()
        self._swept = 0.0

    @property
    def size(self) -> int:
        """Bytes in the folder, and of uploads that are being received."""
        return sum(kept.size for kept in self._kept.values()) + self._others + self._arriving

    def holds(self, path: str) -> bool:
        """Whether a file lies in this folder, links followed."""
        try:
            return Path(path).resolve().is_relative_to(self.folder.resolve())
        except (OSError, ValueError):
            return False

    def arrive(self, count: int) -> None:
        """Account for bytes that are being received, or with a negative number for such that no longer are.

        Raises:
            Refused: 507, there is no room for them.
        """
        self.sweep()
        with self._lock:
            if count > 0 and self.size + count > self.limits.disk_bytes:
                raise Refused(507, "the server keeps as many uploads as it may: try again in some minutes")
            self._arriving += count

    def keep(self, file: IO[bytes], size: int, name: str, client: str) -> Path:
        """Store an upload.

        Args:
            file: at its beginning.
            size: in bytes.
            name: that it came with; what is no part of a plain name is left out.
            client: address that it came from.

        Raises:
            Refused: 413, it is larger than what one client may keep; 507, there is no room.
        """
        most = min(self.limits.file_bytes, self.limits.client_disk_bytes)
        if size > most:
            raise Refused(413, f"a file has more than {most / MEGABYTE:g} MB: split it")
        path = self.folder / secrets.token_hex(16) / plain_name(name)
        with self._lock:
            mine = [p for p, kept in self._kept.items() if kept.client == client]
            total = sum(self._kept[p].size for p in mine)
            for old in mine:
                if total + size <= self.limits.client_disk_bytes:
                    break
                total -= self._remove(old)
            if self.size + size - self._arriving > self.limits.disk_bytes:
                raise Refused(507, "the server keeps as many uploads as it may: try again in some minutes")
            self._kept[path] = _Kept(client, size, time.monotonic())
        try:
            path.parent.mkdir(parents=True, mode=0o700)
            with path.open("wb") as target:
                shutil.copyfileobj(file, target, 1 << 20)
        except OSError as error:
            with self._lock:
                self._remove(path)
            raise Refused(507, f"the upload cannot be stored ({error.strerror or error})") from None
        return path

    def sweep(self, force: bool = False) -> None:
        """Remove what is old, and count what others made; at most every half minute.

        Args:
            force: now.
        """
        now = time.monotonic()
        with self._lock:
            if not force and now - self._swept < SWEEP_SECONDS:
                return
            self._swept = now
            for path in [p for p, kept in self._kept.items() if now - kept.since > KEEP_SECONDS]:
                self._remove(path)
            others = []
            for path in self.folder.rglob("*"):
                with suppress(OSError):
                    if path not in self._kept and path.is_file() and not path.is_symlink():
                        stat = path.stat()
                        others.append((stat.st_mtime, stat.st_size, path))
            self._others = sum(size for _, size, _ in others)
            # Drawn pictures beyond a quarter of the room go too, the oldest first: the page draws them anew.
            for made, size, path in sorted(others):
                if time.time() - made < KEEP_SECONDS and self._others <= self.limits.disk_bytes // 4:
                    break
                with suppress(OSError):
                    path.unlink()
                    self._others -= size

    def _remove(self, path: Path) -> int:
        kept = self._kept.pop(path, None)  # gone already where the client's next upload took its room
        shutil.rmtree(path.parent, ignore_errors=True)
        return kept.size if kept else 0


def plain_name(name: str) -> str:
    """The last part of a name from outside, without what means something to a file system, and not too long."""
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(c for c in last if c.isprintable() and c not in '<>:"|?*').strip(" .")
    stem, dot, suffix = plain.rpartition(".")
    if not dot or len(suffix.encode()) > 10:
        stem, dot, suffix = plain, "", ""
    stem = stem.encode("utf-8", "replace")[: NAME_BYTES - len(suffix.encode()) - 1].decode("utf-8", "ignore")
    return (stem or "file") + dot + suffix
