"""Draw synthetic captchas with their texts, as parquet shards in the Hugging Face image layout.

    python captcha_generator.py --count 10000 --style classic --out data/synthetic
    python captcha_generator.py --count 50000 --style line --alphabet 2345678bcdefgmnpwxy --length 5 --out data/line
    python captcha_generator.py --count 100 --style classic,wave --grid grid.png --out data/look

From Python:

    picture, text = generate_captcha(style="wave", seed=1, index=7)      # a PIL picture
    png_bytes, text = render_captcha(7, CaptchaSettings(styles=("wave",), seed=1))   # the same, as training wants it

What a style is, and the named ones, stand in captcha_styles.py; what a letter looks like, in captcha_fonts.py.

All randomness of picture i of seed s comes from `random.Random(f"{s}/{i}")`, so that it is the same bytes for any
number of workers and any shard size. Lengths are pixels and colours are 0-255 unless the text says otherwise.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C shows no traceback during the seconds that the imports take
    from captcha_reader.cli import quiet_interrupt

    quiet_interrupt()

import csv
import hashlib
import io
import json
import math
import os
import random
import re
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from itertools import chain, islice, pairwise
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Any

import cv2
import numpy as np
from PIL import Image

from captcha_fonts import SEGMENTS, Fonts, Glyph, find_fonts, load_glyph, segment_glyph, style_glyph
from captcha_reader.cli import parse_config, run
from captcha_reader.config import ALPHANUMERIC, GeneratorConfig
from captcha_reader.errors import UserError
from captcha_reader.files import available_cores, clear_leftovers, write_atomically, write_text
from captcha_reader.text import Alphabet
from captcha_styles import MIXED, STYLES, Cells, Dither, Range, Relief, Style, get_style, style_names

Point = tuple[float, float]

LARGEST_CELL = (240, 100)  # pixels, width and height, of a picture in a grid: one giant shall not scatter all others
MAX_LENGTH = 32  # characters; more do not fit into a picture that anyone would call a captcha
ROW_GROUP = 256  # pictures per parquet row group: about what the writing process holds in memory
CHUNK = 64  # pictures per task of a worker
CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}
GLYPH_SIZES = (16, 24, 32, 40, 56, 80, 112, 160, 224, 320)  # pixels, of the glyphs that letters are scaled from
METADATA_KEY = b"captcha_generator"  # where a shard names its settings
FORMAT = 11  # part of the settings in each shard: raise it when the same settings would draw other pictures


@dataclass(frozen=True)
class CaptchaSettings:
    """What decides, together with an index, every byte of a captcha. Small and picklable, to be sent to workers.

    Attributes:
        styles: names (`STYLES`, "mixed", "schemes", "rare", "heldout") or `Style` objects; pictures take
            turns by their index.
        alphabet: characters to draw from, written out (no ranges).
        length: (fewest, most) characters, within 1 to 32.
        seed: any integer.
        fonts: folder of fonts to use beside matplotlib's.
    """

    styles: tuple[str | Style, ...] = ("classic",)
    alphabet: str = Alphabet.parse(ALPHANUMERIC).characters
    length: tuple[int, int] = (4, 8)
    seed: int = 0
    fonts: str | None = None

    @classmethod
    def from_config(cls, config: GeneratorConfig) -> CaptchaSettings:
        """Check the strings of a configuration.

        Raises:
            UserError: unknown style, bad alphabet or length.
        """
        names = tuple(name.strip() for name in config.style.split(",") if name.strip())
        if not names:
            raise UserError(f"--style names no style: choose from {style_names()}")
        for name in names:
            get_style(name)
        alphabet = Alphabet.parse(config.alphabet).characters
        return cls(names, alphabet, parse_length(config.length), config.seed, config.fonts)


def parse_length(text: str) -> tuple[int, int]:
    """Read `5` or `4-8`.

    Returns:
        (fewest, most) characters, 1 to 32.

    Raises:
        UserError: anything else.
    """
    match = re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", str(text))
    low, high = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= low <= high <= MAX_LENGTH:
        raise UserError(f"the length {text!r} is not usable: write 5 or 4-8, within 1 to {MAX_LENGTH}")
    return low, high


# ---------------------------------------------------------------------------------------------------------------------
# Drawing. A canvas is a uint8 array (height, width, channels) with 1, 3 (RGB) or 4 (RGBA, premultiplied) channels, and
# the functions named draw_* change it in place. Premultiplied means that one blend serves all three.


def generate_random_string(alphabet: str | Alphabet, length_range: tuple[int, int], rng: random.Random) -> str:
    """Draw a text.

    Args:
        alphabet: characters, written out; each is as likely as the others.
        length_range: (fewest, most) characters.
        rng: the only source of randomness.
    """
    characters = alphabet.characters if isinstance(alphabet, Alphabet) else alphabet
    return "".join(rng.choices(characters, k=rng.randint(*length_range)))


def _colour(rng: random.Random, level: Range, tint: float, channels: int) -> tuple[float, ...]:
    """A random colour of a given brightness: hue and brightness are drawn apart, so that contrast can be promised."""
    grey = rng.uniform(*level)
    if channels == 1:
        return (grey,)
    spread = 255 * tint
    r, g, b = (rng.random() - 0.5) * spread, (rng.random() - 0.5) * spread, (rng.random() - 0.5) * spread
    shift = grey - (0.299 * r + 0.587 * g + 0.114 * b)
    rgb = min(max(r + shift, 0.0), 255.0), min(max(g + shift, 0.0), 255.0), min(max(b + shift, 0.0), 255.0)
    return rgb if channels == 3 else (*rgb, 255.0)


def _text_colour(rng: random.Random, style: Style, channels: int) -> tuple[float, ...]:
    return style.ink or _colour(rng, style.text_level, style.text_tint, channels)


def _line_colour(rng: random.Random, style: Style, channels: int) -> tuple[float, ...]:
    return style.ink or _colour(rng, style.line_level, style.line_tint, channels)


def _draw_background(rng: random.Random, style: Style, height: int, width: int) -> np.ndarray:
    channels = CHANNELS[style.mode]
    if channels == 4:
        return np.zeros((height, width, 4), np.uint8)
    kind = rng.choice(style.background)
    first = _colour(rng, style.background_level, style.background_tint, channels)
    if kind == "plain":
        canvas = np.empty((height, width, channels), np.uint8)
        cv2.rectangle(canvas, (0, 0), (width, height), first, -1)  # ten times faster than NumPy's broadcast of a colour
        return canvas
    if kind == "kaptcha":
        return _kaptcha_background(height, width, channels).copy()
    if kind == "gradient":
        second = _colour(rng, style.background_level, style.background_tint, channels)
        corners = np.array([first, second, first, second], np.float32).reshape(2, 2, channels)
        if rng.random() < 0.5:
            corners = corners.transpose(1, 0, 2).copy()
    elif kind == "texture":
        rows, columns = rng.randint(3, max(3, height // 3)), rng.randint(4, max(4, width // 3))
        low, high = style.background_level
        spread = np.frombuffer(rng.randbytes(rows * columns), np.uint8).reshape(rows, columns, 1)
        corners = np.float32(first) + (spread.astype(np.float32) / 255 - 0.5) * (high - low)
    elif kind in ("grain", "stripes", "patches"):
        second = _colour(rng, style.background_level, style.background_tint, channels)
        return _patterned_background(rng, kind, height, width, np.float32([first, second]), style)
    else:
        raise ValueError(f"unknown background {kind!r}")
    # Half a sample at each end of a small picture stays flat when enlarged; cubic hides the cells of a texture.
    enlarged = cv2.resize(corners, (width, height), interpolation=cv2.INTER_CUBIC if kind == "texture" else 1)
    return np.clip(enlarged, 0, 255).astype(np.uint8).reshape(height, width, channels)


def _patterned_background(
    rng: random.Random, kind: str, height: int, width: int, pair: np.ndarray, style: Style
) -> np.ndarray:
    channels = pair.shape[1]
    if kind == "patches":
        canvas = np.empty((height, width, channels), np.uint8)
        cv2.rectangle(canvas, (0, 0), (width, height), pair[0].tolist(), -1)
        for _ in range(rng.randint(4, 20)):
            x, y = rng.random() * width, rng.random() * height
            far = (int(x + rng.random() * 0.5 * width), int(y + rng.random() * 0.7 * height))
            colour = _colour(rng, style.background_level, style.background_tint, channels)
            cv2.rectangle(canvas, (int(x - 0.1 * width), int(y - 0.2 * height)), far, colour, -1)
        return canvas
    if kind == "grain":
        pixel = max(1, round(rng.uniform(0.5, 3) * height / 60))
        rows, columns = -(-height // pixel), -(-width // pixel)
        part = np.frombuffer(rng.randbytes(rows * columns), np.uint8).reshape(rows, columns)
        part = cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST)
    else:
        angle, pitch = rng.random() * math.pi, rng.uniform(0.06, 0.5) * height
        grid = _pixel_grid(height, width)
        phase = (grid[..., 0] * math.cos(angle) + grid[..., 1] * math.sin(angle)) * (2 * math.pi / pitch)
        wave = np.sin(phase)
        part = np.clip(127.5 + 127.5 * (np.sign(wave) if rng.random() < 0.4 else wave), 0, 255).astype(np.uint8)
    table = pair[0] + (pair[1] - pair[0]) * np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    return np.ascontiguousarray(np.clip(table, 0, 255).astype(np.uint8)[part])


@lru_cache(maxsize=8)
def _kaptcha_background(height: int, width: int, channels: int) -> np.ndarray:
    """From light grey (192) in the upper left to white in the lower right corner."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    part = (x * width + y * height) / (width**2 + height**2)
    return np.repeat((192 + 63 * part).astype(np.uint8)[..., None], channels, axis=2)


