"""Learning a scheme of captchas from few labels: what main.py does beside the plain training loop.

- Pictures are spliced: joined anew in each epoch from parts of two, cut between the characters that the starting
  weights find, so that no word is learned by heart. Synthetic captchas may be mixed in.
- Weights are blended: what is kept lies between the starting weights and the fine-tuned ones.
- What accuracy to expect is measured by k-fold cross-validation: each part of the labels is read by a model that was
  trained on the others. `cross_validate` also serves label_errors.py.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator

from captcha_generator import CaptchaSettings, render_captcha
from captcha_reader.checkpoint import save_checkpoint
from captcha_reader.config import GeneratorConfig, TrainConfig
from captcha_reader.errors import UserError
from captcha_reader.files import write_json
from captcha_reader.generator.fonts import drawable
from captcha_reader.optimization import Phase
from captcha_reader.progress import Progress
from captcha_reader.reading.metrics import count_edits, detailed_metrics, text_metrics
from captcha_reader.text import Codec, CTCCodec, infeasible_labels
from captcha_reader.training_settings import with_time_left
from captcha_reader.transfer import blend as blend_weights
from captcha_reader.transforms import CUT, build_transform
from data_loader import CaptchaDataset, MixedDataset, SplicedDataset, TwoHeights
from initialization import Trained, starting_weights
from model import CaptchaModel
from predict import CaptchaPredictor, TorchBackend
from trainer import Trainer

BLEND_MARGIN = 1.75  # over the root of the number of labels: what the usual blend is below 1
BLENDS = (0.25, 0.5, 0.75, 1.0)  # that cross-validation tries beside the usual one
ENOUGH_UNSEEN = 100  # pictures on which an accuracy is known well enough: no more folds are trained
FEW_UNSEEN = 30  # pictures, below which a measured accuracy says little
MEASURED_IN_FOLD = 5  # times that a fold's model is measured while it is trained
Build = Callable[[], tuple[CaptchaModel, Trained]]


# --------------------------------------------------------------------------------------------------------------------
# How long, how far


def usual_blend(config: TrainConfig, n: int) -> float:
    """The blend for `n` labels: they mislead less, the more there are."""
    return config.blend if config.blend is not None else max(0.5, round(1 - BLEND_MARGIN / math.sqrt(n), 2))


# --------------------------------------------------------------------------------------------------------------------
# Training pictures


def training_pictures(
    config: TrainConfig, real: CaptchaDataset, model: CaptchaModel, trained: Trained, say: Callable[[str], None]
) -> CaptchaDataset | SplicedDataset | MixedDataset | TwoHeights:
    """The labeled pictures as training meets them: of two heights, or spliced and with synthetic captchas among them,
    if wanted.

    Args:
        config: the settings.
        real: the labeled pictures.
        model: as it is before training.
        trained: what of it is; with a new head it finds no characters to cut between.
        say: is told what cannot be done.
    """
    if config.other_height:
        return TwoHeights(real, config.other_height, round(config.other_height_from * (config.epochs or 0)))
    return mix_synthetic(config, splice_pictures(config, real, model, trained, say), model.codec, model.steps, say)


def splice_pictures(
    config: TrainConfig, real: CaptchaDataset, model: CaptchaModel, trained: Trained, say: Callable[[str], None]
) -> CaptchaDataset | SplicedDataset:
    """Splice the training pictures, cut between the characters that the model finds; see `training_pictures`."""
    if not config.splice:
        return real
    if not trained.head or not isinstance(model.codec, CTCCodec) or model.config.resize not in CUT:
        say("Pictures are not joined anew (--splice): it takes a trained CTC head and cut pictures.")
        return real
    return SplicedDataset(real, find_seams(model, real), config.splice, model.codec, model.steps)


@torch.no_grad()
def find_seams(model: CaptchaModel, dataset: CaptchaDataset) -> list[list[float]]:
    """Where the characters of each labeled picture part, as shares of its width: midway between the two beside it."""
    model.eval()
    codec, device = cast(CTCCodec, model.codec), next(model.parameters()).device
    reading = build_transform(model.config)  # the dataset's own augments, and leaves the softening to that
    seams: list[list[float]] = [[] for _ in range(len(dataset))]
    by_width: dict[int, list[int]] = defaultdict(list)
    for index in range(len(dataset)):
        by_width[dataset.prepared(index).shape[1]].append(index)
    for indices in by_width.values():
        for start in range(0, len(indices), 64):
            chosen = indices[start : start + 64]
            pixels = np.stack([reading.finish(dataset.prepared(i)) for i in chosen])
            found = model.log_probs(torch.from_numpy(pixels).to(device)).cpu().numpy()
            for index, log_probs in zip(chosen, found, strict=True):
                spans = codec.align(log_probs, dataset.texts[index])
                seams[index] = [(a[1] + b[0]) / 2 / len(log_probs) for a, b in pairwise(spans)]
    return seams


def mix_synthetic(
    config: TrainConfig,
    real: CaptchaDataset | SplicedDataset,
    codec: Codec,
    steps: int,
    say: Callable[[str], None] = print,
) -> CaptchaDataset | SplicedDataset | MixedDataset:
    """Add synthetic captchas to the training pictures, new ones in each epoch, of the same lengths and of those
    characters that a font can draw; `say` is told of the others."""
    count = synthetic_count(config, len(real))
    if not count:
        return real
    alphabet = drawable(codec.alphabet.characters)
    if undrawn := "".join(c for c in codec.alphabet.characters if c not in alphabet):
        say(f"No font here can draw {undrawn}: these characters are learned from the labels alone.")
    if not alphabet:
        return real
    lengths = [len(text) for text in real.texts]
    settings = CaptchaSettings.from_config(
        GeneratorConfig(style=config.synthetic_style, length=f"{min(lengths)}-{max(lengths)}", seed=config.seed + 1)
    )
    settings = dataclasses.replace(settings, alphabet=alphabet)
    return MixedDataset(real, partial(_render_fitting, settings=settings, codec=codec, steps=steps), count)


def synthetic_count(config: TrainConfig, n: int) -> int:
    """Synthetic captchas in each epoch beside `n` labeled pictures."""
    return round(config.mix_synthetic * n)


def _render_fitting(index: int, settings: CaptchaSettings, codec: Codec, steps: int) -> tuple[bytes, str]:
    """Captcha `index` of the settings, or the next one far from all others whose text the model can write."""
    while True:
        encoded, text = render_captcha(index, settings)
        if not infeasible_labels([text], codec, steps):
            return encoded, text
        index += 2**40


# --------------------------------------------------------------------------------------------------------------------
# k-fold cross-validation


def make_folds(n: int, folds: int, seed: int) -> list[np.ndarray]:
    """Labels 0 to n - 1 in `folds` parts as equal as can be, at random; see `cross_validate`."""
    order = np.random.default_rng((seed, folds)).permutation(n)
    return [order[part::folds] for part in range(folds)]


def folds_needed(folds: Sequence[np.ndarray]) -> int:
    """How many folds are measured: no more than `ENOUGH_UNSEEN` pictures take."""
    measured = np.cumsum([len(fold) for fold in folds])
    return int(min(np.searchsorted(measured, ENOUGH_UNSEEN) + 1, len(folds)))


def fold_name(number: int, folds: int) -> str:
    """What the training of fold `number`, counted from 0, is called in the progress."""
    return f"fold {number + 1} of {folds}"


@dataclasses.dataclass(frozen=True)
class Fold:
    """One training of a cross-validation.

    Attributes:
        model, trained: as it is before training.
        phases: of its training.
        train: the pictures that it learns from.
        validation: pictures of the fold, on which it is measured now and then while it learns; nothing is chosen by it.
    """

    model: CaptchaModel
    trained: Trained
    phases: list[Phase]
    train: CaptchaDataset
    validation: CaptchaDataset


def cross_validate(
    config: TrainConfig,
    counts: Sequence[int],
    make: Callable[[int], Fold],
    measure: Callable[[int, Fold, Path], Any],
    folder: Path,
    accelerator: Accelerator,
    progress: Progress,
) -> list[Any]:
    """Train one model a fold, without the pictures of the fold, and look at what it makes of them.

    What `measure` gives is kept in `folder`, so that a run that was stopped goes on with the fold it was at.

    Args:
        config: the settings of each training.
        counts: pictures of each fold.
        make: the training of a fold, by its number from 0.
        measure: is given a fold's number, its training, and the checkpoint of the trained model, which is removed
            afterwards; returns what JSON can hold.
        folder: for `fold-0.json` and so on.
        accelerator: the processes and the device.
        progress: is told where it is.

    Returns:
        What `measure` gave for each fold.

    Raises:
        UserError: a fold cannot be trained.
        Interrupted: asked to stop.
    """
    results = []
    started = time.monotonic()
    for number, count in enumerate(counts):
        kept, weights = folder / f"fold-{number}.json", folder / f".fold-{number}.safetensors"
        found = _load_result(kept, count)
        if found is None:
            try:
                torch.manual_seed(config.seed)
                fold = make(number)
                told = progress, fold_name(number, len(counts))
                checkpoint = train_fold(with_time_left(config, started), fold, weights, accelerator, told)
                found = measure(number, fold, checkpoint)
            except UserError as error:
                raise UserError(f"{fold_name(number, len(counts))} cannot be trained: {error}") from error
            finally:
                if accelerator.is_main_process:
                    weights.unlink(missing_ok=True)
            if accelerator.is_main_process:
                write_json(kept, {"pictures": count, "result": found})
        progress.skip(fold_name(number, len(counts)))
        results.append(found)
    return results


def train_fold(
    config: TrainConfig, fold: Fold, path: Path, accelerator: Accelerator, told: tuple[Progress, str]
) -> Path:
    """Train the model of a fold and write its weights to `path`. Where it is stopped, its state is kept beside that.

    Args:
        told: the progress, and what the fold is called there.
    """
    progress, name = told
    model = copy.deepcopy(fold.model).to(accelerator.device, memory_format=torch.channels_last)
    mixed = training_pictures(config, fold.train, model, fold.trained, lambda _: None)
    every = math.ceil(sum(phase.epochs for phase in fold.phases) / MEASURED_IN_FOLD)
    trainer = Trainer(
        dataclasses.replace(config, patience=0),
        model,
        fold.phases,
        {"train": mixed, "validation": fold.validation},
        accelerator,
        {},
        progress=progress,
        part=name,
        measure_every=every,
        state_path=path.with_suffix(".pt"),
        write=False,
    )
    if trainer.state_path.is_file():
        trainer.load_state()
    trainer.fit()
    if accelerator.is_main_process:
        save_checkpoint(trainer.kept, path)
        trainer.state_path.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    return path


def _load_result(path: Path, count: int) -> Any:
    """What was measured of a fold before, or None."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return found["result"] if found["pictures"] == count else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


