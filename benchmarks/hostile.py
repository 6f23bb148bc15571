"""What strangers send to a server: files that are larger than they look, bodies made for a parser, clients that stall.

`load.py --hostile` mixes these with good requests; tests/security sends them one by one.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from PIL import Image

Way = Literal["whole", "hang up", "cut off", "hold"]
HOLD_SECONDS = 5.0
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Attack:
    """One connection of somebody who means harm.

    Attributes:
        name: of the kind.
        data: that is sent.
        way: read the answer, close without it, send half and close, or send and wait.
    """

    name: str
    data: bytes
    way: Way = "whole"


def request(path: str, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    """A POST as it goes over the wire; headers with `_` for `-`."""
    given = {"Host": "localhost", "Content-Type": kind, "Content-Length": str(len(body))}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def form(data: bytes, name: str = "file", file: str = "a.png") -> tuple[bytes, str]:
    """A multipart body and its content type."""
    body = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'.encode()
    return body + data + b"\r\n--b--\r\n", "multipart/form-data; boundary=b"


def growing_gif(side: int) -> bytes:
    """First frame 1x1 and blank, the second so wide and so high."""
    first = b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    second = b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02" + (b"\xfe" + b"\x04" * 254) * 500 + b"\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x81, 0, 0) + bytes(range(12)) + first + second + b";"


def book_gif(size: int) -> bytes:
    """A GIF with a comment of so many bytes, in parts of 255."""
    head = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
    return head + b"!\xfe" + (b"\xff" + b"c" * 255) * (size // 256) + b"\0;"


def animation(kind: str, size: tuple[int, int], frames: int) -> bytes:
    """A picture of a few kilobytes with so many frames, each of one shade."""
    buffer = io.BytesIO()
    images = [Image.new("L", size, 8 * i) for i in range(frames)]
    options = {"lossless": True} if kind == "WEBP" else {}  # else it leaves frames out that look alike
    images[0].save(buffer, kind, save_all=True, append_images=images[1:], **options)
    return buffer.getvalue()


def cut_jpeg(side: int) -> bytes:
    """Half of the file of a large picture."""
    buffer = io.BytesIO()
    Image.effect_noise((500, 500), 90).resize((side, side)).convert("RGB").save(buffer, "JPEG", quality=20)
    return buffer.getvalue()[: len(buffer.getvalue()) // 2]


def zipped(entries: dict[str, bytes]) -> bytes:
    """A zip of these."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


def attacks(picture: bytes, seed: int = 0) -> list[Attack]:
    """All kinds, each once or more.

    Args:
        picture: a good one, to be damaged.
        seed: of the damages.
    """
    large = animation("PNG", (3900, 3900), 1)
    page = {"data": [{"path": None, "url": "http://127.0.0.1:9/a.png"}, None]}
    found: list[Attack] = []

    def send(name: str, data: bytes, way: Way = "whole", file: str = "a.png") -> None:
        found.append(Attack(name, request("/predict", *form(data, file=file)), way))

    send("growing gif", growing_gif(13_300))
    send("book gif", book_gif(2_000_000))
    send("webp of frames", animation("WEBP", (3900, 3900), 30))
    send("cut jpeg", cut_jpeg(3900))
    send("zip, hung up", zipped({f"{i}.png": large for i in range(4)}), "hang up", "a.zip")
    send("zip of frames", zipped({f"{i}.gif": growing_gif(13_300) for i in range(20)}), file="a.zip")
    send("zip bomb", zipped({"a.png": b"\0" * 60_000_000}), file="a.zip")
    found += [
        Attack("json blanks", request("/predict", b'{"images":[' + b'"",' * 1_500_000 + b'""]}')),
        Attack("json depth", request("/predict", b"[" * 500_000)),
        Attack("page json", request("/gradio_api/queue/join", b'{"data":[' + b'"",' * 900_000 + b'""]}')),
        Attack("page fetch", request("/gradio_api/call/detect_captcha", json.dumps(page).encode())),
        Attack("upload", request("/gradio_api/upload", *form(os.urandom(3_000_000), "files", "a.zip"))),
        Attack("upload, cut", request("/gradio_api/upload", *form(os.urandom(3_000_000), "files")), "cut off"),
        Attack("other site", request("/predict", *form(picture), Origin="http://evil.example")),
        Attack("other name", request("/predict", *form(picture), Host="evil.example")),
        Attack("odd charset", request("/predict", form(picture)[0], "multipart/form-data; boundary=b; charset=x")),
        Attack("half a head", b"POST /predict HTTP/1.1\r\nHost: lo", "hold"),
        Attack("silence", b"", "hold"),
        Attack("slow body", request("/predict", *form(picture))[:-40], "hold"),
        Attack("no http", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"),
    ]
    for damaged in mutants(seed, 40, [picture, zipped({"a.png": picture})]):
        send("damaged file", damaged)
    return found


def mutants(seed: int, count: int, originals: Sequence[bytes]) -> list[bytes]:
    """Files with bytes flipped, cut out, doubled, overwritten, and swapped in from others."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            if not data:
                break
            i = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 64))  # heads matter
            kind = rng.randrange(6)
            if kind == 0:
                data[i] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[i : i + rng.choice((1, 2, 4))] = rng.choice((b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0"))
            elif kind == 2:
                del data[i : i + rng.randrange(1, 40)]
            elif kind == 3:
                data[i:i] = data[i : i + rng.randrange(1, 200)]
            elif kind == 4:
                del data[i:]
            else:
                other = rng.choice(originals)
                j = rng.randrange(len(other))
                data[i : i + 32] = other[j : j + 32]
        found.append(bytes(data))
    return found


async def carry_out(port: int, attack: Attack) -> str:
    """One attack on a connection of its own; gives the status of the answer, `closed` without one, or `none`."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return "refused"
    try:
        half = attack.data[: len(attack.data) // 2] if attack.way == "cut off" else attack.data
        writer.write(half)
        await asyncio.wait_for(writer.drain(), ANSWER_SECONDS)
        if attack.way in ("hang up", "cut off"):
            return "none"
        head = await asyncio.wait_for(reader.read(400), HOLD_SECONDS if attack.way == "hold" else ANSWER_SECONDS)
        return head[9:12].decode("latin-1") if head.startswith(b"HTTP/1.1 ") else "closed"
    except TimeoutError:
        return "none"
    except OSError:
        return "closed"
    finally:
        writer.close()
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(writer.wait_closed(), 5)
