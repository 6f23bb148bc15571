"""The demo: a page for people and a REST route for programs, in one process on one port.

    python interface.py                                            # http://127.0.0.1:7860, the shipped weights
    python interface.py --checkpoint RUN/best.safetensors --port 8000

The page stays on this machine: it listens on 127.0.0.1, takes its fonts and scripts from here, and sends nothing to
anybody. Its tabs, one file each in captcha_reader/web/tabs: Read one captcha, read a Batch, Make captchas and see how
well they keep a machine out, Teach a reader yours, and what the Model says of itself. The route is in
captcha_reader/web/api.py; http://127.0.0.1:7860/docs describes it.

torch is imported only when a .safetensors model is used: the page opens on the .onnx one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from captcha_reader.cli import parse_config, run
from captcha_reader.config import InterfaceConfig
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT, SAVED_MODELS
from captcha_reader.web.jobs import Commands
from captcha_reader.web.limits import Limits
from captcha_reader.web.models import Models
from captcha_reader.web.page import TITLE, build_app
from captcha_reader.web.tabs.read import describe_reading
from captcha_reader.web.workshop import Workshop


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
        likeliest readings with `text` and `confidence`; `model`; `ms` from picture to text.

    Raises:
        UserError: there is no picture, it cannot be read, or the model cannot be used.
    """
    return describe_reading(image, checkpoint, models or Models())


def finetune_commands() -> Commands:
    """The programs of a fine-tuning job."""
    train = [sys.executable, str(ROOT / "main.py"), "--config", str(ROOT / "configs" / "finetune.yaml")]
    return Commands(
        dataset=[sys.executable, str(ROOT / "make_dataset.py")],
        train=[*train, "--progress", "json"],
        export=[sys.executable, str(ROOT / "export_model.py")],
    )


def has_torch() -> bool:
    """Whether .safetensors models can be used and fine-tuned here."""
    return importlib.util.find_spec("torch") is not None


def main() -> int:
    """Command line."""
    config = parse_config(InterfaceConfig, "A page that reads captchas, on this machine.")
    if config.queue < 1 or config.batch < 1:
        raise UserError("--queue and --batch must be 1 or more")
    models = Models(config.models or SAVED_MODELS, config.checkpoint, config.threads)
    shop = Workshop.build(models, config.data or ROOT / "data", finetune_commands(), torch=has_torch())
    listener = _listen(config.host, config.port)
    with listener:
        app = build_app(shop, Limits(queue=config.queue, batch=config.batch))
        import uvicorn

        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3)
        )
        # The connections of open pages are cut at the end, which is no error.
        logging.getLogger("uvicorn.error").addFilter(
            lambda said: not (said.exc_info and isinstance(said.exc_info[1], asyncio.CancelledError))
        )
        host = f"[{config.host}]" if ":" in config.host else config.host
        print(f"{TITLE}: http://{host}:{config.port} (Ctrl-C ends it)", flush=True)
        # The first reader should not wait for the model; one that cannot be used says so on the page.
        threading.Thread(target=_warm_up, args=(models,), daemon=True).start()
        try:
            server.run(sockets=[listener])
        finally:
            shop.jobs.close()
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Take the port before the seconds that the page takes to build.

    Raises:
        UserError: it cannot be had.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except OverflowError:
        raise UserError(f"there is no port {port}: --port is 0 to 65535") from None
    except OSError as error:
        reason = os.strerror(error.errno) if (error.errno or 0) > 0 else error.strerror or str(error)
        raise UserError(
            f"cannot listen on {host}:{port} ({reason}): stop what uses it, or name another --port or --host"
        ) from None


def _warm_up(models: Models) -> None:
    with suppress(UserError):
        predictor = models.predictor()
        predictor.read([predictor.view(Image.new("RGB", (100, 40)))])  # the first pass is a slow one
    import captcha_reader.plots.grid  # noqa: F401


if __name__ == "__main__":
    run(main)
