"""Tables of speed: drawing, merging, reading, training, serving."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tables import (
    CAPTCHA_V2_ALPHABET,
    DDDDOCR,
    LEPTURE,
    REAL,
    ROOT,
    ROUNDS,
    SEEDS,
    WORK,
    as_files,
    command,
    fenced,
    machine,
    measure,
    peer_python,
    read_with,
    split_set,
    table,
    train,
    weights,
    write_section,
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


MERGE = "python benchmarks/run.py merge  # makes the links, and runs:"


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
        + fenced([MERGE, *(f"python {line}" for line in (generated, *(line for _, _, line in steps)))]),
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
        f"{table(head, table_rows)}\n\n"
        + fenced(["python benchmarks/run.py dataset  # makes the copies, and runs:", *commands]),
    )


MILLION = int(os.environ.get("CAPTCHA_ROWS", "1000000"))  # rows of the largest dataset; fewer to try the script out


# --------------------------------------------------------------------------------------------------------------------
# Speed of reading


def reading() -> None:
    """Time of one picture, of many, and from the start of a process, beside ddddocr on the same pictures."""
    shipped, taught = "saved_models/reader.onnx", WORK / "captcha_v2-100-0-940-0.onnx"
    labelled = WORK / "captcha_v2-100-0-940-0"
    commands = [split_set(f"{REAL}/captcha_v2", labelled, "100/0/940", 0)]
    preset = f"--config configs/finetune.yaml --data {labelled} --seed 0 --folds 0 --evaluate false"
    commands.append(train(Path(f"{labelled}-run"), preset)[0])
    exported = f"export_model.py --checkpoint {labelled}-run/best.safetensors --out {taught}"
    command(*shlex.split(exported))
    ours = {"shipped": shipped, "shipped, `--looks 1`": f"{shipped} 1"}
    peer = "ddddocr 1.6.1"
    sets = {  # pictures, and the readers of ours
        "`captcha_v2`": (as_files(labelled, COUNT, "test"), ours | {"after 100 labels": str(taught)}),
        "`generic_upper`": (as_files(f"{REAL}/generic_upper", COUNT), ours),
        "held-out schemes": (as_files(WORK / "heldout", COUNT), ours),
    }
    other = str(peer_python("ddddocr", DDDDOCR))
    once = "import ddddocr, sys; print(ddddocr.DdddOcr(show_ad=False).classification(open(sys.argv[1], 'rb').read()))"
    picture = str(sets["`captcha_v2`"][0].parent / "0.png")
    begin = {
        "shipped": [sys.executable, "predict.py", "--checkpoint", shipped, picture],
        peer: [other, "-c", once, picture],
    }
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    starts: dict[str, list[float]] = {name: [] for name in begin}
    for _ in range(ROUNDS):
        for name, words in begin.items():  # in turn, so that a slow minute of the machine meets both
            started = time.perf_counter()
            subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
            starts[name].append(time.perf_counter() - started)
        for what, (pictures, readers) in sets.items():
            for name, reader in (readers | {peer: "ddddocr"}).items():
                python = other if name == peer else sys.executable
                one = read_with(python, reader, pictures, one_core=True)
                many = read_with(python, reader, pictures)
                measured = one["median_ms"], many["images_per_second"], one["sequence_accuracy_ignore_case"]
                found.setdefault((what, name), []).append(measured)
    rows: list[list[object]] = []
    for (what, name), values in found.items():
        ms, per_second, accuracies = zip(*values, strict=True)
        peers = found[what, peer]
        faster = [theirs[0] / mine[0] for theirs, mine in zip(peers, values, strict=True)]
        more = [mine[1] / theirs[1] for theirs, mine in zip(peers, values, strict=True)]
        rows.append([what, name, _middle(ms, 2), _middle(faster, 1), _middle(per_second), _middle(more, 1)])
        rows[-1].append(f"{accuracies[0]:.2%}")
    head = [
        f"{COUNT} pictures of",
        "reader",
        "ms, one picture, one core",
        "times as fast",
        "pictures a second, all cores",
    ]
    head += ["times as many", "ignoring case"]
    begun = table(["reader", "s, new process"], [[name, _middle(values, 2)] for name, values in starts.items()])
    text = (
        f"Medians of {ROUNDS} rounds and their range. {machine()}, {weights()}.\n\n"
        f"{table(head, rows)}\n\n{begun}\n\n"
        + fenced(["python benchmarks/run.py unseen reading  # takes turns, and runs:", *commands, f"python {exported}"])
    )
    write_section("speed.md", "reading", text)


COUNT = 400  # pictures of each set


def _middle(values: Sequence[float], digits: int = 0) -> str:
    """The median, and the range."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


