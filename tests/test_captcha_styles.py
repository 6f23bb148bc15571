"""Random schemes: repeatable, various, with a part that training never meets; every field of a style does something."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import cv2
import numpy as np
import pytest

import captcha_fonts
import captcha_generator as generator
from captcha_fonts import find_fonts, segment_glyph
from captcha_generator import CaptchaSettings, draw_captcha, render_captcha
from captcha_reader.config import ALPHANUMERIC
from captcha_reader.errors import UserError
from captcha_reader.images import open_image
from captcha_reader.text import Alphabet
from captcha_styles import HELD_OUT_SCHEMES, SCHEMES, Style, _draw_scheme, get_style, random_scheme

CHARACTERS = Alphabet.parse(ALPHANUMERIC).characters
PLAIN = Style(text_tint=0, rotation=0, shear=0, bounce=0, font_per_letter=False, colour_per_letter=False)


def draw(style: Style, text: str = "Rb5e", seed: int = 1) -> np.ndarray:
    return draw_captcha(text, style, random.Random(seed), find_fonts(CHARACTERS)).astype(int)


def kinds_of(number: int, held_out: bool) -> tuple[str, ...]:
    """The kinds of a scheme, found the way the docstring of `random_scheme` says, from its parts alone."""
    style = random_scheme(number, held_out)
    for attempt in range(1000):
        drawn, kinds = _draw_scheme(random.Random(f"scheme/{number}/{attempt}"), style.font_part)  # type: ignore[arg-type]
        if drawn == style:
            return kinds
    raise AssertionError("the scheme cannot be drawn again")


def test_a_number_names_a_scheme() -> None:
    random_scheme.cache_clear()
    first = [random_scheme(n) for n in range(200)]
    random_scheme.cache_clear()
    assert first == [random_scheme(n) for n in range(200)]
    assert len(set(first)) == 200


def test_no_combination_of_kinds_is_in_both_parts() -> None:
    trained = {kinds_of(n, False) for n in range(300)}
    held_out = {kinds_of(n, True) for n in range(60)}
    assert len(trained) > 200 and len(held_out) > 30
    assert not trained & held_out


def test_no_font_is_in_both_parts() -> None:
    fonts = find_fonts(CHARACTERS)
    used: dict[bool, set[str]] = {
        held_out: {path for n in range(300) for path in fonts.choices(random_scheme(n, held_out), "A")}
        for held_out in (False, True)
    }
    assert used[False] and used[True]
    assert not used[False] & used[True]
    assert used[False] | used[True] == set(fonts.paths)


@pytest.mark.parametrize("name", [SCHEMES, HELD_OUT_SCHEMES])
def test_schemes_vary_in_size_alphabet_length_and_mode(name: str) -> None:
    settings = CaptchaSettings((name,), length=(3, 10), seed=4)
    drawn = [render_captcha(i, settings) for i in range(150)]
    pictures = [open_image(png) for png, _ in drawn]
    texts = [text for _, text in drawn]
    assert len({picture.size for picture in pictures}) > 100
    assert {len(text) for text in texts} >= {4, 5, 6, 7}
    assert any(text.isdigit() for text in texts) and any(text.isupper() and text.isalpha() for text in texts)
    heights = [picture.height for picture in pictures]
    assert min(heights) < 35 and max(heights) > 90
    # Light on dark as well as dark on light: the middle of the border's brightness.
    borders = [np.median(np.asarray(picture.convert("L"))[0]) for picture in pictures]
    assert min(borders) < 80 and max(borders) > 220


def test_most_schemes_pile_up_little_clutter_and_some_much() -> None:
    """As the libraries that people use: careful eyes misread more than half of the old, messier ones."""
    names = ("spots", "lines", "grid", "shapes", "decoys", "negatives", "noise", "salt", "strokes", "hooks", "frame")
    for held_out in (False, True):
        schemes = [random_scheme(n, held_out) for n in range(400)]
        kinds = [sum(max(getattr(style, name)) > 0 for name in names) for style in schemes]
        assert 0.75 < np.mean(np.array(kinds) <= 2) < 0.95
        assert max(kinds) >= 4


def test_almost_every_captcha_of_a_scheme_shows_its_letters() -> None:
    """Drawn with and without letters from the same dice, a picture differs."""
    visible = 0
    # Bitmaps have no `text_size` that could hide them.
    numbers = [number for number in range(80) if not random_scheme(number).bitmap[1]][:60]
    for number in numbers:
        style = replace(random_scheme(number), noise=(0, 0), jpeg=None)
        picture = draw(style, "W8", seed=number)
        hidden = replace(style, text_size=(0.001, 0.001), weight=(0, 0))
        visible += np.abs(picture - draw(hidden, "W8", seed=number)).max() > 25
    assert visible >= 57


def test_a_scheme_keeps_to_its_characters_and_lengths_as_far_as_they_are_asked_for() -> None:
    style = replace(PLAIN, characters="0123456789", length=(4, 5))
    for asked, allowed, lengths in (
        (CHARACTERS, set("0123456789"), {4, 5}),
        ("ab12", set("12"), {4, 5}),
        ("xyz", set("xyz"), {4, 5}),
    ):
        texts = [render_captcha(i, CaptchaSettings((style,), asked, (3, 10)))[1] for i in range(40)]
        assert set("".join(texts)) == allowed
        assert {len(text) for text in texts} == lengths
    texts = [render_captcha(i, CaptchaSettings((style,), "ab12", (6, 7)))[1] for i in range(10)]
    assert {len(text) for text in texts} == {6}  # the nearest length that was asked for


@pytest.mark.parametrize("effect", ["hollow", "edge", "shadow", "stencil", "stripes", "dots", "pixel", "pen"])
def test_every_effect_changes_the_letters_and_nothing_else(effect: str) -> None:
    style = replace(PLAIN, height=(80, 80), width=(240, 240), background_level=(255, 255), background_tint=0)
    style = replace(style, effect_level=(128, 128), text_level=(0, 0))
    plain, changed = draw(style), draw(replace(style, effect=effect))
    assert (plain != changed).any()
    rows, columns = np.nonzero((plain < 250).any(2))
    outside = changed.copy()
    outside[max(rows.min() - 12, 0) : rows.max() + 13, max(columns.min() - 25, 0) : columns.max() + 26] = 255
    assert (outside == 255).all()
    if effect in ("hollow", "stencil", "stripes", "pen"):
        assert (changed < 128).sum() < (plain < 128).sum()


@pytest.mark.parametrize(
    "change",
    [
        {"shapes": (6, 6)},
        {"grid": (12, 12)},
        {"strokes": (4, 4)},
        {"hooks": (2, 2)},
        {"frame": (2, 2)},
        {"slant": 0.4},
        {"even": 1},
        {"uneven": 0.4},
        {"jostle": 0.3},
        {"boxed": 1},
        {"opacity": (0.5, 0.5)},
        {"checks": (12, 12)},
        {"corners": 0.2},
        {"one_ink": 1, "spots": (9, 9)},
        {"bitmap": (12, 12)},
        {"lines": (2, 2), "line_kinds": ("rings",)},
        {"relief": "emboss"},
        {"relief": "charcoal"},
        {"decoys": (12, 12)},
        {"negatives": (3, 3)},
        {"segments": True},
        {"tiles": 1},
        {"cuts": (3, 3)},
        {"fringe": (2, 4)},
        {"dither": "random"},
        {"dither": "ordered"},
        {"lines": (2, 2), "line_kinds": ("loop",)},
        {"tilt": 8},
        {"perspective": 0.1},
        {"fan": (40, 40)},
        {"lenses": (3, 3)},
        {"torn": (5, 5)},
        {"enlarge": (4, 4), "cells": "disc"},
        {"enlarge": (4, 4), "cells": "gap"},
        {"stipple": (2, 2)},
        {"arc": (0.2, 0.2)},
        {"swirl": (30, 30)},
        {"pinch": (0.3, 0.3)},
        {"shrink": (2, 2)},
        {"levels": 2},
        {"spread": True},
        {"size_jitter": 0.3},
        {"drop": 0.2},
        {"background": ("grain",), "background_level": (100, 250)},
        {"background": ("stripes",), "background_level": (100, 250)},
        {"background": ("patches",), "background_level": (100, 250)},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_every_field_does_something_in_every_mode(change: dict, mode: str) -> None:
    style = replace(PLAIN, mode=mode)
    if mode == "RGBA" and {"background", "levels", "relief", "dither", "stipple", "cells"} & set(change):
        pytest.skip("a transparent ground has no pattern, and its colours stay as they are")
    if mode != "RGB" and "fringe" in change:
        pytest.skip("only where each channel is a colour of print")
    before, after = draw(style), draw(replace(style, **change))
    if "cells" in change:
        before = draw(replace(style, enlarge=(4, 4)))
    assert after.shape == before.shape
    assert (before != after).any()


def test_spread_letters_share_the_width_evenly() -> None:
    style = replace(PLAIN, width=(400, 400), spread=True, margin=0, text_size=(0.6, 0.6), text_level=(0, 0))
    dark = (draw(style, "HHHH").min(2) < 100).any(0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], dark.astype(int), [0]])))
    centres = (edges[::2] + edges[1::2]) / 2
    assert np.allclose(np.diff(centres), 100, atol=3)


def test_strokes_are_as_short_as_letters() -> None:
    style = replace(PLAIN, height=(100, 100), width=(900, 900), background_level=(255, 255), background_tint=0)
    style = replace(style, line_level=(0, 0), line_tint=0, text_level=(255, 255), text_tint=0, strokes=(1, 1))
    inked = [np.nonzero((draw(style, "I", seed) < 200).any(2)) for seed in range(20)]
    inked = [places for places in inked if len(places[0])]  # a stroke may lie outside
    assert len(inked) >= 10
    for rows, columns in inked:
        assert np.ptp(columns) <= 108
        assert np.ptp(rows) <= 68


@pytest.mark.parametrize("left", [20.0, 300.0])
def test_hooks_lie_at_the_ends_of_the_word(left: float) -> None:
    style = replace(PLAIN, height=(50, 50), width=(600, 600), background_level=(255, 255), background_tint=0)
    style = replace(style, text_level=(0, 0), left=(left, left), baseline=0.7)
    ends = set()
    for seed in range(20):
        plain, hooked = draw(style, "HHHHH", seed), draw(replace(style, hooks=(1, 1)), "HHHHH", seed)
        word, hook = (np.flatnonzero(changed.any((0, 2))) for changed in (plain < 200, plain != hooked))
        if len(hook):  # else behind the letters
            last = hook.mean() > word.mean()
            ends.add(bool(last))
            assert np.abs(hook - word[-1 if last else 0]).max() <= 30
    assert ends == {False, True}


def test_a_frame_is_as_thick_as_told_and_lies_along_the_sides() -> None:
    style = replace(PLAIN, background_level=(255, 255), background_tint=0, line_level=(0, 0), line_tint=0)
    plain, framed = draw(style, "H"), draw(replace(style, frame=(3, 3)), "H")
    inside = np.s_[3:-3, 3:-3]
    assert np.array_equal(plain[inside], framed[inside])
    framed[inside] = 0
    assert (framed == 0).all()


def test_letters_of_a_slanting_word_lean_to_one_side() -> None:
    """Of an upright bar, how far its upper half lies to the right of the lower one; up to 0.4 of the height."""
    style = replace(PLAIN, height=(100, 100), width=(600, 600), background_level=(255, 255), background_tint=0)
    style = replace(style, text_level=(0, 0), rotation=0, shear=0, text_size=(0.6, 0.6), colour_per_letter=False)
    style = replace(style, slant=0.5, spread=True, fonts=("DejaVuSans.ttf",))
    words = []
    for seed in range(20):
        dark = draw(style, "IIII", seed).min(2) < 100
        rows, _ = np.nonzero(dark)
        top, bottom = rows.min(), rows.max()
        leans = []
        for letter in np.split(dark, 4, axis=1):
            ends = [np.flatnonzero(letter[r]).mean() for r in (top + 3, bottom - 3)]
            leans.append((ends[0] - ends[1]) / (bottom - top))
        assert np.ptp(leans) < 0.1
        words.append(np.mean(leans))
    assert min(words) < -0.2 and max(words) > 0.2 and max(np.abs(words)) < 0.6


def test_even_letters_are_as_high_as_capitals() -> None:
    style = replace(PLAIN, height=(100, 100), width=(600, 600), background_level=(255, 255), background_tint=0)
    style = replace(style, text_level=(0, 0), rotation=0, shear=0, bounce=0, text_size=(0.6, 0.6), spread=True, even=1)
    style = replace(style, fonts=("DejaVuSans.ttf",), font_per_letter=False)
    heights = [
        np.ptp(np.nonzero((letter.min(2) < 128).any(1))[0]) + 1 for letter in np.split(draw(style, "Hxgpo"), 5, axis=1)
    ]
    assert max(heights) - min(heights) <= 3
    uneven = draw(replace(style, even=0), "Hxgpo")
    assert np.ptp([np.ptp(np.nonzero((x.min(2) < 128).any(1))[0]) for x in np.split(uneven, 5, axis=1)]) > 8


# One font's letters, black on white, upright and from one place on.
UPRIGHT = replace(PLAIN, height=(100, 100), width=(600, 600), background_level=(255, 255), background_tint=0)
UPRIGHT = replace(UPRIGHT, text_level=(0, 0), rotation=0, shear=0, text_size=(0.6, 0.6), left=(30, 30))
UPRIGHT = replace(UPRIGHT, fonts=("DejaVuSans.ttf",), font_per_letter=False)


def inked_columns(dark: np.ndarray) -> np.ndarray:
    """(n, 2): first column of each run of columns of (H, W) that have ink, and the first one behind it."""
    inked = dark.any(0).astype(int)
    return np.flatnonzero(np.diff(np.concatenate([[0], inked, [0]]))).reshape(-1, 2)


def test_uneven_letters_differ_in_width_and_fill_the_same_room() -> None:
    style = replace(UPRIGHT, spacing=(0.2, 0.2))

    def letters(uneven: float) -> np.ndarray:
        return inked_columns(draw(replace(style, uneven=uneven), "HHHHH").min(2) < 128)

    plain, changed = letters(0), letters(0.4)
    assert np.ptp(np.diff(plain)) <= 1 and np.ptp(np.diff(changed)) > 5
    assert changed[0, 0] == pytest.approx(plain[0, 0], abs=2) and changed[-1, 1] == pytest.approx(plain[-1, 1], abs=4)


def test_jostled_letters_overlap_and_stand_apart_in_the_same_room() -> None:
    style = replace(UPRIGHT, spacing=(0.1, 0.1))

    def parts(jostle: float, text: str = "HHHHHHHH") -> np.ndarray:
        return inked_columns(draw(replace(style, jostle=jostle), text).min(2) < 128)

    plain, changed = parts(0), parts(0.6)
    assert len(plain) == 8 and len(changed) < 8, "some have run into each other"
    apart = changed[1:, 0] - changed[:-1, 1]
    assert apart.max() > 2 * (plain[1:, 0] - plain[:-1, 1]).max()
    assert changed[-1, 1] == pytest.approx(plain[-1, 1], abs=20)
    # However far they are pushed, half of a narrow letter beside a wide one is left.
    assert parts(9, "Hl")[-1, 1] >= plain[0, 1] + 2


YOUNG = {"jostle": 0, "one_ink": 0, "corners": 0, "boxed": 0, "bitmap": (0, 0), "enlarge": (1, 1)}
YOUNG |= {"opacity": (1, 1), "checks": (0, 0), "decoy_size": (0.2, 0.4), "segments": False, "tiles": 0, "dither": ""}
YOUNG |= {"spot_kinds": ("disc",), "cuts": (0, 0), "fringe": (0, 0), "own_levels": False}
YOUNG |= {"fan": (0, 0), "lenses": (0, 0), "stipple": (0, 0), "stray_dots": 0, "torn": (0, 0), "cells": ""}


def test_young_traits_are_those_of_schemes_for_training_alone() -> None:
    schemes = [random_scheme(i) for i in range(800)]
    assert all(any(getattr(style, name) != none for style in schemes) for name, none in YOUNG.items())
    for style in (random_scheme(i, held_out=True) for i in range(150)):
        assert all(getattr(style, name) == none for name, none in YOUNG.items())


def test_rare_schemes_have_an_idea_that_few_of_the_others_have() -> None:
    names = (
        "checks",
        "spot_kinds",
        "cuts",
        "fringe",
        "dither",
        "segments",
        "tiles",
        "fan",
        "lenses",
        "torn",
        "stipple",
    )

    def has_one(style: Style) -> bool:
        plain = Style()
        others = style.effect == "pen" or style.line_kinds == ("loop",) or style.elastic_cell <= 2
        others |= max(style.negatives) > 0 or max(style.decoys) > 0 or max(map(abs, style.swirl)) > 35
        return others or any(getattr(style, name) != getattr(plain, name) for name in names)

    rare = [random_scheme(n, rare=True) for n in range(200)]
    usual = [random_scheme(n) for n in range(200)]
    assert all(has_one(style) for style in rare if not style.bitmap[1])
    assert np.mean([has_one(style) for style in usual]) < 0.5
    assert sum(style.bitmap[1] > 0 for style in rare) < 30
    drawn = [get_style("rare", random.Random(seed)) for seed in range(20)]
    assert all(has_one(style) or style.bitmap[1] for style in drawn)


def test_boxed_letters_are_as_wide_as_each_other_and_the_word_stays_as_wide() -> None:
    style = replace(UPRIGHT, spacing=(0.2, 0.2))

    def letters(boxed: float) -> np.ndarray:
        return inked_columns(draw(replace(style, boxed=boxed), "HJNEH").min(2) < 128)

    plain, changed = letters(0), letters(1)
    assert np.ptp(np.diff(plain)) > 10 and np.ptp(np.diff(changed)) <= 6
    assert changed[-1, 1] == pytest.approx(plain[-1, 1], abs=6)


def test_corners_of_letters_move_each_by_itself_and_stay_near() -> None:
    style = replace(UPRIGHT, spacing=(0.5, 0.5), bounce=0)

    def boxes(corners: float) -> np.ndarray:
        dark = draw(replace(style, corners=corners), "HHHHH").min(2) < 128
        edges = inked_columns(dark)
        rows = [np.flatnonzero(dark[:, left:right].any(1)) for left, right in edges]
        return np.array([[left, right, row[0], row[-1]] for (left, right), row in zip(edges, rows, strict=True)])

    plain, changed = boxes(0), boxes(0.2)
    assert len(plain) == len(changed) == 5
    heights = changed[:, 3] - changed[:, 2]
    assert np.ptp(plain[:, 3] - plain[:, 2]) == 0 and np.ptp(heights) > 3, "not all are changed alike"
    assert np.abs(changed - plain).max() <= 0.2 * 65 + 2, "a fifth of a letter's box, with its border"


def test_one_ink_colours_letters_lines_and_spots_alike() -> None:
    style = replace(PLAIN, background_level=(255, 255), background_tint=0, antialias=False, lines_above=1)
    style = replace(style, spots=(9, 9), lines=(3, 3), grid=(20, 20), text_level=(20, 120), text_tint=1)

    def colours(one_ink: float) -> set[tuple[int, ...]]:
        return {tuple(map(int, c)) for c in draw(replace(style, one_ink=one_ink), seed=3).reshape(-1, 3)}

    assert len(colours(0)) > 5
    assert len(colours(1)) == 2, "the ground and the ink"


def test_letters_are_seen_through_each_other() -> None:
    style = replace(PLAIN, background_level=(255, 255), background_tint=0, text_level=(0, 0), text_tint=0)
    style = replace(style, rotation=0, shear=0, spacing=(-0.3, -0.3), jostle=0, antialias=False)
    style = replace(style, fonts=("DejaVuSans.ttf",), font_per_letter=False, bounce=0)
    assert len(np.unique(draw(style, "HHHH"))) == 2
    once, twice, ground = np.unique(draw(replace(style, opacity=(0.5, 0.5)), "HHHH"))[[1, 0, -1]]
    assert once == pytest.approx(127, abs=2) and twice == pytest.approx(64, abs=2) and ground == 255


def test_every_other_field_of_a_chequerboard_is_inverted() -> None:
    style = replace(PLAIN, height=(60, 60), width=(100, 100))
    plain, changed = draw(style), draw(replace(style, checks=(20, 20)))
    for row in range(3):
        for column in range(5):
            field = np.s_[20 * row : 20 * row + 20, 20 * column : 20 * column + 20]
            expected = 255 - plain[field] if (row + column) % 2 else plain[field]
            assert (changed[field] == expected).all()


@pytest.mark.parametrize("change", [{"checks": (9, 9)}, {"negatives": (8, 8)}], ids=["checks", "negatives"])
def test_negatives_in_the_pictures_own_colours_show_no_others(change: dict) -> None:
    style = replace(UPRIGHT, background_level=(200, 200), background_tint=0.5, text_tint=0.5, antialias=False, **change)
    inverted, exchanged = (
        {tuple(map(int, colour)) for colour in draw(replace(style, own_levels=own), "HH").reshape(-1, 3)}
        for own in (False, True)
    )
    plain = {tuple(map(int, c)) for c in draw(replace(style, checks=(0, 0), negatives=(0, 0)), "HH").reshape(-1, 3)}
    assert len(plain) == 2 and len(inverted) > 2 and exchanged >= plain
    for channel in range(3):
        assert {colour[channel] for colour in exchanged} == {colour[channel] for colour in plain}


@pytest.mark.parametrize("own", [True, False])
def test_where_an_even_number_of_negatives_overlap_all_is_as_it_was(own: bool) -> None:
    style = replace(UPRIGHT, negatives=(9, 9), own_levels=own, background_level=(250, 250), text_level=(30, 30))
    plain = draw(replace(style, negatives=(0, 0)), "HHHH")
    canvas, odd = plain.copy(), np.zeros(plain.shape[:2], bool)
    generator._invert_shapes(canvas, random.Random(5), style)
    rng = random.Random(5)
    for _ in range(round(rng.uniform(*style.negatives))):
        shape = np.zeros((*plain.shape[:2], 1), np.uint8)
        generator._draw_shape(shape, rng, (255,), -1)
        odd ^= shape[..., 0] > 0
    assert odd.any() and not odd.all()
    assert (canvas == np.where(odd[..., None], (280 if own else 255) - plain, plain)).all()


def test_a_fan_turns_the_letters_with_the_arc_on_which_they_stand() -> None:
    style = replace(UPRIGHT, height=(120, 120), width=(300, 300), spread=True, text_size=(0.3, 0.3), bounce=0)
    style = replace(style, antialias=False, fonts=("DejaVuSans.ttf",), font_per_letter=False, left=None)

    def letters(fan: float, seed: int) -> list[tuple[float, float]]:
        """Of each letter the middle's height, and its slope: the direction in which its pixels spread most."""
        dark = draw(replace(style, fan=(fan, fan)), "IIIII", seed=seed).min(2) < 128
        found = []
        for left, right in inked_columns(dark):
            y, x = np.nonzero(dark[:, left:right])
            across, down = np.linalg.svd(np.stack([x - x.mean(), y - y.mean()], 1), full_matrices=False)[2][0]
            found.append((y.mean(), math.degrees(math.atan(across / down))))
        return found

    assert np.ptp([slope for _, slope in letters(0, 0)]) < 1
    ups = set()
    for seed in range(6):
        heights, slopes = np.transpose(letters(60, seed))
        # The outermost letters are four fifths of the way from the middle to the ends: 24 degrees of 30.
        assert abs(slopes[4]) == pytest.approx(24, abs=3) and slopes[0] == pytest.approx(-slopes[4], abs=2)
        up = heights[0] > heights[2] + 10
        assert up or heights[0] < heights[2] - 10
        assert (slopes[0] > 0) == up, "letters stand on the arc"
        ups.add(up)
    assert ups == {True, False}


