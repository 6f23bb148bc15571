"""The REST route over a real socket, the checks of uploads, and thousands of broken files thrown at it."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import math
import os
import random
import re
import signal
import socket
import struct
import threading
import time
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from conftest import zipped
from PIL import Image
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from captcha_reader.config import InterfaceConfig
from captcha_reader.errors import UserError
from captcha_reader.images import open_image
from captcha_reader.transforms import View
from captcha_reader.web import bodies, deadline, routes
from captcha_reader.web.api import build_api
from captcha_reader.web.batcher import Batcher
from captcha_reader.web.deadline import TimedBackend
from captcha_reader.web.lanes import BULK_WAITING, SMALL_BYTES, BulkLane, is_small
from captcha_reader.web.limits import Limits, Refused
from captcha_reader.web.models import KEPT_MODELS, Models
from captcha_reader.web.server import ending_by_signals, listen
from captcha_reader.web.uploads import PictureZip, check_picture, decode_base64
from interface import limits_of, open_models
from predict import CaptchaPredictor

LIMITS = Limits(request_bytes=1_000_000, pixels=1_000_000, pictures=20, queue=40, batch=8, seconds=2)


# --------------------------------------------------------------------------------------------------------------------
# Models


@pytest.fixture
def folder(reader: Path, exported: Path, tmp_path: Path) -> Path:
    """A saved_models/ with the shipped weights, runs, and files that are none of the route's business."""
    models = tmp_path / "models"
    for run in ("run", ".building"):
        (models / run).mkdir(parents=True)
    for name in ("reader.safetensors", "run/best.safetensors", "run/last.safetensors", ".hidden.safetensors"):
        (models / name).write_bytes(reader.read_bytes())
    (models / ".building" / "best.safetensors").write_bytes(reader.read_bytes())
    (models / "run" / "best.onnx").write_bytes(exported.read_bytes())
    (models / "broken.onnx").write_bytes(b"no model")
    (models / "state.pt").write_bytes(b"pickle")
    (tmp_path / "secret.safetensors").write_bytes(reader.read_bytes())
    (models / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    return models


OFFERED = ["reader.safetensors", "broken.onnx", "run/best.onnx", "run/best.safetensors"]


def test_only_models_inside_the_folder_are_offered(folder: Path, reader: Path):
    assert list(open_models(folder).paths()) == OFFERED
    assert next(iter(open_models(folder, folder / "run" / "best.safetensors").paths())) == "run/best.safetensors"
    assert len(open_models(folder, folder / "run" / "best.safetensors").paths()) == 4
    elsewhere = open_models(folder, folder.parent / "secret.safetensors")
    assert next(iter(elsewhere.paths())) == "secret.safetensors" and len(elsewhere.paths()) == 5
    namesake = open_models(folder, reader).paths()  # another reader.safetensors
    assert len(namesake) == 5 and next(iter(namesake.values())) == reader


def test_the_export_of_the_shipped_weights_comes_first_unless_it_is_old(folder: Path, exported: Path):
    (folder / "reader.onnx").write_bytes(exported.read_bytes())
    assert next(iter(open_models(folder).paths())) == "reader.onnx"
    os.utime(folder / "reader.onnx", (1, 1))
    assert next(iter(open_models(folder).paths())) == "reader.safetensors"


def test_without_a_reader_the_newest_of_the_folder_comes_first(folder: Path):
    (folder / "reader.safetensors").unlink()
    (folder / "broken.onnx").unlink()
    for path in folder.glob("run/best.*"):
        os.utime(path, (1, 1 + (path.suffix == ".onnx")))
    assert list(open_models(folder).paths()) == ["run/best.onnx", "run/best.safetensors"]
    os.utime(folder / "run" / "best.onnx", (1, 0))
    assert next(iter(open_models(folder).paths())) == "run/best.safetensors"


@pytest.mark.parametrize(
    "name",
    [
        "../secret.safetensors",
        "link.safetensors",
        "run/last.safetensors",
        ".building/best.safetensors",
        "/etc/passwd",
        "",
    ],
)
def test_a_name_that_is_not_offered_opens_nothing(folder: Path, name: str):
    with pytest.raises(UserError, match="no model"):
        open_models(folder).predictor(name)
    with pytest.raises(UserError, match="no model"):
        open_models(folder).predictor(str(folder / "reader.safetensors"))


def test_a_model_is_loaded_once_and_again_when_its_file_changes(folder: Path, tiny: Callable):
    from model import build_model, save_checkpoint

    models = open_models(folder, threads=1)
    first = models.predictor()
    assert models.predictor("reader.safetensors") is first and models.predictor("run/best.safetensors") is not first
    save_checkpoint(build_model(tiny(alphabet="xyz")), folder / "reader.safetensors")
    assert models.predictor().alphabet.characters == "xyz"
    with pytest.raises(UserError, match="damaged"):
        models.predictor("broken.onnx")


def test_a_model_that_takes_long_to_load_keeps_no_other_waiting(exported: Path, tmp_path: Path):
    for name in ("reader.onnx", "slow.onnx"):
        (tmp_path / name).write_bytes(exported.read_bytes())
    go, loads = threading.Event(), Counter[str]()

    def load(path: Path, threads: int | None) -> Any:
        loads[path.name] += 1
        assert path.name != "slow.onnx" or go.wait(20)
        return CaptchaPredictor(path, threads=1)

    models = Models(load, tmp_path)
    with ThreadPoolExecutor(3) as threads:
        slow = [threads.submit(models.predictor, "slow.onnx") for _ in range(2)]
        wait_for(lambda: loads["slow.onnx"])
        try:
            assert threads.submit(models.predictor, "reader.onnx").result(10)
        finally:
            go.set()
        assert slow[0].result(20) is slow[1].result(20) is models.predictor("slow.onnx")
    assert loads == {"reader.onnx": 1, "slow.onnx": 1} and models.loaded == 2


def test_a_missing_checkpoint_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match=rf"{tmp_path} holds no checkpoint.*main\.py"):
        open_models(tmp_path)
    with pytest.raises(UserError, match=r"no folder .*nowhere: check --models"):
        open_models(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"x\.onnx"):
        open_models(tmp_path, tmp_path / "x.onnx")


