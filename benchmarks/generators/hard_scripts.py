"""Ten captchas as scripts in Perl, Ruby and Python draw them: chains of image commands, meshes, shapes."""

from __future__ import annotations

import colorsys
import itertools
import math
import random
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .tools import (
    DIGITS,
    LOWER,
    SAFE_CAPITALS,
    SAFE_LOWER,
    SAFE_SMALL,
    Color,
    Drawn,
    Generator,
    bezier,
    bitmap,
    color,
    fitting_font,
    font,
    glyph,
    jpeg,
    numpy_rng,
    place,
    put,
    registering,
    remap,
    row,
    spread,
    tile,
    to_image,
    word,
)

GENERATORS: dict[str, Generator] = {}
generator = registering(GENERATORS)

TWO_CASES = "dehnABDEFGHJKLMNPRSTUVWXYZ234678"  # no small letter that looks like its capital
PEN_STROKES: dict[str, Sequence[Sequence[tuple[float, float]]]] = {  # digits in a box of 4 by 6, as pen strokes
    "0": [[(1, 0), (3, 0), (4, 1.5), (4, 4.5), (3, 6), (1, 6), (0, 4.5), (0, 1.5), (1, 0)]],
    "1": [[(0.8, 1.4), (2.4, 0), (2.4, 6)], [(0.9, 6), (3.9, 6)]],
    "2": [[(0, 1.4), (1, 0), (3, 0), (4, 1.4), (3.6, 2.8), (0, 6), (4, 6)]],
    "3": [[(0, 0.3), (3, 0), (4, 1.4), (3, 2.8), (1.4, 2.9), (3, 3), (4, 4.5), (3, 6), (0, 5.7)]],
    "4": [[(3, 6), (3, 0), (0, 4), (4.2, 4)]],
    "5": [[(3.8, 0), (0.4, 0), (0.2, 2.6), (3, 2.4), (4, 3.8), (3.8, 5), (2.8, 6), (0, 5.8)]],
    "6": [[(3.6, 0), (1.2, 1.6), (0, 4), (0.6, 5.6), (2, 6), (3.6, 5.6), (4, 4.2), (3, 3), (1.4, 3), (0.2, 4.2)]],
    "7": [[(0, 0), (4, 0), (1.4, 6)], [(0.9, 3), (3.6, 3)]],
    "8": [[(2, 2.8), (0.4, 1.6), (1, 0), (3, 0), (3.6, 1.6), (2, 2.8), (0, 4.4), (1, 6), (3, 6), (4, 4.4), (2, 2.8)]],
    "9": [[(3.8, 2), (2.8, 3.2), (1, 3.1), (0, 1.8), (0.6, 0.3), (2.4, 0), (3.8, 0.6), (4, 2.4), (3, 4.6), (0.8, 6)]],
}


def hue_color(hue: float, lightness: float, saturation: float) -> Color:
    """A color by hue (in turns), lightness and saturation."""
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(255 * red), round(255 * green), round(255 * blue)


def word_mask(text: str, face_name: str, size: tuple[int, int], height: int, stroke: int = 0) -> Image.Image:
    """A white word in the middle of a black mask, as large as fits."""
    mask = Image.new("L", size)
    face = fitting_font(face_name, text, size[0] - 24, height)
    middle = size[0] / 2, size[1] / 2
    ImageDraw.Draw(mask).text(middle, text, 255, font=face, anchor="mm", stroke_width=stroke)
    return mask


