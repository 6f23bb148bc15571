"""What would change a captcha: what each step costs the reader and people, made stronger than it is today."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from captcha_reader.reading.metrics import wilson_interval

Z = 1.959964  # of a normal distribution, for 95 %
HARDLY = 0.05  # share of readings that a weaker step may give a bot to be said to hardly help it
AT_MOST = 0.1  # and the most that it may be by the 95 % interval
NOTHING = "Made stronger from today's setting, no step moves the reader or the proxy for people beyond chance."


class Move(NamedTuple):
    """A difference of two shares, -1 to 1, and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether it is beyond chance."""
        return self.low > 0 or self.high < 0


def change_advice(changes: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for every step that, strong against as it is, moves the reader or the proxy beyond chance, the biggest
    move first.

    Args:
        changes: rows with `op`, `n` and `levels`: weak, as it is, strong, each with `accuracy`, `legibility` and
            `legibility_error`.
    """
    rows = []
    for change in changes:
        weak, today, strong = change["levels"]
        machine, people = _read_less(today, strong, change["n"]), _people_lose(today, strong)
        moves = [abs(move.value) for move in (machine, people) if move and move.certain]
        if moves:
            op = change["op"].replace("_", " ")
            said = f"{op}: made stronger from today's setting, {_of_reader(machine)}; {_of_people(people)}."
            if people and people.certain and people.value > max(machine.value, 0):
                said += _weaker(_read_less(weak, today, change["n"]), _people_lose(weak, today))
            rows.append((max(moves), said))
    if changes and not rows:
        return [NOTHING]
    return [said for _, said in sorted(rows, key=lambda row: -row[0])]


def _read_less(before: dict[str, Any], after: dict[str, Any], n: int) -> Move:
    """How much less is read after than before; Newcombe's interval of two shares (1998, method 10)."""
    a, b = before["accuracy"], after["accuracy"]
    (a_low, a_high), (b_low, b_high) = (wilson_interval(round(share * n), n) for share in (a, b))
    down, up = math.hypot(a - a_low, b_high - b), math.hypot(a_high - a, b - b_low)
    return Move(a - b, a - b - down, a - b + up)


def _people_lose(before: dict[str, Any], after: dict[str, Any]) -> Move | None:
    """How much legibility is lost by the proxy; None where it is blind."""
    if before["legibility"] is None or after["legibility"] is None:
        return None
    value = before["legibility"] - after["legibility"]
    half = Z * math.hypot(before["legibility_error"], after["legibility_error"])
    return Move(value, value - half, value + half)


def _points(move: Move) -> str:
    points = round(100 * abs(move.value))
    return "1 point" if points == 1 else f"{points} points"


def _of_reader(move: Move) -> str:
    if not move.certain:
        return "this reader does not change beyond chance"
    return f"this reader {'loses' if move.value > 0 else 'gains'} {_points(move)}"


def _of_people(move: Move | None) -> str:
    if move is None:
        return "what it costs people, the proxy cannot see"
    if not move.certain:
        return "people do not change beyond chance by the proxy"
    return f"people {'lose' if move.value > 0 else 'gain'} {_points(move)} by the proxy"


def _weaker(machine: Move, people: Move | None) -> str:
    """What a weaker step would do, where a stronger one costs people more than the reader."""
    if people is None or not people.certain or people.value <= 0:
        return " It costs people more than this reader; one weaker than today does not help people beyond chance."
    if machine.value < HARDLY and machine.high <= AT_MOST:
        return (
            " It costs people more than this reader: a weaker one is kinder to people "
            f"({_points(people)}) and hardly helps a bot."
        )
    gain = f"{100 * machine.value:.0f}" if machine.low > 0 else f"at most {100 * machine.high:.0f} (95 % interval)"
    return f" It costs people more than this reader: a weaker one gives people {_points(people)} and a bot {gain}."
