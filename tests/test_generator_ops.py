"""The ops: each does what its docstring says, and only that, in every mode."""

from __future__ import annotations

import math
import random
import re
from dataclasses import Field, fields, replace
from itertools import cycle
from typing import get_type_hints

import cv2
import numpy as np
import pytest

from captcha_generator import draw_captcha
from captcha_reader.config import ALPHANUMERIC
from captcha_reader.errors import UserError
from captcha_reader.generator import fonts as font_module
from captcha_reader.generator.canvas import CHANNELS, displace_smoothly
from captcha_reader.generator.fonts import find_fonts
from captcha_reader.generator.ops import background, clutter, degradation, glyphs, ink, layout, marks, photometric, warp
from captcha_reader.generator.randomness import Stream
from captcha_reader.generator.registry import OPS, Op, Range, Stage
from captcha_reader.generator.schemes import random_scheme
from captcha_reader.generator.styles import Style, style_from_dict, style_to_dict
from captcha_reader.text import Alphabet

CHARACTERS = Alphabet.parse(ALPHANUMERIC).characters
NUMBERS = (int, float, float | None, Range, Range | None, tuple[int, int])  # types of fields that take them
WHITE = background.Plain((255, 255), 0)
BLACK = ink.Ink(level=(0, 0), tint=0, per_letter=False)
# One font's letters, black on white, upright and from one place on.
UPRIGHT = Style((layout.Row((0.6, 0.6), left=(30, 30)), WHITE, BLACK), (100, 100), (600, 600))
UPRIGHT = replace(UPRIGHT, fonts=("DejaVuSans.ttf",), font_per_letter=False)
PLAIN = Style((layout.Row(), background.Plain(), ink.Ink(level=(0, 120), tint=0, per_letter=False)))
PLAIN = replace(PLAIN, font_per_letter=False)


def draw(style: Style, text: str = "Rb5e", seed: int = 1) -> np.ndarray:
    return draw_captcha(text, style, f"{seed}/0", find_fonts(CHARACTERS)).astype(int)


def add(style: Style, *ops: Op, **settings: object) -> Style:
    """The style with more ops, which take the place of its layout, ground and ink."""
    taken = {op.stage for op in ops} & {Stage.LAYOUT, Stage.BACKGROUND, Stage.INK}
    kept = [op for op in style.ops if op.stage not in taken]
    return replace(style, ops=(*kept, *ops), **settings)


def row(**changes: object) -> layout.Row:
    return replace(layout.Row((0.6, 0.6), left=(30, 30)), **changes)


def inked_columns(dark: np.ndarray) -> np.ndarray:
    """(n, 2): first column of each run of columns of (H, W) that have ink, and the first one behind it."""
    inked = dark.any(0).astype(int)
    return np.flatnonzero(np.diff(np.concatenate([[0], inked, [0]]))).reshape(-1, 2)


# --- every op --------------------------------------------------------------------------------------------------------


def style_with(op: Op, mode: str = "RGB") -> Style:
    ground = background.Clear() if mode == "RGBA" else background.Plain((225, 225), 0)
    if op.name == "ink":
        ground = replace(ground, level=(200, 200))
    return add(Style((layout.Row(), ground, ink.Ink(level=(60, 60), tint=0.4)), mode=mode), op)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", OPS)
def test_an_op_changes_the_picture_at_every_strength_and_in_every_mode(name: str) -> None:
    cls, plain = (
        OPS[name],
        {mode: draw(style_with(ink.Ink(level=(60, 60), tint=0.4), mode), "83HB") for mode in CHANNELS},
    )
    for mode in CHANNELS:
        pictures = [draw(style_with(cls.at(strength, 60), mode), "83HB") for strength in (0.0, 0.5, 1.0)]
        for picture in pictures:
            assert picture.shape[2] == CHANNELS[mode]
            assert np.ptp(picture) > 0, "something is to be seen"
        changed = any(p.shape != plain[mode].shape or (p != plain[mode]).any() for p in pictures)
        opaque = issubclass(cls, photometric.OpaqueOnly | background.Background) or name == "tiles"
        if not (mode == "RGBA" and opaque) and not (mode != "RGB" and name == "color_fringe"):
            assert changed or name in {"row", "plain", "ink", "clear"}, mode


@pytest.mark.parametrize("name", OPS)
def test_an_op_samples_what_a_style_can_say_in_yaml(name: str) -> None:
    from captcha_reader.generator.styles import style_from_dict, style_to_dict

    for seed in range(30):
        op = OPS[name].sample(Stream("sample", name, seed), 20 + 6 * seed)
        assert type(op) is OPS[name]
        assert style_from_dict(style_to_dict(Style((op,)))) == Style((op,))
        assert op == OPS[name].sample(Stream("sample", name, seed), 20 + 6 * seed)


