"""Datasets from real files of every layout, through the command line where it is the command line that matters."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import make_dataset as module
from captcha_reader.config import DatasetConfig
from captcha_reader.dataset import checks, folders, parts, shards, sources, writer
from captcha_reader.dataset.folders import is_dataset, load_info
from captcha_reader.dataset.labels import label_from_name, parse_label
from captcha_reader.dataset.samples import Sample
from captcha_reader.dataset.sources import iter_source
from captcha_reader.dataset.split import SPLITS, parse_split
from captcha_reader.dataset.writer import SCHEMA
from captcha_reader.errors import UserError
from make_dataset import make_dataset, parquet_to_parquet

ROOT = Path(module.__file__).parent
CAPTCHA_V2 = ROOT.parent / "shared" / "data" / "captcha_v2"


def picture(number: int, size: tuple[int, int] = (8, 6)) -> Image.Image:
    """A picture unlike that of any other number."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def encode(image: Image.Image, image_format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **({"lossless": True} if image_format == "WEBP" else {}))
    return buffer.getvalue()


def write(path: Path, image: Image.Image | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    formats = {".jpg": "JPEG", ".jpeg": "JPEG"}
    data = image if isinstance(image, bytes) else encode(image, formats.get(path.suffix, path.suffix[1:].upper()))
    path.write_bytes(data)
    return path


def shard(
    path: Path, rows: list[tuple[bytes | None, str | None]], columns: tuple[str, str] = ("image", "text")
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(
        {
            columns[0]: pa.array([{"bytes": data, "path": None} for data, _ in rows], SCHEMA.field("image").type),
            columns[1]: pa.array([text for _, text in rows], pa.string()),
        }
    )
    pq.write_table(table, path, row_group_size=100)
    return path


def rows(count: int, start: int = 0) -> list[tuple[bytes, str]]:
    return [(encode(picture(i)), f"t{i:04d}") for i in range(start, start + count)]


def build(out: Path, *sources: Path | str, **settings) -> dict:
    return make_dataset(DatasetConfig(sources=[str(source) for source in sources], out=str(out), **settings))


def read(out: Path) -> dict[str, dict[bytes, str]]:
    """For each split: pixels -> label, decoded here and not by the code under test."""
    result: dict[str, dict[bytes, str]] = {}
    for split in SPLITS:
        pixels = result[split] = {}
        for path in sorted(out.glob(f"{split}-*.parquet")):
            for row in pq.read_table(path).to_pylist():
                image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
                key = np.asarray(image).tobytes() + str(image.size).encode()
                assert key not in pixels, "the same picture twice"
                pixels[key] = row["text"]
    return result


def texts(out: Path) -> list[str]:
    return sorted(text for split in read(out).values() for text in split.values())


def reasons(info: dict) -> dict[str, int]:
    return info["rejects"]["counts"]


def run_cli(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "make_dataset.py"), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
    )


# ----------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("aB3x.png", "aB3x"),
        ("aB3x_0.png", "aB3x"),
        ("aB3x_0_1.jpg", "aB3x"),
        ("aB3x-12.png", "aB3x"),
        ("aB3x (1).png", "aB3x"),
        ("aB3x_1588012345.png", "aB3x"),
        ("a-b.png", "a-b"),
        ("_1.png", ""),
    ],
)
def test_label_from_name(name, label):
    assert label_from_name(name) == label


