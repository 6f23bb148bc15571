"""What one model reads in every picture of a set, kept in a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from captcha_reader.files import write_text


@dataclass
class Readings:
    """What one model reads in every picture of the set, in the set's order."""

    model: str
    labels: int  # that the model learned from
    texts: list[str]
    confidences: np.ndarray
    char_confidences: list[list[float]]
    features: np.ndarray
    number: int = 0  # of the model, by the name of its file; answers name it

    def save(self, path: Path) -> None:
        chars = [[round(p, 4) for p in row] for row in self.char_confidences]
        data = {"model": self.model, "labels": self.labels, "texts": self.texts, "char_confidences": chars}
        data |= {"confidences": self.confidences.round(5).tolist(), "features": self.features.round(3).tolist()}
        write_text(path, json.dumps(data, ensure_ascii=False))

    @classmethod
    def load(cls, path: Path, count: int, number: int) -> Readings | None:
        """None where the file is damaged: readings can be made again."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            loaded = cls(
                str(data["model"]),
                int(data["labels"]),
                [str(text) for text in data["texts"]],
                np.array(data["confidences"], np.float32),
                data["char_confidences"],
                np.array(data["features"], np.float32),
                number,
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sizes = {len(loaded.texts), len(loaded.confidences), len(loaded.char_confidences), len(loaded.features)}
        return loaded if sizes == {count} else None
