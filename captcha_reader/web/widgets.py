"""Gradio's components as this page uses them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any
from unittest import mock

# Of events: no bar over what changes, and no part of what programs may call.
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def load_gradio() -> Any:
    """Gradio, which reads these settings when it is imported, and whose import takes seconds."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Nothing is asked of other machines, so no proxy is; httpx would want a package for a SOCKS proxy.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
    import gradio

    return gradio


def own_html(gr: Any, value: str, **settings: Any) -> Any:
    """Our own HTML, with none of Gradio's styles for prose."""
    return gr.HTML(value, apply_default_css=False, padding=False, **settings)


def picture_box(gr: Any, **settings: Any) -> Any:
    """A box for a picture that gives an event the path of an upload.

    Gradio would open the upload itself and answer a broken one by the bare word "Error". The file, which it has checked
    to be an upload, goes to `open_image` as it is: the same pixels as on the command line.
    """

    # Gradio writes a stub file for editors beside the source of each new class, here into this package.
    with mock.patch("gradio.component_meta.create_or_modify_pyi"):
        # A class, for Gradio builds the box anew where an example changes it, and would forget what one instance has.
        class Picture(gr.Image):
            is_template = True  # the browser shows it as any `gr.Image`

            def preprocess(self, payload: Any) -> Any:
                # Never Gradio's own opening: what came as a data URL is a file by now (page_calls.py).
                return payload.path if payload else None

    return Picture(**settings)


def chooser(gr: Any, names: Sequence[tuple[str, str]], **settings: Any) -> Any:
    """A list whose names come and go while the page is open: models, sets of pictures.

    An event of a name that has gone in the meantime reaches its function, which says so in a sentence. Gradio would
    end it with a message for programmers and a traceback.

    Args:
        gr: Gradio.
        names: what is shown, and the name.
        settings: as `gr.Dropdown` takes them.
    """

    with mock.patch("gradio.component_meta.create_or_modify_pyi"):  # as above

        class Chooser(gr.Dropdown):
            is_template = True  # the browser shows it as any `gr.Dropdown`

            def preprocess(self, payload: Any) -> Any:
                return payload if isinstance(payload, str) else super().preprocess(payload)

    return Chooser(list(names), **settings)


def within(box: Any) -> Any:
    """A slider or number box that takes an emptied box for its least value, and the nearest end for one beyond it.

    Gradio's own answer is an error in words for programmers, which comes while somebody types another number.
    """
    low, high = box.minimum, box.maximum
    box.preprocess = lambda value: min(max(number(value), low), high)
    return box


def number(value: Any) -> float:
    """A number from the page, 0 where it is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return 0.0
    return found if math.isfinite(found) else 0.0
