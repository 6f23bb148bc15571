"""Bring captchas from anywhere into one clean, split dataset.

    python make_dataset.py my_captchas/ --out data/dataset                 # pictures and their labels
    python make_dataset.py shards/ more.parquet --split 70/0/30 --seed 1   # parquet shards
    python make_dataset.py hub:hammer888/captcha-data:train --limit 50000  # streamed from the Hugging Face Hub
    python make_dataset.py shards/ --merge --out all.parquet               # only put shards together

docs/data.md shows every layout of sources, and where labels come from.

What comes out is a folder of parquet shards that `datasets.load_dataset(DIR)` reads, `dataset.json`, which says what
was kept and what was left out and why, and `rejects.jsonl` with every reject, one a line (dataset.json holds the first
1,000). Two pictures with the same pixels are one picture, whatever the format of their files: the first is kept, and
the split is decided by the pixels and the seed alone, unless the sources have a split of their own. Pictures are never
re-encoded.

With `--check bytes` the pictures are trusted: only the header is looked at, and two pictures are one if their files are
the same, byte for byte. That is for what a program has just written.

How: the first pass reads, checks and hashes the samples in several processes, each of which opens the shards itself;
33 bytes per sample stay in memory, about 100 while they are sorted. Sorting finds the duplicates and decides the split;
the second pass reads the shards again and sorts the rows into those of the splits. Only what cannot be read twice or in
pieces, such as a stream, goes through a temporary file. Everything is built in a hidden folder beside `out`, and the
two change places at the end. A dataset that stands there is replaced if it was made of the same sources, or some of
them, else only with `--overwrite`.
"""

from __future__ import annotations

if __name__ == "__main__":  # Ctrl-C shows no traceback during the seconds that the imports take
    from captcha_reader.cli import quiet_interrupt

    quiet_interrupt()

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from captcha_reader.cli import parse_config, run
from captcha_reader.config import DatasetConfig
from captcha_reader.dataset.checks import RejectLog, check_parts
from captcha_reader.dataset.folders import (
    FORMAT,
    INFO_NAME,
    REJECTS_NAME,
    is_dataset,
    refuse_other_sources,
    replacing,
)
from captcha_reader.dataset.parts import count_rows, iter_parts
from captcha_reader.dataset.route import Plan, route
from captcha_reader.dataset.samples import CONTRADICTION, COPY
from captcha_reader.dataset.shards import (
    Shard,
    Spilled,
    first_line,
    open_parquet,
    read_batches,
)
from captcha_reader.dataset.sources import walk_folder
from captcha_reader.dataset.split import (
    DUPLICATE,
    KEY,
    PSEUDO,
    REJECTED,
    SPLITS,
    UNUSED,
    assign_splits,
    kept_rows,
    parse_split,
)
from captcha_reader.dataset.writer import parquet_writer, row_groups
from captcha_reader.errors import UserError
from captcha_reader.files import relative_paths, write_atomically
from captcha_reader.text import Alphabet

DEFAULT_SPLIT = "80/10/10"
AS_IN_SOURCES = "as in the sources"  # dataset.json says so where the sources' own split is kept


class NoSampleError(UserError):
    """Nothing of the sources can be used.

    Args:
        what: one sentence.
        listed: the first rejects, as dataset.json has them.
        path: the file that has all of them.
    """

    def __init__(self, what: str, listed: list[dict[str, str]], path: Path) -> None:
        super().__init__(f"{what}; {relative_paths(str(path))} has them all")
        self.what, self.listed = what, listed


def make_dataset(config: DatasetConfig) -> dict[str, Any]:
    """Check, deduplicate, split and write the samples of all sources into the folder `config.out`.

    Args:
        config: see `DatasetConfig`; `merge` is not looked at.

    Returns:
        What `dataset.json` holds: `format`, `sources`, `split`, `seed`, `counts` (pictures per split), `unused`
        (pictures beyond the counts of an absolute split), `alphabet` (sorted characters of the labels kept),
        `max_length` (longest label kept), `lengths` (length -> number of labels), `read` (samples looked at),
        `settings` (`alphabet`, `check`, `max_length` and `limit` as configured), `rejects` (`total`, `counts` by
        reason, `listed`: the first 1,000 as source, reason and detail), `notes` (sentences for the user) and
        `fingerprint` (32 hex digits over pictures, labels, split and seed, whatever their order).

    Raises:
        UserError: a source cannot be read, nothing is left of it, the settings make no sense, or `out` holds something
            that is no dataset, or one of other sources, or is itself a source that would lose pictures.
    """
    _check_settings(config)
    out = Path(config.out).absolute()
    try:
        with replacing(out) as building:
            in_place = out.resolve() in [Path(source).resolve() for source in config.sources] and is_dataset(out)
            loses = UserError(f"{relative_paths(str(out))} is a source and would lose pictures: choose another --out")
            if in_place and config.limit is not None:  # before hours of reading
                raise loses
            if not in_place and not config.overwrite:
                refuse_other_sources(out, config.sources)
            info = _build(config, building, out)
            lost = info["unused"] + sum(n for why, n in info["rejects"]["counts"].items() if why != COPY)
            if in_place and lost:
                raise loses
            return info
    except OSError as error:
        where = relative_paths(str(error.filename or out))
        raise UserError(f"{where} cannot be read or written ({error.strerror or first_line(error)})") from error


