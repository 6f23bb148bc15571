"""Training, from the command line to the files it leaves: what it writes, refuses, survives and repeats."""

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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from conftest import Job
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file

import finetune
import main
import trainer
from captcha_reader.checkpoint import read_metadata, save_checkpoint
from captcha_reader.cli import parse_config
from captcha_reader.config import DatasetConfig, ModelConfig, TrainConfig
from captcha_reader.dataset.folders import is_dataset, load_info
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT
from captcha_reader.progress import describe_epoch
from captcha_reader.text import Alphabet, CTCCodec
from captcha_reader.transforms import build_transform
from data_loader import CaptchaDataset, MixedDataset, load_data, load_split
from finetune import blend_weights
from make_dataset import make_dataset
from model import build_model, load_model
from predict import CaptchaPredictor

ROOT = Path(main.__file__).resolve().parent
SMALL = ["--model", "crnn", "--image_size", "[16,48]", "--hidden", "8", "--cpu", "--threads", "1", "--batch_size", "16"]
SCRATCH = [*SMALL, "--init", "scratch", "--frozen_epochs", "0"]


def named_pictures(tmp_path: Path, labelled: Sequence[tuple[bytes, str]]) -> Path:
    """A folder of pictures whose file names carry the labels."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, (picture, text) in enumerate(labelled):
        (folder / f"{text}_{i}.png").write_bytes(picture)
    return folder


@pytest.fixture(autouse=True)
def _fresh() -> None:
    """accelerate keeps one state per process, and its settings must not leak from one run into the next."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()


@pytest.fixture
def train(call: Callable, dataset: Path, tmp_path: Path) -> Callable[..., SimpleNamespace]:
    """A run in this process into a folder of its own: `train(*flags)`."""
    count = iter(range(100))

    def run(*flags: object, out: Path | None = None, data: Path = dataset, evaluate: bool = False) -> SimpleNamespace:
        AcceleratorState._reset_state(True)
        out = out or tmp_path / f"run-{next(count)}"
        code, stdout, stderr = call(main, "--data", data, "--out", out, "--evaluate", evaluate, *flags)
        return SimpleNamespace(out=out, code=code, stdout=stdout, stderr=stderr)

    return run


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


