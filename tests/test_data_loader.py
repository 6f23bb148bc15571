"""One preprocessing for all: the same array from every entrance, geometry on drawn shapes, order and augmentation."""

from __future__ import annotations

import io
import itertools
import os
import pickle
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from captcha_generator import CaptchaSettings, render_captcha
from captcha_reader.config import DatasetConfig, ModelConfig
from captcha_reader.dataset.sources import iter_source
from captcha_reader.errors import UserError
from captcha_reader.files import COPIES
from captcha_reader.text import Alphabet, CTCCodec
from captcha_reader.transforms import (
    RESIZERS,
    SquarePadAndResize,
    border_color,
    build_transform,
    content_box,
    crop_and_stretch,
    normalize,
    pad_and_resize,
    smooth_blocks,
    stretch,
)
from data_loader import (
    CaptchaDataset,
    Collate,
    EpochBatches,
    MixedDataset,
    SplicedDataset,
    StreamDataset,
    TwoHeights,
    build_loader,
    load_data,
    load_split,
)
from make_dataset import make_dataset
from predict import CaptchaPredictor, preprocess_image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def noise(mode: str, size: tuple[int, int] = (37, 23), seed: int = 0) -> Image.Image:
    """A picture of random pixels; the RGBA and the palette ones are transparent in parts."""
    rng = np.random.default_rng(seed)
    if mode == "P":
        image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).quantize(16)
        image.info["transparency"] = 3
        return image
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def config(**changes: object) -> ModelConfig:
    values = {"name": "crnn", "alphabet": "abcd", "max_length": 3, "image_size": (16, 48), "channels": 3}
    return ModelConfig(**(values | changes))


# --------------------------------------------------------------------------------------------------------------------
# The transform


