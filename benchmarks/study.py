"""Which network the reader should be: candidates trained alike from random weights, and timed.

    python benchmarks/study.py train large even-48 --pictures 300000    # hours; a run that was stopped goes on
    python benchmarks/study.py measure saved_models/reader.safetensors      # weights that are trained already
    python benchmarks/study.py time                                     # minutes: reading, one core, ONNX Runtime
    python benchmarks/study.py speed                                    # minutes: training, one core
    python benchmarks/study.py table                                    # study.md, from study.jsonl

Every candidate (study_networks.py) is the recipe (configs/reader.yaml) with another network: the same fresh captchas in
the same order, the same schedule, one core. Each measurement is a line of study.jsonl. Accuracy is measured on
development sets alone: the real captchas of `real/` in CAPTCHA_DATA, held-out schemes, and the test generators that may
be looked at; with one view and with the default number of views. On a loaded machine the accuracies hold, the times do
not: compare these within one line's `round`.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the scripts live one folder up

import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import torch
import yaml
from generators import GENERATORS, UNSEEN
from results import markdown
from study_networks import CANDIDATES
from tables import REAL, ROOT, WORK, machine

from captcha_reader.cli import run
from captcha_reader.config import ALPHANUMERIC, ModelConfig, TrainConfig
from captcha_reader.dataset.stream import open_stream
from captcha_reader.errors import UserError
from captcha_reader.generator.render import GENERATOR_VERSION
from captcha_reader.text import Alphabet
from captcha_reader.transforms import size_at
from export_model import export_onnx
from main import train_model
from model import CaptchaModel, build_model, count_parameters, save_checkpoint
from predict import CaptchaPredictor

LINES = ROOT / "benchmarks" / "study.jsonl"
PAGE = ROOT / "benchmarks" / "study.md"
RECIPE = ROOT / "configs" / "reader.yaml"
REAL_PICTURES = 100  # of each set
HELD_OUT = 500
DRAWN = 6  # pictures of each test generator
WIDTHS = (128, 176, 256)  # columns, at 32 rows, of the pictures that reading is timed on
BATCH = 32  # pictures of one width that training is timed on

GROUPS = ("real", "held-out schemes", "test generators")

Labeled = tuple[list[bytes], list[str]]


def settings(name: str, **changes: Any) -> TrainConfig:
    """The recipe with a candidate's network.

    Raises:
        UserError: there is no such candidate.
    """
    if name not in CANDIDATES:
        raise UserError(f"there is no candidate {name!r}: choose from {', '.join(CANDIDATES)}")
    values = yaml.safe_load(RECIPE.read_text(encoding="utf-8")) | {
        "other_height": None,
        "other_height_from": 0.0,
        "height": 32,
    }
    return TrainConfig(**values | CANDIDATES[name][1] | changes)


def network(name: str) -> CaptchaModel:
    """A candidate with random weights, as the recipe would build it."""
    config = settings(name)
    size = size_at(config.height or 32, (32, 128))
    alphabet = Alphabet.parse(ALPHANUMERIC).characters
    torch.manual_seed(0)
    return build_model(
        ModelConfig(
            "mixer",
            alphabet,
            10,
            size,
            channels=3,
            resize="natural",
            normalize=True,
            head="mixer",
            backbone=str(config.backbone),
            hidden=int(config.hidden or 0),
            dropout=0,
        )
    )


def log(kind: str, **row: Any) -> None:
    """Add a line to the results, and show it."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"kind": kind, "time": now, "machine": machine(), **row})
    print(line, flush=True)
    with LINES.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


# --------------------------------------------------------------------------------------------------------------------
# Accuracy


