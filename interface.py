"""The demo: a page for people and a REST route for programs, in one process on one port.

    python interface.py                                            # http://127.0.0.1:7860, the shipped weights
    python interface.py --checkpoint RUN/best.safetensors --port 8000

The page stays on this machine: it listens on 127.0.0.1, takes its fonts and scripts from here, and sends nothing to
anybody. Five tabs: Read one captcha, read a Batch, Make captchas and see how well they keep a machine out, Teach a
reader yours, and what the Model says of itself. The route is in serving.py; http://127.0.0.1:7860/docs describes it.

torch is imported only when a .safetensors model is used: the page opens on the .onnx one.
"""

from __future__ import annotations

import asyncio
import csv
import dataclasses
import io
import json
import logging
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from PIL import Image

from captcha_reader.cli import parse_config, run
from captcha_reader.config import ALPHANUMERIC, InterfaceConfig
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, SAVED_MODELS
from captcha_reader.web import html as views
from captcha_reader.web.api import Limits, Models, PictureZip, build_api, check_picture, is_zip
from captcha_reader.web.jobs import LEAST_PICTURES, Feedback, Teacher, labelled_pictures

if TYPE_CHECKING:
    import gradio

    from predict import CaptchaPredictor, Prediction
    from strength import Trial

TITLE = "Captcha reader"
RESPONSIBLE_USE = "For study, and for measuring captchas that you own or may test."
EXAMPLES = ROOT / "examples"
EXAMPLE_COUNT = 12  # on the page; a folder may hold more
UPLOAD_LIMIT = "50mb"  # of one file
CACHE_SECONDS = 3600  # then uploads and drawn pictures are deleted
BATCH_PICTURES = 2000
UNLIKE_NAMES = (
    '<p class="hint">The file names do not look like what was read, so nothing was compared: choose “yes” if they say '
    "what is right.</p>"
)
BATCH_CHUNK = 32  # pictures read between two looks at the progress bar
GRID_PICTURES = 24
TRIALS, SWEEP_TRIALS = 100, 40
STYLE_SHEET = ROOT / "assets" / "page.css"

# Fonts that a browser has anyway: the page loads none.
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
# Gradio gives the pictures of examples no names, which a screen reader needs; they come after the page.
NAME_EXAMPLES = """() => {
  const name = () => document.querySelectorAll(".gallery-item img").forEach((img) => {
    const file = decodeURIComponent(img.src.split("/").pop());
    if (file) img.closest("button").setAttribute("aria-label", `Example ${file}`);
  });
  name();
  new MutationObserver(name).observe(
    document.body, {subtree: true, childList: true, attributes: true, attributeFilter: ["src"]});
}"""
# A correction, and the note on it, go with the picture that they are for. A picture is told of late and twice: what was
# typed while it was on its way stays, and so must not be written anew.
TYPED = "(image) => { window.typedFor = image?.path; }"
TIDY = """(image, note) => {
  const [before, now] = [window.typedFor, image?.path];
  const box = document.querySelector("#correction :is(input, textarea)");
  if (before && before !== now && box.value) {
    box.value = "";
    box.dispatchEvent(new Event("input", {bubbles: true}));
  }
  window.typedFor = now;
  return before === now ? [note, {__type__: "update"}] : ["", {__type__: "update", visible: false}];
}"""
COPY = """element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  navigator.clipboard.writeText(button.dataset.copy).then(() => {
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }, () => {});
});"""


# --------------------------------------------------------------------------------------------------------------------
# Reading


def detect_captcha(
    image: str | Path | bytes | None, checkpoint: str | None = None, models: Models | None = None
) -> dict[str, Any]:
    """Read one captcha.

    Args:
        image: a picture file's path or bytes.
        checkpoint: name of a model, one of `models.paths()`; the first by default.
        models: where to look; saved_models/ by default.

    Returns:
        `text`; `confidence` of the whole text, 0 to 1; `characters`, each with `char`, `confidence`, `class` (high,
        medium, low) and, from a CTC model, `box` (left, top, right, bottom in pixels); `alternatives`, the three
        likeliest readings with `text` and `confidence`; `model`; `ms` from picture to text.

    Raises:
        UserError: there is no picture, it cannot be read, or the model cannot be used.
    """
    models = models or Models()
    predictor, prediction, picture, milliseconds = _read(image, checkpoint, models)
    from captcha_reader.plots.boxes import character_boxes
    from captcha_reader.plots.colors import confidence_class

    answer = prediction.as_dict()
    boxes = character_boxes(picture, prediction, predictor)
    for i, character in enumerate(answer["characters"]):
        character["class"] = confidence_class(prediction.char_confidences[i])
        if boxes:
            character["box"] = [round(v, 1) for v in boxes[i]]
    answer["alternatives"] = [{"text": t, "confidence": round(p, 6)} for t, p in prediction.alternatives]
    return answer | {"model": models.path(checkpoint)[0], "ms": round(milliseconds, 2)}


def _read(
    image: str | Path | bytes | None, checkpoint: str | None, models: Models
) -> tuple[CaptchaPredictor, Prediction, Image.Image, float]:
    if image is None:
        raise UserError("there is no picture yet: upload one, paste one, or choose an example")
    picture = check_picture(_bytes(image), "the file")
    predictor = models.predictor(checkpoint)
    started = time.perf_counter()
    prediction = predictor.read([predictor.view(picture, "the picture")])[0]
    return predictor, prediction, picture, (time.perf_counter() - started) * 1000


