"""Many pictures in one go: order, labels, refusals, two models, downloads."""

from __future__ import annotations

import csv
import io
import zipfile
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import zipped

from captcha_reader.errors import UserError
from captcha_reader.reading.collection import read_together
from captcha_reader.reading.constraints import Constraints
from captcha_reader.web import batch_reading as module
from captcha_reader.web.batch_reading import (
    Batch,
    BatchReader,
    batch_files,
    compare,
    count_pictures,
    iter_pictures,
    sign_test,
)
from captcha_reader.web.limits import Refused
from captcha_reader.web.tabs.batch import batch_summary
from captcha_reader.web.uploads import PictureZip
from predict import CaptchaPredictor


def read_batch(files: list[Path], *arguments: Any, **settings: Any) -> tuple[list[int], Batch]:
    reader = BatchReader(*arguments, **settings)
    return list(reader.read(files)), reader.batch()


def test_a_batch_is_sorted_labeled_and_its_refusals_named(
    exported: Path, captchas: list[tuple[bytes, str]], tmp_path: Path
):
    predictor = CaptchaPredictor(exported, threads=1)
    readings = predictor.predict([png for png, _ in captchas])
    named = {f"{r.text}_{i}.png": png for i, ((png, _), r) in enumerate(zip(captchas, readings, strict=True)) if r.text}
    (tmp_path / "a.zip").write_bytes(zipped(named | {"broken.png": b"no picture"}))
    (tmp_path / "bad.zip").write_bytes(zipped({"../x.png": b""}))
    files = [tmp_path / "a.zip", tmp_path / "bad.zip", tmp_path / "gone.png"]
    steps, batch = read_batch(files, predictor)
    assert isinstance(batch, Batch) and batch.labeled and all(row["right"] for row in batch.rows)
    assert len(batch.rows) == len(named) and steps and steps == sorted(steps)
    confidences = [row["confidence"] for row in batch.rows]
    assert confidences == sorted(confidences)
    assert [name for name, _ in batch.refused] == ["broken.png", "bad.zip", "gone.png"]
    _, unlabeled = read_batch(files, predictor, labels="no")
    assert not unlabeled.labeled
    _, together = read_batch(files, predictor, labels="no", together=True)
    alone = {row["file"]: row["prediction"] for row in batch.rows}
    expected, kind = read_together([alone[row["file"]] for row in together.rows])
    assert {row["file"]: row["reading"] for row in together.rows} == {
        row["file"]: p.text for row, p in zip(together.rows, expected, strict=True)
    }
    assert str(kind) in batch_summary(together, "m", 1.0).replace("&#37;", "%") and not batch.scheme
    (tmp_path / "b.zip").write_bytes(zipped({f"IMG{i}9.png": png for i, (png, _) in enumerate(captchas)}))
    _, camera = read_batch([tmp_path / "b.zip"], predictor)
    assert not camera.labeled
    assert "The file names do not look like" in batch_summary(camera, "m", 1.0, "auto")
    assert "100.0 %" in batch_summary(batch, "m", 1.0)
    longer = {f"x{Path(name).stem.split('_')[0]}.png": png for name, png in named.items()}  # one character more
    nested = {f"{i % 2}/{name}": png for i, (name, png) in enumerate(longer.items())}
    (tmp_path / "c.zip").write_bytes(zipped(nested))
    (tmp_path / "d.zip").write_bytes(zipped({"a.txt": b"no picture"}))
    _, shifted = read_batch([tmp_path / "c.zip", tmp_path / "d.zip"], predictor)
    assert shifted.labeled and {row["file"] for row in shifted.rows} == nested.keys()
    assert [name for name, _ in shifted.refused] == ["d.zip"] and "no picture" in str(shifted.refused)
    assert "No picture could be read" in batch_summary(Batch([], [("<b>", "why")]), "m", 1.0)


def test_what_is_known_holds_for_both_models_and_for_the_vote(exported: Path, captchas: list, tmp_path: Path):
    predictor = CaptchaPredictor(exported, threads=1)
    pictures = {f"{i}.png": png for i, (png, _) in enumerate(captchas[:12])}
    (tmp_path / "a.zip").write_bytes(zipped(pictures))
    two = Constraints("ab", 2)
    alone = predictor.predict(list(pictures.values()), constraints=two)
    expected = {name: reading.text for name, reading in zip(pictures, alone, strict=True)}
    assert expected != {n: r.text for n, r in zip(pictures, predictor.predict(list(pictures.values())), strict=True)}
    _, batch = read_batch([tmp_path / "a.zip"], predictor, predictor, "no", constraints=two)
    assert {row["file"]: row["reading"] for row in batch.rows} == expected
    assert {row["file"]: row["other"] for row in batch.rows} == expected
    assert "characters ab, length 2" in batch_summary(batch, "m", 1.0)
    assert "Known" not in batch_summary(read_batch([tmp_path / "a.zip"], predictor)[1], "m", 1.0)
    _, together = read_batch([tmp_path / "a.zip"], predictor, labels="no", together=True, constraints=two)
    assert all(len(row["reading"]) == 2 and set(row["reading"]) <= set("ab") for row in together.rows)
    assert together.scheme.startswith("lengths 2 (100%)")  # not of lengths that even chances would leave open


