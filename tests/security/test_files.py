"""Hostile files at the lowest layer, where every picture, table and shard is opened: bounded time, bounded memory."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from captcha_reader import images as module
from captcha_reader.config import DatasetConfig
from captcha_reader.dataset.folders import load_info
from captcha_reader.dataset.sources import iter_source
from captcha_reader.errors import UserError
from captcha_reader.files import csv_safe
from captcha_reader.images import TooManyPixelsError, open_image
from make_dataset import make_dataset, parquet_to_parquet

ROOT = Path(__file__).resolve().parent.parent.parent
LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")


def encode(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def gif(*frames: tuple[int, int], first: tuple[int, int] = (1, 1), disposal: int = 2) -> bytes:
    """A GIF whose frames measure this and hold one pixel each, whatever they say."""
    data = b"GIF89a" + struct.pack("<HHBBB", *first, 0x80, 0, 0) + b"\xff\xff\xff\0\0\0"
    for size in frames:
        data += b"\x21\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
        data += b"\x2c" + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x02\x44\x01\0"
    return data + b"\x3b"


def blank_frames(side: int, frames: int) -> dict:
    """White but for one pixel, since encoders join equal frames; arguments of `encode`."""
    images = [Image.new("RGB", (side, side), "white") for _ in range(frames)]
    for i, image in enumerate(images):
        image.putpixel((i, 0), (254, 255, 255))
    return {"image": images[0], "save_all": True, "append_images": images[1:]}


def webp(side: int, frames: int) -> bytes:
    return encode(image_format="WEBP", lossless=True, method=0, **blank_frames(side, frames))


def gif_of(side: int, frames: int) -> bytes:
    return encode(image_format="GIF", **blank_frames(side, frames))


def apng(side: int, frames: int) -> bytes:
    return encode(image_format="PNG", **blank_frames(side, frames))


def tiff(side: int, frames: int) -> bytes:
    return encode(image_format="TIFF", **blank_frames(side, frames))


MEASURE = """
import re, sys, time
from captcha_reader.images import open_image
from captcha_reader.errors import UserError
peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])
before, start = peak(), time.process_time()
try: open_image(sys.argv[1])
except UserError as error: print(type(error).__name__, end=" ")
else: print("read", end=" ")
print(peak() - before, time.process_time() - start)
"""


def measured(path: Path) -> tuple[str, int, float]:
    """What became of a picture, and the memory, kB, and processor seconds that it took, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", MEASURE, path], cwd=ROOT, capture_output=True, text=True, check=True)
    outcome, memory, seconds = done.stdout.split()
    return outcome, int(memory), float(seconds)


@LINUX
@pytest.mark.parametrize("size", [(13_300, 13_300), (65_535, 65_535)])
def test_a_later_frame_that_is_huge_costs_nothing(tmp_path, size):
    (tmp_path / "a.gif").write_bytes(gif((1, 1), size))
    outcome, memory, seconds = measured(tmp_path / "a.gif")
    assert outcome == "TooManyPixelsError" and memory < 30_000 and seconds < 1


def test_frames_have_one_budget_of_pixels(monkeypatch):
    """Blank frames, all within the limit by themselves: no more than the limit is decoded of them together."""
    side, frames = 200, 12
    decoded = []
    to_rgb = module._to_rgb
    monkeypatch.setattr(module, "_to_rgb", lambda image, name: decoded.append(image.size) or to_rgb(image, name))
    for data in (webp(side, frames), gif_of(side, frames), apng(side, frames), tiff(side, frames)):
        decoded.clear()
        assert open_image(data, max_pixels=3 * side**2 + 10).getextrema()[0][1] == 255
        assert decoded == [(side, side)] * 3
        decoded.clear()
        open_image(data)
        assert len(decoded) == frames


def test_the_limit_of_a_caller_holds_for_every_frame():
    small, large = Image.new("RGB", (50, 50), "white"), Image.new("RGB", (60, 60), "black")
    later = encode(small, "TIFF", save_all=True, append_images=[large])
    assert open_image(later, max_pixels=3599).size == (50, 50), "which is decoded no more"
    for source in (encode(large, "PNG"), np.zeros((60, 60), np.uint8), gif((60, 60))):
        with pytest.raises(TooManyPixelsError, match=r"more than 0\.003599 million pixels \(60x60\)"):
            open_image(source, max_pixels=3599)


def progressive_with_scans(scans: int) -> bytes:
    data = encode(Image.new("RGB", (6000, 6000)), "JPEG", progressive=True)
    scan = data.rindex(b"\xff\xda")
    return data[:scan] + data[scan:-2] * scans + b"\xff\xd9"


