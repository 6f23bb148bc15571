"""Confidence that means what it says: 0.9 is right in nine of ten pictures, upper and lower case apart.

A network's probability of a whole text is too modest: it divides it among the two cases of letters, and several views
that agree are right more often than any of them is sure. So the logit of a confidence is divided by a temperature, and
a bias is added (Platt, 1999; Guo et al., 2017). `benchmarks/calibration.py` fits both on pictures of the generator and
of the test generators, and keeps them in the checkpoint's metadata. Models without them give the probability as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from captcha_reader.errors import UserError

CURVES = ("view", "vote", "view_constrained", "vote_constrained")
FURTHEST = 1e-6  # confidences nearer to 0 or 1 than this are not told apart


@dataclasses.dataclass(frozen=True)
class Curve:
    """logit(calibrated) = logit(confidence) / temperature + bias."""

    temperature: float
    bias: float

    def __call__(self, confidence: float) -> float:
        """The calibrated confidence, 0 to 1."""
        p = min(max(confidence, FURTHEST), 1 - FURTHEST)
        z = math.log(p / (1 - p)) / self.temperature + self.bias
        return 1 / (1 + math.exp(-z))


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What a checkpoint says of how its confidences are to be read.

    Attributes:
        curves: by their names, see `CURVES`: of a single view or of the vote over several, with constraints or without.
    """

    curves: Mapping[str, Curve]

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any], path: object) -> Calibration:
        """Of a checkpoint; one that changes nothing where it has none.

        Raises:
            UserError: its numbers cannot be used.
        """
        curves = {}
        for name, values in (metadata.get("calibration") or {}).items():
            numbers: list[Any] = (
                [values.get(field) for field in ("temperature", "bias")] if isinstance(values, Mapping) else []
            )
            usable = [isinstance(x, int | float) and not isinstance(x, bool) and abs(x) <= 100 for x in numbers]
            if name not in CURVES or usable != [True, True] or not numbers[0] >= 0.01:
                raise UserError(f"{path} cannot be used: its calibration {name!r:.40} is no temperature and bias")
            curves[name] = Curve(*map(float, numbers))
        return cls(curves)

    def apply(self, confidence: float, views: int, constrained: bool) -> float:
        """The calibrated confidence of a reading that so many views were asked for."""
        curve = self.curves.get(("vote" if views > 1 else "view") + ("_constrained" if constrained else ""))
        return curve(confidence) if curve else confidence


def fit(confidences: Sequence[float], right: Sequence[bool]) -> Curve:
    """Temperature and bias of the highest likelihood, by Newton's method.

    Args:
        confidences: 0 to 1, two different ones at least.
        right: whether each reading was.
    """
    p = np.clip(np.asarray(confidences, dtype=np.float64), FURTHEST, 1 - FURTHEST)
    features = np.stack([np.log(p / (1 - p)), np.ones(len(p))], axis=1)
    truth = np.asarray(right, dtype=np.float64)
    weights = np.array([1.0, 0.0])
    # A little is added for weights that are far from changing nothing: few readings, or only right ones, say little.
    pull = 0.1
    for _ in range(50):
        given = 1 / (1 + np.exp(-features @ weights))
        slope = features.T @ (truth - given) - pull * (weights - (1.0, 0.0))
        curvature = (features * (given * (1 - given))[:, None]).T @ features + pull * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        weights += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-9:
            break
    return Curve(1 / max(float(weights[0]), 0.01), float(weights[1]))
