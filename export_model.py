"""Export a checkpoint to ONNX, and check that both give the same readings.

    python export_model.py                                                   # the shipped weights
    python export_model.py --checkpoint RUN/best.safetensors --out reader.onnx --data FOLDER

The .onnx file takes uint8 pixels (batch, C, H, W), gives log-probabilities (batch, T, classes), and carries the
checkpoint's description, so that predict.py, accuracy_calculator.py and the demo take it in place of the checkpoint.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C shows no traceback during the seconds that the imports take
    from captcha_reader.cli import quiet_interrupt

    quiet_interrupt()

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from accuracy_calculator import load_labeled
from captcha_reader.checkpoint import read_metadata
from captcha_reader.cli import parse_config, run
from captcha_reader.config import WIDTH_STEP, ExportConfig
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, locked_output, to_json, write_atomically
from model import CaptchaModel, load_model
from predict import CaptchaPredictor, ImageLike, find_checkpoint, find_images

PARITY_PICTURES = 256
LIKELY = -10.0  # log-probabilities below this differ without any reading being different
BATCH = 64


class _LogProbs(nn.Module):
    """What is exported: normalized pixels in, log-probabilities out."""

    def __init__(self, model: CaptchaModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.log_probs(images)


def export_onnx(checkpoint: str | Path, out: str | Path) -> Path:
    """Write `checkpoint` as an ONNX model with the checkpoint's metadata inside.

    The batch size is dynamic, and with `resize: natural` the width, which must be a multiple of 16, too. So is the
    height of a network that has learned two.

    Raises:
        UserError: the checkpoint cannot be used.
    """
    import onnx

    metadata = read_metadata(checkpoint)
    model = load_model(checkpoint)
    # Two pictures, and two steps where sizes are dynamic: one would be taken for a constant.
    height, width = model.config.image_size
    if model.config.other_height:
        height *= 2
    example = torch.zeros(2, model.config.channels, height, width, dtype=torch.uint8)
    dynamic: dict[int, Any] = {0: torch.export.Dim("batch")}
    if model.config.resize == "natural":
        dynamic[3] = WIDTH_STEP * torch.export.Dim("steps")
    if model.config.other_height:
        dynamic[2] = WIDTH_STEP * torch.export.Dim("rows")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on its own internals
        program = torch.onnx.export(
            _LogProbs(model).eval(),
            (example,),
            input_names=["images"],
            output_names=["log_probs"],
            dynamic_shapes={"images": dynamic},
            dynamo=True,
            verbose=False,
        )
    proto = program.model_proto
    del proto.graph.value_info[:]  # shapes between nodes, which the runtime finds itself
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output):
        del part.metadata_props[:]  # the exporter's stack traces, which tell where this machine keeps its files
        part.doc_string = ""
    _number_names(proto.graph)
    for key, value in sorted(metadata.items()):  # in one order: the same checkpoint gives the same bytes
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else to_json(value)
    return write_atomically(out, lambda temporary: onnx.save(proto, str(temporary)))


def _number_names(graph: Any) -> None:
    """Number nodes and nameless values in their order: the exporter's numbers depend on what the process exported
    before, and the same checkpoint should give the same bytes."""
    given = [tensor.name for tensor in graph.initializer] + [name for node in graph.node for name in node.output]
    numbered = {name: f"val_{i}" for i, name in enumerate(n for n in given if re.fullmatch(r"val_\d+", n))}
    for tensor in graph.initializer:
        tensor.name = numbered.get(tensor.name, tensor.name)
    for i, node in enumerate(graph.node):
        node.name = f"node_{i}"
        node.input[:] = [numbered.get(name, name) for name in node.input]
        node.output[:] = [numbered.get(name, name) for name in node.output]


def check_parity(
    checkpoint: str | Path, exported: str | Path, images: Sequence[ImageLike], tolerance: float
) -> tuple[float, int]:
    """Compare both runtimes on real pictures.

    Returns:
        The largest difference between their log-probabilities where either is likely, and how many of the readings
        differ.

    Raises:
        UserError: the difference is above `tolerance`, or a reading differs.
    """
    ours, theirs = CaptchaPredictor(checkpoint, device="cpu"), CaptchaPredictor(exported)
    worst, different = 0.0, 0
    for start in range(0, len(images), BATCH):
        views = [ours.view(image) for image in images[start : start + BATCH]]
        pixels = [view.pixels for view in views]
        if ours.other_transform:
            pixels += [ours.other_transform.changed(view, view.copy).pixels for view in views]
        for shape in {p.shape for p in pixels}:
            batch = np.stack([p for p in pixels if p.shape == shape])
            a, b = ours.log_probs(batch), theirs.log_probs(batch)
            likely = np.maximum(a, b) > LIKELY
            worst = max(worst, float(np.abs(a - b)[likely].max()))
            texts = [[r.text for r in ours.codec.decode(log_probs)] for log_probs in (a, b)]
            different += sum(x != y for x, y in zip(*texts, strict=True))
    if worst > tolerance or different:
        raise UserError(
            f"the export disagrees with {checkpoint}: log-probabilities differ by up to {worst:.2g}, {different} of "
            f"{len(images)} readings differ; nothing was written, please report this with the checkpoint"
        )
    return worst, different


def main() -> int:
    """Command line."""
    config = parse_config(ExportConfig, "Export a checkpoint to ONNX, checked against torch.")
    checkpoint = find_checkpoint(config.checkpoint, "cpu")
    out = Path(config.out) if config.out else checkpoint.with_suffix(f".{config.format}")
    if not checkpoint.exists():
        raise UserError(f"there is no checkpoint {checkpoint}: train one with main.py or name another")
    if checkpoint.suffix != ".safetensors":
        raise UserError(f"{checkpoint} cannot be exported: name a .safetensors file, which training writes")
    if out.suffix != f".{config.format}":
        raise UserError(f"--out {out} would be an {config.format.upper()} file: give it a name that ends in .onnx")
    images: Sequence[ImageLike]
    if config.data:
        images, _, _ = load_labeled(
            config.data,
            limit=PARITY_PICTURES,
            otherwise="name a dataset with a test split, or pictures that are not split, as --data",
        )
    else:
        images = list(find_images([ROOT / "examples"]))
    checked = out.with_name(f".{out.stem}.unchecked{out.suffix}")
    with locked_output(out):
        try:
            export_onnx(checkpoint, checked)
            worst, _ = check_parity(checkpoint, checked, images, config.tolerance)
            checked.replace(out)  # a file that failed the check never takes the name that was asked for
        finally:
            checked.unlink(missing_ok=True)
    print(
        f"{out}: {out.stat().st_size / 2**20:.1f} MiB, same readings as {checkpoint} on {len(images)} pictures, "
        f"log-probabilities within {worst:.1e}"
    )
    return 0


if __name__ == "__main__":
    run(main)
