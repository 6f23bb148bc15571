"""The one table schema of labeled pictures, and the one writer of parquet shards.

Rows are pictures, as they are encoded, and labels: what `datasets.load_dataset` and the Hub's viewer read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captcha_reader.dataset.samples import Sample

SOURCE_COLUMN = "source"  # who gave a label; only where some are pseudo-labels, that is readings that nobody typed
MODEL, PERSON = "model", "person"


def _schema(*more: str) -> pa.Schema:
    """Of pictures, labels, and further texts."""
    texts = ("text", *more)
    features = {"image": {"_type": "Image"}} | {name: {"dtype": "string", "_type": "Value"} for name in texts}
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.schema(
        {"image": image} | dict.fromkeys(texts, pa.string()),
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )


SCHEMA, MARKED_SCHEMA = _schema(), _schema(SOURCE_COLUMN)
ROW_GROUP_ROWS = 1000  # small enough for random access by the Hub's viewer and for flat memory
ROW_GROUP_BYTES = 32 << 20


def write_shard(
    path: Path,
    rows: Iterable[tuple[bytes, str | None, str]],
    metadata: dict[bytes, bytes] | None = None,
    compression: str = "none",
    group_rows: int = ROW_GROUP_ROWS,
) -> int:
    """Write one shard, a row group at a time: memory holds neither all rows nor the shard.

    Wrap it in `write_atomically` where the file must appear whole or not at all.

    Args:
        path: of the shard.
        rows: encoded picture, its file name where it has one, and label.
        metadata: added to the schema's.
        compression: as pyarrow names it; pictures are compressed already.
        group_rows: rows of a row group.

    Returns:
        The number of rows.
    """
    schema = SCHEMA.with_metadata({**SCHEMA.metadata, **(metadata or {})})
    total = 0
    rows = iter(rows)
    with pq.ParquetWriter(path, schema, compression=compression) as writer:
        while group := list(islice(rows, group_rows)):
            pictures, names, texts = zip(*group, strict=True)
            image = pa.StructArray.from_arrays(
                [pa.array(pictures, pa.binary()), pa.array(names, pa.string())], ["bytes", "path"]
            )
            writer.write_table(pa.Table.from_arrays([image, pa.array(texts, pa.string())], schema=schema))
            total += len(group)
    return total


class ShardWriter:
    """Writes one split's rows as shards `train-00000-of-00002.parquet` of `shard_size` rows, the last one smaller."""

    def __init__(self, folder: Path, split: str, total: int, shard_size: int, schema: pa.Schema = SCHEMA) -> None:
        self._folder, self._split, self._left, self._shard_size = folder, split, total, shard_size
        self._schema = schema
        self._shards = -(-total // shard_size)
        self._number = 0
        self._room = 0
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            if self._writer is None:
                name = f"{self._split}-{self._number:05d}-of-{self._shards:05d}.parquet"
                self._writer = parquet_writer(self._folder / name, self._schema)
                self._number += 1
                self._room = min(self._shard_size, self._left)
            part, batch = batch.slice(0, self._room), batch.slice(self._room)
            self._room -= part.num_rows
            self._left -= part.num_rows
            self._pending.append(part)
            self._rows += part.num_rows
            self._bytes += part.nbytes
            if self._rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES or not self._room:
                self._writer.write_table(pa.Table.from_batches(self._pending, self._schema))
                self._pending, self._rows, self._bytes = [], 0, 0
            if not self._room:
                self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Picture files are compressed already: compressing, dictionaries and statistics would only cost time.
    return pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_statistics=False)


def row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Gather batches until they are enough for a row group."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def record_batch(images: pa.Array, paths: pa.Array, texts: pa.Array) -> pa.RecordBatch:
    return pa.record_batch([pa.StructArray.from_arrays([images, paths], ["bytes", "path"]), texts], schema=SCHEMA)


def mark(batch: pa.RecordBatch, pseudo: Sequence[bool]) -> pa.RecordBatch:
    """The same rows, with who gave each label."""
    sources = pa.array([MODEL if by_model else PERSON for by_model in pseudo], pa.string())
    return pa.record_batch([*batch.columns, sources], schema=MARKED_SCHEMA)


def to_batch(rows: Sequence[Sample]) -> pa.RecordBatch:
    return record_batch(
        pa.array([row.image for row in rows], pa.binary()),
        pa.array([row.source for row in rows], pa.string()),
        pa.array([row.text for row in rows], pa.string()),
    )