def jumping_mask(
    rng: random.Random, text: str, faces: Sequence[str], size: tuple[int, int], height: int, turn: float, gap: float
) -> Image.Image:
    """A mask of white letters in mixed fonts, each turned and moved up or down a little."""
    mask = Image.new("L", size)
    tiles = [
        tile(character, font(rng.choice(faces), height), (255, 255, 255), rng.uniform(-turn, turn))
        for character in text
    ]
    reach = max(1, (size[1] - height) // 5)
    row(mask, tiles, gap, lambda: rng.randint(-reach, reach))
    return mask


def whirl(image: Image.Image, x: float, y: float, radius: float, turn: float, pull: float, fill: Color) -> Image.Image:
    """Swirl by `turn` radians and implode by `pull` around (x, y)."""

    def source(px: np.ndarray, py: np.ndarray, along: bool) -> np.ndarray:
        dx, dy = px - x, py - y
        near = np.clip(1 - np.hypot(dx, dy) / radius, 0, 1)
        angle = turn * near**2
        grow = 1 + pull * near
        if along:
            return x + grow * (dx * np.cos(angle) - dy * np.sin(angle))
        return y + grow * (dx * np.sin(angle) + dy * np.cos(angle))

    return remap(image, lambda px, py: source(px, py, True), lambda px, py: source(px, py, False), fill)


def waves(rng: random.Random, image: Image.Image, height: float, length: float, fill: Color) -> Image.Image:
    """A sine wave across and a weaker one down."""
    first, second = rng.uniform(0, 6.28), rng.uniform(0, 6.28)
    return remap(
        image,
        lambda x, y: x + 0.6 * height * np.sin(6.28 * y / (0.8 * length) + second),
        lambda x, y: y + height * np.sin(6.28 * x / length + first),
        fill,
    )


@generator
def charcoal_implosion(rng: random.Random) -> Drawn:
    """Hollow charcoal outlines of an imploded capital word, crossed by charcoal ovals, on grainy paper."""
    text = word(rng, SAFE_CAPITALS, 5)
    size = 200, 70
    mask = jumping_mask(rng, text, ["Arimo-Bold.ttf", "Tinos-Bold.ttf"], size, 46, 12, -1)
    ovals = Image.new("L", size)
    draw = ImageDraw.Draw(ovals)
    for _ in range(7):
        x, y = rng.uniform(10, 190), rng.uniform(5, 65)
        across, down = rng.uniform(14, 34), rng.uniform(10, 24)
        draw.ellipse((x - across, y - down, x + across, y + down), fill=255)
    mask = ImageChops.add(mask.point(lambda level: level * 3 // 5), ovals.point(lambda level: level * 9 // 20))
    mask = whirl(mask, 100 + rng.uniform(-30, 30), 35, 100, rng.uniform(-0.25, 0.25), rng.uniform(0.15, 0.3), (0, 0, 0))
    levels = np.asarray(waves(rng, mask, 2.5, 70, (0, 0, 0)), np.float32)
    edges = np.hypot(cv2.Sobel(levels, cv2.CV_32F, 1, 0), cv2.Sobel(levels, cv2.CV_32F, 0, 1))
    grain = numpy_rng(rng).normal(0, 1, (70, 200)).astype(np.float32)
    edges = cv2.GaussianBlur(np.minimum(edges / 2.6, 215) * (1 + 0.5 * grain), None, 0.8)
    return text, to_image(240 - edges + 20 * grain)


@generator
def scattered_pixels(rng: random.Random) -> Drawn:
    """A swirled word whose pixels are strewn about, in a hue beside that of the blotched ground."""
    text = word(rng, SAFE_LOWER, 4, 5)
    size = 220, 80
    mask = jumping_mask(rng, text, ["DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf"], size, 50, 13, -1)
    mask = whirl(mask, 110, 40, 120, rng.choice((-1, 1)) * rng.uniform(0.3, 0.5), 0, (0, 0, 0))
    chance = numpy_rng(rng)
    y, x = np.mgrid[:80, :220]
    reach = 2
    down = np.clip(y + chance.integers(-reach, reach + 1, y.shape), 0, 79)
    across = np.clip(x + chance.integers(-reach, reach + 1, x.shape), 0, 219)
    share = (np.asarray(mask)[down, across] / 255.0)[..., None]
    blotches = cv2.resize(chance.normal(0, 1, (8, 22)).astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    hue = rng.random()
    ground = np.array(hue_color(hue, 0.74, 0.45), float) + 20 * blotches[..., None]
    ink = np.array(hue_color(hue + rng.choice((-0.14, 0.14)), 0.36, 0.55), float) + 20 * blotches[..., None]
    speckle = chance.normal(0, 16, (80, 220, 1))
    return text, to_image(ground * (1 - share) + ink * share + speckle)


@generator
def embossed_wave(rng: random.Random) -> Drawn:
    """Gray relief: an embossed word on waves and bumps pressed into the same sheet, smeared sideways."""
    text = word(rng, SAFE_CAPITALS + "24579", 5)
    size = 230, 76
    word_layer = jumping_mask(rng, text, ["OpenSans-ExtraBold.ttf", "Roboto-Black.ttf"], size, 50, 10, 1)
    word_layer = waves(rng, word_layer, 3, 90, (0, 0, 0)).filter(ImageFilter.GaussianBlur(1.1))
    bumps = Image.new("L", size)
    draw = ImageDraw.Draw(bumps)
    for _ in range(20):
        x, y, radius = rng.uniform(0, 230), rng.uniform(0, 76), rng.uniform(3, 9)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=90, width=2)
    for _ in range(3):
        left, right = rng.uniform(5, 71), rng.uniform(5, 71)
        bend = [(x, rng.uniform(-10, 86)) for x in (75, 150)]
        draw.line(bezier([(-2, left), *bend, (232, right)]), fill=110, width=3)
    height = np.asarray(word_layer, np.float32) + 0.8 * cv2.GaussianBlur(np.asarray(bumps, np.float32), None, 0.8)
    height += numpy_rng(rng).normal(0, 10, height.shape)
    relief = cv2.filter2D(height, cv2.CV_32F, np.array([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], np.float32))
    relief = cv2.blur(relief, (3, 1))
    tint = np.array(color(rng, 120, 150), np.float32)
    return text, to_image(tint + 0.22 * relief[..., None])


@generator
def letters_cut_by_arcs(rng: random.Random) -> Drawn:
    """Crowded letters, each pulled out of shape by its corners, cut by arcs in the ground's color, with ink arcs."""
    text = word(rng, TWO_CASES, 5, 6)
    width, height = 190, 64
    ground = color(rng, 225, 250)
    ink = color(rng, 20, 120)
    image = Image.new("RGB", (width, height), ground)
    faces = ["LiberationSans-Bold.ttf", "DejaVuSerifCondensed-Bold.ttf", "Caladea-Bold.ttf"]
    letters = []
    for character in text:
        letter = glyph(character, font(rng.choice(faces), 46), (*ink, 255), rng.uniform(-14, 14), 5)
        w, h = letter.size
        pull = [rng.uniform(-0.14, 0.14) for _ in range(8)]
        quad = (
            w * pull[0],
            h * pull[1],
            w * pull[2],
            h * (1 + pull[3]),
            w * (1 + pull[4]),
            h * (1 + pull[5]),
            w * (1 + pull[6]),
            h * pull[7],
        )
        letter = letter.transform((w, h), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC)
        letters.append(letter.crop(letter.getbbox()))
    row(image, letters, -3, lambda: rng.uniform(-5, 5))
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        x, y, radius = rng.uniform(0, width), rng.choice((-1, 1)) * rng.uniform(20, 60) + 32, rng.uniform(35, 70)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ground, width=2)
    for _ in range(2):
        x, y, across = rng.uniform(20, 170), rng.uniform(0, 64), rng.uniform(50, 110)
        start = rng.uniform(0, 360)
        draw.arc((x - across, y - 25, x + across, y + 25), start, start + rng.uniform(120, 200), fill=ink, width=2)
    for _ in range(60):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        draw.ellipse((x, y, x + 2, y + 2), fill=rng.choice((ink, ink, ground)))
    return text, image


@generator
def inverting_discs(rng: random.Random) -> Drawn:
    """A bold word over big discs: wherever a disc lies, letter and ground change their colors."""
    text = word(rng, SAFE_CAPITALS, 4, 5)
    size = 240, 84
    face = rng.choice(("Roboto-Black.ttf", "ClearSans-Bold.ttf", "Cabin-Bold.otf"))
    mask = jumping_mask(rng, text, [face], size, 58, 11, 3)
    discs = Image.new("L", size)
    for i in range(6):
        x, y, radius = 40 * i + rng.uniform(5, 35), rng.uniform(0, 84), rng.uniform(16, 30)
        disc = Image.new("L", size)
        ImageDraw.Draw(disc).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        discs = ImageChops.difference(discs, disc)
    share = (np.asarray(ImageChops.difference(mask, discs), float) / 255)[..., None]
    hue = rng.random()
    dark, light = hue_color(hue, 0.4, 0.6), hue_color(hue + rng.uniform(0.1, 0.3), 0.74, 0.6)
    drawn = np.array(light, float) * (1 - share) + np.array(dark, float) * share
    return text, to_image(drawn)


@generator
def ruled_lines_bump(rng: random.Random) -> Drawn:
    """A sheet of thin ruled lines that jump up where a letter lies beneath."""
    text = word(rng, SAFE_CAPITALS, 4, 5)
    width, height = 260, 100
    mask = word_mask(text, "Arimo-Bold.ttf", (width, height), 72, 1)
    levels = np.asarray(mask.filter(ImageFilter.GaussianBlur(1.0)), float) / 255
    ground = color(rng, 228, 252)
    phase, length = rng.uniform(0, 6.28), rng.uniform(60, 130)
    lift = rng.choice((-1, 1)) * rng.uniform(2.4, 3.0)
    hue = rng.random()
    x = np.arange(width)
    sheets = []
    for thick in (2, 4):
        sheet = Image.new("RGB", (width * 2, height * 2), ground)
        draw = ImageDraw.Draw(sheet)
        for base in range(-10, height + 10, 4):
            y = base + 4 * np.sin(6.28 * x / length + phase + base / 40)
            at = np.clip(y.round().astype(int), 0, height - 1)
            line = y - lift * levels[at, x]
            ink = hue_color(hue + base / 800, 0.36, 0.45)
            draw.line((2 * np.stack((x, line), 1)).ravel().tolist(), fill=ink, width=thick)
        sheets.append(sheet.resize((width, height), Image.Resampling.BOX))
    shifted = ImageChops.offset(mask, 0, -round(lift))
    return text, Image.composite(sheets[1], sheets[0], shifted)


@generator
def bitmap_blobs(rng: random.Random) -> Drawn:
    """A small bitmap font enlarged: every pixel a blob of its own size, among smaller blobs strewn on the ground."""
    text = word(rng, "ACEFHJKLPRSTUVXYZ47", 5, 6)
    cell = 5
    pieces = [np.asarray(bitmap(character)) > 0 for character in text]
    columns, rows = sum(piece.shape[1] + 2 for piece in pieces) + 4, 18
    grid = np.zeros((rows, columns), bool)
    left = 3
    for piece in pieces:
        top = (rows - piece.shape[0]) // 2 + rng.randint(-2, 2)
        grid[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
        left += piece.shape[1] + 2
    ground = color(rng, 215, 250)
    image = Image.new("RGB", (columns * cell, rows * cell), ground)
    draw = ImageDraw.Draw(image)
    hue = rng.random()
    for y in range(rows):
        for x in range(columns):
            inked = bool(grid[y, x])
            if not inked and rng.random() < 0.6:
                continue
            radius = rng.uniform(2.0, 2.9) if inked else rng.uniform(0.6, 1.6)
            middle = (x + 0.5) * cell + rng.uniform(-0.8, 0.8), (y + 0.5) * cell + rng.uniform(-0.8, 0.8)
            ink = hue_color(hue + rng.uniform(-0.12, 0.12), rng.uniform(0.35, 0.5), 0.6)
            box = middle[0] - radius, middle[1] - radius, middle[0] + radius, middle[1] + radius
            if rng.random() < 0.5:
                draw.ellipse(box, fill=ink)
            else:
                draw.rectangle(box, fill=ink)
    return text, image


@generator
def shard_digits(rng: random.Random) -> Drawn:
    """Digits nailed together from crooked polygon slats, among loose slats of the same colors."""
    text = word(rng, DIGITS, 5, 7)
    height = 70
    width = 26 + 33 * len(text)
    ground = color(rng, 215, 245)
    image = Image.new("RGB", (width, height), ground)
    draw = ImageDraw.Draw(image)
    hue = rng.random()

    def slat(ax: float, ay: float, bx: float, by: float, thick: float) -> None:
        long = math.hypot(bx - ax, by - ay) or 1
        ux, uy = (bx - ax) / long, (by - ay) / long
        ax, ay, bx, by = ax - 1.5 * ux, ay - 1.5 * uy, bx + 1.5 * ux, by + 1.5 * uy
        corners = []
        for x, y, side in ((ax, ay, 1), (bx, by, 1), (bx, by, -1), (ax, ay, -1)):
            half = side * thick * rng.uniform(0.3, 0.75)
            corners.append((x - uy * half, y + ux * half))
        ink = hue_color(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.3, 0.52), 0.5)
        draw.polygon(corners, fill=ink)

    for _ in range(7 * len(text)):
        x, y, angle, long = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 6.28), rng.uniform(6, 14)
        slat(x, y, x + long * math.cos(angle), y + long * math.sin(angle), 3.5)
    for digit, middle in spread(text, width, 13):
        draw.ellipse((middle - 11, height / 2 - 15, middle + 11, height / 2 + 15), fill=ground)
        angle, scale = rng.uniform(-0.3, 0.3), rng.uniform(5.6, 6.8)
        lean = rng.uniform(-0.15, 0.15)
        top = height / 2 + rng.uniform(-6, 6)
        for stroke in PEN_STROKES[digit]:
            points = []
            for x, y in stroke:
                dx, dy = x - 2 + rng.uniform(-0.25, 0.25), y - 3 + rng.uniform(-0.25, 0.25)
                dx += lean * dy
                turned_x = dx * math.cos(angle) - dy * math.sin(angle)
                turned_y = dx * math.sin(angle) + dy * math.cos(angle)
                points.append((middle + scale * turned_x, top + scale * turned_y))
            for (ax, ay), (bx, by) in itertools.pairwise(points):
                slat(ax, ay, bx, by, 6.5)
    return text, image


@generator
def word_over_decoys(rng: random.Random) -> Drawn:
    """A dark handwritten-like word over paler big words that only decorate, with a strike of its own color."""
    text = word(rng, SAFE_SMALL, 5, 6)
    size = 220, 70
    hue = rng.random()
    image = Image.new("RGB", size, hue_color(hue, 0.93, 0.5))
    decoy_face = rng.choice(("DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf"))
    for y in (14, 38, 62):
        decoy = tile(
            word(rng, LOWER, 8),
            font(decoy_face, 34),
            hue_color(hue, rng.uniform(0.72, 0.82), 0.35),
            rng.uniform(-9, 9),
        )
        put(image, decoy, 110 + rng.uniform(-20, 20), y)
    ink = hue_color(hue + rng.uniform(-0.08, 0.08), 0.32, 0.5)
    tiles = [tile(character, font("Caladea-BoldItalic.ttf", 46), ink, rng.uniform(-10, 10)) for character in text]
    row(image, tiles, 0, lambda: rng.uniform(-4, 4))
    draw = ImageDraw.Draw(image)
    ends = [(8, rng.uniform(20, 50)), (75, rng.uniform(0, 70)), (145, rng.uniform(0, 70)), (212, rng.uniform(20, 50))]
    draw.line(bezier(ends), fill=ink, width=2)
    return text, jpeg(waves(rng, image, 2.5, 80, hue_color(hue, 0.93, 0.5)), 55)


@generator
def particle_swarm(rng: random.Random) -> Drawn:
    """Bright specks that crowd inside unseen round letters on a dark ground, with stray specks everywhere."""
    text = word(rng, TWO_CASES, 4, 6)
    width, height = 40 + 42 * len(text), 90
    mask = Image.new("L", (width, height))
    for character, middle in spread(text, width, 18):
        letter = glyph(character, font("Comfortaa-Bold.ttf", 58), (255, 255, 255, 255), rng.uniform(-14, 14))
        place(mask, letter, middle, height / 2 + rng.uniform(-6, 6), 255)
    inside = np.argwhere(np.asarray(mask) > 128)
    chance = numpy_rng(rng)
    crowd = inside[chance.integers(0, len(inside), 330 * len(text))] + chance.normal(0, 0.6, (330 * len(text), 2))
    stray = chance.uniform((0, 0), (height, width), (100 * len(text), 2))
    image = Image.new("RGB", (width, height), color(rng, 5, 40))
    draw = ImageDraw.Draw(image)
    hue = rng.random()
    inks = [hue_color(hue + rng.uniform(-0.15, 0.15), rng.uniform(0.5, 0.8), 0.7) for _ in range(8)]
    for y, x in np.concatenate((stray, crowd)).tolist():
        long = rng.choice((0, 1, 1, 2))
        draw.rectangle((x, y, x + long, y + long), fill=rng.choice(inks))
    return text, image