def numbers_of(cls: type[Op]) -> list[Field]:
    """Fields that take numbers."""
    hints = get_type_hints(cls)
    return [field for field in fields(cls) if hints[field.name] in NUMBERS]


@pytest.mark.parametrize("name", OPS)
def test_an_op_draws_whatever_its_limits_allow_and_names_what_is_beyond(name: str) -> None:
    def style(values: dict[str, float], size: tuple[float, float | None], mode: str) -> Style:
        return style_from_dict({"height": size[0], "width": size[1], "mode": mode, "ops": [{name: values}]})

    limits = {field.name: (field.metadata["least"], field.metadata["most"]) for field in numbers_of(OPS[name])}
    alone = [{field: end} for field, ends in limits.items() for end in ends]
    together = [{field: ends[i] for field, ends in limits.items()} for i in (0, 1)]
    sizes, modes = cycle([(8, 8), (50, None), (50, 160)]), cycle(CHANNELS)
    for values, size, mode in zip(alone + 3 * together, sizes, modes, strict=False):
        assert draw(style(values, size, mode), "aB3x").shape[2] == CHANNELS[mode]
    for field, (least, most) in limits.items():
        for value, said in ((least - 1, f"give {least:g} or more"), (most + 1, f"give {most:g} or less")):
            with pytest.raises(UserError, match=re.escape(f"op 1 ({name}): {field} is {value!r}: {said}")):
                style({field: value}, (50, 160), "RGB")


def test_random_schemes_keep_to_the_limits() -> None:
    for number in range(150):
        scheme = random_scheme(number, held_out=number % 3 == 0, rare=number % 3 == 1)
        assert style_from_dict(style_to_dict(scheme)) == scheme


@pytest.mark.parametrize("name", OPS)
def test_an_op_explains_itself_and_its_fields(name: str) -> None:
    import inspect

    cls = OPS[name]
    assert cls.__doc__ and cls.summary().endswith(".") and len(cls.summary()) < 110
    source = "".join(inspect.getsource(base) for base in cls.__mro__ if base is not object)
    for field in cls.__dataclass_fields__:
        following = source.split(f"    {field}: ", 1)[1].split("\n    ")
        assert any(line.startswith('"""') for line in following[1:12]), f"{name}.{field} has no docstring"


ON_LETTERS = [name for name, cls in OPS.items() if cls.stage in (Stage.GLYPHS, Stage.LETTERS)]


@pytest.mark.parametrize("name", [name for name in ON_LETTERS if name != "overflow"])  # which moves the whole word
def test_ops_on_letters_leave_the_rest_of_the_picture_alone(name: str) -> None:
    style = add(UPRIGHT, row(left=(150, 150), spacing=(0.2, 0.2)))
    plain, changed = draw(style, "H8A"), draw(add(style, OPS[name].at(0.5, 100)), "H8A")
    assert (plain != changed).any()
    rows, columns = np.nonzero((plain < 250).any(2))
    outside = changed.copy()
    outside[max(rows.min() - 20, 0) : rows.max() + 20, max(columns.min() - 30, 0) : columns.max() + 30] = 255
    assert (outside == 255).all()


# --- layout ----------------------------------------------------------------------------------------------------------


def test_spread_letters_share_the_width_evenly() -> None:
    style = add(UPRIGHT, layout.Spread((0.6, 0.6), margin=0), width=(400, 400))
    edges = inked_columns(draw(style, "HHHH").min(2) < 100)
    assert np.allclose(np.diff(edges.mean(axis=1)), 100, atol=3)


def test_letters_of_a_slanting_word_lean_to_one_side() -> None:
    """Of an upright bar, how far its upper half lies to the right of the lower one; up to 0.4 of the height."""
    style = add(UPRIGHT, layout.Spread((0.6, 0.6)), layout.Slant(0.5))
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
    style = add(UPRIGHT, layout.Spread((0.6, 0.6)))

    def heights(*ops: Op) -> list[int]:
        letters = np.split(draw(add(style, *ops), "Hxgpo"), 5, axis=1)
        return [np.ptp(np.nonzero((letter.min(2) < 128).any(1))[0]) + 1 for letter in letters]

    even = heights(layout.EvenHeight())
    assert max(even) - min(even) <= 3
    assert np.ptp(heights()) > 8


def test_uneven_letters_differ_in_width_and_fill_the_same_room() -> None:
    style = add(UPRIGHT, row(spacing=(0.2, 0.2)))
    plain = inked_columns(draw(style, "HHHHH").min(2) < 128)
    changed = inked_columns(draw(add(style, layout.UnevenWidth(0.4)), "HHHHH").min(2) < 128)
    assert np.ptp(np.diff(plain)) <= 1 and np.ptp(np.diff(changed)) > 5
    assert changed[0, 0] == pytest.approx(plain[0, 0], abs=2) and changed[-1, 1] == pytest.approx(plain[-1, 1], abs=4)


