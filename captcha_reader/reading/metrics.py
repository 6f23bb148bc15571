"""How well readings match their labels: sequence accuracy, character error rate, calibration, and their intervals.

It knows no network and no file. `sequence_accuracy` is the share of captchas read exactly right; CER is the character
error rate (edits over characters of the labels); `character_accuracy` is 1 - CER.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from captcha_reader.errors import UserError

if TYPE_CHECKING:
    from jiwer import CharacterOutput

CALIBRATION_BINS = 10
SURE_LEVELS = (0.9, 0.99)  # confidences from which on it is reported how many readings are right


def wilson_interval(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson score interval of a proportion (Wilson, 1927), 95 % for the default z; (0, 1) for n = 0.

    It begins at exactly 0 where nothing succeeded and ends at exactly 1 where all did.
    """
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    center = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = (center - half) / (1 + z * z / n) if successes else 0.0  # without rounding errors
    high = (center + half) / (1 + z * z / n) if successes < n else 1.0
    return max(0.0, low), min(1.0, high)


def _align(truths: Sequence[str], readings: Sequence[str]) -> CharacterOutput:
    """jiwer's alignment, character by character; nothing is normalized away."""
    import jiwer

    return jiwer.process_characters(
        list(truths),
        list(readings),
        jiwer.Compose([jiwer.ReduceToListOfListOfChars()]),
        jiwer.Compose([jiwer.ReduceToListOfListOfChars()]),
    )


def count_edits(truths: Sequence[str], readings: Sequence[str]) -> list[int]:
    """For each reading the characters to insert, delete or replace (Levenshtein distance) to have the truth."""
    return [
        sum(max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx) for c in chunks if c.type != "equal")
        for chunks in _align(truths, readings).alignments
    ]


def text_metrics(truths: Sequence[str], readings: Sequence[str]) -> dict[str, Any]:
    """The headline figures of n readings.

    Returns:
        `n`, `sequence_accuracy`, `sequence_accuracy_ignore_case`, `character_accuracy`, `cer`, `wilson_95` (of the
        sequence accuracy).

    Raises:
        UserError: there is nothing to measure.
    """
    if not truths:
        raise UserError("there is nothing to measure: the split has no pictures")
    n = len(truths)
    right = sum(a == b for a, b in zip(truths, readings, strict=True))
    folded = sum(a.casefold() == b.casefold() for a, b in zip(truths, readings, strict=True))
    cer = float(_align(truths, readings).cer)
    return {
        "n": n,
        "sequence_accuracy": right / n,
        "sequence_accuracy_ignore_case": folded / n,
        "character_accuracy": 1 - cer,
        "cer": cer,
        "wilson_95": list(wilson_interval(right, n)),
    }


def parse_alike(text: str) -> list[str]:
    """Groups of characters that count as one: `0Oo,1Il` is `["0Oo", "1Il"]`.

    Raises:
        UserError: a group has fewer than two characters, or a character stands twice.
    """
    groups = text.split(",")
    characters = "".join(groups)
    if min(map(len, groups)) < 2 or len(set(characters)) < len(characters):
        raise UserError(f"--alike {text!r} is no groups of characters: name those that count as one, as in 0Oo,1Il")
    return groups


def alike_metrics(truths: Sequence[str], readings: Sequence[str], groups: Sequence[str]) -> dict[str, float]:
    """Sequence accuracy where the characters of each group count as one, because a font draws them alike.

    Returns:
        `sequence_accuracy` and `sequence_accuracy_ignore_case`.
    """
    table = str.maketrans({character: group[0] for group in groups for character in group})
    folded = str.maketrans({character: group[0] for group in map(str.casefold, groups) for character in group})
    pairs = list(zip(truths, readings, strict=True))
    right = sum(a.translate(table) == b.translate(table) for a, b in pairs)
    ignoring = sum(a.casefold().translate(folded) == b.casefold().translate(folded) for a, b in pairs)
    return {"sequence_accuracy": right / len(pairs), "sequence_accuracy_ignore_case": ignoring / len(pairs)}


