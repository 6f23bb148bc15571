"""The tab Label: sets that are labeled on the page, by keyboard alone, through kills of the server."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from captcha_reader.errors import UserError
from captcha_reader.files import ROOT
from captcha_reader.reading.constraints import Constraints
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.labels import Desk, Labels
from captcha_reader.web.models import Models
from interface import open_models
from predict import CaptchaPredictor

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 60_000  # milliseconds


@pytest.fixture
def pictures(captchas: list[tuple[bytes, str]]) -> list[tuple[str, bytes]]:
    return [(f"{i}.png", png) for i, (png, _) in enumerate(captchas)]


@pytest.fixture
def models(reader: Path, exported: Path, tmp_path: Path) -> Models:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "reader.safetensors").write_bytes(reader.read_bytes())
    (folder / "reader.onnx").write_bytes(exported.read_bytes())
    return open_models(folder, threads=1)


class Trainings:
    """Stands in for the queue of jobs: remembers what was submitted, and ends when it is told to."""

    def __init__(self) -> None:
        self.submitted: list[tuple[list, FineTuning]] = []

    def submit(self, rows: list, start: Path, start_name: str, **settings: object) -> FineTuning:
        job = FineTuning("1", Path(), start, start_name, None, len(rows))
        self.submitted.append((list(rows), job))
        return job


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def labels(models: Models, tmp_path: Path) -> Iterator[Labels]:
    made = Labels(tmp_path / "labels", models, Trainings())
    yield made
    made.close()


def test_a_new_set_is_read_in_the_background(labels: Labels, pictures: list, exported: Path) -> None:
    desk = labels.create(pictures, "one")
    until(lambda: desk.session.has_readings)
    said = {reading.text for reading in CaptchaPredictor(exported, threads=1).predict([png for _, png in pictures])}
    assert {item.text for item in desk.session.next(40)} <= said
    assert labels.names() == [("one", "one")]


def test_what_is_known_decides_the_readings(labels: Labels, pictures: list) -> None:
    desk = labels.create(pictures, "known", constraints=Constraints(length="3"))
    until(lambda: desk.session.has_readings)
    assert {len(item.text) for item in desk.session.next(40)} == {3}


def test_a_training_begins_by_itself_and_its_readings_are_offered(labels: Labels, pictures: list) -> None:
    desk = labels.create(pictures, "learns")
    until(lambda: desk.session.has_readings)
    for i in range(24):
        desk.session.answer(desk.session.next()[0].id, "abcd"[i % 4])
        labels.touched(desk)
    until(lambda: desk.job is not None)
    rows, job = labels.jobs.submitted[0]
    aside = {png for png, _ in desk.session.rows(measured=True)}
    assert len(rows) == 20 and len(aside) == 4 and not aside & {png for png, _ in rows}
    for name in ("best.safetensors", "best.onnx"):
        (labels.models.folder / "tuned").mkdir(exist_ok=True)
        (labels.models.folder / "tuned" / name).write_bytes((labels.models.folder / f"reader.{name[5:]}").read_bytes())
    job.model, job.state = "tuned", "done"
    until(lambda: desk.model == "tuned/best.onnx")
    curve = desk.session.progress().curve
    assert [point.labels for point in curve] == [0, 20] and curve[1].measured == 4
    assert len(labels.jobs.submitted) == 1, "not again for the same labels"


def test_a_failed_training_is_said_and_labels_stay(labels: Labels, pictures: list) -> None:
    desk = labels.create(pictures, "fails")
    until(lambda: desk.session.has_readings)
    for _ in range(24):
        desk.session.answer(desk.session.next()[0].id, "ab")
        labels.touched(desk)
    until(lambda: desk.job is not None)
    job = labels.jobs.submitted[0][1]
    job.note, job.state = "the disk is full", "failed"
    until(lambda: "the disk is full" in desk.said)
    assert desk.session.progress().typed == 24


def test_the_table_of_labels_follows(labels: Labels, pictures: list) -> None:
    desk = labels.create(pictures, "table")
    desk.session.answer(desk.session.next()[0].id, "abc")
    labels.touched(desk)
    table = desk.session.folder / "labels.csv"
    until(table.exists)
    with table.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["text"] == "abc" and (desk.session.folder / row["file_name"]).is_file()


@pytest.mark.parametrize("name", ["../outside", "a/b", ".hidden", "x" * 41, "-x/"])
def test_names_are_names(labels: Labels, pictures: list, name: str) -> None:
    with pytest.raises(UserError, match="the name may have"):
        labels.create(pictures, name)
    with pytest.raises(UserError, match="no such set"):
        labels.open(name)


def test_pictures_that_cannot_be_read_are_listed(labels: Labels, pictures: list) -> None:
    skipped: list[str] = []
    desk = labels.create([*pictures, ("broken.png", b"nothing")], "some", on_skip=skipped.append)
    assert len(skipped) == 1 and "broken.png" in skipped[0]
    assert desk.session.progress().pictures == len({png for _, png in pictures})


# --------------------------------------------------------------------------------------------------------------------
# In a browser


def start(models: Path, data: Path) -> tuple[subprocess.Popen, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        str(ROOT / "interface.py"),
        "--models",
        str(models),
        "--data",
        str(data),
        "--threads",
        "1",
    ]
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    address = f"http://127.0.0.1:{port}/"
    end = time.monotonic() + 90
    while True:
        try:
            urllib.request.urlopen(address, timeout=60).close()
            return process, address
        except (urllib.error.URLError, OSError):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.1)


def test_thirty_pictures_by_keyboard_through_a_kill(
    models: Models, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    """Fifteen labels on a laptop, the server is killed, and fifteen on a phone: nothing typed is lost."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    folder = tmp_path / "captchas"
    folder.mkdir()
    for i, (png, _) in enumerate(captchas):
        (folder / f"{i}.png").write_bytes(png)
    data = tmp_path / "data"
    typed: dict[str, str] = {}
    process, address = start(models.folder, data)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            page = chromium.new_page(viewport={"width": 1366, "height": 768})
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            open_label_tab(page)
            page.locator("#label-folder :is(input, textarea)").fill(str(folder))
            page.locator("#label-name :is(input, textarea)").fill("mine")
            page.locator("#label-start").click()
            label_fifteen(page, dict(captchas), data, typed)
            assert "15 typed" in page.locator('[data-part="count"]').inner_text()
            process.kill()
            process.wait()
            process, address = start(models.folder, data)
            page = chromium.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            open_label_tab(page)
            page.locator("#label-set input").click()
            page.get_by_role("option", name="mine").click()
            label_fifteen(page, dict(captchas), data, typed)
            assert "30 typed" in page.locator('[data-part="count"]').inner_text()
        finally:
            chromium.close()
            process.terminate()
            process.wait(20)
    events = [json.loads(line) for line in (data / "labels/mine/events.jsonl").read_text().splitlines()]
    kept = {event["id"]: event["text"] for event in events if event["do"] == "label"}
    assert kept == typed and len(kept) == 30


