"""Shapes of the letters (stage GLYPHS): what is done to a glyph before it has a place.

An effect is a function (glyph, character, size, *arguments) -> glyph whose result is kept for the whole process, so
that arguments come in few steps.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import cv2
import numpy as np

from captcha_reader.generator.canvas import CAPITAL, Canvas
from captcha_reader.generator.fonts import Glyph
from captcha_reader.generator.registry import Op, Range, Stage, amount, chosen, limited, ranged, register

LARGE = 60  # pixels, font size from which a middle line is searched at half the resolution
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def steps(value: float, step: float) -> float:
    """The nearest multiple of `step`: few of them keep the cache of glyphs small."""
    return round(round(value / step) * step, 6)


def ellipse(diameter: int) -> np.ndarray:
    """A disc as OpenCV's morphology takes it."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))


def reshaped(glyph: Glyph, mask: np.ndarray, under: Glyph | None = None) -> Glyph:
    """The glyph with another mask of the same size and place."""
    return Glyph(np.ascontiguousarray(mask), glyph.x, glyph.y, glyph.ink, under)


def middle_line(mask: np.ndarray, size: int) -> tuple[np.ndarray, int]:
    """The middle line of the strokes, one pixel thick; short side branches are taken off.

    Returns:
        ((h, w) bool, 1), or of large glyphs ((h / 2, w / 2) bool, 2): a line is searched there in an eighth of the
        time, and its pixel (i, j) is the glyph's (2 i, 2 j).
    """
    from skimage.morphology import skeletonize  # heavy to import, and few styles need it

    step = 1 if size < LARGE else 2
    soft = cv2.pyrDown(mask) if step == 2 else cv2.GaussianBlur(mask, (0, 0), max(0.5, size / 60))
    thin = skeletonize(soft > 127)
    for _ in range(round(size / step / 40)):  # what sticks out of a corner is as short as this
        ends = thin & (_count_around(thin) == 2)
        thin[ends & (_count_around(ends) < 2)] = False  # two ends side by side are all that is left of a dot
    return thin, step


def draw_line(mask: np.ndarray, line: np.ndarray, step: int, thickness: float) -> np.ndarray:
    """What `middle_line` found in a glyph's mask, (h, w) uint8, as strokes of a thickness in pixels."""
    if step == 2:
        line = cv2.resize(line, (2 * line.shape[1], 2 * line.shape[0]), interpolation=cv2.INTER_NEAREST)
        line = line[: mask.shape[0], : mask.shape[1]]
    return cv2.dilate(line * np.uint8(255), ellipse(max(1, round(thickness) - step + 1)))


def _count_around(marked: np.ndarray) -> np.ndarray:
    """Of each pixel, how many of the nine at and around it are marked, (h, w) bool -> uint8."""
    return cv2.boxFilter(marked.view(np.uint8), -1, (3, 3), normalize=False, borderType=cv2.BORDER_CONSTANT)


def thicken(glyph: Glyph, character: str, size: int, part: float) -> Glyph:
    """Strokes thicker by a part of the font size, or thinner, by two pixels at most."""
    weight = max(round(part * size * 2) / 2, -2)
    mask, change = glyph.mask, cv2.erode if weight < 0 else cv2.dilate
    if whole := int(abs(weight) / 2):  # whole pixels on each side, and a part of what one more would do
        mask = change(mask, _CROSS, iterations=whole)
    if rest := abs(weight) / 2 % 1:
        mask = cv2.addWeighted(mask, 1 - rest, change(mask, _CROSS), rest, 0)
    return reshaped(glyph, mask, glyph.under)


@register(stage=Stage.GLYPHS, weight=60)
@dataclass(frozen=True)
class Weight(Op):
    """Strokes are thicker, or thinner, than the font has them."""

    amount: Range = ranged((0, 0), -0.02, 0.07, least=-0.1)
    """Pixels added, as a part of the font size; below zero they are taken away."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        narrow = self.amount[1] - self.amount[0] < 0.035
        if part := steps(rng.uniform(*self.amount), 0.01 if narrow else 0.02):
            canvas.effects.append((thicken, (part,)))


# ---------------------------------------------------------------------------------------------------------------------
# Letters of outlines, stripes, dots


_ON_LINES = ["stripes", "dots", "edge"]


def _outline(glyph: Glyph, character: str, size: int, part: float) -> Glyph:
    width = 2 + int(part * size)
    return reshaped(glyph, cv2.morphologyEx(glyph.mask, cv2.MORPH_GRADIENT, np.ones((width, width), np.uint8)))


@register(
    stage=Stage.GLYPHS,
    weight=5,
    tags=["split"],
    least_height=30,
    excludes=_ON_LINES,
    favors=["thick_curve", "gradient"],
)
@dataclass(frozen=True)
class Hollow(Op):
    """Letters in outlines."""

    probability: float = limited(1, 0, 1)
    """Of a picture to have them."""
    thickness: float = amount(0.021, 0.035, 0.01)
    """Of the outline, as a part of the font size, beyond its first two pixels."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        if self.probability >= 1 or rng.random() < self.probability:
            canvas.effects.append((_outline, (steps(self.thickness, 0.007),)))


