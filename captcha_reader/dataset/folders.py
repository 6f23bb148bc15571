"""What `data/` means, what a finished dataset folder looks like, and how one takes the place of another."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captcha_reader.dataset.split import SPLITS
from captcha_reader.errors import UserError
from captcha_reader.files import COPIES, lock_file, relative_paths

INFO_NAME = "dataset.json"
REJECTS_NAME = "rejects.jsonl"
FORMAT = "captcha-dataset-1"
GENERATED, FEEDBACK = "generated", "feedback"  # the folders below data/ for what we draw, and for corrected readings


def found_in(folder: Path) -> list[Path]:
    """What the user has put into data/: everything but the README, hidden files and what we generated. Readings that
    were corrected on the page are part of it, but no data of their own: one may be there by the way."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [p for p in entries if p.name not in {"README.md", GENERATED} and not p.name.startswith(".")]
    return [] if [p.name for p in found] == [FEEDBACK] else found


def is_dataset(folder: str | Path) -> bool:
    """Whether `make_dataset` made this folder."""
    try:
        load_info(folder)
    except UserError:
        return False
    return True


def load_info(folder: str | Path) -> dict[str, Any]:
    """What the `dataset.json` of a folder made by `make_dataset` holds.

    Raises:
        UserError: `folder` is no such folder.
    """
    path = Path(folder) / INFO_NAME
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if not _is_info(info):
            raise ValueError
    except (OSError, ValueError, RecursionError):
        raise UserError(f"{folder} is not a dataset (no valid {INFO_NAME}): make one with make_dataset.py") from None
    return info


def _is_info(info: Any) -> bool:
    """Whether this is what `make_dataset` writes: every name that is used anywhere, of its type and range."""
    counted = ("unused", "max_length", "read")
    return (
        isinstance(info, dict)
        and info.get("format") == FORMAT
        and isinstance(info.get("sources"), list)
        and all(isinstance(source, str) for source in info["sources"])
        and all(isinstance(info.get(name), str) for name in ("split", "alphabet", "fingerprint"))
        and type(info.get("seed")) is int
        and all(_is_count(info.get(name)) for name in counted)
        and isinstance(info.get("counts"), dict)
        and info["counts"].keys() == set(SPLITS)
        and all(map(_is_count, info["counts"].values()))
        and isinstance(info.get("lengths"), dict)
        and all(key.isdecimal() and _is_count(value) for key, value in info["lengths"].items())
        and isinstance(info.get("settings"), dict)
        and isinstance(info.get("rejects"), dict)
        and _is_count(info["rejects"].get("total"))
        and isinstance(info["rejects"].get("counts"), dict)
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Yield a hidden folder beside `out` to build in; it takes the place of `out` if all goes well.

    A kill at any moment leaves the old dataset or the new one: they are exchanged by one rename where the system can do
    that. Where it cannot, a kill between two renames leaves `out` missing and the old dataset under a hidden name, and
    whoever comes next moves it back before anything else is looked at.

    Raises:
        UserError: another process writes there, or `out` is none of our datasets.
    """
    building, old = out.with_name(f".{out.name}.building"), out.with_name(f".{out.name}.old")
    out.parent.mkdir(parents=True, exist_ok=True)
    lock_path = out.with_name(f".{out.name}.lock")
    with lock_path.open("w") as lock:
        if not lock_file(lock):
            raise UserError(f"another make_dataset.py is writing {_shown(out)}: wait for it or choose another --out")
        try:
            if old.exists() and not out.exists():
                old.rename(out)
            _refuse_foreign(out)
            shutil.rmtree(building, ignore_errors=True)  # left by a kill
            building.mkdir()
            yield building
            _refuse_foreign(out)
            shutil.rmtree(old, ignore_errors=True)
            if not out.exists():
                building.rename(out)
            elif not exchange(building, out):
                out.rename(old)
                building.rename(out)
                shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(building, ignore_errors=True)
            with contextlib.suppress(PermissionError):  # Windows removes no open file
                lock_path.unlink(missing_ok=True)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system or its file system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):  # not Linux
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of <fcntl.h> and <linux/fs.h>
    return rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0


def refuse_other_sources(out: Path, sources: Sequence[str]) -> None:
    """What was made of sources that are not among these cannot be made again from them.

    Raises:
        UserError: `out` holds such a dataset.
    """
    if is_dataset(out) and (others := sorted(set(load_info(out)["sources"]) - set(sources))):
        raise UserError(
            f"{_shown(out)} holds a dataset made of {', '.join(others)}: choose another --out, or --overwrite to "
            "replace it"
        )


def _refuse_foreign(out: Path) -> None:
    """Only a folder that holds nothing but what this script writes may be replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{_shown(out)} is a file: choose another --out")
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if not OUR_FILES.fullmatch(name) and not _holds_copies(out / name)]
    if foreign or (names and not is_dataset(out)):
        what = f"holds {foreign[0]}" if foreign else f"has no valid {INFO_NAME}"
        raise UserError(
            f"{_shown(out)} {what}, so it is not a dataset to replace: choose another --out or empty the folder"
        )


def _holds_copies(path: Path) -> bool:
    """Whether this is the hidden folder of copies that reading a dataset leaves in it, with nothing else there."""
    return path.name == COPIES.parts[0] and path.is_dir() and [p.name for p in path.iterdir()] == [COPIES.parts[1]]


OUR_FILES = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}-of-\d{{5,}}\.parquet|{INFO_NAME}|{REJECTS_NAME}")


def _shown(path: Path) -> str:
    return relative_paths(str(path))
