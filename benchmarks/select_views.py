"""Which other views of an unsure picture are worth their time (test-time augmentation, captcha_reader/reading/tta.py).

    python benchmarks/select_views.py saved_models/reader.safetensors     # minutes; needs CAPTCHA_DATA, see study.py

Every candidate view of the development sets' pictures (study.py) is read once. Then views are chosen one after the
other, each time the one that the vote gains most from, as `predict.py` would vote: a picture that is settled is not
read again. They are chosen on every other picture and reported on the rest, beside the views in use. At last the
thresholds that say when a picture is settled are varied. Time is counted in pixels of the network's input, a first
view's as 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from results import markdown
from study import development_sets, log, settings
from tqdm import tqdm

from captcha_reader.cli import run
from captcha_reader.images import open_image
from captcha_reader.reading.tta import (
    MARGIN_TO_STOP,
    MAX_COMPARED,
    MIN_CONFIDENCE,
    TTA_VIEWS,
    ViewSpec,
    make_view,
)
from predict import CaptchaPredictor

MOST = 7  # views chosen

CHANGES = tuple(
    dict.fromkeys(
        [
            *(spec._replace(sharp=False) for spec in TTA_VIEWS),
            *(ViewSpec(tall=tall, width=width) for tall in (False, True) for width in (0.85, 1.0, 1.15, 1.3)),
            *(ViewSpec(tall=tall, margin=margin) for tall in (False, True) for margin in (0.0, 0.06, 0.125, 0.25)),
            *(ViewSpec(tall=tall, shear=shear) for tall in (False, True) for shear in (-0.3, -0.15, 0.15, 0.3)),
            *(ViewSpec(rotation=degrees) for degrees in (-8, -4, 4, 8)),
            *(ViewSpec(tall=tall, blur=True) for tall in (False, True)),
            *(
                ViewSpec(tall=tall, tone=tone)
                for tall in (False, True)
                for tone in ("darkest", "saturation", "contrast", "edges")
            ),
            *(ViewSpec(tall=tall, thin=True) for tall in (False, True)),
            *(ViewSpec(tall=True, tone="contrast", rotation=degrees) for degrees in (-8, 8)),
            *(ViewSpec(tall=tall, tone="edges", blur=True) for tall in (False, True)),
            *(ViewSpec(shear=shear, blur=True) for shear in (-0.3, 0.3)),
            *(ViewSpec(tall=True, width=1.15, margin=margin) for margin in (0.06, 0.125)),
            ViewSpec(tall=True, width=1.15, blur=True),
            ViewSpec(tall=True, rotation=8),
        ]
    )
)
# Each as soft as its reader's input is, and sharp; what is blurred is never sharp.
CANDIDATES = (*CHANGES, *(spec._replace(sharp=True) for spec in CHANGES if not spec.blur))
FIRST = ViewSpec()


@dataclass(frozen=True)
class Picture:
    """What the views of one picture give.

    Attributes:
        right: places of the right text, in any case, among those read.
        text: view -> place of the text that it reads; views that show nothing new are not there.
        confidence: view -> confidence, before calibration.
        pixels: view -> pixels of the input, the first view's as 1.
        likelihood: (texts, views) probability of each text by all views; views in the order of `text`.
        place: view -> its column there.
    """

    right: frozenset[int]
    text: dict[ViewSpec, int]
    confidence: dict[ViewSpec, float]
    pixels: dict[ViewSpec, float]
    likelihood: np.ndarray
    place: dict[ViewSpec, int]

    def read(
        self, order: Sequence[ViewSpec], sure: float = MIN_CONFIDENCE, margin: float = MARGIN_TO_STOP
    ) -> tuple[bool, float]:
        """Whether these views get it right, and the pixels read for that, as `CaptchaPredictor.read` goes."""
        seen, added = [FIRST], {self.text[FIRST]: self.confidence[FIRST]}
        for spec in order:
            leaders = sorted(added.values(), reverse=True)
            lead = leaders[0] - (leaders[1] if len(leaders) > 1 else 0.0)
            if (self.confidence[FIRST] >= sure) if len(seen) == 1 else (lead >= margin):
                break
            if spec in self.text:
                seen.append(spec)
                added[self.text[spec]] = added.get(self.text[spec], 0.0) + self.confidence[spec]
        compared = sorted(added, key=lambda text: -added[text])[:MAX_COMPARED]
        columns = [self.place[spec] for spec in seen]
        best = max(compared, key=lambda text: float(self.likelihood[text, columns].sum()))
        return best in self.right, sum(self.pixels[spec] for spec in seen)


Sets = dict[str, dict[str, list[Picture]]]


def look(predictor: CaptchaPredictor, image: bytes, truth: str) -> Picture:
    """Read one picture in every view."""
    first = predictor.view(open_image(image, "a picture"))
    views = {FIRST: first}
    for spec in CANDIDATES:
        transform = predictor.other_transform if spec.tall else predictor.transform
        if spec != FIRST and transform and (view := make_view(spec, first, transform)) is not None:
            views[spec] = view
    views = dict(sorted(views.items(), key=lambda item: item[0].tall))
    # One height at a time, as `read` takes them.
    readings = [r for tall in (False, True) for r in predictor.read([v for s, v in views.items() if s.tall == tall])]
    texts = list(dict.fromkeys(reading.text for reading in readings))
    likelihood = predictor.codec.probabilities([reading.log_probs for reading in readings], texts)
    return Picture(
        frozenset(place for place, text in enumerate(texts) if text.lower() == truth.lower()),
        {spec: texts.index(reading.text) for spec, reading in zip(views, readings, strict=True)},
        {spec: reading.confidence for spec, reading in zip(views, readings, strict=True)},
        {spec: view.pixels.size / first.pixels.size for spec, view in views.items()},
        likelihood.T,
        {spec: column for column, spec in enumerate(views)},
    )


def score(sets: Sets, order: Sequence[ViewSpec], **thresholds: float) -> dict[str, float]:
    """Mean accuracy of each group's sets, `mean` of the groups, and `pixels`, the mean over all pictures."""
    found: dict[str, float] = {}
    pixels = []
    for group, pictures in sets.items():
        shares = []
        for one in pictures.values():
            outcomes = [picture.read(order, **thresholds) for picture in one]
            shares.append(mean(right for right, _ in outcomes))
            pixels += [cost for _, cost in outcomes]
        found[group] = mean(shares)
    return found | {"mean": mean(found.values()), "pixels": mean(pixels)}


