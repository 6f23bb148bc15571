"""What one request, one client and all of them together may ask for, and how a request is turned down."""

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
        seconds: in which a request to the route must have arrived, and the longest pause in any upload.
        pictures: in one request.
        pixels: of one picture, each of its frames included; decoding takes up to some 20 bytes for each.
        request_pixels: of all pictures of one request, each of their frames included.
        queue: pictures admitted and not yet read.
        client_queue: of these, pictures from one address.
        batch: pictures of one forward pass.
        reading_seconds: of one forward pass.
        page_bytes: of one upload to the page, all its files together.
        file_bytes: of one file of an upload to the page.
        click_bytes: of what the page sends when a button is pressed; uploads come before, on their own.
        client_events: events of one address that wait in the page's queue.
        disk_bytes: of the temporary folder: uploads and the pictures that were drawn.
        client_disk_bytes: of uploads from one address in it.
        connections: open at a time.
        client_connections: of these, from one address.
        header_seconds: in which the head of a request must have arrived, and after which an idle connection is closed.
    """

    request_bytes: int = 20 * MEGABYTE
    memory_bytes: int = 200 * MEGABYTE
    seconds: float = 30.0
    pictures: int = 100
    pixels: int = 16_000_000
    request_pixels: int = 64_000_000
    queue: int = 256
    client_queue: int = 200
    batch: int = 32
    reading_seconds: float = 30.0
    page_bytes: int = 120 * MEGABYTE
    file_bytes: int = 50 * MEGABYTE
    click_bytes: int = MEGABYTE
    client_events: int = 16
    disk_bytes: int = 1000 * MEGABYTE
    client_disk_bytes: int = 400 * MEGABYTE
    connections: int = 800
    client_connections: int = 400
    header_seconds: float = 10.0

    @property
    def bulk_queue(self) -> int:
        """Of the pictures that wait, those of requests with many or large ones; a single such request may have more."""
        return self.queue * 5 // 8

    @property
    def unpacked_bytes(self) -> int:
        """Of the pictures in all zips of one request, unpacked."""
        return 2 * self.request_bytes


class Refused(UserError):
    """A request that is turned down; `status` is the HTTP status code that says why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    def bare(self) -> Refused:
        """The same without its traceback, whose frames would keep a refused picture in memory."""
        return Refused(self.status, str(self))


def shown(name: str) -> str:
    """A name from outside, quoted, and cut where it is long."""
    return repr(name if len(name) <= 60 else f"{name[:57]}...")
