"""From pictures to the network's input: the one transform, the datasets, the batches.

`build_transform` is the only preprocessing of the project. Training, evaluation, prediction, export and the demo all
call it, so a picture gives the same array everywhere. It needs no torch: serving with ONNX starts without it.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import mmap
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from codec import Codec, infeasible_labels
from common import COPIES, UserError
from config import WIDTH_STEP, ModelConfig
from image_io import open_image

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "validation", "test")

Resizer = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


# --------------------------------------------------------------------------------------------------------------------
# The transform


def border_colour(pixels: np.ndarray) -> tuple[int, ...]:
    """Median colour of the border of a picture (H, W, C): what padding and warps fill in, so that no edge appears."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return tuple(int(v) for v in np.median(border, axis=0))


def _resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    if pixels.shape[:2] == (height, width):
        return pixels
    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    # Area averaging is the only cv2 filter that does not alias when shrinking.
    resized = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized.reshape(height, width, pixels.shape[2])  # cv2 drops a single channel's axis


LEAST_ROWS = 12  # a picture of fewer pixels, enlarged, shows no word


def smooth_blocks(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, C) that was enlarged pixel by pixel, enlarged smoothly instead; any other as it is.

    The stairs of such pixels are no part of any letter.
    """
    height, width, channels = pixels.shape
    for times in range(8, 1, -1):
        if height % times or width % times or min(height, width) < LEAST_ROWS * times:
            continue
        # A row and a column through the middle tell nearly all other pictures apart.
        row, column = (side // times // 2 * times for side in (height, width))
        if (pixels[row] != pixels[row + 1]).any() or (pixels[:, column] != pixels[:, column + 1]).any():
            continue
        small = np.ascontiguousarray(pixels[::times, ::times])
        if np.array_equal(small.repeat(times, axis=0).repeat(times, axis=1), pixels):
            smooth = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
            return smooth.reshape(height, width, channels)
    return pixels


def _padding(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Height and width of a picture once it fits into `size` (height, width), and the rows above and columns left."""
    scale = min(size[0] / height, size[1] / width)
    inner_height = max(1, min(size[0], round(height * scale)))
    inner_width = max(1, min(size[1], round(width * scale)))
    return inner_height, inner_width, (size[0] - inner_height) // 2, (size[1] - inner_width) // 2


def pad_and_resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, C) into `size` (height, width) with its shape kept; the rest is filled with the border's colour."""
    inner_height, inner_width, top, left = _padding(*pixels.shape[:2], size)
    inner = _resize(pixels, inner_height, inner_width)
    if (inner_height, inner_width) == size:
        return inner
    canvas = np.empty((*size, pixels.shape[2]), dtype=np.uint8)
    canvas[:] = border_colour(pixels)
    canvas[top : top + inner_height, left : left + inner_width] = inner
    return canvas


def stretch(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (H, W, C) to `size` (height, width) whatever its shape."""
    return _resize(pixels, *size)


def _square(height: int, width: int) -> tuple[int, int, int]:
    """Side of the square around a picture, and the rows above and columns left of it there."""
    side = max(height, width)
    return side, (side - height) // 2, (side - width) // 2


class SquarePadAndResize:
    """Pad a picture to a square, then resize it: for backbones that were trained on squares.

    It wastes pixels: a captcha of 200x50 shrunk to 100x100 keeps 100x25 of them.

    Args:
        size: side of the square in pixels, or (height, width).
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = (size, size) if isinstance(size, int) else size

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, C) uint8 to (height, width, C) uint8."""
        height, width, channels = pixels.shape
        side, top, left = _square(height, width)
        canvas = np.empty((side, side, channels), dtype=np.uint8)
        canvas[:] = border_colour(pixels)
        canvas[top : top + height, left : left + width] = pixels
        return _resize(canvas, *self.size)


def pad_to_square(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`SquarePadAndResize` as a function."""
    return SquarePadAndResize(size)(pixels)


EDGE = 20  # brightness levels between neighbours; JPEG's traces and faint grain stay below
SAMPLED = 64  # rows, and twice as many columns, at most, by which the tones of a picture are judged
RARE = 0.004  # part of these samples that may be cut off at each end of the scale
STRONGEST = 8.0  # times the contrast that a faint picture is given: with more, its noise would be all there is
FRAME = 0.2  # part of each side that a frame may take
BEYOND = 0.05  # part of the height by which a margin may lie outside of the picture


