"""The figures of the strength report, each from readings, labels and pictures alone.

Accuracy is that of whole texts. Where case is ignored, texts are folded before they come here.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from captcha_reader.images import ImageLike, open_image
from captcha_reader.reading.metrics import text_metrics, wilson_interval

BROKEN_AT = 0.01
"""Share of readings that are right from which on a scheme counts as broken: Bursztein, Martin and Mitchell, "Text-based
CAPTCHA Strengths and Weaknesses", CCS 2011, section 2."""

THUMBNAIL = (48, 16)  # pixels, width and height, at which pictures are compared
SAME_PICTURE = 0.97  # correlation of two thumbnails from which on they show the same picture
SAME_LEVELS = 2.0  # gray levels (root mean square) between two thumbnails up to which they do, too
BLOCK = 256  # pictures that are compared with all others at a time
MIN_SEEN = 8  # times that a character must have been seen for its accuracy to be named
MIN_FOR_MEAN = 8  # pictures from which on what they have in common can be told


def accuracy_figures(truths: Sequence[str], readings: Sequence[str]) -> dict[str, Any]:
    """Sequence accuracy, its 95 % interval, CER, and the attempts that one success takes.

    Returns:
        `n`, `right`, `accuracy`, `interval`, `cer`, `attempts` (expected number until one reading is right; None where
        none was), `attempts_at_most` (by the lower end of the interval) and `broken` (the lower end is above
        `BROKEN_AT`).

    Raises:
        UserError: there is nothing to measure.
    """
    metrics = text_metrics(truths, readings)
    n, accuracy = metrics["n"], metrics["sequence_accuracy"]
    right = round(accuracy * n)
    low, high = wilson_interval(right, n)
    return {
        "n": n,
        "right": right,
        "accuracy": accuracy,
        "interval": [low, high],
        "cer": metrics["cer"],
        "attempts": 1 / accuracy if right else None,
        "attempts_at_most": 1 / low if low > 0 else None,
        "broken": low > BROKEN_AT,
    }


def guesses_needed(truths: Sequence[str], guesses: Sequence[Sequence[str]], counts: Sequence[int] = (1, 3)) -> dict:
    """The share of texts that stand among the first guesses, by the number of guesses.

    Args:
        truths: of each picture.
        guesses: of each picture, the most probable text first.
        counts: of guesses.
    """
    return {
        str(count): sum(truth in list(row)[:count] for truth, row in zip(truths, guesses, strict=True)) / len(truths)
        for count in counts
    }


def character_table(truths: Sequence[str], readings: Sequence[str], details: dict[str, Any]) -> list[dict[str, Any]]:
    """For each character of the labels how often it was read as what it is.

    Args:
        truths, readings: texts.
        details: what `detailed_metrics` says of them.

    Returns:
        Rows `character`, `n`, `accuracy`, `read_as` (its most frequent misreading, "" for a missing one, or None), the
        worst first.
    """
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    wrong: dict[str, Counter[str]] = defaultdict(Counter)
    for row in details["character_counts"]:
        truth, reading, count = row["truth"], row["reading"], row["count"]
        if not truth:  # a surplus character
            continue
        total[truth] += count
        if truth == reading:
            right[truth] += count
        else:
            wrong[truth][reading] += count
    rows = [
        {
            "character": character,
            "n": n,
            "accuracy": right[character] / n,
            "read_as": wrong[character].most_common(1)[0][0] if wrong[character] else None,
        }
        for character, n in total.items()
    ]
    return sorted(rows, key=lambda row: (row["accuracy"], -row["n"], row["character"]))


def mean_accuracy(rows: Sequence[dict[str, Any]]) -> float:
    """The share of all characters that were read as what they are, of rows of `character_table`; 0 without any."""
    seen = sum(row["n"] for row in rows)
    return sum(row["accuracy"] * row["n"] for row in rows) / seen if seen else 0.0


