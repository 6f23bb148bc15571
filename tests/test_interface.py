"""The page: a real process, driven by a real browser, against `CaptchaPredictor`."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from conftest import zipped
from PIL import Image

from captcha_reader.errors import UserError
from captcha_reader.files import ROOT
from captcha_reader.reading.constraints import Constraints
from captcha_reader.web.job import Commands
from captcha_reader.web.models import Models
from captcha_reader.web.own_models import Maker, write_marker
from captcha_reader.web.page import RESPONSIBLE_USE, build_demo
from captcha_reader.web.workshop import Workshop
from interface import detect_captcha, open_models
from predict import CaptchaPredictor

PROCESSOR_TIME = Path("/proc/self/stat").exists()  # of a process, whatever else the machine does
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
TABS = ("Read", "Batch", "Make", "Strength", "Label", "Teach", "Model")
PATIENCE = 60_000  # milliseconds; a machine that does other things too is slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(*arguments: object) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "interface.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def pictures(captchas: list[tuple[bytes, str]], exported: Path, tmp_path_factory) -> list[Path]:
    """Two captchas that the reader reads differently, as files, and the first on a transparent ground."""
    folder = tmp_path_factory.mktemp("pictures")
    predictor = CaptchaPredictor(exported, threads=1)
    texts: dict[str, bytes] = {}
    for (png, _), reading in zip(captchas, predictor.predict([png for png, _ in captchas]), strict=True):
        if reading.text:
            texts.setdefault(reading.text, png)
    for name, png in zip(("one.png", "two.png"), texts.values(), strict=False):
        (folder / name).write_bytes(png)
    with Image.open(folder / "one.png") as opaque:
        gray = opaque.convert("L")
        see_through = Image.new("RGBA", gray.size, (0, 0, 0, 0))  # black where nobody looks at the alpha
        see_through.putalpha(Image.fromarray(255 - np.asarray(gray)))
        see_through.save(folder / "see-through.png")
    return [folder / name for name in ("one.png", "two.png", "see-through.png")]


@pytest.fixture(scope="module")
def read(exported: Path) -> Callable[[Path], str]:
    """What `CaptchaPredictor` reads in a file: the truth for the page."""
    predictor = CaptchaPredictor(exported, threads=1)
    return lambda path: predictor.predict([path])[0].text


# --------------------------------------------------------------------------------------------------------------------
# Without a page


@pytest.fixture
def models(reader: Path, exported: Path, tmp_path: Path) -> Models:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "reader.safetensors").write_bytes(reader.read_bytes())
    (folder / "reader.onnx").write_bytes(exported.read_bytes())
    return open_models(folder, threads=1)


def test_detect_captcha_gives_what_the_predictor_reads(models: Models, exported: Path, pictures: list[Path]):
    expected = CaptchaPredictor(exported, threads=1).predict(pictures)
    assert expected[0].text != expected[1].text
    for path, prediction in zip(pictures, expected, strict=True):
        for image in (str(path), path.read_bytes()):
            answer = detect_captcha(image, None, models)
            assert answer["text"] == prediction.text and answer["model"] == "reader.onnx" and answer["ms"] > 0
            assert answer["confidence"] == pytest.approx(prediction.confidence, abs=1e-5)
            assert [c["char"] for c in answer["characters"]] == list(prediction.text)
            assert {c["class"] for c in answer["characters"]} <= {"high", "medium", "low"}
            assert [a["text"] for a in answer["alternatives"]] == [t for t, _ in prediction.alternatives]
            with Image.open(path) as opened:
                width = opened.width
            lefts = [c["box"][0] for c in answer["characters"]]
            assert lefts == sorted(lefts) and all(0 <= c["box"][0] < c["box"][2] <= width for c in answer["characters"])
            json.dumps(answer)
    with pytest.raises(UserError, match="no picture"):
        detect_captcha(None, None, models)
    with pytest.raises(UserError, match="the file") as error:
        detect_captcha(b"not a picture", None, models)
    assert "/" not in str(error.value)


def test_a_model_is_taught_from_its_safetensors_file(models: Models, tmp_path: Path, exported: Path):
    shop = Workshop.build(models, tmp_path)
    assert shop.trainable("reader.onnx")[0] == shop.trainable("reader.safetensors")[0] == "reader.safetensors"
    (models.folder / "alone.onnx").write_bytes(exported.read_bytes())
    with pytest.raises(UserError, match=r"choose a \.safetensors"):
        shop.trainable("alone.onnx")


def test_the_page_is_built_without_examples_and_without_loading_a_model(models: Models, tmp_path: Path):
    demo = build_demo(Workshop.build(models, tmp_path), tmp_path / "nowhere")
    names = [f.api_name for f in demo.fns.values() if f.api_visibility == "public"]
    assert sorted(names) == ["describe_model", "detect_captcha"] and not models.loaded
    assert list(tmp_path.iterdir()) == [models.folder]


def parts(demo: Any) -> dict[str, Any]:
    """The components of a page by their ids."""
    return {block.elem_id: block for block in demo.blocks.values() if getattr(block, "elem_id", None)}


def test_a_read_only_page_keeps_nothing(models: Models, tmp_path: Path):
    usual = parts(build_demo(Workshop.build(models, tmp_path), tmp_path / "nowhere"))
    shop = Workshop.build(models, tmp_path, read_only=True, local=False, privacy="It goes to a server.")
    shown = parts(build_demo(shop, tmp_path / "nowhere"))
    assert {"correction", "keep", "start", "upload", "measure"} <= usual.keys() - shown.keys()
    assert {"picture", "read-all", "sweep", "card"} <= shown.keys()
    write_marker(models.folder, Maker("me", "reader", 40))
    assert not shop.may_change("reader.onnx", "me") and shop.downloads(None) == {}


def test_without_torch_fine_tuning_says_what_is_missing(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    commands = Commands(["a"], ["b"], ["c"], ["d"])
    usual = parts(build_demo(Workshop.build(models, tmp_path, commands), tmp_path))
    assert usual["start"].interactive and usual["measure"].interactive and usual["strength-said"].value == ""
    monkeypatch.setattr(models, "torch", False)
    shop = Workshop.build(models, tmp_path, commands)
    shown = parts(build_demo(shop, tmp_path))
    assert not shown["start"].interactive and "pip install -r requirements.txt" in shown["no-torch"].value
    assert shown["measure"].interactive and "without labels only" in shown["strength-said"].value
    assert shop.choices() == [("reader.onnx", "reader.onnx")]


def test_importing_runs_nothing():
    code = "import sys, interface; print([m for m in ('torch', 'gradio', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_port_in_use_is_one_sentence(reader: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start("--checkpoint", reader, "--port", taken.getsockname()[1])
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and out == ""
    assert re.fullmatch(r"error: cannot listen on 127\.0\.0\.1:\d+ \(.*--host\n", err), err


def test_a_port_that_the_system_chooses_is_said(exported: Path, tmp_path: Path):
    process = start("--checkpoint", exported, "--models", exported.parent, "--data", tmp_path, "--port", 0)
    try:
        said = process.stdout.readline()  # type: ignore[union-attr]
        address = re.fullmatch(r"Captcha reader: (http://127\.0\.0\.1:[1-9]\d*) .*\n", said)
        assert address, said
        with urllib.request.urlopen(f"{address[1]}/health", timeout=60) as answer:  # it listens already
            assert answer.status == 200
    finally:
        process.terminate()
        process.communicate(timeout=60)


# --------------------------------------------------------------------------------------------------------------------
# The page


@pytest.fixture(scope="module")
def demo(reader: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The demo, run as a user runs it: its address, process and folders."""
    folder = tmp_path_factory.mktemp("demo")
    saved = folder / "models"
    saved.mkdir()
    (saved / "reader.safetensors").write_bytes(reader.read_bytes())
    (saved / "reader.onnx").write_bytes(exported.read_bytes())
    port = free_port()
    started = time.monotonic()
    process = start("--models", saved, "--data", folder / "data", "--port", port, "--threads", 1)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60).close()
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() - started < 60, "the page does not answer"
                time.sleep(0.1)
        if PROCESSOR_TIME:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            assert seconds < 12, f"the page took {seconds:.1f} s of work to start: it takes about 3"
        yield SimpleNamespace(address=f"http://127.0.0.1:{port}/", process=process, models=saved, data=folder / "data")
        assert process.poll() is None, "the demo died"
    finally:
        process.terminate()
        out, err = process.communicate(timeout=20)
    # Gradio logs the forged requests of the last test, which no page makes; nothing else ends in a traceback.
    assert (err + out).count("Traceback") == err.count("InvalidPathError:"), err


