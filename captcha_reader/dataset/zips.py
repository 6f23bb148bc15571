"""Names inside zips, as whoever packed them meant them."""

from __future__ import annotations

import zipfile

UTF8_FLAG = 0x800


def entry_name(entry: zipfile.ZipInfo) -> str:
    """The name of an entry, where a zip does not say in which encoding its names are.

    macOS writes UTF-8 without saying so, Chinese Windows GBK; Python takes both for the code page 437 of DOS.
    """
    name = entry.filename
    if entry.flag_bits & UTF8_FLAG or name.isascii():
        return name
    try:
        raw = name.encode("cp437")
    except UnicodeEncodeError:
        return name
    for encoding in ("utf-8", "gb2312"):  # the common part of GBK: less than that looks like Chinese by chance
        try:
            raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        return raw.decode("utf-8" if encoding == "utf-8" else "gb18030")
    return name
