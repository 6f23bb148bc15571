"""How the shipped reader does on changed pictures, and on test generators that it was not trained on."""

from __future__ import annotations

import io
import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from results import Table, Value, record
from tables import (
    DDDDOCR,
    LEPTURE,
    ROOT,
    WORK,
    as_files,
    held_out,
    lepture,
    peer_python,
    read_with,
    real,
    right_ignoring_case,
    train,
    weights,
)

# --------------------------------------------------------------------------------------------------------------------
# The same pictures, changed

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
PICTURES = 400  # of each set


def _ground(image: Image.Image) -> tuple[int, ...]:
    return tuple(int(level) for level in np.median(np.asarray(image).reshape(-1, 3), axis=0))


def _framed(image: Image.Image, width: int, color: str) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).rectangle((0, 0, image.width - 1, image.height - 1), outline=color, width=width)
    return image


def _sheared(image: Image.Image, shear: float) -> Image.Image:
    """Upright lines shear by a part of the height; the picture gets as much wider, so that nothing is cut off."""
    more = math.ceil(abs(shear) * image.height / 2)
    wide = ImageOps.expand(image, (more, 0, more, 0), _ground(image))
    matrix = (1, shear, -shear * wide.height / 2, 0, 1, 0)
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
    "sheared to the right, 0.4 of the height": lambda image, rng: _sheared(image, 0.4),
    "sheared to the left": lambda image, rng: _sheared(image, -0.4),
    "half as many pixels": lambda image, rng: _scaled(image, 0.5**0.5, 0.5**0.5),
    "three times as many": lambda image, rng: _scaled(image, 3**0.5, 3**0.5),
    "half as wide again": lambda image, rng: _scaled(image, 1.5, 1),
    "50 pale lines": lambda image, rng: _crossed(image, rng, 50, (150, 250)),
    "a twentieth of the pixels specks": lambda image, rng: _specked(image, rng, 0.05),
    "16 colors": lambda image, rng: image.quantize(16).convert("RGB"),
    "JPEG, quality 15": lambda image, rng: _jpeg(image, 15),
    "blurred by 1 pixel": lambda image, rng: image.filter(ImageFilter.GaussianBlur(1)),
}


def changed() -> None:
    """The shipped reader on pictures that are framed, inverted, sheared, and so on, beside what they were."""
    from accuracy_calculator import load_labeled
    from captcha_reader.images import open_image
    from predict import CaptchaPredictor

    lepture(WORK / "lepture-1000.parquet", 1000)
    schemes, _ = held_out()
    sets = {
        "`captcha_v2`": real("captcha_v2"),
        "`generic_upper`": real("generic_upper"),
        "lepture's `captcha`": WORK / "lepture-1000.parquet",
        **schemes,
    }
    predictor = CaptchaPredictor(ROOT / "saved_models" / "reader.onnx", threads=1)
    labeled = [load_labeled(str(ROOT / data), limit=PICTURES)[:2] for data in sets.values()]
    rows = []
    for what, change in CHANGES.items():
        rng = np.random.default_rng(0)
        shares = []
        for images, texts in labeled:
            readings = predictor.predict([change(open_image(image), rng) for image in images])
            shares.append(right_ignoring_case(readings, texts))
        rows.append([what, *shares, statistics.mean(shares)])
        print(what, *(f"{share:.1%}" for share in shares), sep="  ", flush=True)
    about = f"Sequence accuracy ignoring case, n = {PICTURES} of each set, seed 0."
    table = Table({"pictures": "", **dict.fromkeys([*sets, "mean"], ".1%")}, rows)
    commands = [f"pip install {LEPTURE}", "python benchmarks/run.py changed"]
    record("changed", about, table, weights=weights(), commands=commands)


# --------------------------------------------------------------------------------------------------------------------
# Test generators

DRAWN = 100  # pictures of each generator, to measure with
LABELS = 50  # to learn from
TAUGHT = 8  # of the generators that may be looked at, one in so many is fine-tuned on, in the order of names


