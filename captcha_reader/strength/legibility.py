"""How well people may still read a captcha: a proxy, measured on pictures of which the generator knows the letters.

No person was asked. It sees color and clutter: how far the letters' ink stands out from the ground beside it, how much
of the ink has something beside it that looks like ink, and how much of it clutter touches. It does not see what bends,
turns or crowds letters, so nothing is said of ops that do.

The generator draws a picture a second time with nothing but its letters, black on white, and a third time without its
clutter: each op has random numbers of its own, so the letters stand on the same pixels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from captcha_reader.generator.ops.background import Plain
from captcha_reader.generator.ops.ink import Ink
from captcha_reader.generator.registry import Op, Stage
from captcha_reader.generator.render import CaptchaSettings, render_image
from captcha_reader.generator.styles import Style
from captcha_reader.images import open_image

REACH = 3  # pixels around a stroke within which other things disturb it
ALIKE = 20.0  # distance in CIELAB (CIE 1976) below which two colors are taken for one at a glance
CLEAR = 50.0  # distance from which on more contrast does not help
CROWDED = 0.1  # share of the ground beside a pixel that may look like it
CHANGED = 24  # levels by which clutter has to change a pixel to count
SHAPES = frozenset({Stage.GLYPHS, Stage.LAYOUT, Stage.LETTERS, Stage.WARP})
CLUTTER = frozenset({Stage.UNDER, Stage.ACROSS, Stage.OVER})


@dataclass(frozen=True)
class Legibility:
    """The proxy and its three parts, each 0 (worst) to 1.

    Attributes:
        contrast: the median distance between a pixel of ink and the ground beside it, full from `CLEAR` on.
        visibility: the share of the ink that stays distinguishable: at most `CROWDED` of the ground within `REACH`
            pixels looks like it.
        freedom: the share of the ink that no clutter touches.
    """

    contrast: float
    visibility: float
    freedom: float

    @property
    def score(self) -> float:
        """The product of the three."""
        return self.contrast * self.visibility * self.freedom


def sees(op: type[Op] | Op) -> bool:
    """Whether the proxy can tell what an op costs people."""
    return op.stage not in SHAPES


def letters_alone(style: Style) -> Style:
    """The style with nothing but its letters, black on white, where they stand."""
    ops = tuple(op for op in style.ops if op.stage in SHAPES)
    return dataclasses.replace(style, ops=(*ops, Plain((255, 255)), Ink(level=(0, 0), tint=0)), mode="L")


def without_clutter(style: Style) -> Style:
    """The style without what is drawn below, across and above its letters."""
    return dataclasses.replace(style, ops=tuple(op for op in style.ops if op.stage not in CLUTTER))


def legibility_of(index: int, settings: CaptchaSettings) -> float:
    """The score of captcha `index` of settings with one style.

    Args:
        settings: whose style is a `Style`.
    """
    (style,) = settings.styles
    if not isinstance(style, Style):
        raise TypeError("the settings need a Style")
    picture, text = render_image(index, settings)
    letters, _ = render_image(index, dataclasses.replace(settings, styles=(letters_alone(style),)), text)
    bare, _ = render_image(index, dataclasses.replace(settings, styles=(without_clutter(style),)), text)
    height, width = picture.shape[:2]
    ink = 255 - letters[..., 0]
    if ink.shape != (height, width):  # an op has enlarged the picture
        ink = cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)
    changed = np.abs(picture.astype(np.int16) - bare).max(axis=2) >= CHANGED
    colors = np.asarray(open_image(picture if picture.shape[2] > 1 else picture[..., 0]))
    return measure_legibility(colors, ink, changed).score


def measure_legibility(colors: np.ndarray, ink: np.ndarray, clutter: np.ndarray) -> Legibility:
    """The proxy of one picture.

    Args:
        colors: (height, width, 3) uint8, RGB.
        ink: (height, width) uint8, how far the letters cover a pixel.
        clutter: (height, width) bool, where clutter was drawn.
    """
    core = ink >= 128
    if not core.any():
        return Legibility(0.0, 0.0, 0.0)
    # What a letter's soft edge covers is neither ink nor ground.
    ground = cv2.dilate((ink >= 32).astype(np.uint8), np.ones((3, 3), np.uint8)) == 0
    lab = cv2.cvtColor(colors.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    room = [(REACH, REACH), (REACH, REACH)]
    around, near_ground = np.pad(lab, [*room, (0, 0)]), np.pad(ground, room)
    rows, columns = np.nonzero(core)
    own = lab[rows, columns]
    total, alike, apart = (np.zeros(len(rows)) for _ in range(3))
    for down in range(2 * REACH + 1):
        for across in range(2 * REACH + 1):
            there = near_ground[rows + down, columns + across]
            distance = np.linalg.norm(around[rows + down, columns + across] - own, axis=1)
            total += there
            alike += there & (distance < ALIKE)
            apart += np.where(there, distance, 0)
    beside = total > 0  # the inside of a thick stroke has no ground beside it
    touched = cv2.dilate(clutter.astype(np.uint8), np.ones((3, 3), np.uint8))[core] > 0
    if not beside.any():
        return Legibility(0.0, 0.0, float(1 - touched.mean()))
    contrast = float(np.median(apart[beside] / total[beside])) / CLEAR
    visible = float((alike[beside] <= CROWDED * total[beside]).mean())
    return Legibility(min(contrast, 1.0), visible, float(1 - touched.mean()))
