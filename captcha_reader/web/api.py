"""What programs talk to: the REST route.

    POST /predict   pictures in (multipart, or JSON with base64), readings out
    GET  /health    is it up, how long is the queue
    GET  /models    the checkpoints on offer; GET /models/NAME downloads one
    GET  /docs      the description of all this, from /openapi.json

Pictures of requests that arrive together are read together. All that waits is bounded: pictures in the queue, bytes of
requests in memory, pixels of a picture, entries and bytes of a zip. What goes beyond is refused with a reason.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captcha_reader.errors import UserError
from captcha_reader.web.batcher import Batcher
from captcha_reader.web.bodies import Memory, Share, parse_body, receive_body
from captcha_reader.web.description import ERRORS, EXAMPLE_READING, REQUEST_BODY, docs_page
from captcha_reader.web.guard import BodyLimit
from captcha_reader.web.limits import MEGABYTE, Limits, Refused, shown
from captcha_reader.web.models import Models
from captcha_reader.web.uploads import PictureZip, check_picture, is_zip  # noqa: F401  (their old place)

if TYPE_CHECKING:
    import fastapi


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
    memory = Memory(limits.memory_bytes)
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
        share = Share(memory)
        try:
            order = await parse_body(request.headers, await receive_body(request, limits, share), limits, share)
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
            return refuse(404, f"the model {shown(name)} is gone")
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