def development_sets(config: TrainConfig) -> dict[str, dict[str, Labeled]]:
    """Group -> set -> encoded pictures and texts."""
    folder = REAL / "real" if (REAL / "real").is_dir() else REAL
    real = {}
    for path in sorted(folder.glob("*.parquet")):
        rows = pq.read_table(path, filters=[("split", "=", "test")]).slice(0, REAL_PICTURES).to_pylist()
        real[path.stem] = [row["image"]["bytes"] for row in rows], [row["text"] for row in rows]
    if not real:
        raise UserError(f"there are no real captchas in {folder}: name the folder by CAPTCHA_DATA")
    held_out = open_stream(config).draw_splits()["validation"]
    drawn = {name: _drawn(name) for name in sorted(set(GENERATORS) - UNSEEN)}
    heldout = {"heldout": (held_out[0][:HELD_OUT], held_out[1][:HELD_OUT])}
    return dict(zip(GROUPS, (real, heldout, drawn), strict=True))


def _drawn(name: str) -> Labeled:
    rng = random.Random(f"study/{name}")
    images, texts = [], []
    for _ in range(DRAWN):
        text, picture = GENERATORS[name](rng)
        packed = io.BytesIO()
        picture.save(packed, "PNG")
        images.append(packed.getvalue())
        texts.append(text)
    return images, texts


def accuracy(predictor: CaptchaPredictor, sets: dict[str, Labeled]) -> dict[str, float]:
    """Sequence accuracy ignoring case of each set."""
    found = {}
    for name, (images, texts) in sets.items():
        readings = [prediction.text for prediction in predictor.predict(images)]
        found[name] = mean(a.lower() == b.lower() for a, b in zip(readings, texts, strict=True))
    return found


def measured(checkpoint: Path, groups: dict[str, dict[str, Labeled]]) -> dict[str, Any]:
    """What weights read of the development sets, in one view and in as many as are usual."""
    row: dict[str, Any] = {}
    for views in (1, None):
        limits = {"tta_views": views} if views else {}
        predictor = CaptchaPredictor(checkpoint, device="cpu", threads=1, **limits)
        found = {group: accuracy(predictor, sets) for group, sets in groups.items()}
        label = f"{views or 'default'} view{'s' if views != 1 else ''}"
        row[label] = {group: round(mean(by_set.values()), 4) for group, by_set in found.items()}
        row[f"real, {label}"] = {name: round(share, 3) for name, share in found["real"].items()}
    return row


def measure(paths: Sequence[str]) -> None:
    """Measure weights that are trained already."""
    groups = development_sets(settings("today", seed=99))
    for path in paths:
        digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:8]
        name = f"{Path(path).stem} {digest}"
        log("measure", name=name, generator=GENERATOR_VERSION, **measured(Path(path), groups))


def train(name: str, pictures: int, seed: int) -> None:
    """Train a candidate and measure it."""
    out = ROOT / WORK / "study" / f"{name}-{pictures}-{seed}"
    config = settings(name, pictures=pictures, seed=seed, out=str(out), evaluate=False, cpu=True, threads=1, workers=1)
    config = replace(config, resume=(out / "state.pt").exists())
    history = train_model(config)["history"]
    groups = development_sets(replace(config, seed=99))
    log(
        "train",
        name=name,
        pictures=pictures,
        seed=seed,
        loss=round(history[-1]["train_loss"], 4),
        held_out_loss=round(history[-1]["validation"]["loss"], 4),
        hours=round(sum(epoch["seconds"] for epoch in history) / 3600, 3),
        generator=GENERATOR_VERSION,
        **measured(out / "best.safetensors", groups),
    )


# --------------------------------------------------------------------------------------------------------------------
# Time