def test_folder_of_every_format(tmp_path):
    for i, suffix in enumerate(("png", "jpg", "jpeg", "gif", "bmp", "webp", "tif", "tiff", "PNG")):
        data = encode(picture(i), {"jpg": "JPEG", "jpeg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
        write(tmp_path / "in" / f"level{i}" / f"lab{i}_{i}.{suffix}", data)
    write(tmp_path / "in" / "notes.md", b"no picture")
    write(tmp_path / "in" / ".hidden" / "x.png", picture(99))
    info = build(tmp_path / "out", tmp_path / "in")
    assert texts(tmp_path / "out") == [f"lab{i}" for i in range(9)]
    assert info["rejects"]["total"] == 0


KAGGLE = {
    "large-captcha-dataset/Large_Captcha_Dataset": (["4q2wA.png", "zzPq1.png"], ["4q2wA", "zzPq1"]),
    "captcha-dataset": (["00Tkc.jpg", "01Bxy.png"], ["00Tkc", "01Bxy"]),
    "captcha-images/captcha_images": (["aZ81kPq0Lm.png", "bbbbbbbbbb.jpg"], ["aZ81kPq0Lm", "bbbbbbbbbb"]),
    "comprasnet-captchas/comprasnet_imagensacerto": (
        ["a1b2c3_1588012345.png", "x9y8z7_0cc175b9c0f1.png", "qwerty.png"],
        ["a1b2c3", "qwerty", "x9y8z7"],
    ),
}


@pytest.mark.parametrize("layout", KAGGLE)
def test_kaggle_layouts(tmp_path, layout):
    names, labels = KAGGLE[layout]
    for i, name in enumerate(names):
        write(tmp_path / layout / name, picture(i))
    info = build(tmp_path / "out", tmp_path / layout.split("/")[0])
    assert texts(tmp_path / "out") == labels
    assert info["rejects"]["total"] == 0


def test_kaggle_captcha_version_2_repeats_its_folder(tmp_path):
    for i, name in enumerate(("2b827.png", "226md.png", "bnc5f.jpg")):
        write(tmp_path / "archive/samples" / name, picture(i))
        shutil.copytree(tmp_path / "archive/samples", tmp_path / "copy", dirs_exist_ok=True)
    shutil.move(tmp_path / "copy", tmp_path / "archive/samples/samples")
    info = build(tmp_path / "out", tmp_path / "archive")
    assert texts(tmp_path / "out") == ["226md", "2b827", "bnc5f"]
    assert reasons(info) == {"duplicate image": 3}
    assert {Path(r["source"]).parent.parent.name for r in info["rejects"]["listed"]} == {"samples"}


LABEL_FILES = {
    "header": ("labels.csv", "filename,label\n1.png,aa\nsub/2.png,bb\ngone.png,cc\n"),
    "a column more": ("Labels.CSV", "filename,label,who\n1.png,aa,me\nsub/2.png,bb,you\ngone.png,cc,\n"),
    "other header, columns turned": ("labels.csv", "id,text,image\n7,aa,1.png\n8,bb,./sub/2.png\n9,cc,gone.png\n"),
    "no header": ("labels.csv", '1.png,aa\nsub\\2.png,"bb"\n\ngone.png,cc\n'),
    "semicolons, no suffixes": ("labels.csv", "file;label\n1;aa\nsub/2;bb\ngone;cc\n"),
    "txt with spaces": ("labels.txt", "1.png aa\nsub/2.png   bb\ngone.png cc\n"),
    "txt with tabs": ("labels.txt", "1.png\taa\nsub/2.png\tbb\ngone.png\tcc\n"),
    "txt with a space in a name": ("labels.txt", "1.png aa\nsub/2.png bb\ngone 1.tiff cc\n"),
    "txt with commas": ("labels.txt", "1.png,aa\nsub/2.png, bb\ngone.png,cc"),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("kind", LABEL_FILES)
def test_label_files(tmp_path, kind, encoding):
    name, text = LABEL_FILES[kind]
    folder = tmp_path / "in"
    write(folder / "1.png", picture(1))
    write(folder / "sub/2.png", picture(2))
    write(folder / "sub/unnamed.png", picture(3))
    (folder / name).write_text(text, encoding=encoding)
    info = build(tmp_path / "out", folder)
    assert texts(tmp_path / "out") == ["aa", "bb"]
    assert reasons(info) == {"not in the label file": 1, "missing image file": 1}
    sources = {r["reason"]: r["source"] for r in info["rejects"]["listed"]}
    assert sources["not in the label file"].endswith("unnamed.png")
    assert sources["missing image file"].endswith((": gone.png", ": gone", ": gone 1.tiff"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("labels.csv", b"1.png,aa\n1.png,ab\n", r"line 2 of .*labels\.csv gives 1\.png the label 'ab'"),
        ("labels.csv", b"1.png,aa,3\n", r"line 1 of .*labels\.csv has 3 columns"),
        ("labels.csv", b"filename,label\n1.png,a,a\n", r"line 2 of .*labels\.csv has 3 columns, not 2: put a name"),
        ("annotations.csv", b"filename,label\n1.png,aa\n", r"annotations\.csv names the pictures beside it"),
        ("labels.json", b'{"1.png": "aa"}', r"labels\.json names the pictures beside it"),
        ("labels.csv", b"1.png,\xff\xfe\n", r"labels\.csv cannot be read as UTF-8"),
    ],
)
def test_broken_label_files(tmp_path, name, content, words):
    write(tmp_path / "in/1.png", picture(1))
    (tmp_path / "in" / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        build(tmp_path / "out", tmp_path / "in")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("column", ["text", "label", "caption"])
def test_parquet_columns(tmp_path, column):
    path = shard(tmp_path / "a.parquet", rows(5), ("image", column))
    assert [(s.image, s.text) for s in iter_source(str(path))] == rows(5)
    build(tmp_path / "out", path)
    assert texts(tmp_path / "out") == [text for _, text in rows(5)]


def test_parquet_with_plain_bytes_and_other_string_types(tmp_path):
    data, labels = zip(*rows(4), strict=True)
    for i, (binary, string) in enumerate(
        ((pa.binary(), pa.large_string()), (pa.large_binary(), pa.dictionary(pa.int32(), pa.string())))
    ):
        table = pa.table({"text": pa.array(labels, pa.string()).cast(string), "image": pa.array(data, binary)})
        pq.write_table(table, tmp_path / f"{i}.parquet")
        assert [(s.image, s.text) for s in iter_source(str(tmp_path / f"{i}.parquet"))] == rows(4)


def test_folder_of_shards_in_order_with_rows_named(tmp_path):
    shard(tmp_path / "in/b.parquet", rows(2, 3))
    shard(tmp_path / "in/a.parquet", rows(3))
    shard(tmp_path / "in/more/c.parquet", rows(1, 5))
    write(tmp_path / "in/grid.png", picture(77))  # a drawing beside the shards
    samples = list(iter_source(str(tmp_path / "in")))
    assert [s.text for s in samples] == [text for _, text in rows(6)]
    assert samples[4].source == f"{tmp_path / 'in/b.parquet'} row 1"
    assert [s.text for s in iter_source(str(tmp_path / "in"), limit=4)] == [text for _, text in rows(4)]


def test_dataset_is_a_source_with_all_its_splits(tmp_path):
    shard(tmp_path / "a.parquet", rows(20))
    first = build(tmp_path / "one", tmp_path / "a.parquet", split="50/25/25")
    assert sum(1 for _ in iter_source(str(tmp_path / "one"))) == 20
    again = build(tmp_path / "two", tmp_path / "one", split="50/25/25")
    assert again["fingerprint"] == first["fingerprint"]
    in_place = build(tmp_path / "one", tmp_path / "one", split="100/0/0")
    assert in_place["counts"] == {"train": 20, "validation": 0, "test": 0}


def test_output_inside_the_source_is_not_read_again(tmp_path):
    write(tmp_path / "data/in/abc.png", picture(1))
    for _ in range(2):
        assert build(tmp_path / "data/dataset", tmp_path / "data")["read"] == 1


def test_a_file_name_of_foreign_bytes_is_left_out_and_listed(tmp_path: Path, captchas: list[tuple[bytes, str]]) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, (png, text) in enumerate(captchas[:4]):
        (folder / f"{text}_{i}.png").write_bytes(png)
    with open(os.fsencode(folder) + b"/ab\xe9.png", "wb") as file:  # noqa: PTH123 - no str of it can be encoded
        file.write(captchas[4][0])
    info = make_dataset(DatasetConfig(sources=[str(folder)], out=str(tmp_path / "out"), workers=1))
    assert sum(info["counts"].values()) == 4
    assert info["rejects"]["counts"] == {"file name is not UTF-8": 1}
    assert "xe9" in info["rejects"]["listed"][0]["source"] or "udce9" in info["rejects"]["listed"][0]["source"]


def test_a_label_of_foreign_bytes_is_one_sentence(tmp_path: Path, captchas: list[tuple[bytes, str]]) -> None:
    labels = pa.array([b"ab", b"c\xe9"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"image": [png for png, _ in captchas[:2]], "text": labels}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"rows 0 to 1 of .*x\.parquet hold a label that is not UTF-8"):
        make_dataset(DatasetConfig(sources=[str(tmp_path / "x.parquet")], out=str(tmp_path / "out"), workers=1))


def test_hub_path_through_a_local_dataset(tmp_path):
    shard(tmp_path / "hub/train-00000-of-00001.parquet", rows(6))
    shard(tmp_path / "hub/test-00000-of-00001.parquet", rows(3, 6))
    source = f"hub:{tmp_path / 'hub'}"
    assert sorted((s.image, s.text) for s in iter_source(source)) == sorted(rows(9))
    assert [(s.image, s.text) for s in iter_source(f"{source}:test")] == rows(3, 6)
    assert sum(1 for _ in iter_source(source, limit=4)) == 4
    with pytest.raises(UserError, match="there is no split dev, only"):
        list(iter_source(f"{source}:dev"))
    build(tmp_path / "out", f"{source}:test")
    assert texts(tmp_path / "out") == [text for _, text in rows(3, 6)]


def test_a_row_of_the_hub_without_a_picture_is_left_out_alone(tmp_path: Path) -> None:
    shard(tmp_path / "hub/train.parquet", rows(4))
    table = pq.read_table(tmp_path / "hub/train.parquet")
    without = pa.array([None, *table["image"].to_pylist()[1:]], SCHEMA.field("image").type)
    pq.write_table(table.set_column(0, "image", without), tmp_path / "hub/train.parquet")
    info = build(tmp_path / "out", f"hub:{tmp_path / 'hub'}", split="100/0/0")
    assert info["counts"]["train"] == 3 and info["rejects"]["total"] == 1


def test_hub_imagefolder_and_wrong_columns(tmp_path):
    write(tmp_path / "hub/train/x.png", picture(1))
    (tmp_path / "hub/train/metadata.csv").write_text("file_name,text\nx.png,abc\n")
    assert [(s.image, s.text) for s in iter_source(f"hub:{tmp_path / 'hub'}")] == [(encode(picture(1)), "abc")]
    shard(tmp_path / "wrong/train.parquet", rows(2), ("image", "answer"))
    with pytest.raises(UserError, match="has the columns image, answer"):
        list(iter_source(f"hub:{tmp_path / 'wrong'}"))


@pytest.mark.parametrize(
    ("values", "kind"),
    [([12, 0], "int64"), ([1e10, 0.5], "float64"), ([True, False], "bool"), ([["a"], ["b"]], "List")],
)
def test_hub_labels_that_are_no_strings_are_refused(tmp_path, values, kind):
    (tmp_path / "hub").mkdir()
    image = pa.array([{"bytes": data, "path": None} for data, _ in rows(2)], SCHEMA.field("image").type)
    pq.write_table(pa.table({"image": image, "label": values}), tmp_path / "hub/train.parquet")
    words = rf"the column label of hub:.* \(train\) holds {kind}.*: store labels as strings \(numbers lose zeros\)"
    with pytest.raises(UserError, match=words):
        list(iter_source(f"hub:{tmp_path / 'hub'}"))


def test_hub_classes_give_their_names(tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["0012", "1e10", "true"])}
    )
    records = {"image": [{"bytes": data, "path": None} for data, _ in rows(4)], "label": [2, 0, 1, None]}
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict(records, features=features).to_parquet(tmp_path / "hub/train.parquet")
    assert [s.text for s in iter_source(f"hub:{tmp_path / 'hub'}")] == ["true", "0012", "1e10", ""]


def test_hub_strings_that_look_like_numbers_stay(tmp_path):
    labels = ["0012", "0000", "1e10", "true"]
    shard(tmp_path / "hub/train.parquet", [(data, text) for (data, _), text in zip(rows(4), labels, strict=True)])
    assert [s.text for s in iter_source(f"hub:{tmp_path / 'hub'}")] == labels
    write(tmp_path / "json/train/x.png", picture(1))
    (tmp_path / "json/train/metadata.jsonl").write_text('{"file_name": "x.png", "text": 12}\n')
    with pytest.raises(UserError, match="holds int64: store labels as strings"):
        list(iter_source(f"hub:{tmp_path / 'json'}"))


def test_hub_out_of_reach_is_one_quick_sentence(tmp_path):
    start = time.monotonic()
    result = run_cli(
        "hub:hammer888/captcha-data",
        *("--limit", 5, "--out", tmp_path / "out"),
        HF_ENDPOINT="http://127.0.0.1:9",  # nobody listens there
        HF_HOME=str(tmp_path / "home"),
    )
    assert result.returncode == 1
    assert re.fullmatch(
        r"error: hub:hammer888/captcha-data cannot be streamed .* check the name and the network\n", result.stderr
    )
    assert time.monotonic() - start < 30
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------- labels and rejects


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("a low resolution captcha image with the text HhJ4", "HhJ4"),
        ("a low resolution captcha image with the text 'HhJ4'", "HhJ4"),
        ('a low resolution captcha image with the text "HhJ4"', "HhJ4"),
        (" A low resolution CAPTCHA image with the text: “HhJ4” \n", "HhJ4"),
        ("a captcha picture with the text a'b", "a'b"),
        ("a low resolution captcha image with the text", ""),
        ("a low resolution captcha image with the text ''", ""),
        (" HhJ4\n", "HhJ4"),
        ("'HhJ4'", "'HhJ4'"),
        ("captcha", "captcha"),
    ],
)
def test_parse_label(text, label):
    assert parse_label(text) == label


