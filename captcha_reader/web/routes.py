"""What the routes answer. Imported with FastAPI, by `api.build_api`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.requests import ClientDisconnect

from captcha_reader.errors import UserError
from captcha_reader.plots.boxes import character_boxes
from captcha_reader.web.batcher import Batcher, Reading
from captcha_reader.web.bodies import Memory, Order, Share, is_true, parse_body, receive_body
from captcha_reader.web.lanes import SMALL_PICTURES, BulkLane
from captcha_reader.web.limits import Limits, Refused, shown
from captcha_reader.web.models import Models

T = TypeVar("T")

STUCK_SECONDS = 20.0  # of waiting, after which /health says that something is wrong


@dataclass
class Routes:
    """The handlers, which `description.describe` gives their addresses."""

    models: Models
    limits: Limits
    batcher: Batcher
    memory: Memory
    bulk: BulkLane = field(default_factory=BulkLane)

    async def predict(self, request: Request) -> Response:
        """Read one captcha or several."""
        started = time.perf_counter()
        share = Share(self.memory)
        try:
            body = await receive_body(request, self.limits, share)
            parsing = parse_body(request.headers, body, self.limits, share, self.bulk)
            order = await _while_connected(request, asyncio.ensure_future(parsing))
            del body
            order.model = request.query_params.get("model") or order.model
            if "details" in request.query_params:
                order.details = is_true(request.query_params["details"])
            name, _ = self.models.path(order.model)
            client = request.client.host if request.client else ""
            pictures = [(picture.said, picture.data) for picture in order.pictures]
            bulk = order.unpacked or len(pictures) > SMALL_PICTURES
            ticket = self.batcher.submit(pictures, name, client, order.constraints, bulk)
            try:
                readings = await _while_connected(request, asyncio.wrap_future(ticket))
            except ClientDisconnect:
                ticket.drop()
                raise
            milliseconds = round((time.perf_counter() - started) * 1000, 2)
            common = {"model": name, "ms": milliseconds}
            if not order.details:
                return JSONResponse(_answer(order, readings, common))
            return JSONResponse(await asyncio.to_thread(_answer, order, readings, common))
        except Refused as error:
            return refusal(error.status, str(error))
        except UserError as error:  # a checkpoint that is damaged
            return refusal(422, str(error))
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            share.give_back()

    async def health(self) -> Response:
        """`status`, how many pictures wait and how many may, for how many seconds the first of them has waited, and how
        many models are in memory. `status` is `stuck`, and the answer 503, where that takes far too long."""
        oldest = self.batcher.oldest
        stuck = oldest > STUCK_SECONDS
        said = {
            "status": "stuck" if stuck else "ok",
            "waiting": self.batcher.waiting,
            "queue": self.limits.queue,
            "oldest_seconds": round(oldest, 1),
            "batches": self.batcher.batches,
            "models_loaded": self.models.loaded,
        }
        return JSONResponse(said, 503 if stuck else 200)

    def list_models(self, request: Request) -> dict[str, Any]:
        """The checkpoints by name; the first is the default. `url` downloads one."""
        prefix = request.scope.get("root_path", "")
        paths = self.models.paths().items()
        return {"models": [_listed(name, path, i == 0, prefix) for i, (name, path) in enumerate(paths)]}

    def download(self, request: Request) -> Response:
        """The checkpoint's file, by its name in the list."""
        name = request.path_params["name"]
        try:
            name, path = self.models.path(name)
        except Refused as error:
            return refusal(404, str(error))
        if not path.is_file():
            return refusal(404, f"the model {shown(name)} is gone")
        return FileResponse(path, filename=name.replace("/", "-"), media_type="application/octet-stream")


async def _while_connected(request: Request, work: asyncio.Future[T]) -> T:
    """The result of some work; where the client hangs up, what is not begun is left undone.

    Raises:
        ClientDisconnect: it has.
        UserError: the work's own.
    """
    gone = asyncio.ensure_future(_hung_up(request))
    either: set[asyncio.Future[Any]] = {work, gone}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if work.done():
        return work.result()
    work.cancel()
    raise ClientDisconnect


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def only(*methods: str) -> Callable[[], Awaitable[Response]]:
    """The handler of an address for all methods but these: the page, which stands beneath, knows no such address."""
    allowed = ", ".join(methods)

    async def refuse() -> Response:
        refused = refusal(405, f"this address takes {allowed}: /docs says how")
        refused.headers["allow"] = allowed
        return refused

    return refuse


def refusal(status: int, reason: str) -> Response:
    headers = {"Retry-After": "1"} if status == 503 else None
    return JSONResponse({"error": reason, "status": status}, status, headers)


def _answer(order: Order, readings: Sequence[Reading | Refused], common: dict[str, Any]) -> dict[str, Any]:
    """What the route says of the readings of one request.

    Raises:
        Refused: the one picture of a request for one cannot be read.
    """
    if not order.many:
        if isinstance(readings[0], Refused):
            raise readings[0].bare()
        return _said(readings[0], order.details) | common
    rows = []
    for picture, reading in zip(order.pictures, readings, strict=True):
        file = {"file": picture.file} if picture.file else {}
        if isinstance(reading, Refused):
            rows.append(file | {"error": str(reading), "status": reading.status})
        else:
            rows.append(file | _said(reading, order.details) | common)
    return {"predictions": rows}


def _said(reading: Reading, details: bool) -> dict[str, Any]:
    """Text, confidence and characters; with details their boxes, where the model tells them, and the most probable
    readings."""
    prediction = reading.prediction
    said = prediction.as_dict()
    if not details:
        return said
    boxes = character_boxes(_Seen(reading), prediction, _Seen(reading))  # type: ignore[arg-type]
    for character, box in zip(said["characters"], boxes or (), strict=False):
        character["box"] = [round(side, 1) for side in box]
    said["alternatives"] = [{"text": text, "confidence": round(p, 6)} for text, p in prediction.alternatives]
    return said


class _Seen:
    """A picture of which only the size and the network's input are kept, for `character_boxes`."""

    def __init__(self, reading: Reading) -> None:
        self.width, self.height = reading.size
        self.reading = reading

    def preprocess_image(self, image: Any) -> Any:
        """The network's input, (C, H, W)."""
        return self.reading.view.pixels

    def attention(self, pixels: Any) -> Any:
        """Of the predictor that read it."""
        return self.reading.predictor.attention(pixels)


def _listed(name: str, path: Path, first: bool, prefix: str) -> dict[str, Any]:
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    return {
        "name": name,
        "format": path.suffix[1:],
        "bytes": size,
        "default": first,
        "url": f"{prefix}/models/{quote(name)}",
    }