@pytest.fixture(scope="module")
def address(demo: SimpleNamespace) -> str:
    return demo.address


class Tab:
    """A browser tab with the page in it; knows what was requested and what the console said."""

    def __init__(self, browser, address: str, wait_for: str = "#read", **options) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.goto(address)
        self.page.locator(wait_for).wait_for()

    def upload(self, file: Path, where: str = "#picture") -> None:
        self.page.locator(f"{where} input[type=file]").set_input_files(file)

    def open(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()
        self.page.wait_for_timeout(500)  # Gradio builds a tab when it is first opened: not all of it listens at once

    def shows(self, text: str) -> None:
        self.page.locator(f"#reading-text[data-text='{text}']").first.wait_for()

    def know(self, tab: str, **entries: str) -> None:
        """Type into the line "What do you know of it?" of a tab."""
        for name, text in entries.items():
            box = self.page.locator(f"#{tab}-{name} :is(input, textarea)")
            box.fill(text)
            box.press("Enter")

    def clear(self) -> None:
        page = self.page
        page.locator("#picture").get_by_label("Remove Image").or_(page.locator("#picture [aria-label='Clear']")).click()
        page.locator("#reading .empty").wait_for()

    def on_screen(self, selector: str) -> bool:
        """Whether the top of an element comes to stand within the window, without a scroll of ours: the page moves as
        its parts arrive."""
        from playwright.sync_api import TimeoutError as NeverSeen

        look = """selector => {
          const box = document.querySelector(selector)?.getBoundingClientRect();
          return box && box.height && box.top >= 0 && box.top + Math.min(box.height, 40) <= innerHeight;
        }"""
        try:
            self.page.wait_for_function(look, arg=selector, timeout=10_000)
        except NeverSeen:
            return False
        return True

    def fits(self, width: int) -> None:
        assert self.page.evaluate("document.documentElement.scrollWidth") <= width

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

    def make(path: str = "", **options) -> Tab:
        tabs.append(Tab(browser, address + path, **options))
        return tabs[-1]

    yield make
    for tab in tabs:
        tab.context.close()


def test_an_uploaded_picture_is_read_and_torch_is_not_needed(
    open_tab, pictures: list[Path], read, demo: SimpleNamespace
):
    from playwright.sync_api import expect

    tab = open_tab(viewport=LAPTOP)
    page = tab.page
    assert page.get_by_text(RESPONSIBLE_USE).is_visible()
    one, two, see_through = pictures
    tab.upload(one)
    tab.shows(read(one))
    page.locator("#grid img").wait_for()
    assert page.locator("#where img").count() == 1 and page.locator("#likely li").count() == 3
    expect(page.locator("#reading .tiles li b")).to_have_text(list(read(one)))
    kinds = page.locator("#reading .tiles li").evaluate_all("all => all.map(one => one.className)")
    assert set(kinds) <= {"high", "medium", "low"}
    assert float(page.locator("#milliseconds").inner_text().split()[0]) > 0
    tab.clear()
    tab.upload(see_through)
    tab.shows(read(see_through))
    tab.clear()
    tab.upload(two)
    tab.shows(read(two))
    page.locator("#read").click()
    tab.shows(read(two))
    tab.settled()
    maps = Path(f"/proc/{demo.process.pid}/maps")
    if maps.exists():
        assert "libtorch" not in maps.read_text()


def test_a_correction_is_kept_where_make_dataset_finds_it(open_tab, pictures: list[Path], demo: SimpleNamespace):
    from playwright.sync_api import expect

    from captcha_reader.dataset.sources import iter_source

    tab = open_tab(viewport=PHONE)
    page = tab.page
    page.locator("#correction input, #correction textarea").fill("abcd")
    page.locator("#keep").click()
    page.locator("#kept .bad").wait_for()  # there is no picture yet
    tab.upload(pictures[0])
    page.locator("#reading .tiles").wait_for()
    page.locator("#correction input, #correction textarea").fill("abcd")
    page.locator("#correction input, #correction textarea").press("Enter")
    page.locator("#kept .good").wait_for()
    assert page.locator("#correction input, #correction textarea").input_value() == ""
    tab.clear()
    tab.upload(pictures[2])
    page.locator("#reading .tiles").wait_for()
    expect(page.locator("#forget")).to_have_count(0)  # it is the last picture's
    page.locator("#correction input, #correction textarea").fill("dcba")
    page.locator("#keep").click()
    expect(page.locator("#kept")).to_contain_text("2 corrected readings")
    page.locator("#forget").click()
    expect(page.locator("#kept")).to_contain_text("1 corrected reading left")
    expect(page.locator("#forget")).to_have_count(0)
    tab.clear()
    tab.upload(pictures[1])
    typed = page.locator("#correction input, #correction textarea")
    typed.fill("half a")
    page.locator("#reading .tiles").wait_for()
    tab.settled()
    assert typed.input_value() == "half a"  # what is typed while a picture is read stays
    page.locator(".gallery-item").first.click()
    expect(typed).to_have_value("")  # but does not become another picture's
    samples = list(iter_source(str(demo.data / "feedback")))
    assert [(s.image, s.text) for s in samples] == [(pictures[0].read_bytes(), "abcd")]
    tab.settled()


def test_a_bad_picture_gives_a_message(open_tab, pictures: list[Path], read, tmp_path: Path):
    tab = open_tab(viewport=LAPTOP)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"this is no picture")
    tab.upload(bad)
    toast = tab.page.locator(".toast-body")
    toast.first.wait_for()
    message = toast.first.inner_text()
    assert "The file is not a picture that can be read" in message and "Traceback" not in message
    assert "/tmp" not in message and "bad.png" not in message
    card = tab.page.locator("#reading .empty")
    card.wait_for()
    assert "The file is not a picture that can be read" in card.inner_text()
    tab.page.locator("#read").click()  # the button says so too
    toast.nth(1).wait_for()
    assert tab.page.get_by_text("Traceback").count() == 0
    after = open_tab(viewport=LAPTOP)  # an example has Gradio build the picture's box anew
    after.page.locator(".gallery-item").first.click()
    after.page.locator("#reading .tiles").wait_for()
    after.clear()
    after.upload(bad)
    after.page.locator(".toast-body").first.wait_for()
    assert "The file is not a picture that can be read" in after.page.locator(".toast-body").first.inner_text()
    after.page.locator("#reading .empty", has_text="The file is not a picture").wait_for()
    fresh = open_tab(viewport=LAPTOP)
    fresh.page.locator("#read").click()
    fresh.page.locator(".toast-body").first.wait_for()
    assert "upload one, paste one" in fresh.page.locator(".toast-body").first.inner_text()


