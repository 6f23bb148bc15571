"""Fine-tuning jobs of the page: a queue, and what there is to say of each job.

A job runs three programs one after the other, each in a process of its own, which can be stopped at any moment and
gives its memory back: one makes a dataset of the labeled pictures, one fine-tunes and measures by cross-validation, one
exports to ONNX. Training tells its progress as JSON lines on stdout (captcha_reader/progress.py). All is made in a
hidden folder and moved to the other models when it is whole, so that a failure leaves everything as it was. One job
runs at a time, and only the session that started a job may stop it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from captcha_reader.checkpoint import read_metadata
from captcha_reader.errors import UserError
from captcha_reader.files import process_runs
from captcha_reader.web.feedback import Row, write_rows
from captcha_reader.web.job import Job, State
from captcha_reader.web.labeled_zip import LEAST_PICTURES
from captcha_reader.web.own_models import Maker, check_name, free_name, write_marker

MOST_WAITING = 3  # jobs beside the one that runs
MOST_SECONDS = 3600  # that a training may take
CHECK_SECONDS = EXPORT_SECONDS = 600
STOP_SECONDS = 15  # until a process that was asked to stop is killed
KEPT = ("best.safetensors", "history.json", "metrics.json", "config.yaml")


@dataclass(frozen=True)
class Commands:
    """The programs that a job runs: beginnings of command lines, to which a job adds what concerns it.

    Attributes:
        dataset: takes `SOURCE --out FOLDER --split 100/0/0 --workers 1` (make_dataset.py).
        train: takes `--data`, `--out`, `--init`, `--model`, `--epochs` and `--threads`, and prints progress as JSON
            lines (main.py).
        export: takes `--checkpoint`, `--data` and `--out` (export_model.py).
    """

    dataset: Sequence[str]
    train: Sequence[str]
    export: Sequence[str]


class _Cancelled(Exception):
    pass


class JobQueue:
    """Runs jobs one after the other.

    Args:
        models: folder that the new models go to.
        work: folder for jobs that run, each in one of its own; those of processes that are gone are removed now. Other
            pages may share it.
        commands: the programs that a job runs.
        threads: CPU threads of a training; all available cores by default.
    """

    def __init__(self, models: str | Path, work: str | Path, commands: Commands, threads: int | None = None) -> None:
        self.models, self.work, self.commands, self.threads = Path(models), Path(work), commands, threads
        self._jobs: deque[Job] = deque()  # the one that runs stands first
        self._finished: deque[Job] = deque(maxlen=8)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._number = 0
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

    def of(self, owner: str) -> Job | None:
        """The job that a session started last."""
        own = [job for job in self.jobs() if owner and job.owner == owner]
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
    ) -> Job:
        """Queue a job.

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
        with self._changed:
            if len(self._jobs) > MOST_WAITING:
                raise UserError(f"{len(self._jobs) - 1} trainings wait already: try again when one has ended")
            self._number += 1
            # With the process: pages that share their folders never choose the same.
            job_id = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}-{self._number}"
        folder = self.work / job_id
        pictures = Counter[str]()
        try:
            write_rows(folder / "upload" / "rows.parquet", _counted(rows, pictures))
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"the pictures cannot be stored ({error.strerror or error})") from None
        if not pictures:
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError("there are no labeled pictures yet: upload a zip, or correct some readings")
        epochs = min(epochs, 200) if epochs else None
        job = Job(job_id, folder, start, start_name, epochs, pictures.total(), left_out or {}, name, owner, measure)
        with self._changed:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="fine-tune", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job

    def cancel(self, job: Job, owner: str = "") -> None:
        """Stop a job; it ends as cancelled, soon, and nothing of it is left.

        Raises:
            UserError: another session started it.
        """
        if job.owner != owner:
            raise UserError("another visitor started this training: only they can stop it")
        with self._changed:
            job.cancelling = True
            if job in self._jobs and self._jobs[0] is not job:
                self._end(job, "cancelled", "stopped before it began")
        _stop(job.process)

    def close(self) -> None:
        """Stop everything, at the end of the program."""
        with self._changed:
            jobs = list(self._jobs)
            for job in jobs:
                job.cancelling = True
        for job in jobs:
            _stop(job.process)
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
                self._fine_tune(job)
                self._end(job, "done", "done")
            except _Cancelled:
                where = f" at {job.note}" if job.state == "training" and job.place else ""
                self._end(job, "cancelled", f"stopped{where}: everything is as it was")
            except UserError as error:
                self._end(job, "failed", str(error))
            except Exception as error:  # a full disk, a folder that was removed
                print(f"fine-tuning failed: {error!r}", file=sys.stderr)
                self._end(job, "failed", "something went wrong on this machine: its terminal says what")

    def _fine_tune(self, job: Job) -> None:
        self._enter(job, "checking", "checking the pictures")
        # A copy under its own name: what the new checkpoint says of its origin names no folder of this machine.
        start = job.start_name.replace("/", "-")
        try:
            shutil.copyfile(job.start, job.folder / start)
        except OSError:
            raise UserError(f"the model {job.start_name} is gone: choose another") from None
        architecture = read_metadata(job.folder / start)["model"]["name"]
        made = ["upload", "--out", "dataset", "--split", "100/0/0", "--workers", "1"]
        self._call(job, [*self.commands.dataset, *made], CHECK_SECONDS, "take fewer pictures")
        _count_pictures(job)
        self._enter(job, "training", "starting the training")
        arguments = ["--data", "dataset", "--out", "run", "--init", start, "--model", architecture]
        arguments += ["--epochs", str(job.epochs)] if job.epochs else []
        arguments += [] if job.measure else ["--folds", "0", "--evaluate", "false"]
        arguments += ["--threads", str(self.threads)] if self.threads else []
        self._call(job, [*self.commands.train, *arguments], MOST_SECONDS, "take fewer pictures or epochs")
        job.model = self._publish(job, job.folder / "run")
        weights = self.models.resolve() / job.model / "best.safetensors"
        shard = next((job.folder / "dataset").glob("train-*.parquet"))
        arguments = ["--checkpoint", str(weights), "--data", str(shard), "--out", str(weights.with_suffix(".onnx"))]
        try:
            self._enter(job, "exporting", "ready to use; exporting to ONNX and comparing")
            self._call(job, [*self.commands.export, *arguments], EXPORT_SECONDS, "run export_model.py in a terminal")
        except UserError as error:
            job.result["export"] = str(error)
        except _Cancelled:
            job.result["export"] = "the export was stopped"

    def _publish(self, job: Job, folder: Path) -> str:
        """Move what is worth keeping to the other models, all at once; gives the folder's name there."""
        name = job.name = free_name(self.models, job.name)
        building = self.models / f".{job.id}"
        building.mkdir(parents=True)
        try:
            for kept in KEPT:
                if (folder / kept).is_file():
                    shutil.move(folder / kept, building / kept)
            write_marker(building, Maker(job.owner, job.start_name, job.pictures))
            building.rename(self.models / name)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return name

    def _enter(self, job: Job, state: State, note: str) -> None:
        if job.cancelling:
            raise _Cancelled
        job.state, job.note, job.part, job.left = state, note, 0.0, None

    def _call(self, job: Job, command: Sequence[str], seconds: int, advice: str) -> None:
        """Run a program in the job's folder to its end, following the events on its stdout.

        Args:
            command: the program and its arguments.
            seconds: that it may take.
            advice: what to do where it takes longer.

        Raises:
            UserError: it failed, in its own words, or took too long.
            _Cancelled: it was asked to stop.
        """
        said = job.folder / "stderr.txt"
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}
        with said.open("wb") as errors:
            job.process = subprocess.Popen(
                list(command),
                cwd=job.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # Ctrl-C in the terminal is the page's to answer
            )
        if hasattr(os, "setpriority"):
            with contextlib.suppress(OSError):  # readings on the page come first
                os.setpriority(os.PRIO_PROCESS, job.process.pid, 5)
        if job.cancelling:  # asked while the process started
            _stop(job.process)
        stopped = threading.Event()

        def stop() -> None:
            stopped.set()
            _stop(job.process)

        overdue = threading.Timer(seconds, stop)
        overdue.daemon = True
        overdue.start()
        try:
            for event in _events(job.process.stdout or ()):
                if not job.cancelling:
                    job.follow(event)
            code = job.process.wait()
        finally:
            overdue.cancel()
            _stop(job.process)
        if job.cancelling:
            raise _Cancelled
        if code and stopped.is_set():
            raise UserError(f"it took longer than {seconds // 60} minutes, the most that it may: {advice}")
        if code:
            raise _failure(command, code, said)


