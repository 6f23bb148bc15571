"""Labels beside what was read, where the two differ."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from captcha_reader.images import ImageLike
from captcha_reader.plots.canvas import Box, draw_frame, fit_tail, place_picture, put_text, save_figure, thumbnail
from captcha_reader.plots.colors import ACCENT, AMBER, FAINT, MUTED, WRONG, percent
from captcha_reader.plots.grid import MAX_PICTURES, check_lengths, lay_out_cells
from captcha_reader.text import NOTHING


def draw_label_errors(
    images: Sequence[ImageLike], rows: Sequence[Mapping[str, Any]], title: str = "", note: str = ""
) -> Figure:
    """Pictures with their label above what was read; the characters in which the two differ in color and underlined.

    Args:
        images: anything that `open_image` takes; may be empty.
        rows: one per picture: `label`, `reading`, `confidence` (0 to 1), `score` (a number or None), `reason` (may be
            empty) and `file`.
        title: above the grid.
        note: under the title.

    Raises:
        UserError: the lists differ in length, or a picture cannot be read.
    """
    check_lengths(images, rows=rows)
    pictures = [thumbnail(image, str(row["file"])) for image, row in zip(images, rows, strict=True)]
    figure, page, boxes, picture_height = lay_out_cells(pictures, 0.98, title, note, None, 2.5, _difference_legend)
    for place, (box, picture, row) in enumerate(zip(boxes, pictures, rows, strict=True), start=1):
        _suspect(page, box, picture_height, picture, row, place)
    return figure


def plot_label_errors(
    images: Sequence[ImageLike], rows: Sequence[Mapping[str, Any]], path: str | Path, title: str = "", note: str = ""
) -> Path:
    """`draw_label_errors`, at most 200 pictures, written to `path`.

    Raises:
        UserError: as `draw_label_errors`, or `path` cannot be written.
    """
    if len(images) > MAX_PICTURES:
        note = f"{note} The first {MAX_PICTURES} of {len(images):,} are shown.".strip()
    return save_figure(draw_label_errors(images[:MAX_PICTURES], rows[:MAX_PICTURES], title, note), path)


def differing(label: str, reading: str) -> tuple[list[bool], list[bool]]:
    """For each character of either text whether the other one lacks it."""
    marks = [True] * len(label), [True] * len(reading)
    for block in SequenceMatcher(None, label, reading, autojunk=False).get_matching_blocks():
        marks[0][block.a : block.a + block.size] = [False] * block.size
        marks[1][block.b : block.b + block.size] = [False] * block.size
    return marks


def _difference_legend(page: Axes, x: float, y: float) -> None:
    for text, color in (("only in the label", WRONG), ("only in the reading", ACCENT)):
        page.add_patch(Rectangle((x, y - 0.05), 0.1, 0.1, color=color))
        put_text(page, x + 0.15, y, text, 8, color=MUTED)
        x += 0.45 + 0.065 * len(text)


def _suspect(
    page: Axes, box: Box, picture_height: float, picture: Image.Image, row: Mapping[str, Any], place: int
) -> None:
    x, y, width, _ = box
    pad, indent = 0.08, 0.46
    draw_frame(page, box, FAINT if row["label"] == row["reading"] else WRONG)
    place_picture(page, picture, (x + pad, y + pad, width - 2 * pad, picture_height - pad))
    line = y + picture_height + 0.17
    marks = differing(row["label"], row["reading"])
    beside = f"{row['score']:.1f}" if row["score"] is not None else "", f"{percent(row['confidence'])}%"
    for name, marked, color, figure in zip(("label", "reading"), marks, (WRONG, ACCENT), beside, strict=True):
        put_text(page, x + pad, line, name, 8, color=MUTED)
        put_text(page, x + width - pad, line, figure, 8, color=MUTED, ha="right")
        _marked(page, x + pad + indent, line, width - 2 * pad - indent - 0.42, row[name], marked, color)
        line += 0.26
    number = f"{place}. "
    file = fit_tail(str(row["file"]), width - 2 * pad - 0.077 * len(number))
    put_text(page, x + pad, line, number + file, 8, mono=True, color=MUTED)
    line += 0.2
    for words in textwrap.wrap(row["reason"], 44)[:1]:
        cut = "" if len(words) == len(row["reason"]) else "…"
        put_text(page, x + pad, line, words + cut, 7, color=AMBER)


def _marked(page: Axes, x: float, y: float, room: float, text: str, marks: Sequence[bool], color: str) -> None:
    """A text, one column per character; the marked ones are colored, bold and underlined."""
    if not text:
        put_text(page, x, y, NOTHING, 10, color=color)
        return
    pitch = min(0.17, room / len(text))
    size = min(12.0, pitch * 72 / 0.7)
    for i, (character, marked) in enumerate(zip(text, marks, strict=True)):
        style = {"color": color, "fontweight": "bold"} if marked else {}
        shown = character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        put_text(page, x + (i + 0.5) * pitch, y, shown, size, mono=True, ha="center", **style)
        if marked:
            page.add_patch(Rectangle((x + (i + 0.1) * pitch, y + 0.1), 0.8 * pitch, 0.018, color=color))
