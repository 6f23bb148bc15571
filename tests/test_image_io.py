"""`open_image` against pixels computed by hand, for every kind of picture a user may bring."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from captcha_reader import images as module
from captcha_reader.errors import UserError
from captcha_reader.images import IMAGE_SUFFIXES, MAX_PIXELS, check_header, open_image

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def encode(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def pixels(source, name: str = "") -> np.ndarray:
    image = open_image(source, name)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_rgb_is_the_same_from_every_lossless_source(rgb, tmp_path):
    image = Image.fromarray(rgb)
    for image_format, options in (("PNG", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encode(image, image_format, **options)
        path = tmp_path / f"x.{image_format.lower()}"
        path.write_bytes(data)
        assert path.suffix in IMAGE_SUFFIXES
        for source in (data, path, str(path), image, rgb):
            np.testing.assert_array_equal(pixels(source), rgb)


def test_jpeg_is_what_pillow_decodes(rgb):
    data = encode(Image.fromarray(rgb), "JPEG", quality=80)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_gray_and_one_bit(rgb):
    gray = rgb[:, :, 0]
    for source in (encode(Image.fromarray(gray), "PNG"), Image.fromarray(gray), gray, gray[:, :, None]):
        np.testing.assert_array_equal(pixels(source), np.repeat(gray[:, :, None], 3, axis=2))
    bits = Image.fromarray(gray > 127)
    assert bits.mode == "1"
    for source in (encode(bits, "PNG"), gray > 127):
        np.testing.assert_array_equal(pixels(source)[:, :, 0], np.where(gray > 127, 255, 0))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_lies_on_white(rgb, mode):
    alpha = np.random.default_rng(1).integers(0, 256, rgb.shape[:2], dtype=np.uint8)
    alpha[0, :2] = 0, 255
    color = rgb if mode == "RGBA" else np.repeat(rgb[:, :, :1], 3, axis=2)
    image = Image.fromarray(np.dstack([color if mode == "RGBA" else color[:, :, :1], alpha]), mode=None)
    assert image.mode == mode
    weight = alpha[:, :, None] / 255
    expected = color * weight + 255 * (1 - weight)
    for source in (image, encode(image, "PNG")):
        assert np.abs(pixels(source) - expected).max() <= 1
    assert pixels(image)[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(pixels(image)[alpha == 255], color[alpha == 255])


def test_what_white_would_hide_lies_on_black():
    rgba = np.zeros((6, 8, 4), np.uint8)
    rgba[..., :3] = 250
    rgba[2:4, 2:6, 3] = 255
    on_black = pixels(encode(Image.fromarray(rgba), "PNG"))
    assert (on_black[2:4, 2:6] == 250).all() and on_black.sum() == 250 * 8 * 3
    rgba[2:4, 4:6, :3] = 20  # half of it can be seen on white alone, half on black alone
    on_white = pixels(encode(Image.fromarray(rgba), "PNG"))
    assert (on_white[0] == 128).all(), "all of it on gray"
    rgba[2:4, 2:6, :3] = 200
    on_white = pixels(encode(Image.fromarray(rgba), "PNG"))
    assert (on_white[0] == 255).all() and (on_white[3, 5] == 200).all()
    rgba[..., 3] = 0  # nothing there
    assert (pixels(encode(Image.fromarray(rgba), "PNG")) == 255).all()


def test_palette_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(encode(image, "PNG")).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    for image_format in ("PNG", "GIF"):
        data = encode(image, image_format, transparency=0)
        assert pixels(data).tolist() == [[[255, 255, 255], [200, 100, 50]]]


def test_color_key_transparency(rgb):
    rgb[0, 0] = (1, 2, 3)
    got = pixels(encode(Image.fromarray(rgb), "PNG", transparency=(1, 2, 3)))
    assert got[0, 0].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(got[1:], rgb[1:])


def test_sixteen_bit_float_and_integer_gray():
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    expected = [0, 0, 1, 128, 255]
    for source in (Image.fromarray(values), encode(Image.fromarray(values), "PNG"), values):
        assert pixels(source)[0, :, 1].tolist() == expected
    assert pixels(Image.fromarray(values.astype(np.int32)))[0, :, 0].tolist() == expected
    assert pixels(Image.fromarray(np.array([[0, 128, 255]], dtype=np.int32)))[0, :, 0].tolist() == [0, 128, 255]
    unit = np.array([[0.0, 0.5, 1.0]], dtype=np.float32)
    for source in (Image.fromarray(unit), unit, unit.astype(np.float64)):
        assert pixels(source)[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(Image.fromarray(unit * 255))[0, :, 0].tolist() == [0, 128, 255]
    wide = np.array([[-200.0, -120.0, 200.0]], dtype=np.float32)  # of no known range: stretched
    assert pixels(Image.fromarray(wide))[0, :, 0].tolist() == [0, 51, 255]
    assert pixels(np.dstack([unit] * 3))[0, 1].tolist() == [128, 128, 128]


def test_cmyk():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert pixels(image)[0, 0].tolist() == [255, 0, 0]
    red = pixels(encode(image, "JPEG"))[4, 4].astype(int)
    assert np.abs(red - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(rgb, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: rgb,
        2: rgb[:, ::-1],
        3: rgb[::-1, ::-1],
        4: rgb[::-1],
        5: rgb.transpose(1, 0, 2),
        6: np.rot90(rgb, -1),
        7: rgb[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(rgb, 1),
    }
    got = open_image(encode(Image.fromarray(rgb), "PNG", exif=exif))
    np.testing.assert_array_equal(np.asarray(got), upright[orientation])
    np.testing.assert_array_equal(pixels(got), upright[orientation])  # not applied twice


@pytest.mark.parametrize("image_format", ["GIF", "WEBP"])
def test_animations_give_the_first_frame(image_format):
    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50, **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert (pixels(data) == [255, 0, 0]).all()


@pytest.mark.parametrize("image_format", ["GIF", "WEBP"])
def test_an_animation_that_begins_empty_gives_the_first_frame_that_shows_something(image_format):
    empty = Image.new("RGB", (20, 10), "white")
    marked = empty.copy()
    marked.paste("black", (5, 3, 9, 7))
    options = {"lossless": True} if image_format == "WEBP" else {}

    def animation(*frames: Image.Image) -> bytes:
        return encode(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50, **options)

    later = animation(empty, Image.new("RGB", (20, 10), "red"), marked, Image.new("RGB", (20, 10), "blue"))
    assert (pixels(later) == np.asarray(marked)).all()
    assert (pixels(animation(marked, empty)) == np.asarray(marked)).all()
    assert (pixels(animation(empty, Image.new("RGB", (20, 10), "red"))) == 255).all()  # all empty: the first one
    assert (pixels(encode(empty, image_format, **options)) == 255).all()


def test_the_source_is_not_changed_nor_shared(rgb):
    image = Image.fromarray(rgb)
    result = open_image(image)
    result.putpixel((0, 0), (9, 9, 9))
    np.testing.assert_array_equal(np.asarray(image), rgb)


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds a single byte of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [6400, 12000, 60000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_huge_pictures_are_refused_by_their_header(side):
    assert side * side > MAX_PIXELS
    with pytest.raises(UserError, match=r"bomb\.png has more than 40 million pixels"):
        open_image(png_header(side, side), "bomb.png")


def test_a_header_alone_is_judged_as_the_whole_picture_is(rgb):
    for image_format in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        check_header(encode(Image.fromarray(rgb), image_format))
    png, bmp = (encode(Image.fromarray(rgb), image_format) for image_format in ("PNG", "BMP"))
    check_header(png[:-30])  # what is behind the header is not looked at
    header = b"IHDR" + struct.pack(">II", 8000, 5001) + png[24:29]
    large_png = png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]
    no_pixels = png[:16] + struct.pack(">II", 0, 12) + png[24:]
    large_bmp = bmp[:18] + struct.pack("<ii", 8000, 5001) + bmp[26:]
    for data in (b"", b"no picture", png[:8], png[:20], bmp[:10], large_png, large_bmp):
        with pytest.raises(UserError) as whole:
            open_image(data)
        with pytest.raises(UserError) as header:
            check_header(data)
        assert type(header.value) is type(whole.value) and str(header.value) == str(whole.value)
    with pytest.raises(UserError, match="has no pixels"):  # Pillow says that this is no picture
        check_header(no_pixels)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
def test_memory_is_bounded_for_a_bomb(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(13000, 13000))  # 507 MB, were it decoded
    code = (
        "import re, sys, warnings; warnings.simplefilter('ignore')\n"
        "from captcha_reader.images import open_image\nfrom captcha_reader.errors import UserError\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = peak()\n"
        "try: open_image(sys.argv[1])\nexcept UserError: pass\nelse: raise SystemExit('not refused')\n"
        "print(peak() - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "bomb.png")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 50_000  # kB


def broken_pictures(rgb: np.ndarray) -> dict[str, bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    whole = {f: encode(Image.fromarray(noise), f) for f in ("PNG", "JPEG", "BMP", "GIF", "WEBP")}
    cut = {f"cut.{f}": data[: len(data) // 2] for f, data in whole.items()}
    damaged = bytearray(whole["PNG"])
    damaged[len(damaged) // 2] ^= 0xFF
    return cut | {"damaged.PNG": bytes(damaged), "text.txt": b"hello", "empty.png": b"", "page.svg": b"<svg/>"}


def test_broken_pictures_are_named(rgb, tmp_path):
    for name, data in broken_pictures(rgb).items():
        with pytest.raises(UserError, match=f"^sample {name} "):
            open_image(data, f"sample {name}")
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(UserError) as caught:
            open_image(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_what_is_no_picture_at_all(tmp_path):
    for source, words in (
        (tmp_path / "missing.png", "cannot be read"),
        (tmp_path, "cannot be read"),
        (Image.new("RGB", (0, 5)), "no pixels"),
        (np.zeros((0, 5), np.uint8), "no pixels"),
        (np.zeros((5, 5, 2), np.uint8), "shape"),
        (np.zeros(5, np.uint8), "shape"),
        (np.full((5, 5), np.nan), "values from"),
        (np.full((5, 5), -1.0), "values from"),
        (np.full((5, 5), "a"), "values"),
        (None, "NoneType"),
    ):
        with pytest.raises(UserError, match=words):
            open_image(source, "" if isinstance(source, Path) else "sample 7")


def test_palette_whose_colors_have_alpha_lies_on_white():
    """`quantize` of a transparent picture keeps its alpha in the palette, with no word of it in `info`."""
    clear = Image.new("RGBA", (6, 4), (0, 0, 0, 0)).quantize()
    assert clear.mode == "P"
    assert np.asarray(open_image(clear)).min() == 255


# ------------------------------------------------------------------------------------------ what would come out empty

SIZE = (160, 60)
LETTERS = [(20, 15, 40, 45), (60, 15, 80, 45), (100, 15, 120, 45)]  # bars in place of letters


def letters_on(ground, color, mode: str = "RGB") -> Image.Image:
    image = Image.new(mode, SIZE, ground)
    for box in LETTERS:
        image.paste(color, box)
    return image


def contrast(source) -> int:
    """The least difference between the middle of a letter and the ground beside it."""
    shown = pixels(source).astype(int)
    return min(
        int(np.abs(shown[(top + bottom) // 2, (left + right) // 2] - shown[bottom + 5, left]).max())
        for left, top, right, bottom in LETTERS
    )


def with_extra(image: Image.Image, extra: str, color) -> Image.Image:
    width, height = image.size
    boxes = {
        "nothing": [],
        "a pixel": [(2, 2, 3, 3)],
        "a line": [(0, 5, width, 7)],
        "a frame": [(0, 0, width, 2), (0, height - 2, width, height), (0, 0, 2, height), (width - 2, 0, width, height)],
    }
    for box in boxes[extra]:
        image.paste(color, box)
    return image


@pytest.mark.parametrize("extra", ["nothing", "a pixel", "a line", "a frame"])
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "TIFF", "GIF", "palette"])
def test_light_letters_on_a_transparent_ground_are_seen(extra, image_format):
    image = with_extra(letters_on((0, 0, 0, 0), (255, 255, 250, 255), "RGBA"), extra, (10, 0, 0, 255))
    if image_format == "palette":
        source = encode(image.quantize(8), "PNG")
    else:
        source = encode(image, image_format, **({"lossless": True} if image_format == "WEBP" else {}))
    assert contrast(source) >= 100
    dark = with_extra(letters_on((255, 255, 255, 0), (10, 20, 0, 255), "RGBA"), extra, (250, 255, 255, 255))
    assert contrast(dark) >= 100


@pytest.mark.parametrize("light", [True, False])
def test_sixteen_bit_gray_with_a_transparent_shade(light):
    ground, ink = (0, 65_000) if light else (65_000, 400)
    values = np.full(SIZE[::-1], ground, np.uint16)
    for left, top, right, bottom in LETTERS:
        values[top:bottom, left:right] = ink
    data = encode(Image.fromarray(values), "PNG")
    chunk = struct.pack(">I", 2) + b"tRNS" + struct.pack(">H", ground)
    data = data[:33] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + data[33:]
    assert contrast(data) >= 100


ALPHAS = {
    "zero throughout": np.zeros,
    "one of 255": np.ones,
    "a single pixel": lambda size: np.pad([[255]], ((0, size[0] - 1), (0, size[1] - 1))),
    "a single line": lambda size: np.pad(np.full((1, size[1]), 255), ((0, size[0] - 1), (0, 0))),
    "half throughout": lambda size: np.full(size, 128),
    "next to nothing": lambda size: np.random.default_rng(0).integers(0, 12, size),
}


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_that_hides_the_picture_is_left_out(alpha, mode):
    image = letters_on((230, 240, 235), (40, 20, 90)).convert(mode[:-1] if mode == "LA" else "RGB").convert(mode)
    image.putalpha(Image.fromarray(ALPHAS[alpha](SIZE[::-1]).astype(np.uint8)))
    for source in (
        image,
        encode(image, "PNG"),
        encode(image, "WEBP", lossless=True, exact=True),
        encode(image, "TIFF"),
    ):
        assert contrast(source) >= 100


def test_letters_that_are_in_the_alpha_alone():
    image = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    for strong in (255, 1):
        for box in LETTERS:
            image.paste((0, 0, 0, strong), box)
        assert contrast(encode(image, "PNG")) >= 100


def animation_of(image_format: str, *frames: Image.Image) -> bytes:
    options = {"WEBP": {"lossless": True}, "WEBP, lossy": {"quality": 50}, "TIFF": {"compression": "raw"}}
    kind = image_format.split(",")[0]
    timing = {} if kind == "TIFF" else {"duration": 50}
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], **timing, **options.get(image_format, {}))


@pytest.mark.parametrize("image_format", ["GIF", "WEBP", "WEBP, lossy", "PNG", "TIFF"])
@pytest.mark.parametrize("blank", ["white", "black", "nearly", "transparent"])
def test_every_format_with_frames_gives_the_first_that_shows_something(image_format, blank):
    first = Image.new("RGB", SIZE, "white" if blank in ("white", "nearly") else "black")
    if blank == "nearly":
        first = Image.fromarray(np.random.default_rng(0).integers(240, 256, (*SIZE[::-1], 3), dtype=np.uint8))
    shown = letters_on("white", "black")
    if blank == "transparent":
        first, shown = Image.new("RGBA", SIZE, (255, 0, 0, 0)), shown.convert("RGBA")
    data = animation_of(image_format, first, first, shown)
    assert Image.open(io.BytesIO(data)).n_frames in (2, 3), "equal frames may be joined"
    assert contrast(data) >= 100
    only_blank = pixels(animation_of(image_format, first, first))
    assert only_blank.std(axis=(0, 1)).max() < 10


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_marker_can_be_read(progressive):
    noise = np.random.default_rng(0).integers(0, 256, (60, 160, 3), dtype=np.uint8)
    for image in (letters_on("white", "black"), Image.fromarray(noise)):
        data = encode(image, "JPEG", progressive=progressive)
        assert data.endswith(b"\xff\xd9")
        expected = pixels(data)
        for left in (1, 2):
            np.testing.assert_array_equal(pixels(data[:-left]), expected)
        for left in (5, 30, 100, len(data) // 2):
            with pytest.raises(UserError, match="is broken or cut short"):
                open_image(data[:-left])


def test_a_file_beyond_all_measure_is_not_read(rgb, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 100)
    Image.fromarray(rgb).save(tmp_path / "large.bmp")
    with pytest.raises(UserError, match=r"large\.bmp has more than 0 MB: scale it down or remove it"):
        open_image(tmp_path / "large.bmp")


def test_large_pictures_with_alpha_lie_on_the_ground_that_small_ones_do():
    """Of a large picture only some pixels are looked at."""
    for color, ground in ((255, 0), (0, 255)):
        small = Image.new("RGBA", (60, 30), (0, 0, 0, 0))
        small.paste((color,) * 3 + (255,), (10, 5, 40, 25))
        large = small.resize((1800, 900), Image.Resampling.NEAREST)
        assert module._sample(large).shape[0] < 1800 * 900
        for picture in (small, large):
            seen = open_image(picture)
            assert seen.getpixel((0, 0)) == (ground,) * 3
            assert seen.getpixel((picture.width // 3, picture.height // 2)) == (color,) * 3


def test_frames_that_cannot_be_found_are_a_broken_picture(monkeypatch):
    frames = [Image.new("L", (20, 20), 255), Image.new("L", (20, 20), 254)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "TIFF", save_all=True, append_images=frames[1:])

    def seek(self, number):
        raise ValueError("the directory is damaged")

    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.seek", seek)
    with pytest.raises(UserError, match=r"a\.tif") as error:
        open_image(buffer.getvalue(), "a.tif")
    assert "\n" not in str(error.value)
