"""Colors of the letters (stage INK), and what belongs to each letter: shadow, edge, gloss, tile (stage DECOR)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from captcha_reader.generator.canvas import CAPITAL, Canvas, Layer, Letter
from captcha_reader.generator.fonts import Glyph, shaped_glyph
from captcha_reader.generator.ops.glyphs import ellipse, reshaped, steps, thicken
from captcha_reader.generator.registry import Op, Range, Stage, amount, chosen, limited, ranged, register


@register(stage=Stage.INK, weight=1)
@dataclass(frozen=True)
class Ink(Op):
    """Colors of the letters."""

    level: Range | None = limited(None, 0, 255)
    """Brightness, 0 to 255; None: as `contrast` says."""
    contrast: Range = ranged((100, 255), 255, 40)
    """Brightness levels between the letters and the nearest level of the ground, on the side with more room."""
    tint: float = limited(0.9, 0, 1)
    """0: gray letters, 1: strong colors."""
    per_letter: bool = True
    """A color for every letter, or one for the word."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        canvas.ink_tint = self.tint
        canvas.ink = self.level or self._away_from(canvas.ground)
        if canvas.varied and self.level is None:
            self._by_place(canvas, rng)
            return
        if not self.per_letter:
            canvas.ink_color = canvas.color(rng, canvas.ink, self.tint)
        for letter in canvas.letters:
            letter.color = canvas.ink_color or canvas.color(rng, canvas.ink, self.tint)

    def _away_from(self, ground: Range) -> Range:
        near, far = self.contrast
        low, high = ground
        if low >= 255 - high:
            return max(low - far, 0.0), max(low - near, 0.0)
        return min(high + near, 255.0), min(high + far, 255.0)

    def _by_place(self, canvas: Canvas, rng: random.Random) -> None:
        """Light letters on dark places and dark ones on light places."""
        shared = rng.random()
        for letter in canvas.letters:
            x, y = letter.middle
            reach = max(2, int(0.3 * canvas.size))
            x0, y0 = max(int(x) - reach, 0), max(int(y) - reach, 0)
            part = canvas.pixels[y0 : y0 + 2 * reach, x0 : x0 + 2 * reach]
            level = brightness(cv2.mean(part)) if part.size else 255.0
            low, high = self._away_from((level, level))
            depth = rng.random() if self.per_letter else shared
            wanted = low + depth * (high - low)
            letter.color = canvas.color(rng, (wanted, wanted), self.tint if self.per_letter else 0.3 * self.tint)

    @classmethod
    def sample(cls, rng: random.Random, height: float) -> Ink:
        near = rng.choices([rng.uniform(25, 40), rng.uniform(40, 80), rng.uniform(80, 150), rng.uniform(150, 230)],
                           [2, 4, 34, 60])[0]  # fmt: skip
        far = 255.0 if rng.random() < 0.5 else near + rng.uniform(0, 60)
        if near < 40:
            return cls(contrast=(near, near + 10), tint=rng.choice([0.0, 0.2]), per_letter=False)
        tint, per_letter = rng.choice([0.0, 0.5, 1.0]), rng.random() < 0.4
        if rng.random() < 0.1:  # strong colors of any brightness but the ground's
            near, far, tint, per_letter = 40.0, 255.0, 1.0, rng.random() < 0.7
        return cls(contrast=(near, far), tint=tint, per_letter=per_letter)


def brightness(color: Sequence[float]) -> float:
    """Of a gray or red, green and blue."""
    return 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] if any(color[1:3]) else color[0]


@register(stage=Stage.INK, weight=0.05, tags=["train_only"], favors=["noise", "grain", "blur"])
@dataclass(frozen=True)
class FaintInk(Op):
    """Gray letters that are hardly darker, or lighter, than the ground."""

    contrast: Range = ranged((20, 40), 42, 20, width=1)
    """Brightness levels between the letters and the nearest level of the ground, on the side with more room."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        near = rng.uniform(*self.contrast)
        Ink(contrast=(near, near), tint=0, per_letter=False)(canvas, rng)


def restyled(canvas: Canvas, letter: Letter, effect: Callable[..., Glyph], *arguments: float | str) -> Glyph:
    """The letter's glyph after one more effect, kept for the process as the others are."""
    if canvas.bitmap:
        return effect(letter.glyph, letter.character, canvas.bitmap, *arguments)
    effects = (*canvas.effects, (effect, arguments))
    return shaped_glyph(letter.path, letter.character, canvas.drawn, effects)


def second_color(canvas: Canvas, rng: random.Random, level: Range | None, tone: Range) -> tuple[float, ...]:
    """The color of a layer: of a given brightness, or so far from the ground (0) to the letters (1)."""
    return canvas.color(rng, level or canvas.between(tone), canvas.ink_tint)


