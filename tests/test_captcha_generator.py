"""The generator, through its command line and on the files it writes."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import signal
import string
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import captcha_generator as generator
from captcha_generator import CaptchaSettings, generate_captcha, render_captcha
from captcha_reader import cluster
from captcha_reader.config import GeneratorConfig
from captcha_reader.dataset.sources import iter_source
from captcha_reader.errors import UserError
from captcha_reader.generator import font_packages, shards
from captcha_reader.generator import fonts as captcha_fonts
from captcha_reader.generator.canvas import Canvas, blend
from captcha_reader.generator.fonts import find_fonts
from captcha_reader.generator.ops.clutter import Lines
from captcha_reader.generator.ops.ink import Ink
from captcha_reader.generator.ops.layout import Row
from captcha_reader.generator.registry import OPS
from captcha_reader.generator.schemes import MIXED
from captcha_reader.generator.styles import STYLES, Style, load_style
from captcha_reader.text import Alphabet

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "captcha_generator.py"
ALPHANUMERIC = string.digits + string.ascii_letters


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def generate(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=60)


def succeed(*arguments: object) -> str:
    result = generate(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refuse(*arguments: object) -> str:
    """The message of a run that must end with an error a person can read."""
    result = generate(*arguments)
    assert result.returncode not in (0, None)
    assert "Traceback" not in result.stderr
    return result.stderr


def rows(folder: Path) -> list[dict]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 captchas by one process, in shards of 120, with a grid."""
    out = tmp_path_factory.mktemp("small")
    options = ("--style", "classic,mixed", "--alphabet", "0-9a-f", "--length", "3-5", "--seed", 5, "--workers", 1)
    succeed("--count", 300, *options, "--shard_size", 120, "--out", out, "--grid", out / "grid.png")
    return out


def test_the_same_bytes_for_any_workers_and_shard_size(small_set: Path, tmp_path: Path) -> None:
    options = ("--style", "classic,mixed", "--alphabet", "0-9a-f", "--length", "3-5", "--seed", 5, "--workers", 2)
    succeed("--count", 300, *options, "--shard-size", 77, "--out", tmp_path)
    assert len(list(tmp_path.glob("*.parquet"))) == 4
    assert rows(tmp_path) == rows(small_set)
    settings = CaptchaSettings(("classic", "mixed"), "0123456789abcdef", (3, 5), 5)
    assert [(row["image"]["bytes"], row["text"]) for row in rows(small_set)[:40]] == [
        render_captcha(i, settings) for i in range(40)
    ]


def test_shards_are_named_counted_and_labeled(small_set: Path) -> None:
    names = [path.name for path in sorted(small_set.glob("*.parquet"))]
    assert names == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert [pq.read_metadata(small_set / name).num_rows for name in names] == [120, 120, 60]
    assert [p.name for p in small_set.iterdir() if p.name.startswith(".")] == []  # no temporary files stay
    texts = [row["text"] for row in rows(small_set)]
    assert {len(text) for text in texts} == {3, 4, 5}
    assert set("".join(texts)) == set("0123456789abcdef")
    assert len(set(texts)) > 270  # texts differ from picture to picture


