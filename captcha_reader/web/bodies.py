"""What the body of a request to the route asks for."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from captcha_reader.errors import UserError
from captcha_reader.reading.constraints import Constraints
from captcha_reader.web.lanes import SMALL_BODY, BulkLane
from captcha_reader.web.limits import MEGABYTE, Limits, Refused, shown
from captcha_reader.web.uploads import PictureZip, decode_base64, is_zip

if TYPE_CHECKING:
    import fastapi

CONSTRAINTS = ("characters", "length", "ignore_case", "upper_case")


class Picture(NamedTuple):
    """An upload: what to call it in a message, its bytes or why there are none, and the name it came with."""

    said: str
    data: bytes | Refused
    file: str = ""

    @property
    def is_zip(self) -> bool:
        """Whether it begins as a zip does."""
        return isinstance(self.data, bytes) and is_zip(self.data)


@dataclass
class Order:
    """What a request asks for."""

    pictures: list[Picture] = field(default_factory=list)
    model: str | None = None
    many: bool = False  # answer with a list, even of one
    details: bool = True  # boxes and alternatives too
    constraints: Constraints | None = None  # what is known of the texts
    unpacked: bool = False  # pictures of it were in a zip


class Memory:
    """How many bytes of requests are in memory."""

    def __init__(self, limit: int) -> None:
        self.limit, self.used = limit, 0

    def take(self, count: int) -> None:
        if self.used + count > self.limit:
            raise Refused(503, "too many requests are being received: try again in a second")
        self.used += count


class Share:
    """What one request holds of that, until it gives it back."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.held = memory, 0

    def take(self, count: int) -> None:
        self.memory.take(count)
        self.held += count

    def give_back(self) -> None:
        self.memory.used -= self.held
        self.held = 0