def normalise(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, C) uint8 as dark letters on a light ground, at full contrast and without its frame.

    All channels are changed alike, so that colours that differ go on doing so. Light letters on dark are inverted: the
    ground is where most pixels are, and letters and lines lie to one side of it.
    """
    pixels = _without_frame(pixels)
    height, width, channels = pixels.shape
    # One row for each channel: NumPy is slow along an axis of three.
    samples = pixels[:: -(-height // SAMPLED), :: -(-width // (2 * SAMPLED))].reshape(-1, channels)
    samples = np.ascontiguousarray(samples.T).astype(np.int16)
    counts = np.array([np.bincount(row, minlength=256) for row in samples]).cumsum(axis=1)
    ground = np.array([np.searchsorted(row, samples.shape[1] / 2) for row in counts], dtype=np.int16)
    total = counts.sum(axis=0)
    low, high = np.searchsorted(total, [RARE * total[-1] + 0.5, (1 - RARE) * total[-1]])
    away = samples - ground[:, None]
    far = np.abs(away).max(axis=0)
    light_letters = away.sum(axis=0)[far >= max(int(far.max()) // 2, 1)].sum() > 0
    gain = min(255 / max(high - low, 1), STRONGEST)
    levels = ((high - _LEVELS) if light_letters else (_LEVELS - low)) * gain
    levels += (255 - (high - low) * gain) / 2  # a gain at its limit: in the middle of the scale
    return cv2.LUT(pixels, np.clip(np.rint(levels), 0, 255).astype(np.uint8)).reshape(pixels.shape)


_LEVELS = np.arange(256)


def _without_frame(pixels: np.ndarray) -> np.ndarray:
    """The same picture, with the lines along its sides that are of one colour, and not the ground's, painted over."""
    height, width, _ = pixels.shape
    top, bottom = (_frame_lines(lines) for lines in (pixels, pixels[::-1]))
    inner = pixels[top : height - bottom].transpose(1, 0, 2)
    left, right = (_frame_lines(lines) for lines in (inner, inner[::-1]))
    if not top + bottom + left + right:
        return pixels
    inner = pixels[top : height - bottom, left : width - right]
    return cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_REPLICATE).reshape(pixels.shape)


