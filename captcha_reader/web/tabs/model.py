"""The tab Model: what the chosen checkpoint says of itself."""

from __future__ import annotations

from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.web import html as views
from captcha_reader.web.widgets import own_html
from captcha_reader.web.workshop import Workshop


def model_tab(gr: Any, shop: Workshop, checkpoint: Any, tab: Any) -> None:
    """What the chosen checkpoint says of itself."""
    card = own_html(gr, "", elem_id="card")

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
