"""How a picture is looked at again: smaller, wider, leaning, turned, blurred, by its darkest channel or its colour.

A small network errs on one form of a picture and not on another. What several forms make of it, taken together, is
right more often than any of them, and `predict.py` asks for no more of them than it takes for two to agree.
"""

from __future__ import annotations

import functools
import math
from typing import Literal, NamedTuple

import cv2
import numpy as np

from captcha_reader.transforms import CaptchaTransform, View, border_colour

COLOURED = 40  # levels between the channels of a pixel; a picture with hardly a pixel above it is grey
SOME = 0.02  # part of the pixels that are coloured in a coloured picture


class Look(NamedTuple):
    """How a picture is looked at again."""

    tall: bool = False
    """With the other height that the network has learned, where it has."""
    margin: float = 0.0
    """With so much more around its contents, in heights of these: letters are smaller."""
    wide: float = 1.0
    """So many times as wide as its shape asks for."""
    lean: float = 0.0
    """Upright lines lean to the right by this part of their height."""
    turn: float = 0.0
    """Turned by so many degrees, counter-clockwise."""
    blur: bool = False
    """Blurred a little: specks and thin lines fade."""
    tone: Literal["", "darkest", "colour"] = ""
    """In grey: by each pixel's darkest channel, or the darker, the more coloured it is, where anything is coloured."""


# In this order: chosen of some forty forms, one after the other, by what each adds (benchmarks/findings.md).
LOOKS = (
    Look(tall=True, wide=1.15),
    Look(lean=0.3, blur=True),
    Look(tone="colour"),
    Look(tall=True, tone="darkest"),
    Look(turn=8),
    Look(blur=True),
    Look(tall=True, margin=0.125),
)


def look_again(look: Look, view: View, transform: CaptchaTransform) -> View | None:
    """Another view of a picture.

    Args:
        look: at what.
        view: the first one, of a transform whose `resize` is in `CUT`.
        transform: of this look's height.

    Returns:
        The view; None where it would show what the first one shows, or no colour where that is asked for.
    """
    pixels = view.copy
    if look.tone:
        channels = cv2.split(pixels)
        grey = darkest = functools.reduce(cv2.min, channels)
        if look.tone == "colour":
            colour = functools.reduce(cv2.max, channels) - darkest
            if np.count_nonzero(colour >= COLOURED) < SOME * colour.size:
                return None
            grey = 255 - colour
        pixels = cv2.merge([grey] * len(channels)).reshape(pixels.shape)
    if look.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), max(0.8, pixels.shape[0] / 60)).reshape(pixels.shape)
    again = transform.changed(view, _leaning(pixels, look.lean, look.turn), look.wide, look.margin)
    if again.pixels.shape == view.pixels.shape and cv2.norm(again.pixels, view.pixels, cv2.NORM_L1) < again.pixels.size:
        return None
    return again


def _leaning(pixels: np.ndarray, lean: float, turn: float) -> np.ndarray:
    """A picture (H, W, C) that leans and is turned, in a larger one with the same middle, so that all of it is seen."""
    if not lean and not turn:
        return pixels
    height, width, channels = pixels.shape
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    linear = np.array([[cos, sin - lean], [-sin, cos]])
    wide = width + math.ceil(abs(linear[0, 1]) * height)
    high = height + math.ceil(abs(linear[1, 0]) * width)
    offset = np.array([wide, high]) / 2 - linear @ np.array([width, height]) / 2
    warped = cv2.warpAffine(pixels, np.column_stack([linear, offset]), (wide, high), borderValue=border_colour(pixels))
    return warped.reshape(high, wide, channels)
