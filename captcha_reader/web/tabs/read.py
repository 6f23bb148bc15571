"""The tab Read: one captcha in, its reading out, and a correction kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from captcha_reader.errors import UserError
from captcha_reader.plots.colors import confidence_class
from captcha_reader.web import html as views
from captcha_reader.web.models import Models
from captcha_reader.web.theme import COPY, TIDY, TYPED
from captcha_reader.web.uploads import check_picture
from captcha_reader.web.widgets import own_html, picture_box
from captcha_reader.web.workshop import Workshop, upload_bytes

if TYPE_CHECKING:
    from captcha_reader.reading.prediction import Prediction
    from predict import CaptchaPredictor


def describe_reading(image: str | Path | bytes | None, checkpoint: str | None, models: Models) -> dict[str, Any]:
    """Read one captcha.

    Args:
        image: a picture file's path or bytes.
        checkpoint: name of a model, one of `models.paths()`; the first by default.
        models: where to look.

    Returns:
        `text`; `confidence` of the whole text, 0 to 1; `characters`, each with `char`, `confidence`, `class` (high,
        medium, low) and, from a CTC model, `box` (left, top, right, bottom in pixels); `alternatives`, the three
        likeliest readings with `text` and `confidence`; `model`; `ms` from picture to text.

    Raises:
        UserError: there is no picture, it cannot be read, or the model cannot be used.
    """
    predictor, prediction, picture, milliseconds = read_picture(image, checkpoint, models)
    from captcha_reader.plots.boxes import character_boxes

    answer = prediction.as_dict()
    boxes = character_boxes(picture, prediction, predictor)
    for i, character in enumerate(answer["characters"]):
        character["class"] = confidence_class(prediction.char_confidences[i])
        if boxes:
            character["box"] = [round(v, 1) for v in boxes[i]]
    answer["alternatives"] = [{"text": t, "confidence": round(p, 6)} for t, p in prediction.alternatives]
    return answer | {"model": models.path(checkpoint)[0], "ms": round(milliseconds, 2)}


def read_picture(
    image: str | Path | bytes | None, checkpoint: str | None, models: Models
) -> tuple[CaptchaPredictor, Prediction, Image.Image, float]:
    if image is None:
        raise UserError("there is no picture yet: upload one, paste one, or choose an example")
    picture = check_picture(upload_bytes(image), "the file")
    predictor = models.predictor(checkpoint)
    started = time.perf_counter()
    prediction = predictor.read([predictor.view(picture, "the picture")])[0]
    return predictor, prediction, picture, (time.perf_counter() - started) * 1000


def read_tab(gr: Any, shop: Workshop, checkpoint: Any, examples: Sequence[Path]) -> None:
    """A picture in, its reading out, and a correction kept."""
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            picture = picture_box(
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
            reading = own_html(gr, views.NO_READING, elem_id="reading", js_on_load=COPY)
    with gr.Row():
        with gr.Column(scale=5, min_width=280):
            where = own_html(gr, "", elem_id="where")
        with gr.Column(scale=4, min_width=280):
            likely = own_html(gr, "", elem_id="likely")
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
            kept = own_html(gr, "", elem_id="kept")
            forget = gr.Button("Take it back", visible=False, size="sm", elem_id="forget")
    grid = own_html(gr, "", elem_id="grid")
    outputs = [reading, likely, where, grid]
    blank = (views.NO_READING, "", "", "")

    def show(image: str | None, name: str | None) -> Iterator[tuple[Any, ...]]:
        """The reading at once, the pictures as soon as they are drawn."""
        predictor, prediction, opened, milliseconds = read_picture(image, name, shop.models)
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
            count = shop.feedback.add(upload_bytes(image), said or "")
        except UserError as error:
            return views.note(views.sentence(error), "bad"), said, gr.skip()
        kept_now = f"Kept: {_corrected(count)} so far. The Teach tab can learn from them."
        return views.note(kept_now, "good"), "", gr.update(visible=True)

    def forget_correction(image: str | None) -> tuple[Any, ...]:
        try:
            if image is None:
                raise UserError("there is no picture any more: choose it once more")
            count = shop.feedback.remove(upload_bytes(image))
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
            return describe_reading(image, checkpoint or None, shop.models)
        except UserError as error:
            raise gr.Error(views.sentence(error), print_exception=False) from None

    endpoint.click(detect, [picture, model], answer, api_name="detect_captcha")


def _corrected(count: int) -> str:
    return f"{count} corrected reading{'' if count == 1 else 's'}"
