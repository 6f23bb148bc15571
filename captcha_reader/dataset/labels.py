"""Where a label comes from: a table of labels, else the file's name; and what makes a label unusable."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath

from captcha_reader.config import DatasetConfig
from captcha_reader.dataset.samples import Reject
from captcha_reader.dataset.shards import TEXT_COLUMNS
from captcha_reader.errors import UserError
from captcha_reader.images import LABEL_FILES
from captcha_reader.text import Alphabet

CAPTION = re.compile(r"[\"']?an?\b.{0,80}\bcaptcha\b.{0,80}\bwith the text\b:?(?P<label>.*)", re.IGNORECASE | re.DOTALL)


def parse_label(text: str) -> str:
    """The label in a raw text: white space around it goes, and a caption gives what stands behind `with the text`.

    Returns:
        The label; empty where there is none, such as for a caption that ends too early.
    """
    text = text.strip()
    if caption := CAPTION.match(text):
        text = caption["label"].strip()
        for opening, closing in ('""', "''", "``", "“”", "‘’"):
            if len(text) >= 2 and text[0] == opening and text[-1] == closing:
                return text[1:-1].strip()
    return text


def label_from_name(name: str) -> str:
    """The label in a picture's file name: `aB3x_0.png`, `aB3x-12.png`, `aB3x (1).png` and `aB3x.png` give `aB3x`."""
    stem = Path(name).stem
    if "_" in stem:
        return stem.partition("_")[0]
    return re.sub(r"(-\d+| \(\d+\))$", "", stem)


def label_fault(raw: str, label: str, alphabet: Alphabet | None, max_length: int) -> tuple[str, str] | None:
    """Reason and detail where a label, cleaned from the text `raw`, cannot be used; None where it can."""
    if not label:
        return ("caption without a label", f"the text is {raw[:200]!r}") if raw.strip() else ("empty label", "")
    if len(label) > max_length:
        return "label too long", f"{label[:200]!r} has {len(label)} characters, more than {max_length}"
    for character in label:
        if not (character in alphabet if alphabet else character.isprintable() and not character.isspace()):
            return "character outside the alphabet", f"{character!r} in {label!r}"
    return None


def clean_labels(texts: list[str], config: DatasetConfig) -> tuple[list[str], dict[int, tuple[str, str]]]:
    """The labels in raw texts, and what is wrong with some of them: their positions, reasons and details."""
    alphabet = None if config.alphabet is None else Alphabet.parse(config.alphabet)
    # Most batches are good as they are. A caption holds spaces, so every label is as `parse_label` would give it.
    characters = set("".join(texts))
    if (
        all(texts)
        and max(map(len, texts)) <= config.max_length
        and not any(label_fault(character, character, alphabet, 1) for character in characters)
    ):
        return texts, {}
    labels = [parse_label(text) for text in texts]
    faults = {}
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if fault := label_fault(text, label, alphabet, config.max_length):
            faults[row] = fault
    return labels, faults


class LabelFile:
    """labels.csv or labels.txt: names of pictures, relative to its folder and with or without suffix, and labels.

    Args:
        path: of the file; it says of which kind it is.
        data: its bytes, where it is not on the disk.

    Raises:
        UserError: it cannot be read, has lines that are none of a label file, or gives a picture two labels.
    """

    def __init__(self, path: PurePath, data: bytes | None = None) -> None:
        self.path = path
        self.labels: dict[str, str] = {}
        self.unused: set[str] = set()
        try:
            text = (Path(path).read_bytes() if data is None else data).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as UTF-8 text ({error}): save it as UTF-8") from None
        rows = self._csv(text) if path.suffix.lower() == ".csv" else self._txt(text)
        for line, name, label in rows:
            name = name.strip().replace("\\", "/").removeprefix("./")
            if self.labels.setdefault(name, label) != label:
                raise UserError(
                    f"line {line} of {path} gives {name} the label {label!r}, which had {self.labels[name]!r} before: "
                    "keep one of the two"
                )
        self.unused = set(self.labels)

    @classmethod
    def find(cls, tables: Sequence[Path]) -> LabelFile | None:
        """The label file among the tables of a folder, its name in capitals or not."""
        found = [path for path in tables if path.name.lower() in LABEL_FILES]
        if len(found) > 1:
            raise UserError(f"{found[0].parent} has both {found[0].name} and {found[1].name}: remove one of them")
        return cls(found[0]) if found else None

    def take(self, picture: PurePath) -> str | None:
        """The label of a picture below this file's folder, or None."""
        name = picture.relative_to(self.path.parent).as_posix()
        for key in (name, name.removesuffix(picture.suffix)):
            if key in self.labels:
                self.unused.discard(key)
                return self.labels[key]
        return None

    def missing(self) -> Iterator[Reject]:
        """The entries that no picture has asked for."""
        for name in sorted(self.unused):
            yield Reject(f"{self.path}: {name}", "missing image file", f"no such picture in {self.path.parent}")

    def _csv(self, text: str) -> Iterator[tuple[int, str, str]]:
        first = next(iter(text.splitlines()), "")
        delimiter = next((d for d in ",;\t" if d in first), ",")
        names, label_at, width = 0, 1, 2
        try:
            reader = csv.reader(text.splitlines(), delimiter=delimiter)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if reader.line_num == 1 and (columns := _header(row)):
                    (names, label_at), width = columns, len(row)
                    continue
                if not max(names, label_at) < len(row) <= width:
                    raise UserError(
                        f"line {reader.line_num} of {self.path} has {len(row)} columns, not {width}: put a name or "
                        "label with a comma into quotes, and other columns under a header such as filename,label,who"
                    )
                yield reader.line_num, row[names], row[label_at]
        except csv.Error as error:
            raise UserError(f"{self.path} is not proper CSV ({error}): correct line {reader.line_num}") from None

    def _txt(self, text: str) -> Iterator[tuple[int, str, str]]:
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            # A name may hold spaces, so its suffix ends it where there is one.
            ends = r"\s*(.+?\.(?:png|jpe?g|gif|bmp|webp|tiff?))(?:[\s,]+(.*))?$"
            match = re.match(ends, line, re.IGNORECASE) or re.match(r"\s*([^\s,]+)(?:[\s,]+(.*))?$", line)
            if not match:
                raise UserError(f"line {number} of {self.path} is not `name label`: {line[:80]!r}")
            yield number, match[1], match[2] or ""


def _header(row: Sequence[str]) -> tuple[int, int] | None:
    """Positions of the name and label columns where `row` is a header."""
    cells = [cell.strip().lower() for cell in row]
    name = next((i for n in ("filename", "file_name", "file", "image", "path", "name") for i in _at(cells, n)), None)
    label = next((i for n in (*TEXT_COLUMNS, "labels") for i in _at(cells, n)), None)
    return None if name is None or label is None else (name, label)


def _at(cells: Sequence[str], name: str) -> list[int]:
    return [cells.index(name)] if name in cells else []
