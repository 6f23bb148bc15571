"""Train a captcha reader.

    python main.py                                                 # no data: a synthetic set, the default model
    python main.py --data FOLDER                                   # labeled pictures of your own
    python main.py --config configs/finetune.yaml --data FOLDER    # from the shipped weights, with few labels
    python main.py --resume --out saved_models/RUN                 # go on where a run was stopped
    python main.py --stop_after 540 ... || python main.py --resume --out saved_models/RUN --stop_after 540
    accelerate launch --num_processes 2 main.py --data FOLDER      # several GPUs
    accelerate launch --multi_gpu --num_processes 2 main.py --cpu  # several CPU processes (so accelerate starts them)

A run has two phases, each with its own optimizer and schedule: the head alone on a frozen, pretrained backbone, then
the whole network. The run folder gets best.safetensors, last.safetensors, config.yaml, history.json, the training
state, and at the end the metrics and the pictures. docs/training.md says which of the presets to take.

The file reads from top to bottom: data, the run itself, evaluation. The settings are in captcha_reader/config.py
(`TrainConfig`), the model and its phases are made in initialization.py, the loop is in trainer.py, what few labels ask
for in finetune.py.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C shows no traceback during the seconds that the imports take
    from captcha_reader.cli import quiet_interrupt

    quiet_interrupt()

import copy
import dataclasses
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from PIL import Image

from accuracy_calculator import evaluate, print_report
from captcha_generator import generate_captcha_data
from captcha_reader.checkpoint import read_metadata, save_checkpoint
from captcha_reader.cli import parse_config, run
from captcha_reader.config import ALPHANUMERIC, DatasetConfig, GeneratorConfig, ModelConfig, TrainConfig
from captcha_reader.dataset.folders import FEEDBACK, GENERATED, found_in, is_dataset, load_info
from captcha_reader.dataset.stream import Stream, open_stream
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, SAVED_MODELS, available_cores, locked_output, write_json, write_text
from captcha_reader.generator.render import render_image
from captcha_reader.model_card import hardware, model_card
from captcha_reader.optimization import Phase
from captcha_reader.progress import Event, JsonLines, PlannedPart, PlannedPhase, Progress, Terminal
from captcha_reader.text import Alphabet
from captcha_reader.training_settings import (
    OF_THE_PROCESS,
    change_length,
    check_settings,
    load_run_config,
    plain_settings,
    save_run_config,
    unused_settings,
    with_time_left,
)
from captcha_reader.training_state import STATE_FILE, read_state
from captcha_reader.transfer import blend as blend_weights
from data_loader import SPLITS, CaptchaDataset, StreamDataset, load_data, load_split
from export_model import export_onnx
from finetune import (
    describe_expectation,
    fold_name,
    folds_needed,
    make_folds,
    measure_by_folds,
    open_predictor,
    synthetic_count,
    training_pictures,
    usual_blend,
)
from initialization import (
    Trained,
    check_labels,
    check_model,
    check_same_start,
    hash_of_start,
    initialize,
    plan_phases,
    resolve_model_config,
)
from make_dataset import make_dataset
from model import CaptchaModel, count_parameters, load_model
from trainer import Interrupted, TimeUp, Trainer, numbers

FITTED_PICTURES = 200  # of training, looked at now and then where there is no validation split
FITTED_TIMES = 5
STREAM = Path("(a stream)")  # stands for the dataset folder that it has none of
TIME_UP = 75  # exit code after --stop_after: the run is not at its end


# --------------------------------------------------------------------------------------------------------------------
# Data

WRITTEN = 2  # to be raised when make_dataset.py makes something else of the same sources: what is kept is made anew
Splits = dict[str, tuple[Sequence[bytes], list[str]]]  # train, validation, test: encoded pictures, labels


def prepare_data(config: TrainConfig, say: Callable[[str], None] = print) -> Path:
    """The dataset folder to train on: the one named, one made from the sources named, or a synthetic one.

    What is made is kept below data/generated and used again while its sources stay as they are.

    Raises:
        UserError: a source cannot be used.
    """
    sources = [config.data] if isinstance(config.data, str) else list(config.data)
    if len(sources) == 1 and is_dataset(sources[0]):
        return Path(sources[0])
    store = ROOT / "data" / GENERATED
    if sources == ["data"]:
        found = found_in(ROOT / "data") or [_synthetic_data(config, store, say)]
        if len(found) == 1 and is_dataset(found[0]):
            return found[0]
        sources = [str(path) for path in found]
    recipe = [WRITTEN, *(_stamp(source) for source in sources), config.split, config.seed, config.alphabet]
    key = hashlib.sha256(json.dumps(recipe).encode())
    out = store / f"dataset-{key.hexdigest()[:16]}"
    if not is_dataset(out):
        info = make_dataset(
            DatasetConfig(sources=sources, out=str(out), split=config.split, seed=config.seed, alphabet=config.alphabet)
        )
        for note in info["notes"]:
            say(f"note: {note}")
        if rejected := info["rejects"]["total"]:
            say(f"{rejected:,} samples were left out, each with its reason in {out / 'dataset.json'}")
    return out


def _synthetic_data(config: TrainConfig, store: Path, say: Callable[[str], None]) -> Path:
    """A folder of synthetic captchas, for who has no data yet."""
    corrected = (ROOT / "data" / FEEDBACK).exists()
    but = " but corrected readings (--data data/feedback learns from them)" if corrected else ""
    say(
        f"There is no data in data/{but} (its README says what to put there): training on "
        f"{config.synthetic_count:,} synthetic captchas of the style {config.synthetic_style}."
    )
    alphabet = config.alphabet or ALPHANUMERIC
    # All that was asked for, so that other settings make another set; an alphabet may be no name of a folder.
    style = config.synthetic_style.replace(",", "-")
    mark = hashlib.sha256(Alphabet.parse(alphabet).characters.encode()).hexdigest()[:8]
    made = store / f"synthetic-{style}-{config.synthetic_count}-{config.seed}-{mark}"
    generate_captcha_data(
        GeneratorConfig(
            out=str(made),
            count=config.synthetic_count,
            style=config.synthetic_style,
            seed=config.seed,
            alphabet=alphabet,
        )
    )
    return made


def _stamp(source: str) -> list[Any]:
    """Changes whenever a file of the source does; hidden ones are none of it."""
    path = Path(source)
    found = path.rglob("*") if path.is_dir() else [path]
    files = sorted(p for p in found if p.is_file() and not any(n.startswith(".") for n in p.relative_to(path).parts))
    return [source, [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in files]]


# --------------------------------------------------------------------------------------------------------------------
# The run


def train_model(
    config: TrainConfig,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    on_progress: Callable[[Event], None] | None = None,
) -> dict[str, Any]:
    """Train, evaluate and draw.

    Args:
        config: the settings, a run folder among them; with `resume`, those saved in it take their place.
        on_epoch: called after each epoch with its row of history.json.
        on_progress: called with the events of `captcha_reader.progress`.

    Returns:
        `out` (the run folder), `checkpoint` (its best weights), `history`, and `report`: of the test split, or of the
        folds, if any.

    Raises:
        UserError: something the user can fix.
        Interrupted: stopped by Ctrl-C, SIGTERM or `--stop_after`, with the state saved.
    """
    unused: list[str] = []
    length: int | None = None  # another one than the run was begun with
    if config.resume:
        given, config = config, load_run_config(config)
        length = given.pictures if given.pictures != config.pictures else None
        unused = unused_settings(dataclasses.replace(given, pictures=None), config)
    check_settings(config)
    config = divide_cores(config)
    out = Path(str(config.out))
    torch.set_num_threads(config.threads or max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    accelerator = Accelerator(
        cpu=config.cpu,
        mixed_precision=config.mixed_precision,
        log_with=None if config.tracker == "none" else config.tracker,
        project_dir=str(out),
    )
    if not config.resume and any((out / name).exists() for name in (STATE_FILE, "best.safetensors")):
        raise UserError(f"{out} already holds a run: go on with it by --resume, or name another --out")
    with ExitStack() as stack:
        if accelerator.is_main_process:
            stack.enter_context(locked_output(out))
        if length:
            config = change_length(config, length)
        progress = stack.enter_context(open_progress(config, accelerator, on_progress))
        if unused:
            progress.message(f"The run goes on with the settings saved in {out}; not used: {', '.join(unused)}.")
        return _train(config, accelerator, progress, on_epoch)


@contextmanager
def open_progress(
    config: TrainConfig, accelerator: Accelerator, on_progress: Callable[[Event], None] | None
) -> Iterator[Progress]:
    """The progress of a run, told as `--progress` says, by one process."""
    with ExitStack() as stack:
        sinks: list[Callable[[Event], None]] = [on_progress] if on_progress else []
        if config.progress == "json":
            sinks.append(JsonLines(sys.stdout))
            stack.enter_context(redirect_stdout(sys.stderr))  # whatever else is printed is no JSON
        elif config.progress == "bar":
            terminal = Terminal()
            stack.callback(terminal.close)
            sinks.append(terminal)
        yield Progress(sinks if accelerator.is_main_process else ())


def _train(
    config: TrainConfig,
    accelerator: Accelerator,
    progress: Progress,
    on_epoch: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    out = Path(str(config.out))
    torch.manual_seed(config.seed)
    # Machines may have disks of their own: one process of each prepares the data.
    with accelerator.main_process_first(), accelerator.local_main_process_first():
        stream = open_stream(config) if config.pictures else None
        folder = STREAM if stream else prepare_data(config, progress.message)
    info = stream.info if stream else load_info(folder)
    saved = read_state(out / STATE_FILE) if config.resume else {}
    check_same_data(out, info, saved)
    check_same_start(out, config, saved)
    splits: Splits = stream.draw_splits() if stream else {split: load_split(folder, split) for split in SPLITS}
    if not len(splits["train"][1]):
        raise UserError(f"{folder} has no training pictures: change --split or add data")

    model_config = resolve_model_config(config, *splits["train"], info)
    if config.resume:  # as it was begun: the weights it started from may be others by now, and so the defaults
        begun = saved.get("config")  # an older state has none, and knew no normalized pictures
        unknown = dataclasses.replace(model_config, normalize=bool(config.normalize), soften=config.soften or 0.0)
        model_config = ModelConfig.from_json(begun, out / STATE_FILE) if begun else unknown
    del saved
    model, trained, notes = initialize(config, model_config)
    notes += check_model(config, model, accelerator.num_processes)
    for note in [] if config.resume else notes:
        progress.message(note)
    datasets = load_data(
        folder,
        model_config,
        seed=config.seed,
        augment=config.augment,
        lean=config.shear,
        limit=config.limit,
        loaded=splits,
    )
    check_labels(config, model, datasets, ", ".join(info["sources"]))
    if stream:
        config = dataclasses.replace(config, epochs=stream.epochs)
        render = partial(render_image, settings=stream.settings)
        datasets["train"] = StreamDataset(render, datasets["train"].transform, stream.count, config.seed)
    progress.message(describe_run(config, folder, datasets, model, accelerator.device))
    if extra := "".join(c for c in model.alphabet.characters if c not in info["alphabet"] and not config.alphabet):
        progress.message(
            f"No label has {extra} either, but so few may lack them by chance: they stay readable (--alphabet decides)."
        )

    real = datasets["train"]
    phases = plan_phases(config, len(real), trained.backbone, progress.message)
    by_folds = config.evaluate and config.folds > 0 and not len(datasets["test"])
    measured = int((~datasets["train"].pseudo).sum()) if by_folds else 0
    if by_folds and measured < config.folds:
        by_folds, measured = False, 0
        progress.message("Too few labels were typed by a person to say what to expect: the others are a model's.")
    start, started = copy.deepcopy(model), time.monotonic()
    # channels_last: oneDNN's depthwise convolutions train 1.5 times as fast on a CPU this way.
    model = model.to(accelerator.device, memory_format=torch.channels_last)
    sources: dict[str, Any] = {**datasets, "train": training_pictures(config, real, model, trained, progress.message)}
    epochs = sum(phase.epochs for phase in phases)
    if not len(datasets["validation"]) and epochs > 1:
        sources["fitted"] = real.subset(range(min(len(real), FITTED_PICTURES)))
    trainer = Trainer(
        config,
        model,
        phases,
        sources,
        accelerator,
        describe_origin(config, info, len(real), trained) | ({"stream": stream.origin} if stream else {}),
        progress=progress,
        on_epoch=on_epoch,
        measure_every=1 if len(datasets["validation"]) else math.ceil(epochs / FITTED_TIMES),
    )
    if config.resume:
        trainer.load_state()
        if trainer.finished:
            progress.message(f"The run in {out} was trained to its end: nothing is left to train.")
        else:
            progress.message(f"Going on after epoch {trainer.epoch_number}, step {trainer.place['step']}.")
    elif accelerator.is_main_process:
        save_run_config(out, plain_settings(config))
    progress.plan(plan_parts(config, phases, len(real), measured))
    try:
        if config.tracker != "none":
            start_tracker(accelerator, config)
        trainer.fit()
        progress.skip("training")
        build = partial(initialize, config, model_config) if by_folds else None
        report = finish_run(with_time_left(config, started), trainer, datasets, (start, trained), build)
        if stream and accelerator.is_main_process:
            finish_stream(out, stream)
    finally:
        if config.tracker != "none":
            accelerator.end_training()
    result = {"out": out, "checkpoint": out / "best.safetensors", "history": trainer.history}
    return result | ({"report": report} if config.evaluate else {})


def finish_stream(out: Path, stream: Stream) -> None:
    """Write what a reader that was trained on a stream is published with: the ONNX file, the fonts, the model card."""
    checkpoint = out / "best.safetensors"
    export_onnx(checkpoint, checkpoint.with_suffix(".onnx"))
    write_json(out / "fonts.json", stream.fonts)
    write_text(out / "README.md", model_card(checkpoint.stem, read_metadata(checkpoint)))


def plan_parts(config: TrainConfig, phases: Sequence[Phase], n: int, measured: int) -> list[PlannedPart]:
    """All trainings of a run with their steps: of the model itself, and of each fold that is measured.

    Args:
        n: training pictures.
        measured: how many of them folds measure, together; 0 without folds.
    """

    def part(name: str, pictures: int) -> PlannedPart:
        pictures += 0 if config.other_height else synthetic_count(config, pictures)
        steps = pictures // min(config.batch_size, pictures)
        return PlannedPart(name, [PlannedPhase(p.name, p.epochs, p.epochs * steps) for p in phases])

    parts = [part("training", n)]
    if measured:
        held_out = make_folds(measured, config.folds, config.seed)
        count = folds_needed(held_out)
        parts += [part(fold_name(i, count), n - len(fold)) for i, fold in enumerate(held_out[:count])]
    return parts


def divide_cores(config: TrainConfig) -> TrainConfig:
    """Processes to draw a stream and threads to train with, where the user does not say: on a GPU all cores draw, on a
    CPU half of them do."""
    if not config.pictures or config.workers:
        return config
    cores = available_cores()
    on_gpu = torch.cuda.is_available() and not config.cpu
    drawing = cores if on_gpu else max(1, cores // 2)
    return dataclasses.replace(config, workers=drawing, threads=config.threads or max(1, cores - drawing))


def check_same_data(out: Path, info: dict[str, Any], saved: dict[str, Any]) -> None:
    """Refuse to go on with other pictures: they make other batches, and may make another model.

    Raises:
        UserError: the data of the run in `out` has changed.
    """
    if saved.get("fingerprint") not in (None, info["fingerprint"]):  # None: an older state
        raise UserError(
            f"the data has changed since the run in {out} began (pictures or labels are new, gone, or others in "
            f"{', '.join(info['sources'])}): put back what was there to go on, or start a new run with another --out"
        )


def describe_run(
    config: TrainConfig, folder: Path, datasets: dict[str, CaptchaDataset], model: CaptchaModel, device: torch.device
) -> str:
    """The data and the model in two lines."""
    height, width = model.config.image_size
    return (
        f"Data {folder}: {len(datasets['train']):,} train, {len(datasets['validation']):,} validation, "
        f"{len(datasets['test']):,} test. Alphabet of {len(model.alphabet)}: {model.alphabet.characters}\n"
        f"Model {config.model}: {count_parameters(model):,} weights, input {model.config.channels}x{height}x{width}, "
        f"{model.steps} steps, on {device}"
    )


def describe_origin(config: TrainConfig, info: dict[str, Any], n: int, trained: Trained) -> dict[str, Any]:
    """The provenance of the checkpoints of a run; for a fine-tuned model with the characters and lengths of its labels,
    which who reads with it is offered to restrict readings to."""
    default, values = TrainConfig(), plain_settings(config)
    # Without what only concerns this disk, for a checkpoint may be published, and without what is as always.
    local = ("out", "resume", *OF_THE_PROCESS)
    chosen = {k: v for k, v in values.items() if k not in local and v != plain_settings(default)[k]}
    lengths = [int(length) for length in info["lengths"]]
    labels = {"label_characters": info["alphabet"], "label_length": [min(lengths), max(lengths)]}
    return {
        "config": chosen,
        "data": {"fingerprint": info["fingerprint"], "sources": info["sources"], "n": n},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **({"start": start} if (start := hash_of_start(config)) else {}),
        **(labels if all(trained) else {}),
    }


def start_tracker(accelerator: Accelerator, config: TrainConfig) -> None:
    """Begin a run of the experiment tracker.

    Raises:
        UserError: its store or its settings cannot be used.
    """
    flat = {
        key: str(value) if isinstance(value, list | tuple) or value is None else value
        for key, value in plain_settings(config).items()
    }
    try:
        accelerator.init_trackers("captcha", config=flat)
    except Exception as error:  # each tracker has its own; the cause is its store or its settings
        reason = str(error).strip().splitlines()
        raise UserError(
            f"the tracker {config.tracker} cannot be used ({reason[0] if reason else type(error).__name__}): fix its "
            "settings or leave --tracker out"
        ) from error


# --------------------------------------------------------------------------------------------------------------------
# Evaluation


def finish_run(
    config: TrainConfig,
    trainer: Trainer,
    datasets: dict[str, CaptchaDataset],
    begun: tuple[CaptchaModel, Trained],
    build: Callable[[], tuple[CaptchaModel, Trained, list[str]]] | None,
) -> dict[str, Any] | None:
    """Measure what was trained, and write the finished checkpoint, once: blended, with its figures.

    Args:
        begun: the model as it was before training, and what of it was trained.
        build: makes that model again, where folds say what to expect.

    Returns:
        The report of the test split or of the folds, or None.
    """
    from captcha_reader.plots.training import plot_history

    out, accelerator, progress = trainer.out, trainer.accelerator, trainer.progress
    checkpoint = out / "best.safetensors"
    start, trained = begun
    found = read_metadata(checkpoint)
    if "blend" in found["provenance"]:  # it was finished before
        measured = out / "metrics.json"
        report = json.loads(measured.read_text(encoding="utf-8")) if measured.is_file() else None
        _say_end(progress, config, out, report)
        return report
    blend = usual_blend(config, len(datasets["train"])) if all(trained) else 1.0
    report = None
    if build:
        report = measure_by_folds(config, lambda: build()[:2], trainer.phases, datasets["train"], accelerator, progress)
        blend = report["blend"]
    if not accelerator.is_main_process:
        return report
    if config.evaluate:
        plot_history(trainer.history, out / "curves.png")
    model = load_model(checkpoint)
    model.load_state_dict(blend_weights(start, model, blend))
    if config.evaluate:
        report = report or measure_test_split(config, model, trainer, datasets["test"])
    if report:
        accelerator.log({f"test/{k}": v for k, v in numbers(report).items()})
        write_json(out / "metrics.json", report)
    metrics = dict(found["metrics"])
    if blend != 1:  # the validation figures are of other weights
        metrics.pop("validation", None)
        progress.message(f"The weights kept lie {blend:g} of the way from the first to the last (--blend).")
    if report:
        metrics["cross_validation" if build else "test"] = {key: report[key] for key in (*numbers(report), "wilson_95")}
    hours = round(sum(row["seconds"] for row in trainer.history) / 3600, 3)
    origin = {**found["provenance"], "blend": blend, "hours": hours, "hardware": hardware(accelerator.device)}
    save_checkpoint(model, checkpoint, metrics=metrics, provenance=origin)
    for path in out.glob("fold-*.json"):
        path.unlink()
    _say_end(progress, config, out, report)
    return report


def _say_end(progress: Progress, config: TrainConfig, out: Path, report: dict[str, Any] | None) -> None:
    """Where everything is, and what to expect of it."""
    expect = describe_expectation(report) if report else None
    if config.evaluate:
        progress.message(f"Weights, history and pictures: {out}" + ("" if report else " (no test split to measure on)"))
    if expect:
        progress.message(expect)
        progress.message(f"Read with it: python predict.py --checkpoint {out} FOLDER")
    progress.result(str(out / "best.safetensors"), report, expect)


def measure_test_split(
    config: TrainConfig, model: CaptchaModel, trainer: Trainer, test: CaptchaDataset
) -> dict[str, Any] | None:
    """Measure a model on the test split as the demo's user will meet it, and draw what it reads.

    Returns:
        The report, or None where there is no test split.
    """
    from captcha_reader.plots.evaluation import plot_confusion
    from captcha_reader.plots.grid import plot_comparison

    if not len(test):
        return None
    predictor = open_predictor(trainer.out / "best.safetensors", config)
    predictor.backend.model.load_state_dict(model.state_dict())
    images: list[Image.Image | bytes] = [test.images[i] for i in range(len(test))]
    report, predictions = evaluate(predictor, images, test.texts, config.batch_size)
    if config.progress == "bar":
        print_report(report)
    first = min(25, len(test))
    pictures = [test.image(i) for i in range(first)]
    plot_comparison(pictures, predictions[:first], test.texts[:first], trainer.out / "predictions.png")
    plot_confusion(report, trainer.out / "confusion.png")
    return report


def main() -> int:
    """Command line."""
    config = parse_config(TrainConfig, "Train a captcha reader.")
    if config.out is None and not config.resume:
        config.out = str(SAVED_MODELS / f"{config.model}-{datetime.now():%Y%m%d-%H%M%S}")
    try:
        train_model(config)
    except TimeUp as stopped:
        print(
            f"\nStopped after {config.stop_after:g} seconds (--stop_after), everything is saved. Go on with: python "
            f"main.py --resume --out {stopped}",
            file=sys.stderr,
        )
        return TIME_UP
    except Interrupted as stopped:
        print(f"\nStopped, everything is saved. Go on with: python main.py --resume --out {stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt:  # before the first step, after the last one, or for the second time
        saved = config.out is not None and (Path(config.out) / STATE_FILE).exists()
        then = f"go on with what was saved: python main.py --resume --out {config.out}" if saved else "nothing is saved"
        print(f"\nStopped; {then}.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    run(main)