def test_letters_of_one_width_are_as_wide_as_each_other_and_the_word_stays_as_wide() -> None:
    style = add(UPRIGHT, row(spacing=(0.2, 0.2)))
    plain = inked_columns(draw(style, "HJNEH").min(2) < 128)
    changed = inked_columns(draw(add(style, layout.EvenWidth()), "HJNEH").min(2) < 128)
    assert np.ptp(np.diff(plain)) > 10 and np.ptp(np.diff(changed)) <= 6
    assert changed[-1, 1] == pytest.approx(plain[-1, 1], abs=6)


def test_jittered_letters_overlap_and_stand_apart_in_the_same_room() -> None:
    style = add(UPRIGHT, row(spacing=(0.1, 0.1)))

    def parts(jitter: float, text: str = "HHHHHHHH") -> np.ndarray:
        return inked_columns(draw(add(style, layout.SpacingJitter(jitter)), text).min(2) < 128)

    plain, changed = parts(0), parts(0.6)
    assert len(plain) == 8 and len(changed) < 8, "some have run into each other"
    apart = changed[1:, 0] - changed[:-1, 1]
    assert apart.max() > 2 * (plain[1:, 0] - plain[:-1, 1]).max()
    assert changed[-1, 1] == pytest.approx(plain[-1, 1], abs=20)
    # However far they are pushed, half of a narrow letter beside a wide one is left.
    assert parts(9, "Hl")[-1, 1] >= plain[0, 1] + 2


def test_corners_of_letters_move_each_by_itself_and_stay_near() -> None:
    style = add(UPRIGHT, row(spacing=(0.5, 0.5)))

    def boxes(*ops: Op) -> np.ndarray:
        dark = draw(add(style, *ops), "HHHHH").min(2) < 128
        edges = inked_columns(dark)
        rows = [np.flatnonzero(dark[:, left:right].any(1)) for left, right in edges]
        return np.array([[left, right, row[0], row[-1]] for (left, right), row in zip(edges, rows, strict=True)])

    plain, changed = boxes(), boxes(layout.LetterPerspective(0.2))
    assert len(plain) == len(changed) == 5
    heights = changed[:, 3] - changed[:, 2]
    assert np.ptp(plain[:, 3] - plain[:, 2]) == 0 and np.ptp(heights) > 3, "not all are changed alike"
    assert np.abs(changed - plain).max() <= 0.2 * 65 + 2, "a fifth of a letter's box, with its border"


# --- glyphs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hollow", "stencil", "stripes", "pen", "dotted_strokes", "dashed_strokes", "dots"])
def test_effects_that_leave_a_part_of_the_strokes_have_less_ink(name: str) -> None:
    style = add(UPRIGHT, glyphs.Weight((0.03, 0.03)))
    plain = draw(style, "Rb5e")
    assert (draw(add(style, OPS[name].at(0.5, 100)), "Rb5e") < 128).sum() < 0.95 * (plain < 128).sum()


def test_a_pen_draws_strokes_of_one_width_and_keeps_the_ends_and_dots_of_a_letter() -> None:
    font = next(p for p in find_fonts("H").paths if "DejaVuSans-Bold" in p)

    def penned(letter: str, size: int) -> np.ndarray:
        return font_module.shaped_glyph(font, letter, size, ((glyphs._penned, (0.05,)),)).mask

    mask = font_module.load_glyph(font, "H", 80).mask
    thin = penned("H", 80)
    inked = [r for r in (inked_columns(thin[at : at + 1] > 128) for at in range(thin.shape[0])) if len(r)]
    assert len(inked) > 0.6 * (mask.max(1) > 128).sum()
    stems = [r for r in inked if len(r) == 2]
    widths = [np.ptp(r, axis=1).max() for r in stems]
    assert len(stems) > 0.75 * len(inked) and np.median(widths) == pytest.approx(4, abs=1) and max(widths) <= 8
    assert np.ptp([r[0, 0] for r in stems]) <= 5, "an upright stem stays upright, to its ends"
    for size, letters in ((40, "ij"), (54, "ij\xe4\xe9:")):
        for letter in letters:
            plain = font_module.load_glyph(font, letter, size).mask
            parts = [cv2.connectedComponents((m > 128).astype(np.uint8))[0] for m in (plain, penned(letter, size))]
            assert parts[0] == parts[1], letter


