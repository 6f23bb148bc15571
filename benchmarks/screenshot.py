"""Take the README's pictures of the demo: start it, use a tab as a person would, photograph the page.

    python benchmarks/screenshot.py examples/7kPx2.png assets/demo.png
    python benchmarks/screenshot.py examples/7kPx2.png make.png --tab make
    python benchmarks/screenshot.py examples/7kPx2.png phone.png --width 390 --height 844 --dark

Needs Playwright (requirements-dev.txt) and a Chromium: the one at /usr/bin/chromium, or --browser PATH.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from load import server  # noqa: E402

from captcha_reader.cli import run  # noqa: E402
from captcha_reader.errors import UserError  # noqa: E402
from captcha_reader.files import write_atomically  # noqa: E402

# Chromium's own traffic (updates, sync) is switched off.
BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENCE = 60_000  # milliseconds


def _read(page: Page, picture: str) -> None:
    page.locator("#picture input[type=file]").set_input_files(picture)
    page.locator("#grid img").wait_for(timeout=PATIENCE)


def _batch(page: Page, picture: str) -> None:
    files = sorted(Path(picture).parent.glob("*.png"))
    page.locator("#files input[type=file]").set_input_files(files)
    page.locator(f"#files .filename[aria-label='{files[-1].name}']").wait_for(timeout=PATIENCE)  # shown in two parts
    page.locator("#read-all").click()
    page.locator("#batch-grid img").first.wait_for(timeout=PATIENCE)


def _make(page: Page, picture: str) -> None:
    page.locator("#another").click()
    page.locator("#made img").wait_for(timeout=PATIENCE)
    page.locator("#sweep").click()
    page.locator("#sweep-chart svg").wait_for(timeout=PATIENCE)


def _teach(page: Page, picture: str) -> None:
    page.locator("#job .card").wait_for(timeout=PATIENCE)


def _model(page: Page, picture: str) -> None:
    page.locator("#card .model").wait_for(timeout=PATIENCE)


SCENES = {"read": _read, "batch": _batch, "make": _make, "teach": _teach, "model": _model}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Photograph the demo.")
    parser.add_argument("picture", help="captcha to upload; for the Batch tab all PNG files beside it")
    parser.add_argument("out", help="PNG file to write")
    parser.add_argument("--tab", choices=list(SCENES), default="read", help="what to show")
    parser.add_argument("--checkpoint", help="model; the shipped weights by default")
    parser.add_argument("--browser", default="/usr/bin/chromium", help="Chromium's path")
    parser.add_argument("--width", type=int, default=1180, help="of the window, in pixels")
    parser.add_argument("--height", type=int, default=760, help="of the window, in pixels")
    parser.add_argument("--dark", action="store_true", help="prefer dark colors")
    arguments = parser.parse_args()
    if not Path(arguments.picture).is_file():
        raise UserError(f"{arguments.picture} does not exist: check the name")
    from playwright.sync_api import sync_playwright

    checkpoint = ["--checkpoint", arguments.checkpoint] if arguments.checkpoint else []
    with server("interface.py", "--port", "PORT", *checkpoint) as (port, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.browser, args=BROWSER_FLAGS)
        page = browser.new_page(
            viewport={"width": arguments.width, "height": arguments.height},
            color_scheme="dark" if arguments.dark else "light",
        )
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator("#read").wait_for(timeout=PATIENCE)
        if arguments.tab != "read":
            page.get_by_role("tab", name=arguments.tab.capitalize(), exact=True).click()
        SCENES[arguments.tab](page, arguments.picture)
        page.wait_for_timeout(1500)  # transitions
        write_atomically(arguments.out, lambda path: page.screenshot(path=path, full_page=True))
        browser.close()
    print(f"{arguments.out}: {arguments.width} pixels wide")
    return 0


if __name__ == "__main__":
    run(main)
