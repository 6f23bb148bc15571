"""What captchas look like: a `Style` is a tuple of ops plus text settings; the named styles; styles as YAML.

**A new style** is one more entry of `STYLES`; no other place needs a change.
"""

from __future__ import annotations

import math
import types
import typing
import unicodedata
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import captcha_reader.generator.ops  # noqa: F401  (fills the registry)
from captcha_reader.errors import UserError
from captcha_reader.generator.ops.background import Clear, Clouds, Gradient, KaptchaGradient, Plain
from captcha_reader.generator.ops.clutter import Lines, Spots
from captcha_reader.generator.ops.degradation import Blur, Jpeg, Noise, Salt
from captcha_reader.generator.ops.glyphs import Hollow, Weight
from captcha_reader.generator.ops.ink import Ink
from captcha_reader.generator.ops.layout import Bounce, Rotation, Row, Shear
from captcha_reader.generator.ops.photometric import Invert
from captcha_reader.generator.ops.warp import Elastic, KaptchaRipple, Wave
from captcha_reader.generator.randomness import Names
from captcha_reader.generator.registry import OPS, Op, Range, Stage, find_op, limited
from captcha_reader.text import Alphabet

LARGEST_SIDE = 2000  # pixels
MAX_LENGTH = 32  # characters; more do not fit into a picture that anyone would call a captcha
ONE_OF = (Stage.LAYOUT, Stage.BACKGROUND)  # stages of which a picture has one op, whatever a style has


_USUAL = (Row(), Plain(), Ink(level=(0, 120)))  # what a style has that says nothing of their stages
Step = tuple[Stage, int, Op, str]  # when it draws, its place in the style, what, and the name of its random numbers


@dataclass(frozen=True)
class Steps:
    """The ops of a style in groups, each in the order of stages and places.

    Attributes:
        fixed: those that draw in every picture at the same stage.
        moving: clutter, whose stage is drawn for every picture.
        one_of: several ops of a stage of which a picture has one.
        names: of all random numbers that a picture may need: those of text, sizes, fonts, choices and ops.
    """

    fixed: list[Step]
    moving: list[Step]
    one_of: list[list[Step]]
    names: Names


@dataclass(frozen=True)
class Style:
    """How captchas of one kind look. A `Range` is (lowest, highest); a value is drawn from it for every picture."""

    ops: tuple[Op, ...] = ()
    """What is drawn, in the order of their stages; within a stage in this order. Several grounds, or several layouts:
    one of them is drawn for every picture."""
    height: Range = (60, 60)
    """Pixels."""
    width: Range | None = (160, 160)
    """Pixels. None: as wide as the text needs. Too long a text is shrunk to fit."""
    mode: Literal["L", "RGB", "RGBA"] = "RGB"
    """Gray, color, or color with transparency."""
    antialias: bool = True
    """False: hard edges."""
    characters: str = ""
    """Only these, written out (no ranges), as far as the alphabet asked for has them; "": all."""
    length: tuple[int, int] | None = None
    """(fewest, most) characters, within the length asked for; None: that length."""
    words: Literal["", "lower", "upper", "title"] = ""
    """Words of a language, or what could be some, in small letters, capitals, or one capital first; "": any string."""
    fonts: tuple[str, ...] = ()
    """Only matplotlib's fonts whose file name has one of these parts (fonts of `--fonts` always count); (): all."""
    font_choice: tuple[float, ...] = limited((), 0, 1)
    """Only the fonts at these places, 0 to 1, in the list of those that remain; (): all."""
    font_part: Literal["all", "train", "heldout"] = "all"
    """Nine fonts in ten are for training, the others are held out; chosen by file name."""
    faces: Literal["all", "text", "display"] = "all"
    """Only fonts made to be read, or only those made to look odd (scripts, too), as far as there are any."""
    font_per_letter: bool = True
    """Draw a font for every letter, or one for the word."""

    @cached_property
    def steps(self) -> Steps:
        """The ops in the order of their stages, and what they are called for their random numbers."""
        stages = [op.stage for op in self.ops]
        given = [*self.ops, *[op for op in _USUAL if op.stage not in stages]]
        seen: dict[str, int] = {}
        fixed: list[Step] = []
        moving: list[Step] = []
        groups: tuple[list[Step], ...] = tuple([] for _ in ONE_OF)
        for place, op in enumerate(given):
            # The number counts the ops of one name, so that another op before it changes nothing.
            number = seen[op.name] = seen.get(op.name, -1) + 1
            step = (op.stage, place, op, f"{op.name}/{number}")
            if op.stage in ONE_OF:
                groups[ONE_OF.index(op.stage)].append(step)
            else:
                (moving if getattr(op, "above", 0) else fixed).append(step)
        names = ["text", "picture", "fonts", *(name for *_, name in chain(fixed, moving, *groups))]
        names += [f"{name}/stage" for *_, name in moving]
        several = [steps for steps in groups if len(steps) > 1]
        names += [steps[0][0].name for steps in several]
        fixed += [steps[0] for steps in groups if len(steps) == 1]
        return Steps(sorted(fixed), moving, several, Names(names))

    def find(self, name: str) -> Op | None:
        """Its first op of that name."""
        return next((op for op in self.ops if op.name == name), None)

    def with_op(self, name: str, **changes: Any) -> Style:
        """The style with fields of its first op of that name changed, or with one more such op."""
        found = self.find(name)
        if found is None:
            return replace(self, ops=(*self.ops, find_op(name)(**changes)))
        return replace(self, ops=tuple(replace(op, **changes) if op is found else op for op in self.ops))

    def without(self, *names: str) -> Style:
        """The style without its ops of these names."""
        return replace(self, ops=tuple(op for op in self.ops if op.name not in names))


