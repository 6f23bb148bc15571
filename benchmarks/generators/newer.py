"""32 generators of captchas as sites of 2010-2024 have them: scripts in PHP, Python, Java, C# and Node.

Each is an idea of its own, from a router's login to letters that exist only as a cloud of dots, and none reproduces a
library. They serve only to measure (benchmarks/accuracy.md): no reader that is shipped is trained on their pictures.
"""

from __future__ import annotations

import math
import random

import cv2
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
    place,
    registering,
    remap,
    spread,
    to_image,
    word,
)

GENERATORS: dict[str, Generator] = {}
generator = registering(GENERATORS)

WHITE = (255, 255, 255, 255)
BLACK = (0, 0, 0, 255)


def _across(start: Color, end: Color, size: tuple[int, int]) -> Image.Image:
    """A picture that goes from one color at the left to another at the right."""
    width, height = size
    share = np.linspace(0, 1, width)[None, :, None] * np.ones((height, 1, 1))
    return Image.fromarray((np.array(start) * (1 - share) + np.array(end) * share).astype(np.uint8))


def _between(start: Color, end: Color, share: float) -> Color:
    """The color that lies so far on the way from one to the other."""
    red, green, blue = (int(a + (b - a) * share) for a, b in zip(start, end, strict=True))
    return red, green, blue


def _lens(
    image: Image.Image, x: float, y: float, radius: float, strength: int, whirls: bool, ground: Color
) -> Image.Image:
    """Lay a lens that makes larger or smaller, or a whirl, over the place (x, y)."""

    def moved(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        across, down = u - x, v - y
        near = np.clip(1 - np.hypot(across, down) / radius, 0, 1) ** 1.5
        if whirls:
            turn = strength * near
            return (
                u + (across * np.cos(turn) - down * np.sin(turn) - across),
                v + (across * np.sin(turn) + down * np.cos(turn) - down),
            )
        return u + strength * -0.38 * near * across, v + strength * -0.38 * near * down

    return remap(image, lambda u, v: moved(u, v)[0], lambda u, v: moved(u, v)[1], ground)


# --------------------------------------------------------------------------------------------------------------------
# Easy ones


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
    """Dark grey capitals of one font with a few arcs behind, by a snippet for Django with Pillow."""
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


# --------------------------------------------------------------------------------------------------------------------
# Medium ones


@generator
def svg_wobbly_paths(rng: random.Random) -> Drawn:
    """Outlines of letters with every point shaken and curves behind, as colored paths of an SVG by Node."""
    text = word(rng, SAFE_MIXED, 4, 6)
    w, h, times = 40 * len(text) + 20, 60, 3
    ground = rng.choice([(240, 240, 240), (255, 255, 255), (224, 238, 214)])
    image = Image.new("RGB", (w * times, h * times), ground)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(2, 4)):
        curve = bezier([(x, rng.randint(0, h * times)) for x in (0, w, 2 * w, w * times)])
        draw.line(curve, fill=color(rng, 60, 190), width=5)
    for i, character in enumerate(text):
        face = fine_font(rng.choice(["LiberationSans-Regular.ttf", "Roboto-Regular.ttf"]), 128)
        shape = np.asarray(glyph(character, face, BLACK, rng.uniform(-12, 12)))[:, :, 3]
        contours, _ = cv2.findContours((shape > 127).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_TC89_L1)
        polygons = [
            np.array(
                [
                    (x + rng.uniform(-5, 5), y + rng.uniform(-5, 5))
                    for x, y in cv2.approxPolyDP(contour, 1.5, True)[:, 0]
                ],
                np.int32,
            )
            for contour in contours
        ]
        letter = np.zeros(shape.shape, np.uint8)
        cv2.fillPoly(letter, [polygon for polygon in polygons if len(polygon) > 2], 255)
        ink = color(rng, 20, 150)
        x, y = (10 + 40 * i) * times + 60 - shape.shape[1] / 2, h * times / 2 - shape.shape[0] / 2
        image.paste(ink, (int(x), int(y + rng.randint(-12, 12))), Image.fromarray(letter))
    return text, image.resize((w, h), Image.Resampling.LANCZOS)


