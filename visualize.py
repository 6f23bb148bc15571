"""Every picture that the project draws: predictions, suspicious labels, confidence, training curves, confusion.

The figures are built with matplotlib's objects and the Agg canvas: no pyplot, no global state, so the demo may draw in
several threads. Right and wrong, and the classes of confidence, are told apart by colour and by a mark or number.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from PIL import Image

from captcha_reader.errors import UserError
from captcha_reader.files import SAVED_MODELS, printable, write_atomically
from captcha_reader.images import open_image
from captcha_reader.text import BLANK_ID, NOTHING
from predict import CaptchaPredictor, ImageLike, Prediction

HIGH_CONFIDENCE, MEDIUM_CONFIDENCE = 0.9, 0.6
MAX_PICTURES = 200  # in one grid; more would make a picture that no viewer opens gladly
MAX_CLASSES = 70  # rows of a confusion matrix and columns of a confidence grid: more cannot be read

# Teal, amber and crimson stay apart for the common kinds of colour blindness, and each comes with a mark or a number.
INK, MUTED, FAINT, PAPER = "#1f2933", "#66727f", "#dbe1e7", "#ffffff"
RIGHT, WRONG, ACCENT, AMBER = "#0b7a75", "#c22f4f", "#2f6db3", "#b26a00"
CONFIDENCE_COLOURS = {"high": RIGHT, "medium": AMBER, "low": WRONG}
BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9cc3e6", "#2f6db3", "#123b6b"])
REDS = LinearSegmentedColormap.from_list("reds", ["#fdeeee", "#f0a3a8", "#c22f4f", "#6d1028"])

DPI = 110


def confidence_class(confidence: float) -> str:
    """`high` from 0.9, `medium` from 0.6, else `low`; the boundaries belong to the better class."""
    return "high" if confidence >= HIGH_CONFIDENCE else "medium" if confidence >= MEDIUM_CONFIDENCE else "low"


# --------------------------------------------------------------------------------------------------------------------
# Common ground

# A file's name may hold characters that no font here has: a box in the picture says it, in no need of a warning each.
warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")


@cache
def _families(mono: bool) -> list[str]:
    """DejaVu comes with matplotlib; behind it any installed font for scripts that it lacks."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    wanted = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans Thai")
    return ["DejaVu Sans Mono" if mono else "DejaVu Sans", *(name for name in wanted if name in installed)]


def _write(axes: Axes | Figure, x: float, y: float, text: str, size: float, mono: bool = False, **style: Any) -> None:
    """Text at (x, y), size in points. Labels may hold a `$`, which matplotlib would take for mathematics, and names
    bytes that are no UTF-8, which it refuses."""
    style = {"color": INK, "va": "center", "family": _families(mono)} | style
    axes.text(x, y, printable(text), fontsize=size, parse_math=False, **style)


def _figure(width: float, height: float) -> Figure:
    """An empty white figure of `width` by `height` inches on an Agg canvas."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    supported = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in supported:
        raise UserError(f"{path} is no picture that can be written: end the name in .png, .pdf or .svg")
    try:
        return write_atomically(path, lambda temporary: figure.savefig(temporary))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): name another place") from error


def figure_image(figure: Figure) -> Image.Image:
    """The figure as an RGB picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _page(figure: Figure) -> Axes:
    """Axes over the whole figure whose unit is the inch, origin at the top left."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return axes


def _style(axes: Axes, title: str = "", x: str = "", y: str = "", grid: str | None = "y") -> None:
    """Our look for a plot with axes."""
    family = _families(False)
    if title:
        axes.set_title(title, loc="left", fontsize=11, color=INK, family=family, fontweight="bold", pad=9)
    axes.set_xlabel(x, fontsize=9, color=MUTED, family=family)
    axes.set_ylabel(y, fontsize=9, color=MUTED, family=family)
    axes.tick_params(which="both", labelsize=8.5, colors=MUTED, length=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    if grid:
        axes.grid(axis=grid, color=FAINT, linewidth=0.7)
        axes.set_axisbelow(True)


def _empty(axes: Axes, message: str) -> None:
    """A plot without anything to show says so."""
    axes.set_axis_off()
    _write(axes, 0.5, 0.5, message, 10, color=MUTED, ha="center", transform=axes.transAxes)


def _text_colour(colour: tuple[float, ...]) -> str:
    """Ink or white, whichever can be read on `colour` (r, g, b, 0 to 1)."""
    return INK if 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 0.58 else PAPER


# --------------------------------------------------------------------------------------------------------------------
# Grids of pictures with their readings


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
    """Pictures with what was read in them: a mark, the characters in the colour of their confidence, the percentages.

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
    _check_lengths(images, predictions=predictions, labels=truths, names=names)
    pictures = [_thumbnail(image, f"image {i}") for i, image in enumerate(images)]
    caption = 0.6 + (0.2 if truths is not None else 0.0) + (0.2 if names is not None else 0.0)
    figure, page, boxes, picture_height = _grid(pictures, caption, title, note, columns, cell_width, _legend)
    for i, (box, picture, prediction) in enumerate(zip(boxes, pictures, predictions, strict=True)):
        truth = None if truths is None else truths[i]
        _cell(page, box, picture_height, picture, prediction, truth, None if names is None else names[i])
    return figure


Box = tuple[float, float, float, float]  # left, top, width, height in inches