def test_datasets_loads_pictures(small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    data_files = [str(path) for path in sorted(small_set.glob("*.parquet"))]
    loaded = datasets.load_dataset("parquet", data_files=data_files, split="train", cache_dir=str(tmp_path))
    assert isinstance(loaded.features["image"], datasets.Image)
    assert loaded.features["text"].dtype == "string"
    expected = rows(small_set)
    assert len(loaded) == 300
    for i in (0, 150, 299):
        assert loaded[i]["text"] == expected[i]["text"]
        assert np.array_equal(np.asarray(loaded[i]["image"]), pixels(expected[i]["image"]["bytes"]))


def test_seeds_and_indices_differ() -> None:
    settings = CaptchaSettings(seed=1)
    drawn = {render_captcha(i, settings) for i in range(20)}
    assert len(drawn) == 20
    assert not drawn & {render_captcha(i, CaptchaSettings(seed=2)) for i in range(20)}


def test_global_random_state_plays_no_part() -> None:
    random.seed(1)
    np.random.seed(1)
    before = (random.getstate(), np.random.get_state()[1].tolist())
    first = render_captcha(3, CaptchaSettings(styles=(MIXED,)))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    random.seed(2)
    np.random.seed(2)
    assert render_captcha(3, CaptchaSettings(styles=(MIXED,))) == first


def test_picture_files_hold_what_the_shards_hold(small_set: Path, tmp_path: Path) -> None:
    options = ("--style", "classic,mixed", "--alphabet", "0-9a-f", "--length", "3-5", "--seed", 5, "--count", 300)
    succeed(*options, "--shard_size", 120, "--out", tmp_path / "shards", "--pictures", tmp_path / "files")
    in_shards, in_files = ([(s.image, s.text) for s in iter_source(str(p))] for p in (small_set, tmp_path / "files"))
    assert len(in_files) == 300 and in_files == in_shards
    assert "holds files already" in refuse(*options, "--out", tmp_path / "others", "--pictures", tmp_path / "files")
    assert not (tmp_path / "others").exists()


def test_picture_files_that_were_cut_off_are_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = GeneratorConfig(
        out=str(tmp_path / "out"), count=5, style="clean", workers=1, pictures=str(tmp_path / "files")
    )
    (tmp_path / "files").mkdir()  # an empty folder may be there
    write, written = Path.write_bytes, []

    def cut_off(path: Path, data: bytes) -> int:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        return write(path, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "write_bytes", cut_off)
        generator.generate_captcha_data(config)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "out"] and not any(written[0].parent.glob("*"))
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    left = tmp_path / f".files.{ended.stdout.strip()}.partial"  # as a killed run leaves it
    left.mkdir()
    (left / "00000000.png").write_bytes(b"half")
    generator.generate_captcha_data(config)
    names = sorted(path.name for path in (tmp_path / "files").iterdir())
    assert names == [*(f"{i:08d}.png" for i in range(5)), "labels.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "out"]


def test_picture_files_go_into_a_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    config = GeneratorConfig(out=str(tmp_path / "out"), count=2, style="clean", workers=1)
    with pytest.raises(UserError, match="mine is a file: give a folder as --pictures"):
        generator.generate_captcha_data(replace(config, pictures=str(tmp_path / "mine")))
    for beside in ({"out": str(tmp_path / "files")}, {"grid": str(tmp_path / "files" / "grid.png")}):
        with pytest.raises(UserError, match="would stand among the picture files: give --pictures a folder of its own"):
            generator.generate_captcha_data(replace(config, pictures=str(tmp_path / "files"), **beside))
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match=r"cannot write to .*files .*No space left on device.*: make room or choose"):
        generator.generate_captcha_data(replace(config, pictures=str(tmp_path / "files")))
    assert not (tmp_path / "files").exists()


def test_the_grid_is_ten_by_ten(small_set: Path) -> None:
    pictures = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGBA") for row in rows(small_set)[:100]]
    for picture in pictures:
        picture.thumbnail((240, 100), Image.Resampling.LANCZOS)
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    with Image.open(small_set / "grid.png") as grid:
        grid.load()
        assert grid.size == (10 * (width + 4) + 4, 10 * (height + 4) + 4)
        # the eleventh picture opens the second row
        x, y = 4 + (width - pictures[10].width) // 2, 4 + (height + 4) + (height - pictures[10].height) // 2
        cell = grid.crop((x, y, x + pictures[10].width, y + pictures[10].height))
        white = Image.new("RGBA", pictures[10].size, "white")
        white.alpha_composite(pictures[10])
        assert np.abs(np.asarray(cell).astype(int) - np.asarray(white.convert("RGB"))).max() <= 1


def test_a_giant_does_not_scatter_the_others(tmp_path: Path) -> None:
    pictures = [Image.new("RGB", size, "black") for size in ((60, 20), (640, 360), (1500, 60))]
    with Image.open(generator.save_grid_image(pictures, tmp_path / "grid.png", columns=3)) as grid:
        assert grid.size == (3 * (240 + 4) + 4, 100 + 2 * 4)
        ink = np.asarray(grid)[..., 0] < 128
        # each in its shape: as it is, as high as the cell, as wide as the cell
        cells = [ink[4:104, 4 + 244 * k : 244 + 244 * k] for k in range(3)]
        assert [(c.any(0).sum(), c.any(1).sum()) for c in cells] == [(60, 20), (178, 100), (240, 10)]


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", [*STYLES, MIXED])
def test_every_style_draws_any_text(style: str) -> None:
    """Every character of the alphabet, lengths 1 to 10: the picture is of the style's size and the text leaves ink."""
    texts = [ALPHANUMERIC[i : i + length] for length in range(1, 11) for i in range(0, 62, length)]
    assert set("".join(texts)) == set(ALPHANUMERIC)
    for i, text in enumerate([*texts[::3], "W" * 10, "i", "j" * 10]):
        picture, label = generate_captcha(text, style, seed=9, index=i)
        assert label == text
        if style != MIXED:
            kind = STYLES[style]
            assert picture.mode == kind.mode
            assert kind.height[0] <= picture.height <= kind.height[1]
            assert kind.width is None or kind.width[0] <= picture.width <= kind.width[1]


