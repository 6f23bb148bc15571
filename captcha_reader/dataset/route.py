"""The second pass over a source: every row goes to the shard of its split, and duplicates are named."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from captcha_reader.config import DatasetConfig
from captcha_reader.dataset.checks import RejectLog
from captcha_reader.dataset.labels import clean_labels
from captcha_reader.dataset.samples import CONTRADICTION, COPY, Reject
from captcha_reader.dataset.shards import Shard, Spilled
from captcha_reader.dataset.split import DUPLICATE, SPLITS
from captcha_reader.dataset.writer import MARKED_SCHEMA, SCHEMA, ShardWriter, mark, record_batch

FOLDERS = rf"(?s)^.*[/{re.escape(os.sep)}]"  # of a path


@dataclass(frozen=True)
class Plan:
    """What happens to each of N rows.

    Attributes:
        assigned: (N,) int8: an index into SPLITS, or UNUSED, DUPLICATE or REJECTED.
        originals: for each duplicate the row that it repeats.
        split: the split as dataset.json shall name it.
        pseudo: (N,) bool: which labels nobody typed; None where all were.
    """

    assigned: np.ndarray
    originals: dict[int, int]
    split: str
    pseudo: np.ndarray | None = None

    def counts(self) -> list[int]:
        """Rows of each split."""
        return [int((self.assigned == i).sum()) for i in range(len(SPLITS))]


@dataclass
class Labels:
    """How many labels there are of each length, and all their characters."""

    lengths: Counter[int] = field(default_factory=Counter)
    characters: set[str] = field(default_factory=set)

    def add(self, texts: Sequence[str]) -> None:
        """Count some more."""
        self.lengths.update(map(len, texts))
        self.characters.update("".join(texts))


def route(
    parts: Sequence[Shard | Spilled], folder: Path, plan: Plan, config: DatasetConfig, rejects: RejectLog
) -> Labels:
    """Copy the rows of all parts to the shards of their splits, and list the duplicates."""
    found = Labels()
    duplicates = _Duplicates(plan, config.check, rejects)
    schema = SCHEMA if plan.pseudo is None else MARKED_SCHEMA
    writers = [
        ShardWriter(folder, split, count, config.shard_size, schema)
        for split, count in zip(SPLITS, plan.counts(), strict=True)
    ]
    start = 0
    try:
        with tqdm(total=len(plan.assigned), unit=" pictures", desc="writing", disable=None) as bar:
            for batch in _ahead(batch for part in parts for batch in part.batches()):
                part = plan.assigned[start : start + batch.num_rows]
                images = batch.column("image")
                sources = images.field("path")
                # A dataset that is published should not tell how its maker's disk is laid out.
                names = pc.replace_substring_regex(sources, FOLDERS, "")
                labels, _ = clean_labels(batch.column("text").to_pylist(), config)
                batch = record_batch(images.field("bytes"), names, pa.array(labels, pa.string()))
                if plan.pseudo is not None:
                    batch = mark(batch, plan.pseudo[start : start + len(part)].tolist())
                for i, writer in enumerate(writers):
                    mine = np.flatnonzero(part == i)
                    if len(mine):
                        writer.add(batch if len(mine) == len(part) else batch.take(pa.array(mine)))
                        found.add([labels[offset] for offset in mine])
                duplicates.look(start, part, sources, labels)
                start += len(part)
                bar.update(len(part))
        duplicates.finish()
    finally:
        for writer in writers:
            writer.close()
    return found


class _Duplicates:
    """Lists each duplicate with the row that is kept in its place, in whatever order they come."""

    def __init__(self, plan: Plan, check: str, rejects: RejectLog) -> None:
        self._originals, self._check, self._rejects = plan.originals, check, rejects
        self._named = np.zeros(len(plan.assigned), dtype=bool)  # rows that a duplicate's entry will name
        self._named[list(plan.originals.values())] = True
        self._kept: dict[int, tuple[str, str]] = {}
        self._early: list[tuple[int, str, str]] = []  # duplicates of rows that come later

    def look(self, start: int, part: np.ndarray, sources: pa.Array, labels: Sequence[str]) -> None:
        """Note the rows from `start` on that are duplicates, or kept in the place of some."""
        for offset in np.flatnonzero(self._named[start : start + len(part)] | (part == DUPLICATE)).tolist():
            source, label = sources[offset].as_py(), labels[offset]
            if self._named[start + offset]:
                self._kept[start + offset] = (source, label)
            elif (original := self._originals[start + offset]) in self._kept:
                self._add(source, label, original)
            else:
                self._early.append((original, source, label))

    def finish(self) -> None:
        """List those whose originals came later."""
        for original, source, label in self._early:
            self._add(source, label, original)

    def _add(self, source: str, label: str, original: int) -> None:
        kept_source, kept = self._kept[original]
        if label == kept:
            self._rejects.add(Reject(source, COPY, f"same {self._check} and label as {kept_source}"))
        else:
            detail = f"labeled {label!r} here and {kept!r} in {kept_source}, which is kept"
            self._rejects.add(Reject(source, CONTRADICTION, detail))


def _ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same, with the next one being read by a thread meanwhile: pyarrow reads and writes without the GIL."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, batches, None)
        while (batch := future.result()) is not None:
            future = thread.submit(next, batches, None)
            yield batch
