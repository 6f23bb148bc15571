"""Reproduce the tables of benchmarks/*.md.

    python benchmarks/run.py                        # all of them, one after another
    python benchmarks/run.py captcha_v2 generate    # some of them

Every table stands between two marker lines of its file and is written there with the commands, the date, the machine,
n and the seed. Leave the machine alone meanwhile: two heavy jobs at once spoil each other's times. A training whose
run folder is complete is not repeated; delete its folder below data/generated/benchmarks to measure it anew.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the scripts live one folder up

from common import available_cores, run, write_text  # noqa: E402
from config import ModelConfig  # noqa: E402

WORK = Path("data/generated/benchmarks")
REAL = os.environ.get("CAPTCHA_DATA", "../shared/data")
SEEDS = (0, 1, 2)
ROUNDS = 5  # of timings
MILLION = int(os.environ.get("CAPTCHA_ROWS", "1000000"))  # rows of the largest dataset; fewer to try the script out
LEPTURE = "captcha==0.7.1"
CAPTCHA_V2_ALPHABET = "2345678bcdefgmnpwxy"


def command(*arguments: object) -> tuple[float, float, str]:
    """Run a script of ours from the repository root.

    Returns:
        Seconds, the peak memory in MiB of its largest process, and what it printed.
    """
    words = [sys.executable, *map(str, arguments)]
    print("$ python " + shlex.join(words[1:]), flush=True)
    started = time.perf_counter()
    with (ROOT / WORK / "output.log").open("w+b") as log:
        process = subprocess.Popen(words, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        peak = _watch(process)
        seconds = time.perf_counter() - started
        log.seek(0)
        output = log.read().decode(errors="replace")
    if process.returncode:
        raise SystemExit(f"failed with exit code {process.returncode}:\n{output[-2000:]}")
    return seconds, peak, output


def _watch(process: subprocess.Popen[bytes]) -> float:
    """Wait for a process; the largest sum of resident memory, in MiB, of it and its children (Linux)."""
    peak = 0
    while process.poll() is None:
        peak = max(peak, sum(_resident(pid) for pid in _family(process.pid)))
        time.sleep(0.05)
    return peak / 2**20


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(grandchild for child in children for grandchild in _family(int(child)))]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def machine() -> str:
    """Processor, cores and the date, for the line above a table."""
    cpu = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return f"{cpu}, {available_cores()} cores, {datetime.date.today().isoformat()}"


def write_section(file: str, name: str, text: str) -> None:
    """Put `text` between the marker lines of `name` in benchmarks/`file`."""
    path = ROOT / "benchmarks" / file
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    whole = path.read_text(encoding="utf-8")
    before, rest = whole.split(start, 1)
    after = rest.split(end, 1)[1]
    write_text(path, f"{before}{start}\n{text.strip()}\n{end}{after}")


def table(head: list[str], rows: list[list[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def fenced(commands: list[str]) -> str:
    """Commands as a code block."""
    return "```bash\n" + "\n".join(commands) + "\n```"


# --------------------------------------------------------------------------------------------------------------------
# The four models on captcha_v2


def train(out: Path, arguments: str) -> tuple[str, float]:
    """Train unless the run is complete.

    Returns:
        The command, and the seconds its epochs took (validation and start-up not counted).
    """
    line = f"main.py {arguments} --cpu --out {out}"
    if not (ROOT / out / "done").exists():
        command(*shlex.split(line))
        write_text(ROOT / out / "done", "")
    history = json.loads((ROOT / out / "history.json").read_text())
    return "python " + line, sum(row["seconds"] for row in history)


def milliseconds(checkpoint: Path, data: Path, runs: int = 200) -> float:
    """Median time of one picture, file bytes to text, one thread, ONNX Runtime."""
    from accuracy_calculator import load_labelled
    from predict import CaptchaPredictor

    onnx = checkpoint.with_suffix(".onnx")
    command("export_model.py", "--checkpoint", checkpoint, "--out", onnx, "--data", data)
    predictor = CaptchaPredictor(ROOT / onnx, threads=1)
    images, _, _ = load_labelled(str(ROOT / data), limit=runs)
    times = []
    for image in images:
        started = time.perf_counter()
        predictor.predict([image])
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times[10:])


def captcha_v2() -> None:
    """Sequence accuracy, CER, minutes, weights, file size and time per picture of the four models."""
    from model import build_model, count_parameters, read_metadata

    data = WORK / "captcha_v2-70-30"
    line = WORK / "line"
    command("make_dataset.py", f"{REAL}/captcha_v2", "--out", data, "--split", "70/0/30", "--seed", 0)
    command(
        "captcha_generator.py",
        *("--count", 10000, "--style", "line", "--alphabet", CAPTCHA_V2_ALPHABET, "--length", 5, "--out", line),
    )
    commands = [
        f"python make_dataset.py {REAL}/captcha_v2 --out {data} --split 70/0/30 --seed 0",
        f"python captcha_generator.py --count 10000 --style line --alphabet {CAPTCHA_V2_ALPHABET} --length 5 "
        f"--out {line}",
    ]
    size = '--image_size "[32, 128]"'
    pretrain = f"--config configs/pretrain.yaml --data {line} --evaluate false {size}"
    finetune = f"--config configs/finetune.yaml --data {data} --epochs 15 --mix_synthetic 0"
    recipes: dict[str, list[tuple[str, str]]] = {
        "crnn": [("crnn", f"--model crnn --data {data} --init scratch --epochs 25 --batch_size 32")],
        "efficientnet": [
            ("efficientnet-line", f"--model efficientnet {pretrain} --threads 1"),
            (
                "efficientnet",
                f"--model efficientnet {finetune} {size} --init {WORK}/efficientnet-line/best.safetensors",
            ),
        ],
        "resnet": [
            ("resnet-line", f"--model resnet {pretrain}"),
            ("resnet", f"--model resnet {finetune} {size} --init {WORK}/resnet-line/best.safetensors"),
        ],
        "lacc": [
            ("lacc-line", f"--model lacc {pretrain} --init {WORK}/efficientnet-line/best.safetensors"),
            ("lacc", f"--model lacc {finetune} {size} --init {WORK}/lacc-line/best.safetensors"),
        ],
    }
    rows: list[list[object]] = []
    for name, stages in recipes.items():
        minutes = []
        for folder, arguments in stages:
            shown, seconds = train(WORK / folder, arguments)
            commands.append(shown)
            minutes.append(f"{seconds / 60:.1f}")
        report = json.loads((ROOT / WORK / name / "metrics.json").read_text())
        checkpoint = WORK / name / "best.safetensors"
        weights = count_parameters(build_model(ModelConfig.from_json(read_metadata(ROOT / checkpoint)["model"])))
        low, high = report["wilson_95"]
        rows.append(
            [
                name,
                f"{report['sequence_accuracy']:.2%} ({low:.1%} to {high:.1%})",
                f"{report['cer']:.2%}",
                " + ".join(minutes),
                f"{weights / 1e6:.2f} M",
                f"{(ROOT / checkpoint).stat().st_size / 2**20:.1f} MiB",
                f"{milliseconds(checkpoint, data):.1f}",
            ]
        )
    head = [
        "model", "sequence accuracy (95 % interval)", "CER", "minutes (pretraining + training)", "weights", "file",
        "ms per picture",
    ]  # fmt: skip
    write_section(
        "pipeline.md",
        "captcha_v2",
        f"n = 312 test pictures (728 train), seed 0. {machine()}.\n\n{table(head, rows)}\n\n{fenced(commands)}",
    )


# --------------------------------------------------------------------------------------------------------------------
# Generating and merging


def generate() -> None:
    """Pictures per second and core of the generator, for each style, and of lepture's library."""
    from captcha_styles import MIXED, SCHEMES, STYLES

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
    rows: list[list[object]] = []
    for name, values in rates.items():
        middle = statistics.median(values)
        style = STYLES.get(name)
        size = "varies" if style is None or style.width is None else _size(style.width, style.height)
        label = f"lepture's `{LEPTURE}`" if name == LEPTURE else name
        size = "160x60" if name == LEPTURE else size
        rows.append([label, size, round(middle), f"{min(values):.0f} to {max(values):.0f}", f"{middle / peer:.1f}"])
    commands = [
        "python captcha_generator.py --count 4000 --style STYLE --length 4-6 --seed SEED --workers 1 --out FOLDER",
        "python captcha_generator.py --count 1 --style STYLE --length 4-6 --seed SEED --workers 1 --out FOLDER",
        f"pip install {LEPTURE}",
        "python benchmarks/draw_lepture.py 4000 FILE.parquet",
        "python benchmarks/draw_lepture.py 1 FILE.parquet",
    ]
    head = ["style", "width x height", "pictures per second and core (median)", "range", "times lepture's"]
    write_section(
        "pipeline.md",
        "generate",
        f"Difference of two commands, so that the start of the process does not count; n = 4,000 pictures of 4 to 6 of "
        f"62 characters, PNG and parquet included, seeds 0, 1 and 2. {machine()}.\n\n{table(head, rows)}\n\n"
        f"{fenced(commands)}",
    )


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
        ("merge into one file", 1_000_000, f"make_dataset.py {out} --merge --out {WORK}/million.parquet"),
        ("check and split", 100_000, f"make_dataset.py {shards} --limit 100000 --out {WORK}/checked"),
    ]
    rows: list[list[object]] = []
    for what, count, line in steps:
        seconds, peak, _ = command(*shlex.split(line))
        rows.append([what, f"{count:,}", f"{seconds:.0f}", f"{count / seconds:,.0f}", f"{peak:.0f}"])
    size = sum(path.stat().st_size for path in (ROOT / out).glob("*.parquet"))
    head = ["step", "rows (n)", "seconds", "rows per second", "peak memory, all processes (MiB)"]
    write_section(
        "pipeline.md",
        "merge",
        f"The million rows take {size / 2**30:.1f} GiB: ten shards, which are links to two generated ones. Seed 0. "
        f"{machine()}.\n\n{table(head, rows)}\n\n"
        + fenced([f"python {line}" for line in (generated, *(line for _, _, line in steps))]),
    )


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

    from make_dataset import SCHEMA

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
        return f"make_dataset.py {folders[rows]} --check {check} --out {out}"

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
    table_rows: list[list[object]] = []
    for (rows, check), values in found.items():
        seconds, peaks, bases = zip(*values, strict=True)
        ratios = [second / base for second, base in zip(seconds, bases, strict=True)]
        table_rows.append(
            [
                check,
                f"{rows:,}",
                f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
                f"{rows / statistics.median(seconds):,.0f}",
                f"{statistics.median(peaks):.0f} ({min(peaks):.0f} to {max(peaks):.0f})",
                f"{statistics.median(bases):.1f} ({min(bases):.1f} to {max(bases):.1f})",
                f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
            ]
        )
    head = ["--check", "rows (n)", "seconds", "rows per second", "peak memory, all processes (MiB)"]
    head += ["cp and SHA-256, seconds", "times that"]
    commands = [f"python {words}" for words in (*made, *(line(*run) for run in runs))]
    write_section(
        "pipeline.md",
        "dataset",
        f"Medians of 3 rounds and their range, start of the process included; seed 0. The {MILLION:,} rows take "
        f"{size / 2**30:.1f} GiB: {count:,} generated PNGs of {size / MILLION:,.0f} bytes on average, ten times, each "
        "time with another tEXt chunk, so that no two files have the same bytes. Beside it `cp -r` of the same shards "
        f"and then `hashlib.file_digest(file, 'sha256')` of each, one after another. {machine()}.\n\n"
        f"{table(head, table_rows)}\n\n{fenced(commands)}",
    )


