"""The fonts that captchas are drawn with, and single letters: as a font has them, hollow, stencilled, of a pen, ...

**A new effect on letters** is one more function of (mask, size) in `_SHAPE_EFFECTS`, and its name in
`captcha_styles.Effect`. Shadows and edges, which lie below letters, stand in captcha_generator.py.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from multiprocessing import parent_process
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from captcha_reader.errors import UserError
from captcha_styles import Effect, Style


@dataclass(frozen=True, eq=False)  # told apart by identity: hashing a thousand paths would take longer than drawing
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

    @property
    def characters(self) -> frozenset[str]:
        """What at least one of them can draw."""
        return frozenset().union(*self.drawable)

    def choices(self, style: Style, characters: str) -> tuple[str, ...]:
        """Files that can draw all `characters`: those that the style wants, or else any; () if none can."""
        needed = frozenset(characters)
        wanted = _wanted(self, style.fonts, style.font_part)
        if style.font_choice:
            # From each place on, the first that can: so a text with a rare character moves few of a scheme's fonts.
            starts = [int(place * len(wanted)) for place in style.font_choice]
            found = [
                next((i for i in chain(wanted[k:], wanted[:k]) if needed <= self.drawable[i]), None) for k in starts
            ]
        else:
            found = [i for i in wanted if needed <= self.drawable[i]]
        able = [i for i in found if i is not None] or [i for i, has in enumerate(self.drawable) if needed <= has]
        return tuple(self.paths[i] for i in able)


@lru_cache(maxsize=256)
def _wanted(fonts: Fonts, parts: tuple[str, ...], font_part: str) -> tuple[int, ...]:
    names = [Path(path).name for path in fonts.paths]
    first_own = len(names) - fonts.own
    wanted = [i for i, name in enumerate(names) if i >= first_own or not parts or any(part in name for part in parts)]
    if font_part != "all":
        held_out = [i for i in wanted if zlib.crc32(names[i].encode()) % 10 == 0]
        part = held_out if font_part == "heldout" else [i for i in wanted if i not in held_out]
        wanted = part or wanted
    return tuple(wanted)


@lru_cache(maxsize=8)
def find_fonts(alphabet: str, folder: str | None = None) -> Fonts:
    """Fonts that can draw at least one character of `alphabet`: matplotlib's text faces and those of a folder.

    Args:
        alphabet: characters, written out.
        folder: also every .ttf, .otf and .ttc file below this folder; unreadable ones are named on stderr. Fonts whose
            small letters look like their capitals serve for capitals and digits.

    Raises:
        UserError: no usable font, or a character that none can draw.
    """
    fonts = _usable_fonts(alphabet, folder)
    characters = fonts.characters
    missing = [c for c in alphabet if c not in characters]
    if missing:
        raise UserError(
            f"no font can draw the character {missing[0]!r} of the alphabet: "
            "leave it out, or draw by captcha_generator.py with --fonts FOLDER, where a font has it"
        )
    return fonts


def drawable(alphabet: str) -> str:
    """Those of its characters that one of matplotlib's text faces can draw."""
    characters = _usable_fonts(alphabet, None).characters
    return "".join(c for c in alphabet if c in characters)


def _usable_fonts(alphabet: str, folder: str | None) -> Fonts:
    import matplotlib
    from matplotlib.ft2font import FT2Font  # says which characters a font has; Pillow draws a box for the others

    shipped = Path(matplotlib.get_data_path(), "fonts", "ttf")
    # The text faces. Left out: symbols in single sizes, and Computer Modern, which follows TeX's own encoding.
    faces = [p for p in sorted(shipped.glob("*.ttf")) if re.match(r"DejaVu(Sans|Serif)|STIXGeneral", p.name)]
    faces = [p for p in faces if "Display" not in p.name]
    own = _font_files(folder) if folder is not None else []
    paths, characters, broken, usable_own = [], [], [], 0
    for path in [*faces, *own]:
        try:
            font = FT2Font(str(path))
            has = frozenset(
                c for c in alphabet if font.get_char_index(ord(c)) and load_glyph(str(path), c, 40).mask.any()
            )
        except (OSError, RuntimeError, ValueError):
            broken.append(path)
            continue
        has -= _small_capitals(str(path), has)
        if has:
            paths.append(str(path))
            characters.append(has)
            usable_own += path in own
    if broken and parent_process() is None:  # workers would only repeat it
        names = ", ".join(str(p) for p in broken)
        print(f"warning: {len(broken)} font file(s) cannot be read and are left out: {names}", file=sys.stderr)
    if own and not usable_own:
        raise UserError(
            f"no font in the folder {folder} can be read and has a character of the alphabet: "
            "give other .ttf or .otf files, or drop --fonts"
        )
    return Fonts(tuple(paths), usable_own, tuple(characters))


