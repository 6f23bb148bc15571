"""Copy the legible Latin fonts of this machine into one folder, for `--fonts`.

    python captcha_generator.py --check_fonts     # the command that installs what is missing
    python benchmarks/select_fonts.py /usr/share/fonts data/generated/fonts data/generated/text-fonts

A font is taken if it draws all digits and both cases, and if the shipped reader makes out a third of the characters of
some plain words in it: ornaments and unreadable scripts fail that, display fonts that it has yet to learn do not.
Symbol fonts that draw Greek letters for Latin ones pass, for half of these look alike: they are left out by name.
Display fonts, made to look odd rather than to be read, are two fifths of what is left: a third argument is a
folder that gets the other fonts, the text faces, alone.
A family, that is fonts whose file names begin with the same seven letters, gives three at most, so that no foundry
outweighs the others.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jiwer import cer
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from captcha_reader.config import ALPHANUMERIC
from captcha_reader.generator.fonts import load_glyph
from captcha_reader.text import Alphabet
from predict import CaptchaPredictor

WORDS = ("A8bK3", "dRe5G", "h7MNQ", "2TfU4", "a6EYH", "BJt9L")
LEAST_READ = 0.33
PER_FAMILY = 3
GREEK = ("symbol", "ellen", "ellebo", "alfa-beta")  # what the file names of fonts with Greek letters begin with or hold
DISPLAY_FONTS = "aenigma"  # the folder that Debian's package of them has


def share_read(font: Path, predictor: CaptchaPredictor) -> float:
    """Character accuracy on `WORDS`, ignoring case; below zero where more is read than there is."""
    face = ImageFont.truetype(str(font), 36)
    pictures = []
    for word in WORDS:
        picture = Image.new("RGB", (200, 50), "white")
        left, top, right, bottom = face.getbbox(word)
        place = ((200 - right - left) / 2, (50 - bottom - top) / 2)
        ImageDraw.Draw(picture).text(place, word, fill="black", font=face)
        pictures.append(picture)
    readings = [prediction.text.lower() for prediction in predictor.predict(pictures)]
    return 1 - cer([word.lower() for word in WORDS], readings)


def has_all(font: Path) -> bool:
    """Whether the font has a glyph for every digit and letter, and draws something for each: some glyphs are empty."""
    try:
        face = FT2Font(str(font))
        return all(
            face.get_char_index(ord(c)) and load_glyph(str(font), c, 40).mask.any()
            for c in Alphabet.parse(ALPHANUMERIC).characters
        )
    except (OSError, RuntimeError, ValueError):
        return False


def main(source: str, out: str, text_faces: str | None = None) -> None:
    """Copy the good fonts of the folder `source` into `out`, and the text faces among them into `text_faces`."""
    predictor = CaptchaPredictor(threads=1)
    for folder in filter(None, (out, text_faces)):
        Path(folder).mkdir(parents=True, exist_ok=True)
    families: Counter[str] = Counter()
    seen = 0
    for font in tqdm(sorted(p for p in Path(source).rglob("*") if p.suffix.lower() in (".ttf", ".otf"))):
        seen += 1
        family = font.stem[:7].lower()
        greek = any(name in font.stem.lower() for name in GREEK)
        if greek or families[family] >= PER_FAMILY or not has_all(font):
            continue
        try:
            good = share_read(font, predictor) >= LEAST_READ
        except OSError:
            continue
        if good:
            families[family] += 1
            shutil.copy(font, Path(out) / font.name)
            if text_faces and DISPLAY_FONTS not in font.parts:
                shutil.copy(font, Path(text_faces) / font.name)
    print(f"{sum(families.values())} of {seen} fonts copied to {out}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit("usage: python benchmarks/select_fonts.py FOLDER OUT [TEXT_FACES]")
    main(*sys.argv[1:])
