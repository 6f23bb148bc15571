"""The fonts that captchas are drawn with, and single letters as a font has them.

What is done to the shape of a letter stands in `ops/glyphs.py`; `shaped_glyph` keeps the results.
"""

from __future__ import annotations

import hashlib
import math
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageFont

from captcha_reader.errors import UserError

if TYPE_CHECKING:
    from captcha_reader.generator.styles import Style


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

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of the files."""
        return tuple(Path(path).name for path in self.paths)

    @cached_property
    def display(self) -> tuple[bool, ...]:
        """For each file whether it is a display font, by its name and its folder's, which says more in a package."""
        return tuple(bool(DISPLAY_FACES.search("/".join(Path(path).parts[-2:]))) for path in self.paths)

    def choices(self, style: Style, characters: str) -> tuple[str, ...]:
        """Files that can draw all `characters`: those that the style wants, or else any; () if none can."""
        needed = frozenset(characters)
        wanted = _wanted(self, style.fonts, style.font_part, style.faces)
        if style.font_choice and wanted:
            # From each place on, the first that can: so a text with a rare character moves few of a scheme's fonts.
            starts = [min(int(place * len(wanted)), len(wanted) - 1) for place in style.font_choice]
            found = [
                wanted[k]
                if needed <= self.drawable[wanted[k]]
                else next((i for i in chain(wanted[k:], wanted[:k]) if needed <= self.drawable[i]), None)
                for k in starts
            ]
        else:
            found = [i for i in wanted if needed <= self.drawable[i]]
        able = [i for i in found if i is not None] or [i for i, has in enumerate(self.drawable) if needed <= has]
        return tuple(self.paths[i] for i in able)


@lru_cache(maxsize=256)
def _wanted(fonts: Fonts, parts: tuple[str, ...], font_part: str, faces: str) -> tuple[int, ...]:
    names = fonts.names
    first_own = len(names) - fonts.own
    wanted = [i for i, name in enumerate(names) if i >= first_own or not parts or any(part in name for part in parts)]
    if font_part != "all":
        held_out = [i for i in wanted if zlib.crc32(names[i].encode()) % 10 == 0]
        part = held_out if font_part == "heldout" else [i for i in wanted if i not in held_out]
        wanted = part or wanted
    if faces != "all":
        wanted = [i for i in wanted if fonts.display[i] == (faces == "display")] or wanted
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


@lru_cache(maxsize=1)
def shipped_faces() -> tuple[Path, ...]:
    """The files of matplotlib's text faces."""
    import matplotlib

    shipped = Path(matplotlib.get_data_path(), "fonts", "ttf")
    # Left out: symbols in single sizes, and Computer Modern, which follows TeX's own encoding.
    faces = (p for p in sorted(shipped.glob("*.ttf")) if re.match(r"DejaVu(Sans|Serif)|STIXGeneral", p.name))
    return tuple(p for p in faces if "Display" not in p.name)