def _small_capitals(path: str, characters: frozenset[str]) -> frozenset[str]:
    """The small letters of a font that draws them as capitals: nobody could read their case."""
    telling = [c for c in "abdefghijlmnqrty" if c in characters and c.upper() in characters]
    alike = 0
    for c in telling:
        small, large = (load_glyph(path, x, 40).mask for x in (c, c.upper()))
        small, large = (cv2.resize(mask, (16, 16), interpolation=cv2.INTER_AREA).astype(int) for mask in (small, large))
        alike += abs(small - large).sum() < 0.2 * (small + large).sum()
    return frozenset(c for c in characters if c.islower()) if alike * 2 > len(telling) else frozenset()


def _font_files(folder: str) -> list[Path]:
    if not Path(folder).is_dir():
        raise UserError(f"the fonts folder {folder} does not exist: give a folder with .ttf or .otf files")
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in {".ttf", ".otf", ".ttc"} and p.is_file())
    if not files:
        raise UserError(f"the fonts folder {folder} holds no .ttf or .otf file: give another folder or drop --fonts")
    return files


# ---------------------------------------------------------------------------------------------------------------------
# Letters


@dataclass(frozen=True)
class Glyph:
    """One drawn character.

    Attributes:
        mask: (h, w) uint8 coverage with an empty border of 2 pixels or more.
        x: from the pen to the mask's left edge.
        y: from the base line down to the mask's top edge (negative: above).
        ink: width of the character without the border.
    """

    mask: np.ndarray
    x: int
    y: int
    ink: int

    @cached_property
    def reach(self) -> tuple[int, int]:
        """From the base line to the top and to the bottom of the character, rows downwards (negative: above)."""
        rows = np.flatnonzero(self.mask.max(axis=1) > 60)
        return (self.y + int(rows[0]), self.y + int(rows[-1]) + 1) if len(rows) else (self.y, self.y)


@lru_cache(maxsize=256)
def _load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=65536)
def load_glyph(path: str, character: str, size: int, hard: bool = False) -> Glyph:
    """Draw a character, once per process as long as the cache has room.

    Args:
        size: font size in pixels.
        hard: pixels are covered or not, nothing between; fitted to pixels as fonts for screens were.
    """
    font = _load_font(path, size)
    left, top, right, bottom = (round(x) for x in font.getbbox(character, anchor="ls"))
    border = 2 + size // 16  # room for thicker strokes
    picture = Image.new("L", (max(right - left, 1) + 2 * border, max(bottom - top, 1) + 2 * border))
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "1" if hard else "L"
    draw.text((border - left, border - top), character, fill=255, font=font, anchor="ls")
    return Glyph(np.asarray(picture), left - border, top - border, max(right - left, 1))


@lru_cache(maxsize=8192)
def style_glyph(path: str, character: str, size: int, weight: float = 0, effect: Effect = "") -> Glyph:
    """Draw a character with an effect.

    Args:
        size: font size in pixels.
        weight: pixels added to the thickness of strokes, to size / 8; below zero, to -2, taken away, but for a pen's.
        effect: of those that change a letter's shape.
    """
    glyph = load_glyph(path, character, size)
    mask = glyph.mask
    if effect == "pen":  # before the weight, which is then the pen's
        mask, weight = _pen(mask, size), max(weight, 0)
    if weight:  # whole pixels on each side, and a part of what one more would do
        change = cv2.erode if weight < 0 else cv2.dilate
        for _ in range(int(abs(weight) / 2)):
            mask = change(mask, _CROSS)
        part = abs(weight) / 2 % 1
        if part:
            mask = cv2.addWeighted(mask, 1 - part, change(mask, _CROSS), part, 0)
    if effect in _SHAPE_EFFECTS:
        mask = np.ascontiguousarray(_SHAPE_EFFECTS[effect](mask, size))
    return Glyph(mask, glyph.x, glyph.y, glyph.ink)