# --------------------------------------------------------------------------------------------------------------------
# What to expect of new pictures


def measure_by_folds(
    config: TrainConfig,
    build: Build,
    phases: list[Phase],
    dataset: CaptchaDataset,
    accelerator: Accelerator,
    progress: Progress,
) -> dict[str, Any]:
    """What to expect of new pictures, by cross-validation over all labels.

    Where training starts from trained weights, the folds also choose the blend, see `choose_blend`. So few to choose
    from hardly flatter the figures.

    Args:
        config: the settings of the run, with `folds`.
        build: makes the model as it is before training.
        phases: as for the run itself.
        dataset: all labeled pictures; those with pseudo-labels are in no fold, and always learned from.
        accelerator: the processes and the device.
        progress: is told where it is.

    Returns:
        The report over all pictures measured, as `accuracy_calculator.evaluate` gives it, with `folds` (measured),
        `blend` (see `transfer.blend`), and where training starts from a checkpoint, `before`: what that one reads right
        of the same pictures, and `before_ignore_case`.
    """
    n, usual = len(dataset), usual_blend(config, len(dataset))
    typed = np.flatnonzero(~dataset.pseudo)  # to measure on what a model read would flatter it
    folds = [typed[part] for part in make_folds(len(typed), config.folds, config.seed)]
    folds = folds[: folds_needed(folds)]

    def make(number: int) -> Fold:
        model, trained = build()
        rest = np.setdiff1d(np.arange(n), folds[number])
        return Fold(model, trained, phases, dataset.subset(rest), dataset.subset(folds[number]))

    def measure(number: int, fold: Fold, checkpoint: Path) -> dict[str, list[tuple[str, float]]]:
        images = [dataset.images[int(i)] for i in folds[number]]
        blends = sorted({*BLENDS, usual}) if all(fold.trained) else [1.0]
        return read_blends(checkpoint, fold.model, blends, images, config)

    out = Path(str(config.out))
    found = cross_validate(config, [len(fold) for fold in folds], make, measure, out, accelerator, progress)
    places = [int(i) for fold in folds for i in fold]
    texts = [dataset.texts[i] for i in places]
    readings = {float(blend): [reading for result in found for reading in result[blend]] for blend in found[0]}
    blend = choose_blend(texts, {b: [text for text, _ in read] for b, read in readings.items()}, usual)
    report = detailed_metrics(texts, [text for text, _ in readings[blend]], [p for _, p in readings[blend]])
    report |= {"folds": len(folds), "blend": blend}
    if first := starting_weights(config):
        predictor = open_predictor(first, config)
        before = predictor.predict([dataset.images[i] for i in places], batch_size=config.batch_size)
        figures = text_metrics(texts, [p.text for p in before])
        report["before"] = figures["sequence_accuracy"]
        report["before_ignore_case"] = figures["sequence_accuracy_ignore_case"]
    return report