def describe(spec: ViewSpec) -> str:
    """What differs from the first view."""
    return ", ".join(f"{name} {value}" for name, value in spec._asdict().items() if value != getattr(FIRST, name))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Which other views of an unsure picture are worth their time.")
    parser.add_argument("checkpoint")
    parser.add_argument("--limit", type=int, help="pictures of each set, at most")
    arguments = parser.parse_args()
    path = Path(arguments.checkpoint)
    predictor = CaptchaPredictor(path, device="cpu", threads=1, tta_views=1)
    drawn = development_sets(settings("today", seed=99))
    groups = {
        group: {name: (images[: arguments.limit], texts[: arguments.limit]) for name, (images, texts) in by_set.items()}
        for group, by_set in drawn.items()
    }
    sets: Sets = {}
    total = sum(len(images) for group in groups.values() for images, _ in group.values())
    with tqdm(total=total, unit="picture") as bar:
        for group, by_set in groups.items():
            sets[group] = {}
            for name, (images, texts) in by_set.items():
                sets[group][name] = []
                for image, text in zip(images, texts, strict=True):
                    sets[group][name].append(look(predictor, image, text))
                    bar.update()
    halves = [{group: {name: one[half::2] for name, one in s.items()} for group, s in sets.items()} for half in (0, 1)]
    chosen: list[ViewSpec] = []
    rows = [["the first view alone", *_figures(halves[1], [])]]
    while len(chosen) < MOST:
        left = [spec for spec in CANDIDATES if spec not in chosen and spec != FIRST]
        chosen.append(max(left, key=lambda spec: score(halves[0], [*chosen, spec])["mean"]))
        rows.append([f"and {describe(chosen[-1])}", *_figures(halves[1], chosen)])
        tqdm.write(str(rows[-1]))
    rows.append(["those in use", *_figures(halves[1], TTA_VIEWS)])
    for sure, margin in product((0.5, 0.7, 0.9), (0.4, 0.6, 0.8)):
        figures = _figures(sets, chosen, sure=sure, margin=margin)
        rows.append([f"all pictures; sure from {sure}, settled by a lead of {margin}", *figures])
    head = ["views", *sets, "mean", "pixels"]
    print(markdown(head, rows))
    log("views", name=f"{path.stem}", chosen=[spec._asdict() for spec in chosen], table=[head, *rows])
    return 0


def _figures(sets: Sets, order: Sequence[ViewSpec], **thresholds: float) -> list[str]:
    found = score(sets, order, **thresholds)
    return [f"{found[name]:.1%}" for name in (*sets, "mean")] + [f"{found['pixels']:.2f}"]


if __name__ == "__main__":
    run(main)
