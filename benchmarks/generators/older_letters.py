"""14 captchas of sites of 2003 to 2014, in PHP, Perl, ASP.NET and Java: what they do to letters and the ground."""

from __future__ import annotations

import io
import math
import random

import numpy as np
from PIL import Image, ImageDraw

from .tools import (
    DIGITS,
    HEX,
    LOWER,
    SAFE,
    SAFE_LOWER,
    UPPER,
    Drawn,
    Generator,
    bitmap,
    color,
    font,
    put,
    registering,
    remap,
    row,
    tile,
    word,
)

GENERATORS: dict[str, Generator] = {}
generator = registering(GENERATORS)


@generator
def gd_counter_digits(rng: random.Random) -> Drawn:
    """Small bitmap digits with specks in a frame, by PHP's imagestring in its font 5, as in guestbooks of 2003."""
    text = word(rng, DIGITS, 4, 5)
    image = Image.new("RGB", (60, 20), rng.choice([(230, 230, 230), (255, 255, 204), (204, 221, 255)]))
    draw = ImageDraw.Draw(image)
    ink = color(rng, 0, 110)
    draw.bitmap((rng.randint(3, 12), rng.randint(3, 6)), bitmap(text), ink)
    for _ in range(rng.randint(30, 80)):
        draw.point((rng.randrange(60), rng.randrange(20)), color(rng, 90, 220))
    draw.rectangle((0, 0, 59, 19), outline=(0, 0, 0))
    return text, image


