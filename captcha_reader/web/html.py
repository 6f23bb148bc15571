"""The page's own pieces of HTML: readings, tables, progress, curves, the card of a model.

Everything that comes from outside passes through `text`, so that no file name, label or setting is ever markup.
Colours come from the style sheet (assets/page.css), which knows light and dark.
"""

from __future__ import annotations

import base64
import html
import io
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captcha_reader.config import CTC_HEADS
from captcha_reader.plots.colors import confidence_class
from captcha_reader.reading.metrics import wilson_interval
from captcha_reader.text import NOTHING

if TYPE_CHECKING:
    from PIL import Image

    from captcha_reader.reading.prediction import Prediction
    from captcha_reader.web.jobs import Job
    from captcha_reader.web.knobs import Trial

SHOWN_FAILURES = 24
SHOWN_ROWS = 1000
LOGO = (
    '<svg viewBox="0 0 48 48" width="44" height="44" aria-hidden="true"><rect width="48" height="48" rx="12" '
    'class="logo-ground"/><path d="M6 30c8-9 14 6 21-3s10-6 15-2" class="logo-line"/><text x="8" y="33" '
    'transform="rotate(-14 14 28)" class="logo-text">a</text><text x="25" y="34" transform="rotate(11 30 28)" '
    'class="logo-text">B</text></svg>'
)


def text(value: Any) -> str:
    """A value as text within HTML. Braces and dollars too, which Gradio's templates know."""
    escaped = html.escape(str(value))
    return escaped.replace("{", "&#123;").replace("}", "&#125;").replace("$", "&#36;").replace("`", "&#96;")


def sentence(error: Exception | str) -> str:
    """A message as a sentence within HTML."""
    message = str(error)
    return text(message[:1].upper() + message[1:] + ("" if message.endswith((".", "!", "?")) else "."))


def percent(share: float, digits: int = 1) -> str:
    """`0.5` as `50.0 %`; only certainty is 100."""
    shown = f"{share * 100:.{digits}f}"
    return f"{99.9:.{digits}f} %" if share < 1 and float(shown) >= 100 and digits else f"{shown} %"


def interval(bounds: Sequence[float]) -> str:
    """A 95 % interval."""
    return f"{bounds[0] * 100:.1f} to {bounds[1] * 100:.1f} %"


def note(message: str, kind: str = "") -> str:
    """A line that says something; `kind` is good, bad or nothing."""
    return f'<p class="note {kind}" role="status">{message}</p>'


def header(title: str, responsible: str) -> str:
    """The head of the page."""
    return (
        f'<header class="head">{LOGO}<div><h1>{text(title)}</h1>'
        f'<p id="responsible">{text(responsible)}</p></div></header>'
    )


def _percent(probability: float) -> int:
    """Whole percent, rounded down above 99."""
    return int(probability * 100) if probability > 0.99 else round(probability * 100)


# --------------------------------------------------------------------------------------------------------------------
# Read


def no_reading(why: Exception | str, kind: str = "bad") -> str:
    """In place of a reading, why there is none."""
    return f'<div class="card reading empty"><p class="{kind}">{sentence(why)}</p></div>'


NO_READING = no_reading("Choose a picture: what it says appears here", "")


def reading_card(prediction: Prediction, milliseconds: float, model: str) -> str:
    """The reading in large type, each character in the colour of its class of confidence, and the figures."""
    tiles = "".join(
        f'<li class="{confidence_class(p)}"><b>{text(c)}</b><span>{_percent(p)} %</span></li>'
        for c, p in zip(prediction.text, prediction.char_confidences, strict=True)
    )
    kind = confidence_class(prediction.confidence)
    shown = text(prediction.text) or "nothing"
    body = f'<ul class="tiles" aria-label="Characters and their confidence">{tiles}</ul>' if tiles else ""
    if not tiles:
        body = f'<p class="nothing">{NOTHING}<span>Nothing was read in this picture.</span></p>'
    return (
        f'<div class="card reading"><p class="quiet sr" role="status">Reading: {shown}, '
        f"{percent(prediction.confidence)} sure</p>"
        f'<div class="bar-line"><span class="label">Reading</span><button type="button" class="copy" '
        f'data-copy="{text(prediction.text)}" aria-label="Copy the reading">Copy</button></div>'
        f'<div id="reading-text" data-text="{text(prediction.text)}">{body}</div>'
        f'<dl class="figures"><div><dt>Whole text</dt><dd class="{kind}"><i class="dot"></i>'
        f"{percent(prediction.confidence)}</dd></div>"
        f'<div><dt>Time</dt><dd id="milliseconds">{milliseconds:.1f} ms</dd></div>'
        f"<div><dt>Model</dt><dd>{text(model)}</dd></div></dl>{LEGEND}</div>"
    )


