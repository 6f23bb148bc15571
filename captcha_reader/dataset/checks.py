"""The first pass over a source: pictures are decoded and hashed, labels cleaned, in several processes."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import IO

from PIL import Image

from captcha_reader.config import DatasetConfig
from captcha_reader.dataset.labels import clean_labels
from captcha_reader.dataset.samples import Reject
from captcha_reader.dataset.shards import Shard, Spilled
from captcha_reader.errors import UserError
from captcha_reader.files import available_cores
from captcha_reader.images import check_header, open_image

LISTED_REJECTS = 1000
ROWS_BEFORE_POOL = 4096  # below this, starting processes takes longer than checking the pictures right here


def content_hash(image: Image.Image) -> bytes:
    """16 bytes that stand for the width, the height and the pixels of an RGB image."""
    digest = blake2b(f"{image.width}x{image.height}:".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


@dataclass(frozen=True)
class Checked:
    """What the first pass finds in a part.

    Attributes:
        good: for each row a byte, 1 if it can be used.
        keys: for each good row 16 bytes that stand for the picture.
        marks: for each good row 16 bytes that stand for the picture and its label.
        rejects: the other rows.
    """

    good: bytes
    keys: bytes
    marks: bytes
    rejects: list[Reject]


def check_parts(parts: Iterable[Shard | Spilled], config: DatasetConfig) -> Iterator[tuple[Shard | Spilled, Checked]]:
    """Pair each part with what is found in it, in order, with a bounded number of parts in flight."""
    workers = available_cores() if config.workers is None else config.workers
    check = functools.partial(_check, config=config)
    parts = iter(parts)
    rows = 0
    for part in parts:
        yield part, check(part)
        rows += part.rows
        if workers > 1 and rows >= ROWS_BEFORE_POOL:
            break
    else:
        return
    # Processes, since Pillow holds the GIL for half of the time that a small picture takes. Spawned, since a fork of a
    # process with threads (pyarrow's, torch's) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    pending: deque[tuple[Shard | Spilled, Future[Checked]]] = deque()
    try:
        for part in parts:
            pending.append((part, pool.submit(check, part)))
            if len(pending) > 2 * workers:
                part, future = pending.popleft()
                yield part, future.result()
        while pending:
            part, future = pending.popleft()
            yield part, future.result()
    except BrokenProcessPool:
        raise UserError(
            "a process that checks pictures has died: use --workers 1, and call make_dataset from a script only under "
            '`if __name__ == "__main__":`'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _check(part: Shard | Spilled, config: DatasetConfig) -> Checked:
    good, keys, marks, rejects = bytearray(), bytearray(), bytearray(), []
    for batch in part.batches():
        images = batch.column("image")
        labels, faults = clean_labels(batch.column("text").to_pylist(), config)
        for row, (data, label) in enumerate(zip(images.field("bytes").to_pylist(), labels, strict=True)):
            fault = faults.get(row)
            if fault is None:
                try:
                    key = _file_hash(data) if config.check == "bytes" else content_hash(open_image(data))
                except UserError as error:
                    fault = "unreadable image", str(error)
            good.append(fault is None)
            if fault:
                rejects.append(Reject(images.field("path")[row].as_py(), *fault))
                continue
            keys += key
            marks += blake2b(key + label.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return Checked(bytes(good), bytes(keys), bytes(marks), rejects)


def _file_hash(data: bytes) -> bytes:
    """16 bytes that stand for the bytes of a picture file, of which only the header is looked at."""
    check_header(data)
    return sha256(data).digest()[:16]  # SHA-2 has instructions of its own in most processors, so it beats BLAKE2


def _start_worker() -> None:
    """Let Ctrl-C be the main process's business, and end when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class RejectLog:
    """Writes every reject to rejects.jsonl, counts them by reason and remembers the first 1,000."""

    def __init__(self, file: IO[str]) -> None:
        self.counts: Counter[str] = Counter()
        self.listed: list[dict[str, str]] = []
        self.examples: dict[str, Reject] = {}  # the first of each reason
        self._file = file

    def add(self, reject: Reject) -> None:
        entry = {"source": reject.source, "reason": reject.reason, "detail": reject.detail}
        self.counts[reject.reason] += 1
        self.examples.setdefault(reject.reason, reject)
        if len(self.listed) < LISTED_REJECTS:
            self.listed.append(entry)
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def summary(self) -> str:
        """The counts by reason, with an example of the most frequent."""
        counts = self.counts.most_common()
        text = ", ".join(f"{count:,} {reason}" for reason, count in counts) or "none"
        if not counts:
            return text
        example = self.examples[counts[0][0]]
        return f"{text}; for example {example.source}" + (f" ({example.detail})" if example.detail else "")
