"""Ten captchas as the forums, webmails and shops of 2004 to 2016 drew them in a script of their own."""

from __future__ import annotations

import colorsys
import math
import random

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

from .tools import (
    DIGITS,
    SAFE,
    SAFE_CAPITALS,
    SAFE_SMALL,
    Color,
    Drawn,
    Generator,
    bezier,
    bitmap,
    color,
    font,
    glyph,
    jpeg,
    numpy_rng,
    place,
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

WHITE = (255, 255, 255)
SERIFS = ("LiberationSerif-Bold.ttf", "DejaVuSerif-Bold.ttf", "C059-Bold.otf", "P052-Bold.otf", "Caladea-Bold.ttf")
SANS = ("DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf", "OpenSans-Bold.ttf", "Tuffy_Bold.ttf", "FreeSansBold.ttf")
HAIRLINES = ("Lato-Thin.ttf", "Roboto-Thin.ttf", "DejaVuSans-ExtraLight.ttf", "ClearSans-Thin.ttf")
RANSOM = (
    "LiberationSerif-BoldItalic.ttf",
    "DejaVuSans-Bold.ttf",
    "GNUTypewriter.ttf",
    "ComicNeue-Bold.otf",
    "URWBookman-Demi.otf",
    "Roboto-Black.ttf",
    "Essays1743-Bold.ttf",
    "LeagueSpartan-Bold.otf",
)


def word_mask(
    rng: random.Random,
    text: str,
    face: ImageFont.FreeTypeFont,
    size: tuple[int, int],
    gap: float,
    turn: float,
    jump: int,
) -> Image.Image:
    """The word as a mask: letters turned by up to `turn` degrees, that go up and down by up to `jump` pixels."""
    mask = Image.new("L", size)
    letters = [tile(character, face, WHITE, rng.uniform(-turn, turn)) for character in text]
    row(mask, letters, gap, lambda: rng.randint(-jump, jump))
    return mask


def waved(
    rng: random.Random, mask: Image.Image, sideways: float, upright: float, length: float, fill: int = 0
) -> Image.Image:
    """The mask in waves across and down, of about this length and up to these heights in pixels."""
    one, two = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
    across, down = length * rng.uniform(0.8, 1.25), length * rng.uniform(0.8, 1.25)
    return remap(
        mask,
        lambda x, y: x + sideways * np.sin(2 * math.pi * y / across + one),
        lambda x, y: y + upright * np.sin(2 * math.pi * x / down + two),
        (fill, fill, fill),
    )


def glass_color(rng: random.Random, hue: float) -> Color:
    """A strong color of this hue that is still light enough to be seen through."""
    red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(0.7, 0.95), rng.uniform(0.65, 0.85))
    return int(255 * red), int(255 * green), int(255 * blue)


@generator
def webmail_wave_with_ink_swash(rng: random.Random) -> Drawn:
    """A tight serif word in big waves, with one swash of the same ink through it, on white."""
    text = word(rng, SAFE_SMALL if rng.random() < 0.5 else SAFE_CAPITALS, 5, 6)
    mask = word_mask(rng, text, font(rng.choice(SERIFS), rng.randint(44, 48)), (240, 80), -2.5, 8, 2)
    draw = ImageDraw.Draw(mask)
    heights = [rng.randint(14, 26), rng.randint(70, 90), rng.randint(-10, 10), rng.randint(54, 66)]
    if rng.random() < 0.5:
        heights.reverse()
    curve = bezier(list(zip((8, 80, 160, 232), heights, strict=True)))
    draw.line(curve, 255, 3, joint="curve")
    mask = waved(rng, mask, 3.5, 7.5, 85)
    image = Image.new("RGB", mask.size, WHITE)
    image.paste(rng.choice([(0, 0, 0), (20, 20, 90), (70, 0, 60)]), (0, 0), mask)
    return text, image


