"""The page: its tabs put together, and mounted on the route."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captcha_reader.files import ROOT
from captcha_reader.web.access import Access
from captcha_reader.web.api import build_api
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.html import note, render
from captcha_reader.web.limits import Limits
from captcha_reader.web.page_calls import protect_page
from captcha_reader.web.storage import UploadFolder
from captcha_reader.web.strength_job import StrengthJob
from captcha_reader.web.tabs.batch import NOTHING_ELSE, batch_tab
from captcha_reader.web.tabs.label import label_tab
from captcha_reader.web.tabs.make import make_tab
from captcha_reader.web.tabs.model import model_tab
from captcha_reader.web.tabs.read import read_tab
from captcha_reader.web.tabs.strength import report_links, strength_card, strength_tab
from captcha_reader.web.tabs.teach import FOLLOW_SECONDS, job_card, running_strip, teach_tab
from captcha_reader.web.theme import HEAD, ON_LOAD, STYLE_SHEET, theme
from captcha_reader.web.widgets import QUIET, chooser, load_gradio, own_html
from captcha_reader.web.workshop import TORCH_MISSING, Workshop

if TYPE_CHECKING:
    import gradio

TITLE = "Captcha reader"
RESPONSIBLE_USE = "For study, and for measuring captchas that you own or may test."
EXAMPLES = ROOT / "examples"
EXAMPLE_COUNT = 12  # on the page; a folder may hold more
CACHE_SECONDS = 3600  # then uploads and drawn pictures are deleted


def build_demo(shop: Workshop, examples: str | Path = EXAMPLES) -> gradio.Blocks:
    """The page.

    Args:
        shop: what it offers.
        examples: folder of PNG files to try; may be empty or missing.
    """
    gr = load_gradio()
    names = shop.choices()
    found = sorted(Path(examples).glob("*.png"))[:EXAMPLE_COUNT]
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)) as demo:
        owner = gr.BrowserState("", storage_key="captcha-reader")  # a secret: the jobs of a session are its own
        follow = gr.Timer(FOLLOW_SECONDS, active=False)
        with gr.Row(elem_id="top"):
            with gr.Column(scale=5, min_width=280):
                own_html(gr, render("header", title=TITLE, responsible=RESPONSIBLE_USE))
            with gr.Column(scale=3, min_width=240):
                checkpoint = chooser(gr, names, value=names[0][1], label="Model", elem_id="checkpoint")
        if not shop.models.torch:
            own_html(gr, note(TORCH_MISSING), elem_id="no-torch")
        strip = own_html(gr, "", elem_id="running")
        tabs = []
        panel, measured = gr.State(), gr.State()
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Read", id="read") as tab:
                read_tab(gr, shop, checkpoint, found, demo)
            tabs.append(tab)
            with gr.Tab("Batch", id="batch") as tab:
                other = batch_tab(gr, shop, checkpoint, demo)
            tabs.append(tab)
            with gr.Tab("Make", id="make") as tab:
                make_tab(gr, shop, checkpoint, tab)
            tabs.append(tab)
            if not shop.read_only:  # strangers start no work of minutes, and none of their pictures are kept
                with gr.Tab("Strength", id="strength") as tab:
                    measured = strength_tab(gr, shop, checkpoint, owner, follow)
                tabs.append(tab)
                with gr.Tab("Label", id="label") as tab:
                    label_tab(gr, shop, checkpoint, demo, tab)
                tabs.append(tab)
                with gr.Tab("Teach", id="teach") as tab:
                    panel = teach_tab(gr, shop, checkpoint, owner, follow)
                tabs.append(tab)
            with gr.Tab("Model", id="model") as tab:
                model_tab(gr, shop, checkpoint, other, tab, owner)
            tabs.append(tab)
        own_html(gr, render("footer", privacy=shop.privacy, kept=not shop.read_only))
        demo.load(None, js=ON_LOAD, api_visibility="private")
        _follow_jobs(gr, shop, demo, tabs, follow, owner, [strip, panel, measured, checkpoint, other])
    demo.queue(default_concurrency_limit=4, max_size=64)
    return demo


def _follow_jobs(
    gr: Any, shop: Workshop, demo: Any, tabs: list[Any], follow: Any, owner: Any, outputs: list[Any]
) -> None:
    """Show a job wherever one is: on every tab while it runs, its model in the choosers when it is done.

    Args:
        tabs: looked at, too, when one is opened: the job may be another session's.
        follow: the timer that looks each second, while a job runs.
        owner: the secret of the session.
        outputs: the strip above the tabs, the panels of the tabs Teach and Strength, and the two choosers.
    """
    seen = gr.State({"names": [], "job": ""})  # what this session's choosers have, and its job that was done

    def look(secret: str, known: dict[str, Any], opened: bool = False) -> tuple[Any, ...]:
        job, measurement = shop.job_for(secret, FineTuning), shop.job_for(secret, StrengthJob)
        running = shop.jobs.running()
        mine = job is not None and bool(secret) and job.owner == secret
        before = shop.jobs.before(job) if job else 0
        names = shop.choices()
        now = {"names": names, "job": job.id if job and mine and job.state == "done" else known["job"]}
        checkpoint = other = gr.skip()
        if opened or names != known["names"]:
            checkpoint, other = gr.Dropdown(choices=names), gr.Dropdown(choices=[(NOTHING_ELSE, ""), *names])
        if job and now["job"] != known["job"] and not opened and (made := shop.model_of(job)):
            checkpoint = gr.Dropdown(choices=names, value=made)  # the model that was just made here
        own = [one for one in (job, measurement) if one and one.running and secret and one.owner == secret]
        shown = min(own, key=shop.jobs.before, default=running)
        strip = running_strip(shown, shop.jobs.before(shown) if shown else 0)
        panel = job_card(job, before, shop.downloads(job), mine)
        card = _measurement(shop, measurement, secret)
        return gr.Timer(active=running is not None), now, strip, panel, card, checkpoint, other

    def arrive(secret: str, known: dict[str, Any]) -> tuple[Any, ...]:
        secret = secret or secrets.token_urlsafe(16)
        return secret, *look(secret, known, opened=True)

    every = [follow, seen, *outputs]
    # Models trained since the start appear when the page is loaded anew.
    demo.load(arrive, [owner, seen], [owner, *every], **QUIET)
    follow.tick(look, [owner, seen], every, trigger_mode="once", **QUIET)
    gr.on([tab.select for tab in tabs], look, [owner, seen], every, **QUIET)


def _measurement(shop: Workshop, job: StrengthJob | None, secret: str) -> Any:
    """The panel of the tab Strength, for a session."""
    mine = job is not None and bool(secret) and job.owner == secret
    return strength_card(job, shop.jobs.before(job) if job else 0, report_links(job) if mine else {}, mine)


def build_app(
    shop: Workshop,
    limits: Limits | None = None,
    examples: str | Path = EXAMPLES,
    access: Access | None = None,
) -> Any:
    """The route with the page mounted on it, one FastAPI app.

    Args:
        shop: what the page offers.
        limits: of requests.
        examples: folder of PNG files to try.
        access: who may talk to it; this machine by default.
    """
    gr = load_gradio()
    limits, access = limits or Limits(), access or Access()
    demo = build_demo(shop, examples)
    app = build_api(shop.models, limits, access)
    if not shop.read_only:
        from captcha_reader.web.label_routes import label_router  # with FastAPI
        from captcha_reader.web.report_routes import report_router

        app.include_router(label_router(shop.labels))
        app.include_router(report_router(shop.jobs))
    protect_page(app, demo, UploadFolder(gr.utils.get_upload_folder(), limits))
    app = gr.mount_gradio_app(
        app,
        demo,
        path="/",
        root_path=access.root_path or None,
        show_error=True,
        ssr_mode=False,
        pwa=False,
        run_history=False,
        max_file_size=limits.file_bytes,
        theme=theme(gr),
        css_paths=[STYLE_SHEET],
        head=HEAD,
        footer_links=[],  # Gradio's panel for programs shows a picture of another host; /docs is ours
    )
    # As its own server would: until then Gradio takes any path of this machine for an upload.
    demo.has_launched = demo.is_running = True
    return app
