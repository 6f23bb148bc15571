"""Text to class ids and back, for both kinds of head, with a confidence for every character.

Class 0 means "no character" everywhere: the blank of CTC, and the padding after the last character of a slot head.
Class i > 0 is `alphabet.characters[i - 1]`. Log-probabilities are NumPy arrays of shape (N, T, C), where T is the
number of steps (CTC) or of positions (slots) and C = len(alphabet) + 1, so that torch and ONNX share the codecs.
"""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from captcha_reader import ctc
from captcha_reader.config import CTC_HEADS
from captcha_reader.ctc import BLANK_ID, NEGATIVE_INFINITY
from captcha_reader.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

NOTHING = "∅"  # shown where a character, or a whole reading, is missing
TOO_SMALL = 1e-200  # probability; products of some more factors would vanish
BLANK_WEIGHT = 0.3  # of the blanks between evenly spaced letters: more of them would drown the letters
MOST_CHARACTERS = 100_000  # that ranges stand for: more than any script has


def expand_ranges(text: str) -> str:
    """Characters and ranges to the characters, composed as labels are (NFC): `0-9a` to `0123456789a`.

    Raises:
        UserError: a range runs backwards, or they stand for too many characters.
    """
    count = len(text)

    def bound() -> None:
        if count > MOST_CHARACTERS:
            raise UserError(f"the alphabet {text!r:.60} has more than {MOST_CHARACTERS:,} characters: name fewer")

    def expand(match: re.Match[str]) -> str:
        nonlocal count
        first, last = ord(match[1]), ord(match[2])
        if first > last:
            raise UserError(f"the alphabet {text!r:.60} has a range that runs backwards: write it as in 0-9a-z")
        count += last - first
        bound()  # before they are made: three characters can stand for a million
        return "".join(map(chr, range(first, last + 1)))

    bound()
    return re.sub(r"(.)-(.)", expand, unicodedata.normalize("NFC", text), flags=re.DOTALL)


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
        repeated = sorted(c for c, count in Counter(characters).items() if count > 1)
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
        return cls(expand_ranges(text))

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


@dataclass(frozen=True)
class Limits:
    """Which texts a codec may give.

    Attributes:
        alphabet: the characters of these texts.
        sources: for each of them the class ids of the model whose probabilities add up to its own.
        shortest: fewest characters.
        longest: most characters; None for any number.
    """

    alphabet: Alphabet
    sources: tuple[tuple[int, ...], ...]
    shortest: int = 0
    longest: int | None = None

    def merge(self, log_probs: np.ndarray) -> np.ndarray:
        """(..., C) log-probabilities of the model to (..., len(alphabet) + 1) probabilities, float64, as they are."""
        probs = np.exp(np.asarray(log_probs, dtype=np.float64))
        merged = np.empty((*probs.shape[:-1], self.alphabet.num_classes))
        merged[..., BLANK_ID] = probs[..., BLANK_ID]
        merged[..., 1:] = probs[..., [ids[0] for ids in self.sources]]
        for i, ids in enumerate(self.sources, start=1):
            for other in ids[1:]:
                merged[..., i] += probs[..., other]
        return merged

    def allows(self, length: int) -> bool:
        """Whether a text may have so many characters."""
        return length >= self.shortest and (self.longest is None or length <= self.longest)


