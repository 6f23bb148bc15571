"""How far a measurement is: what is left of its budget, one share and one time over all of its steps, and what it says.

`strength.py --progress json` prints its events to stdout, one JSON object a line and nothing else:

    {"event": "plan", "labels": [0, 10, 30], "measured": 200, "ops": ["lines"]}
    {"event": "step", "doing": "training on 30 labels", "labels": 30, "done": 0.4, "seconds_left": 80.5}
    {"event": "point", "labels": 30, "n": 200, "accuracy": 0.9, "interval": [0.85, 0.93], ...}
    {"event": "change", "op": "lines", "levels": [{"strength": "weak", "accuracy": 0.9, "legibility": 0.7}, ...]}
    {"event": "result", "verdict": {"level": "bad", "text": "...", "advice": "..."}, "partial": "", "page": "..."}

`done` (0 to 1) and `seconds_left` are over all steps together; `seconds_left` is null until enough was timed. A point
is a row of the report's `attack`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

Event = dict[str, Any]

ENOUGH_DONE = 0.02  # of all, from which on the time that is left can be told


@dataclass
class Clock:
    """The seconds that a run may take; what it has taken in earlier runs does not count."""

    budget: float
    now: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.now()

    @property
    def spent(self) -> float:
        """Seconds."""
        return self.now() - self.started

    def left(self) -> float:
        """Seconds, at least 0."""
        return max(self.budget - self.spent, 0.0)


class Pace:
    """One share and one time left over all steps, from guesses that the steps that are done put right.

    Args:
        guesses: seconds that each step may take, by its name. They need to be right in proportion alone.
        clock: of the run.
    """

    def __init__(self, guesses: Mapping[Any, float], clock: Clock) -> None:
        self.guesses, self.clock = dict(guesses), clock
        self.parts: dict[Any, float] = {}  # of each step that has begun, how much is done
        self._waived = 0.0  # seconds by the guesses of steps that earlier runs have taken
        self._began: float | None = None  # seconds of the clock: before, imports and files took their time

    def waive(self, step: Any) -> None:
        """A step needs nothing more of this run."""
        if step in self.guesses and step not in self.parts:
            self.parts[step] = 1.0
            self._waived += self.guesses[step]

    def advance(self, step: Any, part: float) -> None:
        """So much of a step is done, 0 to 1; never less than before."""
        self._began = self.clock.spent if self._began is None else self._began
        if step in self.guesses:
            self.parts[step] = max(self.parts.get(step, 0.0), min(part, 1.0))

    @property
    def _through(self) -> float:
        return sum(self.guesses[step] * part for step, part in self.parts.items())

    @property
    def done(self) -> float:
        """Share of all, 0 to 1."""
        whole = sum(self.guesses.values())
        return self._through / whole if whole else 0.0

    @property
    def factor(self) -> float | None:
        """How much longer than guessed it takes; None before enough was timed."""
        here = self._through - self._waived
        enough = here > ENOUGH_DONE * (sum(self.guesses.values()) - self._waived)
        return (self.clock.spent - (self._began or 0.0)) / here if enough else None

    @property
    def seconds_left(self) -> float | None:
        """Until all steps are done or the budget ends; None before enough was timed."""
        factor = self.factor
        if factor is None:
            return None
        return min(factor * (sum(self.guesses.values()) - self._through), self.clock.left())


class Bar:
    """For people: one progress bar on stderr with the time left, and a line for each result."""

    def __init__(self) -> None:
        form = "{l_bar}{bar}| {postfix}"
        self._bar: tqdm[Any] = tqdm(total=1.0, disable=None, bar_format=form, dynamic_ncols=True)

    def __call__(self, event: Event) -> None:
        """Show an event."""
        kind = event["event"]
        if kind == "step":
            left = event["seconds_left"]
            self._bar.set_description(event["doing"], refresh=False)
            self._bar.set_postfix_str("" if left is None else f"about {left:.0f} s left", refresh=False)
            self._bar.n = round(event["done"], 4)
            self._bar.refresh()
        elif kind == "point":
            low, high = event["interval"]
            self._bar.write(f"{event['labels']:>5} labels: {event['accuracy']:.1%} ({low:.1%} to {high:.1%})")
        elif kind == "change":
            said = ", ".join(f"{level['accuracy']:.0%}" for level in event["levels"])
            self._bar.write(f"{event['op']}, weak to strong: {said}")

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.close()


def guess_seconds(labels: int, epochs: int, batch: int, pictures: int) -> float:
    """What a training on so many labels, and the reading of so many pictures after it, takes about.

    A guess that only has to be right in proportion; the steps that are done put its size right.

    Args:
        labels: 0: no training.
        epochs: of the training.
        batch: pictures of a step.
        pictures: to read.
    """
    steps = epochs * max(labels // min(batch, labels), 1) if labels else 0
    return (8 + 0.15 * steps if labels else 0) + 0.02 * pictures + 1
