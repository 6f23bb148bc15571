"""The pictures of an evaluation: confusion, calibration, accuracy by position and length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.ticker import MaxNLocator, PercentFormatter

from captcha_reader.images import ImageLike
from captcha_reader.plots.canvas import (
    BLUES,
    MAX_CLASSES,
    REDS,
    font_families,
    new_figure,
    put_text,
    readable_color,
    save_figure,
    say_empty,
    style_axes,
)
from captcha_reader.plots.colors import ACCENT, FAINT, INK, MUTED, WRONG
from captcha_reader.plots.grid import draw_grid, headline, plot_comparison, worst_first
from captcha_reader.reading.prediction import Prediction
from captcha_reader.text import NOTHING


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
    counts = Counter[tuple[str, str]]()
    for entry in report.get("character_counts", []):
        counts[entry["truth"], entry["reading"]] += entry["count"]
    if not counts:
        figure = new_figure(6, 3)
        say_empty(figure.add_axes((0, 0, 1, 1)), "no characters were compared")
        return save_figure(figure, path)
    mistakes = Counter({pair: n for pair, n in counts.items() if pair[0] != pair[1]})
    characters = sorted({c for pair in counts for c in pair if c})
    total = len(characters)
    characters = _most_mistaken(characters, mistakes)
    classes = [*characters, ""]
    matrix, shares = _confusion_matrix(counts, classes)
    cell = 0.2 if len(classes) > 12 else 0.3
    side = cell * len(classes)
    left, top, foot, gap, bars = 0.75, 0.95, 0.6, 0.55, 2.7
    top_mistakes = mistakes.most_common(min(20, max(6, int(side / 0.21))))
    body = max(side, 0.21 * len(top_mistakes), 1.6)
    width, height = left + side + gap + bars + 0.35, top + body + foot
    figure = new_figure(width, height)
    right = int(sum(n for (t, r), n in counts.items() if t == r))
    compared = int(sum(counts.values()))
    put_text(figure, 0.2 / width, 1 - 0.28 / height, "Confusion of characters", 13, fontweight="bold")
    said = f"{right:,} of {compared:,} right"
    said += f"; the {len(characters)} of {total} characters with most mistakes" if total > len(characters) else ""
    put_text(figure, 0.2 / width, 1 - 0.54 / height, said, 9, color=MUTED)
    axes = figure.add_axes((left / width, 1 - (top + side) / height, side / width, side / height))
    _matrix(axes, matrix, shares, [c or NOTHING for c in classes])
    chart_height = 0.21 * max(len(top_mistakes), 6)
    bounds = (left + side + gap, height - top - chart_height, bars, chart_height)
    chart = figure.add_axes((bounds[0] / width, bounds[1] / height, bounds[2] / width, bounds[3] / height))
    _mistakes(chart, top_mistakes, counts)
    return save_figure(figure, path)


def _most_mistaken(characters: list[str], mistakes: Mapping[tuple[str, str], int]) -> list[str]:
    """The characters, in order; of more than `MAX_CLASSES` those with most mistakes."""
    if len(characters) <= MAX_CLASSES:
        return characters
    missed = Counter[str]()
    for (truth, reading), n in mistakes.items():
        missed[truth] += n
        missed[reading] += n
    return sorted(sorted(characters, key=lambda c: (-missed[c], c))[:MAX_CLASSES])


def _confusion_matrix(counts: Mapping[tuple[str, str], int], classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Counts (truth, reading) of these classes, and the same as shares of all readings of the truth."""
    places = {c: i for i, c in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes)), dtype=np.int64)
    row_totals = np.zeros(len(classes), dtype=np.int64)
    for (truth, reading), n in counts.items():
        if truth in places:
            row_totals[places[truth]] += n
            if reading in places:
                matrix[places[truth], places[reading]] += n
    return matrix, matrix / np.maximum(row_totals, 1)[:, None]


