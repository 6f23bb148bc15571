"""The confidence of one reading: what each position could be, and where along the picture it was read."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from captcha_reader.plots.canvas import (
    BLUES,
    MAX_CLASSES,
    font_families,
    new_figure,
    put_text,
    readable_color,
    style_axes,
)
from captcha_reader.plots.colors import CONFIDENCE_COLORS, FAINT, INK, MUTED, confidence_class, percent
from captcha_reader.reading.prediction import Prediction
from captcha_reader.text import BLANK_ID, NOTHING


def confidence_matrix(prediction: Prediction) -> tuple[np.ndarray, list[str]]:
    """What the model weighed at each character of its reading.

    Of the steps that CTC read a character from, the one where this character is most likely speaks for it. A slot head
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
    if not prediction.codec.along_width and len(steps) < len(probabilities):
        steps.append(len(steps))
        labels.append("end")
    return probabilities[steps], labels


def confidence_grid(prediction: Prediction) -> Figure:
    """Heat picture of one reading, position by alphabet; for CTC also where along the picture each character was read.

    Of an alphabet of more than 70 characters the most likely 70 are shown.
    """
    matrix, labels = confidence_matrix(prediction)
    characters = NOTHING + prediction.codec.alphabet.characters
    shown = np.arange(matrix.shape[1])
    if len(shown) > MAX_CLASSES and len(matrix):
        shown = np.sort(np.argsort(-matrix.max(axis=0), kind="stable")[:MAX_CLASSES])
    cell = 0.2
    with_steps = prediction.codec.along_width
    width = max(1.0 + cell * len(shown) + 0.3, 6.0)
    heat_height = max(cell * 1.15 * len(labels), 0.4)
    steps_height = 1.35 if with_steps else 0.0
    head, foot, between = 0.5, 0.5, 0.95 if with_steps else 0.0
    height = head + heat_height + between + steps_height + foot
    figure = new_figure(width, height)
    left, across = 0.8 / width, (width - 1.0) / width
    heat = figure.add_axes((left, 1 - (head + heat_height) / height, across, heat_height / height))
    style_axes(heat, "What each position could be", grid=None)
    if len(matrix):
        _heat(heat, matrix[:, shown], [characters[i] for i in shown], labels, prediction)
    else:
        heat.set_axis_off()
        heat.set_title("What each position could be", loc="left", fontsize=11, color=INK, fontweight="bold", pad=9)
        put_text(heat, 0, 0.5, "nothing was read in this picture", 10, color=MUTED, transform=heat.transAxes)
    if with_steps:
        steps = figure.add_axes((left, foot / height, across, steps_height / height))
        _steps(steps, prediction)
    return figure


def _heat(axes: Axes, matrix: np.ndarray, columns: list[str], rows: list[str], prediction: Prediction) -> None:
    # The square root lets a rival of 5 % be seen.
    norm = PowerNorm(0.5, 0, 1)
    axes.imshow(matrix, cmap=BLUES, norm=norm, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        label.set(family=font_families(True), fontsize=8.5, color=INK, parse_math=False)
    axes.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=FAINT, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row, column in zip(*np.nonzero(matrix >= 0.1), strict=True):
        value = float(matrix[row, column])
        color = readable_color(BLUES(norm(value)))
        put_text(axes, column, row, percent(value), 6.5, color=color, ha="center")


def _steps(axes: Axes, prediction: Prediction) -> None:
    """Probability of each character of the reading along the T steps of CTC, the blank in gray."""
    probabilities = np.exp(np.asarray(prediction.log_probs, dtype=np.float64))
    x = np.arange(1, len(probabilities) + 1)
    style_axes(axes, "Where along the picture it was read", x="step, from left to right")
    axes.fill_between(x, probabilities[:, BLANK_ID], step="mid", color=FAINT, alpha=0.6, linewidth=0)
    for k, (start, stop), p in zip(
        prediction.codec.encode(prediction.text), prediction.spans, prediction.char_confidences, strict=True
    ):
        color = CONFIDENCE_COLORS[confidence_class(p)]
        axes.bar(x[start:stop], probabilities[start:stop, k], width=0.9, color=color, linewidth=0)
        peak = start + int(probabilities[start:stop, k].argmax())
        character = prediction.codec.alphabet.decode([k])
        put_text(axes, x[peak], 1.1, character, 10, mono=True, color=color, ha="center", fontweight="bold")
    axes.set(xlim=(0.4, len(x) + 0.6), ylim=(0, 1.22))
    axes.set_yticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    put_text(axes, 1.0, -0.29, "gray: no character", 8, color=MUTED, ha="right", transform=axes.transAxes)
