"""What programs talk to: the REST route, the models it offers, and the checks that every upload passes.

    POST /predict   pictures in (multipart, or JSON with base64), readings out
    GET  /health    is it up, how long is the queue
    GET  /models    the checkpoints on offer; GET /models/NAME downloads one
    GET  /docs      the description of all this, from /openapi.json

Pictures of requests that arrive together are read together. All that waits is bounded: pictures in the queue, bytes of
requests in memory, pixels of a picture, entries and bytes of a zip. What goes beyond is refused with a reason.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import html
import io
import json
import struct
import threading
import time
import zipfile
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT, SAVED_MODELS, available_cores, quicker
from captcha_reader.images import FORMATS, IMAGE_SUFFIXES, LABEL_FILES, NotAPictureError, TooManyPixelsError, open_image

if TYPE_CHECKING:
    import fastapi

    from predict import CaptchaPredictor, Prediction, View

KEPT_MODELS = 3  # in memory at a time
PATIENCE = 0.004  # seconds that a batch waits for pictures which are being decoded
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may ask for.

    Attributes:
        request_bytes: of one request to the route.
        memory_bytes: of all requests to the route that are being received or read, and of what their zips unpack to.
        seconds: in which a request must have arrived.
        pictures: in one request.
        pixels: of one picture; decoding takes up to some 20 bytes for each.
        queue: pictures admitted and not yet read.
        batch: pictures of one forward pass.
        page_bytes: of one request to the page, uploads included.
    """

    request_bytes: int = 20 * MEGABYTE
    memory_bytes: int = 200 * MEGABYTE
    seconds: float = 30.0
    pictures: int = 100
    pixels: int = 16_000_000
    queue: int = 256
    batch: int = 32
    page_bytes: int = 120 * MEGABYTE

    @property
    def unpacked_bytes(self) -> int:
        """Of the pictures in all zips of one request, unpacked."""
        return 2 * self.request_bytes


