"""The checkpoint file: weights in `.safetensors` form, and what is needed to use them as JSON beside them.

The metadata has these texts: `format`, and as JSON `model` (a `ModelConfig`), `metrics` (measured figures with their n)
and `provenance` (configuration, data fingerprint, versions, time; at most 8 KB), and if it was fitted `calibration`
(what a confidence means). export_model.py writes the same
into an .onnx file. A checkpoint may come from a stranger: whatever is read here is checked by type, range and size
before anything is built from it, weights must be finite numbers, and no pickle is ever loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from captcha_reader.config import ModelConfig
from captcha_reader.errors import UserError
from captcha_reader.files import to_json, write_atomically

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CHECKPOINT_FORMAT = "captcha-reader/1"
MAX_PROVENANCE_BYTES = 8192  # written
MAX_METADATA_BYTES = 2**20  # read; older files hold more than is written today
MAX_JSON_DEPTH = 8
MAX_JSON_ITEMS = 2000
JSON_KEYS = ("model", "metrics", "provenance", "calibration")


class Savable(Protocol):
    """What `save_checkpoint` needs of a model."""

    config: ModelConfig

    def state_dict(self) -> dict[str, Any]:
        """Its weights by name."""


# --------------------------------------------------------------------------------------------------------------------
# Writing


def save_checkpoint(
    model: Savable,
    path: str | Path,
    *,
    metrics: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    half: bool = False,
) -> Path:
    """Write weights and what is needed to use them to a .safetensors file, atomically.

    The same model, metrics and provenance give the same bytes.

    Args:
        model: with `config` and `state_dict()`.
        path: ends in .safetensors.
        metrics: measured figures, with their n.
        provenance: configuration, data fingerprint, versions, time; see `fit_provenance`.
        half: store floats in 16 bits; they are widened again when loaded.

    Raises:
        UserError: a weight is not a finite number, or nothing can be written there.
    """
    from safetensors.torch import save

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    if bad := not_finite(state):
        raise UserError(f"{path} is not written: the weights {bad} are not finite numbers (lower --learning_rate)")
    metadata = describe(model.config, metrics, provenance)
    return write_atomically(path, lambda temporary: temporary.write_bytes(_sort_metadata(save(state, metadata))))


def describe(
    config: ModelConfig, metrics: Mapping[str, Any] | None = None, provenance: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """The metadata of a checkpoint as the texts that the file stores."""
    return {
        "format": CHECKPOINT_FORMAT,
        "metrics": to_json(metrics or {}),
        "model": to_json(dataclasses.asdict(config)),
        "provenance": to_json(fit_provenance(provenance or {})),
    }


def fit_provenance(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """`provenance` within `MAX_PROVENANCE_BYTES`: its longest entries are left out, one after the other."""
    kept = {name: dict(value) if isinstance(value, Mapping) else value for name, value in provenance.items()}
    while len(to_json(kept).encode()) > MAX_PROVENANCE_BYTES:
        longest = max(kept, key=lambda name: len(to_json(kept[name])))
        inner = kept[longest]
        if isinstance(inner, dict) and len(inner) > 1:
            del inner[max(inner, key=lambda name: len(to_json(inner[name])))]
        else:
            del kept[longest]
    return kept


def _sort_metadata(data: bytes) -> bytes:
    """A safetensors file with its metadata in alphabetical order: the library writes them in a random one."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    sorted_header = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    sorted_header += b" " * (-len(sorted_header) % 8)  # the weights begin at a multiple of 8
    return len(sorted_header).to_bytes(8, "little") + sorted_header + data[8 + length :]


