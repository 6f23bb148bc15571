"""What an op is, the order in which ops draw, and the registry that lists them all.

An op is a frozen dataclass in a file of `ops/`:

    @register(stage=Stage.WARP, weight=3)
    @dataclass(frozen=True)
    class StripShift(Op):
        "The picture is cut into strips; each moves along itself."

        shift: Range = ranged((1, 4), weak=0.02, strong=0.12, per_height=True)
        "Pixels, at most."

        def __call__(self, canvas: Canvas, rng: random.Random) -> None:
            ...

The limits `weak` and `strong` of its fields are all that random schemes, the gallery and the tests need to know of it.
"""

from __future__ import annotations

import enum
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from captcha_reader.errors import UserError

if TYPE_CHECKING:
    from captcha_reader.generator.canvas import Canvas

Range = tuple[float, float]
OpClass = TypeVar("OpClass", bound="type[Op]")
LONGEST = 5000  # pixels, the largest number that a field takes of them

TAGS = {
    "train_only": "never in held-out schemes",
    "heldout": "in held-out schemes alone, so that training never meets it",
    "display": "letters made to look odd rather than to be read: rarer still, and one at a time",
    "split": "its presence decides, with others', which schemes are held out",
}


class Stage(enum.IntEnum):
    """The fixed order of drawing. Within a stage ops draw in the style's order."""

    GLYPHS = 1
    """Shapes of the letters, before they have a place."""
    LAYOUT = 2
    """Sizes and places of the letters; exactly one op, by default `row`."""
    LETTERS = 3
    """Each letter leaves its place: turns, leans, moves, is larger or narrower."""
    BACKGROUND = 4
    """The ground; exactly one op, by default `plain`. From here on there are pixels."""
    INK = 5
    """Colors of the letters, by default `ink`."""
    DECOR = 6
    """What belongs to each letter: shadow, edge, tile, gloss."""
    UNDER = 7
    """Clutter below the letters."""
    TEXT = 8
    """The letters are drawn; no op says this stage."""
    ACROSS = 9
    """What crosses the letters and is bent with them."""
    WARP = 10
    """The picture so far is bent."""
    OVER = 11
    """Clutter above the letters, unbent. Clutter with `above` moves here from UNDER."""
    PHOTOMETRIC = 12
    """Colors of the whole picture."""
    DEGRADATION = 13
    """What a camera, a printer or a file format does to it."""


def ranged(
    default: Range,
    weak: float,
    strong: float,
    *,
    per_height: bool = False,
    width: float = 0.5,
    least: float | None = 0,
    most: float | None = None,
) -> Any:
    """A field (lowest, highest); a value is drawn between the two for every picture.

    Args:
        default: of the field.
        weak, strong: the values of the least and the most visible effect that random schemes use; `weak` may be the
            larger one.
        per_height: those two are parts of the picture's height; the field is in pixels.
        width: a scheme's range spans up to this part of (weak, strong).
        least, most: smallest and largest value that a user may write; None: far from all that is of use.
    """
    drawn = {"limits": (weak, strong), "per_height": per_height, "width": width}
    return field(default=default, metadata=drawn | _limits(weak, strong, per_height, least, most))


def amount(
    default: float,
    weak: float,
    strong: float,
    *,
    per_height: bool = False,
    least: float | None = 0,
    most: float | None = None,
) -> Any:
    """A field with one number; arguments as `ranged`."""
    drawn = {"limits": (weak, strong), "per_height": per_height}
    return field(default=default, metadata=drawn | _limits(weak, strong, per_height, least, most))


def _limits(weak: float, strong: float, per_height: bool, least: float | None, most: float | None) -> dict[str, float]:
    """The smallest and the largest value: numbers beyond would take all memory, or are more than OpenCV can hold."""
    if most is None:
        most = LONGEST if per_height else max(1.0, 10 * abs(weak), 10 * abs(strong))
    return {"least": -most if least is None else least, "most": most}


def chosen(default: Any, *choices: Any, least: float = 0, most: float = 1) -> Any:
    """A field that schemes set to one of `choices`, each as likely; the gallery shows the default. Where they are
    numbers, a user may write any from `least` to `most`."""
    options = {"options": tuple(dict.fromkeys(choices)), "least": least, "most": most}
    return field(default=default, metadata={"choices": choices} | options)


def limited(default: Any, least: float, most: float) -> Any:
    """A field that takes numbers from `least` to `most`; schemes leave it as it is."""
    return field(default=default, metadata={"least": least, "most": most})


def one_of(default: Any, *options: str) -> Any:
    """A field that takes one of `options`, or several of them in a tuple; schemes leave it as it is."""
    return field(default=default, metadata={"options": options})


