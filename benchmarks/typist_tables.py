"""The tables of the simulated typist: labels needed with intervals, accuracies, keystrokes, wrong labels found."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from results import Table, Value, spread

from captcha_reader.reading.metrics import wilson_interval

DRAWS = 1000  # of the bootstrap
ORDERS = ("random", "unsure")
NAMED = {"random": "random", "unsure": "chosen"}

Curve = list[tuple[int, float]]  # labels, accuracy


class Session(NamedTuple):
    """One session: `result` holds `right` (labels -> a 0 or 1 for each picture) and `keys` (labels that the readings
    offered had learned from -> keystrokes and whether it was corrected, for each picture)."""

    of: str
    seed: int
    order: str
    result: dict[str, Any]

    def right(self) -> dict[int, np.ndarray]:
        """For each number of labels (N,) 0 or 1."""
        return {int(step): np.array(list(map(int, bits))) for step, bits in self.result["right"].items()}


def labels_needed(curve: Curve, target: float) -> float | None:
    """Where a curve first reaches an accuracy, on straight lines between its points; None where it does not."""
    if curve[0][1] >= target:
        return 0.0
    for (n, low), (m, high) in pairwise(curve):
        if low < target <= high:
            return n + (m - n) * (target - low) / (high - low)
    return None


def mean_curve(accuracies: Sequence[Mapping[int, float]]) -> Curve:
    """The mean over seeds. A session that ended earlier, as it read nearly all, keeps its last accuracy."""
    steps = sorted({step for one in accuracies for step in one})
    return [(step, statistics.mean(one[max(s for s in one if s <= step)] for one in accuracies)) for step in steps]


def draw_curves(sessions: Sequence[Session], rng: np.random.Generator | None) -> dict[str, Curve]:
    """The mean curve of each order for one set: of all seeds and pictures, or of a bootstrap draw of both, in which the
    two orders have the same ones."""
    seeds = sorted({session.seed for session in sessions})
    chosen = seeds if rng is None else [int(seed) for seed in rng.choice(seeds, len(seeds))]
    accuracies: dict[str, list[dict[int, float]]] = {order: [] for order in ORDERS}
    for seed in chosen:
        both = {session.order: session.right() for session in sessions if session.seed == seed}
        n = len(both[ORDERS[0]][0])
        places = np.arange(n) if rng is None else rng.integers(0, n, n)
        for order in ORDERS:
            accuracies[order].append({step: float(bits[places].mean()) for step, bits in both[order].items()})
    return {order: mean_curve(found) for order, found in accuracies.items()}


def by_set(sessions: Sequence[Session]) -> dict[str, list[Session]]:
    """The sessions of each set, in order."""
    names = list(dict.fromkeys(session.of for session in sessions))
    return {name: [session for session in sessions if session.of == name] for name in names}


def saved(curves: Mapping[str, Mapping[str, Curve]], target: float) -> tuple[float, float, int] | None:
    """Labels needed in random and in chosen order, summed over the sets in which both reach the target and neither
    does without labels, and how many sets these are; None for none."""
    needed = [[labels_needed(curve[order], target) for order in ORDERS] for curve in curves.values()]
    both = [(a, b) for a, b in needed if a and b]
    return (sum(a for a, _ in both), sum(b for _, b in both), len(both)) if both else None


def needed_table(sessions: Sequence[Session], targets: Sequence[float]) -> Table:
    """Labels needed for each target in each order, by set, and what the chosen order saves."""
    sets = by_set(sessions)
    rng = np.random.default_rng(0)
    curves = {name: draw_curves(of, None) for name, of in sets.items()}
    draws = [{name: draw_curves(of, rng) for name, of in sets.items()} for _ in range(DRAWS)]
    columns = {"set": "", "seeds": ",", "n": ","}
    columns |= {f"{target:.0%}: {NAMED[order]}": ".0f" for target in targets for order in ORDERS}
    rows: list[list[Value]] = []
    for name, of in sets.items():
        seeds = {session.seed for session in of}
        row: list[Value] = [f"`{name}`", len(seeds), len(of[0].right()[0])]
        for target in targets:
            for order in ORDERS:
                found = labels_needed(curves[name][order], target)
                row.append(
                    _needed_cell(found, [labels_needed(d[name][order], target) for d in draws], curves[name][order])
                )
        rows.append(row)
    total: list[Value] = ["**saved**", max(len({s.seed for s in of}) for of in sets.values()), None]
    for target in targets:
        total += [_saved_text(curves, target), _saved_interval(draws, target)]
    return Table(columns, [*rows, total])


def _needed_cell(found: float | None, drawn: Sequence[float | None], curve: Curve) -> Value:
    last = float(curve[-1][0])
    if found is None:
        return f">{last:.0f}"
    ends = np.quantile([last if value is None else value for value in drawn], [0.025, 0.975])
    return {"middle": found, "low": float(ends[0]), "high": float(ends[1])}


def _saved_text(curves: Mapping[str, Mapping[str, Curve]], target: float) -> str:
    if (found := saved(curves, target)) is None:
        return "no set reaches it in both orders"
    return f"{1 - found[1] / found[0]:.0%} in {found[2]} sets"


def _saved_interval(draws: Sequence[Mapping[str, Mapping[str, Curve]]], target: float) -> str:
    shares = [1 - found[1] / found[0] for draw in draws if (found := saved(draw, target)) and found[0]]
    if not shares:
        return ""
    low, high = np.quantile(shares, [0.025, 0.975])
    return f"{low:.0%} to {high:.0%}"


def equal_table(sessions: Sequence[Session]) -> Table:
    """Labels that the chosen order takes for the accuracy of the random order at its last step."""
    rows: list[list[Value]] = []
    rng = np.random.default_rng(0)
    for name, of in by_set(sessions).items():
        curves = draw_curves(of, None)
        last, accuracy = curves["random"][-1]
        if last == curves["random"][min(1, len(curves["random"]) - 1)][0]:
            continue  # it ended at the first training, until which both orders are the same
        found = labels_needed(curves["unsure"], accuracy)
        drawn = []
        for _ in range(DRAWS):
            draw = draw_curves(of, rng)
            needed = labels_needed(draw["unsure"], draw["random"][-1][1])
            drawn.append(float(last if needed is None else needed))
        cell = _needed_cell(found, drawn, curves["unsure"])
        rows.append([f"`{name}`", accuracy, last, cell, None if found is None else 1 - found / last])
    columns = {"set": "", "accuracy": ".1%", "labels, random": ",", "labels, chosen": ".0f", "saved": ".0%"}
    return Table(columns, rows)


def accuracy_table(sessions: Sequence[Session], steps: Sequence[int]) -> Table:
    """Mean accuracy and range of the seeds at each step."""
    rows: list[list[Value]] = []
    for name, of in by_set(sessions).items():
        for order in ORDERS:
            found = [s.right() for s in of if s.order == order]
            cells: list[Value] = []
            for step in (0, *steps):
                values = [float(bits[step].mean()) for bits in found if step in bits]
                whole = spread(values) if len(values) == len(found) else None
                cells.append(whole if whole or not values else f"{statistics.mean(values):.1%} of {len(values)} seeds")
            rows.append([f"`{name}`", NAMED[order], *cells])
    return Table({"set": "", "order": "", **{f"{step} labels": ".1%" for step in (0, *steps)}}, rows)


def keys_table(sessions: Sequence[Session], lengths: Mapping[str, float]) -> Table:
    """Keystrokes a picture, Enter among them, by order, beside typing without a reader."""
    rows: list[list[Value]] = []
    for name, of in by_set(sessions).items():
        row: list[Value] = [f"`{name}`", lengths[name] + 1]
        for order in ORDERS:
            typed = [pair for s in of if s.order == order for pairs in s.result["keys"].values() for pair in pairs]
            row += [statistics.mean(keys for keys, _ in typed), statistics.mean(wrong for _, wrong in typed)]
        rows.append(row)
    means = [statistics.mean(column) for column in list(zip(*rows, strict=True))[1:]]
    columns = {"set": "", "keys without a reader": ".1f"}
    for order in ORDERS:
        columns |= {f"keys, {NAMED[order]} order": ".1f", f"corrected, {NAMED[order]} order": ".0%"}
    return Table(columns, [["**mean**", *means], *rows])


def first_tables(sessions: Sequence[Session], outliers: Mapping[str, dict[str, str]]) -> list[Table]:
    """None, or one of the first 20 labels, seed 0: any, or those of which the shipped reader is least sure."""
    rows: list[list[Value]] = []
    for session in sessions:
        if session.seed == 0 and session.order == "random" and session.of in outliers:
            right, bits = session.right(), outliers[session.of]["right"]
            rows.append([f"`{session.of}`", *(float(right[n].mean()) for n in (0, 20)), bits.count("1") / len(bits)])
    columns = {"set": "", "0 labels": ".1%", "20 at random": ".1%", "20 of which the reader is least sure": ".1%"}
    means = [statistics.mean(column) for column in list(zip(*rows, strict=True))[1:]]
    return [Table(columns, [["**mean**", *means], *rows])] if rows else []


def errors_tables(errors: Mapping[str, dict[str, int]]) -> list[Table]:
    """None, or one of the wrong labels among the 20 that `--find_label_errors` suspects most."""
    columns = {"set": "", "labels": ",", "wrong": ",", "among the first 20": ",", "recall, 95 % interval": ".0%"}
    rows: list[list[Value]] = [
        [f"`{name}`", *(found[key] for key in ("labels", "wrong", "found")), None] for name, found in errors.items()
    ]
    labels, wrong, found = (sum(one[key] for one in errors.values()) for key in ("labels", "wrong", "found"))
    interval = list(wilson_interval(found, wrong)) if wrong else None
    return [Table(columns, [["**all**", labels, wrong, found, interval], *rows])] if rows else []


def raw_table(sessions: Sequence[Session]) -> Table:
    """Each picture of each measurement, for the JSON file alone."""
    rows: list[list[Value]] = [
        [session.of, session.seed, session.order, int(step), bits]
        for session in sessions
        for step, bits in session.result["right"].items()
    ]
    return Table({"set": "", "seed": ",", "order": "", "labels": ",", "right": ""}, rows, shown=False)
