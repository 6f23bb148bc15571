"""The models that were made on the page: their names, which people give and change, and their removal.

Such a model is a folder among the models, called by its name, with a file that says where it comes from. Models that
were put there in another way are not touched.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import shutil
import time
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from captcha_reader.errors import UserError
from captcha_reader.files import write_text

MARKER = "page.json"
LONGEST_NAME = 40
NAME = re.compile(r"[^\W_]([\w .()+-]*[\w)+-])?")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # by Windows


@dataclass(frozen=True)
class Maker:
    """Who made a model, and of what.

    Attributes:
        owner: the secret of the session; only its hash is written.
        start_name: the model it started from.
        pictures: that it learned from.
    """

    owner: str
    start_name: str
    pictures: int


def write_marker(folder: Path, maker: Maker) -> None:
    """Say in a model's folder that it was made here."""
    made = datetime.now(UTC).isoformat(timespec="seconds")
    said = {"owner": _hash(maker.owner), "start": maker.start_name, "pictures": maker.pictures, "made": made}
    write_text(folder / MARKER, json.dumps(said))


def check_name(text: str) -> str:
    """The name that somebody typed, as the name of a folder.

    Raises:
        UserError: it cannot be one.
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        raise UserError("the name is empty: type one")
    if len(name) > LONGEST_NAME:
        raise UserError(f"the name has {len(name)} characters: use at most {LONGEST_NAME}")
    if not NAME.fullmatch(name) or RESERVED.fullmatch(name):
        raise UserError(
            "the name cannot be used: take letters, digits, spaces and . - _ + ( ), a letter or digit first"
        )
    return name


def free_name(models: Path, name: str) -> str:
    """The name, with a number behind it where a model has it already."""
    taken = {path.name.casefold() for path in models.iterdir()} if models.is_dir() else set()
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name} {number}"
    return free


def folder_of(name: str) -> str | None:
    """The folder of a model by its name on offer: `shop/best.onnx` is in `shop`."""
    folder, slash, _ = name.partition("/")
    return folder if slash and folder else None


def label_of(name: str) -> str:
    """What the chooser shows for a model's name on offer."""
    folder = folder_of(name)
    return f"{folder} ({name.rpartition('.')[2]})" if folder else name.rpartition("/")[2]


def may_change(models: Path, name: str, owner: str, local: bool) -> bool:
    """Whether a session may rename and delete a model: one made on the page, by that session or on this machine.

    Args:
        models: the folder of all.
        name: of the model on offer.
        owner: the secret of the session.
        local: whether the page serves this machine alone.
    """
    folder = folder_of(name)
    if folder is None:
        return False
    try:
        said = json.loads((models / folder / MARKER).read_text(encoding="utf-8"))
        return local or hmac.compare_digest(str(said["owner"]), _hash(owner))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def rename(models: Path, name: str, new: str) -> str:
    """Give a model another name; gives the name on offer that it has now.

    Raises:
        UserError: the name cannot be used or is taken, or the model is gone.
    """
    folder = folder_of(name)
    new = check_name(new)
    assert folder is not None, name
    if new == folder:
        return name
    if new.casefold() != folder.casefold() and free_name(models, new) != new:
        raise UserError(f"there is a model {new!r} already: take another name")
    try:
        (models / folder).rename(models / new)
    except OSError as error:
        raise UserError(f"the model cannot be renamed ({error.strerror or error}): reload the page") from None
    return f"{new}/{name.partition('/')[2]}"


def delete(models: Path, name: str) -> None:
    """Remove a model for good.

    Raises:
        UserError: it cannot be removed.
    """
    folder = folder_of(name)
    assert folder is not None, name
    gone = models / f".removed-{os.getpid()}-{time.time_ns()}"
    try:
        (models / folder).rename(gone)  # at once; what is left of it is offered to nobody
        shutil.rmtree(gone)
    except OSError as error:
        raise UserError(f"the model cannot be removed ({error.strerror or error}): reload the page") from None


def _hash(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()
