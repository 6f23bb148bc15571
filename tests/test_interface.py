"""The page: a real process, driven by a real browser, against `CaptchaPredictor`."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

import interface
from common import ROOT, UserError
from interface import NOTHING_DETECTED, Models, build_demo, detect_captcha
from predict import CaptchaPredictor

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
LAPTOP, PHONE = {"width": 1366, "height": 768}, {"width": 390, "height": 844}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "interface.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def pictures(captchas: list[tuple[bytes, str]], reader: Path, tmp_path_factory) -> list[Path]:
    """Two captchas that `reader` reads differently, as files, and the first on a transparent ground."""
    folder = tmp_path_factory.mktemp("pictures")
    predictor = CaptchaPredictor(reader, device="cpu", threads=1)
    texts: dict[str, bytes] = {}
    for (png, _), reading in zip(captchas, predictor.predict([png for png, _ in captchas]), strict=True):
        if reading.text:
            texts.setdefault(reading.text, png)
    for name, png in zip(("one.png", "two.png"), texts.values(), strict=False):
        (folder / name).write_bytes(png)
    with Image.open(folder / "one.png") as opaque:
        grey = opaque.convert("L")
        see_through = Image.new("RGBA", grey.size, (0, 0, 0, 0))  # black where nobody looks at the alpha
        see_through.putalpha(Image.fromarray(255 - np.asarray(grey)))
        see_through.save(folder / "see-through.png")
    return [folder / name for name in ("one.png", "two.png", "see-through.png")]


@pytest.fixture(scope="module")
def read(reader: Path) -> Callable[[Path], str]:
    """What `CaptchaPredictor` reads in a file: the truth for the page."""
    predictor = CaptchaPredictor(reader, device="cpu", threads=1)
    return lambda path: predictor.predict([path])[0].text


# --------------------------------------------------------------------------------------------------------------------
# Without a page


@pytest.fixture
def folder(reader: Path, tmp_path: Path) -> Path:
    """A saved_models/ with the shipped weights, a run, and files that are none of the page's business."""
    models = tmp_path / "models"
    (models / "run").mkdir(parents=True)
    for name in ("reader.safetensors", "run/best.safetensors", "run/last.safetensors", ".hidden.safetensors"):
        (models / name).write_bytes(reader.read_bytes())
    (models / "broken.onnx").write_bytes(b"no model")
    (models / "state.pt").write_bytes(b"pickle")
    (tmp_path / "secret.safetensors").write_bytes(reader.read_bytes())
    (models / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    return models


def test_only_models_inside_the_folder_are_offered(folder: Path, reader: Path):
    assert list(Models(folder).paths()) == ["reader.safetensors", "broken.onnx", "run/best.safetensors"]
    assert next(iter(Models(folder, folder / "run" / "best.safetensors").paths())) == "run/best.safetensors"
    assert len(Models(folder, folder / "run" / "best.safetensors").paths()) == 3
    elsewhere = Models(folder, folder.parent / "secret.safetensors")
    assert next(iter(elsewhere.paths())) == "secret.safetensors" and len(elsewhere.paths()) == 4
    namesake = Models(folder, reader).paths()  # another reader.safetensors
    assert len(namesake) == 4 and next(iter(namesake.values())) == reader


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "link.safetensors", "run/last.safetensors", "/etc/passwd", ""]
)
def test_a_name_that_is_not_offered_opens_nothing(folder: Path, name: str):
    with pytest.raises(UserError, match="no model"):
        Models(folder).predictor(name)
    with pytest.raises(UserError, match="no model"):
        Models(folder).predictor(str(folder / "reader.safetensors"))


def test_a_model_is_loaded_once_and_again_when_its_file_changes(folder: Path, tiny):
    from model import build_model, save_checkpoint

    models = Models(folder, threads=1)
    first = models.predictor()
    assert models.predictor("reader.safetensors") is first and models.predictor("run/best.safetensors") is not first
    save_checkpoint(build_model(tiny(alphabet="xyz")), folder / "reader.safetensors")
    assert models.predictor().alphabet.characters == "xyz"
    with pytest.raises(UserError, match="damaged"):
        models.predictor("broken.onnx")


