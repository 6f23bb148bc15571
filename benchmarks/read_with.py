"""Read labeled captchas with one reader and say how well and how fast; runs in an environment that has that reader.

    python benchmarks/read_with.py saved_models/reader.onnx DATA.csv
    python benchmarks/read_with.py saved_models/reader.onnx DATA.csv 1  # at most so many views of a picture
    PEERS/bin/python benchmarks/read_with.py ddddocr DATA.csv           # pip install ddddocr==1.6.1

DATA.csv has the columns file and text, as `benchmarks/run.py` writes them. Prints one JSON object: `n`,
`sequence_accuracy` and `sequence_accuracy_ignore_case`, 0 to 1, `median_ms` of one picture at a time, from the bytes of
its file to text, and `images_per_second` in batches, where the reader has them. Each works on all the cores that the
process may use. What is neither a digit nor a letter in a reading is dropped, in favor of readers of any script.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

Reader = Callable[[list[bytes]], list[str]]


def build_reader(name: str, views: str | None = None) -> tuple[Reader, int]:
    """The reader, and how many pictures it likes at once."""
    if name == "ddddocr":
        import ddddocr

        peer = ddddocr.DdddOcr(show_ad=False)
        return lambda images: [peer.classification(image) for image in images], 1
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from predict import CaptchaPredictor

    settings = {"tta_views": int(views)} if views else {}
    predictor = CaptchaPredictor(name, threads=len(os.sched_getaffinity(0)), **settings)
    return lambda images: [prediction.text for prediction in predictor.predict(images)], 64


def main(name: str, path: str, views: str | None = None) -> None:
    """Read all pictures of the table, one at a time and then in batches."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    images = [Path(row["file"]).read_bytes() for row in rows]
    read, batch_size = build_reader(name, views)
    read(images[:batch_size])  # the first call of a network allocates its memory
    readings, times = [], []
    for image in images:
        started = time.perf_counter()
        readings += read([image])
        times.append(time.perf_counter() - started)
    seconds = sum(times)
    if batch_size > 1:
        started = time.perf_counter()
        for start in range(0, len(images), batch_size):
            read(images[start : start + batch_size])
        seconds = time.perf_counter() - started
    readings = ["".join(c for c in reading if c.isascii() and c.isalnum()) for reading in readings]
    pairs = list(zip((row["text"] for row in rows), readings, strict=True))
    report = {
        "n": len(pairs),
        "sequence_accuracy": sum(a == b for a, b in pairs) / len(pairs),
        "sequence_accuracy_ignore_case": sum(a.lower() == b.lower() for a, b in pairs) / len(pairs),
        "median_ms": statistics.median(times) * 1000,
        "images_per_second": len(images) / seconds,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python benchmarks/read_with.py READER DATA.csv [VIEWS]")
    main(*sys.argv[1:])
