"""How much of a set careful eyes read: draw pictures without their labels on a sheet, then count what was read right.

    python benchmarks/by_eye.py DATA sheet.png --count 30 --seed 11
    python benchmarks/by_eye.py DATA readings.txt --count 30 --seed 11

DATA is a folder of parquet shards. Look at the sheet alone and write one reading a line into readings.txt, in the
order of the numbers. Prints how many are right, ignoring case, with and without 0 and O counted as one, and the same
of the shipped reader on the same pictures. `benchmarks/by_eye/` has readings made so; accuracy.md says of what.
"""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the scripts live one folder up

from accuracy_calculator import alike_metrics, wilson_interval
from captcha_reader.cli import run
from captcha_reader.errors import UserError
from captcha_reader.images import open_image
from predict import CaptchaPredictor

COLUMNS, CELL = 3, (480, 125)  # of the sheet; width and height in pixels


def draw_sheet(images: list[bytes], path: Path) -> None:
    """The pictures, numbered, and larger than `save_grid_image` has them."""
    width, height = CELL
    sheet = Image.new("RGB", (COLUMNS * width, height * -(-len(images) // COLUMNS)), "gray")
    draw = ImageDraw.Draw(sheet)
    for number, data in enumerate(images):
        left, top = number % COLUMNS * width, number // COLUMNS * height
        enlarged = ImageOps.contain(open_image(data), (width - 6, height - 20), Image.Resampling.LANCZOS)
        sheet.paste(enlarged, (left + 3, top + 16))
        draw.text((left + 3, top), str(number), fill="yellow")
    sheet.save(path)


def score(who: str, readings: list[str], texts: list[str]) -> None:
    """Print how many readings are right."""
    n = len(texts)
    for what, groups in (("right, ignoring case", ()), ("0 and O as one", ("0O",))):
        share = alike_metrics(texts, readings, groups)["sequence_accuracy_ignore_case"]
        low, high = wilson_interval(round(share * n), n)
        print(f"{who:8}{what:22}{round(share * n)} of {n}, {share:.0%} (95 % interval {low:.0%} to {high:.0%})")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="How much of a set careful eyes read.")
    parser.add_argument("data", type=Path)
    parser.add_argument("file", type=Path, help="a .png to draw, or a .txt with one reading a line")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rows = [row for shard in sorted(arguments.data.glob("*.parquet")) for row in pq.read_table(shard).to_pylist()]
    if not 1 <= arguments.count <= len(rows):
        raise UserError(f"{arguments.data} has {len(rows)} pictures: ask for 1 to so many by --count")
    chosen = random.Random(arguments.seed).sample(rows, arguments.count)
    if arguments.file.suffix == ".png":
        draw_sheet([row["image"]["bytes"] for row in chosen], arguments.file)
        return
    readings = arguments.file.read_text(encoding="utf-8").split()
    if len(readings) != len(chosen):
        raise UserError(f"{arguments.file} has {len(readings)} readings: write {len(chosen)}, one a line, ? for none")
    texts = [row["text"] for row in chosen]
    score("eyes", readings, texts)
    reader = CaptchaPredictor(threads=1).predict([row["image"]["bytes"] for row in chosen])
    score("reader", [reading.text for reading in reader], texts)


if __name__ == "__main__":
    run(main)
