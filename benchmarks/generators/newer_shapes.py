"""9 captchas of sites of 2010 to 2024: paths, perspective, arcs, scan lines, handwriting."""

from __future__ import annotations

import math
import random

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .tools import (
    SAFE,
    SAFE_CAPITALS,
    SAFE_MIXED,
    SAFE_SMALL,
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
    spread,
    to_image,
    word,
)

GENERATORS: dict[str, Generator] = {}
generator = registering(GENERATORS)

BLACK = (0, 0, 0, 255)


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