def test_lenses_leave_the_picture_beyond_them_as_it_is() -> None:
    style = replace(PLAIN, height=(60, 60), width=(600, 600), spread=True, grid=(7, 7), shape_level=(0, 0))
    style = replace(style, lines_above=0)
    changed = (draw(style) != draw(replace(style, lenses=(1, 1)))).any(2)
    across = np.flatnonzero(changed.any(0))
    assert 10 < np.ptp(across) <= 2 * 0.8 * 60


def test_a_pen_draws_strokes_of_one_width_and_keeps_the_ends_and_dots_of_a_letter() -> None:
    font = next(p for p in find_fonts("H").paths if "DejaVuSans-Bold" in p)
    mask = captcha_fonts.load_glyph(font, "H", 80).mask
    thin = captcha_fonts.style_glyph(font, "H", 80, 0, "pen").mask
    inked = [row for row in (inked_columns(thin[at : at + 1] > 128) for at in range(thin.shape[0])) if len(row)]
    assert len(inked) > 0.6 * (mask.max(1) > 128).sum()
    stems = [row for row in inked if len(row) == 2]
    widths = [np.ptp(row, axis=1).max() for row in stems]
    assert len(stems) > 0.85 * len(inked) and np.median(widths) == pytest.approx(4, abs=1) and max(widths) <= 8
    assert np.ptp([row[0, 0] for row in stems]) <= 5, "an upright stem stays upright, to its ends"
    for size, letters in ((24, "ij"), (40, "ij\xe4\xe9:")):
        for letter in letters:
            plain = captcha_fonts.load_glyph(font, letter, size).mask
            drawn = captcha_fonts.style_glyph(font, letter, size, -2, "pen").mask
            assert (
                cv2.connectedComponents((plain > 128).astype(np.uint8))[0]
                == (cv2.connectedComponents((drawn > 128).astype(np.uint8))[0])
            ), letter


