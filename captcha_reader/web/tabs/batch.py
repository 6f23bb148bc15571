"""The tab Batch: many pictures in, a table out; two models may read them and are compared."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from captcha_reader.errors import UserError
from captcha_reader.reading.metrics import text_metrics
from captcha_reader.web.batch_reading import Batch, BatchReader, batch_files, compare, count_pictures
from captcha_reader.web.html import bad, interval, note, percent, progress_bar, render
from captcha_reader.web.tabs.known import NotPossible, known, known_line, problem, require_fit
from captcha_reader.web.widgets import QUIET, chooser, own_html
from captcha_reader.web.workshop import Workshop

if TYPE_CHECKING:
    from markupsafe import Markup

GRID_PICTURES = 24
SHOWN_ROWS = 1000
NOTHING_ELSE = "no other model"


# --------------------------------------------------------------------------------------------------------------------
# HTML


def batch_summary(
    batch: Batch,
    model: str,
    seconds: float,
    labels: str = "no",
    other: str = "",
    stopped_of: int = 0,
) -> Markup:
    """Headline figures, downloads and the table of a batch.

    Args:
        batch: what was read.
        model: what the page calls the model.
        seconds: that it took.
        labels: as for `BatchReader`.
        other: what the page calls the second model, where two are compared.
        stopped_of: how many pictures there are, where the reading was stopped before its end.
    """
    n = len(batch.rows)
    if not n:
        return render("nothing_read", rows=batch.rows, refused=batch.refused)
    rate = n / max(seconds, 1e-3)
    items = [
        ("Pictures", f"{n:,}"),
        ("Model", model),
        ("Pictures a second", f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"),
    ]
    if batch.labeled:
        m = text_metrics([row["label"] for row in batch.rows], [row["reading"] for row in batch.rows])
        items[1:1] = [
            ("Sequence accuracy", percent(m["sequence_accuracy"])),
            ("95 % interval", interval(m["wilson_95"])),
            ("CER", percent(m["cer"])),
        ]
    if batch.constraints:
        items.append(("Known", str(batch.constraints)))
    table, data = batch_files(batch)
    return render(
        "batch",
        rows=batch.rows,
        refused=batch.refused,
        labeled=batch.labeled,
        scheme=batch.scheme,
        misfit=batch.misfit,
        items=items,
        table=table,
        data=data,
        unlike=labels == "auto" and not batch.labeled,
        comparison=compare(batch, model, other) if other else None,
        stopped=stopped_of > 0,
        total=stopped_of,
        shown=SHOWN_ROWS,
    )


def batch_grid(batch: Batch) -> Markup:
    """The first pictures with their readings, and the same as one picture to download."""
    from captcha_reader.plots.canvas import figure_image
    from captcha_reader.plots.grid import draw_grid

    rows = batch.rows[:GRID_PICTURES]
    figure = draw_grid(
        [row["picture"] for row in rows],
        [row["prediction"] for row in rows],
        [row["label"] for row in rows] if batch.labeled else None,
        [row["file"] for row in rows],
    )
    title = "All readings"
    if len(rows) < len(batch.rows):
        first = "first" if "other" in rows[0] else "least sure"  # of two models: what they read differently
        title = f"The {len(rows)} {first} of {len(batch.rows):,}"
    picture = figure_image(figure)
    colored = not batch.scheme
    return render("batch_grid", title=title, rows=rows, labeled=batch.labeled, picture=picture, colored=colored)


# --------------------------------------------------------------------------------------------------------------------
# The tab


def batch_tab(gr: Any, shop: Workshop, checkpoint: Any, demo: Any) -> Any:
    """Many pictures in, a table out.

    Args:
        gr: Gradio.
        shop: what the tabs share.
        checkpoint: the chooser of the model.
        demo: the page.

    Returns:
        The chooser of the second model.
    """
    own_html(
        gr,
        '<p class="tab-intro">Many pictures, or a zip of them. The readings come least sure first, so that a person '
        "checks what matters.</p>",
    )
    files, labels, other, same_source, line, start, stop, status = _form(gr, shop, checkpoint, demo)
    result = own_html(gr, "", elem_id="batch-result")
    grid = own_html(gr, "", elem_id="batch-grid")
    stopping = gr.State({})  # of this session; `stop` in it ends the reading after the next chunk

    def read_all(
        uploads: list[str] | None,
        name: str | None,
        second: str,
        named: str,
        one_source: bool,
        asked: dict[str, bool],
        *entries: Any,
    ) -> Iterator[tuple[Any, ...]]:
        asked.clear()
        try:
            if not uploads:
                raise UserError("there are no pictures yet: choose files, or a zip")
            constraints = known(*entries)
            started, total = time.perf_counter(), count_pictures(uploads)
            yield progress_bar(0, f"0 of {total:,}", "Reading"), "", "", gr.Button(interactive=True), ""
            predictor = shop.models.predictor(name)
            rival = shop.models.predictor(second) if second else None
            require_fit(constraints, predictor, shop.label(name) if rival else "")
            if rival:
                require_fit(constraints, rival, shop.label(second))
            reader = BatchReader(predictor, rival, named, one_source, constraints)
            stopped = False
            for done in reader.read(uploads):
                yield progress_bar(done / max(total, 1), f"{done:,} of {total:,}", "Reading"), *[gr.skip()] * 4
                if stopped := bool(asked.get("stop")):
                    break
            batch = reader.batch()
            seconds = time.perf_counter() - started
            rival_name = shop.label(second) if second else ""
            summary = batch_summary(batch, shop.label(name), seconds, named, rival_name, total if stopped else 0)
            yield (
                note("Stopped.", "bad") if stopped else "",
                summary,
                gr.skip(),
                gr.Button(interactive=False),
                gr.skip(),
            )
            yield gr.skip(), gr.skip(), batch_grid(batch) if batch.rows else "", *[gr.skip()] * 2
        except NotPossible as error:
            yield "", "", "", gr.Button(interactive=False), bad(error)
        except UserError as error:
            yield bad(error), "", "", gr.Button(interactive=False), gr.skip()

    inputs = [files, checkpoint, other, labels, same_source, stopping, *line.entries]
    check: dict[str, Any] = {"trigger_mode": "always_last", **QUIET}
    gr.on(line.typed, lambda name, *line: problem(shop, name, line), [checkpoint, *line.entries], line.said, **check)
    start.click(read_all, inputs, [status, result, grid, stop, line.said], concurrency_limit=2, **QUIET)
    stop.click(lambda asked: asked.update(stop=True), stopping, None, concurrency_limit=None, **QUIET)
    return other


def _form(gr: Any, shop: Workshop, checkpoint: Any, demo: Any) -> tuple[Any, ...]:
    """What is read and how; the buttons, and what they say."""
    with gr.Row():
        with gr.Column(scale=3, min_width=260):
            files = gr.File(
                label="Pictures, or a zip of pictures",
                file_count="multiple",
                file_types=["image", ".zip"],
                height=150,
                elem_id="files",
            )
        with gr.Column(scale=2, min_width=260):
            with gr.Row():
                labels = gr.Dropdown(
                    [("find out", "auto"), ("yes", "yes"), ("no", "no")],
                    value="auto",
                    label="Labels in names",
                    min_width=120,
                    elem_id="labels",
                )
                other = chooser(
                    gr,
                    [(NOTHING_ELSE, ""), *shop.choices()],
                    value="",
                    label="Compare with",
                    min_width=120,
                    elem_id="compare",
                )
            same_source = gr.Checkbox(
                label="All are from one source",
                info="Its lengths and characters are learned from all of them, and help to read each.",
                elem_id="same-source",
            )
            line = known_line(gr, shop, checkpoint, demo, "batch")
            with gr.Row():
                start = gr.Button("Read all", variant="primary", elem_id="read-all", min_width=120)
                stop = gr.Button("Stop", elem_id="stop-batch", min_width=80, interactive=False)
            status = own_html(gr, "", elem_id="batch-status")
    return files, labels, other, same_source, line, start, stop, status
