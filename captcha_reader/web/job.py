"""A job of the page: what every kind of job has, its state, and how far it is."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

State = Literal["waiting", "checking", "training", "measuring", "exporting", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Commands:
    """The programs that jobs run: beginnings of command lines, to which a job adds what concerns it.

    Attributes:
        dataset: takes `SOURCE --out FOLDER --split 100/0/0 --workers 1` (make_dataset.py).
        train: takes `--data`, `--out`, `--init`, `--model`, `--epochs` and `--threads`, and prints progress as JSON
            lines (main.py).
        export: takes `--checkpoint`, `--data` and `--out` (export_model.py).
        strength: takes what `strength_job.arguments` gives, and prints progress as JSON lines (strength.py).
    """

    dataset: Sequence[str] = ()
    train: Sequence[str] = ()
    export: Sequence[str] = ()
    strength: Sequence[str] = ()


@dataclass(frozen=True)
class Place:
    """What a job finds when its turn has come.

    Attributes:
        commands: the programs.
        models: folder that new models go to.
        threads: CPU threads of a program; None: all available cores.
    """

    commands: Commands
    models: Path
    threads: int | None = None


@dataclass(eq=False)
class Job:
    """One job, and what there is to say of it.

    Attributes:
        id: made here, never from outside.
        folder: of its files while it runs.
        name: what the page calls what it makes, or measures.
        owner: the secret of the session that started it.
        state: where it is.
        part: how much of that state is done, 0 to 1.
        left: seconds until its long part has ended; None where it is not known yet.
        note: what it does just now, or why it failed: one sentence.
        place: which part of its plan it is at; empty before.
        started, ended: seconds since 1970.
        cancelling: somebody asked it to stop.
        process: the program that runs for it.
    """

    shares: ClassVar[dict[State, tuple[float, float]]] = {}
    """How far through the whole job each state begins and ends."""
    titles: ClassVar[dict[str, str]] = {}
    """What the page calls each state; "" for those that are not named."""
    after_stop: ClassVar[str] = "everything is as it was"
    """What is left of it when it was stopped."""

    id: str
    folder: Path
    _: KW_ONLY
    name: str = ""
    owner: str = ""
    state: State = "waiting"
    part: float = 0.0
    left: float | None = None
    note: str = "waiting for its turn"
    place: str = ""
    started: float = 0.0
    ended: float | None = None
    cancelling: bool = False
    process: subprocess.Popen | None = None

    def __post_init__(self) -> None:
        self.started = self.started or time.time()

    @property
    def running(self) -> bool:
        """Whether it has not come to an end."""
        return self.state not in ("done", "failed", "cancelled")

    @property
    def progress(self) -> float:
        """How much of the whole is done, 0 to 1."""
        if not self.running:
            return 1.0
        begin, end = self.shares.get(self.state, (0.0, 0.0))
        return begin + (end - begin) * min(max(self.part, 0.0), 1.0)

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return (self.ended or time.time()) - self.started

    @property
    def title(self) -> str:
        """What the page calls it in its state."""
        return self.titles.get(self.state, self.titles[""])

    def run(self, place: Place) -> None:
        """Do the work, in the job's folder, which is removed afterwards.

        Raises:
            UserError: it failed, in one sentence.
            Cancelled: it was asked to stop.
        """
        raise NotImplementedError

    def follow(self, event: dict[str, Any]) -> None:
        """Take in what its program says of itself."""
        raise NotImplementedError
