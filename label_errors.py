"""Find the labels of a set that are probably wrong, by k-fold cross-validation.

    python accuracy_calculator.py --find-label-errors --data FOLDER --csv label_errors.csv --plots pictures

For each fold a model is fine-tuned on the other folds, as by configs/finetune.yaml, and reads the pictures of this one:
no label is judged by a model that has learned it. A label is the more suspicious, the less likely it is beside the
reading: its score is (log p(reading) - log p(label)) / characters. Pictures with the same pixels share a fold, or one
copy would betray the label of the other.

Finished folds are kept below data/generated, so that a run that was stopped goes on, and one for other outputs
is done at once. All pictures are held in memory, as encoded files.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from tqdm import tqdm

from captcha_reader.cli import load_settings
from captcha_reader.config import CTC_HEADS, DatasetConfig, EvaluateConfig, TrainConfig
from captcha_reader.dataset.checks import content_hash
from captcha_reader.dataset.folders import GENERATED, found_in, is_dataset
from captcha_reader.dataset.labels import label_fault, parse_label
from captcha_reader.dataset.samples import Sample
from captcha_reader.dataset.sources import iter_source
from captcha_reader.dataset.split import PSEUDO, SPLITS
from captcha_reader.errors import UserError
from captcha_reader.files import (
    DEFAULT_CHECKPOINT,
    ROOT,
    available_cores,
    locked_output,
    printable,
    to_json,
    write_text,
)
from captcha_reader.images import open_image
from captcha_reader.plots.label_errors import plot_label_errors
from captcha_reader.progress import Event, Progress, Sink
from captcha_reader.reading.metrics import text_metrics
from captcha_reader.reading.prediction import Prediction
from captcha_reader.text import NOTHING, infeasible_labels
from captcha_reader.transforms import build_transform
from data_loader import CaptchaDataset
from finetune import Fold, cross_validate
from initialization import default_epochs, initialize, plan_phases, resolve_model_config
from model import CaptchaModel, load_model
from predict import CaptchaPredictor, check_positive
from trainer import Interrupted

FORMAT = "label-errors-2"  # of the folds that are kept; a new name whenever scores change
SEED = 0
PRESET = ROOT / "configs" / "finetune.yaml"


@dataclasses.dataclass(frozen=True)
class Row:
    """One labeled picture.

    Attributes:
        name: where it stands: a file's path, or a shard's path and the row, counted from 0.
        file: its file's name, as far as that is known, else the end of `name`.
        image: the encoded picture.
        label: cleaned by `parse_label`.
        key: hash of the pixels.
        fault: why nothing can be trained with this label; empty for a usable one.
        pseudo: whether a model gave the label, and nobody typed it.
    """

    name: str
    file: str
    image: bytes = dataclasses.field(repr=False)
    label: str
    key: bytes = dataclasses.field(repr=False)
    fault: str = ""
    pseudo: bool = False


@dataclasses.dataclass(frozen=True)
class Score:
    """What a model that did not see a picture says of it and its label.

    Attributes:
        reading: what it reads.
        confidence: of the reading, 0 to 1.
        log_p_reading: log-probability of the reading.
        log_p_label: log-probability of the label; None where the model cannot write it.
        reason: why it cannot; empty otherwise.
    """

    reading: str
    confidence: float
    log_p_reading: float
    log_p_label: float | None
    reason: str = ""

    def per_character(self, label: str) -> float | None:
        """(log p(reading) - log p(label)) over the characters of the longer text; None where there is no log p."""
        if self.log_p_label is None:
            return None
        return (self.log_p_reading - self.log_p_label) / max(len(label), len(self.reading), 1)


# --------------------------------------------------------------------------------------------------------------------
# Data


def collect_rows(config: EvaluateConfig) -> tuple[list[Row], list[str]]:
    """All labeled pictures of the data: every split of a dataset unless one is named, every sample of other sources.

    Returns:
        The rows, and what is wrong with each picture that is left out.

    Raises:
        UserError: a source cannot be used, or there is no data.
    """
    sources = [config.data] if isinstance(config.data, str) else list(config.data)
    if sources == ["data"]:  # the user's own, and nothing of what we generated in there
        sources = [str(path) for path in found_in(ROOT / "data")]
    if not sources:
        raise UserError("there is no data in data/: put labeled pictures there, or name a folder by --data")
    rows: list[Row] = []
    left_out: list[str] = []
    bar = tqdm(desc="collecting", unit=" pictures", disable=None, leave=False)
    with bar:
        for sample, file in _samples(sources, config.split, left_out):
            if config.limit is not None and len(rows) >= config.limit:
                break
            bar.update()
            try:
                key = content_hash(open_image(sample.image))
            except UserError as error:
                left_out.append(f"{sample.source}: {error}")
                continue
            label = parse_label(sample.text)
            fault = label_fault(sample.text, label, None, DatasetConfig.max_length)
            why = ": ".join(filter(None, fault)) if fault else ""
            rows.append(Row(sample.source, file, sample.image, label, key, why, sample.split == PSEUDO))
    return rows, left_out


def _samples(sources: Sequence[str], split: str | None, left_out: list[str]) -> Iterator[tuple[Sample, str]]:
    """Every sample with its file's name; what has no label or no picture is added to `left_out`."""
    for source in sources:
        if not is_dataset(source):
            if split not in (None, "all"):
                raise UserError(
                    f"{source} is not split: make a dataset of it with make_dataset.py, or leave --split out"
                )
            for sample in iter_source(source, on_reject=lambda r: left_out.append(f"{r.source}: {r.reason}")):
                yield sample, Path(sample.source).name
            continue
        for part in SPLITS if split in (None, "all") else (split,):
            for shard in sorted(Path(source).glob(f"{part}-*.parquet")):
                for sample, file in zip(iter_source(str(shard)), _files(shard), strict=True):
                    yield sample, file or Path(sample.source).name


