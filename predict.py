"""Read captchas from image files.

    python predict.py examples                                     # the shipped weights, a folder of pictures
    python predict.py --checkpoint RUN/best.safetensors a.png --json
    python predict.py --characters 0-9 --length 6 FOLDER           # "it is always six digits"
    python predict.py --same_source --labels sure.parquet FOLDER   # read together; sure readings as labels to train on
    python predict.py --out data/readings data/shards              # parquet in, parquet out

`CaptchaPredictor` is preprocessing, network and decoding in one; the evaluation and the demo use it too, so the
accuracy reported is the accuracy a user gets. With an .onnx file neither this module nor the ones it needs import
torch, which makes for a quick start.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C shows no traceback during the seconds that the imports take
    from captcha_reader.cli import quiet_interrupt

    quiet_interrupt()

import ctypes
import dataclasses
import importlib
import json
import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, overload

import numpy as np

from captcha_reader.checkpoint import check_onnx_session, read_metadata
from captcha_reader.cli import parse_config, run
from captcha_reader.config import ModelConfig, PredictConfig
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT, available_cores, printable, quicker, visible_files
from captcha_reader.images import IMAGE_SUFFIXES, ImageLike, open_image
from captcha_reader.reading.bulk import named, read_shards, shard_folders
from captcha_reader.reading.calibration import Calibration
from captcha_reader.reading.collection import read_together
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.output import write_csv, write_labels
from captcha_reader.reading.prediction import Prediction
from captcha_reader.reading.tta import MAX_VIEWS, TTA_VIEWS, elect, make_view, settled
from captcha_reader.text import Alphabet, Codec, build_codec
from captcha_reader.transforms import CUT, CaptchaTransform, View, build_transform


class CaptchaPredictor:
    """Images in, readings out.

    Args:
        checkpoint: a .safetensors file (torch) or an .onnx file (ONNX Runtime), or the folder of a run; the shipped
            weights by default, from the .onnx file unless a device is named: it starts in a sixth of the time.
        device: a torch device, for .safetensors; a GPU where there is one by default.
        threads: CPU threads; all available cores by default.
        tta_views: views of one picture, at most (1 to `MAX_VIEWS`): see `read`. Fewer are faster where many pictures
            are hard.

    Attributes:
        path: of the checkpoint.
        config: of the model.
        metadata: all that the checkpoint says of itself.

    Raises:
        UserError: the checkpoint is missing or cannot be used, or `tta_views` is out of range.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        threads: int | None = None,
        tta_views: int = MAX_VIEWS,
    ) -> None:
        if not 1 <= tta_views <= MAX_VIEWS:
            raise UserError(f"the number of TTA views is {tta_views}: it must be 1 to {MAX_VIEWS}")
        self.tta_views = tta_views
        self.path = find_checkpoint(checkpoint, device)
        self.threads = available_cores() if threads is None else check_positive(threads, "number of threads")
        backend = OnnxBackend if self.path.suffix == ".onnx" else TorchBackend
        self.backend = backend(self.path, device, self.threads)
        self.metadata: dict[str, Any] = self.backend.metadata
        self.config: ModelConfig = self.backend.config
        self.calibration = Calibration.from_metadata(self.metadata, self.path)
        self.alphabet = Alphabet(self.config.alphabet)
        self.codec = build_codec(self.config.head, self.alphabet)
        self.transform: CaptchaTransform = build_transform(self.config)

    @cached_property
    def other_transform(self) -> CaptchaTransform | None:
        """The transform for the other height of a network that has learned two."""
        return self.transform.at(self.config.other_height) if self.config.other_height else None

    @property
    def suggested_constraints(self) -> Constraints | None:
        """What the labels had in common that the model was fine-tuned on, to offer to the user; often None."""
        return Constraints.from_labels(self.metadata)

    def preprocess_image(self, image: ImageLike, name: str = "") -> np.ndarray:
        """One picture as the network sees it first, uint8 (C, H, W).

        Raises:
            UserError: it cannot be read.
        """
        return preprocess_image(image, self.transform, name)

    def view(self, image: ImageLike, name: str = "") -> View:
        """One picture, ready for `read`.

        Raises:
            UserError: it cannot be read; the message calls it `name`.
        """
        return self.transform.view(open_image(image, name))

    def log_probs(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, C, H, W) uint8 to log-probabilities (N, T, classes) float32.

        Raises:
            UserError: the model gives something else, or NaN.
        """
        log_probs = self.backend.log_probs(pixels)
        if log_probs.ndim != 3 or len(log_probs) != len(pixels) or log_probs.shape[2] != self.alphabet.num_classes:
            raise UserError(f"{self.path} gives {log_probs.shape} for {len(pixels)} pictures: export or train it again")
        if not np.isfinite(log_probs).all():
            raise UserError(f"{self.path} gives values that are no numbers (NaN): export or train it again")
        return log_probs

    def attention(self, pixels: np.ndarray) -> np.ndarray | None:
        """Pixels (N, C, H, W) uint8 to how much each character position attends to each column, (N, L, w).

        None for networks without slots, and for .onnx files, which only give readings.
        """
        return self.backend.attention(pixels)

    @overload
    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        batch_size: int = 64,
        keep_views: bool = False,
        constraints: Constraints | None = None,
        errors: Literal["raise"] = "raise",
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        batch_size: int = 64,
        keep_views: bool = False,
        constraints: Constraints | None = None,
        *,
        errors: Literal["return"],
    ) -> list[Prediction | UserError]: ...

    def predict(
        self,
        images: ImageLike | Iterable[ImageLike],
        batch_size: int = 64,
        keep_views: bool = False,
        constraints: Constraints | None = None,
        errors: Literal["raise", "return"] = "raise",
    ) -> Any:
        """Read pictures, in order; an empty list gives an empty list.

        Args:
            images: PIL images, paths, encoded bytes, or arrays (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). A single one
                gives a list of one reading.
            batch_size: pictures per forward pass.
            keep_views: see `read`.
            constraints: what is known of their texts.
            errors: what happens to a picture that cannot be read: `raise` the error, or `return` it in the place of
                the reading and go on with the others.

        Raises:
            UserError: a picture cannot be read; the message names it by its path or its place in the list. Or the
                constraints cannot be met.
        """
        check_positive(batch_size, "batch size")
        if errors not in ("raise", "return"):
            raise UserError(f"errors cannot be {errors!r}: choose 'raise' or 'return'")
        pictures = _as_list(images)
        found: list[Prediction | UserError] = []
        for start in range(0, len(pictures), batch_size):
            views: list[View] = []
            batch: list[UserError | None] = []
            for i, image in enumerate(pictures[start : start + batch_size], start=start):
                try:
                    views.append(self.view(image, "" if isinstance(image, str | Path) else f"image {i}"))
                    batch.append(None)
                except UserError as error:
                    if errors == "raise":
                        raise
                    batch.append(error.with_traceback(None))
            readings = iter(self.read(views, keep_views, constraints))
            found += [next(readings) if error is None else error for error in batch]
        return found

    def read(
        self,
        views: Sequence[View],
        keep_views: bool = False,
        constraints: Constraints | Sequence[Constraints | None] | None = None,
    ) -> list[Prediction]:
        """Readings of pictures in one forward pass, and of unsure ones again (test-time augmentation, tta.py).

        A network that reads along the width and sees pictures cut to their contents reads other views of a picture of
        which it is not sure, until views that agree have it settled.

        Args:
            views: of pictures; none give an empty list.
            keep_views: keep what the other views gave, for `read_together`; that takes up to eight times the memory.
            constraints: what is known of their texts, of all alike or of each.

        Raises:
            UserError: a constraint names a character that the model cannot write, or a length.
        """
        if not views:
            return []
        codecs = self._codecs(constraints, len(views))
        readings = [[first] for first in self._read(list(views), codecs)]
        varied = self.codec.along_width and self.config.resize in CUT
        for spec in TTA_VIEWS[: self.tta_views - 1] if varied else ():
            transform = self.other_transform if spec.tall and self.other_transform else self.transform
            others = {}
            for i, (view, seen) in enumerate(zip(views, readings, strict=True)):
                if not settled(seen) and (other := make_view(spec, view, transform)) is not None:
                    others[i] = other
            for i, reading in zip(others, self._read(list(others.values()), [codecs[i] for i in others]), strict=True):
                readings[i].append(reading)
        found = []
        for seen in readings:
            chosen = elect(seen)
            others = tuple(reading for reading in seen if reading is not chosen) if keep_views else ()
            confidence = self.calibration.apply(chosen.confidence, len(seen), chosen.codec.limits is not None)
            found.append(dataclasses.replace(chosen, confidence=confidence, other_views=others))
            if keep_views:
                _ = found[-1].candidates  # they take longer than reading: sought here, where progress is seen
        return found

    def _codecs(self, constraints: Constraints | Sequence[Constraints | None] | None, count: int) -> list[Codec]:
        """The codec of each picture."""
        each = [constraints] * count if constraints is None or isinstance(constraints, Constraints) else constraints
        known: dict[Constraints | None, Codec] = {}
        for given in each:
            if given not in known:
                limits = given.limits(self.alphabet) if given else None
                known[given] = self.codec.limited(limits) if limits else self.codec
        return [known[given] for given in each]

    def _read(self, views: list[View], codecs: Sequence[Codec]) -> list[Prediction]:
        """One forward pass for each width."""
        readings: dict[int, Prediction] = {}
        widths = [view.pixels.shape[2] for view in views]
        for width in sorted(set(widths)):
            places = [i for i, w in enumerate(widths) if w == width]
            log_probs = self.log_probs(np.stack([views[i].pixels for i in places]))
            free = (
                None if any(codecs[i].limits for i in places) else self.codec.decode(log_probs)
            )  # all at once: faster
            for place, (i, rows) in enumerate(zip(places, log_probs, strict=True)):
                codec = codecs[i]
                rows = codec.restrict(rows) if codec.limits else rows
                r = free[place] if free else codec.decode(rows[None])[0]
                readings[i] = Prediction(r.text, r.confidence, r.char_confidences, r.spans, rows, codec, views[i].box)
        return [readings[i] for i in range(len(views))]


@dataclasses.dataclass(frozen=True)
class PredictorFactory:
    """Builds a `CaptchaPredictor` with these arguments. Equal ones are equal, in other processes too."""

    checkpoint: str
    device: str | None
    threads: int | None
    tta_views: int

    def __call__(self) -> CaptchaPredictor:
        """Load the weights."""
        return CaptchaPredictor(self.checkpoint, self.device, self.threads, self.tta_views)


def _as_list(images: ImageLike | Iterable[ImageLike]) -> list[ImageLike]:
    """One picture, or several, as a list."""
    if isinstance(images, str | Path | bytes | bytearray | memoryview) or hasattr(images, "convert"):
        return [images]  # type: ignore[list-item]
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    try:
        return list(images)  # type: ignore[arg-type]
    except TypeError:
        raise UserError(
            f"pictures cannot be read from {type(images).__name__}: give a list of paths, bytes, PIL images or arrays"
        ) from None


class TorchBackend:
    """A .safetensors checkpoint on torch."""

    def __init__(self, path: Path, device: str | None, threads: int) -> None:
        import torch

        from model import load_model

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.metadata = read_metadata(path)
        try:
            self.model = load_model(path, self.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"the device {device!r} cannot be used ({error}): try --device cpu") from error
        self.config = self.model.config
        self.threads = threads
        self._process = os.getpid()

    def log_probs(self, pixels: np.ndarray) -> np.ndarray:
        """As `CaptchaPredictor.log_probs`."""
        import torch

        with self._forward():
            return self.model.log_probs(torch.from_numpy(pixels).to(self.device)).cpu().numpy()

    def attention(self, pixels: np.ndarray) -> np.ndarray | None:
        """As `CaptchaPredictor.attention`."""
        import torch

        with self._forward():
            attention = self.model.attention(torch.from_numpy(pixels).to(self.device))
        return None if attention is None else attention.cpu().numpy()

    @contextmanager
    def _forward(self) -> Iterator[None]:
        """A forward pass with this predictor's number of threads: torch has one number for the whole process."""
        import torch

        if os.getpid() != self._process:
            # After a fork: torch's threads live in the parent alone, and to wait for them would last forever.
            if self.device != "cpu":
                raise UserError("a GPU cannot be used in a forked process: build the predictor there, or spawn it")
            self._process, self.threads = os.getpid(), 1
        with _TORCH.lock, torch.inference_mode():
            before = torch.get_num_threads()
            if before != self.threads:
                torch.set_num_threads(self.threads)
            try:
                yield
            finally:
                if before != self.threads:
                    torch.set_num_threads(before)