# --------------------------------------------------------------------------------------------------------------------
# A run from end to end


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """`python main.py` as a user starts it."""
    out = tmp_path_factory.mktemp("finished") / "run"
    flags = ["--data", str(dataset), "--out", str(out), "--epochs", "2", *SCRATCH, "--learning_rate", "0.001"]
    result = subprocess.run([sys.executable, str(ROOT / "main.py"), *flags], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return SimpleNamespace(out=out, flags=flags, stdout=result.stdout, stderr=result.stderr)


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
    assert main.load_run_config(replace(given, resume=True)) == replace(given, resume=True)
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
    predictor = CaptchaPredictor(natural, threads=1, looks=1)
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


def test_thirty_pictures_are_learnt_by_heart(train: Callable, dataset: Path) -> None:
    flags = ["--limit", 30, "--epochs", 40, "--augment", 0, "--dropout", 0, "--hidden", 32, "--learning_rate", 0.005]
    result = train(*SCRATCH, *flags, "--batch_size", 15)
    assert result.code == 0, result.stderr
    losses = [row["train_loss"] for row in history(result.out)]
    predictor = CaptchaPredictor(result.out / "last.safetensors", threads=1)
    learnt = load_data(dataset, predictor.config, limit=30)["train"]
    readings = [p.text for p in predictor.predict([learnt.images[i] for i in range(30)])]
    assert sum(a == b for a, b in zip(readings, learnt.texts, strict=True)) >= 24, losses
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
    main.check_settings(config)


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
    return main.resolve_model_config(config, *load_split(folder, "train"), load_info(folder))


def labelled(tmp_path: Path, captchas: list[tuple[bytes, str]], texts: list[str], split: str = "100/0/0") -> Path:
    """A dataset of pictures with labels of our own, all of them for training unless `split` says otherwise."""
    folder = named_pictures(tmp_path, [(captchas[i][0], text) for i, text in enumerate(texts)])
    make_dataset(DatasetConfig(sources=[str(folder)], out=str(tmp_path / "labelled"), split=split, workers=1))
    return tmp_path / "labelled"


def test_alphabet_and_length_are_those_of_the_labels_of_every_split(
    tmp_path: Path, captchas: list[tuple[bytes, str]]
) -> None:
    texts = [letter * count for count, letter in enumerate("abcdefgh", start=1)]
    data = labelled(tmp_path, captchas, texts, split="4/2/2")
    found = resolved(replace(TrainConfig(), model="resnet", init="scratch"), data)
    assert (found.alphabet, found.max_length) == ("abcdefgh", 8)


def test_pictures_are_normalised_as_the_starting_weights_know_them_or_as_told(
    tmp_path: Path, captchas: list[tuple[bytes, str]], tiny: Callable
) -> None:
    data = labelled(tmp_path, captchas, ["ab", "cd", "aaa"])
    asked = replace(TrainConfig(), model="mixer", init="scratch")
    assert resolved(asked, data).normalise, "a new model of the default kind"
    assert not resolved(replace(asked, model="crnn"), data).normalise
    for known in (True, False):
        weights = tmp_path / f"{known}.safetensors"
        save_checkpoint(build_model(tiny("mixer", normalise=known, resize="content")), weights)
        start = replace(asked, init=str(weights))
        assert resolved(start, data).normalise is known
        assert resolved(replace(start, normalise=not known), data).normalise is not known


def test_labels_that_do_not_fit_are_named_before_the_first_step(
    train: Callable, tmp_path: Path, captchas: list[tuple[bytes, str]]
) -> None:
    data = labelled(tmp_path, captchas, ["ab", "cd", "aaa", "abc", "aab", "ddd", "a", "b", "c", "d"])
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


def test_mixed_in_captchas_fit_the_alphabet_and_are_new_each_epoch(train: Callable, dataset: Path, tiny) -> None:
    config = replace(TrainConfig(), mix_synthetic=0.25, synthetic_style="line")
    real = load_data(dataset, tiny())["train"]
    codec = CTCCodec(Alphabet("abcd"))
    mixed = finetune.mix_synthetic(config, real, codec, steps=3)
    assert isinstance(mixed, MixedDataset)
    assert len(mixed) == 75
    texts = [[mixed[epoch, i][1] for i in range(60, 75)] for epoch in (0, 1)]
    assert texts[0] != texts[1]
    assert all(set(text) <= set("abcd") and 2 <= len(text) <= 3 for text in texts[0] + texts[1])
    # Of 30 random texts some would hold equal neighbours in three letters, which three steps cannot write.
    assert all(codec.steps_needed(text) <= 3 for text in texts[0] + texts[1])
    free = finetune.mix_synthetic(config, real, codec, steps=12)
    assert any(codec.steps_needed(free[epoch, i][1]) > 3 for i in range(60, 75) for epoch in (0, 1))
    assert finetune.mix_synthetic(replace(config, mix_synthetic=0), real, codec, steps=12) is real
    result = train(*SCRATCH, "--mix_synthetic", 0.25, "--synthetic_style", "line", "--epochs", 1)
    assert result.code == 0, result.stderr
    assert "4/4" in result.stderr or "/4 " in result.stderr, "75 pictures make four batches of 16"


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


def test_synthetic_captchas_may_count_less(train: Callable, dataset: Path, tiny) -> None:
    """With no weight they leave the gradient to the labelled ones, whose share of it is that of the whole batch."""
    config = replace(TrainConfig(), mix_synthetic=0.25, synthetic_style="line", synthetic_weight=0.0, clip_norm=0)
    real = load_data(dataset, tiny())["train"]
    mixed = finetune.mix_synthetic(config, real, CTCCodec(Alphabet("abcd")), steps=12)
    made = trainer.Trainer(config, build_model(tiny()), [], {"train": mixed}, Accelerator(cpu=True), {})
    assert made._weights([0, 59, 60, 74]).tolist() == [1, 1, 0, 0]
    made.config = replace(config, synthetic_weight=0.3)
    assert made._weights([59, 60]).tolist() == pytest.approx([1, 0.3])
    model = made.model.eval()  # in training BatchNorm takes its statistics from all pictures
    made.wrapped, made.optimizer = model, torch.optim.SGD(model.parameters(), lr=0)

    def gradient(indices: range, weight: float) -> torch.Tensor:
        made.config = replace(config, synthetic_weight=weight, schedule="plateau")
        samples = [mixed[0, i] for i in indices]
        pixels = torch.from_numpy(np.stack([pixels for pixels, _, _ in samples]))
        made._step([(pixels, [text for _, text, _ in samples], list(indices))], len(indices))
        return torch.cat([weights.grad.flatten() for weights in model.parameters()])

    both, alone = range(50, 70), range(50, 60)  # ten of each, and the labelled ones of these
    assert torch.allclose(gradient(both, 0.0), gradient(alone, 0.0) / 2, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(gradient(both, 1.0), gradient(alone, 1.0) / 2, rtol=1e-3, atol=1e-5)
    assert train(*SCRATCH, "--mix_synthetic", 1, "--synthetic_weight", 0.5, "--epochs", 1).code == 0


def test_pictures_are_cut_between_their_characters() -> None:
    """The shipped reader finds the gaps of words far apart, whatever it takes their letters for."""
    transform = build_transform(replace(load_model(DEFAULT_CHECKPOINT).config))
    font = ImageFont.truetype(str(next(Path(matplotlib.get_data_path()).rglob("DejaVuSans-Bold.ttf"))), 30)
    images, texts = [], ["7kPx2", "GRN4", "b3HdFu"]
    for text in texts:
        picture = Image.new("RGB", (40 * len(text), 50), "white")
        for i, letter in enumerate(text):
            ImageDraw.Draw(picture).text((40 * i + 20, 25), letter, fill="black", font=font, anchor="mm")
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        images.append(buffer.getvalue())
    dataset = CaptchaDataset(images, texts, transform)
    seams = finetune.find_seams(load_model(DEFAULT_CHECKPOINT), dataset)
    for index, (cuts, text) in enumerate(zip(seams, texts, strict=True)):
        ink = (dataset.prepared(index).min((0, 2)) < 128).astype(int)
        assert len(cuts) == len(text) - 1
        for count, cut in enumerate(cuts, start=1):
            column = round(cut * len(ink))
            assert not ink[column]
            runs = np.flatnonzero(np.diff(np.concatenate([[0], ink[:column], [0]])) == 1)
            assert len(runs) == count, "as many letters are to the left"


def test_pictures_are_joined_where_weights_and_head_allow_it(train: Callable, natural: Path) -> None:
    flags = ["--model", "mixer", "--hidden", 8, "--cpu", "--threads", 1, "--batch_size", 16, "--frozen_epochs", 0]
    runs = [train(*flags, "--init", natural, "--epochs", 1, "--splice", share) for share in (0, 0.9)]
    assert all(run.code == 0 for run in runs), runs[1].stderr
    assert history(runs[0].out)[0]["train_loss"] != history(runs[1].out)[0]["train_loss"]
    assert "not joined" not in runs[1].stdout
    new_head = ["--hidden", 4, "--init", natural]  # would cut anywhere
    for refused in (["--init", "scratch"], ["--init", "scratch", "--head", "slots", "--resize", "content"], new_head):
        run = train(*flags, *refused, "--image_size", "[16,48]", "--epochs", 1, "--splice", 0.9)
        assert run.code == 0 and "not joined anew" in run.stdout


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


# --------------------------------------------------------------------------------------------------------------------
# A teacher


def test_a_teacher_counts_by_how_far_its_columns_are_from_ours(reader: Path, tiny: Callable) -> None:
    """Against the definition of the Kullback-Leibler divergence, in NumPy."""
    config = replace(TrainConfig(), teacher=str(reader))
    torch.manual_seed(1)
    made = trainer.Trainer(config, build_model(tiny()), [], {"train": []}, Accelerator(cpu=True), {})
    pixels = torch.randint(0, 256, (2, 1, 16, 48), dtype=torch.uint8)
    texts = ["ab", "abc"]
    teacher = load_model(reader)
    with torch.no_grad():
        theirs = teacher(pixels)
    ours = torch.randn_like(theirs)
    p, q = (x.double().softmax(-1).numpy() for x in (theirs, ours))
    wanted = (p * (np.log(p) - np.log(q))).sum((1, 2)) / [2, 3]
    assert made._distil(ours, pixels, texts).tolist() == pytest.approx(wanted.tolist(), rel=1e-3)
    assert made._distil(theirs, pixels, texts).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert not any(w.requires_grad for w in made.teacher.parameters())


def test_a_student_becomes_like_its_teacher(train: Callable, reader: Path, dataset: Path, tiny: Callable) -> None:
    """The teacher reads nonsense: who agrees with it has not learned that from the labels."""
    flags = [*SCRATCH, "--epochs", 15, "--augment", 0, "--learning_rate", 0.01]
    alone, taught = (train(*flags, *more) for more in ([], ["--teacher", reader, "--teacher_weight", 0.9]))
    assert alone.code == taught.code == 0, taught.stderr
    seen = load_data(dataset, tiny())["train"]
    pixels = torch.from_numpy(np.stack([seen.transform.finish(seen.prepared(i)) for i in range(len(seen))]))

    def columns(path: Path) -> torch.Tensor:
        with torch.no_grad():
            return load_model(path).log_probs(pixels).exp()

    wanted = columns(reader)
    apart = [(columns(run.out / "last.safetensors") - wanted).abs().sum(-1).mean() for run in (alone, taught)]
    assert apart[1] < 0.8 * apart[0], apart


def test_a_teacher_that_does_not_fit_is_refused(train: Callable, reader: Path, natural: Path, tmp_path: Path) -> None:
    other = train(*SCRATCH, "--epochs", 1, "--teacher", reader, "--alphabet", "abcde")
    assert_one_sentence(other, "alphabet", "'abcd'", "'abcde'", "--teacher")
    wide = train(*SCRATCH, "--epochs", 1, "--teacher", natural)
    assert_one_sentence(wide, "channels", "--teacher")
    slots = train(*SCRATCH, "--epochs", 1, "--head", "slots", "--teacher", reader)
    assert_one_sentence(slots, "CTC", "--teacher")
    assert_one_sentence(train(*SCRATCH, "--epochs", 1, "--teacher", tmp_path / "none.safetensors"), "none.safetensors")
    assert_one_sentence(train(*SCRATCH, "--epochs", 1, "--teacher_weight", 1), "--teacher_weight")


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
    monkeypatch.setattr(finetune, "DEFAULT_CHECKPOINT", reader)
    result = train(*flags)
    assert f"Starting from {reader}: 4 characters known, 0 new." in result.stdout
    monkeypatch.setattr(finetune, "DEFAULT_CHECKPOINT", tmp_path / "none.safetensors")
    assert "starting from random weights" in train(*flags).stdout


def test_auto_takes_the_shipped_weights_of_the_model_asked_for() -> None:
    for model in ("mixer", "efficientnet"):
        found = finetune.starting_weights(replace(TrainConfig(), model=model))
        assert found is not None and read_metadata(found)["model"]["name"] == model
        assert "synthetic" in read_metadata(found)["provenance"]["seen"]
    assert finetune.starting_weights(replace(TrainConfig(), model="resnet")) is None


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


# --------------------------------------------------------------------------------------------------------------------
# The loop


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7, 20, 100])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "plateau", "constant"])
def test_schedules_rise_to_the_peak_and_fall(schedule: str, steps: int) -> None:
    config = replace(TrainConfig(), schedule=schedule, learning_rate=0.1)
    phase = trainer.Phase("whole", 1, 0.1, frozen=False)
    layer = torch.nn.Linear(1, 1)
    optimizer = trainer.build_optimizer(config, phase, layer)
    schedule_ = trainer.build_schedule(config, phase, optimizer, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule_.step(1.0) if schedule == "plateau" else schedule_.step()
    assert max(rates) <= 0.1 + 1e-9
    if schedule in ("onecycle", "cosine") and steps >= 20:
        peak = int(np.argmax(rates))
        assert rates[peak] == pytest.approx(0.1)
        assert peak <= 0.15 * steps
        assert rates[0] < 0.06 and rates[-1] < 0.005
        assert np.all(np.diff(rates[: peak + 1]) >= 0)
        assert np.all(np.diff(rates[peak:]) <= 0)
    if schedule == "constant":
        assert set(rates) == {0.1}


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "plateau", "constant"])
def test_every_schedule_and_optimizer_trains(schedule: str, train: Callable) -> None:
    for optimizer in ("adam", "adamw"):
        result = train(*SCRATCH, "--schedule", schedule, "--optimizer", optimizer, "--epochs", 2, "--limit", 16)
        assert result.code == 0, result.stderr
        assert len(history(result.out)) == 2