def operations(model: CaptchaModel, images: torch.Tensor) -> float:
    """Million multiplications and additions of a forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(images)
    return counter.get_total_flops() / 1e6


def fastest(work: dict[str, Callable[[], Any]], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each piece of work, the fastest of `repeats` in each of `rounds`, one after the other, so that
    what else the machine does meets all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for number in range(rounds + 1):  # the first one warms up
        for name, step in work.items():
            best = float("inf")
            for _ in range(repeats):
                started = time.perf_counter()
                step()
                best = min(best, time.perf_counter() - started)
            if number:
                times[name].append(1000 * best)
    return times


def time_reading(names: Sequence[str], rounds: int) -> None:
    """A picture at a time on one core in ONNX Runtime, the network alone, at several widths."""
    sessions, facts = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            model = network(name)
            rows = model.config.image_size[0]
            images = torch.zeros(1, 3, rows, model.config.image_size[1], dtype=torch.uint8)
            path = save_checkpoint(model, Path(folder) / f"{name}.safetensors")
            onnx = export_onnx(path, path.with_suffix(".onnx"))
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            sessions[name] = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
            size = round(onnx.stat().st_size / 1e6, 2)
            facts[name] = {
                "rows": rows,
                "million_operations": round(operations(model, images), 1),
                "weights": count_parameters(model),
                "onnx_mb": size,
            }
    work = {}
    for name, session in sessions.items():
        rows = facts[name]["rows"]
        for width in WIDTHS:
            pixels = np.random.default_rng(0).integers(0, 256, (1, 3, rows, width * rows // 32), dtype=np.uint8)
            work[f"{name}/{width}"] = lambda session=session, pixels=pixels: session.run(None, {"images": pixels})
    times = fastest(work, rounds, 15)
    for name in names:
        log(
            "reading", name=name, **facts[name], ms={width: round(min(times[f"{name}/{width}"]), 3) for width in WIDTHS}
        )


def time_training(names: Sequence[str], rounds: int) -> None:
    """Pictures a second of training on one core, in bf16 and float32: forward, loss and backward of one part."""
    torch.set_num_threads(1)
    work = {}
    for name in names:
        model = network(name).to(memory_format=torch.channels_last).train()
        rows = model.config.image_size[0]
        images = torch.randint(0, 256, (BATCH, 3, rows, 176 * rows // 32), dtype=torch.uint8)
        for dtype in (torch.bfloat16, torch.float32):
            work[f"{name}/{dtype}"] = lambda m=model, x=images, d=dtype: _step(m, x, d)
    times = fastest(work, rounds, 2)
    for name in names:
        speeds = {dtype: BATCH / min(times[f"{name}/{dtype}"]) * 1000 for dtype in (torch.bfloat16, torch.float32)}
        log("training", name=name, pictures_a_second={str(dtype)[6:]: round(v, 1) for dtype, v in speeds.items()})


def _step(model: CaptchaModel, images: torch.Tensor, dtype: torch.dtype) -> None:
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits = model(images)
    model.losses(logits, ["abcdef"] * len(images)).mean().backward()


# --------------------------------------------------------------------------------------------------------------------
# The page


def latest(lines: Iterable[dict[str, Any]], kind: str, *keys: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """The last line of a kind for each combination of `keys`."""
    return {tuple(line[key] for key in keys): line for line in lines if line["kind"] == kind}


def render(lines: Sequence[dict[str, Any]]) -> str:
    """The page, from all lines."""
    reading, training = latest(lines, "reading", "name"), latest(lines, "training", "name")
    head = ["network", "what", "million operations", "weights", "ONNX, MB", *(f"ms, {w} columns" for w in WIDTHS)]
    head += ["pictures a second, bf16", "float32"]
    rows: list[list[object]] = []
    for (name,), line in reading.items():
        speed = training.get((name,), {}).get("pictures_a_second", {})
        times = [f"{line['ms'][str(width)]:.2f}" for width in WIDTHS]
        rows.append(
            [
                f"`{name}`",
                CANDIDATES[name][0] if name in CANDIDATES else "",
                f"{line['million_operations']:.0f}",
                f"{line['weights']:,}",
                line["onnx_mb"],
                *times,
                *(f"{speed[key]:.0f}" if key in speed else "" for key in ("bfloat16", "float32")),
            ]
        )
    parts = [
        "# The network study",
        "",
        "Written by `python benchmarks/study.py table` from [study.jsonl](study.jsonl), which has a line for each "
        "measurement with its time, machine, seed and number of pictures. The candidates are in "
        "[study_networks.py](study_networks.py).",
        "",
        "## Times",
        "",
        "Reading: one picture at a time on one core, ONNX Runtime, the network alone, the fastest of several rounds in "
        "which the candidates take turns; columns are those of an input of 32 rows. Training: forward, loss and "
        "backward of 32 pictures of 176 columns on one core.",
        "",
        markdown(head, rows) if rows else "Not measured yet.",
    ]
    if pilots := latest(lines, "pilot", "name"):
        parts += ["", "## First times", "", PILOT, "", markdown(PILOT_HEAD, [_pilot(line) for line in pilots.values()])]
    figures = [(views, group) for views in ("1 view", "default views") for group in GROUPS]
    heads = [f"{group}, {views}" for views, group in figures]
    trained = latest(lines, "train", "name", "pictures", "seed", "generator")
    for count, version in sorted({(key[1], key[3]) for key in trained}):
        found = {key: line for key, line in trained.items() if (key[1], key[3]) == (count, version)}
        rows = [
            [f"`{name}`", seed, f"{line['loss']:.3f}", f"{line['held_out_loss']:.3f}"]
            + [f"{line[views][group]:.1%}" for views, group in figures]
            for (name, _, seed, _), line in found.items()
        ]
        title = f"## After {count:,} pictures of generator {version}"
        parts += [
            "",
            title,
            "",
            _about(found),
            "",
            markdown(["network", "seed", "loss", "held-out loss", *heads], rows),
        ]
    if done := latest(lines, "measure", "name", "generator"):
        rows = [
            [name, version, *(f"{line[views][group]:.1%}" for views, group in figures)]
            for (name, version), line in done.items()
        ]
        parts += [
            "",
            "## Weights trained already",
            "",
            markdown(["weights", "held-out schemes of generator", *heads], rows),
        ]
    return "\n".join(parts) + "\n"


PILOT = (
    "Taken beside other jobs (load of 3 on two cores) with networks built alike before this script existed, fixed to "
    "32 rows: what the candidates were chosen by. Training: 32 pictures of 176 columns in bf16 (AMX), `channels_last`."
)
PILOT_HEAD = [
    "network",
    "million operations",
    "weights",
    "ms, 128 columns",
    "ms, 208 columns",
    "pictures a second, bf16",
]


def _pilot(line: dict[str, Any]) -> list[object]:
    speed = line["pictures_a_second"]["bfloat16"]
    times = [f"{ms:.2f}" for ms in line["ms"].values()]
    return [line["name"], line["million_operations"], f"{line['weights']:,}", *times, "" if speed is None else speed]


def _about(found: dict[tuple[Any, ...], dict[str, Any]]) -> str:
    hours = median(line["hours"] for line in found.values())
    return (
        f"Sequence accuracy ignoring case: mean of the real sets ({REAL_PICTURES} pictures of each at most), "
        f"{HELD_OUT} held-out schemes, mean of the test generators that may be looked at ({DRAWN} pictures of each). "
        "Development sets all: figures to choose by. "
        f"{hours:.1f} hours a run (median)."
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Which network the reader should be.")
    parser.add_argument("task", choices=("train", "measure", "time", "speed", "table"))
    parser.add_argument("names", nargs="*", help="candidates, all by default; of `measure` checkpoints")
    parser.add_argument("--pictures", type=int, default=300_000, help="to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5, help="of timings")
    arguments = parser.parse_args()
    if arguments.task == "measure":
        measure(arguments.names)
        return 0
    names = arguments.names or list(CANDIDATES)
    for name in names:
        settings(name)
    if arguments.task == "train":
        for name in names:
            train(name, arguments.pictures, arguments.seed)
    elif arguments.task == "time":
        time_reading(names, arguments.rounds)
    elif arguments.task == "speed":
        time_training(names, arguments.rounds)
    else:
        text = LINES.read_text(encoding="utf-8") if LINES.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        PAGE.write_text(render(lines), encoding="utf-8")
        print(f"{PAGE} drawn from {len(lines)} lines ({platform.node() and machine()})")
    return 0


if __name__ == "__main__":
    run(main)
