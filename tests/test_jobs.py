"""Fine-tuning jobs that go wrong; test_interface.py has one that goes well."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from captcha_reader.errors import UserError
from captcha_reader.files import ROOT
from captcha_reader.web import finetuning, processes
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.job import Commands, Job, Place
from captcha_reader.web.jobs import MOST_WAITING, JobQueue
from captcha_reader.web.own_models import MARKER
from captcha_reader.web.processes import Cancelled


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


DATASET = "import shutil, sys; shutil.copytree(sys.argv[1], 'dataset')"
TRAIN = """
import json, sys, time, pathlib
def say(event, **values):
    print(json.dumps({"event": event} | values), flush=True)
epochs = int(sys.argv[sys.argv.index("--epochs") + 1]) if "--epochs" in sys.argv else 0
print("a line for people, and one that is cut off:")
print('{"event": "st')
phases = [{"name": "frozen", "epochs": 1, "steps": 4}, {"name": "whole", "epochs": 2, "steps": 8}]
say("plan", parts=[{"name": "training", "phases": phases}, {"name": "fold 1 of 2", "phases": phases}])
say("step", part="training", phase="frozen", epoch=1, epochs=3, step=2, steps=4, loss=2.5, done=0.1, seconds_left=30.0)
if epochs == 1:
    time.sleep(60)
elif epochs == 2:
    sys.stderr.write("epoch 1/2:  50%|#####     | 5/10 [00:01<00:01]\\r")
    sys.exit("error: there is no room on the disk")
elif epochs == 3:
    raise MemoryError
say("epoch", part="training", epoch=1, epochs=3, train_loss=2.0, seconds=1.0, done=0.2, seconds_left=20.0)
say("epoch", part="fold 1 of 2", epoch=1, epochs=3, train_loss=2.0, seconds=1.0, done=0.5, seconds_left=10.0)
report = {"n": 40, "sequence_accuracy": 0.75, "sequence_accuracy_ignore_case": 0.8, "wilson_95": [0.6, 0.86],
          "before": 0.5, "before_ignore_case": 0.55}