def _grid(
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
    lines = _wrap(note, int(width * 13))
    head = margin + (0.32 if title else 0.0) + 0.2 * len(lines)
    legend_height = 0.3
    height = head + legend_height + (rows * (cell_height + gap) if rows else 0.6) + margin
    page = _page(figure := _figure(width, height))
    y = margin
    if title:
        _write(page, margin, y + 0.1, title, 13, fontweight="bold")
        y += 0.32
    for line in lines:
        _write(page, margin, y + 0.06, line, 9, color=MUTED)
        y += 0.2
    legend(page, margin, y + 0.06)
    y += legend_height
    if not pictures:
        _write(page, width / 2, y + 0.3, "no pictures", 10, color=MUTED, ha="center")
    left = (width - columns * cell_width - (columns - 1) * gap) / 2
    boxes = [
        (left + i % columns * (cell_width + gap), y + i // columns * (cell_height + gap), cell_width, cell_height)
        for i in range(len(pictures))
    ]
    return figure, page, boxes, picture_height


def _check_lengths(images: Sequence[ImageLike], **others: Sequence[Any] | None) -> None:
    for what, items in others.items():
        if items is not None and len(items) != len(images):
            raise UserError(f"there are {len(images)} pictures and {len(items)} {what}: give one for each picture")


def _wrap(text: str, columns: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, columns)


def _thumbnail(image: ImageLike, name: str) -> Image.Image:
    """Nothing is drawn larger than its cell, so the full-size pictures need not stay in memory."""
    picture = open_image(image, "" if isinstance(image, str | Path) else name)
    if max(picture.size) > 1200:
        picture.thumbnail((1200, 1200))
    return picture


def _legend(page: Axes, x: float, y: float) -> None:
    high, medium = f"{HIGH_CONFIDENCE:.0%}", f"{MEDIUM_CONFIDENCE:.0%}"
    _write(page, x, y, "confidence in %:", 8, color=MUTED)
    x += 1.05
    for name, limit in (("high", f"≥ {high}"), ("medium", f"≥ {medium}"), ("low", f"< {medium}")):
        page.add_patch(Rectangle((x, y - 0.05), 0.1, 0.1, color=CONFIDENCE_COLOURS[name]))
        _write(page, x + 0.15, y, f"{name} {limit}", 8, color=MUTED)
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
    colour = FAINT if truth is None else RIGHT if prediction.text == truth else WRONG
    _frame(page, box, colour)
    _place(page, picture, (x + pad, y + pad, width - 2 * pad, picture_height - pad))
    line = y + picture_height + 0.2
    start = x + pad
    if truth is not None:
        _write(page, start, line, "✓" if prediction.text == truth else "✗", 13, color=colour, fontweight="bold")
        start += 0.26
    _write(page, x + width - pad, line, f"{_percent(prediction.confidence)}%", 9, color=MUTED, ha="right")
    _characters(page, start, line, x + width - pad - 0.42 - start, prediction)
    line += 0.24
    for label, text in (("truth", truth), ("file", name)):
        if text is None:
            continue
        line += 0.2
        _write(page, x + pad, line, label, 8, color=MUTED)
        room = width - 2 * pad - 0.4
        if label == "truth":
            size = min(10.0, room * 72 / 0.68 / max(len(text), 1))  # Agg rounds advances up
            _write(page, x + pad + 0.4, line, text or NOTHING, size, mono=True)
        else:
            _write(page, x + pad + 0.4, line, _tail(text, room), 8, mono=True, color=MUTED)


def _frame(page: Axes, box: Box, colour: str) -> None:
    x, y, width, height = box
    style = "round,pad=0,rounding_size=0.06"
    page.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=PAPER, edgecolor=colour, linewidth=1.4)
    )


def _tail(text: str, room: float) -> str:
    """The end of a text, as much as `room` inches hold at 8 points: file names tell themselves apart there."""
    fits = int(room * 72 / (8 * 0.68))
    return text if len(text) <= fits else "…" + text[len(text) - fits + 1 :]


def _place(page: Axes, picture: Image.Image, box: Box) -> None:
    """Draw a picture into the middle of a box, as large as fits, resized by Pillow."""
    x, y, width, height = box
    scale = min(width / picture.width, height / picture.height)
    w, h = picture.width * scale, picture.height * scale
    # Twice the page's resolution keeps thin strokes when a viewer zooms in.
    size = max(1, round(w * 2 * DPI)), max(1, round(h * 2 * DPI))
    left, top = x + (width - w) / 2, y + (height - h) / 2
    page.imshow(
        np.asarray(picture.resize(size, Image.Resampling.LANCZOS)),
        extent=(left, left + w, top + h, top),
        aspect="auto",
        interpolation="antialiased",
        zorder=2,  # patches, the frame among them, have 1
    )


def _characters(page: Axes, x: float, y: float, room: float, prediction: Prediction) -> None:
    """The reading, one column per character in the colour of its confidence, with the percentage under it."""
    if not prediction.text:
        _write(page, x, y, f"{NOTHING} nothing read", 9, color=MUTED, style="italic")
        return
    pitch = min(0.23, room / len(prediction.text))
    size = min(14.0, pitch * 72 / 0.7)
    for i, (character, confidence) in enumerate(zip(prediction.text, prediction.char_confidences, strict=True)):
        centre = x + (i + 0.5) * pitch
        colour = CONFIDENCE_COLOURS[confidence_class(confidence)]
        _write(page, centre, y, character, size, mono=True, color=colour, ha="center", fontweight="bold")
        if pitch >= 0.12:  # three digits at 5 points
            digits = min(6.5, pitch * 72 / 2.2)
            _write(page, centre, y + 0.2, _percent(confidence), digits, color=colour, ha="center")


def _percent(probability: float) -> str:
    """Whole percent, rounded down above 99 so that only certainty is 100."""
    return str(math.floor(probability * 100) if probability > 0.99 else round(probability * 100))


