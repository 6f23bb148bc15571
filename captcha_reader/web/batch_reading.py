"""Many pictures read in one go: uploads and zips in, readings out, of one model or of two that are compared."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from captcha_reader.dataset.labels import label_from_name
from captcha_reader.errors import UserError
from captcha_reader.files import csv_safe
from captcha_reader.images import OTHER_FORMAT
from captcha_reader.reading.collection import read_together
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.metrics import text_metrics
from captcha_reader.web.labeled_zip import unread_pictures
from captcha_reader.web.uploads import PictureZip, check_picture, is_zip
from captcha_reader.web.workshop import upload_bytes

BATCH_PICTURES = 2000
BATCH_CHUNK = 32  # pictures read between two steps of the progress bar
ALIKE = 0.5  # of a name's characters, and of the names: from here on, file names are taken for labels
SMALL = (320, 200)  # pixels of a picture in the grid


@dataclasses.dataclass
class Batch:
    """Pictures that were read.

    Attributes:
        rows: `file`, `reading`, `confidence`, `prediction`, `picture`, `label` and `right` by the file's name, and
            `other`, the reading of the second model, where two are compared.
        refused: file and reason of what could not be read.
        labeled: whether the file names are taken for labels.
        scheme: what all have in common, where they were read together.
        constraints: what was known of the texts. Where case does not matter, labels are in the case of the readings.
        misfit: what shows that it is wrong, where the file names were found to be labels and some do not fit it.
    """

    rows: list[dict[str, Any]]
    refused: list[tuple[str, str]]
    labeled: bool = False
    scheme: str = ""
    constraints: Constraints | None = None
    misfit: str = ""


def iter_pictures(files: Sequence[str | Path]) -> Iterator[tuple[str, bytes | UserError]]:
    """Names and bytes of uploads, with the pictures of zips in their place; an error where one cannot be had.

    Raises:
        UserError: there are too many.
    """
    count = 0
    for file in files:
        name = Path(file).name
        try:
            data = upload_bytes(file)
            pictures: Iterable[tuple[str, bytes | UserError]] = [(name, data)]
            if is_zip(data):
                packed = PictureZip(data, BATCH_PICTURES)
                if not len(packed):
                    raise UserError("the zip has no picture: PNG, JPEG, GIF, BMP, WebP and TIFF files are read")
                others = [(entry, UserError(f"{OTHER_FORMAT}: save it as PNG or JPEG")) for entry in _others(packed)]
                pictures = chain(packed.with_damaged(), others)
            for entry, content in pictures:
                count += 1
                if count > BATCH_PICTURES:
                    raise OverflowError
                yield entry, content
        except OverflowError:
            raise _too_many() from None
        except UserError as error:
            yield name, error


def _others(packed: PictureZip) -> list[str]:
    """Pictures of a zip that are not read; those of a zip without any other are not told one by one."""
    return unread_pictures(packed.others) if len(packed) else []


def count_pictures(files: Sequence[str | Path]) -> int:
    """How many pictures `iter_pictures` will give, for the progress bar.

    Raises:
        UserError: there are too many, which is said before the first of them is read.
    """
    total = sum(len(names) + others for names, others in map(_contents, files))
    if total > BATCH_PICTURES:
        raise _too_many()
    return total


def _contents(file: str | Path) -> tuple[list[str], int]:
    """The names of the pictures that an upload holds, and of how many other files it will be said that they are not
    read; itself, where it cannot be used."""
    try:
        data = upload_bytes(file)
        if not is_zip(data):
            return [Path(file).name], 0
        packed = PictureZip(data, BATCH_PICTURES)
        return (packed.names, len(_others(packed))) if len(packed) else ([], 1)
    except UserError:
        return [], 1


def _too_many() -> UserError:
    return UserError(f"there are more than {BATCH_PICTURES:,} pictures: bring fewer at a time")


class BatchReader:
    """Reads uploads, a chunk at a time; what was read until then can be had at any moment.

    Args:
        predictor: the model.
        other: a second model that reads the same pictures, to compare.
        labels: whether file names carry them: `yes`, `no`, or `auto`, which looks whether readings and names agree.
        together: read the pictures together, as captchas of one source.
        constraints: what is known of the texts; both models are told.

    Raises:
        UserError: the model cannot write what is known.
    """

    def __init__(
        self,
        predictor: Any,
        other: Any = None,
        labels: str = "auto",
        together: bool = False,
        constraints: Constraints | None = None,
    ) -> None:
        self.predictor, self.other, self.labels, self.together = predictor, other, labels, together
        self.constraints = constraints
        self._cases = _cases(constraints, predictor) if constraints and constraints.ignore_case else {}
        self.rows: list[dict[str, Any]] = []
        self.refused: list[tuple[str, str]] = []
        self._waiting: list[tuple[str, bytes, Image.Image]] = []

    def read(self, files: Sequence[str | Path]) -> Iterator[int]:
        """Read pictures and zips of them; gives the number of pictures done, after each chunk.

        Raises:
            UserError: there are too many pictures, or labels that do not fit what is known: no reading could be right.
        """
        if self.labels == "yes" and self.constraints:
            names = [name for file in files for name in _contents(file)[0]]
            self.constraints.check_labels([_label_of(name) for name in names])
        for done, (name, data) in enumerate(iter_pictures(files), start=1):
            try:
                if isinstance(data, UserError):
                    raise data
                self._waiting.append((name, data, check_picture(data)))
            except UserError as error:
                self.refused.append((name, str(error)))
            if len(self._waiting) == BATCH_CHUNK:
                self._read_waiting()
                yield done
        if self._waiting:
            self._read_waiting()

    def _read_waiting(self) -> None:
        pictures = [picture for _, _, picture in self._waiting]
        known: dict[str, Any] = {"constraints": self.constraints} if self.constraints else {}
        settings = known | ({"keep_views": True} if self.together else {})
        readings = self.predictor.read([self.predictor.view(picture) for picture in pictures], **settings)
        others: Sequence[Any] = [None] * len(pictures)
        if self.other is not None:
            others = self.other.read([self.other.view(picture) for picture in pictures], **known)
        for (name, _, picture), prediction, other in zip(self._waiting, readings, others, strict=True):
            picture.thumbnail(SMALL)
            row = {"file": name, "prediction": prediction, "picture": picture}
            self.rows.append(row | ({} if other is None else {"other": other.text}))
        self._waiting.clear()

    def batch(self) -> Batch:
        """What was read, least sure first; where two models are compared, what they read differently comes first."""
        rows, scheme = [dict(row) for row in self.rows], ""
        if self.together and rows:
            found, learned = read_together([row["prediction"] for row in rows], self.constraints)
            scheme = str(learned)
            for row, prediction in zip(rows, found, strict=True):
                row["prediction"] = prediction
        for row in rows:
            row |= {"reading": row["prediction"].text, "confidence": row["prediction"].confidence}
            row["label"] = _label_of(row["file"]).translate(self._cases)
            row["right"] = row["label"] == row["reading"]
        labeled = self.labels == "yes" or (self.labels == "auto" and _names_are_labels(rows))
        rows.sort(key=lambda row: (row.get("other", row["reading"]) == row["reading"], row["confidence"]))
        misfit = self._misfit([row["label"] for row in rows]) if labeled else ""
        return Batch(rows, list(self.refused), labeled, scheme, self.constraints, misfit)

    def _misfit(self, labels: Sequence[str]) -> str:
        """Why the labels show that what is known is wrong; the readings are wanted all the same."""
        try:
            if self.constraints:
                self.constraints.check_labels(labels)
        except UserError as error:
            return str(error)
        return ""


def _label_of(name: str) -> str:
    return label_from_name(Path(name).name)


def _cases(constraints: Constraints, predictor: Any) -> dict[int, str]:
    """Where case does not matter: to each character that differs from it in case alone, the one that is answered."""
    limits = constraints.limits(predictor.alphabet)
    answers = limits.alphabet.characters if limits else ""
    return {ord(c): answer for answer in answers for c in (answer.lower(), answer.upper()) if len(c) == 1}


def _names_are_labels(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether half of the names or more have half of their characters, in order, in common with their reading."""

    def alike(row: dict[str, Any]) -> bool:
        label, reading = row["label"].casefold(), row["reading"].casefold()
        return SequenceMatcher(None, label, reading, False).ratio() >= ALIKE

    return bool(rows) and sum(map(alike, rows)) >= ALIKE * len(rows)


