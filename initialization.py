"""What a training begins with: the model and its shape, its first weights, its phases.

What the user left open is filled in here, and what cannot be trained is refused, before the first step. main.py trains
a reader with it, finetune.py and label_errors.py the models of their folds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captcha_reader.checkpoint import hash_checkpoint, read_metadata
from captcha_reader.config import CTC_HEADS, ModelConfig, TrainConfig
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT, SAVED_MODELS
from captcha_reader.images import open_image
from captcha_reader.optimization import Phase
from captcha_reader.text import Alphabet, infeasible_labels
from captcha_reader.transforms import size_at
from data_loader import CaptchaDataset
from model import MODELS, CaptchaModel, build_model, load_imagenet, load_into

LEAST_LABELS = 10  # to train on at all
SIZES_SAMPLED = 500  # pictures whose shape decides the input's width
PICTURES_SEEN = 40_000  # by a run from scratch whose number of epochs is not given
PICTURES_SEEN_PER_ROOT = 430  # times the root of the number of labels: pictures seen by a run from trained weights
LEAST_EPOCHS_UNTIL = (16, 80_000)  # a thousand labels or more are seen so often, until so many pictures have been seen
EXPECTED_AT_LEAST = 4  # a character that should occur so often and does not is not in the alphabet (by chance: 1 in 50)
CHARACTER_CLASSES = ("0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")


class Trained(NamedTuple):
    """Which parts of a model have trained weights at the start, all of theirs."""

    backbone: bool = False
    head: bool = False


# --------------------------------------------------------------------------------------------------------------------
# The model


def resolve_model_config(
    config: TrainConfig, images: Sequence[bytes], labels: Sequence[str], info: dict[str, Any]
) -> ModelConfig:
    """Fill in what the user left open: from the weights to start from, the model's defaults, the data.

    The alphabet and the longest text are those of all labels, held-back ones too: that a character exists is known
    beforehand, and a reading of a label that cannot be written would measure nothing.

    The input has the size that the starting weights are used to. Without such weights it keeps the pictures' shape: its
    height is the model's, its width follows the 95th percentile of their width over height, at most eight times the
    height; a model that stretches its pictures gets ten thirds of the height.

    Args:
        config: the settings.
        images: encoded training pictures.
        labels: theirs.
        info: `alphabet` and `max_length` of all labels, as dataset.json has them.

    Returns:
        The `ModelConfig`.

    Raises:
        UserError: the alphabet cannot be used, or the starting weights cannot.
    """
    defaults = MODELS[config.model]
    start = _starting_config(config)
    size = config.image_size or (start.image_size if start else None)
    resize, head = config.resize or (start or defaults).resize, config.head or (start or defaults).head
    if size is None and resize in ("natural", "content", "stretch"):
        size = (defaults.height, 4 * defaults.height)
    if size is None:
        chosen = np.random.default_rng(0).permutation(len(images))[:SIZES_SAMPLED]
        ratios = [w / h for w, h in (open_image(images[int(i)]).size for i in chosen)]
        width = defaults.height * min(float(np.percentile(ratios, 95)), 8.0)
        size = (defaults.height, max(32, 16 * math.ceil(round(width, 3) / 16)))
    if config.height and not config.image_size and resize == "natural" and head in CTC_HEADS:
        size = size_at(config.height, size)
    if config.alphabet:
        alphabet = Alphabet.parse(config.alphabet)
    else:
        alphabet = Alphabet(complete_alphabet(info["alphabet"], labels, start.alphabet if start else ""))
    return ModelConfig(
        name=config.model,
        alphabet=alphabet.characters,
        max_length=config.max_length or info["max_length"],
        image_size=tuple(size),
        other_height=config.other_height,
        channels=config.channels or (start or defaults).channels,
        resize=resize,
        normalize=(start or defaults).normalize if config.normalize is None else config.normalize,
        soften=(start or defaults).soften if config.soften is None else config.soften,
        head=head,
        backbone=config.backbone or (start or defaults).backbone,
        hidden=config.hidden or (start or defaults).hidden,
        dropout=config.dropout,
    )


def complete_alphabet(characters: str, labels: Sequence[str], known: str) -> str:
    """Add the characters that few labels may lack by chance alone.

    Digits, capitals and small letters are three classes. Where one occurs, but each of its characters is to be expected
    fewer than `EXPECTED_AT_LEAST` times in so many labels, all of it that the starting weights know is kept.

    Args:
        characters: of all labels.
        labels: those of the training pictures.
        known: characters that the starting weights read.

    Returns:
        `characters`, and after them the ones added.
    """
    text = "".join(labels)
    added = ""
    for members in CHARACTER_CLASSES:
        count = sum(c in members for c in text)
        if 0 < count < EXPECTED_AT_LEAST * len(members):
            added += "".join(c for c in members if c in known and c not in characters)
    return characters + added


def initialize(config: TrainConfig, model_config: ModelConfig) -> tuple[CaptchaModel, Trained, list[str]]:
    """Build the model and give it its starting weights.

    Returns:
        The model, what of it is trained, and what to tell the user.
    """
    model = build_model(model_config)
    if config.init == "scratch":
        return model, Trained(), ["Starting from random weights."]
    if config.init == "imagenet":
        load_imagenet(model)
        return model, Trained(backbone=True), ["Starting from ImageNet weights (backbone)."]
    path = starting_weights(config)
    if path is None:
        note = f"There are no shipped weights for --model {config.model}: starting from random weights."
        return model, Trained(), [note]
    transfer = load_into(model, path)
    notes = [f"Starting from {path}: {len(transfer.shared)} characters known, {len(transfer.new)} new"]
    notes[0] += f" ({transfer.new})." if transfer.new else "."
    if transfer.dropped and not config.alphabet:
        notes.append(f"No longer read, for no label has them: {transfer.dropped} (--alphabet keeps them).")
    if transfer.fresh:
        notes.append(f"Starting anew, since the shapes differ: {', '.join(transfer.fresh)}.")
    head = not any(name.startswith("head.") for name in transfer.fresh)
    return model, Trained("backbone" not in transfer.fresh, head), notes


# --------------------------------------------------------------------------------------------------------------------
# The weights to start from


def starting_weights(config: TrainConfig) -> Path | None:
    """The checkpoint to start from: the one named, or with `auto` the shipped one of this model, if there is one."""
    if config.init in ("scratch", "imagenet"):
        return None
    if config.init != "auto":
        return Path(config.init)
    shipped = [DEFAULT_CHECKPOINT, SAVED_MODELS / "efficientnet.safetensors"]
    return next((p for p in shipped if p.is_file() and read_metadata(p)["model"]["name"] == config.model), None)


def _starting_config(config: TrainConfig) -> ModelConfig | None:
    """What the starting weights were trained as, if that is the model wanted."""
    path = starting_weights(config)
    start = ModelConfig.from_json(read_metadata(path)["model"], path) if path else None
    return start if start and start.name == config.model else None


def hash_of_start(config: TrainConfig) -> str | None:
    """SHA-256 of the checkpoint that a run begins from; None where it begins from random or ImageNet's weights."""
    first = starting_weights(config)
    return hash_checkpoint(first) if first and first.is_file() else None


