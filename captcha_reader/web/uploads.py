"""The checks that every upload passes: pictures and zips of them."""

from __future__ import annotations

import base64
import binascii
import io
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from PIL import Image

from captcha_reader.dataset.lookup import PictureLabels
from captcha_reader.dataset.zips import entry_name
from captcha_reader.errors import UserError
from captcha_reader.images import FORMATS, IMAGE_SUFFIXES, NotAPictureError, TooManyPixelsError, open_image
from captcha_reader.web.limits import MEGABYTE, Limits, Refused, shown

# --------------------------------------------------------------------------------------------------------------------
# Pictures


MOST_FRAMES = 30  # of an animation are decoded, to find one that is not empty
COMMENT_BYTES = 65_536  # of a GIF; Pillow's time for a comment grows with the square of its length


class Pixels:
    """What is left of the pixels that the pictures of one request may have together."""

    def __init__(self, most: int) -> None:
        self.most = self.left = most

    def take(self, count: int, name: str) -> None:
        """Charge a picture.

        Raises:
            Refused: 413, nothing is left for it.
        """
        if count > self.left:
            raise Refused(
                413,
                f"{name} is left out: the pictures of a request have {self.most // MEGABYTE} million pixels at most",
            )
        self.left -= count


def check_picture(
    data: bytes, name: str = "the picture", pixels: int = Limits.pixels, budget: Pixels | None = None
) -> Image.Image:
    """The upload as an RGB picture, of bounded size: its frames are counted before a pixel is decoded.

    Args:
        data: of the file.
        name: what to call it in a message.
        pixels: of all its frames that may have to be decoded.
        budget: of the request that it belongs to.

    Raises:
        Refused: 413 too many pixels; 415 no picture; 422 empty, broken or cut short.
    """
    try:
        count, frames, size = count_pixels(data)
        if size and not count:
            raise Refused(415, f"{name} has no pixels (it measures {size}): replace or remove it")
        if count > pixels:
            many = f"has {frames} frames of {size}" if frames > 1 else f"measures {size}"
            raise Refused(413, f"{name} {many}: shrink it, at most {pixels // MEGABYTE} million pixels are read")
        if budget is not None:
            budget.take(count, name)
        return open_image(data, name, pixels)
    except TooManyPixelsError:  # of the command line, which takes more
        most = f"at most {pixels // MEGABYTE} million pixels are read"
        raise Refused(413, f"{name} is too large: shrink it, {most}") from None
    except NotAPictureError as error:
        raise Refused(415, str(error)) from None
    except Refused:
        raise
    except UserError as error:
        raise Refused(422, str(error)) from None


def count_pixels(data: bytes) -> tuple[int, int, str]:
    """Pixels of the frames that may have to be decoded, how many frames, and the size of the largest, by the headers.

    Returns:
        (0, 0, "") where there is no picture, which `open_image` then explains.

    Raises:
        Refused: 422, a GIF whose blocks make no sense.
    """
    try:
        if data[:6] in (b"GIF87a", b"GIF89a"):
            sizes = _gif_sizes(data)
        else:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                sizes = _frame_sizes(image)
    except Refused:
        raise
    except Exception:  # a broken header makes Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error...
        return 0, 0, ""
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return sum(w * h for w, h in sizes), len(sizes), f"{width}x{height}"


def _frame_sizes(image: Image.Image) -> list[tuple[int, int]]:
    """Of the first frames of a WebP, PNG or TIFF; none is decoded."""
    frames = min(getattr(image, "n_frames", 1) if image.format in ("WEBP", "PNG") else 1, MOST_FRAMES)
    return [image.size] * max(frames, 1)


