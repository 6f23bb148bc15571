"""What bends the picture (stage WARP): letters, ground, and clutter below them together."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from captcha_reader.generator.canvas import Canvas, displace, fetch, pixel_grid
from captcha_reader.generator.registry import Op, Range, Stage, amount, ranged, register


def elastic_field(height: int, width: int, rng: random.Random, amplitude: float, cell: float) -> np.ndarray:
    """(height, width, 2) float32: how far right and down of a pixel its value is fetched."""
    rows, columns = math.ceil(height / cell) + 2, math.ceil(width / cell) + 2
    coarse = np.frombuffer(rng.randbytes(rows * columns * 2), np.uint8).reshape(rows, columns, 2).astype(np.float32)
    return cv2.resize((coarse - 127.5) * (amplitude / 127.5), (width, height), interpolation=cv2.INTER_CUBIC)


def elastic_transform(image: np.ndarray, rng: random.Random, amplitude: float = 2.0, cell: float = 24) -> np.ndarray:
    """Shift every pixel by a smooth random displacement.

    Args:
        image: (height, width) or (height, width, channels) uint8.
        amplitude: largest shift in pixels along each axis.
        cell: pixels between the independent points of the displacement; smaller is rougher.

    Returns:
        A new array of the same shape.
    """
    return displace(image, elastic_field(image.shape[0], image.shape[1], rng, amplitude, cell))


@register(stage=Stage.WARP, weight=24, tags=["split"])
@dataclass(frozen=True)
class Elastic(Op):
    """A smooth random displacement."""

    amplitude: Range = ranged((1, 2.5), 0.015, 0.06, per_height=True)
    """Largest shift along each axis."""
    cell: float = amount(24, 1.2, 0.3, per_height=True, least=1)
    """Pixels between the independent points of the displacement: smaller is rougher."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.pixels = elastic_transform(canvas.pixels, rng, rng.uniform(*self.amplitude), self.cell)


@register(stage=Stage.WARP, weight=4, tags=["train_only"], least_height=30)
@dataclass(frozen=True)
class Frayed(Op):
    """Every pixel comes from some place nearby, so that strokes have frayed borders."""

    amplitude: Range = ranged((1, 2), 0.015, 0.04, per_height=True)
    """Largest shift along each axis."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        raw = np.frombuffer(rng.randbytes(canvas.height * canvas.width * 2), np.uint8)
        shift = (raw.reshape(canvas.height, canvas.width, 2).astype(np.float32) - 127.5) / 127.5
        canvas.displace(shift * max(1.0, rng.uniform(*self.amplitude)))


@register(stage=Stage.WARP, weight=32, tags=["split"])
@dataclass(frozen=True)
class Wave(Op):
    """Sine waves along both axes."""

    amplitude: Range = ranged((2, 5), 0.02, 0.075, per_height=True)
    """Of the waves."""
    length: Range = ranged((40, 120), 2.5, 0.75, per_height=True)
    """Of the waves."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        amplitude, moves = rng.uniform(*self.amplitude), []
        x, y = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        for along in (y, x):
            step = 2 * math.pi / max(rng.uniform(*self.length), 2.0)
            moves.append(np.sin(along * np.float32(step) + np.float32(rng.random() * 2 * math.pi)))
        right, down = (np.float32(amplitude) * move for move in moves)
        canvas.pixels = fetch(canvas.pixels, right[:, None] + x, y[:, None] + down)


