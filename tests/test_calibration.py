"""Confidences that mean what they say: the fit against known curves, and what a predictor makes of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from captcha_reader.checkpoint import read_metadata, set_metadata
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT
from captcha_reader.reading.calibration import CURVES, Calibration, Curve, fit
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.metrics import calibration
from predict import CaptchaPredictor


def logit(p: float) -> float:
    return math.log(p / (1 - p))


@pytest.mark.parametrize(("temperature", "bias"), [(1.0, 0.0), (0.6, 0.8), (2.0, -0.5)])
def test_the_curve_that_made_the_answers_is_found(temperature: float, bias: float) -> None:
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.01, 0.99, 40_000)
    truth = Curve(temperature, bias)
    right = rng.random(len(confidences)) < [truth(p) for p in confidences]
    found = fit(confidences, right)
    assert (found.temperature, found.bias) == pytest.approx((temperature, bias), abs=0.06)
    assert calibration(np.array([found(p) for p in confidences]), right.astype(float))[1] < 0.01


def test_a_curve_by_its_formula() -> None:
    curve = Curve(0.5, 0.3)
    for p in (0.1, 0.5, 0.93):
        assert logit(curve(p)) == pytest.approx(logit(p) / 0.5 + 0.3)
    assert 0 < curve(0.0) < curve(1e-3) < curve(0.999) < curve(1.0) < 1
    only_right = fit([0.8, 0.9, 0.95], [True] * 3)  # few readings say little
    assert math.isfinite(only_right.bias) and 0.01 < only_right.temperature < 100


def test_each_kind_of_reading_has_its_curve() -> None:
    known = Calibration({"view": Curve(1, 1), "vote": Curve(1, 2), "vote_constrained": Curve(1, 3)})
    for (views, constrained), bias in {(1, False): 1, (3, False): 2, (2, True): 3, (1, True): 0}.items():
        assert logit(known.apply(0.4, views, constrained)) == pytest.approx(logit(0.4) + bias)
    assert Calibration.from_metadata({}, "a").apply(0.4, 2, False) == 0.4


@pytest.mark.parametrize(
    "values",
    [
        {"view": 1},
        {"view": {"temperature": 0, "bias": 0}},
        {"view": {"temperature": "1", "bias": 0}},
        {"view": {"bias": 0}},
        {"other": {"temperature": 1, "bias": 0}},
        {"vote": {"temperature": 1, "bias": 1e9}},
    ],
)
def test_what_a_stranger_s_file_says_is_checked(values: dict) -> None:
    with pytest.raises(UserError, match=r"a\.onnx cannot be used: its calibration"):
        Calibration.from_metadata({"calibration": values}, "a.onnx")


def test_a_checkpoint_keeps_it_and_readings_show_it(
    reader: Path, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    (path := tmp_path / "copy.safetensors").write_bytes(reader.read_bytes())
    curve = {"temperature": 0.5, "bias": 0.25}
    set_metadata(path, "calibration", dict.fromkeys(CURVES, curve))
    before, after = read_metadata(reader), read_metadata(path)
    assert after == before | {"calibration": dict.fromkeys(CURVES, curve)}
    images = [png for png, _ in captchas[:8]]
    for constraints in (None, Constraints(length="2")):
        plain = CaptchaPredictor(reader, threads=1).predict(images, constraints=constraints)
        changed = CaptchaPredictor(path, threads=1).predict(images, constraints=constraints)
        for a, b in zip(plain, changed, strict=True):
            assert b.text == a.text
            assert b.confidence == pytest.approx(Curve(0.5, 0.25)(a.confidence), abs=1e-4)


def test_the_shipped_weights_have_one_and_both_files_the_same() -> None:
    both = [CaptchaPredictor(DEFAULT_CHECKPOINT.with_suffix(suffix), "cpu") for suffix in (".safetensors", ".onnx")]
    assert set(both[0].calibration.curves) == set(CURVES)
    assert both[0].calibration == both[1].calibration
