"""Words for captchas that show some: common English ones (words.txt), and made-up ones that could be words."""

from __future__ import annotations

import random
from functools import lru_cache
from pathlib import Path

STARTS = "b br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr qu r s sc sh sk sl sm sn sp st str sw t th tr v w z"
MIDDLES = "a a ai e e ea ee i i o o oa oo ou u y"
ENDS = "b ck d f g l ll m mp n nd ng nk nt p r rd rk rm rn rt s sh sk ss st t th x"


def draw_word(rng: random.Random, length: tuple[int, int]) -> str:
    """A word of (fewest, most) small letters: a common one where there is one, or syllables that read like one."""
    fitting = _common(length)
    if fitting and rng.random() < 0.6:
        return rng.choice(fitting)
    wanted, word = rng.randint(*length), ""
    while len(word) < wanted:
        word += rng.choice(STARTS.split()) + rng.choice(MIDDLES.split())
        if rng.random() < 0.5:
            word += rng.choice(ENDS.split())
    return word[:wanted]


@lru_cache(maxsize=64)
def _common(length: tuple[int, int]) -> list[str]:
    words = Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split()
    return [word for word in words if length[0] <= len(word) <= length[1]]
