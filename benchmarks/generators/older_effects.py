"""18 captchas of sites of 2003 to 2014: arcs, noise, reliefs, and text that only dots or snow give away."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .tools import (
    DIGITS,
    LOWER,
    SAFE,
    SAFE_LOWER,
    SEGMENTS,
    STROKES,
    UPPER,
    Drawn,
    Generator,
    color,
    font,
    jpeg,
    numpy_rng,
    put,
    registering,
    remap,
    row,
    tile,
    to_image,
    word,
)

GENERATORS: dict[str, Generator] = {}
generator = registering(GENERATORS)


@generator
def letters_on_arc(rng: random.Random) -> Drawn:
    """Letters along a part of a circle and turned with it, over pale rings, by PHP's imagettftext letter by letter."""
    text = word(rng, UPPER, 6, 7)
    image = Image.new("RGB", (200, 80), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for ring in range(20, 260, 12):
        draw.ellipse((100 - ring, 120 - ring, 100 + ring, 120 + ring), outline=(215, 225, 240))
    up, radius = rng.choice([1, -1]), rng.randint(110, 150)
    face = font(rng.choice(["LiberationSans-Bold.ttf", "FreeSerifBold.ttf", "DejaVuSansCondensed-Bold.ttf"]), 28)
    step = 78 / radius / (len(text) - 1) * 2
    for i, character in enumerate(text):
        turn = (i - (len(text) - 1) / 2) * step
        letter = tile(character, face, color(rng, 0, 140), -up * math.degrees(turn) + rng.uniform(-6, 6))
        put(image, letter, 100 + radius * math.sin(turn), 40 - up * 12 + up * radius * (1 - math.cos(turn)))
    return text, image


@generator
def plasma_white_text(rng: random.Random) -> Drawn:
    """White letters with a dark edge on colored clouds, by ImageMagick's `plasma:fractal`."""
    text = word(rng, SAFE, 5)
    w, h, noise = 180, 60, numpy_rng(rng)
    clouds = np.zeros((h, w, 3))
    for i in range(4):
        coarse = noise.random((max(2, h >> (5 - i)), max(2, w >> (5 - i)), 3))
        clouds += cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC) / 2**i
    clouds = (clouds - clouds.min((0, 1))) / np.ptp(clouds, (0, 1)) * 215 + 20
    image = Image.fromarray(clouds.astype(np.uint8))
    face = font(rng.choice(["DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf", "Carlito-Bold.ttf"]), 36)
    mask = Image.new("L", image.size)
    row(mask, [tile(c, face, (255, 255, 255), rng.uniform(-15, 15)) for c in text], 3)
    for x, y, level in ((-1, 0, 0), (1, 1, 0), (0, -1, 0), (0, 0, 255)):
        image.paste((level, level, level), (x, y, w + x, h + y), mask)
    return text, image


@generator
def ghost_letters(rng: random.Random) -> Drawn:
    """Dark letters before a crowd of small pale ones, by PHP's imagettftext in a loop."""
    text = word(rng, SAFE_LOWER, 5)
    image = Image.new("RGB", (150, 50), (250, 250, 250))
    for _ in range(rng.randint(35, 60)):
        character, face = rng.choice(SAFE_LOWER), font("LiberationSans-Regular.ttf", rng.randint(11, 18))
        ghost = tile(character, face, color(rng, 150, 225), rng.uniform(-60, 60))
        put(image, ghost, rng.randrange(150), rng.randrange(50))
    face = font(rng.choice(["LiberationSerif-Bold.ttf", "LiberationSans-Bold.ttf"]), 32)
    letters = [tile(c, face, color(rng, 0, 110), rng.uniform(-18, 18)) for c in text]
    row(image, letters, 5, lambda: rng.randint(-3, 3))
    return text, image