def test_every_reject_is_counted_and_named(tmp_path):
    same = picture(1)
    cut = encode(picture(2, (60, 60)))[:2000]
    cases = [
        (encode(same), "abc", None),
        (b"no picture", "abd", "unreadable image"),
        (cut, "abe", "unreadable image"),
        (None, "abf", "unreadable image"),
        (encode(picture(3)), "", "empty label"),
        (encode(picture(4)), None, "empty label"),
        (encode(picture(5)), "  ", "empty label"),
        (encode(picture(6)), "abcdefg", "label too long"),
        (encode(picture(7)), "ab!", "character outside the alphabet"),
        (encode(picture(8)), "a low resolution captcha image with the text ", "caption without a label"),
        (encode(picture(9)), "a low resolution captcha image with the text 'bcd'", None),
        (encode(picture(10)), "a low resolution captcha image with the text b cd", "character outside the alphabet"),
        (encode(same, "BMP"), "abc", "duplicate image"),
        (encode(same, "WEBP"), "abz", "duplicate image, other label"),
    ]
    shard(tmp_path / "in/a.parquet", [(image, text) for image, text, _ in cases])
    info = build(tmp_path / "out", tmp_path / "in", alphabet="a-z", max_length=6)
    assert texts(tmp_path / "out") == ["abc", "bcd"]
    expected = {f"{tmp_path / 'in/a.parquet'} row {i}": reason for i, (_, _, reason) in enumerate(cases) if reason}
    assert {r["source"]: r["reason"] for r in info["rejects"]["listed"]} == expected
    assert reasons(info) == Counter(expected.values())
    assert info["rejects"]["total"] == len(expected)
    lines = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    assert lines == info["rejects"]["listed"]
    (other,) = [r for r in lines if r["reason"] == "duplicate image, other label"]
    assert "'abz'" in other["detail"] and "'abc'" in other["detail"] and "row 0" in other["detail"]
    assert info["read"] == len(cases)
    assert info["alphabet"] == "abcd" and info["max_length"] == 3 and info["lengths"] == {"3": 2}


def test_of_contradicting_labels_most_copies_decide(tmp_path, capsys):
    twice, tied = encode(picture(1)), encode(picture(2))
    rows_ = [
        (twice, "wrong"),
        (tied, "one"),
        (twice, "right"),
        (tied, "two"),
        (encode(picture(3)), "x"),
        (twice, "right"),
    ]
    source = shard(tmp_path / "a.parquet", rows_)
    assert module.main([str(source), "--out", str(tmp_path / "out"), "--split", "100/0/0"]) == 0
    assert "note: some pictures have copies with other labels" in capsys.readouterr().out
    assert sorted(texts(tmp_path / "out")) == ["one", "right", "x"]
    lines = [json.loads(line) for line in (tmp_path / "out/rejects.jsonl").read_text().splitlines()]
    found = {int(r["source"].split()[-1]): (r["reason"], r["detail"]) for r in lines}
    assert found == {
        0: ("duplicate image, other label", f"labeled 'wrong' here and 'right' in {source} row 2, which is kept"),
        3: ("duplicate image, other label", f"labeled 'two' here and 'one' in {source} row 1, which is kept"),
        5: ("duplicate image", f"same pixels and label as {source} row 2"),
    }


def test_unprintable_characters_are_refused_by_default(tmp_path):
    labels = ["ok", "é漢", "a b", "a\u200bb", "a\tb"]
    shard(tmp_path / "a.parquet", [(encode(picture(i)), label) for i, label in enumerate(labels)])
    info = build(tmp_path / "out", tmp_path / "a.parquet")
    assert texts(tmp_path / "out") == ["ok", "é漢"]
    assert reasons(info) == {"character outside the alphabet": 3}


def png_of_size(width: int, height: int) -> bytes:
    """A PNG whose header lies about its size."""
    data = encode(picture(1))
    return data[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + data[24:]


def test_check_by_bytes(tmp_path):
    same = encode(picture(1))
    cases = [
        (same, "abc", None),
        (encode(picture(1), "BMP"), "abc", None),  # the same pixels in other bytes
        (encode(picture(2, (60, 60)))[:2000], "abd", None),  # cut short: nobody decodes it
        (encode(picture(3), "JPEG"), "abe", None),
        (same, "abc", "duplicate image"),
        (same, "abz", "duplicate image, other label"),
        (b"no picture", "abf", "unreadable image"),
        (same[:20], "abg", "unreadable image"),
        (None, "abh", "unreadable image"),
        (png_of_size(0, 6), "abi", "unreadable image"),
        (png_of_size(6000, 7000), "abj", "unreadable image"),
        (encode(picture(4)), "", "empty label"),
    ]
    shard(tmp_path / "a.parquet", [(image, text) for image, text, _ in cases])
    info = build(tmp_path / "out", tmp_path / "a.parquet", check="bytes", split="100/0/0")
    expected = {f"{tmp_path / 'a.parquet'} row {i}": reason for i, (_, _, reason) in enumerate(cases) if reason}
    assert {r["source"]: r["reason"] for r in info["rejects"]["listed"]} == expected
    details = {int(r["source"].split()[-1]): r["detail"] for r in info["rejects"]["listed"]}
    assert details[4] == f"same bytes and label as {tmp_path / 'a.parquet'} row 0"
    for row, words in {6: "is not a picture", 8: "is empty", 9: "has no pixels", 10: "40 million pixels"}.items():
        assert words in details[row]
    assert [(s.image, s.text) for s in iter_source(str(tmp_path / "out"))] == [case[:2] for case in cases[:4]]
    assert info["settings"]["check"] == "bytes" and info["read"] == len(cases)


def test_check_by_bytes_gives_the_same_split_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "ROWS_BEFORE_POOL", 1)
    monkeypatch.setattr(shards, "PART_ROWS", 100)
    shard(tmp_path / "a.parquet", rows(250))
    shard(tmp_path / "b.parquet", rows(250)[::-1])
    one, two = (build(tmp_path / n, tmp_path / f"{n}.parquet", check="bytes", workers=2) for n in "ab")
    assert read(tmp_path / "a") == read(tmp_path / "b")
    assert one["fingerprint"] == two["fingerprint"]
    assert one["fingerprint"] != build(tmp_path / "c", tmp_path / "a.parquet")["fingerprint"]


