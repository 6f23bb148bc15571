"""Which picture goes into which split: duplicates found and splits decided by content hash and seed."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import PurePath

import numpy as np

from captcha_reader.errors import UserError

SPLITS = ("train", "validation", "test")
UNUSED, DUPLICATE, REJECTED = -1, -2, -3  # rows of no split
PSEUDO = "pseudo-labels"  # in place of one of SPLITS: readings that nobody typed, for training alone
KEY = "S16"  # NumPy's type for hashes: they sort as bytes do, and trailing zeros make no two of them equal


# What the folders and shards of a source call its splits.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_of(path: PurePath, source: PurePath | None = None) -> str | None:
    """Of SPLITS the one that a path within a source stands for: `train/1.png`, `val-00000-of-00001.parquet`.

    The name of the source itself counts where the path says nothing.
    """
    for folder in path.parts[:-1]:
        if split := SPLIT_NAMES.get(folder.lower()):
            return split
    if path.suffix.lower() == ".parquet" and (
        split := SPLIT_NAMES.get(re.split(r"[-_.]", path.name.lower(), maxsplit=1)[0])
    ):
        return split
    return SPLIT_NAMES.get(source.name.lower()) if source is not None else None


def parse_split(split: str) -> tuple[tuple[float, float, float], bool]:
    """Read `80/10/10` (train/validation/test) or `70/30` (train/test).

    Returns:
        Three numbers, and whether they are percentages: they are if they sum to 100, and counts of pictures otherwise.

    Raises:
        UserError: not two or three numbers from 0 on, or counts that are not whole.
    """
    try:
        numbers = [float(part) for part in split.split("/")]
    except ValueError:
        numbers = []
    if len(numbers) == 2:
        numbers.insert(1, 0.0)
    if len(numbers) != 3 or not all(0 <= number < 1e15 for number in numbers) or not sum(numbers):
        raise UserError(f"the split {split!r} is not like 80/10/10 (train/validation/test) or 70/30 (train/test)")
    percent = abs(sum(numbers) - 100) < 1e-6
    if not percent and not all(number.is_integer() for number in numbers):
        raise UserError(f"the split {split!r} does not sum to 100, and counts of pictures must be whole numbers")
    return (numbers[0], numbers[1], numbers[2]), percent


def _split_counts(split: str, total: int) -> tuple[int, int, int]:
    """Pictures for training, validation and test of `total`."""
    (train, validation, test), percent = parse_split(split)
    if percent:
        tested = int(total * test / 100 + 0.5)
        validated = min(int(total * validation / 100 + 0.5), total - tested)
        return total - tested - validated, validated, tested
    if train + validation + test > total:
        raise UserError(
            f"the split {split} asks for {int(train + validation + test):,} pictures and there are {total:,}: "
            "lower the counts or give percentages"
        )
    return int(train), int(validation), int(test)


def _first_rows(keys: np.ndarray) -> np.ndarray:
    """For each of N `keys`, of type KEY, the first row that equals it, (N,) int64."""
    order = np.argsort(keys, kind="stable")  # equal keys stay in the order of the rows
    ordered = keys[order]
    starts = np.ones(len(keys), dtype=bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    del ordered  # 16 MB of every million rows
    first = np.empty(len(keys), dtype=np.int64)
    first[order] = order[starts][np.cumsum(starts) - 1]
    return first


def kept_rows(keys: np.ndarray, marks: np.ndarray, pseudo: np.ndarray) -> np.ndarray:
    """For each of N rows the one that is kept of its picture, (N,) int64: the first with the label most copies have.

    Where equally many have each label, the first row's is kept. Where a person gave a label, those of models do not
    count. `keys` stand for pictures, `marks` for these with their labels, both of type KEY; `pseudo`, (N,) bool, tells
    the labels of models.
    """
    first, same = _first_rows(keys), _first_rows(marks)
    if not pseudo.any() and np.array_equal(same, same[first]):  # no label contradicts another
        return first
    alike = 2 * same + pseudo
    votes = np.bincount(alike)[alike]
    order = np.lexsort((-votes, pseudo, first))  # by picture, then votes; equal ones stay in the order of the rows
    pictures, starts = np.unique(first[order], return_index=True)
    kept = np.empty_like(first)
    kept[pictures] = order[starts]
    return kept[first]


def assign_splits(keys: np.ndarray, split: str, seed: int, pseudo: np.ndarray) -> np.ndarray:
    """The split of each of N different pictures, (N,) of type KEY: an index into SPLITS or UNUSED, (N,) int8.

    Pseudo-labels, told by `pseudo`, (N,) bool, are for training alone: percentages are of the typed labels, and of
    counts they come first among those for training.

    Raises:
        UserError: there are not as many pictures as counts ask for, or too few typed ones to measure on.
    """
    assigned = np.full(len(keys), UNUSED, dtype=np.int8)
    learned, typed = int(pseudo.sum()), int((~pseudo).sum())
    (train, validation, test), percent = parse_split(split)
    if learned and not percent:
        _split_counts(split, len(keys))
        if validation + test > typed:
            raise UserError(
                f"the split {split} asks for {int(validation + test):,} pictures to measure on and only {typed:,} "
                "labels were typed by a person: lower the counts or give percentages"
            )
        learned = min(learned, int(train))
        counts = int(train) - learned, int(validation), int(test)
    else:
        counts = _split_counts(split, typed)
    assigned[~pseudo] = _assign(keys[~pseudo], counts, seed)
    assigned[pseudo] = _assign(keys[pseudo], (learned, 0, 0), seed)
    return assigned


def _assign(keys: np.ndarray, counts: tuple[int, int, int], seed: int) -> np.ndarray:
    """The split of each picture, of as many pictures as `counts` says for each split.

    Pictures are ranked by a hash of their content hash, keyed by the seed; the lowest are the test split. So a picture
    keeps its split whatever the order of the rows, and changing the share of validation does not touch the test split.
    """
    train, validation, test = counts
    secret = blake2b(str(seed).encode()).digest()
    content = memoryview(keys.view(np.uint8).data)
    ranks = bytearray()
    for start in range(0, len(content), 16):
        ranks += blake2b(content[start : start + 16], digest_size=16, key=secret).digest()
    order = np.argsort(np.frombuffer(ranks, KEY), kind="stable")
    assigned = np.full(len(keys), UNUSED, dtype=np.int8)
    assigned[order[:test]] = 2
    assigned[order[test : test + validation]] = 1
    assigned[order[test + validation : test + validation + train]] = 0
    return assigned