@generator
def emboss_grey(rng: random.Random) -> Drawn:
    """Letters that stand out of a gray ground with a little noise, by PHP's imagefilter with IMG_FILTER_EMBOSS."""
    text = word(rng, SAFE, 5)
    w, h = 160, 56
    mask = Image.new("L", (w, h))
    face = font(rng.choice(["FreeSansBold.ttf", "DejaVuSans-Bold.ttf", "FreeSerifBold.ttf"]), 36)
    letters = [tile(c, face, (0, 0, 0), rng.uniform(-15, 15)) for c in text]
    row(mask, letters, 4, lambda: rng.randint(-4, 4))
    levels = np.asarray(mask.filter(ImageFilter.GaussianBlur(0.7)), float)
    slope = levels - np.roll(levels, (2, 2), (0, 1))
    gray = 120 + levels * 0.1 + slope * rng.uniform(0.28, 0.42)
    gray = gray + numpy_rng(rng).normal(0, rng.uniform(4, 11), (h, w))
    tint = np.array(color(rng, 190, 255)) / 255
    return text, to_image(gray[..., None] * tint * 1.1)


@generator
def blurred_salt_pepper(rng: random.Random) -> Drawn:
    """Black and white specks over gray letters, then smoothed, as by a forum's PHP with a filter of its own."""
    text = word(rng, DIGITS + "ABCDEF", 6)
    w, h, noise = 150, 46, numpy_rng(rng)
    image = Image.new("L", (w, h), 255)
    mask = Image.new("L", (w, h))
    face = font("DejaVuSansCondensed-Bold.ttf", 28)
    letters = [tile(c, face, (0, 0, 0), rng.uniform(-14, 14)) for c in text]
    row(mask, letters, 4, lambda: rng.randint(-4, 4))
    image.paste(30, (0, 0, w, h), mask)
    levels = np.array(image)
    specks = noise.random((h, w))
    share = rng.uniform(0.08, 0.16)
    levels[specks < share], levels[specks > 1 - share] = 0, 255
    image = Image.fromarray(levels).filter(ImageFilter.GaussianBlur(rng.uniform(0.6, 1.0)))
    return text, image.convert("RGB")


@generator
def crushed_jpeg(rng: random.Random) -> Drawn:
    """Letters on a ground of another color with blots, kept by PHP's imagejpeg in a quality of 8 to 16."""
    text = word(rng, SAFE, 4, 5)
    w, h = 140, 50
    ground, ink = rng.choice(
        [
            ((90, 160, 90), (200, 60, 40)),
            ((70, 110, 180), (250, 220, 90)),
            ((200, 190, 150), (120, 70, 40)),
            ((240, 200, 210), (150, 40, 120)),
            ((40, 40, 60), (190, 120, 200)),
        ]
    )
    image = Image.new("RGB", (w, h), ground)
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, radius = rng.randrange(w), rng.randrange(h), rng.randint(4, 14)
        fill = tuple(min(255, max(0, level + rng.randint(-25, 25))) for level in ground)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    face = font("LiberationSans-Bold.ttf", 34)
    row(image, [tile(c, face, ink, rng.uniform(-20, 20)) for c in text], 6)
    return text, jpeg(image, rng.randint(8, 16))


@generator
def row_column_sine_shift(rng: random.Random) -> Drawn:
    """A word whose rows and columns are moved by a sine, pixel by pixel in Perl, below slanting lines."""
    text = word(rng, LOWER, 5)
    w, h, ground = 170, 60, color(rng, 215, 255)
    image = Image.new("RGB", (w, h), ground)
    face = font(rng.choice(["LiberationMono-Bold.ttf", "DejaVuSansMono-Bold.ttf"]), 38)
    row(image, [tile(text, face, color(rng, 0, 120))])
    across, down = rng.uniform(1.2, 2.6), rng.uniform(3, 6)
    start_across, start_down = rng.uniform(0, 6), rng.uniform(0, 6)
    pace = rng.uniform(0.12, 0.24)
    image = remap(
        image,
        lambda x, y: x + np.round(across * np.sin(y * pace + start_across)),
        lambda x, y: y + np.round(down * np.sin(x * 0.09 + start_down)),
        ground,
    )
    draw = ImageDraw.Draw(image)
    for x in range(-60, w, 14):
        draw.line((x, 0, x + 60, h), ground if x % 28 else color(rng, 120, 200))
    return text, image


