"""Make a run's weights ready to ship: half precision, with what they have seen and the figures measured of them.

    python benchmarks/ship.py RUN/best.safetensors saved_models/reader.safetensors --seen "TEXT" NAME=REPORT.json ...

REPORT.json is what `accuracy_calculator.py --json` wrote; NAME says on which pictures. The provenance of the weights
that the run started from goes along. With `--average`, the weights lie between those it started from and the run's, at
`--blend`: a run on other pictures then costs less of what was learned before (Wortsman et al.,
2022, arXiv:2109.01903).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the scripts live one folder up

from captcha_reader.cli import run
from captcha_reader.errors import UserError
from model import blend, load_model, read_metadata, save_checkpoint

KEPT = ("n", "sequence_accuracy", "sequence_accuracy_ignore_case", "character_accuracy", "cer", "wilson_95")
LOCAL = ("out", "resume", "threads", "workers", "cpu", "tracker", "evaluate", "folds")  # settings that shaped nothing


def origin(path: Path) -> list[dict[str, Any]]:
    """Provenance of a checkpoint and of those it started from, the first run first."""
    provenance = dict(read_metadata(path)["provenance"])
    if "runs" in provenance:  # shipped before
        return provenance["runs"]
    config = provenance["config"] = {k: v for k, v in provenance["config"].items() if k not in LOCAL}
    if config.get("teacher"):
        provenance["teacher"] = origin(Path(config["teacher"]))[-1]
    start = Path(str(config.get("init")))
    return [*(origin(start) if start.suffix == ".safetensors" else []), provenance]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Make a run's weights ready to ship.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seen", required=True, help="what these weights were trained on, in a sentence")
    parser.add_argument("--average", type=Path, help="the checkpoint that the run started from")
    parser.add_argument("--blend", type=float, default=0.5, help="interpolation weight, 0 (the start) to 1 (the run)")
    parser.add_argument("reports", nargs="*", metavar="NAME=REPORT.json")
    arguments = parser.parse_intermixed_args()
    metrics = {}
    for item in arguments.reports:
        name, _, path = item.partition("=")
        try:
            report = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{item} cannot be used ({error}): give NAME=REPORT.json") from None
        metrics[name] = {key: report[key] for key in KEPT}
    model = load_model(arguments.checkpoint)
    if arguments.average:
        model.load_state_dict(blend(load_model(arguments.average), model, arguments.blend))
    provenance = {"seen": arguments.seen, "runs": origin(arguments.checkpoint)}
    save_checkpoint(model, arguments.out, metrics=metrics, provenance=provenance, half=True)
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    run(main)
