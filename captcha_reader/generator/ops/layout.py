"""Where the letters stand: layouts (stage LAYOUT, one a style) and how each letter leaves its place (LETTERS)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from captcha_reader.generator.canvas import CAPITAL, Canvas, Letter
from captcha_reader.generator.fonts import load_glyph, shaped_glyph
from captcha_reader.generator.registry import LONGEST, Op, Range, Stage, amount, limited, ranged, register

GLYPH_SIZES = (14, 21, 28, 42, 63, 84, 126, 189, 284)  # pixels, of the glyphs that letters are scaled from
WIDEST = 20_000  # pixels, width of a picture that is as wide as its text needs; longer texts are shrunk to fit
FINE = 36  # pixels, least size at which effects on strokes can be drawn


def load_letters(canvas: Canvas, size: float) -> list[Letter]:
    """The text's letters at a font size in pixels, without places."""
    if canvas.bitmap:
        size = drawn = canvas.bitmap
        glyphs = [load_glyph(p, c, drawn, hard=True) for p, c in zip(canvas.paths, canvas.text, strict=True)]
    else:
        # Few sizes keep the cache of glyphs small, and shrinking looks better than growing.
        least = max(size, FINE if canvas.effects else 0)
        drawn = next((step for step in GLYPH_SIZES if step >= least), GLYPH_SIZES[-1])
        effects = tuple(canvas.effects)
        pairs = zip(canvas.paths, canvas.text, strict=True)
        glyphs = [shaped_glyph(p, c, drawn, effects) if effects else load_glyph(p, c, drawn) for p, c in pairs]
    canvas.size, canvas.drawn = size, drawn
    scale = (size / drawn, size / drawn)
    rows = zip(canvas.text, canvas.paths, glyphs, strict=True)
    return [Letter(c, path, glyph, scale=scale) for c, path, glyph in rows]


def _as_wide(needed: float) -> int:
    """The width of a picture that is as wide as its text needs, within what memory holds."""
    return min(max(math.ceil(needed), 1), WIDEST)


