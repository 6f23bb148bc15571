"""Corrected readings are kept, replaced and taken back."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captcha_reader.dataset.sources import iter_source
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT
from captcha_reader.web import feedback as module
from captcha_reader.web.feedback import Feedback


@pytest.fixture(scope="module")
def rows() -> list[tuple[bytes, str]]:
    from captcha_generator import CaptchaSettings, render_captcha

    settings = CaptchaSettings(("clean",), "abcd", (2, 3), seed=4)
    return [render_captcha(i, settings) for i in range(40)]


def test_corrections_are_a_source_for_make_dataset(tmp_path: Path, rows: list):
    feedback = Feedback(tmp_path / "feedback")
    assert feedback.count() == 0 and feedback.shards() == [] and list(feedback.rows()) == []
    for i, (png, text) in enumerate(rows[:7], start=1):
        assert feedback.add(png, f" {text} ") == i
    samples = list(iter_source(str(tmp_path / "feedback")))
    assert sorted((s.image, s.text) for s in samples) == sorted(rows[:7])
    assert list(feedback.rows()) == rows[:7]
    again = Feedback(tmp_path / "feedback")
    assert again.add(*rows[7]) == 8


def test_the_last_text_of_a_picture_counts(tmp_path: Path, rows: list):
    feedback = Feedback(tmp_path / "feedback")
    for png, text in rows[:5]:
        feedback.add(png, text)
    (tmp_path / "feedback" / "broken.parquet").write_bytes(b"no shard")
    assert feedback.add(rows[0][0], "dcba") == 5
    assert feedback.add(rows[4][0], "abcd") == 5
    assert Feedback(tmp_path / "feedback").add(rows[2][0], "aaaa") == 5  # after a start anew
    assert feedback.add(*rows[5]) == 6
    (tmp_path / "feedback" / "broken.parquet").unlink()
    said = [(s.image, s.text) for s in iter_source(str(tmp_path / "feedback"))]
    truth = dict(rows[:6]) | {rows[0][0]: "dcba", rows[4][0]: "abcd", rows[2][0]: "aaaa"}
    assert sorted(said) == sorted(truth.items())


def test_a_correction_that_another_page_takes_back_meanwhile_is_not_counted(
    tmp_path: Path, rows: list, monkeypatch: pytest.MonkeyPatch
):
    feedback, listed = Feedback(tmp_path), Path.glob
    feedback.add(*rows[0])
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: [*listed(folder, pattern), folder / "gone.parquet"])
    assert feedback.add(*rows[1]) == feedback.count() == 2 and len(list(feedback.rows())) == 2


def test_a_correction_can_be_taken_back(tmp_path: Path, rows: list):
    feedback = Feedback(tmp_path)
    for png, text in rows[:3]:
        feedback.add(png, text)
    assert feedback.remove(rows[3][0]) == 3, "nothing was said of it"
    assert feedback.remove(rows[0][0]) == 2
    assert Feedback(tmp_path).remove(rows[2][0]) == 1, "of another page"
    assert len(feedback.shards()) == 1
    assert feedback.add(*rows[4]) == 2
    assert {s.image: s.text for s in iter_source(str(tmp_path))} == dict([rows[1], rows[4]])


def test_a_correction_writes_its_own_file_alone(tmp_path: Path, rows: list):
    feedback = Feedback(tmp_path)
    feedback.add(*rows[0])
    first = feedback.shards()[0].stat()
    feedback.add(*rows[1])
    again = feedback.shards()[0].stat()
    assert (again.st_mtime_ns, again.st_ino) == (first.st_mtime_ns, first.st_ino)


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_a_large_picture_is_kept_small_and_can_still_be_read(tmp_path: Path, kind: str):
    noise = np.random.default_rng(0).integers(0, 256, (900, 1500, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    feedback = Feedback(tmp_path)
    assert feedback.add(file.getvalue(), "abc") == 1
    kept = next(feedback.rows())[0]
    assert len(file.getvalue()) > 4_000_000 and len(kept) <= module.KEPT_BYTES
    with Image.open(io.BytesIO(kept)) as image:
        assert 0.55 < image.height / image.width < 0.65
    feedback.add(file.getvalue(), "abd")
    assert [text for _, text in feedback.rows()] == ["abd"]


def test_there_is_a_quota(tmp_path: Path, rows: list):
    few = Feedback(tmp_path / "few", quota_rows=2)
    small = Feedback(tmp_path / "small", quota_bytes=60_000)
    for feedback in (few, small):
        with pytest.raises(UserError, match="no more"):
            for png, text in rows:
                feedback.add(png, text)
        assert feedback.add(rows[0][0], "dcba") == feedback.count(), "one in place of another needs no room"
    assert few.count() == 2 and sum(p.stat().st_size for p in small.shards()) <= 60_000


def test_two_pages_on_one_folder_lose_no_correction(tmp_path: Path, rows: list):
    one, other = Feedback(tmp_path), Feedback(tmp_path)
    one.add(*rows[0])
    other.add(rows[0][0], "dcba")  # in the other's shard
    assert one.add(*rows[1]) == 2
    assert {s.image: s.text for s in iter_source(str(tmp_path))} == {rows[0][0]: "dcba", rows[1][0]: rows[1][1]}


ADD = """
import sys
from pathlib import Path
from captcha_reader.web.feedback import Feedback
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
    both = [subprocess.Popen([*command, name], cwd=ROOT) for name in "ab"]
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


def test_a_correction_is_composed_as_any_typed_label_is(tmp_path: Path, rows: list):
    feedback = Feedback(tmp_path)
    feedback.add(rows[0][0], " Cafe\u0301 ")
    assert [text for _, text in feedback.rows()] == ["Caf\u00e9"]


def test_what_the_disk_refuses_is_one_sentence(tmp_path: Path, rows: list, monkeypatch: pytest.MonkeyPatch):
    feedback = Feedback(tmp_path)
    feedback.add(*rows[0])

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_rows", refuse)
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(UserError, match=r"the correction cannot be kept \(No space left on device\)"):
            feedback.add(*rows[1])
        with pytest.raises(UserError, match=r"the correction cannot be removed \(No space left on device\)"):
            feedback.remove(rows[0][0])
    assert list(feedback.rows()) == rows[:1]
