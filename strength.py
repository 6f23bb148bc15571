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

import importlib.util
import json
import math
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from accuracy_calculator import load_labeled
from captcha_generator import CaptchaSettings, parse_length, render_captcha
from captcha_reader.checkpoint import hash_checkpoint, read_metadata
from captcha_reader.cli import parse_config, run
from captcha_reader.config import DatasetConfig, StrengthConfig, TrainConfig
from captcha_reader.dataset.writer import write_shard
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, write_atomically, write_text
from captcha_reader.generator.schemes import DRAWN, get_style
from captcha_reader.generator.styles import Style
from captcha_reader.generator.variations import op_variations
from captcha_reader.progress import JsonLines
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.prediction import Prediction
from captcha_reader.strength.figures import accuracy_figures
from captcha_reader.strength.legibility import legibility_of, sees
from captcha_reader.strength.page import Example, duration, render_page
from captcha_reader.strength.progress import Bar, Clock, Event, Pace, guess_seconds
from captcha_reader.strength.report import FORMAT, build_report
from captcha_reader.strength.sample import LeftOut, Sample, refuse_shards
from captcha_reader.strength.settings import LEAST_LABELED, parse_duration, parse_labels
from captcha_reader.text import Alphabet
from make_dataset import make_dataset
from predict import CaptchaPredictor, find_checkpoint, sort_files

STATE = "strength-state.json"
PRESET = ROOT / "configs" / "finetune.yaml"
SHEET = 12  # example pictures of each kind
CHUNK = 32  # pictures between two looks at the clock
TRAINING_PART = 0.9  # of the time of a step, the rest is reading
LEGIBLE = 24  # pictures of a variation on which the legibility proxy is measured
MIN_TRAINING_SECONDS = 20.0  # what a training takes at least, before one has been timed
UNSURE = 0.5  # confidence below which the reader is unsure
NO_TORCH = "training needs torch, which is not installed (pip install -r requirements.txt): it is read without labels"


class OutOfTime(Exception):
    """The budget does not allow the next step."""


# ---------------------------------------------------------------------------------------------------------------------
# Settings


def check_numbers(config: StrengthConfig) -> None:
    """Numbers that nothing can be measured with are refused before anything is read.

    Raises:
        UserError: there is one.
    """
    for name, least in {"count": LEAST_LABELED, "tries": 1, "limit": 1, "seed": 0}.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}: {least} is the least")
    if not 0 < config.seconds_per_label < math.inf:
        raise UserError(f"--seconds_per_label is {config.seconds_per_label}: a label takes some time, but not forever")


def collect(config: StrengthConfig) -> Sample:
    """The captchas of the settings, labeled or not, each with a name for people.

    Raises:
        UserError: there are none, or too few.
    """
    if (config.data is None) == (config.style is None):
        raise UserError("name --data FOLDER with captchas or --style NAME of the generator, one of the two")
    other, unused = ("--style", ("count", "tries")) if config.style is None else ("--data", ("limit", "unlabeled"))
    for name in unused:
        if getattr(config, name) != getattr(StrengthConfig, name):
            raise UserError(f"--{name} goes with {other} alone: leave it out")
    left_out = LeftOut.load(config.left_out)
    if config.style is not None:
        settings = style_settings(config)
        drawn = [render_captcha(i, settings) for i in range(config.count)]
        name = config.name or f"style {Path(config.style).name}"
        return Sample(name, [p for p, _ in drawn], [t for _, t in drawn], left_out)
    sources = [config.data] if isinstance(config.data, str) else list(config.data or [])
    name = config.name or ", ".join(Path(source).name or source for source in sources)
    if config.unlabeled:
        refuse_shards([Path(source) for source in sources])
        files, others = sort_files(sources)
        left_out.add_others(others)
        return Sample(name, left_out.readable(files, config.limit, config.seed), [], left_out)
    images, texts, _ = load_labeled(sources, "all", config.limit, on_rejects=left_out.add)
    if len(texts) < LEAST_LABELED:
        raise UserError(
            f"{name} has {len(texts)} labeled captchas, {LEAST_LABELED} are the least: label more or add --unlabeled"
        )
    return Sample(name, list(images), list(texts), left_out)


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
    from main import train_model  # with torch
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
    # Small batches gain little from a second thread, and lose much where another process takes its core.
    values |= {"threads": config.threads or 1, "epochs": config.epochs}
    if config.checkpoint:
        start = find_checkpoint(config.checkpoint, None)
        values |= {"init": str(start), "model": read_metadata(start)["model"]["name"]}
    try:
        return Path(train_model(TrainConfig(**values), on_progress=on_progress)["checkpoint"])
    except Interrupted:
        raise KeyboardInterrupt from None