def _matrix(axes: Axes, matrix: np.ndarray, shares: np.ndarray, names: list[str]) -> None:
    """The matrix: right readings blue, mistakes red with their counts."""
    size = len(names)
    diagonal = np.eye(size, dtype=bool)
    norm = PowerNorm(0.35, 0, 1)
    for colors, where in ((BLUES, diagonal), (REDS, ~diagonal)):
        values = np.ma.masked_where(~where | (matrix == 0), shares)
        axes.imshow(values, cmap=colors, norm=norm, aspect="auto", interpolation="nearest")
    style_axes(axes, x="reading", y="truth", grid=None)
    axes.set_xticks(range(size), names)
    axes.set_yticks(range(size), names)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(family=font_families(True), fontsize=8.5, color=INK, parse_math=False)
    axes.set_xticks(np.arange(size + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(size + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row, column in zip(*np.nonzero(matrix * ~diagonal), strict=True):
        n = int(matrix[row, column])
        color = readable_color(REDS(norm(float(shares[row, column]))))
        put_text(axes, column, row, f"{n}" if n < 1000 else "…", 6 if n < 100 else 5, color=color, ha="center")


def _mistakes(axes: Axes, top: list[tuple[tuple[str, str], int]], counts: Mapping[tuple[str, str], int]) -> None:
    """Bars of the commonest mistakes."""
    if not top:
        say_empty(axes, "no mistakes")
        return
    style_axes(axes, "Commonest mistakes", grid=None)
    values = [n for _, n in top]
    axes.barh(range(len(top)), values, color=WRONG, height=0.62)
    axes.set_yticks(range(len(top)), [f"{a or NOTHING} → {b or NOTHING}" for (a, b), _ in top])
    for label in axes.get_yticklabels():
        label.set(family=font_families(True), fontsize=9, color=INK, parse_math=False)
    for i, ((truth, _), n) in enumerate(top):
        of = f" of {sum(m for (t, _), m in counts.items() if t == truth):,}" if truth else ""
        put_text(axes, n + max(values) * 0.02, i, f"{n}{of}", 8, color=MUTED)
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
    figure = new_figure(5.6, 6.4)
    if not bins:
        say_empty(figure.add_axes((0, 0, 1, 1)), "no readings were compared")
        return save_figure(figure, path)
    main = figure.add_axes((0.14, 0.36, 0.8, 0.54))
    below = figure.add_axes((0.14, 0.09, 0.8, 0.18))
    centers = [(b["from"] + b["to"]) / 2 for b in bins]
    widths = [(b["to"] - b["from"]) * 0.9 for b in bins]
    error = report.get("expected_calibration_error")
    title = "Calibration" + (f": expected error {error:.3f}" if error is not None else "")
    style_axes(main, title, x="", y="sequence accuracy")
    main.bar(centers, [b["accuracy"] for b in bins], widths, color=ACCENT, alpha=0.85, label="measured", linewidth=0)
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
    style_axes(below, x="confidence of the reading", y="readings")
    bars = below.bar(centers, [b["n"] for b in bins], widths, color=MUTED, alpha=0.6, linewidth=0)
    below.bar_label(bars, [f"{b['n']:,}" for b in bins], fontsize=7.5, color=MUTED, padding=1)
    below.set_ylim(0, max(b["n"] for b in bins) * 1.25)
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=3))
    main.set_ylim(0, 1.03)
    main.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    for axes in (main, below):
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return save_figure(figure, path)


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
    figure = new_figure(9.5, 3.6)
    most = [max(len(values), 3) for _, _, values in groups]
    # Bars of about the same width in both panels.
    room, left = 0.82, 0.07
    for (title, x, values), count in zip(groups, most, strict=True):
        across = room * min(max(count / sum(most), 0.35), 0.65)
        axes = figure.add_axes((left, 0.2, across, 0.64))
        left += across + 0.08
        if not values:
            say_empty(axes, f"{title}: nothing to show")
            continue
        style_axes(axes, title, x=x)
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
            put_text(axes, i, share + 0.04, f"{share:.1%}", 7.5, ha="center")
    return save_figure(figure, path)


def draw_report(
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
    worst = worst_first(predictions, texts)[:30]
    first = min(25, len(texts))
    wrong = sum(p.text != t for p, t in zip(predictions, texts, strict=True))
    title, note = "No errors: the least sure readings", headline(predictions, texts) + "."
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
    samples = f"The first {first} pictures"
    return [
        plot_confusion(report, folder / "confusion.png"),
        plot_calibration(report, folder / "calibration.png"),
        plot_breakdown(report, folder / "breakdown.png"),
        save_figure(figure, folder / "worst.png"),
        plot_comparison(images[:first], predictions[:first], texts[:first], folder / "samples.png", title=samples),
    ]
