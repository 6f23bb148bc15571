"""The tab Teach: fine-tune a model on labeled captchas."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from copy import copy
from itertools import chain
from typing import TYPE_CHECKING, Any

from captcha_reader.errors import UserError
from captcha_reader.web.chart import Chart
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.html import bad, duration, note, progress_bar, render
from captcha_reader.web.job import Job
from captcha_reader.web.labeled_zip import LEAST_PICTURES, labeled_pictures
from captcha_reader.web.labels import OWNER
from captcha_reader.web.own_models import LONGEST_NAME, check_name
from captcha_reader.web.tabs.read import corrected
from captcha_reader.web.widgets import QUIET, number, own_html, within
from captcha_reader.web.workshop import TORCH_MISSING, Workshop

if TYPE_CHECKING:
    from markupsafe import Markup

    from captcha_reader.web.feedback import Row

FOLLOW_SECONDS = 1.0  # between two looks at a job that runs
PHASES = {"frozen": "of the head alone", "whole": "of the whole network"}


# --------------------------------------------------------------------------------------------------------------------
# HTML


def job_card(job: FineTuning | None, before: int, downloads: Mapping[str, str], mine: bool = True) -> Markup:
    """A fine-tuning: its steps, how far it is, its curve, its result, its files.

    Args:
        job: None where there is none.
        before: how many jobs come before it.
        downloads: links to the files of its model.
        mine: whether the session that sees it started it.
    """
    if job is None:
        return render("no_job")
    job = copy(job)  # which goes on, and may end, while it is looked at
    kind = {"done": "good", "failed": "bad", "cancelled": "bad"}.get(job.state, "")
    results = [(name, job.result[name]) for name in ("before", "after") if job.result.get(name)]
    reasons = ", ".join(f"{n} {reason}" for reason, n in (job.result.get("reasons") or {}).items())
    left_out = job.result.get("left_out")
    curve, said = _curve(job.history)
    return render(
        "job",
        job=job,
        mine=mine,
        by="the tab Label, which learns from its set" if job.owner.startswith(OWNER) else "another visitor",
        title=job.title,
        kind=kind,
        bar=progress_bar(job.progress, describe_place(job, before), "Training"),
        steps=describe_steps(job),
        results=results if job.result.get("after") else [],
        left_out=f"{left_out} left out: {reasons}." if left_out else "",
        curve=curve,
        said=said,
        downloads=downloads,
    )


def running_strip(job: Job | None, before: int) -> Markup | str:
    """A line for every tab: which job runs, and how long it takes."""
    job = copy(job)  # as for the card
    if job is None or not job.running:
        return ""
    return render(
        "running",
        job=job,
        title=job.title,
        note=describe_place(job, before),
        whole=round(job.progress * 100),
    )


def describe_place(job: Job, before: int) -> str:
    """Where a job that runs stands, and how long it still takes."""
    if before:
        return f"{before} before this one"
    left = f", about {duration(job.left)} left over all" if job.left is not None else ""
    return job.note + left


def describe_steps(job: FineTuning) -> list[dict[str, str]]:
    """What a job does, step by step: `text`, `detail` and `state` (done, now or to come) of each."""
    order = ["checking", "training", "measuring", "exporting"]
    place = {"waiting": -1, "checking": 0, "training": 1, "exporting": 3, "done": 4}.get(job.state)
    if place is None:  # it failed or was stopped: the message says where
        return []
    if job.state == "training" and job.plan and job.place not in ("", job.plan[0]["name"]):
        place = 2
    folds = len(job.plan) - 1
    details = {"checking": "", "training": "", "measuring": "", "exporting": ""}
    if job.plan:
        parts = [
            f"{phase['epochs']} epoch{'s' if phase['epochs'] != 1 else ''} {PHASES.get(phase['name'], phase['name'])}"
            for phase in job.plan[0]["phases"]
        ]
        details["training"] = ", then ".join(parts)
        details["measuring"] = f"{folds} more trainings, each without a part of the pictures, which it then reads"
    texts = {
        "checking": "Check the pictures",
        "training": "Train on all of them",
        "measuring": "Measure what to expect",
        "exporting": "Export to ONNX",
    }
    return [
        {"text": texts[key], "detail": details[key], "state": "done" if i < place else "now" if i == place else "later"}
        for i, key in enumerate(order)
        if job.measure or key != "measuring"
    ]


def _curve(history: Sequence[Mapping[str, Any]]) -> tuple[Markup | str, str]:
    """The training loss, epoch by epoch, and the latest figures in words."""
    losses = [(float(row["epoch"]), float(row["train_loss"])) for row in history if "train_loss" in row]
    if not losses:
        return "", ""
    highest = max(loss for _, loss in losses)
    epoch, latest = losses[-1]
    said = f"Loss on the pictures it learns from: {latest:.2f} after epoch {epoch:g}."
    read = [row["train_accuracy"] for row in history if row.get("train_accuracy") is not None]
    if read:
        said += f" It reads {read[-1]:.0%} of them exactly right."
    chart = Chart(150, (1, max(epoch, 2)), highest)
    drawn = chart.draw(
        f"Loss on the pictures it learns from, epoch by epoch; {latest:.2f} after epoch {epoch:g}",
        losses,
        [(highest * share, f"{highest * share:.2g}") for share in (0, 0.5, 1)],
        [(1, "1"), (epoch, f"{epoch:g}")] if epoch > 1 else [(1, "1")],
        dots=[(epoch, latest, f"{latest:.2f}")],
    )
    return drawn, said


# --------------------------------------------------------------------------------------------------------------------
# The tab


def teach_tab(gr: Any, shop: Workshop, checkpoint: Any, owner: Any, follow: Any) -> Any:
    """Fine-tune the chosen model on labeled captchas.

    Args:
        gr: Gradio.
        shop: what the tabs share.
        checkpoint: the chooser of the model.
        owner: the secret of the session.
        follow: the timer that looks at the job that runs.

    Returns:
        The panel that shows a job.
    """
    own_html(
        gr,
        '<p class="tab-intro">Fine-tune the chosen model on your captchas: a zip of pictures that are named by their '
        "text (aB3x_1.png), or with a labels.csv. The model you start from stays as it is.</p>",
    )
    can = shop.models.torch and bool(shop.jobs.commands.train)
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            upload, source, epochs, name, start, cancel, said = _form(gr, can)
        with gr.Column(scale=5, min_width=280):
            panel = own_html(gr, job_card(None, 0, {}), elem_id="job")

    def expect(file: str | None, kind: str) -> Any:
        """What would happen, as soon as there is a zip."""
        if kind == "feedback":
            return note(f"{corrected(shop.feedback.count())} so far; {LEAST_PICTURES} are the least.")
        if not file:
            return ""
        try:
            rows, left_out = labeled_pictures(file)
        except UserError as error:
            return bad(error)
        return note(_plan(len(rows), sum(left_out.values()), kind == "both", shop.feedback.count()))

    def begin(
        file: str | None, kind: str, rounds: float, new: str, model: str | None, secret: str
    ) -> tuple[Any, Any, Any, Any]:
        secret = secret or secrets.token_urlsafe(16)
        try:
            if (own := shop.jobs.of(secret, FineTuning)) and own.running:
                raise UserError("the training that you started is not done yet: wait for it, or cancel it")
            if new := (new or "").strip():
                check_name(new)
            start_name, path = shop.trainable(model)
            rows, left_out = _rows(shop, file, kind)
            settings: dict[str, Any] = {"left_out": left_out, "name": new, "owner": secret}
            job = shop.jobs.submit(rows, path, start_name, int(number(rounds)) or None, **settings)
        except UserError as error:
            return bad(error), gr.skip(), gr.skip(), secret
        message = f"Started: {job.name}. Steps and progress stand beside, and at the top of every tab."
        return note(message, "good"), job_card(job, shop.jobs.before(job), {}), gr.Timer(active=True), secret

    def stop(secret: str) -> tuple[Any, Any]:
        try:
            shop.stop_job(secret, FineTuning, "no training runs")
        except UserError as error:
            return bad(error), gr.skip()
        return note("Stopping."), gr.Timer(active=True)

    gr.on([upload.change, source.change], expect, [upload, source], said, **QUIET)
    start.click(begin, [upload, source, epochs, name, checkpoint, owner], [said, panel, follow, owner], **QUIET)
    cancel.click(stop, owner, [said, follow], **QUIET)
    return panel


def _form(gr: Any, can: bool) -> tuple[Any, ...]:
    """What is learned from, how, and under which name; the buttons, and what they say.

    Args:
        gr: Gradio.
        can: whether anything can be fine-tuned here.
    """
    upload = gr.File(label="Zip of labeled captchas", file_types=[".zip"], height=130, elem_id="upload")
    with gr.Row():
        source = gr.Dropdown(
            [("the zip", "zip"), ("the corrected readings", "feedback"), ("both", "both")],
            value="zip",
            label="Learn from",
            min_width=130,
            elem_id="source",
        )
        epochs = within(
            gr.Number(
                0,
                label="Epochs (0: by number)",
                precision=0,
                minimum=0,
                maximum=60,
                min_width=110,
                elem_id="epochs",
            )
        )
    name = gr.Textbox(
        label="Name of the new model",
        placeholder="my captchas",
        max_lines=1,
        max_length=LONGEST_NAME,
        elem_id="new-name",
    )
    with gr.Row():
        start = gr.Button("Fine-tune", variant="primary", elem_id="start", min_width=120, interactive=can)
        cancel = gr.Button("Cancel", elem_id="cancel", min_width=90, interactive=can)
    said = own_html(gr, "" if can else note(TORCH_MISSING, "bad"), elem_id="teach-said")
    return upload, source, epochs, name, start, cancel, said


def _rows(shop: Workshop, file: str | None, kind: str) -> tuple[Any, dict[str, int]]:
    """The labeled pictures of a job, and how many were left out by reason.

    Raises:
        UserError: there is no zip, it cannot be used, or there are too few corrections.
    """
    rows: Sequence[Row] = []
    left_out: dict[str, int] = {}
    if kind in ("zip", "both"):
        if not file:
            raise UserError("there is no zip yet: upload one with labeled captchas")
        rows, left_out = labeled_pictures(file)
    if kind == "zip":
        return rows, left_out
    count = shop.feedback.count()
    if kind == "feedback" and count < LEAST_PICTURES:
        raise UserError(f"{corrected(count)} are too few: {LEAST_PICTURES} are the least")
    return chain(rows, shop.feedback.rows()), left_out


def _plan(pictures: int, left_out: int, both: bool, corrections: int) -> str:
    """What will happen with a zip of so many usable pictures."""
    said = f"{pictures} labeled pictures"
    said += f" ({left_out} left out)" if left_out else ""
    said += f" and {corrected(corrections)}" if both else ""
    return (
        f"{said}. All of them train the new model; then more models are trained, each without a part of them, to "
        "measure what to expect. After the first steps it says how many minutes that takes."
    )
