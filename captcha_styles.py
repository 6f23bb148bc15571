"""What captchas look like: the fields of a `Style`, the named styles, and random schemes.

**A new style** is one more entry of `STYLES`, below the class `Style` that explains its fields; no other place needs a
change. A *scheme* is a `Style` drawn at random: `random_scheme(n)` is always the same one, and there is no end of them.
Lengths are pixels and colours are 0-255 unless the text says otherwise.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from captcha_reader.errors import UserError

Range = tuple[float, float]
Relief = Literal["", "emboss", "charcoal"]
Dither = Literal["", "random", "ordered"]
Effect = Literal["", "hollow", "edge", "shadow", "stencil", "stripes", "dots", "pixel", "pen"]
Cells = Literal["", "disc", "gap"]


@dataclass(frozen=True)
class Style:
    """How captchas of one kind look. A `Range` is (lowest, highest); a value is drawn from it for every picture.

    Pictures come about in this order: background, shapes, decoys, spots, lines below the text, text, warps, lines above
    the text, negatives, frame, relief, inversion, dots, blur, noise, loss of resolution, of levels, larger pixels,
    JPEG. A range of (0, 0) leaves its step out.
    """

    # Picture
    height: Range = (60, 60)
    """Pixels."""
    width: Range | None = (160, 160)
    """Pixels. None: as wide as the text needs. Too long a text is shrunk to fit."""
    mode: Literal["L", "RGB", "RGBA"] = "RGB"
    """Grey, colour, or colour on a transparent background."""
    background: tuple[str, ...] = ("plain",)
    """One is drawn: `plain`, `gradient` (between two colours), `texture` (soft clouds), `grain` (coarse coloured
    noise), `stripes`, `patches` (coloured rectangles), `kaptcha` (that library's gradient, whatever
    `background_level`). Ignored for RGBA."""
    background_level: Range = (215, 255)
    """Brightness of the background."""
    background_tint: float = 0.25
    """0: grey, 1: strong colours."""

    # Text
    characters: str = ""
    """Only these, as far as the alphabet asked for has them; "": all."""
    length: tuple[int, int] | None = None
    """(fewest, most) characters, within the length asked for; None: that length."""
    fonts: tuple[str, ...] = ()
    """Only matplotlib's fonts whose file name has one of these parts (fonts of `--fonts` always count); (): all."""
    font_choice: tuple[float, ...] = ()
    """Only the fonts at these places, 0 to 1, in the list of those that remain; (): all."""
    font_part: Literal["all", "train", "heldout"] = "all"
    """Nine fonts in ten are for training, the others are held out; chosen by file name."""
    font_per_letter: bool = True
    """Draw a font for every letter, or one for the word."""
    text_size: Range = (0.55, 0.7)
    """Font size as a part of the picture's height."""
    bitmap: tuple[int, int] = (0, 0)
    """Font size in pixels of letters that are hard-edged bitmaps, as old fixed fonts are; (0, 0): as `text_size` says.
    They stay sharp as long as nothing turns, leans or stretches them."""
    size_jitter: float = 0
    """Letters are larger or smaller by up to this part."""
    text_level: Range = (0, 120)
    """Brightness of the letters."""
    text_tint: float = 0.9
    """0: grey letters, 1: strong colours."""
    colour_per_letter: bool = True
    """Draw a colour for every letter, or one for the word."""
    one_ink: float = 0
    """Probability that letters, lines, lattice, spots and strokes of a picture have one colour, one for letters."""
    ink: tuple[float, ...] | None = None
    """That colour, if it is known: one number for each channel of `mode`."""
    rotation: float = 20
    """Letters turn by up to this many degrees either way."""
    shear: float = 0.15
    """Letters lean by up to this part of their height either way."""
    uneven: float = 0
    """Letters are wider or narrower by up to this part, each by itself."""
    slant: float = 0
    """All letters of a word lean by up to this part of their height, to the same side."""
    even: float = 0
    """Probability that all letters of a word are stretched to the height of a capital."""
    boxed: float = 0
    """Probability that all letters of a word are stretched or squeezed to one width."""
    corners: float = 0
    """The corners of each letter's box move by up to this part of its sides, each by itself."""
    stretch: Range = (0.9, 1.1)
    """Width of the letters against what the font says."""
    spacing: Range = (0.02, 0.12)
    """Gap between letters as a part of the font size; below zero they overlap."""
    jostle: float = 0
    """Each gap is wider or narrower than `spacing` says, by up to this part of the font size: some letters overlap, by
    half of the narrower one at most, and others stand apart."""
    spread: bool = False
    """Letters share the picture's width evenly, whatever `spacing`."""
    bounce: float = 0.08
    """Letters leave the common base line by up to this part of the font size."""
    drop: float = 0
    """The word leaves its height by up to this part of the picture's height."""
    left: Range | None = None
    """Pixels left of the first letter at a length of 5, in proportion to 1 / (2 + length). None: anywhere."""
    baseline: float | None = None
    """Base line of the letters as a part of the height from above. None: capitals stand in the middle."""
    margin: float = 6
    """Least distance in pixels of the word from the left and right edge; below zero letters may be cut off."""
    weight: Range = (0, 0)
    """Added to the thickness of strokes, as a part of the font size; below zero they get thinner."""
    opacity: Range = (1, 1)
    """Part of what is below a letter that it hides; below 1, letters that overlap are seen through each other."""
    hollow: float = 0
    """Probability that a word is drawn in outlines."""
    effect: Effect = ""
    """What is done to the letters: `hollow` (outlines), `edge` (outlined in a second colour), `shadow`, `stencil`,
    `stripes`, `dots`, `pixel`, `pen` (strokes as thin as a pen's), or nothing."""
    effect_level: Range = (0, 255)
    """Brightness of shadows and edges."""
    segments: bool = False
    """Digits are those of a calculator, of seven straight pieces; pieces that are off have the colour of shadows."""
    tiles: float = 0
    """Probability that each letter has a tile of its own, letters and ground with their colours exchanged."""
    antialias: bool = True
    """False: hard edges."""

    # Clutter
    spots: Range = (0, 0)
    """Number of dots."""
    spot_radius: Range = (1, 2)
    """Pixels."""
    spot_kinds: tuple[str, ...] = ("disc",)
    """One is drawn for each dot: `disc`, `ring`, `square` (turned, filled), or `dash` (a line, four times as long)."""
    lines: Range = (0, 0)
    """Number of lines."""
    line_kinds: tuple[str, ...] = ("straight",)
    """One is drawn for each line: `straight`, `arc`, `wave`, `kinked` (a few straight pieces, often ever thinner),
    `rings` (ellipses around a point), `loop` (one ellipse, up to the picture's height), or `taper` (the pairs of the
    Kaptcha library, kinked and thick at the left end)."""
    line_width: Range = (1, 2)
    """Pixels, rounded; `taper` has its own. Of a `kinked` line, its thickest piece."""
    line_level: Range = (0, 160)
    """Brightness of lines and spots."""
    line_tint: float = 0.9
    """0: grey, 1: strong colours."""
    lines_above: float = 0.5
    """Probability that lines and lattice lie above the text and stay unwarped."""
    strokes: Range = (0, 0)
    """Number of short strokes among the lines: hooks, loops and ticks as thick as letters are, or thinner."""
    hooks: Range = (0, 0)
    """Number of such strokes through the first letter or the last one, in the letters' colour."""
    cuts: Range = (0, 0)
    """Number of lines, as thick as the others, along which the letters are cut away."""
    grid: Range = (0, 0)
    """Pixels between the lines of a lattice; 0: none."""
    frame: Range = (0, 0)
    """Thickness in pixels of a frame around the picture, of a colour as lines have."""
    shapes: Range = (0, 0)
    """Number of rectangles, ellipses and polygons below the text, filled or in outline."""
    shape_level: Range = (140, 255)
    """Brightness of shapes, lattice and decoys."""
    decoys: Range = (0, 0)
    """Number of small characters below the text that do not count."""
    decoy_size: Range = (0.2, 0.4)
    """Of these, as a part of the letters'."""
    negatives: Range = (0, 0)
    """Number of shapes within which the finished picture is inverted."""
    own_levels: bool = False
    """Within negatives and checks, the darkest and the lightest level of each channel change places, so that no other
    colours appear. False, or on a transparent ground: black and white change places."""
    checks: Range = (0, 0)
    """Side in pixels of a chequerboard; within every other field the picture is inverted."""

    # Warps
    elastic: Range = (0, 0)
    """Largest shift in pixels of a smooth random displacement."""
    elastic_cell: float = 24
    """Pixels between the independent points of that displacement: smaller is rougher."""
    wave: Range = (0, 0)
    """Amplitude in pixels of sine waves along both axes."""
    wave_length: Range = (40, 120)
    """Their length in pixels."""
    ripple: Range = (0, 0)
    """Amplitude in pixels of rings around a point of the picture."""
    ripple_length: Range = (10, 40)
    """Pixels from ring to ring."""
    tilt: float = 0
    """The whole picture turns by up to this many degrees either way."""
    perspective: float = 0
    """Its corners move by up to this part of its sides."""
    arc: Range = (0, 0)
    """The word's middle sinks by this part of the height; below zero it rises."""
    swirl: Range = (0, 0)
    """Degrees by which the middle is turned against the border."""
    pinch: Range = (0, 0)
    """0: none; above, the middle shrinks, below, it swells."""
    fan: Range = (0, 0)
    """Degrees of the arc along which the picture's width is laid, letters turned with it; it rises or hangs by lot."""
    torn: Range = (0, 0)
    """The picture is cut into strips, standing or lying; each moves along itself by up to so many pixels."""
    lenses: Range = (0, 0)
    """Number of discs within which the picture is larger, smaller, or whirls."""
    water: bool = False
    """Concentric ripples around the centre, then fixed sine waves, as in the Kaptcha library."""

    # Finish
    invert: float = 0
    """Probability of light letters on a dark ground."""
    fringe: Range = (0, 0)
    """Pixels by which red and blue are displaced, each by itself, as in a bad print."""
    stipple: Range = (0, 0)
    """Radius in pixels, 1 at least, of dots, of which the whole picture then consists."""
    stray_dots: float = 0
    """Of those dots that lie on the ground, draw this part alone, in letters' colours; 0: all, in the ground's."""
    dither: Dither = ""
    """Channels have two levels; which one a pixel gets is drawn by lot for each, or by an `ordered` pattern, so that
    brightness becomes density. Or not."""
    dither_cell: int = 1
    """Side in pixels of what is drawn by lot together."""
    relief: Relief = ""
    """All is drawn as its edges: `emboss` (lit from one side), `charcoal` (dark on white), or not."""
    blur: Range = (0, 0)
    """Standard deviation in pixels of a Gaussian."""
    noise: Range = (0, 0)
    """Standard deviation, in brightness levels, of noise on every pixel."""
    salt: Range = (0, 0)
    """Part of the pixels set to black or white."""
    shrink: Range = (1, 1)
    """Resolution is lost: the picture is shrunk by this factor and enlarged again."""
    levels: int = 0
    """Brightness levels per channel, as in a palette; 0: all."""
    enlarge: tuple[int, int] = (1, 1)
    """Each pixel becomes a square of so many by as many; `height` and `width` are those before."""
    cells: Cells = ""
    """Such squares of three by three or more become a `disc` each, or leave a `gap` to the next, or are whole. Not on a
    transparent ground."""
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
    # Coloured letters of one font, often small and far apart, on a transparent ground, crossed by thin black lines; as
    # wide as the text needs.
    "thin": Style(
        height=(80, 80),
        width=None,
        mode="RGBA",
        font_per_letter=False,
        text_size=(0.32, 0.64),
        text_level=(20, 230),
        text_tint=1,
        rotation=20,
        spacing=(-0.05, 1.5),
        bounce=0.05,
        margin=45,
        weight=(-0.01, 0.02),
        hollow=0.1,
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


# ---------------------------------------------------------------------------------------------------------------------
# Schemes

SCHEMES, HELD_OUT_SCHEMES = "schemes", "heldout"  # draw a scheme of the one or the other part for every picture
RARE_SCHEMES = "rare"  # draws one for training that has some idea that few have
NUMBER_OF_SCHEMES = 100_000  # that these draw from

DIGITS, UPPER, LOWER = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
UNLIKE = (
    "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz"  # what captchas use that spare their readers 0 and O
)
CHARACTERS = (  # sets of them, and how often each is drawn
    (DIGITS, UPPER, LOWER, DIGITS + UPPER, DIGITS + LOWER, UPPER + LOWER, UNLIKE, ""),
    (11, 13, 13, 18, 18, 5, 12, 10),
)


TIDY = 0.75  # of the schemes are of the kind that most libraries leave it at: letters, some lines or dots, a warp


@lru_cache(maxsize=4096)
def random_scheme(number: int, held_out: bool = False, rare: bool = False) -> Style:
    """Scheme `number`: what a captcha library with its own mind, or its user, might have settled on.

    A scheme is of some kind in five respects: letters, background, warp, lines, layout. One combination of kinds in ten
    (by a hash), and one font in ten, are held out: a model trained on the others meets none of them.

    Args:
        number: any integer; the same number gives the same scheme.
        held_out: from the held-out part, else from the part for training.
        rare: of the part for training, one with some idea that few captchas have.
    """
    attempt = 0
    while True:
        rng = random.Random(f"scheme/{number}/{attempt}")
        style, kinds = _draw_scheme(rng, "heldout" if held_out else "train", rare)
        if (zlib.crc32("/".join(kinds).encode()) % 10 == 0) == held_out:
            return style
        attempt += 1


def _pick(rng: random.Random, **weights: float) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def _around(rng: random.Random, low: float, high: float, width: float = 0.5) -> Range:
    """A range within (low, high) that spans at most the part `width` of it."""
    span = (high - low) * width * rng.random()
    start = rng.uniform(low, high - span)
    return start, start + span


def _up_to(rng: random.Random, probability: float, high: float) -> Range:
    """(0, 0), or with `probability` a range from somewhere up to at most `high`."""
    return _around(rng, 0.1 * high, high) if rng.random() < probability else (0, 0)


def _draw_scheme(
    rng: random.Random, font_part: Literal["train", "heldout"], rare: bool = False
) -> tuple[Style, tuple[str, ...]]:
    """A scheme and its kinds."""
    tidy = rng.random() < TIDY
    if tidy:
        effect = _pick(rng, none=86, hollow=4, edge=3, shadow=4, stencil=0.5, stripes=0.5, dots=0.5, pixel=1.5)
        background = _pick(rng, plain=56, gradient=12, texture=6, grain=5, stripes=4, patches=3, clear=14)
    else:
        effect = _pick(rng, none=76, hollow=6, edge=5, shadow=5, stencil=2, stripes=2, dots=2, pixel=2)
        background = _pick(rng, plain=48, gradient=14, texture=10, grain=7, stripes=5, patches=5, clear=11)
    warp = _pick(rng, none=40, elastic=12, wave=18, ripple=6, arc=6, swirl=5, pinch=5, perspective=8)
    line = _pick(rng, none=30, straight=26, arc=15, wave=12, kinked=8, grid=9)
    layout = _pick(rng, word=41, spread=31, tight=14, scattered=14)

    # A height that most captchas have, now and then a tiny or a huge one.
    height = round(_weighted(rng, [(20, 30, 8), (30, 50, 40), (50, 80, 39), (80, 140, 10), (140, 360, 3)]))
    aspect = _weighted(rng, [(1.7, 2.4, 22), (2.4, 3.6, 48), (3.6, 5, 20), (5, 8, 10)])
    small = height < 30
    fewest = rng.choices(range(3, 9), [6, 30, 22, 26, 8, 8])[0]
    length = (fewest, fewest if rng.random() < 0.6 else min(10, fewest + rng.randint(1, 4)))
    most = length[1]
    aspect = max(aspect, 0.42 * most * (0.9 if layout == "tight" else 1.0))  # else letters would be too thin to read

    colours = _draw_colours(rng, background, tidy)
    ink = (0.0, 0.0) if rng.random() < 0.15 else colours["text_level"]
    line_level, line_tint = {
        "text": (ink, colours["text_tint"]),
        "ground": (colours["background_level"], colours["background_tint"]),
        "any": ((0.0, 255.0), rng.random()),
    }[_pick(rng, text=50, ground=15, any=35)]
    turn = _weighted(rng, [(0, 2, 28), (2, 15, 38), (15, 30, 27), (30, 45, 7)])
    warps = {
        "elastic": {"elastic": _around(rng, 0.02, 0.06), "elastic_cell": rng.uniform(0.3, 1.2)},
        "wave": {"wave": _around(rng, 0.03, 0.1), "wave_length": _around(rng, 0.7, 2.5)},
        "ripple": {"ripple": _around(rng, 0.01, 0.05), "ripple_length": _around(rng, 0.05, 0.9)},
        "arc": {"arc": _around(rng, -0.25, 0.25, 1)},
        "swirl": {"swirl": _around(rng, -35, 35, 1)},
        "pinch": {"pinch": _around(rng, -0.35, 0.3, 1)},
        "perspective": {"perspective": rng.uniform(0.03, 0.14), "tilt": rng.uniform(0, 9)},
    }.get(warp, {})
    for name in ("elastic", "wave", "wave_length", "ripple", "ripple_length"):  # drawn as parts of the height
        if name in warps:
            warps[name] = (warps[name][0] * height, warps[name][1] * height)
    if "elastic_cell" in warps:
        warps["elastic_cell"] = max(6.0, warps["elastic_cell"] * height)
    most_lines = rng.choice([2, 4, 6] if tidy else [2, 4, 8])
    # Many thick lines would leave nothing to read.
    thickest = max(1.0, height * (0.03 if line == "grid" else min(0.07, 0.12 / most_lines)))
    style = Style(
        height=(height, height),
        width=(round(height * aspect), round(height * aspect)),
        mode="RGBA" if background == "clear" else "L" if rng.random() < 0.15 else "RGB",
        background=("plain" if background == "clear" else background,),
        characters=rng.choices(*CHARACTERS)[0],
        length=length,
        font_choice=tuple(rng.random() for _ in range(rng.choices([1, 2, 4, 8], [45, 20, 20, 15])[0])),
        font_part=font_part,
        font_per_letter=rng.random() < 0.5,
        text_size=_around(rng, 0.6 if small else 0.4, 0.95 if small else 0.85, 0.4),
        size_jitter=rng.uniform(0, 0.25) if rng.random() < 0.35 else 0,
        colour_per_letter=rng.random() < 0.45,
        rotation=turn * (0.4 if small else 1),
        shear=rng.uniform(0, 0.3) if rng.random() < 0.5 else 0,
        stretch=_around(rng, 0.75, 1.25),
        spacing={
            "word": _around(rng, -0.02, 0.15),
            "tight": _around(rng, -0.14, -0.02),
            "scattered": _around(rng, 0.05, 0.5),
            "spread": (0.0, 0.0),
        }[layout],
        spread=layout == "spread",
        bounce=rng.uniform(0, 0.2 if layout == "scattered" else 0.12),
        drop=rng.uniform(0, 0.1),
        margin=height * _weighted(rng, [(-0.08, 0, 6), (0.02, 0.15, 64), (0.15, 0.5, 30)]),
        weight=_around(rng, -0.02, 0.06),
        effect="" if effect == "none" or (small and effect != "edge") else effect,  # type: ignore[arg-type]
        effect_level=_around(rng, 0, 255),
        antialias=rng.random() < 0.85,
        spots=_up_to(rng, 0.25 if tidy else 0.45, rng.choice([15, 60, 150 if tidy else 300]) * aspect / 3),
        spot_radius=(0, rng.choice([0, 0, 1, 1, 2]) * max(1, height / 60)),
        lines=(0, 0) if line in ("none", "grid") else _around(rng, 1, most_lines),
        line_kinds=(line,) if line not in ("none", "grid") else ("straight",),
        line_width=_around(rng, 1, max(1.2, thickest)),
        line_level=line_level,
        line_tint=line_tint,
        lines_above=rng.choice([0.0, 0.5, 1.0]),
        grid=_around(rng, 0.12 * height, 0.5 * height) if line == "grid" else (0, 0),
        shapes=_up_to(rng, 0 if tidy else 0.16, 8),
        shape_level=line_level if rng.random() < 0.3 else colours["background_level"],
        decoys=_up_to(rng, 0 if tidy else 0.06, 25),
        negatives=_up_to(rng, 0 if tidy else 0.03, 3),
        blur=_up_to(rng, 0.2, height * (0.015 if tidy else 0.025)),
        noise=_up_to(rng, 0.08 if tidy else 0.25, 15 if tidy else 30),
        salt=_up_to(rng, 0.05 if tidy else 0.14, 0.03 if tidy else 0.06),
        shrink=(1, 1) if small or rng.random() < 0.9 else _around(rng, 1.1, max(1.2, min(2.5, height / 24))),
        levels=rng.choice([2, 3, 4, 6]) if rng.random() < 0.08 else 0,
        jpeg=(lambda low: (low, min(95, low + 30)))(rng.randint(12, 80)) if rng.random() < 0.3 else None,
        strokes=_up_to(rng, 0.04 if tidy else 0.25, 4),
        hooks=_up_to(rng, 0.1 if tidy else 0.25, 3),
        slant=rng.uniform(0.15, 0.5) if rng.random() < 0.12 else 0,
        even=1 if rng.random() < 0.12 else 0,
        frame=_around(rng, 1, max(1.5, height * 0.05)) if rng.random() < 0.12 else (0, 0),
        uneven=rng.uniform(0.1, 0.4) if rng.random() < (0.15 if tidy else 0.25) else 0,
        relief=rng.choice(("emboss", "charcoal")) if rng.random() < (0.02 if tidy else 0.05) and not small else "",  # type: ignore[arg-type]
        **colours,
        **warps,
    )
    if line == "arc" and rng.random() < 0.2:
        style = replace(style, line_kinds=("rings",), lines=(1, rng.choice([1, 2])), line_width=(1, 1))
    if line == "straight" and rng.random() < 0.2:  # instead of a few lines that are seen, dozens that are hardly seen
        low, high = colours["background_level"]
        style = replace(
            style,
            lines=_around(rng, 10, 80),
            line_width=(1, 1),
            line_level=(max(0.0, low - 60), low) if low > 127 else (high, min(255.0, high + 60)),
            line_tint=rng.choice([0.2, 0.6, 1.0]),
            lines_above=rng.choice([0.0, 0.0, 0.0, 1.0]),
        )
    if font_part == "train":
        style = _with_young_traits(rng, style, rare)
    return style, (effect, background, warp, line, layout)


def _with_young_traits(rng: random.Random, style: Style, surely_rare: bool) -> Style:
    """The scheme with what schemes came to have after the held-out ones were drawn and read by eye; those stay."""
    if rng.random() < 0.07:
        return _in_bitmaps(rng, style)
    height = style.height[1]
    traits: dict[str, Any] = {}
    if rng.random() < 0.35:
        traits |= {"jostle": rng.uniform(0.05, 0.35)}
    if rng.random() < 0.35:
        traits |= {"one_ink": 1, "colour_per_letter": False}
    if rng.random() < 0.12:
        traits |= {"spots": _around(rng, 8, 60), "spot_radius": (0, max(1, 0.03 * height))}
    if rng.random() < 0.15:
        traits |= {"corners": rng.uniform(0.05, 0.2)}
    if rng.random() < 0.12:
        traits |= {"tilt": rng.uniform(2, 12)}
    if rng.random() < 0.1:
        traits |= {"slant": rng.uniform(0.2, 0.5)}
    if style.even and rng.random() < 0.6:
        traits |= {"boxed": 1}
    if rng.random() < 0.1:
        traits |= {"spacing": _around(rng, -0.18, -0.04), "spread": False}
    if rng.random() < 0.08:
        traits |= {"stretch": _around(rng, 0.55, 0.8)}
    if rng.random() < 0.08:
        traits |= {"size_jitter": rng.uniform(0.25, 0.5)}
    if rng.random() < 0.06:
        traits |= {"rotation": rng.uniform(35, 55)}
    if rng.random() < 0.06:
        traits |= {"text_size": _around(rng, 0.2, 0.4)}
    if rng.random() < 0.08:
        traits |= {"wave": _around(rng, 0.02 * height, 0.07 * height), "wave_length": (0.25 * height, 0.8 * height)}
    if rng.random() < 0.05:
        traits |= {"opacity": _around(rng, 0.45, 0.9)}
        traits |= {"spacing": _around(rng, -0.2, 0), "spread": False, "colour_per_letter": True, "one_ink": 0}
    if rng.random() < 0.1:  # shapes or small characters between ground and letters in brightness
        ground, letters = sum(style.background_level) / 2, sum(style.text_level) / 2
        traits |= {"shape_level": tuple(sorted((ground, ground + 0.5 * (letters - ground))))}
        traits |= rng.choice([{"shapes": _around(rng, 1, 14)}, {"decoys": (5, 30), "decoy_size": (0.2, 0.6)}])
    rare = _rare_traits(rng, style)
    while surely_rare and not rare:
        rare = _rare_traits(rng, style)
    if rare and rng.random() < 0.7:  # who has such an idea mostly leaves it at that
        traits |= dict.fromkeys(("lines", "spots", "strokes", "hooks", "shapes", "decoys", "grid", "noise"), (0, 0))
    return replace(style, **(traits | rare))


def _rare_traits(rng: random.Random, style: Style) -> dict[str, Any]:
    """Fields of what few captchas do, each by itself; mostly none."""
    if rng.random() < 0.25:
        return {}
    height = style.height[1]
    ground, letters = sum(style.background_level) / 2, sum(style.text_level) / 2
    traits: dict[str, Any] = {}
    if rng.random() < 0.06 and style.mode != "RGBA":
        traits |= rng.choice([{"negatives": _around(rng, 1, 6)}, {"checks": _around(rng, 0.2 * height, 0.8 * height)}])
        traits |= {"own_levels": rng.random() < 0.7}
    if rng.random() < 0.05:
        traits |= {"spots": _around(rng, 5, 50), "spot_radius": (1, max(1.5, 0.06 * height))}
        traits |= {"spot_kinds": rng.choice([("square",), ("ring",), ("dash",), ("disc", "ring", "square", "dash")])}
    if rng.random() < 0.05:
        traits |= {"lines": _around(rng, 1, 8), "line_kinds": ("loop",), "lines_above": 1.0}
        traits |= {"line_width": _around(rng, 1, max(1.5, 0.05 * height))}
    if rng.random() < 0.05:
        traits |= {"cuts": _around(rng, 1, 6)}
    if rng.random() < 0.04:  # whole words' worth of letters, fainter than those that count
        faint = ground + rng.uniform(0.15, 0.5) * (letters - ground)
        traits |= {"shape_level": (min(ground, faint), max(ground, faint)), "line_tint": rng.choice([0.1, 0.5])}
        traits |= {"decoys": _around(rng, 8, 40), "decoy_size": (0.4, 1.0)}
    if rng.random() < 0.03 and style.mode == "RGB":
        traits |= {"fringe": (0, max(1.0, rng.uniform(0.02, 0.07) * height))}
    if rng.random() < 0.04 and style.mode != "RGBA" and height > 44 and style.effect in ("", "shadow", "edge"):
        traits |= {"dither": rng.choice(["random", "ordered"]), "dither_cell": max(1, round(height / 60)), "levels": 0}
    if rng.random() < 0.02:
        traits |= {"segments": True, "characters": DIGITS, "rotation": rng.choice([0, 4]), "shear": 0}
        faint = ground + rng.uniform(0, 0.3) * (letters - ground)
        traits |= {"effect": "", "effect_level": (min(ground, faint), max(ground, faint)), "jostle": 0}
    elif rng.random() < 0.03:
        traits |= {"tiles": 1, "jostle": 0, "spacing": _around(rng, 0.15, 0.5)}
    if rng.random() < 0.025:
        most = 220 * height / (style.width or style.height)[1]  # steeper arcs would leave the picture
        traits |= {"fan": _around(rng, 0.3 * most, most), "text_size": _around(rng, 0.25, 0.45), "spread": True}
        traits |= {"arc": (0, 0), "drop": 0, "lines_above": 1.0}
    if rng.random() < 0.025:
        traits |= {"lenses": _around(rng, 1, 5)}
    if rng.random() < 0.025:
        traits |= {"torn": _around(rng, 0.02 * height, 0.12 * height)}
    if rng.random() < 0.02:  # every pixel comes from some place nearby
        traits |= {"elastic": _around(rng, 1, max(1.5, 0.04 * height)), "elastic_cell": rng.choice([1, 1, 2])}
    if rng.random() < 0.04 and height > 30:
        traits |= {"effect": "pen", "weight": (0, rng.choice([0, 0.03])), "one_ink": rng.choice([0, 1])}
    if rng.random() < 0.015:
        traits |= {"swirl": _around(rng, -80, 80, 1)}
    if rng.random() < 0.025 and style.mode == "RGB" and height > 40:
        traits |= {"stipple": _around(rng, 1, max(1.2, 0.035 * height)), "text_size": _around(rng, 0.65, 0.95)}
        traits |= {
            "stray_dots": rng.choice([0, 0, rng.uniform(0.03, 0.3)]),
            "weight": (0.03, 0.1),
            "font_per_letter": False,
        }
        if rng.random() < 0.4:  # colour tells them apart, brightness hardly
            level = rng.uniform(90, 200)
            traits |= {"background_level": (level, level), "text_level": (level - 30, level - 30), "stray_dots": 0}
            traits |= {"background_tint": 1.0, "text_tint": 1.0, "colour_per_letter": False}
            traits |= {"segments": False, "tiles": 0}
    return traits


def _in_bitmaps(rng: random.Random, style: Style) -> Style:
    """Letters of few hard pixels, lines and dots as thin as they are, on a small picture, or enlarged in squares."""
    size = rng.randint(10, 20)
    height = round(size * rng.uniform(1.2, 2.4))
    most = style.length[1] if style.length else 6
    width = max(round(height * rng.uniform(2, 4.5)), round(0.75 * size * most) + 6)
    times = rng.choices([1, 2, 3], [60, 25, 15])[0]
    cells = rng.choice(["disc", "gap"]) if style.mode != "RGBA" and rng.random() < 0.25 else ""
    if cells:
        times = rng.randint(3, 8)
    return Style(
        height=(height, height),
        width=(width, width),
        bitmap=(size, size),
        enlarge=(times, times),
        cells=cells,
        spots=(0, 0) if rng.random() < 0.5 else _around(rng, 5, 90),
        spot_radius=(0, rng.choice([0, 0, 0, 1])),
        lines=(0, 0) if rng.random() < 0.35 else _around(rng, 1, 5),
        line_width=(1, 1),
        line_kinds=(rng.choice(["straight", "straight", "arc", "wave"]),),
        grid=_around(rng, 0.2 * height, 0.6 * height) if rng.random() < 0.08 else (0, 0),
        one_ink=rng.choice([0, 1]),
        antialias=False,
        rotation=0,
        shear=0,
        stretch=(1, 1),
        spacing=_around(rng, -0.05, 0.3),
        bounce=rng.choice([0, 0.1, 0.3]),
        margin=2,
        weight=(0, 0),
        wave=_around(rng, 0.03 * height, 0.08 * height) if rng.random() < 0.15 else (0, 0),
        wave_length=(height, 2.5 * height),
        font_per_letter=False,
        # What is left is as in other schemes.
        **{name: getattr(style, name) for name in _KEPT_IN_BITMAPS},
    )


_KEPT_IN_BITMAPS = (
    *("mode", "background", "background_level", "background_tint", "characters", "length", "font_choice", "font_part"),
    *("text_level", "text_tint", "colour_per_letter", "line_level", "line_tint", "lines_above", "shape_level", "drop"),
    *("frame", "invert", "levels", "jpeg"),
)


def _weighted(rng: random.Random, bands: list[tuple[float, float, float]]) -> float:
    """A number from one of the bands (low, high, weight)."""
    low, high, _ = rng.choices(bands, [weight for _, _, weight in bands])[0]
    return rng.uniform(low, high)


def _draw_colours(rng: random.Random, background: str, tidy: bool) -> dict[str, Any]:
    """Levels and tints of ground and letters that a person can tell apart: by brightness, or by colour alone."""
    text_tint = rng.choice([0.0, 0.5, 1.0])
    if background == "clear" or rng.random() < 0.1:  # strong colours of any brightness but the ground's, on white
        paper = (230.0, 255.0) if background != "clear" else (255.0, 255.0)
        return {"background_level": paper, "background_tint": 0.05, "text_level": (0, 215), "text_tint": 1.0}
    contrast = _weighted(rng, [(40, 80, 2 if tidy else 8), (80, 150, 28 if tidy else 37), (150, 255, 55)])
    spread = rng.uniform(0, 0.5) * (255 - contrast)  # of the ground; the letters get what is left
    light = rng.uniform(contrast + spread, 255)
    ground, letters = (
        (light - spread, light),
        (0.0 if rng.random() < 0.4 else light - spread - contrast, light - spread - contrast),
    )
    if rng.random() < 0.25:
        ground, letters = (255 - ground[1], 255 - ground[0]), (255 - letters[1], 255 - letters[0])
    tint = rng.choice([0.0, 0.2, 0.6])
    return {"background_level": ground, "background_tint": tint, "text_level": letters, "text_tint": text_tint}


# ---------------------------------------------------------------------------------------------------------------------


def style_names() -> str:
    """All names that `get_style` knows, for a message."""
    return ", ".join([*STYLES, MIXED, SCHEMES, RARE_SCHEMES, HELD_OUT_SCHEMES])


def get_style(style: str | Style, rng: random.Random | None = None) -> Style:
    """The style of a name; `mixed`, `schemes`, `rare` and `heldout` draw one with `rng`. A `Style` comes back as it is.

    Raises:
        UserError: there is no style of that name; the message lists those there are.
    """
    if isinstance(style, Style):
        return style
    rng = rng or random.Random(0)
    if style == MIXED:
        return rng.choice(list(STYLES.values()))
    if style in (SCHEMES, RARE_SCHEMES, HELD_OUT_SCHEMES):
        number = rng.randrange(NUMBER_OF_SCHEMES)
        return random_scheme(number, held_out=style == HELD_OUT_SCHEMES, rare=style == RARE_SCHEMES)
    if style not in STYLES:
        raise UserError(f"there is no style {style!r}: choose from {style_names()}")
    return STYLES[style]