# --------------------------------------------------------------------------------------------------------------------
# Pictures


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that claims, and has, that many pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * (width // 8 + 2)) for _ in range(min(height, 200))) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def odd_pictures() -> dict[str, bytes]:
    """Kinds of pictures that are read like any other."""
    base = Image.effect_noise((60, 24), 60).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [base, base.rotate(180)]
    return {
        "cmyk.jpg": encoded(base.convert("CMYK"), "JPEG"),
        "16-bit.png": encoded(Image.fromarray(np.arange(60 * 24, dtype=np.uint16).reshape(24, 60) * 40)),
        "palette.png": encoded(base.convert("P", palette=Image.Palette.ADAPTIVE)),
        "turned.jpg": encoded(base, "JPEG", exif=exif),
        "moving.gif": encoded(base.convert("P"), "GIF", save_all=True, append_images=[f.convert("P") for f in frames]),
        "moving.webp": encoded(base, "WEBP", save_all=True, append_images=frames),
        "see-through.png": encoded(base.convert("RGBA")),
        "1-bit.bmp": encoded(base.convert("1"), "BMP"),
        "one-pixel.png": encoded(Image.new("L", (1, 1))),
    }


def bad_pictures() -> dict[str, tuple[bytes, int]]:
    """Uploads that are refused, and the status that says why."""
    good = encoded(Image.effect_noise((60, 24), 60))
    return {
        "empty": (b"", 422),
        "text": (b"no picture at all", 415),
        "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", 415),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415),
        "cut short": (good[: len(good) // 2], 422),
        "bomb": (bomb(50_000, 50_000), 413),
        "huge": (bomb(4000, 3000), 413),
        "no pixels": (b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b";", 415),
    }


@pytest.mark.parametrize("name", odd_pictures())
def test_odd_pictures_are_read(name: str):
    data = odd_pictures()[name]
    np.testing.assert_array_equal(np.asarray(check_picture(data)), np.asarray(open_image(data)))


@pytest.mark.parametrize("name", bad_pictures())
def test_bad_pictures_are_refused_with_a_reason(name: str):
    data, status = bad_pictures()[name]
    with pytest.raises(Refused) as refused:
        check_picture(data, "the upload", LIMITS.pixels)
    assert refused.value.status == status, str(refused.value)
    assert "the upload" in str(refused.value)


# --------------------------------------------------------------------------------------------------------------------
# Zips


def link(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = 0o120777 << 16
        file.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def lying_zip() -> bytes:
    """An entry of 8 MB that says it has 1,000 bytes."""
    data = zipped({"a.png": b"\0" * 8_000_000})
    size = struct.pack("<I", 8_000_000)
    return data.replace(size, struct.pack("<I", 1000))


def test_a_zip_gives_its_pictures_and_labels():
    pictures = PictureZip(
        zipped({"x/a.png": b"1", "x/b.JPG": b"2", "x/labels.csv": b"a.png,aa", "__MACOSX/a.png": b"", "notes.txt": b""})
    )
    assert list(pictures) == [("x/a.png", b"1"), ("x/b.JPG", b"2")]
    assert pictures.find_labels().take("x/a.png") == "aa"
    assert list(PictureZip(zipped({}))) == []


@pytest.mark.parametrize(
    "name", ["../a.png", "a/../../b.png", "/etc/a.png", "C:/a.png", "..\\a.png", "\\a.png", "a/.."]
)
def test_names_that_lead_out_of_a_zip_are_refused(name: str):
    with pytest.raises(Refused, match="leads out"):
        PictureZip(zipped({"good.png": b"1", name: b"2"}))


def crowd(entries: int, zip64: bool = False) -> bytes:
    """A zip whose directory names one entry so many times."""
    data = zipped({"a.png": b"1"}, zipfile.ZIP_STORED)
    start = data.index(b"PK\x01\x02")
    entry = data[start : data.index(b"PK\x05\x06")]
    count = entries & 0xFFFF
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, entries * len(entry), start, 0)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, start, 1) if zip64 else b""
    return data[:start] + entry * entries + locator + end


def test_zips_that_are_too_much_are_refused():
    for data in (crowd(100_000), crowd(3000), crowd(100_000, zip64=True), crowd(3, zip64=True)):
        started = time.monotonic()
        assert re.search("entries: at most 2,000|zip64", refusal(data))
        assert time.monotonic() - started < 0.5, "it looked at every entry"
    assert "more than 20 MB" in refusal(zipped({"a.png": b"\0" * 21_000_000}))
    assert "more than 1 MB" in refusal_of(
        PictureZip, zipped({f"{i}.png": b"\0" * 400_000 for i in range(3)}), 9, 1_000_000
    )
    with pytest.raises(Refused, match=r"larger than it says|damaged"):
        list(PictureZip(lying_zip()))
    assert "link" in refusal(link("a.png"))


def refusal_of(make: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(Refused) as refused:
        list(make(*arguments))
    return str(refused.value)


def refusal(data: bytes) -> str:
    with pytest.raises(Refused) as refused:
        list(PictureZip(data))
    return str(refused.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"PK\x05\x06" + b"\xff" * 30, b"x" * 100])
