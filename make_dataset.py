"""Bring captchas from anywhere into one clean, split dataset.

    python make_dataset.py my_captchas/ --out data/dataset                # pictures named by their labels
    python make_dataset.py shards/ more.parquet --split 70/0/30 --seed 1  # parquet shards
    python make_dataset.py hub:hammer888/captcha-data:train --limit 50000 # streamed from the Hugging Face Hub
    python make_dataset.py shards/ --merge true --out all.parquet              # only put shards together

Sources, each documented with an example in data/README.md:

- a parquet file, or a folder of shards: a column `image` (struct of `bytes` and `path`, or plain binary) and a column
  `text`, `label` or `caption` of strings. Pictures that lie beside shards in the same folder are not read.
- a folder of PNG, JPEG, GIF, BMP, WebP or TIFF pictures and its sub-folders. The label comes from `labels.csv` or
  `labels.txt` where one stands in the folder or above, else from the file name: up to the first `_`, and without a
  trailing `-12` or ` (1)`. Kaggle's sets work by these rules:
  `large-captcha-dataset` (`Large_Captcha_Dataset/4q2wA.png`), `captcha-dataset` (`00Tkc.jpg` in one folder),
  `captcha-images` (`captcha_images/aZ81k.png`), `captcha-version-2-images` (`samples/2b827.png`, some `.jpg`, and
  `samples/samples/` with all of them once more, dropped as duplicates) and `comprasnet-captchas`
  (`comprasnet_imagensacerto/a1b2c3.png`, also with `_<time or hash>` behind the label).
- `hub:OWNER/NAME` or `hub:OWNER/NAME:SPLIT`: streamed from the Hugging Face Hub, nothing is stored but the result.
- a folder that this script made: all its splits, to split them anew.

Captions such as `a low resolution captcha image with the text HhJ4` (hammer888/captcha-data) give `HhJ4`.

What comes out is a folder of parquet shards that `datasets.load_dataset(DIR)` reads, `dataset.json`, which says what
was kept and what was left out and why, and `rejects.jsonl` with every reject, one a line (dataset.json holds the first
1,000). Two pictures with the same pixels are one picture, whatever the format of their files: the first is kept, and
the split is decided by the pixels and the seed alone. Pictures are never re-encoded.

With `--check bytes` the pictures are trusted: only the header is looked at, and two pictures are one if their files are
the same, byte for byte. That is for what a program has just written.

How: the first pass reads, checks and hashes the samples in several processes, each of which opens the shards itself;
33 bytes per sample stay in memory, about 100 while they are sorted. Sorting finds the duplicates and decides the split;
the second pass reads the shards again and sorts the rows into those of the splits. Only what cannot be read twice or in
pieces, such as a stream, goes through a temporary file. Everything is built in a hidden folder beside `out`, which then
takes its place. A dataset that stands there is replaced if it was made of the same sources, or some of them, else only
with `--overwrite`.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from pathlib import Path, PurePath
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from captcha_reader.cli import parse_config, run
from captcha_reader.config import DatasetConfig
from captcha_reader.errors import UserError
from captcha_reader.files import COPIES, ROOT, available_cores, lock_file, write_atomically
from captcha_reader.images import IMAGE_SUFFIXES, LABEL_FILES, check_header, open_image
from captcha_reader.text import Alphabet

SPLITS = ("train", "validation", "test")
INFO_NAME = "dataset.json"
REJECTS_NAME = "rejects.jsonl"
FORMAT = "captcha-dataset-1"
GENERATED, FEEDBACK = "generated", "feedback"  # the folders below data/ for what we draw, and for corrected readings
COPY = "duplicate image"  # with the same label: why a sample is left out
CONTRADICTION = "duplicate image, other label"
TEXT_COLUMNS = ("text", "label", "caption")
TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl")  # what other label files may be
LISTED_REJECTS = 1000
UNUSED, DUPLICATE, REJECTED = -1, -2, -3  # rows of no split
KEY = "S16"  # NumPy's type for hashes: they sort as bytes do, and trailing zeros make no two of them equal
FOLDERS = rf"(?s)^.*[/{re.escape(os.sep)}]"  # of a path

FEATURES = {"image": {"_type": "Image"}, "text": {"dtype": "string", "_type": "Value"}}
SCHEMA = pa.schema(
    {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "text": pa.string()},
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)

CHUNK_ROWS = 1024
CHUNK_BYTES = 8 << 20
PART_ROWS = 2048  # what a process is given at a time
LARGE_GROUP_ROWS = 4 * PART_ROWS  # a row group is read from its start: a larger one would keep a single process busy
ROW_GROUP_ROWS = 1000  # small enough for random access by the Hub's viewer and for flat memory
ROW_GROUP_BYTES = 32 << 20
ROWS_BEFORE_POOL = 4096  # below this, starting processes takes longer than checking the pictures right here


@dataclass(frozen=True)
class Sample:
    """One labelled picture of a source, unchecked.

    Attributes:
        image: the picture file's bytes.
        text: the label as the source has it; `parse_label` cleans it.
        source: where it stands: a file's path, or a shard's path and the row, counted from 0.
    """

    image: bytes
    text: str
    source: str


@dataclass(frozen=True)
class Reject:
    """A sample left out: where it stands, the reason (one of a few, countable), and what exactly is wrong with it."""

    source: str
    reason: str
    detail: str = ""


# ---------------------------------------------------------------------------------------------------------- sources


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
    for item in _iter_items(source, limit):
        if isinstance(item, Sample):
            yield item
        elif isinstance(item, Shard):
            for batch in item.batches():
                images = batch.column("image")
                columns = images.field("bytes"), batch.column("text"), images.field("path")
                yield from map(Sample, *(column.to_pylist() for column in columns))


def parse_label(text: str) -> str:
    """The label in a raw text: white space around it goes, and a caption gives what stands behind `with the text`.

    Returns:
        The label; empty where there is none, such as for a caption that ends too early.
    """
    text = text.strip()
    if caption := CAPTION.match(text):
        text = caption["label"].strip()
        for opening, closing in ('""', "''", "``", "“”", "‘’"):
            if len(text) >= 2 and text[0] == opening and text[-1] == closing:
                return text[1:-1].strip()
    return text


CAPTION = re.compile(r"[\"']?an?\b.{0,80}\bcaptcha\b.{0,80}\bwith the text\b:?(?P<label>.*)", re.IGNORECASE | re.DOTALL)


def label_from_name(name: str) -> str:
    """The label in a picture's file name: `aB3x_0.png`, `aB3x-12.png`, `aB3x (1).png` and `aB3x.png` give `aB3x`."""
    stem = Path(name).stem
    if "_" in stem:
        return stem.partition("_")[0]
    return re.sub(r"(-\d+| \(\d+\))$", "", stem)