LEGEND = (
    '<p class="legend"><span class="high"><i class="dot"></i>high, from 90 %</span><span class="medium">'
    '<i class="dot"></i>medium, from 60 %</span><span class="low"><i class="dot"></i>low</span></p>'
)


def likely_card(alternatives: Sequence[tuple[str, float]], reading: str | None = None) -> str:
    """The likeliest whole readings, with bars, and why `reading`, the one shown in large type, may not come first."""
    rows = "".join(
        f'<li><b>{text(reading) or NOTHING}</b><span class="track" aria-hidden="true"><i style="width:'
        f'{max(0.5, probability * 100):.1f}%"></i></span><span class="value">{_small(probability)}</span></li>'
        for reading, probability in alternatives
    )
    said = ""
    if reading is not None and alternatives and alternatives[0][0] != reading:
        said = (
            '<p class="hint">The reading above takes the likeliest character at each place. As a whole, another text '
            "is likelier: the model is unsure.</p>"
        )
    return f'<div class="card"><h3>The three likeliest readings</h3><ol class="likely">{rows}</ol>{said}</div>'


def _small(probability: float) -> str:
    return "< 0.01 %" if probability < 0.0001 else percent(probability, 2)


def data_url(kind: str, content: bytes) -> str:
    """Bytes within the page itself."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def picture_card(title: str, picture: Image.Image, alt: str, hint: str = "", wide: bool = False) -> str:
    """A picture under a heading; a wide one can be scrolled on a narrow screen."""
    image = f'<img src="{data_url("image/png", png(picture))}" alt="{text(alt)}">'
    if wide:
        image = f'<div class="scroll wide" tabindex="0" role="region" aria-label="{text(title)}">{image}</div>'
    return f'<div class="card picture"><h3>{text(title)}</h3>{image}{hint}</div>'


def where_card(boxes: Image.Image | None, prediction: Prediction) -> str:
    """Where each character was seen, or why that is not known."""
    title = "Where each character was seen"
    if not prediction.text:
        return ""
    if boxes is None:
        return (
            f'<div class="card"><h3>{title}</h3><p>This model does not say. A model with CTC does, and so does the '
            ".safetensors file of one with attention slots.</p></div>"
        )
    said = (
        "A box spans the columns around the point where the network was surest of a character."
        if prediction.codec.along_width
        else "A box spans the columns that this position's attention went to."
    )
    alt = f"the captcha with a box around each of {prediction.text}"
    return picture_card(title, boxes, alt, f'<p class="hint">{said}</p>')


def grid_card(heat: Image.Image) -> str:
    """The confidence grid."""
    alt = "probability of every character of the alphabet at each position of the reading"
    return picture_card("Confidence grid", heat, alt, wide=True)


# --------------------------------------------------------------------------------------------------------------------
# Progress


def progress_bar(share: float, label: str, name: str = "Progress") -> str:
    """A bar with a line of text."""
    whole = round(min(max(share, 0.0), 1.0) * 100)
    return (
        f'<div class="progress"><div class="bar-line"><span>{text(label)}</span><span>{whole} %</span></div>'
        f'<div class="track" role="progressbar" aria-label="{text(name)}" aria-valuemin="0" aria-valuemax="100" '
        f'aria-valuenow="{whole}"><i style="width:{whole}%"></i></div></div>'
    )


# --------------------------------------------------------------------------------------------------------------------
# Batch


def data_link(name: str, kind: str, content: bytes, label: str) -> str:
    """A download that needs no file on the server."""
    return f'<a class="button" download="{text(name)}" href="{data_url(kind, content)}">{text(label)}</a>'


def letters(prediction: Prediction) -> str:
    """A reading, each character in the colour of its class of confidence."""
    pairs = zip(prediction.text, prediction.char_confidences, strict=True)
    return "".join(f'<span class="{confidence_class(p)}">{text(c)}</span>' for c, p in pairs) or NOTHING


def figures(items: Iterable[tuple[str, str]]) -> str:
    """Names and values, side by side."""
    cells = "".join(f"<div><dt>{text(name)}</dt><dd>{value}</dd></div>" for name, value in items)
    return f'<dl class="figures">{cells}</dl>'


def batch_table(rows: Sequence[Mapping[str, Any]], labelled: bool) -> str:
    """Readings, in the order given; `row` has file, confidence, prediction and, if labelled, label and right."""
    head = "<th>File</th><th>Reading</th><th>Confidence</th>" + ("<th>Label</th><th>Right?</th>" if labelled else "")
    body = []
    for row in rows[:SHOWN_ROWS]:
        kind = confidence_class(row["confidence"])
        cells = (
            f'<td class="file" title="{text(row["file"])}">{text(row["file"])}</td>'
            f'<td class="letters">{letters(row["prediction"])}</td>'
            f'<td class="{kind}"><i class="dot"></i>{percent(row["confidence"])}</td>'
        )
        if labelled:
            right = row["right"]
            mark = '<span class="right">✓ right</span>' if right else '<span class="wrong">✗ wrong</span>'
            cells += f'<td class="letters">{text(row["label"])}</td><td>{mark}</td>'
        body.append(f"<tr>{cells}</tr>")
    more = len(rows) - SHOWN_ROWS
    tail = f'<p class="hint">{more:,} more are in the downloads.</p>' if more > 0 else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Readings, least sure first"><table class="list">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{tail}"
    )


def batch_grid(title: str, rows: Sequence[Mapping[str, Any]], labelled: bool, picture: Image.Image) -> str:
    """Pictures with their readings, and all of them as one picture to download."""
    shown = []
    for row in rows:
        mark = ""
        if labelled:
            mark = '<b class="right">✓</b>' if row["right"] else f'<b class="wrong">✗</b> {text(row["label"])}'
        caption = f'<span class="letters">{letters(row["prediction"])}</span> {percent(row["confidence"], 0)} {mark}'
        shown.append((png(row["picture"]), row["file"], caption))
    link = data_link("readings.png", "image/png", png(picture), "Picture")
    return f'<div class="card"><div class="bar-line"><h3>{text(title)}</h3>{link}</div>{gallery(shown)}</div>'


def gallery(pictures: Iterable[tuple[bytes, str, str]]) -> str:
    """Pictures side by side: PNG file, what it is in words, and HTML below it."""
    shown = "".join(
        f'<figure><img src="{data_url("image/png", picture)}" alt="{text(alt)}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for picture, alt, caption in pictures
    )
    return f'<div class="pictures">{shown}</div>'


# --------------------------------------------------------------------------------------------------------------------
# Make

VERDICTS = (
    (0.9, "low", "No obstacle", "This reader, which never saw this kind, reads nearly all of them."),
    (0.5, "medium", "Weak", "This reader reads more than half of them, and nobody needs more than a few tries."),
    (0.1, "medium", "A hurdle", "It still reads some, and one taught on a few hundred of them would read far more."),
    (
        0.0,
        "high",
        "Hard for this reader",
        "It hardly reads any. One taught on a few hundred of them may well do; and people must read them, too.",
    ),
)


def strength_card(outcome: Mapping[str, Any], failures: Sequence[Trial], tried: str = "", unknown: str = "") -> str:
    """The success rate with its interval, what it means, and the captchas that were misread.

    Args:
        outcome: of `strength.success`.
        failures: what was misread.
        tried: what was tried, in words.
        unknown: characters that the captchas may have and the model cannot write.
    """
    rate = outcome["rate"]
    _, kind, word, meaning = next(v for v in VERDICTS if rate >= v[0])
    low, high = outcome["interval"]
    shown = gallery(
        (t.picture, f"captcha {t.text}", f"{text(t.text)} <span>read as</span> <b>{text(t.reading) or NOTHING}</b>")
        for t in failures[:SHOWN_FAILURES]
    )
    more = len(failures) - SHOWN_FAILURES
    listed = (
        f"<h3>{len(failures)} misread{f', {SHOWN_FAILURES} shown' if more > 0 else ''}</h3>{shown}"
        if failures
        else '<p class="hint">Not one was misread.</p>'
    )
    said = f'<p class="hint">Tried: {text(tried)}.</p>' if tried else ""
    if unknown:
        missing = f"This model cannot write {unknown}, so it fails wherever one of them stands."
        said = note(text(missing), "bad") + said
    return (
        '<div class="card strength"><div class="meter" aria-hidden="true"><span class="range" '
        f'style="left:{low * 100:.1f}%;width:{(high - low) * 100:.1f}%"></span>'
        f'<i style="left:{rate * 100:.1f}%"></i></div>'
        f'<p class="verdict {kind}"><b>{outcome["right"]} of {outcome["n"]} read</b> <span>{word}</span></p>'
        f"<p>Success rate {percent(rate)}, 95 % interval {interval((low, high))}; ignoring upper and lower case "
        f"{percent(outcome['ignoring_case'])}. {meaning}</p>{said}{listed}</div>"
    )


def sweep_chart(label: str, points: Sequence[tuple[float, Mapping[str, Any]]], now: float) -> str:
    """Success rate along a knob, with intervals; a mark where the knob stands."""
    values = [value for value, _ in points]
    chart = Chart(220, (min(values), max(values)), 1.0)
    bars = ""
    for value, outcome in points:
        (x, y), (_, low), (_, high) = (chart.at(value, rate) for rate in (outcome["rate"], *outcome["interval"]))
        bars += (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" class="whisker"/><circle cx="{x:.1f}" '
            f'cy="{y:.1f}" r="4.5" class="point"><title>{value:g}: {percent(outcome["rate"])}</title></circle>'
        )
    place, _ = chart.at(min(max(now, min(values)), max(values)), 0)
    bars += f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{chart.top}" y2="{chart.base}" class="now"/>'
    said = "; ".join(f"{v:g}: {o['rate']:.0%}" for v, o in points)
    svg = chart.svg(
        f"Success rate by {label}: {said}",
        [(v, o["rate"]) for v, o in points],
        [(rate, f"{rate:.0%}") for rate in (0, 0.25, 0.5, 0.75, 1)],
        [(value, f"{value:g}") for value in values],
        bars,
    )
    return (
        f'<div class="card"><h3>Read, along “{text(label)}”</h3>{svg}<p class="hint">{points[0][1]["n"]} captchas at '
        "each value, all else as set; bars are 95 % intervals; the dashed line is where the knob stands.</p></div>"
    )


class Chart:
    """A line chart as SVG.

    Args:
        height: of the picture, whose width is 560.
        across: the first and last value on the horizontal axis.
        highest: value on the vertical axis, which begins at 0.
    """

    width, left, right, top = 560, 44, 14, 14

    def __init__(self, height: int, across: tuple[float, float], highest: float) -> None:
        self.height, self.base = height, height - 28
        self.first, self.span, self.highest = across[0], across[1] - across[0] or 1.0, highest or 1.0

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Values to a place in the picture."""
        along = self.left + (x - self.first) / self.span * (self.width - self.left - self.right)
        return along, self.base - y / self.highest * (self.base - self.top)

    def svg(
        self,
        said: str,
        points: Sequence[tuple[float, float]],
        levels: Sequence[tuple[float, str]],
        ticks: Sequence[tuple[float, str]],
        more: str = "",
    ) -> str:
        """The chart: what it says in words, its line, names of values on both axes, and what else is drawn."""
        grid = ""
        for value, name in levels:
            y = self.at(0, value)[1]
            grid += (
                f'<line x1="{self.left}" x2="{self.width - self.right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>'
                f'<text x="{self.left - 6}" y="{y + 4:.1f}" class="tick end">{text(name)}</text>'
            )
        for value, name in ticks:
            grid += (
                f'<text x="{self.at(value, 0)[0]:.1f}" y="{self.height - 8}" class="tick middle">{text(name)}</text>'
            )
        path = " ".join("{:.1f},{:.1f}".format(*self.at(x, y)) for x, y in points)
        return (
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{text(said)}">{grid}'
            f'<polyline points="{path}" class="curve"/>{more}</svg>'
        )