def draw_text(canvas: np.ndarray, text: str, rng: random.Random, style: Style, fonts: Fonts | None = None) -> None:
    """Draw turned, leaning, coloured letters side by side, shrunk if the canvas is too narrow.

    Args:
        canvas: (height, width, channels) uint8, changed in place.
        text: at least one character.
        fonts: by default those of matplotlib that can draw `text`.
    """
    _place_letters(canvas, _layout(text, rng, style, fonts or find_fonts(_distinct(text)), canvas.shape[0]), rng, style)


def _distinct(text: str) -> str:
    return "".join(sorted(set(text)))


@dataclass(frozen=True)
class _Word:
    """A text whose letters have fonts and sizes, but no place yet."""

    glyphs: list[Glyph]
    size: float  # font size wanted, pixels
    scale: float  # size wanted against size drawn, at most 1
    stretch: float
    gap: float
    rims: list[Glyph] | None = None  # what lies below each letter: its shadow or its edge

    @property
    def width(self) -> float:
        """Pixels from the first letter's pen to the last one's right edge."""
        ink = sum(glyph.ink for glyph in self.glyphs) * self.scale * self.stretch
        return ink + self.gap * (len(self.glyphs) - 1)


def _layout(text: str, rng: random.Random, style: Style, fonts: Fonts, height: int) -> _Word:
    if style.bitmap[1]:
        return _layout_bitmaps(text, rng, style, fonts)
    size = rng.uniform(*style.text_size) * height
    # Few sizes keep the cache of glyphs small, and shrinking looks better than growing.
    effect = "hollow" if rng.random() < style.hollow else style.effect
    least = 40 if effect == "pen" else 0  # in smaller ones its strokes run into each other
    drawn = next((step for step in GLYPH_SIZES if step >= max(size, least)), GLYPH_SIZES[-1])
    common = fonts.choices(style, text)
    if common and not style.font_per_letter:
        common = (rng.choice(common),)
    paths = [rng.choice(common or fonts.choices(style, character)) for character in text]
    weight = max(round(rng.uniform(*style.weight) * drawn * 2) / 2, -2)  # few steps, again for the cache
    pairs = list(zip(paths, text, strict=True))
    glyphs = [style_glyph(path, character, drawn, weight, effect) for path, character in pairs]
    rims = None
    if style.segments:
        thickness = rng.choice((0.08, 0.11, 0.14))
        rims = [segment_glyph("8", drawn, thickness) if c in SEGMENTS else glyphs[i] for i, c in enumerate(text)]
        glyphs = [segment_glyph(c, drawn, thickness) if c in SEGMENTS else glyphs[i] for i, c in enumerate(text)]
    elif effect == "edge":
        rims = [style_glyph(path, character, drawn, max(weight, 0) + drawn // 12 + 1) for path, character in pairs]
    elif effect == "shadow":
        rims = glyphs
    return _Word(glyphs, size, size / drawn, rng.uniform(*style.stretch), rng.uniform(*style.spacing) * size, rims)


def _layout_bitmaps(text: str, rng: random.Random, style: Style, fonts: Fonts) -> _Word:
    size = rng.randint(*style.bitmap)
    paths = fonts.choices(style, text)
    paths = (rng.choice(paths),) * len(text) if paths else [rng.choice(fonts.choices(style, c)) for c in text]
    glyphs = [load_glyph(path, character, size, hard=True) for path, character in zip(paths, text, strict=True)]
    return _Word(glyphs, size, 1.0, 1.0, round(rng.uniform(*style.spacing) * size))


def _place_letters(canvas: np.ndarray, word: _Word, rng: random.Random, style: Style) -> tuple[float, ...]:
    """Draw the word; returns (left, top, right, bottom) of it, roughly."""
    height, width, channels = canvas.shape
    count = len(word.glyphs)
    room = width - 2 * style.margin
    left = None if style.left is None else rng.uniform(*style.left) * 7 / (2 + count)
    if left is not None:
        room = width - left - style.margin
    gap = 0.0 if style.spread else word.gap
    wide = word.width - (word.gap - gap) * (count - 1)
    fit = min(1.0, room / max(wide, 1))
    gap *= fit
    if style.spread:
        gap = (room - wide * fit) / count
        left = style.margin + gap / 2
    elif left is None:
        left = style.margin + rng.random() * (room - wide * fit)
    scale_y = word.scale * fit
    scale_x = scale_y * word.stretch
    size = word.size * fit
    # Capitals are about 0.73 of the font size high, so that this base line puts their middle into the picture's middle.
    baseline = height * style.baseline if style.baseline is not None else height / 2 + 0.36 * size
    baseline += rng.uniform(-style.drop, style.drop) * height
    shift = (0.0, 0.0)
    if word.rims:
        below = _colour(rng, style.effect_level, style.text_tint, channels)
        if style.effect == "shadow":
            shift = (rng.choice((-1, 1)) * rng.uniform(0.04, 0.1) * size, rng.uniform(0.03, 0.1) * size)
    colour = _text_colour(rng, style, channels)
    slant = rng.uniform(-style.slant, style.slant) if style.slant else 0.0
    even = bool(style.even) and rng.random() < style.even
    opacity = rng.uniform(*style.opacity) if style.opacity[0] < 1 else 1.0
    boxed = bool(style.boxed) and rng.random() < style.boxed
    widths = _even_widths(word) if boxed else _uneven_widths(word, rng, style.uneven)
    inks = [glyph.ink * (scale_x * across) for glyph, across in zip(word.glyphs, widths, strict=True)]
    gaps = _jostled_gaps(gap, inks, rng, style.jostle * size)
    tiled = bool(style.tiles) and rng.random() < style.tiles
    pen = left
    for i, glyph in enumerate(word.glyphs):
        if style.colour_per_letter:
            colour = _text_colour(rng, style, channels)
        angle = math.radians(rng.uniform(-style.rotation, style.rotation))
        lean = rng.uniform(-style.shear, style.shear) + slant
        drop = rng.uniform(-style.bounce, style.bounce) * size
        grow = 1 + rng.uniform(-style.size_jitter, style.size_jitter) if style.size_jitter else 1.0
        across = scale_x * widths[i]
        scale, line = (across * grow, scale_y * grow), baseline + drop
        if even:  # as high as a capital, and down to the base line
            above, under = glyph.reach
            taller = min(0.73 * word.size / word.scale / max(under - above, 1), 3.0)
            scale = (scale[0], scale[1] * taller)
            line -= under * scale[1]
        if style.bitmap[1]:  # on whole pixels
            pen, line = round(pen), round(line)
        bend = [rng.uniform(-style.corners, style.corners) for _ in range(8)] if style.corners else None
        if tiled:
            middle = (pen + inks[i] / 2, line - 0.36 * size)
            sides = (max(inks[i] + 0.2 * size, 0.6 * size), rng.uniform(1.0, 1.2) * size)
            corners = cv2.boxPoints((middle, sides, -math.degrees(angle)))
            cv2.fillConvexPoly(canvas, corners.round().astype(np.int32), colour, cv2.LINE_AA)
        if word.rims:
            place = (pen + shift[0], line + shift[1])
            _draw_glyph(canvas, word.rims[i], place, scale, angle, lean, below, style.antialias, opacity, bend)
        ink = _colour(rng, style.background_level, style.background_tint, channels) if tiled else colour
        _draw_glyph(canvas, glyph, (pen, line), scale, angle, lean, ink, style.antialias, opacity, bend)
        pen += inks[i] + gaps[i]
    return left, baseline - 0.73 * size, pen - gap, baseline


def _uneven_widths(word: _Word, rng: random.Random, most: float) -> list[float]:
    """How wide each letter is against what the word says, so that the word stays as wide as it is."""
    if not most:
        return [1.0] * len(word.glyphs)
    widths = [rng.uniform(1 - most, 1 + most) for _ in word.glyphs]
    inks = [glyph.ink for glyph in word.glyphs]
    share = sum(inks) / sum(width * ink for width, ink in zip(widths, inks, strict=True))
    return [width * share for width in widths]


def _even_widths(word: _Word) -> list[float]:
    """How wide each letter is against what the word says, so that all are as wide as their mean."""
    inks = [glyph.ink for glyph in word.glyphs]
    return [min(sum(inks) / len(inks) / ink, 3.0) for ink in inks]


def _jostled_gaps(gap: float, inks: Sequence[float], rng: random.Random, most: float) -> list[float]:
    """The gap behind each letter, all in pixels: `gap` give or take `most`, so that the word stays about as wide."""
    if not most:
        return [gap] * len(inks)
    moves = [rng.uniform(-most, most) for _ in inks[1:]]
    mean = sum(moves) / max(len(moves), 1)
    gaps = [max(gap + move - mean, -min(pair) / 2) for move, pair in zip(moves, pairwise(inks), strict=True)]
    return [*gaps, gap]


def _draw_glyph(
    canvas: np.ndarray,
    glyph: Glyph,
    pen: Point,
    scale: Point,
    angle: float,
    lean: float,
    colour: Sequence[float],
    antialias: bool,
    opacity: float = 1.0,
    bend: Sequence[float] | None = None,
) -> None:
    """Scale, lean and turn (radians) a glyph around its own middle and blend it into the canvas.

    `bend` moves its corners first, upper left, upper right, lower right, lower left, each across and down, by that part
    of its sides.
    """
    h, w = glyph.mask.shape
    sin, cos = math.sin(angle), math.cos(angle)
    # (x, y) in the mask, from its middle -> the canvas: scale, then lean, then turn
    a, b = cos * scale[0], (cos * lean + sin) * scale[1]
    c, d = -sin * scale[0], (cos - sin * lean) * scale[1]
    middle_x, middle_y = (w - 1) / 2, (h - 1) / 2
    x = pen[0] + (glyph.x + middle_x) * scale[0]
    y = pen[1] + (glyph.y + middle_y) * scale[1]
    reach_x, reach_y = abs(a) * middle_x + abs(b) * middle_y, abs(c) * middle_x + abs(d) * middle_y
    if bend:  # room for the corners that move outwards
        room = 1 + 2 * max(map(abs, bend))
        reach_x, reach_y = room * reach_x, room * reach_y
    x0, y0 = max(math.floor(x - reach_x), 0), max(math.floor(y - reach_y), 0)
    x1 = min(math.ceil(x + reach_x) + 1, canvas.shape[1])
    y1 = min(math.ceil(y + reach_y) + 1, canvas.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    matrix = np.array(
        [[a, b, x - x0 - a * middle_x - b * middle_y], [c, d, y - y0 - c * middle_x - d * middle_y]], np.float64
    )
    if bend:
        corners = np.float32([(0, 0), (w, 0), (w, h), (0, h)])
        moved = corners + np.float32(bend).reshape(4, 2) * np.float32((w, h))
        whole = np.vstack([matrix, (0, 0, 1)]) @ cv2.getPerspectiveTransform(corners, np.float32(moved))
        mask = cv2.warpPerspective(glyph.mask, whole, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    else:
        mask = cv2.warpAffine(glyph.mask, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    if not antialias:
        mask = np.where(mask > 100, np.uint8(255), np.uint8(0))
    if opacity < 1:
        mask = cv2.convertScaleAbs(mask, alpha=opacity)
    _blend(canvas[y0:y1, x0:x1], mask, colour)


def _blend(region: np.ndarray, mask: np.ndarray, colour: Sequence[float]) -> None:
    """Lay a colour over (h, w, channels) uint8, in place, as far as `mask`, (h, w) uint8, says.

    OpenCV's saturating arithmetic takes half the time of NumPy's here, and most of drawing is this.
    """
    channels = region.shape[2]
    weight = mask if channels == 1 else cv2.merge([mask] * channels)
    under = region[..., 0] if channels == 1 else region
    # OpenCV takes four numbers for a second picture where the first has four rows and one column.
    colour = (colour[0],) * 4 if channels == 1 else (*colour, 0.0)[:4]
    kept = cv2.multiply(under, cv2.bitwise_not(weight), scale=1 / 255)
    cv2.add(kept, cv2.multiply(weight, colour, scale=1 / 255, dtype=cv2.CV_8U), dst=under)


def draw_spots(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    """Draw `style.spots` dots of random place and radius, in up to six colours, into the canvas, in place.

    Raises:
        ValueError: the style names a kind that does not exist.
    """
    height, width, channels = canvas.shape
    count = round(rng.uniform(*style.spots))
    colours = [_line_colour(rng, style, channels) for _ in range(min(count, 6))]
    for i in range(count):
        centre = (int(rng.random() * width), int(rng.random() * height))
        radius = round(rng.uniform(*style.spot_radius))
        kind = rng.choice(style.spot_kinds) if len(style.spot_kinds) > 1 else style.spot_kinds[0]
        if kind in ("disc", "ring"):
            cv2.circle(canvas, centre, radius, colours[i % 6], -1 if kind == "disc" else 1)
            continue
        if kind not in ("square", "dash"):
            raise ValueError(f"unknown kind of spot {kind!r}")
        size = (2 * radius, 2 * radius) if kind == "square" else (8 * radius, 1)
        corners = cv2.boxPoints((centre, size, rng.uniform(0, 180)))
        cv2.fillConvexPoly(canvas, corners.round().astype(np.int32), colours[i % 6])


def draw_lines(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    """Draw `style.lines` lines of random kind, place and colour into the canvas, in place.

    Raises:
        ValueError: the style names a kind that does not exist.
    """
    height, width, channels = canvas.shape
    for i in range(round(rng.uniform(*style.lines))):
        kind = rng.choice(style.line_kinds)
        colour = _line_colour(rng, style, channels)
        thickness = max(1, round(rng.uniform(*style.line_width)))
        if kind == "taper":
            _draw_tapered(canvas, rng, colour, short=i % 2 == 0)
            continue
        if kind == "straight":
            points = [(rng.random() * width, rng.random() * height) for _ in range(2)]
        elif kind == "arc":
            ends = (-0.05 * width, 0.3 * width, 0.7 * width, 1.05 * width)
            points = _bezier([(x, (rng.random() * 1.2 - 0.1) * height) for x in ends], 16)
        elif kind == "wave":
            level, swing = rng.uniform(0.3, 0.7) * height, rng.uniform(0.05, 0.25) * height
            turns, phase = rng.uniform(0.5, 2.5) * 2 * math.pi, rng.random() * 2 * math.pi
            points = [(t / 32 * width, level + swing * math.sin(turns * t / 32 + phase)) for t in range(33)]
        elif kind == "rings":
            _draw_rings(canvas, rng, colour, thickness, cv2.LINE_AA if style.antialias else 8)
            continue
        elif kind == "loop":
            centre = (int(rng.random() * width), int(rng.random() * height))
            axes = (round(rng.uniform(0.1, 0.5) * height), round(rng.uniform(0.1, 0.5) * height))
            cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, colour, thickness, cv2.LINE_AA)
            continue
        elif kind == "kinked":
            _draw_kinked(canvas, rng, colour, thickness, cv2.LINE_AA if style.antialias else 8)
            continue
        else:
            raise ValueError(f"unknown kind of line {kind!r}")
        # Four fractional bits: points between pixels, or slow curves would show steps.
        fixed = (np.array(points) * 16).round().astype(np.int32)
        cv2.polylines(canvas, [fixed], False, colour, thickness, cv2.LINE_AA if style.antialias else 8, shift=4)


def _draw_strokes(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    """Curves about as large as letters, anywhere; every other one grows thinner from piece to piece."""
    height, width, channels = canvas.shape
    line_type = cv2.LINE_AA if style.antialias else 8
    for _ in range(round(rng.uniform(*style.strokes))):
        colour = _line_colour(rng, style, channels)
        thickness = rng.uniform(0.02, 0.08) * height
        thinner = rng.choice((0.0, 1.0)) * rng.uniform(0.1, 0.5) * thickness
        centre = (rng.random() * width, rng.random() * height)
        points = _scrawl(rng, centre, (rng.uniform(0.2, 1) * height, 0.6 * height))
        _draw_pieces(canvas, points, colour, thickness, thinner, line_type)


def _draw_hooks(canvas: np.ndarray, rng: random.Random, style: Style, word: tuple[float, ...]) -> None:
    """Curves through the ends of the word (left, top, right, bottom), in the letters' colour."""
    left, top, right, bottom = word
    size = bottom - top
    line_type = cv2.LINE_AA if style.antialias else 8
    for _ in range(round(rng.uniform(*style.hooks))):
        colour = _text_colour(rng, style, canvas.shape[2])
        thickness = rng.uniform(0.04, 0.16) * size
        thinner = rng.choice((0.0, 1.0)) * rng.uniform(0.1, 0.5) * thickness
        x = rng.choice((left, left, right)) + rng.uniform(-0.3, 0.3) * size
        points = _scrawl(rng, (x, rng.uniform(top, bottom)), (rng.uniform(0.2, 1) * size, rng.uniform(0.6, 1.6) * size))
        _draw_pieces(canvas, points, colour, thickness, thinner, line_type)


def _scrawl(rng: random.Random, centre: Point, size: tuple[float, float]) -> list[tuple[int, int]]:
    """A curve of few or many pieces around `centre`, within `size` (across, down)."""
    (x, y), (across, down) = centre, size
    control = [(x + rng.uniform(-0.5, 0.5) * across, y + rng.uniform(-0.5, 0.5) * down) for _ in range(4)]
    return np.round(_bezier(control, rng.choice((1, 3, 4, 12)))).astype(int).tolist()


def _draw_lattice(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    """Lines along both axes, in one colour."""
    height, width, channels = canvas.shape
    colour = style.ink or _colour(rng, style.shape_level, style.line_tint, channels)
    thickness = max(1, round(rng.uniform(*style.line_width)))
    for size, end in ((width, lambda at: ((at, 0), (at, height))), (height, lambda at: ((0, at), (width, at)))):
        pitch = max(3.0, rng.uniform(*style.grid))
        for k in range(math.ceil(size / pitch)):
            cv2.line(canvas, *end(round((k + 0.5) * pitch)), colour, thickness)


def _draw_shape(canvas: np.ndarray, rng: random.Random, colour: Sequence[float], thickness: int) -> None:
    """A rectangle, an ellipse or a polygon of random place and size; a thickness of -1 fills it."""
    height, width, _ = canvas.shape
    x, y = rng.random() * width, rng.random() * height
    across, down = rng.uniform(0.05, 0.3) * width, rng.uniform(0.1, 0.5) * height
    kind = rng.randrange(3)
    if kind == 0:
        cv2.rectangle(canvas, (int(x - across), int(y - down)), (int(x + across), int(y + down)), colour, thickness)
    elif kind == 1:
        size = (max(1, int(across)), max(1, int(down)))
        cv2.ellipse(canvas, (int(x), int(y)), size, rng.uniform(0, 180), 0, 360, colour, thickness, cv2.LINE_AA)
    else:
        corners = [(x + rng.uniform(-across, across), y + rng.uniform(-down, down)) for _ in range(rng.randint(3, 6))]
        points = np.array(corners).round().astype(np.int32)
        if thickness < 0:
            cv2.fillPoly(canvas, [points], colour)
        else:
            cv2.polylines(canvas, [points], True, colour, thickness)


def _draw_shapes(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    for _ in range(round(rng.uniform(*style.shapes))):
        colour = _colour(rng, style.shape_level, style.line_tint, canvas.shape[2])
        thickness = -1 if rng.random() < 0.4 else max(1, round(rng.uniform(*style.line_width)))
        _draw_shape(canvas, rng, colour, thickness)


def _draw_decoys(canvas: np.ndarray, rng: random.Random, style: Style, word: _Word) -> None:
    """Small copies of the word's own letters, anywhere."""
    height, width, channels = canvas.shape
    for _ in range(round(rng.uniform(*style.decoys))):
        glyph = rng.choice(word.glyphs)
        scale = word.scale * rng.uniform(*style.decoy_size)
        colour = _colour(rng, style.shape_level, style.line_tint, channels)
        place = (rng.random() * width, rng.random() * height)
        _draw_glyph(canvas, glyph, place, (scale, scale), rng.uniform(-1, 1), 0.0, colour, style.antialias)


def _cut_away(canvas: np.ndarray, below: np.ndarray, rng: random.Random, style: Style) -> None:
    """Show what is `below` along some lines."""
    mask = np.zeros((*canvas.shape[:2], 1), np.uint8)
    draw_lines(mask, rng, replace(style, lines=style.cuts, ink=(255,)))
    np.copyto(canvas, below, where=mask > 100)


def _invert_shapes(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    height, width, _ = canvas.shape
    turned = _turned(canvas, style)
    for _ in range(round(rng.uniform(*style.negatives))):
        mask = np.zeros((height, width, 1), np.uint8)
        _draw_shape(mask, rng, (255,), -1)
        now = canvas[..., :3].copy()
        np.copyto(canvas[..., :3], turned, where=mask > 0)
        np.copyto(turned, now, where=mask > 0)  # where two shapes overlap, all is as it was


def _invert_checks(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    height, width, _ = canvas.shape
    side = max(2, round(rng.uniform(*style.checks)))
    rows, columns = np.arange(height) // side, np.arange(width) // side
    other = (rows[:, None] + columns) % 2 == 1
    np.copyto(canvas[..., :3], _turned(canvas, style), where=other[..., None])


def _turned(canvas: np.ndarray, style: Style) -> np.ndarray:
    """(height, width, 1 or 3): the canvas inverted, as `Style.own_levels` says."""
    colours = canvas[..., :3]
    if not style.own_levels or canvas.shape[2] == 4:  # a clear ground has no colour of its own
        return 255 - colours
    return colours.min(axis=(0, 1)) + (colours.max(axis=(0, 1)) - colours)


def _bezier(control: Sequence[Point], steps: int) -> list[Point]:
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = control
    points = []
    for i in range(steps + 1):
        t = i / steps
        s = 1 - t
        a, b, c, d = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
        points.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return points


def _draw_kinked(
    canvas: np.ndarray, rng: random.Random, colour: Sequence[float], thickness: int, line_type: int
) -> None:
    """Two to five straight pieces from left to right; in every other line, each is thinner than the one before."""
    height, width, _ = canvas.shape
    pieces = rng.randint(2, 5)
    start, end = rng.uniform(0, 0.3), rng.uniform(0.6, 1)
    places = [start + (end - start) * (i + rng.uniform(-0.5, 0.5)) / pieces for i in range(pieces + 1)]
    points = [(round(place * width), round(rng.random() * height)) for place in places]
    _draw_pieces(canvas, points, colour, thickness, rng.choice((0, 1)), line_type)


def _draw_pieces(
    canvas: np.ndarray,
    points: Sequence[tuple[int, int]],
    colour: Sequence[float],
    thickness: float,
    thinner: float,
    line_type: int,
) -> None:
    """Straight pieces from point to point, each by `thinner` pixels thinner than the one before, one at least."""
    for i, (a, b) in enumerate(pairwise(points)):
        cv2.line(canvas, a, b, colour, max(1, round(thickness - i * thinner)), line_type)


def _draw_rings(canvas: np.ndarray, rng: random.Random, colour: Sequence[float], thickness: int, kind: int) -> None:
    """Ellipses around a point, evenly apart, over all of the picture."""
    height, width, _ = canvas.shape
    centre = (int(rng.random() * width), int(rng.random() * height))
    apart, round_by = max(3.0, rng.uniform(0.1, 0.35) * height), rng.uniform(0.4, 1.0)
    for i in range(1, int(width / apart) + 1):
        axes = (round(i * apart), round(i * apart * round_by))
        cv2.ellipse(canvas, centre, axes, 0, 0, 360, colour, thickness, kind)


def _draw_tapered(canvas: np.ndarray, rng: random.Random, colour: Sequence[float], short: bool) -> None:
    """A curve in few straight pieces of falling width: the noise lines of the Kaptcha library, which come in pairs."""
    height, width, _ = canvas.shape
    places = (0.1, 0.1, 0.25, 0.25) if short else (0.1, 0.25, 0.5, 0.9)
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
        cv2.fillConvexPoly(canvas, fixed, colour, cv2.LINE_AA, shift=4)


def _flatten(control: Sequence[Point], tolerance: float, depth: int = 10) -> list[Point]:
    """Halve a cubic curve until each piece is within `tolerance` pixels of a straight line."""
    p0, p1, p2, p3 = control
    if depth == 0 or max(_segment_distance(p1, p0, p3), _segment_distance(p2, p0, p3)) <= tolerance:
        return [p0, p3]
    p01, p12, p23 = _between(p0, p1), _between(p1, p2), _between(p2, p3)
    p012, p123 = _between(p01, p12), _between(p12, p23)
    middle = _between(p012, p123)
    first = _flatten((p0, p01, p012, middle), tolerance, depth - 1)
    return first[:-1] + _flatten((middle, p123, p23, p3), tolerance, depth - 1)


def _between(a: Point, b: Point) -> Point:
    return (a[0] + b[0]) / 2, (a[1] + b[1]) / 2


def _segment_distance(p: Point, a: Point, b: Point) -> float:
    dx, dy = b[0] - a[0], b[1] - a[1]
    square = dx * dx + dy * dy
    t = min(max(((p[0] - a[0]) * dx + (p[1] - a[1]) * dy) / square, 0.0), 1.0) if square else 0.0
    return math.hypot(p[0] - a[0] - t * dx, p[1] - a[1] - t * dy)


def elastic_transform(image: np.ndarray, rng: random.Random, amplitude: float = 2.0, cell: float = 24) -> np.ndarray:
    """Shift every pixel by a smooth random displacement.

    Args:
        image: (height, width) or (height, width, channels) uint8.
        amplitude: largest shift in pixels along each axis.
        cell: pixels between the independent points of the displacement; smaller is rougher.

    Returns:
        A new array of the same shape.
    """
    return _displace(image, _elastic_field(*image.shape[:2], rng, amplitude, cell))


def _elastic_field(height: int, width: int, rng: random.Random, amplitude: float, cell: float) -> np.ndarray:
    """(height, width, 2) float32: how far right and down of a pixel its value is fetched."""
    rows, columns = math.ceil(height / cell) + 2, math.ceil(width / cell) + 2
    coarse = np.frombuffer(rng.randbytes(rows * columns * 2), np.uint8).reshape(rows, columns, 2).astype(np.float32)
    return cv2.resize((coarse - 127.5) * (amplitude / 127.5), (width, height), interpolation=cv2.INTER_CUBIC)


def _wave_field(height: int, width: int, rng: random.Random, amplitude: float, wavelength: Range) -> np.ndarray:
    field = np.empty((height, width, 2), np.float32)
    for axis, along in ((0, np.arange(height, dtype=np.float32)[:, None]), (1, np.arange(width, dtype=np.float32))):
        step = 2 * math.pi / rng.uniform(*wavelength)
        field[..., axis] = amplitude * np.sin(along * step + rng.random() * 2 * math.pi)
    return field


def _ripple_field(height: int, width: int, rng: random.Random, amplitude: float, length: float) -> np.ndarray:
    x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
    from_centre = _pixel_grid(height, width) - np.float32([x, y])
    distance = np.maximum(cv2.magnitude(from_centre[..., 0], from_centre[..., 1]), 1)
    shift = amplitude * np.sin(distance * np.float32(2 * math.pi / length) + np.float32(rng.random() * 2 * math.pi))
    return from_centre * (shift / distance)[..., None]


def _bend_field(height: int, width: int, arc: float, swirl: float, pinch: float) -> np.ndarray:
    """Displacement of an arc (part of the height), a swirl (degrees) and a pinch, around the picture's middle."""
    grid = _pixel_grid(height, width)
    x, y = grid[..., 0] - width / 2, grid[..., 1] - height / 2
    across, down = x * (2 / width), y * (2 / height)  # -1 to 1
    field = np.zeros((height, width, 2), np.float32)
    if arc:
        field[..., 1] += arc * height * (across * across - 0.5)
    if swirl or pinch:
        near = np.clip(1 - (across * across + down * down) * 0.5, 0, 1)  # 1 in the middle, 0 in the corners
        if swirl:
            across, down = _turning(x, y, np.float32(math.radians(swirl)) * near * near)
            field[..., 0] += across
            field[..., 1] += down
        if pinch:
            amount = pinch * near
            field[..., 0] += x * amount
            field[..., 1] += y * amount
    return field


def _turning(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far points move, right and down, that are turned around (0, 0), each by its angle in radians."""
    cos, sin = np.cos(angle) - 1, np.sin(angle)
    return x * cos - y * sin, x * sin + y * cos


def _fan_field(height: int, width: int, degrees: float) -> np.ndarray:
    """Displacement that lays the picture's middle line along an arc of so many degrees; below zero, it hangs."""
    grid = _pixel_grid(height, width)
    radius = width / math.radians(abs(degrees))
    sag = 0.5 * radius * (1 - math.cos(math.radians(degrees) / 2))  # half of the arc's height is above the middle
    up = height / 2 - grid[..., 1] if degrees > 0 else grid[..., 1] - height / 2
    right, up = grid[..., 0] - width / 2, up + radius - sag
    away = np.hypot(right, up) - radius
    sideways = radius * np.arctan2(right, up) - right
    down = height / 2 + (-away if degrees > 0 else away) - grid[..., 1]
    return np.stack([sideways, down], axis=2)


def _torn_field(height: int, width: int, rng: random.Random, most: float) -> np.ndarray:
    """Displacement of strips, standing or lying, along themselves."""
    field = np.zeros((height, width, 2), np.float32)
    standing = rng.random() < 0.6
    count = rng.randint(3, 10 if standing else 5)
    side = width if standing else height
    places = np.arange(side) * count // side
    moves = np.float32([rng.uniform(-most, most) for _ in range(count)])[places]
    if standing:
        field[..., 1] = moves
    else:
        field[..., 0] = moves[:, None]
    return field


def _lens_field(height: int, width: int, rng: random.Random) -> np.ndarray:
    """Displacement within a disc anywhere: what it shows is larger, smaller, or turned like a whirl."""
    x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.2, 0.8) * height
    radius = rng.uniform(0.3, 0.8) * height
    whirls = rng.random() < 0.5
    amount = rng.choice((-1, 1)) * rng.uniform(0.4, 1.3) if whirls else rng.uniform(-0.5, 0.6)
    from_centre = _pixel_grid(height, width) - np.float32([x, y])
    near = np.clip(1 - np.hypot(from_centre[..., 0], from_centre[..., 1]) / radius, 0, 1)
    if not whirls:
        return from_centre * (amount * near)[..., None]
    return np.stack(_turning(from_centre[..., 0], from_centre[..., 1], amount * near), axis=2)


def _lay_askew(image: np.ndarray, rng: random.Random, tilt: float, perspective: float) -> np.ndarray:
    """Turn the picture by up to `tilt` degrees and move its corners by up to the part `perspective` of its sides."""
    height, width, _ = image.shape
    angle = math.radians(rng.uniform(-tilt, tilt))
    corners = np.float32([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (width / 2, height / 2)
    turned = corners @ np.float32([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    moved = turned + np.float32([(rng.uniform(-1, 1), rng.uniform(-1, 1)) for _ in range(4)]) * (
        perspective * width / 2,
        perspective * height,
    )
    middle = (width / 2, height / 2)
    matrix = cv2.getPerspectiveTransform(np.float32(corners + middle), np.float32(moved + middle))
    return cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE).reshape(image.shape)


def _pixel_grid(height: int, width: int) -> np.ndarray:
    """(height, width, 2) float32: x and y of every pixel, a view of one cached array."""
    return _pixel_grid_of(-(-height // 128) * 128, -(-width // 512) * 512)[:height, :width]


@lru_cache(maxsize=8)
def _pixel_grid_of(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return np.stack([x, y], axis=2)


def _displace(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    maps = field + _pixel_grid(*image.shape[:2])
    return cv2.remap(image, maps, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).reshape(image.shape)


@lru_cache(maxsize=8)
def _water_fields(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The two displacements of the Kaptcha library's default: rings around the centre, then sine waves."""
    grid = _pixel_grid(height, width)
    from_centre = grid - np.float32([width // 2, height // 2])
    distance = np.hypot(from_centre[..., 0], from_centre[..., 1])
    radius = 50.0
    amount = 1.5 * np.sin(distance / 2 * 2 * np.pi - 10) * np.clip(1 - distance / radius, 0, None)
    rings = from_centre * (amount * 2 / np.maximum(distance, 1))[..., None]
    waves = np.stack([2.6 * np.sin(grid[..., 1] / 15), 1.7 * np.sin(grid[..., 0] / 5)], axis=2)
    return rings.astype(np.float32), waves.astype(np.float32)


def _add_noise(image: np.ndarray, rng: random.Random, deviation: float, salt: float) -> np.ndarray:
    height, width, channels = image.shape
    if deviation >= 0.5:
        # The sum of two uniform bytes is a triangle, near enough to a bell, of standard deviation 104.5.
        raw = np.frombuffer(rng.randbytes(2 * image.size), np.uint8).reshape(2, height, width, channels)
        bell = cv2.add(raw[0], raw[1], dtype=cv2.CV_16S).reshape(image.shape) - np.int16(255)
        image = cv2.addWeighted(image, 1, bell, deviation / 104.5, 0, dtype=cv2.CV_8U).reshape(image.shape)
    count = round(salt * height * width)
    if count:
        places = np.frombuffer(rng.randbytes(4 * count), np.uint32)
        flat = image.reshape(-1, channels)
        flat[places % (height * width)] = np.where(places >> 31, np.uint8(255), np.uint8(0))[:, None]
    return image


def draw_captcha(text: str, style: Style, rng: random.Random, fonts: Fonts) -> np.ndarray:
    """All steps of a style, one after the other.

    Returns:
        (height, width, channels) uint8 with 1 (grey), 3 (RGB) or 4 (RGBA) channels.
    """
    height = round(rng.uniform(*style.height))
    word = _layout(text, rng, style, fonts, height)
    width = math.ceil(word.width + 2 * style.margin) if style.width is None else round(rng.uniform(*style.width))
    if style.one_ink and rng.random() < style.one_ink:
        style = replace(style, ink=_text_colour(rng, style, CHANNELS[style.mode]))
    canvas = _draw_background(rng, style, height, width)
    if style.shapes[1]:
        _draw_shapes(canvas, rng, style)
    if style.decoys[1]:
        _draw_decoys(canvas, rng, style, word)
    draw_spots(canvas, rng, style)
    lines_above = rng.random() < style.lines_above
    if not lines_above:
        _draw_line_clutter(canvas, rng, style)
    below = canvas.copy() if style.cuts[1] else canvas
    place = _place_letters(canvas, word, rng, style)
    if style.hooks[1]:
        _draw_hooks(canvas, rng, style, place)
    if style.cuts[1]:
        _cut_away(canvas, below, rng, style)
    if style.water:
        for field in _water_fields(height, width):
            canvas = _displace(canvas, field)
    fields = []
    if style.elastic[1]:
        fields.append(_elastic_field(height, width, rng, rng.uniform(*style.elastic), style.elastic_cell))
    if style.wave[1]:
        fields.append(_wave_field(height, width, rng, rng.uniform(*style.wave), style.wave_length))
    if style.ripple[1]:
        length = max(2.0, rng.uniform(*style.ripple_length))
        fields.append(_ripple_field(height, width, rng, rng.uniform(*style.ripple), length))
    bend = [rng.uniform(*span) if any(span) else 0.0 for span in (style.arc, style.swirl, style.pinch)]
    if any(bend):
        fields.append(_bend_field(height, width, *bend))
    if style.torn[1]:
        fields.append(_torn_field(height, width, rng, rng.uniform(*style.torn)))
    if style.fan[1]:
        fields.append(_fan_field(height, width, rng.choice((-1, 1)) * rng.uniform(*style.fan)))
    if style.lenses[1]:
        fields += [_lens_field(height, width, rng) for _ in range(round(rng.uniform(*style.lenses)))]
    if fields:
        canvas = _displace(canvas, sum(fields[1:], fields[0]))
    if style.tilt or style.perspective:
        canvas = _lay_askew(canvas, rng, style.tilt, style.perspective)
    if lines_above:
        _draw_line_clutter(canvas, rng, style)
    if style.negatives[1]:
        _invert_shapes(canvas, rng, style)
    if style.checks[1]:
        _invert_checks(canvas, rng, style)
    if style.frame[1]:
        _draw_frame(canvas, rng, style)
    return _finish(canvas, rng, style)


def _draw_line_clutter(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    draw_lines(canvas, rng, style)
    if style.strokes[1]:
        _draw_strokes(canvas, rng, style)
    if style.grid[1]:
        _draw_lattice(canvas, rng, style)


def _draw_frame(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    height, width, channels = canvas.shape
    thickness = round(rng.uniform(*style.frame))
    colour = _line_colour(rng, style, channels)
    for i in range(thickness):
        cv2.rectangle(canvas, (i, i), (width - 1 - i, height - 1 - i), colour, 1)


def _finish(canvas: np.ndarray, rng: random.Random, style: Style) -> np.ndarray:
    shape = canvas.shape
    if shape[2] == 4:  # undo the premultiplication: colours as PNG stores them
        alpha = canvas[..., 3]
        partial_cover = (alpha > 0) & (alpha < 255)
        pixels = canvas[partial_cover].astype(np.float32)
        canvas[partial_cover, :3] = np.minimum(pixels[:, :3] * 255 / pixels[:, 3:], 255)
    else:
        if style.relief:
            canvas = _relief(canvas, style.relief)
        if rng.random() < style.invert:
            canvas = 255 - canvas
        if style.fringe[1] and shape[2] == 3:
            canvas = _displace_channels(canvas, rng, style.fringe)
        if style.stipple[1]:
            canvas = _stippled(canvas, rng, style)
        if style.dither:
            canvas = _dithered(canvas, rng, style.dither, style.dither_cell)
    blur = rng.uniform(*style.blur)
    if blur > 0.25:  # less moves no brightness level
        canvas = cv2.GaussianBlur(canvas, (0, 0), blur).reshape(shape)
    if style.noise[1] or style.salt[1]:
        canvas = _add_noise(canvas, rng, rng.uniform(*style.noise), rng.uniform(*style.salt))
    if style.shrink[1] > 1:
        factor = rng.uniform(*style.shrink)
        small = (max(8, round(shape[1] / factor)), max(8, round(shape[0] / factor)))
        coarse = cv2.resize(canvas, small, interpolation=cv2.INTER_AREA)
        kind = rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_NEAREST))
        canvas = cv2.resize(coarse, (shape[1], shape[0]), interpolation=kind).reshape(shape)
    if style.levels and shape[2] != 4:
        coarse = cv2.LUT(canvas, _level_table(style.levels)).reshape(shape)
        if coarse.min() < coarse.max():  # else letters as pale as a relief's are gone, for all their label says
            canvas = coarse
    if style.enlarge[1] > 1:
        times = rng.randint(*style.enlarge)
        canvas = canvas.repeat(times, axis=0).repeat(times, axis=1)
        if style.cells and times > 2 and shape[2] != 4:
            canvas = _in_cells(canvas, rng, times, style.cells)
    if style.jpeg and shape[2] != 4:
        _, packed = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, rng.randint(*style.jpeg)])
        canvas = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED).reshape(canvas.shape)
    return canvas


def _displace_channels(canvas: np.ndarray, rng: random.Random, most: Range) -> np.ndarray:
    """Red and blue move by so many pixels each; edges go on as they are."""
    for channel in (0, 2):
        moved = rng.uniform(*most)
        turn = rng.uniform(0, 2 * math.pi)
        matrix = np.array([[1, 0, moved * math.cos(turn)], [0, 1, moved * math.sin(turn)]])
        size = (canvas.shape[1], canvas.shape[0])
        plane = np.ascontiguousarray(canvas[..., channel])
        canvas[..., channel] = cv2.warpAffine(plane, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    return canvas


def _stippled(canvas: np.ndarray, rng: random.Random, style: Style) -> np.ndarray:
    """The picture in dots of about one size, in the colours of their middles, or in letters' colours alone."""
    height, width, _ = canvas.shape
    radius = max(1.0, rng.uniform(*style.stipple))
    step = rng.uniform(1.7, 2.4) * radius
    drawn = np.random.default_rng(rng.getrandbits(64))
    y, x = np.mgrid[min(step, height) / 2 : height : step, min(step, width) / 2 : width : step].reshape(2, -1)
    x = np.clip(x + drawn.uniform(-0.35, 0.35, x.size) * step, 0, width - 1)
    y = np.clip(y + drawn.uniform(-0.35, 0.35, y.size) * step, 0, height - 1)
    colours = canvas[y.astype(int), x.astype(int)].astype(np.float32)
    ground = np.median(colours, axis=0)
    if style.stray_dots:
        ink = np.abs(colours - ground).max(axis=1) > 40
        stray = ~ink & (drawn.random(x.size) < style.stray_dots)
        if ink.any():
            colours[stray] = colours[drawn.choice(np.flatnonzero(ink), stray.sum())]
        x, y, colours = (part[ink | stray] for part in (x, y, colours))
        paper = np.broadcast_to(ground, canvas.shape).astype(np.uint8)
    else:
        colours += drawn.normal(0, rng.uniform(0, 25), (x.size, 1))
        paper = np.full_like(canvas, rng.choice((255, 240, 255, 20)))
    dots = np.ascontiguousarray(paper)
    sizes = radius * drawn.uniform(0.6, 1.1, x.size)
    places = np.round(np.stack([x, y, sizes]) * 16).astype(int).T.tolist()  # four fractional bits
    for (across, down, size), colour in zip(places, np.clip(colours, 0, 255).tolist(), strict=True):
        cv2.circle(dots, (across, down), size, colour, -1, cv2.LINE_AA, 4)
    return dots


def _dithered(canvas: np.ndarray, rng: random.Random, kind: Dither, cell: int) -> np.ndarray:
    """The two levels are the darkest and the lightest of each channel."""
    height, width, channels = canvas.shape
    rows, columns = -(-height // cell), -(-width // cell)
    if kind == "random":
        drawn = np.random.default_rng(rng.getrandbits(64)).random((rows, columns), np.float32)
    else:
        drawn = np.tile(_BAYER, (rows // 4 + 1, columns // 4 + 1))[:rows, :columns]
    limit = drawn.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width, None]
    low, high = canvas.min(axis=(0, 1)), canvas.max(axis=(0, 1))
    # From the sixth to five sixths, or letters that are the darkest of all would stay solid.
    part = (canvas - low.astype(np.float32)) / np.maximum(high.astype(np.float32) - low, 1) * (2 / 3) + 1 / 6
    return np.where(part > limit, high, low).reshape(height, width, channels)


_BAYER = (np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]], np.float32) + 0.5) / 16

_EMBOSS = np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32)


def _relief(canvas: np.ndarray, kind: Relief) -> np.ndarray:
    """Edges of a picture (h, w, channels) uint8: as shades of grey around 128, or dark on white."""
    if kind == "emboss":
        return cv2.filter2D(canvas, cv2.CV_8U, _EMBOSS * 0.5, delta=128).reshape(canvas.shape)
    edges = cv2.morphologyEx(canvas, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return (255 - edges).reshape(canvas.shape)


def _in_cells(canvas: np.ndarray, rng: random.Random, side: int, kind: Cells) -> np.ndarray:
    """Enlarged pixels apart from each other, on a ground as theirs, or darker or lighter."""
    behind = np.median(canvas, axis=(0, 1)) * rng.choice((1, 0.5, 0.8, 1.2))
    cell = np.zeros((side, side), np.float32)
    if kind == "disc":
        middle = (side - 1) / 2
        y, x = np.mgrid[:side, :side]
        cell[:] = np.clip(side / 2 - np.hypot(x - middle, y - middle) + 0.3, 0, 1)
    else:
        cell[:-1, :-1] = 1
    cover = np.tile(cell, (canvas.shape[0] // side, canvas.shape[1] // side))[..., None]
    return np.clip(behind + (canvas - behind) * cover, 0, 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _level_table(levels: int) -> np.ndarray:
    return np.round(np.round(np.arange(256) / 255 * (levels - 1)) * (255 / (levels - 1))).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# One captcha


def _draw_indexed(index: int, settings: CaptchaSettings, text: str | None = None) -> tuple[np.ndarray, str]:
    _single_threaded()
    # A string seeds through SHA-512, the same on every machine; hash() would differ from process to process.
    rng = random.Random(f"{settings.seed}/{index}")
    style = get_style(settings.styles[index % len(settings.styles)], rng)
    drawn = generate_random_string(*_text_space(style, settings), rng)
    fonts = find_fonts(settings.alphabet if text is None else _distinct(text), settings.fonts)
    text = drawn if text is None else text
    return draw_captcha(text, style, rng, fonts), text


def _text_space(style: Style, settings: CaptchaSettings) -> tuple[str, tuple[int, int]]:
    """The characters and the lengths that both the style and the settings allow; the settings' where none is left."""
    alphabet, (low, high) = settings.alphabet, settings.length
    if style.characters:
        alphabet = "".join(c for c in alphabet if c in style.characters) or alphabet
    if style.length is not None:
        low, high = (min(max(n, low), high) for n in style.length)
    return alphabet, (low, high)


@lru_cache(maxsize=1)
def _single_threaded() -> None:
    """OpenCV's own threads only cost time on pictures this small, and would fight with the other workers."""
    cv2.setNumThreads(1)


def render_captcha(index: int, settings: CaptchaSettings) -> tuple[bytes, str]:
    """Captcha `index` of the settings, as training takes it: no files, no state, safe in any process.

    Args:
        index: 0, 1, 2, ...; the same index gives the same bytes.

    Returns:
        (PNG file, text).

    Raises:
        UserError: unknown style, or a character that no font can draw.
    """
    canvas, text = _draw_indexed(index, settings)
    return encode_png(canvas), text


def generate_captcha(
    text: str | None = None,
    style: str | Style = "classic",
    seed: int = 0,
    index: int = 0,
    alphabet: str = ALPHANUMERIC,
    length: str | tuple[int, int] = (4, 8),
    fonts: str | None = None,
) -> tuple[Image.Image, str]:
    """Draw one captcha.

    Args:
        text: what it says; by default a random string of `alphabet` and `length`.
        style: a name of `STYLES`, "mixed", or a `Style`.
        seed, index: picture `index` of `seed` is always the same.
        alphabet: characters to draw from, ranges allowed (`0-9a-z`).
        length: (fewest, most) characters or "4-8".
        fonts: folder of fonts to use beside matplotlib's.

    Returns:
        (picture of mode L, RGB or RGBA, text).

    Raises:
        UserError: unknown style, bad alphabet or length, empty text, or a character that no font can draw.
    """
    if text is not None and not 1 <= len(text) <= MAX_LENGTH:
        raise UserError(f"the text {text!r} has {len(text)} characters: give 1 to {MAX_LENGTH}")
    get_style(style)
    span = parse_length(length if isinstance(length, str) else "{}-{}".format(*length))
    settings = CaptchaSettings((style,), Alphabet.parse(alphabet).characters, span, seed, fonts)
    canvas, text = _draw_indexed(index, settings, text)
    return Image.fromarray(canvas[..., 0] if canvas.shape[2] == 1 else canvas), text


def encode_png(canvas: np.ndarray) -> bytes:
    """(height, width, 1, 3 or 4) uint8 -> PNG file, packed fast rather than small."""
    order = {1: None, 3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}[canvas.shape[2]]
    picture = canvas if order is None else cv2.cvtColor(canvas, order)
    # Measured at 160x60: 0.18 ms and 11 kB; Pillow's compress_level=1 takes 0.5 ms for 10 kB.
    options = (cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
    options += (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)
    return cv2.imencode(".png", picture, options)[1].tobytes()


def save_grid_image(images: Sequence[Image.Image], path: str | Path, columns: int = 10, gap: int = 4) -> Path:
    """Put pictures side by side, row after row, on white.

    Args:
        images: at least one; each stands in the middle of a cell as large as the largest picture. Pictures larger than
            `LARGEST_CELL` are scaled down to it.
        path: the file to write, atomically; its suffix decides the format.
        columns: pictures per row.
        gap: pixels between and around the cells.

    Returns:
        `path`. The picture is columns * (cell width + gap) + gap wide (fewer columns if there are fewer pictures) and
        rows * (cell height + gap) + gap high.

    Raises:
        UserError: no picture, or the file cannot be written.
    """
    if not images:
        raise UserError("there is no picture to put into the grid: give at least one")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    images = [_shrunk(image) for image in images]
    width, height = max(i.width for i in images), max(i.height for i in images)
    grid = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for k, image in enumerate(images):
        x = gap + k % columns * (width + gap) + (width - image.width) // 2
        y = gap + k // columns * (height + gap) + (height - image.height) // 2
        grid.paste(image, (x, y), image)
    try:
        return write_atomically(path, grid.save)
    except (OSError, ValueError) as error:
        raise UserError(f"the grid {path} cannot be written ({error}): choose another --grid, ending in .png") from None


def _shrunk(image: Image.Image) -> Image.Image:
    """The picture with its transparency, no larger than `LARGEST_CELL`."""
    small = image.convert("RGBA")
    small.thumbnail(LARGEST_CELL, Image.Resampling.LANCZOS)
    return small


# ---------------------------------------------------------------------------------------------------------------------
# Many captchas


def iter_captchas(settings: CaptchaSettings, indices: Iterable[int], workers: int = 1) -> Iterator[tuple[bytes, str]]:
    """Captchas of the given indices, in their order, drawn by `workers` processes (1: by this one).

    Only a few chunks are under way at a time, so that memory does not grow with their number.

    Raises:
        UserError: as `render_captcha`, or a worker died.
    """
    if workers <= 1:
        for index in indices:
            yield render_captcha(index, settings)
        return
    source = iter(indices)
    # Spawned, not forked, processes behave the same on every system and inherit no threads or locks.
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    pending: deque[Future[list[tuple[bytes, str]]]] = deque()

    def submit_more() -> None:
        while len(pending) < 3 * workers and (chunk := list(islice(source, CHUNK))):
            pending.append(executor.submit(_render_chunk, chunk, settings))

    try:
        with _interrupts_ignored():  # starts the processes, which inherit it
            submit_more()
        while pending:
            yield from pending.popleft().result()
            submit_more()
    except BrokenProcessPool:
        raise UserError("a worker process died, maybe for lack of memory: run again with fewer --workers") from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C reaches the workers too; those still importing would each print a traceback."""
    if current_thread() is not main_thread():  # only the main thread may set signal handlers
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the workers in order; Windows inherits no handler
    _single_threaded()
    Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """A killed parent cannot stop its workers, and they would wait for work for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _render_chunk(indices: Sequence[int], settings: CaptchaSettings) -> list[tuple[bytes, str]]:
    return [render_captcha(index, settings) for index in indices]


def generate_captcha_data(config: GeneratorConfig) -> list[Path]:
    """Write `config.count` captchas as parquet shards `train-00000-of-00003.parquet`, ... into `config.out`.

    Each shard appears whole or not at all. Shards that an earlier run with the same settings finished are kept.

    Returns:
        The paths of all shards.

    Raises:
        UserError: bad settings, or `out` holds parquet files of other settings.
    """
    settings = CaptchaSettings.from_config(config)
    for name in ("count", "shard_size", "workers"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}: give 1 or more")
    find_fonts(settings.alphabet, settings.fonts)  # complain once and here, not in every worker
    if config.pictures and Path(config.pictures).exists() and any(Path(config.pictures).iterdir()):
        raise UserError(f"{config.pictures} holds files already: give --pictures an empty or a new folder")
    out = Path(config.out)
    stamp = _stamp(config, settings)
    paths = [_shard_path(config, i) for i in range(math.ceil(config.count / config.shard_size))]
    done = _finished_shards(out, stamp)
    if config.grid:
        first = range(min(config.count, 100))
        save_grid_image([Image.open(io.BytesIO(render_captcha(i, settings)[0])) for i in first], config.grid)
    todo = [i for i, path in enumerate(paths) if path.name not in done]
    try:
        _write_shards(config, settings, stamp, paths, todo)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error}): make room or choose another --out") from None
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(
            f"{len(missing)} of {len(paths)} shards were drawn elsewhere: give an --out that all machines share"
        )
    kept = f" ({len(paths) - len(todo)} of these shards were there already)" if len(todo) < len(paths) else ""
    print(f"{config.count} captchas in {len(paths)} shard(s) in {out}{kept}")
    if config.pictures:
        write_pictures(paths, Path(config.pictures))
        print(f"{config.count} picture files, and labels.csv, in {config.pictures}")
    return paths


def write_pictures(shards: Sequence[Path], folder: Path) -> None:
    """Write the captchas of shards as picture files into a folder, and their labels as its labels.csv."""
    import pyarrow.parquet as pq
    from tqdm import tqdm

    folder.mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    labels = csv.writer(table)
    labels.writerow(["filename", "label"])
    for shard in tqdm(shards, desc="writing files", unit="shard", leave=False):
        with pq.ParquetFile(shard) as file:
            for group in file.iter_batches(ROW_GROUP):
                for row in group.to_pylist():
                    (folder / row["image"]["path"]).write_bytes(row["image"]["bytes"])
                    labels.writerow([row["image"]["path"], row["text"]])
    write_text(folder / "labels.csv", table.getvalue())


def _stamp(config: GeneratorConfig, settings: CaptchaSettings) -> str:
    """Everything that decides the bytes of the shards, as JSON; it stands in each shard's schema metadata."""
    fonts = find_fonts(settings.alphabet, settings.fonts)
    digest = hashlib.sha256()
    for path in fonts.paths:
        digest.update(Path(path).read_bytes())
    names = [*STYLES] if MIXED in settings.styles else settings.styles
    stamp = {
        "format": FORMAT,
        "style": ",".join(map(str, settings.styles)),
        "styles": {name: repr(get_style(name)) for name in names},
        "alphabet": settings.alphabet,
        "length": "{}-{}".format(*settings.length),
        "seed": settings.seed,
        "count": config.count,
        "shard_size": config.shard_size,
        "fonts": digest.hexdigest(),
    }
    return json.dumps(stamp, ensure_ascii=False)


def _finished_shards(out: Path, stamp: str) -> set[str]:
    """Names of the shards in `out`, all of them of this stamp. Clears away what a killed run left half written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: give a folder as --out")
    clear_leftovers(out)
    names = set()
    for path in sorted(out.glob("*.parquet")):
        if path.name.startswith("."):
            continue
        try:
            metadata = pq.read_schema(path).metadata or {}
        except (OSError, pa.ArrowException):
            metadata = {}
        found = metadata.get(METADATA_KEY, b"").decode()
        if found != stamp:
            raise UserError(
                f"{path} was made {_difference(found, stamp)}: "
                "choose another --out, delete that folder, or repeat the earlier settings"
            )
        names.add(path.name)
    return names


def _difference(found: str, wanted: str) -> str:
    if not found:
        return "by something else"
    old, new = json.loads(found), json.loads(wanted)
    changed = next(key for key in new if old.get(key) != new[key])
    if changed in {"format", "styles", "fonts"}:
        return f"with other settings (the {changed} {'has' if changed == 'format' else 'have'} changed since)"
    return f"with other settings (--{changed} {old.get(changed)}, now {new[changed]})"


def _write_shards(
    config: GeneratorConfig, settings: CaptchaSettings, stamp: str, paths: Sequence[Path], todo: Sequence[int]
) -> None:
    from tqdm import tqdm

    shards = {i: _indices(config, i) for i in todo}
    size = sum(map(len, shards.values()))
    with tqdm(total=size, unit=" captchas", desc="drawing", disable=not size) as bar:
        if config.engine == "ray" and todo:
            from captcha_generator import draw_shard  # by the module's name, for this may be `__main__`
            from captcha_reader.cluster import run_on_ray

            # Workers run in folders of their own.
            places = {"out": str(Path(config.out).resolve())}
            if config.fonts:
                places["fonts"] = str(Path(config.fonts).resolve())
            work = partial(draw_shard, values=asdict(config) | places, stamp=stamp)
            for result in run_on_ray(work, [str(i) for i in todo]):
                bar.update(result["captchas"])
            return
        workers = min(config.workers or available_cores(), math.ceil(size / CHUNK) or 1)
        with closing(iter_captchas(settings, chain.from_iterable(shards.values()), workers)) as captchas:
            for i, indices in shards.items():
                write_atomically(paths[i], partial(_write_shard, indices, captchas, stamp, bar.update))


def _indices(config: GeneratorConfig, shard: int) -> range:
    return range(shard * config.shard_size, min((shard + 1) * config.shard_size, config.count))


def _shard_path(config: GeneratorConfig, shard: int) -> Path:
    return Path(config.out) / f"train-{shard:05d}-of-{math.ceil(config.count / config.shard_size):05d}.parquet"


def _write_shard(
    indices: range, captchas: Iterator[tuple[bytes, str]], stamp: str, advance: Callable[[int], Any], path: Path
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("text", pa.string())],
        metadata={b"huggingface": json.dumps({"info": {"features": features}}).encode(), METADATA_KEY: stamp.encode()},
    )
    # One row group at a time: memory holds neither the set nor the shard.
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(indices), ROW_GROUP):
            group = indices[start : start + ROW_GROUP]
            rows = [
                {"image": {"bytes": png, "path": f"{index:08d}.png"}, "text": text}
                for index, (png, text) in zip(group, captchas, strict=False)
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            advance(len(rows))


def draw_shard(shard: str, values: dict[str, Any], stamp: str) -> dict[str, Any]:
    """Draw one shard, as a worker on whatever machine does it.

    Args:
        shard: its number.
        values: the fields of the `GeneratorConfig`.
        stamp: what decides the shards' bytes, as the machine sees it that hands out the work.

    Returns:
        `captchas`, how many were drawn.

    Raises:
        UserError: this machine would draw other pictures, for it has other fonts.
    """
    config = GeneratorConfig(**values)
    settings = CaptchaSettings.from_config(config)
    if (mine := _stamp(config, settings)) != stamp:
        raise UserError(
            f"a worker would draw {_difference(mine, stamp)}: give all machines the same packages and the same --fonts"
        )
    indices = _indices(config, int(shard))
    captchas = iter_captchas(settings, indices)
    write_atomically(
        _shard_path(config, int(shard)), partial(_write_shard, indices, captchas, stamp, lambda count: None)
    )
    return {"captchas": len(indices)}


def main() -> None:
    """Command line."""
    about = "Draw synthetic captchas into parquet shards (Hugging Face image layout)."
    config = parse_config(GeneratorConfig, f"{about} Styles: {style_names()}.")
    generate_captcha_data(config)


if __name__ == "__main__":
    run(main)