def _bytes(image: str | Path | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).read_bytes()
    except OSError:  # uploads are deleted after an hour
        raise UserError("the picture is gone: upload it again") from None


# --------------------------------------------------------------------------------------------------------------------
# Batches


@dataclasses.dataclass
class Batch:
    """Pictures that were read.

    Attributes:
        rows: `file`, `reading`, `confidence`, `characters` (pairs), `picture`, and with labels `label` and `right`.
        refused: file and reason of what could not be read.
        labelled: whether the file names are taken for labels.
        kind: what all have in common, where they were read together.
    """

    rows: list[dict[str, Any]]
    refused: list[tuple[str, str]]
    labelled: bool = False
    kind: str = ""


def iter_pictures(files: Sequence[str | Path]) -> Iterator[tuple[str, bytes | UserError]]:
    """Names and bytes of uploads, with the pictures of zips in their place; an error where one cannot be had.

    Raises:
        UserError: there are too many.
    """
    count = 0
    for file in files:
        name = Path(file).name
        try:
            data = _bytes(file)
            pictures: Iterable[tuple[str, bytes | UserError]] = [(name, data)]
            if is_zip(data):
                packed = PictureZip(data, BATCH_PICTURES)
                if not len(packed):
                    raise UserError("the zip has no picture: PNG, JPEG, GIF, BMP, WebP and TIFF files are read")
                pictures = packed.with_damaged()
            for entry, content in pictures:
                count += 1
                if count > BATCH_PICTURES:
                    raise OverflowError
                yield entry, content
        except OverflowError:
            raise UserError(f"there are more than {BATCH_PICTURES:,} pictures: bring fewer at a time") from None
        except UserError as error:
            yield name, error


def count_pictures(files: Sequence[str | Path]) -> int:
    """How many pictures `iter_pictures` will give, for the progress bar."""
    total = 0
    for file in files:
        try:
            data = _bytes(file)
            total += len(PictureZip(data, BATCH_PICTURES)) if is_zip(data) else 1
        except UserError:
            total += 1
    return total


def read_batch(
    files: Sequence[str | Path], predictor: CaptchaPredictor, labels: str = "auto", same_kind: bool = False
) -> Iterator[Any]:
    """Read uploads a chunk at a time.

    Args:
        files: pictures and zips of them.
        predictor: the model.
        labels: whether file names carry them: `yes`, `no`, or `auto`, which looks whether readings and names agree.
        same_kind: weigh the readings with what all have in common, as `predict.read_together` does.

    Yields:
        The number of pictures done, after each chunk; at the end the `Batch`, least sure first.

    Raises:
        UserError: there are too many pictures.
    """

    from make_dataset import label_from_name

    batch, waiting = Batch([], []), []

    def read_waiting() -> None:
        readings = predictor.read([view for _, view, _ in waiting], keep_views=same_kind)
        for (name, _, small), prediction in zip(waiting, readings, strict=True):
            batch.rows.append({"file": name, "prediction": prediction, "picture": small})
        waiting.clear()

    for done, (name, data) in enumerate(iter_pictures(files), start=1):
        try:
            if isinstance(data, UserError):
                raise data
            picture = check_picture(data)
            view = predictor.view(picture)
            picture.thumbnail((320, 200))  # for the grid
            waiting.append((name, view, picture))
        except UserError as error:
            batch.refused.append((name, str(error)))
        if len(waiting) == BATCH_CHUNK:
            read_waiting()
            yield done
    if waiting:
        read_waiting()
    if same_kind:
        from predict import read_together

        together, kind = read_together([row["prediction"] for row in batch.rows])
        for row, prediction in zip(batch.rows, together, strict=True):
            row["prediction"] = prediction
        batch.kind = str(kind)
    for row in batch.rows:
        row |= {"reading": row["prediction"].text, "confidence": row["prediction"].confidence}
        row["label"] = label_from_name(Path(row["file"]).name)
        row["right"] = row["label"] == row["reading"]
    batch.labelled = labels == "yes" or (labels == "auto" and _names_are_labels(batch.rows))
    batch.rows.sort(key=lambda row: row["confidence"])
    yield batch


