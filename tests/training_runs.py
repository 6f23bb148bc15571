"""What the tests of training share: small settings, and how to compare runs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file

import main

ROOT = Path(main.__file__).resolve().parent


SMALL = ["--model", "crnn", "--image_size", "[16,48]", "--hidden", "8", "--cpu", "--threads", "1", "--batch_size", "16"]


SCRATCH = [*SMALL, "--init", "scratch", "--frozen_epochs", "0"]


def named_pictures(tmp_path: Path, labeled: Sequence[tuple[bytes, str]]) -> Path:
    """A folder of pictures whose file names carry the labels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, (picture, text) in enumerate(labeled):
        (folder / f"{text}_{i}.png").write_bytes(picture)
    return folder


def history(out: Path) -> list[dict]:
    path = out / "history.json"
    return json.loads(path.read_text()) if path.exists() else []


def timeless(out: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in ("seconds", "waited")} for row in history(out)]


def assert_same_run(a: Path, b: Path) -> None:
    for name in ("best.safetensors", "last.safetensors"):
        mine, theirs = load_file(a / name), load_file(b / name)
        assert mine.keys() == theirs.keys()
        different = [key for key in mine if not mine[key].equal(theirs[key])]
        assert not different, f"{name}: {different[:3]}"
    assert timeless(a) == timeless(b)


def assert_one_sentence(result: SimpleNamespace | subprocess.CompletedProcess[str], *said: str, code: int = 1) -> None:
    stderr = result.stderr
    assert getattr(result, "code", getattr(result, "returncode", None)) == code, stderr
    assert "Traceback" not in stderr
    message = [line for line in stderr.splitlines() if "error: " in line]
    assert len(message) == 1, stderr
    for part in said:
        assert part in stderr


def fresh_accelerator() -> None:
    """accelerate keeps one state per process, and its settings must not leak from one run into the next."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
