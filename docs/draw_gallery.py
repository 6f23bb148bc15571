"""Draw the pictures of docs/generator.md from the registry, and its table of ops.

    python docs/draw_gallery.py                              # all pictures, into docs/gallery/, and the table
    python docs/draw_gallery.py --only elastic --out FOLDER  # the page that has this op, with nothing else on it

Every op stands alone on the same word, at its weakest, middle and strongest in random schemes.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image, ImageDraw, ImageFont

from captcha_generator import CaptchaSettings, draw_captcha, render_image
from captcha_reader.files import ROOT
from captcha_reader.generator.fonts import find_fonts
from captcha_reader.generator.ops.background import Clear, Plain
from captcha_reader.generator.ops.ink import Ink
from captcha_reader.generator.ops.layout import Row
from captcha_reader.generator.registry import OPS, Op
from captcha_reader.generator.styles import STYLES, Style

WORD, HEIGHT, WIDTH = "R8m4Ke", 60, 180  # pixels of a picture
STRENGTHS = (0.0, 0.5, 1.0)
LABEL, GAP = 150, 6  # pixels
MARKS = ("<!-- ops -->", "<!-- /ops -->")


def alone(op: Op, index: int = 0, word: str = WORD) -> Image.Image:
    """The word with one op on plain ground, in plain ink."""
    mode = "RGBA" if isinstance(op, Clear) else "RGB"
    ground = Plain((205, 205) if isinstance(op, Ink) else (228, 228), 0.1)
    usual: list[Op] = [Row((0.62, 0.62)), ground, Ink(level=(50, 50), tint=0.5, per_letter=False)]
    kept = [other for other in usual if other.stage is not op.stage]
    style = Style((*kept, op), (HEIGHT, HEIGHT), (WIDTH, WIDTH), mode)
    style = replace(style, font_per_letter=False, fonts=("DejaVuSans-Bold.ttf",))
    if 0 < op.most_height < HEIGHT:
        style = replace(style, height=(30, 30), width=(90, 90))
    return to_image(draw_captcha(word, style, f"7/{index}", find_fonts("".join(sorted(set(word))))))


def to_image(pixels: object) -> Image.Image:
    """Any canvas, on white."""
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGBA")  # type: ignore[index, attr-defined]
    picture.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    cell = Image.new("RGBA", (WIDTH, HEIGHT), "white")
    cell.alpha_composite(picture, ((WIDTH - picture.width) // 2, (HEIGHT - picture.height) // 2))
    return cell.convert("RGB")


def page(rows: list[tuple[str, list[Image.Image]]]) -> Image.Image:
    """Rows of pictures with their names."""
    columns = max(len(pictures) for _, pictures in rows)
    label = LABEL if any(name for name, _ in rows) else 0
    sheet = Image.new("RGB", (label + columns * (WIDTH + GAP) + GAP, len(rows) * (HEIGHT + GAP) + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for i, (name, pictures) in enumerate(rows):
        top = GAP + i * (HEIGHT + GAP)
        draw.text((GAP, top + HEIGHT / 2), name, "black", font, anchor="lm")
        for k, picture in enumerate(pictures):
            sheet.paste(picture, (label + GAP + k * (WIDTH + GAP), top))
    return sheet


def families() -> dict[str, list[type[Op]]]:
    """Ops by the file that they stand in."""
    found: dict[str, list[type[Op]]] = {}
    for op in sorted(OPS.values(), key=lambda op: (op.stage, op.name)):
        found.setdefault(op.__module__.rsplit(".", 1)[-1], []).append(op)
    return found


def op_page(ops: list[type[Op]]) -> Image.Image:
    """Each op at three strengths."""
    return page([(op.name, [alone(op.at(s, HEIGHT), i) for i, s in enumerate(STRENGTHS)]) for op in ops])


def drawn(style: str, count: int, seed: int) -> list[Image.Image]:
    """Pictures of a style."""
    settings = CaptchaSettings((style,), length=(3, 12), seed=seed)
    return [to_image(render_image(i, settings)[0]) for i in range(count)]


def table() -> str:
    """The ops, with stage, weight and tags, as Markdown."""
    lines = ["| op | what it does | stage | weight | tags |", "|---|---|---|---:|---|"]
    for op in sorted(OPS.values(), key=lambda op: (op.stage, op.name)):
        tags = ", ".join(sorted(op.tags))
        lines.append(f"| `{op.name}` | {op.summary()} | {op.stage.name.lower()} | {op.weight:g} | {tags} |")
    return "\n".join(lines)


def save(picture: Image.Image, path: Path, colors: int = 128) -> None:
    """As a PNG of few colors: a third of the size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(colors, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=sorted(OPS), metavar="OP", help="one op alone")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "gallery", help="folder for the pictures")
    arguments = parser.parse_args()
    for family, ops in families().items():
        shown = [op for op in ops if arguments.only in (None, op.name)]
        if shown:
            save(op_page(shown), arguments.out / f"{family}.png")
    if arguments.only:
        return
    save(page([(name, drawn(name, 4, 3)) for name in STYLES]), arguments.out / "styles.png")
    schemes = drawn("schemes", 100, 5)
    save(page([("", schemes[i : i + 5]) for i in range(0, 100, 5)]), arguments.out / "schemes.png", 96)
    document = ROOT / "docs" / "generator.md"
    text = document.read_text(encoding="utf-8")
    before, after = text.split(MARKS[0])[0], text.split(MARKS[1])[1]
    document.write_text(f"{before}{MARKS[0]}\n{table()}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
