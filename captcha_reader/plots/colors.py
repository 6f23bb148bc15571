"""Colors of the pictures, and the three classes of confidence. Needs no matplotlib."""

from __future__ import annotations

import math

HIGH_CONFIDENCE, MEDIUM_CONFIDENCE = 0.9, 0.6

# Teal, amber and crimson stay apart for the common kinds of color blindness, and each comes with a mark or a number.
INK, MUTED, FAINT, PAPER = "#1f2933", "#66727f", "#dbe1e7", "#ffffff"
RIGHT, WRONG, ACCENT, AMBER = "#0b7a75", "#c22f4f", "#2f6db3", "#b26a00"
CONFIDENCE_COLORS = {"high": RIGHT, "medium": AMBER, "low": WRONG}


def confidence_class(confidence: float) -> str:
    """`high` from 0.9, `medium` from 0.6, else `low`; the boundaries belong to the better class."""
    return "high" if confidence >= HIGH_CONFIDENCE else "medium" if confidence >= MEDIUM_CONFIDENCE else "low"


def percent(probability: float) -> str:
    """Whole percent, rounded down above 99 so that only certainty is 100."""
    return str(math.floor(probability * 100) if probability > 0.99 else round(probability * 100))
