"""Uploads to the page, in place of Gradio's own route: a cut-off one leaves nothing, a bad one is refused in JSON."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import fastapi
from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from captcha_reader.web.limits import Limits, Refused
from captcha_reader.web.storage import UploadFolder
from captcha_reader.web.uploads import decode_base64

MOST_FILES = 1000
MOST_SECONDS = 600  # that the page is kept waiting for the end of an upload


def add_upload_route(app: fastapi.FastAPI, folder: UploadFolder, limits: Limits) -> None:
    """Give an app the route that the page uploads to; before Gradio is mounted, whose own it takes the place of."""

    running: dict[str, asyncio.Event] = {}  # by the id that the page has given an upload

    @app.post("/gradio_api/upload", include_in_schema=False)
    async def upload(request: Request, upload_id: str = "") -> Response:
        """Keep the files of a form; gives their paths, as Gradio's own route does."""
        done = running.setdefault(upload_id, asyncio.Event())
        client = request.client.host if request.client else ""
        arrived = 0

        async def body() -> AsyncIterator[bytes]:
            nonlocal arrived
            async for part in request.stream():
                folder.arrive(len(part))
                arrived += len(part)
                yield part

        try:
            # Until its end, an upload is in files without a name: whatever cuts it off, nothing is left.
            form = await _parsed(request, body())
            try:
                files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
                if not files:
                    raise Refused(422, "there is no file in the upload")
                paths = []
                for file in files:
                    size = file.size or 0
                    kept = await asyncio.to_thread(folder.keep, file.file, size, file.filename or "", client)
                    paths.append(str(kept))
                return JSONResponse(paths)
            finally:
                await form.close()
        except ClientDisconnect:
            return Response(status_code=499)
        finally:
            folder.arrive(-arrived)
            done.set()
            running.pop(upload_id, None)

    @app.get("/gradio_api/upload_progress", include_in_schema=False)
    async def upload_progress(upload_id: str = "") -> Response:
        """Tell the page when its upload is done."""

        async def events() -> AsyncIterator[str]:
            for _ in range(30):  # the page may ask before its upload begins
                if upload_id in running:
                    break
                await asyncio.sleep(0.1)
            if (done := running.get(upload_id)) is not None:
                with suppress(TimeoutError):
                    await asyncio.wait_for(done.wait(), MOST_SECONDS)
            yield 'data: {"msg": "done"}\n\n'

        return StreamingResponse(events(), media_type="text/event-stream")


async def _parsed(request: Request, stream: Any) -> Any:
    parser = MultiPartParser(request.headers, stream, max_files=MOST_FILES, max_fields=20)
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise Refused(422, f"the upload cannot be read ({error.message.rstrip('.')})") from None
    except (Refused, ClientDisconnect):
        raise
    except Exception:  # python_multipart's own, KeyError without a boundary, LookupError of a charset, ...
        raise Refused(422, "the upload cannot be read: send multipart/form-data with a boundary") from None


def keep_data_url(folder: UploadFolder, url: str, client: str) -> str:
    """Store a picture that came as a data URL as an upload is; gives its path.

    Raises:
        Refused: it is no base64, or there is no room.
    """
    data = decode_base64(url, "the picture")
    return str(folder.keep(io.BytesIO(data), len(data), "picture", client))