def _counted(rows: Iterable[Row], count: Counter[str]) -> Iterator[Row]:
    for row in rows:
        count["rows"] += 1
        yield row


def _count_pictures(job: Job) -> None:
    """Take from the dataset how many pictures there are, and why others are not.

    Raises:
        UserError: there are too few.
    """
    from captcha_reader.dataset.folders import load_info

    info = load_info(job.folder / "dataset")
    job.pictures = sum(info["counts"].values())
    rejects = Counter(info["rejects"]["counts"]) + Counter(job.left_out)
    job.result |= {"left_out": rejects.total(), "reasons": dict(rejects)}
    if job.pictures < LEAST_PICTURES:
        why = ", ".join(f"{n} {reason}" for reason, n in rejects.items())
        raise UserError(
            f"{job.pictures} different pictures with a usable label are too few: {LEAST_PICTURES} are the least"
            + (f" ({rejects.total()} were left out: {why})" if why else "")
        )


def _events(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The lines that are JSON objects."""
    for line in lines:
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event


def _failure(command: Sequence[str], code: int, said: Path) -> UserError:
    """What a program that failed says of it, in its last words; the rest goes to the terminal."""
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines()[-30:]
    script = next((Path(word).name for word in command if word.endswith(".py")), Path(command[0]).name)
    print("\n".join([f"{script} failed ({code}):", *lines]), file=sys.stderr)
    errors = [line.rpartition("\r")[2].removeprefix("error: ") for line in lines if "error: " in line]
    return UserError(errors[-1] if errors else f"{script} ended with code {code}: the terminal of this page says more")


def _in_use(folder: Path) -> bool:
    """Whether the folder of a job belongs to another process that runs.

    A folder with the number of this process is one of an earlier process, as a container gives the same number again.
    """
    named = re.fullmatch(r"\d{8}-\d{6}-(\d+)-\d+", folder.name)
    return named is not None and int(named[1]) != os.getpid() and process_runs(int(named[1]))


def _stop(process: subprocess.Popen | None) -> None:
    """Ask a process to stop; what has not ended some seconds later is killed, with the processes it started."""
    if process is None or process.poll() is not None:
        return
    with contextlib.suppress(OSError):
        process.terminate()

    def kill() -> None:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()

    timer = threading.Timer(STOP_SECONDS, kill)
    timer.daemon = True
    timer.start()
