"""What the page sends to Gradio's routes: small calls whose files are uploads of this server, and not too many, none of
which goes without an answer."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from captcha_reader.web.access import Access
from captcha_reader.web.bodies import check_json
from captcha_reader.web.guard import App, Message, Receive, Scope, Send, read_body
from captcha_reader.web.limits import Limits, Refused
from captcha_reader.web.storage import UploadFolder

if TYPE_CHECKING:
    import fastapi
    import gradio

log = logging.getLogger("captcha_reader")

END_SECONDS = 0.3  # in which a browser has read that its stream of answers has ended
SESSIONS = 1000  # whose ends are remembered


def protect_page(app: fastapi.FastAPI, demo: gradio.Blocks, folder: UploadFolder) -> None:
    """Prepare an app of `api.build_api` for Gradio's page, before that is mounted on it."""
    from starlette.middleware import Middleware

    from captcha_reader.web.page_uploads import add_upload_route, keep_data_url

    limits: Limits = app.state.limits
    access: Access = app.state.access
    add_upload_route(app, folder, limits)
    calls = Middleware(
        PageCalls,
        limits=limits,
        holds=folder.holds,
        keep=lambda url, client: keep_data_url(folder, url, client),
        waiting=lambda client: events_of(demo, client),
        gone=str(folder.folder / "gone"),
        prefix=access.prefix,
    )
    app.user_middleware.append(calls)  # further in than what `build_api` has put around the app


def events_of(demo: gradio.Blocks, client: str) -> int:
    """How many events of a client's address wait or run in Gradio's queue."""
    queue = demo._queue
    waiting = [event for part in queue.event_queue_per_concurrency_id.values() for event in part.queue]
    running = [event for events in queue.active_jobs for event in events or ()]
    return sum(
        event.request is not None and event.request.client is not None and event.request.client.host == client
        for event in (*waiting, *running)
    )


class StreamEnds:
    """When the streams of answers ended, by the session of the page.

    Gradio ends a stream once all events are answered, and its script opens another with the next event. An event that
    comes when the end is sent but not read yet has its answer in no stream: the page waits for ever. So its call is
    answered only after the end was read.
    """

    def __init__(self) -> None:
        self.times: OrderedDict[str, float] = OrderedDict()

    def watch(self, scope: Scope, send: Send) -> Send:
        """`send` for a stream, whose end is noted."""
        session = (parse_qs(scope.get("query_string", b"").decode("latin-1")).get("session_hash") or [""])[0]

        async def watched(message: Message) -> None:
            if b'"close_stream"' in message.get("body", b""):
                self.times.pop(session, None)
                self.times[session] = time.monotonic()
                while len(self.times) > SESSIONS:
                    self.times.popitem(last=False)
            await send(message)

        return watched

    async def read(self, session: str) -> None:
        """Wait until the browser has read the end of its last stream."""
        since = time.monotonic() - self.times.get(session, -END_SECONDS)
        if since < END_SECONDS:
            await asyncio.sleep(END_SECONDS - since)


class PageCalls:
    """ASGI middleware: what the page sends when a button is pressed is small, and its files are uploads of this server.

    Gradio fetches a file that is named by an address, and opens one that comes in the call itself with whatever Pillow
    has; neither gets that far. One address has a bounded number of events in Gradio's queue.

    Args:
        app: to protect.
        limits: of a call, and of events per client.
        holds: whether a path lies in the folder of uploads.
        keep: stores the bytes of a picture that came as a data URL as an upload would be; gives the path.
        waiting: how many events of a client's address wait or run.
        gone: path of a file that does not exist.
        prefix: path that the app stands under.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        holds: Callable[[str], bool],
        keep: Callable[[str, str], str],
        waiting: Callable[[str], int],
        gone: str,
        prefix: str = "",
    ) -> None:
        self.app, self.limits, self.prefix = app, limits, prefix
        self.holds, self.keep, self.waiting, self.gone = holds, keep, waiting, gone
        self.ends = StreamEnds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a call on with what it may say, or answer why not."""
        path = scope.get("path", "").removeprefix(self.prefix).rstrip("/")
        if path == "/gradio_api/queue/data":
            await self.app(scope, receive, self.ends.watch(scope, send))
            return
        if scope["type"] != "http" or scope["method"] != "POST" or not path.startswith("/gradio_api/"):
            await self.app(scope, receive, send)
            return
        if path == "/gradio_api/upload":
            await self.app(scope, receive, send)
            return
        client = (scope.get("client") or ("", 0))[0]
        if not path.endswith(("/cancel", "/reset")) and self.waiting(client) >= self.limits.client_events:
            raise Refused(503, "too much of yours waits to be answered: try again in a second")
        body = await read_body(receive, self.limits.click_bytes)
        body, session = await asyncio.to_thread(self._checked, body, client)
        headers = [(k, v) for k, v in scope["headers"] if k not in (b"content-length", b"transfer-encoding")]
        scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        failed = False

        async def watched(message: Message) -> None:
            nonlocal failed
            if message["type"] == "http.response.start" and message["status"] == 500:
                failed = True
            if not failed:
                if message["type"] == "http.response.start":
                    await self.ends.read(session)
                await send(message)

        # Gradio stumbles over a call that names what there is not, or is of another form than it expects.
        try:
            await self.app(scope, replay, watched)
        except Exception as error:
            if not failed:
                raise
            log.warning("%s: a call that cannot be answered (%r)", path, error)
        if failed:
            raise Refused(422, "the call cannot be understood, or names what is not there: reload the page")

    def _checked(self, body: bytes, client: str) -> tuple[bytes, str]:
        """The body as it may be passed on, and the session that it names."""
        if not body:
            return body, ""
        check_json(body, items=20_000, openings=2_000)
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            raise Refused(422, "the body is not JSON") from None
        session = said.get("session_hash") if isinstance(said, dict) else None
        return json.dumps(self._tidied(said, client)).encode(), session if isinstance(session, str) else ""

    def _tidied(self, value: Any, client: str) -> Any:
        """The value with files that are uploads of this server alone. `check_json` has bounded its depth."""
        if isinstance(value, list):
            return [self._tidied(item, client) for item in value]
        if not isinstance(value, dict):
            return value
        tidied = {key: self._tidied(item, client) for key, item in value.items()}
        if "path" not in value and "url" not in value:
            return tidied
        path, url = value.get("path"), value.get("url")
        if isinstance(path, str) and re.match(r"\s*(\w[\w+.-]+:|//)", path):
            if not path.lstrip().lower().startswith("data:"):
                raise Refused(422, "a picture is not fetched from an address: upload it")
            return tidied | {"path": self.keep(path, client), "url": None}
        if not path and isinstance(url, str) and url.strip():
            if not url.lstrip().lower().startswith("data:"):
                raise Refused(422, "a picture is not fetched from an address: upload it")
            return tidied | {"path": self.keep(url, client), "url": None}
        # Gradio looks at this only where the call says that it should. What is no upload is as good as gone.
        if path is not None and not (isinstance(path, str) and self.holds(path)):
            return {"path": self.gone}
        return tidied | {"url": None}
