"""Grounds (stage BACKGROUND, one a style): each makes the pixels and says how light the ground is."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from captcha_reader.generator.canvas import Canvas, between_colors, pixel_grid
from captcha_reader.generator.registry import Op, Range, Stage, amount, chosen, limited, ranged, register


@dataclass(frozen=True)
class Background(Op):
    """A ground between two levels of brightness."""

    level: Range = limited((215, 255), 0, 255)
    """Brightness of the ground."""
    tint: float = limited(0.25, 0, 1)
    """0: gray, 1: strong colors."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.ground, canvas.ground_tint = self.level, self.tint
        self.paint(canvas, rng)

    def paint(self, canvas: Canvas, rng: random.Random) -> None:
        """Make the pixels."""
        raise NotImplementedError

    @classmethod
    def sample_fields(cls, rng: random.Random, height: float) -> dict[str, Any]:
        contrast = rng.choices([60, 110, 170], [15, 30, 55])[0]  # levels that are left for letters, at least
        spread = rng.uniform(0, 0.6) * (255 - contrast)
        light = rng.uniform(contrast + spread, 255)
        level = (light - spread, light)
        if rng.random() < 0.25:
            level = (255 - level[1], 255 - level[0])
        tint = rng.choice([0.0, 0.2, 0.6])
        return super().sample_fields(rng, height) | {"level": level, "tint": tint}