def _gif_sizes(data: bytes) -> list[tuple[int, int]]:
    """The canvas at each of the first frames of a GIF: a frame that reaches beyond it makes it grow.

    Raises:
        Refused: 422, it has a comment that is a book, or far more blocks than its bytes need.
        IndexError, struct.error: it ends too soon.
    """
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    place = 13 + (3 << ((flags & 7) + 1) if flags & 128 else 0)
    blocks_left = len(data) // 100 + 1000
    sizes: list[tuple[int, int]] = []
    label = 0
    while len(sizes) < MOST_FRAMES and place < len(data) and data[place] != 0x3B:
        kind = data[place]
        if kind == 0x2C:
            left, top, across, down, flags = struct.unpack_from("<HHHHB", data, place + 1)
            width, height = max(width, left + across), max(height, top + down)
            sizes.append((width, height))
            place += 10 + (3 << ((flags & 7) + 1) if flags & 128 else 0) + 1
        elif kind == 0x21:
            label = data[place + 1]
            place += 2
        else:  # Pillow looks for the next block byte by byte
            place += 1
            continue
        start = place
        while place < len(data) and data[place]:
            place += data[place] + 1
            blocks_left -= 1
            if blocks_left < 0:
                raise Refused(422, "the GIF is made of far more blocks than it needs: save it anew")
        place += 1
        if kind == 0x21 and label == 0xFE and place - start > COMMENT_BYTES:
            raise Refused(422, "the GIF holds a comment that is longer than a picture needs: save it anew")
    return sizes or [(width, height)]


# --------------------------------------------------------------------------------------------------------------------
# Base64


def decode_base64(text: Any, name: str) -> bytes:
    """The bytes of a picture in base64 or base64url, alone or as a data URL, with or without padding and line breaks.

    Raises:
        Refused: 422, it is none.
    """
    if not isinstance(text, str):
        raise Refused(422, f"{name} must be a base64 string")
    text = text.strip()
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head[:200].lower().rstrip().endswith("base64"):
            raise Refused(422, f"{name} is a data URL without base64: send data:image/png;base64,...")
        if "%" in text:
            text = unquote(text)
    text = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, f"{name} is not base64: send the picture's bytes in base64, or as a data URL") from None


def only_known_formats() -> None:
    """Leave Pillow only the formats that are read here, in this process: EPS runs another program, others are rare
    and little tested."""
    Image.init()  # all of them, so that none is added later
    for name in list(Image.OPEN):
        if name not in FORMATS:
            del Image.OPEN[name]
    Image.ID[:] = [name for name in Image.ID if name in Image.OPEN]


# --------------------------------------------------------------------------------------------------------------------
# Zips

END = struct.Struct("<4s4H2LH")  # end of central directory
END_MAGIC, ZIP64_MAGIC, ENTRY_MAGIC = b"PK\x05\x06", b"PK\x06\x07", b"PK\x03\x04"


def is_zip(data: bytes) -> bool:
    """Whether the bytes begin as a zip does, an empty one too."""
    return data[:4] in (ENTRY_MAGIC, END_MAGIC)


class DamagedEntry(Refused):
    """An entry of a zip that cannot be unpacked; those after it may be whole."""

    def __init__(self, name: str) -> None:
        super().__init__(422, f"the entry {shown(name)} of the zip is damaged: pack it again")