# ---------------------------------------------------------------------------------------------------------------------
# Below the letters


@register(stage=Stage.DECOR, weight=26, tags=["split"], least_height=30)
@dataclass(frozen=True)
class Shadow(Op):
    """A copy of each letter lies beside and below it."""

    distance: Range = ranged((0.04, 0.1), 0.04, 0.12)
    """To the side, left or right, as a part of the font size; a little less down."""
    level: Range | None = limited(None, 0, 255)
    """Brightness; None: as `tone` says."""
    tone: Range = ranged((0.2, 0.6), 0.15, 0.7, most=1)
    """From the ground's color (0) to the letters' (1)."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        color = second_color(canvas, rng, self.level, self.tone)
        across = rng.choice((-1, 1)) * rng.uniform(*self.distance) * canvas.size
        down = rng.uniform(0.75 * self.distance[0], self.distance[1]) * canvas.size
        for letter in canvas.letters:
            letter.below.append(Layer(letter.glyph, color, (across, down)))


@register(stage=Stage.DECOR, weight=20, tags=["split"])
@dataclass(frozen=True)
class Edge(Op):
    """Letters have an outline of a second color."""

    thickness: float = amount(0.1, 0.05, 0.12)
    """As a part of the font size."""
    level: Range | None = limited(None, 0, 255)
    """Brightness; None: as `tone` says."""
    tone: Range = ranged((0, 0.6), 0, 0.7, width=1, most=1)
    """From the ground's color (0) to the letters' (1)."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        color = second_color(canvas, rng, self.level, self.tone)
        for letter in canvas.letters:
            letter.below.append(Layer(restyled(canvas, letter, thicken, steps(self.thickness, 0.02)), color))


def _extruded(glyph: Glyph, character: str, size: int, depth: float, side: float) -> Glyph:
    far = max(2, round(depth * size))
    kernel = np.eye(far + 1, dtype=np.uint8)[:: int(side)]
    left, right = (0, far) if side > 0 else (far, 0)
    room = cv2.copyMakeBorder(glyph.mask, 0, far, left, right, cv2.BORDER_CONSTANT)
    # The anchor is where the kernel ends: the shape is drawn out to the right (or left) and down.
    mask = cv2.dilate(room, kernel, anchor=(far if side > 0 else 0, far), borderType=cv2.BORDER_CONSTANT)
    return Glyph(mask, glyph.x - left, glyph.y, glyph.ink)


@register(stage=Stage.DECOR, weight=8, tags=["train_only", "display"], least_height=36)
@dataclass(frozen=True)
class Extrusion(Op):
    """Letters stand out of the picture as solid blocks."""

    depth: float = amount(0.1, 0.06, 0.2)
    """As a part of the font size."""
    tone: Range = ranged((0.3, 0.6), 0.2, 0.6, most=1)
    """Color of the sides, from the ground's (0) to the letters' (1)."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        color, side = second_color(canvas, rng, None, self.tone), rng.choice((-1, 1))
        for letter in canvas.letters:
            letter.below.append(Layer(restyled(canvas, letter, _extruded, steps(self.depth, 0.02), side), color))


def _box(letter: Letter, canvas: Canvas, room: float) -> Glyph:
    """A filled box around a letter, as high as a capital and a little more."""
    scale_x, scale_y = max(letter.scale[0], 1e-3), max(letter.scale[1], 1e-3)
    wide = max(letter.width + 2 * room * canvas.size, 0.6 * canvas.size) / scale_x
    high = (CAPITAL + 0.25 + 2 * room) * canvas.size / scale_y
    mask = np.full((max(2, round(high)), max(2, round(wide))), 255, np.uint8)
    x, y = (letter.glyph.ink - mask.shape[1]) / 2, -CAPITAL / 2 * canvas.size / scale_y - mask.shape[0] / 2
    return Glyph(mask, round(x), round(y), letter.glyph.ink)


@register(stage=Stage.DECOR, weight=7, tags=["train_only"], excludes=["spacing_jitter", "opacity"])
@dataclass(frozen=True)
class Tiles(Op):
    """Each letter has a tile of its own, letters and ground with their colors exchanged."""

    room: float = amount(0.1, 0.12, 0.04)
    """Beyond the letter, on each side, as a part of the font size."""
    every: float = amount(1, 1, 0.6, most=1)
    """Probability of a letter to have one."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        for letter in canvas.letters:
            if rng.random() < self.every:
                letter.below.insert(0, Layer(_box(letter, canvas, self.room), letter.color))
                letter.color = canvas.color(rng, canvas.ground, canvas.ground_tint)


