"""The files that labels are exported to: a parquet table, a folder's `labels.csv`, a zip of such a folder."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path
from typing import Literal

from captcha_reader.files import write_atomically

FOLDER_COLUMNS = ("file_name", "text", "source")  # of the labels.csv of an exported folder
Form = Literal["parquet", "folder", "zip"]
Row = tuple[Path, str, str]  # the picture, its label, and who gave it: `person` or `model`


def write_parquet(out: Path, rows: list[Row]) -> None:
    """A table of the columns image, text and source."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from captcha_reader.dataset.writer import MARKED_SCHEMA

    images = [{"bytes": path.read_bytes(), "path": path.name} for path, _, _ in rows]
    columns = {"image": images, "text": [text for _, text, _ in rows], "source": [source for _, _, source in rows]}
    table = pa.table(columns, schema=MARKED_SCHEMA)
    write_atomically(out, lambda temporary: pq.write_table(table, temporary, compression="none"))


def table_text(rows: list[tuple[str, str, str]]) -> str:
    """The text of a `labels.csv`, of (file name, label, who gave it)."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(FOLDER_COLUMNS)
    writer.writerows(rows)
    return buffer.getvalue()


def write_zip(path: Path, rows: list[Row]) -> None:
    """The pictures and their `labels.csv`, unpacked side by side."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("labels.csv", table_text([(path.name, text, source) for path, text, source in rows]))
        for picture, _, _ in rows:
            file.write(picture, picture.name)
