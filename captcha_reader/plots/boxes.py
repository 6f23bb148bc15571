"""Where on a picture each character was read."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from captcha_reader.images import ImageLike, open_image
from captcha_reader.plots.canvas import new_figure, page_axes, place_picture, put_text
from captcha_reader.plots.colors import CONFIDENCE_COLORS, PAPER, confidence_class, percent
from captcha_reader.reading.prediction import Prediction


class SaysWhereItLooked(Protocol):
    """What `character_boxes` asks of a predictor."""

    def preprocess_image(self, image: ImageLike) -> np.ndarray:
        """uint8 (C, H, W)."""

    def attention(self, pixels: np.ndarray) -> np.ndarray | None:
        """(N, slots, columns) for pixels (N, C, H, W), or None."""


Sides = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def character_boxes(image: Image.Image, prediction: Prediction, predictor: SaysWhereItLooked) -> list[Sides] | None:
    """Where on an RGB picture each character was seen: its columns in the network's input, back through the resizing.

    Returns:
        (left, top, right, bottom) in pixels for each character; None where the network does not say where it looked.
    """
    columns = _ctc_columns(prediction) if prediction.codec.along_width else None
    if columns is None:
        attention = predictor.attention(predictor.preprocess_image(image)[None])
        if attention is None:
            return None
        columns = _attended_columns(attention[0, [start for start, _ in prediction.spans]])
    left, top, right, bottom = prediction.box
    edges = np.clip(left + np.array(columns).reshape(-1, 2) * (right - left), 0, image.width).tolist()
    return [(first, max(0.0, top), last, min(float(image.height), bottom)) for first, last in edges]


def _ctc_columns(prediction: Prediction) -> list[tuple[float, float]]:
    """First and last column of each character as shares of the width.

    CTC marks a point of a letter rather than its outline: the columns reach half-way to the neighbors', and at most
    half the usual distance of two characters.
    """
    steps = len(prediction.log_probs)
    centers = [(start + stop) / 2 for start, stop in prediction.spans]
    gaps = [b - a for a, b in pairwise(centers)]
    reach = float(np.median(gaps)) / 2 if gaps else 2.0
    columns = []
    for i, ((start, stop), center) in enumerate(zip(prediction.spans, centers, strict=True)):
        first = max(center - reach, (centers[i - 1] + center) / 2 if i else 0.0)
        last = min(center + reach, (center + centers[i + 1]) / 2 if i + 1 < len(centers) else float(steps))
        columns.append((min(first, start) / steps, max(last, stop) / steps))
    return columns


def _attended_columns(attention: np.ndarray) -> list[tuple[float, float]]:
    """First and last column, as shares of the width, of the middle two thirds of each row's attention (L, w)."""
    width = attention.shape[1]
    sums = np.pad(attention.cumsum(axis=1) / attention.sum(axis=1, keepdims=True), ((0, 0), (1, 0)))
    places = np.arange(width + 1) / width
    return [(float(np.interp(1 / 6, row, places)), float(np.interp(5 / 6, row, places))) for row in sums]


def draw_boxes(image: ImageLike, prediction: Prediction, predictor: SaysWhereItLooked) -> Image.Image | None:
    """The picture with a box, the character and its confidence wherever one was read; RGBA on a clear ground.

    Args:
        image: that was read.
        prediction: of that picture.
        predictor: that read it.

    Returns:
        None where the model does not say where it looked, or read nothing.
    """
    picture = open_image(image, "the picture")
    boxes = character_boxes(picture, prediction, predictor)
    if not boxes:
        return None
    scale = min(6.4 / picture.width, 3.2 / picture.height)  # inches; the whole must stay on a screen
    width, height, head = picture.width * scale, picture.height * scale, 0.42
    picture.thumbnail((1200, 1200))
    figure = new_figure(width, height + head)
    figure.patch.set_alpha(0)
    page = page_axes(figure)
    place_picture(page, picture, (0, head, width, height))
    pitch = min((right - left) * scale for left, _, right, _ in boxes)
    for box, character, p in zip(boxes, prediction.text, prediction.char_confidences, strict=True):
        color = CONFIDENCE_COLORS[confidence_class(p)]
        left, top, right, bottom = (side * scale for side in box)
        corner, across, down = (left + 0.012, head + top), right - left - 0.024, bottom - top - 0.012
        page.add_patch(Rectangle(corner, across, down, facecolor=(*to_rgb(color), 0.1), zorder=3))
        page.add_patch(Rectangle(corner, across, down, fill=False, edgecolor=color, lw=1.6, zorder=4))
        page.add_patch(Rectangle((left + 0.001, 0.02), across + 0.022, head - 0.02, facecolor=color, zorder=4))
        size, middle = min(15.0, pitch * 72 / 0.75), (left + right) / 2
        put_text(page, middle, head / 2 - 0.05, character, size, mono=True, color=PAPER, ha="center", zorder=5)
        if pitch >= 0.25:
            put_text(page, middle, head - 0.08, f"{percent(p)}%", 6, color=PAPER, ha="center", zorder=5)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()).copy())