def test_what_is_no_zip_is_refused(data: bytes):
    with pytest.raises(Refused, match="zip"):
        list(PictureZip(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_packed_in_a_rare_way_is_refused(method: int):
    """zipfile would unpack all of it at once, in spite of the size it says."""
    data = zipped({"a.png": b"\0" * 100_000}, method).replace(struct.pack("<I", 100_000), struct.pack("<I", 1000))
    assert "deflate" in refusal(data)


def test_an_encrypted_zip_is_refused():
    data = bytearray(zipped({"a.png": b"1"}, zipfile.ZIP_STORED))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "password" in refusal(bytes(data))


# --------------------------------------------------------------------------------------------------------------------
# Reading together


class Slow:
    """A predictor that can be held up and remembers its batches."""

    def __init__(self, real: CaptchaPredictor) -> None:
        self.real, self.sizes, self.go = real, [], threading.Event()

    def view(self, image: Any, name: str = "") -> View:
        return self.real.view(image, name)

    def read(self, views: list[View]) -> list[Any]:
        self.sizes.append(len(views))
        assert self.go.wait(20)
        return self.real.read(views)


@pytest.fixture
def slow(reader: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Models, Slow]:
    models = open_models(reader.parent, reader, threads=1)
    predictor = Slow(models.predictor())
    monkeypatch.setattr(models, "predictor", lambda name=None: predictor)
    return models, predictor


def test_pictures_that_wait_are_read_together_and_in_order(slow: tuple[Models, Slow], captchas: list):
    models, predictor = slow
    batcher = Batcher(models, LIMITS)
    pictures = [png for png, _ in captchas[:12]]
    futures = [batcher.submit([("a picture", png)]) for png in pictures]
    wait_for(lambda: predictor.sizes and not batcher._decoding)
    predictor.go.set()
    texts = [future.result(20)[0].prediction.text for future in futures]
    assert texts == [p.text for p in predictor.real.predict(pictures)]
    assert sum(predictor.sizes) == 12 and max(predictor.sizes) <= LIMITS.batch and len(predictor.sizes) <= 4
    wait_for(lambda: batcher.waiting == 0)


def test_a_full_queue_refuses_and_recovers(slow: tuple[Models, Slow], captchas: list):
    models, predictor = slow
    batcher = Batcher(models, LIMITS)
    futures = [batcher.submit([("a picture", captchas[0][0])] * 10) for _ in range(4)]
    with pytest.raises(Refused) as refused:
        batcher.submit([("a picture", captchas[0][0])])
    assert refused.value.status == 503
    predictor.go.set()
    assert all(len(future.result(20)) == 10 for future in futures)
    wait_for(lambda: batcher.waiting == 0)
    assert len(batcher.submit([("a picture", captchas[0][0])]).result(20)) == 1


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


class Backend:
    """A network that never ends, or gives what is no reading."""

    def __init__(self, answer: Callable[[np.ndarray], Any]) -> None:
        self.answer, self.stopped = answer, False

    def log_probs(self, pixels: np.ndarray) -> Any:
        return self.answer(pixels)

    def stop(self) -> None:
        self.stopped = True


def test_a_model_that_never_ends_keeps_no_other_waiting(reader: Path, exported: Path, captchas: list, tmp_path: Path):
    (tmp_path / "reader.onnx").write_bytes(exported.read_bytes())
    (tmp_path / "endless.onnx").write_bytes(exported.read_bytes())
    models = open_models(tmp_path, threads=1, seconds=1.0)
    go = threading.Event()
    endless = models.predictor("endless.onnx")
    backend = endless.backend.backend = Backend(lambda pixels: go.wait(60))
    batcher = Batcher(models, LIMITS)
    stuck = [batcher.submit([("a picture", captchas[0][0])], "endless.onnx") for _ in range(3)]
    started = time.monotonic()
    assert batcher.submit([("a picture", captchas[0][0])], "reader.onnx").result(30)
    for ticket in stuck:
        with pytest.raises(Refused, match=r"endless\.onnx takes longer than 1 seconds") as refused:
            ticket.result(30)
        assert refused.value.status == 504
    assert time.monotonic() - started < 20 and backend.stopped
    go.set()  # it ends after all, and is asked again
    wait_for(lambda: not endless.backend.overdue)
    wait_for(lambda: batcher.waiting == 0)


@pytest.mark.parametrize(
    "answer",
    [
        lambda pixels: np.full((len(pixels), 5, 5), np.nan, np.float32),
        lambda pixels: np.zeros((len(pixels) + 1, 5, 5), np.float32),
        lambda pixels: np.zeros(3, np.float32),
        lambda pixels: None,
        lambda pixels: 1 / 0,
    ],
    ids=["nan", "too many", "flat", "nothing", "error"],
)
def test_a_model_that_gives_no_reading_is_refused(exported: Path, captchas: list, answer: Callable):
    models = open_models(exported.parent, exported, threads=1)
    models.predictor().backend.backend = Backend(answer)
    with pytest.raises(Refused, match=r"reader\.onnx") as refused:
        Batcher(models, LIMITS).submit([("a picture", captchas[0][0])]).result(30)
    assert refused.value.status == 422


def test_one_client_has_a_part_of_the_queue(slow: tuple[Models, Slow], captchas: list):
    models, predictor = slow
    batcher = Batcher(models, replace(LIMITS, client_queue=15))
    pictures = [("a picture", captchas[0][0])] * 10
    first = batcher.submit(pictures, client="10.0.0.1")
    with pytest.raises(Refused, match="of yours"):
        batcher.submit(pictures, client="10.0.0.1")
    other = batcher.submit(pictures, client="10.0.0.2")
    assert batcher.oldest > 0
    predictor.go.set()
    assert len(first.result(20)) == len(other.result(20)) == 10
    wait_for(lambda: batcher.oldest == 0.0)


def test_pictures_of_a_client_that_is_gone_are_not_read(slow: tuple[Models, Slow], captchas: list):
    models, predictor = slow
    batcher = Batcher(models, LIMITS)
    first = batcher.submit([("a picture", captchas[0][0])])
    wait_for(lambda: predictor.sizes)
    gone = batcher.submit([("a picture", captchas[0][0])] * 5)
    gone.drop()
    predictor.go.set()
    assert len(first.result(20)) == 1
    with pytest.raises(Refused, match="gone"):
        gone.result(20)
    assert sum(predictor.sizes) == 1


def test_many_pictures_leave_room_for_small_requests(slow: tuple[Models, Slow], captchas: list):
    models, predictor = slow
    batcher = Batcher(models, LIMITS)  # 40 pictures wait at most, 25 of them of requests with many
    pictures = [("a picture", captchas[0][0])] * 13
    many = batcher.submit(pictures, bulk=True)
    with pytest.raises(Refused, match="too many large or many pictures") as refused:
        batcher.submit(pictures, bulk=True)
    assert refused.value.status == 503
    small = batcher.submit(pictures)
    predictor.go.set()
    assert len(many.result(20)) == len(small.result(20)) == 13


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)], ids=["an error first", "a refusal first"])
def test_one_request_that_breaks_a_batch_does_not_spoil_the_others(
    slow: tuple[Models, Slow], captchas: list, caplog: pytest.LogCaptureFixture, order: tuple[int, ...]
):
    """Whichever of them breaks it, an error of ours is in the log: its answer says so."""
    models, predictor = slow
    batcher = Batcher(models, LIMITS)
    first, good, bad, wrong = (png for png, _ in captchas[:4])
    views = {bad: RuntimeError("/srv/me: out of order"), wrong: UserError("it cannot be read")}
    broken = {predictor.real.view(open_image(png)).pixels.tobytes(): error for png, error in views.items()}
    really = predictor.read

    def read(views: list[View]) -> list[Any]:
        for view in views:
            if view.pixels.tobytes() in broken:
                predictor.sizes.append(len(views))
                raise broken[view.pixels.tobytes()]
        return really(views)

    predictor.read = read
    held = batcher.submit([("a picture", first)])
    wait_for(lambda: predictor.sizes)
    tickets = {}
    for which in order:
        tickets[which] = batcher.submit([("a picture", (good, bad, wrong)[which])])
        wait_for(lambda: not batcher._decoding)  # one by one: so the batch has them in this order
    predictor.go.set()
    expected = [p.text for p in predictor.real.predict([first, good])]
    assert [ticket.result(20)[0].prediction.text for ticket in (held, tickets[0])] == expected
    for ticket, status, words in ((tickets[1], 500, "its terminal says what"), (tickets[2], 422, "it cannot be read")):
        with pytest.raises(Refused, match=words) as refused:
            ticket.result(20)
        assert refused.value.status == status and "/srv" not in str(refused.value)
    assert 3 in predictor.sizes and "out of order" in caplog.text
    wait_for(lambda: batcher.waiting == 0)


def test_a_picture_that_cannot_be_prepared_leaves_the_others(
    slow: tuple[Models, Slow], captchas: list, caplog: pytest.LogCaptureFixture
):
    models, predictor = slow
    predictor.go.set()
    really, refused = predictor.view, open_image(captchas[0][0]).tobytes()

    def view(image: Any, name: str = "") -> View:
        if image.tobytes() == refused:
            raise UserError("it is too narrow")
        return really(image, name)

    predictor.view = view
    batcher = Batcher(models, LIMITS)
    one, other = batcher.submit([("a", captchas[0][0]), ("b", captchas[1][0])]).result(20)
    assert isinstance(one, Refused) and (one.status, str(one)) == (422, "it is too narrow")
    assert other.prediction.text == predictor.real.predict([captchas[1][0]])[0].text
    assert batcher.submit([]).result(20) == []
    predictor.view = lambda image, name="": 1 / 0
    with pytest.raises(Refused, match="its terminal says what"):
        batcher.submit([("a", captchas[0][0])]).result(20)
    assert "ZeroDivisionError" in caplog.text
    wait_for(lambda: batcher.waiting == 0)