def _files(shard: Path) -> list[str | None]:
    """The names of the files that the pictures of a shard came from, which make_dataset.py keeps."""
    try:
        with pq.ParquetFile(shard) as file:
            return [image["path"] for image in file.read(columns=["image.path"]).column("image").to_pylist()]
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shard} is not a readable parquet file ({error}): make the dataset again") from error


def assign_folds(rows: Sequence[Row], trainable: Sequence[bool], folds: int) -> np.ndarray:
    """The fold of each row, (N,) int, 0 to folds - 1: by the pixels alone, in parts as equal as can be.

    Args:
        trainable: whether a model may learn a row's label; every fold gets its share of these.

    Raises:
        UserError: there are fewer folds than two, or fewer pictures than folds.
    """
    if folds < 2:
        raise UserError(f"--folds is {folds}: it must be 2 or more, since each part is read by a model of the others")
    useful = {row.key for row, good in zip(rows, trainable, strict=True) if good}
    if len(useful) < folds:
        raise UserError(
            f"there are {len(useful):,} different pictures with a usable label and {folds} folds: add pictures or "
            "lower --folds"
        )
    secret = blake2b(str(SEED).encode()).digest()

    def draw(key: bytes) -> tuple[bool, bytes]:
        return key not in useful, blake2b(key, key=secret).digest()

    order = sorted({row.key for row in rows}, key=draw)
    place = {key: i % folds for i, key in enumerate(order)}
    return np.array([place[row.key] for row in rows])


# --------------------------------------------------------------------------------------------------------------------
# Folds