@generator
def perspective_board(rng: random.Random) -> Drawn:
    """A word on a chequered board that is tipped any way and crossed by lines, by OpenCV's warpPerspective."""
    text = word(rng, SAFE, 5, 6)
    w, h = 300, 100
    image = Image.new("RGB", (w, h), (250, 250, 250))
    draw = ImageDraw.Draw(image)
    one, other, ink = rng.choice(
        [
            ((225, 230, 240), (245, 245, 250), (30, 30, 90)),
            ((244, 226, 200), (252, 244, 230), (100, 40, 20)),
            ((60, 70, 80), (74, 86, 98), (240, 240, 200)),
        ]
    )
    for y in range(0, h, 20):
        for x in range(0, w, 20):
            draw.rectangle((x, y, x + 19, y + 19), fill=one if (x + y) // 20 % 2 else other)
    name = rng.choice(["DejaVuSans-Bold.ttf", "Roboto-Bold.ttf", "LiberationSans-Bold.ttf"])
    face = fitting_font(name, text, w - 40, 66)
    draw.text((w / 2, h / 2), text, font=face, fill=ink, anchor="mm")
    corners = np.array([(0, 0), (w, 0), (w, h), (0, h)], np.float32)
    tipped = [
        (rng.randint(0, 45), rng.randint(0, 28)),
        (w - rng.randint(0, 45), rng.randint(0, 28)),
        (w - rng.randint(0, 30), h - rng.randint(0, 28)),
        (rng.randint(0, 30), h - rng.randint(0, 28)),
    ]
    matrix = cv2.getPerspectiveTransform(corners, np.array(tipped, np.float32))
    board = cv2.warpPerspective(np.asarray(image), matrix, (w, h), flags=cv2.INTER_AREA, borderValue=other)
    w, h = w * 2 // 3, h * 2 // 3
    image = Image.fromarray(board).resize((w, h), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(image)
    for _ in range(3):
        draw.line((0, rng.randint(0, h), w, rng.randint(0, h)), fill=ink, width=1)
    return text, image


@generator
def ransom_note(rng: random.Random) -> Drawn:
    """Letters cut out of magazines, each with its font, paper and ink, as by a fan site's script with Pillow."""
    text = word(rng, SAFE_MIXED, 5, 7)
    ground = rng.choice([(200, 196, 186), (120, 110, 100), (235, 235, 235)])
    image = Image.new("RGB", (len(text) * 38 + 20, 70), ground)
    names = [
        "DejaVuSerif-Bold.ttf",
        "LiberationSerif-BoldItalic.ttf",
        "LiberationMono-Bold.ttf",
        "Ubuntu-Title.ttf",
        "ComicNeue-Bold.otf",
        "OpenSans-ExtraBold.ttf",
        "FreeSansOblique.ttf",
        "Caladea-Bold.ttf",
        "Dustismo.ttf",
        "Lato-Black.ttf",
        "Gentium-R.ttf",
    ]
    for character, x in spread(text, image.width, 10):
        face = fine_font(rng.choice(names), rng.randint(30, 42))
        left, top, right, bottom = face.getbbox(character)
        w, h = int(right - left) + rng.randint(8, 14), int(bottom - top) + rng.randint(8, 16)
        dark = rng.random() < 0.4
        paper = Image.new("RGBA", (w, h), (0, 0, 0, 0))
        draw = ImageDraw.Draw(paper)
        edge = [
            (rng.randint(0, 3), rng.randint(0, 3)),
            (w - rng.randint(1, 4), rng.randint(0, 3)),
            (w - rng.randint(1, 4), h - rng.randint(1, 4)),
            (rng.randint(0, 3), h - rng.randint(1, 4)),
        ]
        draw.polygon(edge, fill=color(rng, 10, 110) if dark else color(rng, 200, 255))
        ink = color(rng, 215, 255) if dark else color(rng, 0, 90)
        draw.text(((w - right - left) / 2, (h - bottom - top) / 2), character, font=face, fill=ink)
        paper = paper.rotate(rng.uniform(-16, 16), Image.Resampling.BICUBIC, expand=True)
        place(image, paper, x, 35 + rng.randint(-5, 5))
    return text, image


@generator
def arc_text(rng: random.Random) -> Drawn:
    """Letters over a hill or through a valley, turned along it, on spokes and crossed by circles, in a canvas."""
    text = word(rng, SAFE_CAPITALS, 6, 8)
    w, h = 240, 90
    up = rng.choice([1, -1])
    ground, ink = color(rng, 215, 255), color(rng, 0, 120)
    image = Image.new("RGB", (w, h), ground)
    draw = ImageDraw.Draw(image)
    mean = 135
    x, y = w / 2, h / 2 + up * (mean - 12)
    for degrees in range(0, 360, 6):
        turn = math.radians(degrees + rng.uniform(-2, 2))
        across, down = math.cos(turn), math.sin(turn)
        ends = x + 60 * across, y + 60 * down, x + 260 * across, y + 260 * down
        draw.line(ends, fill=tuple(level - 35 for level in ground))
    face = fine_font(rng.choice(["LiberationSans-Bold.ttf", "OpenSans-Bold.ttf", "DejaVuSerif-Bold.ttf"]), 27)
    span = 64 * min(1, len(text) / 7.5)
    for i, character in enumerate(text):
        degrees = (i / (len(text) - 1) - 0.5) * span
        letter = glyph(character, face, ink, -degrees * up + rng.uniform(-8, 8))
        radius, turn = mean + rng.randint(-4, 4), math.radians(degrees)
        place(image, letter, x + radius * math.sin(turn), y - up * radius * math.cos(turn))
    for _ in range(2):
        radius = mean + rng.randint(-16, 14)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=ink, width=1)
    return text, image


@generator
def neon_dark(rng: random.Random) -> Drawn:
    """Letters like tubes of neon that glow among glowing scribbles on a dark ground, by a canvas with shadowBlur."""
    text = word(rng, SAFE_SMALL + "2345679", 5, 6)
    w, h = 240, 80
    tubes = Image.new("RGB", (w, h))
    inks = [(255, 70, 160), (60, 230, 255), (170, 255, 70), (255, 190, 50), (190, 110, 255)]
    for _ in range(3):
        points = [
            (rng.randint(-10, 40), rng.randint(0, h)),
            (rng.randint(0, w), rng.randint(0, h)),
            (rng.randint(0, w), rng.randint(0, h)),
            (rng.randint(w - 40, w + 10), rng.randint(0, h)),
        ]
        ImageDraw.Draw(tubes).line(bezier(points), fill=rng.choice(inks), width=2)
    for character, x in spread(text, w, 12):
        face = fine_font("Quicksand-Bold.ttf", rng.randint(44, 52))
        letter = glyph(character, face, rng.choice(inks), rng.uniform(-20, 20))
        place(tubes, letter, x, h / 2 + rng.randint(-7, 7))
    glow = tubes.filter(ImageFilter.GaussianBlur(6))
    ground = Image.new("RGB", (w, h), rng.choice([(12, 12, 30), (24, 8, 28), (5, 20, 24)]))
    return text, ImageChops.add(ImageChops.add(ground, glow), tubes.filter(ImageFilter.GaussianBlur(0.6)))


@generator
def row_slip_scanlines(rng: random.Random) -> Drawn:
    """Rows of pixels that slip aside as on a bad television, every third darker, by a loop over a picture's rows."""
    text = word(rng, SAFE, 5, 6)
    w, h = 180, 56
    ink, ground = rng.choice(
        [((20, 90, 20), (220, 240, 215)), ((230, 230, 230), (40, 50, 70)), ((140, 20, 60), (250, 230, 236))]
    )
    image = Image.new("RGB", (w, h), ground)
    name = rng.choice(["LiberationSans-Bold.ttf", "Carlito-Bold.ttf", "Roboto-Bold.ttf"])
    face = fitting_font(name, text, w - 34, 44)
    ImageDraw.Draw(image).text((w / 2, h / 2), text, font=face, fill=ink, anchor="mm")
    pixels = np.array(image)
    slip, phase = 0.0, rng.uniform(0, 6)
    for y in range(h):
        slip = 0.7 * slip + rng.uniform(-1.3, 1.3)
        pixels[y] = np.roll(pixels[y], round(slip + 5 * math.sin(y / rng.choice([9, 9.5]) + phase)), axis=0)
    pixels[::3] = (pixels[::3] * 0.75).astype(np.uint8)
    return text, to_image(pixels + numpy_rng(rng).normal(0, 14, pixels.shape))


@generator
def misprint_cmy(rng: random.Random) -> Drawn:
    """Three plates of ink out of register with dots, as in a cheap newspaper, by Pillow's Image.merge."""
    text = word(rng, SAFE_MIXED, 5, 6)
    w, h = 210, 70
    plates = []
    name = rng.choice(["DejaVuSans-Bold.ttf", "Lato-Black.ttf", "OpenSans-ExtraBold.ttf"])
    face = fitting_font(name, text, w - 34, 42)
    tilt, middle = rng.uniform(-5, 5), h / 2 + rng.randint(-3, 3)
    for _ in range(3):
        plate = Image.new("L", (w, h), 255)
        draw = ImageDraw.Draw(plate)
        for y in range(0, h, 6):
            for x in range(0, w, 6):
                radius = rng.uniform(0.2, 1.6)
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=150)
        place_of_text = w / 2 + rng.randint(-5, 5), middle + rng.randint(-4, 4)
        draw.text(place_of_text, text, font=face, fill=rng.randint(20, 90), anchor="mm")
        plates.append(plate.rotate(tilt + rng.uniform(-1.5, 1.5), Image.Resampling.BICUBIC, fillcolor=255))
    return text, jpeg(Image.merge("RGB", plates), 75)


