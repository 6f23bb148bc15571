"""Draw synthetic captchas with their texts, as parquet shards in the Hugging Face image layout.

    python captcha_generator.py --count 10000 --style classic --out data/synthetic
    python captcha_generator.py --count 50000 --style line --alphabet 2345678bcdefgmnpwxy --length 5 --out data/line
    python captcha_generator.py --count 100 --style classic,wave --grid grid.png --out data/look

From Python:

    picture, text = generate_captcha(style="wave", seed=1, index=7)      # a PIL picture
    png_bytes, text = render_captcha(7, CaptchaSettings(styles=("wave",), seed=1))   # the same, as training wants it

**A new style** is one more entry of `STYLES`, below the class `Style` that explains its fields; no other place needs a
change.

All randomness of picture i of seed s comes from `random.Random(f"{s}/{i}")`, so that it is the same bytes for any
number of workers and any shard size. Lengths are pixels and colours are 0-255 unless the text says otherwise.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import re
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain, islice, pairwise
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread, current_thread, main_thread
from typing import Literal

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from codec import Alphabet
from common import UserError, available_cores, parse_config, run, write_atomically
from config import ALPHANUMERIC, GeneratorConfig

Range = tuple[float, float]
Point = tuple[float, float]

MAX_LENGTH = 32  # characters; more do not fit into a picture that anyone would call a captcha
ROW_GROUP = 256  # pictures per parquet row group: about what the writing process holds in memory
CHUNK = 64  # pictures per task of a worker
METADATA_KEY = b"captcha_generator"  # where a shard names its settings
FORMAT = 1  # part of the settings in each shard: raise it when the same settings would draw other pictures


@dataclass(frozen=True)
class Style:
    """How captchas of one kind look. A `Range` is (lowest, highest); a value is drawn from it for every picture.

    Pictures come about in this order: background, spots, lines below the text, text, warps, lines above the text,
    inversion, blur, noise, JPEG. Every range may be (0, 0), which leaves its step out.
    """

    # Picture
    height: Range = (60, 60)
    """Pixels."""
    width: Range | None = (160, 160)
    """Pixels. None: as wide as the text needs. Too long a text is shrunk to fit."""
    mode: Literal["L", "RGB", "RGBA"] = "RGB"
    """Grey, colour, or colour on a transparent background."""
    background: tuple[str, ...] = ("plain",)
    """One is drawn: `plain`, `gradient` (between two colours), `texture` (soft clouds), `kaptcha` (that library's
    gradient, whatever `background_level`). Ignored for RGBA."""
    background_level: Range = (215, 255)
    """Brightness of the background."""
    background_tint: float = 0.25
    """0: grey, 1: strong colours."""

    # Text
    fonts: tuple[str, ...] = ()
    """Only matplotlib's fonts whose file name has one of these parts (fonts of `--fonts` always count); (): all."""
    font_per_letter: bool = True
    """Draw a font for every letter, or one for the word."""
    text_size: Range = (0.55, 0.7)
    """Font size as a part of the picture's height."""
    text_level: Range = (0, 120)
    """Brightness of the letters."""
    text_tint: float = 0.9
    """0: grey letters, 1: strong colours."""
    colour_per_letter: bool = True
    """Draw a colour for every letter, or one for the word."""
    rotation: float = 20
    """Letters turn by up to this many degrees either way."""
    shear: float = 0.15
    """Letters lean by up to this part of their height either way."""
    stretch: Range = (0.9, 1.1)
    """Width of the letters against what the font says."""
    spacing: Range = (0.02, 0.12)
    """Gap between letters as a part of the font size; below zero they overlap."""
    bounce: float = 0.08
    """Letters leave the common base line by up to this part of the font size."""
    left: Range | None = None
    """Pixels left of the first letter at a length of 5, in proportion to 1 / (2 + length). None: anywhere."""
    baseline: float | None = None
    """Base line of the letters as a part of the height from above. None: capitals stand in the middle."""
    margin: float = 6
    """Least distance in pixels of the word from the left and right edge."""
    weight: Range = (0, 0)
    """Added to the thickness of strokes, as a part of the font size; below zero they get thinner."""
    hollow: float = 0
    """Probability that a word is drawn in outlines."""
    antialias: bool = True
    """False: hard edges."""

    # Clutter
    spots: Range = (0, 0)
    """Number of dots."""
    spot_radius: Range = (1, 2)
    """Pixels."""
    lines: Range = (0, 0)
    """Number of lines."""
    line_kinds: tuple[str, ...] = ("straight",)
    """One is drawn for each line: `straight`, `arc`, `wave`, or `taper` (kinked, thick at its left end)."""
    line_width: Range = (1, 2)
    """Pixels, rounded; `taper` has its own."""
    line_level: Range = (0, 160)
    """Brightness of lines and spots."""
    line_tint: float = 0.9
    """0: grey, 1: strong colours."""
    lines_above: float = 0.5
    """Probability that the lines lie above the text and stay unwarped."""

    # Warps
    elastic: Range = (0, 0)
    """Largest shift in pixels of a smooth random displacement."""
    elastic_cell: float = 24
    """Pixels between the independent points of that displacement: smaller is rougher."""
    wave: Range = (0, 0)
    """Amplitude in pixels of sine waves along both axes."""
    wave_length: Range = (40, 120)
    """Their length in pixels."""
    water: bool = False
    """Concentric ripples around the centre, then fixed sine waves, as in the Kaptcha library."""

    # Finish
    invert: float = 0
    """Probability of light letters on a dark ground."""
    blur: Range = (0, 0)
    """Standard deviation in pixels of a Gaussian."""
    noise: Range = (0, 0)
    """Standard deviation, in brightness levels, of noise on every pixel."""
    salt: Range = (0, 0)
    """Part of the pixels set to black or white."""
    jpeg: tuple[int, int] | None = None
    """Quality, 1-100, of a pass through JPEG."""


