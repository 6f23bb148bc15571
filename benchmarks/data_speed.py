"""Speed of drawing, merging, checking, and of bulk work in shards."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import statistics
import subprocess
import time
import zlib
from pathlib import Path

from results import Table, Value, record, spread
from tables import (
    LEPTURE,
    ROOT,
    SEEDS,
    WORK,
    command,
)

# --------------------------------------------------------------------------------------------------------------------
# Generating and merging


def generate() -> None:
    """Pictures per second and core of the generator, for each style, and of lepture's library."""
    from captcha_reader.generator.schemes import MIXED, SCHEMES
    from captcha_reader.generator.styles import STYLES

    def draw(style: str, count: int, seed: int) -> float:
        if style == LEPTURE:
            return command("benchmarks/draw_lepture.py", count, WORK / "generate" / "lepture.parquet")[0]
        out = WORK / "generate" / f"{style}-{seed}-{count}"
        shutil.rmtree(ROOT / out, ignore_errors=True)  # pictures that are there are not drawn again
        words = f"--count {count} --style {style} --length 4-6 --seed {seed} --workers 1 --out {out}"
        return command("captcha_generator.py", *words.split())[0]

    names = [*STYLES, MIXED, SCHEMES, LEPTURE]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for seed in SEEDS:  # the styles in turn, so that a slow minute of the machine meets them all
        for name in names:
            short = draw(name, 1, seed)
            rates[name].append(3999 / (draw(name, 4000, seed) - short))
    peer = statistics.median(rates[LEPTURE])
    rows = []
    for name, values in rates.items():
        middle = statistics.median(values)
        style = STYLES.get(name)
        size = "varies" if style is None or style.width is None else _size(style.width, style.height)
        size = "160x60" if name == LEPTURE else size
        label = f"lepture's `{LEPTURE}`" if name == LEPTURE else name
        rows.append([label, size, middle, [min(values), max(values)], middle / peer])
    columns = {
        "style": "",
        "width x height": "",
        "pictures a second and core (median)": ".0f",
        "range": ".0f",
        "times lepture's": ".1f",
    }
    about = (
        "Difference of two commands, so that the start of the process does not count; n = 4,000 pictures of 4 to 6 of "
        "62 characters, PNG and parquet included, seeds 0, 1 and 2."
    )
    commands = [
        "python captcha_generator.py --count 4000 --style STYLE --length 4-6 --seed SEED --workers 1 --out FOLDER",
        "python captcha_generator.py --count 1 --style STYLE --length 4-6 --seed SEED --workers 1 --out FOLDER",
        f"pip install {LEPTURE}",
        "python benchmarks/draw_lepture.py 4000 FILE.parquet",
        "python benchmarks/draw_lepture.py 1 FILE.parquet",
    ]
    record("generate", about, Table(columns, rows), commands=commands)


def _size(width: tuple[float, float], height: tuple[float, float]) -> str:
    """Range of a style's pictures, as text."""
    return "x".join(f"{low:g}" if low == high else f"{low:g}-{high:g}" for low, high in (width, height))


def merge() -> None:
    """Rows per second and memory of merging 1,000,000 generated rows, and of checking and splitting 100,000 of them."""
    shards, out = WORK / "shards", WORK / "million"
    generated = f"captcha_generator.py --count 200000 --style clean --out {shards} --shard_size 100000"
    command(*shlex.split(generated))
    files = sorted((ROOT / shards).glob("*.parquet"))
    (ROOT / out).mkdir(exist_ok=True)
    for i in range(10):  # merging looks at no label and for no duplicate, so links serve as well as new captchas
        link = ROOT / out / f"train-{i:05d}-of-00010.parquet"
        link.unlink(missing_ok=True)
        os.link(files[i % len(files)], link)
    steps = [
        ("merge into one file", 1_000_000, f"make_dataset.py {out} --merge --overwrite --out {WORK}/million.parquet"),
        ("check and split", 100_000, f"make_dataset.py {shards} --limit 100000 --out {WORK}/checked"),
    ]
    rows = []
    for what, count, line in steps:
        seconds, peak, _ = command(*shlex.split(line))
        rows.append([what, count, seconds, count / seconds, peak])
    size = sum(path.stat().st_size for path in (ROOT / out).glob("*.parquet"))
    about = f"The million rows take {size / 2**30:.1f} GiB: ten shards, which are links to two generated ones. Seed 0."
    columns = {
        "step": "",
        "rows (n)": ",",
        "seconds": ".0f",
        "rows per second": ",.0f",
        "peak memory, all processes (MiB)": ".0f",
    }
    commands = [f"python {line}" for line in (generated, *(line for _, _, line in steps))]
    record("merge", about, Table(columns, rows), commands=commands)


