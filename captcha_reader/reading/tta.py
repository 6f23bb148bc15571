"""Test-time augmentation: other views of a picture that is hard to read, and the vote over what they give.

A small network errs on one view of a picture and not on another: larger, wider, sheared, rotated, sharp, with thinner
strokes, with even contrast, by its edges or its saturation. What several views give, taken together, is right more
often than any of them, and `predict.py` asks for no more of them than it takes for two to agree.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np

from captcha_reader.reading.prediction import Prediction
from captcha_reader.transforms import CaptchaTransform, View, border_color

MIN_SATURATION = 40  # levels between the channels of a pixel that has a color
MIN_COLORED = 0.02  # part of the pixels of a colored picture that have one
CONTRAST, TILES = 8.0, (4, 8)  # of the local contrast: times an even histogram's slope, and tiles across and down
FAINTEST_EDGE, EDGES = 8.0, 97  # the step that is black at least, and the percentile of a picture's steps that is

MIN_CONFIDENCE = 0.7  # a first reading that is this sure is not read again; before calibration
MARGIN_TO_STOP = 0.6  # by which the added confidences of the views that read one text must exceed those of any other
# Given what is known, a view is surer than it is right: more of them, which takes up to twice the time.
MIN_CONFIDENCE_CONSTRAINED = 0.9
MARGIN_TO_STOP_CONSTRAINED = 0.9
MAX_COMPARED = 4  # texts, those of the surest views, whose probability is asked of every view


class ViewSpec(NamedTuple):
    """What another view of a picture is like."""

    tall: bool = False
    """With the other height that the network has learned, if it has one."""
    margin: float = 0.0
    """With so much more around its contents, in heights of these: letters are smaller."""
    width: float = 1.0
    """So many times as wide as its shape asks for."""
    shear: float = 0.0
    """Upright lines lean to the right by this part of their height."""
    rotation: float = 0.0
    """Degrees, counter-clockwise."""
    blur: bool = False
    """Blurred a little: specks and thin lines fade."""
    thin: bool = False
    """Dark strokes lose one pixel of their width, in high pictures more: thin lines and specks vanish."""
    sharp: bool = False
    """Not softened, by a reader that softens what it reads (`soften`)."""
    tone: Literal["", "darkest", "saturation", "contrast", "edges"] = ""
    """In gray: by each pixel's darkest channel; the darker, the more saturated it is, if anything is; the darkest
    channel with the same contrast everywhere (CLAHE: Zuiderveld, 1994); or its edges, dark on white."""


# In this order: chosen of some sixty by what each adds for its time (benchmarks/findings.md).
TTA_VIEWS = (
    ViewSpec(tall=True, tone="contrast"),
    ViewSpec(tone="saturation"),
    ViewSpec(tall=True, thin=True),
    ViewSpec(tone="edges", blur=True),
    ViewSpec(tall=True, shear=0.3),
    ViewSpec(tall=True, width=1.15, sharp=True),
    ViewSpec(tall=True, rotation=8, tone="contrast"),
)
MAX_VIEWS = 1 + len(TTA_VIEWS)


def make_view(spec: ViewSpec, first: View, transform: CaptchaTransform) -> View | None:
    """Another view of a picture.

    Args:
        spec: what it is like.
        first: the plain view, of a transform whose `resize` is in `CUT`.
        transform: of the new view's height.

    Returns:
        The view; None where it would show what the first one shows, or no color where that is asked for.
    """
    pixels = first.copy
    if spec.tone:
        gray = _gray(spec.tone, pixels)
        if gray is None:
            return None
        pixels = cv2.merge([gray] * pixels.shape[2]).reshape(pixels.shape)
    if spec.thin:
        size = max(2, round(pixels.shape[0] / 30))
        pixels = cv2.dilate(pixels, np.ones((size, size), np.uint8)).reshape(pixels.shape)
    if spec.blur:
        pixels = cv2.GaussianBlur(pixels, (0, 0), max(0.8, pixels.shape[0] / 60)).reshape(pixels.shape)
    changed = _warp(pixels, spec.shear, spec.rotation)
    view = transform.changed(first, changed, spec.width, spec.margin, spec.sharp)
    if view.pixels.shape == first.pixels.shape and cv2.norm(view.pixels, first.pixels, cv2.NORM_L1) < view.pixels.size:
        return None
    return view


def _gray(tone: str, pixels: np.ndarray) -> np.ndarray | None:
    """A picture (H, W, C) by its `ViewSpec.tone`, (H, W); None where it has no color and that is asked for."""
    channels = cv2.split(pixels)
    darkest = functools.reduce(cv2.min, channels)
    if tone == "saturation":
        saturation = functools.reduce(cv2.max, channels) - darkest
        colored = np.count_nonzero(saturation >= MIN_SATURATION) >= MIN_COLORED * saturation.size
        return 255 - saturation if colored else None
    if tone == "contrast":
        return cv2.createCLAHE(CONTRAST, TILES).apply(darkest)
    if tone == "edges":
        steps = cv2.morphologyEx(darkest, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8))
        gain = 255 / max(float(np.percentile(steps, EDGES)), FAINTEST_EDGE)
        return cv2.LUT(steps, 255 - np.minimum(np.arange(256) * gain, 255).astype(np.uint8))
    return darkest


def _warp(pixels: np.ndarray, shear: float, rotation: float) -> np.ndarray:
    """A sheared and rotated picture (H, W, C) in a larger one with the same middle, so that all of it is seen."""
    if not shear and not rotation:
        return pixels
    height, width, channels = pixels.shape
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    linear = np.array([[cos, sin - shear], [-sin, cos]])
    wide = width + math.ceil(abs(linear[0, 1]) * height)
    high = height + math.ceil(abs(linear[1, 0]) * width)
    offset = np.array([wide, high]) / 2 - linear @ np.array([width, height]) / 2
    warped = cv2.warpAffine(pixels, np.column_stack([linear, offset]), (wide, high), borderValue=border_color(pixels))
    return warped.reshape(high, wide, channels)


# --------------------------------------------------------------------------------------------------------------------
# The vote


def votes(readings: Sequence[Prediction]) -> dict[str, float]:
    """The texts read in the views of one picture, with the added confidences of the views that read each; the surest
    first."""
    found: dict[str, float] = defaultdict(float)
    for reading in readings:
        found[reading.text] += reading.confidence
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def settled(readings: Sequence[Prediction]) -> bool:
    """Whether further views of one picture would hardly change what was read in these."""
    constrained = readings[0].codec.limits is not None
    if len(readings) == 1:
        return readings[0].confidence >= (MIN_CONFIDENCE_CONSTRAINED if constrained else MIN_CONFIDENCE)
    first, second = (*votes(readings).values(), 0.0)[:2]
    return first - second >= (MARGIN_TO_STOP_CONSTRAINED if constrained else MARGIN_TO_STOP)


def elect(readings: Sequence[Prediction]) -> Prediction:
    """The reading that counts, of those of the views of one picture.

    Of the texts that were read, the most probable by all views together: a view that reads another text may give this
    one nearly as much. Of the views that read it, the surest.
    """
    texts = list(votes(readings))[:MAX_COMPARED]
    if len(texts) > 1:
        likelihoods = readings[0].codec.probabilities([reading.log_probs for reading in readings], texts)
        texts = [texts[int(likelihoods.sum(axis=0).argmax())]]
    return max((reading for reading in readings if reading.text == texts[0]), key=lambda reading: reading.confidence)
