"""Files of a source that are no table of labels by their name and yet seem to have the labels: they are refused.

Else file names such as `0001.png` or `word_1.png` would pass for labels, without a word, to the end of a training.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Callable, Sequence

from captcha_reader.errors import UserError

LOOKED_AT = 8 << 20  # bytes of one file
MOST_FILES = 1000  # that are looked at
SAMPLED = 20  # pictures that are looked for
TOKEN = re.compile(r"""[^\s,;:"'{}\[\]()<>=|/\\]+""")
# They speak of pictures for other reasons.
PROSE = re.compile(
    r"(readme|license|license|changelog|notice)\b.*|.*\.(md|rst|html?|py|ipynb|sh|css|js)", re.IGNORECASE
)
OWN = ("dataset.json", "rejects.jsonl")
TEXTS = (".csv", ".tsv", ".tab", ".txt", ".json", ".jsonl", ".xml", ".yaml", ".yml", ".lst", ".list", ".dat", ".gt", "")
OFFICE = (".xlsx", ".xlsm", ".ods")  # zips of XML
PER_PICTURE = (".json", ".xml", ".csv", ".gt", ".lab", ".label", ".yaml", ".yml")


def refuse_other_tables(
    pictures: Sequence[str], others: Sequence[str], read: Callable[[str, int], bytes], source: str
) -> None:
    """Look through the files of a source that are neither pictures nor tables whose form is known.

    Args:
        pictures: paths of those whose file names are to be the labels.
        others: paths of the files.
        read: (path, most bytes) -> the start of the file.
        source: how messages call the source, before a path.

    Raises:
        UserError: one names the pictures.
    """
    _refuse_one_each(pictures, others, source)
    for path in others[:MOST_FILES]:
        name = path.rpartition("/")[2]
        if PROSE.fullmatch(name) or name in OWN:
            continue
        try:
            data = read(path, LOOKED_AT)
        except (OSError, UserError):
            continue
        if names_pictures(name, data, pictures):
            raise _refusal(source + path, "names the pictures beside it")


def _refuse_one_each(pictures: Sequence[str], others: Sequence[str], source: str) -> None:
    """Files such as `0001.json`, one for each picture, may have its label."""
    stems = {posixpath.splitext(path.rpartition("/")[2])[0] for path in pictures}
    found = [path for path in others if path.lower().endswith(PER_PICTURE) and _stem(path) in stems and not _own(path)]
    if found and 2 * len({_stem(path) for path in found}) >= len(stems):
        raise _refusal(source + found[0], "stands beside a picture of its name")


def _own(path: str) -> bool:
    return path.rpartition("/")[2] in OWN


def _stem(path: str) -> str:
    return posixpath.splitext(path.rpartition("/")[2])[0]


def _refusal(path: str, what: str) -> UserError:
    return UserError(
        f"{path} {what}, but labels are read from labels.csv or labels.txt: give it that name and the columns "
        "filename,label, or take it away if the file names are the labels"
    )


def names_pictures(name: str, data: bytes, pictures: Sequence[str]) -> bool:
    """Whether a file has the name of a picture, or, with more on the same lines, those of half of them unsuffixed.

    Args:
        name: of the file.
        data: its bytes, or the start of them.
        pictures: paths; some of them are looked for.
    """
    step = max(1, len(pictures) // SAMPLED)
    names = {path.rpartition("/")[2] for path in (*pictures[:SAMPLED], *pictures[::step][:SAMPLED])}
    stems = {posixpath.splitext(name)[0] for name in names}
    suffix = posixpath.splitext(name)[1].lower()
    if suffix in OFFICE:
        data = _office_text(data)
    if any(name.encode("utf-8", "surrogateescape") in data for name in names):
        return True
    if suffix not in TEXTS and suffix not in OFFICE:
        return False
    text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    if any(name in text for name in names):
        return True
    tokens = TOKEN.findall(text)
    # A list of words, one a line, is none of labels.
    if len(tokens) < 1.5 * max(1, sum(1 for line in text.splitlines() if line.strip())):
        return False
    return 2 * len(stems & set(tokens)) >= len(stems)


def _office_text(data: bytes) -> bytes:
    """The cells of a spreadsheet, as XML."""
    parts = []
    left = LOOKED_AT
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            for entry in file.infolist():
                if entry.filename.endswith(".xml") and left > 0:
                    with file.open(entry) as part:
                        parts.append(part.read(left))
                    left -= len(parts[-1])
    except Exception:  # zipfile raises BadZipFile, zlib.error, EOFError, RuntimeError, ...
        return b""
    return b"\n".join(parts)
