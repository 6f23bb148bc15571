"""From a picture to the network's input: the one preprocessing of the project.

Training, evaluation, prediction, export and the demo all call `build_transform`, so a picture gives the same array
everywhere. It needs no torch: serving with ONNX starts without it.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from captcha_reader.config import WIDTH_STEP, ModelConfig

Resizer = Callable[[np.ndarray, tuple[int, int]], np.ndarray]


# --------------------------------------------------------------------------------------------------------------------
# The transform


def border_color(pixels: np.ndarray) -> tuple[int, ...]:
    """Median color of the border of a picture (H, W, C): what padding and warps fill in, so that no edge appears."""
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
    """Resize (H, W, C) into `size` (height, width) with its shape kept; the rest is filled with the border's color."""
    inner_height, inner_width, top, left = _padding(pixels.shape[0], pixels.shape[1], size)
    inner = _resize(pixels, inner_height, inner_width)
    if (inner_height, inner_width) == size:
        return inner
    canvas = np.empty((*size, pixels.shape[2]), dtype=np.uint8)
    canvas[:] = border_color(pixels)
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
        canvas[:] = border_color(pixels)
        canvas[top : top + height, left : left + width] = pixels
        return _resize(canvas, *self.size)


def pad_to_square(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`SquarePadAndResize` as a function."""
    return SquarePadAndResize(size)(pixels)


EDGE = 20  # brightness levels between neighbors; JPEG's traces and faint grain stay below
SAMPLED = 64  # rows, and twice as many columns, at most, by which the tones of a picture are judged
RARE = 0.004  # part of these samples that may be cut off at each end of the scale
STRONGEST = 8.0  # times the contrast that a faint picture is given: with more, its noise would be all there is
FRAME = 0.2  # part of each side that a frame may take
BEYOND = 0.05  # part of the height by which a margin may lie outside of the picture


def normalize(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, C) uint8 as dark letters on a light ground, at full contrast and without its frame.

    All channels are changed alike, so that colors that differ go on doing so. Light letters on dark are inverted: the
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
    """The same picture, with the lines along its sides that are of one color, and not the ground's, painted over."""
    height, width, _ = pixels.shape
    top, bottom = (_frame_lines(lines) for lines in (pixels, pixels[::-1]))
    inner = pixels[top : height - bottom].transpose(1, 0, 2)
    left, right = (_frame_lines(lines) for lines in (inner, inner[::-1]))
    if not top + bottom + left + right:
        return pixels
    inner = pixels[top : height - bottom, left : width - right]
    return cv2.copyMakeBorder(inner, top, bottom, left, right, cv2.BORDER_REPLICATE).reshape(pixels.shape)


def _frame_lines(lines: np.ndarray) -> int:
    """How many of the first lines (H, W, C) are a frame: of one color, and what follows is of another."""
    count, length, channels = lines.shape
    few = lines[: int(FRAME * count) + 1, :: -(-length // SAMPLED)].astype(np.int16)
    color = _median(few[0])
    off = np.abs(few - color) > EDGE
    changed = np.logical_or.reduce([off[..., c] for c in range(channels)]).mean(axis=1)  # share of a line's pixels
    width = int((changed > 0.5).argmax())
    if not width or changed[:width].max() > 0.1:
        return 0
    middle = lines[count // 4 : count - count // 4 : 2, :: -(-length // SAMPLED)].reshape(-1, channels)
    inner, ground = _median(few[width]), _median(middle)
    return width if np.abs(inner - ground).max() < np.abs(color - ground).max() else 0


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
    """(H, W, C) uint8, 1 where neighbors differ."""
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
        part = cv2.copyMakeBorder(part, *missing, cv2.BORDER_CONSTANT, value=border_color(pixels))
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
    """RGB picture to the network's input, a uint8 array (C, H, W); the network itself normalizes.

    `prepare` (resize) and `augment` are apart so that a dataset can keep the prepared picture.
    """

    def __init__(self, config: ModelConfig, train: bool = False, strength: float = 1.0, lean: float = 0.1) -> None:
        self.size = config.image_size
        self.channels = config.channels
        self.resize = config.resize
        self.strength = strength if train else 0.0
        self.lean = lean
        self.natural = self.resize == "natural"
        self.normalize = config.normalize
        self.soften = 0.0 if self.strength else config.soften
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

    def changed(
        self, view: View, pixels: np.ndarray, wide: float = 1.0, margin: float = 0.0, sharp: bool = False
    ) -> View:
        """Another form of a picture, cut to its contents; for a `resize` that is in `CUT` alone.

        Args:
            view: of the picture.
            pixels: (H, W, C) uint8, the form of its copy. The new view's box is taken as if it were the copy with some
                more pixels all around.
            wide: so many times as wide as its shape asks for, where that decides the width of the input.
            margin: more of it around the contents, in heights of these.
            sharp: not softened.
        """
        left, top, right, bottom = content_box(pixels, self.normalize)
        more = round(margin * (bottom - top))
        cut = left - more, top - more, right + more, bottom + more
        beside, above = ((pixels.shape[axis] - view.copy.shape[axis]) / 2 for axis in (1, 0))
        down, across = view.scale
        box = tuple(
            (edge - beyond) * scale
            for edge, beyond, scale in zip(cut, (beside, above) * 2, (across, down) * 2, strict=True)
        )
        seen = _cut(pixels, cut, self.size, self.natural, wide)
        return View(self.finish(seen, sharp), box, view.copy, view.scale)

    def fit(self, pixels: np.ndarray) -> np.ndarray:
        """Resize pixels (H, any width, C), of the input's height, to a width that the network takes."""
        height, width = pixels.shape[:2]
        return _cut(pixels, (0, 0, width, height), self.size, self.natural)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        pixels = np.asarray(image.convert("L"))[..., None] if self.channels == 1 else np.asarray(image.convert("RGB"))
        pixels = smooth_blocks(pixels)
        return normalize(pixels) if self.normalize else pixels

    def _seen(self, whole: np.ndarray) -> tuple[np.ndarray, tuple[float, float, float, float]]:
        """A picture's pixels (H, W, C) resized, and what part of it they show."""
        box = seen_box(whole, self.resize, self.size, self.normalize)
        if self.resize in CUT:
            return _cut(whole, box, self.size, self.natural), box  # type: ignore[arg-type]
        return RESIZERS[self.resize](whole, self.size), box

    def augment(self, pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A small affine warp, other colors, brightness, contrast, now and then blur or noise; (H, W, C) uint8.

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
        center = np.array([width / 2, height / 2])
        offset = center - linear @ center + (shift_x, shift_y)
        warped = cv2.warpAffine(
            pixels, np.column_stack([linear, offset]), (width, height), borderValue=border_color(pixels)
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

    def finish(self, pixels: np.ndarray, sharp: bool = False) -> np.ndarray:
        """(H, W, C) to (C, H, W), contiguous; softened unless it is `sharp`, or augmented, which softens by itself."""
        if self.soften and not sharp:
            pixels = cv2.GaussianBlur(pixels, (0, 0), self.soften).reshape(pixels.shape)
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