@pytest.mark.parametrize("style", STYLES)
def test_the_text_shows_and_stays_inside(style: str) -> None:
    """Without clutter, ink lies where the word should be, and a longer word covers more columns."""
    clutter = ("spots", "lines", "noise", "salt", "blur", "jpeg", "invert", "gradient", "clouds")
    bare = STYLES[style].without(*clutter, "kaptcha_ripple", "kaptcha_gradient", "elastic", "wave", "hollow")
    bare = bare.with_op("ink", level=(0, 100))
    covered = []
    for text in ("H", "HHHH", "HHHHHHHH"):
        picture, _ = generate_captcha(text, bare, seed=4)
        array = np.asarray(picture).astype(int)
        if picture.mode == "RGBA":
            ink = array[..., 3] > 128
        else:
            array = array.reshape(*array.shape[:2], -1)
            ink = np.abs(array - array[0, 0]).max(axis=2) > 40
        columns = np.flatnonzero(ink.any(axis=0))
        assert columns[0] > 0 and columns[-1] < picture.width - 1  # neither edge is touched
        covered.append(len(columns))
    assert covered[0] >= 4
    assert covered[0] < covered[1] < covered[2]


def test_thin_is_transparent_and_grows_with_the_text() -> None:
    short, _ = generate_captcha("abc", "thin", index=1)
    long, _ = generate_captcha("abcabcabc", "thin", index=1)
    assert long.width > 1.5 * short.width
    alpha = np.asarray(long)[..., 3]
    assert {0, 255} < set(np.unique(alpha))  # soft edges are transparent in part
    assert 0.5 < (alpha == 0).mean() < 0.995


def test_line_looks_like_the_real_set_in_numbers() -> None:
    """Facts of the public set: 200x50 gray, corner brightnesses, black ink from 0 to 255, about a fifth of it dark."""
    arrays = [
        np.asarray(generate_captcha(None, "line", seed=1, index=i, alphabet="2345678bcdefgmnpwxy", length="5")[0])
        for i in range(100)
    ]
    stack = np.stack(arrays).astype(float)
    assert stack.shape[1:] == (50, 200)
    assert abs(np.median(stack[:, 0, 0]) - 192) <= 2
    assert stack[:, 2, 195].mean() == pytest.approx(250, abs=2)
    assert stack.mean() == pytest.approx(182.4, abs=4)
    assert (stack < 150).mean() == pytest.approx(0.216, abs=0.02)
    ends = [np.flatnonzero((picture < 150).sum(axis=0) >= 6)[-1] for picture in stack]
    assert np.median(ends) == pytest.approx(137, abs=5)  # where words of five characters end


def test_a_style_of_ones_own_draws() -> None:
    style = Style((Lines(count=(2, 2), kinds=("wave",)),), height=(30, 30), width=(90, 90), mode="L")
    picture, text = generate_captcha(style=style, alphabet="a-c", length=(4, 4))
    assert picture.size == (90, 30) and picture.mode == "L"
    assert len(text) == 4 and set(text) <= set("abc")


def test_elastic_transform_shifts_but_keeps_shape_and_flat_ground() -> None:
    image = np.zeros((60, 160, 3), np.uint8)
    image[:, 70:90] = 255
    bent = generator.elastic_transform(image, random.Random(1), amplitude=3)
    assert bent.shape == image.shape and bent.dtype == np.uint8
    assert not np.array_equal(bent, image)
    assert (
        not bent[:, :60].any() and not bent[:, 100:].any()
    )  # nothing moves further than the amplitude (and cubic's rim)
    assert np.array_equal(bent, generator.elastic_transform(image, random.Random(1), amplitude=3))
    assert np.array_equal(generator.elastic_transform(image, random.Random(1), amplitude=0), image)