def draw_label_errors(
    images: Sequence[ImageLike], rows: Sequence[Mapping[str, Any]], title: str = "", note: str = ""
) -> Figure:
    """Pictures with their label above what was read; the characters in which the two differ in colour and underlined.

    Args:
        images: anything that `open_image` takes; may be empty.
        rows: one per picture: `label`, `reading`, `confidence` (0 to 1), `score` (a number or None), `reason` (may be
            empty) and `file`.
        title: above the grid.
        note: under the title.

    Raises:
        UserError: the lists differ in length, or a picture cannot be read.
    """
    _check_lengths(images, rows=rows)
    pictures = [_thumbnail(image, str(row["file"])) for image, row in zip(images, rows, strict=True)]
    figure, page, boxes, picture_height = _grid(pictures, 0.98, title, note, None, 2.5, _difference_legend)
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
    return _save(draw_label_errors(images[:MAX_PICTURES], rows[:MAX_PICTURES], title, note), path)


def differing(label: str, reading: str) -> tuple[list[bool], list[bool]]:
    """For each character of either text whether the other one lacks it."""
    marks = [True] * len(label), [True] * len(reading)
    for block in SequenceMatcher(None, label, reading, autojunk=False).get_matching_blocks():
        marks[0][block.a : block.a + block.size] = [False] * block.size
        marks[1][block.b : block.b + block.size] = [False] * block.size
    return marks


def _difference_legend(page: Axes, x: float, y: float) -> None:
    for text, colour in (("only in the label", WRONG), ("only in the reading", ACCENT)):
        page.add_patch(Rectangle((x, y - 0.05), 0.1, 0.1, color=colour))
        _write(page, x + 0.15, y, text, 8, color=MUTED)
        x += 0.45 + 0.065 * len(text)


def _suspect(
    page: Axes, box: Box, picture_height: float, picture: Image.Image, row: Mapping[str, Any], place: int
) -> None:
    x, y, width, _ = box
    pad, indent = 0.08, 0.46
    _frame(page, box, FAINT if row["label"] == row["reading"] else WRONG)
    _place(page, picture, (x + pad, y + pad, width - 2 * pad, picture_height - pad))
    line = y + picture_height + 0.17
    marks = differing(row["label"], row["reading"])
    beside = f"{row['score']:.1f}" if row["score"] is not None else "", f"{_percent(row['confidence'])}%"
    for name, marked, colour, figure in zip(("label", "reading"), marks, (WRONG, ACCENT), beside, strict=True):
        _write(page, x + pad, line, name, 8, color=MUTED)
        _write(page, x + width - pad, line, figure, 8, color=MUTED, ha="right")
        _marked(page, x + pad + indent, line, width - 2 * pad - indent - 0.42, row[name], marked, colour)
        line += 0.26
    number = f"{place}. "
    file = _tail(str(row["file"]), width - 2 * pad - 0.077 * len(number))
    _write(page, x + pad, line, number + file, 8, mono=True, color=MUTED)
    line += 0.2
    for words in _wrap(row["reason"], 44)[:1]:
        cut = "" if len(words) == len(row["reason"]) else "…"
        _write(page, x + pad, line, words + cut, 7, color=AMBER)


def _marked(page: Axes, x: float, y: float, room: float, text: str, marks: Sequence[bool], colour: str) -> None:
    """A text, one column per character; the marked ones are coloured, bold and underlined."""
    if not text:
        _write(page, x, y, NOTHING, 10, color=colour)
        return
    pitch = min(0.17, room / len(text))
    size = min(12.0, pitch * 72 / 0.7)
    for i, (character, marked) in enumerate(zip(text, marks, strict=True)):
        style = {"color": colour, "fontweight": "bold"} if marked else {}
        shown = character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        _write(page, x + (i + 0.5) * pitch, y, shown, size, mono=True, ha="center", **style)
        if marked:
            page.add_patch(Rectangle((x + (i + 0.1) * pitch, y + 0.1), 0.8 * pitch, 0.018, color=colour))


def worst_first(predictions: Sequence[Prediction], truths: Sequence[str]) -> list[int]:
    """Indices, wrong readings first and of these the surest; then the right ones, the least sure first.

    A model that is sure and wrong either misses something or points at a wrong label; both are worth a look.
    """
    wrong = [i for i, (p, t) in enumerate(zip(predictions, truths, strict=True)) if p.text != t]
    right = [i for i, (p, t) in enumerate(zip(predictions, truths, strict=True)) if p.text == t]
    return sorted(wrong, key=lambda i: -predictions[i].confidence) + sorted(
        right, key=lambda i: predictions[i].confidence
    )


def _headline(predictions: Sequence[Prediction], truths: Sequence[str]) -> str:
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
    _check_lengths(images, predictions=predictions, labels=truths)
    shown = slice(0, MAX_PICTURES)
    named = bool(images) and all(isinstance(image, str | Path) for image in images)
    note = ""
    if len(images) > MAX_PICTURES:
        note = f"The first {MAX_PICTURES} of {len(images):,} pictures."
    title = _headline(predictions, truths) if truths is not None else f"{len(images):,} readings"
    figure = draw_grid(
        images[shown],
        predictions[shown],
        None if truths is None else truths[shown],
        [Path(str(image)).name for image in images[shown]] if named else None,
        title,
        note,
    )
    return _save(figure, path)


