"""Random schemes: what a captcha library with its own mind, or its user, might have settled on.

A scheme is a `Style` drawn from the registry; `random_scheme(n)` is always the same one. For each stage a scheme has a
number of ops (`HOW_MANY`), and all ops of the stage race for these places: an op's time of arrival is an exponential
number divided by its weight, and depends on nothing but the scheme's number and the op's name. So a new op in the
registry changes no scheme that it does not get into.

Held out: among the ops that are tagged `split`, one combination of first arrivals in ten (by a hash), and one font in
ten, are for measuring alone; a model trained on the other schemes meets none of them.
"""

from __future__ import annotations

import random
import zlib
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate, count
from typing import Any

import numpy as np

from captcha_reader.errors import UserError
from captcha_reader.generator.ops.degradation import Enlarge, Noise
from captcha_reader.generator.randomness import Names, Numbers, hash64, mix64, to_floats
from captcha_reader.generator.registry import OPS, Op, Stage
from captcha_reader.generator.styles import STYLES, Style, load_style

MIXED = "mixed"  # draws one of the named styles for every picture
SCHEMES, HELD_OUT_SCHEMES = "schemes", "heldout"  # draw a scheme of the one or the other part for every picture
RARE_SCHEMES = "rare"  # draws one for training in which ops that few schemes have are likely
DRAWN = (MIXED, SCHEMES, HELD_OUT_SCHEMES, RARE_SCHEMES)
STYLE_FILES = (".yaml", ".yml")  # what ends the name of a file with a style
NUMBER_OF_SCHEMES = 1_000_000  # that these draw from
RARER = 12.0  # times the weight of ops for training alone in rare schemes
FAVOR = 8.0  # times the weight of ops that another one of the scheme favors

DIGITS, UPPER, LOWER = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
UNLIKE = (
    "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz"  # what captchas use that spare their readers 0 and O
)
CHARACTERS = (  # sets of them, and how often each is drawn
    (DIGITS, UPPER, LOWER, DIGITS + UPPER, DIGITS + LOWER, UPPER + LOWER, UNLIKE, ""),
    (14, 13, 13, 17, 17, 4, 12, 10),
)

ASPECTS = (((1.7, 2.4), (2.4, 3.6), (3.6, 5), (5, 8)), (22, 48, 20, 10))  # width by height, and how often
WIDEST = 360  # pixels, unless the letters need more: longer texts get lower pictures, as pages have no room for more

# Pixels (lowest, highest), and how often. A height that most captchas have, now and then a tiny or a huge one.
HEIGHTS = ((20, 30, 8), (30, 50, 40), (50, 80, 40), (80, 140, 10), (140, 220, 2))
_HEIGHT_LIMITS = list(accumulate(weight for _, _, weight in HEIGHTS))

# Stage: numbers of ops and how often each is drawn. Most libraries leave it at letters, some clutter and a warp.
HOW_MANY: dict[Stage, tuple[tuple[int, ...], tuple[float, ...]]] = {
    Stage.GLYPHS: ((0, 1, 2), (25, 65, 10)),
    Stage.LAYOUT: ((1,), (1,)),
    Stage.LETTERS: ((1, 2, 3, 4, 5), (8, 25, 35, 22, 10)),
    Stage.BACKGROUND: ((1,), (1,)),
    Stage.INK: ((1,), (1,)),
    Stage.DECOR: ((0, 1, 2), (82, 16, 2)),
    Stage.UNDER: ((0, 1, 2, 3, 4), (30, 45, 18, 5, 2)),
    Stage.ACROSS: ((0, 1), (88, 12)),
    Stage.WARP: ((0, 1, 2), (40, 48, 12)),
    Stage.OVER: ((0, 1), (90, 10)),
    Stage.PHOTOMETRIC: ((0, 1), (86, 14)),
    Stage.DEGRADATION: ((0, 1, 2, 3), (42, 37, 16, 5)),
}
# Two schemes in five are mild, as most captchas that people meet are: at most so many ops of a stage, one unless said.
MILD = 0.4
MOST_MILD = {Stage.LETTERS: 2, Stage.ACROSS: 0, Stage.OVER: 0, Stage.PHOTOMETRIC: 0}


@lru_cache(maxsize=256)
def random_scheme(number: int, held_out: bool = False, rare: bool = False) -> Style:
    """Scheme `number`.

    Args:
        number: any integer; the same number gives the same scheme.
        held_out: from the held-out part, else from the part for training.
        rare: one in which ops for training alone are likely.
    """
    race = _race(tuple(OPS.values()))
    for attempt in count():
        key = f"{number}/{attempt}"
        draw = race.run(key)
        if (zlib.crc32("/".join(split_kinds(race, draw)).encode()) % 10 == 0) == held_out:
            return _draw_scheme(key, race, draw, held_out, rare)
    raise AssertionError("one combination in ten is held out")