# --------------------------------------------------------------------------------------------------------------------
# Teach


def job_card(job: Job | None, before: int, downloads: Mapping[str, str]) -> str:
    """A fine-tuning: how far it is, its curve, its result, its files."""
    if job is None:
        return (
            '<div class="card empty"><p>Nothing is being taught. Start a training, and its progress, curve and result '
            "appear here.</p></div>"
        )
    titles = {"done": "Taught", "failed": "Failed", "cancelled": "Cancelled", "waiting": "Waiting"}
    title = titles.get(job.state, "Teaching")
    kind = {"done": "good", "failed": "bad"}.get(job.state, "")
    seconds = (job.ended or time.time()) - job.started
    parts = [
        f'<div class="card job" data-state="{job.state}"><div class="bar-line"><h3>{title}</h3><span class="hint">'
        f"{text(job.start_name)} · {job.pictures or '?'} pictures · {_duration(seconds)}</span></div>"
    ]
    if job.running:
        label = f"{before} before this one" if before else job.note
        parts.append(progress_bar(job.progress, label, "Training"))
    else:
        parts.append(note(sentence(job.note), kind))
    if job.model:
        parts.append(
            f"<p>Choose it at the top of the page: <b>{text(job.model)}</b>. The one it started from is "
            "unchanged. The Model tab lists the characters that it writes.</p>"
        )
    if job.history:
        parts.append(_curve(job.history))
    if job.result.get("after"):
        parts.append(_result(job.result))
    if job.result.get("left_out"):
        reasons = ", ".join(f"{n} {reason}" for reason, n in job.result["reasons"].items())
        parts.append(f'<p class="hint">{job.result["left_out"]} left out: {text(reasons)}.</p>')
    if downloads:
        links = "".join(
            f'<a class="button" download href="{text(url)}">{text(name)}</a>' for name, url in downloads.items()
        )
        parts.append(f'<p class="downloads">{links}</p>')
    if job.result.get("export"):
        parts.append(note(f"There is no ONNX file: {sentence(job.result['export'])}", "bad"))
    return "".join(parts) + "</div>"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _result(result: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{name}</th><td><b>{percent(m['sequence_accuracy'])}</b></td><td>{interval(m['wilson_95'])}</td>"
        f"<td>{percent(m['cer'])}</td><td>{m['n']:,}</td></tr>"
        for name, m in (("before", result["before"]), ("after", result["after"]))
    )
    return (
        '<div class="scroll"><table class="facts"><thead><tr><th></th><th>whole text right</th><th>95 % interval</th>'
        f"<th>CER</th><th>n</th></tr></thead><tbody>{rows}</tbody></table></div><p>{sentence(result['expect'])}</p>"
    )