def set_metadata(path: Path, key: str, value: Mapping[str, Any]) -> None:
    """Give a .safetensors checkpoint one more entry of `JSON_KEYS`, or another one; its weights stay as they are."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"][key] = to_json(value)
    packed = json.dumps(header).encode()
    changed = _sort_metadata(len(packed).to_bytes(8, "little") + packed + data[8 + length :])
    write_atomically(path, lambda temporary: temporary.write_bytes(changed))


# --------------------------------------------------------------------------------------------------------------------
# Reading


def hash_checkpoint(path: str | Path) -> str:
    """SHA-256 of a checkpoint's file, in hex digits: readings of other weights are other readings.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"the checkpoint {path} cannot be read ({error.strerror}): check the name") from None


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The checked metadata of a .safetensors checkpoint: `format`, `model`, `metrics`, `provenance`.

    Raises:
        UserError: there is no such file, it is no checkpoint of this project, or its metadata cannot be used.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: train one with main.py or name another")
    if path.suffix != ".safetensors":
        raise UserError(f"{path} is not a .safetensors file: pickled weights are never loaded, convert them first")
    try:
        with safe_open(path, framework="np") as file:
            raw = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}): copy it again") from error
    if raw.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{path} was not written by this project (its format is {raw.get('format')!r:.80})")
    return parse_metadata(raw, path)


def parse_metadata(raw: Mapping[str, str], path: str | Path) -> dict[str, Any]:
    """Check the metadata of a checkpoint or an ONNX file and parse its JSON.

    Args:
        raw: the texts that the file stores. What other tools added to an ONNX file is kept as text.
        path: of the file, for messages.

    Returns:
        `raw` with `model` (the fields of a `ModelConfig`), `metrics` and `provenance` parsed, the last two empty where
        the file lacks them.

    Raises:
        UserError: names the file and what is wrong with it.
    """
    if sum(len(key) + len(value) for key, value in raw.items()) > MAX_METADATA_BYTES:
        raise UserError(f"{path} holds more than {MAX_METADATA_BYTES // 1024} KB of metadata: it cannot be used")
    if "model" not in raw:
        raise UserError(f"{path} cannot be used: it lacks the model's description")
    metadata: dict[str, Any] = dict(raw)
    for key in JSON_KEYS:
        try:
            value = json.loads(raw.get(key, "{}"), parse_constant=lambda _: None)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be used: its metadata {key!r} is no JSON ({error})") from error
        if not isinstance(value, dict):
            raise UserError(f"{path} cannot be used: its metadata {key!r} is no JSON object")
        _check_size(value, f"{path} cannot be used: its metadata {key!r}")
        metadata[key] = value
    ModelConfig.from_json(metadata["model"], path)
    _check_metrics(metadata["metrics"], path)
    _check_provenance(metadata["provenance"], path)
    return metadata


def _check_size(value: Any, what: str, depth: int = 0) -> None:
    """Refuse JSON that is nested too deeply, too long, or has a number that is not finite."""
    if depth > MAX_JSON_DEPTH:
        raise UserError(f"{what} is nested more than {MAX_JSON_DEPTH} levels deep")
    if isinstance(value, float) and not math.isfinite(value):  # 1e999
        raise UserError(f"{what} has a number that is not finite")
    if isinstance(value, dict | list):
        if len(value) > MAX_JSON_ITEMS:
            raise UserError(f"{what} has a list of {len(value):,} entries, more than {MAX_JSON_ITEMS:,}")
        for item in value.values() if isinstance(value, dict) else value:
            _check_size(item, what, depth + 1)


def _check_metrics(metrics: dict[str, Any], path: str | Path) -> None:
    """Figures, or groups of figures: numbers, lists of numbers, or null for what could not be measured."""
    figures = [item for group in metrics.values() for item in (group.values() if isinstance(group, dict) else [group])]
    for figure in figures:
        for number in figure if isinstance(figure, list) else [figure]:
            if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
                raise UserError(f"{path} cannot be used: its metrics hold {number!r:.40}, which is no number")


# Field of `provenance` -> its type. Others may be there and mean nothing here.
PROVENANCE_TYPES: dict[str, type] = {
    **dict.fromkeys(("config", "data", "versions"), dict),
    **dict.fromkeys(("time", "seen", "label_characters"), str),
}