async def receive_body(request: fastapi.Request, limits: Limits, share: Share) -> bytes:
    """The body of a request, as far as it is allowed; it is charged to `share`.

    Raises:
        Refused: 413 too long, 408 too slow, 503 no memory is left for it.
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


async def parse_body(headers: Any, body: bytes, limits: Limits, share: Share, bulk: BulkLane) -> Order:
    """What a body asks for, by its content type; what its zips unpack to is charged to `share`.

    Long bodies are parsed, and zips unpacked, in the bulk lane.

    Raises:
        Refused: 415 another content type; 422 malformed; 413 too many pictures; 503 no memory is left for the zips, or
            too many large requests wait.
    """
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        # A long one in a thread with a loop of its own: a body made for it takes the parser seconds.
        if len(body) < SMALL_BODY:
            order = await _parse_form(headers, body, limits)
        else:
            order = await bulk.run(lambda: asyncio.run(_parse_form(headers, body, limits)))
    elif kind == "application/json":
        in_lane = asyncio.to_thread if len(body) < SMALL_BODY else bulk.run
        order = await in_lane(_parse_json, body, limits)
    else:
        raise Refused(415, "send multipart/form-data with a file, or application/json with a base64 image")
    if not order.pictures:
        raise Refused(422, "there is no picture in the request: send a file named `file`, or JSON with `image`")
    if any(picture.is_zip for picture in order.pictures):
        order.many = order.unpacked = True
        # The count of memory is this thread's alone.
        opened = await bulk.run(_open_zips, order.pictures, limits)
        share.take(sum(part.size for part in opened if isinstance(part, PictureZip)))
        order.pictures = await bulk.run(_unpack, opened)
    if len(order.pictures) > limits.pictures:
        raise Refused(413, f"the request has {len(order.pictures)} pictures: send at most {limits.pictures} at a time")
    return order


async def _parse_form(headers: Any, body: bytes, limits: Limits) -> Order:
    from starlette.datastructures import UploadFile
    from starlette.formparsers import MultiPartException, MultiPartParser

    async def stream() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]
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
    order = Order()
    known: dict[str, Any] = {}
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                order.many |= name in ("files", "images") or bool(order.pictures)
                # The form says in which charset its names are, and some give halves of characters.
                name = (value.filename or "").encode("utf-8", "replace").decode()
                said = f"the file {shown(name)}" if name else f"picture {len(order.pictures) + 1}"
                order.pictures.append(Picture(said, await value.read(), name))
            elif name == "model":
                order.model = value or None
            elif name == "details":
                order.details = is_true(value)
            elif name in CONSTRAINTS:
                known[name] = value
            else:
                hint = (
                    "send it as a file (curl: -F file=@NAME)"
                    if name == "file"
                    else "send `file`, `model`, `details` or a constraint"
                )
                raise Refused(422, f"the form has a field {shown(name)} that is no file: {hint}")
    finally:
        await form.close()
    if known:  # off the loop: a set of a hundred thousand characters takes a tenth of a second
        order.constraints = await asyncio.to_thread(_constraints, known)
    return order


def _constraints(known: Mapping[str, Any]) -> Constraints | None:
    try:
        return Constraints.parse(known) or None
    except UserError as error:
        raise Refused(422, str(error)) from None


def is_true(value: str) -> bool:
    """A switch in a form or a query.

    Raises:
        Refused: 422, it is none.
    """
    if value.lower() not in ("true", "false", "1", "0"):
        raise Refused(422, "`details` must be true or false")
    return value.lower() in ("true", "1")


def check_json(body: bytes, items: int, openings: int, depth: int = 30) -> None:
    """Look at JSON before it is parsed: how many items it has, how many objects and lists, and how deep they lie.

    Signs within strings count too, so that every look is one pass over the bytes.

    Raises:
        Refused: 413, too many; 422, too deep.
    """
    level = 0
    for sign in itertools.islice(re.finditer(rb"[\[\]{}]", body), 2 * openings + 1):
        level += 1 if sign[0] in b"[{" else -1
        if level > depth:
            raise Refused(422, f"the JSON is nested too deeply: at most {depth} levels")
    if body.count(b",") > items or sum(map(body.count, (b"[", b"]", b"{", b"}"))) > 2 * openings:
        raise Refused(413, f"the JSON has too many parts: at most {items:,} items in {openings:,} objects and lists")


def _parse_json(body: bytes, limits: Limits) -> Order:
    check_json(body, items=4 * limits.pictures + 20, openings=20)
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(422, "the body is not JSON") from None
    if not isinstance(asked, dict):
        raise Refused(422, 'the JSON must be an object: {"image": "<base64>"}')
    surplus = sorted(set(asked) - {"image", "images", "model", "details", "constraints", *CONSTRAINTS})
    if surplus:
        raise Refused(
            422, f"the JSON has a field {shown(surplus[0])}: image, images, model, details and constraints are known"
        )
    nested = {} if asked.get("constraints") is None else asked["constraints"]
    if not isinstance(nested, dict):
        raise Refused(422, '`constraints` must be an object: {"characters": "0-9", "length": 6}')
    constraints = _constraints(nested | {name: asked[name] for name in CONSTRAINTS if name in asked})
    model, details = asked.get("model"), asked.get("details", True)
    if model is not None and not isinstance(model, str):
        raise Refused(422, "`model` must be a string")
    model = model or None  # empty is not given, as in a form
    if not isinstance(details, bool):
        raise Refused(422, "`details` must be true or false")
    images = asked.get("images")
    if ("image" in asked) == (images is not None):
        raise Refused(422, "give either `image` or `images`")
    if images is None:
        return Order(
            [Picture("the picture", decode_base64(asked["image"], "`image`"))], model, False, details, constraints
        )
    if not isinstance(images, list):
        raise Refused(422, "`images` must be a list of base64 strings")
    if len(images) > limits.pictures:
        raise Refused(413, f"the request has {len(images)} pictures: send at most {limits.pictures} at a time")
    return Order(
        [_listed(text, f"picture {i}") for i, text in enumerate(images, start=1)], model, True, details, constraints
    )


def _listed(text: Any, name: str) -> Picture:
    """One of several: what is wrong with it is said in its place."""
    try:
        return Picture(name, decode_base64(text, name))
    except Refused as error:
        return Picture(name, error.bare())


def _open_zips(pictures: Sequence[Picture], limits: Limits) -> list[Picture | PictureZip]:
    """The pictures, with zips opened and not yet unpacked: all of them together are neither too many nor too large."""
    opened: list[Picture | PictureZip] = []
    entries = sum(not picture.is_zip for picture in pictures)
    size = 0
    for picture in pictures:
        if not picture.is_zip:
            opened.append(picture)
            continue
        try:
            found = _open_zip(picture, limits)
        except Refused as error:
            if len(pictures) == 1 or error.status == 413:
                raise
            opened.append(picture._replace(data=error.bare()))
            entries += 1
            continue
        entries, size = entries + found.entries, size + found.size
        if entries > limits.pictures:
            raise Refused(413, f"the request has more than {limits.pictures} pictures: send fewer at a time")
        if size > limits.unpacked_bytes:
            most = limits.unpacked_bytes // MEGABYTE
            raise Refused(413, f"the zips of the request hold more than {most} MB: send fewer at a time")
        opened.append(found)
    return opened


def _open_zip(picture: Picture, limits: Limits) -> PictureZip:
    assert not isinstance(picture.data, Refused)
    found = PictureZip(bytes(picture.data), limits.pictures, limits.unpacked_bytes, limits.request_bytes)
    if not len(found):
        raise Refused(422, f"{picture.said} is a zip without a picture: PNG, JPEG, GIF, BMP, WebP and TIFF are read")
    return found


def _unpack(opened: Sequence[Picture | PictureZip]) -> list[Picture]:
    """The pictures, with those of zips in place of the zips; a damaged entry's error stands in its place."""
    pictures: list[Picture] = []
    for part in opened:
        if isinstance(part, PictureZip):
            for name, data in part.with_damaged():
                pictures.append(
                    Picture(f"the entry {shown(name)}", data if isinstance(data, bytes) else data.bare(), name)
                )
        else:
            pictures.append(part)
    return pictures
