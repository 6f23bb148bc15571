"""What a training says while it runs: events for programs, lines and one bar for people.

`Progress` turns the training's place into events, each a dictionary that JSON can hold, and gives them to its sinks.
`main.py --progress json` prints them to stdout, one JSON object a line and nothing else:

    {"event": "plan", "parts": [{"name": "training", "phases": [{"name": "frozen", "epochs": 1, "steps": 4}, ...]},
     {"name": "fold 1 of 3", "phases": [...]}, ...]}
    {"event": "message", "text": "Starting from saved_models/reader.safetensors: 62 characters known, 0 new."}
    {"event": "phase", "part": "training", "phase": "whole", "epochs": 60, "steps": 240}
    {"event": "estimate", "seconds": 312.5}
    {"event": "step", "part": "training", "phase": "whole", "epoch": 2, "epochs": 61, "step": 3, "steps": 4,
     "loss": 0.41, "done": 0.02, "seconds_left": 301.2}
    {"event": "epoch", "part": "training", "epoch": 2, "phase": "whole", "train_loss": 0.4, ..., "done": 0.02, ...}
    {"event": "result", "checkpoint": "RUN/best.safetensors", "report": {...}, "expect": "Expect 93.1% of ..."}

`part` is `training`, or `fold 1 of 3` and so on for the models that are trained to measure what to expect. `done` (0 to
1) and `seconds_left` are over all parts together; `seconds_left` is null until the first steps were measured. An epoch
has `validation` (a dictionary of figures) in the epochs that were measured. Steps come at most twice a second.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from tqdm import tqdm

from captcha_reader.files import to_json
from captcha_reader.text import NOTHING

Event = dict[str, Any]
Sink = Callable[[Event], None]

STEP_SECONDS = 0.5  # between two events of steps
MEASURED_STEPS = 5  # before the whole time is estimated
FROZEN_COST = 0.5  # of a step that trains the head alone, in steps of the whole network, until it has been measured
SLOW_LOADING = 0.1  # share of an epoch spent waiting for pictures that is worth a remark


@dataclass
class PlannedPhase:
    """Epochs of one kind; `steps` is their sum over all epochs."""

    name: str
    epochs: int
    steps: int


@dataclass
class PlannedPart:
    """One training: of the model itself, or of a fold."""

    name: str
    phases: list[PlannedPhase]


class Progress:
    """Where a training stands among all that it will do, told to `sinks`.

    Args:
        sinks: called with each event, in order. None of them: nothing is said.
        clock: seconds, from any start.
    """

    def __init__(self, sinks: Sequence[Sink] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.sinks, self.clock = list(sinks), clock
        self.parts: list[PlannedPart] = []
        self._done: dict[tuple[str, str], int] = {}  # (part, phase) -> steps
        self._measured: dict[str, list[float]] = {}  # phase -> [steps, seconds] of this process
        self._place = ("", "")
        self._last: float | None = None  # when the last step ended
        self._said = -math.inf
        self._estimated = False

    def emit(self, event: str, **values: Any) -> None:
        """Tell the sinks."""
        for sink in self.sinks:
            sink({"event": event, **values})

    def message(self, text: str) -> None:
        """A sentence for people."""
        self.emit("message", text=text)

    def plan(self, parts: Sequence[PlannedPart]) -> None:
        """Say what will happen."""
        self.parts = list(parts)
        self.emit("plan", parts=[asdict(part) for part in parts])

    def skip(self, part: str) -> None:
        """A part was finished by an earlier process."""
        for planned in self._phases(part):
            self._done[part, planned.name] = planned.steps

    def begin(self, part: str, phase: str, epochs: int, steps: int, done: int = 0) -> None:
        """A phase begins, or goes on after `done` of its steps."""
        known = self._phases(part)
        if not any(planned.name == phase for planned in known):
            known.append(PlannedPhase(phase, epochs, steps))
            if not any(p.name == part for p in self.parts):
                self.parts.append(PlannedPart(part, known))
        planned = next(p for p in known if p.name == phase)
        planned.epochs, planned.steps = epochs, steps
        for earlier in known[: known.index(planned)]:
            self._done[part, earlier.name] = earlier.steps
        self._done[part, phase] = done
        self._place, self._last = (part, phase), None
        self.emit("phase", part=part, phase=phase, epochs=epochs, steps=steps)

    def step(self, epoch: int, epochs: int, step: int, steps: int, loss: float) -> None:
        """A step is done: `step` of `steps` in `epoch` of `epochs`, counted from 1 over the part's phases."""
        now = self.clock()
        self._done[self._place] = self._done.get(self._place, 0) + 1
        if self._last is not None:  # the first step of a phase also waits for pictures and for torch to settle
            measured = self._measured.setdefault(self._place[1], [0.0, 0.0])
            measured[0] += 1
            measured[1] += now - self._last
        self._last = now
        if not self._estimated and sum(count for count, _ in self._measured.values()) >= MEASURED_STEPS:
            self._estimated = True
            spent = sum(seconds for _, seconds in self._measured.values())
            self.emit("estimate", seconds=round(spent + (self.seconds_left or 0.0), 1))
        if now - self._said >= STEP_SECONDS or step == 1:
            self._said = now
            part, phase = self._place
            place = {"part": part, "phase": phase, "epoch": epoch, "epochs": epochs, "step": step, "steps": steps}
            self.emit("step", **place, loss=loss, **self._left())

    def epoch(self, row: dict[str, Any], better: bool, epochs: int) -> None:
        """An epoch has ended: its row of history.json, and whether its weights are the best so far."""
        self.emit("epoch", part=self._place[0], **row, epochs=epochs, better=better, **self._left())

    def result(self, checkpoint: str, report: dict[str, Any] | None, expect: str | None) -> None:
        """All is done."""
        self.emit("result", checkpoint=checkpoint, report=report, expect=expect)

    @property
    def done(self) -> float:
        """Share of the work that is done, 0 to 1."""
        costs = [(part.name, phase, _cost(phase.name)) for part in self.parts for phase in part.phases]
        whole = sum(cost * phase.steps for _, phase, cost in costs)
        done = sum(cost * min(self._done.get((part, phase.name), 0), phase.steps) for part, phase, cost in costs)
        return done / whole if whole else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Until all parts are done; None as long as no step was measured."""
        units = sum(count * _cost(name) for name, (count, _) in self._measured.items())
        if not units:
            return None
        usual = sum(seconds for _, seconds in self._measured.values()) / units
        left = 0.0
        for part in self.parts:
            for phase in part.phases:
                count, seconds = self._measured.get(phase.name, (0.0, 0.0))
                each = seconds / count if count >= MEASURED_STEPS else usual * _cost(phase.name)
                left += each * max(phase.steps - self._done.get((part.name, phase.name), 0), 0)
        return left

    def _left(self) -> dict[str, float | None]:
        left = self.seconds_left
        return {"done": round(self.done, 4), "seconds_left": None if left is None else round(left, 1)}

    def _phases(self, part: str) -> list[PlannedPhase]:
        return next((planned.phases for planned in self.parts if planned.name == part), [])


def _cost(phase: str) -> float:
    return FROZEN_COST if phase == "frozen" else 1.0


# --------------------------------------------------------------------------------------------------------------------
# Sinks


class JsonLines:
    """Prints each event to a stream as one line of JSON."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __call__(self, event: Event) -> None:
        """Print an event."""
        print(to_json(event), file=self.stream, flush=True)


