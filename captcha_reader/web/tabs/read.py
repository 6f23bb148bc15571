"""The tab Read: one captcha in, its reading out, and a correction kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from captcha_reader.errors import UserError
from captcha_reader.plots.colors import confidence_class
from captcha_reader.web.html import bad, note, render, sentence
from captcha_reader.web.limits import Refused
from captcha_reader.web.models import Models
from captcha_reader.web.tabs.known import NotPossible, known, known_line, problem
from captcha_reader.web.theme import COPY, TIDY, TYPED
from captcha_reader.web.uploads import check_picture
from captcha_reader.web.widgets import QUIET, own_html, picture_box
from captcha_reader.web.workshop import Workshop, upload_bytes

if TYPE_CHECKING:
    from markupsafe import Markup

    from captcha_reader.reading.constraints import Constraints
    from captcha_reader.reading.prediction import Prediction

WHERE = "Where each character was seen"
NOT_READ = "Not read: what you know of it cannot be used"


# --------------------------------------------------------------------------------------------------------------------
# Readings


def describe_reading(image: str | Path | bytes | None, checkpoint: str | None, models: Models) -> dict[str, Any]:
    """Read one captcha, as data; `interface.detect_captcha` says what the answer holds.

    Raises:
        UserError: there is no picture, it cannot be read, or the model cannot be used.
    """
    from captcha_reader.plots.boxes import character_boxes

    predictor, prediction, picture, milliseconds = read_picture(image, checkpoint, models)
    answer = prediction.as_dict()
    boxes = character_boxes(picture, prediction, predictor)
    for i, character in enumerate(answer["characters"]):
        character["class"] = confidence_class(prediction.char_confidences[i])
        if boxes:
            character["box"] = [round(v, 1) for v in boxes[i]]
    answer["alternatives"] = [{"text": t, "confidence": round(p, 6)} for t, p in prediction.alternatives]
    return answer | {"model": models.path(checkpoint)[0], "ms": round(milliseconds, 2)}


def read_picture(
    image: str | Path | bytes | None, checkpoint: str | None, models: Models, constraints: Constraints | None = None
) -> tuple[Any, Prediction, Image.Image, float]:
    """The predictor, what it reads, the picture that it was shown, and the milliseconds that it took.

    Args:
        image: a picture file's path or bytes.
        checkpoint: name of a model on offer; the first by default.
        models: on offer.
        constraints: what is known of the text.

    Raises:
        NotPossible: the model cannot write any text that `constraints` allow.
        UserError: there is no picture, it cannot be read, or the model cannot be used.
    """
    if image is None:
        raise UserError("there is no picture yet: upload one, paste one, or choose an example")
    picture = check_picture(upload_bytes(image), "the file")
    predictor = models.predictor(checkpoint)
    started = time.perf_counter()
    view = predictor.view(picture, "the picture")
    try:
        prediction = predictor.read([view], constraints=constraints)[0]
    except Refused:  # it took too long
        raise
    except UserError as error:
        raise NotPossible(str(error)) if constraints else error from None
    return predictor, prediction, picture, (time.perf_counter() - started) * 1000


# --------------------------------------------------------------------------------------------------------------------
# HTML


def no_reading(why: Exception | str, kind: str = "bad") -> Markup:
    """In place of a reading, why there is none."""
    return render("no_reading", why=why, kind=kind)


def blank() -> Markup:
    """Before the first reading."""
    return no_reading("Choose a picture: what it says appears here", "")


def reading_card(prediction: Prediction, milliseconds: float, model: str, example: bytes = b"") -> Markup:
    """The reading in large type, each character in the color of its class of confidence, and the figures.

    Args:
        prediction: what was read.
        milliseconds: that it took.
        model: what the page calls it.
        example: PNG file of the picture, where it is one of ours.
    """
    return render("reading", prediction=prediction, milliseconds=milliseconds, model=model, example=example)


def likely_card(alternatives: Sequence[tuple[str, float]], reading: str | None = None) -> Markup:
    """The most likely whole readings, with bars, and why `reading`, shown in large type, may not come first."""
    differs = reading is not None and bool(alternatives) and alternatives[0][0] != reading
    return render("likely", alternatives=alternatives, differs=differs)


def where_card(boxes: Image.Image | None, prediction: Prediction) -> Markup | str:
    """Where each character was seen, or why that is not known."""
    if not prediction.text:
        return ""
    if boxes is None:
        return render("nowhere", title=WHERE)
    hint = (
        "A box spans the columns around the point where the network was surest of a character."
        if prediction.codec.along_width
        else "A box spans the columns that this position's attention went to."
    )
    alt = f"the captcha with a box around each of {prediction.text}"
    return render("picture", title=WHERE, picture=boxes, alt=alt, hint=hint, wide=False)


def grid_card(heat: Image.Image) -> Markup:
    """The confidence grid."""
    alt = "probability of every character of the alphabet at each position of the reading"
    return render("picture", title="Confidence grid", picture=heat, alt=alt, hint="", wide=True)


# --------------------------------------------------------------------------------------------------------------------
# The tab


def read_tab(gr: Any, shop: Workshop, checkpoint: Any, examples: Sequence[Path], demo: Any) -> None:
    """A picture in, its reading out, and a correction kept."""
    with gr.Row(elem_id="read-row"):
        with gr.Column(scale=4, min_width=280, elem_id="read-left"):
            picture = picture_box(
                gr,
                label="Captcha: upload, paste or choose one",
                type="filepath",
                image_mode=None,  # keeps transparency
                sources=["upload", "clipboard"],
                height=190,
                elem_id="picture",
                alt_text="the captcha to read",
            )
            line = known_line(gr, shop, checkpoint, demo, "read")
            button = gr.Button("Read", variant="primary", elem_id="read")
            if examples:
                gr.Examples([[str(path)] for path in examples], [picture], cache_examples=False, elem_id="examples")
        with gr.Column(scale=5, min_width=280, elem_id="read-right"):
            reading = own_html(gr, blank(), elem_id="reading", js_on_load=COPY)
            example = own_html(gr, "", elem_id="example", js_on_load=COPY)
            if not shop.read_only:
                _corrections(gr, shop, picture)
    with gr.Row():
        with gr.Column(scale=5, min_width=280):
            where = own_html(gr, "", elem_id="where")
        with gr.Column(scale=4, min_width=280):
            likely = own_html(gr, "", elem_id="likely")
    grid = own_html(gr, "", elem_id="grid")
    outputs = [reading, likely, where, grid, line.said]

    def read(image: str | None, name: str | None, *entries: Any) -> Iterator[tuple[Any, ...]]:
        try:
            for step in _show(gr, shop, image, name, entries):
                yield *step, ""
        except NotPossible as error:
            yield no_reading(NOT_READ, ""), "", "", "", bad(error)
        except UserError as error:
            raise gr.Error(sentence(error), print_exception=False) from None

    shown = gr.State(())  # picture, model and line of the reading that stands there

    def read_at_once(
        image: str | None, name: str | None, seen: tuple[Any, ...], *entries: Any
    ) -> Iterator[tuple[Any, ...]]:
        asked = (image or "", name or "", *entries)
        if asked == seen:  # replacing a picture tells of it twice
            yield (gr.skip(),) * 6
        elif image is None:
            yield blank(), "", "", "", problem(shop, name, entries), asked
        else:
            try:
                for step in _show(gr, shop, image, name, entries):
                    yield *step, "", asked
            except NotPossible as error:
                yield no_reading(NOT_READ, ""), "", "", "", bad(error), ()
            except UserError as error:  # the last picture's reading must not stand beside this one
                gr.Warning(sentence(error))
                yield no_reading(error), "", "", "", gr.skip(), asked

    def read_example() -> Any:
        """The reading of the first example, for whoever opens the page."""
        if not examples:
            return ""
        try:
            data = examples[0].read_bytes()
            _, prediction, _, milliseconds = read_picture(data, None, shop.models)
            return reading_card(prediction, milliseconds, shop.label(None), data)
        except (OSError, UserError):  # the model says so itself when a picture is read
            return ""

    button.click(read, [picture, checkpoint, *line.entries], outputs, **QUIET)
    inputs, results = [picture, checkpoint, shown, *line.entries], [*outputs, shown]
    # One event for both, which runs once at a time: a reading that comes late must not follow a newer one.
    at_once: dict[str, Any] = {"trigger_mode": "always_last", "api_visibility": "private"}
    gr.on([picture.change, *line.typed], read_at_once, inputs, results, show_progress="hidden", **at_once)
    # A model that is chosen for the first time takes seconds to load: show that.
    checkpoint.change(read_at_once, inputs, results, show_progress="minimal", **at_once)
    line.taken.then(read_at_once, inputs, results, **QUIET)
    demo.load(read_example, None, example, **QUIET)
    _endpoint(gr, shop, picture)


def _show(
    gr: Any, shop: Workshop, image: str | None, name: str | None, entries: Sequence[Any]
) -> Iterator[tuple[Any, ...]]:
    """The reading, the likely texts, where they stand and the grid: the reading at once, pictures when they are drawn.

    Raises:
        NotPossible: the line says what cannot be used; `entries` are those of `known`.
        UserError: there is no picture, it cannot be read, or the model cannot be used.
    """
    predictor, prediction, opened, milliseconds = read_picture(image, name, shop.models, known(*entries))
    from captcha_reader.plots.boxes import draw_boxes
    from captcha_reader.plots.canvas import figure_image
    from captcha_reader.plots.confidence import confidence_grid

    card = reading_card(prediction, milliseconds, shop.label(name))
    yield card, likely_card(prediction.alternatives, prediction.text), gr.skip(), gr.skip()
    boxes = draw_boxes(opened, prediction, predictor)
    heat = figure_image(confidence_grid(prediction))
    yield gr.skip(), gr.skip(), where_card(boxes, prediction), grid_card(heat)


def _corrections(gr: Any, shop: Workshop, picture: Any) -> None:
    """A box for the right text, and what was kept of it."""
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

    def keep_correction(image: str | None, said: str) -> tuple[Any, ...]:
        try:
            if image is None:
                raise UserError("there is no picture to correct: choose one first")
            count = shop.feedback.add(upload_bytes(image), said or "")
        except UserError as error:
            return bad(error), said, gr.skip()
        kept_now = f"Kept: {corrected(count)} so far. The Teach tab can learn from them."
        return note(kept_now, "good"), "", gr.update(visible=True)

    def forget_correction(image: str | None) -> tuple[Any, ...]:
        try:
            if image is None:
                raise UserError("there is no picture any more: choose it once more")
            count = shop.feedback.remove(upload_bytes(image))
        except UserError as error:
            return bad(error), gr.skip()
        return note(f"Taken back: {corrected(count)} left.", "good"), gr.update(visible=False)

    correction.input(None, picture, None, js=TYPED, **QUIET)
    # Before the reading, which it would wait for.
    picture.change(None, [picture, kept], [kept, forget], js=TIDY, **QUIET)
    outputs = [kept, correction, forget]
    gr.on([keep.click, correction.submit], keep_correction, [picture, correction], outputs, **QUIET)
    forget.click(forget_correction, picture, [kept, forget], **QUIET)


def corrected(count: int) -> str:
    """So many corrected readings, in words."""
    return f"{count} corrected reading{'' if count == 1 else 's'}"


def _endpoint(gr: Any, shop: Workshop, picture: Any) -> None:
    """For programs: the same reading as data. The page's list of models only takes names that it had at the start."""
    model = gr.Textbox("", visible=False, label="Model")
    answer = gr.JSON(visible=False)
    endpoint = gr.Button(visible=False)

    def detect(image: str | None, checkpoint: str | None) -> dict[str, Any]:
        """Read a captcha; the model is one of the names that /models lists, the first where there is none."""
        try:
            return describe_reading(image, checkpoint or None, shop.models)
        except UserError as error:
            raise gr.Error(sentence(error), print_exception=False) from None

    endpoint.click(detect, [picture, model], answer, api_name="detect_captcha")
