"""Readings as files: a table for people, and a shard of labels to train on."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from captcha_reader.errors import UserError
from captcha_reader.files import csv_safe, printable, write_atomically, write_text
from captcha_reader.reading.prediction import Prediction


def write_csv(
    path: str | Path, readings: Iterable[tuple[Path, Prediction]], failures: Iterable[tuple[Path, str]] = ()
) -> None:
    """Columns file, text, confidence, the characters' confidences joined by spaces, why a file could not be read."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["file", "text", "confidence", "character_confidences", "error"])
    for file, prediction in readings:
        characters = " ".join(f"{p:.4f}" for p in prediction.char_confidences)
        name, text = csv_safe(printable(file)), csv_safe(prediction.text)
        writer.writerow([name, text, f"{prediction.confidence:.6f}", characters, ""])
    for file, failure in failures:
        writer.writerow([csv_safe(printable(file)), "", "", "", csv_safe(printable(failure))])
    write_text(path, buffer.getvalue())


def write_labels(path: str | Path, readings: Iterable[tuple[Path, Prediction]], sure: float) -> int:
    """A parquet shard of the pictures whose reading has a confidence of `sure` or more, with the reading as the label.

    Training on it is learning from pseudo-labels (Lee, 2013): no person has seen them, and so the column `source` says.

    Returns:
        How many they are.

    Raises:
        UserError: there is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from captcha_reader.dataset.writer import MODEL, SOURCE_COLUMN

    kept = [(file, reading) for file, reading in readings if reading.text and reading.confidence >= sure]
    if not kept:
        raise UserError(
            f"no reading has a confidence of {sure:g} or more: lower --sure, or label some pictures by hand"
        )
    try:
        images = [{"bytes": file.read_bytes(), "path": printable(file.name)} for file, _ in kept]
    except OSError as error:
        raise UserError(f"a picture that was read cannot be read again ({error}): leave the folder as it is") from None
    texts, confidences = [reading.text for _, reading in kept], [reading.confidence for _, reading in kept]
    sources = [MODEL] * len(kept)
    table = pa.table({"image": images, "text": texts, SOURCE_COLUMN: sources, "confidence": confidences})
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))
    return len(kept)
