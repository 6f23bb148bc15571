"""Fine-tuning jobs that go wrong; test_interface.py has one that goes well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from captcha_reader.errors import UserError
from captcha_reader.web import jobs as teaching
from captcha_reader.web.jobs import Job, Teacher


@pytest.fixture(scope="module")
def rows() -> list[tuple[bytes, str]]:
    from captcha_generator import CaptchaSettings, render_captcha

    settings = CaptchaSettings(("clean",), "abcd", (2, 3), seed=4)
    return [render_captcha(i, settings) for i in range(40)]


def wait(job: Job, seconds: float = 200, until: Callable[[Job], object] = lambda job: not job.running) -> Job:
    end = time.monotonic() + seconds
    while not until(job):
        assert time.monotonic() < end, (job.state, job.note)
        time.sleep(0.02)
    return job


def contents(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def models(reader: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "reader.safetensors").write_bytes(reader.read_bytes())
    return folder


FAKE = """
import json, sys, time, pathlib
print("job: " + json.dumps({"state": "training", "note": "beginning"}), flush=True)
pathlib.Path("run").mkdir()
mode = json.loads(pathlib.Path("order.json").read_text())["epochs"]
if mode == 1:
    time.sleep(60)
elif mode == 2:
    sys.stderr.write("epoch 1/2:  50%|#####     | 5/10 [00:01<00:01]\\r")
    sys.exit("error: there is no room on the disk")
elif mode == 3:
    raise MemoryError
"""


@pytest.fixture
def fake(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Teacher:
    """A teacher whose training only pretends: epochs 1 sleeps, 2 says an error, 3 breaks."""
    root = tmp_path / "fake"
    (root / "captcha_reader" / "web").mkdir(parents=True)
    (root / "captcha_reader" / "web" / "jobs.py").write_text(FAKE)
    monkeypatch.setattr(teaching, "ROOT", root)
    return Teacher(models, tmp_path / "work")


def test_cancelling_leaves_everything_as_it_was(fake: Teacher, models: Path, rows: list):
    before = contents(models)
    job = fake.submit(rows, models / "reader.safetensors", "reader.safetensors", epochs=1)
    wait(job, until=lambda job: job.state == "training")
    second = fake.submit(rows, models / "reader.safetensors", "reader.safetensors", epochs=1)
    third = fake.submit(rows, models / "reader.safetensors", "reader.safetensors", epochs=2)
    assert fake.before(second) == 1 and second.state == "waiting"
    fake.cancel(second)
    assert second.state == "cancelled"
    process = job.process
    fake.cancel(job)
    wait(job, 20)
    assert job.state == "cancelled" and process is not None and process.poll() is not None
    wait(third, 20)
    assert third.state == "failed" and third.note == "there is no room on the disk" and third.part > 0
    assert contents(models) == before and not list(fake.work.iterdir())


def test_a_failure_is_one_sentence_and_the_next_job_runs(fake: Teacher, models: Path, rows: list, capfd):
    before = contents(models)
    job = wait(fake.submit(rows, models / "reader.safetensors", "reader.safetensors", epochs=3), 20)
    assert job.state == "failed" and "MemoryError" not in job.note and "terminal" in job.note
    assert "MemoryError" in capfd.readouterr().err
    gone = wait(fake.submit(rows, models / "gone.safetensors", "gone.safetensors"), 20)
    assert gone.state == "failed" and "is gone" in gone.note
    assert contents(models) == before and not list(fake.work.iterdir())


def test_a_training_that_takes_too_long_says_so(
    fake: Teacher, models: Path, rows: list, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(teaching, "MOST_SECONDS", 2)
    job = wait(fake.submit(rows, models / "reader.safetensors", "reader.safetensors", epochs=1), 30)
    assert job.state == "failed" and "the most that it may: teach with fewer" in job.note
    assert "terminal" not in job.note


def test_what_the_upload_left_out_is_told_with_the_rest(models: Path, tmp_path: Path, rows: list):
    teacher = Teacher(models, tmp_path / "work")
    few = [*rows[:10], (b"no picture", "abc")]
    start = models / "reader.safetensors"
    job = teacher.submit(few, start, "reader.safetensors", left_out={"not in the label file": 3})
    assert re.search(r"10 different.*\(4 were left out: .*3 not in the label file", wait(job).note), job.note


def test_progress_never_runs_backwards(models: Path, tmp_path: Path, rows: list):
    """Of what a training says, line by line, the last comes while it still measures."""
    teacher, job = Teacher(models, tmp_path / "work"), Job("1", tmp_path, tmp_path, "reader", None, 40)
    lines = [
        'job: {"state": "measuring"}',
        'job: {"state": "training"}',
        "epoch 1/2: 50%| 5/10 [",
        "epoch 2/2: 100%| 10/10 [",
    ]
    lines += [f"{said}" for part in (1, 2) for said in (f"Measuring, part {part} of 2", "epoch 1/1: 100%| 10/10 [")]
    lines += ['job: {"result": {"expect": "much"}}']
    shares = []
    for line in lines:
        teacher._follow(job, line)
        shares.append(job.progress)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(0.9) and job.result == {"expect": "much"}


def test_pages_that_share_a_folder_leave_each_others_jobs_alone(fake: Teacher, models: Path, rows: list):
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        pass
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as page:
        try:
            names = (f"{page.pid}-1", f"{gone.pid}-1", f"{os.getpid()}-7", "1")
            kept, left, mine, old = (fake.work / f"20260101-120000-{name}" for name in names)
            for folder in (kept, left, mine, old):
                (folder / "upload").mkdir(parents=True)
            teacher = Teacher(models, fake.work)
            assert list(fake.work.iterdir()) == [kept], "it is a running page's, the others are not"
            start = models / "reader.safetensors"
            jobs = [teacher.submit(rows, start, "reader.safetensors", epochs=2) for _ in range(2)]
            assert all(f"-{os.getpid()}-" in job.id for job in jobs) and len({job.id for job in jobs}) == 2
            for job in jobs:
                assert wait(job, 20).note == "there is no room on the disk"
            assert list(fake.work.iterdir()) == [kept]
        finally:
            page.kill()


def test_the_first_jobs_may_come_at_once(fake: Teacher, models: Path, rows: list):
    with ThreadPoolExecutor(3) as pool:
        start = models / "reader.safetensors"
        jobs = list(pool.map(lambda _: fake.submit(rows, start, "reader.safetensors", epochs=2), range(3)))
    assert [wait(job, 20).note for job in jobs] == ["there is no room on the disk"] * 3


def test_jobs_are_limited(fake: Teacher, models: Path, rows: list):
    start = models / "reader.safetensors"
    with pytest.raises(UserError, match="no labelled pictures"):
        fake.submit([], start, "reader")
    with pytest.raises(UserError, match="cannot be taught"):
        fake.submit(rows, models / "a.onnx", "a.onnx")
    for _ in range(1 + teaching.MOST_WAITING):
        fake.submit(rows, start, "reader.safetensors", epochs=1)
    with pytest.raises(UserError, match="wait already"):
        fake.submit(rows, start, "reader.safetensors", epochs=1)
    fake.close()
    for job in fake.jobs():
        wait(job, 20)
