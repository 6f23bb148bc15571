"""The tab Strength: how soon does a machine read these captchas, as a curve that grows and a report to keep."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captcha_reader.errors import UserError
from captcha_reader.strength.settings import LEAST_LABELED
from captcha_reader.web.chart import Chart
from captcha_reader.web.html import bad, note, progress_bar, render
from captcha_reader.web.strength_job import REPORTS, Asked, StrengthJob
from captcha_reader.web.tabs.known import known
from captcha_reader.web.tabs.teach import describe_place
from captcha_reader.web.widgets import QUIET, own_html
from captcha_reader.web.workshop import Workshop

if TYPE_CHECKING:
    from markupsafe import Markup

BUDGETS = ("2m", "5m", "10m", "20m", "1h")
NO_TRAINING = "It is read without labels only, for training needs torch: pip install -r requirements.txt."
STARTED, STOPPING = "Started.", "Stopping."  # what is said of a measurement until it is done
LEVELS = {"bad": "low", "fair": "medium", "good": "high"}
LONGEST_FILE = 60  # characters of a zip's name in the report


# --------------------------------------------------------------------------------------------------------------------
# HTML


def strength_card(job: StrengthJob | None, before: int, links: Mapping[str, str], mine: bool = True) -> Markup:
    """A measurement: how far it is, its curve, its verdict, its report.

    Args:
        job: None where there is none.
        before: how many jobs come before it.
        links: addresses of the report's files.
        mine: whether the session that sees it started it; others see that it runs.
    """
    if job is None:
        return render("no_strength")
    job = copy(job)  # which goes on, and may end, while it is looked at
    return render(
        "strength",
        job=job,
        mine=mine,
        title=job.title,
        kind=LEVELS.get(job.verdict.get("level", ""), ""),
        bar=progress_bar(job.progress, describe_place(job, before) if mine or before else "in progress", "Measuring"),
        links=links,
        curve=attack_chart(job) if job.points else "",
        said=f"Measured on {job.points[0]['n']} pictures that no model learned from." if job.points else "",
    )


def attack_chart(job: StrengthJob) -> Markup:
    """Labels against what is read, with 95 % intervals; room for the numbers of labels that are still to come."""
    # The square root makes room for the first labels, where most happens, and has a place for none.
    points = [(point["labels"] ** 0.5, point["accuracy"]) for point in job.points]
    ticks = sorted({point["labels"] for point in job.points} | set(job.plan if job.running else ()))
    said = "; ".join(f"{point['labels']} labels: {point['accuracy']:.0%}" for point in job.points)
    chart = Chart(190, (min(ticks) ** 0.5, max(max(ticks) ** 0.5, 1)), 1.0)
    return chart.draw(
        f"Read correctly by the number of labels: {said}",
        points,
        [(rate, f"{rate:.0%}") for rate in (0, 0.25, 0.5, 0.75, 1)],
        [(count**0.5, str(count)) for count in ticks],
        dots=[(x, y, f"{point['labels']} labels: {y:.0%}") for (x, y), point in zip(points, job.points, strict=True)],
        whiskers=[(point["labels"] ** 0.5, *point["interval"]) for point in job.points],
    )


def report_links(job: StrengthJob | None) -> dict[str, str]:
    """Addresses of the files of a report, relative to the page, by their names."""
    return {name: f"reports/{job.key}/{name}" for name in REPORTS if name in job.reports} if job else {}


# --------------------------------------------------------------------------------------------------------------------
# The tab


def strength_tab(gr: Any, shop: Workshop, checkpoint: Any, owner: Any, follow: Any) -> Any:
    """Measure the captchas of a zip.

    Args:
        gr: Gradio.
        shop: what the tabs share.
        checkpoint: the chooser of the model that reads and learns.
        owner: the secret of the session.
        follow: the timer that looks at the job that runs.

    Returns:
        The panel that shows a measurement.
    """
    own_html(
        gr,
        '<p class="tab-intro">How weak is your captcha? The chosen model reads it, then learns from ever more of your '
        "labels and reads pictures that it has not seen. For captchas that you own or may test.</p>"
        '<p class="hint">Labels go into the zip as the names of the pictures (aB3x_1.png) or as a table beside them '
        "(labels.csv with lines such as 0001.png,aB3x); docs/data.md lists what else is understood.</p>",
    )
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            upload, unlabeled, entries, budget, start, cancel, said = _form(gr, shop)
        with gr.Column(scale=5, min_width=280):
            panel = own_html(gr, strength_card(None, 0, {}), elem_id="strength")

    def begin(
        file: str | None, without: bool, limit: str, model: str | None, secret: str, *line: Any
    ) -> tuple[Any, Any, Any, Any, Any]:
        secret = secret or secrets.token_urlsafe(16)
        try:
            if (own := shop.jobs.of(secret, StrengthJob)) and own.running:
                raise UserError("the measurement that you started is not done yet: wait for it, or cancel it")
            job = _start(shop, file, _asked(bool(without), limit, line), model, secret)
        except UserError as error:
            return bad(error), gr.skip(), gr.skip(), secret, gr.skip()
        message = f"{STARTED} Progress and the curve stand beside, and a line at the top of every tab."
        if job.asked.labels == "0" and not job.asked.unlabeled:
            message = f"{STARTED} {NO_TRAINING if not shop.models.torch else 'This model cannot learn, only read.'}"
        card = strength_card(job, shop.jobs.before(job), {})
        return note(message, "good"), card, gr.Timer(active=True), secret, gr.Button(interactive=True)

    def stop(secret: str) -> tuple[Any, Any]:
        try:
            shop.stop_job(secret, StrengthJob, "nothing is being measured")
        except UserError as error:
            return bad(error), gr.skip()
        return note(STOPPING), gr.Timer(active=True)

    def settle(secret: str, message: str | None) -> tuple[Any, Any]:
        """As the panel changes: there is something to cancel while a measurement runs, and what was said of one goes
        once it is done."""
        job = shop.job_for(secret, StrengthJob)
        running = job is not None and job.running
        over = not running and any(word in (message or "") for word in (STARTED, STOPPING))
        return "" if over else gr.skip(), gr.Button(interactive=running)

    inputs = [upload, unlabeled, budget, checkpoint, owner, *entries]
    start.click(begin, inputs, [said, panel, follow, owner, cancel], **QUIET)
    cancel.click(stop, owner, [said, follow], **QUIET)
    panel.change(settle, [owner, said], [said, cancel], **QUIET)
    return panel


def _form(gr: Any, shop: Workshop) -> tuple[Any, ...]:
    """What is measured, what is known of it, how long it may take; the buttons, and what they say."""
    upload = gr.File(
        label=f"Zip of captchas, {LEAST_LABELED} or more", file_types=[".zip"], height=110, elem_id="strength-zip"
    )
    with gr.Row():
        unlabeled = gr.Checkbox(label="They have no labels", min_width=150, elem_id="strength-unlabeled")
        fold = gr.Checkbox(label="Case does not matter", min_width=150, elem_id="strength-case")
    box: dict[str, Any] = {"max_lines": 1, "min_width": 110}
    with gr.Row():
        characters = gr.Textbox(
            label="Characters, if known", placeholder="0-9A-Z", max_length=300, elem_id="strength-characters", **box
        )
        length = gr.Textbox(label="Length", placeholder="6 or 4-6", max_length=20, elem_id="strength-length", **box)
        budget = gr.Dropdown(
            [(budget.replace("m", " min").replace("1h", "1 hour"), budget) for budget in BUDGETS],
            value="10m",
            label="Time, at most",
            min_width=110,
            elem_id="strength-budget",
        )
    can = bool(shop.jobs.commands.strength)
    with gr.Row(elem_id="strength-buttons"):
        start = gr.Button("Measure", variant="primary", elem_id="measure", min_width=95, interactive=can)
        cancel = gr.Button("Cancel", elem_id="strength-cancel", min_width=80, interactive=False)
    said = own_html(gr, "" if shop.models.torch else note(NO_TRAINING), elem_id="strength-said")
    return upload, unlabeled, [characters, length, fold], budget, start, cancel, said


def _asked(unlabeled: bool, budget: str, line: tuple[Any, ...]) -> Asked:
    """What the form says.

    Raises:
        UserError: an entry cannot be used.
    """
    if budget not in BUDGETS:
        raise UserError("there is no such budget: choose one from the list")
    given = known(*line)
    characters, length = (str(entry or "").strip() for entry in line[:2])
    folded = bool(given and given.ignore_case)
    return Asked(budget=budget, unlabeled=unlabeled, characters=characters, length=length, ignore_case=folded)


def _start(shop: Workshop, file: str | None, asked: Asked, model: str | None, owner: str) -> StrengthJob:
    """Queue the measurement of a zip.

    Raises:
        UserError: there is no zip, it cannot be used, or too many jobs wait.
    """
    if not file:
        raise UserError("there is no zip yet: upload one with captchas")
    try:
        name, path = shop.trainable(model)
    except UserError:  # a final .onnx: it reads all the same
        name, path = shop.models.path(model)
    if path.suffix != ".safetensors" or not shop.models.torch:
        asked = Asked(**{**vars(asked), "labels": "0"})

    def make(job_id: str, folder: Path) -> StrengthJob:
        shown = "".join(c for c in Path(file).name if c.isprintable())[:LONGEST_FILE]
        job = StrengthJob(job_id, folder, path, name, asked, shown, name="a captcha", owner=owner)
        job.fill(file)
        return job

    return shop.jobs.add(make)
