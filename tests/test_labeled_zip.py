"""Zips of labeled captchas."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from conftest import zipped

from captcha_reader.dataset.sources import iter_source
from captcha_reader.errors import UserError
from captcha_reader.web.labeled_zip import labeled_pictures


@pytest.fixture(scope="module")
def rows() -> list[tuple[bytes, str]]:
    from captcha_generator import CaptchaSettings, render_captcha

    settings = CaptchaSettings(("clean",), "abcd", (2, 3), seed=4)
    return [render_captcha(i, settings) for i in range(40)]


def test_labels_come_from_names_or_a_label_file(rows: list):
    named = {f"folder/{text}_{i}.png": png for i, (png, text) in enumerate(rows)}
    assert sorted(labeled_pictures(zipped(named))[0]) == sorted(rows)
    listed = {f"x/{i}.png": png for i, (png, _) in enumerate(rows)}
    table = "".join(f"{i}.png,{text}\n" for i, (_, text) in enumerate(rows))
    assert labeled_pictures(zipped(listed | {"x/labels.csv": table.encode()})) == (rows, {})
    spaced = table.replace(".png,", " ")
    assert labeled_pictures(zipped(listed | {"x/labels.txt": spaced.encode()})) == (rows, {})
    with pytest.raises(UserError, match="least"):
        labeled_pictures(zipped({"a.png": rows[0][0]}))
    with pytest.raises(UserError, match=r"only 1 different text \('img'\).*labels\.csv"):
        labeled_pictures(zipped({f"img_{i:03}.png": png for i, (png, _) in enumerate(rows)}))
    with pytest.raises(UserError, match=r"1 of the zip.*39 not in the label file"):
        labeled_pictures(zipped(listed | {"x/labels.csv": b"0.png,ab"}))
    with pytest.raises(UserError, match="zip"):
        labeled_pictures(b"no zip")


def test_each_label_file_holds_for_its_folder_as_for_make_dataset(tmp_path: Path, rows: list):
    entries = {f"{'ab'[i % 2]}/{i}.png": png for i, (png, _) in enumerate(rows)}
    for folder in "ab":
        lines = [f"{i}.png,{text}\n" for i, (_, text) in enumerate(rows) if "ab"[i % 2] == folder]
        entries[f"{folder}/labels.csv"] = "".join([*lines[:-1], "gone.png,abc\n"]).encode()
    entries |= {f"c/{text}_{i}.png": png for i, (png, text) in enumerate(rows[:3])}
    taken, left_out = labeled_pictures(zipped(entries))
    assert left_out == {"not in the label file": 2, "missing image file": 2}
    for name, data in entries.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert sorted(taken) == sorted((s.image, s.text) for s in iter_source(str(tmp_path))) and len(taken) == 41
    with pytest.raises(UserError, match=r"a/labels\.csv.*save it as UTF-8"):
        labeled_pictures(zipped(entries | {"a/labels.csv": "0.png,é".encode("latin-1")}))
    with pytest.raises(UserError, match=r"keep either labels\.csv or labels\.txt"):
        labeled_pictures(zipped(entries | {"a/labels.txt": b"0.png ab"}))


def test_pictures_of_other_formats_are_counted_as_by_make_dataset(rows: list):
    named = {f"{text}_{i}.png": png for i, (png, text) in enumerate(rows)}
    _, left_out = labeled_pictures(zipped(named | {"ab_1.avif": b"a", "cd.HEIC": b"b", "notes.txt": b"c"}))
    assert left_out == {"picture of a format that is not read": 2}


def test_a_damaged_entry_is_left_out_and_counted(rows: list):
    archive = zipped({f"{text}_{i}.png": png for i, (png, text) in enumerate(rows)}, zipfile.ZIP_STORED)
    taken, left_out = labeled_pictures(archive.replace(rows[1][0], rows[1][0][:-1] + b"?"))
    assert taken == [rows[0], *rows[2:]] and left_out == {"unreadable image": 1}


def test_the_same_search_for_labels_as_in_a_folder(rows: list):
    pictures = {f"set/images/{i:03}.png": png for i, (png, _) in enumerate(rows)}
    texts = {f"set/labels/{i:03}.txt": text.encode() for i, (_, text) in enumerate(rows)}
    assert labeled_pictures(zipped(pictures | texts)) == (rows, {})
    listed = "".join(f'{i:03}.png, "{text}"\n' for i, (_, text) in enumerate(rows))
    assert labeled_pictures(zipped(pictures | {"set/gt.txt": listed.encode()})) == (rows, {})
    with pytest.raises(UserError, match=r"set/annotations\.csv names the pictures beside it"):
        labeled_pictures(zipped(pictures | {"set/annotations.csv": listed.encode()}))


def test_names_without_an_encoding(rows: list):
    """As Chinese Windows packs them: the names are GBK, and nothing says so."""
    archive = zipped({f"@zz@zz{text}_{i}.png": png for i, (png, text) in enumerate(rows)}, zipfile.ZIP_STORED)
    taken, left_out = labeled_pictures(archive.replace(b"@zz@zz", "验证码".encode("gbk")))
    assert not left_out and [text for _, text in taken] == [f"验证码{text}" for _, text in rows]
