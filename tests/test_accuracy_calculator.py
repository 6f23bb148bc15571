"""Metrics against jiwer, textbook formulas and examples small enough to count; the report from every kind of data."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jiwer
import numpy as np
import pytest

import accuracy_calculator
import main
from accuracy_calculator import load_labeled
from captcha_reader.config import DatasetConfig, TrainConfig
from captcha_reader.dataset.folders import load_info
from captcha_reader.errors import UserError
from captcha_reader.reading.metrics import (
    alike_metrics,
    calibration,
    count_edits,
    detailed_metrics,
    text_metrics,
    wilson_interval,
)
from data_loader import load_split
from make_dataset import make_dataset
from model import load_model, save_checkpoint
from predict import CaptchaPredictor


def edits(a: str, b: str) -> int:
    """Levenshtein distance by its definition."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        previous, row = row, [i]
        for j, y in enumerate(b, start=1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


def random_pairs(count: int = 200) -> tuple[list[str], list[str]]:
    rng = random.Random(0)
    truths = ["".join(rng.choices("abAB1", k=rng.randint(1, 6))) for _ in range(count)]
    readings = [t if rng.random() < 0.4 else "".join(rng.choices("abAB1", k=rng.randint(0, 6))) for t in truths]
    return truths, readings


# --------------------------------------------------------------------------------------------------------------------
# The headline


def test_figures_of_a_hand_made_example() -> None:
    metrics = text_metrics(["abcd", "ABCD", "xy", "q"], ["abcd", "abcd", "xyz", ""])
    assert list(metrics) == [
        "n",
        "sequence_accuracy",
        "sequence_accuracy_ignore_case",
        "character_accuracy",
        "cer",
        "wilson_95",
    ]
    assert metrics["n"] == 4
    assert metrics["sequence_accuracy"] == 1 / 4
    assert metrics["sequence_accuracy_ignore_case"] == 2 / 4
    assert metrics["cer"] == pytest.approx((0 + 4 + 1 + 1) / 11)
    assert metrics["character_accuracy"] == pytest.approx(1 - 6 / 11)
    assert metrics["wilson_95"] == list(wilson_interval(1, 4))


def test_cer_is_jiwer_s_and_the_definition_s() -> None:
    truths, readings = random_pairs()
    assert count_edits(truths, readings) == [edits(a, b) for a, b in zip(truths, readings, strict=True)]
    metrics = text_metrics(truths, readings)
    assert metrics["cer"] == pytest.approx(jiwer.cer(truths, readings))
    errors = sum(edits(a, b) for a, b in zip(truths, readings, strict=True))
    assert metrics["cer"] == pytest.approx(errors / sum(map(len, truths)))
    right = sum(a == b for a, b in zip(truths, readings, strict=True))
    assert 0 < right < 200
    assert metrics["sequence_accuracy"] == right / 200


@pytest.mark.parametrize(("reading", "cer"), [("aaaaaa", 2.5), ("", 1.0), ("ab", 0.0), ("ba", 1.0), (" ab", 0.5)])
def test_cer_counts_every_edit_and_every_space(reading: str, cer: float) -> None:
    assert text_metrics(["ab"], [reading])["cer"] == pytest.approx(cer)


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(UserError, match="nothing to measure"):
        text_metrics([], [])
    with pytest.raises(ValueError, match="zip"):
        text_metrics(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # statsmodels.stats.proportion.proportion_confint(successes, n, method="wilson")
        (50, 100, 0.4038315, 0.5961685),
        (0, 10, 0.0, 0.2775328),
        (10, 10, 0.7224672, 1.0),
        (95, 100, 0.8882495, 0.9784563),
        (1, 1, 0.2065493, 1.0),
    ],
)
def test_wilson_interval_by_the_book(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-6)


@pytest.mark.parametrize(("successes", "n"), [(3, 7), (399, 400), (1, 1000)])
def test_wilson_interval_is_where_the_score_test_turns(successes: int, n: int) -> None:
    """Its definition: both ends p0 satisfy |p - p0| = z * sqrt(p0 (1 - p0) / n)."""
    for end in wilson_interval(successes, n):
        assert abs(successes / n - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-6)


