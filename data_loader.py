"""From pictures to the network's input: the one transform, the datasets, the batches.

`build_transform` is the only preprocessing of the project. Training, evaluation, prediction, export and the demo all
call it, so a picture gives the same array everywhere. It needs no torch: serving with ONNX starts without it.
"""

from __future__ import annotations

import atexit
import itertools
import math
import mmap
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from captcha_reader.config import ModelConfig
from captcha_reader.errors import FORBIDDEN, FULL, UserError
from captcha_reader.files import COPIES
from captcha_reader.images import open_image
from captcha_reader.text import Codec, infeasible_labels
from captcha_reader.transforms import CaptchaTransform, _resize, _step_width, build_transform, size_at

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "validation", "test")


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
    """Labeled pictures as (C, H, W) uint8 arrays, a map-style torch dataset.

    Args:
        images: encoded pictures, anything with `len()` whose items are bytes.
        texts: their labels.
        transform: from `build_transform`.
        seed: of the augmentation, which depends on (seed, epoch, index) alone: neither the order of access nor the
            number of workers changes it.
        names: what to call a sample in a message.
        pseudo: (N,) bool: which labels nobody typed: these are learned from and never measured on.
    """

    def __init__(
        self,
        images: Sequence[bytes],
        texts: Sequence[str],
        transform: CaptchaTransform,
        seed: int = 0,
        names: Callable[[int], str] = "sample {}".format,
        pseudo: np.ndarray | None = None,
    ) -> None:
        self.images, self.texts, self.transform, self.seed, self.names = images, texts, transform, seed, names
        self.pseudo = np.zeros(len(texts), bool) if pseudo is None else pseudo
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
        images = _Subset(self.images, chosen)
        return CaptchaDataset(images, texts, self.transform, self.seed, names.__getitem__, self.pseudo[chosen])

    def at(self, height: int) -> CaptchaDataset:
        """The same samples for an input of another height."""
        return CaptchaDataset(self.images, self.texts, self.transform.at(height), self.seed, self.names, self.pseudo)

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

    Few labeled pictures are soon known by heart, as whole words. Joined parts have the neighbors that those words
    lack. A joined text is as long as some label, and each part stays at its end, so that a pattern in the labels
    (letters first, digits last) remains where all are of one length.

    Args:
        real: the labeled pictures.
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
        real: the labeled pictures, joined anew or not.
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


class StreamDataset:
    """Fresh captchas, drawn when they are asked for: no pool on disk, and no picture twice.

    Picture `index` of epoch `e` is number `first + e * count + index` of the series, and its augmentation follows the
    seed and that number. So a place in the training says which pictures come next, on any machine, and the number of
    loader processes, which draw ahead of the training, changes nothing.

    Args:
        render: gives picture number i of an endless series as (pixels (h, w, channels) uint8, text); picklable.
        transform: from `build_transform`.
        count: pictures per epoch.
        seed: of the augmentation.
        first: number of the first picture.
    """

    def __init__(
        self,
        render: Callable[[int], tuple[np.ndarray, str]],
        transform: CaptchaTransform,
        count: int,
        seed: int = 0,
        first: int = 0,
    ) -> None:
        self.render, self.transform, self.count, self.seed, self.first = render, transform, count, seed, first

    def __len__(self) -> int:
        return self.count

    def at(self, height: int) -> StreamDataset:
        """The same pictures for an input of another height."""
        return StreamDataset(self.render, self.transform.at(height), self.count, self.seed, self.first)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, str, int]:
        """As `CaptchaDataset`, for (epoch, index)."""
        epoch, index = key
        number = self.first + epoch * self.count + index
        pixels, text = self.render(number)
        rng = np.random.default_rng((self.seed, number))
        return self.transform(open_image(pixels, f"captcha {number} of the stream"), rng), text, index