@generator
def perl_giantfont_grid(rng: random.Random) -> Drawn:
    """Bitmap letters twice as large on a grid, by Perl's GD with gdGiantFont and copyResized."""
    text = word(rng, UPPER, 5)
    image = Image.new("RGB", (130, 40), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    line = rng.choice([(180, 200, 230), (200, 200, 200), (170, 220, 170)])
    step = rng.choice([6, 8, 10])
    for k in range(rng.randrange(step), 130, step):
        draw.line((k, 0, k, 40), line)
        draw.line((0, k, 130, k), line)
    ink = rng.choice([(0, 0, 128), (120, 0, 0), (0, 80, 0), (40, 40, 40)])
    for i, character in enumerate(text):
        mask = bitmap(character)
        mask = mask.resize((mask.width * 2, mask.height * 2), Image.Resampling.NEAREST)
        draw.bitmap((8 + i * 24 + rng.randint(-3, 3), rng.randint(3, 14)), mask, ink)
    return text, image


@generator
def php_arial_tilted_word(rng: random.Random) -> Drawn:
    """A whole word at one angle and two lines, by a single call of PHP's imagettftext."""
    text = word(rng, "abcdefghkmnpqrstuvwxyz", 5, 6)
    image = Image.new("RGB", (140, 50), color(rng, 225, 255))
    face = font(rng.choice(["LiberationSans-Regular.ttf", "LiberationSans-Bold.ttf"]), rng.randint(24, 27))
    put(image, tile(text, face, color(rng, 0, 120), rng.uniform(-9, 9)), 70 + rng.randint(-8, 8), 25)
    draw = ImageDraw.Draw(image)
    for _ in range(2):
        draw.line((0, rng.randrange(50), 139, rng.randrange(50)), color(rng, 80, 200))
    return text, image


@generator
def aspnet_hatchbrush(rng: random.Random) -> Drawn:
    """Bold serif digits on a pattern, by the HatchBrush of ASP.NET's System.Drawing."""
    text = word(rng, DIGITS, 6)
    back, fore = rng.choice(
        [((255, 255, 255), (211, 211, 211)), ((240, 248, 255), (176, 196, 222)), ((255, 250, 205), (238, 220, 150))]
    )
    pixels = np.full((45, 150, 3), back, np.uint8)
    y, x = np.mgrid[:45, :150]
    hatches = [
        (x + y) % 8 == 0,
        ((x + y) % 8 == 0) | ((x - y) % 8 == 0),
        (x // 4 + y // 4) % 2 == 0,
        (x % 4 == 0) & (y % 4 == 0),
        (y % 8 == 0) | ((x + y // 8 % 2 * 4) % 8 == 0),
    ]
    pixels[rng.choice(hatches)] = fore
    image = Image.fromarray(pixels)
    face = font(rng.choice(["LiberationSerif-BoldItalic.ttf", "LiberationSerif-Bold.ttf"]), 34)
    put(image, tile(text, face, rng.choice([(0, 0, 139), (139, 0, 0), (47, 79, 79), (0, 0, 0)])), 75, 22)
    return text, image


@generator
def java2d_gradient_shadow(rng: random.Random) -> Drawn:
    """Letters with a drop shadow in a panel with round corners, by a Java servlet's GradientPaint."""
    text = word(rng, SAFE, 5)
    w, h = 160, 50
    start, end = np.array(color(rng, 170, 255)), np.array(color(rng, 120, 220))
    share = np.linspace(0, 1, w)[None, :, None] * 0.7 + np.linspace(0, 0.3, h)[:, None, None]
    image = Image.fromarray((start + (end - start) * share).astype(np.uint8))
    face = font(rng.choice(["DejaVuSans-Bold.ttf", "DejaVuSerif-Bold.ttf"]), 28)
    ink, angles = color(rng, 0, 90), [rng.uniform(-12, 12) for _ in text]
    for fill, down in (tuple((start * 0.6).astype(int).tolist()), 3), (ink, 0):
        letters = [tile(c, face, fill, angle) for c, angle in zip(text, angles, strict=True)]
        row(image, letters, 4, middle=h / 2 + down)
    ImageDraw.Draw(image).rounded_rectangle((0, 0, w - 1, h - 1), 8, outline=ink)
    return text, image


@generator
def terminal_scanlines(rng: random.Random) -> Drawn:
    """Glowing letters on a dark screen with dark lines across, as sites with the looks of a terminal had them."""
    text = word(rng, rng.choice([HEX, SAFE_LOWER]), 6)
    w, h = 150, 40
    ink = rng.choice([(60, 255, 90), (255, 190, 40), (220, 240, 255)])
    image = Image.new("RGB", (w, h), (5, 15, 8))
    face = font(rng.choice(["DejaVuSansMono.ttf", "LiberationMono-Bold.ttf", "FreeMonoBold.ttf"]), 28)
    row(image, [tile(c, face, ink) for c in text], 6, lambda: rng.randint(-4, 4))
    draw = ImageDraw.Draw(image)
    for y in range(rng.randrange(3), h, 3):
        draw.line((0, y, w, y), tuple(level // 3 for level in ink) if rng.random() < 0.15 else (0, 0, 0))
    return text, image


@generator
def letter_badges(rng: random.Random) -> Drawn:
    """White letters, each in a colored disc or box of its own, by PHP's imagefilledellipse."""
    text = word(rng, UPPER, 4, 5)
    image = Image.new("RGB", (36 * len(text) + 8, 44), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    face = font("LiberationSans-Bold.ttf", 24)
    shape = draw.ellipse if rng.random() < 0.6 else draw.rectangle
    for i, character in enumerate(text):
        x, y, radius = 22 + i * 36, 22 + rng.randint(-3, 3), 16
        fill = color(rng, 20, 190)
        edge = tuple(level // 2 for level in fill)
        shape((x - radius, y - radius, x + radius, y + radius), fill=fill, outline=edge)
        put(image, tile(character, face, (255, 255, 255), rng.uniform(-20, 20)), x, y)
    return text, image


@generator
def transparent_gif_dots(rng: random.Random) -> Drawn:
    """Letters without smooth edges over dotted lines, as a GIF of 16 colors whose ground is transparent."""
    text = word(rng, SAFE, 4, 6)
    image = Image.new("RGB", (120, 36), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    dot = color(rng, 120, 200)
    for y in range(2, 36, rng.choice([4, 5, 6])):
        for x in range(y % 2 * 2, 120, 4):
            draw.point((x, y), dot)
    draw.fontmode = "1"
    face = font("FreeSansBoldOblique.ttf", 24 if len(text) < 6 else 20)
    ink = rng.choice([(204, 0, 0), (0, 102, 153), (102, 0, 153), (0, 0, 0)])
    left = 60 - (face.getlength(text) + 2 * len(text)) / 2
    for character in text:
        draw.text((left, 18 + rng.randint(-3, 3)), character, ink, font=face, anchor="lm")
        left += face.getlength(character) + 2
    packed = io.BytesIO()
    few = image.quantize(16)
    palette = few.getpalette()
    lightest = max(range(16), key=lambda i: sum(palette[3 * i : 3 * i + 3]))
    few.save(packed, "GIF", transparency=lightest)
    return text, Image.open(packed).copy()


@generator
def notepad_handwriting(rng: random.Random) -> Drawn:
    """Handwriting on ruled paper with a margin, by imagettftext and a font that a site of hobbyists had downloaded."""
    text = word(rng, "abdefghkmnprstwxyz", 5)
    image = Image.new("RGB", (170, 64), (255, 255, 240))
    draw = ImageDraw.Draw(image)
    for y in range(rng.randint(4, 10), 64, 11):
        draw.line((0, y, 170, y), (170, 200, 240))
    draw.line((14, 0, 14, 64), (240, 150, 150))
    face = font(rng.choice(["Domestic_Manners.ttf", "SteveHand.ttf", "ComicNeue-Bold.otf"]), 33)
    ink = rng.choice([(20, 30, 120), (30, 30, 30), (120, 20, 40)])
    row(image, [tile(c, face, ink, rng.uniform(-7, 7)) for c in text], 3, lambda: rng.randint(-3, 3))
    return text, image


@generator
def tiny_verdana_upscaled(rng: random.Random) -> Drawn:
    """Tiny text without smooth edges, made two or three times as large by PHP's imagecopyresampled."""
    text = word(rng, SAFE, 5)
    name = rng.choice(["DejaVuSans.ttf", "DejaVuSans-Bold.ttf", None])
    spaced = rng.random() < 0.5 or name == "DejaVuSans-Bold.ttf"
    mask = bitmap(" ".join(text) if spaced else text, name, 10)
    times = 3 if mask.width < 45 else 2
    small = Image.new("RGB", (mask.width + 8, mask.height + 6), color(rng, 215, 255))
    draw = ImageDraw.Draw(small)
    for _ in range(12):
        draw.point((rng.randrange(small.width), rng.randrange(small.height)), color(rng, 120, 210))
    draw.bitmap((4, 3), mask, color(rng, 0, 110))
    way = rng.choice([Image.Resampling.NEAREST, Image.Resampling.BILINEAR])
    return text, small.resize((small.width * times, small.height * times), way)


@generator
def rmagick_gradient_ink(rng: random.Random) -> Drawn:
    """Text that goes from one color to another, on thin gray rays, by Ruby's RMagick."""
    text = word(rng, SAFE_LOWER, 5, 6)
    image = Image.new("RGB", (180, 60), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    x, y = rng.randint(0, 180), rng.choice([0, 60])
    for degrees in range(0, 360, 8):
        turn = math.radians(degrees)
        draw.line((x, y, x + 260 * math.cos(turn), y + 260 * math.sin(turn)), (205, 205, 205))
    mask = Image.new("L", image.size)
    face = font(rng.choice(["Carlito-Bold.ttf", "Lato-Bold.ttf", "OpenSans-Bold.ttf"]), 40)
    row(mask, [tile(c, face, (0, 0, 0), rng.uniform(-10, 10)) for c in text], 1)
    top, bottom = np.array(color(rng, 0, 150)), np.array(color(rng, 0, 200))
    share = np.linspace(0, 1, 60)[:, None, None] * np.ones((1, 180, 1))
    image.paste(Image.fromarray((top + (bottom - top) * share).astype(np.uint8)), (0, 0), mask)
    return text, image


@generator
def php_font_salad(rng: random.Random) -> Drawn:
    """A font, size, color and angle of its own for every letter over arcs, by PHP's imagettftext and imagearc."""
    text = word(rng, SAFE, 5)
    image = Image.new("RGB", (170, 60), color(rng, 220, 255))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(8, 14)):
        x, y, w, start = rng.randrange(170), rng.randrange(60), rng.randint(20, 90), rng.randrange(360)
        box = (x - w, y - w // 2, x + w, y + w // 2)
        draw.arc(box, start, start + rng.randint(40, 180), color(rng, 120, 210))
    names = [
        "DejaVuSans-Bold.ttf",
        "FreeSerifBold.ttf",
        "LiberationMono-Bold.ttf",
        "FreeSansBoldOblique.ttf",
        "LiberationSerif-Italic.ttf",
        "DejaVuSerif.ttf",
        "Tuffy_Bold.ttf",
    ]
    letters = [
        tile(c, font(rng.choice(names), rng.randint(26, 38)), color(rng, 0, 150), rng.uniform(-25, 25)) for c in text
    ]
    row(image, letters, 4, lambda: rng.randint(-6, 6))
    return text, image


@generator
def imagemagick_wave(rng: random.Random) -> Drawn:
    """A word bent to a wave with a curve of its color, by ImageMagick's `convert -wave`."""
    text = word(rng, LOWER, 5, 6)
    image = Image.new("RGB", (200, 64), (255, 255, 255))
    ink = rng.choice([(0, 0, 160), (160, 0, 0), (0, 90, 60), (60, 60, 60)])
    face = font(rng.choice(["DejaVuSans.ttf", "FreeSerifBold.ttf", "LiberationSans-Bold.ttf"]), 38)
    row(image, [tile(text, face, ink)])
    high, long, phase = rng.uniform(4, 7), rng.uniform(50, 90), rng.uniform(0, 6.28)
    image = remap(image, lambda x, y: x, lambda x, y: y + high * np.sin(x * 6.28 / long + phase))
    y = rng.randint(24, 40)
    curve = [(x, y + high * math.sin(x * 6.28 / long * 0.8)) for x in range(10, 190)]
    ImageDraw.Draw(image).line(curve, ink, 1)
    return text, image


@generator
def imagemagick_implode(rng: random.Random) -> Drawn:
    """White letters on a dark color, drawn to the middle or pushed from it by ImageMagick's `convert -implode`."""
    text = word(rng, SAFE, 5)
    w, h, ground = 160, 60, color(rng, 20, 120)
    image = Image.new("RGB", (w, h), ground)
    face = font(rng.choice(["LiberationSans-Bold.ttf", "DejaVuSans.ttf"]), 34)
    row(image, [tile(c, face, (255, 255, 255)) for c in text], 3)
    power = rng.choice([-0.3, -0.2, 0.25, 0.35])

    def pull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        far = np.minimum(np.hypot((x - w / 2) / (w / 2), (y - h / 2) / (h / 2)), 1)
        return np.where(far < 1, np.maximum(np.sin(far * np.pi / 2), 1e-3) ** -power, 1)

    image = remap(
        image,
        lambda x, y: w / 2 + (x - w / 2) * pull(x, y),
        lambda x, y: h / 2 + (y - h / 2) * pull(x, y),
        ground,
    )
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        draw.line((rng.randrange(w), 0, rng.randrange(w), h), tuple(level + 45 for level in ground))
    return text, image
