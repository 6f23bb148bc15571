"""What the buttons of the page do, called in this process: the sentences for what cannot be, and that nothing is lost.

tests/test_interface.py presses the same buttons in a browser.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import zipped

from captcha_reader.labeling.session import TRAIN_AT
from captcha_reader.reading.constraints import Constraints
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.job import Commands
from captcha_reader.web.jobs import JobQueue
from captcha_reader.web.knobs import OWN_FONTS, style_values
from captcha_reader.web.own_models import Maker, write_marker
from captcha_reader.web.page import build_demo
from captcha_reader.web.strength_job import StrengthJob
from captcha_reader.web.tabs import known as line_of_known
from captcha_reader.web.tabs.model import model_card
from captcha_reader.web.tabs.teach import job_card
from captcha_reader.web.workshop import Workshop
from interface import open_models

NOTHING = ("", "", False)  # a line "What do you know of it?" that is empty


@pytest.fixture(scope="module")
def page(reader: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The page's functions by `page(tab, name)`, its workshop, and the folder of its models."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "models" / "own").mkdir(parents=True)
    for name in ("reader.safetensors", "own/best.safetensors"):
        shutil.copy(reader, folder / "models" / name)
    shutil.copy(exported, folder / "models" / "reader.onnx")
    write_marker(folder / "models" / "own", Maker("me", "reader.safetensors", 40))
    models = open_models(folder / "models", threads=1)
    shop = Workshop.build(models, folder / "data", Commands(["a"], ["b"], ["c"], ["d"]))
    demo = build_demo(shop, folder / "nowhere")
    yield SimpleNamespace(shop=shop, models=models, folder=folder, press=lambda tab, name: button(demo, tab, name))
    shop.close()


def button(demo: Any, tab: str, name: str) -> Callable[..., Any]:
    """The function of a tab, the first of that name."""
    found = (f.fn for f in demo.fns.values() if f.fn is not None and f.fn.__module__.endswith(f"tabs.{tab}"))
    return next(fn for fn in found if fn.__qualname__.endswith(f".{name}"))


@pytest.fixture
def idle(page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[JobQueue]:
    """The page's queue, whose jobs wait for ever."""
    monkeypatch.setattr(JobQueue, "_run", lambda self: None)
    yield page.shop.jobs
    for job in page.shop.jobs.jobs():
        shutil.rmtree(job.folder, ignore_errors=True)
    page.shop.jobs._jobs.clear()
    page.shop.jobs._finished.clear()
    page.shop.jobs._thread = None


@pytest.fixture
def labeled(captchas: list[tuple[bytes, str]], tmp_path: Path) -> str:
    """A zip of 40 labeled captchas."""
    (tmp_path / "mine.zip").write_bytes(zipped({f"{text}_{i}.png": png for i, (png, text) in enumerate(captchas)}))
    return str(tmp_path / "mine.zip")


def skipped(value: Any) -> bool:
    """Whether a part of the page stays as it is."""
    return isinstance(value, dict) and value == {"__type__": "update"}


# --------------------------------------------------------------------------------------------------------------------
# Label


