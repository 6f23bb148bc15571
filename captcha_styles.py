"""Old place of names that now stand in `captcha_reader.generator`."""

# ruff: noqa: F401

from captcha_reader.generator.registry import Range
from captcha_reader.generator.schemes import (
    DIGITS,
    HELD_OUT_SCHEMES,
    LOWER,
    MIXED,
    RARE_SCHEMES,
    SCHEMES,
    UPPER,
    get_style,
    random_scheme,
    style_names,
)
from captcha_reader.generator.styles import STYLES, Style