@generator
def seven_segments(rng: random.Random) -> Drawn:
    """A pocket calculator's slanting digits, by lines that PHP's GD draws stroke by stroke."""
    text = word(rng, DIGITS, 5, 6)
    image = Image.new("RGB", (26 * len(text) + 16, 50), (190, 200, 180))
    draw = ImageDraw.Draw(image)
    for i, digit in enumerate(text):
        x, y = 12 + i * 26 + rng.randint(-2, 2), 8 + rng.randint(-4, 4)
        lean, thick = rng.uniform(0, 0.25), rng.randint(2, 4)
        for name, (x0, y0, x1, y1) in STROKES.items():
            start = x + x0 * 13 + lean * (34 - y0 * 17) + (x1 - x0), y + y0 * 17 + (y1 - y0)
            end = x + x1 * 13 + lean * (34 - y1 * 17) - (x1 - x0), y + y1 * 17 - (y1 - y0)
            draw.line((*start, *end), (30, 40, 30) if name in SEGMENTS[digit] else (176, 187, 168), thick)
    for _ in range(40):
        draw.point((rng.randrange(image.width), rng.randrange(50)), (60, 70, 60))
    return text, image


@generator
def see_through_shapes(rng: random.Random) -> Drawn:
    """Translucent discs and boxes over the text, by ASP.NET's System.Drawing with colors that have an alpha."""
    text = word(rng, SAFE, 5, 6)
    image = Image.new("RGB", (180, 60), (255, 255, 255))
    face = font(rng.choice(["Carlito-Bold.ttf", "DejaVuSans.ttf", "LiberationSerif-Bold.ttf"]), 36)
    letters = [tile(c, face, color(rng, 0, 90), rng.uniform(-20, 20)) for c in text]
    row(image, letters, 3, lambda: rng.randint(-5, 5))
    for _ in range(rng.randint(7, 11)):
        covered = image.copy()
        x, y, radius = rng.randrange(180), rng.randrange(60), rng.randint(8, 26)
        draw = ImageDraw.Draw(covered)
        shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        shape((x - radius, y - radius, x + radius, y + radius), fill=color(rng, 60, 255))
        image = Image.blend(image, covered, 0.4)
    return text, image


