"""Connectionist temporal classification (Graves et al., 2006) on arrays: likelihood, alignment, search.

Paths of T steps write a text by merging repeated class ids and then dropping the blank, class 0. Functions take lists
of class ids without blanks. Log-probabilities have the shape (T, C), or (N, T, C) for N samples, normalized over C.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

BLANK_ID = 0
NEGATIVE_INFINITY = -1e30  # a finite stand-in: differences of two real infinities would be NaN
MAX_EXPANSIONS = 150  # prefixes that a search looks beyond; after that it settles for the best it can reach directly
DIRECT = 8  # prefixes from which it then goes on directly


def steps_needed(ids: Sequence[object]) -> int:
    """Smallest number of steps that can write the symbols: a blank must part equal neighbors."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def log_likelihood(log_probs: np.ndarray, ids: Sequence[Sequence[int]]) -> np.ndarray:
    """log P(text | picture), summed over all CTC paths by the forward algorithm (Graves et al., 2006, equation 6).

    Args:
        log_probs: (N, T, C).
        ids: N lists of class ids.

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


def probabilities(samples: Sequence[np.ndarray], ids: Sequence[Sequence[int]]) -> np.ndarray:
    """P(text | picture), 0 to 1, of a few likely texts of each of some samples, as `log_likelihood` without logarithms.

    Without logarithms the smallest float bounds it: no less likely than C ** -T, the texts of likely paths are far
    above it.

    Args:
        samples: at least one, each (T, C) log-probabilities; T may differ.
        ids: at least one text.

    Returns:
        (samples, texts) float64.
    """
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
    return np.stack([alpha[:, row, max(end - 1, 0) : end + 1].sum(axis=1) for row, end in enumerate(ends)], axis=1)


def probability(probs: np.ndarray, ids: Sequence[int]) -> float:
    """exp of `log_likelihood` for one likely text, such as that of the most likely path.

    It does without logarithms, see `probabilities`, and without NumPy, which takes longer to start on so few numbers
    than Python to add them: a quarter of the time.

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


