"""What stands around the app and below it, in this process: the guard, connections over loopback, the folder."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from captcha_reader.errors import UserError
from captcha_reader.web import page_calls, storage
from captcha_reader.web.access import Access
from captcha_reader.web.connections import GuardedProtocol, protocol_class
from captcha_reader.web.guard import Answers, Guard, answer, read_body
from captcha_reader.web.limits import Limits, Refused
from captcha_reader.web.page_calls import PageCalls
from captcha_reader.web.storage import UploadFolder, private_folder

Message = dict[str, Any]
OK = {"type": "http.response.start", "status": 200, "headers": []}
PATIENCE = 10.0  # seconds


def ask(app: Any, received: Sequence[Message] = (), path: str = "/predict", **scope: Any) -> list[Message]:
    """What an ASGI app sends as the answer to a request whose body comes in these messages, and then nothing."""
    left, sent = list(received), []

    async def receive() -> Message:
        if not left:
            await asyncio.sleep(PATIENCE)
        return left.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    given = {"type": "http", "method": "POST", "path": path, "scheme": "http", "headers": [], "client": ("10.0.0.1", 1)}
    given["headers"] = [(b"host", b"localhost"), *scope.pop("headers", [])]
    asyncio.run(asyncio.wait_for(app(given | scope, receive, send), PATIENCE))
    return sent


def part(data: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


def refusal(sent: list[Message]) -> tuple[int, str]:
    """Status and reason of an answer in JSON, the only one."""
    start, body = sent
    assert (b"content-type", b"application/json") in start["headers"]
    said = json.loads(body["body"])
    assert said["status"] == start["status"]
    return start["status"], said["error"]


async def echo(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable) -> None:
    """An app that takes the whole body and answers with its length."""
    body = await read_body(receive, 10**9)
    await send(OK)
    await send({"type": "http.response.body", "body": str(len(body)).encode()})


# --------------------------------------------------------------------------------------------------------------------
# The guard


def guarded(app: Any = echo, access: Access | None = None, **limits: Any) -> Answers:
    return Answers(Guard(app, access or Access(), replace(Limits(), **limits)))


def test_an_error_nobody_thought_of_is_500_and_stands_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Message, receive: Any, send: Any) -> None:
        raise RuntimeError("/srv/me/secret")

    with caplog.at_level(logging.ERROR, "captcha_reader"):
        status, reason = refusal(ask(guarded(broken)))
    assert status == 500 and "its terminal says what" in reason and "secret" not in reason
    assert "POST /predict failed" in caplog.text and "RuntimeError: /srv/me/secret" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError("late"), Refused(503, "late")])
def test_an_answer_that_has_begun_gets_no_second_one(error: Exception) -> None:
    async def broken(scope: Message, receive: Any, send: Any) -> None:
        await send(OK)
        raise error

    assert [message["status"] for message in ask(guarded(broken))] == [200]


def test_a_refusal_for_now_says_when_to_come_again() -> None:
    async def busy(scope: Message, receive: Any, send: Any) -> None:
        raise Refused(503, "too much is going on")

    sent = ask(guarded(busy))
    assert refusal(sent) == (503, "too much is going on") and (b"retry-after", b"1") in sent[0]["headers"]
    assert ask(lambda scope, receive, send: answer(send, 404, "no"))[0]["headers"].count((b"retry-after", b"1")) == 0


def test_words_in_plain_text_become_json_once_they_are_there() -> None:
    async def plain(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": b"there is no such file"})

    assert refusal(ask(guarded(plain))) == (404, "there is no such file")


def test_web_sockets_are_closed() -> None:
    assert ask(guarded(), type="websocket") == [{"type": "websocket.close", "code": 1008}]


def test_labels_are_not_read_on_a_read_only_page() -> None:
    status, reason = refusal(ask(guarded(access=Access(read_only=True)), path="/labels/mine/state", method="GET"))
    assert status == 403 and "--read_only" in reason


def test_bodies_are_bounded_before_and_while_they_come() -> None:
    limits = {"page_bytes": 1_000_000}
    sent = ask(guarded(**limits), headers=[(b"content-length", b"1000001")])
    assert refusal(sent) == (413, "the request has more than 1 MB")
    chunked = [(b"transfer-encoding", b"chunked")]
    half = part(bytes(500_000), more=True)
    assert ask(guarded(**limits), [half, part(bytes(500_000))], headers=chunked)[1]["body"] == b"1000000"
    assert refusal(ask(guarded(**limits), [half, half, part(b"1")], headers=chunked))[0] == 413
    long = [part(bytes(64_001))]
    sent = ask(guarded(), long, path="/labels/mine/answer", headers=[(b"content-length", b"64001")])
    assert refusal(sent) == (413, "the request has more than 0.064 MB"), "the limit of this route"


def test_a_body_that_pauses_is_given_up() -> None:
    sent = ask(guarded(seconds=0.05), [part(b"a", more=True)], headers=[(b"content-length", b"2")])
    assert refusal(sent) == (408, "the request paused for 0 seconds")


def test_a_client_that_is_gone_is_no_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "captcha_reader"):
        assert refusal(ask(guarded(), [{"type": "http.disconnect"}], headers=[(b"content-length", b"2")]))[0] == 499
    assert not caplog.records


# --------------------------------------------------------------------------------------------------------------------
# Connections

GET = b"GET /%d HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Serving:
    """The protocol with an app that answers a path once it is let go, on a free port of this machine."""

    def __init__(self, body: bytes = b"done", **limits: Any) -> None:
        self.protocols: list[GuardedProtocol] = []
        self.body = body
        self.begun: list[str] = []
        self.go = asyncio.Event()
        self.made = protocol_class(replace(Limits(), **limits))
        self.config = uvicorn.Config(self.app, log_level="critical", lifespan="off", interface="asgi3")
        self.config.load()
        self.state = ServerState()

    async def app(self, scope: Message, receive: Any, send: Any) -> None:
        self.begun.append(scope["path"])
        await self.go.wait()
        await send(OK | {"headers": [(b"content-length", str(len(self.body)).encode())]})
        await send({"type": "http.response.body", "body": self.body})

    def protocol(self) -> GuardedProtocol:
        self.protocols.append(self.made(config=self.config, server_state=self.state, app_state={}))
        return self.protocols[-1]

    async def __aenter__(self) -> Serving:
        self.server = await asyncio.get_running_loop().create_server(self.protocol, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.server.close()
        for protocol in self.protocols:
            protocol.transport.abort()
        await asyncio.sleep(0)

    async def connect(self, requests: int = 1) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"".join(GET % number for number in range(requests)))
        return reader, writer


async def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("limits", [{"client_connections": 2}, {"connections": 2}])
def test_where_all_connections_are_busy_one_more_is_told_to_come_again(limits: dict[str, int]) -> None:
    async def visit() -> None:
        async with Serving(**limits) as serving:
            busy = [await serving.connect() for _ in range(2)]
            await until(lambda: len(serving.begun) == 2)
            reader, writer = await serving.connect(0)
            said = await asyncio.wait_for(reader.read(), PATIENCE)
            assert said.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in said
            assert b"too many connections are open: try again in a second" in said
            assert serving.made.open_connections.total == 2, "who was refused is not counted"
            writer.close()
            serving.go.set()
            for reader, _ in busy:
                assert await reader.readuntil(b"done")
            reader, writer = await serving.connect()
            assert await reader.readuntil(b"done"), "an idle one makes room"
            writer.close()

    asyncio.run(visit())


def test_an_idle_connection_of_another_client_stays_for_ones_own() -> None:
    async def visit() -> None:
        async with Serving(client_connections=1) as serving:
            first, one = await serving.connect(0)
            await until(lambda: serving.protocols)
            serving.protocols[0].address = "10.0.0.9"
            serving.made.open_connections.counts = {"10.0.0.9": 1}
            second, two = await serving.connect(0)
            await until(lambda: len(serving.protocols) == 2)
            third, three = await serving.connect(0)
            assert await asyncio.wait_for(second.read(), PATIENCE) == b"", "the second went for the third"
            assert not first.at_eof() and serving.made.open_connections.counts == {"10.0.0.9": 1, "127.0.0.1": 1}
            assert not third.at_eof()
            for writer in (one, two, three):
                writer.close()

    asyncio.run(visit())


def test_requests_sent_together_are_answered_and_are_not_idle_between() -> None:
    async def visit() -> None:
        async with Serving() as serving:
            reader, writer = await serving.connect(2)
            await until(lambda: serving.begun == ["/0"])
            serving.go.set()
            assert await reader.readuntil(b"done")
            serving.go.clear()
            assert await reader.readuntil(b"done") and serving.begun == ["/0", "/1"]
            (protocol,) = serving.protocols
            await until(lambda: protocol in serving.made.open_connections.idle)
            writer.close()

    async def hold() -> None:
        async with Serving() as serving:
            client = await serving.connect(2)
            await until(lambda: serving.begun)
            go, serving.go = serving.go, asyncio.Event()
            go.set()
            await until(lambda: len(serving.begun) == 2)
            assert not serving.made.open_connections.idle and serving.protocols[0].patience is None
            client[1].close()

    asyncio.run(visit())
    asyncio.run(hold())


def test_a_client_that_reads_no_answer_is_cut_off_and_a_slow_one_is_not() -> None:
    async def visit(seconds: float) -> int:
        async with Serving(bytes(20_000_000), seconds=seconds) as serving:
            serving.go.set()
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_connect(client, ("127.0.0.1", serving.port))
                await loop.sock_sendall(client, GET % 1)
                await until(lambda: serving.protocols and serving.protocols[0].stalled is not None)
                if seconds < 1:
                    await until(lambda: serving.made.open_connections.total == 0)
                received = 0
                try:
                    while received < 20_000_000 and (data := await loop.sock_recv(client, 1 << 20)):
                        received += len(data)
                except ConnectionError:
                    return received
                assert serving.protocols[0].stalled is None or seconds < 1
                return received

    assert asyncio.run(visit(0.05)) < 20_000_000
    assert asyncio.run(visit(60)) >= 20_000_000


# --------------------------------------------------------------------------------------------------------------------
# The temporary folder


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path


def test_the_temporary_folder_is_taken_back_at_the_end(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    mine, strange = private / f"captcha-reader-{os.getpid()}-abc", private / "captcha-reader-x"
    mine.mkdir()
    strange.mkdir()
    with private_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == tempfile.gettempdir() == str(folder)
        (folder / "a").write_bytes(b"a")
    assert os.environ["GRADIO_TEMP_DIR"] == "before" and tempfile.gettempdir() == str(private)
    assert not folder.exists() and mine.exists() and strange.exists(), "those of a process that runs, and no other's"


def test_where_no_temporary_folder_can_be_made_it_is_one_sentence(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(private / "nowhere"))
    with pytest.raises(UserError, match=r"no temporary folder can be made \(.*\): set TMPDIR"), private_folder():
        pass


@pytest.fixture
def uploads(tmp_path: Path) -> UploadFolder:
    folder = tmp_path / "uploads"
    folder.mkdir()
    return UploadFolder(folder, replace(Limits(), disk_bytes=1000, client_disk_bytes=600, file_bytes=500))


def put(uploads: UploadFolder, size: int, client: str = "a") -> Path:
    return uploads.keep(io.BytesIO(bytes(size)), size, "a.png", client)


def test_uploads_are_bounded_by_file_client_and_folder(uploads: UploadFolder) -> None:
    with pytest.raises(Refused, match="split it") as refused:
        put(uploads, 501)
    assert refused.value.status == 413
    first, second = put(uploads, 400), put(uploads, 400)
    assert not first.exists() and second.exists(), "a client's own oldest goes"
    put(uploads, 500, "b")
    with pytest.raises(Refused, match="as many uploads as it may") as refused:
        put(uploads, 200, "c")
    assert refused.value.status == 507 and second.exists() and uploads.size == 900
    uploads.arrive(100)
    with pytest.raises(Refused, match="try again in some minutes"):
        uploads.arrive(1)
    uploads.arrive(-100)
    assert uploads.size == 900


def test_an_upload_that_cannot_be_stored_is_not_counted(uploads: UploadFolder) -> None:
    uploads.folder.rmdir()
    uploads.folder.write_bytes(b"in the way")
    with pytest.raises(Refused, match="the upload cannot be stored") as refused:
        put(uploads, 10)
    assert refused.value.status == 507 and uploads.size == 0 and str(uploads.folder) not in str(refused.value)


def test_a_file_that_is_too_large_is_told_the_limit_that_it_broke(tmp_path: Path) -> None:
    limits = replace(Limits(), file_bytes=50_000_000, client_disk_bytes=12_000_000)
    with pytest.raises(Refused, match="a file has more than 12 MB: split it"):
        UploadFolder(tmp_path, limits).keep(io.BytesIO(), 13_000_000, "a.png", "a")


def test_an_upload_that_lost_its_room_while_it_was_stored_is_refused(uploads: UploadFolder) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            put(uploads, 500)  # of the same client, which goes first
            raise OSError(28, "No space left on device")

    with pytest.raises(Refused, match="the upload cannot be stored") as refused:
        uploads.keep(Broken(), 400, "b.png", "a")
    assert refused.value.status == 507 and uploads.size == 500


def test_old_uploads_go_and_of_drawn_pictures_the_oldest(
    uploads: UploadFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = put(uploads, 100), put(uploads, 100)
    uploads._kept[old].since -= storage.KEEP_SECONDS + 1
    drawn = [uploads.folder / f"{i}.png" for i in range(3)]
    for age, path in zip((30, 20, 10), drawn, strict=True):
        path.write_bytes(bytes(100))
        os.utime(path, (time.time() - age,) * 2)
    uploads.sweep(force=True)
    assert not old.exists() and new.exists()
    assert [path.exists() for path in drawn] == [False, True, True], "a quarter of the room"
    assert uploads.size == 300
    os.utime(drawn[1], (time.time() - storage.KEEP_SECONDS - 1,) * 2)
    uploads.sweep()
    assert drawn[1].exists(), "it was swept just now"
    uploads.sweep(force=True)
    assert [path.exists() for path in drawn] == [False, False, True] and uploads.size == 200


# --------------------------------------------------------------------------------------------------------------------
# Calls of the page


def paged(app: Any = echo, waiting: int = 0, kept: list[tuple[str, str]] | None = None) -> Answers:
    def keep(url: str, client: str) -> str:
        assert kept is not None
        kept.append((url, client))
        return "/uploads/kept"

    calls = PageCalls(app, Limits(), lambda path: path.startswith("/uploads/"), keep, lambda client: waiting, "/gone")
    return Answers(calls)


CALL = "/gradio_api/queue/join"


def test_one_client_has_its_part_of_the_queue_and_may_still_cancel() -> None:
    body = [part(b"{}")]
    status, reason = refusal(ask(paged(waiting=Limits().client_events), body, CALL))
    assert status == 503 and "too much of yours waits" in reason
    assert ask(paged(waiting=Limits().client_events), body, "/gradio_api/cancel")[0]["status"] == 200


def test_a_picture_in_a_call_is_kept_as_an_upload_and_no_other_file_is_named() -> None:
    seen: list[Any] = []
    kept: list[tuple[str, str]] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        body = await read_body(receive, 10**6)
        assert (b"content-length", str(len(body)).encode()) in scope["headers"]
        seen.append(json.loads(body))
        seen.append(await receive())  # and then the end of the client
        await send(OK)

    said = {"data": [{"path": " data:image/png;base64,AAAA"}, {"path": "/uploads/a"}, {"path": "/etc/passwd"}]}
    (start,) = ask(paged(app, kept=kept), [part(json.dumps(said).encode()), {"type": "http.disconnect"}], CALL)
    assert start["status"] == 200
    files = [{"path": "/uploads/kept", "url": None}, {"path": "/uploads/a", "url": None}, {"path": "/gone"}]
    assert seen == [{"data": files}, {"type": "http.disconnect"}]
    assert kept == [(" data:image/png;base64,AAAA", "10.0.0.1")]
    for path in ("http://10.0.0.1/a.png", "//host/a.png", "file:///etc/passwd"):
        status, reason = refusal(ask(paged(), [part(json.dumps({"path": path}).encode())], CALL))
        assert status == 422 and "upload it" in reason


def test_a_call_that_fails_is_told_apart_from_one_that_gradio_does_not_understand(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def stumbles(scope: Message, receive: Any, send: Any) -> None:
        await send(OK | {"status": 500})
        raise KeyError("fn")

    async def breaks(scope: Message, receive: Any, send: Any) -> None:
        raise RuntimeError("ours")

    status, reason = refusal(ask(paged(stumbles), [part(b"{}")], CALL))
    assert status == 422 and "reload the page" in reason
    assert refusal(ask(paged(breaks), [part(b"{}")], CALL))[0] == 500


def test_of_many_sessions_only_the_latest_ends_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_calls, "SESSIONS", 2)

    async def stream(scope: Message, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b'data: {"msg": "close_stream"}'})

    app = PageCalls(stream, Limits(), bool, lambda *_: "", lambda _: 0, "/gone")
    for name in (b"a", b"b", b"a", b"c"):
        ask(app, path="/gradio_api/queue/data", method="GET", query_string=b"session_hash=" + name)
    assert list(app.ends.times) == ["a", "c"]