def draw_set(name: str, folder: Path) -> tuple[Path, Path]:
    """Draw with a test generator into two parquet files below the repository: to measure with, to learn from."""
    from generators import GENERATORS

    rng = random.Random(name)
    rows = []
    for i in range(DRAWN + LABELS):
        text, picture = GENERATORS[name](rng)
        packed = io.BytesIO()
        picture.save(packed, "PNG")
        rows.append({"image": {"bytes": packed.getvalue(), "path": f"{i}.png"}, "text": text})
    files = folder / f"{name}.parquet", folder / f"{name}-labels.parquet"
    (ROOT / folder).mkdir(parents=True, exist_ok=True)
    for file, part in zip(files, (rows[:DRAWN], rows[DRAWN:]), strict=True):
        pq.write_table(pa.Table.from_pylist(part), ROOT / file)
    return files


def _mean(shares: Sequence[float | None]) -> float | None:
    """None where not all of them were measured."""
    known = [share for share in shares if share is not None]
    return statistics.mean(known) if len(known) == len(shares) else None


def generators() -> None:
    """The reader on the pictures of every test generator, beside ddddocr, and after 50 labels of some of them."""
    from generators import GENERATORS, UNSEEN

    from accuracy_calculator import load_labeled
    from predict import CaptchaPredictor

    def right(predictor: CaptchaPredictor, data: Path) -> float:
        images, texts, _ = load_labeled(str(ROOT / data))
        return right_ignoring_case(predictor.predict(images), texts)

    shipped = CaptchaPredictor(ROOT / "saved_models" / "reader.onnx", threads=1)
    read: dict[str, tuple[float, float, float | None]] = {}
    commands = []
    learned = sorted(set(GENERATORS) - UNSEEN)[::TAUGHT]
    for name in sorted(GENERATORS):
        data, labels = draw_set(name, WORK / "generators")
        peer = read_with(peer_python("ddddocr", DDDDOCR), "ddddocr", as_files(data))["sequence_accuracy_ignore_case"]
        taught = None
        if name in learned:
            out = WORK / "generators" / f"{name}-run"
            flags = f"--config configs/finetune.yaml --folds 0 --data {labels} --seed 0 --evaluate false --threads 1"
            commands.append(train(out, flags)[0])
            taught = right(CaptchaPredictor(ROOT / out / "best.safetensors", threads=1), data)
        read[name] = (right(shipped, data), peer, taught)
        if name not in UNSEEN:
            print(name, *read[name], sep="  ", flush=True)
    record_generators(read, learned, commands)


def record_generators(
    read: dict[str, tuple[float, float, float | None]], learned: Sequence[str], commands: Sequence[str]
) -> None:
    """Write the two sections: the mean of what nobody looked at, and the development sets with every single one."""
    from generators import HARD, PLAIN, UNSEEN

    def mean_row(what: str, names: Iterable[str], columns: int) -> list[Value]:
        shares = list(zip(*(read[name] for name in names), strict=True))
        return [what, *(_mean(column) for column in shares[:columns])]

    seen = sorted(set(HARD) - UNSEEN)
    means = [
        mean_row(f"{len(PLAIN)} plain ones", PLAIN, 3),
        mean_row(f"{len(seen)} hard ones", seen, 3),
        mean_row(f"the {len(learned)} that were fine-tuned on", learned, 3),
    ]
    single: list[list[Value]] = [[name, *shares] for name, shares in read.items() if name not in UNSEEN]
    single.sort(key=lambda row: -read[str(row[0])][0])
    columns = dict.fromkeys(["reader", "ddddocr 1.6.1", f"reader after {LABELS} labels"], ".1%")
    never = {"mean of": "", "reader": ".1%", "ddddocr 1.6.1": ".1%"}
    about = f"Sequence accuracy ignoring case, n = {DRAWN} pictures of each generator, seed 0."
    tables = [Table({"mean of": "", **columns}, means), Table({"test generator": "", **columns}, single, shown=False)]
    record("generators", about, Table(never, [mean_row(f"{len(UNSEEN)} hard ones", UNSEEN, 2)]), weights=weights())
    record("generators_development", about, *tables, weights=weights(), commands=commands)
