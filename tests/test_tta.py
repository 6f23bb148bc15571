"""Other forms of a picture: what each shows, and where in the picture that is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from captcha_reader.config import ModelConfig
from captcha_reader.reading.tta import TTA_VIEWS, ViewSpec, make_view
from captcha_reader.transforms import View, build_transform

CONFIG = ModelConfig(
    name="mixer",
    head="ctc",
    alphabet="ab",
    max_length=4,
    image_size=(32, 128),
    channels=3,
    resize="natural",
    normalize=True,
    other_height=48,
)
TRANSFORM = build_transform(CONFIG)


def ink(left: int, right: int, color: tuple[int, int, int] = (0, 0, 0), times: int = 1) -> Image.Image:
    """A stroke from one column to another, 20 of 60 rows high, on white, with small ones far to both sides."""
    pixels = np.full((60, 240, 3), 255, dtype=np.uint8)
    pixels[20:40, left:right] = color
    pixels[20:40, 20:23] = pixels[20:40, 217:220] = color
    return Image.fromarray(pixels.repeat(times, axis=0).repeat(times, axis=1))


def seen(spec: ViewSpec, picture: Image.Image) -> View:
    view = make_view(spec, TRANSFORM.view(picture), TRANSFORM)
    assert view is not None
    return view


def stroke(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the dark pixels of the middle stroke, in pixels of the picture."""
    _, height, width = view.pixels.shape
    rows, columns = np.nonzero(view.pixels.min(axis=0)[:, width // 4 : -width // 4] < 128)
    left, top, right, bottom = view.box
    return top + (rows + 0.5) * (bottom - top) / height, left + (columns + width // 4 + 0.5) * (right - left) / width


@pytest.mark.parametrize("times", [1, 12])
@pytest.mark.parametrize(
    "spec",
    [
        ViewSpec(),
        ViewSpec(margin=0.125),
        ViewSpec(width=1.3),
        ViewSpec(shear=0.3),
        ViewSpec(rotation=8),
        ViewSpec(blur=True),
    ],
    ids=str,
)
def test_every_form_tells_where_it_saw_things(spec: ViewSpec, times: int) -> None:
    """The middle of the picture stays its middle in all of them."""
    picture = ink(110, 130, times=times)
    view = TRANSFORM.view(picture) if spec == ViewSpec() else seen(spec, picture)
    rows, columns = stroke(view)
    assert columns.mean() == pytest.approx(120 * times, abs=2 * times)
    assert rows.mean() == pytest.approx(30 * times, abs=2 * times)


def test_a_margin_makes_the_letters_smaller_and_nothing_else() -> None:
    whole, small = TRANSFORM.view(ink(110, 130)), seen(ViewSpec(margin=0.25), ink(110, 130))
    heights = [np.ptp(np.nonzero(view.pixels.min(axis=(0, 2)) < 128)[0]) for view in (whole, small)]
    assert heights[1] == pytest.approx(heights[0] / 1.5, abs=2)
    assert small.pixels[:, 0].min() > 250 and small.pixels[:, -1].min() > 250


def test_a_wider_form_is_wider() -> None:
    assert seen(ViewSpec(width=1.3), ink(110, 130)).pixels.shape[2] > TRANSFORM.view(ink(110, 130)).pixels.shape[2]


def test_upright_strokes_lean_to_the_right() -> None:
    rows, columns = stroke(seen(ViewSpec(shear=0.3), ink(118, 122)))
    top, bottom = columns[rows < 25].mean(), columns[rows > 35].mean()
    assert (top - bottom) / 14.5 == pytest.approx(0.3, abs=0.07)


def test_a_turn_lifts_the_right_end() -> None:
    view = seen(ViewSpec(rotation=8), ink(60, 180))
    rows, columns = np.nonzero(view.pixels.min(axis=0) < 128)
    left, top, right, bottom = view.box
    y = top + rows * (bottom - top) / view.pixels.shape[1]
    x = left + columns * (right - left) / view.pixels.shape[2]
    assert np.polyfit(x, y, 1)[0] == pytest.approx(-np.tan(np.radians(8)), abs=0.03)


def test_a_sharp_view_is_that_of_a_reader_that_does_not_soften() -> None:
    soft = build_transform(dataclasses.replace(CONFIG, soften=0.7))
    first = soft.view(ink(100, 140))
    changes = ViewSpec(shear=0.3), ViewSpec(margin=0.125), ViewSpec()
    for spec in changes:
        softened, sharp = (make_view(spec._replace(sharp=s), first, soft) for s in (False, True))
        plain = TRANSFORM.view(ink(100, 140)) if spec == ViewSpec() else seen(spec, ink(100, 140))
        assert sharp is not None and np.array_equal(sharp.pixels, plain.pixels) and sharp.box == plain.box
        assert softened is None or not np.array_equal(softened.pixels, plain.pixels)


@pytest.mark.parametrize("spec", [ViewSpec(shear=0.3), ViewSpec(rotation=8)], ids=str)
def test_nothing_is_cut_off(spec: ViewSpec) -> None:
    pixels = np.full((40, 120, 3), 255, dtype=np.uint8)
    pixels[1:39, 1:7] = pixels[1:39, 57:63] = pixels[1:39, -7:-1] = 0
    first, again = TRANSFORM.view(Image.fromarray(pixels)), seen(spec, Image.fromarray(pixels))
    left, _, right, _ = again.box
    assert left < 0 and right > 120
    dark = [(255.0 - view.pixels).mean() * np.ptp(view.box[::2]) * np.ptp(view.box[1::2]) for view in (first, again)]
    assert dark[1] == pytest.approx(dark[0], rel=0.03)


def test_blur_fades_specks() -> None:
    picture = ink(110, 130)
    picture.putpixel((60, 30), (0, 0, 0))
    darkest = []
    for view in (TRANSFORM.view(picture), seen(ViewSpec(blur=True), picture)):
        left, _, right, _ = view.box
        first, last = (int((x - left) / (right - left) * view.pixels.shape[2]) for x in (50, 70))
        darkest.append(int(view.pixels[..., first:last].min()))
    assert darkest[1] > darkest[0] + 40


@pytest.mark.parametrize(("color", "darkest", "by_color"), [((255, 0, 0), 0, 0), ((128, 128, 128), 128, None)])
def test_tones(color: tuple[int, int, int], darkest: int, by_color: int | None) -> None:
    """Letters of a strong color are as dark as black ones; gray ones have no color."""
    config = ModelConfig(**{**CONFIG.__dict__, "normalize": False})
    transform = build_transform(config)
    view = transform.view(ink(60, 180, color))
    again = make_view(ViewSpec(tone="darkest"), view, transform)
    if color[0] == color[1]:
        assert again is None  # it would show the same
    else:
        assert again is not None and abs(int(again.pixels.min()) - darkest) < 8
        assert np.array_equal(again.pixels[0], again.pixels[1])
    again = make_view(ViewSpec(tone="saturation"), view, transform)
    assert (again is None) == (by_color is None)
    if again is not None:
        assert abs(int(again.pixels.min()) - by_color) < 8 and again.pixels.max() == 255


def levels(view: View, left: float, right: float, top: float, bottom: float) -> np.ndarray:
    """The pixels of a view that show this part of the picture, in gray."""
    _, height, width = view.pixels.shape
    x0, y0, x1, y1 = view.box
    columns = [round((x - x0) / (x1 - x0) * width) for x in (left, right)]
    rows = [round((y - y0) / (y1 - y0) * height) for y in (top, bottom)]
    return view.pixels[:, slice(*rows), slice(*columns)].mean(axis=0)


def test_faint_strokes_beside_a_black_one_get_contrast() -> None:
    """On a ground whose brightness goes from 130 to 250."""
    pixels = np.linspace(130, 250, 240)[None, :, None].repeat(60, 0).repeat(3, 2)
    pixels[20:40, 40:200:20] -= 25
    pixels[15:45, 20:24] = pixels[15:45, 216:220] = 0
    picture = Image.fromarray(pixels.round().astype(np.uint8))
    steps = []
    for view in (TRANSFORM.view(picture), seen(ViewSpec(tone="contrast"), picture)):
        _, height, width = view.pixels.shape
        left, top, right, bottom = view.box
        row = view.pixels[0, round((30 - top) / (bottom - top) * height)]
        at = [round((x - left) / (right - left) * width) for x in range(40, 200, 20)]
        beside = [round((x + 8 - left) / (right - left) * width) for x in range(40, 200, 20)]
        steps.append(
            np.mean([float(row[b]) - float(row[a - 1 : a + 2].min()) for a, b in zip(at, beside, strict=True)])
        )
    assert steps[0] > 10 and steps[1] > 1.5 * steps[0]


def test_edges_are_dark_and_what_is_within_them_white() -> None:
    view = seen(ViewSpec(tone="edges"), ink(90, 150))
    assert levels(view, 97, 143, 25, 35).min() > 250 and levels(view, 160, 200, 25, 35).min() > 250
    assert levels(view, 88, 93, 25, 35).min() < 90 and levels(view, 148, 153, 25, 35).min() < 90


def test_thin_strokes_lose_their_thin_lines() -> None:
    pixels = np.asarray(ink(100, 140)).copy()
    pixels[30, 24:216] = 0
    plain, thin = TRANSFORM.view(Image.fromarray(pixels)), seen(ViewSpec(thin=True), Image.fromarray(pixels))
    lines = [levels(view, 60, 80, 26, 34).min() for view in (plain, thin)]
    assert lines[0] < 140 and lines[1] > 250
    assert levels(thin, 105, 135, 25, 35).max() < 5, "the stroke is still there"


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3), (3, 2), (5, 400), (400, 5)])
def test_every_form_of_the_smallest_pictures(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(size[1], size[0], 3), dtype=np.uint8)
    first = TRANSFORM.view(Image.fromarray(noise))
    for spec in TTA_VIEWS:
        view = make_view(spec, first, TRANSFORM)
        assert view is None or view.pixels.shape[:2] == (3, 32)


def test_a_gray_network_sees_every_form_that_needs_no_color() -> None:
    config = ModelConfig(**{**CONFIG.__dict__, "channels": 1})
    transform = build_transform(config)
    view = transform.view(ink(60, 180, (255, 0, 0)))
    forms = {spec: make_view(spec, view, transform) for spec in TTA_VIEWS}
    assert [spec.tone for spec, form in forms.items() if form is None] == ["saturation"]
    # Its one channel is the darkest, and that is shown by another height alone.
    assert make_view(ViewSpec(tone="darkest"), view, transform) is None
    assert make_view(ViewSpec(tone="darkest"), view, transform.at(48)) is not None
    assert all(form.pixels.shape[0] == 1 for form in forms.values() if form is not None)