def test_each_primitive_changes_the_canvas_as_told() -> None:
    pixels = np.full((60, 160, 3), 255, np.uint8)
    generator.draw_spots(pixels, random.Random(0), 0, (1, 2), [])
    generator.draw_lines(pixels, random.Random(0), 0, ("straight",), (1, 1), lambda: (0.0,) * 3)
    assert (pixels == 255).all()  # counts of zero
    generator.draw_lines(pixels, random.Random(1), 1, ("straight",), (1, 1), lambda: (0.0,) * 3)
    assert 20 < (pixels < 128).any(axis=2).sum() < 2000
    pixels[:] = 255
    generator.draw_spots(pixels, random.Random(0), 5, (1, 1), [(100.0,) * 3])
    assert 5 <= (pixels < 200).any(axis=2).sum() <= 5 * 9
    pixels[:] = 255
    canvas = Canvas("Ab3", Style(), 60, 160, find_fonts("3Ab"))
    canvas.pixels, canvas.paths = pixels, [find_fonts("3Ab").paths[0]] * 3
    Row()(canvas, random.Random(0))
    Ink(level=(0, 100))(canvas, random.Random(0))
    generator.draw_text(pixels, canvas.letters)
    assert 100 < (pixels < 200).any(axis=2).sum() < 4000
    with pytest.raises(ValueError, match="zigzag"):
        generator.draw_lines(pixels, random.Random(0), 1, ("zigzag",), (1, 1), lambda: (0.0,) * 3)
    with pytest.raises(ValueError, match="star"):
        generator.draw_spots(pixels, random.Random(0), 1, (1, 1), [(0.0,) * 3], ("star",))


def test_random_strings_are_even() -> None:
    rng = random.Random(4)
    texts = [generator.generate_random_string("abcd", (2, 4), rng) for _ in range(4000)]
    lengths = [sum(len(t) == n for t in texts) for n in (2, 3, 4)]
    assert sum(lengths) == 4000 and min(lengths) > 1200
    letters = "".join(texts)
    assert all(0.23 < letters.count(c) / len(letters) < 0.27 for c in "abcd")
    assert generator.generate_random_string(Alphabet("x"), (3, 3), rng) == "xxx"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_color_is_blended_into_a_region_of_any_shape(channels: int) -> None:
    color = (30.0, 90.0, 200.0, 255.0)[:channels]
    for height in range(1, 6):
        for width in range(1, 6):
            region = np.full((height, width, channels), 250, np.uint8)
            mask = np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)
            part = mask[..., None] / 255
            expected = region * (1 - part) + np.array(color) * part
            blend(region, mask, color)
            assert np.abs(region - expected).max() <= 1


def test_png_keeps_every_pixel() -> None:
    for channels in (1, 3, 4):
        canvas = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
        assert np.array_equal(pixels(generator.encode_png(canvas)).reshape(20, 30, channels), canvas)


def test_examples_are_small_pictures_named_by_their_label() -> None:
    files = sorted((ROOT / "examples").glob("*.png"))
    assert len(files) >= 6
    assert sum(p.stat().st_size for p in files) < 60_000
    for path in files:
        with Image.open(path) as picture:
            picture.load()
        assert 4 <= len(path.stem) <= 8 and set(path.stem) <= set(ALPHANUMERIC)


# --- interruptions and reuse -----------------------------------------------------------------------------------------