def check_same_start(out: Path, config: TrainConfig, saved: dict[str, Any]) -> None:
    """Refuse to go on from other weights: what is kept at the end lies between those of the start and the last ones.

    Raises:
        UserError: the checkpoint that the run in `out` began from has changed.
    """
    if saved.get("start") not in (None, hash_of_start(config)):  # None: an older state
        raise UserError(
            f"{starting_weights(config) or config.init} has changed since the run in {out} began from it: put back "
            "the file that was there to go on, or start a new run with another --out"
        )


# --------------------------------------------------------------------------------------------------------------------
# What it can learn


def check_model(config: TrainConfig, model: CaptchaModel, processes: int) -> list[str]:
    """Refuse settings that the model cannot follow; returns what to tell of those that it ignores."""
    if config.other_height and (model.config.resize != "natural" or model.config.head not in CTC_HEADS):
        raise UserError("--other_height goes with --resize natural and a CTC head alone: leave it out")
    if config.other_height and processes > 1:  # a share of one picture would have fewer parts
        raise UserError("--other_height goes with one process: leave it out, or start main.py without accelerate")
    if config.flat_start and model.config.head not in CTC_HEADS:
        raise UserError("--flat_start goes with a CTC head alone: leave it out")
    rows = model.config.image_size[0]
    if not config.height or config.height == rows:
        return []
    return [
        f"The input has {rows} rows: --height is for natural inputs and CTC heads, where --image_size does not decide."
    ]


def check_labels(config: TrainConfig, model: CaptchaModel, datasets: dict[str, CaptchaDataset], named: str) -> None:
    """Refuse too few labels, and those that the model cannot write, before the first step.

    Args:
        named: the sources, for messages.

    Raises:
        UserError: names such labels, how many there are, and what to change.
    """
    for split, dataset in datasets.items():
        for index, text in enumerate(dataset.texts):
            model.codec.encode(text, dataset.names(index))
        if bad := infeasible_labels(dataset.texts, model.codec, model.steps):
            shown = ", ".join(repr(dataset.texts[i]) for i in bad[:5])
            what = "widen --image_size" if model.config.head in CTC_HEADS else "raise --max_length"
            raise UserError(
                f"{len(bad):,} of {len(dataset):,} {split} labels do not fit the {model.steps} steps of this model "
                f"({shown}{', ...' if len(bad) > 5 else ''}): {what}"
            )
    n = len(datasets["train"])
    if n < LEAST_LABELS:
        raise UserError(f"{named}: {n} training pictures are too few to learn from, {LEAST_LABELS} are the least")
    if config.evaluate and not len(datasets["test"]) and n < config.folds:
        raise UserError(f"{n} labels cannot be measured in {config.folds} parts: lower --folds or add labels")


# --------------------------------------------------------------------------------------------------------------------
# Phases


def plan_phases(config: TrainConfig, n: int, pretrained: bool, say: Callable[[str], None] = print) -> list[Phase]:
    """The phases of a run: frozen backbone, then all. Freezing random features would train a head on noise.

    Args:
        n: training pictures.
        pretrained: whether the backbone is.
    """
    epochs = config.epochs if config.epochs is not None else default_epochs(n, pretrained)
    phases = []
    if config.frozen_epochs and pretrained:
        phases.append(Phase("frozen", config.frozen_epochs, config.frozen_learning_rate, frozen=True))
    elif config.frozen_epochs:
        say("The backbone is not pretrained: skipping the frozen phase.")
    if epochs:
        rate = config.learning_rate if config.learning_rate is not None else 0.001 if pretrained else 0.003
        phases.append(Phase("whole", epochs, rate, frozen=False))
    if not phases:
        raise UserError("there is nothing to train: --epochs is 0, and so is the frozen phase")
    return phases


def default_epochs(n: int, pretrained: bool) -> int:
    """Epochs of the whole network on `n` labels."""
    if pretrained:
        often, until = LEAST_EPOCHS_UNTIL
        return min(60, max(6, round(PICTURES_SEEN_PER_ROOT / math.sqrt(n)), min(often, until // n)))
    return min(60, max(8, round(PICTURES_SEEN / n)))
