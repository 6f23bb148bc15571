"""Corrected readings: pictures with the right text, kept as a source for make_dataset.py.

Each picture is a parquet file of its own, named by the hash of the upload: a correction is one small file written, the
next correction of the same picture takes its place, and nothing else is read or written.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from PIL import Image

from captcha_reader.errors import UserError
from captcha_reader.files import write_atomically
from captcha_reader.labeling.records import clean_text
from captcha_reader.web.limits import MEGABYTE
from captcha_reader.web.uploads import check_picture

KEPT_BYTES = 200_000  # of a picture; a larger one is stored anew, as small as it takes
KEPT_SIDE = 1200  # pixels of a picture that is stored anew
FILE_BYTES = 16_000  # of a file beside its picture, at most: parquet repeats small values in its statistics
QUOTA_BYTES, QUOTA_ROWS = 200 * MEGABYTE, 20_000
OWN_NAME = re.compile(r"[0-9a-f]{32}\.parquet")

Row = tuple[bytes, str]  # a picture file and its label


def write_rows(path: Path, rows: Iterable[Row]) -> Path:
    """Labeled pictures as a parquet shard that make_dataset.py takes, atomically."""
    from captcha_reader.dataset.writer import write_shard

    return write_atomically(path, lambda temporary: write_shard(temporary, ((png, None, text) for png, text in rows)))


class Feedback:
    """Pictures with the right text, from people who corrected a reading.

    Args:
        folder: made when the first row comes; several pages, and processes, may share it.
        quota_bytes: of all its files.
        quota_rows: of all its files.
    """

    def __init__(self, folder: str | Path, quota_bytes: int = QUOTA_BYTES, quota_rows: int = QUOTA_ROWS) -> None:
        self.folder, self.quota_bytes, self.quota_rows = Path(folder), quota_bytes, quota_rows
        self._lock = threading.Lock()

    def shards(self) -> list[Path]:
        """Its files, oldest first."""
        return sorted(stats := self._stats(), key=lambda path: (stats[path].st_mtime_ns, path.name))

    def _stats(self) -> dict[Path, os.stat_result]:
        # A hidden one is what a kill has left of a file that was being written.
        found = self.folder.glob("[!.]*.parquet") if self.folder.is_dir() else ()
        stats = {}
        for path in found:
            with suppress(FileNotFoundError):  # another page has taken it back just now
                stats[path] = path.stat()
        return stats

    def count(self) -> int:
        """How many rows there are; a damaged file counts none, and is make_dataset.py's to report."""
        return sum(1 if OWN_NAME.fullmatch(path.name) else len(list(_read_rows(path))) for path in self.shards())

    def rows(self) -> Iterator[Row]:
        """All rows, oldest first."""
        for path in self.shards():
            yield from _read_rows(path)

    def add(self, picture: bytes, text: str) -> int:
        """Keep a picture and what it says, in place of what was said of it before; gives the number of rows now.

        Raises:
            UserError: the text cannot be a label, the picture cannot be read, or there is no room for more.
        """
        text = clean_text(text)
        small = shrink(picture)
        path = self._path(picture)
        with self._lock:
            try:
                self._check_quota(path, len(small))
                write_rows(path, [(small, text)])
            except OSError as error:
                raise UserError(f"the correction cannot be kept ({error.strerror or error})") from None
        return self.count()

    def remove(self, picture: bytes) -> int:
        """Forget what was said of a picture, if anything was; gives the number of rows now.

        Raises:
            UserError: the folder cannot be written to.
        """
        try:
            self._path(picture).unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"the correction cannot be removed ({error.strerror or error})") from None
        return self.count()

    def _path(self, picture: bytes) -> Path:
        return self.folder / f"{hashlib.sha256(picture).hexdigest()[:32]}.parquet"

    def _check_quota(self, path: Path, size: int) -> None:
        if path.exists():  # it is replaced
            return
        sizes = [stat.st_size for stat in self._stats().values()]
        if sum(sizes) + size + FILE_BYTES > self.quota_bytes or len(sizes) >= self.quota_rows:
            raise UserError(
                f"{len(sizes):,} corrections ({sum(sizes) / MEGABYTE:.0f} MB) are kept already, and there is room for "
                "no more: fine-tune with them, then move them elsewhere"
            )


def shrink(picture: bytes) -> bytes:
    """The picture's file as it is where it is small, else the picture as a file of at most `KEPT_BYTES`.

    Raises:
        UserError: it cannot be read.
    """
    image = check_picture(picture)
    if len(picture) <= KEPT_BYTES:
        return picture
    side = KEPT_SIDE
    while True:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        for settings in ({"format": "PNG"}, {"format": "JPEG", "quality": 90}):
            file = io.BytesIO()
            image.save(file, **settings)
            if file.tell() <= KEPT_BYTES:
                return file.getvalue()
        side //= 2  # 300 x 300 pixels always fit


def _read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file; none where it is damaged or was removed."""
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(path, columns=["image", "text"]).to_pydict()
        rows = [(image["bytes"], text) for image, text in zip(columns["image"], columns["text"], strict=True)]
    except Exception:
        return
    yield from rows
