"""11 captchas of sites of 2010 to 2024, in PHP, Python, Java, C# and Node: fonts, tiles, grounds and shadows."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from .tools import (
    DIGITS,
    HEX,
    LOWER,
    SAFE,
    SAFE_CAPITALS,
    SAFE_MIXED,
    SAFE_SMALL,
    SEGMENTS,
    STROKES,
    Color,
    Drawn,
    Generator,
    bezier,
    color,
    fine_font,
    fitting_font,
    glyph,
    jpeg,
    numpy_rng,
    registering,
    to_image,
    word,
)

GENERATORS: dict[str, Generator] = {}
generator = registering(GENERATORS)


def _across(start: Color, end: Color, size: tuple[int, int]) -> Image.Image:
    """A picture that goes from one color at the left to another at the right."""
    width, height = size
    share = np.linspace(0, 1, width)[None, :, None] * np.ones((height, 1, 1))
    return Image.fromarray((np.array(start) * (1 - share) + np.array(end) * share).astype(np.uint8))


@generator
def gd_builtin_font(rng: random.Random) -> Drawn:
    """Digits of a built-in bitmap font, twice as large, with specks, by imagestring of PHP 5."""
    text = word(rng, DIGITS, 4, 6)
    face = ImageFont.load_default_imagefont()
    mask = Image.new("L", (80, 20), 0)
    x = rng.randint(2, 5)
    for digit in text:
        ImageDraw.Draw(mask).text((x, rng.randint(0, 4)), digit, font=face, fill=255)
        x += 6
    mask = mask.crop((0, 0, x + 4, 16)).resize(((x + 4) * 2, 32), Image.Resampling.NEAREST)
    ground, ink = color(rng, 215, 255), color(rng, 0, 110)
    image = Image.new("RGB", mask.size, ground)
    draw = ImageDraw.Draw(image)
    w = image.width
    for _ in range(4):
        ends = (rng.randint(0, w), rng.randint(0, 32), rng.randint(0, w), rng.randint(0, 32))
        draw.line(ends, fill=color(rng, 140, 220))
    image.paste(ink, mask=mask)
    for _ in range(60):
        draw.point((rng.randrange(w), rng.randrange(32)), fill=color(rng, 40, 200))
    return text, image


@generator
def django_one_font_grey(rng: random.Random) -> Drawn:
    """Dark gray capitals of one font with a few arcs behind, by a snippet for Django with Pillow."""
    text = word(rng, SAFE_CAPITALS, 5, 6)
    w, h = 130, 40
    image = Image.new("RGB", (w, h), (240, 240, 240))
    draw = ImageDraw.Draw(image)
    for _ in range(5):
        x, y = rng.randint(-30, w), rng.randint(-20, h)
        box = (x, y, x + rng.randint(30, 90), y + rng.randint(20, 60))
        draw.arc(box, rng.randint(0, 180), rng.randint(180, 360), fill=(185, 185, 190))
    face = fitting_font("DejaVuSans.ttf", text, w - 16, 26)
    corner = (w - face.getlength(text)) / 2 + rng.randint(-3, 3), h / 2 + rng.randint(-3, 3)
    draw.text(corner, text, font=face, fill=(60, 60, 70), anchor="lm")
    draw.rectangle((0, 0, w - 1, h - 1), outline=(150, 150, 150))
    return text, image


@generator
def tiles_per_letter(rng: random.Random) -> Drawn:
    """White letters, each on a colored tile with round corners, a little turned, as by a site's own JavaScript."""
    text = word(rng, SAFE, 4, 6)
    side = rng.choice([34, 40])
    image = Image.new("RGB", (len(text) * (side + 6) + 8, side + 18), (250, 250, 250))
    fills = [(214, 69, 65), (52, 152, 219), (39, 174, 96), (142, 68, 173), (211, 84, 0), (44, 62, 80)]
    face = fine_font("Roboto-Bold.ttf", int(side * 0.68))
    for i, character in enumerate(text):
        tile = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        draw = ImageDraw.Draw(tile)
        draw.rounded_rectangle((0, 0, side - 1, side - 1), 5, fill=rng.choice(fills))
        draw.text((side / 2, side / 2), character, font=face, fill="white", anchor="mm")
        tile = tile.rotate(rng.uniform(-10, 10), Image.Resampling.BICUBIC, expand=True)
        image.paste(tile, (6 + i * (side + 6), rng.randint(1, 9)), tile)
    return text, image


