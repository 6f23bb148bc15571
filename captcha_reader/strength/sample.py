"""The captchas that are measured, and what was left out of them."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from captcha_reader.errors import UserError
from captcha_reader.images import IMAGE_SUFFIXES, open_image
from captcha_reader.strength.settings import MIN_MEASURED

LISTED = 20  # samples left out that the report names
MAX_MEASURED = 1000


@dataclass
class LeftOut:
    """Samples that were left out: how many for each reason, and the first of them by name."""

    reasons: Counter[str] = field(default_factory=Counter)
    listed: list[dict[str, str]] = field(default_factory=list)

    @classmethod
    def load(cls, path: str | None) -> LeftOut:
        """What was left out before, from a JSON file {reason: number}; None: nothing.

        Raises:
            UserError: it is no such file.
        """
        if path is None:
            return cls()
        try:
            counts = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(+Counter({str(reason): int(count) for reason, count in counts.items()}))
        except (OSError, ValueError, AttributeError, TypeError):
            raise UserError(f'--left_out {path} cannot be used: it is a JSON file such as {{"no label": 3}}') from None

    def add(self, rejects: dict[str, Any]) -> None:
        """Take in the `rejects` of a dataset: `counts`, and `listed` with `source`, `reason` and `detail`."""
        self.reasons.update(rejects["counts"])
        named = [{**row, "source": Path(row["source"]).name} for row in rejects["listed"]]
        self.listed = [*self.listed, *named][:LISTED]

    def add_others(self, others: Mapping[str, int]) -> None:
        """Take in files that are no pictures by their names: how many, by the ends of these."""
        self.reasons.update({f"not a picture by name ({ending})": count for ending, count in others.items()})

    def readable(self, paths: Sequence[Path], limit: int | None, seed: int = 0) -> list[bytes]:
        """The pictures that can be read, as files, in the order of `paths`; those that cannot are added.

        Args:
            paths: of the files.
            limit: most pictures, a choice by `seed`, since the first by name may be of one kind.

        Raises:
            UserError: there is none.
        """
        found: dict[int, bytes] = {}
        places = list(range(len(paths)))
        if limit is not None:
            random.Random(seed).shuffle(places)
        for place in places:
            if limit is not None and len(found) >= limit:
                break
            path = paths[place]
            try:
                data = path.read_bytes()
                open_image(data, path.name)
                found[place] = data
            except (UserError, OSError) as error:
                row = {"source": path.name, "reason": "unreadable image", "detail": str(error)}
                self.add({"counts": {row["reason"]: 1}, "listed": [row]})
        if not found:
            raise UserError(f"none of the {len(paths)} pictures can be read: {self.listed[0]['detail']}")
        return [found[place] for place in sorted(found)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"total": self.reasons.total(), "reasons": dict(self.reasons.most_common()), "listed": self.listed}


def refuse_shards(paths: Sequence[Path]) -> None:
    """Pictures without labels are read from files.

    Raises:
        UserError: a path is a parquet shard, or a folder that has shards and no pictures.
    """
    for path in paths:
        inside = path.rglob("*") if path.is_dir() else [path]
        suffixes = {file.suffix.lower() for file in inside if file.is_file()}
        if ".parquet" in suffixes and not suffixes & IMAGE_SUFFIXES:
            what = "holds parquet shards and no picture files" if path.is_dir() else "is a parquet shard"
            raise UserError(
                f"{path} {what}, and --unlabeled reads picture files: leave --unlabeled out if the captchas have "
                "labels, or name a folder of pictures"
            )


@dataclass
class Sample:
    """The captchas; `texts` is empty where nothing is labeled, `left_out` says what was and why."""

    name: str
    pictures: list[bytes]
    texts: list[str]
    left_out: LeftOut

    def split(self, most_labels: int, seed: int) -> tuple[list[int], list[int]]:
        """Places to measure on, and places to learn from, at random."""
        order = np.random.default_rng(seed).permutation(len(self.texts)).tolist()
        count = min(max(len(order) - most_labels, len(order) // 4, MIN_MEASURED), MAX_MEASURED)
        return order[:count], order[count:]