def test_killed_midway_then_run_again_gives_the_same_bytes(tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    options = ("--count", 800, "--style", "clean", "--shard_size", 100, "--seed", 3)
    succeed(*options, "--workers", 1, "--out", calm)
    with subprocess.Popen(command(*options, "--workers", 2, "--out", killed), stderr=subprocess.DEVNULL) as process:
        children: list[psutil.Process] = []
        deadline = time.monotonic() + 40
        while len(list(killed.glob("train-*"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
    whole = sorted(killed.glob("train-*"))
    assert 2 <= len(whole) < 8, "the kill came too late or too early to test anything"
    assert psutil.wait_procs(children, timeout=10)[1] == []  # workers follow their parent
    (killed / f".train-00007-of-00008.{process.pid}.tmp.parquet").write_bytes(b"half")  # what a kill may leave
    times = {path: path.stat().st_mtime_ns for path in whole}
    assert f"({len(whole)} of these shards were there already)" in succeed(*options, "--workers", 1, "--out", killed)
    assert {path: path.stat().st_mtime_ns for path in whole} == times  # kept, not drawn again
    assert sorted(p.name for p in killed.iterdir()) == sorted(p.name for p in calm.iterdir())
    for path in calm.iterdir():
        assert path.read_bytes() == (killed / path.name).read_bytes()


def test_what_another_process_is_writing_stays(tmp_path: Path) -> None:
    writing = tmp_path / f".train-00000-of-00001.{os.getpid()}.tmp.parquet"
    writing.write_bytes(b"half")
    succeed("--count", 3, "--workers", 1, "--out", tmp_path)
    assert writing.read_bytes() == b"half" and (tmp_path / "train-00000-of-00001.parquet").exists()


def test_a_missing_shard_is_drawn_again(small_set: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(small_set, again)
    lost = again / "train-00001-of-00003.parquet"
    lost.unlink()
    options = ("--style", "classic,mixed", "--alphabet", "0-9a-f", "--length", "3-5", "--seed", 5, "--workers", 1)
    succeed("--count", 300, *options, "--shard_size", 120, "--out", again)
    assert lost.read_bytes() == (small_set / lost.name).read_bytes()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--seed", 6), "seed"),
        (("--count", 301), "count"),
        (("--style", "classic"), "style"),
        (("--alphabet", "0-9a-e"), "alphabet"),
        (("--length", "3-6"), "length"),
        (("--shard_size", 150), "shard_size"),
    ],
)
def test_other_settings_are_refused(small_set: Path, change: tuple, named: str) -> None:
    from captcha_reader.config import GeneratorConfig

    values = {
        "count": 300, "style": "classic,mixed", "alphabet": "0-9a-f", "length": "3-5", "seed": 5, "shard_size": 120,
    }  # fmt: skip
    values[change[0][2:]] = change[1]
    before = {path: path.read_bytes() for path in small_set.iterdir()}
    with pytest.raises(UserError, match=rf"other settings \(--{named} .* choose another --out"):
        generator.generate_captcha_data(GeneratorConfig(out=str(small_set), workers=1, **values))
    assert {path: path.read_bytes() for path in small_set.iterdir()} == before


def test_foreign_and_broken_parquet_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.parquet").write_bytes(b"not parquet")
    message = refuse("--count", 3, "--workers", 1, "--out", tmp_path)
    assert "other.parquet was made by something else" in message and "another --out" in message


def test_a_changed_style_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from captcha_reader.config import GeneratorConfig

    config = GeneratorConfig(out=str(tmp_path), count=3, style="clean", workers=1)
    generator.generate_captcha_data(config)
    generator.generate_captcha_data(config)  # the same again is welcome
    monkeypatch.setitem(STYLES, "clean", Style(height=(33, 33)))
    with pytest.raises(UserError, match="styles have changed"):
        generator.generate_captcha_data(config)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("moment", ["workers start", "a shard is written"])
def test_ctrl_c_ends_cleanly(tmp_path: Path, moment: str) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        command("--count", 100_000, "--shard_size", 200, "--workers", 2, "--out", out),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 40
    generator_process = psutil.Process(process.pid)

    def reached() -> bool:
        if moment == "workers start":
            return len(generator_process.children()) >= 3  # two workers and Python's resource tracker
        return bool(list(out.glob("train-*")))

    while not reached() and time.monotonic() < deadline:
        time.sleep(0.01)
    if moment == "workers start":
        time.sleep(0.2)  # in the middle of their imports
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in errors and "Traceback" not in errors
    assert [p.name for p in out.iterdir() if p.name.startswith(".")] == []
    assert all(pq.read_metadata(path).num_rows == 200 for path in out.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="needs the resource module")
def test_memory_does_not_grow_with_the_count(tmp_path: Path) -> None:
    """Peak memory of the writing process, for sets of 5 and 50 MB."""

    def peak(count: int) -> float:
        code = (
            "import resource, sys, runpy\n"
            "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
            "except SystemExit as end:\n    assert not end.code, end.code\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
        )
        code = f"import sys; sys.argv = sys.argv[1:]\n{code}"
        arguments = ("--count", count, "--style", "noise", "--workers", 1, "--out", tmp_path / str(count))
        result = subprocess.run(
            [sys.executable, "-c", code, str(SCRIPT), *map(str, arguments)],
            capture_output=True, text=True, timeout=60, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        return float(result.stdout.splitlines()[-1])

    few, many = peak(200), peak(2000)
    size = sum(p.stat().st_size for p in (tmp_path / "2000").iterdir()) / 2**20
    assert size > 40  # MB: what would show if it were held
    assert many - few < 20, f"{few:.0f} MB for 200, {many:.0f} MB for 2000"


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--style", "clasic"), ["'clasic'", *STYLES, MIXED]),
        (("--length", "8-4"), ["8-4", "4-8"]),
        (("--alphabet", "ab\U0001d11e"), ["\U0001d11e", "--fonts"]),
        (("--count", 0), ["--count", "1 or more"]),
        (("--fonts", "/nowhere"), ["/nowhere", "does not exist"]),
        (("--sytle", "classic"), ["sytle"]),
        (("--style", "mine.yaml"), ["mine.yaml", "cannot be read"]),
    ],
)
def test_bad_input_is_explained(tmp_path: Path, arguments: tuple, words: list[str]) -> None:
    message = refuse("--out", tmp_path / "out", "--workers", 1, *arguments)
    assert all(word in message for word in words), message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("text", ["0", "", "x", "4-", "-4", "5-4", "1-33", "4-8-9", "3.5"])
def test_bad_lengths_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="write 5 or 4-8"):
        generator.parse_length(text)


def test_good_lengths() -> None:
    assert generator.parse_length("5") == (5, 5)
    assert generator.parse_length("4-8") == (4, 8)


def test_bad_calls_are_refused() -> None:
    with pytest.raises(UserError, match="classic, line"):
        generate_captcha("abc", "nope")
    with pytest.raises(UserError, match="0 characters"):
        generate_captcha("")
    with pytest.raises(UserError, match="at least one"):
        generator.save_grid_image([], "x.png")
    with pytest.raises(UserError, match="cannot be written"):
        generator.save_grid_image([Image.new("L", (2, 2))], "/proc/grid.png")


def test_fonts_draw_what_they_claim() -> None:
    """Symbol faces are out, and no two characters of a face look alike but for those that do to a person."""
    fonts = captcha_fonts.find_fonts(ALPHANUMERIC)
    assert len(fonts.paths) >= 15 and fonts.own == 0
    for path in fonts.paths:
        shapes = {captcha_fonts.load_glyph(path, c, 40).mask.tobytes() for c in ALPHANUMERIC}
        assert len(shapes) == 62, path


def test_a_fonts_folder(tmp_path: Path) -> None:
    """Its fonts are drawn with, its broken file is named once, and a folder of broken files is refused."""
    import matplotlib

    folder = tmp_path / "fonts"
    folder.mkdir()
    (folder / "broken.ttf").write_bytes(b"no font at all")
    with pytest.raises(UserError, match=f"no font in the folder {folder} can be read"):
        captcha_fonts.find_fonts("ab", str(folder))
    captcha_fonts.find_fonts.cache_clear()  # the folder changes now
    shutil.copy(Path(matplotlib.get_data_path(), "fonts/ttf/cmtt10.ttf"), folder / "mine.ttf")
    result = generate("--count", 100, "--style", "line", "--workers", 2, "--out", tmp_path / "b", "--fonts", folder)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("broken.ttf") == 1 and "1 font file(s)" in result.stderr
    with_mine = [(row["image"]["bytes"], row["text"]) for row in rows(tmp_path / "b")]
    without = [render_captcha(i, CaptchaSettings(("line",))) for i in range(100)]
    assert [text for _, text in with_mine] == [text for _, text in without]
    assert sum(a != b for (a, _), (b, _) in zip(with_mine, without, strict=True)) > 50
    fonts = captcha_fonts.find_fonts("ab", str(folder))
    assert fonts.own == 1 and fonts.paths[-1].endswith("mine.ttf")


def test_import_is_light_and_silent() -> None:
    code = "import sys, captcha_generator; print([m for m in ('torch', 'matplotlib.pyplot') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")