def _frame_lines(lines: np.ndarray) -> int:
    """How many of the first lines (H, W, C) are a frame: of one colour, and what follows is of another."""
    count, length, channels = lines.shape
    few = lines[: int(FRAME * count) + 1, :: -(-length // SAMPLED)].astype(np.int16)
    colour = _median(few[0])
    off = np.abs(few - colour) > EDGE
    changed = np.logical_or.reduce([off[..., c] for c in range(channels)]).mean(axis=1)  # share of a line's pixels
    width = int((changed > 0.5).argmax())
    if not width or changed[:width].max() > 0.1:
        return 0
    middle = lines[count // 4 : count - count // 4 : 2, :: -(-length // SAMPLED)].reshape(-1, channels)
    inner, ground = _median(few[width]), _median(middle)
    return width if np.abs(inner - ground).max() < np.abs(colour - ground).max() else 0


def _median(pixels: np.ndarray) -> np.ndarray:
    """Of pixels (N, C) uint8 or int16, for each channel; for few of them in a tenth of the time of NumPy's."""
    return np.sort(pixels, axis=0)[len(pixels) // 2].astype(np.int16)


OUTSIDE = (0.02, 0.01)  # part of the edges that may be cut off on each side, of rows and of columns: specks, ends
LARGEST_SIDE = 1024  # a larger picture is searched for edges in a small copy
THICK = 0.25  # part of the edges that is left of letters where lines and specks of one pixel are wiped out


def content_box(pixels: np.ndarray, beyond: bool = False) -> tuple[int, int, int, int]:
    """Where a picture (H, W, C) has its contents: (left, top, right, bottom) in pixels, right and bottom exclusive.

    The box holds nearly all of the edges and a margin. Above and below, thin lines do not count where letters are
    thicker: they would make the letters small. A picture whose noise or texture has edges everywhere is all contents;
    one without edges, too.

    Args:
        pixels: of the picture.
        beyond: the margin may lie outside of the picture, by up to `BEYOND` of its height.
    """
    height, width, _ = pixels.shape
    shrink = max(1.0, max(height, width) / LARGEST_SIDE)
    small = _resize(pixels, max(1, round(height / shrink)), max(1, round(width / shrink)))
    edges = _edges(small)
    rows, columns = (_along(edges, axis) for axis in (0, 1))
    if rows[-1] == 0:
        return 0, 0, width, height
    thick = _along(_edges(cv2.medianBlur(small, 3).reshape(small.shape)), 0)
    if thick[-1] >= THICK * rows[-1]:
        rows = thick
    ends = []
    for axis, sums in enumerate((rows, columns)):
        first, last = np.searchsorted(sums, [OUTSIDE[axis] * sums[-1] + 0.5, (1 - OUTSIDE[axis]) * sums[-1]])
        ends.append((first * shrink, (last + 1) * shrink))
    (top, bottom), (left, right) = ends
    above = 0.1 * (bottom - top)
    beside = 2 * above
    outside = int(BEYOND * height) if beyond else 0
    return (
        max(-outside, math.floor(left - beside)),
        max(-outside, math.floor(top - above)),
        min(width + outside, math.ceil(right + beside)),
        min(height + outside, math.ceil(bottom + above)),
    )


def _edges(pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) uint8, 1 where neighbours differ."""
    steps = cv2.morphologyEx(pixels, cv2.MORPH_GRADIENT, np.ones((3, 3), dtype=np.uint8))
    return cv2.threshold(steps, EDGE, 1, cv2.THRESH_BINARY)[1].reshape(pixels.shape)


def _along(edges: np.ndarray, axis: int) -> np.ndarray:
    """How many edges (H, W, C) there are up to each row (axis 0) or column (1)."""
    height, width, channels = edges.shape
    flat = edges.reshape(height, width * channels)  # OpenCV adds up one channel faster than three
    sums = cv2.reduce(flat, 1 - axis, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    return (sums if axis == 0 else sums.reshape(width, channels)).sum(axis=1).cumsum()


def crop_and_stretch(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut (H, W, C) to its `content_box`, then resize that to `size` (height, width) whatever its shape.

    Letters that are small in a large empty picture keep their resolution, and letters of all pictures become alike in
    size.
    """
    return _cut(pixels, content_box(pixels), size)


def _cut(
    pixels: np.ndarray, box: tuple[int, int, int, int], size: tuple[int, int], natural: bool = False, wide: float = 1.0
) -> np.ndarray:
    left, top, right, bottom = box
    height, width = pixels.shape[:2]
    part = pixels[max(top, 0) : bottom, max(left, 0) : right]
    missing = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    if any(missing):
        part = cv2.copyMakeBorder(part, *missing, cv2.BORDER_CONSTANT, value=border_colour(pixels))
        part = part.reshape(*part.shape[:2], pixels.shape[2])
    return _resize(part, size[0], natural_width(box, size, wide) if natural else size[1])


WIDEST = 2.5  # times the least width


def natural_width(box: tuple[int, int, int, int], size: tuple[int, int], wide: float = 1.0) -> int:
    """Width of the input for what is in a box: its shape is kept, from the width of `size` (height, width) on.

    It may be `wide` times as wide as its shape. Below that width there would be too few steps for many narrow letters.
    """
    left, top, right, bottom = box
    return _step_width(wide * size[0] * (right - left) / max(1, bottom - top), size)


def _step_width(width: float, size: tuple[int, int]) -> int:
    return min(max(WIDTH_STEP * round(width / WIDTH_STEP), size[1]), _widest(size))


def size_at(height: int, size: tuple[int, int]) -> tuple[int, int]:
    """The input (height, least width) that shows the same as one of `size`, with other pixels."""
    return height, WIDTH_STEP * round(size[1] * height / size[0] / WIDTH_STEP)


def _widest(size: tuple[int, int]) -> int:
    return WIDTH_STEP * int(WIDEST * size[1] / WIDTH_STEP)


def crop_in_shape(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut (H, W, C) to its `content_box`, then resize that to the height of `size` and its `natural_width`.

    Letters far apart stay as wide as they are; stretched to one width, those of a long word lose their strokes.
    """
    return _cut(pixels, content_box(pixels), size, natural=True)


CUT = ("natural", "content")  # ways of resizing that see the contents alone: those of other forms of a picture, too
RESIZERS: dict[str, Resizer] = {
    "natural": crop_in_shape,
    "content": crop_and_stretch,
    "pad": pad_and_resize,
    "stretch": stretch,
    "square": pad_to_square,
}


def seen_box(
    pixels: np.ndarray, resize: str, size: tuple[int, int], beyond: bool = False
) -> tuple[float, float, float, float]:
    """What part of a picture (H, W, C) fills the network's input: the way back of the resizers above.

    Args:
        pixels: of the picture, with the network's channels.
        resize: a key of `RESIZERS`.
        size: (height, width) of the input.
        beyond: see `content_box`.

    Returns:
        (left, top, right, bottom) in pixels of the picture. Where the input is padded, the box reaches beyond it.
    """
    height, width = pixels.shape[:2]
    if resize in CUT:
        return content_box(pixels, beyond)
    if resize == "stretch":
        return 0, 0, width, height
    if resize == "square":
        side, top, left = _square(height, width)
        return -left, -top, side - left, side - top
    inner_height, inner_width, top, left = _padding(height, width, size)
    down, across = height / inner_height, width / inner_width
    return -left * across, -top * down, (size[1] - left) * across, (size[0] - top) * down


@dataclasses.dataclass(frozen=True)
class View:
    """A picture, or a part of it, as the network sees it.

    Attributes:
        pixels: (C, H, W) uint8, the network's input.
        box: (left, top, right, bottom) in pixels of the picture: what fills the input; see `seen_box`.
        copy: (h, w, C) uint8, the picture, made smaller where it is far larger than the input.
        scale: pixels of the picture for each of the copy, (down, across).
    """

    pixels: np.ndarray
    box: tuple[float, float, float, float]
    copy: np.ndarray
    scale: tuple[float, float]


COPY = 4  # `View.copy` has at most so many times the input's height and width


class CaptchaTransform:
    """RGB picture to the network's input, a uint8 array (C, H, W); the network itself normalises.

    `prepare` (resize) and `augment` are apart so that a dataset can keep the prepared picture.
    """

    def __init__(self, config: ModelConfig, train: bool = False, strength: float = 1.0, lean: float = 0.1) -> None:
        self.size = config.image_size
        self.channels = config.channels
        self.resize = config.resize
        self.strength = strength if train else 0.0
        self.lean = lean
        self.natural = self.resize == "natural"
        self.normalise = config.normalise
        self.widest = _widest(self.size) if self.natural else self.size[1]

    def at(self, height: int) -> CaptchaTransform:
        """The same for an input of another height, see `size_at`."""
        other = copy.copy(self)
        other.size = size_at(height, self.size)
        other.widest = _widest(other.size) if self.natural else other.size[1]
        return other

    def prepare(self, image: Image.Image) -> np.ndarray:
        """RGB picture to (H, W, C) uint8; W differs from picture to picture with `resize: natural`."""
        return self._seen(self._pixels(image))[0]

    def view(self, image: Image.Image) -> View:
        """RGB picture to the network's input, with what it takes to look at a part of it more closely."""
        whole = self._pixels(image)
        height, width = whole.shape[:2]
        pixels, box = self._seen(whole)
        shrink = max(1.0, height / (COPY * self.size[0]), width / (COPY * self.size[1]))
        copy = _resize(whole, max(1, round(height / shrink)), max(1, round(width / shrink)))
        return View(self.finish(pixels), box, copy, (height / copy.shape[0], width / copy.shape[1]))

    def changed(self, view: View, pixels: np.ndarray, wide: float = 1.0, margin: float = 0.0) -> View:
        """Another form of a picture, cut to its contents; for a `resize` that is in `CUT` alone.

        Args:
            view: of the picture.
            pixels: (H, W, C) uint8, the form of its copy. The new view's box is taken as if it were the copy with some
                more pixels all around.
            wide: so many times as wide as its shape asks for, where that decides the width of the input.
            margin: more of it around the contents, in heights of these.
        """
        left, top, right, bottom = content_box(pixels, self.normalise)
        more = round(margin * (bottom - top))
        cut = left - more, top - more, right + more, bottom + more
        beside, above = ((pixels.shape[axis] - view.copy.shape[axis]) / 2 for axis in (1, 0))
        down, across = view.scale
        box = tuple(
            (edge - beyond) * scale
            for edge, beyond, scale in zip(cut, (beside, above) * 2, (across, down) * 2, strict=True)
        )
        return View(self.finish(_cut(pixels, cut, self.size, self.natural, wide)), box, view.copy, view.scale)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Resize pixels (H, any width, C), of the input's height, to a width that the network takes."""
        height, width = pixels.shape[:2]
        return _cut(pixels, (0, 0, width, height), self.size, self.natural)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image.convert("L"))[..., None] if self.channels == 1 else np.asarray(image.convert("RGB"))
        pixels = smooth_blocks(pixels)
        return normalise(pixels) if self.normalise else pixels

    def _seen(self, whole: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """A picture's pixels (H, W, C) resized, and what part of it they show."""
        box = seen_box(whole, self.resize, self.size, self.normalise)
        if self.resize in CUT:
            return _cut(whole, box, self.size, self.natural), box  # type: ignore[arg-type]
        return RESIZERS[self.resize](whole, self.size), box

    def augment(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A small affine warp, other colours, brightness, contrast, now and then blur or noise; (H, W, C) uint8.

        Letters stay whole: shifts and zooms are a few percent, so that the label stays true.
        """
        s = self.strength
        height, width, channels = pixels.shape
        draw = rng.uniform(-1.0, 1.0, size=10)
        angle, shear = np.deg2rad(3.0 * s * draw[0]), self.lean * s * draw[1]
        zoom_x, zoom_y = 1 + 0.08 * s * draw[2], 1 + 0.08 * s * draw[3]
        shift_x, shift_y = 0.02 * s * width * draw[4], 0.04 * s * height * draw[5]
        cos, sin = np.cos(angle), np.sin(angle)
        linear = np.array([[zoom_x * cos, -sin + shear], [sin, zoom_y * cos]])
        centre = np.array([width / 2, height / 2])
        offset = centre - linear @ centre + (shift_x, shift_y)
        warped = cv2.warpAffine(
            pixels, np.column_stack([linear, offset]), (width, height), borderValue=border_colour(pixels)
        ).reshape(height, width, channels)
        if abs(draw[6]) < 0.15 * s:
            warped = cv2.GaussianBlur(warped, (3, 3), 0).reshape(height, width, channels)
        if channels == 3 and s and rng.random() < 0.5:
            warped = warped[..., rng.permutation(3)]
        contrast, brightness = 1 + 0.25 * s * draw[7], 25 * s * draw[8]
        values = (warped.astype(np.float32) - 128) * contrast + (128 + brightness)
        if draw[9] > 1 - 0.3 * s:
            values += rng.normal(0, 8 * s, size=values.shape).astype(np.float32)
        return np.clip(values, 0, 255).astype(np.uint8)

    def finish(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, C) to (C, H, W), contiguous."""
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def __call__(self, image: Image.Image, rng: np.random.Generator | None = None) -> np.ndarray:
        """RGB picture to (C, H, W) uint8; augmented where the transform is for training and `rng` is given."""
        pixels = self.prepare(image)
        return self.finish(self.augment(pixels, rng) if self.strength and rng is not None else pixels)


def build_transform(
    config: ModelConfig, train: bool = False, strength: float = 1.0, lean: float = 0.1
) -> CaptchaTransform:
    """The one preprocessing of the project.

    Args:
        config: says the input size, the channels and the way of resizing.
        train: augment (needs a random generator at each call).
        strength: of the augmentation; 0 switches it off.
        lean: by what part of its height a picture leans at most where the strength is 1.
    """
    return CaptchaTransform(config, train, strength, lean)


# --------------------------------------------------------------------------------------------------------------------
# Datasets


def cache_bytes() -> int:
    """How much memory one dataset may use for prepared pictures: a third of what is free."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 3
    except (AttributeError, ValueError):  # not on this system
        return 512 * 2**20


def _shared_zeros(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, uint8, in memory that forked processes share; it is taken page by page, when written."""
    count = math.prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(count, 1)), dtype=np.uint8, count=count).reshape(shape)


class CaptchaDataset:
    """Labelled pictures as (C, H, W) uint8 arrays, a map-style torch dataset.

    Args:
        images: encoded pictures, anything with `len()` whose items are bytes.
        texts: their labels.
        transform: from `build_transform`.
        seed: of the augmentation, which depends on (seed, epoch, index) alone: neither the order of access nor the
            number of workers changes it.
        names: what to call a sample in a message.
    """

    def __init__(
        self,
        images: Sequence[bytes],
        texts: Sequence[str],
        transform: CaptchaTransform,
        seed: int = 0,
        names: Callable[[int], str] = "sample {}".format,
    ) -> None:
        self.images, self.texts, self.transform, self.seed, self.names = images, texts, transform, seed, names
        shape = (len(texts), transform.size[0], transform.widest, transform.channels)
        # Decoding costs more than augmenting: keep the prepared pictures where they fit. Each phase has new loader
        # processes, so what one of them prepares must outlive it.
        self._cache = _shared_zeros(shape) if np.prod(shape, dtype=np.int64) <= cache_bytes() else None
        self._widths = _shared_zeros((2 * len(texts),)).view(np.uint16)  # of the prepared pictures; 0: not yet

    def __getstate__(self) -> dict[str, Any]:
        """Without the prepared pictures: a loader process that is not forked prepares its own."""
        return self.__dict__ | {"_cache": None, "_widths": np.zeros(len(self.texts), dtype=np.uint16)}

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, indices: Sequence[int]) -> CaptchaDataset:
        """Some of the samples, in the order given, as a dataset of its own."""
        chosen = np.asarray(indices, dtype=np.int64)
        texts = [self.texts[i] for i in chosen]
        names = [self.names(int(i)) for i in chosen]
        return CaptchaDataset(_Subset(self.images, chosen), texts, self.transform, self.seed, names.__getitem__)

    def image(self, index: int) -> Image.Image:
        """The picture itself, RGB."""
        return open_image(self.images[index], self.names(index))

    def prepared(self, index: int) -> np.ndarray:
        """One picture cut and resized, not augmented, (H, W, C) uint8."""
        if width := self._widths[index]:
            return self._cache[index, :, :width]  # type: ignore[index]
        pixels = self.transform.prepare(self.image(index))
        if self._cache is not None:
            self._cache[index, :, : pixels.shape[1]] = pixels
            self._widths[index] = pixels.shape[1]
        return pixels

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[np.ndarray, str, int]:
        """(pixels (C, H, W) uint8, label, index) for an index, or for (epoch, index) with that epoch's augmentation."""
        epoch, index = key if isinstance(key, tuple) else (None, key)
        pixels = self.prepared(index)
        if epoch is not None:
            pixels = self.augmented(pixels, epoch, index)
        return self.transform.finish(pixels), self.texts[index], index

    def augmented(self, pixels: np.ndarray, epoch: int, index: int) -> np.ndarray:
        """Prepared pixels (H, W, C) with the augmentation that sample `index` has in that epoch."""
        if not self.transform.strength:
            return pixels
        return self.transform.augment(pixels, np.random.default_rng((self.seed, epoch, index)))


class SplicedDataset:
    """A dataset whose pictures are joined anew: the left part of one, the right part of another, its label likewise.

    Few labelled pictures are soon known by heart, as whole words. Joined parts have the neighbours that those words
    lack. A joined text is as long as some label, and each part stays at its end, so that a pattern in the labels
    (letters first, digits last) remains where all are of one length.

    Args:
        real: the labelled pictures.
        seams: for each picture, where its characters part, as shares of the prepared picture's width: one fewer than
            characters.
        share: probability that a picture is joined.
        codec: of the model.
        steps: of the model; what these cannot write is not joined.
    """

    def __init__(
        self, real: CaptchaDataset, seams: Sequence[Sequence[float]], share: float, codec: Codec, steps: int
    ) -> None:
        self.real, self.seams, self.share, self.codec, self.steps = real, seams, share, codec, steps
        self.texts, self.transform, self.seed = real.texts, real.transform, real.seed

    def __len__(self) -> int:
        return len(self.real)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, str, int]:
        """As `CaptchaDataset`, for (epoch, index); `index` is that of the left part."""
        epoch, index = key
        rng = np.random.default_rng((self.seed, epoch, index, 1))  # another series than the augmentation's
        if rng.random() >= self.share:
            return self.real[key]
        other = int(rng.integers(len(self.real)))
        length = len(self.texts[int(rng.integers(len(self.texts)))])
        first, second = self.texts[index], self.texts[other]
        least, most = max(1, length - len(second) + 1), min(len(first), length) - 1  # characters of the left part
        if least > most:
            return self.real[key]
        count = int(rng.integers(least, most + 1))
        text = first[:count] + second[count - length :]
        if infeasible_labels([text], self.codec, self.steps):
            return self.real[key]
        left, right = self.real.prepared(index), self.real.prepared(other)
        left = left[:, : round(self.seams[index][count - 1] * left.shape[1])]
        right = right[:, round(self.seams[other][count - length] * right.shape[1]) :]
        pixels = self.transform.fit(np.concatenate([left, right], axis=1))
        return self.transform.finish(self.real.augmented(pixels, epoch, index)), text, index


class MixedDataset:
    """A dataset followed by synthetic captchas, new ones in each epoch.

    Args:
        real: the labelled pictures, joined anew or not.
        render: gives (encoded picture, label) number i of an endless series.
        count: synthetic captchas per epoch.
    """

    def __init__(
        self, real: CaptchaDataset | SplicedDataset, render: Callable[[int], tuple[bytes, str]], count: int
    ) -> None:
        self.real, self.render, self.count = real, render, count
        self.transform = real.transform

    def __len__(self) -> int:
        return len(self.real) + self.count

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, str, int]:
        """As `CaptchaDataset`, for (epoch, index)."""
        epoch, index = key
        if index < len(self.real):
            return self.real[key]
        number = epoch * self.count + index - len(self.real)
        encoded, text = self.render(number)
        rng = np.random.default_rng((self.real.seed, epoch, index))
        return self.transform(open_image(encoded, f"synthetic captcha {number}"), rng), text, index


class TwoHeights:
    """The same pictures prepared for two input heights: in every batch, each second one for the other height.

    Args:
        dataset: with the input of the model, `resize: natural`.
        height: the other one.
    """

    def __init__(self, dataset: CaptchaDataset, height: int) -> None:
        transform = dataset.transform.at(height)
        other = CaptchaDataset(dataset.images, dataset.texts, transform, dataset.seed, dataset.names)
        self.datasets, self.transform = (dataset, other), dataset.transform

    def __len__(self) -> int:
        return len(self.datasets[0])

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[tuple[np.ndarray, str, int]]:
        """The samples of a batch, as `CaptchaDataset` has them, for its (epoch, index)."""
        return [self.datasets[place % 2][key] for place, key in enumerate(keys)]


class _Column:
    """Bytes of a parquet image column through `datasets`' memory map: random access without loading the file."""

    def __init__(self, dataset: Any) -> None:
        import pyarrow.compute

        self._bytes = pyarrow.compute.struct_field(dataset.data.column("image"), "bytes")

    def __len__(self) -> int:
        return len(self._bytes)

    def __getitem__(self, index: int) -> bytes:
        return self._bytes[index].as_py()


class _Subset:
    """Items of a sequence at chosen positions."""

    def __init__(self, items: Sequence[Any], chosen: np.ndarray) -> None:
        self._items, self._chosen = items, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Any:
        return self._items[int(self._chosen[index])]


def load_split(folder: str | Path, split: str) -> tuple[Sequence[bytes], list[str]]:
    """Encoded pictures and labels of one split of a dataset folder that make_dataset.py made.

    Returns:
        Memory-mapped pictures, and the labels; both empty where the split has no rows.

    Raises:
        UserError: the folder cannot be read.
    """
    import datasets
    from datasets.utils.logging import disable_progress_bar

    files = sorted(str(path) for path in Path(folder).glob(f"{split}-*.parquet"))
    if not files:
        return [], []
    disable_progress_bar()  # ours shows the work that takes long
    try:
        rows = datasets.load_dataset("parquet", data_files={split: files}, split=split, cache_dir=_beside(folder))
    except Exception as error:
        raise UserError(f"{folder} cannot be read ({error}): make it again with make_dataset.py") from error
    return _Column(rows), list(rows["text"])


def _beside(folder: str | Path) -> str | None:
    """Where `datasets` keeps the copy that it maps into memory: within the dataset's folder, to be deleted with it.

    None, its own place in the home folder, where that cannot be written.
    """
    place = Path(folder) / COPIES
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return str(place) if os.access(place, os.W_OK) else None


def load_data(
    folder: str | Path,
    config: ModelConfig,
    *,
    seed: int = 0,
    augment: float = 1.0,
    lean: float = 0.1,
    limit: int | None = None,
    splits: Sequence[str] = SPLITS,
) -> dict[str, CaptchaDataset]:
    """The splits of a dataset folder, ready for training.

    Args:
        folder: made by make_dataset.py.
        config: of the model that will see the pictures.
        seed: of augmentation and of the choice that `limit` makes.
        augment: strength of the augmentation of the training split.
        lean: how far it makes pictures lean; see `build_transform`.
        limit: keep at most this many training pictures.
        splits: which ones to load.

    Returns:
        A dataset per split; a split without pictures has length 0.
    """
    loaded = {}
    for split in splits:
        images, texts = load_split(folder, split)
        if split == "train" and limit is not None and limit < len(texts):
            chosen = np.sort(np.random.default_rng(seed).permutation(len(texts))[:limit])
            images, texts = _Subset(images, chosen), [texts[i] for i in chosen]
        transform = build_transform(config, train=split == "train", strength=augment, lean=lean)
        names = f"{split} sample {{}} of {str(folder).replace('{', '{{').replace('}', '}}')}".format  # can be pickled
        loaded[split] = CaptchaDataset(images, texts, transform, seed=seed, names=names)
    return loaded


# --------------------------------------------------------------------------------------------------------------------
# Batches


class EpochBatches:
    """Keys (epoch, index) of one epoch's batches: a seeded shuffle that every process and every resumed run repeats.

    Each process takes its share of every global batch, so that the number of processes changes no batch.

    Args:
        size: samples in the dataset.
        batch_size: of the global batch. The last, incomplete batch is dropped, unless it is the only one.
        seed, epoch: of the shuffle.
        start: number of batches to skip, to resume within an epoch.
        rank, world: this process, and how many there are.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int, epoch: int, start: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.batch_size = min(batch_size, size)
        if self.batch_size < world:
            raise UserError(f"a batch of {self.batch_size} cannot be shared by {world} processes: use fewer")
        self.total = size // self.batch_size
        self.size, self.seed, self.epoch, self.start, self.rank, self.world = size, seed, epoch, start, rank, world

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.size)
        for step in range(self.start, self.total):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size][self.rank :: self.world]
            yield [(self.epoch, int(index)) for index in batch]


Part = tuple["torch.Tensor", list[str], list[int]]  # pixels (N, C, H, W) uint8, labels, indices
PARTS = 4  # of a batch of pictures with many widths, each part with one of its own
SPREAD = (-0.1, 0.35)  # the width of a part in training, as the logarithm of how much wider it is made


class Collate:
    """Stack samples into a batch: a list of parts, one where all pictures have the same width.

    With `resize: natural` the pictures are sorted by width, and the pictures of a part resized to its median width. The
    pictures of a part have one height.

    Args:
        transform: that the pictures went through.
        parts: at most, with `resize: natural`; as many in all processes of a training. None: one for each width, where
            every picture stays as it is, whatever else is in the batch.
    """

    def __init__(self, transform: CaptchaTransform, parts: int | None = PARTS) -> None:
        self.transform = transform
        self.parts = parts if transform.natural else 1

    def __call__(self, samples: Sequence[tuple[np.ndarray, str, int]]) -> list[Part]:
        """Pixels (C, H, W), labels and indices to parts."""
        ordered = sorted(samples, key=lambda sample: sample[0].shape[1:])
        if self.parts is None:
            shapes = itertools.groupby(ordered, key=lambda sample: sample[0].shape)
            return [_part([sample[0] for sample in same], same) for same in (list(group) for _, group in shapes)]
        heights = [list(group) for _, group in itertools.groupby(ordered, key=lambda sample: sample[0].shape[1])]
        return [part for group in heights for part in self._split(group, max(1, self.parts // len(heights)))]

    def _split(self, ordered: Sequence[tuple[np.ndarray, str, int]], parts: int) -> list[Part]:
        bounds = np.linspace(0, len(ordered), min(parts, len(ordered)) + 1).round().astype(int)
        return [self._stack(ordered[a:b]) for a, b in itertools.pairwise(bounds)]

    def _stack(self, samples: Sequence[tuple[np.ndarray, str, int]]) -> Part:
        pixels, _, indices = zip(*samples, strict=True)
        if self.transform.natural:
            width = float(np.median([p.shape[2] for p in pixels]))
            if self.transform.strength:
                width *= math.exp(np.random.default_rng(indices).uniform(*SPREAD))
            height = pixels[0].shape[1]
            wide = _step_width(width, size_at(height, self.transform.size))
            pixels = [self.transform.finish(_resize(p.transpose(1, 2, 0), height, wide)) for p in pixels]
        return _part(pixels, samples)


def _part(pixels: Sequence[np.ndarray], samples: Sequence[tuple[np.ndarray, str, int]]) -> Part:
    """Pixels (C, H, W) of one shape, with the labels and indices of the samples."""
    import torch

    return torch.from_numpy(np.stack(pixels)), [text for _, text, _ in samples], [index for _, _, index in samples]


def build_loader(dataset: Any, batches: Any, workers: int = 0, parts: int | None = PARTS) -> Any:
    """A torch DataLoader over `batches` (a batch sampler, or any iterable of key lists); see `Collate`."""
    import torch

    if workers:
        # OpenCV's threads do not live on in a forked process, which would wait for them for ever: end them before.
        cv2.setNumThreads(1)
    # Every iterator draws a seed for its workers. From torch's own generator it would shift the dropout of an epoch
    # that is resumed in its middle, where one more iterator is made.
    generator = torch.Generator()
    return torch.utils.data.DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=Collate(dataset.transform, parts),
        num_workers=workers,
        worker_init_fn=_ignore_signals,
        generator=generator,
    )


def _ignore_signals(worker: int) -> None:
    """A terminal and a job scheduler signal all processes at once: the main one saves its state, with workers alive."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
