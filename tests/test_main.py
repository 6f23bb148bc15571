"""main.py, from the command line to the files it leaves: settings, data, model, phases, evaluation."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from training_runs import (
    ROOT,
    SCRATCH,
    SMALL,
    assert_one_sentence,
    assert_same_run,
    fresh_accelerator,
    history,
    named_pictures,
)

import initialization
import main
import trainer
from captcha_reader.checkpoint import read_metadata, save_checkpoint
from captcha_reader.cli import parse_config
from captcha_reader.config import DatasetConfig, ModelConfig, TrainConfig
from captcha_reader.dataset.folders import is_dataset, load_info
from captcha_reader.errors import UserError
from captcha_reader.text import Alphabet
from captcha_reader.training_settings import check_settings, load_run_config
from captcha_reader.transforms import build_transform
from data_loader import CaptchaDataset, load_data, load_split
from make_dataset import make_dataset
from model import build_model, load_model
from predict import CaptchaPredictor


@pytest.fixture(autouse=True)
def _fresh() -> None:
    fresh_accelerator()


def test_a_run_leaves_all_its_files(finished: SimpleNamespace) -> None:
    names = {path.name for path in finished.out.iterdir()}
    assert names >= {"best.safetensors", "last.safetensors", "config.yaml", "history.json", "metrics.json"}
    assert names >= {"curves.png", "predictions.png", "confusion.png"}
    assert not [name for name in names if "tmp" in name]


def test_a_run_says_what_it_does(finished: SimpleNamespace) -> None:
    for part in ("60 train, 15 validation, 15 test", "Alphabet of 4: abcd", "1x16x48", "epoch   1", "epoch   2"):
        assert part in finished.stdout
    for part in ("sequence accuracy", "ignoring case", "CER", "blanks", "95 % interval", str(finished.out)):
        assert part in finished.stdout
    assert "epoch 1/2" in finished.stderr, "a progress bar"
    assert not re.search(r"(?<!sequence )(?<!character )\baccuracy\b", finished.stdout)


def test_the_saved_configuration_is_the_one_that_ran(finished: SimpleNamespace) -> None:
    given = parse_config(TrainConfig, "", finished.flags)
    assert parse_config(TrainConfig, "", ["--config", str(finished.out / "config.yaml")]) == given
    assert load_run_config(replace(given, resume=True)) == replace(given, resume=True)
    assert given.batch_size == 16 and given.image_size == (16, 48)


def test_the_history_has_a_row_per_epoch(finished: SimpleNamespace, dataset: Path) -> None:
    rows = history(finished.out)
    assert [(row["epoch"], row["phase"]) for row in rows] == [(1, "whole"), (2, "whole")]
    labels = load_data(dataset, load_model(finished.out / "last.safetensors").config)["validation"].texts
    for row in rows:
        assert row["train_loss"] > 0 and 0 < row["waited"] < row["seconds"] and 0 <= row["learning_rate"] <= 1e-3
        validation = row["validation"]
        assert validation["n"] == 15
        assert 0 <= validation["blanks"] <= 1
        assert [truth for truth, _ in validation["samples"]] == labels[:5]
        assert validation["character_accuracy"] == pytest.approx(1 - validation["cer"])
        for truth, reading in validation["samples"]:
            assert f"{truth}→{reading or '∅'}" in finished.stdout


def test_validation_figures_are_those_of_the_weights_saved(finished: SimpleNamespace, dataset: Path) -> None:
    predictor = CaptchaPredictor(finished.out / "last.safetensors", threads=1)
    validation = load_data(dataset, predictor.config)["validation"]
    readings = [p.text for p in predictor.predict([validation.images[i] for i in range(15)])]
    row = history(finished.out)[-1]["validation"]
    assert [reading for _, reading in row["samples"]] == readings[:5]
    pixels = torch.from_numpy(np.stack([validation[i][0] for i in range(15)]))
    model = predictor.backend.model
    with torch.inference_mode():
        logits = model(pixels)
        assert row["loss"] == pytest.approx(model.losses(logits, validation.texts).mean().item(), rel=1e-3)
        assert row["blanks"] == pytest.approx((logits.argmax(-1) == 0).float().mean().item(), abs=1e-3)


def test_validation_figures_do_not_depend_on_the_batch_size(natural: Path, captchas: list[tuple[bytes, str]]) -> None:
    """Pictures of many widths, which no other picture of their batch stretches."""
    predictor = CaptchaPredictor(natural, threads=1, tta_views=1)
    model = predictor.backend.model
    with torch.no_grad():
        model.head.classifier.weight *= 20  # else its readings hardly depend on what it sees
    pictures = []
    for i, (png, _) in enumerate(captchas):
        picture = Image.open(io.BytesIO(png))
        buffer = io.BytesIO()
        picture.resize((picture.width + 12 * i, picture.height)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    readings = [prediction.text for prediction in predictor.predict(pictures)]
    assert len(set(readings)) > 20
    labels = [reading if i % 2 else "abc" for i, reading in enumerate(readings)]  # so that half of them are right
    dataset = CaptchaDataset(pictures, labels, build_transform(predictor.config))
    assert len({dataset.prepared(i).shape[1] for i in range(len(pictures))}) >= 5
    found = [
        trainer.validate(model, dataset, replace(TrainConfig(), batch_size=size), Accelerator(cpu=True))
        for size in (1, 7, 64)
    ]
    assert found[0]["samples"] == list(zip(labels[:5], readings[:5], strict=True))
    assert found[0]["sequence_accuracy"] == np.mean([a == b for a, b in zip(labels, readings, strict=True)])
    for figures in found[1:]:
        assert figures["samples"] == found[0]["samples"]
        for key, value in trainer.numbers(found[0]).items():
            assert figures[key] == pytest.approx(value, rel=1e-4), key


def test_the_test_figures_are_those_a_user_gets(finished: SimpleNamespace, dataset: Path) -> None:
    report = json.loads((finished.out / "metrics.json").read_text())
    predictor = CaptchaPredictor(finished.out / "best.safetensors", threads=1)
    test = load_data(dataset, predictor.config)["test"]
    readings = [p.text for p in predictor.predict([test.images[i] for i in range(15)], batch_size=15)]
    assert report["n"] == 15
    assert report["sequence_accuracy"] == sum(a == b for a, b in zip(readings, test.texts, strict=True)) / 15


def test_the_checkpoint_tells_where_it_comes_from(finished: SimpleNamespace, dataset: Path) -> None:
    metadata = read_metadata(finished.out / "last.safetensors")
    info = json.loads((dataset / "dataset.json").read_text())
    assert metadata["metrics"]["epoch"] == 2
    assert metadata["metrics"]["validation"]["n"] == 15
    assert metadata["metrics"]["validation"]["cer"] == history(finished.out)[-1]["validation"]["cer"]
    provenance = metadata["provenance"]
    assert provenance["data"]["fingerprint"] == info["fingerprint"]
    assert provenance["data"]["n"] == 60
    assert provenance["config"]["epochs"] == 2
    assert provenance["versions"]["torch"] == torch.__version__
    assert provenance["time"]


def test_the_same_seed_gives_the_same_weights_and_another_one_others(
    train: Callable, finished: SimpleNamespace
) -> None:
    same = [*SCRATCH, "--epochs", 2, "--learning_rate", "0.001"]
    assert_same_run(finished.out, train(*same).out)
    assert_same_run(finished.out, train(*same, "--workers", 2).out)
    other = load_file(train(*same, "--seed", 1).out / "last.safetensors")
    assert any(not v.equal(other[k]) for k, v in load_file(finished.out / "last.safetensors").items())


def test_a_folder_that_holds_a_run_is_not_overwritten(train: Callable, finished: SimpleNamespace) -> None:
    before = {path.name: path.read_bytes() for path in finished.out.iterdir()}
    assert_one_sentence(train(*SCRATCH, out=finished.out), "--resume", str(finished.out))
    assert {path.name: path.read_bytes() for path in finished.out.iterdir()} == before


def test_a_finished_run_resumed_changes_nothing(train: Callable, finished: SimpleNamespace, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.out, tmp_path / "copy"))
    result = train("--resume", out=copy)
    assert result.code == 0
    assert "nothing is left to train" in result.stdout and "Going on" not in result.stdout
    assert_same_run(copy, finished.out)


def test_ctrl_c_before_there_is_anything_to_go_on_with(launch: Callable, dataset: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time, main\nfrom captcha_reader import cli\n"
        "main.prepare_data = lambda *a: (print('preparing', flush=True), time.sleep(60))\n"
        "cli.run(main.main)\n"
    )
    job = launch(slow, "--data", dataset, "--out", tmp_path / "run")
    assert job.until(lambda: "preparing" in job.stdout)
    os.kill(job.pid, signal.SIGINT)
    assert job.wait() == 130, job.stderr
    assert "Stopped; nothing is saved." in job.stderr and "Traceback" not in job.stderr


def test_thirty_pictures_are_learned_by_heart(train: Callable, dataset: Path) -> None:
    flags = ["--limit", 30, "--epochs", 40, "--augment", 0, "--dropout", 0, "--hidden", 32, "--learning_rate", 0.005]
    result = train(*SCRATCH, *flags, "--batch_size", 15)
    assert result.code == 0, result.stderr
    losses = [row["train_loss"] for row in history(result.out)]
    predictor = CaptchaPredictor(result.out / "last.safetensors", threads=1)
    learned = load_data(dataset, predictor.config, limit=30)["train"]
    readings = [p.text for p in predictor.predict([learned.images[i] for i in range(30)])]
    assert sum(a == b for a, b in zip(readings, learned.texts, strict=True)) >= 24, losses
    assert losses[-1] < losses[0] / 4


# --------------------------------------------------------------------------------------------------------------------
# Settings


def test_a_preset_gives_way_to_flags(tmp_path: Path) -> None:
    preset = tmp_path / "preset.yaml"
    preset.write_text("epochs: 7\nbatch_size: 5\nimage_size: [20, 60]\nalphabet: '0123'\n")
    config = parse_config(TrainConfig, "", ["--config", str(preset), "--batch-size", "9"])
    assert (config.epochs, config.batch_size, config.image_size, config.alphabet) == (7, 9, (20, 60), "0123")
    assert config == replace(TrainConfig(), epochs=7, batch_size=9, image_size=(20, 60), alphabet="0123")
    before = parse_config(TrainConfig, "", ["--batch_size", "9", "--config", str(preset)])
    assert before.batch_size == 5, "the later one wins"


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "configs").glob("*.yaml")))
def test_presets_hold_what_they_say(name: str) -> None:
    path = ROOT / "configs" / f"{name}.yaml"
    config = parse_config(TrainConfig, "", ["--config", str(path)])
    values = yaml.safe_load(path.read_text())
    assert values
    for key, value in values.items():
        assert getattr(config, key) == (tuple(value) if key == "image_size" else value), key
    check_settings(config)


@pytest.mark.parametrize("text", ["123", "0123", "1e5", "true", "0-9a-z", "-+"])
def test_an_alphabet_stays_the_text_it_is(text: str) -> None:
    assert parse_config(TrainConfig, "", [f"--alphabet={text}"]).alphabet == text


def test_switches_may_stand_alone() -> None:
    config = parse_config(TrainConfig, "", ["--resume", "--out", "r", "--cpu", "--evaluate", "false"])
    assert (config.resume, config.out, config.cpu, config.evaluate) == (True, "r", True, False)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--epochz", "3"], "epochz"),
        (["--epochs", "many"], "epochs"),
        (["--model", "vit"], "vit"),
        (["--schedule", "warm"], "warm"),
        (["--image_size", "[16]"], "image_size"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["stray"], "stray"),
    ],
)
def test_a_flag_that_is_wrong_is_named(flags: list[str], named: str, train: Callable) -> None:
    result = train(*SCRATCH, *flags)
    assert_one_sentence(result, named, code=2)
    assert len(result.stderr.splitlines()) == 1
    assert not result.out.exists()


@pytest.mark.parametrize(
    ("text", "named"),
    [("epochs: 1\nepochz: 3\n", "epochz"), ("epochs: many\n", "epochs"), ("epochs: [1,\n", "parsing")],
)
def test_a_preset_that_is_wrong_is_one_sentence(text: str, named: str, train: Callable, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    result = train("--config", tmp_path / "bad.yaml")
    assert result.code == 2
    assert "Traceback" not in result.stderr and len(result.stderr.splitlines()) == 1
    assert named in result.stderr


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("batch_size", 0),
        ("epochs", -1),
        ("save_every", 0),
        ("limit", 0),
        ("threads", 0),
        ("workers", -1),
        ("learning_rate", -1),
        ("learning_rate", "nan"),
        ("dropout", 1.5),
        ("warmup", 2),
        ("blend", 1.5),
        ("image_size", "[4,8]"),
        ("resize", "natural"),  # of 50 columns, and with slots
    ],
)
def test_numbers_that_make_no_sense_are_named(flag: str, value: object, train: Callable) -> None:
    size = ["--image_size", "[16,50]"] if value == "natural" else []
    result = train(*SCRATCH, f"--{flag}={value}", *size)
    assert_one_sentence(result, flag, code=2 if value == "nan" else 1)
    assert not result.out.exists()


def test_a_width_that_attention_cannot_share_out_is_named(train: Callable) -> None:
    result = train("--model", "mixer", "--init", "scratch", "--cpu", "--hidden", 130)
    assert_one_sentence(result, "--hidden is 130", "multiple of 4")
    assert not result.out.exists()


@pytest.mark.parametrize("data", ["nowhere", "empty"])
def test_data_that_is_not_there_is_one_sentence(data: str, train: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(main, "ROOT", tmp_path)
    (tmp_path / "empty").mkdir()
    assert_one_sentence(train(*SCRATCH, data=tmp_path / data), data)


def test_mistakes_show_no_traceback_in_a_real_process(launch: Callable, dataset: Path) -> None:
    jobs = [
        launch("main.py", "--epochz", 3),
        launch("main.py", "--data", dataset, *SCRATCH, "--init", "no.safetensors"),
    ]
    for job, code, said in zip(jobs, (2, 1), ("epochz", "no.safetensors"), strict=True):
        assert job.wait() == code
        assert said in job.stderr
        assert "Traceback" not in job.stderr


# --------------------------------------------------------------------------------------------------------------------
# Data


def test_without_data_a_synthetic_set_is_made_and_kept(train: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(main, "ROOT", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "README.md").write_text("put your captchas here")
    flags = [*SCRATCH, "--synthetic_count", 40, "--alphabet", "a-d", "--image_size", "[16,64]", "--epochs", 1]
    first = train(*flags, data="data")
    assert first.code == 0, first.stderr
    assert "There is no data" in first.stdout and "40 synthetic captchas" in first.stdout
    assert "32 train, 4 validation, 4 test" in first.stdout
    generated = sorted((tmp_path / "data" / "generated").rglob("*.parquet"))
    times = [path.stat().st_mtime_ns for path in generated]
    assert train(*flags, data="data").code == 0
    assert [path.stat().st_mtime_ns for path in generated] == times
    assert sorted((tmp_path / "data" / "generated").rglob("*.parquet")) == generated
    other = train(*flags, "--alphabet", "e-h", data="data")
    assert other.code == 0 and "Alphabet of 4: efgh" in other.stdout, "another set, beside the first"


def test_raw_shards_become_a_dataset_once(train: Callable, shards: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(main, "ROOT", tmp_path)
    out = {train(*SCRATCH, "--epochs", 1, "--split", "60/15/15", data=shards).code for _ in range(2)}
    assert out == {0}
    (made,) = (tmp_path / "data" / "generated").iterdir()
    assert is_dataset(made)


def test_the_dataset_of_a_folder_is_made_anew_where_its_pictures_change(
    tmp_path: Path, captchas: list[tuple[bytes, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "ROOT", tmp_path)
    folder = named_pictures(tmp_path, captchas[:8])
    config = replace(TrainConfig(), data=str(folder))
    first = main.prepare_data(config)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "copy").touch()
    assert main.prepare_data(config) == first, "hidden files are none of it"
    (folder / f"{captchas[8][1]}_8.png").write_bytes(captchas[8][0])
    assert main.prepare_data(config) != first


def resolved(config: TrainConfig, folder: Path) -> ModelConfig:
    """What `main` makes of the settings for a dataset."""
    return initialization.resolve_model_config(config, *load_split(folder, "train"), load_info(folder))


def labeled(tmp_path: Path, captchas: list[tuple[bytes, str]], texts: list[str], split: str = "100/0/0") -> Path:
    """A dataset of pictures with labels of our own, all of them for training unless `split` says otherwise."""
    folder = named_pictures(tmp_path, [(captchas[i][0], text) for i, text in enumerate(texts)])
    make_dataset(DatasetConfig(sources=[str(folder)], out=str(tmp_path / "labeled"), split=split, workers=1))
    return tmp_path / "labeled"


def test_alphabet_and_length_are_those_of_the_labels_of_every_split(
    tmp_path: Path, captchas: list[tuple[bytes, str]]
) -> None:
    texts = [letter * count for count, letter in enumerate("abcdefgh", start=1)]
    data = labeled(tmp_path, captchas, texts, split="4/2/2")
    found = resolved(replace(TrainConfig(), model="resnet", init="scratch"), data)
    assert (found.alphabet, found.max_length) == ("abcdefgh", 8)


def test_pictures_are_normalized_as_the_starting_weights_know_them_or_as_told(
    tmp_path: Path, captchas: list[tuple[bytes, str]], tiny: Callable
) -> None:
    data = labeled(tmp_path, captchas, ["ab", "cd", "aaa"])
    asked = replace(TrainConfig(), model="mixer", init="scratch")
    assert resolved(asked, data).normalize, "a new model of the default kind"
    assert not resolved(replace(asked, model="crnn"), data).normalize
    for known in (True, False):
        weights = tmp_path / f"{known}.safetensors"
        save_checkpoint(build_model(tiny("mixer", normalize=known, resize="content")), weights)
        start = replace(asked, init=str(weights))
        assert resolved(start, data).normalize is known
        assert resolved(replace(start, normalize=not known), data).normalize is not known


def test_what_is_read_is_softened_as_the_starting_weights_know_it_or_as_told(
    tmp_path: Path, captchas: list[tuple[bytes, str]], tiny: Callable
) -> None:
    data = labeled(tmp_path, captchas, ["ab", "cd", "aaa"])
    asked = replace(TrainConfig(), model="mixer", init="scratch")
    assert resolved(asked, data).soften > 0 == resolved(replace(asked, model="crnn"), data).soften
    weights = save_checkpoint(build_model(tiny("mixer", soften=0.5, resize="content")), tmp_path / "soft.safetensors")
    assert [resolved(replace(asked, init=str(weights), soften=s), data).soften for s in (None, 0.0)] == [0.5, 0.0]
    with pytest.raises(UserError, match=r"--soften is 5\.0: it must be 0 to 4"):
        check_settings(replace(asked, soften=5.0))


def test_labels_that_do_not_fit_are_named_before_the_first_step(
    train: Callable, tmp_path: Path, captchas: list[tuple[bytes, str]]
) -> None:
    data = labeled(tmp_path, captchas, ["ab", "cd", "aaa", "abc", "aab", "ddd", "a", "b", "c", "d"])
    ctc = train(*SCRATCH, "--image_size", "[16,16]", data=data)
    assert_one_sentence(ctc, "2 of 10", "'aaa'", "'ddd'", "4 steps", "--image_size")
    slots = train(*SCRATCH, "--head", "slots", "--max_length", 2, data=data)
    assert_one_sentence(slots, "4 of 10", "'abc'", "'aab'", "--max_length")
    outside = train(*SCRATCH, "--alphabet", "abc", data=data)
    assert_one_sentence(outside, "'d'", "train sample", "--alphabet")
    for result in (ctc, slots, outside):
        assert "Phase" not in result.stdout
        assert not (result.out / "history.json").exists()
    assert train(*SCRATCH, "--epochs", 1, data=data).code == 0, "they fit twelve steps, and no validation set is needed"


def test_a_loader_process_draws_captchas_after_opencv_used_its_threads(tmp_path: Path) -> None:
    """Their pool does not live on in a forked process, and waiting for it there would never end."""
    script = tmp_path / "draw.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import cv2, numpy as np, finetune\n"
        "from captcha_reader.text import Alphabet, CTCCodec\n"
        "from captcha_reader.config import ModelConfig, TrainConfig\n"
        "from captcha_reader.transforms import build_transform\n"
        "from data_loader import CaptchaDataset, build_loader\n"
        "cv2.setNumThreads(4)\n"
        "cv2.GaussianBlur(np.zeros((4000, 4000, 3), np.uint8), (31, 31), 5)\n"
        "model = ModelConfig(name='crnn', alphabet='abcd', max_length=3, image_size=(16, 48))\n"
        "png = cv2.imencode('.png', np.zeros((20, 60, 3), np.uint8))[1].tobytes()\n"
        "real = CaptchaDataset([png] * 4, ['abc'] * 4, build_transform(model, train=True))\n"
        "mixed = finetune.mix_synthetic(TrainConfig(mix_synthetic=1), real, CTCCodec(Alphabet('abcd')), steps=12)\n"
        "loader = build_loader(mixed, [[(0, i) for i in range(8)]], workers=1)\n"
        "print(sum(len(texts) for parts in loader for _, texts, _ in parts))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["8"], done.stderr


# --------------------------------------------------------------------------------------------------------------------
# Two heights


def test_a_training_on_two_heights_learns_from_both(train: Callable, natural: Path) -> None:
    flags = ["--model", "mixer", "--hidden", 8, "--cpu", "--threads", 1, "--batch_size", 16, "--frozen_epochs", 0]
    flags += ["--image_size", "[16,48]", "--init", natural, "--epochs", 1]
    one, both = (train(*flags, *more) for more in ([], ["--other_height", 32]))
    assert one.code == both.code == 0, both.stderr
    assert history(one.out)[0]["train_loss"] != history(both.out)[0]["train_loss"]
    configs = [load_model(run.out / "last.safetensors").config for run in (one, both)]
    assert [c.image_size for c in configs] == [(16, 48)] * 2
    assert [c.other_height for c in configs] == [None, 32]  # which predict.py looks again with


def test_trained_weights_go_on_at_the_height_wanted_where_they_can(
    train: Callable, natural: Path, reader: Path
) -> None:
    flags = ["--cpu", "--threads", 1, "--batch_size", 16, "--frozen_epochs", 0, "--epochs", 1, "--limit", 16]
    mixer = [*flags, "--model", "mixer", "--hidden", 8, "--init", natural]
    for more, size in ((["--height", 32], (32, 96)), (["--height", 32, "--image_size", "[16,64]"], (16, 64))):
        run = train(*mixer, *more)
        assert run.code == 0 and "anew" not in run.stdout, run.stderr
        assert load_model(run.out / "last.safetensors").config.image_size == size
        assert ("The input has 16 rows" in run.stdout) == (size[0] == 16)
    other = train(*flags, "--model", "crnn", "--hidden", 8, "--init", reader, "--height", 32)
    assert load_model(other.out / "last.safetensors").config.image_size == (16, 48)
    assert "The input has 16 rows: --height" in other.stdout


def test_another_height_that_does_not_fit_is_refused(train: Callable) -> None:
    assert_one_sentence(train(*SCRATCH, "--other_height", 32), "--other_height", "--resize natural")
    assert_one_sentence(train(*SCRATCH, "--other_height", 8), "--other_height", "16 or more")
    assert_one_sentence(train(*SCRATCH, "--other_height_from", 0.5), "--other_height_from", "--pictures")


# --------------------------------------------------------------------------------------------------------------------
# Starting weights and phases


def test_the_frozen_phase_leaves_the_backbone_alone(train: Callable, reader: Path) -> None:
    result = train(*SMALL, "--init", reader, "--frozen_epochs", 2, "--epochs", 0)
    assert result.code == 0, result.stderr
    assert [row["phase"] for row in history(result.out)] == ["frozen", "frozen"]
    before, after = load_file(reader), load_file(result.out / "last.safetensors")
    changed = {key for key in before if not before[key].equal(after[key])}
    assert changed
    assert all(key.startswith("head.") for key in changed)
    both = train(*SMALL, "--init", reader, "--frozen_epochs", 1, "--epochs", 1)
    assert [row["phase"] for row in history(both.out)] == ["frozen", "whole"]
    after = load_file(both.out / "last.safetensors")
    assert all(not before[key].equal(after[key]) for key in before if key.startswith("backbone."))


def test_random_features_are_not_frozen(train: Callable) -> None:
    result = train(*SMALL, "--init", "scratch", "--frozen_epochs", 2, "--epochs", 1)
    assert "skipping the frozen phase" in result.stdout
    assert [row["phase"] for row in history(result.out)] == ["whole"]
    assert_one_sentence(train(*SMALL, "--init", "scratch", "--frozen_epochs", 2, "--epochs", 0), "nothing to train")


def test_starting_from_another_alphabet(train: Callable, tiny: Callable, tmp_path: Path) -> None:
    path = save_checkpoint(build_model(tiny(alphabet="xcdy")), tmp_path / "other.safetensors")
    result = train(*SMALL, "--init", path, "--frozen_epochs", 0, "--epochs", 1, "--learning_rate", 1e-9)
    assert result.code == 0, result.stderr
    assert "2 characters known, 2 new (ab)" in result.stdout
    assert "No longer read, for no label has them: xy" in result.stdout
    rows = load_file(path)["head.classifier.weight"]
    mine = load_file(result.out / "last.safetensors")["head.classifier.weight"]
    for character in "cd":
        ours, theirs = Alphabet("abcd").encode(character), Alphabet("xcdy").encode(character)
        assert torch.allclose(mine[ours], rows[theirs], atol=1e-5)
    assert load_model(result.out / "best.safetensors").config.alphabet == "abcd"


def test_auto_takes_the_shipped_weights_where_they_fit(train: Callable, reader: Path, tmp_path: Path, monkeypatch):
    flags = [*SMALL, "--frozen_epochs", 0, "--epochs", 1, "--learning_rate", 1e-9]
    monkeypatch.setattr(initialization, "DEFAULT_CHECKPOINT", reader)
    result = train(*flags)
    assert f"Starting from {reader}: 4 characters known, 0 new." in result.stdout
    monkeypatch.setattr(initialization, "DEFAULT_CHECKPOINT", tmp_path / "none.safetensors")
    assert "starting from random weights" in train(*flags).stdout


def test_auto_takes_the_shipped_weights_of_the_model_asked_for() -> None:
    for model in ("mixer", "efficientnet"):
        found = initialization.starting_weights(replace(TrainConfig(), model=model))
        assert found is not None and read_metadata(found)["model"]["name"] == model
        assert "synthetic" in read_metadata(found)["provenance"]["seen"]
    assert initialization.starting_weights(replace(TrainConfig(), model="resnet")) is None


def test_another_backbone_starts_under_a_head_that_can_read(train: Callable, natural: Path) -> None:
    flags = ["--model", "efficientnet", "--hidden", 8, "--cpu", "--threads", 1, "--batch_size", 16]
    flags += ["--image_size", "[16,48]", "--init", natural, "--learning_rate", 1e-9, "--limit", 16, "--epochs", 1]
    result = train(*flags, "--head", "mixer", "--resize", "natural")
    assert result.code == 0, result.stderr
    assert "skipping the frozen phase" in result.stdout, "its backbone is random"
    assert "Starting anew, since the shapes differ: backbone" in result.stdout
    before, after = load_file(natural), load_file(result.out / "last.safetensors")
    kept = [name for name in before if name.startswith("head.mix") and name.endswith("weight")]
    assert kept and all(torch.allclose(before[name].float(), after[name].float(), atol=1e-5) for name in kept)


def test_starting_weights_that_do_not_fit_are_one_sentence(train: Callable, reader: Path) -> None:
    assert_one_sentence(train(*SMALL, "--init", "nowhere.safetensors"), "nowhere.safetensors")
    assert_one_sentence(train(*SMALL, "--init", reader, "--model", "resnet"), "--model crnn")
    assert_one_sentence(train(*SMALL, "--init", "imagenet"), "no ImageNet weights", "--model efficientnet")


def test_imagenet_without_a_network_is_one_sentence_soon(launch: Callable, dataset: Path, tmp_path: Path) -> None:
    nowhere = {"https_proxy": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path)}
    jobs = [
        launch("main.py", "--data", dataset, *SMALL, "--init", "imagenet", "--model", name, **nowhere)
        for name in ("efficientnet", "resnet")
    ]
    started = time.monotonic()
    for job in jobs:
        code = job.wait(60)
        assert_one_sentence(SimpleNamespace(code=code, stderr=job.stderr), "ImageNet", "--init scratch")
    assert time.monotonic() - started < 40


def test_the_number_of_epochs_follows_the_number_of_pictures() -> None:
    epochs = [initialization.plan_phases(TrainConfig(frozen_epochs=0), n, False)[0].epochs for n in (10, 2000, 10**6)]
    assert epochs[0] > epochs[1] > epochs[2] >= 1
    assert initialization.plan_phases(TrainConfig(frozen_epochs=0, epochs=3), 10, False)[0].epochs == 3
    rates = [
        initialization.plan_phases(TrainConfig(frozen_epochs=0), 10, pretrained)[0].learning_rate
        for pretrained in (0, 1)
    ]
    assert rates == [0.003, 0.001], "trained weights are not spoiled by large steps"
    assert initialization.plan_phases(TrainConfig(frozen_epochs=0, learning_rate=0.0), 10, True)[0].learning_rate == 0
    # From trained weights: fewer, and the pictures seen grow more slowly than the labels.
    epochs = [initialization.plan_phases(TrainConfig(frozen_epochs=0), n, True)[0].epochs for n in (50, 300, 5000)]
    assert epochs[0] > epochs[1] > epochs[2] >= 1
    assert 50 * epochs[0] < 300 * epochs[1] < 5000 * epochs[2]


def test_a_few_pictures_are_no_training_set(train: Callable, all_labels: Path) -> None:
    assert_one_sentence(train(*SCRATCH, "--limit", 9, data=all_labels), "9 training pictures", "10 are the least")


def test_corrected_readings_alone_are_no_data(
    tmp_path: Path, captchas: list[tuple[bytes, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One reading corrected on the page must not turn the first command of the README into learning from it."""
    monkeypatch.setattr(main, "ROOT", tmp_path)
    (tmp_path / "data/feedback").mkdir(parents=True)
    (tmp_path / "data/feedback" / f"{captchas[0][1]}.png").write_bytes(captchas[0][0])
    folder = main.prepare_data(replace(TrainConfig(), synthetic_count=40))
    assert sum(load_info(folder)["counts"].values()) == 40
    assert "no data in data/ but corrected readings" in capsys.readouterr().out


