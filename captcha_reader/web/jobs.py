"""Teach a reader new captchas from the page: keep corrected readings, and fine-tune in a process of its own.

A job checks the labelled pictures (as make_dataset.py), measures the model as it is (as accuracy_calculator.py) and
does what `main.py --config configs/finetune.yaml` does: all pictures teach the new model, and models that each did
without a part of them say what to expect of it. That runs in a process of its own, which is this file: it can be
stopped at any moment and gives its memory back. Everything is made in a hidden folder and moved to the other models
when it is whole, so that a failure leaves everything as it was. export_model.py then adds the ONNX file, as another
process. One job runs at a time.
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
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from captcha_reader.cli import run
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, process_runs, write_text
from captcha_reader.web.feedback import Row, write_rows
from captcha_reader.web.labeled_zip import LEAST_PICTURES

State = Literal["waiting", "checking", "measuring", "training", "verifying", "exporting", "done", "failed", "cancelled"]

MOST_WAITING = 3  # jobs beside the one that runs
MOST_SECONDS = 3600  # that a training may take
STOP_SECONDS = 15  # until a process that was asked to stop is killed
EXPORT_SECONDS = 600
ORDER = "order.json"  # what the process of a job reads
SAYS = "job: "  # how it begins the lines that are for us
KEPT = ("best.safetensors", "history.json", "metrics.json", "config.yaml")
# How far through the whole job each step begins and ends.
SHARES: dict[State, tuple[float, float]] = {
    "waiting": (0.0, 0.0),
    "checking": (0.0, 0.05),
    "measuring": (0.05, 0.1),
    "training": (0.1, 0.4),
    "verifying": (0.4, 0.9),
    "exporting": (0.9, 1.0),
}


@dataclass(eq=False)
class Job:
    """One fine-tuning, and what there is to say of it.

    Attributes:
        id: made here, never from outside.
        start: the checkpoint to start from, and what the page calls it.
        epochs: of the whole network; None for as many as suit the number of pictures.
        pictures: how many it learns from, as far as is known.
        left_out: how many of the upload were left out before the job began, by reason.
        state: where it is.
        part: how much of that step is done, 0 to 1.
        note: what it does just now, or why it failed: one sentence.
        history: the rows of history.json so far.
        result: `before` and `after` (what accuracy_calculator.py reports), `expect` (a sentence), `left_out` and its
            `reasons`; `export` where the export failed.
        model: what the new model is called in the chooser; None until there is one.
    """

    id: str
    folder: Path
    start: Path
    start_name: str
    epochs: int | None
    pictures: int
    left_out: dict[str, int] = field(default_factory=dict)
    state: State = "waiting"
    part: float = 0.0
    note: str = "waiting for its turn"
    history: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    started: float = field(default_factory=time.time)
    ended: float | None = None
    measured: tuple[int, int] = (0, 1)  # parts of the labels, done and in all
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


class _Cancelled(Exception):
    pass


class Teacher:
    """Runs jobs one after the other.

    Args:
        models: folder that the new models go to.
        work: folder for jobs that run, each in one of its own; those of processes that are gone are removed now. Other
            pages may share it.
        threads: CPU threads of a training; all available cores by default.
    """

    def __init__(self, models: str | Path, work: str | Path, threads: int | None = None) -> None:
        self.models, self.work, self.threads = Path(models), Path(work), threads
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

    def find(self, job_id: str | None) -> Job | None:
        """The job of that id."""
        return next((job for job in self.jobs() if job.id == job_id), None)

    def before(self, job: Job) -> int:
        """How many jobs run or wait before this one."""
        with self._changed:
            return self._jobs.index(job) if job in self._jobs else 0

    def submit(
        self,
        rows: Sequence[Row],
        start: Path,
        start_name: str,
        epochs: int | None = None,
        shards: Sequence[Path] = (),
        left_out: dict[str, int] | None = None,
    ) -> Job:
        """Queue a job.

        Args:
            rows: labelled pictures.
            start: a .safetensors checkpoint.
            start_name: what the page calls it.
            epochs: at most 200; as many as suit the number of pictures by default.
            shards: parquet files with more labelled pictures, copied now.
            left_out: how many pictures were left out of `rows`, by reason, for the job's result.

        Raises:
            UserError: too many jobs wait, or the data cannot be written.
        """
        if not rows and not shards:
            raise UserError("there are no labelled pictures yet: upload a zip, or correct some readings")
        if start.suffix != ".safetensors":
            raise UserError(f"{start_name} cannot be taught: choose a .safetensors model")
        with self._changed:
            if len(self._jobs) > MOST_WAITING:
                raise UserError(f"{len(self._jobs) - 1} trainings wait already: try again when one has ended")
            self._number += 1
            # With the process: pages that share their folders never choose the same.
            job_id = f"{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}-{self._number}"
        folder = self.work / job_id
        try:
            if rows:
                write_rows(folder / "upload" / "rows.parquet", rows)
            for i, shard in enumerate(shards):
                (folder / "feedback").mkdir(parents=True, exist_ok=True)
                shutil.copyfile(shard, folder / "feedback" / f"{i:04d}.parquet")
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"the pictures cannot be stored ({error.strerror or error})") from None
        job = Job(job_id, folder, start, start_name, min(epochs, 200) if epochs else None, len(rows), left_out or {})
        with self._changed:
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="teach", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Stop a job; it ends as cancelled, soon, and nothing of it is left."""
        with self._changed:
            job.cancelling = True
            if job.running:
                job.note = "stopping"
            if job in self._jobs and self._jobs[0] is not job:
                self._end(job, "cancelled", "cancelled before it began")
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
        job.note, job.ended = note, time.time()
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
                self._teach(job)
                self._end(job, "done", "done")
            except _Cancelled:
                self._end(job, "cancelled", "cancelled: everything is as it was")
            except UserError as error:
                self._end(job, "failed", str(error))
            except Exception as error:  # a full disk, a folder that was removed
                print(f"teaching failed: {error!r}", file=sys.stderr)
                self._end(job, "failed", "something went wrong on this machine: its terminal says what")

    def _teach(self, job: Job) -> None:
        self._enter(job, "checking", "checking the pictures and splitting them")
        # A copy under its own name: what the new checkpoint says of its origin names no folder of this machine.
        start = job.start_name.replace("/", "-")
        try:
            shutil.copyfile(job.start, job.folder / start)
        except OSError:
            raise UserError(f"the model {job.start_name} is gone: choose another") from None
        order = {"start": start, "epochs": job.epochs, "threads": self.threads, "left_out": job.left_out}
        write_text(job.folder / ORDER, json.dumps(order))
        self._call(job, ["-m", "captcha_reader.web.jobs"], MOST_SECONDS, "teach with fewer pictures or epochs")
        job.model = self._publish(job, job.folder / "run")
        model = self.models.resolve() / job.model
        shard = next((job.folder / "dataset").glob("train-*.parquet"))
        arguments = [str(ROOT / "export_model.py"), "--checkpoint", str(model), "--data", str(shard)]
        try:
            self._enter(job, "exporting", "ready to use; exporting to ONNX and comparing")
            arguments += ["--out", str(model.with_suffix(".onnx"))]
            self._call(job, arguments, EXPORT_SECONDS, "run export_model.py in a terminal")
        except UserError as error:
            job.result["export"] = str(error)
        except _Cancelled:
            job.result["export"] = "the export was cancelled"

    def _publish(self, job: Job, folder: Path) -> str:
        """Move what is worth keeping to the other models, all at once; gives the model's name there."""
        name = f"taught-{job.id}"
        building = self.models / f".{name}"
        building.mkdir(parents=True)
        try:
            for kept in KEPT:
                if (folder / kept).is_file():
                    shutil.move(folder / kept, building / kept)
            building.rename(self.models / name)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return f"{name}/best.safetensors"

    def _enter(self, job: Job, state: State, note: str) -> None:
        if job.cancelling:
            raise _Cancelled
        job.state, job.note, job.part = state, note, 0.0

    def _call(self, job: Job, command: Sequence[str], seconds: int, advice: str) -> None:
        """Run a script in the job's folder to its end, reading what it says.

        Args:
            command: the script and its arguments.
            seconds: that it may take.
            advice: what to do where it takes longer.

        Raises:
            UserError: it failed, in its own words, or took too long.
            _Cancelled: it was asked to stop.
        """
        script = Path(command[0]).name
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        job.process = subprocess.Popen(
            [sys.executable, *command],
            cwd=job.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
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
        said: deque[str] = deque(maxlen=30)
        try:
            for line in job.process.stdout or ():  # tqdm's carriage returns end a line too
                if line.strip():
                    said.append(line.strip())
                    self._follow(job, line)
            code = job.process.wait()
        finally:
            overdue.cancel()
            _stop(job.process)
        if job.cancelling:
            raise _Cancelled
        if code and stopped.is_set():
            raise UserError(f"it took longer than {seconds // 60} minutes, the most that it may: {advice}")
        if code:
            print("\n".join([f"{script} failed ({code}):", *said]), file=sys.stderr)
            errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
            if errors:
                raise UserError(errors[-1])
            raise UserError(f"{script} ended with code {code}: the terminal of this page says more")

    def _follow(self, job: Job, line: str) -> None:
        """Take the progress from what a script says."""
        if job.cancelling:
            return
        if line.startswith(SAYS):
            said = json.loads(line.removeprefix(SAYS))
            if said.get("state", job.state) != job.state:
                job.state, job.part = said["state"], 0.0
            job.note, job.pictures = said.get("note", job.note), said.get("pictures", job.pictures)
            job.result |= said.get("result", {})
        elif match := re.match(r"Measuring, part (\d+) of (\d+)", line):
            done, parts = int(match[1]) - 1, int(match[2])
            job.state, job.measured, job.part = "verifying", (done, parts), done / parts
        elif match := re.search(r"epoch (\d+)/(\d+):.*?(\d+)/(\d+) \[", line):
            epoch, epochs, step, steps = map(int, match.groups())
            done, parts = job.measured
            job.part = (done + (epoch - 1 + step / max(steps, 1)) / max(epochs, 1)) / parts
            job.note = f"epoch {epoch} of {epochs}"
            if job.state == "verifying":
                job.note = f"measuring with held-out pictures, part {done + 1} of {parts}: {job.note}"
        elif line.startswith("epoch "):
            self._read_history(job)
        elif job.state == "checking" and (match := re.search(r"(\d+)%\|", line)):
            job.part = int(match[1]) / 100

    def _read_history(self, job: Job) -> None:
        with contextlib.suppress(OSError, ValueError):
            job.history = json.loads((job.folder / "run" / "history.json").read_text(encoding="utf-8"))


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


# --------------------------------------------------------------------------------------------------------------------
# The process of a job


def main() -> int:
    """Do what the job in the current folder asks for, up to the taught checkpoint in `run`; Teacher starts this."""
    from accuracy_calculator import evaluate, load_labelled
    from captcha_reader.config import DatasetConfig
    from main import Interrupted, describe_expectation, train_model
    from make_dataset import make_dataset
    from predict import CaptchaPredictor

    if not Path(ORDER).is_file():
        raise UserError("this file is run by the page (interface.py), in the folder of a training")
    order = json.loads(Path(ORDER).read_text(encoding="utf-8"))
    config = _settings(order)
    sources = [name for name in ("upload", "feedback") if Path(name).is_dir()]
    info = make_dataset(DatasetConfig(sources=sources, out="dataset", split=config.split, workers=1))
    total = sum(info["counts"].values())
    rejects = Counter(info["rejects"]["counts"]) + Counter(order["left_out"])
    if total < LEAST_PICTURES:
        why = ", ".join(f"{n} {reason}" for reason, n in rejects.items())
        raise UserError(
            f"{total} different pictures with a usable label are too few: {LEAST_PICTURES} are the least"
            + (f" ({rejects.total()} were left out: {why})" if why else "")
        )
    left_out = {"left_out": rejects.total(), "reasons": rejects}
    _say(state="measuring", note="measuring the model as it is", pictures=total, result=left_out)
    images, texts, _ = load_labelled("dataset", "train")
    report, _ = evaluate(CaptchaPredictor(config.init, threads=config.threads), images, texts, progress=False)
    _say(state="training", note="beginning the training", result={"before": report})
    try:
        report = train_model(config)["report"]
    except Interrupted:
        return 130
    _say(result={"after": report, "expect": describe_expectation(report)})
    return 0


def _say(**changes: Any) -> None:
    """Tell the page what has changed in its `Job`."""
    print(SAYS + json.dumps(changes), flush=True)


def _settings(order: dict[str, Any]) -> Any:
    """A TrainConfig: configs/finetune.yaml, and what this job asks for."""
    from captcha_reader.config import TrainConfig
    from model import read_metadata

    values = yaml.safe_load((ROOT / "configs" / "finetune.yaml").read_text(encoding="utf-8"))
    values |= {
        "data": ["dataset"],
        "out": "run",
        "init": order["start"],
        "model": read_metadata(order["start"])["model"]["name"],
        "epochs": order["epochs"],
        "threads": order["threads"],
    }
    return TrainConfig(**values)


if __name__ == "__main__":
    run(main)
