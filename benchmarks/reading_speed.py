"""Speed of reading, and of the route under load."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from results import Table, Value, record, spread
from tables import (
    DDDDOCR,
    ROOT,
    ROUNDS,
    WORK,
    as_files,
    command,
    measure,
    peer_python,
    read_with,
    real,
    split_set,
    train,
    weights,
)

# --------------------------------------------------------------------------------------------------------------------
# Speed of reading


def reading() -> None:
    """Time of one picture, of many, and from the start of a process, beside ddddocr on the same pictures."""
    shipped, taught = "saved_models/reader.onnx", WORK / "captcha_v2-100-0-940-0.onnx"
    labeled = WORK / "captcha_v2-100-0-940-0"
    commands = [split_set(real("captcha_v2"), labeled, "100/0/940", 0)]
    preset = f"--config configs/finetune.yaml --data {labeled} --seed 0 --folds 0 --evaluate false"
    commands.append(train(Path(f"{labeled}-run"), preset)[0])
    exported = f"export_model.py --checkpoint {labeled}-run/best.safetensors --out {taught}"
    command(*shlex.split(exported))
    ours = {"shipped": shipped, "shipped, `--tta_views 1`": f"{shipped} 1"}
    peer = "ddddocr 1.6.1"
    sets = {  # pictures, and the readers of ours
        "`captcha_v2`": (as_files(labeled, COUNT, "test"), ours | {"after 100 labels": str(taught)}),
        "`generic_upper`": (as_files(real("generic_upper"), COUNT), ours),
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
    rows = []
    for (what, name), values in found.items():
        ms, per_second, accuracies = zip(*values, strict=True)
        peers = found[what, peer]
        faster = [theirs[0] / mine[0] for theirs, mine in zip(peers, values, strict=True)]
        more = [mine[1] / theirs[1] for theirs, mine in zip(peers, values, strict=True)]
        spreads = [spread(column, statistics.median) for column in (ms, faster, per_second, more)]
        rows.append([what, name, *spreads, accuracies[0]])
    columns = {
        f"{COUNT} pictures of": "",
        "reader": "",
        "ms, one picture, one core": ".2f",
        "times as fast": ".1f",
        "pictures a second, all cores": ".0f",
        "times as many": ".1f",
        "ignoring case": ".2%",
    }
    begun = [[name, spread(values, statistics.median)] for name, values in starts.items()]
    record(
        "reading",
        f"Medians of {ROUNDS} rounds and their range.",
        Table(columns, rows),
        Table({"reader": "", "s, new process": ".2f"}, begun),
        weights=weights(),
        commands=["python benchmarks/run.py unseen", *commands, f"python {exported}"],
    )


COUNT = 400  # pictures of each set


# --------------------------------------------------------------------------------------------------------------------
# The route under load


def serving() -> None:
    """The REST route under load, beside a plain-torch server that reads one request at a time."""
    from load import report

    about, columns, rows, _ = report()
    record("serving", about, Table(columns, rows), commands=["python benchmarks/load.py"])


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
        rows: list[list[Value]] = [["matrix product, 1024x1024", 2 * 1024**3 / 1e6, None, peak / 1e9, None]]
        for batch in (1, 32):
            pixels = np.random.default_rng(0).integers(0, 256, (batch, *shape), dtype=np.uint8)
            rate = operations * batch / (seconds := fastest(lambda pixels=pixels: predictor.log_probs(pixels)))
            name = f"`saved_models/reader.onnx`, {batch} at a time"
            rows.append([name, operations / 1e6, 1000 * seconds / batch, rate / 1e9, rate / peak])
    about = (
        "Multiplications and additions of the network alone, without preparing the picture; the fastest time within "
        "three seconds, on one core, against a float32 matrix product there."
    )
    columns = {
        "what": "",
        "million operations": ",.1f",
        "ms a picture": ".2f",
        "billion a second": ".1f",
        "share of the peak": ".0%",
    }
    record("hardware", about, Table(columns, rows), weights=weights())


def precision() -> None:
    """The shipped reader in 32 bits and in 8: speed and accuracy."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from accuracy_calculator import load_labeled
    from predict import CaptchaPredictor

    folder = WORK / "precision"
    (ROOT / folder).mkdir(exist_ok=True)
    line = f"captcha_generator.py --count 300 --style schemes --length 3-10 --seed 7 --out {folder}/calibration"
    command(*shlex.split(line))
    reader = CaptchaPredictor(ROOT / "saved_models/reader.onnx", threads=1)
    images, _, _ = load_labeled(str(folder / "calibration"), split="all")

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
    pictures = as_files(real("captcha_v2"), 500)
    sets = (real("captcha_v2"), WORK / "heldout")
    rows = []
    for name, path in (
        ("float32", "saved_models/reader.onnx"),
        ("int8, calibrated on 300 schemes", folder / eight.name),
    ):
        timed = [read_with(sys.executable, str(path), pictures, one_core=True) for _ in range(ROUNDS)]
        ms = [report["median_ms"] for report in timed]
        accuracy = [measure(data, str(path))[1]["sequence_accuracy_ignore_case"] for data in sets]
        size = (ROOT / path).stat().st_size / 2**20
        rows.append([name, size, spread(ms, statistics.median), *accuracy])
    columns = {
        "weights and arithmetic": "",
        "file (MiB)": ".1f",
        "ms, one picture, one core": ".2f",
        "`captcha_v2`": ".2%",
        "held-out schemes": ".2%",
    }
    about = f"Accuracy ignoring case, without labels; n = 1,040 and 2,000. Medians of {ROUNDS} rounds."
    commands = ["python benchmarks/run.py unseen precision"]
    record("precision", about, Table(columns, rows), weights=weights(), commands=commands)