@generator
def handwriting_notebook(rng: random.Random) -> Drawn:
    """Writing with a pen on ruled paper, crossed out and blotted, by a school's site with a font of handwriting."""
    text = word(rng, "abcdefghkmnprstuwxyz", 5, 7)
    w, h = 260, 80
    image = Image.new("RGB", (w, h), (254, 253, 245))
    draw = ImageDraw.Draw(image)
    for y in range(rng.randint(8, 18), h, 18):
        draw.line((0, y, w, y), fill=(170, 200, 235))
    draw.line((24, 0, 24, h), fill=(240, 150, 150))
    ink = rng.choice([(20, 40, 140), (30, 30, 40), (120, 20, 90)])
    name = rng.choice(["Domestic_Manners.ttf", "Humor-Sans.ttf", "Rufscript010.ttf", "ComicNeue-Bold.otf"])
    text = text.upper() if name == "Humor-Sans.ttf" else text  # it draws capitals alone
    face = fitting_font(name, text, w - 70, 52)
    left = 36
    for character in text:
        letter = glyph(character, face, ink, rng.uniform(-9, 9))
        top = 50 + face.getbbox(character)[1] - face.getmetrics()[0]
        image.paste(letter, (int(left), int(top + rng.randint(-4, 4))), letter)
        left += face.getlength(character) + 2
    for _ in range(2):
        y = rng.randint(25, 60)
        columns = range(rng.randint(20, 60), rng.randint(180, 250), 3)
        line = [(x, y + 4 * math.sin(x / rng.uniform(8, 9)) + (x - 120) * 0.06) for x in columns]
        draw.line(line, fill=ink, width=1)
    for _ in range(8):
        x, y, size = rng.randint(0, w), rng.randint(0, h), rng.randint(1, 4)
        draw.ellipse((x, y, x + size, y + size), fill=ink)
    return text, image