def test_torn_strips_move_as_wholes_along_themselves() -> None:
    style = replace(PLAIN, height=(100, 100), width=(100, 100), background_level=(255, 255), background_tint=0)
    style = replace(style, text_size=(0.001, 0.001), grid=(100, 100), shape_level=(0, 0), lines_above=0)
    style = replace(style, line_width=(3, 3), line_tint=0)
    axes = set()
    for seed in range(8):
        plain, torn = (draw(replace(style, torn=most), "H", seed).min(2) < 128 for most in ((0, 0), (9, 9)))
        assert plain[50].all() and plain[:, 50].all()
        standing = not torn[50].all()
        across = torn if standing else torn.T  # of each column, where the line that crosses the strips is now
        columns = [column for column in range(100) if not 46 < column < 54]
        places = [int(np.median(np.flatnonzero(across[:, column]))) for column in columns]
        assert 2 < max(abs(place - 50) for place in places) <= 10
        assert 2 <= len({*places}) <= 10
        axes.add(standing)
    assert axes == {True, False}


def test_cells_of_enlarged_pixels_stand_apart() -> None:
    style = replace(UPRIGHT, height=(20, 20), width=(60, 60), bitmap=(14, 14), enlarge=(6, 6), left=None)
    whole = draw(style, "HE").min(2)
    for cells, inked in (("disc", 24 / 36), ("gap", 25 / 36)):
        apart = draw(replace(style, cells=cells), "HE").min(2)
        assert ((apart < 100) & (whole > 100)).sum() == 0
        assert (apart < 100).sum() / (whole < 100).sum() == pytest.approx(inked, abs=0.12)
        assert (apart[2::6, 2::6] == whole[2::6, 2::6]).all(), "the middle of each is as it was"
        assert np.ptp(apart[5::6, 5::6]) == 0, "and at the corner is what lies behind"


