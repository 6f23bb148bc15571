"""The tab Model: what the chosen checkpoint says of itself; models made here are renamed and deleted here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from captcha_reader.config import CTC_HEADS
from captcha_reader.errors import UserError
from captcha_reader.reading.metrics import wilson_interval
from captcha_reader.web.finetuning import FineTuning
from captcha_reader.web.html import bad, note, render
from captcha_reader.web.own_models import LONGEST_NAME, delete, folder_of, rename
from captcha_reader.web.tabs.batch import NOTHING_ELSE
from captcha_reader.web.widgets import QUIET, own_html
from captcha_reader.web.workshop import Workshop, first_or, model_url

if TYPE_CHECKING:
    from markupsafe import Markup

HEADS = {
    "ctc": "BiLSTM and CTC: any length that fits the width",
    "mixer": "convolution, attention and CTC: any length that fits the width",
    "slots": "one attention slot per character",
    "positions": "one classifier per character position",
    "combination": "label-combination classifier",
}
RESIZES = {
    "natural": "at least; cut to its contents, wide ones are wider",
    "content": "cut to its contents and stretched",
    "pad": "shape kept, padded",
    "stretch": "stretched",
    "square": "padded to a square",
}
SETS = {
    "validation": "its own scheme, pictures that chose the best epoch",
    "test": "its own scheme, pictures held back from training",
    "cross_validation": "its own scheme, by models that had not seen the pictures",
}

Fact = tuple[str, str, str]  # name, value, and more that is folded away


# --------------------------------------------------------------------------------------------------------------------
# HTML


def model_card(name: str, path: Path, metadata: Mapping[str, Any], url: str, teach: bool = True) -> Markup:
    """What a checkpoint says of itself; `url` downloads it, where it may be downloaded; `teach`: there is that tab."""
    return render(
        "model",
        name=name,
        url=url,
        teach=teach,
        facts=[*_architecture(metadata["model"], path), *_origin(metadata.get("provenance") or {})],
        alphabet=metadata["model"]["alphabet"],
        measured=_measured(metadata.get("metrics") or {}),
    )


def _architecture(model: Mapping[str, Any], path: Path) -> list[Fact]:
    height, width = model["image_size"]
    length = model["max_length"]
    longest = f"trained on up to {length}" if model["head"] in CTC_HEADS else f"at most {length}"
    color = "gray" if model.get("channels", 1) == 1 else "color"
    resize = RESIZES.get(model.get("resize", "pad"), model.get("resize"))
    normalized = ", brought to dark letters on a light ground" if model.get("normalize") else ""
    normalized += ", softened" if model.get("soften") else ""
    return [
        ("Architecture", f"{model['name']} ({model.get('backbone', '')})", ""),
        ("Reads", HEADS.get(model["head"], model["head"]), ""),
        ("Length", f"{longest} characters", ""),
        ("Input", f"{width} × {height} pixels, {color}, {resize}{normalized}", ""),
        ("File", f"{path.suffix[1:]}, {path.stat().st_size / 1e6:.1f} MB", ""),
    ]


def _origin(provenance: Mapping[str, Any]) -> list[Fact]:
    """Where a checkpoint comes from; sources are called by their last name, not by a path of the machine."""
    config, data = provenance.get("config") or {}, provenance.get("data") or {}
    facts: list[Fact] = []
    if seen := provenance.get("seen"):
        short, _, more = str(seen).partition(": ")
        facts.append(("Trained on", short, more))
    elif data.get("n"):
        sources = ", ".join(PurePath(str(source)).name for source in data.get("sources", []))
        facts.append(("Trained on", f"{data['n']:,} pictures from {sources}", ""))
    elif data:
        facts.append(("Trained on", "?", ""))
    if config.get("init") not in (None, "scratch", "auto"):
        facts.append(("Started from", PurePath(str(config["init"])).name, ""))
    if provenance.get("time"):
        facts.append(("Made", str(provenance["time"]).replace("T", " ")[:16] + " UTC", ""))
    if versions := provenance.get("versions"):
        facts.append(("With", ", ".join(f"{k} {v}" for k, v in versions.items()), ""))
    return facts


def _measured(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The measured figures of each set."""
    rows = []
    for name, values in metrics.items():
        right = values.get("sequence_accuracy") if isinstance(values, Mapping) else None
        if right is None or not _is_share(right):
            continue  # null where it could not be measured
        n = found if isinstance(found := values.get("n"), int) and found > 0 else _n_of(name)
        bounds = values.get("wilson_95")
        if not (isinstance(bounds, list) and len(bounds) == 2 and all(map(_is_share, bounds))):
            bounds = wilson_interval(round(right * n), n) if n else None
        cer = values.get("cer")
        row = {"on": SETS.get(name, name), "note": values.get("note", ""), "n": f"{n:,}" if n else ""}
        rows.append(row | {"accuracy": right, "bounds": bounds, "cer": cer if isinstance(cer, int | float) else None})
    return rows


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


