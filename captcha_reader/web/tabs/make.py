"""The tab Make: the generator's knobs, and whether a captcha is still read as they turn."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from captcha_reader.config import ALPHANUMERIC
from captcha_reader.errors import UserError
from captcha_reader.web.chart import Chart
from captcha_reader.web.html import bad, note, percent, progress_bar, render
from captcha_reader.web.knobs import (
    FONTS,
    KNOBS,
    OWN_FONTS,
    STYLES,
    build_settings,
    draw_one,
    style_values,
    success,
    sweep_values,
    try_many,
)
from captcha_reader.web.tabs.read import reading_card
from captcha_reader.web.theme import COPY
from captcha_reader.web.widgets import QUIET, number, own_html, within
from captcha_reader.web.workshop import Workshop

if TYPE_CHECKING:
    from markupsafe import Markup

SWEEP_TRIALS = 40  # captchas at each value of a knob


# --------------------------------------------------------------------------------------------------------------------
# HTML


def sweep_chart(label: str, points: Sequence[tuple[float, Mapping[str, Any]]], now: float) -> Markup:
    """Success rate along a knob, with intervals; a mark where the knob stands."""
    values = [value for value, _ in points]
    chart = Chart(200, (min(values), max(values)), 1.0)
    said = "; ".join(f"{v:g}: {o['rate']:.0%}" for v, o in points)
    drawn = chart.draw(
        f"Success rate by {label}: {said}",
        [(v, o["rate"]) for v, o in points],
        [(rate, f"{rate:.0%}") for rate in (0, 0.25, 0.5, 0.75, 1)],
        [(value, f"{value:g}") for value in values],
        dots=[(v, o["rate"], f"{v:g}: {percent(o['rate'])}") for v, o in points],
        whiskers=[(v, *o["interval"]) for v, o in points],
        mark=min(max(now, min(values)), max(values)),
    )
    return render("sweep", label=label, chart=drawn, n=points[0][1]["n"])


# --------------------------------------------------------------------------------------------------------------------
# The tab


def make_tab(gr: Any, shop: Workshop, checkpoint: Any, tab: Any) -> None:
    """The generator's knobs, and how readable a captcha stays."""
    own_html(
        gr,
        '<p class="tab-intro">Turn the knobs of a captcha and see whether the model still reads it.'
        + ("</p>" if shop.read_only else " The tab Strength measures captchas of your own.</p>"),
    )
    with gr.Row(elem_id="make-row"):
        with gr.Column(scale=4, min_width=280):
            inputs, knobs = _settings(gr)
        with gr.Column(scale=5, min_width=280, elem_id="made-column"):
            made = gr.Image(
                label="A captcha of this style",
                type="pil",
                format="png",
                image_mode=None,
                interactive=False,
                buttons=["download"],
                height=150,
                elem_id="made",
                alt_text="the captcha that was drawn",
            )
            with gr.Row(elem_id="make-buttons"):
                another = gr.Button("Another", elem_id="another", min_width=90)
                labels = [(k.label, key) for key, k in KNOBS.items()]
                knob = gr.Dropdown(
                    labels, value="rotation", label="Knob", container=False, elem_id="knob", min_width=110
                )
                along = gr.Button("Try along it", elem_id="sweep", min_width=110)
            # What is tried appears right below its button, above the reading of the one captcha.
            status = own_html(gr, "", elem_id="sweep-status")
            chart = own_html(gr, "", elem_id="sweep-chart")
            truth = own_html(gr, "", elem_id="made-reading", js_on_load=COPY)
    style, font, alphabet, length, seed = inputs
    inputs = [*inputs, checkpoint, *knobs]
    trying = _Trying(gr, shop)
    style.change(
        lambda chosen: list(style_values(chosen).values()) if chosen in STYLES else [gr.skip()] * len(KNOBS),
        style,
        knobs,
        **QUIET,
    )
    changes = [c.change for c in (style, font, alphabet, length, seed, checkpoint, *knobs)]
    gr.on([*changes, tab.select], trying.draw, inputs, [made, truth], trigger_mode="always_last", **QUIET)
    others = [c.change for c in (style, font, alphabet, length, checkpoint, *knobs)]
    gr.on(others, None, None, chart, js="() => ''", **QUIET)  # figures of other settings
    another.click(lambda s: int(number(s)) + 1, seed, seed, **QUIET)
    along.click(trying.along, [knob, *inputs], [status, chart], concurrency_limit=2, **QUIET)


