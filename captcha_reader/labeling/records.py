"""What a session asks and is told: a picture to label, an answer, where the set stands."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from captcha_reader.errors import UserError
from captcha_reader.labeling.curve import Advice, Point

MAX_TEXT = 32  # characters
Kind = Literal["typed", "accepted", "skipped", "unreadable"]
Order = Literal["unsure", "random"]


class TakenOverError(UserError):
    """Another tab labels this set now."""


@dataclass(frozen=True)
class Item:
    """A picture to label, and what the reader thinks of it.

    Attributes:
        id: of the picture, made from its content.
        name: of its file.
        path: where it is.
        text: the reading, to be typed into the box; "" where there is none.
        confidence: of the text, 0 to 1.
        char_confidences: one per character of the text, 0 to 1.
        measured: it is kept aside for measuring, and no model learns from it.
        model: whose reading it is: the first, the second, ... of the set; 0 where there is none.
    """

    id: str
    name: str
    path: Path
    text: str = ""
    confidence: float = 0.0
    char_confidences: tuple[float, ...] = ()
    measured: bool = False
    model: int = 0


@dataclass(frozen=True)
class Answer:
    """What is known of one picture.

    Attributes:
        kind: who said so, and what.
        text: empty where it was skipped or is unreadable.
        measured: it is kept aside for measuring.
        suggested: the reading that stood in the box.
        model: whose reading that was: the first, the second, ... of the set; 0 where nothing had been read.
    """

    kind: Kind
    text: str = ""
    measured: bool = False
    suggested: str = ""
    model: int = 0


@dataclass(frozen=True)
class Corrections:
    """How many of the readings of a model that had learned from `labels` labels were corrected by who typed."""

    labels: int
    corrected: int
    typed: int


@dataclass(frozen=True)
class Progress:
    """Where a set stands.

    Attributes:
        pictures: of the set.
        typed: labels that a person typed or confirmed one by one; `measured` of them are kept aside.
        accepted: pseudo-labels, accepted from sheets.
        corrected: typed labels that differ from the reading that was offered.
        curve: one point a model, all measured on the pictures kept aside so far.
        corrections: one row a model whose readings were offered.
        advice: when to stop.
    """

    pictures: int
    typed: int
    measured: int
    accepted: int
    skipped: int
    unreadable: int
    corrected: int
    curve: list[Point]
    corrections: list[Corrections]
    advice: Advice


def clean_text(text: str) -> str:
    """What was typed as a label: composed characters, no white space around.

    Raises:
        UserError: it is empty, too long, or has a character that cannot be part of a captcha.
    """
    text = unicodedata.normalize("NFC", text).strip()
    if not text:
        raise UserError("there is no text: type what the picture says")
    if len(text) > MAX_TEXT:
        raise UserError(f"the text has {len(text)} characters: at most {MAX_TEXT} make a label")
    if any(c.isspace() or not c.isprintable() for c in text):
        raise UserError("the text has a space or a character that cannot be printed: type the captcha's characters")
    return text