# --------------------------------------------------------------------------------------------------------------------
# Accuracy of what ships, without labels and after a few

DDDDOCR = "ddddocr==1.6.1"
FONTS = "data/generated/fonts"  # made by benchmarks/select_fonts.py


def lepture(out: Path, count: int) -> str:
    """Draw captchas with lepture's library into a parquet file. It cannot be seeded: every call draws others.

    Returns:
        The command.
    """
    line = f"benchmarks/draw_lepture.py {count} {out}"
    if not (ROOT / out).exists():
        command(*shlex.split(line))
    return f"python {line}"


def measure(data: Path | str, checkpoint: str = "saved_models/reader.onnx", split: str = "all") -> tuple[str, dict]:
    """The report of `accuracy_calculator.py` on some pictures, and the command."""
    report = WORK / "report.json"
    line = f"accuracy_calculator.py --checkpoint {checkpoint} --data {data} --split {split} --threads 1"
    command(*shlex.split(line), "--json", report)
    return f"python {line}", json.loads((ROOT / report).read_text())


def percent(values: list[float]) -> str:
    """Mean, and the range where there are several values."""
    mean = f"{statistics.mean(values):.2%}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.2%} to {max(values):.2%})"


def accuracy_row(what: str, reports: list[dict]) -> list[object]:
    """A row of the tables of accuracy.md."""
    return [
        what,
        f"{reports[0]['n']:,}",
        percent([r["sequence_accuracy"] for r in reports]),
        percent([r["sequence_accuracy_ignore_case"] for r in reports]),
        percent([r["cer"] for r in reports]),
    ]


