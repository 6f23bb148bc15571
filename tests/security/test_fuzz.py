"""Broken pictures, zips, JSON bodies and calls of the page, from a seeded generator, at a running server.

No 5xx, no traceback in an answer, none that takes long. A short part runs always; `-m nightly` runs the long one.
"""

from __future__ import annotations

import base64
import json
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from conftest import zipped
from served import Served

from benchmarks.hostile import mutants

pytest_plugins = ["served"]

LONGEST = 5.0  # seconds of one answer, on a machine that does nothing else
PART = [
    pytest.param(60, id="short"),
    pytest.param(5000, id="long", marks=[pytest.mark.nightly, pytest.mark.timeout(0)]),
]
ZIPS = [pytest.param(30, id="short"), pytest.param(500, id="long", marks=[pytest.mark.nightly, pytest.mark.timeout(0)])]


def throw(served: Served, requests: list[dict[str, Any]], path: str = "/predict") -> Counter[int]:
    """Send all, four at a time; gives the statuses."""
    statuses: Counter[int] = Counter()
    usual = max(0.05, _seconds(served, requests[0], path))

    def send(request: dict[str, Any]) -> None:
        started = time.monotonic()
        answer = served.client.post(path, **request)
        taken = time.monotonic() - started
        statuses[answer.status_code] += 1
        assert answer.status_code < 500 or answer.status_code in (503, 507), answer.text
        assert "Traceback" not in answer.text
        assert taken < LONGEST + 20 * usual
        if answer.status_code >= 400:
            said = json.loads(answer.text)
            assert said.get("error") or said.get("detail")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, requests))
    return statuses


def _seconds(served: Served, request: dict[str, Any], path: str) -> float:
    started = time.monotonic()
    served.client.post(path, **request)
    return time.monotonic() - started


def originals(png: bytes) -> list[bytes]:
    """The picture in every format that is read."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        small = image.convert("RGB").resize((60, 24))
    found = [png]
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        options = {"save_all": True, "append_images": [small.rotate(180)]} if kind in ("GIF", "WEBP") else {}
        small.save(buffer, kind, **options)
        found.append(buffer.getvalue())
    return found


@pytest.mark.parametrize("count", PART)
def test_broken_pictures(served: Served, png: bytes, count: int):
    statuses = throw(served, [{"files": {"file": ("x", data)}} for data in mutants(count, count, originals(png))])
    assert set(statuses) <= {200, 413, 415, 422} and statuses[200] and statuses[422] + statuses[415]


@pytest.mark.parametrize("count", ZIPS)
def test_broken_zips(served: Served, png: bytes, count: int):
    pictures = originals(png)
    zips = [zipped({"a.png": png, "b/b.jpg": pictures[2], "labels.csv": b"a.png,aa"}), zipped({"a.png": b""})]
    statuses = throw(served, [{"files": {"file": ("x.zip", data)}} for data in mutants(count + 1, count, zips)])
    assert set(statuses) <= {200, 413, 415, 422} and statuses[200] and statuses[422] + statuses[415]


def odd_value(rng: random.Random, png: str, depth: int = 0) -> Any:
    """A JSON value that somebody might send, or nobody would."""
    kinds = ["text", "number", "picture", "null", "flag", "url"] + (["list", "object"] * 2 if depth < 4 else [])
    kind = rng.choice(kinds)
    if kind == "list":
        return [odd_value(rng, png, depth + 1) for _ in range(rng.randrange(5))]
    if kind == "object":
        names = ("image", "images", "model", "path", "url", "data", "meta", "fn_index", "session_hash", "x\ud800", "")
        return {rng.choice(names): odd_value(rng, png, depth + 1) for _ in range(rng.randrange(5))}
    return {
        "text": rng.choice(
            ["", "\0", "a" * 1000, "../x", "reader.onnx", "\u202e", "data:,", "data:image/png;base64,!"]
        ),
        "number": rng.choice([0, -1, 10**30, 1e308, 0.5]),
        "picture": rng.choice([png, png[:-3], f"data:image/png;base64,{png}", f" DATA:x;base64,{png[:40]}"]),
        "null": None,
        "flag": rng.random() < 0.5,
        "url": rng.choice(["http://127.0.0.1:9/x", "file:///etc/passwd", "/etc/passwd", "//x/y"]),
    }[kind]


@pytest.mark.parametrize("count", ZIPS)
@pytest.mark.parametrize(
    "path", ["/predict", "/gradio_api/queue/join", "/gradio_api/call/detect_captcha", "/gradio_api/cancel"]
)
def test_odd_json(served: Served, png: bytes, path: str, count: int):
    rng = random.Random(count)
    text = base64.b64encode(png).decode()
    bodies = []
    for _ in range(count):
        fields = rng.sample(["image", "images", "model", "data", "fn_index", "session_hash", "event_id"], 3)
        said = {name: odd_value(rng, text) for name in fields} if rng.random() < 0.8 else odd_value(rng, text)
        body = json.dumps(said).encode()
        bodies.append(mutants(rng.randrange(10**6), 1, [body])[0] if rng.random() < 0.3 else body)
    headers = {"Content-Type": "application/json"}
    statuses = throw(served, [{"content": body, "headers": headers} for body in bodies], path)
    assert any(400 <= status < 500 for status in statuses)
    assert served.read(png).status_code == 200
    assert served.client.get("/health").status_code == httpx.codes.OK