@generator
def seven_segment(rng: random.Random) -> Drawn:
    """A meter's display whose dark segments are dimly seen, crossed by lines, by polygons in a canvas."""
    text = word(rng, DIGITS, 4, 6)
    lit, unlit, ground = rng.choice(
        [
            ((90, 255, 120), (20, 50, 28), (8, 20, 12)),
            ((255, 70, 50), (60, 20, 18), (25, 5, 5)),
            ((30, 40, 30), (172, 186, 160), (186, 200, 172)),
        ]
    )
    w, h = 20, 36
    image = Image.new("RGB", (len(text) * 30 + 20, 60), ground)
    draw = ImageDraw.Draw(image)
    for i, digit in enumerate(text):
        left, top = 14 + i * 30, 12 + rng.randint(-4, 4)
        for shown, fill in ((False, unlit), (True, lit)):
            for name, ends in STROKES.items():
                x0, y0, x1, y1 = (end * side for end, side in zip(ends, (w, h / 2, w, h / 2), strict=True))
                if (name in SEGMENTS[digit]) == shown:
                    short = 3 if x0 == x1 else 0  # upright strokes leave room above and below, the others at the sides
                    start = left + (h - y0) * 0.12 + x0 + (3 - short), top + y0 + short
                    end = left + (h - y1) * 0.12 + x1 - (3 - short), top + y1 - short
                    draw.line((*start, *end), fill=fill, width=4)
    for _ in range(rng.randint(2, 4)):
        y = rng.randint(0, 60)
        draw.line((0, y, image.width, y + rng.randint(-20, 20)), fill=lit, width=1)
    return text, image


@generator
def aspnet_hatch(rng: random.Random) -> Drawn:
    """Bold slanting serif characters on crossed lines with pellets, by C# and GDI+ with a hatch brush."""
    text = word(rng, DIGITS + "ABCDEF", 5, 6)
    w, h = 150, 46
    ground, hatch, ink = rng.choice(
        [
            ((255, 255, 255), (205, 205, 205), (60, 60, 60)),
            ((236, 244, 255), (190, 210, 240), (20, 40, 120)),
            ((255, 248, 230), (232, 214, 170), (120, 60, 10)),
        ]
    )
    image = Image.new("RGB", (w, h), ground)
    draw = ImageDraw.Draw(image)
    for k in range(-h, w, rng.choice([5, 6, 8])):
        draw.line((k, 0, k + h, h), fill=hatch)
        draw.line((k, h, k + h, 0), fill=hatch)
    face = fitting_font("LiberationSerif-BoldItalic.ttf", text, w - 24, 34)
    left, top, right, bottom = face.getbbox(text)
    draw.text(((w - right - left) / 2, (h - bottom - top) / 2), text, font=face, fill=ink)
    for _ in range(45):
        x, y, size = rng.randrange(w), rng.randrange(h), rng.randint(1, 3)
        draw.ellipse((x, y, x + size, y + size), fill=hatch if rng.random() < 0.6 else ink)
    return text, image


