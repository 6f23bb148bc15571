"""Which pictures to ask for next: the unsure ones, spread out over what the reader sees.

Uncertainty sampling (Lewis and Gale, 1994) alone asks for many pictures with the same difficulty. So the most unsure
pictures are thinned by farthest-first traversal in feature space (the k-center greedy choice of Sener and Savarese,
2018), and every fifth picture is a random one that is kept aside for measuring. Until a model has learned from the
set's own labels the order is random.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

POOL = 4  # times as many unsure pictures as are wanted, among which the spread decides
MEASURED_EVERY = 5  # one picture in so many is a random one, kept aside for measuring


def features(log_probs: np.ndarray, blank_id: int = 0) -> np.ndarray:
    """How much the reader sees of each character in a picture: what a label would teach.

    Args:
        log_probs: (T, C) log-probabilities of the steps.
        blank_id: the class that stands for no character.

    Returns:
        (C - 1,) float32 of length 1, or zeros where the reader sees nothing.
    """
    mass = np.exp(log_probs.astype(np.float32)).sum(axis=0)
    mass = np.sqrt(np.delete(mass, blank_id))  # the root keeps a frequent character from hiding the others
    norm = float(np.linalg.norm(mass))
    return mass / norm if norm > 1e-6 else np.zeros_like(mass)


def choose(
    confidence: np.ndarray,
    feature: np.ndarray,
    count: int,
    chosen: Sequence[int] = (),
    allowed: Sequence[int] | None = None,
) -> list[int]:
    """The next pictures to label, best first.

    Args:
        confidence: (N,) of each picture's reading, 0 to 1.
        feature: (N, D) of each picture, as `features` gives them.
        count: how many.
        chosen: pictures that were asked for already; the new ones keep away from them.
        allowed: places that may be chosen; all but `chosen` by default.

    Returns:
        At most `count` places in 0..N-1, without repetition.
    """
    taken = set(chosen)
    left = [i for i in (range(len(confidence)) if allowed is None else allowed) if i not in taken]
    # Of equally sure pictures the first come first: the caller has them in a seeded random order.
    unsure = sorted(left, key=lambda i: confidence[i])[: POOL * count]
    if not unsure:
        return []
    pool = feature[unsure]
    distance = np.full(len(unsure), 2.0)
    for i in chosen:
        distance = np.minimum(distance, _distance(pool, feature[i]))
    picked: list[int] = []
    while len(picked) < min(count, len(unsure)):
        # A picture read with certainty teaches nothing, however far away it is.
        best = int(np.argmax(distance * (1.02 - confidence[unsure])))
        picked.append(unsure[best])
        distance = np.minimum(distance, _distance(pool, pool[best]))
        distance[best] = -1
    return picked


def _distance(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    return 1.0 - points @ point  # cosine distance, 0 to 1 for what is never negative


def shuffled(ids: Sequence[str], seed: int) -> list[str]:
    """The ids in a random order that depends on the seed and the ids alone, not on the order they came in."""
    return sorted(ids, key=lambda id_: hashlib.blake2b(f"{seed}/{id_}".encode(), digest_size=8).digest())