STYLES: dict[str, Style] = {
    # Coloured turned letters, spots, lines, elastic transform, on a light ground.
    "classic": Style(
        background=("plain", "gradient"),
        spots=(15, 40),
        lines=(1, 3),
        line_kinds=("straight", "arc"),
        line_width=(1, 1.6),
        elastic=(1, 2.5),
    ),
    # The look of the public "captcha version 2" set, which the Kaptcha library drew with its default settings.
    "line": Style(
        height=(50, 50),
        width=(200, 200),
        mode="L",
        background=("kaptcha",),
        # Sizes, widths and places below were fitted to the median picture of each first letter of the real set.
        fonts=("DejaVuSans-Bold.ttf", "DejaVuSansMono-Bold.ttf"),
        text_size=(0.78, 0.82),
        weight=(-0.02, 0.01),
        text_level=(0, 0),
        text_tint=0,
        rotation=2,
        shear=0.05,
        stretch=(0.84, 0.96),
        spacing=(-0.06, -0.02),
        bounce=0.02,
        left=(29, 31),
        baseline=0.86,
        margin=4,
        lines=(2, 2),
        line_kinds=("taper",),
        line_level=(0, 0),
        line_tint=0,
        lines_above=1,
        water=True,
        jpeg=(75, 75),
    ),
    # Thin coloured letters far apart on a transparent ground, crossed by black lines; as wide as the text needs.
    "thin": Style(
        height=(80, 80),
        width=None,
        mode="RGBA",
        text_size=(0.45, 0.75),
        text_level=(20, 215),
        text_tint=1,
        rotation=14,
        spacing=(0.1, 0.95),
        bounce=0.05,
        margin=45,
        weight=(-0.01, 0.02),
        hollow=0.3,
        antialias=False,
        lines=(0, 7),
        line_width=(1, 1),
        line_level=(0, 0),
        line_tint=0,
        lines_above=1,
    ),
    # Words bent by sine waves, dark on light or light on dark.
    "wave": Style(
        height=(50, 80),
        width=(140, 240),
        background=("plain", "gradient"),
        font_per_letter=False,
        colour_per_letter=False,
        rotation=8,
        spacing=(-0.04, 0.06),
        lines=(0, 2),
        line_kinds=("wave",),
        line_width=(1, 3),
        wave=(2, 5),
        invert=0.5,
    ),
    # Salt and pepper, speckle and clouds behind the text.
    "noise": Style(
        height=(40, 70),
        width=(120, 220),
        background=("texture", "texture", "gradient"),
        background_level=(170, 255),
        text_level=(0, 70),
        rotation=12,
        spots=(0, 60),
        spot_radius=(0, 1),
        lines=(0, 3),
        line_kinds=("straight", "arc", "wave"),
        blur=(0, 0.6),
        noise=(5, 28),
        salt=(0, 0.06),
        invert=0.25,
    ),
    # Plain small words with the traces of JPEG.
    "clean": Style(
        height=(22, 40),
        width=(70, 150),
        background_level=(200, 255),
        font_per_letter=False,
        colour_per_letter=False,
        text_size=(0.6, 0.8),
        text_tint=0.5,
        rotation=3,
        shear=0.05,
        bounce=0.03,
        margin=3,
        blur=(0, 0.7),
        jpeg=(35, 90),
        invert=0.2,
    ),
}
MIXED = "mixed"  # draws one of all the styles above for every picture