def _check_settings(config: DatasetConfig) -> None:
    for name, least in (("max_length", 1), ("limit", 1), ("shard_size", 1), ("workers", 1)):
        value = getattr(config, name)
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}: it must be {least} or more")
    if config.split is not None:
        parse_split(config.split)
    if config.alphabet is not None:
        Alphabet.parse(config.alphabet)
    if not config.sources:
        raise UserError("there are no sources: name a parquet file, a folder of shards or pictures, or hub:OWNER/NAME")


@dataclass
class _FirstPass:
    """What the first pass finds; `good`, `keys` and `marks` as in `Checked`, over all parts."""

    parts: list[Shard | Spilled] = field(default_factory=list)
    good: bytearray = field(default_factory=bytearray)
    keys: bytearray = field(default_factory=bytearray)
    marks: bytearray = field(default_factory=bytearray)
    notes: list[str] = field(default_factory=list)

    def read(self, config: DatasetConfig, unsplit: Path, out: Path, rejects: RejectLog) -> None:
        """Read and check all samples; what cannot be read twice goes into the file `unsplit`."""
        total = count_rows(config.sources, config.limit)
        with tqdm(total=total, unit=" pictures", desc="checking", disable=None) as bar:
            parts = iter_parts(config, unsplit, out.resolve(), rejects, self.notes)
            for part, checked in check_parts(parts, config):
                self.parts.append(part)
                self.good += checked.good
                self.keys += checked.keys
                self.marks += checked.marks
                for reject in checked.rejects:
                    rejects.add(reject)
                bar.update(part.rows)

    def given_splits(self) -> np.ndarray:
        """For each row the index into SPLITS that its source gives it, (N,) int8; UNUSED where it gives none."""
        return self._by_part([SPLITS.index(part.split) if part.split in SPLITS else UNUSED for part in self.parts])

    def pseudo(self) -> np.ndarray:
        """Whether each row has a label that nobody typed, (N,) bool."""
        return self._by_part([part.split == PSEUDO for part in self.parts]).astype(bool)

    def _by_part(self, values: Sequence[int]) -> np.ndarray:
        return np.repeat(np.array(values, dtype=np.int8), [part.rows for part in self.parts])

    def good_rows(self) -> np.ndarray:
        """Numbers of the rows that can be used, ascending, (M,) int64."""
        return np.flatnonzero(np.frombuffer(self.good, dtype=np.uint8))

    def plan(self, split: str | None, seed: int) -> Plan:
        """Find the duplicates, and decide the split: the sources' own where `split` is None and they have one."""
        rows = self.good_rows()
        keys = np.frombuffer(self.keys, KEY)
        by_model = self.pseudo()
        pseudo = by_model[rows]
        kept = kept_rows(keys, np.frombuffer(self.marks, KEY), pseudo)
        is_kept = kept == np.arange(len(kept))
        learned = int((is_kept & pseudo).sum())
        assigned = np.full(len(self.good), REJECTED, dtype=np.int8)
        assigned[rows] = DUPLICATE
        given = self.given_splits()[rows]
        given[pseudo] = 0  # learned from and never measured on, whatever the split
        found = [name for i, name in enumerate(SPLITS) if (given == i).any()]
        outside = int((given == UNUSED).sum())
        if split is None and "train" in found and len(found) > 1 and not outside:
            assigned[rows[is_kept]] = given[is_kept]
            self.notes.append(f"the split of the sources is kept ({', '.join(found)}): --split would make another")
            split = AS_IN_SOURCES
        else:
            if set(found) - {"train"}:
                why = f", since {outside:,} pictures are in none of them" if split is None and outside else ""
                split = split or DEFAULT_SPLIT
                self.notes.append(f"the sources' own {', '.join(found)} are split anew, {split}{why}")
            split = split or DEFAULT_SPLIT
            assigned[rows[is_kept]] = assign_splits(keys[is_kept], split, seed, pseudo[is_kept])
        if learned:
            self.notes.append(f"{learned:,} pseudo-labels, which nobody typed, are for training alone")
        originals = dict(zip(rows[~is_kept].tolist(), rows[kept[~is_kept]].tolist(), strict=True))
        return Plan(assigned, originals, split, by_model if learned else None)

    def fingerprint(self, plan: Plan, config: DatasetConfig) -> str:
        """32 hex digits over pictures, labels, split and seed, whatever the order of the rows."""
        assigned = plan.assigned[self.good_rows()]
        marks = np.frombuffer(self.marks, KEY)
        # Pixels and bytes give other keys anyway; named all the same, so that no two recipes look alike.
        how = [] if config.check == "pixels" else [config.check]
        if plan.pseudo is not None:
            by_model = plan.pseudo[self.good_rows()] & (assigned >= 0)
            how.append(_digest(np.sort(marks[by_model]).tobytes(), ["pseudo-labels"]))
        if plan.split == AS_IN_SOURCES:
            parts = [np.sort(marks[assigned == i]).tobytes() for i in range(len(SPLITS))]
            return _digest(b"".join(parts), [FORMAT, plan.split, list(map(len, parts)), *how])
        numbers, percent = parse_split(plan.split)
        return _digest(np.sort(marks[assigned >= 0]).tobytes(), [FORMAT, numbers, percent, config.seed, *how])