class PictureZip:
    """The pictures of a zip, checked before one of them is unpacked, and never written under their own names.

    Iterating gives (name, bytes) of each picture and ends at a damaged one, which `with_damaged` goes on after.
    Folders, hidden files and files of other kinds are passed over.

    Args:
        source: the zip's bytes, or its path.
        pictures: most entries of any kind.
        total_bytes: most bytes of all entries, unpacked.
        entry_bytes: most bytes of one entry, unpacked.

    Attributes:
        names: of the pictures, in the zip's order.
        others: names of what is neither a picture nor hidden.
        entries: how many there are of any kind.
        size: bytes of the pictures, unpacked; more is never read, since zipfile ends an entry where it said it ends.

    Raises:
        Refused: 422 not a zip, damaged, encrypted, or with names that lead elsewhere; 413 too large.
    """

    def __init__(
        self,
        source: bytes | str | Path,
        pictures: int = 2000,
        total_bytes: int = 300 * MEGABYTE,
        entry_bytes: int = 20 * MEGABYTE,
    ) -> None:
        self._left, self._entry_bytes = total_bytes, entry_bytes
        try:
            file = io.BytesIO(source if isinstance(source, bytes) else Path(source).read_bytes())
        except OSError:
            raise Refused(422, "the zip is gone: upload it again") from None
        try:
            _check_directory(file, pictures)
            self._zip = zipfile.ZipFile(file)
            entries = self._zip.infolist()
        except Refused:
            raise
        except Exception:  # zipfile raises BadZipFile, ValueError, struct.error, UnicodeDecodeError, ...
            raise Refused(422, "this is not a zip that can be read: pack it again") from None
        if len(entries) > pictures:
            raise Refused(413, f"the zip has {len(entries):,} entries: at most {pictures:,} are taken, split it")
        for entry in entries:
            _check_entry(entry, entry_bytes)
        if sum(entry.file_size for entry in entries) > total_bytes:
            raise Refused(413, f"the zip holds more than {total_bytes // MEGABYTE} MB: split it")
        files = [e for e in entries if not e.is_dir() and not _hidden(e.filename)]
        self._pictures = [e for e in files if PurePosixPath(e.filename).suffix.lower() in IMAGE_SUFFIXES]
        self._others = {entry_name(e): e for e in files if e not in set(self._pictures)}
        self.names, self.others = [entry_name(e) for e in self._pictures], list(self._others)
        self.entries, self.size = len(entries), sum(e.file_size for e in self._pictures)

    def __len__(self) -> int:
        return len(self._pictures)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        for name, data in self.with_damaged():
            if isinstance(data, DamagedEntry):
                raise data
            yield name, data

    def with_damaged(self) -> Iterator[tuple[str, bytes | DamagedEntry]]:
        """Name and bytes of each picture, with an error in place of the bytes where the entry is damaged.

        Raises:
            Refused: 413, more than allowed is unpacked.
        """
        for entry in self._pictures:
            data: bytes | DamagedEntry
            try:
                data = self._read(entry)
            except DamagedEntry as error:
                data = error
            yield entry_name(entry), data

    def find_labels(self) -> PictureLabels:
        """The label of each picture, by whatever table, text files or names the zip has.

        Raises:
            Refused: 422, a table of labels is damaged.
            UserError: no label can be trusted; see `PictureLabels`.
        """
        return PictureLabels(self.names, list(self._others), lambda name, _: self._read(self._others[name]))

    def _read(self, entry: zipfile.ZipInfo) -> bytes:
        most = min(self._entry_bytes, self._left)
        try:
            with self._zip.open(entry) as file:
                data = file.read(most + 1)  # the size that the directory claims may be a lie
        except Exception:  # BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ...
            raise DamagedEntry(entry.filename) from None
        self._left -= len(data)
        if len(data) > most:
            raise Refused(413, f"the entry {shown(entry.filename)} of the zip is larger than it says, or than allowed")
        return data


def _check_directory(file: Any, pictures: int) -> None:
    """Refuse a huge directory before zipfile makes an object of each entry in it."""
    file.seek(0, io.SEEK_END)
    size = file.tell()
    tail_size = min(size, 65_535 + END.size + 20)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    place = tail.rfind(END_MAGIC)
    if place < 0 or len(tail) - place < END.size:
        raise Refused(422, "this is not a zip that can be read: pack it again")
    *_, entries, directory, _, _ = END.unpack_from(tail, place)
    if tail[max(0, place - 20) :].startswith(ZIP64_MAGIC):
        raise Refused(413, "the zip is of the kind for huge files (zip64): split it")
    # zipfile trusts the directory's length, not the number of entries: neither may be large.
    if entries > pictures or directory > pictures * 1000:
        raise Refused(413, f"the zip has {entries:,} entries: at most {pictures:,} are taken, split it")


def _check_entry(entry: zipfile.ZipInfo, entry_bytes: int) -> None:
    name = entry.filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in entry.orig_filename or not name:
        raise Refused(422, f"the zip has an entry named {shown(name)}, which leads out of it: pack it again")
    if entry.flag_bits & 0x1:
        raise Refused(422, "the zip is encrypted: pack it without a password")
    # zipfile unpacks the other kinds whole, whatever size they say: a kilobyte of bzip2 may be a gigabyte.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(422, f"the entry {shown(name)} is packed in a rare way: pack the zip with the deflate method")
    if (entry.external_attr >> 16) & 0o170000 == 0o120000:
        raise Refused(422, f"the entry {shown(name)} of the zip is a link: pack the file itself")
    if entry.file_size > entry_bytes:
        raise Refused(413, f"the entry {shown(name)} of the zip has more than {entry_bytes // MEGABYTE} MB unpacked")


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
