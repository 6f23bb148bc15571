"""How weak is my captcha? One command, one report.

    python strength.py --data FOLDER --out report        # labeled captchas, any layout that make_dataset.py takes
    python strength.py --data FOLDER --characters 0-9A-Z --length 5 --labels 0,10,30,100 --budget 5m
    python strength.py --data FOLDER --unlabeled         # what can be said without labels
    python strength.py --style line                      # a captcha that the generator describes (or FILE.yaml)

Reads the captchas without labels, then fine-tunes the reader on ever more of the labels and reads the same pictures
again, which are kept aside from the start. `report.html` and `report.json` say what came out. Ctrl-C leaves a partial
report, and the same command goes on from there. It is for captchas that you own or may test.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C shows no traceback during the seconds that the imports take
    from captcha_reader.cli import quiet_interrupt

    quiet_interrupt()

import json
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tqdm import tqdm

from accuracy_calculator import load_labeled
from captcha_generator import CaptchaSettings, parse_length, render_captcha
from captcha_reader.cli import parse_config, run
from captcha_reader.config import DatasetConfig, StrengthConfig, TrainConfig
from captcha_reader.dataset.writer import write_shard
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, write_atomically, write_text
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.prediction import Prediction
from captcha_reader.strength.figures import accuracy_figures, legibility
from captcha_reader.strength.page import Example, render_page
from captcha_reader.strength.report import build_report
from captcha_reader.text import Alphabet
from make_dataset import make_dataset
from predict import CaptchaPredictor, find_images

Event = dict[str, Any]

STATE = "strength-state.json"
PRESET = ROOT / "configs" / "finetune.yaml"
MIN_LABELS = 10  # fewer are no training
MIN_MEASURED = 20  # pictures kept aside: fewer say nothing
MAX_MEASURED = 1000
SHEET = 12  # example pictures of each kind
CHUNK = 32  # pictures between two looks at the clock
TRAINING_PART = 0.9  # of the time of a step, the rest is reading
MIN_TRAINING_SECONDS = 20.0  # what a training takes at least, before one has been timed
SURE, UNSURE = 0.9, 0.5  # confidence of an example that is read with certainty, and of one that is unreadable


class OutOfTime(Exception):
    """The budget does not allow the next step."""


@dataclass
class Sample:
    """The captchas: `measured` are kept aside; `texts` is empty where nothing is labeled."""

    name: str
    pictures: list[bytes]
    texts: list[str]
    left_out: int = 0

    def split(self, most_labels: int, seed: int) -> tuple[list[int], list[int]]:
        """Places to measure on, and places to learn from, at random."""
        order = np.random.default_rng(seed).permutation(len(self.texts)).tolist()
        count = min(max(len(order) - most_labels, len(order) // 4, MIN_MEASURED), MAX_MEASURED)
        return order[:count], order[count:]


@dataclass
class Clock:
    """The seconds that a run may take; what it has taken in earlier runs does not count."""

    budget: float
    started: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        """Seconds, at least 0."""
        return max(self.budget - (time.monotonic() - self.started), 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# Settings


def parse_labels(text: str) -> list[int]:
    """`0,10,30` as numbers, sorted, each once.

    Raises:
        UserError: one is no number of labels.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isascii() and word.isdigit() and len(word) < 7 for word in words):
        raise UserError(f"--labels {text!r} cannot be used: write numbers such as 0,10,30,100")
    counts = sorted({int(word) for word in words})
    if few := [n for n in counts if 0 < n < MIN_LABELS]:
        raise UserError(
            f"--labels: {few[0]} labels are too few to learn from: {MIN_LABELS} are the least, or 0 for none"
        )
    return counts