def _iter_items(source: str, limit: int | None = None, skip: Path | None = None) -> Iterator[Sample | Shard | Reject]:
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


def _list(folder: Path) -> tuple[list[Path], list[Path], list[Path], list[Path]]:
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
    folders, shards, pictures, tables = _list(folder)
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


class LabelFile:
    """labels.csv or labels.txt: names of pictures, relative to its folder and with or without suffix, and labels.

    Args:
        path: of the file; it says of which kind it is.
        data: its bytes, where it is not on the disk.

    Raises:
        UserError: it cannot be read, has lines that are none of a label file, or gives a picture two labels.
    """

    def __init__(self, path: PurePath, data: bytes | None = None) -> None:
        self.path = path
        self.labels: dict[str, str] = {}
        self.unused: set[str] = set()
        try:
            text = (Path(path).read_bytes() if data is None else data).decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path} cannot be read as UTF-8 text ({error}): save it as UTF-8") from None
        rows = self._csv(text) if path.suffix.lower() == ".csv" else self._txt(text)
        for line, name, label in rows:
            name = name.strip().replace("\\", "/").removeprefix("./")
            if self.labels.setdefault(name, label) != label:
                raise UserError(
                    f"line {line} of {path} gives {name} the label {label!r}, which had {self.labels[name]!r} before: "
                    "keep one of the two"
                )
        self.unused = set(self.labels)

    @classmethod
    def find(cls, tables: Sequence[Path]) -> LabelFile | None:
        """The label file among the tables of a folder, its name in capitals or not."""
        found = [path for path in tables if path.name.lower() in LABEL_FILES]
        if len(found) > 1:
            raise UserError(f"{found[0].parent} has both {found[0].name} and {found[1].name}: remove one of them")
        return cls(found[0]) if found else None

    def take(self, picture: PurePath) -> str | None:
        """The label of a picture below this file's folder, or None."""
        name = picture.relative_to(self.path.parent).as_posix()
        for key in (name, name.removesuffix(picture.suffix)):
            if key in self.labels:
                self.unused.discard(key)
                return self.labels[key]
        return None

    def missing(self) -> Iterator[Reject]:
        """The entries that no picture has asked for."""
        for name in sorted(self.unused):
            yield Reject(f"{self.path}: {name}", "missing image file", f"no such picture in {self.path.parent}")

    def _csv(self, text: str) -> Iterator[tuple[int, str, str]]:
        first = next(iter(text.splitlines()), "")
        delimiter = next((d for d in ",;\t" if d in first), ",")
        names, label_at, width = 0, 1, 2
        try:
            reader = csv.reader(text.splitlines(), delimiter=delimiter)
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                if reader.line_num == 1 and (columns := _header(row)):
                    (names, label_at), width = columns, len(row)
                    continue
                if not max(names, label_at) < len(row) <= width:
                    raise UserError(
                        f"line {reader.line_num} of {self.path} has {len(row)} columns, not {width}: put a name or "
                        "label with a comma into quotes, and other columns under a header such as filename,label,who"
                    )
                yield reader.line_num, row[names], row[label_at]
        except csv.Error as error:
            raise UserError(f"{self.path} is not proper CSV ({error}): correct line {reader.line_num}") from None

    def _txt(self, text: str) -> Iterator[tuple[int, str, str]]:
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            # A name may hold spaces, so its suffix ends it where there is one.
            ends = r"\s*(.+?\.(?:png|jpe?g|gif|bmp|webp|tiff?))(?:[\s,]+(.*))?$"
            match = re.match(ends, line, re.IGNORECASE) or re.match(r"\s*([^\s,]+)(?:[\s,]+(.*))?$", line)
            if not match:
                raise UserError(f"line {number} of {self.path} is not `name label`: {line[:80]!r}")
            yield number, match[1], match[2] or ""


def _header(row: Sequence[str]) -> tuple[int, int] | None:
    """Positions of the name and label columns where `row` is a header."""
    cells = [cell.strip().lower() for cell in row]
    name = next((i for n in ("filename", "file_name", "file", "image", "path", "name") for i in _at(cells, n)), None)
    label = next((i for n in (*TEXT_COLUMNS, "labels") for i in _at(cells, n)), None)
    return None if name is None or label is None else (name, label)


