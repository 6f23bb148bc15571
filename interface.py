"""The demo: a page that reads a captcha and shows how sure it is.

    python interface.py                                            # http://127.0.0.1:7860, the shipped weights
    python interface.py --checkpoint RUN/best.safetensors --port 8000

The page stays on this machine: it listens on 127.0.0.1, takes its fonts and scripts from here, and sends nothing to
anybody. `detect_captcha` is the function behind it and the name of its API endpoint (gradio_client, or curl).
"""

from __future__ import annotations

import html
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from common import DEFAULT_CHECKPOINT, ROOT, SAVED_MODELS, UserError, parse_config, run
from config import InterfaceConfig

if TYPE_CHECKING:
    import gradio

    from predict import CaptchaPredictor, ImageLike

TITLE = "Captcha reader"
RESPONSIBLE_USE = "For study, and for measuring captchas that you own or may test."
EXAMPLES = ROOT / "examples"
EXAMPLE_COUNT = 12  # on the page; a folder may hold more
KEPT_MODELS = 3  # in memory at a time
UPLOAD_LIMIT = "20mb"
CACHE_SECONDS = 3600  # then uploads and drawn pictures are deleted
TABLE_HEADERS = ["position", "character", "confidence, %"]

# Fonts that a browser has anyway: the page loads none.
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif"]
MONO_FONTS = ["ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
CSS = """
#reading textarea, #reading input { font: 700 clamp(1.8rem, 6vw, 2.8rem)/1.25 ui-monospace, Menlo, Consolas,
    "DejaVu Sans Mono", monospace; letter-spacing: .12em; text-align: center; }
#characters .textspan, #characters .text { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: 1.25rem; color: var(--body-text-color) !important; }
#characters .legend-item { color: var(--body-text-color) !important; }
@media (max-width: 600px) { .app { padding: 12px !important; } }
#table { contain: inline-size; }
#responsible { text-align: center; opacity: .8; font-size: .9rem; }
"""

Detection = tuple[str, float, list[tuple[str, str]], list[list[Any]], dict[str, float], Image.Image | None, float]
NOTHING_DETECTED: Detection = ("", 0.0, [], [], {}, None, 0.0)


class Models:
    """The checkpoints that the page offers, each loaded when first used and kept while its file stays the same.

    A name from the page is looked up in the list of what is there; it is never made into a path.

    Args:
        folder: its .safetensors and .onnx files, and the best.safetensors of the runs in it, are offered.
        checkpoint: one more, from anywhere, and the first of the list; the shipped weights by default.
        threads: CPU threads of a model; all available cores by default.

    Raises:
        UserError: `checkpoint`, or without one the shipped weights, do not exist.
    """

    def __init__(
        self, folder: str | Path = SAVED_MODELS, checkpoint: str | Path | None = None, threads: int | None = None
    ) -> None:
        self.folder, self.threads = Path(folder), threads
        self.first = Path(checkpoint) if checkpoint is not None else self.folder / DEFAULT_CHECKPOINT.name
        if not self.first.is_file():
            hint = "check the name" if checkpoint is not None else "train one with main.py, or name one by --checkpoint"
            raise UserError(f"there is no checkpoint {self.first}: {hint}")
        self._loaded: OrderedDict[tuple[Path, int, int], CaptchaPredictor] = OrderedDict()
        self._lock = threading.Lock()

    def paths(self) -> dict[str, Path]:
        """Name to path, the first being the one that the page starts with; read from the disk at each call."""
        root = self.folder.resolve()
        patterns = ("*.safetensors", "*.onnx", "*/best.safetensors")
        found = sorted(path for pattern in patterns for path in self.folder.glob(pattern))
        # A link that leads out of the folder is not offered.
        inside = [p for p in found if p.is_file() and p.resolve().is_relative_to(root) and p.name[0] != "."]
        names = {p.relative_to(self.folder).as_posix(): p for p in inside}
        first = next((name for name, p in names.items() if p.resolve() == self.first.resolve()), None)
        if first is None:
            first = self.first.name
            if first in names or first == "best.safetensors":
                first = f"{self.first.resolve().parent.name}/{first}"
            if first in names:
                first = str(self.first)
        return {first: self.first} | names

    def predictor(self, name: str | None = None) -> CaptchaPredictor:
        """The model of that name, the first by default.

        Raises:
            UserError: there is none of that name, or it cannot be used.
        """
        paths = self.paths()
        name = next(iter(paths)) if name is None else name
        if name not in paths:
            raise UserError(f"there is no model {name!r} here: choose one from the list, or reload the page")
        path = paths[name]
        try:
            stamp = path.stat()
        except OSError:
            raise UserError(f"the model {name} is gone: choose another, or reload the page") from None
        key = (path.resolve(), stamp.st_mtime_ns, stamp.st_size)
        with self._lock:  # two requests at once load a model once
            if key not in self._loaded:
                from predict import CaptchaPredictor

                self._loaded[key] = CaptchaPredictor(path, threads=self.threads)
                while len(self._loaded) > KEPT_MODELS:
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]