def read_worst(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of rows of `character_table` those clearly below the mean: seen `MIN_SEEN` times or more, and their 95 % interval
    ends below it."""
    mean = mean_accuracy(rows)
    return [
        row
        for row in rows
        if row["n"] >= MIN_SEEN and wilson_interval(round(row["accuracy"] * row["n"]), row["n"])[1] < mean
    ]


def secret_bits(texts: Sequence[str], characters: str | None = None) -> dict[str, Any]:
    """How much there is to guess: the bits that the scheme could have, and those that its texts show.

    The nominal figure takes every character and length as equally likely. The estimated one is the entropy of the
    characters (Miller and Madow's correction, 1955) times the mean length, and that of the lengths. It says nothing of
    dependence between characters, as in dictionary words, which lowers it further.

    Args:
        texts: where there are none, nothing is known of their lengths, and there are no bits.
        characters: of the scheme, where they are known; those of the texts otherwise.

    Returns:
        `characters`, `lengths` (length: share), `nominal_bits`, `estimated_bits`.
    """
    used = characters or "".join(sorted(set("".join(texts))))
    lengths = Counter(map(len, texts))
    mean = sum(map(len, texts)) / max(len(texts), 1)
    nominal = math.log2(sum(len(used) ** length for length in lengths)) if used and lengths else 0.0
    estimated = _entropy(Counter("".join(texts))) * mean + _entropy(lengths)
    return {
        "characters": used,
        "lengths": {str(k): v / len(texts) for k, v in sorted(lengths.items())},
        "nominal_bits": nominal,
        "estimated_bits": min(estimated, nominal),
    }


def _entropy(counts: Counter) -> float:
    """Bits of one draw, with Miller and Madow's correction for a finite sample."""
    n = sum(counts.values())
    if n == 0:
        return 0.0
    plain = -sum(c / n * math.log2(c / n) for c in counts.values())
    return plain + (len(counts) - 1) / (2 * n * math.log(2))


def repeated_texts(texts: Sequence[str]) -> dict[str, Any]:
    """Texts that came more than once, and how large the pool is that they come from, by the birthday paradox.

    Returns:
        `repeated` (text: count, the most frequent first, at most ten), `pairs` (of equal texts) and `pool` (the number
        of equally likely texts that gives so many pairs on average, None without a pair).
    """
    counts = Counter(texts)
    pairs = sum(c * (c - 1) // 2 for c in counts.values())
    n = len(texts)
    repeated = {text: c for text, c in counts.most_common(10) if c > 1}
    return {"repeated": repeated, "pairs": pairs, "pool": round(n * (n - 1) / 2 / pairs) if pairs else None}


def near_duplicates(pictures: Sequence[ImageLike]) -> np.ndarray:
    """Pairs of pictures that differ by next to nothing: two requests that got the same picture.

    Thumbnails are compared in two ways: by their correlation without what all pictures have in common, such as a
    background that never changes, and level by level, since a picture that comes more often than not is itself what
    they have in common.

    Returns:
        Places (i, j), i < j, as rows.
    """
    found = [np.empty((0, 2), int)]
    if len(pictures) < 2:
        return found[0]
    levels = np.stack([_thumbnail(picture) for picture in pictures])
    common = np.median(levels, axis=0)
    shapes = levels - common if len(pictures) >= MIN_FOR_MEAN else levels
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    shapes = shapes / np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), 1e-6)
    levels = levels - common  # the differences stay, and small numbers lose less to rounding
    squares = (levels**2).sum(axis=1)
    most = SAME_LEVELS**2 * levels.shape[1]
    for start in range(0, len(pictures), BLOCK):
        block = slice(start, start + BLOCK)
        apart = squares[block, None] + squares[start:] - 2 * levels[block] @ levels[start:].T
        same = (shapes[block] @ shapes[start:].T >= SAME_PICTURE) | (apart <= most)
        found.append(np.argwhere(np.triu(same, 1)) + start)
    return np.concatenate(found)


def _thumbnail(picture: ImageLike) -> np.ndarray:
    gray = np.asarray(open_image(picture).convert("L"))
    return cv2.resize(gray, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