def _names_are_labels(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether half of the names or more have half of their characters, in order, in common with their reading."""

    def alike(row: dict[str, Any]) -> bool:
        return SequenceMatcher(None, row["label"].casefold(), row["reading"].casefold(), False).ratio() >= 0.5

    return bool(rows) and sum(map(alike, rows)) * 2 >= len(rows)


def batch_summary(batch: Batch, model: str, seconds: float, labels: str = "no") -> str:
    """Headline figures and downloads of a batch, as HTML; `labels` as for `read_batch`."""
    n = len(batch.rows)
    if not n:
        return views.note("No picture could be read." + _refusals(batch), "bad")
    kind = views.note(f"Read as one kind: {views.text(batch.kind)}") if batch.kind else ""
    unlike = "" if batch.labelled or labels != "auto" else UNLIKE_NAMES
    items = [("Pictures", f"{n:,}"), ("Model", views.text(model)), ("Pictures a second", f"{n / seconds:,.0f}")]
    if batch.labelled:
        from accuracy_calculator import text_metrics

        m = text_metrics([row["label"] for row in batch.rows], [row["reading"] for row in batch.rows])
        items[1:1] = [
            ("Sequence accuracy", views.percent(m["sequence_accuracy"])),
            ("95 % interval", views.interval(m["wilson_95"])),
            ("CER", views.percent(m["cer"])),
        ]
    rows = [_plain(row, batch.labelled) for row in batch.rows]
    columns = [*rows[0], "error"]
    rows += [{"file": name, "error": why} for name, why in batch.refused]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, restval="")
    writer.writeheader()
    # A spreadsheet takes a cell that begins so for a formula.
    writer.writerows({k: f"'{v}" if str(v)[:1] in ("=", "+", "-", "@") else v for k, v in row.items()} for row in rows)
    links = views.data_link("readings.csv", "text/csv", table.getvalue().encode(), "CSV")
    links += views.data_link("readings.json", "application/json", json.dumps(rows, ensure_ascii=False).encode(), "JSON")
    return (
        f'<div class="card">{views.figures(items)}{kind}<p class="downloads">{links}</p>{unlike}{_refusals(batch)}'
        f"{views.batch_table(batch.rows, batch.labelled)}</div>"
    )


def _plain(row: dict[str, Any], labelled: bool) -> dict[str, Any]:
    plain = {"file": row["file"], "reading": row["reading"], "confidence": round(row["confidence"], 6)}
    return plain | ({"label": row["label"], "right": row["right"]} if labelled else {})


def _refusals(batch: Batch) -> str:
    if not batch.refused:
        return ""
    listed = "".join(f"<li><b>{views.text(n)}</b>: {views.sentence(why)}</li>" for n, why in batch.refused[:20])
    more = f"<li>and {len(batch.refused) - 20} more</li>" if len(batch.refused) > 20 else ""
    return (
        f'<details class="note bad"{"" if batch.rows else " open"}><summary>{len(batch.refused)} left out</summary>'
        f"<ul>{listed}{more}</ul></details>"
    )


# --------------------------------------------------------------------------------------------------------------------
# The page


class _NoStubs:
    """Gradio writes stub files for editors at each import, which takes half of its seconds; this switches that off."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "gradio.component_meta":
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if hasattr(module, "create_or_modify_pyi"):
                module.create_or_modify_pyi = lambda *arguments: None  # type: ignore[attr-defined]

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _gradio() -> Any:
    """Gradio, which reads these settings when it is imported, and whose import takes seconds."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if "gradio" not in sys.modules:
        sys.meta_path.insert(0, _NoStubs)  # type: ignore[arg-type]
        try:
            import gradio
        finally:
            sys.meta_path.remove(_NoStubs)  # type: ignore[arg-type]
    import gradio

    return gradio


@dataclasses.dataclass
class Workshop:
    """What the tabs share: the models, the corrected readings, the trainings."""

    models: Models
    feedback: Feedback
    teacher: Teacher

    @classmethod
    def build(cls, models: Models, data: str | Path = ROOT / "data", threads: int | None = None) -> Workshop:
        """With its folders below `data`; none is made yet."""
        folder = Path(data)
        return cls(models, Feedback(folder / "feedback"), Teacher(models.folder, folder / ".teaching", threads))

    def names(self) -> list[str]:
        """The models to choose from."""
        return list(self.models.paths())

    def teachable(self, name: str | None) -> tuple[str, Path]:
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
        raise UserError(f"{chosen} cannot be taught, since an .onnx file is final: choose a .safetensors model")


def theme(gr: Any) -> Any:
    """Calm cards on a tinted ground; all fonts are the browser's."""
    soft = gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=FONTS,
        font_mono=MONO_FONTS,
        radius_size=gr.themes.sizes.radius_lg,
    )
    return soft.set(
        body_background_fill="#f4f7f6",
        body_background_fill_dark="#0d1416",
        body_text_color="#16262b",
        body_text_color_dark="#e8f0f0",
        body_text_color_subdued="#5a6b70",
        body_text_color_subdued_dark="#9fb1b5",
        block_background_fill="#ffffff",
        block_background_fill_dark="#162125",
        block_border_color="#dfe6e5",
        block_border_color_dark="#2a3a3f",
        block_border_width="1px",
        block_shadow="none",
        block_shadow_dark="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="#5a6b70",
        block_label_text_color_dark="#9fb1b5",
        block_label_text_weight="600",
        block_title_text_color="#5a6b70",
        block_title_text_color_dark="#9fb1b5",
        block_title_text_weight="600",
        block_info_text_color="#5a6b70",
        block_info_text_color_dark="#9fb1b5",
        border_color_primary="#dfe6e5",
        border_color_primary_dark="#2a3a3f",
        input_background_fill="#f8faf9",
        input_background_fill_dark="#101a1d",
        input_border_color="#cfd9d8",
        input_border_color_dark="#35484e",
        button_border_width="1px",
        button_border_width_dark="1px",
        button_primary_border_color="#0b6e69",
        button_primary_border_color_dark="#0f7d77",
        button_primary_background_fill="#0b6e69",
        button_primary_background_fill_hover="#095c58",
        button_primary_background_fill_dark="#0f7d77",
        button_primary_background_fill_hover_dark="#14918a",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_dark="#1b282d",
        button_secondary_border_color="#cfd9d8",
        button_secondary_border_color_dark="#35484e",
        slider_color="#0b6e69",
        slider_color_dark="#14918a",
        color_accent="#0b6e69",
        table_odd_background_fill_dark="#162125",
        table_even_background_fill_dark="#1b282d",
        link_text_color="#0b6e69",
        link_text_color_dark="#5fd6c8",
        checkbox_background_color_selected="#0b6e69",
        checkbox_background_color_selected_dark="#0f7d77",
    )


