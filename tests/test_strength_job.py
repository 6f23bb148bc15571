"""Measuring jobs of the page: the zip that comes in, what the program says, the report, and who sees it."""

from __future__ import annotations

import json
import sys
import time
import zipfile
from pathlib import Path

import pytest
from conftest import zipped
from fastapi import FastAPI
from fastapi.testclient import TestClient

from captcha_reader.errors import UserError
from captcha_reader.web import strength_job
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.html import progress_bar
from captcha_reader.web.job import Commands, Place
from captcha_reader.web.jobs import JobQueue
from captcha_reader.web.report_routes import report_router
from captcha_reader.web.strength_job import Asked, StrengthJob
from captcha_reader.web.tabs.strength import attack_chart, report_links, strength_card

PROGRAM = """
import json, pathlib, sys, time
def say(event, **values):
    print(json.dumps({"event": event} | values), flush=True)
flags = sys.argv[1:]
left_out = json.loads(pathlib.Path("left_out.json").read_text())
say("plan", labels=[0, 10], measured=20, ops=[])
say("step", doing="reading without labels", labels=0, done=0.25, seconds_left=None)
point = {"n": 20, "typing_seconds": 0, "training_seconds": 0}
say("point", labels=0, accuracy=0.5, interval=[0.3, 0.7], **point)
say("step", doing="training on 10 labels", labels=10, done=0.5, seconds_left=30.0)
if "--budget=5m" in flags:
    time.sleep(60)
if "--budget=20m" in flags:
    sys.exit("error: the alphabet is empty")
say("point", labels=10, accuracy=0.75, interval=[0.5, 0.9], **point)
report = pathlib.Path("report")
report.mkdir()
upload = sorted(p.name for p in pathlib.Path("upload").iterdir())
(report / "report.json").write_text(json.dumps({"flags": flags, "upload": upload, "left_out": left_out}))
(report / "report.html").write_text("<p>the report</p>")
say("result", verdict={"level": "bad", "text": "Weak.", "advice": "Replace it."}, partial="", page="report/report.html")
"""


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    commands = Commands(strength=[sys.executable, "-c", PROGRAM])
    return JobQueue(tmp_path, tmp_path / "work", commands, threads=1)


def submit(queue: JobQueue, source: Path, asked: Asked, owner: str = "me") -> StrengthJob:
    start = queue.models / "reader.safetensors"
    start.write_bytes(b"weights")

    def make(job_id: str, folder: Path) -> StrengthJob:
        name = "my/reader.safetensors"
        job = StrengthJob(job_id, folder, start, name, asked, "--my.zip", name="a captcha", owner=owner)
        job.fill(source)
        return job

    return queue.add(make)


def wait(job: StrengthJob, until: str) -> StrengthJob:
    end = time.monotonic() + 60
    while job.state != until and (until != "point" or not job.points):
        assert job.running and time.monotonic() < end, (job.state, job.note)
        time.sleep(0.02)
    return job


@pytest.fixture
def labeled(captchas: list[tuple[bytes, str]], tmp_path: Path) -> Path:
    path = tmp_path / "c.zip"
    entries = {f"{i}.png": png for i, (png, _) in enumerate(captchas)}
    table = "".join(f"{i}.png,{text}\n" for i, (_, text) in enumerate(captchas))
    path.write_bytes(zipped(entries | {"unnamed.png": captchas[0][0], "labels.csv": table.encode()}))
    return path


def test_a_measurement_ends_with_a_report_for_who_knows_its_key(queue: JobQueue, labeled: Path) -> None:
    asked = Asked(characters="a-d", length="2-3", ignore_case=True)
    job = wait(submit(queue, labeled, asked), "done")
    assert [point["labels"] for point in job.points] == [0, 10] and job.plan == [0, 10] and job.pictures == 40
    assert job.verdict["text"] == "Weak." and job.progress == 1 and not list(queue.work.iterdir())
    app = FastAPI()
    app.include_router(report_router(queue))
    client = TestClient(app)
    links = report_links(job)
    answer = client.get(links["report.html"])
    assert answer.text == "<p>the report</p>" and "default-src 'none'" in answer.headers["content-security-policy"]
    said = client.get(links["report.json"]).json()
    expected = "--data upload --out report --progress json --name=--my.zip --left_out=left_out.json --checkpoint"
    expected += " my-reader.safetensors --labels=0,10,30,100,300 --budget=10m --ignore_case=true --characters=a-d"
    assert said["flags"] == [*expected.split(), "--length=2-3", "--threads", "1"]
    assert said["upload"] == ["rows.parquet"] and sum(said["left_out"].values()) == 1
    for wrong in (links["report.html"].replace(job.key, "x"), links["report.json"].replace("report.json", "upload")):
        assert client.get(wrong).status_code in (404, 422)


