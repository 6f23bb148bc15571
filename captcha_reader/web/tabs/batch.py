"""The tab Batch: many pictures in, a table out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.web import html as views
from captcha_reader.web.batch_reading import Batch, batch_summary, count_pictures, draw_batch, read_batch
from captcha_reader.web.widgets import own_html
from captcha_reader.web.workshop import Workshop


def batch_tab(gr: Any, shop: Workshop, checkpoint: Any) -> None:
    """Many pictures in, a table out."""
    own_html(
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
    status = own_html(gr, "", elem_id="batch-status")
    result = own_html(gr, "", elem_id="batch-result")
    grid = own_html(gr, "", elem_id="batch-grid")

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
            yield gr.skip(), gr.skip(), draw_batch(batch) if batch.rows else ""
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