# --------------------------------------------------------------------------------------------------------------------
# The route under load


def serving() -> None:
    """The REST route under load, beside a plain-torch server that reads one request at a time."""
    from load import report

    said, _ = report()
    write_section("serving.md", "serving", f"{said}\n\n{fenced(['python benchmarks/load.py'])}")


# --------------------------------------------------------------------------------------------------------------------
# What the hardware allows


@contextmanager
def one_core() -> Iterator[None]:
    """This process on the first core alone."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def fastest(work: Callable[[], object], seconds: float = 3.0) -> float:
    """The shortest of the times that `work` takes within so many seconds."""
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def hardware() -> None:
    """Operations of the shipped reader for a picture, and which share of a core's peak they reach."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from model import load_model
    from predict import CaptchaPredictor

    with one_core():
        torch.set_num_threads(1)
        square = torch.randn(1024, 1024)
        peak = 2 * 1024**3 / fastest(lambda: square @ square)
        model = load_model(ROOT / "saved_models/reader.safetensors").eval()
        shape = (model.config.channels, *model.config.image_size)
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model(torch.zeros(1, *shape, dtype=torch.uint8))
        operations = counter.get_total_flops()
        predictor = CaptchaPredictor(ROOT / "saved_models/reader.onnx", threads=1)
        rows: list[list[object]] = [
            ["matrix product, 1024x1024", f"{2 * 1024**3 / 1e6:,.0f}", "", f"{peak / 1e9:.1f}", ""]
        ]
        for batch in (1, 32):
            pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
            rate = operations * batch / (seconds := fastest(lambda pixels=pixels: predictor.log_probs(pixels)))
            name = f"`saved_models/reader.onnx`, {batch} at a time"
            ms = f"{1000 * seconds / batch:.2f}"
            rows.append([name, f"{operations / 1e6:,.1f}", ms, f"{rate / 1e9:.1f}", f"{rate / peak:.0%}"])
    head = ["", "million operations", "ms for a picture", "billion a second", "share of the peak"]
    write_section(
        "speed.md",
        "hardware",
        "Multiplications and additions of the network alone, without preparing the picture; the fastest time within "
        f"three seconds, on one core, against a float32 matrix product there. {machine()}.\n\n{table(head, rows)}\n\n"
        f"{fenced(['python benchmarks/run.py hardware'])}",
    )


