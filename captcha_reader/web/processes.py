"""The programs of jobs: each in a process of its own, which can be stopped at any moment and gives its memory back.

A program tells its progress as JSON lines on stdout; what else it says is for the terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.web.job import Job, State

STOP_SECONDS = 15  # until a process that was asked to stop is killed


class Cancelled(Exception):
    """The job was asked to stop."""


def enter(job: Job, state: State, note: str) -> None:
    """Begin a state of a job.

    Raises:
        Cancelled: it was asked to stop.
    """
    if job.cancelling:
        raise Cancelled
    job.state, job.note, job.part, job.left = state, note, 0.0, None


def call(job: Job, command: Sequence[str], seconds: int, advice: str) -> None:
    """Run a program in the job's folder to its end, following the events on its stdout.

    Args:
        command: the program and its arguments.
        seconds: that it may take.
        advice: what to do where it takes longer.

    Raises:
        UserError: it failed, in its own words, or took too long.
        Cancelled: it was asked to stop.
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
        stop(job.process)
    stopped = threading.Event()

    def end() -> None:
        stopped.set()
        stop(job.process)

    overdue = threading.Timer(seconds, end)
    overdue.daemon = True
    overdue.start()
    try:
        for event in _events(job.process.stdout or ()):
            if not job.cancelling:
                job.follow(event)
        code = job.process.wait()
    finally:
        overdue.cancel()
        stop(job.process)
    if job.cancelling:
        raise Cancelled
    if code and stopped.is_set():
        raise UserError(f"it took longer than {seconds // 60} minutes, the most that it may: {advice}")
    if code:
        raise _failure(command, code, said)


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


def stop(process: subprocess.Popen | None) -> None:
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