def test_a_stippled_picture_has_dots_of_its_own_colours_or_of_the_letters_alone() -> None:
    style = replace(UPRIGHT, height=(100, 100), width=(200, 200), background_level=(200, 200), text_level=(40, 40))
    style = replace(style, fonts=("DejaVuSans-Bold.ttf",), stipple=(2, 2), text_size=(0.8, 0.8))
    plain = draw(replace(style, stipple=(0, 0)), "HH").min(2)
    inside, outside = cv2.erode((plain < 50).astype(np.uint8), np.ones((5, 5))) > 0, plain == 200
    every, sparse = (draw(replace(style, stray_dots=stray), "HH").min(2) for stray in (0, 0.1))
    assert np.median(every[inside]) == pytest.approx(40, abs=25)
    assert sparse[0:4].mean() > 150 and (sparse[outside] < 50).mean() == pytest.approx(0.07, abs=0.05)
    assert (sparse[inside] < 50).mean() > 0.4
    assert set(np.unique(sparse)) <= set(range(40, 201))


def test_digits_of_a_calculator_have_the_pieces_they_should() -> None:
    """Looked for on straight ways through the picture, not where the drawing puts them."""
    pieces = {}
    for digit in "0123456789":
        mask = segment_glyph(digit, 100, 0.12).mask
        columns = np.flatnonzero(segment_glyph("8", 100, 0.12).mask.max(0))
        left, right = columns[0], columns[-1]
        middle = mask[:, (left + right) // 2] > 128  # the middle of the lying pieces
        rows = [inked_columns(mask[at : at + 1] > 128) for at in (mask.shape[0] * 3 // 10, mask.shape[0] * 7 // 10)]
        pieces[digit] = (len(inked_columns(middle[None])), *(len(row) for row in rows))
    # lying, standing above, standing below
    assert pieces == {
        **{"0": (2, 2, 2), "1": (0, 1, 1), "2": (3, 1, 1), "3": (3, 1, 1), "4": (1, 2, 1)},
        **{"5": (3, 1, 1), "6": (3, 1, 2), "7": (1, 1, 1), "8": (3, 2, 2), "9": (3, 2, 1)},
    }


def test_pieces_that_are_off_have_the_colour_of_shadows_and_letters_are_drawn_as_ever() -> None:
    style = replace(
        UPRIGHT, segments=True, effect_level=(200, 200), antialias=False, stretch=(1, 1), spacing=(0.2, 0.2)
    )
    grey = draw(style, "11").min(2)
    assert {0, 200, 255} <= set(np.unique(grey)) and (grey == 200).sum() > (grey == 0).sum()
    assert (draw(style, "HH") == draw(replace(style, segments=False), "HH")).all()


def test_tiles_exchange_the_colours_of_letters_and_ground() -> None:
    style = replace(UPRIGHT, antialias=False, spacing=(0.4, 0.4))
    plain, tiled = (draw(replace(style, tiles=tiles), "HHH").min(2) for tiles in (0, 1))
    assert (tiled[plain == 0] == 255).mean() > 0.95
    assert (tiled == 0).sum() > (plain == 0).sum()
    assert len(inked_columns(tiled < 128)) == 3


def test_spots_have_the_kind_that_the_style_names() -> None:
    style = replace(PLAIN, height=(200, 200), width=(200, 200), background_level=(255, 255), background_tint=0)
    style = replace(style, text_level=(255, 255), text_tint=0, spots=(1, 1), spot_radius=(10, 10), line_level=(0, 0))
    for seed in range(20):
        areas = {k: (draw(replace(style, spot_kinds=(k,)), "H", seed).min(2) < 128).sum() for k in SPOTS}
        if areas["disc"] > 300:  # not cut off at the edge
            break
    assert areas["disc"] == pytest.approx(314, abs=40) and areas["square"] == pytest.approx(400, abs=90)
    assert 40 < areas["ring"] < 100 and 60 < areas["dash"] < 200


SPOTS = ("disc", "ring", "square", "dash")


def test_cuts_take_letters_away_and_leave_what_is_below() -> None:
    style = replace(UPRIGHT, background=("stripes",), background_level=(150, 255), line_width=(6, 6), antialias=False)
    ground = draw(replace(style, text_level=(255, 255), text_size=(0.001, 0.001)), "HHHH")
    plain, cut = draw(style, "HHHH"), draw(replace(style, cuts=(4, 4)), "HHHH")
    changed = (plain != cut).any(2)
    assert changed.any() and (plain[changed] == 0).all(), "nothing but letters is touched"
    assert (cut[changed] == ground[changed]).mean() > 0.98


def test_a_bad_print_moves_red_and_blue_and_leaves_green() -> None:
    style = replace(UPRIGHT, height=(60, 60), width=(150, 150))
    plain, changed = draw(style, "HEX"), draw(replace(style, fringe=(4, 4)), "HEX")
    assert (plain[..., 1] == changed[..., 1]).all()
    for channel in (0, 2):
        shift, _ = cv2.phaseCorrelate(plain[..., channel].astype(float), changed[..., channel].astype(float))
        assert math.hypot(*shift) == pytest.approx(4, abs=0.7)


@pytest.mark.parametrize("kind", ["random", "ordered"])
def test_dithered_brightness_becomes_density(kind: str) -> None:
    style = replace(UPRIGHT, height=(100, 100), width=(200, 200), background_level=(200, 200), text_level=(40, 40))
    plain, changed = draw(style, "HH").min(2), draw(replace(style, dither=kind), "HH").min(2)
    assert set(np.unique(changed)) == {40, 200}
    assert (changed[plain == 40] == 200).mean() == pytest.approx(1 / 6, abs=0.06)
    assert (changed[plain == 200] == 200).mean() == pytest.approx(5 / 6, abs=0.06)
    coarse = draw(replace(style, dither=kind, dither_cell=2), "HH")[:, 160:]
    assert (coarse[::2, ::2] == coarse[1::2, 1::2]).all()


def test_decoys_are_as_large_as_the_style_says() -> None:
    style = replace(PLAIN, height=(100, 100), width=(300, 300), background_level=(255, 255), background_tint=0)
    style = replace(style, text_level=(255, 255), text_tint=0, shape_level=(0, 0), decoys=(40, 40))
    small, large = (
        (draw(replace(style, decoys=(40, 40), decoy_size=(size, size)), "HHHH") < 128).sum() for size in (0.2, 0.6)
    )
    assert 4 < large / small < 12


def test_bitmap_letters_have_hard_edges_on_whole_pixels_and_may_be_enlarged() -> None:
    style = replace(PLAIN, height=(24, 24), width=(90, 90), background_level=(255, 255), background_tint=0)
    style = replace(style, text_level=(0, 0), text_tint=0, rotation=0, shear=0, stretch=(1, 1), bitmap=(13, 13))
    small = draw(style, "ABE4", seed=2)
    assert set(np.unique(small)) == {0, 255}
    rows = np.flatnonzero((small.min(2) < 128).any(1))
    assert 8 <= np.ptp(rows) + 1 <= 13
    large = draw(replace(style, enlarge=(3, 3)), "ABE4", seed=2)
    assert large.shape == (72, 270, 3)
    assert (large[::3, ::3] == large[1::3, 2::3]).all() and (large[::3, ::3] == small).all()


def test_an_embossed_ground_is_grey_and_a_drawing_in_charcoal_white() -> None:
    style = replace(PLAIN, background_level=(230, 230), background_tint=0, text_level=(0, 0))
    for relief, ground in (("emboss", 128), ("charcoal", 255)):
        picture = draw(replace(style, relief=relief), "H")
        assert (picture[2, 2] == ground).all()
        assert np.abs(picture.astype(int) - ground).max() > 60


def test_levels_are_as_few_as_asked_for() -> None:
    assert len(np.unique(draw(replace(PLAIN, background=("gradient",), levels=3)))) <= 3


def test_small_letters_that_look_like_capitals_are_not_drawn(tmp_path, monkeypatch) -> None:
    font = next(p for p in find_fonts("Aa").paths if "DejaVuSans.ttf" in p)
    letters = frozenset("abdefghijlmnqrtyABDEFGHIJLMNQRTY")
    assert not captcha_fonts._small_capitals(font, letters)
    load = captcha_fonts.load_glyph
    monkeypatch.setattr(
        captcha_fonts, "load_glyph", lambda path, c, size: load(path, c.upper(), size - 8 * c.islower())
    )
    assert captcha_fonts._small_capitals(font, letters) == frozenset(c for c in letters if c.islower())


def test_an_unknown_style_is_told_of_the_schemes() -> None:
    with pytest.raises(UserError, match="schemes, rare, heldout"):
        get_style("skeems")
