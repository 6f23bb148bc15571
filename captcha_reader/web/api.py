"""What programs talk to: the REST route.

    POST /predict   pictures in (multipart, or JSON with base64), readings out
    GET  /health    is it up, how long is the queue
    GET  /models    the checkpoints on offer; GET /models/NAME downloads one
    GET  /docs      the description of all this, from /openapi.json

Pictures of requests that arrive together are read together. All that waits is bounded: pictures in the queue, bytes of
requests in memory, pixels of a picture, entries and bytes of a zip. What goes beyond is refused with a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captcha_reader.web.access import Access
from captcha_reader.web.batcher import Batcher
from captcha_reader.web.bodies import Memory
from captcha_reader.web.guard import Answers, Guard
from captcha_reader.web.limits import Limits
from captcha_reader.web.models import Models

if TYPE_CHECKING:
    import fastapi


def build_api(models: Models, limits: Limits | None = None, access: Access | None = None) -> fastapi.FastAPI:
    """The REST route as an app of its own, on which the page can be mounted.

    Args:
        models: what it offers; shared with the page.
        limits: of sizes and of the queue.
        access: who may talk to it; this machine by default.
    """
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.middleware.cors import CORSMiddleware

    from captcha_reader.web.description import describe
    from captcha_reader.web.routes import Routes, refusal

    limits, access = limits or Limits(), access or Access()
    app = FastAPI(
        title="Captcha reader",
        version="1",
        description="Reads text captchas. For study, and for measuring captchas that you own or may test.",
        docs_url=None,  # FastAPI's page takes its scripts from another host
        redoc_url=None,
    )  # its prefix is the guard's to say
    app.state.batcher, app.state.limits, app.state.access = Batcher(models, limits), limits, access
    app.add_middleware(Guard, access=access, limits=limits)
    # Where this is named, Gradio leaves out its own, which allows too much.
    app.add_middleware(
        CORSMiddleware,
        allow_origins=[origin.rstrip("/") for origin in access.allow_origin],
        allow_methods=["GET", "POST"],
        allow_headers=["authorization", "content-type"],
        expose_headers=["retry-after"],
    )
    app.add_middleware(Answers)

    @app.exception_handler(HTTPException)
    async def say(request: Any, error: HTTPException) -> Any:
        return refusal(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def name_field(request: Any, error: RequestValidationError) -> Any:
        """FastAPI's own answer holds what was sent, which JSON may not be able to say again."""
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"][1:]))
        return refusal(422, f"the request cannot be used ({place}: {first['msg']})")

    describe(app, Routes(models, limits, app.state.batcher, Memory(limits.memory_bytes)), limits)
    return app