def test_list_of_rejects_is_bounded(tmp_path):
    shard(tmp_path / "a.parquet", [*rows(1), *[(b"x", "abc")] * 1500])
    info = build(tmp_path / "out", tmp_path / "a.parquet")
    assert reasons(info) == {"unreadable image": 1500}
    assert len(info["rejects"]["listed"]) == 1000
    assert len((tmp_path / "out/rejects.jsonl").read_text().splitlines()) == 1500


def test_duplicates_across_sources_and_formats(tmp_path):
    for i in range(6):
        write(tmp_path / f"png/l{i}.png", picture(i))
        write(tmp_path / f"bmp/l{i}.bmp", picture(i))
    info = build(tmp_path / "out", tmp_path / "png", tmp_path / "bmp")
    assert texts(tmp_path / "out") == [f"l{i}" for i in range(6)]
    assert reasons(info) == {"duplicate image": 6}
    turned = encode(picture(0).transpose(Image.Transpose.ROTATE_90))  # other pixels, of other width
    write(tmp_path / "turned/x.png", turned)
    assert build(tmp_path / "new", tmp_path / "png", tmp_path / "turned")["rejects"]["total"] == 0


# -------------------------------------------------------------------------------------------------------------- split


def test_parse_split():
    assert parse_split("80/10/10") == ((80, 10, 10), True)
    assert parse_split("70/30") == ((70, 0, 30), True)
    assert parse_split("99.5/0.25/0.25") == ((99.5, 0.25, 0.25), True)
    assert parse_split("550/120/400") == ((550, 120, 400), False)
    for wrong in ("", "100", "a/b", "50/60.5", "-10/110", "0/0/0", "1/2/3/4", "nan/50/50", "inf/1/1"):
        with pytest.raises(UserError, match="the split"):
            parse_split(wrong)


def test_counts_are_exact(tmp_path):
    source = shard(tmp_path / "a.parquet", rows(104))
    for split, counts in (
        ("70/0/30", (73, 0, 31)),
        ("70/30", (73, 0, 31)),
        ("80/10/10", (84, 10, 10)),
        ("50/12/40", (50, 12, 40)),
        ("0/0/100", (0, 0, 104)),
    ):
        info = build(tmp_path / "out", source, split=split)
        assert tuple(info["counts"].values()) == counts
        assert tuple(len(pixels) for pixels in read(tmp_path / "out").values()) == counts
        assert info["unused"] == 104 - sum(counts)
    with pytest.raises(UserError, match=r"asks for 105 pictures and there are 104"):
        build(tmp_path / "out", source, split="55/10/40")


def test_same_split_whatever_order_shards_and_workers(tmp_path, monkeypatch):
    all_rows = [*rows(120), (encode(picture(5), "BMP"), "t0005")]
    shard(tmp_path / "a.parquet", all_rows)
    for i in range(0, 121, 50):
        shard(tmp_path / f"turned/{i:03}.parquet", all_rows[::-1][i : i + 50])
    one = build(tmp_path / "one", tmp_path / "a.parquet", workers=1)
    monkeypatch.setattr(checks, "ROWS_BEFORE_POOL", 1)
    for each in (shards, parts):
        monkeypatch.setattr(each, "CHUNK_ROWS", 10)
    two = build(tmp_path / "two", tmp_path / "turned", workers=2, shard_size=7)
    assert len(list((tmp_path / "two").glob("train-*-of-00014.parquet"))) == 14
    assert read(tmp_path / "one") == read(tmp_path / "two")
    assert one["fingerprint"] == two["fingerprint"]
    assert one["counts"] == two["counts"] == {"train": 96, "validation": 12, "test": 12}
    monkeypatch.undo()

    three = build(tmp_path / "three", tmp_path / "a.parquet", workers=1)
    for path in sorted((tmp_path / "one").iterdir()):  # the same command gives the same bytes
        assert path.read_bytes() == (tmp_path / "three" / path.name).read_bytes()
    assert three == one

    other_seed = build(tmp_path / "seed", tmp_path / "a.parquet", seed=1)
    assert other_seed["fingerprint"] != one["fingerprint"]
    assert read(tmp_path / "seed")["test"].keys() != read(tmp_path / "one")["test"].keys()
    other_split = build(tmp_path / "split", tmp_path / "a.parquet", split="70/20/10")
    assert other_split["fingerprint"] != one["fingerprint"]
    assert read(tmp_path / "split")["test"] == read(tmp_path / "one")["test"]


def drawn(count: int) -> list[tuple[bytes, str]]:
    """Pictures whose bytes hang on no library's encoder."""
    header = encode(Image.new("RGB", (4, 3)), "BMP")[:54]
    return [(header + bytes(range(i, i + 36)), f"t{i}") for i in range(count)]


def test_what_a_seed_gives_stays_as_it_is(tmp_path):
    """Splits that were published with a seed, and fingerprints in trained weights, must not change with this script."""
    shard(tmp_path / "a.parquet", [*drawn(20), drawn(4)[3]])
    info = build(tmp_path / "out", tmp_path / "a.parquet")
    assert info["fingerprint"] == "d0cc99cc76b25682ba3e82947576dec6"
    found = {split: sorted(labels.values()) for split, labels in read(tmp_path / "out").items()}
    assert found["validation"] == ["t0", "t13"] and found["test"] == ["t1", "t16"]
    assert len(found["train"]) == 16
    (duplicate,) = info["rejects"]["listed"]
    assert duplicate["detail"] == f"same pixels and label as {tmp_path / 'a.parquet'} row 3"


def test_other_label_is_another_fingerprint(tmp_path):
    shard(tmp_path / "a.parquet", rows(10))
    shard(tmp_path / "b.parquet", [*rows(9), (rows(10)[9][0], "other")])
    one, two = (build(tmp_path / name[0], tmp_path / name)["fingerprint"] for name in ("a.parquet", "b.parquet"))
    assert one != two


@pytest.mark.parametrize("limit", [None, 130, 200])
def test_row_groups_of_any_size_give_the_same(tmp_path, monkeypatch, limit):
    shard(tmp_path / "a.parquet", rows(250))  # row groups of 100, 100 and 50
    one = build(tmp_path / "one", tmp_path / "a.parquet", limit=limit)
    assert one["read"] == (limit or 250)
    for part_rows, large in ((100, 400), (30, 400), (30, 60)):  # the last is spilled
        monkeypatch.setattr(shards, "PART_ROWS", part_rows)
        monkeypatch.setattr(parts, "LARGE_GROUP_ROWS", large)
        two = build(tmp_path / "two", tmp_path / "a.parquet", limit=limit)
        assert two == one
        assert list(iter_source(str(tmp_path / "two"))) == [
            Sample(s.image, s.text, s.source.replace("/one/", "/two/")) for s in iter_source(str(tmp_path / "one"))
        ]


def test_a_source_that_changes_meanwhile_is_an_error(tmp_path, monkeypatch):
    source = shard(tmp_path / "a.parquet", rows(10))
    route = module.route

    def change(*arguments):
        shard(source, rows(10, 50))
        return route(*arguments)

    monkeypatch.setattr(module, "route", change)
    with pytest.raises(UserError, match=r"a\.parquet has changed"):
        build(tmp_path / "out", source)
    assert not (tmp_path / "out").exists()