class Refused(UserError):
    """A request that is turned down; `status` is the HTTP status code that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


# --------------------------------------------------------------------------------------------------------------------
# Models


class Models:
    """The checkpoints on offer, each loaded when first used and kept while its file stays the same.

    A name from outside is looked up in the list of what is there; it is never made into a path.

    Args:
        folder: its .safetensors and .onnx files, and the best.safetensors and best.onnx of the runs in it, are offered.
        checkpoint: one more, from anywhere, and the first of the list; by default the folder's `reader`, as .onnx
            where that file is there, since it opens without torch, or else its newest.
        threads: CPU threads of a model; all available cores by default.

    Raises:
        UserError: `checkpoint`, or without one the folder, does not exist, or the folder holds none.
    """

    def __init__(
        self, folder: str | Path = SAVED_MODELS, checkpoint: str | Path | None = None, threads: int | None = None
    ) -> None:
        self.folder, self.threads = Path(folder), threads
        self.first = Path(checkpoint) if checkpoint is not None else quicker(self.folder / DEFAULT_CHECKPOINT.name)
        if checkpoint is None and not self.first.is_file():
            if not self.folder.is_dir():
                raise UserError(f"there is no folder {self.folder}: check --models")
            newest = max(self._inside().values(), key=lambda path: path.stat().st_mtime, default=None)
            if newest is None:
                raise UserError(
                    f"{self.folder} holds no checkpoint: train one with main.py, or name one by --checkpoint"
                )
            self.first = newest
        if not self.first.is_file():
            raise UserError(f"there is no checkpoint {self.first}: check the name")
        self._loaded: OrderedDict[tuple[Path, int, int], CaptchaPredictor] = OrderedDict()
        self._lock = threading.Lock()

    def paths(self) -> dict[str, Path]:
        """Name to path, the first being the default; read from the disk at each call."""
        names = self._inside()
        first = next((name for name, p in names.items() if p.resolve() == self.first.resolve()), None)
        if first is None:
            first = self.first.name
            if first in names or first == "best.safetensors":
                first = f"{self.first.resolve().parent.name}/{first}"
            if first in names:
                first = str(self.first)
        return {first: self.first} | names

    def _inside(self) -> dict[str, Path]:
        """Of the folder alone: name to path."""
        root = self.folder.resolve()
        patterns = ("*.safetensors", "*.onnx", "*/best.safetensors", "*/best.onnx")
        found = sorted(path for pattern in patterns for path in self.folder.glob(pattern))
        # A link that leads out of the folder is not offered; a hidden folder is one that is being made.
        inside = [p for p in found if p.is_file() and p.resolve().is_relative_to(root)]
        names = {p.relative_to(self.folder).as_posix(): p for p in inside}
        return {name: p for name, p in names.items() if not any(part[0] == "." for part in name.split("/"))}

    def path(self, name: str | None = None) -> tuple[str, Path]:
        """The name, that of the first by default, and the path of a model on offer.

        Raises:
            Refused: there is none of that name.
        """
        paths = self.paths()
        name = next(iter(paths)) if name is None else name
        if name not in paths:
            raise Refused(
                422,
                f"there is no model {name[:80]!r} here: choose one from the list (GET /models), or reload the page",
            )
        return name, paths[name]

    def predictor(self, name: str | None = None) -> CaptchaPredictor:
        """The model of that name, the first by default.

        Raises:
            UserError: there is none of that name, or it cannot be used.
        """
        name, path = self.path(name)
        try:
            stamp = path.stat()
        except OSError:
            raise Refused(422, f"the model {name} is gone: choose another, or reload the page") from None
        key = (path.resolve(), stamp.st_mtime_ns, stamp.st_size)
        with self._lock:  # two requests at once load a model once
            if key not in self._loaded:
                from predict import CaptchaPredictor

                self._loaded[key] = CaptchaPredictor(path, threads=self.threads)
                while len(self._loaded) > KEPT_MODELS:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]

    @property
    def loaded(self) -> int:
        """How many models are in memory."""
        return len(self._loaded)


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
        super().__init__(422, f"the entry {_shown(name)} of the zip is damaged: pack it again")


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
        self._labels = [e for e in files if PurePosixPath(e.filename).name.lower() in LABEL_FILES]
        self.names = [e.filename for e in self._pictures]
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
            yield entry.filename, data

    def label_files(self) -> list[tuple[str, bytes]]:
        """Name and bytes of each labels.csv and labels.txt.

        Raises:
            Refused: 422, one is damaged.
        """
        return [(entry.filename, self._read(entry)) for entry in self._labels]

    def _read(self, entry: zipfile.ZipInfo) -> bytes:
        most = min(self._entry_bytes, self._left)
        try:
            with self._zip.open(entry) as file:
                data = file.read(most + 1)  # the size that the directory claims may be a lie
        except Exception:  # BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ...
            raise DamagedEntry(entry.filename) from None
        self._left -= len(data)
        if len(data) > most:
            raise Refused(413, f"the entry {_shown(entry.filename)} of the zip is larger than it says, or than allowed")
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
        raise Refused(422, f"the zip has an entry named {_shown(name)}, which leads out of it: pack it again")
    if entry.flag_bits & 0x1:
        raise Refused(422, "the zip is encrypted: pack it without a password")
    # zipfile unpacks the other kinds whole, whatever size they say: a kilobyte of bzip2 may be a gigabyte.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused(422, f"the entry {_shown(name)} is packed in a rare way: pack the zip with the deflate method")
    if (entry.external_attr >> 16) & 0o170000 == 0o120000:
        raise Refused(422, f"the entry {_shown(name)} of the zip is a link: pack the file itself")
    if entry.file_size > entry_bytes:
        raise Refused(413, f"the entry {_shown(name)} of the zip has more than {entry_bytes // MEGABYTE} MB unpacked")


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.split("/"))


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")


# --------------------------------------------------------------------------------------------------------------------
# Reading together


@dataclass(eq=False)
class _Job:
    """One request on its way: pictures in, a future of their readings."""

    predictor: CaptchaPredictor
    views: list[View]
    future: Future[list[Prediction]]


class Batcher:
    """Reads the pictures of all requests, those that arrive together in one forward pass.

    A request is decoded in a small pool of threads and then waits for the one thread that reads. While that thread is
    busy, what has been decoded gathers and makes up the next batch; a lone request does not wait for others.

    Args:
        models: where predictors come from.
        limits: of queue and batch.
    """

    def __init__(self, models: Models, limits: Limits | None = None) -> None:
        self.models, self.limits = models, limits or Limits()
        self.waiting = 0  # pictures admitted and not answered
        self.batches = 0  # forward passes so far
        self._decoding = 0  # requests in the pool
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._pool = ThreadPoolExecutor(max_workers=max(2, available_cores()), thread_name_prefix="decode")
        self._thread: threading.Thread | None = None

    def submit(self, pictures: Sequence[tuple[str, bytes]], model: str | None = None) -> Future[list[Prediction]]:
        """Queue pictures, each with what to call it in a message; the future gives their readings in order.

        The future raises `UserError`, as a rule `Refused`, where the model or a picture cannot be used.

        Raises:
            Refused: 503, the queue is full.
        """
        with self._changed:
            if self.waiting + len(pictures) > self.limits.queue:
                raise Refused(503, "too many pictures are waiting to be read: try again in a second")
            self.waiting += len(pictures)
            self._decoding += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="read", daemon=True)
                self._thread.start()
        future: Future[list[Prediction]] = Future()
        future.set_running_or_notify_cancel()  # from now on nobody can cancel it under the hands of a thread
        future.add_done_callback(lambda _: self._leave(len(pictures)))
        self._pool.submit(self._decode, pictures, model, future)
        return future

    def _leave(self, count: int) -> None:
        with self._changed:
            self.waiting -= count

    def _decode(self, pictures: Sequence[tuple[str, bytes]], model: str | None, future: Future) -> None:
        job = None
        try:
            predictor = self.models.predictor(model)
            # One after the other: of a request's pictures only one is in memory in full size.
            views = [predictor.view(check_picture(data, name, self.limits.pixels)) for name, data in pictures]
            job = _Job(predictor, views, future)
        except BaseException as error:
            future.set_exception(error)
        finally:
            with self._changed:
                self._decoding -= 1
                if job is not None:
                    self._jobs.append(job)
                self._changed.notify_all()

    def _next(self) -> list[_Job]:
        """The jobs of the next batch, all for the same model, at least one."""
        with self._changed:
            while not self._jobs:
                self._changed.wait()
            end = time.monotonic() + PATIENCE
            while self._decoding and sum(len(j.views) for j in self._jobs) < self.limits.batch:
                left = end - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            taken = [self._jobs.popleft()]
            count = len(taken[0].views)
            while self._jobs and self._jobs[0].predictor is taken[0].predictor:
                if count + len(self._jobs[0].views) > self.limits.batch:
                    break
                count += len(self._jobs[0].views)
                taken.append(self._jobs.popleft())
            return taken

    def _run(self) -> None:
        while True:
            jobs = self._next()
            try:
                readings = jobs[0].predictor.read([view for job in jobs for view in job.views])
            except BaseException as error:
                for job in jobs:
                    job.future.set_exception(error)
                continue
            self.batches += 1
            start = 0
            for job in jobs:
                job.future.set_result(readings[start : start + len(job.views)])
                start += len(job.views)


# --------------------------------------------------------------------------------------------------------------------
# Requests


class Picture(NamedTuple):
    """An upload: what to call it in a message, its bytes, and the name it came with."""

    said: str
    data: bytes
    file: str = ""


@dataclass
class _Order:
    """What a request asks for."""

    pictures: list[Picture] = field(default_factory=list)
    model: str | None = None
    many: bool = False  # answer with a list, even of one


class _Bytes:
    """How many bytes of requests are in memory."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def take(self, count: int) -> None:
        if self.used + count > self.limit:
            raise Refused(503, "too many requests are being received: try again in a second")
        self.used += count


