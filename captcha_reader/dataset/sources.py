"""The samples of a source of any kind: parquet shards, folders of pictures, the Hugging Face Hub."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from captcha_reader.dataset.folders import GENERATED
from captcha_reader.dataset.labels import LabelFile, label_from_name
from captcha_reader.dataset.samples import Reject, Sample
from captcha_reader.dataset.shards import Shard, find_columns, first_line
from captcha_reader.errors import UserError
from captcha_reader.files import ROOT
from captcha_reader.images import IMAGE_SUFFIXES

TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl")  # what other label files may be


def iter_source(source: str, limit: int | None = None) -> Iterator[Sample]:
    """Yield the samples of a source of any kind in a fixed order, reading as it goes.

    Args:
        source: path of a parquet file, of a folder of shards or pictures, of a picture, or `hub:OWNER/NAME[:SPLIT]`.
        limit: stop after this many.

    Yields:
        Samples with raw labels and unchecked pictures. Pictures that a labels.csv or labels.txt does not name, and
        names in there without a picture, are passed over.

    Raises:
        UserError: no such source, an unreadable parquet or label file, missing columns, or the Hub out of reach.
    """
    for item in iter_items(source, limit):
        if isinstance(item, Sample):
            yield item
        elif isinstance(item, Shard):
            for batch in item.batches():
                images = batch.column("image")
                columns = images.field("bytes"), batch.column("text"), images.field("path")
                yield from map(Sample, *(column.to_pylist() for column in columns))


def iter_items(source: str, limit: int | None = None, skip: Path | None = None) -> Iterator[Sample | Shard | Reject]:
    """Samples and shards, of at most `limit` rows in all, and rejects that are known before looking at the picture."""
    if source.startswith("hub:"):
        items = _iter_hub(source)
    elif (path := Path(source)).is_dir():
        items = _iter_folder(path, None, skip)
    elif path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        items = _iter_pictures([path], None)
    elif path.suffix.lower() == ".parquet" and path.is_file():
        items = iter([Shard.open(path)])
    elif path.exists():
        raise UserError(f"the source {source} is neither a folder nor a parquet file nor a picture: name one of these")
    else:
        raise UserError(f"there is no {source}: name a parquet file, a folder of shards or pictures, or hub:OWNER/NAME")
    seen = 0
    empty = True
    for item in items:
        if not isinstance(item, Reject):
            if limit is not None and seen >= limit:
                return
            rows = 1 if isinstance(item, Sample) else item.rows
            if not rows:
                continue
            if limit is not None and seen + rows > limit:
                rows = limit - seen
                item = replace(item, rows=rows)
            seen += rows
        empty = False
        yield item
    if empty:
        raise UserError(
            f"the source {source} holds no samples: it needs .parquet shards or PNG/JPEG/GIF/BMP/WebP/TIFF files"
        )


def list_folder(folder: Path) -> tuple[list[Path], list[Path], list[Path], list[Path]]:
    """Sub-folders, shards, pictures and tables (`TABLES`) that stand in `folder`, each sorted by name; hidden ones are
    left out, and what we generated, of which data/ has a folder."""
    folders, shards, pictures, tables = [], [], [], []
    own = GENERATED if folder.resolve() == ROOT / "data" else None
    with os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path per entry costs as much as the scan
            if entry.name.startswith(".") or entry.name == own:
                continue
            if entry.is_dir():
                folders.append(folder / entry.name)
            elif suffix == ".parquet":
                shards.append(folder / entry.name)
            elif suffix in IMAGE_SUFFIXES:
                pictures.append(folder / entry.name)
            elif suffix in TABLES and entry.is_file():
                tables.append(folder / entry.name)
    return sorted(folders), sorted(shards), sorted(pictures), sorted(tables)


def _iter_folder(folder: Path, labels: LabelFile | None, skip: Path | None) -> Iterator[Sample | Shard | Reject]:
    if skip is not None and folder.resolve() == skip:
        return
    folders, shards, pictures, tables = list_folder(folder)
    own = LabelFile.find(tables)
    labels = own or labels
    if shards:
        yield from map(Shard.open, shards)
    else:
        if not labels:
            _refuse_other_labels(tables, pictures)
        yield from _iter_pictures(pictures, labels)
    for sub_folder in folders:
        yield from _iter_folder(sub_folder, labels, skip)
    if own:
        yield from own.missing()


def _refuse_other_labels(tables: Sequence[Path], pictures: Sequence[Path]) -> None:
    """A table that names the pictures beside it has their labels, probably; numbers in file names would pass for them.

    Raises:
        UserError: there is one.
    """
    for path in tables:
        with contextlib.suppress(OSError), path.open("rb") as file:
            start = file.read(1 << 20)
            if any(os.fsencode(picture.name) in start for picture in pictures[:10]):
                raise UserError(
                    f"{path} names the pictures beside it, but labels are read from labels.csv or labels.txt: give it "
                    "that name and the columns filename,label, or take it away if the file names are the labels"
                )


def _iter_pictures(paths: Sequence[Path], labels: LabelFile | None) -> Iterator[Sample | Reject]:
    for path in paths:
        if any("\ud800" <= character <= "\udfff" for character in str(path)):  # surrogates stand for foreign bytes
            yield Reject(ascii(str(path)), "file name is not UTF-8", "rename it")
            continue
        text = labels.take(path) if labels else label_from_name(path.name)
        if text is None:
            yield Reject(str(path), "not in the label file", f"{labels.path} does not name it")
            continue
        try:
            image = path.read_bytes()
        except OSError as error:
            yield Reject(str(path), "unreadable image", error.strerror or str(error))
            continue
        yield Sample(image, text, str(path))


def _iter_hub(source: str) -> Iterator[Sample]:
    """Stream `hub:OWNER/NAME[:SPLIT]`, or `hub:FOLDER` through the same library; all splits where none is named."""
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
            stream = streams[split_name]
            names = list(stream.features or next(iter(stream), {}))
            image, text = find_columns(names, f"{source} ({split_name})")
            stream = stream.select_columns([image, text]).cast_column(image, datasets.Image(decode=False))
            for row, record in enumerate(stream):
                picture = record[image]
                data = picture["bytes"]
                if data is None and picture["path"]:
                    import fsspec

                    with fsspec.open(picture["path"]) as file:
                        data = file.read()
                yield Sample(data or b"", str(record[text] or ""), f"{source} {split_name} row {row}")
    except (UserError, GeneratorExit):
        raise
    except Exception as error:  # the libraries below raise from httpx, fsspec, huggingface_hub and datasets
        raise UserError(
            f"{source} cannot be streamed from the Hugging Face Hub ({type(error).__name__}: {first_line(error)}): "
            "check the name and the network"
        ) from None