@register(stage=Stage.BACKGROUND, weight=56, tags=["split"])
@dataclass(frozen=True)
class Plain(Background):
    """One color."""

    def paint(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.fill(canvas.color(rng, self.level, self.tint))


@register(stage=Stage.BACKGROUND, weight=14, tags=["split"])
@dataclass(frozen=True)
class Clear(Background):
    """Transparent in pictures of mode RGBA, and white in the others."""

    level: Range = limited((255, 255), 0, 255)
    """Brightness that readers are expected to lay it on."""

    def paint(self, canvas: Canvas, rng: random.Random) -> None:
        if canvas.channels == 4:
            canvas.pixels = np.zeros((canvas.height, canvas.width, 4), np.uint8)
        else:
            canvas.fill((255.0,) * canvas.channels)

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Clear:
        return cls(tint=0)


def _enlarged(canvas: Canvas, corners: np.ndarray, interpolation: int) -> None:
    """A small picture, float32, as the ground."""
    small = np.clip(corners, 0, 255).astype(np.uint8)
    large = cv2.resize(small, (canvas.width, canvas.height), interpolation=interpolation)
    canvas.pixels = large.reshape(canvas.height, canvas.width, canvas.channels)


@register(stage=Stage.BACKGROUND, weight=12, tags=["split"])
@dataclass(frozen=True)
class Gradient(Background):
    """From one color to another, across or down."""

    def paint(self, canvas: Canvas, rng: random.Random) -> None:
        first, second = (canvas.color(rng, self.level, self.tint) for _ in range(2))
        corners = np.array([first, second, first, second], np.float32).reshape(2, 2, canvas.channels)
        if rng.random() < 0.5:
            corners = corners.transpose(1, 0, 2).copy()
        # Half a sample at each end of a small picture stays flat when enlarged.
        _enlarged(canvas, corners, cv2.INTER_LINEAR)


@register(stage=Stage.BACKGROUND, weight=7, tags=["split"])
@dataclass(frozen=True)
class Clouds(Background):
    """Soft spots of lighter and darker."""

    def paint(self, canvas: Canvas, rng: random.Random) -> None:
        first = canvas.color(rng, self.level, self.tint)
        rows, columns = rng.randint(3, max(3, canvas.height // 3)), rng.randint(4, max(4, canvas.width // 3))
        low, high = self.level
        spread = np.frombuffer(rng.randbytes(rows * columns), np.uint8).reshape(rows, columns, 1)
        corners = np.array(first, np.float32) + (spread.astype(np.float32) / 255 - 0.5) * (high - low)
        _enlarged(canvas, corners, cv2.INTER_CUBIC)  # hides the cells


@dataclass(frozen=True)
class _Patterned(Background):
    """Between two colors, as a pattern says."""

    def paint(self, canvas: Canvas, rng: random.Random) -> None:
        first, second = (canvas.color(rng, self.level, self.tint) for _ in range(2))
        canvas.pixels = between_colors(first, second, self.pattern(canvas, rng))

    def pattern(self, canvas: Canvas, rng: random.Random) -> np.ndarray:
        """(height, width) uint8."""
        raise NotImplementedError


@register(stage=Stage.BACKGROUND, weight=5, tags=["split"])
@dataclass(frozen=True)
class Grain(_Patterned):
    """Coarse noise of two colors."""

    pixel: Range = ranged((0.5, 3), 0.008, 0.05, per_height=True)
    """Side of a grain."""

    def pattern(self, canvas: Canvas, rng: random.Random) -> np.ndarray:
        pixel = max(1, round(rng.uniform(*self.pixel)))
        rows, columns = -(-canvas.height // pixel), -(-canvas.width // pixel)
        part = np.frombuffer(rng.randbytes(rows * columns), np.uint8).reshape(rows, columns)
        return cv2.resize(part, (canvas.width, canvas.height), interpolation=cv2.INTER_NEAREST)


@register(stage=Stage.BACKGROUND, weight=4, tags=["split"])
@dataclass(frozen=True)
class StripedGround(_Patterned):
    """Stripes at some angle, with soft or hard borders."""

    pitch: Range = ranged((4, 30), 0.5, 0.06, per_height=True, least=0.5)
    """From stripe to stripe."""

    def pattern(self, canvas: Canvas, rng: random.Random) -> np.ndarray:
        angle, pitch = rng.random() * math.pi, rng.uniform(*self.pitch)
        grid = pixel_grid(canvas.height, canvas.width)
        step = 2 * math.pi / pitch
        x, y = grid[0, :, 0] * (math.cos(angle) * step), grid[:, 0, 1, None] * (math.sin(angle) * step)
        wave = np.sin(x + y)
        return np.clip(127.5 + 127.5 * (np.sign(wave) if rng.random() < 0.4 else wave), 0, 255).astype(np.uint8)


@register(stage=Stage.BACKGROUND, weight=4, tags=["split"])
@dataclass(frozen=True)
class Patches(Background):
    """Colored rectangles over each other."""

    count: Range = ranged((4, 20), 4, 20)
    """Number of rectangles."""

    def paint(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        canvas.fill(canvas.color(rng, self.level, self.tint))
        for _ in range(round(rng.uniform(*self.count))):
            x, y = rng.random() * width, rng.random() * height
            far = (int(x + rng.random() * 0.5 * width), int(y + rng.random() * 0.7 * height))
            near = (int(x - 0.1 * width), int(y - 0.2 * height))
            cv2.rectangle(canvas.pixels, near, far, canvas.color(rng, self.level, self.tint), -1)


@register(stage=Stage.BACKGROUND, weight=0)
@dataclass(frozen=True)
class KaptchaGradient(Background):
    """From light gray (192) in the upper left to white in the lower right corner, as the Kaptcha library has it."""

    level: Range = limited((192, 255), 0, 255)
    """Not used: the library's is fixed."""
    tint: float = limited(0, 0, 1)
    """Not used."""

    def paint(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.pixels = _kaptcha(canvas.height, canvas.width, canvas.channels).copy()


@lru_cache(maxsize=8)
def _kaptcha(height: int, width: int, channels: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    part = (x * width + y * height) / (width**2 + height**2)
    return np.repeat((192 + 63 * part).astype(np.uint8)[..., None], channels, axis=2)


@register(
    stage=Stage.BACKGROUND,
    weight=7,
    tags=["train_only"],
    excludes=["tiles", "negatives", "checks", "invert", "faint_ink"],
)
@dataclass(frozen=True)
class Panels(Background):
    """Upright panels of strong colors, light beside dark, with bands along the picture's edges."""

    count: Range = ranged((2, 5), 2, 6)
    """Number of panels."""
    slope: float = amount(0.15, 0, 0.35, least=None)
    """How far the borders lean, at most, as a part of the height."""
    bands: float = amount(0.5, 0, 1, most=1)
    """Probability of a band along the upper and the lower edge each."""

    def paint(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        count = max(1, round(rng.uniform(*self.count)))
        tint, light = max(self.tint, 0.5), rng.random() < 0.5
        canvas.varied = True
        canvas.fill(canvas.color(rng, (215, 250) if light else (10, 80), tint))
        for k in range(1, count):
            light = not light if rng.random() < 0.75 else light
            at = (k + rng.uniform(-0.25, 0.25)) * width / count
            lean = rng.uniform(-self.slope, self.slope) * height
            corners = np.array([(at - lean, 0), (width, 0), (width, height), (at + lean, height)], np.int32)
            color = canvas.color(rng, (190, 250) if light else (10, 80), tint)
            cv2.fillConvexPoly(canvas.pixels, corners, color, canvas.line_type)
        for upper in (True, False):
            if rng.random() < self.bands:
                thick = max(1, round(rng.uniform(0.03, 0.13) * height))
                top = 0 if upper else height - thick
                color = canvas.color(rng, (0, 255), 1.0)
                cv2.rectangle(canvas.pixels, (0, top), (width, top + thick - 1), color, -1)


# ---------------------------------------------------------------------------------------------------------------------
# Textures as of photographs


_SHINY = ["bevel", "gloss", "extrusion", "shadow", "edge"]


def _fractal(rng: random.Random, height: int, width: int, cell: tuple[float, float], octaves: int = 3) -> np.ndarray:
    """Noise of several sizes, (height, width) float32 within 0 and 1; `cell`: pixels of the coarsest."""
    total = np.zeros((height, width), np.float32)
    weight, weights = 1.0, 0.0
    across, down = cell
    for _ in range(octaves):
        rows, columns = max(2, math.ceil(height / down) + 1), max(2, math.ceil(width / across) + 1)
        raw = np.frombuffer(rng.randbytes(rows * columns), np.uint8).reshape(rows, columns)
        large = cv2.resize(raw, (width, height), interpolation=cv2.INTER_CUBIC)
        total += np.float32(weight) * large
        weights += weight
        weight *= 0.55
        across, down = max(across / 2, 1.5), max(down / 2, 1.5)
    return total * np.float32(1 / (255 * weights))


@register(stage=Stage.BACKGROUND, weight=2.5, tags=["train_only"], favors=_SHINY)
@dataclass(frozen=True)
class Wood(_Patterned):
    """Long fibres, as of a board."""

    rings: float = amount(4, 2, 9)
    """Number of bright and dark rings over the height."""

    def pattern(self, canvas: Canvas, rng: random.Random) -> np.ndarray:
        height, width = canvas.height, canvas.width
        field = _fractal(rng, height, width, (width / 2.5, height / 2.5), 2)
        fibres = _fractal(rng, height, width, (width / 3, 2.0), 1)
        rings = np.sin(field * np.float32(2 * math.pi * self.rings)) * 0.5 + 0.5
        return np.clip(255 * (0.6 * rings + 0.4 * fibres), 0, 255).astype(np.uint8)


@register(stage=Stage.BACKGROUND, weight=2, tags=["train_only"], favors=_SHINY)
@dataclass(frozen=True)
class Brick(_Patterned):
    """A wall of bricks with mortar between."""

    rows: float = amount(5, 3, 7, least=1)
    """Number of rows."""

    def pattern(self, canvas: Canvas, rng: random.Random) -> np.ndarray:
        height, width = canvas.height, canvas.width
        high = max(4, height / self.rows)
        wide, mortar = high * rng.uniform(1.8, 2.8), max(1, round(high * rng.uniform(0.08, 0.16)))
        wall = np.full((height, width), 20, np.uint8)
        for row in range(math.ceil(height / high)):
            offset = rng.uniform(0.3, 0.7) * wide * (row % 2)
            for column in range(-1, math.ceil(width / wide)):
                x, y = int(column * wide + offset), int(row * high)
                far = (int(x + wide - mortar), int(y + high - mortar))
                cv2.rectangle(wall, (x, y), far, rng.uniform(140, 235), -1)
        rough = _fractal(rng, height, width, (6, 6), 2)
        return np.clip(wall + (rough - 0.5) * 90, 0, 255).astype(np.uint8)


@register(stage=Stage.BACKGROUND, weight=2, tags=["train_only"], favors=_SHINY)
@dataclass(frozen=True)
class Metal(_Patterned):
    """Brushed metal: fine scratches and a broad shine."""

    scratches: float = amount(0.4, 0.15, 0.6, most=1)
    """Strength of the scratches, against the shine's."""

    def pattern(self, canvas: Canvas, rng: random.Random) -> np.ndarray:
        height, width = canvas.height, canvas.width
        fine = _fractal(rng, height, width, (width / 2, 1.5), 2)
        x = np.linspace(0, 1, width, dtype=np.float32)
        shine = 0.5 + 0.5 * np.sin((x * rng.uniform(0.6, 2) + rng.random()) * 2 * math.pi)
        part = self.scratches * fine + (1 - self.scratches) * shine
        return np.clip(255 * part, 0, 255).astype(np.uint8)


@register(stage=Stage.BACKGROUND, weight=3, tags=["train_only"], favors=_SHINY)
@dataclass(frozen=True)
class Marble(_Patterned):
    """Clouds of many sizes, or veins between them."""

    cell: float = amount(40, 1.0, 0.3, per_height=True)
    """Of the largest clouds."""
    kind: str = chosen("clouds", "clouds", "veins")
    """`clouds` or `veins`."""

    def pattern(self, canvas: Canvas, rng: random.Random) -> np.ndarray:
        cell = max(4.0, self.cell)
        field = _fractal(rng, canvas.height, canvas.width, (cell * 1.5, cell), 4)
        field = 1 - np.abs(field - 0.5) * 5 if self.kind == "veins" else (field - 0.5) * 1.8 + 0.5
        return np.clip(255 * field, 0, 255).astype(np.uint8)
