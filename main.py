"""Train a captcha reader.

    python main.py                                                 # no data: a synthetic set, the default model
    python main.py --data FOLDER                                   # labelled pictures of your own
    python main.py --config configs/finetune.yaml --data FOLDER    # from the shipped weights
    python main.py --resume --out saved_models/RUN                 # go on where a run was stopped
    accelerate launch --num_processes 2 main.py --data FOLDER      # several GPUs
    accelerate launch --multi_gpu --num_processes 2 main.py --cpu  # several CPU processes (so accelerate starts them)

A run has two phases, each with its own optimizer and schedule: the head alone on a frozen, pretrained backbone, then
the whole network. The run folder gets best.safetensors, last.safetensors, config.yaml, history.json, the training
state, and at the end the metrics and the pictures.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
import math
import pickle
import platform
import shutil
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import yaml
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import gather_object
from PIL import Image
from torch import nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from accuracy_calculator import count_edits, detailed_metrics, evaluate, print_report, text_metrics
from captcha_fonts import drawable
from captcha_generator import CaptchaSettings, generate_captcha_data, render_captcha
from captcha_reader.cli import parse_config, run
from captcha_reader.config import ALPHANUMERIC, CTC_HEADS, DatasetConfig, GeneratorConfig, ModelConfig, TrainConfig
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT, ROOT, SAVED_MODELS, available_cores, write_atomically, write_text
from captcha_reader.text import NOTHING, Alphabet, Codec, CTCCodec, infeasible_labels
from captcha_reader.transforms import CUT, size_at
from captcha_styles import DIGITS, LOWER, UPPER
from data_loader import (
    PARTS,
    CaptchaDataset,
    EpochBatches,
    MixedDataset,
    Part,
    SplicedDataset,
    TwoHeights,
    build_loader,
    load_data,
)
from make_dataset import FEEDBACK, GENERATED, found_in, is_dataset, load_info, make_dataset
from model import (
    MODELS,
    CaptchaModel,
    blend,
    build_model,
    count_parameters,
    load_imagenet,
    load_into,
    load_model,
    read_metadata,
    save_checkpoint,
    set_requires_grad,
    train_mode,
)
from predict import CaptchaPredictor, Prediction, TorchBackend

STATE_FILE = "state.pt"
SAVE_SECONDS = 300  # a kill costs a long epoch no more than this
PICTURES_SEEN = 40_000  # by a run from scratch whose number of epochs is not given
FINE_TUNED = 430  # times the root of the number of labels: pictures seen by a run from trained weights
OFTEN, MANY_SEEN = 16, 80_000  # so often it sees each of a thousand labels or more, until it has seen so many pictures
HELD_BACK = 1.75  # over the root of the number of labels: part of the way from trained weights that is not gone
CERTAIN = 4  # times: who should occur so often and does not is not in the alphabet (by chance: once in 50)
SHARES = (0.25, 0.5, 0.75, 1.0)  # of the way from trained weights to what a few labels make of them, beside `share`
LEAST_LABELS = 10  # to train on at all
FEW_UNSEEN = 30  # pictures, below which a measured accuracy says little
ENOUGH_UNSEEN = 100  # pictures on which an accuracy is known well enough: no more folds are trained


class Interrupted(Exception):
    """The user asked to stop; the state is saved in the run folder that the message names."""


# --------------------------------------------------------------------------------------------------------------------
# Data


def prepare_data(config: TrainConfig, say: Callable[[str], None] = print) -> Path:
    """The dataset folder to train on: the one named, one made from the sources named, or a synthetic one.

    What is made is kept below data/generated and used again while its sources stay as they are.

    Raises:
        UserError: a source cannot be used.
    """
    sources = [config.data] if isinstance(config.data, str) else list(config.data)
    if len(sources) == 1 and is_dataset(sources[0]):
        return Path(sources[0])
    store = ROOT / "data" / GENERATED
    if sources == ["data"]:
        found = found_in(ROOT / "data")
        if not found:
            corrected = (ROOT / "data" / FEEDBACK).exists()
            but = " but corrected readings (--data data/feedback learns from them)" if corrected else ""
            say(
                f"There is no data in data/{but} (its README says what to put there): training on "
                f"{config.synthetic_count:,} synthetic captchas of the style {config.synthetic_style}."
            )
            alphabet = config.alphabet or ALPHANUMERIC
            # All that was asked for, so that other settings make another set; an alphabet may be no name of a folder.
            style = config.synthetic_style.replace(",", "-")
            mark = hashlib.sha256(Alphabet.parse(alphabet).characters.encode()).hexdigest()[:8]
            made = store / f"synthetic-{style}-{config.synthetic_count}-{config.seed}-{mark}"
            generate_captcha_data(
                GeneratorConfig(
                    out=str(made),
                    count=config.synthetic_count,
                    style=config.synthetic_style,
                    seed=config.seed,
                    alphabet=alphabet,
                )
            )
            found = [made]
        if len(found) == 1 and is_dataset(found[0]):
            return found[0]
        sources = [str(path) for path in found]
    key = hashlib.sha256(
        json.dumps([_stamp(s) for s in sources] + [config.split, config.seed, config.alphabet]).encode()
    )
    out = store / f"dataset-{key.hexdigest()[:16]}"
    if not is_dataset(out):
        info = make_dataset(
            DatasetConfig(sources=sources, out=str(out), split=config.split, seed=config.seed, alphabet=config.alphabet)
        )
        for note in info["notes"]:
            say(f"note: {note}")
        if rejected := info["rejects"]["total"]:
            say(f"{rejected:,} samples were left out, each with its reason in {out / 'dataset.json'}")
    return out


def training_pictures(
    config: TrainConfig, real: CaptchaDataset, model: CaptchaModel, trained: Trained, say: Callable[[str], None]
) -> CaptchaDataset | SplicedDataset | MixedDataset | TwoHeights:
    """The labelled pictures as training meets them: of two heights, or joined anew and with synthetic captchas among
    them, if wanted."""
    if config.other_height:
        return TwoHeights(real, config.other_height)
    return mix_synthetic(config, splice_pictures(config, real, model, trained, say), model.codec, model.steps, say)


def splice_pictures(
    config: TrainConfig, real: CaptchaDataset, model: CaptchaModel, trained: Trained, say: Callable[[str], None]
) -> CaptchaDataset | SplicedDataset:
    """Join the training pictures anew in each epoch, cut between the characters that the model finds.

    Args:
        real: the labelled pictures.
        model: as it is before training.
        trained: what of it is; with a new head it finds nothing.
        say: is told where this cannot be done.
    """
    if not config.splice:
        return real
    if not trained.head or not isinstance(model.codec, CTCCodec) or model.config.resize not in CUT:
        say("Pictures are not joined anew (--splice): it takes a trained CTC head and cut pictures.")
        return real
    return SplicedDataset(real, find_seams(model, real), config.splice, model.codec, model.steps)


@torch.no_grad()
def find_seams(model: CaptchaModel, dataset: CaptchaDataset) -> list[list[float]]:
    """Where the characters of each labelled picture part, as shares of its width: midway between the two beside it."""
    model.eval()
    codec, device = cast(CTCCodec, model.codec), next(model.parameters()).device
    seams: list[list[float]] = [[] for _ in range(len(dataset))]
    by_width: dict[int, list[int]] = defaultdict(list)
    look: dict[str, Any] = {"total": len(dataset), "unit": "image", "leave": False, "dynamic_ncols": True}
    for index in tqdm(range(len(dataset)), desc="preparing pictures", **look):
        by_width[dataset.prepared(index).shape[1]].append(index)
    with tqdm(desc="finding characters", **look) as bar:
        for indices in by_width.values():
            for start in range(0, len(indices), 64):
                chosen = indices[start : start + 64]
                pixels = np.stack([dataset.transform.finish(dataset.prepared(i)) for i in chosen])
                found = model.log_probs(torch.from_numpy(pixels).to(device)).cpu().numpy()
                for index, log_probs in zip(chosen, found, strict=True):
                    spans = codec.align(log_probs, dataset.texts[index])
                    seams[index] = [(a[1] + b[0]) / 2 / len(log_probs) for a, b in pairwise(spans)]
                bar.update(len(chosen))
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
    count = round(config.mix_synthetic * len(real))
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


def _render_fitting(index: int, settings: CaptchaSettings, codec: Codec, steps: int) -> tuple[bytes, str]:
    """Captcha `index` of the settings, or the next one far from all others whose text the model can write."""
    while True:
        encoded, text = render_captcha(index, settings)
        if not infeasible_labels([text], codec, steps):
            return encoded, text
        index += 2**40


def _stamp(source: str) -> list[Any]:
    """Changes whenever a file of the source does; hidden ones are none of it."""
    path = Path(source)
    found = path.rglob("*") if path.is_dir() else [path]
    files = sorted(p for p in found if p.is_file() and not any(n.startswith(".") for n in p.relative_to(path).parts))
    return [source, [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files]]


def resolve_model_config(config: TrainConfig, folder: Path) -> ModelConfig:
    """Fill in what the user left open: from the weights to start from, the model's defaults, the data.

    The alphabet and the longest text are those of all labels, held-back ones too: that a character exists is known
    beforehand, and a reading of a label that cannot be written would measure nothing.

    The input has the size that the starting weights are used to. Without such weights it keeps the pictures' shape: its
    height is the model's, its width follows the 95th percentile of their width over height, at most eight times the
    height; a model that stretches its pictures gets ten thirds of the height.

    Raises:
        UserError: the alphabet cannot be used, or the starting weights cannot.
    """
    defaults = MODELS[config.model]
    start = _starting_config(config)
    info = load_info(folder)
    images = load_data(folder, _probe_config(), splits=("train",))["train"]
    if len(images) == 0:
        raise UserError(f"{folder} has no training pictures: change --split or add data")
    size = config.image_size or (start.image_size if start else None)
    resize, head = config.resize or (start or defaults).resize, config.head or (start or defaults).head
    if size is None and resize in ("natural", "content", "stretch"):
        size = (defaults.height, 4 * defaults.height)
    if size is None:
        chosen = np.random.default_rng(0).permutation(len(images))[:500]
        ratios = [w / h for w, h in (images.image(int(i)).size for i in chosen)]
        width = defaults.height * min(float(np.percentile(ratios, 95)), 8.0)
        size = (defaults.height, max(32, 16 * math.ceil(round(width, 3) / 16)))
    if config.height and not config.image_size and resize == "natural" and head in CTC_HEADS:
        size = size_at(config.height, size)
    if config.alphabet:
        alphabet = Alphabet.parse(config.alphabet)
    else:
        alphabet = Alphabet(complete_alphabet(info["alphabet"], images.texts, start.alphabet if start else ""))
    return ModelConfig(
        name=config.model,
        alphabet=alphabet.characters,
        max_length=config.max_length or info["max_length"],
        image_size=tuple(size),
        other_height=config.other_height,
        channels=config.channels or (start or defaults).channels,
        resize=resize,
        normalise=(start or defaults).normalise if config.normalise is None else config.normalise,
        head=head,
        backbone=config.backbone or (start or defaults).backbone,
        hidden=config.hidden or (start or defaults).hidden,
        dropout=config.dropout,
    )


def complete_alphabet(characters: str, labels: Sequence[str], known: str) -> str:
    """Add the characters that few labels may lack by chance alone.

    Digits, capitals and small letters are three kinds. Where a kind occurs, but each of its characters is to be
    expected fewer than `CERTAIN` times in so many labels, all of it that the starting weights know is kept.

    Args:
        characters: of all labels.
        labels: those of the training pictures.
        known: characters that the starting weights read.

    Returns:
        `characters`, and after them the ones added.
    """
    text = "".join(labels)
    added = ""
    for kind in (DIGITS, UPPER, LOWER):
        count = sum(c in kind for c in text)
        if 0 < count < CERTAIN * len(kind):
            added += "".join(c for c in kind if c in known and c not in characters)
    return characters + added


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
    start = ModelConfig.from_json(read_metadata(path)["model"]) if path else None
    return start if start and start.name == config.model else None


def _probe_config() -> ModelConfig:
    """A configuration for looking at pictures before there is a model."""
    return ModelConfig(name="crnn", alphabet="0", max_length=1, image_size=(1, 1))


def check_feasible(model: CaptchaModel, datasets: dict[str, CaptchaDataset]) -> None:
    """Refuse labels that the model cannot write, before the first step rather than as an infinite loss.

    Raises:
        UserError: names such labels, how many there are, and what to change.
    """
    for split, dataset in datasets.items():
        for index, text in enumerate(dataset.texts):
            model.codec.encode(text, dataset.names(index))
        bad = infeasible_labels(dataset.texts, model.codec, model.steps)
        if bad:
            shown = ", ".join(repr(dataset.texts[i]) for i in bad[:5])
            what = "widen --image_size" if model.codec.head == "ctc" else "raise --max_length"
            raise UserError(
                f"{len(bad):,} of {len(dataset):,} {split} labels do not fit the {model.steps} steps of this model "
                f"({shown}{', ...' if len(bad) > 5 else ''}): {what}"
            )


# --------------------------------------------------------------------------------------------------------------------
# Model


class Trained(NamedTuple):
    """Which parts of a model have trained weights at the start, all of theirs."""

    backbone: bool = False
    head: bool = False


def initialise(config: TrainConfig, model_config: ModelConfig) -> tuple[CaptchaModel, Trained, list[str]]:
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


def load_teacher(config: TrainConfig, model: CaptchaModel) -> CaptchaModel | None:
    """The larger model whose readings of each column `model` learns to give too, on its device; see `--teacher`.

    Raises:
        UserError: its columns or characters are others than those of `model`, or it cannot be used at all.
    """
    if config.teacher is None:
        return None
    device = next(model.parameters()).device
    teacher = load_model(config.teacher, device).to(memory_format=torch.channels_last)
    set_requires_grad(teacher, False)
    for name in ("alphabet", "image_size", "channels", "resize", "normalise"):
        theirs, ours = (getattr(m.config, name) for m in (teacher, model))
        if theirs != ours:
            raise UserError(f"--teacher {config.teacher} has the {name} {theirs!r}, this run {ours!r}: make them one")
    if not isinstance(model.codec, CTCCodec) or not isinstance(teacher.codec, CTCCodec) or teacher.steps != model.steps:
        raise UserError(f"--teacher {config.teacher} does not read in the same steps as this run: both must use CTC")
    return teacher


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters, with weight decay for matrices and kernels alone: it does biases and norms no good."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one optimizer and one schedule."""

    name: str
    epochs: int
    learning_rate: float
    frozen: bool