@register(stage=Stage.LAYOUT, weight=74, tags=["split"])
@dataclass(frozen=True)
class Row(Op):
    """Letters side by side on one line, shrunk if the picture is too narrow."""

    size: Range = limited((0.55, 0.7), 0, 3)
    """Font size as a part of the picture's height."""
    stretch: Range = limited((0.9, 1.1), 0, 10)
    """Width of the letters against what the font says."""
    spacing: Range = limited((0.02, 0.12), -2, 10)
    """Gap between letters as a part of the font size; below zero they overlap."""
    margin: float = limited(6, -LONGEST, LONGEST)
    """Least distance of the word from the left and right edge; below zero letters may be cut off."""
    left: Range | None = limited(None, -LONGEST, LONGEST)
    """Left of the first letter at a length of 5, in proportion to 1 / (2 + length). None: anywhere."""
    baseline: float | None = limited(None, -1, 2)
    """Base line as a part of the height from above. None: capitals stand in the middle."""
    drop: float = limited(0, 0, 1)
    """The word leaves its height by up to this part of the picture's height."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        size = rng.uniform(*self.size) * canvas.height
        letters = canvas.letters = load_letters(canvas, size)
        if canvas.bitmap:
            size = canvas.size
        stretch = 1.0 if canvas.bitmap else rng.uniform(*self.stretch)
        gap = rng.uniform(*self.spacing) * size
        count = len(letters)
        wide = sum(letter.width for letter in letters) * stretch + gap * (count - 1)
        if canvas.width is None:
            canvas.width = _as_wide(wide + 2 * self.margin)
        left = None if self.left is None else rng.uniform(*self.left) * 7 / (2 + count)
        room = canvas.width - self.margin - (self.margin if left is None else left)
        fit = 1.0 if canvas.bitmap else min(1.0, room / max(wide, 1))
        canvas.size = size * fit
        if left is None:
            left = self.margin + rng.random() * max(room - wide * fit, min(room, 0))
        place(canvas, left, gap * fit, fit * stretch, fit, self._line(canvas, rng))

    def _line(self, canvas: Canvas, rng: random.Random) -> float:
        # The middle of capitals into the picture's middle.
        middle = canvas.height / 2 + CAPITAL / 2 * canvas.size
        line = middle if self.baseline is None else canvas.height * self.baseline
        return line + (rng.uniform(-self.drop, self.drop) * canvas.height if self.drop else 0)

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Row:
        low, high = (0.6, 0.95) if height < 30 else (0.4, 0.85)
        if rng.random() < 0.05 and height >= 50:
            low, high = 0.2, 0.4
        span = rng.uniform(0, 0.4) * (high - low)
        start = rng.uniform(low, high - span)
        tight, loose = rng.choices([(-0.16, -0.02), (-0.02, 0.15), (0.05, 0.5)], [22, 60, 18])[0]
        gap = rng.uniform(tight, loose)
        squeeze = rng.uniform(0.55, 0.8) if rng.random() < 0.07 else rng.uniform(0.75, 1.15)
        return cls(
            size=(start, start + span),
            stretch=(squeeze, squeeze + rng.uniform(0, 0.15)),
            spacing=(gap, min(gap + rng.uniform(0, 0.08), loose)),
            margin=height * rng.choices([rng.uniform(0.02, 0.15), rng.uniform(0.15, 0.5)], [68, 32])[0],
            drop=rng.uniform(0, 0.1),
        )


@register(stage=Stage.LAYOUT, weight=26, tags=["split"])
@dataclass(frozen=True)
class Spread(Op):
    """Letters share the picture's width evenly."""

    size: Range = ranged((0.55, 0.7), 0.85, 0.4, width=0.4)
    """Font size as a part of the picture's height."""
    stretch: Range = ranged((0.9, 1.1), 1.2, 0.75)
    """Width of the letters against what the font says."""
    margin: float = amount(6, 0.02, 0.3, per_height=True, least=None)
    """Least distance of the word from the left and right edge; below zero letters may be cut off."""
    drop: float = amount(0, 0, 0.1)
    """The word leaves its height by up to this part of the picture's height."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        letters = canvas.letters = load_letters(canvas, rng.uniform(*self.size) * canvas.height)
        count, stretch = len(letters), 1.0 if canvas.bitmap else rng.uniform(*self.stretch)
        wide = sum(letter.width for letter in letters) * stretch
        if canvas.width is None:
            canvas.width = _as_wide(1.3 * wide + 2 * self.margin)
        room = canvas.width - 2 * self.margin
        fit = 1.0 if canvas.bitmap else min(1.0, room / max(wide, 1))
        canvas.size *= fit
        gap = (room - wide * fit) / count
        line = canvas.height / 2 + CAPITAL / 2 * canvas.size + rng.uniform(-self.drop, self.drop) * canvas.height
        place(canvas, self.margin + gap / 2, gap, fit * stretch, fit, line)


_COARSE = ["blur", "resample", "frayed", "stipple", "dither", "checks", "facets", "overflow", "even_height", "blots"]
_COARSE += ["swirl"]


@register(stage=Stage.LAYOUT, weight=17, tags=["train_only"], least_height=64, excludes=_COARSE)
@dataclass(frozen=True)
class Scattered(Op):
    """Small letters all over a large picture, from left to right, at heights of their own."""

    size: Range = ranged((0.2, 0.3), 0.34, 0.17, width=0.3)
    """Font size as a part of the picture's height."""
    heights: float = amount(0.8, 0.3, 1, most=1)
    """Part of the picture's height over which the letters spread."""
    degrees: float = amount(20, 0, 40)
    """By which each letter turns, at most, either way."""
    margin: float = amount(6, 0.02, 0.2, per_height=True)
    """Least distance from the left and right edge."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        letters = canvas.letters = load_letters(canvas, max(rng.uniform(*self.size) * canvas.height, 11.0))
        if canvas.width is None:
            canvas.width = _as_wide(2.5 * sum(letter.width for letter in letters) + 2 * self.margin)
        slot = (canvas.width - 2 * self.margin) / len(letters)
        widest = max(letter.width for letter in letters)
        fit = min(1.0, 0.95 * slot / max(widest, 1))
        canvas.size, canvas.in_line = canvas.size * fit, False
        room = (canvas.height - 1.3 * canvas.size) * self.heights
        for i, letter in enumerate(letters):
            letter.scale = (letter.scale[0] * fit, letter.scale[1] * fit)
            letter.x = self.margin + i * slot + rng.random() * (slot - letter.width)
            letter.y = canvas.height / 2 + CAPITAL / 2 * canvas.size + rng.uniform(-0.5, 0.5) * room
            letter.angle = math.radians(rng.uniform(-self.degrees, self.degrees))


def place(canvas: Canvas, left: float, gap: float, across: float, down: float, line: float) -> None:
    """Give letters scales, and pens on one line from `left` on, with `gap` pixels between them."""
    pen = left
    for letter in canvas.letters:
        letter.scale = (letter.scale[0] * across, letter.scale[1] * down)
        letter.x, letter.y = pen, line
        if canvas.bitmap:  # on whole pixels
            letter.x, letter.y = round(pen), round(line)
        pen += letter.width + gap


# ---------------------------------------------------------------------------------------------------------------------
# Letters leave their places


@register(stage=Stage.LETTERS, weight=30)
@dataclass(frozen=True)
class Rotation(Op):
    """Each letter turns by itself."""

    degrees: float = amount(20, 2, 55)
    """At most, either way."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        for letter in canvas.letters:
            letter.angle += math.radians(rng.uniform(-self.degrees, self.degrees))

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Rotation:
        low, high = rng.choices([(2, 15), (15, 30), (30, 45), (45, 55)], [50, 36, 9, 5])[0]
        return cls(rng.uniform(low, high) * (0.4 if height < 30 else 1))