ACCURACY_HEAD = ["measured on", "test pictures (n)", "sequence accuracy", "ignoring case", "CER"]


def peer_python(name: str, package: str) -> Path:
    """The interpreter of an environment that has another reader; made if need be."""
    python = ROOT / WORK / "peers" / name / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    return python


def as_files(data: Path | str, limit: int | None = None) -> Path:
    """Labelled pictures as files, for readers that know no parquet: a table of file and text."""
    from accuracy_calculator import load_labelled

    folder = ROOT / WORK / "peers" / "pictures"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    images, texts, _ = load_labelled(str(data), split="all", limit=limit)
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "text"])
        for i, (image, text) in enumerate(zip(images, texts, strict=True)):
            (folder / f"{i}.png").write_bytes(image)
            writer.writerow([folder / f"{i}.png", text])
    return folder / "data.csv"


def read_with(python: Path | str, reader: str, pictures: Path, cores: str = "") -> dict:
    """What `read_with.py` reports, on all cores or on those named."""
    words = [str(python), str(ROOT / "benchmarks" / "read_with.py"), reader, str(pictures)]
    if cores:
        words = ["taskset", "-c", cores, *words]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def unseen() -> None:
    """The shipped reader on captchas of which it has seen no label, beside ddddocr."""
    commands = [f"pip install {LEPTURE}", lepture(WORK / "lepture-1000.parquet", 1000)]
    heldout = (
        f"captcha_generator.py --count 2000 --style heldout --length 3-10 --seed 99 --fonts {FONTS} "
        f"--out {WORK}/heldout"
    )
    command(*shlex.split(heldout))
    commands.append(f"python {heldout}")
    sets = {
        "`captcha_v2`": f"{REAL}/captcha_v2",
        "`generic_upper`": f"{REAL}/generic_upper",
        "`generic_lower`": f"{REAL}/generic_lower",
        "lepture's `captcha` 0.7.1, 4 to 6 characters of 62": WORK / "lepture-1000.parquet",
        "held-out schemes": WORK / "heldout",
    }
    rows = []
    for what, data in sets.items():
        shown, report = measure(data)
        commands.append(shown)
        shutil.copy(ROOT / WORK / "report.json", ROOT / WORK / f"unseen-{Path(data).stem}.json")  # for ship.py
        peer = read_with(peer_python("ddddocr", DDDDOCR), "ddddocr", as_files(data))
        rows.append([*accuracy_row(what, [report]), f"{peer['sequence_accuracy_ignore_case']:.2%}"])
    text = f"{machine()}.\n\n{table([*ACCURACY_HEAD, 'ddddocr 1.6.1 ignoring case'], rows)}\n\n{fenced(commands)}"
    write_section("accuracy.md", "unseen", text)


