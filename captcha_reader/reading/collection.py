"""Pictures of one source, read together: what their texts have in common, estimated from the readings alone.

What one picture leaves open, the others often tell: the texts of a source have few lengths, and many sources use few
characters. Both are estimated without labels, by expectation maximization (Dempster, Laird and Rubin, 1977) over the
most probable texts of each picture, and these are then weighed with them.

Where the characters are given, random texts use each of them alike, and a network that takes some for others shows as
uneven use: the characters that it reads too often are then made less likely, the others more.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.prediction import Prediction

ROUNDS = 8
MAX_LENGTH = 32  # characters; longer texts count as of this length
USUAL_LENGTHS = range(3, 11)  # as likely as each other before any picture is seen
OTHER_LENGTH = 1e-5  # probability of any other length
EXPONENT = 0.7  # of a picture's probabilities: networks are surer of hooks and lines than they should be
MIN_SHARE = 0.1  # a character seen less than this share of what even use would make of it is not of the source
MIN_COUNT = 5.0  # how often even use must show each character, for the charset to be known
FOREIGN = 0.02  # weight of each character of a text that is not of the charset
# Towards even use of given characters (chosen on shared/data/real, `benchmarks/run.py constraints`):
MIN_EVENNESS = 0.9  # perplexity of the characters as a share of their number; that of English words is 0.7
CORRECTION_ROUNDS = 15
PULL = 1.5  # power of the ratio of counts that becomes a character's weight
MAX_CORRECTION = 1.5  # of a logarithm
SMOOTHING = 2.0  # added to each count

Candidates = Mapping[str, float]  # texts, of one character at least, and their probabilities


@dataclasses.dataclass(frozen=True)
class Scheme:
    """What the captchas of one source have in common.

    Attributes:
        lengths: probability of each number of characters, in ascending order.
        characters: those that were read, in order.
        charset_known: whether there were enough readings to say that it uses no others.
        corrections: logarithm of each character's weight; empty where the characters were not given.
        exponent: of a picture's probabilities.
    """

    lengths: dict[int, float]
    characters: str = ""
    charset_known: bool = False
    corrections: Mapping[str, float] = dataclasses.field(default_factory=dict)
    exponent: float = EXPONENT

    def prior(self, text: str) -> float:
        """Probability of a text before its picture is seen, up to a factor that all texts share."""
        length = self.lengths.get(min(len(text), MAX_LENGTH), 0.0) + OTHER_LENGTH
        foreign = sum(character not in self.characters for character in text) if self.charset_known else 0
        correction = sum(self.corrections.get(character, 0.0) for character in text)
        return length * FOREIGN**foreign * math.exp(correction)

    def weigh(self, candidates: Candidates) -> tuple[str, float]:
        """The best of a picture's candidates, one at least, and how sure it is.

        Returns:
            The text, and its share of all weights times the probability that the candidates have together, 0 to 1.
        """
        weights = self.weights(candidates)
        text = max(weights, key=weights.__getitem__)
        return text, weights[text] / sum(weights.values()) * min(sum(candidates.values()), 1.0)

    def weights(self, candidates: Candidates) -> dict[str, float]:
        """Posterior of each candidate, up to a factor that all share."""
        return {text: p**self.exponent * self.prior(text) for text, p in candidates.items()}

    def __str__(self) -> str:
        lengths = ", ".join(f"{n} ({p:.0%})" for n, p in self.lengths.items() if p >= 0.02)
        count = f"{len(self.characters)} characters, " if self.charset_known else "characters so far "
        return f"lengths {lengths}; {count}{self.characters}"


def estimate_scheme(pictures: Sequence[Candidates], constraints: Constraints | None = None) -> Scheme:
    """What the texts of pictures of one source have in common.

    Args:
        pictures: candidates of each; an empty mapping where nothing is read.
        constraints: what is known of the source: the estimate starts from its lengths, and from its characters, of
            which those that are hardly ever read may be left out, and is corrected towards even use of them.
    """
    known = (constraints or Constraints()).lengths
    usual = range(known[0], min(known[1], MAX_LENGTH) + 1) if known else USUAL_LENGTHS
    even = {min(n, MAX_LENGTH): 1 / max(len(usual), 1) for n in usual or (MAX_LENGTH,)}
    scheme = Scheme(even)
    for _ in range(ROUNDS):
        lengths: dict[int, float] = defaultdict(float, even)  # as if one picture more had been seen, of any length
        characters: dict[str, float] = defaultdict(float)
        for candidates in filter(None, pictures):
            weights = scheme.weights(candidates)
            total = sum(weights.values())
            for text, weight in weights.items():
                lengths[min(len(text), MAX_LENGTH)] += weight / total
            best = max(weights, key=weights.__getitem__)
            for character in best:  # as sure as the picture alone is: what is made of it must not confirm itself
                characters[character] += candidates[best]
        seen = sum(lengths.values())
        scheme = Scheme({n: lengths[n] / seen for n in sorted(lengths)}, *_estimate_charset(characters))
    return _correct(scheme, pictures) if constraints and constraints.characters else scheme


def _correct(scheme: Scheme, pictures: Sequence[Candidates]) -> Scheme:
    """The same with characters corrected towards even use, if they are used evenly enough for texts to be random."""
    # A character that is always taken for another is in no best reading: which are used is counted anew.
    known = scheme.charset_known
    scheme = dataclasses.replace(scheme, exponent=1.0, charset_known=False)
    corrections: dict[str, float] = defaultdict(float)
    for number in range(CORRECTION_ROUNDS):
        counts: dict[str, float] = defaultdict(float)
        for candidates in filter(None, pictures):
            weights = scheme.weights(candidates)
            total = sum(weights.values())
            for text, weight in weights.items():
                for character in text:
                    counts[character] += weight / total
        even = _even_count(counts)
        if number == 0:
            used = sorted(character for character, count in counts.items() if count >= MIN_SHARE * even)
            if even < MIN_COUNT or sum(counts.values()) / even < MIN_EVENNESS * len(used):
                return dataclasses.replace(scheme, charset_known=known)
            scheme = dataclasses.replace(scheme, characters="".join(used), charset_known=True)
        mean = sum(counts[character] for character in used) / len(used)
        for character in used:
            aim = PULL * math.log((mean + SMOOTHING) / (counts[character] + SMOOTHING))
            aim = min(max(aim, -MAX_CORRECTION), MAX_CORRECTION)
            corrections[character] = (corrections[character] + aim) / 2
        scheme = dataclasses.replace(scheme, corrections=dict(corrections))
    return scheme


def _even_count(counts: Mapping[str, float]) -> float:
    """How often each character would have been seen, were as many as their perplexity used evenly."""
    total = sum(counts.values())
    shares = [count / total for count in counts.values() if count > 0]
    return total / math.exp(-sum(p * math.log(p) for p in shares)) if shares else 0.0


def _estimate_charset(counts: Mapping[str, float]) -> tuple[str, bool]:
    """Characters that the source uses, and whether so many readings can tell that it uses no others."""
    even = _even_count(counts)
    known = even >= MIN_COUNT
    return "".join(sorted(c for c, count in counts.items() if not known or count >= MIN_SHARE * even)), known


def read_together(
    predictions: Sequence[Prediction], constraints: Constraints | None = None
) -> tuple[list[Prediction], Scheme]:
    """Readings of pictures of one source, each weighed with what all of them have in common.

    Args:
        predictions: what each picture gives alone, with its views kept: they often differ in what is wrong.
        constraints: those that the pictures were read with.

    Returns:
        As many predictions, in the same order, and what their texts have in common.
    """
    scheme = estimate_scheme([prediction.candidates for prediction in predictions], constraints)
    together = []
    for prediction in predictions:
        if prediction.candidates:
            text, confidence = scheme.weigh(prediction.candidates)
            prediction = dataclasses.replace(_read_as(prediction, text), confidence=confidence)
        together.append(prediction)
    return together, scheme


def _read_as(prediction: Prediction, text: str) -> Prediction:
    """The same picture with another text, found in the view that gives most to it."""
    if text == prediction.text:
        return prediction
    views = (prediction, *prediction.other_views)
    able = [view for view in views if view.codec.feasible(text, len(view.log_probs))]
    readings = [view.codec.read_as(view.log_probs, text) for view in able]
    view, reading = max(zip(able, readings, strict=True), key=lambda found: found[1].confidence)
    others = tuple(other for other in views if other is not view)
    return dataclasses.replace(
        view, text=text, char_confidences=reading.char_confidences, spans=reading.spans, other_views=others
    )
