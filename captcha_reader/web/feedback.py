"""Corrected readings: pictures with the right text, kept as a source for make_dataset.py."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from captcha_reader.errors import UserError
from captcha_reader.files import lock_file, write_atomically
from captcha_reader.web.uploads import check_picture

ROWS_PER_SHARD = 200  # a shard is written anew for each row, so it must stay small
LONGEST_TEXT = 32

Row = tuple[bytes, str]  # a picture file and its label


def write_rows(path: Path, rows: Sequence[Row]) -> Path:
    """Labelled pictures as a parquet shard that make_dataset.py takes, atomically."""
    from captcha_reader.dataset.writer import write_shard

    return write_atomically(path, lambda temporary: write_shard(temporary, [(png, None, text) for png, text in rows]))


class Feedback:
    """Pictures with the right text, from people who corrected a reading: parquet shards in one folder.

    Args:
        folder: made when the first row comes; a source for make_dataset.py.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._lock = threading.Lock()
        self._shard: Path | None = None  # the one that this page fills

    def shards(self) -> list[Path]:
        """Its files, oldest first."""
        # A hidden one is what a kill has left of a shard that was being written.
        return sorted(self.folder.glob("[!.]*.parquet")) if self.folder.is_dir() else []

    def count(self) -> int:
        """How many rows there are."""
        import pyarrow.parquet as pq

        total = 0
        for shard in self.shards():
            with contextlib.suppress(Exception):  # a damaged shard is make_dataset.py's to report
                total += pq.read_metadata(shard).num_rows
        return total

    def add(self, picture: bytes, text: str) -> int:
        """Keep a picture and what it says, in place of what was said of it before; gives the number of rows now.

        Raises:
            UserError: the text cannot be a label, or the picture cannot be read.
        """
        text = text.strip()
        if not text:
            raise UserError("there is no text yet: type what the picture says")
        if len(text) > LONGEST_TEXT:
            raise UserError(f"the text has {len(text)} characters: at most {LONGEST_TEXT} make a label")
        if any(c.isspace() or not c.isprintable() for c in text):
            raise UserError("the text has a space or a character that cannot be printed: type the captcha's characters")
        check_picture(picture)
        with self._writing("kept"):
            if not self._replace(picture, text):
                self._append(picture, text)
        return self.count()

    def remove(self, picture: bytes) -> int:
        """Forget what was said of a picture, if anything was; gives the number of rows now.

        Raises:
            UserError: the folder cannot be written to.
        """
        with self._writing("removed"):
            for shard in self.shards():
                rows = _read_rows(shard)
                left = [row for row in rows if row[0] != picture]
                if not left and rows:
                    shard.unlink()
                elif len(left) < len(rows):
                    write_rows(shard, left)
        return self.count()

    @contextlib.contextmanager
    def _writing(self, done: str) -> Iterator[None]:
        """Alone with the folder: another page may write there, so every shard is read anew under its lock."""
        with self._lock:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                with (self.folder / ".lock").open("w") as lock:
                    lock_file(lock, wait=True)
                    yield
            except OSError as error:
                raise UserError(f"the correction cannot be {done} ({error.strerror or error})") from None

    def _replace(self, picture: bytes, text: str) -> bool:
        """Give a picture that is kept already its new text; False where there is none."""
        for shard in self.shards():
            rows = _read_rows(shard)
            if any(kept == picture for kept, _ in rows):
                rows = [(kept, text if kept == picture else old) for kept, old in rows]
                write_rows(shard, rows)
                return True
        return False

    def _append(self, picture: bytes, text: str) -> None:
        rows = _read_rows(self._shard) if self._shard else []
        if self._shard is None or not rows or len(rows) >= ROWS_PER_SHARD:  # none: it was removed, or is damaged
            # The time and the process make the name: no two pages begin the same shard.
            self._shard = self.folder / f"feedback-{datetime.now():%Y%m%d-%H%M%S-%f}-{os.getpid()}.parquet"
            rows = []
        write_rows(self._shard, [*rows, (picture, text)])


def _read_rows(shard: Path) -> list[Row]:
    """The rows of a shard; none where it is damaged, which is make_dataset.py's to report."""
    import pyarrow.parquet as pq

    try:
        columns = pq.read_table(shard, columns=["image", "text"]).to_pydict()
        return [(image["bytes"], text) for image, text in zip(columns["image"], columns["text"], strict=True)]
    except Exception:
        return []
