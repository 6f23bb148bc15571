"""Speed of training, and how it grows with the number of pictures."""

from __future__ import annotations

import json
import shlex
import shutil

from results import Table, record, spread
from tables import (
    CAPTCHA_V2_ALPHABET,
    ROOT,
    SEEDS,
    WORK,
    command,
    measure,
    real,
    split_set,
    train,
    weights,
)

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
            made = split_set(real("captcha_v2"), data, "728/0/312", seed)
            out = WORK / f"learning-{what.split()[-2]}-{seed}"
            trained, took, _ = train(out, f"{words} --data {data} --seed {seed} --evaluate false")
            shown, report = measure(data, f"{out}/best.safetensors", "test")
            seconds.append(took)
            accuracy.append(report["sequence_accuracy"])
            if seed == SEEDS[0]:
                commands += [made] * (not rows) + [trained, shown]
        rows.append([what, spread(seconds), spread(accuracy)])
    about = (
        "728 labels of `captcha_v2`, 312 pictures to test on; means of seeds 0, 1 and 2, each with its own split, and "
        "their range."
    )
    table = Table({"start": "", "seconds of training": ".1f", "sequence accuracy": ".2%"}, rows)
    record("learning", about, table, weights=weights(), commands=commands)


def training() -> None:
    """Pictures a second in training, and the share of its time that it waits for pictures."""
    commands, rows = [], []
    data = WORK / "captcha_v2-728-0-312-0"
    commands.append(split_set(real("captcha_v2"), data, "728/0/312", 0))
    for workers in (0, 1, 2):
        out = WORK / f"training-{workers}"
        shutil.rmtree(ROOT / out, ignore_errors=True)  # timings are taken anew
        words = f"--data {data} --epochs 6 --frozen_epochs 0 --seed 0 --evaluate false --workers {workers}"
        shown, _, _ = train(out, words)
        commands.append(shown)
        first, *others = json.loads((ROOT / out / "history.json").read_text())
        later = sum(row["seconds"] for row in others), sum(row["waited"] for row in others)
        rates = [704 / first["seconds"], 704 * len(others) / later[0]]
        rows.append([workers, rates[0], first["waited"] / first["seconds"], rates[1], later[1] / later[0]])
    columns = {
        "`--workers`": "",
        "first epoch: pictures a second": ".0f",
        "first epoch: waiting": ".1%",
        "later epochs: pictures a second": ".0f",
        "later epochs: waiting": ".1%",
    }
    about = (
        "The shipped reader on `captcha_v2`, 11 batches of 64 pictures an epoch, seed 0. In the first epoch pictures "
        "are decoded and scaled; after that they are only augmented."
    )
    record("training", about, Table(columns, rows), weights=weights(), commands=commands)


def growth() -> None:
    """Accuracy, time and memory of training on 1,000, 10,000 and 100,000 pictures."""
    kind = f"--style line --alphabet {CAPTCHA_V2_ALPHABET} --length 5"
    test = WORK / "growth-test"
    lines = [f"captcha_generator.py --count 2000 {kind} --seed 1 --out {test}"]
    command(*shlex.split(lines[0]))
    rows = []
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
        epoch = history[0]["seconds"]
        rows.append([count, report["sequence_accuracy"], report["cer"], epoch, count / epoch, seconds, peak])
    columns = {
        "pictures (n)": ",",
        "sequence accuracy": ".2%",
        "CER": ".2%",
        "seconds of training": ".0f",
        "pictures a second": ".0f",
        "seconds, the whole command": ".0f",
        "peak memory (MiB)": ".0f",
    }
    about = (
        "The default model from random weights, each picture seen once, in batches of 32; style `line`, measured on "
        "2,000 other pictures; seed 0."
    )
    record("growth", about, Table(columns, rows), commands=[f"python {line}" for line in lines])