def _usable_fonts(alphabet: str, folder: str | None) -> Fonts:
    from matplotlib.ft2font import FT2Font  # says which characters a font has; Pillow draws a box for the others

    faces = shipped_faces()
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
        mask: (h, w) uint8 coverage with an empty border, from a font size of 42 on of 3 pixels or more.
        x: from the pen to the mask's left edge.
        y: from the base line down to the mask's top edge (negative: above).
        ink: width of the character without the border.
        under: what is drawn below it, in the same coordinates, or None.
    """

    mask: np.ndarray
    x: int
    y: int
    ink: float
    under: Glyph | None = None

    @cached_property
    def box(self) -> tuple[float, float, float, float]:
        """Middle of what is drawn of the mask, across and down, and how far from there all is empty, in pixels."""
        left, top, wide, high = cv2.boundingRect(self.mask)
        return left + (wide - 1) / 2, top + (high - 1) / 2, (wide + 1) / 2, (high + 1) / 2

    @cached_property
    def reach(self) -> tuple[int, int]:
        """From the base line to the top and to the bottom of the character, rows downwards (negative: above)."""
        rows = np.flatnonzero(cv2.reduce(self.mask, 1, cv2.REDUCE_MAX) > 60)
        return (self.y + int(rows[0]), self.y + int(rows[-1]) + 1) if len(rows) else (self.y, self.y)


@lru_cache(maxsize=1024)  # all of the recipe's: opening one takes as long as drawing a letter
def _load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


MASTER = 84  # pixels, font size from which glyphs of half or a third of it are shrunk: a tenth of FreeType's time


@lru_cache(maxsize=65536)
def load_glyph(path: str, character: str, size: int, hard: bool = False) -> Glyph:
    """Draw a character, once per process as long as the cache has room.

    Args:
        size: font size in pixels.
        hard: pixels are covered or not, nothing between; fitted to pixels as fonts for screens were.
    """
    common = math.gcd(size, MASTER)
    part, whole = size // common, MASTER // common
    if part < whole <= 6 and not hard:
        return _shrunk(_master(path, character), part, whole)
    return _drawn(path, character, size, hard)


@lru_cache(maxsize=65536)  # the letters and digits of a thousand fonts: 200 MB
def _master(path: str, character: str) -> Glyph:
    return _drawn(path, character, MASTER)


def _drawn(path: str, character: str, size: int, hard: bool = False) -> Glyph:
    """The character as FreeType draws it."""
    font, border = _load_font(path, size), 2 + size // 16  # room for thicker strokes
    try:
        drawn, (left, top) = font.getmask2(character, "1" if hard else "L", anchor="ls")
    except OSError:  # FreeType's raster overflows on some letters of one pixel: nothing is seen of them
        return Glyph(np.zeros((1 + 2 * border, 1 + 2 * border), np.uint8), -border, -border, 1)
    wide, high = drawn.size
    # Through an image: `bytes` of what FreeType drew goes pixel by pixel.
    inner = np.asarray(Image.Image()._new(drawn)) if wide and high else np.zeros((1, 1), np.uint8)
    mask = cv2.copyMakeBorder(inner, border, border, border, border, cv2.BORDER_CONSTANT)
    return Glyph(mask, left - border, top - border, max(wide, 1))


def _shrunk(glyph: Glyph, part: int, whole: int) -> Glyph:
    """The glyph at `part` / `whole` of its size, with the pen still on a pixel's corner."""
    high, wide = glyph.mask.shape
    left, top = glyph.x % whole, glyph.y % whole
    right, bottom = -(wide + left) % whole, -(high + top) % whole
    mask = cv2.copyMakeBorder(glyph.mask, top, bottom, left, right, cv2.BORDER_CONSTANT)
    size = (mask.shape[1] // whole * part, mask.shape[0] // whole * part)
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    x, y = (glyph.x - left) // whole * part, (glyph.y - top) // whole * part
    return Glyph(mask, x, y, max(glyph.ink * part / whole, 1))


@lru_cache(maxsize=16384)
def shaped_glyph(
    path: str, character: str, size: int, effects: tuple[tuple[Callable[..., Glyph], tuple[float | str, ...]], ...]
) -> Glyph:
    """A character after effects, each a function of (glyph, character, size, *arguments), one after the other."""
    *before, (effect, arguments) = effects
    # What a letter's shadow or edge is made of was shaped for the letter itself.
    glyph = shaped_glyph(path, character, size, tuple(before)) if before else load_glyph(path, character, size)
    return effect(glyph, character, size, *arguments)


# ---------------------------------------------------------------------------------------------------------------------
# What a training was drawn with

DISPLAY_FACES = re.compile(
    r"aenigma|lobster|kaushan|dancing|kristi|cherry|staypuft|comic|script|cursive|hand|kiloji|ecolier|isabella|havana"
    r"|rampart|reggae|rock|stick|yusei|dot|lemonada|sketch|fantasma|radis|smiley|chancery|leckerli|brush|gothic"
    r"|oldania|wine|linex|sjfonts|delphine|steve|blanken|breip|femke|ruf|mirage|summersby|tomson|beckett|oblique",
    re.IGNORECASE,
)


def font_list(folder: str | None = None, alphabet: str = "Aa0") -> list[dict[str, str]]:
    """Name and SHA-256 of every font that captchas are drawn with, for a training's metadata.

    Args:
        folder: as `find_fonts`.
        alphabet: as `find_fonts`.

    Returns:
        `{"name": file name, "sha256": hash}`, sorted by name.
    """
    files = [Path(path) for path in find_fonts(alphabet, folder).paths]
    rows = [{"name": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in files]
    return sorted(rows, key=lambda row: (row["name"], row["sha256"]))
