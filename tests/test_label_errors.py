"""The search for label errors: planted ones, who saw what, scores against the sum over all paths, stops, mistakes."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import math
import os
import re
import signal
import tempfile
from collections.abc import Callable
from multiprocessing.util import get_temp_dir
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from PIL import Image

import accuracy_calculator
import finetune
import label_errors
from accuracy_calculator import wilson_interval
from captcha_reader.checkpoint import save_checkpoint
from captcha_reader.config import EvaluateConfig, TrainConfig
from captcha_reader.errors import UserError
from captcha_reader.plots import label_errors as plots
from captcha_reader.plots.canvas import figure_image
from captcha_reader.text import Alphabet, CTCCodec, SlotCodec
from captcha_reader.transforms import build_transform
from finetune import Fold
from label_errors import Row, assign_folds, collect_rows, find_label_errors, score_by_folds, score_labels
from model import build_model
from predict import CaptchaPredictor, Prediction
from trainer import Interrupted

LETTERS = {"a": (slice(1, 7), slice(0, 10)), "b": (slice(9, 15), slice(0, 10)), "c": (slice(0, 16), slice(0, 4))}
LETTERS["d"] = (slice(1, 15), slice(0, 10))
CPU = ("--device", "cpu", "--threads", 1)


def fresh() -> None:
    """accelerate keeps one state per process, and its settings must not leak from one run into the next."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A place of its own for what is kept and for what is temporary."""
    fresh()
    monkeypatch.setattr(label_errors, "ROOT", tmp_path / "project")
    (tmp_path / "temporary").mkdir()
    get_temp_dir()  # where processes meet is settled once: a socket's path in a test's own folder would be too long
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


def draw(text: str, seed: int, suffix: str = ".png") -> bytes:
    """16x48 pixels: each letter of `abcd` is a dark bar in its own place of a cell."""
    rng = np.random.default_rng(seed)
    pixels = np.full((16, 48), 230.0)
    for i, letter in enumerate(text):
        pixels[:, 16 * i + 3 : 16 * i + 13][LETTERS[letter]] = 30
    pixels += rng.normal(0, 6, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, {".png": "PNG", ".bmp": "BMP"}[suffix])
    return buffer.getvalue()


def texts(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list("abcd"), rng.integers(2, 4))) for _ in range(count)]


def put(folder: Path, labels: list[str], truths: list[str], seed: int = 0) -> Path:
    """A folder of pictures of `truths` whose file names say `labels`."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (label, truth) in enumerate(zip(labels, truths, strict=True)):
        (folder / f"{label}_{i}.png").write_bytes(draw(truth, 1000 * seed + i))
    return folder


@pytest.fixture(scope="module")
def start(tiny: Callable, settle: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny reader that has learned such pictures, none of those below; its backbone is random, for speed."""
    torch.manual_seed(0)
    model = build_model(tiny(hidden=16, dropout=0.0))
    truths = texts(160, 1)
    transform = build_transform(model.config)
    pixels = torch.from_numpy(
        np.stack([transform(Image.open(io.BytesIO(draw(text, i)))) for i, text in enumerate(truths, start=1000)])
    )
    settle(model, pixels)
    with torch.no_grad():
        features = model.backbone((pixels.float() - model.mean) / model.std)
    optimizer = torch.optim.Adam(model.head.parameters(), lr=0.01)
    for step in range(120):
        chosen = [(20 * step + i) % 160 for i in range(20)]
        loss = model.losses(model.head(features[chosen]), [truths[i] for i in chosen]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.2
    return save_checkpoint(model, tmp_path_factory.mktemp("start") / "start.safetensors")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch, reader: Path) -> list[SimpleNamespace]:
    """Folds at no cost: each fold's model is `reader`. Collects what each fold is trained on and what is read then."""
    folds: list[SimpleNamespace] = []

    def train(config: TrainConfig, fold: Fold, *rest: Any) -> Path:
        assert len(fold.validation) == 0
        images = fold.train.images
        folds.append(SimpleNamespace(config=config, seen=list(images), labels=list(fold.train.texts), read=[]))
        return reader

    class Predictor(CaptchaPredictor):
        def predict(self, images: Any, batch_size: int = 64) -> list[Prediction]:
            folds[-1].read += images
            return super().predict(images, batch_size)

    monkeypatch.setattr(finetune, "train_fold", train)
    monkeypatch.setattr(label_errors, "CaptchaPredictor", Predictor)
    return folds


