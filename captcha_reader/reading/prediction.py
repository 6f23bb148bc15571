"""What a reader gives for one picture."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from functools import cached_property
from typing import Any

import numpy as np

from captcha_reader.text import Codec

CANDIDATES = 16  # most probable texts of each view that are weighed where pictures are read together


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model reads in one picture.

    Attributes:
        text: the reading.
        confidence: probability, 0 to 1, of the whole text.
        char_confidences: one per character, 0 to 1.
        spans: for each character the steps [start, stop) of T it was read from.
        log_probs: (T, C) float32, class 0 is blank or padding.
        codec: knows the alphabet.
        box: (left, top, right, bottom), the part of the picture, in its pixels, that the T steps cover. Where the
            network's input was padded, it reaches beyond the picture.
        other_looks: what the same picture gave when it was looked at again, or before, where that was kept.
    """

    text: str
    confidence: float
    char_confidences: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]
    log_probs: np.ndarray = dataclasses.field(repr=False, compare=False)
    codec: Codec = dataclasses.field(repr=False, compare=False)
    box: tuple[float, float, float, float] = dataclasses.field(repr=False, compare=False)
    other_looks: tuple[Prediction, ...] = dataclasses.field(default=(), repr=False, compare=False)

    @cached_property
    def candidates(self) -> dict[str, float]:
        """The likeliest texts of one character at least and their mean probabilities over all looks."""
        looks = (self, *self.other_looks)
        found: dict[str, float] = defaultdict(float)
        for look in looks:
            texts = dict(look.codec.alternatives(look.log_probs, CANDIDATES, least=1e-3)) | {look.text: look.confidence}
            for text, p in texts.items():
                found[text] += p / len(looks)
        return {text: p for text, p in found.items() if text and p > 0}

    @cached_property
    def alternatives(self) -> list[tuple[str, float]]:
        """The three likeliest readings with their probabilities, best first; computed when first asked for."""
        return self.codec.alternatives(self.log_probs, count=3)

    def as_dict(self) -> dict[str, Any]:
        """`text`, `confidence` and `characters`, ready for JSON."""
        characters = zip(self.text, self.char_confidences, strict=True)
        return {
            "text": self.text,
            "confidence": round(self.confidence, 6),
            "characters": [{"char": c, "confidence": round(p, 6)} for c, p in characters],
        }
