"""What the headers of a picture file say, before a pixel is decoded: how large it gets, and what it costs.

A few hundred bytes can claim a canvas of gigabytes, thousands of frames or scans, so all of these are looked at first.
The work here grows with the size of the file alone.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

GIF = (b"GIF87a", b"GIF89a")
COMMENT_BYTES = 65_536  # of a GIF; Pillow's time for a comment grows with the square of its length
START_OF_SCAN, PROGRESSIVE = 0xDA, (0xC2, 0xC6, 0xCA, 0xCE)
END_OF_JPEG = b"\xff\xd9"
# Bytes put behind a JPEG that has no end. They change the picture if some of it is missing, and only then.
JUNK = (b"\x00" * 64, b"\x55" * 64, b"\xaa" * 64)
DC_ONLY, LAST_AC = 0, 63  # of the 64 coefficients of a JPEG's block


class OversizedFileError(ValueError):
    """A file asks for more than a picture needs; the message says of what."""


def frame_sizes(data: bytes, most: int) -> list[tuple[int, int]]:
    """The canvas, (width, height), at each of the first frames of a GIF or of a WebP; [] for other files.

    In a GIF, a frame that reaches beyond the canvas makes it grow.

    Args:
        data: the file, from its start.
        most: frames to look at.

    Raises:
        OversizedFileError: a GIF with a comment that is a book, or with far more blocks than its bytes need.
        IndexError, struct.error: it ends too soon.
    """
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        width, height = (int.from_bytes(data[place : place + 3], "little") + 1 for place in (24, 27))
        return [(width, height)]
    if data[:6] not in GIF:
        return []
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = 13 + _palette(flags)
    blocks = len(data) // 100 + 1000
    sizes: list[tuple[int, int]] = []
    while len(sizes) < most and place < len(data) and data[place] != 0x3B:
        kind = data[place]
        if kind == 0x2C:
            left, top, across, down, flags = struct.unpack_from("<HHHHB", data, place + 1)
            width, height = max(width, left + across), max(height, top + down)
            sizes.append((width, height))
            start = place + 11 + _palette(flags)
        elif kind == 0x21:
            start = place + 2
        else:  # Pillow looks for the next block byte by byte
            place += 1
            continue
        is_comment = kind == 0x21 and data[place + 1] == 0xFE
        place = start
        while place < len(data) and data[place]:
            place += data[place] + 1
            blocks -= 1
            if blocks < 0:
                raise OversizedFileError("far more blocks than it needs")
        if is_comment and place - start > COMMENT_BYTES:
            raise OversizedFileError("a comment that is longer than a picture needs")
        place += 1
    return sizes or [(width, height)]


def _palette(flags: int) -> int:
    """Bytes of the palette that these flags of a GIF announce."""
    return 3 << ((flags & 7) + 1) if flags & 128 else 0


def check_cost(image: Image.Image, data: bytes, max_pixels: int) -> None:
    """Refuse what takes far more work or memory to decode than its size says.

    Args:
        image: opened, not decoded.
        data: its file.
        max_pixels: of the largest picture that is read.

    Raises:
        OversizedFileError: a JPEG of very many scans, or a TIFF of huge tiles.
    """
    if image.format in ("JPEG", "MPO"):
        scans = data.count(b"\xff\xda")  # never within a scan, and hardly ever elsewhere
        if scans > max(10, 10 * max_pixels // (image.width * image.height)):
            raise OversizedFileError(f"{scans:,} scans")
    if image.format == "TIFF":
        width, height = (getattr(image, "tag_v2", {}).get(tag, 0) for tag in (322, 323))  # of a tile
        if isinstance(width, int) and isinstance(height, int) and width * height > max_pixels:
            raise OversizedFileError(f"tiles of {width}x{height}")


def without_end(data: bytes) -> Image.Image | None:
    """The picture of a JPEG that lacks its end marker and nothing else; None where more is missing."""
    if data[:2] != b"\xff\xd8":
        return None
    data = data.rstrip(b"\xff")
    try:
        tries = []
        for junk in JUNK:
            with Image.open(io.BytesIO(data + junk + END_OF_JPEG), formats=("JPEG",)) as image:
                image.load()
                tries.append(image.copy())
                tries[-1].format = image.format
        same = all(np.array_equal(np.asarray(tries[0]), np.asarray(other)) for other in tries[1:])
        return tries[0] if same and _has_all_scans(data) else None
    except Exception:  # each broken header has its own way to fail
        return None


def _has_all_scans(data: bytes) -> bool:
    """Whether the scans of a JPEG give every coefficient to its last bit; one that is not progressive has one scan."""
    components: set[int] = set()
    missing: set[tuple[int, int]] = set()
    for marker, body in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in PROGRESSIVE:
                return True
            components = {body[6 + 3 * i] for i in range(body[5])}
            missing = {(c, k) for c in components for k in range(DC_ONLY, LAST_AC + 1)}
        elif marker == START_OF_SCAN:
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            if bits & 15 == 0:  # down to the last bit
                missing -= {(body[1 + 2 * i], k) for i in range(count) for k in range(first, last + 1)}
    return bool(components) and not missing


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The marker and the body of each segment of a JPEG, up to its end."""
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:  # of a scan: on to the next marker
            place = data.find(b"\xff", place)
            if place < 0:
                return
            continue
        marker = data[place + 1]
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            return
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        yield marker, data[place + 4 : place + 2 + length]
        place += 2 + max(length, 2)
