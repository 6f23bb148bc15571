"""Read captchas from image files.

    python predict.py examples                                     # the shipped weights, a folder of pictures
    python predict.py --checkpoint RUN/best.safetensors a.png --json
    python predict.py --same-kind --labels sure.parquet FOLDER     # read together; sure readings as labels to train on
    python predict.py --out data/readings data/shards              # parquet in, parquet out (bulk.py)

`CaptchaPredictor` is preprocessing, network and decoding in one; the evaluation and the demo use it too, so the
accuracy reported is the accuracy a user gets. With an .onnx file neither this module nor the ones it needs import
torch, which makes for a quick start.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from captcha_reader.cli import parse_config, run
from captcha_reader.config import ModelConfig, PredictConfig
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT, available_cores, printable, quicker, write_atomically, write_text
from captcha_reader.images import IMAGE_SUFFIXES, ImageLike, open_image
from captcha_reader.reading.collection import Kind, learn_kind
from captcha_reader.reading.prediction import Prediction
from captcha_reader.reading.tta import LOOKS, look_again
from captcha_reader.text import Alphabet, build_codec
from captcha_reader.transforms import CUT, CaptchaTransform, View, build_transform

UNSURE = 0.7  # a reading of less confidence is looked at again
AHEAD = 0.6  # it is enough where the looks that read one text are surer, added up, than those of any other by so much
COMPARED = 4  # texts, those of the surest looks, which every look has its say on

MOST_LOOKS = 1 + len(LOOKS)


class CaptchaPredictor:
    """Images in, readings out.

    Args:
        checkpoint: a .safetensors file (torch) or an .onnx file (ONNX Runtime), or the folder of a run; the shipped
            weights by default, from the .onnx file unless a device is named: it starts in a sixth of the time.
        device: a torch device, for .safetensors; a GPU where there is one by default.
        threads: CPU threads; all available cores by default.
        looks: at one picture, at most (1 to `MOST_LOOKS`): see `read`. Fewer are faster where many pictures are hard.

    Attributes:
        path: of the checkpoint.
        config: of the model.
        metadata: all that the checkpoint says of itself.

    Raises:
        UserError: the checkpoint is missing or cannot be used, or `looks` is out of range.
    """

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        threads: int | None = None,
        looks: int = MOST_LOOKS,
    ) -> None:
        if not 1 <= looks <= MOST_LOOKS:
            raise UserError(f"the number of looks is {looks}: it must be 1 to {MOST_LOOKS}")
        self.looks = looks
        self.path = find_checkpoint(checkpoint, device)
        self.threads = available_cores() if threads is None else check_positive(threads, "number of threads")
        backend = OnnxBackend if self.path.suffix == ".onnx" else TorchBackend
        self.backend = backend(self.path, device, self.threads)
        self.metadata: dict[str, Any] = self.backend.metadata
        self.config: ModelConfig = self.backend.config
        self.alphabet = Alphabet(self.config.alphabet)
        self.codec = build_codec(self.config.head, self.alphabet)
        self.transform: CaptchaTransform = build_transform(self.config)

    @cached_property
    def other_transform(self) -> CaptchaTransform | None:
        """The transform for the other height of a network that has learned two."""
        return self.transform.at(self.config.other_height) if self.config.other_height else None

    def preprocess_image(self, image: ImageLike, name: str = "") -> np.ndarray:
        """One picture as the network sees it at first, uint8 (C, H, W).

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
        """Pixels (N, C, H, W) uint8 to log-probabilities (N, T, classes) float32."""
        return self.backend.log_probs(pixels)

    def attention(self, pixels: np.ndarray) -> np.ndarray | None:
        """Pixels (N, C, H, W) uint8 to how much each character position looks at each column, (N, L, w).

        None for networks without slots, and for .onnx files, which only give readings.
        """
        return self.backend.attention(pixels)

    def predict(self, images: Sequence[ImageLike], batch_size: int = 64, keep_looks: bool = False) -> list[Prediction]:
        """Read pictures, in order; an empty list gives an empty list.

        Args:
            images: PIL images, paths, encoded bytes, or arrays (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
            batch_size: pictures per forward pass.
            keep_looks: see `read`.

        Raises:
            UserError: a picture cannot be read; the message names it by its path or its place in the list.
        """
        check_positive(batch_size, "batch size")
        predictions: list[Prediction] = []
        for start in range(0, len(images), batch_size):
            places = range(start, min(start + batch_size, len(images)))
            predictions += self.read(
                [self.view(images[i], "" if isinstance(images[i], str | Path) else f"image {i}") for i in places],
                keep_looks,
            )
        return predictions

    def read(self, views: Sequence[View], keep_looks: bool = False) -> list[Prediction]:
        """Readings of pictures in one forward pass, and of unsure ones again.

        A network that reads along the width and sees pictures cut to their contents looks again where its reading is
        not sure: at other forms of the picture (looks.py), until looks that agree have it settled. Of the texts that
        it read, the one that is likeliest by all looks together counts.

        Args:
            views: of pictures; none give an empty list.
            keep_looks: keep what the other looks gave, for `read_together`; that takes up to eight times the memory.
        """
        if not views:
            return []
        looks = [[first] for first in self._read(list(views))]
        along_the_width = self.codec.head == "ctc" and self.config.resize in CUT
        for look in LOOKS[: self.looks - 1] if along_the_width else ():
            transform = self.other_transform if look.tall and self.other_transform else self.transform
            forms = {}
            for i, (view, seen) in enumerate(zip(views, looks, strict=True)):
                if not _settled(seen) and (form := look_again(look, view, transform)) is not None:
                    forms[i] = form
            for i, reading in zip(forms, self._read(list(forms.values())), strict=True):
                looks[i].append(reading)
        chosen = [_agreed(seen) for seen in looks]
        if keep_looks:
            for i, seen in enumerate(looks):
                others = tuple(reading for reading in seen if reading is not chosen[i])
                chosen[i] = dataclasses.replace(chosen[i], other_looks=others)
                _ = chosen[i].candidates  # they take longer than reading: sought here, where progress is seen
        return chosen

    def _read(self, views: list[View]) -> list[Prediction]:
        readings: dict[int, Prediction] = {}
        widths = [view.pixels.shape[2] for view in views]
        for width in sorted(set(widths)):
            places = [i for i, w in enumerate(widths) if w == width]
            log_probs = self.log_probs(np.stack([views[i].pixels for i in places]))
            for i, r, rows in zip(places, self.codec.decode(log_probs), log_probs, strict=True):
                readings[i] = Prediction(
                    r.text, r.confidence, r.char_confidences, r.spans, rows, self.codec, views[i].box
                )
        return [readings[i] for i in range(len(views))]