def choose_blend(texts: Sequence[str], readings: Mapping[float, Sequence[str]], usual: float) -> float:
    """The blend to keep, by what each one reads in pictures that it did not learn from.

    Args:
        texts: the labels.
        readings: of the same pictures, for each blend.
        usual: the blend to take unless another has fewer errors by more than one standard error (the rule of Breiman
            et al., 1984): few pictures tell little, and all of them else choose by chance. The only one, where
            `readings` has one.
    """
    errors = {blend: np.array(count_edits(texts, found)) for blend, found in readings.items()}
    best = min(errors, key=lambda blend: (errors[blend].sum(), -blend))
    if usual not in errors or len(texts) < 2:
        return best
    fewer = errors[usual] - errors[best]
    return best if fewer.mean() > fewer.std(ddof=1) / math.sqrt(len(texts)) else usual


def open_predictor(checkpoint: Path, config: TrainConfig) -> CaptchaPredictor:
    """A checkpoint, to read with on the device and the threads of the run."""
    return CaptchaPredictor(checkpoint, device="cpu" if config.cpu else None, threads=config.threads)


def read_blends(
    checkpoint: Path, start: CaptchaModel, blends: Sequence[float], images: list[bytes], config: TrainConfig
) -> dict[str, list[tuple[str, float]]]:
    """What each blend of `start` and the checkpoint reads: texts and confidences, by the blend as text."""
    predictor = open_predictor(checkpoint, config)
    model = cast(TorchBackend, predictor.backend).model
    tuned, found = copy.deepcopy(model), {}
    for blend in blends:
        model.load_state_dict(blend_weights(start, tuned, blend))
        found[str(blend)] = [(p.text, p.confidence) for p in predictor.predict(images, batch_size=config.batch_size)]
    return found


def describe_expectation(report: dict[str, Any]) -> str:
    """What the measured accuracy promises, in a sentence."""
    low, high = report["wilson_95"]
    by = f"by {report['folds']} model(s) that had not seen them" if "folds" in report else "held back from training"
    said = (
        f"Expect {report['sequence_accuracy']:.1%} of new pictures of this kind to be read exactly right "
        f"(95 % interval {low:.1%} to {high:.1%}), {report['sequence_accuracy_ignore_case']:.1%} ignoring case: "
        f"measured on {report['n']:,} pictures {by}."
    )
    if "before" in report:
        said += (
            f" The weights it started from read {report['before']:.1%} of these, {report['before_ignore_case']:.1%} "
            "ignoring case."
        )
    return said + (" So few pictures say little: go by the interval." if report["n"] < FEW_UNSEEN else "")
