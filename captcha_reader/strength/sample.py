"""The captchas that are measured, and what was left out of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from captcha_reader.errors import UserError
from captcha_reader.images import open_image
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

    def readable(self, paths: Sequence[Path], limit: int | None) -> list[bytes]:
        """The pictures that can be read, as files, at most `limit`; the others are added.

        Raises:
            UserError: there is none.
        """
        found: list[bytes] = []
        for path in paths:
            if limit is not None and len(found) >= limit:
                break
            try:
                data = path.read_bytes()
                open_image(data, path.name)
                found.append(data)
            except (UserError, OSError) as error:
                row = {"source": path.name, "reason": "unreadable image", "detail": str(error)}
                self.add({"counts": {row["reason"]: 1}, "listed": [row]})
        if not found:
            raise UserError(f"none of the {len(paths)} pictures can be read: {self.listed[0]['detail']}")
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"total": self.reasons.total(), "reasons": dict(self.reasons.most_common()), "listed": self.listed}


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