@dataclass(frozen=True)
class _Draw:
    """A race that was run: the picture's height, how many places each stage has, and when each op arrives."""

    height: int
    places: list[int]
    arrival: list[float]


class _Race:
    """All ops at the start, and stages with their numbers of places.

    Times come from one 64-bit number of the scheme and one of each name, mixed as SplitMix64 does: a hundred of them in
    the time of one hash.
    """

    def __init__(self, ops: Sequence[type[Op]]) -> None:
        self.ops = [op for op in ops if op.weight > 0]
        self.index = {op.name: i for i, op in enumerate(self.ops)}
        self.runners = [[i for i, op in enumerate(self.ops) if op.stage is stage] for stage in HOW_MANY]
        split = [[i for i in runners if "split" in self.ops[i].tags] for runners in self.runners]
        self.split = [(at, runners) for at, runners in enumerate(split) if runners]
        names = ["height", "mild", *(f"stage {stage.name}" for stage in HOW_MANY), *(op.name for op in self.ops)]
        self.names = np.array([hash64(name) for name in names], np.uint64)
        self.weights = np.array([op.weight for op in self.ops])
        self.tagged = {t: [i for i, op in enumerate(self.ops) if t in op.tags] for t in ("train_only", "heldout")}
        self.foes = [{i for i, other in enumerate(self.ops) if _exclude(op, other)} for op in self.ops]
        self.friends = [[self.index[name] for name in op.favors if name in self.index] for op in self.ops]
        self.limits = [list(accumulate(weights)) for _, weights in HOW_MANY.values()]
        self.numbers = [numbers for numbers, _ in HOW_MANY.values()]
        self.most_mild = [MOST_MILD.get(stage, 1) for stage in HOW_MANY]

    def run(self, key: str) -> _Draw:
        """The race of a scheme."""
        drawn = to_floats(mix64(self.names ^ np.uint64(hash64(f"scheme/{key}"))))
        first = 2 + len(self.numbers)
        height, mild, *picks = drawn[:first].tolist()
        rows = zip(self.numbers, self.limits, picks, strict=True)
        places = [numbers[bisect(limits, at * limits[-1])] for numbers, limits, at in rows]
        if mild < MILD:
            places = [min(pair) for pair in zip(places, self.most_mild, strict=True)]
        return _Draw(_height_at(height), places, (-np.log(1 - drawn[first:]) / self.weights).tolist())


def _height_at(part: float) -> int:
    """The height of a picture than which this part of all schemes are lower."""
    at = part * _HEIGHT_LIMITS[-1]
    band = bisect(_HEIGHT_LIMITS, at)
    low, high, weight = HEIGHTS[band]
    return round(high - (high - low) * (_HEIGHT_LIMITS[band] - at) / weight)


@lru_cache(maxsize=4)
def _race(ops: tuple[type[Op], ...]) -> _Race:
    return _Race(ops)


def _exclude(op: type[Op], other: type[Op]) -> bool:
    """No scheme has both of them."""
    both_odd = "display" in op.tags and "display" in other.tags
    return both_odd or op.name in other.excludes or other.name in op.excludes


def split_kinds(race: _Race, draw: _Draw) -> list[str]:
    """Of each stage, which op tagged `split` arrives first, if the scheme has any ops of the stage."""
    time = draw.arrival.__getitem__
    return [race.ops[min(runners, key=time)].name if draw.places[at] else "none" for at, runners in race.split]


def _choose(race: _Race, draw: _Draw, held_out: bool, rare: bool) -> list[type[Op]]:
    """The ops of a scheme, of each stage those that arrive first and get on with those before them."""
    height, arrival = draw.height, draw.arrival.copy()
    if rare:
        for at in race.tagged["train_only"]:
            arrival[at] /= RARER
    barred = set(race.tagged["train_only" if held_out else "heldout"])
    chosen: list[type[Op]] = []
    for places, runners in zip(draw.places, race.runners, strict=True):
        if not places:
            continue
        for at in sorted(runners, key=arrival.__getitem__):
            op = race.ops[at]
            if at in barred or height < op.least_height:
                continue
            chosen.append(op)
            barred |= race.foes[at]
            height = min(height, op.most_height or height)
            for friend in race.friends[at]:
                arrival[friend] /= FAVOR
            places -= 1
            if not places:
                break
    return chosen