@generator
def outline_only(rng: random.Random) -> Drawn:
    """Outlines of letters that overlap a little, with lines through them, by a canvas with strokeText."""
    text = word(rng, SAFE_CAPITALS + "2345679", 5, 6)
    w, h = 50 * len(text) + 60, 80
    ground = rng.choice([(255, 255, 255), (255, 250, 220), (26, 32, 44)])
    levels = (150, 255) if sum(ground) < 300 else (0, 140)  # of the inks
    image = Image.new("RGB", (w, h), ground)
    names = ["LiberationSans-Bold.ttf", "OpenSans-Bold.ttf", "ComicNeue-Bold.otf"]
    left = 14
    for character in text:
        face = fine_font(rng.choice(names), rng.randint(48, 58))
        shape = np.asarray(glyph(character, face, BLACK, rng.uniform(-18, 18)))[:, :, 3]
        grown, shrunk = cv2.dilate(shape, np.ones((3, 3), np.uint8)), cv2.erode(shape, np.ones((2, 2), np.uint8))
        edge = Image.fromarray(cv2.subtract(grown, shrunk))
        ink = color(rng, *levels)
        image.paste(ink, (left, int((h - edge.height) / 2 + rng.randint(-7, 7))), edge)
        left += edge.width - rng.randint(4, 8)
    image = image.crop((0, 0, left + 14, h))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        ends = rng.randint(0, 30), rng.randint(0, h), rng.randint(left - 30, left), rng.randint(0, h)
        draw.line(ends, fill=color(rng, *levels), width=1)
    return text, image