def test_the_first_visit_shows_an_example_and_a_broken_upload_no_icon(open_tab, pictures: list[Path], tmp_path: Path):
    from playwright.sync_api import expect

    tab = open_tab(viewport=LAPTOP, color_scheme="dark")
    page = tab.page
    page.locator("#example .reading").wait_for()
    assert tab.on_screen("#example .reading") and "An example" in page.locator("#example").inner_text()
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"this is no picture")
    tab.upload(bad)
    page.locator("#reading .empty .bad").wait_for()
    expect(page.locator("#example .card")).to_be_hidden()
    shown = "img => getComputedStyle(img).visibility === 'visible' && img.naturalWidth === 0"
    page.locator("#picture.broken").wait_for()
    assert not any(page.locator("#picture img").evaluate_all(f"all => all.map({shown})"))
    tab.clear()
    tab.upload(pictures[0])
    page.locator("#reading-text").wait_for()
    expect(page.locator("#picture.broken")).to_have_count(0)
    ground = page.locator("#picture img").first.evaluate("img => getComputedStyle(img).backgroundColor")
    assert ground == "rgb(255, 255, 255)"  # also of a transparent captcha with dark letters


@pytest.mark.parametrize("viewport", [pytest.param(LAPTOP, marks=pytest.mark.nightly), PHONE], ids=["laptop", "phone"])
def test_what_a_button_says_is_seen_without_scrolling(
    open_tab, pictures: list[Path], read, exported: Path, tmp_path: Path, viewport: dict
):
    tab = open_tab(viewport=viewport)
    page = tab.page
    page.locator("#example .reading").wait_for()
    page.locator("#keep").click()
    page.locator("#kept .bad").wait_for()
    assert tab.on_screen("#kept .bad")
    page.evaluate("scrollTo(0, 0)")
    tab.upload(pictures[0])
    tab.shows(read(pictures[0]))
    assert tab.on_screen("#reading .tiles")
    tab.know("read", length="0")
    page.locator("#read-known-said .bad", has_text="out of range").wait_for()
    page.locator("#reading .empty", has_text="Not read").wait_for()
    assert tab.on_screen("#read-known-said .bad") and tab.on_screen("#reading .empty")
    known = Constraints("ab", 2)
    tab.know("read", characters="ab", length="2")  # it is read anew, at once
    tab.shows(CaptchaPredictor(exported, threads=1).predict([pictures[0]], constraints=known)[0].text)
    page.locator("#read-known-said .bad").wait_for(state="detached")
    tab.know("read", characters="", length="")
    tab.shows(read(pictures[0]))
    assert page.locator("#read-offer").count() == 0  # nothing is known of the labels of this model
    tab.open("Batch")
    page.evaluate("scrollTo(0, 0)")
    page.locator("#read-all").click()
    page.locator("#batch-status .bad").wait_for()
    assert tab.on_screen("#batch-status .bad")
    (tmp_path / "two.zip").write_bytes(zipped({path.name: path.read_bytes() for path in pictures}))
    tab.upload(tmp_path / "two.zip", "#files")
    page.locator("#files .filename[aria-label='two.zip']").wait_for()
    tab.know("batch", characters="xyz")
    page.locator("#read-all").click()
    page.locator("#batch-known-said .bad", has_text="cannot write 'xyz'").wait_for()
    assert tab.on_screen("#batch-known-said .bad")
    tab.know("batch", characters="ab")
    page.locator("#read-all").click()
    page.locator("#batch-result .figures", has_text="characters ab").wait_for()
    assert tab.on_screen("#batch-result .figures")
    tab.open("Make")
    page.evaluate("scrollTo(0, 0)")
    page.locator("#made-reading .reading").wait_for()
    assert tab.on_screen("#made-reading .reading")
    page.locator("#sweep").click()
    # It may be gone before it is measured from here, so the browser looks while it is there.
    seen = """selector => {
      const box = document.querySelector(selector)?.getBoundingClientRect();
      return box && box.top >= 0 && box.top + Math.min(box.height, 40) <= innerHeight;
    }"""
    page.wait_for_function(seen, arg="#sweep-status .progress")
    page.locator("#sweep-chart svg").wait_for()
    assert tab.on_screen("#sweep-chart svg")
    tab.open("Strength")
    page.evaluate("scrollTo(0, 0)")
    page.locator("#measure").click()
    page.locator("#strength-said .bad").wait_for()
    assert tab.on_screen("#strength-said .bad")
    tab.open("Teach")
    page.evaluate("scrollTo(0, 0)")
    page.locator("#start").click()
    page.locator("#teach-said .bad").wait_for()
    assert tab.on_screen("#teach-said .bad")
    tab.settled()


