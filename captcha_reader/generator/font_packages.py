"""The recipe's fonts: packages that install by name, which of them are there, and which fonts a training used.

The packages (font_packages.txt) are Debian's; Ubuntu has them, too. `benchmarks/select_fonts.py` copies the legible
Latin fonts of them into the folder that `--fonts` takes. Without any, captchas have matplotlib's fonts.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

RECIPE = Path(__file__).with_name("font_packages.txt")


def recipe_packages() -> list[str]:
    """Names of the packages."""
    return RECIPE.read_text(encoding="utf-8").split()


def installed_packages() -> set[str] | None:
    """Those of the recipe that this machine has; None where there is no dpkg to ask."""
    if shutil.which("dpkg-query") is None:
        return None
    command = ["dpkg-query", "-W", "-f", "${Package} ${Status}\\n", *recipe_packages()]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}


def check_packages() -> str:
    """What of the recipe is missing, and the one command that installs it, for a person to read."""
    wanted, have = recipe_packages(), installed_packages()
    if have is None:
        return (
            f"The recipe's {len(wanted)} font packages are Debian's, and this machine has no dpkg to ask for them.\n"
            f"Install fonts of your own choice and name their folder with --fonts. The list: {RECIPE}"
        )
    missing = [name for name in wanted if name not in have]
    if not missing:
        return f"All {len(wanted)} font packages of the recipe are installed."
    return (
        f"{len(missing)} of the recipe's {len(wanted)} font packages are missing. This installs them:\n"
        f"sudo apt-get install --no-install-recommends {' '.join(missing)}"
    )