@generator
def blur_salt_small(rng: random.Random) -> Drawn:
    """A small grey picture of soft digits with black and white specks, as a bad JPEG by a site in PHP."""
    text = word(rng, "23456789", 5, 6)
    w, h = 110, 36
    image = Image.new("L", (w, h), 200)
    face = fine_font(rng.choice(["LiberationSerif-Bold.ttf", "DejaVuSerif-Bold.ttf", "LiberationMono-Bold.ttf"]), 25)
    for character, x in spread(text, w, 8):
        letter = glyph(character, face, BLACK, rng.uniform(-16, 16))
        ink = rng.randint(40, 90)
        place(image, letter, x, h / 2 + rng.randint(-3, 3), ink)
    levels = np.asarray(image.filter(ImageFilter.GaussianBlur(0.9))).astype(float)
    noise = numpy_rng(rng)
    levels += noise.normal(0, 12, levels.shape)
    specks = noise.random(levels.shape)
    levels[specks < 0.03], levels[specks > 0.97] = 0, 255
    return text, jpeg(to_image(levels), rng.randint(35, 60))


@generator
def confetti_rotated(rng: random.Random) -> Drawn:
    """Letters of any font, size, color and angle with strokes and confetti in their colors, by PHP's GD."""
    text = word(rng, SAFE_MIXED, 5, 6)
    w, h = 42 * len(text) + 20, 76
    image = Image.new("RGB", (w, h), color(rng, 225, 255))
    draw = ImageDraw.Draw(image)
    inks = [color(rng, 10, 170) for _ in range(4)]
    for _ in range(50):
        x, y, size = rng.randint(0, w), rng.randint(0, h), rng.randint(2, 6)
        shape = rng.choice([draw.ellipse, draw.rectangle])
        shape((x, y, x + size, y + rng.randint(2, 6)), fill=rng.choice([*inks, color(rng, 140, 220)]))
    names = [
        "DejaVuSans-Bold.ttf",
        "LiberationSerif-Bold.ttf",
        "FreeSansBold.ttf",
        "ComicNeue-Bold.otf",
        "Caladea-Bold.ttf",
        "Ubuntu-Title.ttf",
    ]
    for character, x in spread(text, w, 10):
        face = fine_font(rng.choice(names), rng.randint(34, 50))
        letter = glyph(character, face, rng.choice(inks), rng.uniform(-38, 38))
        top = max(0, min(h - letter.height, (h - letter.height) / 2 + rng.randint(-9, 9)))
        image.paste(letter, (int(x - letter.width / 2), int(top)), letter)
    for _ in range(rng.randint(4, 6)):
        x, y = rng.randint(0, w), rng.randint(0, h)
        ends = x, y, x + rng.randint(-90, 90), y + rng.randint(-40, 40)
        draw.line(ends, fill=rng.choice(inks), width=rng.randint(1, 3))
    return text, image


# --------------------------------------------------------------------------------------------------------------------
# Hard ones


