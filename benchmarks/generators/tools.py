"""What the generators share: fonts, random texts and colors, single letters, warps, curves and JPEG.

The fonts are those of the packages in font_packages.txt (captcha_reader/generator), by file name. What is random comes
from the `random.Random` that a generator is given, in a fixed order: drawing two numbers the other way round changes
the pictures.
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the scripts live two folders up

from captcha_reader.errors import UserError

Drawn = tuple[str, Image.Image]
Generator = Callable[[random.Random], Drawn]
Color = tuple[int, int, int]
Map = Callable[[np.ndarray, np.ndarray], np.ndarray]  # from where in the picture a warp takes each pixel, of (x, y)

FONTS = Path("/usr/share/fonts")
DIGITS = "0123456789"
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOWER = "abcdefghijklmnopqrstuvwxyz"
HEX = "0123456789abcdef"
SAFE = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # without what looks alike, as far as a developer thought of it
SAFE_LOWER = "abcdefghjkmnpqrstuvwxyz23456789"
SAFE_MIXED = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
SAFE_CAPITALS = "ABCDEFGHJKLMNPRSTUVWXYZ"
SAFE_SMALL = "abcdefghkmnprstuvwxyz"
SEGMENTS = {  # of a calculator's digits: a to f clockwise from the top, g in the middle
    "0": "abcdef",
    "1": "bc",
    "2": "abdeg",
    "3": "abcdg",
    "4": "bcfg",
    "5": "acdfg",
    "6": "acdefg",
    "7": "abc",
    "8": "abcdefg",
    "9": "abcdfg",
}
STROKES = {  # of a calculator's digit, two squares high: from (x, y) to (x, y)
    "a": (0, 0, 1, 0),
    "b": (1, 0, 1, 1),
    "c": (1, 1, 1, 2),
    "d": (0, 2, 1, 2),
    "e": (0, 1, 0, 2),
    "f": (0, 0, 0, 1),
    "g": (0, 1, 1, 1),
}


def registering(generators: dict[str, Generator]) -> Callable[[Generator], Generator]:
    """A decorator that puts a generator into `generators`, under its name."""

    def register(generator: Generator) -> Generator:
        generators[generator.__name__] = generator
        return generator

    return register


# --------------------------------------------------------------------------------------------------------------------
# Chance


def word(rng: random.Random, characters: str, fewest: int, most: int | None = None) -> str:
    """A text of `fewest` to `most` of the characters; of `fewest` alone without the other."""
    return "".join(rng.choice(characters) for _ in range(rng.randint(fewest, most or fewest)))


def color(rng: random.Random, lowest: int, highest: int) -> Color:
    """A color whose three levels lie within these."""
    return rng.randint(lowest, highest), rng.randint(lowest, highest), rng.randint(lowest, highest)


def numpy_rng(rng: random.Random) -> np.random.Generator:
    """numpy's generator, for what is random in every pixel, seeded by `rng`."""
    return np.random.default_rng(rng.getrandbits(32))


# --------------------------------------------------------------------------------------------------------------------
# Letters


@cache
def _font_files() -> dict[str, Path]:
    return {path.name: path for path in sorted(FONTS.rglob("*.[to]t[fb]"))}


def _load(name: str, size: int, layout: ImageFont.Layout) -> ImageFont.FreeTypeFont:
    if name not in _font_files():
        raise UserError(
            f"{name} is not below {FONTS}: install what captcha_generator.py --check_fonts names (font_packages.txt)"
        )
    return ImageFont.truetype(_font_files()[name], size, layout_engine=layout)


@lru_cache(512)
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font by its file name, which sets one letter after the other, as the libraries of old do.

    Raises:
        UserError: it is not installed.
    """
    return _load(name, size, ImageFont.Layout.BASIC)


@lru_cache(512)
def fine_font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A font by its file name, with the fine spacing of browsers, if Pillow has the library for it.

    Raises:
        UserError: it is not installed.
    """
    return _load(name, size, ImageFont.Layout.RAQM)


def fitting_font(name: str, text: str, width: int, size: int) -> ImageFont.FreeTypeFont:
    """The font of `fine_font` in this size, or as much smaller as the text needs to fit the width."""
    while size > 8 and fine_font(name, size).getlength(text) > width:
        size -= 1
    return fine_font(name, size)


def bitmap(text: str, name: str | None = "terminus-bold.otb", size: int = 16) -> Image.Image:
    """A mask of the text in a bitmap font, Pillow's own if None, without smooth edges, as GD's imagestring draws it."""
    face = font(name, size) if name else ImageFont.load_default_imagefont()
    _, _, right, bottom = face.getbbox(text)
    mask = Image.new("L", (int(right) + 24, int(bottom) + 8))
    draw = ImageDraw.Draw(mask)
    draw.fontmode = "1"
    draw.text((1, 1), text, 255, font=face)
    return mask.crop(mask.getbbox())


