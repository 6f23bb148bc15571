"""One fine-tuning job of the page: what it is, and what its training says of itself."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from captcha_reader.reading.metrics import wilson_interval

State = Literal["waiting", "checking", "training", "exporting", "done", "failed", "cancelled"]

# How far through the whole job each state begins and ends.
SHARES: dict[State, tuple[float, float]] = {
    "waiting": (0.0, 0.0),
    "checking": (0.0, 0.03),
    "training": (0.03, 0.95),
    "exporting": (0.95, 1.0),
}


@dataclass(eq=False)
class Job:
    """One fine-tuning, and what there is to say of it.

    Attributes:
        id: made here, never from outside.
        folder: of its files while it runs.
        start: the checkpoint to start from, and what the page calls it.
        name: of the new model.
        owner: the secret of the session that started it.
        measure: whether cross-validation says what to expect of the new model.
        epochs: of the whole network; None for as many as suit the number of pictures.
        pictures: how many it learns from, as far as is known.
        left_out: how many of the upload were left out before the job began, by reason.
        state: where it is.
        part: how much of that state is done, 0 to 1.
        left: seconds until the training has ended; None where it is not known yet.
        note: what it does just now, or why it failed: one sentence.
        plan: what the training will do, the `parts` of its event `plan`.
        place: which part of the plan it is at.
        history: the rows of history.json so far.
        result: `before` and `after` (figures of metrics.text_metrics), `expect` (a sentence), `left_out` and its
            `reasons`; `export` where the export failed.
        model: folder of the new model; None until there is one.
    """

    id: str
    folder: Path
    start: Path
    start_name: str
    epochs: int | None
    pictures: int
    left_out: dict[str, int] = field(default_factory=dict)
    name: str = "model"
    owner: str = ""
    measure: bool = True
    state: State = "waiting"
    part: float = 0.0
    left: float | None = None
    note: str = "waiting for its turn"
    plan: list[dict[str, Any]] = field(default_factory=list)
    place: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    started: float = field(default_factory=time.time)
    ended: float | None = None
    cancelling: bool = False
    process: subprocess.Popen | None = None

    @property
    def running(self) -> bool:
        """Whether it has not come to an end."""
        return self.state not in ("done", "failed", "cancelled")

    @property
    def progress(self) -> float:
        """How much of the whole is done, 0 to 1."""
        if not self.running:
            return 1.0
        begin, end = SHARES[self.state]
        return begin + (end - begin) * min(max(self.part, 0.0), 1.0)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return (self.ended or time.time()) - self.started

    def follow(self, event: dict[str, Any]) -> None:
        """Take in what the training says (captcha_reader/progress.py lists the events)."""
        kind = event.get("event")
        if kind == "plan":
            self.plan = event["parts"]
        elif kind in ("step", "epoch"):
            self.part, self.left = max(self.part, event.get("done") or 0.0), event.get("seconds_left")
            self.place = event["part"]
            self.note = f"{self.place}, epoch {event['epoch']} of {event.get('epochs', '?')}"
            if kind == "epoch" and self.plan and self.place == self.plan[0]["name"]:
                self.history.append(event)
        elif kind == "result":
            self.part, self.left = 1.0, None
            self.result["expect"] = event.get("expect") or ""
            if report := event.get("report"):
                self.result |= _compared(report)


def _compared(report: dict[str, Any]) -> dict[str, Any]:
    """`after`, the report's figures, and `before`, those of the starting weights on the same pictures."""
    n = report["n"]
    keys = ("n", "sequence_accuracy", "sequence_accuracy_ignore_case", "wilson_95")
    found = {"after": {key: report[key] for key in keys}}
    if "before" in report:
        found["before"] = {
            "n": n,
            "sequence_accuracy": report["before"],
            "sequence_accuracy_ignore_case": report["before_ignore_case"],
            "wilson_95": wilson_interval(round(report["before"] * n), n),
        }
    return found