@pytest.mark.parametrize("model", ["mixer", "efficientnet", "resnet", "lacc"])
def test_the_other_models_train_too(model: str, train: Callable) -> None:
    result = train(*SCRATCH, "--model", model, "--epochs", 1, "--limit", 16)
    assert result.code == 0, result.stderr
    assert read_metadata(result.out / "best.safetensors")["model"]["name"] == model


def test_a_batch_in_parts_trains_as_a_whole_one(train: Callable) -> None:
    """Pictures no wider than the least width come in parts, but as they would all together."""
    flags = [*SCRATCH, "--model", "mixer", "--epochs", 2, "--dropout", 0, "--augment", 0, "--learning_rate", "1e-5"]
    parts, whole = (train(*flags, "--image_size", "[16,128]", "--resize", resize) for resize in ("natural", "content"))
    assert (parts.code, whole.code) == (0, 0), parts.stderr + whole.stderr
    for a, b in zip(history(parts.out), history(whole.out), strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], rel=0.05)  # each part has statistics of its own


def test_weight_decay_spares_biases_and_norms() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    decayed, spared = trainer.parameter_groups(model, 0.5)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0)
    assert [p.dim() for p in decayed["params"]] == [4]
    assert len(spared["params"]) == 3


def test_bf16_trains_on_the_cpu(train: Callable) -> None:
    result = train(*SCRATCH, "--mixed_precision", "bf16", "--epochs", 1)
    assert result.code == 0, result.stderr
    exact = train(*SCRATCH, "--epochs", 1)
    losses = [history(r.out)[0]["train_loss"] for r in (result, exact)]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_a_loss_that_is_no_number_ends_the_run_in_one_sentence(train: Callable) -> None:
    result = train(*SCRATCH, "--epochs", 3, "--learning_rate", 1e9, "--clip_norm", 0)
    assert_one_sentence(result, "loss is", "--learning_rate", "step")