@pytest.mark.parametrize("times", [2, 3, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_enlarged_pixel_by_pixel_is_seen_without_stairs(times: int, channels: int) -> None:
    small = np.random.default_rng(times).integers(0, 256, (16, 40, channels), dtype=np.uint8)
    large = small.repeat(times, axis=0).repeat(times, axis=1)
    smooth = smooth_blocks(large)
    bands = [
        Image.fromarray(small[..., c]).resize(large.shape[1::-1], Image.Resampling.BILINEAR) for c in range(channels)
    ]
    assert np.abs(smooth.astype(int) - np.stack([np.asarray(band) for band in bands], axis=2)).max() <= 1
    assert np.abs(smooth.astype(int) - large).max() > 50, "another picture"
    large[-1, -1] ^= 1
    assert smooth_blocks(large) is large
    assert smooth_blocks(large[:, :-1]).shape == large[:, :-1].shape
    flat = np.full((40, 80, channels), 200, np.uint8)
    assert (smooth_blocks(flat) == 200).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_every_entrance_gives_the_same_array_bit_for_bit(mode: str, reader: Path, tmp_path: Path) -> None:
    predictor = CaptchaPredictor(reader, threads=1)
    transform = build_transform(predictor.config, train=False)
    image = noise(mode)
    encoded = png(image)
    path = tmp_path / "a.png"
    path.write_bytes(encoded)
    sources = [image, encoded, path, str(path)]
    if mode != "P":
        sources.append(np.asarray(image))
    if mode == "L":
        sources += [np.asarray(image)[..., None], image.convert("RGB")]
    expected = CaptchaDataset([encoded], ["a"], transform)[0][0]
    assert expected.dtype == np.uint8
    assert expected.shape == (1, 16, 48)
    assert expected.std() > 10
    training = CaptchaDataset([encoded], ["a"], build_transform(predictor.config, train=True))
    assert np.array_equal(training[0][0], expected), "no epoch, no augmentation"
    for source in sources:
        assert np.array_equal(predictor.preprocess_image(source), expected)
        assert np.array_equal(preprocess_image(source, transform), expected)


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparency_is_white(mode: str) -> None:
    image = Image.new("RGBA", (48, 16), (0, 0, 0, 0))
    ImageDraw.Draw(image).rectangle((20, 4, 27, 11), fill=(255, 0, 0, 255))
    if mode == "P":
        image = Image.open(io.BytesIO(png(image.quantize(2))))
        assert image.mode == "P"
    pixels = preprocess_image(image, build_transform(config()))
    expected = np.full((3, 16, 48), 255)
    expected[1:, 4:12, 20:28] = 0
    assert np.array_equal(pixels, expected)


def test_a_gray_network_and_a_color_one_see_the_same_picture() -> None:
    image = noise("L")
    gray = preprocess_image(image, build_transform(config(channels=1)))
    color = preprocess_image(image, build_transform(config(channels=3)))
    assert (gray.shape[0], color.shape[0]) == (1, 3)
    for channel in color:
        assert np.abs(channel.astype(int) - gray[0].astype(int)).max() <= 1


def extent(pixels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the dark shape in (H, W, C)."""
    dark = pixels[..., 0] < 128
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def circle(width: int, height: int, diameter: int, background: int = 200) -> np.ndarray:
    image = Image.new("L", (width, height), background)
    left, top = (width - diameter) // 2, (height - diameter) // 2
    ImageDraw.Draw(image).ellipse((left, top, left + diameter - 1, top + diameter - 1), fill=0)
    return np.asarray(image)[..., None]


@pytest.mark.parametrize("shape", [(200, 50), (60, 120), (100, 100), (400, 30)])
def test_pad_keeps_a_circle_round_and_in_the_middle(shape: tuple[int, int]) -> None:
    size = (64, 160)
    pixels = circle(*shape, diameter=min(shape) - 6)
    out = pad_and_resize(pixels, size)
    assert out.shape == (*size, 1)
    rows, columns = extent(out)
    tall, wide = rows.stop - rows.start, columns.stop - columns.start
    scale = min(size[0] / shape[1], size[1] / shape[0])
    assert abs(tall - wide) <= 1
    assert abs(tall - scale * (min(shape) - 6)) <= 2
    assert abs((rows.start + rows.stop) / 2 - 32) <= 1
    assert abs((columns.start + columns.stop) / 2 - 80) <= 1


def test_pad_fills_with_the_color_of_the_border() -> None:
    pixels = np.full((10, 10, 3), (10, 200, 90), dtype=np.uint8)
    pixels[2:8, 2:8] = 0
    pixels[0, 3] = 255  # one odd pixel of the border does not count
    out = pad_and_resize(pixels, (10, 40))
    assert np.array_equal(out[:, 15:25], pixels)
    assert (out[:, :15] == (10, 200, 90)).all()
    assert (out[:, 25:] == (10, 200, 90)).all()
    assert border_color(pixels) == (10, 200, 90)


def test_stretch_fills_the_whole_input() -> None:
    pixels = np.zeros((50, 50, 1), dtype=np.uint8)
    pixels[:25] = 200
    out = stretch(pixels, (20, 100))
    assert out.shape == (20, 100, 1)
    assert (out[:10] == 200).all()
    assert (out[10:] == 0).all()
    rows, columns = extent(stretch(circle(80, 80, 40), (20, 80)))
    assert (columns.stop - columns.start) == pytest.approx(4 * (rows.stop - rows.start), abs=4)


def small_word(background: int = 200, ink: int = 0) -> np.ndarray:
    """Four bars, 20 high from row 40 and 60 wide from column 100, in a picture of 300x100."""
    pixels = np.full((100, 300, 3), background, dtype=np.uint8)
    for left in (100, 117, 134, 151):
        pixels[40:60, left : left + 9] = ink
    return pixels


@pytest.mark.parametrize(("background", "ink"), [(200, 0), (0, 255), (255, 225)])
def test_the_content_box_holds_the_word_and_a_margin(background: int, ink: int) -> None:
    left, top, right, bottom = content_box(small_word(background, ink))
    assert 90 <= left < 100
    assert 160 < right <= 170
    assert 34 <= top < 40
    assert 60 < bottom <= 66


def test_the_content_box_passes_over_specks_and_gradients() -> None:
    pixels = np.kron(small_word(), np.ones((3, 3, 1), dtype=np.uint8))
    box = content_box(pixels)
    pixels[3, 5] = pixels[297, 890] = 0
    assert np.abs(np.subtract(content_box(pixels), box)).max() <= 6
    shade = np.linspace(0, 50, 300).astype(np.uint8)[None, :, None]
    assert content_box(small_word() - np.where(small_word() > 0, shade, 0).astype(np.uint8)) == content_box(
        small_word()
    )


def test_thin_lines_above_and_below_do_not_make_the_letters_small() -> None:
    pixels = small_word()
    _, top, _, bottom = content_box(pixels)
    cv2.line(pixels, (80, 10), (180, 4), (0, 0, 0), 1)
    cv2.line(pixels, (80, 92), (180, 97), (0, 0, 0), 1)
    crossed = content_box(pixels)
    assert abs(crossed[1] - top) <= 3
    assert abs(crossed[3] - bottom) <= 3


def test_letters_of_thin_lines_alone_are_contents() -> None:
    pixels = np.full((100, 300, 1), 200, dtype=np.uint8)
    for left in range(100, 160, 12):
        cv2.rectangle(pixels, (left, 40), (left + 8, 60), (0,), 1)
    _, top, _, bottom = content_box(pixels)
    assert 34 <= top <= 40
    assert 60 < bottom <= 66


def plain_word() -> np.ndarray:
    """A black and a blue word of bars on nearly white, (60, 200, 3)."""
    pixels = np.full((60, 200, 3), 245, dtype=np.uint8)
    for left in range(50, 150, 20):
        pixels[20:45, left : left + 8] = (0, 0, 0) if left < 100 else (0, 0, 160)
    return pixels


@pytest.mark.parametrize(
    "shown",
    [lambda p: 255 - p, lambda p: (p * 0.3 + 150).astype(np.uint8), lambda p: (60 - p * 0.2).astype(np.uint8)],
    ids=["light on dark", "pale", "pale on dark"],
)
def test_a_normalized_picture_is_dark_on_light_at_full_contrast(shown: Callable[[np.ndarray], np.ndarray]) -> None:
    word = plain_word()
    out = normalize(shown(word))
    assert (out[5, 5] >= 250).all(), "the ground is white"
    assert (out[30, 52] <= 5).all(), "the darkest letters are black"
    assert np.abs(out.astype(int) - normalize(word)).max() <= 8
    blue = out[30, 112].astype(int)
    assert blue[2] - blue[0] > 120, "colors that differ go on differing"
    assert np.abs(normalize(out).astype(int) - out).max() <= 2, "there is nothing more to do"


@pytest.mark.parametrize("height", [1, 2, 7, 300])
@pytest.mark.parametrize("width", [1, 3, 500])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_size_are_normalized(height: int, width: int, channels: int) -> None:
    flat = np.full((height, width, channels), 90, dtype=np.uint8)
    assert len(np.unique(normalize(flat))) == 1
    grain = np.random.default_rng(0).integers(0, 256, flat.shape, dtype=np.uint8)
    assert normalize(grain).shape == flat.shape


def test_faint_noise_does_not_become_a_picture() -> None:
    noise = np.random.default_rng(0).integers(100, 103, (60, 160, 3), dtype=np.uint8)
    assert np.ptp(normalize(noise)) <= 3 * 8


@pytest.mark.parametrize("width", [1, 3, 8])
@pytest.mark.parametrize("color", [(0, 0, 0), (120, 120, 160), (255, 0, 0)])
@pytest.mark.parametrize("sides", ["all", "below", "right"])
def test_a_frame_is_painted_over(width: int, color: tuple[int, int, int], sides: str) -> None:
    framed, bare = plain_word(), normalize(plain_word())
    framed[-width:] = color if sides != "right" else framed[-width:]
    framed[:, -width:] = color if sides != "below" else framed[:, -width:]
    if sides == "all":
        framed[:width] = framed[:, :width] = color
    assert np.array_equal(normalize(framed), bare)


def test_a_ground_that_changes_and_letters_at_the_edge_are_no_frame() -> None:
    sloping = np.linspace(255, 90, 60).astype(np.uint8)[:, None, None].repeat(200, 1).repeat(3, 2)
    high_letters = plain_word()
    high_letters[0:12, 10:190:20] = 0
    striped = plain_word()
    striped[:15] = (200, 200, 120)
    for pixels in (sloping, high_letters, striped):
        out = normalize(np.ascontiguousarray(pixels))
        assert len(np.unique(out[:15], axis=0)) > 1 or np.abs(out[0, 0].astype(int) - out[20, 0]).max() > 20


def test_letters_at_the_edge_get_a_margin_in_the_grounds_color() -> None:
    pixels = np.full((40, 160, 3), 250, dtype=np.uint8)
    pixels[:, 20:28] = pixels[:, 80:88] = pixels[:, 141:148] = 0
    left, top, right, bottom = content_box(pixels, beyond=True)
    assert top == -2 and bottom == 42, "a twentieth of the height above and below"
    assert 0 <= left < 20 and 148 < right <= 160
    transform = build_transform(config(resize="natural", image_size=(48, 192), normalize=True))
    view = transform.view(Image.fromarray(pixels))
    assert view.box == (left, top, right, bottom)
    assert (view.pixels[:, :2] > 250).all() and (view.pixels[:, -2:] > 250).all()
    assert (view.pixels[:, 6:-6].min(axis=0) < 10).any(axis=1).all()
    assert np.array_equal(view.pixels, transform(Image.fromarray(pixels)))


def test_light_letters_in_a_frame_give_the_input_of_dark_ones_alone() -> None:
    transform = build_transform(config(resize="natural", image_size=(32, 128), normalize=True))
    dark, light = plain_word(), 255 - plain_word()
    light[:2] = light[-2:] = light[:, :2] = light[:, -2:] = 200
    dark[..., 2], light[..., 2] = dark[..., 0], light[..., 0]  # gray: inverted colors are others
    views = [transform.view(Image.fromarray(pixels)) for pixels in (dark, light)]
    assert np.abs(views[0].pixels.astype(int) - views[1].pixels).max() <= 4
    again = [transform.changed(view, view.copy, margin=0.1) for view in views]
    assert np.abs(again[0].pixels.astype(int) - again[1].pixels).max() <= 4


def gaussian(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """(C, H, W) blurred, tap by tap."""
    taps = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    for axis in (1, 2):
        around = np.pad(pixels.astype(float), [(3, 3) if a == axis else (0, 0) for a in range(3)], mode="reflect")
        parts = (np.take(around, range(i, i + pixels.shape[axis]), axis) for i in range(7))
        pixels = sum(tap * part for tap, part in zip(taps / taps.sum(), parts, strict=True))
    return pixels


def test_what_is_read_is_softened_once_and_what_is_trained_on_is_not() -> None:
    image = Image.fromarray(plain_word())
    settings = [config(resize="natural", image_size=(48, 192), normalize=True, soften=s) for s in (0.7, 0.0)]
    soft, sharp = map(build_transform, settings)
    wanted = gaussian(sharp(image), 0.7)
    assert np.abs(wanted - sharp(image)).max() > 20
    assert np.abs(soft(image) - wanted).max() < 2
    view = soft.view(image)
    assert np.array_equal(view.pixels, soft(image))
    again = [t.changed(t.view(image), t.view(image).copy, margin=0.1).pixels for t in (soft, sharp)]
    assert np.abs(again[0] - gaussian(again[1], 0.7)).max() < 2
    (([batch], _, _),) = Collate(soft)([(view.pixels, "abc", 0)])
    assert np.array_equal(batch.numpy(), view.pixels)
    trained = [build_transform(c, train=True)(image, np.random.default_rng(0)) for c in settings]
    assert np.array_equal(*trained)


def test_a_picture_that_is_all_contents_or_has_none_stays_whole() -> None:
    assert content_box(np.full((40, 90, 1), 128, dtype=np.uint8)) == (0, 0, 90, 40)
    grain = np.random.default_rng(0).integers(0, 255, size=(40, 90, 3), dtype=np.uint8)
    left, top, right, bottom = content_box(grain)
    assert (left, top) == (0, 0)
    assert (right, bottom) == (90, 40)


def test_the_content_box_of_a_huge_picture_is_that_of_a_small_one() -> None:
    huge = np.kron(small_word(), np.ones((10, 10, 1), dtype=np.uint8))
    assert np.abs(np.subtract(content_box(huge), np.multiply(content_box(small_word()), 10))).max() <= 30


def test_contents_fill_the_input() -> None:
    out = crop_and_stretch(small_word(), (48, 160))
    rows, columns = extent(out[..., :1])
    assert rows.stop - rows.start >= 32
    assert columns.stop - columns.start >= 130


def test_square_pads_to_a_square_then_shrinks() -> None:
    pixels = circle(200, 50, 40)
    out = SquarePadAndResize(100)(pixels)
    assert out.shape == (100, 100, 1)
    rows, columns = extent(out)
    assert (rows.start, rows.stop) == (40, 60), "a circle of 40 in 200x50 is one of 20 in 100x25 in the middle"
    assert abs((columns.stop - columns.start) - 20) <= 1
    assert (out[:36] == 200).all()
    assert (out[64:] == 200).all()
    assert np.array_equal(SquarePadAndResize((100, 100))(pixels), out)
    through = build_transform(config(image_size=(100, 100), resize="square", channels=1)).prepare(
        Image.fromarray(pixels[..., 0])
    )
    assert np.array_equal(through, out)


@pytest.mark.parametrize("resize", RESIZERS)
@pytest.mark.parametrize("shape", [(100, 300), (300, 100), (40, 150), (60, 60)])
def test_a_place_in_the_input_is_found_in_the_picture(resize: str, shape: tuple[int, int]) -> None:
    """A bar of the picture, found in the network's input, leads back to where it stands."""
    height, width = shape
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    pixels[int(0.4 * height) : int(0.7 * height), int(0.3 * width) : int(0.5 * width)] = 0
    transform = build_transform(config(resize=resize, image_size=(48, 160)))
    rows, columns = np.nonzero(transform.prepare(Image.fromarray(pixels))[..., 0] < 128)
    view = transform.view(Image.fromarray(pixels))
    assert np.array_equal(view.pixels, transform(Image.fromarray(pixels)))
    left, top, right, bottom = view.box
    across, down = (right - left) / 160, (bottom - top) / 48  # pixels of the picture for one of the input
    assert left + columns.min() * across == pytest.approx(0.3 * width, abs=across + 1)
    assert left + (columns.max() + 1) * across == pytest.approx(0.5 * width, abs=across + 1)
    assert top + rows.min() * down == pytest.approx(0.4 * height, abs=down + 1)
    assert top + (rows.max() + 1) * down == pytest.approx(0.7 * height, abs=down + 1)


@pytest.mark.parametrize(("lean", "most"), [(0.1, 0.05), (0.7, 0.35)])
def test_augmented_pictures_lean_as_far_as_told(lean: float, most: float) -> None:
    pixels = np.full((60, 200, 3), 255, dtype=np.uint8)
    pixels[15:45, 98:102] = 0
    transform = build_transform(config(), train=True, strength=0.5, lean=lean)
    leans = []
    for seed in range(60):
        dark = transform.augment(pixels, np.random.default_rng(seed)).min(2) < 100
        rows = np.flatnonzero(dark.any(1))[4:-4]
        centers = [np.flatnonzero(dark[row]).mean() for row in (rows[0], rows[-1])]
        leans.append((centers[0] - centers[1]) / (rows[-1] - rows[0]))
    turned = np.tan(np.deg2rad(1.5))  # pictures turn, too
    assert 0.8 * most < max(leans) < 1.15 * most + turned and 0.8 * most < -min(leans) < 1.15 * most + turned


def words(*lengths: int) -> list[bytes]:
    """Pictures with a square for each letter, far apart."""
    encoded = []
    for length in lengths:
        pixels = np.full((40, 60 + 60 * length, 3), 255, dtype=np.uint8)
        for i in range(length):
            pixels[8:33, 41 + 60 * i : 64 + 60 * i] = 15 * length
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    return encoded


NATURAL: dict[str, Any] = {"resize": "natural", "image_size": (32, 128), "channels": 3}


def test_wide_contents_get_a_wide_input() -> None:
    transform = build_transform(config(**NATURAL))
    widths = [transform(Image.open(io.BytesIO(word))).shape[2] for word in words(1, 2, 4, 5, 7, 12)]
    assert widths[:2] == [128, 128] and widths[-1] == 320  # the least and the most
    assert widths == sorted(widths) and all(width % 16 == 0 for width in widths)
    for word, width in zip(words(4, 5), widths[2:4], strict=True):
        pixels = transform(Image.open(io.BytesIO(word)))
        rows, columns = (np.flatnonzero((pixels[0] < 200).any(axis=axis)) for axis in (1, 0))
        assert columns[np.flatnonzero(np.diff(columns) > 1)[0]] - columns[0] == pytest.approx(len(rows), abs=3), width


@pytest.mark.parametrize("train", [False, True])
def test_a_batch_of_many_widths_comes_in_parts_of_one_width(train: bool) -> None:
    lengths = [4, 12, 4, 6, 5, 9, 12, 1]
    dataset = CaptchaDataset(words(*lengths), [f"{n}" for n in lengths], build_transform(config(**NATURAL), train, 0.1))
    key = [(0, i) if train else i for i in range(8)]
    for workers in (0, 1):
        (parts,) = build_loader(dataset, [key], workers)
        assert sorted(i for _, _, indices in parts for i in indices) == list(range(8)) and len(parts) == 4
        for pixels, texts, indices in parts:
            assert texts == [f"{lengths[i]}" for i in indices]
            assert pixels.shape[1:3] == (3, 32) and pixels.shape[3] % 16 == 0 and 128 <= pixels.shape[3] <= 320
            if not train:  # the shade of its letters tells which word it is
                assert [int(p.min()) for p in pixels] == pytest.approx([15 * lengths[i] for i in indices], abs=2)
        assert [len(texts) for _, texts, _ in parts] == [2, 2, 2, 2]
    for count in (1, 2):
        assert len(next(iter(build_loader(dataset, [key], parts=count)))) == count


def test_every_second_picture_of_a_batch_has_the_other_height() -> None:
    lengths = [4, 12, 4, 6, 5, 9, 12, 1]
    low, high = (
        CaptchaDataset(words(*lengths), [f"{n}" for n in lengths], build_transform(config(**size), True, 0.1))
        for size in (NATURAL, NATURAL | {"image_size": (48, 192)})
    )
    both = TwoHeights(low, 48)
    keys = [(3, i) for i in (5, 0, 7, 2, 1, 4, 3, 6)]
    for place, (key, sample) in enumerate(zip(keys, both.__getitems__(keys), strict=True)):
        assert np.array_equal(sample[0], (high if place % 2 else low)[key][0]) and sample[1:] == low[key][1:]
    for workers in (0, 1):
        (parts,) = build_loader(both, [keys], workers)
        assert [pixels.shape[:3] for pixels, _, _ in parts] == [(2, 3, 32)] * 2 + [(2, 3, 48)] * 2
        assert sorted(i for _, _, indices in parts[:2] for i in indices) == [1, 3, 5, 7]
        for pixels, texts, indices in parts:
            assert texts == [f"{lengths[i]}" for i in indices]
            assert pixels.shape[3] % 16 == 0 and 4 * pixels.shape[2] <= pixels.shape[3] <= 10 * pixels.shape[2]
    later = TwoHeights(low, 48, first=4)
    assert [sample[0].shape[1] for sample in later.__getitems__(keys)] == [32] * 8
    assert [sample[0].shape[1] for sample in later.__getitems__([(4, i) for i in range(4)])] == [32, 48, 32, 48]
    (lone,) = build_loader(both, [[(3, 0)]])
    assert [indices for _, _, indices in lone] == [[0]]


def test_prepared_pictures_keep_their_widths() -> None:
    dataset = CaptchaDataset(words(4, 12), ["a", "b"], build_transform(config(**NATURAL)))
    first = [dataset[i][0] for i in range(2)]
    dataset.images = [b"gone"] * 2
    assert all(np.array_equal(dataset[i][0], first[i]) for i in range(2))
    assert first[0].shape[2] < first[1].shape[2]


SHADES = {"a": 0, "b": 60, "c": 120, "d": 180}
CTC = CTCCodec(Alphabet("abcd"))


def shaded(text: str) -> bytes:
    """On white, for each letter a block of its own shade, 16 pixels wide and 32 high, 8 pixels from the next."""
    buffer = io.BytesIO()
    blocks = [
        np.pad(np.full((32, 16), SHADES[letter], np.uint8), ((0, 0), (4, 4)), constant_values=255) for letter in text
    ]
    Image.fromarray(np.concatenate(blocks, axis=1)).save(buffer, "PNG")
    return buffer.getvalue()


def shades(pixels: np.ndarray, count: int) -> str:
    """What a picture (C, H, W) of `count` blocks says, in the middle of each."""
    columns = ((np.arange(count) + 0.5) / count * pixels.shape[2]).astype(int)
    values = pixels.mean((0, 1))[columns]
    return "".join(min(SHADES, key=lambda letter: abs(SHADES[letter] - value)) for value in values)


def splice(texts: list[str], share: float, steps: int = 30, resize: str = "stretch") -> SplicedDataset:
    """Gray pictures of such texts, with seams between the blocks."""
    transform = build_transform(config(channels=1, image_size=(32, 128), resize=resize), train=True, strength=0.01)
    real = CaptchaDataset([shaded(text) for text in texts], texts, transform, seed=1)
    border = 4 if resize == "natural" else 0  # is cut off
    widths = [24 * len(text) - 2 * border for text in texts]
    seams = [
        [(24 * i - border) / width for i in range(1, len(text))] for text, width in zip(texts, widths, strict=True)
    ]
    return SplicedDataset(real, seams, share, CTC, steps)


@pytest.mark.parametrize("resize", ["stretch", "natural"])
def test_joined_pictures_show_what_their_labels_say(resize: str) -> None:
    # Stretched to one width, letters are as wide as each other only where texts are as long.
    texts = ["abcd", "dcba", "badb", "cadb", "ddcc"]
    if resize == "natural":
        texts = ["abcdab", "dcbadcba", "badcba", "cadbcad", "ddccbbaa"]
    spliced = splice(texts, 0.99, resize=resize)
    seen = [spliced[epoch, index] for epoch in range(20) for index in range(5)]
    assert sum(text not in texts for _, text, _ in seen) > 50, "they are new"
    for pixels, text, _ in seen:
        assert len(text) in {len(t) for t in texts} and shades(pixels, len(text)) == text
        assert pixels.shape[:2] == (1, 32) and (pixels.shape[2] == 128 or resize == "natural")


def test_joined_parts_stay_at_their_ends() -> None:
    for _, text, _ in (splice(["ab", "cd"], 0.99)[epoch, index] for epoch in range(20) for index in (0, 1)):
        assert text[0] in "ac" and text[1] in "bd"


def test_what_cannot_be_joined_stays_as_it_is() -> None:
    single = splice(["a", "b", "c"], 0.99)
    assert {single[epoch, i][1] for epoch in range(9) for i in range(3)} == {"a", "b", "c"}
    # "aa" and "bb" take three steps, "ab" two: with two steps nothing but what can be written comes out.
    few = splice(["ab", "ba"], 0.99, steps=2)
    assert {few[epoch, i][1] for epoch in range(30) for i in range(2)} == {"ab", "ba"}


def test_joining_follows_seed_and_epoch_alone() -> None:
    a, b = splice(["abc", "dca", "bdb"], 0.5), splice(["abc", "dca", "bdb"], 0.5)
    keys = [(epoch, i) for epoch in range(20) for i in range(3)]
    assert [a[key][1] for key in keys] == [b[key][1] for key in reversed(keys)][::-1]
    assert all(np.array_equal(a[key][0], b[key][0]) for key in keys)
    left = sum(np.array_equal(a[key][0], a.real[key][0]) for key in keys)
    assert 15 <= left <= 45, "half of them are as they were"


@pytest.mark.parametrize("resize", RESIZERS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1000, 2), (2, 1000), (48, 16)])
def test_any_shape_comes_to_the_input_size(resize: str, channels: int, shape: tuple[int, int]) -> None:
    transform = build_transform(config(resize=resize, channels=channels))
    pixels = transform(noise("RGB", shape))
    assert (pixels.shape[:2], pixels.dtype) == ((channels, 16), np.uint8)
    assert pixels.shape[2] == (112 if resize == "natural" and shape == (1000, 2) else 48)
    assert pixels.flags.c_contiguous


# --------------------------------------------------------------------------------------------------------------------
# Augmentation


@pytest.fixture
def make(captchas: list[tuple[bytes, str]]) -> Callable[..., CaptchaDataset]:
    def dataset(train: bool = True, strength: float = 1.0, seed: int = 0) -> CaptchaDataset:
        images, texts = zip(*captchas, strict=True)
        return CaptchaDataset(images, texts, build_transform(config(), train, strength), seed)

    return dataset


def test_augmentation_is_for_training_alone(make: Callable[..., CaptchaDataset]) -> None:
    plain = make(train=False)
    for dataset, changes in ((make(), True), (make(train=False), False), (make(strength=0.0), False)):
        pairs = [(dataset[0, i][0], plain[i][0]) for i in range(len(plain))]
        assert any(not np.array_equal(a, b) for a, b in pairs) == changes


def test_augmentation_leaves_the_picture_recognisable(make: Callable[..., CaptchaDataset]) -> None:
    dataset = make()
    for i in range(10):
        a, b = dataset[i][0].astype(float), dataset[1, i][0].astype(float)
        assert 0 < np.abs(a - b).mean() < 60


def test_augmentation_depends_on_seed_epoch_and_index_alone(make: Callable[..., CaptchaDataset]) -> None:
    keys = [(epoch, index) for epoch in (0, 1) for index in range(12)]
    first = make()
    expected = {key: first[key][0] for key in keys}
    shuffled = random.Random(1).sample(keys, len(keys))
    other = make()
    assert all(np.array_equal(other[key][0], expected[key]) for key in shuffled)
    assert not np.array_equal(expected[0, 3], expected[1, 3])
    assert not np.array_equal(make(seed=1)[0, 3][0], expected[0, 3])
    alike = CaptchaDataset([first.images[0]] * 2, ["a"] * 2, first.transform)
    assert not np.array_equal(alike[0, 0][0], alike[0, 1][0]), "each picture is drawn its own"


def test_workers_change_nothing(make: Callable[..., CaptchaDataset]) -> None:
    dataset = make()
    batches = list(EpochBatches(len(dataset), 8, seed=0, epoch=2))
    runs = [list(build_loader(make(), batches, workers)) for workers in (0, 2)]
    assert len(runs[0]) == len(batches) == 5
    for ((pixels, texts, indices),), ((same, same_texts, same_indices),) in zip(*runs, strict=True):
        assert pixels.equal(same)
        assert (texts, indices) == (same_texts, same_indices)
        assert texts == [dataset.texts[i] for i in indices]
    assert [i for ((_, _, indices),) in runs[0] for i in indices] == [i for batch in batches for _, i in batch]


def test_loading_leaves_the_generator_of_dropout_alone(make: Callable[..., CaptchaDataset]) -> None:
    before = torch.get_rng_state()
    next(iter(build_loader(make(), [[(0, 1), (0, 2)]])))
    assert torch.get_rng_state().equal(before)


def test_what_a_worker_prepared_serves_the_next_epoch(make: Callable[..., CaptchaDataset]) -> None:
    dataset = make(train=False)
    first = [pixels for ((pixels, _, _),) in build_loader(dataset, [[i] for i in range(6)], workers=1)]
    dataset.images = [b"gone"] * len(dataset)
    again = [pixels for ((pixels, _, _),) in build_loader(dataset, [[i] for i in range(6)], workers=1)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    alone = pickle.loads(pickle.dumps(dataset))
    with pytest.raises(UserError):
        alone[0]


def test_workers_leave_signals_to_the_main_process(make: Callable[..., CaptchaDataset]) -> None:
    batches = iter(build_loader(make(), [[(0, i)] for i in range(20)], workers=1))
    next(batches)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(batches._workers[0].pid, number)
    assert len(list(batches)) == 19


def test_what_is_kept_in_memory_is_what_was_read(
    make: Callable[..., CaptchaDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = make()
    assert np.array_equal(cached[5][0], cached[5][0])
    monkeypatch.setattr("data_loader.cache_bytes", lambda: 0)
    uncached = make()
    for key in (5, (0, 5), (1, 5), 5):
        assert np.array_equal(cached[key][0], uncached[key][0])


def test_an_unreadable_sample_is_named() -> None:
    dataset = CaptchaDataset([b"no picture"], ["a"], build_transform(config()), names=lambda i: f"train sample {i}")
    with pytest.raises(UserError, match="train sample 0"):
        dataset[0]


# --------------------------------------------------------------------------------------------------------------------
# Batches


@pytest.mark.parametrize(("size", "batch"), [(60, 16), (64, 16), (5, 16), (16, 16), (7, 1)])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_every_batch_and_see_each_sample_once(size: int, batch: int, world: int) -> None:
    alone = list(EpochBatches(size, batch, seed=4, epoch=1))
    assert len(alone) == max(1, size // batch)
    assert {len(b) for b in alone} == {min(batch, size)}
    assert max(Counter(index for b in alone for _, index in b).values()) == 1
    assert {epoch for b in alone for epoch, _ in b} == {1}
    if min(batch, size) < world:
        with pytest.raises(UserError, match="shared"):
            EpochBatches(size, batch, seed=4, epoch=1, world=world)
        return
    shares = [list(EpochBatches(size, batch, seed=4, epoch=1, rank=rank, world=world)) for rank in range(world)]
    assert {len(share) for share in shares} == {len(alone)}
    for whole, *parts in zip(alone, *shares, strict=True):
        assert sorted(itertools.chain(*parts)) == sorted(whole)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_order_follows_the_seed_and_the_epoch() -> None:
    orders = [list(EpochBatches(60, 16, seed, epoch)) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    indices = [[i for batch in order for _, i in batch] for order in orders]
    assert indices[0] == indices[1]
    assert indices[0] != indices[2]
    assert indices[0] != indices[3]
    assert indices[0] != sorted(indices[0])


@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_resumed_epoch_goes_on_with_the_batches_left(start: int) -> None:
    whole = list(EpochBatches(60, 16, 0, 0))
    rest = EpochBatches(60, 16, 0, 0, start=start)
    assert len(rest) == 3 - start
    assert list(rest) == whole[start:]


# --------------------------------------------------------------------------------------------------------------------
# Datasets on disk


def test_load_data_gives_every_split(dataset: Path) -> None:
    loaded = load_data(dataset, config())
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 60, "validation": 15, "test": 15}
    for split, rows in loaded.items():
        images, texts = load_split(dataset, split)
        assert list(rows.texts) == texts
        assert np.array_equal(rows[3][0], build_transform(config())(Image.open(io.BytesIO(images[3]))))
        augmented = not np.array_equal(rows[0, 3][0], rows[3][0])
        assert augmented == (split == "train")
        assert split in rows.names(3) and "3" in rows.names(3) and str(dataset) in rows.names(3)


def test_a_limit_is_a_seeded_choice(dataset: Path) -> None:
    whole = load_data(dataset, config())["train"]
    chosen = [load_data(dataset, config(), seed=seed, limit=10) for seed in (0, 0, 1)]
    assert [len(c["train"]) for c in chosen] == [10, 10, 10]
    assert [len(c["validation"]) for c in chosen] == [15, 15, 15]
    pictures = [[c["train"].images[i] for i in range(10)] for c in chosen]
    assert pictures[0] == pictures[1] != pictures[2]
    labels = {whole.images[i]: whole.texts[i] for i in range(len(whole))}
    assert all(labels[p] == t for p, t in zip(pictures[0], chosen[0]["train"].texts, strict=True))
    assert pictures[0] != [whole.images[i] for i in range(10)], "not merely the first ones"
    assert len(load_data(dataset, config(), limit=1000)["train"]) == 60


def test_a_missing_split_is_empty_and_a_broken_shard_is_one_sentence(dataset: Path, tmp_path: Path) -> None:
    assert len(load_data(tmp_path, config(), splits=("test",))["test"]) == 0
    (tmp_path / "train-0.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        load_data(tmp_path, config())


def test_the_mapped_copy_lies_within_the_dataset_and_is_no_part_of_it(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    settings = DatasetConfig(sources=[str(shards)], out=str(out), split="100/0/0", workers=1)
    before = make_dataset(settings)["fingerprint"]
    images, texts = load_split(out, "train")
    copies = list((out / COPIES).rglob("*.arrow"))
    assert len(copies) == 1 and copies[0].stat().st_size > sum(map(len, images))
    assert [sample.text for sample in iter_source(str(out))] == texts, "not read as a source"
    assert make_dataset(settings)["fingerprint"] == before
    assert not (out / COPIES).exists(), "a dataset that is made anew keeps no copy of the old one"
    (out / ".cache").mkdir()
    (out / ".cache" / "mine").touch()
    with pytest.raises(UserError, match=r"holds \.cache"):
        make_dataset(settings)
    assert (out / ".cache" / "mine").exists()


def test_copies_go_to_a_temporary_folder_where_the_dataset_s_own_cannot_be_written(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the dataset's folder nor HOME takes a copy: as on a read-only disk, in a container."""
    folder = Path(shutil.copytree(dataset, tmp_path / "dataset", ignore=shutil.ignore_patterns(".cache")))
    (folder / COPIES.parts[0]).write_text("a file, where there should be a folder")
    monkeypatch.setenv("HOME", "/dev/null")
    images, texts = load_split(folder, "test")
    assert len(images) == len(texts) == 15
    assert texts == load_split(dataset, "test")[1]
    assert [image.startswith(b"\x89PNG") for image in (images[0], images[14])] == [True, True]
    assert (folder / COPIES.parts[0]).is_file()


# --------------------------------------------------------------------------------------------------------------------
# The stream of fresh captchas


def numbered(number: int) -> tuple[np.ndarray, str]:
    """A picture that tells its number by the shade of a square, gray or color by turns."""
    pixels = np.full((30, 90, 1 + 2 * (number % 2)), 255, dtype=np.uint8)
    pixels[5:25, 20:70] = number
    return pixels, f"text {number}"


def drawn(number: int) -> tuple[np.ndarray, str]:
    """A captcha of the generator."""
    png, text = render_captcha(number, CaptchaSettings(("line", "wave"), "abcd", (2, 3), seed=3))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")), text


def test_a_stream_shows_every_number_once_and_in_an_order_of_its_own() -> None:
    stream = StreamDataset(numbered, build_transform(config(resize="stretch")), count=20, first=7)
    seen = []
    for epoch in (0, 1, 2):
        keys = [key for batch in EpochBatches(len(stream), 5, 0, epoch) for key in batch]
        for pixels, text, index in map(stream.__getitem__, keys):
            number = int(text.split()[1])
            assert pixels.min() == number and number == 7 + 20 * epoch + index
            seen.append(number)
    assert sorted(seen) == list(range(7, 67))


def test_a_stream_is_the_same_for_any_number_of_processes_and_from_any_place_on() -> None:
    stream = StreamDataset(drawn, build_transform(config(**NATURAL), train=True), count=24, seed=2)

    def batches(epoch: int, start: int, workers: int) -> list[Any]:
        keys = EpochBatches(len(stream), 8, 0, epoch, start)
        return [part for parts in build_loader(TwoHeights(stream, 48), keys, workers) for part in parts]

    alone = batches(1, 0, 0)
    assert {pixels.dtype for pixels, _, _ in alone} == {torch.uint8}
    assert {pixels.shape[2] for pixels, _, _ in alone} == {32, 48}
    for other in (batches(1, 0, 2), alone[:4] + batches(1, 1, 1)):
        assert len(other) == len(alone) == 12
        for (pixels, *labels), (same, *same_labels) in zip(alone, other, strict=True):
            assert labels == same_labels and pixels.equal(same)
    assert not any(a[0].equal(b[0]) for a, b in zip(alone, batches(0, 0, 0), strict=True) if a[0].shape == b[0].shape)


def test_the_augmentation_of_a_stream_follows_its_seed_and_the_number_alone() -> None:
    transform = build_transform(config(resize="stretch"), train=True)
    first, same, other = (StreamDataset(lambda i: drawn(5), transform, 10, seed) for seed in (0, 0, 1))
    assert np.array_equal(first[1, 3][0], same[1, 3][0])
    for changed in (first[1, 4], first[2, 3], other[1, 3]):
        assert not np.array_equal(changed[0], first[1, 3][0])
    moved = StreamDataset(lambda i: drawn(5), transform, 10, first=3)
    assert np.array_equal(moved[1, 0][0], first[1, 3][0])


def test_synthetic_pictures_follow_the_real_ones_and_are_new_each_epoch(
    make: Callable[..., CaptchaDataset], captchas: list[tuple[bytes, str]]
) -> None:
    asked: list[int] = []

    def render(number: int) -> tuple[bytes, str]:
        asked.append(number)
        return captchas[number % 40][0], f"text {number}"

    real = make()
    mixed = MixedDataset(real, render, count=5)
    assert len(mixed) == 45
    for index in (0, 39):
        assert np.array_equal(mixed[2, index][0], real[2, index][0])
        assert mixed[2, index][1:] == (real.texts[index], index)
    assert asked == []
    for epoch in (0, 1, 2):
        for index in range(40, 45):
            pixels, text, same = mixed[epoch, index]
            assert (pixels.shape, same) == ((3, 16, 48), index)
            assert text == f"text {asked[-1]}"
    assert asked == list(range(15)), "none comes twice"
    assert np.array_equal(mixed[1, 42][0], mixed[1, 42][0])
