"""A simulated typist: how many labels the order of captcha_reader/labeling saves, and what typing them costs.

    CAPTCHA_DATA=FOLDER python benchmarks/run.py typist    # all pieces that are not done yet, then the tables
    CAPTCHA_DATA=FOLDER python benchmarks/typist.py        # the next piece alone; exit code 75 while others are left
    CAPTCHA_DATA=FOLDER python benchmarks/typist.py report    # the tables of the pieces that are done

A piece is one set of captchas, one seed and one order. The typist types the true labels, a few of them wrong, into a
`LabelSession`; after 20, 50, 100 and 200 labels the reader is fine-tuned as on the page, and reads pictures that no
session has. Sessions and results lie below data/generated/benchmarks/typist, so a piece that was stopped goes on.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from results import record
from tables import REAL, ROOT, SEEDS, WORK, weights
from typist_tables import (
    DRAWS,
    Session,
    accuracy_table,
    equal_table,
    errors_tables,
    first_tables,
    keys_table,
    needed_table,
    raw_table,
)

from captcha_reader.checkpoint import read_metadata
from captcha_reader.cli import load_settings, run
from captcha_reader.config import EvaluateConfig, TrainConfig
from captcha_reader.errors import UserError
from captcha_reader.files import DEFAULT_CHECKPOINT, write_json
from captcha_reader.labeling.records import Item, Order
from captcha_reader.labeling.selection import MEASURED_EVERY, choose, features
from captcha_reader.labeling.session import EVENTS, LabelSession
from captcha_reader.labeling.sets import SET

ORDERS: tuple[Order, ...] = ("random", "unsure")  # until the first training they are the same
STEPS = (20, 50, 100, 200)  # labels learned from, as on the page
TARGETS = (0.9, 0.95, 0.98)
ERROR_RATE = 0.02  # of the labels that the typist gets wrong
FOLDS = 3  # of the search for wrong labels
SHOWN = 20  # most suspicious labels that a person looks at
MORE = 75  # exit code while pieces are left
ABOUT = (
    "A simulated typist labels sets in two orders: random throughout, and chosen, which from the first training on "
    "asks for what the model is unsure of. 2 % of the labels have a wrong character; one label in five is kept aside "
    "and not counted. After 20, 50, 100 and 200 labels the reader is fine-tuned as on the page (bf16), and reads "
    "pictures that no session has, ignoring case; a first pass ends where a session reads 95 % or has 100 labels, a "
    "second where it reads 98 % or has 200. Of the twelve real sets and captcha_v2 these are the five of 400 pictures "
    "and more that are read below 95 % without labels, and vbulletin, the median by accuracy of the six smaller ones. "
    "Labels needed: on straight lines between the steps of the mean of the seeds, with the 95 % interval of "
    "{bootstrap} bootstrap draws of seeds and pictures; `>` where the curve ends before. The second table: the labels "
    "that the chosen order takes for what the random order reads at its last step. {done} of {planned} sessions are "
    "done, in {minutes:.0f} minutes of one core; where a set is missing, they have yet to be run."
)
PRESET = ROOT / "configs" / "finetune.yaml"


class Set(NamedTuple):
    """Captchas of one source, some of them kept aside to measure on."""

    name: str
    source: Path
    pool: int  # pictures of a session, a fifth of which it keeps aside, too
    aside: int  # others to measure on
    steps: tuple[int, ...] = STEPS


SETS = [
    Set("captcha_v2", REAL / "captcha_v2", 400, 200),
    *(
        Set(name, REAL / "real" / f"{name}.parquet", 400, 200)
        for name in ("gov24_kr", "receita_federal_br", "simplecaptcha_outline_tr", "sysu_cn")
    ),
    Set("vbulletin", REAL / "real" / "vbulletin.parquet", 70, 30, (20, 50)),
]


class Piece(NamedTuple):
    """One session, until it has learned from `limit` labels or reads `enough` of the pictures right.

    With `work` "outliers" it is the first training alone, on the pictures of which the shipped reader is least sure;
    with "errors" the search for the wrong labels of the session.
    """

    of: Set
    seed: int
    order: Order
    limit: int
    enough: float = TARGETS[-1]
    work: Literal["label", "outliers", "errors"] = "label"

    @property
    def folder(self) -> Path:
        return ROOT / WORK / "typist" / weights() / f"{self.of.name}-{self.order}-{self.seed}"

    @property
    def done(self) -> bool:
        if self.work != "label":
            return (self.folder / f"{self.work}.json").is_file()
        return next_step(self) is None


def pieces() -> Iterator[Piece]:
    """All, in the order in which they tell most where time ends: every set before the next seed, few labels first."""
    for seed in SEEDS:
        for of in SETS:
            yield from (Piece(of, seed, order, 100, TARGETS[1]) for order in ORDERS)
    yield from (Piece(of, SEEDS[0], "random", STEPS[0], work="outliers") for of in SETS)
    yield from (Piece(of, SEEDS[0], "unsure", 100, work="errors") for of in SETS)
    for seed in SEEDS:
        for of in SETS:
            yield from (Piece(of, seed, order, STEPS[-1]) for order in ORDERS)


# --------------------------------------------------------------------------------------------------------------------
# The typist


@functools.cache
def labeled(source: Path) -> tuple[tuple[bytes, str], ...]:
    """Different pictures of a set, with their labels."""
    from accuracy_calculator import load_labeled

    images, texts, _ = load_labeled(str(source), "all")
    return tuple(dict(zip(map(bytes, images), texts, strict=True)).items())


def divide(of: Set, seed: int) -> tuple[list[tuple[bytes, str]], list[tuple[bytes, str]]]:
    """Pictures of the session, and those kept aside."""
    rows = labeled(of.source)
    order = np.random.default_rng(seed).permutation(len(rows))
    chosen = [rows[i] for i in order[: of.pool + of.aside]]
    return chosen[of.aside :], chosen[: of.aside]


def typed_text(id_: str, truth: str, characters: str) -> str:
    """The label as it is typed: now and then with one character wrong, always the same ones."""
    chance = random.Random(id_)
    if chance.random() >= ERROR_RATE:
        return truth
    place = chance.randrange(len(truth))
    return truth[:place] + chance.choice([c for c in characters if c != truth[place]]) + truth[place + 1 :]


def keystrokes(offered: str, confidences: Sequence[float], wanted: str) -> int:
    """Fewest keys from the box as the page fills it to the text wanted, Enter among them.

    The most doubtful character is selected where its confidence is below 0.9, so that one key replaces it; else the
    cursor stands at the end, from where one deletes back to the first mistake. Or all is selected and typed anew.
    """
    if offered == wanted:
        return 1
    anew = (1 if offered else 0) + len(wanted) + 1
    doubtful = int(np.argmin(confidences)) if len(confidences) == len(offered) > 0 else -1
    if doubtful >= 0 and confidences[doubtful] < 0.9:
        rest = len(offered) - doubtful - 1
        same = offered[:doubtful] == wanted[:doubtful] and offered[doubtful + 1 :] == wanted[len(wanted) - rest :]
        if same and len(wanted) == len(offered):
            return 2
        return anew
    first = next((i for i, (a, b) in enumerate(zip(offered, wanted, strict=False)) if a != b), None)
    first = min(len(offered), len(wanted)) if first is None else first
    return min(anew, len(offered) - first + len(wanted) - first + 1)


def open_session(piece: Piece, pool: Sequence[tuple[bytes, str]]) -> LabelSession:
    """The session of a piece; that of a chosen order begins as the random one."""
    folder = piece.folder / "session"
    if piece.order == "unsure" and not (piece.folder / "result.json").is_file():
        begin_as_random(piece)
    elif not (folder / SET).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        pictures = [(f"{i}.png", data) for i, (data, _) in enumerate(pool)]
        made = LabelSession.create(folder, pictures, piece.of.name, piece.seed, ignore_case=True, order="random")
        made.close()
    return LabelSession(folder)


def begin_as_random(piece: Piece) -> None:
    """Copy the session in random order as it was at its first training, and go on by what its model is unsure of."""
    base, first = piece._replace(order="random").folder, STEPS[0]
    shutil.rmtree(piece.folder, ignore_errors=True)
    for name in ("session", f"{first}"):
        shutil.copytree(base / name, piece.folder / name)
    info = json.loads((piece.folder / "session" / SET).read_text())
    write_json(piece.folder / "session" / SET, info | {"order": piece.order})
    events = [json.loads(line) for line in (base / "session" / EVENTS).read_text().splitlines()]
    learned = np.cumsum([not event["measured"] for event in events])
    kept_events = events[: int(np.searchsorted(learned, first)) + 1]
    (piece.folder / "session" / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in kept_events))
    session = LabelSession(piece.folder / "session")
    reader = open_reader(piece.folder / f"{first}" / "best.safetensors")
    session.add_readings(f"{first} labels", reader.predict(session.pictures()), first)
    session.close()
    found = json.loads((base / "result.json").read_text())
    steps = {"right": {step: found["right"][step] for step in ("0", f"{first}")}, "keys": {"0": found["keys"]["0"]}}
    write_json(piece.folder / "result.json", steps | {"seconds": {}})


def open_reader(checkpoint: Path) -> Any:
    """A reader on one thread, as on the page."""
    from export_model import export_onnx
    from predict import CaptchaPredictor

    onnx = checkpoint.with_suffix(".onnx")
    if not onnx.is_file():
        export_onnx(checkpoint, onnx)
    return CaptchaPredictor(onnx, threads=1)


def type_until(session: LabelSession, labels: int, reader: Any, truths: dict[str, str]) -> list[list[int]]:
    """Label until the session has so many labels to learn from.

    Returns:
        For each picture the keystrokes and whether the reading was corrected (0 or 1).
    """
    characters = "".join(sorted(set("".join(truths.values()))))
    wanted = labels - len(session.rows())
    work: list[Item] = []
    for item in session.next(len(truths)):
        if sum(not one.measured for one in work) == wanted:
            break
        work.append(item)
    offered = {item.id: (item.text, item.char_confidences) for item in work}
    if not session.has_readings:  # a random order needs readings of these alone
        found = reader.predict([item.path.read_bytes() for item in work])
        offered = {item.id: (p.text, p.char_confidences) for item, p in zip(work, found, strict=True)}
    done = []
    for item in work:
        text, confidences = offered[item.id]
        typed = typed_text(item.id, truths[item.id], characters)
        typed = text if session.same(typed, text) else typed
        done.append([keystrokes(text, confidences, typed), int(text != typed)])
        session.answer(item.id, typed)
    return done


def fine_tune(piece: Piece, labeled_rows: list[tuple[bytes, str]], name: str) -> Path:
    """The training of the tab Label: its settings, from the shipped weights."""
    from captcha_reader.web.feedback import write_rows
    from main import train_model

    out = piece.folder / name
    shutil.rmtree(out, ignore_errors=True)
    rows = write_rows(piece.folder / f"{name}.parquet", labeled_rows)
    settings = dataclasses.replace(
        load_settings(TrainConfig, PRESET),
        data=str(rows),
        out=str(out),
        init=str(DEFAULT_CHECKPOINT),
        model=read_metadata(DEFAULT_CHECKPOINT)["model"]["name"],
        mixed_precision="bf16",
        seed=piece.seed,
        threads=1,
        cpu=True,
        folds=0,
        evaluate=False,
        progress="none",
        save_every=1000,  # epochs: it is never resumed
    )
    with (piece.folder / "output.log").open("a") as log, contextlib.redirect_stdout(log):
        train_model(settings)
    return out / "best.safetensors"


def measure(reader: Any, aside: Sequence[tuple[bytes, str]]) -> str:
    """`1` for each picture that is read right but for the case of letters, `0` for each other."""
    found = reader.predict([data for data, _ in aside])
    return "".join(str(int(p.text.lower() == text.lower())) for p, (_, text) in zip(found, aside, strict=True))


def kept(piece: Piece) -> dict[str, Any]:
    """What is known of a piece: `right` by labels, `keys` by labels that the offered readings learned from."""
    path = piece.folder / "result.json"
    return json.loads(path.read_text()) if path.is_file() else {"right": {}, "keys": {}, "seconds": {}}


def next_step(piece: Piece) -> int | None:
    """The number of labels to go on to, or None where the piece is done."""
    right = kept(piece)["right"]
    for step in (0, *piece.of.steps):
        if step > piece.limit:
            break
        if str(step) not in right:
            return step
        if right[str(step)].count("1") >= piece.enough * len(right[str(step)]):
            break
    return None


def label(piece: Piece) -> None:
    """Type and train until the piece is done; what is done stays."""
    pool, aside = divide(piece.of, piece.seed)
    session = open_session(piece, pool)
    truth = dict(pool)
    truths = {path.stem: truth[path.read_bytes()] for path in session.pictures()}
    result = kept(piece)
    before = max(map(int, result["right"]), default=0)
    reader = open_reader(piece.folder / f"{before}" / "best.safetensors" if before else DEFAULT_CHECKPOINT)
    while (step := next_step(piece)) is not None:
        started = time.perf_counter()
        if step:
            result["keys"].setdefault(f"{before}", []).extend(type_until(session, step, reader, truths))
            write_json(piece.folder / "result.json", result)
            reader = open_reader(fine_tune(piece, session.rows(), f"{step}"))
            if piece.order == "unsure" and all(point.labels != step for point in session.progress().curve):
                session.add_readings(f"{step} labels", reader.predict(session.pictures()), step)
        result["right"][f"{step}"] = measure(reader, aside)
        result["seconds"][f"{step}"] = round(time.perf_counter() - started, 1)
        write_json(piece.folder / "result.json", result)
        said = f"{piece.of.name}, {piece.order}, seed {piece.seed}, {step} labels: "
        right = result["right"][f"{step}"]
        print(f"{said}{right.count('1') / len(right):.1%}, {result['seconds'][f'{step}']:.0f} s", flush=True)
        before = step
    session.close()


def find_errors(piece: Piece) -> None:
    """Look for the wrong labels among all that were typed in a session."""
    from label_errors import find_label_errors

    started = time.perf_counter()
    truth = dict(labeled(piece.of.source))
    session = LabelSession(piece.folder / "session")
    typed = piece.folder / "typed"
    shutil.rmtree(typed, ignore_errors=True)
    session.export(typed, "folder")
    truths = {path.name: truth[path.read_bytes()] for path in session.pictures()}
    session.close()
    config = EvaluateConfig(data=str(typed), find_label_errors=True, folds=FOLDS, threads=1, ignore_case=True)
    with (piece.folder / "output.log").open("a") as log, contextlib.redirect_stdout(log):
        rows = find_label_errors(config)["rows"]
    wrong = [row["label"].lower() != truths[Path(row["file"]).name].lower() for row in rows]
    found = {"labels": len(rows), "wrong": sum(wrong), "found": sum(wrong[:SHOWN])}
    seconds = round(time.perf_counter() - started, 1)
    write_json(piece.folder / "errors.json", found | {"seconds": seconds})
    print(f"{piece.of.name}: {found['found']} of {found['wrong']} wrong labels found, {seconds:.0f} s", flush=True)


def outliers(piece: Piece) -> None:
    """The first training on the pictures of which the shipped reader is least sure, spread out, in place of any."""
    pool, aside = divide(piece.of, piece.seed)
    session = LabelSession(piece.folder / "session")
    pictures = session.pictures()
    session.close()
    readings = open_reader(DEFAULT_CHECKPOINT).predict(pictures)
    found = np.array([p.confidence for p in readings]), np.stack([features(p.log_probs) for p in readings])
    reserved = -(-len(pictures) // MEASURED_EVERY)  # the session keeps the first of its order aside
    chosen = choose(*found, STEPS[0], allowed=range(reserved, len(pictures)))
    truth = dict(pool)
    characters = "".join(sorted(set("".join(truth.values()))))
    rows = [
        (data, typed_text(pictures[i].stem, truth[data], characters))
        for i in chosen
        if (data := pictures[i].read_bytes())
    ]
    reader = open_reader(fine_tune(piece, rows, "outliers"))
    write_json(piece.folder / "outliers.json", {"right": measure(reader, aside)})


WORKERS: dict[str, Callable[[Piece], None]] = {"label": label, "outliers": outliers, "errors": find_errors}


def do(piece: Piece) -> None:
    """Do one piece."""
    import torch

    torch.set_num_threads(1)
    piece.folder.mkdir(parents=True, exist_ok=True)
    WORKERS[piece.work](piece)


# --------------------------------------------------------------------------------------------------------------------
# The tables


def typist() -> None:
    """All pieces that are not done yet, each in a process of its own, then the tables of what there is.

    Raises:
        UserError: a piece failed.
    """
    code = MORE
    while code == MORE:
        code = subprocess.run([sys.executable, __file__]).returncode
    if code:
        raise UserError("a session of the typist failed: its message stands above")
    report()


def report() -> None:
    """Draw the tables of the pieces that are done."""
    sessions: list[Session] = []
    for of in SETS:
        for seed in SEEDS:
            found = {order: kept(Piece(of, seed, order, STEPS[-1])) for order in ORDERS}
            if all(STEPS[1] in map(int, result["right"]) or _enough(result["right"]) for result in found.values()):
                sessions += [Session(of.name, seed, order, result) for order, result in found.items()]
    lengths = {of.name: statistics.mean(len(text) for _, text in labeled(of.source)) for of in SETS}
    seconds = sum(sum(session.result["seconds"].values()) for session in sessions)
    record(
        "typist",
        ABOUT.format(
            bootstrap=DRAWS, done=len(sessions), planned=len(SETS) * len(SEEDS) * len(ORDERS), minutes=seconds / 60
        ),
        needed_table(sessions, TARGETS),
        equal_table(sessions),
        accuracy_table(sessions, STEPS),
        keys_table(sessions, lengths),
        *first_tables(sessions, _results("random", "outliers")),
        *errors_tables(_results("unsure", "errors")),
        raw_table(sessions),
        weights=weights(),
        commands=["python benchmarks/run.py typist"],
    )


def _results(order: Order, name: str) -> dict[str, dict[str, Any]]:
    """What was found for each set with the first seed."""
    paths = {of.name: Piece(of, SEEDS[0], order, 100).folder / f"{name}.json" for of in SETS}
    return {name: json.loads(path.read_text()) for name, path in paths.items() if path.is_file()}


def _enough(right: dict[str, str]) -> bool:
    return any(bits.count("1") >= TARGETS[1] * len(bits) for bits in right.values())


def main() -> int:
    """Do the next piece, or draw the tables of what is done."""
    if sys.argv[1:] == ["report"]:
        report()
        return 0
    waiting = [piece for piece in pieces() if not piece.done]
    if waiting:
        print(f"{len(waiting)} pieces left; next: {waiting[0].folder.name}, {waiting[0].work}", flush=True)
        do(waiting[0])
    return MORE if waiting[1:] else 0


if __name__ == "__main__":
    run(main)