@lru_cache(maxsize=512)
def segment_glyph(digit: str, size: int, thickness: float) -> Glyph:
    """Draw a digit of a calculator, leaning a little.

    Args:
        size: font size in pixels; the digit is as high as a capital.
        thickness: of its pieces, as a part of its height.
    """
    high, border = round(0.73 * size), 3 + size // 16
    wide, thick = round(0.55 * high), thickness * high
    lean, gap = 0.1, 0.6 * thick
    mask = np.zeros((high + 2 * border, round(wide + lean * high) + 2 * border), np.uint8)
    for piece in SEGMENTS[digit]:
        a, b = np.array(_PIECES[piece], float)
        ends = np.array((a, b)) * (wide, high / 2) + np.array((1, -1))[:, None] * gap * np.sign(b - a)
        ends[:, 0] += lean * (high - ends[:, 1])
        cv2.line(mask, *(16 * (ends + border)).astype(int).tolist(), 255, max(1, round(thick)), cv2.LINE_AA, shift=4)
    return Glyph(mask, -border, -high - border, wide)


SEGMENTS = {  # the pieces that are on: top, upper right, lower right, bottom, lower left, upper left, middle
    **{"0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc"},
    **{"5": "afgcd", "6": "afgedc", "7": "abc", "8": "abcdefg", "9": "abcdfg"},
}
_PIECES = {  # from and to, across in widths and down in half heights
    **{"a": ((0, 0), (1, 0)), "b": ((1, 0), (1, 1)), "c": ((1, 1), (1, 2)), "d": ((0, 2), (1, 2))},
    **{"e": ((0, 1), (0, 2)), "f": ((0, 0), (0, 1)), "g": ((0, 1), (1, 1))},
}

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def _hollow(mask: np.ndarray, size: int) -> np.ndarray:
    thickness = 2 + size // 48
    return cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((thickness, thickness), np.uint8))


def _stencil(mask: np.ndarray, size: int) -> np.ndarray:
    bridged = mask.copy()
    middle, half = mask.shape[1] // 2, max(1, size // 28)
    bridged[:, middle - half : middle + half] = 0
    return bridged


def _stripes(mask: np.ndarray, size: int) -> np.ndarray:
    pitch = max(3, size // 8)
    striped = mask.copy()
    for row in range(max(1, pitch // 3)):
        striped[row::pitch] = 0
    return striped


def _dots(mask: np.ndarray, size: int) -> np.ndarray:
    pitch = max(4, size // 10)
    cell = np.zeros((pitch, pitch), np.uint8)
    cv2.circle(cell, (pitch // 2, pitch // 2), max(1, round(pitch * 0.4)), 255, -1)
    lattice = np.tile(cell, (mask.shape[0] // pitch + 1, mask.shape[1] // pitch + 1))
    thick = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    return cv2.min(thick, lattice[: mask.shape[0], : mask.shape[1]].copy())


def _pixel(mask: np.ndarray, size: int) -> np.ndarray:
    pixel = max(2, size // 11)
    height, width = mask.shape
    coarse = cv2.resize(mask, (max(1, width // pixel), max(1, height // pixel)), interpolation=cv2.INTER_AREA)
    coarse = np.where(coarse > 100, np.uint8(255), np.uint8(0))
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


def _pen(mask: np.ndarray, size: int) -> np.ndarray:
    """Strokes of one width, as of a pen, along the middle of the letter's (thinned from all sides in turn)."""
    thin = (cv2.GaussianBlur(mask, (0, 0), max(0.5, size / 40)) > 110).astype(np.uint8)
    left = -1
    while left != (left := int(thin.sum())):
        for corner in _THINNERS:
            thin -= cv2.morphologyEx(thin, cv2.MORPH_HITMISS, corner)
    for _ in range(size // 14):  # take ends off: what sticks out of a corner is as short as this
        ends = np.where(_neighbourhood(thin) == 2, thin, np.uint8(0))
        thin[(ends > 0) & (_neighbourhood(ends) < 2)] = 0  # two ends side by side are all that is left of a dot
    width = max(2, size // 20)
    return cv2.dilate(thin * np.uint8(255), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))


def _neighbourhood(pixels: np.ndarray) -> np.ndarray:
    """The sum of each pixel and its eight neighbours."""
    return cv2.filter2D(pixels, -1, np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT)


_THINNERS = [  # a pixel goes where these are set (1) and clear (-1) around it: two shapes, each from four sides
    np.rot90(shape, turn).astype(np.int8).copy()
    for turn in range(4)
    for shape in (np.array([[-1, -1, -1], [0, 1, 0], [1, 1, 1]]), np.array([[0, -1, -1], [1, 1, -1], [0, 1, 0]]))
]


_SHAPE_EFFECTS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "hollow": _hollow,
    "stencil": _stencil,
    "stripes": _stripes,
    "dots": _dots,
    "pixel": _pixel,
}