say("result", checkpoint="run/best.safetensors", report=report, expect="Expect 75.0% of new pictures.")
pathlib.Path("run").mkdir()
pathlib.Path("run/best.safetensors").write_bytes(b"weights")
"""
EXPORT = "import sys, pathlib; pathlib.Path(sys.argv[sys.argv.index('--out') + 1]).write_bytes(b'onnx')"


@pytest.fixture
def fake(models: Path, dataset: Path, tmp_path: Path) -> Iterator[JobQueue]:
    """A queue whose programs only pretend: a training with epochs 1 sleeps, 2 says an error, 3 breaks."""
    make, train, export = ([sys.executable, "-c", code] for code in (DATASET, TRAIN, EXPORT))
    queue = JobQueue(models, tmp_path / "work", Commands([*make, str(dataset)], train, export))
    yield queue
    queue.close()


def test_cancelling_leaves_everything_as_it_was(fake: JobQueue, models: Path, rows: list):
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


def test_a_failure_is_one_sentence_and_the_next_job_runs(fake: JobQueue, models: Path, rows: list, capfd):
    before = contents(models)
    job = wait(fake.submit(rows, models / "reader.safetensors", "reader.safetensors", epochs=3), 20)
    assert job.state == "failed" and "MemoryError" not in job.note and "terminal" in job.note
    assert "MemoryError" in capfd.readouterr().err
    gone = wait(fake.submit(rows, models / "gone.safetensors", "gone.safetensors"), 20)
    assert gone.state == "failed" and "is gone" in gone.note
    assert contents(models) == before and not list(fake.work.iterdir())


def test_a_training_that_takes_too_long_says_so(
    fake: JobQueue, models: Path, rows: list, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(finetuning, "MOST_SECONDS", 2)
    job = wait(fake.submit(rows, models / "reader.safetensors", "reader.safetensors", epochs=1), 30)
    assert job.state == "failed" and "the most that it may: take fewer" in job.note
    assert "terminal" not in job.note


def test_what_the_upload_left_out_is_told_with_the_rest(models: Path, tmp_path: Path, rows: list):
    make = [sys.executable, str(ROOT / "make_dataset.py")]
    queue = JobQueue(models, tmp_path / "work", Commands(make, ["false"], ["false"]))
    few = [*rows[:10], (b"no picture", "abc")]
    start = models / "reader.safetensors"
    job = queue.submit(few, start, "reader.safetensors", left_out={"not in the label file": 3})
    assert re.search(r"10 different.*\(4 were left out: .*3 not in the label file", wait(job).note), job.note


def test_a_job_tells_its_steps_and_its_result(fake: JobQueue, models: Path, rows: list):
    job = fake.submit(rows, models / "reader.safetensors", "reader.safetensors", name="shop", owner="me")
    wait(job, 30)
    assert job.state == "done" and job.model == "shop" and job.progress == 1, job.note
    assert [phase["epochs"] for phase in job.plan[0]["phases"]] == [1, 2]
    assert [row["train_loss"] for row in job.history] == [2.0], "the folds have curves of their own"
    assert job.result["after"]["sequence_accuracy"] == 0.75 and job.result["before"]["sequence_accuracy"] == 0.5
    low, high = job.result["before"]["wilson_95"]
    assert 0.34 < low < 0.36 and 0.64 < high < 0.66, "20 of 40"
    assert job.pictures == 90
    assert contents(models / "shop") == {"best.safetensors", "best.onnx", MARKER}
    assert "me" not in (models / "shop" / MARKER).read_text()
    again = wait(fake.submit(rows, models / "reader.safetensors", "reader.safetensors", name="Shop"), 30)
    assert again.model == "Shop 2"


def test_a_job_belongs_to_its_session(fake: JobQueue, models: Path, rows: list):
    start = models / "reader.safetensors"
    job = fake.submit(rows, start, "reader.safetensors", epochs=1, owner="me")
    other = fake.submit(rows, start, "reader.safetensors", epochs=1, owner="you")
    for secret in ("you", "", "m"):
        with pytest.raises(UserError, match="another visitor"):
            fake.cancel(job, secret)
    assert fake.of("me", FineTuning) is job and fake.of("you", FineTuning) is other and fake.of("", FineTuning) is None
    assert fake.running() is job and not job.cancelling
    fake.cancel(other, "you")
    fake.cancel(job, "me")
    assert wait(job, 20).state == "cancelled" == other.state


def test_a_stopped_job_says_where(fake: JobQueue, models: Path, rows: list):
    job = fake.submit(rows, models / "reader.safetensors", "reader.safetensors", epochs=1)
    wait(job, until=lambda job: job.left)
    assert job.left == 30.0 and 0 < job.progress < 0.2 and job.note == "training, epoch 1 of 3"
    fake.cancel(job)
    assert wait(job, 20).note == "stopped at training, epoch 1 of 3: everything is as it was"


def test_progress_never_runs_backwards():
    """Of what a training says, event by event."""
    job = FineTuning("1", Path(), Path(), "reader", None, 40)
    place = {"epoch": 1, "epochs": 2}
    events = [
        {"event": "plan", "parts": [{"name": "training", "phases": []}]},
        {"event": "step", "part": "training", "done": 0.2, "seconds_left": 9.0} | place,
        {"event": "epoch", "part": "training", "done": 0.3, "train_loss": 1.0} | place,
        {"event": "step", "part": "fold 1 of 2", "done": 0.25, "seconds_left": None} | place,
        {"event": "message", "text": "hello"},
        {"event": "result", "report": None, "expect": None},
        {"no": "event"},
    ]
    job.state = "training"
    shares = []
    for event in events:
        job.follow(event)
        shares.append(job.progress)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(0.95) and "after" not in job.result


def test_pages_that_share_a_folder_leave_each_others_jobs_alone(fake: JobQueue, models: Path, rows: list):
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        pass
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as page:
        try:
            names = (f"{page.pid}-1", f"{gone.pid}-1", f"{os.getpid()}-7", "1")
            kept, left, mine, old = (fake.work / f"20260101-120000-{name}" for name in names)
            for folder in (kept, left, mine, old):
                (folder / "upload").mkdir(parents=True)
            queue = JobQueue(models, fake.work, fake.commands)
            assert list(fake.work.iterdir()) == [kept], "it is a running page's, the others are not"
            start = models / "reader.safetensors"
            jobs = [queue.submit(rows, start, "reader.safetensors", epochs=2) for _ in range(2)]
            assert all(f"-{os.getpid()}-" in job.id for job in jobs) and len({job.id for job in jobs}) == 2
            for job in jobs:
                assert wait(job, 20).note == "there is no room on the disk"
            assert list(fake.work.iterdir()) == [kept]
        finally:
            page.kill()


def test_the_first_jobs_may_come_at_once(fake: JobQueue, models: Path, rows: list):
    with ThreadPoolExecutor(3) as pool:
        start = models / "reader.safetensors"
        jobs = list(pool.map(lambda _: fake.submit(rows, start, "reader.safetensors", epochs=2), range(3)))
    assert [wait(job, 20).note for job in jobs] == ["there is no room on the disk"] * 3


def test_no_more_jobs_than_there_are_places_for_come_at_once(fake: JobQueue, models: Path, rows: list):
    count = MOST_WAITING + 4
    together = threading.Barrier(count)

    def slow_rows() -> Iterator[tuple[bytes, str]]:
        time.sleep(0.3)  # all jobs are made at the same time
        yield from rows

    def submit(_: int) -> str:
        together.wait()
        try:
            fake.submit(slow_rows(), models / "reader.safetensors", "reader.safetensors", epochs=1)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(count) as pool:
        refused = [message for message in pool.map(submit, range(count)) if message]
    assert refused == [f"{MOST_WAITING} jobs wait already: try again when one has ended"] * 3
    assert len(fake.jobs()) == 1 + MOST_WAITING


def test_jobs_are_limited(fake: JobQueue, models: Path, rows: list):
    start = models / "reader.safetensors"
    with pytest.raises(UserError, match="no labeled pictures"):
        fake.submit([], start, "reader")
    assert not list(fake.work.iterdir())
    with pytest.raises(UserError, match="name"):
        fake.submit(rows, start, "reader", name="../x")
    with pytest.raises(UserError, match="cannot be fine-tuned"):
        fake.submit(rows, models / "a.onnx", "a.onnx")
    for _ in range(1 + MOST_WAITING):
        fake.submit(rows, start, "reader.safetensors", epochs=1)
    with pytest.raises(UserError, match="wait already"):
        fake.submit(rows, start, "reader.safetensors", epochs=1)
    fake.close()
    for job in fake.jobs():
        wait(job, 20)


# --------------------------------------------------------------------------------------------------------------------
# What goes wrong


@pytest.mark.parametrize(
    ("error", "said"), [(UserError("there is no room"), "there is no room"), (Cancelled(), "the export was stopped")]
)
def test_an_export_that_fails_or_is_stopped_leaves_the_model_and_says_so(
    error: Exception, said: str, models: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def call(job: Job, command: list[str], seconds: int, advice: str) -> None:
        if command[0] == "dataset":
            shutil.copytree(dataset, job.folder / "dataset")
        elif command[0] == "train":
            (job.folder / "run").mkdir()
            (job.folder / "run" / "best.safetensors").write_bytes(b"weights")
        else:
            raise error

    monkeypatch.setattr(finetuning, "call", call)
    start = models / "reader.safetensors"
    job = FineTuning("1", tmp_path / "job", start, start.name, None, 40, name="kept", owner="me")
    job.folder.mkdir()
    job.run(Place(Commands(["dataset"], ["train"], ["export"]), models, None))
    assert job.model == "kept" and job.result["export"] == said
    assert contents(models / "kept") == {"best.safetensors", MARKER}


def test_pictures_that_cannot_be_stored_are_one_sentence(tmp_path: Path):
    queue = JobQueue(tmp_path, tmp_path / "work", Commands())

    def make(job_id: str, folder: Path) -> FineTuning:
        folder.mkdir(parents=True)
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"the pictures cannot be stored \(No space left on device\)"):
        queue.add(make)
    assert not queue.jobs() and not list(queue.work.iterdir())


def test_an_error_nobody_thought_of_ends_the_job_and_not_the_queue(tmp_path: Path, capfd):
    queue = JobQueue(tmp_path, tmp_path / "work", Commands())

    class Broken(Job):
        titles = FineTuning.titles

        def run(self, place) -> None:
            raise RuntimeError("/srv/me: out of order")

    for number in "12":
        job = wait(queue.add(lambda job_id, folder: Broken(f"{job_id}{number}", folder)), 10)  # noqa: B023
        assert job.state == "failed" and job.note == "something went wrong on this machine: its terminal says what"
    assert "failed: RuntimeError('/srv/me: out of order')" in capfd.readouterr().err


def test_lines_that_are_no_events_are_passed_over():
    lines = ["words", '{"event": "step"}', '{"half', "[1]", '{"event": "result"}']
    assert [event["event"] for event in processes._events(lines)] == ["step", "result"]


class Deaf:
    """A process that does not hear when it is asked to stop."""

    pid = 4_000_000

    def __init__(self, code: int | None = None) -> None:
        self.code, self.asked = code, 0

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        self.asked += 1


def test_a_program_that_does_not_stop_is_killed_with_those_that_it_started(monkeypatch: pytest.MonkeyPatch):
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.02)
    monkeypatch.setattr(os, "killpg", lambda *pair: killed.append(pair))
    deaf, ended, hears = Deaf(), Deaf(0), Deaf()
    for process in (deaf, ended, hears, None):
        processes.stop(process)  # type: ignore[arg-type]
    hears.code = -15
    end = time.monotonic() + 10
    while not killed:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert killed == [(deaf.pid, signal.SIGKILL)]
    assert (deaf.asked, ended.asked, hears.asked) == (1, 0, 1)