STYLES: dict[str, Style] = {
    # Colored turned letters, spots, lines, elastic transform, on a light ground.
    "classic": Style(
        ops=(
            *(Row(), Rotation(20), Shear(0.15), Bounce(0.08)),
            *(Plain(), Gradient(), Ink(level=(0, 120))),
            Spots(level=(0, 160), count=(15, 40)),
            Lines(level=(0, 160), count=(1, 3), kinds=("straight", "arc"), width=(1, 1.6), above=0.5),
            Elastic((1, 2.5)),
        ),
    ),
    # The look of the public "captcha version 2" set, which the Kaptcha library drew with its default settings.
    "line": Style(
        height=(50, 50),
        width=(200, 200),
        mode="L",
        # Sizes, widths and places below were fitted to the median picture of each first letter of the real set.
        fonts=("DejaVuSans-Bold.ttf", "DejaVuSansMono-Bold.ttf"),
        ops=(
            Weight((-0.02, 0.01)),
            Row((0.78, 0.82), (0.84, 0.96), (-0.06, -0.02), margin=4, left=(29, 31), baseline=0.86),
            *(Rotation(2), Shear(0.05), Bounce(0.02)),
            *(KaptchaGradient(), Ink(level=(0, 0), tint=0), KaptchaRipple()),
            Lines(level=(0, 0), tint=0, count=(2, 2), kinds=("taper",), above=1),
            Jpeg((75, 75)),
        ),
    ),
    # Colored letters of one font, often small and far apart, on a transparent ground, crossed by thin black lines; as
    # wide as the text needs.
    "thin": Style(
        height=(80, 80),
        width=None,
        mode="RGBA",
        font_per_letter=False,
        ops=(
            *(Hollow(probability=0.1), Weight((-0.01, 0.02))),
            Row((0.32, 0.64), spacing=(-0.05, 1.5), margin=45),
            *(Rotation(20), Shear(0.15), Bounce(0.05)),
            *(Clear(), Ink(level=(20, 230), tint=1)),
            Lines(level=(0, 0), tint=0, count=(0, 7), width=(1, 1), above=1),
        ),
    ),
    # Words bent by sine waves, dark on light or light on dark.
    "wave": Style(
        height=(50, 80),
        width=(140, 240),
        font_per_letter=False,
        ops=(
            *(Row(spacing=(-0.04, 0.06)), Rotation(8), Shear(0.15), Bounce(0.08)),
            *(Plain(), Gradient(), Ink(level=(0, 120), per_letter=False)),
            Lines(level=(0, 160), count=(0, 2), kinds=("wave",), width=(1, 3), above=0.5),
            *(Wave((2, 5)), Invert(0.5)),
        ),
    ),
    # Salt and pepper, speckle and clouds behind the text.
    "noise": Style(
        height=(40, 70),
        width=(120, 220),
        ops=(
            *(Row(), Rotation(12), Shear(0.15), Bounce(0.08)),
            *(Clouds((170, 255)), Clouds((170, 255)), Gradient((170, 255)), Ink(level=(0, 70))),
            Spots(level=(0, 160), count=(0, 60), radius=(0, 1)),
            Lines(level=(0, 160), count=(0, 3), kinds=("straight", "arc", "wave"), width=(1, 2), above=0.5),
            *(Invert(0.25), Blur((0, 0.6)), Noise((5, 28)), Salt((0, 0.06))),
        ),
    ),
    # Plain small words with the traces of JPEG.
    "clean": Style(
        height=(22, 40),
        width=(70, 150),
        font_per_letter=False,
        ops=(
            *(Row((0.6, 0.8), margin=3), Rotation(3), Shear(0.05), Bounce(0.03)),
            *(Plain((200, 255)), Ink(level=(0, 120), tint=0.5, per_letter=False)),
            *(Invert(0.2), Blur((0, 0.7)), Jpeg((35, 90))),
        ),
    ),
}


