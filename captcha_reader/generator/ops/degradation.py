"""What a camera, a printer or a file format does to a picture (stage DEGRADATION), in the style's order."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from captcha_reader.generator.canvas import BELL, Canvas, blend, noise
from captcha_reader.generator.ops.photometric import OpaqueOnly
from captcha_reader.generator.registry import Op, Range, Stage, chosen, limited, one_of, ranged, register


@register(stage=Stage.DEGRADATION, weight=20)
@dataclass(frozen=True)
class Blur(Op):
    """A Gaussian."""

    deviation: Range = ranged((0, 0.7), 0.005, 0.025, per_height=True, most=100)
    """Standard deviation."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        deviation = rng.uniform(*self.deviation)
        if deviation > 0.25:  # less moves no brightness level
            canvas.pixels = cv2.GaussianBlur(canvas.pixels, (0, 0), deviation).reshape(canvas.pixels.shape)


@register(stage=Stage.DEGRADATION, weight=12)
@dataclass(frozen=True)
class Noise(Op):
    """Noise on every pixel."""

    deviation: Range = ranged((5, 15), 4, 30)
    """Standard deviation, in levels of brightness."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        deviation = rng.uniform(*self.deviation)
        if deviation >= 0.5:
            bell = noise(rng, canvas.pixels.shape)
            part = deviation / BELL
            mixed = cv2.addWeighted(canvas.pixels, 1, bell, part, -128 * part)
            canvas.pixels = mixed.reshape(canvas.pixels.shape)


@register(stage=Stage.DEGRADATION, weight=8)
@dataclass(frozen=True)
class Salt(Op):
    """Single pixels are black or white."""

    part: Range = ranged((0, 0.03), 0.005, 0.06, most=1)
    """Of the pixels."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width, channels = canvas.pixels.shape
        if count := round(rng.uniform(*self.part) * height * width):
            places = np.frombuffer(rng.randbytes(4 * count), np.uint32)
            flat = canvas.pixels.reshape(-1, channels)
            flat[places % (height * width)] = np.where(places >> 31, np.uint8(255), np.uint8(0))[:, None]


@register(stage=Stage.DEGRADATION, weight=8, least_height=30)
@dataclass(frozen=True)
class Resample(Op):
    """Resolution is lost: the picture is shrunk and enlarged again."""

    factor: Range = ranged((1.2, 1.8), 1.2, 2.2, least=1)
    """By which it is shrunk; a letter keeps enough pixels in pictures of 30 rows or more."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        height, width = canvas.pixels.shape[:2]
        factor = rng.uniform(*self.factor)
        small = (max(8, round(width / factor)), max(8, round(height / factor)))
        coarse = cv2.resize(canvas.pixels, small, interpolation=cv2.INTER_AREA)
        kind = rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST))
        canvas.pixels = cv2.resize(coarse, (width, height), interpolation=kind).reshape(canvas.pixels.shape)

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Resample:
        most = max(1.2, min(2.5, height / 24))
        return cls((rng.uniform(1.1, most),) * 2)


@register(stage=Stage.DEGRADATION, weight=8)
@dataclass(frozen=True)
class Levels(OpaqueOnly):
    """Few levels of brightness per channel, as in a palette."""

    count: int = chosen(3, 2, 3, 4, 6, least=2, most=256)
    """Number of levels, 2 or more."""

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        coarse = cv2.LUT(canvas.pixels, _level_table(max(2, self.count))).reshape(canvas.pixels.shape)
        if coarse.min() < coarse.max():  # else letters as pale as a relief's are gone, for all their label says
            canvas.pixels = coarse


@lru_cache(maxsize=16)
def _level_table(levels: int) -> np.ndarray:
    return np.round(np.round(np.arange(256) / 255 * (levels - 1)) * (255 / (levels - 1))).astype(np.uint8)


@register(stage=Stage.DEGRADATION, weight=2, tags=["train_only"])
@dataclass(frozen=True)
class Enlarge(Op):
    """Each pixel becomes a square, a disc, or a square with a gap to the next."""

    times: tuple[int, int] = limited((2, 3), 1, 10)
    """(fewest, most) pixels of a side; `height` and `width` of the style are those before."""
    cells: str = one_of("", "", "disc", "gap")
    """`disc` or `gap`, from three pixels on; "": whole squares."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        times = rng.randint(*self.times)
        height, width, channels = canvas.pixels.shape
        size = (width * times, height * times)
        large = cv2.resize(canvas.pixels, size, interpolation=cv2.INTER_NEAREST)
        canvas.pixels = large.reshape(size[1], size[0], channels)
        if self.cells and times > 2 and canvas.channels != 4:
            canvas.pixels = _in_cells(canvas.pixels, rng, times, self.cells)

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Enlarge:
        most = max(1, int(120 / height))  # what is larger tells a reader no more
        if rng.random() < 0.4 and most >= 3:
            times = rng.randint(3, min(8, most))
            return cls((times, times), rng.choice(["disc", "gap"]))
        times = rng.randint(min(2, most), min(3, max(most, 1)))
        return cls((times, times))

    @classmethod
    def at(cls, strength: float, height: float) -> Enlarge:
        return cls((3, 3), ("", "gap", "disc")[round(2 * strength)])


def _in_cells(pixels: np.ndarray, rng: random.Random, side: int, kind: str) -> np.ndarray:
    """Enlarged pixels apart from each other, on a ground as theirs, or darker or lighter."""
    behind = np.median(pixels[::side, ::side], axis=(0, 1)) * rng.choice((1, 0.5, 0.8, 1.2))
    cell = np.zeros((side, side), np.float32)
    if kind == "disc":
        middle = (side - 1) / 2
        y, x = np.mgrid[:side, :side]
        cell[:] = np.clip(side / 2 - np.hypot(x - middle, y - middle) + 0.3, 0, 1)
    else:
        cell[:-1, :-1] = 1
    gaps = np.tile(np.round(255 * (1 - cell)).astype(np.uint8), (pixels.shape[0] // side, pixels.shape[1] // side))
    drawn = pixels.copy()
    blend(drawn, gaps, np.clip(behind, 0, 255).tolist())
    return drawn


@register(stage=Stage.DEGRADATION, weight=30)
@dataclass(frozen=True)
class Jpeg(OpaqueOnly):
    """The traces of JPEG."""

    quality: Range = ranged((35, 90), 80, 12, width=0.4, least=1, most=100)
    """(lowest, highest) quality, 1 to 100."""

    def change(self, canvas: Canvas, rng: random.Random) -> None:
        quality = rng.randint(round(self.quality[0]), round(self.quality[1]))
        _, packed = cv2.imencode(".jpg", canvas.pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        canvas.pixels = np.asarray(cv2.imdecode(packed, cv2.IMREAD_UNCHANGED)).reshape(canvas.pixels.shape)