def constant_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation that never gets better after its first epoch."""
    measured = trainer.validate
    monkeypatch.setattr(trainer, "validate", lambda *a: measured(*a) | {"sequence_accuracy": 0.0, "loss": 1.0})


def test_early_stopping_stops_and_stays_stopped(train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    constant_score(monkeypatch)
    result = train(*SCRATCH, "--epochs", 9, "--patience", 2, "--save_every", 5)
    assert "stopping early" in result.stdout
    assert len(history(result.out)) == 3
    assert read_metadata(result.out / "best.safetensors")["metrics"]["epoch"] == 1
    assert read_metadata(result.out / "last.safetensors")["metrics"]["epoch"] == 3
    assert train("--resume", out=result.out).code == 0
    assert len(history(result.out)) == 3


def test_patience_of_the_frozen_phase_does_not_count_for_the_whole(train: Callable, reader: Path, monkeypatch) -> None:
    constant_score(monkeypatch)
    result = train(*SMALL, "--init", reader, "--frozen_epochs", 4, "--epochs", 5, "--patience", 2)
    assert [row["phase"] for row in history(result.out)] == ["frozen"] * 4 + ["whole"] * 2


def test_the_state_is_saved_every_so_many_epochs_and_at_the_end(train: Callable, monkeypatch) -> None:
    saved, save = [], trainer.Trainer.save_state
    monkeypatch.setattr(trainer.Trainer, "save_state", lambda self: (saved.append(self.place["epoch"]), save(self)))
    train(*SCRATCH, "--epochs", 5, "--save_every", 2, "--limit", 16)
    assert saved == [0, 2, 4, 5]


def test_the_best_weights_are_kept(train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([(0.2, 3.0), (0.5, 2.0), (0.5, 1.0), (0.4, 0.1)])
    measured = trainer.validate

    def validate(*arguments: object) -> dict:
        accuracy, loss = next(scores)
        return measured(*arguments) | {"sequence_accuracy": accuracy, "loss": loss}

    monkeypatch.setattr(trainer, "validate", validate)
    result = train(*SCRATCH, "--epochs", 4, "--limit", 16)
    assert read_metadata(result.out / "best.safetensors")["metrics"]["epoch"] == 3, "the loss decides between equals"


def test_blanks_alone_are_explained() -> None:
    row = {"epoch": 1, "train_loss": 4.0, "seconds": 1.0, "waited": 0.0}
    validation = {"loss": 4.0, "sequence_accuracy": 0.0, "cer": 1.0, "blanks": 1.0}
    text = describe_epoch(row | {"validation": validation | {"samples": [("ab", ""), ("c", "")]}}, True)
    assert "Only blanks" in text and "--learning_rate" in text and "ab→∅" in text and "blanks 100%" in text
    text = describe_epoch(row | {"validation": validation | {"samples": [("ab", "b"), ("c", "")]}}, True)
    assert "Only blanks" not in text


def test_pictures_that_come_too_slowly_are_named() -> None:
    row = {"epoch": 1, "train_loss": 4.0, "seconds": 10.0}
    assert "waiting for pictures" not in describe_epoch(row | {"waited": 0.5}, True)
    assert "30% of it waiting for pictures (--workers)" in describe_epoch(row | {"waited": 3.0}, True)


def test_the_number_of_epochs_follows_the_number_of_pictures() -> None:
    epochs = [main.plan_phases(TrainConfig(frozen_epochs=0), n, False)[0].epochs for n in (10, 2000, 10**6)]
    assert epochs[0] > epochs[1] > epochs[2] >= 1
    assert main.plan_phases(TrainConfig(frozen_epochs=0, epochs=3), 10, False)[0].epochs == 3
    rates = [main.plan_phases(TrainConfig(frozen_epochs=0), 10, pretrained)[0].learning_rate for pretrained in (0, 1)]
    assert rates == [0.003, 0.001], "trained weights are not spoiled by large steps"
    assert main.plan_phases(TrainConfig(frozen_epochs=0, learning_rate=0.0), 10, True)[0].learning_rate == 0
    # From trained weights: fewer, and the pictures seen grow more slowly than the labels.
    epochs = [main.plan_phases(TrainConfig(frozen_epochs=0), n, True)[0].epochs for n in (50, 300, 5000)]
    assert epochs[0] > epochs[1] > epochs[2] >= 1
    assert 50 * epochs[0] < 300 * epochs[1] < 5000 * epochs[2]


# --------------------------------------------------------------------------------------------------------------------
# Characters that few labels lack


@pytest.mark.parametrize(
    ("labels", "known", "expected"),
    [
        (["12", "34"], "0123456789ab", "1234056789"),  # four digits of forty: the others may come
        (["12", "34"], "", "1234"),  # from scratch there is nothing to keep
        (["1234567890" * 4], "0123456789ab", "1234567890"),
        (["1234" * 10], "0123456789ab", "1234"),  # forty digits, and never a 5: it is not used
        (["aB"], "abcABC01", "aBACbc"),
    ],
)
def test_few_labels_keep_the_characters_they_lack_by_chance(labels: list[str], known: str, expected: str) -> None:
    seen = "".join(dict.fromkeys("".join(labels)))
    assert finetune.complete_alphabet(seen, labels, known) == expected


# --------------------------------------------------------------------------------------------------------------------
# What to expect of new pictures


FOLDS = [*SMALL, "--init", "scratch", "--frozen_epochs", "0", "--epochs", "1", "--folds", "3", "--evaluate", "true"]


@pytest.fixture(scope="module")
def all_labels(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all") / "dataset"
    make_dataset(DatasetConfig(sources=[str(shards)], out=str(folder), split="100/0/0", workers=1))
    return folder


def test_every_label_is_measured_once_by_a_model_that_had_not_seen_it(
    train: Callable, all_labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[bytes]] = []
    read: list[bytes] = []
    fit, predict = trainer.Trainer.fit, CaptchaPredictor.predict

    def watched_fit(self: trainer.Trainer) -> None:
        images = self.datasets["train"].images
        seen.append({images[i] for i in range(len(images))})
        fit(self)

    def watched_predict(self: CaptchaPredictor, images: list, **settings: object) -> list:
        if all(isinstance(image, bytes) for image in images):
            assert not seen[-1] & set(images)
            read.extend(images)
        return predict(self, images, **settings)

    monkeypatch.setattr(trainer.Trainer, "fit", watched_fit)
    monkeypatch.setattr(CaptchaPredictor, "predict", watched_predict)
    result = train(*FOLDS, data=all_labels)
    assert result.code == 0, result.stderr
    assert [len(images) for images in seen] == [90, 60, 60, 60]  # the model itself learns from all of them
    assert set(read) == seen[0] and len(read) == 90
    report = json.loads((result.out / "metrics.json").read_text())
    assert (report["n"], report["folds"]) == (90, 3)
    assert "Expect " in result.stdout and "measured on 90 pictures by 3 model(s)" in result.stdout
    assert read_metadata(result.out / "best.safetensors")["metrics"]["cross_validation"]["n"] == 90
    assert not list(result.out.glob("fold-*"))


def test_few_pictures_measured_say_little() -> None:
    report = {"sequence_accuracy": 1.0, "sequence_accuracy_ignore_case": 1.0, "wilson_95": [0.44, 1.0], "folds": 3}
    assert "go by the interval" in finetune.describe_expectation(report | {"n": 3})
    assert "go by the interval" not in finetune.describe_expectation(report | {"n": 100})


def test_measuring_changes_nothing_of_the_model(train: Callable, all_labels: Path) -> None:
    with_folds, without = train(*FOLDS, data=all_labels), train(*FOLDS, "--folds", 0, data=all_labels)
    a, b = (load_file(run.out / "best.safetensors") for run in (with_folds, without))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_weights_are_kept_the_share_of_the_way_that_reads_best(
    train: Callable, all_labels: Path, reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = [*FOLDS, "--init", reader]
    tuned = train(*flags, "--folds", 0, data=all_labels)
    monkeypatch.setattr(finetune, "BLENDS", (0.5,))
    half = train(*flags, "--blend", 0.5, data=all_labels)
    assert "0.5 of the way" in half.stdout
    report = json.loads((half.out / "metrics.json").read_text())
    assert (report["blend"], report["n"]) == (0.5, 90)
    images, texts = load_split(all_labels, "train")
    found = CaptchaPredictor(reader, device="cpu").predict([images[i] for i in range(len(images))])
    right = np.mean([reading.text == text for reading, text in zip(found, texts, strict=True)])
    assert report["before"] == pytest.approx(right)  # of what measured the tuned weights, too
    assert f"The weights it started from read {right:.1%} of these" in half.stdout
    start, end, between = (
        load_model(p) for p in (reader, tuned.out / "best.safetensors", half.out / "best.safetensors")
    )
    expected = blend_weights(start, end, 0.5)
    assert all(torch.allclose(between.state_dict()[name], value, atol=1e-6) for name, value in expected.items())
    assert read_metadata(half.out / "best.safetensors")["provenance"]["blend"] == 0.5
    resumed = train("--resume", out=half.out)
    assert resumed.code == 0 and "Expect " in resumed.stdout and "measuring by a model" not in resumed.stdout
    again = load_model(half.out / "best.safetensors").state_dict()
    assert all(torch.equal(again[name], value) for name, value in between.state_dict().items())
    unmeasured = train(*flags, "--folds", 0, "--blend", 0.5, data=all_labels)
    same = load_model(unmeasured.out / "best.safetensors").state_dict()
    assert all(torch.equal(same[name], value) for name, value in between.state_dict().items())
    assert train("--resume", out=unmeasured.out).code == 0
    same = load_model(unmeasured.out / "best.safetensors").state_dict()
    assert all(torch.equal(same[name], value) for name, value in between.state_dict().items()), "not half of the half"


def test_more_labels_go_further_from_the_trained_weights() -> None:
    config = TrainConfig(blend=None)
    assert [finetune.usual_blend(config, n) for n in (3, 50, 300, 5000)] == [0.5, 0.75, 0.9, 0.98]
    assert finetune.usual_blend(TrainConfig(), 50) == 1


@pytest.mark.parametrize(
    ("wrong", "chosen"),
    [
        ({0.5: range(0), 0.75: range(0), 1.0: range(0)}, 0.75),
        ({0.5: range(9), 0.75: range(20, 30), 1.0: range(12)}, 0.75),  # one of 19 is chance: a standard error is 4.4
        ({0.5: range(8), 0.75: range(10), 1.0: range(12)}, 0.5),  # the same but for two: a standard error is 1.4
        ({0.5: range(30), 0.75: range(30, 50), 1.0: range(10)}, 1.0),
        ({1.0: range(5)}, 1.0),
    ],
)
def test_another_share_than_the_usual_must_read_clearly_better(
    wrong: dict[float, Sequence[int]], chosen: float
) -> None:
    texts = ["abcd"] * 100
    readings = {share: ["abcx" if i in places else "abcd" for i in range(100)] for share, places in wrong.items()}
    assert finetune.choose_blend(texts, readings, 0.75) == chosen


def test_more_parts_than_labels_are_refused_before_the_training(train: Callable, all_labels: Path) -> None:
    result = train(*FOLDS, "--folds", 91, data=all_labels)
    assert_one_sentence(result, "90 labels cannot be measured in 91 parts")
    assert not (result.out / "best.safetensors").exists()


def test_measuring_goes_on_where_it_was_stopped(train: Callable, all_labels: Path, monkeypatch) -> None:
    fit, count = trainer.Trainer.fit, [0]

    def stop_at_third(self: trainer.Trainer) -> None:
        count[0] += 1
        if count[0] == 3:  # the model itself, the first part, and now the second
            raise trainer.Interrupted(str(self.out))
        fit(self)

    monkeypatch.setattr(trainer.Trainer, "fit", stop_at_third)
    stopped = train(*FOLDS, data=all_labels)
    assert stopped.code == 130 and f"--out {stopped.out}" in stopped.stderr
    resumed = train("--resume", out=stopped.out)
    assert resumed.code == 0, resumed.stderr
    assert count[0] == 3 + 3  # the finished model is looked at again, the first part is not
    undisturbed = train(*FOLDS, data=all_labels)
    reports = [json.loads((run.out / "metrics.json").read_text()) for run in (resumed, undisturbed)]
    assert reports[0] == reports[1]


def test_fewer_labels_than_parts_is_one_sentence(train: Callable, all_labels: Path) -> None:
    assert_one_sentence(train(*FOLDS, "--limit", 12, "--folds", 13, data=all_labels), "12 labels", "--folds")


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


def test_characters_without_a_font_are_learned_from_the_labels(train: Callable, dataset: Path, tiny) -> None:
    real, said = load_data(dataset, tiny())["train"], []
    config = replace(TrainConfig(), mix_synthetic=0.25, synthetic_style="line")
    mixed = finetune.mix_synthetic(config, real, CTCCodec(Alphabet("ab中")), 12, said.append)
    assert {c for i in range(60, 75) for c in mixed[0, i][1]} == set("ab")
    assert said == ["No font here can draw 中: these characters are learned from the labels alone."]
    assert finetune.mix_synthetic(config, real, CTCCodec(Alphabet("中")), 12, said.append) is real


def test_labels_choose_the_epochs() -> None:
    """Few labels are seen more often than many, but many make for more work, up to a bound."""
    numbers = [10, 50, 100, 300, 1000, 5000, 20_000]
    epochs = [finetune.default_epochs(n, pretrained=True) for n in numbers]
    assert epochs == sorted(epochs, reverse=True) and epochs[0] == 60 and epochs[-2:] == [16, 6]
    seen = [n * e for n, e in zip(numbers, epochs, strict=True)]
    assert seen == sorted(seen)
    assert 7000 <= seen[3] <= 8000, "300 labels are to be learned within three minutes"


def test_the_last_weights_are_averaged(train: Callable, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps of the head alone, then twelve of all: the mean is that of the last six, BatchNorm's too."""
    states = []
    step = trainer.Trainer._step

    def noting(trainer: trainer.Trainer, *args: object) -> float:
        loss = step(trainer, *args)
        states.append({name: tensor.clone() for name, tensor in trainer.model.state_dict().items()})
        return loss

    monkeypatch.setattr(trainer.Trainer, "_step", noting)
    flags = [*SMALL, "--init", reader, "--frozen_epochs", 1, "--epochs", 4, "--schedule", "constant"]
    result = train(*flags, "--average", 0.5)
    assert result.code == 0, result.stderr
    assert len(states) == 15
    kept = load_file(result.out / "last.safetensors")
    for name, tensor in kept.items():
        if tensor.is_floating_point():
            mean = torch.stack([state[name] for state in states[-6:]]).mean(0)
            assert torch.allclose(tensor, mean, rtol=1e-4, atol=1e-6), name
    moved = [name for name in kept if not torch.allclose(kept[name].float(), states[-1][name].float(), atol=1e-6)]
    assert any("weight" in name for name in moved) and any("running_var" in name for name in moved)


