"""The page: its tabs put together, and mounted on the route."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from captcha_reader.files import ROOT
from captcha_reader.web import html as views
from captcha_reader.web.api import build_api
from captcha_reader.web.limits import Limits
from captcha_reader.web.tabs.batch import batch_tab
from captcha_reader.web.tabs.make import make_tab
from captcha_reader.web.tabs.model import model_tab
from captcha_reader.web.tabs.read import read_tab
from captcha_reader.web.tabs.teach import teach_tab
from captcha_reader.web.theme import NAME_EXAMPLES, STYLE_SHEET, theme
from captcha_reader.web.widgets import load_gradio, own_html
from captcha_reader.web.workshop import Workshop

if TYPE_CHECKING:
    import gradio

TITLE = "Captcha reader"
RESPONSIBLE_USE = "For study, and for measuring captchas that you own or may test."
EXAMPLES = ROOT / "examples"
EXAMPLE_COUNT = 12  # on the page; a folder may hold more
UPLOAD_LIMIT = "50mb"  # of one file
CACHE_SECONDS = 3600  # then uploads and drawn pictures are deleted


def build_demo(shop: Workshop, examples: str | Path = EXAMPLES) -> gradio.Blocks:
    """The page.

    Args:
        shop: what it offers.
        examples: folder of PNG files to try; may be empty or missing.
    """
    gr = load_gradio()
    names = shop.names()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)) as demo:
        with gr.Row(elem_id="top"):
            with gr.Column(scale=5, min_width=280):
                own_html(gr, views.header(TITLE, RESPONSIBLE_USE))
            with gr.Column(scale=3, min_width=240):
                checkpoint = gr.Dropdown(names, value=names[0], label="Model", elem_id="checkpoint")
        with gr.Tabs(elem_id="tabs"):
            with gr.Tab("Read", id="read"):
                read_tab(gr, shop, checkpoint, sorted(Path(examples).glob("*.png"))[:EXAMPLE_COUNT])
            with gr.Tab("Batch", id="batch"):
                batch_tab(gr, shop, checkpoint)
            with gr.Tab("Make", id="make") as make:
                make_tab(gr, shop, checkpoint, make)
            with gr.Tab("Teach", id="teach") as teach:
                teach_tab(gr, shop, checkpoint, teach, demo)
            with gr.Tab("Model", id="model") as model:
                model_tab(gr, shop, checkpoint, model)
        own_html(
            gr, '<p class="foot">Everything stays on this machine. For programs: <a href="docs">the REST route</a>.</p>'
        )
        demo.load(None, js=NAME_EXAMPLES, api_visibility="private")
        # Models trained since the start appear when the page is loaded anew.
        demo.load(lambda: gr.Dropdown(choices=shop.names()), None, checkpoint, api_visibility="private")
    demo.queue(default_concurrency_limit=4, max_size=64)
    return demo


def build_app(shop: Workshop, limits: Limits | None = None, examples: str | Path = EXAMPLES) -> Any:
    """The route with the page mounted on it, one FastAPI app."""
    gr = load_gradio()
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
