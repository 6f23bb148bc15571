"""Ten captchas of web apps of 2012 to 2025: canvas, SVG and byte fonts, as drawn in Node, Go, Rust and browsers."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import cv2
import numpy as np
from PIL import Image, ImageDraw

from .tools import (
    SAFE,
    SAFE_CAPITALS,
    SAFE_LOWER,
    SAFE_MIXED,
    SAFE_SMALL,
    Color,
    Drawn,
    Generator,
    bezier,
    bitmap,
    color,
    font,
    numpy_rng,
    registering,
    spread,
    to_image,
    word,
)

GENERATORS: dict[str, Generator] = {}
generator = registering(GENERATORS)

# Seven rows of five dots, the leftmost the highest bit, a row in two hexadecimal digits.
DOTS = {
    "2": "0e11010204081f",
    "3": "1f02040201110e",
    "4": "02060a121f0202",
    "5": "1f101e0101110e",
    "6": "0608101e11110e",
    "7": "1f010204080808",
    "8": "0e11110e11110e",
    "9": "0e11110f01020c",
    "A": "0e11111f111111",
    "B": "1e11111e11111e",
    "C": "0e11101010110e",
    "D": "1c12111111121c",
    "E": "1f10101e10101f",
    "F": "1f10101e101010",
    "G": "0e11101711110f",
    "H": "1111111f111111",
    "J": "0702020202120c",
    "K": "11121418141211",
    "L": "1010101010101f",
    "M": "111b1515111111",
    "N": "11111915131111",
    "P": "1e11111e101010",
    "R": "1e11111e141211",
    "S": "0f10100e01011e",
    "T": "1f040404040404",
    "U": "1111111111110e",
    "V": "11111111110a04",
    "W": "1111111515150a",
    "X": "11110a040a1111",
    "Y": "1111110a040404",
}

# Pen strokes on a grid of five by seven points, each point as its column and row.
PEN_STROKES = {
    "2": "01 10 30 41 42 06 46",
    "3": "00 40 23 33 44 45 36 16 05,23 13",
    "4": "36 30 04 44",
    "6": "30 10 03 05 16 36 45 44 33 13 04",
    "8": "23 13 02 01 10 30 41 42 33 13 04 05 16 36 45 44 33",
    "A": "06 20 46,14 34",
    "B": "00 06 36 45 44 33 03,33 42 41 30 00",
    "C": "41 30 10 01 05 16 36 45",
    "D": "00 06 26 44 42 20 00",
    "E": "40 00 06 46,03 33",
    "F": "40 00 06,03 33",
    "G": "41 30 10 01 05 16 36 45 43 23",
    "H": "00 06,40 46,03 43",
    "J": "10 40,30 35 26 16 05",
    "K": "00 06,40 03 46",
    "L": "00 06 46",
    "M": "06 00 23 40 46",
    "N": "06 00 46 40",
    "P": "06 00 30 41 42 33 03",
    "R": "06 00 30 41 42 33 03,23 46",
    "T": "00 40,20 26",
    "U": "00 05 16 36 45 40",
    "V": "00 26 40",
    "W": "00 16 22 36 40",
    "X": "00 46,40 06",
    "Y": "00 23 40,23 26",
}


def dots(character: str) -> np.ndarray:
    """The seven by five dots of a letter, true where lit."""
    rows = bytes.fromhex(DOTS[character])
    return np.array([[bool(row >> (4 - column) & 1) for column in range(5)] for row in rows])


def strokes(character: str) -> list[np.ndarray]:
    """The pen strokes of a letter, in a square of one by one and a half."""
    return [
        np.array([(int(x) / 4, int(y) / 4) for x, y in stroke.split()], float)
        for stroke in PEN_STROKES[character].split(",")
    ]


def rounded(points: np.ndarray, times: int = 2) -> np.ndarray:
    """A line with its corners cut, so many times; the ends stay."""
    for _ in range(times):
        first, second = points[:-1], points[1:]
        cut = np.stack([0.85 * first + 0.15 * second, 0.15 * first + 0.85 * second], 1).reshape(-1, 2)
        points = np.concatenate([points[:1], cut[1:-1], points[-1:]])
    return points


def outline(character: str, name: str, size: int) -> list[np.ndarray]:
    """The closed lines around a letter's black, in parts of its size and around the middle of its box."""
    face = font(name, 96)
    left, top, right, bottom = face.getbbox(character)
    mask = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(mask).text((4 - left, 4 - top), character, 255, font=face)
    found, _ = cv2.findContours((np.asarray(mask) > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    middle = np.array(mask.size) / 2
    return [(line[::2, 0] - middle) * size / 96 for line in found if len(line) > 8]


def turned(points: np.ndarray, angle: float, lean: float = 0.0) -> np.ndarray:
    """Points turned around the origin by so many degrees, and leaning."""
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return points @ np.array([[1, 0], [lean, 1]]) @ np.array([[c, s], [-s, c]])


def fixed(lines: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Lines in sixteenths of a pixel, as OpenCV wants them with shift=4."""
    return [np.round(line * 16).astype(np.int32) for line in lines]


def quadratic(start: tuple[float, float], bend: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    """Points of the curve that a canvas draws with quadraticCurveTo."""
    t = np.linspace(0, 1, 40)[:, None]
    return (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(bend) + t**2 * np.array(end)


def mix(back: Color, ink: Color, share: np.ndarray) -> Image.Image:
    """A picture of two colors, by how much (0 to 1) of the ink is in each pixel."""
    share = share[..., None].astype(np.float32)
    return to_image(np.array(back, np.float32) * (1 - share) + np.array(ink, np.float32) * share)


@generator
def svg_evenodd_overlap(rng: random.Random) -> Drawn:
    """Bold outlines pushed into each other in one even-odd path with wavy ribbons, so whatever overlaps turns white."""
    text = word(rng, SAFE_CAPITALS, 5)
    width, height = 172, 64
    name = rng.choice(("DejaVuSans-Bold.ttf", "Lato-Black.ttf", "Roboto-Black.ttf"))
    lines = []
    for character, x in spread(text, width, 14):
        size, angle, lean = rng.randint(46, 52), rng.uniform(-12, 12), rng.uniform(-0.2, 0.2)
        middle = np.array([x, height / 2 + rng.uniform(-4, 4)])
        lines += [turned(line, angle, lean) * [1.05, 1] + middle for line in outline(character, name, size)]
    for _ in range(3):
        y, tall, thick = rng.uniform(12, 48), rng.uniform(4, 10), rng.uniform(1.4, 2.2)
        x = np.linspace(-4, width + 4, 60)
        wave = y + tall * np.sin(x / rng.uniform(14, 26) + rng.uniform(0, 6))
        lines.append(np.concatenate([np.stack([x, wave], 1), np.stack([x, wave + thick], 1)[::-1]]))
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, fixed(lines), 255, cv2.LINE_AA, shift=4)
    return text, mix((255, 255, 255), color(rng, 20, 110), mask / 255)


@generator
def hairline_pen_strokes(rng: random.Random) -> Drawn:
    """A hand-made pen font in one-pixel strokes without smoothing, shaky, with hairlines of the same color between."""
    text = word(rng, "23468ABCDEFGHJKLMNPRTUVWXY", 5, 6)
    width, height = 30 * len(text) + 20, 60
    image = Image.new("RGB", (width, height), color(rng, 236, 252))
    draw = ImageDraw.Draw(image)
    ink = color(rng, 20, 130)
    for character, x in spread(text, width, 8):
        tall, angle, lean = rng.uniform(24, 28), rng.uniform(-12, 12), rng.uniform(-0.25, 0.15)
        middle = np.array([x + rng.uniform(-2, 2), height / 2 + rng.uniform(-4, 4)])
        for stroke in strokes(character):
            shaky = np.array([(rng.gauss(0, 0.022), rng.gauss(0, 0.022)) for _ in stroke])
            line = turned((rounded(stroke + shaky, 1) - [0.5, 0.75]) * tall, angle, lean) + middle
            draw.line([tuple(point) for point in line], ink)
    ends = (rng.uniform(0, 40), rng.uniform(0, 60)), (rng.uniform(width - 40, width), rng.uniform(0, 60))
    line = quadratic(ends[0], (rng.uniform(40, 110), rng.uniform(-20, 80)), ends[1])
    draw.line([tuple(point) for point in line], ink)
    for _ in range(40):
        draw.point((rng.randrange(width), rng.randrange(height)), ink)
    return text, image


@generator
def flipdot_board(rng: random.Random) -> Drawn:
    """A dark board of round dots, where 5x7 letters at different heights glow amid unlit dots and a few broken ones."""
    text = word(rng, "".join(DOTS), 5, 6)
    pitch, rows = 5, 11
    columns = 6 * len(text) + 3
    lit = np.zeros((rows, columns), bool)
    for i, character in enumerate(text):
        y, x = rng.randint(1, rows - 8), 2 + 6 * i
        lit[y : y + 7, x : x + 5] = dots(character)
    broken = numpy_rng(rng).random(lit.shape)
    glow = rng.choice(((255, 196, 40), (120, 255, 120), (250, 90, 70), (110, 210, 255)))
    back = color(rng, 14, 30)
    zoom = 2
    image = Image.new("RGB", (columns * pitch * zoom, rows * pitch * zoom), back)
    draw = ImageDraw.Draw(image)
    for y in range(rows):
        for x in range(columns):
            on = lit[y, x] != (broken[y, x] > (0.994 if lit[y, x] else 0.985))
            level = rng.uniform(0.6, 1) if on else rng.uniform(0.1, 0.22)
            radius = (rng.uniform(2.1, 2.7) if on else 1.6) * zoom
            middle = (x + 0.5) * pitch * zoom, (y + 0.5) * pitch * zoom
            box = middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius
            draw.ellipse(box, tuple(round(level * g) for g in glow))
    return text, image.resize((columns * pitch, rows * pitch), Image.Resampling.BOX)


@generator
def byte_font_torn_gif(rng: random.Random) -> Drawn:
    """A bitmap font of bytes in big square pixels, its rows torn sideways, with pixel noise, as a four-color GIF."""
    text = word(rng, "234679ACDEFKLMPRTUY", 5)
    cells = np.zeros((20, 60), np.uint8)
    x = 4
    for character in text:
        letter = np.asarray(bitmap(character, "terminus-bold.otb", 16)) > 0
        y = rng.randint(2, 18 - letter.shape[0])
        cells[y : y + letter.shape[0], x : x + letter.shape[1]] |= letter.astype(np.uint8) * rng.randint(1, 2)
        x += letter.shape[1] + rng.randint(1, 4)
    for y in rng.sample(range(4, 18), 2):
        cells[y:] = np.roll(cells[y:], rng.choice((-1, 1)), 1)
    for _ in range(28):
        cells[rng.randrange(20), rng.randrange(60)] = rng.randint(0, 3)
    y = rng.randrange(3, 17)
    for x in range(60):
        y = max(0, min(19, y + rng.choice((-1, 0, 0, 0, 1))))
        cells[y, x] = 3 if cells[y, x] == 0 else cells[y, x]
    image = Image.fromarray(np.kron(cells, np.ones((3, 3), np.uint8))).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    light, inks = color(rng, 205, 250), (color(rng, 30, 130), color(rng, 60, 150))
    image.putpalette([*light, *inks[0], *inks[1], *color(rng, 130, 190)])
    return text, image


@generator
def sine_bands_swap_ink(rng: random.Random) -> Drawn:
    """Two-colored: sine bands run across the picture, and within every other one letters and ground swap colors."""
    text = word(rng, SAFE_CAPITALS, 5, 6)
    width, height = 200, 70
    mask = np.zeros((height * 2, width * 2), np.uint8)
    name = rng.choice(("Lato-Bold.ttf", "DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf"))
    for character, x in spread(text, width * 2, 16):
        angle, middle = rng.uniform(-14, 14), np.array([x, height + rng.uniform(-10, 10)])
        lines = [turned(line, angle) + middle for line in outline(character, name, rng.randint(72, 84))]
        cv2.fillPoly(mask, fixed(lines), 255, cv2.LINE_8, shift=4)
    y, x = np.mgrid[: height * 2, : width * 2] / 2
    bend = rng.uniform(5, 8) * np.sin(x / rng.uniform(14, 24) + rng.uniform(0, 6)) + rng.uniform(-0.15, 0.15) * x
    bands = ((y + bend + rng.uniform(0, 30)) // rng.uniform(12, 16)) % 2
    swapped = ((mask > 0) != (bands > 0)).astype(np.float32)
    share = cv2.resize(swapped, (width, height), interpolation=cv2.INTER_AREA)
    return text, mix(color(rng, 200, 255), color(rng, 20, 110), share)


@generator
def curves_clipped_to_letters(rng: random.Random) -> Drawn:
    """Letters without outline: a thicket of curves clipped to them, over sparser curves of the same color."""
    text = word(rng, SAFE, 4, 5)
    width, height = 190, 64
    mask = np.zeros((height, width), np.uint8)
    for character, x in spread(text, width, 10):
        angle, middle = rng.uniform(-15, 15), np.array([x, height / 2 + rng.uniform(-5, 5)])
        lines = [
            turned(line, angle) + middle for line in outline(character, "DejaVuSans-Bold.ttf", rng.randint(44, 50))
        ]
        cv2.fillPoly(mask, fixed(lines), 255, cv2.LINE_8, shift=4)

    def thicket(count: int) -> np.ndarray:
        layer = np.zeros((height, width), np.uint8)
        curves = []
        for _ in range(count):
            ends = [(rng.uniform(-80, width + 80), rng.uniform(-10, height + 10)) for _ in range(2)]
            curves.append(quadratic(ends[0], (rng.uniform(-60, width + 60), rng.uniform(-30, height + 30)), ends[1]))
        cv2.polylines(layer, fixed(curves), False, 255, 1, cv2.LINE_AA, shift=4)
        return layer

    share = np.where(mask > 0, thicket(160), thicket(30)) / 255
    return text, mix((255, 255, 255), color(rng, 0, 120), share)


@generator
def glass_letters_transparent(rng: random.Random) -> Drawn:
    """A transparent PNG of half-clear colored letters that lie over each other, among clear discs in their colors."""
    text = word(rng, SAFE_MIXED, 5, 6)
    width, height = 170, 60
    image = Image.new("RGBA", (width, height), (0, 0, 0, 0))
    inks = [tuple(rng.choice((rng.randint(40, 90), rng.randint(110, 190))) for _ in range(3)) for _ in text]
    for _ in range(8):
        layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(4, 11)
        ImageDraw.Draw(layer).ellipse((x - radius, y - radius, x + radius, y + radius), (*rng.choice(inks), 90))
        image.alpha_composite(layer)
    for (character, x), ink in zip(spread(text, width, 16), inks, strict=True):
        name = rng.choice(("ComicNeue-Bold.otf", "DejaVuSerif-Bold.ttf", "Roboto-Bold.ttf"))
        angle, middle = rng.uniform(-24, 24), np.array([x, height / 2 + rng.uniform(-6, 6)])
        lines = [turned(line, angle) + middle for line in outline(character, name, rng.randint(44, 52))]
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, fixed(lines), 185, cv2.LINE_AA, shift=4)
        layer = Image.new("RGBA", image.size, (*ink, 255))
        layer.putalpha(Image.fromarray(mask))
        image.alpha_composite(layer)
    return text, image


@generator
def sliced_strips_dark(rng: random.Random) -> Drawn:
    """A dark theme: light lower-case text in thin strips that are pushed sideways, cut by dark hairlines."""
    text = word(rng, SAFE_LOWER, 5, 6)
    width, height = 180, 60
    back = color(rng, 24, 48)
    image = Image.new("RGB", (width, height), back)
    draw = ImageDraw.Draw(image)
    for character, x in spread(text, width, 16):
        face = font(rng.choice(("FiraCode-Medium.ttf", "Hack-Regular.ttf", "LiberationSans-Regular.ttf")), 38)
        draw.text((x, height / 2 + 12 + rng.uniform(-6, 6)), character, color(rng, 110, 220), font=face, anchor="ms")
    sliced = Image.new("RGB", image.size, back)
    y, push = 0, 0
    while y < height:
        tall = rng.randint(3, 7)
        push = rng.choice([p for p in range(-2, 3) if p != push])
        sliced.paste(image.crop((0, y, width, min(height, y + tall))), (push, y))
        y += tall
    draw = ImageDraw.Draw(sliced)
    for _ in range(4):
        draw.line((0, rng.uniform(0, height), width, rng.uniform(0, height)), back, 1)
    draw.line((0, rng.uniform(0, height), width, rng.uniform(0, height)), color(rng, 110, 220), 1)
    return text, sliced


@generator
def textpath_hairline_ripples(rng: random.Random) -> Drawn:
    """Thin letters set along a bent path, with ripples of the same hairline running along above, through and below."""
    text = word(rng, SAFE_SMALL, 6, 7)
    width, height = 210, 70
    ends = rng.uniform(26, 44), rng.uniform(26, 44)
    path = np.array(
        bezier([(10, ends[0]), (70, rng.uniform(5, 65)), (140, rng.uniform(5, 65)), (width - 10, ends[1])], 200)
    )
    ink = color(rng, 30, 120)
    mask = np.zeros((height, width), np.uint8)
    name = rng.choice(("Roboto-Light.ttf", "Lato-Light.ttf", "Quicksand-Light.ttf"))
    for character, part in spread(text, 200, 8):
        here, after = path[int(part) - 4], path[int(part) + 4]
        angle = math.degrees(math.atan2(*(after - here)[::-1])) + rng.uniform(-8, 8)
        lines = [turned(line, angle) + (here + after) / 2 for line in outline(character, name, rng.randint(36, 42))]
        cv2.fillPoly(mask, fixed(lines), 255, cv2.LINE_AA, shift=4)
    phase, wave = rng.uniform(0, 6), rng.uniform(9, 14)
    for shift in (-12, -4, 4, 12):
        ripple = path + np.stack([path[:, 0] * 0, shift + 3 * np.sin(path[:, 0] / wave + phase + shift / 6)], 1)
        cv2.polylines(mask, fixed([ripple]), False, 255, 1, cv2.LINE_AA, shift=4)
    return text, mix(color(rng, 240, 255), ink, mask / 255)


@generator
def paper_cut_shadow_only(rng: random.Random) -> Drawn:
    """Letters of the paper's own color, seen only by their shadow and a rim of light, on a noisy sheet."""
    text = word(rng, SAFE_CAPITALS + "234689", 5)
    width, height = 190, 64
    mask = np.zeros((height, width), np.uint8)
    for character, x in spread(text, width, 12):
        angle, middle = rng.uniform(-14, 14), np.array([x, height / 2 + rng.uniform(-5, 5)])
        lines = [turned(line, angle) + middle for line in outline(character, "Lato-Heavy.ttf", rng.randint(42, 50))]
        cv2.fillPoly(mask, fixed(lines), 255, cv2.LINE_AA, shift=4)
    for _ in range(2):
        line = quadratic(
            (-5, rng.uniform(0, 64)), (rng.uniform(40, 150), rng.choice((-30, 94))), (195, rng.uniform(0, 64))
        )
        cv2.polylines(mask, fixed([line]), False, 255, 1, cv2.LINE_AA, shift=4)
    shape = mask.astype(np.float32) / 255
    right, down = rng.choice((-2, 2)), rng.choice((-2, 2))
    shadow = np.roll(shape, (down, right), (0, 1)) * (1 - shape)
    rim = np.roll(shape, (-down // 2, -right // 2), (0, 1)) * (1 - shape)
    paper = np.array(color(rng, 150, 205), np.float32)
    noise = numpy_rng(rng).normal(0, 6, (height, width, 1))
    return text, to_image(paper + noise - 100 * shadow[..., None] + 35 * rim[..., None])
