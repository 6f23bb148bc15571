"""The settings of a measurement that are more than a number, as strength.py and the page's tab read them."""

from __future__ import annotations

import re

from captcha_reader.errors import UserError

MIN_LABELS = 10  # fewer are no training
MIN_MEASURED = 20  # pictures kept aside: fewer say nothing
LEAST_LABELED = 2 * MIN_MEASURED


def parse_labels(text: str) -> list[int]:
    """`0,10,30` as numbers, sorted, each once.

    Raises:
        UserError: one is no number of labels.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isascii() and word.isdigit() and len(word) < 7 for word in words):
        raise UserError(f"--labels {text!r} cannot be used: write numbers such as 0,10,30,100")
    counts = sorted({int(word) for word in words})
    if few := [n for n in counts if 0 < n < MIN_LABELS]:
        raise UserError(
            f"--labels: {few[0]} labels are too few to learn from: {MIN_LABELS} are the least, or 0 for none"
        )
    return counts


def parse_duration(text: str) -> float:
    """`90s`, `10m` or `1h` in seconds.

    Raises:
        UserError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", str(text))
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0
    if not 0 < seconds < 1e6:
        raise UserError(f"--budget {text!r} cannot be used: write 90s, 10m or 1h")
    return seconds