@generator
def hollow_letters_on_hatching(rng: random.Random) -> Drawn:
    """Outlines of turned bold letters over a slanting hatch of thin lines of the same pen."""
    text = word(rng, SAFE_CAPITALS, 5, 6)
    paper, ink = color(rng, 225, 250), color(rng, 30, 120)
    image = Image.new("RGB", (210, 64), paper)
    draw = ImageDraw.Draw(image)
    pale = tuple((a + b) // 2 for a, b in zip(ink, paper, strict=True))
    lean, step = rng.choice([-30, 25, 40]), rng.randint(7, 9)
    for x in range(-50, 260, step):
        draw.line([(x, 0), (x + lean, 64)], pale)
    kernel = np.ones((3, 3), np.uint8)
    step_x = 190 / (len(text) + 0.6)
    for i, character in enumerate(text):
        letter = glyph(character, font(rng.choice(SANS), rng.randint(44, 50)), WHITE, rng.uniform(-20, 20))
        levels = np.asarray(letter.getchannel("A"))
        rim = Image.fromarray(cv2.subtract(cv2.dilate(levels, kernel), levels))
        x, y = 10 + step_x * (i + 0.8), 32 + rng.randint(-5, 5)
        image.paste(ink, (int(x - letter.width / 2), int(y - letter.height / 2)), rim)
    for _ in range(2):
        draw.line([(0, rng.randint(5, 59)), (210, rng.randint(5, 59))], ink)
    return text, image


@generator
def word_inverted_by_discs(rng: random.Random) -> Drawn:
    """A black word on white, where big discs and a slanting line turn black to white and white to black."""
    text = word(rng, SAFE, 5, 6)
    mask = word_mask(rng, text, font(rng.choice(SANS), rng.randint(40, 46)), (230, 70), 3, 14, 4)
    mask = waved(rng, mask, 2.5, 4, 70)
    discs = Image.new("L", mask.size)
    for i in range(4):
        x, y, r = 35 + 54 * i + rng.randint(-14, 14), rng.randint(12, 58), rng.randint(17, 28)
        disc = Image.new("L", mask.size)
        ImageDraw.Draw(disc).ellipse([x - r, y - r, x + r, y + r], 255)
        discs = ImageChops.difference(discs, disc)
    ends = rng.sample([rng.randint(2, 22), rng.randint(48, 68)], 2)
    bar = Image.new("L", mask.size)
    ImageDraw.Draw(bar).line([(0, ends[0]), (mask.width, ends[1])], 255, 2)
    discs = ImageChops.difference(discs, bar)
    levels = np.asarray(ImageChops.difference(mask, discs)).astype(float)
    dark, light = rng.randint(0, 60), rng.randint(215, 255)
    return text, to_image(light + (dark - light) * levels / 255)


@generator
def hairline_letters_among_arcs(rng: random.Random) -> Drawn:
    """Very thin big letters of one pixel's width, among arcs and scratches that are as thin and as dark."""
    text = word(rng, SAFE_SMALL.replace("z", "") + "2345678", 5, 6)
    image = Image.new("RGB", (180, 60), color(rng, 235, 255))
    draw = ImageDraw.Draw(image)
    ink = color(rng, 0, 90)
    for _ in range(rng.randint(9, 12)):
        x, y, w, h = rng.randint(-30, 150), rng.randint(-30, 50), rng.randint(30, 120), rng.randint(20, 70)
        start = rng.randint(0, 360)
        draw.arc([x, y, x + w, y + h], start, start + rng.randint(70, 180), ink)
    for character, x in spread(text, 180, 8):
        angle = rng.uniform(-18, 18)
        letter = glyph(character, font(rng.choice(HAIRLINES), rng.randint(46, 54)), ink, angle)
        shape = letter.getchannel("A").point(lambda level: min(255, int(level * 1.7)))
        letter.putalpha(shape)
        place(image, letter, x, 30 + rng.randint(-4, 4))
    return text, image


@generator
def ransom_letters_overlapping_in_glass(rng: random.Random) -> Drawn:
    """Letters of many fonts and colors, see-through, over one another and over rings, darker where two overlap."""
    text = word(rng, SAFE_CAPITALS, 5, 6)
    image = Image.new("RGB", (54 + 27 * len(text), 74), WHITE)
    letters, hue = [], rng.random()
    for character in text:
        hue = (hue + rng.uniform(0.3, 0.5)) % 1
        ink = glass_color(rng, hue)
        letters.append(glyph(character, font(rng.choice(RANSOM), rng.randint(46, 52)), ink, rng.uniform(-16, 16)))
    overlap = (sum(letter.width for letter in letters) - image.width + 12) / (len(text) - 1)
    x = 6.0
    for letter in letters:
        layer = Image.new("RGB", image.size, WHITE)
        place(layer, letter, x + letter.width / 2, 37 + rng.randint(-6, 6))
        image = ImageChops.multiply(image, layer)
        x += letter.width - max(6.0, overlap)
    for i in range(4):
        layer = Image.new("RGB", image.size, WHITE)
        x, y, radius = image.width * (i + rng.random()) / 4, rng.randint(0, 74), rng.randint(14, 28)
        box = [x - radius, y - radius, x + radius, y + radius]
        ImageDraw.Draw(layer).ellipse(box, outline=glass_color(rng, rng.random()), width=4)
        image = ImageChops.multiply(image, layer)
    return text, image


@generator
def noisy_gif_of_five_dithered_colours(rng: random.Random) -> Drawn:
    """A word in a color not far from a blotchy ground's, grainy, saved as a GIF of five colors with dithering."""
    text = word(rng, DIGITS if rng.random() < 0.4 else SAFE, 5, 6)
    noise = numpy_rng(rng).uniform(-1, 1, (4, 9, 3)).astype(np.float32)
    ground = cv2.resize(noise, (176, 56), interpolation=cv2.INTER_CUBIC) * 45 + np.array(color(rng, 130, 200))
    image = to_image(ground)
    ink = color(rng, 30, 110)
    letters = [
        tile(character, font(rng.choice(RANSOM), rng.randint(36, 40)), ink, rng.uniform(-18, 18)) for character in text
    ]
    row(image, letters, 0, lambda: rng.randint(-4, 4))
    levels = np.asarray(image).astype(float) + numpy_rng(rng).normal(0, 37, (56, 176, 1))
    few = to_image(levels[::2, ::2]).quantize(5, Image.Quantize.MEDIANCUT)
    return text, to_image(levels).quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG)


