"""Measuring jobs: strength.py on an uploaded zip, its curve as it grows, and its report."""

from __future__ import annotations

import json
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from captcha_reader.errors import UserError
from captcha_reader.files import write_text
from captcha_reader.images import IMAGE_SUFFIXES
from captcha_reader.strength.sample import LeftOut
from captcha_reader.strength.settings import LEAST_LABELED, parse_duration
from captcha_reader.web.feedback import write_rows
from captcha_reader.web.job import Job, Place, State
from captcha_reader.web.labeled_zip import MOST_PICTURES, labeled_pictures
from captcha_reader.web.processes import call, enter
from captcha_reader.web.uploads import PictureZip

GRACE_SECONDS = 300  # beyond the budget: a training that has begun, and the report
REPORTS = ("report.html", "report.json")
LEFT_OUT = "left_out.json"


@dataclass(frozen=True)
class Asked:
    """What a measurement is to do, as the settings of strength.py.

    Attributes:
        labels: numbers of labels, separated by commas; "0": no training.
        budget: such as `10m`.
        unlabeled: the pictures have no labels.
        characters, length: what is known of the texts; "" where nothing is.
    """

    labels: str = "0,10,30,100,300"
    budget: str = "10m"
    unlabeled: bool = False
    characters: str = ""
    length: str = ""
    ignore_case: bool = False

    def arguments(self) -> list[str]:
        """As flags."""
        words = [f"--labels={self.labels}", f"--budget={self.budget}"]
        words += [f"--{name}=true" for name in ("unlabeled", "ignore_case") if getattr(self, name)]
        words += [f"--{name}={getattr(self, name)}" for name in ("characters", "length") if getattr(self, name)]
        return words


@dataclass(eq=False)
class StrengthJob(Job):
    """The measurement of one captcha. `name` is seen by every visitor, `file` by its owner alone.

    Attributes:
        start: the checkpoint that reads and learns, and what the page calls it.
        asked: what is measured.
        file: what the owner's zip is called, for the report.
        pictures: how many there are.
        key: a secret, in the address of the report.
        plan: the numbers of labels that are tried.
        points: the rows of the attack curve so far.
        verdict: of the report; empty before.
        partial: why the report is not whole; "" where it is.
        reports: the files of the report by their names; empty before.
    """

    shares: ClassVar[dict[State, tuple[float, float]]] = {"measuring": (0.0, 1.0)}
    titles: ClassVar[dict[str, str]] = {
        "": "Measuring",
        "waiting": "Waiting",
        "done": "Measured",
        "failed": "Failed",
        "cancelled": "Stopped",
    }
    after_stop: ClassVar[str] = "what was measured until then stands here, without a report"

    start: Path
    start_name: str
    asked: Asked
    file: str
    pictures: int = 0
    key: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    plan: list[int] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=list)
    verdict: dict[str, str] = field(default_factory=dict)
    partial: str = ""
    reports: dict[str, bytes] = field(default_factory=dict)

    def fill(self, source: str | Path) -> None:
        """Put the pictures of a zip into the job's folder, as all uploads are checked.

        Raises:
            UserError: it cannot be used, or has too few labeled pictures.
        """
        upload = self.folder / "upload"
        left_out: Mapping[str, int] = {}
        if self.asked.unlabeled:
            pictures = PictureZip(source, pictures=MOST_PICTURES + 200, entry_bytes=5_000_000)
            if not 0 < len(pictures) <= MOST_PICTURES:
                raise UserError(f"the zip has {len(pictures):,} pictures: 1 to {MOST_PICTURES:,} are taken")
            upload.mkdir(parents=True)
            counted = LeftOut()
            counted.add_others(Counter(Path(name).suffix.lower() or Path(name).name for name in pictures.others))
            for i, (name, data) in enumerate(pictures.with_damaged(), 1):
                if isinstance(data, UserError):
                    counted.reasons["unreadable image"] += 1
                    continue
                suffix = Path(name).suffix.lower()  # never a name from outside
                (upload / f"{i:05}{suffix if suffix in IMAGE_SUFFIXES else '.png'}").write_bytes(data)
                self.pictures += 1
            left_out = counted.reasons
        else:
            rows, left_out = labeled_pictures(source)
            if len(rows) < LEAST_LABELED:
                raise UserError(
                    f"{len(rows)} labeled pictures are too few: {LEAST_LABELED} are the least, half of them to measure "
                    "on; or tick that it has no labels"
                )
            write_rows(upload / "rows.parquet", rows)
            self.pictures = len(rows)
        write_text(self.folder / LEFT_OUT, json.dumps(left_out))

    def run(self, place: Place) -> None:
        """Measure, and keep the report."""
        enter(self, "measuring", "starting")
        start = self.start_name.replace("/", "-")  # a copy: the report names no folder of this machine
        try:
            shutil.copyfile(self.start, self.folder / start)
        except OSError:
            raise UserError(f"the model {self.start_name} is gone: choose another") from None
        words = [f"--name={self.file}", f"--left_out={LEFT_OUT}", "--checkpoint", start, *self.asked.arguments()]
        words += ["--threads", str(place.threads)] if place.threads else []
        command = [*place.commands.strength, "--data", "upload", "--out", "report", "--progress", "json", *words]
        seconds = int(parse_duration(self.asked.budget)) + GRACE_SECONDS
        call(self, command, seconds, "take fewer pictures, or fewer labels")
        try:
            self.reports = {name: (self.folder / "report" / name).read_bytes() for name in REPORTS}
        except OSError:
            raise UserError("the report could not be written: this machine has no room left") from None

    def follow(self, event: dict[str, Any]) -> None:
        """Take in what strength.py says (captcha_reader/strength/progress.py lists the events)."""
        kind = event.get("event")
        if kind == "plan":
            self.plan = event["labels"]
        elif kind == "step":
            self.part, self.left = max(self.part, event.get("done") or 0.0), event.get("seconds_left")
            self.note = self.place = event["doing"]
        elif kind == "point":
            self.points = sorted([*self.points, event], key=lambda row: row["labels"])
        elif kind == "result":
            self.part, self.left = 1.0, None
            # What to do about it on the command line is not what to do here.
            self.verdict, self.partial = event["verdict"], event["partial"].partition(";")[0]
            self.note = "writing the report"
