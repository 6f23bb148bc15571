"""The training loop: phases of epochs, steps, validation, the state on disk, and how a run goes on from it.

`Trainer` trains one model. Its place is (phase, epoch within the phase, step within the epoch), and everything random
depends on the seed and that place, or is saved with the state: a run that was stopped or killed and resumed ends with
the weights of an undisturbed one, bit for bit.

A data source is anything with `len()`, `transform` and `source[epoch, index]`, which gives (pixels, label, index):
pictures on disk, or an endless stream that draws picture number `epoch * len + index`. The place in the phases is then
the position in the stream, too.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.optim.swa_utils import AveragedModel

from captcha_reader.checkpoint import not_finite, save_checkpoint
from captcha_reader.config import TrainConfig
from captcha_reader.errors import UserError
from captcha_reader.files import write_atomically, write_json
from captcha_reader.optimization import Phase, build_average, build_optimizer, build_schedule
from captcha_reader.progress import Progress
from captcha_reader.reading.metrics import text_metrics
from captcha_reader.text import CTCCodec
from captcha_reader.training_state import STATE_FILE, damaged, read_state, restore_optimizer, restore_schedule
from data_loader import PARTS, CaptchaDataset, EpochBatches, MixedDataset, Part, build_loader
from model import CaptchaModel, count_parameters, load_model, set_requires_grad, train_mode

SAVE_SECONDS = 300  # a kill costs a long epoch no more than this
PART_SIZE = 16  # pictures of one width, at least: fewer make slow steps, and BatchNorm takes its statistics from them
LOWER_RATE = "lower --learning_rate (a third of it, say) or set --mixed_precision no"


class Interrupted(Exception):
    """The run was asked to stop; the state is saved in the run folder that the message names."""


class TimeUp(Interrupted):
    """As `Interrupted`, after the seconds that `--stop_after` gives."""


# --------------------------------------------------------------------------------------------------------------------
# Teacher, validation, signals


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
    for name in ("alphabet", "image_size", "channels", "resize", "normalize"):
        theirs, ours = (getattr(m.config, name) for m in (teacher, model))
        if theirs != ours:
            raise UserError(f"--teacher {config.teacher} has the {name} {theirs!r}, this run {ours!r}: make them one")
    if not isinstance(model.codec, CTCCodec) or not isinstance(teacher.codec, CTCCodec) or teacher.steps != model.steps:
        raise UserError(f"--teacher {config.teacher} does not read in the same steps as this run: both must use CTC")
    return teacher


@torch.no_grad()
def validate(
    model: CaptchaModel, dataset: CaptchaDataset, config: TrainConfig, accelerator: Accelerator
) -> dict[str, Any]:
    """Metrics of a split; every process reads its share.

    The model sees each picture as `CaptchaPredictor` does at the first view, so the batch size changes nothing.

    Returns:
        `loss`, `sequence_accuracy`, `sequence_accuracy_ignore_case`, `character_accuracy`, `cer`, `n`, `blanks` (share
        of steps whose most likely class is blank) and `samples` (five pairs of label and reading).
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


# --------------------------------------------------------------------------------------------------------------------
# The trainer


