"""The checkpoints on offer."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT, SAVED_MODELS, quicker
from captcha_reader.images import ImageLike
from captcha_reader.reading import prediction
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.prediction import Prediction
from captcha_reader.web.deadline import TimedBackend
from captcha_reader.web.limits import Limits, Refused

KEPT_MODELS = 3  # in memory at a time
NEEDS_TORCH = "it needs torch, which is not installed (pip install -r requirements.txt)"

log = logging.getLogger("captcha_reader")


class Predictor(prediction.Predictor, Protocol):
    """What the web layer asks of a predictor; it never builds one."""

    backend: Any
    metadata: dict[str, Any]
    alphabet: Any
    codec: Any
    config: Any

    def predict(
        self, images: Sequence[ImageLike], *, constraints: Constraints | Sequence[Constraints | None] | None = None
    ) -> list[Prediction]:
        """Readings of pictures, however many."""

    def attention(self, pixels: np.ndarray) -> np.ndarray | None:
        """Where the network looked, (N, slots, columns) for (N, C, H, W) uint8, or None."""


Load = Callable[[Path, int | None], Predictor]


def has_torch() -> bool:
    """Whether .safetensors models can be used and taught here."""
    try:
        return importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):
        return False


class Models:
    """The checkpoints on offer, each loaded when first used and kept while its file stays the same.

    A name from outside is looked up in the list of what is there; it is never made into a path.

    Args:
        load: makes a predictor of a checkpoint's path and the number of threads.
        folder: its .safetensors and .onnx files, and the best.safetensors and best.onnx of the runs in it, are offered.
        checkpoint: one more, from anywhere, and the first of the list; by default the folder's `reader`, as .onnx
            where that file is there, since it opens without torch, or else its newest.
        threads: CPU threads of a model; all available cores by default.
        seconds: that one forward pass of a model may take.

    Attributes:
        torch: whether .safetensors models can be used; those that cannot are not offered.

    Raises:
        UserError: `checkpoint`, or without one the folder, does not exist, or the folder holds none.
    """

    def __init__(
        self,
        load: Load,
        folder: str | Path = SAVED_MODELS,
        checkpoint: str | Path | None = None,
        threads: int | None = None,
        seconds: float = Limits.reading_seconds,
    ) -> None:
        self.folder, self.threads, self.seconds, self.torch = Path(folder), threads, seconds, has_torch()
        self._load = load
        self.first = Path(checkpoint) if checkpoint is not None else quicker(self.folder / DEFAULT_CHECKPOINT.name)
        if checkpoint is None and not self.first.is_file():
            if not self.folder.is_dir():
                raise UserError(f"there is no folder {self.folder}: check --models")
            newest = max(self._inside().values(), key=lambda path: path.stat().st_mtime, default=None)
            if newest is None:
                raise UserError(
                    f"{self.folder} holds no checkpoint: train one with main.py, or name one by --checkpoint"
                )
            self.first = newest
        if not self.first.is_file():
            raise UserError(f"there is no checkpoint {self.first}: check the name")
        if self.first.suffix == ".safetensors" and not self.torch:
            raise UserError(f"{self.first.name} cannot be used: {NEEDS_TORCH}, or name an .onnx file by --checkpoint")
        self._loaded: OrderedDict[tuple[Path, int, int], Predictor] = OrderedDict()
        self._loading: dict[tuple[Path, int, int], threading.Lock] = {}
        self._lock = threading.Lock()

    def paths(self) -> dict[str, Path]:
        """Name to path, the first being the default; read from the disk at each call."""
        names = self._inside()
        first = next((name for name, p in names.items() if p.resolve() == self.first.resolve()), None)
        if first is None:
            first = self.first.name
            if first in names or first == "best.safetensors":
                first = f"{self.first.resolve().parent.name}/{first}"
            if first in names:
                first = str(self.first)
        return {first: self.first} | names

    def _inside(self) -> dict[str, Path]:
        """Of the folder alone: name to path."""
        root = self.folder.resolve()
        patterns = ["*.onnx", "*/best.onnx"]
        if self.torch:
            patterns += ["*.safetensors", "*/best.safetensors"]
        found = sorted(path for pattern in patterns for path in self.folder.glob(pattern))
        # A link that leads out of the folder is not offered; a hidden folder is one that is being made.
        inside = [p for p in found if p.is_file() and p.resolve().is_relative_to(root)]
        names = {p.relative_to(self.folder).as_posix(): p for p in inside}
        return {name: p for name, p in names.items() if not any(part[0] == "." for part in name.split("/"))}

    def path(self, name: str | None = None) -> tuple[str, Path]:
        """The name, that of the first by default, and the path of a model on offer.

        Raises:
            Refused: there is none of that name.
        """
        paths = self.paths()
        name = next(iter(paths)) if name is None else name
        if name not in paths:
            raise Refused(
                422,
                f"there is no model {name[:80]!r} here: choose one from the list (GET /models), or reload the page",
            )
        return name, paths[name]

    def predictor(self, name: str | None = None) -> Predictor:
        """The model of that name, the first by default.

        Raises:
            UserError: there is none of that name, or it cannot be used.
        """
        name, path = self.path(name)
        try:
            stamp = path.stat()
        except OSError:
            raise Refused(422, f"the model {name} is gone: choose another, or reload the page") from None
        key = (path.resolve(), stamp.st_mtime_ns, stamp.st_size)
        if (kept := self._kept(key)) is not None:
            return kept
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        try:
            with loading:  # two requests at once load a model once, and hold up nobody who asks for another
                kept = self._kept(key)
                return self._keep(key, self._open(name, path)) if kept is None else kept
        finally:
            with self._lock:
                self._loading.pop(key, None)

    def _kept(self, key: tuple[Path, int, int]) -> Predictor | None:
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
            return self._loaded.get(key)

    def _keep(self, key: tuple[Path, int, int], predictor: Predictor) -> Predictor:
        with self._lock:
            self._loaded[key] = predictor
            while len(self._loaded) > KEPT_MODELS:
                self._loaded.popitem(last=False)[1].backend.rest()
        return predictor

    def _open(self, name: str, path: Path) -> Predictor:
        try:
            predictor = self._load(path, self.threads)
        except UserError as error:
            # What it says of a path is for the terminal: a visitor knows the model by its name.
            raise Refused(422, str(error).replace(str(path), name)) from None
        except Exception as error:
            log.exception("the model %s cannot be loaded", path)
            raise Refused(422, f"the model {name} is damaged: choose another") from error
        predictor.backend = TimedBackend(predictor.backend, name, self.seconds)
        return predictor

    @property
    def loaded(self) -> int:
        """How many models are in memory."""
        return len(self._loaded)