@pytest.mark.parametrize(
    ("viewport", "scheme"), [(LAPTOP, "dark"), (PHONE, "light")], ids=["dark-laptop", "light-phone"]
)
def test_every_tab_is_used_and_fits_the_screen(
    open_tab, pictures: list[Path], read, tmp_path: Path, viewport: dict, scheme: str
):
    tab = open_tab(viewport=viewport, color_scheme=scheme)
    page, width = tab.page, viewport["width"]
    tab.upload(pictures[0])
    tab.shows(read(pictures[0]))
    page.locator("#grid img").wait_for()
    for name in ("picture", "checkpoint", "read", "reading", "where", "likely", "grid", "correction", "keep"):
        box = page.locator(f"#{name}").bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width, name
    tab.fits(width)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = np.mean([int(v) for v in re.findall(r"\d+", ground)[:3]])
    assert (brightness > 128) == (scheme == "light"), ground
    for selector in (".head h1", ".head p", "#reading dd", "#likely b"):
        ink = page.locator(selector).first.evaluate("e => getComputedStyle(e).color")
        contrast = abs(np.mean([int(v) for v in re.findall(r"\d+", ink)[:3]]) - brightness)
        assert contrast > 75, (selector, ink, ground)
    tab.open("Batch")
    (tmp_path / "two.zip").write_bytes(zipped({path.name: path.read_bytes() for path in pictures}))
    tab.upload(tmp_path / "two.zip", "#files")
    page.locator("#files .filename[aria-label='two.zip']").wait_for()  # its text shows for a moment alone, on its way
    page.locator("#read-all").click()
    page.locator("#batch-grid img").first.wait_for()
    tab.fits(width)
    tab.open("Make")
    page.locator("#another").click()
    page.locator("#made img").wait_for()
    page.locator("#made-reading .reading").wait_for()
    tab.fits(width)
    tab.open("Strength")
    page.locator("#measure").click()
    page.locator("#strength-said .bad").wait_for()
    tab.fits(width)
    tab.open("Teach")
    page.locator("#start").click()
    page.locator("#teach-said .bad").wait_for()
    tab.fits(width)
    tab.open("Model")
    page.locator("#card .model").wait_for()
    tab.fits(width)
    tab.settled()


