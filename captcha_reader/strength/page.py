"""The report as one HTML file: pictures and plots inside, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captcha_reader.images import ImageLike, open_image
from captcha_reader.plots.attack_curve import as_svg, plot_attack_curve, plot_changes
from captcha_reader.strength.figures import BROKEN_AT, mean_accuracy, read_worst

TEMPLATES = Path(__file__).parent / "templates"
EXAMPLE_WIDTH = 320  # pixels, at most, of a picture in the report: it is to be sent by mail


class Example(NamedTuple):
    """A picture of a sheet: `truth` is None where it is not known."""

    picture: ImageLike
    reading: str
    confidence: float
    truth: str | None = None

    @property
    def right(self) -> bool:
        """Whether the reading is the label."""
        return self.reading == self.truth


def render_page(report: dict[str, Any], sheets: Sequence[tuple[str, Sequence[Example]]]) -> str:
    """The HTML of a report.

    Args:
        report: as `build_report` gives it.
        sheets: example pictures under their titles; empty ones are left out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
    environment.globals.update(percent=percent, attempts=attempts, duration=duration, broken_at=BROKEN_AT)
    shown = [
        (title, [{**e._asdict(), "picture": data_url(e.picture), "right": e.right} for e in examples])
        for title, examples in sheets
        if examples
    ]
    return environment.get_template("report.html").render(
        report=report,
        worst=read_worst(report["characters"])[:8],
        mean=mean_accuracy(report["characters"]),
        curve=as_svg(plot_attack_curve(report["attack"], BROKEN_AT)) if report["attack"] else "",
        changes=as_svg(plot_changes(report["changes"])) if report["changes"] else "",
        sheets=shown,
    )


def data_url(picture: ImageLike) -> str:
    """A picture, made small, as a data URL."""
    image = open_image(picture)
    image.thumbnail((EXAMPLE_WIDTH, EXAMPLE_WIDTH))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=70)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def percent(share: float) -> str:
    """0.123 as `12 %`; small and nearly whole shares with a digit more, so that neither looks like none or all."""
    if 0 < share < 0.0995 or 0.995 <= share < 1:
        return f"{min(100 * share, 99.9):.1f} %"
    return f"{100 * share:.0f} %"


def attempts(step: dict[str, Any]) -> str:
    """How many attempts a bot needs for one success."""
    if step["attempts"] is None:
        return f"none in {step['n']}"
    return f"{step['attempts']:.1f}" if step["attempts"] < 9.95 else f"{step['attempts']:.0f}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if not seconds:
        return "–"
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
