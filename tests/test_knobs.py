"""The knobs of the Make tab, and the counting of readings."""

from __future__ import annotations

from pathlib import Path

import pytest

from accuracy_calculator import wilson_interval
from captcha_generator import render_captcha
from captcha_reader.errors import UserError
from captcha_reader.generator.styles import STYLES
from captcha_reader.web.knobs import (
    FONTS,
    KNOBS,
    OWN_FONTS,
    build_settings,
    build_style,
    style_values,
    success,
    sweep_values,
    try_many,
)
from predict import CaptchaPredictor


@pytest.mark.parametrize("name", STYLES)
def test_knobs_that_are_not_turned_change_nothing(name: str):
    assert build_style(name, style_values(name)) == STYLES[name]


@pytest.mark.parametrize("key", KNOBS)
def test_a_knob_changes_the_picture_and_stays_in_its_range(key: str):
    own = style_values("clean")
    own["rotation"] = 3
    turned = own | {key: KNOBS[key].high}
    before, after = (
        render_captcha(0, build_settings("clean", values, OWN_FONTS, "a-z", "4", 1)) for values in (own, turned)
    )
    assert before[0] != after[0]
    beyond = build_style("clean", own | {key: 1e9})
    assert beyond == build_style("clean", turned)
    assert min(sweep_values(key)) == KNOBS[key].low and max(sweep_values(key)) == KNOBS[key].high


def test_every_font_draws():
    for font in FONTS:
        assert render_captcha(0, build_settings("classic", {}, font, "0-9A-Za-z", "3", 0))[0]


@pytest.mark.parametrize(
    "change",
    [
        {"style": "nothing"},
        {"font": "Comic Sans"},
        {"alphabet": ""},
        {"alphabet": "aa"},
        {"alphabet": "a-\U0010ffff"},
        {"alphabet": "x" * 400},
        {"length": "0"},
        {"length": "30"},
        {"length": "many"},
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(change: dict[str, str]):
    settings = {"style": "classic", "values": {}, "font": OWN_FONTS, "alphabet": "a-z", "length": "5", "seed": 0}
    with pytest.raises(UserError):
        build_settings(**(settings | change))


def test_trials_are_counted(reader: Path):
    predictor = CaptchaPredictor(reader, device="cpu", threads=1)
    settings = build_settings("line", {}, OWN_FONTS, "abcd", "2-3", 3)
    trials = [trial for chunk in try_many(settings, predictor, 30) for trial in chunk]
    assert len(trials) == 30
    assert [t.text for t in trials] == [render_captcha(i, settings)[1] for i in range(30)]
    readings = predictor.predict([t.picture for t in trials])
    assert [t.reading for t in trials] == [r.text for r in readings]
    outcome = success(trials)
    right = sum(t.text == t.reading for t in trials)
    assert outcome["right"] == right and outcome["interval"] == wilson_interval(right, 30)
    assert outcome["ignoring_case"] >= outcome["rate"] == right / 30
    assert success([])["n"] == 0
