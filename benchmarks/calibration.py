"""Fit what a confidence means, on drawn pictures, and keep it in the weights (captcha_reader/reading/calibration.py).

    python benchmarks/calibration.py                              # the shipped weights and their export, in place
    python benchmarks/calibration.py RUN/best.safetensors         # others

Drawn are 12 pictures of each test generator. A text that is right but for the case of its letters counts as right.
Nobody sees the pictures or the figures of a single generator, so those that development never looked at stay unseen.
`python benchmarks/run.py constraints` measures the result on real captchas, on which nothing is fitted.
"""

from __future__ import annotations

import io
import json
import random
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the scripts live one folder up

from generators import GENERATORS

from captcha_reader.checkpoint import set_metadata
from captcha_reader.cli import run
from captcha_reader.files import DEFAULT_CHECKPOINT, write_atomically
from captcha_reader.reading.calibration import CURVES, Curve, fit
from captcha_reader.reading.constraints import Constraints, compact
from predict import CaptchaPredictor

PICTURES = 12  # of each test generator


class Recorder:
    """In the place of a predictor's calibration: keeps what it is asked and changes nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def apply(self, confidence: float, views: int, constrained: bool) -> float:
        """As `Calibration.apply`."""
        self.seen.append((confidence, views))
        return confidence


def known(texts: list[str]) -> Constraints:
    """The characters and lengths of some texts, ignoring case."""
    lengths = [len(text) for text in texts]
    return Constraints(compact("".join(set("".join(texts)))), f"{min(lengths)}-{max(lengths)}", ignore_case=True)


def drawn() -> list[tuple[list[bytes], list[str], Constraints]]:
    """Pictures, their texts, and what is known of these, for each source."""
    sources = []
    for name in sorted(GENERATORS):
        rng = random.Random(name)
        images, texts = [], []
        for _ in range(PICTURES):
            text, picture = GENERATORS[name](rng)
            packed = io.BytesIO()
            picture.save(packed, "PNG")
            images.append(packed.getvalue())
            texts.append(text)
        sources.append((images, texts, known(texts)))
    return sources


def fit_curves(checkpoint: Path) -> dict[str, Curve]:
    """The curves of `calibration.CURVES` for the weights of a file."""
    predictor = CaptchaPredictor(checkpoint)
    most = predictor.tta_views
    confidences: dict[str, list[float]] = defaultdict(list)
    right: dict[str, list[bool]] = defaultdict(list)
    for images, texts, constraints in drawn():
        for suffix, given in (("", None), ("_constrained", constraints)):
            for name, views in (("view", 1), ("vote", most)):
                predictor.tta_views = views
                predictor.calibration = recorder = Recorder()  # type: ignore[assignment]
                readings = predictor.predict(images, constraints=given)
                for reading, text, (confidence, seen) in zip(readings, texts, recorder.seen, strict=True):
                    if name == "view" or seen > 1:
                        confidences[name + suffix].append(confidence)
                        right[name + suffix].append(reading.text.lower() == text.lower())
    return {name: fit(confidences[name], right[name]) for name in CURVES}


def keep(checkpoint: Path, curves: dict[str, Curve]) -> None:
    """Write the curves into the metadata of a .safetensors or .onnx file."""
    said: dict[str, Any] = {
        name: {key: round(value, 4) for key, value in asdict(curve).items()} for name, curve in curves.items()
    }
    if checkpoint.suffix == ".safetensors":
        set_metadata(checkpoint, "calibration", said)
        return
    import onnx

    model = onnx.load(checkpoint)
    others = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != "calibration"]
    del model.metadata_props[:]
    for key, value in sorted([*others, ("calibration", json.dumps(said))]):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    write_atomically(checkpoint, lambda temporary: onnx.save(model, str(temporary)))


def main() -> None:
    """Command line."""
    checkpoint = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_CHECKPOINT
    exported = checkpoint.with_suffix(".onnx")
    curves = fit_curves(exported if exported.is_file() else checkpoint)
    for path in (checkpoint, exported):
        if path.is_file():
            keep(path, curves)
    for name, curve in curves.items():
        print(f"{name:<18} temperature {curve.temperature:.3f}  bias {curve.bias:+.3f}")


if __name__ == "__main__":
    run(main)