@register(stage=Stage.LETTERS, weight=20)
@dataclass(frozen=True)
class Shear(Op):
    """Each letter leans by itself."""

    amount: float = amount(0.15, 0.03, 0.35)
    """Part of the height by which the top moves, at most, either way."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        for letter in canvas.letters:
            letter.shear += rng.uniform(-self.amount, self.amount)


@register(stage=Stage.LETTERS, weight=10)
@dataclass(frozen=True)
class Slant(Op):
    """All letters of a word lean to the same side."""

    amount: float = amount(0.3, 0.15, 0.5)
    """Part of the height by which the tops move, at most, either way."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        shear = rng.uniform(-self.amount, self.amount)
        for letter in canvas.letters:
            letter.shear += shear


@register(stage=Stage.LETTERS, weight=25)
@dataclass(frozen=True)
class Bounce(Op):
    """Letters leave the common base line."""

    amount: float = amount(0.08, 0.03, 0.22)
    """Part of the font size, at most, up or down."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        for letter in canvas.letters:
            letter.y += rng.uniform(-self.amount, self.amount) * canvas.size
            if canvas.bitmap:
                letter.y = round(letter.y)


@register(stage=Stage.LETTERS, weight=14)
@dataclass(frozen=True)
class SizeJitter(Op):
    """Letters are larger or smaller, each by itself."""

    amount: float = amount(0.2, 0.05, 0.45)
    """Part of the size, at most."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        for letter in canvas.letters:
            grow = 1 + rng.uniform(-self.amount, self.amount)
            letter.scale = (letter.scale[0] * grow, letter.scale[1] * grow)


@register(stage=Stage.LETTERS, weight=9)
@dataclass(frozen=True)
class UnevenWidth(Op):
    """Letters are wider or narrower, each by itself; the word stays as wide as it is."""

    amount: float = amount(0.25, 0.1, 0.4)
    """Part of the width, at most."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        factors = [rng.uniform(1 - self.amount, 1 + self.amount) for _ in canvas.letters]
        total = sum(letter.width for letter in canvas.letters)
        share = total / sum(f * letter.width for f, letter in zip(factors, canvas.letters, strict=True))
        rescale_widths(canvas, [factor * share for factor in factors])


@register(stage=Stage.LETTERS, weight=3, excludes=["uneven_width"])
@dataclass(frozen=True)
class EvenWidth(Op):
    """All letters of a word are stretched or squeezed to one width."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        mean = sum(letter.width for letter in canvas.letters) / len(canvas.letters)
        rescale_widths(canvas, [min(mean / letter.width, 3.0) for letter in canvas.letters])