def build_demo(shop: Workshop, examples: str | Path = EXAMPLES) -> gradio.Blocks:
    """The page.

    Args:
        shop: what it offers.
        examples: folder of PNG files to try; may be empty or missing.
    """
    gr = _gradio()
    names = shop.names()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)) as demo:
        with gr.Row(elem_id="top"):
            with gr.Column(scale=5, min_width=280):
                _html(gr, views.header(TITLE, RESPONSIBLE_USE))
            with gr.Column(scale=3, min_width=240):
                checkpoint = gr.Dropdown(names, value=names[0], label="Model", elem_id="checkpoint")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Read", id="read"):
                _read_tab(gr, shop, checkpoint, sorted(Path(examples).glob("*.png"))[:EXAMPLE_COUNT])
            with gr.Tab("Batch", id="batch"):
                _batch_tab(gr, shop, checkpoint)
            with gr.Tab("Make", id="make") as make:
                _make_tab(gr, shop, checkpoint, make)
            with gr.Tab("Teach", id="teach") as teach:
                _teach_tab(gr, shop, checkpoint, teach, demo)
            with gr.Tab("Model", id="model") as model:
                _model_tab(gr, shop, checkpoint, model)
        _html(
            gr, '<p class="foot">Everything stays on this machine. For programs: <a href="docs">the REST route</a>.</p>'
        )
        demo.load(None, js=NAME_EXAMPLES, api_visibility="private")
        # Models trained since the start appear when the page is loaded anew.
        demo.load(lambda: gr.Dropdown(choices=shop.names()), None, checkpoint, api_visibility="private")
    demo.queue(default_concurrency_limit=4, max_size=64)
    return demo


def _html(gr: Any, value: str, **settings: Any) -> Any:
    """Our own HTML, with none of Gradio's styles for prose."""
    return gr.HTML(value, apply_default_css=False, padding=False, **settings)


def _picture_box(gr: Any, **settings: Any) -> Any:
    """A box for a picture that gives an event the path of an upload.

    Gradio would open the upload itself and answer a broken one by the bare word "Error". The file, which it has checked
    to be an upload, goes to `open_image` as it is: the same pixels as on the command line.
    """

    # A class, for Gradio builds the box anew where an example changes it, and would forget what one instance has.
    class Picture(gr.Image):
        is_template = True  # the browser shows it as any `gr.Image`

        def preprocess(self, payload: Any) -> Any:
            return payload.path if payload and payload.path else super().preprocess(payload)

    return Picture(**settings)


def _read_tab(gr: Any, shop: Workshop, checkpoint: Any, examples: Sequence[Path]) -> None:
    """A picture in, its reading out, and a correction kept."""
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            picture = _picture_box(
                gr,
                label="Captcha: upload, paste or choose one",
                type="filepath",
                image_mode=None,  # keeps transparency
                sources=["upload", "clipboard"],
                height=230,
                elem_id="picture",
                alt_text="the captcha to read",
            )
            button = gr.Button("Read", variant="primary", elem_id="read")
            if examples:
                gr.Examples([[str(path)] for path in examples], [picture], cache_examples=False, elem_id="examples")
        with gr.Column(scale=5, min_width=280):
            reading = _html(gr, views.NO_READING, elem_id="reading", js_on_load=COPY)
    with gr.Row():
        with gr.Column(scale=5, min_width=280):
            where = _html(gr, "", elem_id="where")
        with gr.Column(scale=4, min_width=280):
            likely = _html(gr, "", elem_id="likely")
            with gr.Row(equal_height=True):
                correction = gr.Textbox(
                    label="Wrong? Type the right text",
                    placeholder="what the picture says",
                    max_lines=1,
                    max_length=32,
                    scale=4,
                    min_width=160,
                    elem_id="correction",
                )
                keep = gr.Button("Keep", scale=1, min_width=90, elem_id="keep")
            kept = _html(gr, "", elem_id="kept")
            forget = gr.Button("Take it back", visible=False, size="sm", elem_id="forget")
    grid = _html(gr, "", elem_id="grid")
    outputs = [reading, likely, where, grid]
    blank = (views.NO_READING, "", "", "")

    def show(image: str | None, name: str | None) -> Iterator[tuple[Any, ...]]:
        """The reading at once, the pictures as soon as they are drawn."""
        predictor, prediction, opened, milliseconds = _read(image, name, shop.models)
        from captcha_reader.plots.boxes import draw_boxes
        from captcha_reader.plots.canvas import figure_image
        from captcha_reader.plots.confidence import confidence_grid

        card = views.reading_card(prediction, milliseconds, shop.models.path(name)[0])
        yield card, views.likely_card(prediction.alternatives, prediction.text), gr.skip(), gr.skip()
        boxes = draw_boxes(opened, prediction, predictor)
        heat = figure_image(confidence_grid(prediction))
        yield gr.skip(), gr.skip(), views.where_card(boxes, prediction), views.grid_card(heat)

    def read(image: str | None, name: str | None) -> Iterator[tuple[Any, ...]]:
        try:
            yield from show(image, name)
        except UserError as error:
            raise gr.Error(views.sentence(error), print_exception=False) from None

    shown = gr.State(("", ""))  # picture and model of the reading that stands there

    def read_at_once(image: str | None, name: str | None, seen: tuple[str, str]) -> Iterator[tuple[Any, ...]]:
        asked = (image or "", name or "")
        if asked == seen:  # replacing a picture tells of it twice
            yield (gr.skip(),) * 5
        elif image is None:
            yield *blank, asked
        else:
            try:
                for step in show(image, name):
                    yield *step, asked
            except UserError as error:  # the last picture's reading must not stand beside this one
                gr.Warning(views.sentence(error))
                yield views.no_reading(error), "", "", "", asked

    inputs = [picture, checkpoint]
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    button.click(read, inputs, outputs, **quiet)
    at_once: dict[str, Any] = {"trigger_mode": "always_last", "api_visibility": "private"}
    correction.input(None, picture, None, js=TYPED, **quiet)
    # Before the reading, which it would wait for.
    picture.change(None, [picture, kept], [kept, forget], js=TIDY, **quiet)
    # A model that is chosen for the first time takes seconds to load: show that.
    for changed, progress in ((picture.change, "hidden"), (checkpoint.change, "minimal")):
        changed(read_at_once, [*inputs, shown], [*outputs, shown], show_progress=progress, **at_once)

    def keep_correction(image: str | None, said: str) -> tuple[Any, ...]:
        try:
            if image is None:
                raise UserError("there is no picture to correct: choose one first")
            count = shop.feedback.add(_bytes(image), said or "")
        except UserError as error:
            return views.note(views.sentence(error), "bad"), said, gr.skip()
        kept_now = f"Kept: {_corrected(count)} so far. The Teach tab can learn from them."
        return views.note(kept_now, "good"), "", gr.update(visible=True)

    def forget_correction(image: str | None) -> tuple[Any, ...]:
        try:
            if image is None:
                raise UserError("there is no picture any more: choose it once more")
            count = shop.feedback.remove(_bytes(image))
        except UserError as error:
            return views.note(views.sentence(error), "bad"), gr.skip()
        return views.note(f"Taken back: {_corrected(count)} left.", "good"), gr.update(visible=False)

    corrected = [kept, correction, forget]
    gr.on([keep.click, correction.submit], keep_correction, [picture, correction], corrected, **quiet)
    forget.click(forget_correction, picture, [kept, forget], **quiet)

    # For programs: the same reading as data. The list of models above only takes names that it had at the start.
    model = gr.Textbox("", visible=False, label="Model")
    answer = gr.JSON(visible=False)
    endpoint = gr.Button(visible=False)

    def detect(image: str | None, checkpoint: str | None) -> dict[str, Any]:
        """Read a captcha; the model is one of the names that /models lists, the first where there is none."""
        try:
            return detect_captcha(image, checkpoint or None, shop.models)
        except UserError as error:
            raise gr.Error(views.sentence(error), print_exception=False) from None

    endpoint.click(detect, [picture, model], answer, api_name="detect_captcha")