class Terminal:
    """Lines on stdout, and on stderr one bar over all parts with the time that is left."""

    def __init__(self) -> None:
        self.bar: tqdm[Any] | None = None
        self.plan: list[dict[str, Any]] = []

    def __call__(self, event: Event) -> None:
        """Show an event."""
        kind = event["event"]
        if kind == "step":
            self._move(event)
        elif kind == "plan":
            self.plan = event["parts"]
            self._say(describe_plan(event["parts"]))
        elif kind == "message":
            self._say(event["text"])
        elif kind == "estimate":
            self._say(f"This takes {describe_time(event['seconds'])} in all, measured on the first steps.")
        elif kind == "phase" and event["part"] != self.plan[0]["name"] and event["phase"] == "whole":
            self._say(f"{event['part'].capitalize()}: measuring by a model that has not seen these labels.")
        elif kind == "epoch" and (event["part"] == self.plan[0]["name"] or "validation" in event):
            self._say(describe_epoch(event, event["better"]))

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _say(self, text: str) -> None:
        with tqdm.external_write_mode(file=sys.stdout):
            print(text, flush=True)

    def _move(self, event: Event) -> None:
        if self.bar is None:
            form = "{desc}: {percentage:3.0f}%|{bar}| {postfix}"
            self.bar = tqdm(total=1.0, bar_format=form, leave=False, dynamic_ncols=True)
        part = "" if event["part"] == self.plan[0]["name"] else f"{event['part']}, "
        place = f"epoch {event['epoch']}/{event['epochs']}, step {event['step']}/{event['steps']}"
        left = "" if event["seconds_left"] is None else f", {describe_time(event['seconds_left'])} left"
        self.bar.set_description_str(part + place, refresh=False)
        self.bar.set_postfix_str(f"loss {event['loss']:.3f}{left}", refresh=False)
        self.bar.n = event["done"]
        self.bar.refresh()


def describe_time(seconds: float) -> str:
    """A length of time in the words of a person."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def describe_plan(parts: Sequence[dict[str, Any]]) -> str:
    """What a training will do, in a sentence."""
    names = {"frozen": "of the head alone", "whole": "of the whole network"}
    phases = [
        f"{phase['epochs']} epoch{'s' if phase['epochs'] != 1 else ''} {names.get(phase['name'], phase['name'])}"
        for phase in parts[0]["phases"]
    ]
    said = f"Plan: {', then '.join(phases)}"
    if folds := len(parts) - 1:
        said += (
            f"; then {folds} more training{'s' if folds != 1 else ''} of the same length, each without a part of the "
            "labels, to measure on that part what accuracy to expect of new pictures (--folds 0 leaves this out)"
        )
    return said + "."


def describe_epoch(row: dict[str, Any], better: bool) -> str:
    """One line of figures, one of sample readings, and a hint where the numbers call for one."""
    line = f"epoch {row['epoch']:3d}  loss {row['train_loss']:.4f}  {row['seconds']:.1f} s"
    if row["waited"] > SLOW_LOADING * row["seconds"]:
        line += f", {row['waited'] / row['seconds']:.0%} of it waiting for pictures (--workers)"
    if "train_accuracy" in row:
        line += f"  | reads {row['train_accuracy']:.1%} of its training pictures exactly right"
    validation = row.get("validation")
    if not validation:
        return line
    line += (
        f"  | validation: loss {validation['loss']:.4f}  sequence accuracy {validation['sequence_accuracy']:.2%}"
        f"  CER {validation['cer']:.2%}  blanks {validation['blanks']:.0%}{'  *' if better else ''}"
    )
    line += "\n           " + "  ".join(f"{truth}→{reading or NOTHING}" for truth, reading in validation["samples"])
    if all(not reading for _, reading in validation["samples"]):
        line += (
            "\n           Only blanks so far: usual in the first epochs. If it lasts, train longer, raise "
            "--learning_rate, or look whether the labels are right."
        )
    return line
