"""Read a table of labels: CSV, lines of `name label`, or JSON lines. The work grows with the size of the table alone.

labels.csv, gt.csv     filename,label                   or without a header, two columns
metadata.csv           file_name,text                   an image folder of the Hugging Face Hub
labels.csv             file_name,text,source            as the tab Label exports: `model` marks pseudo-labels
metadata.jsonl         {"file_name": "1.png", "text": "aB3x"}
labels.txt             1.png aB3x
gt.txt                 1.png, "aB3x"                    ICDAR; or a tab between, as PaddleOCR's rec_gt_train.txt
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from captcha_reader.dataset.shards import TEXT_COLUMNS
from captcha_reader.dataset.writer import MODEL, SOURCE_COLUMN
from captcha_reader.errors import UserError
from captcha_reader.files import csv_safe

TABLE_NAME = re.compile(r"(labels|gt)\.(csv|tsv|txt|jsonl)|metadata\.(csv|jsonl)|rec_gt\w*\.txt", re.IGNORECASE)
"""What the file name of a table that is read looks like."""

MAX_LINE = 10_000  # characters; more is no line of a table of labels
NAME_COLUMNS = (
    *("filename", "file_name", "file", "image", "path", "name"),
    *("image_name", "image_path", "file_path", "filepath", "img", "picture"),
)
LABEL_COLUMNS = (*TEXT_COLUMNS, "labels", "transcription", "ground_truth", "word", "captcha", "solution", "answer")
QUOTES = (('"', '"'), ("'", "'"), ("`", "`"), ("“", "”"), ("‘", "’"))
# A name may hold spaces, so its suffix ends it where there is one.
SUFFIX_END = re.compile(r"\.(?:png|jpe?g|jfif|gif|bmp|webp|tiff?)(?=[\s,;]|$)", re.IGNORECASE)
SEPARATOR = re.compile(r"[\s,]+")


@dataclass(frozen=True)
class Entry:
    """A line of a table: its number, counted from 1, the picture's name, the label, and whether a model gave it."""

    line: int
    name: str
    label: str
    pseudo: bool = False


def is_table(file_name: str) -> bool:
    """Whether a file of that name is read as a table of labels."""
    return TABLE_NAME.fullmatch(file_name) is not None


