"""A set of pictures being labeled: which to ask next, what was answered, how good the reader is by now.

    session = LabelSession.create(folder, [("a.png", png_bytes), ...])
    session.add_readings("reader.onnx", predictor.predict(session.pictures()))
    item = session.next()[0]                      # a picture, and what the reader thinks it says
    session.answer(item.id, "aB3x")
    session.export(Path("labeled.parquet"))

Everything is a file in one folder: the pictures, `set.json`, `events.jsonl` (all answers, append-only) and the readings
of each model. A killed process or a closed page loses nothing that was answered.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from captcha_reader.errors import UserError
from captcha_reader.files import write_atomically, write_text
from captcha_reader.labeling.curve import Point, advise
from captcha_reader.labeling.export import Form, Row, table_text, write_parquet, write_zip
from captcha_reader.labeling.journal import Event, Journal
from captcha_reader.labeling.readings import Readings
from captcha_reader.labeling.records import (
    MAX_TEXT,
    Answer,
    Corrections,
    Item,
    Kind,
    Order,
    Progress,
    TakenOverError,
    clean_text,
)
from captcha_reader.labeling.selection import MEASURED_EVERY, choose, features, shuffled
from captcha_reader.labeling.sets import PICTURES, SET, SetInfo, write_pictures
from captcha_reader.reading.prediction import Prediction

EVENTS = "events.jsonl"
MAX_MEASURED = 200  # pictures reserved for measuring, at most
BLOCK = 10  # pictures chosen at a time; they are spread out among themselves
TRAIN_AT = (20, 50, 100, 200, 400, 800)  # labels to learn from after which a model is trained
SHEET = 24  # pictures of a sheet to accept at once
MIN_SHEET_CONFIDENCE = 0.97  # of the readings on it


@dataclass(frozen=True)
class _Past:
    """What an event changed: the last picture of it, the answers before it, and what it rejected."""

    id: str
    before: list[tuple[str, Answer | None]]
    rejected: list[str]


@dataclass
class _State:
    """What the events amount to."""

    answers: dict[str, Answer] = field(default_factory=dict)
    history: list[_Past] = field(default_factory=list)
    trained_at: int = 0  # labels to learn from when the last training was begun


class LabelSession:
    """A set of pictures being labeled. Safe to use from several threads.

    Args:
        folder: made by `create`.

    Raises:
        UserError: it is no such folder, it is damaged, or another process has it open.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        info = SetInfo.load(self.folder)
        self.name, self.seed, self.ignore_case = info.name, info.seed, info.ignore_case
        self.order, self.known = info.order, info.known
        self._items = {Path(file).stem: (self.folder / PICTURES / file, name) for file, name in info.pictures}
        self._ids = shuffled(list(self._items), self.seed)
        self._place = {id_: i for i, id_ in enumerate(self._ids)}
        # Reserved before anything is chosen: what is left after choosing the unsure ones is no fair sample.
        self._reserved = self._ids[: min(-(-len(self._ids) // MEASURED_EVERY), MAX_MEASURED)]
        self._lock = threading.RLock()
        self._tab: str | None = None
        self._queue: list[tuple[str, bool]] = []
        self._first: list[str] = []  # rejected on a sheet: asked next
        self._journal = Journal(self.folder / EVENTS)
        self._state = _State()
        for event in self._journal:
            self._apply(event)
        self._readings = self._load_readings()
        # A training that was killed, or whose readings are damaged, is due again.
        self._state.trained_at = max((readings.labels for readings in self._readings), default=0)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        pictures: Iterable[tuple[str, bytes]],
        name: str = "",
        seed: int = 0,
        ignore_case: bool = False,
        known: dict[str, Any] | None = None,
        on_skip: Callable[[str], None] | None = None,
        order: Order = "unsure",
    ) -> LabelSession:
        """Start a set.

        Args:
            folder: a new one.
            pictures: (file name, encoded picture); copies of one picture count once.
            name: for people.
            seed: of the order.
            ignore_case: whether `a` and `A` are the same answer.
            known: what is known of the captcha, such as its characters and length; kept for the caller.
            on_skip: is told why a picture is left out: it cannot be read, which is an error without it, or is a copy.
            order: from the first training on the unsure and different ones first, or a random order throughout.

        Raises:
            UserError: too few or too many pictures, one that cannot be read, or the folder exists.
        """
        folder = Path(folder)
        if (folder / SET).exists():
            raise UserError(f"{folder} exists already: open it, or choose another name")
        begun = (folder / PICTURES).exists()  # a set whose making was killed
        try:
            rows = write_pictures(folder, pictures, on_skip)
        except BaseException:
            if not begun:  # nothing is kept of what makes no set
                shutil.rmtree(folder / PICTURES, ignore_errors=True)
                with suppress(OSError):
                    folder.rmdir()
            raise
        SetInfo(name or folder.name, seed, ignore_case, order, known or {}, rows).save(folder)
        return cls(folder)

    def close(self) -> None:
        """Let other processes open the set."""
        self._journal.close()

    # Readings

    def pictures(self) -> list[Path]:
        """The files of all pictures, in the order in which `add_readings` takes their predictions."""
        return [self._items[id_][0] for id_ in self._ids]

    @property
    def has_readings(self) -> bool:
        """Whether a model has read the pictures."""
        return bool(self._readings)

    @property
    def model(self) -> str:
        """The model whose readings are offered; "" where none has read the pictures."""
        with self._lock:
            return self._readings[self._offered()].model if self._readings else ""

    def _offered(self) -> int:
        """Which readings are offered: those that are right for most pictures kept aside, of equal ones the newest.

        Few labels can mislead a model; it is then measured and not used.
        """
        aside = [(self._place[id_], answer.text) for id_, answer in self._state.answers.items() if answer.measured]
        right = [sum(self.same(r.texts[i], text) for i, text in aside) for r in self._readings]
        return max(range(len(right)), key=lambda n: (right[n], n))

    def add_readings(self, model: str, predictions: Sequence[Prediction], labels: int = 0) -> None:
        """Take what a model reads: its accuracy is a point of the curve, and unless an earlier one reads more of the
        pictures kept aside, its readings are offered.

        Args:
            model: its name.
            predictions: one for each of `pictures()`.
            labels: that it has learned from, of this set.

        Raises:
            ValueError: another number of predictions than of pictures.
        """
        if len(predictions) != len(self._ids):
            raise ValueError(f"{len(predictions)} predictions of {len(self._ids)} pictures")
        readings = Readings(
            model,
            labels,
            [p.text for p in predictions],
            np.array([p.confidence for p in predictions], np.float32),
            [list(map(float, p.char_confidences)) for p in predictions],
            np.stack([features(p.log_probs) for p in predictions]),
        )
        with self._lock:
            # Damaged files are not among the readings and keep their numbers.
            readings.number = max(map(_number_of, self._readings_files()), default=0) + 1
            readings.save(self.folder / f"readings-{readings.number - 1:03d}.json")
            self._readings.append(readings)
            self._queue.clear()

    def _load_readings(self) -> list[Readings]:
        loaded = (Readings.load(path, len(self._ids), _number_of(path)) for path in self._readings_files())
        return [readings for readings in loaded if readings is not None]

    def _readings_files(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("readings-*.json") if path.stem[len("readings-") :].isdecimal())

    # Asking

    def next(self, count: int = 1) -> list[Item]:
        """The next pictures to label, at most `count`; fewer, or none, where nearly all are done.

        They stay the next ones until they are answered, so a page can load them ahead.
        """
        with self._lock:
            open_ = [(id_, aside) for id_, aside in self._queue if id_ not in self._state.answers]
            while len(open_) < count and (block := self._next_block(len(open_), {id_ for id_, _ in open_})):
                open_ += block
            self._queue = open_
            return [self._item(id_, aside) for id_, aside in open_[:count]]

    def _next_block(self, ahead: int, queued: set[str]) -> list[tuple[str, bool]]:
        answered = self._state.answers
        free = [id_ for id_ in self._ids if id_ not in answered and id_ not in queued]
        reserved = set(self._reserved)
        measured = [id_ for id_ in free if id_ in reserved]
        teaching = self._chosen([id_ for id_ in free if id_ not in reserved])
        done = sum(answer.kind == "typed" for answer in answered.values()) + ahead
        block: list[tuple[str, bool]] = []
        while len(block) < BLOCK and (measured or teaching):
            turn = (done + len(block)) % MEASURED_EVERY == MEASURED_EVERY - 1
            aside = bool(measured) and (turn or not teaching)
            block.append(((measured if aside else teaching).pop(0), aside))
        return block

    def _chosen(self, free: list[str]) -> list[str]:
        """The next ones to learn from, best first."""
        first = [id_ for id_ in self._first if id_ in free]
        # A reader that has learned from none of these captchas is a poor judge of what they teach (findings.md).
        if self.order == "random" or not self._readings or not self._readings[-1].labels:
            return first + [id_ for id_ in free if id_ not in first]
        now = self._readings[-1]
        typed = [self._place[id_] for id_, answer in self._state.answers.items() if answer.kind == "typed"]
        allowed = [self._place[id_] for id_ in free if id_ not in first]
        return first + [self._ids[i] for i in choose(now.confidences, now.features, BLOCK, [*typed[-100:]], allowed)]

    def _item(self, id_: str, aside: bool = False) -> Item:
        path, name = self._items[id_]
        if not self._readings:
            return Item(id_, name, path, measured=aside)
        now, i = self._readings[self._offered()], self._place[id_]
        chars = tuple(now.char_confidences[i])
        return Item(id_, name, path, now.texts[i], float(now.confidences[i]), chars, aside, now.number)

    def item(self, id_: str) -> Item:
        """Any picture of the set.

        Raises:
            UserError: there is none of that id.
        """
        self._check(id_)
        return self._item(id_, id_ in self._reserved)

    def _check(self, id_: str) -> None:
        if id_ not in self._items:
            raise UserError("this picture is not of this set: reload the page")

    # Answering

    def claim(self, tab: str) -> bool:
        """Make a tab the one that labels; True where it takes the place of another, which is told when it answers."""
        with self._lock:
            other = self._tab not in (None, tab)
            self._tab = tab
            return other

    def release(self, tab: str) -> None:
        """Forget a tab that is closed, so that the next one is told of no other."""
        with self._lock:
            if self._tab == tab:
                self._tab = None

    def check_tab(self, tab: str | None) -> None:
        """Whether a tab may answer.

        Raises:
            TakenOverError: another one has taken over.
        """
        if tab is not None and self._tab not in (None, tab):
            raise TakenOverError("this set was opened in another tab: go on there, or take it over here")

    def answer(
        self,
        id_: str,
        text: str,
        tab: str | None = None,
        seconds: float | None = None,
        offered: tuple[str, int] | None = None,
    ) -> None:
        """Keep what a picture says; when this returns, it is on the disk. An earlier answer is replaced.

        Args:
            id_: the picture.
            text: what it says.
            tab: that answers, where there may be several.
            seconds: that it took.
            offered: `text` and `model` of the item as it was shown; those of now by default.

        Raises:
            UserError: the text cannot be a label, the picture is none of the set, or it cannot be written.
            TakenOverError: another tab has taken over.
        """
        text = clean_text(text)
        with self._lock:
            item = self.item(id_)
            suggested, model = offered or (item.text, item.model)
            event: Event = {"do": "label", "id": id_, "text": text, "suggested": suggested, "measured": item.measured}
            event["model"] = model if any(readings.number == model for readings in self._readings) else 0
            if seconds is not None:
                event["seconds"] = round(seconds, 2)
            self._add(event, tab)

    def skip(self, id_: str, tab: str | None = None) -> None:
        """Leave a picture out for now; it does not come again. Raises as `answer`."""
        self._mark("skip", id_, tab)

    def unreadable(self, id_: str, tab: str | None = None) -> None:
        """Say that nobody can read a picture. Raises as `answer`."""
        self._mark("unreadable", id_, tab)

    def _mark(self, what: str, id_: str, tab: str | None) -> None:
        with self._lock:
            self._check(id_)
            self._add({"do": what, "id": id_}, tab)

    def sheet(self, count: int = SHEET) -> list[Item]:
        """Pictures of certain and similar readings, to be accepted at once; none of those reserved for measuring."""
        with self._lock:
            if not self._readings:
                return []
            now = self._readings[self._offered()]
            taken = self._state.answers.keys() | set(self._reserved) | set(self._first)
            sure = [
                i
                for i, id_ in enumerate(self._ids)
                if id_ not in taken and 0 < len(now.texts[i]) <= MAX_TEXT and now.confidences[i] >= MIN_SHEET_CONFIDENCE
            ]
            if not sure:
                return []
            likeness = now.features[sure] @ now.features[sure[0]]
            order = sorted(range(len(sure)), key=lambda j: (now.texts[sure[j]] != now.texts[sure[0]], -likeness[j]))
            return [self._item(self._ids[sure[j]]) for j in order[:count]]

    def accept(
        self,
        ids: Sequence[str],
        wrong: Sequence[str] = (),
        tab: str | None = None,
        texts: Sequence[str] | None = None,
    ) -> int:
        """Take the readings of a sheet as pseudo-labels, but for the wrong ones, which are asked next. A picture that
        has an answer by now keeps it.

        Args:
            ids: of the pictures on the sheet.
            wrong: those of them whose reading is wrong.
            tab: that answers, where there may be several.
            texts: the readings as the sheet showed them, one for each of `ids`; those of now by default.

        Returns:
            How many were accepted. Raises as `answer`.
        """
        with self._lock:
            for id_ in (*ids, *wrong):
                self._check(id_)
            if texts is not None and len(texts) != len(ids):
                raise UserError("the sheet has another number of readings than of pictures: reload the page")
            shown = [self._item(id_).text for id_ in ids] if texts is None else map(clean_text, texts)
            taken = self._state.answers.keys() | set(self._reserved) | set(wrong)
            rows = [(id_, text) for id_, text in zip(ids, shown, strict=True) if text and id_ not in taken]
            self._add({"do": "accept", "rows": rows, "wrong": list(wrong)}, tab)
            rejected = [(id_, id_ in self._reserved) for id_ in wrong]
            self._queue = [*rejected, *(pair for pair in self._queue if pair[0] not in wrong)]
            return len(rows)

    def undo(self, tab: str | None = None) -> str | None:
        """Take the last answer back; gives the id of its picture, which is asked next, or None where there is none."""
        with self._lock:
            if not self._state.history:
                return None
            id_ = self._state.history[-1].id
            self._add({"do": "undo"}, tab)
            aside = id_ in self._reserved
            self._queue = [(id_, aside), *(pair for pair in self._queue if pair[0] != id_)]
            return id_

    def _add(self, event: Event, tab: str | None) -> None:
        self.check_tab(tab)
        event["at"] = round(time.time(), 1)
        self._journal.append(event)
        self._apply(event)

    def _apply(self, event: Event) -> None:
        """Change the state as an event says. Events of a later version that are unknown here change nothing."""
        state, do = self._state, event.get("do")
        try:
            if do == "label":
                model = int(event.get("model", 0))
                answer = Answer("typed", event["text"], bool(event["measured"]), event["suggested"], model)
                self._set([(event["id"], answer)])
            elif do in ("skip", "unreadable"):
                self._set([(event["id"], Answer("skipped" if do == "skip" else "unreadable"))])
            elif do == "accept":
                rejected = [id_ for id_ in event["wrong"] if id_ not in self._first]
                self._set([(id_, Answer("accepted", text, suggested=text)) for id_, text in event["rows"]], rejected)
                self._first += rejected
            elif do == "undo" and state.history:
                past = state.history.pop()
                self._first = [id_ for id_ in self._first if id_ not in past.rejected]
                for id_, before in past.before:
                    if before is None:
                        state.answers.pop(id_, None)
                    else:
                        state.answers[id_] = before
            elif do == "train":
                state.trained_at = int(event["labels"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{self._journal.path} has a damaged event ({event!r:.80}): correct or delete it") from None

    def _set(self, rows: list[tuple[str, Answer]], rejected: Sequence[str] = ()) -> None:
        before = [(id_, self._state.answers.get(id_)) for id_, _ in rows]
        self._state.answers.update(rows)
        if changed := [*rejected, *(id_ for id_, _ in rows)]:
            self._state.history.append(_Past(changed[-1], before, list(rejected)))

    # Learning and measuring

    def answers(self) -> dict[str, Answer]:
        """All answers by the picture's id."""
        with self._lock:
            return dict(self._state.answers)

    def rows(self, measured: bool = False, accepted: bool = True) -> list[tuple[bytes, str]]:
        """Labeled pictures to learn from (typed, and accepted unless left out), or those kept aside to measure on."""
        return [
            (self._items[id_][0].read_bytes(), answer.text)
            for id_, answer in self.answers().items()
            if answer.text and answer.measured == measured and (accepted or answer.kind == "typed")
        ]

    def training_due(self) -> int | None:
        """The number of labels to learn from for which a training is due now, or None."""
        with self._lock:
            labels = self._count("typed") - sum(answer.measured for answer in self._state.answers.values())
            due = max((n for n in TRAIN_AT if n <= labels), default=0)
            return labels if due > self._state.trained_at else None

    def training_begun(self, labels: int) -> None:
        """Note that a model learns from that many labels now."""
        with self._lock:
            self._add({"do": "train", "labels": labels}, None)

    def _count(self, kind: Kind) -> int:
        return sum(answer.kind == kind for answer in self._state.answers.values())

    def same(self, a: str, b: str) -> bool:
        """Whether two texts are the same answer in this set."""
        return a.casefold() == b.casefold() if self.ignore_case else a == b

    def progress(self) -> Progress:
        """Where the set stands; the curve is measured on the pictures kept aside alone."""
        with self._lock:
            answers = self._state.answers
            typed = [answer for answer in answers.values() if answer.kind == "typed"]
            offered = [[answer for answer in typed if answer.model == r.number] for r in self._readings]
            aside = [(self._place[id_], answer.text) for id_, answer in answers.items() if answer.measured]
            curve = [
                Point(r.labels, sum(self.same(r.texts[i], text) for i, text in aside), len(aside))
                for r in self._readings
            ]
            return Progress(
                len(self._ids),
                len(typed),
                len(aside),
                self._count("accepted"),
                self._count("skipped"),
                self._count("unreadable"),
                self._corrected(typed),
                curve,
                [
                    Corrections(readings.labels, self._corrected(answers), len(answers))
                    for readings, answers in zip(self._readings, offered, strict=True)
                    if answers
                ],
                advise(curve, len(typed) - len(aside)),
            )

    def _corrected(self, answers: Iterable[Answer]) -> int:
        return sum(not self.same(answer.text, answer.suggested) for answer in answers)

    # Export

    def write_table(self) -> Path | None:
        """Write `labels.csv` beside the pictures, which makes the set's folder a source for make_dataset.py; None where
        nothing is labeled, and then there is no such file."""
        rows, table = self._labeled(accepted=True), self.folder / "labels.csv"
        if not rows:
            table.unlink(missing_ok=True)  # its labels were taken back
            return None
        named = [(path.relative_to(self.folder).as_posix(), text, source) for path, text, source in rows]
        return write_text(table, table_text(named))

    def _labeled(self, accepted: bool) -> list[Row]:
        """Picture, label, and who gave it (`person` or `model`)."""
        return [
            (self._items[id_][0], answer.text, "person" if answer.kind == "typed" else "model")
            for id_, answer in self.answers().items()
            if answer.text and (accepted or answer.kind == "typed")
        ]

    def export(self, out: Path, form: Form = "parquet", accepted: bool = True) -> int:
        """Write the labeled pictures as a source for make_dataset.py.

        Args:
            out: a parquet file, a new folder (pictures and `labels.csv`), or a zip file of such a folder.
            form: which of these.
            accepted: with the pseudo-labels; a column `source` tells them (`model`) from the typed ones (`person`).

        Returns:
            The number of pictures.

        Raises:
            UserError: nothing is labeled yet, a picture is gone, or `out` cannot be written.
        """
        rows = self._labeled(accepted)
        if not rows:
            raise UserError("nothing is labeled yet: label a picture first")
        if form == "folder" and out.exists():
            raise UserError(f"{out} exists already: choose another name")
        try:
            if form == "parquet":
                write_parquet(out, rows)
            elif form == "zip":
                write_atomically(out, lambda temporary: write_zip(temporary, rows))
            else:
                for path, _, _ in rows:
                    write_atomically(out / path.name, partial(shutil.copyfile, path))
                write_text(out / "labels.csv", table_text([(path.name, text, source) for path, text, source in rows]))
        except FileNotFoundError as error:
            raise UserError(f"{error.filename} is gone: put it back, its label is kept") from None
        except OSError as error:
            raise UserError(f"{out} cannot be written ({error.strerror or error}): make room and try again") from None
        return len(rows)


def _number_of(path: Path) -> int:
    """Of the model whose readings are in a file; the first is 1."""
    return int(path.stem.removeprefix("readings-")) + 1
