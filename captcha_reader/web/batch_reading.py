"""Many pictures read in one go: uploads and zips in, a table of readings out."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captcha_reader.errors import UserError
from captcha_reader.web import html as views
from captcha_reader.web.uploads import PictureZip, check_picture, is_zip
from captcha_reader.web.workshop import upload_bytes

if TYPE_CHECKING:
    from PIL import Image

    from captcha_reader.transforms import View
    from predict import CaptchaPredictor

BATCH_PICTURES = 2000
BATCH_CHUNK = 32  # pictures read between two looks at the progress bar
GRID_PICTURES = 24
UNLIKE_NAMES = (
    '<p class="hint">The file names do not look like what was read, so nothing was compared: choose “yes” if they say '
    "what is right.</p>"
)


@dataclasses.dataclass
class Batch:
    """Pictures that were read.

    Attributes:
        rows: `file`, `reading`, `confidence`, `characters` (pairs), `picture`, and with labels `label` and `right`.
        refused: file and reason of what could not be read.
        labelled: whether the file names are taken for labels.
        kind: what all have in common, where they were read together.
    """

    rows: list[dict[str, Any]]
    refused: list[tuple[str, str]]
    labelled: bool = False
    kind: str = ""


def iter_pictures(files: Sequence[str | Path]) -> Iterator[tuple[str, bytes | UserError]]:
    """Names and bytes of uploads, with the pictures of zips in their place; an error where one cannot be had.

    Raises:
        UserError: there are too many.
    """
    count = 0
    for file in files:
        name = Path(file).name
        try:
            data = upload_bytes(file)
            pictures: Iterable[tuple[str, bytes | UserError]] = [(name, data)]
            if is_zip(data):
                packed = PictureZip(data, BATCH_PICTURES)
                if not len(packed):
                    raise UserError("the zip has no picture: PNG, JPEG, GIF, BMP, WebP and TIFF files are read")
                pictures = packed.with_damaged()
            for entry, content in pictures:
                count += 1
                if count > BATCH_PICTURES:
                    raise OverflowError
                yield entry, content
        except OverflowError:
            raise UserError(f"there are more than {BATCH_PICTURES:,} pictures: bring fewer at a time") from None
        except UserError as error:
            yield name, error


def count_pictures(files: Sequence[str | Path]) -> int:
    """How many pictures `iter_pictures` will give, for the progress bar."""
    total = 0
    for file in files:
        try:
            data = upload_bytes(file)
            total += len(PictureZip(data, BATCH_PICTURES)) if is_zip(data) else 1
        except UserError:
            total += 1
    return total


def read_batch(
    files: Sequence[str | Path], predictor: CaptchaPredictor, labels: str = "auto", same_kind: bool = False
) -> Iterator[Any]:
    """Read uploads a chunk at a time.

    Args:
        files: pictures and zips of them.
        predictor: the model.
        labels: whether file names carry them: `yes`, `no`, or `auto`, which looks whether readings and names agree.
        same_kind: weigh the readings with what all have in common, as `predict.read_together` does.

    Yields:
        The number of pictures done, after each chunk; at the end the `Batch`, least sure first.

    Raises:
        UserError: there are too many pictures.
    """

    from captcha_reader.dataset.labels import label_from_name

    batch = Batch([], [])
    waiting: list[tuple[str, View, Image.Image]] = []

    def read_waiting() -> None:
        readings = predictor.read([view for _, view, _ in waiting], keep_views=same_kind)
        for (name, _, small), prediction in zip(waiting, readings, strict=True):
            batch.rows.append({"file": name, "prediction": prediction, "picture": small})
        waiting.clear()

    for done, (name, data) in enumerate(iter_pictures(files), start=1):
        try:
            if isinstance(data, UserError):
                raise data
            picture = check_picture(data)
            view = predictor.view(picture)
            picture.thumbnail((320, 200))  # for the grid
            waiting.append((name, view, picture))
        except UserError as error:
            batch.refused.append((name, str(error)))
        if len(waiting) == BATCH_CHUNK:
            read_waiting()
            yield done
    if waiting:
        read_waiting()
    if same_kind:
        from predict import read_together

        together, kind = read_together([row["prediction"] for row in batch.rows])
        for row, prediction in zip(batch.rows, together, strict=True):
            row["prediction"] = prediction
        batch.kind = str(kind)
    for row in batch.rows:
        row |= {"reading": row["prediction"].text, "confidence": row["prediction"].confidence}
        row["label"] = label_from_name(Path(row["file"]).name)
        row["right"] = row["label"] == row["reading"]
    batch.labelled = labels == "yes" or (labels == "auto" and _names_are_labels(batch.rows))
    batch.rows.sort(key=lambda row: row["confidence"])
    yield batch


def _names_are_labels(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether half of the names or more have half of their characters, in order, in common with their reading."""

    def alike(row: dict[str, Any]) -> bool:
        return SequenceMatcher(None, row["label"].casefold(), row["reading"].casefold(), False).ratio() >= 0.5

    return bool(rows) and sum(map(alike, rows)) * 2 >= len(rows)


