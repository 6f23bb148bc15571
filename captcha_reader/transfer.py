"""Start a network from the weights of another: other characters, colors, input heights, lengths; blended weights.

Works on state dicts and configurations, so it needs none of the networks themselves.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from captcha_reader.checkpoint import load_weights, read_metadata
from captcha_reader.config import ModelConfig
from captcha_reader.errors import UserError
from captcha_reader.text import Alphabet


class Network(Protocol):
    """What is needed of a model: see `model.CaptchaModel`."""

    config: ModelConfig
    alphabet: Alphabet
    head: Any  # `class_axes`: names of the head's parameters with a row per class -> the axis that the rows lie on

    def state_dict(self) -> dict[str, Any]:
        """Its weights by name."""


def blend(start: Network, tuned: Network, weight: float) -> dict[str, Tensor]:
    """Weights interpolated between `start` (weight 0) and what it became by training (weight 1), as a state of `tuned`.

    Between the two, what a model knew and what it learned from few labels often read better together than either
    (Wortsman et al., 2022, arXiv:2109.01903).
    """
    old = start.state_dict()
    return {
        name: torch.lerp(old[name].to(new), new, weight) if new.is_floating_point() else new
        for name, new in tuned.state_dict().items()
    }


@dataclasses.dataclass(frozen=True)
class Transfer:
    """What `load_into` did.

    Attributes:
        shared: characters whose rows were kept.
        new: characters that start from random rows.
        dropped: characters of the checkpoint that the model does not read.
        fresh: names of parameters that start anew, since the checkpoint has none of their shape.
    """

    shared: str
    new: str
    dropped: str
    fresh: tuple[str, ...]


def load_into(model: Network, path: str | Path) -> Transfer:
    """Start `model` from a checkpoint, also one with another alphabet, length or input size.

    The rows of the characters that both alphabets hold are kept, other class rows stay random. The first convolution is
    adapted between gray and color, and the layer of a CTC head that joins the rows to another input height. Other
    parameters whose shape depends on the input size or the length stay random where these differ. A backbone of another
    family stays random as a whole, under a head that can read already.

    Raises:
        UserError: the file cannot be used, or it holds nothing for this model.
    """
    source = ModelConfig.from_json(read_metadata(path)["model"], path)
    target = model.config
    related = source.backbone == target.backbone
    same_family = source.backbone.split("-")[0] == target.backbone.split("-")[0]
    if not related and (same_family or source.head != target.head):
        raise UserError(
            f"{path} has the backbone {source.backbone!r} and cannot start a model with {target.backbone!r}: "
            f"use --model {source.name}"
        )
    old, new = load_weights(path), model.state_dict()
    old_alphabet, new_alphabet = Alphabet(source.alphabet), model.alphabet
    shared = [c for c in new_alphabet.characters if c in old_alphabet]
    pairs = [(0, 0), *((new_alphabet.encode(c)[0], old_alphabet.encode(c)[0]) for c in shared)]  # the blank is shared
    to, origin = (torch.tensor(column) for column in zip(*pairs, strict=True))
    fresh = [] if related else ["backbone"]
    for name, tensor in new.items():
        if not related and name.startswith("backbone."):
            continue
        axis = model.head.class_axes.get(name.removeprefix("head.")) if source.head == target.head else None
        weights = old.get(name)
        if weights is None:
            fresh.append(name)
        elif axis is not None and _same_but(tensor, weights, axis):
            tensor.index_copy_(axis, to, weights.index_select(axis, origin))
        elif tensor.shape == weights.shape:
            tensor.copy_(weights)
        elif tensor.dim() == 4 and weights.dim() == 4 and _same_but(tensor, weights, 1):
            tensor.copy_(_adapt_channels(weights, tensor.shape[1]))
        elif name == "head.reduce.weight" and _same_but(tensor, weights, 2):
            tensor.copy_(adapt_rows(weights, tensor.shape[2]))
        else:
            fresh.append(name)
    characters = "".join(c for c in new_alphabet.characters if c not in old_alphabet)
    dropped = "".join(c for c in old_alphabet.characters if c not in new_alphabet)
    return Transfer(shared="".join(shared), new=characters, dropped=dropped, fresh=tuple(fresh))


def _same_but(a: Tensor, b: Tensor, axis: int) -> bool:
    shapes = [tuple(s for i, s in enumerate(t.shape) if i != axis) for t in (a, b)]
    return a.dim() == b.dim() and shapes[0] == shapes[1]


def _adapt_channels(weights: Tensor, channels: int) -> Tensor:
    """First convolution between gray and color: a gray picture gives the same response as its RGB copy."""
    gray = weights.sum(1, keepdim=True)
    return gray.expand(-1, channels, -1, -1) / channels


def adapt_rows(weights: Tensor, rows: int) -> Tensor:
    """The kernel that joins the rows of a feature map, (outputs, inputs, h, 1), for a map of `rows`: each new row has
    the part of the old ones that lies where it does."""
    shares = weights.repeat_interleave(rows, 2) / rows
    return shares.unflatten(2, (rows, weights.shape[2])).sum(3)