@dataclass(frozen=True)
class CaptchaSettings:
    """What decides, together with an index, every byte of a captcha. Small and picklable, to be sent to workers.

    Attributes:
        styles: names of `STYLES`, "mixed", or `Style` objects; pictures take turns by their index.
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
            raise UserError(f"--style names no style: choose from {_style_names()}")
        for name in names:
            get_style(name)
        alphabet = Alphabet.parse(config.alphabet).characters
        return cls(names, alphabet, parse_length(config.length), config.seed, config.fonts)


def _style_names() -> str:
    return ", ".join([*STYLES, MIXED])


def get_style(style: str | Style, rng: random.Random | None = None) -> Style:
    """The style of a name; `mixed` draws one with `rng`. A `Style` comes back as it is.

    Raises:
        UserError: there is no style of that name; the message lists those there are.
    """
    if isinstance(style, Style):
        return style
    if style == MIXED:
        return (rng or random.Random(0)).choice(list(STYLES.values()))
    if style not in STYLES:
        raise UserError(f"there is no style {style!r}: choose from {_style_names()}")
    return STYLES[style]


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
# Fonts


@dataclass(frozen=True)
class Fonts:
    """Font files and what each of them can draw.

    Attributes:
        paths: usable files: matplotlib's, then the user's.
        own: how many at the end of `paths` are the user's.
        drawable: for each file the characters, out of those asked for, that it has a glyph for.
    """

    paths: tuple[str, ...]
    own: int
    drawable: tuple[frozenset[str], ...]

    def choices(self, parts: tuple[str, ...], characters: str) -> tuple[str, ...]:
        """Files that can draw all `characters`: those that match a style's `fonts`, or else any; () if none can."""
        return _choices(self, parts, frozenset(characters))


@lru_cache(maxsize=4096)
def _choices(fonts: Fonts, parts: tuple[str, ...], characters: frozenset[str]) -> tuple[str, ...]:
    able = [(i, path) for i, path in enumerate(fonts.paths) if characters <= fonts.drawable[i]]
    first_own = len(fonts.paths) - fonts.own
    matching = [
        path for i, path in able if i >= first_own or not parts or any(part in Path(path).name for part in parts)
    ]
    return tuple(matching or [path for _, path in able])


