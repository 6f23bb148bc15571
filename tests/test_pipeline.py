"""The DVC pipeline: its settings are those of the scripts, and it runs from drawn captchas to an ONNX file."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from captcha_reader.cli import load_settings, parse_config
from captcha_reader.config import DatasetConfig, EvaluateConfig, ExportConfig, GeneratorConfig, TrainConfig
from captcha_reader.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = {
    "generate": GeneratorConfig,
    "dataset": DatasetConfig,
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "export": ExportConfig,
}
STAGES = ["generate", "dataset", "train", "evaluate", "export"]


def params() -> dict:
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def pipeline() -> dict:
    return yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


def test_params_are_settings_of_the_scripts(tmp_path: Path) -> None:
    assert params().keys() == SECTIONS.keys() | {"sources"}
    for name, config_class in SECTIONS.items():
        (tmp_path / "section.yaml").write_text(yaml.safe_dump(params()[name]))
        if config_class is DatasetConfig:
            fields = {field.name for field in dataclasses.fields(config_class)}
            assert params()[name].keys() <= fields
        else:
            load_settings(config_class, tmp_path / "section.yaml")
    (tmp_path / "section.yaml").write_text(yaml.safe_dump(params()["train"] | {"epochz": 3}))
    with pytest.raises(UserError, match="epochz"):
        load_settings(TrainConfig, tmp_path / "section.yaml")


def test_each_stage_depends_on_the_params_that_it_uses() -> None:
    stages = pipeline()["stages"]
    assert list(stages) == STAGES
    for name, stage in stages.items():
        script, *words = stage["cmd"].removeprefix("python ").split()
        assert (ROOT / script).is_file()
        assert script in stage["deps"]
        assert stage["params"] == [name] and f"${{{name}}}" in stage["cmd"]
        if name != "dataset":  # which takes its sources without a flag
            flags = [word for word in words if not word.startswith("${")]
            parse_config(SECTIONS[name], "", flags)
        for path in stage["deps"]:
            ours = not path.startswith(("data/dvc", "${"))
            assert not ours or (ROOT / path).exists(), path


@pytest.fixture(scope="module")
def dvc() -> str:
    found = os.environ.get("DVC") or shutil.which("dvc")
    if not found:
        pytest.skip("dvc is not installed: pip install dvc")
    return found


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, dvc: str) -> Path:
    """A copy of the scripts with small settings, after `dvc repro`."""
    folder = tmp_path_factory.mktemp("pipeline") / "project"
    (folder / "data").mkdir(parents=True)
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    for name in ("captcha_reader", "configs", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder)
    small = params()
    small["generate"] |= {"count": 90, "alphabet": "abcd", "length": "2-3", "workers": 1}
    small["dataset"] |= {"split": "60/15/15", "workers": 1}
    small["train"] |= {"epochs": 2, "batch_size": 16, "hidden": 16, "cpu": True, "threads": 1}
    (folder / "params.yaml").write_text(yaml.safe_dump(small))
    run(dvc, folder, "init", "--no-scm", "-q")
    run(dvc, folder, "config", "core.analytics", "false")
    run(dvc, folder, "repro", "-q")
    return folder


def run(dvc: str, folder: Path, *words: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([dvc, *words], cwd=folder, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.nightly
def test_repro_goes_from_drawn_captchas_to_an_onnx_file(project: Path) -> None:
    from predict import CaptchaPredictor

    assert (project / "data/dvc/run/best.safetensors").is_file()
    assert set(CaptchaPredictor(project / "data/dvc/reader.onnx", threads=1).alphabet.characters) <= set("abcd")
    assert json.loads((project / "data/dvc/metrics.json").read_text())["n"] == 15


@pytest.mark.nightly
def test_metrics_and_plots_are_shown(project: Path, dvc: str) -> None:
    shown = json.loads(run(dvc, project, "metrics", "show", "--json"))
    (figures,) = (value for key, value in shown[""]["data"].items() if key.endswith("metrics.json"))
    assert figures["data"]["n"] == 15 and 0 <= figures["data"]["sequence_accuracy"] <= 1
    page = run(dvc, project, "plots", "show").strip()
    assert "train_loss" in Path(page.removeprefix("file://")).read_text(encoding="utf-8")


@pytest.mark.nightly
def test_only_what_depends_on_a_change_runs_again(project: Path, dvc: str) -> None:
    assert "up to date" in run(dvc, project, "repro")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(re.sub(r"tolerance: .*", "tolerance: 0.002", text))
    status = json.loads(run(dvc, project, "status", "--json"))
    assert list(status) == ["export"]
    (project / "params.yaml").write_text(text)


@pytest.mark.nightly
def test_a_remote_brings_data_and_results_to_another_place(project: Path, dvc: str, tmp_path: Path) -> None:
    """As docs/training.md shows, with a folder for the remote."""
    mine = project / "data" / "mine"
    mine.mkdir()
    (mine / "ab_1.png").write_bytes(b"a picture")
    run(dvc, project, "add", "-q", "data/mine")
    run(dvc, project, "remote", "add", "-q", "-d", "store", str(tmp_path / "store"))
    run(dvc, project, "push", "-q")
    clone = tmp_path / "clone"
    shutil.copytree(project, clone, ignore=shutil.ignore_patterns("cache", "dvc", "mine", "tmp"))
    (clone / "data" / "dvc").mkdir(exist_ok=True)
    run(dvc, clone, "pull", "-q")
    assert (clone / "data/mine/ab_1.png").read_bytes() == b"a picture"
    best = "data/dvc/run/best.safetensors"
    assert (clone / best).read_bytes() == (project / best).read_bytes()
