"""One labeled picture of a source, and what is said of one that is left out."""

from __future__ import annotations

from dataclasses import dataclass, field

COPY = "duplicate image"  # with the same label: why a sample is left out
CONTRADICTION = "duplicate image, other label"


@dataclass(frozen=True)
class Sample:
    """One labeled picture of a source, unchecked.

    Attributes:
        image: the picture file's bytes.
        text: the label as the source has it; `parse_label` cleans it.
        source: where it stands: a file's path, or a shard's path and the row, counted from 0.
        split: of SPLITS the one in which its source has it, where it says so, or PSEUDO.
    """

    image: bytes
    text: str
    source: str
    split: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Note:
    """A sentence about a source that its user should read."""

    text: str


@dataclass(frozen=True)
class Reject:
    """A sample left out: where it stands, the reason (one of a few, countable), and what exactly is wrong with it."""

    source: str
    reason: str
    detail: str = ""