def _double_outline(glyph: Glyph, character: str, size: int, part: float) -> Glyph:
    gap = max(2, round(part * size))
    grown = cv2.dilate(glyph.mask, ellipse(2 * gap + 1))
    rim = cv2.morphologyEx(grown, cv2.MORPH_GRADIENT, ellipse(2 + size // 56))
    return reshaped(glyph, cv2.max(rim, glyph.mask))


@register(stage=Stage.GLYPHS, weight=1.5, tags=["train_only", "display"], least_height=40)
@dataclass(frozen=True)
class DoubleOutline(Op):
    """A line runs around each letter, apart from it."""

    gap: float = amount(0.04, 0.05, 0.03)
    """Pixels between letter and line, as a part of the font size."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.effects.append((_double_outline, (steps(self.gap, 0.01),)))


def _bridged(glyph: Glyph, character: str, size: int, part: float) -> Glyph:
    mask = glyph.mask.copy()
    middle, half = mask.shape[1] // 2, max(1, round(part * size / 2))
    mask[:, middle - half : middle + half] = 0
    return reshaped(glyph, mask)


@register(stage=Stage.GLYPHS, weight=0.8, tags=["split"], least_height=30)
@dataclass(frozen=True)
class Stencil(Op):
    """An upright gap through the middle of each letter."""

    gap: float = amount(0.07, 0.05, 0.11)
    """Part of the font size."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.effects.append((_bridged, (steps(self.gap, 0.01),)))


def _striped(glyph: Glyph, character: str, size: int, pitch: float, gap: float) -> Glyph:
    apart = max(3, round(pitch * size))
    mask = glyph.mask.copy()
    for row in range(max(1, round(gap * apart))):
        mask[row::apart] = 0
    return reshaped(glyph, mask)


@register(stage=Stage.GLYPHS, weight=0.8, tags=["split"], least_height=30)
@dataclass(frozen=True)
class Stripes(Op):
    """Horizontal gaps through the letters."""

    pitch: float = amount(0.125, 0.1, 0.16)
    """From gap to gap, as a part of the font size."""
    gap: float = amount(0.33, 0.25, 0.55)
    """Part of the pitch."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.effects.append((_striped, (steps(self.pitch, 0.02), steps(self.gap, 0.1))))


def _hatched(glyph: Glyph, character: str, size: int, pitch: float, angle: float) -> Glyph:
    y, x = np.ogrid[: glyph.mask.shape[0], : glyph.mask.shape[1]]
    phase = (x * math.cos(angle) + y * math.sin(angle)) * (2 * math.pi / max(3, pitch * size))
    lines = np.clip(127 + 400 * np.sin(phase), 0, 255).astype(np.uint8)
    rim = cv2.morphologyEx(glyph.mask, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    return reshaped(glyph, cv2.max(rim, cv2.min(lines, glyph.mask)))


@register(stage=Stage.GLYPHS, weight=1, tags=["train_only", "display"], least_height=40)
@dataclass(frozen=True)
class Hatching(Op):
    """Letters are outlines filled with slanting lines."""

    pitch: float = amount(0.08, 0.05, 0.12)
    """From line to line, as a part of the font size."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        angle = rng.choice((0.25, 0.75)) * math.pi
        canvas.effects.append((_hatched, (steps(self.pitch, 0.02), angle)))


def _dotted(glyph: Glyph, character: str, size: int, pitch: float) -> Glyph:
    apart = max(4, round(pitch * size))
    cell = np.zeros((apart, apart), np.uint8)
    cv2.circle(cell, (apart // 2, apart // 2), max(1, round(apart * 0.4)), 255, -1)
    h, w = glyph.mask.shape
    lattice = np.tile(cell, (h // apart + 1, w // apart + 1))[:h, :w].copy()
    return reshaped(glyph, cv2.min(cv2.dilate(glyph.mask, np.ones((3, 3), np.uint8)), lattice))


@register(stage=Stage.GLYPHS, weight=0.8, tags=["split"], least_height=30)
@dataclass(frozen=True)
class Dots(Op):
    """Dots show through the letters."""

    pitch: float = amount(0.1, 0.08, 0.12)
    """From dot to dot, as a part of the font size."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.effects.append((_dotted, (steps(self.pitch, 0.02),)))


def _pixelated(glyph: Glyph, character: str, size: int, part: float) -> Glyph:
    pixel = max(2, int(part * size))
    h, w = glyph.mask.shape
    coarse = cv2.resize(glyph.mask, (max(1, w // pixel), max(1, h // pixel)), interpolation=cv2.INTER_AREA)
    coarse = np.where(coarse > 100, np.uint8(255), np.uint8(0))
    return reshaped(glyph, cv2.resize(coarse, (w, h), interpolation=cv2.INTER_NEAREST))


@register(stage=Stage.GLYPHS, weight=1.5, tags=["split"], least_height=30)
@dataclass(frozen=True)
class Pixels(Op):
    """Letters of large squares."""

    side: float = amount(0.091, 0.06, 0.1)
    """Of a square, as a part of the font size."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.effects.append((_pixelated, (steps(self.side, 0.01),)))


# ---------------------------------------------------------------------------------------------------------------------
# Letters along the middle of their strokes


def _penned(glyph: Glyph, character: str, size: int, part: float) -> Glyph:
    line, step = middle_line(glyph.mask, size)
    return reshaped(glyph, draw_line(glyph.mask, line.view(np.uint8), step, max(2, part * size)))


@register(stage=Stage.GLYPHS, weight=3, tags=["train_only"], least_height=30)
@dataclass(frozen=True)
class Pen(Op):
    """Strokes of one width, as thin as a pen's."""

    width: float = amount(0.05, 0.08, 0.04)
    """Of a stroke, as a part of the font size."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.effects.append((_penned, (steps(self.width, 0.01),)))


def _dot_strokes(glyph: Glyph, character: str, size: int, pitch: float, radius: float, where: str) -> Glyph:
    """Dots, or dashes as long as dots are wide apart, along the middle or the outline of the strokes."""
    reach, radius = int(max(3.0, pitch * size)), max(1, round(radius * size))
    if where == "outline":
        shapes, _ = cv2.findContours((glyph.mask > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        runs = [shape[:, 0, :] for shape in shapes]
    else:
        line, step = middle_line(glyph.mask, size)
        runs = [np.argwhere(line)[:, ::-1] * step]
    mask = np.zeros_like(glyph.mask)
    taken = np.zeros(glyph.mask.shape, bool)
    for run in runs:
        for x, y in run.tolist():  # every point that is far enough from all dots before
            if not taken[y, x]:
                cv2.circle(mask, (x, y), radius, 255, -1, cv2.LINE_AA)
                taken[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
    return reshaped(glyph, mask)


@register(stage=Stage.GLYPHS, weight=5, tags=["train_only"], least_height=30, excludes=["elastic", "row_shift"])
@dataclass(frozen=True)
class DottedStrokes(Op):
    """Letters consist of separate dots along their strokes."""

    pitch: float = amount(0.08, 0.06, 0.11)
    """From dot to dot, as a part of the font size."""
    radius: float = amount(0.035, 0.035, 0.03)
    """Of a dot, as a part of the font size."""
    where: str = chosen("middle", "middle", "middle", "outline")
    """`middle` or `outline` of the strokes."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        arguments = (steps(self.pitch, 0.01), steps(self.radius, 0.01), self.where)
        canvas.effects.append((_dot_strokes, arguments))


def _dashed(glyph: Glyph, character: str, size: int, pitch: float, gap: float, width: float) -> Glyph:
    """The middle line, with gaps where the way along it (from left and top) is near a multiple of the pitch."""
    thin, step = middle_line(glyph.mask, size)
    line, apart = thin.view(np.uint8), max(4.0, pitch * size) / step
    across, down = (np.arange(side) % apart < gap * apart for side in line.shape[::-1])
    # Along both axes, so that lying, standing and slanting strokes all break.
    gaps = np.where(cv2.blur(line, (1, 5)) * 5 > cv2.blur(line, (5, 1)) * 5, down[:, None], across)
    line[gaps] = 0
    return reshaped(glyph, draw_line(glyph.mask, line, step, max(2, width * size)))


@register(stage=Stage.GLYPHS, weight=3, tags=["train_only"], least_height=36)
@dataclass(frozen=True)
class DashedStrokes(Op):
    """Letters consist of dashes along their strokes."""

    pitch: float = amount(0.14, 0.12, 0.18)
    """From gap to gap, as a part of the font size."""
    gap: float = amount(0.4, 0.35, 0.5)
    """Part of the pitch."""
    width: float = amount(0.06, 0.08, 0.05)
    """Of a stroke, as a part of the font size."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        arguments = (steps(self.pitch, 0.02), steps(self.gap, 0.1), steps(self.width, 0.01))
        canvas.effects.append((_dashed, arguments))


# ---------------------------------------------------------------------------------------------------------------------
# Other glyphs than the font's

_SHARP = ["rotation", "shear", "slant", "uneven_width", "even_width", "even_height", "size_jitter", "weight", "blur"]
_SHARP += ["letter_perspective", "scatter", "elastic", "resample", "overflow", "opacity", "stipple", "dither"]


_SHARP += ["hollow", "pen", "pixels", "stripes", "dots", "stencil", "dotted_strokes", "dashed_strokes", "hatching"]


@register(
    stage=Stage.GLYPHS, weight=7, tags=["train_only"], excludes=_SHARP, favors=["grid", "enlarge"], most_height=44
)
@dataclass(frozen=True)
class Bitmap(Op):
    """Letters are hard-edged bitmaps, as old fixed fonts are; they stay sharp where nothing turns or bends them."""

    size: Range = limited((10, 20), 1, 200)
    """Font size in pixels, rounded."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.bitmap = round(rng.uniform(*self.size))
        canvas.effects.clear()
        canvas.antialias = False

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Bitmap:
        size = min(max(9, round(height / rng.uniform(1.3, 2.4))), 20)
        return cls((size, size))

    @classmethod
    def at(cls, strength: float, height: float) -> Bitmap:
        size = round(20 - 8 * strength)
        return cls((size, size))


SEGMENTS = {  # the pieces that are on: top, upper right, lower right, bottom, lower left, upper left, middle
    **{"0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc"},
    **{"5": "afgcd", "6": "afgedc", "7": "abc", "8": "abcdefg", "9": "abcdfg"},
}
_PIECES = {  # from and to, across in widths and down in half heights
    **{"a": ((0, 0), (1, 0)), "b": ((1, 0), (1, 1)), "c": ((1, 1), (1, 2)), "d": ((0, 2), (1, 2))},
    **{"e": ((0, 1), (0, 2)), "f": ((0, 0), (0, 1)), "g": ((0, 1), (1, 1))},
}


def segment_glyph(digit: str, size: int, thickness: float) -> Glyph:
    """Draw a digit of a calculator, leaning a little.

    Args:
        digit: of `SEGMENTS`.
        size: font size in pixels; the digit is as high as a capital.
        thickness: of its pieces, as a part of its height.
    """
    high, border = round(CAPITAL * size), 3 + size // 16
    wide, thick = round(0.55 * high), thickness * high
    lean, gap = 0.1, 0.6 * thick
    mask = np.zeros((high + 2 * border, round(wide + lean * high) + 2 * border), np.uint8)
    for piece in SEGMENTS[digit]:
        a, b = np.array(_PIECES[piece], float)
        ends = np.array((a, b)) * (wide, high / 2) + np.array((1, -1))[:, None] * gap * np.sign(b - a)
        ends[:, 0] += lean * (high - ends[:, 1])
        start, end = (16 * (ends + border)).astype(int).tolist()
        cv2.line(mask, start, end, 255, max(1, round(thick)), cv2.LINE_AA, shift=4)
    return Glyph(mask, -border, -high - border, wide)


def _calculator(glyph: Glyph, character: str, size: int, thickness: float, off: str) -> Glyph:
    if character not in SEGMENTS:
        return glyph
    drawn = segment_glyph(character, size, thickness)
    return reshaped(drawn, drawn.mask, segment_glyph("8", size, thickness) if off else None)


@register(stage=Stage.GLYPHS, weight=2, tags=["train_only"], excludes=["hollow", "pen", "dotted_strokes", "weight"])
@dataclass(frozen=True)
class Segments(Op):
    """Digits are those of a calculator, of seven straight pieces."""

    thickness: Range = ranged((0.08, 0.14), 0.14, 0.08, width=1)
    """Of a piece, as a part of the digit's height."""
    off: float = amount(0.15, 0, 0.3, most=1)
    """Color of the pieces that are off, from the ground's (0) to the letters' (1); 0: not drawn."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        thickness = steps(rng.uniform(*self.thickness), 0.03)
        canvas.effects.append((_calculator, (thickness, "off" if self.off else "")))
        canvas.under_tone = self.off