class _Share:
    """What one request holds of that, until it gives it back."""

    def __init__(self, memory: _Bytes) -> None:
        self.memory, self.held = memory, 0

    def take(self, count: int) -> None:
        self.memory.take(count)
        self.held += count

    def give_back(self) -> None:
        self.memory.used -= self.held
        self.held = 0


async def _receive(request: fastapi.Request, limits: Limits, share: _Share) -> bytes:
    """The body of a request, as far as it is allowed; it is charged to `share`.

    Raises:
        Refused: 413 too long, 408 too slow, 422 not of the length it says, 503 no memory is left for it.
    """
    claimed = request.headers.get("content-length", "0")
    if claimed.isdecimal() and int(claimed) > 3 * limits.request_bytes:
        raise _too_long(limits)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                size += len(part)
                # A little too long a body is received to its end: a client that still sends reads no answer.
                if size > 3 * limits.request_bytes:
                    break
                if size > limits.request_bytes:
                    parts.clear()
                    continue
                share.take(len(part))
                parts.append(part)
    except TimeoutError:
        raise Refused(408, f"the request did not arrive within {limits.seconds:.0f} seconds") from None
    if size > limits.request_bytes:
        raise _too_long(limits)
    return b"".join(parts)


def _too_long(limits: Limits) -> Refused:
    return Refused(413, f"the request has more than {limits.request_bytes // MEGABYTE} MB: send fewer or smaller files")


