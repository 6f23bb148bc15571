"""What every script shares: the error a user is meant to read, the command line, atomic writes, locks, thread counts.

No torch here, and nothing of ours: this file stands at the bottom of the import order.
"""

from __future__ import annotations

import dataclasses
import errno
import gc
import os
import re
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, TypeVar

Config = TypeVar("Config")

ROOT = Path(__file__).resolve().parent
SAVED_MODELS = ROOT / "saved_models"
DEFAULT_CHECKPOINT = SAVED_MODELS / "reader.safetensors"
COPIES = Path(".cache/huggingface")  # of a dataset, within its folder; uploads to the Hub leave this name out


class UserError(Exception):
    """Something the user can mend. The message is one sentence that names the file or sample and says what to do."""


def parse_config(
    config_class: type[Config],
    description: str,
    argv: Sequence[str] | None = None,
    positional: str | None = None,
) -> Config:
    """Read the command line, and the YAML file named by `--config`, into `config_class`.

    Every dataclass field becomes a flag, explained by the docstring under the field. Flags override the YAML file,
    an unknown flag or key is an error (exit code 2). Dashes and underscores in flag names mean the same, and a switch
    may stand alone: `--resume` is `--resume true`.

    Args:
        config_class: a dataclass of `config.py`.
        description: what the script does, shown by `--help`.
        argv: arguments without the program's name; `sys.argv[1:]` by default.
        positional: name of a `list[str]` field that takes the bare arguments, one or more.

    Returns:
        An instance of `config_class`.
    """
    from jsonargparse import ArgumentError, ArgumentParser, set_parsing_settings

    words = list(sys.argv[1:] if argv is None else argv)
    helping = any(word == "-h" or word.startswith("--h") for word in words)
    # The strings under the fields explain them; to read the sources for these takes longer than to parse the flags.
    set_parsing_settings(docstring_parse_attribute_docstrings=helping)
    parser = ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below; flags override it")
    if positional:
        parser.add_argument(
            positional, nargs="+", type=str, help=_field_help(config_class, positional) if helping else ""
        )
    parser.add_class_arguments(config_class, skip={positional} if positional else set())
    switches = {f"--{field.name}" for field in dataclasses.fields(config_class) if field.type in ("bool", bool)}
    try:
        arguments = parser.parse_args(_normalised(words, switches))
    except ArgumentError as error:
        print(f"error: {_in_one_sentence(str(error))} (--help explains the settings)", file=sys.stderr)
        sys.exit(2)
    values = arguments.as_dict()
    names = {field.name for field in dataclasses.fields(config_class)}
    return config_class(**{name: value for name, value in values.items() if name in names})


def _normalised(argv: Sequence[str], switches: set[str]) -> list[str]:
    """Dashes in flag names to underscores, and a bare switch to `switch=true`, which jsonargparse asks for."""
    normalised = []
    for argument, following in pairwise([*argv, "--"]):
        flag, equals, value = argument.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
        bare = flag in switches and not equals and following.lower() not in ("true", "false")
        normalised.append(f"{flag}=true" if bare else flag + equals + value)
    return normalised


def _in_one_sentence(complaint: str) -> str:
    """What jsonargparse says of a setting over several lines."""
    key, choices = re.match(r'Parser key "(\w+)"', complaint), re.search(r"typing\.Literal\[(.+?)\]", complaint)
    value = re.search(r"(?:Given|Got) value: (.*)", complaint)
    if not key or not value:
        return " ".join(complaint.removeprefix('Parser key "config": ').split())
    return f"--{key[1]} cannot be {value[1]}" + (f": choose from {choices[1]}" if choices else "")


def _field_help(config_class: type, name: str) -> str:
    from docstring_parser import parse_from_object

    return next((p.description or "" for p in parse_from_object(config_class).params if p.arg_name == name), "")


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST)


def run(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and leave the process with its exit code.

    A `UserError`, a full disk or a file out of reach is printed as one sentence (exit code 1), Ctrl-C ends with exit
    code 130; none shows a traceback.
    """
    try:
        code = main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output, `head` for instance, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno in FULL:
            print(f"error: there is no room to write ({error}): make room and run it again", file=sys.stderr)
        elif error.filename and error.strerror:
            where = printable(error.filename)
            print(f"error: {where} cannot be read or written ({error.strerror}): check the place", file=sys.stderr)
        else:
            raise
        code = 1
    gc.freeze()  # else the interpreter searches all that was imported for cycles once more before it goes: 60 ms
    sys.exit(code or 0)


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


def quicker(weights: Path) -> Path:
    """The .onnx file beside weights, which starts and reads sooner; the weights themselves where there is none."""
    exported = weights.with_suffix(".onnx")
    if not exported.is_file():
        return weights
    # Weights trained anew and not yet exported must not be hidden by the old export.
    newer = weights.is_file() and weights.stat().st_mtime > exported.stat().st_mtime + 60
    return weights if newer else exported


def printable(name: object) -> str:
    """A name as UTF-8 can write it: bytes in a file's name that are none are spelt out."""
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