class _TorchLock:
    """One forward pass at a time, since each sets the threads. After a fork, whoever held it is gone: a new one."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self.lock = threading.Lock()


_TORCH = _TorchLock()


class OnnxBackend:
    """An .onnx file that export_model.py wrote, on ONNX Runtime."""

    opened: ClassVar[weakref.WeakSet[OnnxBackend]] = weakref.WeakSet()

    def __init__(self, path: Path, device: str | None, threads: int) -> None:
        if not path.is_file():
            raise UserError(f"there is no checkpoint {path}: export one with export_model.py or name another")
        self.path, self.threads = path, threads
        self._open()
        self.config, self.metadata = check_onnx_session(self.session, path)

    def _open(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(self.path), options, providers=["CPUExecutionProvider"])
            self.running = onnxruntime.RunOptions()
        except Exception as error:  # ONNX Runtime's exceptions have no public base class
            raise UserError(f"{self.path} is damaged or no ONNX model: export it again") from error
        self._process = os.getpid()
        self.opened.add(self)

    @classmethod
    def keep_sessions(cls) -> None:
        """After a fork: never end a session of the parent, for that waits for its threads, which live in the parent
        alone. One more reference than there are keeps it until the process is gone."""
        for backend in cls.opened:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend.session))

    def log_probs(self, pixels: np.ndarray) -> np.ndarray:
        """As `CaptchaPredictor.log_probs`."""
        if os.getpid() != self._process:
            self._open()  # after a fork: see `keep_sessions`
        return self.session.run(None, {"images": pixels}, self.running)[0]

    def stop(self) -> None:
        """End a pass that another thread waits for too long; it fails there."""
        import onnxruntime

        running, self.running = self.running, onnxruntime.RunOptions()
        running.terminate = True

    def attention(self, pixels: np.ndarray) -> None:
        """As `CaptchaPredictor.attention`."""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=OnnxBackend.keep_sessions)


def find_checkpoint(checkpoint: str | Path | None, device: str | None) -> Path:
    """The file that `CaptchaPredictor` reads with: see there."""
    if checkpoint is None:
        return quicker(DEFAULT_CHECKPOINT) if device is None else DEFAULT_CHECKPOINT
    path = Path(checkpoint)
    return path / "best.safetensors" if path.is_dir() else path


def check_positive(value: int, name: str) -> int:
    """`value`, which must be 1 or more.

    Raises:
        UserError: it is less.
    """
    if value < 1:
        raise UserError(f"the {name} is {value}: it must be 1 or more")
    return value


def preprocess_image(image: ImageLike, transform: CaptchaTransform, name: str = "") -> np.ndarray:
    """One picture, of any kind that `open_image` takes, as the network sees it, uint8 (C, H, W)."""
    return transform(open_image(image, name))


def predict_captcha(
    image: ImageLike, predictor: CaptchaPredictor, constraints: Constraints | None = None
) -> Prediction:
    """Read one picture."""
    return predictor.predict([image], constraints=constraints)[0]


def find_images(paths: Sequence[str | Path]) -> list[Path]:
    """The files named, and every image below the folders named, sorted.

    Raises:
        UserError: a path does not exist, or there is no image at all.
    """
    return sort_files(paths)[0]


def sort_files(paths: Sequence[str | Path]) -> tuple[list[Path], Counter[str]]:
    """As `find_images`, and how many other files the folders hold, by the ends of their names."""
    found: list[Path] = []
    others: Counter[str] = Counter()
    for path in map(Path, paths):
        if path.is_dir():
            inside = visible_files(path)
            found += [p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES]
            others.update(p.suffix.lower() or p.name for p in inside if p.suffix.lower() not in IMAGE_SUFFIXES)
        elif path.suffix.lower() == ".parquet" and path.is_file():
            raise UserError(f"{path} is a parquet shard: name --out FOLDER to read it into")
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path} does not exist: check the name")
    if not found:
        if shards := shard_folders(paths):
            there = shards == [*map(Path, paths)]
            where, what = ("", "") if there else (f" in {named(shards)}", f"{named(shards)} and ")
            raise UserError(
                f"there is no image in {named(paths)} but parquet shards{where}: "
                f"name {what}--out FOLDER to read these into"
            )
        raise UserError(f"there is no image in {named(paths)}: PNG, JPEG, GIF, BMP, WebP and TIFF are read")
    return found, others


# --------------------------------------------------------------------------------------------------------------------
# Command line


def main() -> int:
    """Command line. Exit code 1 where some picture could not be read; the readings of the others are printed."""
    config = parse_config(PredictConfig, "Read captchas from image files.", positional="images")
    constraints = _check(config)
    if config.out:
        return _read_shards(config, constraints)
    files, others = sort_files(config.images)
    predictor = CaptchaPredictor(config.checkpoint, config.device, config.threads, config.tta_views)
    say_suggested(predictor, constraints)
    readings, failures = _read_files(predictor, files, config, constraints)
    _say_failures(files, failures, others, config.json)
    if config.csv:
        write_csv(config.csv, readings, failures)
        print(f"{len(readings)} readings in {config.csv}", file=sys.stderr)
    if config.grid:
        from captcha_reader.plots.grid import show_all_images_with_predictions

        show_all_images_with_predictions([p for p, _ in readings], [r for _, r in readings], config.grid)
        print(f"Confidence grids in {config.grid}", file=sys.stderr)
    if config.labels:
        kept = write_labels(config.labels, readings, config.sure)
        print(
            f"{kept} of {len(readings)} readings, those of {config.sure:g} confidence or more, are labels in "
            f"{config.labels}; to train on them: python main.py --config configs/finetune.yaml --data {config.labels}",
            file=sys.stderr,
        )
    return 1 if failures else 0


def _check(config: PredictConfig) -> Constraints:
    """The constraints, once the settings are found to go together.

    Raises:
        UserError: they do not.
    """
    check_positive(config.batch_size, "batch size")
    if config.labels and not config.labels.endswith(".parquet"):
        raise UserError(f"--labels {config.labels} would be a parquet file: give it a name that ends in .parquet")
    if config.grid:
        from captcha_reader.plots.canvas import check_suffix

        check_suffix(config.grid)
    if not 0 <= config.sure <= 1:
        raise UserError(f"--sure is {config.sure}: it is a confidence, 0 to 1")
    if config.out and (config.csv or config.grid or config.json or config.labels or config.same_source):
        raise UserError("--out writes shards of readings: leave --csv, --grid, --json, --labels and --same_source out")
    if config.engine != "local" and not config.out:
        raise UserError("--engine ray reads parquet shards into --out FOLDER: name both")
    return Constraints(config.characters, config.length, config.ignore_case, config.upper_case)


def say_suggested(predictor: CaptchaPredictor, constraints: Constraints) -> None:
    """Offer on stderr what the model's labels had in common, if nothing is known otherwise."""
    suggested = predictor.suggested_constraints
    if suggested and not constraints:
        flags = {"characters": suggested.characters, "length": suggested.length}
        shown = " ".join(f"--{name} '{value}'" for name, value in flags.items() if value)
        print(
            f"note: all labels that this model learned from fit {shown}: give that to read no others", file=sys.stderr
        )