def _n_of(name: str) -> int:
    """The n that a set's name gives in brackets: `captcha version 2 (n=1,040)`."""
    match = re.search(r"n\s*=\s*([\d,]+)", name)
    return int(match[1].replace(",", "")) if match else 0


# --------------------------------------------------------------------------------------------------------------------
# The tab


def model_tab(gr: Any, shop: Workshop, checkpoint: Any, other: Any, tab: Any, owner: Any) -> None:
    """What the chosen checkpoint says of itself, and how a model made here gets another name or goes.

    Args:
        gr: Gradio.
        shop: what the tabs share.
        checkpoint: the chooser of the model.
        other: the chooser of the model to compare with.
        tab: this tab.
        owner: the secret of the session.
    """
    manage, name, change, remove, sure, question, yes, no = _form(gr)
    said = own_html(gr, "", elem_id="model-said")
    card = own_html(gr, "", elem_id="card")

    def describe(chosen: str | None) -> Any:
        try:
            found, path = shop.models.path(chosen)
            metadata = shop.models.predictor(chosen).metadata
            url = "" if shop.read_only else model_url(found)
            return model_card(shop.label(chosen), path, metadata, url, not shop.read_only)
        except UserError as error:
            return bad(error)
        except OSError:
            return note("The model is gone: choose another, or reload the page.", "bad")

    def show(chosen: str | None, secret: str) -> tuple[Any, ...]:
        mine = shop.may_change(chosen, secret)
        return describe(chosen), gr.Row(visible=mine), folder_of(chosen or "") or "", gr.Row(visible=False)

    def choosers(value: str | None) -> tuple[Any, Any]:
        names = shop.choices()
        return gr.Dropdown(names, value=first_or(names, value)), gr.Dropdown([(NOTHING_ELSE, ""), *names], value="")

    def give_name(chosen: str, new: str, secret: str) -> tuple[Any, ...]:
        try:
            _check(shop, chosen, secret)
            renamed = rename(shop.models.folder, chosen, new)
            shop.renamed(str(folder_of(chosen)), str(folder_of(renamed)))
        except UserError as error:
            return bad(error), gr.skip(), gr.skip()
        return note(f"It is called {folder_of(renamed)} now.", "good"), *choosers(renamed)

    def ask(chosen: str) -> tuple[Any, ...]:
        asked = f"Delete {folder_of(chosen)}, its weights and its figures? Nobody can bring it back."
        return note(asked, "bad"), gr.Row(visible=True)

    def forget(chosen: str, secret: str) -> tuple[Any, ...]:
        try:
            _check(shop, chosen, secret)
            delete(shop.models.folder, chosen)
        except UserError as error:
            return bad(error), gr.Row(visible=False), gr.skip(), gr.skip()
        return note(f"{folder_of(chosen)} is deleted.", "good"), gr.Row(visible=False), *choosers(None)

    shown = [card, manage, name, sure]
    gr.on([tab.select, checkpoint.change], show, [checkpoint, owner], shown, **QUIET)
    tab.select(lambda: "", None, said, **QUIET)
    gr.on([change.click, name.submit], give_name, [checkpoint, name, owner], [said, checkpoint, other], **QUIET)
    remove.click(ask, checkpoint, [question, sure], **QUIET)
    no.click(lambda: gr.Row(visible=False), None, sure, **QUIET)
    yes.click(forget, [checkpoint, owner], [said, sure, checkpoint, other], **QUIET)
    # For programs: the chooser only takes names that it had at the start.
    asked = gr.Textbox("", visible=False, label="Model")
    answer, endpoint = gr.HTML(visible=False), gr.Button(visible=False)
    endpoint.click(lambda name: describe(name or None), asked, answer, api_name="describe_model")


def _form(gr: Any) -> tuple[Any, ...]:
    """The name of a model that was made here, the buttons, and the question before it is deleted."""
    with gr.Row(visible=False, equal_height=True, elem_id="manage") as manage:
        name = gr.Textbox(label="Name", max_lines=1, max_length=LONGEST_NAME, scale=4, min_width=160, elem_id="name")
        change = gr.Button("Rename", scale=1, min_width=90, elem_id="rename")
        remove = gr.Button("Delete …", scale=1, min_width=90, elem_id="delete")
    with gr.Row(visible=False, elem_id="sure-row") as sure:
        question = own_html(gr, "", elem_id="question")
        yes = gr.Button("Delete it for good", variant="stop", elem_id="delete-yes", min_width=140)
        no = gr.Button("Keep it", elem_id="delete-no", min_width=90)
    return manage, name, change, remove, sure, question, yes, no


def _check(shop: Workshop, chosen: str, secret: str) -> None:
    """Raise a UserError where a session may not change a model, or not yet."""
    shop.models.path(chosen)
    if not shop.may_change(chosen, secret):
        raise UserError("only who made a model on this page may rename or delete it")
    # The export would make the old folder anew, with no weights in it, and nobody could delete that here.
    if any(isinstance(job, FineTuning) and job.running and job.model == folder_of(chosen) for job in shop.jobs.jobs()):
        raise UserError("the model is being exported to ONNX: wait until that is done, or cancel it on the tab Teach")