@pytest.mark.parametrize("answer", ["few", "nan"])
def test_readings_that_are_none_are_refused(slow: tuple[Models, Slow], captchas: list, answer: str):
    models, predictor = slow
    predictor.go.set()
    really = predictor.read
    few = {"few": lambda views: [], "nan": lambda views: [replace(p, confidence=math.nan) for p in really(views)]}
    predictor.read = few[answer]
    with pytest.raises(Refused, match="no reading that is a number") as refused:
        Batcher(models, LIMITS).submit([("a", captchas[0][0])]).result(20)
    assert refused.value.status == 422


def test_a_client_that_goes_before_its_batch_is_read_costs_no_pass(slow: tuple[Models, Slow], captchas: list):
    models, predictor = slow
    batcher = Batcher(models, LIMITS)
    first = batcher.submit([("a picture", captchas[0][0])])
    wait_for(lambda: predictor.sizes)
    gone = batcher.submit([("a picture", captchas[1][0])])
    wait_for(lambda: not batcher._decoding)
    gone.drop()
    predictor.go.set()
    assert len(first.result(20)) == 1
    with pytest.raises(Refused, match="the client is gone"):
        gone.result(20)
    assert predictor.sizes == [1]


def test_what_is_small_is_told_by_length_and_headers(captchas: list):
    assert is_small(captchas[0][0]) and is_small(encoded(Image.new("L", (200, 60)), "WEBP"))
    assert not is_small(bytes(SMALL_BYTES + 1))
    assert not is_small(encoded(Image.new("1", (1200, 1200)), "PNG"))
    assert not is_small(encoded(Image.new("RGBA", (1200, 1200)), "WEBP", lossless=True))
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    assert not is_small(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    assert is_small(b"no picture"), "its refusal takes no longer"


def test_the_lane_of_large_requests_is_bounded(monkeypatch: pytest.MonkeyPatch):
    async def visit() -> None:
        lane = BulkLane()
        assert await lane.run(len, b"abc") == 3 and lane.waiting == 0
        lane.waiting = BULK_WAITING
        with pytest.raises(Refused, match="too many large requests") as refused:
            await lane.run(len, b"abc")
        assert refused.value.status == 503 and lane.waiting == BULK_WAITING

    asyncio.run(visit())


def test_a_model_that_is_gone_or_breaks_is_said_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    models = open_models(folder, threads=1)
    monkeypatch.setattr(models, "path", lambda name: ("run/best.onnx", folder / "gone.onnx"))
    with pytest.raises(Refused, match=r"the model run/best\.onnx is gone: choose another, or reload the page"):
        models.predictor("run/best.onnx")
    monkeypatch.undo()
    monkeypatch.setattr(models, "_load", lambda path, threads: 1 / 0)
    with pytest.raises(Refused, match=r"the model run/best\.onnx is damaged: choose another"):
        models.predictor("run/best.onnx")
    assert "ZeroDivisionError" in caplog.text and models.loaded == 0


def test_models_in_memory_are_few(folder: Path, exported: Path, captchas: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deadline, "IDLE_SECONDS", 600)
    for i in range(KEPT_MODELS + 1):
        (folder / f"{i}.onnx").write_bytes(exported.read_bytes())
    models = open_models(folder, threads=1)
    first = models.predictor("0.onnx")
    assert models.predictor("0.onnx") is first and first.predict([captchas[0][0]])
    for i in range(1, KEPT_MODELS + 1):
        models.predictor(f"{i}.onnx")
    wait_for(lambda: "read 0.onnx" not in [thread.name for thread in threading.enumerate()])
    assert models.loaded == KEPT_MODELS and models.predictor("0.onnx") is not first, "the oldest went"


def test_a_model_of_elsewhere_keeps_a_name_of_its_own(folder: Path, reader: Path, tmp_path: Path):
    elsewhere = tmp_path / "run" / "best.safetensors"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(reader.read_bytes())
    names = open_models(folder, elsewhere).paths()
    assert next(iter(names.items())) == (str(elsewhere), elsewhere) and len(names) == 5
    assert names["run/best.safetensors"] == folder / "run" / "best.safetensors"


def test_who_asks_a_model_that_takes_too_long_is_told_at_once_until_it_has_ended():
    go = threading.Event()
    backend = Backend(lambda pixels: go.wait(20) and np.zeros((len(pixels), 3, 2), np.float32))
    timed = TimedBackend(backend, "slow.onnx", 0.05)
    pixels = np.zeros((1, 1, 4, 4), np.uint8)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(timed.log_probs, pixels) for _ in range(2)]
        for ticket in asked:
            with pytest.raises(Refused, match=r"slow\.onnx takes longer than 0\.05 seconds: choose another"):
                ticket.result(20)
    with pytest.raises(Refused, match="takes longer"):
        timed.log_probs(pixels)
    assert backend.stopped and timed.stopped is True, "what else it has is the backend's own"
    go.set()
    wait_for(lambda: not timed.overdue)
    assert timed.log_probs(pixels).shape == (1, 3, 2)
    backend.attention = lambda pixels: (_ for _ in ()).throw(Refused(422, "too wide"))
    with pytest.raises(Refused, match="too wide"):
        timed.attention(pixels)


def test_a_model_that_is_asked_no_more_leaves_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deadline, "IDLE_SECONDS", 0.05)
    timed = TimedBackend(Backend(lambda pixels: np.zeros((len(pixels), 3, 2), np.float32)), "a.onnx", 5)
    pixels = np.zeros((2, 1, 4, 4), np.uint8)
    for _ in range(2):
        assert timed.log_probs(pixels).shape == (2, 3, 2), "its thread begins anew"
        wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name == "read a.onnx"])
    memory = weakref.ref(timed.backend)
    del timed
    gc.collect()
    assert memory() is None


def test_a_port_that_is_none_is_one_sentence():
    with pytest.raises(UserError, match="there is no port 70000: --port is 0 to 65535"):
        listen("127.0.0.1", 70_000)


def test_signals_are_left_alone_outside_the_main_thread():
    before = signal.getsignal(signal.SIGTERM)

    def enter() -> Any:
        with ending_by_signals():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(enter).result(10) is before
    assert enter() is not before and signal.getsignal(signal.SIGTERM) is before


# --------------------------------------------------------------------------------------------------------------------
# Bodies and uploads, without a socket


def refused_body(body: bytes, kind: str, limits: Limits = LIMITS) -> tuple[int, str]:
    """Status and reason of a body that cannot be used."""
    headers = Headers({"content-type": kind})
    share = bodies.Share(bodies.Memory(10**9))
    with pytest.raises(Refused) as refused:
        asyncio.run(bodies.parse_body(headers, body, limits, share, BulkLane()))
    return refused.value.status, str(refused.value)


