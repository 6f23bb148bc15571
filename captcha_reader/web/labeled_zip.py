"""A zip of labeled captchas: its pictures with their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from captcha_reader.dataset.samples import Reject
from captcha_reader.errors import UserError
from captcha_reader.images import OTHER_FORMAT, OTHER_SUFFIXES
from captcha_reader.web.feedback import Row
from captcha_reader.web.uploads import PictureZip

LEAST_PICTURES, MOST_PICTURES = 20, 5000


def unread_pictures(names: Iterable[str]) -> list[str]:
    """Of the names of files, those of pictures of a format that is not read, which make_dataset.py tells, too."""
    return [name for name in names if PurePosixPath(name).suffix.lower() in OTHER_SUFFIXES]


def labeled_pictures(source: bytes | str | Path) -> tuple[list[Row], dict[str, int]]:
    """The pictures of a zip with their labels, by make_dataset.py's rules, and how many were left out by reason.

    A table of labels anywhere in the zip wins, or a text file for each picture; file names tell the others.

    Raises:
        Refused: the zip cannot be used.
        UserError: too few or too many pictures, or a label file that cannot be read.
    """
    pictures = PictureZip(source, pictures=MOST_PICTURES + 200, entry_bytes=5_000_000)
    if len(pictures) > MOST_PICTURES:
        raise UserError(f"the zip has {len(pictures):,} pictures: at most {MOST_PICTURES:,} are taken")
    if len(pictures) < LEAST_PICTURES:
        raise UserError(
            f"the zip has {len(pictures)} pictures (PNG, JPEG, GIF, BMP, WebP or TIFF files): {LEAST_PICTURES} are the "
            "least, a few hundred are good"
        )
    labels = pictures.find_labels()
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    for name, data in pictures.with_damaged():
        text = labels.take(name)
        if isinstance(text, Reject):
            left_out[text.reason] += 1
        elif isinstance(data, UserError):
            left_out["unreadable image"] += 1
        elif labels.is_pseudo(name):  # the training measures itself on its labels
            left_out["pseudo-label"] += 1
        else:
            rows.append((data, text))
    left_out.update(reject.reason for reject in labels.missing())
    if other := len(unread_pictures(pictures.others)):
        left_out[OTHER_FORMAT] = other
    if len(rows) < LEAST_PICTURES:
        why = ", ".join(f"{n} {reason}" for reason, n in left_out.items())
        raise UserError(
            f"{len(rows)} of the zip's pictures have a label and can be read: {LEAST_PICTURES} are the least ({why})"
        )
    return rows, dict(left_out)