def test_a_set_is_begun_and_opened_and_what_was_left_out_is_said(
    page: SimpleNamespace, labeled: str, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    begin, go_on, offer = (page.press("label", name) for name in ("begin", "go_on", "offer"))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    said, chosen, panel = begin([labeled, str(tmp_path / "bad.png")], "", "mine", None, "a-d", "2-3", False)
    assert said == "" and chosen.value == "mine" and chosen.visible and skipped(panel)
    assert page.shop.labels.open("mine").session.known == {"characters": "a-d", "length": "2-3"}
    said, new, panel = go_on("mine", None)
    assert "1 left out: " in said and "bad.png" in said and "Everything typed is kept" in said
    assert not new.visible and 'data-set="mine"' in panel
    assert "left out" not in go_on("mine", None)[0], "it is said once"
    before = page.shop.labels.folder
    try:
        page.shop.labels.folder = tmp_path / "elsewhere" / "labels"
        assert "is kept in elsewhere/labels, a source" in go_on("mine", None)[0]
    finally:
        page.shop.labels.folder = before
    assert [choice[1] for choice in offer().choices] == ["", "mine"]
    said, new, panel = go_on("", None)
    assert said == "" and new.visible and 'data-set="mine"' not in panel
    said, new, _ = go_on("nowhere", None)
    assert "There is no such set: choose one from the list" in said and new.visible
    said, *_ = begin([labeled], "", "mine", None, *NOTHING)
    assert "There is a set mine already: choose it from the list, or another name" in said


@pytest.mark.parametrize(
    ("place", "title", "characters", "words"),
    [
        ("", "set", "", "There are no captchas yet: drop some, or a zip of them"),
        ("nowhere", "set", "", "There is no folder nowhere: check its name"),
        ("empty", "set", "", "There is no picture in empty"),
        ("empty", "../out", "", "The name cannot be used"),
        ("empty", "set", "z-a", "characters"),
        ("empty", "set", "xyz", "cannot"),
    ],
)
def test_what_makes_no_set_is_one_sentence_and_leaves_no_folder(
    place: str, title: str, characters: str, words: str, page: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    before = page.shop.labels.names()
    given = str(tmp_path / place) if place else ""
    said, chosen, panel = page.press("label", "begin")(None, given, title, None, characters, "", False)
    assert words in said and str(tmp_path) not in said
    assert skipped(chosen) and skipped(panel) and page.shop.labels.names() == before


def test_too_few_pictures_say_what_was_left_out_of_them(page: SimpleNamespace, tmp_path: Path) -> None:
    for i in range(7):
        (tmp_path / f"{i}.png").write_bytes(b"no picture")
    said, *_ = page.press("label", "begin")(None, str(tmp_path), "few", None, *NOTHING)
    assert "These are 0 different pictures: 10 are the least (7 left out: " in said
    assert "0.png" in said and "; and 2 more)" in said and not (page.shop.labels.folder / "few").exists()


def test_a_folder_of_this_machine_is_taken_with_all_in_it_that_is_a_picture(
    page: SimpleNamespace, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    (tmp_path / "in" / "deep" / "folder.png").mkdir(parents=True)
    for i, (png, _) in enumerate(captchas[:12]):
        (tmp_path / "in" / "deep" / f"{i}.png").write_bytes(png)
    (tmp_path / "in" / "notes.txt").write_text("none")
    said, chosen, _ = page.press("label", "begin")(None, str(tmp_path / "in"), "from here", None, *NOTHING)
    assert said == "" and chosen.value == "from here"
    assert len(page.shop.labels.open("from here").session.pictures()) == 12


def test_a_damaged_entry_of_a_zip_is_left_out_and_named(
    page: SimpleNamespace, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    data = zipped({f"{i}.png": png for i, (png, _) in enumerate(captchas[:12])}, zipfile.ZIP_STORED)
    place = data.index(captchas[5][0])
    (tmp_path / "a.zip").write_bytes(data[:place] + bytes(40) + data[place + 40 :])
    said, chosen, _ = page.press("label", "begin")([str(tmp_path / "a.zip")], "", "damaged", None, *NOTHING)
    assert said == "" and len(page.shop.labels.open(chosen.value).session.pictures()) == 11
    said = page.press("label", "go_on")("damaged", None)[0]
    assert "1 left out: " in said and "5.png" in said


def test_an_upload_that_is_gone_is_one_sentence(page: SimpleNamespace, tmp_path: Path) -> None:
    said, _, _ = page.press("label", "begin")([str(tmp_path / "gone.png")], "", "gone", None, *NOTHING)
    assert "The upload gone.png is gone: choose it once more" in said and str(tmp_path) not in said


def test_a_picture_that_may_not_be_read_is_left_out_and_named(
    page: SimpleNamespace, captchas: list[tuple[bytes, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, (png, _) in enumerate(captchas[:12]):
        (tmp_path / f"{i}.png").write_bytes(png)
    really = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "3.png":
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    page.press("label", "begin")(None, str(tmp_path), "guarded", None, *NOTHING)
    said = page.press("label", "go_on")("guarded", None)[0]
    assert "1 left out: 3.png cannot be read (Permission denied)" in said
    assert len(page.shop.labels.open("guarded").session.pictures()) == 11


def test_a_full_disk_is_one_sentence(page: SimpleNamespace, labeled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page.shop.labels, "create", full)
    said, chosen, _ = page.press("label", "begin")([labeled], "", "full", None, *NOTHING)
    assert "The set cannot be kept (No space left on device)" in said and skipped(chosen)


# --------------------------------------------------------------------------------------------------------------------
# Read


def read_of(page: SimpleNamespace, png: bytes) -> str:
    return page.models.predictor().predict([png])[0].text


def test_a_correction_without_a_picture_is_refused_and_the_text_stays(
    page: SimpleNamespace, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    keep, forget = page.press("read", "keep_correction"), page.press("read", "forget_correction")
    said, text, shown = keep(None, "abc")
    assert "choose one first" in said and text == "abc" and skipped(shown)
    (tmp_path / "a.png").write_bytes(captchas[0][0])
    said, text, shown = keep(str(tmp_path / "a.png"), "abcd")
    assert "Kept: 1 corrected reading so far" in said and text == "" and shown["visible"]
    said, shown = forget(None)
    assert "choose it once more" in said and skipped(shown) and page.shop.feedback.count() == 1
    said, shown = forget(str(tmp_path / "a.png"))
    assert "Taken back" in said and not shown["visible"] and page.shop.feedback.count() == 0


def test_what_the_model_cannot_write_is_said_beside_the_line(
    page: SimpleNamespace, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(captchas[0][0])
    read = page.press("read", "read")
    (first, *_, problem) = next(read(str(tmp_path / "a.png"), None, "xyz", "", False))
    assert "cannot" in problem and read_of(page, captchas[0][0]) not in first
    with pytest.raises(Exception, match="There is no picture yet"):
        next(read(None, None, *NOTHING))


def test_the_first_visit_without_examples_or_without_a_model_shows_nothing(
    page: SimpleNamespace, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    assert page.press("read", "read_example")() == ""
    (tmp_path / "a.png").write_bytes(captchas[0][0])
    shown = build_demo(page.shop, tmp_path)
    assert "reading" in button(shown, "read", "read_example")()
    (tmp_path / "a.png").unlink()
    assert button(shown, "read", "read_example")() == ""


# --------------------------------------------------------------------------------------------------------------------
# What is known


def test_what_the_labels_have_in_common_is_filled_in(page: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    look, take = page.press("known", "look"), page.press("known", "take")
    assert not look(None, *NOTHING).visible and take(None)[:3] == ("", "", "")
    assert not look("nowhere.onnx", *NOTHING).visible, "the reading says that there is none"
    monkeypatch.setattr(Constraints, "from_labels", lambda metadata: Constraints("0-9", "4-6"))
    offered = look(None, *NOTHING)
    assert offered.visible and "0-9" in offered.value and "4-6" in offered.value
    characters, length, said, use = take(None)
    assert (characters, length, said) == ("0-9", "4-6", "") and not use.visible
    assert not look(None, characters, length, False).visible, "it is given already"
    assert look(None, "z-a", "", False).visible, "a line that is wrong says nothing"
    monkeypatch.setattr(Constraints, "from_labels", lambda metadata: Constraints("0-9", None))
    assert take(None)[:2] == ("0-9", "") and "0-9" in look(None, *NOTHING).value


def test_a_line_is_not_blamed_for_a_model_that_is_gone(page: SimpleNamespace) -> None:
    assert line_of_known.problem(page.shop, "nowhere.onnx", ("a-d", "", False)) == ""
    assert "cannot" in line_of_known.problem(page.shop, None, ("xyz", "", False))


# --------------------------------------------------------------------------------------------------------------------
# Batch and Make


def test_a_batch_stops_where_it_is_told_and_keeps_what_was_read(page: SimpleNamespace, labeled: str) -> None:
    read_all = page.press("batch", "read_all")
    asked: dict[str, bool] = {}
    steps = read_all([labeled], None, "", "file names", False, asked, *NOTHING)
    next(steps)
    asked["stop"] = True
    *_, last, _ = steps
    assert "Stopped." in last[0] and "of 40" in last[1] and not last[3].interactive
    steps = list(read_all([labeled], None, "own/best.safetensors", "", False, asked, "xyz", "", False))
    assert "Reader.onnx: the model cannot write" in steps[-1][4] and not steps[-1][3].interactive
    assert "choose files, or a zip" in list(read_all(None, None, "", "", False, asked, *NOTHING))[-1][0]


def test_two_models_are_compared_and_nothing_is_called_least_sure_that_is_not(
    page: SimpleNamespace, labeled: str
) -> None:
    read_all = page.press("batch", "read_all")
    rival = "reader.safetensors"
    for second, order, title in (("", "least sure", "least sure"), (rival, "those that differ", "first")):
        *_, (_, result, *_), (_, _, grid, *_) = read_all([labeled], "reader.onnx", second, "auto", False, {}, *NOTHING)
        assert f"Readings, {order} first" in result and f"The 24 {title} of 40" in grid


def knobs_of(**changes: Any) -> list[Any]:
    """The entries of the tab Make."""
    values = {"style": "line", "font": OWN_FONTS, "alphabet": "a-d", "length": "3", "seed": 0, "model": None} | changes
    return [*values.values(), *style_values("line").values()]


def test_a_knob_or_an_alphabet_that_is_none_is_one_sentence(page: SimpleNamespace) -> None:
    draw, along = page.press("make", "draw"), page.press("make", "along")
    picture, card = draw(*knobs_of())
    assert picture.width > 20 and ("The model reads it." in card or "The model misreads it" in card)
    picture, said = draw(*knobs_of(length="many"))
    assert skipped(picture) and "length" in said
    ((said, chart),) = along("nothing", *knobs_of())
    assert "There is no such knob: choose one from the list" in said and chart == ""


# --------------------------------------------------------------------------------------------------------------------
# Strength and Teach


def test_a_measurement_waits_is_shown_and_is_stopped_by_its_owner(
    page: SimpleNamespace, idle: JobQueue, labeled: str
) -> None:
    begin, stop, settle = (page.press("strength", name) for name in ("begin", "stop", "settle"))
    given = (labeled, False, "10m", None)
    assert "there is no such budget" in begin(labeled, False, "9h", None, "me", *NOTHING)[0].lower()
    assert "there is no zip yet" in begin(None, False, "10m", None, "me", *NOTHING)[0].lower()
    assert "nothing is being measured" in stop("me")[0].lower()
    said, _, timer, secret, cancel = begin(*given, "", *NOTHING)
    (job,) = idle.jobs()
    assert isinstance(job, StrengthJob) and job.owner == secret and len(secret) > 15 and job.pictures == 40
    assert "top of every tab" in said and timer.active and cancel.interactive
    assert job.asked.labels != "0", "a .safetensors model beside the .onnx learns"
    assert "not done yet: wait for it, or cancel it" in begin(*given, secret, *NOTHING)[0]
    assert skipped(settle(secret, said)[0]) and settle(secret, said)[1].interactive
    assert "another visitor" in stop("somebody")[0].lower() and not job.cancelling
    said, timer = stop(secret)
    assert "Stopping" in said and timer.active and job.cancelling
    idle._end(job, "cancelled", "stopped")
    assert settle(secret, said)[0] == "" and not settle(secret, said)[1].interactive


def test_a_model_that_cannot_learn_is_measured_without_labels(
    page: SimpleNamespace, idle: JobQueue, labeled: str, exported: Path
) -> None:
    alone = page.folder / "models" / "alone.onnx"
    shutil.copy(exported, alone)
    try:
        said = page.press("strength", "begin")(labeled, False, "10m", "alone.onnx", "me", *NOTHING)[0]
    finally:
        alone.unlink()
    (job,) = idle.jobs()
    assert job.asked.labels == "0" and "cannot learn, only read" in said


def test_a_training_waits_and_is_stopped_by_its_owner(page: SimpleNamespace, idle: JobQueue, labeled: str) -> None:
    begin, stop = page.press("teach", "begin"), page.press("teach", "stop")
    assert "no training runs" in stop("me")[0].lower()
    assert "there is no zip yet" in begin(None, "zip", 0, "", None, "me")[0].lower()
    assert "cannot be used" in begin(labeled, "zip", 0, "../a", None, "me")[0] and not idle.jobs()
    said, _, timer, secret = begin(labeled, "zip", 3, "mine", None, "")
    (job,) = idle.jobs()
    assert isinstance(job, FineTuning) and (job.name, job.epochs, job.pictures, job.owner) == ("mine", 3, 40, secret)
    assert "Started: mine" in said and timer.active
    assert "not done yet" in begin(labeled, "zip", 3, "mine", None, secret)[0]
    said, timer = stop(secret)
    assert "Stopping" in said and timer.active and job.cancelling


def test_a_training_of_the_tab_label_says_so_and_may_be_stopped_by_anybody(
    page: SimpleNamespace, idle: JobQueue, captchas: list[tuple[bytes, str]]
) -> None:
    path = page.folder / "models" / "reader.safetensors"
    job = idle.submit(captchas, path, path.name, name="set 20 labels", owner="labels/set", measure=False)
    job.state, job.plan = "exporting", [{"name": "training", "phases": [{"name": "whole", "epochs": 3}]}]
    card = str(job_card(job, 0, {}, mine=False))
    assert "Started by the tab Label" in card and "another visitor" not in card
    assert "Train on all of them" in card and "Measure what to expect" not in card, "nothing is measured"
    said, timer = page.press("teach", "stop")("me")
    assert "Stopping" in said and timer.active and job.cancelling


def test_what_is_learned_from_is_said_before_and_counted_with_the_corrections(
    page: SimpleNamespace, idle: JobQueue, labeled: str, captchas: list[tuple[bytes, str]], tmp_path: Path
) -> None:
    expect, begin = page.press("teach", "expect"), page.press("teach", "begin")
    assert expect(None, "zip") == ""
    assert "0 corrected readings so far" in expect(None, "feedback")
    assert "40 labeled pictures" in expect(labeled, "zip")
    (tmp_path / "no.zip").write_bytes(b"no zip")
    assert "not a zip that can be read" in expect(str(tmp_path / "no.zip"), "zip")
    assert "0 corrected readings are too few" in begin(None, "feedback", 0, "", None, "me")[0]
    page.shop.feedback.add(captchas[0][0], "abcd")
    try:
        assert "40 labeled pictures and 1 corrected reading" in expect(labeled, "both")
        begin(labeled, "both", 0, "", None, "me")
        (job,) = idle.jobs()
        assert job.pictures == 41 and job.epochs is None
    finally:
        page.shop.feedback.remove(captchas[0][0])


# --------------------------------------------------------------------------------------------------------------------
# Model


def test_a_model_keeps_its_name_while_it_is_exported(page: SimpleNamespace, idle: JobQueue) -> None:
    job = FineTuning("1", page.folder / "job", Path("start"), "start", None, 40, owner="me")
    job.model, job.state = "own", "exporting"
    idle._jobs.append(job)
    renamed, *choosers = page.press("model", "give_name")("own/best.safetensors", "other", "me")
    forgotten = page.press("model", "forget")("own/best.safetensors", "me")[0]
    for said in (renamed, forgotten):
        assert "is being exported to ONNX: wait until that is done" in said
    assert all(map(skipped, choosers)) and "own/best.safetensors" in page.models.paths()
    job.state = "done"
    assert "called other now" in page.press("model", "give_name")("own/best.safetensors", "other", "me")[0]
    assert "called own now" in page.press("model", "give_name")("other/best.safetensors", "own", "me")[0]


def test_only_who_made_a_model_deletes_it_and_is_asked_before(page: SimpleNamespace) -> None:
    show, ask, forget = (page.press("model", name) for name in ("show", "ask", "forget"))
    card, manage, name, _ = show("own/best.safetensors", "me")
    assert "own" in card and manage.visible and name == "own"
    assert not show("reader.onnx", "me")[1].visible
    question, sure = ask("own/best.safetensors")
    assert "Delete own, its weights and its figures?" in question and sure.visible
    said, sure, *choosers = forget("reader.onnx", "me")
    assert "only who made a model" in said.lower() and not sure.visible and all(map(skipped, choosers))
    page.shop.local = False
    try:
        assert "only who made a model" in forget("own/best.safetensors", "other")[0].lower()
        assert (page.folder / "models" / "own" / "best.safetensors").is_file()
        said, *_ = forget("own/best.safetensors", "me")
    finally:
        page.shop.local = True
    assert "own is deleted" in said and not (page.folder / "models" / "own").exists()
    assert "own/best.safetensors" not in page.models.paths()
    assert "there is no model" in show("own/best.safetensors", "me")[0].lower()


def test_a_model_that_goes_while_it_is_described_is_said_to_be_gone(
    page: SimpleNamespace, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = page.folder / "models" / "gone.onnx"
    shutil.copy(exported, gone)
    monkeypatch.setattr(page.shop, "label", lambda name: gone.unlink() or name)
    assert "The model is gone: choose another" in page.press("model", "show")("gone.onnx", "me")[0]


def test_a_page_that_keeps_nothing_names_no_tab_that_it_lacks(page: SimpleNamespace) -> None:
    assert "(the tab Teach)" in page.press("model", "show")("reader.onnx", "")[0]
    shop = Workshop.build(page.models, page.folder / "nothing", read_only=True)
    demo = build_demo(shop, page.folder / "nowhere")
    card = button(demo, "model", "show")("reader.onnx", "")[0]
    shown = [str(block.value) for block in demo.blocks.values() if isinstance(getattr(block, "value", None), str)]
    assert any("Turn the knobs" in text for text in shown)
    assert not [text for text in (card, *shown) if "tab Teach" in text or "tab Strength" in text]
    shop.close()


def test_the_tab_label_promises_the_trainings_that_come(page: SimpleNamespace) -> None:
    def intro(shop: Workshop) -> str:
        demo = build_demo(shop, page.folder / "nowhere")
        values = [str(getattr(block, "value", "")) for block in demo.blocks.values()]
        return next(value for value in values if "Captchas without labels" in value)

    assert ", ".join(map(str, TRAIN_AT[:-1])) in intro(page.shop) and f" {TRAIN_AT[-1]} " in intro(page.shop)
    shop = Workshop.build(page.models, page.folder / "nothing")  # no programs: nothing is trained
    assert "learn" not in intro(shop)
    shop.close()


def test_figures_that_a_checkpoint_lacks_are_not_made_up(page: SimpleNamespace) -> None:
    path, metadata = page.folder / "models" / "reader.onnx", dict(page.models.predictor().metadata)
    metadata |= {"provenance": {"data": {"sources": ["/srv/me/a"]}}}
    metadata |= {"metrics": {"captcha version 2 (n=1,040)": {"sequence_accuracy": 0.5}, "mine": {"cer": 0.1}}}
    metadata["metrics"] |= {"empty": {"n": 0, "sequence_accuracy": None, "cer": None}}
    metadata["metrics"] |= {"half": {"n": None, "sequence_accuracy": 0.25, "wilson_95": [None], "cer": [0.1]}}
    metadata["metrics"] |= {"in percent": {"n": 10, "sequence_accuracy": 98.7}}
    card = model_card("reader", path, metadata, "")
    assert "half" in card and "25.0 %" in card and "empty" not in card and "in percent" not in card
    assert "1,040" in card and "/srv/me" not in card and "50" in card and "mine" not in card