def detailed_metrics(truths: Sequence[str], readings: Sequence[str], confidences: Sequence[float]) -> dict[str, Any]:
    """`text_metrics` and where the errors are.

    Args:
        confidences: of the whole readings, 0 to 1.

    Returns:
        In addition: `by_length` and `by_position` (accuracy and n for each), `confusions` (truth, reading, count; an
        empty string stands for a missing or a surplus character), `calibration` (bins of confidence with their mean
        confidence, accuracy and n), `expected_calibration_error` (Guo et al., 2017) and the same ignoring case, and
        `right_at_confidence` (0.9 and 0.99: the share of readings of that confidence or more, and the accuracy of
        these, ignoring case).
    """
    by_length: dict[int, list[bool]] = defaultdict(list)
    by_position: dict[int, list[bool]] = defaultdict(list)
    confusions: Counter[tuple[str, str]] = Counter()
    counts: Counter[tuple[str, str]] = Counter()
    alignments = _align(truths, readings).alignments
    for truth, reading, chunks in zip(truths, readings, alignments, strict=True):
        by_length[len(truth)].append(truth == reading)
        for chunk in chunks:
            for i in range(max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)):
                a = truth[chunk.ref_start_idx + i] if chunk.ref_start_idx + i < chunk.ref_end_idx else ""
                b = reading[chunk.hyp_start_idx + i] if chunk.hyp_start_idx + i < chunk.hyp_end_idx else ""
                counts[a, b] += 1
                if a != b:
                    confusions[a, b] += 1
                if a:
                    by_position[chunk.ref_start_idx + i].append(a == b)
    right = np.array([a == b for a, b in zip(truths, readings, strict=True)], dtype=float)
    folded = np.array([a.casefold() == b.casefold() for a, b in zip(truths, readings, strict=True)], dtype=float)
    sure = np.asarray(confidences, dtype=float)
    bins, error = calibration(sure, right)
    return {
        **text_metrics(truths, readings),
        "by_length": {str(k): _share(v) for k, v in sorted(by_length.items())},
        "by_position": {str(k + 1): _share(v) for k, v in sorted(by_position.items())},
        "confusions": [{"truth": a, "reading": b, "count": n} for (a, b), n in confusions.most_common(50)],
        "character_counts": [{"truth": a, "reading": b, "count": n} for (a, b), n in sorted(counts.items())],
        "calibration": bins,
        "expected_calibration_error": error,
        "expected_calibration_error_ignore_case": calibration(sure, folded)[1],
        "right_at_confidence": {str(level): right_above(sure, folded, level) for level in SURE_LEVELS},
    }


def _share(outcomes: Sequence[bool]) -> dict[str, float]:
    return {"accuracy": sum(outcomes) / len(outcomes), "n": len(outcomes)}


def calibration(confidences: np.ndarray, right: np.ndarray) -> tuple[list[dict[str, float]], float]:
    """Does 0.9 mean 90 %? Bins of equal width with their mean confidence, accuracy and n, and the expected error.

    Args:
        confidences: (n,), 0 to 1.
        right: (n,), 0 or 1.
    """
    places = np.minimum((confidences * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for place in range(CALIBRATION_BINS):
        inside = places == place
        if inside.any():
            bins.append(
                {
                    "from": place / CALIBRATION_BINS,
                    "to": (place + 1) / CALIBRATION_BINS,
                    "confidence": float(confidences[inside].mean()),
                    "accuracy": float(right[inside].mean()),
                    "n": int(inside.sum()),
                }
            )
    error = sum(b["n"] * abs(b["confidence"] - b["accuracy"]) for b in bins) / max(len(confidences), 1)
    return bins, float(error)


def right_above(confidences: np.ndarray, right: np.ndarray, level: float) -> dict[str, float | None]:
    """How many readings have a confidence of `level` or more, and how many of these are right.

    Args:
        confidences: (n,), 0 to 1.
        right: (n,), 0 or 1.
        level: 0 to 1.

    Returns:
        `share` of all n, and `accuracy` among them, None where there are none.
    """
    sure = confidences >= level
    return {
        "share": float(sure.mean()) if len(sure) else 0.0,
        "accuracy": float(right[sure].mean()) if sure.any() else None,
    }