class TwoHeights:
    """The same pictures prepared for two input heights: in every batch, each second one for the other height.

    Args:
        dataset: with the input of the model, `resize: natural`.
        height: the other one.
        first: epoch from which on there are two; before it all have the model's.
    """

    def __init__(self, dataset: CaptchaDataset | StreamDataset, height: int, first: int = 0) -> None:
        self.datasets, self.transform, self.first = (dataset, dataset.at(height)), dataset.transform, first

    def __len__(self) -> int:
        return len(self.datasets[0])

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> list[tuple[np.ndarray, str, int]]:
        """The samples of a batch, as `CaptchaDataset` has them, for its (epoch, index)."""
        return [self.datasets[key[0] >= self.first and place % 2][key] for place, key in enumerate(keys)]


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
    place = _copies_place(folder)
    try:
        rows = datasets.load_dataset("parquet", data_files={split: files}, split=split, cache_dir=str(place))
    except Exception as error:
        cause: BaseException | None = error  # `datasets` wraps what the system says
        while cause is not None and not (isinstance(cause, OSError) and cause.errno in (*FORBIDDEN, *FULL)):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, OSError):
            raise UserError(
                f"the copy of {folder} that is read from cannot be written to {place} ({cause.strerror}): make room "
                "there, or set TMPDIR to a folder that can be written"
            ) from error
        raise UserError(f"{folder} cannot be read ({error}): make it again with make_dataset.py") from error
    return _Column(rows), list(rows["text"])


def pseudo_rows(folder: str | Path, split: str) -> np.ndarray:
    """Which labels of a split, as `load_split` gives them, nobody typed, (N,) bool; none where it has no rows.

    Raises:
        UserError: a shard cannot be read.
    """
    from captcha_reader.dataset.shards import Shard

    files = sorted(Path(folder).glob(f"{split}-*.parquet"))
    return np.concatenate([np.zeros(0, bool), *(Shard.open(path).pseudo() for path in files)])


def _copies_place(folder: str | Path) -> Path:
    """Where `datasets` keeps the copy that it maps into memory: within the dataset's folder, to be deleted with it.

    A temporary folder, removed at the end of the process, where that cannot be written.
    """
    place = Path(folder) / COPIES
    try:
        place.mkdir(parents=True, exist_ok=True)
        if os.access(place, os.W_OK):
            return place
    except OSError:
        pass
    return _temporary_copies()


@cache
def _temporary_copies() -> Path:
    place = Path(tempfile.mkdtemp(prefix="captcha-data-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def load_data(
    folder: str | Path,
    config: ModelConfig,
    *,
    seed: int = 0,
    augment: float = 1.0,
    lean: float = 0.1,
    limit: int | None = None,
    splits: Sequence[str] = SPLITS,
    loaded: Mapping[str, tuple[Sequence[bytes], list[str]]] | None = None,
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
        loaded: what `load_split` gave for them, where they are open already.

    Returns:
        A dataset per split; a split without pictures has length 0.
    """
    datasets = {}
    for split in splits:
        images, texts = loaded[split] if loaded else load_split(folder, split)
        pseudo = pseudo_rows(folder, split) if split == "train" else np.zeros(len(texts), bool)
        pseudo = pseudo if len(pseudo) else np.zeros(len(texts), bool)  # a stream has no shards
        if split == "train" and limit is not None and limit < len(texts):
            chosen = np.sort(np.random.default_rng(seed).permutation(len(texts))[:limit])
            images, texts, pseudo = _Subset(images, chosen), [texts[i] for i in chosen], pseudo[chosen]
        transform = build_transform(config, train=split == "train", strength=augment, lean=lean)
        names = f"{split} sample {{}} of {str(folder).replace('{', '{{').replace('}', '}}')}".format  # can be pickled
        datasets[split] = CaptchaDataset(images, texts, transform, seed=seed, names=names, pseudo=pseudo)
    return datasets


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
            resized = [_resize(p.transpose(1, 2, 0), height, wide) for p in pixels]
            pixels = [np.ascontiguousarray(p.transpose(2, 0, 1)) for p in resized]  # they are softened already
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
