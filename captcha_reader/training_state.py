"""The training state of a run folder: reading it, and checking what it says before anything is built from it.

It is a file of torch's own, read without running anything in it (`weights_only`). `trainer.Trainer` writes it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from captcha_reader.checkpoint import not_finite
from captcha_reader.config import ModelConfig
from captcha_reader.errors import UserError

STATE_FILE = "state.pt"


def read_state(path: Path) -> dict[str, Any]:
    """The training state in a file, as `Trainer.save_state` wrote it, checked.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} holds no state to resume from: start the run without --resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        state["history"] = json.loads(state["history"])
        good = _is_state(state)
    except Exception as error:  # torch and pickle raise whatever the bytes lead them to
        raise damaged(path) from error
    if not good or not_finite(state["model"]):
        raise damaged(path)
    if state.get("config") is not None:
        ModelConfig.from_json(state["config"], path)
    return state


def damaged(path: Path) -> UserError:
    """The error that names a state nothing can be done with."""
    return UserError(f"{path} is damaged: start the run again in another folder")


def _is_state(state: dict[str, Any]) -> bool:
    """Whether the entries that do not concern torch's own objects have the types and ranges that they must have."""

    def numbers(value: Any) -> bool:
        return isinstance(value, list) and all(type(x) in (int, float) for x in value)

    place, rows = state["place"], state["history"]
    return (
        place.keys() == {"phase", "epoch", "step"}
        and all(type(value) is int and value >= 0 for value in place.values())
        and isinstance(rows, list)
        and all(isinstance(row, dict) for row in rows)
        and (state["best"] is None or (numbers(state["best"]) and len(state["best"]) == 2))
        and type(state["stale"]) is int
        and numbers(state["running"])
        and 3 <= len(state["running"]) <= 4
        and isinstance(state.get("fingerprint"), str | None)
        and isinstance(state.get("start"), str | None)
        and isinstance(state.get("config"), dict | None)
        and all(isinstance(tensor, torch.Tensor) for tensor in state["model"].values())
        and isinstance(state["optimizer"], dict)
        and isinstance(state["schedule"], dict)
    )


def restore_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Load an optimizer's state; a tensor of another shape than its parameter's would only fail in the first step."""
    optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for value in optimizer.state.get(parameter, {}).values():
                if isinstance(value, torch.Tensor) and value.dim() and value.shape != parameter.shape:
                    raise ValueError("a tensor of the optimizer has another shape than its parameter")


def restore_schedule(schedule: Any, state: dict[str, Any]) -> None:
    """Load a schedule's state, which torch takes unchecked."""
    fresh = schedule.state_dict()
    if state.keys() != fresh.keys():
        raise ValueError("the schedule has other entries")
    for name, value in fresh.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and (not isinstance(state[name], int | float) or not math.isfinite(state[name])):
            raise ValueError(f"{name} of the schedule is no number")
    schedule.load_state_dict(state)
