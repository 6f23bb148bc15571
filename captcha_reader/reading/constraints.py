"""What is known of the texts before a picture is read: "it is always six digits".

    Constraints("0-9", "6")                          # six digits
    Constraints("0-9A-F", "4-6", ignore_case=True)   # the case of a letter does not matter; the answer is in capitals
    Constraints(length="5")                          # any five characters that the model knows

The readers and their codecs then give the most probable text among those that are allowed, and its confidence is the
probability that it is right, given that the text is one of them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from captcha_reader.checkpoint import label_hints
from captcha_reader.errors import UserError
from captcha_reader.text import Alphabet, Limits, expand_ranges

LONGEST = 1000  # characters; a length above it is a mistake


@dataclasses.dataclass(frozen=True)
class Constraints:
    """What is known of the texts.

    Attributes:
        characters: those that occur, ranges allowed: `0-9`, `0-9A-F`. None: any that the model knows.
        length: number of characters, `6` or `4-6`. None: any.
        ignore_case: both cases of a letter count as one, and their probabilities add up. The answer is in lower case,
            except for letters that `characters` has in one case only: these decide the case of the answer.
        upper_case: with `ignore_case`, the answer is in upper case instead.

    Raises:
        UserError: a value cannot be understood, or allows no text.
    """

    characters: str | None = None
    length: int | str | None = None
    ignore_case: bool = False
    upper_case: bool = False

    def __post_init__(self) -> None:
        for name, kinds in (("characters", str), ("length", int | str)):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, kinds) or isinstance(value, bool)):
                raise UserError(f"{name} cannot be {value!r:.60}: give a text such as {EXAMPLES[name]}")
        for name in ("ignore_case", "upper_case"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} cannot be {getattr(self, name)!r:.60}: give true or false")
        if self.upper_case and not self.ignore_case:
            raise UserError("upper_case goes with ignore_case: give both, or neither")
        _ = self.allowed, self.lengths  # complain now, not at the first picture

    @classmethod
    def parse(cls, values: Mapping[str, Any] | None) -> Constraints:
        """From the fields of a form or of a JSON object, which may be missing, None or empty texts.

        Raises:
            UserError: a field is unknown, or its value cannot be used.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        given = {key: value for key, value in (values or {}).items() if value is not None and value != ""}
        if unknown := sorted(map(str, given.keys() - names)):
            raise UserError(f"there is no constraint {unknown[0]!r:.60}: choose from {', '.join(sorted(names))}")
        for name in ("ignore_case", "upper_case"):  # forms have texts only
            if isinstance(given.get(name), str):
                given[name] = SWITCHES.get(given[name].strip().lower(), given[name])
        return cls(**given)

    @classmethod
    def from_labels(cls, metadata: Mapping[str, Any]) -> Constraints | None:
        """What the labels had in common that a model was fine-tuned on, as its checkpoint's metadata tell.

        It is an offer: the next picture may be of another source.

        Returns:
            None where the metadata say nothing of it, or nothing that can be used.
        """
        characters, lengths = label_hints(metadata)
        try:
            offered = cls(compact(characters) if characters else None, "{}-{}".format(*lengths) if lengths else None)
        except UserError:
            return None
        return offered or None

    @cached_property
    def allowed(self) -> str | None:
        """The characters one by one; None for any."""
        if self.characters is None:
            return None
        if not self.characters.strip():
            raise UserError("the set of characters is empty: name those that occur, as in 0-9A-F, or leave it out")
        try:
            characters = "".join(dict.fromkeys(expand_ranges(self.characters)))  # a set: copies do no harm
            return Alphabet(characters).characters
        except UserError as error:
            raise UserError(str(error).replace("the alphabet", "the set of characters", 1)) from None

    @cached_property
    def lengths(self) -> tuple[int, int] | None:
        """Fewest and most characters; None for any number."""
        if self.length is None:
            return None
        found = re.fullmatch(r"\s*([0-9]{1,9})\s*(?:[-–]\s*([0-9]{1,9})\s*)?", str(self.length))
        if not found:
            raise UserError(f"the length cannot be {str(self.length)!r:.60}: give a number, 6, or a range, 4-6")
        shortest, longest = int(found[1]), int(found[2] or found[1])
        if not 1 <= shortest <= longest <= LONGEST:
            why = "backwards" if shortest > longest else "out of range"
            raise UserError(f"the length {self.length!r:.60} is {why}: give a number from 1 to {LONGEST}, or a range")
        return shortest, longest

    def __bool__(self) -> bool:
        """Whether anything is known."""
        return self.allowed is not None or self.lengths is not None or self.ignore_case

    def __str__(self) -> str:
        parts = [f"characters {compact(self.allowed)}"] if self.allowed is not None else []
        if self.lengths:
            shortest, longest = self.lengths
            parts.append(f"length {shortest}" + (f"-{longest}" if longest > shortest else ""))
        parts += ["upper case"] if self.upper_case else ["case ignored"] if self.ignore_case else []
        return ", ".join(parts) or "nothing"

    def limits(self, alphabet: Alphabet) -> Limits | None:
        """What they mean for a model of that alphabet; None where nothing is known.

        Raises:
            UserError: the model cannot write one of the characters.
        """
        if not self:
            return None
        ids: dict[str, list[int]] = {}  # the class ids that count as one
        for i, character in enumerate(alphabet.characters, start=1):
            ids.setdefault(self._key(character), []).append(i)
        wanted = alphabet.characters if self.allowed is None else self.allowed
        if missing := [character for character in wanted if self._key(character) not in ids]:
            raise UserError(
                f"the model cannot write {''.join(missing)!r:.60}, it reads {compact(alphabet.characters)}: leave such "
                "characters out, or name another model"
            )
        answers: dict[str, str] = {}
        for character in wanted:
            key = self._key(character)
            both = self.ignore_case and (self.allowed is None or key in answers)  # neither case is known
            answers[key] = (_upper(key) if self.upper_case else key) if both else character
        shortest, longest = self.lengths or (0, None)
        return Limits(Alphabet("".join(answers.values())), tuple(tuple(ids[key]) for key in answers), shortest, longest)

    def check_labels(self, texts: Sequence[str]) -> None:
        """Where a label shows that what is said to be known is wrong, no reading could be right.

        Raises:
            UserError: counts the labels that do not fit, and names the first of them.
        """
        shortest, longest = self.lengths or (0, LONGEST)
        known = None if self.allowed is None else set(map(self._key, self.allowed))
        long = [text for text in texts if not shortest <= len(text) <= longest]
        strange = [text for text in texts if known is not None and not known.issuperset(map(self._key, text))]
        outside = {*long, *strange}
        if misfits := [text for text in texts if text in outside]:
            wrong = [name for name, found in (("characters", strange), ("length", long)) if found]
            raise UserError(
                f"{len(misfits):,} of {len(texts):,} labels do not fit what is said to be known ({self}), the first is "
                f"{misfits[0]!r:.60}: correct the {' and the '.join(wrong)}, or the labels"
            )

    def _key(self, character: str) -> str:
        return _lower(character) if self.ignore_case else character


EXAMPLES = {"characters": "0-9A-F", "length": "6 or 4-6"}
SWITCHES = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False, "on": True, "off": False}


def _lower(character: str) -> str:
    """The lower case, where that is one character."""
    lower = character.lower()
    return lower if len(lower) == 1 else character


def _upper(character: str) -> str:
    upper = character.upper()
    return upper if len(upper) == 1 and upper.lower() == character else character


def compact(characters: str) -> str:
    """A set of characters with ranges, as `Alphabet.parse` takes it: `0-9a-c` for `0123456789abc`."""
    rest = sorted(set(characters) - {"-"})
    parts, start = [], 0
    for i in range(1, len(rest) + 1):
        if i == len(rest) or ord(rest[i]) != ord(rest[i - 1]) + 1:
            run = "".join(rest[start:i])
            parts.append(f"{run[0]}-{run[-1]}" if len(run) > 2 else run)
            start = i
    return "".join(parts) + ("-" if "-" in characters else "")
