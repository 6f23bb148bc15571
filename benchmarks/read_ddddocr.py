"""Read labelled captchas with ddddocr, for comparison; runs in an environment of its own.

    python3.11 -m venv PEERS && PEERS/bin/pip install ddddocr==1.6.1
    PEERS/bin/python benchmarks/read_ddddocr.py DATA.csv

DATA.csv has the columns file and text, as `benchmarks/run.py` writes them. Prints one JSON object: `n`,
`sequence_accuracy` and `sequence_accuracy_ignore_case`, 0 to 1. What is neither a digit nor a letter in a reading is
dropped, in its favour: it reads any script.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import ddddocr


def main(path: str) -> None:
    """Read all pictures of the table."""
    reader = ddddocr.DdddOcr(show_ad=False)
    with Path(path).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pairs = []
    for row in rows:
        reading = "".join(
            c for c in reader.classification(Path(row["file"]).read_bytes()) if c.isascii() and c.isalnum()
        )
        pairs.append((row["text"], reading))
    report = {
        "n": len(pairs),
        "sequence_accuracy": sum(a == b for a, b in pairs) / len(pairs),
        "sequence_accuracy_ignore_case": sum(a.lower() == b.lower() for a, b in pairs) / len(pairs),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/read_ddddocr.py DATA.csv")
    main(sys.argv[1])
