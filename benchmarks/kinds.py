"""The shipped reader on dozens of kinds of captchas, each by a drawer of its own, without labels and after 50."""

from __future__ import annotations

import io
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tables import (
    DDDDOCR,
    ROOT,
    WORK,
    as_files,
    fenced,
    machine,
    peer_python,
    read_with,
    right_ignoring_case,
    table,
    train,
    weights,
    write_section,
)

PICTURES = 100  # of each kind, to measure with
LABELS = 50  # to learn from
TAUGHT = 8  # of the kinds that may be looked at, one in so many is learned, in their names' order


def draw_kind(name: str, folder: Path) -> tuple[Path, Path]:
    """Draw a kind of `drawers.DRAWERS` into two parquet files below the repository: to measure with, to learn from."""
    from drawers import DRAWERS

    rng = random.Random(name)
    rows = []
    for i in range(PICTURES + LABELS):
        text, picture = DRAWERS[name](rng)
        packed = io.BytesIO()
        picture.save(packed, "PNG")
        rows.append({"image": {"bytes": packed.getvalue(), "path": f"{i}.png"}, "text": text})
    files = folder / f"{name}.parquet", folder / f"{name}-labels.parquet"
    (ROOT / folder).mkdir(parents=True, exist_ok=True)
    for file, part in zip(files, (rows[:PICTURES], rows[PICTURES:]), strict=True):
        pq.write_table(pa.Table.from_pylist(part), ROOT / file)
    return files


def _mean(shares: Sequence[float | None]) -> float | None:
    """None where not all of them were measured."""
    return None if None in shares else statistics.mean(shares)


def kinds() -> None:
    """Every kind of `drawers.DRAWERS` as the reader knows it, beside ddddocr, and some of them after 50 labels."""
    from drawers import DRAWERS, HARD, PLAIN, UNSEEN

    from accuracy_calculator import load_labelled
    from predict import CaptchaPredictor

    def right(predictor: CaptchaPredictor, data: Path) -> float:
        images, texts, _ = load_labelled(str(ROOT / data))
        return right_ignoring_case(predictor.predict(images), texts)

    shipped = CaptchaPredictor(ROOT / "saved_models" / "reader.onnx", threads=1)
    read, trained = {}, ""
    learned = sorted(set(DRAWERS) - UNSEEN)[::TAUGHT]
    for name in sorted(DRAWERS):
        data, labels = draw_kind(name, WORK / "kinds")
        peer = read_with(peer_python("ddddocr", DDDDOCR), "ddddocr", as_files(data))["sequence_accuracy_ignore_case"]
        taught = None
        if name in learned:
            out = WORK / "kinds" / f"{name}-run"
            flags = f"--config configs/finetune.yaml --folds 0 --data {labels} --seed 0 --evaluate false --threads 1"
            trained, _, _ = train(out, flags)
            taught = right(CaptchaPredictor(ROOT / out / "best.safetensors", threads=1), data)
        read[name] = (right(shipped, data), peer, taught)
        if name not in UNSEEN:
            print(name, *read[name], sep="  ", flush=True)
    groups = {
        f"the {len(PLAIN)} plain ones": PLAIN,
        f"the {len(HARD)} hard ones": HARD,
        f"the {len(UNSEEN)} of these that were never looked at": UNSEEN,
        f"the {len(learned)} that were learned": learned,
    }
    means = [
        (f"**mean of {what}**", *(_mean(column) for column in zip(*(read[name] for name in names), strict=True)))
        for what, names in groups.items()
    ]
    rows = [(name.replace("_", " "), *shares) for name, shares in read.items() if name not in UNSEEN]
    shown = [
        [what, *("" if share is None else f"{share:.1%}" for share in shares)]
        for what, *shares in means + sorted(rows, key=lambda row: -row[1])
    ]
    head = ["kind", "reader", "ddddocr 1.6.1", f"reader after {LABELS} labels"]
    about = f"Sequence accuracy ignoring case, n = {PICTURES} of each kind, seed 0. {machine()}, {weights()}."
    commands = ["python benchmarks/run.py kinds  # draws them, and runs for one in eight:", trained]
    write_section("accuracy.md", "kinds", f"{about}\n\n{table(head, shown)}\n\n{fenced(commands)}")
