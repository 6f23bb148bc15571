"""How well a captcha keeps a machine out: the generator's knobs, and the share of captchas that a reader still reads.

A knob that stands where its style has it leaves the style as it is; one that was turned fixes its value. `try_many`
draws captchas of such a style and counts the readings that are exactly right; `sweep` does so along one knob.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.generator.render import CaptchaSettings, parse_length, render_captcha
from captcha_reader.generator.schemes import get_style
from captcha_reader.generator.styles import STYLES, Style
from captcha_reader.reading.metrics import wilson_interval
from captcha_reader.text import Alphabet

LONGEST = 12  # characters; the page's pictures are not wide enough for more
MOST_CHARACTERS = 300  # of an alphabet
CHUNK = 25  # captchas drawn and read at a time

OWN_FONTS = "the style's own"
# Name on the page -> parts of file names, of which a font has one.
FONTS: dict[str, tuple[str, ...]] = {
    OWN_FONTS: (),
    "a mixture": ("",),
    "DejaVu Sans": ("DejaVuSans.ttf",),
    "DejaVu Sans Bold": ("DejaVuSans-Bold.ttf",),
    "DejaVu Sans Mono": ("DejaVuSansMono.ttf",),
    "DejaVu Serif": ("DejaVuSerif.ttf",),
    "DejaVu Serif Italic": ("DejaVuSerif-Italic.ttf",),
    "STIX": ("STIXGeneral.ttf",),
    "STIX Bold Italic": ("STIXGeneralBolIta.ttf",),
}


@dataclass(frozen=True)
class Knob:
    """A number that can be turned: what it is called, its range and step, and what it means."""

    label: str
    low: float
    high: float
    step: float
    info: str


KNOBS: dict[str, Knob] = {
    "rotation": Knob("Rotation", 0, 60, 1, "letters turn by up to so many degrees either way"),
    "overlap": Knob("Overlap", -0.3, 0.4, 0.01, "of neighbors, in font sizes; below zero there is a gap"),
    "lines": Knob("Lines", 0, 12, 1, "drawn across the text"),
    "spots": Knob("Spots", 0, 200, 1, "dots behind the text"),
    "warp": Knob("Warp", 0, 8, 0.1, "largest shift of a smooth distortion, in pixels"),
    "blur": Knob("Blur", 0, 4, 0.1, "standard deviation, in pixels"),
}


TURNED = {  # the op and the field that a knob sets
    "rotation": ("rotation", "degrees"),
    "overlap": ("row", "spacing"),
    "lines": ("lines", "count"),
    "spots": ("spots", "count"),
    "warp": ("elastic", "amplitude"),
    "blur": ("blur", "deviation"),
}


def style_values(name: str) -> dict[str, float]:
    """Where a style has the knobs: the middle of its ranges, as far as the knob reaches; 0 where it has no such op."""
    style = get_style(name)
    values = {}
    for key, (op, field) in TURNED.items():
        value = getattr(style.find(op), field, 0)
        middle = sum(value) / 2 if isinstance(value, tuple) else value
        middle = -middle if key == "overlap" else middle
        values[key] = round(middle, 2 if key == "overlap" else 1 if KNOBS[key].step < 1 else None)
    return {key: min(max(value, KNOBS[key].low), KNOBS[key].high) for key, value in values.items()}


def build_style(name: str, values: dict[str, float], font: str = OWN_FONTS) -> Style:
    """The style with those knobs turned that do not stand where it has them, each within its range.

    Raises:
        UserError: there is no such style, or no such font.
    """
    if name not in STYLES:
        raise UserError(f"there is no style {name[:40]!r}: choose from {', '.join(STYLES)}")
    if font not in FONTS:
        raise UserError(f"there is no font {font[:40]!r}: choose one from the list")
    style, own = get_style(name), style_values(name)
    if font != OWN_FONTS:
        style = dataclasses.replace(style, fonts=FONTS[font])
    for key, knob in KNOBS.items():
        value = min(max(float(values.get(key, own[key])), knob.low), knob.high)
        if abs(value - own[key]) < knob.step / 2:
            continue
        if key in ("lines", "spots"):
            value = round(value)
        op, field = TURNED[key]
        turned: Any = value if key == "rotation" else (-value, -value) if key == "overlap" else (value, value)
        style = style.with_op(op, **{field: turned})
    return style


def build_settings(
    style: str, values: dict[str, float], font: str, alphabet: str, length: str, seed: float
) -> CaptchaSettings:
    """What a person set, checked.

    Raises:
        UserError: some of it cannot be used.
    """
    if len(alphabet) > MOST_CHARACTERS or any(ord(c) > 0x24F for c in alphabet):
        raise UserError("the alphabet is too long or has characters that no font here draws: write it as in 0-9a-z")
    characters = Alphabet.parse(alphabet.strip()).characters
    low, high = parse_length(length)
    if high > LONGEST:
        raise UserError(f"the length {length!r} is not usable: at most {LONGEST} characters are drawn here")
    return CaptchaSettings((build_style(style, values, font),), characters, (low, high), int(seed or 0))


def draw_one(settings: CaptchaSettings) -> tuple[bytes, str]:
    """The first captcha of the settings: PNG file and text."""
    return render_captcha(0, settings)


@dataclass(frozen=True)
class Trial:
    """One captcha that was drawn and read."""

    picture: bytes  # PNG
    text: str
    reading: str
    confidence: float


def try_many(settings: CaptchaSettings, predictor: Any, count: int = 100) -> Iterator[list[Trial]]:
    """Draw captchas 0, 1, 2, ... of the settings and read them; gives a chunk at a time.

    Raises:
        UserError: a character that no font can draw.
    """
    for start in range(0, count, CHUNK):
        drawn = [render_captcha(i, settings) for i in range(start, min(start + CHUNK, count))]
        readings = predictor.predict([picture for picture, _ in drawn])
        yield [Trial(png, text, r.text, r.confidence) for (png, text), r in zip(drawn, readings, strict=True)]


def success(trials: list[Trial]) -> dict[str, Any]:
    """How many were read: `right` and `n`, `rate`, `interval` (Wilson, 95 %), `ignoring_case` (a rate)."""
    right = sum(t.reading == t.text for t in trials)
    folded = sum(t.reading.casefold() == t.text.casefold() for t in trials)
    n = len(trials)
    return {
        "right": right,
        "n": n,
        "rate": right / max(n, 1),
        "interval": wilson_interval(right, n),
        "ignoring_case": folded / max(n, 1),
    }


def sweep_values(key: str, points: int = 7) -> list[float]:
    """Evenly spaced values of a knob, whole numbers where it has these."""
    knob = KNOBS[key]
    values = [knob.low + (knob.high - knob.low) * i / (points - 1) for i in range(points)]
    return [float(round(v)) if knob.step >= 1 else round(v, 2) for v in values]