def tile(text: str, face: ImageFont.FreeTypeFont, fill: Color, angle: float = 0.0) -> Image.Image:
    """A letter or a word, turned, on a transparent tile: cropped in width only, so that the middles share a line."""
    height = sum(face.getmetrics()) + 6
    width = int(face.getlength(text)) + 2 * int(face.size)
    mask = Image.new("L", (width, height))
    ImageDraw.Draw(mask).text((width / 2, height / 2), text, 255, font=face, anchor="mm")
    if angle:
        mask = mask.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    left, _, right, _ = mask.getbbox()
    mask = mask.crop((left, 0, right, mask.height))
    letter = Image.new("RGBA", mask.size, (*fill, 255))
    letter.putalpha(mask)
    return letter


def put(image: Image.Image, letter: Image.Image, x: float, y: float) -> None:
    """Paste a tile with its middle at (x, y), rounded; into a mask goes its shape alone."""
    shape = letter.getchannel("A")
    corner = round(x - letter.width / 2), round(y - letter.height / 2)
    image.paste(letter.convert("RGB") if image.mode == "RGB" else shape, corner, shape)


def row(
    image: Image.Image,
    letters: Sequence[Image.Image],
    gap: float = 0.0,
    shift: Callable[[], float] = lambda: 0,
    middle: float | None = None,
) -> None:
    """Put tiles one after the other, centered; the gap gives way if they would not fit.

    Args:
        image: to put them into.
        letters: tiles.
        gap: pixels between two of them.
        shift: asked for each tile how many pixels it goes down.
        middle: of the row, from the top; None: that of the picture.
    """
    width = sum(letter.width for letter in letters)
    gap = min(gap, (image.width - 6 - width) / max(1, len(letters) - 1))
    x = (image.width - width - gap * (len(letters) - 1)) / 2
    for letter in letters:
        put(image, letter, x + letter.width / 2, (image.height / 2 if middle is None else middle) + shift())
        x += letter.width + gap


def glyph(
    character: str, face: ImageFont.FreeTypeFont, fill: tuple[int, ...], angle: float = 0.0, margin: int = 3
) -> Image.Image:
    """A letter or a word, turned, on a transparent layer that is as small as it allows."""
    left, top, right, bottom = face.getbbox(character)
    size = int(right - left) + 2 * margin, int(bottom - top) + 2 * margin
    layer = Image.new("RGBA", size, (*fill[:3], 0))
    ImageDraw.Draw(layer).text((margin - left, margin - top), character, font=face, fill=fill)
    return layer.rotate(angle, Image.Resampling.BICUBIC, expand=True) if angle else layer


def place(
    image: Image.Image, letter: Image.Image, x: float, y: float, ink: int | tuple[int, ...] | None = None
) -> None:
    """Paste a layer of `glyph` with its middle at (x, y), cut to whole pixels; with `ink`, its shape in that."""
    corner = int(x - letter.width / 2), int(y - letter.height / 2)
    if ink is None:
        image.paste(letter, corner, letter)
    else:
        image.paste(ink, corner, letter.getchannel("A"))


def spread(text: str, width: int, margin: int) -> list[tuple[str, float]]:
    """Each character with the middle of its column: the columns share the width within the margins."""
    step = (width - 2 * margin) / len(text)
    return [(character, margin + step * (i + 0.5)) for i, character in enumerate(text)]


# --------------------------------------------------------------------------------------------------------------------
# Pictures


def remap(image: Image.Image, across: Map, down: Map, fill: Color = (255, 255, 255)) -> Image.Image:
    """Warp: the pixel (x, y) comes from (across(x, y), down(x, y)), and from outside as `fill`."""
    pixels = np.asarray(image)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]].astype(np.float32)
    maps = across(x, y).astype(np.float32), down(x, y).astype(np.float32)
    warped = cv2.remap(pixels, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    return Image.fromarray(warped)


def bezier(points: Sequence[tuple[float, float]], count: int = 60) -> list[tuple[float, float]]:
    """So many points of the curve with these four."""
    t = np.linspace(0, 1, count)[:, None]
    a, b, c, d = np.array(points, float)
    curve = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
    return [(x, y) for x, y in curve]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The picture as JPEG keeps it."""
    packed = io.BytesIO()
    image.convert("RGB").save(packed, "JPEG", quality=quality)
    return Image.open(packed).convert("RGB")


def to_image(levels: np.ndarray) -> Image.Image:
    """A picture of levels that may lie outside of 0 to 255."""
    return Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