def test_everything_can_be_reached_with_the_keyboard_and_has_a_name(open_tab):
    tab = open_tab(viewport=LAPTOP)
    page = tab.page
    page.get_by_role("button", name="Example 7kPx2.png").press("Enter")
    page.locator("#reading .tiles").wait_for()
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("(document.activeElement.closest('[id]') || {}).id || ''"))
    assert {"read", "keep"} <= reached, reached
    page.get_by_role("tab", name="Batch", exact=True).focus()
    page.keyboard.press("Enter")
    page.locator("#read-all").wait_for()
    for name in TABS:
        tab.open(name)
        page.wait_for_timeout(150)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, input, textarea, select')]
              .filter(e => e.offsetParent && e.type !== 'hidden' && e.type !== 'file')
              .filter(e => !(e.innerText || e.ariaLabel || e.title || e.placeholder || (e.labels && e.labels.length)
                || e.getAttribute('aria-labelledby') || e.querySelector('img:not([alt=""])[alt]')))
              .map(e => e.outerHTML.slice(0, 120))"""
        )
        assert nameless == [], name
    tab.settled()


def test_a_batch_gives_a_table_and_downloads(
    open_tab, exported: Path, captchas: list[tuple[bytes, str]], tmp_path: Path
):
    readings = CaptchaPredictor(exported, threads=1).predict([png for png, _ in captchas])
    right = {f"{r.text}_{i}.png": png for i, ((png, _), r) in enumerate(zip(captchas, readings, strict=True)) if r.text}
    (tmp_path / "captchas.zip").write_bytes(zipped(right | {"broken.png": b"no picture"}))
    tab = open_tab(viewport=PHONE, color_scheme="dark")
    page = tab.page
    tab.open("Batch")
    page.locator("#read-all").click()
    page.locator("#batch-status .bad").wait_for()
    tab.upload(tmp_path / "captchas.zip", "#files")
    page.locator("#files .filename[aria-label='captchas.zip']").wait_for()
    page.locator("#read-all").click()
    page.locator("#batch-grid img").first.wait_for()
    assert page.locator("#batch-result tbody tr").count() == len(right)
    assert page.locator("#batch-result .right").count() == len(right)
    assert "1 left out" in page.locator("#batch-result details").inner_text()
    link = page.locator("#batch-result a", has_text="CSV").get_attribute("href")
    rows = list(csv.DictReader(io.StringIO(base64.b64decode(link.partition(",")[2]).decode(), newline="")))
    broken = rows.pop()
    assert broken["file"] == "broken.png" and "not a picture" in broken["error"] and broken["reading"] == ""
    assert {row["file"] for row in rows} == set(right) and {row["right"] for row in rows} == {"True"}
    confidences = [float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences)
    link = page.locator("#batch-result a", has_text="JSON").get_attribute("href")
    assert len(json.loads(base64.b64decode(link.partition(",")[2]))) == len(right) + 1
    assert page.get_by_text("Read together").count() == 0
    page.locator("#same-source input").check()
    page.locator("#read-all").click()
    page.locator("#batch-result").get_by_text("captchas of one source: lengths").wait_for()
    assert page.locator("#batch-result tbody tr").count() == len(right)
    tab.fits(PHONE["width"])
    tab.settled()


def test_knobs_change_the_captcha_and_one_is_tried_along(open_tab):
    tab = open_tab(viewport=LAPTOP, color_scheme="dark")
    page = tab.page
    tab.open("Make")
    page.locator("#made img").wait_for()  # one is there from the start
    changed = "src => document.querySelector('#made img').src !== src"
    opened = page.locator("#made img").get_attribute("src")
    page.locator("#another").click()
    page.wait_for_function(changed, arg=opened)
    first = page.locator("#made img").get_attribute("src")
    page.locator("#blur input[type=number]").fill("3")
    page.locator("#blur input[type=number]").press("Tab")
    page.wait_for_function(changed, arg=first)
    page.locator("#made-reading .reading").wait_for()
    page.locator("#sweep").click()
    page.locator("#sweep-chart svg").wait_for()
    assert "40 captchas at each value" in page.locator("#sweep-chart").inner_text()
    rotation = page.locator("#rotation input[type=number]")
    for typed in ("", "5000"):  # emptied before another number is typed, or far too large
        rotation.fill(typed)
        rotation.press("Tab")
        page.locator("#sweep-chart svg").wait_for(state="detached")  # it was of other settings
    page.locator("#made-reading .reading").wait_for()
    assert page.locator(".toast-body").count() == 0
    page.locator("#length input, #length textarea").fill("99")
    page.locator("#made-reading .bad").wait_for()
    tab.fits(LAPTOP["width"])
    tab.settled()


def test_fine_tuning_makes_a_model_that_gets_a_name_and_goes(
    open_tab, captchas: list[tuple[bytes, str]], tmp_path: Path, demo: SimpleNamespace
):
    """Folds of a real training say what to expect of the new model, which is there at once, as ONNX too."""
    from playwright.sync_api import expect

    tab = open_tab(viewport=LAPTOP)
    page, job = tab.page, tab.page.locator("#job")
    start = demo.models / "reader.safetensors"
    before = start.read_bytes()
    tab.open("Teach")
    page.locator("#start").click()
    page.locator("#teach-said .bad").wait_for()
    (tmp_path / "c.zip").write_bytes(zipped({f"{text}_{i}.png": png for i, (png, text) in enumerate(captchas)}))
    tab.upload(tmp_path / "c.zip", "#upload")
    page.locator("#teach-said", has_text="40 labeled pictures").wait_for()  # what will happen
    epochs = page.locator("#epochs input[type=number]")
    epochs.fill("60")  # it is stopped long before its end
    epochs.press("Tab")
    page.locator("#new-name").get_by_label("Name of the new model").fill("shop")
    page.locator("#start").click()
    job.locator("[role=progressbar]").wait_for()
    page.locator("#start").click()
    page.locator("#teach-said", has_text="is not done yet").wait_for()  # one at a time
    other = open_tab(viewport=PHONE)  # of another visitor: they see it, and cannot stop it
    other.page.locator("#running", has_text="shop").wait_for()
    assert other.on_screen("#running .running")
    other.open("Teach")
    other.page.locator("#job", has_text="another visitor").wait_for()
    other.page.locator("#cancel").click()
    other.page.locator("#teach-said", has_text="another visitor").wait_for()
    other.settled()
    page.locator("#cancel").click()
    job.locator("[data-state=cancelled]").wait_for()
    assert "Stopped: shop" in job.inner_text()
    assert {p.name for p in demo.models.iterdir()} == {"reader.onnx", "reader.safetensors"}
    epochs.fill("1")
    epochs.press("Tab")
    page.locator("#start").click()
    job.locator("svg.chart").wait_for(timeout=3 * PATIENCE)
    tab.open("Batch")
    assert tab.on_screen("#running .running")  # on every tab
    tab.open("Teach")
    job.locator("[data-state=done]").wait_for(timeout=6 * PATIENCE)
    assert start.read_bytes() == before and not list((demo.data / ".jobs").iterdir())
    folder = demo.models / "shop"
    metrics = json.loads((folder / "metrics.json").read_text())
    said = job.inner_text()
    assert metrics["folds"] == 3 and f"measured on {metrics['n']} pictures by 3 model(s)" in said, said
    assert [row.split()[0] for row in job.locator("tbody tr").all_inner_texts()] == ["before", "after"]
    for link, file in (("Checkpoint", "best.safetensors"), ("ONNX", "best.onnx")):
        answer = page.request.get(demo.address + job.locator("a", has_text=link).get_attribute("href"))
        assert answer.status == 200 and answer.body() == (folder / file).read_bytes()
        predictor = CaptchaPredictor(folder / file, device="cpu", threads=1)
        assert predictor.metadata["metrics"]["cross_validation"]["n"] == metrics["n"]
        assert str(tmp_path.parent) not in json.dumps(predictor.metadata) + (folder / "config.yaml").read_text()
    chosen = page.locator("#checkpoint input")
    expect(chosen).to_have_value("shop (onnx)")  # without a hand
    expect(page.locator("#running .running")).to_have_count(0)
    tab.open("Model")
    page.locator("#card h3", has_text="shop (onnx)").wait_for()
    assert "by models that had not seen the pictures" in page.locator("#card").inner_text()
    page.locator("#name").get_by_label("Name").fill("a/b")
    page.locator("#rename").click()
    page.locator("#model-said .bad").wait_for()
    page.locator("#name").get_by_label("Name").fill("my shop")
    page.locator("#rename").click()
    expect(chosen).to_have_value("my shop (onnx)")
    page.locator("#card h3", has_text="my shop (onnx)").wait_for()
    assert (demo.models / "my shop" / "best.onnx").is_file() and not folder.exists()
    page.locator("#delete").click()
    page.locator("#delete-no").click()
    expect(page.locator("#delete-yes")).to_have_count(0)
    page.locator("#delete").click()
    page.locator("#question", has_text="my shop").wait_for()
    page.locator("#delete-yes").click()
    expect(chosen).to_have_value("reader.onnx")
    assert {p.name for p in demo.models.iterdir()} == {"reader.onnx", "reader.safetensors"}
    expect(page.locator("#rename")).to_have_count(0)  # it was not made here
    tab.settled()


def test_a_zip_is_measured_and_its_curve_and_report_are_its_owners(
    open_tab, captchas: list[tuple[bytes, str]], tmp_path: Path, demo: SimpleNamespace
):
    """strength.py itself: another visitor sees that it runs, its owner a curve and a report."""
    from playwright.sync_api import expect

    tab, other = open_tab(viewport=LAPTOP), open_tab(viewport=PHONE)
    page, panel = tab.page, tab.page.locator("#strength")
    tab.open("Strength")
    (tmp_path / "c.zip").write_bytes(zipped({f"{text}_{i}.png": png for i, (png, text) in enumerate(captchas)}))
    tab.upload(tmp_path / "c.zip", "#strength-zip")
    page.locator("#strength-zip .filename[aria-label='c.zip']").wait_for()
    page.locator("#measure").click()
    panel.locator("[role=progressbar]").wait_for()
    other.open("Strength")  # at once: the program still imports what it needs
    other.page.locator("#strength", has_text="another visitor").wait_for()
    assert tab.on_screen("#strength [role=progressbar]") and tab.on_screen("#strength-said .good")
    assert other.on_screen("#running .running") and other.page.locator("#strength svg.chart").count() == 0
    other.page.locator("#strength-cancel").click()
    other.page.locator("#strength-said", has_text="another visitor").wait_for()
    other.fits(PHONE["width"])
    other.settled()
    panel.locator("svg.chart").wait_for(timeout=3 * PATIENCE)
    assert "Measured on 20 pictures" in panel.inner_text()
    panel.locator(":is([data-state=done], [data-state=failed])").wait_for(timeout=3 * PATIENCE)
    assert panel.locator("[data-state=done]").count() == 1, panel.inner_text()
    assert "never seen it reads" in panel.locator(".verdict").inner_text()
    expect(page.locator("#strength-said")).to_have_text("")
    expect(page.locator("#strength-cancel")).to_be_disabled()
    assert [row.split()[0] for row in panel.locator("tbody tr").all_inner_texts()] == ["0", "10"]
    links = panel.locator("a").evaluate_all("all => all.map(one => one.getAttribute('href'))")
    report = page.request.get(demo.address + next(link for link in links if link.endswith("report.json")))
    data = report.json()["data"]
    assert report.status == 200 and (data["labeled"], data["name"], data["left_out"]["total"]) == (40, "c.zip", 0)
    opened = page.request.get(demo.address + links[0])
    assert opened.status == 200 and "script-src" not in opened.headers["content-security-policy"]
    assert page.request.get(f"{demo.address}reports/nothing/report.json").status == 404
    assert not list((demo.data / ".jobs").iterdir())
    tab.fits(LAPTOP["width"])
    tab.settled()


def test_the_model_tab_says_what_the_checkpoint_says(open_tab, reader: Path):
    tab = open_tab(viewport=PHONE)
    tab.open("Model")
    card = tab.page.locator("#card")
    card.locator(".model").wait_for()
    said = card.inner_text()
    assert "reader.onnx" in said and "crnn" in said and "4 characters" in said
    assert card.locator(".alphabet span").all_inner_texts() == list("abcd")
    tab.fits(PHONE["width"])
    tab.settled()


def test_a_model_that_has_gone_is_a_sentence_and_no_traceback(
    open_tab, pictures: list[Path], exported: Path, demo: SimpleNamespace
):
    """Deleted while a tab still has it chosen, by another visitor or by hand; its list may know of it, or not."""
    from playwright.sync_api import expect

    gone = demo.models / "gone.onnx"
    gone.write_bytes(exported.read_bytes())
    tab = open_tab(viewport=LAPTOP)
    page = tab.page
    page.locator("#checkpoint input").click()
    page.get_by_role("option", name="gone.onnx").click()
    expect(page.locator("#checkpoint input")).to_have_value("gone.onnx")
    gone.unlink()
    tab.upload(pictures[0])
    page.locator("#reading .bad", has_text="there is no model 'gone.onnx'").wait_for()
    tab.open("Model")  # where the list is made anew
    page.locator("#card .bad", has_text="there is no model 'gone.onnx'").wait_for()
    tab.open("Read")
    page.locator("#read").click()
    page.locator("#reading .bad", has_text="there is no model 'gone.onnx'").wait_for()
    toasts = page.locator(".toast-body").all_inner_texts()
    assert all("There is no model 'gone.onnx' here" in toast for toast in toasts), toasts
    tab.settled()


def test_the_route_and_its_description_stand_beside_the_page(
    open_tab, address: str, pictures: list[Path], read, demo: SimpleNamespace
):
    import httpx

    answer = httpx.post(f"{address}predict", files={"file": pictures[0].read_bytes()}, timeout=30, trust_env=False)
    assert answer.status_code == 200 and answer.json()["text"] == read(pictures[0])
    assert httpx.get(f"{address}health", trust_env=False).json()["status"] == "ok"
    start = open_tab(viewport=PHONE)
    assert start.page.locator("footer button").count() == 0  # no panel of Gradio's, which names other hosts
    start.page.get_by_role("link", name="the REST route").click()
    start.page.locator("[data-path='/predict']").wait_for()
    tab = open_tab("docs", wait_for="[data-path='/predict']", viewport=PHONE, color_scheme="dark")
    tab.fits(PHONE["width"])
    tab.settled()


def test_the_endpoint_gives_the_same_text(address: str, pictures: list[Path], read, tmp_path: Path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False, analytics_enabled=False, download_files=str(tmp_path))
    for path in pictures:
        answer = client.predict(handle_file(path), "reader.onnx", api_name="/detect_captcha")
        assert answer["text"] == read(path) and answer["ms"] > 0
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    with pytest.raises(AppError, match="not a picture that can be read"):
        client.predict(handle_file(bad), "reader.onnx", api_name="/detect_captcha")
    for model in ("/etc/passwd", "../x.safetensors"):
        with pytest.raises(AppError, match="no model"):
            client.predict(handle_file(pictures[0]), model, api_name="/detect_captcha")


def test_a_path_on_the_server_is_no_upload(address: str, pictures: list[Path]):
    """A request may name any path as its picture; only files that were uploaded are opened."""
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
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{address}gradio_api/file={path}", timeout=30)


def test_no_event_is_lost_where_a_stream_of_answers_ends(address: str):
    """Gradio's script opens no stream for a call that is answered before it has read that the last one ended."""
    with httpx.Client(base_url=f"{address.rstrip('/')}/gradio_api", timeout=60) as client:
        dependencies = client.get(f"{address.rstrip('/')}/config").json()["dependencies"]
        plain = next(one["id"] for one in dependencies if not one["inputs"] and one["backend_fn"])
        call = {"data": [], "fn_index": plain, "session_hash": "ends"}
        for _ in range(3):
            assert client.post("/queue/join", json=call).is_success
            with client.stream("GET", "/queue/data", params={"session_hash": "ends"}) as answers:
                lines = [line for line in answers.iter_lines() if line]
            ended = time.monotonic()
            assert "process_completed" in lines[-2] and "close_stream" in lines[-1]
            assert client.post("/queue/join", json=call).is_success
            assert time.monotonic() - ended > 0.2
            with client.stream("GET", "/queue/data", params={"session_hash": "ends"}) as answers:
                assert any("process_completed" in line for line in answers.iter_lines())
            time.sleep(0.5)
