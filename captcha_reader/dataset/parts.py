"""Sources cut into parts that any process can read twice; what cannot be goes through a temporary file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from captcha_reader.config import DatasetConfig
from captcha_reader.dataset.checks import RejectLog
from captcha_reader.dataset.samples import Reject, Sample
from captcha_reader.dataset.shards import CHUNK_BYTES, CHUNK_ROWS, PART_ROWS, Shard, Spilled
from captcha_reader.dataset.sources import iter_items, list_folder
from captcha_reader.dataset.writer import to_batch

LARGE_GROUP_ROWS = 4 * PART_ROWS  # a row group is read from its start: a larger one would keep a single process busy


def count_rows(sources: Sequence[str], limit: int | None) -> int | None:
    """Rows to come, for the progress bar, where all sources are shards; looks at every shard before the work begins."""
    total: int | None = 0
    for source in sources:
        path = Path(source)
        if path.is_dir():
            listed = list_folder(path)
            shards = listed[1]
            if listed[0] or not shards:
                total = None
        elif path.is_file() and path.suffix.lower() == ".parquet":
            shards = [path]
        else:
            shards, total = [], None
        rows = 0
        for shard in shards:
            rows += Shard.open(shard).rows
        if total is not None:
            total += rows if limit is None else min(rows, limit)
    return total


def iter_parts(config: DatasetConfig, unsplit: Path, out: Path, rejects: RejectLog) -> Iterator[Shard | Spilled]:
    """All samples, as parts that can be read twice; what cannot goes into the file `unsplit`."""
    with unsplit.open("wb") as file:

        def spill(batch: pa.RecordBatch) -> Spilled:
            message, offset = batch.serialize(), file.tell()
            file.write(message)
            file.flush()  # other processes read it now
            return Spilled(unsplit, offset, message.size, batch.num_rows)

        for source in config.sources:
            chunk: list[Sample] = []
            size = 0
            skip = None if Path(source).resolve() == out else out
            for item in iter_items(source, config.limit, skip):
                if isinstance(item, Reject):
                    rejects.add(item)
                elif isinstance(item, Sample):
                    chunk.append(item)
                    size += len(item.image)
                    if len(chunk) == CHUNK_ROWS or size >= CHUNK_BYTES:
                        yield spill(to_batch(chunk))
                        chunk, size = [], 0
                else:
                    for part in item.parts():
                        if part.rows > LARGE_GROUP_ROWS:
                            yield from map(spill, part.batches())
                        else:
                            yield part
            if chunk:
                yield spill(to_batch(chunk))
