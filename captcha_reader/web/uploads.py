"""The checks that every upload passes: pictures and zips of them."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from captcha_reader.dataset.lookup import PictureLabels
from captcha_reader.dataset.zips import entry_name
from captcha_reader.errors import UserError
from captcha_reader.images import FORMATS, IMAGE_SUFFIXES, NotAPictureError, TooManyPixelsError, open_image
from captcha_reader.web.limits import MEGABYTE, Limits, Refused, shown

# --------------------------------------------------------------------------------------------------------------------
# Pictures


def check_picture(data: bytes, name: str = "the picture", pixels: int = Limits.pixels) -> Image.Image:
    """The upload as an RGB picture, of bounded size: its header is looked at before a pixel is decoded.

    Raises:
        Refused: 413 too many pixels; 415 no picture; 422 empty, broken or cut short.
    """
    try:
        width, height = _header_size(data)
        if width * height > pixels:
            raise Refused(
                413,
                f"{name} measures {width}x{height}: shrink it, at most {pixels // MEGABYTE} million pixels are read",
            )
        return open_image(data, name)
    except TooManyPixelsError:  # of the command line, which takes more
        most = f"at most {pixels // MEGABYTE} million pixels are read"
        raise Refused(413, f"{name} is too large: shrink it, {most}") from None
    except NotAPictureError as error:
        raise Refused(415, str(error)) from None
    except Refused:
        raise
    except UserError as error:
        raise Refused(422, str(error)) from None


def _header_size(data: bytes) -> tuple[int, int]:
    """(width, height) that the header claims; (0, 0) where there is none, which `open_image` then explains."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return image.size
    except Exception:  # a broken header makes Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error...
        return 0, 0


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
        self.names = [entry_name(e) for e in self._pictures]
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