@lru_cache(maxsize=8)
def find_fonts(alphabet: str, folder: str | None = None) -> Fonts:
    """Fonts that can draw at least one character of `alphabet`: matplotlib's text faces and those of a folder.

    Args:
        alphabet: characters, written out.
        folder: also every .ttf, .otf and .ttc file below this folder; unreadable ones are named on stderr.

    Raises:
        UserError: no usable font, or a character that none can draw.
    """
    import matplotlib
    from matplotlib.ft2font import FT2Font  # says which characters a font has; Pillow draws a box for the others

    shipped = Path(matplotlib.get_data_path(), "fonts", "ttf")
    # The text faces. Left out: symbols in single sizes, and Computer Modern, which follows TeX's own encoding.
    faces = [p for p in sorted(shipped.glob("*.ttf")) if re.match(r"DejaVu(Sans|Serif)|STIXGeneral", p.name)]
    faces = [p for p in faces if "Display" not in p.name]
    own = _font_files(folder) if folder is not None else []
    paths, drawable, broken, usable_own = [], [], [], 0
    for path in [*faces, *own]:
        try:
            font = FT2Font(str(path))
            has = frozenset(
                c for c in alphabet if font.get_char_index(ord(c)) and load_glyph(str(path), c, 40).mask.any()
            )
        except (OSError, RuntimeError, ValueError):
            broken.append(path)
            continue
        if has:
            paths.append(str(path))
            drawable.append(has)
            usable_own += path in own
    if broken and parent_process() is None:  # workers would only repeat it
        names = ", ".join(str(p) for p in broken)
        print(f"warning: {len(broken)} font file(s) cannot be read and are left out: {names}", file=sys.stderr)
    if own and not usable_own:
        raise UserError(
            f"no font in the folder {folder} can be read and has a character of the alphabet: "
            "give other .ttf or .otf files, or drop --fonts"
        )
    missing = [c for c in alphabet if not any(c in has for has in drawable)]
    if missing:
        raise UserError(
            f"no font can draw the character {missing[0]!r} of the alphabet: "
            "leave it out, or give a folder with a font that has it by --fonts"
        )
    return Fonts(tuple(paths), usable_own, tuple(drawable))


def _font_files(folder: str) -> list[Path]:
    if not Path(folder).is_dir():
        raise UserError(f"the fonts folder {folder} does not exist: give a folder with .ttf or .otf files")
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in {".ttf", ".otf", ".ttc"} and p.is_file())
    if not files:
        raise UserError(f"the fonts folder {folder} holds no .ttf or .otf file: give another folder or drop --fonts")
    return files


@dataclass(frozen=True)
class Glyph:
    """One drawn character.

    Attributes:
        mask: (h, w) uint8 coverage with an empty border of 2 pixels.
        x: from the pen to the mask's left edge.
        y: from the base line down to the mask's top edge (negative: above).
        ink: width of the character without the border.
    """

    mask: np.ndarray
    x: int
    y: int
    ink: int


@lru_cache(maxsize=256)
def _load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=8192)
def load_glyph(path: str, character: str, size: int, weight: float = 0, hollow: bool = False) -> Glyph:
    """Draw a character once per process.

    Args:
        size: font size in pixels.
        weight: pixels added to the thickness of strokes; below zero, to -2, taken away.
        hollow: the outline only.
    """
    font = _load_font(path, size)
    stroke = max(weight, 0) / 2
    left, top, right, bottom = font.getbbox(character, anchor="ls", stroke_width=stroke)
    left, top, right, bottom = math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)
    border = 2
    picture = Image.new("L", (max(right - left, 1) + 2 * border, max(bottom - top, 1) + 2 * border))
    place = (border - left, border - top)
    ImageDraw.Draw(picture).text(place, character, fill=255, font=font, anchor="ls", stroke_width=stroke)
    mask = np.asarray(picture)
    if weight < 0:  # a part of what erosion by one pixel on each side takes away
        thinner = cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
        mask = cv2.addWeighted(mask, 1 + weight / 2, thinner, -weight / 2, 0)
    if hollow:
        mask = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
    return Glyph(mask, left - border, top - border, max(right - left, 1))


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


def _draw_background(rng: random.Random, style: Style, height: int, width: int) -> np.ndarray:
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[style.mode]
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
    else:
        raise ValueError(f"unknown background {kind!r}")
    # Half a sample at each end of a small picture stays flat when enlarged; cubic hides the cells of a texture.
    enlarged = cv2.resize(corners, (width, height), interpolation=cv2.INTER_CUBIC if kind == "texture" else 1)
    return np.clip(enlarged, 0, 255).astype(np.uint8).reshape(height, width, channels)


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

    @property
    def width(self) -> float:
        """Pixels from the first letter's pen to the last one's right edge."""
        ink = sum(glyph.ink for glyph in self.glyphs) * self.scale * self.stretch
        return ink + self.gap * (len(self.glyphs) - 1)


