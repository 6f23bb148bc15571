"""The strength report: its figures against an independent count, its words, its page, and a whole run as a process."""

from __future__ import annotations

import io
import json
import math
import random
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from captcha_reader.errors import UserError
from captcha_reader.reading.metrics import detailed_metrics
from captcha_reader.strength.figures import (
    accuracy_figures,
    character_table,
    guesses_needed,
    legibility,
    near_duplicates,
    repeated_texts,
    secret_bits,
)
from captcha_reader.strength.page import Example, attempts, duration, percent, render_page
from captcha_reader.strength.report import build_report
from strength import parse_duration, parse_labels

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
    none = accuracy_figures(["a"] * 200, ["b"] * 200)
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
    assert near_duplicates([*pictures, buffer.getvalue()]) == [(3, 12)]
    assert near_duplicates(pictures[:1]) == []


def test_legibility_falls_with_what_troubles_people() -> None:
    clean = legibility(picture())
    faint = Image.blend(picture(), Image.new("RGB", (90, 40), "white"), 0.8)
    pixels = np.asarray(picture()).copy()
    specks = np.random.default_rng(0).random(pixels.shape[:2]) < 0.25
    pixels[specks] = 0
    noisy = Image.fromarray(pixels)
    assert clean["score"] > legibility(faint)["score"] and clean["contrast"] > 3 * legibility(faint)["contrast"]
    assert clean["score"] > legibility(noisy)["score"] and clean["clarity"] > legibility(noisy)["clarity"]
    assert clean["score"] > legibility(picture().filter(ImageFilter.GaussianBlur(4)))["score"]
    assert legibility(Image.new("RGB", (20, 20), "white"))["score"] == 0
    assert all(0 <= value <= 1 for p in (picture(), faint, noisy) for value in legibility(p).values())


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
    assert [duration(x) for x in (0, 40, 600, 7200)] == ["–", "40 s", "10 min", "2.0 h"]
    assert attempts({"attempts": None, "n": 50}) == "none in 50" and attempts({"attempts": 1.61, "n": 50}) == "1.6"


def step(labels: int, right: int, n: int = 100) -> dict:
    truths = ["a"] * n
    figures = accuracy_figures(truths, ["a"] * right + ["b"] * (n - right))
    return {"labels": labels, **figures, "training_seconds": 40.0 * (labels > 0), "typing_seconds": 10.0 * labels}


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
    data = {"name": "<set>", "pictures": 80, "labeled": 80 if attack else 0, "left_out": 0}
    sample = {"texts": truths, "pictures": [picture(i, f"{i}") for i in range(4)]}
    values = {"data": data, "settings": settings, "attack": attack, "last": last if attack else None, "sample": sample}
    return build_report(**(values | about | changes))


def test_the_verdict_has_its_figures() -> None:
    verdict = make_report([step(0, 62), step(100, 97), step(300, 98)])["verdict"]
    assert "never seen it reads 62 % (52 % to 71 %)" in verdict["text"]
    assert "After 100 labels, 17 min of a person's typing and 40 s of training, 97 %" in verdict["text"]
    assert verdict["level"] == "bad"


@pytest.mark.parametrize("rights", [(100, 100), (100, 90), (0, 0), (3, 100)])
def test_every_curve_has_a_verdict(rights: tuple[int, int]) -> None:
    assert "After 10 labels" in make_report([step(0, rights[0]), step(10, rights[1])])["verdict"]["text"]
    assert "After 10 labels" in make_report([step(10, rights[1])])["verdict"]["text"]


def test_the_verdict_does_not_praise() -> None:
    good = make_report([step(0, 0, 400)])["verdict"]
    assert good["level"] == "good" and "does not prove strength" in good["advice"]
    fair = make_report([step(0, 12, 200)])["verdict"]
    assert fair["level"] == "fair" and "broken" in fair["advice"] and "17 attempts" in fair["advice"]


def test_what_gives_it_away_is_said() -> None:
    lines = " ".join(make_report([step(0, 62)])["weaknesses"])
    assert "4 characters (abcd)" in lines and "Texts repeat: abc (10 times)" in lines
    assert "d (" in lines and "Characters that hold" in lines


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
    report = make_report([step(0, 62), step(10, 80)], data={"name": nasty, "pictures": 1, "labeled": 1, "left_out": 3})
    html = render_page(report, [("Read wrongly", [Example(picture(), nasty, 0.9, "abc")]), ("none", [])])
    page = Page()
    page.feed(html)
    assert page.scripts == 0 and nasty in page.text
    assert all(link.startswith("data:image/webp;base64,") or link.startswith("#") for link in page.fetched)
    assert not re.search(r"url\((?!#)", html) and "@import" not in html
    assert "62 % (52 % to 71 %)" in page.text and "3 left out" in " ".join(page.text.split())


def test_a_report_without_labels_says_what_it_can() -> None:
    report = make_report([])
    html = render_page(report, [("Most certain", [Example(picture(), "abc", 0.9)])])
    assert "Without labels nothing is certain" in html and "The attack" not in html
    json.dumps(report, allow_nan=False)
