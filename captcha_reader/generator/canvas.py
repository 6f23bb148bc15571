"""The picture in work, what its ops tell each other, and the strokes of the brush that they share."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from captcha_reader.generator.fonts import Fonts, Glyph
from captcha_reader.generator.registry import Range

if TYPE_CHECKING:
    from captcha_reader.generator.styles import Style

Point = tuple[float, float]
Color = tuple[float, ...]

CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
CAPITAL = 0.73  # height of capitals as a part of the font size, about


@dataclass(slots=True)
class Layer:
    """A second shape that is drawn with a letter: its shadow, edge, tile, gloss.

    Attributes:
        glyph: as the letter's own, in the same coordinates.
        color: of the canvas's channels.
        move: pixels to the right and down.
        opacity: 0 to 1.
    """

    glyph: Glyph
    color: Color
    move: Point = (0.0, 0.0)
    opacity: float = 1.0


@dataclass(slots=True)
class Letter:
    """One character and its place.

    Attributes:
        glyph: its shape, at the size it was drawn.
        x, y: the pen: left end of the base line, pixels.
        scale: across and down, of the glyph.
        angle: radians, counterclockwise.
        shear: the top lies this part of the height further right.
        bend: moves of the box's corners as parts of its sides (see `draw_glyph`), or None.
        below, above: layers drawn before and after the letter itself.
    """

    character: str
    path: str
    glyph: Glyph
    x: float = 0.0
    y: float = 0.0
    scale: Point = (1.0, 1.0)
    angle: float = 0.0
    shear: float = 0.0
    bend: Sequence[float] | None = None
    color: Color = ()
    opacity: float = 1.0
    below: list[Layer] = field(default_factory=list)
    above: list[Layer] = field(default_factory=list)

    @property
    def width(self) -> float:
        """Pixels of the unturned letter, without the glyph's border."""
        return self.glyph.ink * self.scale[0]

    @property
    def middle(self) -> Point:
        """Middle of the unturned letter's ink, across and down."""
        top, bottom = self.glyph.reach
        return self.x + self.width / 2, self.y + (top + bottom) / 2 * self.scale[1]


GlyphEffect = tuple[Callable[..., Glyph], tuple[float | str, ...]]


