"""Random numbers that belong to one op of one picture, so that what other ops draw never changes them."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate, chain
from typing import TypeVar

import numpy as np

T = TypeVar("T")

FIRST = 16  # numbers of each key that are made at once; most ops need fewer
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_STEPS = (np.arange(1, FIRST + 1, dtype=np.uint64) * np.uint64(_GOLDEN))[None, :]
_U30, _U27, _U31, _U11 = (np.uint64(shift) for shift in (30, 27, 31, 11))
_FACTOR1, _FACTOR2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def hash64(text: str) -> int:
    """A text as 64 bits, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


name_hash = lru_cache(maxsize=4096)(hash64)  # of names that come again and again


def mix64(words: np.ndarray) -> np.ndarray:
    """The mixing step of SplitMix64, on uint64 of any shape: near words give words that have nothing in common."""
    words = (words ^ (words >> _U30)) * _FACTOR1
    words = (words ^ (words >> _U27)) * _FACTOR2
    return words ^ (words >> _U31)


def to_floats(words: np.ndarray) -> np.ndarray:
    """Words as numbers within [0, 1)."""
    return (words >> _U11) * 2.0**-53


class Stream(random.Random):
    """A `random.Random` whose numbers come from a key alone, the same on every machine and in any order of keys.

    A key is a text that many streams share, as "seed/index" of a picture, and the name of what draws. The first numbers
    of a key are SplitMix64's; who needs more gets Python's generator, whose seeding takes as long as a hundred numbers.
    One object serves many keys in turn. `random` is an attribute of the object, an iterator's own method: it is called
    a hundred times a picture, and takes a fifth of what a method in Python would.
    """

    def __new__(cls, *key: object) -> Stream:  # Python's own generator would ask the system for its seed
        return super().__new__(cls, 0)  # type: ignore[call-arg]

    def __init__(self, *key: object) -> None:
        self._later = _Later()
        if key:
            self.restart(*key)

    def restart(self, key: object, *name: object) -> Stream:
        """Begin the numbers of a key and a name (whose parts are joined by slashes); returns the stream itself."""
        word = hash64(str(key)) ^ name_hash("/".join(map(str, name)))
        return self.begin(word, _numbers(word))

    def begin(self, word: int, first: Iterable[float]) -> Stream:
        """Begin the numbers of a key as `Numbers` holds them; returns the stream itself."""
        self._word = self._later.word = word
        self.gauss_next = None
        self.random: Callable[[], float] = chain(first, self._later).__next__
        return self

    def getrandbits(self, k: int) -> int:
        """A whole number of `k` bits."""
        if k <= 52:
            return int(self.random() * (1 << k))
        return int.from_bytes(self.randbytes((k + 7) // 8), "little") >> (-k % 8)

    def randbytes(self, n: int) -> bytes:
        """`n` bytes."""
        self._word = (self._word + _GOLDEN) & _MASK
        return random.Random(self._word).randbytes(n)

    # As Python's own, without the checks of their arguments.

    def uniform(self, a: float, b: float) -> float:
        """A number from `a` to `b`."""
        return a + (b - a) * self.random()

    def choice(self, seq: Sequence[T]) -> T:  # type: ignore[override]
        """One of a sequence that is not empty."""
        return seq[int(self.random() * len(seq))]

    def choices(  # type: ignore[override]
        self, population: Sequence[T], weights: Sequence[float] | None = None, *, k: int = 1
    ) -> list[T]:
        """`k` of a sequence, with repetition."""
        random = self.random
        if weights is None:
            count = len(population)
            return [population[int(random() * count)] for _ in range(k)]
        limits = list(accumulate(weights))
        if k == 1:
            return [population[bisect(limits, random() * limits[-1])]]
        return [population[bisect(limits, random() * limits[-1])] for _ in range(k)]

    def randint(self, a: int, b: int) -> int:
        """A whole number from `a` to `b`, both included."""
        return a + int(self.random() * (b - a + 1))

    def _randbelow(self, n: int) -> int:
        return int(self.random() * n)


class _Later:
    """The numbers of a word after its first ones: without end, and made ready only when they are asked for."""

    word = 0

    def __iter__(self) -> Iterator[float]:
        return iter(random.Random(self.word).random, None)  # no number is None


def _numbers(word: int) -> Iterator[float]:
    """The first numbers of one word as `_first_numbers` makes those of many, each when it is asked for."""
    for _ in range(FIRST):
        word = (word + _GOLDEN) & _MASK
        mixed = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        yield ((mixed ^ (mixed >> 31)) >> 11) * 2.0**-53


class Names:
    """Names of streams, made ready for many keys.

    Attributes:
        places: of each name.
        words: (n,) uint64, of each name.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.places = {name: place for place, name in enumerate(names)}
        self.words = np.array([name_hash(name) for name in names], np.uint64)


def _first_numbers(key: int, names: np.ndarray) -> tuple[list[int], list[list[float]]]:
    """Of each name, (n,) uint64, under one key: its word, and its first numbers; all in the time of one."""
    words = names ^ np.uint64(key)  # both are hashes, so that words of other names or keys have nothing in common
    return words.tolist(), to_floats(mix64(words[:, None] + _STEPS)).tolist()


class Numbers:
    """The streams of many names under one key; their first numbers are made at once, in the time that one takes.

    Args:
        key: that the names share.
        names: all that `of` will be asked for.
        stream: any, to be used again: making one takes longer than to give it another key.
    """

    def __init__(self, key: str, names: Names, stream: Stream | None = None) -> None:
        self._stream = stream or Stream()
        self._places = names.places
        self._words, self._first = _first_numbers(hash64(key), names.words)

    def of(self, name: str) -> Stream:
        """The stream of a name, the same object for all: its numbers end where another name's begin."""
        place = self._places[name]
        return self._stream.begin(self._words[place], self._first[place])
