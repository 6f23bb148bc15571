"""The fonts of the shipped reader's recipe: recipe_fonts.txt names them, packages have them, a folder of links holds
them.

The list was made once by `benchmarks/select_fonts.py` from the packages of font_packages.txt: the legible Latin fonts,
three of a family at most. It is kept as a list, for the choice took a trained reader, and the recipe starts from none.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from captcha_reader.errors import UserError
from captcha_reader.generator.fonts import font_list

RECIPE_FONTS = Path(__file__).with_name("recipe_fonts.txt")
INSTALLED = Path("/usr/share/fonts")  # where Debian's packages put them


def recipe_fonts() -> list[str]:
    """The fonts as paths below `INSTALLED`."""
    return RECIPE_FONTS.read_text(encoding="utf-8").splitlines()


def link_recipe_fonts(folder: Path, installed: Path = INSTALLED) -> Path:
    """Fill a folder with links to the recipe's fonts, for `find_fonts`.

    Args:
        folder: new, or filled so before.
        installed: where the packages' fonts are.

    Returns:
        `folder`.

    Raises:
        UserError: fonts are missing.
    """
    names = recipe_fonts()
    missing = [name for name in names if not (installed / name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of the recipe's {len(names)} fonts are missing ({missing[0]}, ...): "
            "python captcha_generator.py --check_fonts says what to install; --fonts FOLDER takes others instead"
        )
    for name in names:
        link = folder.joinpath(*Path(name).parts[-2:])  # a font's part, training or held out, goes by its own name
        link.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # another run may make it at the same time
            link.symlink_to(installed / name)
    return folder


def describe_fonts(folder: str | None, alphabet: str) -> dict[str, Any]:
    """Which fonts captchas are drawn with, in short: how many, and the hash of their names and hashes.

    Args:
        folder, alphabet: as `find_fonts`.

    Returns:
        `count`, `sha256` (of the JSON of `files`) and `files`, the list that `font_list` gives.
    """
    files = font_list(folder, alphabet)
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return {"count": len(files), "sha256": digest, "files": files}
