"""What a reader gives for one picture."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from captcha_reader.images import ImageLike
from captcha_reader.reading.constraints import Constraints
from captcha_reader.text import Codec
from captcha_reader.transforms import View

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
        other_views: what other views of the same picture gave, where that was kept.
    """

    text: str
    confidence: float
    char_confidences: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]
    log_probs: np.ndarray = dataclasses.field(repr=False, compare=False)
    codec: Codec = dataclasses.field(repr=False, compare=False)
    box: tuple[float, float, float, float] = dataclasses.field(repr=False, compare=False)
    other_views: tuple[Prediction, ...] = dataclasses.field(default=(), repr=False, compare=False)

    @cached_property
    def candidates(self) -> dict[str, float]:
        """The most probable texts of at least one character and their mean probabilities over all views."""
        views = (self, *self.other_views)
        found: dict[str, float] = defaultdict(float)
        for view in views:
            texts = dict(view.codec.alternatives(view.log_probs, CANDIDATES))
            if view.text not in texts:
                texts[view.text] = float(view.codec.probabilities([view.log_probs], [view.text])[0, 0])
            for text, p in texts.items():
                found[text] += p / len(views)
        return {text: p for text, p in found.items() if text and p > 0}

    @cached_property
    def alternatives(self) -> list[tuple[str, float]]:
        """The three most probable readings with their probabilities, best first; computed when first asked for.

        The reading has its confidence, which is calibrated and may come from several views; the others share what is
        left, as this view divides it among them.
        """
        found = dict(self.codec.alternatives(self.log_probs, count=3))
        own = found.pop(self.text, None)
        if own is None:
            own = float(self.codec.probabilities([self.log_probs], [self.text])[0, 0])
        left = (1 - self.confidence) / max(1 - own, 1e-9)
        shared = [(self.text, self.confidence), *((text, min(p * left, 1.0)) for text, p in found.items())]
        return sorted(shared, key=lambda pair: -pair[1])[:3]

    def as_dict(self) -> dict[str, Any]:
        """`text`, `confidence` and `characters`, ready for JSON."""
        characters = zip(self.text, self.char_confidences, strict=True)
        return {
            "text": self.text,
            "confidence": round(self.confidence, 6),
            "characters": [{"char": c, "confidence": round(p, 6)} for c, p in characters],
        }


class Predictor(Protocol):
    """What the package needs of `predict.CaptchaPredictor`, which it is given."""

    def view(self, image: ImageLike, name: str = "") -> View:
        """One picture, ready for `read`."""

    def read(
        self,
        views: Sequence[View],
        keep_views: bool = False,
        constraints: Constraints | Sequence[Constraints | None] | None = None,
    ) -> list[Prediction]:
        """Readings of pictures in one forward pass."""
