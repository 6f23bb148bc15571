"""Checks around the whole app, so that they hold for Gradio's routes as for ours.

From the outside in: `Answers` (every error is JSON), Starlette's CORS, `Guard` (who asks, from where, for what), and
for the page `page_calls.PageCalls`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs, quote

from captcha_reader.web.access import COOKIE, Access
from captcha_reader.web.limits import MEGABYTE, Limits, Refused

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LABEL_BYTES = 64_000  # of one answer of the tab Label
CHANGES_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})
# What the page and its clients ask of Gradio. Its other routes fetch addresses, run ffmpeg, edit code or log in.
SERVED = re.compile(
    r"/(?:|predict|health|access|docs|openapi\.json|models(?:/.*)?|labels/[^/]+/[\w/]+|reports/[\w-]+/report\.(?:html|json)"
    r"|(?:config|info|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(?:/\d+)?)/?"
    r"|(?:assets|static|svelte|docs)/.*"
    r"|gradio_api/(?:info|openapi\.json|app_id|startup-events|theme\.css|upload|upload_progress|cancel|reset"
    r"|queue/(?:join|data|status)|heartbeat/[\w-]+|(?:run|api|call|call/v2)/\w+(?:/\w+)?)/?"
    r"|gradio_api/file=(?!\w+:|//).*)",
    re.DOTALL,
)
# A browser that shows the page loads nothing from elsewhere, and no other page may frame it.
HEADERS = [
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; worker-src 'self' blob:; "
        b"connect-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; "
        b"frame-ancestors 'self'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
ACCESS_PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Captcha reader</title>'
    '<meta name="viewport" content="width=device-width, initial-scale=1"></head>'
    '<body style="font:16px system-ui,sans-serif;margin:15vh auto;max-width:22rem;padding:0 1rem">'
    '<form method="post" action="PREFIX/access"><label>Token <input name="token" type="password" autofocus required '
    'style="font:inherit;width:100%;box-sizing:border-box;margin:.5rem 0"></label>'
    '<button style="font:inherit">Enter</button></form></body></html>'
)

log = logging.getLogger("captcha_reader")


class Answers:
    """ASGI middleware: whatever goes wrong further in is answered in JSON, and logged where nobody thought of it."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and correct its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, plain = False, b""

        async def corrected(message: Message) -> None:
            nonlocal begun, plain
            if message["type"] == "http.response.start":
                headers = dict(message.get("headers", []))
                kind = headers.get(b"content-type", b"")
                if message["status"] >= 400 and kind.startswith(b"text/plain"):
                    plain = str(message["status"]).encode()  # held back until its words are there
                    return
                names = headers.keys()
                extra = [pair for pair in HEADERS if pair[0] not in names]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            elif plain:
                if not message.get("more_body"):
                    begun = True
                    words = bytes(message.get("body", b"")).decode("utf-8", "replace")[:500]
                    await answer(send, int(plain), words or "it cannot be answered")
                return
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, corrected)
        except Refused as error:
            if not begun:
                await answer(send, error.status, str(error))
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])
            if not begun:
                await answer(send, 500, "something went wrong on the server: its terminal says what")


