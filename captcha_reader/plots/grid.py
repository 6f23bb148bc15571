"""Grids of pictures with their readings."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from captcha_reader.errors import UserError
from captcha_reader.images import ImageLike
from captcha_reader.plots.canvas import (
    Box,
    draw_frame,
    fit_tail,
    new_figure,
    page_axes,
    place_picture,
    put_text,
    save_figure,
    thumbnail,
)
from captcha_reader.plots.colors import (
    CONFIDENCE_COLORS,
    FAINT,
    HIGH_CONFIDENCE,
    MEDIUM_CONFIDENCE,
    MUTED,
    RIGHT,
    WRONG,
    confidence_class,
    percent,
)
from captcha_reader.reading.prediction import Prediction
from captcha_reader.text import NOTHING

MAX_PICTURES = 200  # in one grid; more would make a picture that no viewer opens gladly


def draw_grid(
    images: Sequence[ImageLike],
    predictions: Sequence[Prediction],
    truths: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    note: str = "",
    columns: int | None = None,
    cell_width: float = 2.5,
) -> Figure:
    """Pictures with what was read in them: a mark, the characters in the color of their confidence, the percentages.

    Args:
        images: anything that `open_image` takes; may be empty.
        predictions: one per picture.
        truths: one label per picture; without them no reading is called right or wrong.
        names: one caption per picture, its file name for instance.
        title: above the grid.
        note: under the title.
        columns: by default as many as make the page about one and a half times as wide as high, at most 5.
        cell_width: inches.

    Raises:
        UserError: the lists differ in length, or a picture cannot be read.
    """
    check_lengths(images, predictions=predictions, labels=truths, names=names)
    pictures = [thumbnail(image, f"image {i}") for i, image in enumerate(images)]
    caption = 0.6 + (0.2 if truths is not None else 0.0) + (0.2 if names is not None else 0.0)
    figure, page, boxes, picture_height = lay_out_cells(pictures, caption, title, note, columns, cell_width, _legend)
    for i, (box, picture, prediction) in enumerate(zip(boxes, pictures, predictions, strict=True)):
        truth = None if truths is None else truths[i]
        _cell(page, box, picture_height, picture, prediction, truth, None if names is None else names[i])
    return figure


def lay_out_cells(
    pictures: Sequence[Image.Image],
    caption: float,
    title: str,
    note: str,
    columns: int | None,
    cell_width: float,
    legend: Callable[[Axes, float, float], None],
) -> tuple[Figure, Axes, list[Box], float]:
    """A page with title, note, legend and room for a cell per picture.

    Args:
        caption: room under each picture, inches.
        legend: draws one line at (x, y) of the page.

    Returns:
        The figure, its page, a box per picture, and the height of the pictures in it, inches.
    """
    shapes = [picture.height / picture.width for picture in pictures]
    picture_height = cell_width * min(max(float(np.quantile(shapes, 0.9)) if shapes else 0.4, 0.25), 0.9)
    cell_height = picture_height + caption
    if columns is None:
        columns = min(
            5, max(1, round(math.sqrt(1.5 * len(pictures) * cell_height / cell_width))), max(len(pictures), 1)
        )
    rows = math.ceil(len(pictures) / columns)
    gap, margin = 0.16, 0.22
    width = max(2 * margin + columns * cell_width + (columns - 1) * gap, 4.6, 2 * margin + 0.12 * len(title))
    lines = textwrap.wrap(note, int(width * 13))
    head = margin + (0.32 if title else 0.0) + 0.2 * len(lines)
    legend_height = 0.3
    height = head + legend_height + (rows * (cell_height + gap) if rows else 0.6) + margin
    page = page_axes(figure := new_figure(width, height))
    y = margin
    if title:
        put_text(page, margin, y + 0.1, title, 13, fontweight="bold")
        y += 0.32
    for line in lines:
        put_text(page, margin, y + 0.06, line, 9, color=MUTED)
        y += 0.2
    legend(page, margin, y + 0.06)
    y += legend_height
    if not pictures:
        put_text(page, width / 2, y + 0.3, "no pictures", 10, color=MUTED, ha="center")
    left = (width - columns * cell_width - (columns - 1) * gap) / 2
    boxes = [
        (left + i % columns * (cell_width + gap), y + i // columns * (cell_height + gap), cell_width, cell_height)
        for i in range(len(pictures))
    ]
    return figure, page, boxes, picture_height


def check_lengths(images: Sequence[ImageLike], **others: Sequence[Any] | None) -> None:
    for what, items in others.items():
        if items is not None and len(items) != len(images):
            raise UserError(f"there are {len(images)} pictures and {len(items)} {what}: give one for each picture")


def _legend(page: Axes, x: float, y: float) -> None:
    high, medium = f"{HIGH_CONFIDENCE:.0%}", f"{MEDIUM_CONFIDENCE:.0%}"
    put_text(page, x, y, "confidence in %:", 8, color=MUTED)
    x += 1.05
    for name, limit in (("high", f"≥ {high}"), ("medium", f"≥ {medium}"), ("low", f"< {medium}")):
        page.add_patch(Rectangle((x, y - 0.05), 0.1, 0.1, color=CONFIDENCE_COLORS[name]))
        put_text(page, x + 0.15, y, f"{name} {limit}", 8, color=MUTED)
        x += 0.45 + 0.065 * len(f"{name} {limit}")


def _cell(
    page: Axes,
    box: Box,
    picture_height: float,
    picture: Image.Image,
    prediction: Prediction,
    truth: str | None,
    name: str | None,
) -> None:
    x, y, width, _ = box
    pad = 0.08
    color = FAINT if truth is None else RIGHT if prediction.text == truth else WRONG
    draw_frame(page, box, color)
    place_picture(page, picture, (x + pad, y + pad, width - 2 * pad, picture_height - pad))
    line = y + picture_height + 0.2
    start = x + pad
    if truth is not None:
        put_text(page, start, line, "✓" if prediction.text == truth else "✗", 13, color=color, fontweight="bold")
        start += 0.26
    put_text(page, x + width - pad, line, f"{percent(prediction.confidence)}%", 9, color=MUTED, ha="right")
    _characters(page, start, line, x + width - pad - 0.42 - start, prediction)
    line += 0.24
    for label, text in (("truth", truth), ("file", name)):
        if text is None:
            continue
        line += 0.2
        put_text(page, x + pad, line, label, 8, color=MUTED)
        room = width - 2 * pad - 0.4
        if label == "truth":
            size = min(10.0, room * 72 / 0.68 / max(len(text), 1))  # Agg rounds advances up
            put_text(page, x + pad + 0.4, line, text or NOTHING, size, mono=True)
        else:
            put_text(page, x + pad + 0.4, line, fit_tail(text, room), 8, mono=True, color=MUTED)


def _characters(page: Axes, x: float, y: float, room: float, prediction: Prediction) -> None:
    """The reading, one column per character in the color of its confidence, with the percentage under it."""
    if not prediction.text:
        put_text(page, x, y, f"{NOTHING} nothing read", 9, color=MUTED, style="italic")
        return
    pitch = min(0.23, room / len(prediction.text))
    size = min(14.0, pitch * 72 / 0.7)
    for i, (character, confidence) in enumerate(zip(prediction.text, prediction.char_confidences, strict=True)):
        center = x + (i + 0.5) * pitch
        color = CONFIDENCE_COLORS[confidence_class(confidence)]
        put_text(page, center, y, character, size, mono=True, color=color, ha="center", fontweight="bold")
        if pitch >= 0.12:  # three digits at 5 points
            digits = min(6.5, pitch * 72 / 2.2)
            put_text(page, center, y + 0.2, percent(confidence), digits, color=color, ha="center")


def worst_first(predictions: Sequence[Prediction], truths: Sequence[str]) -> list[int]:
    """Indices, wrong readings first and of these the surest; then the right ones, the least sure first.

    A model that is sure and wrong either misses something or points at a wrong label; both are worth a look.
    """
    wrong = [i for i, (p, t) in enumerate(zip(predictions, truths, strict=True)) if p.text != t]
    right = [i for i, (p, t) in enumerate(zip(predictions, truths, strict=True)) if p.text == t]
    return sorted(wrong, key=lambda i: -predictions[i].confidence) + sorted(
        right, key=lambda i: predictions[i].confidence
    )


def headline(predictions: Sequence[Prediction], truths: Sequence[str]) -> str:
    right = sum(p.text == t for p, t in zip(predictions, truths, strict=True))
    share = f" (sequence accuracy {right / len(truths):.1%})" if truths else ""
    return f"{right:,} of {len(truths):,} readings right{share}"


def show_all_images_with_predictions(
    images: Sequence[ImageLike],
    predictions: Sequence[Prediction],
    path: str | Path,
    truths: Sequence[str] | None = None,
) -> Path:
    """Grid of all pictures with their readings; of more than 200 the first 200, with a line that says so.

    Args:
        images: paths (then the file names are shown) or anything else that `open_image` takes.
        predictions: one per picture.
        path: of the picture to write.
        truths: one label per picture.

    Returns:
        `path`.

    Raises:
        UserError: a picture cannot be read, the lists differ in length, or `path` cannot be written.
    """
    check_lengths(images, predictions=predictions, labels=truths)
    shown = slice(0, MAX_PICTURES)
    named = bool(images) and all(isinstance(image, str | Path) for image in images)
    note = ""
    if len(images) > MAX_PICTURES:
        note = f"The first {MAX_PICTURES} of {len(images):,} pictures."
    title = headline(predictions, truths) if truths is not None else f"{len(images):,} readings"
    figure = draw_grid(
        images[shown],
        predictions[shown],
        None if truths is None else truths[shown],
        [Path(str(image)).name for image in images[shown]] if named else None,
        title,
        note,
    )
    return save_figure(figure, path)


def plot_comparison(
    images: Sequence[ImageLike],
    predictions: Sequence[Prediction],
    truths: Sequence[str],
    path: str | Path,
    worst: bool = False,
    title: str = "",
) -> Path:
    """Grid of pictures with their labels and readings; at most 200 of them.

    Args:
        images: anything that `open_image` takes.
        predictions: one per picture.
        truths: one label per picture.
        path: of the picture to write.
        worst: in the order of `worst_first`.
        title: by default how many are right.

    Returns:
        `path`.

    Raises:
        UserError: a picture cannot be read, the lists differ in length, or `path` cannot be written.
    """
    check_lengths(images, predictions=predictions, labels=truths)
    order = worst_first(predictions, truths) if worst else list(range(len(images)))
    notes = [headline(predictions, truths) + "."] if title else []
    if worst:
        notes.append("The surest wrong readings come first, then the least sure right ones.")
    if len(order) > MAX_PICTURES:
        notes.append(f"{MAX_PICTURES} of {len(order):,} pictures are shown.")
    order = order[:MAX_PICTURES]
    figure = draw_grid(
        [images[i] for i in order],
        [predictions[i] for i in order],
        [truths[i] for i in order],
        title=title or headline(predictions, truths),
        note=" ".join(notes),
    )
    return save_figure(figure, path)
