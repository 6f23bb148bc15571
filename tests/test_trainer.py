"""The training loop: schedules, what is kept, stops and kills and going on from them, several processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import Job
from safetensors.torch import load_file
from training_runs import (
    ROOT,
    SCRATCH,
    SMALL,
    assert_one_sentence,
    assert_same_run,
    fresh_accelerator,
    history,
    timeless,
)

import finetune
import main
import trainer
from captcha_reader import optimization, training_settings
from captcha_reader.checkpoint import read_metadata
from captcha_reader.config import TrainConfig
from captcha_reader.files import locked_output
from captcha_reader.progress import describe_epoch
from captcha_reader.text import Alphabet, CTCCodec
from data_loader import load_data
from model import build_model, load_model
from predict import CaptchaPredictor


@pytest.fixture(autouse=True)
def _fresh() -> None:
    fresh_accelerator()


def test_synthetic_captchas_may_count_less(train: Callable, dataset: Path, tiny) -> None:
    """With no weight they leave the gradient to the labeled ones, whose share of it is that of the whole batch."""
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

    both, alone = range(50, 70), range(50, 60)  # ten of each, and the labeled ones of these
    assert torch.allclose(gradient(both, 0.0), gradient(alone, 0.0) / 2, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(gradient(both, 1.0), gradient(alone, 1.0) / 2, rtol=1e-3, atol=1e-5)
    assert train(*SCRATCH, "--mix_synthetic", 1, "--synthetic_weight", 0.5, "--epochs", 1).code == 0


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
# The loop


@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7, 20, 100])
@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "plateau", "constant", "wsd"])
def test_schedules_rise_to_the_peak_and_fall(schedule: str, steps: int) -> None:
    config = replace(TrainConfig(), schedule=schedule, learning_rate=0.1)
    phase = optimization.Phase("whole", 1, 0.1, frozen=False)
    layer = torch.nn.Linear(1, 1)
    optimizer = optimization.build_optimizer(config, phase, layer)
    schedule_ = optimization.build_schedule(config, phase, optimizer, steps)
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


def test_a_longer_run_with_a_stable_rate_begins_as_a_shorter_one() -> None:
    config = replace(TrainConfig(), schedule="wsd", learning_rate=0.1, warmup=0.01, batch_size=50)
    rates: dict[int, list[float]] = {}
    for steps in (100, 200):
        phase = optimization.Phase("whole", 1, 0.1, frozen=False)
        optimizer = optimization.build_optimizer(config, phase, torch.nn.Linear(1, 1))
        schedule, rates[steps] = optimization.build_schedule(config, phase, optimizer, steps), []
        for _ in range(steps):
            rates[steps].append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
    assert rates[100][:81] == rates[200][:81]
    assert rates[200][:20] == pytest.approx([0.005 * (i + 1) for i in range(20)])  # 1,000 pictures of 50 a step
    assert rates[200][20:161] == pytest.approx([0.1] * 141)
    assert rates[200][170] == pytest.approx(0.05) and rates[200][199] < 0.002  # a quarter of the decay is over: half


@pytest.mark.parametrize("schedule", ["onecycle", "cosine", "plateau", "constant", "wsd"])
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
    decayed, spared = optimization.parameter_groups(model, 0.5)
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


def test_the_moving_average_is_kept(train: Callable, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []
    step = trainer.Trainer._step

    def noting(trainer: trainer.Trainer, *args: object) -> float:
        loss = step(trainer, *args)
        states.append(trainer.model.state_dict()["head.classifier.weight"].clone())
        return loss

    monkeypatch.setattr(trainer.Trainer, "_step", noting)
    result = train(*SMALL, "--init", reader, "--frozen_epochs", 0, "--epochs", 2, "--ema", 0.9)
    assert result.code == 0, result.stderr
    mean = states[0]
    for steps, state in enumerate(states[1:], 1):
        decay = min(0.9, (1 + steps) / (10 + steps))
        mean = decay * mean + (1 - decay) * state
    kept = load_file(result.out / "last.safetensors")["head.classifier.weight"]
    assert torch.allclose(kept, mean, atol=1e-6) and not torch.allclose(kept, states[-1], atol=1e-6)
    assert_one_sentence(train(*SCRATCH, "--ema", 0.9, "--average", 0.5), "--ema and --average")


# --------------------------------------------------------------------------------------------------------------------
# Numbers that are none


def test_a_validation_loss_that_is_no_number_is_never_best(train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, losses = trainer.validate, iter([float("nan"), 2.0, float("inf")])
    monkeypatch.setattr(trainer, "validate", lambda *a: measured(*a) | {"loss": next(losses), "sequence_accuracy": 1.0})
    result = train(*SCRATCH, "--epochs", 3, "--limit", 16)
    assert result.code == 0, result.stderr
    assert read_metadata(result.out / "best.safetensors")["metrics"]["epoch"] == 2
    assert "validation loss is nan" in result.stdout and "lower --learning_rate" in result.stdout
    text = (result.out / "history.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text)[0]["validation"]["loss"] is None


def test_a_run_without_one_good_epoch_says_what_to_change(train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = trainer.validate
    monkeypatch.setattr(trainer, "validate", lambda *a: measured(*a) | {"loss": float("nan")})
    result = train(*SCRATCH, "--epochs", 2, "--limit", 16, evaluate=True)
    assert_one_sentence(result, "never a finite number", "lower --learning_rate")
    assert not (result.out / "best.safetensors").exists()


def test_weights_that_are_no_numbers_end_the_run(train: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    step = trainer.Trainer._step

    def spoiling(trainer: trainer.Trainer, *args: object) -> float:
        loss = step(trainer, *args)
        if trainer.place == {"phase": 0, "epoch": 1, "step": 0}:
            with torch.no_grad():
                trainer.model.head.classifier.bias[0] = float("nan")
            return 1.0
        return loss

    monkeypatch.setattr(trainer.Trainer, "_step", spoiling)
    result = train(*SCRATCH, "--epochs", 3, "--limit", 16)
    assert_one_sentence(result, "head.classifier.bias are not finite", "after epoch 2", "lower --learning_rate")
    assert read_metadata(result.out / "best.safetensors")["metrics"]["epoch"] == 1
    CaptchaPredictor(result.out / "last.safetensors", threads=1)


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
        "while a state is written": (kill, lambda job, more: more and writes(job, "state")),
        "while weights are written": (kill, lambda job, more: writes(job, "last")),
        "a request to stop, within an epoch": (stop, lambda job, more: more),
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


def test_a_run_in_pieces_ends_as_one_in_one_piece(train: Callable) -> None:
    flags = [*SCRATCH, "--epochs", 2, "--dropout", 0.2, "--learning_rate", 0.001]
    whole, pieces = train(*flags), train(*flags, "--stop_after", 1e-6)
    assert pieces.code == 75, "a loop of a shell goes on until it is 0"
    assert f"--resume --out {pieces.out}" in pieces.stderr and "Traceback" not in pieces.stderr
    for _ in range(20):
        again = train("--resume", "--stop_after", 1e-6, out=pieces.out)
        if again.code == 0:
            break
        assert again.code == 75, again.stderr
    assert again.code == 0
    assert_same_run(whole.out, pieces.out)


def test_a_run_has_one_process(train: Callable, finished: SimpleNamespace, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished.out, tmp_path / "copy"))
    with locked_output(copy):
        assert_one_sentence(train("--resume", out=copy), "copy is being written by another process")
        other_name = tmp_path / "new" / ".." / "copy"
        assert_one_sentence(train(*SCRATCH, out=other_name), "copy is being written by another process")
    assert_one_sentence(train(*SCRATCH, out=other_name), "already holds a run")
    assert train("--resume", out=copy).code == 0
    assert not list(tmp_path.glob(".*.lock"))


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


def test_a_full_disk_is_one_sentence_and_leaves_the_run_whole(dataset: Path, launch: Callable, tmp_path: Path) -> None:
    out, data = tmp_path / "run", Path(shutil.copytree(dataset, tmp_path / "data"))
    shutil.rmtree(data / ".cache", ignore_errors=True)  # the copy that it is read from is made anew
    flags = ["--data", data, *SCRATCH, "--epochs", 1, "--limit", 16, "--evaluate", "false"]

    def with_room_for(kilobytes: int) -> SimpleNamespace:
        job = launch("main.py", *flags, "--out", out, LARGEST_FILE=str(1000 * kilobytes))
        return SimpleNamespace(code=job.wait(), stderr=job.stderr)

    assert_one_sentence(with_room_for(100), "the copy of", "make room there")  # and not: the dataset cannot be read
    assert_one_sentence(with_room_for(400), "no room to write", "state")
    assert {path.name for path in out.iterdir()} == {"config.yaml"}
    assert launch("main.py", *flags, "--out", out).wait() == 0


# --------------------------------------------------------------------------------------------------------------------
# Several processes, trackers


@pytest.mark.nightly
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
        "main.Trainer.save_state = keep\n"
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
        # Not equal: each process normalizes by the statistics of its own half of a batch.
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
    monkeypatch.setattr(training_settings, "get_available_trackers", lambda: ["mlflow"])
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
