"""Labels against accuracy: what the measurements so far support, and when to stop.

The error after n labels is taken to be `e0 * (1 + n / k) ** -b`, the power law that learning curves follow (Hestness et
al., 2017). A grid over (e0, k, b) is weighted by the binomial likelihood of every measurement, so that few pictures
give wide intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from captcha_reader.labeling.selection import MEASURED_EVERY
from captcha_reader.reading.metrics import wilson_interval

MAX_LABELS = 2000  # no advice goes beyond
TARGETS = (0.9, 0.95, 0.98, 0.99)  # accuracies that are worth a person's typing
TYPED = MEASURED_EVERY / (MEASURED_EVERY - 1)  # labels to type for each to learn from: the others are kept aside
MAX_SPREAD = 6.0  # times: a wider interval for the number of labels is no advice


@dataclass(frozen=True)
class Point:
    """One measurement: a model that learned from `labels` labels read `right` of `measured` pictures kept aside."""

    labels: int
    right: int
    measured: int

    @property
    def accuracy(self) -> float:
        """Sequence accuracy, 0 to 1."""
        return self.right / self.measured if self.measured else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        return wilson_interval(self.right, self.measured)


@dataclass(frozen=True)
class Advice:
    """What to do next, in one sentence; `more` is the median number of further labels to type, those that will be kept
    aside among them, with its 80 % interval."""

    text: str
    stop: bool = False
    target: float | None = None
    more: tuple[int, int, int] | None = None  # (10 %, 50 %, 90 %)


def advise(points: Sequence[Point], labels: int) -> Advice:
    """Say when to stop, only as far as the curve supports it.

    Args:
        points: measurements by the number of labels, the untrained reader's among them.
        labels: to learn from that are there now, without those kept aside.
    """
    points = [point for point in points if point.measured]
    if not points:
        return Advice("Nothing is measured yet: one picture in five is kept aside for that.")
    last = points[-1]
    low, high = last.interval
    pictures = "picture" if last.measured == 1 else "pictures"
    said = f"{last.accuracy:.0%} of {last.measured} {pictures} kept aside ({low:.0%} to {high:.0%})"
    reached = [target for target in TARGETS if low >= target]
    if reached and reached[-1] >= 0.95:
        return Advice(f"{said}: you may stop.", stop=True, target=reached[-1])
    if len(points) < 2:
        return Advice(f"{said}. How fast it learns shows after the next training.")
    weights, grid = _posterior(points)
    target = next((t for t in TARGETS if t > last.accuracy), None)
    if target is None:
        return Advice(f"{said}. More pictures kept aside would make it sure.")
    needed = _labels_needed(grid, 1 - target)
    q10, q50, q90 = (_quantile(needed, weights, q) for q in (0.1, 0.5, 0.9))
    if q50 > MAX_LABELS:
        return Advice(f"{said}. The curve is flat: more labels of this kind hardly help.", target=target)
    low_more, median_more, high_more = (round(max(q - labels, 0) * TYPED) for q in (q10, q50, q90))
    more = (low_more, median_more, high_more)
    if q90 > MAX_LABELS or more[2] + 20 > MAX_SPREAD * (more[0] + 20):
        return Advice(f"{said}. It is too early to say how many labels {target:.0%} takes.", target=target)
    return Advice(
        f"{said}. About {_round(more[1])} more labels to type, one in {MEASURED_EVERY} of them kept aside, for "
        f"{target:.0%} ({_round(more[0])} to {_round(more[2])}).",
        target=target,
        more=more,
    )


def _posterior(points: Sequence[Point]) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Weights (they add up to 1) of a flat grid over e0, k and b."""
    e0 = np.concatenate([np.linspace(0.005, 0.1, 20), np.linspace(0.12, 1.0, 45)])
    k = np.array([3.0, 6, 12, 25, 50, 100, 200])
    b = np.linspace(0.0, 2.5, 26)
    grid = tuple(axis.ravel() for axis in np.meshgrid(e0, k, b, indexing="ij"))
    log_weight = np.zeros_like(grid[0])
    for point in points:
        error = np.clip(grid[0] * (1 + point.labels / grid[1]) ** -grid[2], 1e-4, 1 - 1e-4)
        log_weight += (point.measured - point.right) * np.log(error) + point.right * np.log1p(-error)
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum(), grid


def _labels_needed(grid: tuple[np.ndarray, np.ndarray, np.ndarray], error: float) -> np.ndarray:
    """For each curve the labels after which its error is `error`; infinite where it never gets there."""
    e0, k, b = grid
    with np.errstate(divide="ignore", over="ignore"):
        needed = k * ((e0 / error) ** (1 / np.maximum(b, 1e-9)) - 1)
    return np.where(e0 <= error, 0.0, needed)


def _quantile(values: np.ndarray, weights: np.ndarray, q: float) -> int:
    order = np.argsort(values)
    place = int(np.searchsorted(np.cumsum(weights[order]), q))
    value = values[order][min(place, len(values) - 1)]
    return int(min(value, 10 * MAX_LABELS)) if math.isfinite(value) else 10 * MAX_LABELS


def _round(count: int) -> int:
    """To one or two digits, as such an estimate deserves."""
    return round(count, -1) if count >= 20 else count
