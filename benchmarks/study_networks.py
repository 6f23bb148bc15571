"""Candidates of the network study (study.py): what each changes of the recipe in configs/reader.yaml.

Backbones that only the study knows are entered into `model.BACKBONES` here, as anybody may enter one. Where the rows
are not collapsed by the head's full-height kernel, the backbone does it and gives one row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from captcha_reader.config import ModelConfig
from model import BACKBONES, ResidualBackbone


class MaxRows(nn.Module):
    """(N, D, h, w) to (N, D, 1, w): the largest value of each column, at whatever height it is."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(2, keepdim=True)


class AttendRows(nn.Module):
    """(N, D, h, w) to (N, D, 1, w): the mean of each column's rows, weighted by what they hold, four times."""

    def __init__(self, width: int, sets: int = 4) -> None:
        super().__init__()
        self.sets, self.scores = sets, nn.Conv2d(width, sets, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.scores(x).softmax(2).unsqueeze(2)  # (N, sets, 1, h, w)
        return (x.unflatten(1, (self.sets, -1)) * weights).sum(3, keepdim=True).flatten(1, 2)


class Collapsing(ResidualBackbone):
    """As `ResidualBackbone`, with the rows collapsed by `collapse`, which is told the channels."""

    def __init__(self, config: ModelConfig, collapse: Callable[[int], nn.Module], **sizes: Any) -> None:
        super().__init__(config, **sizes)
        self.collapse = collapse(self.out_channels)

    def forward(self, images: Tensor) -> Tensor:
        return self.collapse(self.layers(images))


class InvertedBlock(nn.Module):
    """A depthwise convolution, then two matrix products (Liu et al., 2022, arXiv:2201.03545), with BatchNorm and ReLU,
    which cost nothing in ONNX Runtime."""

    def __init__(self, width: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, expansion * width, 1)
        self.shrink = nn.Conv2d(expansion * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shrink(F.relu(self.expand(self.norm(self.mix(x)))))


class InvertedBackbone(nn.Module):
    """Height stride 16, width stride 4, of `InvertedBlock`s.

    Args:
        config: of the model.
        stem: channels after the first step.
        stages: channels of the three stages.
        blocks: of each.
        patches: the first step is one matrix product over patches of 4x4 pixels, instead of a convolution of stride 2
            and a block.
        expansion: of the blocks.
    """

    mean, std = (0.5,), (0.5,)

    def __init__(
        self,
        config: ModelConfig,
        stem: int,
        stages: tuple[int, int, int],
        blocks: tuple[int, int, int],
        patches: bool = False,
        expansion: int = 2,
    ) -> None:
        super().__init__()
        size, stride, padding, inputs = (4, 4, 0, stages[0]) if patches else (3, 2, 1, stem)
        layers: list[nn.Module] = [
            nn.Conv2d(config.channels, inputs, size, stride, padding, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
        ]
        if not patches:
            layers.append(InvertedBlock(stem, 5, expansion))
        steps = zip(stages, blocks, ((2, 2), (2, 1), (2, 1)), strict=True)
        for number, (outputs, count, step) in enumerate(steps):
            if number or not patches:
                layers += [nn.Conv2d(inputs, outputs, 3, step, padding=1, bias=False), nn.BatchNorm2d(outputs)]
                layers.append(nn.ReLU())
            layers += [InvertedBlock(outputs, 7 if number < 2 else 5, expansion) for _ in range(count)]
            inputs = outputs
        self.layers = nn.Sequential(*layers)
        self.out_channels = inputs

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


LARGE: dict[str, Any] = {"stem": 32, "stages": (64, 96, 160)}
BACKBONES.update(
    {
        "study-even-attend": partial(Collapsing, collapse=AttendRows, stem=32, stages=(48, 80, 128)),
        "study-deep": partial(ResidualBackbone, stem=32, stages=(48, 80, 128), blocks=(1, 2, 2)),
        "study-larger": partial(ResidualBackbone, stem=32, stages=(80, 128, 192)),
        "study-largest": partial(ResidualBackbone, stem=48, stages=(96, 160, 256)),
        "study-max": partial(Collapsing, collapse=lambda width: MaxRows(), **LARGE),
        "study-attend": partial(Collapsing, collapse=AttendRows, **LARGE),
        "study-inverted": partial(InvertedBackbone, stem=32, stages=(64, 96, 160), blocks=(2, 3, 3)),
        "study-patches": partial(InvertedBackbone, stem=0, stages=(96, 128, 160), blocks=(3, 3, 3), patches=True),
    }
)

# name: (what it is, settings that differ from the recipe's)
CANDIDATES: dict[str, tuple[str, dict[str, Any]]] = {
    "today": ("the network shipped so far", {"backbone": "residual-wide", "hidden": 160}),
    "even": ("the same with channels that are multiples of 16", {"backbone": "residual-even", "hidden": 160}),
    "even-48": ("that one with 48 rows", {"backbone": "residual-even", "hidden": 160, "height": 48}),
    "even-48-attend": (
        "its rows collapsed by attention",
        {"backbone": "study-even-attend", "hidden": 160, "height": 48},
    ),
    "deep": ("that one with two blocks in the last two stages", {"backbone": "study-deep", "hidden": 160}),
    "large": ("more channels", {"backbone": "residual-large", "hidden": 192}),
    "large-48": ("that one with 48 rows", {"backbone": "residual-large", "hidden": 192, "height": 48}),
    "large-max": ("its rows collapsed by their maximum", {"backbone": "study-max", "hidden": 192}),
    "large-attend": ("its rows collapsed by attention", {"backbone": "study-attend", "hidden": 192}),
    "larger": ("still more channels", {"backbone": "study-larger", "hidden": 224}),
    "larger-64": ("64 rows", {"backbone": "study-larger", "hidden": 224, "height": 64}),
    "largest": ("four times the operations", {"backbone": "study-largest", "hidden": 256}),
    "inverted": ("depthwise convolutions and matrix products", {"backbone": "study-inverted", "hidden": 192}),
    "patches": ("a stem of patches, then the same", {"backbone": "study-patches", "hidden": 192}),
}