def _read_shards(config: PredictConfig, constraints: Constraints) -> int:
    checkpoint = find_checkpoint(config.checkpoint, config.device).absolute()
    threads = config.threads if config.engine == "local" else 1
    # Workers find it in the module `predict`, which is called `__main__` in this process only.
    factory = importlib.import_module("predict").PredictorFactory(
        str(checkpoint), config.device, threads, config.tta_views
    )
    total, failed = read_shards(config, factory, checkpoint, constraints)
    print(f"{total - failed} of {total} pictures read into {config.out}")
    return 1 if failed else 0


def _read_files(
    predictor: CaptchaPredictor, files: Sequence[Path], config: PredictConfig, constraints: Constraints
) -> tuple[list[tuple[Path, Prediction]], list[tuple[Path, str]]]:
    """Read and print.

    Returns:
        The readings, and why each of the other files could not be read.
    """
    readings: list[tuple[Path, Prediction]] = []
    failures: list[tuple[Path, str]] = []
    for start in _counted(range(0, len(files), config.batch_size), config.same_source):
        batch = files[start : start + config.batch_size]
        found = predictor.predict(batch, config.batch_size, config.same_source, constraints, errors="return")
        for path, prediction in zip(batch, found, strict=True):
            if isinstance(prediction, UserError):
                failures.append((path, str(prediction)))
                continue
            readings.append((path, prediction))
            if not config.same_source:
                _show(path, prediction, config.json)
    if config.same_source:
        together, scheme = read_together([prediction for _, prediction in readings], constraints)
        readings = [(path, prediction) for (path, _), prediction in zip(readings, together, strict=True)]
        for path, prediction in readings:
            _show(path, prediction, config.json)
        if scheme.characters:
            print(f"Of one source: {scheme}", file=sys.stderr)
    return readings, failures


def _say_failures(
    files: Sequence[Path], failures: Sequence[tuple[Path, str]], others: Counter[str], as_json: bool
) -> None:
    for path, failure in failures:
        print(f"skipped: {printable(failure)}", file=sys.stderr)
        if as_json:
            print(json.dumps({"file": printable(path), "error": printable(failure)}, ensure_ascii=False))
    if others:
        endings = ", ".join(f"{count} {printable(ending)}" for ending, count in others.most_common(10))
        print(f"left out, since their names are not those of images: {endings}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(files)} files could not be read", file=sys.stderr)


def _counted(starts: range, shown: bool) -> Iterable[int]:
    """With a progress bar where the readings themselves are not seen until the end."""
    if not shown:
        return starts
    from tqdm import tqdm

    return tqdm(starts, desc="reading", unit="batch", leave=False)


def _show(path: Path, prediction: Prediction, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"file": printable(path), **prediction.as_dict()}, ensure_ascii=False), flush=True)
    else:
        name = printable(path).replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")  # a line is a reading
        print(f"{name}\t{prediction.text}\t{prediction.confidence:.3f}", flush=True)


if __name__ == "__main__":
    run(main)