def test_wilson_interval_ends_at_exactly_none_and_all() -> None:
    for n in range(1, 300):
        assert wilson_interval(0, n)[0] == 0.0 < wilson_interval(0, n)[1] < 1
        assert wilson_interval(n, n)[1] == 1.0 > wilson_interval(n, n)[0] > 0


def test_wilson_interval_of_nothing_is_everything() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)


# --------------------------------------------------------------------------------------------------------------------
# Where the errors are


def test_details_of_a_hand_made_example() -> None:
    truths = ["abc", "abc", "abc", "ab", "ab", "q"]
    readings = ["abc", "axc", "ac", "abz", "ab", ""]
    report = detailed_metrics(truths, readings, [0.5] * 6)
    assert report["by_length"] == {
        "1": {"accuracy": 0.0, "n": 1},
        "2": {"accuracy": 0.5, "n": 2},
        "3": {"accuracy": pytest.approx(1 / 3), "n": 3},
    }
    # Position 1: only `q` is missing; 2: `b` became x and was left out; 3: `c` was always read, wherever it stood.
    assert report["by_position"] == {
        "1": {"accuracy": pytest.approx(5 / 6), "n": 6},
        "2": {"accuracy": pytest.approx(3 / 5), "n": 5},
        "3": {"accuracy": 1.0, "n": 3},
    }
    confusions = {(c["truth"], c["reading"]): c["count"] for c in report["confusions"]}
    assert confusions == {("b", "x"): 1, ("b", ""): 1, ("", "z"): 1, ("q", ""): 1}
    counts = {(c["truth"], c["reading"]): c["count"] for c in report["character_counts"]}
    assert counts == confusions | {("a", "a"): 5, ("b", "b"): 3, ("c", "c"): 3}


def test_confusions_come_most_frequent_first_and_hold_all_errors() -> None:
    truths, readings = random_pairs()
    report = detailed_metrics(truths, readings, np.full(200, 0.5))
    counts = [c["count"] for c in report["confusions"]]
    assert counts == sorted(counts, reverse=True)
    assert all(c["truth"] != c["reading"] for c in report["confusions"])
    errors = sum(edits(a, b) for a, b in zip(truths, readings, strict=True))
    assert sum(counts) == errors
    seen = Counter()
    for c in report["character_counts"]:
        seen[c["truth"]] += c["count"]
    del seen[""]
    assert seen == Counter("".join(truths))
    assert sum(group["n"] for group in report["by_length"].values()) == 200
    assert report["by_position"]["1"]["n"] == 200


def test_calibration_by_hand() -> None:
    confidences = np.array([0.95, 0.91, 0.05, 0.55, 1.0, 0.0, 0.1])
    right = np.array([1, 0, 0, 1, 1, 0, 1.0])
    bins, error = calibration(confidences, right)
    assert [(b["from"], b["to"], b["n"]) for b in bins] == [(0.0, 0.1, 2), (0.1, 0.2, 1), (0.5, 0.6, 1), (0.9, 1.0, 3)]
    assert [b["confidence"] for b in bins] == pytest.approx([0.025, 0.1, 0.55, (0.95 + 0.91 + 1) / 3])
    assert [b["accuracy"] for b in bins] == pytest.approx([0, 1, 1, 2 / 3])
    expected = (2 * 0.025 + 1 * 0.9 + 1 * 0.45 + 3 * abs(2.86 / 3 - 2 / 3)) / 7
    assert error == pytest.approx(expected)


def test_calibration_at_its_best_and_worst() -> None:
    assert calibration(np.array([1.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]))[1] == 0
    assert calibration(np.array([1.0, 1.0]), np.array([0.0, 0.0]))[1] == 1
    assert calibration(np.array([0.75] * 4), np.array([1.0, 1, 1, 0]))[1] == pytest.approx(0)
    assert calibration(np.array([]), np.array([])) == ([], 0.0)