@generator
def wp_grid_mixed(rng: random.Random) -> Drawn:
    """Characters of both cases, some higher and some lower, on squared paper, by a WordPress plugin for comments."""
    text = word(rng, SAFE_MIXED, 5, 6)
    w, h = 220, 50
    image = Image.new("RGB", (w, h), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    step, line = rng.randint(7, 11), rng.choice([(200, 220, 245), (215, 235, 210), (240, 215, 215)])
    start = rng.randint(0, step)
    for k in range(start, w, step):
        draw.line((k, 0, k, h), fill=line)
    for k in range(start, h, step):
        draw.line((0, k, w, k), fill=line)
    face = fine_font(rng.choice(["LiberationSans-Regular.ttf", "Dustismo.ttf", "OpenSans-Regular.ttf"]), 29)
    x, ink = 10, color(rng, 0, 110)
    for character in text:
        draw.text((x, h / 2 + 10 + rng.randint(-6, 4)), character, font=face, fill=ink, anchor="ls")
        x += face.getlength(character) + rng.randint(0, 3)
    return text, image.crop((0, 0, max(150, int(x) + 10), h))


@generator
def tiny_hex_border(rng: random.Random) -> Drawn:
    """Hexadecimal digits of one ink in a frame, 22 pixels high, by the login page of a router."""
    text = word(rng, HEX, 4, 5)
    face = fine_font("DejaVuSansMono-Bold.ttf", 14)
    w, h = int(face.getlength(text)) + 16, 22
    image = Image.new("RGB", (w, h), rng.choice([(255, 255, 255), (230, 240, 230), (255, 255, 204)]))
    draw = ImageDraw.Draw(image)
    ink = rng.choice([(0, 0, 160), (150, 0, 0), (0, 90, 0), (0, 0, 0)])
    for i, character in enumerate(text):
        corner = 8 + i * face.getlength("0"), 16 + rng.randint(-2, 2)
        draw.text(corner, character, font=face, fill=ink, anchor="ls")
    for _ in range(rng.randint(15, 40)):
        draw.point((rng.randrange(w), rng.randrange(h)), fill=ink)
    draw.rectangle((0, 0, w - 1, h - 1), outline=(120, 120, 120))
    return text, image


@generator
def gradient_text_jpeg(rng: random.Random) -> Drawn:
    """Text from one color to another on a ground that is so, too, as JPEG by a Java servlet's GradientPaint."""
    text = word(rng, SAFE_CAPITALS + SAFE_CAPITALS.lower().replace("l", ""), 5, 7)
    w, h = 200, 60
    image = _across(color(rng, 190, 255), color(rng, 190, 255), (w, h))
    face = fitting_font(rng.choice(["Lato-Bold.ttf", "Carlito-Bold.ttf", "FreeSerifBold.ttf"]), text, w - 24, 42)
    mask = Image.new("L", (w, h), 0)
    ImageDraw.Draw(mask).text((w / 2, h / 2), text, font=face, fill=255, anchor="mm")
    mask = mask.rotate(rng.uniform(-5, 5), Image.Resampling.BICUBIC)
    image.paste(_across(color(rng, 0, 130), color(rng, 0, 130), (w, h)), mask=mask)
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        draw.line((0, rng.randint(0, h), w, rng.randint(0, h)), fill=color(rng, 60, 180), width=1)
    return text, jpeg(image, rng.randint(30, 70))


@generator
def retina_soft_blobs(rng: random.Random) -> Drawn:
    """Round letters, calmly set, over pastel blobs, 140 pixels high for screens of 2018, as start-ups had it."""
    text = word(rng, SAFE_SMALL + "23456789", 5, 6)
    w, h = 400, 140
    image = Image.new("RGB", (w, h), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    pastels = [(255, 224, 230), (222, 240, 255), (228, 250, 228), (255, 244, 214), (238, 228, 255)]
    for _ in range(9):
        x, y, size = rng.randint(-40, w), rng.randint(-40, h), rng.randint(50, 130)
        draw.ellipse((x, y, x + size, y + size), fill=rng.choice(pastels))
    image = image.filter(ImageFilter.GaussianBlur(3))
    inks = [(50, 60, 90), (200, 70, 90), (40, 120, 110), (110, 70, 160)]
    step = (w - 50) / len(text)
    for i, character in enumerate(text):
        face = fine_font(rng.choice(["Comfortaa-Bold.ttf", "Quicksand-Bold.ttf"]), rng.randint(62, 76))
        letter = glyph(character, face, rng.choice(inks), rng.uniform(-14, 14))
        x, y = 25 + i * step + (step - letter.width) / 2, (h - letter.height) / 2 + rng.randint(-14, 14)
        image.paste(letter, (int(x), int(y)), letter)
    return text, image


@generator
def transparent_png_letters(rng: random.Random) -> Drawn:
    """Dark letters and translucent bubbles on nothing, as a PNG with alpha by Node's canvas."""
    text = word(rng, SAFE, 5)
    w, h = 150, 50
    image = Image.new("RGBA", (w, h), (255, 255, 255, 0))
    for _ in range(7):
        bubble = Image.new("RGBA", (w, h), (255, 255, 255, 0))
        x, y, size = rng.randint(-10, w), rng.randint(-10, h), rng.randint(8, 34)
        ImageDraw.Draw(bubble).ellipse((x, y, x + size, y + size), fill=(*color(rng, 60, 220), 70))
        image = Image.alpha_composite(image, bubble)
    names = ["OpenSans-Bold.ttf", "LiberationSans-Bold.ttf", "Carlito-Bold.ttf"]
    for i, character in enumerate(text):
        face = fine_font(rng.choice(names), rng.randint(26, 33))
        letter = glyph(character, face, (*color(rng, 0, 140), 255), rng.uniform(-18, 18))
        x, y = int(6 + i * 28 + (28 - letter.width) / 2), (h - letter.height) // 2 + rng.randint(-4, 4)
        image.alpha_composite(letter, (max(0, x), max(0, min(h - letter.height, y))))
    return text, image


@generator
def drop_shadow_serif(rng: random.Random) -> Drawn:
    """Serif letters with a soft shadow on paper and one thin curve, by Ruby's RMagick."""
    text = word(rng, LOWER.replace("l", "").replace("i", ""), 5, 7)
    w, h = 220, 64
    grain = numpy_rng(rng).normal(0, 5, (h, w, 1))
    image = to_image(np.array(rng.choice([(244, 234, 210), (226, 232, 226), (238, 226, 226)])) + grain)
    name = rng.choice(["DejaVuSerif-Bold.ttf", "Caladea-Bold.ttf", "LiberationSerif-Bold.ttf"])
    face = fitting_font(name, text, w - 30 - 3 * len(text), 38)
    mask = Image.new("L", (w, h), 0)
    x = 14
    for character in text:
        corner = x, h / 2 + 11 + rng.randint(-5, 4)
        ImageDraw.Draw(mask).text(corner, character, font=face, fill=255, anchor="ls")
        x += face.getlength(character) + 3
    shadow = ImageChops.offset(mask, 3, 3).filter(ImageFilter.GaussianBlur(2)).point(lambda level: level * 0.6)
    image.paste((90, 80, 70), mask=shadow)
    ink = rng.choice([(130, 30, 30), (30, 60, 110), (40, 80, 40)])
    image.paste(ink, mask=mask)
    ImageDraw.Draw(image).line(bezier([(x, rng.randint(0, h)) for x in (0, 70, 140, w)]), fill=ink, width=1)
    return text, image