@dataclass(frozen=True)
class Op:
    """One thing that happens to a captcha. Its fields are what a style can set; lengths are pixels unless said so."""

    name: ClassVar[str] = ""
    stage: ClassVar[Stage]
    weight: ClassVar[float] = 0
    tags: ClassVar[frozenset[str]] = frozenset()
    excludes: ClassVar[frozenset[str]] = frozenset()
    favors: ClassVar[frozenset[str]] = frozenset()
    least_height: ClassVar[int] = 0
    """Pixels; random schemes that are lower do without it."""
    most_height: ClassVar[int] = 0
    """Pixels; a random scheme with it is no higher. 0: as high as any."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        """Draw into the canvas, with `rng` as the only source of randomness."""
        raise NotImplementedError

    def stage_of(self, rng: random.Random) -> Stage:
        """The stage in which it draws this time; only clutter has a choice."""
        return self.stage

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Op:
        """An op of this kind for a random scheme whose pictures are so many pixels high."""
        return cls(**cls.sample_fields(rng, height))

    @classmethod
    def sample_fields(cls, rng: random.Random, height: float) -> dict[str, Any]:
        """Values for `sample`; a family of ops draws here what its ops share."""
        return {name: draw(rng, height) for name, draw in _draws(cls)}  # type: ignore[arg-type]  # a class can be hashed

    @classmethod
    def at(cls, strength: float, height: float) -> Op:
        """The op with its fields at one place between weak (0) and strong (1), for the gallery and the tests."""
        values: dict[str, Any] = {}
        for name, default, data in _drawn_fields(cls):  # type: ignore[arg-type]  # a class can be hashed
            if "limits" in data:
                weak, strong = _scaled(data, height)
                value = weak + strength * (strong - weak)
                values[name] = (value, value) if isinstance(default, tuple) else _whole(default, value)
        return cls(**values)

    @classmethod
    def summary(cls) -> str:
        """The first sentence of its docstring."""
        text = " ".join((cls.__doc__ or "").split())
        return text.split(". ")[0].rstrip(".") + "."


@lru_cache(maxsize=1024)
def _drawn_fields(cls: type[Op]) -> list[tuple[str, Any, Mapping[str, Any]]]:
    """Name, default and metadata of the fields that schemes draw."""
    return [(f.name, f.default, f.metadata) for f in fields(cls) if {"choices", "limits"} & set(f.metadata)]


@lru_cache(maxsize=1024)
def _draws(cls: type[Op]) -> list[tuple[str, Callable[[random.Random, float], Any]]]:
    """Names of the fields that schemes draw, and for each what draws it, from random numbers and a height."""
    return [(name, _field_draw(default, data)) for name, default, data in _drawn_fields(cls)]  # type: ignore[arg-type]


def _field_draw(default: Any, data: Mapping[str, Any]) -> Callable[[random.Random, float], Any]:
    if "choices" in data:
        choices = data["choices"]
        return lambda rng, height: rng.choice(choices)
    if isinstance(default, tuple):
        width = data["width"]
        if data["per_height"]:
            return lambda rng, height: around(rng, *_scaled(data, height), width)
        first, second = _scaled(data, 1)
        return lambda rng, height: around(rng, first, second, width)
    if data["per_height"] or isinstance(default, int):
        return lambda rng, height: _whole(default, rng.uniform(*_scaled(data, height)))
    weak, strong = _scaled(data, 1)
    return lambda rng, height: rng.uniform(weak, strong)


def _scaled(data: Any, height: float) -> Range:
    weak, strong = data["limits"]
    if data["per_height"]:
        weak, strong = weak * height, strong * height
    least = data["least"]
    return (weak, strong) if least is None else (max(weak, least), max(strong, least))


def _whole(default: Any, value: float) -> float:
    return round(value) if isinstance(default, int) and not isinstance(default, bool) else value


def around(rng: random.Random, first: float, second: float, width: float = 0.5) -> Range:
    """A range between two numbers that spans at most the part `width` of the way."""
    low, high = (first, second) if first < second else (second, first)
    draw = rng.random
    span = (high - low) * width * draw()
    start = low + (high - span - low) * draw()
    return start, start + span


OPS: dict[str, type[Op]] = {}


def register(
    *,
    stage: Stage,
    weight: float = 1,
    tags: Iterable[str] = (),
    excludes: Iterable[str] = (),
    favors: Iterable[str] = (),
    least_height: int = 0,
    most_height: int = 0,
) -> Callable[[OpClass], OpClass]:
    """Add an op to the registry, under the name of its class in small letters (`StripShift`: `strip_shift`).

    Args:
        stage: when it draws.
        weight: how often random schemes take it, against the others of its stage; 0: never.
        tags: of `TAGS`.
        excludes: names of ops that a scheme with this one does without.
        favors: names of ops of later stages that a scheme with this one takes more often, as real captchas do.
        least_height: pixels; schemes that are lower do without it.
        most_height: pixels; schemes with it are no higher; 0: as high as any.
    """
    if unknown := set(tags) - set(TAGS):
        raise ValueError(f"unknown tags {sorted(unknown)}: choose from {', '.join(TAGS)}")

    def add(cls: OpClass) -> OpClass:
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        cls.stage, cls.weight, cls.tags = stage, weight, frozenset(tags)
        cls.excludes, cls.favors = frozenset(excludes), frozenset(favors)
        cls.least_height, cls.most_height = least_height, most_height
        if cls.name in OPS and OPS[cls.name].__module__ != cls.__module__:
            raise ValueError(f"there are two ops of the name {cls.name}: rename one")
        OPS[cls.name] = cls
        return cls

    return add


RENAMED = {"colour_fringe": "color_fringe"}  # names in users' files that are read for one more release


def find_op(name: str) -> type[Op]:
    """The op of a name, also of one that it had in the last release.

    Raises:
        UserError: there is none; the message lists those there are.
    """
    name = RENAMED.get(name, name)
    if name not in OPS:
        raise UserError(f"there is no op {name!r}: choose from {', '.join(sorted(OPS))}")
    return OPS[name]