@generator
def chessboard_invert(rng: random.Random) -> Drawn:
    """Ink and ground that change places from square to square, by a loop over a picture's pixels in PHP."""
    text = word(rng, SAFE, 4, 5)
    w, h, square = 180, 64, rng.choice([14, 16, 20])
    mask = Image.new("L", (w, h))
    face = font(rng.choice(["DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf"]), 46)
    row(mask, [tile(c, face, (0, 0, 0), rng.uniform(-12, 12)) for c in text], 5)
    dark, light = np.array(color(rng, 0, 90)), np.array(color(rng, 190, 255))
    y, x = np.mgrid[:h, :w]
    board = ((x // square + y // square) % 2)[..., None]
    share = np.asarray(mask)[..., None] / 255
    share = np.where(board, share, 1 - share)
    return text, Image.fromarray((dark * share + light * (1 - share)).astype(np.uint8))


@generator
def colour_blind_dots(rng: random.Random) -> Drawn:
    """Dots of two families of colors, as on a plate that tests for color blindness, by PHP's imagefilledellipse."""
    text = word(rng, SAFE, 4)
    w, h = 220, 90
    mask = Image.new("L", (w, h))
    face = font("DejaVuSans-Bold.ttf", 66)
    row(mask, [tile(c, face, (0, 0, 0), rng.uniform(-8, 8)) for c in text], 2)
    large = Image.new("RGB", (w * 3, h * 3), (255, 255, 250))
    draw = ImageDraw.Draw(large)
    palettes = [
        [(200, 90, 60), (225, 130, 70), (180, 70, 80)],
        [(120, 150, 80), (150, 170, 110), (100, 130, 110)],
    ]
    rng.shuffle(palettes)
    middles = [
        (x + rng.uniform(-1.3, 1.3), y + rng.uniform(-1.3, 1.3))
        for y in range(1, h, 4)
        for x in range(y // 4 % 2 * 2, w, 4)
    ]
    for x, y in middles:
        radius = rng.uniform(1.2, 2.3) * 3
        inside = mask.getpixel((min(w - 1, max(0, int(x))), min(h - 1, max(0, int(y))))) > 128
        box = (x * 3 - radius, y * 3 - radius, x * 3 + radius, y * 3 + radius)
        draw.ellipse(box, fill=rng.choice(palettes[inside]))
    return text, large.resize((w, h), Image.Resampling.BOX)


@generator
def relief_mesh(rng: random.Random) -> Drawn:
    """Lines of a mesh seen aslant that the letters raise, as scripts with text "in 3D" draw it by polygons."""
    text = word(rng, UPPER, 4, 5)
    w, h = 240, 90
    mask = Image.new("L", (w, h))
    letters = [
        tile(c, font(rng.choice(["DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf"]), 54), (0, 0, 0)) for c in text
    ]
    row(mask, letters, 6, middle=46)
    rise = np.asarray(mask.filter(ImageFilter.GaussianBlur(1.2)), float) / 255
    ground, ink = rng.choice(
        [((255, 255, 255), (40, 60, 120)), ((20, 20, 40), (160, 220, 255)), ((255, 250, 230), (110, 60, 20))]
    )
    large = Image.new("RGB", (w * 2, h * 2), ground)
    draw = ImageDraw.Draw(large)
    height, tilt = rng.uniform(4.5, 6), rng.uniform(-0.08, 0.08)
    for y in range(6, h - 2, 3):
        line = [(2 * x, 2 * (y + tilt * (x - w / 2) - height * rise[y, x])) for x in range(w)]
        draw.polygon([*line, (2 * w, 2 * h), (0, 2 * h)], fill=ground)
        draw.line(line, ink, 2)
    return text, large.resize((w, h), Image.Resampling.BOX)


@generator
def hollow_crossed(rng: random.Random) -> Drawn:
    """Outlines of letters crossed by lines as thin, by ImageMagick's `-fill none -stroke`."""
    text = word(rng, SAFE, 5)
    w, h = 200, 64
    mask = Image.new("L", (w * 2, h * 2))
    face = font(rng.choice(["DejaVuSans-Bold.ttf", "FreeSerifBold.ttf", "LiberationSans-Bold.ttf"]), 88)
    letters = [tile(c, face, (0, 0, 0), rng.uniform(-20, 20)) for c in text]
    row(mask, letters, -4, lambda: rng.randint(-8, 8))
    edges = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(5)), mask)
    draw = ImageDraw.Draw(edges)
    for _ in range(rng.randint(4, 6)):
        start = rng.randint(0, 80), rng.randrange(h * 2)
        draw.line((*start, rng.randint(w * 2 - 80, w * 2), rng.randrange(h * 2)), 255, 2)
    image = Image.new("RGB", (w, h), color(rng, 230, 255))
    image.paste(color(rng, 0, 110), (0, 0, w, h), edges.resize((w, h), Image.Resampling.BOX))
    return text, image


@generator
def touching_letters_curve(rng: random.Random) -> Drawn:
    """Letters pushed into each other and a curve as thick as a stem, as sites against robots drew it."""
    text = word(rng, "abcdefhkmnprstuvxyz", 5, 6)
    w, h = 200, 70
    mask = Image.new("L", (w, h))
    face = font(rng.choice(["LiberationSans-Bold.ttf", "FreeSansBold.ttf", "Lato-Black.ttf"]), 44)
    letters = [tile(c, face, (0, 0, 0), rng.uniform(-18, 18)) for c in text]
    row(mask, letters, -3, lambda: rng.randint(-6, 6))
    draw = ImageDraw.Draw(mask)
    for _ in range(rng.choice([1, 1, 2])):
        y, high, long, phase = rng.randint(24, 46), rng.uniform(6, 14), rng.uniform(70, 150), rng.uniform(0, 6)
        curve = [(x, y + high * math.sin(x * 6.28 / long + phase)) for x in range(8, w - 8)]
        draw.line(curve, 255, rng.choice([2, 3]))
    image = Image.new("RGB", (w, h), (255, 255, 255))
    image.paste(color(rng, 0, 120), (0, 0, w, h), mask.filter(ImageFilter.SMOOTH))
    return text, image


@generator
def background_scratches(rng: random.Random) -> Drawn:
    """Letters cut in pieces by many lines in the ground's color, by PHP's imageline after the text."""
    text = word(rng, SAFE, 5)
    w, h = 190, 60
    if rng.random() < 0.6:
        ground, ink = (255, 255, 255), color(rng, 0, 120)
    else:
        ground, ink = (20, 20, 30), color(rng, 150, 255)
    image = Image.new("RGB", (w, h), ground)
    face = font(rng.choice(["DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf", "DejaVuSerif-Bold.ttf"]), 38)
    letters = [tile(c, face, ink, rng.uniform(-20, 20)) for c in text]
    row(image, letters, 1, lambda: rng.randint(-5, 5))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(14, 22)):
        x = rng.randint(-30, w)
        draw.line((x, 0, x + rng.randint(-60, 60), h), ground, rng.choice([1, 1, 2]))
    for _ in range(rng.randint(6, 10)):
        ends = rng.randrange(w), rng.randrange(h), rng.randrange(w), rng.randrange(h)
        draw.line(ends, ink if rng.random() < 0.6 else ground)
    return text, image


