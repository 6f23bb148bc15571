"""The strength report: its figures against an independent count, its words, its page, and a whole run as a process."""

from __future__ import annotations

import io
import json
import math
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import strength
from captcha_generator import CaptchaSettings, render_captcha, render_image
from captcha_reader.config import StrengthConfig
from captcha_reader.errors import UserError
from captcha_reader.generator.ops.background import Plain
from captcha_reader.generator.ops.clutter import Lines
from captcha_reader.generator.ops.ink import Ink
from captcha_reader.generator.ops.layout import Rotation, Row
from captcha_reader.generator.ops.warp import Elastic
from captcha_reader.generator.styles import Style
from captcha_reader.generator.variations import op_variations
from captcha_reader.reading.metrics import detailed_metrics
from captcha_reader.strength.changes import NOTHING
from captcha_reader.strength.figures import (
    accuracy_figures,
    character_table,
    guesses_needed,
    near_duplicates,
    repeated_texts,
    secret_bits,
)
from captcha_reader.strength.legibility import Legibility, legibility_of, letters_alone, measure_legibility, sees
from captcha_reader.strength.page import Example, attempts, duration, percent, render_page
from captcha_reader.strength.progress import Bar, Clock, Pace
from captcha_reader.strength.report import build_report
from captcha_reader.strength.sample import LeftOut
from captcha_reader.strength.settings import parse_duration, parse_labels
from predict import CaptchaPredictor

ROOT = Path(__file__).resolve().parent.parent


def picture(seed: int = 0, text: str = "Ab3") -> Image.Image:
    image = Image.new("RGB", (90, 40), "white")
    draw = ImageDraw.Draw(image)
    rng = random.Random(seed)
    for i, c in enumerate(text):
        draw.text((10 + 25 * i, rng.randint(2, 12)), c, fill=(20, 20, 60), font_size=24)
    return image


# --------------------------------------------------------------------------------------------------------------------
# Figures


def test_accuracy_is_counted_as_by_hand() -> None:
    truths = ["abc", "abd", "xyz", "123"]
    figures = accuracy_figures(truths, ["abc", "abd", "xyy", ""])
    assert (figures["n"], figures["right"], figures["accuracy"], figures["attempts"]) == (4, 2, 0.5, 2.0)
    assert figures["broken"] and figures["interval"][0] < 0.5 < figures["interval"][1]
    assert figures["attempts_at_most"] == pytest.approx(1 / figures["interval"][0])
    for n in (69, 200):
        none = accuracy_figures(["a"] * n, ["b"] * n)
        assert none["attempts"] is None and none["attempts_at_most"] is None and not none["broken"]


def test_broken_needs_the_lower_end_above_one_percent() -> None:
    """3 of 200 are 1.5 %, but the interval begins at 0.5 %; 8 of 200 begin at 2 %."""
    truths = ["a"] * 200
    assert not accuracy_figures(truths, ["a"] * 3 + ["b"] * 197)["broken"]
    assert accuracy_figures(truths, ["a"] * 8 + ["b"] * 192)["broken"]


def test_the_first_guesses_cover() -> None:
    guesses = [["a", "b"], ["b", "a"], ["x", "y", "z", "a"], []]
    assert guesses_needed(["a"] * 4, guesses) == {"1": 0.25, "3": 0.5}
    assert guesses_needed(["a"] * 4, guesses, (4,)) == {"4": 0.75}


def test_characters_are_counted_as_by_hand() -> None:
    """Substitutions only, so that position by position is an independent count."""
    rng = random.Random(4)
    truths = ["".join(rng.choices("abcd", k=4)) for _ in range(120)]
    readings = ["".join(c if rng.random() < 0.8 else rng.choice("wxyz") for c in text) for text in truths]
    rows = character_table(truths, readings, detailed_metrics(truths, readings, [0.5] * 120))
    pairs = [(a, b) for t, r in zip(truths, readings, strict=True) for a, b in zip(t, r, strict=True)]
    for row in rows:
        seen = [b for a, b in pairs if a == row["character"]]
        assert row["n"] == len(seen)
        assert row["accuracy"] == pytest.approx(sum(b == row["character"] for b in seen) / len(seen))
        wrong = Counter(b for b in seen if b != row["character"])
        assert wrong[row["read_as"]] == max(wrong.values())
    assert [row["accuracy"] for row in rows] == sorted(row["accuracy"] for row in rows)


def test_missing_characters_are_misread_as_nothing() -> None:
    truths, readings = ["ab"] * 5, ["a"] * 5
    rows = {r["character"]: r for r in character_table(truths, readings, detailed_metrics(truths, readings, [0.5] * 5))}
    assert rows["b"]["accuracy"] == 0 and rows["b"]["read_as"] == ""
    assert rows["a"]["accuracy"] == 1 and rows["a"]["read_as"] is None


def test_bits_of_a_uniform_scheme_are_the_nominal_ones() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("0123456789", k=6)) for _ in range(3000)]
    bits = secret_bits(texts)
    assert bits["nominal_bits"] == pytest.approx(6 * math.log2(10))
    assert bits["estimated_bits"] == pytest.approx(6 * math.log2(10), abs=0.05)
    assert bits["characters"] == "0123456789" and bits["lengths"] == {"6": 1.0}


def test_bits_of_a_lopsided_scheme_are_fewer() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("ab", weights=[9, 1], k=10)) for _ in range(2000)]
    entropy = -(0.9 * math.log2(0.9) + 0.1 * math.log2(0.1))
    assert secret_bits(texts)["estimated_bits"] == pytest.approx(10 * entropy, abs=0.1)
    assert secret_bits(texts, "abcdefgh")["nominal_bits"] == pytest.approx(30)
    assert secret_bits(["", ""])["estimated_bits"] == 0, "nothing is to be guessed"