def _corrected(count: int) -> str:
    return f"{count} corrected reading{'' if count == 1 else 's'}"


def _batch_tab(gr: Any, shop: Workshop, checkpoint: Any) -> None:
    """Many pictures in, a table out."""
    _html(
        gr,
        '<p class="tab-intro">Many pictures, or a zip of them. The readings come least sure first, so that a person '
        "checks what matters.</p>",
    )
    with gr.Row():
        with gr.Column(scale=3, min_width=260):
            files = gr.File(
                label="Pictures, or a zip of pictures",
                file_count="multiple",
                file_types=["image", ".zip"],
                height=180,
                elem_id="files",
            )
        with gr.Column(scale=2, min_width=240):
            labels = gr.Radio(
                [("find out", "auto"), ("yes", "yes"), ("no", "no")],
                value="auto",
                label="Do the file names say what is right (aB3x_1.png)?",
                elem_id="labels",
            )
            same_kind = gr.Checkbox(
                label="All are of one kind",
                info="What lengths and characters it has is learned from all of them, and helps to read each.",
                elem_id="same-kind",
            )
            with gr.Row():
                start = gr.Button("Read all", variant="primary", elem_id="read-all", min_width=120)
                stop = gr.Button("Stop", elem_id="stop-batch", min_width=80)
    status = _html(gr, "", elem_id="batch-status")
    result = _html(gr, "", elem_id="batch-result")
    grid = _html(gr, "", elem_id="batch-grid")

    def read_all(uploads: list[str] | None, name: str | None, named: str, together: bool) -> Iterator[tuple[Any, ...]]:
        try:
            if not uploads:
                raise UserError("there are no pictures yet: choose files, or a zip")
            started = time.perf_counter()
            total = count_pictures(uploads)
            yield views.progress_bar(0, f"0 of {total:,}", "Reading"), "", ""
            predictor = shop.models.predictor(name)
            batch: Batch | None = None
            for step in read_batch(uploads, predictor, named, together):
                if isinstance(step, Batch):
                    batch = step
                else:
                    shown = views.progress_bar(step / max(total, 1), f"{step:,} of {total:,}", "Reading")
                    yield shown, gr.skip(), gr.skip()
            assert batch is not None
            seconds = time.perf_counter() - started
            yield "", batch_summary(batch, shop.models.path(name)[0], seconds, named), gr.skip()
            yield gr.skip(), gr.skip(), _batch_grid(batch) if batch.rows else ""
        except UserError as error:
            yield views.note(views.sentence(error), "bad"), "", ""

    outputs = [status, result, grid]
    quiet: dict[str, Any] = {"show_progress": "hidden"}
    event = start.click(
        read_all,
        [files, checkpoint, labels, same_kind],
        outputs,
        api_visibility="private",
        concurrency_limit=2,
        **quiet,
    )
    stop.click(lambda: views.note("Stopped."), None, status, cancels=[event], api_visibility="private", **quiet)


