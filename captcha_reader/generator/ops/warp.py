"""What bends the picture (stage WARP): letters, ground, and clutter below them together."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from captcha_reader.generator.canvas import Canvas, coarse_grid, displace, fetch, pixel_grid
from captcha_reader.generator.registry import Op, Range, Stage, amount, ranged, register

CELL = 4  # pixels between the samples of smooth displacements


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
        across, down = coarse_grid(height, width, int(min(max(length / 8, 1), CELL)))
        across, down = across - np.float32(x), down - np.float32(y)
        distance = np.maximum(np.sqrt(across * across + down * down), 1)
        phase = distance * np.float32(2 * math.pi / length) + np.float32(rng.random() * 2 * math.pi)
        move = np.float32(amplitude) * np.sin(phase) / distance
        canvas.displace_smoothly(across * move, down * move)


@register(stage=Stage.WARP, weight=7, tags=["split"])
@dataclass(frozen=True)
class Arch(Op):
    """The word's middle sinks or rises."""

    height: Range = ranged((0.1, 0.2), 0.08, 0.25)
    """As a part of the picture's height; up or down by lot."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        x = np.arange(canvas.width, dtype=np.float32)
        across = x * np.float32(2 / canvas.width) - 1
        sink = np.float32(rng.choice((-1, 1)) * rng.uniform(*self.height) * canvas.height)
        y = np.arange(canvas.height, dtype=np.float32)[:, None]
        places = np.broadcast_to(x, (canvas.height, canvas.width)), y + sink * (across * across - np.float32(0.5))
        canvas.pixels = fetch(canvas.pixels, *places)


def _from_middle(canvas: Canvas) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of places on a coarse grid: how far right and down of the middle, and how near to it, 1 there, 0 in corners."""
    x, y = coarse_grid(canvas.height, canvas.width, CELL)
    x, y = x - np.float32(canvas.width / 2), y - np.float32(canvas.height / 2)
    across, down = x * (2 / canvas.width), y * (2 / canvas.height)
    return x, y, np.clip(1 - (across * across + down * down) * 0.5, 0, 1)


def _turned(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far points move, right and down, that are turned around (0, 0), each by its angle in radians."""
    cos, sin = np.cos(angle) - 1, np.sin(angle)
    return x * cos - y * sin, x * sin + y * cos


@register(stage=Stage.WARP, weight=6, tags=["split"])
@dataclass(frozen=True)
class Swirl(Op):
    """The middle is turned against the border."""

    degrees: Range = ranged((15, 30), 12, 60)
    """In the middle; to either side by lot."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        x, y, near = _from_middle(canvas)
        turn = rng.choice((-1, 1)) * math.radians(rng.uniform(*self.degrees))
        canvas.displace_smoothly(*_turned(x, y, np.float32(turn) * near * near))


@register(stage=Stage.WARP, weight=5, tags=["split"])
@dataclass(frozen=True)
class Pinch(Op):
    """The middle shrinks or swells."""

    amount: Range = ranged((0.15, 0.3), 0.12, 0.35)
    """0: none; at 1 the middle would be infinitely small or large. Which of both is drawn by lot."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        x, y, near = _from_middle(canvas)
        part = near * np.float32(rng.choice((-1, 1)) * rng.uniform(*self.amount))
        canvas.displace_smoothly(x * part, y * part)


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

    degrees: Range = ranged((20, 50), 15, 70, least=1, most=360)
    """Of the arc; less where the picture is too low for it."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        degrees = rng.uniform(*self.degrees)
        up = rng.random() < 0.5
        x, y = coarse_grid(height, width, CELL)
        radius = width / math.radians(min(degrees, 220 * height / width))  # steeper arcs would leave the picture
        sag = 0.5 * radius * (1 - math.cos(width / radius / 2))  # half of the arc's height is above the middle
        rise = (height / 2 - y if up else y - height / 2) + np.float32(radius - sag)
        right = x - np.float32(width / 2)
        away = np.sqrt(right * right + rise * rise) - np.float32(radius)
        sideways = np.float32(radius) * np.arctan2(right, rise) - right
        canvas.displace_smoothly(sideways, height / 2 + (-away if up else away) - y)


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

    count: Range = ranged((1, 3), 1, 4)
    """Number of discs."""
    strength: float = amount(0.7, 0.4, 0.75)
    """1: a whirl of up to 75 degrees, sizes changed by up to a half."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.height, canvas.width
        across, down = coarse_grid(height, width, 2)  # a disc has a border, which a coarser one would blur
        shape = (down.shape[0], across.shape[1])
        right, below = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for _ in range(round(rng.uniform(*self.count))):
            at_x, at_y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.2, 0.8) * height
            radius, whirls = rng.uniform(0.3, 0.8) * height, rng.random() < 0.5
            turn = rng.choice((-1, 1)) * rng.uniform(0.4, 1.3)
            part = np.float32(self.strength * (turn if whirls else rng.uniform(-0.5, 0.6)))
            x, y = across - np.float32(at_x), down - np.float32(at_y)
            near = part * np.clip(1 - np.sqrt(x * x + y * y) / np.float32(radius), 0, 1)
            moves = _turned(x, y, near) if whirls else (x * near, y * near)
            right += moves[0]
            below += moves[1]
        canvas.displace_smoothly(right, below)


@register(stage=Stage.WARP, weight=0)
@dataclass(frozen=True)
class KaptchaRipple(Op):
    """Rings around the center, then fixed sine waves, as the Kaptcha library has them."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        for maps in _kaptcha_maps(canvas.height, canvas.width):
            bent = cv2.remap(canvas.pixels, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            canvas.pixels = bent.reshape(canvas.pixels.shape)


@lru_cache(maxsize=8)
def _kaptcha_maps(height: int, width: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Places to fetch pixels from, as OpenCV takes them fastest."""
    grid = pixel_grid(height, width)
    from_center = grid - np.array([width // 2, height // 2], np.float32)
    distance = np.hypot(from_center[..., 0], from_center[..., 1])
    shift = 1.5 * np.sin(distance / 2 * 2 * np.pi - 10) * np.clip(1 - distance / 50.0, 0, None)
    rings = from_center * (shift * 2 / np.maximum(distance, 1))[..., None]
    waves = np.stack([2.6 * np.sin(grid[..., 1] / 15), 1.7 * np.sin(grid[..., 0] / 5)], axis=2)
    places = (grid + shift.astype(np.float32) for shift in (rings, waves))
    return [cv2.convertMaps(place, None, cv2.CV_16SC2) for place in places]
