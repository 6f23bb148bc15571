"""What the tabs share: the models, the corrected readings and the jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from captcha_reader.errors import UserError
from captcha_reader.files import ROOT
from captcha_reader.web import labels
from captcha_reader.web.feedback import Feedback
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.job import Commands, Job
from captcha_reader.web.jobs import JobQueue, Kind
from captcha_reader.web.labels import Labels
from captcha_reader.web.models import Models
from captcha_reader.web.own_models import label_of, may_change

TORCH_MISSING = (
    "Models in .safetensors files and fine-tuning need torch, which is not installed: pip install -r requirements.txt"
)


@dataclasses.dataclass
class Workshop:
    """What the tabs share.

    Attributes:
        models: on offer.
        feedback: the corrected readings.
        jobs: fine-tunings and measurements.
        labels: the sets that are being labeled.
        read_only: nothing is kept: no fine-tuning, no corrections, no download, no change of models.
        local: the page serves this machine alone.
        privacy: where uploads go, in a sentence.
    """

    models: Models
    feedback: Feedback
    jobs: JobQueue
    labels: Labels
    read_only: bool = False
    local: bool = True
    privacy: str = "Everything stays on this machine."

    @classmethod
    def build(
        cls,
        models: Models,
        data: str | Path = ROOT / "data",
        commands: Commands | None = None,
        **settings: Any,
    ) -> Workshop:
        """With its folders below `data`; none is made yet.

        Args:
            models: on offer.
            data: folder for corrections and for jobs that run.
            commands: what jobs run; without them nothing can be fine-tuned or measured.
            settings: the attributes `read_only`, `local` and `privacy`.
        """
        folder = Path(data)
        queue = JobQueue(models.folder, folder / ".jobs", commands or Commands(), models.threads)
        trained = queue if queue.commands.train and models.torch else None
        return cls(models, Feedback(folder / "feedback"), queue, Labels(folder / "labels", models, trained), **settings)

    def close(self) -> None:
        """End what runs in the background, at the end of the program."""
        self.labels.close()
        self.jobs.close()

    def choices(self) -> list[tuple[str, str]]:
        """The models to choose from: what is shown, and the name."""
        return [(label_of(name), name) for name in self.models.paths()]

    def label(self, name: str | None) -> str:
        """What the page calls a model, by default the first.

        Raises:
            UserError: there is none of that name.
        """
        return label_of(self.models.path(name)[0])

    def trainable(self, name: str | None) -> tuple[str, Path]:
        """The .safetensors file of a model: itself, or for an .onnx the one beside it.

        Raises:
            UserError: there is none.
        """
        chosen, path = self.models.path(name)
        if path.suffix == ".safetensors":
            return chosen, path
        twin = path.with_suffix(".safetensors")
        names = {p.resolve(): n for n, p in self.models.paths().items()}
        if twin.resolve() in names:
            return names[twin.resolve()], twin
        raise UserError(f"{chosen} cannot be fine-tuned, since an .onnx file is final: choose a .safetensors model")

    def may_change(self, name: str | None, owner: str) -> bool:
        """Whether a session may rename or delete a model."""
        return not self.read_only and bool(name) and may_change(self.models.folder, str(name), owner, self.local)

    def job_for(self, owner: str, kind: type[Kind]) -> Kind | None:
        """The job of a kind to show a session: its own latest, or the one that runs."""
        own, first = self.jobs.of(owner, kind), self.jobs.running()
        running = first if isinstance(first, kind) else None
        return own if own and (own.running or not running) else running or own

    def stop_job(self, owner: str, kind: type[Job], nothing: str) -> None:
        """Stop the job of a kind that a session sees running. One of the tab Label is everybody's, as its sets are.

        Args:
            owner: the secret of the session.
            kind: of the job.
            nothing: what to say where none runs.

        Raises:
            UserError: none runs, or another session started it.
        """
        job = self.job_for(owner, kind)
        if job is None or not job.running:
            raise UserError(nothing)
        self.jobs.cancel(job, job.owner if job.owner.startswith(labels.OWNER) else owner)

    def downloads(self, job: FineTuning | None) -> dict[str, str]:
        """Links to the files of a job's model, by the names that the route knows."""
        if job is None or job.model is None or self.read_only:
            return {}
        names = self.models.paths()
        both = {"Checkpoint": f"{job.model}/best.safetensors", "ONNX": f"{job.model}/best.onnx"}
        return {label: model_url(name) for label, name in both.items() if name in names}

    def model_of(self, job: FineTuning) -> str | None:
        """The name on offer of a job's model, the quicker file first; None where it is gone."""
        names = self.models.paths()
        both = [f"{job.model}/best.onnx", f"{job.model}/best.safetensors"]
        return next((name for name in both if name in names), None)

    def renamed(self, old: str, new: str) -> None:
        """Tell the jobs that the folder of a model has another name."""
        for job in self.jobs.jobs():
            if isinstance(job, FineTuning) and job.model == old:
                job.model = job.name = new


def model_url(name: str) -> str:
    """Where the route gives a model's file, relative to the page."""
    return f"models/{quote(name)}"


def upload_bytes(image: str | Path | bytes) -> bytes:
    """The bytes of an upload.

    Raises:
        UserError: it was deleted, as uploads are after an hour.
    """
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError:
        raise UserError("the picture is gone: upload it again") from None


def first_or(names: Sequence[tuple[str, str]], value: str | None) -> str | None:
    """A chosen name where it is still on offer, else the first."""
    offered = [name for _, name in names]
    return value if value in offered else offered[0] if offered else None
