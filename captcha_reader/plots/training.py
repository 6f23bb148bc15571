"""Training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from captcha_reader.plots.canvas import new_figure, put_text, save_figure, say_empty, style_axes
from captcha_reader.plots.colors import ACCENT, AMBER, FAINT, INK, MUTED, RIGHT, WRONG


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
    figure = new_figure(8, tall)
    places = ((5.4, 2.2), (2.45, 2.2), (0.57, 1.15)) if checked else ((2.4, 2.2), (0.57, 1.15))
    panels = [figure.add_axes((0.1, bottom / tall, 0.86, height / tall)) for bottom, height in places]
    epochs = [row["epoch"] for row in history]
    style: dict[str, Any] = {"linewidth": 1.8, "marker": "o", "markersize": 3.5 if len(history) <= 40 else 0}
    loss, rate = panels[0], panels[-1]
    if not history:
        for panel in panels:
            say_empty(panel, "no epoch has ended yet")
        return save_figure(figure, path)
    _plot_loss(loss, history, checked, style)
    if checked:
        _plot_scores(panels[1], checked, style)
    rate.plot(epochs, [row["learning_rate"] for row in history], color=MUTED, **style)
    style_axes(rate, "Learning rate at the end of the epoch", x="epoch")
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
    return save_figure(figure, path)


def _plot_loss(
    loss: Axes, history: Sequence[Mapping[str, Any]], checked: Sequence[Mapping[str, Any]], style: Mapping[str, Any]
) -> None:
    """Training and validation loss; on a logarithmic scale where they fall thirtyfold."""
    loss.plot(
        [row["epoch"] for row in history],
        [row["train_loss"] for row in history],
        color=ACCENT,
        label="training",
        **style,
    )
    if checked:
        losses = [row["validation"]["loss"] for row in checked]
        loss.plot([row["epoch"] for row in checked], losses, color=AMBER, label="validation", linestyle="--", **style)
    style_axes(loss, "Loss")
    values = [v for line in loss.get_lines() for v in np.asarray(line.get_ydata(), dtype=float) if v > 0]
    if values and max(values) > 30 * min(values):
        loss.set_yscale("log")
        loss.yaxis.set_minor_formatter(NullFormatter())
        loss.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        loss.set_ylim(bottom=0)
    low, high = loss.get_ylim()  # room at the top for the phases' names
    loss.set_ylim(low, high * 1.12 if loss.get_yscale() == "linear" else high * (high / low) ** 0.12)


def _plot_scores(score: Axes, checked: Sequence[Mapping[str, Any]], style: Mapping[str, Any]) -> None:
    """Sequence accuracy and CER of the epochs that were validated; a star marks the best."""
    epochs = [row["epoch"] for row in checked]
    accuracies = [row["validation"]["sequence_accuracy"] for row in checked]
    rates = [min(row["validation"]["cer"], 1.0) for row in checked]
    score.plot(epochs, accuracies, color=RIGHT, label="sequence accuracy", **style)
    score.plot(epochs, rates, color=WRONG, label="CER", linestyle="--", **style)
    best = max(range(len(checked)), key=lambda i: (accuracies[i], -checked[i]["validation"]["loss"]))
    score.plot(epochs[best], accuracies[best], "*", color=RIGHT, markersize=13, zorder=5)
    n = checked[best]["validation"].get("n")
    style_axes(score, f"Validation{f', n = {n:,}' if n else ''}: best ★ {accuracies[best]:.1%}")
    score.set_ylim(-0.03, 1.05)
    score.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


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
            put_text(axes, middle, 0.94, name, 8, color=MUTED, ha="center", transform=where)