def form_of(parts: int) -> tuple[bytes, str]:
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\na\r\n'
    return head * parts + b"--x--\r\n", "multipart/form-data; boundary=x"


def test_more_pictures_than_allowed_are_refused_in_every_form(captchas: list):
    assert refused_body(*form_of(21)) == (413, "send at most 20 pictures at a time")
    many = json.dumps({"images": ["QUFB"] * 21}).encode()
    assert refused_body(many, "application/json")[0] == 413
    packed = zipped({f"{i}.png": captchas[0][0] for i in range(12)})
    texts = [base64.b64encode(packed).decode()] * 2
    status, reason = refused_body(json.dumps({"images": texts}).encode(), "application/json")
    assert status == 413 and reason == "the request has more than 20 pictures: send fewer at a time"
    texts = [base64.b64encode(data).decode() for data in (zipped({f"{i}.png": b"a" for i in range(20)}), b"PK\x03\x04")]
    status, reason = refused_body(json.dumps({"images": texts}).encode(), "application/json")
    assert status == 413 and reason == "the request has 21 pictures: send at most 20 at a time", "one cannot be opened"


def test_switches_and_forms_that_are_none_are_named(captchas: list):
    body, kind = form_of(1)
    assert refused_body(body, "multipart/form-data")[0] == 422
    said = json.dumps({"image": base64.b64encode(captchas[0][0]).decode(), "details": "yes"}).encode()
    assert refused_body(said, "application/json") == (422, "`details` must be true or false")
    field = body.replace(b"--x--", b'--x\r\ncontent-disposition: form-data; name="details"\r\n\r\nyes\r\n--x--')
    assert refused_body(field, kind) == (422, "`details` must be true or false")


def test_a_set_of_many_characters_leaves_the_loop_to_others(monkeypatch: pytest.MonkeyPatch):
    threads, parse = [], bodies.Constraints.parse

    def noted(values: dict[str, Any]) -> Any:
        threads.append(threading.current_thread())
        return parse(values)

    monkeypatch.setattr(bodies.Constraints, "parse", noted)
    body, kind = form_of(1)
    field = body.replace(
        b"--x--", "--x\r\ncontent-disposition: form-data; name=characters\r\n\r\n一-龥\r\n--x--".encode()
    )
    share = bodies.Share(bodies.Memory(10**9))
    order = asyncio.run(bodies.parse_body(Headers({"content-type": kind}), field, LIMITS, share, BulkLane()))
    assert len(order.constraints.allowed) == 20_902
    assert threads and threading.main_thread() not in threads


def test_a_body_without_a_length_is_cut_off_where_it_is_far_too_long():
    received = []

    async def stream():
        for _ in range(100):
            received.append(1)
            yield bytes(500_000)

    request = SimpleNamespace(headers={}, stream=stream)
    share = bodies.Share(bodies.Memory(10**9))
    with pytest.raises(Refused, match="the request has more than 1 MB") as refused:
        asyncio.run(bodies.receive_body(request, LIMITS, share))
    assert refused.value.status == 413 and len(received) == 7, "three times the limit, and no more"
    assert share.held <= LIMITS.request_bytes
    share.give_back()
    assert share.memory.used == 0


def test_base64_in_an_address_may_be_escaped():
    text = base64.b64encode(b"\xfb\xff+/=").decode()
    assert decode_base64("data:image/png;base64," + quote(text, safe=""), "x") == b"\xfb\xff+/="


def test_a_zip_that_is_gone_or_lies_of_its_size_is_refused(tmp_path: Path, captchas: list):
    with pytest.raises(Refused, match="the zip is gone: upload it again"):
        PictureZip(tmp_path / "gone.zip")
    assert "entries" in refusal_of(PictureZip, zipped({f"{i}.png": b"a" for i in range(4)}), 3)


def test_what_becomes_of_a_request_whose_client_hangs_up():
    async def visit(messages: list[str]) -> None:
        async def receive() -> dict[str, str]:
            if not messages:
                await asyncio.sleep(60)
            return {"type": messages.pop(0)}

        work = asyncio.get_running_loop().create_future()
        with pytest.raises(ClientDisconnect):
            await routes._while_connected(SimpleNamespace(receive=receive), work)
        assert work.cancelled() and not messages

    asyncio.run(visit(["http.request", "http.disconnect"]))


def test_limits_that_let_nothing_through_are_refused():
    for name in ("queue", "max_request_mb", "max_connections", "max_seconds"):
        with pytest.raises(UserError, match=f"--{name} must be"):
            limits_of(InterfaceConfig(**{name: 0}))
    for flags in ({"threads": 0}, {"max_seconds": 1e12}):
        with pytest.raises(UserError, match=f"--{next(iter(flags))} must be"):
            limits_of(InterfaceConfig(**flags))
    assert limits_of(InterfaceConfig(max_connections=7)).client_connections == 7


@pytest.mark.parametrize("flags", [{"queue": 10}, {"max_waiting": 10}])
def test_a_request_that_the_queue_can_never_take_is_too_large(flags: dict[str, int], captchas: list):
    body, kind = form_of(11)
    limits = limits_of(InterfaceConfig(**flags))
    assert refused_body(body, kind, limits) == (413, "send at most 10 pictures at a time"), (
        "no 503: it cannot come again"
    )
    assert limits_of(InterfaceConfig()).pictures == Limits.pictures


# --------------------------------------------------------------------------------------------------------------------
# The routes