class Canvas:
    """The captcha in work.

    Attributes:
        text: what it says.
        height, width: pixels; `width` is None until the layout where the text decides it.
        mode: `L`, `RGB` or `RGBA`.
        pixels: (height, width, channels) uint8, RGBA premultiplied with its opacity so that one blend serves all
            modes; None before the background.
        without_letters: the pixels as they were before the letters were drawn; None before.
        letters: in the order of the text; none before the layout.
        paths: a font file for each character.
        effects: (function, arguments) that shape the glyphs, in order; arguments make the key of a cache.
        bitmap: font size in pixels of hard-edged letters, or 0.
        size: font size, pixels.
        drawn: font size at which the glyphs were drawn before they are scaled.
        in_line: letters stand on one line, with gaps that jitter may change.
        ground, ground_tint: (darkest, lightest) level of the ground, and how colored it is.
        varied: the ground differs so much from place to place that each letter needs an ink of its own.
        ink, ink_tint: (darkest, lightest) level of the letters, and how colored they are.
        ink_color: the one color of all letters, or None.
        under_tone: color of what glyphs have below them, from the ground's (0) to the letters' (1).
        antialias: False: hard edges.
    """

    def __init__(self, text: str, style: Style, height: int, width: int | None, fonts: Fonts) -> None:
        self.text, self.style, self.fonts = text, style, fonts
        self.height, self.mode = height, style.mode
        self.width: int = width  # type: ignore[assignment]  # None until the layout
        self.channels = CHANNELS[style.mode]
        self.pixels: np.ndarray = None  # type: ignore[assignment]
        self.without_letters: np.ndarray = None  # type: ignore[assignment]
        self.letters: list[Letter] = []
        self.paths: list[str] = []
        self.effects: list[GlyphEffect] = []
        self.bitmap = 0
        self.size = 0.0
        self.drawn = 0
        self.in_line = True
        self.ground: Range = (255.0, 255.0)
        self.ground_tint = 0.0
        self.varied = False
        self.ink: Range = (0.0, 0.0)
        self.ink_tint = 0.0
        self.ink_color: Color | None = None
        self.under_tone = 0.0
        self.antialias = style.antialias

    @property
    def line_type(self) -> int:
        """OpenCV's, for lines with soft or hard edges."""
        return cv2.LINE_AA if self.antialias else cv2.LINE_8

    @property
    def box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the capitals of the word, roughly."""
        left = min(letter.x for letter in self.letters)
        right = max(letter.x + letter.width for letter in self.letters)
        lines = [letter.y for letter in self.letters]
        return left, min(lines) - CAPITAL * self.size, right, max(lines)

    def color(self, rng: random.Random, level: Range, tint: float) -> Color:
        """A random color of a given brightness; `tint` 0 is gray, 1 strong."""
        return random_color(rng, level, tint, self.channels)

    def between(self, tone: Range) -> Range:
        """Brightness levels between the ground's (0) and the letters' (1)."""
        ground, ink = sum(self.ground) / 2, sum(self.ink) / 2
        first, second = (ground + part * (ink - ground) for part in tone)
        return min(first, second), max(first, second)

    def fill(self, color: Color) -> None:
        """Make the pixels, all of one color."""
        self.pixels = np.empty((self.height, self.width, self.channels), np.uint8)
        # Ten times faster than NumPy's broadcast of a color.
        cv2.rectangle(self.pixels, (0, 0), (self.width, self.height), color, -1)

    def displace(self, shift: np.ndarray) -> None:
        """Fetch each pixel from so far right and down, (height, width, 2) float32; edges go on as they are."""
        self.pixels = displace(self.pixels, shift)

    def displace_smoothly(self, right: np.ndarray, down: np.ndarray) -> None:
        """As `displace`, from samples on a coarse grid (see `coarse_grid`), (rows, columns) float32 each."""
        self.pixels = displace_smoothly(self.pixels, right, down)


# ---------------------------------------------------------------------------------------------------------------------
# Colors


def random_color(rng: random.Random, level: Range, tint: float, channels: int) -> Color:
    """A color whose hue and brightness are drawn apart, so that contrast can be promised.

    Args:
        level: brightness, 0 to 255.
        tint: 0: gray, 1: strong colors.
        channels: 1, 3 or 4; the fourth is opacity, all of it.
    """
    gray = rng.uniform(*level)
    if channels == 1:
        return (gray,)
    if not tint:
        return (gray, gray, gray) if channels == 3 else (gray, gray, gray, 255.0)
    spread = 255 * tint
    r, g, b = (rng.random() - 0.5) * spread, (rng.random() - 0.5) * spread, (rng.random() - 0.5) * spread
    shift = gray - (0.299 * r + 0.587 * g + 0.114 * b)
    rgb = min(max(r + shift, 0.0), 255.0), min(max(g + shift, 0.0), 255.0), min(max(b + shift, 0.0), 255.0)
    return rgb if channels == 3 else (*rgb, 255.0)


def blend(region: np.ndarray, mask: np.ndarray, color: Sequence[float]) -> None:
    """Lay a color over (h, w, channels) uint8, in place, as far as `mask`, (h, w) uint8, says.

    OpenCV's saturating arithmetic takes half the time of NumPy's here, and much of drawing is this.
    """
    channels = region.shape[2]
    weight = mask if channels == 1 else cv2.merge([mask] * channels)
    under = region[..., 0] if channels == 1 else region
    # OpenCV takes four numbers for a second picture where the first has four rows and one column.
    color = (color[0],) * 4 if channels == 1 else (*color, 0.0)[:4]
    kept = cv2.multiply(under, cv2.bitwise_not(weight), scale=1 / 255)
    cv2.add(kept, cv2.multiply(weight, color, scale=1 / 255, dtype=cv2.CV_8U), dst=under)


def between_colors(first: Color, second: Color, part: np.ndarray) -> np.ndarray:
    """(h, w, channels) uint8: from the first color (0) to the second (255), as (h, w) uint8 says."""
    table = np.linspace(first, second, 256, dtype=np.float32).clip(0, 255).astype(np.uint8)
    return cv2.LUT(cv2.merge([part] * len(first)), table[None]).reshape(*part.shape, len(first))


def replace_pixels(pixels: np.ndarray, other: np.ndarray, where: np.ndarray) -> None:
    """Take pixels from another picture, both (h, w, channels) uint8, in place, where (h, w) uint8 is not 0.

    A fifth of the time of NumPy's `copyto`, whose mask has to be repeated for each channel.
    """
    cv2.copyTo(other, where, pixels)


# ---------------------------------------------------------------------------------------------------------------------
# Letters


def draw_text(pixels: np.ndarray, letters: Sequence[Letter], antialias: bool = True) -> None:
    """Draw letters, each with its layers, into (height, width, channels) uint8, in place.

    Args:
        pixels: the canvas.
        letters: with places and colors.
        antialias: False: hard edges.
    """
    plain = not any(letter.below or letter.above or letter.opacity < 1 for letter in letters)
    if plain and len({letter.color for letter in letters}) == 1:
        cover = np.zeros(pixels.shape[:2], np.uint8)  # one color: blended once, not letter by letter
        for letter in letters:
            if placed := _place(pixels.shape, letter.glyph, letter, (0.0, 0.0), antialias):
                region, mask = placed
                cv2.max(cover[region], mask, dst=cover[region])
        x, y, w, h = cv2.boundingRect(cover)
        if w and h:
            blend(pixels[y : y + h, x : x + w], cover[y : y + h, x : x + w], letters[0].color)
        return
    for letter in letters:
        for layer in letter.below:
            draw_glyph(pixels, layer.glyph, letter, layer.color, layer.move, layer.opacity * letter.opacity, antialias)
        draw_glyph(pixels, letter.glyph, letter, letter.color, (0.0, 0.0), letter.opacity, antialias)
        for layer in letter.above:
            draw_glyph(pixels, layer.glyph, letter, layer.color, layer.move, layer.opacity * letter.opacity, antialias)


def draw_glyph(
    pixels: np.ndarray,
    glyph: Glyph,
    letter: Letter,
    color: Sequence[float],
    move: Point = (0.0, 0.0),
    opacity: float = 1.0,
    antialias: bool = True,
) -> None:
    """Scale, shear and turn a glyph around its own middle as its letter says, and blend it into the canvas."""
    if placed := _place(pixels.shape, glyph, letter, move, antialias):
        region, mask = placed
        if opacity < 1:
            mask = cv2.convertScaleAbs(mask, alpha=opacity)
        blend(pixels[region], mask, color)


def _place(
    shape: tuple[int, ...], glyph: Glyph, letter: Letter, move: Point, antialias: bool
) -> tuple[tuple[slice, slice], np.ndarray] | None:
    """The part of the canvas that a glyph reaches, and its coverage there, (h, w) uint8; None: it lies outside.

    `Letter.bend` moves the box's corners first, upper left, upper right, lower right, lower left, each across and down.
    """
    h, w = glyph.mask.shape
    scale, shear, bend = letter.scale, letter.shear, letter.bend
    sin, cos = math.sin(letter.angle), math.cos(letter.angle)
    # (x, y) in the mask, from its middle -> the canvas: scale, then shear, then turn
    a, b = cos * scale[0], (cos * shear + sin) * scale[1]
    c, d = -sin * scale[0], (cos - sin * shear) * scale[1]
    middle_x, middle_y = (w - 1) / 2, (h - 1) / 2
    x = letter.x + move[0] + (glyph.x + middle_x) * scale[0]
    y = letter.y + move[1] + (glyph.y + middle_y) * scale[1]
    if bend:  # room for the corners that move outwards
        room = 1 + 2 * max(map(abs, bend))
        mid_x, mid_y, half_x, half_y = x, y, room * middle_x, room * middle_y
    else:
        ink_x, ink_y, half_x, half_y = glyph.box
        ink_x, ink_y = ink_x - middle_x, ink_y - middle_y
        mid_x, mid_y = x + a * ink_x + b * ink_y, y + c * ink_x + d * ink_y
    reach_x, reach_y = abs(a) * half_x + abs(b) * half_y, abs(c) * half_x + abs(d) * half_y
    x0, y0 = max(math.floor(mid_x - reach_x), 0), max(math.floor(mid_y - reach_y), 0)
    x1, y1 = min(math.ceil(mid_x + reach_x) + 1, shape[1]), min(math.ceil(mid_y + reach_y) + 1, shape[0])
    if x1 <= x0 or y1 <= y0:
        return None
    moves = (x - x0 - a * middle_x - b * middle_y, y - y0 - c * middle_x - d * middle_y)
    matrix = np.array((a, b, moves[0], c, d, moves[1])).reshape(2, 3)
    if bend:
        corners = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32)
        moved = corners + np.array(bend, np.float32).reshape(4, 2) * np.array((w, h), np.float32)
        whole = np.vstack([matrix, (0, 0, 1)]) @ cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
        mask = cv2.warpPerspective(glyph.mask, whole, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    else:
        mask = cv2.warpAffine(glyph.mask, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    if not antialias:
        mask = cv2.threshold(mask, 100, 255, cv2.THRESH_BINARY)[1]
    return (slice(y0, y1), slice(x0, x1)), mask


# ---------------------------------------------------------------------------------------------------------------------
# Curves and displacements


def bezier(control: Sequence[Point], steps: int) -> list[Point]:
    """Points of a cubic curve, one more than `steps`."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = control
    points = []
    for i in range(steps + 1):
        t = i / steps
        s = 1 - t
        a, b, c, d = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
        points.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return points


