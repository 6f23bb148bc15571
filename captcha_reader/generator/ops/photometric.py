"""Colors of the whole picture (stage PHOTOMETRIC). On a transparent ground only what is said to work there does."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import cv2
import numpy as np

from captcha_reader.generator.canvas import Canvas, replace_pixels
from captcha_reader.generator.ops.marks import draw_shape
from captcha_reader.generator.registry import Op, Range, Stage, amount, chosen, limited, ranged, register

# What a scheme does without, because nobody could read the picture any more: beside ops that redraw it in its edges or
# in parts, and beside those that make it of dots.
_SOFT = ["blur", "resample", "noise", "frayed"]
_COARSE = ["bitmap", "pen", "faint_ink", "grain", "salt", "levels", "blots", *_SOFT]


@dataclass(frozen=True)
class OpaqueOnly(Op):
    """An op that leaves transparent pictures as they are."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        if canvas.channels != 4:
            self.change(canvas, rng)

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        """Change the pixels, (height, width, 1 or 3)."""
        raise NotImplementedError


# ---------------------------------------------------------------------------------------------------------------------
# Negatives


def exchange(canvas: Canvas, own_levels: bool, where: np.ndarray) -> None:
    """Invert the picture where (height, width) uint8 is not 0.

    Args:
        own_levels: the darkest and the lightest level of each channel change places, so that no other colors appear;
            else, and on a transparent ground, black and white do.
    """
    pixels = canvas.pixels
    if canvas.channels == 4:  # a clear ground has no color of its own
        other = 255 - pixels
        other[..., 3] = pixels[..., 3]
    elif own_levels:
        ends = [cv2.minMaxLoc(plane)[:2] for plane in cv2.split(pixels)]
        other = cv2.subtract(tuple(low + high for low, high in (*ends, *[(0.0, 0.0)] * (4 - len(ends)))), pixels)
    else:
        other = cv2.bitwise_not(pixels)
    replace_pixels(pixels, other, where)


@register(stage=Stage.PHOTOMETRIC, weight=6)
@dataclass(frozen=True)
class Negatives(Op):
    """Within some shapes the picture is inverted; where two overlap, all is as it was."""

    count: Range = ranged((1, 3), 1, 6)
    """Number of shapes: rectangles, ellipses, polygons."""
    own_levels: bool = chosen(False, True, True, False)
    """Ground and letters exchange their own colors, not black and white."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        odd = np.zeros(canvas.pixels.shape[:2], np.uint8)
        for _ in range(round(rng.uniform(*self.count))):
            shape = np.zeros((canvas.height, canvas.width, 1), np.uint8)
            draw_shape(shape, rng, (255,), -1)
            odd ^= cv2.compare(shape, 0, cv2.CMP_GT)
        exchange(canvas, self.own_levels, odd)


@register(stage=Stage.PHOTOMETRIC, weight=4, tags=["train_only"], excludes=_SOFT)
@dataclass(frozen=True)
class Checks(Op):
    """Within every other field of a checkerboard the picture is inverted."""

    side: Range = ranged((10, 30), 0.9, 0.35, per_height=True)
    """Of a field."""
    own_levels: bool = chosen(False, True, True, False)
    """Ground and letters exchange their own colors, not black and white."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        side = max(2, round(rng.uniform(*self.side)))
        rows, columns = np.arange(canvas.height) // side, np.arange(canvas.width) // side
        exchange(canvas, self.own_levels, ((rows[:, None] + columns) % 2).astype(np.uint8))


