"""Draw synthetic captchas with their texts, as parquet shards in the Hugging Face image layout.

    python captcha_generator.py --count 10000 --style classic --out data/synthetic
    python captcha_generator.py --count 50000 --style line --alphabet 2345678bcdefgmnpwxy --length 5 --out data/line
    python captcha_generator.py --count 100 --style classic,wave --grid grid.png --out data/look
    python captcha_generator.py --count 100 --style my_captcha.yaml --out data/mine
    python captcha_generator.py --list                 # every op and every style, a line each
    python captcha_generator.py --check_fonts          # which of the recipe's font packages are missing

From Python:

    picture, text = generate_captcha(style="wave", seed=1, index=7)      # a PIL picture
    pixels, text = render_image(7, CaptchaSettings(styles=("wave",), seed=1))        # an array, as training wants it
    png_bytes, text = render_captcha(7, CaptchaSettings(styles=("wave",), seed=1))   # the same as a PNG file

The drawing itself is in captcha_reader/generator/: a style is a tuple of ops, an op is a small class in a file of ops/.
docs/generator.md shows them all, CONTRIBUTING.md how to add one.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C shows no traceback during the seconds that the imports take
    from captcha_reader.cli import quiet_interrupt

    quiet_interrupt()

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from captcha_reader.cli import parse_config, run
from captcha_reader.config import GeneratorConfig
from captcha_reader.errors import UserError
from captcha_reader.files import write_atomically
from captcha_reader.generator.canvas import draw_text
from captcha_reader.generator.font_packages import check_packages
from captcha_reader.generator.fonts import find_fonts
from captcha_reader.generator.ops.clutter import draw_lines, draw_spots
from captcha_reader.generator.ops.warp import elastic_transform
from captcha_reader.generator.png import encode_png
from captcha_reader.generator.render import (
    GENERATOR_VERSION,
    MAX_LENGTH,
    CaptchaSettings,
    draw_captcha,
    generate_random_string,
    parse_length,
    render_captcha,
    render_image,
)
from captcha_reader.generator.schemes import get_style, list_styles, style_names
from captcha_reader.generator.shards import (
    check_pictures,
    finished_shards,
    iter_captchas,
    shard_path,
    shard_stamp,
    write_pictures,
    write_shards,
)
from captcha_reader.generator.styles import Style, list_ops
from captcha_reader.text import Alphabet

__all__ = [
    "GENERATOR_VERSION",
    "CaptchaSettings",
    "draw_captcha",
    "draw_lines",
    "draw_spots",
    "draw_text",
    "elastic_transform",
    "encode_png",
    "generate_captcha",
    "generate_captcha_data",
    "generate_random_string",
    "iter_captchas",
    "parse_length",
    "render_captcha",
    "render_image",
    "save_grid_image",
]

LARGEST_CELL = (240, 100)  # pixels, width and height, of a picture in a grid: one giant shall not scatter all others


def generate_captcha(
    text: str | None = None,
    style: str | Style = "classic",
    seed: int = 0,
    index: int = 0,
    alphabet: str | None = None,
    length: str | tuple[int, int] | None = None,
    fonts: str | None = None,
) -> tuple[Image.Image, str]:
    """Draw one captcha.

    Args:
        text: what it says; by default a random string of `alphabet` and `length`.
        style: a name of `STYLES`, "mixed", a YAML file, or a `Style`.
        seed, index: picture `index` of `seed` is always the same.
        alphabet: characters to draw from, ranges allowed (`0-9a-z`); by default the style's own, else `0-9A-Za-z`.
        length: (fewest, most) characters or "4-8"; by default the style's own, else 4 to 8.
        fonts: folder of fonts to use beside matplotlib's.

    Returns:
        (picture of mode L, RGB or RGBA, text).

    Raises:
        UserError: unknown style, bad alphabet or length, or one that the style has no text for, empty text, or a
            character that no font can draw.
    """
    if text is not None and not 1 <= len(text) <= MAX_LENGTH:
        raise UserError(f"the text {text!r} has {len(text)} characters: give 1 to {MAX_LENGTH}")
    get_style(style)
    span = (0, 0)
    if length is not None:
        span = parse_length(length if isinstance(length, str) else "{}-{}".format(*length))
    characters = "" if alphabet is None else Alphabet.parse(alphabet).characters
    settings = CaptchaSettings((style,), characters, span, seed, fonts)
    pixels, text = render_image(index, settings, text)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels), text


def save_grid_image(images: Sequence[Image.Image], path: str | Path, columns: int = 10, gap: int = 4) -> Path:
    """Put pictures side by side, row after row, on white.

    Args:
        images: at least one; each stands in the middle of a cell as large as the largest picture. Pictures larger than
            `LARGEST_CELL` are scaled down to it.
        path: the file to write, atomically; its suffix decides the format.
        columns: pictures per row.
        gap: pixels between and around the cells.

    Returns:
        `path`. The picture is columns * (cell width + gap) + gap wide (fewer columns if there are fewer pictures) and
        rows * (cell height + gap) + gap high.

    Raises:
        UserError: no picture, or the file cannot be written.
    """
    if not images:
        raise UserError("there is no picture to put into the grid: give at least one")
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    images = [_shrunk(image) for image in images]
    width, height = max(i.width for i in images), max(i.height for i in images)
    grid = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for k, image in enumerate(images):
        x = gap + k % columns * (width + gap) + (width - image.width) // 2
        y = gap + k // columns * (height + gap) + (height - image.height) // 2
        grid.paste(image, (x, y), image)
    try:
        return write_atomically(path, grid.save)
    except (OSError, ValueError) as error:
        raise UserError(f"the grid {path} cannot be written ({error}): choose another --grid, ending in .png") from None


def _shrunk(image: Image.Image) -> Image.Image:
    """The picture with its transparency, no larger than `LARGEST_CELL`."""
    small = image.convert("RGBA")
    small.thumbnail(LARGEST_CELL, Image.Resampling.LANCZOS)
    return small


def generate_captcha_data(config: GeneratorConfig) -> list[Path]:
    """Write `config.count` captchas as parquet shards `train-00000-of-00003.parquet`, ... into `config.out`.

    Each shard appears whole or not at all. Shards that an earlier run with the same settings finished are kept.

    Returns:
        The paths of all shards.

    Raises:
        UserError: bad settings, or `out` holds parquet files of other settings.
    """
    settings = CaptchaSettings.from_config(config)
    for name in ("count", "shard_size", "workers"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}: give 1 or more")
    for style in settings.styles:
        find_fonts(settings.texts_of(style)[0], settings.fonts)  # complain once and here, not in every worker
    if config.pictures:
        others = [config.out, *([config.grid] if config.grid else [])]
        check_pictures(Path(config.pictures), map(Path, others))
    out = Path(config.out)
    stamp = shard_stamp(config, settings)
    paths = [shard_path(config, i) for i in range(math.ceil(config.count / config.shard_size))]
    done = finished_shards(out, stamp)
    if config.grid:
        first = range(min(config.count, 100))
        save_grid_image([Image.open(io.BytesIO(render_captcha(i, settings)[0])) for i in first], config.grid)
    todo = [i for i, path in enumerate(paths) if path.name not in done]
    try:
        write_shards(config, settings, stamp, paths, todo)
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error}): make room or choose another --out") from None
    if missing := [path for path in paths if not path.exists()]:
        raise UserError(
            f"{len(missing)} of {len(paths)} shards were drawn elsewhere: give an --out that all machines share"
        )
    kept = f" ({len(paths) - len(todo)} of these shards were there already)" if len(todo) < len(paths) else ""
    print(f"{config.count} captchas in {len(paths)} shard(s) in {out}{kept}")
    if config.pictures:
        write_pictures(paths, Path(config.pictures))
        print(f"{config.count} picture files, and labels.csv, in {config.pictures}")
    return paths


def main() -> None:
    """Command line."""
    about = "Draw synthetic captchas into parquet shards (Hugging Face image layout)."
    config = parse_config(GeneratorConfig, f"{about} Styles: {style_names()}, or a .yaml file.")
    if config.list:
        print(list_ops() + "\n" + list_styles())
    elif config.check_fonts:
        print(check_packages())
    else:
        generate_captcha_data(config)


if __name__ == "__main__":
    run(main)