def test_dots_along_strokes_are_apart_and_lie_on_the_letter() -> None:
    font = next(p for p in find_fonts("H").paths if "DejaVuSans-Bold" in p)
    for where in ("middle", "outline"):
        effect = ((glyphs._dot_strokes, (0.1, 0.03, where)),)
        mask = font_module.shaped_glyph(font, "H", 120, effect).mask
        count = cv2.connectedComponents((mask > 128).astype(np.uint8))[0] - 1
        assert count >= 10, where
        near = cv2.dilate(font_module.load_glyph(font, "H", 120).mask, np.ones((9, 9), np.uint8))
        assert (near[mask > 128] > 0).all()


def test_digits_of_a_calculator_have_the_pieces_they_should() -> None:
    """Looked for on straight ways through the picture, not where the drawing puts them."""
    pieces = {}
    for digit in "0123456789":
        mask = glyphs.segment_glyph(digit, 100, 0.12).mask
        columns = np.flatnonzero(glyphs.segment_glyph("8", 100, 0.12).mask.max(0))
        left, right = columns[0], columns[-1]
        middle = mask[:, (left + right) // 2] > 128  # the middle of the lying pieces
        rows = [inked_columns(mask[at : at + 1] > 128) for at in (mask.shape[0] * 3 // 10, mask.shape[0] * 7 // 10)]
        pieces[digit] = (len(inked_columns(middle[None])), *(len(r) for r in rows))
    # lying, standing above, standing below
    assert pieces == {
        **{"0": (2, 2, 2), "1": (0, 1, 1), "2": (3, 1, 1), "3": (3, 1, 1), "4": (1, 2, 1)},
        **{"5": (3, 1, 1), "6": (3, 1, 2), "7": (1, 1, 1), "8": (3, 2, 2), "9": (3, 2, 1)},
    }


def test_pieces_that_are_off_are_paler_and_letters_are_drawn_as_ever() -> None:
    style = add(UPRIGHT, row(stretch=(1, 1), spacing=(0.2, 0.2)), antialias=False)
    lit = add(style, glyphs.Segments((0.12, 0.12), off=0.2))
    gray = draw(lit, "11").min(2)
    assert {0, 255} <= set(np.unique(gray)) and ((gray > 195) & (gray < 210)).sum() > (gray == 0).sum()
    assert (draw(lit, "HH") == draw(style, "HH")).all()


def test_bitmap_letters_have_hard_edges_on_whole_pixels_and_may_be_enlarged() -> None:
    style = Style((glyphs.Bitmap((13, 13)), layout.Row(), WHITE, BLACK), (24, 24), (90, 90))
    small = draw(style, "ABE4", seed=2)
    assert set(np.unique(small)) == {0, 255}
    rows = np.flatnonzero((small.min(2) < 128).any(1))
    assert 8 <= np.ptp(rows) + 1 <= 13
    large = draw(add(style, degradation.Enlarge((3, 3))), "ABE4", seed=2)
    assert large.shape == (72, 270, 3)
    assert (large[::3, ::3] == large[1::3, 2::3]).all() and (large[::3, ::3] == small).all()


# --- colors of letters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ground", [(200, 255), (0, 40), (100, 140)])
def test_letters_keep_their_contrast_to_the_ground_on_the_side_with_room(ground: tuple[float, float]) -> None:
    style = add(UPRIGHT, background.Plain(ground, 0), ink.Ink(contrast=(60, 80), tint=0), antialias=False)
    for seed in range(5):
        levels = np.unique(draw(style, "HHH", seed))
        assert 60 <= np.ptp(levels) <= 80 + ground[1] - ground[0] + 1


def test_clutter_in_the_letters_color_shows_no_other() -> None:
    style = add(UPRIGHT, ink.Ink(level=(20, 120), tint=1, per_letter=False), antialias=False)

    def colors(as_letters: float) -> set[tuple[int, ...]]:
        same = {"as_letters": as_letters, "above": 1, "tint": 1, "level": (20, 200)}
        more = (clutter.Spots(count=(9, 9), **same), clutter.Lines(count=(3, 3), **same), clutter.Grid(**same))
        return {tuple(map(int, c)) for c in draw(add(style, *more), seed=3).reshape(-1, 3)}

    assert len(colors(0)) > 5
    assert len(colors(1)) == 2, "the ground and the ink"


def test_letters_are_seen_through_each_other() -> None:
    style = add(UPRIGHT, row(spacing=(-0.3, -0.3)), antialias=False)
    assert len(np.unique(draw(style, "HHHH"))) == 2
    once, twice, ground = np.unique(draw(add(style, ink.Opacity((0.5, 0.5))), "HHHH"))[[1, 0, -1]]
    assert once == pytest.approx(127, abs=2) and twice == pytest.approx(64, abs=2) and ground == 255


def test_tiles_exchange_the_colors_of_letters_and_ground() -> None:
    style = add(UPRIGHT, row(spacing=(0.4, 0.4)), antialias=False)
    plain, tiled = (draw(add(style, *ops), "HHH").min(2) for ops in ((), (ink.Tiles(),)))
    assert (tiled[plain == 0] == 255).mean() > 0.95
    assert (tiled == 0).sum() > (plain == 0).sum()
    assert len(inked_columns(tiled < 128)) == 3


def test_two_tones_are_two_or_three() -> None:
    style = add(UPRIGHT, antialias=False)
    for tones in (2, 3):
        counts = {len(np.unique(draw(add(style, ink.TwoTones(tones, 0.5)), "H", seed)[::2, ::2])) for seed in range(4)}
        assert max(counts) >= tones + 1, "the ground and each tone"


def test_letters_on_panels_are_dark_on_light_ones_and_light_on_dark_ones() -> None:
    """Without antialiasing a letter's color is the darkest or the lightest of its column range."""
    style = add(
        UPRIGHT, layout.Spread((0.5, 0.5)), background.Panels(count=(4, 4), bands=0), ink.Ink(contrast=(90, 160))
    )
    style = replace(style, width=(400, 400), antialias=False)
    kinds = set()
    for seed in range(6):
        picture = draw(style, "HHHHHH", seed).mean(axis=2)
        bare = draw(add(style, layout.Spread((0.001, 0.001))), "HHHHHH", seed).mean(axis=2)
        letters = picture != bare
        assert letters.any()
        signs = np.sign(picture - bare)[letters]
        assert np.abs(picture - bare)[letters].mean() > 60
        kinds |= set(np.unique(signs))
    assert kinds == {-1.0, 1.0}


# --- clutter ---------------------------------------------------------------------------------------------------------

OWN = {"level": (0, 0), "tint": 0}


def test_strokes_are_as_short_as_letters() -> None:
    style = add(UPRIGHT, ink.Ink(level=(255, 255), tint=0), marks.Strokes(count=(1, 1), **OWN), width=(900, 900))
    inked = [np.nonzero((draw(style, "I", seed) < 200).any(2)) for seed in range(20)]
    inked = [places for places in inked if len(places[0])]  # a stroke may lie outside
    assert len(inked) >= 10
    for rows, columns in inked:
        assert np.ptp(columns) <= 108
        assert np.ptp(rows) <= 68


@pytest.mark.parametrize("left", [20.0, 300.0])
def test_hooks_lie_at_the_ends_of_the_word(left: float) -> None:
    style = add(UPRIGHT, row(left=(left, left), baseline=0.7), height=(50, 50))
    ends = set()
    for seed in range(20):
        plain, hooked = draw(style, "HHHHH", seed), draw(add(style, marks.Hooks(count=(1, 1))), "HHHHH", seed)
        word, hook = (np.flatnonzero(changed.any((0, 2))) for changed in (plain < 200, plain != hooked))
        if len(hook):  # else behind the letters
            last = hook.mean() > word.mean()
            ends.add(bool(last))
            assert np.abs(hook - word[-1 if last else 0]).max() <= 30
    assert ends == {False, True}


def test_a_frame_is_as_thick_as_told_and_lies_along_the_sides() -> None:
    plain, framed = draw(UPRIGHT, "H"), draw(add(UPRIGHT, marks.Frame(width=(3, 3), **OWN)), "H")
    inside = np.s_[3:-3, 3:-3]
    assert np.array_equal(plain[inside], framed[inside])
    framed[inside] = 0
    assert (framed == 0).all()


SPOTS = ("disc", "ring", "square", "dash")


def test_spots_have_the_kind_that_the_style_names() -> None:
    style = add(UPRIGHT, ink.Ink(level=(255, 255), tint=0), height=(200, 200), width=(200, 200))

    def area(kind: str, seed: int) -> int:
        spots = clutter.Spots(count=(1, 1), radius=(10, 10), kinds=(kind,), **OWN)
        return (draw(add(style, spots), "H", seed).min(2) < 128).sum()

    for seed in range(20):
        areas = {kind: area(kind, seed) for kind in SPOTS}
        if areas["disc"] > 300:  # not cut off at the edge
            break
    assert areas["disc"] == pytest.approx(314, abs=40) and areas["square"] == pytest.approx(400, abs=90)
    assert 40 < areas["ring"] < 100 and 60 < areas["dash"] < 200


def test_a_kinked_line_crosses_the_picture_and_may_get_thinner() -> None:
    thinner = 0
    for seed in range(40):
        canvas = np.full((20, 600, 1), 255, np.uint8)
        clutter.draw_lines(canvas, random.Random(seed), 1, ("kinked",), (4, 4), lambda: (0.0,))
        dark = (canvas[..., 0] < 128).sum(axis=0)
        columns = np.flatnonzero(dark)
        assert columns[0] <= 0.45 * 600 and columns[-1] >= 0.5 * 600
        assert (dark[columns[0] : columns[-1] + 1] > 0).all()  # one line, without gaps
        thinner += np.median(dark[columns[-12:-4]]) < 4  # less ink than a line four pixels thick leaves
    assert 8 < thinner < 32


def test_cuts_take_letters_away_and_leave_what_is_below() -> None:
    style = add(UPRIGHT, background.StripedGround((150, 255), 0.2), antialias=False)
    ground = draw(add(style, ink.Ink(level=(255, 255), tint=0), row(size=(0.001, 0.001))), "HHHH")
    plain, cut = draw(style, "HHHH"), draw(add(style, marks.Cuts((4, 4), (6, 6))), "HHHH")
    changed = (plain != cut).any(2)
    assert changed.any() and (plain[changed] == 0).all(), "nothing but letters is touched"
    assert (cut[changed] == ground[changed]).mean() > 0.98


def test_decoys_are_as_large_as_the_style_says() -> None:
    style = add(UPRIGHT, ink.Ink(level=(255, 255), tint=0), width=(300, 300))
    small, large = (
        (draw(add(style, marks.Decoys(count=(40, 40), size=(size, size), **OWN)), "HHHH") < 128).sum()
        for size in (0.2, 0.6)
    )
    assert 4 < large / small < 12


def test_decoys_are_paler_than_the_letters() -> None:
    style = add(UPRIGHT, marks.Decoys(count=(40, 40), tone=(0.2, 0.4), tint=0), antialias=False)
    levels = np.unique(draw(style, "HHHH"))
    assert levels[0] == 0 and levels[-1] == 255 and all(150 <= level <= 205 for level in levels[1:-1])


def test_clutter_above_the_letters_is_not_bent_and_below_it_is() -> None:
    for above in (0, 1):
        style = add(UPRIGHT, clutter.Grid(above=above, pitch=(20, 20), width=(1, 1), **OWN))
        plain, bent = (draw(add(style, *ops), "H") for ops in ((), (warp.Wave((6, 6), (80, 80)),)))
        far = np.s_[:, 300:]  # no letters there
        assert (plain[far] == bent[far]).all() == bool(above)


# --- warps -----------------------------------------------------------------------------------------------------------


def test_a_ripple_moves_nothing_further_than_its_amplitude() -> None:
    slope = np.repeat(np.arange(160, dtype=np.uint8)[None, :, None], 60, axis=0)  # brightness = column

    class Canvas:
        height, width, pixels = 60, 160, slope

        def displace_smoothly(self, right: np.ndarray, down: np.ndarray) -> None:
            self.moves = right, down

    canvas = Canvas()
    warp.Ripple((3, 3), (20, 20))(canvas, random.Random(0))  # type: ignore[arg-type]
    assert np.hypot(*canvas.moves).max() == pytest.approx(3, abs=0.1)
    moved = displace_smoothly(slope, *canvas.moves)[:, 10:-10, 0].astype(int) - slope[:, 10:-10, 0]
    assert 2 <= abs(moved).max() <= 4  # 3, rounded either way
    assert abs(moved.mean()) < 0.5  # as far out as in
    assert moved.max() > 1 and moved.min() < -1


def test_a_fan_turns_the_letters_with_the_arc_on_which_they_stand() -> None:
    style = add(UPRIGHT, layout.Spread((0.3, 0.3)), height=(120, 120), width=(300, 300), antialias=False)

    def letters(seed: int, *ops: Op) -> list[tuple[float, float]]:
        """Of each letter the middle's height, and its slope: the direction in which its pixels spread most."""
        dark = draw(add(style, *ops), "IIIII", seed=seed).min(2) < 128
        found = []
        for left, right in inked_columns(dark):
            y, x = np.nonzero(dark[:, left:right])
            across, down = np.linalg.svd(np.stack([x - x.mean(), y - y.mean()], 1), full_matrices=False)[2][0]
            found.append((y.mean(), math.degrees(math.atan(across / down))))
        return found

    assert np.ptp([slope for _, slope in letters(0)]) < 1
    ups = set()
    for seed in range(6):
        heights, slopes = np.transpose(letters(seed, warp.Fan((60, 60))))
        # The outermost letters are four fifths of the way from the middle to the ends: 24 degrees of 30.
        assert abs(slopes[4]) == pytest.approx(24, abs=3) and slopes[0] == pytest.approx(-slopes[4], abs=2)
        up = heights[0] > heights[2] + 10
        assert up or heights[0] < heights[2] - 10
        assert (slopes[0] > 0) == up, "letters stand on the arc"
        ups.add(up)
    assert ups == {True, False}


def test_lenses_leave_the_picture_beyond_them_as_it_is() -> None:
    style = add(UPRIGHT, clutter.Grid(pitch=(7, 7), **OWN), height=(60, 60))
    changed = (draw(style) != draw(add(style, warp.Lenses((1, 1))))).any(2)
    across = np.flatnonzero(changed.any(0))
    assert 10 < np.ptp(across) <= 2 * 0.8 * 60


def test_strips_move_as_wholes_along_themselves() -> None:
    grid = clutter.Grid(pitch=(100, 100), width=(3, 3), **OWN)
    style = add(UPRIGHT, row(size=(0.001, 0.001)), ink.Ink(level=(255, 255), tint=0), grid, width=(100, 100))
    axes = set()
    for seed in range(2, 10):
        plain, moved = (draw(add(style, *ops), "H", seed).min(2) < 128 for ops in ((), (warp.StripShift((9, 9)),)))
        assert plain[50].all() and plain[:, 50].all()
        standing = not moved[50].all()
        across = moved if standing else moved.T  # of each column, where the line that crosses the strips is now
        columns = [column for column in range(100) if not 46 < column < 54]
        places = [int(np.median(np.flatnonzero(across[:, column]))) for column in columns]
        assert 2 < max(abs(place - 50) for place in places) <= 10
        assert 2 <= len({*places}) <= 10
        axes.add(standing)
    assert axes == {True, False}


# --- colors and degradations ----------------------------------------------------------------------------------------


def test_every_other_field_of_a_checkerboard_is_inverted() -> None:
    style = replace(PLAIN, height=(60, 60), width=(100, 100))
    plain, changed = draw(style), draw(add(style, photometric.Checks((20, 20), own_levels=False)))
    for across in range(3):
        for column in range(5):
            field = np.s_[20 * across : 20 * across + 20, 20 * column : 20 * column + 20]
            expected = 255 - plain[field] if (across + column) % 2 else plain[field]
            assert (changed[field] == expected).all()


@pytest.mark.parametrize("name", ["checks", "negatives", "facets"])
def test_negatives_in_the_pictures_own_colors_show_no_others(name: str) -> None:
    ground, letters = background.Plain((200, 200), 0.5), ink.Ink(level=(60, 60), tint=0.5, per_letter=False)
    style = add(UPRIGHT, ground, letters, antialias=False)

    def colors(*ops: Op) -> set[tuple[int, ...]]:
        return {tuple(map(int, color)) for color in draw(add(style, *ops), "HH").reshape(-1, 3)}

    op = OPS[name].at(1, 100)
    plain, inverted, exchanged = colors(), *(colors(replace(op, own_levels=own)) for own in (False, True))
    assert len(plain) == 2 and len(inverted) > 2 and exchanged >= plain
    for channel in range(3):
        assert {color[channel] for color in exchanged} == {color[channel] for color in plain}


@pytest.mark.parametrize("own", [True, False])
def test_where_an_even_number_of_negatives_overlap_all_is_as_it_was(own: bool) -> None:
    style = add(UPRIGHT, background.Plain((250, 250), 0), ink.Ink(level=(30, 30), tint=0))
    plain = draw(style, "HHHH")
    changed = draw(add(style, photometric.Negatives((9, 9), own)), "HHHH")
    odd, rng = np.zeros(plain.shape[:2], bool), Stream("1/0", "negatives/0")
    for _ in range(round(rng.uniform(9, 9))):
        shape = np.zeros((*plain.shape[:2], 1), np.uint8)
        marks.draw_shape(shape, rng, (255,), -1)
        odd ^= shape[..., 0] > 0
    assert odd.any() and not odd.all()
    assert (changed == np.where(odd[..., None], (280 if own else 255) - plain, plain)).all()


def test_a_bad_print_moves_red_and_blue_and_leaves_green() -> None:
    style = replace(UPRIGHT, height=(60, 60), width=(150, 150))
    plain, changed = draw(style, "HEX"), draw(add(style, photometric.ColorFringe((4, 4))), "HEX")
    assert (plain[..., 1] == changed[..., 1]).all()
    for channel in (0, 2):
        shift, _ = cv2.phaseCorrelate(plain[..., channel].astype(float), changed[..., channel].astype(float))
        assert math.hypot(*shift) == pytest.approx(4, abs=0.7)


@pytest.mark.parametrize("kind", ["random", "ordered"])
def test_dithered_brightness_becomes_density(kind: str) -> None:
    style = add(UPRIGHT, background.Plain((200, 200), 0), ink.Ink(level=(40, 40), tint=0), width=(200, 200))
    plain, changed = draw(style, "HH").min(2), draw(add(style, photometric.Dither(kind, 1)), "HH").min(2)
    assert set(np.unique(changed)) == {40, 200}
    assert (changed[plain == 40] == 200).mean() == pytest.approx(1 / 6, abs=0.06)
    assert (changed[plain == 200] == 200).mean() == pytest.approx(5 / 6, abs=0.06)
    coarse = draw(add(style, photometric.Dither(kind, 2)), "HH")[:, 160:]
    assert (coarse[::2, ::2] == coarse[1::2, 1::2]).all()


def test_cells_of_enlarged_pixels_stand_apart() -> None:
    style = Style((glyphs.Bitmap((14, 14)), layout.Row(), WHITE, BLACK), (20, 20), (60, 60))
    for cells, inked in (("disc", 24 / 36), ("gap", 25 / 36)):
        for seed in range(20):  # until what lies behind is as light as the ground
            whole = draw(add(style, degradation.Enlarge((6, 6))), "HE", seed).min(2)
            apart = draw(add(style, degradation.Enlarge((6, 6), cells)), "HE", seed).min(2)
            if apart[5, 5] == 255:
                break
        assert ((apart < 100) & (whole > 100)).sum() == 0
        assert (apart < 100).sum() / (whole < 100).sum() == pytest.approx(inked, abs=0.12)
        assert (apart[2::6, 2::6] == whole[2::6, 2::6]).all(), "the middle of each is as it was"
        assert np.ptp(apart[5::6, 5::6]) == 0, "and at the corner is what lies behind"


def test_a_stippled_picture_has_dots_of_its_own_colors_or_of_the_letters_alone() -> None:
    style = add(UPRIGHT, row(size=(0.8, 0.8)), background.Plain((200, 200), 0), ink.Ink(level=(40, 40), tint=0))
    style = replace(style, fonts=("DejaVuSans-Bold.ttf",), width=(200, 200))
    for seed in range(8):
        plain = draw(style, "HH", seed).min(2)
        inside, outside = cv2.erode((plain < 50).astype(np.uint8), np.ones((5, 5))) > 0, plain == 200
        every, sparse = (draw(add(style, photometric.Stipple((2, 2), stray)), "HH", seed).min(2) for stray in (0, 0.1))
        assert np.median(every[inside]) == pytest.approx(40, abs=25)
        assert sparse[0:4].mean() > 150 and (sparse[outside] < 50).mean() == pytest.approx(0.07, abs=0.05)
        assert (sparse[inside] < 50).mean() > 0.45
        assert set(np.unique(sparse)) <= set(range(40, 201))


def test_an_embossed_ground_is_gray_and_a_drawing_in_charcoal_white() -> None:
    style = add(UPRIGHT, background.Plain((230, 230), 0))
    for op, ground in ((photometric.Emboss(), 128), (photometric.Charcoal(), 255)):
        picture = draw(add(style, op), "H")
        assert (picture[2, 2] == ground).all()
        assert np.abs(picture.astype(int) - ground).max() > 60


def test_levels_are_as_few_as_asked_for() -> None:
    style = add(PLAIN, background.Gradient(), degradation.Levels(3))
    assert len(np.unique(draw(style))) <= 3


def test_letters_too_pale_for_few_levels_stay() -> None:
    """The edges of mid-gray letters on white are paler than the middle of two levels: rounded, they would be gone."""
    pale = ink.Ink(level=(170, 180), tint=0)
    style = add(UPRIGHT, pale, photometric.Charcoal(), degradation.Levels(2), mode="L")
    for seed in range(10):
        pixels = draw(style, "BJCT", seed)
        assert pixels.min() < pixels.max(), seed


def test_noise_has_the_deviation_that_the_style_says() -> None:
    style = add(UPRIGHT, background.Plain((128, 128), 0), degradation.Noise((20, 20)))
    part = draw(style, "H")[:, 300:]
    assert part.mean() == pytest.approx(128, abs=1) and part.std() == pytest.approx(20, abs=1)


# --- fonts -----------------------------------------------------------------------------------------------------------


def test_small_letters_that_look_like_capitals_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    font = next(p for p in find_fonts("Aa").paths if "DejaVuSans.ttf" in p)
    letters = frozenset("abdefghijlmnqrtyABDEFGHIJLMNQRTY")
    assert not font_module._small_capitals(font, letters)
    load = font_module.load_glyph
    monkeypatch.setattr(font_module, "load_glyph", lambda path, c, size: load(path, c.upper(), size - 8 * c.islower()))
    assert font_module._small_capitals(font, letters) == frozenset(c for c in letters if c.islower())
