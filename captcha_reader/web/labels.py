"""The sets that are being labeled on the page: readings and trainings in the background, while a person types."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from captcha_reader.errors import UserError
from captcha_reader.labeling.reading import read_set
from captcha_reader.labeling.session import LabelSession
from captcha_reader.labeling.sets import SET
from captcha_reader.reading.constraints import Constraints, compact
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.jobs import JobQueue
from captcha_reader.web.models import Models
from captcha_reader.web.own_models import check_name

OWNER = "labels/"  # of the trainings that begin here, before the set's name
LOOK_SECONDS = 0.5  # between two looks at what is to do
log = logging.getLogger("captcha_reader")


class _Closing(Exception):
    """The program ends while pictures are read."""


@dataclass(eq=False)
class Desk:
    """One set, and what is being done for it.

    Attributes:
        id: the name of its folder.
        model: whose readings are offered.
        job: the training that runs for it.
        learned: labels that this training learns from.
        said: what happens in the background, for people.
        scheme: what the texts have in common by all readings, for people; empty where all of it was known.
    """

    id: str
    session: LabelSession
    model: str
    job: FineTuning | None = None
    learned: int = 0
    said: str = ""
    scheme: str = ""
    changed: bool = True  # since the table of labels was written
    failed: set[str] = field(default_factory=set)  # models that could not read the set


class Labels:
    """All sets below one folder.

    Args:
        folder: of the sets, each in a folder of its own; made when the first one comes.
        models: on offer.
        jobs: that trainings are queued in; None: nothing is trained.
    """

    def __init__(self, folder: str | Path, models: Models, jobs: JobQueue | None) -> None:
        self.folder, self.models, self.jobs = Path(folder), models, jobs
        self._desks: dict[str, Desk] = {}
        self._making: set[str] = set()  # names of sets whose pictures are being written
        self._lock = threading.RLock()
        self._work = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def names(self) -> list[tuple[str, str]]:
        """(what people call it, id) of the sets on the disk, the latest first."""
        found = [path.parent for path in self.folder.glob(f"*/{SET}")] if self.folder.is_dir() else []
        found.sort(key=lambda path: (path / SET).stat().st_mtime, reverse=True)
        return [(path.name, path.name) for path in found]

    def create(
        self,
        pictures: Iterable[tuple[str, bytes]],
        name: str = "",
        model: str | None = None,
        constraints: Constraints | None = None,
        on_skip: Callable[[str], None] | None = None,
    ) -> Desk:
        """Start a set; its pictures are read in the background.

        Args:
            pictures: (file name, encoded picture).
            name: of the set, as `check_name` takes it; made of the date by default.
            model: that reads it at first; the first on offer by default.
            constraints: what is known of the texts.
            on_skip: is told why a picture is left out.

        Raises:
            UserError: the name or the pictures cannot be used.
        """
        # As the models that learn from it, which are called by it, may be.
        name = check_name(name if name.strip() else f"set {datetime.now():%Y-%m-%d %H.%M.%S}")
        model, _ = self.models.path(model)
        known = {} if constraints is None else {"characters": constraints.characters, "length": constraints.length}
        ignore_case = constraints is not None and constraints.ignore_case
        seed = secrets.randbelow(2**31)
        with self._lock:
            if name in self._making or name in [taken for _, taken in self.names()]:
                raise UserError(f"there is a set {name} already: choose it from the list, or another name")
            self._making.add(name)
        try:
            session = LabelSession.create(self.folder / name, pictures, name, seed, ignore_case, known, on_skip)
            return self._take(name, session, model)
        finally:
            self._making.discard(name)

    def open(self, id_: str, model: str | None = None) -> Desk:
        """A set that is on the disk.

        Raises:
            UserError: there is none of that name, or another process has it open.
        """
        with self._lock:
            if id_ in self._desks:
                return self._desks[id_]
            if id_ not in [known for _, known in self.names()]:  # a name from outside is never made into a path
                raise UserError("there is no such set: choose one from the list")
            model, _ = self.models.path(model)
            return self._take(id_, LabelSession(self.folder / id_), model)

    def _take(self, id_: str, session: LabelSession, model: str) -> Desk:
        with self._lock:
            desk = self._desks[id_] = Desk(id_, session, model)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="labels", daemon=True)
                self._thread.start()
        self._work.set()
        return desk

    def touched(self, desk: Desk) -> None:
        """Tell the background that something was answered."""
        desk.changed = True
        self._work.set()

    def close(self) -> None:
        """End the background work, and write the tables of labels."""
        self._closing = True
        self._work.set()
        if self._thread is not None:
            self._thread.join(10)
        with self._lock:
            for desk in self._desks.values():
                try:
                    if desk.changed:
                        desk.session.write_table()
                except (OSError, UserError) as error:  # the other sets are written all the same
                    log.warning("the table of labels of %s cannot be written (%s); labels are kept", desk.id, error)
                desk.session.close()
            self._desks.clear()

    def _run(self) -> None:
        while not self._closing:
            self._work.wait(LOOK_SECONDS if any(desk.job for desk in list(self._desks.values())) else None)
            self._work.clear()
            for desk in list(self._desks.values()):
                if self._closing:
                    return
                try:
                    self._look_after(desk)
                except UserError as error:
                    desk.said = str(error)
                except Exception as error:  # a full disk, a folder that was removed
                    desk.said = f"something went wrong in the background ({type(error).__name__}); labels are kept"

    def _look_after(self, desk: Desk) -> None:
        session = desk.session
        try:
            if not session.has_readings and desk.model not in desk.failed:
                self._read(desk, desk.model, 0)
            if desk.job is not None and not desk.job.running:
                self._finish(desk, desk.job)
            if desk.job is None and self.jobs is not None and (labels := session.training_due()):
                self._train(desk, labels)
        finally:  # also where the queue is full
            if desk.changed:
                desk.changed = False  # first: what is answered meanwhile is written next
                try:
                    session.write_table()
                except Exception:
                    desk.changed = True
                    raise

    def _read(self, desk: Desk, model: str, labels: int) -> None:
        """All pictures of a set, with one model."""
        session = desk.session

        def tell(done: int) -> None:
            if self._closing:
                raise _Closing
            desk.said = f"{model} reads the pictures, {done} of {len(pictures)}"

        pictures = session.pictures()
        try:
            predictor = self.models.predictor(model)
            constraints = _known(session, predictor.alphabet.characters)
            found, scheme = read_set(predictor, pictures, constraints, tell)
        except _Closing:
            return
        except UserError:
            desk.failed.add(model)
            raise
        session.add_readings(model, found, labels)
        desk.model, desk.said, desk.scheme = session.model, "", str(scheme or "")

    def _train(self, desk: Desk, labels: int) -> None:
        if self.jobs is None:
            return
        rows = desk.session.rows()
        path = self.models.first
        start = path if path.suffix == ".safetensors" else path.with_suffix(".safetensors")
        if not start.is_file():
            desk.said = f"no model learns from the labels, for {start.name} is not there to start from; labels are kept"
            return
        desk.job = self.jobs.submit(
            rows,
            start,
            start.name,
            name=f"{desk.id[:28]} {labels} labels".lstrip("_ .-"),
            owner=f"{OWNER}{desk.id}",
            measure=False,
        )
        desk.session.training_begun(labels)  # not where the queue is full: it is tried again after the next answer
        desk.learned, desk.said = labels, f"a model learns from {labels} labels; go on typing"

    def _finish(self, desk: Desk, job: FineTuning) -> None:
        """Use the model that was trained."""
        desk.job = None
        if job.state != "done" or job.model is None:
            desk.said = f"the training on {desk.learned} labels ended: {job.note}"
            return
        names = self.models.paths()
        made = next((n for n in (f"{job.model}/best.onnx", f"{job.model}/best.safetensors") if n in names), None)
        if made is not None:
            self._read(desk, made, desk.learned)
            desk.said = f"the readings are now those of a model that learned from {desk.learned} labels"
            if desk.session.model != made:
                desk.said = (
                    f"a model learned from {desk.learned} labels, but an earlier one reads more of the pictures kept "
                    "aside: its readings stay until more labels say otherwise"
                )


def _known(session: LabelSession, characters: str) -> Constraints | None:
    """What is known of a set's texts, as far as a model of these characters can write it: one that has learned from
    few labels may lack characters that are allowed."""
    given = Constraints(session.known.get("characters"), session.known.get("length"), session.ignore_case)
    if given.allowed is not None:
        written = {*characters, *characters.lower(), *characters.upper()} if given.ignore_case else set(characters)
        allowed = "".join(c for c in given.allowed if c in written)
        given = Constraints(compact(allowed) if allowed else None, given.length, given.ignore_case)
    return given or None