def _layout(text: str, rng: random.Random, style: Style, fonts: Fonts, height: int) -> _Word:
    size = rng.uniform(*style.text_size) * height
    drawn = max(
        16, 8 * math.ceil(size / 8)
    )  # few sizes keep the glyph cache small; shrinking looks better than growing
    hollow = rng.random() < style.hollow
    common = fonts.choices(style.fonts, text)
    if common and not style.font_per_letter:
        common = (rng.choice(common),)
    paths = [rng.choice(common or fonts.choices(style.fonts, character)) for character in text]
    weight = max(round(rng.uniform(*style.weight) * drawn * 2) / 2, -2)  # few steps, again for the cache
    glyphs = [load_glyph(path, character, drawn, weight, hollow) for path, character in zip(paths, text, strict=True)]
    return _Word(glyphs, size, size / drawn, rng.uniform(*style.stretch), rng.uniform(*style.spacing) * size)


def _place_letters(canvas: np.ndarray, word: _Word, rng: random.Random, style: Style) -> None:
    height, width, channels = canvas.shape
    count = len(word.glyphs)
    room = width - 2 * style.margin
    left = None if style.left is None else rng.uniform(*style.left) * 7 / (2 + count)
    if left is not None:
        room = width - left - style.margin
    fit = min(1.0, room / max(word.width, 1))
    if left is None:
        left = style.margin + rng.random() * (room - word.width * fit)
    scale_y = word.scale * fit
    scale_x = scale_y * word.stretch
    size = word.size * fit
    # Capitals are about 0.73 of the font size high, so that this base line puts their middle into the picture's middle.
    baseline = height * style.baseline if style.baseline is not None else height / 2 + 0.36 * size
    colour = _colour(rng, style.text_level, style.text_tint, channels)
    pen = left
    for glyph in word.glyphs:
        if style.colour_per_letter:
            colour = _colour(rng, style.text_level, style.text_tint, channels)
        angle = math.radians(rng.uniform(-style.rotation, style.rotation))
        lean = rng.uniform(-style.shear, style.shear)
        drop = rng.uniform(-style.bounce, style.bounce) * size
        _draw_glyph(canvas, glyph, (pen, baseline + drop), (scale_x, scale_y), angle, lean, colour, style.antialias)
        pen += glyph.ink * scale_x + word.gap * fit