def _votes(readings: Sequence[Prediction]) -> dict[str, float]:
    """The texts read, and how sure the looks that read each are, added up; the surest first."""
    votes: dict[str, float] = defaultdict(float)
    for reading in readings:
        votes[reading.text] += reading.confidence
    return dict(sorted(votes.items(), key=lambda item: -item[1]))


def _settled(readings: Sequence[Prediction]) -> bool:
    """Whether further looks would hardly change what was read."""
    if len(readings) == 1:
        return readings[0].confidence >= UNSURE
    first, second = (*_votes(readings).values(), 0.0)[:2]
    return first - second >= AHEAD


def _agreed(readings: Sequence[Prediction]) -> Prediction:
    """Of readings of one picture along the width, the surest of those with the text that is likeliest by all looks: a
    look that reads something else may think nearly as much of it."""
    texts = list(_votes(readings))[:COMPARED]
    if len(texts) > 1:
        likelihoods = readings[0].codec.probabilities([reading.log_probs for reading in readings], texts)
        texts = [texts[int(likelihoods.sum(axis=0).argmax())]]
    return max((reading for reading in readings if reading.text == texts[0]), key=lambda reading: reading.confidence)


class TorchBackend:
    """A .safetensors checkpoint on torch."""

    def __init__(self, path: Path, device: str | None, threads: int) -> None:
        import torch

        from model import load_model, read_metadata

        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.metadata = read_metadata(path)
        try:
            self.model = load_model(path, self.device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"the device {device!r} cannot be used ({error}): try --device cpu") from error
        self.config = self.model.config
        torch.set_num_threads(threads)

    def log_probs(self, pixels: np.ndarray) -> np.ndarray:
        """As `CaptchaPredictor.log_probs`."""
        import torch

        with torch.inference_mode():
            return self.model.log_probs(torch.from_numpy(pixels).to(self.device)).cpu().numpy()

    def attention(self, pixels: np.ndarray) -> np.ndarray | None:
        """As `CaptchaPredictor.attention`."""
        import torch

        with torch.inference_mode():
            attention = self.model.attention(torch.from_numpy(pixels).to(self.device))
        return None if attention is None else attention.cpu().numpy()


