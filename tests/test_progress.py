"""Events of a training, and the time that they say is left."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from captcha_reader.progress import PlannedPart, PlannedPhase, Progress, Terminal, describe_plan, describe_time

ROOT = Path(__file__).resolve().parent.parent


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def planned() -> list[PlannedPart]:
    phases = [("frozen", 1, 10), ("whole", 4, 40)]
    names = ("training", "fold 1 of 2", "fold 2 of 2")
    return [PlannedPart(name, [PlannedPhase(*phase) for phase in phases]) for name in names]


def test_the_time_left_is_that_of_all_parts() -> None:
    """Steps of the head alone take one second, those of all take three."""
    clock, events = Clock(), []
    progress = Progress([events.append], clock)
    progress.plan(planned())
    progress.begin("training", "frozen", 1, 10)
    assert progress.seconds_left is None and progress.done == 0
    for step in range(1, 11):
        clock.now += 60 if step == 1 else 1  # torch settles
        progress.step(1, 5, step, 10, 0.5)
    assert progress.seconds_left == pytest.approx(2 * 10 * 1 + 3 * 40 * 2), "twice as long until it is measured"
    progress.begin("training", "whole", 4, 40)
    for step in range(1, 11):
        clock.now += 3
        progress.step(2, 5, step, 10, 0.4)
    assert progress.seconds_left == pytest.approx(2 * 10 * 1 + (30 + 80) * 3)
    assert progress.done == pytest.approx((5 + 10) / (3 * 45))
    progress.skip("training")
    progress.skip("fold 1 of 2")
    assert progress.seconds_left == pytest.approx(10 + 40 * 3)
    assert progress.done == pytest.approx(2 / 3)
    kinds = [event["event"] for event in events]
    assert kinds.count("plan") == 1 and kinds.count("estimate") == 1 and kinds.count("phase") == 2
    assert all(0 <= event["done"] <= 1 for event in events if event["event"] == "step")
    json.dumps(events, allow_nan=False)


def test_steps_are_told_twice_a_second_at_most() -> None:
    clock, events = Clock(), []
    progress = Progress([events.append], clock)
    progress.begin("training", "whole", 1, 1000)
    for step in range(1, 1001):
        clock.now += 0.01
        progress.step(1, 1, step, 1000, 0.5)
    assert 15 <= sum(event["event"] == "step" for event in events) <= 21


def test_a_part_that_was_not_planned_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress()
    progress.begin("training", "whole", 2, 8, done=4)
    assert progress.done == 0.5
    progress.step(2, 2, 1, 4, 0.1)
    assert progress.done == 5 / 8


def test_people_read_what_will_happen_and_how_long_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    clock, terminal = Clock(), Terminal()
    progress = Progress([terminal], clock)
    progress.plan(planned())
    progress.begin("training", "whole", 4, 40)
    for step in range(1, 11):
        clock.now += 3
        progress.step(1, 5, step, 10, 0.5)
    progress.epoch({"epoch": 1, "train_loss": 0.5, "seconds": 30.0, "waited": 0.0, "train_accuracy": 0.5}, True, 5)
    terminal.close()
    out, err = capsys.readouterr()
    assert "1 epoch of the head alone, then 4 epochs of the whole network; then 2 more trainings" in out
    assert "--folds 0" in out and re.search(r"This takes \d+ min in all", out)
    assert "reads 50.0% of its training pictures" in out
    assert "epoch 1/5, step 10/10" in err and "min left" in err


def test_times_and_plans_in_words() -> None:
    assert [describe_time(s) for s in (0.2, 59, 100, 3000, 9000)] == ["1 s", "59 s", "2 min", "50 min", "2.5 h"]
    one = [{"name": "training", "phases": [{"name": "whole", "epochs": 1, "steps": 3}]}]
    assert describe_plan(one) == "Plan: 1 epoch of the whole network."


def test_a_training_prints_json_lines_alone(dataset: Path, tmp_path: Path) -> None:
    flags = ["--model", "crnn", "--image_size", "[16,48]", "--hidden", "8", "--cpu", "--threads", "1", "--epochs", "2"]
    flags += ["--init", "scratch", "--data", str(dataset), "--out", str(tmp_path / "run"), "--progress", "json"]
    done = subprocess.run([sys.executable, str(ROOT / "main.py"), *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds.index("plan") < kinds.index("phase") < kinds.index("step") < kinds.index("epoch")
    epochs = [event for event in events if event["event"] == "epoch"]
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [{key: event[key] for key in row} for event, row in zip(epochs, history, strict=True)] == history
    result = events[-1]
    assert result["event"] == "result" and result["report"]["n"] == 15 and "Expect" in result["expect"]
    assert Path(result["checkpoint"]).is_file()
