"""Strokes, curves, shapes and false letters: below the letters (UNDER), across them (ACROSS) or above (OVER)."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from captcha_reader.generator.canvas import Canvas, Letter, Point, bezier, draw_curve, draw_glyph, replace_pixels
from captcha_reader.generator.ops.clutter import FAINT, LINES, Clutter, draw_lines, draw_pieces
from captcha_reader.generator.registry import (
    LONGEST,
    Op,
    Range,
    Stage,
    amount,
    chosen,
    limited,
    one_of,
    ranged,
    register,
)

# ---------------------------------------------------------------------------------------------------------------------
# Strokes as letters have them


def _scrawl(rng: random.Random, center: Point, size: Point) -> list[list[int]]:
    """A curve of few or many pieces around `center`, within `size` (across, down)."""
    (x, y), (across, down) = center, size
    control = [(x + rng.uniform(-0.5, 0.5) * across, y + rng.uniform(-0.5, 0.5) * down) for _ in range(4)]
    return np.round(bezier(control, rng.choice((1, 3, 4, 12)))).astype(int).tolist()


@register(stage=Stage.UNDER, weight=8)
@dataclass(frozen=True)
class Strokes(Clutter):
    """Short hooks, loops and ticks, as thick as letters are or thinner."""

    count: Range = ranged((1, 3), 1, 5)
    """Number of strokes."""
    width: Range = ranged((1, 5), 0.02, 0.08, per_height=True, width=1)
    """Pixels; every other one grows thinner from piece to piece."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        color = self.colors(canvas, rng)
        for _ in range(round(rng.uniform(*self.count))):
            thickness = rng.uniform(*self.width)
            thinner = rng.choice((0.0, 1.0)) * rng.uniform(0.1, 0.5) * thickness
            place = (rng.random() * width, rng.random() * height)
            points = _scrawl(rng, place, (rng.uniform(0.2, 1) * height, 0.6 * height))
            draw_pieces(canvas.pixels, points, color(), thickness, thinner, canvas.line_type)


@register(stage=Stage.ACROSS, weight=40)
@dataclass(frozen=True)
class Hooks(Clutter):
    """Short strokes through the first letter or the last one, in their color."""

    as_letters: float = limited(1, 0, 1)
    """Probability of a picture to have all of it in the very color of a letter."""
    count: Range = ranged((1, 2), 1, 3)
    """Number of strokes."""
    width: Range = ranged((0.04, 0.16), 0.04, 0.16, width=1)
    """As a part of a capital's height."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        left, top, right, bottom = canvas.box
        size = bottom - top
        color = self.colors(canvas, rng)
        for _ in range(round(rng.uniform(*self.count))):
            thickness = rng.uniform(*self.width) * size
            thinner = rng.choice((0.0, 1.0)) * rng.uniform(0.1, 0.5) * thickness
            x = rng.choice((left, left, right)) + rng.uniform(-0.3, 0.3) * size
            reach = (rng.uniform(0.2, 1) * size, rng.uniform(0.6, 1.6) * size)
            points = _scrawl(rng, (x, rng.uniform(top, bottom)), reach)
            draw_pieces(canvas.pixels, points, color(), thickness, thinner, canvas.line_type)

    @classmethod
    def coloring(cls, rng: random.Random) -> dict[str, Any]:
        return {"tint": 0.9, "as_letters": 1, "above": 0}


@register(stage=Stage.ACROSS, weight=16, tags=["train_only"])
@dataclass(frozen=True)
class Cuts(Op):
    """Lines along which the letters are cut away, down to what was below them."""

    count: Range = ranged((1, 4), 1, 6)
    """Number of lines."""
    width: Range = ranged((1, 2), 0.015, 0.04, per_height=True)
    """Pixels, rounded."""
    kinds: tuple[str, ...] = one_of(("straight", "arc"), *LINES)
    """As those of `lines`."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        mask = np.zeros((canvas.height, canvas.width, 1), np.uint8)
        draw_lines(mask, rng, round(rng.uniform(*self.count)), self.kinds, self.width, lambda: (255.0,))
        replace_pixels(canvas.pixels, canvas.without_letters, cv2.compare(mask, 100, cv2.CMP_GT))


# ---------------------------------------------------------------------------------------------------------------------
# Shapes and false letters


