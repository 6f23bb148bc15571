"""Connections that wait for nothing: a time limit for the head of a request and for a client that reads no answer, and
a number of connections for each client and for all."""

from __future__ import annotations

import json
from asyncio import AbstractEventLoop, TimerHandle, Transport
from collections import OrderedDict
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from captcha_reader.web.limits import Limits

LINGER_SECONDS = 5.0  # in which a client that was refused midway may end what it sends, and read why


class Connections:
    """The open connections of a server, by the address of their client; idle ones oldest first.

    Where one more comes than there may be, the oldest idle one of the same client goes for it, or that of anybody: a
    client that sends its request at once is never the oldest for long. A connection on which a request is being
    answered is left alone; where there is no other, the new one is refused.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counts: dict[str, int] = {}
        self.total = 0
        self.idle: OrderedDict[GuardedProtocol, None] = OrderedDict()

    def admit(self, protocol: GuardedProtocol, client: str) -> bool:
        """Count a new connection in; gives whether there is room for it."""
        if self.counts.get(client, 0) >= self.limits.client_connections and not self._drop(client):
            return False
        if self.total >= self.limits.connections and not self._drop(None):
            return False
        self.counts[client] = self.counts.get(client, 0) + 1
        self.total += 1
        self.idle[protocol] = None
        return True

    def leave(self, protocol: GuardedProtocol, client: str) -> None:
        """Count it out."""
        self.idle.pop(protocol, None)
        self.total -= 1
        self.counts[client] -= 1
        if not self.counts[client]:
            del self.counts[client]

    def _drop(self, client: str | None) -> bool:
        for protocol in self.idle:
            if client is None or protocol.address == client:
                protocol.discard()
                return True
        return False


class LingeringTransport:
    """A transport that, told to close while the client still sends, only ends its own side and discards what comes.

    Closed at once, with bytes that nobody read, the system resets the connection, and the client loses the answer that
    says why (RFC 9112, section 9.6).
    """

    def __init__(self, transport: Transport, loop: AbstractEventLoop) -> None:
        self.transport, self.loop = transport, loop
        self.sends = False  # whether the client has more to send; the protocol says so
        self.lingers = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def is_closing(self) -> bool:
        """Whether nothing is answered any more."""
        return self.lingers or self.transport.is_closing()

    def close(self) -> None:
        """Close, after a while if the client still sends; told so twice, at once."""
        if not self.sends or self.is_closing():
            self.transport.close()
            return
        self.lingers = True
        self.transport.write_eof()  # once the answer is out
        self.transport.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.close)


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol with these limits; `protocol_class` binds them."""

    open_connections: Connections

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.address = ""
        self.admitted = False
        self.patience: TimerHandle | None = None  # until the head of a request is there
        self.stalled: TimerHandle | None = None  # since the client stopped reading

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Count it, and give the client a while for its request."""
        self.lingering = LingeringTransport(transport, self.loop)
        super().connection_made(self.lingering)  # type: ignore[arg-type]
        self.address = self.client[0] if self.client else ""
        self.admitted = self.open_connections.admit(self, self.address)
        if not self.admitted:
            self._say(503, "too many connections are open: try again in a second")
            return
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it out."""
        for timer in (self.patience, self.stalled):
            if timer is not None:
                timer.cancel()
        if self.admitted:
            self.admitted = False
            self.open_connections.leave(self, self.address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """What comes after a refusal is not read."""
        if not self.transport.is_closing():
            before = self.cycle
            super().data_received(data)
            self.lingering.sends = self.conn.their_state is h11.SEND_BODY
            if self.cycle is not before:  # a head is complete, a request begins
                self._busy()

    def on_response_complete(self) -> None:
        """The connection is idle again, unless the next request has come already."""
        before = self.cycle
        self.open_connections.idle[self] = None
        self._wait_for_head()
        super().on_response_complete()
        if self.cycle is not before:
            self._busy()

    def pause_writing(self) -> None:
        """The client reads no answer; for how long is bounded."""
        super().pause_writing()
        self.stalled = self.loop.call_later(self.open_connections.limits.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """It does."""
        super().resume_writing()
        if self.stalled is not None:
            self.stalled.cancel()
            self.stalled = None

    def discard(self) -> None:
        """Close an idle connection, at once, for one that needs its place."""
        self.transport.abort()
        # The place is free now, not when the loop comes to tell of the end.
        if self.admitted:
            self.admitted = False
            self.open_connections.leave(self, self.address)

    def send_400_response(self, msg: str) -> None:
        """In JSON, as all that is refused."""
        self._say(400, "this is no HTTP request")

    def _busy(self) -> None:
        self.open_connections.idle.pop(self, None)
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None

    def _wait_for_head(self) -> None:
        if self.patience is not None:
            self.patience.cancel()
        self.patience = self.loop.call_later(self.open_connections.limits.header_seconds, self._lose_patience)

    def _lose_patience(self) -> None:
        if not self.transport.is_closing():
            if self.conn.trailing_data[0]:
                self._say(408, "the head of the request did not arrive in time")
            else:
                self.transport.close()

    def _say(self, status: int, reason: str) -> None:
        body = json.dumps({"error": reason, "status": status}).encode()
        phrase = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}[status]
        head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: application/json\r\nconnection: close\r\n"
        head += "retry-after: 1\r\n" if status == 503 else ""
        self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
        if self.conn.our_state not in (h11.ERROR, h11.CLOSED):
            self.conn.send_failed()


def protocol_class(limits: Limits) -> type[GuardedProtocol]:
    """uvicorn's protocol with the limits of one server."""
    return type("Protocol", (GuardedProtocol,), {"open_connections": Connections(limits)})