# ---------------------------------------------------------------------------------------------------------------------
# Styles as YAML


def style_to_dict(style: Style) -> dict[str, Any]:
    """What `style_from_dict` takes: fields that are not the defaults, and ops as `{name: {field: value}}`."""
    values: dict[str, Any] = {}
    for item in fields(style):
        value = getattr(style, item.name)
        if item.name != "ops" and value != item.default:
            values[item.name] = _plain(value)
    values["ops"] = []
    for op in style.ops:
        changed = {f.name: _plain(getattr(op, f.name)) for f in fields(op) if getattr(op, f.name) != f.default}
        values["ops"].append({op.name: changed} if changed else op.name)
    return values


def style_to_yaml(style: Style) -> str:
    """The style as a text that `load_style` reads again."""
    import yaml

    return yaml.safe_dump(style_to_dict(style), sort_keys=False, default_flow_style=None, width=100)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@lru_cache(maxsize=32)
def load_style(path: str) -> Style:
    """The style in a YAML file: text settings, and `ops`, a list of names or `name: {field: value}`.

    Raises:
        UserError: the file cannot be read or says something that is not possible; the message names op and field.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"the style {path} cannot be read ({error.strerror}): check --style") from None
    # YAML itself has no words for a date that does not exist, nor for lists within lists within lists.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(
            f"the style {path} is not YAML ({' '.join(str(error).split())}): write it as docs/generator.md says"
        ) from None
    return style_from_dict(values, path)


def style_from_dict(values: Any, where: str = "the style") -> Style:
    """The style that `style_to_dict` describes; `where` stands at the head of an error.

    Raises:
        UserError: something in it is not possible; the message names op and field.
    """
    if not isinstance(values, dict) or not isinstance(values.get("ops", []), list):
        raise UserError(f"{where}: write settings such as `height: [60, 60]`, and `ops:` with a list of ops")
    ops = tuple(_read_op(item, f"{where}: op {i}") for i, item in enumerate(values.get("ops", []), 1))
    known = {f.name: f for f in fields(Style) if f.name != "ops"}
    style = Style(ops=ops, **_read_fields(Style, known, {k: v for k, v in values.items() if k != "ops"}, where))
    for name in ("height", "width"):
        span = getattr(style, name)
        if span is not None and not 8 <= span[0] <= span[1] <= LARGEST_SIDE:
            raise UserError(f"{where}: {name} is {list(span)}: give pixels, 8 to {LARGEST_SIDE}")
    if style.length is not None and not 1 <= style.length[0] <= style.length[1] <= MAX_LENGTH:
        raise UserError(f"{where}: length is {list(style.length)}: give 1 or more characters, {MAX_LENGTH} at most")
    if style.characters:
        # Composed as labels are; copies count once.
        characters = "".join(dict.fromkeys(unicodedata.normalize("NFC", style.characters)))
        try:
            style = replace(style, characters=Alphabet(characters).characters)
        except UserError as error:
            raise UserError(f"{where}: characters: {error}") from None
    return style


def _read_op(item: Any, where: str) -> Op:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, dict) or len(item) != 1:
        raise UserError(f"{where} is {item!r}: write a name, or `name: {{field: value}}`")
    name, given = next(iter(item.items()))
    try:
        cls = find_op(str(name))
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    where = f"{where} ({name})"
    if given is not None and not isinstance(given, dict):
        raise UserError(f"{where}: {given!r} is not a list of fields: write `{name}: {{field: value}}`")
    return cls(**_read_fields(cls, {f.name: f for f in fields(cls)}, given or {}, where))


def _read_fields(cls: type, known: dict[str, Any], given: dict[str, Any], where: str) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in given.items():
        if name not in known:
            raise UserError(
                f"{where}: there is no field {name!r}: choose from {', '.join(known) or 'none, it has none'}"
            )
        values[name] = _read_value(value, hints[name], known[name], f"{where}: {name} is {value!r}")
    return values


def _read_value(value: Any, hint: Any, item: Any, wrong: str) -> Any:
    """A value of YAML as the field has it; `wrong` begins the error."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(a for a in arguments if a is not type(None))
        arguments = typing.get_args(hint)
    options = item.metadata.get("options") or (arguments if typing.get_origin(hint) is Literal else None)
    if hint is bool:
        if not isinstance(value, bool):
            raise UserError(f"{wrong}: give true or false")
        return value
    if hint in (int, float):
        return _read_number(value, hint, item, wrong)
    if typing.get_origin(hint) is tuple and arguments[-1] is not Ellipsis:
        pair = value if isinstance(value, list) else [value, value]
        if len(pair) != 2:
            raise UserError(f"{wrong}: give a number, or two as [lowest, highest]")
        low, high = (_read_number(part, arguments[0], item, wrong) for part in pair)
        if low > high:
            raise UserError(f"{wrong}: the lowest comes first, as in [{high}, {low}]")
        return low, high
    if typing.get_origin(hint) is tuple:
        parts = value if isinstance(value, list) else [value]
        if not parts or (arguments[0] is str and not all(isinstance(part, str) for part in parts)):
            raise UserError(f"{wrong}: give a list of {'names' if arguments[0] is str else 'numbers'}")
        if arguments[0] is not str:
            return tuple(_read_number(part, arguments[0], item, wrong) for part in parts)
        if options and (unknown := [part for part in parts if part not in options]):
            raise UserError(f"{wrong}: there is no {unknown[0]!r}: choose from {', '.join(map(str, options))}")
        return tuple(parts)
    if options and value not in options:
        raise UserError(f"{wrong}: choose from {', '.join(repr(option) for option in options)}")
    if not isinstance(value, str):
        raise UserError(f"{wrong}: give a text, in quotation marks if it looks like a number")
    return value


def _read_number(value: Any, kind: type, item: Any, wrong: str) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or (isinstance(value, float) and not math.isfinite(value)):
        raise UserError(f"{wrong}: give a number, or two as [lowest, highest]" if isinstance(item.default, tuple)
                        else f"{wrong}: give a number")  # fmt: skip
    least, most = item.metadata.get("least"), item.metadata.get("most")
    if least is not None and value < least:
        raise UserError(f"{wrong}: give {least:g} or more")
    if most is not None and value > most:
        raise UserError(f"{wrong}: give {most:g} or less")
    return round(value) if kind is int else value


def list_ops() -> str:
    """Every op, a line each, stage by stage, for `--list`."""
    lines = []
    for stage in Stage:
        rows = [op for op in OPS.values() if op.stage is stage]
        if not rows:
            continue
        lines.append(f"{stage.name.lower()}")
        for op in sorted(rows, key=lambda op: op.name):
            tags = f"  [{', '.join(sorted(op.tags - {'split'}))}]" if op.tags - {"split"} else ""
            lines.append(f"  {op.name:<20} {op.summary()} weight {op.weight:g}{tags}")
    return "\n".join(lines)