@register(stage=Stage.PHOTOMETRIC, weight=8, tags=["train_only"], excludes=_SOFT)
@dataclass(frozen=True)
class Facets(Op):
    """Letters and ground exchange colors in triangles that fill the picture."""

    side: Range = ranged((20, 40), 1.2, 0.45, per_height=True)
    """Of a triangle."""
    part: float = amount(0.5, 0.3, 0.5, most=1)
    """Of the triangles that are exchanged."""
    own_levels: bool = chosen(True, True, True, False)
    """Ground and letters exchange their own colors, not black and white."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        side = max(6.0, rng.uniform(*self.side))
        columns, rows = math.ceil(canvas.width / side) + 1, math.ceil(canvas.height / side) + 1
        corners = [
            [
                (round((i + rng.uniform(-0.35, 0.35)) * side), round((j + rng.uniform(-0.35, 0.35)) * side))
                for i in range(columns + 1)
            ]
            for j in range(rows + 1)
        ]
        mask = np.zeros((canvas.height, canvas.width), np.uint8)
        for j in range(rows):
            for i in range(columns):
                a, b, c, d = corners[j][i], corners[j][i + 1], corners[j + 1][i + 1], corners[j + 1][i]
                for triangle in ((a, b, c), (a, c, d)):
                    if rng.random() < self.part:
                        cv2.fillConvexPoly(mask, np.array(triangle), 255)
        exchange(canvas, self.own_levels, mask)


@register(stage=Stage.PHOTOMETRIC, weight=3)
@dataclass(frozen=True)
class Invert(OpaqueOnly):
    """Black and white change places."""

    probability: float = limited(1, 0, 1)
    """Of a picture to be inverted."""

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        if self.probability >= 1 or rng.random() < self.probability:
            canvas.pixels = cv2.bitwise_not(canvas.pixels).reshape(canvas.pixels.shape)


# ---------------------------------------------------------------------------------------------------------------------
# Relief, bad print


_EMBOSS = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)


@register(stage=Stage.PHOTOMETRIC, weight=3, excludes=["bitmap", "faint_ink", *_SOFT], least_height=30)
@dataclass(frozen=True)
class Emboss(OpaqueOnly):
    """All is drawn as its edges, lit from one side, in shades of gray."""

    strength: float = amount(0.5, 0.7, 0.35)
    """Of the edges."""

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        drawn = cv2.filter2D(canvas.pixels, cv2.CV_8U, _EMBOSS * self.strength, delta=128)
        canvas.pixels = drawn.reshape(canvas.pixels.shape)


@register(stage=Stage.PHOTOMETRIC, weight=3, excludes=["bitmap", "faint_ink", *_SOFT], least_height=30)
@dataclass(frozen=True)
class Charcoal(OpaqueOnly):
    """All is drawn as its edges, dark on white."""

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        edges = cv2.morphologyEx(canvas.pixels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        canvas.pixels = (255 - edges).reshape(canvas.pixels.shape)


@register(stage=Stage.PHOTOMETRIC, weight=6, tags=["train_only"])
@dataclass(frozen=True)
class ColorFringe(OpaqueOnly):
    """Red and blue are displaced, each by itself, as in a bad print."""

    shift: Range = ranged((1, 3), 0.015, 0.06, per_height=True)
    """Of each."""

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        if canvas.channels != 3:
            return
        for channel in (0, 2):
            moved, turn = rng.uniform(*self.shift), rng.uniform(0, 2 * math.pi)
            matrix = np.array([[1, 0, moved * math.cos(turn)], [0, 1, moved * math.sin(turn)]])
            plane = np.ascontiguousarray(canvas.pixels[..., channel])
            size = (canvas.width, canvas.height)
            canvas.pixels[..., channel] = cv2.warpAffine(plane, matrix, size, borderMode=cv2.BORDER_REPLICATE)


@register(stage=Stage.PHOTOMETRIC, weight=4, tags=["train_only"], least_height=45, excludes=_COARSE)
@dataclass(frozen=True)
class Dither(OpaqueOnly):
    """Each channel has two levels, its darkest and lightest; brightness becomes density."""

    kind: str = chosen("random", "random", "ordered")
    """Which level a pixel gets: by lot (`random`), or by a pattern (`ordered`)."""
    cell: int = amount(1, 0.012, 0.018, per_height=True, least=1, most=100)
    """Side of what is drawn together."""

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        height, width, channels = canvas.pixels.shape
        cell = max(1, self.cell)
        rows, columns = -(-height // cell), -(-width // cell)
        limit: np.ndarray
        if self.kind == "random":
            drawn = np.frombuffer(rng.randbytes(rows * columns), np.uint8).reshape(rows, columns)
            limit = (drawn.astype(np.float32) + np.float32(0.5)) / 256
        else:
            limit = np.tile(_BAYER, (rows // 4 + 1, columns // 4 + 1))[:rows, :columns]
        if cell > 1:
            limit = limit.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]
        planes = []
        for plane in cv2.split(canvas.pixels):
            low, high, _, _ = cv2.minMaxLoc(plane)
            # From the sixth to five sixths, or letters that are the darkest of all would stay solid.
            bound = np.float32(low) + (limit - np.float32(1 / 6)) * np.float32(max(high - low, 1) * 1.5)
            planes.append(np.where(plane > bound, np.uint8(high), np.uint8(low)))
        canvas.pixels = cv2.merge(planes).reshape(height, width, channels)


_BAYER = (np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32) + 0.5) / 16


@register(
    stage=Stage.PHOTOMETRIC,
    weight=3,
    tags=["train_only"],
    least_height=45,
    most_height=90,
    excludes=[*_COARSE, "hollow", "panels"],
)
@dataclass(frozen=True)
class Stipple(OpaqueOnly):
    """The whole picture consists of dots of about one size."""

    radius: Range = ranged((1, 2), 0.018, 0.028, per_height=True)
    """Of a dot, 1 at least."""
    stray: float = chosen(0, 0, 0, 0.05, 0.2)
    """Of the dots that lie on the ground, draw this part alone, in the letters' colors; 0: all, in the ground's."""

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        height, width, _ = canvas.pixels.shape
        radius = max(1.0, rng.uniform(*self.radius))
        step = rng.uniform(1.6, 2.0) * radius  # wider, and too little of a stroke would be covered to be read
        drawn = np.random.default_rng(rng.getrandbits(64))
        y, x = np.mgrid[min(step, height) / 2 : height : step, min(step, width) / 2 : width : step].reshape(2, -1)
        x = np.clip(x + drawn.uniform(-0.35, 0.35, x.size) * step, 0, width - 1)
        y = np.clip(y + drawn.uniform(-0.35, 0.35, y.size) * step, 0, height - 1)
        colors = canvas.pixels[y.astype(int), x.astype(int)].astype(np.float32)
        ground = np.median(colors, axis=0)
        if self.stray:
            ink = np.abs(colors - ground).max(axis=1) > 40
            stray = ~ink & (drawn.random(x.size) < self.stray)
            if ink.any():
                colors[stray] = colors[drawn.choice(np.flatnonzero(ink), stray.sum())]
            x, y, colors = (part[ink | stray] for part in (x, y, colors))
            dots = np.ascontiguousarray(np.broadcast_to(ground, canvas.pixels.shape).astype(np.uint8))
        else:
            colors += drawn.normal(0, rng.uniform(0, 15), (x.size, 1))
            dots = np.full_like(canvas.pixels, rng.choice((255, 240, 255, 20)))
        sizes = radius * drawn.uniform(0.7, 1.1, x.size)
        places = np.round(np.stack([x, y, sizes]) * 16).astype(int).T.tolist()  # four fractional bits
        for (across, down, size), color in zip(places, np.clip(colors, 0, 255).tolist(), strict=True):
            cv2.circle(dots, (across, down), size, color, -1, cv2.LINE_AA, 4)
        canvas.pixels = dots


@register(stage=Stage.PHOTOMETRIC, weight=5, tags=["heldout"])
@dataclass(frozen=True)
class Blinds(OpaqueOnly):
    """Every few rows are lighter or darker, as on an old screen."""

    pitch: Range = ranged((3, 5), 0.05, 0.1, per_height=True)
    """From row to row."""
    levels: Range = ranged((20, 50), 15, 60)
    """Of brightness."""

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        pitch, levels = max(2, round(rng.uniform(*self.pitch))), rng.choice((-1, 1)) * rng.uniform(*self.levels)
        rows = np.arange(canvas.pixels.shape[0]) % pitch < max(1, pitch // 2)
        canvas.pixels[rows] = np.clip(canvas.pixels[rows] + levels, 0, 255).astype(np.uint8)
