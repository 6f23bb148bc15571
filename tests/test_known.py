"""The line "What do you know of it?": what is typed, and what a fine-tuned model offers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from captcha_reader.errors import UserError
from captcha_reader.reading.constraints import Constraints
from captcha_reader.text import Alphabet
from captcha_reader.web.tabs.known import NotPossible, known, offer, require_fit
from captcha_reader.web.tabs.read import describe_reading, read_picture
from interface import open_models
from predict import CaptchaPredictor


def test_an_empty_line_knows_nothing():
    assert known("", "", False) is None and known(None, None, None) is None and known("  ", " ", False) is None
    assert known(" 0-9A-F ", " 4-6 ", True) == Constraints("0-9A-F", "4-6", ignore_case=True)
    assert known("", "6", False) == Constraints(length="6") and known("", "", True) == Constraints(ignore_case=True)


@pytest.mark.parametrize("line", [("", "0", False), ("", "6-4", False), ("", "six", False), ("9-0", "", False)])
def test_a_wrong_entry_is_one_sentence(line: tuple[str, str, bool]):
    with pytest.raises(NotPossible) as error:
        known(*line)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({}, ""),
        ({"label_characters": "0123456789", "label_length": [6, 6]}, "Its labels: 0-9, 6 characters – use them"),
        (
            {"label_characters": "0123456789ABCDEF", "label_length": [4, 6]},
            "Its labels: 0-9A-F, 4-6 characters – use them",
        ),
        ({"label_length": [1, 1]}, "Its labels: 1 character – use them"),
    ],
)
def test_labels_are_offered_until_they_are_given(labels: dict, said: str):
    suggested = Constraints.from_labels({"provenance": labels})
    assert offer(suggested, None) == said
    assert offer(suggested, Constraints(length="3")) == said
    if suggested:
        assert offer(suggested, known(suggested.characters or "", suggested.length, False)) == ""


def test_a_picture_is_read_with_what_is_known(exported: Path, captchas: list[tuple[bytes, str]], tmp_path: Path):
    models = open_models(tmp_path, exported, 1)
    predictor = CaptchaPredictor(exported, threads=1)
    png = captchas[0][0]
    for constraints in (None, Constraints("ab", 2), Constraints(length=1)):
        expected = predictor.predict([png], constraints=constraints)[0]
        prediction = read_picture(png, None, models, constraints)[1]
        assert (prediction.text, prediction.confidence) == (expected.text, pytest.approx(expected.confidence, abs=1e-5))
    assert len(prediction.text) == 1
    assert describe_reading(png, None, models)["text"] == predictor.predict([png])[0].text
    for impossible in (Constraints("xyz"), Constraints(length=900)):
        with pytest.raises(NotPossible, match="cannot write"):
            read_picture(png, None, models, impossible)
    with pytest.raises(UserError) as error:
        read_picture(b"no picture", None, models, Constraints("ab"))
    assert not isinstance(error.value, NotPossible)  # the picture is at fault, not the line


def test_who_cannot_write_it_is_named_where_two_models_read():
    predictor = SimpleNamespace(alphabet=Alphabet("abcd"))
    require_fit(None, predictor)
    require_fit(Constraints("abc"), predictor, "mine")
    with pytest.raises(NotPossible, match=r"^mine: the model cannot write 'x'"):
        require_fit(Constraints("abx"), predictor, "mine")
