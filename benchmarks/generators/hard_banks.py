"""Ten captchas of banks, ministries and ticket shops: server-side drawing with transforms, paths and filters."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from .tools import (
    SAFE,
    Color,
    Drawn,
    Generator,
    bezier,
    color,
    font,
    jpeg,
    numpy_rng,
    registering,
    to_image,
    word,
)

GENERATORS: dict[str, Generator] = {}
generator = registering(GENERATORS)

CLEAR_MIXED = "abdefghmnqtyABDEFGHKLMNPRTY2345678"  # without letters whose capital is only larger


# --------------------------------------------------------------------------------------------------------------------
# Helpers


def shaped(
    character: str, face: ImageFont.FreeTypeFont, angle: float = 0.0, shear: float = 0.0, wide: float = 1.0
) -> Image.Image:
    """The mask of a letter, stretched, sheared and turned (degrees) about its middle, as small as it allows."""
    left, top, right, bottom = face.getbbox(character)
    side = int(2.2 * max((right - left) * max(wide, 1), bottom - top)) + 8
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).text(((side - right - left) / 2, (side - bottom - top) / 2), character, fill=255, font=face)
    turn = math.radians(-angle)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    matrix = rotation @ np.array([[wide, -shear], [0, 1]])
    middle = np.array([side / 2, side / 2])
    whole = np.hstack([matrix, (middle - matrix @ middle)[:, None]])
    warped = Image.fromarray(cv2.warpAffine(np.asarray(mask), whole, (side, side), flags=cv2.INTER_LINEAR))
    return warped.crop(warped.getbbox())


def stamp(mask: Image.Image, letter: Image.Image, x: float, y: float) -> None:
    """Add a letter's mask to a larger one, with its middle at (x, y)."""
    mask.paste(255, (round(x - letter.width / 2), round(y - letter.height / 2)), letter)


def line_up(size: tuple[int, int], letters: list[Image.Image], gap: float, heights: list[float]) -> Image.Image:
    """A mask of letters in a row, centered, each with its middle so far below that of the picture."""
    mask = Image.new("L", size)
    total = sum(letter.width for letter in letters)
    gap = min(gap, (size[0] - 10 - total) / (len(letters) - 1))
    x = (size[0] - total - gap * (len(letters) - 1)) / 2
    for letter, height in zip(letters, heights, strict=True):
        stamp(mask, letter, x + letter.width / 2, size[1] / 2 + height)
        x += letter.width + gap
    return mask


def gradient(size: tuple[int, int], first: Color, last: Color, angle: float = 0.0) -> Image.Image:
    """A linear gradient between two colors across the picture, in this direction (degrees)."""
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    along = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    share = ((along - along.min()) / (along.max() - along.min()))[..., None]
    return to_image(np.array(first, np.float32) * (1 - share) + np.array(last, np.float32) * share)