async def answer(send: Send, status: int, reason: str, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Turn a request down in JSON, and close its connection: its body may not have been received."""
    body = json.dumps({"error": reason, "status": status}).encode()
    given = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    given += [(b"connection", b"close"), *HEADERS, *(headers or [])]
    if status == 503:
        given.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": given})
    await send({"type": "http.response.body", "body": body})


class Guard:
    """ASGI middleware: the host, the origin and the token of a request, its route, and the length of its body.

    Args:
        app: to protect.
        access: who may talk to it.
        limits: of bodies and of the pauses in them.
    """

    def __init__(self, app: App, access: Access, limits: Limits) -> None:
        self.app, self.access, self.limits = app, access, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer why not."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # no route of ours is a web socket
            await send({"type": "websocket.close", "code": 1008})
            return
        self._place(scope)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            self._check(scope, headers)
        except Refused as error:
            if error.status == 401:
                await self._ask_for_token(scope, headers, receive, send)
            else:  # not raised: what is sent from here goes through CORS, so that a site that may call reads why
                await answer(send, error.status, str(error))
            return
        labels = scope["path"].startswith(f"{self.access.prefix}/labels/")
        most = min(LABEL_BYTES, self.limits.page_bytes) if labels else self.limits.page_bytes
        await self.app(scope, self._counted(headers, receive, most), send)

    def _place(self, scope: Scope) -> None:
        """Tell the app its prefix, whether the proxy has cut it from the path or not."""
        prefix = self.access.prefix
        if prefix:
            path = scope["path"]
            inside = path == prefix or path.startswith(prefix + "/")
            scope["root_path"] = prefix
            scope["path"] = path if inside else prefix + path
            scope.pop("raw_path", None)

    def _check(self, scope: Scope, headers: dict[str, str]) -> None:
        if not self.access.knows_host(headers.get("host", "")):
            raise Refused(
                421, "this server does not go by that name: name it by --root_path https://NAME, or by --host"
            )
        if scope["method"] not in CHANGES_NOTHING and not self.access.knows_origin(headers):
            raise Refused(403, "a page of another site may not do this: --allow_origin names those that may")
        path = scope["path"].removeprefix(self.access.prefix) or "/"
        if not SERVED.fullmatch(path):
            raise Refused(404, "there is no such address: /docs says what there is")
        if path.startswith("/models/") and self.access.read_only:
            raise Refused(403, "models cannot be downloaded here (--read_only)")
        if path.startswith("/labels/") and self.access.read_only:
            raise Refused(403, "nothing is kept here (--read_only)")
        # Whoever has got in by another tab may still send the form of this one.
        enters = path == "/access" and scope["method"] == "POST" and self.access.token is not None
        if path != "/health" and (enters or not self.access.knows_token(headers)):
            raise Refused(401, "a token is needed: send it as `Authorization: Bearer TOKEN`")
        if path == "/access":
            raise Refused(404, "there is no such address: /docs says what there is")
        claimed = headers.get("content-length", "")
        if claimed.isdecimal() and int(claimed) > self.limits.page_bytes:
            raise _too_long(self.limits.page_bytes)

    def _counted(self, headers: dict[str, str], receive: Receive, most: int) -> Receive:
        """The body, as long as it has at most so many bytes and does not pause."""
        size = 0
        # The body is complete, and what is received after it is the client's end, which may take its time.
        complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers

        async def counted() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), self.limits.seconds)
            except TimeoutError:
                raise Refused(408, f"the request paused for {self.limits.seconds:.0f} seconds") from None
            size += len(message.get("body", b""))
            if size > most:
                raise _too_long(most)
            complete = not message.get("more_body", False)
            return message

        return counted

    async def _ask_for_token(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        """A browser gets a form; what it sends becomes a cookie. A program gets 401."""
        path = scope["path"].removeprefix(self.access.prefix)
        prefix = quote(self.access.prefix)  # whole addresses: the page may be asked for without the slash at its end
        if path == "/access" and scope["method"] == "POST":
            body = await read_body(self._counted(headers, receive, self.limits.page_bytes), 2000)
            value = parse_qs(body.decode("utf-8", "replace")).get("token", [""])[0]
            if self.access.is_token(value):
                secure = "; Secure" if scope["scheme"] == "https" else ""
                cookie = f"{COOKIE}={self.access.cookie}; Path={prefix or '/'}; HttpOnly; SameSite=Lax"
                fields = [
                    (b"location", f"{prefix}/".encode()),
                    (b"set-cookie", (cookie + secure).encode()),
                    (b"content-length", b"0"),
                ]
                await send({"type": "http.response.start", "status": 303, "headers": fields})
                await send({"type": "http.response.body", "body": b""})
                return
            await asyncio.sleep(1)  # nobody tries many
        if scope["method"] == "GET" and "text/html" in headers.get("accept", "") and path in ("", "/", "/docs"):
            page = ACCESS_PAGE.replace("PREFIX", prefix).encode()
            fields = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(page)).encode())]
            await send({"type": "http.response.start", "status": 401, "headers": fields})
            await send({"type": "http.response.body", "body": page})
            return
        reason = "a token is needed: send it as `Authorization: Bearer TOKEN`"
        await answer(send, 401, reason, [(b"www-authenticate", b"Bearer")])


def _too_long(most: int) -> Refused:
    return Refused(413, f"the request has more than {most / MEGABYTE:g} MB")


async def read_body(receive: Receive, most: int) -> bytes:
    """The whole body of a request.

    Raises:
        Refused: 413, it has more than `most` bytes; 499, the client is gone.
    """
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(499, "the client is gone")
        part = message.get("body", b"")
        size += len(part)
        if size <= most:
            parts.append(part)
        # A little too long a body is received to its end: a client that still sends reads no answer.
        if size > 3 * most or (size > most and not message.get("more_body")):
            raise Refused(413, f"the request has more than {most:,} bytes")
        if not message.get("more_body"):
            return b"".join(parts)
