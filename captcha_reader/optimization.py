"""How weights are moved and averaged: the optimizer and the schedule of a phase, and the mean of the steps."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from captcha_reader.config import TrainConfig
from captcha_reader.training_settings import DECAY

WARMUP_PICTURES = 100_000  # of which `wsd` warms up for a share


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one optimizer and one schedule."""

    name: str
    epochs: int
    learning_rate: float
    frozen: bool


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters, with weight decay for matrices and kernels alone: it does biases and norms no good."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]


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
        rise = schedulers.LinearLR(optimizer, start_factor=1 / warmup, total_iters=max(warmup - 1, 1))
        fall = schedulers.CosineAnnealingLR(optimizer, T_max=max(steps - warmup, 1))
        return schedulers.SequentialLR(optimizer, [rise, fall], milestones=[warmup])
    if config.schedule == "wsd":  # Hu et al., 2024, arXiv:2404.06395; Haegele et al., 2024, arXiv:2405.18392
        # The rise counts pictures, not shares of the run: a longer run begins as a shorter one.
        rising_steps = max(1, round(config.warmup * WARMUP_PICTURES / config.batch_size))
        return schedulers.LambdaLR(optimizer, partial(_stable_rate, rise=rising_steps, steps=steps))
    return schedulers.ConstantLR(optimizer, factor=1.0)


def _stable_rate(step: int, rise: int, steps: int) -> float:
    """Share of the peak rate at a step: rising, stable, falling as 1 minus the root of what is over of the decay."""
    begin = round((1 - DECAY) * steps)
    if step >= begin:
        return 1 - math.sqrt(min(1, (step - begin) / max(steps - begin, 1)))
    return min(1, (step + 1) / rise)


def build_average(model: nn.Module, decay: float) -> AveragedModel:
    """The mean of the weights of many steps, BatchNorm's statistics with them.

    Args:
        model: the weights of the first of them.
        decay: of an exponential mean (Polyak and Juditsky, 1992); 0 for the plain mean of all of them.
    """
    if not decay:
        return AveragedModel(model, use_buffers=True)

    def average(averaged: Any, current: Any, steps: Any) -> None:
        # Shorter while there are few steps (TensorFlow's rule): else the mean of a short run is full of its start.
        get_ema_multi_avg_fn(min(decay, (1 + int(steps)) / (10 + int(steps))))(averaged, current, steps)

    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)
