"""Small work and bulk: what takes long has a lane of its own, so that small requests do not stand behind it."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from captcha_reader.web.limits import Refused
from captcha_reader.web.uploads import count_pixels

T = TypeVar("T")

SMALL_BYTES = 1 << 18  # of a picture
SMALL_BODY = 1 << 17  # bytes of a form or of JSON
SMALL_PIXELS = 1_000_000  # of all frames of a picture
SMALL_PICTURES = 8  # of a request
BULK_WAITING = 32  # bodies that wait to be parsed or unpacked
NICE = 10  # of the threads of the bulk lane: a tenth of a core where all are busy
WEBP_ANIMATED = 2  # a flag of its extended header


def is_small(data: bytes) -> bool:
    """Whether a picture takes some milliseconds to decode, by its length and its headers."""
    if len(data) > SMALL_BYTES:
        return False
    if data[:4] == b"RIFF" and data[12:16] == b"VP8X" and len(data) >= 30:  # Pillow makes room for the pixels at once
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
        if data[20] & WEBP_ANIMATED or width * height > SMALL_PIXELS:
            return False
    if data.startswith(b"\x89PNG\r\n\x1a\n") and len(data) >= 24:  # the usual case, without Pillow
        width, height = struct.unpack_from(">II", data, 16)
        if width * height > SMALL_PIXELS:
            return False
    try:
        return count_pixels(data)[0] <= SMALL_PIXELS
    except Refused:
        return True  # its refusal takes no longer


def stand_back() -> None:
    """Let the other threads go first, where the system knows a priority for each thread (Linux)."""
    with suppress(AttributeError, OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)


class BulkLane:
    """One thread for bodies that take long to parse or to unpack, one after the other."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, "bulk")
        self.waiting = 0

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in the lane; where the caller is canceled before its turn, it is not called.

        Raises:
            Refused: 503, too many wait.
        """
        if self.waiting >= BULK_WAITING:
            raise Refused(503, "too many large requests are waiting: try again in a second")
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)
        finally:
            self.waiting -= 1
