"""Read parquet shards of labeled pictures: any process can open a part of one by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captcha_reader.dataset.writer import MODEL, ROW_GROUP_ROWS, SCHEMA, SOURCE_COLUMN, record_batch
from captcha_reader.errors import UserError

TEXT_COLUMNS = ("text", "label", "caption")
CHUNK_ROWS = 1024
CHUNK_BYTES = 8 << 20
DICTIONARY_ROWS = 16
NO_STRINGS = "store labels as strings (numbers lose zeros)"
BINARY_TYPES = (
    *(pa.types.is_binary, pa.types.is_large_binary),
    *(pa.types.is_binary_view, pa.types.is_fixed_size_binary),
)
STRING_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
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
        marked: whether a column says who gave each label, see `pseudo`.
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
    marked: bool = False

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
        if pa.types.is_struct(image_type) and [field.name for field in image_type].count("bytes") == 1:
            binary = image_type.field("bytes").type
            image = "image.bytes"
        if not _is_any(binary, BINARY_TYPES):
            raise UserError(f"the column image of {path} holds {image_type}: it must hold the bytes of picture files")
        if not _is_any(text_type, STRING_TYPES):
            raise UserError(f"the column {text} of {path} holds {text_type}: {NO_STRINGS}")
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        if min(groups, default=0) < 0 or sum(groups) != metadata.num_rows:
            raise UserError(f"{path} is not a readable parquet file (its row counts differ): replace or remove it")
        if schema.names.count(SOURCE_COLUMN) > 1:
            raise UserError(f"{path} has two columns {SOURCE_COLUMN}: leave one, which says who gave each label")
        marked = SOURCE_COLUMN in schema.names and _is_any(schema.field(SOURCE_COLUMN).type, STRING_TYPES)
        return cls(path, image, text, stamp, 0, groups, 0, metadata.num_rows, marked=marked)

    def pseudo(self) -> np.ndarray:
        """Which rows of the whole file have a label that a model gave and nobody typed, (N,) bool."""
        if not self.marked:
            return np.zeros(self.start + self.rows, bool)
        with open_parquet(self.path) as file:
            found = [
                source == MODEL
                for batch in read_batches(file, self.path, columns=[SOURCE_COLUMN])
                for source in batch.column(0).to_pylist()
            ]
        return np.array(found, bool)

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
        row, end = self.start, self.start + self.rows
        with open_parquet(self.path) as file:
            for images, texts in self._arrays(file):
                images, texts = images.slice(0, end - row), texts.slice(0, end - row)
                try:
                    texts.validate(full=True)
                except pa.ArrowException:
                    where = f"rows {row} to {row + len(texts) - 1} of {self.path}"
                    raise UserError(f"{where} hold a label that is not UTF-8: save the labels as UTF-8") from None
                numbers = pa.array(range(row, row + len(texts))).cast(pa.string())
                yield record_batch(  # fill_null copies even where there is nothing to fill
                    images.fill_null(b"") if images.null_count else images,
                    pc.binary_join_element_wise(f"{self.path} row", numbers, " "),
                    texts.fill_null("") if texts.null_count else texts,
                )
                row += len(texts)
                if row == end:
                    break
        if row < end:
            raise UserError(f"{self.path} is broken after row {row} (rows are missing): replace or remove it")
        if _stamp(self.path) != self.stamp:
            raise UserError(f"{self.path} has changed while it was read: start again when nothing writes to it")

    def _arrays(self, file: pq.ParquetFile) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Pictures as binary and labels as strings, up to CHUNK_ROWS or about CHUNK_BYTES at a time."""
        groups = range(self.first_group, self.first_group + len(self.group_rows))
        settings = {"row_groups": groups, "columns": [self.image, self.text], "use_threads": False}
        gathered: list[tuple[pa.Array, pa.Array]] = []
        rows = size = 0
        for batch in read_batches(
            file, self.path, self.start, batch_size=_chunk_rows(file.metadata, groups), **settings
        ):
            images = batch.column("image")
            images = images.field("bytes") if self.image == "image.bytes" else images
            images, texts = _plain(images, pa.binary()), _plain(batch.column(self.text), pa.string())
            gathered.append((images, texts))
            rows, size = rows + len(texts), size + images.nbytes
            if rows >= CHUNK_ROWS or size >= CHUNK_BYTES:
                yield _together(gathered)
                gathered, rows, size = [], 0, 0
        if gathered:
            yield _together(gathered)


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
    """A parquet file whose footer is sound.

    Raises:
        UserError: it is not.
    """
    try:
        # A buffer and no pre-buffering: else a row group, which may be the whole file, would be read at once.
        file = pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
        _ = file.schema_arrow.names, file.metadata.num_rows  # else what is wrong in there would show later
        return file
    except Exception as error:  # pyarrow raises ArrowException, OSError, UnicodeDecodeError, OverflowError, ...
        raise UserError(f"{path} is not a readable parquet file ({first_line(error)}): replace or remove it") from None


def read_batches(file: pq.ParquetFile, path: Path, row: int = 0, **settings: Any) -> Iterator[pa.RecordBatch]:
    """The rows of a shard, a few at a time; `row` is the number of the first, `settings` are those of iter_batches."""
    batches = None
    while True:
        try:
            batches = batches or file.iter_batches(**{"batch_size": ROW_GROUP_ROWS // 4} | settings)
            batch = next(batches, None)
        except Exception as error:  # as above
            raise UserError(f"{path} is broken after row {row} ({first_line(error)}): replace or remove it") from None
        if batch is None:
            return
        yield batch
        row += batch.num_rows


def find_columns(names: Sequence[str], where: str) -> tuple[str, str]:
    """Names of the image and the label column.

    Raises:
        UserError: there is none of one of them, or two of that name.
    """
    text = next((name for name in TEXT_COLUMNS if name in names), None)
    if "image" not in names or text is None:
        raise UserError(
            f"{where} has the columns {', '.join(names)[:500] or '(none)'}: name the pictures' column `image` and the "
            "labels' column `text`, `label` or `caption`"
        )
    for name in ("image", text):
        if list(names).count(name) > 1:
            raise UserError(f"{where} has the column {name} twice: give one of them another name")
    return "image", text


def _is_any(kind: pa.DataType, checks: Sequence[Callable[[pa.DataType], bool]]) -> bool:
    """Whether a type, or the values of a dictionary, is one of some."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return any(check(value) for check in checks)


def _plain(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same values as plain binary or string."""
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(kind)


def _together(parts: Sequence[tuple[pa.Array, pa.Array]]) -> tuple[pa.Array, pa.Array]:
    """The same arrays one behind the other."""
    if len(parts) == 1:
        return parts[0]
    images, texts = zip(*parts, strict=True)
    return pa.concat_arrays(images), pa.concat_arrays(texts)


def _chunk_rows(metadata: pq.FileMetaData, groups: Sequence[int]) -> int:
    """How many rows to read at a time, so that they take some CHUNK_BYTES."""
    rows = size = 0
    for group in groups:
        found = metadata.row_group(group)
        rows += found.num_rows
        size += found.total_byte_size
        for column in range(found.num_columns):
            chunk = found.column(column)
            # What a dictionary says once may stand in every row: the size of the file says nothing of that of the rows.
            if chunk.path_in_schema.startswith("image") and any("DICTIONARY" in name for name in chunk.encodings):
                return DICTIONARY_ROWS
    return max(1, min(CHUNK_ROWS, CHUNK_BYTES * rows // max(size, 1)))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:200]
