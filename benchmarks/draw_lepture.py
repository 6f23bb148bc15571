"""Draw captchas with lepture's `captcha` library, as a parquet file that make_dataset.py takes.

    pip install captcha==0.7.1
    python benchmarks/draw_lepture.py 2000 data/generated/lepture.parquet

160x60 pictures of 4 to 6 digits and letters of both cases. The library draws from the system's randomness, so that no
two calls give the same pictures.
"""

from __future__ import annotations

import random
import string
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from captcha.image import ImageCaptcha
from tqdm import tqdm


def main(count: int, out: Path) -> None:
    """Write `count` captchas to `out`."""
    drawer, dice = ImageCaptcha(), random.SystemRandom()
    texts = ["".join(dice.choices(string.ascii_letters + string.digits, k=dice.randint(4, 6))) for _ in range(count)]
    images = [{"bytes": drawer.generate(text).getvalue(), "path": f"{i}.png"} for i, text in enumerate(tqdm(texts))]
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, "text": texts}), out)


if __name__ == "__main__":
    if len(sys.argv) != 3 or not sys.argv[1].isdigit():
        sys.exit("usage: python benchmarks/draw_lepture.py COUNT FILE.parquet")
    main(int(sys.argv[1]), Path(sys.argv[2]))
