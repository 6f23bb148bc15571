"""What captchas of one kind have in common, learned from their readings alone; `predict.read_together` uses it.

What one picture leaves open, the others often tell: the words of a kind have few lengths, and many kinds use few
characters. Both are estimated without labels, by expectation maximisation (Dempster, Laird and Rubin, 1977) over the
likeliest texts of each picture, and these are then weighed with them.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

ROUNDS = 8
LONGEST = 32  # characters; longer words count as of this length
USUAL = range(3, 11)  # lengths that are as likely as each other before any picture is seen
NEVER = 1e-5  # probability of any other length
TEMPER = 0.7  # exponent of a picture's probabilities: networks are surer of hooks and lines than they should be
RARE = 0.1  # a character seen less than this share of what even use would make of it is not of the kind
ENOUGH = 5.0  # how often even use must show each character, for this to be told
STRANGE = 0.02  # weight of each character of a text that is not of the kind

Candidates = Mapping[str, float]  # texts, of one character at least, and their probabilities


@dataclasses.dataclass(frozen=True)
class Kind:
    """What the captchas of one kind have in common.

    Attributes:
        lengths: probability of each number of characters, in ascending order.
        characters: those that the kind uses, in order, as far as they were read.
        told: whether there were enough readings to say that it uses no others.
    """

    lengths: dict[int, float]
    characters: str = ""
    told: bool = False

    def prior(self, text: str) -> float:
        """Probability of a text before its picture is seen, but for a factor that all texts share."""
        length = self.lengths.get(min(len(text), LONGEST), 0.0) + NEVER
        return length * STRANGE ** (self.told and sum(character not in self.characters for character in text))

    def weigh(self, candidates: Candidates) -> tuple[str, float]:
        """The best of a picture's candidates, one at least, and how sure it is.

        Returns:
            The text, and its share of all weights times the probability that the candidates have together, 0 to 1.
        """
        weights = self.weights(candidates)
        text = max(weights, key=weights.__getitem__)
        return text, weights[text] / sum(weights.values()) * min(sum(candidates.values()), 1.0)

    def weights(self, candidates: Candidates) -> dict[str, float]:
        """Posterior of each candidate, but for a factor that all share."""
        return {text: p**TEMPER * self.prior(text) for text, p in candidates.items()}

    def __str__(self) -> str:
        lengths = ", ".join(f"{n} ({p:.0%})" for n, p in self.lengths.items() if p >= 0.02)
        return f"lengths {lengths}; " + (f"{len(self.characters)} characters, " if self.told else "") + self.characters


def learn_kind(pictures: Sequence[Candidates]) -> Kind:
    """What pictures of one kind have in common.

    Args:
        pictures: candidates of each; an empty mapping where nothing is read.
    """
    kind = Kind({n: 1 / len(USUAL) for n in USUAL})
    for _ in range(ROUNDS):
        lengths = Counter({n: 1 / len(USUAL) for n in USUAL})  # as if one picture more had been seen, of any length
        characters: Counter[str] = Counter()
        for candidates in filter(None, pictures):
            weights = kind.weights(candidates)
            total = sum(weights.values())
            for text, weight in weights.items():
                lengths[min(len(text), LONGEST)] += weight / total
            best = max(weights, key=weights.__getitem__)
            for character in best:  # as sure as the picture alone is: what is made of it must not confirm itself
                characters[character] += candidates[best]
        seen = sum(lengths.values())
        kind = Kind({n: lengths[n] / seen for n in sorted(lengths)}, *_tell_characters(characters))
    return kind


def _tell_characters(counts: Counter[str]) -> tuple[str, bool]:
    """Characters that the kind uses, and whether so many readings can tell that it uses no others."""
    total = sum(counts.values())
    shares = [count / total for count in counts.values() if count > 0]
    # Were as many as their perplexity used evenly, each would have been seen so often.
    even = total / math.exp(-sum(p * math.log(p) for p in shares)) if shares else 0.0
    told = even >= ENOUGH
    return "".join(sorted(c for c, count in counts.items() if not told or count >= RARE * even)), told