def _at(cells: Sequence[str], name: str) -> list[int]:
    return [cells.index(name)] if name in cells else []


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        # A buffer and no pre-buffering: else a row group, which may be the whole file, would be read at once.
        return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable parquet file ({_first_line(error)}): replace or remove it") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:200]


def _columns(names: Sequence[str], where: str) -> tuple[str, str]:
    """Names of the image and the label column."""
    text = next((name for name in TEXT_COLUMNS if name in names), None)
    if "image" not in names or text is None:
        raise UserError(
            f"{where} has the columns {', '.join(names) or '(none)'}: name the pictures' column `image` and the "
            "labels' column `text`, `label` or `caption`"
        )
    return "image", text


@dataclass(frozen=True)
class Shard:
    """Rows of a parquet file from the start of a row group on, which any process can read by itself.

    Attributes:
        path: the file.
        image: name of the pictures' column, `image.bytes` where they stand in a struct.
        text: name of the labels' column.
        stamp: size and time of the file, by which a change is noticed.
        first_group: number of the first row group.
        group_rows: rows of each row group from there on.
        start: number of the first row.
        rows: how many there are.
    """

    path: Path
    image: str
    text: str
    stamp: tuple[int, int]
    first_group: int
    group_rows: tuple[int, ...]
    start: int
    rows: int

    @classmethod
    def open(cls, path: Path) -> Shard:
        """All rows of a file.

        Raises:
            UserError: it cannot be read or has not the columns that are needed.
        """
        stamp = _stamp(path)
        with _open_parquet(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
        image, text = _columns(schema.names, str(path))
        image_type, text_type = schema.field(image).type, schema.field(text).type
        binary = image_type
        if pa.types.is_struct(image_type) and "bytes" in [field.name for field in image_type]:
            binary = image_type.field("bytes").type
            image = "image.bytes"
        if not (pa.types.is_binary(binary) or pa.types.is_large_binary(binary)):
            raise UserError(f"the column image of {path} holds {image_type}: it must hold the bytes of picture files")
        if pa.types.is_dictionary(text_type):
            text_type = text_type.value_type
        if not (pa.types.is_string(text_type) or pa.types.is_large_string(text_type) or pa.types.is_null(text_type)):
            raise UserError(
                f"the column {text} of {path} holds {text_type}: store labels as strings (numbers lose zeros)"
            )
        groups = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
        return cls(path, image, text, stamp, 0, groups, 0, metadata.num_rows)

    def parts(self) -> Iterator[Shard]:
        """Cut at the ends of row groups, so that each part has about PART_ROWS rows."""
        first = start = rows = 0
        for last, count in enumerate(self.group_rows):
            rows = min(rows + count, self.rows - start)
            if rows >= PART_ROWS or (rows and start + rows == self.rows):
                groups = self.group_rows[first : last + 1]
                yield replace(self, first_group=first, group_rows=groups, start=start, rows=rows)
                first, start, rows = last + 1, start + rows, 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, a few at a time, in the columns of SCHEMA without nulls; `path` is the file and the row.

        Raises:
            UserError: the file is broken, or has changed since `open`.
        """
        groups = range(self.first_group, self.first_group + len(self.group_rows))
        row, end = self.start, self.start + self.rows
        with _open_parquet(self.path) as file:
            size = sum(file.metadata.row_group(group).total_byte_size for group in groups)
            chunk_rows = max(1, min(CHUNK_ROWS, CHUNK_BYTES * sum(self.group_rows) // max(size, 1)))
            columns = [self.image, self.text]
            for batch in _read_batches(
                file, self.path, row, batch_size=chunk_rows, row_groups=groups, columns=columns, use_threads=False
            ):
                batch = batch.slice(0, end - row)
                images, texts = batch.column("image"), batch.column(self.text)
                images = images.field("bytes") if self.image == "image.bytes" else images
                images, texts = images.cast(pa.binary()), texts.cast(pa.string())
                try:
                    texts.validate(full=True)
                except pa.ArrowException:
                    where = f"rows {row} to {row + batch.num_rows - 1} of {self.path}"
                    raise UserError(f"{where} hold a label that is not UTF-8: save the labels as UTF-8") from None
                numbers = pa.array(range(row, row + batch.num_rows)).cast(pa.string())
                yield _record_batch(  # fill_null copies even where there is nothing to fill
                    images.fill_null(b"") if images.null_count else images,
                    pc.binary_join_element_wise(f"{self.path} row", numbers, " "),
                    texts.fill_null("") if texts.null_count else texts,
                )
                row += batch.num_rows
                if row == end:
                    break
        if _stamp(self.path) != self.stamp:
            raise UserError(f"{self.path} has changed while it was read: start again when nothing writes to it")


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _record_batch(images: pa.Array, paths: pa.Array, texts: pa.Array) -> pa.RecordBatch:
    return pa.record_batch([pa.StructArray.from_arrays([images, paths], ["bytes", "path"]), texts], schema=SCHEMA)


def _read_batches(file: pq.ParquetFile, path: Path, row: int = 0, **settings: Any) -> Iterator[pa.RecordBatch]:
    """The rows of a shard, a few at a time; `row` is the number of the first, `settings` are those of iter_batches."""
    batches = file.iter_batches(**{"batch_size": ROW_GROUP_ROWS // 4} | settings)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} is broken after row {row} ({_first_line(error)}): replace or remove it") from None
        if batch is None:
            return
        yield batch
        row += batch.num_rows


@dataclass(frozen=True)
class Spilled:
    """Rows in the temporary file: a message of Arrow's, in the columns of SCHEMA."""

    file: Path
    offset: int
    size: int
    rows: int

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All of them at once."""
        with self.file.open("rb") as file:
            file.seek(self.offset)
            yield pa.ipc.read_record_batch(pa.py_buffer(file.read(self.size)), SCHEMA)


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
            image, text = _columns(names, f"{source} ({split_name})")
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
            f"{source} cannot be streamed from the Hugging Face Hub ({type(error).__name__}: {_first_line(error)}): "
            "check the name and the network"
        ) from None


# -------------------------------------------------------------------------------------------------- checks and hashes


def content_hash(image: Image.Image) -> bytes:
    """16 bytes that stand for the width, the height and the pixels of an RGB image."""
    digest = blake2b(f"{image.width}x{image.height}:".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


@dataclass(frozen=True)
class Checked:
    """What the first pass finds in a part.

    Attributes:
        good: for each row a byte, 1 if it can be used.
        keys: for each good row 16 bytes that stand for the picture.
        marks: for each good row 16 bytes that stand for the picture and its label.
        rejects: the other rows.
    """

    good: bytes
    keys: bytes
    marks: bytes
    rejects: list[Reject]


def _check(part: Shard | Spilled, config: DatasetConfig) -> Checked:
    good, keys, marks, rejects = bytearray(), bytearray(), bytearray(), []
    for batch in part.batches():
        images = batch.column("image")
        labels, faults = _clean_labels(batch.column("text").to_pylist(), config)
        for row, (data, label) in enumerate(zip(images.field("bytes").to_pylist(), labels, strict=True)):
            fault = faults.get(row)
            if fault is None:
                try:
                    key = _file_hash(data) if config.check == "bytes" else content_hash(open_image(data))
                except UserError as error:
                    fault = "unreadable image", str(error)
            good.append(fault is None)
            if fault:
                rejects.append(Reject(images.field("path")[row].as_py(), *fault))
                continue
            keys += key
            marks += blake2b(key + label.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return Checked(bytes(good), bytes(keys), bytes(marks), rejects)


def _file_hash(data: bytes) -> bytes:
    """16 bytes that stand for the bytes of a picture file, of which only the header is looked at."""
    check_header(data)
    return sha256(data).digest()[:16]  # SHA-2 has instructions of its own in most processors, so it beats BLAKE2


def _clean_labels(texts: list[str], config: DatasetConfig) -> tuple[list[str], dict[int, tuple[str, str]]]:
    """The labels in raw texts, and what is wrong with some of them: their positions, reasons and details."""
    alphabet = None if config.alphabet is None else Alphabet.parse(config.alphabet)
    # Most batches are good as they are. A caption holds spaces, so every label is as `parse_label` would give it.
    characters = set("".join(texts))
    if (
        all(texts)
        and max(map(len, texts)) <= config.max_length
        and not any(label_fault(character, character, alphabet, 1) for character in characters)
    ):
        return texts, {}
    labels = [parse_label(text) for text in texts]
    faults = {}
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if fault := label_fault(text, label, alphabet, config.max_length):
            faults[row] = fault
    return labels, faults


def _start_worker() -> None:
    """Let Ctrl-C be the main process's business, and end when that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _checked(parts: Iterable[Shard | Spilled], config: DatasetConfig) -> Iterator[tuple[Shard | Spilled, Checked]]:
    """Pair each part with what is found in it, in order, with a bounded number of parts in flight."""
    workers = available_cores() if config.workers is None else config.workers
    check = functools.partial(_check, config=config)
    parts = iter(parts)
    rows = 0
    for part in parts:
        yield part, check(part)
        rows += part.rows
        if workers > 1 and rows >= ROWS_BEFORE_POOL:
            break
    else:
        return
    # Processes, since Pillow holds the GIL for half of the time that a small picture takes. Spawned, since a fork of a
    # process with threads (pyarrow's, torch's) may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    pending: deque[tuple[Shard | Spilled, Future[Checked]]] = deque()
    try:
        for part in parts:
            pending.append((part, pool.submit(check, part)))
            if len(pending) > 2 * workers:
                part, future = pending.popleft()
                yield part, future.result()
        while pending:
            part, future = pending.popleft()
            yield part, future.result()
    except BrokenProcessPool:
        raise UserError(
            "a process that checks pictures has died: use --workers 1, and call make_dataset from a script only under "
            '`if __name__ == "__main__":`'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


class _Rejects:
    """Writes every reject to rejects.jsonl, counts them by reason and remembers the first 1,000."""

    def __init__(self, file: IO[str]) -> None:
        self.counts: Counter[str] = Counter()
        self.listed: list[dict[str, str]] = []
        self._file = file

    def add(self, reject: Reject) -> None:
        entry = {"source": reject.source, "reason": reject.reason, "detail": reject.detail}
        self.counts[reject.reason] += 1
        if len(self.listed) < LISTED_REJECTS:
            self.listed.append(entry)
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")

    def summary(self) -> str:
        return ", ".join(f"{count:,} {reason}" for reason, count in self.counts.most_common()) or "none"


def label_fault(raw: str, label: str, alphabet: Alphabet | None, max_length: int) -> tuple[str, str] | None:
    """Reason and detail where a label, cleaned from the text `raw`, cannot be used; None where it can."""
    if not label:
        return ("caption without a label", f"the text is {raw[:200]!r}") if raw.strip() else ("empty label", "")
    if len(label) > max_length:
        return "label too long", f"{label[:200]!r} has {len(label)} characters, more than {max_length}"
    for character in label:
        if not (character in alphabet if alphabet else character.isprintable() and not character.isspace()):
            return "character outside the alphabet", f"{character!r} in {label!r}"
    return None


# -------------------------------------------------------------------------------------------------------------- split


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


def _kept_rows(keys: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """For each of N rows the one that is kept of its picture, (N,) int64: the first with the label most copies have.

    Where equally many have each label, the first row's is kept. `keys` stand for pictures, `marks` for these with their
    labels, both of type KEY.
    """
    first, same = _first_rows(keys), _first_rows(marks)
    if np.array_equal(same, same[first]):  # no label contradicts another
        return first
    votes = np.bincount(same)[same]
    order = np.lexsort((-votes, first))  # by picture, then votes; equal ones stay in the order of the rows
    pictures, starts = np.unique(first[order], return_index=True)
    kept = np.empty_like(first)
    kept[pictures] = order[starts]
    return kept[first]


def _assign(keys: np.ndarray, split: str, seed: int) -> np.ndarray:
    """The split of each of N different pictures, (N,) of type KEY: an index into SPLITS or UNUSED, (N,) int8.

    Pictures are ranked by a hash of their content hash, keyed by the seed; the lowest are the test split. So a picture
    keeps its split whatever the order of the rows, and changing the share of validation does not touch the test split.
    """
    train, validation, test = _split_counts(split, len(keys))
    secret = blake2b(str(seed).encode()).digest()
    content = memoryview(keys.view(np.uint8))
    ranks = bytearray()
    for start in range(0, len(content), 16):
        ranks += blake2b(content[start : start + 16], digest_size=16, key=secret).digest()
    order = np.argsort(np.frombuffer(ranks, KEY), kind="stable")
    assigned = np.full(len(keys), UNUSED, dtype=np.int8)
    assigned[order[:test]] = 2
    assigned[order[test : test + validation]] = 1
    assigned[order[test + validation : test + validation + train]] = 0
    return assigned


# ------------------------------------------------------------------------------------------------------------- output


class _ShardWriter:
    """Writes one split's rows as shards `train-00000-of-00002.parquet` of `shard_size` rows, the last one smaller."""

    def __init__(self, folder: Path, split: str, total: int, shard_size: int) -> None:
        self._folder, self._split, self._left, self._shard_size = folder, split, total, shard_size
        self._shards = -(-total // shard_size)
        self._number = 0
        self._room = 0
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            if self._writer is None:
                name = f"{self._split}-{self._number:05d}-of-{self._shards:05d}.parquet"
                self._writer = _parquet_writer(self._folder / name, SCHEMA)
                self._number += 1
                self._room = min(self._shard_size, self._left)
            part, batch = batch.slice(0, self._room), batch.slice(self._room)
            self._room -= part.num_rows
            self._left -= part.num_rows
            self._pending.append(part)
            self._rows += part.num_rows
            self._bytes += part.nbytes
            if self._rows >= ROW_GROUP_ROWS or self._bytes >= ROW_GROUP_BYTES or not self._room:
                self._writer.write_table(pa.Table.from_batches(self._pending, SCHEMA))
                self._pending, self._rows, self._bytes = [], 0, 0
            if not self._room:
                self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _parquet_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Picture files are compressed already: compressing, dictionaries and statistics would only cost time.
    return pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, write_statistics=False)


def _to_batch(rows: Sequence[Sample]) -> pa.RecordBatch:
    return _record_batch(
        pa.array([row.image for row in rows], pa.binary()),
        pa.array([row.source for row in rows], pa.string()),
        pa.array([row.text for row in rows], pa.string()),
    )


def found_in(folder: Path) -> list[Path]:
    """What the user has put into data/: everything but the README, hidden files and what we generated. Readings that
    were corrected on the page are part of it, but no data of their own: one may be there by the way."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    found = [p for p in entries if p.name not in {"README.md", GENERATED} and not p.name.startswith(".")]
    return [] if [p.name for p in found] == [FEEDBACK] else found


def is_dataset(folder: str | Path) -> bool:
    """Whether `make_dataset` made this folder."""
    try:
        load_info(folder)
    except UserError:
        return False
    return True


def load_info(folder: str | Path) -> dict[str, Any]:
    """What the `dataset.json` of a folder made by `make_dataset` holds.

    Raises:
        UserError: `folder` is no such folder.
    """
    path = Path(folder) / INFO_NAME
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if info["format"] != FORMAT:
            raise ValueError(info["format"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder} is not a dataset (no valid {INFO_NAME}): make one with make_dataset.py") from None
    return info


def make_dataset(config: DatasetConfig) -> dict[str, Any]:
    """Check, deduplicate, split and write the samples of all sources into the folder `config.out`.

    Args:
        config: see `DatasetConfig`; `merge` is not looked at.

    Returns:
        What `dataset.json` holds: `format`, `sources`, `split`, `seed`, `counts` (pictures per split), `unused`
        (pictures beyond the counts of an absolute split), `alphabet` (sorted characters of the labels kept),
        `max_length` (longest label kept), `lengths` (length -> number of labels), `read` (samples looked at),
        `settings` (`alphabet`, `check`, `max_length` and `limit` as configured), `rejects` (`total`, `counts` by
        reason, `listed`: the first 1,000 as source, reason and detail) and `fingerprint` (32 hex digits over pictures,
        labels, split and seed, whatever their order).

    Raises:
        UserError: a source cannot be read, nothing is left of it, the settings make no sense, or `out` holds something
            that is no dataset, or one of other sources, or is itself a source that would lose pictures.
    """
    for name, least in (("max_length", 1), ("limit", 1), ("shard_size", 1), ("workers", 1)):
        value = getattr(config, name)
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}: it must be {least} or more")
    parse_split(config.split)
    if config.alphabet is not None:
        Alphabet.parse(config.alphabet)
    if not config.sources:
        raise UserError("there are no sources: name a parquet file, a folder of shards or pictures, or hub:OWNER/NAME")
    out = Path(config.out).absolute()
    in_place = out.resolve() in [Path(source).resolve() for source in config.sources] and is_dataset(out)
    loses = UserError(f"{out} is a source and would lose pictures: choose another --out")
    if in_place and config.limit is not None:  # before hours of reading
        raise loses
    if not in_place and not config.overwrite:
        _refuse_other_sources(out, config.sources)
    try:
        with _replacing(out) as building:
            info = _build(config, building, out.resolve())
            lost = info["unused"] + sum(n for why, n in info["rejects"]["counts"].items() if why != COPY)
            if in_place and lost:
                raise loses
            return info
    except OSError as error:
        where = error.filename or out
        raise UserError(f"{where} cannot be read or written ({error.strerror or _first_line(error)})") from error


def _refuse_other_sources(out: Path, sources: Sequence[str]) -> None:
    """What was made of sources that are not among these cannot be made again from them.

    Raises:
        UserError: `out` holds such a dataset.
    """
    if is_dataset(out) and (others := sorted(set(load_info(out)["sources"]) - set(sources))):
        raise UserError(
            f"{out} holds a dataset made of {', '.join(others)}: choose another --out, or --overwrite to replace it"
        )


@contextlib.contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A hidden folder beside `out` to build in, which takes the place of `out` if all goes well."""
    building, old = out.with_name(f".{out.name}.building"), out.with_name(f".{out.name}.old")
    _refuse_foreign(out)
    building.parent.mkdir(parents=True, exist_ok=True)
    lock_path = out.with_name(f".{out.name}.lock")
    with lock_path.open("w") as lock:
        if not lock_file(lock):
            raise UserError(f"another make_dataset.py is writing {out}: wait for it or choose another --out")
        try:
            if old.exists() and not out.exists():  # a kill between the two renames below
                old.rename(out)
            shutil.rmtree(building, ignore_errors=True)  # left by a kill
            building.mkdir()
            yield building
            _refuse_foreign(out)
            shutil.rmtree(old, ignore_errors=True)
            if out.exists():
                out.rename(old)
            building.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(building, ignore_errors=True)
            with contextlib.suppress(PermissionError):  # Windows removes no open file
                lock_path.unlink(missing_ok=True)


OUR_FILES = re.compile(rf"({'|'.join(SPLITS)})-\d{{5,}}-of-\d{{5,}}\.parquet|{INFO_NAME}|{REJECTS_NAME}")


def _holds_copies(path: Path) -> bool:
    """Whether this is the hidden folder of copies that reading a dataset leaves in it, with nothing else there."""
    return path.name == COPIES.parts[0] and path.is_dir() and [p.name for p in path.iterdir()] == [COPIES.parts[1]]


def _refuse_foreign(out: Path) -> None:
    """Only a folder that holds nothing but what this script writes may be replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: choose another --out")
    names = sorted(path.name for path in out.iterdir())
    foreign = [name for name in names if not OUR_FILES.fullmatch(name) and not _holds_copies(out / name)]
    if foreign or (names and not is_dataset(out)):
        what = f"holds {foreign[0]}" if foreign else f"has no valid {INFO_NAME}"
        raise UserError(f"{out} {what}, so it is not a dataset to replace: choose another --out or empty the folder")


def _build(config: DatasetConfig, building: Path, out: Path) -> dict[str, Any]:
    parts: list[Shard | Spilled] = []
    good, keys, marks = bytearray(), bytearray(), bytearray()  # as in Checked
    unsplit = building / "unsplit.arrow"
    with (building / REJECTS_NAME).open("w", encoding="utf-8") as rejects_file:
        rejects = _Rejects(rejects_file)
        total = _count_rows(config.sources, config.limit)
        with tqdm(total=total, unit=" pictures", desc="checking", disable=None) as bar:
            for part, checked in _checked(_iter_parts(config, unsplit, out, rejects), config):
                parts.append(part)
                good += checked.good
                keys += checked.keys
                marks += checked.marks
                for reject in checked.rejects:
                    rejects.add(reject)
                bar.update(part.rows)
        read = sum(good) + rejects.counts.total()

        if not keys:
            raise UserError(f"no usable sample in {', '.join(config.sources)}; left out: {rejects.summary()}")
        rows = np.flatnonzero(np.frombuffer(good, dtype=np.uint8))
        key_array = np.frombuffer(keys, KEY)
        kept = _kept_rows(key_array, np.frombuffer(marks, KEY))
        is_kept = kept == np.arange(len(kept))
        assigned = np.full(len(good), REJECTED, dtype=np.int8)
        assigned[rows] = DUPLICATE
        assigned[rows[is_kept]] = _assign(key_array[is_kept], config.split, config.seed)
        counts = [int((assigned == i).sum()) for i in range(len(SPLITS))]
        originals = dict(zip(rows[~is_kept].tolist(), rows[kept[~is_kept]].tolist(), strict=True))
        lengths, characters = _route(parts, building, assigned, originals, counts, config, rejects)
        unsplit.unlink()
    if not rejects.counts:
        (building / REJECTS_NAME).unlink()

    mark_array = np.sort(np.frombuffer(marks, KEY)[assigned[rows] >= 0])
    numbers, percent = parse_split(config.split)
    # Pixels and bytes give other keys anyway; named all the same, so that no two recipes look alike.
    how = [] if config.check == "pixels" else [config.check]
    recipe = json.dumps([FORMAT, numbers, percent, config.seed, *how]).encode()
    info = {
        "format": FORMAT,
        "sources": list(config.sources),
        "split": config.split,
        "seed": config.seed,
        "counts": dict(zip(SPLITS, counts, strict=True)),
        "unused": int((assigned == UNUSED).sum()),
        "alphabet": "".join(sorted(characters)),
        "max_length": max(lengths, default=0),
        "lengths": {str(length): lengths[length] for length in sorted(lengths)},
        "read": read,
        "settings": {
            "alphabet": config.alphabet,
            "check": config.check,
            "max_length": config.max_length,
            "limit": config.limit,
        },
        "rejects": {
            "total": rejects.counts.total(),
            "counts": dict(rejects.counts.most_common()),
            "listed": rejects.listed,
        },
        "fingerprint": blake2b(mark_array.tobytes() + recipe, digest_size=16).hexdigest(),
    }
    text = json.dumps(info, indent=2, ensure_ascii=False)
    (building / INFO_NAME).write_text(text + "\n", encoding="utf-8")
    return info


def _count_rows(sources: Sequence[str], limit: int | None) -> int | None:
    """Rows to come, for the progress bar, where all sources are shards; looks at every shard before the work begins."""
    total: int | None = 0
    for source in sources:
        path = Path(source)
        if path.is_dir():
            listed = _list(path)
            shards = listed[1]
            if listed[0] or not shards:
                total = None
        elif path.is_file() and path.suffix.lower() == ".parquet":
            shards = [path]
        else:
            shards, total = [], None
        rows = 0
        for shard in shards:
            rows += Shard.open(shard).rows
        if total is not None:
            total += rows if limit is None else min(rows, limit)
    return total


def _iter_parts(config: DatasetConfig, unsplit: Path, out: Path, rejects: _Rejects) -> Iterator[Shard | Spilled]:
    """All samples, as parts that can be read twice; what cannot goes into the file `unsplit`."""
    with unsplit.open("wb") as file:

        def spill(batch: pa.RecordBatch) -> Spilled:
            message, offset = batch.serialize(), file.tell()
            file.write(message)
            file.flush()  # other processes read it now
            return Spilled(unsplit, offset, message.size, batch.num_rows)

        for source in config.sources:
            chunk: list[Sample] = []
            size = 0
            skip = None if Path(source).resolve() == out else out
            for item in _iter_items(source, config.limit, skip):
                if isinstance(item, Reject):
                    rejects.add(item)
                elif isinstance(item, Sample):
                    chunk.append(item)
                    size += len(item.image)
                    if len(chunk) == CHUNK_ROWS or size >= CHUNK_BYTES:
                        yield spill(_to_batch(chunk))
                        chunk, size = [], 0
                else:
                    for part in item.parts():
                        if part.rows > LARGE_GROUP_ROWS:
                            yield from map(spill, part.batches())
                        else:
                            yield part
            if chunk:
                yield spill(_to_batch(chunk))


def _route(
    parts: Sequence[Shard | Spilled],
    folder: Path,
    assigned: np.ndarray,
    originals: dict[int, int],
    counts: Sequence[int],
    config: DatasetConfig,
    rejects: _Rejects,
) -> tuple[Counter[int], set[str]]:
    """Second pass: copy the rows to the shards of their splits, which `assigned` says for each row.

    `originals` says for each duplicate the row that it repeats.

    Returns:
        How many labels there are of each length, and all their characters.
    """
    named = np.zeros(len(assigned), dtype=bool)  # rows that a duplicate's entry will name
    named[list(originals.values())] = True
    kept: dict[int, tuple[str, str]] = {}
    early: list[tuple[int, str, str]] = []  # duplicates of rows that come later
    lengths: Counter[int] = Counter()
    characters: set[str] = set()
    writers = [
        _ShardWriter(folder, split, count, config.shard_size) for split, count in zip(SPLITS, counts, strict=True)
    ]
    start = 0
    try:
        with tqdm(total=len(assigned), unit=" pictures", desc="writing", disable=None) as bar:
            for batch in _ahead(batch for part in parts for batch in part.batches()):
                part = assigned[start : start + batch.num_rows]
                images = batch.column("image")
                sources = images.field("path")
                # A dataset that is published should not tell how its maker's disk is laid out.
                names = pc.replace_substring_regex(sources, FOLDERS, "")
                labels, _ = _clean_labels(batch.column("text").to_pylist(), config)
                batch = _record_batch(images.field("bytes"), names, pa.array(labels, pa.string()))
                for i, writer in enumerate(writers):
                    mine = np.flatnonzero(part == i)
                    if len(mine):
                        writer.add(batch if len(mine) == len(part) else batch.take(pa.array(mine)))
                        texts = [labels[offset] for offset in mine]
                        lengths.update(map(len, texts))
                        characters.update("".join(texts))
                for offset in np.flatnonzero(named[start : start + len(part)] | (part == DUPLICATE)).tolist():
                    source, label = sources[offset].as_py(), labels[offset]
                    if named[start + offset]:
                        kept[start + offset] = (source, label)
                    elif (original := originals[start + offset]) in kept:
                        rejects.add(_duplicate(source, label, *kept[original], config.check))
                    else:
                        early.append((original, source, label))
                start += len(part)
                bar.update(len(part))
        for original, source, label in early:
            rejects.add(_duplicate(source, label, *kept[original], config.check))
    finally:
        for writer in writers:
            writer.close()
    return lengths, characters


def _ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same, with the next one being read by a thread meanwhile: pyarrow reads and writes without the GIL."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, batches, None)
        while (batch := future.result()) is not None:
            future = thread.submit(next, batches, None)
            yield batch


def _duplicate(source: str, text: str, kept_source: str, kept_text: str, check: str) -> Reject:
    if text == kept_text:
        return Reject(source, COPY, f"same {check} and label as {kept_source}")
    return Reject(source, CONTRADICTION, f"labelled {text!r} here and {kept_text!r} in {kept_source}, which is kept")


# -------------------------------------------------------------------------------------------------------------- merge


def parquet_to_parquet(sources: Sequence[str | Path], out_file: str | Path, overwrite: bool = False) -> int:
    """Put parquet files together into one, in the order given (folders: sorted by name), row group by row group.

    Args:
        sources: parquet files and folders of them.
        out_file: the file to write, atomically.
        overwrite: even where it exists.

    Returns:
        The number of rows.

    Raises:
        UserError: a file cannot be read, the columns differ, there is none, or `out_file` is one of them, or exists.
    """
    out_file = Path(out_file)
    if out_file.suffix.lower() != ".parquet" or out_file.is_dir():
        raise UserError(f"{out_file} is no name for a parquet file: give --out a name that ends in .parquet")
    files: list[Path] = []
    for source in map(Path, [sources] if isinstance(sources, (str, Path)) else sources):
        if not source.exists():
            raise UserError(f"there is no {source}: name parquet files or folders of them")
        found = _list_shards(source) if source.is_dir() else [source]
        if not found:
            raise UserError(f"the folder {source} holds no .parquet file: name one that does")
        files += found
    if not files:
        raise UserError("there is nothing to merge: name parquet files or folders of them")
    if out_file.resolve() in [file.resolve() for file in files]:
        raise UserError(f"{out_file} is one of the sources: choose another --out or move it away")
    if out_file.exists() and not overwrite:
        raise UserError(f"{out_file} exists: choose another --out, or --overwrite to replace it")
    schema = _open_parquet(files[0]).schema_arrow
    rows = 0
    for file in files:
        with _open_parquet(file) as shard:
            if not shard.schema_arrow.equals(schema):
                raise UserError(
                    f"{file} has the columns {_describe(shard.schema_arrow)}, but {files[0]} has {_describe(schema)}: "
                    "merge only files with the same columns"
                )
            rows += shard.metadata.num_rows

    def write(path: Path) -> None:
        with (
            _parquet_writer(path, schema) as writer,
            tqdm(total=rows, unit=" rows", desc="merging", disable=None) as bar,
        ):
            for file in files:
                with _open_parquet(file) as shard:
                    for group in _row_groups(_read_batches(shard, file)):
                        writer.write_table(pa.Table.from_batches(group, schema))
                        bar.update(sum(batch.num_rows for batch in group))

    try:
        write_atomically(out_file, write)
    except OSError as error:
        raise UserError(f"{out_file} cannot be written ({error.strerror or _first_line(error)})") from error
    return rows


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Gather batches until they are enough for a row group."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
        if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _list_shards(folder: Path) -> list[Path]:
    folders, shards, *_ = _list(folder)
    return shards + [shard for sub_folder in folders for shard in _list_shards(sub_folder)]


def _describe(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    config = parse_config(DatasetConfig, "Make one clean, split dataset of captchas.", argv, positional="sources")
    if config.merge:
        rows = parquet_to_parquet(config.sources, config.out, config.overwrite)
        print(f"{config.out}: {rows:,} rows")
        return 0
    info = make_dataset(config)
    counts = " / ".join(f"{info['counts'][split]:,} {split}" for split in SPLITS if info["counts"][split])
    print(f"{config.out}: {counts}; labels of {info['alphabet']!r}, up to {info['max_length']} characters")
    if info["unused"]:
        print(f"{info['unused']:,} pictures are in no split, since {info['split']} asks for fewer")
    if info["rejects"]["total"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in info["rejects"]["counts"].items())
        print(f"left out: {reasons} (see {Path(config.out) / REJECTS_NAME})")
    if CONTRADICTION in info["rejects"]["counts"]:
        print(
            "note: some pictures have copies with other labels: kept is the label of most copies, of equally many the "
            f"first; {REJECTS_NAME} has both, look which is right"
        )
    return 0


if __name__ == "__main__":
    run(main)