def fold_settings(config: EvaluateConfig, start: CaptchaModel, checkpoint: Path, rows: Sequence[Row]) -> TrainConfig:
    """How the model of a fold is trained: by configs/finetune.yaml from the checkpoint, but at its own input height:
    more rows would take each fold twice as long."""
    preset = load_settings(TrainConfig, PRESET)
    epochs = config.epochs
    if epochs is None:
        epochs = default_epochs(max(len(rows) - len(rows) // config.folds, 1), pretrained=True)
    max_length = None
    if start.config.head not in CTC_HEADS:
        # A single label that is far too long must not give every model its number of positions.
        usual = np.quantile([len(row.label) for row in rows if not row.fault] or [1], 0.99, method="lower")
        max_length = max(start.config.max_length, int(usual))
    return dataclasses.replace(
        preset,
        init=str(checkpoint),
        model=start.config.name,
        height=None,
        max_length=max_length,
        epochs=epochs,
        seed=SEED,
        threads=config.threads,
        cpu=config.device == "cpu",
        evaluate=False,
        folds=0,
    )


def training_rows(rows: Sequence[Row], places: Sequence[int]) -> list[Row]:
    """Of these rows, one for each picture, with the label that most of its copies have, of equally many the first."""
    labels: dict[bytes, Counter[str]] = defaultdict(Counter)
    for i in places:
        labels[rows[i].key][rows[i].label] += 1
    usual = {key: counts.most_common(1)[0][0] for key, counts in labels.items()}
    chosen = {rows[i].key: rows[i] for i in reversed(places) if rows[i].label == usual[rows[i].key]}
    return [chosen[key] for key in labels]


def make_fold(settings: TrainConfig, rows: Sequence[Row]) -> Fold:
    """The training of a model on `rows`: as main.py would train it, had it these alone."""
    images, labels = [row.image for row in rows], [row.label for row in rows]
    info = {"alphabet": "".join(sorted(set("".join(labels)))), "max_length": max(map(len, labels))}
    model_config = resolve_model_config(settings, images, labels, info)
    model, trained, _ = initialize(settings, model_config)
    transform = build_transform(model_config, train=True, strength=settings.augment, lean=settings.shear)
    dataset = CaptchaDataset(images, labels, transform, seed=SEED)
    phases = plan_phases(settings, len(rows), trained.backbone, lambda _: None)
    # All of it for training: a validation part would only choose among the last epochs.
    return Fold(model, trained, phases, dataset, dataset.subset([]))


def score_labels(predictions: Sequence[Prediction], rows: Sequence[Row]) -> list[Score]:
    """Compare each label with the reading, by a model that has not seen the pictures.

    Args:
        predictions: all of one model.
        rows: as many.
    """
    if not predictions:
        return []
    codec = predictions[0].codec
    reasons = [row.fault or _cannot_write(row.label, p) for row, p in zip(rows, predictions, strict=True)]
    texts = ["" if why else row.label for row, why in zip(rows, reasons, strict=True)]
    readings, labels = np.empty(len(rows)), np.empty(len(rows))
    steps = np.array([len(p.log_probs) for p in predictions])  # wide pictures have more
    for count in np.unique(steps):
        places = np.flatnonzero(steps == count)
        log_probs = np.stack([predictions[i].log_probs for i in places])  # (N, T, C)
        readings[places] = codec.log_likelihood(log_probs, [predictions[i].text for i in places])
        labels[places] = codec.log_likelihood(log_probs, [texts[i] for i in places])
    return [
        Score(p.text, p.confidence, float(reading), None if why else float(label), why)
        for p, reading, label, why in zip(predictions, readings, labels, reasons, strict=True)
    ]


def _cannot_write(label: str, prediction: Prediction) -> str:
    codec, steps = prediction.codec, len(prediction.log_probs)
    missing = sorted({character for character in label if character not in codec.alphabet})
    if missing:
        return f"no label of the other folds has {''.join(missing)!r}"
    if (needed := codec.steps_needed(label)) > steps:
        return f"it takes {needed} steps to write and the model has {steps}"
    return ""


def score_by_folds(
    config: EvaluateConfig, rows: Sequence[Row], checkpoint: Path
) -> tuple[list[Score], np.ndarray, Path]:
    """Score every label by a model that was trained without it.

    Returns:
        A score for each row, the rows' folds (N,), and the folder that keeps what is done.

    Raises:
        UserError: the settings or the checkpoint cannot be used.
        Interrupted: stopped; the message says how many folds are done.
    """
    start = load_model(checkpoint)
    settings = fold_settings(config, start, checkpoint, rows)
    steps = start.steps if start.config.head in CTC_HEADS else int(settings.max_length or 0)
    too_long = set(infeasible_labels([row.label for row in rows], start.codec, steps))
    trainable = [not row.fault and i not in too_long for i, row in enumerate(rows)]
    folds = assign_folds(rows, trainable, config.folds)
    held_out = [np.flatnonzero(folds == fold) for fold in range(config.folds)]
    kept = ROOT / "data" / GENERATED / f"label-errors-{_fingerprint(rows, checkpoint, settings, config.folds)}"

    def make(fold: int) -> Fold:
        return make_fold(settings, training_rows(rows, [i for i in np.flatnonzero(folds != fold) if trainable[i]]))

    def measure(fold: int, trained: Fold, weights: Path) -> list[tuple[Any, ...]]:
        found = _score_fold(config, weights, [rows[i] for i in held_out[fold]])
        return [dataclasses.astuple(score) for score in found]

    torch.set_num_threads(config.threads or available_cores())
    accelerator = Accelerator(cpu=config.device == "cpu")
    epochs = settings.frozen_epochs + int(settings.epochs or 0)
    counts = [len(places) for places in held_out]
    try:
        with locked_output(kept), _bar(config.folds, epochs) as bar:
            progress = Progress([bar])
            found = cross_validate(settings, counts, make, measure, kept, accelerator, progress)
    except (Interrupted, KeyboardInterrupt):
        done = len(list(kept.glob("fold-*.json")))
        raise Interrupted(f"{done} of {config.folds} folds are done and kept") from None
    scores = {
        int(i): Score(*values)
        for places, result in zip(held_out, found, strict=True)
        for i, values in zip(places, result, strict=True)
    }
    return [scores[i] for i in range(len(rows))], folds, kept


@contextlib.contextmanager
def _bar(folds: int, epochs: int) -> Iterator[Sink]:
    """A progress bar over the epochs of all folds, fed by events."""
    bar = tqdm(total=folds * epochs, desc="cross-validation", unit="epoch", dynamic_ncols=True, leave=False)

    def show(event: Event) -> None:
        if event["event"] == "phase":
            number, _, count = event["part"].removeprefix("fold ").partition(" of ")
            bar.set_description(f"fold {number}/{count}")
            bar.update(max((int(number) - 1) * epochs - bar.n, 0))  # folds that were done before
        elif event["event"] == "epoch":
            bar.update()

    with bar:
        yield show


def _score_fold(config: EvaluateConfig, checkpoint: Path, rows: Sequence[Row]) -> list[Score]:
    predictor = CaptchaPredictor(checkpoint, config.device, config.threads, config.tta_views)
    scores: list[Score] = []
    for start in range(0, len(rows), config.batch_size):
        batch = rows[start : start + config.batch_size]
        scores += score_labels(predictor.predict([row.image for row in batch], config.batch_size), batch)
    return scores


def _fingerprint(rows: Sequence[Row], checkpoint: Path, settings: TrainConfig, folds: int) -> str:
    """Changes with whatever changes a score, and not with what only names things."""
    digest = blake2b(checkpoint.read_bytes(), digest_size=8)
    said = dataclasses.asdict(settings) | {"init": "", "threads": 0, "cpu": False}
    digest.update(json.dumps([FORMAT, folds, said]).encode())
    for row in rows:
        digest.update(row.key + json.dumps(row.label).encode())
    return digest.hexdigest()


# --------------------------------------------------------------------------------------------------------------------
# The report


def rank(rows: Sequence[Row], scores: Sequence[Score], folds: Sequence[int] | np.ndarray) -> list[dict[str, Any]]:
    """All rows, the most suspicious first.

    First come the labels that no model could write and those of pictures that stand twice with different labels, unless
    the reading bears them out; then what else is suspicious; then the rest. Each group is ordered by its score, equal
    ones by how unlikely the label is.

    Returns:
        A dictionary for each row: `rank` (from 1), `index` (place in `rows`), `name`, `file`, `label`, `reading`,
        `confidence`, `score` (see `Score.per_character`), `log_p_reading`, `log_p_label`, `fold` (from 1), `reason`.
    """
    copies: dict[bytes, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        copies[row.key].append(i)
    reasons = []
    for row, score in zip(rows, scores, strict=True):
        other = next((rows[i] for i in copies[row.key] if rows[i].label != row.label), None)
        twice = f"the same picture is labeled {other.label!r} in {other.file}" if other else ""
        reasons.append("; ".join(filter(None, (score.reason, twice))))

    def suspicion(i: int) -> tuple[int, float, float]:
        value, likely = scores[i].per_character(rows[i].label), scores[i].log_p_label
        grounds = bool(reasons[i]) + (rows[i].label != scores[i].reading)
        infinite = float("-inf")
        return -grounds, infinite if value is None else -value, infinite if likely is None else likely

    return [
        {
            "rank": place,
            "index": i,
            "name": rows[i].name,
            "file": rows[i].file,
            "label": rows[i].label,
            "reading": scores[i].reading,
            "confidence": round(scores[i].confidence, 6),
            "score": scores[i].per_character(rows[i].label),
            "log_p_reading": scores[i].log_p_reading,
            "log_p_label": scores[i].log_p_label,
            "fold": int(folds[i]) + 1,
            "reason": reasons[i],
        }
        for place, i in enumerate(sorted(range(len(rows)), key=suspicion), start=1)
    ]


def find_label_errors(config: EvaluateConfig) -> dict[str, Any]:
    """Rank the labels of a set, and draw the most suspicious.

    Returns:
        `data`, `checkpoint`, `folds`, `text_metrics` of the readings of pictures whose labels were typed (`n`,
        `sequence_accuracy`, `wilson_95`, ...), `pseudo` (other labels), `differing` (labels that are not what was
        read), `suspicious` (these, and those with a reason), `unreadable` (pictures left out, and why), `picture` (path
        of the sheet), and `rows` (see `rank`).

    Raises:
        UserError: something the user can mend.
        Interrupted: stopped; finished folds are kept.
    """
    for name in ("batch_size", "show", "limit", "threads"):
        if (value := getattr(config, name)) is not None:
            check_positive(value, f"setting --{name}")
    if config.folds < 2:
        assign_folds([], [], config.folds)
    if config.epochs is not None and config.epochs < 0:
        raise UserError(f"--epochs is {config.epochs}: it must be 0 or more")
    checkpoint = Path(config.checkpoint) if config.checkpoint else DEFAULT_CHECKPOINT
    if checkpoint.suffix == ".onnx":
        raise UserError(f"{checkpoint} cannot be trained, and each fold needs training: name a .safetensors file")
    rows, left_out = collect_rows(config)
    typed = [i for i, row in enumerate(rows) if not row.pseudo]
    if rows and not typed:
        raise UserError(f"all {len(rows):,} labels are a model's and nobody typed them: add some that a person gave")
    scores, folds, kept = score_by_folds(config, rows, checkpoint)
    ranked = rank(rows, scores, folds)
    suspicious = [entry for entry in ranked if entry["reason"] or entry["label"] != entry["reading"]]
    differing = sum(entry["label"] != entry["reading"] for entry in ranked)
    shown = suspicious[: config.show]
    sheet = plot_label_errors(
        [rows[entry["index"]].image for entry in shown],
        shown,
        (Path(config.plots) if config.plots else kept) / "label_errors.png",
        f"The {len(shown):,} most suspicious of {len(rows):,} labels",
        f"Labels that differ from the reading of a model trained without them: {differing:,}. The number beside each "
        "is its score: by how much less likely it is than the reading, in logarithms per character.",
    )
    return {
        "data": config.data,
        "checkpoint": str(checkpoint),
        "folds": config.folds,
        **text_metrics([rows[i].label for i in typed], [scores[i].reading for i in typed]),
        "pseudo": len(rows) - len(typed),
        "differing": differing,
        "suspicious": len(suspicious),
        "unreadable": left_out,
        "picture": str(sheet),
        "rows": ranked,
    }


def report_label_errors(config: EvaluateConfig) -> int:
    """`accuracy_calculator.py --find-label-errors`: find, print and write; returns the exit code.

    Raises:
        UserError: something the user can mend.
    """
    try:
        report = find_label_errors(config)
        print_table(report, config.show)
        if config.json:
            write_text(config.json, to_json(report, indent=1))
        if config.csv:
            write_text(config.csv, _csv(report["rows"]))
    except Interrupted as stopped:
        print(f"\nStopped: {stopped}. The same command goes on from there.", file=sys.stderr)
        return 130
    except OSError as error:
        where = error.filename or "a file"
        raise UserError(f"{where} cannot be read or written ({error.strerror or error}): check the place") from error
    return 0


def print_table(report: dict[str, Any], show: int) -> None:
    """The headline and the most suspicious labels, one a line."""
    low, high = report["wilson_95"]
    print(f"pictures (n)                 {report['n']:,}, in {report['folds']} folds")
    print(
        f"sequence accuracy            {report['sequence_accuracy']:.2%}  (95 % interval {low:.2%} to {high:.2%}), "
        "each picture read by a model trained without it"
    )
    print(f"labels unlike the reading    {report['differing']:,}")
    print(f"picture sheet                {report['picture']}")
    if report["unreadable"]:
        first = report["unreadable"][0]
        print(f"note: {len(report['unreadable']):,} pictures were left out, the first: {first}")
    if report["pseudo"]:
        print(f"note: {report['pseudo']:,} labels are a model's, typed by nobody, and are not in n and the accuracy")
    if report["sequence_accuracy"] < 0.5:
        print(
            "note: the models read fewer than half of the pictures as labeled, so the order says little: give more "
            "--epochs, more pictures or a better --checkpoint"
        )
    entries = report["rows"][: min(show, report["suspicious"])]
    if not entries:
        print("No label looks wrong.")
        return
    head = ("", "file", "label", "reading", "confidence", "score", "reason")
    table = [
        (
            str(entry["rank"]),
            _short(entry["file"], 40),
            _short(entry["label"], 32) or NOTHING,
            _short(entry["reading"], 32) or NOTHING,
            f"{entry['confidence']:.3f}",
            "" if entry["score"] is None else f"{entry['score']:.2f}",
            _short(entry["reason"], 100),
        )
        for entry in entries
    ]
    widths = [max(len(line[i]) for line in [head, *table]) for i in range(len(head))]
    print()
    for line in [head, *table]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print("\nscore: (log p(reading) - log p(label)) / characters. The higher, the less the label suits the picture.")


def _short(text: str, length: int) -> str:
    """Printable, and its end where it is too long: file names tell themselves apart there."""
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= length else "…" + text[1 - length :]


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    """Columns as the keys of `rank`, but for `index`; numbers that do not exist are empty."""
    buffer = io.StringIO(newline="")
    names = [name for name in rows[0] if name != "index"]
    writer = csv.DictWriter(buffer, names, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return printable(buffer.getvalue())
