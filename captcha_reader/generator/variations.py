"""One op of a style at a time, weaker and stronger: what does it cost a reader, and what people?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from captcha_reader.errors import UserError
from captcha_reader.generator.registry import Op
from captcha_reader.generator.schemes import DRAWN, get_style
from captcha_reader.generator.styles import Style


def op_variations(name: str) -> Iterator[tuple[str, list[tuple[str, Style]]]]:
    """The styles with one op changed.

    Args:
        name: of a style, or a YAML file.

    Yields:
        The name of each op that has a strength, and the style with it `weak`, as it `is`, and `strong`.

    Raises:
        UserError: there is no such style, or it is another one for every picture.
    """
    if name in DRAWN:
        raise UserError(f"{name} draws another style for every picture, so there is no one style to vary: name one")
    style = get_style(name)
    height = sum(style.height) / 2
    for place, op in enumerate(style.ops):
        weak, strong = (_at(op, strength, height) for strength in (0.0, 1.0))
        if weak == strong:  # it has no field with a strength
            continue
        changed = {"weak": weak, "is": op, "strong": strong}
        yield (
            op.name,
            [
                (level, dataclasses.replace(style, ops=(*style.ops[:place], other, *style.ops[place + 1 :])))
                for level, other in changed.items()
            ],
        )


def _at(op: Op, strength: float, height: float) -> Op:
    """The op with the fields that have limits at one place between them, and all others as they are."""
    there = type(op).at(strength, height)
    limited = [field.name for field in dataclasses.fields(op) if "limits" in field.metadata]
    return dataclasses.replace(op, **{name: getattr(there, name) for name in limited})
