"""Labels against accuracy, as the strength report draws it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from captcha_reader.plots.canvas import font_families, new_figure
from captcha_reader.plots.colors import FAINT, INK, MUTED

LINE = "#2f6db3"
WIDTH = 5.4  # inches; a phone shows it at about 0.9 of its size
SIZE = 9.5  # points of all text, to be read on a phone without scrolling
BROKEN = "#c22f4f"


def plot_attack_curve(steps: Sequence[dict[str, Any]], broken_at: float) -> Figure:
    """Sequence accuracy with its 95 % interval over the number of labels, and the line from which on it is broken.

    Args:
        steps: rows with `labels`, `accuracy` and `interval`, by the number of labels.
        broken_at: accuracy, 0 to 1.
    """
    figure = new_figure(WIDTH, 3.0)
    axes = figure.add_axes((0.12, 0.18, 0.86, 0.76))
    # The square root makes room for the first labels, where most happens, and has a place for none.
    places = [step["labels"] ** 0.5 for step in steps]
    values = [100 * step["accuracy"] for step in steps]
    low, high = zip(*([100 * v for v in step["interval"]] for step in steps), strict=True)
    axes.fill_between(places, low, high, color=LINE, alpha=0.15, linewidth=0)
    axes.plot(places, values, color=LINE, marker="o", markersize=5, linewidth=2)
    if len(steps) == 1:  # a band has no width then
        axes.vlines(places, low, high, color=LINE, alpha=0.4, linewidth=4)
    for place, value in zip(places, values, strict=True):
        above = value < 88
        near: dict[str, Any] = {
            "textcoords": "offset points",
            "ha": "center",
            "fontsize": SIZE,
            "family": font_families(mono=False),
        }
        axes.annotate(f"{value:.0f} %", (place, value), (0, 7 if above else -14), color=INK, **near)
    axes.axhline(100 * broken_at, color=BROKEN, linewidth=1, linestyle=(0, (4, 3)))
    where: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
    said = f"counts as broken from {100 * broken_at:g} % on"
    axes.annotate(said, (1, 100 * broken_at), (-2, 3), ha="right", color=BROKEN, fontsize=SIZE, **where)
    axes.set_xticks(places, [f"{step['labels']}" for step in steps])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_ylim(0, 103)
    axes.set_xlim(-0.4, max(places[-1] * 1.04, 1))
    axes.set_xlabel("labels that the attacker typed", color=MUTED, fontsize=SIZE)
    axes.tick_params(colors=MUTED, labelsize=SIZE, length=0)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def plot_changes(changes: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy of the machine against the legibility proxy for people, one arrow from each weaker to stronger op.

    Args:
        changes: rows with `op` and `levels`, a list of dicts with `strength`, `accuracy` and `legibility`, both 0 to 1;
            `legibility` is None where the proxy is blind for the op.
    """
    figure = new_figure(WIDTH, 0.55 + 0.34 * max(len(changes), 1))
    axes = figure.add_axes((0.29, 0.28 / figure.get_figheight(), 0.66, 1 - 0.5 / figure.get_figheight()))
    for row, change in enumerate(changes):
        y = len(changes) - 1 - row
        values = [100 * level["accuracy"] for level in change["levels"]]
        people = [100 * level["legibility"] for level in change["levels"] if level["legibility"] is not None]
        axes.plot(values, [y + 0.14] * len(values), color=LINE, linewidth=1, alpha=0.5)
        axes.plot(people, [y - 0.14] * len(people), color=MUTED, linewidth=1, alpha=0.5)
        for marks, color, shift in ((values, LINE, 0.14), (people, MUTED, -0.14)):
            for i, value in enumerate(marks):
                axes.plot(value, y + shift, "o", color=color, markersize=3 + 2 * i)
    axes.set_yticks(range(len(changes)), [change["op"].replace("_", " ") for change in reversed(changes)])
    axes.set_xlim(-2, 102)
    axes.set_ylim(-0.6, len(changes) - 0.4)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.tick_params(colors=MUTED, labelsize=SIZE, length=0)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def as_svg(figure: Figure) -> str:
    """The figure as an SVG element for a page: no XML head, no date, the same bytes each time."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "captcha", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
