"""The demo: a page for people and a REST route for programs, in one process on one port.

    python interface.py                                            # http://127.0.0.1:7860, the shipped weights
    python interface.py --checkpoint RUN/best.safetensors --port 8000

The page stays on this machine: it listens on 127.0.0.1, takes its fonts and scripts from here, and sends nothing to
anybody. Its tabs, one file each in captcha_reader/web/tabs: Read one captcha, read a Batch, Make captchas, measure the
Strength of yours, Label them, Teach a reader with them, and what the Model says of itself. http://127.0.0.1:7860/docs
describes the route, docs/serving.md what is defended and the limits.

torch is imported only when a .safetensors model is used: the page opens on the .onnx one.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C shows no traceback during the seconds that the imports take
    from captcha_reader.cli import quiet_interrupt

    quiet_interrupt()

import sys
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from captcha_reader.cli import parse_config, run
from captcha_reader.config import InterfaceConfig
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, SAVED_MODELS
from captcha_reader.web.access import Access
from captcha_reader.web.job import Commands
from captcha_reader.web.limits import MEGABYTE, Limits
from captcha_reader.web.models import Models
from captcha_reader.web.page import TITLE, build_app
from captcha_reader.web.server import Stopped, end_soon, ending_by_signals, give_memory_back, listen, serve
from captcha_reader.web.storage import private_folder
from captcha_reader.web.tabs.read import describe_reading
from captcha_reader.web.uploads import only_known_formats
from captcha_reader.web.workshop import Workshop
from predict import CaptchaPredictor

MOST_SECONDS = 86_400  # a day; the system cannot wait for any number of them


def detect_captcha(
    image: str | Path | bytes | None, checkpoint: str | None = None, models: Models | None = None
) -> dict[str, Any]:
    """Read one captcha.

    Args:
        image: a picture file's path or bytes.
        checkpoint: name of a model, one of `models.paths()`; the first by default.
        models: where to look; saved_models/ by default.

    Returns:
        `text`; `confidence` of the whole text, 0 to 1; `characters`, each with `char`, `confidence`, `class` (high,
        medium, low) and, from a CTC model, `box` (left, top, right, bottom in pixels); `alternatives`, the three
        most likely readings with `text` and `confidence`; `model`; `ms` from picture to text.

    Raises:
        UserError: there is no picture, it cannot be read, or the model cannot be used.
    """
    return describe_reading(image, checkpoint, models or open_models())


def job_commands() -> Commands:
    """The programs of the jobs."""
    train = [sys.executable, str(ROOT / "main.py"), "--config", str(ROOT / "configs" / "finetune.yaml")]
    return Commands(
        dataset=[sys.executable, str(ROOT / "make_dataset.py")],
        train=[*train, "--progress", "json", "--save_every", "1000"],  # a job is never resumed
        export=[sys.executable, str(ROOT / "export_model.py")],
        strength=[sys.executable, str(ROOT / "strength.py")],
    )


def load_predictor(path: Path, threads: int | None) -> CaptchaPredictor:
    """What the server reads with."""
    return CaptchaPredictor(path, threads=threads)


def open_models(folder: str | Path = SAVED_MODELS, *arguments: Any, **settings: Any) -> Models:
    """The models on offer, as `captcha_reader.web.models.Models`, which makes no predictor by itself."""
    return Models(load_predictor, folder, *arguments, **settings)


def main() -> int:
    """Command line."""
    config = parse_config(InterfaceConfig, "A page that reads captchas, on this machine.")
    limits = limits_of(config)
    sites = [config.allow_origin] if isinstance(config.allow_origin, str) else config.allow_origin or []
    access = Access(config.host, config.root_path, tuple(sites), config.read_only, config.token)
    try:
        with ExitStack() as closing:
            closing.callback(end_soon)  # the last thing done
            closing.enter_context(ending_by_signals())
            models = open_models(
                config.models or SAVED_MODELS, config.checkpoint, config.threads, seconds=limits.reading_seconds
            )
            closing.enter_context(private_folder())
            listener = closing.enter_context(listen(config.host, config.port))
            shop = Workshop.build(
                models,
                config.data or ROOT / "data",
                job_commands(),
                read_only=config.read_only,
                local=access.is_local and not access.root_path,
                privacy=access.said,
            )
            closing.callback(shop.close)
            only_known_formats()
            give_memory_back()
            app = build_app(shop, limits, access=access)
            host = f"[{config.host}]" if ":" in config.host else config.host
            port = listener.getsockname()[1]  # of --port 0, the one that was free
            print(f"{TITLE}: http://{host}:{port}{access.prefix} (Ctrl-C ends it)", flush=True)
            if access.warning:
                print(access.warning, file=sys.stderr, flush=True)
            # The first reader should not wait for the model; one that cannot be used says so on the page.
            threading.Thread(target=_warm_up, args=(models,), daemon=True).start()
            serve(app, listener, limits)
    except Stopped as stopped:
        return stopped.code
    return 0


def limits_of(config: InterfaceConfig) -> Limits:
    """The limits that the flags name.

    Raises:
        UserError: one of them is too small, or too large.
    """
    for name in ("queue", "batch", "max_request_mb", "max_upload_mb", "max_disk_mb", "max_megapixels"):
        if getattr(config, name) < 1:
            raise UserError(f"--{name} must be 1 or more")
    for name in ("max_connections", "max_waiting", "max_seconds"):
        if getattr(config, name) <= 0:
            raise UserError(f"--{name} must be more than 0")
    if config.threads is not None and config.threads < 1:
        raise UserError("--threads must be 1 or more")
    if config.max_seconds > MOST_SECONDS:
        raise UserError(f"--max_seconds must be {MOST_SECONDS:,} or less")
    client_queue = min(config.max_waiting, config.queue)
    return Limits(
        request_bytes=config.max_request_mb * MEGABYTE,
        memory_bytes=10 * config.max_request_mb * MEGABYTE,
        pictures=min(Limits.pictures, client_queue),  # more could never be admitted
        pixels=config.max_megapixels * MEGABYTE,
        request_pixels=4 * config.max_megapixels * MEGABYTE,
        queue=config.queue,
        client_queue=client_queue,
        batch=config.batch,
        reading_seconds=config.max_seconds,
        page_bytes=max(config.max_upload_mb * 5 // 2, config.max_request_mb * 3) * MEGABYTE,
        file_bytes=config.max_upload_mb * MEGABYTE,
        disk_bytes=config.max_disk_mb * MEGABYTE,
        client_disk_bytes=max(config.max_disk_mb * 2 // 5, 1) * MEGABYTE,
        connections=2 * config.max_connections,
        client_connections=config.max_connections,
    )


def _warm_up(models: Models) -> None:
    with suppress(UserError):
        predictor = models.predictor()
        predictor.read([predictor.view(Image.new("RGB", (100, 40)))])  # the first pass is a slow one
    import captcha_reader.plots.grid  # noqa: F401


if __name__ == "__main__":
    run(main)