class OnnxBackend:
    """An .onnx file that export_model.py wrote, on ONNX Runtime."""

    def __init__(self, path: Path, device: str | None, threads: int) -> None:
        import onnxruntime

        if not path.is_file():
            raise UserError(f"there is no checkpoint {path}: export one with export_model.py or name another")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no public base class
            raise UserError(f"{path} is damaged or no ONNX model: export it again") from error
        raw = self.session.get_modelmeta().custom_metadata_map
        if "model" not in raw:
            raise UserError(f"{path} was not written by export_model.py: it lacks the model's description")
        # Other tools, quantization for instance, leave texts of their own.
        ours = ("model", "preprocess", "metrics", "provenance")
        self.metadata = {key: json.loads(value) if key in ours else value for key, value in raw.items()}
        self.config = ModelConfig.from_json(self.metadata["model"])

    def log_probs(self, pixels: np.ndarray) -> np.ndarray:
        """As `CaptchaPredictor.log_probs`."""
        return self.session.run(None, {"images": pixels})[0]

    def attention(self, pixels: np.ndarray) -> None:
        """As `CaptchaPredictor.attention`."""


def read_together(predictions: Sequence[Prediction]) -> tuple[list[Prediction], Kind]:
    """Readings of pictures of one kind, each weighed with what all of them have in common (same_kind.py).

    Args:
        predictions: what each picture gives alone, with its looks kept: they often differ in what is wrong.

    Returns:
        As many predictions, in the same order, and what the kind is like.
    """
    kind = learn_kind([prediction.candidates for prediction in predictions])
    together = []
    for prediction in predictions:
        if prediction.candidates:
            text, confidence = kind.weigh(prediction.candidates)
            prediction = dataclasses.replace(_read_as(prediction, text), confidence=confidence)
        together.append(prediction)
    return together, kind


def _read_as(prediction: Prediction, text: str) -> Prediction:
    """The same picture with another text, found in the look that gives most to it."""
    if text == prediction.text:
        return prediction
    looks = (prediction, *prediction.other_looks)
    able = [look for look in looks if look.codec.steps_needed(text) <= len(look.log_probs)]
    readings = [look.codec.read_as(look.log_probs, text) for look in able]
    look, reading = max(zip(able, readings, strict=True), key=lambda found: found[1].confidence)
    others = tuple(other for other in looks if other is not look)
    return dataclasses.replace(
        look, text=text, char_confidences=reading.char_confidences, spans=reading.spans, other_looks=others
    )


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


def predict_captcha(image: ImageLike, predictor: CaptchaPredictor) -> Prediction:
    """Read one picture."""
    return predictor.predict([image])[0]


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
            # Hidden files are none of it: macOS keeps hidden copies, no pictures.
            inside = [p for p in path.rglob("*") if not p.name.startswith(".") and not p.is_dir()]
            found += sorted(p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES)
            others.update(p.suffix.lower() or p.name for p in inside if p.suffix.lower() not in IMAGE_SUFFIXES)
        elif path.suffix.lower() == ".parquet" and path.is_file():
            raise UserError(f"{path} is a parquet shard: name --out FOLDER to read it into")
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path} does not exist: check the name")
    if not found:
        where = ", ".join(map(str, paths))
        if any(path.is_dir() and next(path.rglob("*.parquet"), None) for path in map(Path, paths)):
            raise UserError(f"there is no image in {where} but parquet shards: name --out FOLDER to read these into")
        raise UserError(f"there is no image in {where}: PNG, JPEG, GIF, BMP, WebP and TIFF are read")
    return found, others