@register(stage=Stage.LETTERS, weight=6)
@dataclass(frozen=True)
class EvenHeight(Op):
    """All letters of a word are stretched to the height of a capital, and down to the base line."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        for letter in canvas.letters:
            top, bottom = letter.glyph.reach
            taller = min(CAPITAL * canvas.size / letter.scale[1] / max(bottom - top, 1), 3.0)
            letter.scale = (letter.scale[0], letter.scale[1] * taller)
            letter.y -= bottom * letter.scale[1]


@register(stage=Stage.LETTERS, weight=14)
@dataclass(frozen=True)
class SpacingJitter(Op):
    """Some neighbors overlap, by half of the narrower one at most, and others stand apart."""

    amount: float = amount(0.2, 0.05, 0.35)
    """Part of the font size by which a gap changes, at most; the word stays about as wide."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        letters = canvas.letters
        if not canvas.in_line or len(letters) < 2:
            return
        most = self.amount * canvas.size
        moves = [rng.uniform(-most, most) for _ in letters[1:]]
        mean = sum(moves) / len(moves)
        gaps = _gaps(letters)
        for i, (first, second) in enumerate(pairwise(letters)):
            gaps[i] = max(gaps[i] + moves[i] - mean, -min(first.width, second.width) / 2)
        _repack(letters, gaps)
        if canvas.bitmap:
            for letter in letters:
                letter.x = round(letter.x)


@register(stage=Stage.LETTERS, weight=8)
@dataclass(frozen=True)
class LetterPerspective(Op):
    """The corners of each letter's box move, each by itself."""

    amount: float = amount(0.1, 0.05, 0.2)
    """Part of the box's sides, at most."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        for letter in canvas.letters:
            letter.bend = [rng.uniform(-self.amount, self.amount) for _ in range(8)]


def rescale_widths(canvas: Canvas, factors: Sequence[float]) -> None:
    """Make letters wider by factors; those on a line keep the gaps between them, others their middles."""
    letters = canvas.letters
    gaps = _gaps(letters)
    for letter, factor in zip(letters, factors, strict=True):
        before = letter.width
        letter.scale = (letter.scale[0] * factor, letter.scale[1])
        if not canvas.in_line:
            letter.x += (before - letter.width) / 2
    if canvas.in_line:
        _repack(letters, gaps)


def _gaps(letters: Sequence[Letter]) -> list[float]:
    """Pixels between each letter's right edge and the next one's pen."""
    return [second.x - first.x - first.width for first, second in pairwise(letters)]


def _repack(letters: Sequence[Letter], gaps: Sequence[float]) -> None:
    for i, gap in enumerate(gaps):
        letters[i + 1].x = letters[i].x + letters[i].width + gap


@register(stage=Stage.LETTERS, weight=5, tags=["heldout"])
@dataclass(frozen=True)
class Staircase(Op):
    """Each letter stands higher, or lower, than the one before."""

    rise: float = amount(0.3, 0.15, 0.5)
    """From the first letter to the last one, at most, as a part of the picture's height; up or down by lot."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        left, top, right, bottom = canvas.box
        most = min(self.rise * canvas.height, max(canvas.height - (bottom - top), 0))
        rise = rng.choice((-1, 1)) * rng.uniform(0.5, 1) * most
        for letter in canvas.letters:
            letter.y += rise * ((letter.middle[0] - left) / max(right - left, 1) - 0.5)


_MOVING = ["bounce", "staircase", "size_jitter", "arch", "fan", "swirl", "perspective", "wave", "lenses", "even_height"]
_MOVING += ["pinch"]


@register(stage=Stage.LETTERS, weight=9, tags=["train_only"], excludes=_MOVING)
@dataclass(frozen=True)
class Overflow(Op):
    """Letters touch the picture's edges or leave it a little."""

    beyond: float = amount(0.08, -0.03, 0.13, least=None)
    """Part of a capital's height, or of the first or last letter's width, that lies outside."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        left, top, right, bottom = canvas.box
        beyond = self.beyond * (bottom - top)
        edges = rng.choice(("t", "b", "l", "r", "tl", "br"))
        moves = {"t": (0.0, -top - beyond), "b": (0.0, canvas.height - bottom + beyond)}
        moves |= {"l": (-left - beyond, 0.0), "r": (canvas.width - right + beyond, 0.0)}
        for edge in edges:
            for letter in canvas.letters:
                letter.x, letter.y = letter.x + moves[edge][0], letter.y + moves[edge][1]
