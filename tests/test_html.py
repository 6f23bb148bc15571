"""The page's HTML: what comes from outside is never markup."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captcha_reader.text import Alphabet, build_codec
from captcha_reader.web import html as views
from captcha_reader.web.jobs import Job
from captcha_reader.web.knobs import Trial, success
from predict import Prediction

NASTY = "<img src=x onerror=alert(1)>\"'`${1}{{x}}&amp;"


class Tags(HTMLParser):
    """The tags of a piece of HTML, and whether they close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in ("img", "br", "meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def prediction(text: str = "ab", alphabet: str = "ab<&{") -> Prediction:
    codec = build_codec("ctc", Alphabet(alphabet))
    log_probs = np.full((10, len(alphabet) + 1), -9.0, dtype=np.float32)
    confidences = tuple(0.95 - 0.3 * i for i in range(len(text)))
    return Prediction(text, 0.7, confidences, ((0, 1),) * len(text), log_probs, codec, (0, 0, 9, 9))


def pieces() -> dict[str, str]:
    trial = Trial(b"png", NASTY, NASTY, 0.5)
    row = {
        "file": NASTY,
        "reading": "ab",
        "confidence": 0.5,
        "prediction": prediction("<&{"),
        "picture": Image.new("RGB", (9, 9)),
        "label": NASTY,
        "right": False,
    }
    report = {"n": 20, "sequence_accuracy": 0.5, "wilson_95": (0.3, 0.7), "cer": 0.2}
    taught = Job(NASTY, Path(), Path(), NASTY, None, 20, "done", note=NASTY, ended=0)
    taught.history = [{"epoch": i, "train_loss": 3 / i} for i in (1, 2)]
    taught.result = {
        "before": report,
        "after": report,
        "expect": NASTY,
        "left_out": 2,
        "reasons": {NASTY: 2},
        "export": NASTY,
    }
    metadata: dict[str, Any] = {
        "model": {"name": NASTY, "head": "ctc", "alphabet": "<&{", "image_size": [48, 192], "max_length": 5},
        "metrics": {NASTY: {"n": 10, "sequence_accuracy": 0.5, "cer": 0.1, "note": NASTY}},
        "provenance": {"seen": NASTY, "config": {"init": NASTY}, "time": NASTY, "versions": {NASTY: NASTY}},
    }
    return {
        "header": views.header(NASTY, NASTY),
        "reading": views.reading_card(prediction("<&{"), 3.2, NASTY),
        "nothing": views.reading_card(prediction(""), 3.2, NASTY),
        "likely": views.likely_card([(NASTY, 0.9), ("", 0.00001)]),
        "where": views.where_card(Image.new("RGBA", (9, 9)), prediction("<&{")),
        "nowhere": views.where_card(None, prediction("<&{")),
        "progress": views.progress_bar(0.5, NASTY, NASTY),
        "table": views.batch_table([row], labelled=True),
        "grid": views.batch_grid(NASTY, [row], True, Image.new("RGB", (9, 9))),
        "link": views.data_link(NASTY, "text/csv", NASTY.encode(), NASTY),
        "strength": views.strength_card(success([trial] * 30), [trial] * 30),
        "sweep": views.sweep_chart(NASTY, [(0, success([trial])), (1, success([trial]))], 0.5),
        "job": views.job_card(taught, 2, {NASTY: NASTY}),
        "waiting": views.job_card(Job(NASTY, Path(), Path(), NASTY, None, 5, note=NASTY), 2, {}),
        "model": views.model_card(NASTY, Path(__file__), metadata, NASTY),
        "note": views.note(views.sentence(NASTY)),
    }


@pytest.mark.parametrize("name", pieces())
def test_nothing_from_outside_is_markup(name: str):
    html = pieces()[name]
    tags = Tags(html)
    assert "<img src=x" not in html and "${" not in html and "{{" not in html
    assert not [key for key, _ in tags.attributes if key.startswith("on")]


def test_percentages_are_honest():
    assert views.percent(1) == "100.0 %" and views.percent(0.9999) == "99.9 %" and views.percent(0.5) == "50.0 %"
    assert "100 %" not in views.reading_card(prediction(), 1, "m")
    assert views.sentence("no file") == "No file."