def test_a_run_does_not_go_on_with_other_data(
    train: Callable, tmp_path: Path, captchas: list[tuple[bytes, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "ROOT", tmp_path)
    folder = named_pictures(tmp_path, captchas[:30])
    begun = train(*SCRATCH, "--epochs", 1, data=folder)
    assert begun.code == 0, begun.stderr
    state = torch.load(begun.out / "state.pt", weights_only=True)
    for name in (f"{captchas[30][1]}_30.png", "eeeeeeee_30.png"):  # such as a model of these characters may lack
        added = folder / name
        added.write_bytes(captchas[30][0])
        assert_one_sentence(train("--resume", out=begun.out), "data has changed", "--out")
        added.unlink()
    assert train("--resume", out=begun.out).code == 0, "it is as it was"
    (folder / f"{captchas[30][1]}_30.png").write_bytes(captchas[30][0])
    del state["fingerprint"]  # an older version left it out
    torch.save(state, begun.out / "state.pt")
    assert train("--resume", out=begun.out).code == 0


def test_a_resumed_run_prepares_pictures_as_it_began(
    train: Callable, tmp_path: Path, tiny: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an older version began it, without a note of what it started from, and that is another file by now."""
    weights = tmp_path / "weights.safetensors"
    save_checkpoint(build_model(tiny("mixer", alphabet="abcd", resize="content")), weights)
    begun = train("--model", "mixer", "--init", weights, "--frozen_epochs", 0, "--epochs", 1)
    assert begun.code == 0, begun.stderr
    save_checkpoint(build_model(tiny("mixer", alphabet="abcd", resize="content", normalize=True)), weights)
    seen = []
    build = main.initialize
    monkeypatch.setattr(main, "initialize", lambda config, model: seen.append(model) or build(config, model))
    state = torch.load(begun.out / "state.pt", weights_only=True)
    del state["start"]
    torch.save(state, begun.out / "state.pt")
    assert train("--resume", out=begun.out).code == 0
    assert state.pop("config")["normalize"] is False
    torch.save(state, begun.out / "state.pt")  # a still older version
    assert train("--resume", out=begun.out).code == 0
    assert [model.normalize for model in seen] == [False, False]
    assert seen[0] == ModelConfig.from_json(read_metadata(begun.out / "best.safetensors")["model"])


def test_train_model_serves_other_programs(dataset: Path, tmp_path: Path) -> None:
    rows = []
    config = parse_config(TrainConfig, "", ["--data", str(dataset), *SCRATCH, "--epochs", "2", "--evaluate", "false"])
    result = main.train_model(replace(config, out=str(tmp_path / "run")), on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert result["history"] == rows
    assert result["checkpoint"] == tmp_path / "run" / "best.safetensors"
    assert result["checkpoint"].is_file()
    assert all(math.isfinite(row["train_loss"]) for row in rows)
    with pytest.raises(UserError, match="already holds a run"):
        main.train_model(replace(config, out=str(tmp_path / "run")))
