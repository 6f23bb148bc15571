"""The model card of a reader that was trained on a stream: what it is, how it came about, what it reads, in Markdown.

Everything is taken from the checkpoint's metadata, so the card says no more than the file knows.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CPU_INFO = Path("/proc/cpuinfo")


def hardware(device: Any) -> str:
    """What a training ran on: the GPU or the processor's name, and the number of cores.

    Args:
        device: a torch device.
    """
    cores = f"{os.cpu_count()} cores"
    if getattr(device, "type", "cpu") == "cuda":
        import torch

        return f"{torch.cuda.get_device_name(device)}, {cores}"
    lines = CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines() if CPU_INFO.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {cores}"


def model_card(name: str, metadata: Mapping[str, Any]) -> str:
    """The card as Markdown.

    Args:
        name: of the files, without their suffixes.
        metadata: of the finished checkpoint, as `checkpoint.read_metadata` gives it.
    """
    model, origin, metrics = metadata["model"], metadata["provenance"], metadata["metrics"]
    stream, config = origin.get("stream", {}), origin.get("config", {})
    fonts = stream.get("fonts", {})
    rows = [
        ("Files", f"`{name}.safetensors` (PyTorch), `{name}.onnx` (ONNX Runtime)"),
        ("Network", f"`{model['backbone']}` and the head `{model['head']}`, {model['hidden']} wide"),
        ("Input", _input(model)),
        ("Reads", f"{len(model['alphabet'])} characters: `{model['alphabet']}`"),
        ("Trained on", f"{config.get('pictures', 0):,} captchas of our generator, version {stream.get('generator')}"),
        ("Styles", f"`{stream.get('styles')}`, {stream.get('length')} characters, seed {stream.get('seed')}"),
        ("Fonts", f"{fonts.get('count')} files, SHA-256 of the list `{str(fonts.get('sha256'))[:16]}`"),
        ("Time and machine", f"{origin.get('hours')} hours, {origin.get('hardware')}, {origin.get('time')}"),
        ("Versions", ", ".join(f"{key} {value}" for key, value in origin.get("versions", {}).items())),
    ]
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    recipe = "python main.py --config configs/reader.yaml"
    settings = "\n".join(f"{key}: {value}" for key, value in config.items())
    made = (
        f"This is the recipe: `{recipe}`."
        if stream.get("recipe")
        else f"This is not the recipe (`{recipe}`): its fonts or settings are others."
    )
    begun = config.get("init", "auto")
    learned = (
        "It was trained on drawn captchas alone; no picture of a website was among them."
        if begun == "scratch"
        else f"It began from other weights (`--init {begun}`) and went on with drawn captchas."
    )
    return f"""# {name}

Reads text captchas that it has never seen. {learned}

| | |
|---|---|
{table}

{made} Settings that are not the defaults:

```yaml
{settings}
```

## What it reads

{_figures(metrics.get("test", {}))}

Figures on real captchas and on other generators are in benchmarks/accuracy.md, which says for each set whether it
served to choose between weights.

## Limits

Fonts made to look odd, letters that overlap, and pictures with several lines of text are read badly. Upper and lower
case of letters that differ in size alone (c, o, s, ...) are a guess. A confidence says how often readings like it are
right on drawn captchas, not on any particular site.
"""


def _input(model: Mapping[str, Any]) -> str:
    height, width = model["image_size"]
    color = "color" if model["channels"] == 3 else "gray"
    size = f"{height} rows, {width} columns or more" if model["resize"] == "natural" else f"{height} x {width} pixels"
    return f"{color}, {size}" + (f"; also {model['other_height']} rows" if model["other_height"] else "")


def _figures(test: Mapping[str, Any]) -> str:
    if not test:
        return "Nothing was measured."
    low, high = test["wilson_95"]
    return (
        f"Held-out styles, {test['n']:,} captchas: {test['sequence_accuracy']:.1%} of texts exactly right (95 % "
        f"interval {low:.1%} to {high:.1%}), {test['sequence_accuracy_ignore_case']:.1%} ignoring case."
    )
