"""Bring captchas from anywhere into one clean, split dataset.

    python make_dataset.py my_captchas/ --out data/dataset                # pictures named by their labels
    python make_dataset.py shards/ more.parquet --split 70/0/30 --seed 1  # parquet shards
    python make_dataset.py hub:hammer888/captcha-data:train --limit 50000 # streamed from the Hugging Face Hub
    python make_dataset.py shards/ --merge true --out all.parquet              # only put shards together

Sources, each documented with an example in docs/data.md:

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

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from captcha_reader.cli import parse_config, run
from captcha_reader.config import DatasetConfig
from captcha_reader.dataset.checks import RejectLog, check_parts, content_hash
from captcha_reader.dataset.folders import (
    FEEDBACK,
    FORMAT,
    GENERATED,
    INFO_NAME,
    REJECTS_NAME,
    found_in,
    is_dataset,
    load_info,
    refuse_other_sources,
    replacing,
)
from captcha_reader.dataset.labels import LabelFile, clean_labels, label_fault, label_from_name, parse_label
from captcha_reader.dataset.parts import count_rows, iter_parts
from captcha_reader.dataset.samples import CONTRADICTION, COPY, Reject, Sample
from captcha_reader.dataset.shards import (
    Shard,
    Spilled,
    first_line,
    open_parquet,
    read_batches,
)
from captcha_reader.dataset.sources import iter_source, list_folder
from captcha_reader.dataset.split import (
    DUPLICATE,
    KEY,
    REJECTED,
    SPLITS,
    UNUSED,
    assign_splits,
    kept_rows,
    parse_split,
)
from captcha_reader.dataset.writer import SCHEMA, ShardWriter, parquet_writer, record_batch, row_groups
from captcha_reader.errors import UserError
from captcha_reader.files import write_atomically
from captcha_reader.text import Alphabet

__all__ = [  # what other scripts take from here
    "FEEDBACK",
    "GENERATED",
    "SCHEMA",
    "SPLITS",
    "LabelFile",
    "Sample",
    "content_hash",
    "found_in",
    "is_dataset",
    "iter_source",
    "label_fault",
    "label_from_name",
    "load_info",
    "make_dataset",
    "parquet_to_parquet",
    "parse_label",
]

FOLDERS = rf"(?s)^.*[/{re.escape(os.sep)}]"  # of a path


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
        refuse_other_sources(out, config.sources)
    try:
        with replacing(out) as building:
            info = _build(config, building, out.resolve())
            lost = info["unused"] + sum(n for why, n in info["rejects"]["counts"].items() if why != COPY)
            if in_place and lost:
                raise loses
            return info
    except OSError as error:
        where = error.filename or out
        raise UserError(f"{where} cannot be read or written ({error.strerror or first_line(error)})") from error


def _build(config: DatasetConfig, building: Path, out: Path) -> dict[str, Any]:
    parts: list[Shard | Spilled] = []
    good, keys, marks = bytearray(), bytearray(), bytearray()  # as in Checked
    unsplit = building / "unsplit.arrow"
    with (building / REJECTS_NAME).open("w", encoding="utf-8") as rejects_file:
        rejects = RejectLog(rejects_file)
        total = count_rows(config.sources, config.limit)
        with tqdm(total=total, unit=" pictures", desc="checking", disable=None) as bar:
            for part, checked in check_parts(iter_parts(config, unsplit, out, rejects), config):
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
        kept = kept_rows(key_array, np.frombuffer(marks, KEY))
        is_kept = kept == np.arange(len(kept))
        assigned = np.full(len(good), REJECTED, dtype=np.int8)
        assigned[rows] = DUPLICATE
        assigned[rows[is_kept]] = assign_splits(key_array[is_kept], config.split, config.seed)
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


def _route(
    parts: Sequence[Shard | Spilled],
    folder: Path,
    assigned: np.ndarray,
    originals: dict[int, int],
    counts: Sequence[int],
    config: DatasetConfig,
    rejects: RejectLog,
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
        ShardWriter(folder, split, count, config.shard_size) for split, count in zip(SPLITS, counts, strict=True)
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
                labels, _ = clean_labels(batch.column("text").to_pylist(), config)
                batch = record_batch(images.field("bytes"), names, pa.array(labels, pa.string()))
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
    schema = open_parquet(files[0]).schema_arrow
    rows = 0
    for file in files:
        with open_parquet(file) as shard:
            if not shard.schema_arrow.equals(schema):
                raise UserError(
                    f"{file} has the columns {_describe(shard.schema_arrow)}, but {files[0]} has {_describe(schema)}: "
                    "merge only files with the same columns"
                )
            rows += shard.metadata.num_rows

    def write(path: Path) -> None:
        with (
            parquet_writer(path, schema) as writer,
            tqdm(total=rows, unit=" rows", desc="merging", disable=None) as bar,
        ):
            for file in files:
                with open_parquet(file) as shard:
                    for group in row_groups(read_batches(shard, file)):
                        writer.write_table(pa.Table.from_batches(group, schema))
                        bar.update(sum(batch.num_rows for batch in group))

    try:
        write_atomically(out_file, write)
    except OSError as error:
        raise UserError(f"{out_file} cannot be written ({error.strerror or first_line(error)})") from error
    return rows


def _list_shards(folder: Path) -> list[Path]:
    folders, shards, *_ = list_folder(folder)
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
