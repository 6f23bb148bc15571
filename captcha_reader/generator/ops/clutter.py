"""Dots and lines through the picture, below the letters (stage UNDER) or, by lot, above them (OVER)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np

from captcha_reader.generator.canvas import Canvas, Color, Point, bezier, draw_curve
from captcha_reader.generator.registry import LONGEST, Op, Range, Stage, around, limited, one_of, ranged, register


@dataclass(frozen=True)
class Clutter(Op):
    """What is drawn in colors of its own, or in the letters'."""

    level: Range | None = limited(None, 0, 255)
    """Brightness; None: as `tone` says."""
    tone: Range = limited((0.7, 1), 0, 1)
    """Where `level` says nothing: from the ground's brightness (0) to the letters' (1)."""
    tint: float = limited(0.9, 0, 1)
    """0: gray, 1: strong colors."""
    as_letters: float = limited(0, 0, 1)
    """Probability of a picture to have all of it in the very color of a letter."""
    above: float = limited(0, 0, 1)
    """Probability of a picture to have it above the letters, where nothing bends it, and not below them."""

    def stage_of(self, rng: random.Random) -> Stage:
        if self.above <= 0 or self.stage is not Stage.UNDER:
            return self.stage
        return Stage.OVER if self.above >= 1 or rng.random() < self.above else self.stage

    def colors(self, canvas: Canvas, rng: random.Random) -> Callable[[], Color]:
        """What gives a color for each piece."""
        if self.as_letters and rng.random() < self.as_letters:
            color = rng.choice(canvas.letters).color
            return lambda: color
        level = self.level or canvas.between(self.tone)
        return lambda: canvas.color(rng, level, self.tint)

    @classmethod
    def sample_fields(cls, rng: random.Random, height: float) -> dict[str, Any]:
        return super().sample_fields(rng, height) | cls.coloring(rng)

    @classmethod
    def coloring(cls, rng: random.Random) -> dict[str, Any]:
        """Fields that decide color and place, for a random scheme."""
        level, tone = rng.choices([(None, (0.7, 1.0)), (None, (0.0, 0.4)), ((0.0, 255.0), (1, 1))], [50, 15, 35])[0]
        return {
            "level": level,
            "tone": tone,
            "tint": rng.choice([0.0, 0.5, 1.0]),
            "as_letters": 1 if rng.random() < 0.35 else 0,
            "above": rng.choice([0.0, 0.5, 1.0]),
        }


FAINT = {"level": None, "tint": 0.5, "as_letters": 0, "above": 0}


# ---------------------------------------------------------------------------------------------------------------------
# Dots


def draw_spots(
    pixels: np.ndarray,
    rng: random.Random,
    count: int,
    radius: Range,
    colors: Sequence[Color],
    kinds: Sequence[str] = ("disc",),
) -> None:
    """Draw dots of random place, radius and kind into (height, width, channels) uint8, in place.

    Args:
        radius: pixels, rounded.
        colors: they take turns.
        kinds: `disc`, `ring`, `square` (turned, filled), `dash` (a line, four times as long); one for each dot.

    Raises:
        ValueError: there is no such kind.
    """
    height, width, _ = pixels.shape
    low, span = radius[0], radius[1] - radius[0]
    draw = rng.random
    for i in range(count):
        center = (int(draw() * width), int(draw() * height))
        size = round(low + span * draw())
        kind = rng.choice(kinds) if len(kinds) > 1 else kinds[0]
        color = colors[i % len(colors)]
        if kind in ("disc", "ring"):
            cv2.circle(pixels, center, size, color, -1 if kind == "disc" else 1)
            continue
        if kind not in ("square", "dash"):
            raise ValueError(f"unknown kind of spot {kind!r}")
        sides = (2 * size, 2 * size) if kind == "square" else (8 * size, 1)
        corners = cv2.boxPoints((center, sides, rng.uniform(0, 180)))
        cv2.fillConvexPoly(pixels, corners.round().astype(np.int32), color)


