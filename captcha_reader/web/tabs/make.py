"""The tab Make: the generator's knobs, and how well a captcha keeps a machine out."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from captcha_reader.config import ALPHANUMERIC
from captcha_reader.errors import UserError
from captcha_reader.web import html as views
from captcha_reader.web.knobs import Trial
from captcha_reader.web.theme import COPY
from captcha_reader.web.widgets import number, own_html, within
from captcha_reader.web.workshop import Workshop

TRIALS, SWEEP_TRIALS = 100, 40


def make_tab(gr: Any, shop: Workshop, checkpoint: Any, tab: Any) -> None:
    """The generator's knobs, and how readable a captcha stays."""
    from captcha_reader.generator.styles import STYLES
    from captcha_reader.web.knobs import FONTS as FONT_NAMES
    from captcha_reader.web.knobs import KNOBS, OWN_FONTS, build_settings, style_values, success, sweep_values, try_many

    names = list(STYLES)
    own = style_values(names[0])
    own_html(
        gr,
        '<p class="tab-intro">Turn the knobs of a captcha and see whether the model still reads it: a strength meter '
        "for captchas.</p>",
    )
    with gr.Row():
        with gr.Column(scale=4, min_width=280):
            with gr.Row():
                style = gr.Dropdown(names, value=names[0], label="Style", elem_id="style", min_width=130)
                font = gr.Dropdown(list(FONT_NAMES), value=OWN_FONTS, label="Font", elem_id="font", min_width=130)
            with gr.Row():
                alphabet = gr.Textbox(
                    ALPHANUMERIC, label="Alphabet", max_lines=1, max_length=300, elem_id="alphabet", min_width=130
                )
                length = gr.Textbox("5", label="Length (5 or 4-6)", max_lines=1, elem_id="length", min_width=100)
            sliders = {
                key: within(
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
            }
            seed = within(gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31, elem_id="seed"))
        with gr.Column(scale=5, min_width=280, elem_id="made-column"):
            made = gr.Image(
                label="A captcha of this kind",
                type="pil",
                format="png",
                image_mode=None,
                interactive=False,
                buttons=["download"],
                height=190,
                elem_id="made",
                alt_text="the captcha that was drawn",
            )
            with gr.Row():
                another = gr.Button("Another", elem_id="another", min_width=100)
                attempt = gr.Button(f"Try {TRIALS}", variant="primary", elem_id="try", min_width=120)
            truth = own_html(gr, "", elem_id="made-reading", js_on_load=COPY)
            strength_status = own_html(gr, "", elem_id="strength-status")
            strength = own_html(gr, "", elem_id="strength")
            with gr.Row(equal_height=True):
                knob = gr.Dropdown(
                    [(k.label, key) for key, k in KNOBS.items()],
                    value="rotation",
                    label="Knob",
                    elem_id="knob",
                    min_width=130,
                )
                along = gr.Button("Try along this knob", elem_id="sweep", min_width=140)
            sweep_status = own_html(gr, "", elem_id="sweep-status")
            chart = own_html(gr, "", elem_id="sweep-chart")
    knobs = list(sliders.values())
    inputs = [style, font, alphabet, length, seed, checkpoint, *knobs]

    def settings_of(values: Sequence[Any]) -> Any:
        chosen, letters, characters, span, first, _, *turned = values
        numbers = {key: number(v) for key, v in zip(KNOBS, turned, strict=True)}
        return build_settings(str(chosen), numbers, str(letters), str(characters or ""), str(span or ""), number(first))

    def draw(*values: Any) -> tuple[Any, str]:
        try:
            settings = settings_of(values)
            predictor = shop.models.predictor(values[5])
            from captcha_reader.generator.render import render_captcha

            png, said = render_captcha(0, settings)
            started = time.perf_counter()
            prediction = predictor.predict([png])[0]
            milliseconds = (time.perf_counter() - started) * 1000
        except UserError as error:
            return gr.skip(), views.note(views.sentence(error), "bad")
        right = prediction.text == said
        verdict = (
            "The model reads it." if right else f"The model misreads it: the captcha says <b>{views.text(said)}</b>."
        )
        card = views.reading_card(prediction, milliseconds, shop.models.path(values[5])[0])
        return Image.open(io.BytesIO(png)), card + views.note(verdict)

    def attempt_many(*values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            settings, predictor = settings_of(values), shop.models.predictor(values[5])
            trials: list[Trial] = []
            yield views.progress_bar(0, f"0 of {TRIALS}", "Trying"), gr.skip()
            for chunk in try_many(settings, predictor, TRIALS):
                trials += chunk
                yield views.progress_bar(len(trials) / TRIALS, f"{len(trials)} of {TRIALS}", "Trying"), gr.skip()
            failures = [t for t in trials if t.reading != t.text]
            unknown = "".join(sorted({c for t in trials for c in t.text if c not in predictor.alphabet}))
            tried = f"{TRIALS} captchas of the style {values[0]}, seeds from {number(values[4]):g}"
            tried += f", on {shop.models.path(values[5])[0]}"
            yield "", views.strength_card(success(trials), failures, tried, unknown)
        except UserError as error:
            yield views.note(views.sentence(error), "bad"), ""

    def try_along(key: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        try:
            if key not in KNOBS:
                raise UserError("there is no such knob: choose one from the list")
            predictor = shop.models.predictor(values[5])
            position = 6 + list(KNOBS).index(key)
            points = []
            steps = sweep_values(key)
            for i, value in enumerate(steps):
                yield views.progress_bar(i / len(steps), f"{KNOBS[key].label} {value:g}", "Trying"), gr.skip()
                turned = [*values[:position], value, *values[position + 1 :]]
                trials = [t for c in try_many(settings_of(turned), predictor, SWEEP_TRIALS) for t in c]
                points.append((value, success(trials)))
            yield "", views.sweep_chart(KNOBS[key].label, points, number(values[position]))
        except UserError as error:
            yield views.note(views.sentence(error), "bad"), ""

    def reset(chosen: str) -> list[Any]:
        return list(style_values(chosen).values()) if chosen in STYLES else [gr.skip()] * len(KNOBS)

    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    style.change(reset, style, knobs, **quiet)
    changes = [c.change for c in (style, font, alphabet, length, seed, checkpoint, *knobs)]
    gr.on([*changes, tab.select], draw, inputs, [made, truth], trigger_mode="always_last", **quiet)
    others = [c.change for c in (style, font, alphabet, length, checkpoint, *knobs)]
    gr.on(others, None, None, [strength, chart], js="() => ['', '']", **quiet)  # figures of other settings
    another.click(lambda s: int(number(s)) + 1, seed, seed, **quiet)
    attempt.click(attempt_many, inputs, [strength_status, strength], concurrency_limit=2, **quiet)
    along.click(try_along, [knob, *inputs], [sweep_status, chart], concurrency_limit=2, **quiet)