def few_labels() -> None:
    """The shipped reader after fine-tuning on some labels, with three seeds of split and training."""
    v2, upper, lower = (f"{REAL}/{name}" for name in ("captcha_v2", "generic_upper", "generic_lower"))
    drawn, fresh = WORK / "lepture-5000.parquet", WORK / "lepture-2000.parquet"
    commands = [f"pip install {LEPTURE}", lepture(drawn, 5000), lepture(fresh, 2000)]
    settings: list[tuple[str, Path | str, str, str | None]] = [  # what, source, split, other data for the test
        ("`captcha_v2`, 728 labels", v2, "728/0/312", None),
        ("`captcha_v2`, 550 labels (and 90 unused)", v2, "550/90/400", None),
        ("`captcha_v2`, 100 labels", v2, "100/0/940", None),
        ("`generic_upper`, 300 labels", upper, "300/0/3700", None),
        ("`generic_lower`, 300 labels", lower, "300/0/3700", None),
        ("lepture's `captcha`, 5,000 labels", drawn, "100/0/0", str(fresh)),
    ]
    rows = []
    for what, source, split, test in settings:
        reports, seconds = [], []
        for seed in SEEDS:
            name = f"{Path(source).stem}-{split.replace('/', '-')}-{seed}"
            data, out = WORK / name, WORK / f"{name}-run"
            made = f"make_dataset.py {source} --out {data} --split {split} --seed {seed}"
            if not (ROOT / data).exists():
                command(*shlex.split(made))
            arguments = f"--config configs/finetune.yaml --data {data} --seed {seed} --folds 0 --evaluate false"
            trained, took = train(out, arguments)
            shown, report = measure(test or data, f"{out}/best.safetensors", "all" if test else "test")
            reports.append(report)
            seconds.append(took)
            if seed == SEEDS[0]:
                commands += [f"python {made}", trained, shown]
        rows.append([*accuracy_row(what, reports), f"{statistics.mean(seconds):.0f}"])
    write_section(
        "accuracy.md",
        "few_labels",
        f"Means of seeds 0, 1 and 2, each with its own split, and their range. {machine()}.\n\n"
        f"{table([*ACCURACY_HEAD, 'seconds of training'], rows)}\n\n"
        f"The commands for seed 0; the others differ in the seed.\n\n{fenced(commands)}",
    )