def batch_summary(batch: Batch, model: str, seconds: float, labels: str = "no") -> str:
    """Headline figures and downloads of a batch, as HTML; `labels` as for `read_batch`."""
    n = len(batch.rows)
    if not n:
        return views.note("No picture could be read." + _refusals(batch), "bad")
    kind = views.note(f"Read as one kind: {views.text(batch.kind)}") if batch.kind else ""
    unlike = "" if batch.labelled or labels != "auto" else UNLIKE_NAMES
    items = [("Pictures", f"{n:,}"), ("Model", views.text(model)), ("Pictures a second", f"{n / seconds:,.0f}")]
    if batch.labelled:
        from captcha_reader.reading.metrics import text_metrics

        m = text_metrics([row["label"] for row in batch.rows], [row["reading"] for row in batch.rows])
        items[1:1] = [
            ("Sequence accuracy", views.percent(m["sequence_accuracy"])),
            ("95 % interval", views.interval(m["wilson_95"])),
            ("CER", views.percent(m["cer"])),
        ]
    rows = [_plain(row, batch.labelled) for row in batch.rows]
    columns = [*rows[0], "error"]
    rows += [{"file": name, "error": why} for name, why in batch.refused]
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, columns, restval="")
    writer.writeheader()
    # A spreadsheet takes a cell that begins so for a formula.
    writer.writerows({k: f"'{v}" if str(v)[:1] in ("=", "+", "-", "@") else v for k, v in row.items()} for row in rows)
    links = views.data_link("readings.csv", "text/csv", table.getvalue().encode(), "CSV")
    links += views.data_link("readings.json", "application/json", json.dumps(rows, ensure_ascii=False).encode(), "JSON")
    return (
        f'<div class="card">{views.figures(items)}{kind}<p class="downloads">{links}</p>{unlike}{_refusals(batch)}'
        f"{views.batch_table(batch.rows, batch.labelled)}</div>"
    )


def _plain(row: dict[str, Any], labelled: bool) -> dict[str, Any]:
    plain = {"file": row["file"], "reading": row["reading"], "confidence": round(row["confidence"], 6)}
    return plain | ({"label": row["label"], "right": row["right"]} if labelled else {})


def _refusals(batch: Batch) -> str:
    if not batch.refused:
        return ""
    listed = "".join(f"<li><b>{views.text(n)}</b>: {views.sentence(why)}</li>" for n, why in batch.refused[:20])
    more = f"<li>and {len(batch.refused) - 20} more</li>" if len(batch.refused) > 20 else ""
    return (
        f'<details class="note bad"{"" if batch.rows else " open"}><summary>{len(batch.refused)} left out</summary>'
        f"<ul>{listed}{more}</ul></details>"
    )


def draw_batch(batch: Batch) -> str:
    """The least sure pictures with their readings, as HTML, and the same as one picture to download."""
    from captcha_reader.plots.canvas import figure_image
    from captcha_reader.plots.grid import draw_grid

    rows = batch.rows[:GRID_PICTURES]
    figure = draw_grid(
        [row["picture"] for row in rows],
        [row["prediction"] for row in rows],
        [row["label"] for row in rows] if batch.labelled else None,
        [row["file"] for row in rows],
    )
    title = f"The {len(rows)} least sure of {len(batch.rows):,}" if len(rows) < len(batch.rows) else "All readings"
    return views.batch_grid(title, rows, batch.labelled, figure_image(figure))
