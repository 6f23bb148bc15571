"""The line "What do you know of it?" of the tabs Read and Batch: characters, length, and whether case matters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from captcha_reader.errors import UserError
from captcha_reader.reading.constraints import Constraints, compact
from captcha_reader.web.html import bad
from captcha_reader.web.models import Predictor
from captcha_reader.web.widgets import QUIET, own_html
from captcha_reader.web.workshop import Workshop

if TYPE_CHECKING:
    from markupsafe import Markup

LONGEST_ENTRY = 300  # characters; an alphabet of several scripts fits


class NotPossible(UserError):
    """What is known of the texts cannot be used: the page says so beside the line."""


def known(characters: Any, length: Any, ignore_case: Any) -> Constraints | None:
    """What the line says; None where nothing was typed.

    Raises:
        NotPossible: an entry cannot be understood, or allows no text.
    """
    try:
        entries = {"characters": str(characters or "").strip(), "length": str(length or "").strip()}
        return Constraints.parse(entries | {"ignore_case": bool(ignore_case)}) or None
    except UserError as error:
        raise NotPossible(str(error)) from None


def require_fit(constraints: Constraints | None, predictor: Predictor, model: str = "") -> None:
    """Check that a model can write what is known.

    Args:
        constraints: what is known.
        predictor: the model.
        model: what the page calls it, where several are used.

    Raises:
        NotPossible: it cannot write one of the characters.
    """
    try:
        if constraints:
            constraints.limits(predictor.alphabet)
    except UserError as error:
        raise NotPossible(f"{model}: {error}" if model else str(error)) from None


def offer(suggested: Constraints | None, given: Constraints | None) -> str:
    """What the labels of a fine-tuned model have in common, as a button says it; "" where that is given already."""
    if not suggested or (given and (given.allowed, given.lengths) == (suggested.allowed, suggested.lengths)):
        return ""
    parts = [compact(suggested.allowed)] if suggested.allowed else []
    if suggested.lengths:
        shortest, longest = suggested.lengths
        count = f"{shortest}" if shortest == longest else f"{shortest}-{longest}"
        parts.append(f"{count} character{'' if longest == 1 else 's'}")
    return f"Its labels: {', '.join(parts)} – use them"


def problem(shop: Workshop, model: str | None, entries: Sequence[Any]) -> Markup | str:
    """What is wrong with the entries of a line, as HTML, as far as that is seen without a picture; "" if nothing is."""
    try:
        if given := known(*entries):
            require_fit(given, shop.models.predictor(model or None))
    except NotPossible as error:
        return bad(error)
    except UserError:  # the model cannot be used: the reading says so
        pass
    return ""


class Line(NamedTuple):
    """The line on the page.

    Attributes:
        entries: the boxes for characters, length and case, as inputs of an event and for `known`.
        said: what is wrong with them.
        typed: the events that tell that somebody has changed one.
        taken: the event after which they hold what the model offers.
    """

    entries: list[Any]
    said: Any
    typed: list[Any]
    taken: Any


def known_line(gr: Any, shop: Workshop, checkpoint: Any, demo: Any, name: str) -> Line:
    """The line, below it room for what is wrong with it, and the offer of a model that was fine-tuned.

    Args:
        gr: Gradio.
        shop: what the tabs share.
        checkpoint: the chooser of the model.
        demo: the page.
        name: of the tab, for the names of its parts.
    """
    with gr.Column(elem_classes="known", elem_id=f"{name}-known", min_width=260):
        with gr.Row(elem_classes="known-line"):
            own_html(gr, '<p class="known-title">What do you know of it?</p>')
            fold = gr.Checkbox(
                label="case does not matter",
                container=False,
                min_width=0,
                elem_id=f"{name}-case",
                elem_classes="known-case",
            )
        with gr.Row(elem_classes="known-line"):
            box: dict[str, Any] = {"show_label": False, "container": False, "max_lines": 1}
            characters = gr.Textbox(
                label="Characters that occur",
                placeholder="characters: 0-9A-F",
                max_length=LONGEST_ENTRY,
                min_width=110,
                elem_id=f"{name}-characters",
                **box,
            )
            length = gr.Textbox(
                label="Number of characters",
                placeholder="length: 6 or 4-6",
                max_length=20,
                min_width=110,
                elem_id=f"{name}-length",
                **box,
            )
        said = own_html(gr, "", elem_id=f"{name}-known-said", elem_classes="known-said")
        use = gr.Button(visible=False, size="sm", elem_id=f"{name}-offer", elem_classes="known-offer")
    entries = [characters, length, fold]

    def look(model: str | None, *line: Any) -> Any:
        try:
            text = offer(_suggested(shop, model), known(*line))
        except NotPossible:
            text = offer(_suggested(shop, model), None)
        return gr.Button(text, visible=bool(text))

    def take(model: str | None) -> tuple[Any, ...]:
        suggested = _suggested(shop, model) or Constraints()
        characters = compact(suggested.allowed) if suggested.allowed else ""
        return characters, str(suggested.length or ""), "", gr.Button(visible=False)

    typed = [characters.submit, characters.blur, length.submit, length.blur, fold.input]
    gr.on([checkpoint.change, demo.load, *typed], look, [checkpoint, *entries], use, **QUIET)
    taken = use.click(take, checkpoint, [characters, length, said, use], **QUIET)
    return Line(entries, said, typed, taken)


def _suggested(shop: Workshop, model: str | None) -> Constraints | None:
    try:
        return Constraints.from_labels(shop.models.predictor(model or None).metadata)
    except UserError:
        return None