def parse_duration(text: str) -> float:
    """`90s`, `10m` or `1h` in seconds.

    Raises:
        UserError: it is none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", str(text))
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0
    if not 0 < seconds < 1e6:
        raise UserError(f"--budget {text!r} cannot be used: write 90s, 10m or 1h")
    return seconds


def collect(config: StrengthConfig) -> Sample:
    """The captchas of the settings, labeled or not, each with a name for people.

    Raises:
        UserError: there are none, or too few.
    """
    if (config.data is None) == (config.style is None):
        raise UserError("name --data FOLDER with captchas or --style NAME of the generator, one of the two")
    if config.style is not None:
        settings = style_settings(config)
        drawn = [render_captcha(i, settings) for i in range(config.count)]
        return Sample(f"style {Path(config.style).name}", [p for p, _ in drawn], [t for _, t in drawn])
    sources = [config.data] if isinstance(config.data, str) else list(config.data or [])
    name = ", ".join(Path(source).name or source for source in sources)
    if config.unlabeled:
        return Sample(name, [path.read_bytes() for path in find_images(sources)], [])
    images, texts, _ = load_labeled(sources, "all", config.limit)
    if len(texts) < 2 * MIN_MEASURED:
        raise UserError(
            f"{name} has {len(texts)} labeled captchas, {2 * MIN_MEASURED} are the least: label more or add --unlabeled"
        )
    return Sample(name, list(images), list(texts))


def style_settings(config: StrengthConfig) -> CaptchaSettings:
    """How the generator draws the captchas of `--style`."""
    given: dict[str, Any] = {}
    if config.characters:
        given["alphabet"] = Alphabet.parse(config.characters).characters
    if config.length:
        given["length"] = parse_length(config.length)
    return CaptchaSettings((str(config.style),), seed=config.seed, **given)


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


def read(
    predictor: CaptchaPredictor,
    pictures: Sequence[bytes],
    constraints: Constraints | None,
    on_progress: Callable[[float], None],
) -> list[Prediction]:
    """Readings, with word of how far it is."""
    found: list[Prediction] = []
    for start in range(0, len(pictures), CHUNK):
        found += predictor.predict(pictures[start : start + CHUNK], constraints=constraints)
        on_progress(min(start + CHUNK, len(pictures)) / len(pictures))
    return found


def train_on(
    rows: Sequence[tuple[bytes, str]], config: StrengthConfig, folder: Path, on_progress: Callable[[Event], None]
) -> Path:
    """Fine-tune the reader on labeled captchas as configs/finetune.yaml says, without its cross-validation: what the
    model is worth is measured on pictures kept aside.

    Returns:
        The new checkpoint.
    """
    from main import train_model
    from trainer import Interrupted

    shard, dataset = folder / "labels.parquet", folder / "dataset"
    write_atomically(shard, lambda path: write_shard(path, ((image, None, text) for image, text in rows)))
    make_dataset(DatasetConfig(sources=[str(shard)], out=str(dataset), split="100/0/0", workers=1))
    values = yaml.safe_load(PRESET.read_text(encoding="utf-8"))
    values |= {
        "data": str(dataset),
        "out": str(folder / "run"),
        "folds": 0,
        "evaluate": False,
        "seed": config.seed,
        "progress": "none",
    }
    values |= {"threads": config.threads, "epochs": config.epochs, "init": config.checkpoint or values["init"]}
    try:
        return Path(train_model(TrainConfig(**values), on_progress=on_progress)["checkpoint"])
    except Interrupted:
        raise KeyboardInterrupt from None


def fold_case(text: str, constraints: Constraints | None) -> str:
    """A text as it is compared."""
    return text.casefold() if constraints is not None and constraints.ignore_case else text


class Strength:
    """One run of the report: its steps, their results on the disk, and the time.

    Args:
        config: the settings.
        on_event: is told `{"event": "step", "labels": n, "done": 0..1}` and `{"event": "point", ...}` as it goes.
    """

    def __init__(self, config: StrengthConfig, on_event: Callable[[Event], None] | None = None) -> None:
        self.config, self.tell = config, on_event or (lambda event: None)
        self.counts = parse_labels(config.labels)
        self.clock = Clock(parse_duration(config.budget))
        self.constraints = None
        if config.characters or config.length or config.ignore_case:
            self.constraints = Constraints(config.characters, config.length, config.ignore_case)
        if config.seconds_per_label <= 0:
            raise UserError(f"--seconds_per_label is {config.seconds_per_label}: a label takes some time")
        self.sample = collect(config)
        self.out = Path(config.out)
        self.measured, self.learned = (
            self.sample.split(max(self.counts), config.seed) if self.sample.texts else ([], [])
        )
        self.skipped: list[str] = []
        self.partial = ""
        self.state = self._load_state()

    # State

    def fingerprint(self) -> str:
        """Of all that the finished steps depend on."""
        config = self.config
        settings = [config.seed, config.characters, config.length, config.ignore_case, config.checkpoint, config.epochs]
        digest = blake2b(json.dumps(settings).encode(), digest_size=16)
        for picture in self.sample.pictures:
            digest.update(blake2b(picture).digest())
        digest.update("\n".join(self.sample.texts).encode())
        return digest.hexdigest()

    def _load_state(self) -> dict[str, Any]:
        empty = {"fingerprint": self.fingerprint(), "steps": {}, "changes": []}
        try:
            state = json.loads((self.out / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return empty
        return state if isinstance(state, dict) and state.get("fingerprint") == empty["fingerprint"] else empty

    def _save_state(self) -> None:
        write_text(self.out / STATE, json.dumps(self.state, ensure_ascii=False))

    # Steps

    def measure(self) -> None:
        """Take all steps that are left, as far as the budget goes; Ctrl-C leaves what is finished."""
        try:
            if not self.sample.texts:
                self._read_unlabeled()
            for count in self.counts if self.sample.texts else []:
                self._step(count)
            if self.config.style is not None:
                self._try_changes()
        except KeyboardInterrupt:
            self.partial = "it was interrupted; run the same command again to go on"
        except OutOfTime as error:
            self.partial = f"{error}; raise --budget and run it again to go on"
        self._save_state()

    def _step(self, count: int) -> None:
        if str(count) in self.state["steps"]:
            return
        if count > len(self.learned):
            left = len(self.learned)
            self.skipped.append(f"{count} labels: only {left} are left beside the {len(self.measured)} to measure on")
            return
        expected = self._expected_seconds(count)
        if count and expected > self.clock.left():
            raise OutOfTime(f"the budget of {self.config.budget} ends before the training on {count} labels")
        part = {"event": "step", "labels": count}
        self.tell(part | {"done": 0.0})
        started = time.monotonic()

        def trained(event: Event) -> None:
            if event["event"] == "step":
                self.tell(part | {"done": TRAINING_PART * event["done"], "seconds_left": event["seconds_left"]})

        with tempfile.TemporaryDirectory(prefix="captcha-strength-") as work:
            checkpoint = self.config.checkpoint
            if count:
                rows = [(self.sample.pictures[i], self.sample.texts[i]) for i in self.learned[:count]]
                checkpoint = str(train_on(rows, self.config, Path(work), trained))
            training = time.monotonic() - started if count else 0.0
            predictor = CaptchaPredictor(checkpoint, threads=self.config.threads)
            pictures = [self.sample.pictures[i] for i in self.measured]
            begun = TRAINING_PART if count else 0.0
            found = read(
                predictor,
                pictures,
                self.constraints,
                lambda done: self.tell(part | {"done": begun + (1 - begun) * done}),
            )
        self.state["steps"][str(count)] = {
            "seconds": time.monotonic() - started,
            "training_seconds": training,
            "readings": [p.text for p in found],
            "confidences": [round(float(p.confidence), 5) for p in found],
            "guesses": [[text for text, _ in p.alternatives] for p in found],
        }
        self._save_state()
        self.tell({"event": "point", **self._row(count)})

    def _expected_seconds(self, count: int) -> float:
        """From the steps that were timed: a training takes time in proportion to its labels, and a start."""
        timed = [(int(n), step["seconds"]) for n, step in self.state["steps"].items() if int(n)]
        if not count or not timed:
            return MIN_TRAINING_SECONDS if count else 0.0
        labels, seconds = max(timed)
        return max(seconds * min(count / labels, 3.0), seconds)

    def _read_unlabeled(self) -> None:
        if "unlabeled" in self.state:
            return
        predictor = CaptchaPredictor(self.config.checkpoint, threads=self.config.threads)
        part = {"event": "step", "labels": 0}
        found = read(predictor, self.sample.pictures, self.constraints, lambda done: self.tell(part | {"done": done}))
        self.state["unlabeled"] = {
            "readings": [p.text for p in found],
            "confidences": [round(float(p.confidence), 5) for p in found],
        }
        self._save_state()

    def _try_changes(self) -> None:
        """One op of the style at a time, weaker and stronger."""
        from captcha_reader.generator.variations import op_variations

        predictor = CaptchaPredictor(self.config.checkpoint, threads=self.config.threads)
        settings = style_settings(self.config)
        done = {change["op"] for change in self.state["changes"]}
        for op, styles in op_variations(str(self.config.style)):
            if op in done:
                continue
            if self.clock.left() <= 0:
                raise OutOfTime(f"the budget of {self.config.budget} ends before {op} was tried")
            levels = []
            for strength, style in styles:
                varied = CaptchaSettings((style,), settings.alphabet, settings.length, settings.seed)
                drawn = [render_captcha(i, varied) for i in range(self.config.tries)]
                found = predictor.predict([picture for picture, _ in drawn], constraints=self.constraints)
                right = [
                    fold_case(p.text, self.constraints) == fold_case(text, self.constraints)
                    for p, (_, text) in zip(found, drawn, strict=True)
                ]
                people = float(np.mean([legibility(picture)["score"] for picture, _ in drawn]))
                levels.append({"strength": strength, "accuracy": float(np.mean(right)), "legibility": people})
            self.state["changes"].append({"op": op, "n": self.config.tries, "levels": levels})
            self._save_state()
            self.tell({"event": "change", "op": op, "levels": levels})

    # Report

    def _row(self, count: int) -> dict[str, Any]:
        step = self.state["steps"][str(count)]
        truths = [fold_case(self.sample.texts[i], self.constraints) for i in self.measured]
        figures = accuracy_figures(truths, [fold_case(text, self.constraints) for text in step["readings"]])
        typing = count * self.config.seconds_per_label
        return {"labels": count, **figures, "training_seconds": step["training_seconds"], "typing_seconds": typing}

    def report(self) -> dict[str, Any]:
        """All that is known by now, ready for JSON."""
        counts = sorted(map(int, self.state["steps"]))
        config = self.config
        data = {
            "name": self.sample.name,
            "pictures": len(self.sample.pictures),
            "labeled": len(self.sample.texts),
            "left_out": self.sample.left_out,
        }
        settings = {key: getattr(config, key) for key in ("seed", "length", "ignore_case")}
        settings["characters"] = Alphabet.parse(config.characters).characters if config.characters else None
        settings |= {"seconds_per_label": config.seconds_per_label, "labels": self.counts, "skipped": self.skipped}
        unlabeled = self.state.get("unlabeled")
        texts = self.sample.texts or (unlabeled or {"readings": []})["readings"] or ["?"]
        return build_report(
            data,
            settings,
            [self._row(count) for count in counts],
            self._last(counts[-1]) if counts else None,
            {"texts": [fold_case(text, self.constraints) for text in texts], "pictures": self.sample.pictures},
            self.state["changes"],
            self.partial,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            machine=f"{platform.machine()}, Python {platform.python_version()}",
            reader=Path(config.checkpoint or "reader").name,
            reading_ms=self._reading_milliseconds(),
            mean_confidence=float(np.mean(unlabeled["confidences"])) if unlabeled else None,
        )

    def _last(self, count: int) -> dict[str, Any]:
        step = self.state["steps"][str(count)]

        def fold(texts: Sequence[str]) -> list[str]:
            return [fold_case(text, self.constraints) for text in texts]

        return {
            "truths": fold([self.sample.texts[i] for i in self.measured]),
            "readings": fold(step["readings"]),
            "confidences": step["confidences"],
            "guesses": [fold(row) for row in step["guesses"]],
        }

    def _reading_milliseconds(self) -> float:
        """Of one picture alone on one core: the median of a few."""
        predictor = CaptchaPredictor(self.config.checkpoint, threads=1)
        pictures = self.sample.pictures[:24]
        predictor.predict(pictures[:2], constraints=self.constraints)
        times = []
        for picture in pictures:
            started = time.perf_counter()
            predictor.predict([picture], constraints=self.constraints)
            times.append(1000 * (time.perf_counter() - started))
        return float(np.median(times))

    def sheets(self) -> list[tuple[str, list[Example]]]:
        """Example pictures: read with certainty, read wrongly, unreadable."""
        if not self.state["steps"]:
            unlabeled = self.state.get("unlabeled")
            if not unlabeled:
                return []
            rows = zip(self.sample.pictures, unlabeled["readings"], unlabeled["confidences"], strict=True)
            ordered = sorted((Example(p, t, c) for p, t, c in rows), key=lambda e: -e.confidence)
            return [("Most certain", ordered[:SHEET]), ("Least certain", ordered[::-1][:SHEET])]
        last = self._last(max(map(int, self.state["steps"])))
        rows = zip(self.measured, last["readings"], last["confidences"], last["truths"], strict=True)
        examples = [Example(self.sample.pictures[i], text, c, truth) for i, text, c, truth in rows]
        certain = sorted((e for e in examples if e.right and e.confidence >= SURE), key=lambda e: -e.confidence)
        wrong = sorted((e for e in examples if not e.right and e.confidence >= UNSURE), key=lambda e: -e.confidence)
        lost = sorted((e for e in examples if e.confidence < UNSURE), key=lambda e: e.confidence)
        named = [("Read with certainty", certain), ("Read wrongly", wrong), ("Unreadable for it", lost)]
        return [(f"{title}: {len(items)} of {len(examples)}", items[:SHEET]) for title, items in named if items]

    def write(self) -> Path:
        """Write report.json and report.html; gives the path of the page."""
        report = self.report()
        write_text(self.out / "report.json", json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False))
        return write_text(self.out / "report.html", render_page(report, self.sheets()))


class Bar:
    """One progress bar over all steps, with the time left."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._bar = tqdm(total=len(counts), unit="step", disable=None, bar_format="{l_bar}{bar}| {elapsed}<{remaining}")
        self._done: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event["event"] == "step":
            self._bar.set_description(f"{event['labels']} labels" if event["labels"] else "without labels")
            self._done[event["labels"]] = event["done"]
            self._bar.n = sum(self._done.values())
            self._bar.refresh()
        elif event["event"] == "point":
            low, high = event["interval"]
            self._bar.write(f"{event['labels']:>5} labels: {event['accuracy']:.1%} ({low:.1%} to {high:.1%})")
        elif event["event"] == "change":
            said = ", ".join(f"{level['accuracy']:.0%}" for level in event["levels"])
            self._bar.write(f"{event['op']}, weak to strong: {said}")

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._bar.close()


def main() -> int:
    """Command line. Exit code 130 where it was interrupted; the partial report is written all the same."""
    config = parse_config(StrengthConfig, "How weak is a captcha? Measure it, and write a report.")
    strength = Strength(config)
    bar = Bar(strength.counts)
    strength.tell = bar
    strength.measure()
    bar.close()
    page = strength.write()
    report = json.loads((strength.out / "report.json").read_text(encoding="utf-8"))
    for line in strength.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    print(report["verdict"]["text"])
    print(report["verdict"]["advice"])
    if strength.partial:
        print(f"The report is partial: {strength.partial}.", file=sys.stderr)
    print(f"Report: {page}")
    return 130 if strength.partial.startswith("it was interrupted") else 0


if __name__ == "__main__":
    run(main)