async def _parse(headers: Any, body: bytes, limits: Limits, share: _Share) -> _Order:
    """What a body asks for, by its content type; what its zips unpack to is charged to `share`.

    Raises:
        Refused: 415 another content type; 422 malformed; 413 too many pictures; 503 no memory is left for the zips.
    """
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        order = await _parse_form(headers, body, limits)
    elif kind == "application/json":
        order = _parse_json(body)
    else:
        raise Refused(415, "send multipart/form-data with a file, or application/json with a base64 image")
    if not order.pictures:
        raise Refused(422, "there is no picture in the request: send a file named `file`, or JSON with `image`")
    if any(is_zip(picture.data) for picture in order.pictures):
        order.many = True
        # In threads, so that other requests have their turn; the count of memory is this thread's alone.
        opened = await asyncio.to_thread(_open_zips, order.pictures, limits)
        share.take(sum(part.size for part in opened if isinstance(part, PictureZip)))
        order.pictures = await asyncio.to_thread(_unpack, opened)
    if len(order.pictures) > limits.pictures:
        raise Refused(413, f"the request has {len(order.pictures)} pictures: send at most {limits.pictures} at a time")
    return order


async def _parse_form(headers: Any, body: bytes, limits: Limits) -> _Order:
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]
            await asyncio.sleep(0)  # others have their turn
        yield b""

    parser = MultiPartParser(headers, stream(), max_files=limits.pictures, max_fields=20, max_part_size=65_536)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise Refused(413, f"send at most {limits.pictures} pictures at a time") from None
        raise Refused(422, f"the form cannot be read ({error.message.rstrip('.')})") from None
    except Exception:  # python_multipart's own, KeyError without a boundary, UnicodeDecodeError, ...
        raise Refused(422, "the form cannot be read: send multipart/form-data with a boundary") from None
    order = _Order()
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                order.many |= name in ("files", "images") or bool(order.pictures)
                name = value.filename or ""
                said = f"the file {_shown(name)}" if name else f"picture {len(order.pictures) + 1}"
                order.pictures.append(Picture(said, await value.read(), name))
            elif name == "model":
                order.model = value or None
            else:
                hint = "send it as a file (curl: -F file=@NAME)" if name == "file" else "send `file` or `model`"
                raise Refused(422, f"the form has a field {_shown(name)} that is no file: {hint}")
    finally:
        await form.close()
    return order


def _parse_json(body: bytes) -> _Order:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(422, "the body is not JSON") from None
    if not isinstance(asked, dict):
        raise Refused(422, 'the JSON must be an object: {"image": "<base64>"}')
    surplus = sorted(set(asked) - {"image", "images", "model"})
    if surplus:
        raise Refused(422, f"the JSON has a field {_shown(surplus[0])}: image, images and model are known")
    model = asked.get("model")
    if model is not None and not isinstance(model, str):
        raise Refused(422, "`model` must be a string")
    images = asked.get("images")
    if ("image" in asked) == (images is not None):
        raise Refused(422, "give either `image` or `images`")
    if images is None:
        return _Order([Picture("the picture", _decoded(asked["image"], "`image`"))], model)
    if not isinstance(images, list):
        raise Refused(422, "`images` must be a list of base64 strings")
    return _Order(
        [Picture(f"picture {i}", _decoded(text, f"picture {i}")) for i, text in enumerate(images, start=1)],
        model,
        many=True,
    )