def test_the_curve_is_there_while_it_runs_and_after_it_was_stopped(queue: JobQueue, labeled: Path) -> None:
    job = wait(submit(queue, labeled, Asked(budget="5m")), "point")
    while job.left is None:
        time.sleep(0.02)
    assert (job.state, job.note, job.left, job.progress) == ("measuring", "training on 10 labels", 30.0, 0.5)
    mine, others = strength_card(job, 0, {}), strength_card(job, 0, {}, mine=False)
    assert "about 30 s left" in mine and "50.0 %" in mine and attack_chart(job) in mine and "--my.zip" in mine
    assert "another visitor" in others and "50.0 %" not in others and "--my.zip" not in others
    assert progress_bar(0.5, "in progress", "Measuring") in others
    assert attack_chart(job).count("<circle") == 1 and ">10</text>" in attack_chart(job), "there is room for what comes"
    with pytest.raises(UserError, match="another visitor"):
        queue.cancel(job, "you")
    assert queue.of("me", StrengthJob) is job and queue.of("me", FineTuning) is None
    process = job.process
    queue.cancel(job, "me")
    wait(job, "cancelled")
    assert (
        job.note.startswith("stopped at training on 10 labels") and process is not None and process.poll() is not None
    )
    assert attack_chart(job) in strength_card(job, 0, {}) and not report_links(job)
    assert not list(queue.work.iterdir())


def test_pictures_without_labels_go_in_under_names_of_ours(
    queue: JobQueue, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    path = tmp_path / "u.zip"
    png = captchas[0][0]
    path.write_bytes(zipped({"a/--evil.PNG": png, "labels.txt": b"x", "b.jpg": png, "c.HEIC": png, "d.heic": png}))
    job = wait(submit(queue, path, Asked(labels="0", unlabeled=True)), "done")
    said = json.loads(job.reports["report.json"])
    assert said["upload"] == ["00001.png", "00002.jpg"] and "--unlabeled=true" in said["flags"] and job.pictures == 2
    assert said["left_out"] == {"not a picture by name (.txt)": 1, "not a picture by name (.heic)": 2}


def test_a_bad_zip_and_a_failure_are_one_sentence(queue: JobQueue, labeled: Path, tmp_path: Path) -> None:
    few, none, broken = tmp_path / "few.zip", tmp_path / "none.zip", tmp_path / "broken.zip"
    png = b"no picture needs to be read for this"
    few.write_bytes(zipped({f"ab{i:02}_1.png": png for i in range(25)}))
    none.write_bytes(zipped({"a.txt": b"x"}))
    broken.write_bytes(b"PK\x03\x04")
    for path, asked, reason in (
        (few, Asked(), "25 labeled pictures are too few: 40 are the least"),
        (none, Asked(unlabeled=True), "the zip has 0 pictures"),
        (broken, Asked(), "not a zip"),
    ):
        with pytest.raises(UserError, match=reason):
            submit(queue, path, asked)
    assert not queue.jobs() and not list(queue.work.glob("*"))
    job = submit(queue, labeled, Asked(budget="20m"))
    wait(job, "failed")
    assert job.note == "the alphabet is empty" and [point["labels"] for point in job.points] == [0]


def test_what_a_zip_holds_that_is_damaged_is_counted_and_the_rest_measured(
    captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    data = zipped({"a.png": captchas[0][0], "b.png": captchas[1][0]}, zipfile.ZIP_STORED)
    place = data.index(captchas[1][0])
    (tmp_path / "a.zip").write_bytes(data[:place] + bytes(40) + data[place + 40 :])
    job = StrengthJob("1", tmp_path / "job", tmp_path / "m.onnx", "m.onnx", Asked(unlabeled=True), "a.zip")
    job.fill(tmp_path / "a.zip")
    assert [path.name for path in (tmp_path / "job" / "upload").iterdir()] == ["00001.png"] and job.pictures == 1
    assert json.loads((tmp_path / "job" / "left_out.json").read_text()) == {"unreadable image": 1}


def test_a_model_that_is_gone_and_a_report_that_is_not_there_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(Commands(), tmp_path, None)
    job = StrengthJob("1", tmp_path / "job", tmp_path / "m.onnx", "my/m.onnx", Asked(), "a.zip")
    job.folder.mkdir()
    with pytest.raises(UserError, match=r"the model my/m\.onnx is gone: choose another"):
        job.run(place)
    (tmp_path / "m.onnx").write_bytes(b"weights")
    monkeypatch.setattr(strength_job, "call", lambda *_: None)
    with pytest.raises(UserError, match="the report could not be written: this machine has no room left"):
        job.run(place)
    job.follow({"event": "of a later version"})
    assert job.points == [] and not job.reports