class Trainer:
    """One training: its parts, its place in the phases, and its state on disk.

    Order and augmentation depend on the seed and the epoch alone and the generators of dropout are saved, so a resumed
    run repeats an undisturbed one bit for bit, if it has as many processes. (Among more than two, sums of gradients may
    round in another order.)

    Args:
        config: the settings.
        model: on the device that it is trained on.
        phases: in order.
        datasets: `train`, a data source (see above), and for `validation` a `CaptchaDataset`, which may be empty; with
            `fitted`, some of the training pictures as they are, it is told how many of these are read right.
        accelerator: the processes and the device.
        provenance: for the checkpoints.
        progress: is told each step and epoch.
        on_epoch: called after each epoch with its row of history.json.
        part: what `progress` calls this training.
        measure_every: epochs between two measurements on `validation` and `fitted`; the last epoch is always measured.
        state_path: of the optimizer, the schedule, the generators, the weights and the place; by default in the run
            folder.
        write: keep weights and history in the run folder; else the weights are in `kept` at the end, and the state is
            written where the training is long or stopped alone.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: CaptchaModel,
        phases: list[Phase],
        datasets: dict[str, Any],
        accelerator: Accelerator,
        provenance: dict[str, Any],
        *,
        progress: Progress | None = None,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
        part: str = "training",
        measure_every: int = 1,
        state_path: Path | None = None,
        write: bool = True,
    ) -> None:
        self.config, self.model, self.phases, self.datasets = config, model, phases, datasets
        self.accelerator, self.provenance, self.on_epoch = accelerator, provenance, on_epoch
        self.progress, self.part = progress or Progress(), part
        self.measure_every, self.write = measure_every, write
        self.teacher = load_teacher(config, model)
        self.averaged: AveragedModel | None = None  # from the step on where averaging begins
        self.out = Path(str(config.out))
        self.state_path = state_path or self.out / STATE_FILE
        self.place = {"phase": 0, "epoch": 0, "step": 0}
        self.history: list[dict[str, Any]] = []
        self.best: list[float] | None = None
        self.stale = 0  # epochs since the best one
        self.loss_sum, self.loss_count, self.seconds, self.waited = 0.0, 0, 0.0, 0.0
        self.state: dict[str, Any] | None = None
        self.started = self.saved = time.monotonic()

    # -- state on disk

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
            "start": self.provenance.get("start"),
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
        state = read_state(self.state_path)
        try:
            self.model.load_state_dict(state["model"])
            if averaged := state.get("averaged"):
                self.averaged = build_average(self.model, self.config.ema)
                self.averaged.load_state_dict(averaged)
            last = self.phases[state["place"]["phase"]]
        except (RuntimeError, KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
            raise damaged(self.state_path) from error
        if state["place"]["epoch"] > last.epochs or state["place"]["step"] > self._batches(0, 0).total:
            raise damaged(self.state_path)
        self.place, self.best, self.stale = state["place"], state["best"], state["stale"]
        self.history = state["history"]
        self.loss_sum, self.loss_count, self.seconds, self.waited = [*state["running"], 0.0][:4]  # 3 in older states
        self.state = state

    def _restore_phase(self) -> None:
        """Second half of `load_state`, once the phase's optimizer exists."""
        if self.state is None:
            return
        state, self.state = self.state, None
        try:
            restore_optimizer(self.optimizer, state["optimizer"])
            restore_schedule(self.schedule, state["schedule"])
            if self.accelerator.scaler and state.get("scaler"):
                self.accelerator.scaler.load_state_dict(state["scaler"])
            # An older state has those of the main process alone.
            generators = state.get("generators") or [[state["rng"], *state["cuda_rng"][:1]]]
            rng, *cuda = generators[self.accelerator.process_index % len(generators)]
            torch.set_rng_state(rng)
            if cuda and self.accelerator.device.type == "cuda":
                torch.cuda.set_rng_state(cuda[0], self.accelerator.device)
        except (RuntimeError, KeyError, AttributeError, IndexError, TypeError, ValueError) as error:
            raise damaged(self.state_path) from error

    # -- the loop

    def fit(self) -> None:
        """Run the phases that are left.

        Raises:
            Interrupted: the user asked to stop; the state is saved.
            UserError: the loss or the weights are not numbers any more.
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
        if self.write and self.best is None and len(self.datasets["validation"]):
            raise UserError(f"the validation loss was never a finite number: {LOWER_RATE}")

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
        steps = len(self._batches(0, 0))
        if self.write:
            self.progress.message(
                f"Phase {phase.name}: {phase.epochs} epochs, {trained:,} of {count_parameters(self.model):,} weights"
            )
        done = self.place["epoch"] * steps + self.place["step"]
        self.progress.begin(self.part, phase.name, phase.epochs, steps * phase.epochs, done)
        # Wrapping anew for each phase, since DistributedDataParallel fixes which gradients it exchanges.
        self.wrapped = accelerator.prepare_model(self.model)
        self.optimizer = accelerator.prepare_optimizer(build_optimizer(config, phase, self.model))
        # The bare schedule: accelerate's wrapper would step once per process, and ours counts global batches.
        self.schedule = build_schedule(config, phase, self.optimizer.optimizer, steps * phase.epochs)
        self._restore_phase()
        if self.write and self.place["epoch"] == 0 and self.place["step"] == 0:
            self.save_state()
        with closing(self._load(phase.epochs)) as loaded:
            while self.place["epoch"] < phase.epochs:
                # Before the epoch: a run that stopped early must not go on for one more when it is resumed.
                if self._out_of_patience(phase):
                    self.progress.message(f"No better reading for {self.stale} epochs: stopping early.")
                    return False
                self._run_epoch(phase, loaded)
        return True

    def _load(self, epochs: int) -> Iterator[Any]:
        """The batches of all epochs that a phase has left: its loader's processes never stop to be started anew."""
        first, done = self.epoch_number, self.place["epoch"]
        starts = chain([self.place["step"]], repeat(0, epochs - done - 1))
        batches = (self._batches(first + i, start) for i, start in enumerate(starts))
        share = self._batches(0, 0).batch_size // self.accelerator.num_processes
        parts = min(PARTS, max(1, share // PART_SIZE))
        yield from build_loader(self.datasets["train"], chain.from_iterable(batches), self.config.workers, parts)

    @property
    def epoch_number(self) -> int:
        """Epochs that are done, over all phases."""
        return sum(p.epochs for p in self.phases[: self.place["phase"]]) + self.place["epoch"]

    def _batches(self, epoch: int, start: int) -> EpochBatches:
        size, rank, world = len(self.datasets["train"]), self.accelerator.process_index, self.accelerator.num_processes
        return EpochBatches(size, self.config.batch_size, self.config.seed, epoch, start, rank, world)

    def _run_epoch(self, phase: Phase, loaded: Iterator[Any]) -> None:
        epoch, epochs = self.epoch_number, sum(p.epochs for p in self.phases)
        batches = self._batches(epoch, self.place["step"])
        train_mode(self.model)
        started = time.perf_counter()
        for parts in self._waiting(islice(loaded, len(batches))):
            loss = self._step(parts, batches.batch_size)
            self.place["step"] += 1
            self._average(phase, batches.total)
            self.progress.step(epoch + 1, epochs, self.place["step"], batches.total, loss)
            time_up = self._time_is_up()
            stop = self.accelerator.check_trigger()
            if stop or self._save_is_due():
                now = time.perf_counter()
                self.seconds, started = self.seconds + now - started, now
                self.save_state()
            if stop:
                raise TimeUp(str(self.out)) if time_up else Interrupted(str(self.out))
        self.seconds += time.perf_counter() - started
        self._end_epoch(phase, epoch)

    def _time_is_up(self) -> bool:
        """Whether `--stop_after` is over; if so, all processes stop after this step."""
        if not self.config.stop_after or time.monotonic() - self.started < self.config.stop_after:
            return False
        self.accelerator.set_trigger()
        return True

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
            losses = self._losses(logits, texts)
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
            place = f"step {self.place['step'] + 1} of epoch {self.epoch_number + 1}"
            raise UserError(f"the loss is {value} after {place}: {LOWER_RATE}")
        self.loss_sum += value
        self.loss_count += 1
        return value

    def _losses(self, logits: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """Of each sample, (N,); those of a flat start before `--flat_start` pictures."""
        if self.config.flat_start:
            step = self.epoch_number * self._batches(0, 0).total + self.place["step"]
            if step * self.config.batch_size < self.config.flat_start:
                return cast(CTCCodec, self.model.codec).even_loss(logits, texts)
        return self.model.losses(logits, texts)

    def _distil(self, logits: torch.Tensor, pixels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        """How far the columns' classes are from the teacher's, (N,): the sum of the Kullback-Leibler divergences over
        the label's length, to be of one size with CTC's loss (Hinton et al., 2015, arXiv:1503.02531)."""
        with torch.no_grad(), self.accelerator.autocast():
            wanted = cast(CaptchaModel, self.teacher)(pixels)
        wanted, given = (x.float().log_softmax(-1) for x in (wanted, logits))
        lengths = torch.tensor([len(text) for text in texts], device=logits.device)
        return nn.functional.kl_div(given, wanted, reduction="none", log_target=True).sum((1, 2)) / lengths

    def _average(self, phase: Phase, steps: int) -> None:
        """Let the weights of this step count in the mean.

        With `--ema`, the mean of all steps of the whole network, which forgets old ones exponentially (Polyak and
        Juditsky, 1992). With `--average`, the plain mean once the last part of the phase has begun: stochastic weight
        averaging (Izmailov et al., 2018, arXiv:1803.05407), but of all steps. BatchNorm's statistics are averaged like
        the weights.
        """
        done = self.place["epoch"] * steps + self.place["step"]
        begins = 0.0 if self.config.ema else 1 - self.config.average
        if phase.frozen or done <= begins * phase.epochs * steps:
            return
        if self.averaged is None:
            self.averaged = build_average(self.model, self.config.ema)
        self.averaged.update_parameters(self.model)

    @property
    def kept(self) -> CaptchaModel:
        """The model that is validated and saved: the mean of the steps, where there is one."""
        return cast(CaptchaModel, self.averaged.module) if self.averaged else self.model

    def _weights(self, indices: Sequence[int]) -> torch.Tensor:
        """What each sample counts in the loss, (N,)."""
        train = self.datasets["train"]
        real = len(train.real) if isinstance(train, MixedDataset) else len(train)
        weights = [1.0 if index < real else self.config.synthetic_weight for index in indices]
        return torch.tensor(weights, device=self.accelerator.device)

    # -- the end of an epoch

    def _end_epoch(self, phase: Phase, epoch: int) -> None:
        if bad := not_finite(self.kept.state_dict()):
            raise UserError(f"the weights {bad} are not finite numbers after epoch {epoch + 1}: {LOWER_RATE}")
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "phase": phase.name,
            "train_loss": self.loss_sum / max(self.loss_count, 1),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(self.seconds, 3),
            "waited": round(self.waited, 3),
        }
        epochs = sum(p.epochs for p in self.phases)
        better = self._measure(row, last=epoch + 1 == epochs)
        self.history.append(row)
        self.loss_sum, self.loss_count, self.seconds, self.waited = 0.0, 0, 0.0, 0.0
        self.place = {"phase": self.place["phase"], "epoch": self.place["epoch"] + 1, "step": 0}
        if self.write and self.accelerator.is_main_process:
            metrics = {"validation": numbers(row.get("validation", {})), "epoch": epoch + 1}
            for name in ("best", "last") if better else ("last",):
                save_checkpoint(
                    self.kept, self.out / f"{name}.safetensors", metrics=metrics, provenance=self.provenance
                )
            write_json(self.out / "history.json", self.history)
        self.progress.epoch(row, better, epochs)
        stopping = self.config.patience and self.stale >= self.config.patience
        due = self.place["epoch"] % self.config.save_every == 0 or self.place["epoch"] == phase.epochs or stopping
        if self.write and due:
            self.save_state()
        if self.write:
            self.accelerator.log(
                {"train/loss": row["train_loss"], "train/learning_rate": row["learning_rate"]}
                | {f"validation/{k}": v for k, v in numbers(row.get("validation", {})).items()},
                step=epoch + 1,
            )
        self.accelerator.wait_for_everyone()
        if self.on_epoch:
            self.on_epoch(row)

    def _measure(self, row: dict[str, Any], last: bool) -> bool:
        """Add the figures of the epoch to its row, where it is to be measured; True if its weights are to be kept."""
        due = last or row["epoch"] % self.measure_every == 0
        config, accelerator = self.config, self.accelerator
        fitted = self.datasets.get("fitted")
        if due and fitted is not None:
            row["train_accuracy"] = validate(self.kept, fitted, config, accelerator)["sequence_accuracy"]
        validation = self.datasets["validation"]
        if not len(validation) or not due:
            if config.schedule == "plateau":
                self.schedule.step(row["train_loss"])
            return not len(validation)  # without a validation split the last epoch counts as the best
        row["validation"] = validate(self.kept, validation, config, accelerator)
        loss = row["validation"]["loss"]
        if config.schedule == "plateau":  # a fold is measured by its part of the labels, which must choose nothing
            self.schedule.step(row["validation"]["cer"] if self.write else row["train_loss"])
        if not math.isfinite(loss):
            self.progress.message(
                f"The validation loss is {loss}, so these weights are not kept as best: {LOWER_RATE}."
            )
        score = [row["validation"]["sequence_accuracy"], -loss]
        better = math.isfinite(loss) and (self.best is None or score > self.best)
        self.best, self.stale = (score, 0) if better else (self.best, self.stale + 1)
        # Nothing of a stream is learned by heart, and its schedule ends low: its last weights count, at both heights.
        return better or (bool(config.pictures) and math.isfinite(loss))


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """The entries that are numbers."""
    return {key: value for key, value in metrics.items() if isinstance(value, int | float)}