def test_splits_share_no_picture_and_lose_none(tmp_path):
    numbers = [i % 150 for i in range(300)]  # every picture twice, as PNG and as BMP
    shard(
        tmp_path / "a.parquet",
        [(encode(picture(n), "PNG" if i < 150 else "BMP"), f"n{n}") for i, n in enumerate(numbers)],
    )
    build(tmp_path / "out", tmp_path / "a.parquet", split="60/20/20")
    splits = list(read(tmp_path / "out").values())
    assert [len(split) for split in splits] == [90, 30, 30]
    assert len(set().union(*splits)) == 150


def test_bytes_are_copied_unchanged(tmp_path):
    originals = {encode(picture(i), f): f"x{i}" for i, f in enumerate(("PNG", "JPEG", "GIF", "BMP", "WEBP"))}
    shard(tmp_path / "a.parquet", list(originals.items()))
    build(tmp_path / "out", tmp_path / "a.parquet")
    assert {s.image: s.text for s in iter_source(str(tmp_path / "out"))} == originals


def test_round_trip_through_the_datasets_library(tmp_path):
    shard(tmp_path / "a.parquet", [*rows(40), (b"broken", "abc")])
    build(tmp_path / "out", tmp_path / "a.parquet", shard_size=20)
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(split) for name, split in loaded.items()} == {"train": 32, "validation": 4, "test": 4}
    assert isinstance(loaded["train"].features["image"], datasets.Image)
    found = {row["text"]: np.asarray(row["image"]) for split in loaded.values() for row in split}
    assert len(found) == 40
    for i in range(40):
        np.testing.assert_array_equal(found[f"t{i:04d}"], np.asarray(picture(i)))


@pytest.mark.skipif(not CAPTCHA_V2.is_dir(), reason=f"the captcha_v2 set is not in {CAPTCHA_V2}")
def test_captcha_v2_as_published(tmp_path):
    result = run_cli(CAPTCHA_V2, "--out", tmp_path / "out", "--split", "70/0/30", "--alphabet", "2-8b-gm-px-yw")
    assert result.returncode == 0, result.stderr
    assert "728 train / 312 test" in result.stdout
    info = load_info(tmp_path / "out")
    assert info["alphabet"] == "2345678bcdefgmnpwxy"
    assert info["lengths"] == {"5": 1040}
    assert [len(split) for split in read(tmp_path / "out").values()] == [728, 0, 312]


# -------------------------------------------------------------------------------------------- splits that a source has


def split_folders(folder: Path, names: tuple[str, ...] = ("train", "val", "test")) -> Path:
    """Six, two and one picture in folders of these names."""
    for i, (name, count) in enumerate(zip(names, (6, 2, 1), strict=True)):
        for j in range(count):
            write(folder / name / f"{name[0]}{j}x.png", picture(10 * i + j))
    return folder


def labels_of(out: Path) -> dict[str, list[str]]:
    return {split: sorted(labels.values()) for split, labels in read(out).items()}


EXPECTED = {"train": [f"t{j}x" for j in range(6)], "validation": ["v0x", "v1x"], "test": ["t0x"]}


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "validation", "TEST"), ("train", "v", "test")]
)
def test_folders_of_splits_are_kept(tmp_path, names, capsys):
    folder = split_folders(tmp_path / "in", names)
    if "v" in names:
        folder.joinpath("v").rename(folder / "train" / "dev")  # a folder in a split is part of it
    assert module.main([str(folder), "--out", str(tmp_path / "out")]) == 0
    found = labels_of(tmp_path / "out")
    if "v" in names:
        assert [len(found[split]) for split in SPLITS] == [8, 0, 1]
    else:
        assert [len(found[split]) for split in SPLITS] == [6, 2, 1]
        assert "note: the split of the sources is kept (train, validation, test)" in capsys.readouterr().out
    assert load_info(tmp_path / "out")["split"] == "as in the sources"


def test_a_split_that_is_asked_for_goes_before_and_is_said(tmp_path, capsys):
    folder = split_folders(tmp_path / "in")
    assert module.main([str(folder), "--out", str(tmp_path / "out"), "--split", "0/0/100"]) == 0
    assert len(labels_of(tmp_path / "out")["test"]) == 9
    assert "sources' own train, validation, test are split anew, 0/0/100" in capsys.readouterr().out


def test_a_split_is_kept_only_where_it_says_all(tmp_path):
    folder = split_folders(tmp_path / "in")
    write(folder / "more/other.png", picture(77))
    info = build(tmp_path / "out", folder)
    assert info["split"] == "80/10/10"
    assert "split anew, 80/10/10, since 1 pictures are in none of them" in info["notes"][0]
    shutil.rmtree(folder)
    write(folder / "train/ab.png", picture(1))
    write(folder / "train/cd.png", picture(2))
    info = build(tmp_path / "one", folder)
    assert info["split"] == "80/10/10" and info["notes"] == []


def test_sources_and_shards_may_be_the_splits(tmp_path):
    folder = split_folders(tmp_path / "in")
    info = build(tmp_path / "a", *(folder / name for name in ("train", "val", "test")))
    assert info["split"] == "as in the sources" and info["counts"] == {"train": 6, "validation": 2, "test": 1}
    shard(tmp_path / "hub/train-00000-of-00001.parquet", rows(5))
    shard(tmp_path / "hub/test-00000-of-00001.parquet", rows(2, 5))
    info = build(tmp_path / "b", tmp_path / "hub")
    assert info["counts"] == {"train": 5, "validation": 0, "test": 2}
    again = build(tmp_path / "c", tmp_path / "b")
    assert again["fingerprint"] == info["fingerprint"]
    assert build(tmp_path / "d", tmp_path / "hub", split="50/50")["fingerprint"] != info["fingerprint"]


def test_a_picture_in_two_folders_stands_on_one_side(tmp_path):
    folder = split_folders(tmp_path / "in")
    write(folder / "test/t0x_1.png", picture(0))
    info = build(tmp_path / "out", folder)
    assert info["counts"] == {"train": 5, "validation": 2, "test": 2}  # folders are read in the order of their names
    assert reasons(info) == {"duplicate image": 1}


# ------------------------------------------------------------------------------------------------- errors and safety


def test_nothing_usable_shows_an_example_and_keeps_the_list(tmp_path):
    write(tmp_path / "in/other.png", picture(1))
    (tmp_path / "in/labels.csv").write_text("".join(f"{i}.png,a{i}\n" for i in range(10)))
    with pytest.raises(UserError) as caught:
        build(tmp_path / "out", tmp_path / "in")
    assert "left out: 10 missing image file, 1 not in the label file; for example" in str(caught.value)
    assert "labels.csv: 0.png (no such picture in" in str(caught.value)
    kept = tmp_path / "out.rejects.jsonl"
    assert str(kept) in str(caught.value) and len(kept.read_text().splitlines()) == 11
    write(tmp_path / "in/0.png", picture(2))
    build(tmp_path / "out", tmp_path / "in")
    assert not kept.exists()


def test_links_that_lead_back_are_not_followed(tmp_path):
    folder = tmp_path / "in"
    write(folder / "a/ab.png", picture(1))
    write(tmp_path / "elsewhere/cd.png", picture(2))
    for link, target in (("loop", "."), ("a/up", ".."), ("b", "a"), ("c", "../elsewhere"), ("gone", "nowhere")):
        (folder / link).symlink_to(target)
    (folder / "ef.png").symlink_to(tmp_path / "nowhere.png")
    info = build(tmp_path / "out", folder)
    assert texts(tmp_path / "out") == ["ab", "cd"]
    assert reasons(info) == {"unreadable image": 1}
    assert parquet_to_parquet([shard(folder / "s/x.parquet", rows(2)).parent.parent], tmp_path / "all.parquet") == 2