@generator
def static_density(rng: random.Random) -> Drawn:
    """Snow that is denser, or thinner, where a letter is, by a loop over a picture's pixels in PHP."""
    text = word(rng, DIGITS[1:] + "ACEFHKLNPRTUXY", 4)
    w, h, noise = 200, 76, numpy_rng(rng)
    mask = Image.new("L", (w, h))
    face = font("DejaVuSans-Bold.ttf", 60)
    row(mask, [tile(c, face, (0, 0, 0), rng.uniform(-10, 10)) for c in text], 5)
    share = np.asarray(mask) / 255
    outside, inside = rng.uniform(0.12, 0.24), rng.uniform(0.7, 0.82)
    dark = noise.random((h, w)) < outside + (inside - outside) * share
    if rng.random() < 0.4:
        dark = ~dark
    pixels = np.where(dark[..., None], np.array(color(rng, 0, 70)), np.array(color(rng, 215, 255)))
    return text, Image.fromarray(pixels.astype(np.uint8))


@generator
def letters_of_letters(rng: random.Random) -> Drawn:
    """Large letters set out of many tiny characters among paler ones, by PHP's imagettftext at every few pixels."""
    text = word(rng, SAFE, 4)
    w, h = 250, 84
    mask = Image.new("L", (w, h))
    face = font("DejaVuSans-Bold.ttf", 68)
    row(mask, [tile(c, face, (0, 0, 0), rng.uniform(-8, 8)) for c in text], 5)
    image = Image.new("RGB", (w, h), color(rng, 235, 255))
    draw = ImageDraw.Draw(image)
    tiny, ink, pale = font("DejaVuSansMono-Bold.ttf", 7), color(rng, 0, 90), color(rng, 175, 205)
    for y in range(2, h, 5):
        for x in range(2, w, 4):
            inside = mask.getpixel((x, y)) > 120
            if inside or rng.random() < 0.8:
                draw.text((x, y), rng.choice(SAFE), ink if inside else pale, font=tiny, anchor="mm")
    return text, image


@generator
def swirl_with_noise(rng: random.Random) -> Drawn:
    """Letters of many colors whirled about the middle, with noise, by ImageMagick's `convert -swirl 60 +noise`."""
    text = word(rng, SAFE, 5)
    w, h, ground = 180, 70, color(rng, 200, 255)
    image = Image.new("RGB", (w, h), ground)
    face = font(rng.choice(["FreeSansBold.ttf", "DejaVuSerif-Bold.ttf", "LiberationSans-Bold.ttf"]), 42)
    row(image, [tile(c, face, color(rng, 0, 130), rng.uniform(-10, 10)) for c in text], 3)
    most = math.radians(rng.choice([-1, 1]) * rng.uniform(55, 90))

    def whirled(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u, v = (x - w / 2) / (w / 2), (y - h / 2) / (h / 2)
        turn = most * np.maximum(0, 1 - np.hypot(u, v)) ** 2
        return u * np.cos(turn) - v * np.sin(turn) * h / w, v * np.cos(turn) + u * np.sin(turn) * w / h

    image = remap(
        image,
        lambda x, y: w / 2 + whirled(x, y)[0] * w / 2,
        lambda x, y: h / 2 + whirled(x, y)[1] * h / 2,
        ground,
    )
    return text, to_image(np.asarray(image) + numpy_rng(rng).normal(0, rng.uniform(10, 28), (h, w, 3)))
