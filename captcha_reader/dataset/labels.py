"""What a label is: cleaned from the text that a source has, taken from a file name, and checked."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from pathlib import PurePath

from captcha_reader.config import DatasetConfig
from captcha_reader.errors import UserError
from captcha_reader.text import Alphabet

SAME_LABEL = 10  # pictures to a label, on average: more, and the labels are none
LEAST_PICTURES = 4  # whose labels are compared
CAPTION = re.compile(r"[\"']?an?\b.{0,80}\bcaptcha\b.{0,80}\bwith the text\b:?(?P<label>.*)", re.IGNORECASE | re.DOTALL)


def nfc(text: str) -> str:
    """Text with each letter and its accents as one character: file systems and keyboards differ in this."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def parse_label(text: str) -> str:
    """The label in a raw text: white space around it goes, and a caption gives what stands behind `with the text`.

    Returns:
        The label, with each letter and its accents as one character (NFC); empty where there is none, such as for a
        caption that ends too early.
    """
    text = nfc(text.strip())
    if caption := CAPTION.match(text):
        text = caption["label"].strip()
        for opening, closing in ('""', "''", "``", "“”", "‘’"):
            if len(text) >= 2 and text[0] == opening and text[-1] == closing:
                return text[1:-1].strip()
    return text


def label_from_name(name: str) -> str:
    """The label in a picture's file name: `aB3x_0.png`, `aB3x-12.png`, `aB3x (1).png` and `aB3x.png` give `aB3x`."""
    stem = PurePath(nfc(name)).stem
    if "_" in stem:
        return stem.partition("_")[0]
    return re.sub(r"(-\d+| \(\d+\))$", "", stem)


def check_labels(labels: Collection[str], table: str = "") -> None:
    """Refuse labels that cannot be those of captchas, since nearly all pictures have the same.

    Args:
        labels: one for each picture.
        table: the table that they come from; the file names where it is empty.

    Raises:
        UserError: all of four or more are equal, or there are more than ten pictures to a label of several characters.
    """
    texts = sorted(set(labels))
    if len(labels) < LEAST_PICTURES or (len(labels) <= SAME_LABEL * len(texts) and len(texts) > 1):
        return
    if len(texts) > 1 and max(map(len, texts)) == 1:  # digits or letters, drawn over and over
        return
    shown = ", ".join(repr(text) for text in texts[:3])
    advice = "correct its labels" if table else "name each picture by what it says (aB3x_1.png), or add a labels.csv"
    raise UserError(
        f"{f'{table} gives' if table else 'the file names give'} {len(labels)} pictures only {len(texts)} different "
        f"text{'s' if len(texts) != 1 else ''} ({shown}): {advice}"
    )


def check_numbered(stems: Collection[str]) -> None:
    """Refuse names that count from 0 or 1 over and over, as where folders are named by the labels.

    Args:
        stems: names without suffix, one for each picture.

    Raises:
        UserError: they do.
    """
    numbers = {int(stem) for stem in stems if re.fullmatch(r"\d{1,9}", stem)}
    if len(stems) < LEAST_PICTURES or len(stems) < 2 * len(numbers) or not all(map(str.isdecimal, stems)):
        return
    if min(numbers) <= 1 and max(numbers) - min(numbers) + 1 == len(numbers):
        raise UserError(
            f"the names of {len(stems)} pictures are numbers from {min(numbers)} to {max(numbers)}, again and again: "
            "name each picture by what it says (aB3x_1.png), or add a labels.csv"
        )


def is_numbering(stems: Collection[str]) -> bool:
    """Whether names without suffix are 20 or more consecutive numbers (one in ten may lack), such as img0001."""
    found = [re.fullmatch(r"(\D*)(\d{1,18})(\D*)", stem) for stem in stems]
    if not found or not all(found) or len({(match[1], match[3]) for match in found if match}) > 1:
        return False
    digits = {match[2] for match in found if match}
    numbers = sorted(set(map(int, digits)))
    if len(digits) == 10 ** len(min(digits)):  # all numbers of that length: they may well be labels
        return False
    return len(numbers) >= 20 and len(numbers) >= 0.9 * (numbers[-1] - numbers[0] + 1)


def label_fault(raw: str, label: str, alphabet: Alphabet | None, max_length: int) -> tuple[str, str] | None:
    """Reason and detail where a label, cleaned from the text `raw`, cannot be used; None where it can."""
    if not label:
        return ("caption without a label", f"the text is {raw[:200]!r}") if raw.strip() else ("empty label", "")
    if len(label) > max_length:
        return "label too long", f"{label[:200]!r} has {len(label)} characters, more than {max_length}"
    for character in label:
        if not (character in alphabet if alphabet else character.isprintable() and not character.isspace()):
            return "character outside the alphabet", f"{character!r} in {label!r}"
    return None


def clean_labels(texts: list[str], config: DatasetConfig) -> tuple[list[str], dict[int, tuple[str, str]]]:
    """The labels in raw texts, and what is wrong with some of them: their positions, reasons and details."""
    alphabet = None if config.alphabet is None else Alphabet.parse(config.alphabet)
    # Most batches are good as they are. A caption holds spaces, so every label is as `parse_label` would give it.
    joined = "".join(texts)
    characters = set(joined)
    if (
        all(texts)
        and (joined.isascii() or unicodedata.is_normalized("NFC", joined))
        and max(map(len, texts)) <= config.max_length
        and not any(label_fault(character, character, alphabet, 1) for character in characters)
    ):
        return texts, {}
    labels = [parse_label(text) for text in texts]
    faults = {}
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if fault := label_fault(text, label, alphabet, config.max_length):
            faults[row] = fault
    return labels, faults
