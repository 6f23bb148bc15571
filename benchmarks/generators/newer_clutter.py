"""12 captchas of sites of 2010 to 2024: strokes, discs, dots, cuts and lenses over the letters."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from .tools import (
    SAFE,
    SAFE_CAPITALS,
    SAFE_MIXED,
    SAFE_SMALL,
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


@generator
def blur_salt_small(rng: random.Random) -> Drawn:
    """A small gray picture of soft digits with black and white specks, as a bad JPEG by a site in PHP."""
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