def settings(data: Path, checkpoint: Path, **changes: Any) -> EvaluateConfig:
    config = EvaluateConfig(data=str(data), checkpoint=str(checkpoint), folds=3, show=2, device="cpu", threads=1)
    return dataclasses.replace(config, **changes)


# --------------------------------------------------------------------------------------------------------------------
# What it finds


def test_planted_errors_rank_on_top(
    call: Callable, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truths = texts(60, 2)
    swap = str.maketrans("abcd", "bdac")
    wrong = {5: truths[5].translate(swap), 17: truths[17][:-1] or "a", 31: "ddd", 44: truths[44][0] + "a"}
    wrong = {i: label if label != truths[i] else label + "c" for i, label in wrong.items()}
    strange = {50: "z", 51: "aaaaaaaaaaaa", 52: ""}
    labels = [(wrong | strange).get(i, truth) for i, truth in enumerate(truths)]
    data = put(tmp_path / "set", labels, truths, 2)
    (data / "broken_1.png").write_bytes(b"no picture")
    sheets = []
    real = plots.draw_label_errors
    monkeypatch.setattr(plots, "draw_label_errors", lambda *args: sheets.append(real(*args)) or sheets[-1])
    flags = ["--find-label-errors", "--data", data, "--checkpoint", start, "--folds", 2, "--epochs", 4, *CPU]
    files = ["--json", tmp_path / "r.json", "--csv", tmp_path / "r.csv", "--plots", tmp_path / "pictures"]
    code, out, err = call(accuracy_calculator, *flags, *files)
    assert code == 0, err
    report = json.loads((tmp_path / "r.json").read_text())
    rows = report["rows"]

    def number(row: dict) -> int:
        return int(Path(row["file"]).stem.split("_")[-1])

    assert sorted(number(row) for row in rows) == list(range(60))
    assert [row["rank"] for row in rows] == list(range(1, 61))
    assert {number(row) for row in rows[:3]} == strange.keys()
    reasons = {number(row): row["reason"] for row in rows}
    assert "'z'" in reasons[50] and "steps" in reasons[51] and reasons[52] == "empty label"
    assert {number(row) for row in rows[3:7]} == wrong.keys()
    assert all(row["score"] > 0 and not row["reason"] for row in rows[3:7])
    order = [(row["label"] != row["reading"], row["score"]) for row in rows[3:]]
    assert order == sorted(order, reverse=True)

    right = sum(row["reading"] == row["label"] for row in rows)
    assert sum(row["reading"] == truths[number(row)] for row in rows) >= 45, "the models can read"
    assert report["n"] == 60 and report["differing"] == 60 - right >= 7
    assert report["sequence_accuracy"] == right / 60
    assert report["wilson_95"] == pytest.approx(wilson_interval(right, 60))
    low, high = wilson_interval(right, 60)
    for part in (f"{right / 60:.2%}", f"{low:.2%} to {high:.2%}", rows[0]["file"], rows[6]["file"], rows[6]["reading"]):
        assert part in out
    assert len(report["unreadable"]) == 1 and "broken_1.png" in report["unreadable"][0] in out
    assert "fold 2/2" in err, "a progress bar"
    assert "epoch 1/" not in err and "Phase" not in out, "the trainings are quiet"

    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [line["name"] for line in table] == [row["name"] for row in rows]
    assert [line["label"] for line in table] == [row["label"] for row in rows]
    assert [line["score"] for line in table[:3]] == [""] * 3
    assert float(table[3]["score"]) == rows[3]["score"]

    assert Path(report["picture"]) == tmp_path / "pictures" / "label_errors.png"
    with Image.open(report["picture"]) as sheet:
        assert sheet.width > 300
    assert len(sheets) == 1
    assert len(sheets[0].axes[0].images) == report["suspicious"] == report["differing"]
    assert not list((tmp_path / "temporary").iterdir()), "temporary folders are removed"

    monkeypatch.setattr(finetune, "train_fold", None)  # would fail if it were called
    code, again, err = call(accuracy_calculator, *flags, "--show", 4)
    assert code == 0, err
    assert len(sheets[1].axes[0].images) == 4
    assert rows[3]["file"] in again and rows[4]["file"] not in again
    kept = list((tmp_path / "project" / "data" / "generated").iterdir())
    assert len(kept) == 1 and str(kept[0] / "label_errors.png") in again
    assert {path.name for path in kept[0].iterdir()} == {"fold-0.json", "fold-1.json", "label_errors.png"}


def test_each_picture_is_read_once_by_a_model_that_did_not_see_it(
    untrained: list, reader: Path, tmp_path: Path
) -> None:
    truths = texts(30, 3)
    data = put(tmp_path / "set", truths, truths, 3)
    for i in range(6):  # the same pixels in another file format
        (data / f"{truths[i]}_copy{i}.bmp").write_bytes(draw(truths[i], 3000 + i, ".bmp"))
    report = find_label_errors(settings(data, reader, folds=4))

    def pixels(encoded: bytes) -> bytes:
        return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")).tobytes()

    assert len(untrained) == 4
    for fold in untrained:
        assert len(fold.seen) + len({pixels(image) for image in fold.read}) == 30
        assert not {pixels(image) for image in fold.seen} & {pixels(image) for image in fold.read}
        assert fold.config.init == str(reader) and fold.config.evaluate is False
        assert 5 <= len(fold.read) <= 12
    read = [image for fold in untrained for image in fold.read]
    assert sorted(read) == sorted(path.read_bytes() for path in data.iterdir())
    assert len(report["rows"]) == 36
    by_label = {fold["fold"] for fold in report["rows"]}
    assert by_label == {1, 2, 3, 4}


def test_all_splits_of_a_dataset_take_part(untrained: list, reader: Path, dataset: Path, shards: Path) -> None:
    whole = find_label_errors(settings(dataset, reader, folds=2))
    assert whole["n"] == sum(len(fold.read) for fold in untrained) == 90
    assert {Path(row["name"]).name.split("-")[0] for row in whole["rows"]} == {"train", "validation", "test"}
    shard = next(shards.glob("*.parquet")).name
    assert {row["file"] for row in whole["rows"]} == {f"{shard} row {i}" for i in range(90)}, (
        "where make_dataset found it"
    )

    def rows(data: Path, **changes: Any) -> list[Row]:
        return collect_rows(settings(data, reader, **changes))[0]

    raw = rows(shards)
    assert sorted((row.file, row.label) for row in raw) == sorted((row["file"], row["label"]) for row in whole["rows"])
    assert len(rows(dataset, split="test")) == 15
    assert len(rows(shards, limit=20)) == 20


def test_readings_are_looked_through_and_not_measured_and_what_is_left_out_is_said(
    untrained: list, reader: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths = texts(30, 5)
    data = put(tmp_path / "set", truths, truths, 5)
    table = [f"{text}_{i}.png,{text},{'model' if i < 10 else 'person'}" for i, text in enumerate(truths)]
    (data / "labels.csv").write_text("\n".join(["file_name,text,source", *table[:25], "gone.png,ab,person"]))
    report = find_label_errors(settings(data, reader))
    assert (report["n"], report["pseudo"], len(report["rows"])) == (15, 10, 25)
    assert len(report["unreadable"]) == 6 and sum("gone.png" in left for left in report["unreadable"]) == 1
    label_errors.print_table(report, 2)
    out = capsys.readouterr().out
    assert "6 pictures were left out" in out and "10 labels are a model's" in out
    (data / "labels.csv").write_text("\n".join(["file_name,text,source", *table]).replace("person", "model"))
    with pytest.raises(UserError, match="all 30 labels are a model's"):
        find_label_errors(settings(data, reader))


def test_the_same_picture_with_two_labels(untrained: list, reader: Path, tmp_path: Path) -> None:
    truths = texts(12, 4)
    data = put(tmp_path / "set", truths, truths, 4)
    picture = draw("abc", 99)
    reading = CaptchaPredictor(reader, threads=1).predict([picture])[0].text or "a"
    (data / f"{reading}_100.png").write_bytes(picture)
    (data / "dddd_101.png").write_bytes(picture)
    report = find_label_errors(settings(data, reader))
    rows = report["rows"]
    assert rows[0]["file"] == "dddd_101.png"
    doubtful = [bool(row["reason"]) or row["label"] != row["reading"] for row in rows]
    assert doubtful == [True] * report["suspicious"] + [False] * (len(rows) - report["suspicious"])
    assert repr(reading) in rows[0]["reason"] and f"{reading}_100.png" in rows[0]["reason"]
    other = next(row for row in rows if row["file"] == f"{reading}_100.png")
    assert "'dddd'" in other["reason"]
    assert other["fold"] == rows[0]["fold"]


def test_slot_heads_and_a_label_that_is_far_too_long(tiny: Callable, tmp_path: Path) -> None:
    start = save_checkpoint(build_model(tiny(head="slots")), tmp_path / "slots.safetensors")
    truths = texts(30, 5)
    data = put(tmp_path / "set", ["abcdabcdabcd", *truths[1:]], truths, 5)
    report = find_label_errors(settings(data, start, folds=2, epochs=1))
    assert report["n"] == 30
    first = report["rows"][0]
    assert (first["label"], first["score"]) == ("abcdabcdabcd", None)
    assert "12 steps" in first["reason"] and "has 3" in first["reason"]
    assert all(math.isfinite(row["score"]) for row in report["rows"][1:])


# --------------------------------------------------------------------------------------------------------------------
# Scores


def random_log_probs(*shape: int) -> np.ndarray:
    logits = np.random.default_rng(0).normal(0, 2, shape)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_ctc_scores_are_sums_over_all_paths() -> None:
    codec = CTCCodec(Alphabet("ab"))
    log_probs = random_log_probs(6, 4, 3)

    def by_definition(sample: np.ndarray, text: str) -> float:
        total = 0.0
        for path in itertools.product(range(3), repeat=4):
            if "".join("-ab"[k] for k, _ in itertools.groupby(path)).replace("-", "") == text:
                total += math.exp(sum(sample[t, k] for t, k in enumerate(path)))
        return math.log(total)

    check_scores(codec, log_probs, by_definition)
    assert codec.log_likelihood(log_probs, ["aaa"] * 6) == pytest.approx(np.full(6, -1e30))


def test_slot_scores_are_products_over_the_positions() -> None:
    def by_definition(sample: np.ndarray, text: str) -> float:
        ids = [" ab".index(c) for c in text]
        ended = [0] if len(text) < 4 else []
        return sum(sample[t, k] for t, k in enumerate(ids + ended))

    codec = SlotCodec(Alphabet("ab"))
    check_scores(codec, random_log_probs(6, 4, 3), by_definition)
    assert codec.log_likelihood(random_log_probs(1, 4, 3), ["aaaaa"])[0] == -1e30


def check_scores(codec: CTCCodec | SlotCodec, log_probs: np.ndarray, by_definition: Callable) -> None:
    labels = ["ab", "a", "bab", "bb", "", "abab"]
    assert codec.log_likelihood(log_probs, labels) == pytest.approx(
        [by_definition(sample, label) for sample, label in zip(log_probs, labels, strict=True)]
    )
    predictions = [
        Prediction(r.text, r.confidence, r.char_confidences, r.spans, sample.astype(np.float32), codec, (0, 0, 9, 9))
        for r, sample in zip(codec.decode(log_probs), log_probs, strict=True)
    ]
    rows = [Row(str(i), str(i), b"", label, bytes([i])) for i, label in enumerate(labels)]
    for label, score, sample in zip(labels, score_labels(predictions, rows), log_probs, strict=True):
        ratio = by_definition(sample, score.reading) - by_definition(sample, label)
        assert score.per_character(label) == pytest.approx(ratio / max(len(label), len(score.reading), 1), abs=1e-5)
        if label == score.reading:
            assert score.per_character(label) == 0
    strange = score_labels(predictions[:2], [dataclasses.replace(rows[0], label=x) for x in ("ax", "ababab")])
    assert all(score.log_p_label is None and score.reason for score in strange)
    assert score_labels([], []) == []


@pytest.mark.parametrize(
    ("label", "reading", "marks"),
    [
        ("abc", "abc", ("000", "000")),
        ("abc", "axc", ("010", "010")),
        ("ac", "abc", ("00", "010")),
        ("", "ab", ("", "11")),
        ("aB", "ab", ("01", "01")),
    ],
)
def test_the_sheet_marks_what_differs(label: str, reading: str, marks: tuple[str, str]) -> None:
    assert tuple("".join(str(int(m)) for m in side) for side in plots.differing(label, reading)) == marks


def test_a_sheet_of_nothing_and_of_strange_texts(tmp_path: Path) -> None:
    assert plots.plot_label_errors([], [], tmp_path / "empty.png").stat().st_size > 1000
    row = {
        "label": "$a\n$" * 9,
        "reading": "",
        "confidence": 0.5,
        "score": None,
        "reason": "why " * 40,
        "file": "f" * 99,
    }
    figure = plots.draw_label_errors([draw("ab", 0)] * 3, [row] * 3)
    assert len(figure.axes[0].images) == 3
    assert figure_image(figure).width > 300


# --------------------------------------------------------------------------------------------------------------------
# Stops, and mistakes


def test_finished_folds_are_kept_when_it_is_stopped(
    untrained: list, reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truths = texts(20, 6)
    data = put(tmp_path / "set", truths, truths, 6)
    config = settings(data, reader, folds=4)
    train = finetune.train_fold

    def stopped(run: TrainConfig, *rest: Any) -> Path:
        if len(untrained) == 2:
            raise Interrupted(str(run.out))
        return train(run, *rest)

    rows = collect_rows(config)[0]
    monkeypatch.setattr(finetune, "train_fold", stopped)
    with pytest.raises(Interrupted, match="2 of 4 folds"):
        score_by_folds(config, rows, reader)
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(finetune, "train_fold", train)
    scores = score_by_folds(config, rows, reader)[0]
    assert len(untrained) == 4, "the two finished folds were not trained again"
    undisturbed = score_by_folds(dataclasses.replace(config, epochs=7), rows, reader)[0]
    assert len(untrained) == 8, "other settings, other folds"
    assert scores == undisturbed
    relabeled = [dataclasses.replace(rows[0], label="dd"), *rows[1:]]
    score_by_folds(config, relabeled, reader)
    assert len(untrained) == 12, "a label was changed"


def test_folds_are_equal_parts_of_the_different_pictures() -> None:
    rows = [Row(str(i), str(i), b"", "a", bytes([i % 50])) for i in range(60)]
    folds = assign_folds(rows, [i % 50 < 40 for i in range(60)], 4)
    for fold in range(4):
        keys = {rows[i].key[0] for i in np.flatnonzero(folds == fold)}
        assert len([key for key in keys if key < 40]) == 10, "usable labels are dealt out evenly"
        assert 12 <= len(keys) <= 13
    assert (folds[:10] == folds[50:]).all()
    assert (assign_folds(rows[::-1], [row.key[0] < 40 for row in rows[::-1]], 4)[::-1] == folds).all()


def test_mistakes_are_one_sentence(launch: Callable, call: Callable, reader: Path, tmp_path: Path) -> None:
    few = put(tmp_path / "few", ["ab", "cd", "aa", "a a"], ["ab", "cd", "aa", "ab"])
    (tmp_path / "empty").mkdir()
    here = {
        ("nowhere",): ["--data", tmp_path / "nowhere", "--checkpoint", reader],
        ("reader.onnx", "cannot be trained"): ["--data", few, "--checkpoint", reader.with_suffix(".onnx")],
        ("none.safetensors",): ["--data", few, "--checkpoint", "none.safetensors"],
        ("--show is 0",): ["--data", few, "--checkpoint", reader, "--show", 0],
        ("not split",): ["--data", few, "--checkpoint", reader, "--split", "test"],
        ("empty", "holds no samples"): ["--data", tmp_path / "empty", "--checkpoint", reader],
    }
    elsewhere = {
        ("3 different pictures", "5 folds"): ["--data", few, "--checkpoint", reader],
        ("--folds is 1",): ["--data", few, "--checkpoint", reader, "--folds", 1],
    }
    jobs = {said: launch("accuracy_calculator.py", "--find-label-errors", *f) for said, f in elsewhere.items()}
    results = [(said, *call(accuracy_calculator, "--find-label-errors", *flags)) for said, flags in here.items()]
    results += [(said, job.wait(), job.stdout, job.stderr) for said, job in jobs.items()]
    for said, code, out, err in results:
        assert code == 1, out
        assert "Traceback" not in err
        lines = [line for line in err.splitlines() if "error: " in line]
        assert len(lines) == 1, err
        assert all(part in lines[0] for part in said), lines


def test_ctrl_c_ends_it_and_leaves_nothing(launch: Callable, reader: Path, tmp_path: Path) -> None:
    truths = texts(30, 7)
    data = put(tmp_path / "set", truths, truths, 7)
    flags = ["--data", data, "--checkpoint", reader, "--folds", 2, "--epochs", 5000, *CPU]
    job = launch("accuracy_calculator.py", "--find-label-errors", *flags)
    assert job.until(lambda: re.search(r"\| [1-9][0-9]*/", job.stderr)), job.stderr
    place = Path(os.environ.get("TMPDIR") or "/tmp")
    os.kill(job.pid, signal.SIGINT)
    assert job.wait() == 130, job.stderr
    assert "Traceback" not in job.stderr
    assert "0 of 2 folds are done" in job.stderr
    assert not list(place.glob(f"label-errors-{job.pid}-*"))


# --------------------------------------------------------------------------------------------------------------------
# Without a training


def test_what_cannot_be_looked_through_is_one_sentence(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (label_errors.ROOT / "data").mkdir(parents=True)
    with pytest.raises(UserError, match=r"there is no data in data/: put labeled pictures there, or name a folder"):
        find_label_errors(EvaluateConfig(data="data", checkpoint=str(start)))
    with pytest.raises(UserError, match="--epochs is -1: it must be 0 or more"):
        find_label_errors(settings(tmp_path, start, epochs=-1))
    with pytest.raises(UserError, match="set is not split: make a dataset of it"):
        collect_rows(settings(put(tmp_path / "set", ["ab"], ["ab"]), start, split="test"))
    (tmp_path / "train-0.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"train-0\.parquet is not a readable parquet file .*: make the dataset again"):
        label_errors._files(tmp_path / "train-0.parquet")


def test_what_lies_in_data_is_looked_through_by_default(start: Path) -> None:
    put(label_errors.ROOT / "data" / "mine", ["ab", "cd"], ["ab", "cd"])
    rows, unreadable = collect_rows(EvaluateConfig(data="data", checkpoint=str(start)))
    assert sorted(row.label for row in rows) == ["ab", "cd"] and unreadable == []


def test_the_table_says_where_the_order_means_little_and_where_nothing_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = {"n": 4, "folds": 2, "sequence_accuracy": 0.25, "wilson_95": (0.05, 0.7), "differing": 0}
    report |= {"picture": "a.png", "unreadable": [], "pseudo": 0, "rows": [], "suspicious": 0}
    label_errors.print_table(report, 20)
    out = capsys.readouterr().out
    assert "fewer than half of the pictures as labeled, so the order says little: give more --epochs" in out
    assert out.endswith("No label looks wrong.\n") and "were left out" not in out
    label_errors.print_table(report | {"sequence_accuracy": 0.5}, 20)
    assert "says little" not in capsys.readouterr().out


def test_a_report_that_cannot_be_written_is_one_sentence(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(config: EvaluateConfig) -> dict:
        raise OSError(28, "No space left on device", str(tmp_path / "sheet.png"))

    monkeypatch.setattr(label_errors, "find_label_errors", full)
    with pytest.raises(UserError, match=r"sheet\.png cannot be read or written \(No space left on device\): check"):
        label_errors.report_label_errors(settings(tmp_path, start))