def _check_provenance(provenance: dict[str, Any], path: str | Path) -> None:
    for name, kind in PROVENANCE_TYPES.items():
        if name in provenance and not isinstance(provenance[name], kind):
            raise UserError(f"{path} cannot be used: {name!r} in its provenance is not of the type {kind.__name__}")
    data = provenance.get("data", {})
    sources = data.get("sources", [])
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise UserError(f"{path} cannot be used: the data sources in its provenance are no list of texts")
    lengths = provenance.get("label_length", [1, 1])
    if not isinstance(lengths, list) or [type(n) for n in lengths] != [int, int] or not 0 < lengths[0] <= lengths[1]:
        raise UserError(f"{path} cannot be used: the label lengths in its provenance are no least and longest")
    for name, kind in (("fingerprint", str), ("n", int)):
        if name in data and not isinstance(data[name], kind):
            raise UserError(f"{path} cannot be used: {name!r} of the data in its provenance is no {kind.__name__}")


def label_hints(metadata: Mapping[str, Any]) -> tuple[str | None, tuple[int, int] | None]:
    """The characters, and the least and the longest length, of the labels that a model was fine-tuned on.

    Args:
        metadata: as `read_metadata` gives it.

    Returns:
        None for what the checkpoint does not say: only fine-tuned ones do.
    """
    provenance = metadata.get("provenance") or {}
    lengths = provenance.get("label_length")
    return provenance.get("label_characters") or None, (lengths[0], lengths[1]) if lengths else None


def load_weights(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The tensors of a checkpoint, floats widened to 32 bits.

    Raises:
        UserError: the file is damaged, or a weight is not a finite number.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(str(path), str(device))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or no safetensors file ({error}): copy it again") from error
    if bad := not_finite(weights):
        raise UserError(f"{path} cannot be used: its weights {bad} are not finite numbers; train it again")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}


def not_finite(weights: Mapping[str, Tensor]) -> str:
    """The name of a tensor that holds NaN or infinity; empty where all numbers are finite."""
    import torch

    floats = ((name, tensor) for name, tensor in weights.items() if tensor.is_floating_point())
    return next((name for name, tensor in floats if not bool(torch.isfinite(tensor).all())), "")


def check_onnx_session(session: Any, path: str | Path) -> tuple[ModelConfig, dict[str, Any]]:
    """Check that an open .onnx file is one that export_model.py wrote, and that it can be served.

    Args:
        session: an `onnxruntime.InferenceSession`.
        path: of the file, for messages.

    Returns:
        The model's configuration and all metadata.

    Raises:
        UserError: it has no description, other inputs or outputs, or gives something else than log-probabilities.
    """
    import numpy as np

    raw = session.get_modelmeta().custom_metadata_map
    if "model" not in raw:
        raise UserError(f"{path} was not written by export_model.py: it lacks the model's description")
    metadata = parse_metadata(raw, path)
    config = ModelConfig.from_json(metadata["model"], path)
    inputs = [(value.name, value.type, len(value.shape)) for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]
    if inputs != [("images", "tensor(uint8)", 4)] or outputs != ["log_probs"]:
        raise UserError(f"{path} was not written by export_model.py: its inputs or outputs are others")
    blank = np.zeros((1, config.channels, *config.image_size), np.uint8)
    try:
        found = session.run(None, {"images": blank})[0]
    except Exception as error:  # ONNX Runtime's exceptions have no public base class
        raise UserError(f"{path} cannot read a picture of its own size: export it again") from error
    if found.ndim != 3 or found.shape[0] != 1 or found.shape[2] != len(config.alphabet) + 1:
        raise UserError(f"{path} gives {found.shape} for one picture, which does not fit its alphabet: export it again")
    if not np.isfinite(found).all():
        raise UserError(f"{path} gives values that are not finite numbers: train the model again")
    return config, metadata
