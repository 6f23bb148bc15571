"""The one place where any picture - file, bytes, array, PIL image - becomes the RGB image that every script sees.

Dataset checks, training, prediction and the demo all come through `open_image`, so that a transparent, rotated, 16-bit
or palette picture looks the same to each of them.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import Image, ImageOps

from captcha_reader.errors import UserError

ImageLike = Image.Image | str | Path | bytes | np.ndarray
"""What `open_image` reads: a picture, the path or the bytes of its file, an array (H, W), (H, W, 3) or (H, W, 4)."""

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff"})
"""File name endings, in lower case, by which folders are searched for pictures."""

MAX_PIXELS = 40_000_000
"""Larger pictures are refused before they are decoded; at 3 bytes a pixel, one takes at most 120 MB."""

PALE = 224
"""A transparent picture whose every channel is as bright as this on white, 0 to 255, is laid on black instead."""

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")  # none that runs another program, as EPS does
ANIMATED = ("GIF", "WEBP")
MOST_FRAMES = 30  # are looked at for one that is not empty
EXIF_ORIENTATION = 0x0112
PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"  # width and height follow, 4 bytes each


class NotAPictureError(UserError):
    """The file is of no kind that is read."""


class TooManyPixelsError(UserError):
    """The picture is larger than MAX_PIXELS."""


def open_image(source: Image.Image | str | Path | bytes | np.ndarray, name: str = "") -> Image.Image:
    """Turn any picture into an RGB image that looks as a browser would show it.

    Transparency is laid on white, or on black where all that is there is nearly white. The EXIF orientation is
    applied, an animation gives its first frame that is not empty. Of 16-bit grey the high byte is kept, as Pillow does
    for 16-bit colour. Float and 32-bit grey is taken as 0..1 (float only), 0..255 or 0..65535, whichever is the
    smallest range that holds it, and stretched to 0..255 where none does.

    Args:
        source: a PIL image of any mode, the path of a file, the bytes of a file, or an array of shape (H, W),
            (H, W, 1), (H, W, 3) or (H, W, 4), RGB order, with values bool, uint8, uint16, integer in 0..255, or float
            in 0..1 or 0..255.
        name: what to call the picture in error messages; a path names itself.

    Returns:
        A new image of mode RGB, at least 1x1 pixels and at most MAX_PIXELS. `source` is not changed.

    Raises:
        NotAPictureError: it is of no kind that is read.
        TooManyPixelsError: it is larger than MAX_PIXELS.
        UserError: it is broken or cut short, or has no pixels. The two above are UserErrors too.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source, name or "the picture")
    if isinstance(source, np.ndarray):
        return _from_array(source, name or "the array")
    if isinstance(source, (bytes, bytearray, memoryview)):
        name = name or "the picture"
        if not len(source):
            raise _empty(name)
        return _from_file(io.BytesIO(source), name)
    if not isinstance(source, (str, Path)):
        raise UserError(f"{name or 'the picture'} is a {type(source).__name__}: give a path, bytes, array or PIL image")
    name = name or str(source)
    try:
        with Path(source).open("rb") as file:  # not read whole: a 10 GB file that is no picture costs nothing
            if not file.read(1):
                raise _empty(name)
            file.seek(0)
            return _from_file(file, name)
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror or error}): check the path") from None


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


def _from_file(file: IO[bytes], name: str) -> Image.Image:
    with _open(file, name) as image:
        return _to_rgb(image, name, skip_blank=image.format in ANIMATED)


def _open(file: IO[bytes], name: str) -> Image.Image:
    """Pillow's image of a file, not decoded yet."""
    try:
        return Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own limit lies above ours
        raise _too_large(name) from None
    except (
        Exception
    ):  # a broken header makes Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error, ...
        raise NotAPictureError(
            f"{name} is not a picture that can be read: replace it by a PNG, JPEG, GIF, BMP, WebP or TIFF file"
        ) from None


def _to_rgb(image: Image.Image, name: str, skip_blank: bool = False) -> Image.Image:
    _check_size(*image.size, name)
    try:
        image.load()
        if skip_blank:
            _skip_blank_frames(image)
        # A copy in any case: neither the caller's picture nor the opened file's object may be shared.
        rgb = image.convert("RGB") if _is_plain(image) else _flatten(image)
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        if orientation != 1:
            rgb = _rotate(rgb, orientation)
    except Exception as error:  # each plugin has its own ways to fail on broken pixels
        raise UserError(f"{name} is broken or cut short ({_reason(error)}): replace or remove it") from None
    rgb.info.clear()  # transparency and orientation are dealt with: nobody may apply them a second time
    return rgb


def _skip_blank_frames(image: Image.Image) -> None:
    """Go to the first frame that shows anything, if there is one: animated captchas may begin with an empty one."""
    for frame in range(1, MOST_FRAMES):
        if any(low < high for low, high in _extrema(image.convert("RGBA"))):
            return
        try:
            image.seek(frame)
        except EOFError:
            break
    image.seek(0)


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    """The lowest and the highest level of each band of a picture with several."""
    return cast(list[tuple[int, int]], image.getextrema())


def _is_plain(image: Image.Image) -> bool:
    return image.mode in ("L", "RGB") and "transparency" not in image.info


def _flatten(image: Image.Image) -> Image.Image:
    """RGB of a picture of any mode, on white, or on black where white would hide what is there."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        # Pillow's I;16 modes are uint16, so the range is known; modes I and F hold whatever their maker put there.
        grey = _high_byte(values) if values.dtype.itemsize == 2 else _to_8_bit(values)
        if isinstance(key := image.info.get("transparency"), int):
            grey = np.where(values == key, np.uint8(255), grey)
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:  # an alpha channel, a transparent colour, or a palette with alpha
        if image.mode == "La":
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, "white")
        canvas.paste(rgba, (0, 0), rgba)
        least, most = _extrema(rgba)[3]
        if least < most and min(low for low, _ in _extrema(canvas)) >= PALE:
            canvas = Image.new("RGB", image.size, "black")
            canvas.paste(rgba, (0, 0), rgba)
        return canvas
    return image.convert("RGB")


def _rotate(rgb: Image.Image, orientation: int) -> Image.Image:
    """Apply an EXIF orientation, 2 to 8; other numbers are ignored, as browsers do."""
    rgb.getexif()[EXIF_ORIENTATION] = orientation
    return ImageOps.exif_transpose(rgb)


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise UserError(f"{name} has the shape {array.shape}: give (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    _check_size(array.shape[1], array.shape[0], name)
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


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise UserError(f"{name} has no pixels (it measures {width}x{height}): replace or remove it")
    if width * height > MAX_PIXELS:
        raise _too_large(name, f" ({width}x{height})")


def _too_large(name: str, size: str = "") -> TooManyPixelsError:
    return TooManyPixelsError(
        f"{name} has more than {MAX_PIXELS // 1_000_000} million pixels{size}: scale it down or remove it"
    )


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
