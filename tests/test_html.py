"""The page's HTML: what comes from outside is never markup."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captcha_reader.text import Alphabet, build_codec
from captcha_reader.web.batch_reading import Batch
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.html import as_sentence, gallery, note, percent, progress_bar, render, sentence
from captcha_reader.web.knobs import Trial, success
from captcha_reader.web.strength_job import Asked, StrengthJob
from captcha_reader.web.tabs.batch import batch_grid, batch_summary
from captcha_reader.web.tabs.make import sweep_chart
from captcha_reader.web.tabs.model import model_card
from captcha_reader.web.tabs.read import likely_card, no_reading, reading_card, where_card
from captcha_reader.web.tabs.strength import report_links, strength_card
from captcha_reader.web.tabs.teach import job_card, running_strip
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
        "other": NASTY,
    }
    figures = {"n": 10, "sequence_accuracy": 0.5, "sequence_accuracy_ignore_case": 0.6, "wilson_95": (0.2, 0.8)}
    taught = FineTuning(NASTY, Path(), Path(), NASTY, None, 40, name=NASTY, state="done", note=NASTY, model=NASTY)
    taught.history = [{"epoch": 1, "train_loss": 2.0}, {"epoch": 2, "train_loss": 1.0, "train_accuracy": 0.5}]
    taught.result = {
        "before": figures,
        "after": figures,
        "expect": NASTY,
        "left_out": 2,
        "reasons": {NASTY: 2},
        "export": NASTY,
    }
    running = FineTuning(NASTY, Path(), Path(), NASTY, None, 5, name=NASTY, state="training", note=NASTY, left=70.0)
    running.plan = [{"name": NASTY, "phases": [{"name": NASTY, "epochs": 3, "steps": 9}]}]
    measured = StrengthJob(NASTY, Path(), Path(), NASTY, Asked(), NASTY, 40, key=NASTY, state="done", note=NASTY)
    point = {"labels": 0, "n": 20, "accuracy": 0.5, "interval": [0.3, 0.7], "training_seconds": 0, "typing_seconds": 0}
    measured.points = [point, point | {"labels": 30, "training_seconds": 40.0, "typing_seconds": 300.0}]
    measured.verdict, measured.partial = {"level": NASTY, "text": NASTY, "advice": NASTY}, NASTY
    measured.reports = {"report.html": b"", "report.json": b""}
    measuring = StrengthJob(NASTY, Path(), Path(), NASTY, Asked(), NASTY, state="measuring", note=NASTY, place=NASTY)
    measuring.points, measuring.plan = [point], [0, 10, 30]
    metadata: dict[str, Any] = {
        "model": {
            "name": NASTY,
            "head": NASTY,
            "backbone": NASTY,
            "alphabet": "<&{",
            "image_size": [NASTY, NASTY],
            "max_length": NASTY,
            "resize": NASTY,
        },
        "metrics": {NASTY: {"n": 10, "sequence_accuracy": 0.5, "cer": 0.1, "note": NASTY}},
        "provenance": {"seen": f"a: {NASTY}", "config": {"init": NASTY}, "time": NASTY, "versions": {NASTY: NASTY}},
    }
    batch = Batch([row], [(NASTY, NASTY)], labeled=True, scheme=NASTY)
    return {
        "header": render("header", title=NASTY, responsible=NASTY),
        "footer": render("footer", privacy=NASTY, kept=True),
        "reading": reading_card(prediction("<&{"), 3.2, NASTY),
        "example": reading_card(prediction("<&{"), 3.2, NASTY, b"png"),
        "nothing": reading_card(prediction(""), 3.2, NASTY),
        "no reading": no_reading(NASTY),
        "likely": likely_card([(NASTY, 0.9), ("", 0.00001)]),
        "where": where_card(Image.new("RGBA", (9, 9)), prediction("<&{")),
        "nowhere": where_card(None, prediction("<&{")),
        "progress": progress_bar(0.5, NASTY, NASTY),
        "batch": batch_summary(batch, NASTY, 1.0, "auto", NASTY, 5),
        "nothing read": batch_summary(Batch([], [(NASTY, NASTY)]), NASTY, 1.0),
        "grid": batch_grid(batch),
        "gallery": gallery([(b"png", NASTY, NASTY)]),
        "strength": strength_card(measured, 0, report_links(measured)),
        "strength of another": strength_card(measuring, 1, {}, mine=False),
        "measuring": strength_card(measuring, 0, {}),
        "sweep": sweep_chart(NASTY, [(0, success([trial])), (1, success([trial]))], 0.5),
        "job": job_card(taught, 2, {NASTY: NASTY}),
        "running job": job_card(running, 0, {}, mine=False),
        "strip": running_strip(running, 0),
        "waiting": job_card(FineTuning(NASTY, Path(), Path(), NASTY, None, 5, note=NASTY), 2, {}),
        "model": model_card(NASTY, Path(__file__), metadata, NASTY),
        "note": note(NASTY),
        "sentence": note(sentence(NASTY)),
    }


@pytest.mark.parametrize("name", pieces())
def test_nothing_from_outside_is_markup(name: str):
    html = pieces()[name]
    tags = Tags(html)
    assert "<img src=x" not in html and "${" not in html and "{{" not in html
    assert not [key for key, _ in tags.attributes if key.startswith("on")]


def test_percentages_are_honest():
    assert percent(1) == "100.0 %" and percent(0.9999) == "99.9 %" and percent(0.5) == "50.0 %"
    assert percent(0.996, 0) == "99 %" and percent(1, 0) == "100 %" and percent(0.99999, 2) == "99.99 %"
    assert "100 %" not in reading_card(prediction(), 1, "m")
    assert sentence("no file") == "No file."


def test_no_path_of_the_server_is_told():
    said = as_sentence(
        "/srv/models/shop/best.onnx is damaged: see C:\\Users\\me\\a.txt, GET /models or https://x.org/a/b"
    )
    assert said == "Best.onnx is damaged: see a.txt, GET /models or https://x.org/a/b."


def test_a_card_shows_one_moment_of_a_job_that_ends_while_it_is_drawn() -> None:
    class Ending(list):
        """A curve that takes long to draw."""

        def __iter__(self) -> Iterator:
            job.state = "cancelled"
            return super().__iter__()

    row = {"epoch": 1, "train_loss": 1.0, "validation": {"loss": 1.0, "sequence_accuracy": 0.5}}
    job = FineTuning("1", Path(), Path(), "reader", None, 40, name="shop", state="training", history=Ending([row, row]))
    card = str(job_card(job, 0, {}))
    assert job.state == "cancelled"
    assert "Fine-tuning: shop" in card and 'data-state="training"' in card
    assert "Stopped: shop" in str(job_card(job, 0, {}))
