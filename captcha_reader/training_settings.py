"""The settings of a training: which numbers make sense, what the run folder keeps, what a resumed run takes anew."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import yaml
from accelerate.tracking import get_available_trackers

from captcha_reader.cli import load_settings
from captcha_reader.config import MAX_SOFTEN, STREAM_EPOCH, TrainConfig
from captcha_reader.errors import UserError
from captcha_reader.files import write_text
from captcha_reader.training_state import STATE_FILE, read_state

CONFIG_FILE = "config.yaml"
LEAST = {
    **dict.fromkeys(
        ("batch_size", "save_every", "synthetic_count", "limit", "max_length", "hidden", "threads", "pictures"), 1
    ),
    **dict.fromkeys(("epochs", "frozen_epochs", "workers", "patience", "seed", "folds", "flat_start"), 0),
    **dict.fromkeys(("mix_synthetic", "synthetic_weight", "splice", "augment", "shear", "teacher_weight"), 0),
    **dict.fromkeys(("average", "ema", "weight_decay", "clip_norm", "warmup", "stop_after", "other_height_from"), 0),
    **dict.fromkeys(("learning_rate", "frozen_learning_rate", "dropout"), 0),
    **dict.fromkeys(("height", "other_height"), 16),
}
BELOW = dict.fromkeys(("splice", "average", "ema", "warmup", "teacher_weight", "dropout", "other_height_from"), 1)
# What concerns one process and not the run: a run that goes on takes these as they are given then.
OF_THE_PROCESS = ("threads", "workers", "stop_after", "progress")
STABLE = ("wsd", "constant")  # schedules of which a longer run begins as a shorter one
DECAY = 0.2  # share of the steps, at the end, over which `wsd` lowers the rate


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
    if config.folds == 1:
        raise UserError("--folds is 1: it must be 2 or more, since each part is read by a model of the others, or 0")
    if config.blend is not None and not 0 <= config.blend <= 1:
        raise UserError(f"--blend is {config.blend}: it must be 0 to 1")
    if config.soften is not None and not 0 <= config.soften <= MAX_SOFTEN:
        raise UserError(f"--soften is {config.soften}: it must be 0 to {MAX_SOFTEN:g}")
    if config.ema and config.average:
        raise UserError("--ema and --average are two ways to average the weights: leave one out")
    if config.tracker not in ("none", *map(str, get_available_trackers())):
        raise UserError(f"the tracker {config.tracker} is not installed: pip install {config.tracker}")
    if config.other_height and (config.splice or config.mix_synthetic):
        raise UserError("--other_height goes neither with --splice nor with --mix_synthetic: leave one out")
    if config.other_height_from and not (config.other_height and config.pictures):
        raise UserError("--other_height_from goes with --other_height and --pictures: give these, or leave it out")
    if config.image_size is not None and min(config.image_size) < 16:
        raise UserError(f"--image_size is {list(config.image_size)}: each side must be 16 or more")


def plain_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings that config.yaml holds, as YAML can."""
    values = {**dataclasses.asdict(config), "resume": False}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}


def save_run_config(out: Path, values: dict[str, Any]) -> None:
    """Write the settings that a run is resumed with into its folder."""
    write_text(out / CONFIG_FILE, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def load_run_config(config: TrainConfig) -> TrainConfig:
    """The settings saved in the run folder `config.out`, with those of `config` that concern this process alone.

    Raises:
        UserError: no folder is named, or it holds no run.
    """
    if config.out is None:
        raise UserError("--resume needs the run folder: add --out saved_models/RUN")
    path = Path(config.out) / CONFIG_FILE
    if not path.is_file():
        raise UserError(f"{config.out} holds no run to resume (there is no {path.name} in it)")
    saved = load_settings(TrainConfig, path)
    given = {name: getattr(config, name) for name in OF_THE_PROCESS}
    asked = {name: value for name, value in given.items() if value != getattr(TrainConfig, name)}
    return dataclasses.replace(saved, out=config.out, resume=True, **asked)


def with_time_left(config: TrainConfig, started: float) -> TrainConfig:
    """The settings with what is left of `--stop_after` for a training that begins now.

    Args:
        config: the settings.
        started: when the first training of the process began, by `time.monotonic`.
    """
    if not config.stop_after:
        return config
    return dataclasses.replace(config, stop_after=max(config.stop_after - (time.monotonic() - started), 0.001))


def change_length(saved: TrainConfig, pictures: int) -> TrainConfig:
    """Settings of a run on a stream that is to be of another length, which its config.yaml then says: as if begun so.

    Raises:
        UserError: the weights would not be those of a run that was begun so.
    """
    out = Path(str(saved.out))
    if not saved.pictures or saved.schedule not in STABLE:
        schedules = " or ".join(STABLE)
        raise UserError(f"--pictures changes runs on a stream with --schedule {schedules} alone: leave it out")
    if pictures % STREAM_EPOCH or saved.pictures % STREAM_EPOCH:
        raise UserError(
            f"--pictures is {pictures} instead of {saved.pictures}: both must be multiples of {STREAM_EPOCH}"
        )
    place = read_state(out / STATE_FILE)["place"]
    done = place["epoch"] * STREAM_EPOCH + place["step"] * saved.batch_size
    share = min(1 - DECAY if saved.schedule == "wsd" else 1, saved.other_height_from or 1)
    stable = share * min(pictures, saved.pictures)
    if done > stable:
        raise UserError(
            f"the run in {out} has had {done} pictures, too many to be one of {pictures} instead of {saved.pictures}: "
            "leave --pictures out"
        )
    values = yaml.safe_load((out / CONFIG_FILE).read_text(encoding="utf-8"))
    save_run_config(out, values | {"pictures": pictures})
    return dataclasses.replace(saved, pictures=pictures)


def unused_settings(given: TrainConfig, saved: TrainConfig) -> list[str]:
    """What was asked for beside `--resume` and is not what the run was started with, as flags with their values.

    A setting that was given its default cannot be told from one that was not given, and is not named.
    """
    asked, used, default = plain_settings(given), plain_settings(saved), plain_settings(TrainConfig())
    return [f"--{key} {value}" for key, value in asked.items() if value not in (default[key], used[key])]