def compare(batch: Batch, first: str, second: str) -> dict[str, Any]:
    """What two models read of the same pictures, side by side.

    Args:
        batch: with `other` in its rows.
        first: what the page calls the model of `reading`.
        second: that of `other`.

    Returns:
        `first`, `second`, `same` (how many pictures they read alike) and, where there are labels, `models` (name,
        figures, how many it alone reads right) and `verdict`, a sentence.
    """
    rows = batch.rows
    found: dict[str, Any] = {"first": first, "second": second, "models": [], "verdict": ""}
    found["same"] = sum(row["reading"] == row["other"] for row in rows)
    if batch.labeled and rows:
        labels = [row["label"] for row in rows]
        alone = [
            sum(row["right"] and row["other"] != row["label"] for row in rows),
            sum(not row["right"] and row["other"] == row["label"] for row in rows),
        ]
        for name, key, count in ((first, "reading", alone[0]), (second, "other", alone[1])):
            found["models"].append((name, text_metrics(labels, [row[key] for row in rows]), count))
        better = first if alone[0] > alone[1] else second
        p = sign_test(*alone)
        found["verdict"] = (
            f"{better} is better beyond chance (sign test, p = {p:.2g})."
            if p < 0.05
            else f"So few differences may be chance (sign test, p = {p:.2g}): more pictures would tell."
        )
    return found


def sign_test(a: int, b: int) -> float:
    """Two-sided exact probability that `a` wins and `b` losses, or a more uneven result, come by chance."""
    n = a + b
    tail = sum(math.comb(n, k) for k in range(min(a, b) + 1)) / 2**n
    return min(1.0, 2 * tail)


def batch_files(batch: Batch) -> tuple[bytes, bytes]:
    """All readings as a CSV file and as a JSON file, refused files with their reasons at the end."""
    rows = [_plain(row, batch.labeled) for row in batch.rows]
    columns = [*(rows[0] if rows else {"file": ""}), "error"]
    rows += [{"file": name, "error": why} for name, why in batch.refused]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, restval="")
    writer.writeheader()
    writer.writerows({key: csv_safe(str(value)) for key, value in row.items()} for row in rows)
    return table.getvalue().encode(), json.dumps(rows, ensure_ascii=False).encode()


def _plain(row: dict[str, Any], labeled: bool) -> dict[str, Any]:
    plain = {"file": row["file"], "reading": row["reading"], "confidence": round(row["confidence"], 6)}
    plain |= {"other": row["other"]} if "other" in row else {}
    return plain | ({"label": row["label"], "right": row["right"]} if labeled else {})
