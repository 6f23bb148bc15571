"""The tab Label: type what captchas say with the reader's help, while it learns from what was typed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, visible_files
from captcha_reader.images import IMAGE_SUFFIXES, OTHER_FORMAT
from captcha_reader.labeling.session import TRAIN_AT
from captcha_reader.web.html import bad, note, render
from captcha_reader.web.labeled_zip import unread_pictures
from captcha_reader.web.tabs.known import known, known_line, problem, require_fit
from captcha_reader.web.uploads import PictureZip, is_zip
from captcha_reader.web.widgets import QUIET, chooser, own_html
from captcha_reader.web.workshop import Workshop

SCRIPT = ROOT / "assets" / "label.js"
NEW = "a new set"
INTRO = (
    '<p class="tab-intro">Captchas without labels: the reader fills in its reading, you accept it by '
    "<kbd>Enter</kbd> or correct it. {learns}No mouse needed.</p>"
)
# One label in five is kept aside to measure, and is none of these.
LEARNS = (
    f"With {', '.join(map(str, TRAIN_AT[:-1]))} and {TRAIN_AT[-1]} labels to learn from, it learns while you go on. "
)


def label_tab(gr: Any, shop: Workshop, checkpoint: Any, demo: Any, tab: Any) -> None:
    """Start a set or go on with one, and label it.

    Args:
        gr: Gradio.
        shop: what the tabs share.
        checkpoint: the chooser of the model whose readings are offered at first.
        demo: the page.
        tab: that it stands in.
    """
    labels = shop.labels
    own_html(gr, INTRO.format(learns=LEARNS if labels.jobs else ""))
    sets = labels.names()
    local = shop.local and not shop.read_only  # a folder of this machine is for those who sit at it
    with gr.Row():
        with gr.Column(scale=2, min_width=260, elem_id="label-left"):
            choices = [(NEW, ""), *sets]
            chosen = chooser(gr, choices, value="", label="Set", visible=bool(sets), elem_id="label-set")
            with gr.Column(elem_classes="known") as new:
                files = gr.File(
                    label="Captchas, or a zip of them", file_count="multiple", height=140, elem_id="label-files"
                )
                box: dict[str, Any] = {"show_label": False, "container": False, "max_lines": 1, "min_width": 110}
                with gr.Row(elem_classes="known-line"):
                    folder = gr.Textbox(
                        label="Folder on this machine",
                        placeholder="or a folder on this machine",
                        visible=local,
                        elem_id="label-folder",
                        **box,
                    )
                    name = gr.Textbox(
                        label="Name of the set",
                        placeholder="name: my captchas",
                        max_length=40,
                        elem_id="label-name",
                        **box,
                    )
                line = known_line(gr, shop, checkpoint, demo, "label")
                start = gr.Button("Start labeling", variant="primary", elem_id="label-start")
            said = own_html(gr, "", elem_id="label-said")
        with gr.Column(scale=3, min_width=280):
            script = SCRIPT.read_text(encoding="utf-8")
            panel = own_html(gr, render("label", set=""), js_on_load=script, elem_id="label-panel")

    def begin(
        paths: Sequence[str] | None, place: str, title: str, model: str | None, characters: str, length: str, fold: bool
    ) -> tuple[Any, Any, Any]:
        skipped: list[str] = []
        try:
            constraints = known(characters, length, fold)
            require_fit(constraints, shop.models.predictor(model or None))
            pictures = _pictures(paths or [], place if local else "", skipped)
            desk = labels.create(pictures, title or "", model, constraints, skipped.append)
        except UserError as error:
            return bad(f"{error} ({left_out})" if (left_out := _left_out(skipped)) else error), gr.skip(), gr.skip()
        except OSError as error:
            return bad(f"the set cannot be kept ({error.strerror or error})"), gr.skip(), gr.skip()
        told[desk.id] = _left_out(skipped)
        return "", gr.Dropdown(choices=[(NEW, ""), *labels.names()], value=desk.id, visible=True), gr.skip()

    def go_on(id_: str, model: str | None) -> tuple[Any, Any, Any]:
        if not id_:
            return "", gr.Column(visible=True), render("label", set="")
        try:
            labels.open(id_, model)
        except UserError as error:
            return bad(error), gr.Column(visible=True), render("label", set="")
        place = f"{labels.folder.parent.name}/{labels.folder.name}"  # --data may name another
        kept = f"Everything typed is kept in {place}, a source for make_dataset.py and main.py."
        kept = f"{left_out}. {kept}" if (left_out := told.pop(id_, "")) else kept
        return note(kept), gr.Column(visible=False), render("label", set=id_)

    told: dict[str, str] = {}  # what was left out of a set that was just made
    given = [files, folder, name, checkpoint, *line.entries]

    def offer() -> Any:
        found = labels.names()
        return gr.Dropdown(choices=[(NEW, ""), *found], visible=bool(found))

    tab.select(offer, None, chosen, **QUIET)
    gr.on(
        line.typed,
        lambda model, *entries: problem(shop, model, entries),
        [checkpoint, *line.entries],
        line.said,
        **QUIET,
    )
    start.click(begin, given, [said, chosen, panel], **QUIET)
    chosen.change(go_on, [chosen, checkpoint], [said, new, panel], **QUIET)


def _left_out(skipped: Sequence[str]) -> str:
    """How many pictures were left out, and why the first of them were; "" where none was."""
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return f"{len(skipped)} left out: {'; '.join(skipped[:5])}{more}" if skipped else ""


def _pictures(paths: Sequence[str], folder: str, skipped: list[str]) -> Iterator[tuple[str, bytes]]:
    """The pictures of the uploads, or of a folder of this machine; why one is left out is added to `skipped`.

    Raises:
        UserError: there are none.
    """
    if folder.strip():
        place = Path(folder.strip())
        try:
            place = place.expanduser()
            found = place.is_dir()
        except (OSError, RuntimeError):  # a name that is too long, the home of a user that there is not
            found = False
        if not found:
            raise UserError(f"there is no folder {place.name[:80]}: check its name")
        inside = [p for p in visible_files(place) if p.is_file()]
        files = [p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES]
        skipped += [f"{name} is a {OTHER_FORMAT}" for name in unread_pictures(p.name for p in inside)]
        if not files:
            raise UserError(f"there is no picture in {place.name}: PNG, JPEG, GIF, BMP, WebP and TIFF are read")
        for path in files:
            try:
                picture = path.read_bytes()
            except OSError as error:
                skipped.append(f"{path.name} cannot be read ({error.strerror or error})")
            else:
                yield path.name, picture
        return
    if not paths:
        raise UserError("there are no captchas yet: drop some, or a zip of them")
    for path in map(Path, paths):
        try:
            with path.open("rb") as file:
                start = file.read(4)
        except OSError:
            raise UserError(f"the upload {path.name} is gone: choose it once more") from None
        if is_zip(start):
            packed = PictureZip(path)
            skipped += [f"{name} is a {OTHER_FORMAT}" for name in unread_pictures(packed.others)]
            for name, entry in packed.with_damaged():
                if isinstance(entry, bytes):
                    yield name, entry
                else:
                    skipped.append(str(entry))
        else:
            yield path.name, path.read_bytes()
