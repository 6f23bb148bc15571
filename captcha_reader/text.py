"""Text to class ids and back, for both kinds of head, with a confidence for every character.

Class 0 means "no character" everywhere: the blank of CTC, and the padding after the last character of a slot head.
Class i > 0 is `alphabet.characters[i - 1]`. Decoders take log-probabilities as NumPy arrays of shape (N, T, C), where
T is the number of steps (CTC) or of positions (slots) and C = len(alphabet) + 1, so that torch and ONNX share them.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from captcha_reader.config import CTC_HEADS
from captcha_reader.errors import UserError

BLANK_ID = 0
NOTHING = "∅"  # shown where a character, or a whole reading, is missing
NEGATIVE_INFINITY = -1e30  # a finite stand-in: differences of two real infinities would be NaN


class Alphabet:
    """The characters a model reads. `len()` counts characters, `num_classes` adds the blank.

    Args:
        characters: distinct, printable, no white space.

    Raises:
        UserError: a character stands twice or cannot be printed, or there is none.
    """

    blank_id = BLANK_ID

    def __init__(self, characters: str) -> None:
        if not characters:
            raise UserError("the alphabet is empty: name at least one character")
        repeated = sorted({c for c in characters if characters.count(c) > 1})
        if repeated:
            raise UserError(
                f"the alphabet {characters!r} holds {''.join(repeated)!r} more than once: remove the copies"
            )
        unprintable = [c for c in characters if c.isspace() or not c.isprintable()]
        if unprintable:
            raise UserError(f"the alphabet holds {unprintable[0]!r}, which cannot be printed: remove it")
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters, start=1)}

    @classmethod
    def parse(cls, text: str) -> Alphabet:
        """Build from characters and ranges: `0-9a-f` is `0123456789abcdef`. A dash at either end is a dash."""

        def expand(match: re.Match[str]) -> str:
            first, last = ord(match[1]), ord(match[2])
            if first > last:
                raise UserError(f"the alphabet {text!r} has a range that runs backwards: write it as in 0-9a-z")
            return "".join(map(chr, range(first, last + 1)))

        return cls(re.sub(r"(.)-(.)", expand, text, flags=re.DOTALL))

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> Alphabet:
        """All characters that occur in `texts`, sorted by code point."""
        return cls("".join(sorted(set().union(*map(set, texts)))))

    @property
    def num_classes(self) -> int:
        """Characters plus the blank."""
        return len(self.characters) + 1

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: str) -> bool:
        return character in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Alphabet) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __repr__(self) -> str:
        return f"Alphabet({self.characters!r})"

    def encode(self, text: str, sample: str = "") -> list[int]:
        """Class ids, 1 to len(alphabet), of the characters of `text`.

        Args:
            sample: name of the sample, for the error message.

        Raises:
            UserError: `text` has a character outside the alphabet.
        """
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            where = f" of {sample}" if sample else ""
            raise UserError(
                f"the label {text!r}{where} has the character {error.args[0]!r}, which the alphabet "
                f"{self.characters!r} lacks: correct the label or widen --alphabet"
            ) from None

    def decode(self, ids: Iterable[int]) -> str:
        """Characters of the class ids; blanks are left out."""
        return "".join(self.characters[i - 1] for i in ids if i != BLANK_ID)


@dataclass(frozen=True)
class Reading:
    """One decoded text.

    Attributes:
        text: the characters.
        confidence: probability, 0 to 1, that the model gives to the whole text.
        char_confidences: one number, 0 to 1, per character.
        spans: for each character the half-open range of steps [start, stop) it was read from.
    """

    text: str
    confidence: float
    char_confidences: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]


class CTCCodec:
    """Connectionist temporal classification (Graves et al., 2006): repeated ids merge, then blanks vanish."""

    head = "ctc"

    def __init__(self, alphabet: Alphabet) -> None:
        self.alphabet = alphabet

    @staticmethod
    def steps_needed(text: str) -> int:
        """Least number of steps that can write `text`: a blank must part equal neighbours."""
        return len(text) + sum(a == b for a, b in pairwise(text))

    def encode(self, text: str, sample: str = "") -> list[int]:
        """Class ids of `text`; see `Alphabet.encode`."""
        return self.alphabet.encode(text, sample)

    def decode(self, log_probs: np.ndarray) -> list[Reading]:
        """Read the likeliest path of each of N samples.

        Args:
            log_probs: (N, T, C), normalised over C.

        Returns:
            N readings. A character's confidence is its highest probability within its run of steps; the confidence of
            the text sums over all the paths that write it.
        """
        log_probs = np.asarray(log_probs, dtype=np.float32)
        if len(log_probs) == 0:
            return []
        probs = np.exp(log_probs)
        readings = []
        for path, peaks, rows in zip(log_probs.argmax(axis=2).tolist(), probs.max(axis=2), probs, strict=True):
            runs = _runs(path)
            ids = [symbol for symbol, _, _ in runs]
            readings.append(
                Reading(
                    text=self.alphabet.decode(ids),
                    confidence=min(_probability(rows, ids), 1.0),
                    char_confidences=tuple(min(float(peaks[start:stop].max()), 1.0) for _, start, stop in runs),
                    spans=tuple((start, stop) for _, start, stop in runs),
                )
            )
        return readings

    def log_likelihood(self, log_probs: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """log P(text | picture) of one given text for each of N samples.

        Args:
            log_probs: (N, T, C), normalised over C.
            texts: N texts.

        Returns:
            (N,) float64; about -1e30 where T steps cannot write the text.

        Raises:
            UserError: a text has a character outside the alphabet.
        """
        return ctc_log_likelihood(log_probs, [self.encode(text) for text in texts])

    def probabilities(self, samples: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        """P(text | picture), 0 to 1, of a few likely texts of each of some samples, as `log_likelihood` without logs.

        Without logarithms the least float bounds it: no less likely than C ** -T, the texts of likely paths are far
        above it.

        Args:
            samples: one at least, each (T, C), normalised over C; T may differ.
            texts: one at least, of characters of the alphabet.

        Returns:
            (samples, texts) float64.
        """
        ids = [self.encode(text) for text in texts]
        extended, leap = _states(ids)
        emitted = np.zeros((max(map(len, samples)), len(samples), *extended.shape))
        emitted[..., ::2] = 1.0  # after its last step a shorter sample has blanks, for certain
        for i, log_probs in enumerate(samples):
            emitted[: len(log_probs), i] = np.exp(log_probs)[:, extended]
        alpha = np.zeros(emitted.shape[1:])
        alpha[..., 0] = 1.0
        for emission in emitted:
            grown = alpha.copy()
            grown[..., 1:] += alpha[..., :-1]
            grown[..., 2:] += alpha[..., :-2] * leap[:, 2:]
            alpha = grown * emission
        ends = [2 * len(sequence) for sequence in ids]
        sums = [alpha[:, row, max(end - 1, 0) : end + 1].sum(axis=1) for row, end in enumerate(ends)]
        return np.minimum(np.stack(sums, axis=1), 1.0)

    def align(self, log_probs: np.ndarray, text: str) -> list[tuple[int, int]]:
        """Where the characters of a known text are: the likeliest path that writes it (Viterbi, 1967).

        Args:
            log_probs: (T, C), normalised over C.
            text: at least one character.

        Returns:
            (first step, step after the last) of each character.

        Raises:
            UserError: a character outside the alphabet, or more of them than T steps can write.
        """
        (states,), (leap,) = _states([self.encode(text)])
        if self.steps_needed(text) > len(log_probs):
            raise UserError(f"{len(log_probs)} steps cannot write {text!r}")
        emitted = np.asarray(log_probs, dtype=np.float64)[:, states]  # (T, S)
        scores = np.full(len(states), NEGATIVE_INFINITY)
        scores[:2] = emitted[0, :2]
        back = np.zeros(emitted.shape, dtype=np.int64)  # by how many states the best way here went on
        came = np.full((3, len(states)), NEGATIVE_INFINITY)
        for t in range(1, len(emitted)):
            came[0], came[1, 1:] = scores, scores[:-1]
            came[2, 2:] = np.where(leap[2:], scores[:-2], NEGATIVE_INFINITY)
            back[t] = came.argmax(axis=0)
            scores = came.max(axis=0) + emitted[t]
        state = len(states) - 1 - int(scores[-2] > scores[-1])
        path = []
        for t in range(len(emitted) - 1, -1, -1):
            path.append(state)
            state -= int(back[t, state])
        path.reverse()
        steps = [[t for t, state in enumerate(path) if state == 2 * i + 1] for i in range(len(text))]
        return [(found[0], found[-1] + 1) for found in steps]

    def read_as(self, log_probs: np.ndarray, text: str) -> Reading:
        """How a given text, one character at least, is read in one sample, (T, C): by its likeliest path.

        Raises:
            UserError: a character outside the alphabet, or more of them than T steps can write.
        """
        spans = self.align(log_probs, text)
        peaks = [log_probs[a:b, i].max() for (a, b), i in zip(spans, self.encode(text), strict=True)]
        likelihood = float(self.log_likelihood(log_probs[None], [text])[0])
        return Reading(text, min(math.exp(likelihood), 1.0), tuple(np.exp(peaks).clip(max=1).tolist()), tuple(spans))

    def alternatives(
        self, log_probs: np.ndarray, count: int = 3, beam: int = 16, least: float = 6e-6
    ) -> list[tuple[str, float]]:
        """The likeliest texts of one sample, best first, by prefix beam search (Graves, 2012, section 7.5).

        Args:
            log_probs: (T, C), normalised over C.
            count: how many texts to return.
            beam: prefixes kept after each step.
            least: probability below which a symbol is left out at a step; the default changes no third place.

        Returns:
            Up to `count` pairs of text and probability.
        """
        log_probs = np.asarray(log_probs, dtype=np.float64)
        floor = math.log(least)
        # prefix -> (log-probability of paths ending in blank, of paths ending in the prefix's last symbol)
        beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEGATIVE_INFINITY)}
        for row in log_probs:
            symbols = np.flatnonzero(row > floor)
            extended: dict[tuple[int, ...], list[float]] = {}
            for prefix, (blank, symbol) in beams.items():
                either = float(np.logaddexp(blank, symbol))
                for k in symbols.tolist():
                    p = float(row[k])
                    if k == BLANK_ID:
                        entry = extended.setdefault(prefix, [NEGATIVE_INFINITY, NEGATIVE_INFINITY])
                        entry[0] = float(np.logaddexp(entry[0], either + p))
                    elif prefix and prefix[-1] == k:
                        entry = extended.setdefault(prefix, [NEGATIVE_INFINITY, NEGATIVE_INFINITY])
                        entry[1] = float(np.logaddexp(entry[1], symbol + p))
                        entry = extended.setdefault((*prefix, k), [NEGATIVE_INFINITY, NEGATIVE_INFINITY])
                        entry[1] = float(np.logaddexp(entry[1], blank + p))
                    else:
                        entry = extended.setdefault((*prefix, k), [NEGATIVE_INFINITY, NEGATIVE_INFINITY])
                        entry[1] = float(np.logaddexp(entry[1], either + p))
            best = heapq.nlargest(beam, extended.items(), key=lambda item: np.logaddexp(*item[1]))
            beams = {prefix: (b, s) for prefix, (b, s) in best}
        ids = [list(prefix) for prefix in beams]
        scores = np.exp(ctc_log_likelihood(np.repeat(log_probs[None], len(ids), axis=0), ids))
        ranked = sorted(zip(scores.tolist(), map(self.alphabet.decode, ids), strict=True), reverse=True)
        return [(text, min(score, 1.0)) for score, text in ranked[:count] if score > 0]


class SlotCodec:
    """One class per character position; the first padding class ends the text."""

    head = "slots"

    def __init__(self, alphabet: Alphabet) -> None:
        self.alphabet = alphabet

    @staticmethod
    def steps_needed(text: str) -> int:
        """Positions that `text` takes."""
        return len(text)

    def encode(self, text: str, sample: str = "") -> list[int]:
        """Class ids of `text`; see `Alphabet.encode`."""
        return self.alphabet.encode(text, sample)

    def decode(self, log_probs: np.ndarray) -> list[Reading]:
        """Read each position's likeliest class up to the first padding.

        Args:
            log_probs: (N, L, C), normalised over C.

        Returns:
            N readings. The confidence of the text is the product over its characters and the padding that ends it.
        """
        log_probs = np.asarray(log_probs, dtype=np.float32)
        readings = []
        for sample in log_probs:  # (L, C)
            ids = sample.argmax(axis=1).tolist()
            length = ids.index(BLANK_ID) if BLANK_ID in ids else len(ids)
            best = sample.max(axis=1)
            readings.append(
                Reading(
                    text=self.alphabet.decode(ids[:length]),
                    confidence=float(np.exp(best[: length + 1].sum())),  # with the padding that ends the text, if any
                    char_confidences=tuple(np.exp(best[:length]).tolist()),
                    spans=tuple((i, i + 1) for i in range(length)),
                )
            )
        return readings

    def log_likelihood(self, log_probs: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """As `CTCCodec.log_likelihood`: the sum over the characters and the padding that ends the text, if any."""
        scores = np.full(len(texts), NEGATIVE_INFINITY)
        for row, (sample, text) in enumerate(zip(log_probs, texts, strict=True)):  # (L, C)
            ids = [*self.encode(text), BLANK_ID][: len(sample)]
            if len(text) <= len(sample):
                scores[row] = np.asarray(sample, dtype=np.float64)[np.arange(len(ids)), ids].sum()
        return scores

    def read_as(self, log_probs: np.ndarray, text: str) -> Reading:
        """As `CTCCodec.read_as`, for one sample (L, C)."""
        ids = self.encode(text)
        if len(ids) > len(log_probs):
            raise UserError(f"{len(log_probs)} positions cannot write {text!r}")
        likelihood = float(self.log_likelihood(log_probs[None], [text])[0])
        peaks = tuple(np.exp(log_probs[range(len(ids)), ids]).clip(max=1).tolist())
        return Reading(text, min(math.exp(likelihood), 1.0), peaks, tuple((i, i + 1) for i in range(len(ids))))

    def alternatives(
        self, log_probs: np.ndarray, count: int = 3, beam: int = 16, least: float = 6e-6
    ) -> list[tuple[str, float]]:
        """The likeliest texts of one sample, best first.

        Args:
            log_probs: (L, C), normalised over C.
            count: how many texts to return.
            beam: prefixes kept after each position.
            least: not used: here every symbol in the beam is cheap.

        Returns:
            Up to `count` pairs of text and probability.
        """
        log_probs = np.asarray(log_probs, dtype=np.float64)
        beams: list[tuple[float, tuple[int, ...], bool]] = [(0.0, (), False)]  # (log-probability, ids, ended)
        for row in log_probs:
            symbols = np.argsort(row)[::-1][:beam].tolist()
            grown = [item for item in beams if item[2]]
            for score, ids, ended in beams:
                if not ended:
                    grown += [
                        (score + float(row[k]), ids if k == BLANK_ID else (*ids, k), k == BLANK_ID) for k in symbols
                    ]
            beams = heapq.nlargest(max(beam, count), grown)
        return [(self.alphabet.decode(ids), float(np.exp(score))) for score, ids, _ in beams[:count]]


Codec = CTCCodec | SlotCodec


def build_codec(head: str, alphabet: Alphabet) -> Codec:
    """The codec of a head: CTC for `ctc` and `mixer`, else one with a class per character position."""
    return CTCCodec(alphabet) if head in CTC_HEADS else SlotCodec(alphabet)


def greedy_decode(log_probs: np.ndarray, alphabet: Alphabet, head: str = "ctc") -> list[str]:
    """Texts of a batch of log-probabilities (N, T, C), without confidences."""
    return [reading.text for reading in build_codec(head, alphabet).decode(log_probs)]


def infeasible_labels(texts: Sequence[str], codec: Codec, steps: int) -> list[int]:
    """Indices of the texts that `steps` steps (CTC) or positions (slots) cannot write at all."""
    return [i for i, text in enumerate(texts) if codec.steps_needed(text) > steps]


def ctc_log_likelihood(log_probs: np.ndarray, ids: Sequence[Sequence[int]]) -> np.ndarray:
    """log P(text | picture), summed over all CTC paths by the forward algorithm (Graves et al., 2006, equation 6).

    Args:
        log_probs: (N, T, C), normalised over C.
        ids: N lists of class ids without blanks.

    Returns:
        (N,) float64; about -1e30 where T steps cannot write the text.
    """
    n, steps, _ = log_probs.shape
    lengths = np.array([len(sequence) for sequence in ids], dtype=np.int64)
    extended, leap = _states(ids)
    states = extended.shape[1]
    emitted = np.take_along_axis(np.asarray(log_probs, dtype=np.float64), extended[:, None, :], axis=2)  # (N, T, S)
    alpha = np.full((n, states), NEGATIVE_INFINITY)
    alpha[:, :2] = emitted[:, 0, :2]
    stay_or_come = np.full((n, states), NEGATIVE_INFINITY)
    leapt = np.full((n, states), NEGATIVE_INFINITY)
    for t in range(1, steps):
        stay_or_come[:, 1:] = alpha[:, :-1]
        leapt[:, 2:] = np.where(leap[:, 2:], alpha[:, :-2], NEGATIVE_INFINITY)
        alpha = np.logaddexp(np.logaddexp(alpha, stay_or_come), leapt) + emitted[:, t]
    rows = np.arange(n)
    last = alpha[rows, 2 * lengths]
    return np.where(lengths > 0, np.logaddexp(last, alpha[rows, np.maximum(2 * lengths - 1, 0)]), last)


def _states(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """What paths that write N texts pass through, class ids (N, S), and where they may leap over the blank before."""
    extended = np.full((len(ids), 2 * max(map(len, ids), default=0) + 1), BLANK_ID)  # blank, first, ..., last, blank
    for row, sequence in zip(extended, ids, strict=True):
        row[1 : 2 * len(sequence) : 2] = sequence
    # A path may leap from one character over the blank to the next, if the two differ.
    leap = np.zeros(extended.shape, dtype=bool)
    leap[:, 3::2] = extended[:, 3::2] != extended[:, 1:-2:2]
    return extended, leap


def _probability(probs: np.ndarray, ids: Sequence[int]) -> float:
    """exp of `ctc_log_likelihood` for one likely text, such as that of the likeliest path.

    It does without logarithms: no less likely than C ** -T, such a text is far above the least float. And without
    NumPy, which takes longer to start on so few numbers than Python to add them: a quarter of the time.

    Args:
        probs: (T, C), probabilities that sum to 1 over C.
        ids: class ids without blanks.
    """
    extended = [BLANK_ID]  # blank, first, blank, second, ..., blank
    for symbol in ids:
        extended += (symbol, BLANK_ID)
    leaps = [a != BLANK_ID and a != b for a, b in zip(extended, [0, 0, *extended], strict=False)]
    emitted = probs[:, extended].tolist()
    states = [emitted[0][0], *emitted[0][1:2], *[0.0] * (len(extended) - 2)]
    for emission in emitted[1:]:
        grown, one_back, two_back = [], 0.0, 0.0
        for state, p, leap in zip(states, emission, leaps, strict=True):
            grown.append((state + one_back + two_back * leap) * p)
            one_back, two_back = state, one_back
        states = grown
    return sum(states[-2:])


def _runs(path: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of equal non-blank ids in a path, as (id, start, stop)."""
    runs = []
    start = 0
    for t in range(1, len(path) + 1):
        if t == len(path) or path[t] != path[start]:
            if path[start] != BLANK_ID:
                runs.append((path[start], start, t))
            start = t
    return runs