def test_the_settings_stand_in_each_shard(small_set: Path) -> None:
    for path in small_set.glob("*.parquet"):
        stamp = json.loads(pq.read_schema(path).metadata[b"captcha_generator"])
        assert (stamp["seed"], stamp["count"], stamp["length"], stamp["style"]) == (5, 300, "3-5", "classic,mixed")


def test_ops_styles_and_fonts_are_listed() -> None:
    listed = succeed("--list")
    assert all(re.search(rf"^  {name} ", listed, re.MULTILINE) for name in (*OPS, *STYLES, "schemes", "heldout"))
    checked = succeed("--check_fonts")
    assert "font packages" in checked and ("installed" in checked or "apt-get install" in checked or "dpkg" in checked)


def test_missing_font_packages_come_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = font_packages.recipe_packages()
    assert len(wanted) > 100 and all(re.fullmatch(r"fonts-[a-z0-9-]+", name) for name in wanted)
    monkeypatch.setattr(font_packages, "installed_packages", lambda: set(wanted[:-2]))
    told = font_packages.check_packages()
    assert told.splitlines()[-1].endswith(f"apt-get install --no-install-recommends {wanted[-2]} {wanted[-1]}")
    monkeypatch.setattr(font_packages, "installed_packages", lambda: set(wanted))
    assert f"All {len(wanted)}" in font_packages.check_packages()