def _draw_glyph(
    canvas: np.ndarray,
    glyph: Glyph,
    pen: Point,
    scale: Point,
    angle: float,
    lean: float,
    colour: Sequence[float],
    antialias: bool,
) -> None:
    """Scale, lean and turn (radians) a glyph around its own middle and blend it into the canvas."""
    h, w = glyph.mask.shape
    sin, cos = math.sin(angle), math.cos(angle)
    # (x, y) in the mask, from its middle -> the canvas: scale, then lean, then turn
    a, b = cos * scale[0], (cos * lean + sin) * scale[1]
    c, d = -sin * scale[0], (cos - sin * lean) * scale[1]
    middle_x, middle_y = (w - 1) / 2, (h - 1) / 2
    x = pen[0] + (glyph.x + middle_x) * scale[0]
    y = pen[1] + (glyph.y + middle_y) * scale[1]
    reach_x, reach_y = abs(a) * middle_x + abs(b) * middle_y, abs(c) * middle_x + abs(d) * middle_y
    x0, y0 = max(math.floor(x - reach_x), 0), max(math.floor(y - reach_y), 0)
    x1 = min(math.ceil(x + reach_x) + 1, canvas.shape[1])
    y1 = min(math.ceil(y + reach_y) + 1, canvas.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    matrix = np.array(
        [[a, b, x - x0 - a * middle_x - b * middle_y], [c, d, y - y0 - c * middle_x - d * middle_y]], np.float64
    )
    mask = cv2.warpAffine(glyph.mask, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    if not antialias:
        mask = np.where(mask > 100, np.uint8(255), np.uint8(0))
    _blend(canvas[y0:y1, x0:x1], mask, colour)


def _blend(region: np.ndarray, mask: np.ndarray, colour: Sequence[float]) -> None:
    """Lay a colour over (h, w, channels) uint8, in place, as far as `mask`, (h, w) uint8, says.

    OpenCV's saturating arithmetic takes half the time of NumPy's here, and most of drawing is this.
    """
    channels = region.shape[2]
    weight = mask if channels == 1 else cv2.merge([mask] * channels)
    under = region[..., 0] if channels == 1 else region
    colour = (*colour, 0.0, 0.0, 0.0)[:4]
    kept = cv2.multiply(under, cv2.bitwise_not(weight), scale=1 / 255)
    cv2.add(kept, cv2.multiply(weight, colour, scale=1 / 255), dst=under)


def draw_spots(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    """Draw `style.spots` dots of random place and radius, in up to six colours, into the canvas, in place."""
    height, width, channels = canvas.shape
    count = round(rng.uniform(*style.spots))
    colours = [_colour(rng, style.line_level, style.line_tint, channels) for _ in range(min(count, 6))]
    for i in range(count):
        centre = (int(rng.random() * width), int(rng.random() * height))
        cv2.circle(canvas, centre, round(rng.uniform(*style.spot_radius)), colours[i % 6], -1)


def draw_lines(canvas: np.ndarray, rng: random.Random, style: Style) -> None:
    """Draw `style.lines` lines of random kind, place and colour into the canvas, in place.

    Raises:
        ValueError: the style names a kind that does not exist.
    """
    height, width, channels = canvas.shape
    for i in range(round(rng.uniform(*style.lines))):
        kind = rng.choice(style.line_kinds)
        colour = _colour(rng, style.line_level, style.line_tint, channels)
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
        else:
            raise ValueError(f"unknown kind of line {kind!r}")
        # Four fractional bits: points between pixels, or slow curves would show steps.
        fixed = (np.array(points) * 16).round().astype(np.int32)
        cv2.polylines(canvas, [fixed], False, colour, thickness, cv2.LINE_AA if style.antialias else 8, shift=4)


def _bezier(control: Sequence[Point], steps: int) -> list[Point]:
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = control
    points = []
    for i in range(steps + 1):
        t = i / steps
        s = 1 - t
        a, b, c, d = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
        points.append((a * x0 + b * x1 + c * x2 + d * x3, a * y0 + b * y1 + c * y2 + d * y3))
    return points


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
    canvas = _draw_background(rng, style, height, width)
    draw_spots(canvas, rng, style)
    lines_above = rng.random() < style.lines_above
    if not lines_above:
        draw_lines(canvas, rng, style)
    _place_letters(canvas, word, rng, style)
    if style.water:
        for field in _water_fields(height, width):
            canvas = _displace(canvas, field)
    fields = []
    if style.elastic[1]:
        fields.append(_elastic_field(height, width, rng, rng.uniform(*style.elastic), style.elastic_cell))
    if style.wave[1]:
        fields.append(_wave_field(height, width, rng, rng.uniform(*style.wave), style.wave_length))
    if fields:
        canvas = _displace(canvas, sum(fields[1:], fields[0]))
    if lines_above:
        draw_lines(canvas, rng, style)
    return _finish(canvas, rng, style)


def _finish(canvas: np.ndarray, rng: random.Random, style: Style) -> np.ndarray:
    shape = canvas.shape
    if shape[2] == 4:  # undo the premultiplication: colours as PNG stores them
        alpha = canvas[..., 3]
        partial_cover = (alpha > 0) & (alpha < 255)
        pixels = canvas[partial_cover].astype(np.float32)
        canvas[partial_cover, :3] = np.minimum(pixels[:, :3] * 255 / pixels[:, 3:], 255)
    elif rng.random() < style.invert:
        canvas = 255 - canvas
    blur = rng.uniform(*style.blur)
    if blur > 0.25:  # less moves no brightness level
        canvas = cv2.GaussianBlur(canvas, (0, 0), blur).reshape(shape)
    if style.noise[1] or style.salt[1]:
        canvas = _add_noise(canvas, rng, rng.uniform(*style.noise), rng.uniform(*style.salt))
    if style.jpeg and shape[2] != 4:
        _, packed = cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, rng.randint(*style.jpeg)])
        canvas = cv2.imdecode(packed, cv2.IMREAD_UNCHANGED).reshape(shape)
    return canvas


# ---------------------------------------------------------------------------------------------------------------------
# One captcha


def _draw_indexed(index: int, settings: CaptchaSettings, text: str | None = None) -> tuple[np.ndarray, str]:
    _single_threaded()
    # A string seeds through SHA-512, the same on every machine; hash() would differ from process to process.
    rng = random.Random(f"{settings.seed}/{index}")
    style = get_style(settings.styles[index % len(settings.styles)], rng)
    drawn = generate_random_string(settings.alphabet, settings.length, rng)
    fonts = find_fonts(settings.alphabet if text is None else _distinct(text), settings.fonts)
    text = drawn if text is None else text
    return draw_captcha(text, style, rng, fonts), text


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
        images: at least one; each stands in the middle of a cell as large as the largest picture.
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
    width, height = max(i.width for i in images), max(i.height for i in images)
    grid = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for k, image in enumerate(images):
        x = gap + k % columns * (width + gap) + (width - image.width) // 2
        y = gap + k // columns * (height + gap) + (height - image.height) // 2
        solid = image.convert("RGBA")
        grid.paste(solid, (x, y), solid)
    try:
        return write_atomically(path, grid.save)
    except (OSError, ValueError) as error:
        raise UserError(f"the grid {path} cannot be written ({error}): choose another --grid, ending in .png") from None


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
    out = Path(config.out)
    stamp = _stamp(config, settings)
    total = math.ceil(config.count / config.shard_size)
    paths = [out / f"train-{i:05d}-of-{total:05d}.parquet" for i in range(total)]
    done = _finished_shards(out, stamp)
    if config.grid:
        first = range(min(config.count, 100))
        save_grid_image([Image.open(io.BytesIO(render_captcha(i, settings)[0])) for i in first], config.grid)
    todo = [i for i, path in enumerate(paths) if path.name not in done]
    try:
        _write_shards(config, settings, stamp, paths, todo)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error}): make room or choose another --out") from None
    kept = f" ({len(paths) - len(todo)} were there already)" if len(todo) < len(paths) else ""
    print(f"{config.count} captchas in {len(paths)} shard(s) in {out}{kept}")
    return paths


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
    names = set()
    for path in sorted(out.glob("*.parquet")):
        if path.name.startswith("."):
            if re.fullmatch(r"\.train-\d+-of-\d+\.\d+\.tmp\.parquet", path.name):
                path.unlink(missing_ok=True)
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
        return f"with other settings (the {changed} have changed since)"
    return f"with other settings (--{changed} {old.get(changed)}, now {new[changed]})"