def tiff_with_tiles(side: int) -> bytes:
    """A picture of 16x16 whose only tile measures far more."""
    tags = [
        (256, 16),
        (257, 16),
        (258, 8),
        (259, 1),
        (262, 1),
        (277, 1),
        (322, side),
        (323, side),
        (324, 8),
        (325, 256),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = 8 + 256
    return b"II*\0" + struct.pack("<I", start) + bytes(256) + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("tiles", tiff_with_tiles(30_000), "has tiles of 30000x30000"),
        ("scans", progressive_with_scans(200), r"has 2\d\d scans: save it anew"),
        (
            "comment",
            gif((1, 1)).replace(b"\x21\xf9", b"\x21\xfe" + (b"\xff" + b"a" * 255) * 400 + b"\0\x21\xf9"),
            "comment",
        ),
        ("blocks", gif((1, 1))[:-1] + b"\x2c" + bytes(9) + b"\x02" + b"\x01a" * 300_000 + b"\0\x3b", "blocks"),
    ],
)
def test_work_that_the_size_does_not_tell_is_refused_at_once(name, data, words):
    start = time.process_time()
    with pytest.raises(UserError, match=words):
        open_image(data, name)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "make",
    [
        lambda n: gif(*[(1, 1)] * (n // 20)),
        lambda n: b"GIF89a" + b"\x01\0\x01\0\0\0\0" + b"x" * n,
        lambda n: b"\xff\xd8" + b"\xff" * n,
        lambda n: b"\xff\xd8" + b"\xff\xe0\x00\x02" * (n // 4),
        lambda n: (
            encode(Image.new("L", (8, 8)), "PNG")[:33] + (struct.pack(">I", 4) + b"tEXtabcd" + bytes(4)) * (n // 16)
        ),
    ],
    ids=["frames", "no block", "fill bytes", "empty segments", "text chunks"],
)
def test_the_work_for_a_file_grows_with_its_size_alone(make):
    def seconds(size: int) -> float:
        data = make(size)
        start = time.process_time()
        with contextlib.suppress(UserError):
            open_image(data)
        return time.process_time() - start

    once, twice = (min(seconds(size) for _ in range(2)) for size in (200_000, 400_000))
    for _ in range(5):
        if twice <= max(2.5 * once, 0.05):
            break
        once, twice = max(once, seconds(200_000)), min(twice, seconds(400_000))
    assert twice <= max(2.5 * once, 0.05) and once < 3


def test_a_refused_picture_is_gone_at_once():
    """While somebody keeps its error, as a future does, and with nobody to look for cycles."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    bad = [encode(noise, kind)[:-4000] for kind in ("PNG", "JPEG", "BMP", "WEBP", "TIFF")]
    bad += [gif((1, 1), (13_300, 13_300)), gif((9000, 9000)), b"no picture", b""]
    gc.collect()
    gc.disable()
    try:
        kept = []
        before = sum(isinstance(thing, (Image.Image, io.BytesIO)) for thing in gc.get_objects())
        for data in bad:
            try:
                open_image(data)
            except UserError as error:
                kept.append(error)
        assert len(kept) == len(bad)
        after = sum(isinstance(thing, (Image.Image, io.BytesIO)) for thing in gc.get_objects())
        assert after == before
        assert all(error.__context__ is None and error.__cause__ is None for error in kept)
    finally:
        gc.enable()


def test_mutated_pictures_are_read_or_refused_in_one_sentence():
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (20, 40, 3), dtype=np.uint8))
    seeds = [encode(picture, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")]
    seeds.append(encode(picture, "GIF", save_all=True, append_images=[picture.rotate(180)]))
    start = time.process_time()
    for i in range(400):
        data = bytearray(seeds[i % len(seeds)])
        for _ in range(int(rng.integers(1, 8))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if rng.random() < 0.3:
            del data[int(rng.integers(len(data))) :]
        try:
            assert open_image(bytes(data), "it").mode == "RGB"
        except UserError as error:
            assert str(error).startswith("it ") and "\n" not in str(error)
    assert time.process_time() - start < 60


# ------------------------------------------------------------------------------------------------------------- parquet


def parquet(path: Path, columns: list[tuple[str, pa.Array]]) -> Path:
    pq.write_table(pa.Table.from_arrays([array for _, array in columns], names=[name for name, _ in columns]), path)
    return path


PNG = encode(Image.new("RGB", (4, 3), "red"), "PNG")


def pictures(count: int = 2) -> pa.Array:
    return pa.array([{"bytes": PNG, "path": None}] * count)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([("image", pictures()), ("text", pa.array(["a", "b"])), ("text", pa.array(["c", "d"]))], "column text twice"),
        ([("image", pictures()), ("image", pictures()), ("text", pa.array(["a", "b"]))], "column image twice"),
        ([("image", pictures()), ("text", pa.array([["a"], ["b"]]))], "column text of .* holds list"),
        ([("image", pa.array([["a"], ["b"]])), ("text", pa.array(["a", "b"]))], "column image of .* holds list"),
        ([("image", pa.array([{"path": "a"}] * 2)), ("text", pa.array(["a", "b"]))], "column image of .* holds struct"),
        ([("image", pictures()), ("text", pa.array([1.5, 2.5]))], "holds double: store labels as strings"),
        ([("image", pictures()), ("text", pa.array([True, False]))], "holds bool: store labels as strings"),
    ],
)
def test_columns_that_cannot_be_used_are_one_sentence(tmp_path, columns, words):
    path = parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(UserError, match=words):
        list(iter_source(str(path)))


def test_columns_of_every_string_and_binary_type_are_read(tmp_path):
    texts = ["0012", "aB3x"]
    strings = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
    binaries = [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.dictionary(pa.int8(), pa.binary()),
        pa.binary(len(PNG)),
    ]
    for i, binary in enumerate(binaries):
        for nested in (False, True):
            encoded = pa.array([PNG, PNG], pa.binary())
            encoded = encoded.dictionary_encode() if pa.types.is_dictionary(binary) else encoded.cast(binary)
            if nested:
                encoded = pa.StructArray.from_arrays([encoded], ["bytes"])
            labels = pa.array(texts).dictionary_encode() if i % 4 == 3 else pa.array(texts).cast(strings[i % 4])
            path = parquet(tmp_path / f"{i}{nested}.parquet", [("image", encoded), ("text", labels)])
            assert [(s.image, s.text) for s in iter_source(str(path))] == [(PNG, text) for text in texts]


def test_a_shard_of_pictures_that_repeat_is_read_in_little_memory(tmp_path):
    """Stored once by its dictionary, a picture of 900 kB stands in 1,000 rows: 900 MB, were they read together."""
    large = os.urandom(900_000)
    repeated = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array([large]))
    path = parquet(tmp_path / "a.parquet", [("image", repeated), ("text", pa.array(["ab"] * 1000))])
    assert path.stat().st_size < 3_000_000
    before = pa.total_allocated_bytes()
    first = next(iter_source(str(path)))
    assert first.image == large and pa.total_allocated_bytes() - before < 100_000_000


def test_mutated_shards_are_read_or_refused_in_one_sentence(tmp_path):
    rng = np.random.default_rng(2)
    whole = parquet(tmp_path / "whole.parquet", [("image", pictures(50)), ("text", pa.array(["ab"] * 50))]).read_bytes()
    path = tmp_path / "a.parquet"
    for i in range(150):
        data = bytearray(whole)
        start = 4 if i % 2 else len(data) - 700  # its rows, or the footer that describes them
        for _ in range(int(rng.integers(1, 6))):
            data[int(rng.integers(start, len(data)))] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        for use in (
            lambda: list(iter_source(str(path))),
            lambda: parquet_to_parquet([path], tmp_path / "b.parquet", True),
        ):
            try:
                use()
            except UserError as error:
                assert "a.parquet" in str(error) and "\n" not in str(error)


@pytest.mark.parametrize(
    "change",
    [
        {"counts": None},
        {"counts": {"train": "1"}},
        {"counts": {"train": -1, "validation": 0, "test": 0}},
        {"sources": "a"},
        {"alphabet": ["a"]},
        {"max_length": 1.5},
        {"lengths": {"a": 1}},
        {"fingerprint": 12},
        {"rejects": []},
        {"settings": None},
        {"seed": "0"},
    ],
)
def test_a_dataset_json_of_somebody_else_is_none(tmp_path, change):
    import json

    shard = parquet(tmp_path / "a.parquet", [("image", pictures(1)), ("text", pa.array(["ab"]))])
    info = make_dataset(DatasetConfig(sources=[str(shard)], out=str(tmp_path / "out"), workers=1))
    assert load_info(tmp_path / "out") == info
    (tmp_path / "out/dataset.json").write_text(json.dumps(info | change))
    with pytest.raises(UserError, match="is not a dataset"):
        load_info(tmp_path / "out")


# --------------------------------------------------------------------------------------------------------------- names


def test_no_cell_is_a_formula():
    for text in (
        "=1+1",
        "+1",
        "-1",
        "@a",
        "\t=1",
        "\r=1",
        " =1",
        "＝1+1",
        "﹢1",
        "＠a",
        "－1",
        "\n=1",
        "\u00a0=1",
        "\u3000=1",
    ):
        assert csv_safe(text) == f"'{text}"
    for text in ("aB3x", "a=b", "", "1-2", "é", "a\tb"):
        assert csv_safe(text) == text


def test_errors_name_no_folder_of_this_machine(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    (tmp_path / "in/ab.png").write_bytes(PNG)
    for arguments in (["in", "--out", "out"], ["missing", "--out", "new"]):
        command = [sys.executable, str(ROOT / "make_dataset.py"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 1 and done.stderr.startswith("error: ")
        assert not re.search(re.escape(str(tmp_path)), done.stderr), done.stderr
