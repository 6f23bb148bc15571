"""Fresh captchas to train on: what a stream draws, what it is measured on, and what its checkpoint says of it.

A stream is endless: picture `i` of its settings is the same on any machine that has the same fonts and the same version
of the generator, which its fingerprint holds to. `data_loader.StreamDataset` gives the pictures to the training.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import yaml

from captcha_reader.config import ALPHANUMERIC, STREAM_EPOCH, GeneratorConfig, TrainConfig
from captcha_reader.dataset.folders import GENERATED
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT
from captcha_reader.generator.recipe_fonts import describe_fonts, link_recipe_fonts
from captcha_reader.generator.render import GENERATOR_VERSION, CaptchaSettings, render_captcha

RECIPE = "recipe"  # a value of `--fonts`
RECIPE_FILE = ROOT / "configs" / "reader.yaml"
# Settings that another run of the recipe may have: its length, its place, and how a machine works on it.
FREE = {
    "pictures",
    "epochs",  # those of a stream follow from its pictures
    "data",
    "out",
    "resume",
    "save_every",
    "stop_after",
    "progress",
    "tracker",
    "threads",
    "workers",
    "cpu",
}
HELD_OUT_PICTURES = 1000  # that a stream is validated on, and as many that it is tested on


@dataclasses.dataclass(frozen=True)
class Stream:
    """What a training on fresh captchas draws.

    Attributes:
        settings: of the captchas to train on.
        held_out: of those to validate and test on.
        epochs: of `count` pictures each.
        count: pictures per epoch.
        origin: for the provenance: generator, styles, fonts, whether they are the recipe's.
        fonts: name and hash of each font.
    """

    settings: CaptchaSettings
    held_out: CaptchaSettings
    epochs: int
    count: int
    origin: dict[str, Any]
    fonts: list[dict[str, str]]

    @property
    def info(self) -> dict[str, Any]:
        """What dataset.json says of a dataset on disk."""
        low, high = self.settings.length
        return {
            "alphabet": self.settings.alphabet,
            "max_length": high,
            "lengths": dict.fromkeys(range(low, high + 1), 0),
            "sources": [f"a stream of the styles {', '.join(map(str, self.settings.styles))}"],
            "fingerprint": hashlib.sha256(json.dumps(self.origin, sort_keys=True).encode()).hexdigest(),
        }

    def draw_splits(self) -> dict[str, tuple[list[bytes], list[str]]]:
        """PNG files and texts: the first of the stream, to check sizes and labels by, and those held out."""
        parts = {
            "train": (self.settings, 0),
            "validation": (self.held_out, 0),
            "test": (self.held_out, HELD_OUT_PICTURES),
        }
        splits = {}
        for split, (settings, first) in parts.items():
            count = min(HELD_OUT_PICTURES, self.count)
            drawn = [render_captcha(first + i, settings) for i in range(count)]
            splits[split] = ([png for png, _ in drawn], [text for _, text in drawn])
        return splits


def is_recipe(config: TrainConfig) -> bool:
    """Whether a run is one of `configs/reader.yaml`, whatever its length."""
    recipe = TrainConfig(**yaml.safe_load(RECIPE_FILE.read_text(encoding="utf-8")))
    names = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in FREE]
    return all(getattr(config, name) == getattr(recipe, name) for name in names)


def open_stream(config: TrainConfig) -> Stream:
    """The stream that a training asks for.

    Raises:
        UserError: unknown style, bad alphabet or length, no usable font, the recipe's fonts are missing, or a style
            would be both trained and measured on.
    """
    named = (config.synthetic_style, config.held_out_style)
    drawn, measured = ({style.strip() for style in styles.split(",")} for styles in named)
    if both := sorted(drawn & measured):
        raise UserError(
            f"the style {both[0]} is in --synthetic_style and in --held_out_style: leave it out of one, or the "
            "reader is measured on what it has learned"
        )
    pictures = config.pictures or 0
    fonts = config.fonts
    if fonts == RECIPE:
        fonts = str(link_recipe_fonts(ROOT / "data" / GENERATED / "recipe-fonts"))
    wanted = GeneratorConfig(
        style=config.synthetic_style,
        alphabet=config.alphabet or ALPHANUMERIC,
        length=config.synthetic_length,
        seed=config.seed,
        fonts=fonts,
    )
    settings = CaptchaSettings.from_config(wanted)
    held_out = CaptchaSettings.from_config(dataclasses.replace(wanted, style=config.held_out_style))
    described = describe_fonts(fonts, settings.alphabet)  # also loads them, once for all loader processes
    epochs = max(1, round(pictures / STREAM_EPOCH))
    origin = {
        "generator": GENERATOR_VERSION,
        "styles": config.synthetic_style,
        "length": config.synthetic_length,
        "seed": config.seed,
        "fonts": {name: described[name] for name in ("count", "sha256")},
        "recipe": is_recipe(config),
    }
    return Stream(settings, held_out, epochs, pictures // epochs, origin, described["files"])