def _write_shards(
    config: GeneratorConfig, settings: CaptchaSettings, stamp: str, paths: Sequence[Path], todo: Sequence[int]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from tqdm import tqdm

    features = {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("text", pa.string())],
        metadata={b"huggingface": json.dumps({"info": {"features": features}}).encode(), METADATA_KEY: stamp.encode()},
    )
    shards = {i: range(i * config.shard_size, min((i + 1) * config.shard_size, config.count)) for i in todo}
    size = sum(map(len, shards.values()))
    workers = min(config.workers or available_cores(), math.ceil(size / CHUNK) or 1)
    bar = tqdm(total=size, unit=" captchas", desc="drawing", disable=not size)
    with bar, closing(iter_captchas(settings, chain.from_iterable(shards.values()), workers)) as captchas:

        def write(temporary: Path, indices: range) -> None:
            # One row group at a time: memory holds neither the set nor the shard.
            with pq.ParquetWriter(temporary, schema) as writer:
                for start in range(0, len(indices), ROW_GROUP):
                    group = indices[start : start + ROW_GROUP]
                    rows = [
                        {"image": {"bytes": png, "path": f"{index:08d}.png"}, "text": text}
                        for index, (png, text) in zip(group, captchas, strict=False)
                    ]
                    writer.write_table(pa.Table.from_pylist(rows, schema=schema))
                    bar.update(len(rows))

        for i, indices in shards.items():
            write_atomically(paths[i], partial(write, indices=indices))


def main() -> None:
    """Command line."""
    config = parse_config(GeneratorConfig, "Draw synthetic captchas into parquet shards (Hugging Face image layout).")
    generate_captcha_data(config)


if __name__ == "__main__":
    run(main)