def corrupt(path: Path) -> Path:
    shard(path, [(os.urandom(3000), "abc") for _ in range(200)])
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 5000] = b"\xff" * 5000  # the footer stays whole
    data[100:2000] = b"\xff" * 1900
    path.write_bytes(bytes(data))
    return path


def test_user_errors_are_one_sentence_with_a_name(tmp_path):
    out = tmp_path / "out"
    good = shard(tmp_path / "good.parquet", rows(3))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no parquet PAR1")
    (tmp_path / "cut.parquet").write_bytes(good.read_bytes()[:-20])
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zip").write_bytes(b"PK")
    shard(tmp_path / "columns.parquet", rows(1), ("picture", "answer"))
    pq.write_table(pa.table({"image": [b"x"], "text": [123]}), tmp_path / "numbers.parquet")
    pq.write_table(pa.table({"image": ["a.png"], "text": ["x"]}), tmp_path / "paths.parquet")
    shard(tmp_path / "rejects.parquet", [(b"x", "abc"), (b"", ""), (b"y", "abd")])
    for arguments, words in (
        ([tmp_path / "missing"], r"there is no .*missing"),
        ([tmp_path / "broken.parquet"], r"broken\.parquet is not a readable parquet file"),
        ([tmp_path / "cut.parquet"], r"cut\.parquet is not a readable parquet file"),
        ([tmp_path / "empty"], r"empty holds no samples"),
        ([tmp_path / "file.zip"], r"file\.zip is neither"),
        ([tmp_path / "columns.parquet"], r"columns\.parquet has the columns picture, answer"),
        ([tmp_path / "numbers.parquet"], r"column text of .*numbers\.parquet holds int64"),
        ([tmp_path / "paths.parquet"], r"column image of .*paths\.parquet holds string"),
        ([tmp_path / "rejects.parquet"], r"no usable sample in .*2 unreadable image, 1 empty label"),
        ([good, "--split", "50/20"], r"the split 50/20 asks for 70 pictures and there are 3"),
        ([good, "--alphabet", "aa"], r"alphabet 'aa'"),
        ([good, "--workers", "0"], r"--workers is 0"),
        ([good, "--merge=true"], r"is no name for a parquet file"),
    ):
        argv = [*map(str, arguments), "--out", str(out)]
        with pytest.raises(UserError, match=words) as caught:
            module.main(argv)
        assert "\n" not in str(caught.value)
        assert not out.exists()
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "something is left behind"
    result = run_cli(tmp_path / "columns.parquet", "--out", out)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1


def test_parquet_that_breaks_in_the_middle(tmp_path):
    path = corrupt(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet is broken after row \d+"):
        list(iter_source(str(path)))


def test_only_a_dataset_is_replaced(tmp_path):
    source = shard(tmp_path / "a.parquet", rows(10))
    out = tmp_path / "out"
    build(out, source)
    build(out, source, split="50/50", shard_size=2)
    assert sorted(path.name for path in out.iterdir()) == [
        "dataset.json",
        *[f"test-0000{i}-of-00003.parquet" for i in range(3)],
        *[f"train-0000{i}-of-00003.parquet" for i in range(3)],
    ]
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds thesis\.txt"):
        build(out, source)
    assert (out / "thesis.txt").read_text() == "mine"
    other = tmp_path / "other"
    shard(other / "train-00000-of-00001.parquet", rows(1))  # a user's own shard, by chance of our name
    for target, words in ((other, "has no valid dataset.json"), (source, "is a file")):
        with pytest.raises(UserError, match=words):
            build(target, source)
    assert [path.name for path in other.iterdir()] == ["train-00000-of-00001.parquet"]
    (tmp_path / "void").mkdir()
    assert build(tmp_path / "void", source)["counts"]["train"] == 8


def test_is_dataset_and_load_info(tmp_path):
    info = build(tmp_path / "out", shard(tmp_path / "a.parquet", rows(10)))
    assert is_dataset(tmp_path / "out") and load_info(tmp_path / "out") == info
    assert not is_dataset(tmp_path) and not is_dataset(tmp_path / "missing")
    for text in ("{", "[]", "{}", '{"format": "other"}'):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(UserError, match="is not a dataset"):
            load_info(tmp_path)


@pytest.fixture(scope="module")
def long_source(tmp_path_factory) -> Path:
    """Enough pictures that a run lasts some seconds; the first few differ, the rest is told apart by one pixel."""
    path = tmp_path_factory.mktemp("long") / "long.parquet"
    base = np.random.default_rng(0).integers(0, 256, (50, 200, 3), dtype=np.uint8)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, 12_000, 1000):
            records = []
            for i in range(start, start + 1000):
                array = base[:20, :40].copy()
                array[0, 0] = (i & 255, i >> 8, 0)
                records.append({"image": {"bytes": encode(Image.fromarray(array), "BMP"), "path": None}, "text": "abc"})
            writer.write_table(pa.Table.from_pylist(records, SCHEMA))
    return path


@pytest.mark.parametrize("moment", ["rejects.jsonl", "train-00000-of-00001.parquet"])  # made in the two passes
@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_leaves_the_old_dataset_whole(tmp_path, long_source, kill, moment):
    out = tmp_path / "out"
    build(out, shard(tmp_path / "a.parquet", rows(10)))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    process = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "make_dataset.py"), *[str(long_source)] * 4),
            *("--out", str(out), "--workers", "2", "--overwrite"),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    building = tmp_path / ".out.building"
    deadline = time.monotonic() + 60
    while process.poll() is None and not (building / moment).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(kill)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == (130 if kill == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in errors
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    if kill == signal.SIGINT:
        assert not building.exists()
    build(out, shard(tmp_path / "b.parquet", rows(20)), overwrite=True)  # what the kill left is no obstacle
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "b.parquet", "out"]


def test_a_kill_between_the_renames_is_mended(tmp_path):
    source = shard(tmp_path / "a.parquet", rows(10))
    build(tmp_path / "out", source)
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(UserError, match="there is no"):
        build(tmp_path / "out", source, tmp_path / "missing")
    assert is_dataset(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / ".out.old")
    with pytest.raises(UserError, match=r"out holds a dataset made of .*a\.parquet"):
        build(tmp_path / "out", shard(tmp_path / "b.parquet", rows(5, 20)))
    assert texts(tmp_path / "out") == [text for _, text in rows(10)]


SWAP = """
import os, sys
from pathlib import Path
from captcha_reader.dataset import folders
import make_dataset
from captcha_reader.config import DatasetConfig

out, source, kill_at, whole_exchange = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1"
if not whole_exchange:
    folders.exchange = lambda one, other: False
rename, left = Path.rename, [kill_at]
def counted(self, target):
    if left[0] == 0:
        os._exit(9)
    left[0] -= 1
    return rename(self, target)
Path.rename = counted
make_dataset.make_dataset(DatasetConfig(sources=[source], out=out, workers=1, overwrite=True))
"""


@pytest.mark.parametrize("whole_exchange", [True, False])
def test_a_kill_at_any_rename_leaves_the_old_dataset_or_the_new(tmp_path, whole_exchange):
    old, new = shard(tmp_path / "old.parquet", rows(6)), shard(tmp_path / "new.parquet", rows(4, 10))
    for kill_at in range(1 if whole_exchange else 2):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        build(tmp_path / "out", old)
        arguments = [str(tmp_path / "out"), str(new), str(kill_at), str(int(whole_exchange))]
        done = subprocess.run([sys.executable, "-c", SWAP, *arguments], cwd=ROOT, capture_output=True, text=True)
        killed = not whole_exchange and kill_at < 2
        assert done.returncode == (9 if killed else 0), done.stderr
        with pytest.raises(UserError, match="out holds a dataset made of"):
            build(tmp_path / "out", shard(tmp_path / "third.parquet", rows(2, 30)))
        assert texts(tmp_path / "out") == [text for _, text in (rows(6) if killed else rows(4, 10))]
        assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_dataset_of_other_sources_is_replaced_only_when_asked(tmp_path):
    a, b = shard(tmp_path / "a.parquet", rows(10)), shard(tmp_path / "b.parquet", rows(5, 10))
    out = tmp_path / "out"
    build(out, a)
    with pytest.raises(UserError, match=r"out holds a dataset made of .*a\.parquet: choose another --out, or --over"):
        build(out, b)
    assert len(texts(out)) == 10
    build(out, a, seed=1)  # what it was made of makes it again
    build(out, a, b)
    assert len(texts(out)) == 15
    build(out, b, overwrite=True)
    assert len(texts(out)) == 5