def _curve(history: Sequence[Mapping[str, Any]]) -> str:
    """The training loss, epoch by epoch."""
    losses = [(float(row["epoch"]), float(row["train_loss"])) for row in history]
    highest = max(loss for _, loss in losses)
    epoch, latest = losses[-1]
    chart = Chart(170, (1, max(epoch, 2)), highest)
    x, y = chart.at(epoch, latest)
    svg = chart.svg(
        f"Loss on the pictures it learns from, epoch by epoch; {latest:.2f} after epoch {epoch:g}",
        losses,
        [(highest * share, f"{highest * share:.2g}") for share in (0, 0.5, 1)],
        [(1, "1"), (epoch, f"{epoch:g}")] if epoch > 1 else [(1, "1")],
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" class="point"/>',
    )
    return f'{svg}<p class="hint">Loss on the pictures it learns from: {latest:.2f} after epoch {epoch:g}.</p>'


# --------------------------------------------------------------------------------------------------------------------
# Model

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


def model_card(name: str, path: Path, metadata: Mapping[str, Any], url: str) -> str:
    """What a checkpoint says of itself."""
    model, provenance = metadata["model"], metadata.get("provenance") or {}
    height, width = model["image_size"]
    config, data = provenance.get("config") or {}, provenance.get("data") or {}
    versions = provenance.get("versions") or {}
    characters = "".join(f"<span>{text(c)}</span>" for c in model["alphabet"])
    length = model["max_length"]
    longest = f"trained on up to {length}" if model["head"] in CTC_HEADS else f"at most {length}"
    facts = [
        ("Architecture", f"{text(model['name'])} ({text(model.get('backbone', ''))})"),
        ("Reads", text(HEADS.get(model["head"], model["head"]))),
        ("Length", f"{longest} characters"),
        (
            "Input",
            f"{width} × {height} pixels, {'grey' if model.get('channels', 1) == 1 else 'colour'}, "
            f"{text(RESIZES.get(model.get('resize', 'pad'), model.get('resize')))}"
            f"{', brought to dark letters on a light ground' if model.get('normalise') else ''}",
        ),
        ("File", f"{path.suffix[1:]}, {path.stat().st_size / 1e6:.1f} MB"),
    ]
    if seen := provenance.get("seen"):
        short, _, more = seen.partition(": ")
        told = f"<details><summary>{text(short)}</summary>{text(more)}</details>" if more else text(short)
        facts.append(("Trained on", told))
    elif data:
        sources = ", ".join(map(str, data.get("sources", [])))
        facts.append(("Trained on", f"{data.get('n', '?'):,} pictures from {text(sources)}" if data.get("n") else "?"))
    if config.get("init") not in (None, "scratch", "auto"):
        facts.append(("Started from", text(config["init"])))
    if provenance.get("time"):
        facts.append(("Made", text(str(provenance["time"]).replace("T", " ")[:16]) + " UTC"))
    if versions:
        facts.append(("With", text(", ".join(f"{k} {v}" for k, v in versions.items()))))
    rows = "".join(f"<tr><th>{key}</th><td>{value}</td></tr>" for key, value in facts)
    return (
        f'<div class="card model"><div class="bar-line"><h3>{text(name)}</h3><a class="button" download '
        f'href="{text(url)}">Download</a></div>'
        f'<table class="facts">{rows}</table></div>'
        f'<div class="card"><h3>Alphabet, {len(model["alphabet"])} characters</h3>'
        f'<p class="alphabet">{characters}</p></div>'
        f'<div class="card"><h3>Measured</h3>{_measured(metadata.get("metrics") or {})}</div>'
        f'<div class="card"><h3>Limits</h3>{_limits(model)}</div>'
    )


