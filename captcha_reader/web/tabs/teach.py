"""The tab Teach: fine-tune a model on labeled captchas."""

from __future__ import annotations

from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.web import html as views
from captcha_reader.web.feedback import Row
from captcha_reader.web.labeled_zip import LEAST_PICTURES, labeled_pictures
from captcha_reader.web.widgets import number, own_html, within
from captcha_reader.web.workshop import Workshop


def teach_tab(gr: Any, shop: Workshop, checkpoint: Any, tab: Any, demo: Any) -> None:
    """Fine-tune the chosen model on labelled captchas."""
    own_html(
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
            counted = own_html(gr, "", elem_id="counted")
            epochs = within(
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
            said = own_html(gr, "", elem_id="teach-said")
        with gr.Column(scale=5, min_width=280):
            panel = own_html(gr, views.job_card(None, 0, {}), elem_id="job")
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
            rows: list[Row] = []
            left_out: dict[str, int] = {}
            if kind in ("zip", "both"):
                if not file:
                    raise UserError("there is no zip yet: upload one with labelled captchas")
                rows, left_out = labeled_pictures(file)
            shards = shop.feedback.shards() if kind in ("feedback", "both") else []
            job = shop.teacher.submit(rows, path, start_name, int(number(rounds)) or None, shards, left_out)
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
