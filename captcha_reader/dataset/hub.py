"""Stream labeled pictures from the Hugging Face Hub: nothing is stored but what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from captcha_reader.dataset.samples import Sample
from captcha_reader.dataset.shards import NO_STRINGS, find_columns, first_line
from captcha_reader.dataset.split import PSEUDO, SPLIT_NAMES
from captcha_reader.dataset.writer import MODEL, SOURCE_COLUMN
from captcha_reader.errors import UserError


def iter_hub(source: str) -> Iterator[Sample]:
    """Stream `hub:OWNER/NAME[:SPLIT]`, or `hub:FOLDER` through the same library; all splits where none is named.

    Raises:
        UserError: it cannot be reached, has no columns of pictures and labels, or labels that are no strings.
    """
    name, _, split = source.removeprefix("hub:").partition(":")
    import datasets

    try:
        if not Path(name).is_dir():
            from huggingface_hub import HfApi

            HfApi().dataset_info(name, timeout=10)  # load_dataset would try for minutes
        streams = datasets.load_dataset(name, streaming=True)
        if split and split not in streams:
            raise UserError(f"{source}: there is no split {split}, only {', '.join(streams)}: name one of these")
        for split_name in [split] if split else list(streams):
            yield from _iter_stream(streams[split_name], source, split_name)
    except (UserError, GeneratorExit):
        raise
    except Exception as error:  # the libraries below raise from httpx, fsspec, huggingface_hub and datasets
        raise UserError(
            f"{source} cannot be streamed from the Hugging Face Hub ({type(error).__name__}: {first_line(error)}): "
            "check the name and the network"
        ) from None


def _iter_stream(stream: Any, source: str, split: str) -> Iterator[Sample]:
    """The samples of one split, an `IterableDataset`."""
    import datasets

    where = f"{source} ({split})"
    names = list(stream.features or next(iter(stream), {}))
    image, text = find_columns(names, where)
    label = _label_reader((stream.features or {}).get(text), f"the column {text} of {where}")
    told = [SOURCE_COLUMN] if SOURCE_COLUMN in names else []
    stream = stream.select_columns([image, text, *told]).cast_column(image, datasets.Image(decode=False))
    for row, record in enumerate(stream):
        picture = record[image] or {"bytes": None, "path": None}
        data = picture["bytes"]
        if data is None and picture["path"]:
            import fsspec

            with fsspec.open(picture["path"]) as file:
                data = file.read()
        by_model = bool(told) and record[SOURCE_COLUMN] == MODEL
        place = PSEUDO if by_model else SPLIT_NAMES.get(split.lower())
        yield Sample(data or b"", label(record[text]), f"{source} {split} row {row}", place)


def _label_reader(feature: Any, where: str) -> Callable[[Any], str]:
    """How to make a label of a value: strings are labels, and so are the names of classes; numbers are none.

    Raises:
        UserError: the column has another type.
    """
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return lambda value: "" if value is None or value < 0 else str(feature.int2str(value))
    if feature is not None and not (isinstance(feature, datasets.Value) and "string" in str(feature.dtype)):
        raise UserError(f"{where} holds {getattr(feature, 'dtype', type(feature).__name__)}: {NO_STRINGS}")

    def read(value: Any) -> str:
        if value is not None and not isinstance(value, str):
            raise UserError(f"{where} holds {str(value)[:50]!r}, a {type(value).__name__}: {NO_STRINGS}")
        return value or ""

    return read
