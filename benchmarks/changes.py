"""How much of its accuracy the shipped reader keeps where the same pictures look otherwise."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from tables import (
    LEPTURE,
    REAL,
    ROOT,
    WORK,
    fenced,
    held_out,
    lepture,
    machine,
    right_ignoring_case,
    table,
    weights,
    write_section,
)

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
PICTURES = 400  # of each set


def _ground(image: Image.Image) -> tuple[int, ...]:
    return tuple(int(level) for level in np.median(np.asarray(image).reshape(-1, 3), axis=0))


def _framed(image: Image.Image, width: int, colour: str) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=colour, width=width)
    return image


def _slanting(image: Image.Image, lean: float) -> Image.Image:
    """Upright lines lean by a part of the height; the picture gets as much wider, so that nothing is cut off."""
    more = math.ceil(abs(lean) * image.height / 2)
    wide = ImageOps.expand(image, (more, 0, more, 0), _ground(image))
    matrix = (1, lean, -lean * wide.height / 2, 0, 1, 0)
    return wide.transform(wide.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=_ground(image))


def _faint(image: Image.Image) -> Image.Image:
    return image.point(lambda level: round(0.3 * level + 150))


def _crossed(image: Image.Image, rng: np.random.Generator, count: int, levels: tuple[int, int]) -> Image.Image:
    """Thin lines below the text: the darker of both is seen."""
    lines = Image.new("RGB", image.size, "white")
    draw = ImageDraw.Draw(lines)
    for _ in range(count):
        ends = rng.integers(0, [[image.width, image.height]] * 2)
        draw.line([tuple(map(int, end)) for end in ends], fill=tuple(map(int, rng.integers(*levels, 3))))
    return Image.fromarray(np.minimum(np.asarray(image), np.asarray(lines)))


def _specked(image: Image.Image, rng: np.random.Generator, share: float) -> Image.Image:
    pixels = np.array(image)
    specks = rng.random(pixels.shape[:2]) < share
    pixels[specks] = rng.integers(0, 256, (specks.sum(), 3))
    return Image.fromarray(pixels)


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=quality)
    return Image.open(packed).convert("RGB")


def _scaled(image: Image.Image, across: float, down: float) -> Image.Image:
    return image.resize((round(image.width * across), round(image.height * down)), Image.Resampling.BICUBIC)


def _wider(image: Image.Image) -> Image.Image:
    return ImageOps.expand(image, image.height // 2, _ground(image))


CHANGES: dict[str, Change] = {
    "as they are": lambda image, rng: image,
    "inverted": lambda image, rng: ImageOps.invert(image),
    "at 30 % of the contrast": lambda image, rng: _faint(image),
    "a black frame of 1 pixel": lambda image, rng: _framed(image, 1, "black"),
    "a blue frame of 3 pixels": lambda image, rng: _framed(image, 3, "navy"),
    "a margin of half the height": lambda image, rng: _wider(image),
    "slanting to the right, 0.4 of the height": lambda image, rng: _slanting(image, 0.4),
    "slanting to the left": lambda image, rng: _slanting(image, -0.4),
    "half as many pixels": lambda image, rng: _scaled(image, 0.5**0.5, 0.5**0.5),
    "three times as many": lambda image, rng: _scaled(image, 3**0.5, 3**0.5),
    "half as wide again": lambda image, rng: _scaled(image, 1.5, 1),
    "50 pale lines": lambda image, rng: _crossed(image, rng, 50, (150, 250)),
    "a twentieth of the pixels specks": lambda image, rng: _specked(image, rng, 0.05),
    "16 colours": lambda image, rng: image.quantize(16).convert("RGB"),
    "JPEG, quality 15": lambda image, rng: _jpeg(image, 15),
    "blurred by 1 pixel": lambda image, rng: image.filter(ImageFilter.GaussianBlur(1)),
}


def changed() -> None:
    """The shipped reader on pictures that are framed, inverted, slanting, and so on, beside what they were."""
    from accuracy_calculator import load_labelled
    from captcha_reader.images import open_image
    from predict import CaptchaPredictor

    lepture(WORK / "lepture-1000.parquet", 1000)
    schemes, _ = held_out()
    sets = {
        "`captcha_v2`": f"{REAL}/captcha_v2",
        "`generic_upper`": f"{REAL}/generic_upper",
        "lepture's `captcha`": WORK / "lepture-1000.parquet",
        **schemes,
    }
    predictor = CaptchaPredictor(ROOT / "saved_models" / "reader.onnx", threads=1)
    labelled = [load_labelled(str(ROOT / data), limit=PICTURES)[:2] for data in sets.values()]
    rows: list[list[object]] = []
    for what, change in CHANGES.items():
        rng = np.random.default_rng(0)
        shares = []
        for images, texts in labelled:
            readings = predictor.predict([change(open_image(image), rng) for image in images])
            shares.append(right_ignoring_case(readings, texts))
        rows.append([what, *(f"{share:.1%}" for share in shares), f"{np.mean(shares):.1%}"])
        print(*rows[-1], sep="  ", flush=True)
    about = f"Sequence accuracy ignoring case, n = {PICTURES} of each set, seed 0. {machine()}, {weights()}."
    run_it = fenced([f"pip install {LEPTURE}", "python benchmarks/run.py changed"])
    write_section("accuracy.md", "changed", f"{about}\n\n{table(['pictures', *sets, 'mean'], rows)}\n\n{run_it}")