class Codec(ABC):
    """Texts to class ids, and log-probabilities to texts.

    Args:
        alphabet: of the texts.
        limits: what texts there may be. The codec then takes log-probabilities that went through `restrict`, finds the
            most probable text that is allowed, and its probabilities are conditional on the text being allowed.
    """

    along_width: ClassVar[bool]
    """Whether the steps run along the width of the picture; else each is a character position."""
    more_room: ClassVar[str]
    """What gives the model more steps."""

    def __init__(self, alphabet: Alphabet, limits: Limits | None = None) -> None:
        self.alphabet = alphabet
        self.limits = limits

    def encode(self, text: str, sample: str = "") -> list[int]:
        """Class ids of `text`; see `Alphabet.encode`."""
        return self.alphabet.encode(text, sample)

    def limited(self, limits: Limits) -> Codec:
        """The codec of the same head for a part of its texts; see `restrict`."""
        return type(self)(limits.alphabet, limits)

    def feasible(self, text: str, steps: int) -> bool:
        """Whether so many steps can write the text."""
        return self.steps_needed(text) <= steps

    def require_room(self, steps: int) -> None:
        """Check that so many steps can write the shortest text that `limits` allow.

        Raises:
            UserError: they cannot.
        """
        shortest = self.limits.shortest if self.limits else 0
        example = (self.alphabet.characters[:2] * shortest)[:shortest]
        if not self.feasible(example, steps):
            raise UserError(f"this model cannot write {shortest} characters in {steps} steps: give a smaller length")

    @staticmethod
    @abstractmethod
    def steps_needed(text: str) -> int:
        """Smallest number of steps that can write `text`."""

    @abstractmethod
    def restrict(self, log_probs: np.ndarray) -> np.ndarray:
        """A sample's log-probabilities (T, C) of the whole alphabet to those of the codec's `limits`, float32.

        Raises:
            UserError: T steps cannot write the shortest text that is allowed.
        """

    @abstractmethod
    def decode(self, log_probs: np.ndarray) -> list[Reading]:
        """Read each of N samples: (N, T, C), normalized over C, to N readings."""

    @abstractmethod
    def read_as(self, log_probs: np.ndarray, text: str) -> Reading:
        """How a given text is read in one sample, (T, C).

        Raises:
            UserError: a character outside the alphabet, or more of them than T steps can write.
        """

    @abstractmethod
    def alternatives(self, log_probs: np.ndarray, count: int = 3) -> list[tuple[str, float]]:
        """The most probable texts of one sample, (T, C), best first: up to `count` pairs of text and probability."""

    @abstractmethod
    def log_likelihood(self, log_probs: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """log P(text | picture) of one given text for each of N samples.

        Args:
            log_probs: (N, T, C), normalized over C.
            texts: N texts.

        Returns:
            (N,) float64; about -1e30 where T steps cannot write the text.

        Raises:
            UserError: a text has a character outside the alphabet.
        """

    @abstractmethod
    def probabilities(self, samples: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        """P(text | picture), 0 to 1, of a few likely texts of each of some samples.

        Args:
            samples: at least one, each (T, C), normalized over C; T may differ.
            texts: at least one, of characters of the alphabet.

        Returns:
            (samples, texts) float64.
        """

    @abstractmethod
    def loss(self, logits: Tensor, texts: Iterable[str], label_smoothing: float = 0.0) -> Tensor:
        """Loss of each sample, (N,), float32.

        Args:
            logits: (N, T, C).
            texts: N labels, all of which T can write.
            label_smoothing: of a cross-entropy; CTC has none.
        """


class CTCCodec(Codec):
    """One class per step along the width; see `ctc`."""

    along_width = True
    more_room = "widen --image_size"

    @staticmethod
    def steps_needed(text: str) -> int:
        """Smallest number of steps that can write `text`: a blank must part equal neighbors."""
        return ctc.steps_needed(text)

    def restrict(self, log_probs: np.ndarray) -> np.ndarray:
        """Drop what is not allowed, add up what counts as one, and normalize each step.

        The length is not in it: paths of any length go through each step.
        """
        assert self.limits is not None
        self.require_room(len(log_probs))
        probs = _normalized(np.maximum(self.limits.merge(log_probs), 1e-30))
        likely = ctc.runs(probs.argmax(axis=1).tolist())
        if not self.limits.allows(len(likely)) and self._mass(probs) < TOO_SMALL:
            # What is asked for is next to impossible: less than floats can tell from nothing. With a floor below each
            # probability, the steps that are least sure decide.
            probs = _normalized(probs + TOO_SMALL ** (1 / len(probs)))
        return np.log(probs).astype(np.float32)

    def _search(self, probs: np.ndarray) -> ctc.PrefixSearch:
        """The texts of one sample, (T, C) probabilities, that are allowed."""
        shortest, longest = (self.limits.shortest, self.limits.longest) if self.limits else (0, None)
        return ctc.PrefixSearch(probs, shortest, longest)

    def _mass(self, probs: np.ndarray) -> float:
        """Probability that the text of one sample, (T, C) probabilities, has an allowed length."""
        any_length = self.limits is None or (self.limits.shortest == 0 and self.limits.longest is None)
        return 1.0 if any_length else self._search(probs).mass

    def decode(self, log_probs: np.ndarray) -> list[Reading]:
        """Read the most probable path of each of N samples, or with `limits` the most probable text that is allowed.

        Args:
            log_probs: (N, T, C), normalized over C.

        Returns:
            N readings. A character's confidence is its highest probability within its run of steps; the confidence of
            the text sums over all the paths that write it.
        """
        log_probs = np.asarray(log_probs, dtype=np.float32)
        if len(log_probs) == 0:
            return []
        if self.limits:
            return [self._decode_exactly(sample) for sample in log_probs]
        probs = np.exp(log_probs)
        readings = []
        for path, peaks, rows in zip(log_probs.argmax(axis=2).tolist(), probs.max(axis=2), probs, strict=True):
            runs = ctc.runs(path)
            ids = [symbol for symbol, _, _ in runs]
            readings.append(
                Reading(
                    text=self.alphabet.decode(ids),
                    confidence=min(ctc.probability(rows, ids), 1.0),
                    char_confidences=tuple(min(float(peaks[start:stop].max()), 1.0) for _, start, stop in runs),
                    spans=tuple((start, stop) for _, start, stop in runs),
                )
            )
        return readings

    def _decode_exactly(self, log_probs: np.ndarray) -> Reading:
        search = self._search(_exp(log_probs))
        ((ids, p),) = search.best(1)
        return self._reading(log_probs, ids, min(p / search.mass, 1.0))

    def _reading(self, log_probs: np.ndarray, ids: Sequence[int], confidence: float) -> Reading:
        spans = ctc.align(log_probs, ids) if ids else []
        peaks = [float(log_probs[a:b, i].max()) for (a, b), i in zip(spans, ids, strict=True)]
        return Reading(
            self.alphabet.decode(ids), confidence, tuple(min(math.exp(peak), 1.0) for peak in peaks), tuple(spans)
        )

    def log_likelihood(self, log_probs: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """As `Codec.log_likelihood`, summed over all the paths that write the text."""
        likelihoods = ctc.log_likelihood(log_probs, [self.encode(text) for text in texts])
        if self.limits is None:
            return likelihoods
        masses = [math.log(self._mass(_exp(sample))) for sample in log_probs]
        allowed = [self.limits.allows(len(text)) for text in texts]
        return np.where(allowed, likelihoods - masses, NEGATIVE_INFINITY)

    def probabilities(self, samples: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        """As `Codec.probabilities`, summed over all the paths that write each text."""
        found = ctc.probabilities(samples, [self.encode(text) for text in texts])
        if self.limits is not None:
            found /= np.array([self._mass(_exp(sample)) for sample in samples])[:, None]
            found[:, [not self.limits.allows(len(text)) for text in texts]] = 0.0
        return np.minimum(found, 1.0)

    def align(self, log_probs: np.ndarray, text: str) -> list[tuple[int, int]]:
        """Where the characters of a known text, at least one, are in a sample, (T, C): by its most probable path.

        Returns:
            (first step, step after the last) of each character.

        Raises:
            UserError: a character outside the alphabet, or more of them than T steps can write.
        """
        ids = self.encode(text)
        if not self.feasible(text, len(log_probs)):
            raise UserError(f"{len(log_probs)} steps cannot write {text!r}")
        return ctc.align(log_probs, ids)

    def read_as(self, log_probs: np.ndarray, text: str) -> Reading:
        """As `Codec.read_as`, for at least one character: by the text's most probable path."""
        if not self.feasible(text, len(log_probs)):
            raise UserError(f"{len(log_probs)} steps cannot write {text!r}")
        likelihood = float(self.log_likelihood(log_probs[None], [text])[0])
        return self._reading(log_probs, self.encode(text), min(math.exp(likelihood), 1.0))

    def alternatives(self, log_probs: np.ndarray, count: int = 3) -> list[tuple[str, float]]:
        """As `Codec.alternatives`, each text by all the paths that write it; see `ctc.PrefixSearch`."""
        search = self._search(_exp(log_probs))
        return [(self.alphabet.decode(ids), min(p / search.mass, 1.0)) for ids, p in search.best(count)]

    def loss(self, logits: Tensor, texts: Iterable[str], label_smoothing: float = 0.0) -> Tensor:
        """Negative log-likelihood over the label's length."""
        import torch
        from torch.nn import functional

        ids = [self.encode(text) for text in texts]
        lengths = torch.tensor([len(sequence) for sequence in ids])
        targets = torch.tensor([i for sequence in ids for i in sequence])
        steps = torch.full((len(ids),), logits.shape[1])
        # The CPU kernel takes int64 lengths on the CPU; on a GPU the targets have to be there.
        likelihood = functional.ctc_loss(
            logits.float().log_softmax(-1).transpose(0, 1), targets.to(logits.device), steps, lengths, reduction="none"
        )
        return likelihood / lengths.to(logits.device)

    def even_loss(self, logits: Tensor, texts: Iterable[str]) -> Tensor:
        """Cross-entropy of the columns in the middle of each letter, were all equally wide, and of the blanks between
        them: a "flat start" as of speech recognizers (Young et al., The HTK Book), for weights that know nothing.

        Returns:
            Loss of each sample, (N,), float32.
        """
        import torch

        log_probs = logits.float().log_softmax(-1)
        steps, losses = log_probs.shape[1], []
        for row, text in zip(log_probs, texts, strict=True):
            middles = [int((i + 0.5) * steps / len(text)) for i in range(len(text))]
            edges = [min(int(i * steps / len(text)), steps - 1) for i in range(len(text) + 1)]
            losses.append(-row[middles, self.encode(text)].mean() - BLANK_WEIGHT * row[edges, BLANK_ID].mean())
        return torch.stack(losses)


class SlotCodec(Codec):
    """One class per character position; the first padding class ends the text."""

    along_width = False
    more_room = "raise --max_length"

    @staticmethod
    def steps_needed(text: str) -> int:
        """Positions that `text` takes."""
        return len(text)

    def restrict(self, log_probs: np.ndarray) -> np.ndarray:
        """The probabilities of each position given the characters before it and that the text is allowed, its length
        too: the product over the characters and the padding after them is that of the text among all that are allowed.
        """
        assert self.limits is not None
        self.require_room(len(log_probs))
        merged = np.maximum(self.limits.merge(log_probs), 1e-30)  # (L, C)
        positions = len(merged)
        going_on = merged[:, 1:].sum(axis=1)
        rest = np.zeros(positions + 1)  # of all ways to end an allowed text, where so many characters are written
        ends = [float(self.limits.allows(count)) for count in range(positions + 1)]
        rest[positions] = ends[positions]
        scale = 1.0
        conditional = np.zeros_like(merged)
        for i in range(positions - 1, -1, -1):
            end, on = merged[i, BLANK_ID] * ends[i], going_on[i] * rest[i + 1]
            if (scale := end + on) > 0:
                conditional[i, BLANK_ID] = end / scale
                conditional[i, 1:] = merged[i, 1:] * rest[i + 1] / scale
            else:  # no text that is allowed gets here
                conditional[i, BLANK_ID] = 1.0
            rest[i] = scale
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(conditional), NEGATIVE_INFINITY).astype(np.float32)

    def decode(self, log_probs: np.ndarray) -> list[Reading]:
        """Read each position's most probable class up to the first padding, or with `limits` the best allowed text.

        Args:
            log_probs: (N, L, C), normalized over C.

        Returns:
            N readings. The confidence of the text is the product over its characters and the padding that ends it.
        """
        log_probs = np.asarray(log_probs, dtype=np.float32)
        readings = []
        for sample in log_probs:  # (L, C)
            if self.limits:
                readings.append(self._reading(sample, self._best(sample)))
                continue
            ids = sample.argmax(axis=1).tolist()
            readings.append(self._reading(sample, ids[: ids.index(BLANK_ID) if BLANK_ID in ids else len(ids)]))
        return readings

    def _best(self, log_probs: np.ndarray) -> list[int]:
        """Class ids of the most probable text: for each length the best characters, and of these the best length."""
        letters = log_probs[:, 1:]
        written = np.concatenate([[0.0], letters.max(axis=1).astype(np.float64).cumsum()])
        length = int((written + np.append(log_probs[:, BLANK_ID], 0.0)).argmax())
        return (letters[:length].argmax(axis=1) + 1).tolist()

    def _reading(self, log_probs: np.ndarray, ids: Sequence[int]) -> Reading:
        ended = [*ids, BLANK_ID][: len(log_probs)]  # with the padding that ends the text, if any
        taken = log_probs[np.arange(len(ended)), ended]
        return Reading(
            text=self.alphabet.decode(ids),
            confidence=min(float(np.exp(taken.astype(np.float64).sum())), 1.0),
            char_confidences=tuple(np.exp(taken[: len(ids)]).clip(max=1).tolist()),
            spans=tuple((i, i + 1) for i in range(len(ids))),
        )

    def log_likelihood(self, log_probs: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """As `Codec.log_likelihood`: the sum over the characters and the padding that ends the text, if any."""
        scores = np.full(len(texts), NEGATIVE_INFINITY)
        for row, (sample, text) in enumerate(zip(log_probs, texts, strict=True)):  # (L, C)
            ids = [*self.encode(text), BLANK_ID][: len(sample)]
            if len(text) <= len(sample):
                scores[row] = np.asarray(sample, dtype=np.float64)[np.arange(len(ids)), ids].sum()
        return scores

    def probabilities(self, samples: Sequence[np.ndarray], texts: Sequence[str]) -> np.ndarray:
        """As `Codec.probabilities`."""
        scores = [
            self.log_likelihood(np.broadcast_to(sample, (len(texts), *sample.shape)), texts) for sample in samples
        ]
        return np.exp(scores).clip(max=1.0)

    def align(self, log_probs: np.ndarray, text: str) -> list[tuple[int, int]]:
        """The positions of the characters."""
        if not self.feasible(text, len(log_probs)):
            raise UserError(f"{len(log_probs)} positions cannot write {text!r}")
        return [(i, i + 1) for i in range(len(text))]

    def read_as(self, log_probs: np.ndarray, text: str) -> Reading:
        """As `Codec.read_as`, for one sample (L, C)."""
        self.align(log_probs, text)
        return self._reading(log_probs, self.encode(text))

    def alternatives(self, log_probs: np.ndarray, count: int = 3) -> list[tuple[str, float]]:
        """As `Codec.alternatives`."""
        log_probs = np.asarray(log_probs, dtype=np.float64)
        # What may follow is the same for all texts that go on, so the best `count` of these are enough.
        going_on: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]  # (log-probability, ids)
        ended: list[tuple[float, tuple[int, ...]]] = []
        for row in log_probs:
            letters = (np.argsort(row[1:])[::-1][:count] + 1).tolist()
            ended += [(score + float(row[BLANK_ID]), ids) for score, ids in going_on]
            longer = [(score + float(row[k]), (*ids, k)) for score, ids in going_on for k in letters]
            going_on = heapq.nlargest(count, longer)
        best = heapq.nlargest(count, ended + going_on)
        return [(self.alphabet.decode(ids), float(np.exp(score))) for score, ids in best if score > -700.0]

    def loss(self, logits: Tensor, texts: Iterable[str], label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy over the positions, padding included."""
        import torch
        from torch.nn import functional

        targets = torch.zeros(logits.shape[:2], dtype=torch.long)
        for row, text in zip(targets, texts, strict=True):
            row[: len(text)] = torch.tensor(self.encode(text))
        return functional.cross_entropy(
            logits.float().transpose(1, 2),
            targets.to(logits.device),
            reduction="none",
            label_smoothing=label_smoothing,
        ).mean(1)


def build_codec(head: str, alphabet: Alphabet) -> Codec:
    """The codec of a head: CTC for `ctc` and `mixer`, else one with a class per character position."""
    return CTCCodec(alphabet) if head in CTC_HEADS else SlotCodec(alphabet)


def infeasible_labels(texts: Sequence[str], codec: Codec, steps: int) -> list[int]:
    """Indices of the texts that `steps` steps (CTC) or positions (slots) cannot write at all."""
    return [i for i, text in enumerate(texts) if not codec.feasible(text, steps)]


def _exp(log_probs: np.ndarray) -> np.ndarray:
    return np.exp(np.asarray(log_probs, dtype=np.float64))


def _normalized(probs: np.ndarray) -> np.ndarray:
    return probs / probs.sum(axis=-1, keepdims=True)