def _draw_scheme(key: str, race: _Race, draw: _Draw, held_out: bool, rare: bool) -> Style:
    height = draw.height
    chosen = _choose(race, draw, held_out, rare)
    names = {op.name: None for op in chosen}
    numbers = Numbers(f"scheme/{key}", Names(["picture", *names]))
    rng = numbers.of("picture")
    for op in chosen:
        if op.most_height and height > op.most_height:
            height = round(rng.uniform(14, op.most_height))
    text = _text(rng, names, held_out)
    most = text["length"][1]
    low, high = rng.choices(*ASPECTS)[0]
    least = (0.62 if "bitmap" in names else 0.42) * most  # else letters would be too thin to read
    height = min(height, max(round(WIDEST / least), *(op.least_height for op in chosen)))
    aspect = max(min(rng.uniform(low, high), WIDEST / height), least)
    width = round(height * aspect)
    look: dict[str, Any] = {
        "height": (height, height),
        "width": (width, width),
        "mode": "RGBA" if "clear" in names else "L" if rng.random() < 0.15 else "RGB",
        "antialias": rng.random() < 0.85,
        "font_part": "heldout" if held_out else "train",
    }
    enlarged = [Enlarge.sample(rng, height)] if "bitmap" in names and rng.random() < 0.4 else []
    ops = [op.sample(numbers.of(op.name), height) for op in chosen]
    if "faint_ink" in names:  # letters would be lost in strong noise
        ops = [replace(op, deviation=(5, 12)) if isinstance(op, Noise) else op for op in ops]
    return Style(ops=(*ops, *([] if "enlarge" in names else enlarged)), **look, **text)


def _text(rng: random.Random, names: Mapping[str, None], held_out: bool) -> dict[str, Any]:
    """Text settings."""
    fewest = rng.choices(range(3, 9), [6, 30, 22, 26, 8, 8])[0]
    length = (fewest, fewest if rng.random() < 0.6 else min(10, fewest + rng.randint(1, 4)))
    characters, words = rng.choices(*CHARACTERS)[0], ""
    faces = "text" if rng.random() < 0.7 else "all"  # half of all fonts that there are were made to look odd
    if "segments" in names:
        characters = DIGITS
    if characters == DIGITS and rng.random() < 0.3:  # digits alone, in many places
        length = (rng.randint(6, 8),) * 2 if rng.random() < 0.6 else (6, 10)
    if not held_out and "segments" not in names and rng.random() < 0.07:
        words = rng.choice(("lower", "lower", "upper", "title"))
        characters = {"lower": LOWER, "upper": UPPER, "title": LOWER + UPPER}[words]
        fewest = rng.randint(3, 7)
        length = (fewest, min(12, fewest + rng.randint(0, 5)))
        faces = "display" if rng.random() < 0.5 else faces
    elif rng.random() < 0.05:
        faces = "display"
    return {
        "characters": characters,
        "length": length,
        "words": words,
        "font_choice": tuple(rng.random() for _ in range(rng.choices([1, 2, 4, 8], [45, 20, 20, 15])[0])),
        "faces": faces,
        "font_per_letter": rng.random() < 0.5 and not words,
    }


# ---------------------------------------------------------------------------------------------------------------------


def style_names() -> str:
    """All names that `get_style` knows, for a message."""
    return ", ".join([*STYLES, MIXED, SCHEMES, RARE_SCHEMES, HELD_OUT_SCHEMES])


def get_style(style: str | Style, rng: random.Random | None = None) -> Style:
    """The style of a name or of a YAML file; `mixed`, `schemes`, `rare` and `heldout` draw one with `rng`.

    Raises:
        UserError: there is no style of that name; the message lists those there are.
    """
    if isinstance(style, Style):
        return style
    rng = rng or random.Random(0)
    if style == MIXED:
        return rng.choice(list(STYLES.values()))
    if style in (SCHEMES, RARE_SCHEMES, HELD_OUT_SCHEMES):
        number = rng.randrange(NUMBER_OF_SCHEMES)
        return random_scheme(number, held_out=style == HELD_OUT_SCHEMES, rare=style == RARE_SCHEMES)
    if style.endswith(STYLE_FILES):
        return load_style(style)
    if style not in STYLES:
        raise UserError(f"there is no style {style!r}: choose from {style_names()}, or a .yaml file of your own")
    return STYLES[style]


def list_styles() -> str:
    """Every style, a line each, for `--list`."""
    drawn = {
        MIXED: "one of the styles above for every picture",
        SCHEMES: "another random scheme for every picture, of the part for training",
        RARE_SCHEMES: "the same, and likely one with some odd idea",
        HELD_OUT_SCHEMES: "the same, of the part for measuring",
    }
    rows = {name: ", ".join(dict.fromkeys(op.name for op in style.ops)) for name, style in STYLES.items()}
    return "styles\n" + "\n".join(f"  {name:<20} {about}" for name, about in (rows | drawn).items())