def draw_shape(pixels: np.ndarray, rng: random.Random, color: Sequence[float], thickness: int) -> None:
    """A rectangle, an ellipse or a polygon of random place and size; a thickness of -1 fills it."""
    height, width, _ = pixels.shape
    x, y = rng.random() * width, rng.random() * height
    across, down = rng.uniform(0.05, 0.3) * width, rng.uniform(0.1, 0.5) * height
    kind = rng.randrange(3)
    if kind == 0:
        cv2.rectangle(pixels, (int(x - across), int(y - down)), (int(x + across), int(y + down)), color, thickness)
    elif kind == 1:
        size = (max(1, int(across)), max(1, int(down)))
        cv2.ellipse(pixels, (int(x), int(y)), size, rng.uniform(0, 180), 0, 360, color, thickness, cv2.LINE_AA)
    else:
        corners = [(x + rng.uniform(-across, across), y + rng.uniform(-down, down)) for _ in range(rng.randint(3, 6))]
        points = np.array(corners).round().astype(np.int32)
        if thickness < 0:
            cv2.fillPoly(pixels, [points], color)
        else:
            cv2.polylines(pixels, [points], True, color, thickness)


@register(stage=Stage.UNDER, weight=7)
@dataclass(frozen=True)
class Shapes(Clutter):
    """Rectangles, ellipses and polygons, filled or in outline."""

    tone: Range = limited((0, 0.5), 0, 1)
    """Where `level` says nothing: from the ground's brightness (0) to the letters' (1)."""
    count: Range = ranged((1, 8), 1, 12)
    """Number of shapes."""
    width: Range = limited((1, 2), 0, LONGEST)
    """Of outlines."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        color = self.colors(canvas, rng)
        for _ in range(round(rng.uniform(*self.count))):
            thickness = -1 if rng.random() < 0.4 else max(1, round(rng.uniform(*self.width)))
            draw_shape(canvas.pixels, rng, color(), thickness)

    @classmethod
    def coloring(cls, rng: random.Random) -> dict[str, Any]:
        return FAINT | {"tone": rng.choice([(0.0, 0.2), (0.0, 0.5)])}


@register(stage=Stage.UNDER, weight=6, tags=["train_only"], least_height=30)
@dataclass(frozen=True)
class Decoys(Clutter):
    """Smaller, paler characters between and below the letters, which do not count."""

    tone: Range = ranged((0.15, 0.5), 0.1, 0.5, most=1)
    """Where `level` says nothing: from the ground's brightness (0) to the letters' (1)."""
    count: Range = ranged((8, 30), 5, 40)
    """Number of characters."""
    size: Range = ranged((0.2, 0.6), 0.2, 0.6)
    """Of these, as a part of the letters'."""
    degrees: float = chosen(57, 0, 20, 57, most=180)
    """By which they turn, at most, either way."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        color = self.colors(canvas, rng)
        turn = math.radians(self.degrees)
        for _ in range(round(rng.uniform(*self.count))):
            letter = rng.choice(canvas.letters)
            scale = canvas.size / max(canvas.drawn, 1) * rng.uniform(*self.size)
            place = (rng.random() * canvas.width, rng.random() * canvas.height)
            angle = rng.uniform(-turn, turn)
            decoy = Letter(letter.character, letter.path, letter.glyph, *place, (scale, scale), angle)
            draw_glyph(canvas.pixels, decoy.glyph, decoy, color(), antialias=canvas.antialias)

    @classmethod
    def coloring(cls, rng: random.Random) -> dict[str, Any]:
        return {"level": None, "tint": rng.choice([0.1, 0.5]), "as_letters": 0, "above": 0}


@register(stage=Stage.OVER, weight=60)
@dataclass(frozen=True)
class Frame(Clutter):
    """A frame around the picture."""

    width: Range = ranged((1, 2), 0.015, 0.05, per_height=True)
    """Its thickness."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        color = self.colors(canvas, rng)()
        for i in range(max(1, round(rng.uniform(*self.width)))):
            cv2.rectangle(canvas.pixels, (i, i), (canvas.width - 1 - i, canvas.height - 1 - i), color, 1)


@register(stage=Stage.ACROSS, weight=22, tags=["train_only"])
@dataclass(frozen=True)
class ThickCurve(Clutter):
    """A curve as thick as a stroke runs through the whole word, in the letters' color."""

    as_letters: float = limited(1, 0, 1)
    """Probability of a picture to have all of it in the very color of a letter."""
    count: Range = ranged((1, 1), 1, 2, width=1)
    """Number of curves."""
    width: Range = ranged((0.06, 0.12), 0.05, 0.13)
    """As a part of the font size."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        left, top, right, bottom = canvas.box
        color, high = self.colors(canvas, rng), max(bottom - top, 4.0)
        for _ in range(round(rng.uniform(*self.count))):
            start, end = left - rng.uniform(0, 0.5) * high, right + rng.uniform(0, 0.5) * high
            places = (start, start + 0.3 * (end - start), start + 0.7 * (end - start), end)
            points = bezier([(x, top + rng.uniform(-0.3, 1.3) * high) for x in places], 24)
            thickness = max(1, round(rng.uniform(*self.width) * canvas.size))
            draw_curve(canvas.pixels, points, color(), thickness, canvas.line_type)

    @classmethod
    def coloring(cls, rng: random.Random) -> dict[str, Any]:
        return {"tint": rng.choice([0.0, 0.9]), "as_letters": rng.choice([1, 1, 0]), "tone": (0.8, 1.0)}


@register(stage=Stage.ACROSS, weight=10, tags=["train_only"], excludes=["pen", "hollow", "dotted_strokes", "cuts"])
@dataclass(frozen=True)
class Worn(Op):
    """Blotches of the letters are missing, as on worn print."""

    part: Range = ranged((0.1, 0.3), 0.08, 0.3, most=1)
    """Of the letters that is gone."""
    cell: float = amount(3, 0.025, 0.07, per_height=True, least=1)
    """Size of the blotches."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        rows, columns = math.ceil(canvas.height / self.cell) + 1, math.ceil(canvas.width / self.cell) + 1
        raw = np.frombuffer(rng.randbytes(rows * columns), np.uint8).reshape(rows, columns)
        field = cv2.resize(raw, (canvas.width, canvas.height), interpolation=cv2.INTER_LINEAR)
        limit = float(np.quantile(raw, rng.uniform(*self.part)))
        replace_pixels(canvas.pixels, canvas.without_letters, cv2.compare(field, limit, cv2.CMP_LT))