def parse_table(data: bytes, path: str) -> list[Entry]:
    """All entries of a table of labels.

    Args:
        data: the file's bytes.
        path: what to call it in messages; its suffix says of which form it is.

    Raises:
        UserError: it is not UTF-8, or a line is none of such a table.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}): save it as UTF-8") from None
    for number, line in enumerate(_lines(text), start=1):
        if len(line) > MAX_LINE:
            raise UserError(
                f"line {number} of {path} has {len(line):,} characters: a table of labels has one picture a line"
            )
    suffix = path.lower().rpartition(".")[2]
    if suffix == "jsonl":
        entries = list(_json_lines(text, path))
    elif suffix == "txt":
        entries = list(_text_lines(text, path))
    else:
        entries = list(_csv_lines(text, path, "\t" if suffix == "tsv" else None))
    return _without_quotes(entries)


def unquote(label: str) -> str:
    """A label without the double quotes around it, as ICDAR writes them, in which a backslash may stand before one."""
    label = label.strip()
    if len(label) >= 2 and label[0] == label[-1] == '"':
        return label[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return label


def _lines(text: str) -> Iterator[str]:
    """Lines that end with a line feed, a carriage return, or both."""
    return iter(io.StringIO(text, newline=None))


def _csv_lines(text: str, path: str, delimiter: str | None) -> Iterator[Entry]:
    lines = list(io.StringIO(text, newline=""))
    skipped = 0
    while skipped < len(lines) and not lines[skipped].strip(" \t\r\n;,"):
        skipped += 1
    # Excel's own first line names the delimiter.
    if skipped < len(lines) and (said := re.fullmatch(r'"?sep=(.)"?', lines[skipped].strip("\r\n"), re.IGNORECASE)):
        delimiter = said[1]
        skipped += 1
    first = next((line for line in lines[skipped:] if line.strip()), "")
    delimiter = delimiter or next((d for d in ",;\t" if d in first), ",")
    name_at, label_at, width, source_at = 0, 1, 2, None
    is_first = True
    reader = csv.reader(lines[skipped:], delimiter=delimiter, skipinitialspace=True)
    try:
        for row in reader:
            number = skipped + reader.line_num
            if not any(cell.strip() for cell in row):
                continue
            if is_first and (columns := _header(row, path)):
                (name_at, label_at), width = columns, len(row)
                cells = [cell.strip().lower() for cell in row]
                source_at = cells.index(SOURCE_COLUMN) if SOURCE_COLUMN in cells else None
                is_first = False
                continue
            is_first = False
            if not max(name_at, label_at) < len(row) <= width:
                raise UserError(
                    f"line {number} of {path} has {len(row)} columns, not {width}: put a name or label with a comma "
                    "into quotes, and other columns under a header such as filename,label,who"
                )
            name, label = _cell(row[name_at]), _cell(row[label_at])
            if "\n" in name + label or "\r" in name + label:
                raise UserError(f"line {number} of {path} ends in the middle of a quoted cell: close the quotes")
            pseudo = source_at is not None and source_at < len(row) and row[source_at].strip() == MODEL
            yield Entry(number, name, label, pseudo)
    except csv.Error as error:
        number = skipped + reader.line_num
        raise UserError(f"{path} is not proper CSV ({error}): correct line {number}") from None


def _cell(text: str) -> str:
    """A cell without what a spreadsheet, or our own CSV files, put around it: `="0012"` is 0012, and `'=1` is =1."""
    text = text.strip()
    if len(text) >= 3 and text.startswith('="') and text.endswith('"'):
        return text[2:-1].replace('""', '"')
    return text[1:] if len(text) > 1 and text == csv_safe(text[1:]) else text


def _header(row: Sequence[str], path: str) -> tuple[int, int] | None:
    """Positions of the name and label columns where `row` is a header.

    Raises:
        UserError: it has a column of names and none of labels.
    """
    cells = [cell.strip().lower() for cell in row]
    name = next((cells.index(n) for n in NAME_COLUMNS if n in cells), None)
    label = next((cells.index(n) for n in LABEL_COLUMNS if n in cells), None)
    if name is None or len(cells) < 2:
        return None
    if label is None and len(cells) > 2:
        raise UserError(
            f"{path} has the columns {', '.join(row)[:200]}: call the column with the labels text, label or caption"
        )
    return name, 1 - name if label is None else label


def _text_lines(text: str, path: str) -> Iterator[Entry]:
    for number, line in enumerate(_lines(text), start=1):
        line = line.strip()
        if not line:
            continue
        if "\t" in line:
            name, _, label = line.partition("\t")
        elif line[0] == '"' and '"' in line[1:]:
            name, _, label = line[1:].partition('"')
        elif found := SUFFIX_END.search(line):
            name, label = line[: found.end()], line[found.end() :]
        elif found := SEPARATOR.search(line):
            name, label = line[: found.start()], line[found.end() :]
        else:
            name, label = line, ""
        name = name.strip(' \t,"')
        if not name:
            raise UserError(f"line {number} of {path} is not `name label`: {line[:80]!r}")
        yield Entry(number, name, unquote(label.removeprefix(";").lstrip(" \t,")))


def _json_lines(text: str, path: str) -> Iterator[Entry]:
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise UserError(f'line {number} of {path} is not like {{"file_name": "1.png", "text": "aB3x"}}: correct it')
        fields = {key.lower(): value for key, value in record.items()}
        name = next((fields[n] for n in NAME_COLUMNS if n in fields), None)
        label = next((fields[n] for n in LABEL_COLUMNS if n in fields), None)
        if not isinstance(name, str):
            raise UserError(f"line {number} of {path} has no file_name: name the picture")
        if any("\ud800" <= character <= "\udfff" for character in f"{name}{label}"):
            raise UserError(f"line {number} of {path} holds half of a character (\\ud800 to \\udfff): correct it")
        if label is not None and not isinstance(label, str):
            raise UserError(
                f"line {number} of {path} has the label {str(label)[:80]}, which is no string: put labels into quotes "
                "(numbers lose zeros)"
            )
        yield Entry(number, name, label or "", fields.get(SOURCE_COLUMN) == MODEL)


def _without_quotes(entries: list[Entry]) -> list[Entry]:
    """The same entries; quotes that stand around every label of a table are no part of the labels."""
    labels = [entry.label for entry in entries if entry.label]
    for opening, closing in QUOTES:
        if labels and all(len(text) >= 2 and text[0] == opening and text[-1] == closing for text in labels):
            return [replace(e, label=e.label[1:-1] if e.label else "") for e in entries]
    return entries