@generator
def thick_bezier_strike(rng: random.Random) -> Drawn:
    """A word struck through by curves of the letters' own ink and thickness, by a canvas with bezierCurveTo."""
    text = word(rng, SAFE_CAPITALS + "2345679", 5, 6)
    w, h = 500, 180  # twice that of the picture
    ground, ink = color(rng, 225, 255), color(rng, 0, 110)
    image = Image.new("RGB", (w, h), ground)
    draw = ImageDraw.Draw(image)
    for character, x in spread(text, w, 25):
        face = fine_font(rng.choice(["DejaVuSans-Bold.ttf", "LiberationSans-Bold.ttf"]), rng.randint(92, 112))
        letter = glyph(character, face, ink, rng.uniform(-20, 20))
        place(image, letter, x, h / 2 + rng.randint(-16, 16))
    for _ in range(rng.randint(1, 2)):
        points = [
            (rng.randint(0, 40), rng.randint(20, 160)),
            (170, rng.randint(-60, 240)),
            (330, rng.randint(-60, 240)),
            (rng.randint(460, 500), rng.randint(20, 160)),
        ]
        radius = rng.randint(4, 6)
        for x, y in bezier(points, 200):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    return text, image.resize((w // 2, h // 2), Image.Resampling.LANCZOS)


@generator
def touching_wave_bold(rng: random.Random) -> Drawn:
    """Bold letters pushed into each other, then waved along both axes without any noise, as large portals had it."""
    text = word(rng, SAFE_SMALL, 6, 8)
    face = fine_font(rng.choice(["FreeSansBold.ttf", "Lato-Black.ttf", "Roboto-Black.ttf"]), 54)
    w, h = 420, 110
    image = Image.new("RGB", (w, h), (255, 255, 255))
    left = 24
    ink = rng.choice([(0, 0, 0), (10, 60, 150), (150, 20, 20)])
    for character in text:
        letter = glyph(character, face, ink, rng.uniform(-8, 8), margin=1)
        top = 70 + face.getbbox(character)[1] - face.getmetrics()[0]
        image.paste(letter, (left, int(top + rng.randint(-4, 4))), letter)
        left += letter.width - rng.randint(5, 8)
    image = image.crop((0, 0, left + 28, h))
    across, down = rng.uniform(3.5, 5.5), rng.uniform(7, 10)
    start_across, start_down = rng.uniform(0, 6), rng.uniform(0, 6)
    long_across, long_down = rng.uniform(11, 15), rng.uniform(22, 34)
    return text, remap(
        image,
        lambda x, y: x + across * np.sin(y / long_across + start_across),
        lambda x, y: y + down * np.sin(x / long_down + start_down),
    )


@generator
def faint_strings_behind(rng: random.Random) -> Drawn:
    """A word over many other words of its size, only paler and aslant, by a site's own script with Pillow."""
    text = word(rng, SAFE, 5, 6)
    w, h = 220, 70
    ground, ink = rng.choice(
        [((255, 255, 255), (70, 70, 70)), ((232, 240, 250), (40, 70, 130)), ((30, 34, 40), (205, 205, 205))]
    )
    image = Image.new("RGB", (w, h), ground)
    name = rng.choice(
        [
            "LiberationSans-Regular.ttf",
            "LiberationSans-Bold.ttf",
            "DejaVuSans.ttf",
            "OpenSans-Bold.ttf",
            "Carlito-Regular.ttf",
        ]
    )
    for _ in range(rng.randint(9, 13)):
        other, face = word(rng, SAFE, 4, 7), fine_font(name, rng.randint(22, 42))
        faint = (*_between(ground, ink, rng.uniform(0.3, 0.52)), 255)
        layer = glyph(other, face, faint, rng.uniform(-25, 25))
        image.paste(layer, (rng.randint(-40, w - 60), rng.randint(-20, h - 15)), layer)
    for character, x in spread(text, w, 12):
        face = fine_font(name, rng.randint(38, 44))
        letter = glyph(character, face, (*_between(ground, ink, rng.uniform(0.88, 1)), 255), rng.uniform(-15, 15))
        place(image, letter, x, h / 2 + rng.randint(-6, 6))
    return text, image


@generator
def negative_discs(rng: random.Random) -> Drawn:
    """Two colors that change places in discs and a bar, by a canvas whose globalCompositeOperation is difference."""
    text = word(rng, SAFE_MIXED, 5, 6)
    w, h = 240, 80
    mask = Image.new("L", (w, h), 0)
    for character, x in spread(text, w, 12):
        name = rng.choice(["Roboto-Bold.ttf", "OpenSans-Bold.ttf", "DejaVuSerif-Bold.ttf"])
        letter = glyph(character, fine_font(name, rng.randint(46, 54)), WHITE, rng.uniform(-18, 18))
        place(mask, letter, x, h / 2 + rng.randint(-7, 7), 255)
    for _ in range(rng.randint(4, 6)):
        disc = Image.new("L", (w, h), 0)
        x, y, size = rng.randint(-20, w - 20), rng.randint(-20, h - 20), rng.randint(30, 75)
        ImageDraw.Draw(disc).ellipse((x, y, x + size, y + size), fill=255)
        mask = ImageChops.difference(mask, disc)
    x, bar = rng.randint(30, w - 60), Image.new("L", (w, h), 0)
    edge = [(x, 0), (x + 25, 0), (x + rng.randint(-20, 50), h), (x - 10, h)]
    ImageDraw.Draw(bar).polygon(edge, fill=255)
    mask = ImageChops.difference(mask, bar)
    ground, ink = rng.choice(
        [((255, 255, 255), (0, 0, 0)), ((255, 244, 214), (120, 30, 40)), ((220, 238, 255), (20, 50, 110))]
    )
    return text, Image.composite(Image.new("RGB", (w, h), ink), Image.new("RGB", (w, h), ground), mask)


@generator
def dot_cloud_letters(rng: random.Random) -> Drawn:
    """Letters that exist only as a cloud of dots among fewer ones of their ink, by a canvas with thousands of arcs."""
    text = word(rng, SAFE_CAPITALS + "34679", 4, 6)
    w, h = 54 * len(text) + 20, 90
    mask = Image.new("L", (w, h), 0)
    for character, x in spread(text, w, 10):
        name = rng.choice(["Roboto-Black.ttf", "DejaVuSans-Bold.ttf", "OpenSans-ExtraBold.ttf"])
        letter = glyph(character, fine_font(name, rng.randint(60, 68)), WHITE, rng.uniform(-12, 12))
        place(mask, letter, x, h / 2 + rng.randint(-6, 6), 255)
    inside = np.asarray(mask) > 127
    ground, ink = color(rng, 225, 255), color(rng, 0, 110)
    image = Image.new("RGB", (w, h), ground)
    draw = ImageDraw.Draw(image)
    for _ in range(w * h // 5):
        x, y = rng.randrange(w), rng.randrange(h)
        if rng.random() < (0.8 if inside[y, x] else 0.05):
            radius = rng.uniform(0.6, 1.5)
            fill = tuple(min(255, level + rng.randint(0, 50)) for level in ink)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    return text, image


@generator
def voronoi_mosaic(rng: random.Random) -> Drawn:
    """A mosaic of colored chips, darker or lighter within the letters, by a site's own script with numpy."""
    text = word(rng, SAFE, 4, 5)
    w, h = 54 * len(text) + 20, 84
    mask = Image.new("L", (w, h), 0)
    for character, x in spread(text, w, 10):
        face = fine_font(rng.choice(["Lato-Black.ttf", "DejaVuSans-Bold.ttf"]), rng.randint(56, 64))
        letter = glyph(character, face, WHITE, rng.uniform(-12, 12))
        place(mask, letter, x, h / 2 + rng.randint(-5, 5), 255)
    noise = numpy_rng(rng)
    middles = noise.random((w * h // 70, 2)) * (h, w)
    y, x = np.mgrid[0:h, 0:w]
    nearest = np.argmin((y[..., None] - middles[:, 0]) ** 2 + (x[..., None] - middles[:, 1]) ** 2, axis=-1)
    chips = np.array(color(rng, 130, 215), float) + noise.normal(0, 24, (len(middles), 3))
    levels = chips[nearest]
    share = np.asarray(mask)[..., None] / 255
    darker = rng.choice([True, True, False])
    return text, to_image(levels - share * 66 if darker else levels + share * 62 - 50)


@generator
def rings_same_ink(rng: random.Random) -> Drawn:
    """Letters with rings and arcs all over that have their ink and thickness, by a canvas with arc and stroke."""
    text = word(rng, "ABEFHKLMNRSTVWXYZ2345679", 5, 6)
    w, h = 240, 84
    ground, ink = rng.choice(
        [((255, 255, 255), (40, 40, 40)), ((244, 236, 220), (110, 50, 20)), ((20, 60, 60), (230, 250, 240))]
    )
    image = Image.new("RGB", (w, h), ground)
    names = ["LiberationSans-Regular.ttf", "Roboto-Regular.ttf", "Carlito-Regular.ttf", "DejaVuSans.ttf"]
    for character, x in spread(text, w, 12):
        letter = glyph(character, fine_font(rng.choice(names), rng.randint(50, 58)), ink, rng.uniform(-15, 15))
        place(image, letter, x, h / 2 + rng.randint(-6, 6))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(6, 9)):
        x, y, size = rng.randint(-20, w - 10), rng.randint(-20, h - 10), rng.randint(16, 60)
        start = rng.randint(0, 360)
        end = start + rng.randint(160, 360)
        draw.arc((x, y, x + size, y + size), start, end, fill=ink, width=rng.randint(2, 4))
    return text, image


@generator
def hairline_tangle(rng: random.Random) -> Drawn:
    """Letters of hairlines in a tangle of lines just as fine, as a site with thin type of the 2010s had it."""
    text = word(rng, SAFE, 5, 6)
    w, h = 520, 180  # twice that of the picture
    ground, ink = rng.choice(
        [((255, 255, 255), (30, 30, 30)), ((250, 246, 236), (60, 30, 90)), ((18, 22, 34), (220, 228, 240))]
    )
    image = Image.new("RGB", (w, h), ground)
    draw = ImageDraw.Draw(image)
    for character, x in spread(text, w, 25):
        face = fine_font(rng.choice(["Roboto-Light.ttf", "Lato-Light.ttf"]), rng.randint(112, 132))
        letter = glyph(character, face, ink, rng.uniform(-16, 16))
        place(image, letter, x, h / 2 + rng.randint(-12, 12))
    for _ in range(rng.randint(7, 10)):
        points = [(rng.randint(-50, w + 50), rng.randint(-20, h + 20)) for _ in range(4)]
        draw.line(bezier(points) if rng.random() < 0.6 else points[:2], fill=ink, width=rng.randint(3, 5))
    return text, image.resize((w // 2, h // 2), Image.Resampling.LANCZOS)


@generator
def white_cuts_serif(rng: random.Random) -> Drawn:
    """Heavy slanting serif letters run together, cut by curves of the paper's color, over a pale copy, by PHP's GD."""
    text = word(rng, SAFE_MIXED, 5, 7)
    w, h = 520, 90
    ground, ink = rng.choice(
        [((255, 255, 255), (20, 20, 20)), ((240, 240, 250), (60, 20, 120)), ((250, 240, 235), (130, 40, 20))]
    )
    mask = Image.new("L", (w, h), 0)
    left = 16
    for character in text:
        name = rng.choice(["FreeSerifBoldItalic.ttf", "LiberationSerif-BoldItalic.ttf"])
        letter = glyph(character, fine_font(name, rng.randint(54, 62)), WHITE, rng.uniform(-10, 10), margin=1)
        top = int((h - letter.height) / 2 + rng.randint(-6, 6))
        mask.paste(255, (left, top), letter.getchannel("A"))
        left += letter.width - rng.randint(3, 6)
    mask = mask.crop((0, 0, left + 20, h))
    w = mask.width
    draw = ImageDraw.Draw(mask)
    for _ in range(rng.randint(4, 6)):
        points = [
            (-5, rng.randint(0, h)),
            (w * 0.3, rng.randint(-20, h + 20)),
            (w * 0.7, rng.randint(-20, h + 20)),
            (w + 5, rng.randint(0, h)),
        ]
        draw.line(bezier(points), fill=0, width=rng.randint(2, 4))
    image = Image.new("RGB", (w, h), ground)
    pale = tuple(int(back * 0.8 + fore * 0.2) for back, fore in zip(ground, ink, strict=True))
    image.paste(pale, mask=ImageChops.offset(mask, rng.randint(8, 14), rng.randint(-9, 9)))
    image.paste(ink, mask=mask)
    return text, image


@generator
def lens_and_swirl(rng: random.Random) -> Drawn:
    """A word on lined paper under lenses and whirls that bend lines and letters together, by OpenCV's remap."""
    text = word(rng, SAFE, 5, 6)
    w, h = 260, 90
    ground, ink = rng.choice(
        [((255, 255, 255), (20, 60, 20)), ((255, 245, 225), (40, 40, 100)), ((40, 30, 60), (245, 220, 150))]
    )
    image = Image.new("RGB", (w, h), ground)
    draw = ImageDraw.Draw(image)
    line = tuple((2 * back + fore) // 3 for back, fore in zip(ground, ink, strict=True))
    for k in range(0, w, 13):
        draw.line((k, 0, k, h), fill=line)
    for k in range(4, h, 13):
        draw.line((0, k, w, k), fill=line)
    name = rng.choice(["LiberationSans-Bold.ttf", "DejaVuSerif-Bold.ttf", "Roboto-Bold.ttf"])
    face = fitting_font(name, text, w - 40, 58)
    left = (w - face.getlength(text)) / 2
    for character in text:
        draw.text((left, h / 2 + rng.randint(-6, 6)), character, font=face, fill=ink, anchor="lm")
        left += face.getlength(character)
    for k in range(rng.randint(3, 4)):
        x, y = (0.18 + 0.21 * k + rng.uniform(-0.05, 0.05)) * w, rng.uniform(0.3, 0.7) * h
        radius, strength, whirls = rng.uniform(30, 46), rng.choice([-1, 1]), rng.random() < 0.6
        image = _lens(image, x, y, radius, strength, whirls, ground)
    return text, image