def warp(image: Image.Image, across: np.ndarray, down: np.ndarray) -> Image.Image:
    """The picture with each pixel taken from where the two arrays say; its edges go on outside."""
    maps = across.astype(np.float32), down.astype(np.float32)
    return Image.fromarray(cv2.remap(np.asarray(image), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def ripple(image: Image.Image, rng: random.Random, up: float, aside: float, length: float) -> Image.Image:
    """The picture with two sine waves in it: so many pixels up and down, and aside."""
    y, x = np.mgrid[: image.height, : image.width].astype(np.float32)
    first, second = rng.uniform(0, 6.28), rng.uniform(0, 6.28)
    across = x + aside * np.sin(6.28 * y / (0.8 * length) + first)
    return warp(image, across, y + up * np.sin(6.28 * x / length + second))


def smooth_lines(size: tuple[int, int], paths: list[list[tuple[float, float]]], width: float) -> Image.Image:
    """A mask of antialiased polylines."""
    large = Image.new("L", (size[0] * 3, size[1] * 3))
    pen = ImageDraw.Draw(large)
    for path in paths:
        pen.line([(3 * x, 3 * y) for x, y in path], fill=255, width=round(3 * width), joint="curve")
    return large.resize(size, Image.Resampling.BOX)


def across_curve(rng: random.Random, size: tuple[int, int], low: float, high: float) -> list[tuple[float, float]]:
    """A curve from the left edge to the right one, whose points lie within these parts of the height."""
    width, height = size
    xs = (-4.0, width * rng.uniform(0.2, 0.4), width * rng.uniform(0.6, 0.8), width + 4.0)
    return bezier([(x, height * rng.uniform(low, high)) for x in xs])


def grown(mask: Image.Image, radius: float) -> Image.Image:
    """The mask with a round pen of this radius drawn along its contour."""
    side = 2 * math.ceil(radius) + 1
    y, x = np.mgrid[:side, :side] - side // 2
    return Image.fromarray(cv2.dilate(np.asarray(mask), (np.hypot(x, y) <= radius + 0.3).astype(np.uint8)))


# --------------------------------------------------------------------------------------------------------------------
# Drawers


@generator
def bank_ripple_with_pale_cuts(rng: random.Random) -> Drawn:
    """Rippled bold serif letters in a blue gradient, cut by curves of the background's color."""
    size = (200, 60)
    text = word(rng, SAFE, 5, 6)
    face = font(rng.choice(["LiberationSerif-Bold.ttf", "C059-Bold.otf", "CharisSIL-Bold.ttf"]), 38)
    letters = [shaped(character, face, rng.uniform(-14, 14), rng.uniform(-0.25, 0.25)) for character in text]
    mask = ripple(line_up(size, letters, -2, [rng.uniform(-4, 4) for _ in text]), rng, 4, 2.6, rng.uniform(50, 75))
    cuts = [across_curve(rng, size, 0.05 + 0.45 * (i % 2), 0.5 + 0.45 * (i % 2)) for i in range(3)]
    mask = ImageChops.subtract(mask, smooth_lines(size, cuts, 2))
    image = gradient(size, (255, 255, 255), (214, 226, 240), 90)
    image.paste(gradient(size, color(rng, 0, 70), (90, 60, rng.randint(150, 210)), rng.uniform(0, 60)), (0, 0), mask)
    return text, image


@generator
def airline_double_contour(rng: random.Random) -> Drawn:
    """Hollow letters with two contours, one over the other, and hollow vapour trails across them in a blue sky."""
    size = (230, 74)
    text = word(rng, "ABCDEFHJKLMNPRSTUVXYZ2345679", 5, 6)
    face = font("LiberationSans-Bold.ttf", 42)
    top = (rng.randint(90, 140), rng.randint(160, 195), 235)
    image = gradient(size, top, (240, 248, 255), 90)
    ink = (rng.randint(0, 40), rng.randint(30, 80), rng.randint(110, 170))
    step = 30
    x = (size[0] - step * (len(text) - 1)) / 2
    order = list(range(len(text)))
    rng.shuffle(order)
    shapes: list[Image.Image] = []
    for i in order:
        letter = shaped(text[i], face, rng.uniform(-20, 20), rng.uniform(-0.3, 0.3))
        shapes.append(Image.new("L", size))
        stamp(shapes[-1], letter, x + step * i, size[1] / 2 + rng.uniform(-8, 8))
    for low in (0.1, 0.45):
        shapes.insert(rng.randint(0, len(text)), smooth_lines(size, [across_curve(rng, size, low, low + 0.45)], 3.2))
    for whole in shapes:
        image.paste(ink, (0, 0), ImageChops.subtract(grown(whole, 4), grown(whole, 3)))
        image.paste((255, 255, 255), (0, 0), whole.point(lambda level: level * 2 // 3))
        core = Image.fromarray(cv2.erode(np.asarray(whole), np.ones((3, 3), np.uint8)))
        image.paste(ink, (0, 0), ImageChops.subtract(whole, core))
    return text, image


@generator
def ministry_script_and_pen_stroke(rng: random.Random) -> Drawn:
    """Script letters in one green ink with a pen stroke through them, over the fine waves of a banknote."""
    size = (240, 80)
    text = word(rng, "abefghkmnpstuwxz", 5, 7)
    face = font(rng.choice(["LobsterTwo-Bold.otf", "KaushanScript-Regular.otf", "LeckerliOne-Regular.ttf"]), 50)
    letters = [shaped(character, face, rng.uniform(-12, 12), rng.uniform(-0.15, 0.3)) for character in text]
    mask = line_up(size, letters, 1, [rng.uniform(-7, 7) for _ in text])
    image = Image.new("RGB", size, (250, 252, 244))
    phase = rng.uniform(0, 6.28)
    waves = [
        [(x, 4 * i + 9 * math.sin(x / 17 + phase + i / 3)) for x in range(-4, size[0] + 8, 4)] for i in range(-2, 24)
    ]
    image.paste((168, 205, 176), (0, 0), smooth_lines(size, waves, 0.9))
    ink = (rng.randint(10, 50), rng.randint(80, 110), rng.randint(50, 80))
    image.paste(ink, (0, 0), mask)
    image.paste(ink, (0, 0), smooth_lines(size, [across_curve(rng, size, 0.3, 0.75)], rng.uniform(3, 4)))
    return text, image


@generator
def telecom_inverting_discs(rng: random.Random) -> Drawn:
    """Two colors which large discs swap, so that each letter is partly light on dark."""
    size = (200, 66)
    text = word(rng, CLEAR_MIXED.replace("q", ""), 5, 6)
    face = font(rng.choice(["OpenSans-ExtraBold.ttf", "Lato-Black.ttf", "Roboto-Black.ttf"]), 42)
    letters = [shaped(character, face, rng.uniform(-20, 20), 0) for character in text]
    mask = line_up(size, letters, 2, [rng.uniform(-5, 5) for _ in text])
    large = Image.new("L", (size[0] * 3, size[1] * 3))
    for i in range(5):
        x, y, radius = 3 * (20 + 40 * i + rng.uniform(-9, 9)), rng.uniform(20, 178), rng.uniform(45, 80)
        disc = Image.new("L", large.size)
        ImageDraw.Draw(disc).ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        large = ImageChops.difference(large, disc)
    discs = large.resize(size, Image.Resampling.BOX)
    swapped = ImageChops.difference(mask, discs)
    image = Image.new("RGB", size, (255, 255, 255))
    strong = rng.choice([(200, 0, 90), (0, 110, 160), (225, 60, 0), (80, 40, 140)])
    image.paste(strong, (0, 0), swapped)
    return text, image


@generator
def ticket_shop_torn_strips(rng: random.Random) -> Drawn:
    """Condensed capitals, their strips pushed aside as in a badly glued ticket, in ink that fades to the side."""
    size = (190, 58)
    text = word(rng, SAFE, 5, 6)
    face = font(rng.choice(["LiberationSansNarrow-Bold.ttf", "OpenSans-CondBold.ttf", "RobotoCondensed-Bold.ttf"]), 44)
    letters = [shaped(character, face, rng.uniform(-12, 12), rng.uniform(-0.2, 0.2)) for character in text]
    mask = line_up(size, letters, 3, [rng.uniform(-6, 6) for _ in text])
    image = gradient(size, (255, 246, 214), (255, 224, 190), 0)
    first, last = color(rng, 0, 60), (rng.randint(170, 210), 40, rng.randint(20, 90))
    image.paste(gradient(size, first, last, rng.choice([0, 180])), (0, 0), mask)
    levels = np.asarray(image).copy()
    y, side = 0, rng.choice([-1, 1])
    while y < size[1]:
        tall = rng.randint(9, 13)
        levels[y : y + tall] = np.roll(levels[y : y + tall], side * rng.randint(2, 3), axis=1)
        levels[y] = (levels[y] * 0.6 + 98).astype(np.uint8)
        y, side = y + tall, -side
    return text, Image.fromarray(levels)


@generator
def insurer_lenses_on_squared_paper(rng: random.Random) -> Drawn:
    """Dark letters on squared paper under three lenses, which swell letters and lines alike."""
    size = (220, 74)
    text = word(rng, "abcdefhjkmnprtuvwxyz234678", 5, 6)
    face = font(rng.choice(["DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf"]), 40)
    letters = [shaped(character, face, rng.uniform(-20, 20), 0) for character in text]
    mask = line_up(size, letters, 1, [rng.uniform(-6, 6) for _ in text])
    image = Image.new("RGB", size, (246, 246, 238))
    ink = color(rng, 20, 100)
    image.paste(ink, (0, 0), mask)
    rules = [[(x, -2), (x, size[1] + 2)] for x in range(rng.randint(2, 9), size[0], 10)]
    rules += [[(-2, y), (size[0] + 2, y)] for y in range(rng.randint(2, 9), size[1], 10)]
    image.paste(ink, (0, 0), smooth_lines(size, rules, 1))
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    across, down = x.copy(), y.copy()
    for i in range(3):
        middle = size[0] * (0.2 + 0.3 * i) + rng.uniform(-14, 14), size[1] / 2 + rng.uniform(-10, 10)
        radius = rng.uniform(26, 38)
        far = np.minimum(np.hypot(x - middle[0], y - middle[1]) / radius, 1)
        pull = (1 - far**2) * rng.choice([0.38, 0.42, -0.3])
        across -= (x - middle[0]) * pull
        down -= (y - middle[1]) * pull
    return text, warp(image, across, down)


@generator
def tax_office_hatching(rng: random.Random) -> Drawn:
    """Wide letters made of slanting strokes alone, on paper ruled with strokes that slant the other way."""
    size = (270, 80)
    text = word(rng, "ABCDEFGHJKLMNPRTUVWXYZ234679", 5, 6)
    face = font("SwitzeraADF-ExtraBold.otf", 52)
    letters = [shaped(character, face, rng.uniform(-10, 10), rng.uniform(-0.2, 0.2), 1.1) for character in text]
    mask = ripple(line_up(size, letters, 3, [rng.uniform(-6, 6) for _ in text]), rng, 3, 1.5, 90)
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    slant = rng.choice([-1, 1])
    dense = 0.5 + 0.5 * np.clip(2.4 * np.sin(6.28 * (x + slant * y) / 4.8), -1, 1)
    loose = 0.5 + 0.5 * np.clip(2.4 * (np.sin(6.28 * (x - slant * y * 0.8) / 6.5) - 0.62), -1, 1)
    shape = np.asarray(mask, np.float32) / 255
    share = (dense * shape + loose * 0.34 * (1 - shape))[..., None]
    ink = np.array(color(rng, 10, 110), np.float32)
    return text, to_image(255 * (1 - share) + ink * share)


@generator
def notary_embossed_seal(rng: random.Random) -> Drawn:
    """Gray paper into which letters and the rings of a seal are pressed: only their lit edges show."""
    size = (216, 66)
    text = word(rng, "ABDEFGHJKLMNPRSTUVWXYZ234679", 5, 6)
    face = font(rng.choice(["DejaVuSans-Bold.ttf", "Caladea-Bold.ttf", "URWGothic-Demi.otf"]), 41)
    letters = [shaped(character, face, rng.uniform(-16, 16), rng.uniform(-0.2, 0.2)) for character in text]
    mask = line_up(size, letters, 1, [rng.uniform(-5, 5) for _ in text])
    middle = size[0] * rng.uniform(0.3, 0.7), size[1] * rng.uniform(0.3, 0.7)
    rings = [
        [(middle[0] + r * math.cos(t / 12), middle[1] + r * math.sin(t / 12)) for t in range(77)] for r in (24, 32, 60)
    ]
    raised = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.8)), np.float32)
    raised = raised + 0.33 * np.asarray(smooth_lines(size, rings, 2.2), np.float32)
    lit = np.roll(raised, (1, 1), (0, 1)) - np.roll(raised, (-1, -1), (0, 1))
    noise = numpy_rng(rng).normal(0, 6, lit.shape)
    tint = np.array([rng.randint(165, 190), rng.randint(160, 185), rng.randint(150, 175)], np.float32)
    return text, jpeg(to_image(tint + (0.42 * lit + 0.13 * raised + noise)[..., None]), 80)


@generator
def port_authority_swaying_letters(rng: random.Random) -> Drawn:
    """Letters that lean left and right by turns, white over a dark sea and navy over the light sky above it."""
    size = (210, 64)
    text = word(rng, "ABCDEFGHKLMNPRSTUXZ23679", 5, 6)
    face = font(rng.choice(["Roboto-Bold.ttf", "PTS75F.ttf", "ClearSans-Bold.ttf"]), 42)
    side = rng.choice([-1, 1])
    letters = []
    for character in text:
        letters.append(shaped(character, face, rng.uniform(-8, 8), side * rng.uniform(0.35, 0.52)))
        side = -side
    mask = line_up(size, letters, -3, [rng.uniform(-6, 6) for _ in text])
    y, x = np.mgrid[: size[1], : size[0]].astype(np.float32)
    phase, tilt = rng.uniform(0, 6.28), rng.uniform(-0.12, 0.12)
    surface = 33 + tilt * (x - 105) + 6.5 * np.sin(6.28 * x / rng.uniform(50, 75) + phase)
    deep = np.clip(y - surface + 0.5, 0, 1)[..., None]
    sea, sky = np.array([20.0, rng.randint(60, 90), rng.randint(110, 140)]), np.array([205.0, 228, 240])
    paper = sky * (1 - deep) + sea * deep
    ink = np.array([15.0, 40, 85]) * (1 - deep) + np.array([235.0, 245, 250]) * deep
    share = np.asarray(mask, np.float32)[..., None] / 255
    return text, to_image(paper * (1 - share) + ink * share)


@generator
def opera_letters_on_a_ribbon(rng: random.Random) -> Drawn:
    """Large letters of many sizes and faces on a swinging line, tied up by a ribbon in their own colors."""
    size = (380, 140)
    text = word(rng, CLEAR_MIXED, 5, 6)
    faces = ["Vollkorn-Black.ttf", "LobsterTwo-Bold.otf", "DejaVuSansCondensed-Bold.ttf", "LeagueSpartan-Bold.otf"]
    faces.append("C059-Bold.otf")
    phase = rng.uniform(0, 6.28)
    letters = [
        shaped(c, font(rng.choice(faces), rng.randint(60, 82)), rng.uniform(-22, 22), rng.uniform(-0.2, 0.2))
        for c in text
    ]
    mask = line_up(size, letters, 6, [20 * math.sin(phase + 1.1 * i) for i in range(len(text))])
    swing = [
        (x, 70 + 26 * math.sin(phase + x / 30 + rng.uniform(-0.1, 0.1)) + 14 * math.sin(x / 11 + phase))
        for x in range(-10, size[0] + 20, 10)
    ]
    ribbon = bezier([(-5, rng.uniform(20, 120)), (120, -40), (260, 180), (385, rng.uniform(20, 120))])
    inked = ImageChops.lighter(mask, smooth_lines(size, [ribbon], 6))
    inked = ImageChops.subtract(inked, smooth_lines(size, [swing], 2.6))
    image = gradient(size, (255, 250, 240), (246, 232, 214), 60)
    first, last = (rng.randint(110, 170), 0, rng.randint(20, 60)), (rng.randint(150, 190), rng.randint(90, 120), 10)
    image.paste(gradient(size, first, last, rng.uniform(0, 180)), (0, 0), inked)
    return text, image