def detect_captcha(image: ImageLike | None, checkpoint: str | None = None, models: Models | None = None) -> Detection:
    """Read one captcha.

    Args:
        image: anything that `image_io.open_image` takes.
        checkpoint: name of a model, one of `models.paths()`; the first by default.
        models: where to look; saved_models/ by default.

    Returns:
        The text; the confidence of the whole text in percent; the characters with their class of confidence (high,
        medium, low); a row of position, character and confidence in percent for each; the three likeliest
        readings with their probabilities, 0 to 1; the confidence grid; milliseconds from picture to text.

    Raises:
        UserError: there is no picture, it cannot be read, or the model cannot be used.
    """
    if image is None:
        raise UserError("there is no picture yet: upload one, paste one, or choose an example")
    predictor = (models or Models()).predictor(checkpoint)
    started = time.perf_counter()
    prediction = predictor.read(predictor.preprocess_image(image, "the picture")[None])[0]
    milliseconds = (time.perf_counter() - started) * 1000
    from visualize import NOTHING, confidence_class, confidence_grid, figure_image

    characters = [
        (c, p, confidence_class(p)) for c, p in zip(prediction.text, prediction.char_confidences, strict=True)
    ]
    return (
        prediction.text,
        round(prediction.confidence * 100, 2),
        [(c, name) for c, _, name in characters],
        [[i, c, round(p * 100, 2)] for i, (c, p, _) in enumerate(characters, start=1)],
        {text or NOTHING: probability for text, probability in prediction.alternatives},
        figure_image(confidence_grid(prediction)),
        round(milliseconds, 1),
    )