def test_a_style_in_a_file_is_drawn_into_shards(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("height: 40\ncharacters: '0123456789'\nops: [{rotation: {degrees: 5}}, blur]\n")
    succeed("--count", 3, "--workers", 1, "--style", tmp_path / "mine.yaml", "--out", tmp_path / "out")
    assert all(row["text"].isdigit() and pixels(row["image"]["bytes"]).shape[0] == 40 for row in rows(tmp_path / "out"))


@pytest.mark.parametrize("style", ["{}", "mixed,{}", "mixed,classic,{}"])
def test_a_style_in_a_file_that_was_changed_makes_other_shards(style: str, tmp_path: Path) -> None:
    config = GeneratorConfig(
        out=str(tmp_path / "out"), count=4, workers=1, style=style.format(mine := tmp_path / "mine.yaml")
    )
    for text, message in (("height: 40\n", None), ("height: 50\n", "the styles have changed since")):
        mine.write_text(text)
        load_style.cache_clear()  # as in another process
        with pytest.raises(UserError, match=message) if message else nullcontext():
            generator.generate_captcha_data(config)


def test_a_shard_of_a_version_that_says_more_is_refused(tmp_path: Path) -> None:
    values, _, stamp = worker_of(tmp_path)
    table = pa.table({"text": ["a"]}).replace_schema_metadata(
        {shards.METADATA_KEY: json.dumps(json.loads(stamp) | {"extra": 1})}
    )
    pq.write_table(table, tmp_path / "train-00000-of-00002.parquet")
    with pytest.raises(UserError, match="was made by another version of the generator: choose another --out"):
        generator.generate_captcha_data(GeneratorConfig(**values))


def test_a_style_in_a_file_decides_on_its_texts(tmp_path: Path) -> None:
    (mine := tmp_path / "mine.yaml").write_text("characters: 'абвгдежзa'\nlength: [2, 12]\n", encoding="utf-8")

    def drawn(style: object, **asked: str) -> list[str]:
        out = tmp_path / "-".join(["out", Path(str(style)).name, *asked])
        generator.generate_captcha_data(GeneratorConfig(out=str(out), count=40, workers=1, style=str(style), **asked))
        return [row["text"] for row in rows(out)]

    texts = drawn(mine)
    assert set("".join(texts)) == set("абвгдежзa") and {2, 12} <= {len(text) for text in texts} <= {*range(2, 13)}
    own, usual = (texts[k::2] for texts in [drawn(f"{mine},classic")] for k in (0, 1))
    assert set("".join(own)) == set("абвгдежзa") and {2, 12} & {len(text) for text in own}
    assert set("".join(usual)) <= set(ALPHANUMERIC) and {len(text) for text in usual} == {4, 5, 6, 7, 8}
    both = drawn(mine, alphabet="0-9a-zа-в", length="10-20")
    assert set("".join(both)) == set("абвa") and {len(text) for text in both} == {10, 11, 12}
    with pytest.raises(UserError, match=r"mine\.yaml has none of the characters that are asked for: change its"):
        drawn(mine, alphabet="0-9")
    said = refuse("--style", mine, "--length", "13-14", "--out", tmp_path / "out")
    assert "mine.yaml has texts of 2-12 characters, and 13-14 are asked for: change its `length`" in said
    assert not (tmp_path / "out").exists()


def test_a_style_in_a_file_decides_on_its_texts_in_python_too(tmp_path: Path) -> None:
    (mine := tmp_path / "mine.yaml").write_text("characters: 'e\u0301йй'\nlength: 3\n", encoding="utf-8")
    assert set(generate_captcha(style=str(mine))[1]) <= {"é", "й"} and len(generate_captcha(style=str(mine))[1]) == 3
    assert len(render_captcha(0, CaptchaSettings((str(mine),)))[1]) == 3
    assert len(generate_captcha("whatever", str(mine))[1]) == 8
    for asked in ({"alphabet": "abc"}, {"length": (4, 6)}):
        with pytest.raises(UserError, match=r"mine\.yaml .* asked for: change its"):
            generate_captcha(style=str(mine), **asked)
        with pytest.raises(UserError, match=r"mine\.yaml .* asked for: change its"):
            CaptchaSettings((str(mine),), **asked)


def test_what_a_style_in_a_file_decides_stands_in_the_stamp(tmp_path: Path) -> None:
    (mine := tmp_path / "mine.yaml").write_text("length: [3, 5]\n")
    config = GeneratorConfig(out=str(tmp_path / "out"), count=4, workers=1, style=str(mine))
    generator.generate_captcha_data(config)
    with pytest.raises(UserError, match="the texts have changed since"):
        generator.generate_captcha_data(replace(config, length="4-8"))


def worker_of(out: Path, **changes: object) -> tuple[dict, CaptchaSettings, str]:
    """What a worker of a cluster is given: values, settings and the stamp."""
    given = {"style": "line", "alphabet": "abcd", "length": "3", "count": 5, "shard_size": 3, "out": str(out)}
    config = GeneratorConfig(**(given | changes))
    settings = CaptchaSettings(("line",), "abcd", (3, 3), seed=config.seed)
    return asdict(config), settings, shards.shard_stamp(config, settings)


def test_a_worker_draws_what_one_process_draws(tmp_path: Path) -> None:
    values, settings, stamp = worker_of(tmp_path / "cluster")
    assert [shards.draw_shard(str(i), values, settings, stamp)["captchas"] for i in range(2)] == [3, 2]
    generator.generate_captcha_data(GeneratorConfig(**values | {"out": str(tmp_path / "here"), "workers": 1}))
    names = sorted(path.name for path in (tmp_path / "here").glob("*.parquet"))
    assert len(names) == 2
    for name in names:
        assert (tmp_path / "cluster" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_a_worker_with_another_generator_or_fonts_draws_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, settings, stamp = worker_of(tmp_path / "out")
    monkeypatch.setattr(shards, "GENERATOR_VERSION", 1)
    with pytest.raises(UserError, match=r"a worker would draw by version 1 of the generator, .*the same packages"):
        shards.draw_shard("0", values, settings, stamp)
    monkeypatch.undo()
    other = json.dumps(json.loads(stamp) | {"fonts": "others"})
    with pytest.raises(UserError, match=r"with other settings .the fonts have changed since.: give all machines"):
        shards.draw_shard("0", values, settings, other)
    assert not (tmp_path / "out").exists()


def test_a_cluster_is_given_whole_paths_and_its_shards_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[str] = []

    def here(work, items):
        assert work.keywords["values"]["out"] == str(tmp_path / "out")
        given.extend(items)
        return map(work, items)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "run_on_ray", here)
    values, *_ = worker_of(Path("out"), engine="ray")
    generator.generate_captcha_data(GeneratorConfig(**values))
    assert given == ["0", "1"] and len(rows(tmp_path / "out")) == 5


def test_an_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"mine")
    values, *_ = worker_of(tmp_path / "out")
    with pytest.raises(UserError, match="out is a file: give a folder as --out"):
        generator.generate_captcha_data(GeneratorConfig(**values))
    assert (tmp_path / "out").read_bytes() == b"mine"