def test_a_missing_checkpoint_is_one_sentence(tmp_path: Path):
    with pytest.raises(UserError, match=r"reader\.safetensors.*main\.py"):
        Models(tmp_path)
    with pytest.raises(UserError, match=r"x\.onnx"):
        Models(tmp_path, tmp_path / "x.onnx")


def test_detect_captcha_gives_what_the_predictor_reads(folder: Path, reader: Path, pictures: list[Path]):
    models = Models(folder, threads=1)
    expected = CaptchaPredictor(reader, device="cpu", threads=1).predict(pictures)
    assert expected[0].text != expected[1].text
    for path, prediction in zip(pictures, expected, strict=True):
        for image in (str(path), path.read_bytes()):
            text, confidence, characters, table, readings, grid, milliseconds = detect_captcha(image, None, models)
            assert text == prediction.text and confidence == pytest.approx(prediction.confidence * 100, abs=0.01)
            assert [c for c, _ in characters] == list(text) == [row[1] for row in table]
            assert {name for _, name in characters} <= {"high", "medium", "low"}
            assert [row[2] for row in table] == pytest.approx([p * 100 for p in prediction.char_confidences], abs=0.01)
            assert list(readings) == [text for text, _ in prediction.alternatives]
            assert list(readings.values()) == pytest.approx([p for _, p in prediction.alternatives], rel=1e-3)
            assert isinstance(grid, Image.Image) and milliseconds > 0
    with pytest.raises(UserError, match="no picture"):
        detect_captcha(None, None, models)
    with pytest.raises(UserError, match="the picture") as error:
        detect_captcha(b"not a picture", None, models)
    assert "/" not in str(error.value)


def test_the_page_is_built_without_examples_and_without_loading_a_model(folder: Path, tmp_path: Path):
    models = Models(folder)
    demo = build_demo(models, tmp_path / "nowhere")
    names = [f.api_name for f in demo.fns.values() if f.api_visibility == "public"]
    assert names == ["detect_captcha"] and not models._loaded
    assert len(NOTHING_DETECTED) == 7


def test_importing_runs_nothing():
    code = "import sys, interface; print([m for m in ('torch', 'gradio', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_messages_are_not_markup():
    assert interface._sentence(UserError("no <b>&'")) == "No &lt;b&gt;&amp;&#x27;."


