"""The one place where any picture - file, bytes, array, PIL image - becomes the RGB image that every script sees.

Dataset checks, training, prediction and the demo all come through `open_image`, so that a transparent, rotated, 16-bit
or palette picture looks the same to each of them.
"""

from __future__ import annotations

import io
import math
import os
import struct
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import Image, ImageOps

from captcha_reader.errors import UserError
from captcha_reader.image_files import OversizedFileError, check_cost, frame_sizes, without_end

ImageLike = Image.Image | str | Path | bytes | np.ndarray
"""What `open_image` reads: a picture, the path or the bytes of its file, an array (H, W), (H, W, 3) or (H, W, 4)."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
"""File name endings, in lower case, by which folders are searched for pictures."""
OTHER_SUFFIXES = frozenset({".avif", ".heic", ".heif", ".ico", ".jp2", ".jxl", ".pgm", ".ppm", ".psd", ".svg", ".tga"})
"""Those of pictures that are not read; where one is met, its user is told."""
OTHER_FORMAT = "picture of a format that is not read"

MAX_PIXELS = 40_000_000
"""Larger pictures are refused before they are decoded; at 3 bytes a pixel, one takes at most 120 MB."""

MAX_FILE_BYTES = 500_000_000
"""Larger files are refused before they are read."""

VISIBLE = 31
"""By so much, of 0 to 255, a channel must differ from the ground to be seen."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")  # none that runs another program, as EPS does
SIGNATURES = (b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_FRAMES = 30  # are looked at for one that is not empty, as far as MAX_PIXELS in all allow
SAMPLED_PIXELS = 1_000_000  # of a picture are enough to judge what can be seen
STRUCTURE = 64  # by so much a hidden picture must differ from its own ground to be one
EXIF_ORIENTATION = 0x0112
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"  # width and height follow, 4 bytes each


class NotAPictureError(UserError):
    """The file is of no kind that is read."""


class TooManyPixelsError(UserError):
    """The picture is larger than what is read."""


def open_image(source: ImageLike, name: str = "", max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Turn any picture into an RGB image that looks as a browser would show it.

    Transparency is laid on the ground, white, black or gray, on which most of the picture can be seen; an alpha channel
    that hides the picture is left out. The EXIF orientation is applied, an animation gives its first frame that is not
    empty. Of 16-bit gray the high byte is kept, as Pillow does for 16-bit color. Float and 32-bit gray is taken as 0..1
    (float only), 0..255 or 0..65535, whichever is the smallest range that holds it, and stretched to 0..255 where none
    does.

    Args:
        source: a PIL image of any mode, the path of a file, the bytes of a file, or an array of shape (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4), RGB order, with values bool, uint8, uint16, integer in 0..255, or float
            in 0..1 or 0..255.
        name: what to call the picture in error messages; a path names itself.
        max_pixels: of any frame, and of all that are decoded.

    Returns:
        A new image of mode RGB, at least 1x1 pixels and at most `max_pixels`. `source` is not changed.

    Raises:
        NotAPictureError: it is of no kind that is read.
        TooManyPixelsError: it is larger than `max_pixels`.
        UserError: it is broken or cut short, or has no pixels. The two above are UserErrors too.
    """
    try:
        return _open_any(source, name, max_pixels)
    except UserError as error:
        problem = error
    # An error keeps all frames that it came through, and the pictures in them, for as long as somebody keeps it.
    del source
    problem.__traceback__ = problem.__context__ = problem.__cause__ = None
    try:
        raise problem
    finally:
        del problem


def _open_any(source: ImageLike, name: str, max_pixels: int) -> Image.Image:
    if isinstance(source, Image.Image):
        _check_size(*source.size, name or "the picture", max_pixels)
        return _to_rgb(source, name or "the picture")
    if isinstance(source, np.ndarray):
        return _from_array(source, name or "the array", max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source), name or "the picture", max_pixels)
    if not isinstance(source, (str, Path)):
        raise UserError(f"{name or 'the picture'} is a {type(source).__name__}: give a path, bytes, array or PIL image")
    name = name or str(source)
    try:
        with Path(source).open("rb") as file:
            start = file.read(64)  # not read whole yet: a 10 GB file that is no picture costs nothing
            if start and not start.startswith(SIGNATURES):
                raise _no_picture(name)
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise UserError(f"{name} has more than {MAX_FILE_BYTES // 1_000_000} MB: scale it down or remove it")
            data = start + file.read(MAX_FILE_BYTES)
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror or error}): check the path") from None
    return _from_bytes(data, name, max_pixels)


def check_header(data: bytes, name: str = "the picture") -> None:
    """Look at the signature and the size of a picture file without decoding it, so broken pixels pass.

    Raises:
        UserError: what `open_image` raises for a file that is empty, no picture, without pixels or too large.
    """
    if data.startswith(PNG_START) and len(data) >= len(PNG_START) + 8:  # the usual case, in 1 us instead of Pillow's 30
        width, height = struct.unpack_from(">II", data, len(PNG_START))
        _check_size(width, height, name)
        return
    if not data:
        raise _empty(name)
    with _open(io.BytesIO(data), name) as image:
        _check_size(*image.size, name)


def _empty(name: str) -> UserError:
    return UserError(f"{name} is empty (0 bytes): replace or remove it")


def _from_bytes(data: bytes, name: str, max_pixels: int) -> Image.Image:
    """The picture in a file's bytes."""
    if not data:
        raise _empty(name)
    try:
        sizes = frame_sizes(data, MOST_FRAMES)
    except OversizedFileError as error:
        raise UserError(f"{name} has {error}: save it anew or remove it") from None
    except (IndexError, struct.error):
        sizes = []  # cut short, which Pillow finds, too
    for size in sizes:
        _check_size(*size, name, max_pixels)
    with _open(io.BytesIO(data), name) as image:
        _check_size(*image.size, name, max_pixels)
        try:
            check_cost(image, data, max_pixels)
        except OversizedFileError as error:
            raise UserError(f"{name} has {error}: save it anew or remove it") from None
        try:
            image.load()
            animated = image.format not in ("JPEG", "MPO") and _is_animated(image)
        except Exception as error:  # each plugin has its own ways to fail on broken pixels
            whole = without_end(data)
            if whole is None:
                raise _broken(name, error) from None
            return _to_rgb(whole, name)
        return _first_visible_frame(image, name, max_pixels) if animated else _to_rgb(image, name)


def _is_animated(image: Image.Image) -> bool:
    """Whether a decoded picture has a second frame; False where that is broken."""
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # each plugin has its own ways to fail
        return False


def _open(file: IO[bytes], name: str) -> Image.Image:
    """Pillow's image of a file, not decoded yet."""
    try:
        return Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own limit lies above ours
        raise _too_large(name, MAX_PIXELS) from None
    except (
        Exception
    ):  # a broken header makes Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        raise _no_picture(name) from None


def _no_picture(name: str) -> NotAPictureError:
    return NotAPictureError(
        f"{name} is not a picture that can be read: replace it by a PNG, JPEG, GIF, BMP, WebP or TIFF file"
    )


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """A new RGB picture of the frame that `image` shows."""
    try:
        image.load()
        # A copy in any case: neither the caller's picture nor the opened file's object may be shared.
        rgb = image.convert("RGB") if _is_plain(image) else _flatten(image)
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        if orientation != 1:
            rgb = _rotate(rgb, orientation)
    except Exception as error:
        raise _broken(name, error) from None
    rgb.info.clear()  # transparency and orientation are dealt with: nobody may apply them a second time
    return rgb


def _first_visible_frame(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """The first frame that shows something; where there is none among those looked at, the one that shows most."""
    best, most = _to_rgb(image, name), -1.0
    left = max_pixels - image.width * image.height
    frame = best
    for number in range(1, MOST_FRAMES + 1):
        pixels = _sample(frame)
        shown = _differs(pixels, VISIBLE)
        if shown >= max(1, len(pixels) / 1000):
            return frame
        if (contrast := shown + float(pixels.std(axis=0).max()) / 1000) > most:
            best, most = frame, contrast
        try:
            if number == MOST_FRAMES or left < image.width * image.height:
                break
            image.seek(number)  # the size may be another now; nothing is decoded yet
        except EOFError:
            break
        except Exception as error:
            raise _broken(name, error) from None
        _check_size(*image.size, name, max_pixels)
        left -= image.width * image.height
        if left < 0:
            break
        frame = _to_rgb(image, name)
    return best


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    """The lowest and the highest level of each band of a picture with several."""
    return cast(list[tuple[int, int]], image.getextrema())


def _is_plain(image: Image.Image) -> bool:
    return image.mode in ("L", "RGB") and "transparency" not in image.info


def _flatten(image: Image.Image) -> Image.Image:
    """RGB of a picture of any mode."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        # Pillow's I;16 modes are uint16, so the range is known; modes I and F hold whatever their maker put there.
        gray = _high_byte(values) if values.dtype.itemsize == 2 else _to_8_bit(values)
        if isinstance(key := image.info.get("transparency"), int):
            alpha = np.where(values == key, np.uint8(0), np.uint8(255))
            return _on_ground(Image.fromarray(np.dstack([gray, alpha])).convert("RGBA"))
        return Image.fromarray(gray).convert("RGB")
    if image.has_transparency_data:  # an alpha channel, a transparent color, or a palette with alpha
        return _on_ground((image.convert("LA") if image.mode == "La" else image).convert("RGBA"))
    return image.convert("RGB")


def _on_ground(rgba: Image.Image) -> Image.Image:
    """RGB of a picture with alpha: on white, unless more of it can be seen on black, on gray, or without the alpha."""
    least, most = _extrema(rgba)[3]
    if least == most > 0:  # it says nothing
        return rgba.convert("RGB")
    pixels = _sample(rgba)
    colors, alpha = pixels[:, :3].astype(np.int16), pixels[:, 3].astype(np.int32)
    differ = {
        "white": 255 - colors.min(axis=1),
        "black": colors.max(axis=1),
        "gray": np.abs(colors - 128).max(axis=1),
    }
    seen = {ground: int((alpha * by >= 255 * VISIBLE).sum()) for ground, by in differ.items()}
    visible = max(seen["white"], seen["black"])
    if visible < 0.05 * len(pixels):
        hidden = _differs(pixels[:, :3], STRUCTURE)
        if hidden > max(2 * visible, 0.002 * len(pixels)):  # the alpha hides the picture
            return rgba.convert("RGB")
        if 0 < most < VISIBLE:  # the picture is in the alpha, and too faint
            rgba = rgba.copy()
            rgba.putalpha(rgba.getchannel("A").point([min(255, value * 255 // most) for value in range(256)]))
            return _on_ground(rgba)
    ground = "black" if seen["black"] > 1.02 * seen["white"] else "white"
    if seen["gray"] > 1.25 * visible:
        ground = "gray"
    canvas = Image.new("RGB", rgba.size, (128, 128, 128) if ground == "gray" else ground)
    canvas.paste(rgba, (0, 0), rgba)
    return canvas


def _sample(image: Image.Image) -> np.ndarray:
    """(N, channels) uint8 pixels of a picture, every so many of a large one."""
    step = math.isqrt(max(0, image.width * image.height - 1) // SAMPLED_PIXELS) + 1
    if step > 1:
        size = max(1, image.width // step), max(1, image.height // step)
        image = image.resize(size, Image.Resampling.NEAREST)
    return np.asarray(image).reshape(image.width * image.height, -1)


def _differs(pixels: np.ndarray, by: int) -> int:
    """How many pixels differ from their median by so much in a channel."""
    median = np.median(pixels, axis=0)
    return int((np.abs(pixels.astype(np.int16) - median) >= by).any(axis=1).sum())


def _rotate(rgb: Image.Image, orientation: int) -> Image.Image:
    """Apply an EXIF orientation, 2 to 8; other numbers are ignored, as browsers do."""
    rgb.getexif()[EXIF_ORIENTATION] = orientation
    return ImageOps.exif_transpose(rgb)


def _from_array(array: np.ndarray, name: str, max_pixels: int) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise UserError(f"{name} has the shape {array.shape}: give (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    _check_size(array.shape[1], array.shape[0], name, max_pixels)
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        array = _high_byte(array)
    elif array.dtype != np.uint8:
        if array.dtype.kind not in "iuf":
            raise UserError(f"{name} holds {array.dtype} values: give uint8, or floats in 0..1")
        low, high = float(array.min()), float(array.max())
        if not 0 <= low <= high <= 255:  # NaN fails this too
            raise UserError(f"{name} has values from {low:g} to {high:g}: give uint8, or floats in 0..1")
        array = _to_8_bit(array)
    return _to_rgb(Image.fromarray(np.ascontiguousarray(array)), name)


def _high_byte(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint16) >> 8).astype(np.uint8)


def _to_8_bit(values: np.ndarray) -> np.ndarray:
    """Bring numbers of unknown range to uint8: 0..1 (floats), 0..255, 0..65535, or else the range they have."""
    is_float = values.dtype.kind == "f"
    values = np.nan_to_num(values.astype(np.float64))
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and is_float:
        values = values * 255
    elif low >= 0 and high <= 255:
        pass
    elif low >= 0 and high <= 65535:
        values = values // 256
    else:
        values = (values - low) * (255 / (high - low)) if high > low else np.full_like(values, 127)
    return np.rint(values).astype(np.uint8)


def _check_size(width: int, height: int, name: str, max_pixels: int = MAX_PIXELS) -> None:
    if width < 1 or height < 1:
        raise UserError(f"{name} has no pixels (it measures {width}x{height}): replace or remove it")
    if width * height > max_pixels:
        raise _too_large(name, max_pixels, f" ({width}x{height})")


def _too_large(name: str, max_pixels: int, size: str = "") -> TooManyPixelsError:
    return TooManyPixelsError(
        f"{name} has more than {max_pixels / 1_000_000:g} million pixels{size}: scale it down or remove it"
    )


def _broken(name: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:100] or type(error).__name__
    return UserError(f"{name} is broken or cut short ({reason}): replace or remove it")