def with_comment(png: bytes, number: int) -> bytes:
    """The same picture in other bytes: a tEXt chunk with `number` before the end; as it was for 0."""
    if not number:
        return png
    chunk = b"tEXtcopy\0%d" % number
    size, checksum = len(chunk) - 4, zlib.crc32(chunk)
    return png[:-12] + size.to_bytes(4, "big") + chunk + checksum.to_bytes(4, "big") + png[-12:]


def write_copies(source: Path, out: Path, copies: int) -> None:
    """Write `copies` times the rows of a folder of shards, each time in other bytes, a shard for each copy."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from captcha_reader.dataset.writer import SCHEMA

    out.mkdir(parents=True)
    for copy in range(copies):
        path = out / f"train-{copy:05d}-of-{copies:05d}.parquet"
        with pq.ParquetWriter(path, SCHEMA, compression="none", use_dictionary=False) as writer:
            for shard in sorted(source.glob("*.parquet")):
                for batch in pq.ParquetFile(shard).iter_batches(1000):
                    images = batch.column("image")
                    pngs = pa.array([with_comment(png.as_py(), copy) for png in images.field("bytes")], pa.binary())
                    struct = pa.StructArray.from_arrays([pngs, images.field("path")], ["bytes", "path"])
                    writer.write_table(pa.table({"image": struct, "text": batch.column("text")}, schema=SCHEMA))


def dataset() -> None:
    """Time and memory of checking, deduplicating and splitting, beside copying and hashing the same files."""
    drawn, copies, out = WORK / "drawn", WORK / "copies", WORK / "dataset"
    count = MILLION // 10
    folders = {count // 10: WORK / "drawn-tenth", count: drawn, MILLION: copies}
    made = [
        f"captcha_generator.py --count {rows} --style clean --length 3-4 --shard_size {rows} --out {folders[rows]}"
        for rows in (count // 10, count)
    ]
    runs = [(rows, "bytes") for rows in folders] + [(count, "pixels")]

    def line(rows: int, check: str) -> str:
        return f"make_dataset.py {folders[rows]} --check {check} --overwrite --out {out}"

    def copy_and_hash(folder: Path) -> float:
        started = time.perf_counter()
        subprocess.run(["cp", "-r", folder, out], check=True)
        for path in sorted(folder.glob("*.parquet")):
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")
        return time.perf_counter() - started

    try:
        for folder in folders.values():
            shutil.rmtree(folder, ignore_errors=True)
        for words in made:
            command(*shlex.split(words))
        write_copies(drawn, copies, 10)
        size = sum(path.stat().st_size for path in copies.iterdir())
        found: dict[tuple[int, str], list[tuple[float, float, float]]] = {run: [] for run in runs}
        for _ in range(3):
            for rows, check in runs:  # in turn with copying, so that a slow minute of the machine meets both
                shutil.rmtree(out, ignore_errors=True)
                base = copy_and_hash(folders[rows])
                shutil.rmtree(out)
                seconds, peak, _ = command(*shlex.split(line(rows, check)))
                found[rows, check].append((seconds, peak, base))
    finally:
        for folder in (*folders.values(), out):  # several GB
            shutil.rmtree(folder, ignore_errors=True)
    table_rows = []
    for (rows, check), values in found.items():
        seconds, peaks, bases = zip(*values, strict=True)
        ratios = [second / base for second, base in zip(seconds, bases, strict=True)]
        spreads = [spread(column, statistics.median) for column in (seconds, peaks, bases, ratios)]
        rate = rows / statistics.median(seconds)
        table_rows.append([check, rows, spreads[0], rate, *spreads[1:]])
    columns = {
        "--check": "",
        "rows (n)": ",",
        "seconds": ".1f",
        "rows per second": ",.0f",
        "peak memory, all processes (MiB)": ".0f",
        "cp and SHA-256, seconds": ".1f",
        "times that": ".1f",
    }
    about = (
        f"Medians of 3 rounds and their range, start of the process included; seed 0. The {MILLION:,} rows take "
        f"{size / 2**30:.1f} GiB: {count:,} generated PNGs of {size / MILLION:,.0f} bytes on average, ten times, each "
        "time with another tEXt chunk, so that no two files have the same bytes. Beside it `cp -r` of the same shards "
        "and then SHA-256 of each."
    )
    commands = [f"python {words}" for words in (*made, *(line(*run) for run in runs))]
    record("dataset", about, Table(columns, table_rows), commands=commands)


MILLION = int(os.environ.get("CAPTCHA_ROWS", "1000000"))  # rows of the largest dataset; fewer to try the script out


# --------------------------------------------------------------------------------------------------------------------
# Many shards


def bulk() -> None:
    """Pictures a second of drawing and of reading in bulk: one process on one core, and Ray on all cores."""
    count = 20_000
    rows: list[list[Value]] = []
    commands: list[str] = []
    rates: dict[str, list[float]] = {}
    for engine in ("local", "ray"):
        shards, readings = WORK / f"bulk-{engine}", WORK / f"bulk-{engine}-readings"
        for folder in (shards, readings):
            shutil.rmtree(ROOT / folder, ignore_errors=True)
        drawn = (
            f"captcha_generator.py --count {count} --style schemes --seed 5 --shard_size 1000 --engine {engine} "
            f"{'--workers 1 ' if engine == 'local' else ''}--out {shards}"
        )
        read = (
            f"predict.py --checkpoint saved_models/reader.onnx --engine {engine} "
            f"{'--threads 1 ' if engine == 'local' else ''}--out {readings} {shards}"
        )
        seconds = [command(*shlex.split(line))[0] for line in (drawn, read)]
        rates[engine] = [count / s for s in seconds]
        rows.append([engine, *rates[engine], *seconds])
        commands += [f"python {drawn}", f"python {read}"]
    for kind in ("", "-readings"):
        names = sorted(path.name for path in (ROOT / WORK / f"bulk-local{kind}").glob("*.parquet"))
        same = all(
            (ROOT / WORK / f"bulk-local{kind}" / name).read_bytes()
            == (ROOT / WORK / f"bulk-ray{kind}" / name).read_bytes()
            for name in names
        )
        if not names or not same:
            raise SystemExit(f"the shards of bulk-local{kind} and bulk-ray{kind} differ")
    heads = ["drawn a second", "read a second", "seconds of drawing", "seconds of reading"]
    about = (
        f"n = {count:,} captchas of random schemes, 4 to 8 characters, in shards of 1,000; whole commands, with their "
        "start (a cluster's takes some ten seconds). `local`: one process; `ray`: a cluster of this machine. The "
        "shards of both are the same bytes."
    )
    record("bulk", about, Table({"`--engine`": "", **dict.fromkeys(heads, ".0f")}, rows), commands=commands)
    _estimate(count, *rates["local"])


def _estimate(count: int, drawn: float, read: float, many: int = 100_000_000, cores: int = 256) -> None:
    """Write into docs/scaling.md what so many pictures would take, from a core's rates of drawing and reading."""
    rows: list[list[Value]] = []
    for what, rate, kind in (("drawing", drawn, ""), ("reading", read, "-readings")):
        files = (ROOT / WORK / f"bulk-local{kind}").glob("*.parquet")
        each = sum(path.stat().st_size for path in files) / count
        hours = many / rate / 3600
        rows.append([what, rate, hours, hours / cores, each, many * each / 1e9])
    columns = {
        "what": "",
        "a second and core": ".0f",
        "hours of one core": ",.0f",
        f"hours of {cores} cores": ".1f",
        "bytes each": ",.0f",
        "GB on disk": ",.0f",
    }
    about = f"From the rates of one process on one core, n = {count:,} captchas of random schemes."
    record("estimate", about, Table(columns, rows))