def _settings(gr: Any) -> tuple[list[Any], list[Any]]:
    """The components that say what is drawn: style, font, alphabet, length and seed; and the knobs."""
    names = list(STYLES)
    own = style_values(names[0])
    with gr.Row():
        style = gr.Dropdown(names, value=names[0], label="Style", elem_id="style", min_width=130)
        font = gr.Dropdown(list(FONTS), value=OWN_FONTS, label="Font", elem_id="font", min_width=130)
    with gr.Row():
        alphabet = gr.Textbox(
            ALPHANUMERIC, label="Alphabet", max_lines=1, max_length=300, elem_id="alphabet", min_width=130
        )
        length = gr.Textbox("5", label="Length (5 or 4-6)", max_lines=1, elem_id="length", min_width=100)
    knobs = [
        within(
            gr.Slider(
                knob.low,
                knob.high,
                own[key],
                step=knob.step,
                label=knob.label,
                info=knob.info,
                elem_id=key,
                buttons=[],  # its reset knows one style alone
            )
        )
        for key, knob in KNOBS.items()
    ]
    seed = within(gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31, elem_id="seed"))
    return [style, font, alphabet, length, seed], knobs


class _Trying:
    """What the buttons of the tab do; `values` are style, font, alphabet, length, seed, model and the knobs."""

    def __init__(self, gr: Any, shop: Workshop) -> None:
        self.gr, self.shop = gr, shop

    @staticmethod
    def settings(values: Sequence[Any]) -> Any:
        """What is to be drawn.

        Raises:
            UserError: some of it cannot be used.
        """
        style, font, characters, length, seed, _, *turned = values
        knobs = {key: number(v) for key, v in zip(KNOBS, turned, strict=True)}
        return build_settings(str(style), knobs, str(font), str(characters or ""), str(length or ""), number(seed))

    def draw(self, *values: Any) -> tuple[Any, Any]:
        """One captcha and its reading."""
        try:
            settings = self.settings(values)
            predictor = self.shop.models.predictor(values[5])
            png, said = draw_one(settings)
            started = time.perf_counter()
            prediction = predictor.predict([png])[0]
            milliseconds = (time.perf_counter() - started) * 1000
        except UserError as error:
            return self.gr.skip(), bad(error)
        right = prediction.text == said
        verdict = "The model reads it." if right else f"The model misreads it: the captcha says {said}"
        card = reading_card(prediction, milliseconds, self.shop.label(values[5]))
        return Image.open(io.BytesIO(png)), note(verdict) + card

    def along(self, key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """Captchas at several values of one knob, and how many of them are read."""
        skip = self.gr.skip()
        try:
            if key not in KNOBS:
                raise UserError("there is no such knob: choose one from the list")
            predictor = self.shop.models.predictor(values[5])
            position = 6 + list(KNOBS).index(key)
            points: list[tuple[float, Any]] = []
            steps = sweep_values(key)
            yield progress_bar(0, f"{KNOBS[key].label} {steps[0]:g}", "Trying"), ""
            for i, value in enumerate(steps):
                yield progress_bar(i / len(steps), f"{KNOBS[key].label} {value:g}", "Trying"), skip
                turned = [*values[:position], value, *values[position + 1 :]]
                trials = [t for c in try_many(self.settings(turned), predictor, SWEEP_TRIALS) for t in c]
                points.append((value, success(trials)))
            yield "", sweep_chart(KNOBS[key].label, points, number(values[position]))
        except UserError as error:
            yield bad(error), ""
