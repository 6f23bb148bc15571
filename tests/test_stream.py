"""Training on a stream of fresh captchas: stopped and resumed, what it leaves behind, and the recipe's fonts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.state import AcceleratorState

from captcha_reader.checkpoint import load_weights, read_metadata
from captcha_reader.config import TrainConfig
from captcha_reader.dataset.stream import is_recipe, open_stream
from captcha_reader.errors import UserError
from captcha_reader.generator import recipe_fonts
from captcha_reader.generator.render import GENERATOR_VERSION
from main import train_model
from predict import CaptchaPredictor
from trainer import TimeUp

ROOT = Path(__file__).resolve().parent.parent
SMALL = TrainConfig(
    pictures=48,
    synthetic_style="clean,line",
    held_out_style="wave",
    synthetic_length="2-3",
    alphabet="ab",
    init="scratch",
    frozen_epochs=0,
    batch_size=24,
    other_height=48,
    flat_start=24,
    hidden=8,
    schedule="cosine",
    ema=0.5,
    dropout=0.0,
    cpu=True,
    threads=1,
    workers=1,
    evaluate=False,
    progress="none",
)


def train(**changes: Any) -> Path:
    AcceleratorState._reset_state(True)
    return train_model(dataclasses.replace(SMALL, **changes))["out"]


def test_a_run_stopped_after_each_step_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(out=str(tmp_path / "whole"), workers=2)
    stopped = tmp_path / "stopped"
    stops = 0
    monkeypatch.setattr("main.export_onnx", lambda checkpoint, out: None)  # it takes as long as all else together
    while not (stopped / "README.md").exists():
        try:
            train(out=str(stopped), resume=stops > 0, stop_after=0.01)
        except TimeUp:
            stops += 1
    assert stops == 2
    ours, theirs = (load_weights(out / "best.safetensors") for out in (stopped, whole))
    assert ours.keys() == theirs.keys()
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())

    metadata = read_metadata(whole / "best.safetensors")
    stream = metadata["provenance"]["stream"]
    fonts = json.loads((whole / "fonts.json").read_text(encoding="utf-8"))
    assert (stream["generator"], stream["seed"], stream["recipe"]) == (GENERATOR_VERSION, 0, False)
    assert stream["fonts"]["count"] == len(fonts) > 10
    assert metadata["provenance"]["hours"] >= 0 and "cores" in metadata["provenance"]["hardware"]
    card = (whole / "README.md").read_text(encoding="utf-8")
    for told in (
        "48 captchas",
        f"version {GENERATOR_VERSION}",
        f"{len(fonts)} files",
        "`clean,line`",
        "not the recipe",
    ):
        assert told in card
    assert CaptchaPredictor(whole / "best.onnx").alphabet.characters == "ab"

    with pytest.raises(UserError, match="the data has changed"):  # other fonts or another generator draw other pictures
        settings = yaml.safe_load((stopped / "config.yaml").read_text(encoding="utf-8"))
        (stopped / "config.yaml").write_text(
            yaml.safe_dump(settings | {"synthetic_style": "classic"}), encoding="utf-8"
        )
        train(out=str(stopped), resume=True)


def test_the_length_of_a_run_can_be_changed_before_its_rate_falls(tmp_path: Path, monkeypatch: Any) -> None:
    for module in ("captcha_reader.dataset.stream", "captcha_reader.training_settings"):
        monkeypatch.setattr(f"{module}.STREAM_EPOCH", 24)
    monkeypatch.setattr("main.export_onnx", lambda checkpoint, out: None)
    run: dict[str, Any] = {"schedule": "wsd", "other_height": None, "batch_size": 12, "flat_start": 0}
    short = train(out=str(tmp_path / "short"), pictures=48, **run)
    changed = tmp_path / "changed"
    with pytest.raises(TimeUp):
        train(out=str(changed), pictures=240, stop_after=0.01, **run)
    with pytest.raises(UserError, match="multiples of 24"):
        train(out=str(changed), resume=True, pictures=50)
    train(out=str(changed), resume=True, pictures=48, stop_after=1000)
    ours, theirs = (load_weights(out / "best.safetensors") for out in (changed, short))
    assert all(tensor.equal(theirs[name]) for name, tensor in ours.items())
    assert read_metadata(changed / "best.safetensors")["provenance"]["config"]["pictures"] == 48
    with pytest.raises(UserError, match="has had 48 pictures, too many to be one of 240 instead of 48"):
        train(out=str(changed), resume=True, pictures=240)
    cosine = {**run, "schedule": "cosine"}
    with pytest.raises(TimeUp):
        train(out=str(tmp_path / "cosine"), pictures=48, stop_after=0.01, **cosine)
    with pytest.raises(UserError, match=r"--pictures changes runs .* --schedule wsd or constant alone"):
        train(out=str(tmp_path / "cosine"), resume=True, pictures=24)


def test_the_last_weights_of_a_stream_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its first ones read more of the few pictures held out, in the one height that these are read in."""
    for module in ("captcha_reader.dataset.stream", "captcha_reader.training_settings"):
        monkeypatch.setattr(f"{module}.STREAM_EPOCH", 24)
    monkeypatch.setattr("main.export_onnx", lambda checkpoint, out: None)
    figures = iter([1.0, 0.5])
    monkeypatch.setattr(
        "trainer.validate",
        lambda *_: {"loss": 2.0, "sequence_accuracy": (figure := next(figures)), "cer": 1 - figure},
    )
    out = train(out=str(tmp_path / "run"), pictures=48, batch_size=12, flat_start=0)
    assert [row["validation"]["sequence_accuracy"] for row in json.loads((out / "history.json").read_text())] == [
        1,
        0.5,
    ]
    best, last = (load_weights(out / f"{name}.safetensors") for name in ("best", "last"))
    assert read_metadata(out / "best.safetensors")["metrics"]["epoch"] == 2
    assert all(tensor.equal(last[name]) for name, tensor in best.items())