@generator
def tiny_digits_in_specks_blown_up(rng: random.Random) -> Drawn:
    """Jumping digits of a bitmap font in specks and a scratch of their color, blown up by a crooked factor."""
    text = word(rng, DIGITS, 5)
    paper, ink = color(rng, 200, 245), color(rng, 0, 110)
    image = Image.new("RGB", (60, 20), paper)
    draw = ImageDraw.Draw(image)
    x = 3
    for character in text:
        shape = bitmap(character)
        image.paste(ink, (x + rng.randint(0, 2), rng.randint(2, 20 - shape.height - 2)), shape)
        x += 11
    for _ in range(rng.randint(60, 75)):
        image.putpixel((rng.randrange(60), rng.randrange(20)), ink)
    ends = rng.randint(0, 4), rng.randint(15, 19)
    left, right = ends if rng.random() < 0.5 else ends[::-1]
    draw.line([(0, left), (60, right)], ink)
    return text, image.resize((80, 26), Image.Resampling.NEAREST)


@generator
def mosaic_of_coloured_dots(rng: random.Random) -> Drawn:
    """Dots like those of a test for color blindness: warm ones make the word, cool ones as bright the ground."""
    text = word(rng, SAFE_CAPITALS, 4, 5)
    size = 240, 84
    mask = word_mask(rng, text, font(rng.choice(SANS), 66 if len(text) == 4 else 58), size, 3, 8, 3)
    inside = np.asarray(mask) > 127
    image = Image.new("RGB", (size[0] * 2, size[1] * 2), (238, 236, 228))
    draw = ImageDraw.Draw(image)
    warm, cool = rng.choice([((205, 105, 60), (110, 150, 95)), ((190, 80, 120), (85, 135, 150))])
    step = 4
    for j in range(size[1] // step + 1):
        for i in range(size[0] // step + 1):
            x = i * step + (j % 2) * step / 2 + rng.uniform(-0.7, 0.7)
            y = j * step + rng.uniform(-0.7, 0.7)
            in_word = inside[min(size[1] - 1, max(0, int(y))), min(size[0] - 1, max(0, int(x)))]
            lift, r = rng.randint(-38, 38), rng.uniform(2.6, 4.4)
            base = warm if in_word else cool
            fill = tuple(level + lift for level in base)
            draw.ellipse([2 * x - r, 2 * y - r, 2 * x + r, 2 * y + r], fill)
    return text, image.reduce(2)


@generator
def slipped_scanlines_through_a_blind(rng: random.Random) -> Drawn:
    """A word whose rows slip left and right like a bad television's, seen through a blind of pale slats, as JPEG."""
    text = word(rng, SAFE_CAPITALS, 5)
    mask = word_mask(rng, text, font(rng.choice(SANS), rng.randint(42, 48)), (210, 64), 3, 6, 4)
    slips = np.repeat([rng.uniform(-2.6, 2.6) for _ in range(32)], 2)
    mask = remap(mask, lambda x, y: x + slips[y.astype(int)], lambda x, y: y, (0, 0, 0))
    paper, ink = color(rng, 190, 235), color(rng, 20, 100)
    image = Image.new("RGB", mask.size, paper)
    image.paste(ink, (0, 0), mask)
    draw = ImageDraw.Draw(image)
    for y in range(rng.randint(0, 5), 64, 7):
        draw.line([(0, y), (210, y)], paper)
    for x in range(rng.randint(0, 12), 210, 17):
        draw.line([(x, 0), (x, 64)], ink)
    return text, jpeg(image, 45)


@generator
def word_raised_on_ruled_lines(rng: random.Random) -> Drawn:
    """Nothing but ruled lines in perspective of a wavy sheet, that are lifted where the word lies."""
    text = word(rng, SAFE_CAPITALS, 4, 5)
    mask = word_mask(rng, text, font(rng.choice(SANS), 74 if len(text) == 4 else 62), (290, 96), 4, 5, 2)
    heights = cv2.GaussianBlur(np.asarray(mask).astype(np.float32) / 255, (0, 0), 0.9)
    image = Image.new("L", (600, 200), 255)
    draw = ImageDraw.Draw(image)
    phase, lift = rng.uniform(0, 6), rng.uniform(4.6, 5.4)
    ink = rng.randint(0, 70)
    for y in range(4, 96, 3):
        wave = 2.5 * np.sin(np.arange(290) / 24 + phase + y / 30)
        line = (y + 3 + wave - lift * heights[y]) * 2
        draw.line([(10 + 2 * x, float(level)) for x, level in enumerate(line)], ink, 2)
    return text, image.reduce(2)