def test_a_worker_process_that_dies_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def submit(self, *_: object) -> Future:
            future: Future = Future()
            future.set_exception(BrokenProcessPool())
            return future

        def shutdown(self, **_: object) -> None:
            pass

    monkeypatch.setattr(shards, "ProcessPoolExecutor", Dying)
    settings = CaptchaSettings(("line",), "abcd", (3, 3))
    with pytest.raises(UserError, match=r"a worker process died, .*: run again with fewer --workers"):
        list(shards.iter_captchas(settings, range(500), 2))


def test_a_full_disk_and_shards_of_other_machines_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, *_ = worker_of(tmp_path / "out")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generator, "write_shards", full)
    with pytest.raises(UserError, match=r"cannot write to .*out \(.*No space left on device\): make room or choose"):
        generator.generate_captcha_data(GeneratorConfig(**values))
    monkeypatch.setattr(generator, "write_shards", lambda *_: None)
    with pytest.raises(UserError, match="2 of 2 shards were drawn elsewhere: give an --out that all machines share"):
        generator.generate_captcha_data(GeneratorConfig(**values))


def test_a_machine_that_is_no_debian_is_told_of_its_own_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(font_packages.shutil, "which", lambda name: None)
    assert font_packages.installed_packages() is None
    told = font_packages.check_packages()
    assert "has no dpkg to ask" in told and "--fonts" in told and str(font_packages.RECIPE) in told