SETS = {
    "validation": "its own kind, pictures that chose the best epoch",
    "test": "its own kind, pictures held back from training",
    "cross_validation": "its own kind, by models that had not seen the pictures",
}


def _measured(metrics: Mapping[str, Any]) -> str:
    rows = []
    for name, values in metrics.items():
        if not isinstance(values, Mapping) or "sequence_accuracy" not in values:
            continue
        n = values.get("n") or _n_of(name)
        right = values["sequence_accuracy"]
        bounds = interval(values.get("wilson_95") or wilson_interval(round(right * n), n)) if n else "–"
        said = f'<br><span class="hint">{text(values["note"])}</span>' if values.get("note") else ""
        rows.append(
            f"<tr><th>{text(SETS.get(name, name))}{said}</th><td>{f'{n:,}' if n else '–'}</td>"
            f"<td><b>{percent(right)}</b></td><td>{bounds}</td>"
            f"<td>{percent(values['cer']) if 'cer' in values else '–'}</td></tr>"
        )
    if not rows:
        return '<p class="hint">The checkpoint carries no measurements.</p>'
    return (
        '<div class="scroll"><table class="facts wide"><thead><tr><th>on</th><th>n</th><th>whole text right</th>'
        f"<th>95 % interval</th><th>CER</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _n_of(name: str) -> int:
    """The n that a set's name gives in brackets: `captcha version 2 (n=1,040)`."""
    import re

    match = re.search(r"n\s*=\s*([\d,]+)", name)
    return int(match[1].replace(",", "")) if match else 0


def _limits(model: Mapping[str, Any]) -> str:
    points = [
        f"It writes no character but the {len(model['alphabet'])} above; another one in the picture becomes a mistake.",
        "Its confidence was learnt on pictures like its training's; on other kinds it may be sure and wrong.",
        "On other kinds of captchas it may read far less than the figures say. Teach it with yours.",
    ]
    return f'<ul class="limits">{"".join(f"<li>{text(p)}</li>" for p in points)}</ul>'