def _digest(marks: bytes, recipe: list[Any]) -> str:
    return blake2b(marks + json.dumps(recipe).encode(), digest_size=16).hexdigest()


def _build(config: DatasetConfig, building: Path, out: Path) -> dict[str, Any]:
    """Make the dataset in the folder `building`; returns what its dataset.json holds."""
    first = _FirstPass()
    unsplit, rejects_path = building / "unsplit.arrow", building / REJECTS_NAME
    kept_rejects = out.with_name(f"{out.name}.{REJECTS_NAME}")
    with rejects_path.open("w", encoding="utf-8") as rejects_file:
        rejects = RejectLog(rejects_file)
        first.read(config, unsplit, out, rejects)
        if not first.keys:
            rejects_file.flush()
            shutil.copyfile(rejects_path, kept_rejects)
            what = f"no usable sample in {', '.join(config.sources)}; left out: {rejects.summary()}"
            raise NoSampleError(what, rejects.listed, kept_rejects)
        read = len(first.good_rows()) + rejects.counts.total()
        plan = first.plan(config.split, config.seed)
        labels = route(first.parts, building, plan, config, rejects)
        unsplit.unlink()
    if not rejects.counts:
        rejects_path.unlink()
    kept_rejects.unlink(missing_ok=True)  # of an earlier try
    info = {
        "format": FORMAT,
        "sources": list(config.sources),
        "split": plan.split,
        "seed": config.seed,
        "counts": dict(zip(SPLITS, plan.counts(), strict=True)),
        "unused": int((plan.assigned == UNUSED).sum()),
        "alphabet": "".join(sorted(labels.characters)),
        "max_length": max(labels.lengths, default=0),
        "lengths": {str(length): labels.lengths[length] for length in sorted(labels.lengths)},
        "read": read,
        "settings": {name: getattr(config, name) for name in ("alphabet", "check", "max_length", "limit")},
        "rejects": {
            "total": rejects.counts.total(),
            "counts": dict(rejects.counts.most_common()),
            "listed": rejects.listed,
        },
        "notes": first.notes,
        "fingerprint": first.fingerprint(plan, config),
    }
    text = json.dumps(info, indent=2, ensure_ascii=False)
    (building / INFO_NAME).write_text(text + "\n", encoding="utf-8")
    return info


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
    files = _parquet_files([sources] if isinstance(sources, (str, Path)) else sources)
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


def _parquet_files(sources: Sequence[str | Path]) -> list[Path]:
    """The files that are named, and those in the folders that are named, in order."""
    files: list[Path] = []
    for source in map(Path, sources):
        if not source.exists():
            raise UserError(f"there is no {source}: name parquet files or folders of them")
        found = [path for folder in walk_folder(source) for path in folder.shards] if source.is_dir() else [source]
        if not found:
            raise UserError(f"the folder {source} holds no .parquet file: name one that does")
        files += found
    if not files:
        raise UserError("there is nothing to merge: name parquet files or folders of them")
    return files


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
    for note in info["notes"]:
        print(f"note: {note}")
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