class CaptchaVisualizer:
    """Pictures of what one model reads.

    Args:
        predictor: the model, or the path of its checkpoint; the shipped weights by default.

    Raises:
        UserError: the checkpoint is missing or cannot be used.
    """

    def __init__(self, predictor: CaptchaPredictor | str | Path | None = None) -> None:
        self.predictor = predictor if isinstance(predictor, CaptchaPredictor) else CaptchaPredictor(predictor)
        self.index_to_char = self.create_index_to_char_mapping()

    @staticmethod
    def load_latest_model(folder: str | Path = SAVED_MODELS) -> CaptchaPredictor:
        """The model written last: of the .safetensors files in `folder`, and the best.safetensors of the runs in it.

        Raises:
            UserError: there is none.
        """
        folder = Path(folder)
        found = [*folder.glob("*.safetensors"), *folder.glob("*/best.safetensors")]
        if not found:
            raise UserError(f"there is no model in {folder}: train one with main.py")
        return CaptchaPredictor(max(found, key=lambda p: (p.stat().st_mtime_ns, str(p))))

    def create_index_to_char_mapping(self) -> dict[int, str]:
        """Class id to character; the blank (0) maps to the empty string."""
        return {BLANK_ID: ""} | dict(enumerate(self.predictor.alphabet.characters, start=1))

    def decode_labels(self, labels: Sequence[Sequence[int]] | np.ndarray) -> list[str]:
        """Texts of class ids (N, L), padded with blanks or ragged.

        Raises:
            UserError: an id is outside the alphabet.
        """
        texts = []
        for row in labels:
            unknown = [int(i) for i in row if int(i) not in self.index_to_char]
            if unknown:
                raise UserError(f"the class id {unknown[0]} is not among the {len(self.index_to_char)} of this model")
            texts.append("".join(self.index_to_char[int(i)] for i in row))
        return texts

    def decode_predictions(self, log_probs: np.ndarray) -> list[str]:
        """Texts of a batch of log-probabilities (N, T, C), as the predictor decodes them."""
        return [reading.text for reading in self.predictor.codec.decode(log_probs)]

    def get_confidence_per_char(self, image: ImageLike | Prediction) -> list[tuple[str, float]]:
        """Characters read in one picture, each with its confidence, 0 to 1.

        Raises:
            UserError: the picture cannot be read.
        """
        prediction = image if isinstance(image, Prediction) else self.predictor.predict([image])[0]
        return list(zip(prediction.text, prediction.char_confidences, strict=True))

    def visualize_image(
        self, image: ImageLike, path: str | Path, truth: str | None = None, prediction: Prediction | None = None
    ) -> Path:
        """One picture, its reading and its confidence grid, written to `path`.

        Raises:
            UserError: the picture cannot be read, or `path` cannot be written.
        """
        prediction = prediction or self.predictor.predict([image])[0]
        truths = None if truth is None else [truth]
        top = figure_image(draw_grid([image], [prediction], truths, cell_width=5.0))
        bottom = figure_image(confidence_grid(prediction))
        size = max(top.width, bottom.width), top.height + bottom.height
        sheet = Image.new("RGB", size, PAPER)
        sheet.paste(top, ((size[0] - top.width) // 2, 0))
        sheet.paste(bottom, ((size[0] - bottom.width) // 2, top.height))
        page = _page(figure := _figure(size[0] / DPI, size[1] / DPI))
        page.imshow(
            np.asarray(sheet), extent=(0, size[0] / DPI, size[1] / DPI, 0), aspect="auto", interpolation="nearest"
        )
        return _save(figure, path)

    def visualize_predictions(
        self,
        images: Sequence[ImageLike],
        truths: Sequence[str] | None,
        path: str | Path,
        predictions: Sequence[Prediction] | None = None,
        worst: bool = False,
        title: str = "",
    ) -> Path:
        """Grid of pictures with truth, reading, confidence per character, and right or wrong; at most 200 of them.

        Args:
            images: anything that `open_image` takes.
            truths: one label per picture, or None where they are not known.
            path: of the picture to write.
            predictions: what was read; by default the model reads the pictures now.
            worst: the surest wrong readings first (see `worst_first`); needs `truths`.
            title: by default how many are right.

        Raises:
            UserError: a picture cannot be read, the lists differ in length, or `path` cannot be written.
        """
        if worst and truths is None:
            raise UserError("without the labels there are no worst errors to show: give the truths")
        _check_lengths(images, predictions=predictions, labels=truths)
        if predictions is None:
            predictions = self.predictor.predict(images if worst else images[:MAX_PICTURES])
            images = images if worst else images[: len(predictions)]
            truths = truths if worst or truths is None else truths[: len(predictions)]
        if truths is None:
            return show_all_images_with_predictions(images, predictions, path)
        headline = _headline(predictions, truths)
        order = worst_first(predictions, truths) if worst else list(range(len(images)))
        notes = [headline + "."] if title else []
        if worst:
            notes.append("The surest wrong readings come first, then the least sure right ones.")
        if len(order) > MAX_PICTURES:
            notes.append(f"{MAX_PICTURES} of {len(order):,} pictures are shown.")
        order = order[:MAX_PICTURES]
        figure = draw_grid(
            [images[i] for i in order],
            [predictions[i] for i in order],
            [truths[i] for i in order],
            title=title or headline,
            note=" ".join(notes),
        )
        return _save(figure, path)


# --------------------------------------------------------------------------------------------------------------------
# Confidence of one reading


def confidence_matrix(prediction: Prediction) -> tuple[np.ndarray, list[str]]:
    """What the model weighed at each character of its reading.

    Of the steps that CTC read a character from, the one where this character is likeliest speaks for it. A slot head
    gives in addition the position at which it saw the end, if the text has one.

    Returns:
        Probabilities (rows, C), 0 to 1, column 0 being "no character", and a label for each row.
    """
    probabilities = np.exp(np.asarray(prediction.log_probs, dtype=np.float64))  # (T, C)
    ids = prediction.codec.encode(prediction.text)
    steps = [
        start + int(probabilities[start:stop, k].argmax())
        for k, (start, stop) in zip(ids, prediction.spans, strict=True)
    ]
    labels = [f"{i}  {c}" for i, c in enumerate(prediction.text, start=1)]
    if prediction.codec.head != "ctc" and len(steps) < len(probabilities):
        steps.append(len(steps))
        labels.append("end")
    return probabilities[steps], labels


def confidence_grid(prediction: Prediction) -> Figure:
    """Heat picture of one reading, position by alphabet; for CTC also where along the picture each character was read.

    Of an alphabet of more than 70 characters the likeliest 70 are shown.
    """
    matrix, labels = confidence_matrix(prediction)
    characters = NOTHING + prediction.codec.alphabet.characters
    shown = np.arange(matrix.shape[1])
    if len(shown) > MAX_CLASSES and len(matrix):
        shown = np.sort(np.argsort(-matrix.max(axis=0), kind="stable")[:MAX_CLASSES])
    cell = 0.2
    with_steps = prediction.codec.head == "ctc"
    width = max(1.0 + cell * len(shown) + 0.3, 6.0)
    heat_height = max(cell * 1.15 * len(labels), 0.4)
    steps_height = 1.35 if with_steps else 0.0
    head, foot, between = 0.5, 0.5, 0.95 if with_steps else 0.0
    height = head + heat_height + between + steps_height + foot
    figure = _figure(width, height)
    left, across = 0.8 / width, (width - 1.0) / width
    heat = figure.add_axes((left, 1 - (head + heat_height) / height, across, heat_height / height))
    _style(heat, "What each position could be", grid=None)
    if len(matrix):
        _heat(heat, matrix[:, shown], [characters[i] for i in shown], labels, prediction)
    else:
        heat.set_axis_off()
        heat.set_title("What each position could be", loc="left", fontsize=11, color=INK, fontweight="bold", pad=9)
        _write(heat, 0, 0.5, "nothing was read in this picture", 10, color=MUTED, transform=heat.transAxes)
    if with_steps:
        steps = figure.add_axes((left, foot / height, across, steps_height / height))
        _steps(steps, prediction)
    return figure


def _heat(axes: Axes, matrix: np.ndarray, columns: list[str], rows: list[str], prediction: Prediction) -> None:
    # The square root lets a rival of 5 % be seen.
    picture = axes.imshow(matrix, cmap=BLUES, norm=PowerNorm(0.5, 0, 1), aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(family=_families(True), fontsize=8.5, color=INK, parse_math=False)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row, column in zip(*np.nonzero(matrix >= 0.1), strict=True):
        value = float(matrix[row, column])
        colour = _text_colour(picture.cmap(picture.norm(value)))
        _write(axes, column, row, _percent(value), 6.5, color=colour, ha="center")


def _steps(axes: Axes, prediction: Prediction) -> None:
    """Probability of each character of the reading along the T steps of CTC, the blank in grey."""
    probabilities = np.exp(np.asarray(prediction.log_probs, dtype=np.float64))
    x = np.arange(1, len(probabilities) + 1)
    _style(axes, "Where along the picture it was read", x="step, from left to right")
    axes.fill_between(x, probabilities[:, BLANK_ID], step="mid", color=FAINT, alpha=0.6, linewidth=0)
    for k, (start, stop), p in zip(
        prediction.codec.encode(prediction.text), prediction.spans, prediction.char_confidences, strict=True
    ):
        colour = CONFIDENCE_COLOURS[confidence_class(p)]
        axes.bar(x[start:stop], probabilities[start:stop, k], width=0.9, color=colour, linewidth=0)
        peak = start + int(probabilities[start:stop, k].argmax())
        character = prediction.codec.alphabet.decode([k])
        _write(axes, x[peak], 1.1, character, 10, mono=True, color=colour, ha="center", fontweight="bold")
    axes.set(xlim=(0.4, len(x) + 0.6), ylim=(0, 1.22))
    axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _write(axes, 1.0, -0.29, "grey: no character", 8, color=MUTED, ha="right", transform=axes.transAxes)


Sides = tuple[float, float, float, float]  # left, top, right, bottom in pixels


def character_boxes(image: Image.Image, prediction: Prediction, predictor: CaptchaPredictor) -> list[Sides] | None:
    """Where on an RGB picture each character was seen: its columns in the network's input, back through the resizing.

    Returns:
        (left, top, right, bottom) in pixels for each character; None where the network does not say where it looked.
    """
    columns = _ctc_columns(prediction) if prediction.codec.head == "ctc" else None
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

    CTC marks a point of a letter rather than its outline: the columns reach half-way to the neighbours', and at most
    half the usual distance of two characters.
    """
    steps = len(prediction.log_probs)
    centres = [(start + stop) / 2 for start, stop in prediction.spans]
    gaps = [b - a for a, b in pairwise(centres)]
    reach = float(np.median(gaps)) / 2 if gaps else 2.0
    columns = []
    for i, ((start, stop), centre) in enumerate(zip(prediction.spans, centres, strict=True)):
        first = max(centre - reach, (centres[i - 1] + centre) / 2 if i else 0.0)
        last = min(centre + reach, (centre + centres[i + 1]) / 2 if i + 1 < len(centres) else float(steps))
        columns.append((min(first, start) / steps, max(last, stop) / steps))
    return columns


def _attended_columns(attention: np.ndarray) -> list[tuple[float, float]]:
    """First and last column, as shares of the width, of the middle two thirds of each row's attention (L, w)."""
    width = attention.shape[1]
    sums = np.pad(attention.cumsum(axis=1) / attention.sum(axis=1, keepdims=True), ((0, 0), (1, 0)))
    places = np.arange(width + 1) / width
    return [(float(np.interp(1 / 6, row, places)), float(np.interp(5 / 6, row, places))) for row in sums]


def draw_boxes(image: ImageLike, prediction: Prediction, predictor: CaptchaPredictor) -> Image.Image | None:
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
    figure = _figure(width, height + head)
    figure.patch.set_alpha(0)
    page = _page(figure)
    _place(page, picture, (0, head, width, height))
    pitch = min((right - left) * scale for left, _, right, _ in boxes)
    for box, character, p in zip(boxes, prediction.text, prediction.char_confidences, strict=True):
        colour = CONFIDENCE_COLOURS[confidence_class(p)]
        left, top, right, bottom = (side * scale for side in box)
        corner, across, down = (left + 0.012, head + top), right - left - 0.024, bottom - top - 0.012
        page.add_patch(Rectangle(corner, across, down, facecolor=(*to_rgb(colour), 0.1), zorder=3))
        page.add_patch(Rectangle(corner, across, down, fill=False, edgecolor=colour, lw=1.6, zorder=4))
        page.add_patch(Rectangle((left + 0.001, 0.02), across + 0.022, head - 0.02, facecolor=colour, zorder=4))
        size, middle = min(15.0, pitch * 72 / 0.75), (left + right) / 2
        _write(page, middle, head / 2 - 0.05, character, size, mono=True, color=PAPER, ha="center", zorder=5)
        if pitch >= 0.25:
            _write(page, middle, head - 0.08, f"{_percent(p)}%", 6, color=PAPER, ha="center", zorder=5)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba()).copy())


# --------------------------------------------------------------------------------------------------------------------
# Training


def plot_history(history: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Training curves: loss, sequence accuracy and CER on the validation split, learning rate; phases are marked.

    Args:
        history: the rows of history.json; `validation` may be missing.
        path: of the picture to write.

    Raises:
        UserError: `path` cannot be written.
    """
    checked = [row for row in history if row.get("validation")]
    tall = 8.2 if checked else 5.2  # inches; without validation there is no panel for it
    figure = _figure(8, tall)
    places = ((5.4, 2.2), (2.45, 2.2), (0.57, 1.15)) if checked else ((2.4, 2.2), (0.57, 1.15))
    panels = [figure.add_axes((0.1, bottom / tall, 0.86, height / tall)) for bottom, height in places]
    epochs = [row["epoch"] for row in history]
    style: dict[str, Any] = {"linewidth": 1.8, "marker": "o", "markersize": 3.5 if len(history) <= 40 else 0}
    loss, rate = panels[0], panels[-1]
    if not history:
        for panel in panels:
            _empty(panel, "no epoch has ended yet")
        return _save(figure, path)
    loss.plot(epochs, [row["train_loss"] for row in history], color=ACCENT, label="training", **style)
    checked_epochs = [row["epoch"] for row in checked]
    if checked:
        losses = [row["validation"]["loss"] for row in checked]
        loss.plot(checked_epochs, losses, color=AMBER, label="validation", linestyle="--", **style)
    _style(loss, "Loss")
    values = [v for line in loss.get_lines() for v in np.asarray(line.get_ydata(), dtype=float) if v > 0]
    if values and max(values) > 30 * min(values):
        loss.set_yscale("log")
        loss.yaxis.set_minor_formatter(NullFormatter())
        loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        loss.set_ylim(bottom=0)
    low, high = loss.get_ylim()  # room at the top for the phases' names
    loss.set_ylim(low, high * 1.12 if loss.get_yscale() == "linear" else high * (high / low) ** 0.12)
    if checked:
        score = panels[1]
        accuracies = [row["validation"]["sequence_accuracy"] for row in checked]
        rates = [min(row["validation"]["cer"], 1.0) for row in checked]
        score.plot(checked_epochs, accuracies, color=RIGHT, label="sequence accuracy", **style)
        score.plot(checked_epochs, rates, color=WRONG, label="CER", linestyle="--", **style)
        best = max(range(len(checked)), key=lambda i: (accuracies[i], -checked[i]["validation"]["loss"]))
        score.plot(checked_epochs[best], accuracies[best], "*", color=RIGHT, markersize=13, zorder=5)
        n = checked[best]["validation"].get("n")
        _style(score, f"Validation{f', n = {n:,}' if n else ''}: best ★ {accuracies[best]:.1%}")
        score.set_ylim(-0.03, 1.05)
        score.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    rate.plot(epochs, [row["learning_rate"] for row in history], color=MUTED, **style)
    _style(rate, "Learning rate at the end of the epoch", x="epoch")
    rate.set_ylim(bottom=0)
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:.1e}" if value else "0")
    for panel in panels:
        panel.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
        _mark_phases(panel, history, named=panel is loss)
        if len(panel.get_lines()) > 1:
            legend = panel.legend(
                fontsize=8.5, frameon=False, labelcolor=INK, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2
            )
            legend.set_in_layout(False)
    return _save(figure, path)


def _mark_phases(axes: Axes, history: Sequence[Mapping[str, Any]], named: bool) -> None:
    """Shade every other phase; write its name at the top where there is more than one."""
    phases: list[tuple[str, int, int]] = []
    for row in history:
        name = str(row.get("phase", ""))
        if phases and phases[-1][0] == name:
            phases[-1] = (name, phases[-1][1], row["epoch"])
        else:
            phases.append((name, row["epoch"], row["epoch"]))
    if len(phases) < 2:
        return
    low, high = axes.get_xlim()
    room = 0.04 * (high - low)  # half a name
    for i, (name, first, last) in enumerate(phases):
        if i % 2 == 0:
            axes.axvspan(first - 0.5, last + 0.5, color=FAINT, alpha=0.45, linewidth=0, zorder=0)
        if named:
            where = axes.get_xaxis_transform()
            middle = min(max((first + last) / 2, low + room), high - room)
            _write(axes, middle, 0.94, name, 8, color=MUTED, ha="center", transform=where)


# --------------------------------------------------------------------------------------------------------------------
# Evaluation


def plot_confusion(report: Mapping[str, Any], path: str | Path) -> Path:
    """Confusion matrix of the characters that occur, each row as shares of its truth, and the commonest mistakes.

    The diagonal (right) is blue and mistakes are red, on a scale that shows one in a hundred. ∅ as the truth is a
    surplus character, ∅ as the reading a missing one. Of more than 70 characters those with most mistakes are shown.

    Args:
        report: of accuracy_calculator.py; its `character_counts` are used.
        path: of the picture to write.

    Raises:
        UserError: `path` cannot be written.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for entry in report.get("character_counts", []):
        counts[entry["truth"], entry["reading"]] += entry["count"]
    if not counts:
        figure = _figure(6, 3)
        _empty(figure.add_axes((0, 0, 1, 1)), "no characters were compared")
        return _save(figure, path)
    mistakes = Counter({pair: n for pair, n in counts.items() if pair[0] != pair[1]})
    characters = sorted({c for pair in counts for c in pair if c})
    total = len(characters)
    if total > MAX_CLASSES:
        missed = Counter[str]()
        for (truth, reading), n in mistakes.items():
            missed[truth] += n
            missed[reading] += n
        characters = sorted(sorted(characters, key=lambda c: (-missed[c], c))[:MAX_CLASSES])
    classes = [*characters, ""]
    places = {c: i for i, c in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    for (truth, reading), n in counts.items():
        if truth in places and reading in places:
            matrix[places[truth], places[reading]] += n
    row_totals = np.array([sum(n for (t, _), n in counts.items() if t == c) for c in classes])
    shares = matrix / np.maximum(row_totals, 1)[:, None]
    cell = 0.2 if len(classes) > 12 else 0.3
    side = cell * len(classes)
    left, top, foot, gap, bars = 0.75, 0.95, 0.6, 0.55, 2.7
    top_mistakes = mistakes.most_common(min(20, max(6, int(side / 0.21))))
    body = max(side, 0.21 * len(top_mistakes), 1.6)
    width, height = left + side + gap + bars + 0.35, top + body + foot
    figure = _figure(width, height)
    right = int(sum(n for (t, r), n in counts.items() if t == r))
    compared = int(sum(counts.values()))
    _write(figure, 0.2 / width, 1 - 0.28 / height, "Confusion of characters", 13, fontweight="bold")
    said = f"{right:,} of {compared:,} right"
    said += f"; the {len(characters)} of {total} characters with most mistakes" if total > len(characters) else ""
    _write(figure, 0.2 / width, 1 - 0.54 / height, said, 9, color=MUTED)
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    _matrix(axes, matrix, shares, [c or NOTHING for c in classes])
    chart_height = 0.21 * max(len(top_mistakes), 6)
    bounds = (left + side + gap, height - top - chart_height, bars, chart_height)
    chart = figure.add_axes((bounds[0] / width, bounds[1] / height, bounds[2] / width, bounds[3] / height))
    _mistakes(chart, top_mistakes, row_totals, places, counts)
    return _save(figure, path)


def _matrix(axes: Axes, matrix: np.ndarray, shares: np.ndarray, names: list[str]) -> None:
    size = len(names)
    diagonal = np.eye(size, dtype=bool)
    norm = PowerNorm(0.35, 0, 1)
    for colours, where in ((BLUES, diagonal), (REDS, ~diagonal)):
        values = np.ma.masked_where(~where | (matrix == 0), shares)
        axes.imshow(values, cmap=colours, norm=norm, aspect="auto", interpolation="nearest")
    _style(axes, x="reading", y="truth", grid=None)
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(family=_families(True), fontsize=8.5, color=INK, parse_math=False)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row, column in zip(*np.nonzero(matrix * ~diagonal), strict=True):
        n = int(matrix[row, column])
        colour = _text_colour(REDS(norm(float(shares[row, column]))))
        _write(axes, column, row, f"{n}" if n < 1000 else "…", 6 if n < 100 else 5, color=colour, ha="center")


def _mistakes(
    axes: Axes,
    top: list[tuple[tuple[str, str], int]],
    row_totals: np.ndarray,
    places: Mapping[str, int],
    counts: Mapping[tuple[str, str], int],
) -> None:
    if not top:
        _empty(axes, "no mistakes")
        return
    _style(axes, "Commonest mistakes", grid=None)
    values = [n for _, n in top]
    axes.barh(range(len(top)), values, color=WRONG, height=0.62)
    axes.set_yticks(range(len(top)), [f"{a or NOTHING} → {b or NOTHING}" for (a, b), _ in top])
    for label in axes.get_yticklabels():
        label.set(family=_families(True), fontsize=9, color=INK, parse_math=False)
    for i, ((truth, _), n) in enumerate(top):
        of = f" of {sum(m for (t, _), m in counts.items() if t == truth):,}" if truth else ""
        _write(axes, n + max(values) * 0.02, i, f"{n}{of}", 8, color=MUTED)
    axes.set(xlim=(0, max(values) * 1.35), ylim=(max(len(top), 6) - 0.4, -0.6))
    axes.set_xticks([])
    axes.spines[["bottom", "left"]].set_visible(False)


def plot_calibration(report: Mapping[str, Any], path: str | Path) -> Path:
    """Reliability diagram: does a confidence of 90 % mean that 90 % are right? Below it, how many readings there are.

    Args:
        report: of accuracy_calculator.py; its `calibration` and `expected_calibration_error` are used.
        path: of the picture to write.

    Raises:
        UserError: `path` cannot be written.
    """
    bins = report.get("calibration", [])
    figure = _figure(5.6, 6.4)
    if not bins:
        _empty(figure.add_axes((0, 0, 1, 1)), "no readings were compared")
        return _save(figure, path)
    main = figure.add_axes((0.14, 0.36, 0.8, 0.54))
    below = figure.add_axes((0.14, 0.09, 0.8, 0.18))
    centres = [(b["from"] + b["to"]) / 2 for b in bins]
    widths = [(b["to"] - b["from"]) * 0.9 for b in bins]
    error = report.get("expected_calibration_error")
    title = "Calibration" + (f": expected error {error:.3f}" if error is not None else "")
    _style(main, title, x="", y="sequence accuracy")
    main.bar(centres, [b["accuracy"] for b in bins], widths, color=ACCENT, alpha=0.85, label="measured", linewidth=0)
    main.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2, label="perfect")
    for b in bins:  # the gap between what was said and what came true
        main.plot([b["confidence"]] * 2, [b["confidence"], b["accuracy"]], color=WRONG, linewidth=2)
    main.plot(
        [b["confidence"] for b in bins],
        [b["accuracy"] for b in bins],
        "o",
        color=WRONG,
        markersize=4.5,
        label="gap",
    )
    main.legend(fontsize=8.5, frameon=False, labelcolor=INK, loc="lower left", bbox_to_anchor=(-0.02, 0.985), ncols=3)
    main.set_title(main.get_title(loc="left"), loc="left", fontsize=11, color=INK, fontweight="bold", pad=26)
    _style(below, x="confidence of the reading", y="readings")
    bars = below.bar(centres, [b["n"] for b in bins], widths, color=MUTED, alpha=0.6, linewidth=0)
    below.bar_label(bars, [f"{b['n']:,}" for b in bins], fontsize=7.5, color=MUTED, padding=1)
    below.set_ylim(0, max(b["n"] for b in bins) * 1.25)
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    main.set_ylim(0, 1.03)
    main.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for axes in (main, below):
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return _save(figure, path)


def plot_breakdown(report: Mapping[str, Any], path: str | Path) -> Path:
    """Bars of the accuracy by position of the character and by length of the text, each with its n.

    Args:
        report: of accuracy_calculator.py; its `by_position` and `by_length` are used.
        path: of the picture to write.

    Raises:
        UserError: `path` cannot be written.
    """
    groups = [
        ("Character accuracy by position", "position in the text", report.get("by_position", {})),
        ("Sequence accuracy by length", "characters in the text", report.get("by_length", {})),
    ]
    figure = _figure(9.5, 3.6)
    most = [max(len(values), 3) for _, _, values in groups]
    # Bars of about the same width in both panels.
    room, left = 0.82, 0.07
    for (title, x, values), count in zip(groups, most, strict=True):
        across = room * min(max(count / sum(most), 0.35), 0.65)
        axes = figure.add_axes((left, 0.2, across, 0.64))
        left += across + 0.08
        if not values:
            _empty(axes, f"{title}: nothing to show")
            continue
        _style(axes, title, x=x)
        shares = [float(v["accuracy"]) for v in values.values()]
        axes.bar(range(len(values)), shares, color=ACCENT, width=0.62, linewidth=0)
        ticks = [f"{name}\nn={v['n']:,}" if len(values) <= 12 else name for name, v in values.items()]
        axes.set_xticks(range(len(values)), ticks, fontsize=7.5)
        spare = max(3 - len(values), 0) / 2
        axes.set(xlim=(-0.7 - spare, len(values) - 0.3 + spare), ylim=(0, 1.16))
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0], ["0%", "25%", "50%", "75%", "100%"])
        if len(values) > 12:
            continue  # no room for the figures
        for i, share in enumerate(shares):
            _write(axes, i, share + 0.04, f"{share:.1%}", 7.5, ha="center")
    return _save(figure, path)


def draw_report(
    predictor: CaptchaPredictor,
    images: Sequence[ImageLike],
    texts: Sequence[str],
    predictions: Sequence[Prediction],
    report: Mapping[str, Any],
    folder: str | Path,
) -> list[Path]:
    """All pictures of an evaluation: confusion, calibration, breakdown, worst (errors first), samples (the first 25).

    Returns:
        The paths written, all in `folder`, which is made if need be.

    Raises:
        UserError: a picture cannot be read, or `folder` cannot be written to.
    """
    folder = Path(folder)
    visualizer = CaptchaVisualizer(predictor)
    worst = worst_first(predictions, texts)[:30]
    first = list(range(min(25, len(texts))))
    overall = _headline(predictions, texts)
    wrong = sum(p.text != t for p, t in zip(predictions, texts, strict=True))
    title, note = "No errors: the least sure readings", overall + "."
    if wrong:
        title = f"Worst errors: {min(wrong, len(worst)):,} of {wrong:,}"
        if wrong < len(worst):
            title += f", and {len(worst) - wrong:,} right readings"
        note += " The surest wrong readings come first, then the least sure right ones."
    figure = draw_grid(
        [images[i] for i in worst],
        [predictions[i] for i in worst],
        [texts[i] for i in worst],
        title=title,
        note=note,
    )
    return [
        plot_confusion(report, folder / "confusion.png"),
        plot_calibration(report, folder / "calibration.png"),
        plot_breakdown(report, folder / "breakdown.png"),
        _save(figure, folder / "worst.png"),
        visualizer.visualize_predictions(
            [images[i] for i in first],
            [texts[i] for i in first],
            folder / "samples.png",
            [predictions[i] for i in first],
            title=f"The first {len(first)} pictures",
        ),
    ]
