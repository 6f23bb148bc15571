"""What every picture stands on: a figure, text, axes, a frame, a file."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

from captcha_reader.errors import UserError
from captcha_reader.files import printable, write_atomically
from captcha_reader.images import ImageLike, open_image
from captcha_reader.plots.colors import FAINT, INK, MUTED, PAPER

MAX_CLASSES = 70  # rows of a confusion matrix and columns of a confidence grid: more cannot be read
BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9cc3e6", "#2f6db3", "#123b6b"])
REDS = LinearSegmentedColormap.from_list("reds", ["#fdeeee", "#f0a3a8", "#c22f4f", "#6d1028"])

DPI = 110

# A file's name may hold characters that no font here has: a box in the picture says it, in no need of a warning each.
warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")

Box = tuple[float, float, float, float]  # left, top, width, height in inches


@cache
def font_families(mono: bool) -> list[str]:
    """DejaVu comes with matplotlib; behind it any installed font for scripts that it lacks."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    wanted = ("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans Thai")
    return ["DejaVu Sans Mono" if mono else "DejaVu Sans", *(name for name in wanted if name in installed)]


def put_text(axes: Axes | Figure, x: float, y: float, text: str, size: float, mono: bool = False, **style: Any) -> None:
    """Text at (x, y), size in points. Labels may hold a `$`, which matplotlib would take for mathematics, and names
    bytes that are no UTF-8, which it refuses."""
    style = {"color": INK, "va": "center", "family": font_families(mono)} | style
    axes.text(x, y, printable(text), fontsize=size, parse_math=False, **style)


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of `width` by `height` inches on an Agg canvas."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def check_suffix(path: str | Path) -> Path:
    """The path, which must end as a figure can be written.

    Raises:
        UserError: it ends otherwise.
    """
    path = Path(path)
    if path.suffix[1:].lower() not in FigureCanvasAgg.get_supported_filetypes():
        raise UserError(f"{path} is no picture that can be written: end the name in .png, .pdf or .svg")
    return path


def save_figure(figure: Figure, path: str | Path) -> Path:
    path = check_suffix(path)
    try:
        return write_atomically(path, lambda temporary: figure.savefig(temporary))
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}): name another place") from error


def figure_image(figure: Figure) -> Image.Image:
    """The figure as an RGB picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def page_axes(figure: Figure) -> Axes:
    """Axes over the whole figure whose unit is the inch, origin at the top left."""
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return axes


def style_axes(axes: Axes, title: str = "", x: str = "", y: str = "", grid: Literal["x", "y"] | None = "y") -> None:
    """Our look for a plot with axes."""
    family = font_families(False)
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


def say_empty(axes: Axes, message: str) -> None:
    """A plot without anything to show says so."""
    axes.set_axis_off()
    put_text(axes, 0.5, 0.5, message, 10, color=MUTED, ha="center", transform=axes.transAxes)


def readable_color(color: tuple[float, ...]) -> str:
    """Ink or white, whichever can be read on `color` (r, g, b, 0 to 1)."""
    return INK if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 0.58 else PAPER


def thumbnail(image: ImageLike, name: str) -> Image.Image:
    """Nothing is drawn larger than its cell, so the full-size pictures need not stay in memory."""
    picture = open_image(image, "" if isinstance(image, str | Path) else name)
    if max(picture.size) > 1200:
        picture.thumbnail((1200, 1200))
    return picture


def draw_frame(page: Axes, box: Box, color: str) -> None:
    x, y, width, height = box
    style = "round,pad=0,rounding_size=0.06"
    page.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle=style, facecolor=PAPER, edgecolor=color, linewidth=1.4)
    )


def fit_tail(text: str, room: float) -> str:
    """The end of a text, as much as `room` inches hold at 8 points: file names tell themselves apart there."""
    fits = int(room * 72 / (8 * 0.68))
    return text if len(text) <= fits else "…" + text[len(text) - fits + 1 :]


def place_picture(page: Axes, picture: Image.Image, box: Box) -> None:
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
