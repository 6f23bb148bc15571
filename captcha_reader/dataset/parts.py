"""Sources cut into parts that any process can read twice; what cannot be goes through a temporary file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from captcha_reader.config import DatasetConfig
from captcha_reader.dataset.checks import RejectLog
from captcha_reader.dataset.samples import Note, Reject, Sample
from captcha_reader.dataset.shards import CHUNK_BYTES, CHUNK_ROWS, PART_ROWS, Shard, Spilled
from captcha_reader.dataset.sources import iter_items, list_folder
from captcha_reader.dataset.split import PSEUDO
from captcha_reader.dataset.writer import to_batch

LARGE_GROUP_ROWS = 4 * PART_ROWS  # a row group is read from its start: a larger one would keep a single process busy


def count_rows(sources: Sequence[str], limit: int | None) -> int | None:
    """Rows to come, for the progress bar, where all sources are shards; looks at every shard before the work begins."""
    total: int | None = 0
    for source in sources:
        path = Path(source)
        if path.is_dir():
            inside = list_folder(path)
            shards = inside.shards
            if inside.folders or not shards:
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


def iter_parts(
    config: DatasetConfig, unsplit: Path, out: Path, rejects: RejectLog, notes: list[str]
) -> Iterator[Shard | Spilled]:
    """All samples, as parts that can be read twice; what cannot goes into the file `unsplit`."""
    with unsplit.open("wb") as file:
        for source in config.sources:
            chunk = _Chunk(file, unsplit)
            skip = None if Path(source).resolve() == out else out
            for item in iter_items(source, config.limit, skip):
                if isinstance(item, Reject):
                    rejects.add(item)
                elif isinstance(item, Note):
                    notes.append(item.text)
                elif isinstance(item, Sample):
                    yield from chunk.add(item)
                else:
                    yield from chunk.flush()
                    pseudo = item.pseudo()
                    for part in item.parts():
                        if pseudo.any():
                            yield from chunk.spill_apart(part, pseudo)
                        elif part.rows > LARGE_GROUP_ROWS:
                            yield from (chunk.spill(batch, part.split) for batch in part.batches())
                        else:
                            yield part
            yield from chunk.flush()


class _Chunk:
    """Gathers samples of one split and writes them into the temporary file, a few at a time."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self._samples: list[Sample] = []
        self._size = 0

    def add(self, sample: Sample) -> Iterator[Spilled]:
        if self._samples and self._samples[0].split != sample.split:
            yield from self.flush()
        self._samples.append(sample)
        self._size += len(sample.image)
        if len(self._samples) == CHUNK_ROWS or self._size >= CHUNK_BYTES:
            yield from self.flush()

    def flush(self) -> Iterator[Spilled]:
        if self._samples:
            batch, split = to_batch(self._samples), self._samples[0].split
            self._samples, self._size = [], 0
            yield self.spill(batch, split)

    def spill_apart(self, part: Shard, pseudo: np.ndarray) -> Iterator[Spilled]:
        """The rows of a shard, and apart from them those with pseudo-labels; `pseudo` (N,) tells them."""
        row = part.start
        for batch in part.batches():
            marks = pseudo[row : row + batch.num_rows]
            row += batch.num_rows
            for chosen, split in ((~marks, part.split), (marks, PSEUDO)):
                if chosen.any():
                    yield self.spill(batch.filter(pa.array(chosen)), split)

    def spill(self, batch: pa.RecordBatch, split: str | None) -> Spilled:
        message, offset = batch.serialize(), self._file.tell()
        self._file.write(message)
        self._file.flush()  # other processes read it now
        return Spilled(self._path, offset, message.size, batch.num_rows, split)
