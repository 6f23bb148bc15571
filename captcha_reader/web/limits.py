"""What a request may ask for, and how it is turned down."""

from __future__ import annotations

from dataclasses import dataclass

from captcha_reader.errors import UserError

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


def shown(name: str) -> str:
    return repr(name if len(name) <= 60 else f"{name[:57]}...")
