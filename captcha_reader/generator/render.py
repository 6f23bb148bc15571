"""One captcha: settings and an index in, pixels and text out.

Every op draws random numbers of its own, keyed by (seed, index, op's name and place); text, style, fonts and size have
keys, too. So image i of seed s is the same bytes in any process, order and company, and an op that is added, removed or
changed leaves alone what the others draw.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np

from captcha_reader.config import ALPHANUMERIC, GeneratorConfig
from captcha_reader.errors import UserError
from captcha_reader.generator.canvas import Canvas, Layer, draw_text
from captcha_reader.generator.fonts import Fonts, find_fonts, shipped_faces
from captcha_reader.generator.png import encode_png
from captcha_reader.generator.randomness import Numbers, Stream
from captcha_reader.generator.registry import Stage
from captcha_reader.generator.schemes import DRAWN, STYLE_FILES, get_style, style_names
from captcha_reader.generator.styles import MAX_LENGTH, Step, Style
from captcha_reader.generator.words import draw_word
from captcha_reader.text import Alphabet

GENERATOR_VERSION = 15  # raise it when the same settings draw other pictures; up to 11 it was called FORMAT
USUAL_ALPHABET, USUAL_LENGTH = Alphabet.parse(ALPHANUMERIC).characters, (4, 8)  # where nobody asks for others


@dataclass(frozen=True)
class CaptchaSettings:
    """What decides, together with an index, every byte of a captcha. Small and picklable, to be sent to workers.

    Attributes:
        styles: names (`STYLES`, "mixed", "schemes", "rare", "heldout"), YAML files or `Style` objects; pictures take
            turns by their index.
        alphabet: characters to draw from, written out (no ranges); "": the style's own, or the usual ones.
        length: (fewest, most) characters, within 1 to 32; (0, 0): the style's own, or the usual one.
        seed: any integer.
        fonts: folder of fonts to use beside matplotlib's.

    Raises:
        UserError: a style in a file shares no character, or no length, with what is asked for, or names a font that is
            not there.
    """

    styles: tuple[str | Style, ...] = ("classic",)
    alphabet: str = ""
    length: tuple[int, int] = (0, 0)
    seed: int = 0
    fonts: str | None = None

    def __post_init__(self) -> None:
        files = [named for named in self.styles if isinstance(named, str) and named.endswith(STYLE_FILES)]
        for named, style in zip(files, map(get_style, files), strict=True):
            if self.alphabet and style.characters and not _shared(self.alphabet, style.characters):
                raise UserError(
                    f"the style {named} has none of the characters that are asked for: change its `characters` "
                    f"({style.characters:.40}), or ask for some of these"
                )
            unknown = [part for part in style.fonts if not any(part in path.name for path in shipped_faces())]
            if unknown and self.fonts is None:  # else it may name some of that folder, which count anyway
                names = ", ".join(path.stem for path in shipped_faces())
                raise UserError(
                    f"{named}: fonts is {list(style.fonts)}: there is no font {unknown[0]!r}: choose from {names}, or "
                    "parts of these names"
                )
            low, high = self.length
            if high and style.length and not (low <= style.length[1] and style.length[0] <= high):
                own, asked = (f"{a}-{b}" if a < b else str(a) for a, b in (style.length, self.length))
                raise UserError(
                    f"the style {named} has texts of {own} characters, and {asked} are asked for: "
                    "change its `length`, or ask for another"
                )

    def texts_of(self, named: str | Style) -> tuple[str, tuple[int, int]]:
        """Characters, and (fewest, most) of them, to draw texts from for one of the styles.

        They are what was asked for, else what a style says that goes beyond the usual. Named styles keep to the usual,
        and so do random schemes, which are drawn for readers of any captcha.
        """
        style = Style() if named in DRAWN else get_style(named)
        alphabet, length = USUAL_ALPHABET, USUAL_LENGTH
        if not set(style.characters) <= set(alphabet):
            alphabet = style.characters
        if style.length and _fitted(style.length, length) != style.length:
            length = style.length
        return self.alphabet or alphabet, self.length if any(self.length) else length

    @classmethod
    def from_config(cls, config: GeneratorConfig) -> CaptchaSettings:
        """Check the strings of a configuration.

        Raises:
            UserError: unknown style, bad alphabet or length.
        """
        names = tuple(name.strip() for name in config.style.split(",") if name.strip())
        if not names:
            raise UserError(f"--style names no style: choose from {style_names()}")
        # A file becomes the style that it describes: workers on other machines may not have it.
        styles = tuple(get_style(name) if name.endswith(STYLE_FILES) else name for name in names)
        for style in styles:
            get_style(style)
        alphabet = "" if config.alphabet is None else Alphabet.parse(config.alphabet).characters
        length = (0, 0) if config.length is None else parse_length(config.length)
        return replace(cls(names, alphabet, length, config.seed, config.fonts), styles=styles)


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
# Text


def generate_random_string(alphabet: str | Alphabet, length_range: tuple[int, int], rng: random.Random) -> str:
    """Draw a text.

    Args:
        alphabet: characters, written out; each is as likely as the others.
        length_range: (fewest, most) characters.
        rng: the only source of randomness.
    """
    characters = alphabet.characters if isinstance(alphabet, Alphabet) else alphabet
    return "".join(rng.choices(characters, k=rng.randint(*length_range)))


def draw_string(style: Style, alphabet: str, length: tuple[int, int], rng: random.Random) -> str:
    """A text that the style allows, of the characters and the length asked for; of all of these where none is left."""
    low, high = _fitted(style.length, length) if style.length else length
    if style.words:
        word = draw_word(rng, (low, high))
        word = {"upper": word.upper(), "title": word.title()}.get(style.words, word)
        if set(word) <= set(alphabet):
            return word
    if style.characters:
        alphabet = _shared(alphabet, style.characters) or alphabet
    return generate_random_string(alphabet, (low, high), rng)


def _fitted(own: tuple[int, int], asked: tuple[int, int]) -> tuple[int, int]:
    """That part of a style's own (fewest, most) characters that is asked for; the nearest where there is none."""
    low, high = (min(max(n, asked[0]), asked[1]) for n in own)
    return low, high


