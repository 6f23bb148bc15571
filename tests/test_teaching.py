"""Corrected readings, labelled zips, and jobs that go wrong; test_interface.py has a training that goes well."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import zipped

from captcha_reader.errors import UserError
from captcha_reader.web import jobs as teaching
from captcha_reader.web.jobs import Feedback, Job, Teacher, labelled_pictures
from make_dataset import iter_source


@pytest.fixture(scope="module")
def rows() -> list[tuple[bytes, str]]:
    from captcha_generator import CaptchaSettings, render_captcha

    settings = CaptchaSettings(("clean",), "abcd", (2, 3), seed=4)
    return [render_captcha(i, settings) for i in range(40)]


# --------------------------------------------------------------------------------------------------------------------
# Feedback


def test_corrections_are_a_source_for_make_dataset(tmp_path: Path, rows: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(teaching, "ROWS_PER_SHARD", 3)
    feedback = Feedback(tmp_path / "feedback")
    assert feedback.count() == 0 and feedback.shards() == []
    for i, (png, text) in enumerate(rows[:7], start=1):
        assert feedback.add(png, f" {text} ") == i
    assert len(feedback.shards()) == 3
    samples = list(iter_source(str(tmp_path / "feedback")))
    assert [(s.image, s.text) for s in samples] == rows[:7]
    again = Feedback(tmp_path / "feedback")
    assert again.add(*rows[7]) == 8


def test_the_last_text_of_a_picture_counts(tmp_path: Path, rows: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(teaching, "ROWS_PER_SHARD", 2)
    feedback = Feedback(tmp_path / "feedback")
    for png, text in rows[:5]:
        feedback.add(png, text)
    (tmp_path / "feedback" / "broken.parquet").write_bytes(b"no shard")
    assert feedback.add(rows[0][0], "dcba") == 5  # in a shard that is full
    assert feedback.add(rows[4][0], "abcd") == 5  # in the one that is being filled
    assert Feedback(tmp_path / "feedback").add(rows[2][0], "aaaa") == 5  # after a start anew
    assert feedback.add(*rows[5]) == 6
    (tmp_path / "feedback" / "broken.parquet").unlink()
    said = [(s.image, s.text) for s in iter_source(str(tmp_path / "feedback"))]
    truth = dict(rows[:6]) | {rows[0][0]: "dcba", rows[4][0]: "abcd", rows[2][0]: "aaaa"}
    assert sorted(said) == sorted(truth.items())


def test_a_correction_can_be_taken_back(tmp_path: Path, rows: list, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(teaching, "ROWS_PER_SHARD", 2)
    feedback = Feedback(tmp_path)
    for png, text in rows[:3]:
        feedback.add(png, text)
    assert feedback.remove(rows[3][0]) == 3, "nothing was said of it"
    assert feedback.remove(rows[0][0]) == 2
    assert Feedback(tmp_path).remove(rows[2][0]) == 1, "the last one of a shard that another page began"
    assert len(feedback.shards()) == 1
    assert feedback.add(*rows[4]) == 2
    assert {s.image: s.text for s in iter_source(str(tmp_path))} == dict([rows[1], rows[4]])


def test_two_pages_on_one_folder_lose_no_correction(tmp_path: Path, rows: list):
    one, other = Feedback(tmp_path), Feedback(tmp_path)
    one.add(*rows[0])
    other.add(rows[0][0], "dcba")  # in the other's shard
    assert one.add(*rows[1]) == 2
    assert {s.image: s.text for s in iter_source(str(tmp_path))} == {rows[0][0]: "dcba", rows[1][0]: rows[1][1]}


ADD = """
import sys
from pathlib import Path
from captcha_reader.web.jobs import Feedback
feedback, pictures = Feedback(sys.argv[1]), [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
for i in range(8):
    for picture in pictures:
        feedback.add(picture, f"{sys.argv[3]}{i}")
"""


def test_two_processes_on_one_folder_lose_no_correction(tmp_path: Path, rows: list):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i, (png, _) in enumerate(rows[:6]):
        (pictures / f"{i}.png").write_bytes(png)
    command = [sys.executable, "-c", ADD, str(tmp_path / "feedback"), str(pictures)]
    both = [subprocess.Popen([*command, name], cwd=teaching.ROOT) for name in "ab"]
    assert [process.wait(120) for process in both] == [0, 0]
    samples = list(iter_source(str(tmp_path / "feedback")))
    assert len(samples) == 6 and {s.text for s in samples} <= {"a7", "b7"}


def test_what_a_kill_leaves_is_no_shard(tmp_path: Path, rows: list):
    feedback = Feedback(tmp_path)
    feedback.add(*rows[0])
    left = tmp_path / f".{feedback.shards()[0].stem}.1.tmp.parquet"
    left.write_bytes(b"PAR1, and no more")
    assert left not in feedback.shards() and feedback.add(*rows[1]) == 2
    assert [s.text for shard in feedback.shards() for s in iter_source(str(shard))] == [rows[0][1], rows[1][1]]


@pytest.mark.parametrize("text", ["", "   ", "a b", "x" * 33, "a\nb", "\x00"])
def test_what_is_no_label_is_not_kept(tmp_path: Path, rows: list, text: str):
    feedback = Feedback(tmp_path / "feedback")
    with pytest.raises(UserError):
        feedback.add(rows[0][0], text)
    with pytest.raises(UserError):
        feedback.add(b"no picture", "abc")
    assert feedback.count() == 0


# --------------------------------------------------------------------------------------------------------------------
# Zips


def test_labels_come_from_names_or_a_label_file(rows: list):
    named = {f"folder/{text}_{i}.png": png for i, (png, text) in enumerate(rows)}
    assert sorted(labelled_pictures(zipped(named))[0]) == sorted(rows)
    listed = {f"x/{i}.png": png for i, (png, _) in enumerate(rows)}
    table = "".join(f"{i}.png,{text}\n" for i, (_, text) in enumerate(rows))
    assert labelled_pictures(zipped(listed | {"x/labels.csv": table.encode()})) == (rows, {})
    spaced = table.replace(".png,", " ")
    assert labelled_pictures(zipped(listed | {"x/labels.txt": spaced.encode()})) == (rows, {})
    with pytest.raises(UserError, match="least"):
        labelled_pictures(zipped({"a.png": rows[0][0]}))
    with pytest.raises(UserError, match=r"only 1 different text \('img'\).*labels\.csv"):
        labelled_pictures(zipped({f"img_{i:03}.png": png for i, (png, _) in enumerate(rows)}))
    with pytest.raises(UserError, match=r"1 of the zip.*39 not in the label file"):
        labelled_pictures(zipped(listed | {"x/labels.csv": b"0.png,ab"}))
    with pytest.raises(UserError, match="zip"):
        labelled_pictures(b"no zip")


def test_each_label_file_holds_for_its_folder_as_for_make_dataset(tmp_path: Path, rows: list):
    entries = {f"{'ab'[i % 2]}/{i}.png": png for i, (png, _) in enumerate(rows)}
    for folder in "ab":
        lines = [f"{i}.png,{text}\n" for i, (_, text) in enumerate(rows) if "ab"[i % 2] == folder]
        entries[f"{folder}/labels.csv"] = "".join([*lines[:-1], "gone.png,abc\n"]).encode()
    entries |= {f"c/{text}_{i}.png": png for i, (png, text) in enumerate(rows[:3])}
    taken, left_out = labelled_pictures(zipped(entries))
    assert left_out == {"not in the label file": 2, "missing image file": 2}
    for name, data in entries.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert sorted(taken) == sorted((s.image, s.text) for s in iter_source(str(tmp_path))) and len(taken) == 41
    with pytest.raises(UserError, match=r"a/labels\.csv.*save it as UTF-8"):
        labelled_pictures(zipped(entries | {"a/labels.csv": "0.png,é".encode("latin-1")}))
    with pytest.raises(UserError, match=r"keep either labels\.csv or labels\.txt"):
        labelled_pictures(zipped(entries | {"a/labels.txt": b"0.png ab"}))


def test_a_damaged_entry_is_left_out_and_counted(rows: list):
    archive = zipped({f"{text}_{i}.png": png for i, (png, text) in enumerate(rows)}, zipfile.ZIP_STORED)
    taken, left_out = labelled_pictures(archive.replace(rows[1][0], rows[1][0][:-1] + b"?"))
    assert taken == [rows[0], *rows[2:]] and left_out == {"unreadable image": 1}


# --------------------------------------------------------------------------------------------------------------------
# Jobs


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
