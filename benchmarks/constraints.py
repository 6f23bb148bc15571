"""What it is worth to know the characters and lengths of real captchas, beside ddddocr; and what confidences mean."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from calibration import known
from results import ROOT, Table, record
from tables import DDDDOCR, as_files, peer_python, real, right_ignoring_case, weights

LIMIT = 200  # pictures of each set
PEER = """
import csv, json, sys
import ddddocr
reader = ddddocr.DdddOcr(show_ad=False, beta=True)
reader.set_ranges(sys.argv[2])
rows = list(csv.DictReader(open(sys.argv[1], newline="", encoding="utf-8")))
readings = [reader.classification(open(row["file"], "rb").read()) for row in rows]
print(json.dumps(sum(a.lower() == row["text"].lower() for a, row in zip(readings, rows)) / len(rows)))
"""


def constraints() -> None:
    """The twelve real sets and captcha_v2: free, with known characters, with lengths too, and read together."""
    from accuracy_calculator import load_labeled
    from captcha_reader.reading.collection import read_together
    from captcha_reader.reading.constraints import Constraints
    from captcha_reader.reading.metrics import calibration, right_above
    from predict import CaptchaPredictor

    predictor = CaptchaPredictor(ROOT / "saved_models" / "reader.onnx", threads=1)
    seconds: dict[str, list[float]] = {"free": [], "constrained": []}
    sure: dict[str, list[tuple[float, bool]]] = {"one view": [], "free": [], "characters and length": []}
    rows = []
    for data in [*sorted(real("real").glob("*.parquet")), real("captcha_v2")]:
        images, texts, _ = load_labeled(str(data), limit=LIMIT)
        everything = known(texts)
        characters = Constraints(everything.characters, ignore_case=True)
        predictor.tta_views = 1
        one = predictor.predict(images)
        predictor.tta_views = 8
        started = time.perf_counter()
        free = predictor.predict(images)
        seconds["free"].append(time.perf_counter() - started)
        with_characters = predictor.predict(images, constraints=characters)
        started = time.perf_counter()
        with_both = predictor.predict(images, constraints=everything)
        seconds["constrained"].append(time.perf_counter() - started)
        together = [
            read_together(predictor.predict(images, keep_views=True, constraints=given), given)[0]
            for given in (None, everything)
        ]
        shares = [right_ignoring_case(read, texts) for read in (free, with_characters, with_both, *together)]
        if data.suffix:
            for what, read in zip(sure, (one, free, with_both), strict=True):
                sure[what] += [(r.confidence, r.text.lower() == t.lower()) for r, t in zip(read, texts, strict=True)]
        rows.append([f"`{data.stem}`", len(texts), str(everything), *shares, _peer(data, characters.allowed or "")])
        print(*(f"{value:.1%}" if isinstance(value, float) else value for value in rows[-1]), sep="  ", flush=True)
    columns = [list(column) for column in zip(*rows[:-1], strict=True)]
    mean = ["**mean of the twelve**", sum(columns[1]), "", *map(statistics.mean, columns[3:])]
    reading = ["free", "characters", "characters and length", "together", "together, characters and length"]
    head = {"set": "", "n": ",", "known": "", **dict.fromkeys([*reading, "ddddocr, characters"], ".1%")}
    meant = []
    for what, pairs in sure.items():
        confidences, right = np.array([p for p, _ in pairs]), np.array([ok for _, ok in pairs], dtype=float)
        above = [share for level in (0.9, 0.99) for share in right_above(confidences, right, level).values()]
        meant.append([what, len(pairs), calibration(confidences, right)[1], *above])
    levels = [
        f"{what} >= {level}" for level in ("0.9", "0.99") for what in ("readings of confidence", "of these right,")
    ]
    slower = sum(seconds["constrained"]) / sum(seconds["free"])
    about = (
        f"Sequence accuracy ignoring case, at most {LIMIT} pictures of each set (seed 0). What is known: characters "
        "and lengths of all labels, case ignored. ddddocr 1.6.1 (beta model) with `set_ranges` to the same "
        f"characters. Reading with characters and length took {slower:.2f} times as long as without. The second table: "
        "what confidences mean on the twelve, on which they were not fitted (`calibration.py`)."
    )
    record(
        "constraints",
        about,
        Table(head, [mean, *rows]),
        Table({"reading": "", "n": ",", "calibration error": ".1%", **dict.fromkeys(levels, ".1%")}, meant),
        weights=weights(),
        commands=["python benchmarks/calibration.py", "python benchmarks/run.py constraints"],
    )


def _peer(data: Path, characters: str) -> float:
    """What ddddocr reads, 0 to 1, when it is told the characters, of either case."""
    python = peer_python("ddddocr", DDDDOCR)
    both = "".join(sorted({case for c in characters for case in (c, c.lower(), c.upper())}))
    words: Sequence[str] = [str(python), "-c", PEER, str(as_files(data, LIMIT)), both]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
