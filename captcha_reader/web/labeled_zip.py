"""A zip of labeled captchas: its pictures with their labels."""

from __future__ import annotations

from collections import Counter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from captcha_reader.errors import UserError
from captcha_reader.web.feedback import Row
from captcha_reader.web.uploads import PictureZip

if TYPE_CHECKING:
    from captcha_reader.dataset.labels import LabelFile

LEAST_PICTURES, MOST_PICTURES = 20, 5000
SAME_TEXT = 10  # pictures to a text, on average: more, and their names say something else


def labeled_pictures(source: bytes | str | Path) -> tuple[list[Row], dict[str, int]]:
    """The pictures of a zip with their labels, by make_dataset.py's rules, and how many were left out by reason.

    A labels.csv or labels.txt holds for its folder and the folders below that have none; file names tell the others.

    Raises:
        Refused: the zip cannot be used.
        UserError: too few or too many pictures, or a label file that cannot be read.
    """
    from captcha_reader.dataset.labels import label_from_name

    pictures = PictureZip(source, pictures=MOST_PICTURES + 200, entry_bytes=5_000_000)
    if len(pictures) > MOST_PICTURES:
        raise UserError(f"the zip has {len(pictures):,} pictures: at most {MOST_PICTURES:,} are taken")
    if len(pictures) < LEAST_PICTURES:
        raise UserError(
            f"the zip has {len(pictures)} pictures (PNG, JPEG, GIF, BMP, WebP or TIFF files): {LEAST_PICTURES} are the "
            "least, a few hundred are good"
        )
    label_files = _label_files(pictures)
    rows: list[Row] = []
    named: list[str] = []  # labels from file names
    left_out: Counter[str] = Counter()
    for name, data in pictures.with_damaged():
        path = PurePosixPath(name)
        labels = next((label_files[folder] for folder in path.parents if folder in label_files), None)
        text = labels.take(path) if labels else label_from_name(path.name)
        if text is None:
            left_out["not in the label file"] += 1
        elif isinstance(data, UserError):
            left_out["unreadable image"] += 1
        else:
            rows.append((data, text))
            if labels is None:
                named.append(text)
    for labels in label_files.values():
        if missing := sum(1 for _ in labels.missing()):
            left_out["missing image file"] += missing
    texts = sorted(set(named))
    if len(texts) * SAME_TEXT < len(named):
        shown = ", ".join(repr(text) for text in texts[:3])
        raise UserError(
            f"the file names give {len(named)} pictures only {len(texts)} different text"
            f"{'s' if len(texts) != 1 else ''} ({shown}): name each picture by what it says (aB3x_1.png), or add a "
            "labels.csv"
        )
    if len(rows) < LEAST_PICTURES:
        why = ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        raise UserError(
            f"{len(rows)} of the zip's pictures have a label and can be read: {LEAST_PICTURES} are the least ({why})"
        )
    return rows, dict(left_out)


def _label_files(pictures: PictureZip) -> dict[PurePosixPath, LabelFile]:
    """The label files of a zip by their folders."""
    from captcha_reader.dataset.labels import LabelFile

    found: dict[PurePosixPath, LabelFile] = {}
    for name, data in pictures.label_files():
        path = PurePosixPath(name)
        if path.parent in found:
            raise UserError(f"{path} is not the only label file of its folder: keep either labels.csv or labels.txt")
        found[path.parent] = LabelFile(path, data)
    return found
