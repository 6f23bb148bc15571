"""What a model reads in all pictures of a set, with what their texts have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from captcha_reader.images import open_image
from captcha_reader.reading.collection import Scheme, read_together
from captcha_reader.reading.constraints import Constraints
from captcha_reader.reading.prediction import Prediction, Predictor

CHUNK = 32  # pictures of one forward pass; between two, readings of others have their turn
MAX_WITH_VIEWS = 1000  # pictures: the views of more would take much memory, and the first of each tells enough


def read_set(
    predictor: Predictor,
    pictures: Sequence[Path],
    constraints: Constraints | None = None,
    on_chunk: Callable[[int], None] | None = None,
) -> tuple[list[Prediction], Scheme | None]:
    """Read all pictures of a set; what is not known of their texts is estimated from all readings.

    Args:
        predictor: the model.
        pictures: their files.
        constraints: what is known of the texts.
        on_chunk: is told how many have been read, before each chunk; what it raises ends the reading.

    Returns:
        One prediction a picture, and the estimate; None where characters and length are known.

    Raises:
        UserError: a picture cannot be read, or the model cannot write what is known.
    """
    known = constraints is not None and bool(constraints.characters and constraints.length)
    keep_views = not known and len(pictures) <= MAX_WITH_VIEWS
    found: list[Prediction] = []
    for start in range(0, len(pictures), CHUNK):
        if on_chunk:
            on_chunk(start)
        views = [predictor.view(open_image(path), path.name) for path in pictures[start : start + CHUNK]]
        found += predictor.read(views, keep_views, constraints)
    if known:
        return found, None
    together, scheme = read_together(found, constraints)
    return [dataclasses.replace(prediction, other_views=()) for prediction in together], scheme
