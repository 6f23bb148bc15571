"""The folder of a set: its pictures, and `set.json`, which says what it is."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, get_args

from captcha_reader.errors import UserError
from captcha_reader.files import write_text
from captcha_reader.images import IMAGE_SUFFIXES, open_image
from captcha_reader.labeling.records import Order

FORMAT = "captcha-labels-1"
SET, PICTURES = "set.json", "pictures"
MAX_PICTURES = 5000  # of one set
MIN_PICTURES = 10


@dataclass(frozen=True)
class SetInfo:
    """What `set.json` says.

    Attributes:
        name: for people.
        seed: of the order.
        ignore_case: whether `a` and `A` are the same answer.
        order: in which the pictures are asked.
        known: what is known of the captcha.
        pictures: (file in the folder, name that it had) of each.
    """

    name: str
    seed: int
    ignore_case: bool
    order: Order
    known: dict[str, Any]
    pictures: list[tuple[str, str]]

    @classmethod
    def load(cls, folder: Path) -> SetInfo:
        """Raises UserError where the folder is no set."""
        try:
            info = json.loads((folder / SET).read_text(encoding="utf-8"))
            order = info.get("order", "unsure")
            if info["format"] != FORMAT or order not in get_args(Order):
                raise ValueError
            pictures = [(str(row["file"]), str(row["name"])) for row in info["pictures"]]
            return cls(
                str(info["name"]), int(info["seed"]), bool(info["ignore_case"]), order, dict(info["known"]), pictures
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{folder} is no set of pictures to label: start a new one") from None

    def save(self, folder: Path) -> None:
        """Write it last: until it is there, the folder is no set."""
        info = {"format": FORMAT, "name": self.name, "seed": self.seed, "ignore_case": self.ignore_case}
        info |= {"order": self.order, "known": self.known}
        info |= {"pictures": [{"file": file, "name": name} for file, name in self.pictures]}
        if hasattr(os, "sync"):  # once for all pictures
            os.sync()
        write_text(folder / SET, json.dumps(info, ensure_ascii=False, indent=1))


def write_pictures(
    folder: Path, pictures: Iterable[tuple[str, bytes]], on_skip: Callable[[str], None] | None = None
) -> list[tuple[str, str]]:
    """Write the pictures of a new set, copies once.

    Args:
        folder: of the set.
        pictures: (file name, encoded picture).
        on_skip: is told why a picture is left out: it cannot be read, which is an error without it, or is a copy.

    Returns:
        (file in the folder, name that it had) of each; the file is called by its content.

    Raises:
        UserError: too few or too many pictures, or one that cannot be read.
    """
    rows: dict[str, tuple[str, str]] = {}
    for file_name, data in pictures:
        try:
            open_image(data, file_name)
        except UserError as error:
            if on_skip is None:
                raise
            on_skip(str(error))
            continue
        id_ = hashlib.sha256(data).hexdigest()[:16]
        suffix = PurePosixPath(file_name).suffix.lower()
        file = id_ + (suffix if suffix in IMAGE_SUFFIXES else ".png")
        if id_ not in rows:
            if len(rows) == MAX_PICTURES:
                raise UserError(f"these are more than {MAX_PICTURES:,} pictures: label a part of them")
            (folder / PICTURES).mkdir(parents=True, exist_ok=True)
            (folder / PICTURES / file).write_bytes(data)
            rows[id_] = (file, PurePosixPath(file_name).name)
        elif on_skip is not None:
            on_skip(f"{PurePosixPath(file_name).name} is the same picture as {rows[id_][1]}")
    if len(rows) < MIN_PICTURES:
        raise UserError(f"these are {len(rows)} different pictures: {MIN_PICTURES} are the least")
    return list(rows.values())
