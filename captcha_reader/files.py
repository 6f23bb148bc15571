"""Where the project's files are; atomic writes, locks, leftovers of killed processes, and the cores to use."""

from __future__ import annotations

import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from captcha_reader.errors import FORBIDDEN, UserError

ROOT = Path(__file__).resolve().parent.parent
SAVED_MODELS = ROOT / "saved_models"
DEFAULT_CHECKPOINT = SAVED_MODELS / "reader.safetensors"
FORMULA_STARTS = frozenset("=+-@|%")
COPIES = Path(".cache/huggingface")  # of a dataset, within its folder; uploads to the Hub leave this name out


def write_atomically(path: str | Path, write: Callable[[Path], Any]) -> Path:
    """Let `write(temporary_path)` make a file, then move it to `path`: a kill at any moment leaves the old file whole.

    The temporary file keeps the suffix of `path`, since some writers choose their format by it.

    Raises:
        UserError: nothing may be written there.
        OSError: what `write` raises, a full disk for instance.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another place") from None
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave the new name with no bytes behind it
        temporary.replace(path)
    except OSError as error:
        if error.errno in FORBIDDEN:
            raise UserError(f"{path} cannot be written ({error.strerror}): choose another place") from None
        if error.errno is not None and not error.filename:  # a full disk does not say which file it was
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    return path


def clear_leftovers(folder: Path) -> None:
    """Remove what `write_atomically` left in a folder where its process was killed, not what one is writing."""
    for path in folder.glob(".*.tmp*"):
        found = re.fullmatch(r"\..+\.(\d+)\.tmp(\.\w+)?", path.name)
        if found and not process_runs(int(found[1])):
            path.unlink(missing_ok=True)


def visible_files(folder: Path, pattern: str = "*") -> list[Path]:
    """What is below a folder and no folder itself, sorted. Hidden files, and those in hidden folders, are none of it:
    macOS keeps hidden copies, notebooks and downloads keep folders."""
    found = (path for path in folder.rglob(pattern) if not path.is_dir())
    return sorted(path for path in found if not any(n.startswith(".") for n in path.relative_to(folder).parts))


def process_runs(pid: int) -> bool:
    """Whether a process of this machine has that number; True on Windows, where asking would end it."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it runs for another user
        return True
    return True


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text atomically."""
    return write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: str | Path, value: Any) -> Path:
    """Write strict JSON atomically; see `to_json`."""
    return write_text(path, to_json(value, indent=1))


def to_json(value: Any, indent: int | None = None) -> str:
    """Strict JSON: numbers that are not finite become null, and what JSON has no form for becomes its text."""
    return json.dumps(_finite(value), default=str, allow_nan=False, indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def relative_paths(text: str) -> str:
    """A message without this machine's folders: paths below the current folder or the project's begin there."""
    for folder in (Path.cwd(), ROOT):
        if len(folder.parts) > 1:
            text = text.replace(f"{folder}{os.sep}", "")
    return text


@contextmanager
def locked_output(path: str | Path) -> Iterator[None]:
    """Be the only process that writes a file or folder; the lock goes with the process, however that ends.

    The lock is a hidden file beside the output, removed at the end. (On Windows nothing is locked, and two writers at a
    time are the user's own doing.)

    Args:
        path: of the output, which need not exist.

    Raises:
        UserError: another process writes it, or nothing may be written there.
    """
    path = Path(path)
    lock_path = path.with_name(f".{path.name}.lock")
    try:
        lock_path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = lock_path.open("w")
            if not lock_file(file):
                file.close()
                raise UserError(f"{path} is being written by another process: wait for it, or choose another --out")
            # Another process may have removed the file between our opening and our locking it.
            with suppress(FileNotFoundError):
                if os.name == "nt" or _same(file, lock_path):
                    break
            file.close()
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): choose another place") from None
    try:
        yield
    finally:
        with suppress(OSError):  # still locked: nobody else removes what is now another's
            lock_path.unlink()
        file.close()


def _same(file: IO[Any], path: Path) -> bool:
    """Whether an open file is the one that has that name now."""
    return os.path.samestat(os.fstat(file.fileno()), path.stat())


def quicker(weights: Path) -> Path:
    """The .onnx file beside weights, which starts and reads sooner; the weights themselves where there is none."""
    exported = weights.with_suffix(".onnx")
    if not exported.is_file():
        return weights
    # Weights trained anew and not yet exported must not be hidden by the old export.
    newer = weights.is_file() and weights.stat().st_mtime > exported.stat().st_mtime + 60
    return weights if newer else exported


def printable(name: object) -> str:
    """A name as UTF-8 can write it: bytes in a file's name that are none are spelled out."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def lock_file(file: IO[Any], wait: bool = False) -> bool:
    """Lock an open file, until it is closed, against others that lock it, in this process or another.

    Args:
        file: opened for writing.
        wait: until the others are done, instead of giving up.

    Returns:
        Whether it is locked now. On Windows nothing is, and two writers at a time are the user's own doing.

    Raises:
        OSError: the file system knows no locks; only with `wait`.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if wait:
            raise
        return False
    return True


def available_cores() -> int:
    """Processor cores this process may use (fewer than the machine's in a container or under `taskset`)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def csv_safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula, whatever a stranger called a file.

    A quote is put before text that begins, behind white space, with `=`, `+`, `-`, `@`, a full-width form of these, or
    with a tab or a line break. `make_dataset.py` takes the quote away again.
    """
    begins = unicodedata.normalize("NFKC", text).lstrip()[:1]
    return f"'{text}" if begins in FORMULA_STARTS or (text[:1] in "\t\r\n" and text) else text