def test_a_small_pool_is_estimated_from_its_repetitions() -> None:
    rng = random.Random(1)
    pool = [f"t{i}" for i in range(200)]
    estimates = [repeated_texts([rng.choice(pool) for _ in range(150)])["pool"] for _ in range(20)]
    assert 150 < np.mean(estimates) < 260
    assert repeated_texts(["a", "b"]) == {"repeated": {}, "pairs": 0, "pool": None}
    assert repeated_texts(["a", "b", "a", "a"])["repeated"] == {"a": 3}


def test_near_duplicates_are_found_and_others_are_not() -> None:
    pictures = [picture(i, f"{i}x{i}") for i in range(12)]
    buffer = io.BytesIO()
    pictures[3].save(buffer, "JPEG", quality=60)
    assert near_duplicates([*pictures, buffer.getvalue()]).tolist() == [[3, 12]]
    assert len(near_duplicates(pictures[:1])) == 0


@pytest.mark.parametrize("others", [0, 1, 5, 40])
def test_a_picture_that_most_captchas_are_is_found_as_often_as_it_stands_there(others: int) -> None:
    """It is then what all pictures have in common, and nothing is left of it without that."""
    pictures: list = [picture(i, f"{i}x{i}") for i in range(1, others + 1)]
    for quality in range(80, 92):
        buffer = io.BytesIO()
        picture(0, "0x0").save(buffer, "JPEG", quality=quality)
        pictures.insert(quality % (others + 1), buffer.getvalue())
    alike = [i for i, one in enumerate(pictures) if isinstance(one, bytes)]
    expected = [[i, j] for i in alike for j in alike if i < j]
    assert len(expected) == 66 and near_duplicates(pictures).tolist() == expected


def test_pairs_are_found_wherever_they_stand_among_many() -> None:
    pictures = [picture(i, f"{i:03}") for i in range(300)]
    pictures += [pictures[2], pictures[298]]
    assert {(2, 300), (298, 301)} <= set(map(tuple, near_duplicates(pictures).tolist()))


# --------------------------------------------------------------------------------------------------------------------
# Legibility


