"""An append-only log of events, one JSON object a line: a crash at any moment loses at most the line being written."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.files import lock_file

Event = dict[str, Any]


class Journal:
    """A JSON-lines file that only grows. One process may hold it open at a time.

    Args:
        path: of the file; made when it is missing.

    Raises:
        UserError: another process has it open, it cannot be written, or one of its lines is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise UserError(f"{path} cannot be written ({error.strerror}): choose another folder") from None
        if not lock_file(self._file):
            self._file.close()
            raise UserError(f"{path.parent} is open in another process: close the other page or choose another set")
        self._drop_unfinished_line()

    def _drop_unfinished_line(self) -> None:
        """Cut off what a killed process wrote of its last event: nobody was told that it had been kept."""
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)

    def __iter__(self) -> Iterator[Event]:
        self._file.seek(0)
        for number, line in enumerate(self._file, 1):
            try:
                event = json.loads(line)
                if not isinstance(event, dict):
                    raise ValueError
            except ValueError:
                raise UserError(f"line {number} of {self.path} is damaged: correct or delete it") from None
            yield event

    def append(self, event: Event) -> None:
        """Write one event; when this returns, it is on the disk.

        Raises:
            UserError: it cannot be written, the disk is full for instance.
        """
        line = json.dumps(event, ensure_ascii=False).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):  # half a line, followed by the next event, would be a damaged one
                self._file.truncate(end)
            raise UserError(f"{self.path} cannot be written ({error.strerror}): make room and try again") from None

    def close(self) -> None:
        """Let others open it."""
        self._file.close()