@register(stage=Stage.WARP, weight=6, tags=["split"])
@dataclass(frozen=True)
class Ripple(Op):
    """Rings around a point of the picture, as on water."""

    amplitude: Range = ranged((1, 3), 0.01, 0.035, per_height=True)
    """Of the rings: no pixel moves further."""
    length: Range = ranged((10, 40), 0.9, 0.22, per_height=True)
    """From ring to ring."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        amplitude, length = rng.uniform(*self.amplitude), max(2.0, rng.uniform(*self.length))
        x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
        from_center = pixel_grid(height, width) - np.array([x, y], np.float32)
        distance = np.maximum(cv2.magnitude(from_center[..., 0], from_center[..., 1]), 1)
        phase = distance * np.float32(2 * math.pi / length) + np.float32(rng.random() * 2 * math.pi)
        canvas.displace(from_center * (amplitude * np.sin(phase) / distance)[..., None])


@register(stage=Stage.WARP, weight=7, tags=["split"])
@dataclass(frozen=True)
class Arch(Op):
    """The word's middle sinks or rises."""

    height: Range = ranged((0.1, 0.2), 0.08, 0.25)
    """As a part of the picture's height; up or down by lot."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        shift = np.zeros((canvas.height, canvas.width, 2), np.float32)
        across = np.linspace(-1, 1, canvas.width, dtype=np.float32)
        sink = rng.choice((-1, 1)) * rng.uniform(*self.height) * canvas.height
        shift[..., 1] = sink * (across * across - 0.5)
        canvas.displace(shift)


def _from_middle(canvas: Canvas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each pixel: how far right and down of the middle, and how near to it, 1 there and 0 in the corners."""
    grid = pixel_grid(canvas.height, canvas.width)
    x, y = grid[..., 0] - canvas.width / 2, grid[..., 1] - canvas.height / 2
    across, down = x * (2 / canvas.width), y * (2 / canvas.height)
    return x, y, np.clip(1 - (across * across + down * down) * 0.5, 0, 1)


def _turned(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """How far points move that are turned around (0, 0), each by its angle in radians: (..., 2), right and down."""
    cos, sin = np.cos(angle) - 1, np.sin(angle)
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)


@register(stage=Stage.WARP, weight=6, tags=["split"])
@dataclass(frozen=True)
class Swirl(Op):
    """The middle is turned against the border."""

    degrees: Range = ranged((15, 30), 12, 60)
    """In the middle; to either side by lot."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        x, y, near = _from_middle(canvas)
        turn = rng.choice((-1, 1)) * math.radians(rng.uniform(*self.degrees))
        canvas.displace(_turned(x, y, np.float32(turn) * near * near))


@register(stage=Stage.WARP, weight=5, tags=["split"])
@dataclass(frozen=True)
class Pinch(Op):
    """The middle shrinks or swells."""

    amount: Range = ranged((0.15, 0.3), 0.12, 0.35)
    """0: none; at 1 the middle would be infinitely small or large. Which of both is drawn by lot."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        x, y, near = _from_middle(canvas)
        part = (near * (rng.choice((-1, 1)) * rng.uniform(*self.amount)))[..., None]
        canvas.displace(np.stack([x, y], axis=2) * part)


