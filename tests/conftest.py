"""What several test files share: a small generated set, tiny models, and scripts run as real processes.

Everything is generated once per session. A script that imports torch takes seconds to start, so most runs are forked
from a server that has imported it already: they are processes of their own, which signals and kills reach.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

# Before anything imports torch: these pictures are too small to share out among threads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import pytest
from filelock import FileLock

# A shell's background jobs ignore Ctrl-C, and so would the processes that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
ALPHABET = "abcd"
SIZE = (16, 48)


# The files whose tests take longest, longest first: begun late, one of them would keep one process busy alone.
LONG_FILES = (
    "test_interface.py",
    "test_trainer.py",
    "test_pipeline.py",
    "test_export_model.py",
    "test_server.py",
    "test_main.py",
    "test_serving.py",
    "test_make_dataset.py",
    "test_captcha_generator.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first."""
    place = {name: number for number, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


# --------------------------------------------------------------------------------------------------------------------
# Data and models


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file of these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def log() -> logging.Logger:
    """The log, which libraries that set up logging anew switch off for all tests after them."""
    found = logging.getLogger("captcha_reader")
    found.disabled, found.propagate = False, True
    return found


@pytest.fixture(scope="session")
def captchas() -> list[tuple[bytes, str]]:
    """40 captchas of two or three letters of `abcd`: (PNG file, text)."""
    from captcha_generator import CaptchaSettings, render_captcha

    settings = CaptchaSettings(("line", "classic"), ALPHABET, (2, 3), seed=3)
    return [render_captcha(i, settings) for i in range(40)]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[[str, Callable[[Path], object]], Path]:
    """Fill a folder by the first test process that needs it, for all of them: `once(name, fill)` gives its path."""
    root = tmp_path_factory.getbasetemp()
    root = (root if worker_id == "master" else root.parent) / "shared"
    root.mkdir(exist_ok=True)

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder = root / name
        with FileLock(root / f"{name}.lock"):
            if not folder.exists():
                unfinished = root / f"{name}.unfinished"
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                fill(unfinished)
                unfinished.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def shards(once: Callable) -> Path:
    """A folder with one raw parquet shard of 90 captchas."""
    from captcha_generator import generate_captcha_data
    from captcha_reader.config import GeneratorConfig

    settings = GeneratorConfig(count=90, style="line", alphabet=ALPHABET, length="2-3", workers=1)
    made = once("shards", lambda folder: generate_captcha_data(replace(settings, out=str(folder / "shards"))))
    return made / "shards"


@pytest.fixture(scope="session")
def dataset(shards: Path, once: Callable) -> Path:
    """The shard as a dataset: 60 pictures for training, 15 for validation, 15 for the test."""
    from captcha_reader.config import DatasetConfig
    from make_dataset import make_dataset

    settings = DatasetConfig(sources=[str(shards)], split="60/15/15", workers=1)
    return once("data", lambda folder: make_dataset(replace(settings, out=str(folder / "dataset")))) / "dataset"


@pytest.fixture(scope="session")
def tiny() -> Callable:
    """Make the `ModelConfig` of a tiny model, for changes to it by keyword."""
    from captcha_reader.config import ModelConfig

    def make(name: str = "crnn", **changes: object) -> ModelConfig:
        from model import MODELS

        defaults = MODELS[name]
        values = {
            "name": name,
            "alphabet": ALPHABET,
            "max_length": 3,
            "image_size": SIZE,
            "channels": defaults.channels,
            "head": defaults.head,
            "backbone": defaults.backbone,
            "hidden": 8,
        }
        return ModelConfig(**(values | changes))

    return make


@pytest.fixture(scope="session")
def reader(tiny: Callable, captchas: list[tuple[bytes, str]], once: Callable) -> Path:
    """A checkpoint that reads something else in almost every picture, at no cost of training."""
    made = once("reader", lambda folder: _make_reader(tiny(), captchas, folder / "reader.safetensors"))
    return made / "reader.safetensors"


def _make_reader(config, captchas: list[tuple[bytes, str]], out: Path) -> None:
    import torch

    from captcha_reader.images import open_image
    from model import build_model, save_checkpoint

    torch.manual_seed(5)
    model = build_model(config)
    pixels = torch.from_numpy(np.stack([_pixels(model, open_image(png)) for png, _ in captchas]))
    _settle(model, pixels)
    with torch.no_grad():
        # Random weights answer much alike to every picture: take away what is common, and widen what is left.
        logits = model(pixels)
        model.head.classifier.weight *= 20
        model.head.classifier.bias.copy_(-20 * (logits.mean((0, 1)) - model.head.classifier.bias))
        texts = {r.text for r in model.codec.decode(model.log_probs(pixels).numpy())}
    assert len(texts) > 20, f"this reader is of no use to a test: {texts}"
    metrics, provenance = {"validation": {"n": 15, "cer": 0.5}}, {"config": {"seed": 5}}
    save_checkpoint(model, out, metrics=metrics, provenance=provenance)


@pytest.fixture(scope="session")
def natural(tiny: Callable, captchas: list[tuple[bytes, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, with random weights, whose input is as wide as the contents of the picture."""
    import torch

    from captcha_reader.images import open_image
    from model import build_model, save_checkpoint

    torch.manual_seed(6)
    model = build_model(tiny("mixer", resize="natural"))
    _settle(model, torch.from_numpy(np.stack([_pixels(model, open_image(png))[..., :48] for png, _ in captchas])))
    return save_checkpoint(model, tmp_path_factory.mktemp("natural") / "natural.safetensors")


@pytest.fixture(scope="session")
def exported(reader: Path, once: Callable) -> Path:
    """The reader as an .onnx file."""
    from export_model import export_onnx

    return once("onnx", lambda folder: export_onnx(reader, folder / "reader.onnx")) / "reader.onnx"


def _settle(model, pixels) -> None:
    """Fit BatchNorm's statistics to pictures, or a deep network with random weights hardly sees what it is shown."""
    import torch

    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average
    with torch.no_grad():
        model.train()(pixels)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


@pytest.fixture(scope="session")
def settle() -> Callable:
    """Make a model with random weights tell pictures apart: `settle(model, pixels)`, which also leaves it in eval."""
    return _settle


def _pixels(model, image) -> np.ndarray:
    from captcha_reader.transforms import build_transform

    return build_transform(model.config)(image)


# --------------------------------------------------------------------------------------------------------------------
# Trainings


@pytest.fixture
def train(call: Callable, dataset: Path, tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """A run in this process into a folder of its own: `train(*flags)`."""
    from training_runs import fresh_accelerator

    import main

    count = iter(range(100))

    def run(*flags: object, out: Path | None = None, data: Path = dataset, evaluate: bool = False) -> SimpleNamespace:
        fresh_accelerator()
        out = out or tmp_path / f"run-{next(count)}"
        code, stdout, stderr = call(main, "--data", data, "--out", out, "--evaluate", evaluate, *flags)
        return SimpleNamespace(out=out, code=code, stdout=stdout, stderr=stderr)

    return run


@pytest.fixture(scope="session")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`python main.py` as a user starts it."""
    from training_runs import SCRATCH

    out = tmp_path_factory.mktemp("finished") / "run"
    flags = ["--data", str(dataset), "--out", str(out), "--epochs", "2", *SCRATCH, "--learning_rate", "0.001"]
    result = subprocess.run([sys.executable, str(ROOT / "main.py"), *flags], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return SimpleNamespace(out=out, flags=flags, stdout=result.stdout, stderr=result.stderr)


@pytest.fixture(scope="session")
def all_labels(shards: Path, once: Callable) -> Path:
    """The 90 captchas of `shards` as a dataset, all of them for training."""
    from captcha_reader.config import DatasetConfig
    from make_dataset import make_dataset

    settings = DatasetConfig(sources=[str(shards)], split="100/0/0", workers=1)
    return once("all", lambda folder: make_dataset(replace(settings, out=str(folder / "dataset")))) / "dataset"


# --------------------------------------------------------------------------------------------------------------------
# Processes


class Job:
    """A script that runs, or has run, in a process of its own."""

    def __init__(self, script: str, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.files = [folder / "stdout", folder / "stderr"]
        for file in self.files:
            file.write_text("")
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["main", "visualize"])
        os.environ["PYTHONPATH"] = str(ROOT)  # of the server, which would not find the modules otherwise
        self.process = context.Process(
            target=_run_script, args=(script, arguments, str(folder), environment, *map(str, self.files)), daemon=True
        )
        self.process.start()

    @property
    def pid(self) -> int:
        return int(self.process.pid or 0)

    @property
    def stdout(self) -> str:
        return self.files[0].read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self.files[1].read_text(encoding="utf-8")

    def wait(self, timeout: float = 250) -> int:
        """Its exit code, negative for a signal."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"still running:\n{self.stdout}\n{self.stderr}"
        return self.process.exitcode

    def until(self, condition: Callable[[], object], timeout: float = 250) -> bool:
        """Wait for the condition; False if the process ended before it held."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.process.is_alive():
                return False
            assert time.monotonic() < deadline, f"waited in vain:\n{self.stdout}\n{self.stderr}"
            time.sleep(0.001)
        return True


def _run_script(script: str, arguments: list[str], folder: str, environment: dict[str, str], *files: str) -> None:
    os.environ.update(environment)
    if "LARGEST_FILE" in environment:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(environment["LARGEST_FILE"]),) * 2)
    os.chdir(folder)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8") for number in (1, 2))
    sys.argv = [script, *arguments]
    runpy.run_path(str(ROOT / script), run_name="__main__")


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., Job]:
    """Start a script: `launch("main.py", "--epochs", 3)`. Keywords are environment variables; with `LARGEST_FILE` no
    file may grow beyond so many bytes, and the system's answer to a write is an error, as on a full disk."""
    jobs: list[Job] = []

    def start(script: str, *arguments: object, **environment: str) -> Job:
        jobs.append(Job(script, [*map(str, arguments)], tmp_path / f"process-{len(jobs)}", environment))
        return jobs[-1]

    yield start
    for job in jobs:
        if job.process.is_alive():
            job.process.kill()
        job.process.join()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a script's command line in this process: `call(predict, "a.png")` gives (exit code, stdout, stderr)."""
    from captcha_reader import cli

    def run(module: object, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.run(module.main)
        output = capsys.readouterr()
        return int(end.value.code or 0), output.out, output.err

    return run
