"""Jobs of the page: fine-tunings and measurements wait in one queue, and one of them runs at a time.

A job runs programs in processes of their own (processes.py), in a folder that is removed when it ends; what a job does
stands in its class (finetuning.py, strength_job.py). Only the session that started a job may stop it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from captcha_reader.errors import UserError
from captcha_reader.files import process_runs
from captcha_reader.web.feedback import Row, write_rows
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.job import Commands, Job, Place, State
from captcha_reader.web.own_models import check_name, free_name
from captcha_reader.web.processes import Cancelled, stop

MOST_WAITING = 3  # jobs beside the one that runs

Kind = TypeVar("Kind", bound=Job)


class JobQueue:
    """Runs jobs one after the other.

    Args:
        models: folder that the new models go to.
        work: folder for jobs that run, each in one of its own; those of processes that are gone are removed now. Other
            pages may share it.
        commands: the programs that jobs run.
        threads: CPU threads of a program; all available cores by default.
    """

    def __init__(self, models: str | Path, work: str | Path, commands: Commands, threads: int | None = None) -> None:
        self.models, self.work, self.commands, self.threads = Path(models), Path(work), commands, threads
        self._jobs: deque[Job] = deque()  # the one that runs stands first
        self._finished: deque[Job] = deque(maxlen=8)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._number = 0
        self._making = 0  # jobs that have a place in the queue and are not in it yet
        for folder in self.work.glob("*"):
            if not _in_use(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def jobs(self) -> list[Job]:
        """Those that run or wait, in order, then those that have ended, the latest first."""
        with self._changed:
            return [*self._jobs, *self._finished]

    def running(self) -> Job | None:
        """The job that runs."""
        with self._changed:
            return self._jobs[0] if self._jobs else None

    def of(self, owner: str, kind: type[Kind]) -> Kind | None:
        """The job of a kind that a session started last."""
        own = [job for job in self.jobs() if owner and job.owner == owner and isinstance(job, kind)]
        return max(own, key=lambda job: job.started, default=None)

    def before(self, job: Job) -> int:
        """How many jobs run or wait before this one."""
        with self._changed:
            return self._jobs.index(job) if job in self._jobs else 0

    def submit(
        self,
        rows: Iterable[Row],
        start: Path,
        start_name: str,
        epochs: int | None = None,
        left_out: dict[str, int] | None = None,
        name: str = "",
        owner: str = "",
        measure: bool = True,
    ) -> FineTuning:
        """Queue a fine-tuning.

        Args:
            rows: labeled pictures.
            start: a .safetensors checkpoint.
            start_name: what the page calls it.
            epochs: at most 200; as many as suit the number of pictures by default.
            left_out: how many pictures were left out of `rows`, by reason, for the job's result.
            name: of the new model; made of the date by default.
            owner: the secret of the session.
            measure: by cross-validation, which trains three more models.

        Raises:
            UserError: the name cannot be used, too many jobs wait, or the data cannot be written.
        """
        if start.suffix != ".safetensors":
            raise UserError(f"{start_name} cannot be fine-tuned: choose a .safetensors model")
        name = free_name(self.models, check_name(name or f"fine-tuned {datetime.now():%Y-%m-%d %H.%M}"))
        pictures = Counter[str]()

        def make(job_id: str, folder: Path) -> FineTuning:
            write_rows(folder / "upload" / "rows.parquet", _counted(rows, pictures))
            if not pictures:
                raise UserError("there are no labeled pictures yet: upload a zip, or correct some readings")
            rounds = min(epochs, 200) if epochs else None
            job = FineTuning(job_id, folder, start, start_name, rounds, pictures.total(), name=name, owner=owner)
            job.left_out, job.measure = left_out or {}, measure
            return job

        return self.add(make)

    def add(self, make: Callable[[str, Path], Kind]) -> Kind:
        """Queue a job of any kind.

        Args:
            make: makes it, given its id and its folder, into which it puts what the job needs.

        Raises:
            UserError: too many jobs wait, or the data cannot be written; and what `make` raises.
        """
        with self._changed:
            taken = len(self._jobs) + self._making
            if taken > MOST_WAITING:
                raise UserError(f"{taken - 1} jobs wait already: try again when one has ended")
            self._making += 1
            self._number += 1
            # With the process: pages that share their folders never choose the same.
            job_id = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}-{self._number}"
        folder = self.work / job_id
        try:
            job = make(job_id, folder)
        except BaseException as error:
            with self._changed:
                self._making -= 1
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, OSError):
                raise UserError(f"the pictures cannot be stored ({error.strerror or error})") from None
            raise
        with self._changed:
            self._making -= 1
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job

    def cancel(self, job: Job, owner: str = "") -> None:
        """Stop a job; it ends as cancelled, soon, and nothing of it is left.

        Raises:
            UserError: another session started it.
        """
        if job.owner != owner:
            raise UserError("another visitor started this: only they can stop it")
        with self._changed:
            job.cancelling = True
            if job in self._jobs and self._jobs[0] is not job:
                self._end(job, "cancelled", "stopped before it began")
        stop(job.process)

    def close(self) -> None:
        """Stop everything, at the end of the program."""
        with self._changed:
            jobs = list(self._jobs)
            for job in jobs:
                job.cancelling = True
        for job in jobs:
            stop(job.process)
            shutil.rmtree(job.folder, ignore_errors=True)

    def _end(self, job: Job, state: State, note: str) -> None:
        shutil.rmtree(job.folder, ignore_errors=True)
        job.note, job.ended, job.left = note, time.time(), None
        job.state = state  # last: whoever waits for the end finds all of it
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._finished.appendleft(job)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._jobs:
                    self._changed.wait()
                job = self._jobs[0]
            try:
                job.run(Place(self.commands, self.models, self.threads))
                self._end(job, "done", "done")
            except Cancelled:
                where = f" at {job.note}" if job.place else ""
                self._end(job, "cancelled", f"stopped{where}: {job.after_stop}")
            except UserError as error:
                self._end(job, "failed", str(error))
            except Exception as error:  # a full disk, a folder that was removed
                print(f"{job.title.lower()} failed: {error!r}", file=sys.stderr)
                self._end(job, "failed", "something went wrong on this machine: its terminal says what")


def _counted(rows: Iterable[Row], count: Counter[str]) -> Iterator[Row]:
    for row in rows:
        count["rows"] += 1
        yield row


def _in_use(folder: Path) -> bool:
    """Whether the folder of a job belongs to another process that runs.

    A folder with the number of this process is one of an earlier process, as a container gives the same number again.
    """
    named = re.fullmatch(r"\d{8}-\d{6}-(\d+)-\d+", folder.name)
    return named is not None and int(named[1]) != os.getpid() and process_runs(int(named[1]))