class Server:
    """build_api on a real port, in a thread."""

    def __init__(self, models: Models, limits: Limits) -> None:
        import uvicorn

        self.app = build_api(models, limits)
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.socket.getsockname()[1]
        config = uvicorn.Config(self.app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()
        self.address = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.address, timeout=30, trust_env=False)

    def close(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(10)


@pytest.fixture(scope="module")
def server(reader: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "reader.onnx").write_bytes(exported.read_bytes())
    (folder / "torch.safetensors").write_bytes(reader.read_bytes())
    (folder / "broken.onnx").write_bytes(b"no model")
    server = Server(open_models(folder, threads=1), LIMITS)
    yield server
    server.close()


@pytest.fixture(scope="module")
def truth(exported: Path, captchas: list) -> list[dict[str, Any]]:
    predictor = CaptchaPredictor(exported, threads=1)
    return [p.as_dict() for p in predictor.predict([png for png, _ in captchas])]


def same(answer: dict[str, Any], truth: dict[str, Any]) -> bool:
    """The batch that a picture was read in may change its probabilities in the last digits."""
    return answer["text"] == truth["text"] and answer["confidence"] == pytest.approx(truth["confidence"], abs=1e-3)


def test_a_file_gives_its_reading(server: Server, captchas: list, truth: list):
    answer = server.client.post("/predict", files={"file": ("a.png", captchas[0][0])})
    assert answer.status_code == 200
    said = answer.json()
    assert set(said) == {"text", "confidence", "characters", "alternatives", "model", "ms"}
    assert same(said, truth[0]) and said["model"] == "reader.onnx" and said["ms"] > 0
    assert [c["char"] for c in said["characters"]] == list(said["text"])


def test_several_files_a_zip_and_base64_give_lists(server: Server, captchas: list, truth: list):
    pictures = [png for png, _ in captchas[:3]]
    files = [("file", (f"{i}.png", png)) for i, png in enumerate(pictures)]
    several = server.client.post("/predict", files=files).json()["predictions"]
    archive = zipped({f"{i}.png": png for i, png in enumerate(pictures)})
    packed = server.client.post("/predict", files={"file": ("a.zip", archive)}).json()["predictions"]
    archive = zipped({f"{i}.tif": encoded(open_image(png), "TIFF") for i, png in enumerate(pictures)})
    tiffs = server.client.post("/predict", files={"file": ("a.zip", archive)}).json()["predictions"]
    texts = [base64.b64encode(png).decode() for png in pictures]
    listed = server.client.post("/predict", json={"images": texts}).json()["predictions"]
    for predictions in (several, packed, tiffs, listed):
        assert all(same(a, b) for a, b in zip(predictions, truth[:3], strict=True))
    assert [p["file"] for p in several] == [p["file"] for p in packed] == ["0.png", "1.png", "2.png"]
    one = server.client.post("/predict", json={"image": f"data:image/png;base64,{texts[0]}"}).json()
    assert same(one, truth[0])
    assert len(server.client.post("/predict", files={"files": ("a.png", pictures[0])}).json()["predictions"]) == 1


def test_one_bad_picture_does_not_lose_the_others(server: Server, captchas: list, truth: list):
    good, bad = captchas[0][0], captchas[1][0][:60]
    texts = [base64.b64encode(good).decode(), "###", base64.b64encode(bad).decode(), "data:image/png,x"]
    listed = server.client.post("/predict", json={"images": texts})
    files = [("file", (name, data)) for name, data in (("a.png", good), ("b.png", bad), ("c.zip", b"PK\x03\x04no"))]
    sent = server.client.post("/predict", files=files)
    archive = zipped({"a.png": good, "b.png": b"no picture", "c.png": good})
    packed = server.client.post("/predict", files={"file": ("a.zip", archive)})
    for answer, statuses in ((listed, [200, 422, 422, 422]), (sent, [200, 422, 422]), (packed, [200, 415, 200])):
        assert answer.status_code == 200, answer.text
        rows = answer.json()["predictions"]
        assert [row.get("status", 200) for row in rows] == statuses
        assert all(same(row, truth[0]) if "text" in row else row["error"] for row in rows)
    assert [row["file"] for row in packed.json()["predictions"]] == ["a.png", "b.png", "c.png"]
    schema = server.client.get("/openapi.json").json()["paths"]["/predict"]["post"]["responses"]["200"]
    many = schema["content"]["application/json"]["schema"]["anyOf"][1]["properties"]["predictions"]["items"]
    assert {"error", "status"} <= set(many["anyOf"][1]["required"])


def test_boxes_and_alternatives_come_unless_they_are_not_wanted(server: Server, captchas: list, truth: list):
    with Image.open(io.BytesIO(captchas[0][0])) as picture:
        width, height = picture.size
    said = server.client.post("/predict", files={"file": captchas[0][0]}).json()
    assert said["alternatives"][0]["text"] == said["text"] and len(said["alternatives"]) == 3
    boxes = [c["box"] for c in said["characters"]]
    assert len(boxes) == len(said["text"]) and boxes == sorted(boxes)
    assert all(0 <= left < right <= width and 0 <= top < bottom <= height for left, top, right, bottom in boxes)
    image = base64.b64encode(captchas[0][0]).decode()
    for request in (
        {"json": {"image": image, "details": False}},
        {"files": {"file": captchas[0][0]}, "data": {"details": "false"}},
        {"files": {"file": captchas[0][0]}, "params": {"details": "0"}},
    ):
        short = server.client.post("/predict", **request).json()
        assert same(short, truth[0]) and "alternatives" not in short and "box" not in short["characters"][0]


def test_what_is_known_of_the_texts_is_used(server: Server, captchas: list, exported: Path):
    from captcha_reader.reading.constraints import Constraints

    predictor = CaptchaPredictor(exported, threads=1)
    image = base64.b64encode(captchas[0][0]).decode()
    for known in ({"characters": "ab"}, {"length": 2, "characters": "bcd"}, {"length": "3"}):
        truth = predictor.predict([captchas[0][0]], constraints=Constraints.parse(known))[0].text
        form = {name: str(value) for name, value in known.items()}
        for request in (
            {"json": {"image": image} | known},
            {"json": {"image": image, "constraints": known}},
            {"files": {"file": captchas[0][0]}, "data": form},
        ):
            assert server.client.post("/predict", **request).json()["text"] == truth
    for known in ({"characters": "ü"}, {"length": "0"}, {"length": "x"}, {"ignore_case": "perhaps"}):
        answer = server.client.post("/predict", json={"image": image} | known)
        assert answer.status_code == 422 and len(answer.json()["error"]) > 10
    assert server.client.post("/predict", json={"image": image, "constraints": [1]}).status_code == 422


@pytest.mark.parametrize("start", ["data:image/png;base64,", " DATA:IMAGE/PNG;BASE64,", "\n data:;base64,", ""])
def test_base64_is_read_in_all_its_forms(start: str):
    from captcha_reader.web.uploads import decode_base64

    for data in (b"\xfb\xff\xfe?", b"a", b"ab", b""):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(data).decode()
            assert decode_base64(start + text, "x") == decode_base64(start + text.rstrip("="), "x") == data
    for bad in ("data:image/png,abc", "data:abc", "a", "ab!d", 5, None):
        with pytest.raises(Refused, match="base64"):
            decode_base64(bad, "x")


def test_a_model_is_chosen_by_name(server: Server, captchas: list, truth: list):
    for request in (
        {"files": {"file": captchas[0][0]}, "data": {"model": "torch.safetensors"}},
        {"files": {"file": captchas[0][0]}, "params": {"model": "torch.safetensors"}},
        {"json": {"image": base64.b64encode(captchas[0][0]).decode(), "model": "torch.safetensors"}},
    ):
        said = server.client.post("/predict", **request).json()
        assert said["model"] == "torch.safetensors" and same(said, truth[0])
    for model in ("nothing", "../x", "/etc/passwd", "broken.onnx", "\ud800"):
        body = json.dumps({"image": base64.b64encode(captchas[0][0]).decode(), "model": model})
        answer = server.client.post("/predict", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422 and answer.json()["error"], model


@pytest.mark.parametrize("name", odd_pictures())
def test_the_route_reads_odd_pictures(server: Server, name: str):
    answer = server.client.post("/predict", files={"file": (name, odd_pictures()[name])})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("name", bad_pictures())
def test_the_route_refuses_bad_pictures(server: Server, name: str):
    data, status = bad_pictures()[name]
    for answer in (
        server.client.post("/predict", files={"file": ("bad.png", data)}),
        server.client.post("/predict", json={"image": base64.b64encode(data).decode()}),
    ):
        assert answer.status_code == status, answer.text
        assert answer.json()["status"] == status and len(answer.json()["error"]) > 10


MALFORMED: dict[str, tuple[dict[str, Any], int]] = {
    "no body": ({}, 415),
    "text": ({"content": b"hello", "headers": {"Content-Type": "text/plain"}}, 415),
    "raw picture": ({"content": b"\x89PNG", "headers": {"Content-Type": "image/png"}}, 415),
    "no boundary": ({"content": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 422),
    "wrong boundary": ({"content": b"abc", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422),
    "no file": ({"files": {"model": (None, "reader.onnx")}}, 422),
    "text for a file": ({"files": {"file": (None, "hello")}}, 422),
    "bad json": ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422),
    "deep json": ({"content": b"[" * 100_000, "headers": {"Content-Type": "application/json"}}, 422),
    "bytes": ({"content": b"\xff\xfe\x00", "headers": {"Content-Type": "application/json"}}, 422),
    "list": ({"json": ["a"]}, 422),
    "nothing": ({"json": {}}, 422),
    "both": ({"json": {"image": "", "images": []}}, 422),
    "no base64": ({"json": {"image": "###"}}, 422),
    "a number": ({"json": {"image": 5}}, 422),
    "no list": ({"json": {"images": "abc"}}, 422),
    "empty list": ({"json": {"images": []}}, 422),
    "all characters": ({"files": {"file": ("a.png", b"")}, "data": {"characters": "\x01-\U0010ffff"}}, 422),
    "odd field": ({"json": {"image": "", "path": "/etc/passwd"}}, 422),
    "model is a number": ({"json": {"image": "", "model": 5}}, 422),
    "too many": ({"json": {"images": ["aGVsbG8="] * 21}}, 413),
    "too long": ({"content": b"x" * 1_100_000, "headers": {"Content-Type": "application/json"}}, 413),
    "far too long": ({"content": b"x" * 4_000_000, "headers": {"Content-Type": "application/json"}}, 413),
    "empty zip": ({"files": {"file": ("a.zip", b"PK\x05\x06" + b"\0" * 18)}}, 422),
}


def test_base64_may_have_line_breaks(server: Server, captchas: list, truth: list):
    image = base64.encodebytes(captchas[0][0]).decode()
    assert image.count("\n") > 1
    assert server.client.post("/predict", json={"image": image}).json()["text"] == truth[0]["text"]


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests_are_refused_with_a_reason(server: Server, name: str):
    request, status = MALFORMED[name]
    answer = server.client.post("/predict", **request)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"] and answer.json()["status"] == status


def test_a_body_without_a_length_is_bounded_too(server: Server):
    def parts() -> Iterator[bytes]:
        for _ in range(30):
            yield b"x" * 100_000

    answer = server.client.post("/predict", content=parts(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_slow_body_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 500\r\n\r\n{"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_all_zips_of_a_request_share_one_budget(server: Server, captchas: list, truth: list):
    def ask(*zips: bytes) -> httpx.Response:
        return server.client.post("/predict", files=[("file", ("a.zip", data)) for data in zips])

    png = captchas[0][0]
    large = zipped({"a.png": png + b"\0" * 900_000})  # a kilobyte each
    assert ask(large, large).status_code == 200
    answer = ask(large, large, large)
    assert answer.status_code == 413 and "hold more than 2 MB" in answer.json()["error"]
    many = zipped({f"{i}.png": png for i in range(LIMITS.pictures // 2)})
    assert len(ask(many, many).json()["predictions"]) == LIMITS.pictures
    answer = ask(many, many, zipped({"a.png": png}))
    assert answer.status_code == 413 and "more than 20 pictures" in answer.json()["error"]


def test_what_zips_unpack_to_counts_as_memory(reader: Path, captchas: list):
    server = Server(open_models(reader.parent, reader, threads=1), replace(LIMITS, memory_bytes=1_000_000))
    try:
        large, small = (zipped({"a.png": captchas[0][0] + b"\0" * size}) for size in (980_000, 0))
        for _ in range(3):  # what was charged is given back
            answer = server.client.post("/predict", files=[("file", data) for data in (large, large)])
            assert answer.status_code == 503 and "again" in answer.json()["error"]
            assert server.client.post("/predict", files=[("file", large)]).status_code == 200
        assert server.client.post("/predict", files=[("file", small)] * 5).status_code == 200
    finally:
        server.close()


def test_other_requests_have_their_turn_while_a_zip_is_unpacked(
    server: Server, captchas: list, monkeypatch: pytest.MonkeyPatch
):
    begun, go, unpack = threading.Event(), threading.Event(), bodies._unpack

    def slowly(opened: list) -> list:
        begun.set()
        assert go.wait(20)
        return unpack(opened)

    monkeypatch.setattr(bodies, "_unpack", slowly)
    with ThreadPoolExecutor(1) as pool:
        files = {"file": ("a.zip", zipped({"a.png": captchas[0][0]}))}
        answer = pool.submit(httpx.post, f"{server.address}/predict", files=files, timeout=30, trust_env=False)
        assert begun.wait(20)
        assert server.client.get("/health", timeout=5).json()["status"] == "ok"
        go.set()
        assert answer.result(20).status_code == 200


def test_health_models_and_their_files(server: Server):
    health = server.client.get("/health").json()
    assert health["status"] == "ok" and health["queue"] == LIMITS.queue and health["waiting"] == 0
    models = server.client.get("/models").json()["models"]
    assert [m["name"] for m in models] == ["reader.onnx", "broken.onnx", "torch.safetensors"]
    assert [m["default"] for m in models] == [True, False, False]
    file = server.client.get(models[2]["url"])
    assert file.status_code == 200 and len(file.content) == models[2]["bytes"]
    for name in ("state.pt", "../reader.onnx", "%2e%2e/reader.onnx", "%2Fetc%2Fpasswd", ""):
        assert server.client.get(f"/models/{name}").status_code in (200, 404)
        assert b"root:" not in server.client.get(f"/models/{name}").content


def test_the_description_stands_alone(server: Server):
    page = server.client.get("/docs").text
    asked_for = re.findall(r"""(?:src|href)=["']([^"']+)|url: ["']([^"']+)""", page)
    assert len(asked_for) == 4 and "openapi.json" in page
    for address in ("".join(pair) for pair in asked_for):
        assert not address.startswith(("http:", "https:", "/"))
        assert server.client.get(f"/{address}").status_code == 200, address
    schema = server.client.get("/openapi.json").json()
    assert {"/predict", "/health", "/models"} <= set(schema["paths"])
    post = schema["paths"]["/predict"]["post"]
    assert set(post["requestBody"]["content"]) == {"multipart/form-data", "application/json"}
    assert {"200", "413", "415", "422", "503"} <= set(post["responses"])


def test_the_description_says_what_is_taken_and_given(server: Server, captchas: list):
    schema = server.client.get("/openapi.json").json()
    paths = schema["paths"]
    assert "HTTPValidationError" not in json.dumps(schema), "a refusal has `error` and `status`"
    for path in ("/health", "/models"):
        described = paths[path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        assert set(server.client.get(path).json()) == set(described["properties"]) == set(described["required"])
    listed = paths["/models"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    one = listed["properties"]["models"]["items"]
    assert all(set(m) == set(one["required"]) for m in server.client.get("/models").json()["models"])
    file = paths["/models/{name}"]["get"]["responses"]["200"]["content"]
    assert list(file) == [server.client.get("/models/reader.onnx").headers["content-type"]]
    post = paths["/predict"]["post"]
    image = base64.b64encode(captchas[0][0]).decode()
    known = {"constraints": {"length": 4, "characters": "a-d"}, "details": False, "model": "reader.onnx"}
    fields = post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(known) <= set(fields) and "integer" in fields["length"]["type"]
    assert server.client.post("/predict", json={"image": image} | known).status_code == 200
    query = {one["name"]: "0" if one["name"] == "details" else "torch.safetensors" for one in post["parameters"]}
    assert set(query) == {"model", "details"}
    said = server.client.post("/predict", json={"image": image}, params=query).json()
    assert said["model"] == "torch.safetensors" and "alternatives" not in said


def test_a_model_that_is_empty_is_not_named_and_constraints_are_an_object(server: Server, captchas: list):
    image = base64.b64encode(captchas[0][0]).decode()
    for request in (
        {"json": {"image": image, "model": ""}},
        {"files": {"file": captchas[0][0]}, "data": {"model": ""}},
    ):
        for params in ({}, {"model": ""}):
            assert server.client.post("/predict", params=params, **request).json()["model"] == "reader.onnx"
    for wrong in ([], "", 0, False):
        answer = server.client.post("/predict", json={"image": image, "constraints": wrong})
        assert answer.status_code == 422 and "must be an object" in answer.json()["error"]


def test_other_methods_and_paths_are_refused_as_json(server: Server):
    assert server.client.get("/predict").json()["status"] == 405
    assert server.client.get("/nowhere").json()["status"] == 404
    assert server.client.head("/health").status_code == 200


def test_who_asks_by_head_hears_that_it_is_stuck(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Batcher, "oldest", routes.STUCK_SECONDS + 1)
    assert server.client.get("/health").status_code == server.client.head("/health").status_code == 503


def test_many_at_once_are_all_answered(server: Server, captchas: list, truth: list):
    before = server.client.get("/health").json()["batches"]

    def ask(i: int) -> tuple[int, dict[str, Any]]:
        answer = httpx.post(f"{server.address}/predict", files={"file": captchas[i][0]}, timeout=30, trust_env=False)
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(32)))
    assert all(status == 200 and same(said, truth[i]) for i, (status, said) in enumerate(answers))
    assert server.client.get("/health").json()["batches"] - before <= 32


def test_a_full_queue_is_503_with_a_reason(server: Server, monkeypatch: pytest.MonkeyPatch, captchas: list):
    monkeypatch.setattr(server.app.state.batcher, "waiting", LIMITS.queue)
    answer = server.client.post("/predict", files={"file": captchas[0][0]})
    assert answer.status_code == 503 and answer.headers["retry-after"] and "again" in answer.json()["error"]
    monkeypatch.undo()


# --------------------------------------------------------------------------------------------------------------------
# Broken files by the thousand


def mutants(seed: int, count: int, seeds: list[bytes]) -> Iterator[bytes]:
    """Files with bytes flipped, cut out, doubled, overwritten and swapped in from others."""
    rng = random.Random(seed)
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            if not data:
                break
            i = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 64))  # headers matter
            kind = rng.randrange(6)
            if kind == 0:
                data[i] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[i : i + rng.choice((1, 2, 4))] = rng.choice((b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0"))
            elif kind == 2:
                del data[i : i + rng.randrange(1, 40)]
            elif kind == 3:
                data[i:i] = data[i : i + rng.randrange(1, 200)]
            elif kind == 4:
                del data[i:]
            else:
                other = rng.choice(seeds)
                j = rng.randrange(len(other))
                data[i : i + 32] = other[j : j + 32]
        yield bytes(data)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of the broken files
def test_no_broken_file_is_more_than_a_refusal(server: Server, captchas: list):
    """2,200 of them, given to the app without a socket, eight at once: an exception would end the test."""
    base = open_image(captchas[0][0]).resize((40, 16))
    pictures = [encoded(base, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")]
    pictures += [*odd_pictures().values(), encoded(base.convert("L"), "TIFF", compression="tiff_lzw")]
    archive = {"a.png": pictures[0], "b/b.jpg": pictures[1], "labels.csv": b"a.png,aa"}
    zips = [zipped(archive), zipped(archive, zipfile.ZIP_STORED), zipped({"a.png": b""}), link("a.png")]
    cases = [*mutants(1, 1600, pictures), *mutants(2, 600, zips)]
    statuses: Counter[int] = Counter()
    slowest = 0.0

    async def throw(client: httpx.AsyncClient, part: list[bytes]) -> None:
        nonlocal slowest
        for data in part:
            body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' + data + b"\r\n--b--\r\n"
            started = time.monotonic()
            answer = await client.post(
                "/predict", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
            )
            slowest = max(slowest, time.monotonic() - started)
            statuses[answer.status_code] += 1
            assert "Traceback" not in answer.text
            assert (answer.status_code == 200) == ("error" not in answer.json()), answer.text

    async def throw_all() -> None:
        transport = httpx.ASGITransport(server.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            await asyncio.gather(*(throw(client, cases[i::8]) for i in range(8)))

    asyncio.run(throw_all())
    assert statuses.total() == 2200
    assert set(statuses) <= {200, 413, 415, 422}, statuses
    assert min(statuses[s] for s in (200, 415, 422)) > 20, f"these files test little: {statuses}"
    assert slowest < 20
    assert server.client.get("/health").json()["waiting"] == 0


@pytest.mark.parametrize("limits", [Limits(), LIMITS])
def test_limits_are_what_the_documentation_says(reader: Path, limits: Limits):
    schema = build_api(open_models(reader.parent, reader), limits).openapi()
    said = schema["paths"]["/predict"]["post"]["description"]
    numbers = re.search(r"most (\d+) pictures and (\d+) MB a request, (\d+) MB in unpacked zips, (\d+) million", said)
    assert numbers, said
    pictures, *millions = map(int, numbers.groups())
    assert pictures == limits.pictures
    assert [n * 1_000_000 for n in millions] == [limits.request_bytes, limits.unpacked_bytes, limits.pixels]
    assert limits.unpacked_bytes + limits.request_bytes <= limits.memory_bytes and limits.pictures <= limits.queue