def test_a_port_in_use_is_one_sentence(reader: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start("--checkpoint", reader, "--port", taken.getsockname()[1])
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == ""
    assert re.fullmatch(r"error: cannot listen on 127\.0\.0\.1:\d+ \(.*--host\n", err), err


# --------------------------------------------------------------------------------------------------------------------
# The page


@pytest.fixture(scope="module")
def address(reader: Path) -> Iterator[str]:
    """Of the demo, run as a user runs it."""
    port = free_port()
    started = time.monotonic()
    process = start("--checkpoint", reader, "--port", port, "--threads", 1)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() - started < 60, "the page does not answer"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
        assert process.poll() is None, "the demo died"
    finally:
        process.terminate()
        out, err = process.communicate(timeout=20)
    # Gradio logs the forged requests of the last two tests, which no page makes; nothing else ends in a traceback.
    forged = err.count("InvalidPathError:") + err.count("is not in the list of choices")
    assert (err + out).count("Traceback") == forged, err


class Tab:
    """A browser tab with the page in it; knows what was requested and what the console said."""

    def __init__(self, browser, address: str, **options) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.goto(address)
        self.page.locator("#read").wait_for(timeout=30_000)

    def upload(self, file: Path) -> None:
        self.page.locator("#picture input[type=file]").set_input_files(file)

    @property
    def reading(self):
        return self.page.locator("#reading textarea, #reading input")

    def shows(self, text: str) -> None:
        from playwright.sync_api import expect

        expect(self.reading).to_have_value(text, timeout=30_000)

    def settled(self) -> None:
        """The page made no mistake and spoke to nobody else."""
        assert self.errors == []
        hosts = {urlsplit(url).hostname for url in self.requests if not url.startswith(("data:", "blob:"))}
        assert hosts == {"127.0.0.1"}


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_tab(browser, address: str) -> Iterator[Callable[..., Tab]]:
    tabs: list[Tab] = []

    def make(**options) -> Tab:
        tabs.append(Tab(browser, address, **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.context.close()


def test_an_uploaded_picture_is_read(open_tab, pictures: list[Path], read):
    from playwright.sync_api import expect

    tab = open_tab(viewport=LAPTOP)
    assert tab.page.get_by_text(interface.RESPONSIBLE_USE).is_visible()
    one, two, see_through = pictures
    tab.upload(one)
    tab.shows(read(one))
    page = tab.page
    page.locator("#grid img").wait_for()
    assert page.locator("#characters .textspan, #characters .token").count() == len(read(one))
    for i, character in enumerate(read(one)):
        expect(page.get_by_test_id(f"cell-{i}-1")).to_have_text(character)
    assert float(page.locator("#milliseconds input").input_value()) > 0
    page.locator("#picture").get_by_label("Remove Image").or_(page.locator("#picture [aria-label='Clear']")).click()
    tab.shows("")
    tab.upload(see_through)
    tab.shows(read(see_through))
    page.locator("#picture").get_by_label("Remove Image").or_(page.locator("#picture [aria-label='Clear']")).click()
    tab.shows("")
    tab.upload(two)
    tab.shows(read(two))
    page.locator("#read").click()
    tab.shows(read(two))
    tab.settled()


def test_a_bad_picture_gives_a_message(open_tab, pictures: list[Path], read, tmp_path: Path):
    tab = open_tab(viewport=LAPTOP)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"this is no picture")
    tab.upload(bad)
    toast = tab.page.locator(".toast-body")
    toast.first.wait_for(timeout=30_000)
    message = toast.first.inner_text()
    assert "The picture is not a picture that can be read" in message and "Traceback" not in message
    assert "/tmp" not in message and "bad.png" not in message
    tab.shows("")
    tab.page.locator("#read").click()  # the button says so too
    toast.nth(1).wait_for(timeout=30_000)
    assert tab.page.get_by_text("Traceback").count() == 0


def test_the_button_without_a_picture_says_what_to_do(open_tab):
    tab = open_tab(viewport=LAPTOP)
    tab.page.locator("#read").click()
    toast = tab.page.locator(".toast-body")
    toast.first.wait_for(timeout=30_000)
    assert "upload one, paste one" in toast.first.inner_text()


@pytest.mark.parametrize("viewport, scheme", [(LAPTOP, "light"), (PHONE, "dark")])
def test_the_page_fits_the_screen(open_tab, pictures: list[Path], read, viewport: dict, scheme: str):
    tab = open_tab(viewport=viewport, color_scheme=scheme)
    tab.upload(pictures[0])
    tab.shows(read(pictures[0]))
    tab.page.locator("#grid img").wait_for()
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    for name in ("picture", "checkpoint", "read", "reading", "characters", "table", "readings", "grid"):
        box = tab.page.locator(f"#{name}").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= viewport["width"], name
    ground = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(v) for v in re.findall(r"\d+", ground)[:3]])
    assert (brightness > 128) == (scheme == "light"), ground
    ink = tab.page.evaluate("getComputedStyle(document.querySelector('#reading textarea, #reading input')).color")
    contrast = abs(np.mean([int(v) for v in re.findall(r"\d+", ink)[:3]]) - brightness)
    assert contrast > 120, (ink, ground)
    tab.settled()


def test_the_endpoint_gives_the_same_text(address: str, pictures: list[Path], read, tmp_path: Path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False, analytics_enabled=False, download_files=str(tmp_path))
    for path in pictures:
        text, *_, milliseconds = client.predict(image=handle_file(path), api_name="/detect_captcha")
        assert text == read(path) and milliseconds > 0
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(AppError, match="not a picture that can be read"):
        client.predict(image=handle_file(bad), api_name="/detect_captcha")
    for model in ("/etc/passwd", "../x.safetensors"):
        with pytest.raises(AppError):
            client.predict(image=handle_file(pictures[0]), checkpoint=model, api_name="/detect_captcha")


def test_a_path_on_the_server_is_no_upload(address: str, pictures: list[Path]):
    """A request may name any path as its picture; only files that were uploaded are opened."""
    import json

    for path in (pictures[0], ROOT / "pyproject.toml"):
        body = {"data": [{"path": str(path), "meta": {"_type": "gradio.FileData"}}, None]}
        request = urllib.request.Request(
            address + "gradio_api/call/detect_captcha", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{address}gradio_api/call/detect_captcha/{event}", timeout=30) as answer:
            said = answer.read().decode()
        assert "event: error" in said and "event: complete" not in said