@lru_cache(maxsize=256)
def _shared(alphabet: str, characters: str) -> str:
    return "".join(c for c in alphabet if c in characters)


# ---------------------------------------------------------------------------------------------------------------------
# Drawing


def draw_captcha(text: str, style: Style, key: str, fonts: Fonts, numbers: Numbers | None = None) -> np.ndarray:
    """Draw all ops of a style, stage by stage.

    Args:
        text: at least one character.
        key: of the picture's random numbers, "seed/index".
        fonts: to draw with.
        numbers: those of the key and the style's names, where they are at hand.

    Returns:
        (height, width, channels) uint8 with 1 (gray), 3 (RGB) or 4 (RGBA) channels.
    """
    _single_threaded()
    numbers = numbers or Numbers(key, style.steps.names)
    stream = numbers.of("picture")
    height = round(stream.uniform(*style.height))
    width = None if style.width is None else round(stream.uniform(*style.width))
    canvas = Canvas(text, style, height, width, fonts)
    canvas.paths = choose_fonts(text, style, fonts, numbers.of("fonts"))
    lettered = False
    for stage, _, op, name in _in_order(style, numbers):
        if stage > Stage.TEXT and not lettered:
            _draw_letters(canvas)
            lettered = True
        op(canvas, numbers.of(name))
    if not lettered:
        _draw_letters(canvas)
    return _plain_colors(canvas.pixels) if canvas.channels == 4 else canvas.pixels


def choose_fonts(text: str, style: Style, fonts: Fonts, rng: random.Random) -> list[str]:
    """A font file for each character."""
    common = fonts.choices(style, text)
    if common and not style.font_per_letter:
        return [rng.choice(common)] * len(text)
    return [rng.choice(common or fonts.choices(style, character)) for character in text]


def _in_order(style: Style, numbers: Numbers) -> list[Step]:
    """The ops of this picture: of several layouts or grounds one, and clutter below or above the letters."""
    steps = style.steps
    if not steps.moving and not steps.one_of:
        return steps.fixed
    found = list(steps.fixed)
    found += [(op.stage_of(numbers.of(f"{name}/stage")), place, op, name) for _, place, op, name in steps.moving]
    found += [numbers.of(several[0][0].name).choice(several) for several in steps.one_of]
    found.sort()  # by stage and place, of which no two are the same
    return found


def _draw_letters(canvas: Canvas) -> None:
    canvas.without_letters = canvas.pixels.copy()
    for letter in canvas.letters:
        if letter.glyph.under is not None:
            ground = cv2.mean(canvas.pixels)[: canvas.channels]
            tone = canvas.under_tone
            color = tuple(a + tone * (b - a) for a, b in zip(ground, letter.color, strict=True))
            letter.below.insert(0, Layer(letter.glyph.under, color))
    draw_text(canvas.pixels, canvas.letters, canvas.antialias)


def _plain_colors(pixels: np.ndarray) -> np.ndarray:
    """Undo the premultiplication: colors as PNG stores them; opacity, divided by 255 / 255, stays."""
    opacity = cv2.extractChannel(pixels, 3)
    return cv2.divide(pixels, cv2.merge([opacity, opacity, opacity, np.full_like(opacity, 255)]), scale=255)


@lru_cache(maxsize=1)
def _single_threaded() -> None:
    """OpenCV's own threads only cost time on pictures this small, and would fight with the other workers."""
    cv2.setNumThreads(1)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures


def render_image(index: int, settings: CaptchaSettings, text: str | None = None) -> tuple[np.ndarray, str]:
    """Captcha `index` of the settings, as training takes it: no file, no state, safe in any process.

    Args:
        index: 0, 1, 2, ...; the same index gives the same pixels.
        settings: picklable.
        text: what it says; by default a random string.

    Returns:
        ((height, width, channels) uint8 with 1 (gray), 3 (RGB) or 4 (RGBA) channels, text).

    Raises:
        UserError: unknown style, or a character that no font can draw.
    """
    key = f"{settings.seed}/{index}"
    named, stream = settings.styles[index % len(settings.styles)], Stream()
    style = get_style(named, stream.restart(key, "style") if named in DRAWN else None)
    numbers = Numbers(key, style.steps.names, stream)
    if text is None:
        alphabet, length = settings.texts_of(named)
        fonts = find_fonts(alphabet, settings.fonts)
        text = draw_string(style, alphabet, length, numbers.of("text"))
    else:
        fonts = find_fonts("".join(sorted(set(text))), settings.fonts)
    return draw_captcha(text, style, key, fonts, numbers), text


def render_captcha(index: int, settings: CaptchaSettings) -> tuple[bytes, str]:
    """As `render_image`, with the picture as a PNG file."""
    pixels, text = render_image(index, settings)
    return encode_png(pixels), text