@register(stage=Stage.DECOR, weight=10, tags=["train_only"], excludes=["tiles"])
@dataclass(frozen=True)
class Opacity(Op):
    """Letters let through what is below them, other letters, too."""

    part: Range = ranged((0.6, 0.9), 0.9, 0.45, most=1)
    """Of what is below that a letter hides."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        part = rng.uniform(*self.part)
        for letter in canvas.letters:
            letter.opacity = part


# ---------------------------------------------------------------------------------------------------------------------
# On the letters


def _half(glyph: Glyph, character: str, size: int, angle: float, place: float) -> Glyph:
    """What lies beyond a straight line through the glyph; `place`: how far off its middle, in halves of the size."""
    h, w = glyph.mask.shape
    down, across = -glyph.y - CAPITAL / 2 * size, w / 2
    y = ((np.arange(h) - down) * math.sin(angle) - place * size / 2)[:, None]
    beyond = (np.arange(w) - across) * math.cos(angle) + y
    return reshaped(glyph, cv2.min(glyph.mask, np.clip(127 + 127 * beyond, 0, 255).astype(np.uint8)))


@register(stage=Stage.DECOR, weight=14, tags=["train_only"], least_height=28)
@dataclass(frozen=True)
class TwoTones(Op):
    """Strokes of a letter have two or three tones, with straight borders between."""

    tones: int = amount(2, 2, 3)
    """Number of tones, 2 or 3."""
    apart: float = amount(0.35, 0.2, 0.5, most=1)
    """How far further tones are from the letters' color to the ground's."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        angle = rng.choice((0.0, 0.25, 0.5, 0.75, 1.0)) * math.pi
        places = (0.0,) if self.tones < 3 else (-0.35, 0.3)
        tones = [rng.uniform(0.5, 1) * self.apart * (1 if i % 2 == 0 else 0.5) for i in range(len(places))]
        ground = cv2.mean(canvas.pixels)[: canvas.channels]
        for letter in canvas.letters:
            for place, tone in zip(places, tones, strict=True):
                color = tuple(a + tone * (b - a) for a, b in zip(letter.color, ground, strict=True))
                letter.above.append(Layer(restyled(canvas, letter, _half, angle, place), color))


def _gleam(glyph: Glyph, character: str, size: int) -> Glyph:
    """The part of the inside of strokes that lies in the upper half of a capital."""
    inside = cv2.erode(glyph.mask, ellipse(max(2, size // 24)))
    h, _ = glyph.mask.shape
    rows = np.arange(h) + glyph.y  # from the base line
    fade = np.clip(1.3 + rows / (CAPITAL * size) * 2.2 + 1, 0, 1)  # 1 below, 0 at the top of a capital
    return reshaped(glyph, (inside * (1 - fade)[:, None]).astype(np.uint8))


@register(stage=Stage.DECOR, weight=8, tags=["train_only", "display"], least_height=36)
@dataclass(frozen=True)
class Gloss(Op):
    """The upper parts of letters shine."""

    opacity: float = amount(0.6, 0.3, 0.75, most=1)
    """Of the shine."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        white = (255.0,) * canvas.channels
        for letter in canvas.letters:
            dark = max(letter.color[:3]) < 200
            color = white if dark else tuple(0.55 * c for c in letter.color[:3]) + letter.color[3:]
            letter.above.append(Layer(restyled(canvas, letter, _gleam), color, opacity=self.opacity))


def _lit(glyph: Glyph, character: str, size: int, part: float, side: float) -> Glyph:
    """The edges of a letter that look up and left (`side` 1), or down and right (-1)."""
    far = max(1, round(part * size)) * int(side)
    move = np.array(((1, 0, far), (0, 1, far)), np.float32)
    moved = cv2.warpAffine(glyph.mask, move, glyph.mask.shape[::-1])
    return reshaped(glyph, cv2.subtract(glyph.mask, moved))


@register(stage=Stage.DECOR, weight=9, tags=["train_only", "display"], least_height=30)
@dataclass(frozen=True)
class Bevel(Op):
    """Letters have slanting edges, light on one side and dark on the other."""

    width: float = amount(0.04, 0.02, 0.06)
    """Of the edges, as a part of the font size."""
    opacity: float = amount(0.7, 0.4, 0.8, most=1)
    """Of the light and the dark."""
    lit_from: str = chosen("above", "above", "below")
    """Where the light comes from: `above` left or `below` right."""

    def __call__(self, canvas: Canvas, rng: random.Random) -> None:
        side = 1 if self.lit_from == "above" else -1
        light, dark = (255.0,) * canvas.channels, (0.0, 0.0, 0.0, 255.0)[: canvas.channels]
        part = steps(self.width, 0.01)
        for letter in canvas.letters:
            for color, way in ((light, side), (dark, -side)):
                letter.above.append(Layer(restyled(canvas, letter, _lit, part, way), color, opacity=self.opacity))