@pytest.mark.parametrize("less", [{"limit": 5}, {"alphabet": "0-4t"}, {"split": "3/2/2"}])
def test_a_dataset_made_anew_in_its_place_loses_nothing(tmp_path, less):
    out = tmp_path / "out"
    build(out, shard(tmp_path / "a.parquet", rows(20)))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match="out is a source and would lose pictures: choose another --out"):
        build(out, out, overwrite=True, **less)
    with pytest.raises(UserError, match=r"out holds a dataset made of .*a\.parquet"):
        build(out, out / "train-00000-of-00001.parquet")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    build(out, out, split="50/25/25", seed=1)
    assert len(texts(out)) == 20


def test_what_we_generated_is_no_part_of_data(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    write(tmp_path / "data/mine/ab.png", picture(1))
    write(tmp_path / "data/generated/synthetic/cd.png", picture(2))
    build(tmp_path / "out", tmp_path / "data")
    assert texts(tmp_path / "out") == ["ab"]
    build(tmp_path / "named", tmp_path / "data/generated")  # asked for by name
    assert texts(tmp_path / "named") == ["cd"]


def test_two_runs_do_not_write_the_same_folder(tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="no file locks on this system")
    source = shard(tmp_path / "a.parquet", rows(10))
    with (tmp_path / ".out.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match=r"another make_dataset\.py is writing"):
            build(tmp_path / "out", source)
    build(tmp_path / "out", source)


def peak_memory(source: Path, out: Path, *arguments: str) -> int:
    """Peak resident memory, kB, of a run in a process of its own."""
    code = (
        # Not getrusage: on Linux a child's ru_maxrss starts at that of the process that started it.
        "import re, sys; import make_dataset; make_dataset.main()\n"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', open('/proc/self/status').read())[1])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(source), "--out", str(out), "--workers", "1", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(result.stdout.split()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(  # groups of 20,000 go through the temporary file; of smaller ones, some are held at a time
    ("check", "group_rows", "least"),
    [
        ("bytes", 20_000, 5000),
        pytest.param("pixels", 20_000, 5000, marks=pytest.mark.nightly),
        pytest.param("bytes", parts.LARGE_GROUP_ROWS, 9000, marks=pytest.mark.nightly),
    ],
)
def test_memory_is_flat(tmp_path, check, group_rows, least):
    base = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)

    def tiny(i: int) -> bytes:
        array = base.copy()
        array[0, 0] = (i & 255, i >> 8, 0)
        return encode(Image.fromarray(array), "BMP")  # 9.7 kB, quick to make

    peaks = []
    most = least + 19_000
    for count in (least, most):
        # Row groups hold all they may: a reader of whole row groups would show.
        images = pa.array([{"bytes": tiny(i), "path": None} for i in range(count)], SCHEMA.field("image").type)
        path = tmp_path / f"{count}.parquet"
        table = pa.table({"image": images, "text": ["abc"] * count})
        pq.write_table(table, path, row_group_size=min(count, group_rows))
        peaks.append(peak_memory(path, tmp_path / f"out-{count}", "--check", check))
    counts = {"train": most * 8 // 10, "validation": most // 10, "test": most // 10}
    assert load_info(tmp_path / f"out-{most}")["counts"] == counts
    # Measured: 27 to 50 MB, pages that the allocators have yet to give back.
    assert peaks[1] - peaks[0] < 100_000, f"{peaks} kB, and 19,000 pictures alone take 184 MB"


def test_importing_is_light():
    code = "import sys, make_dataset; print([m for m in ('torch', 'datasets', 'cv2', 'pandas') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


# -------------------------------------------------------------------------------------------------------------- merge


def test_merge(tmp_path):
    shard(tmp_path / "in/a.parquet", rows(250))
    shard(tmp_path / "in/b.parquet", rows(30, 250))
    shard(tmp_path / "c.parquet", rows(5, 280))
    assert parquet_to_parquet([tmp_path / "in", str(tmp_path / "c.parquet")], tmp_path / "all.parquet") == 285
    assert [(s.image, s.text) for s in iter_source(str(tmp_path / "all.parquet"))] == rows(285)
    result = run_cli(tmp_path / "in", "--merge=true", "--out", tmp_path / "cli.parquet")
    assert result.returncode == 0 and "280 rows" in result.stdout
    assert isinstance(next(iter_source(str(tmp_path / "cli.parquet"))), Sample)


def test_merge_refuses_what_does_not_fit(tmp_path):
    shard(tmp_path / "in/a.parquet", rows(3))
    shard(tmp_path / "in/b.parquet", rows(3), ("image", "label"))
    out = tmp_path / "in/all.parquet"
    with pytest.raises(UserError, match=r"b\.parquet has the columns .*label.* but .*a\.parquet has"):
        parquet_to_parquet([tmp_path / "in"], out)
    (tmp_path / "in/b.parquet").unlink()
    assert parquet_to_parquet([tmp_path / "in"], out) == 3
    with pytest.raises(UserError, match="is one of the sources"):
        parquet_to_parquet([tmp_path / "in"], out)
    with pytest.raises(UserError, match=r"all\.parquet exists: choose another --out, or --overwrite"):
        parquet_to_parquet([tmp_path / "in/a.parquet"], out)
    assert parquet_to_parquet([tmp_path / "in/a.parquet"], out, overwrite=True) == 3
    with pytest.raises(UserError, match=r"a\.parquet is broken after row"):
        parquet_to_parquet([corrupt(tmp_path / "bad/a.parquet")], tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_merge_names_what_is_not_there(tmp_path):
    (tmp_path / "empty").mkdir()
    for given, words in (
        ([tmp_path / "nowhere"], r"there is no .*nowhere: name parquet files or folders of them"),
        ([tmp_path / "empty"], r"the folder .*empty holds no \.parquet file: name one that does"),
        ([], "there is nothing to merge"),
    ):
        with pytest.raises(UserError, match=words):
            parquet_to_parquet(given, tmp_path / "out.parquet")
    with pytest.raises(UserError, match="there are no sources: name a parquet file"):
        build(tmp_path / "out")


def test_a_full_disk_is_named_and_nothing_half_is_left(tmp_path, monkeypatch):
    source = shard(tmp_path / "in.parquet", rows(6))

    def full(*arguments, **settings):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(UserError, match=r"x\.parquet cannot be written \(No space left on device\)"):
        parquet_to_parquet([source], tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"out cannot be read or written \(No space left on device\)"):
        build(tmp_path / "out", source)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"]


def test_pictures_that_no_split_asks_for_are_counted(tmp_path, capsys):
    source = shard(tmp_path / "in.parquet", rows(10))
    module.main([str(source), "--out", str(tmp_path / "out"), "--split", "5/2/1", "--workers", "1"])
    assert "2 pictures are in no split, since 5/2/1 asks for fewer" in capsys.readouterr().out


def test_folders_change_places_where_the_system_cannot_do_it_in_one_step(tmp_path, monkeypatch):
    first, second = shard(tmp_path / "1.parquet", rows(6)), shard(tmp_path / "2.parquet", rows(6, 10))
    build(tmp_path / "out", first)
    monkeypatch.setattr(folders, "exchange", lambda one, other: False)
    build(tmp_path / "out", second, overwrite=True)
    assert sorted(texts(tmp_path / "out")) == sorted(text for _, text in rows(6, 10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.parquet", "2.parquet", "out"]


def test_samples_and_batches_are_written_in_groups_and_none_is_lost(tmp_path, monkeypatch):
    for i, (data, text) in enumerate(rows(10)):
        write(tmp_path / "in" / f"{text}_{i}.png", data)
    monkeypatch.setattr(parts, "CHUNK_ROWS", 3)
    monkeypatch.setattr(writer, "ROW_GROUP_ROWS", 4)
    build(tmp_path / "out", tmp_path / "in")
    assert sorted(texts(tmp_path / "out")) == sorted(text for _, text in rows(10))
    shards_in = [shard(tmp_path / "shards" / f"{i}.parquet", rows(5, 5 * i)) for i in range(2)]
    assert parquet_to_parquet(shards_in, tmp_path / "all.parquet") == 10
    groups = pq.ParquetFile(tmp_path / "all.parquet").metadata
    assert groups.num_row_groups > 1 and groups.num_rows == 10
    assert [(s.image, s.text) for s in iter_source(str(tmp_path / "all.parquet"))] == rows(10)


def test_a_shard_without_rows_adds_nothing(tmp_path):
    shard(tmp_path / "in/a.parquet", [])
    shard(tmp_path / "in/b.parquet", rows(3))
    assert [item.rows for item in sources.iter_items(str(tmp_path / "in"))] == [3]
    with pytest.raises(UserError, match="holds no samples"):
        list(sources.iter_items(str(tmp_path / "in/a.parquet")))


def test_a_file_beside_the_pictures_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    write(tmp_path / "in/abc.png", picture(1))
    (tmp_path / "in/labels.csv").write_text("filename,label\nabc.png,xyz\n")
    really = Path.open

    def refuse(path, *arguments, **settings):
        if path.name == "labels.csv":
            raise PermissionError(13, "Permission denied")
        return really(path, *arguments, **settings)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"labels\.csv cannot be read \(Permission denied\): check its permissions"):
        list(iter_source(str(tmp_path / "in")))


def test_pictures_that_are_not_read_are_told(tmp_path: Path) -> None:
    for i, (data, text) in enumerate(rows(5)):
        write(tmp_path / "in" / f"{text}.{'jfif' if i == 4 else 'png'}", data)
    for name in ("a.avif", "b.SVG"):
        (tmp_path / "in" / name).write_bytes(b"...")
    info = build(tmp_path / "out", tmp_path / "in", split="100/0/0")
    assert info["counts"]["train"] == 5 and reasons(info) == {"picture of a format that is not read": 2}
    shard(tmp_path / "beside/a.parquet", rows(3))
    write(tmp_path / "beside/x.png", picture(1))
    info = build(tmp_path / "out2", tmp_path / "beside", split="100/0/0")
    assert info["notes"] == [f"1 pictures beside the shards in {tmp_path / 'beside'} are not read"]


# ---------------------------------------------------------------------------------------------------- pseudo-labels


def marked(path: Path, rows: list[tuple[bytes, str]], sources: str) -> Path:
    """A shard whose column `source` has `person` for each `p` of `sources`, and `model` for each `m`."""
    shard(path, rows)
    column = pa.array([{"p": "person", "m": "model"}[who] for who in sources], pa.string())
    pq.write_table(pq.read_table(path).append_column("source", column), path)
    return path


def typed_and_read(out: Path) -> dict[str, tuple[list[str], list[str]]]:
    """For each split the labels that were typed and those that a model gave, by the column of the shards."""
    found = {}
    for split in SPLITS:
        made = [row for path in sorted(out.glob(f"{split}-*")) for row in pq.read_table(path).to_pylist()]
        by = [sorted(row["text"] for row in made if row["source"] == who) for who in ("person", "model")]
        found[split] = (by[0], by[1])
    return found


@pytest.mark.parametrize("order", ["mmp", "pmm", "mpm"])
def test_what_a_person_typed_beats_any_number_of_readings(tmp_path: Path, order: str) -> None:
    same = encode(picture(7))
    shown = [(same, "typed" if who == "p" else "read") for who in order]
    marked(tmp_path / "in.parquet", [*shown, *rows(3)], f"{order}ppp")
    info = build(tmp_path / "out", tmp_path / "in.parquet", split="0/0/100")
    assert texts(tmp_path / "out") == ["t0000", "t0001", "t0002", "typed"]
    assert info["counts"] == {"train": 0, "validation": 0, "test": 4}
    assert reasons(info) == {"duplicate image, other label": 2}


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("50/10/39", (50, 10, 39)),
        ("60/8/30", (60, 8, 30)),
        ("20/10/30", (20, 10, 30)),
        ("60/20/20", (80, 10, 10)),
        ("80/20", (90, 0, 10)),
    ],
)
def test_readings_take_no_place_of_what_is_measured(tmp_path: Path, split: str, counts: tuple[int, ...]) -> None:
    """Percentages are of the typed labels; counts are met, with the readings among those for training."""
    marked(tmp_path / "in.parquet", rows(100), "pm" * 50)
    info = build(tmp_path / "out", tmp_path / "in.parquet", split=split)
    found = typed_and_read(tmp_path / "out")
    assert tuple(info["counts"].values()) == counts
    assert [len(read) for _, read in found.values()] == [min(50, counts[0]), 0, 0]


def test_more_to_measure_on_than_was_typed_is_refused(tmp_path: Path) -> None:
    marked(tmp_path / "in.parquet", rows(60), "pmm" * 20)
    with pytest.raises(UserError, match=r"asks for 30 pictures to measure on and only 20 labels were typed"):
        build(tmp_path / "out", tmp_path / "in.parquet", split="20/10/20")


def test_the_sources_own_split_is_kept_where_all_for_training_are_readings(tmp_path: Path) -> None:
    marked(tmp_path / "in/train/a.parquet", rows(6), "m" * 6)
    marked(tmp_path / "in/test/a.parquet", rows(9, 6), "p" * 9)
    info = build(tmp_path / "out", tmp_path / "in")
    assert info["counts"] == {"train": 6, "validation": 0, "test": 9} and info["split"] == module.AS_IN_SOURCES
    again = build(tmp_path / "again", tmp_path / "out")
    assert again["counts"] == info["counts"]


def test_a_test_set_that_is_split_anew_is_told(tmp_path: Path) -> None:
    shard(tmp_path / "in/test/a.parquet", rows(20))
    info = build(tmp_path / "out", tmp_path / "in")
    assert info["notes"] == ["the sources' own test are split anew, 80/10/10"]


@pytest.mark.parametrize("form", ["jsonl", "hub"])
def test_every_source_tells_readings(tmp_path: Path, form: str) -> None:
    source: Path | str = tmp_path / "in"
    if form == "hub":
        marked(tmp_path / "in/train.parquet", rows(10), "pm" * 5)
        source = f"hub:{tmp_path / 'in'}"
    else:
        lines = []
        for i, (data, text) in enumerate(rows(10)):
            write(tmp_path / "in" / f"{i}.png", data)
            lines.append(json.dumps({"file_name": f"{i}.png", "text": text, "source": ["person", "model"][i % 2]}))
        (tmp_path / "in" / "labels.jsonl").write_text("\n".join(lines))
    build(tmp_path / "out", source, split="0/0/100")
    found = typed_and_read(tmp_path / "out")
    assert found["test"] == ([f"t{i:04d}" for i in range(0, 10, 2)], [])
    assert found["train"] == ([], [f"t{i:04d}" for i in range(1, 10, 2)])


def test_two_columns_of_who_gave_a_label_are_refused(tmp_path: Path) -> None:
    table = pq.read_table(marked(tmp_path / "in.parquet", rows(3), "ppp"))
    pq.write_table(table.append_column("source", table["source"]), tmp_path / "in.parquet")
    with pytest.raises(UserError, match=r"in\.parquet has two columns source"):
        build(tmp_path / "out", tmp_path / "in.parquet")
