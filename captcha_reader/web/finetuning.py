"""Fine-tuning jobs: three programs one after the other.

One makes a dataset of the labeled pictures, one fine-tunes and measures by cross-validation, one exports to ONNX. All
is made in a hidden folder and moved to the other models when it is whole, so that a failure leaves everything as it
was.
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from captcha_reader.checkpoint import read_metadata
from captcha_reader.errors import UserError
from captcha_reader.reading.metrics import wilson_interval
from captcha_reader.web.job import Job, Place, State
from captcha_reader.web.labeled_zip import LEAST_PICTURES
from captcha_reader.web.own_models import Maker, free_name, write_marker
from captcha_reader.web.processes import Cancelled, call, enter

MOST_SECONDS = 3600  # that a training may take
CHECK_SECONDS = EXPORT_SECONDS = 600
KEPT = ("best.safetensors", "history.json", "metrics.json", "config.yaml")


@dataclass(eq=False)
class FineTuning(Job):
    """One fine-tuning, and what its training says of itself. `name` is that of the new model.

    Attributes:
        start: the checkpoint to start from, and what the page calls it.
        epochs: of the whole network; None for as many as suit the number of pictures.
        pictures: how many it learns from, as far as is known.
        left_out: how many of the upload were left out before the job began, by reason.
        measure: whether cross-validation says what to expect of the new model.
        plan: what the training will do, the `parts` of its event `plan`.
        history: the rows of history.json so far.
        result: `before` and `after` (figures of metrics.text_metrics), `expect` (a sentence), `left_out` and its
            `reasons`; `export` where the export failed.
        model: folder of the new model; None until there is one.
    """

    shares: ClassVar[dict[State, tuple[float, float]]] = {
        "checking": (0.0, 0.03),
        "training": (0.03, 0.95),
        "exporting": (0.95, 1.0),
    }
    titles: ClassVar[dict[str, str]] = {
        "": "Fine-tuning",
        "waiting": "Waiting",
        "done": "Fine-tuned",
        "failed": "Failed",
        "cancelled": "Stopped",
    }

    start: Path
    start_name: str
    epochs: int | None
    pictures: int
    left_out: dict[str, int] = field(default_factory=dict)
    measure: bool = True
    plan: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)
    model: str | None = None

    def run(self, place: Place) -> None:
        """Make a dataset, fine-tune and measure, publish, export."""
        enter(self, "checking", "checking the pictures")
        # A copy under its own name: what the new checkpoint says of its origin names no folder of this machine.
        start = self.start_name.replace("/", "-")
        try:
            shutil.copyfile(self.start, self.folder / start)
        except OSError:
            raise UserError(f"the model {self.start_name} is gone: choose another") from None
        architecture = read_metadata(self.folder / start)["model"]["name"]
        made = ["upload", "--out", "dataset", "--split", "100/0/0", "--workers", "1"]
        call(self, [*place.commands.dataset, *made], CHECK_SECONDS, "take fewer pictures")
        self._count_pictures()
        enter(self, "training", "starting the training")
        arguments = ["--data", "dataset", "--out", "run", "--init", start, "--model", architecture]
        arguments += ["--epochs", str(self.epochs)] if self.epochs else []
        arguments += [] if self.measure else ["--folds", "0", "--evaluate", "false"]
        arguments += ["--threads", str(place.threads)] if place.threads else []
        call(self, [*place.commands.train, *arguments], MOST_SECONDS, "take fewer pictures or epochs")
        self.model = self._publish(place.models)
        weights = place.models.resolve() / self.model / "best.safetensors"
        shard = next((self.folder / "dataset").glob("train-*.parquet"))
        arguments = ["--checkpoint", str(weights), "--data", str(shard), "--out", str(weights.with_suffix(".onnx"))]
        try:
            enter(self, "exporting", "ready to use; exporting to ONNX and comparing")
            call(self, [*place.commands.export, *arguments], EXPORT_SECONDS, "run export_model.py in a terminal")
        except UserError as error:
            self.result["export"] = str(error)
        except Cancelled:
            self.result["export"] = "the export was stopped"

    def follow(self, event: dict[str, Any]) -> None:
        """Take in what the training says (captcha_reader/progress.py lists the events)."""
        kind = event.get("event")
        if kind == "plan":
            self.plan = event["parts"]
        elif kind in ("step", "epoch"):
            self.part, self.left = max(self.part, event.get("done") or 0.0), event.get("seconds_left")
            self.place = event["part"]
            self.note = f"{self.place}, epoch {event['epoch']} of {event.get('epochs', '?')}"
            if kind == "epoch" and self.plan and self.place == self.plan[0]["name"]:
                self.history.append(event)
        elif kind == "result":
            self.part, self.left = 1.0, None
            self.result["expect"] = event.get("expect") or ""
            if report := event.get("report"):
                self.result |= _compared(report)

    def _publish(self, models: Path) -> str:
        """Move what is worth keeping to the other models, all at once; gives the folder's name there."""
        folder = self.folder / "run"
        name = self.name = free_name(models, self.name)
        building = models / f".{self.id}"
        building.mkdir(parents=True)
        try:
            for kept in KEPT:
                if (folder / kept).is_file():
                    shutil.move(folder / kept, building / kept)
            write_marker(building, Maker(self.owner, self.start_name, self.pictures))
            building.rename(models / name)
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return name

    def _count_pictures(self) -> None:
        """Take from the dataset how many pictures there are, and why others are not.

        Raises:
            UserError: there are too few.
        """
        from captcha_reader.dataset.folders import load_info

        info = load_info(self.folder / "dataset")
        self.pictures = sum(info["counts"].values())
        rejects = Counter(info["rejects"]["counts"]) + Counter(self.left_out)
        self.result |= {"left_out": rejects.total(), "reasons": dict(rejects)}
        if self.pictures < LEAST_PICTURES:
            why = ", ".join(f"{n} {reason}" for reason, n in rejects.items())
            raise UserError(
                f"{self.pictures} different pictures with a usable label are too few: {LEAST_PICTURES} are the least"
                + (f" ({rejects.total()} were left out: {why})" if why else "")
            )


def _compared(report: dict[str, Any]) -> dict[str, Any]:
    """`after`, the report's figures, and `before`, those of the starting weights on the same pictures."""
    n = report["n"]
    keys = ("n", "sequence_accuracy", "sequence_accuracy_ignore_case", "wilson_95")
    found = {"after": {key: report[key] for key in keys}}
    if "before" in report:
        found["before"] = {
            "n": n,
            "sequence_accuracy": report["before"],
            "sequence_accuracy_ignore_case": report["before_ignore_case"],
            "wilson_95": wilson_interval(round(report["before"] * n), n),
        }
    return found