def fold_case(text: str, constraints: Constraints | None) -> str:
    """A text as it is compared."""
    return text.casefold() if constraints is not None and constraints.ignore_case else text


def listed(items: Sequence[Any]) -> str:
    """At least one item, as people list them: `10, 30 and 100`."""
    words = list(map(str, items))
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


class Strength:
    """One run of the report: its steps, their results on the disk, and the time.

    Args:
        config: the settings.
        on_event: is told how it goes: captcha_reader/strength/progress.py lists the events.
    """

    def __init__(self, config: StrengthConfig, on_event: Callable[[Event], None] | None = None) -> None:
        self.config, self.tell = config, on_event or (lambda event: None)
        check_numbers(config)
        self.counts = parse_labels(config.labels)
        self.skipped: list[str] = []
        if max(self.counts) and importlib.util.find_spec("torch") is None:
            self.counts = [0]
            self.skipped.append(NO_TORCH)
        if config.style in DRAWN:
            self.skipped.append(f"variations: {config.style} is another style for every picture, there is none to vary")
        self.clock = Clock(parse_duration(config.budget))
        self.constraints = None
        if config.characters or config.length or config.ignore_case:
            self.constraints = Constraints(config.characters, config.length, config.ignore_case)
        self.sample = collect(config)
        if self.constraints:
            self.constraints.check_labels(self.sample.texts)
        self.out = Path(config.out)
        self.measured, self.learned = (
            self.sample.split(max(self.counts), config.seed) if self.sample.texts else ([], [])
        )
        if self.sample.texts and min(self.counts) > len(self.learned):
            raise UserError(
                f"--labels {config.labels} cannot be tried: of {self.sample.name} only {len(self.learned)} captchas "
                f"are left beside the {len(self.measured)} to measure on: name a number up to that, or 0 for none"
            )
        self.partial, self.interrupted = "", False
        self.state = self._load_state()
        self.pace = self._pace()

    # State

    def fingerprint(self) -> str:
        """Of all that the finished steps depend on; weights and recipe count by what is in their files."""
        config = self.config
        settings = [
            FORMAT,
            config.seed,
            config.characters,
            config.length,
            config.ignore_case,
            hash_checkpoint(find_checkpoint(config.checkpoint, None)),
            PRESET.read_text(encoding="utf-8"),
            config.epochs,
            config.tries,
        ]
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
        if not isinstance(state, dict) or state.get("fingerprint") != empty["fingerprint"]:
            return empty
        # Other --labels may keep another number of pictures aside.
        same = all(len(step["readings"]) == len(self.measured) for step in state["steps"].values())
        return state if same else empty | {"changes": state["changes"]}

    def _save_state(self) -> None:
        write_text(self.out / STATE, json.dumps(self.state, ensure_ascii=False))

    # Steps

    def _pace(self) -> Pace:
        """What there is to do, and what earlier runs have done of it."""
        preset = yaml.safe_load(PRESET.read_text(encoding="utf-8"))
        guesses: dict[Any, float] = {}
        for count in self.counts if self.sample.texts else []:
            if count <= len(self.learned):
                epochs = self.config.epochs
                if epochs is None and count:
                    from initialization import default_epochs  # with torch

                    epochs = default_epochs(count, True)
                guesses[count] = guess_seconds(count, epochs or 0, preset["batch_size"], len(self.measured))
        if not self.sample.texts:
            guesses["unlabeled"] = guess_seconds(0, 0, 1, len(self.sample.pictures) - self._unlabeled_done)
        for op, _, _ in self._variations:
            guesses[op] = 3 * (0.03 * self.config.tries + 0.03 * LEGIBLE)
        pace = Pace(guesses, self.clock)
        for step in [*map(int, self.state["steps"]), *(change["op"] for change in self.state["changes"])]:
            pace.waive(step)
        if self._unlabeled_done == len(self.sample.pictures):
            pace.waive("unlabeled")
        return pace

    @cached_property
    def _variations(self) -> list[tuple[str, bool, list[tuple[str, Style]]]]:
        """Of each op of the style its name (the second of a kind is `spots 2`), whether the legibility proxy sees it,
        and the style with it weak, as it is, and strong. None of what is another style for every picture."""
        if self.config.style is None or self.config.style in DRAWN:
            return []
        kinds = {op.name: sees(op) for op in get_style(str(self.config.style)).ops}
        seen: Counter[str] = Counter()
        found = []
        for op, styles in op_variations(str(self.config.style)):
            seen[op] += 1
            found.append((op if seen[op] == 1 else f"{op} {seen[op]}", kinds[op], styles))
        return found

    def _advance(self, step: Any, part: float, doing: str) -> None:
        self.pace.advance(step, part)
        left = self.pace.seconds_left
        said = {"doing": doing, "labels": step if isinstance(step, int) else 0, "done": round(self.pace.done, 4)}
        self.tell({"event": "step", **said, "seconds_left": None if left is None else round(left, 1)})

    def measure(self) -> None:
        """Take all steps that are left, as far as the budget goes; Ctrl-C leaves what is finished."""
        plan = {"labels": self.counts, "measured": len(self.measured), "ops": [op for op, _, _ in self._variations]}
        self.tell({"event": "plan", **plan})
        try:
            if not self.sample.texts:
                self._read_unlabeled()
            # What takes longest comes last: the budget may end before it.
            for count in self.counts if self.sample.texts else []:
                if count:
                    self._try_changes()
                self._step(count)
            self._try_changes()
        except KeyboardInterrupt:
            self.interrupted = True
            self.partial = f"{self._missing()}: it was interrupted; run the same command again"
        except OutOfTime:
            budget = duration(parse_duration(self.config.budget))
            further = "raise --budget and run the same command again"
            self.partial = f"{self._missing()}: the budget of {budget} was over; {further}"
        self._save_state()

    def _missing(self) -> str:
        """What is not measured yet, in words."""
        if not self.sample.texts:
            done, whole = self._unlabeled_done, len(self.sample.pictures)
            return f"only {done} of the {whole} pictures were read" if done < whole else "nothing is missing"
        done = {change["op"] for change in self.state["changes"]}
        counts = [n for n in self.counts if str(n) not in self.state["steps"] and n <= len(self.learned)]
        says = [f"{listed(counts)} labels were not measured"] if counts else []
        ops = [op.replace("_", " ") for op, _, _ in self._variations if op not in done]
        says += [f"{listed(ops)} {'were' if len(ops) > 1 else 'was'} not varied"] if ops else []
        return " and ".join(says) or "nothing is missing"

    def _step(self, count: int) -> None:
        if str(count) in self.state["steps"]:
            return
        if count > len(self.learned):
            left = len(self.learned)
            self.skipped.append(f"{count} labels: only {left} are left beside the {len(self.measured)} to measure on")
            return
        expected = self._expected_seconds(count)
        if count and expected > self.clock.left():
            raise OutOfTime
        doing = f"training on {count} labels" if count else "reading without labels"
        self._advance(count, 0.0, doing)
        started = time.monotonic()

        def trained(event: Event) -> None:
            if event["event"] == "step":
                if self.clock.left() <= 0:
                    raise OutOfTime
                self._advance(count, TRAINING_PART * event["done"], doing)

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
                lambda done: self._advance(count, begun + (1 - begun) * done, doing),
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
        """By the trainings that were timed; one takes some time whatever they say."""
        timed = {int(n): step["seconds"] for n, step in self.state["steps"].items() if int(n)}
        guessed = sum(self.pace.guesses.get(n, 0.0) for n in timed)
        factor = sum(timed.values()) / guessed if guessed else 0.0
        return max(self.pace.guesses[count] * factor, MIN_TRAINING_SECONDS)

    def _read_unlabeled(self) -> None:
        """What was read before the budget ended, or before Ctrl-C, is kept."""
        pictures, begun = self.sample.pictures, self._unlabeled_done
        if begun == len(pictures):
            return
        doing = "reading without labels"
        self._advance("unlabeled", 0.0, doing)
        predictor = CaptchaPredictor(self.config.checkpoint, threads=self.config.threads)
        for start in range(begun, len(pictures), CHUNK):
            if start > begun and self.clock.left() <= 0:
                raise OutOfTime
            found = predictor.predict(pictures[start : start + CHUNK], constraints=self.constraints)
            kept = self.state.get("unlabeled", {"readings": [], "confidences": []})
            self.state["unlabeled"] = {  # at once: Ctrl-C comes before it or after it
                "readings": kept["readings"] + [p.text for p in found],
                "confidences": kept["confidences"] + [round(float(p.confidence), 5) for p in found],
            }
            self._advance("unlabeled", (self._unlabeled_done - begun) / (len(pictures) - begun), doing)
        self._save_state()

    @property
    def _unlabeled_done(self) -> int:
        """How many of the pictures without labels were read."""
        return len(self.state["unlabeled"]["readings"]) if "unlabeled" in self.state else 0

    def _try_changes(self) -> None:
        """One op of the style at a time, weaker and stronger."""
        done = {change["op"] for change in self.state["changes"]}
        left = [variation for variation in self._variations if variation[0] not in done]
        if not left:
            return
        predictor = CaptchaPredictor(self.config.checkpoint, threads=self.config.threads)
        for op, visible, styles in left:
            if self.clock.left() <= 0:
                raise OutOfTime
            levels = []
            for i, (strength, style) in enumerate(styles):
                self._advance(op, i / len(styles), f"trying {op.replace('_', ' ')}, {strength}")
                levels.append({"strength": strength, **self._try(style, predictor, visible)})
            self._advance(op, 1.0, f"trying {op.replace('_', ' ')}")
            self.state["changes"].append({"op": op, "n": self.config.tries, "levels": levels})
            self._save_state()
            self.tell({"event": "change", "op": op, "levels": levels})

    def _try(self, style: Style, predictor: CaptchaPredictor, visible: bool) -> dict[str, Any]:
        """How much of a style is read, and how legible it is where the proxy can tell."""
        settings = style_settings(self.config)
        varied = CaptchaSettings((style,), settings.alphabet, settings.length, settings.seed)
        drawn = [render_captcha(i, varied) for i in range(self.config.tries)]
        found = predictor.predict([picture for picture, _ in drawn], constraints=self.constraints)
        right = [
            fold_case(p.text, self.constraints) == fold_case(text, self.constraints)
            for p, (_, text) in zip(found, drawn, strict=True)
        ]
        people = error = None
        if visible:
            legible = [legibility_of(i, varied) for i in range(min(LEGIBLE, self.config.tries))]
            # One picture says nothing of the spread: then no difference is beyond chance.
            people, error = float(np.mean(legible)), 1.0
            if len(legible) > 1:
                error = float(np.std(legible, ddof=1) / len(legible) ** 0.5)
        return {"accuracy": float(np.mean(right)), "legibility": people, "legibility_error": error}

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
            "generated": config.style is not None,
            "left_out": self.sample.left_out.as_dict(),
        }
        settings = {key: getattr(config, key) for key in ("seed", "length", "ignore_case")}
        settings["characters"] = Alphabet.parse(config.characters).characters if config.characters else None
        settings |= {"seconds_per_label": config.seconds_per_label, "labels": self.counts, "skipped": self.skipped}
        unlabeled = self.state.get("unlabeled")
        texts = self.sample.texts or (unlabeled["readings"] if unlabeled else [])
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
            reader=Path(config.checkpoint).name if config.checkpoint else "the shipped reader",
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
        """Example pictures: read rightly, read wrongly, and those that the reader is unsure of."""
        if not self.state["steps"]:
            unlabeled = self.state.get("unlabeled")
            if not unlabeled:
                return []
            pictures = self.sample.pictures[: self._unlabeled_done]
            found = zip(pictures, unlabeled["readings"], unlabeled["confidences"], strict=True)
            ordered = sorted((Example(p, t, c) for p, t, c in found), key=lambda e: -e.confidence)
            return [("Most certain", ordered[:SHEET]), ("Least certain", ordered[::-1][:SHEET])]
        last = self._last(max(map(int, self.state["steps"])))
        rows = zip(self.measured, last["readings"], last["confidences"], last["truths"], strict=True)
        examples = [Example(self.sample.pictures[i], text, c, truth) for i, text, c, truth in rows]
        right = sorted((e for e in examples if e.right and e.confidence >= UNSURE), key=lambda e: -e.confidence)
        wrong = sorted((e for e in examples if not e.right and e.confidence >= UNSURE), key=lambda e: -e.confidence)
        unsure = sorted((e for e in examples if e.confidence < UNSURE), key=lambda e: e.confidence)
        said = f", confidence below {UNSURE:.0%}, {sum(e.right for e in unsure)} of them read right".replace("%", " %")
        named = [("Read right", right, ""), ("Read wrongly", wrong, ""), ("Unsure", unsure, said)]
        return [
            (f"{name}: {len(items)} of {len(examples)}{more}", items[:SHEET]) for name, items, more in named if items
        ]

    def write(self, report: dict[str, Any]) -> Path:
        """Write a report as report.json and report.html; gives the path of the page."""
        write_text(self.out / "report.json", json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False))
        return write_text(self.out / "report.html", render_page(report, self.sheets()))


def main() -> int:
    """Command line. Exit code 130 where it was interrupted; the partial report is written all the same."""
    config = parse_config(StrengthConfig, "How weak is a captcha? Measure it, and write a report.")
    strength = Strength(config)
    bar = Bar() if config.progress == "bar" else None
    strength.tell = bar or JsonLines(sys.stdout)
    strength.measure()
    if bar:
        bar.close()
    report = strength.report()
    page, verdict = strength.write(report), report["verdict"]
    for line in strength.skipped:
        print(f"skipped: {line}", file=sys.stderr)
    if strength.partial:
        print(f"The report is partial. {strength.partial[0].upper()}{strength.partial[1:]}.", file=sys.stderr)
    if bar:
        print(verdict["text"], verdict["advice"], f"Report: {page}", sep="\n")
    strength.tell({"event": "result", "verdict": verdict, "partial": strength.partial, "page": str(page)})
    return 130 if strength.interrupted else 0


if __name__ == "__main__":
    run(main)
