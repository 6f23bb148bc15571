"""What strangers may do to a running server: nothing freezes it, fills it, or reads it from another site.

One test or more for each kind of attack. Times and memory are compared with those of a harmless request of the same
size, on the same server, in the same minute; what is added allows for the noise of a busy machine.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import zipped
from served import ROOT, Served, is_json_error, meanwhile, seconds_of

from benchmarks.hostile import animation, book_gif, cut_jpeg, form, growing_gif, request
from captcha_reader.errors import UserError
from captcha_reader.web import storage
from captcha_reader.web.labeled_zip import labeled_pictures

pytest_plugins = ["served"]  # its fixtures

SLACK = 1.0  # seconds of noise
MEMORY_SLACK = 60_000_000  # bytes of noise


def noise(size: int) -> bytes:
    """Bytes that nothing compresses and no parser knows."""
    return os.urandom(size)


# --------------------------------------------------------------------------------------------------------------------
# 1: work that grows faster than its input


def labels_zip(png: bytes, lines: int, line: str) -> bytes:
    entries = {f"{i:03d}.png": png for i in range(20)}
    return zipped(entries | {"labels.txt": "".join(f"{line}\n" for _ in range(lines)).encode()})


@pytest.mark.parametrize("line", [" " * 60_000, "a" * 60_000, ",\t " * 20_000, "a.png" + " " * 60_000, '"' * 60_000])
def test_text_of_an_upload_is_read_in_time_that_grows_with_its_length(png: bytes, line: str):
    def read(text: str) -> None:
        with suppress(UserError):
            labeled_pictures(labels_zip(png, 1, text))

    read(line)
    half, whole = seconds_of(lambda: read(line[: len(line) // 2]), 3), seconds_of(lambda: read(line), 3)
    assert whole <= 2.5 * half + 0.05


def test_a_gif_whose_comment_is_a_book_is_refused_in_time(served: Served, png: bytes):
    """Pillow joins the parts of a comment one by one, in time that grows with the square of its length."""
    book = book_gif(4_000_000)
    harmless = seconds_of(lambda: served.client.post("/predict", files={"file": noise(len(book))}))
    assert seconds_of(lambda: served.client.post("/predict", files={"file": book})) <= 3 * harmless + SLACK


# --------------------------------------------------------------------------------------------------------------------
# 2, 3: pictures that are larger than they look


@pytest.mark.parametrize(
    "data",
    [growing_gif(13_300), animation("WEBP", (800, 800), 30), animation("GIF", (800, 800), 30)],
    ids=["growing gif", "webp of many frames", "gif of many frames"],
)
def test_all_frames_of_a_picture_count(served: Served, data: bytes):
    before = served.memory
    harmless = seconds_of(lambda: served.client.post("/predict", files={"file": noise(len(data))}))
    started = time.monotonic()
    answers = [served.client.post("/predict", files={"file": data}) for _ in range(6)]
    assert {answer.status_code for answer in answers} == {413}, answers[0].text
    assert time.monotonic() - started <= 6 * (3 * harmless) + SLACK
    assert served.memory <= before + MEMORY_SLACK


def test_refused_pictures_leave_the_memory(served: Served):
    """Each is 3,900x3,900 pixels, cut short: 46 MB once it is decoded."""
    data = cut_jpeg(3900)
    assert served.client.post("/predict", files={"file": data}).status_code == 422
    before = served.memory
    for _ in range(6):
        assert served.client.post("/predict", files={"file": data}).status_code == 422
    assert served.memory <= before + MEMORY_SLACK


def test_work_of_a_client_that_hung_up_is_dropped(served: Served, png: bytes):
    """Zips of large pictures, each closed at once: another's picture has its turn between theirs."""
    large = animation("PNG", (3900, 3900), 1)
    body, kind = form(zipped({f"{i}.png": large for i in range(4)}), file="a.zip")
    usual = seconds_of(lambda: served.read(png), 3)
    one = seconds_of(lambda: served.client.post("/predict", files={"file": large}))
    for _ in range(4):
        with served.connect() as connection:
            connection.sendall(request("/predict", body, kind))
    answer = served.read(png)
    assert answer.status_code == 200
    seconds = seconds_of(lambda: served.read(png))
    assert seconds <= usual + 4 * one + SLACK
    end = time.monotonic() + 16 * one + 20
    while served.client.get("/health").json()["waiting"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_pictures_of_a_request_share_a_budget_of_pixels(served: Served, png: bytes):
    large = animation("PNG", (3900, 3900), 1)
    answer = served.client.post("/predict", files=[("file", data) for data in (*[large] * 6, png)]).json()
    statuses = [row.get("status", 200) for row in answer["predictions"]]
    assert statuses == [200] * 4 + [413] * 2 + [200]


def test_small_requests_do_not_stand_behind_large_ones(served: Served, png: bytes):
    """Eight clients send large and broken pictures, zips of them and long forms without a pause."""
    large = animation("PNG", (3900, 3900), 1)
    frames = zipped({f"{i}.gif": growing_gif(13_300) for i in range(20)})
    bodies = [(cut_jpeg(3900), "a.jpg"), (zipped({f"{i}.png": large for i in range(4)}), "a.zip")]
    bodies += [(frames, "a.zip"), (book_gif(2_000_000), "a.gif")]
    good = [served.read(png) for _ in range(3)]
    usual = seconds_of(lambda: served.read(png), 3)
    one_large = seconds_of(lambda: served.client.post("/predict", files={"file": bodies[0][0]}))
    done = threading.Event()

    def harm(number: int) -> None:
        data, name = bodies[number % len(bodies)]
        with httpx.Client(base_url=served.address, timeout=250, trust_env=False) as client:
            while not done.is_set():
                client.post("/predict", files={"file": (name, data)})

    threads = [threading.Thread(target=harm, args=(i,), daemon=True) for i in range(8)]
    for thread in threads:
        thread.start()
    try:
        end = time.monotonic() + 20
        while not served.client.get("/health").json()["waiting"]:
            assert time.monotonic() < end
            time.sleep(0.01)
        seconds = []
        for _ in range(10):
            started = time.monotonic()
            good.append(served.read(png))
            seconds.append(time.monotonic() - started)
    finally:
        done.set()
        for thread in threads:
            thread.join(250)
    assert {answer.status_code for answer in good} == {200}
    # In one queue each would wait for a picture of each of them.
    assert sorted(seconds)[len(seconds) // 2] <= max(4 * usual, usual + one_large)


# --------------------------------------------------------------------------------------------------------------------
# 4: JSON


def test_json_is_looked_at_before_it_is_parsed(served: Served):
    body = b'{"images":[' + b'"",' * 5_000_000 + b'""]}'
    headers = {"Content-Type": "application/json"}
    before = served.memory
    harmless = seconds_of(lambda: served.client.post("/predict", content=b'"' + b"a" * len(body), headers=headers))
    with meanwhile(lambda: served.client.get("/health")) as seconds:
        started = time.monotonic()
        answer = served.client.post("/predict", content=body, headers=headers)
        taken = time.monotonic() - started
    assert answer.status_code == 413 and is_json_error(answer)
    assert taken <= 3 * harmless + SLACK
    assert max(seconds) <= harmless + SLACK, "other requests had to wait"
    assert served.memory <= before + 3 * len(body) + MEMORY_SLACK


@pytest.mark.parametrize("path", ["queue/join", "call/detect_captcha", "run/detect_captcha", "cancel"])
def test_a_call_of_the_page_is_as_small_as_a_click(served: Served, path: str):
    body = json.dumps({"data": ["a" * 2_000_000], "fn_index": 0, "session_hash": "x"}).encode()
    before = served.memory
    answer = served.client.post(f"/gradio_api/{path}", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and is_json_error(answer)
    for hostile in (b"[" * 900_000, b'{"a":' * 100_000, b"[" + b'"",' * 300_000 + b"1]", b"{" * 5):
        answer = served.client.post(f"/gradio_api/{path}", content=hostile)
        assert answer.status_code in (413, 422), answer.text
        assert is_json_error(answer)
    assert served.memory <= before + MEMORY_SLACK


# --------------------------------------------------------------------------------------------------------------------
# 5: other sites

ROUTES = ["/", "/health", "/models", "/config", "/predict", "/docs", "/gradio_api/queue/join", "/gradio_api/info"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "", "a b"])
def test_a_name_that_is_not_ours_is_not_answered(served: Served, path: str, host: str):
    """A site that binds its name anew to 127.0.0.1 (DNS rebinding) sends that name."""
    for method in ("GET", "POST"):
        answer = served.client.request(method, path, headers={"Host": host})
        assert answer.status_code in (400, 421), answer.text
        assert is_json_error(answer)


def test_the_names_of_this_machine_are_answered(served: Served):
    for host in ("127.0.0.1", f"localhost:{served.port}", "[::1]:7860", "LOCALHOST"):
        assert served.client.get("/health", headers={"Host": host}).status_code == 200


FOREIGN: list[dict[str, str]] = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://["},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:1"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: " ".join(headers.values()))
@pytest.mark.parametrize(
    "path",
    ["/predict", "/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/run/predict", "/gradio_api/cancel"],
)
def test_a_page_of_another_site_changes_nothing(served: Served, png: bytes, path: str, headers: dict[str, str]):
    disk = served.disk
    answer = served.client.post(path, files={"files": png}, headers=headers)
    assert answer.status_code == 403 and is_json_error(answer)
    assert served.disk == disk


def test_our_own_page_may(served: Served, png: bytes):
    origin = f"http://127.0.0.1:{served.port}"
    for headers in (
        {"Origin": origin},
        {"Origin": origin, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        assert served.client.post("/predict", files={"file": png}, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ROUTES)
def test_no_other_site_may_read_an_answer(served: Served, path: str):
    """Gradio by itself allows any page of this machine, with its cookies."""
    for origin in ("http://localhost:3000", "http://evil.example", "null"):
        answer = served.client.get(path, headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-credentials" not in answer.headers
        preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answer = served.client.options(path, headers=preflight)
        assert "access-control-allow-origin" not in answer.headers
        assert answer.status_code == 400 and is_json_error(answer)


def test_the_page_loads_nothing_from_elsewhere_and_is_framed_by_nobody(served: Served):
    for path in ("/", "/docs"):
        policy = served.client.get(path).headers["content-security-policy"]
        assert "default-src 'self'" in policy and "frame-ancestors 'self'" in policy and "http" not in policy


# --------------------------------------------------------------------------------------------------------------------
# 6: one door for pictures


@pytest.fixture
def trap() -> Any:
    """A server that should never be asked for anything."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_no_address_that_a_client_names_is_fetched(served: Served, trap: Any):
    address, asked = trap
    file: dict[str, Any] = {"meta": {"_type": "gradio.FileData"}}
    for payload in (
        {"path": f"{address}/a.png"},
        {"path": f"{address}/a.png", **file},
        {"path": None, "url": f"{address}/a.png"},
        {"path": "", "url": f"{address}/a.png", **file},
        {"url": f"{address}/a.png", **file},
        {"path": f"  {address}/a.png", **file},
        {"path": f"//127.0.0.1/{address}", **file},
        {"path": f"ftp://{address[7:]}/a.png", **file},
        f"{address}/a.png",
    ):
        said = served.call("detect_captcha", [payload, None])
        assert "error" in said, payload
    for path in (f"file={address}/a.png", f"file/{address}/a.png", f"proxy={address}/a.png", f"file=//{address[7:]}/a"):
        assert served.client.get(f"/gradio_api/{path}").status_code in (403, 404)
    assert asked == []


def test_a_picture_in_a_call_is_opened_by_our_own_reader(served: Served, png: bytes):
    def payload(data: bytes, kind: str) -> dict[str, Any]:
        return {"path": None, "url": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}

    truth = served.read(png).json()["text"]
    assert json.dumps(truth) in served.call("detect_captcha", [payload(png, "png"), None])
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 30000 30000\n%%EndComments\n"
    before = served.memory
    for data, kind in (
        (eps, "eps"),
        (b"P5 30000 30000 255\n", "x-portable-graymap"),
        (b"8BPS\0\1" + b"\0" * 99, "psd"),
    ):
        assert "not a picture that can be read" in served.call("detect_captcha", [payload(data, kind), None])
    assert served.memory <= before + MEMORY_SLACK


@pytest.mark.parametrize("meta", [{}, {"meta": {"_type": "gradio.FileData"}}])
def test_only_uploads_are_read_whatever_a_call_names(served: Served, png: bytes, meta: dict[str, Any], tmp_path: Path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png)
    (served.temporary / "link.png").unlink(missing_ok=True)
    for path in (str(secret), "/etc/passwd", f"{served.folder}/../{secret.name}", "../secret.png", "\0"):
        said = served.call("detect_captcha", [{"path": path} | meta, None])
        assert '"text"' not in said and "error" in said, path
        assert "root:" not in said


# --------------------------------------------------------------------------------------------------------------------
# 7: script in a checkpoint


def test_what_a_checkpoint_says_of_itself_runs_nothing_on_the_page(served: Served, models_folder: Path):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    reader = ROOT / "saved_models" / "reader.safetensors"
    with safe_open(reader, "np") as file:
        metadata = file.metadata()
    script = "<img src=x onerror=alert(1)>"
    path = models_folder / "hostile.safetensors"
    try:
        for changes in ({"max_length": script}, {"image_size": [script, 48]}, {"name": script}, {"backbone": script}):
            told = json.dumps(json.loads(metadata["model"]) | changes)
            save_file(load_file(reader), path, metadata | {"model": told, "provenance": json.dumps({"data": script})})
            assert script not in served.call("describe_model", [path.name])
            answer = served.client.post("/predict", files={"file": b"x"}, data={"model": path.name})
            assert answer.status_code in (415, 422) and is_json_error(answer)
    finally:
        path.unlink(missing_ok=True)


# --------------------------------------------------------------------------------------------------------------------
# 8: the temporary folder


def test_an_upload_that_is_cut_off_leaves_nothing(served: Served):
    body, kind = form(noise(2_000_000), "files")
    before = served.disk
    for _ in range(5):
        with served.connect() as connection:
            connection.sendall(request("/gradio_api/upload", body, kind)[:-500_000])
    end = time.monotonic() + 20
    while served.disk > before:
        assert time.monotonic() < end, "what was cut off is still there"
        time.sleep(0.05)


def test_uploads_are_bounded_in_all(served: Served):
    for _ in range(12):
        answer = served.client.post("/gradio_api/upload", files={"files": ("a.zip", noise(4_000_000))})
        assert answer.status_code in (200, 507), answer.text
    assert served.disk <= 30_000_000
    last = Path(answer.json()[0])
    assert last.is_file() and last.is_relative_to(served.folder)


def test_the_folder_of_uploads_is_private(served: Served):
    assert served.folder.stat().st_mode & 0o077 == 0
    for name in ("../../x.png", "a/b.png", "..", "", "x" * 500 + ".png", "\0.png", "C:\\x.png", "é\u202e.png"):
        answer = served.client.post("/gradio_api/upload", files={"files": (name or "-", b"x")})
        assert answer.status_code == 200, answer.text
        path = Path(answer.json()[0])
        assert path.parent.parent == served.folder and path.is_file() and len(os.fsencode(path.name)) <= 110


# --------------------------------------------------------------------------------------------------------------------
# 9: the end


def test_sigterm_ends_everything_and_a_kill_is_cleared_up_after(models_folder: Path, png: bytes, tmp_path: Path):
    server = Served(models_folder, tmp_path / "data", temporary=tmp_path / "tmp")
    assert server.client.post("/gradio_api/upload", files={"files": png}).status_code == 200
    left = tmp_path / "tmp" / f"captcha-reader-{2**22 + 1}-abcdefgh"  # of a process that was killed
    left.mkdir()
    with server.connect() as idle:  # an open page does not hold it up
        idle.sendall(b"GET /gradio_api/heartbeat/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        idle.recv(100)
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
    assert [path.name for path in (tmp_path / "tmp").iterdir()] == [left.name]
    storage._clear_leftovers(tmp_path / "tmp")
    assert not list((tmp_path / "tmp").iterdir())


# --------------------------------------------------------------------------------------------------------------------
# 10: connections and places


def test_half_open_connections_keep_nobody_out(served: Served, png: bytes):
    usual = seconds_of(lambda: served.read(png), 3)
    half_open = []
    try:
        for i in range(300):
            connection = served.connect()
            connection.sendall(b"POST /predict HT" if i % 2 else b"")
            half_open.append(connection)
        with httpx.Client(base_url=served.address, timeout=30, trust_env=False) as other:
            started = time.monotonic()
            assert other.post("/predict", files={"file": png}).status_code == 200
            assert time.monotonic() - started <= 2 * usual + SLACK
    finally:
        for connection in half_open:
            connection.close()


def test_a_head_that_does_not_arrive_is_given_up(served: Served):
    with served.connect() as silent, served.connect() as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        started = time.monotonic()
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert silent.recv(100) == b""
        assert 5 < time.monotonic() - started < 25


def test_one_client_has_a_bounded_part_of_the_page_s_queue(served: Served, png: bytes):
    """Sixteen events; the places of others stay free."""
    upload = served.client.post("/gradio_api/upload", files={"files": ("a.png", png)}).json()[0]
    body = {"data": [{"path": upload}, None]}
    sessions = [served.client.post("/gradio_api/call/detect_captcha", json=body) for _ in range(60)]
    assert {answer.status_code for answer in sessions} <= {200, 503}
    assert all(is_json_error(answer) for answer in sessions if answer.status_code == 503)
    end = time.monotonic() + 60
    while served.client.post("/gradio_api/call/detect_captcha", json=body).status_code != 200:
        assert time.monotonic() < end
        time.sleep(0.1)


# --------------------------------------------------------------------------------------------------------------------
# 12: every answer is JSON


@pytest.mark.parametrize("path", ["/predict", "/gradio_api/upload"])
@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data; boundary=b; charset=nonsense",
        "multipart/form-data; boundary=b; charset=utf-16",
        "multipart/form-data; boundary=b; charset=unicode_escape",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "b" * 9000,
        "multipart/form-data",
        "multipart/form-data; boundary=\xff",
    ],
)
def test_odd_forms_are_refused_in_json(served: Served, png: bytes, path: str, kind: str):
    body = form(png, "files")[0].replace(b"a.png", b"\\ud800.png")  # half a character, where escapes count
    answer = served.client.post(path, content=body, headers={"Content-Type": kind.encode("latin-1")})
    assert answer.status_code in (200, 422), answer.text
    assert answer.status_code == 200 or is_json_error(answer)


@pytest.mark.parametrize(
    "said",
    ['{"tab": NaN}', '{"tab": 1e999}', '{"tab": "a", "do": "\\ud800"}', f'{{"tab": {"[" * 900}{"]" * 900}}}', "{"],
    ids=["nan", "infinity", "half a character", "deep", "cut off"],
)
def test_an_answer_that_is_none_is_refused_in_one_sentence(served: Served, said: str):
    answer = served.client.post("/labels/x/answer", content=said, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and answer.json()["status"] == 422
    assert answer.json()["error"].startswith("the request cannot be used (") and len(answer.text) < 300


def test_what_is_no_http_and_what_is_nowhere_is_refused_in_json(served: Served):
    for sent in (
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"GET /\r\n\r\n",
    ):
        with served.connect() as connection:
            connection.sendall(sent)
            head, _, body = connection.recv(2000).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400") and json.loads(body)["error"]
    for method, path in (
        ("GET", "/nowhere"), ("GET", "/gradio_api/vibe-code"), ("POST", "/gradio_api/component_server"),
        ("POST", "/login"), ("GET", "/gradio_api/file=/etc/passwd"), ("DELETE", "/predict"), ("PUT", "/models/x"),
        ("GET", "/gradio_api/heartbeat/a.b"), ("GET", "/gradio_api/queue/data"),
        ("POST", "/gradio_api/queue/join"),
    ):  # fmt: skip
        answer = served.client.request(method, path)
        assert 400 <= answer.status_code < 500, (path, answer.status_code)
        assert is_json_error(answer), answer.text


def test_a_method_that_an_address_does_not_take_is_405_beside_the_page(served: Served):
    for path, allowed in (("/predict", "POST"), ("/models", "GET, HEAD"), ("/models/reader.onnx", "GET, HEAD")):
        for method in {"GET", "PUT", "DELETE", "POST"} - set(allowed.split(", ")):
            answer = served.client.request(method, path)
            assert answer.status_code == 405 and answer.headers["allow"] == allowed, (method, path, answer.text)
            assert answer.json()["status"] == 405 and allowed in answer.json()["error"]
    for path in ("/health", "/models", "/models/reader.onnx", "/docs", "/openapi.json"):
        got, head = served.client.get(path), served.client.head(path)
        assert head.status_code == got.status_code == 200 and not head.content, path
    answer = served.client.post("/access", data={"token": "a"})
    assert answer.status_code == 404 and answer.json()["status"] == 404, "there is no token to send"


def test_the_server_is_as_it_was(served: Served, png: bytes):
    """After all that: it answers, nothing waits, and nobody saw a traceback of ours."""
    assert served.read(png).status_code == 200
    health = served.client.get("/health").json()
    assert health["status"] == "ok" and health["waiting"] == 0
    assert "captcha_reader/web" not in served.said