@register(stage=Stage.UNDER, weight=30)
@dataclass(frozen=True)
class Spots(Clutter):
    """Dots, rings, squares or dashes, in up to six colors."""

    count: Range = ranged((15, 40), 5, 120)
    """Number of dots in a picture three times as wide as high, and in proportion in others."""
    radius: Range = limited((1, 2), 0, LONGEST)
    """Of a dot."""
    kinds: tuple[str, ...] = one_of(("disc",), "disc", "ring", "square", "dash")
    """`disc`, `ring`, `square`, `dash`; one is drawn for each dot."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        count = round(rng.uniform(*self.count))
        if count:
            color = self.colors(canvas, rng)
            colors = [color() for _ in range(min(count, 6))]
            draw_spots(canvas.pixels, rng, count, self.radius, colors, self.kinds)

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Spots:
        kinds: tuple[str, ...] = ("disc",)
        radius = (0.0, rng.choice([0, 0, 1, 1, 2]) * max(1, height / 60))
        most = rng.choices([15, 60, 150, 300], [30, 40, 20, 10])[0]
        if rng.random() < 0.2:
            most, radius = 50, (1.0, max(1.5, 0.06 * height))
            kinds = rng.choice([("square",), ("ring",), ("dash",), ("disc", "ring", "square", "dash")])
        elif rng.random() < 0.3:
            most, radius = 60, (0.0, max(1.0, 0.03 * height))
        return cls(count=around(rng, 0.1 * most, most), radius=radius, kinds=kinds, **cls.coloring(rng))


# ---------------------------------------------------------------------------------------------------------------------
# Lines


def draw_lines(
    pixels: np.ndarray,
    rng: random.Random,
    count: int,
    kinds: Sequence[str],
    width: Range,
    color: Callable[[], Color],
    line_type: int = cv2.LINE_AA,
) -> None:
    """Draw lines of random kind, place and color into (height, width, channels) uint8, in place.

    Args:
        kinds: one is drawn for each line: `straight`, `arc`, `wave`, `kinked` (a few straight pieces, often ever
            thinner), `rings` (ellipses around a point), `loop` (one ellipse, up to the picture's height), or `taper`
            (the pairs of the Kaptcha library, kinked and thick at the left end).
        width: pixels, rounded; of a `kinked` line, its thickest piece; `taper` has its own.
        color: called for each line.

    Raises:
        ValueError: there is no such kind.
    """
    for i in range(count):
        kind = rng.choice(kinds)
        if kind not in LINES:
            raise ValueError(f"unknown kind of line {kind!r}")
        LINES[kind](pixels, rng, color(), max(1, round(rng.uniform(*width))), line_type, i)


def _straight(pixels: np.ndarray, rng: random.Random, color: Color, thick: int, line_type: int, _: int) -> None:
    height, width, _ = pixels.shape
    draw_curve(pixels, [(rng.random() * width, rng.random() * height) for _ in range(2)], color, thick, line_type)


def _arc(pixels: np.ndarray, rng: random.Random, color: Color, thick: int, line_type: int, _: int) -> None:
    height, width, _ = pixels.shape
    ends = (-0.05 * width, 0.3 * width, 0.7 * width, 1.05 * width)
    points = bezier([(x, (rng.random() * 1.2 - 0.1) * height) for x in ends], 16)
    draw_curve(pixels, points, color, thick, line_type)


def _wave(pixels: np.ndarray, rng: random.Random, color: Color, thick: int, line_type: int, _: int) -> None:
    height, width, _ = pixels.shape
    level, swing = rng.uniform(0.3, 0.7) * height, rng.uniform(0.05, 0.25) * height
    turns, phase = rng.uniform(0.5, 2.5) * 2 * math.pi, rng.random() * 2 * math.pi
    points = [(t / 32 * width, level + swing * math.sin(turns * t / 32 + phase)) for t in range(33)]
    draw_curve(pixels, points, color, thick, line_type)


def _rings(pixels: np.ndarray, rng: random.Random, color: Color, thick: int, line_type: int, _: int) -> None:
    height, width, _ = pixels.shape
    center = (int(rng.random() * width), int(rng.random() * height))
    apart, flat = max(3.0, rng.uniform(0.1, 0.35) * height), rng.uniform(0.4, 1.0)
    for i in range(1, int(width / apart) + 1):
        axes = (round(i * apart), round(i * apart * flat))
        cv2.ellipse(pixels, center, axes, 0, 0, 360, color, thick, line_type)


def _loop(pixels: np.ndarray, rng: random.Random, color: Color, thick: int, line_type: int, _: int) -> None:
    height, width, _ = pixels.shape
    center = (int(rng.random() * width), int(rng.random() * height))
    axes = (round(rng.uniform(0.1, 0.5) * height), round(rng.uniform(0.1, 0.5) * height))
    cv2.ellipse(pixels, center, axes, rng.uniform(0, 180), 0, 360, color, thick, line_type)


def _kinked(pixels: np.ndarray, rng: random.Random, color: Color, thick: int, line_type: int, _: int) -> None:
    """Two to five straight pieces from left to right; in every other line, each is thinner than the one before."""
    height, width, _ = pixels.shape
    pieces = rng.randint(2, 5)
    start, end = rng.uniform(0, 0.3), rng.uniform(0.6, 1)
    places = [start + (end - start) * (i + rng.uniform(-0.5, 0.5)) / pieces for i in range(pieces + 1)]
    points = [(round(place * width), round(rng.random() * height)) for place in places]
    draw_pieces(pixels, points, color, thick, rng.choice((0, 1)), line_type)


def _taper(pixels: np.ndarray, rng: random.Random, color: Color, thick: int, line_type: int, turn: int) -> None:
    """A curve in few straight pieces of falling width: the noise lines of the Kaptcha library, which come in pairs."""
    height, width, _ = pixels.shape
    places = (0.1, 0.1, 0.25, 0.25) if turn % 2 == 0 else (0.1, 0.25, 0.5, 0.9)
    points = _flatten([(width * part, height * rng.random()) for part in places], 2.0)
    for i, ((ax, ay), (bx, by)) in enumerate(pairwise(points)):
        half = 0.45 * (4 - min(i, 2)) - 0.6  # OpenCV paints polygons about so much too wide on each side
        ax, ay, bx, by = int(ax) + 0.0, int(ay) + 0.0, int(bx) + 0.0, int(by) + 0.0
        length = math.hypot(bx - ax, by - ay)
        ux, uy = ((bx - ax) / length * half, (by - ay) / length * half) if length else (half, 0.0)
        corners = [  # with square caps
            (ax - ux - uy, ay - uy + ux),
            (bx + ux - uy, by + uy + ux),
            (bx + ux + uy, by + uy - ux),
            (ax - ux + uy, ay - uy - ux),
        ]
        fixed = (np.array(corners) * 16).round().astype(np.int32)
        cv2.fillConvexPoly(pixels, fixed, color, cv2.LINE_AA, shift=4)


LINES = {
    **{"straight": _straight, "arc": _arc, "wave": _wave, "kinked": _kinked},
    **{"rings": _rings, "loop": _loop, "taper": _taper},
}


def draw_pieces(
    pixels: np.ndarray, points: Sequence[Any], color: Color, thickness: float, thinner: float, line_type: int
) -> None:
    """Straight pieces from point to point, each by `thinner` pixels thinner than the one before, one at least."""
    for i, (a, b) in enumerate(pairwise(points)):
        cv2.line(pixels, a, b, color, max(1, round(thickness - i * thinner)), line_type)


def _flatten(control: Sequence[Point], tolerance: float, depth: int = 10) -> list[Point]:
    """Halve a cubic curve until each piece is within `tolerance` pixels of a straight line."""
    p0, p1, p2, p3 = control
    if depth == 0 or max(_distance(p1, p0, p3), _distance(p2, p0, p3)) <= tolerance:
        return [p0, p3]
    p01, p12, p23 = _between(p0, p1), _between(p1, p2), _between(p2, p3)
    p012, p123 = _between(p01, p12), _between(p12, p23)
    middle = _between(p012, p123)
    first = _flatten((p0, p01, p012, middle), tolerance, depth - 1)
    return first[:-1] + _flatten((middle, p123, p23, p3), tolerance, depth - 1)


def _between(a: Point, b: Point) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _distance(p: Point, a: Point, b: Point) -> float:
    """From a point to a straight piece."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    square = dx * dx + dy * dy
    t = min(max(((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / square, 0.0), 1.0) if square else 0.0
    return math.hypot(p[0] - a[0] - t * dx, p[1] - a[1] - t * dy)


@register(stage=Stage.UNDER, weight=60, tags=["split"])
@dataclass(frozen=True)
class Lines(Clutter):
    """Straight, bent or kinked lines through the picture."""

    count: Range = ranged((1, 3), 1, 8)
    """Number of lines."""
    kinds: tuple[str, ...] = one_of(("straight",), *LINES)
    """`straight`, `arc`, `wave`, `kinked`, `rings`, `loop`, `taper`; one is drawn for each line."""
    width: Range = ranged((1, 2), 0.01, 0.035, per_height=True)
    """Pixels, rounded."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        if count := round(rng.uniform(*self.count)):
            color = self.colors(canvas, rng)
            draw_lines(canvas.pixels, rng, count, self.kinds, self.width, color, canvas.line_type)

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Lines:
        kind = rng.choices(["straight", "arc", "wave", "kinked", "loop", "rings"], [40, 22, 20, 13, 6, 4])[0]
        if kind == "rings":
            return cls(count=(1, rng.choice([1, 2])), kinds=(kind,), width=(1, 1), **cls.coloring(rng))
        most = rng.choice([2, 4, 6])
        thickest = max(1.0, height * min(0.07, 0.12 / most))  # many thick lines would leave nothing to read
        width = around(rng, 1, max(1.2, thickest))
        return cls(count=around(rng, 1, most), kinds=(kind,), width=width, **cls.coloring(rng))


@register(stage=Stage.UNDER, weight=6)
@dataclass(frozen=True)
class FaintLines(Clutter):
    """Dozens of thin lines that are hardly seen."""

    tone: Range = limited((0.05, 0.35), 0, 1)
    """Where `level` says nothing: from the ground's brightness (0) to the letters' (1)."""
    count: Range = ranged((10, 80), 10, 80)
    """Number of lines in a picture 60 pixels high or more; in proportion in lower ones."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        color = self.colors(canvas, rng)
        count = round(rng.uniform(*self.count) * min(1, canvas.height / 60))
        draw_lines(canvas.pixels, rng, count, ("straight",), (1, 1), color, canvas.line_type)

    @classmethod
    def coloring(cls, rng: random.Random) -> dict[str, Any]:
        return FAINT | {"tint": rng.choice([0.2, 0.6, 1.0]), "above": rng.choice([0.0, 0.0, 1.0])}


@register(stage=Stage.UNDER, weight=10, tags=["split"])
@dataclass(frozen=True)
class Grid(Clutter):
    """Lines along both axes, in one color."""

    pitch: Range = ranged((8, 20), 0.5, 0.15, per_height=True)
    """From line to line."""
    width: Range = ranged((1, 2), 0.01, 0.03, per_height=True)
    """Pixels, rounded."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        color = self.colors(canvas, rng)()
        thickness = max(1, round(rng.uniform(*self.width)))
        for size, end in ((width, lambda at: ((at, 0), (at, height))), (height, lambda at: ((0, at), (width, at)))):
            pitch = max(3.0, rng.uniform(*self.pitch))
            for k in range(math.ceil(size / pitch)):
                first, last = end(round((k + 0.5) * pitch))
                cv2.line(canvas.pixels, first, last, color, thickness)

    @classmethod
    def coloring(cls, rng: random.Random) -> dict[str, Any]:
        values = super().coloring(rng) | {"as_letters": 1 if rng.random() < 0.25 else 0}
        return values | ({"level": None, "tone": (0.1, 0.6)} if rng.random() < 0.5 else {})