def align(log_probs: np.ndarray, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Where the characters of a known text are: the most likely path that writes it (Viterbi, 1967).

    Args:
        log_probs: (T, C).
        ids: at least one; T steps can write them.

    Returns:
        (first step, step after the last) of each character.
    """
    (states,), (leap,) = _states([ids])
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
    steps = [[t for t, state in enumerate(path) if state == 2 * i + 1] for i in range(len(ids))]
    return [(found[0], found[-1] + 1) for found in steps]


def runs(path: Sequence[int]) -> list[tuple[int, int, int]]:
    """Runs of equal class ids other than the blank in a path, as (id, start, stop)."""
    found = []
    start = 0
    for t in range(1, len(path) + 1):
        if t == len(path) or path[t] != path[start]:
            if path[start] != BLANK_ID:
                found.append((path[start], start, t))
            start = t
    return found


def _states(ids: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """What paths that write N texts pass through, class ids (N, S), and where they may leap over the blank before."""
    extended = np.full((len(ids), 2 * max(map(len, ids), default=0) + 1), BLANK_ID)  # blank, first, ..., last, blank
    for row, sequence in zip(extended, ids, strict=True):
        row[1 : 2 * len(sequence) : 2] = sequence
    # A path may leap from one character over the blank to the next, if the two differ.
    leap = np.zeros(extended.shape, dtype=bool)
    leap[:, 3::2] = extended[:, 3::2] != extended[:, 1:-2:2]
    return extended, leap


# --------------------------------------------------------------------------------------------------------------------
# Search


class _Prefix(NamedTuple):
    """The beginning of a text, and how probable it is that the steps up to each one write exactly that."""

    ids: tuple[int, ...]
    symbol: np.ndarray
    """(T,), by paths that end in its last character."""
    blank: np.ndarray
    """(T,), by paths that end in the blank."""

    @property
    def complete(self) -> float:
        """Probability of the text that ends here."""
        return float(self.symbol[-1] + self.blank[-1])


class PrefixSearch:
    """The most probable texts of one sample whose number of characters is within a range.

    Best-first prefix search (Graves et al., 2006, section 3.2): the prefix whose allowed continuations are most
    probable, all together, is extended next. What they can reach together bounds each of them, so the texts come out in
    their true order. A length automaton counts the characters: `_rest` is the probability of going on, from any step,
    symbol and count, to a text of an allowed length. Unlike a beam, it cannot lose the best text.

    Args:
        probs: (T, C) probabilities, of any sum per step. Their products must not vanish.
        shortest: fewest characters.
        longest: most characters; None for any number.
    """

    def __init__(self, probs: np.ndarray, shortest: int = 0, longest: int | None = None) -> None:
        probs = np.asarray(probs, dtype=np.float64)
        self.blanks = probs[:, BLANK_ID]
        self.symbols = np.ascontiguousarray(probs[:, 1:])  # (T, K)
        self.shortest, self.longest = shortest, longest
        # Counts above the last one matter no more: without an upper bound they are all alike.
        self.last_count = shortest if longest is None else longest
        self.rest_symbol, self.rest_blank = self._rest()
        self.mass = self._mass()
        """Probability of all texts of an allowed length together."""

    def _allowed(self, count: int) -> bool:
        return count >= self.shortest and (self.longest is None or count <= self.longest)

    def _next(self, counts: np.ndarray) -> np.ndarray:
        """What stands at each count, (counts, ...), as seen from one character fewer."""
        after = np.empty_like(counts)
        after[:-1] = counts[1:]
        after[-1] = counts[-1] if self.longest is None else 0.0
        return after

    def _rest(self) -> tuple[np.ndarray, np.ndarray]:
        """Probability that the steps after t lead from a state to a text of an allowed length.

        Returns:
            (T, counts, K) after a symbol, and (T, counts) after a blank, where `counts` characters are written already.
        """
        steps, symbols = self.symbols.shape
        counts = self.last_count + 1
        allowed = np.array([self._allowed(count) for count in range(counts)], dtype=np.float64)
        after_symbol = np.empty((steps, counts, symbols))
        after_blank = np.empty((steps, counts))
        after_symbol[-1], after_blank[-1] = allowed[:, None], allowed
        for t in range(steps - 2, -1, -1):
            emitted, blank = self.symbols[t + 1], self.blanks[t + 1]
            written = self._next(after_symbol[t + 1]) * emitted  # one more character, by which one it is
            more = written.sum(axis=1)
            after_blank[t] = blank * after_blank[t + 1] + more
            others = np.maximum(more[:, None] - written, 0.0)
            after_symbol[t] = emitted * after_symbol[t + 1] + blank * after_blank[t + 1][:, None] + others
        return after_symbol, after_blank

    def _mass(self) -> float:
        first = self._next(self.rest_symbol[0])[0]
        return float(self.blanks[0] * self.rest_blank[0, 0] + (self.symbols[0] * first).sum())

    def _root(self) -> _Prefix:
        return _Prefix((), np.zeros(len(self.blanks)), np.cumprod(self.blanks))

    def _entries(self, prefix: _Prefix) -> tuple[np.ndarray, np.ndarray]:
        """Every way to go on from a prefix.

        Returns:
            (T, K), the probability of writing the prefix and beginning each symbol at each step, and (K,), that of all
            allowed texts that go on so.
        """
        before = np.empty(len(self.blanks))
        before[1:] = prefix.blank[:-1] + prefix.symbol[:-1]
        before[0] = 0.0 if prefix.ids else 1.0
        entries = self.symbols * before[:, None]
        if prefix.ids:  # the same symbol again takes a blank before it
            last = prefix.ids[-1] - 1
            entries[1:, last] = self.symbols[1:, last] * prefix.blank[:-1]
        count = len(prefix.ids) + 1
        if self.longest is not None and count > self.longest:
            return entries, np.zeros(entries.shape[1])
        return entries, np.einsum("tk,tk->k", entries, self.rest_symbol[:, min(count, self.last_count)])

    def _extend(self, prefix: _Prefix, entries: np.ndarray, symbol: int) -> _Prefix:
        """The prefix with one symbol (an index of K) more."""
        ends_symbol, ends_blank = [], []
        by_symbol = by_blank = 0.0
        columns = entries[:, symbol].tolist(), self.symbols[:, symbol].tolist(), self.blanks.tolist()
        for entry, stay, blank in zip(*columns, strict=True):
            by_blank = blank * (by_blank + by_symbol)
            by_symbol = entry + stay * by_symbol
            ends_symbol.append(by_symbol)
            ends_blank.append(by_blank)
        return _Prefix((*prefix.ids, symbol + 1), np.array(ends_symbol), np.array(ends_blank))

    def best(self, count: int) -> list[tuple[tuple[int, ...], float]]:
        """Up to `count` texts as class ids, with their probabilities, the most probable first."""
        found: list[tuple[tuple[int, ...], float]] = []
        least: list[float] = []  # probabilities of the `count` best complete texts so far, the lowest first
        # (minus the probability that bounds it, tie-break, complete text or prefix, how to make the prefix)
        heap: list[tuple[float, int, _Prefix, np.ndarray | None, int]] = []
        made = expansions = 0

        def add(prefix: _Prefix) -> None:
            """A prefix's own text, and its extensions, unless `count` better texts are known."""
            nonlocal made
            if self._allowed(len(prefix.ids)) and prefix.complete > 0:
                made += 1
                heapq.heappush(heap, (-prefix.complete, made, prefix, None, -1))
                heapq.heappush(least, prefix.complete)
                if len(least) > count:
                    heapq.heappop(least)
            entries, masses = self._entries(prefix)
            bound = least[0] if len(least) == count else 0.0
            for symbol in np.flatnonzero(masses > bound).tolist():
                made += 1
                heapq.heappush(heap, (-float(masses[symbol]), made, prefix, entries, symbol))

        add(self._root())
        while heap and len(found) < count:
            negative, _, prefix, entries, symbol = heapq.heappop(heap)
            if entries is None:
                found.append((prefix.ids, -negative))
            elif expansions < MAX_EXPANSIONS:
                expansions += 1
                add(self._extend(prefix, entries, symbol))
            else:
                rest = [(prefix, entries, symbol)]
                rest += [(p, e, s) for _, _, p, e, s in heapq.nsmallest(DIRECT, heap) if e is not None]
                ended = {p.ids: -bound for bound, _, p, e, _ in heap if e is None}
                ended |= dict(self._directly(self._extend(*start)) for start in rest)
                ranked = sorted(ended.items(), key=lambda item: -item[1])
                return found + ranked[: count - len(found)]
        return found

    def _directly(self, prefix: _Prefix) -> tuple[tuple[int, ...], float]:
        """From a prefix by the most probable symbol each time, until to end is more probable than any of them."""
        while True:
            entries, masses = self._entries(prefix)
            symbol = int(masses.argmax())
            ends = prefix.complete if self._allowed(len(prefix.ids)) else 0.0
            if ends >= masses[symbol]:
                return prefix.ids, ends
            prefix = self._extend(prefix, entries, symbol)