# --------------------------------------------------------------------------------------------------------------------
# Speed of reading


def reading() -> None:
    """Time of one picture, of many, and from the start of a process, beside ddddocr on the same pictures."""
    readers = {
        "`saved_models/reader.onnx`": (sys.executable, "saved_models/reader.onnx"),
        "ddddocr 1.6.1": (peer_python("ddddocr", DDDDOCR), "ddddocr"),
    }
    pictures = as_files(f"{REAL}/captcha_v2", 500)
    picture = str(pictures.parent / "0.png")
    once = "import ddddocr, sys; print(ddddocr.DdddOcr(show_ad=False).classification(open(sys.argv[1], 'rb').read()))"
    first = {
        "ddddocr": ["-c", once],
        "saved_models/reader.onnx": ["predict.py", "--checkpoint", "saved_models/reader.onnx"],
    }
    found: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, (python, reader) in readers.items():  # in turn, so that a slow minute of the machine meets both
            one = read_with(python, reader, pictures, cores="0")
            many = read_with(python, reader, pictures)
            started = time.perf_counter()
            subprocess.run([python, *first[reader], picture], check=True, capture_output=True, cwd=ROOT)
            start = time.perf_counter() - started
            found[name].append(
                (one["median_ms"], many["images_per_second"], start, one["sequence_accuracy_ignore_case"])
            )
    rows = []
    for name, values in found.items():
        ms, per_second, start, accuracy = zip(*values, strict=True)
        rows.append(
            [
                name,
                f"{statistics.median(ms):.2f} ({min(ms):.2f} to {max(ms):.2f})",
                f"{statistics.median(per_second):.0f} ({min(per_second):.0f} to {max(per_second):.0f})",
                f"{statistics.median(start):.2f} ({min(start):.2f} to {max(start):.2f})",
                f"{accuracy[0]:.2%}",
            ]
        )
    head = ["reader", "ms, one picture, one core", "pictures a second, all cores", "s, new process", "ignoring case"]
    text = (
        f"Medians of {ROUNDS} rounds and their range; 500 pictures of `captcha_v2`. {machine()}.\n\n"
        f"{table(head, rows)}\n\n{fenced(['python benchmarks/run.py reading'])}"
    )
    write_section("speed.md", "reading", text)


# --------------------------------------------------------------------------------------------------------------------
# The route under load


def serving() -> None:
    """The REST route under load, beside a plain-torch server that reads one request at a time."""
    from load import report

    said, _ = report()
    write_section("serving.md", "serving", f"{said}\n\n{fenced(['python benchmarks/load.py'])}")


SECTIONS: dict[str, Callable[[], None]] = {
    "captcha_v2": captcha_v2,
    "generate": generate,
    "merge": merge,
    "dataset": dataset,
    "unseen": unseen,
    "few_labels": few_labels,
    "serving": serving,
    "reading": reading,
}


def main() -> int:
    """Command line."""
    names = sys.argv[1:] or list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(f"error: no table {unknown[0]!r}: choose from {', '.join(SECTIONS)}", file=sys.stderr)
        return 1
    (ROOT / WORK).mkdir(parents=True, exist_ok=True)
    os.chdir(ROOT)
    for name in names:
        SECTIONS[name]()
    return 0


if __name__ == "__main__":
    run(main)