def test_labels_are_compared_in_the_case_of_the_readings(exported: Path, captchas: list, tmp_path: Path):
    predictor = CaptchaPredictor(exported, threads=1)
    capitals = Constraints("A-D", ignore_case=True)
    readings = predictor.predict([png for png, _ in captchas[:8]], constraints=capitals)
    assert any(r.text for r in readings) and all(r.text == r.text.upper() for r in readings)
    for spelled in (str.lower, str.upper):
        named = {f"{spelled(r.text)}_{i}.png": captchas[i][0] for i, r in enumerate(readings) if r.text}
        (tmp_path / "a.zip").write_bytes(zipped(named))
        _, batch = read_batch([tmp_path / "a.zip"], predictor, labels="yes", constraints=capitals)
        assert batch.rows and all(row["right"] for row in batch.rows)
    _, strict = read_batch([tmp_path / "a.zip"], predictor, labels="yes")
    assert not any(row["right"] for row in strict.rows)  # the model writes abcd, the names say ABCD
    with pytest.raises(UserError, match="cannot write"):
        BatchReader(predictor, constraints=Constraints("xyz", ignore_case=True))


def test_pictures_of_other_formats_in_a_zip_are_named(exported: Path, captchas: list, tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(zipped({"a.png": captchas[0][0], "b.avif": b"b", "notes.txt": b"c"}))
    _, batch = read_batch([tmp_path / "a.zip"], CaptchaPredictor(exported, threads=1))
    assert [row["file"] for row in batch.rows] == ["a.png"] and count_pictures([tmp_path / "a.zip"]) == 2
    assert batch.refused == [("b.avif", "picture of a format that is not read: save it as PNG or JPEG")]


def test_labels_that_what_is_known_rules_out_are_named(exported: Path, captchas: list, tmp_path: Path):
    predictor = CaptchaPredictor(exported, threads=1)
    named = {f"{text}_{i}.png": png for i, (png, text) in enumerate(captchas[:6])}
    (tmp_path / "a.zip").write_bytes(zipped(named))
    (tmp_path / "abcd.png").write_bytes(captchas[0][0])
    files = [tmp_path / "a.zip", tmp_path / "abcd.png", tmp_path / "gone.png"]
    wrong = Constraints("a-d", 9)
    reader = BatchReader(predictor, labels="yes", constraints=wrong)
    with pytest.raises(UserError, match=r"7 of 7 labels do not fit what is said to be known .*correct the length"):
        next(reader.read(files))
    assert not reader.rows, "nothing is read for a measurement that would be 0"
    assert not read_batch(files, predictor, labels="no", constraints=wrong)[1].misfit
    readings = {f"{r.text}_{i}.png": captchas[i][0] for i, r in enumerate(predictor.predict([*named.values()]))}
    (tmp_path / "a.zip").write_bytes(zipped({name: png for name, png in readings.items() if name[0] != "_"}))
    longest = max(len(name.split("_")[0]) for name in readings)
    _, found = read_batch(files[:1], predictor, constraints=Constraints(length=longest + 1))  # they look like labels
    assert found.labeled and not any(row["right"] for row in found.rows)
    assert "labels do not fit what is said to be known" in batch_summary(found, "m", 1.0, "auto")
    assert "do not fit" not in batch_summary(read_batch(files[:1], predictor)[1], "m", 1.0, "auto")


def test_a_damaged_entry_of_a_zip_leaves_the_others(exported: Path, captchas: list, tmp_path: Path):
    archive = zipped({f"{i}.png": png for i, (png, _) in enumerate(captchas[:5])}, zipfile.ZIP_STORED)
    damaged = archive.replace(captchas[1][0], captchas[1][0][:-1] + b"?")
    (tmp_path / "a.zip").write_bytes(damaged)
    _, batch = read_batch([tmp_path / "a.zip"], CaptchaPredictor(exported, threads=1))
    assert sorted(row["file"] for row in batch.rows) == ["0.png", "2.png", "3.png", "4.png"]
    assert [name for name, _ in batch.refused] == ["1.png"] and "damaged" in batch.refused[0][1]
    with pytest.raises(Refused, match=r"1\.png.*damaged"):  # the route reads a request whole or not at all
        list(PictureZip(damaged))


def test_the_readings_until_a_stop_are_kept(exported: Path, captchas: list, tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(zipped({f"{text}_{i}.png": png for i, (png, text) in enumerate(captchas)}))
    reader = BatchReader(CaptchaPredictor(exported, threads=1), labels="yes")
    assert next(reader.read([tmp_path / "a.zip"])) == 32
    batch = reader.batch()
    assert len(batch.rows) == 32
    said = batch_summary(batch, "m", 1.0, "yes", stopped_of=40)
    assert "Stopped after 32 of 40" in said


def row(label: str, reading: str, other: str) -> dict[str, Any]:
    prediction = SimpleNamespace(text=reading, char_confidences=[0.9] * len(reading), confidence=0.9)
    known = {"label": label, "reading": reading, "other": other, "right": label == reading}
    return known | {"file": f"{label}.png", "confidence": 0.9, "prediction": prediction}


def test_two_models_are_compared_on_the_same_pictures(exported: Path, natural: Path, captchas: list, tmp_path: Path):
    (tmp_path / "a.zip").write_bytes(zipped({f"{text}_{i}.png": png for i, (png, text) in enumerate(captchas)}))
    one, two = CaptchaPredictor(exported, threads=1), CaptchaPredictor(natural, device="cpu", threads=1)
    _, batch = read_batch([tmp_path / "a.zip"], one, two, labels="yes")
    pictures = [png for png, _ in captchas]
    both = zip(one.predict(pictures), two.predict(pictures), strict=True)
    expected = {
        f"{text}_{i}.png": (a.text, b.text) for i, ((_, text), (a, b)) in enumerate(zip(captchas, both, strict=True))
    }
    assert {r["file"]: (r["reading"], r["other"]) for r in batch.rows} == expected
    differs = [r["reading"] != r["other"] for r in batch.rows]
    assert differs == sorted(differs, reverse=True) and any(differs)
    assert compare(batch, "one", "two")["same"] == differs.count(False)
    said = batch_summary(batch, "one", 1.0, "yes", "two")
    assert "one and two" in said and f"read {differs.count(False)} of {len(captchas)} pictures alike" in said


def test_a_comparison_counts_what_each_model_alone_reads_right():
    rows = [
        row("ab", "ab", "xx"),
        row("cd", "cd", "cd"),
        row("ef", "x", "ef"),
        *[row(f"g{i}", f"g{i}", "") for i in range(8)],
    ]
    found = compare(Batch(rows, [], labeled=True), "one", "two")
    (_, first, alone), (_, second, rival) = found["models"]
    assert (first["sequence_accuracy"], alone) == (10 / 11, 9) and (second["sequence_accuracy"], rival) == (2 / 11, 1)
    assert found["same"] == 1 and "one is better" in found["verdict"]
    assert compare(Batch(rows[:3], [], labeled=True), "one", "two")["verdict"].startswith("So few")
    assert not compare(Batch(rows, []), "one", "two")["models"]
    assert sign_test(9, 1) == pytest.approx(2 * 11 / 1024) and sign_test(3, 3) == 1 == sign_test(0, 0)


def test_no_cell_is_taken_for_a_formula():
    names = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "\uff1d1"]
    rows = [row("a", name, name) for name in names]
    for one, name in zip(rows, names, strict=True):
        one["file"] = f"{name}.png"
    table, _ = batch_files(Batch(rows, [("=bad.png", "+why")]))
    cells = [cell for line in csv.reader(io.StringIO(table.decode(), newline="")) for cell in line]
    assert "'=1+1.png" in cells and "'+why" in cells and "'=bad.png" in cells
    assert not [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@\uff1d") and cell]


def test_more_pictures_than_allowed_are_refused_and_an_upload_that_is_gone_is_named(
    captchas: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "BATCH_PICTURES", 3)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, (png, _) in zip(paths, captchas, strict=False):
        path.write_bytes(png)
    with pytest.raises(UserError, match="there are more than 3 pictures: bring fewer at a time"):
        count_pictures(paths)
    given = iter_pictures(paths)
    assert [name for name, _ in islice(given, 3)] == ["0.png", "1.png", "2.png"]
    with pytest.raises(UserError, match="there are more than 3 pictures: bring fewer at a time"):
        next(given)
    paths[0].unlink()
    ((name, error),) = iter_pictures(paths[:1])
    assert name == "0.png" and isinstance(error, UserError) and str(tmp_path) not in str(error)
    assert count_pictures(paths[:2]) == 2