def _gradio() -> Any:
    """Gradio, which reads these settings when it is imported, and whose import takes seconds."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import gradio

    return gradio


def build_demo(models: Models, examples: str | Path = EXAMPLES) -> gradio.Blocks:
    """The page.

    Args:
        models: what it offers.
        examples: folder of PNG files to try; may be empty or missing.
    """
    gr = _gradio()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CACHE_SECONDS, CACHE_SECONDS)) as demo:
        gr.Markdown(f"# {TITLE}\nUpload, paste or choose a picture: it is read at once, on this machine.")
        checkpoint = _read_panel(gr, models, sorted(Path(examples).glob("*.png"))[:EXAMPLE_COUNT])
        gr.Markdown(RESPONSIBLE_USE, elem_id="responsible")
        # Models trained since the start appear when the page is loaded anew.
        demo.load(lambda: gr.Dropdown(choices=list(models.paths())), None, checkpoint, api_visibility="private")
    return demo


def _read_panel(gr: Any, models: Models, examples: Sequence[Path]) -> gradio.Dropdown:
    """A picture in, its reading out. Returns the choice of the model."""
    from visualize import CONFIDENCE_COLOURS

    names = list(models.paths())
    with gr.Row():
        with gr.Column(scale=4, min_width=260):
            picture = gr.Image(
                label="Captcha",
                type="filepath",
                image_mode=None,  # keeps transparency
                sources=["upload", "clipboard"],
                height=220,
                elem_id="picture",
            )
            # Gradio would open the upload itself and answer a broken one by the bare word "Error". The file, which it
            # has checked to be an upload, goes to `open_image` as it is: the same pixels as on the command line.
            opened_by_gradio = picture.preprocess
            picture.preprocess = lambda data: data.path if data and data.path else opened_by_gradio(data)
            checkpoint = gr.Dropdown(names, value=names[0], label="Model", elem_id="checkpoint")
            button = gr.Button("Read", variant="primary", elem_id="read")
            if examples:
                gr.Examples([[str(path)] for path in examples], [picture], cache_examples=False, label="Examples")
        with gr.Column(scale=5, min_width=260):
            text = gr.Textbox(
                label="Reading", lines=1, interactive=False, buttons=["copy"], elem_id="reading", placeholder="–"
            )
            with gr.Row():
                confidence = gr.Number(label="Confidence, %", interactive=False, min_width=90, elem_id="confidence")
                milliseconds = gr.Number(label="Time, ms", interactive=False, min_width=90, elem_id="milliseconds")
            characters = gr.HighlightedText(
                label="Confidence of each character",
                color_map=CONFIDENCE_COLOURS,
                show_legend=True,
                show_inline_category=False,
                elem_id="characters",
            )
            table = gr.Dataframe(
                headers=TABLE_HEADERS,
                datatype=["number", "str", "number"],
                label="In numbers",
                show_label=True,
                interactive=False,
                elem_id="table",
            )
            readings = gr.Label(
                label="The three likeliest readings", num_top_classes=3, show_heading=False, elem_id="readings"
            )
    grid = gr.Image(
        label="Confidence grid",
        show_label=False,  # it would lie on the picture, whose titles say the same
        type="pil",
        format="png",
        interactive=False,
        buttons=["download", "fullscreen"],
        elem_id="grid",
    )
    outputs = [text, confidence, characters, table, readings, grid, milliseconds]

    def read(image: str | None, checkpoint: str | None) -> Detection:
        """Read a captcha; the model is one of the names in the list."""
        try:
            return detect_captcha(image, checkpoint, models)
        except UserError as error:
            raise gr.Error(_sentence(error), print_exception=False) from None

    def read_at_once(image: str | None, checkpoint: str | None) -> Detection:
        if image is None:
            return NOTHING_DETECTED
        try:
            return detect_captcha(image, checkpoint, models)
        except UserError as error:
            gr.Warning(_sentence(error))
            return NOTHING_DETECTED  # the last picture's reading must not stand beside this one

    inputs = [picture, checkpoint]
    button.click(read, inputs, outputs, api_name="detect_captcha")
    for changed in (picture.change, checkpoint.change):
        changed(read_at_once, inputs, outputs, api_visibility="private", trigger_mode="always_last")
    return checkpoint


def _sentence(error: UserError) -> str:
    """Gradio shows messages as HTML; names of files and characters in ours are not."""
    message = str(error)
    return html.escape(message[:1].upper() + message[1:] + ".")


def main() -> int:
    """Command line."""
    config = parse_config(InterfaceConfig, "A page that reads captchas, on this machine.")
    models = Models(checkpoint=config.checkpoint, threads=config.threads)
    _check_port(config.host, config.port)
    gr = _gradio()
    demo = build_demo(models)
    try:
        demo.launch(
            server_name=config.host,
            server_port=config.port,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            pwa=False,
            max_file_size=UPLOAD_LIMIT,
            theme=gr.themes.Soft(primary_hue="teal", neutral_hue="slate", font=FONTS, font_mono=MONO_FONTS),
            css=CSS,
            footer_links=["api", "settings"],
        )
    except (OSError, gr.exceptions.ServerFailedToStartError) as error:
        raise _cannot_listen(config.host, config.port, error) from None
    print(f"{TITLE}: {demo.local_url} (Ctrl-C ends it)", flush=True)
    # The first reader should not wait for torch; a model that cannot be used says so on the page.
    threading.Thread(target=_warm_up, args=(models,), daemon=True).start()
    demo.block_thread()
    return 0


def _check_port(host: str, port: int) -> None:
    """Refuse a port that cannot be had before the seconds that the page takes to build."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except (OSError, OverflowError) as error:
        raise _cannot_listen(host, port, error) from None


def _cannot_listen(host: str, port: int, error: Exception) -> UserError:
    reason = str(getattr(error, "strerror", None) or error).rstrip(".")
    return UserError(f"cannot listen on {host}:{port} ({reason}): stop what uses it, or name another --port or --host")


def _warm_up(models: Models) -> None:
    from contextlib import suppress

    with suppress(UserError):
        predictor = models.predictor()
        predictor.read(predictor.preprocess_image(Image.new("RGB", (100, 40)))[None])  # the first pass is a slow one
    import visualize  # noqa: F401


if __name__ == "__main__":
    run(main)