def draw_curve(
    pixels: np.ndarray, points: Sequence[Point], color: Sequence[float], thickness: int, line_type: int
) -> None:
    """A line through points, which may lie between pixels: whole ones would give slow curves steps."""
    if len(points) == 2:
        first, last = ((round(16 * x), round(16 * y)) for x, y in points)
        cv2.line(pixels, first, last, color, thickness, line_type, shift=4)
        return
    fixed = (np.array(points) * 16).round().astype(np.int32)
    cv2.polylines(pixels, [fixed], False, color, thickness, line_type, shift=4)


def pixel_grid(height: int, width: int) -> np.ndarray:
    """(height, width, 2) float32: x and y of every pixel, a view of one cached array."""
    return _pixel_grid_of(-(-height // 128) * 128, -(-width // 512) * 512)[:height, :width]


@lru_cache(maxsize=8)
def _pixel_grid_of(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y], axis=2)


def fetch(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A copy of (height, width, channels) uint8 whose pixels come from places, (height, width) float32 each."""
    return _fetched(image, cv2.convertMaps(x, y, cv2.CV_16SC2), cv2.INTER_LINEAR)


def displace(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """A copy of (height, width, channels) uint8 whose pixels come from so far right and down."""
    maps = cv2.convertMaps(shift, None, cv2.CV_16SC2)
    return _fetched(image, maps, cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP)


def _fetched(image: np.ndarray, maps: Sequence[np.ndarray], how: int) -> np.ndarray:
    # With places as whole numbers and 32nds, made before, it takes three quarters of the time.
    return cv2.remap(image, maps[0], maps[1], how, borderMode=cv2.BORDER_REPLICATE).reshape(image.shape)


def coarse_grid(height: int, width: int, cell: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of a displacement's samples, `cell` pixels apart: x, (1, columns), and y, (rows, 1), float32."""
    columns, rows = max(2, -(-width // cell)), max(2, -(-height // cell))
    across = (np.arange(columns, dtype=np.float32) + 0.5) * (width / columns) - 0.5
    down = (np.arange(rows, dtype=np.float32) + 0.5) * (height / rows) - 0.5
    return across[None], down[:, None]


def displace_smoothly(image: np.ndarray, right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """As `displace`, from samples as `coarse_grid` places them, (rows, columns) float32 each."""
    return displace(image, cv2.resize(cv2.merge([right, down]), image.shape[1::-1], interpolation=cv2.INTER_CUBIC))


BELL = 32  # steps of a bell curve's deviation in which noise is kept, around 128


def _as_noise(drawn: np.ndarray) -> np.ndarray:
    return np.clip(np.round(128 + BELL * drawn), 0, 255).astype(np.uint8)


@lru_cache(maxsize=2)
def noise_table() -> np.ndarray:
    """2**18 numbers of a bell curve, uint8, as `noise` gives them: noise is a piece of it, anywhere."""
    return _as_noise(np.random.Generator(np.random.PCG64(12)).normal(0, 1, 2**18))


def noise(rng: random.Random, shape: tuple[int, ...]) -> np.ndarray:
    """Normal noise, uint8 of that shape: 128 is none, and `BELL` steps are a deviation.

    A piece of a table; of large pictures, each row a piece.
    """
    table = noise_table()
    height, row = shape[0], math.prod(shape[1:])
    if height * row <= len(table) // 2:
        start = rng.randrange(len(table) - height * row)
        return table[start : start + height * row].reshape(shape)
    if row >= len(table):
        return _as_noise(np.random.default_rng(rng.getrandbits(64)).normal(0, 1, shape))
    starts = np.frombuffer(rng.randbytes(4 * height), np.uint32) % np.uint32(len(table) - row)
    windows = np.lib.stride_tricks.sliding_window_view(table, row)
    return windows[starts].reshape(shape)