def _decoded(text: Any, name: str) -> bytes:
    if not isinstance(text, str):
        raise Refused(422, f"{name} must be a base64 string")
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # `base64` breaks its lines
    except (binascii.Error, ValueError):
        raise Refused(422, f"{name} is not base64") from None


def _open_zips(pictures: Sequence[Picture], limits: Limits) -> list[Picture | PictureZip]:
    """The pictures, with zips opened and not yet unpacked: all of them together are neither too many nor too large."""
    opened: list[Picture | PictureZip] = []
    entries = sum(not is_zip(picture.data) for picture in pictures)
    size = 0
    for picture in pictures:
        if not is_zip(picture.data):
            opened.append(picture)
            continue
        found = PictureZip(picture.data, limits.pictures, limits.unpacked_bytes, limits.request_bytes)
        if not len(found):
            raise Refused(
                422, f"{picture.said} is a zip without a picture: PNG, JPEG, GIF, BMP, WebP and TIFF are read"
            )
        entries, size = entries + found.entries, size + found.size
        if entries > limits.pictures:
            raise Refused(413, f"the request has more than {limits.pictures} pictures: send fewer at a time")
        if size > limits.unpacked_bytes:
            most = limits.unpacked_bytes // MEGABYTE
            raise Refused(413, f"the zips of the request hold more than {most} MB: send fewer at a time")
        opened.append(found)
    return opened


def _unpack(opened: Sequence[Picture | PictureZip]) -> list[Picture]:
    """The pictures, with those of zips in place of the zips."""
    pictures: list[Picture] = []
    for part in opened:
        if isinstance(part, PictureZip):
            pictures += [Picture(f"the entry {_shown(name)}", data, name) for name, data in part]
        else:
            pictures.append(part)
    return pictures


# --------------------------------------------------------------------------------------------------------------------
# Routes

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ERRORS = {
    413: "Too large: the request, a picture, a zip, or the number of pictures.",
    415: "Not a picture, or a content type that is not understood.",
    422: "Malformed: a broken or empty picture, bad base64 or JSON, a missing file, an unknown model.",
    408: "The request did not arrive in time.",
    503: "The queue is full; `Retry-After` says when to come again.",
}
EXAMPLE_READING = {
    "text": "7kPx2",
    "confidence": 0.9992,
    "characters": [{"char": "7", "confidence": 0.9997}, {"char": "k", "confidence": 0.9999}],
    "model": "reader.onnx",
    "ms": 9.4,
}
REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "A picture, or a zip of pictures. May stand more than once.",
                    },
                    "model": {"type": "string", "description": "A name from /models; the first by default."},
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    "image": {"type": "string", "format": "byte", "description": "A picture in base64."},
                    "images": {
                        "type": "array",
                        "items": {"type": "string", "format": "byte"},
                        "description": "Several pictures in base64, in place of `image`.",
                    },
                    "model": {"type": "string", "description": "A name from /models; the first by default."},
                },
            }
        },
    },
}


