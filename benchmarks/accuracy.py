"""Tables of accuracy: the four models on one set, and the shipped reader without labels and after a few."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from results import Table, record, spread
from tables import (
    CAPTCHA_V2_ALPHABET,
    DDDDOCR,
    LEPTURE,
    ROOT,
    SEEDS,
    WORK,
    as_files,
    command,
    held_out,
    lepture,
    measure,
    peer_python,
    read_with,
    real,
    split_set,
    train,
    weights,
)

from captcha_reader.config import ModelConfig

SHOWN = 12  # suspicious labels

# --------------------------------------------------------------------------------------------------------------------
# The four models on captcha_v2


def milliseconds(checkpoint: Path, data: Path, runs: int = 200) -> float:
    """Median time of one picture, file bytes to text, one thread, ONNX Runtime."""
    from accuracy_calculator import load_labeled
    from predict import CaptchaPredictor

    onnx = checkpoint.with_suffix(".onnx")
    command("export_model.py", "--checkpoint", checkpoint, "--out", onnx, "--data", data)
    predictor = CaptchaPredictor(ROOT / onnx, threads=1)
    images, _, _ = load_labeled(str(ROOT / data), limit=runs)
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
    command("make_dataset.py", real("captcha_v2"), "--out", data, "--split", "70/0/30", "--seed", 0)
    command(
        "captcha_generator.py",
        *("--count", 10000, "--style", "line", "--alphabet", CAPTCHA_V2_ALPHABET, "--length", 5, "--out", line),
    )
    commands = [
        f"python make_dataset.py {real('captcha_v2')} --out {data} --split 70/0/30 --seed 0",
        f"python captcha_generator.py --count 10000 --style line --alphabet {CAPTCHA_V2_ALPHABET} --length 5 "
        f"--out {line}",
    ]
    size = '--image_size "[32, 128]"'
    pretrain = f"--config configs/pretrain.yaml --data {line} --evaluate false {size}"
    finetune = (
        f"--config configs/finetune.yaml --data {data} --frozen_epochs 2 --epochs 15 --batch_size 32 "
        "--learning_rate 0.001 --schedule onecycle --average 0 --dropout 0.1 --mix_synthetic 0"
    )
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
    rows = []
    for name, stages in recipes.items():
        minutes = []
        for folder, arguments in stages:
            shown, seconds, _ = train(WORK / folder, arguments)
            commands.append(shown)
            minutes.append(seconds / 60)
        report = json.loads((ROOT / WORK / name / "metrics.json").read_text())
        checkpoint = WORK / name / "best.safetensors"
        size = (ROOT / checkpoint).stat().st_size / 2**20
        count = count_parameters(build_model(ModelConfig.from_json(read_metadata(ROOT / checkpoint)["model"])))
        accuracy = [report["sequence_accuracy"], report["wilson_95"], report["cer"]]
        before = minutes[0] if len(minutes) == 2 else None
        rows.append([name, *accuracy, before, minutes[-1], count / 1e6, size, milliseconds(checkpoint, data)])
    columns = {
        "model": "",
        "sequence accuracy": ".2%",
        "95 % interval": ".1%",
        "CER": ".2%",
        "minutes of pretraining": ".1f",
        "minutes of training": ".1f",
        "weights (millions)": ".2f",
        "file (MiB)": ".1f",
        "ms a picture": ".1f",
    }
    record("captcha_v2", "n = 312 test pictures (728 train), seed 0.", Table(columns, rows), commands=commands)


# --------------------------------------------------------------------------------------------------------------------
# Accuracy of what ships, without labels and after a few


ACCURACY = {
    "measured on": "",
    "test pictures (n)": ",",
    "sequence accuracy": ".2%",
    "ignoring case": ".2%",
    "CER": ".2%",
}
SEEDED = "Means of seeds 0, 1 and 2, each with its own split, and their range."


def accuracy_row(what: str, reports: list[dict]) -> list:
    """A row of the columns of `ACCURACY`: of one report, or of one for each seed."""
    keys = ("sequence_accuracy", "sequence_accuracy_ignore_case", "cer")
    values = [[report[key] for report in reports] for key in keys]
    return [what, reports[0]["n"], *(spread(v) if len(v) > 1 else v[0] for v in values)]


def unseen() -> None:
    """The shipped reader on captchas of which it has seen no label, beside ddddocr."""
    commands, measured = _measure_unseen("unseen", "saved_models/reader.onnx")
    rows = []
    for what, (data, report) in measured.items():
        peer = read_with(peer_python("ddddocr", DDDDOCR), "ddddocr", as_files(data))
        rows.append([*accuracy_row(what, [report]), peer["sequence_accuracy_ignore_case"]])
    about = "Sequence accuracy; no picture or label of these sets was in the training."
    table = Table(ACCURACY | {"ddddocr 1.6.1 ignoring case": ".2%"}, rows)
    record("unseen", about, table, weights=weights(), commands=commands)


def efficientnet() -> None:
    """The shipped EfficientNet on the same captchas."""
    checkpoint = "saved_models/efficientnet.safetensors"
    commands, measured = _measure_unseen("efficientnet", checkpoint)
    rows = [accuracy_row(what, [report]) for what, (_, report) in measured.items()]
    copy = ROOT / WORK / "efficientnet-shipped.safetensors"  # its ONNX file is not to stand among the shipped ones
    shutil.copy(ROOT / checkpoint, copy)
    median = milliseconds(copy, WORK / "heldout")
    about = (
        f"A held-out scheme's picture takes {median:.1f} ms with ONNX Runtime on one thread (median of 190, all views "
        "included)."
    )
    record("efficientnet", about, Table(ACCURACY, rows), weights=weights("efficientnet"), commands=commands)


def _measure_unseen(name: str, checkpoint: str) -> tuple[list[str], dict[str, tuple[Path | str, dict]]]:
    """Measure on captchas that nothing shipped has seen; the reports stay as NAME-SET.json for ship.py.

    Returns:
        The commands, and for each set what it is, where, and the report.
    """
    commands = [f"pip install {LEPTURE}", lepture(WORK / "lepture-1000.parquet", 1000)]
    schemes, drawn = held_out()
    sets = {
        "`captcha_v2`": real("captcha_v2"),
        "`generic_upper`": real("generic_upper"),
        "`generic_lower`": real("generic_lower"),
        "lepture's `captcha` 0.7.1, 4 to 6 characters of 62": WORK / "lepture-1000.parquet",
        **schemes,
    }
    commands += drawn
    measured = {}
    for what, data in sets.items():
        shown, report = measure(data, checkpoint)
        commands.append(shown)
        shutil.copy(ROOT / WORK / "report.json", ROOT / WORK / f"{name}-{Path(data).stem}.json")
        measured[what] = (data, report)
    return commands, measured


class Setting(NamedTuple):
    """A row of the tables after fine-tuning."""

    what: str
    source: Path | str
    split: str
    test: Path | None = None  # other data to test on
    folds: bool = False  # measured with the parts that choose how far to go from the shipped weights
    preset: str = "finetune"
    flags: str = ""  # further settings of the training
    views: int | None = None  # of a picture, where not as many as the predictor takes
    alike: bool = False  # its font draws 0 and O alike: reported also with the two counted as one


def few_labels() -> None:
    """The shipped reader after fine-tuning on some labels, with three seeds of split and training."""
    v2, upper, lower = (real(name) for name in ("captcha_v2", "generic_upper", "generic_lower"))
    settings: list[Setting] = [
        Setting("`captcha_v2`, 728 labels", v2, "728/0/312"),
        Setting("`captcha_v2`, 550 labels (and 90 to choose the epoch by)", v2, "550/90/400"),
        Setting("`captcha_v2`, 100 labels", v2, "100/0/940"),
        Setting("`generic_upper`, 300 labels", upper, "300/0/3700", folds=True, alike=True),
        Setting("`generic_lower`, 300 labels", lower, "300/0/3700", folds=True, alike=True),
    ]
    drawn, fresh = WORK / "lepture-5000.parquet", WORK / "lepture-2000.parquet"
    commands = [f"pip install {LEPTURE}", lepture(drawn, 5000), lepture(fresh, 2000)]
    settings += [
        Setting("lepture's `captcha`, 50 labels", drawn, "50/0/4950", fresh),
        Setting("lepture's `captcha`, 300 labels", drawn, "300/0/4700", fresh, folds=True),
    ]
    _tuned("few_labels", settings, commands)


class Unlabeled(NamedTuple):
    """A row of the table of pictures without labels."""

    what: str
    source: Path | str
    split: str
    pool: str  # the split whose pictures are read for labels
    test: Path | None = None  # other data to test on
    labeled: bool = False  # the training split has labels: they are learned first, and again with the sure readings


def no_labels() -> None:
    """Pictures of one kind read together, and what training on the sure readings of others brings."""
    drawn, fresh = WORK / "lepture-5000.parquet", WORK / "lepture-2000.parquet"
    settings: list[Unlabeled] = [
        Unlabeled("`captcha_v2`, 520 pictures", real("captcha_v2"), "520/0/520", "train"),
        Unlabeled("lepture's `captcha`, 1,000 pictures", drawn, "1000/0/4000", "train", fresh),
        Unlabeled("lepture's `captcha`, 50 labels and 1,000 pictures", drawn, "50/0/4950", "test", fresh, True),
    ]
    commands = [f"pip install {LEPTURE}", lepture(drawn, 5000), lepture(fresh, 2000)]
    tune = "--config configs/finetune.yaml"
    rows = []
    for setting in settings:
        measured: list[list[dict]] = [[], [], []]  # alone, together, and together after training
        seconds, shares = [], []
        for seed in SEEDS:
            name = f"{Path(setting.source).stem}-{setting.split.replace('/', '-')}-{seed}"
            data, out, sure = WORK / name, WORK / f"{name}-sure-run", WORK / f"{name}-sure.parquet"
            test, split = setting.test or data, "all" if setting.test else "test"
            lines = [split_set(setting.source, data, setting.split, seed)]
            start, sources = "saved_models/reader.onnx", str(sure)
            if setting.labeled:
                run = WORK / f"{name}-run"
                trained, _, _ = train(run, f"{tune} --data {data} --seed {seed} --folds 0 --evaluate false")
                lines.append(trained)
                start, sources = f"{run}/best.safetensors", f"""'["{data}/train-00000-of-00001.parquet", "{sure}"]'"""
            for reports, flags in zip(measured, ("", " --same_source"), strict=False):
                shown, report = measure(test, start, split, flags)
                lines.append(shown)
                reports.append(report)
            pictures = as_files(data, 1000, setting.pool).parent.relative_to(ROOT)
            reading = f"predict.py --checkpoint {start} --same_source --labels {sure} {pictures} --threads 1"
            command(*shlex.split(reading))
            shares.append(_right(ROOT / sure, ROOT / pictures / "data.csv"))
            shutil.rmtree(ROOT / out, ignore_errors=True)  # its command says nothing of the readings it learns from
            trained, took, _ = train(out, f"{tune} --folds 0 --data {sources} --seed {seed} --evaluate false")
            seconds.append(took)
            shown, report = measure(test, f"{out}/best.safetensors", split, " --same_source")
            measured[2].append(report)
            if seed == SEEDS[0]:
                commands += [*lines, f"python {reading}", trained, shown]
        kept, right = (statistics.mean(values) for values in zip(*shares, strict=True))
        accuracies = [spread([r["sequence_accuracy_ignore_case"] for r in reports]) for reports in measured]
        sure = f"{kept:.0f}, {right:.0%} right"
        rows.append([setting.what, measured[0][0]["n"], *accuracies, sure, statistics.mean(seconds)])
    columns = {
        "pictures without labels": "",
        "test pictures (n)": ",",
        "alone": ".2%",
        "read together": ".2%",
        "after training on its readings": ".2%",
        "confident readings": "",
        "s of training": ".0f",
    }
    about = f"Sequence accuracy ignoring case. {SEEDED}"
    record("no_labels", about, Table(columns, rows), weights=weights(), commands=commands)


def _right(labels: Path, truth: Path) -> tuple[int, float]:
    """How many pictures `predict.py --labels` kept, and the part of them that it read right, ignoring case."""
    import pyarrow.parquet as pq

    with truth.open(newline="", encoding="utf-8") as file:
        texts = {Path(row["file"]).name: row["text"].lower() for row in csv.DictReader(file)}
    rows = pq.read_table(labels).to_pylist()
    return len(rows), sum(texts[row["image"]["path"]] == row["text"].lower() for row in rows) / len(rows)


def many_labels() -> None:
    """The same with captchas of lepture's library, which can be drawn without end.

    All seeds are measured on the same pictures: with 2,000 chance alone would move their mean by a point.
    """
    drawn, fresh = WORK / "lepture-5000.parquet", WORK / "lepture-10000.parquet"
    commands = [f"pip install {LEPTURE}", lepture(drawn, 5000), lepture(fresh, 10000)]
    flags = " --mixed_precision bf16 --threads 1"  # for the time that bf16 saves with AMX or AVX512-BF16
    what = "lepture's `captcha`, 5,000 labels"
    settings = [Setting(what, drawn, "100/0/0", fresh, preset="many_labels", flags=flags, views=1, alike=True)]
    _tuned("many_labels", settings, commands)


def _tuned(section: str, settings: list[Setting], commands: list[str]) -> None:
    rows = []
    for setting in settings:
        reports, seconds, whole, alike = [], [], [], []
        for seed in SEEDS:
            name = f"{Path(setting.source).stem}-{setting.split.replace('/', '-')}-{seed}"
            data, out = WORK / name, WORK / f"{name}-run"
            made = split_set(setting.source, data, setting.split, seed)
            labeled = data / "train-00000-of-00001.parquet" if setting.folds else data
            rest = setting.flags if setting.folds else f"{setting.flags} --folds 0 --evaluate false"
            preset = f"--config configs/{setting.preset}.yaml"
            trained, took, in_all = train(out, f"{preset} --data {labeled} --seed {seed}{rest}")
            tested, part = (setting.test, "all") if setting.test else (data, "test")
            flags = f" --tta_views {setting.views}" if setting.views else ""
            flags += " --alike 0O" if setting.alike else ""
            shown, report = measure(tested, f"{out}/best.safetensors", part, flags)
            reports.append(report)
            seconds.append(took)
            whole.append(in_all)
            if setting.alike:
                alike.append(report["alike"]["sequence_accuracy_ignore_case"])
            if seed == SEEDS[0]:
                commands += [made, trained, shown]
        times = [statistics.mean(values) for values in (seconds, whole)]
        rows.append([*accuracy_row(setting.what, reports), *times, spread(alike) if alike else None])
    columns = ACCURACY | {"s of training": ".0f", "s of the command": ".0f", "ignoring case, 0 and O as one": ".2%"}
    record(section, SEEDED, Table(columns, rows), weights=weights(), commands=commands)


def label_errors() -> None:
    """The labels of captcha_v2 that are most likely wrong, by cross-validation."""
    found = WORK / "label_errors.csv"
    pictures = found.with_suffix("")
    line = f"accuracy_calculator.py --find_label_errors --data {real('captcha_v2')} --csv {found} --plots {pictures}"
    seconds, _, _ = command(*shlex.split(line))
    with (ROOT / found).open(newline="", encoding="utf-8") as file:
        suspects = [row for row in csv.DictReader(file) if row["reason"] or row["label"] != row["reading"]][:SHOWN]
    rows = [[Path(s["file"]).name, s["label"], s["reading"], float(s["score"])] for s in suspects]
    about = f"n = 1,040, in 5 parts, seed 0, {seconds:.0f} s."
    table = Table({"file": "", "label": "", "reading": "", "score": ".2f"}, rows)
    record("label_errors", about, table, weights=weights(), commands=[f"python {line}"])