def test_right_at_a_confidence_by_hand() -> None:
    report = detailed_metrics(["ab", "cd", "ef", "g"], ["AB", "cd", "xx", "g"], [0.95, 0.99, 0.9, 0.2])
    levels = report["right_at_confidence"]
    assert levels["0.9"] == {"share": 3 / 4, "accuracy": pytest.approx(2 / 3)}  # ignoring case
    assert levels["0.99"] == {"share": 1 / 4, "accuracy": 1.0}
    assert report["expected_calibration_error"] == pytest.approx((0.8 + abs(2.84 - 1)) / 4)
    assert report["expected_calibration_error_ignore_case"] == pytest.approx((0.8 + abs(2.84 - 2)) / 4)
    nothing = detailed_metrics(["a"], ["a"], [0.5])["right_at_confidence"]["0.9"]
    assert nothing == {"share": 0.0, "accuracy": None}


# --------------------------------------------------------------------------------------------------------------------
# The command line


@pytest.fixture(scope="module")
def images(
    reader: Path, captchas: list[tuple[bytes, str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str], list[str]]:
    """Pictures named by what the reader reads in them, but for a few that it gets wrong: (folder, truths, readings)."""
    folder = tmp_path_factory.mktemp("images")
    readings = [p.text for p in CaptchaPredictor(reader, threads=1).predict([png for png, _ in captchas])]
    truths = []
    for i, ((png, _), text) in enumerate(zip(captchas, readings, strict=True)):
        truth = {0: text.upper(), 1: text + "x", 2: "dd"}.get(i % 8, text) or "a"
        truths.append(truth)
        (folder / f"{truth}_{i}.png").write_bytes(png)
    return folder, truths, readings


def report_of(call: Callable, tmp_path: Path, *flags: object) -> dict:
    code, out, err = call(accuracy_calculator, *flags, "--threads", 1, "--json", tmp_path / "report.json")
    assert code == 0, err
    report = json.loads((tmp_path / "report.json").read_text())
    for part in (f"{report['sequence_accuracy']:.2%}", f"{report['cer']:.2%}", f"{report['wilson_95'][0]:.2%}"):
        assert part in out
    return report


def test_a_folder_of_pictures(call: Callable, reader: Path, images: tuple, tmp_path: Path) -> None:
    folder, truths, readings = images
    report = report_of(call, tmp_path, "--data", folder, "--checkpoint", reader)
    assert report["n"] == 40
    right = sum(a == b for a, b in zip(truths, readings, strict=True))
    assert 20 <= right <= 28
    assert report["sequence_accuracy"] == right / 40
    folded = sum(a.lower() == b.lower() for a, b in zip(truths, readings, strict=True))
    assert right < folded
    assert report["sequence_accuracy_ignore_case"] == folded / 40
    assert report["cer"] == pytest.approx(jiwer.cer(truths, readings))
    assert report["wilson_95"] == pytest.approx(wilson_interval(right, 40))
    assert report["images_per_second"] > 0
    assert (report["split"], report["checkpoint"]) == ("all", str(reader))
    assert {"by_length", "by_position", "confusions", "calibration", "expected_calibration_error"} <= set(report)


def test_characters_that_it_cannot_read_are_counted_as_errors(call: Callable, reader: Path, images: tuple) -> None:
    code, out, _ = call(accuracy_calculator, "--data", images[0], "--checkpoint", reader, "--threads", 1)
    assert code == 0
    assert "'ABCDx'" in out and "counted as errors" in out


def test_the_exported_model_gives_the_same_report(
    call: Callable, reader: Path, exported: Path, images: tuple, tmp_path: Path
) -> None:
    ours = report_of(call, tmp_path, "--data", images[0], "--checkpoint", reader)
    theirs = report_of(call, tmp_path, "--data", images[0], "--checkpoint", exported, "--batch_size", 7)
    for key in ours.keys() - {
        "images_per_second",
        "checkpoint",
        "calibration",
        "expected_calibration_error",
        "expected_calibration_error_ignore_case",
    }:
        assert ours[key] == theirs[key], key
    assert ours["expected_calibration_error"] == pytest.approx(theirs["expected_calibration_error"], abs=1e-2)


def test_splits_of_a_dataset_and_raw_shards(
    call: Callable, reader: Path, dataset: Path, shards: Path, tmp_path: Path
) -> None:
    def n(*flags: object) -> tuple[int, str]:
        report = report_of(call, tmp_path, "--checkpoint", reader, *flags)
        return report["n"], report["split"]

    assert n("--data", dataset) == (15, "test")
    assert n("--data", dataset, "--split", "train") == (60, "train")
    assert n("--data", dataset, "--split", "all") == (90, "all")
    assert n("--data", dataset, "--split", "all", "--limit", 20) == (20, "all")
    assert n("--data", shards) == (90, "all")
    assert n("--data", shards, "--limit", 7) == (7, "all")


def test_what_cannot_be_measured_on_is_named(call: Callable, reader: Path, images: tuple, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(images[0], folder)
    first = min(folder.iterdir())
    shutil.copy(first, folder / f"{first.stem.partition('_')[0]}_9999.png")
    (folder / "ABCD_77.png").write_bytes(b"no picture")
    shutil.copy(first, folder / "_78.png")
    count = len(images[1])
    code, out, err = call(accuracy_calculator, "--data", folder, "--checkpoint", reader, "--threads", 1)
    assert code == 0 and re.search(rf"pictures \(n\) +{count}\n", out)  # every picture once
    assert f"3 of {count + 3} samples were left out" in err
    assert "ABCD_77.png, unreadable image" in err and "_78.png, empty label" in err and "duplicate image" in err


def test_a_limit_is_a_choice_from_all(shards: Path) -> None:
    everything = load_labeled(str(shards))[1]
    some = load_labeled(str(shards), limit=12)[1]
    assert len(some) == 12 and some != everything[:12]
    assert some == load_labeled(str(shards), limit=12)[1]
    for nothing in (0, -3):
        with pytest.raises(UserError, match=f"the limit is {nothing}: it must be 1 or more"):
            load_labeled(str(shards), limit=nothing)


def test_by_default_it_measures_what_training_left_out(
    call: Callable, reader: Path, images: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (accuracy_calculator, main):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    code, _, err = call(accuracy_calculator, "--checkpoint", reader, "--threads", 1)
    assert code == 1 and "no data in data/" in err
    settings = TrainConfig(synthetic_count=30, synthetic_style="clean")
    drawn = main.prepare_data(settings, say=lambda _: None)
    assert report_of(call, tmp_path, "--checkpoint", reader)["n"] == len(load_split(drawn, "test")[1]) == 3
    shutil.copytree(images[0], tmp_path / "data" / "mine")
    report = report_of(call, tmp_path, "--checkpoint", reader)
    assert (report["split"], report["n"]) == ("all", len(images[1]))  # not split yet, and none of the drawn ones
    made = main.prepare_data(settings, say=lambda _: None)
    report = report_of(call, tmp_path, "--checkpoint", reader)
    assert (report["split"], report["n"]) == ("test", len(load_split(made, "test")[1]))


def test_pictures_that_it_has_learned_from_are_named(
    call: Callable, reader: Path, images: tuple, dataset: Path, tmp_path: Path
) -> None:
    info = load_info(dataset)
    learned = {"fingerprint": info["fingerprint"], "sources": [str(images[0])]}
    checkpoint = save_checkpoint(load_model(reader), tmp_path / "learned.safetensors", provenance={"data": learned})
    other = tmp_path / "other"  # another split of the same pictures: most of its test was learned
    make_dataset(DatasetConfig(sources=[str(images[0])], out=str(other), seed=5, workers=1))
    for data, flags, named in (
        (images[0], [], True),
        (other, ["--split", "test"], True),
        (next(images[0].iterdir()), [], True),
        (dataset, ["--split", "train"], True),
        (dataset, ["--split", "test"], False),
    ):
        for weights in (checkpoint, reader):
            code, out, _ = call(accuracy_calculator, "--data", data, "--checkpoint", weights, "--threads", 1, *flags)
            assert code == 0
            assert (f"learned from {data}: of pictures it has not seen expect less" in out) == (
                named and weights == checkpoint
            )


def test_letters_drawn_alike_count_as_one() -> None:
    truths = ["0a", "Oa", "ob", "1l", "ab", "0x"]
    readings = ["Oa", "0A", "Ob", "I1", "ba", "0x"]
    # Counted by hand. Exactly, with 0 and O as one: 0a, 0x. Ignoring case: Oa and ob, too, and with 1, I and l also 1l.
    assert alike_metrics(truths, readings, ["0O"]) == {
        "sequence_accuracy": 2 / 6,
        "sequence_accuracy_ignore_case": 4 / 6,
    }
    assert alike_metrics(truths, readings, ["0Oo", "1Il"]) == {
        "sequence_accuracy": 4 / 6,
        "sequence_accuracy_ignore_case": 5 / 6,
    }


def test_the_report_counts_letters_alike(call: Callable, reader: Path, images: tuple, tmp_path: Path) -> None:
    flags = ["--checkpoint", reader, "--threads", 1, "--json", tmp_path / "r.json"]
    code, out, err = call(accuracy_calculator, "--data", images[0], *flags)
    assert code == 0, err
    assert "alike" not in out
    plain = json.loads((tmp_path / "r.json").read_text())
    a, b = next((c["truth"], c["reading"]) for c in plain["confusions"] if c["truth"] and c["reading"])
    code, out, err = call(accuracy_calculator, "--data", images[0], *flags, "--alike", a + b)
    assert code == 0, err
    report = json.loads((tmp_path / "r.json").read_text())
    assert f"({a} and {b})" in out and report["alike"]["groups"] == [a + b]
    assert report["sequence_accuracy"] == plain["sequence_accuracy"] <= report["alike"]["sequence_accuracy"]


def test_pictures_are_drawn(call: Callable, reader: Path, images: tuple, tmp_path: Path) -> None:
    flags = ["--checkpoint", reader, "--threads", 1, "--limit", 10, "--plots", tmp_path / "plots"]
    code, _, err = call(accuracy_calculator, "--data", images[0], *flags)
    assert code == 0, err
    assert len(list((tmp_path / "plots").glob("*.png"))) >= 2


@pytest.mark.parametrize(
    ("data", "flags", "said"),
    [
        ("shards", ["--split", "test"], "not split"),
        ("nowhere", [], "nowhere"),
        ("empty", [], "empty"),
        ("dataset", ["--batch_size", "0"], "batch size"),
        ("dataset", ["--csv", "all.csv"], "--csv goes with --find-label-errors"),
        ("dataset", ["--find-label-errors", "--same_source"], "--same_source"),
        ("dataset", ["--find-label-errors", "--alike", "0O"], "--alike"),
        ("dataset", ["--alike", "0"], "as in 0Oo,1Il"),
        ("dataset", ["--alike", "0O,"], "as in 0Oo,1Il"),
        ("dataset", ["--alike", "0O,1O"], "as in 0Oo,1Il"),
        ("dataset", ["--checkpoint", "none.safetensors"], "none.safetensors"),
    ],
)
def test_mistakes_are_one_sentence(
    data: str, flags: list[str], said: str, call: Callable, reader: Path, dataset: Path, shards: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    folder = {"shards": shards, "dataset": dataset}.get(data, tmp_path / data)
    checkpoint = [] if "--checkpoint" in flags else ["--checkpoint", reader]
    code, out, err = call(accuracy_calculator, "--data", folder, *checkpoint, *flags)
    assert code == 1, out
    assert said in err
    assert "Traceback" not in err


def test_a_split_without_pictures_is_named(call: Callable, reader: Path, shards: Path, tmp_path: Path) -> None:
    from captcha_reader.config import DatasetConfig
    from make_dataset import make_dataset

    make_dataset(DatasetConfig(sources=[str(shards)], out=str(tmp_path / "d"), split="70/30", workers=1))
    code, _, err = call(accuracy_calculator, "--data", tmp_path / "d", "--split", "validation", "--checkpoint", reader)
    assert code == 1
    assert "validation" in err and "--split" in err