@register(stage=Stage.WARP, weight=12, tags=["split"])
@dataclass(frozen=True)
class Perspective(Op):
    """The whole picture turns, and its corners move."""

    degrees: float = amount(4, 2, 11)
    """By which it turns, at most, either way."""
    corners: float = amount(0.06, 0.02, 0.13)
    """By which they move, at most, as a part of the sides."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float32) * np.asarray(
            (width / 2, height / 2), dtype=np.float32
        )
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], np.float32)
        moves = np.array([(rng.uniform(-1, 1), rng.uniform(-1, 1)) for _ in range(4)], np.float32)
        moved = corners @ turn + moves * np.asarray((self.corners * width / 2, self.corners * height), dtype=np.float32)
        middle = np.asarray((width / 2, height / 2), dtype=np.float32)
        matrix = cv2.getPerspectiveTransform(corners + middle, moved + middle)
        bent = cv2.warpPerspective(canvas.pixels, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
        canvas.pixels = bent.reshape(canvas.pixels.shape)


@register(stage=Stage.WARP, weight=3, tags=["train_only"], excludes=["overflow", "panels"])
@dataclass(frozen=True)
class Fan(Op):
    """The picture's width is laid along an arc, letters turned with it; it rises or hangs by lot."""

    degrees: Range = ranged((20, 50), 15, 70)
    """Of the arc; less where the picture is too low for it."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        degrees = rng.uniform(*self.degrees)
        up = rng.random() < 0.5
        grid = pixel_grid(height, width)
        radius = width / math.radians(min(degrees, 220 * height / width))  # steeper arcs would leave the picture
        sag = 0.5 * radius * (1 - math.cos(width / radius / 2))  # half of the arc's height is above the middle
        rise = (height / 2 - grid[..., 1] if up else grid[..., 1] - height / 2) + radius - sag
        right = grid[..., 0] - width / 2
        away = np.hypot(right, rise) - radius
        sideways = radius * np.arctan2(right, rise) - right
        down = height / 2 + (-away if up else away) - grid[..., 1]
        canvas.displace(np.stack([sideways, down], axis=2).astype(np.float32))


@register(stage=Stage.WARP, weight=3, tags=["train_only"])
@dataclass(frozen=True)
class StripShift(Op):
    """The picture is cut into strips, standing or lying; each moves along itself."""

    shift: Range = ranged((1, 4), 0.02, 0.11, per_height=True)
    """At most."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        shift = np.zeros((canvas.height, canvas.width, 2), np.float32)
        most, standing = rng.uniform(*self.shift), rng.random() < 0.6
        count = rng.randint(3, 10 if standing else 5)
        side = canvas.width if standing else canvas.height
        moves = np.array([rng.uniform(-most, most) for _ in range(count)], np.float32)[np.arange(side) * count // side]
        if standing:
            shift[..., 1] = moves
        else:
            shift[..., 0] = moves[:, None]
        canvas.displace(shift)


@register(stage=Stage.WARP, weight=3, tags=["train_only"])
@dataclass(frozen=True)
class Lenses(Op):
    """Discs within which the picture is larger, smaller, or whirls."""

    count: Range = ranged((1, 3), 1, 5)
    """Number of discs."""
    strength: float = amount(1, 0.6, 1)
    """1: a whirl of up to 75 degrees, sizes changed by up to a half."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        shift = np.zeros((height, width, 2), np.float32)
        for _ in range(round(rng.uniform(*self.count))):
            x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.2, 0.8) * height
            radius, whirls = rng.uniform(0.3, 0.8) * height, rng.random() < 0.5
            turn = rng.choice((-1, 1)) * rng.uniform(0.4, 1.3)
            part = self.strength * (turn if whirls else rng.uniform(-0.5, 0.6))
            rows, columns = (slice(max(int(at - radius), 0), int(at + radius) + 2) for at in (y, x))  # all that moves
            from_center = pixel_grid(height, width)[rows, columns] - np.array([x, y], np.float32)
            near = np.clip(1 - cv2.magnitude(from_center[..., 0], from_center[..., 1]) / np.float32(radius), 0, 1)
            if whirls:
                moves = _turned(from_center[..., 0], from_center[..., 1], np.float32(part) * near)
            else:
                moves = from_center * (np.float32(part) * near)[..., None]
            shift[rows, columns] += moves
        canvas.displace(shift)


@register(stage=Stage.WARP, weight=0)
@dataclass(frozen=True)
class KaptchaRipple(Op):
    """Rings around the center, then fixed sine waves, as the Kaptcha library has them."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        for shift in _kaptcha_fields(canvas.height, canvas.width):
            canvas.displace(shift)


@lru_cache(maxsize=8)
def _kaptcha_fields(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    grid = pixel_grid(height, width)
    from_center = grid - np.array([width // 2, height // 2], np.float32)
    distance = np.hypot(from_center[..., 0], from_center[..., 1])
    shift = 1.5 * np.sin(distance / 2 * 2 * np.pi - 10) * np.clip(1 - distance / 50.0, 0, None)
    rings = from_center * (shift * 2 / np.maximum(distance, 1))[..., None]
    waves = np.stack([2.6 * np.sin(grid[..., 1] / 15), 1.7 * np.sin(grid[..., 0] / 5)], axis=2)
    return rings.astype(np.float32), waves.astype(np.float32)