def precision() -> None:
    """The shipped reader in 32 bits and in 8: speed and accuracy."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from accuracy_calculator import load_labelled
    from predict import CaptchaPredictor

    folder = WORK / "precision"
    (ROOT / folder).mkdir(exist_ok=True)
    line = f"captcha_generator.py --count 300 --style schemes --length 3-10 --seed 7 --out {folder}/calibration"
    command(*shlex.split(line))
    reader = CaptchaPredictor(ROOT / "saved_models/reader.onnx", threads=1)
    images, _, _ = load_labelled(str(folder / "calibration"), split="all")

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"images": reader.preprocess_image(image)[None]}

    prepared, eight = ROOT / folder / "prepared.onnx", ROOT / folder / "reader-int8.onnx"
    quant_pre_process(str(ROOT / "saved_models/reader.onnx"), str(prepared))
    quantize_static(
        str(prepared),
        str(eight),
        Pictures(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
    )
    pictures = as_files(f"{REAL}/captcha_v2", 500)
    rows = []
    for name, path in (
        ("float32", "saved_models/reader.onnx"),
        ("int8, calibrated on 300 schemes", folder / eight.name),
    ):
        timed = [read_with(sys.executable, str(path), pictures, one_core=True) for _ in range(ROUNDS)]
        ms = [report["median_ms"] for report in timed]
        accuracy = [measure(data, str(path))[1]["sequence_accuracy_ignore_case"] for data in _PRECISION_SETS]
        size = (ROOT / path).stat().st_size / 2**20
        rows.append(
            [
                name,
                f"{size:.1f} MiB",
                _middle(ms, 2),
                *(f"{value:.2%}" for value in accuracy),
            ]
        )
    head = ["weights and arithmetic", "file", "ms, one picture, one core", "`captcha_v2`", "held-out schemes"]
    write_section(
        "speed.md",
        "precision",
        f"Accuracy ignoring case, without labels; n = 1,040 and 2,000. Medians of {ROUNDS} rounds. {machine()}.\n\n"
        f"{table(head, rows)}\n\n{fenced(['python benchmarks/run.py unseen precision'])}",
    )


_PRECISION_SETS = (f"{REAL}/captcha_v2", WORK / "heldout")


# --------------------------------------------------------------------------------------------------------------------
# Training


def learning() -> None:
    """Seconds of training until the shipped reader, which never saw the set, reads 98 % of it."""
    commands, rows = [], []
    settings = [
        (f"the shipped reader, {epochs} epochs", f"--config configs/sprint.yaml --epochs {epochs}")
        for epochs in (1, 2, 3, 4)
    ] + [("`crnn` from random weights, 25 epochs", "--model crnn --init scratch --epochs 25 --batch_size 32")]
    for what, words in settings:
        seconds, accuracy = [], []
        for seed in SEEDS:
            data = WORK / f"captcha_v2-728-0-312-{seed}"
            made = split_set(f"{REAL}/captcha_v2", data, "728/0/312", seed)
            out = WORK / f"learning-{what.split()[-2]}-{seed}"
            trained, took, _ = train(out, f"{words} --data {data} --seed {seed} --evaluate false")
            shown, report = measure(data, f"{out}/best.safetensors", "test")
            seconds.append(took)
            accuracy.append(report["sequence_accuracy"])
            if seed == SEEDS[0]:
                commands += [made] * (not rows) + [trained, shown]
        rows.append(
            [
                what,
                f"{statistics.mean(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})",
                f"{statistics.mean(accuracy):.2%} ({min(accuracy):.2%} to {max(accuracy):.2%})",
            ]
        )
    write_section(
        "speed.md",
        "learning",
        "728 labels of `captcha_v2`, 312 pictures to test on; means of seeds 0, 1 and 2, each with its own split, and "
        f"their range. {machine()}.\n\n{table(['start', 'seconds of training', 'sequence accuracy'], rows)}\n\n"
        f"The commands for seed 0.\n\n{fenced(commands)}",
    )


def training() -> None:
    """Pictures a second in training, and the share of its time that it waits for pictures."""
    commands, rows = [], []
    data = WORK / "captcha_v2-728-0-312-0"
    commands.append(split_set(f"{REAL}/captcha_v2", data, "728/0/312", 0))
    for workers in (0, 1, 2):
        out = WORK / f"training-{workers}"
        shutil.rmtree(ROOT / out, ignore_errors=True)  # timings are taken anew
        words = f"--data {data} --epochs 6 --frozen_epochs 0 --seed 0 --evaluate false --workers {workers}"
        shown, _, _ = train(out, words)
        commands.append(shown)
        first, *others = json.loads((ROOT / out / "history.json").read_text())
        later = sum(row["seconds"] for row in others), sum(row["waited"] for row in others)
        rows.append(
            [
                workers,
                f"{704 / first['seconds']:.0f}",
                f"{first['waited'] / first['seconds']:.1%}",
                f"{704 * len(others) / later[0]:.0f}",
                f"{later[1] / later[0]:.1%}",
            ]
        )
    head = ["`--workers`", "first epoch: pictures a second", "waiting", "later epochs: pictures a second", "waiting"]
    write_section(
        "speed.md",
        "training",
        "The shipped reader on `captcha_v2`, 11 batches of 64 pictures an epoch. In the first epoch pictures are "
        f"decoded and scaled; after that they are only augmented. {machine()}.\n\n{table(head, rows)}\n\n"
        f"{fenced(commands)}",
    )


def growth() -> None:
    """Accuracy, time and memory of training on 1,000, 10,000 and 100,000 pictures."""
    from matplotlib.figure import Figure

    kind = f"--style line --alphabet {CAPTCHA_V2_ALPHABET} --length 5"
    test = WORK / "growth-test"
    lines = [f"captcha_generator.py --count 2000 {kind} --seed 1 --out {test}"]
    command(*shlex.split(lines[0]))
    rows: list[list[object]] = []
    found: list[tuple[int, float, float, float]] = []
    for count in (1_000, 10_000, 100_000):
        data, out = WORK / f"growth-{count}", WORK / f"growth-{count}-run"
        shutil.rmtree(ROOT / out, ignore_errors=True)
        drawn = f"captcha_generator.py --count {count} {kind} --seed 0 --out {data}"
        made = f"make_dataset.py {data} --split 100/0/0 --check bytes --out {data}-split"
        trained = (
            f"main.py --data {data}-split --init scratch --epochs 1 --batch_size 32 --seed 0 --cpu "
            f"--evaluate false --out {out}"
        )
        command(*shlex.split(drawn))
        command(*shlex.split(made))
        seconds, peak, _ = command(*shlex.split(trained))
        history = json.loads((ROOT / out / "history.json").read_text())
        shown, report = measure(test, f"{out}/best.safetensors")
        lines += [drawn, made, trained, shown.removeprefix("python ")]
        accuracy, epoch = report["sequence_accuracy"], history[0]["seconds"]
        found.append((count, accuracy, epoch, peak))
        row = [f"{count:,}", f"{accuracy:.2%}", f"{report['cer']:.2%}", f"{epoch:.0f}"]
        rows.append([*row, f"{count / epoch:.0f}", f"{seconds:.0f}", f"{peak:.0f}"])
    head = [
        "pictures (n)", "sequence accuracy", "CER", "seconds of training", "pictures a second",
        "seconds, the whole command", "peak memory (MiB)",
    ]  # fmt: skip
    figure = Figure(figsize=(7.5, 3), layout="constrained")
    counts, *curves = zip(*found, strict=True)
    for axes, values, name in zip(
        figure.subplots(1, 3), curves, ("sequence accuracy", "seconds of training", "peak memory (MiB)"), strict=True
    ):
        axes.plot(counts, values, marker="o", color="#3b5bdb")
        axes.set(xscale="log", xlabel="pictures", title=name, yscale="log" if name.startswith("seconds") else "linear")
        axes.set_ylim(bottom=None if name.startswith("seconds") else 0)
        axes.grid(alpha=0.3)
    figure.savefig(ROOT / "benchmarks" / "growth.png", dpi=130)
    write_section(
        "speed.md",
        "growth",
        "The default model from random weights, each picture seen once, in batches of 32; style `line`, measured on "
        f"2,000 other pictures; seed 0. {machine()}.\n\n{table(head, rows)}\n\n![The table as curves](growth.png)\n\n"
        + fenced([f"python {line}" for line in lines]),
    )


# --------------------------------------------------------------------------------------------------------------------
# Many shards


def bulk() -> None:
    """Pictures a second of drawing and of reading in bulk: one process on one core, and Ray on all cores."""
    count = 20_000
    rows: list[list[object]] = []
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
        rows.append([engine, *(f"{rate:.0f}" for rate in rates[engine]), *(f"{s:.0f}" for s in seconds)])
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
    head = ["`--engine`", "drawn a second", "read a second", "seconds of drawing", "seconds of reading"]
    write_section(
        "speed.md",
        "bulk",
        f"n = {count:,} captchas of random schemes, 4 to 8 characters, in shards of 1,000; whole commands, with their "
        "start (a cluster's takes some ten seconds). `local`: one process; `ray`: a cluster of this machine. The "
        f"shards of both are the same bytes. {machine()}.\n\n{table(head, rows)}\n\n"
        f"{fenced(commands)}",
    )
    _estimate(count, *rates["local"])


def _estimate(count: int, drawn: float, read: float, many: int = 100_000_000, cores: int = 256) -> None:
    """Write into docs/scaling.md what so many pictures would take, from a core's rates of drawing and reading."""
    rows: list[list[object]] = []
    for what, rate, kind in (("drawing", drawn, ""), ("reading", read, "-readings")):
        files = (ROOT / WORK / f"bulk-local{kind}").glob("*.parquet")
        each = sum(path.stat().st_size for path in files) / count
        hours = many / rate / 3600
        size = f"{many * each / 1e9:,.0f} GB"
        rows.append([what, f"{rate:.0f}", f"{hours:,.0f}", f"{hours / cores:.1f}", f"{each:,.0f}", size])
    head = ["", "a second and core", "hours of one core", f"hours of {cores} cores", "bytes each", "on disk"]
    write_section(
        "../docs/scaling.md",
        "estimate",
        f"From the rates of one process on one core (`python benchmarks/run.py bulk`, n = {count:,} captchas of random "
        f"schemes; {machine()}):\n\n{table(head, rows)}",
    )