def test_the_recipe_names_its_settings_and_fonts() -> None:
    values = yaml.safe_load((ROOT / "configs" / "reader.yaml").read_text(encoding="utf-8"))
    recipe = TrainConfig(**values)
    assert (recipe.init, recipe.fonts, recipe.data) == ("scratch", "recipe", "data")
    stream = open_stream(dataclasses.replace(recipe, fonts=None))
    assert stream.epochs * stream.count == recipe.pictures
    assert stream.count % recipe.batch_size < recipe.batch_size and not stream.origin["recipe"]
    names = recipe_fonts.recipe_fonts()
    assert len(names) == len(set(names)) > 900
    assert all(name.endswith((".ttf", ".otf")) for name in names)


@pytest.mark.parametrize(
    ("changes", "recipe"),
    [
        ({"pictures": 50_000, "workers": 3, "out": "x"}, True),
        ({"epochs": 200}, True),  # as a run that goes on has it
        ({"model": "efficientnet"}, False),
        ({"init": "auto"}, False),
    ],
)
def test_only_the_settings_of_the_recipe_are_the_recipe(changes: dict[str, Any], recipe: bool) -> None:
    values = yaml.safe_load((ROOT / "configs" / "reader.yaml").read_text(encoding="utf-8"))
    assert is_recipe(TrainConfig(**{**values, **changes})) == recipe


def test_what_is_learned_is_not_measured_on() -> None:
    config = dataclasses.replace(SMALL, synthetic_style="clean, wave", held_out_style="wave,line")
    with pytest.raises(UserError, match="the style wave is in --synthetic_style and in --held_out_style"):
        open_stream(config)


def test_without_its_fonts_a_run_is_not_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed, names = tmp_path / "installed", ["a/x/One.ttf", "b/y/Two.otf"]
    monkeypatch.setattr(recipe_fonts, "recipe_fonts", lambda: names)
    (installed / "a" / "x").mkdir(parents=True)
    (installed / "a" / "x" / "One.ttf").write_bytes(b"one")
    with pytest.raises(UserError, match=r"1 of the recipe's 2 fonts are missing \(b/y/Two\.otf.*--check_fonts"):
        recipe_fonts.link_recipe_fonts(tmp_path / "fonts", installed)
    (installed / "b" / "y").mkdir(parents=True)
    (installed / "b" / "y" / "Two.otf").write_bytes(b"two")
    for _ in range(2):
        folder = recipe_fonts.link_recipe_fonts(tmp_path / "fonts", installed)
        assert {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.?tf")} == {
            "x/One.ttf": b"one",
            "y/Two.otf": b"two",
        }