def _batch_grid(batch: Batch) -> str:
    """The least sure pictures with their readings, as HTML, and the same as one picture to download."""
    from captcha_reader.plots.canvas import figure_image
    from captcha_reader.plots.grid import draw_grid

    rows = batch.rows[:GRID_PICTURES]
    figure = draw_grid(
        [row["picture"] for row in rows],
        [row["prediction"] for row in rows],
        [row["label"] for row in rows] if batch.labelled else None,
        [row["file"] for row in rows],
    )
    title = f"The {len(rows)} least sure of {len(batch.rows):,}" if len(rows) < len(batch.rows) else "All readings"
    return views.batch_grid(title, rows, batch.labelled, figure_image(figure))


def _make_tab(gr: Any, shop: Workshop, checkpoint: Any, tab: Any) -> None:
    """The generator's knobs, and how readable a captcha stays."""
    from captcha_styles import STYLES
    from strength import FONTS as FONT_NAMES
    from strength import KNOBS, OWN_FONTS, build_settings, style_values, success, sweep_values, try_many

    names = list(STYLES)
    own = style_values(names[0])
    _html(
        gr,
        '<p class="tab-intro">Turn the knobs of a captcha and see whether the model still reads it: a strength meter '
        "for captchas.</p>",
    )
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            with gr.Row():
                style = gr.Dropdown(names, value=names[0], label="Style", elem_id="style", min_width=130)
                font = gr.Dropdown(list(FONT_NAMES), value=OWN_FONTS, label="Font", elem_id="font", min_width=130)
            with gr.Row():
                alphabet = gr.Textbox(
                    ALPHANUMERIC, label="Alphabet", max_lines=1, max_length=300, elem_id="alphabet", min_width=130
                )
                length = gr.Textbox("5", label="Length (5 or 4-6)", max_lines=1, elem_id="length", min_width=100)
            sliders = {
                key: _within(
                    gr.Slider(
                        knob.low,
                        knob.high,
                        own[key],
                        step=knob.step,
                        label=knob.label,
                        info=knob.info,
                        elem_id=key,
                        buttons=[],  # its reset knows one style alone
                    )
                )
                for key, knob in KNOBS.items()
            }
            seed = _within(gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31, elem_id="seed"))
        with gr.Column(scale=5, min_width=280, elem_id="made-column"):
            made = gr.Image(
                label="A captcha of this kind",
                type="pil",
                format="png",
                image_mode=None,
                interactive=False,
                buttons=["download"],
                height=190,
                elem_id="made",
                alt_text="the captcha that was drawn",
            )
            with gr.Row():
                another = gr.Button("Another", elem_id="another", min_width=100)
                attempt = gr.Button(f"Try {TRIALS}", variant="primary", elem_id="try", min_width=120)
            truth = _html(gr, "", elem_id="made-reading", js_on_load=COPY)
            strength_status = _html(gr, "", elem_id="strength-status")
            strength = _html(gr, "", elem_id="strength")
            with gr.Row(equal_height=True):
                knob = gr.Dropdown(
                    [(k.label, key) for key, k in KNOBS.items()],
                    value="rotation",
                    label="Knob",
                    elem_id="knob",
                    min_width=130,
                )
                along = gr.Button("Try along this knob", elem_id="sweep", min_width=140)
            sweep_status = _html(gr, "", elem_id="sweep-status")
            chart = _html(gr, "", elem_id="sweep-chart")
    knobs = list(sliders.values())
    inputs = [style, font, alphabet, length, seed, checkpoint, *knobs]

    def settings_of(values: Sequence[Any]) -> Any:
        chosen, letters, characters, span, number, _, *turned = values
        numbers = {key: _number(v) for key, v in zip(KNOBS, turned, strict=True)}
        return build_settings(
            str(chosen), numbers, str(letters), str(characters or ""), str(span or ""), _number(number)
        )

    def draw(*values: Any) -> tuple[Any, str]:
        try:
            settings = settings_of(values)
            predictor = shop.models.predictor(values[5])
            from captcha_generator import render_captcha

            png, said = render_captcha(0, settings)
            started = time.perf_counter()
            prediction = predictor.predict([png])[0]
            milliseconds = (time.perf_counter() - started) * 1000
        except UserError as error:
            return gr.skip(), views.note(views.sentence(error), "bad")
        right = prediction.text == said
        verdict = (
            "The model reads it." if right else f"The model misreads it: the captcha says <b>{views.text(said)}</b>."
        )
        card = views.reading_card(prediction, milliseconds, shop.models.path(values[5])[0])
        return Image.open(io.BytesIO(png)), card + views.note(verdict)

    def attempt_many(*values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            settings, predictor = settings_of(values), shop.models.predictor(values[5])
            trials: list[Trial] = []
            yield views.progress_bar(0, f"0 of {TRIALS}", "Trying"), gr.skip()
            for chunk in try_many(settings, predictor, TRIALS):
                trials += chunk
                yield views.progress_bar(len(trials) / TRIALS, f"{len(trials)} of {TRIALS}", "Trying"), gr.skip()
            failures = [t for t in trials if t.reading != t.text]
            unknown = "".join(sorted({c for t in trials for c in t.text if c not in predictor.alphabet}))
            tried = f"{TRIALS} captchas of the style {values[0]}, seeds from {_number(values[4]):g}"
            tried += f", on {shop.models.path(values[5])[0]}"
            yield "", views.strength_card(success(trials), failures, tried, unknown)
        except UserError as error:
            yield views.note(views.sentence(error), "bad"), ""

    def try_along(key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            if key not in KNOBS:
                raise UserError("there is no such knob: choose one from the list")
            predictor = shop.models.predictor(values[5])
            position = 6 + list(KNOBS).index(key)
            points = []
            steps = sweep_values(key)
            for i, value in enumerate(steps):
                yield views.progress_bar(i / len(steps), f"{KNOBS[key].label} {value:g}", "Trying"), gr.skip()
                turned = [*values[:position], value, *values[position + 1 :]]
                trials = [t for c in try_many(settings_of(turned), predictor, SWEEP_TRIALS) for t in c]
                points.append((value, success(trials)))
            yield "", views.sweep_chart(KNOBS[key].label, points, _number(values[position]))
        except UserError as error:
            yield views.note(views.sentence(error), "bad"), ""

    def reset(chosen: str) -> list[Any]:
        return list(style_values(chosen).values()) if chosen in STYLES else [gr.skip()] * len(KNOBS)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    style.change(reset, style, knobs, **quiet)
    changes = [c.change for c in (style, font, alphabet, length, seed, checkpoint, *knobs)]
    gr.on([*changes, tab.select], draw, inputs, [made, truth], trigger_mode="always_last", **quiet)
    others = [c.change for c in (style, font, alphabet, length, checkpoint, *knobs)]
    gr.on(others, None, None, [strength, chart], js="() => ['', '']", **quiet)  # figures of other settings
    another.click(lambda s: int(_number(s)) + 1, seed, seed, **quiet)
    attempt.click(attempt_many, inputs, [strength_status, strength], concurrency_limit=2, **quiet)
    along.click(try_along, [knob, *inputs], [sweep_status, chart], concurrency_limit=2, **quiet)


def _within(numbers: Any) -> Any:
    """A slider or number box that takes an emptied box for its least value, and the nearest end for one beyond it.

    Gradio's own answer is an error in words for programmers, which comes while somebody types another number.
    """
    low, high = numbers.minimum, numbers.maximum
    numbers.preprocess = lambda value: min(max(_number(value), low), high)
    return numbers


def _number(value: Any) -> float:
    """A number from the page, 0 where it is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if math.isfinite(number) else 0.0


def _teach_tab(gr: Any, shop: Workshop, checkpoint: Any, tab: Any, demo: Any) -> None:
    """Fine-tune the chosen model on labelled captchas."""
    _html(
        gr,
        '<p class="tab-intro">Teach the chosen model your captchas. The pictures are named by their text (aB3x_1.png), '
        "or a labels.csv in the zip names it. All of them teach the new model; what to expect of it is measured by "
        "models that each did without a part of them. The model you start from stays as it is.</p>",
    )
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            source = gr.Radio(
                [("a zip", "zip"), ("the corrected readings", "feedback"), ("both", "both")],
                value="zip",
                label="Learn from",
                elem_id="source",
            )
            upload = gr.File(
                label="Zip of labelled captchas",
                file_types=[".zip"],
                height=160,
                elem_id="upload",
            )
            counted = _html(gr, "", elem_id="counted")
            epochs = _within(
                gr.Slider(
                    0,
                    60,
                    0,
                    step=1,
                    label="Epochs",
                    info="passes over all pictures; 0: as many as suit their number",
                    elem_id="epochs",
                )
            )
            with gr.Row():
                start = gr.Button("Teach", variant="primary", elem_id="start", min_width=120)
                cancel = gr.Button("Cancel", elem_id="cancel", min_width=90)
            said = _html(gr, "", elem_id="teach-said")
        with gr.Column(scale=5, min_width=280):
            panel = _html(gr, views.job_card(None, 0, {}), elem_id="job")
    mine = gr.State("")  # id of the job that this page started last
    offered_files = gr.State("")  # of that job, as the chooser has them
    timer = gr.Timer(1.0, active=False)

    def current(job_id: str) -> Any:
        return shop.teacher.find(job_id) or next(iter(shop.teacher.jobs()), None)

    def card(job_id: str) -> str:
        job = current(job_id)
        if job is None:
            return views.job_card(None, 0, {})
        return views.job_card(job, shop.teacher.before(job), _downloads(shop, job.model))

    def look(job_id: str, seen: str) -> tuple[Any, ...]:
        """What the timer asks for each second."""
        job = current(job_id)
        running = job is not None and job.running
        offered = " ".join(_downloads(shop, job.model).values()) if job else ""
        choices: Any = gr.skip()
        if offered != seen:
            choices = gr.Dropdown(choices=shop.names())
        return card(job_id), gr.Timer(active=running), choices, offered

    def begin(file: str | None, kind: str, rounds: float, name: str | None, job_id: str) -> tuple[Any, ...]:
        try:
            if (own := shop.teacher.find(job_id)) and own.running:
                raise UserError("the training that you started is not done yet: wait for it, or cancel it")
            if kind == "feedback" and shop.feedback.count() < LEAST_PICTURES:
                raise UserError(
                    f"{shop.feedback.count()} corrected readings are too few: {LEAST_PICTURES} are the least"
                )
            start_name, path = shop.teachable(name)
            rows, left_out = [], {}
            if kind in ("zip", "both"):
                if not file:
                    raise UserError("there is no zip yet: upload one with labelled captchas")
                rows, left_out = labelled_pictures(file)
            shards = shop.feedback.shards() if kind in ("feedback", "both") else []
            job = shop.teacher.submit(rows, path, start_name, int(_number(rounds)) or None, shards, left_out)
        except UserError as error:
            return views.note(views.sentence(error), "bad"), gr.skip(), gr.skip(), gr.skip()
        return "", job.id, card(job.id), gr.Timer(active=True)

    def stop(job_id: str) -> tuple[Any, ...]:
        job = current(job_id)
        if job is None or not job.running:
            return views.note("Nothing is being taught."), gr.skip(), gr.skip()
        shop.teacher.cancel(job)
        return "", card(job.id), gr.Timer(active=True)

    def arrive(job_id: str) -> tuple[Any, ...]:
        job = current(job_id)
        count = shop.feedback.count()
        readings = f"{count} corrected reading{'s' if count != 1 else ''} so far"
        return card(job_id), gr.Timer(active=job is not None and job.running), f'<p class="hint">{readings}.</p>'

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    start.click(begin, [upload, source, epochs, checkpoint, mine], [said, mine, panel, timer], **quiet)
    cancel.click(stop, mine, [said, panel, timer], **quiet)
    timer.tick(look, [mine, offered_files], [panel, timer, checkpoint, offered_files], trigger_mode="once", **quiet)
    tab.select(arrive, mine, [panel, timer, counted], **quiet)
    demo.load(arrive, mine, [panel, timer, counted], **quiet)


def _downloads(shop: Workshop, model: str | None) -> dict[str, str]:
    """Links to the files of a taught model, by the names that the route knows."""
    if model is None:
        return {}
    names = shop.models.paths()
    both = {"Checkpoint": model, "ONNX": model.replace(".safetensors", ".onnx")}
    return {label: f"models/{name}" for label, name in both.items() if name in names}


def _model_tab(gr: Any, shop: Workshop, checkpoint: Any, tab: Any) -> None:
    """What the chosen checkpoint says of itself."""
    card = _html(gr, "", elem_id="card")

    def describe(name: str | None) -> str:
        try:
            chosen, path = shop.models.path(name)
            metadata = shop.models.predictor(name).metadata
            return views.model_card(chosen, path, metadata, f"models/{chosen}")
        except UserError as error:
            return views.note(views.sentence(error), "bad")
        except OSError:
            return views.note("The model is gone: choose another, or reload the page.", "bad")

    gr.on([tab.select, checkpoint.change], describe, checkpoint, card, show_progress="hidden", api_visibility="private")
    # For programs: the chooser only takes names that it had at the start.
    name, answer, endpoint = (
        gr.Textbox("", visible=False, label="Model"),
        gr.HTML(visible=False),
        gr.Button(visible=False),
    )
    endpoint.click(lambda name: describe(name or None), name, answer, api_name="describe_model")


def build_app(shop: Workshop, limits: Limits | None = None, examples: str | Path = EXAMPLES) -> Any:
    """The route with the page mounted on it, one FastAPI app."""
    gr = _gradio()
    demo = build_demo(shop, examples)
    app = gr.mount_gradio_app(
        build_api(shop.models, limits),
        demo,
        path="/",
        show_error=True,
        ssr_mode=False,
        pwa=False,
        run_history=False,
        max_file_size=UPLOAD_LIMIT,
        theme=theme(gr),
        css_paths=[STYLE_SHEET],
        footer_links=["api"],
    )
    # As its own server would: until then Gradio takes any path of this machine for an upload.
    demo.has_launched = demo.is_running = True
    return app


def main() -> int:
    """Command line."""
    config = parse_config(InterfaceConfig, "A page that reads captchas, on this machine.")
    if config.queue < 1 or config.batch < 1:
        raise UserError("--queue and --batch must be 1 or more")
    models = Models(config.models or SAVED_MODELS, config.checkpoint, config.threads)
    shop = Workshop.build(models, config.data or ROOT / "data", config.threads)
    listener = _listen(config.host, config.port)
    with listener:
        app = build_app(shop, Limits(queue=config.queue, batch=config.batch))
        import uvicorn

        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3)
        )
        # The connections of open pages are cut at the end, which is no error.
        logging.getLogger("uvicorn.error").addFilter(
            lambda said: not (said.exc_info and isinstance(said.exc_info[1], asyncio.CancelledError))
        )
        host = f"[{config.host}]" if ":" in config.host else config.host
        print(f"{TITLE}: http://{host}:{config.port} (Ctrl-C ends it)", flush=True)
        # The first reader should not wait for the model; one that cannot be used says so on the page.
        threading.Thread(target=_warm_up, args=(models,), daemon=True).start()
        try:
            server.run(sockets=[listener])
        finally:
            shop.teacher.close()
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before the seconds that the page takes to build.

    Raises:
        UserError: it cannot be had.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OverflowError:
        raise UserError(f"there is no port {port}: --port is 0 to 65535") from None
    except OSError as error:
        reason = os.strerror(error.errno) if (error.errno or 0) > 0 else error.strerror or str(error)
        raise UserError(
            f"cannot listen on {host}:{port} ({reason}): stop what uses it, or name another --port or --host"
        ) from None


def _warm_up(models: Models) -> None:
    from contextlib import suppress

    with suppress(UserError):
        predictor = models.predictor()
        predictor.read([predictor.view(Image.new("RGB", (100, 40)))])  # the first pass is a slow one
    import captcha_reader.plots.grid  # noqa: F401


if __name__ == "__main__":
    run(main)