def bar(height: int = 30, line: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colors, ink and clutter of one black upright stroke, four pixels wide, on white; a black line may cross it."""
    colors = np.full((height, 40, 3), 255, np.uint8)
    ink, clutter = np.zeros((height, 40), np.uint8), np.zeros((height, 40), bool)
    ink[:, 18:22] = 255
    if line:
        clutter[14:16] = True
    colors[(ink > 0) | clutter] = 0
    return colors, ink, clutter


def test_a_line_across_a_letter_hides_its_ink_as_counted_pixel_by_pixel() -> None:
    assert measure_legibility(*bar()) == Legibility(1.0, 1.0, 1.0)
    colors, ink, clutter = bar(line=True)
    found = measure_legibility(colors, ink, clutter)
    visible = touched = count = 0
    for y, x in zip(*np.nonzero(ink), strict=True):
        count += 1
        touched += any(clutter[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].flat)
        beside = [
            colors[j, i].sum()
            for j in range(max(y - 3, 0), min(y + 4, 30))
            for i in range(max(x - 3, 0), min(x + 4, 40))
            if not 17 <= i <= 22  # the stroke and the pixel beside it
        ]
        visible += sum(color == 0 for color in beside) <= 0.1 * len(beside)
    assert found.visibility == pytest.approx(visible / count) and 0.5 < found.visibility < 0.9
    assert found.freedom == pytest.approx(1 - touched / count) and touched == 4 * 4
    assert found.contrast == 1 and found.score == pytest.approx(visible / count * (1 - touched / count))


def test_faint_ink_and_specks_cost_legibility() -> None:
    colors, ink, clutter = bar()
    faint = np.where(ink[..., None] > 0, np.uint8(225), colors)
    assert measure_legibility(faint, ink, clutter).contrast == pytest.approx((100 - 89.5) / 50, abs=0.01)  # L* of 225
    specks = np.random.default_rng(0).random(ink.shape) < 0.25
    noisy = np.where(specks[..., None], np.uint8(0), colors)
    assert measure_legibility(noisy, ink, specks).score < 0.1
    assert measure_legibility(colors, np.zeros_like(ink), clutter).score == 0
    assert measure_legibility(colors, np.full_like(ink, 255), clutter) == Legibility(0, 0, 1), "ink without any ground"


def test_the_letters_of_a_style_are_found_where_it_draws_them() -> None:
    """A style without clutter and blur, black on white: its ink is the picture itself."""
    bent = Style(ops=(Row(), Rotation(20), Plain((255, 255)), Ink((0, 0), tint=0), Elastic((2, 2))), mode="L")
    crossed = bent.with_op("lines", count=(6, 6), width=(3, 3), level=(0, 0), tint=0, above=1)
    for i in range(3):
        settings = CaptchaSettings((bent,), seed=3)
        picture, text = render_image(i, settings)
        letters, _ = render_image(i, CaptchaSettings((letters_alone(crossed),), seed=3), text)
        assert np.array_equal(letters[..., 0], picture[..., 0])
        assert legibility_of(i, settings) > 0.95 > 0.85 > legibility_of(i, CaptchaSettings((crossed,), seed=3))
    assert sees(Lines()) and not sees(Rotation(20)) and not sees(Elastic((2, 2)))


# --------------------------------------------------------------------------------------------------------------------
# Words


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), (" 1.5 m ", 90)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "ten", "0s", "10", "-5m", "5d", "1e9h"])
def test_what_is_no_duration_is_one_sentence(text: str) -> None:
    with pytest.raises(UserError, match="write 90s, 10m or 1h"):
        parse_duration(text)


def test_numbers_of_labels() -> None:
    assert parse_labels("30, 0,10,10") == [0, 10, 30]
    for bad in ("", "ten", "1.5", "-3", "٣"):
        with pytest.raises(UserError, match="write numbers"):
            parse_labels(bad)
    with pytest.raises(UserError, match="3 labels are too few"):
        parse_labels("0,3")


def test_numbers_are_said_as_people_do() -> None:
    assert [percent(x) for x in (0, 0.004, 0.62, 0.999, 0.9999, 1)] == [
        "0 %", "0.4 %", "62 %", "99.9 %", "99.9 %", "100 %",
    ]  # fmt: skip
    assert percent(accuracy_figures(["a"] * 70, ["a"] * 70)["interval"][1]) == "100 %"
    assert [duration(x) for x in (0, 40, 600, 7200)] == ["–", "40 s", "10 min", "2.0 h"]
    assert attempts({"attempts": None, "n": 50}) == "none in 50" and attempts({"attempts": 1.61, "n": 50}) == "1.6"


def step(labels: int, right: int, n: int = 100) -> dict:
    truths = ["a"] * n
    figures = accuracy_figures(truths, ["a"] * right + ["b"] * (n - right))
    return {"labels": labels, **figures, "training_seconds": 40.0 * (labels > 0), "typing_seconds": 10.0 * labels}


def left_out(**reasons: int) -> dict:
    listed = [{"source": f"{i}.png", "reason": reason, "detail": ""} for i, reason in enumerate(reasons)]
    return {"total": sum(reasons.values()), "reasons": reasons, "listed": listed}


def make_report(attack: list[dict], **changes: object) -> dict:
    truths = ["abc", "abd", "bcd", "dca"] * 10
    last = {
        "truths": truths,
        "readings": ["abc", "abd", "bcb", "dca"] * 10,
        "confidences": [0.95, 0.6, 0.4, 0.8] * 10,
        "guesses": [[t] for t in truths],
    }
    about = {"created": "2026-01-01", "machine": "m", "reader": "reader", "reading_ms": 3.0, "mean_confidence": 0.5}
    settings = {"seed": 0, "ignore_case": False, "seconds_per_label": 10.0, "characters": None, "length": None}
    settings |= {"labels": [0, 100], "skipped": []}
    data = {"name": "<set>", "pictures": 80, "labeled": 80 if attack else 0, "generated": False, "left_out": left_out()}
    sample = {"texts": truths, "pictures": [picture(i, f"{i}") for i in range(4)]}
    values = {"data": data, "settings": settings, "attack": attack, "last": last if attack else None, "sample": sample}
    return build_report(**(values | about | changes))


def test_the_verdict_has_its_figures() -> None:
    verdict = make_report([step(0, 62), step(100, 97), step(300, 98)])["verdict"]
    expected = "The free reader of this project that has never seen it reads 62 %. "
    assert verdict["text"] == expected + "After 100 labels (17 min of typing, 40 s of training) it reads 97 %."
    assert verdict["level"] == "bad" and "no gain" not in verdict["text"]
    assert make_report([step(0, 97), step(100, 98)])["verdict"]["text"].endswith("reads 98 %: no gain beyond chance.")


@pytest.mark.parametrize("rights", [(100, 100), (100, 90), (0, 0), (3, 100)])
def test_every_curve_has_a_verdict(rights: tuple[int, int]) -> None:
    assert "After 10 labels" in make_report([step(0, rights[0]), step(10, rights[1])])["verdict"]["text"]
    assert "After 10 labels" in make_report([step(10, rights[1])])["verdict"]["text"]


def test_the_verdict_does_not_praise() -> None:
    good = make_report([step(0, 0, 400)])["verdict"]
    assert good["level"] == "good" and "does not prove strength" in good["advice"]
    fair = make_report([step(0, 12, 200)])["verdict"]
    assert fair["level"] == "fair" and "broken" in fair["advice"] and "17 attempts" in fair["advice"]


@pytest.mark.parametrize(("right", "level"), [(201, "bad"), (200, "fair"), (4, "fair"), (3, "good")])
def test_the_advice_goes_by_what_is_read(right: int, level: str) -> None:
    """Above 50 %, 1 to 50 %, below 1 % of 400; each level says what to do instead."""
    verdict = make_report([step(0, right, 400)])["verdict"]
    assert verdict["level"] == level
    assert all(
        word in verdict["advice"] for word in ("per account", "block", "e-mail", "second factor", "proof of work")
    )


def test_of_a_captcha_of_the_generator_the_headline_says_that_the_reader_knows_it() -> None:
    data = {"name": "style x", "pictures": 80, "labeled": 80, "generated": True, "left_out": left_out()}
    said = make_report([step(0, 62)], data=data)["verdict"]["text"]
    assert "trained on this generator" in said and "62 %" in said and "never seen" not in said


def test_what_is_missing_comes_before_how_to_go_on() -> None:
    report = make_report([step(0, 62)], partial="300 labels were not measured: the budget was over; raise --budget")
    page = Page()
    page.feed(render_page(report, []))
    said = " ".join(page.text.split())
    assert (
        "300 labels were not measured: the budget was over. What is shown here holds. To go on: raise --budget." in said
    )


def test_what_gives_it_away_is_said() -> None:
    lines = " ".join(make_report([step(0, 62)])["weaknesses"])
    assert "4 characters (a-d) and texts of 3 of them" in lines and "Texts repeat: abc (10 times)" in lines
    assert "Characters read worst, clearly below the mean of 92 %: d (67 %)." in lines
    assert "nearly the same" not in lines
    same = {"texts": ["abc", "abd"], "pictures": [picture(), picture()]}
    assert "1 pairs of pictures are nearly the same" in " ".join(make_report([step(0, 62)], sample=same)["weaknesses"])


def test_both_cases_of_a_letter_are_one_where_case_is_ignored() -> None:
    characters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    settings = make_report([step(0, 62)])["settings"] | {"characters": characters}
    whole = make_report([step(0, 62)], settings=settings)["secret"]
    folded = make_report([step(0, 62)], settings=settings | {"ignore_case": True})
    assert len(whole["characters"]) == 62 and whole["nominal_bits"] == pytest.approx(3 * math.log2(62))
    assert len(folded["secret"]["characters"]) == 36
    assert folded["secret"]["nominal_bits"] == pytest.approx(3 * math.log2(36))
    assert "It uses 36 characters (0-9a-z)" in folded["weaknesses"][0]


class Page(HTMLParser):
    """Collects what a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts = 0
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.scripts += tag == "script"
        self.fetched += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_alone_and_escapes_everything() -> None:
    nasty = '<script>alert("x")</script>'
    data = {"name": nasty, "pictures": 1, "labeled": 1, "generated": False, "left_out": left_out(**{nasty: 3})}
    report = make_report([step(0, 62), step(10, 80)], data=data)
    html = render_page(report, [("Read wrongly", [Example(picture(), nasty, 0.9, "abc")]), ("none", [])])
    page = Page()
    page.feed(html)
    assert page.scripts == 0 and nasty in page.text
    assert all(link.startswith("data:image/webp;base64,") or link.startswith("#") for link in page.fetched)
    assert not re.search(r"url\((?!#)", html) and "@import" not in html
    assert "52 % to 71 %" in page.text and "3 left out" in " ".join(page.text.split())


def test_a_report_without_labels_says_what_it_can() -> None:
    report = make_report([])
    html = render_page(report, [("Most certain", [Example(picture(), "abc", 0.9)])])
    assert "Without labels nothing is certain" in html and "The attack" not in html
    json.dumps(report, allow_nan=False)


def change(op: str, accuracies: tuple, legible: tuple) -> dict:
    rows = zip(("weak", "is", "strong"), accuracies, legible, strict=True)
    error = {"legibility_error": 0.02 if legible[0] is not None else None}
    return {"op": op, "n": 100, "levels": [{"strength": s, "accuracy": a, "legibility": p} | error for s, a, p in rows]}


def test_what_would_change_it_is_said_of_people_only_where_the_proxy_sees() -> None:
    changes = [
        change("lines", (0.9, 0.8, 0.4), (0.9, 0.8, 0.78)),
        change("small_spots", (0.9, 0.9, 0.88), (0.9, 0.7, 0.4)),
        change("ink", (0.95, 0.6, 0.58), (0.9, 0.7, 0.5)),
        change("grain", (0.5, 0.5, 0.48), (0.9, 0.7, 0.51)),  # of 100 halves the interval is wide
        change("wave", (0.9, 0.9, 0.55), (None, None, None)),
        change("turn", (0.9, 0.6, 0.55), (None, None, None)),  # weak differs, today's does not
        change("blur", (0.9, 0.9, 0.85), (0.9, 0.9, 0.89)),
        change("paper", (0.5, 0.5, 0.5), (0.8, 0.8, 0.73)),  # beyond chance: 0.07 > 1.96 * sqrt(2) * 0.02
        change("tint", (0.5, 0.5, 0.5), (0.8, 0.8, 0.75)),  # within chance
    ]
    report = make_report([step(0, 62)], changes=changes)
    begins = "made stronger from today's setting, "
    dearer = " It costs people more than this reader"
    assert report["change_advice"] == [
        f"lines: {begins}this reader loses 40 points; people do not change beyond chance by the proxy.",
        f"wave: {begins}this reader loses 35 points; what it costs people, the proxy cannot see.",
        f"small spots: {begins}this reader does not change beyond chance; people lose 30 points by the proxy.{dearer}: "
        "a weaker one is kinder to people (20 points) and hardly helps a bot.",
        f"ink: {begins}this reader does not change beyond chance; people lose 20 points by the proxy.{dearer}: "
        "a weaker one gives people 20 points and a bot 35.",
        f"grain: {begins}this reader does not change beyond chance; people lose 19 points by the proxy.{dearer}: "
        "a weaker one gives people 20 points and a bot at most 14 (95 % interval).",
        f"paper: {begins}this reader does not change beyond chance; people lose 7 points by the proxy.{dearer}; one "
        "weaker than today does not help people beyond chance.",
    ]
    page = Page()
    page.feed(render_page(report, []))
    assert "No person was asked" in " ".join(page.text.split())
    validate(report)
    none = make_report([step(0, 62)], changes=changes[5:7])["change_advice"]
    assert none == [NOTHING] and make_report([step(0, 62)])["change_advice"] == []


# --------------------------------------------------------------------------------------------------------------------
# The schema, the time, whole runs


def validate(report: dict) -> None:
    """By docs/strength.schema.json, a schema that is one."""
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "docs" / "strength.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(json.dumps(report, allow_nan=False)), schema, jsonschema.Draft202012Validator)


def test_the_schema_describes_every_field_and_refuses_others() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    report = make_report([step(0, 62), step(100, 97)])
    validate(report)
    validate(make_report([]))
    for wrong in (
        {"extra": 1},
        {"attack": [step(0, 62) | {"accuracy": 1.5}]},
        {"guesses": {"1": 0.5}},
        {"format": "x"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            validate(report | wrong)


def test_the_time_left_is_over_all_steps_and_never_beyond_the_budget() -> None:
    now = [0.0]
    clock = Clock(100.0, lambda: now[0])
    pace = Pace({0: 2.0, 10: 10.0, 30: 28.0}, clock)
    assert pace.done == 0 and pace.seconds_left is None
    pace.advance(0, 0.0)
    now[0] = 4.0
    pace.advance(0, 1.0)
    assert pace.done == 0.05 and pace.factor == 2 and pace.seconds_left == 76
    now[0] = 24.0
    pace.advance(10, 1.0)
    assert pace.done == pytest.approx(0.3) and pace.seconds_left == 56
    pace.advance(10, 0.2)
    assert pace.done == pytest.approx(0.3), "it never runs backwards"
    now[0] = 70.0
    assert pace.seconds_left == 30, "the budget ends before"
    resumed = Pace({0: 2.0, 10: 10.0}, Clock(100.0, lambda: now[0]))
    resumed.waive(0)
    assert resumed.done == pytest.approx(1 / 6) and resumed.seconds_left is None, "nothing was timed in this run"


def test_a_person_sees_every_result_in_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar({"event": "step", "doing": "reading", "done": 0.25, "seconds_left": None})
    bar({"event": "step", "doing": "learning from 10 labels", "done": 0.5, "seconds_left": 41.6})
    bar({"event": "point", "labels": 10, "accuracy": 0.5, "interval": [0.4, 0.6]})
    bar({"event": "change", "op": "wave", "levels": [{"accuracy": 0.9}, {"accuracy": 0.25}]})
    bar.close()
    shown = capsys.readouterr()
    assert "   10 labels: 50.0% (40.0% to 60.0%)" in shown.out.splitlines()
    assert "wave, weak to strong: 90%, 25%" in shown.out.splitlines()


def run_strength(folder: Path, *arguments: object) -> tuple[list[dict], dict, str]:
    """A run as a process that tells its progress as JSON: its events, its report, and what it says on stderr."""
    words = [sys.executable, str(ROOT / "strength.py"), "--out", folder, "--progress", "json", "--threads", 1]
    done = subprocess.run([*map(str, [*words, *arguments])], capture_output=True, text=True, encoding="utf-8", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    return events, json.loads((folder / "report.json").read_text(encoding="utf-8")), done.stderr


def test_a_run_counts_and_names_what_was_left_out(
    captchas: list[tuple[bytes, str]], exported: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    settings = CaptchaSettings(("line", "classic"), "abcd", (2, 3), seed=9)
    pngs = [png for png, _ in captchas] + [render_captcha(i, settings)[0] for i in range(40)]
    readings = [p.text for p in CaptchaPredictor(exported, threads=1).predict(pngs)]
    rows = [(png, text) for png, text in zip(pngs, readings, strict=True) if text][:40]
    for i, (png, text) in enumerate(rows):
        (data / f"{text}_{i}.png").write_bytes(png)
    (data / "abc_90.png").write_bytes(b"no picture")
    (data / f"{rows[0][1]}_91.png").write_bytes(rows[0][0])
    (tmp_path / "before.json").write_text('{"not in the label file": 2}')
    arguments = ("--data", data, "--labels", "0,500", "--checkpoint", exported, "--name", "mine")
    events, report, said = run_strength(tmp_path / "out", *arguments, "--left_out", tmp_path / "before.json")
    validate(report)
    left_out = report["data"]["left_out"]
    assert left_out["total"] == 4
    assert left_out["reasons"] == {"not in the label file": 2, "unreadable image": 1, "duplicate image": 1}
    assert {row["source"] for row in left_out["listed"]} == {"abc_90.png", f"{rows[0][1]}_91.png"}
    assert report["data"]["name"] == "mine" and report["data"]["labeled"] == 40
    assert "500 labels: only 20 are left" in said and len(report["settings"]["skipped"]) == 1
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "4 left out" in page and "abc_90.png" in page and "One picture is an exact copy of another" in page
    kinds = [event["event"] for event in events]
    assert kinds[0] == "plan" and kinds[-1] == "result" and kinds.count("point") == 1
    point = events[kinds.index("point")]
    assert point["n"] == 20 and point["right"] == 20, "the labels are what this very reader reads"
    assert events[-1]["verdict"] == report["verdict"]
    done = [event["done"] for event in events if event["event"] == "step"]
    assert done == sorted(done) and done[-1] == 1


def test_the_budget_cuts_a_training_and_the_report_is_partial(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[int] = []

    def train(rows: list, config: object, folder: Path, on_progress: Callable[[dict], None]) -> Path:
        taught.append(len(rows))
        on_progress({"event": "step", "done": 0.5})
        if len(rows) == 20:
            measurement.clock.started -= 1000  # as if so many seconds had passed
        on_progress({"event": "step", "done": 0.6})
        return exported

    monkeypatch.setattr(strength, "train_on", train)
    given = {"style": "line", "characters": "a-d", "length": "3", "count": 60, "tries": 1, "labels": "0,10,20,30"}
    config = StrengthConfig(**given, checkpoint=str(exported), threads=1, out=str(tmp_path / "out"))
    measurement = strength.Strength(config)
    measurement.measure()
    assert taught == [10, 20]
    report = measurement.report()
    validate(report)
    assert [row["labels"] for row in report["attack"]] == [0, 10]
    assert {row["op"] for row in report["changes"]} >= {"lines", "rotation"}, "they come before the trainings"
    assert report["partial"].startswith(
        "20 and 30 labels were not measured: the budget of 10 min was over; raise --budget"
    )
    titles = [title for title, _ in measurement.sheets()]
    groups = [int(re.search(r": (\d+) of", title)[1]) for title in titles]  # type: ignore[index]
    assert sum(groups) == len(measurement.measured), titles
    again = strength.Strength(config)
    assert again.pace.done > 0 and set(again.state["steps"]) == {"0", "10"}, "the same command goes on from there"
    other = strength.Strength(replace(config, labels="0,10"))
    assert len(other.measured) != len(again.measured)
    assert other.state["steps"] == {} and other.state["changes"], "they were measured on other pictures"


def test_pictures_without_labels_are_read_and_a_style_is_varied(
    captchas: list[tuple[bytes, str]], exported: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i, (png, _) in enumerate(captchas[:5]):
        (data / f"{i}.png").write_bytes(png)
    (data / "bad.png").write_bytes(b"no picture")
    _, report, _ = run_strength(tmp_path / "a", "--data", data, "--unlabeled", "--checkpoint", exported)
    validate(report)
    assert report["attack"] == [] and report["data"]["pictures"] == 5 and report["data"]["left_out"]["total"] == 1
    expected = CaptchaPredictor(exported, threads=1).predict([png for png, _ in captchas[:5]])
    assert report["mean_confidence"] == pytest.approx(np.mean([p.confidence for p in expected]), abs=1e-4)
    few = ("--style", "line", "--count", 40, "--tries", 4, "--labels", "0", "--characters", "a-d", "--length", 3)
    events, report, _ = run_strength(tmp_path / "b", *few, "--checkpoint", exported)
    validate(report)
    changes = {row["op"]: [level["legibility"] for level in row["levels"]] for row in report["changes"]}
    assert changes["lines"][0] > changes["lines"][2] > 0 and changes["rotation"] == [None] * 3
    assert [event["op"] for event in events if event["event"] == "change"] == list(changes)


# --------------------------------------------------------------------------------------------------------------------
# Steps in this process


def settings_of(out: Path, exported: Path, **changes: object) -> StrengthConfig:
    """A measurement of 40 captchas of a style without training, or of data."""
    given = {"characters": "a-d", "length": "3", "labels": "0"}
    given |= {} if "data" in changes else {"style": "line", "count": 40, "tries": 1}
    return StrengthConfig(**(given | {"checkpoint": str(exported), "threads": 1, "out": str(out)} | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"style": None}, "name --data FOLDER with captchas or --style NAME"),
        ({"data": "some/folder", "style": "line"}, "one of the two"),
        ({"data": "some/folder", "tries": 3}, "--tries goes with --style alone: leave it out"),
        ({"limit": 50}, "--limit goes with --data alone: leave it out"),
        ({"seconds_per_label": 0}, "--seconds_per_label is 0: a label takes some time"),
        ({"seconds_per_label": math.nan}, "--seconds_per_label is nan: a label takes some time"),
        ({"seconds_per_label": math.inf}, "--seconds_per_label is inf: a label takes some time"),
        ({"count": 0}, "--count is 0: 40 is the least"),
        ({"tries": 0}, "--tries is 0: 1 is the least"),
        ({"limit": 0}, "--limit is 0: 1 is the least"),
        ({"seed": -1}, "--seed is -1: 0 is the least"),
        ({"labels": "300"}, "--labels 300 cannot be tried: of style line only 20 captchas are left .* up to that"),
    ],
)
def test_settings_that_measure_nothing_are_one_sentence(
    changes: dict, words: str, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        strength.Strength(settings_of(tmp_path, exported, **changes))


@pytest.mark.parametrize("style", ["mixed", "schemes", "rare", "heldout"])
def test_what_is_another_style_for_every_picture_is_not_varied(style: str, exported: Path, tmp_path: Path) -> None:
    """One of its styles would be varied, which is not what the headline measures."""
    measurement = strength.Strength(settings_of(tmp_path, exported, style=style, length="2-3"))
    measurement.measure()
    report = measurement.report()
    validate(report)
    assert report["attack"] and report["changes"] == [] and not report["partial"]
    (said,) = report["settings"]["skipped"]
    assert said == f"variations: {style} is another style for every picture, there is none to vary"
    page = measurement.write(report).read_text(encoding="utf-8")
    assert said in page and "What would change it" not in page
    with pytest.raises(UserError, match=f"{style} draws another style for every picture"):
        next(op_variations(style))


def test_too_few_labels_are_one_sentence(captchas: list[tuple[bytes, str]], exported: Path, tmp_path: Path) -> None:
    data = tmp_path / "few"
    data.mkdir()
    for i, (png, text) in enumerate(captchas[:3]):
        (data / f"{text}_{i}.png").write_bytes(png)
    with pytest.raises(UserError, match=r"few has 3 labeled captchas, .* label more or add --unlabeled"):
        strength.Strength(settings_of(tmp_path / "out", exported, style=None, data=str(data)))


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({"characters": None, "length": "4"}, r"40 of 40 labels do not fit .* \(length 4\), the first is"),
        ({"characters": "0-9", "length": None}, r"\d+ of 40 labels do not fit .* correct the characters"),
    ],
)
def test_a_wrong_length_or_wrong_characters_make_no_captcha_strong(
    known: dict, words: str, captchas: list[tuple[bytes, str]], exported: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i, (png, text) in enumerate(captchas):
        (data / f"{text}_{i}.png").write_bytes(png)
    config = settings_of(tmp_path / "out", exported, style=None, data=str(data))
    with pytest.raises(UserError, match=words):
        strength.Strength(replace(config, **known))
    assert len(strength.Strength(replace(config, length="2-3")).sample.texts) == 40


@pytest.mark.parametrize("text", ["[1, 2]", "no json", '{"no label": "many"}', '{"no label": null}'])
def test_a_file_of_left_out_counts_that_is_none_is_one_sentence(text: str, tmp_path: Path) -> None:
    (tmp_path / "left.json").write_text(text)
    for path in (tmp_path / "left.json", tmp_path / "nowhere.json"):
        with pytest.raises(UserError, match=r"left_out .* cannot be used: it is a JSON file such as"):
            LeftOut.load(str(path))


def test_pictures_are_read_up_to_the_limit_and_the_bad_ones_are_named(
    captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    names = ["0.png", "bad.png", "1.png", "2.png"]
    for name, (png, _) in zip(names, captchas, strict=False):
        (tmp_path / name).write_bytes(b"no picture" if name == "bad.png" else png)
    left_out = LeftOut()
    paths = [tmp_path / name for name in names]
    assert left_out.readable(paths, 3) == [captchas[i][0] for i in (0, 2, 3)], "as many as there are"
    assert left_out.as_dict()["reasons"] == {"unreadable image": 1}
    with pytest.raises(UserError, match=r"none of the 1 pictures can be read: .*bad\.png"):
        LeftOut().readable([tmp_path / "bad.png"], None)


def test_a_limit_takes_a_seeded_choice_of_pictures_without_labels(
    captchas: list[tuple[bytes, str]], exported: Path, tmp_path: Path
) -> None:
    """The first by name may be of one kind."""
    pngs = [png for png, _ in captchas]
    for i, png in enumerate(pngs):
        (tmp_path / f"{i:02}.png").write_bytes(png)
    paths = sorted(tmp_path.glob("*.png"))
    chosen = [[pngs.index(png) for png in LeftOut().readable(paths, 10, seed)] for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2] and chosen[0] == sorted(chosen[0])
    assert all(len(set(places)) == 10 and max(places) > 20 for places in chosen)
    assert LeftOut().readable(paths, None) == pngs
    config = settings_of(tmp_path / "out", exported, style=None, data=str(tmp_path), unlabeled=True, limit=10, seed=1)
    assert strength.collect(config).pictures == [pngs[i] for i in chosen[2]]


def test_files_that_are_no_pictures_are_counted_beside_those_that_are_read(
    captchas: list[tuple[bytes, str]], exported: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.png", "b.heic", "c.HEIC", "d.avif", ".hidden"):
        (data / name).write_bytes(captchas[0][0])
    sample = strength.collect(settings_of(tmp_path / "out", exported, style=None, data=str(data), unlabeled=True))
    reasons = {"not a picture by name (.heic)": 2, "not a picture by name (.avif)": 1}
    assert len(sample.pictures) == 1 and sample.left_out.as_dict() == {"total": 3, "reasons": reasons, "listed": []}


def test_shards_without_labels_are_one_sentence_of_what_to_do_here(
    shards: Path, exported: Path, tmp_path: Path, captchas: list[tuple[bytes, str]]
) -> None:
    shard = next(shards.rglob("*.parquet"))
    for data, what in ((shard, r"\.parquet is a parquet shard"), (shards, "holds parquet shards and no picture files")):
        config = settings_of(tmp_path / "out", exported, style=None, data=str(data), unlabeled=True)
        with pytest.raises(UserError, match=f"{what}, and --unlabeled reads picture files: leave --unlabeled out"):
            strength.collect(config)
    both = tmp_path / "both"
    both.mkdir()
    (both / "a.png").write_bytes(captchas[0][0])
    (both / "b.parquet").write_bytes(shard.read_bytes())
    sample = strength.collect(settings_of(tmp_path / "out", exported, style=None, data=str(both), unlabeled=True))
    assert sample.left_out.reasons == {"not a picture by name (.parquet)": 1}


def test_ctrl_c_keeps_what_is_measured_and_the_same_command_goes_on(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings_of(tmp_path / "out", exported)
    measurement = strength.Strength(config)
    points: list[dict] = []

    def stop(event: dict) -> None:
        if event["event"] == "change":
            raise KeyboardInterrupt
        points.extend([event] * (event["event"] == "point"))

    measurement.tell = stop
    measurement.measure()
    assert measurement.interrupted and len(points) == 1
    assert re.search(r"^.* not varied: it was interrupted; run the same command again$", measurement.partial)
    again = strength.Strength(config)
    assert set(again.state["steps"]) == {"0"} and len(again.state["changes"]) == 1
    told: list[dict] = []
    again.tell = told.append
    again.measure()
    assert not again.partial and again._missing() == "nothing is missing"
    assert not any(event["event"] == "point" for event in told), "the reading is not repeated"
    assert points[0]["accuracy"] == again.report()["attack"][0]["accuracy"]
    monkeypatch.setattr(strength, "CaptchaPredictor", None)
    done = strength.Strength(config)
    done.measure()
    assert done.state == again.state, "nothing is left to do"
    other = strength.Strength(settings_of(tmp_path / "out", exported, seed=1))
    assert other.state["steps"] == {} and other.state["changes"] == [], "other captchas"


def test_what_other_weights_measured_is_not_taken_over(exported: Path, tmp_path: Path) -> None:
    """Under the same name as well as under another one."""
    import onnx

    reader = tmp_path / "reader.onnx"
    reader.write_bytes(exported.read_bytes())
    config = settings_of(tmp_path / "out", reader)
    strength.Strength(config).measure()
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(exported.read_bytes())
    assert strength.Strength(replace(config, checkpoint=str(copy))).state["steps"], "the same weights"
    model = onnx.load(reader)
    model.doc_string = "trained again"
    onnx.save(model, reader)
    again = strength.Strength(config)
    assert again.state["steps"] == {} and again.state["changes"] == []
    with pytest.raises(UserError, match=r"the checkpoint .*gone\.onnx cannot be read .*: check the name"):
        strength.Strength(replace(config, checkpoint=str(tmp_path / "gone.onnx")))


def test_a_budget_that_is_over_before_a_training_takes_none(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strength, "train_on", lambda *_: pytest.fail("there is no time for it"))
    config = settings_of(tmp_path / "out", exported, count=60, labels="0,10", budget="5s", epochs=1)
    measurement = strength.Strength(config)
    measurement.state["changes"] = [{"op": op} for op, _, _ in measurement._variations]
    measurement.measure()
    assert measurement.partial.startswith("10 labels were not measured: the budget of 5 s was over")
    assert set(measurement.state["steps"]) == {"0"}
    varied = strength.Strength(settings_of(tmp_path / "other", exported))
    varied.clock.started -= 1000
    varied.measure()
    assert "were not varied: the budget of 10 min was over" in varied.partial and not varied.state["changes"]


def test_other_tries_are_other_variations(exported: Path, tmp_path: Path) -> None:
    config = settings_of(tmp_path / "out", exported)
    strength.Strength(config).measure()
    assert strength.Strength(config).state["changes"]
    assert not strength.Strength(replace(config, tries=2)).state["changes"]


@pytest.mark.parametrize("flags", [[], ["--unlabeled"]])
def test_ctrl_c_before_anything_is_measured_leaves_a_report_that_says_so(
    flags: list[str],
    call: Callable,
    captchas: list[tuple[bytes, str]],
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i, (png, text) in enumerate(captchas):
        (data / f"{text}_{i}.png").write_bytes(png)

    class Interrupted(CaptchaPredictor):
        calls = 0

        def predict(self, *arguments: object, **named: object) -> list:
            Interrupted.calls += 1
            if Interrupted.calls == 1:
                raise KeyboardInterrupt
            return super().predict(*arguments, **named)

    monkeypatch.setattr(strength, "CaptchaPredictor", Interrupted)
    words = [
        "--data",
        data,
        "--labels",
        "0",
        "--checkpoint",
        exported,
        "--threads",
        1,
        "--out",
        tmp_path / "out",
        *flags,
    ]
    code, stdout, stderr = call(strength, *words)
    assert code == 130 and "Nothing was measured yet" in stdout and "it was interrupted" in stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    validate(report)
    assert report["verdict"]["level"] == "unknown" and report["partial"] and report["attack"] == []
    assert any("It uses" in line for line in report["weaknesses"]) == (not flags), "labels are known without a reader"
    assert "Nothing was measured yet" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    code, stdout, _ = call(strength, *words)
    assert code == 0 and "Nothing was measured yet" not in stdout, "the same command goes on from there"


def test_a_budget_that_is_over_before_anything_is_measured_says_so(exported: Path, tmp_path: Path) -> None:
    measurement = strength.Strength(
        settings_of(tmp_path / "out", exported, count=60, labels="10", budget="5s", epochs=1)
    )
    measurement.measure()
    report = measurement.report()
    validate(report)
    assert report["verdict"]["level"] == "unknown" and report["attack"] == []
    assert report["partial"].startswith("10 labels were not measured") and "budget of 5 s" in report["partial"]
    assert "Nothing was measured yet" in measurement.write(report).read_text(encoding="utf-8")


def test_unlabeled_pictures_are_read_once(
    captchas: list[tuple[bytes, str]], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for i, (png, _) in enumerate(captchas[:4]):
        (data / f"{i}.png").write_bytes(png)
    given = {"style": None, "data": str(data), "unlabeled": True, "characters": None, "length": None}
    config = settings_of(tmp_path / "out", exported, **given)
    cut = strength.Strength(config, on_event=lambda event: event["event"] == "step" and raise_interrupt())
    cut.measure()
    assert cut.partial.startswith("only 0 of the 4 pictures were read: it was interrupted") and cut.sheets() == []
    whole = strength.Strength(config)
    whole.measure()
    assert not whole.partial and len(whole.state["unlabeled"]["readings"]) == 4
    monkeypatch.setattr(strength, "CaptchaPredictor", lambda *_, **__: pytest.fail("they were read before"))
    again = strength.Strength(config)
    assert again.pace.done == 1
    again.measure()
    assert again.state == whole.state


@pytest.mark.parametrize("stop", ["budget", "ctrl-c"])
def test_a_reading_without_labels_that_is_stopped_keeps_what_was_read(
    stop: str, captchas: list[tuple[bytes, str]], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    pngs = [png for png, _ in captchas[:10]]
    for i, png in enumerate(pngs):
        (data / f"{i}.png").write_bytes(png)
    monkeypatch.setattr(strength, "CHUNK", 4)
    given = {"style": None, "data": str(data), "unlabeled": True, "characters": None, "length": None}
    config = settings_of(tmp_path / "out", exported, **given)
    expected = CaptchaPredictor(exported, threads=1).predict(pngs)

    def after_the_first_chunk(event: dict) -> None:
        if event["event"] == "step" and event["done"] > 0:
            cut.clock.started -= 1000  # as if so many seconds had passed
            if stop == "ctrl-c":
                raise KeyboardInterrupt

    cut = strength.Strength(config, on_event=after_the_first_chunk)
    cut.measure()
    report = cut.report()
    validate(report)
    why = "the budget of 10 min was over" if stop == "budget" else "it was interrupted"
    assert report["partial"].startswith(f"only 4 of the 10 pictures were read: {why}")
    assert report["mean_confidence"] == pytest.approx(np.mean([p.confidence for p in expected[:4]]), abs=1e-4)
    assert [len(items) for _, items in cut.sheets()] == [4, 4]
    seen: list[float] = []
    again = strength.Strength(config, on_event=lambda event: seen.append(event.get("done", 0)))
    again.measure()
    assert not again.partial and again.state["unlabeled"]["readings"] == [p.text for p in expected]
    assert seen == sorted(seen) and seen[-1] == 1 and len(seen) == 4, "a plan, a start, and two chunks"


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def test_without_torch_it_is_read_without_labels_and_said(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strength.importlib.util, "find_spec", lambda name: None)
    measurement = strength.Strength(settings_of(tmp_path, exported, labels="0,10"))
    assert measurement.counts == [0] and "pip install -r requirements.txt" in measurement.skipped[0]


def test_people_see_a_bar_and_a_line_for_each_result(capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar()
    bar({"event": "plan", "labels": [0], "measured": 3, "ops": []})
    bar({"event": "step", "doing": "reading without labels", "done": 0.5, "seconds_left": None})
    bar({"event": "step", "doing": "training on 10 labels", "done": 0.75, "seconds_left": 12.3})
    bar({"event": "point", "labels": 10, "accuracy": 0.5, "interval": (0.4, 0.6)})
    bar({"event": "change", "op": "lines", "levels": [{"accuracy": 0.9}, {"accuracy": 0.5}, {"accuracy": 0.1}]})
    bar.close()
    out, err = capsys.readouterr()
    assert out.splitlines() == ["   10 labels: 50.0% (40.0% to 60.0%)", "lines, weak to strong: 90%, 50%, 10%"]
    assert "Traceback" not in err


def test_the_command_line_ends_with_the_verdict_and_where_the_report_is(
    call: Callable, exported: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ["--out", out, "--style", "line", "--characters", "a-d", "--length", 3, "--count", 40, "--tries", 1]
    words += ["--labels", "0,500", "--checkpoint", exported, "--threads", 1]
    code, stdout, stderr = call(strength, *words, "--budget", "1s")
    assert code == 0 and f"Report: {out / 'report.html'}" in stdout
    assert json.loads((out / "report.json").read_text())["verdict"]["text"] in stdout
    assert "skipped: 500 labels: only" in stderr and "Traceback" not in stderr