def label_fifteen(page: Page, truth: dict[bytes, str], data: Path, typed: dict[str, str]) -> None:
    """Type what fifteen captchas say, with the keyboard alone; the picture stays in sight above the text."""
    page.locator('[data-part="text"]').wait_for(state="visible")
    for _ in range(15):
        source = str(page.locator('[data-part="picture"]').get_attribute("src"))
        id_ = source.rpartition("/")[2]
        label = truth[next((data / "labels/mine/pictures").glob(f"{id_}*")).read_bytes()]
        page.keyboard.press("Control+A")
        page.keyboard.type(label)
        page.keyboard.press("Enter")
        typed[id_] = label
        page.wait_for_function(
            "before => document.querySelector('[data-part=picture]').getAttribute('src') !== before", arg=source
        )
    picture, text = (page.locator(f'[data-part="{name}"]').bounding_box() for name in ("picture", "text"))
    assert picture and text and picture["y"] + picture["height"] <= text["y"]
    assert 0 <= picture["y"] < page.viewport_size["height"] / 2, "the keyboard of a phone takes the other half"
    page.wait_for_function("document.querySelector('[data-part=saving]').textContent === 'saved'")


def open_label_tab(page: Page) -> None:
    """Where the screen is narrow the last tabs are behind a button."""
    tab = page.get_by_role("tab", name="Label")
    page.get_by_role("tab", name="Read").wait_for()
    if not tab.is_visible():
        page.locator(".overflow-menu button").first.click()
        page.locator(".overflow-dropdown").get_by_text("Label").click()
        return
    tab.click()


def test_a_second_tab_is_told(labels: Labels, pictures: list) -> None:
    desk: Desk = labels.create(pictures, "two")
    assert not desk.session.claim("first") and desk.session.claim("second")
    with pytest.raises(UserError, match="another tab"):
        desk.session.answer(desk.session.next()[0].id, "ab", tab="first")