def build_api(models: Models, limits: Limits | None = None) -> fastapi.FastAPI:
    """The REST route as an app of its own, on which the page can be mounted.

    Args:
        models: what it offers; shared with the page.
        limits: of sizes and of the queue.
    """
    # FastAPI finds the types of a route's arguments by name in this module, since annotations are strings here.
    global Request, Response
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect

    limits = limits or Limits()
    batcher = Batcher(models, limits)
    memory = _Bytes(limits.memory_bytes)
    app = FastAPI(
        title="Captcha reader",
        version="1",
        description="Reads text captchas. For study, and for measuring captchas that you own or may test.",
        docs_url=None,  # FastAPI's page takes its scripts from another host
        redoc_url=None,
    )
    app.state.batcher = batcher
    app.add_middleware(BodyLimit, most=limits.page_bytes)

    def refuse(status: int, reason: str) -> JSONResponse:
        headers = {"Retry-After": "1"} if status == 503 else None
        return JSONResponse({"error": reason, "status": status}, status, headers)

    @app.exception_handler(HTTPException)
    async def say(request: Request, error: HTTPException) -> JSONResponse:
        return refuse(error.status_code, str(error.detail))

    error_schema = {
        "type": "object",
        "properties": {"error": {"type": "string"}, "status": {"type": "integer"}},
    }
    errors = {
        status: {"description": text, "content": {"application/json": {"schema": error_schema}}}
        for status, text in ERRORS.items()
    }
    answers = {
        200: {
            "description": "The reading. Of several pictures, of a zip, and of `images`, "
            '{"predictions": [...]} with one reading for each, in order.',
            "content": {"application/json": {"example": EXAMPLE_READING}},
        },
        **errors,
    }

    said = (
        "Read one captcha or several. A request is read whole or not at all: a picture that cannot be read refuses it, "
        f"and the reason names the picture. At most {limits.pictures} pictures and "
        f"{limits.request_bytes // MEGABYTE} MB a request, {limits.unpacked_bytes // MEGABYTE} MB in unpacked zips, "
        f"{limits.pixels // MEGABYTE} million pixels a picture. "
        "Pictures of requests that arrive together are read together."
    )
    route = {"summary": "Read pictures", "description": said, "responses": answers}

    @app.post("/predict", openapi_extra={"requestBody": REQUEST_BODY}, **route)  # type: ignore[arg-type]
    async def predict(request: Request) -> Response:
        started = time.perf_counter()
        share = _Share(memory)
        try:
            order = await _parse(request.headers, await _receive(request, limits, share), limits, share)
            order.model = request.query_params.get("model", order.model)
            name, _ = models.path(order.model)
            future = batcher.submit([(picture.said, picture.data) for picture in order.pictures], name)
            predictions = await asyncio.wrap_future(future)
            milliseconds = round((time.perf_counter() - started) * 1000, 2)
            readings = [p.as_dict() | {"model": name, "ms": milliseconds} for p in predictions]
            if not order.many:
                return JSONResponse(readings[0])
            files = [{"file": picture.file} if picture.file else {} for picture in order.pictures]
            return JSONResponse({"predictions": [a | b for a, b in zip(files, readings, strict=True)]})
        except Refused as error:
            return refuse(error.status, str(error))
        except UserError as error:  # a checkpoint that is damaged
            return refuse(422, str(error))
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            share.give_back()

    @app.get("/predict", include_in_schema=False)
    async def only_post() -> JSONResponse:
        return refuse(405, "send pictures by POST: /docs says how")

    @app.head("/health", include_in_schema=False)
    async def alive() -> Response:
        return Response()

    @app.get("/health", summary="Whether it is up")
    async def health() -> dict[str, Any]:
        """`status`, how many pictures wait and how many may, and how many models are in memory."""
        return {
            "status": "ok",
            "waiting": batcher.waiting,
            "queue": limits.queue,
            "batches": batcher.batches,
            "models_loaded": models.loaded,
        }

    @app.get("/models", summary="The models on offer")
    def list_models() -> dict[str, Any]:
        """The checkpoints by name; the first is the default. `url` downloads one."""
        return {"models": [_listed(name, path, i == 0) for i, (name, path) in enumerate(models.paths().items())]}

    @app.get("/models/{name:path}", summary="Download a model", responses={404: {"description": "No such model."}})
    def download(name: str) -> Response:
        """The checkpoint's file, by its name in the list."""
        try:
            name, path = models.path(name)
        except Refused as error:
            return refuse(404, str(error))
        if not path.is_file():
            return refuse(404, f"the model {_shown(name)} is gone")
        return FileResponse(path, filename=name.replace("/", "-"), media_type="application/octet-stream")

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi(), str(request.base_url).rstrip("/")))

    return app


def _listed(name: str, path: Path, first: bool) -> dict[str, Any]:
    from urllib.parse import quote

    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return {
        "name": name,
        "format": path.suffix[1:],
        "bytes": size,
        "default": first,
        "url": f"/models/{quote(name)}",
    }


