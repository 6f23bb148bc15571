"""Checks around the whole app, the routes of Gradio included."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from captcha_reader.web.limits import MEGABYTE

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class BodyLimit:
    """ASGI middleware: no request, of whatever route, is longer than `most` bytes."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 413."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size, begun = 0, False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.most:
                raise _TooLong
            return message

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            begun = True
            await send(message)

        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        try:
            if claimed.isdigit() and int(claimed) > self.most:
                raise _TooLong
            await self.app(scope, counted, watched)
        except _TooLong:
            if begun:
                return
            reason = json.dumps({"error": f"the request has more than {self.most // MEGABYTE} MB", "status": 413})
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": reason.encode()})


class _TooLong(Exception):
    pass
