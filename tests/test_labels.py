"""The tab Label: sets that are labeled on the page, by keyboard alone, through kills of the server."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from captcha_reader.errors import UserError
from captcha_reader.files import ROOT
from captcha_reader.labeling.session import LabelSession
from captcha_reader.reading.collection import read_together
from captcha_reader.reading.constraints import Constraints
from captcha_reader.web import labels as labels_of_web
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.label_routes import label_router
from captcha_reader.web.labels import Desk, Labels
from captcha_reader.web.models import Models
from captcha_reader.web.own_models import check_name
from captcha_reader.web.tabs.label import _pictures as label_pictures
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
        self.names: list[str] = []

    def submit(self, rows: list, start: Path, start_name: str, **settings: object) -> FineTuning:
        job = FineTuning("1", Path(), start, start_name, None, len(rows))
        self.submitted.append((list(rows), job))
        self.names.append(str(settings["name"]))
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
    # What is not known of the texts is estimated from all readings.
    predictor = CaptchaPredictor(exported, threads=1)
    alone = predictor.read([predictor.view(path) for path in desk.session.pictures()], keep_views=True)
    together, scheme = read_together(alone)
    said = {path.stem: p.text for path, p in zip(desk.session.pictures(), together, strict=True)}
    assert {item.id: item.text for item in desk.session.next(40)} == said
    assert desk.scheme == str(scheme) and "lengths" in desk.scheme
    assert labels.names() == [("one", "one")]


def test_what_is_known_decides_the_readings(labels: Labels, pictures: list) -> None:
    desk = labels.create(pictures, "known", constraints=Constraints(length="3"))
    until(lambda: desk.session.has_readings)
    assert {len(item.text) for item in desk.session.next(40)} == {3}


def test_what_a_trained_model_cannot_write_is_not_asked_of_it(labels: Labels, pictures: list) -> None:
    """Few labels lack characters that are allowed: the model that learned from them reads the set all the same."""
    known = Constraints("0-9a-z-", "4", ignore_case=True)
    desk = labels.create(pictures, "narrow", constraints=known)
    until(lambda: desk.session.has_readings)
    assert labels_of_web._known(desk.session, "ABC-7") == Constraints("7a-c-", "4", ignore_case=True)
    assert labels_of_web._known(desk.session, "é") == Constraints(None, "4", ignore_case=True)


def test_pictures_come_from_files_zips_and_folders(pictures: list, tmp_path: Path) -> None:
    folder, files, zipped = tmp_path / "folder" / "inner", tmp_path / "files", tmp_path / "some.zip"
    for place in (folder, files):
        place.mkdir(parents=True)
    rows = dict(pictures[:9])
    names = list(rows)
    for name in names[:3]:
        (files / name).write_bytes(rows[name])
    with zipfile.ZipFile(zipped, "w") as archive:
        for name in names[3:6]:
            archive.writestr(f"deep/{name}", rows[name])
        archive.writestr("deep/readme.txt", "no picture")
    for name in names[6:]:
        (folder / name).write_bytes(rows[name])
    (folder.parent / ".hidden.png").write_bytes(rows[names[0]])
    (folder.parent / ".hidden").mkdir()
    (folder.parent / ".hidden" / "copy.png").write_bytes(rows[names[0]])
    dropped = [str(files / name) for name in names[:3]] + [str(zipped)]
    assert {data for _, data in label_pictures(dropped, "", [])} == {rows[name] for name in names[:6]}
    assert dict(label_pictures([], str(folder.parent), [])) == {name: rows[name] for name in names[6:]}
    places = {"": "no captchas yet", str(tmp_path / "none"): "no folder none", "~no-such-user/in": "no folder in"}
    for place, said in (places | {"x" * 300: "no folder xxx"}).items():
        with pytest.raises(UserError, match=said):
            list(label_pictures([], place, []))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no picture in empty"):
        list(label_pictures([], str(tmp_path / "empty"), []))


def test_pictures_of_other_formats_are_named(pictures: list, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, data in (pictures[0], ("a.avif", b"a"), ("notes.txt", b"c")):
        (tmp_path / "in" / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in (tmp_path / "in").iterdir():
            archive.write(path, path.name)
    for paths, folder in (([], str(tmp_path / "in")), ([str(tmp_path / "a.zip")], "")):
        skipped: list[str] = []
        assert list(label_pictures(paths, folder, skipped)) == pictures[:1]
        assert skipped == ["a.avif is a picture of a format that is not read"]


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


def test_a_full_queue_is_said_and_tried_again(labels: Labels, pictures: list, monkeypatch) -> None:
    desk = labels.create(pictures, "full")
    until(lambda: desk.session.has_readings)
    submit = labels.jobs.submit

    def refuse(*_: object, **__: object) -> None:
        raise UserError("4 trainings wait already")

    monkeypatch.setattr(labels.jobs, "submit", refuse)
    for _ in range(25):
        desk.session.answer(desk.session.next()[0].id, "ab")
        labels.touched(desk)
    until(lambda: "trainings wait" in desk.said)
    monkeypatch.setattr(labels.jobs, "submit", submit)
    desk.session.answer(desk.session.next()[0].id, "ab")
    labels.touched(desk)
    until(lambda: desk.job is not None)
    assert len(labels.jobs.submitted[0][0]) == 21


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


@pytest.mark.parametrize("name", ["../outside", "a/b", ".hidden", "x" * 41, "-x/", "_mine", "con.x"])
def test_names_are_names(labels: Labels, pictures: list, name: str) -> None:
    with pytest.raises(UserError, match=r"the name (cannot be used|has 41 characters)"):
        labels.create(pictures, name)
    with pytest.raises(UserError, match="no such set"):
        labels.open(name)


def test_pictures_that_cannot_be_read_are_listed(labels: Labels, pictures: list) -> None:
    skipped: list[str] = []
    desk = labels.create([*pictures, ("broken.png", b"nothing")], "some", on_skip=skipped.append)
    assert len(skipped) == 1 and "broken.png" in skipped[0]
    assert desk.session.progress().pictures == len({png for _, png in pictures})


def test_copies_are_listed(labels: Labels, pictures: list) -> None:
    skipped: list[str] = []
    labels.create([*pictures, ("again/copy.png", pictures[3][1])], "copies", on_skip=skipped.append)
    assert skipped == ["copy.png is the same picture as 3.png"]


def test_a_set_that_is_being_made_has_its_name(labels: Labels, pictures: list) -> None:
    """Two visitors who start at the same moment would write into one folder."""

    def slowly() -> Iterator[tuple[str, bytes]]:
        yield pictures[0]
        with pytest.raises(UserError, match="there is a set one already"):
            labels.create(pictures[20:], "one")
        yield from pictures[1:20]

    desk = labels.create(slowly(), "one")
    assert desk.session.progress().pictures == len({png for _, png in pictures[:20]})


def test_a_set_named_before_names_were_those_of_models_is_learned_from(labels: Labels, pictures: list) -> None:
    LabelSession.create(labels.folder / "_old", pictures).close()
    desk = labels.open("_old")
    labels._train(desk, 20)
    assert check_name(labels.jobs.names[-1]) == "old 20 labels"


# --------------------------------------------------------------------------------------------------------------------
# In a browser


def start(models: Path, data: Path, port: int = 0) -> tuple[subprocess.Popen, str]:
    if not port:
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
    models: Models, captchas: list[tuple[bytes, str]], exported: Path, tmp_path: Path
) -> None:
    """Fifteen labels on a laptop, the server is killed, and fifteen on a phone: nothing typed is lost, and the laptop
    is told of the phone. Then a sheet of certain readings, which are accepted at once."""
    if not CHROMIUM.exists():
        pytest.skip(f"there is no {CHROMIUM}: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    folder = tmp_path / "captchas"
    folder.mkdir()
    for i, (png, _) in enumerate(captchas):
        (folder / f"{i}.png").write_bytes(png)
    data = tmp_path / "data"
    typed: dict[str, str] = {}
    sure = LabelSession.create(data / "labels/sure", [(f"{i}.png", png) for i, (png, _) in enumerate(captchas)])
    found = CaptchaPredictor(exported, threads=1).predict(sure.pictures())
    sure.add_readings("sure of all", [dataclasses.replace(p, text=p.text or "a", confidence=0.99) for p in found])
    sure.close()
    process, address = start(models.folder, data)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        try:
            page = open_label_tab(chromium.new_page(viewport={"width": 1366, "height": 768}), address)
            page.locator("#label-folder :is(input, textarea)").fill(str(folder))
            page.locator("#label-name :is(input, textarea)").fill("mine")
            page.locator("#label-start").focus()
            page.keyboard.press("Enter")
            label_fifteen(page, dict(captchas), data, typed)
            page.locator('[data-part="count"]', has_text="15 typed").wait_for()
            assert page.locator(".label-buttons kbd").all_inner_texts() == ["Enter", "↓", "Esc", "↑"]
            colors = page.locator('[data-part="characters"] span').evaluate_all(
                "all => all.map((one) => one.className)"
            )
            assert colors and set(colors) <= {"high", "medium", "low"}
            process.kill()
            process.wait()
            process, _ = start(models.folder, data, int(address.rstrip("/").rpartition(":")[2]))
            laptop = page
            phone = chromium.new_page(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
            page = open_label_tab(phone, address)
            choose_set(page, "mine")
            label_fifteen(page, dict(captchas), data, typed)
            page.locator('[data-part="count"]', has_text="30 typed").wait_for()
            laptop.get_by_role("button", name="Take it over here").wait_for()
            choose_set(page, "sure")
            look_over_a_sheet(page)
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
    page.wait_for_function("document.activeElement.dataset.part === 'text'")
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
    limit = (0.6 if page.viewport_size["height"] > 800 else 1) * page.viewport_size["height"]  # a phone's keyboard
    page.wait_for_function(  # at one time, for the page scrolls
        """limit => {
            const box = (name) => document.querySelector(`[data-part=${name}]`).getBoundingClientRect();
            const picture = box("picture"), text = box("text");
            return picture.height > 20 && picture.top >= 0 && picture.bottom <= text.top && text.bottom <= limit;
        }""",
        arg=limit,
    )
    page.wait_for_function("document.querySelector('[data-part=saving]').textContent === 'saved'")


def choose_set(page: Page, name: str) -> None:
    page.locator("#label-set input").click()
    page.get_by_role("option", name=name).click()


def look_over_a_sheet(page: Page) -> None:
    """In a sheet of certain readings the wrong ones are clicked: they come next; and all of it can be taken back."""
    page.get_by_role("button", name="Look over 24 certain ones").click()
    marks = page.locator('[data-part="sheet-grid"] button')
    wrong = [str(marks.nth(i).get_attribute("data-id")) for i in (2, 5)]
    for i in (2, 5):
        marks.nth(i).click()
    page.get_by_role("button", name="Accept the others").click()
    page.get_by_text("22 accepted. The ones").wait_for()
    assert str(page.locator('[data-part="picture"]').get_attribute("src")).rpartition("/")[2] in wrong
    page.keyboard.press("ArrowUp")
    page.get_by_text("0 typed, 0 of them corrected, 40 left").wait_for()


def open_label_tab(page: Page, address: str) -> Page:
    """Open the page at its tab Label: all it takes to start is in sight."""
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    tab = page.get_by_role("tab", name="Label")
    page.get_by_role("tab", name="Read").wait_for()
    if tab.is_visible():
        tab.click()
    else:  # where the screen is narrow the last tabs are behind a button
        page.locator(".overflow-menu button").first.click()
        page.locator(".overflow-dropdown").get_by_text("Label").click()
    button = page.locator("#label-start")
    button.wait_for(state="visible")
    box = button.bounding_box()
    assert box and box["y"] + box["height"] <= page.viewport_size["height"], "without scrolling"
    return page


def test_a_second_tab_is_told(labels: Labels, pictures: list) -> None:
    desk: Desk = labels.create(pictures, "two")
    assert not desk.session.claim("first") and desk.session.claim("second")
    with pytest.raises(UserError, match="another tab"):
        desk.session.answer(desk.session.next()[0].id, "ab", tab="first")


@pytest.fixture
def client(labels: Labels, pictures: list) -> Iterator[TestClient]:
    """Of the routes, for a set `routes` that is read."""
    desk = labels.create(pictures, "routes")
    until(lambda: desk.session.has_readings)
    app = FastAPI()
    app.include_router(label_router(labels))
    with TestClient(app) as client:
        yield client


def test_the_routes_say_what_the_page_shows(client: TestClient) -> None:
    assert client.post("/labels/routes/claim", json={"tab": "one"}).json()["took_over"] is False
    items = client.get("/labels/routes/next?count=3&tab=one").json()["items"]
    answer = {"tab": "one", "do": "label", "id": items[0]["id"], "text": "zzz", "seconds": 1.5}
    state = client.post("/labels/routes/answer", json=answer).json()
    assert state["progress"]["corrections"] == [{"labels": 0, "corrected": 1, "typed": 1}]
    answer |= {"id": items[1]["id"], "offered": "zzz", "model": 1}  # as it was shown, whatever is read by now
    state = client.post("/labels/routes/answer", json=answer).json()
    assert state["progress"]["corrections"] == [{"labels": 0, "corrected": 1, "typed": 2}]
    current = client.get(f"/labels/routes/next?count=1&current={items[2]['id']}").json()["current"]
    assert current == items[2] and len(current["chars"]) == len(current["text"])
    assert client.post("/labels/routes/claim", json={"tab": "two"}).json()["took_over"] is True
    late = client.get("/labels/routes/next?count=1&tab=one")
    assert late.status_code == 409 and late.json()["taken_over"] is True
    client.post("/labels/routes/release", json={"tab": "two"})
    assert client.post("/labels/routes/claim", json={"tab": "three"}).json()["took_over"] is False
    assert client.get("/labels/routes/next?count=1&current=none").json()["error"].startswith("this picture is not")
    sheet = {"tab": "three", "ids": [items[2]["id"]], "texts": ["shown"]}
    assert client.post("/labels/routes/accept", json=sheet).json()["accepted"] == 1
    assert client.get("/labels/none/next").status_code == 404
    zipped = client.get("/labels/routes/export?form=zip")
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as archive:
        assert len(archive.namelist()) == 4
        assert b"zzz,person" in archive.read("labels.csv") and b"shown,model" in archive.read("labels.csv")


def test_the_routes_keep_skipped_and_unreadable_pictures_and_take_them_back(client: TestClient) -> None:
    one, two = (item["id"] for item in client.get("/labels/routes/next?count=2").json()["items"])
    for id_, do in ((one, "skip"), (two, "unreadable")):
        state = client.post("/labels/routes/answer", json={"tab": "one", "do": do, "id": id_}).json()
        assert state["undone"] is None and id_ not in [item["id"] for item in state["items"]]
    assert client.post("/labels/routes/answer", json={"tab": "one", "do": "undo"}).json()["undone"] == two
    nothing = client.get("/labels/routes/export?form=parquet")
    assert nothing.status_code == 422 and nothing.json()["error"].startswith("nothing is labeled yet")
    gone = client.get("/labels/routes/pictures/none")
    assert gone.status_code == 404 and gone.json()["error"].startswith("this picture is not")
    shown = client.get(f"/labels/routes/pictures/{one}")
    assert shown.headers["content-type"] == "image/png" and shown.content.startswith(b"\x89PNG")


def test_a_picture_that_was_removed_is_one_sentence_without_a_path(
    client: TestClient, labels: Labels, tmp_path: Path
) -> None:
    desk = labels.open("routes")
    item = desk.session.next()[0]
    client.post("/labels/routes/answer", json={"tab": "one", "do": "label", "id": item.id, "text": "ab"})
    item.path.unlink()
    for form in ("zip", "parquet"):
        answer = client.get(f"/labels/routes/export?form={form}")
        assert answer.status_code == 422
        assert answer.json()["error"] == f"{item.path.name} is gone: put it back, its label is kept"
    shown = client.get(f"/labels/routes/pictures/{item.id}")
    assert shown.status_code == 404 and "cannot be read" in shown.json()["error"]
    desk.said = f"{tmp_path}/events.jsonl cannot be written"
    assert str(tmp_path) not in shown.text + client.get("/labels/routes/next").text


def test_a_model_that_cannot_read_the_set_is_said_and_asked_once(
    labels: Labels, pictures: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def predictor(name: str | None) -> None:
        asked.append(name)
        raise UserError(f"the model {name} is damaged: choose another")

    monkeypatch.setattr(labels.models, "predictor", predictor)
    desk = labels.create(pictures, "damaged")
    until(lambda: desk.said)
    assert desk.said == "the model reader.onnx is damaged: choose another" and not desk.session.has_readings
    desk.session.answer(desk.session.next()[0].id, "ab")
    labels.touched(desk)
    until(lambda: not desk.changed)
    assert asked == ["reader.onnx"], "it is not tried again with each answer"


def test_an_error_in_the_background_is_said_and_labels_are_kept(
    labels: Labels, pictures: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = labels.create(pictures, "full")
    until(lambda: desk.session.has_readings)
    monkeypatch.setattr(desk.session, "write_table", lambda: 1 / 0)
    desk.session.answer(desk.session.next()[0].id, "ab")
    labels.touched(desk)
    until(lambda: "something went wrong in the background" in desk.said)
    assert "ZeroDivisionError" in desk.said and desk.said.endswith("labels are kept")
    monkeypatch.undo()
    labels.touched(desk)
    until(lambda: not desk.changed)
    assert desk.session.rows()[0][1] == "ab"


def test_a_table_that_could_not_be_written_is_written_later_and_keeps_no_other_set_open(
    labels: Labels, pictures: list, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    desks = [labels.create(pictures, name) for name in ("first", "second")]
    until(lambda: all(desk.session.has_readings for desk in desks))
    monkeypatch.setattr(desks[0].session, "write_table", full)
    for desk in desks:
        desk.session.answer(desk.session.next()[0].id, "ab")
    labels.touched(desks[0])
    until(lambda: "something went wrong" in desks[0].said)
    assert desks[0].changed
    desks[1].changed = True
    labels.close()
    assert "the table of labels of first cannot be written" in caplog.text
    assert (desks[1].session.folder / "labels.csv").is_file()
    again = [LabelSession(desk.session.folder) for desk in desks]
    assert [len(session.answers()) for session in again] == [1, 1]


def test_nothing_is_trained_where_nothing_can_be(models: Models, pictures: list, tmp_path: Path) -> None:
    trainings = Trainings()
    labels = Labels(tmp_path / "labels", models, trainings)
    (models.folder / "reader.safetensors").unlink()
    try:
        desk = labels.create(pictures, "final")
        until(lambda: desk.session.has_readings)
        labels._train(desk, 10)
        assert desk.job is None and not trainings.submitted, "an .onnx model without its weights"
        assert "reader.safetensors is not there to start from" in desk.said
        labels.jobs = None
        labels._train(desk, 10)
        assert desk.job is None and desk.learned == 0
    finally:
        labels.close()


def test_the_better_of_two_models_keeps_offering_its_readings(
    labels: Labels, pictures: list, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = labels.create(pictures, "worse")
    until(lambda: desk.session.has_readings)
    made = labels.models.folder / "tuned"
    made.mkdir()
    shutil.copy(exported, made / "best.onnx")
    job = FineTuning("1", Path(), exported, "reader.onnx", None, 20)
    job.state, job.model = "done", "tuned"
    desk.learned = 20
    before = desk.session.model
    with labels._lock:
        monkeypatch.setattr(type(desk.session), "model", property(lambda self: before))
        labels._finish(desk, job)
    assert desk.job is None and "an earlier one reads more of the pictures kept aside" in desk.said