class BodyLimit:
    """ASGI middleware: no request, of whatever route, is longer than `most` bytes."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 413."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size, begun = 0, False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.most:
                raise _TooLong
            return message

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if claimed.isdigit() and int(claimed) > self.most:
                raise _TooLong
            await self.app(scope, counted, watched)
        except _TooLong:
            if begun:
                return
            reason = json.dumps({"error": f"the request has more than {self.most // MEGABYTE} MB", "status": 413})
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": reason.encode()})


class _TooLong(Exception):
    pass


# --------------------------------------------------------------------------------------------------------------------
# /docs

DOCS_STYLE = """
:root { color-scheme: light dark; --ink: #17262b; --muted: #5b6b72; --paper: #f5f7f6; --card: #fff; --line: #dde4e4;
  --accent: #0b6e69; --code: #eef3f2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eeee; --muted: #9db0b3; --paper: #0e1517; --card: #162024;
  --line: #29383c; --accent: #4fd1c5; --code: #101a1d; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Liberation Sans", sans-serif; }
main { max-width: 52rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { margin: 0 0 .25rem; font-size: 1.9rem; } p { margin: .5rem 0; } .muted { color: var(--muted); }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 1rem 1.25rem;
  margin: 1rem 0; }
h2 { margin: 0; font-size: 1.1rem; font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
h2 b { color: var(--accent); margin-right: .5rem; } h3 { font-size: .95rem; margin: 1rem 0 .25rem; }
pre { background: var(--code); border-radius: 8px; padding: .75rem 1rem; overflow-x: auto; font-size: .86rem; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
td, th { text-align: left; padding: .35rem .75rem .35rem 0; border-top: 1px solid var(--line); vertical-align: top; }
a { color: var(--accent); } code { font-size: .92em; }
"""

DOCS_EXAMPLES = """curl -F file=@examples/7kPx2.png {address}/predict
curl -F file=@a.png -F file=@b.png -F model=reader.onnx {address}/predict
curl -H 'Content-Type: application/json' -d "{{\\"image\\": \\"$(base64 -w0 examples/7kPx2.png)\\"}}" {address}/predict

# Python, with gradio_client
from gradio_client import Client, handle_file
Client("{address}").predict(handle_file("examples/7kPx2.png"), None, api_name="/detect_captcha")"""


def docs_page(schema: dict[str, Any], address: str) -> str:
    """The OpenAPI description as one HTML page that asks for nothing else."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, what in methods.items():
            rows = "".join(
                f"<tr><td><code>{html.escape(str(code))}</code></td><td>{html.escape(answer['description'])}</td></tr>"
                for code, answer in what["responses"].items()
            )
            parts.append(
                f"<section><h2><b>{method.upper()}</b>{html.escape(path)}</h2>"
                f"<p>{html.escape(what.get('summary', ''))}. {html.escape(what.get('description', ''))}</p>"
                f"{_docs_body(what.get('requestBody'))}<h3>Answers</h3><table>{rows}</table>{_docs_example(what)}</section>"
            )
    info = schema["info"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{html.escape(info['title'])}: for programs</title><style>{DOCS_STYLE}</style></head><body><main>"
        f"<h1>{html.escape(info['title'])}, for programs</h1><p class=muted>{html.escape(info['description'])}</p>"
        '<p><a href="openapi.json">openapi.json</a> says the same for tools; <a href="./">the page</a> is for people.'
        "</p>"
        f"<section><h2>In short</h2><pre>{html.escape(DOCS_EXAMPLES.format(address=address))}</pre></section>"
        f"{''.join(parts)}<p class=muted>What these refuse, they refuse in JSON: "
        "<code>{&quot;error&quot;: reason, &quot;status&quot;: number}</code>.</p></main></body></html>"
    )


def _docs_body(body: dict[str, Any] | None) -> str:
    if not body:
        return ""
    said = []
    for kind, content in body["content"].items():
        rows = "".join(
            f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(what.get('description', ''))}</td></tr>"
            for name, what in content["schema"]["properties"].items()
        )
        said.append(f"<h3>{html.escape(kind)}</h3><table>{rows}</table>")
    return "".join(said)


def _docs_example(what: dict[str, Any]) -> str:
    content = what["responses"].get("200", {}).get("content", {}).get("application/json", {})
    if "example" not in content:
        return ""
    return f"<h3>Example</h3><pre>{html.escape(json.dumps(content['example'], indent=1))}</pre>"