# --------------------------------------------------------------------------------------------------------------------
# Killed, stopped, resumed


LONG = [
    *(*SMALL, "--batch_size", "8", "--frozen_epochs", "1", "--epochs", "4"),
    *("--average", "0.7", "--dropout", "0.2", "--evaluate", "false"),
]


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, reader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two phases and dropout that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = Job(
        "main.py", ["--data", str(dataset), "--init", str(reader), "--out", str(folder / "run"), *LONG], folder, {}
    )
    assert job.wait() == 0, job.stderr
    assert [row["phase"] for row in history(folder / "run")] == ["frozen", *["whole"] * 4]
    return folder / "run"


def test_killed_at_any_moment_and_resumed_ends_with_the_same_weights(
    launch: Callable, dataset: Path, reader: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    kill, stop = signal.SIGKILL, signal.SIGTERM

    def writes(job: Job, name: str) -> bool:
        return any(out.glob(f".{name}.{job.pid}.*"))  # of this process: those killed before leave theirs behind

    moments = {
        "the first state": (kill, lambda job, more: (out / "state.pt").exists()),
        "while a state is written": (kill, lambda job, more: more and writes(job, "state")),
        "while weights are written": (kill, lambda job, more: writes(job, "last")),
        "a request to stop, within an epoch": (stop, lambda job, more: more),
        "a kill after that": (kill, lambda job, more: more),
    }
    start = ["--data", dataset, "--init", reader, "--out", out, *LONG]
    killed = []
    for moment, (number, reached) in moments.items():
        before = len(history(out))
        job = launch("main.py", *start)
        start = ["--resume", "--out", out]
        if not job.until(lambda: reached(job, len(history(out)) > before)):  # noqa: B023
            assert job.wait() == 0, job.stderr  # it went through before the moment was seen
            break
        os.kill(job.pid, number)
        code = job.wait()
        if code == 0:  # it ended while the signal was on its way
            break
        assert code == (-kill if number == kill else 130), job.stderr
        killed.append(moment)
        state = torch.load(out / "state.pt", weights_only=True)  # whole, whatever the moment
        assert state["place"]["epoch"] <= 4
    assert len(killed) >= 2, killed
    last = launch("main.py", *start)
    assert last.wait() == 0, last.stderr
    assert_same_run(out, undisturbed)


def test_the_state_is_saved_within_long_epochs(train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    places = []
    save = trainer.Trainer.save_state

    def noting(trainer: trainer.Trainer) -> None:
        save(trainer)
        places.append(torch.load(trainer.state_path, weights_only=True)["place"])

    monkeypatch.setattr(trainer, "SAVE_SECONDS", -1)
    monkeypatch.setattr(trainer.Trainer, "save_state", noting)
    assert train("--epochs", "1", "--batch_size", "8").code == 0
    assert [place["step"] for place in places][:3] == [0, 1, 2]


def test_ctrl_c_within_an_epoch_says_how_to_go_on_and_loses_nothing(
    launch: Callable, dataset: Path, reader: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    job = launch("main.py", "--data", dataset, "--init", reader, "--out", out, *LONG)
    assert job.until(lambda: len(history(out)) >= 1)
    os.kill(job.pid, signal.SIGINT)
    assert job.wait() == 130, job.stderr
    assert f"python main.py --resume --out {out}" in job.stderr
    assert "Traceback" not in job.stderr
    state = torch.load(out / "state.pt", weights_only=True)
    assert state["place"]["step"] > 0, "between two epochs would be no test"
    assert len(history(out)) < 5
    again = launch("main.py", "--resume", "--out", out)
    assert again.wait() == 0, again.stderr
    assert "Going on after epoch" in again.stdout
    assert_same_run(out, undisturbed)


def test_the_loss_scale_of_half_precision_is_resumed(
    train: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows with each step that does not overflow; on a CPU accelerate has none of its own."""
    halfway, save, init = tmp_path / "halfway", trainer.Trainer.save_state, main.Accelerator.__init__

    def scaling(accelerator: Accelerator, **settings: object) -> None:
        init(accelerator, **settings)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0, growth_interval=3)

    def keep(trainer: trainer.Trainer) -> None:
        save(trainer)
        if (trainer.place["epoch"], trainer.place["step"]) == (1, 0):
            shutil.copytree(trainer.out, halfway, dirs_exist_ok=True)

    monkeypatch.setattr(main.Accelerator, "__init__", scaling)
    monkeypatch.setattr(trainer.Trainer, "save_state", keep)
    undisturbed = train(*SCRATCH, "--batch_size", 15, "--epochs", 2)
    assert undisturbed.code == 0, undisturbed.stderr
    resumed = train("--resume", out=halfway)
    assert resumed.code == 0, resumed.stderr
    scales = [torch.load(out / "state.pt", weights_only=True)["scaler"] for out in (undisturbed.out, halfway)]
    assert scales[0]["scale"] == 8, "eight steps"
    assert scales[0] == scales[1]


def test_resuming_needs_a_run(train: Callable, call: Callable, tmp_path: Path, finished: SimpleNamespace) -> None:
    assert_one_sentence(train("--resume", out=tmp_path / "nowhere"), "no run to resume")
    code, _, stderr = call(main, "--resume")
    assert_one_sentence(SimpleNamespace(code=code, stderr=stderr), "--out")
    copy = Path(shutil.copytree(finished.out, tmp_path / "copy"))
    state = (copy / "state.pt").read_bytes()
    for damage in (state[: len(state) // 2], b"", b"nonsense"):
        (copy / "state.pt").write_bytes(damage)
        assert_one_sentence(train("--resume", out=copy), "state.pt", "damaged")
    (copy / "state.pt").unlink()
    assert_one_sentence(train("--resume", out=copy), "no state to resume")


def test_what_another_version_left_is_resumed_or_refused(train: Callable, finished: SimpleNamespace, tmp_path: Path):
    copy = Path(shutil.copytree(finished.out, tmp_path / "copy"))
    state = torch.load(copy / "state.pt", weights_only=True)
    # It did not measure waiting, and kept the generators of one process and no scale of the loss.
    older = {key: value for key, value in state.items() if key not in ("generators", "scaler")}
    older |= {"running": state["running"][:3], "rng": state["generators"][0][0], "cuda_rng": []}
    torch.save(older, copy / "state.pt")
    assert train("--resume", out=copy).code == 0
    with (copy / "config.yaml").open("a") as file:
        file.write("magic: 3\n")
    assert_one_sentence(train("--resume", out=copy), "magic", "config.yaml")


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
    """Also where the weights that it started from are others by now, as after an update."""
    weights = tmp_path / "weights.safetensors"
    save_checkpoint(build_model(tiny("mixer", alphabet="abcd", resize="content")), weights)
    begun = train("--model", "mixer", "--init", weights, "--frozen_epochs", 0, "--epochs", 1)
    assert begun.code == 0, begun.stderr
    save_checkpoint(build_model(tiny("mixer", alphabet="abcd", resize="content", normalise=True)), weights)
    seen = []
    build = main.initialise
    monkeypatch.setattr(main, "initialise", lambda config, model: seen.append(model) or build(config, model))
    assert train("--resume", out=begun.out).code == 0
    state = torch.load(begun.out / "state.pt", weights_only=True)
    assert state.pop("config")["normalise"] is False
    torch.save(state, begun.out / "state.pt")  # as an older version left it
    assert train("--resume", out=begun.out).code == 0
    assert [model.normalise for model in seen] == [False, False]
    assert seen[0] == ModelConfig.from_json(read_metadata(begun.out / "best.safetensors")["model"])


def test_a_place_where_nothing_may_be_written_is_one_sentence(train: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_sentence(train(*SCRATCH, out=tmp_path / "file" / "run"), "cannot be written", "file/run")


def test_the_saved_settings_win_when_resuming(call: Callable, finished: SimpleNamespace, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.out, tmp_path / "copy"))
    code, stdout, stderr = call(main, "--resume", "--out", copy, "--epochs", 9, "--seed", 3, "--batch_size", 16)
    assert code == 0, stderr
    (told,) = [line for line in stdout.splitlines() if "not used" in line]
    assert told.endswith("not used: --epochs 9, --seed 3.")
    assert "not used" not in call(main, "--resume", "--out", copy)[1]
    assert timeless(copy) == timeless(finished.out)


def test_a_full_disk_is_one_sentence_and_leaves_the_run_whole(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ["--data", dataset, "--init", "scratch", "--epochs", 1, "--limit", 16, "--evaluate", "false"]
    # No file may grow beyond 2 MB: the system's answer to a write is an error, as on a full disk.
    words = [str(word) for word in (sys.executable, ROOT / "main.py", *flags, "--out", out)]
    limited = ["bash", "-c", 'ulimit -f 2000; exec "$@"', "bash", *words]
    done = subprocess.run(limited, capture_output=True, text=True, timeout=120)
    assert_one_sentence(done, "no room to write", "state")
    assert {path.name for path in out.iterdir()} == {"config.yaml"}
    assert subprocess.run(words, capture_output=True, timeout=120).returncode == 0


# --------------------------------------------------------------------------------------------------------------------
# Several processes, trackers


def test_two_processes_train_as_one_and_go_on_where_they_stopped(
    train: Callable, dataset: Path, tmp_path: Path
) -> None:
    """Its two shares of a batch, of 8 and 7 pictures, draw dropout from generators that soon differ."""
    out, halfway, keeping = tmp_path / "together", tmp_path / "halfway", tmp_path / "keeping.py"
    keeping.write_text(
        f"import shutil, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import main\n"
        "save = main.Trainer.save_state\n"
        "def keep(trainer):\n"
        "    save(trainer)\n"
        "    if trainer.accelerator.is_main_process and (trainer.place['epoch'], trainer.place['step']) == (1, 0):\n"
        f"        shutil.copytree(trainer.out, {str(halfway)!r})\n"
        "trainer.Trainer.save_state = keep\n"
        "main.run(main.main)\n"
    )
    flags = [*SCRATCH, "--batch_size", 15, "--epochs", 2, "--dropout", 0.2, "--learning_rate", 0.003]
    alone = train(*flags)
    launcher = "-m accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no"

    def launch_two(*words: object) -> subprocess.CompletedProcess[str]:
        command = [*launcher.split(), "--dynamo_backend", "no", "--main_process_port", "0", *words]
        return subprocess.run(
            [sys.executable, *map(str, command)], capture_output=True, text=True, cwd=tmp_path, timeout=120
        )

    result = launch_two(keeping, *flags, "--data", dataset, "--out", out, "--evaluate", "false")
    assert result.returncode == 0, result.stderr
    by_one = Path(shutil.copytree(halfway, tmp_path / "by-one"))
    resumed = launch_two(ROOT / "main.py", "--resume", "--out", halfway)
    assert resumed.returncode == 0, resumed.stderr
    assert "Going on after epoch 1, step 0" in resumed.stdout
    assert_same_run(halfway, out)
    assert train("--resume", out=by_one).code == 0, "another number of processes"
    assert history(by_one)[1]["train_loss"] == pytest.approx(history(out)[1]["train_loss"], rel=0.03)
    assert result.stdout.count("Phase whole") == 1, "one process speaks"
    assert "on cpu:0" in result.stdout, "two processes at work, not two runs"
    one, two = history(alone.out), history(out)
    assert [row["epoch"] for row in two] == [1, 2]
    for a, b in zip(one, two, strict=True):
        assert b["validation"]["n"] == 15
        assert [truth for truth, _ in b["validation"]["samples"]] == [truth for truth, _ in a["validation"]["samples"]]
        # Not equal: each process normalises by the statistics of its own half of a batch.
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=0.03)
        assert b["learning_rate"] == pytest.approx(a["learning_rate"], rel=1e-6)
    assert {path.name for path in out.iterdir()} == {
        "best.safetensors",
        "last.safetensors",
        "config.yaml",
        "history.json",
        "state.pt",
    }
    CaptchaPredictor(out / "best.safetensors", threads=1)


def test_mlflow_holds_parameters_metrics_and_the_loss_curve(train: Callable, tmp_path: Path, monkeypatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.chdir(tmp_path)
    result = train(*SCRATCH, "--epochs", 3, "--tracker", "mlflow", evaluate=True)
    assert result.code == 0, result.stderr
    client = mlflow.MlflowClient(tracking_uri=store)
    runs = [run for e in client.search_experiments() for run in client.search_runs([e.experiment_id])]
    assert len(runs) == 1
    run, rows = runs[0], history(result.out)
    assert run.info.status == "FINISHED"
    assert (run.data.params["epochs"], run.data.params["model"], run.data.params["batch_size"]) == ("3", "crnn", "16")
    curve = sorted(client.get_metric_history(run.info.run_id, "train/loss"), key=lambda point: point.step)
    assert [point.step for point in curve] == [1, 2, 3]
    assert [point.value for point in curve] == pytest.approx([row["train_loss"] for row in rows])
    cer = sorted(client.get_metric_history(run.info.run_id, "validation/cer"), key=lambda point: point.step)
    assert [point.value for point in cer] == pytest.approx([row["validation"]["cer"] for row in rows])
    report = json.loads((result.out / "metrics.json").read_text())
    for key in ("sequence_accuracy", "cer", "n"):
        assert run.data.metrics[f"test/{key}"] == pytest.approx(report[key])
        assert run.data.metrics[f"validation/{key}"] == pytest.approx(rows[-1]["validation"][key])


def test_a_tracker_that_is_missing_or_broken_is_one_sentence(train: Callable, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(main, "get_available_trackers", lambda: ["mlflow"])
    missing = train(*SCRATCH, "--tracker", "trackio")
    assert_one_sentence(missing, "trackio", "pip install trackio")
    assert not missing.out.exists()

    def fail(*arguments: object, **settings: object) -> None:
        raise RuntimeError("the store is locked\nand more of it")

    monkeypatch.setattr(main.Accelerator, "init_trackers", fail)
    monkeypatch.setattr(main.Accelerator, "__init__", without_tracker(main.Accelerator.__init__))
    assert_one_sentence(train(*SCRATCH, "--tracker", "mlflow"), "mlflow", "the store is locked")


def without_tracker(init: Callable) -> Callable:
    return lambda self, **settings: init(self, **settings | {"log_with": None})


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