def main() -> int:
    """Command line. Exit code 1 where some picture could not be read; the readings of the others are printed."""
    config = parse_config(PredictConfig, "Read captchas from image files.", positional="images")
    check_positive(config.batch_size, "batch size")
    if config.labels and not config.labels.endswith(".parquet"):
        raise UserError(f"--labels {config.labels} would be a parquet file: give it a name that ends in .parquet")
    if not 0 <= config.sure <= 1:
        raise UserError(f"--sure is {config.sure}: it is a confidence, 0 to 1")
    if config.out:
        if config.csv or config.grid or config.json or config.labels or config.same_kind:
            raise UserError(
                "--out writes shards of readings: leave --csv, --grid, --json, --labels and --same-kind out"
            )
        from bulk import read_shards

        total, failed = read_shards(config)
        print(f"{total - failed} of {total} pictures read into {config.out}")
        return 1 if failed else 0
    if config.engine != "local":
        raise UserError("--engine ray reads parquet shards into --out FOLDER: name both")
    files, others = sort_files(config.images)
    predictor = CaptchaPredictor(config.checkpoint, config.device, config.threads, config.looks)
    readings: list[tuple[Path, Prediction]] = []
    failures: list[tuple[Path, str]] = []
    for start in _counted(range(0, len(files), config.batch_size), config.same_kind):
        batch: list[tuple[Path, View]] = []
        for path in files[start : start + config.batch_size]:
            try:
                batch.append((path, predictor.view(path)))
            except UserError as error:
                failures.append((path, str(error)))
        for (path, _), prediction in zip(batch, predictor.read([v for _, v in batch], config.same_kind), strict=True):
            readings.append((path, prediction))
            if not config.same_kind:
                _show(path, prediction, config.json)
    if config.same_kind:
        together, kind = read_together([prediction for _, prediction in readings])
        readings = [(path, prediction) for (path, _), prediction in zip(readings, together, strict=True)]
        for path, prediction in readings:
            _show(path, prediction, config.json)
        if kind.characters:
            print(f"Of one kind: {kind}", file=sys.stderr)
    if config.csv:
        write_csv(config.csv, readings, failures)
        print(f"{len(readings)} readings in {config.csv}", file=sys.stderr)
    if config.grid:
        from captcha_reader.plots.grid import show_all_images_with_predictions

        show_all_images_with_predictions([p for p, _ in readings], [r for _, r in readings], config.grid)
        print(f"Confidence grids in {config.grid}", file=sys.stderr)
    for path, failure in failures:
        print(f"skipped: {printable(failure)}", file=sys.stderr)
        if config.json:
            print(json.dumps({"file": printable(path), "error": printable(failure)}, ensure_ascii=False))
    if others:
        kinds = ", ".join(f"{count} {printable(kind)}" for kind, count in others.most_common(10))
        print(f"passed over, for their names are no images': {kinds}", file=sys.stderr)
    if failures:
        print(f"{len(failures)} of {len(files)} files could not be read", file=sys.stderr)
    if config.labels:
        kept = write_labels(config.labels, readings, config.sure)
        print(
            f"{kept} of {len(readings)} readings, those of {config.sure:g} confidence or more, are labels in "
            f"{config.labels}; to train on them: python main.py --config configs/finetune.yaml --folds 0 --data "
            f"{config.labels}",
            file=sys.stderr,
        )
    return 1 if failures else 0


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


def write_csv(
    path: str | Path, readings: Iterable[tuple[Path, Prediction]], failures: Iterable[tuple[Path, str]] = ()
) -> None:
    """Columns file, text, confidence, the characters' confidences joined by spaces, why a file could not be read."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(["file", "text", "confidence", "character_confidences", "error"])
    for file, prediction in readings:
        characters = " ".join(f"{p:.4f}" for p in prediction.char_confidences)
        writer.writerow([printable(file), prediction.text, f"{prediction.confidence:.6f}", characters, ""])
    for file, failure in failures:
        writer.writerow([printable(file), "", "", "", printable(failure)])
    write_text(path, buffer.getvalue())


def write_labels(path: str | Path, readings: Iterable[tuple[Path, Prediction]], sure: float) -> int:
    """A parquet shard of the pictures whose reading has a confidence of `sure` or more, with the reading as the label.

    Training on it is learning from pseudo-labels (Lee, 2013): no person has seen them.

    Returns:
        How many they are.

    Raises:
        UserError: there is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = [(file, reading) for file, reading in readings if reading.text and reading.confidence >= sure]
    if not kept:
        raise UserError(
            f"no reading has a confidence of {sure:g} or more: lower --sure, or label some pictures by hand"
        )
    try:
        images = [{"bytes": file.read_bytes(), "path": printable(file.name)} for file, _ in kept]
    except OSError as error:
        raise UserError(f"a picture that was read cannot be read again ({error}): leave the folder as it is") from None
    texts, confidences = [reading.text for _, reading in kept], [reading.confidence for _, reading in kept]
    table = pa.table({"image": images, "text": texts, "confidence": confidences})
    write_atomically(path, lambda temporary: pq.write_table(table, temporary))
    return len(kept)


if __name__ == "__main__":
    run(main)