@register(stage=Stage.UNDER, weight=5, tags=["train_only"], excludes=["pen", "hollow", "dotted_strokes", "bitmap"])
@dataclass(frozen=True)
class Blots(Clutter):
    """Dozens of thick lines and discs, in the color of the letters that they cover."""

    as_letters: float = limited(1, 0, 1)
    """Probability of a picture to have all of it in the very color of a letter."""
    above: float = limited(1, 0, 1)
    """Probability of a picture to have it above the letters, where nothing bends it, and not below them."""
    count: Range = ranged((10, 20), 6, 22)
    """Number of lines and discs in a picture three times as wide as high, and in proportion in others."""
    width: Range = ranged((1, 3), 0.015, 0.035, per_height=True)
    """Of a line; discs are twice as wide."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        color = self.colors(canvas, rng)
        for _ in range(max(1, round(rng.uniform(*self.count) * width / height / 3))):
            x, y, thick = rng.random() * width, rng.random() * height, max(1.0, rng.uniform(*self.width))
            if rng.random() < 0.4:
                place = (round(16 * x), round(16 * y))  # four fractional bits
                cv2.circle(canvas.pixels, place, round(16 * thick), color(), -1, canvas.line_type, 4)
                continue
            angle, reach = rng.random() * math.pi, rng.uniform(0.1, 0.3) * height
            ends = [(x + side * reach * math.cos(angle), y + side * reach * math.sin(angle)) for side in (-1, 1)]
            draw_curve(canvas.pixels, ends, color(), round(thick), canvas.line_type)

    @classmethod
    def coloring(cls, rng: random.Random) -> dict[str, Any]:
        return {"as_letters": 1, "above": 1, "tint": 0.0}


@register(stage=Stage.UNDER, weight=4, tags=["train_only"])
@dataclass(frozen=True)
class ParallelLines(Clutter):
    """Thin slanting lines, evenly apart, over all of the picture."""

    pitch: Range = ranged((6, 12), 0.25, 0.1, per_height=True)
    """From line to line."""
    tone: Range = ranged((0.3, 0.7), 0.2, 0.8, most=1)
    """Where `level` says nothing: from the ground's brightness (0) to the letters' (1)."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        color, pitch = self.colors(canvas, rng)(), max(3.0, rng.uniform(*self.pitch))
        slope = rng.choice((-1, 1)) * rng.uniform(0.2, 1.5)
        for k in range(math.ceil((width + abs(slope) * height) / pitch)):
            x = k * pitch - (abs(slope) * height if slope > 0 else 0)
            draw_curve(canvas.pixels, [(x, 0), (x + slope * height, height)], color, 1, canvas.line_type)

    @classmethod
    def coloring(cls, rng: random.Random) -> dict[str, Any]:
        return {"tint": rng.choice([0.0, 0.6]), "above": rng.choice([0.0, 1.0])}


@register(stage=Stage.OVER, weight=14, tags=["train_only"])
@dataclass(frozen=True)
class EdgeBands(Clutter):
    """Bands of strong colors along some of the picture's edges."""

    width: Range = ranged((2, 6), 0.03, 0.12, per_height=True)
    """Of a band."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        sides = rng.choice(("tb", "t", "b", "lr", "tlbr"))
        for side in sides:
            thick, color = max(1, round(rng.uniform(*self.width))), canvas.color(rng, (20, 220), 1.0)
            first = {"b": (0, height - thick), "r": (width - thick, 0)}.get(side, (0, 0))
            last = {"t": (width, thick - 1), "l": (thick - 1, height)}.get(side, (width, height))
            cv2.rectangle(canvas.pixels, first, last, color, -1)
