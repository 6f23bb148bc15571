"""The test generators of benchmarks/: all of them draw, alike for one seed and otherwise for others."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest

from captcha_reader.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from generators import GENERATORS, HARD, PLAIN, UNSEEN, tools


def test_there_are_64_plain_ones_and_40_hard_ones_of_which_some_are_not_looked_at() -> None:
    assert (len(PLAIN), len(HARD), len(GENERATORS)) == (64, 40, 104)
    assert len(UNSEEN) == 18 and set(HARD) > UNSEEN


@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_draws_its_text_alike_for_one_seed_and_otherwise_for_others(name: str) -> None:
    try:
        drawn = [GENERATORS[name](random.Random(seed)) for seed in (0, 0, 1, 2, 3)]
    except UserError as error:
        pytest.skip(str(error))
    texts, pictures = zip(*drawn, strict=True)
    assert texts[0] == texts[1] and (np.asarray(pictures[0]) == np.asarray(pictures[1])).all()
    assert len(set(texts)) == 4
    assert all(3 < len(text) < 9 and text.isascii() and text.isalnum() for text in texts)
    for picture in pictures:
        assert 40 <= picture.width <= 600 and 20 <= picture.height <= 300
        assert np.asarray(picture.convert("RGB")).std() > 5


def test_a_missing_font_is_named_with_what_to_do() -> None:
    with pytest.raises(UserError, match=r"Nowhere.ttf is not below .*font_packages.txt"):
        tools.font("Nowhere.ttf", 20)