def build_optimizer(config: TrainConfig, phase: Phase, model: nn.Module) -> torch.optim.Optimizer:
    """Optimizer of one phase, over the parameters it trains."""
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(parameter_groups(model, config.weight_decay), lr=phase.learning_rate)


def build_schedule(config: TrainConfig, phase: Phase, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Learning-rate schedule of one phase of `steps` optimizer steps; `plateau` steps by epoch, the others by step."""
    schedulers = torch.optim.lr_scheduler
    warmup = max(1, round(config.warmup * steps))
    if config.schedule == "onecycle":  # Smith and Topin, 2018
        # torch divides by the length of either slope: the shortest cycle is up, peak, down.
        total = max(steps, 3)
        rising = min(max(warmup, 2), total - 1)
        return schedulers.OneCycleLR(optimizer, max_lr=phase.learning_rate, total_steps=total, pct_start=rising / total)
    if config.schedule == "plateau":
        return schedulers.ReduceLROnPlateau(optimizer, factor=0.5, patience=3)
    if config.schedule == "cosine":
        return schedulers.LambdaLR(
            optimizer,
            lambda step: (
                min(1.0, (step + 1) / warmup)
                * 0.5
                * (1 + math.cos(math.pi * min(1.0, max(0, step - warmup) / max(1, steps - warmup))))
            ),
        )
    return schedulers.LambdaLR(optimizer, lambda step: 1.0)


# --------------------------------------------------------------------------------------------------------------------
# Validation


@torch.no_grad()
def validate(
    model: CaptchaModel, dataset: CaptchaDataset, config: TrainConfig, accelerator: Accelerator
) -> dict[str, Any]:
    """Metrics of a split; every process reads its share.

    The model sees each picture as `CaptchaPredictor` does at its first look, so the batch size changes nothing.

    Returns:
        `loss`, `sequence_accuracy`, `sequence_accuracy_ignore_case`, `character_accuracy`, `cer`, `n`, `blanks` (share
        of steps whose likeliest class is blank) and `samples` (five pairs of label and reading).
    """
    model.eval()
    rank, world = accelerator.process_index, accelerator.num_processes
    mine = list(range(rank, len(dataset), world))
    batches = [mine[i : i + config.batch_size] for i in range(0, len(mine), config.batch_size)]
    rows: list[tuple[int, str, float, float]] = []
    for pixels, texts, indices in chain.from_iterable(build_loader(dataset, batches, config.workers, parts=None)):
        with accelerator.autocast():
            logits = model(pixels.to(accelerator.device))
        losses = model.losses(logits, texts).tolist()
        readings = model.codec.decode(logits.float().log_softmax(-1).cpu().numpy())
        blanks = (logits.argmax(-1) == 0).float().mean(1).tolist()
        rows += [(i, r.text, x, b) for i, r, x, b in zip(indices, readings, losses, blanks, strict=True)]
    rows = sorted(gather_object(rows))
    readings = [text for _, text, _, _ in rows]
    return {
        "loss": float(np.mean([loss for _, _, loss, _ in rows])),
        **text_metrics(dataset.texts, readings),
        "blanks": float(np.mean([blank for _, _, _, blank in rows])),
        "samples": list(zip(dataset.texts[:5], readings[:5], strict=True)),
    }


# --------------------------------------------------------------------------------------------------------------------
# Training


@contextmanager
def stop_on_signal(accelerator: Accelerator) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a request that the training loop sees after its step; a second one ends at once."""

    def ask(number: int, frame: Any) -> None:
        accelerator.set_trigger()
        signal.signal(number, signal.default_int_handler)

    try:
        previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread, the demo for instance, which has its own way to stop
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


PART_SIZE = 16  # pictures of one width, at least: fewer make slow steps, and BatchNorm takes its statistics from them


def read_state(out: Path) -> dict[str, Any]:
    """The training state of the run folder `out`, as `Trainer.save_state` wrote it.

    Raises:
        UserError: there is none, or it is damaged.
    """
    path = out / STATE_FILE
    if not path.is_file():
        raise UserError(f"{out} holds no state to resume from: start the run without --resume")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{path} is damaged: start the run again in another folder") from error


class Trainer:
    """One training run: its parts, its place in the phases, and its state on disk.

    The place is (phase, epoch within the phase, step within the epoch). Order and augmentation depend on the seed and
    the epoch alone and the generators of dropout are saved, so a resumed run repeats an undisturbed one bit for bit, if
    it has as many processes. (Among more than two, sums of gradients may round in another order.)
    """

    def __init__(
        self,
        config: TrainConfig,
        model: CaptchaModel,
        phases: list[Phase],
        datasets: dict[str, Any],
        accelerator: Accelerator,
        provenance: dict[str, Any],
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
        quiet: bool = False,
    ) -> None:
        self.quiet = quiet  # only the progress bar
        self.config, self.model, self.phases, self.datasets = config, model, phases, datasets
        self.accelerator, self.provenance, self.on_epoch = accelerator, provenance, on_epoch
        self.teacher = load_teacher(config, model)
        self.averaged: AveragedModel | None = None  # from the step on where averaging begins
        self.out = Path(str(config.out))
        self.place = {"phase": 0, "epoch": 0, "step": 0}
        self.history: list[dict[str, Any]] = []
        self.best: list[float] | None = None
        self.stale = 0  # epochs since the best one
        self.loss_sum, self.loss_count, self.seconds, self.waited = 0.0, 0, 0.0, 0.0
        self.state: dict[str, Any] | None = None
        self.saved = time.monotonic()

    # -- state on disk

    @property
    def state_path(self) -> Path:
        """Optimizer, schedule, generators, weights and place."""
        return self.out / STATE_FILE

    def save_state(self) -> None:
        """Write the state atomically: a kill at any moment leaves the last good one whole. All processes call it."""
        self.saved = time.monotonic()
        # What a process draws depends on its share of the batches, so each has generators of its own.
        cuda = [torch.cuda.get_rng_state(self.accelerator.device)] if self.accelerator.device.type == "cuda" else []
        generators = gather_object([[torch.get_rng_state(), *cuda]])
        if not self.accelerator.is_main_process:
            return
        state = {
            "fingerprint": self.provenance.get("data", {}).get("fingerprint"),
            "config": dataclasses.asdict(self.model.config),
            "place": self.place,
            "history": json.dumps(self.history),
            "best": self.best,
            "stale": self.stale,
            "running": [self.loss_sum, self.loss_count, self.seconds, self.waited],
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict() if self.averaged else None,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else None,
            "generators": generators,
        }
        buffer = io.BytesIO()  # torch itself would report a full disk as a bug of its own
        torch.save(state, buffer)
        write_atomically(self.state_path, lambda path: path.write_bytes(buffer.getbuffer()))

    def load_state(self) -> None:
        """Read the state that `save_state` wrote.

        Raises:
            UserError: there is none, or it is damaged.
        """
        state = read_state(self.out)
        try:
            self.model.load_state_dict(state["model"])
            if averaged := state.get("averaged"):
                self.averaged = AveragedModel(self.model, use_buffers=True)
                self.averaged.load_state_dict(averaged)
        except (RuntimeError, KeyError) as error:
            raise UserError(f"{self.state_path} is damaged: start the run again in another folder") from error
        self.place, self.best, self.stale = state["place"], state["best"], state["stale"]
        self.history = json.loads(state["history"])
        self.loss_sum, self.loss_count, self.seconds, self.waited = [*state["running"], 0.0][:4]  # 3 in older states
        self.state = state

    def _restore_phase(self) -> None:
        """Second half of `load_state`, once the phase's optimizer exists."""
        if self.state is None:
            return
        self.optimizer.load_state_dict(self.state["optimizer"])
        self.schedule.load_state_dict(self.state["schedule"])
        if self.accelerator.scaler and self.state.get("scaler"):
            self.accelerator.scaler.load_state_dict(self.state["scaler"])
        # An older state has those of the main process alone.
        generators = self.state.get("generators") or [[self.state["rng"], *self.state["cuda_rng"][:1]]]
        rng, *cuda = generators[self.accelerator.process_index % len(generators)]
        torch.set_rng_state(rng)
        if cuda and self.accelerator.device.type == "cuda":
            torch.cuda.set_rng_state(cuda[0], self.accelerator.device)
        self.state = None

    # -- the loop

    def fit(self) -> None:
        """Run the phases that are left.

        Raises:
            Interrupted: the user asked to stop; the state is saved.
            UserError: the loss is not a number any more.
        """
        if self.finished:
            return
        with stop_on_signal(self.accelerator):
            for number in range(self.place["phase"], len(self.phases)):
                if number != self.place["phase"]:
                    self.place = {"phase": number, "epoch": 0, "step": 0}
                    self.stale = 0  # patience with the head alone says nothing of the whole network
                if not self._run_phase(self.phases[number]):
                    break  # early stopping ends the run, not just a phase

    @property
    def finished(self) -> bool:
        """Whether no phase has anything left to train."""
        phase = self.phases[self.place["phase"]]
        last = self.place["phase"] == len(self.phases) - 1 and self.place["epoch"] >= phase.epochs
        return last or self._out_of_patience(phase)

    def _out_of_patience(self, phase: Phase) -> bool:
        return bool(self.config.patience and not phase.frozen and self.stale >= self.config.patience)

    def _run_phase(self, phase: Phase) -> bool:
        accelerator, config = self.accelerator, self.config
        set_requires_grad(self.model, True)
        set_requires_grad(self.model.backbone, not phase.frozen)
        trained = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self._say(f"Phase {phase.name}: {phase.epochs} epochs, {trained:,} of {count_parameters(self.model):,} weights")
        steps = len(self._batches(0, 0))
        # Wrapping anew for each phase, since DistributedDataParallel fixes which gradients it exchanges.
        self.wrapped = accelerator.prepare_model(self.model)
        self.optimizer = accelerator.prepare_optimizer(build_optimizer(config, phase, self.model))
        # The bare schedule: accelerate's wrapper would step once per process, and ours counts global batches.
        self.schedule = build_schedule(config, phase, self.optimizer.optimizer, steps * phase.epochs)
        self._restore_phase()
        if self.place["epoch"] == 0 and self.place["step"] == 0:
            self.save_state()
        with closing(self._load(phase.epochs)) as loaded:
            while self.place["epoch"] < phase.epochs:
                # Before the epoch: a run that stopped early must not go on for one more when it is resumed.
                if self._out_of_patience(phase):
                    accelerator.print(f"No better reading for {self.stale} epochs: stopping early.")
                    return False
                self._run_epoch(phase, loaded)
        return True

    def _load(self, epochs: int) -> Iterator[Any]:
        """The batches of all epochs that a phase has left: its loader's processes never stop to be started anew."""
        first, done = self._epoch_number(), self.place["epoch"]
        starts = [self.place["step"], *[0] * (epochs - done - 1)]
        batches = [self._batches(first + i, start) for i, start in enumerate(starts)]
        parts = min(PARTS, max(1, batches[0].batch_size // self.accelerator.num_processes // PART_SIZE))
        yield from build_loader(self.datasets["train"], chain.from_iterable(batches), self.config.workers, parts)

    def _say(self, text: str) -> None:
        if not self.quiet:
            self.accelerator.print(text, flush=True)

    def _epoch_number(self) -> int:
        return sum(p.epochs for p in self.phases[: self.place["phase"]]) + self.place["epoch"]

    def _batches(self, epoch: int, start: int) -> EpochBatches:
        a = self.accelerator
        return EpochBatches(
            len(self.datasets["train"]),
            self.config.batch_size,
            self.config.seed,
            epoch,
            start,
            a.process_index,
            a.num_processes,
        )

    def _run_epoch(self, phase: Phase, loaded: Iterator[Any]) -> None:
        accelerator, epoch = self.accelerator, self._epoch_number()
        total = sum(p.epochs for p in self.phases)
        batches = self._batches(epoch, self.place["step"])
        train_mode(self.model)
        started = time.perf_counter()
        bar = tqdm(
            total=batches.total,
            initial=batches.start,
            desc=f"epoch {epoch + 1}/{total}",
            unit="step",
            disable=not accelerator.is_main_process,
            leave=False,
            dynamic_ncols=True,
        )
        with bar:
            for parts in self._waiting(islice(loaded, len(batches))):
                loss = self._step(parts, batches.batch_size)
                self.place["step"] += 1
                self._average(phase, batches.total)
                bar.update()
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
                stop = accelerator.check_trigger()
                if stop or self._save_is_due():
                    now = time.perf_counter()
                    self.seconds, started = self.seconds + now - started, now
                    self.save_state()
                if stop:
                    raise Interrupted(str(self.out))
        self.seconds += time.perf_counter() - started
        self._end_epoch(phase, epoch)

    def _save_is_due(self) -> bool:
        """Whether the state is old, by the clock of any process: they save it together."""
        due = torch.tensor(float(time.monotonic() - self.saved > SAVE_SECONDS), device=self.accelerator.device)
        return bool(self.accelerator.reduce(due, "sum"))

    def _waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches; adds up the time that they let the network wait."""
        started = time.perf_counter()
        while (batch := next(batches, None)) is not None:
            self.waited += time.perf_counter() - started
            yield batch
            started = time.perf_counter()
        self.waited += time.perf_counter() - started

    def _step(self, parts: list[Part], global_batch: int) -> float:
        accelerator, config = self.accelerator, self.config
        self.optimizer.zero_grad()
        total = torch.zeros((), device=accelerator.device)
        for pixels, texts, indices in parts:
            pixels = pixels.to(accelerator.device)
            with accelerator.autocast():
                logits = self.wrapped(pixels)
            losses = self.model.losses(logits, texts, config.label_smoothing)
            if self.teacher:
                taught = self._distil(logits, pixels, texts)
                losses = torch.lerp(losses, taught, config.teacher_weight)
            losses = losses * self._weights(indices)
            # Processes average their gradients: scaled so that the average is that of the global batch, whatever the
            # split.
            loss = losses.sum() * accelerator.num_processes / global_batch
            accelerator.backward(loss)
            total += loss.detach()
        if config.clip_norm:
            accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        self.optimizer.step()
        if config.schedule != "plateau":
            self.schedule.step()
        value = float(accelerator.reduce(total, "mean"))
        if not math.isfinite(value):
            raise UserError(
                f"the loss is {value} after step {self.place['step'] + 1} of epoch {self._epoch_number() + 1}: lower "
                "--learning_rate (a third of it, say) or set --mixed_precision no"
            )
        self.loss_sum += value
        self.loss_count += 1
        return value

    def _distil(self, logits: torch.Tensor, pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """How far the columns' classes are from the teacher's, (N,): the sum of the Kullback-Leibler divergences over
        the label's length, to be of one size with CTC's loss (Hinton et al., 2015, arXiv:1503.02531)."""
        with torch.no_grad(), self.accelerator.autocast():
            wanted = cast(CaptchaModel, self.teacher)(pixels)
        wanted, given = (x.float().log_softmax(-1) for x in (wanted, logits))
        lengths = torch.tensor([len(text) for text in texts], device=logits.device)
        return nn.functional.kl_div(given, wanted, reduction="none", log_target=True).sum((1, 2)) / lengths

    def _average(self, phase: Phase, steps: int) -> None:
        """Let the weights of this step count in the mean, once the last part of the phase has begun: see `--average`.

        Stochastic weight averaging (Izmailov et al., 2018, arXiv:1803.05407), but of all steps. BatchNorm's statistics
        are averaged like the weights.
        """
        done = self.place["epoch"] * steps + self.place["step"]
        if phase.frozen or done <= (1 - self.config.average) * phase.epochs * steps:
            return
        if self.averaged is None:
            self.averaged = AveragedModel(self.model, use_buffers=True)
        self.averaged.update_parameters(self.model)

    @property
    def kept(self) -> CaptchaModel:
        """The model that is validated and saved: the mean of the last steps, where there is one."""
        return cast(CaptchaModel, self.averaged.module) if self.averaged else self.model

    def _weights(self, indices: Sequence[int]) -> torch.Tensor:
        """What each sample counts in the loss, (N,)."""
        train = self.datasets["train"]
        real = len(train.real) if isinstance(train, MixedDataset) else len(train)
        weights = [1.0 if index < real else self.config.synthetic_weight for index in indices]
        return torch.tensor(weights, device=self.accelerator.device)

    def _end_epoch(self, phase: Phase, epoch: int) -> None:
        accelerator = self.accelerator
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "phase": phase.name,
            "train_loss": self.loss_sum / max(self.loss_count, 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(self.seconds, 3),
            "waited": round(self.waited, 3),
        }
        score = None
        if len(self.datasets["validation"]):
            row["validation"] = validate(self.kept, self.datasets["validation"], self.config, accelerator)
            score = [row["validation"]["sequence_accuracy"], -row["validation"]["loss"]]
            if self.config.schedule == "plateau":
                self.schedule.step(row["validation"]["cer"])
        elif self.config.schedule == "plateau":
            self.schedule.step(row["train_loss"])
        # Without a validation split the last epoch counts as the best.
        better = score is None or self.best is None or score > self.best
        self.best, self.stale = (score, 0) if better else (self.best, self.stale + 1)
        self.history.append(row)
        self.loss_sum, self.loss_count, self.seconds, self.waited = 0.0, 0, 0.0, 0.0
        self.place = {"phase": self.place["phase"], "epoch": self.place["epoch"] + 1, "step": 0}
        if accelerator.is_main_process:
            metrics = {"validation": _numbers(row.get("validation", {})), "epoch": epoch + 1}
            if better:
                save_checkpoint(self.kept, self.out / "best.safetensors", metrics=metrics, provenance=self.provenance)
            save_checkpoint(self.kept, self.out / "last.safetensors", metrics=metrics, provenance=self.provenance)
            write_text(self.out / "history.json", json.dumps(self.history, indent=1))
            self._say(describe_epoch(row, better))
        stopping = self.config.patience and self.stale >= self.config.patience
        if self.place["epoch"] % self.config.save_every == 0 or self.place["epoch"] == phase.epochs or stopping:
            self.save_state()
        accelerator.log(
            {"train/loss": row["train_loss"], "train/learning_rate": row["learning_rate"]}
            | {f"validation/{k}": v for k, v in _numbers(row.get("validation", {})).items()},
            step=epoch + 1,
        )
        accelerator.wait_for_everyone()
        if self.on_epoch:
            self.on_epoch(row)


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if isinstance(value, int | float)}


def describe_epoch(row: dict[str, Any], better: bool) -> str:
    """One line of figures, one of sample readings, and a hint where the numbers call for one."""
    line = f"epoch {row['epoch']:3d}  loss {row['train_loss']:.4f}  {row['seconds']:.1f} s"
    if row["waited"] > 0.1 * row["seconds"]:
        line += f", {row['waited'] / row['seconds']:.0%} of it waiting for pictures (--workers)"
    validation = row.get("validation")
    if not validation:
        return line
    line += (
        f"  | validation: loss {validation['loss']:.4f}  sequence accuracy {validation['sequence_accuracy']:.2%}"
        f"  CER {validation['cer']:.2%}  blanks {validation['blanks']:.0%}{'  *' if better else ''}"
    )
    line += "\n           " + "  ".join(f"{truth}→{reading or NOTHING}" for truth, reading in validation["samples"])
    if all(not reading for _, reading in validation["samples"]):
        line += (
            "\n           Only blanks so far: usual in the first epochs. If it lasts, train longer, raise "
            "--learning_rate, or look whether the labels are right."
        )
    return line


LEAST = {
    **dict.fromkeys(("batch_size", "save_every", "synthetic_count", "limit", "max_length", "hidden", "threads"), 1),
    **dict.fromkeys(("epochs", "frozen_epochs", "workers", "patience", "seed", "folds"), 0),
    **dict.fromkeys(("mix_synthetic", "synthetic_weight", "splice", "augment", "lean", "teacher_weight", "average"), 0),
    **dict.fromkeys(("weight_decay", "clip_norm", "warmup", "label_smoothing"), 0),
    **dict.fromkeys(("learning_rate", "frozen_learning_rate", "dropout"), 0),
    **dict.fromkeys(("height", "other_height"), 16),
}
BELOW = {"splice": 1, "average": 1, "warmup": 1, "teacher_weight": 1, "dropout": 1, "label_smoothing": 1}


def check_settings(config: TrainConfig) -> None:
    """Refuse numbers that make no sense, before any work is done.

    Raises:
        UserError: names the setting and the values it may take.
    """
    for name, least in LEAST.items():
        value = getattr(config, name)
        if value is not None and not least <= value < BELOW.get(name, math.inf):
            below = f" and below {BELOW[name]}" if name in BELOW else ""
            raise UserError(f"--{name} is {value}: it must be {least} or more{below}")
    if config.share is not None and not 0 <= config.share <= 1:
        raise UserError(f"--share is {config.share}: it must be 0 to 1")
    if config.tracker not in ("none", *map(str, get_available_trackers())):
        raise UserError(f"the tracker {config.tracker} is not installed: pip install {config.tracker}")
    if config.other_height and (config.splice or config.mix_synthetic):
        raise UserError("--other_height goes neither with --splice nor with --mix_synthetic: leave one out")
    if config.image_size is not None and min(config.image_size) < 16:
        raise UserError(f"--image_size is {list(config.image_size)}: each side must be 16 or more")


def train_model(config: TrainConfig, on_epoch: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Train, evaluate and draw.

    Args:
        config: the settings, a run folder among them; with `resume`, those saved in it take their place.
        on_epoch: called after each epoch with its row of history.json.

    Returns:
        `out` (the run folder), `checkpoint` (its best weights), `history`, and `report` of the test split, if any.

    Raises:
        UserError: something the user can mend.
        Interrupted: stopped by Ctrl-C or SIGTERM, with the state saved.
    """
    unused: list[str] = []
    if config.resume:
        given, config = config, load_run_config(config)
        unused = unused_settings(given, config)
    check_settings(config)
    out = Path(str(config.out))
    torch.set_num_threads(config.threads or max(1, available_cores() // _local_processes()))
    accelerator = Accelerator(
        cpu=config.cpu,
        mixed_precision=config.mixed_precision,
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=str(out),
    )
    if not config.resume and (out / STATE_FILE).exists():
        raise UserError(f"{out} already holds a run: go on with it by --resume, or name another --out")
    if unused:
        accelerator.print(f"The run goes on with the settings saved in {out}; not used: {', '.join(unused)}.")
    torch.manual_seed(config.seed)
    # Machines may have disks of their own: one process of each prepares the data.
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        folder = prepare_data(config, accelerator.print)
    info = load_info(folder)
    # Before anything depends on the data: other pictures make other batches, and may make another model.
    saved = read_state(out) if config.resume else {}
    if saved.get("fingerprint") not in (None, info["fingerprint"]):  # None: an older state
        raise UserError(
            f"the data has changed since the run in {out} began (pictures or labels are new, gone, or others in "
            f"{', '.join(info['sources'])}): put back what was there to go on, or start a new run with another --out"
        )
    model_config = resolve_model_config(config, folder)
    if config.resume:  # as it was begun: the weights it started from may be others by now, and so the defaults
        begun = saved.get("config")  # an older state has none, and knew no normalised pictures
        unknown = dataclasses.replace(model_config, normalise=bool(config.normalise))
        model_config = ModelConfig.from_json(begun) if begun else unknown
    del saved
    model, trained, notes = initialise(config, model_config)
    if config.height and config.height != model_config.image_size[0]:
        notes.append(
            f"The input has {model_config.image_size[0]} rows: --height is for natural inputs and CTC heads, where "
            "--image_size does not decide."
        )
    for note in [] if config.resume else notes:
        accelerator.print(note)
    if config.other_height and (model_config.resize != "natural" or model.codec.head != "ctc"):
        raise UserError("--other_height goes with --resize natural and a CTC head alone: leave it out")
    if config.other_height and accelerator.num_processes > 1:  # a share of one picture would have fewer parts
        raise UserError("--other_height goes with one process: leave it out, or start main.py without accelerate")
    datasets = load_data(
        folder, model_config, seed=config.seed, augment=config.augment, lean=config.lean, limit=config.limit
    )
    check_feasible(model, datasets)
    n, measured = len(datasets["train"]), config.evaluate and len(datasets["test"]) == 0
    if n < LEAST_LABELS:
        named = ", ".join(info["sources"])
        raise UserError(f"{named}: {n} training pictures are too few to learn from, {LEAST_LABELS} are the least")
    if measured and n < config.folds:
        raise UserError(f"{n} labels cannot be measured in {config.folds} parts: lower --folds or add labels")
    accelerator.print(
        f"Data {folder}: {len(datasets['train']):,} train, {len(datasets['validation']):,} validation, "
        f"{len(datasets['test']):,} test. Alphabet of {len(model.alphabet)}: {model.alphabet.characters}\n"
        f"Model {config.model}: {count_parameters(model):,} weights, input {model_config.channels}x"
        f"{model_config.image_size[0]}x{model_config.image_size[1]}, {model.steps} steps, on {accelerator.device}"
    )
    if extra := "".join(c for c in model.alphabet.characters if c not in info["alphabet"] and not config.alphabet):
        accelerator.print(
            f"No label has {extra} either, but so few may lack them by chance: they stay readable (--alphabet decides)."
        )
    provenance = {
        # Without what only concerns this disk: a checkpoint may be published.
        "config": {key: value for key, value in dataclasses.asdict(config).items() if key not in ("out", "resume")},
        "data": {"fingerprint": info["fingerprint"], "sources": info["sources"], "n": len(datasets["train"])},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    phases = plan_phases(config, len(datasets["train"]), trained.backbone, accelerator.print)
    # channels_last: oneDNN's depthwise convolutions train 1.5 times as fast on a CPU this way.
    model = model.to(accelerator.device, memory_format=torch.channels_last)
    trained_on = training_pictures(config, datasets["train"], model, trained, accelerator.print)
    trainer = Trainer(config, model, phases, datasets | {"train": trained_on}, accelerator, provenance, on_epoch)
    if config.resume:
        trainer.load_state()
        if trainer.finished:
            accelerator.print(f"The run in {out} was trained to its end: nothing is left to train.")
        else:
            accelerator.print(f"Going on after epoch {trainer._epoch_number()}, step {trainer.place['step']}.")
    elif accelerator.is_main_process:
        write_text(out / "config.yaml", yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))
    if config.tracker != "none":
        _start_tracker(accelerator, config)
    result: dict[str, Any] = {"out": out, "checkpoint": out / "best.safetensors", "history": trainer.history}
    try:
        trainer.fit()
        build = partial(initialise, config, model_config)
        cross_validated = measured and config.folds > 0  # which chooses the share
        if accelerator.is_main_process and all(trained) and not cross_validated:
            _keep_blended(result["checkpoint"], build, usual_share(config, n), config.seed)
        if accelerator.is_main_process and config.evaluate:
            result["report"] = finish_run(config, result, datasets)
            accelerator.log({f"test/{k}": v for k, v in _numbers(result["report"] or {}).items()})
        if cross_validated:
            result["report"] = cross_validate(config, build, phases, datasets["train"], accelerator)
        if accelerator.is_main_process and result.get("report"):
            note_metrics(result["checkpoint"], result["report"])
            print(describe_expectation(result["report"]))
            print(f"Read with it: python predict.py --checkpoint {out} FOLDER")
    finally:
        if config.tracker != "none":
            accelerator.end_training()
    return result


def _local_processes() -> int:
    import os

    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _plain(config: TrainConfig) -> dict[str, Any]:
    values = dataclasses.asdict(config) | {"resume": False}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def load_run_config(config: TrainConfig) -> TrainConfig:
    """The configuration saved in the run folder `config.out`.

    Raises:
        UserError: no folder is named, or it holds no run.
    """
    if config.out is None:
        raise UserError("--resume needs the run folder: add --out saved_models/RUN")
    path = Path(config.out) / "config.yaml"
    if not path.is_file():
        raise UserError(f"{config.out} holds no run to resume (there is no {path.name} in it)")
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if unknown := set(values) - {field.name for field in dataclasses.fields(TrainConfig)}:
        raise UserError(f"{path} has the setting {min(unknown)}, which this version does not know: remove that line")
    if values.get("image_size"):
        values["image_size"] = tuple(values["image_size"])
    return dataclasses.replace(TrainConfig(**values), out=config.out, resume=True)


def unused_settings(given: TrainConfig, saved: TrainConfig) -> list[str]:
    """What was asked for beside `--resume` and is not what the run was started with, as flags with their values.

    A setting that was given its default cannot be told from one that was not given, and is not named.
    """
    asked, used, default = _plain(given), _plain(saved), _plain(TrainConfig())
    return [f"--{key} {value}" for key, value in asked.items() if value not in (default[key], used[key])]


def default_epochs(n: int, pretrained: bool) -> int:
    """Epochs of the whole network on `n` labels."""
    if pretrained:
        return min(60, max(6, round(FINE_TUNED / math.sqrt(n)), min(OFTEN, MANY_SEEN // n)))
    return min(60, max(8, round(PICTURES_SEEN / n)))


def usual_share(config: TrainConfig, n: int) -> float:
    """How far to go from trained weights with `n` labels: they mislead less, the more there are."""
    return config.share if config.share is not None else max(0.5, round(1 - HELD_BACK / math.sqrt(n), 2))


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


def _start_tracker(accelerator: Accelerator, config: TrainConfig) -> None:
    flat = {
        key: str(value) if isinstance(value, list | tuple) or value is None else value
        for key, value in _plain(config).items()
    }
    try:
        accelerator.init_trackers("captcha", config=flat)
    except Exception as error:  # each tracker has its own; the cause is its store or its settings
        reason = str(error).strip().splitlines()
        raise UserError(
            f"the tracker {config.tracker} cannot be used ({reason[0] if reason else type(error).__name__}): mend its "
            "settings or leave --tracker out"
        ) from error


def cross_validate(
    config: TrainConfig,
    build: Callable[[], tuple[CaptchaModel, Trained, list[str]]],
    phases: list[Phase],
    dataset: CaptchaDataset,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """What to expect of new pictures: the labels in `config.folds` parts, each read by a model trained on the others.

    Where training starts from trained weights, these parts also tell how far to go from them: see `choose_share`. So
    few to choose from hardly flatter the figures.

    Stops early once so many pictures are measured that more would hardly narrow the interval. Finished parts are kept
    in the run folder, so that an interrupted run goes on with the next.

    Args:
        build: makes the model as it is before training.
        phases: as for the run itself.
        dataset: all labelled pictures.

    Returns:
        The report over all pictures measured, as `accuracy_calculator.evaluate` gives it, with `folds`: parts measured,
        `share`: see `model.blend`, and where training starts from a checkpoint, `before`: what that one reads right of
        the same pictures, and `before_ignore_case`.

    Raises:
        UserError: a part cannot be trained.
        Interrupted: asked to stop.
    """
    n, parts = len(dataset), config.folds
    usual = usual_share(config, n)
    out = Path(str(config.out))
    if config.resume and (out / "metrics.json").is_file():  # measured already, and the parts are gone
        return json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    order = np.random.default_rng((config.seed, parts)).permutation(n)
    texts: list[str] = []
    readings: dict[float, list[Prediction]] = {}
    unseen: list[bytes] = []
    part = 0
    while part < parts and len(texts) < ENOUGH_UNSEEN:
        held_out = order[part::parts]
        kept = dataset.subset(np.setdiff1d(order, held_out))
        folder = out / f"fold-{part + 1}"
        torch.manual_seed(config.seed)
        start, trained, _ = build()
        if not (folder / "done").exists():
            accelerator.print(f"Measuring, part {part + 1} of {parts}: training without {len(held_out)} of {n} labels")
            shutil.rmtree(folder, ignore_errors=True)
            quiet = dataclasses.replace(config, out=str(folder), save_every=10**6)
            model = copy.deepcopy(start).to(accelerator.device, memory_format=torch.channels_last)
            mixed = training_pictures(config, kept, model, trained, lambda _: None)
            empty = dataset.subset([])
            try:
                Trainer(quiet, model, phases, {"train": mixed, "validation": empty}, accelerator, {}, quiet=True).fit()
            except Interrupted:
                raise Interrupted(str(out)) from None
            if accelerator.is_main_process:
                (folder / STATE_FILE).unlink()
                (folder / "done").touch()
        texts += [dataset.texts[i] for i in held_out]
        images = [dataset.images[int(i)] for i in held_out]
        unseen += images
        shares = sorted({*SHARES, usual}) if all(trained) else [1.0]
        for share, found in _read_shares(folder / "best.safetensors", start, shares, images, config):
            readings.setdefault(share, []).extend(found)
        part += 1
    share = choose_share(texts, {s: [p.text for p in found] for s, found in readings.items()}, usual)
    found = readings[share]
    report = detailed_metrics(texts, [p.text for p in found], [p.confidence for p in found])
    report |= {"folds": part, "share": share}
    if first := starting_weights(config):
        found = _predictor(first, config).predict(unseen, batch_size=config.batch_size)
        were = text_metrics(texts, [p.text for p in found])
        report["before"] = were["sequence_accuracy"]
        report["before_ignore_case"] = were["sequence_accuracy_ignore_case"]
    if accelerator.is_main_process:
        _keep_blended(out / "best.safetensors", build, share, config.seed)
        for number in range(parts):
            shutil.rmtree(out / f"fold-{number + 1}", ignore_errors=True)
        write_text(out / "metrics.json", json.dumps(report, indent=1))
    return report


def choose_share(texts: Sequence[str], readings: Mapping[float, Sequence[str]], usual: float) -> float:
    """How far to go from trained weights, by what each share of the way reads in pictures that it did not learn from.

    Args:
        texts: the labels.
        readings: for each share those of the same pictures.
        usual: the share to take unless another has fewer errors by more than one standard error (the rule of Breiman
            et al., 1984): few pictures tell little, and all of them else choose by chance. The only share, where
            `readings` has one.
    """
    errors = {share: np.array(count_edits(texts, found)) for share, found in readings.items()}
    best = min(errors, key=lambda share: (errors[share].sum(), -share))
    if usual not in errors or len(texts) < 2:
        return best
    fewer = errors[usual] - errors[best]
    return best if fewer.mean() > fewer.std(ddof=1) / math.sqrt(len(texts)) else usual


def _predictor(checkpoint: Path, config: TrainConfig) -> CaptchaPredictor:
    """A checkpoint, to read with on the device and the threads of the run."""
    return CaptchaPredictor(checkpoint, device="cpu" if config.cpu else None, threads=config.threads)


def _read_shares(
    checkpoint: Path, start: CaptchaModel, shares: Sequence[float], images: list[bytes], config: TrainConfig
) -> Iterator[tuple[float, list[Prediction]]]:
    """What the weights of each share of the way from `start` to the checkpoint read."""
    predictor = _predictor(checkpoint, config)
    model = cast(TorchBackend, predictor.backend).model
    tuned = copy.deepcopy(model)
    for share in shares:
        model.load_state_dict(blend(start, tuned, share))
        yield share, predictor.predict(images, batch_size=config.batch_size)


def _keep_blended(
    checkpoint: Path, build: Callable[[], tuple[CaptchaModel, Trained, list[str]]], share: float, seed: int
) -> None:
    """Take the weights of a finished run back to a share of the way, once: a run that was stopped after it finds its
    mark."""
    metadata = read_metadata(checkpoint)
    if share == 1 or "share" in metadata["provenance"]:
        return
    torch.manual_seed(seed)  # rows of new characters started at random
    start, tuned = build()[0], load_model(checkpoint)
    tuned.load_state_dict(blend(start, tuned, share))
    metrics = {name: value for name, value in metadata["metrics"].items() if name != "validation"}  # of other weights
    save_checkpoint(tuned, checkpoint, metrics=metrics, provenance=metadata["provenance"] | {"share": share})
    print(f"The weights kept lie {share:g} of the way from the first to the last (--share).")


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


def note_metrics(checkpoint: Path, report: dict[str, Any]) -> None:
    """Write the measured figures into a checkpoint's metadata."""
    metadata = read_metadata(checkpoint)
    figures = {key: report[key] for key in (*_numbers(report), "wilson_95")}
    key = "cross_validation" if "folds" in report else "test"
    save_checkpoint(
        load_model(checkpoint),
        checkpoint,
        metrics=metadata["metrics"] | {key: figures},
        provenance=metadata["provenance"],
    )


def finish_run(
    config: TrainConfig, result: dict[str, Any], datasets: dict[str, CaptchaDataset]
) -> dict[str, Any] | None:
    """Measure the best weights on the test split, as the demo's user will meet them, and draw the pictures.

    Returns:
        The report, or None where there is no test split.
    """
    from captcha_reader.plots.evaluation import plot_confusion
    from captcha_reader.plots.grid import plot_comparison
    from captcha_reader.plots.training import plot_history

    out = result["out"]
    plot_history(result["history"], out / "curves.png")
    test = datasets["test"]
    if len(test) == 0:
        print(f"Weights, history and curves: {out}" + ("" if config.folds else " (no test split to measure on)"))
        return None
    predictor = _predictor(result["checkpoint"], config)
    images: list[Image.Image | bytes] = [test.images[i] for i in range(len(test))]
    report, predictions = evaluate(predictor, images, test.texts, config.batch_size)
    print_report(report)
    write_text(out / "metrics.json", json.dumps(report, indent=1))
    first = min(25, len(test))
    pictures = [test.image(i) for i in range(first)]
    plot_comparison(pictures, predictions[:first], test.texts[:first], out / "predictions.png")
    plot_confusion(report, out / "confusion.png")
    print(f"Weights, history and pictures: {out}")
    return report


def main() -> int:
    """Command line."""
    config = parse_config(TrainConfig, "Train a captcha reader.")
    if config.out is None and not config.resume:
        config.out = str(SAVED_MODELS / f"{config.model}-{datetime.now():%Y%m%d-%H%M%S}")
    try:
        train_model(config)
    except Interrupted as stopped:
        print(f"\nStopped, everything is saved. Go on with: python main.py --resume --out {stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:  # before the first step, after the last one, or for the second time
        saved = config.out is not None and (Path(config.out) / STATE_FILE).exists()
        then = f"go on with what was saved: python main.py --resume --out {config.out}" if saved else "nothing is saved"
        print(f"\nStopped; {then}.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    run(main)
