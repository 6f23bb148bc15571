"""Measure a reader on labeled captchas.

    python accuracy_calculator.py --data FOLDER                                    # the shipped weights
    python accuracy_calculator.py --checkpoint RUN/best.safetensors --data FOLDER --json report.json --plots pictures
    python accuracy_calculator.py --find-label-errors --data FOLDER                # which labels are wrong?

`sequence_accuracy` is the share of captchas read exactly right, character for character; CER is the character error
rate (edits over characters of the labels); `character_accuracy` is 1 - CER.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C shows no traceback during the seconds that the imports take
    from captcha_reader.cli import quiet_interrupt

    quiet_interrupt()

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from captcha_reader.cli import parse_config, run
from captcha_reader.config import DatasetConfig, EvaluateConfig
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, write_text
from captcha_reader.images import ImageLike
from captcha_reader.reading.collection import read_together
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.metrics import (  # noqa: F401  (others still import them from here)
    alike_metrics,
    calibration,
    count_edits,
    detailed_metrics,
    parse_alike,
    text_metrics,
    wilson_interval,
)
from captcha_reader.reading.prediction import Prediction
from captcha_reader.text import NOTHING
from predict import CaptchaPredictor, check_positive, say_suggested

LISTED = 20  # samples that cannot be measured on and are named one by one


def evaluate(
    predictor: CaptchaPredictor,
    images: Sequence[ImageLike],
    truths: Sequence[str],
    batch_size: int = 64,
    progress: bool = True,
    same_source: bool = False,
    constraints: Constraints | None = None,
) -> tuple[dict[str, Any], list[Prediction]]:
    """Read all pictures and compare with their labels.

    Args:
        same_source: read the pictures together, as `read_together` does.
        constraints: what is known of their texts, but for their labels.

    Returns:
        The report (`detailed_metrics` and `images_per_second`, decoding of the files included), and the predictions.
    """
    from tqdm import tqdm

    check_positive(batch_size, "batch size")
    predictions: list[Prediction] = []
    started = time.perf_counter()
    bar = tqdm(total=len(truths), desc="reading", unit="image", disable=not progress, leave=False)
    with bar:
        for start in range(0, len(truths), batch_size):
            batch = [images[i] for i in range(start, min(start + batch_size, len(truths)))]
            predictions += predictor.predict(
                batch, batch_size=batch_size, keep_views=same_source, constraints=constraints
            )
            bar.update(len(batch))
    scheme = None
    if same_source:
        predictions, scheme = read_together(predictions, constraints)
    seconds = time.perf_counter() - started
    report = detailed_metrics(truths, [p.text for p in predictions], [p.confidence for p in predictions])
    report["images_per_second"] = len(truths) / seconds
    report["checkpoint"] = str(predictor.path)
    report["same_source"] = None if scheme is None else str(scheme)
    report["constraints"] = str(constraints) if constraints else None
    return report, predictions


def print_report(report: dict[str, Any]) -> None:
    """The metrics table."""
    low, high = report["wilson_95"]
    rows = [
        ("pictures (n)", f"{report['n']:,}"),
        ("sequence accuracy", f"{report['sequence_accuracy']:.2%}  (95 % interval {low:.2%} to {high:.2%})"),
        ("  ignoring case", f"{report['sequence_accuracy_ignore_case']:.2%}"),
        *_alike_rows(report.get("alike")),
        ("character accuracy", f"{report['character_accuracy']:.2%}"),
        ("CER", f"{report['cer']:.2%}"),
        (
            "calibration error",
            f"{report['expected_calibration_error']:.3f}, ignoring case "
            f"{report['expected_calibration_error_ignore_case']:.3f}",
        ),
        *_sure_rows(report["right_at_confidence"]),
        ("images per second", f"{report['images_per_second']:.0f}"),
    ]
    for name, value in rows:
        print(f"{name:<22}{value}")
    print("by length             " + _shares(report["by_length"]))
    print("by position           " + _shares(report["by_position"]))
    if report["confusions"]:
        shown = [(c["truth"] or NOTHING, c["reading"] or NOTHING, c["count"]) for c in report["confusions"][:8]]
        pairs = ", ".join(f"{truth}→{reading} {count}x" for truth, reading, count in shown)
        print("most confused         " + pairs + (f" ({NOTHING}: no character)" if NOTHING in pairs else ""))
    if report.get("constraints"):
        print("constraints           " + report["constraints"])
    if report.get("same_source"):
        print("of one source         " + report["same_source"])


def _sure_rows(levels: dict[str, dict[str, float | None]]) -> list[tuple[str, str]]:
    return [
        (f"confidence >= {level}", f"{found['share']:.1%} of the readings, {found['accuracy']:.1%} right ignoring case")
        for level, found in levels.items()
        if found["accuracy"] is not None
    ]


def _alike_rows(alike: dict[str, Any] | None) -> list[tuple[str, str]]:
    if not alike:
        return []
    together = ", ".join(" and ".join(group) for group in alike["groups"])
    exact, folded = alike["sequence_accuracy"], alike["sequence_accuracy_ignore_case"]
    return [("  alike as one", f"{exact:.2%}, ignoring case {folded:.2%}  ({together})")]


def _shares(groups: dict[str, dict[str, float]]) -> str:
    return "  ".join(f"{key}: {group['accuracy']:.1%} (n={group['n']:,})" for key, group in groups.items())


def load_labeled(
    data: str | Sequence[str],
    split: str | None = None,
    limit: int | None = None,
    otherwise: str = "name another --split",
    on_rejects: Callable[[dict[str, Any]], None] = lambda rejects: None,
) -> tuple[Sequence[bytes], list[str], str]:
    """Encoded pictures and labels to measure on.

    What make_dataset.py has not made is checked as it would: copies of a picture, pictures that cannot be read and
    labels that cannot be used are left out, and named on stderr.

    Args:
        data: dataset folders that make_dataset.py made, or any sources that it takes. `data` alone stands for the
            dataset that main.py made last of what is in data/, and for that itself where there is none.
        split: `train`, `validation`, `test` or `all`; by default `test` of a dataset, and all of other sources.
        limit: at most this many, a seeded choice.
        otherwise: what to do where the split is empty, for the message.
        on_rejects: is told the `rejects` of each dataset, those that make_dataset.py made and the one made here.

    Raises:
        UserError: there is no such split, or nothing in it, or `limit` is below 1.
    """
    from captcha_reader.dataset.folders import is_dataset, load_info
    from data_loader import SPLITS, load_split, pseudo_rows

    if limit is not None:
        check_positive(limit, "limit")
    sources = [data] if isinstance(data, str) else list(data)
    if sources == ["data"]:
        sources = _own_data()
    made = [source for source in sources if is_dataset(source)]
    others = [source for source in sources if source not in made]
    chosen = split or ("all" if others else "test")
    if others and chosen != "all":
        raise UserError(f"{others[0]} is not split: make a dataset of it with make_dataset.py, or leave --split out")
    images, texts = _cleaned(others, on_rejects) if others else ([], [])
    for source in made:
        on_rejects(load_info(source)["rejects"])
        for name in SPLITS if chosen == "all" else (chosen,):
            pictures, labels = load_split(source, name)
            typed = [i for i, by_model in enumerate(pseudo_rows(source, name)) if not by_model]
            images += [pictures[i] for i in typed]
            texts += [labels[i] for i in typed]
            _tell_pseudo(len(labels) - len(typed), f"{source} ({name})")
    if not texts:
        where = ", ".join(sources)
        if chosen == "all":
            raise UserError(f"{where} holds no picture with a label that a person gave: label some by hand")
        raise UserError(f"{where} holds no labeled pictures in its {chosen} split: {otherwise}")
    if limit is not None and limit < len(texts):
        places = sorted(random.Random(0).sample(range(len(texts)), limit))
        images, texts = [images[i] for i in places], [texts[i] for i in places]
    return images, texts, chosen


def _own_data() -> list[str]:
    """What main.py trains on where no data is named: the dataset that it made of it last, else the sources.

    Raises:
        UserError: there is neither.
    """
    from captcha_reader.dataset.folders import GENERATED, found_in, is_dataset, load_info

    folder = ROOT / "data"
    found = [str(path) for path in found_in(folder)]
    if len(found) == 1 and is_dataset(found[0]):
        return found
    drawn = str(folder / GENERATED / "synthetic-")  # by main.py, where data/ is empty
    made = [path for path in (folder / GENERATED).glob("dataset-*") if is_dataset(path)]
    sources = {path: load_info(path)["sources"] for path in made}
    made = [path for path in made if sources[path] == found or (not found and str(sources[path][0]).startswith(drawn))]
    if made:
        latest = max(made, key=lambda path: (path / "dataset.json").stat().st_mtime_ns)
        print(f"note: {latest} is measured, which main.py made of {', '.join(sources[latest])}", file=sys.stderr)
        return [str(latest)]
    if not found:
        raise UserError("there is no data in data/: put labeled pictures there, or name some by --data")
    return found


def _cleaned(sources: Sequence[str], on_rejects: Callable[[dict[str, Any]], None]) -> tuple[list[bytes], list[str]]:
    """Pictures and labels of the sources that make_dataset.py would keep."""
    from captcha_reader.dataset.sources import iter_source
    from make_dataset import NoSampleError, make_dataset

    with tempfile.TemporaryDirectory() as folder:
        try:
            info = make_dataset(DatasetConfig(sources=list(sources), out=f"{folder}/dataset", split="0/0/100"))
        except NoSampleError as error:
            _list_rejects(error.listed)
            raise UserError(error.what) from None
        shards = sorted(Path(folder).glob("dataset/test-*.parquet"))
        _tell_pseudo(info["counts"]["train"], ", ".join(sources))  # nothing else is for training
        samples = [sample for shard in shards for sample in iter_source(str(shard))]
    images, texts = [sample.image for sample in samples], [sample.text for sample in samples]
    rejects = info["rejects"]
    on_rejects(rejects)
    _list_rejects(rejects["listed"])
    if rejects["total"]:
        print(f"{rejects['total']:,} of {info['read']:,} samples were left out", file=sys.stderr)
    return images, texts


def _list_rejects(listed: Sequence[dict[str, str]]) -> None:
    for reject in listed[:LISTED]:
        detail = f": {reject['detail']}" if reject["detail"] else ""
        print(f"left out: {reject['source']}, {reject['reason']}{detail}", file=sys.stderr)


def _tell_pseudo(count: int, where: str) -> None:
    if count:
        print(f"note: {count:,} labels of {where} are a model's and typed by nobody: left out", file=sys.stderr)


def learned_from(predictor: CaptchaPredictor, data: str | Sequence[str], split: str) -> list[str]:
    """Which of the sources measured the weights have learned from, as far as their metadata tells: the same pictures,
    or others of the same folder, of which another split was made."""
    from captcha_reader.dataset.folders import is_dataset, load_info

    learned = predictor.metadata.get("provenance", {}).get("data", {})
    places = [Path(source).resolve() for source in learned.get("sources", []) if Path(source).exists()]

    def touched(source: str) -> bool:
        path = Path(source).resolve()
        return any(path.is_relative_to(place) or place.is_relative_to(path) for place in places)

    found = []
    for source in [data] if isinstance(data, str) else data:
        info = load_info(source) if is_dataset(source) else None
        if info and info["fingerprint"] == learned.get("fingerprint"):
            seen = split in ("train", "all")
        else:
            seen = touched(source) or (info is not None and any(map(touched, info["sources"])))
        found += [source] if seen else []
    return found


def main() -> int:
    """Command line."""
    config = parse_config(EvaluateConfig, "Measure a reader on labeled captchas.")
    if config.find_label_errors:
        for name in ("same_source", "alike", "characters", "length", "ignore_case"):
            if getattr(config, name):
                raise UserError(f"--{name} does not go with --find-label-errors: leave one out")
        # It trains, so it stands above this file; imported only where it is asked for.
        from label_errors import report_label_errors

        return report_label_errors(config)
    for name in ("csv", "epochs", "folds", "show"):
        if getattr(config, name) != getattr(EvaluateConfig(), name):
            raise UserError(f"--{name} goes with --find-label-errors: leave it out, or ask for these")
    alike = parse_alike(config.alike) if config.alike else []
    constraints = Constraints(config.characters, config.length, config.ignore_case, config.upper_case)
    images, texts, split = load_labeled(config.data, config.split, config.limit)
    constraints.check_labels(texts)
    predictor = CaptchaPredictor(config.checkpoint, config.device, config.threads, config.tta_views)
    say_suggested(predictor, constraints)
    outside = sorted(set("".join(texts)) - set(predictor.alphabet.characters))
    if outside:
        print(f"note: the labels have {''.join(outside)!r}, which {predictor.path} cannot read: counted as errors")
    if known := learned_from(predictor, config.data, split):
        print(f"note: {predictor.path} learned from {', '.join(known)}: of pictures it has not seen expect less")
    report, predictions = evaluate(
        predictor, images, texts, config.batch_size, same_source=config.same_source, constraints=constraints
    )
    report |= {"data": config.data, "split": split}
    if alike:
        readings = [prediction.text for prediction in predictions]
        report["alike"] = {"groups": alike, **alike_metrics(texts, readings, alike)}
    data = config.data if isinstance(config.data, str) else ", ".join(config.data)
    for name, value in (("checkpoint", predictor.path), ("data", data), ("split", split)):
        print(f"{name:<22}{value}")
    print_report(report)
    if config.json:
        write_text(config.json, json.dumps(report, indent=1))
    if config.plots:
        from captcha_reader.plots.evaluation import draw_report

        draw_report(images, texts, predictions, report, Path(config.plots))
    return 0


if __name__ == "__main__":
    run(main)
