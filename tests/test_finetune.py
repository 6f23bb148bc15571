"""Few labels: spliced pictures, synthetic ones among them, cross-validation, blending."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from safetensors.torch import load_file
from training_runs import (
    SCRATCH,
    SMALL,
    assert_one_sentence,
    assert_same_run,
    fresh_accelerator,
    history,
)

import finetune
import initialization
import main
import trainer
from captcha_reader.checkpoint import label_hints, read_metadata
from captcha_reader.cli import parse_config
from captcha_reader.config import DatasetConfig, TrainConfig
from captcha_reader.files import DEFAULT_CHECKPOINT
from captcha_reader.images import open_image
from captcha_reader.text import Alphabet, CTCCodec
from captcha_reader.transfer import blend as blend_weights
from captcha_reader.transforms import build_transform
from data_loader import CaptchaDataset, MixedDataset, load_data, load_split
from make_dataset import make_dataset
from model import build_model, load_model
from predict import CaptchaPredictor


@pytest.fixture(autouse=True)
def _fresh() -> None:
    fresh_accelerator()


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
    # Of 30 random texts some would hold equal neighbors in three letters, which three steps cannot write.
    assert all(codec.steps_needed(text) <= 3 for text in texts[0] + texts[1])
    free = finetune.mix_synthetic(config, real, codec, steps=12)
    assert any(codec.steps_needed(free[epoch, i][1]) > 3 for i in range(60, 75) for epoch in (0, 1))
    assert finetune.mix_synthetic(replace(config, mix_synthetic=0), real, codec, steps=12) is real
    result = train(*SCRATCH, "--mix_synthetic", 0.25, "--synthetic_style", "line", "--epochs", 1)
    assert result.code == 0, result.stderr
    assert re.search(r"step \d/4\b", result.stderr), "75 pictures make four batches of 16"


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


def test_seams_are_sought_in_what_is_read_and_not_in_what_is_trained_on(
    captchas: list[tuple[bytes, str]], tiny: Callable
) -> None:
    model = build_model(tiny("mixer", resize="natural", soften=0.7))
    shown: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    png, text = captchas[0]
    finetune.find_seams(model, CaptchaDataset([png], [text], build_transform(model.config, train=True)))
    assert np.array_equal(shown[0][0].numpy(), build_transform(model.config)(open_image(png)))


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
    assert initialization.complete_alphabet(seen, labels, known) == expected


# --------------------------------------------------------------------------------------------------------------------
# What to expect of new pictures


FOLDS = [*SMALL, "--init", "scratch", "--frozen_epochs", "0", "--epochs", "1", "--folds", "3", "--evaluate", "true"]


def read_by_a_model(shards: Path, out: Path, every: int) -> set[bytes]:
    """Make the dataset `out` of the shards, for training alone, with each `every`th label a pseudo-label; gives these
    pictures."""
    source = out.with_suffix(".parquet")
    table = pq.read_table(next(shards.glob("*.parquet")))
    by_model = [row % every == 0 for row in range(len(table))]
    pq.write_table(table.append_column("source", [["model" if model else "person" for model in by_model]]), source)
    make_dataset(DatasetConfig(sources=[str(source)], out=str(out), split="100/0/0", workers=1))
    return {row["image"]["bytes"] for row, model in zip(table.to_pylist(), by_model, strict=True) if model}


@pytest.mark.parametrize("typed", [90, 60])
def test_every_typed_label_is_measured_once_by_a_model_that_had_not_seen_it(
    typed: int, train: Callable, all_labels: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a model read and nobody typed is learned from, and never measured on."""
    pseudo, data = set(), all_labels
    if typed == 60:
        data = tmp_path / "partly"
        pseudo = read_by_a_model(shards, data, 3)
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
    result = train(*FOLDS, data=data)
    assert result.code == 0, result.stderr
    # The model itself learns from all of them, and each fold's from all but a third of the typed ones.
    assert [len(images) for images in seen] == [90, *[90 - typed // 3] * 3]
    assert set(read) == seen[0] - pseudo and len(read) == typed
    assert all(pseudo < images for images in seen if pseudo)
    report = json.loads((result.out / "metrics.json").read_text())
    assert (report["n"], report["folds"]) == (typed, 3)
    assert "Expect " in result.stdout and f"measured on {typed} pictures by 3 model(s)" in result.stdout
    assert read_metadata(result.out / "best.safetensors")["metrics"]["cross_validation"]["n"] == typed
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


def test_a_run_stopped_after_each_step_measures_the_same_in_its_folds(train: Callable, all_labels: Path) -> None:
    """Each fold goes on where it was: in pieces shorter than a fold, the run comes to its end."""
    flags = [*FOLDS, "--folds", 2, "--epochs", 2, "--dropout", 0.2]
    whole = train(*flags, data=all_labels)
    stopped = train(*flags, "--stop_after", 0.001, data=all_labels)
    stops = 0
    while stopped.code == main.TIME_UP:
        stops += 1
        assert stops < 30
        stopped = train("--resume", "--stop_after", 0.001, out=stopped.out, data=all_labels)
    assert stopped.code == 0, stopped.stderr
    assert stops > 8 and {p.name for p in stopped.out.iterdir()} == {p.name for p in whole.out.iterdir()}
    a, b = (json.loads((run.out / "metrics.json").read_text()) for run in (whole, stopped))
    assert a == b
    assert_same_run(whole.out, stopped.out)


def test_a_run_goes_on_from_the_weights_that_it_began_from_alone(
    train: Callable, all_labels: Path, reader: Path, natural: Path, tmp_path: Path
) -> None:
    """What is kept lies between the first and the last weights, so others than it began from would spoil it."""
    first = tmp_path / "first.safetensors"
    first.write_bytes(reader.read_bytes())
    begun = train(*SMALL, "--init", first, "--epochs", 2, "--folds", 0, "--stop_after", 0.001, data=all_labels)
    assert begun.code == main.TIME_UP
    first.write_bytes(natural.read_bytes())
    resumed = train("--resume", out=begun.out, data=all_labels)
    assert_one_sentence(resumed, "first.safetensors has changed since the run", "put back the file")
    first.write_bytes(reader.read_bytes())
    assert train("--resume", "--stop_after", 1000, out=begun.out, data=all_labels).code == 0
    (begun.out / "state.pt").unlink()  # documented as not needed afterwards
    kept = (begun.out / "best.safetensors").read_bytes()
    again = train(*SMALL, "--init", first, "--epochs", 1, "--folds", 0, out=begun.out, data=all_labels)
    assert_one_sentence(again, "already holds a run")
    assert (begun.out / "best.safetensors").read_bytes() == kept


def test_the_rate_of_a_fold_does_not_look_at_what_it_is_measured_on(
    all_labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[float] = []
    step = torch.optim.lr_scheduler.ReduceLROnPlateau.step
    monkeypatch.setattr(
        torch.optim.lr_scheduler.ReduceLROnPlateau, "step", lambda self, x: (steps.append(x), step(self, x))
    )
    events: list[dict] = []
    words = [*FOLDS, "--schedule", "plateau", "--data", str(all_labels), "--out", str(tmp_path / "run")]
    config = replace(parse_config(TrainConfig, "", words), epochs=6, progress="none")
    main.train_model(config, on_progress=events.append)
    assert steps == [event["train_loss"] for event in events if event["event"] == "epoch"]


def test_fewer_labels_than_parts_is_one_sentence(train: Callable, all_labels: Path) -> None:
    assert_one_sentence(train(*FOLDS, "--limit", 12, "--folds", 13, data=all_labels), "12 labels", "--folds")


def test_labels_that_nobody_typed_are_learned_and_nothing_is_claimed(
    train: Callable, shards: Path, tmp_path: Path
) -> None:
    read_by_a_model(shards, tmp_path / "read", 1)
    result = train(*FOLDS, data=tmp_path / "read")
    assert result.code == 0, result.stderr
    assert "Too few labels were typed" in result.stdout and "Expect" not in result.stdout
    assert not (result.out / "metrics.json").exists()


def test_one_part_is_refused(train: Callable, all_labels: Path) -> None:
    assert_one_sentence(train(*FOLDS, "--folds", 1, data=all_labels), "--folds", "2 or more")


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
    epochs = [initialization.default_epochs(n, pretrained=True) for n in numbers]
    assert epochs == sorted(epochs, reverse=True) and epochs[0] == 60 and epochs[-2:] == [16, 6]
    seen = [n * e for n, e in zip(numbers, epochs, strict=True)]
    assert seen == sorted(seen)
    assert 7000 <= seen[3] <= 8000, "300 labels are to be learned within three minutes"


def test_a_fine_tuned_model_tells_the_characters_and_lengths_of_its_labels(
    train: Callable, dataset: Path, reader: Path
) -> None:
    tuned = train(*SMALL, "--init", reader, "--frozen_epochs", 0, "--epochs", 1, "--limit", 16)
    assert label_hints(read_metadata(tuned.out / "best.safetensors")) == ("abcd", (2, 3))
    scratch = train(*SCRATCH, "--epochs", 1, "--limit", 16)
    assert label_hints(read_metadata(scratch.out / "best.safetensors")) == (None, None)


def test_folds_are_as_many_as_it_takes() -> None:
    folds = finetune.make_folds(90, 3, seed=0)
    assert sorted(int(i) for fold in folds for i in fold) == list(range(90))
    assert [finetune.folds_needed(finetune.make_folds(n, 3, 0)) for n in (20, 90, 151, 297, 301)] == [3, 3, 2, 2, 1]


def test_the_plan_counts_the_steps_that_are_taken(all_labels: Path, tmp_path: Path) -> None:
    seen: list[dict] = []
    words = [*FOLDS, "--data", str(all_labels), "--out", str(tmp_path / "run"), "--progress", "none"]
    config = replace(parse_config(TrainConfig, "", words), epochs=2, mix_synthetic=0.1, synthetic_style="line")
    finished: dict[str, int] = {}
    result = main.train_model(config, on_progress=seen.append)
    plan = next(event for event in seen if event["event"] == "plan")
    planned = {part["name"]: part["phases"][0]["steps"] for part in plan["parts"]}
    for event in seen:
        if event["event"] == "phase":
            finished[event["part"]] = event["steps"]
    assert planned == finished and list(planned) == ["training", *(f"fold {i} of 3" for i in (1, 2, 3))]
    measured = [event for event in seen if event["event"] == "epoch" and event["part"] != "training"]
    assert all(event["validation"]["n"] == 30 for event in measured) and len(measured) == 6
    assert seen[-1]["event"] == "result" and seen[-1]["report"]["n"] == result["report"]["n"] == 90
    assert seen[-2]["event"] == "message"
