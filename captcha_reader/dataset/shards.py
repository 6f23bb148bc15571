"""Read parquet shards of labeled pictures: any process can open a part of one by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captcha_reader.dataset.writer import ROW_GROUP_ROWS, SCHEMA, record_batch
from captcha_reader.errors import UserError

TEXT_COLUMNS = ("text", "label", "caption")
CHUNK_ROWS = 1024
CHUNK_BYTES = 8 << 20
PART_ROWS = 2048  # what a process is given at a time


@dataclass(frozen=True)
class Shard:
    """Rows of a parquet file from the start of a row group on, which any process can read by itself.

    Attributes:
        path: the file.
        image: name of the pictures' column, `image.bytes` where they stand in a struct.
        text: name of the labels' column.
        stamp: size and time of the file, by which a change is noticed.
        first_group: number of the first row group.
        group_rows: rows of each row group from there on.
        start: number of the first row.
        rows: how many there are.
        split: of SPLITS the one in which its source has them, where it says so.
    """

    path: Path
    image: str
    text: str
    stamp: tuple[int, int]
    first_group: int
    group_rows: tuple[int, ...]
    start: int
    rows: int
    split: str | None = None

    @classmethod
    def open(cls, path: Path) -> Shard:
        """All rows of a file.

        Raises:
            UserError: it cannot be read or has not the columns that are needed.
        """
        stamp = _stamp(path)
        with open_parquet(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
        image, text = find_columns(schema.names, str(path))
        image_type, text_type = schema.field(image).type, schema.field(text).type
        binary = image_type
        if pa.types.is_struct(image_type) and "bytes" in [field.name for field in image_type]:
            binary = image_type.field("bytes").type
            image = "image.bytes"
        if not (pa.types.is_binary(binary) or pa.types.is_large_binary(binary)):
            raise UserError(f"the column image of {path} holds {image_type}: it must hold the bytes of picture files")
        if pa.types.is_dictionary(text_type):
            text_type = text_type.value_type
        if not (pa.types.is_string(text_type) or pa.types.is_large_string(text_type) or pa.types.is_null(text_type)):
            raise UserError(
                f"the column {text} of {path} holds {text_type}: store labels as strings (numbers lose zeros)"
            )
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        return cls(path, image, text, stamp, 0, groups, 0, metadata.num_rows)

    def parts(self) -> Iterator[Shard]:
        """Cut at the ends of row groups, so that each part has about PART_ROWS rows."""
        first = start = rows = 0
        for last, count in enumerate(self.group_rows):
            rows = min(rows + count, self.rows - start)
            if rows >= PART_ROWS or (rows and start + rows == self.rows):
                groups = self.group_rows[first : last + 1]
                yield replace(self, first_group=first, group_rows=groups, start=start, rows=rows)
                first, start, rows = last + 1, start + rows, 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, a few at a time, in the columns of SCHEMA without nulls; `path` is the file and the row.

        Raises:
            UserError: the file is broken, or has changed since `open`.
        """
        groups = range(self.first_group, self.first_group + len(self.group_rows))
        row, end = self.start, self.start + self.rows
        with open_parquet(self.path) as file:
            size = sum(file.metadata.row_group(group).total_byte_size for group in groups)
            chunk_rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES * sum(self.group_rows) // max(size, 1)))
            columns = [self.image, self.text]
            for batch in read_batches(
                file, self.path, row, batch_size=chunk_rows, row_groups=groups, columns=columns, use_threads=False
            ):
                batch = batch.slice(0, end - row)
                images, texts = batch.column("image"), batch.column(self.text)
                images = images.field("bytes") if self.image == "image.bytes" else images
                images, texts = images.cast(pa.binary()), texts.cast(pa.string())
                try:
                    texts.validate(full=True)
                except pa.ArrowException:
                    where = f"rows {row} to {row + batch.num_rows - 1} of {self.path}"
                    raise UserError(f"{where} hold a label that is not UTF-8: save the labels as UTF-8") from None
                numbers = pa.array(range(row, row + batch.num_rows)).cast(pa.string())
                yield record_batch(  # fill_null copies even where there is nothing to fill
                    images.fill_null(b"") if images.null_count else images,
                    pc.binary_join_element_wise(f"{self.path} row", numbers, " "),
                    texts.fill_null("") if texts.null_count else texts,
                )
                row += batch.num_rows
                if row == end:
                    break
        if _stamp(self.path) != self.stamp:
            raise UserError(f"{self.path} has changed while it was read: start again when nothing writes to it")


@dataclass(frozen=True)
class Spilled:
    """Rows in the temporary file: a message of Arrow's, in the columns of SCHEMA."""

    file: Path
    offset: int
    size: int
    rows: int
    split: str | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All of them at once."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            yield pa.ipc.read_record_batch(pa.py_buffer(file.read(self.size)), SCHEMA)


def open_parquet(path: Path) -> pq.ParquetFile:
    try:
        # A buffer and no pre-buffering: else a row group, which may be the whole file, would be read at once.
        return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable parquet file ({first_line(error)}): replace or remove it") from None


def read_batches(file: pq.ParquetFile, path: Path, row: int = 0, **settings: Any) -> Iterator[pa.RecordBatch]:
    """The rows of a shard, a few at a time; `row` is the number of the first, `settings` are those of iter_batches."""
    batches = file.iter_batches(**{"batch_size": ROW_GROUP_ROWS // 4} | settings)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is broken after row {row} ({first_line(error)}): replace or remove it") from None
        if batch is None:
            return
        yield batch
        row += batch.num_rows


def find_columns(names: Sequence[str], where: str) -> tuple[str, str]:
    """Names of the image and the label column."""
    text = next((name for name in TEXT_COLUMNS if name in names), None)
    if "image" not in names or text is None:
        raise UserError(
            f"{where} has the columns {', '.join(names) or '(none)'}: name the pictures' column `image` and the "
            "labels' column `text`, `label` or `caption`"
        )
    return "image", text


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:200]
