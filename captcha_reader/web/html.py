"""The page's own HTML: one builder, which escapes every value, and the few pieces that several tabs use.

The HTML itself stands in templates/*.html (Jinja2, autoescape). Colors come from the style sheet (assets/page.css),
which knows light and dark.
"""

from __future__ import annotations

import base64
import functools
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captcha_reader.plots.colors import confidence_class
from captcha_reader.text import NOTHING

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup
    from PIL import Image

TEMPLATES = Path(__file__).parent / "templates"
# Gradio takes ${...} and {{...}} in the value of an HTML component for templates of its own.
OF_GRADIO = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})
# An absolute path of two parts or more, not one within a URL.
LOCAL_PATH = re.compile(r"(?<![\w/:.])(?:[A-Za-z]:)?(?:[/\\][^\s/\\:'\"]+)+[/\\]([^\s/\\:'\"]+)")


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "interval": interval,
        "sentence": as_sentence,
        "confidence": confidence_class,
        "whole": whole_percent,
        "small": small_percent,
        "data_url": data_url,
        "png": png,
        "duration": duration,
    }
    environment.globals["NOTHING"] = NOTHING
    return environment


def render(template: str, **values: Any) -> Markup:
    """A template with its values in it, all of them escaped but for what another call of this function has made.

    Args:
        template: name of a file in templates/, without `.html`.
        values: what the template uses; one that is missing is an error.
    """
    from markupsafe import Markup

    return Markup(_environment().get_template(f"{template}.html").render(values).translate(OF_GRADIO))


def note(message: str, kind: str = "") -> Markup:
    """A line that says something; `kind` is good, bad or nothing."""
    return render("note", message=message, kind=kind)


def sentence(error: Exception | str) -> Markup:
    """A message as an escaped sentence, for Gradio's own toasts."""
    from markupsafe import Markup, escape

    return Markup(str(escape(as_sentence(error))).translate(OF_GRADIO))


def bad(error: Exception | str) -> Markup:
    """What went wrong, as a sentence in a line of its own."""
    return note(as_sentence(error), "bad")


def progress_bar(share: float, label: str, name: str = "Progress") -> Markup:
    """A bar with a line of text; `share` from 0 to 1."""
    return render("progress", whole=round(min(max(share, 0.0), 1.0) * 100), label=label, name=name)


def gallery(pictures: Iterable[tuple[bytes, str, str]]) -> Markup:
    """Pictures side by side: PNG file, what it is in words, and a caption."""
    return render("gallery", pictures=list(pictures))


# --------------------------------------------------------------------------------------------------------------------
# Formats


def as_sentence(error: Exception | str) -> str:
    """A message as a sentence, with the names of files instead of their paths on the server."""
    message = without_paths(error)
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "!", "?")) else ".")


def without_paths(error: Exception | str) -> str:
    """A message with the names of files instead of their paths on the server."""
    return LOCAL_PATH.sub(r"\1", str(error))


def percent(share: float, digits: int = 1) -> str:
    """`0.5` as `50.0 %`; only certainty is 100."""
    shown = f"{share * 100:.{digits}f}"
    return f"{100 - 10**-digits:.{digits}f} %" if share < 1 and float(shown) >= 100 else f"{shown} %"


def whole_percent(probability: float) -> int:
    """Whole percent, rounded down above 99."""
    return int(probability * 100) if probability > 0.99 else round(probability * 100)


def small_percent(probability: float) -> str:
    """A probability that may be tiny."""
    return "< 0.01 %" if probability < 0.0001 else percent(probability, 2)


def interval(bounds: Sequence[float]) -> str:
    """A 95 % interval."""
    return f"{bounds[0] * 100:.1f} to {bounds[1] * 100:.1f} %"


def duration(seconds: float) -> str:
    """A length of time in the words of a person."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def data_url(content: bytes, kind: str) -> str:
    """Bytes within the page itself; `kind` is their media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
