"""Random numbers that belong to one op of one picture, so that what other ops draw never changes them."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator

_WORDS = struct.Struct("<8Q").unpack
_SALTS = [bytes([block]) for block in range(3)]


class Stream(random.Random):
    """A `random.Random` whose numbers come from a key alone, the same on every machine and in any order of keys.

    Python's own generator takes six microseconds to seed, and a picture seeds some twenty streams of few numbers each.
    So the first numbers are BLAKE2b(key), which takes one; who needs more gets Python's generator, seeded by it.
    One object serves many keys in turn.
    """

    def __init__(self, *key: object) -> None:
        super().__init__(0)
        self.restart(*key)

    def restart(self, *key: object) -> Stream:
        """Begin the numbers of a key (texts and integers without a slash); returns the stream itself."""
        self._key = "/".join(map(str, key)).encode()
        self._block = 0
        self._words: Iterator[int] = iter(())
        self.gauss_next = None
        if "random" in self.__dict__:
            del self.random, self.getrandbits
        return self

    def random(self) -> float:
        """A number within [0, 1)."""
        for word in self._words:  # a loop of one turn: the cheapest way to ask an iterator that may be empty
            return (word >> 11) * 2.0**-53
        return (self._refill() >> 11) * 2.0**-53

    def getrandbits(self, k: int) -> int:
        """A whole number of `k` bits."""
        if k <= 64:
            for word in self._words:
                return word >> (64 - k)
            return self._refill() >> (64 - k)
        return int.from_bytes(self.randbytes((k + 7) // 8), "little") >> (-k % 8)

    def randbytes(self, n: int) -> bytes:
        """`n` bytes."""
        if "random" not in self.__dict__:  # not yet Python's generator, which is far quicker at many bytes
            self._block += 1
            self._seed(b"bytes")
        return super().getrandbits(8 * n).to_bytes(n, "little") if n else b""

    def _seed(self, use: bytes) -> None:
        digest = hashlib.blake2b(self._key, salt=self._block.to_bytes(8, "little"), person=use, digest_size=8).digest()
        super().seed(int.from_bytes(digest, "little"))

    def _refill(self) -> int:
        """Make eight words of 64 bits, and take the first; the third time, go over to Python's generator."""
        self._block += 1
        if self._block > 2:
            self._seed(b"numbers")
            self.random, self.getrandbits = super().random, super().getrandbits  # type: ignore[method-assign, assignment]
            return super().getrandbits(64)
        digest = hashlib.blake2b(self._key, salt=_SALTS[self._block], digest_size=64).digest()
        words = self._words = iter(_WORDS(digest))
        return next(words)
